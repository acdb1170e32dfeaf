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


class Bounded(Generic[Key, Value]):
    """Values of known sizes, at most `limit` bytes of them, least recently used ones dropped first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._kept: OrderedDict[Key, tuple[Value, int]] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put(self, key: Key, value: Value, size: int) -> None:
        earlier = self._kept.pop(key, None)
        self._size += size - (earlier[1] if earlier is not None else 0)
        self._kept[key] = (value, size)
        while self._size > self._limit:
            _, (_, dropped) = self._kept.popitem(last=False)
            self._size -= dropped


class SmallBlobs:
    """At most `limit` bytes of verified blobs. Keys are sha256 hex."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self._kept: Bounded[str, bytes] = Bounded(limit)

    def get(self, digest: str) -> bytes | None:
        return self._kept.get(digest)

    def put(self, digest: str, data: bytes) -> None:
        self._kept.put(digest, data, len(data) + 256)


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
