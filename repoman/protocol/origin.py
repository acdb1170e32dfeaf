"""Where a request came from and under which address the client sees us: peer, forwarded headers, Host.

Forwarded headers count only from peers that REPOMAN_TRUSTED_PROXIES names, and then only the right-most hop that is
not itself one of them: whatever a client writes further left changes nothing.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from repoman.core.errors import BadRequest

from .small import Recent

_NAME = r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*\.?"
_HOST = re.compile(rf"(?P<name>{_NAME}|\[[0-9a-f:.]{{2,45}}\])(?::(?P<port>[0-9]{{1,5}}))?\Z", re.IGNORECASE)
LONGEST_HOST = 255
Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Origin:
    """`address` is the client's, `base_url` scheme and host as it sees them, `via_proxy` whether a trusted proxy asks."""

    address: str
    base_url: str
    via_proxy: bool = False


class Origins:
    """Judges requests by the settings: `public_url` (REPOMAN_URL), `hosts` (REPOMAN_HOSTS) and `trusted` networks."""

    def __init__(self, *, public_url: str = "", hosts: Sequence[str] = (), trusted: Sequence[Any] = ()) -> None:
        self._public_url = public_url
        self._public_host = urlsplit(public_url).netloc.lower() if public_url else ""
        self._default_port = {"https": ":443", "http": ":80"}.get(urlsplit(public_url).scheme, "")
        self._hosts = frozenset(host.lower() for host in hosts)
        self._trusted = tuple(trusted)
        self._base_urls: Recent[tuple[bytes, str], str] = Recent(1024)
        self._is_trusted: Recent[str, bool] = Recent(1024)
        self._plain: Recent[tuple[str, bytes, str], Origin] = Recent(4096)

    def of(self, scope: Any, headers: Headers, *, any_host: bool = False) -> Origin:
        """Raises BadRequest for a Host that is missing, repeated, malformed or not ours; not with `any_host`."""
        client = scope.get("client")
        address = client[0] if client else ""
        scheme = scope.get("scheme") or "http"
        host = b""
        via_proxy = bool(self._trusted) and self.trusts(address)
        hosts = 0
        forwarded_host = b""
        hops: list[bytes] = []
        for name, value in headers:
            if name == b"host":
                hosts += 1
                host = value
            elif via_proxy and name == b"x-forwarded-for":
                hops.append(value)
            elif via_proxy and name == b"x-forwarded-proto":
                given = value.decode("latin-1").strip().lower()
                if given in ("http", "https"):
                    scheme = given
            elif via_proxy and name == b"x-forwarded-host":
                forwarded_host = value.rpartition(b",")[2].strip()
        if via_proxy and hops:
            address = self._client_of(address, b",".join(hops))
        if forwarded_host:
            host, hosts = forwarded_host, 1
        if any_host:
            return Origin(address, self._public_url or f"{scheme}://{_server_of(scope)}", via_proxy)
        if hosts == 0 and scope.get("http_version") == "1.0":
            return Origin(address, self._public_url or f"{scheme}://{_server_of(scope)}", via_proxy)
        if hosts != 1:
            raise BadRequest("the request must have exactly one Host header")
        return Origin(address, self.base_url(host, scheme), via_proxy)

    def plain(self, scope: Any, host: bytes, headers: Headers) -> Origin | None:
        """The same for a request with this one Host, remembered where no forwarded headers count; None: ask `of`."""
        if self._trusted:
            try:
                return self.of(scope, headers)
            except BadRequest:
                return None
        client = scope["client"]
        key = (client[0] if client else "", host, scope["scheme"])
        known = self._plain.get(key)
        if known is None:
            try:
                known = Origin(key[0], self.base_url(host, key[2]))
            except BadRequest:
                return None
            self._plain.put(key, known)
        return known

    def base_url(self, host: bytes, scheme: str) -> str:
        """Raises BadRequest for a Host that is malformed or not ours."""
        known = self._base_urls.get((host, scheme))
        if known is None:
            known = self._judge(host, scheme)
            self._base_urls.put((host, scheme), known)
        return known

    def _judge(self, host: bytes, scheme: str) -> str:
        text = host.decode("latin-1")
        match = _HOST.match(text) if len(text) <= LONGEST_HOST else None
        if match is None or (match["port"] is not None and not 0 < int(match["port"]) < 65536):
            raise BadRequest("the Host header is malformed")
        text = text.lower()
        if self._public_url:
            if text not in (self._public_host, self._public_host + self._default_port):
                raise BadRequest("this server is not known under that host name")
            return self._public_url
        if self._hosts and text not in self._hosts and match["name"].lower() not in self._hosts:
            raise BadRequest("this server is not known under that host name")
        return f"{scheme}://{text}"

    def trusts(self, address: str) -> bool:
        known = self._is_trusted.get(address)
        if known is None:
            try:
                parsed = ipaddress.ip_address(address)
            except ValueError:
                known = False
            else:
                if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
                    parsed = parsed.ipv4_mapped
                known = any(parsed in network for network in self._trusted)
            self._is_trusted.put(address, known)
        return known

    def _client_of(self, peer: str, hops: bytes) -> str:
        """The right-most hop that is not a trusted proxy; the peer where the list holds nothing sane."""
        found = peer
        for hop in reversed(hops.split(b",")):
            text = hop.decode("latin-1").strip().strip('"')
            if text.startswith("["):
                text = text[1:].partition("]")[0]
            elif text.count(":") == 1:
                text = text.partition(":")[0]
            try:
                found = str(ipaddress.ip_address(text))
            except ValueError:
                return found
            if not self.trusts(found):
                return found
        return found


def _server_of(scope: Any) -> str:
    server = scope.get("server")
    if not server:
        return "localhost"
    name, port = server[0], server[1]
    shown = f"[{name}]" if ":" in str(name) else str(name)
    return f"{shown}:{port}" if port else shown


def configured() -> Origins:
    from django.conf import settings

    configuration = settings.CONFIGURATION
    return Origins(
        public_url=configuration["REPOMAN_URL"],
        hosts=configuration["REPOMAN_HOSTS"],
        trusted=configuration["REPOMAN_TRUSTED_PROXIES"],
    )
