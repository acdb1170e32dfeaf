"""Project names, versions and file names.

PEP 503 (names), PEP 440 (versions), PEP 427 and the binary distribution format (wheels), PEP 625 and the source
distribution format (sdists). What is uploaded is judged strictly; what an upstream has is read as far as it goes.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from repoman.core.errors import NameInvalid, NotFound
from repoman.core.names import shown

NAME_LENGTH = 200
VERSION_LENGTH = 200
FILENAME_BYTES = 240  # a side file's name (`<file>.provenance`) must fit into 255
METADATA_SUFFIX = ".metadata"
PROVENANCE_SUFFIX = ".provenance"
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\Z")
_RUN = re.compile(r"[-_.]+")
# What pip takes for an sdist; only the first is accepted from those who upload (PEP 625).
_SDIST_SUFFIXES = (
    ".tar.gz",
    ".zip",
    ".tgz",
    ".tar.bz2",
    ".tbz",
    ".tar.xz",
    ".txz",
    ".tar.lzma",
    ".tlz",
    ".tar.lz",
    ".tar",
)


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a file name says. `kind` is "wheel" or "sdist"; `python` the wheel's Python tag, as in the JSON API."""

    filename: str
    project: str
    version: Version
    kind: str
    python: str = "source"

    @property
    def release(self) -> str:
        """The version as rows hold it: PEP 440's normal form."""
        return str(self.version)


def normalize(name: str) -> str:
    """The project's key (PEP 503): lower case, runs of `-`, `_` and `.` as one `-`. Raises NameInvalid."""
    if len(name) > NAME_LENGTH or _NAME.match(name) is None:
        raise NameInvalid(
            f"'{shown(name)}' is not a project name: use at most {NAME_LENGTH} letters, digits, '.', '_' and '-', with a "
            "letter or digit first and last"
        )
    return _RUN.sub("-", name).lower()


def known_name(name: str) -> str:
    """As `normalize`, for a project that is asked for: what cannot be a name is not found."""
    try:
        return normalize(name)
    except NameInvalid:
        raise NotFound(f"there is no project '{shown(name)}'") from None


@lru_cache(maxsize=16_384)
def parse_version(text: str) -> Version | None:
    """None for what PEP 440 does not know (a legacy version)."""
    if len(text) > VERSION_LENGTH or not text.isascii():
        return None
    try:
        return Version(text)
    except InvalidVersion:
        return None


def check_version(text: str) -> Version:
    found = parse_version(text)
    if found is None:
        raise NameInvalid(f"'{shown(text)}' is not a version (PEP 440)")
    return found


def version_key(text: str) -> Any:
    """Sorts any text: legacy versions first, then by PEP 440, equal ones by how they are written."""
    version = parse_version(text)
    return (0, text) if version is None else (1, version, text)


def check_filename(name: str) -> str:
    """A file name that means the same everywhere. Raises NameInvalid (THREATS A1, A3, A7)."""
    if not name or len(name.encode("utf-8", "replace")) > FILENAME_BYTES:
        raise NameInvalid(f"a file name has 1 to {FILENAME_BYTES} bytes")
    if name[0] == "." or "/" in name or "\\" in name or not name.isprintable() or " " in name:
        raise NameInvalid(
            f"'{shown(name)}' cannot be a file name: no separators, spaces, control characters or leading dot"
        )
    if unicodedata.normalize("NFKC", name) != name or not name.isascii():
        raise NameInvalid(f"'{shown(name)}' cannot be a file name: use ASCII only")
    return name


def parse_upload(filename: str, project: str) -> Distribution:
    """The name of a file to be published in the project: a wheel or a `.tar.gz` sdist. Raises NameInvalid.

    Old tools leave capitals and dots in the name part; installers read those as well, so they are allowed. What the name
    means is found out with the project's name in hand: `a-1-2.tar.gz` is version 2 of `a-1`, or 1.post2 of `a`.
    """
    check_filename(filename)
    if filename.endswith(".whl"):
        found = _wheel(filename)
        if found is None:
            raise NameInvalid(
                f"'{filename}' is not a wheel's name: name-version(-build)-python-abi-platform.whl (PEP 427)"
            )
        if found.project != project:
            raise NameInvalid(f"'{filename}' is a file of the project '{found.project}', not of '{project}'")
        return found
    if filename.endswith(".tar.gz"):
        version = _version_after(filename.removesuffix(".tar.gz"), project)
        if version is None:
            raise NameInvalid(f"'{filename}' is not an sdist's name in '{project}': name-version.tar.gz (PEP 625)")
        return Distribution(filename, project, version, "sdist")
    raise NameInvalid(f"'{filename}' is neither a wheel (.whl) nor a source distribution (.tar.gz)")


def parse_listed(filename: str, project: str) -> Distribution | None:
    """What an upstream's file is, or None for what no installer of today takes: eggs, installers, legacy versions,
    other projects' files. An sdist's name is read with the project's name in hand, since old ones have hyphens in both
    parts."""
    try:
        check_filename(filename)
    except NameInvalid:
        return None
    if filename.lower().endswith(".whl"):
        found = _wheel(filename)
        return found if found is not None and found.project == project else None
    for suffix in _SDIST_SUFFIXES:
        if filename.lower().endswith(suffix):
            version = _version_after(filename[: -len(suffix)], project)
            return None if version is None else Distribution(filename, project, version, "sdist")
    return None


def looks_like_distribution(filename: str) -> bool:
    return filename.lower().endswith((".whl", ".egg", ".exe", *_SDIST_SUFFIXES))


def link(filename: str) -> str:
    """A file name in an address. `+` too is escaped: some take it for a space."""
    return quote(filename, safe="-._~!")


def _wheel(filename: str) -> Distribution | None:
    try:
        project, version, _, _ = parse_wheel_filename(filename[:-4] + ".whl")
    except (InvalidWheelFilename, ValueError):
        return None
    if len(str(version)) > VERSION_LENGTH or len(project) > NAME_LENGTH or _NAME.match(project) is None:
        return None
    return Distribution(filename, project, version, "wheel", filename[:-4].split("-")[-3])


def _version_after(stem: str, project: str) -> Version | None:
    """The version in `name-version`, tried at every hyphen where the part before is the project's name."""
    at = stem.find("-")
    while at >= 0:
        if _RUN.sub("-", stem[:at]).lower() == project:
            version = parse_version(stem[at + 1 :])
            if version is not None:
                return version
        at = stem.find("-", at + 1)
    return None
