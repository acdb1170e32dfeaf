"""One document about all packages, put together from a part for each, so that a change costs that part and a copy.

Parts are kept, rendered, by their marks: those of packages that did not change are neither read nor rendered again, in
whatever repository they are shown. What is sent with gzip is kept in runs of parts, each compressed on its own as deflate
blocks that need nothing before them (RFC 1951, as zlib's full flush leaves them), and joined as one gzip member.
"""

from __future__ import annotations

import hashlib
import struct
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import islice

from repoman.core.format import FormatHandler
from repoman.core.records import Rendered
from repoman.core.refs import ListingRef
from repoman.sources.base import Part, Parts

from .rendered import LEVEL, PACKED_FROM

KEPT_BYTES = 64 * 1024 * 1024
RUN_BYTES = 64 * 1024  # from which a run of parts may end, so that much alike is compressed together
LONGEST_RUN = 16 * RUN_BYTES
_ONE_IN = 8
_GZIP = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # RFC 1952 §2.3: deflate, no name, no time, any system
_COST = 200  # of an entry besides its bytes
_Key = tuple[object, ...]
_Piece = tuple[Part, bytes]


class Kept:
    """Bytes by key, the least recently used ones dropped first. Of any thread."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._kept: OrderedDict[_Key, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: _Key) -> bytes | None:
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, key: _Key, data: bytes) -> None:
        with self._lock:
            earlier = self._kept.pop(key, None)
            self._size += len(data) + (_COST if earlier is None else -len(earlier))
            self._kept[key] = data
            while self._size > self._limit:
                _, dropped = self._kept.popitem(last=False)
                self._size -= len(dropped) + _COST


_parts = Kept(KEPT_BYTES)
_runs = Kept(KEPT_BYTES // 4)


def assemble(handler: FormatHandler, ref: ListingRef, found: Parts, form: str, address: str) -> Rendered:
    """The document about all packages; of `ref.limit` of them behind the first `offset` (an argument of `ref`), packages
    that show nothing not counted."""
    frame = handler.frame(form, found.changed_at, address)
    offset = next((int(value) for name, value in ref.arguments if name == "offset"), 0)
    shown = _rendered(handler, found, form)
    pieces = list(islice(shown, offset, offset + ref.limit if ref.limit is not None else None))
    joined = [frame.head]
    for _, data in pieces:
        joined += (data, frame.between)
    if pieces:
        joined.pop()
    data = b"".join([*joined, frame.tail])
    etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    packed = b""
    if len(data) >= PACKED_FROM:
        blocks: list[bytes] = []
        between = _deflated(frame.between)
        for run in _runs_of(pieces):
            blocks += [between, _run((handler.name, form), run, frame.between)]
        check = struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)
        packed = b"".join((_GZIP, _deflated(frame.head), *blocks[1:], _deflated(frame.tail, is_last=True), check))
    return Rendered(data, packed if 0 < len(packed) < len(data) else b"", frame.media_type, etag)


def _rendered(handler: FormatHandler, found: Parts, form: str) -> Iterator[_Piece]:
    """Each part that shows something, with its bytes."""
    for part in found.parts:
        key = (handler.name, form, part)
        data = _parts.get(key)
        if data is None:
            package = part[0]
            mark, listing = found.read(package)
            data = handler.render_part(package, listing, form)
            if (package, mark) == part:
                _parts.put(key, data)
        if data:
            yield part, data


def _runs_of(pieces: Sequence[_Piece]) -> Iterator[list[_Piece]]:
    """The pieces in runs whose ends depend on the packages' names: one that comes or goes moves few other runs' ends."""
    run: list[_Piece] = []
    size = 0
    for part, data in pieces:
        run.append((part, data))
        size += len(data)
        if size >= RUN_BYTES and (size >= LONGEST_RUN or zlib.crc32(_encoded(part[0])) % _ONE_IN == 0):
            yield run
            run, size = [], 0
    if run:
        yield run


def _run(key: _Key, run: Sequence[_Piece], between: bytes) -> bytes:
    names = _encoded("\n".join([f"{package}\t{mark}" for (package, mark), _ in run]))
    key = (*key, hashlib.blake2b(names, digest_size=24).digest())
    found = _runs.get(key)
    if found is None:
        found = _deflated(between.join([data for _, data in run]))
        _runs.put(key, found)
    return found


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _deflated(data: bytes, *, is_last: bool = False) -> bytes:
    """Whole bytes of deflate that stand by themselves."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush(zlib.Z_FINISH if is_last else zlib.Z_FULL_FLUSH)
