"""gunicorn's ASGI worker, with the manners that package clients and hostile ones need.

Written for gunicorn 27.0.1, whose private methods it overrides; the version is pinned and tests/protocol/
test_http_layer.py holds every promise made here. What an application may rely on, beyond ASGI 3:

- `http.response.start` may have a key `reason` (str), the reason phrase. Clients such as twine show it to people.
- `100 Continue` is sent when the application first calls `receive()` for a body, never before.
- `send()` waits while the client reads slowly and raises ClientGoneError (an OSError) once it is gone; `receive()`
  gives `http.disconnect` when it is gone, broke the framing, or sent next to nothing for `Limits.body_seconds`.
- An answer given while the body is still arriving reaches the client whole; the connection is closed after it.
- Header lists keep repeated names; `raw_path` is the path as sent, before any decoding, without the query.
- Malformed requests, and WebSocket or HTTP/2 upgrades, never reach the application.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import struct
import termios
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.asgi.lifespan import LifespanManager, LifespanStartupFailed
from gunicorn.asgi.parser import InvalidHeader, PythonProtocol
from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers.gasgi import ASGIWorker

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a client may keep us waiting. Times in seconds."""

    # From the first byte of a request, or from connecting, to the end of its headers.
    header_seconds: float = 20.0
    # A body of which fewer than `least_bytes` came in such a time, while the application waited for it, is given up;
    # and so is a client that took fewer than `least_bytes` of an answer.
    body_seconds: float = 60.0
    write_seconds: float = 60.0
    least_bytes: int = 1024
    # Between two requests.
    idle_seconds: float = 75.0
    # What may still arrive and is thrown away after an answer that did not wait for the body. Many clients read the
    # answer only after they sent all: the more we swallow, the more of them see it.
    linger_bytes: int = 64 * 2**20
    linger_seconds: float = 30.0
    linger_idle_seconds: float = 5.0


class ClientGoneError(ConnectionError):
    """The client left before its answer was complete."""


# What a request line may begin with: the first byte of a method, or of the empty line that RFC 9112 section 2.2 lets
# pass. A TLS hello begins with 0x16; without this check the pure Python parser would wait for the end of its "line".
_FIRST_BYTES = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ\r\n")


# No body or piece of one is as large; the C parser draws the line here too.
_LARGEST = 2**62

# gunicorn looks for its C parser with `cls` and then reads what it found from ASGIProtocol by name: asked through a
# subclass first, it would never use the parser, nor know its errors. So it is asked here, once.
#
# The parser keeps what follows a finished request, at most 64 KiB of it by default, and gunicorn closes the connection
# without an answer when that was not enough. But a client may send its next request as soon as it has read the answer,
# before the task that gave it has reset the parser. So the parser keeps more, and `_http1_buffered` stops reading long
# before it is full.
_KEPT_AHEAD = 2**20
if ASGIProtocol._check_h1c_protocol_available():
    ASGIProtocol._h1c_protocol_class = partial(ASGIProtocol._h1c_protocol_class, limit_remaining=_KEPT_AHEAD)


