"""Who may see a remote's credentials, and the token dance of registries.

Credentials belong to the origin (scheme, host, port) of the remote's own `url`. Beyond it they may be seen by origins
that the operator listed in `token_realms` and, over https, by hosts of the same registrable domain (public suffix list,
private suffixes included, so that two customers of one hosting domain are strangers).

A token goes only to the origin that asked for it. Tokens are kept per remote, credentials, origin, realm, service and
scope, in memory, until shortly before they end; requests for the same token at the same time are one.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import httpx
import orjson
import tldextract

from repoman.core.clock import monotonic

DEFAULT_TOKEN_SECONDS = 60  # what a token without `expires_in` is good for (distribution's token specification)
LONGEST_TOKEN_SECONDS = 3600
REMEMBERED = 4096
_PORTS = {"http": 80, "https": 443}
# Bundled list only: nothing is fetched, nothing is cached on disk.
_extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None, include_psl_private_domains=True)

Origin = tuple[str, str, int]
"""Scheme, host (lower case) and port."""


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """How one remote is asked. Times in seconds; `password` in clear (never shown by repr).

    `url`: the remote's own address; its origin is the one that credentials belong to. `token_realms`: addresses of
    further origins that may see them. `proxy`: the address of an HTTP proxy, "" for none, None for what the environment
    says (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY). `concurrency`: fetches of files at the same time, and as many
    of documents.
    """

    url: str
    username: str = ""
    password: str = field(default="", repr=False)
    connect_timeout: float = 10
    read_timeout: float = 60
    token_realms: tuple[str, ...] = ()
    proxy: str | None = None
    concurrency: int = 32

    @property
    def has_credentials(self) -> bool:
        return bool(self.username or self.password)


def origin_of(url: httpx.URL) -> Origin:
    scheme = url.scheme.lower()
    return scheme, url.host.lower().rstrip("."), url.port or _PORTS.get(scheme, 0)


@lru_cache(maxsize=1024)
def registrable_domain(host: str) -> str:
    """`example.co.uk` of `cdn.example.co.uk`; empty for addresses, single labels and public suffixes themselves."""
    return _extract(host).top_domain_under_public_suffix.lower()


@lru_cache(maxsize=256)
def _own_origins(url: str, token_realms: tuple[str, ...]) -> tuple[Origin, frozenset[Origin]]:
    own = origin_of(httpx.URL(url))
    listed = {own}
    for realm in token_realms:
        parsed = httpx.URL(realm if "://" in realm else f"https://{realm}")
        listed.add(origin_of(parsed))
    return own, frozenset(listed)


def may_see_credentials(settings: RemoteSettings, url: httpx.URL) -> bool:
    """Whether the server at `url` may be sent the remote's username and password."""
    own, listed = _own_origins(settings.url, settings.token_realms)
    asked = origin_of(url)
    if asked in listed:
        return True
    if asked[0] != "https":
        return False
    domain = registrable_domain(asked[1])
    return bool(domain) and domain == registrable_domain(own[1])


def basic(settings: RemoteSettings) -> str:
    return "Basic " + base64.b64encode(f"{settings.username}:{settings.password}".encode()).decode("ascii")


