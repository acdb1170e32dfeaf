"""The life of a request to a format, in order, on one screen: `Edge.serve`.

    target → handler and repository key → route → [short cut] → decide: who, which repository, may they, what body
    → body, streamed as the route's plan says → decide: the view → the answer

Decisions are synchronous and run in a pool; nothing here waits for a client's network with a thread in hand. Whatever
goes wrong becomes an answer in one place (`Edge._refuse`), in the format's own shape and without anything of the inside.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Protocol

from django.db import DatabaseError, InterfaceError, OperationalError

from repoman.access import authenticate, epoch, permissions
from repoman.catalog import selectors
from repoman.catalog.models import Repository
from repoman.core import errors
from repoman.core.actor import Action, Actor
from repoman.core.clock import monotonic
from repoman.core.errors import (
    AuthenticationRequired,
    BadRequest,
    CredentialsInvalid,
    RepomanError,
    Unavailable,
    UpstreamFailed,
)
from repoman.core.fetch import NeedFetch, Outcome
from repoman.core.format import FormatHandler
from repoman.core.records import BlobRef, Rendered
from repoman.core.wire import (
    Body,
    BodyPlan,
    Document,
    DocumentBody,
    Head,
    Headers,
    PartsBody,
    Query,
    Request,
    Response,
    SessionBody,
    StagedBody,
)
from repoman.events import record
from repoman.ops.logs import logger
from repoman.policy import quota
from repoman.services.handle import RepositoryHandle, SiteHandle, removal_target, write_target
from repoman.transfer.flight import Flight

from . import body, hot
from .afterwards import Afterwards
from .exchange import ANSWER, ClientGone, Exchange, request_id_of
from .fetching import Fetches
from .origin import Origin, Origins
from .pools import pools
from .serve import CONDITIONAL, Server, encode
from .target import Nothing, SiteTarget, Table, Target

# What the short cut looks at; "other" is for the long way.
_NOTICED: dict[bytes, str] = {
    b"host": "host",
    b"authorization": "authorization",
    b"x-request-id": "id",
    b"content-length": "other",
    b"transfer-encoding": "other",
    **dict.fromkeys(CONDITIONAL, "conditional"),
}


class Surroundings(Protocol):
    """What the short cut needs of the application around it."""

    origins: Origins
    afterwards: Afterwards
    loop: Any

    def note(self, exchange: Exchange) -> None: ...


# What the audit log wants to know of a known caller.
_REFUSALS = (errors.Forbidden, errors.ScopeInsufficient, errors.RepositoryNotFound)


SIGN_INS = 4  # for one request, while rights change
FETCH_ROUNDS = 250  # pages of a listing, its file, and the members of a virtual repository one after the other


class _StaleCredentials(Exception):
    """What was remembered of these credentials was made under another epoch."""


@dataclass(slots=True)
class Decision:
    """What the first visit to the pool found out: an answer, or how the body is to be taken and by whom."""

    actor: Actor
    response: Response | None = None
    head: Head | None = None
    handle: RepositoryHandle | None = None
    plan: BodyPlan | None = None
    sink: Any = None
    epoch: int = 0
    needed: NeedFetch | None = None


def _close_decision(deciding: asyncio.Future[Decision]) -> None:
    if deciding.cancelled() or deciding.exception() is not None:
        return
    sink = deciding.result().sink
    if isinstance(sink, body.Opened):
        pools().storage.post(sink.sink.abandon, True)


class Edge:
    """Serves the paths of the formats. One per process, made before the fork and used from the loop's thread."""

    def __init__(self, *, table: Table, server: Server, lookup: Any, has_short_cut: bool = True) -> None:
        self.table = table
        self.server = server
        self.lookup = lookup
        self.credentials = hot.Credentials()
        self.fetches = Fetches()
        self.has_short_cut = has_short_cut
        self.documents = hot.Documents()
        self.short_cuts = 0  # requests answered by the short cut

    # --- the life of a request ---------------------------------------------------------------------------------------

    async def serve(self, exchange: Exchange) -> None:
        """Answer a request whose origin was judged. Raises only what ends the connection."""
        handler, mount, scope = self.table.handler_of(exchange.raw_path), "", ""
        target: Target | SiteTarget | Nothing | None = None
        known: hot.Known | None = None
        try:
            target = self.table.find(exchange.method, exchange.raw_path)
            exchange.route_class = target.route_class
            handler, scope = target.handler, target.scope
            mount = target.mount if not isinstance(target, SiteTarget) else ""
            if isinstance(target, Target) and target.is_bare:
                await exchange.respond(301, [(b"location", f"{mount}/".encode())], b"")
                return
            query = Query(exchange.scope.get("query_string", b""))
            authorization = authorization_of(exchange)
            known = await self._known_to(exchange, target, authorization)
            exchange.actor_name = known.actor.name if known is not None else "anonymous"
            version = self.lookup.version()
            for _ in range(SIGN_INS):
                try:
                    decision = await self._decided(exchange, target, query, known)
                    if decision.needed is not None:
                        decision = await self._fetched(exchange, target, query, known, decision.needed)
                    break
                except _StaleCredentials:  # somebody's rights changed since they were judged, perhaps these
                    assert authorization is not None
                    self.credentials.forget(authorization)
                    known = await self._known_to(exchange, target, authorization)
            else:
                raise Unavailable("rights are being changed all the time; try again", retry_after_seconds=1)
            response = decision.response
            if response is None:
                assert isinstance(target, Target)
                taken = await self._take_body(exchange, decision)
                response = await self._viewed(target, decision, taken)
            else:
                await exchange.drain()
            if decision.handle is not None:
                response = self.fetches.told(response, decision.handle)
            if isinstance(target, Target) and target.lookup_kind == "repository":
                self._keep_rendered(exchange, target, decision, response, version)
            if isinstance(response.content, BlobRef) and response.content.flight:
                await self._send_arriving(exchange, decision, response, response.content)
                return
            await self.server.send(exchange, response)
        except (ConnectionError, ClientGone):
            exchange.status = exchange.status or 499
        except Exception as error:
            if exchange.status:  # the answer had begun: unfinished, it is cut, and the client sees that
                raise
            if isinstance(error, _REFUSALS) and known is not None and isinstance(target, Target):
                await pools().decisions.run(_note_refusal, error, _actor_of(exchange, known), target)
            await self._refuse(exchange, error, handler, mount=mount, scope=scope)

    async def _known_to(
        self, exchange: Exchange, target: Target | SiteTarget | Nothing, authorization: bytes | None
    ) -> hot.Known | None:
        """As `_known`; where everybody may come in, credentials that are no longer good are none: who signs in anew
        still sends the old ones."""
        try:
            return await self._known(exchange, authorization)
        except CredentialsInvalid:
            if isinstance(target, Target) and target.route is not None and target.route.action is Action.PUBLIC:
                return None
            raise

    async def _known(self, exchange: Exchange, authorization: bytes | None) -> hot.Known | None:
        """Who sent this, remembered or found out now. None: nobody, without credentials."""
        if authorization is None:
            return None
        known = self.credentials.find(authorization)
        if known is None:
            # Passwords are slow on purpose: they are judged in threads of their own.
            known = await pools().sign_in.run(_sign_in, authorization, exchange.origin.address, exchange.request_id)
            self.credentials.remember(authorization, known)
        return known

    async def _fetched(
        self,
        exchange: Exchange,
        target: Target | SiteTarget | Nothing,
        query: Query,
        known: hot.Known | None,
        needed: NeedFetch,
    ) -> Decision:
        """The decision once upstreams have been asked for what it lacks, which may show that it lacks more."""
        outcomes: dict[str, Outcome] = {}
        for _ in range(FETCH_ROUNDS):
            outcomes |= await self.fetches.outcomes(needed.plans, may_relay=not exchange.is_head)
            decision = await self._decided(exchange, target, query, known, outcomes)
            if decision.needed is None:
                return decision
            needed = decision.needed
        raise UpstreamFailed("the upstreams lead in circles")

    async def _send_arriving(self, exchange: Exchange, decision: Decision, response: Response, ref: BlobRef) -> None:
        """What an upstream is sending; for a HEAD, what can be said of it."""
        outcome = decision.handle.asked.outcomes.get(ref.flight) if decision.handle is not None else None
        if exchange.is_head:
            await self.server.send_head(exchange, response, ref)
        elif outcome is not None and isinstance(outcome.flight, Flight):
            await self.fetches.relay(exchange, response, ref, outcome.flight)
        else:
            raise UpstreamFailed("the file is not here yet")

    async def _viewed(self, target: Target, decision: Decision, taken: Body) -> Response:
        """The view of a request with a body; what it reads may have to be fetched first."""
        outcomes: dict[str, Outcome] = {}
        assert decision.handle is not None
        for _ in range(FETCH_ROUNDS):
            try:
                return await pools().decisions.run(self._view, target, decision, taken)
            except NeedFetch as needed:
                outcomes |= await self.fetches.outcomes(needed.plans, may_relay=False)
                decision.handle.renew(outcomes)
        raise UpstreamFailed("the upstreams lead in circles")

    async def _decided(
        self,
        exchange: Exchange,
        target: Target | SiteTarget | Nothing,
        query: Query,
        known: hot.Known | None,
        outcomes: dict[str, Outcome] | None = None,
    ) -> Decision:
        """The decision, made in the pool. Cancelled meanwhile, what it opened is closed when it is done."""
        if isinstance(target, SiteTarget):
            deciding = pools().decisions.run(self._decide_site, exchange, target, query, known)
        else:
            deciding = pools().decisions.run(self._decide, exchange, target, query, known, outcomes)
        try:
            return await asyncio.shield(deciding)
        except asyncio.CancelledError:
            deciding.add_done_callback(_close_decision)
            raise

    # --- in the decision pool ----------------------------------------------------------------------------------------

    def _decide(
        self,
        exchange: Exchange,
        target: Target | Nothing,
        query: Query,
        known: hot.Known | None,
        outcomes: dict[str, Outcome] | None = None,
    ) -> Decision:
        """Who, which repository, may they, how is the body taken; and for a request without a body its answer."""
        now = epoch.current()
        if known is not None and known.epoch != now:
            raise _StaleCredentials()
        actor = _actor_of(exchange, known)
        if isinstance(target, Nothing):
            permissions.check(actor, None, Action.READ, mount=target.key)
            raise errors.RepositoryNotFound()
        repository = selectors.repository_by_key(target.key)
        if repository is not None and repository.format != target.handler.name:
            repository = None
        action = target.route.action if target.route is not None else Action.READ
        if repository is None and action is Action.PUBLIC and target.route is not None:
            # What is public is so everywhere: it must not tell which repositories there are.
            repository = Repository(key=target.key, format=target.handler.name)
        # The missing and the hidden get the same words: `mount` names what the repository would be called.
        permissions.check(actor, repository, action, scope_name=target.scope_name, mount=target.key)
        if repository is None or target.route is None:
            raise errors.NotFound("there is nothing at this address")
        if known is not None and repository.pk is not None:
            known.allow(repository.pk, action, target.scope)
        if action in (Action.PUBLISH, Action.DELETE) and exchange.method not in ("GET", "HEAD"):
            is_removal = action is Action.DELETE and exchange.method == "DELETE"
            removal_target(repository) if is_removal else write_target(repository)
        handle = RepositoryHandle(actor, repository, outcomes=outcomes, is_head=exchange.is_head)
        head = Head(
            method=exchange.method,
            path=target.path,
            query=query,
            headers=Headers(exchange.headers),
            actor=actor,
            mount=target.mount,
            base_url=exchange.origin.base_url,
            length=exchange.length,
            has_body=exchange.has_body,
        )
        decision = Decision(actor, head=head, handle=handle, epoch=now)
        try:
            decision.plan = target.route.admit(handle, head, **target.captured)
        except NeedFetch as needed:
            decision.needed = needed
            return decision
        self._admit(exchange, decision)
        if decision.sink is None and not _needs_body(exchange, decision.plan):
            empty: Body = Document(b"") if isinstance(decision.plan, DocumentBody) else None
            try:
                decision.response = self._view(target, decision, empty)
            except NeedFetch as needed:
                decision.needed = needed
        return decision

    def _admit(self, exchange: Exchange, decision: Decision) -> None:
        """Refuse by the declared length what the limits cannot hold, before a byte of it is read."""
        plan, handle = decision.plan, decision.handle
        assert handle is not None
        if isinstance(plan, DocumentBody):
            body.check_declared(exchange.length, plan.max_bytes)
        elif isinstance(plan, StagedBody | PartsBody):
            if isinstance(plan, StagedBody):
                body.check_declared(exchange.length, plan.limit)
            remaining = handle.remaining_bytes()
            if remaining is not None and _is_held(handle, plan):
                remaining = None  # bytes that the namespace holds already cost it nothing
            _check_quota(handle, exchange.length, remaining)
            namespace_id = handle.target.namespace_id
            decision.sink = body.open_staged(plan, remaining, lambda size: quota.refuse(namespace_id, size))
        elif isinstance(plan, SessionBody):
            _check_quota(handle, exchange.length, handle.remaining_bytes())
            session = handle.open_session(plan)
            decision.sink = body.Opened(session)

    def _view(self, target: Target, decision: Decision, taken: Body) -> Response:
        head, route = decision.head, target.route
        assert head is not None and route is not None
        request = Request(
            method=head.method,
            path=head.path,
            query=head.query,
            headers=head.headers,
            actor=head.actor,
            mount=head.mount,
            base_url=head.base_url,
            length=head.length,
            has_body=head.has_body,
            body=taken,
        )
        handle = decision.handle
        assert handle is not None
        try:
            return handle.marked(route.view(handle, request, **target.captured))
        except errors.NotFound:
            # Who could not be asked may have it: that member's failure is the answer, never "not there".
            for trouble in handle.gaps.values():
                raise trouble from None
            raise

    def _decide_site(
        self,
        exchange: Exchange,
        target: SiteTarget,
        query: Query,
        known: hot.Known | None,
    ) -> Decision:
        """A route outside any repository: its view asks the site handle, which knows what the actor may see."""
        if known is not None and known.epoch != epoch.current():
            raise _StaleCredentials()
        actor = _actor_of(exchange, known)
        if target.route.action is not Action.PUBLIC and actor.is_anonymous:
            raise AuthenticationRequired()
        if target.scope:
            permissions.check_site(actor, target.scope.rpartition(":")[0])
        request = Request(
            method=exchange.method,
            path=target.path,
            query=query,
            headers=Headers(exchange.headers),
            actor=actor,
            mount="",
            base_url=exchange.origin.base_url,
            length=exchange.length,
            has_body=exchange.has_body,
        )
        return Decision(actor, response=target.route.view(SiteHandle(actor), request))

    # --- bodies ------------------------------------------------------------------------------------------------------

    async def _take_body(self, exchange: Exchange, decision: Decision) -> Body:
        plan = decision.plan
        if isinstance(plan, DocumentBody):
            return await body.read_document(exchange, plan)
        if isinstance(plan, PartsBody):
            return await body.read_parts(exchange, plan, decision.sink)
        return await body.fill(exchange, decision.sink, keep=isinstance(plan, SessionBody))

    # --- what goes wrong ---------------------------------------------------------------------------------------------

    async def _refuse(
        self, exchange: Exchange, raised: Exception, handler: FormatHandler | None, *, mount: str, scope: str
    ) -> None:
        """Every error's way out: the format's envelope, the challenge on 401, how long to wait on 429 and 503."""
        error = answerable(raised, exchange)
        assert handler is not None
        response = handler.error(error, mount=mount, head=exchange.is_head)
        lines = encode(response.headers)
        names = {name for name, _ in lines}
        if isinstance(error, AuthenticationRequired) and b"www-authenticate" not in names:
            challenge = handler.challenge(error, base_url=exchange.origin.base_url, scope=scope)
            lines += encode([("WWW-Authenticate", challenge)])
        lines += [line for line in encode(standard_headers(error)) if line[0] not in names]
        content = response.content if isinstance(response.content, bytes) else b""
        await exchange.respond(response.status, lines, content, response.reason or "")

    # --- the short cut -----------------------------------------------------------------------------------------------

    async def short_cut(self, scope: Any, receive: Any, send: Any, around: Surroundings) -> bool:
        """Answer a plain read of one stored object, or leave it (False) with nothing sent.

        `around` judges the Host as for any request, and takes note of what was answered. The code is flat because it
        runs for most requests; each step is the long way's, remembered.
        """
        method = scope["method"]
        targets = self.table.hot.get(method)
        if targets is None:
            return False
        target = targets.get(scope["raw_path"])
        if target is None or (scope["query_string"] and target.lookup_kind != "repository"):
            return False
        started = monotonic()
        authorization = given_id = host = None
        is_conditional = False
        headers = scope["headers"]
        for name, value in headers:
            match _NOTICED.get(name):
                case None:
                    continue
                case "host" if host is None:
                    host = value
                case "authorization" if authorization is None:
                    authorization = value
                case "conditional":
                    is_conditional = True
                case "id":
                    given_id = value
                case _:
                    return False
        known = None
        if authorization is not None:
            known = self.credentials.find(authorization)
            if known is None:
                return False
        if host is None:
            return False
        origin = around.origins.plain(scope, host, headers)
        if origin is None:
            return False
        source = self.lookup
        version = source.version()
        if target.lookup_kind == "repository":
            return await self._send_rendered(
                scope, receive, send, around, target, known, origin, started, given_id, is_conditional
            )
        memo: hot.Memo | None = target.memo
        if memo is None or version is None or memo.version != version:
            row = source.find(target)
            if not source.is_inline:
                row = await row
            if row is None:
                return False
            memo = hot.memo_of(target, row, version)
        if not hot.is_allowed(known, target, memo.row):
            return False
        self.short_cuts += 1
        request_id = request_id_of(given_id)
        actor_name = known.actor.name if known is not None else "anonymous"
        if not is_conditional:
            data = self.server.small.get(memo.ref.digest.hex)
            if data is not None:
                if method == "HEAD":
                    data = b""
                answer = scope.get(ANSWER)
                if answer is not None:
                    await answer(memo.head + request_id.encode() + b"\r\n", data)
                else:
                    whole = [*memo.whole, (b"x-request-id", request_id.encode())]
                    await send({"type": "http.response.start", "status": 200, "headers": whole})
                    await send({"type": "http.response.body", "body": data})
                around.afterwards.note(
                    around.loop,
                    (
                        method,
                        target.route_class,
                        target.logged,
                        200,
                        0,
                        len(data),
                        started,
                        monotonic(),
                        request_id,
                        actor_name,
                        origin,
                    ),
                )
                return True
        exchange = Exchange(scope, receive, send, request_id)
        exchange.origin = origin
        exchange.started = started
        exchange.route_class = target.route_class
        exchange.actor_name = actor_name
        try:
            await self.server.send_blob(exchange, memo.lines, memo.etag, memo.ref, modified=memo.modified)
        except ConnectionError:
            exchange.status = exchange.status or 499
        except Exception as error:
            if exchange.status:
                raise
            await self._refuse(exchange, error, target.handler, mount=target.mount, scope=target.scope)
        finally:
            around.note(exchange)
        return True

    async def _send_rendered(
        self,
        scope: Any,
        receive: Any,
        send: Any,
        around: Surroundings,
        target: Target,
        known: hot.Known | None,
        origin: Origin,
        started: float,
        given_id: bytes | None,
        is_conditional: bool,
    ) -> bool:
        """The short cut for a document that the long way rendered before, while its repository stands still."""
        found = self.documents.get(_rendered_key(scope, origin))
        if found is None or (is_conditional and not isinstance(found.content, Rendered)):
            return False
        version = self.lookup.version()
        if version is None or found.version != version:
            row = self.lookup.find(target)
            if not self.lookup.is_inline:
                row = await row
            if row is None or not hot.is_current(found, row):
                return False
            found.row, found.version = row, version
        if not hot.is_allowed(known, target, found.row):
            return False
        self.short_cuts += 1
        exchange = Exchange(scope, receive, send, request_id_of(given_id))
        exchange.origin = origin
        exchange.started = started
        exchange.route_class = target.route_class
        exchange.actor_name = known.actor.name if known is not None else "anonymous"
        try:
            if isinstance(found.content, Rendered):
                await self.server.send_rendered(exchange, found.lines, found.content)
            else:
                await exchange.respond(200, list(found.lines), found.content)
        except ConnectionError:
            exchange.status = exchange.status or 499
        finally:
            around.note(exchange)
        return True

    def _keep_rendered(
        self, exchange: Exchange, target: Target, decision: Decision, response: Response, version: bytes | None
    ) -> None:
        """Keep what a `by_revision` route answered, as of the revision that the decision saw before it rendered."""
        handle, content = decision.handle, response.content
        if response.status != 200 or not isinstance(content, bytes | Rendered) or handle is None or response.reason:
            return
        repository = handle.repository
        if repository.type != repository.Type.LOCAL or repository.state != repository.State.ACTIVE:
            return
        if response.etag is not None or response.last_modified is not None:
            return
        row = (decision.epoch, repository.pk, repository.anonymous_read, repository.revision)
        key = _rendered_key(exchange.scope, exchange.origin)
        self.documents.put(key, hot.Kept(row, repository.options, version, encode(response.headers), content))


