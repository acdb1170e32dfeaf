"""A reader of zip archives from strangers, which sees what every other reader will see.

Some readers go by the directory at the end, some by the headers in front of each member, some search for whichever end
record they like. `read` takes an archive (a wheel) only if all of them find the same members: records that agree, one after
the other without gap or overlap from the first byte to the last, one end record, no comments. APPNOTE 6.3.10 §4.3.

`read_one` is for archives that are only asked for one member and served as they came (jars): their ordinary writers stream,
with the sizes of a member after its data, and leave comments. It goes by the directory, as Java does, and vouches for that
one member alone: it is there once, and is what the directory declares.

Nothing is extracted, and nothing is inflated beyond what it declares: what lies is refused, what is too much likewise.
`zipfile` is not used, since it is one of the readers that find their way through what is refused here.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from .errors import ContentInvalid

STORED, DEFLATED = 0, 8
PIECE = 256 * 1024
_LOCAL = struct.Struct("<4sHHHHHLLLHH")
_CENTRAL = struct.Struct("<4sBBHHHHHLLLHHHHHLL")
_END = struct.Struct("<4sHHHHLLH")
_END_64 = struct.Struct("<4sQHHLLQQQQ")
_LOCATOR = struct.Struct("<4sLQL")
_LOCAL_SIGN, _CENTRAL_SIGN, _END_SIGN = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_END_64_SIGN, _LOCATOR_SIGN = b"PK\x06\x06", b"PK\x06\x07"
_END_64_REST = _END_64.size - 12  # what the record says of its own length
_ALL_16, _ALL_32 = 0xFFFF, 0xFFFFFFFF
_EXTRA_64, _EXTRA_UNICODE_PATH = 0x0001, 0x7075
_FLAG_DESCRIPTOR, _FLAG_UTF8 = 0x0008, 0x0800
_FLAGS_REFUSED = 0x0001 | 0x0020 | 0x0040 | 0x2000  # encrypted, patched, strongly encrypted, masked headers
_FLAGS_REPEATED = _FLAGS_REFUSED | _FLAG_DESCRIPTOR | _FLAG_UTF8
_UNIX = 3
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True, slots=True)
class Limits:
    """`ratio` counts only past `ratio_from` unpacked bytes."""

    members: int = 200_000
    name_bytes: int = 1024
    directory_bytes: int = 64 * 1024 * 1024
    unpacked_bytes: int = 64 * 1024**3
    ratio: int = 50
    ratio_from: int = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Member:
    """`size` unpacked, `packed` as stored from `offset` on."""

    name: str
    method: int
    size: int
    packed: int
    offset: int
    crc: int


@dataclass(frozen=True, slots=True)
class Zip:
    """What was found. `members` counts everything, folders too; `names` and `entries` are the files, in the archive's
    order; `roots` the first parts of all paths; `files` what was wanted."""

    members: int
    unpacked_bytes: int
    roots: frozenset[str]
    names: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
    entries: Mapping[str, Member] = field(default_factory=dict)


def read(
    file: BinaryIO,
    size: int,
    *,
    wanted: Callable[[str], bool],
    wanted_bytes: int = 4 * 1024 * 1024,
    limits: Limits | None = None,
) -> Zip:
    """Check the whole archive and read the members that are wanted, at most `wanted_bytes` of them together.

    Raises ContentInvalid.
    """
    limits = limits or Limits()
    start, lines = _directory(file, size, limits, size - _END.size)
    records = _central(lines)
    _check_bomb((record.member.size for record in records), size, limits)
    entries = _local(file, records, start)
    _check_tree(entries)
    found: dict[str, bytes] = {}
    left = wanted_bytes
    for name, member in entries.items():
        if not name.endswith("/") and wanted(name):
            left -= member.size
            if left < 0:
                raise ContentInvalid(f"'{_shown(name)}' is larger than is read of it")
            found[name] = b"".join(pieces(file, member))
    files = {name: member for name, member in entries.items() if not name.endswith("/")}
    return Zip(
        members=len(entries),
        unpacked_bytes=sum(member.size for member in entries.values()),
        roots=frozenset(name.partition("/")[0] for name in entries),
        names=tuple(files),
        files=found,
        entries=files,
    )


def read_one(
    file: BinaryIO, size: int, name: str, *, most: int = 4 * 1024 * 1024, limits: Limits | None = None
) -> bytes | None:
    """The member of that name, of at most `most` bytes; None where there is none.

    Raises ContentInvalid, also for what would be dangerous to unpack: names that lead elsewhere, links, bombs.
    """
    limits = limits or Limits()
    start, lines = _directory(file, size, limits, _find_end(file, size))
    raw_name = name.encode()
    found: Member | None = None
    unpacked = 0
    for line in lines:
        shown = _path(line.raw_name.decode("utf-8", "replace"))
        _check_second_name(shown, line.raw_name, line.extra)
        _check_no_link(shown, line)
        unpacked += line.size
        if line.raw_name == raw_name:
            if found is not None:
                raise _twice(raw_name)
            _check_kind(name, line)
            found = _behind(file, line, start)
    _check_bomb([unpacked], size, limits)
    if found is not None and found.size > most:
        raise ContentInvalid(f"'{_shown(name)}' is larger than is read of it")
    return b"".join(pieces(file, found)) if found is not None else None


def pieces(file: BinaryIO, member: Member) -> Iterator[bytes]:
    """The member's unpacked bytes. Raises ContentInvalid as soon as they are more than declared, and at the end if they
    are fewer or not the ones declared."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS) if member.method == DEFLATED else None
    position, end = member.offset, member.offset + member.packed
    size, crc = 0, 0
    rest = b""
    while True:
        if not rest and position < end:
            rest = _exactly(file, position, min(PIECE, end - position))
            position += len(rest)
        if inflate is None:
            piece, rest = rest, b""
        else:
            try:
                # One byte more than is left of what was declared, so that more shows.
                piece = inflate.decompress(rest, min(PIECE, member.size - size + 1))
            except zlib.error:
                raise _damaged(member) from None
            rest = inflate.unconsumed_tail
        size += len(piece)
        if size > member.size:
            raise ContentInvalid(f"'{_shown(member.name)}' is larger than the archive declares")
        crc = zlib.crc32(piece, crc)
        if piece:
            yield piece
        elif not rest and position >= end:
            break
        elif inflate is not None and inflate.eof:
            break
    if inflate is not None and (not inflate.eof or inflate.unused_data or rest or position < end):
        raise _damaged(member)
    if size != member.size or crc != member.crc:
        raise _damaged(member)


