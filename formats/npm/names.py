"""Names, versions and tags: what may be published, what may only be looked up, and how they sort.

Names: validate-npm-package-name (npm 12). Versions: semver.org 2.0.0, in the strict form that npm publishes. Tags: npm's
`npm dist-tag`, "Caveats": a tag must not be a valid range.
"""

from __future__ import annotations

import re
from typing import Any

from repoman.core.errors import NameInvalid
from repoman.core.names import shown

NAME_LENGTH = 214
VERSION_LENGTH = 256
FILE_LENGTH = 255
TAG_LENGTH = 128
LATEST = "latest"
_LARGEST = 2**53 - 1  # Number.MAX_SAFE_INTEGER, which semver's own implementation does not go past
_NEW_PART = re.compile(r"[a-z0-9][a-z0-9._-]*\Z")
# What the public registry took in its first years: upper case, and what encodeURIComponent leaves alone.
_KNOWN_PART = re.compile(r"[A-Za-z0-9_~!*'()][A-Za-z0-9._~!*'()-]*\Z")
_FORBIDDEN = frozenset({"node_modules", "favicon.ico"})
_NUMBER = r"(?:0|[1-9][0-9]*)"
_IDENTIFIER = rf"(?:{_NUMBER}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = re.compile(
    rf"(?P<major>{_NUMBER})\.(?P<minor>{_NUMBER})\.(?P<patch>{_NUMBER})"
    rf"(?:-(?P<pre>{_IDENTIFIER}(?:\.{_IDENTIFIER})*))?(?:\+(?P<build>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?\Z"
)
_TAG = re.compile(r"[A-Za-z0-9_~][A-Za-z0-9._~-]*\Z")
# A range of one comparator, as far as the characters of a tag can spell one: `1`, `v1.x`, `~2.0`, `1.2.3-rc.1`, `x`.
_WILD = r"(?:[0-9]+|[xX])"
_RANGE = re.compile(rf"~?v?{_WILD}(?:\.{_WILD}(?:\.{_WILD}(?:-?[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?)?)?\Z")
_FILE = re.compile(r"[A-Za-z0-9@_~!*'()][A-Za-z0-9._~!*'()+@-]*\Z")
# `/@scope%2fname`, `/%40scope%2Fname`: the one separator that clients write encoded.
_ENCODED_SCOPE = re.compile(rb"(/(?:@|%40)[^/%]+)%2[fF](?=[^/%])")
_DOUBLED_SLASH = re.compile(rb"\A(/[^/]+/[^/]+/[^/]+)//(?=[^/])")


def check_name(name: str) -> str:
    """A name that may be looked up: old mixed-case ones exist at upstreams. Raises NameInvalid."""
    scope, base = split(name)
    if len(name) > NAME_LENGTH:
        raise NameInvalid(f"the package name is longer than {NAME_LENGTH} characters")
    if (scope and _KNOWN_PART.match(scope) is None) or _KNOWN_PART.match(base) is None or base in _FORBIDDEN:
        raise NameInvalid(f"'{shown(name)}' is not a valid package name")
    return name


def check_new_name(name: str) -> str:
    """A name that may be published (contract 2.5). Raises NameInvalid saying what is wrong with it."""
    check_name(name)
    scope, base = split(name)
    for part, what in ((scope, "scope"), (base, "name")):
        if part and _NEW_PART.match(part) is None:
            raise NameInvalid(
                f"'{shown(name)}' cannot be published: a {what} has lower-case letters, digits, '.', '_' and '-', "
                "and begins with a letter or digit"
            )
    return name


def split(name: str) -> tuple[str, str]:
    """Scope without its `@` ("" for none) and the name in it."""
    if name.startswith("@") and "/" in name:
        scope, _, base = name[1:].partition("/")
        if scope:
            return scope, base
    return "", name


def check_version(version: str) -> str:
    """Raises NameInvalid for all but a strict semantic version."""
    match = _VERSION.match(version) if len(version) <= VERSION_LENGTH else None
    if match is None or any(int(match[part]) > _LARGEST for part in ("major", "minor", "patch")):
        raise NameInvalid(f"'{shown(version)}' is not a semantic version such as 1.2.3 or 1.2.3-beta.1")
    return version


def is_version(text: str) -> bool:
    return len(text) <= VERSION_LENGTH and _VERSION.match(text) is not None


def without_build(version: str) -> str:
    """What of a version counts in comparisons: `1.0.0+a` and `1.0.0+b` are the same version (semver 2.0.0, 10)."""
    return version.partition("+")[0]


def is_stable(version: str) -> bool:
    return is_version(version) and "-" not in without_build(version)


def version_key(version: str) -> Any:
    """Semver precedence, lowest first; build metadata only breaks ties; what is no version comes before all."""
    match = _VERSION.match(version) if len(version) <= VERSION_LENGTH else None
    if match is None:
        return (0, version)
    numbers = (int(match["major"]), int(match["minor"]), int(match["patch"]))
    pre = match["pre"]
    if pre is None:
        return (1, *numbers, 1, (), version)
    identifiers = tuple(
        (0, int(identifier), "") if identifier.isdigit() else (1, 0, identifier) for identifier in pre.split(".")
    )
    return (1, *numbers, 0, identifiers, version)


def check_tag(tag: str) -> str:
    """A dist-tag that may be set. Raises NameInvalid."""
    if len(tag) > TAG_LENGTH or _TAG.match(tag) is None:
        raise NameInvalid(
            f"'{shown(tag)}' is not a valid tag: up to {TAG_LENGTH} letters, digits, '.', '_', '~' and '-'"
        )
    if _RANGE.match(tag) is not None:
        raise NameInvalid(f"'{shown(tag)}' cannot be a tag: it is a valid version range")
    return tag


def tarball_name(name: str, version: str) -> str:
    """`<name without scope>-<version>.tgz`, the file's name in the canonical address (contract 5.1)."""
    file = f"{split(name)[1]}-{version}.tgz"
    if len(file) > FILE_LENGTH:
        raise NameInvalid(
            f"name and version together are longer than the {FILE_LENGTH} bytes that a file name may have"
        )
    return file


def is_file_name(name: str) -> bool:
    """Whether an upstream's file name can be one here without escaping."""
    return len(name) <= FILE_LENGTH and _FILE.match(name) is not None


def plain_target(raw_path: bytes) -> bytes:
    """The target with scopes written as `@scope/name` (contract 2.1) and one slash after the repository (3.5.4)."""
    if b"//" in raw_path:
        raw_path = _DOUBLED_SLASH.sub(rb"\1/", raw_path, count=1)
    if b"%2" in raw_path:
        raw_path = _ENCODED_SCOPE.sub(rb"\1/", raw_path)
    return raw_path
