"""The upload form, from its fields to a publication. Pure: what needs the repository is in `views.py`.

The legacy API as its clients speak it; see the table in README.md for who sends what. Fields may come in any order, are
absent where they are empty, and decide nothing that the archive says itself: name and version must agree with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from repoman.core.errors import BadRequest, DigestInvalid
from repoman.core.names import shown
from repoman.core.records import Staged
from repoman.core.wire import Part, Parts

from .names import Distribution, check_version, normalize, parse_upload

# The form's names for digests, and the blob store's. BLAKE2b has 32 bytes of output here.
DIGESTS: Mapping[str, str] = {"md5_digest": "md5", "sha256_digest": "sha256", "blake2_256_digest": "blake2b_256"}
ALGORITHMS = ("md5", "blake2b_256")  # sha256 is always there
HEX_LENGTH: Mapping[str, int] = {"md5": 32, "sha256": 64, "blake2b_256": 64}
FIELD_BYTES = 8 * 1024 * 1024  # of all fields together: descriptions and attestations are the long ones
FIELDS_MOST = 10_000
_HEX = re.compile(r"[0-9a-fA-F]+\Z")
_KINDS: Mapping[str, str] = {"sdist": "sdist", "bdist_wheel": "wheel"}
# Everything the API knows as text; one of them sent as a file is a mistake of the client.
_TEXT_FIELDS = frozenset(
    """
    :action protocol_version metadata_version name version filetype pyversion comment md5_digest sha256_digest
    blake2_256_digest attestations summary description description_content_type author author_email maintainer
    maintainer_email license license_expression home_page download_url requires_python keywords classifiers platform
    platforms supported_platform requires_dist provides_dist obsoletes_dist requires_external project_urls
    provides_extra dynamic license_file license_files import_name import_namespace requires provides obsoletes
    """.split()
)


@dataclass(frozen=True, slots=True)
class Upload:
    """A form that holds together. `digests` are those the client gave, in lower case."""

    distribution: Distribution
    staged: Staged
    media_type: str
    digests: Mapping[str, str]
    attestations: str = ""


def read_form(parts: Parts) -> Upload:
    """Raises BadRequest, NameInvalid, DigestInvalid."""
    fields: dict[str, list[str]] = {}
    contents: list[Part] = []
    for part in parts.parts:
        if part.staged is not None:
            if part.name == "content":
                contents.append(part)
            elif part.name in _TEXT_FIELDS:
                raise BadRequest(f"the field '{part.name}' is text, not a file")
        else:
            fields.setdefault(part.name, []).append(_text(part))
    _check_action(fields)
    if len(contents) != 1 or "content" in fields:
        raise BadRequest("the form must have exactly one file, in the field 'content'")
    content = contents[0]
    assert content.staged is not None
    project = normalize(_needed(fields, "name"))
    version = check_version(_needed(fields, "version"))
    kind = _KINDS.get(_needed(fields, "filetype"))
    if kind is None:
        raise BadRequest(
            "'filetype' must be 'sdist' or 'bdist_wheel'; other kinds are no longer taken (PEP 527, PEP 715)"
        )
    distribution = parse_upload(content.filename, project)
    if distribution.kind != kind:
        raise BadRequest(f"'{distribution.filename}' is not a file of type '{_one(fields, 'filetype')}'")
    if distribution.version != version:
        raise BadRequest(f"'{distribution.filename}' is not a file of version {shown(_one(fields, 'version'))}")
    return Upload(
        distribution=distribution,
        staged=content.staged,
        media_type=content.media_type,
        digests=_digests(fields),
        attestations=_one(fields, "attestations"),
    )


def sums_of(staged: Staged) -> dict[str, str]:
    """All digests that were computed while the file came, by the blob store's names."""
    return {"sha256": staged.digest.hex, **{name: staged.others[name] for name in ALGORITHMS if name in staged.others}}


def compare(given: Mapping[str, str], computed: Mapping[str, str]) -> None:
    """Raises DigestInvalid for the first digest that the file does not have (THREATS C1, C3)."""
    for name, value in given.items():
        if computed.get(name) != value:
            raise DigestInvalid(
                f"the file does not have the {name} that was sent with it; nothing was stored",
                algorithm=name,
                expected=value,
                actual=computed.get(name, ""),
            )


def _text(part: Part) -> str:
    try:
        text = part.data.decode("utf-8", "strict")
    except UnicodeDecodeError:
        raise BadRequest(f"the field '{shown(part.name)}' is not UTF-8") from None
    if "\0" in text:
        raise BadRequest(f"the field '{shown(part.name)}' contains a NUL character")
    return text


def _check_action(fields: Mapping[str, Sequence[str]]) -> None:
    action = _one(fields, ":action")
    if action != "file_upload":
        raise BadRequest(f"':action' must be 'file_upload'; '{shown(action)}' is not known here")
    if _one(fields, "protocol_version") not in ("", "1"):
        raise BadRequest("'protocol_version' must be 1")


def _one(fields: Mapping[str, Sequence[str]], name: str) -> str:
    """The field's value, "" where it is absent. Raises BadRequest where two differ."""
    values = {value.strip() for value in fields.get(name, ())} - {""}
    if len(values) > 1:
        raise BadRequest(f"the field '{name}' is there twice with different values")
    return values.pop() if values else ""


def _needed(fields: Mapping[str, Sequence[str]], name: str) -> str:
    value = _one(fields, name)
    if not value:
        raise BadRequest(f"the field '{name}' is missing")
    return value


def _digests(fields: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Those that were given, at least one. Raises DigestInvalid."""
    found: dict[str, str] = {}
    for field, name in DIGESTS.items():
        value = _one(fields, field)
        if not value:
            continue
        if len(value) != HEX_LENGTH[name] or _HEX.match(value) is None:
            raise DigestInvalid(f"'{field}' must have {HEX_LENGTH[name]} hexadecimal characters")
        found[name] = value.lower()
    if not found:
        raise DigestInvalid(f"the form has no digest of the file: send one of {', '.join(DIGESTS)}")
    return found