# --- framing ---------------------------------------------------------------------------------------------------------


def _directory(file: BinaryIO, size: int, limits: Limits, end: int) -> tuple[int, Iterator[_Line]]:
    """Where it starts, and its lines; the end record is at `end`."""
    count, start, length = _end(file, size, end)
    if count > limits.members:
        raise ContentInvalid(f"the archive has more than {limits.members} members")
    if length > limits.directory_bytes:
        raise ContentInvalid("the archive's directory is too large")
    return start, _lines(_exactly(file, start, length), count, limits)


def _find_end(file: BinaryIO, size: int) -> int:
    """Where the end record is, before a comment if there is one. One whose comment holds another is not believed: readers
    differ about which it is."""
    least = max(0, size - _END.size - _ALL_16)
    tail = _exactly(file, least, size - least)
    at = tail.rfind(_END_SIGN, 0, max(0, size - _END.size - least) + len(_END_SIGN))
    if at < 0 or tail.find(_END_SIGN, at + 1) >= 0:
        raise ContentInvalid("the file is no zip archive, or was cut")
    return least + at


def _end(file: BinaryIO, size: int, at: int) -> tuple[int, int, int]:
    """How many records the directory has, where it starts and how long it is; it ends where the end records begin."""
    if at < 0:
        raise ContentInvalid("the file is not a zip archive")
    sign, disk, first_disk, here, count, length, start, comment = _END.unpack(_exactly(file, at, _END.size))
    if sign != _END_SIGN:
        raise ContentInvalid("the file is no zip archive, was cut, or has a comment or data after its end")
    if at + _END.size + comment != size:
        raise ContentInvalid("the archive was cut in its comment, or has data after it")
    if disk or first_disk or here != count:
        raise ContentInvalid("the archive is part of a set of several")
    ends_at = at
    if at >= _LOCATOR.size:
        sign, disk, offset, disks = _LOCATOR.unpack(_exactly(file, at - _LOCATOR.size, _LOCATOR.size))
        if sign == _LOCATOR_SIGN:
            ends_at = at - _LOCATOR.size - _END_64.size
            if disk or disks != 1 or offset != ends_at:
                raise ContentInvalid("the archive's zip64 end record is not where it should be")
            count, start, length = _end_64(file, ends_at, count, start, length)
        elif _ALL_16 == count or _ALL_32 in (length, start):
            raise ContentInvalid("the archive lacks its zip64 end record")
    if start + length != ends_at:
        raise ContentInvalid("the archive's directory is not where its end says, or data lies between them")
    if count * _CENTRAL.size > length:
        raise ContentInvalid("the archive's directory is shorter than it says")
    return count, start, length


