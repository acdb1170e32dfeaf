"""A small load generator for what wrk cannot do: sequences of requests, large bodies, HEAD.

One thread, one epoll, raw sockets: about 25 µs of its own time per request. A *script* is a generator that yields a
`Request` and is sent the `Answer` to it; each of the `connections` takes the next script when its last one has ended.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field

RECEIVE_BYTES = 256 * 1024
IDLE_SECONDS = 30.0


class LoadError(Exception):
    """A server answered something else than the benchmark needs; the message says what."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    head: bytes
    body: bytes

    def header(self, name: bytes) -> str:
        """Empty when it is not there. `name` in lower case."""
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.strip().lower() == name:
                return value.strip().decode()
        return ""

    def require(self, *statuses: int) -> Answer:
        """Raises LoadError where the status is another one."""
        if self.status not in statuses:
            raise LoadError(f"answered {self.status}, wanted {statuses}: {(self.head + self.body)[:600]!r}")
        return self


@dataclass(frozen=True, slots=True)
class Request:
    """`head` ends with the empty line; `body` are pieces that are sent one after the other, without being joined."""

    head: bytes
    body: tuple[bytes | memoryview, ...] = ()
    no_body_in_answer: bool = False


Script = Generator[Request, Answer, None]


@dataclass(slots=True)
class Load:
    """What a run did: scripts that ended, until the last one ended; `latencies` are seconds per script.

    `client_seconds` is processor time of this process: near `seconds`, the client was what limited.
    """

    count: int = 0
    seconds: float = 0.0
    client_seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return self.count / self.seconds if self.seconds else 0.0


def head(
    method: str, path: str, host: str, headers: Sequence[tuple[str, str]] = (), length: int | None = None
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers)]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class _Connection:
    """One socket and the script on it."""

    __slots__ = ("address", "script", "socket", "request", "pending", "received", "started", "needed", "end_of_head")

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.script: Script | None = None
        self.request: Request | None = None
        self.pending: list[memoryview] = []
        self.received: bytes | bytearray = b""
        self.started = 0.0
        self.needed = -1
        self.end_of_head = -1
        self.open()

    def open(self) -> None:
        self.socket = socket.create_connection(self.address, timeout=IDLE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)

    def put(self, request: Request) -> None:
        self.request = request
        self.received, self.needed, self.end_of_head = b"", -1, -1
        if sum(len(piece) for piece in request.body) <= 16 * 1024:
            self.pending = [memoryview(b"".join((request.head, *request.body)))]
        else:
            self.pending = [memoryview(piece) for piece in (request.head, *request.body)]

    def send(self) -> bool:
        """Whether everything is on its way."""
        while self.pending:
            try:
                sent = self.socket.send(self.pending[0])
            except BlockingIOError:
                return False
            if sent == len(self.pending[0]):
                self.pending.pop(0)
            else:
                self.pending[0] = self.pending[0][sent:]
        return True

    def receive(self) -> Answer | None:
        """The whole answer when it is here. Raises LoadError, ConnectionError."""
        try:
            piece = self.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return None
        if not piece:
            raise ConnectionError(f"closed after {self.received[:200]!r}")
        if not self.received:
            self.received = piece
        else:  # a long answer grows in place, or its pieces would be copied again and again
            if isinstance(self.received, bytes):
                self.received = bytearray(self.received)
            self.received += piece
        if self.end_of_head < 0:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return None
            self.end_of_head = end + 4
            self.needed = self._length()
        if self.needed >= 0:
            if len(self.received) < self.end_of_head + self.needed:
                return None
        elif not self.received.endswith(b"0\r\n\r\n"):
            return None
        data, end = bytes(self.received), self.end_of_head
        return Answer(int(data[9:12]), data[:end], data[end:])

    def _length(self) -> int:
        """Bytes of the body; -1 when it comes in chunks."""
        assert self.request is not None
        start = self.received[: self.end_of_head].lower()
        if self.request.no_body_in_answer or start[9:12] in (b"204", b"304"):
            return 0
        at = start.find(b"\r\ncontent-length:")
        if at >= 0:
            return int(start[at + 17 : start.index(b"\r\n", at + 17)])
        return -1 if b"\r\ntransfer-encoding: chunked" in start else 0


