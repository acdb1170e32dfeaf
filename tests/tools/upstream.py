"""An upstream that misbehaves on demand: a small HTTP/1.1 server on the loopback, in a thread of the test's own process.

    with Upstream() as upstream:
        upstream.add("/a.bin", Answer(b"bytes", etag='"1"'))                    # GET, HEAD and conditional requests
        upstream.add("/b.bin", Answer(status=503), Answer(status=503), Answer(b"fine"))  # one each; the last one stays
        upstream.add("/c.bin", Answer(b"x" * 10**6, cut_after=5000))            # the connection is reset midway
        upstream.url("/a.bin")                                                  # "http://127.0.0.1:PORT/a.bin"
        …
        upstream.count("/a.bin"), upstream.bodies("/a.bin"), upstream.seen("/a.bin")[0].headers["authorization"]

A path is matched without its query (`Seen.query` has it) and percent-encoded as it was sent. What nobody added is 404, or,
with `Upstream(backend="http://127.0.0.1:PORT")`, what the backend answers: `add(path, Answer(from_backend=True, …))` then
plants a fault in a backend's answer, `upstream.everywhere = Answer(from_backend=True, delay=1)` in all of them. The
backend is asked for `Host: <backend>`.

`Answer`, by fault (all times in seconds; combine as needed):

    body                bytes, or a function of the request (`Seen`) that gives bytes or an iterator of them
    status, headers     as they are; headers are added after the server's own
    etag, last_modified sent, and compared with If-None-Match / If-Modified-Since: 304 without a body
    media_type          Content-Type ("" sends none)
    delay               before the first byte of the answer
    chunk_size, chunk_delay    pieces of the body, and the pause between two of them
    stall               "headers": answers nothing, for ever; "body": the headers and `stall_after` bytes, then nothing
    cut_after           so many bytes of the body, then a reset (in chunked coding: without the last chunk)
    close_cleanly       with cut_after: an orderly end of the connection instead of a reset
    chunked             Transfer-Encoding: chunked instead of Content-Length
    declared            Content-Length says this instead of the truth; -1 sends none, and the end is the connection's
    corrupt             one bit of the body is flipped
    gzip                Content-Encoding: gzip, whatever the client accepts; see `bomb`
    ranges              answers Range with 206 (ignored otherwise); `always_partial` sends a 206 nobody asked for
    redirect            Location; with status 302 unless another is given
    raw                 these bytes (or none) and nothing else, then the connection is closed
    times               this answer is given so many times before the next one is

Sign-in: `upstream.protect("/v2/", Bearer(…))` answers 401 with a challenge to what carries no valid token and serves tokens
under the realm's path (`upstream.token_requests` are the requests it got); `upstream.protect("/", Basic("user", "secret"))`.
`revoke_tokens()` makes the tokens that were issued so far invalid. With `realm=` the challenge names another server, for
example a second Upstream that was given the same Bearer through `issue`.

`Upstream(tls=("upstream.example", "127.0.0.1"))` speaks TLS with a certificate for these names; `upstream.trust` is a
client's SSLContext that accepts it.

Everything that arrives is recorded: `upstream.requests` holds `Seen(method, target, path, query, headers)` in order.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import datetime
import email.utils
import gzip
import ipaddress
import json
import secrets
import socket
import ssl
import struct
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qs, urlsplit

Content = bytes | Iterable[bytes]


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it arrived. `headers`: lower-case names; repeated ones joined with ", "."""

    method: str
    target: str
    path: str
    query: str
    headers: dict[str, str]
    at: float


@dataclass(frozen=True, slots=True)
class Answer:
    """See the module's own text."""

    body: Content | Callable[[Seen], Content] = b""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    etag: str = ""
    last_modified: str = ""
    media_type: str = "application/octet-stream"
    delay: float = 0
    chunk_size: int = 64 * 1024
    chunk_delay: float = 0
    stall: str = ""
    stall_after: int = 0
    cut_after: int | None = None
    close_cleanly: bool = False
    chunked: bool = False
    declared: int | None = None
    corrupt: bool = False
    gzip: bool = False
    ranges: bool = False
    always_partial: bool = False
    redirect: str = ""
    raw: bytes | None = None
    times: int = 1
    from_backend: bool = False


