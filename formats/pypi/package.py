"""What wheels and sdists say about themselves, read without unpacking them or running anything of theirs.

Core metadata 1.0 to 2.x (spec: core-metadata; PEP 643, 639, 794), wheels (PEP 427, spec: binary-distribution-format,
recording-installed-packages for RECORD), sdists (PEP 625). The archive is the truth; what it must agree with is its file
name, here, and the upload's form, in `upload.py`.
"""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import io
import re
import tarfile
from collections.abc import Iterable, Mapping
from typing import BinaryIO

from packaging.metadata import parse_email

from repoman.core import tarballs, zips
from repoman.core.errors import ContentInvalid
from repoman.core.names import shown
from repoman.core.records import Facts

from .names import Distribution, check_filename, check_version, normalize, parse_upload

METADATA_BYTES = 4 * 1024 * 1024
WHEEL_BYTES = 64 * 1024
HASHED_BYTES = 256 * 1024 * 1024  # of unpacked content, compared with RECORD; larger wheels by names and sizes only
DESCRIPTION_BYTES = 256 * 1024
_HEADERS_MOST = 20_000
_HEADER_NAMES_MOST = 200
_TEXT_MOST = 8_192  # of one value that is kept in rows
_VALUES_MOST = 2_000
_VERSION = re.compile(r"([12])\.[0-9]{1,3}\Z")
_LINE = re.compile(rb"([^\r\n]*)(?:\r\n|\r|\n|\Z)")
_HEADER = re.compile(rb"([!-9;-~]+):")
# What would make the parser of mail see attachments and encodings where there is a description.
_MAIL_ONLY = (b"content-", b"mime-version")
_UNHASHED = (".dist-info/RECORD", ".dist-info/RECORD.jws", ".dist-info/RECORD.p7s")
_STRONG = frozenset({"sha256", "sha384", "sha512"})


def inspect(path: str, file: BinaryIO, size: int) -> Facts:
    """See `FormatHandler.inspect`. `documents` has METADATA, byte for byte, for a wheel (PEP 658).

    `metadata` is the core metadata in snake case, with `description` where it is short enough to keep, and `problems`:
    sentences about what is wrong but may be let pass.
    """
    check_filename(path)
    if path.endswith(".whl"):
        return _wheel(path, file, size)
    if path.endswith(".tar.gz"):
        return _sdist(path, file)
    raise ContentInvalid(f"'{path}' is neither a wheel (.whl) nor a source distribution (.tar.gz)")


# --- wheels ----------------------------------------------------------------------------------------------------------


def _wheel(path: str, file: BinaryIO, size: int) -> Facts:
    _refuse_tar(file)
    found = zips.read(file, size, wanted=_is_wanted, wanted_bytes=METADATA_BYTES + WHEEL_BYTES)
    folders = sorted(root for root in found.roots if root.endswith(".dist-info"))
    if len(folders) != 1:
        raise ContentInvalid(f"a wheel has one .dist-info folder; this one has {len(folders)}")
    folder = folders[0]
    for name in ("METADATA", "WHEEL", "RECORD"):
        if f"{folder}/{name}" not in found.entries:
            raise ContentInvalid(f"the wheel lacks {folder}/{name}")
    document = found.files[f"{folder}/METADATA"]
    metadata = read_metadata(document)
    distribution = _agreed(path, metadata)
    name, _, version = folder.removesuffix(".dist-info").rpartition("-")
    if normalize(name) != distribution.project or check_version(version) != distribution.version:
        raise ContentInvalid(f"the folder {shown(folder)} does not belong to {path}")
    _check_wheel_file(found.files[f"{folder}/WHEEL"])
    problems = _check_record(file, found, folder)
    if problems:
        metadata["problems"] = problems
    return Facts(distribution.project, distribution.release, metadata, {"METADATA": document})


def _is_wanted(name: str) -> bool:
    folder, _, rest = name.partition("/")
    return folder.endswith(".dist-info") and rest in ("METADATA", "WHEEL")


