"""Errors as RFC 9457 problem details, for formats without an envelope of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from .errors import RepomanError, message_of
from .served import REVALIDATE, SANDBOXED
from .wire import Response

_KEPT = frozenset({"type", "title", "status", "code", "detail"})
REASON_LENGTH = 400


def problem(error: RepomanError, *, status: int | None = None, code: str = "", says_reason: bool = False) -> Response:
    """`type`, `title`, `status`, `detail`, a stable `code`, and what else the error knows. The same for HEAD, whose body the
    edge leaves out. `says_reason`: the sentence is the reason phrase, too, for clients that show people nothing else."""
    status = status or error.status
    message = message_of(error)
    found: dict[str, object] = {
        "type": "about:blank",
        "title": _title(status),
        "status": status,
        "code": code or error.code,
        "detail": message,
    }
    found.update((key, value) for key, value in error.detail.items() if key not in _KEPT)
    headers = [("Content-Type", "application/problem+json"), *SANDBOXED, REVALIDATE]
    reason = reason_phrase(message) if says_reason else None
    return Response(status, headers, json.dumps(found, default=_plain).encode(), reason=reason)


def reason_phrase(message: str) -> str:
    """One line of latin-1 (RFC 9112 §4)."""
    line = " ".join(message.split())
    kept = "".join(character if character.isprintable() else "?" for character in line)
    return kept.encode("latin-1", "replace").decode("latin-1")[:REASON_LENGTH]


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _plain(value: object) -> object:
    """JSON for what `detail` may hold besides plain data."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset | tuple):
        return sorted(str(item) for item in value)
    return str(value)