def _rendered_key(scope: Any, origin: Origin) -> hot.RenderedKey:
    accept = b",".join([value for name, value in scope["headers"] if name == b"accept"])
    return (scope["method"], scope["raw_path"], scope["query_string"], accept, origin.base_url)


# --- parts of a decision ---------------------------------------------------------------------------------------------


def authorization_of(exchange: Exchange) -> bytes | None:
    """Raises BadRequest where there are several: two answers to "who is it" are none."""
    found = [value for name, value in exchange.headers if name == b"authorization"]
    if len(found) > 1:
        raise BadRequest("the request has more than one Authorization header")
    return found[0] if found else None


def _sign_in(authorization: bytes, address: str, request_id: str) -> hot.Known:
    """Judge credentials. The epoch is read first: a change that comes in between makes the outcome stale, not wrong."""
    now = epoch.current()
    actor = authenticate.authenticate(authorization.decode("latin-1"), address=address, request_id=request_id)
    until = authenticate.valid_until(actor)
    return hot.Known(actor, now, until if until is not None else float("inf"))


def _actor_of(exchange: Exchange, known: hot.Known | None) -> Actor:
    """The remembered actor as the sender of this request."""
    if known is None:
        return Actor(address=exchange.origin.address, request_id=exchange.request_id)
    actor = known.actor
    return Actor(
        principal_id=actor.principal_id,
        name=actor.name,
        is_admin=actor.is_admin,
        is_system=actor.is_system,
        token=actor.token,
        scopes=actor.scopes,
        address=exchange.origin.address,
        request_id=exchange.request_id,
        extra=actor.extra,
    )


