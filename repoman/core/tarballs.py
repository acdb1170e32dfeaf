"""Reads `.tar.gz` archives from strangers: what is in them, and the few small members that a format wants to see.

Nothing is ever written to disk, and no number in a header is believed before the bytes it speaks of were counted.
Memory stays flat: one piece of input, one piece of output, the names, and the wanted members.

`tarfile` is not used because it cannot be bounded: it reads extended headers of any size whole, keeps an object for each
member, and takes 30 µs for it. More important, what two readers understand differently is refused here instead of
settled one way: a client would unpack something else than what was checked. Formats: POSIX.1-2017 pax "ustar
Interchange Format" and "pax Extended Header", GNU tar manual "Basic Tar Format"; RFC 1952 for gzip.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

from .errors import ContentInvalid

WANTED_BYTES = 4 * 1024 * 1024
BLOCK = 512
_PIECE = 64 * 1024  # of compressed input
_OUTPUT = 256 * 1024  # most that one step of decompression gives
_ZEROS = bytes(BLOCK)
_FILES = b"0\x007"  # "7" is a contiguous file, which everyone reads as a plain one
_FOLDER = b"5"
_LINKS = b"12"
_SPECIAL = {b"3": "a character device", b"4": "a block device", b"6": "a pipe", b"S": "a sparse file"}
_OCTAL = re.compile(rb" *([0-7]{0,20})[ \0]*\Z")
_RECORD = re.compile(rb"([1-9][0-9]{0,8}) ([^=\n\0]{1,256})=")
_DRIVE = re.compile(r"[A-Za-z]:")
_END_OF_ZIP = b"PK\x05\x06"
_END_OF_ZIP_BYTES = 22
_LONGEST_ZIP_COMMENT = 65_535


@dataclass(frozen=True, slots=True)
class Limits:
    """What one archive may cost. `ratio` counts once `ratio_from` bytes came out. Names are counted all together.

    `links`: whether links are allowed that stay inside the archive; otherwise every link is refused.
    """

    members: int = 65_536
    unpacked_bytes: int = 1024 * 1024 * 1024
    ratio: int = 50
    ratio_from: int = 64 * 1024 * 1024
    header_bytes: int = 200 * 1024
    name_bytes: int = 4096
    names_bytes: int = 32 * 1024 * 1024
    gzip_members: int = 65_536
    links: bool = False


@dataclass(frozen=True, slots=True)
class Tarball:
    """What an archive holds. `names` are as written, folders with a slash at the end; `roots` the first segments.

    `members` counts entries of every kind, `file_count` and `file_bytes` plain files; `unpacked_bytes` is everything that
    came out of the decompression, headers included. `files`: normalized name → content of what was wanted.
    """

    members: int
    unpacked_bytes: int
    roots: frozenset[str]
    names: tuple[str, ...]
    files: Mapping[str, bytes]
    file_count: int
    file_bytes: int


def read(
    file: BinaryIO, *, wanted: Callable[[str], bool], wanted_bytes: int = WANTED_BYTES, limits: Limits | None = None
) -> Tarball:
    """Read the archive from its beginning to its very last byte. `file` can be read and sought.

    `wanted` is asked with each plain file's normalized name (no `.` or empty segments); all wanted files together may
    have `wanted_bytes`. Raises ContentInvalid naming the member and what is wrong with it.
    """
    bounds = limits or Limits()
    _refuse_zip(file)
    file.seek(0)
    return _Reader(_Inflater(file, bounds), wanted, wanted_bytes, bounds).run()


def _refuse_zip(file: BinaryIO) -> None:
    """A zip is found from its end, so one can hide behind a gzip header (THREATS B6)."""
    size = file.seek(0, 2)
    start = max(0, size - _END_OF_ZIP_BYTES - _LONGEST_ZIP_COMMENT)
    file.seek(start)
    tail = file.read(size - start)
    at = tail.rfind(_END_OF_ZIP)
    while at >= 0:
        record = tail[at : at + _END_OF_ZIP_BYTES]
        if len(record) == _END_OF_ZIP_BYTES:
            disk, first, here, entries, length, offset, comment = struct.unpack("<4xHHHHIIH", record)
            is_plausible = here == entries and length >= 46 * entries and length + offset <= start + at
            if disk == first == 0 and is_plausible and at + _END_OF_ZIP_BYTES + comment <= len(tail):
                raise ContentInvalid("the archive is a zip file as well")
        at = tail.rfind(_END_OF_ZIP, 0, at)


class _Inflater:
    """The decompressed stream, counted. Never holds more than one piece of input and one of output."""

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        self._file = file
        self._limits = limits
        self._inflate = zlib.decompressobj(31)
        self._input = file.read(_PIECE)
        if self._input[:2] != b"\x1f\x8b":
            raise ContentInvalid("the archive is not a gzip file")
        self._packed = len(self._input)
        self._parts = 1
        self._out = b""
        self._at = 0
        self._is_over = False
        self.unpacked = 0

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, or fewer where the stream ends."""
        end = self._at + size
        if end <= len(self._out):
            piece = self._out[self._at : end]
            self._at = end
            return piece
        pieces = [self._out[self._at :]]
        missing = size - len(pieces[0])
        while missing and self._fill():
            piece = self._out[:missing]
            self._at = len(piece)
            missing -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def skip(self, size: int) -> bool:
        """False where the stream ends before."""
        while size > len(self._out) - self._at:
            size -= len(self._out) - self._at
            if not self._fill():
                return False
        self._at += size
        return True

    def _fill(self) -> bool:
        """The next piece of output; False at the end of the last gzip member."""
        self._out, self._at = b"", 0
        while not self._is_over:
            try:
                out = self._inflate.decompress(self._input, _OUTPUT)
            except zlib.error as error:
                raise ContentInvalid(f"the gzip stream is damaged: {error}") from None
            if self._inflate.eof:
                self._next_member(self._inflate.unused_data)
            else:
                self._input = self._inflate.unconsumed_tail
                if not self._input and not out:
                    self._input = self._more()
                    if not self._input:
                        raise ContentInvalid("the gzip stream is cut off")
            if out:
                self._count(len(out))
                self._out = out
                return True
        return False

    def _more(self) -> bytes:
        piece = self._file.read(_PIECE)
        self._packed += len(piece)
        return piece

    def _next_member(self, rest: bytes) -> None:
        """RFC 1952 §2.2: a gzip file may have several members; after them nothing but zeros (a tape's padding)."""
        if len(rest) < 2:
            rest += self._more()
        if rest[:2] == b"\x1f\x8b":
            self._parts += 1
            if self._parts > self._limits.gzip_members:
                raise ContentInvalid(f"the gzip stream has more than {self._limits.gzip_members} members")
            self._inflate = zlib.decompressobj(31)
            self._input = rest
            return
        while rest:
            if rest.strip(b"\0"):
                raise ContentInvalid("the archive goes on after the end of its gzip stream")
            rest = self._more()
        self._is_over = True

    def _count(self, size: int) -> None:
        self.unpacked += size
        limits = self._limits
        if self.unpacked > limits.unpacked_bytes:
            raise ContentInvalid(f"the archive unpacks to more than {limits.unpacked_bytes} bytes")
        if self.unpacked > limits.ratio_from and self.unpacked > limits.ratio * self._packed:
            raise ContentInvalid(f"the archive unpacks to more than {limits.ratio} times its size: a compression bomb")


