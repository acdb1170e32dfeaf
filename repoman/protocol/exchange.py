"""One HTTP request and the answer to it, as the edge carries them: ASGI's callables, counters, and what logs need."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any

from repoman.core.clock import monotonic, new_id

from .origin import Origin

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Pairs = Sequence[tuple[bytes, bytes]]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{7,63}\Z")
NO_BODY_STATUSES = frozenset({204, 304})
DRAINED_BYTES = 1024 * 1024


# Where the server takes a whole answer at once: `await scope[ANSWER](head, body)`, the head as bytes from the status
# line on, each line ended, without Server, Date and Connection, which it adds. Without it, answers go through `send`.
ANSWER = "repoman.answer"
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


def head_of(status: int, headers: Pairs) -> bytes:
    """The status line and header lines as they go over the wire."""
    line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    return line + b"".join([b"%b: %b\r\n" % pair for pair in headers])


class ClientGone(Exception):
    """The connection ended before the body did. Nobody is left to answer."""


class RequestIds:
    """Ids for requests that bring none: random per process, then counted; unique without a system call each."""

    def __init__(self) -> None:
        self.begin()
        os.register_at_fork(after_in_child=self.begin)

    def begin(self) -> None:
        self._prefix = new_id()[:16]
        self._count = 0

    def next(self) -> str:
        self._count += 1
        return f"{self._prefix}{self._count:012x}"


_ids = RequestIds()


def request_id_of(given: bytes | None) -> str:
    """The client's own id if it is a plain word of 8 to 64 characters, else a fresh one."""
    if given is not None and _REQUEST_ID.match(given) is not None:
        return given.decode("ascii")
    return _ids.next()


class Exchange:
    """`headers` are the request's; `received` and `sent` count body bytes; `status` is 0 until an answer began."""

    __slots__ = (
        "actor_name",
        "expects_continue",
        "has_body",
        "headers",
        "length",
        "method",
        "origin",
        "raw_path",
        "receive",
        "received",
        "request_id",
        "route_class",
        "scope",
        "send",
        "sent",
        "started",
        "status",
        "took_body",
    )

    def __init__(self, scope: Any, receive: Receive, send: Send, request_id: str) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.method: str = scope["method"]
        self.raw_path: bytes = scope["raw_path"]
        self.headers: Pairs = scope["headers"]
        self.request_id = request_id
        self.started = monotonic()
        self.origin = Origin("", "")
        self.route_class = "none"
        self.actor_name = ""
        self.status = 0
        self.received = 0
        self.sent = 0
        self.took_body = False
        self.expects_continue = False
        length: int | None = None
        chunked = False
        for name, value in self.headers:
            if name == b"content-length":
                length = int(value) if value.isdigit() and len(value) < 20 else None
            elif name == b"transfer-encoding":
                chunked = True
            elif name == b"expect" and value.lower() == b"100-continue":
                self.expects_continue = True
        self.length = None if chunked else length
        self.has_body = chunked or bool(length)

    @property
    def is_head(self) -> bool:
        return self.method == "HEAD"

    def header(self, name: bytes) -> str | None:
        for key, value in self.headers:
            if key == name:
                return value.decode("latin-1")
        return None

    async def pieces(self) -> Any:
        """The body's pieces as they come. Raises ClientGone when the connection ends first."""
        self.took_body = True
        while True:
            message = await self.receive()
            if message["type"] != "http.request":
                raise ClientGone()
            body = message.get("body", b"")
            if body:
                self.received += len(body)
                yield body
            if not message.get("more_body", False):
                return

    async def respond(
        self,
        status: int,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        reason: str = "",
        more: Sequence[bytes] = (),
    ) -> None:
        """Send a whole answer. `headers` lack Content-Length and X-Request-Id, which are added (a 304 has no length). `more`
        is the rest of a body that is long and in pieces: it goes out at the client's pace, and is not copied.

        A body that nobody took is the server's business: it lets the answer arrive, then closes the connection.
        """
        if status not in NO_BODY_STATUSES:
            headers.append((b"content-length", str(len(body) + sum(map(len, more))).encode()))
        headers.append((b"x-request-id", self.request_id.encode()))
        if self.is_head or status in NO_BODY_STATUSES:
            body, more = b"", ()
        answer = self.scope.get(ANSWER)
        if answer is not None and not reason and not more:
            self.status = status
            self.sent = len(body)
            await answer(head_of(status, headers), body)
            return
        await self.start(status, headers, reason)
        for following in more:
            await self.push(body)
            body = following
        await self.finish(body)

    async def start(self, status: int, headers: list[tuple[bytes, bytes]], reason: str = "") -> None:
        self.status = status
        message: dict[str, Any] = {"type": "http.response.start", "status": status, "headers": headers}
        if reason:
            message["reason"] = reason
        await self.send(message)

    async def push(self, body: bytes) -> None:
        self.sent += len(body)
        await self.send({"type": "http.response.body", "body": body, "more_body": True})

    async def finish(self, body: bytes) -> None:
        self.sent += len(body)
        await self.send({"type": "http.response.body", "body": body, "more_body": False})

    async def drain(self) -> None:
        """Read and drop a body that nobody wants, up to 1 MiB; more, and the connection ends after the answer."""
        if not self.has_body or self.took_body or self.expects_continue:
            return
        seen = 0
        try:
            async for piece in self.pieces():
                seen += len(piece)
                if seen >= DRAINED_BYTES:
                    return
        except ClientGone:
            return
