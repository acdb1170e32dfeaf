"""The management API and the web UI, which are ordinary Django: run by its WSGI handler in threads of their own.

Django's ASGI handler would run each view through asgiref with a thread per request and no bound; here the edge has read
the body (at most 8 MiB) before a thread is taken, so a slow client holds none.
"""

from __future__ import annotations

import io
import json
import mimetypes
import os
import sys
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse

from repoman.core.errors import BadRequest, MethodNotAllowed, NotFound, RepomanError, Unavailable
from repoman.core.names import decode_target
from repoman.core.wire import DocumentBody
from repoman.ops.logs import logger

from .body import read_document
from .exchange import Exchange
from .pools import pools
from .serve import Asked, http_date, is_not_modified

MAX_BODY = 8 * 1024 * 1024
STATIC = "/static/"
Answer = tuple[int, list[tuple[bytes, bytes]], bytes]
# Not handed on: hop-by-hop, judged by the edge already, or able to pretend to be another header in an environ.
_DROPPED = frozenset({"connection", "transfer-encoding", "expect", "te", "upgrade", "host", "content-length"})
_FORWARDED = ("x-forwarded-", "x-real-ip", "x-request-id", "forwarded")


async def answer(exchange: Exchange) -> None:
    """Run Django for this request and send what it says. Raises RepomanErrors before the answer began."""
    document = await read_document(exchange, DocumentBody(MAX_BODY)) if exchange.has_body else None
    status, headers, body = await pools().api.run(_run, environ_of(exchange, document.data if document else b""))
    await exchange.respond(status, headers, body)


def environ_of(exchange: Exchange, body: bytes) -> dict[str, Any]:
    """PEP 3333's environ. Headers with an underscore in their name are dropped: `X_A` would read as `X-A`."""
    path = decode_target(exchange.raw_path)
    scheme, _, host = exchange.origin.base_url.partition("://")
    name, _, port = host.rpartition(":") if host.rpartition(":")[2].isdigit() else (host, "", "")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": exchange.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path.encode().decode("latin-1"),
        "QUERY_STRING": exchange.scope.get("query_string", b"").decode("latin-1"),
        "SERVER_NAME": name,
        "SERVER_PORT": port or ("443" if scheme == "https" else "80"),
        "SERVER_PROTOCOL": f"HTTP/{exchange.scope.get('http_version', '1.1')}",
        "REMOTE_ADDR": exchange.origin.address,
        "HTTP_HOST": host,
        "HTTP_X_REQUEST_ID": exchange.request_id,
        "CONTENT_LENGTH": str(len(body)) if body else "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "repoman.base_url": exchange.origin.base_url,
        "repoman.request_id": exchange.request_id,
    }
    for raw_name, raw_value in exchange.headers:
        header = raw_name.decode("latin-1")
        if "_" in header or header in _DROPPED or header.startswith(_FORWARDED):
            continue
        value = raw_value.decode("latin-1")
        if header == "content-type":
            environ["CONTENT_TYPE"] = value
            continue
        key = "HTTP_" + header.upper().replace("-", "_")
        if key in environ:
            value = f"{environ[key]}{'; ' if header == 'cookie' else ','}{value}"
        environ[key] = value
    return environ


@lru_cache(maxsize=1)
def _handler() -> WSGIHandler:
    return WSGIHandler()


def preload() -> None:
    """Import the API before the server forks: its pages are shared then, and no request waits for it."""
    from django.urls import get_resolver

    _handler()
    assert get_resolver().url_patterns


def _run(environ: dict[str, Any]) -> Answer:
    found: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> Any:
        found[:] = [int(status.partition(" ")[0]), headers]

    response = _handler()(environ, start_response)
    try:
        body = b"".join(response)
    finally:
        response.close()
    lines = [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in found[1]
        if name.lower() not in ("content-length", "connection", "x-request-id")
    ]
    names = {name for name, _ in lines}
    if b"x-content-type-options" not in names:
        lines.append((b"x-content-type-options", b"nosniff"))
    if b"cache-control" not in names:
        lines.append((b"cache-control", b"private, no-store"))
    return found[0], lines, body


# --- static files ----------------------------------------------------------------------------------------------------


async def answer_static(exchange: Exchange) -> None:
    """Files that installed apps bring along (the API's pages), and nothing else."""
    if exchange.method not in ("GET", "HEAD"):
        raise MethodNotAllowed("static files can only be read", allow=["GET", "HEAD"])
    path = decode_target(exchange.raw_path)
    body, media_type, etag, modified = await pools().api.run(_static_file, path[len(STATIC) :])
    headers = [
        (b"content-type", media_type.encode("ascii")),
        (b"etag", etag.encode("ascii")),
        (b"last-modified", http_date(modified).encode("ascii")),
        (b"cache-control", b"public, max-age=3600"),
        (b"x-content-type-options", b"nosniff"),
    ]
    if is_not_modified(Asked.of(exchange.headers), etag, modified):
        await exchange.respond(304, headers[1:], b"")
    else:
        await exchange.respond(200, headers, body)


def _static_file(name: str) -> tuple[bytes, str, str, float]:
    from django.contrib.staticfiles import finders

    found = finders.find(name) if name and not name.endswith("/") else None
    if not isinstance(found, str) or not os.path.isfile(found):
        raise NotFound("there is no such file")
    with open(found, "rb") as file:
        status = os.fstat(file.fileno())
        body = file.read()
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    if media_type.startswith("text/") or media_type.endswith(("javascript", "json")):
        media_type += "; charset=utf-8"
    return body, media_type, f'"{status.st_mtime_ns:x}-{status.st_size:x}"', status.st_mtime


# --- errors outside any format ---------------------------------------------------------------------------------------


def problem(error: RepomanError, request_id: str) -> Answer:
    """RFC 9457 problem details, the management API's shape, for what no format answers."""
    from .dispatch import standard_headers

    content: dict[str, object] = {
        "type": "about:blank",
        "title": _title(error.status),
        "status": error.status,
        "code": error.code,
        "detail": error.message,
        "request_id": request_id,
    }
    headers = [(b"content-type", b"application/problem+json"), (b"cache-control", b"private, no-store")]
    headers += [(name.lower().encode(), value.encode()) for name, value in standard_headers(error)]
    if error.status == 401:
        headers.append((b"www-authenticate", b'Basic realm="Repoman", charset="UTF-8"'))
    return error.status, headers, json.dumps(content).encode()


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _as_django(error: RepomanError, request: HttpRequest) -> HttpResponse:
    status, headers, body = problem(error, request.META.get("repoman.request_id", ""))
    response = HttpResponse(body, status=status)
    for name, value in headers:
        response.headers[name.decode()] = value.decode()
    return response


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _as_django(NotFound("there is nothing at this address"), request)


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _as_django(BadRequest(), request)


def server_error(request: HttpRequest) -> HttpResponse:
    """For what escaped every view: a database that is gone is 503, anything else 500; Django has logged it."""
    from django.db import InterfaceError, OperationalError

    from .dispatch import InternalError

    raised = sys.exc_info()[1]
    if isinstance(raised, RepomanError) and raised.status != 500:
        return _as_django(raised, request)
    if isinstance(raised, OperationalError | InterfaceError):
        return _as_django(Unavailable("the database is not available; try again", retry_after_seconds=2), request)
    request_id = request.META.get("repoman.request_id", "")
    logger.error("request_failed", exc_info=raised, extra={"fields": {"request_id": request_id}})
    return _as_django(InternalError(), request)