class HttpProtocol(ASGIProtocol):  # type: ignore[misc]
    """One connection."""

    worker: ServerWorker

    def __init__(self, worker: ServerWorker) -> None:
        super().__init__(worker)
        self._application: Application = worker.asgi
        self.app = self._call_application
        self._limits = worker.limits
        self._first_data = True
        self._header_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._reason: str | None = None
        self._answering = False
        self._broken = False
        self._received = 0
        # Bytes that came after the end of the request being answered.
        self._ahead = 0
        self._was_writable = False
        self._lingering = False
        self._linger_until = 0.0
        self._linger_left = 0
        self._linger_active = False

    # Connecting and disconnecting

    def connection_made(self, transport: Any) -> None:
        self.worker.connections.add(self)
        super().connection_made(transport)
        if self.worker.nr_conns > self.worker.worker_connections:
            self._broken = True
            self._send_error_response(503, "Too many connections", [("Retry-After", "5")])
            self._close_transport()
            self._request_ready.set()
            return
        self._header_timer = self.worker.loop.call_later(self._limits.header_seconds, self._headers_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self.worker.connections.discard(self)
        for timer in (self._header_timer, self._body_timer, self._write_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()
        self._header_timer = self._body_timer = self._write_timer = self._linger_timer = None
        super().connection_lost(exc)
        # Whoever waits for room to write shall learn now that nobody reads, not when its task is cancelled.
        if self._flow_control is not None:
            self._flow_control.resume_writing()
        if self._request_ready is not None:
            self._request_ready.set()

    @property
    def is_idle(self) -> bool:
        """Between two requests, with not a byte of the next one read."""
        return (
            not self._lingering and self._header_timer is None and self._awaiting_request and not self._finishing_calls
        ) or (self._first_data and not self._closed)

    def close_if_idle(self) -> None:
        """For the end of the process."""
        if self._lingering:
            self._linger_until = min(self._linger_until, self.worker.loop.time() + 1.0)
        elif self.is_idle:
            self._close_transport()
            self._request_ready.set()

    # Reading

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            self._linger_left -= len(data)
            self._linger_active = True
            if self._linger_left < 0:
                self.transport.abort()
            return
        self._received += len(data)
        if self._first_data:
            self._first_data = False
            if data[0] not in _FIRST_BYTES:
                self._refuse(400, "This is not an HTTP/1.1 request; TLS is not spoken on this port")
                return
        in_progress = self._request_ready.is_set()
        if in_progress and self._callback_parser is not None and self._callback_parser.is_complete:
            self._ahead += len(data)
        super().data_received(data)
        if self._request_ready.is_set():
            if self._header_timer is not None:
                self._header_timer.cancel()
                self._header_timer = None
        elif self._header_timer is None and not self._closed:
            # The next request has begun: the time for idling is over, the time for headers runs.
            self._cancel_keepalive_timer()
            self._header_timer = self.worker.loop.call_later(self._limits.header_seconds, self._headers_late)

    def _http1_buffered(self) -> int:
        held: int = super()._http1_buffered()
        return held + self._ahead

    def _on_headers_complete(self) -> bool:
        self._answering = False
        self._ahead = 0
        skip_body: bool = super()._on_headers_complete()
        request = self._current_request
        # RFC 9112 section 3.2: an HTTP/1.1 request without Host is answered 400.
        without_host = request.version >= (1, 1) and not any(name == b"host" for name, _ in request.headers_bytes)
        if without_host or request.content_length > _LARGEST:
            self._current_request = None
            self._body_receiver = None
            self._request_ready.clear()
            raise InvalidHeader("Host header missing" if without_host else "Content-Length too large")
        receiver = self._body_receiver
        if self._body_timer is None and (request.chunked or request.content_length):
            self._watch_body(receiver, self._received)
        return skip_body

    def _watch_body(self, receiver: Any, received: int) -> None:
        self._body_timer = self.worker.loop.call_later(self._limits.body_seconds, self._body_late, receiver, received)

    def _body_late(self, receiver: Any, received: int) -> None:
        self._body_timer = None
        current = self._body_receiver
        if self._closed or current is None or current._complete:
            return
        # An application that is not waiting, or that has bytes to take, is what the client waits for, not the reverse.
        starving = current is receiver and current._waiter is not None and not current.buffered
        if starving and self._received - received < self._limits.least_bytes:
            current._body_wait_expired = True
            current._wake_waiter()
            return
        self._watch_body(current, self._received)

    def _headers_late(self) -> None:
        self._header_timer = None
        if self._closed or self._request_ready.is_set():
            return
        if self._first_data:
            self._close_transport()
            self._request_ready.set()
        else:
            self._refuse(408, "The request's headers did not arrive in time")

    def _refuse(self, status: int, message: str) -> None:
        self._broken = True
        self._send_error_response(status, message)
        self._close_transport()
        self._request_ready.set()

    def _feed_callback_parser(self, data: bytes) -> bool:
        alive: bool = super()._feed_callback_parser(data)
        parser = self._callback_parser
        if alive and parser.__class__ is PythonProtocol and parser._chunk_remaining > _LARGEST:
            self._refuse(400, "Chunk too large")
            return False
        if not alive:
            # Wakes the connection's task, which finds it closed.
            self._request_ready.set()
        return alive

    def _is_websocket_upgrade(self, _request: Any) -> bool:
        return False

    # Answering

    async def _call_application(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        async def send_to_client(message: Message) -> None:
            if self._closed:
                raise ClientGoneError("the client has closed the connection")
            if message["type"] == "http.response.start":
                self._reason = message.get("reason")
            await send(message)

        try:
            await self._application(scope, receive, send_to_client)
        except ClientGoneError:
            if not self._closed:
                raise

    def _will_close(self, request: Any, response_requires_close: bool) -> bool:
        receiver = self._body_receiver
        if receiver is not None and not receiver._complete:
            return True
        closes: bool = super()._will_close(request, response_requires_close)
        return closes

    def _send_response_start(
        self, status: int, headers: Iterable[tuple[bytes, bytes]], request: Any, close: bool = False
    ) -> None:
        self._answering = True
        super()._send_response_start(status, headers, request, close=close)
        reason, self._reason = self._reason, None
        if reason:
            line, _, rest = self._response_buffer.partition(b"\r\n")
            version = line.split(b" ", 1)[0]
            self._response_buffer = b"%b %d %b\r\n%b" % (version, status, _reason_phrase(reason), rest)

    def _send_error_response(self, status: int, message: str, extra_headers: Iterable[tuple[str, str]] = ()) -> None:
        """For requests that the application never saw, or left without an answer."""
        if self._closed or (self._answering and self._current_request is not None):
            # Never a second answer to one request: what is half sent ends here.
            return
        receiver = self._body_receiver
        if status == 500 and receiver is not None and receiver._body_wait_expired:
            status, message = 408, "The request's body did not arrive in time"
        elif status == 501:
            # RFC 9112 section 6.1 would have 501 for an unknown transfer coding, but it is the request that is wrong.
            status = 400
        if status in (400, 408, 414, 431):
            self._broken = True
        super()._send_error_response(status, message, extra_headers)

    # Writing to slow readers

    def pause_writing(self) -> None:
        super().pause_writing()
        self._was_writable = False
        if self._write_timer is None:
            self._watch_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._was_writable = True

    def _watch_writing(self) -> None:
        self._write_timer = self.worker.loop.call_later(self._limits.write_seconds, self._write_late, self._unread())

    def _write_late(self, unread: int) -> None:
        self._write_timer = None
        transport = self.transport
        if self._conn_lost_handled or not transport.get_write_buffer_size():
            return
        was_writable, self._was_writable = self._was_writable, False
        if not was_writable and unread - self._unread() < self._limits.least_bytes:
            transport.abort()
            return
        self._watch_writing()

    def _unread(self) -> int:
        """Bytes written by the application that the client's machine has not yet acknowledged."""
        size: int = self.transport.get_write_buffer_size()
        sock = self.transport.get_extra_info("socket")
        try:
            size += struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0]
        except (OSError, AttributeError):  # closed meanwhile, or not a socket that counts
            return size
        return size

    # Closing

    def _close_transport(self) -> None:
        """Closing a socket with unread input resets the connection, and the reset may overtake the answer: so stop
        sending, throw away what still comes, within bounds, and then close (RFC 9112 section 9.6)."""
        if self._closed or self.transport is None:
            return
        receiver = self._body_receiver
        incomplete = receiver is not None and not receiver._complete
        if self._conn_lost_handled or not (self._broken or incomplete):
            super()._close_transport()
        else:
            self._closed = True
            if receiver is not None:
                receiver.signal_disconnect()
            self._linger()
        if not self._conn_lost_handled and self._write_timer is None and self.transport.get_write_buffer_size():
            self._watch_writing()

    def _linger(self) -> None:
        limits, loop = self._limits, self.worker.loop
        self._lingering = True
        self._callback_parser = None
        self._linger_left = limits.linger_bytes
        patience = limits.linger_idle_seconds if self._broken else limits.linger_seconds
        self._linger_until = loop.time() + (patience if self.worker.alive else 1.0)
        self._cancel_keepalive_timer()
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
        if self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._resume_reading()
        self._linger_timer = loop.call_later(min(limits.linger_idle_seconds, 1.0), self._linger_late, loop.time())

    def _linger_late(self, active_at: float) -> None:
        self._linger_timer = None
        loop = self.worker.loop
        now = loop.time()
        if self._linger_active:
            self._linger_active = False
            active_at = now
        if self.transport.get_write_buffer_size():
            active_at = now  # the answer is still on its way; _write_late watches that it gets on
        if now >= self._linger_until or now - active_at >= self._limits.linger_idle_seconds:
            self.transport.abort()
            return
        self._linger_timer = loop.call_later(min(self._limits.linger_idle_seconds, 1.0), self._linger_late, active_at)


def _reason_phrase(reason: str) -> bytes:
    """RFC 9112 section 4: tabs, spaces and visible characters; others become "?". At most 512 bytes."""
    printable = "".join(letter if letter == "\t" or letter >= " " and letter != "\x7f" else " " for letter in reason)
    return printable.encode("latin-1", "replace")[:512]


class Acceptor:
    """Takes one connection a turn from a listening socket that several processes share.

    The event loops' own servers take all that wait at once, so one process would serve a whole burst of clients while
    the others idle. Taking one a turn leaves the next to whoever is free.
    """

    PAUSE_SECONDS = 0.5  # after running out of descriptors or memory

    def __init__(
        self, loop: asyncio.AbstractEventLoop, listener: socket.socket, protocol: Callable[[], asyncio.Protocol]
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._protocol = protocol
        self._tasks: set[asyncio.Task[Any]] = set()
        self._open = True
        listener.setblocking(False)
        self._listen()

    def _listen(self) -> None:
        if self._open:
            self._loop.add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:
            self._loop.remove_reader(self._listener.fileno())
            self._loop.call_later(self.PAUSE_SECONDS, self._listen)
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._loop.connect_accepted_socket(self._protocol, connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Take no more; those taken go on."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._listener.fileno())


class ServerWorker(ASGIWorker):  # type: ignore[misc]
    """A web process. Ends gracefully: no new connections, idle ones closed at once, requests in flight finished."""

    limits = Limits()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.connections: set[HttpProtocol] = set()
        self._ending: asyncio.Event | None = None

    def handle_exit_signal(self) -> None:
        super().handle_exit_signal()
        if self._ending is not None:
            self._ending.set()

    def handle_quit_signal(self) -> None:
        super().handle_quit_signal()
        if self._ending is not None:
            self._ending.set()

    def _cleanup(self) -> None:
        # A signal that comes twice (a service manager that tells every process) finds the loop half closed.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        super()._cleanup()

    async def _serve(self) -> None:
        self._ending = asyncio.Event()
        await self._start_application()
        for listener in self.sockets:
            self.servers.append(Acceptor(self.loop, listener.sock, lambda: HttpProtocol(self)))
        while self.alive:
            self.notify()
            if self.ppid != os.getppid():
                self.log.warning("The parent process is gone, ending: %s", self)
                break
            try:
                await asyncio.wait_for(self._ending.wait(), 1.0)
            except TimeoutError:
                continue
        self.alive = False
        await self._shutdown()

    async def _start_application(self) -> None:
        self.lifespan = LifespanManager(self.asgi, self.log, self.state)
        try:
            await self.lifespan.startup()
        except LifespanStartupFailed as error:
            self.log.error("The application did not start: %s", error)
            raise SystemExit(Arbiter.WORKER_BOOT_ERROR) from error
        except RuntimeError as error:
            self.log.debug("No lifespan: %s", error)
            self.lifespan = None

    async def _shutdown(self) -> None:
        for server in self.servers:
            server.close()
        await asyncio.sleep(0)
        # uvloop keeps the socket it was given open; clients would wait in its queue for nobody.
        for listener in self.sockets:
            listener.close()
        deadline = self.loop.time() + self.cfg.graceful_timeout
        while self.nr_conns > 0 and self.loop.time() < deadline and not self._quick_shutdown:
            for connection in tuple(self.connections):
                connection.close_if_idle()
            self.notify()
            await asyncio.sleep(0.05)
        if self.nr_conns > 0:
            self.log.warning("Cutting %d connections", self.nr_conns)
            for connection in tuple(self.connections):
                connection.transport.abort()
            await asyncio.sleep(0)
        if self.lifespan is not None and not self._quick_shutdown:
            await self.lifespan.shutdown()