def _end_64(file: BinaryIO, at: int, count: int, start: int, length: int) -> tuple[int, int, int]:
    sign, rest, _, _, disk, first_disk, here, count_64, length_64, start_64 = _END_64.unpack(
        _exactly(file, at, _END_64.size)
    )
    if sign != _END_64_SIGN or rest != _END_64_REST or disk or first_disk or here != count_64:
        raise ContentInvalid("the archive's zip64 end record cannot be read")
    for short, full, limit in ((count, count_64, _ALL_16), (start, start_64, _ALL_32), (length, length_64, _ALL_32)):
        if short not in (limit, full):
            raise ContentInvalid("the archive's two end records differ")
    return count_64, start_64, length_64


@dataclass(frozen=True, slots=True)
class _Line:
    """One record of the directory as it stands there, with its sizes and `offset` in full."""

    raw_name: bytes
    extra: Mapping[int, bytes]
    has_comment: bool
    system: int
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    attributes: int
    offset: int


def _lines(data: bytes, count: int, limits: Limits) -> Iterator[_Line]:
    """In the directory's own order. Raises ContentInvalid for what is no such record, and at the end for what is left."""
    at = 0
    for _ in range(count):
        if at + _CENTRAL.size > len(data):
            raise ContentInvalid("the archive's directory is shorter than it says")
        (
            sign, _, system, _, flags, method, _, _, crc, packed, size,
            name_length, extra_length, comment, disk, _, attributes, offset,
        ) = _CENTRAL.unpack_from(data, at)  # fmt: skip
        at += _CENTRAL.size
        if sign != _CENTRAL_SIGN or at + name_length + extra_length + comment > len(data):
            raise ContentInvalid("the archive's directory cannot be read")
        raw_name = data[at : at + name_length]
        extra = _extra(data[at + name_length : at + name_length + extra_length])
        at += name_length + extra_length + comment
        if disk:
            raise ContentInvalid("a member of the archive lies in another file")
        if len(raw_name) > limits.name_bytes:
            raise ContentInvalid(f"a name in the archive is longer than {limits.name_bytes} bytes")
        size, packed, offset = _wide(extra, (size, packed, offset))
        yield _Line(raw_name, extra, bool(comment), system, flags, method, crc, packed, size, attributes, offset)
    if at != len(data):
        raise ContentInvalid("the archive's directory has more in it than it says")


@dataclass(frozen=True, slots=True)
class _Record:
    """One line of the directory: the member, whose `offset` is that of its header here, and what both must repeat."""

    member: Member
    raw_name: bytes
    flags: int


def _central(lines: Iterable[_Line]) -> list[_Record]:
    """The directory's records, in the order in which their members lie in the file."""
    records: list[_Record] = []
    seen: set[bytes] = set()
    for line in lines:
        if line.has_comment:
            raise ContentInvalid("a member of the archive has a comment")
        if line.raw_name in seen:
            raise _twice(line.raw_name)
        seen.add(line.raw_name)
        name = _name(line.raw_name, line.flags)
        _check_second_name(name, line.raw_name, line.extra)
        _check_kind(name, line)
        _check_no_link(name, line)
        if line.flags & _FLAG_DESCRIPTOR:
            raise ContentInvalid(
                f"'{_shown(name)}' has its sizes after its data: write the archive to a file, not a pipe"
            )
        if name.endswith("/") and line.size:
            raise ContentInvalid(f"the folder '{_shown(name)}' has content")
        member = Member(name, line.method, line.size, line.packed, line.offset, line.crc)
        records.append(_Record(member, line.raw_name, line.flags & _FLAGS_REPEATED))
    records.sort(key=lambda record: record.member.offset)
    return records


