"""Chart.yaml's fields, and the index entry made of them: what Helm itself would write, and nothing else.

Helm reads an index strictly: one unknown key or wrong type anywhere makes the whole repository unreadable. So only known
fields are taken (`pkg/chart/v2/metadata.go`), each in its own type, empty ones left out, in Helm's order.

An entry is kept as its JSON text. What is published is read strictly, and refused for what Helm refuses; of an upstream's
entry a field that is not right is left out, and the entry where its name or version is not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from repoman.core.errors import ContentInvalid, NameInvalid
from repoman.core.names import shown

from . import names
from .chartyaml import DEPTH, text_of

ENTRY_BYTES = 512 * 1024
ITEMS_MOST = 1_000  # of one list or mapping
API_VERSIONS = ("v1", "v2")
TYPES = ("application", "library")
_ALIAS = re.compile(r"[a-zA-Z0-9_-]+\Z")
_SPACES = frozenset(
    "\t\n\v\f\r \u0085\u00a0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
)
Kind = Callable[[Any, str], Any]


def entry_of(found: object, required: object = None) -> tuple[str, str, str]:
    """Name, version and index entry of what Chart.yaml holds, with the dependencies in what requirements.yaml does, where
    there is one. Raises ContentInvalid, NameInvalid saying what is wrong."""
    if not isinstance(found, dict):
        raise ContentInvalid("Chart.yaml is no mapping")
    given = _by_field(found, is_strict=True)
    if required is not None:
        given = _with_required(given, required)
    fields = {name: kind(given.get(name), name) for name, kind in _FIELDS.items()}
    fields["apiVersion"] = fields["apiVersion"] or "v1"  # as charts for Helm 2 were written
    if fields["apiVersion"] not in API_VERSIONS:
        raise ContentInvalid(
            f"Chart.yaml has apiVersion '{shown(fields['apiVersion'])}'; known are {' and '.join(API_VERSIONS)}"
        )
    for name in ("name", "version"):
        if not fields[name]:
            raise ContentInvalid(f"Chart.yaml has no {name}")
    if fields["name"] != _plain(given["name"], "name"):
        raise NameInvalid("the chart's name contains characters that cannot be printed")
    if fields["type"] not in ("", *TYPES):
        raise ContentInvalid(f"Chart.yaml has type '{shown(fields['type'])}'; known are {' and '.join(TYPES)}")
    names.check_name(fields["name"])
    names.check_version(fields["version"])
    names.file_name(fields["name"], fields["version"])
    return fields["name"], fields["version"], _text(fields)


def upstream_entry(found: Mapping[str, object]) -> tuple[str, str, str]:
    """As `entry_of`, of an upstream's entry. Raises ContentInvalid, NameInvalid where it cannot be kept at all."""
    given = _by_field(found, is_strict=False)
    fields: dict[str, Any] = {}
    for name, kind in _FIELDS.items():
        try:
            fields[name] = kind(given.get(name), name)
        except ContentInvalid:
            if name in ("name", "version"):
                raise
    name, version = names.check_name(fields["name"]), names.check_version(fields["version"])
    names.file_name(name, version)
    fields["apiVersion"] = fields.get("apiVersion") or "v1"
    if fields.get("type") not in ("", *TYPES):
        fields.pop("type", None)
    return name, version, _text(fields)


def _with_required(given: dict[str, object], required: object) -> dict[str, object]:
    """Helm reads requirements.yaml, where charts for Helm 2 have their dependencies, over what Chart.yaml said, item by item
    of the list. There it would also take another name or version, so that is refused."""
    if not isinstance(required, dict):
        raise ContentInvalid("requirements.yaml is no mapping")
    told = _by_field(required, is_strict=True)
    for name in told.keys() - {"dependencies"}:
        raise ContentInvalid(f"requirements.yaml has '{name}', which belongs into Chart.yaml")
    if "dependencies" not in told:
        return given
    before, items = given.get("dependencies"), told["dependencies"]
    _dependencies(before, "dependencies")
    try:
        _dependencies(items, "dependencies")
    except ContentInvalid as error:
        raise ContentInvalid(error.message.replace("Chart.yaml", "requirements.yaml", 1)) from None
    if isinstance(before, list) and isinstance(items, list):
        over = [{**old, **new} for old, new in zip(before, items, strict=False)]
        items = [*over, *items[len(over) :]]
    return {**given, "dependencies": items}


def _by_field(found: Mapping[str, object], *, is_strict: bool) -> dict[str, object]:
    """The known fields. Go takes any case for a key; where two are for one field, it depends on the order."""
    given: dict[str, object] = {}
    for key, value in found.items():
        name = _NAMES.get(key.lower())
        if name is None:
            continue
        if name in given and is_strict:
            raise ContentInvalid(f"Chart.yaml has '{name}' in two spellings")
        if name not in given or key == name:
            given[name] = value
    return given


