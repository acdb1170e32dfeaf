"""Raw HTTP for tests of the edge: what no client library would send, and answers in the order they came."""

from __future__ import annotations

import base64
import re
import socket
import time
from dataclasses import dataclass

from tests.running import Server


@dataclass(frozen=True)
class Answer:
    """`headers` in order, names in lower case; `ended`: the connection was closed after (or within) the answer."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    ended: bool = False

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def connect(server: Server) -> socket.socket:
    host, _, port = server.host.partition(":")
    sock = socket.create_connection((host, int(port)), timeout=30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def head(method: str, target: str, *lines: str, host: str | None = "repoman.test") -> bytes:
    first = [f"{method} {target} HTTP/1.1", *([f"Host: {host}"] if host is not None else [])]
    return "\r\n".join([*first, *lines, "", ""]).encode("latin-1")


def read(sock: socket.socket, *, is_head: bool = False) -> Answer:
    """One final answer; interim ones are skipped. A body that ends early is given as far as it came, `ended`."""
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            piece = sock.recv(65536)
            if not piece:
                raise ConnectionError(f"the connection ended before an answer: {data!r}")
            data += piece
        top, _, data = data.partition(b"\r\n\r\n")
        first, *lines = top.decode("latin-1").split("\r\n")
        status = int(first.split(" ", 2)[1])
        if status >= 200:
            break
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    length = next((int(value) for name, value in headers if name == "content-length"), 0)
    if is_head or status in (204, 304):
        return Answer(status, headers, b"")
    while len(data) < length:
        piece = sock.recv(65536)
        if not piece:
            return Answer(status, headers, data, ended=True)
        data += piece
    return Answer(status, headers, data)


def ask(server: Server, method: str, target: str, *lines: str, host: str | None = None, body: bytes = b"") -> Answer:
    if body:
        lines = (*lines, f"Content-Length: {len(body)}")
    with connect(server) as sock:
        sock.sendall(head(method, target, *lines, host=server.host if host is None else host) + body)
        return read(sock, is_head=method == "HEAD")


def metric(server: Server, pattern: str) -> float:
    """The sum of the samples whose line matches."""
    found = re.findall(rf"^{pattern} ([0-9.e+]+)$", server.client().get("/metrics").text, re.MULTILINE)
    return sum(map(float, found))


def metric_grows(server: Server, pattern: str, above: float) -> bool:
    """Processes tell each other their numbers once a second."""
    for _ in range(50):
        if metric(server, pattern) > above:
            return True
        time.sleep(0.1)
    return False
