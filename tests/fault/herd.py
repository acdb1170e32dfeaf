"""Many clients at once that read one thing and compare it, in one thread and without copies: the test must not be what is
slow."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.running import Server, descendants

PIECE = 256 * 1024


@dataclass
class Reader:
    """One client. `status` 0: no answer. `is_whole`: every byte that was announced came, and is the expected one.

    `pace`: bytes a second at most (0: as they come). `leave_after`: hang up after so many bytes (0: never).
    """

    server: Server
    path: str
    expected: bytes
    pace: int = 0
    leave_after: int = 0
    status: int = 0
    offset: int = 0
    length: int = -1
    is_equal: bool = True
    first_at: float = 0.0
    ended_at: float = 0.0
    began_at: float = field(default_factory=time.monotonic)
    _head: bytes = b""
    _socket: socket.socket | None = None

    @property
    def is_whole(self) -> bool:
        return self.status == 200 and self.is_equal and self.offset == self.length == len(self.expected)

    def connect(self) -> socket.socket:
        host, _, port = self.server.host.partition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=30)
        self._socket.setblocking(False)
        self._socket.sendall(
            f"GET {self.path} HTTP/1.1\r\nHost: {self.server.host}\r\nConnection: close\r\n\r\n".encode()
        )
        self.began_at = time.monotonic()
        return self._socket

    @property
    def is_ahead(self) -> bool:
        return bool(self.pace) and self.offset > (time.monotonic() - self.began_at) * self.pace

    def read(self) -> bool:
        """What has come; whether more is expected."""
        assert self._socket is not None
        try:
            data = self._socket.recv(PIECE)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        if not self.status:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return True
            self._take(head)
        if data:
            self.first_at = self.first_at or time.monotonic()
            if self.status == 200:
                self.is_equal = self.is_equal and self.expected.startswith(data, self.offset)
            self.offset += len(data)
        return not (self.leave_after and self.offset >= self.leave_after)

    def _take(self, head: bytes) -> None:
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split(" ")[1])
        for line in lines[1:]:
            name, _, value = line.partition(":")
            if name.lower() == "content-length":
                self.length = int(value)

    def close(self) -> None:
        self.ended_at = time.monotonic()
        if self._socket is not None:
            self._socket.close()


def read_together(readers: Sequence[Reader], *, seconds: float = 200) -> None:
    """All of them from the same moment on, each to its end."""
    with selectors.DefaultSelector() as selector:
        for reader in readers:
            selector.register(reader.connect(), selectors.EVENT_READ, reader)
        deadline = time.monotonic() + seconds
        while selector.get_map() and time.monotonic() < deadline:
            is_idle = True
            for key, _ in selector.select(0.5):
                reader = key.data
                if reader.is_ahead:
                    continue
                is_idle = False
                if not reader.read():
                    selector.unregister(key.fileobj)
                    reader.close()
            if is_idle:
                time.sleep(0.01)
        for key in list(selector.get_map().values()):
            key.data.close()


def peak_memory(server: Server) -> dict[int, int]:
    """The most memory that each process of the server has had so far, in bytes."""
    assert server.process is not None
    found = {}
    for pid in descendants(server.process.pid):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        found[pid] = next((int(line.split()[1]) * 1024 for line in status.splitlines() if "VmHWM" in line), 0)
    return found
