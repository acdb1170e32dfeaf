"""The order of versions, as Maven's resolver has it (its generic version scheme), and which of them are snapshots.

A version is cut at `.`, `-`, `_` and where digits and letters meet. Numbers are compared as numbers, words as words, some of
them by meaning; zeros and words that mean nothing at the end of a run do not count, so that 1, 1.0 and 1-ga are equal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cmp_to_key, lru_cache
from typing import Any

SNAPSHOT = "SNAPSHOT"
BUILD = re.compile(r"(?P<base>.*-|)(?P<timestamp>[0-9]{8}\.[0-9]{6})-(?P<number>[0-9]{1,9})\Z")
_TOKEN = re.compile(r"([0-9]+)|([^0-9._-]+)|([._-])")
_MEANING = {
    "alpha": -5,
    "beta": -4,
    "milestone": -3,
    "rc": -2,
    "cr": -2,
    "snapshot": -1,
    "": 0,
    "ga": 0,
    "final": 0,
    "release": 0,
    "sp": 1,
}
_LETTERS = {"a": "alpha", "b": "beta", "m": "milestone"}  # where a number follows at once
_LEAST, _WORD, _TEXT, _NUMBER, _MOST = range(5)


@dataclass(frozen=True, slots=True)
class _Item:
    kind: int
    value: Any = 0

    @property
    def is_number(self) -> bool:
        return self.kind not in (_WORD, _TEXT)

    def against_nothing(self) -> int:
        """How it stands to the padding that the shorter of two versions is thought to have."""
        if self.kind in (_WORD, _NUMBER):
            return int(self.value)
        return -1 if self.kind == _LEAST else 1

    def against(self, other: _Item) -> int:
        mine, others = (self.kind, self.value), (other.kind, other.value)
        return (mine > others) - (mine < others)


def is_snapshot(version: str) -> bool:
    return takes_builds(version) or BUILD.match(version) is not None


def takes_builds(version: str) -> bool:
    """Whether it is a snapshot's own name, not that of a build; in any case, as Gradle has it (V1)."""
    return version[-len(SNAPSHOT) :].upper() == SNAPSHOT


def fits(version: str, policy: str) -> bool:
    """Whether a repository of that `version_policy` has versions of this kind."""
    return policy == "mixed" or is_snapshot(version) == (policy == "snapshot")


def base_of(version: str) -> str:
    """The version that a build of a snapshot belongs to (`1.0-SNAPSHOT`); any other one itself."""
    found = BUILD.match(version)
    return f"{found['base']}{SNAPSHOT}" if found else version


def in_order(versions: Sequence[str]) -> list[str]:
    """Lowest first; those that compare equal by their text, so that the order is always the same."""
    # Comparing is slow, and an ordered list needs least of it.
    return sorted(sorted(versions, key=_roughly), key=version_key)


def _roughly(version: str) -> list[tuple[int, int, str]]:
    """Nearly the order of most versions, as plain values."""
    return [
        (item.kind, 0, item.value) if item.kind == _TEXT else (item.kind, int(item.value), "")
        for item in (*_items(version), _Item(_WORD))
    ]


def version_key(version: str) -> Any:
    return _key((_items(version), version))


def _compared(one: tuple[tuple[_Item, ...], str], other: tuple[tuple[_Item, ...], str]) -> int:
    return _compared_items(one[0], other[0]) or (one[1] > other[1]) - (one[1] < other[1])


_key = cmp_to_key(_compared)


def _compared_items(these: tuple[_Item, ...], those: tuple[_Item, ...]) -> int:
    expects_number = True
    for index in range(max(len(these), len(those))):
        if index >= len(these):
            return -_padded(those[index:])
        if index >= len(those):
            return _padded(these[index:])
        mine, others = these[index], those[index]
        if mine.is_number != others.is_number:
            if index == 0:
                return mine.against(others)
            if mine.is_number == expects_number:
                return _padded([item for item in these[index:] if item.is_number == expects_number])
            return -_padded([item for item in those[index:] if item.is_number == expects_number])
        if (difference := mine.against(others)) != 0:
            return difference
        expects_number = mine.is_number
    return 0


def _padded(rest: Sequence[_Item]) -> int:
    return next((found for item in rest if (found := item.against_nothing()) != 0), 0)


@lru_cache(maxsize=16_384)
def _items(version: str) -> tuple[_Item, ...]:
    """The parts that count. A separator where a part is missing stands for 0."""
    found: list[_Item] = []
    tokens = list(_TOKEN.finditer(version[:1000]))
    awaits = True  # a part, after a separator or at the start
    for position, token in enumerate(tokens):
        number, word, separator = token.groups()
        if separator:
            if awaits:
                found.append(_Item(_NUMBER))
            awaits = True
            continue
        awaits = False
        rest = tokens[position + 1 : position + 3]
        is_last = not rest or (len(rest) == 1 and bool(rest[0].group(3)))  # a single separator at the end says nothing
        is_before_number = bool(rest and rest[0].group(1))
        found.append(_Item(_NUMBER, int(number[-300:])) if number else _word(word, is_last, is_before_number))
    return tuple(_without_padding(found or [_Item(_NUMBER)]))


def _word(word: str, is_last: bool, is_before_number: bool) -> _Item:
    plain = word.lower()
    if is_last and plain in ("min", "max"):
        return _Item(_LEAST if plain == "min" else _MOST)
    if is_before_number:
        plain = _LETTERS.get(plain, plain)
    return _Item(_WORD, _MEANING[plain]) if plain in _MEANING else _Item(_TEXT, plain)


def _without_padding(items: list[_Item]) -> list[_Item]:
    """Without what equals the padding at the end of each run of numbers or words; the first part stays."""
    kept = list(items)
    end = len(kept) - 1
    is_number: bool | None = None
    for index in range(end, 0, -1):
        item = kept[index]
        if item.is_number != is_number:
            end, is_number = index, item.is_number
        runs_on = index == len(kept) - 1 or kept[index - 1].is_number == item.is_number
        if end == index and runs_on and item.against_nothing() == 0:
            del kept[index]
            end -= 1
    return kept
