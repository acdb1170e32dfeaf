"""From a request target to the handler, repository and route that it names. Pure, so a path's result can be kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from repoman.core.actor import Action
from repoman.core.errors import MethodNotAllowed, NameInvalid
from repoman.core.format import FormatHandler, handlers
from repoman.core.names import RESERVED, decode_target
from repoman.core.wire import Route, SiteRoute
from repoman.ops.logs import shown_path

from .small import Recent

_PART = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*\Z")
MIRRORED = "v2"  # docker's daemon and containerd put this after the path of a mirror's address
LONGEST_TARGET = 8192
HOT_TARGETS = 16_384  # paths the short cut knows, for each of GET and HEAD
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
RESERVED_ROOTS = frozenset({"_", "-", ".well-known"})


@dataclass(slots=True)
class Target:
    """What a path means for one method. `route` is None where the repository has no such path.

    `scope` is what a registry token must have been issued for, `scope_name` the package it names. `memo` belongs to the
    short cut: the last row that it answered with and the headers made from it.
    """

    handler: FormatHandler
    key: str
    path: str
    mount: str
    method: str
    route: Route | None
    captured: Mapping[str, str]
    route_class: str
    scope: str = ""
    scope_name: str = ""
    lookup_kind: str = ""  # of the short cut's query: "tag", "version", "file", or "repository" for what is rendered
    lookup_names: tuple[str, ...] = ()
    memo: Any = None
    logged: str = ""  # the path as a log line shows it
    is_bare: bool = False  # the repository itself, without the slash that relative links on its page need


@dataclass(slots=True)
class SiteTarget:
    """A route outside any repository."""

    handler: FormatHandler
    path: str
    method: str
    route: SiteRoute
    route_class: str
    scope: str = ""


@dataclass(slots=True)
class Nothing:
    """A path below a format's prefix that names no repository or route: `handler` gives the error its shape."""

    handler: FormatHandler
    key: str
    mount: str
    scope: str = ""
    route_class: str = "none"


