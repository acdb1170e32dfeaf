"""Image names, tags and references.

OCI distribution-spec, "Pulling manifests": the grammar of `<name>` and `<reference>`. A client's name is
`<namespace>/<repository>/<image>`; the image is what this format calls a package.
"""

from __future__ import annotations

import re

from repoman.core.errors import ContentInvalid, NameInvalid, VersionNotFound

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
NAME_LENGTH = 255  # of the whole name; clients cap host and name together at 255


def check_image(image: str, key: str = "") -> str:
    """The image path as rows hold it. Raises NameInvalid, also when `key/image` is longer than 255 characters."""
    if len(image) + len(key) + bool(key) > NAME_LENGTH:
        raise NameInvalid(f"the image name is longer than {NAME_LENGTH} characters")
    if _IMAGE.match(image) is None:
        raise NameInvalid(
            f"'{image[:80]}' is not an image name: use lower-case letters and digits, '/' between parts, "
            "and single '.', '_', '__' or dashes inside a part"
        )
    return image


def is_image(text: str) -> bool:
    return len(text) <= NAME_LENGTH and _IMAGE.match(text) is not None


def is_tag(text: str) -> bool:
    return _TAG.match(text) is not None


def check_new_tag(tag: str) -> str:
    """A tag about to be written. Raises ContentInvalid: the spec's code list has no word for a bad tag."""
    if not is_tag(tag):
        raise ContentInvalid(
            f"'{tag[:80]}' is not a tag: use 1 to 128 letters, digits, '_', '.' or '-', and neither '.' nor '-' first"
        )
    return tag


def check_known_tag(tag: str) -> str:
    """A tag about to be read or removed: one that cannot exist is not found (the v1.1 conformance suite wants 404)."""
    if not is_tag(tag):
        raise VersionNotFound(f"there is no tag '{tag[:80]}'")
    return tag


def visible_name(mount: str, image: str) -> str:
    """The name by which this client knows the image; below a mirror mount (`/ns/repo/v2`) that is the image alone."""
    return f"{mount[4:]}/{image}" if mount.startswith("/v2/") else image


def mount_source(mount: str, key: str, given: str | None) -> str | None:
    """The full name behind a mount's `from`, or "" if it cannot name anything, or None if there was none."""
    if given is None:
        return None
    full = given if mount.startswith("/v2/") else f"{key}/{given}"
    return full if is_image(full) and full.count("/") >= 2 else ""
