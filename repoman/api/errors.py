"""The one place where an error becomes an answer of the API: RFC 9457 problem details with a stable `code`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from django.core.exceptions import SuspiciousOperation
from django.db import DatabaseError, DataError, InterfaceError, OperationalError
from django.http import Http404
from rest_framework import exceptions
from rest_framework.response import Response

from repoman.access import permissions
from repoman.catalog import selectors
from repoman.catalog.models import Namespace
from repoman.core import errors
from repoman.core.actor import Actor
from repoman.core.errors import RepomanError
from repoman.events import record

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
    """What DRF calls for every exception in a view. Nothing of the inside leaves: no trace, SQL or path."""
    error = _as_ours(raised)
    if isinstance(error, errors.Forbidden | errors.NotFound):
        _note_refusal(error, context)
    if error is None:
        log.exception(
            "api_failed", exc_info=raised, extra={"fields": {"request_id": request_id_of(context["request"])}}
        )
        error = RepomanError("the server failed; the log says why under this request id")
    return respond(error, request_id_of(context["request"]))


def _note_refusal(error: RepomanError, context: Mapping[str, Any]) -> None:
    """Record that a known caller was refused something that exists. A log that fails does not turn no into yes."""
    actor = getattr(context["request"], "_user", None)
    if not isinstance(actor, Actor):
        return
    captured = context.get("kwargs") or {}
    namespace, name = str(captured.get("namespace", "")), str(captured.get("name", ""))
    key = f"{namespace}/{name}" if name else ""
    try:
        if isinstance(error, errors.RepositoryNotFound):
            exists = selectors.repository_by_key(key) is not None
        elif isinstance(error, permissions.NamespaceNotFound):
            exists = Namespace.objects.filter(name=namespace).exists()
        else:
            exists = isinstance(error, errors.Forbidden)
        if exists:
            subject = f"{context['request'].method} {context['request'].path}"
            record.refused(error, actor=actor, namespace=namespace, repository=key, subject=subject)
    except (DatabaseError, InterfaceError) as failure:
        log.error("refusal_not_recorded", exc_info=failure)


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
            log.warning("database_unavailable", extra={"fields": {"error": str(raised)[:200]}})
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