def throttled(retry_after: int | str) -> Answer:
    return Answer(b"slow down", status=429, headers=(("Retry-After", str(retry_after)),), media_type="text/plain")


def html_page(title: str = "Sign in") -> Answer:
    """What captive portals and login pages say: 200, and HTML instead of what was asked for."""
    page = f"<!DOCTYPE html>\n<html><head><title>{title}</title></head><body>{title}</body></html>\n"
    return Answer(page.encode(), media_type="text/html; charset=utf-8")


def endless(piece: bytes = b"\0" * 65536) -> Iterator[bytes]:
    """A body that never ends. Send it chunked."""
    while True:
        yield piece


def zeros(size: int, piece: int = 1 << 20) -> Callable[[Seen], Iterator[bytes]]:
    """A body of `size` zero bytes that is never in memory as a whole. Give the Answer `declared=size`, or `chunked`."""

    def pieces(_: Seen) -> Iterator[bytes]:
        block = bytes(piece)
        for start in range(0, size, piece):
            yield block[: min(piece, size - start)]

    return pieces


def bomb(size: int) -> Answer:
    """`size` zero bytes, gzipped: about a thousandth on the wire."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    block = bytes(1 << 20)
    packed = [compressor.compress(block[: min(1 << 20, size - start)]) for start in range(0, size, 1 << 20)]
    packed.append(compressor.flush())
    return Answer(b"".join(packed), headers=(("Content-Encoding", "gzip"),))


@dataclass(slots=True)
class Basic:
    username: str
    password: str

    def challenge(self, upstream: Upstream) -> str:
        return 'Basic realm="upstream", charset="UTF-8"'

    def admits(self, authorization: str) -> bool:
        return authorization == "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(slots=True)
class Bearer:
    """The token dance. `username`: the realm asks for these credentials; empty: it gives tokens to anybody.

    `realm`: another address than this server's own `realm_path`. `token_answer` replaces the realm's answer.
    """

    service: str = "registry"
    scope: str = "repository:library/thing:pull"
    username: str = ""
    password: str = ""
    expires_in: int = 300
    realm: str = ""
    realm_path: str = "/token"
    token_answer: Answer | None = None
    delay: float = 0
    issued: set[str] = field(default_factory=set)

    def challenge(self, upstream: Upstream) -> str:
        realm = self.realm or upstream.url(self.realm_path)
        return f'Bearer realm="{realm}",service="{self.service}",scope="{self.scope}"'

    def admits(self, authorization: str) -> bool:
        return authorization.removeprefix("Bearer ") in self.issued if authorization.startswith("Bearer ") else False

    def issue(self, seen: Seen) -> Answer:
        """The realm's answer to a request for a token."""
        if self.token_answer is not None:
            return self.token_answer
        given = seen.headers.get("authorization", "")
        if self.username and not Basic(self.username, self.password).admits(given):
            return Answer(b'{"errors": []}', status=401, media_type="application/json", delay=self.delay)
        token = secrets.token_hex(16)
        self.issued.add(token)
        document = {"token": token, "access_token": token, "expires_in": self.expires_in}
        return Answer(json.dumps(document).encode(), media_type="application/json", delay=self.delay)


