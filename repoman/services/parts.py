"""One document about all packages, made from a part for each, so that a change costs that part and what is next to it.

Parts are kept, rendered, by their marks: those of packages that did not change are neither read nor rendered again, in
whatever repository they are shown. Their bytes are gone through once for each *run* of parts: the document's gzip form is
joined from deflate blocks that need nothing before them (RFC 1951, as zlib's full flush leaves them), its checksum is made
from theirs, and its entity tag from their digests. Plain, a long document is not put together at all: it consists of pieces,
most of which the one before it has as well.
"""

from __future__ import annotations

import hashlib
import struct
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from repoman.core import crc32
from repoman.core.format import FormatHandler
from repoman.core.records import Frame, Piece, Rendered
from repoman.core.refs import ListingRef
from repoman.sources.base import Part, Parts

from .rendered import LEVEL, PACKED_FROM

KEPT_BYTES = 64 * 1024 * 1024
RUN_BYTES = 64 * 1024  # from which a run of parts may end, so that much alike is compressed together
LONGEST_RUN = 16 * RUN_BYTES
PIECE_BYTES = 1024 * 1024  # from which a piece ends: small ones cost more to send than to put together
_GZIP = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # RFC 1952 §2.3: deflate, no name, no time, any system
_COST = 200  # of an entry besides its bytes
_Key = tuple[object, ...]
_Rendering = tuple[Part, bytes]
_Texts = tuple[_Key, list[bytes]]
Value = TypeVar("Value", bound=Sized)


class Kept(Generic[Value]):
    """Bytes by key, or what has a length in bytes, the least recently used ones dropped first. Of any thread."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._kept: OrderedDict[_Key, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: _Key) -> Value | None:
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, key: _Key, data: Value) -> None:
        with self._lock:
            earlier = self._kept.pop(key, None)
            self._size += len(data) + (_COST if earlier is None else -len(earlier))
            self._kept[key] = data
            while self._size > self._limit:
                _, dropped = self._kept.popitem(last=False)
                self._size -= len(dropped) + _COST


@dataclass(frozen=True, slots=True)
class _Run:
    """What a document is made from besides the run's bytes: those as deflate blocks, their SHA-256, and their CRC-32 with
    what it takes to combine it (`crc32.shift_of`)."""

    packed: bytes
    digest: bytes
    checksum: int
    shift: int

    def __len__(self) -> int:
        return len(self.packed)


_parts: Kept[bytes] = Kept(KEPT_BYTES)
_runs: Kept[_Run] = Kept(KEPT_BYTES // 4)
# By the keys of their runs. What no document has any more is of no use, so nothing is held twice.
_pieces: WeakValueDictionary[_Key, Piece] = WeakValueDictionary()


def assemble(handler: FormatHandler, ref: ListingRef, found: Parts, form: str, address: str) -> Rendered:
    """The document about all packages; of `ref.limit` of them behind the first `offset` (an argument of `ref`), packages
    that show nothing not counted.

    Its entity tag is a digest of the digests of head, runs and tail. Where runs end depends on the parts alone, so that it
    is the same in every process and repository.
    """
    frame = handler.frame(form, found.changed_at, address)
    offset = next((int(value) for name, value in ref.arguments if name == "offset"), 0)
    shown = islice(_rendered(handler, found, form), offset, offset + ref.limit if ref.limit is not None else None)
    cut = list(_runs_of((handler.name, form, frame.between), shown, frame.between))
    runs = [_run(key, texts) for key, texts in cut]
    pieces = (Piece(frame.head), *_pieces_of(cut), Piece(frame.tail))
    size = sum([len(piece.data) for piece in pieces])
    if size < PIECE_BYTES:
        pieces = (Piece(b"".join([piece.data for piece in pieces])),)
    packed = _gzip(frame, runs, size) if size >= PACKED_FROM else b""
    digests = b"".join([_digest(frame.head), *[run.digest for run in runs], _digest(frame.tail)])
    etag = f'"{_digest(digests).hex()[:32]}"'
    return Rendered(pieces, packed if len(packed) < size else b"", frame.media_type, etag)


def _gzip(frame: Frame, runs: Sequence[_Run], size: int) -> bytes:
    """The whole as one gzip member; `size` is of what is in it."""
    checksum = zlib.crc32(frame.head)
    for run in runs:
        checksum = crc32.combined(checksum, run.checksum, run.shift)
    trailer = struct.pack("<II", zlib.crc32(frame.tail, checksum), size & 0xFFFFFFFF)
    blocks = [_deflated(frame.head), *[run.packed for run in runs], _deflated(frame.tail, is_last=True)]
    return b"".join([_GZIP, *blocks, trailer])


def _rendered(handler: FormatHandler, found: Parts, form: str) -> Iterator[_Rendering]:
    """Each part that shows something, with its bytes."""
    for part in found.parts:
        key = (handler.name, form, part)
        data = _parts.get(key)
        if data is None:
            package = part[0]
            mark, listing = found.read(package)
            data = handler.render_part(package, listing, form)
            part = (package, mark)  # it may have changed since the marks were read, and runs are kept by them, too
            _parts.put((handler.name, form, part), data)
        if data:
            yield part, data


def _runs_of(kind: _Key, parts: Iterable[_Rendering], between: bytes) -> Iterator[_Texts]:
    """The bytes of each run, all but the first beginning with `between`, under a key.

    Where a run ends depends on the name and the length of its last part, so one that comes or goes moves few other runs'
    ends. From RUN_BYTES on a long part is likelier to be the last one: runs have about twice as much, whatever their parts.
    """
    names: list[str] = []
    texts: list[bytes] = []
    size, before = 0, b""
    for part, data in parts:
        names.append("\t".join(part))
        texts += (before, data)
        size, before = size + len(data), between
        if size >= RUN_BYTES and (size >= LONGEST_RUN or zlib.crc32(_encoded(part[0])) % RUN_BYTES < len(data)):
            yield (*kind, texts[0], _key_of(names)), texts
            names, texts, size = [], [], 0
    if texts:
        yield (*kind, texts[0], _key_of(names)), texts


def _key_of(names: list[str]) -> bytes:
    return hashlib.blake2b(_encoded("\n".join(names)), digest_size=24).digest()


def _run(key: _Key, texts: list[bytes]) -> _Run:
    found = _runs.get(key)
    if found is None:
        data = b"".join(texts)
        found = _Run(_deflated(data), _digest(data), zlib.crc32(data), crc32.shift_of(len(data)))
        _runs.put(key, found)
    return found


def _pieces_of(cut: Iterable[_Texts]) -> Iterator[Piece]:
    """Runs put together to what is worth a write, or as they were put together before."""
    keys: list[_Key] = []
    texts: list[bytes] = []
    size = 0
    for key, more in cut:
        keys.append(key)
        texts += more
        size += sum(map(len, more))
        if size >= PIECE_BYTES:
            yield _piece(tuple(keys), texts)
            keys, texts, size = [], [], 0
    if texts:
        yield _piece(tuple(keys), texts)


def _piece(key: _Key, texts: list[bytes]) -> Piece:
    found = _pieces.get(key)
    if found is None:
        found = _pieces[key] = Piece(b"".join(texts))
    return found


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _deflated(data: bytes, *, is_last: bool = False) -> bytes:
    """Whole bytes of deflate that stand by themselves."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush(zlib.Z_FINISH if is_last else zlib.Z_FULL_FLUSH)