# --- challenges


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge of a WWW-Authenticate header. `scheme` and the names of parameters in lower case."""

    scheme: str
    parameters: tuple[tuple[str, str], ...] = ()

    def get(self, name: str) -> str:
        return next((value for key, value in self.parameters if key == name), "")


_SCHEME = re.compile(r"[\s,]*([A-Za-z][A-Za-z0-9!#$%&'*+.^_`|~-]*)(?=$|[\s,])")
_PARAMETER = re.compile(r"""[\s,]*([A-Za-z0-9!#$%&'*+.^_`|~-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"?|([^\s,"]*))""", re.DOTALL)
_TOKEN68 = re.compile(r"[\s,]*[A-Za-z0-9._~+/-]+=*(?=\s*(?:,|$))")


def parse_challenges(values: list[str]) -> list[Challenge]:
    """Of all WWW-Authenticate lines (RFC 9110 §11.6.1): several in a line, quoted commas, missing ends of quotes.

    What makes no sense is skipped; nothing is raised.
    """
    found: list[Challenge] = []
    for value in values[:16]:
        text, at = value[:8192], 0
        while at < len(text):
            scheme = _SCHEME.match(text, at)
            if scheme is None:
                following = text.find(",", at)
                if following < 0:
                    break
                at = following + 1
                continue
            at = scheme.end()
            parameters: dict[str, str] = {}
            while (match := _PARAMETER.match(text, at)) is not None:
                quoted = match[2]
                plain = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else match[3]
                parameters.setdefault(match[1].lower(), plain)
                at = match.end()
            if not parameters and (token := _TOKEN68.match(text, at)) is not None and text[at : at + 1] == " ":
                at = token.end()
            found.append(Challenge(scheme[1].lower(), tuple(parameters.items())))
    return found


# --- tokens


class TokenRefused(Exception):
    """The realm gave no token: `status` is its answer (0: it may not see the credentials that it would need)."""

    def __init__(self, host: str, status: int) -> None:
        super().__init__(f"the token server {host} answered {status}")
        self.host = host
        self.status = status


@dataclass(slots=True)
class _Token:
    value: str
    until: float


_Key = tuple[str, ...]
AskRealm = Callable[[httpx.URL, str], Awaitable[tuple[int, bytes]]]
"""(the realm's address with its query, an Authorization value or "") → its status and body."""


class Tokens:
    """The tokens of one process's client. Used from one loop."""

    def __init__(self) -> None:
        self._tokens: OrderedDict[_Key, _Token] = OrderedDict()
        self._asking: dict[_Key, asyncio.Task[_Token]] = {}
        self._challenges: OrderedDict[_Key, Challenge] = OrderedDict()

    def known(self, settings: RemoteSettings, url: httpx.URL) -> str:
        """The Authorization value that was good for the neighbours of `url` and still is; else empty."""
        challenge = self._challenges.get(_neighbourhood(settings, url))
        if challenge is None:
            return ""
        token = self._tokens.get(_key(settings, url, challenge))
        return f"Bearer {token.value}" if token is not None and token.until > monotonic() else ""

    def forget(self, settings: RemoteSettings, url: httpx.URL, challenge: Challenge, authorization: str) -> None:
        """The server refused this token."""
        for asked in (challenge, self._challenges.get(_neighbourhood(settings, url))):
            if asked is not None:
                key = _key(settings, url, asked)
                token = self._tokens.get(key)
                if token is not None and authorization == f"Bearer {token.value}":
                    del self._tokens[key]

    async def answer(
        self, settings: RemoteSettings, url: httpx.URL, challenge: Challenge, realm: httpx.URL, ask: AskRealm
    ) -> str:
        """The Authorization value for `url` that `challenge` asks for. Raises TokenRefused, and what `ask` raises."""
        key = _key(settings, url, challenge)
        token = self._tokens.get(key)
        if token is None or token.until <= monotonic():
            task = self._asking.get(key)
            if task is None:
                task = self._asking[key] = asyncio.create_task(self._ask(key, settings, challenge, realm, ask))
                task.add_done_callback(lambda done: self._asked(key, done))
            token = await asyncio.shield(task)  # whoever asked first may leave
        _remember(self._challenges, _neighbourhood(settings, url), challenge)
        return f"Bearer {token.value}"

    def _asked(self, key: _Key, task: asyncio.Task[_Token]) -> None:
        self._asking.pop(key, None)
        if not task.cancelled():
            task.exception()  # every waiter has it; seen here in case all of them left

    async def _ask(
        self, key: _Key, settings: RemoteSettings, challenge: Challenge, realm: httpx.URL, ask: AskRealm
    ) -> _Token:
        query = [(name, value) for name, value in realm.params.multi_items() if name not in ("service", "scope")]
        if challenge.get("service"):
            query.append(("service", challenge.get("service")))
        query += [("scope", scope) for scope in challenge.get("scope").split()]
        may_sign_in = settings.has_credentials and may_see_credentials(settings, realm)
        status, body = await ask(realm.copy_with(params=query), basic(settings) if may_sign_in else "")
        if status != 200:
            hidden = settings.has_credentials and not may_sign_in and status in (401, 403)
            raise TokenRefused(realm.host, 0 if hidden else status)
        try:
            answer = orjson.loads(body)
            value = str(answer.get("token") or answer.get("access_token") or "")
            seconds = float(answer.get("expires_in") or DEFAULT_TOKEN_SECONDS)
        except (ValueError, TypeError, AttributeError):
            value, seconds = "", 0.0
        if not value or not value.isascii() or not value.isprintable() or " " in value or len(value) > 65536:
            raise TokenRefused(realm.host, status)
        margin = min(30.0, max(1.0, seconds / 6))
        token = _Token(value, monotonic() + min(seconds, LONGEST_TOKEN_SECONDS) - margin)
        _remember(self._tokens, key, token)
        return token


def _key(settings: RemoteSettings, url: httpx.URL, challenge: Challenge) -> _Key:
    credentials = (settings.url, settings.username, settings.password)
    wanted = (challenge.get("realm"), challenge.get("service"), challenge.get("scope"))
    return (*credentials, *(str(part) for part in origin_of(url)), *wanted)


def _neighbourhood(settings: RemoteSettings, url: httpx.URL) -> _Key:
    """Addresses that need the same scope: in registries those of one name (`<name>/blobs/<digest>`, `<name>/tags/list`)."""
    folder = url.path.rsplit("/", 2)[0]
    return (settings.url, settings.username, settings.password, *(str(part) for part in origin_of(url)), folder)


def _remember(kept: OrderedDict[_Key, Any], key: _Key, value: Any) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > REMEMBERED:
        kept.popitem(last=False)