def _text(fields: Mapping[str, Any]) -> str:
    kept = {name: fields[name] for name in _FIELDS if fields.get(name)}
    text = orjson.dumps(kept).decode()
    if len(text) > ENTRY_BYTES:
        raise ContentInvalid(f"Chart.yaml says more than the {ENTRY_BYTES} bytes that an index takes of one chart")
    return text


# --- types -----------------------------------------------------------------------------------------------------------


def _string(value: Any, where: str) -> str:
    """As Helm's `sanitizeString` leaves it: white space as spaces, and nothing that cannot be printed."""
    text = _plain(value, where)
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        " " if character in _SPACES else character
        for character in text
        if character in _SPACES or character.isprintable()
    )


def _plain(value: Any, where: str) -> str:
    if isinstance(value, dict | list):
        raise ContentInvalid(f"Chart.yaml: '{where}' must be a text")
    text = text_of(value)
    if "\0" in text or (not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)):
        raise ContentInvalid(f"Chart.yaml: '{where}' contains a NUL character or half of a surrogate pair")
    return text


def _bool(value: Any, where: str) -> bool:
    if value is not None and not isinstance(value, bool):
        raise ContentInvalid(f"Chart.yaml: '{where}' must be true or false")
    return bool(value)


def _list(value: Any, where: str) -> list[Any]:
    if value is not None and not isinstance(value, list):
        raise ContentInvalid(f"Chart.yaml: '{where}' must be a list")
    if value is not None and len(value) > ITEMS_MOST:
        raise ContentInvalid(f"Chart.yaml: '{where}' has more than {ITEMS_MOST} items")
    return value or []


def _strings(value: Any, where: str) -> list[str]:
    return [_string(item, where) for item in _list(value, where)]


def _annotations(value: Any, where: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ContentInvalid(f"Chart.yaml: '{where}' must be a mapping of texts")
    if len(value) > ITEMS_MOST:
        raise ContentInvalid(f"Chart.yaml: '{where}' has more than {ITEMS_MOST} items")
    return {_plain(key, where): _plain(value[key], f"{where}.{key[:80]}") for key in sorted(value)}


def _objects(value: Any, where: str, kinds: Mapping[str, Kind], always: frozenset[str]) -> list[dict[str, Any]]:
    found = []
    for item in _list(value, where):
        if not isinstance(item, dict):
            raise ContentInvalid(f"Chart.yaml: '{where}' has an item that is empty or no mapping")
        kept = {name: kind(item.get(name), f"{where}.{name}") for name, kind in kinds.items()}
        found.append({name: one for name, one in kept.items() if one or name in always})
    return found


def _maintainers(value: Any, where: str) -> list[dict[str, Any]]:
    return _objects(value, where, {"name": _string, "email": _string, "url": _string}, frozenset())


def _dependencies(value: Any, where: str) -> list[dict[str, Any]]:
    found = _objects(value, where, _DEPENDENCY, frozenset({"name", "repository"}))
    taken: set[str] = set()
    for item in found:
        alias = item.get("alias", "")
        if alias and _ALIAS.match(alias) is None:
            raise ContentInvalid(
                f"Chart.yaml: dependency '{shown(item['name'])}' has an alias with other characters than letters, "
                "digits, '_' and '-'"
            )
        if (alias or item["name"]) in taken:
            raise ContentInvalid(f"Chart.yaml has two dependencies '{shown(alias or item['name'])}'")
        taken.add(alias or item["name"])
    return found


def _values(value: Any, where: str) -> list[Any]:
    return [_any(item, where) for item in _list(value, where)]


def _any(value: Any, where: str, depth: int = 0) -> Any:
    if depth > DEPTH:
        raise ContentInvalid(f"Chart.yaml: '{where}' is nested deeper than {DEPTH} levels")
    if isinstance(value, dict):
        return {_plain(key, where): _any(value[key], where, depth + 1) for key in sorted(value)}
    if isinstance(value, list):
        return [_any(item, where, depth + 1) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ContentInvalid(f"Chart.yaml: '{where}' contains a number that JSON does not have")
    if isinstance(value, str):
        return _plain(value, where)
    return value


# In the order in which Helm writes them.
_DEPENDENCY: dict[str, Kind] = {
    "name": _string,
    "version": _string,
    "repository": _string,
    "condition": _string,
    "tags": _strings,
    "enabled": _bool,
    "import-values": _values,
    "alias": _plain,
}
_FIELDS: dict[str, Kind] = {
    "name": _string,
    "home": _string,
    "sources": _strings,
    "version": _plain,
    "description": _string,
    "keywords": _strings,
    "maintainers": _maintainers,
    "icon": _string,
    "apiVersion": _plain,
    "condition": _string,
    "tags": _string,
    "appVersion": _string,
    "deprecated": _bool,
    "annotations": _annotations,
    "kubeVersion": _string,
    "dependencies": _dependencies,
    "type": _plain,
}
_NAMES = {name.lower(): name for name in _FIELDS}