def _needs_body(exchange: Exchange, plan: BodyPlan | None) -> bool:
    return isinstance(plan, StagedBody | SessionBody | PartsBody) or (
        isinstance(plan, DocumentBody) and exchange.has_body
    )


def _is_held(handle: RepositoryHandle, plan: StagedBody | PartsBody) -> bool:
    if isinstance(plan, StagedBody) and plan.may_be_held:
        return True
    expect = plan.expect if isinstance(plan, StagedBody) else None
    if expect is None or not expect.is_identity:
        return False
    return quota.is_held(handle.target.namespace_id, expect.hex)


def _check_quota(handle: RepositoryHandle, length: int | None, remaining: int | None) -> None:
    if length is not None and remaining is not None and length > remaining:
        raise quota.refuse(handle.target.namespace_id, length)


def _note_refusal(error: RepomanError, actor: Actor, target: Target) -> None:
    """Record that a known caller was refused something that exists. A log that fails does not turn no into yes."""
    try:
        if isinstance(error, errors.RepositoryNotFound) and selectors.repository_by_key(target.key) is None:
            return
        record.refused(error, actor=actor, repository=target.key, subject=f"{target.method} {target.path}")
    except (DatabaseError, InterfaceError) as failure:
        logger.error("refusal_not_recorded", exc_info=failure, extra={"fields": {"request_id": actor.request_id}})