class _Reader:
    """One pass over the members."""

    def __init__(self, stream: _Inflater, wanted: Callable[[str], bool], wanted_bytes: int, limits: Limits) -> None:
        self._stream = stream
        self._wanted = wanted
        self._wanted_left = wanted_bytes
        self._limits = limits
        self._headers = 0
        self._names: list[str] = []
        self._names_left = limits.names_bytes
        self._roots: set[str] = set()
        self._files: dict[str, bytes] = {}
        self._links: dict[str, str] = {}  # a link's normalized name → where it leads
        self._file_count = 0
        self._file_bytes = 0

    def run(self) -> Tarball:
        while True:
            header = self._header()
            if header is None:
                break
            self._member(header)
        if self._links:
            self._check_links()
        return Tarball(
            members=len(self._names),
            unpacked_bytes=self._stream.unpacked,
            roots=frozenset(self._roots),
            names=tuple(self._names),
            files=self._files,
            file_count=self._file_count,
            file_bytes=self._file_bytes,
        )

    # --- headers -----------------------------------------------------------------------------------------------------

    def _header(self) -> bytes | None:
        """The next header block; None at the end of the archive, after which only zeros may follow."""
        block = self._stream.read(BLOCK)
        if block == _ZEROS or not block:
            # One reader stops at the first empty block, another goes on behind it: nothing may be hidden there.
            while block:
                if block.strip(b"\0"):
                    raise ContentInvalid("the archive goes on after its end")
                block = self._stream.read(_PIECE)
            return None
        if len(block) < BLOCK:
            raise ContentInvalid("the archive is cut off in a header")
        self._headers += 1
        if self._headers > self._limits.members:
            raise ContentInvalid(f"the archive has more than {self._limits.members} members")
        if _number(block[148:156], "the checksum of a header") != _checksum(block):
            raise ContentInvalid("the archive is damaged: the checksum of a header is wrong")
        return block

    def _member(self, header: bytes) -> None:
        """One member with the extended headers before it."""
        name = link = size = None
        kind = header[156:157]
        seen: set[bytes] = set()
        while kind in b"xLKg":
            if kind in seen or (kind == b"g" and seen):
                raise ContentInvalid("the archive has two extended headers of one kind for one member")
            body = self._extended(header)
            if kind == b"L":
                record = {"path": body.split(b"\0", 1)[0]}
            elif kind == b"K":
                record = {"linkpath": body.split(b"\0", 1)[0]}
            else:
                record = _pax(body, is_global=kind == b"g")
            if ("path" in record and name is not None) or ("linkpath" in record and link is not None):
                raise ContentInvalid("the archive names one member in two extended headers")
            name, link = record.get("path", name), record.get("linkpath", link)
            size = record.get("size", size)
            if kind != b"g":  # which belongs to no member
                seen.add(kind)
            following = self._header()
            if following is None:
                if seen:
                    raise ContentInvalid("the archive ends after an extended header")
                return
            header = following
            kind = header[156:157]
        self._take(
            kind,
            name if name is not None else _own_name(header),
            link if link is not None else header[157:257].split(b"\0", 1)[0],
            int(size) if size is not None else _number(header[124:136], "the size of a member"),
        )

    def _extended(self, header: bytes) -> bytes:
        size = _number(header[124:136], "the size of an extended header")
        if size > self._limits.header_bytes:
            raise ContentInvalid(
                f"the archive has an extended header of {size} bytes; at most {self._limits.header_bytes} are read"
            )
        body = self._stream.read(size)
        if len(body) < size or not self._stream.skip(-size % BLOCK):
            raise ContentInvalid("the archive is cut off in an extended header")
        return body

    # --- members -----------------------------------------------------------------------------------------------------

    def _take(self, kind: bytes, raw_name: bytes, raw_link: bytes, size: int) -> None:
        name = self._name(raw_name)
        if kind in _FILES and not name.endswith("/"):
            self._file(name, size)
            return
        if size:
            _refuse(name, "has content although it is no plain file")
        if kind in _LINKS:
            self._link(name, kind, raw_link)
        elif kind not in _FILES and kind != _FOLDER:
            what = _SPECIAL.get(kind, f"of the unknown kind {kind!r}")
            _refuse(name, f"is {what}, which is not allowed")

    def _name(self, raw: bytes) -> str:
        """The member's name as written, checked and kept."""
        if len(raw) > self._limits.name_bytes:
            raise ContentInvalid(f"the archive has a name of {len(raw)} bytes; at most {self._limits.name_bytes}")
        self._names_left -= len(raw)
        if self._names_left < 0:
            raise ContentInvalid(f"the names in the archive have more than {self._limits.names_bytes} bytes")
        name = raw.decode("utf-8", "backslashreplace")
        _check_name(name, "the name", name)
        self._names.append(name)
        root = _plain(name).partition("/")[0]
        if root:  # "./" itself has none
            self._roots.add(root)
        return name

    def _file(self, name: str, size: int) -> None:
        self._file_count += 1
        self._file_bytes += size
        plain = _plain(name)
        if self._wanted(plain):
            if plain in self._files:
                _refuse(name, "is in the archive twice")
            if size > self._wanted_left:
                _refuse(name, f"is larger than the {self._wanted_left} bytes that are read of it")
            self._wanted_left -= size
            data = self._stream.read(size)
            if len(data) < size or not self._stream.skip(-size % BLOCK):
                _refuse(name, "is cut off")
            self._files[plain] = data
        elif not self._stream.skip(size + -size % BLOCK):
            _refuse(name, "is cut off")

    def _link(self, name: str, kind: bytes, raw_target: bytes) -> None:
        """A symbolic link's target is relative to its folder, a hard link's to the archive."""
        if not self._limits.links:
            _refuse(name, "is a link, which is not allowed")
        if not raw_target or len(raw_target) > self._limits.name_bytes:
            _refuse(name, "is a link to nothing")
        target = raw_target.decode("utf-8", "backslashreplace")
        folder = _plain(name).split("/")[:-1] if kind == b"2" else []
        rest = [segment for segment in target.split("/") if segment not in ("", ".")]
        while rest and rest[0] == ".." and folder:
            del rest[0], folder[-1]
        _check_name(name, f"the link to '{_shown(target)}'", "/".join(rest) if not target.startswith("/") else target)
        self._links[_plain(name)] = "/".join([*folder, *rest])

    def _check_links(self) -> None:
        """Nothing lies below a link or is reached through one: each link alone was seen to stay inside."""
        for name in [*map(_plain, self._names), *self._links.values()]:
            at = name.find("/")
            while at >= 0:
                if name[:at] in self._links:
                    _refuse(name, "lies behind a link")
                at = name.find("/", at + 1)


