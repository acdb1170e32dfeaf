"""What the HTTP layer promises, over raw sockets, with each parser and event loop that it may run on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Long enough for a busy machine not to stand still for as long.
HEADER_SECONDS, BODY_SECONDS, WRITE_SECONDS = 1.0, 2.0, 3.0


@dataclass
class Server:
    port: int
    process: subprocess.Popen[bytes]
    notes: Path

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(30)
        sock.connect(("127.0.0.1", self.port))
        return sock

    def exchange(self, *parts: bytes, pause: float = 0.0) -> bytes:
        """Send, then read until the server closes."""
        with self.connect() as sock:
            for part in parts:
                sock.sendall(part)
                time.sleep(pause)
            return read_all(sock)

    def processes(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [self.process.pid, *map(int, children)]

    def resident(self) -> int:
        """Bytes of memory of the whole tree, pages that can be taken back at once not counted."""
        total = 0
        for process in self.processes():
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        return total


@contextlib.contextmanager
def running(folder: Path, *options: str, workers: int = 1) -> Iterator[Server]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(256)
        port = listener.getsockname()[1]
        notes = folder / "notes"
        notes.touch()
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "repoman.server.web",
                "--fd",
                str(listener.fileno()),
                "--workers",
                str(workers),
                "--application",
                "tests.protocol.http_application:application",
                *options,
            ],
            cwd=ROOT,
            pass_fds=[listener.fileno()],
            env={**os.environ, "HTTP_LAYER_NOTES": str(notes)},
        )
    server = Server(port, process, notes)
    try:
        assert b" 200 " in server.exchange(get("/pid", "Connection: close"))
        yield server
    finally:
        process.kill() if process.poll() is not None else process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def kinds() -> list[tuple[str, str]]:
    return [("fast", "uvloop"), ("python", "asyncio")]


@pytest.fixture(scope="module", params=kinds(), ids=lambda kind: "-".join(kind))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    parser, loop = request.param
    with running(
        tmp_path_factory.mktemp("http"),
        *("--parser", parser, "--loop", loop, "--header-seconds", str(HEADER_SECONDS)),
        *("--body-seconds", str(BODY_SECONDS), "--write-seconds", str(WRITE_SECONDS), "--linger-idle-seconds", "2"),
        *("--linger-bytes", str(16 * 2**20)),
    ) as made:
        yield made


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode("latin-1")


def read_all(sock: socket.socket) -> bytes:
    received = b""
    while piece := sock.recv(65536):
        received += piece
    return received


def read_answer(sock: socket.socket) -> tuple[bytes, bytes]:
    """Status line and headers, and a body of the length they tell."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = sock.recv(65536)
        assert piece, f"closed after {received!r}"
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    while len(body) < length:
        piece = sock.recv(65536)
        assert piece, "closed inside the body"
        body += piece
    return head, body