def _behind(file: BinaryIO, line: _Line, start: int) -> Member:
    """The member behind one line, whose own header repeats it as far as its writer knew then what comes."""
    name = line.raw_name.decode()
    header = _exactly(file, line.offset, _LOCAL.size)
    sign, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack(header)
    if sign != _LOCAL_SIGN or file.read(name_length) != line.raw_name:
        raise ContentInvalid(f"'{_shown(name)}' is not where the archive's directory says")
    told, known = [crc], [line.crc]
    if _ALL_32 not in (packed, size):  # otherwise a field of its own has them
        told, known = [*told, packed, size], [*known, line.packed, line.size]
    is_later = bool(flags & _FLAG_DESCRIPTOR)
    if (flags & _FLAGS_REPEATED, method) != (line.flags & _FLAGS_REPEATED, line.method) or (
        told != known and not (is_later and not any(told))
    ):
        raise ContentInvalid(f"the archive says two different things about '{_shown(name)}'")
    if is_later and method == STORED:  # whoever streams it cannot find its end
        raise ContentInvalid(f"'{_shown(name)}' has its size after its data, and does not say where that ends")
    offset = line.offset + _LOCAL.size + name_length + extra_length
    if offset + line.packed > start:
        raise ContentInvalid(f"'{_shown(name)}' overlaps the archive's directory")
    return Member(name, line.method, line.size, line.packed, offset, line.crc)


def _local(file: BinaryIO, records: list[_Record], start: int) -> dict[str, Member]:
    """The members behind the records, whose own headers repeat them and which leave no byte before `start` unused."""
    entries: dict[str, Member] = {}
    at = 0
    for record in records:
        known = record.member
        if known.offset != at:
            raise ContentInvalid(f"data lies unused before '{_shown(known.name)}', or it overlaps another member")
        header = _exactly(file, at, _LOCAL.size)
        sign, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack(header)
        if sign != _LOCAL_SIGN:
            raise ContentInvalid(f"'{_shown(known.name)}' is not where the archive's directory says")
        rest = file.read(name_length + extra_length)  # it follows the header
        if len(rest) != name_length + extra_length:
            raise ContentInvalid("the archive was cut")
        extra = _extra(rest[name_length:])
        size, packed = _wide(extra, (size, packed))
        repeated = (rest[:name_length], flags & _FLAGS_REPEATED, method, crc, packed, size)
        if repeated != (record.raw_name, record.flags, known.method, known.crc, known.packed, known.size):
            raise ContentInvalid(f"the archive says two different things about '{_shown(known.name)}'")
        _check_second_name(known.name, record.raw_name, extra)
        offset = at + _LOCAL.size + name_length + extra_length
        at = offset + known.packed
        entries[known.name] = Member(known.name, method, size, packed, offset, crc)
        if at > start:
            raise ContentInvalid(f"'{_shown(known.name)}' overlaps the archive's directory")
    if at != start:
        raise ContentInvalid("data lies unused between the last member and the archive's directory")
    return entries


