"""HTTP as remotes speak it: guarded connections, redirects by hand, credentials that stay home, few retries.

Built on httpcore's connection pool rather than on httpx's client: a client keeps cookies, decodes bodies without a
limit and follows redirects by rules of its own, all of which would have to be switched off; and only the pool takes the
guard as its network. One Client serves all remotes of a loop; connections are shared by origin, credentials never.

Where a request is safe to repeat (GET and HEAD only are ever sent) it is repeated at most twice, with jitter, before the
first byte of a body, on broken connections and 502, 503 and 504; not on time-outs (the caller's time is up), 429 or 500.

Proxies from the environment are honoured. A proxy resolves names itself, out of the guard's sight: there literal
addresses and names are judged (`AddressPolicy.permits_unresolved`), and where names lead is the proxy's business.
"""

from __future__ import annotations

import asyncio
import email.utils
import importlib.metadata
import logging
import random
import ssl
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import httpcore
import httpx

from repoman.core import clock
from repoman.core.errors import RepomanError, Unavailable, UpstreamFailed, UpstreamTimeout
from repoman.core.fetch import Plan

from .auth import (
    Challenge,
    RemoteSettings,
    TokenRefused,
    Tokens,
    basic,
    may_see_credentials,
    origin_of,
    parse_challenges,
)
from .guard import AddressPolicy, AddressRefused, GuardedBackend, Resolver, tls_context

MAX_REDIRECTS = 5
RETRIES = 2
SHORT_RETRY_AFTER = 2  # seconds; a longer wait is the breaker's business, not this request's
LONGEST_RETRY_AFTER = 300
TOKEN_BYTES = 256 * 1024
DRAIN_BYTES = 64 * 1024  # read so much of a body nobody wants, for the sake of the connection
DRAIN_SECONDS = 1.0
IDLE_CONNECTIONS = 64
IDLE_SECONDS = 30.0
REDIRECTS = frozenset({301, 302, 303, 307, 308})
RETRIED = frozenset({502, 503, 504})
_NOT_KEPT = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "set-cookie",
        "set-cookie2",
        "www-authenticate",
    }
)
logger = logging.getLogger("repoman.transfer")


@lru_cache(maxsize=1)
def user_agent() -> str:
    try:
        version = importlib.metadata.version("repoman")
    except importlib.metadata.PackageNotFoundError:
        version = "0"
    return f"Repoman/{version} (+repository manager; pull-through cache)"


def shown(url: httpx.URL | str) -> str:
    """What messages may tell of an address: the host and a port that is not the scheme's own."""
    parsed = httpx.URL(url) if isinstance(url, str) else url
    return f"{parsed.host}:{parsed.port}" if parsed.port else parsed.host


def retry_after_of(headers: Mapping[str, str]) -> int | None:
    """Seconds, 0 to LONGEST_RETRY_AFTER, of a Retry-After in seconds or as a date; None where there is none."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return min(int(text[:9]), LONGEST_RETRY_AFTER)
    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(0, round(moment - clock.seconds())), LONGEST_RETRY_AFTER)


@dataclass(slots=True)
class Answer:
    """An upstream's answer whose body has not been read. `headers`: lower-case names without hop-by-hop ones and cookies;
    `url` after redirects."""

    status: int
    headers: dict[str, str]
    url: httpx.URL
    response: httpcore.Response
    is_measured: bool = True
    """The end of the body is told by a length or a chunked coding, and not only by that of the connection."""

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, transfer codings removed, content codings not. Raises UpstreamFailed, UpstreamTimeout."""
        try:
            async for chunk in self.response.aiter_stream():
                yield chunk
        except Exception as error:
            raise _failure(error, self.url, "while sending") from error

    @property
    def length(self) -> int | None:
        """The declared Content-Length; h11 has refused what is no number, or several."""
        text = self.headers.get("content-length", "")
        return int(text) if text.isascii() and text.isdigit() else None


