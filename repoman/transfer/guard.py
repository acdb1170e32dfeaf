"""Which addresses a remote may reach, decided on the very address that is connected.

A name is resolved once, every address is judged, and the connection goes to a judged address itself: an answer that
changes between the check and the connection (DNS rebinding) finds no second look-up to poison. TLS still verifies the
name. Odd notations of an address (`0x7f.1`, `2130706433`) are whatever the resolver takes them for.

Through a proxy the proxy resolves names, so there literal addresses, in any notation, are judged as such, and names by
what they say: `localhost`, names without a dot and names of private zones are refused unless allowed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, cast

import httpcore

from repoman.core.clock import monotonic

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""(host, port) → its addresses as text, best first. Raises OSError."""

LEAST_ATTEMPT_SECONDS = 1.0
RESOLVER_THREADS = 16

# What is not globally reachable (IANA's special-purpose registries); the standard library's tables differ by version.
_CLOSED: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",
        "2001:db8::/32",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Where clouds keep credentials for whoever asks. An allowed host name does not open these, only their network does.
_LINK_LOCAL: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text) for text in ("169.254.0.0/16", "fe80::/10", "fd00:ec2::/32", "224.0.0.0/4", "ff00::/8")
)
_PRIVATE_ZONES = ("localhost", "local", "internal", "intranet", "lan", "home.arpa", "corp", "private")


class AddressRefused(Exception):
    """The policy forbids this connection. `host` is the name that was asked for, never what it resolved to."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"{host} is at a private or otherwise not public address; an operator can permit it with "
            f"REPOMAN_UPSTREAM_ALLOW"
        )
        self.host = host


class AddressPolicy:
    """`allow`: networks (`10.1.0.0/16`, `::1`) and host names that may be reached although they are not public."""

    def __init__(self, allow: Iterable[str] = ()) -> None:
        networks: list[Network] = []
        names: set[str] = set()
        for entry in allow:
            text = entry.strip()
            try:
                networks.append(ipaddress.ip_network(text.strip("[]"), strict=False))
            except ValueError:
                if text:
                    names.add(_plain(text))
        self._networks = tuple(networks)
        self._names = frozenset(names)

    def permits(self, host: str, address: str) -> bool:
        """Whether `host` may be connected at `address` (text of an IP address, which it resolved to)."""
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        faces = _faces(parsed)
        if any(face in network for face in faces for network in self._networks if face.version == network.version):
            return True
        if _plain(host) in self._names:
            return not any(face in closed for face in faces for closed in _LINK_LOCAL if face.version == closed.version)
        return all(_is_public(face) for face in faces)

    def permits_unresolved(self, host: str) -> bool:
        """Whether `host` may be asked for through a proxy, which resolves it where it cannot be seen."""
        literal = _literal(host)
        if literal is not None:
            return self.permits(host, literal)
        name = _plain(host)
        if name in self._names:
            return True
        return "." in name and not any(name == zone or name.endswith(f".{zone}") for zone in _PRIVATE_ZONES)


def _plain(host: str) -> str:
    return host.strip().strip("[]").rstrip(".").lower()


def _literal(host: str) -> str | None:
    """The address that `host` is, in whatever notation; None for a name."""
    text = host.strip().strip("[]").rstrip(".")
    try:
        return str(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(text))  # 127.1, 0x7f.1, 017700000001, 2130706433
    except (OSError, UnicodeError):
        return None


def _faces(address: Address) -> tuple[Address, ...]:
    """The address and every IPv4 address inside it that some gateway or kernel would go to instead.

    An IPv4-mapped address *is* the IPv4 one. A translated one (NAT64) is judged by the address it leads to.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return (address,)
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address in _NAT64:
        return (ipaddress.IPv4Address(address.packed[12:]),)
    if address.sixtofour is not None:
        return (address, address.sixtofour)
    return (address,)


def _is_public(address: Address) -> bool:
    if any(address in network for network in _CLOSED if network.version == address.version):
        return False
    return not (address.is_multicast or address.is_unspecified or address.is_loopback or address.is_private)


@lru_cache(maxsize=1)
def _resolver_threads() -> ThreadPoolExecutor:
    """Of their own: a name server that does not answer would use up the loop's few."""
    return ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="resolver")


