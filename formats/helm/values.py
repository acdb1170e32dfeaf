"""A chart's values.yaml as JSON, for people and tools that look into a chart that was published.

Nothing hangs on it: what Helm takes and JSON or this reader does not must not make a published chart unreadable. So it is
read leniently, and what cannot be read has no values.
"""

from __future__ import annotations

from typing import Any

from repoman.core.errors import ContentInvalid

from .chartyaml import Reader

TEXT_BYTES = 16 * 1024 * 1024  # of all texts together, each time an alias stands for one
DEPTH = 128  # with what aliases stand for; 64 as it is written
_MERGE = "<<"


def read_values(data: bytes) -> dict[str, Any]:
    """The values, with what `<<` merges in its place; {} where they cannot be read, or are no mapping."""
    try:
        found = _Values().plain(Reader(data, is_strict=False).value(), 0)
    except ContentInvalid:
        return {}
    return found if isinstance(found, dict) else {}


class _Values:
    """Values with their merged mappings resolved. How many they are is bounded by the reader, which counts an alias as what
    it stands for; what texts they repeat and how deep they come to lie, here."""

    def __init__(self) -> None:
        self._left = TEXT_BYTES

    def plain(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if not isinstance(value, dict | list):
            return value
        if depth >= DEPTH:
            raise ContentInvalid(f"the values are nested deeper than {DEPTH} levels")
        if isinstance(value, list):
            return [self.plain(item, depth + 1) for item in value]
        merged: dict[str, Any] = {}
        own = {self._text(key): self.plain(item, depth + 1) for key, item in value.items()}
        among = own.get(_MERGE)
        sources = among if isinstance(among, list) else [among]
        if _MERGE in own and all(isinstance(one, dict) for one in sources):
            del own[_MERGE]
            for one in reversed(sources):  # the first of several counts, and what stands beside them before all
                merged |= one
        return merged | own

    def _text(self, value: str) -> str:
        self._left -= len(value)
        if self._left < 0:
            raise ContentInvalid(f"the values have more than {TEXT_BYTES} characters")
        return value