# --- errors as answers -----------------------------------------------------------------------------------------------


class InternalError(RepomanError):
    """Something went wrong here, not with the request; the log has the details under the request's id."""


def answerable(raised: BaseException, exchange: Exchange) -> RepomanError:
    """The error to answer with. What nobody declared is logged with its traceback and answered without it."""
    if isinstance(raised, RepomanError) and raised.status != 500:
        return raised
    if isinstance(raised, OperationalError | InterfaceError):
        logger.warning(
            "database_unavailable",
            extra={"fields": {"request_id": exchange.request_id, "error": str(raised)[:300]}},
        )
        return Unavailable("the database is not available; try again", retry_after_seconds=2)
    if isinstance(raised, OSError) and raised.errno is not None and raised.errno in _EXHAUSTED:
        logger.warning("exhausted", exc_info=raised, extra={"fields": {"request_id": exchange.request_id}})
        return Unavailable("the server is short of resources; try again", retry_after_seconds=2)
    if isinstance(raised, MemoryError):
        return Unavailable("the server is short of memory; try again", retry_after_seconds=2)
    if isinstance(raised, asyncio.TimeoutError):
        return Unavailable("the server is busy; try again", retry_after_seconds=2)
    logger.error("request_failed", exc_info=raised, extra={"fields": {"request_id": exchange.request_id}})
    return InternalError(request_id=exchange.request_id)


_EXHAUSTED = frozenset({11, 12, 23, 24})  # EAGAIN (threads), ENOMEM, ENFILE, EMFILE


def standard_headers(error: RepomanError) -> list[tuple[str, str]]:
    """Headers that belong to a status whatever the format."""
    found: list[tuple[str, str]] = []
    wait = getattr(error, "retry_after_seconds", None)
    if wait is not None:
        found.append(("Retry-After", str(int(wait))))
    allow = error.detail.get("allow")
    if isinstance(allow, list | tuple):
        found.append(("Allow", ", ".join(str(method) for method in allow)))
    size = error.detail.get("size")
    if isinstance(error, errors.RangeInvalid) and isinstance(size, int):
        found.append(("Content-Range", f"bytes */{size}"))
    return found
