"""Names, versions and file names of charts, as Helm's own parser takes them, within what every format here takes.

A name is anything without a path separator, a version is what Masterminds/semver's `NewVersion` reads: semver.org 2.0.0,
and looser spellings such as `v1.2` and `1.0`. Both are kept verbatim: `1.0`, `1.0.0` and `1.0.0+a` are three versions.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Any

from repoman.core.errors import NameInvalid
from repoman.core.names import check_path, shown
from repoman.core.refs import FileRef

CHART = ".tgz"
PROVENANCE = ".prov"
FILE_BYTES = 255  # of `<name>-<version>.tgz.prov`, which clients keep under this name
VERSION_LENGTH = 128
_LARGEST = 2**64 - 1
_IDENTIFIERS = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_LOOSE = re.compile(
    rf"v?(?P<major>[0-9]+)(?:\.(?P<minor>[0-9]+))?(?:\.(?P<patch>[0-9]+))?"
    rf"(?:-(?P<pre>{_IDENTIFIERS}))?(?:\+(?P<build>{_IDENTIFIERS}))?\Z"
)
_CUT = re.compile(r"-(?=v?[0-9])")  # where a version may begin
_STRICT = re.compile(rf"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*)){{2}}(?:-{_IDENTIFIERS})?(?:\+{_IDENTIFIERS})?\Z")


def check_name(name: str) -> str:
    """Raises NameInvalid. Names that look alike, or would not be one segment of an address, are refused."""
    if "/" in name or check_path(name) != name or unicodedata.normalize("NFKC", name) != name:
        raise NameInvalid(f"'{shown(name)}' cannot be a chart's name: it is not one plain segment of an address")
    if name.startswith("-") or not name.isprintable() or "%" in name:
        raise NameInvalid(f"'{shown(name)}' cannot be a chart's name: it begins with '-' or contains '%' or control")
    return name


def check_version(version: str) -> str:
    """Raises NameInvalid for all that Helm does not take as a version."""
    if not is_version(version):
        raise NameInvalid(f"'{shown(version)}' is not a version such as 1.2.3, 1.2.3-beta.1 or v1.2")
    return version


def is_version(text: str) -> bool:
    return _match(text) is not None


def is_stable(version: str) -> bool:
    """Whether `latest` may be this version."""
    match = _match(version)
    return match is not None and match["pre"] is None


def _match(text: str) -> re.Match[str] | None:
    match = _LOOSE.match(text) if len(text) <= VERSION_LENGTH else None
    if match is None or any(int(match[part] or 0) > _LARGEST for part in ("major", "minor", "patch")):
        return None
    identifiers = (match["pre"] or "").split(".")
    if any(len(one) > 1 and one[0] == "0" and one.isdigit() for one in identifiers):
        return None
    return match


@lru_cache(maxsize=65_536)
def version_key(version: str) -> Any:
    """Semver precedence, lowest first; what is no version comes before all. Spellings of one version are equal in it."""
    match = _match(version)
    if match is None:
        return (0, version)
    numbers = tuple(int(match[part] or 0) for part in ("major", "minor", "patch"))
    if match["pre"] is None:
        return (1, *numbers, 1, ())
    identifiers = tuple((0, int(one), "") if one.isdigit() else (1, 0, one) for one in match["pre"].split("."))
    return (1, *numbers, 0, identifiers)


def file_name(name: str, version: str) -> str:
    """`<name>-<version>.tgz`. Raises NameInvalid where that is longer than a file's name may be."""
    file = f"{name}-{version}{CHART}"
    if len(file.encode()) + len(PROVENANCE) > FILE_BYTES:
        raise NameInvalid(f"name and version together are longer than the {FILE_BYTES} bytes of a file's name")
    return file


@lru_cache(maxsize=4096)
def readings(file: str) -> tuple[tuple[str, str], ...]:
    """What an archive of this name, or the provenance beside it, can be: (chart, version), the likeliest first.

    Both parts may have dashes (`foo-1-2.0.0.tgz`), so that only what is published tells which of them it is.
    """
    stem = file.removesuffix(PROVENANCE)
    if not stem.endswith(CHART) or len(file) > FILE_BYTES:
        return ()
    stem = stem.removesuffix(CHART)
    cuts = [at for at, character in enumerate(stem) if character == "-" and at]
    found = [(stem[:at], stem[at + 1 :]) for at in cuts if is_version(stem[at + 1 :])]
    return tuple(sorted(found, key=lambda pair: _STRICT.match(pair[1]) is None))


def folder(file: str, version: str) -> str:
    """The chart's name where its archive `file` has to be asked for below it, because another chart could have a file of
    that name; "" for most."""
    if len(_CUT.findall(file, 1)) < 2 or len(readings(file)) < 2:
        return ""
    return file[: -len(f"-{version}{CHART}")]


def refs(file: str, name: str = "") -> tuple[FileRef, ...]:
    """What a file of this name can be, the likeliest first; below the name of a chart, that chart's only."""
    return tuple(FileRef(chart, file) for chart, _ in readings(file) if name in ("", chart))