def run(
    address: tuple[str, int], scripts: Iterable[Script], *, connections: int, seconds: float = float("inf")
) -> Load:
    """Run scripts until they are all done or the time is over; what is under way then is finished.

    Raises LoadError for an answer that a script does not take, and for a server that is silent for long.
    """
    load, waiting = Load(), iter(scripts)
    poll = select.epoll()
    by_number: dict[int, _Connection] = {}
    client_before, begun = time.process_time(), time.perf_counter()
    deadline = begun + seconds

    def advance(connection: _Connection, answer: Answer | None) -> bool:
        """Give the answer to the script, and send what comes next. False when there is nothing left to do."""
        if answer is not None and connection.script is not None:
            if answer.head.startswith(b"HTTP/1.0") or b"\r\nconnection: close" in answer.head.lower():
                close(connection)
            try:
                following = connection.script.send(answer)
                open_again(connection)
                connection.put(following)
                transmit(connection)
                return True
            except StopIteration:
                load.count += 1
                now = time.perf_counter()
                load.latencies.append(now - connection.started)
                load.seconds = now - begun
                connection.script = None
        now = time.perf_counter()
        if now > deadline:
            return False
        for script in waiting:
            connection.script, connection.started = script, now
            open_again(connection)
            connection.put(next(script))
            transmit(connection)
            return True
        return False

    def close(connection: _Connection) -> None:
        poll.unregister(connection.socket.fileno())
        del by_number[connection.socket.fileno()]
        connection.socket.close()

    def open_again(connection: _Connection) -> None:
        """Not before there is something to send: a server of one thread waits for what an idle connection says."""
        if connection.socket.fileno() < 0:
            connection.open()
            by_number[connection.socket.fileno()] = connection
            poll.register(connection.socket.fileno(), select.EPOLLIN)

    def transmit(connection: _Connection) -> None:
        if not connection.send():
            poll.modify(connection.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)

    try:
        active = 0
        for _ in range(connections):
            connection = _Connection(address)
            by_number[connection.socket.fileno()] = connection
            poll.register(connection.socket.fileno(), select.EPOLLIN)
            active += advance(connection, None)
        while active:
            events = poll.poll(IDLE_SECONDS)
            if not events:
                raise LoadError(f"no answer for {IDLE_SECONDS:.0f} s")
            for number, event in events:
                connection = by_number.get(number)
                if connection is None:
                    continue
                if event & select.EPOLLOUT and connection.send():
                    poll.modify(number, select.EPOLLIN)
                if event & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                    try:
                        answer = connection.receive()
                    except ConnectionError as error:
                        if connection.script is None:
                            continue
                        raise LoadError(f"the connection broke: {error}") from error
                    if answer is not None:
                        active -= not advance(connection, answer)
    finally:
        for connection in by_number.values():
            with contextlib.suppress(OSError):
                connection.socket.close()
        poll.close()
    load.client_seconds = time.process_time() - client_before
    return load


def ask(address: tuple[str, int], request: Request) -> Answer:
    """One request on a connection of its own."""
    answers: list[Answer] = []

    def script() -> Script:
        answers.append((yield request))

    run(address, [script()], connections=1)
    return answers[0]


def download(address: tuple[str, int], request_head: bytes, size: int) -> float:
    """Seconds from request to last byte. The kernel drops the bytes (MSG_TRUNC), so that this side costs little."""
    buffer = bytearray(1024 * 1024)
    with socket.create_connection(address, timeout=IDLE_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begun = time.perf_counter()
        connection.sendall(request_head)
        received = b""
        while (end := received.find(b"\r\n\r\n")) < 0:
            piece = connection.recv(65536)
            if not piece:
                raise LoadError("the connection closed before the headers had come")
            received += piece
        if not received.startswith(b"HTTP/1.1 200"):
            raise LoadError(f"a download answered {received[:300]!r}")
        left = size - (len(received) - end - 4)
        while left > 0:
            count = connection.recv_into(buffer, min(left, len(buffer)), socket.MSG_TRUNC)
            if count == 0:
                raise LoadError(f"a download ended {left} bytes early")
            left -= count
        return time.perf_counter() - begun


@dataclass(frozen=True, slots=True)
class Fetch:
    """Seconds from the request to the first byte of the body and to its last, and its size."""

    first: float
    whole: float
    size: int


def fetch(address: tuple[str, int], request_head: bytes) -> Fetch:
    """One GET of a large body on a connection of its own. Raises LoadError."""
    with socket.create_connection(address, timeout=IDLE_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begun = time.perf_counter()
        connection.sendall(request_head)
        received = b""
        while (end := received.find(b"\r\n\r\n")) < 0 or len(received) == end + 4:
            piece = connection.recv(65536)
            if not piece:
                raise LoadError(f"a fetch ended after {received[:300]!r}")
            received += piece
        first = time.perf_counter() - begun
        answer = Answer(int(received[9:12]), received[: end + 4], b"")
        if answer.status != 200:
            raise LoadError(f"a fetch answered {received[:600]!r}")
        size, length, last = len(received) - end - 4, answer.header(b"content-length"), received[-5:]
        while size < int(length) if length else last != b"0\r\n\r\n":
            piece = connection.recv(1024 * 1024)
            if not piece:
                raise LoadError(f"a fetch ended after {size} of {length or 'some'} bytes")
            size += len(piece)
            last = (last + piece[-5:])[-5:]
        return Fetch(first, time.perf_counter() - begun, size)
