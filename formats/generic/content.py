"""What a stored file is served as: only types that no browser executes are shown in place, all others are saved."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Mapping
from typing import Any

from repoman.core.served import REVALIDATE, SANDBOXED, attachment

from .checksums import repr_digest

UNKNOWN = "application/octet-stream"
# What clients declare without meaning it (curl's --data-binary, form posts).
_MEANINGLESS = frozenset({UNKNOWN, "application/x-www-form-urlencoded", "multipart/form-data", "binary/octet-stream"})
_TYPE = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
    r'(?:\s*;\s*[A-Za-z0-9!#$&^_.+-]{1,64}=(?:[A-Za-z0-9!#$&^_.+:/-]{1,128}|"[A-Za-z0-9 !#$&^_.+:/-]{0,128}"))*\Z'
)
_TYPE_LENGTH = 255
_COMPRESSED = {
    "gzip": "application/gzip",
    "bzip2": "application/x-bzip2",
    "xz": "application/x-xz",
    "compress": "application/x-compress",
}
_TYPES = mimetypes.MimeTypes(filenames=())  # the library's own table: no file of the machine changes an answer
for _extension, _media_type in {
    ".md": "text/markdown",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".toml": "application/toml",
    ".jar": "application/java-archive",
    ".war": "application/java-archive",
    ".deb": "application/vnd.debian.binary-package",
    ".rpm": "application/x-rpm",
    ".zst": "application/zstd",
    ".7z": "application/x-7z-compressed",
    ".apk": "application/vnd.android.package-archive",
    ".log": "text/plain",
    ".sha1": "text/plain",
    ".sha256": "text/plain",
    ".sha512": "text/plain",
    ".md5": "text/plain",
    ".asc": "text/plain",
}.items():
    _TYPES.add_type(_media_type, _extension)
_SHOWN = frozenset(
    {
        "text/plain",
        "text/markdown",
        "text/csv",
        "application/json",
        "application/yaml",
        "application/toml",
        "image/png",
        "image/jpeg",
        "image/gif",
        "image/webp",
        "image/avif",
        "image/bmp",
        "image/x-icon",
        "image/vnd.microsoft.icon",
    }
)
_SHOWN_FAMILIES = ("audio/", "video/")


def declared_type(given: str | None) -> str:
    """The type to keep from an upload's Content-Type; "" where it says nothing or is not sane."""
    text = (given or "").strip()
    if not text or len(text) > _TYPE_LENGTH or _TYPE.match(text) is None:
        return ""
    return "" if _essence(text) in _MEANINGLESS else text


def guessed_type(path: str) -> str:
    name = path.rsplit("/", 1)[-1]
    media_type, coding = _TYPES.guess_type(f"./{name}")  # the dot keeps `data:…` from being read as a scheme
    if coding is not None:
        return _COMPRESSED.get(coding, UNKNOWN)
    if media_type is None:
        return UNKNOWN
    return f"{media_type}; charset=utf-8" if media_type.startswith("text/") else media_type


def served_type(path: str, stored: str) -> str:
    """The kept type if the uploader gave one, else what the name suggests today."""
    return stored if stored and _essence(stored) != UNKNOWN else guessed_type(path)


def is_shown(media_type: str) -> bool:
    essence = _essence(media_type)
    return essence in _SHOWN or essence.startswith(_SHOWN_FAMILIES)


def file_headers(
    *, name: str, media_type: str, digest: str, captured: Any = None, metadata: Mapping[str, object] | None = None
) -> list[tuple[str, str]]:
    """All headers of a file but those of the edge; `name` is its path, `digest` its sha256 in hex.

    `digest` is "" while the file is still arriving. `metadata` may hold `md5` and `sha1`: they are known if the upload
    declared them.
    """
    served = served_type(name, media_type)
    headers = [("Content-Type", served), *SANDBOXED, REVALIDATE]
    if not is_shown(served):
        headers.append(("Content-Disposition", attachment(name)))
    if digest:
        headers.append(("X-Checksum-Sha256", digest))
    for algorithm, header in (("sha1", "X-Checksum-Sha1"), ("md5", "X-Checksum-Md5")):
        value = (metadata or {}).get(algorithm)
        if isinstance(value, str):
            headers.append((header, value))
    if digest:
        headers.append(("Repr-Digest", repr_digest(digest)))
    return headers


def _essence(media_type: str) -> str:
    return media_type.partition(";")[0].strip().lower()
