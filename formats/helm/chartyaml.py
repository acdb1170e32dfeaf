"""YAML from strangers, with the values that Helm's parser gives it.

libyaml cuts the text into events; what they mean is decided here, as by the Go library that Helm reads Chart.yaml and
indexes with (YAML 1.1 with some of 1.2: `yes` and `on` are true, `017` and `0o17` are 15, `1_000` is 1000, dates stay text).
A field that wants text gets a number's or bool's text by `text_of`: `appVersion: 1.10` is "1.1".

Nothing is ever instantiated: tags are refused, aliases are counted as what they stand for, and levels and values are
bounded.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
    StreamStartEvent,
)

from repoman.core.errors import ContentInvalid
from repoman.core.names import shown

DEPTH = 64
VALUES_MOST = 100_000
_WORDS: dict[str, bool | float | None] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_INTEGER = re.compile(
    r"(?P<sign>[-+]?)(?:0[xX](?P<x>[0-9a-fA-F]+)|0[bB](?P<b>[01]+)|0[oO](?P<o>[0-7]+)|0(?P<z>[0-7]+)|(?P<d>0|[1-9][0-9]*))\Z"
)
_BASES = {"x": 16, "b": 2, "o": 8, "z": 8, "d": 10}
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_DATE = re.compile(
    r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"
    r"(?:[Tt][0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(?:\.[0-9]+)?(?:Z|[-+][0-9]{2}:[0-9]{2})"
    r"| [0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(?:\.[0-9]+)?)?\Z"
)


class Reader:
    """The events of one document, with one look ahead.

    `is_strict`: tags, merged mappings, and keys that are there twice or are no text are refused. Otherwise the last of two
    values counts, under the text that Go makes of its key, and tags are passed over.
    """

    def __init__(self, data: bytes, *, is_strict: bool = True) -> None:
        try:
            text = data.decode("utf-8-sig", "strict")
        except UnicodeDecodeError:
            raise ContentInvalid("the YAML is not valid UTF-8") from None
        self._loader = yaml.CSafeLoader(text)
        self._is_strict = is_strict
        self._left = VALUES_MOST
        self._anchors: dict[str, tuple[Any, int]] = {}
        while isinstance(self.peek(), StreamStartEvent | DocumentStartEvent):
            self.take()

    def peek(self) -> Any:
        try:
            return self._loader.peek_event()
        except yaml.YAMLError as error:
            raise ContentInvalid(f"the YAML cannot be read: {_problem(error)}") from None

    def take(self) -> Any:
        try:
            return self._loader.get_event()
        except yaml.YAMLError as error:
            raise ContentInvalid(f"the YAML cannot be read: {_problem(error)}") from None

    def is_mapping(self) -> bool:
        return isinstance(self.peek(), MappingStartEvent)

    def is_list(self) -> bool:
        return isinstance(self.peek(), SequenceStartEvent)

    def renew(self) -> None:
        """Count anew what the following values may cost: for a document that is read one entry at a time."""
        self._left = VALUES_MOST

    def pairs(self) -> Iterator[str]:
        """The keys of the mapping that comes next; whoever iterates takes each key's value. Raises ContentInvalid."""
        event = self.take()
        if not isinstance(event, MappingStartEvent):
            raise ContentInvalid("the YAML has something else where a mapping belongs")
        self._check(event)
        while not isinstance(self.peek(), MappingEndEvent):
            yield self._key(self.take())
        self.take()

    def items(self) -> Iterator[None]:
        """Once for each item of the sequence that comes next; whoever iterates takes it. Raises ContentInvalid."""
        event = self.take()
        if not isinstance(event, SequenceStartEvent):
            raise ContentInvalid("the YAML has something else where a list belongs")
        self._check(event)
        while not isinstance(self.peek(), SequenceEndEvent):
            yield
        self.take()

    def value(self) -> Any:
        """The value that comes next: dict, list, str, int, float, bool or None."""
        return self._made(self.take(), 0)

    def _made(self, event: Any, depth: int) -> Any:
        """The value that begins with this event."""
        found: Any
        before = self._left
        kind = event.__class__
        if kind is AliasEvent:
            if event.anchor not in self._anchors:
                raise ContentInvalid("the YAML has an alias of nothing, or of itself")
            found, cost = self._anchors[event.anchor]
            self._spend(cost)
            return found
        if kind is not ScalarEvent and kind is not SequenceStartEvent and kind is not MappingStartEvent:
            raise ContentInvalid("the YAML document is empty")
        if event.tag is not None:
            self._check(event)
        self._spend(1)
        if kind is ScalarEvent:
            found = resolve(event.value) if event.implicit[0] else event.value
        elif depth >= DEPTH:
            raise ContentInvalid(f"the YAML is nested deeper than {DEPTH} levels")
        elif kind is SequenceStartEvent:
            found = []
            while (inner := self.take()).__class__ is not SequenceEndEvent:
                found.append(self._made(inner, depth + 1))
        else:
            found = {}
            while (inner := self.take()).__class__ is not MappingEndEvent:
                key = self._key(inner)
                if self._is_strict and key in found:
                    raise ContentInvalid(f"the YAML has the key '{shown(key)}' twice in one place")
                found[key] = self._made(self.take(), depth + 1)
        if event.anchor is not None:
            self._anchors[event.anchor] = (found, before - self._left)
        return found

    def end(self) -> None:
        """The document ends here. What other documents follow in the stream is nobody's business: Helm reads the first."""
        if not isinstance(self.peek(), DocumentEndEvent | StreamEndEvent):
            raise ContentInvalid("the YAML goes on after its document")

    def _key(self, event: Any) -> str:
        self._spend(1)
        if not isinstance(event, ScalarEvent) or event.anchor is not None:
            raise ContentInvalid("the YAML has a key that is no plain text")
        if event.tag is not None:
            self._check(event)
        found = resolve(event.value) if event.implicit[0] else event.value
        if found == "<<" and event.implicit[0] and self._is_strict:
            raise ContentInvalid("the YAML merges mappings with '<<', which is not read here")
        if isinstance(found, str):
            return found
        if self._is_strict:
            raise ContentInvalid(f"the YAML has the key '{shown(event.value)}', which is no text: quote it")
        return text_of(found) or event.value

    def _check(self, event: Any) -> None:
        if event.tag is not None and self._is_strict:
            raise ContentInvalid(f"the YAML has the tag '{shown(str(event.tag))}'; tags are not read here")

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise ContentInvalid(f"the YAML has more than {VALUES_MOST} values")