# --- fields ----------------------------------------------------------------------------------------------------------


def _checksum(block: bytes) -> int:
    """The sum of all bytes, those of the checksum counted as spaces. Adler-32 begins with a sum of bytes modulo 65,521,
    which half a block cannot reach, and is ten times as fast as adding them up here."""
    first, second = block[:148] + b"        " + block[156:256], block[256:]
    return (zlib.adler32(first) & 0xFFFF) + (zlib.adler32(second) & 0xFFFF) - 2


def _own_name(header: bytes) -> bytes:
    """The name in the header itself; POSIX archives put the front part of a long one into `prefix`."""
    name = header[0:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0":
        prefix = header[345:500].split(b"\0", 1)[0]
        if prefix:
            return prefix + b"/" + name
    return name


def _number(field: bytes, what: str) -> int:
    """Octal digits, or GNU's base-256 where the first bit is set. Raises ContentInvalid for negative and huge ones."""
    if field[0] & 0x80:
        if field[0] != 0x80:
            raise ContentInvalid(f"the archive is not valid: {what} is negative or too large")
        value = int.from_bytes(field[1:], "big")
    else:
        match = _OCTAL.match(field)
        if match is None:
            raise ContentInvalid(f"the archive is not valid: {what} is no number")
        value = int(match[1] or b"0", 8)
    if value >= 1 << 62:
        raise ContentInvalid(f"the archive is not valid: {what} is too large")
    return value


def _pax(body: bytes, *, is_global: bool) -> dict[str, bytes]:
    """What matters of a pax extended header: path, linkpath and size. The rest (times, owners, comments) is passed over."""
    found: dict[str, bytes] = {}
    at = 0
    while at < len(body):
        match = _RECORD.match(body, at)
        end = at + int(match[1]) if match else 0
        if match is None or end > len(body) or end <= match.end() or body[end - 1] != 10:
            raise ContentInvalid("the archive has a pax header that is not valid")
        key = match[2]
        if key.startswith(b"GNU.sparse."):
            raise ContentInvalid("the archive has a sparse file, which is not allowed")
        if key in (b"path", b"linkpath", b"size"):
            value = body[match.end() : end - 1]
            name = key.decode()
            if is_global or name in found or not value:
                raise ContentInvalid(
                    f"the archive has a pax header with a '{name}' that is empty, global or there twice"
                )
            if key == b"size" and (not value.isdigit() or len(value) > 18):
                raise ContentInvalid("the archive has a pax header with a size that is no number")
            found[name] = value
        at = end
    return found


def _plain(name: str) -> str:
    """The name without `.` and empty segments."""
    if name.startswith("./") or "//" in name or "/./" in name or name.endswith(("/", "/.")) or name == ".":
        return "/".join(segment for segment in name.split("/") if segment not in ("", "."))
    return name


def _check_name(member: str, what: str, path: str) -> None:
    """Refuses what leads out of the archive on any system; Windows takes backslashes and drives too."""
    if not path and what == "the name":
        raise ContentInvalid("the archive has a member without a name")
    slashed = path.replace("\\", "/")
    if slashed.startswith("/") or _DRIVE.match(slashed):
        _refuse(member, f"is not allowed: {what} is absolute")
    if ".." in slashed and ".." in slashed.split("/"):
        _refuse(member, f"is not allowed: {what} leads out of the archive")
    if not path.isprintable() and any(ord(character) < 32 or ord(character) == 127 for character in path):
        _refuse(member, f"is not allowed: {what} contains a control character")


def _refuse(member: str, why: str) -> NoReturn:
    raise ContentInvalid(f"the archive's member '{_shown(member)}' {why}")


def _shown(name: str) -> str:
    return name[:200].encode("unicode_escape").decode("ascii")
