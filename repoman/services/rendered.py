"""Documents that were rendered once, kept per process while what they are made of stands still.

The mark of the records (`Source.mark`) is compared each time, so nothing that changed is ever served; a mark costs a point
query, rendering a listing of a thousand versions some thousand times as much.
"""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable

from repoman.core.records import Document, Piece, Rendered

KEPT_BYTES = 64 * 1024 * 1024
PACKED_FROM = 1024
LEVEL = 2  # a document is packed while the first client waits for it; more gains little
_STRIPES = 64
Key = tuple[object, ...]


class Documents:
    """Least recently used ones go first. Threads that want the same document wait for the one that renders it."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self._limit = limit
        self._size = 0
        self._kept: OrderedDict[Key, tuple[str, Rendered]] = OrderedDict()
        self._lock = threading.Lock()
        self._rendering = tuple(threading.Lock() for _ in range(_STRIPES))

    def get(self, key: Key, mark: str, render: Callable[[], Document | Rendered]) -> Rendered:
        found = self._find(key, mark)
        if found is not None:
            return found
        with self._rendering[hash(key) % _STRIPES]:
            found = self._find(key, mark)
            if found is None:
                made = render()
                found = made if isinstance(made, Rendered) else pack(made)
                self._put(key, mark, found)
        return found

    def _find(self, key: Key, mark: str) -> Rendered | None:
        with self._lock:
            kept = self._kept.get(key)
            if kept is None or kept[0] != mark:
                return None
            self._kept.move_to_end(key)
            return kept[1]

    def _put(self, key: Key, mark: str, document: Rendered) -> None:
        with self._lock:
            earlier = self._kept.pop(key, None)
            if earlier is not None:
                self._size -= _weight(earlier[1])
            if _weight(document) > self._limit // 2:
                return
            self._kept[key] = (mark, document)
            self._size += _weight(document)
            while self._size > self._limit:
                _, (_, dropped) = self._kept.popitem(last=False)
                self._size -= _weight(dropped)


def _weight(document: Rendered) -> int:
    return document.held_bytes + 1024


def pack(document: Document) -> Rendered:
    """With its entity tag, and compressed where that is worth it."""
    data = document.data
    etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    packed = b""
    if len(data) >= PACKED_FROM:
        packer = zlib.compressobj(LEVEL, zlib.DEFLATED, 31)  # 31: gzip, without name and time
        packed = packer.compress(data) + packer.flush()
    return Rendered((Piece(data),), packed if len(packed) < len(data) else b"", document.media_type, etag)


documents = Documents()