def load(data: bytes) -> Any:
    """The first document of `data`, read strictly. Raises ContentInvalid."""
    reader = Reader(data)
    found = reader.value()
    reader.end()
    return found


def resolve(text: str) -> str | int | float | bool | None:
    """What a plain scalar is."""
    if text in _WORDS:
        return _WORDS[text]
    first = text[0]
    if first not in "+-.0123456789":
        return text
    if first == ".":
        return float(text) if _FLOAT.match(text) else text
    if _DATE.match(text):
        return text
    plain = text.replace("_", "")
    match = _INTEGER.match(plain)
    if match is not None and len(plain) <= 70:
        name = next(name for name in _BASES if match[name] is not None)
        value = int(match[name], _BASES[name]) * (-1 if match["sign"] == "-" else 1)
        if -(2**63) <= value < 2**63 or (not match["sign"] and value < 2**64):
            return value
    if _FLOAT.match(plain) and len(plain) <= 400:
        found = float(plain)
        return found if math.isfinite(found) else text
    return text


def text_of(value: str | int | float | bool | None) -> str:
    """The text that Helm's reader makes of a value where a field wants text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float_text(value)
    return str(value)


def _float_text(value: float) -> str:
    """Go's `FormatFloat(value, 'g', -1, 32)`: the shortest digits that give the same 32-bit number."""
    if math.isnan(value):
        return "NaN"
    try:
        wanted = struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        wanted = math.copysign(math.inf, value)
    if math.isinf(wanted):
        return "+Inf" if wanted > 0 else "-Inf"
    shortest = next(
        text
        for digits in range(9)
        if struct.unpack("f", struct.pack("f", float(text := f"{wanted:.{digits}e}")))[0] == wanted
    )
    mantissa, _, power = shortest.partition("e")
    exponent = int(power)
    if -4 <= exponent < 6:
        return f"{Decimal(shortest).normalize():f}"
    return f"{Decimal(mantissa).normalize():f}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


def _problem(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it is not YAML"
    mark = getattr(error, "problem_mark", None)
    where = f" in line {mark.line + 1}" if mark is not None else ""
    return f"{shown(str(problem))}{where}"