class Client:
    """One per event loop. `resolver` and `tls` are for tests; `environment` replaces what is read of proxies."""

    def __init__(
        self,
        policy: AddressPolicy | None = None,
        *,
        resolver: Resolver | None = None,
        tls: ssl.SSLContext | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.policy = policy if policy is not None else configured_policy()
        self.tokens = Tokens()
        self._tls = tls
        self._backend = GuardedBackend(self.policy, resolver=resolver)
        self._proxies = dict(environment) if environment is not None else urllib.request.getproxies_environment()
        self._pools: dict[str, httpcore.AsyncConnectionPool] = {}

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            await pool.aclose()
        self._pools.clear()

    @asynccontextmanager
    async def ask(self, plan: Plan, settings: RemoteSettings) -> AsyncIterator[Answer]:
        """The final answer to a plan, whatever its status, redirects followed; its body is closed at the end.

        Raises UpstreamFailed and UpstreamTimeout (`detail["reason"]`: address, connect, tls, protocol, redirect, token,
        timeout), Unavailable where a token server is slowing us down.
        """
        answer = await self._follow(plan, settings)
        try:
            yield answer
        finally:
            await _close(answer.response)

    # --- redirects

    async def _follow(self, plan: Plan, settings: RemoteSettings) -> Answer:
        url = _parsed(plan.url, plan.url)
        own = origin_of(_parsed(settings.url, settings.url))
        if own[0] == "https" and url.scheme == "http" and not plan.digests:
            raise UpstreamFailed(
                f"the address on {shown(url)} is not encrypted although the remote's own is, and nothing tells what its "
                f"content must be; it was not asked",
                reason="redirect",
            )
        if plan.method not in ("GET", "HEAD"):
            raise ValueError(f"upstreams are only read from, not asked to {plan.method}")
        method, visited = plan.method, {(plan.method, str(url))}
        headers = _headers_of(plan)
        first = url
        for hop in range(MAX_REDIRECTS + 1):
            answer = await self._signed_in(method, url, headers, settings, is_first=hop == 0)
            location = answer.headers.get("location", "")
            if answer.status not in REDIRECTS or not location:
                if method == "HEAD" and answer.status in (405, 501):  # T8: some refuse HEAD; the body is not read
                    await _close(answer.response)
                    method = "GET"
                    answer = await self._signed_in(method, url, headers, settings, is_first=hop == 0)
                return answer
            await _drain(answer.response)
            target = _parsed(location, str(url), base=url)
            if url.scheme == "https" and target.scheme != "https":
                raise UpstreamFailed(
                    f"{shown(url)} redirects from https to {target.scheme} on {shown(target)}; that is refused",
                    reason="redirect",
                )
            if (method, str(target)) in visited:
                raise UpstreamFailed(f"{shown(first)} redirects in a circle", reason="redirect")
            visited.add((method, str(target)))
            url = target
        raise UpstreamFailed(f"{shown(first)} redirects more than {MAX_REDIRECTS} times", reason="redirect")

    # --- credentials

    async def _signed_in(
        self, method: str, url: httpx.URL, headers: list[tuple[str, str]], settings: RemoteSettings, *, is_first: bool
    ) -> Answer:
        """Ask with the credentials that `url` may see. Where a redirect led elsewhere they wait until they are asked for:
        addresses with a signature in their query refuse a second kind of credentials."""
        may_see = settings.has_credentials and may_see_credentials(settings, url)
        is_own = origin_of(url) == origin_of(httpx.URL(settings.url))
        authorization = self.tokens.known(settings, url)
        if not authorization and may_see and (is_first or is_own):
            authorization = basic(settings)
        answer = await self._repeated(method, url, headers, settings, authorization)
        if answer.status != 401:
            return answer
        challenges = parse_challenges(
            [value.decode("latin-1") for name, value in answer.response.headers if name.lower() == b"www-authenticate"]
        )
        better = await self._better(challenges, url, settings, authorization, may_see=may_see)
        if not better:
            return answer
        await _drain(answer.response)
        return await self._repeated(method, url, headers, settings, better)

    async def _better(
        self, challenges: list[Challenge], url: httpx.URL, settings: RemoteSettings, sent: str, *, may_see: bool
    ) -> str:
        """Another Authorization value after a 401; empty where there is none to try."""
        for challenge in challenges:
            if challenge.scheme != "bearer" or not challenge.get("realm"):
                continue
            realm = _parsed(challenge.get("realm"), str(url), base=url)
            if url.scheme == "https" and realm.scheme != "https":
                raise UpstreamFailed(
                    f"{shown(url)} names a token server without https, {shown(realm)}; it was not asked", reason="token"
                )
            self.tokens.forget(settings, url, challenge, sent)

            async def ask(address: httpx.URL, authorization: str) -> tuple[int, bytes]:
                return await self._ask_realm(address, authorization, settings)

            try:
                return await self.tokens.answer(settings, url, challenge, realm, ask)
            except TokenRefused as refused:
                if refused.status in (401, 403):
                    return ""  # as the upstream's own refusal, which the caller has
                if refused.status == 0:
                    raise UpstreamFailed(
                        f"{shown(url)} sends us to the token server {refused.host}, which may not see the remote's "
                        f"credentials; add its address to token_realms if it should",
                        reason="token",
                    ) from None
                raise UpstreamFailed(
                    f"the token server {refused.host} of {shown(url)} gave no token (status {refused.status})",
                    reason="token",
                    upstream_status=refused.status,
                ) from None
        if may_see and not sent and any(challenge.scheme == "basic" for challenge in challenges):
            return basic(settings)
        return ""

    async def _ask_realm(self, url: httpx.URL, authorization: str, settings: RemoteSettings) -> tuple[int, bytes]:
        headers = [("Accept", "application/json"), ("Accept-Encoding", "identity")]
        visited = {str(url)}
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._repeated("GET", url, headers, settings, authorization)
            try:
                if answer.status in REDIRECTS and answer.headers.get("location"):
                    target = _parsed(answer.headers["location"], str(url), base=url)
                    if str(target) in visited or (url.scheme == "https" and target.scheme != "https"):
                        break
                    visited.add(str(target))
                    if not may_see_credentials(settings, target):
                        authorization = ""
                    url = target
                    continue
                if answer.status == 429:
                    raise throttled(url, answer.headers)
                body = bytearray()
                async with asyncio.timeout(settings.read_timeout):
                    async for chunk in answer.chunks():
                        body += chunk
                        if len(body) > TOKEN_BYTES:
                            raise UpstreamFailed(f"the token server {shown(url)} sends too much", reason="token")
                return answer.status, bytes(body)
            except TimeoutError:
                raise _timed_out(url, settings.read_timeout) from None
            finally:
                await _close(answer.response)
        raise UpstreamFailed(f"the token server {shown(url)} redirects where it must not", reason="token")

    # --- one request

    async def _repeated(
        self, method: str, url: httpx.URL, headers: list[tuple[str, str]], settings: RemoteSettings, authorization: str
    ) -> Answer:
        """One request, repeated where that is safe and may help."""
        for attempt in range(RETRIES + 1):
            is_last = attempt == RETRIES
            try:
                answer = await self._once(method, url, headers, settings, authorization)
            except UpstreamFailed as error:
                if is_last or error.detail.get("reason") not in ("connect", "protocol"):
                    raise
                wait = 0.0
            else:
                if is_last or answer.status not in RETRIED:
                    return answer
                after = retry_after_of(answer.headers)
                if after is not None and after > SHORT_RETRY_AFTER:
                    return answer
                await _drain(answer.response)
                wait = float(after or 0)
            await asyncio.sleep(wait + random.uniform(0.05, 0.2) * 2**attempt)
        raise AssertionError("not reached")

    async def _once(
        self, method: str, url: httpx.URL, headers: list[tuple[str, str]], settings: RemoteSettings, authorization: str
    ) -> Answer:
        lines = [("Host", url.netloc.decode("ascii")), ("User-Agent", user_agent()), *headers]
        if authorization:
            lines.append(("Authorization", authorization))
        try:
            pool = self._pool_for(url, settings)
            request = httpcore.Request(
                method,
                httpcore.URL(
                    scheme=url.raw_scheme,
                    host=url.raw_host,
                    port=url.port,
                    target=url.raw_path,
                ),
                headers=[(name.encode("ascii"), value.encode("latin-1")) for name, value in lines],
                extensions={
                    "timeout": {
                        "connect": settings.connect_timeout,
                        "read": settings.read_timeout,
                        "write": settings.read_timeout,
                    }
                },
            )
            # The pool's own time-outs count between two bytes; headers that drip must end as well.
            async with asyncio.timeout(settings.connect_timeout + settings.read_timeout):
                response = await pool.handle_async_request(request)
        except RepomanError:
            raise
        except Exception as error:
            raise _failure(error, url, "before answering", settings) from error
        found: dict[str, str] = {}
        for raw_name, raw_value in response.headers:
            name = raw_name.decode("latin-1").lower()
            if name not in _NOT_KEPT:
                value = _text(raw_value).strip() if name == "location" else raw_value.decode("latin-1").strip()
                found[name] = f"{found[name]}, {value}" if name in found and name != "content-length" else value
        names = {name.lower() for name, _ in response.headers}
        return Answer(response.status, found, url, response, bool(names & {b"content-length", b"transfer-encoding"}))

    def _pool_for(self, url: httpx.URL, settings: RemoteSettings) -> httpcore.AsyncConnectionPool:
        proxy = self._proxy_for(url) if settings.proxy is None else settings.proxy
        if proxy and not self.policy.permits_unresolved(url.host):
            raise AddressRefused(url.host)
        pool = self._pools.get(proxy)
        if pool is None:
            pool = self._pools[proxy] = self._new_pool(proxy)
        return pool

    def _proxy_for(self, url: httpx.URL) -> str:
        found = self._proxies.get(url.scheme) or self._proxies.get("all") or ""
        bypass: Any = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]
        if not found or bypass(shown(url), self._proxies):
            return ""
        return found if "://" in found else f"http://{found}"

    def _new_pool(self, proxy: str) -> httpcore.AsyncConnectionPool:
        if self._tls is None:
            self._tls = tls_context()
        options: dict[str, Any] = {
            "ssl_context": self._tls,
            "max_connections": None,  # bounded by the flights of each remote
            "max_keepalive_connections": IDLE_CONNECTIONS,
            "keepalive_expiry": IDLE_SECONDS,
        }
        if not proxy:
            return httpcore.AsyncConnectionPool(network_backend=self._backend, **options)
        parsed = httpx.URL(proxy)
        if parsed.scheme not in ("http", "https"):
            raise UpstreamFailed("the configured proxy is neither http nor https", reason="connect")
        credentials = (parsed.username.encode(), parsed.password.encode()) if parsed.username else None
        return httpcore.AsyncHTTPProxy(
            proxy_url=httpcore.URL(scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=b"/"),
            proxy_auth=credentials,
            network_backend=httpcore.AnyIOBackend(),  # the operator's own address, not an upstream's
            **options,
        )