def _refuse_tar(file: BinaryIO) -> None:
    """A first member's name can make a tar header of a zip's first block (THREATS B6)."""
    file.seek(0)
    try:
        tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return
    raise ContentInvalid("the wheel is a tar archive as well")


def _check_wheel_file(data: bytes) -> None:
    """WHEEL's one line that decides: installers refuse a newer major version (PEP 427)."""
    match = re.search(rb"^Wheel-Version:\s*([0-9]{1,3})\.[0-9]{1,3}\s*$", data, re.MULTILINE | re.IGNORECASE)
    if match is None:
        raise ContentInvalid("the wheel's WHEEL file names no Wheel-Version")
    if match[1] != b"1":
        raise ContentInvalid(f"wheels of version {match[1].decode()} are not known here")


def _check_record(file: BinaryIO, found: zips.Zip, folder: str) -> list[str]:
    """What RECORD misses or misstates (THREATS B11), the first ten of it."""
    record = found.entries[f"{folder}/RECORD"]
    # A line for each file, with room for quotes and other spellings; more is not worth the reading.
    if record.size > 64 * 1024 + sum(4 * len(name) + 256 for name in found.entries):
        return [f"{folder}/RECORD is far longer than a list of the files"]
    recorded = _rows(b"".join(zips.pieces(file, record)))
    if recorded is None:
        return [f"{folder}/RECORD cannot be read"]
    problems = [
        f"{folder}/RECORD does not list {shown(name)}"
        for name in found.entries
        if name not in recorded and not name.endswith(_UNHASHED)
    ]
    with_hashes = found.unpacked_bytes <= HASHED_BYTES
    for name, (digest, length) in recorded.items():
        if len(problems) >= 10:
            break
        member = found.entries.get(name)
        if member is None:
            problems.append(f"{folder}/RECORD lists {shown(name)}, which is not there")
        elif name.endswith(_UNHASHED):
            continue
        elif length and length != str(member.size):
            problems.append(f"{folder}/RECORD states another size for {shown(name)}")
        elif with_hashes and digest and not _has_digest(zips.pieces(file, member), digest):
            problems.append(f"{folder}/RECORD states another hash for {shown(name)}")
    return problems[:10]


def _rows(data: bytes) -> dict[str, tuple[str, str]] | None:
    """RECORD's lines: path → (`algorithm=urlsafe base64`, size), either of which may be empty."""
    try:
        found: dict[str, tuple[str, str]] = {}
        for row in csv.reader(io.TextIOWrapper(io.BytesIO(data), "utf-8", "strict", newline=""), strict=True):
            if not row:
                continue
            if len(row) != 3:
                return None
            name = row[0].replace("\\", "/")  # wheels made on Windows
            if found.setdefault(name, (row[1], row[2])) != (row[1], row[2]):
                return None
        return found
    except (UnicodeDecodeError, csv.Error):
        return None


def _has_digest(pieces: Iterable[bytes], digest: str) -> bool:
    algorithm, _, value = digest.partition("=")
    if algorithm not in _STRONG:
        return False
    try:
        expected = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    except (binascii.Error, ValueError):
        return False
    hashed = hashlib.new(algorithm, usedforsecurity=False)
    for piece in pieces:
        hashed.update(piece)
    return hashed.digest() == expected


# --- sdists ----------------------------------------------------------------------------------------------------------


def _sdist(path: str, file: BinaryIO) -> Facts:
    found = tarballs.read(
        file,
        wanted=lambda name: name.count("/") == 1 and name.endswith("/PKG-INFO"),
        wanted_bytes=METADATA_BYTES,
        limits=tarballs.Limits(unpacked_bytes=8 * 1024**3, links=True),
    )
    if len(found.roots) != 1:
        raise ContentInvalid("an sdist has one top folder with everything in it (PEP 625)")
    document = found.files.get(f"{next(iter(found.roots))}/PKG-INFO")
    if document is None:
        raise ContentInvalid("the sdist has no PKG-INFO in its top folder")
    metadata = read_metadata(document)
    distribution = _agreed(path, metadata)
    return Facts(distribution.project, distribution.release, metadata)


