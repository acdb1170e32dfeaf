"""Small blobs kept in memory by digest, and the one cache shape the edge uses: bounded, and dropped oldest first.

What is named by its digest cannot go stale; whether a caller may see it is decided before anyone looks here. Used from
the event loop's thread only.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")
SMALL_BYTES = 64 * 1024
KEPT_BYTES = 32 * 1024 * 1024


class SmallBlobs:
    """At most `limit` bytes of verified blobs, least recently used ones dropped first. Keys are sha256 hex."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self._limit = limit
        self._size = 0
        self._kept: OrderedDict[str, bytes] = OrderedDict()

    def get(self, digest: str) -> bytes | None:
        data = self._kept.get(digest)
        if data is not None:
            self._kept.move_to_end(digest)
        return data

    def put(self, digest: str, data: bytes) -> None:
        if digest in self._kept:
            return
        self._kept[digest] = data
        self._size += len(data) + 256
        while self._size > self._limit:
            _, dropped = self._kept.popitem(last=False)
            self._size -= len(dropped) + 256


class Recent(Generic[Key, Value]):
    """A dict of at most about `limit` entries: two generations, the older dropped when the younger is full.

    A look-up costs one dict access for what is used often, and nothing is kept in order.
    """

    __slots__ = ("_limit", "_old", "_young")

    def __init__(self, limit: int) -> None:
        self._limit = max(1, limit // 2)
        self._young: dict[Key, Value] = {}
        self._old: dict[Key, Value] = {}

    def get(self, key: Key) -> Value | None:
        value = self._young.get(key)
        if value is None:
            value = self._old.get(key)
            if value is not None:
                self.put(key, value)
        return value

    def put(self, key: Key, value: Value) -> None:
        if len(self._young) >= self._limit:
            self._old, self._young = self._young, {}
        self._young[key] = value

    def drop(self, key: Key) -> None:
        self._young.pop(key, None)
        self._old.pop(key, None)

    def clear(self) -> None:
        self._young.clear()
        self._old.clear()

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