def configured_policy() -> AddressPolicy:
    """As REPOMAN_UPSTREAM_ALLOW says."""
    from django.conf import settings

    return AddressPolicy(settings.CONFIGURATION["REPOMAN_UPSTREAM_ALLOW"])


def _headers_of(plan: Plan) -> list[tuple[str, str]]:
    """Ours and the plan's, never a client's. Content is asked for as it is, so that its digest is that of its bytes."""
    lines = [
        ("Accept", plan.accept or "*/*"),
        ("Accept-Encoding", "gzip, deflate" if plan.is_document else "identity"),
    ]
    if plan.etag:
        lines.append(("If-None-Match", plan.etag))
    if plan.last_modified:
        lines.append(("If-Modified-Since", plan.last_modified))
    return [(name, value) for name, value in lines if _is_plain(value)]


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _is_plain(value: str) -> bool:
    return all(31 < ord(character) < 256 and ord(character) != 127 for character in value)


def _parsed(text: str, where: str, base: httpx.URL | None = None) -> httpx.URL:
    """An address without user, password and fragment. Raises UpstreamFailed for what is none, or not http or https."""
    try:
        url = httpx.URL(text) if base is None else base.join(text)
        url = url.copy_with(username=None, password=None, fragment=None)
        host = url.host
    except (httpx.InvalidURL, ValueError, TypeError, UnicodeError):
        raise UpstreamFailed(
            f"{_shown_safely(where)} leads to an address that is not well formed", reason="redirect"
        ) from None
    if url.scheme not in ("http", "https") or not host:
        raise UpstreamFailed(
            f"{_shown_safely(where)} leads to an address that is not http or https; such are not asked",
            reason="redirect",
        )
    return url