# --- metadata --------------------------------------------------------------------------------------------------------


def _agreed(path: str, metadata: Mapping[str, object]) -> Distribution:
    """What the file name and the archive say together. Raises ContentInvalid, NameInvalid (THREATS B10)."""
    name, text = str(metadata["name"]), str(metadata["version"])
    distribution = parse_upload(path, normalize(name))
    if check_version(text) != distribution.version:
        raise ContentInvalid(f"the file's name is {path}, but its metadata say {shown(name)} {shown(text)}")
    return distribution


def read_metadata(document: bytes) -> dict[str, object]:
    """The core metadata of METADATA or PKG-INFO as plain JSON, in snake case; unknown fields are left out.

    Lenient in all but what decides: a version of the metadata that is known by its major number, a name, a version.
    Raises ContentInvalid.
    """
    if len(document) > METADATA_BYTES:
        raise ContentInvalid(f"the metadata have more than {METADATA_BYTES} bytes")
    head, description = _parts(document)
    raw, _ = parse_email(head)
    found: dict[str, object] = {}
    for key, value in raw.items():
        kept = _plain(value)
        if kept not in ("", None, [], {}, "UNKNOWN"):  # the last is old distutils' word for absent
            found[key] = kept
    for key, field in (("metadata_version", "Metadata-Version"), ("name", "Name"), ("version", "Version")):
        if not isinstance(found.get(key), str):
            raise ContentInvalid(f"the metadata do not have one {field}")
    if _VERSION.match(str(found["metadata_version"])) is None:
        raise ContentInvalid(f"metadata of version {shown(str(found['metadata_version']))} are not known here")
    text = description.decode("utf-8", "replace") if description.strip() else str(raw.get("description") or "")
    found.pop("description", None)
    if text.strip() and len(text.encode("utf-8", "replace")) <= DESCRIPTION_BYTES:
        found["description"] = _safe(text)
    keywords = found.get("keywords")
    if isinstance(keywords, list):
        found["keywords"] = ",".join(word for word in keywords if word)
    return found


def _parts(document: bytes) -> tuple[bytes, bytes]:
    """Headers and description. Raises ContentInvalid where there are so many headers that reading them would be work."""
    if b"\0" in document:
        raise ContentInvalid("the metadata contain a NUL character")
    kept: list[bytes] = []
    names: set[bytes] = set()
    keeping = True
    at = 0
    for number, match in enumerate(_LINE.finditer(document)):
        line = match[1]
        if not line or number >= _HEADERS_MOST:
            at = match.end()
            break
        if line[:1] not in b" \t":
            header = _HEADER.match(line)
            if header is None:  # where readers of mail take the description to begin
                break
            name = header[1].lower()
            names.add(name)
            keeping = not name.startswith(_MAIL_ONLY)
        if keeping:
            kept.append(match[0])
        at = match.end()
    if len(names) > _HEADER_NAMES_MOST or len(kept) >= _HEADERS_MOST:
        raise ContentInvalid("the metadata have more headers than are read")
    return b"".join(kept) + b"\n", document[at:]


def _plain(value: object) -> object:
    """A parsed value, bounded, without what a database does not keep."""
    if isinstance(value, str):
        return _safe(value)[:_TEXT_MOST]
    if isinstance(value, list):
        return [_safe(item)[:_TEXT_MOST] for item in value[:_VALUES_MOST] if isinstance(item, str)]
    if isinstance(value, Mapping):
        items = list(value.items())[:_VALUES_MOST]
        return {_safe(str(key))[:_TEXT_MOST]: _safe(str(item))[:_TEXT_MOST] for key, item in items}
    return None


def _safe(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\0", "")