@dataclass(slots=True)
class Table:
    """All handlers' prefixes and host-root routes, and recently parsed paths; `hot` those the short cut may answer."""

    by_prefix: dict[str, FormatHandler] = field(default_factory=dict)
    site: dict[str, list[tuple[FormatHandler, SiteRoute]]] = field(default_factory=dict)
    recent: Recent[tuple[str, bytes], Target | SiteTarget | Nothing] = field(default_factory=lambda: Recent(16_384))
    hot: dict[str, dict[bytes, Target]] = field(default_factory=lambda: {"GET": {}, "HEAD": {}})

    @classmethod
    def of(cls, known: Mapping[str, FormatHandler]) -> Table:
        table = cls()
        for handler in known.values():
            table.by_prefix[handler.prefix] = handler
            for route in handler.site_routes:
                table.site.setdefault(route.path, []).append((handler, route))
        return table

    def handler_of(self, raw_path: bytes) -> FormatHandler | None:
        """Whose path this is, judged by its first segment (or, for a mirror's mount, its third)."""
        parts = raw_path.split(b"/", 4)
        if len(parts) < 2:
            return None
        handler = self.by_prefix.get(parts[1].decode("latin-1"))
        if handler is None and len(parts) > 3 and parts[3] == MIRRORED.encode():
            if _may_be_namespace(parts[1].decode("latin-1")):
                handler = self.by_prefix.get(MIRRORED)
        return handler

    def owns(self, raw_path: bytes) -> bool:
        """Whether the path belongs to a format's handler."""
        return self.handler_of(raw_path) is not None or raw_path.decode("latin-1") in self.site

    def find(self, method: str, raw_path: bytes) -> Target | SiteTarget | Nothing:
        """Raises NameInvalid (what could name two things), MethodNotAllowed (with `allow`)."""
        key = (method, raw_path)
        found = self.recent.get(key)
        if found is None:
            found = self._parse(method, raw_path)
            if len(raw_path) <= 512:
                self.recent.put(key, found)
                if isinstance(found, Target) and found.lookup_kind:
                    hot = self.hot[method]
                    if len(hot) >= HOT_TARGETS:
                        hot.clear()
                    hot[raw_path] = found
        return found

    def _parse(self, method: str, raw_path: bytes) -> Target | SiteTarget | Nothing:
        if len(raw_path) > LONGEST_TARGET:
            raise NameInvalid("the path is too long")
        ours = self.handler_of(raw_path)
        path = decode_target(raw_path if ours is None else ours.plain_target(raw_path))
        site = self.site.get(path)
        if site is not None:
            return _site_target(site, method, path)
        parts = path.split("/", 4)
        handler = self.by_prefix.get(parts[1]) if len(parts) > 1 else None
        if handler is not None:
            prefix, namespace, name = parts[1], *(parts[2:4] + ["", ""])[:2]
            mount = f"/{prefix}/{namespace}/{name}"
        elif len(parts) > 3 and parts[3] == MIRRORED and _may_be_namespace(parts[1]) and MIRRORED in self.by_prefix:
            handler = self.by_prefix[MIRRORED]
            namespace, name = parts[1:3]
            mount = f"/{namespace}/{name}/{MIRRORED}"
            ping = self.site.get(f"/{MIRRORED}/")
            if len(parts) == 4 or not parts[4]:
                if ping is not None:
                    return _site_target(ping, method, f"/{MIRRORED}/")
        else:
            raise NameInvalid("there is nothing at this address")
        if method not in METHODS:
            _match(handler, method, parts[4] if len(parts) > 4 else "")
            raise MethodNotAllowed(f"the method {method[:20]} is not supported", allow=list(METHODS))
        key = f"{namespace}/{name}"
        if not (_is_part(namespace) and _is_part(name)):
            return Nothing(handler, key[:200], mount)
        rest = parts[4] if len(parts) > 4 else ""
        scope = handler.scope_of(key, method, rest)
        route, captured = _match(handler, method, rest)
        target = Target(
            handler=handler,
            key=key,
            path=rest,
            mount=mount,
            method=method,
            route=route,
            captured=captured,
            route_class=f"{handler.name}:{route.name or 'route'}" if route else f"{handler.name}:none",
            scope=scope,
            scope_name=scope.partition(":")[2].rpartition(":")[0],
        )
        target.logged = shown_path(raw_path)
        target.is_bare = len(parts) == 4 and route is not None and method in ("GET", "HEAD")
        if route is not None and method in ("GET", "HEAD") and route.action is Action.READ and not target.is_bare:
            lookup = route.hot(**captured) if route.hot is not None else None
            if lookup is not None:
                target.lookup_kind = lookup.kind
                target.lookup_names = (lookup.package, lookup.name, key, handler.name)
            elif route.by_revision:
                target.lookup_kind = "repository"
                target.lookup_names = (key, handler.name)
        return target


def _is_part(text: str) -> bool:
    return 2 <= len(text) <= 63 and _PART.match(text) is not None


def _may_be_namespace(text: str) -> bool:
    """Not the first word of another address, such as `api`."""
    return _is_part(text) and text not in RESERVED


def _site_target(routes: list[tuple[FormatHandler, SiteRoute]], method: str, path: str) -> SiteTarget:
    allowed: list[str] = []
    for handler, route in routes:
        if method in route.methods or (method == "HEAD" and "GET" in route.methods):
            scope = handler.scope_of("", method, path)
            return SiteTarget(handler, path, method, route, f"{handler.name}:{route.name or 'site'}", scope)
        allowed += route.methods
    raise MethodNotAllowed(f"the method {method[:20]} is not supported here", allow=sorted(set(allowed)))


def _match(handler: FormatHandler, method: str, path: str) -> tuple[Route | None, Mapping[str, str]]:
    """The first route for the path and method; HEAD follows GET where nobody says otherwise.

    Raises MethodNotAllowed where the path matches but the method does not; (None, {}) where nothing matches.
    """
    fallback: tuple[Route, Mapping[str, str]] | None = None
    allowed: set[str] = set()
    for route in handler.routes:
        match = route.regex.match(path)
        if match is None:
            continue
        if method in route.methods:
            return route, match.groupdict()
        if method == "HEAD" and "GET" in route.methods and fallback is None:
            fallback = route, match.groupdict()
        allowed.update(route.methods)
    if fallback is not None:
        return fallback
    if allowed:
        if "GET" in allowed:
            allowed.add("HEAD")
        raise MethodNotAllowed(f"the method {method[:20]} is not supported here", allow=sorted(allowed))
    return None, {}


_table: Table | None = None


def table() -> Table:
    global _table
    if _table is None:
        _table = Table.of(handlers())
    return _table
