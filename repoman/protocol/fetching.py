"""Upstreams on behalf of waiting clients: each plan is carried out once, adopted once, and relayed while it arrives.

A request that lacks something brings the plans (`NeedFetch`) and gets the outcomes. The fetch belongs to nobody's request:
clients come and go. In this process it is shared through its flight, between processes through its claim
(`services/fetches.py`).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace

from django.db import InterfaceError, OperationalError

from repoman.core.clock import monotonic
from repoman.core.errors import (
    NotFound,
    QuotaExceeded,
    RepomanError,
    StorageFull,
    Unavailable,
    UpstreamFailed,
    UpstreamTimeout,
)
from repoman.core.fetch import Outcome, Plan
from repoman.core.records import BlobRef, Rendered
from repoman.core.wire import Response
from repoman.ops.logs import logger
from repoman.ops.metrics import Metrics
from repoman.services import fetches, workshop
from repoman.services.handle import RepositoryHandle, cache_headers
from repoman.sources.remote import FIXED
from repoman.transfer.client import Client
from repoman.transfer.flight import Flight, Flights

from .exchange import Exchange
from .pools import pools
from .serve import blob_headers

FIRST_LOOK_SECONDS = 0.03
LONGEST_LOOK_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 600.0
RENEW_SECONDS = 10.0
TOLD_SECONDS = 2.0  # a digest waits so long for the fetch of its file to begin
PIECE = 1024 * 1024
LEAST_PIECE = 64 * 1024
RELAYED_BYTES = 16 * 1024 * 1024  # in the pieces of all clients together; what their connections hold comes on top


class Fetches:
    """The fetches of one process. Made before the fork; what belongs to the loop is made at the first use."""

    def __init__(self) -> None:
        self._made: Flights | None = None
        self._beginning: dict[str, asyncio.Task[Flight | Outcome | None]] = {}
        self._told: dict[str, Outcome] = {}  # by the file's key, what the upstream has just said that its digest is
        self._renewals: set[asyncio.Task[None]] = set()
        self._is_alone = False
        self._metrics: Metrics | None = None
        self._relays = 0

    @property
    def flights(self) -> Flights:
        if self._made is None:
            from django.conf import settings

            # The HTTP client tries to import this for every lock that it makes, and where it is not installed each try
            # looks through the whole path again.
            sys.modules.setdefault("sniffio", None)  # type: ignore[arg-type]
            configuration = settings.CONFIGURATION
            self._is_alone = configuration.workers == 1 and settings.DATABASES["default"]["ENGINE"].endswith("sqlite")
            self._made = Flights(Client(), run=pools().storage.run)
            workshop.warm_up()
        return self._made

    def count_in(self, metrics: Metrics) -> None:
        """Where to count. No label is a name that anybody chose: outcomes only."""
        self._metrics = metrics
        metrics.gauges["upstream_fetches_under_way"] = lambda: float(self._made.count) if self._made else 0.0

    async def close(self) -> None:
        if self._made is not None:
            await self._made.close()

    async def outcomes(self, plans: Sequence[Plan], *, may_relay: bool) -> dict[str, Outcome]:
        """What became of the plans, by key: adopted, or failed, or (`may_relay`) on its way. A plan that another process
        has carried out is left out: whoever asked looks again."""
        found = await asyncio.gather(*(self._outcome(plan, may_relay) for plan in plans))
        return {plan.key: outcome for plan, outcome in zip(plans, found, strict=True) if outcome is not None}

    async def _outcome(self, plan: Plan, may_relay: bool) -> Outcome | None:
        flight: Flight | Outcome | None = self.flights.find(plan.key)
        if flight is None and (told := self._told.get(plan.beside)) is not None and told.plan.key == plan.key:
            return told
        if flight is None:
            beginning = self._beginning.get(plan.key)
            if beginning is None:
                beginning = asyncio.create_task(self._begin(plan))
                self._beginning[plan.key] = beginning
                beginning.add_done_callback(lambda task: self._begun(plan.key, task))
            flight = await asyncio.shield(beginning)
        if not isinstance(flight, Flight):
            return flight
        if may_relay and plan.kind == "file" and not plan.is_awaited:
            outcome = await flight.started()
            if outcome.is_arriving:
                return replace(outcome, flight=flight)
        return await flight.settled()

    def _begun(self, key: str, task: asyncio.Task[Flight | Outcome | None]) -> None:
        self._beginning.pop(key, None)
        if task.cancelled() or task.exception() is not None:  # whoever waits has it; if nobody does, it is no news
            return
        if not isinstance(task.result(), Flight):
            self._told.pop(key, None)

    def _remember(self, outcome: Outcome) -> None:
        """A digest is asked for once for all who want its file: until the fetch of the file is over."""
        key = outcome.plan.beside

        def forget() -> None:
            if self._told.get(key) is outcome and self.flights.find(key) is None and key not in self._beginning:
                del self._told[key]

        self._told[key] = outcome
        asyncio.get_running_loop().call_later(TOLD_SECONDS, forget)

    async def _begin(self, plan: Plan) -> Flight | Outcome | None:
        """A flight of our own; an outcome that is known already; or None once another process has carried it out."""
        flights = self.flights
        wait, waited = FIRST_LOOK_SECONDS, 0.0
        try:
            prepared = await pools().decisions.run(lambda: fetches.prepare(plan, is_alone=self._claims_nothing(plan)))
            if prepared.is_ours:
                return await self._fly(flights, plan, prepared)
            if prepared.is_outdated:
                return None
            error = prepared.error
            while error is None:
                if waited > LONGEST_WAIT_SECONDS:
                    raise UpstreamTimeout("another server has been fetching this for too long; try again")
                await asyncio.sleep(wait)
                waited += wait
                wait = min(wait * 1.5, LONGEST_LOOK_SECONDS)
                is_over, error = await pools().decisions.run(fetches.look, plan.key)
                if is_over and error is None:
                    return None
            return Outcome(plan, error=error)
        except RepomanError as error:
            return Outcome(plan, error=error)

    async def _fly(self, flights: Flights, plan: Plan, prepared: fetches.Prepared) -> Flight:
        begun = monotonic()

        async def adopt(outcome: Outcome) -> None:
            failed_before = outcome.error is not None
            size = outcome.staged.size if outcome.staged is not None else len(outcome.body)
            took = monotonic() - begun
            try:
                await self._finished(plan, outcome, took)
            except (OperationalError, InterfaceError) as error:
                logger.warning(
                    "fetched_not_kept", extra={"fields": {"plan": plan.key[:200], "error": str(error)[:300]}}
                )
                raise Unavailable("the database is not available; try again", retry_after_seconds=2) from error
            finally:
                self._count(outcome, size)
                self._told.pop(plan.key, None)
                if plan.beside and (outcome.error is None or isinstance(outcome.error, NotFound)):
                    self._remember(outcome)
            if outcome.error is not None and not failed_before:
                raise outcome.error

        is_bounded_by_quota = not plan.is_document and prepared.limit is not None
        flight = await flights.fetch(
            replace(plan, limit=prepared.limit),
            prepared.settings,
            adopt=adopt,
            limit_error=prepared.too_large if is_bounded_by_quota else None,
        )
        if not self._claims_nothing(plan):
            renewal = asyncio.create_task(self._renew(flight))
            self._renewals.add(renewal)
            renewal.add_done_callback(self._renewals.discard)
        return flight

    def _claims_nothing(self, plan: Plan) -> bool:
        """Whether other processes need not know of the fetch: there are none, or it keeps nothing that they could find."""
        return self._is_alone or plan.kind == "digest"

    async def _finished(self, plan: Plan, outcome: Outcome, seconds: float) -> None:
        """Adopted, also where the pool is full at the moment: the bytes are here, and the claim must be given back."""
        for _ in range(100):
            try:
                finishing = pools().decisions.run(
                    lambda: fetches.finish(plan, outcome, is_alone=self._claims_nothing(plan), seconds=seconds)
                )
            except Unavailable:
                await asyncio.sleep(0.1)
                continue
            return await finishing
        fetches.finish(plan, outcome, is_alone=self._claims_nothing(plan), seconds=seconds)

    def _count(self, outcome: Outcome, size: int) -> None:
        if self._metrics is not None:
            self._metrics.count("upstream_fetches", word_for(outcome))
            self._metrics.count("upstream_bytes", amount=size)

    def told(self, response: Response, handle: RepositoryHandle) -> Response:
        """The answer with what is to be said of its freshness (RFC 9211): a rendered document says it by itself."""
        asked = handle.asked
        freshness = asked.served if isinstance(response.content, BlobRef) else asked.served or asked.listed
        if freshness is None or response.status != 200:
            return response
        if freshness.status == "stale" and self._metrics is not None:
            self._metrics.count("upstream_stale_answers")
        if isinstance(response.content, Rendered):
            return response
        if freshness is FIXED:
            lines = [("Cache-Status", "repoman; hit")]
        elif freshness.status == "miss" and not freshness.ttl:
            lines = [("Cache-Status", "repoman; fwd=miss")]
        else:
            lines = list(cache_headers(freshness, ()))
        names = {name.lower() for name, _ in response.headers}
        return replace(response, headers=[*response.headers, *(line for line in lines if line[0].lower() not in names)])

    async def _renew(self, flight: Flight) -> None:
        """Keep the claim while the fetch lasts."""
        while True:
            try:
                async with asyncio.timeout(RENEW_SECONDS):
                    await flight.settled()
                    return
            except TimeoutError:
                pools().storage.post(fetches.renew, flight.key)

    async def relay(self, exchange: Exchange, response: Response, ref: BlobRef, flight: Flight) -> None:
        """Send what is still arriving, at the client's pace. The whole of it: a range is not worth the wait (RFC 9110
        §14.2 allows that). Where the fetch fails midway the answer is left unfinished, and the connection is cut."""
        first = await flight.piece(0, LEAST_PIECE)  # what fails before it is a clean error
        lines, _ = blob_headers(response.headers, ref, etag=response.etag, modified=response.last_modified)
        lines = [line for line in lines if line[0] != b"accept-ranges"]
        if ref.size >= 0:
            lines.append((b"content-length", str(ref.size).encode()))
        lines.append((b"x-request-id", exchange.request_id.encode()))
        await exchange.start(200, lines)
        offset = 0
        piece = first
        self._relays += 1
        try:
            while piece:
                offset += len(piece)
                await exchange.push(piece)
                piece = b""
                piece = await flight.piece(offset, min(PIECE, max(LEAST_PIECE, RELAYED_BYTES // self._relays)))
        except RepomanError as error:
            logger.warning(
                "relay_cut",
                extra={"fields": {"request_id": exchange.request_id, "sent": offset, "error": error.message[:300]}},
            )
            return
        finally:
            self._relays -= 1
        await exchange.finish(b"")


def word_for(outcome: Outcome) -> str:
    """An outcome as one of a few words, for counting."""
    error = outcome.error
    if error is None:
        return "not_modified" if outcome.is_not_modified else "ok"
    if isinstance(error, NotFound):
        return "refused" if outcome.status in (401, 403) else "not_found"
    if isinstance(error, UpstreamTimeout):
        return "timeout"
    if isinstance(error, QuotaExceeded | StorageFull):
        return "no_room"
    reason = str(error.detail.get("reason") or "")
    if isinstance(error, UpstreamFailed):
        return _WORDS.get(reason, "invalid")
    return reason if reason in ("throttled", "breaker", "queue") else "other"


_WORDS = {
    "status": "error",
    "credentials": "refused",
    "token": "refused",
    "connect": "connection",
    "tls": "connection",
    "protocol": "connection",
    "address": "forbidden_address",
    "redirect": "redirect",
}
