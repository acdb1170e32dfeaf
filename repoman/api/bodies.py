"""Request bodies: JSON objects of bounded size and depth, with fields that take exactly their own type."""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping
from typing import Any, ClassVar

from rest_framework import serializers
from rest_framework.exceptions import ParseError, ValidationError
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser

from repoman.core.errors import TooLarge

MOST_BYTES = 256 * 1024
DEEPEST = 20
LARGEST = 2**62


class BoundedJSONParser(BaseParser):
    """UTF-8 JSON (RFC 8259), at most 256 KiB, 20 levels, no member twice, no NaN, no number past 2^62 (B7)."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        data = stream.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise TooLarge(f"a request of this API has at most {MOST_BYTES} bytes")
        try:
            text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "strict")
            if text.count("[") + text.count("{") > 20_000:
                raise ValueError("too many lists and objects")
            value = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant, parse_int=_bounded)
            _check(value, 0)
        except RecursionError:
            raise ParseError("the JSON is nested too deeply") from None
        except ValueError as error:
            raise ParseError(f"the body is not the JSON it should be: {str(error)[:200]}") from None
        return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has the same member twice")
    return found


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON value")


def _bounded(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > LARGEST:
        raise ValueError("a number is too large")
    return int(text)


def _check(value: Any, depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError(f"it is nested deeper than {DEEPEST}")
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            _check_text(key)
            _check(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check(inner, depth + 1)


def _check_text(text: str) -> None:
    """No control characters besides line ends and tabs, no lone surrogates: neither can be stored or shown."""
    for character in text:
        if (character < " " and character not in "\n\r\t") or character == "\x7f" or "\ud800" <= character <= "\udfff":
            raise ValueError("a text contains a control character or half of a character")


class JSONOnly(BaseContentNegotiation):
    """Answers are JSON whatever Accept says; bodies must say that they are."""

    def select_parser(self, request: Any, parsers: Any) -> Any:
        given = (request.content_type or "").partition(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == given), None)

    def select_renderer(self, request: Any, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


# --- fields ----------------------------------------------------------------------------------------------------------


class Text(serializers.CharField):
    """A string, not trimmed; a number is not one. One line unless `lines`."""

    def __init__(self, *, lines: bool = False, **more: Any) -> None:
        self.lines = lines
        super().__init__(trim_whitespace=False, **more)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            raise ValidationError("must be a string")
        if not self.lines and any(character in data for character in "\n\r\t"):
            raise ValidationError("must be one line")
        return super().to_internal_value(data)


class Flag(serializers.BooleanField):
    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            raise ValidationError("must be true or false")
        return data


class Whole(serializers.IntegerField):
    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int):
            raise ValidationError("must be a whole number")
        return data


class Choice(serializers.ChoiceField):
    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            raise ValidationError(f"must be one of {', '.join(self.choices)}")
        return super().to_internal_value(data)


class Free(serializers.DictField):
    """An object with any members."""


class Body(serializers.Serializer[Any]):
    """An object that may hold the declared fields and no others (F8). `fixed` ones are refused with a reason."""

    fixed: ClassVar[frozenset[str]] = frozenset()

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, Mapping):
            raise ValidationError({"body": ["must be a JSON object"]})
        wrong = {
            name: ["cannot be set or changed here" if name in self.fixed else "is not a field of this call"]
            for name in data
            if name not in self.fields
        }
        if wrong:
            raise ValidationError(wrong)
        return super().to_internal_value(data)
