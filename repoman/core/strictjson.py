"""JSON from strangers, read so that what was checked is what everyone else will read.

Refused: anything but UTF-8, duplicate keys (RFC 8259 §4 leaves their meaning open), NaN and infinities, integers of
more than 20 characters, more than 64 levels, NUL and lone surrogates (no database or second parser keeps those alike).
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from .errors import ContentInvalid

DEPTH = 64
INTEGER_LENGTH = 20


def load(data: bytes) -> Any:
    """The value that `data` spells. Raises ContentInvalid."""
    try:
        text = data.decode("utf-8", "strict")
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, parse_float=_real
        )
    except UnicodeDecodeError:
        raise ContentInvalid("the document is not valid UTF-8") from None
    except RecursionError:
        raise ContentInvalid(f"the document is nested deeper than {DEPTH} levels") from None
    except ValueError as error:
        raise ContentInvalid(f"the document is not valid JSON: {error}") from None
    _check(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ContentInvalid(f"the document has the key '{_shown(key)}' twice in one object")
            seen.add(key)
    return found


def _constant(text: str) -> NoReturn:
    raise ContentInvalid(f"the document contains {text}, which is not JSON")


def _integer(text: str) -> int:
    if len(text) > INTEGER_LENGTH:
        raise ContentInvalid(f"the document contains an integer of {len(text)} characters")
    return int(text)


def _real(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ContentInvalid("the document contains a number that is out of range")
    return value


def _check(value: Any) -> None:
    pending: list[tuple[Any, int]] = [(value, 0)]
    while pending:
        item, depth = pending.pop()
        if depth > DEPTH:
            raise ContentInvalid(f"the document is nested deeper than {DEPTH} levels")
        if isinstance(item, dict):
            for key, member in item.items():
                _check_text(key)
                pending.append((member, depth + 1))
        elif isinstance(item, list):
            pending.extend((member, depth + 1) for member in item)
        elif isinstance(item, str):
            _check_text(item)


def _check_text(text: str) -> None:
    if text.isascii():
        if "\0" in text:
            raise ContentInvalid("the document contains a NUL character")
        return
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ContentInvalid("the document contains a NUL or half of a surrogate pair")


def _shown(key: str) -> str:
    return key[:40].encode("ascii", "backslashreplace").decode("ascii")