async def resolve(host: str, port: int) -> Sequence[str]:
    """The system's resolver. Raises OSError (socket.gaierror)."""
    loop = asyncio.get_running_loop()
    found = await loop.run_in_executor(_resolver_threads(), _look_up, host, port)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _look_up(host: str, port: int) -> list[Any]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """The network as httpcore sees it: connects to judged addresses only."""

    def __init__(self, policy: AddressPolicy, *, resolver: Resolver | None = None) -> None:
        self._policy = policy
        self._resolver = resolver or resolve
        self._looking: dict[tuple[str, int], asyncio.Task[Sequence[str]]] = {}

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises AddressRefused, httpcore.ConnectError, httpcore.ConnectTimeout. `timeout` covers all of it.

        `local_address` and `socket_options` are not used by our pools.
        """
        until = None if timeout is None else monotonic() + timeout
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._look_up(host, port)
        except TimeoutError:
            raise httpcore.ConnectTimeout("the name could not be resolved in time") from None
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"the name cannot be resolved ({error})") from error
        permitted = [address for address in addresses if self._policy.permits(host, address)]
        if not permitted:
            raise AddressRefused(host)
        for number, address in enumerate(permitted):
            left = None
            if until is not None:
                left = until - monotonic()
                if left <= 0:
                    raise httpcore.ConnectTimeout("no address answered in time")
                others = len(permitted) - number - 1
                if others:  # a dead address must not use up the time of those after it
                    left = min(left, max(left / 2, LEAST_ATTEMPT_SECONDS))
            try:
                return await _connect(address, port, left)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if number == len(permitted) - 1:
                    raise
        raise httpcore.ConnectError("no address")  # not reached: `permitted` is not empty

    async def _look_up(self, host: str, port: int) -> Sequence[str]:
        """One look-up at a time for one name, so that a dead name holds one thread and not all of them."""
        task = self._looking.get((host, port))
        if task is None:
            task = self._looking[host, port] = asyncio.ensure_future(self._resolver(host, port))
            task.add_done_callback(lambda done: self._looked_up((host, port), done))
        return await asyncio.shield(task)

    def _looked_up(self, key: tuple[str, int], task: asyncio.Task[Sequence[str]]) -> None:
        self._looking.pop(key, None)
        if not task.cancelled():
            task.exception()  # those who wait have it

    async def connect_unix_socket(self, path: str, *arguments: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        raise AddressRefused("a Unix socket")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def _connect(address: str, port: int, timeout: float | None) -> httpcore.AsyncNetworkStream:
    """`address` is an IP address: there is nothing left to resolve."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            _, wire = await loop.create_connection(_Wire, address, port)
    except TimeoutError:
        raise httpcore.ConnectTimeout("no answer") from None
    except OSError as error:
        raise httpcore.ConnectError(os.strerror(error.errno) if error.errno else "not reachable") from error
    return _Stream(wire)


class _Wire(asyncio.Protocol):
    """What has come over one connection and has not been read yet; bounded by pausing the transport."""

    MOST = 1024 * 1024

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.pieces: deque[bytes] = deque()
        self.size = 0
        self.is_ended = False
        self.error: Exception | None = None
        self._paused = False
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._came: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are none of asyncio's classes

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)
        self.size += len(data)
        if self.size > self.MOST and not self._paused and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self.is_ended = True
        self._wake()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.is_ended = True
        self.error = error
        self._may_write.set()
        self._wake()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def take(self) -> bytes:
        piece = self.pieces.popleft()
        self.size -= len(piece)
        if self._paused and self.size <= self.MOST // 2 and self.transport is not None:
            self._paused = False
            self.transport.resume_reading()
        return piece

    async def arrival(self) -> None:
        """Until something came or the connection ended."""
        while not self.pieces and not self.is_ended:
            self._came = asyncio.get_running_loop().create_future()
            await self._came

    async def drained(self) -> None:
        await self._may_write.wait()

    def _wake(self) -> None:
        if self._came is not None and not self._came.done():
            self._came.set_result(None)


class _Stream(httpcore.AsyncNetworkStream):
    """A connection. Unlike the library's own it says of itself that it is not fit for another request while bytes are
    there that nobody asked for; they would be taken for the next answer."""

    def __init__(self, wire: _Wire) -> None:
        self._wire = wire

    @property
    def _transport(self) -> asyncio.Transport:
        assert self._wire.transport is not None
        return self._wire.transport

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """May give more than `max_bytes`: what one system call brought is not split, only to be put together again."""
        wire = self._wire
        if not wire.pieces and not wire.is_ended:
            try:
                async with asyncio.timeout(timeout):
                    await wire.arrival()
            except TimeoutError:
                raise httpcore.ReadTimeout("nothing came") from None
        if wire.pieces:
            return wire.take()
        if wire.error is not None:
            raise httpcore.ReadError("the connection broke") from wire.error
        return b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:
            return
        if self._wire.is_ended and self._transport.is_closing():
            raise httpcore.WriteError("the connection is closed")
        self._transport.write(buffer)
        try:
            async with asyncio.timeout(timeout):
                await self._wire.drained()
        except TimeoutError:
            raise httpcore.WriteTimeout("the request is not taken") from None

    async def aclose(self) -> None:
        self._transport.abort()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        try:
            transport = await loop.start_tls(
                self._transport,
                self._wire,
                ssl_context,
                server_hostname=server_hostname,
                ssl_handshake_timeout=timeout,
            )
        except TimeoutError:
            raise httpcore.ConnectTimeout("no TLS handshake in time") from None
        except ssl.SSLCertVerificationError as error:
            raise httpcore.ConnectError(f"SSL certificate: {error.verify_message}") from error
        except ssl.SSLError as error:
            raise httpcore.ConnectError(f"SSL: {error.reason or 'handshake failed'}") from error
        except OSError as error:  # asyncio reports a handshake that takes too long as an aborted connection
            if "handshake is taking longer" in str(error):
                raise httpcore.ConnectTimeout("no TLS handshake in time") from error
            raise httpcore.ConnectError("SSL: the connection broke during the handshake") from error
        if transport is None:
            raise httpcore.ConnectError("SSL: the connection broke during the handshake")
        self._wire.transport = transport
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            return bool(self._wire.pieces) or self._wire.is_ended or self._transport.is_closing()
        names = {"ssl_object": "ssl_object", "client_addr": "sockname", "server_addr": "peername", "socket": "socket"}
        return self._transport.get_extra_info(names[info]) if info in names else None


def tls_context() -> ssl.SSLContext:
    """Verifying, with the authorities of the system (or of SSL_CERT_FILE and SSL_CERT_DIR); certifi's where it has none."""
    import certifi

    context = ssl.create_default_context()
    if not any(os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")):
        paths = ssl.get_default_verify_paths()
        if not context.cert_store_stats()["x509_ca"] and not (paths.capath and os.listdir(paths.capath)):
            context.load_verify_locations(certifi.where())
    return context