def status_of(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer
    return int(answer.split(b" ")[1])


# What the application is told


def test_repeated_headers_are_all_kept(server: Server) -> None:
    answer = server.exchange(get("/scope", "Accept: a/b", "X-One: 1", "Accept: c/d", "Connection: close"))
    shown = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert [value for name, value in shown["headers"] if name == "accept"] == ["a/b", "c/d"]


def test_i7_forwarded_headers_change_nothing_by_themselves(server: Server) -> None:
    answer = server.exchange(get("/scope", "X-Forwarded-Proto: https", "X_Under: 1", "Connection: close"))
    shown = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert shown["scheme"] == "http"
    assert ["x-forwarded-proto", "https"] in shown["headers"]
    assert not [name for name, _ in shown["headers"] if "_" in name]


def test_raw_path_is_what_was_sent(server: Server) -> None:
    answer = server.exchange(get("/raw/a%2Fb//%c3%a9/../x?y=%20", "Connection: close"))
    assert answer.endswith(b"\r\n\r\n/raw/a%2Fb//%c3%a9/../x?y=%20")


def test_upgrades_to_other_protocols_are_not_taken(server: Server) -> None:
    answer = server.exchange(
        get(
            "/scope",
            *("Connection: upgrade, close", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ).replace(b"upgrade, close", b"upgrade")
        + get("/pid", "Connection: close")
    )
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"type": "http"' in answer


def test_the_application_gives_the_reason_phrase(server: Server) -> None:
    answer = server.exchange(get("/reason", "Connection: close"))
    status_line, _, rest = answer.partition(b"\r\n")
    assert status_line == b"HTTP/1.1 400 File already exists; 9 of 10 GiB  X-Injected: 1 ?"
    assert b"\r\nX-Injected" not in rest


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    answer = server.exchange(get("/raw/1") + get("/raw/2") + get("/raw/3", "Connection: close"))
    assert [answer.index(b"/raw/%d?" % number) for number in (1, 2, 3)] == sorted(
        answer.index(b"/raw/%d?" % number) for number in (1, 2, 3)
    )
    assert answer.count(b"HTTP/1.1 200 ") == 3


def test_requests_sent_ahead_are_all_answered_whatever_their_size(server: Server) -> None:
    body = os.urandom(400_000)
    answered = f"400000 {hashlib.sha256(body).hexdigest()}".encode()
    with server.connect() as sock:
        request = get("/hash", "Content-Length: 400000", method="PUT") + body
        sender = threading.Thread(target=sock.sendall, args=(request * 10,))
        sender.start()
        received = b""
        while received.count(answered) < 10:
            piece = sock.recv(65536)
            assert piece, received
            received += piece
        sender.join()


def test_a_client_that_sends_ahead_without_end_is_kept_waiting(server: Server) -> None:
    before = server.resident()
    with server.connect() as sock:
        sock.sendall(get("/slow?1.5"))
        time.sleep(0.1)

        def send() -> None:
            with contextlib.suppress(OSError):
                sock.sendall(get("/raw/x") * 1_000_000)

        sender = threading.Thread(target=send)
        sender.start()
        time.sleep(0.8)
        assert sender.is_alive()
        assert server.resident() - before < 8 * 2**20
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
        # A machine that stood still for WRITE_SECONDS has the connection cut already, rightly: nobody took the answers.
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sender.join()


# Bodies


def test_d10_continue_is_sent_when_the_body_is_asked_for(server: Server) -> None:
    with server.connect() as sock:
        sock.sendall(get("/hash", "Content-Length: 5", "Expect: 100-continue", "Connection: close", method="PUT"))
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hello")
        assert hashlib.sha256(b"hello").hexdigest().encode() in read_all(sock)


def test_d10_a_refusal_comes_instead_of_continue(server: Server) -> None:
    with server.connect() as sock:
        sock.sendall(get("/refuse", "Content-Length: 5000000", "Expect: 100-continue", method="PUT"))
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"100 Continue" not in answer
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"no " * 100)


@pytest.mark.parametrize("path", ["/refuse", "/refuse-in-halves"])
def test_a_refusal_reaches_a_client_that_first_sends_everything(server: Server, path: str) -> None:
    size = 8 * 2**20
    with server.connect() as sock:
        sock.sendall(get(path, f"Content-Length: {size}", method="PUT"))
        for _ in range(size // 65536):
            sock.sendall(bytes(65536))
        answer = read_all(sock)
    assert status_of(answer) == 403
    assert answer.endswith(b"no") or answer.endswith(b"no " * 100)
    assert answer.count(b"HTTP/1.1") == 1


def test_what_follows_an_unread_body_is_not_taken_for_a_request(server: Server) -> None:
    answer = server.exchange(get("/refuse", "Content-Length: 500000", method="PUT"), get("/pid"), pause=0.1)
    assert answer.count(b"HTTP/1.1 ") == 1


def test_a_client_that_never_stops_sending_is_cut(server: Server) -> None:
    sent = 0
    with server.connect() as sock:
        sock.sendall(get("/refuse", f"Content-Length: {2**40}", method="PUT"))
        with pytest.raises(OSError):
            while sent < 2**31:
                sock.sendall(bytes(2**20))
                sent += 2**20
    assert sent < 2**28


def chunked(size: int) -> Iterator[bytes]:
    for _ in range(size // 2**20):
        yield b"100000\r\n" + bytes(2**20) + b"\r\n"
    yield b"0\r\n\r\n"


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_d9_two_gigabytes_go_in_with_flat_memory(server: Server, framing: str) -> None:
    size = 2 * 2**30
    before = peak = server.resident()
    with server.connect() as sock:
        if framing == "length":
            sock.sendall(get("/hash", f"Content-Length: {size}", "Connection: close", method="PUT"))
            pieces: Iterator[bytes] = (bytes(2**20) for _ in range(size // 2**20))
        else:
            sock.sendall(get("/hash", "Transfer-Encoding: chunked", "Connection: close", method="PUT"))
            pieces = chunked(size)
        for number, piece in enumerate(pieces):
            sock.sendall(piece)
            if number % 128 == 0:
                peak = max(peak, server.resident())
        answer = read_all(sock)
    assert f"\r\n\r\n{size} ".encode() in answer
    assert peak - before < 24 * 2**20


def test_two_gigabytes_go_out_with_flat_memory(server: Server) -> None:
    count = 2048
    before = peak = server.resident()
    received = number = 0
    buffer = bytearray(2**20)
    with server.connect() as sock:
        sock.sendall(get(f"/zeros?{count}", "Connection: close"))
        while taken := sock.recv_into(buffer):
            received += taken
            number += 1
            if number % 512 == 0:
                peak = max(peak, server.resident())
    assert received > count * 2**20
    assert peak - before < 24 * 2**20


def test_an_application_that_does_not_read_keeps_the_client_waiting(server: Server) -> None:
    before = server.resident()
    size = 64 * 2**20
    with server.connect() as sock:
        sock.sendall(get("/hold?1.5", f"Content-Length: {size}", "Connection: close", method="PUT"))
        sender = threading.Thread(target=sock.sendall, args=(bytes(size),))
        sender.start()
        time.sleep(1)
        assert server.resident() - before < 8 * 2**20
        assert sender.is_alive()
        assert read_all(sock).endswith(str(size).encode())
        sender.join()


# Slow clients


def test_u2_headers_that_do_not_come_are_not_waited_for(server: Server) -> None:
    with server.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: ")
        assert status_of(read_all(sock)) == 408
    with server.connect() as sock:
        assert read_all(sock) == b""


def test_u2_trickled_headers_are_not_waited_for(server: Server) -> None:
    with server.connect() as sock, contextlib.suppress(OSError):
        for letter in get("/pid", f"X-Long: {'x' * 2000}"):
            sock.sendall(bytes([letter]))
            time.sleep(0.02)
        raise AssertionError("the server waited for all of it")


def test_u2_trickled_headers_of_a_second_request_are_not_waited_for(server: Server) -> None:
    with server.connect() as sock:
        sock.sendall(get("/pid"))
        read_answer(sock)
        time.sleep(0.2)
        sock.sendall(b"GET /pid HTTP/1.1\r\n")
        assert status_of(read_all(sock)) == 408


def test_u2_a_body_that_does_not_come_is_not_waited_for(server: Server) -> None:
    with server.connect() as sock:
        sock.sendall(get("/hash", "Content-Length: 100000", method="PUT") + b"some")
        assert status_of(read_all(sock)) == 408


def test_u2_a_client_that_does_not_read_is_cut_and_the_application_is_told(server: Server) -> None:
    server.notes.write_text("")
    with server.connect(receive_buffer=8192) as sock:
        sock.sendall(get("/zeros?512"))
        deadline = time.monotonic() + 30
        while not server.notes.read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert server.notes.read_text() == "ClientGoneError\n"


def test_a_slow_reader_gets_everything(server: Server) -> None:
    """40 KiB/s through a small window, for several times the limit on standing still."""
    received = 0
    with server.connect(receive_buffer=8192) as sock:
        sock.sendall(get("/zeros?1", "Connection: close"))
        for _ in range(100):
            received += len(sock.recv(1600))
            time.sleep(0.04)
        received += len(read_all(sock))
    assert received > 2**20


def test_two_hundred_trickling_clients_do_not_keep_others_waiting(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(server.connect()) for _ in range(200)]
        for sock in slow:
            sock.sendall(get("/hash", "Content-Length: 1000000", method="PUT"))
        for sock in slow:
            sock.sendall(b"x")
        for _ in range(20):
            assert status_of(server.exchange(get("/pid", "Connection: close"))) == 200


# Malformed requests

POST = b"POST /hash HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLING = {
    "length and chunked": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "the same length twice": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": POST + b"Content-Length: 5, 5\r\n\r\nhello",
    "a length with a sign": POST + b"Content-Length: +5\r\n\r\nhello",
    "a negative length": POST + b"Content-Length: -5\r\n\r\nhello",
    "a length with an underscore": POST + b"Content-Length: 1_0\r\n\r\nhellohello",
    "an unknown coding": POST + b"Transfer-Encoding: cow\r\n\r\nhello",
    "chunked not last": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a coding after a vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"POST /hash HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk size that is no number": CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n",
    "a chunk size with a prefix": CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "a negative chunk size": CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
    "an endless chunk size": CHUNKED + b"" + b"f" * 40 + b"\r\nhello\r\n0\r\n\r\n",
    "a chunk longer than told": CHUNKED + b"5\r\nhello!!\r\n0\r\n\r\n",
    "a chunk ended by a bare LF": CHUNKED + b"5\nhello\n0\n\n",
    "lines ended by a bare LF": b"GET /pid HTTP/1.1\nHost: a\n\n",
    "one header ended by a bare LF": b"GET /pid HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
    "a folded header": b"GET /pid HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
    "a space before the colon": b"GET /pid HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
    "a space before the length's colon": POST + b"Content-Length : 5\r\n\r\nhello",
    "a header without name": b"GET /pid HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n",
    "a NUL in a header": b"GET /pid HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
    "a CR in a header": b"GET /pid HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
    "no host": b"GET /pid HTTP/1.1\r\nX: y\r\n\r\n",
    "two hosts": b"GET /pid HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "an unknown version": b"GET /pid HTTP/3.7\r\nHost: a\r\n\r\n",
    "an HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a space in the path": b"GET /p id HTTP/1.1\r\nHost: a\r\n\r\n",
    "a byte above 127 in the path": b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n",
    "a NUL in the path": b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method in lower case": b"get /pid HTTP/1.1\r\nHost: a\r\n\r\n",
    "no HTTP at all": b"hello there\r\n\r\n",
}


@pytest.mark.parametrize("name", SMUGGLING)
def test_i1_an_ambiguous_request_gets_one_400_and_the_end(server: Server, name: str) -> None:
    follower = b"GET /raw/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    answer = server.exchange(SMUGGLING[name] + follower)
    assert status_of(answer) == 400, answer
    assert len(re.findall(rb"HTTP/1\.\d \d{3} ", answer)) == 1, answer
    assert b"smuggled" not in answer


def test_a_tls_hello_gets_a_plain_400(server: Server) -> None:
    hello = bytes.fromhex("16030100c8010000c40303") + bytes(range(190))
    assert status_of(server.exchange(hello)) == 400


def test_a_broken_chunk_after_the_answer_began_gives_no_second_answer(server: Server) -> None:
    request = get("/refuse-in-halves", "Transfer-Encoding: chunked", method="PUT")
    with server.connect() as sock:
        sock.sendall(request + b"5\r\nhello\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 403 ")
        sock.sendall(b"zz\r\n")
        assert b"HTTP/1.1" not in read_all(sock)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /" + b"x" * 8200 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET /" + b"x" * 200_000, 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 101 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 8200 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 200_000, 431),
        (b"POST /hash HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\nx", 400),
    ],
    ids=["line", "endless line", "many headers", "long header", "endless header", "length"],
)
def test_i2_what_is_too_long_is_refused(server: Server, request_bytes: bytes, status: int) -> None:
    assert status_of(server.exchange(request_bytes)) == status


def test_the_longest_allowed_request_passes(server: Server) -> None:
    headers = [f"X-{number}: {'y' * 1000}" for number in range(98)]
    answer = server.exchange(get("/raw/" + "x" * 8000, *headers, "Connection: close"))
    assert status_of(answer) == 200


# The end of a process


def test_m10_term_finishes_requests_in_flight_and_closes_idle_connections(tmp_path: Path) -> None:
    with running(tmp_path, workers=2) as server, server.connect() as busy, server.connect() as idle:
        idle.sendall(get("/pid"))
        read_answer(idle)
        busy.sendall(get("/slow?1"))
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        assert read_all(idle) == b""
        head, body = read_answer(busy)
        assert status_of(head) == 200
        assert body.isdigit()
        assert b"connection: close" in head.lower()
        assert server.process.wait(10) == 0


def test_a_killed_web_process_is_replaced(tmp_path: Path) -> None:
    with running(tmp_path, workers=1) as server:
        victim = int(server.exchange(get("/pid", "Connection: close")).rpartition(b"\n")[2])
        os.kill(victim, signal.SIGKILL)
        successor = int(server.exchange(get("/pid", "Connection: close")).rpartition(b"\n")[2])
        assert successor != victim


def test_m8_more_connections_than_allowed_are_told_to_come_back(tmp_path: Path) -> None:
    with running(tmp_path, "--connections", "8") as server, contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(server.connect()).sendall(get("/slow?5"))
        time.sleep(0.3)
        answer = server.exchange(get("/pid"))
        assert status_of(answer) == 503
        assert b"\r\nRetry-After: 5\r\n" in answer
