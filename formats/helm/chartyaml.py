"""YAML from strangers, with the values that Helm's parser gives it.

libyaml cuts the text into events; what they mean is decided here, as by the Go library that Helm reads Chart.yaml and
indexes with (YAML 1.1 with some of 1.2: `yes` and `on` are true, `017` and `0o17` are 15, `1_000` is 1000, dates stay text).
A field that wants text gets a number's or bool's text by `text_of`: `appVersion: 1.10` is "1.1".

Nothing is ever instantiated: tags are refused, aliases are counted as what they stand for, and levels and values are
bounded. Where one bad value must not cost the document, as in an upstream's index, what is beyond these bounds is passed
over in constant memory.
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
DEEPEST = 256  # also of what is passed over: for libyaml each event costs in proportion to the level it is on
VALUES_MOST = 100_000
ALIASED_MOST = 4  # values for each byte of the document that all its aliases stand for, besides VALUES_MOST
_TOO_MANY = f"the YAML has more than {VALUES_MOST} values"
TOO_LARGE = object()  # what `Reader.value` passed over
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


class _TooLarge(ContentInvalid):
    """A value has more levels or values than are read."""


class Reader:
    """The events of one document, with one look ahead.

    `is_strict`: tags, merged mappings, keys that are there twice or are no text, and too large values are refused. Otherwise
    the last of two values counts, under the text that Go makes of its key, and tags and too large values are passed over.

    `last` is where the value that `value` gave ends: its last scalar or alias, or the bracket that closes it; None where it
    was passed over.
    """

    last: Any = None

    def __init__(self, data: bytes, *, is_strict: bool = True) -> None:
        try:
            text = data.decode("utf-8-sig", "strict")
        except UnicodeDecodeError:
            raise ContentInvalid("the YAML is not valid UTF-8") from None
        self._loader = yaml.CSafeLoader(text)
        self._is_strict = is_strict
        self._left = VALUES_MOST
        self._left_aliased = VALUES_MOST + ALIASED_MOST * len(data)
        self._anchors: dict[str, tuple[Any, int]] = {}  # what they stand for, and its number of values
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
        """Whether `items` can be used. Of a list that aliases may stand for later, `value` has to be taken."""
        event = self.peek()
        return isinstance(event, SequenceStartEvent) and event.anchor is None

    def is_flow(self) -> bool:
        """Whether a value in brackets comes next: where it can be read, it is there to its end."""
        return getattr(self.peek(), "flow_style", None) is True

    def renew(self) -> None:
        """Count anew what the following values may cost: for a document that is read one entry at a time."""
        self._left = VALUES_MOST

    def pairs(self) -> Iterator[str]:
        """The keys of the mapping that comes next; whoever iterates takes each key's value. It is nowhere as a whole, so no
        alias can stand for it. Raises ContentInvalid."""
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
        """The value that comes next: dict, list, str, int, float, bool, None or TOO_LARGE. Raises ContentInvalid."""
        try:
            return self._made(self.take(), 0)
        except _TooLarge:
            if self._is_strict:
                raise
            self.last = None
            return TOO_LARGE

    def _made(self, event: Any, depth: int) -> Any:
        """The value that begins with this event. All its events have been taken where it raises _TooLarge of a document that
        is not read strictly."""
        found: Any
        before = self._left
        kind = event.__class__
        if kind is AliasEvent:
            return self._aliased(event)
        if kind is not ScalarEvent and kind is not SequenceStartEvent and kind is not MappingStartEvent:
            raise ContentInvalid("the YAML document is empty")
        if event.tag is not None:
            self._check(event)
        if kind is ScalarEvent:
            self._left -= 1  # as `_spend` does it, without a call for each of a million values
            if self._left < 0:
                self._bar(event)
                raise _TooLarge(_TOO_MANY)
            found = resolve(event.value) if event.implicit[0] else event.value
            self.last = event
        else:
            try:
                self._spend(1)
                if depth >= DEPTH:
                    raise _TooLarge(f"the YAML is nested deeper than {DEPTH} levels")
                if kind is SequenceStartEvent:
                    found = []
                    while (inner := self.take()).__class__ is not SequenceEndEvent:
                        found.append(self._made(inner, depth + 1))
                else:
                    found = {}
                    while (inner := self.take()).__class__ is not MappingEndEvent:
                        key = self._key(inner)
                        self._left -= 1
                        if self._left < 0:
                            raise _TooLarge(_TOO_MANY)
                        if self._is_strict and key in found:
                            raise ContentInvalid(f"the YAML has the key '{shown(key)}' twice in one place")
                        found[key] = self._made(self.take(), depth + 1)
            except _TooLarge:
                if not self._is_strict:
                    self._pass_over(event, depth)
                raise
            if event.flow_style:
                self.last = inner
        if event.anchor is not None:
            self._anchors[event.anchor] = (found, before - self._left)
        return found

    def _aliased(self, event: Any) -> Any:
        if event.anchor not in self._anchors:
            raise ContentInvalid("the YAML has an alias of nothing, or of itself")
        self.last = event
        found, cost = self._anchors[event.anchor]
        self._spend(cost)
        self._left_aliased -= cost
        if self._left_aliased < 0:
            raise _TooLarge("the aliases of the YAML stand for too many values")
        return found

    def _pass_over(self, event: Any, depth: int) -> None:
        """Take what is left of this list or mapping on level `depth`. An alias of it, or of a part, is too large, too."""
        level = 1
        while True:
            self._bar(event)
            if level == 0:
                return
            event = self.take()
            if isinstance(event, SequenceStartEvent | MappingStartEvent):
                level += 1
                if depth + level > DEEPEST:
                    raise ContentInvalid(f"the YAML is nested deeper than {DEEPEST} levels")
            elif isinstance(event, SequenceEndEvent | MappingEndEvent):
                level -= 1

    def _bar(self, event: Any) -> None:
        """Let an alias of what begins with this event, if there can be one, be too large."""
        if event.__class__ is not AliasEvent and getattr(event, "anchor", None) is not None:
            self._anchors[event.anchor] = (TOO_LARGE, VALUES_MOST + 1)

    def end(self) -> None:
        """The document ends here. What other documents follow in the stream is nobody's business: Helm reads the first."""
        if not isinstance(self.peek(), DocumentEndEvent | StreamEndEvent):
            raise ContentInvalid("the YAML goes on after its document")

    def is_ended(self) -> bool:
        """After `end`: whether the document is marked as ended, by `...` or by another one that begins."""
        event = self.take()
        return bool(getattr(event, "explicit", None)) or not isinstance(self.peek(), StreamEndEvent)

    def _key(self, event: Any) -> str:
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
            raise _TooLarge(_TOO_MANY)


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
