"""The one place where an error becomes an answer of the API: RFC 9457 problem details with a stable `code`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from django.core.exceptions import SuspiciousOperation
from django.db import DataError, InterfaceError, OperationalError
from django.http import Http404
from rest_framework import exceptions
from rest_framework.response import Response

from repoman.core import errors
from repoman.core.errors import RepomanError

from .authentication import CHALLENGE, request_id_of

MEDIA_TYPE = "application/problem+json"
_KEPT = frozenset({"type", "title", "status", "code", "detail", "request_id", "errors"})

log = logging.getLogger(__name__)


class UnknownAddress(errors.NotFound):
    """There is nothing at this address."""


class UnsupportedMedia(errors.RepomanError):
    """The body must be JSON: Content-Type: application/json."""

    status = 415
    code = "unsupported_media_type"


class Invalid(errors.BadRequest):
    """The body or a parameter is not valid; `errors` in detail says what is wrong with which field."""

    code = "invalid"


def handle(raised: Exception, context: Mapping[str, Any]) -> Response:
    """What DRF calls for every exception in a view. Nothing of the inside leaves: no trace, SQL or path (R2)."""
    error = _as_ours(raised)
    if error is None:
        log.exception("api_failed", exc_info=raised, extra={"request_id": request_id_of(context["request"])})
        error = RepomanError("the server failed; the log says why under this request id")
    return respond(error, request_id_of(context["request"]))


def respond(error: RepomanError, request_id: str) -> Response:
    problem: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "code": error.code,
        "detail": error.message,
        "request_id": request_id,
    }
    problem.update((key, value) for key, value in error.detail.items() if key not in _KEPT or key == "errors")
    response = Response(problem, status=error.status, content_type=MEDIA_TYPE)
    response["Cache-Control"] = "no-store"
    if isinstance(error, errors.AuthenticationRequired):
        response["WWW-Authenticate"] = CHALLENGE
    retry_after = getattr(error, "retry_after_seconds", None)
    if retry_after is not None:
        response["Retry-After"] = str(retry_after)
    allow = error.detail.get("allow")
    if isinstance(allow, list | tuple):
        response["Allow"] = ", ".join(str(method) for method in allow)
    return response


def _as_ours(raised: Exception) -> RepomanError | None:
    match raised:
        case RepomanError():
            return raised
        case exceptions.ValidationError():
            return _invalid(raised)
        case exceptions.ParseError():
            return errors.BadRequest(str(raised.detail))
        case exceptions.UnsupportedMediaType():
            return UnsupportedMedia()
        case exceptions.MethodNotAllowed():
            return errors.MethodNotAllowed("this address does not have that method")
        case Http404() | exceptions.NotFound():
            return UnknownAddress()
        case SuspiciousOperation() | UnicodeError():
            return errors.BadRequest("the request cannot be read")
        case OperationalError() | InterfaceError():
            log.warning("database_unavailable", extra={"error": str(raised)[:200]})
            return errors.Unavailable("the database is not available; try again")
        case DataError():
            return errors.BadRequest("a value is out of range")
    return None


def _invalid(raised: exceptions.ValidationError) -> RepomanError:
    found = raised.detail
    if not isinstance(found, dict):
        found = {"body": found}
    plain = {str(key)[:80]: _texts(value) for key, value in list(found.items())[:50]}
    field, texts = next(iter(plain.items()), ("body", ["is not valid"]))
    return Invalid(f"'{field}': {texts[0] if texts else 'is not valid'}", errors=plain)


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"{key}: {text}" for key, inner in value.items() for text in _texts(inner)][:20]
    if isinstance(value, list):
        return [text for inner in value for text in _texts(inner)][:20]
    return [str(value)[:300]]