def _shown_safely(where: str) -> str:
    try:
        return shown(where) or "the upstream"
    except (httpx.InvalidURL, ValueError):
        return "the upstream"


def throttled(url: httpx.URL, headers: Mapping[str, str]) -> Unavailable:
    """The error for a 429."""
    seconds = retry_after_of(headers)
    return Unavailable(
        f"{shown(url)} is slowing us down (status 429); try again later",
        retry_after_seconds=max(1, seconds) if seconds is not None else 30,
        reason="throttled",
        upstream_status=429,
    )


def _timed_out(url: httpx.URL, seconds: float) -> UpstreamTimeout:
    return UpstreamTimeout(f"{shown(url)} did not answer within {seconds:g} seconds", reason="timeout")


def _failure(error: Exception, url: httpx.URL, when: str, settings: RemoteSettings | None = None) -> RepomanError:
    """What a failed request means, in words for people. Nothing of the request but the host is told."""
    host = shown(url)
    if isinstance(error, RepomanError):
        return error
    if isinstance(error, AddressRefused):
        return UpstreamFailed(str(error), reason="address")
    if isinstance(error, httpcore.ConnectTimeout):
        limit = f" within {settings.connect_timeout:g} seconds" if settings else " in time"
        return UpstreamTimeout(f"no connection to {host}{limit}", reason="timeout")
    if isinstance(error, httpcore.TimeoutException | TimeoutError):
        limit = f" for {settings.read_timeout:g} seconds" if settings else " for too long"
        return UpstreamTimeout(f"{host} was silent{limit} {when}", reason="timeout")
    if isinstance(error, httpcore.ProxyError):
        return UpstreamFailed(f"the proxy on the way to {host} refuses ({str(error)[:80]})", reason="connect")
    if isinstance(error, httpcore.ConnectError):
        text = str(error)
        if "SSL" in text or "certificate" in text.lower():
            return UpstreamFailed(f"no trusted TLS connection to {host} ({_short(text)})", reason="tls")
        return UpstreamFailed(f"no connection to {host} ({_short(text)})", reason="connect")
    if isinstance(error, httpcore.NetworkError):
        return UpstreamFailed(f"the connection to {host} broke {when}", reason="connect")
    if isinstance(error, httpcore.ProtocolError | httpcore.UnsupportedProtocol):
        return UpstreamFailed(
            f"{host} broke off or does not speak HTTP properly {when} ({_short(str(error))})", reason="protocol"
        )
    if isinstance(error, ssl.SSLError):
        return UpstreamFailed(f"TLS with {host} failed {when}", reason="tls")
    if isinstance(error, OSError):
        return UpstreamFailed(f"the connection to {host} broke {when}", reason="connect")
    if isinstance(error, UnicodeError | ValueError):
        return UpstreamFailed(f"the address on {host} cannot be asked for", reason="protocol")
    logger.error("unexpected failure of a request to %s", host, exc_info=error)
    return UpstreamFailed(f"the request to {host} failed", reason="protocol")


def _short(text: str) -> str:
    return text.strip().split("\n", 1)[0][:120] or "refused"


async def _drain(response: httpcore.Response) -> None:
    """Read the rest of a small body, so that its connection can be used again, and close."""
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            left = DRAIN_BYTES
            async for chunk in response.aiter_stream():
                left -= len(chunk)
                if left < 0:
                    break
    except Exception:  # the connection is closed below, and the answer was not wanted
        logger.debug("a body that was not wanted could not be read", exc_info=True)
    finally:
        await _close(response)


async def _close(response: httpcore.Response) -> None:
    """Give the connection back, or end it where more came than belongs to the answer: the rest would be taken for the
    next one. (Bytes that come later still are the guard's business, `_Stream.get_extra_info`.)"""
    stream = getattr(getattr(response, "stream", None), "_stream", None)
    state = getattr(getattr(stream, "_connection", None), "_h11_state", None)
    try:
        if state is None or state.trailing_data[0]:
            await response.extensions["network_stream"].aclose()
        await response.aclose()
    except Exception:  # closing is all that was wanted
        logger.debug("a connection could not be closed properly", exc_info=True)
