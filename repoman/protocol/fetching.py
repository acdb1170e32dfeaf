"""Upstreams on behalf of waiting clients: each plan is carried out once, adopted once, and relayed while it arrives.

A request that lacks something brings the plans (`NeedFetch`) and gets the outcomes. The fetch belongs to nobody's request:
clients come and go. In this process it is shared through its flight, between processes through its claim
(`services/fetches.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from repoman.core.errors import RepomanError, UpstreamTimeout
from repoman.core.fetch import Outcome, Plan
from repoman.core.records import BlobRef
from repoman.core.wire import Response
from repoman.ops.logs import logger
from repoman.services import fetches
from repoman.transfer.client import Client
from repoman.transfer.flight import Flight, Flights

from .exchange import Exchange
from .pools import pools
from .serve import blob_headers

FIRST_LOOK_SECONDS = 0.03
LONGEST_LOOK_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 600.0
RENEW_SECONDS = 10.0


class Fetches:
    """The fetches of one process. Made before the fork; what belongs to the loop is made at the first use."""

    def __init__(self) -> None:
        self._made: Flights | None = None
        self._beginning: dict[str, asyncio.Task[Flight | Outcome | None]] = {}
        self._renewals: set[asyncio.Task[None]] = set()
        self._is_alone = False

    @property
    def flights(self) -> Flights:
        if self._made is None:
            from django.conf import settings

            configuration = settings.CONFIGURATION
            self._is_alone = configuration.workers == 1 and settings.DATABASES["default"]["ENGINE"].endswith("sqlite")
            self._made = Flights(Client(), run=pools().storage.run)
        return self._made

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
        if flight is None:
            beginning = self._beginning.get(plan.key)
            if beginning is None:
                beginning = asyncio.create_task(self._begin(plan))
                self._beginning[plan.key] = beginning
                beginning.add_done_callback(lambda task: self._begun(plan.key, task))
            flight = await asyncio.shield(beginning)
        if not isinstance(flight, Flight):
            return flight
        if may_relay and plan.kind == "file":
            outcome = await flight.started()
            if outcome.is_arriving:
                return replace(outcome, flight=flight)
        return await flight.settled()

    def _begun(self, key: str, task: asyncio.Task[Flight | Outcome | None]) -> None:
        self._beginning.pop(key, None)
        if not task.cancelled():
            task.exception()  # whoever waits has it; if nobody does, it is no news

    async def _begin(self, plan: Plan) -> Flight | Outcome | None:
        """A flight of our own; an outcome that is known already; or None once another process has carried it out."""
        flights = self.flights
        wait, waited = FIRST_LOOK_SECONDS, 0.0
        try:
            prepared = await pools().decisions.run(lambda: fetches.prepare(plan, is_alone=self._is_alone))
            if prepared.is_ours:
                return await self._fly(flights, plan, prepared)
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
        async def adopt(outcome: Outcome) -> None:
            failed_before = outcome.error is not None
            await pools().decisions.run(lambda: fetches.finish(plan, outcome, is_alone=self._is_alone))
            if outcome.error is not None and not failed_before:
                raise outcome.error

        is_bounded_by_quota = not plan.is_document and prepared.limit is not None
        flight = await flights.fetch(
            replace(plan, limit=prepared.limit),
            prepared.settings,
            adopt=adopt,
            limit_error=prepared.too_large if is_bounded_by_quota else None,
        )
        if not self._is_alone:
            renewal = asyncio.create_task(self._renew(flight))
            self._renewals.add(renewal)
            renewal.add_done_callback(self._renewals.discard)
        return flight

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
        first = await flight.piece(0)  # what fails before it is a clean error
        lines, _ = blob_headers(response.headers, ref, etag=response.etag, modified=response.last_modified)
        lines = [line for line in lines if line[0] != b"accept-ranges"]
        if ref.size >= 0:
            lines.append((b"content-length", str(ref.size).encode()))
        lines.append((b"x-request-id", exchange.request_id.encode()))
        await exchange.start(200, lines)
        offset = 0
        piece = first
        try:
            while piece:
                offset += len(piece)
                await exchange.push(piece)
                piece = await flight.piece(offset)
        except RepomanError as error:
            logger.warning(
                "relay_cut",
                extra={"fields": {"request_id": exchange.request_id, "sent": offset, "error": error.message[:300]}},
            )
            return
        await exchange.finish(b"")