def _extra(data: bytes) -> dict[int, bytes]:
    """Extra fields by their number. Raises ContentInvalid for what is no list of them, or has one of ours twice."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        if at + 4 > len(data):
            raise ContentInvalid("an extra field in the archive is cut")
        number, length = struct.unpack_from("<HH", data, at)
        if at + 4 + length > len(data):
            raise ContentInvalid("an extra field in the archive is cut")
        if number in found and number in (_EXTRA_64, _EXTRA_UNICODE_PATH):
            raise ContentInvalid("an extra field in the archive is there twice")
        found[number] = data[at + 4 : at + 4 + length]
        at += 4 + length
    return found


def _wide(extra: Mapping[int, bytes], short: tuple[int, ...]) -> tuple[int, ...]:
    """Sizes and offset with those that do not fit 32 bits taken from the zip64 field (APPNOTE §4.5.3).

    A field with values for what did fit (some writers always put both sizes there) must repeat them.
    """
    data = extra.get(_EXTRA_64)
    missing = [position for position, value in enumerate(short) if value == _ALL_32]
    if data is None:
        if missing:
            raise ContentInvalid("the archive lacks a size that does not fit 32 bits")
        return short
    if len(data) not in (0, 8, 16, 24) or len(data) < 8 * len(missing):
        raise ContentInvalid("a zip64 field in the archive cannot be read")
    values = struct.unpack(f"<{len(data) // 8}Q", data)
    positions = missing if len(values) == len(missing) else list(range(len(values)))
    found = list(short)
    for position, value in zip(positions, values, strict=False):
        if position >= len(found) or (position not in missing and value != found[position]):
            raise ContentInvalid("a zip64 field in the archive contradicts what it belongs to")
        found[position] = value
    if any(position not in positions for position in missing):
        raise ContentInvalid("a zip64 field in the archive cannot be read")
    return tuple(found)


# --- members ---------------------------------------------------------------------------------------------------------


def _name(raw: bytes, flags: int) -> str:
    """A path as every reader spells it. Raises ContentInvalid for what leads out of the folder it is unpacked in."""
    try:
        name = raw.decode("utf-8", "strict")
    except UnicodeDecodeError:
        raise ContentInvalid("a name in the archive is not UTF-8") from None
    if not name.isascii() and not flags & _FLAG_UTF8:
        raise ContentInvalid("a name in the archive is not ASCII and not marked as UTF-8: readers differ about it")
    return _path(name)


def _path(name: str) -> str:
    """Raises ContentInvalid for what leads out of the folder it is unpacked in."""
    if not name.isprintable() or "\\" in name or _DRIVE.match(name):
        raise ContentInvalid(f"'{_shown(name)}' cannot be a path in an archive")
    if any(part in ("", ".", "..") for part in name.removesuffix("/").split("/")):
        raise ContentInvalid(f"'{_shown(name)}' cannot be a path in an archive")
    return name


def _check_second_name(name: str, raw: bytes, extra: Mapping[int, bytes]) -> None:
    """Some readers believe the Unicode path field (APPNOTE §4.6.9) instead of the name."""
    second = extra.get(_EXTRA_UNICODE_PATH)
    if second is not None and second[5:] != raw:
        raise ContentInvalid(f"'{_shown(name)}' has a second name in the archive")


def _check_kind(name: str, line: _Line) -> None:
    if line.method not in (STORED, DEFLATED):
        raise ContentInvalid(
            f"'{_shown(name)}' is packed with method {line.method}; only stored and deflate are allowed"
        )
    if line.flags & _FLAGS_REFUSED:
        raise ContentInvalid(f"'{_shown(name)}' is encrypted or patched")
    if line.method == STORED and line.size != line.packed:
        raise ContentInvalid(f"the sizes of '{_shown(name)}' contradict each other")


def _check_no_link(name: str, line: _Line) -> None:
    kind = stat.S_IFMT(line.attributes >> 16) if line.system == _UNIX else 0
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ContentInvalid(f"'{_shown(name)}' is a link or device")


def _twice(raw_name: bytes) -> ContentInvalid:
    return ContentInvalid(f"the archive has '{_shown(raw_name.decode('utf-8', 'replace'))}' twice")


def _check_bomb(sizes: Iterable[int], size: int, limits: Limits) -> None:
    unpacked = sum(sizes)
    if unpacked > limits.unpacked_bytes:
        raise ContentInvalid(f"the archive would unpack to more than {limits.unpacked_bytes} bytes")
    if unpacked > limits.ratio_from and unpacked > limits.ratio * size:
        raise ContentInvalid(f"the archive would unpack to more than {limits.ratio} times its size")


def _check_tree(entries: Mapping[str, Member]) -> None:
    """A path cannot be a file and a folder."""
    folders: set[str] = set()
    for name in entries:
        parent = name.rstrip("/") if name.endswith("/") else name.rpartition("/")[0]
        while parent and parent not in folders:
            folders.add(parent)
            parent = parent.rpartition("/")[0]
    for name in entries:
        if name in folders:
            raise ContentInvalid(f"'{_shown(name)}' is a file and a folder in the archive")


def _exactly(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset, os.SEEK_SET)
    data = file.read(length)
    if len(data) != length:
        raise ContentInvalid("the archive was cut")
    return data


def _damaged(member: Member) -> ContentInvalid:
    return ContentInvalid(f"'{_shown(member.name)}' is damaged: its data is not what the archive declares")


def _shown(name: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in name[:120])