class Upstream:
    """A context manager; see the module's own text. Usable from any thread of the test."""

    def __init__(self, *, backend: str = "", tls: tuple[str, ...] = (), host: str = "127.0.0.1") -> None:
        self.backend = backend
        self.host = host
        self.port = 0
        self.requests: list[Seen] = []
        self.token_requests: list[Seen] = []
        self.everywhere: Answer | None = None
        """Given to every path that nobody added (or taken instead of the backend's plain answer)."""
        self.open_connections = 0
        self.connections = 0
        self.trust: ssl.SSLContext | None = None
        self._bodies: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._answers: dict[str, list[Answer]] = {}
        self._protected: list[tuple[str, Basic | Bearer]] = []
        self._realms: dict[str, Bearer] = {}
        self._lock = threading.Lock()
        self._tls = tls
        self._server_context: ssl.SSLContext | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # --- what a test calls

    @property
    def origin(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self._tls[0] if self._tls else self.host}:{self.port}"

    def url(self, path: str = "/") -> str:
        return self.origin + path

    def add(self, path: str, *answers: Answer) -> None:
        """From now on `path` is answered so: each answer `times` times, the last one for ever. Replaces earlier ones."""
        with self._lock:
            self._answers[path] = [dataclasses.replace(answer) for answer in answers]

    def remove(self, path: str) -> None:
        with self._lock:
            self._answers.pop(path, None)

    def protect(self, prefix: str, scheme: Basic | Bearer) -> None:
        """Paths below `prefix` need this sign-in (the longest prefix counts)."""
        with self._lock:
            self._protected.append((prefix, scheme))
            self._protected.sort(key=lambda pair: -len(pair[0]))
        if isinstance(scheme, Bearer):
            self.serve_realm(scheme)

    def serve_realm(self, scheme: Bearer) -> None:
        """Serve tokens of `scheme` here; `protect` does it for its own server."""
        self._realms[scheme.realm_path] = scheme

    def revoke_tokens(self) -> None:
        for _, scheme in self._protected:
            if isinstance(scheme, Bearer):
                scheme.issued.clear()

    def seen(self, path: str, method: str = "") -> list[Seen]:
        """The requests for `path`, in order."""
        with self._lock:
            return [one for one in self.requests if one.path == path and method in ("", one.method)]

    def count(self, path: str, method: str = "") -> int:
        return len(self.seen(path, method))

    def bodies(self, path: str) -> int:
        """How often a body of `path` was sent to its end (cut, stalled and 304 ones do not count)."""
        with self._lock:
            return self._bodies[path]

    def bytes_sent(self, path: str) -> int:
        """Bytes of bodies of `path` that were given to the connection."""
        with self._lock:
            return self._bytes[path]

    def forget(self) -> None:
        """Start counting anew."""
        with self._lock:
            self.requests.clear()
            self.token_requests.clear()
            self._bodies.clear()
            self._bytes.clear()

    # --- running

    def __enter__(self) -> Self:
        if self._tls:
            self._server_context, self.trust = _certificate(self._tls)
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, for TCP_NODELAY
        listener.bind((self.host, 0))
        listener.listen(1024)
        self.port = listener.getsockname()[1]
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listener, ready), name="upstream", daemon=True)
        self._thread.start()
        if not ready.wait(10):
            raise RuntimeError("the upstream did not start")
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._stop)
            self._thread.join(10)

    def _run(self, listener: socket.socket, ready: threading.Event) -> None:
        loop = self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        server = loop.run_until_complete(
            asyncio.start_server(self._accept, sock=listener, ssl=self._server_context, limit=1 << 20)
        )
        ready.set()
        try:
            loop.run_forever()
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

    def _stop(self) -> None:
        assert self._loop is not None
        self._loop.stop()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open_connections += 1
        self.connections += 1
        try:
            while await self._serve_one(reader, writer):
                pass
        except (OSError, EOFError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # the client left, or the test is over
        finally:
            self._tasks.discard(task)
            self.open_connections -= 1
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection goes on."""
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, separator, value = line.partition(":")
            if separator:
                name = name.strip().lower()
                headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
        length = int(headers.get("content-length", "0"))
        if length:
            await reader.readexactly(length)
        parts = urlsplit(target)
        seen = Seen(method, target, parts.path, parts.query, headers, time.monotonic())
        with self._lock:
            self.requests.append(seen)
        answer = await self._answer(seen)
        return await self._send(seen, answer, writer)

    async def _answer(self, seen: Seen) -> Answer:
        realm = self._realms.get(seen.path)
        if realm is not None:
            with self._lock:
                self.token_requests.append(seen)
            return realm.issue(seen)
        for prefix, scheme in self._protected:
            if seen.path.startswith(prefix):
                if not scheme.admits(seen.headers.get("authorization", "")):
                    challenge = (("WWW-Authenticate", scheme.challenge(self)),)
                    return Answer(b"sign in", status=401, headers=challenge, media_type="text/plain")
                break
        with self._lock:
            script = self._answers.get(seen.path)
            answer = None
            if script:
                answer = script[0]
                if len(script) > 1:
                    if answer.times <= 1:
                        script.pop(0)
                    else:
                        script[0] = dataclasses.replace(answer, times=answer.times - 1)
        if answer is None:
            answer = self.everywhere or (Answer(from_backend=True) if self.backend else None)
        if answer is None:
            return Answer(b"not found", status=404, media_type="text/plain")
        if answer.from_backend:
            return await asyncio.to_thread(self._ask_backend, seen, answer)
        return answer

    def _ask_backend(self, seen: Seen, answer: Answer) -> Answer:
        import http.client

        parts = urlsplit(self.backend)
        connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=60)
        dropped = {"host", "connection", "content-length", "transfer-encoding", "accept-encoding"}
        try:
            connection.putrequest(seen.method, seen.target, skip_accept_encoding=True)
            for name, value in seen.headers.items():
                if name not in dropped:
                    connection.putheader(name, value)
            connection.endheaders()
            response = connection.getresponse()
            body = response.read()
            kept = []
            media_type = ""
            for name, value in response.getheaders():
                lowered = name.lower()
                if lowered == "content-type":
                    media_type = value
                elif lowered == "location":
                    kept.append((name, value.replace(self.backend.rstrip("/"), self.origin)))
                elif lowered not in (
                    "content-length",
                    "transfer-encoding",
                    "connection",
                    "keep-alive",
                    "date",
                    "server",
                ):
                    kept.append((name, value))
            if seen.method == "HEAD" and response.getheader("content-length"):
                kept.append(("Content-Length", response.getheader("content-length") or "0"))
        finally:
            connection.close()
        return dataclasses.replace(
            answer,
            body=body,
            status=response.status if answer.status == 200 else answer.status,
            headers=(*kept, *answer.headers),
            media_type=media_type,
        )

    async def _send(self, seen: Seen, answer: Answer, writer: asyncio.StreamWriter) -> bool:
        if answer.delay:
            await asyncio.sleep(answer.delay)
        if answer.stall == "headers":
            await asyncio.Event().wait()
        if answer.raw is not None:
            writer.write(answer.raw)
            await writer.drain()
            return False
        content = answer.body(seen) if callable(answer.body) else answer.body
        if answer.corrupt and isinstance(content, bytes) and content:
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        if answer.gzip and isinstance(content, bytes):
            content = gzip.compress(content)
        status = answer.status
        headers: list[tuple[str, str]] = [("Date", email.utils.formatdate(usegmt=True)), ("Server", "upstream")]
        if answer.media_type:
            headers.append(("Content-Type", answer.media_type))
        if answer.gzip:
            headers.append(("Content-Encoding", "gzip"))
        if answer.etag:
            headers.append(("ETag", answer.etag))
        if answer.last_modified:
            headers.append(("Last-Modified", answer.last_modified))
        if answer.redirect:
            status = answer.status if answer.status != 200 else 302
            headers.append(("Location", answer.redirect))
        if _is_unchanged(seen, answer) and status == 200:
            status, content = 304, b""
        if isinstance(content, bytes) and status == 200 and (answer.always_partial or answer.ranges):
            status, content, extra = _partial(seen, content, answer.always_partial)
            headers += extra
        has_body = seen.method != "HEAD" and status not in (204, 304)
        names = {name.lower() for name, _ in answer.headers}
        keep = True
        chunked = answer.chunked and answer.declared is None
        if chunked:
            headers.append(("Transfer-Encoding", "chunked"))
        elif answer.declared is not None and answer.declared >= 0:
            headers.append(("Content-Length", str(answer.declared)))
        elif answer.declared is None and isinstance(content, bytes) and status != 304 and "content-length" not in names:
            headers.append(("Content-Length", str(len(content))))
        elif "content-length" not in names and status != 304:
            headers.append(("Connection", "close"))
            keep = False
        lines = [f"HTTP/1.1 {status} Status"] + [f"{name}: {value}" for name, value in (*headers, *answer.headers)]
        writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")
        await writer.drain()
        if not has_body:
            return keep
        return await self._send_body(seen, answer, content, writer, chunked) and keep

    async def _send_body(
        self, seen: Seen, answer: Answer, content: Content, writer: asyncio.StreamWriter, chunked: bool
    ) -> bool:
        end = answer.cut_after
        if answer.stall == "body":
            end = answer.stall_after
        sent = 0
        for piece in _pieces(content, answer.chunk_size):
            if end is not None:
                piece = piece[: end - sent]
            if piece:
                if sent and answer.chunk_delay:
                    await asyncio.sleep(answer.chunk_delay)
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                await writer.drain()
                sent += len(piece)
                with self._lock:
                    self._bytes[seen.path] += len(piece)
            if end is not None and sent >= end:
                break
        if answer.stall == "body":
            await asyncio.Event().wait()
        if answer.cut_after is not None:
            if not answer.close_cleanly:
                await asyncio.sleep(0.05)  # a reset takes what the client has not read yet
                _reset(writer)
            return False
        if chunked:
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        with self._lock:
            self._bodies[seen.path] += 1
        if answer.declared is not None and answer.declared != sent:
            return answer.declared >= 0 and answer.declared < sent  # too few bytes: the connection ends
        return True


def _reset(writer: asyncio.StreamWriter) -> None:
    """End the connection so that the other side sees a failure, not an end."""
    found = writer.get_extra_info("socket")
    if found is not None:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _pieces(content: Content, size: int) -> Iterator[bytes]:
    if isinstance(content, bytes):
        for start in range(0, len(content), size):
            yield content[start : start + size]
    else:
        yield from content


def _is_unchanged(seen: Seen, answer: Answer) -> bool:
    asked = seen.headers.get("if-none-match")
    if asked is not None:
        return bool(answer.etag) and answer.etag in [tag.strip() for tag in asked.split(",")]
    since = seen.headers.get("if-modified-since")
    return bool(since) and since == answer.last_modified


def _partial(seen: Seen, content: bytes, always: bool) -> tuple[int, bytes, list[tuple[str, str]]]:
    asked = seen.headers.get("range", "bytes=0-99" if always else "")
    if not asked.startswith("bytes="):
        return 200, content, []
    first, _, last = asked.removeprefix("bytes=").partition("-")
    start = int(first or 0)
    stop = min(int(last) if last else len(content) - 1, len(content) - 1)
    return 206, content[start : stop + 1], [("Content-Range", f"bytes {start}-{stop}/{len(content)}")]


def _certificate(names: tuple[str, ...]) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(the server's context, a client's that trusts it), with a certificate made now for these names and addresses."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "upstream of a test")])
    alternatives: list[x509.GeneralName] = []
    for name in names:
        try:
            alternatives.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            alternatives.append(x509.DNSName(name))
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(pem + secret)
        file.flush()
        server.load_cert_chain(file.name)
    client = ssl.create_default_context()
    client.load_verify_locations(cadata=pem.decode())
    return server, client


def query_of(seen: Seen) -> dict[str, list[str]]:
    """The query's parameters, for assertions about token requests."""
    return parse_qs(seen.query)
