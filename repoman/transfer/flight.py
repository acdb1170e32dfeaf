"""Flights: a plan carried out once, however many wait for it, and relayed while it arrives.

A flight is a task of its own: whoever asked may leave. It reads the body once, hashes it once, and writes it once: files
into a sink of the blob store, documents into memory. Nothing is kept whose length or digests are not what the plan and
the upstream say. While it grows any number of followers read it at their own pace, from the growing file itself where
the store has one and from an unlinked temporary file elsewhere; the last 64 KiB are held back until the flight was
released, which is after its bytes verified and were adopted: a wrong body never arrives complete.

A failure reaches everybody who waits, and for two seconds everybody who comes, so that a herd of clients does not
become a queue of attempts. "Not there" is not such a failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import os
import re
import tempfile
import threading
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import Any, BinaryIO

from repoman.blobs import store
from repoman.core import clock
from repoman.core.errors import NotFound, RepomanError, Unavailable, UpstreamFailed, UpstreamTimeout
from repoman.core.fetch import DOCUMENT_BYTES, Outcome, Plan
from repoman.core.records import Staged

from .auth import RemoteSettings, may_see_credentials
from .breaker import Breaker, judge
from .client import Answer, Client, retry_after_of, shown, throttled
from .guard import AddressPolicy

PIECE = 1024 * 1024
BUFFER = 1024 * 1024  # handed to the storage pool at a time, at most
FIRST_BUFFER = 256 * 1024  # written as soon as the pool has nothing of this flight to do
LAG_SECONDS = 0.1  # what is less waits so long for more
WORTH_RELAYING = 256 * 1024
HELD_BACK = 64 * 1024
LARGE = 16 * 1024 * 1024
REMEMBERED_SECONDS = 2.0
QUEUE_SECONDS = 30.0
ADOPTION_SECONDS = 120.0
LEAST_BYTES_PER_SECOND = 256  # averaged over read_timeout; less is a connection kept busy for nothing
DOCUMENT_TIMEOUTS = 10  # a document takes at most so many times read_timeout
_GZIP = b"\x1f\x8b"
_BY_STRENGTH = ("sha512", "sha384", "sha256", "blake2b_256", "sha224", "sha1", "md5")

Run = Callable[..., Awaitable[Any]]
"""(function, *arguments) → its result, from a thread where blocking is allowed (`Pool.run`)."""
Adopt = Callable[[Outcome], Awaitable[None]]
LimitError = Callable[[int], RepomanError]
logger = logging.getLogger("repoman.transfer")


class Flight:
    """One fetch on its way. Used from its loop's thread only; made by `Flights.fetch`."""

    def __init__(self, plan: Plan, run: Run) -> None:
        self.plan = plan
        self.arrived = 0
        """Bytes that can be read, those held back included."""
        self.error: RepomanError | None = None
        self._run = run
        self._outcome = Outcome(plan)
        self._growing: _Growing | None = None
        self._is_released = False
        self._started = asyncio.Event()
        self._ended = asyncio.Event()
        self._settled = asyncio.Event()
        self._grew = asyncio.Event()
        self._when_settled: list[Callable[[Flight], None]] = []

    @property
    def key(self) -> str:
        return self.plan.key

    async def started(self) -> Outcome:
        """Until there is something worth relaying (256 KiB, or all of it, verified) or the flight ended.

        An outcome with `is_arriving`: read it with `piece`, `size` is what the upstream declared (None: nothing).
        Otherwise the final outcome, errors included.
        """
        await self._started.wait()
        if self._ended.is_set():
            return self._outcome
        outcome = self._outcome
        return Outcome(
            self.plan,
            status=outcome.status,
            headers=outcome.headers,
            url=outcome.url,
            size=outcome.size,
            is_arriving=True,
        )

    async def outcome(self) -> Outcome:
        """Until the transfer ended: verified (and durable, if a file) but not yet adopted, or with its error."""
        await self._ended.wait()
        return self._outcome

    async def settled(self) -> Outcome:
        """Until the flight was released or failed; the error of a failed adoption is in the outcome."""
        await self._settled.wait()
        return self._outcome

    async def piece(self, offset: int, most: int = PIECE) -> bytes:
        """The bytes from `offset` on, as soon as there are any that may be given: 1 to `most`, or none at the end.

        Of files only; a document is in the outcome. Raises the flight's error if it failed, from then on for every offset.
        """
        while True:
            if self.error is not None:
                raise copy.copy(self.error)  # one object raised in many places would collect all their tracebacks
            available = self.arrived if self._is_released else self.arrived - HELD_BACK
            if offset < available and self._growing is not None:
                data = await self._growing.read(offset, min(most, available - offset), self._run)
                if self.error is not None:  # meanwhile
                    raise copy.copy(self.error)
                return data
            if self._is_released:
                return b""
            await self._grew.wait()

    def release(self) -> None:
        """The bytes verified and were adopted: let followers have the rest."""
        if self._settled.is_set():
            return
        self._is_released = True
        self._settle()

    def fail(self, error: RepomanError) -> None:
        """End the flight with this error, for everybody. Does nothing after release()."""
        if self._settled.is_set():
            return
        self.error = _bare(error)
        if self._outcome.error is None:
            self._outcome.error = error
        self._growing = None
        self._ended.set()
        self._settle()

    # --- what Flights does

    def headers_came(self, answer: Answer, size: int | None) -> None:
        self._outcome.status = answer.status
        self._outcome.headers = answer.headers
        self._outcome.url = str(answer.url)
        self._outcome.size = size

    def grew(self, growing: _Growing, size: int) -> None:
        self._growing = growing
        self.arrived = size
        if size >= WORTH_RELAYING:
            self._started.set()
        self._wake()

    def ended(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._ended.set()
        self._started.set()
        self._wake()

    @property
    def latest(self) -> Outcome:
        return self._outcome

    def when_settled(self, call: Callable[[Flight], None]) -> None:
        self._when_settled.append(call)

    def _settle(self) -> None:
        self._started.set()
        self._settled.set()
        self._wake()
        for call in self._when_settled:
            call(self)
        self._when_settled.clear()

    def _wake(self) -> None:
        grew, self._grew = self._grew, asyncio.Event()
        grew.set()


class _Growing:
    """A descriptor of bytes that grow; closed with the last who holds this."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._probe = bytearray(1)

    def pread(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, offset)

    async def read(self, offset: int, length: int, run: Run) -> bytes:
        """Here where the page cache has them (new bytes nearly always), else in the pool. Raises Unavailable."""
        try:
            if self._is_cached(offset, length):
                data = self.pread(offset, length)
                await asyncio.sleep(0)  # a reader that is far behind would otherwise never let others run
            else:
                data = await _called(run, self.pread, offset, length)
        except OSError as error:
            raise Unavailable("what has arrived so far cannot be read back") from error
        if not data:
            raise Unavailable("what has arrived so far cannot be read back")
        return bytes(data)

    def _is_cached(self, offset: int, length: int) -> bool:
        try:
            os.preadv(self._descriptor, [self._probe], offset, os.RWF_NOWAIT)
            os.preadv(self._descriptor, [self._probe], offset + length - 1, os.RWF_NOWAIT)
        except OSError:
            return False
        return True

    def __del__(self) -> None:
        """Mostly in the loop, which must not wait until the blocks of a large file without a name have been freed."""
        try:
            found = os.fstat(self._descriptor)
            if found.st_nlink == 0 and found.st_size > LARGE:
                threading.Thread(target=os.close, args=(self._descriptor,), daemon=True).start()
                return
        except (OSError, RuntimeError):  # the interpreter ends: no more threads
            pass
        with contextlib.suppress(OSError):
            os.close(self._descriptor)


class _Filling:
    """A sink of the blob store, and the temporary file beside it where the store has no growing one. Its calls run in
    the storage pool, one at a time; however it goes, it ends in finish or close."""

    def __init__(
        self, plan: Plan, host: str, limit_error: LimitError | None, folder: str | None, is_relayed: bool
    ) -> None:
        self.growing: _Growing | None = None
        self.size = 0
        self._plan = plan
        self._host = host
        self._limit_error = limit_error
        self._folder = folder
        self._is_relayed = is_relayed
        self._sink: store.BlobSink | None = None
        self._spool: BinaryIO | None = None
        self._order = threading.Lock()
        self._has_ended = False

    def append(self, buffer: bytearray) -> None:
        with self._order:
            if not self._has_ended:
                self._append(buffer)

    def finish(self, buffer: bytearray, received: int) -> Staged:
        """Append the last bytes, verify, make durable. Raises UpstreamFailed for what is not as the plan says."""
        with self._order:
            if self._has_ended:
                raise RuntimeError("the transfer has ended")
            self._append(buffer)
            assert self._sink is not None
            if self.size != received:
                raise RuntimeError(f"{received} bytes came and {self.size} were written")
            check_size(self._plan, self._host, self.size)
            check_digests(self._plan, self._host, self._sink.hexdigests())
            staged = self._sink.finish()
            self._has_ended = True
            return staged

    def close(self) -> None:
        with self._order:
            if not self._has_ended:
                self._has_ended = True
                if self._sink is not None:
                    self._sink.abandon()
            if self._spool is not None:
                self._spool.close()
                self._spool = None
            self.growing = None  # the flight's now

    def _append(self, buffer: bytearray) -> None:
        if self._sink is None:
            algorithms = tuple(
                name for name in _BY_STRENGTH if name in self._plan.digests or name in self._plan.algorithms
            )
            self._sink = store.open_sink(algorithms=algorithms, limit=self._plan.limit, too_large=self._too_large)
            self._open_relay(self._sink)
        if buffer:
            self._sink.append(buffer)
            if self._spool is not None:
                try:
                    self._spool.write(buffer)
                except OSError as error:
                    raise Unavailable("there is no room to relay what arrives") from error
            self.size = self._sink.size

    def _open_relay(self, sink: store.BlobSink) -> None:
        if not self._is_relayed:
            return
        descriptor = sink.grown()
        if descriptor is None:
            try:
                self._spool = tempfile.TemporaryFile(dir=self._folder, buffering=0)
                descriptor = os.dup(self._spool.fileno())
            except OSError as error:
                raise Unavailable("there is no room to relay what arrives") from error
        self.growing = _Growing(descriptor)

    def _too_large(self, size: int) -> RepomanError:
        return too_large(self._plan, self._host, size, self._limit_error)


class _Pump:
    """Carries chunks from the network to a filling: one buffer is written while the next one fills."""

    def __init__(self, filling: _Filling, run: Run, grew: Callable[[_Filling], None]) -> None:
        self._filling = filling
        self._run = run
        self._grew = grew
        self._buffer = bytearray()
        self._received = 0
        self._is_last = False
        self._writing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._error: BaseException | None = None

    async def feed(self, chunk: bytes) -> None:
        """Waits while a full buffer is waiting: that is the backpressure on the upstream."""
        self._buffer += chunk
        self._received += len(chunk)
        if self._writing is None:
            self._go_on()
        while len(self._buffer) >= BUFFER and self._writing is not None:
            await asyncio.wait([self._writing])
        if self._error is not None:
            raise self._error

    async def finish(self) -> Staged:
        self._is_last = True  # what is in the buffer now goes with the end
        self._stop_timer()
        if self._writing is not None:
            await asyncio.wait([self._writing])
        if self._error is not None:
            raise self._error
        staged: Staged = await _called(self._run, self._filling.finish, self._buffer, self._received)
        self._grew(self._filling)
        return staged

    async def close(self) -> None:
        """End the sink, whatever happened; after finish() it only lets go of the temporary file."""
        self._stop_timer()
        self._error = self._error or RuntimeError("closed")
        try:
            await _called(self._run, self._filling.close)
        except Exception:
            logger.warning("an unfinished transfer could not be removed", exc_info=True)

    def _go_on(self) -> None:
        if self._is_last:
            return
        if len(self._buffer) >= FIRST_BUFFER:
            self._write()
        elif self._buffer and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LAG_SECONDS, self._write)

    def _write(self) -> None:
        self._stop_timer()
        if self._writing is not None or self._error is not None or not self._buffer:
            return
        buffer, self._buffer = self._buffer, bytearray()
        self._writing = asyncio.create_task(_called(self._run, self._filling.append, buffer))
        self._writing.add_done_callback(self._written)

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writing = None
        if task.cancelled():
            self._error = self._error or RuntimeError("cancelled")
        elif (error := task.exception()) is not None:
            self._error = self._error or error
        elif self._error is None:
            self._grew(self._filling)
            self._go_on()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def _called(run: Run, function: Callable[..., Any], *arguments: Any) -> Any:
    """Run it in the storage pool; a queue that is full at the moment is asked again for a while."""
    for _ in range(50):
        try:
            call = run(function, *arguments)
        except Unavailable:
            await asyncio.sleep(0.1)
            continue
        return await call
    return await run(function, *arguments)


class Flights:
    """All flights of one process's loop.

    `run`: where blocking calls go (`pools().storage.run`). `folder`: for temporary files of stores without growing ones;
    None is the system's.
    """

    def __init__(self, client: Client, *, run: Run, folder: str | None = None, is_relayed: bool = True) -> None:
        self.client = client
        self._run = run
        self._folder = folder
        self._is_relayed = is_relayed
        self._flights: dict[str, Flight] = {}
        self._failed: dict[str, Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._places: dict[tuple[int, bool, int], asyncio.Semaphore] = {}
        self._breakers: dict[int, Breaker] = {}
        self._is_closed = False

    @property
    def count(self) -> int:
        """Flights on their way, those that wait for their adoption included."""
        return len(self._flights)

    def find(self, key: str) -> Flight | None:
        """The flight under this key that is on its way, or that failed a moment ago; `fetch` would return the same."""
        return self._flights.get(key) or self._failed.get(key)

    def breaker(self, repository_id: int) -> Breaker:
        """As this process sees the remote."""
        return self._breakers.get(repository_id, Breaker())

    async def fetch(
        self,
        plan: Plan,
        settings: RemoteSettings,
        *,
        limit_error: LimitError | None = None,
        adopt: Adopt | None = None,
    ) -> Flight:
        """The flight for this plan: the one that is on its way, the one that has just failed, or a new one. Only a new one
        calls this `adopt`; who has to know beforehand asks `find`.

        An outcome's `size` stays None where only the end of the connection ended the body, with neither a digest nor a
        size to say that this was all of it: not to be taken for what can never change.

        `adopt` is awaited once, in the new flight's own task, with the verified outcome or the failed one; when it
        returns the flight is released, what it raises fails the flight. Without `adopt` whoever has the outcome calls
        `release()` or `fail()` within two minutes. `limit_error(size)` is the error for more than `plan.limit` bytes.
        """
        found = self.find(plan.key)
        if found is not None:
            return found
        flight = Flight(plan, self._run)
        if self._is_closed:
            flight.fail(_stopping())
            return flight
        self._flights[plan.key] = flight
        flight.when_settled(self._forget)
        task = asyncio.create_task(self._fly(flight, settings, limit_error, adopt), name=f"flight {plan.key}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return flight

    async def close(self) -> None:
        """Stop what is on its way, leaving nothing of it, and close the connections."""
        self._is_closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for flight in list(self._flights.values()):
            flight.fail(_stopping())
        await self.client.aclose()

    def _forget(self, flight: Flight) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
        error = flight.error
        if error is not None and not isinstance(error, NotFound):
            self._failed[flight.key] = flight
            asyncio.get_running_loop().call_later(REMEMBERED_SECONDS, self._failed.pop, flight.key, None)

    async def _fly(
        self, flight: Flight, settings: RemoteSettings, limit_error: LimitError | None, adopt: Adopt | None
    ) -> None:
        plan = flight.plan
        breaker, admission = self.breaker(plan.repository_id).admit(clock.seconds())
        self._breakers[plan.repository_id] = breaker
        try:
            if admission.is_allowed:
                outcome = await self._guarded(flight, self._placed(flight, settings, limit_error))
                result, retry_after = judge(outcome)
            else:
                outcome = _failed(flight, _left_alone(plan, admission.retry_after))
        except BaseException:
            flight.fail(_stopping())
            raise
        if admission.is_allowed:
            before = self.breaker(plan.repository_id)
            after = before.record(clock.seconds(), admission.generation, result, retry_after)
            self._breakers[plan.repository_id] = after
            if bool(before.open_until) != bool(after.open_until):
                logger.warning("remote %s: breaker %s", plan.repository_id, after.status(clock.seconds()))
        flight.ended(outcome)
        if adopt is None:
            if outcome.error is not None:
                flight.fail(outcome.error)
            else:
                timer = asyncio.get_running_loop().call_later(ADOPTION_SECONDS, flight.fail, _not_adopted())
                flight.when_settled(lambda _: timer.cancel())  # it would keep the bytes open meanwhile
            return
        await self._adopted(flight, outcome, adopt)

    async def _adopted(self, flight: Flight, outcome: Outcome, adopt: Adopt) -> None:
        error = outcome.error
        try:
            await adopt(outcome)
        except RepomanError as raised:
            error = error or raised
        except asyncio.CancelledError:
            flight.fail(_stopping())
            raise
        except Exception as raised:
            logger.error("adopting what was fetched failed: %s", flight.key, exc_info=raised)
            error = error or RepomanError("what was fetched could not be taken in; the log says why")
        if error is not None:
            flight.fail(error)
        else:
            flight.release()

    async def _guarded(self, flight: Flight, transfer: Coroutine[Any, Any, Outcome]) -> Outcome:
        """The outcome, errors and mistakes of our own turned into one."""
        try:
            return await transfer
        except RepomanError as error:
            return _failed(flight, error)
        except Exception as error:
            logger.error("a fetch failed unexpectedly: %s", flight.key, exc_info=error)
            return _failed(flight, RepomanError("the fetch failed; the log says why"))

    async def _placed(self, flight: Flight, settings: RemoteSettings, limit_error: LimitError | None) -> Outcome:
        """The transfer, when it is its turn among those of its remote."""
        plan = flight.plan
        kind = (plan.repository_id, plan.is_document, settings.concurrency)
        places = self._places.get(kind)
        if places is None:
            places = self._places[kind] = asyncio.Semaphore(max(1, settings.concurrency))
        try:
            async with asyncio.timeout(QUEUE_SECONDS):
                await places.acquire()
        except TimeoutError:
            raise Unavailable(
                f"too much is being fetched from {shown(plan.url)} at the moment; try again later",
                retry_after_seconds=5,
                reason="queue",
            ) from None
        try:
            return await self._transfer(flight, settings, limit_error)
        finally:
            places.release()

    async def _transfer(self, flight: Flight, settings: RemoteSettings, limit_error: LimitError | None) -> Outcome:
        plan = flight.plan
        async with self.client.ask(plan, settings) as answer:
            flight.headers_came(answer, None)
            outcome = Outcome(plan, status=answer.status, headers=answer.headers, url=str(answer.url))
            outcome.error = refusal_of(plan, settings, answer)
            if outcome.error is not None or answer.status == 304:
                return outcome
            if plan.method == "HEAD":
                outcome.size = answer.length
                return outcome
            decoders = _decoders_of(plan, answer)
            declared = answer.length if not decoders else None
            host = shown(answer.url)
            if declared is not None:
                check_size(plan, host, declared)
                if plan.limit is not None and declared > plan.limit:
                    raise too_large(plan, host, declared, limit_error)
            flight.headers_came(answer, declared if declared is not None else plan.size)
            chunks = _decoded(_paced(answer, settings, plan), decoders, plan, answer)
            if plan.is_document:
                outcome.body = await self._document(plan, host, chunks, limit_error)
                size = len(outcome.body)
            else:
                outcome.staged = await self._file(flight, host, chunks, limit_error)
                size = outcome.staged.size
            if answer.is_measured or plan.size is not None or plan.digests:
                outcome.size = size  # else nothing says that this is all of it
            if decoders:
                outcome.headers = {
                    name: value
                    for name, value in answer.headers.items()
                    if name not in ("content-encoding", "content-length")
                }
            return outcome

    async def _document(
        self, plan: Plan, host: str, chunks: AsyncIterator[bytes], limit_error: LimitError | None
    ) -> bytes:
        limit = plan.limit if plan.limit is not None else DOCUMENT_BYTES
        body = bytearray()
        async for chunk in chunks:
            body += chunk
            if len(body) > limit:
                raise too_large(plan, host, len(body), limit_error)
        check_size(plan, host, len(body))
        algorithms = [name for name in plan.digests if name in _BY_STRENGTH]
        if algorithms:
            check_digests(plan, host, await _called(self._run, _hexdigests, body, algorithms))
        return bytes(body)

    async def _file(
        self, flight: Flight, host: str, chunks: AsyncIterator[bytes], limit_error: LimitError | None
    ) -> Staged:
        filling = _Filling(flight.plan, host, limit_error, self._folder, self._is_relayed)

        def grew(grown: _Filling) -> None:
            if grown.growing is not None:
                flight.grew(grown.growing, grown.size)

        pump = _Pump(filling, self._run, grew)
        try:
            is_first = True
            wanted = flight.plan.begins
            async for chunk in chunks:
                if is_first:
                    is_first = False
                    check_is_content(flight.plan, host, chunk)
                if wanted:
                    check_begins(flight.plan, host, chunk[: len(wanted)], wanted[: len(chunk)])
                    wanted = wanted[len(chunk) :]
                await pump.feed(chunk)
            if wanted:
                check_begins(flight.plan, host, b"", wanted)
            return await pump.finish()
        finally:
            await asyncio.shield(pump.close())


def run(
    plan: Plan,
    settings: RemoteSettings,
    *,
    policy: AddressPolicy | None = None,
    limit_error: LimitError | None = None,
) -> Outcome:
    """A plan carried out in this thread, by a loop of its own: for workers. Adopting the outcome is the caller's."""

    async def carry_out() -> Outcome:
        loop = asyncio.get_running_loop()

        def in_thread(function: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:
            return loop.run_in_executor(None, function, *arguments)

        flights = Flights(Client(policy), run=in_thread, is_relayed=False)
        try:
            flight = await flights.fetch(plan, settings, limit_error=limit_error)
            outcome = await flight.outcome()
            flight.release()
            return outcome
        finally:
            await flights.close()

    return asyncio.run(carry_out())


# --- what an answer means


def refusal_of(plan: Plan, settings: RemoteSettings, answer: Answer) -> RepomanError | None:
    """The error that an answer's status is; None for 200 (and 203), and for 304 where the plan has validators."""
    status, host = answer.status, shown(answer.url)
    if status in (200, 203):
        return None
    if status == 304:
        if plan.etag or plan.last_modified:
            return None
        return UpstreamFailed(
            f"{host} says that nothing has changed, but was not asked that (status 304)", reason="status"
        )
    if status in (404, 410):
        return NotFound(f"the upstream {host} has no such {plan.kind} (status {status})", upstream_status=status)
    if status in (401, 403):
        if not settings.has_credentials:
            return NotFound(
                f"the upstream {host} does not show such a {plan.kind} without credentials (status {status})",
                upstream_status=status,
            )
        if not may_see_credentials(settings, answer.url):
            return UpstreamFailed(
                f"{host} asks for credentials for this {plan.kind} (status {status}) and may not see the remote's; add its "
                f"address to token_realms if it should",
                reason="credentials",
                upstream_status=status,
            )
        return UpstreamFailed(
            f"the upstream {host} refuses the remote's credentials for this {plan.kind} (status {status}); check its "
            f"username and password",
            reason="credentials",
            upstream_status=status,
        )
    if status == 429:
        return throttled(answer.url, answer.headers)
    if status >= 500:
        detail: dict[str, object] = {"reason": "status", "upstream_status": status}
        after = retry_after_of(answer.headers)
        if after is not None:
            detail["retry_after_seconds"] = after
        return UpstreamFailed(f"the upstream {host} failed to give this {plan.kind} (status {status})", **detail)
    return UpstreamFailed(
        f"the upstream {host} answered the request for a {plan.kind} with status {status}, which is no use here",
        reason="status",
        upstream_status=status,
    )


def too_large(plan: Plan, host: str, size: int, limit_error: LimitError | None) -> RepomanError:
    if limit_error is not None:
        return limit_error(size)
    limit = plan.limit if plan.limit is not None else DOCUMENT_BYTES
    return UpstreamFailed(
        f"what {host} sends for this {plan.kind} is larger than {limit} bytes, the most that is taken",
        reason="too_large",
        limit=limit,
    )


def check_size(plan: Plan, host: str, size: int) -> None:
    """Raises UpstreamFailed where `size` is not what the plan says."""
    if plan.size is not None and size != plan.size:
        raise UpstreamFailed(
            f"{host} has {size} bytes for this {plan.kind} where {plan.size} are expected; nothing was kept",
            reason="length",
            expected=plan.size,
            actual=size,
        )


def check_digests(plan: Plan, host: str, actual: Mapping[str, str]) -> None:
    """Raises UpstreamFailed where one is not what the plan says, the strongest first."""
    for name in _BY_STRENGTH:
        expected = plan.digests.get(name)
        if expected is not None and actual[name] != expected.lower():
            raise UpstreamFailed(
                f"what {host} sent for this {plan.kind} has the digest {name}:{actual[name]}, not {name}:{expected}; "
                f"nothing was kept",
                reason="digest",
                expected=f"{name}:{expected}",
                actual=f"{name}:{actual[name]}",
            )


_PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<!--.{0,512}?-->\s*)?<(?:!doctype\s+html|html)[\s>]", re.IGNORECASE | re.DOTALL
)
_NEVER_PAGES = frozenset(
    "jar war ear aar zip whl egg tar tgz gz bz2 xz zst lz4 7z deb rpm apk nupkg gem crate conda exe dll msi dmg pkg iso "
    "img bin so pom module asc sig prov sha1 sha256 sha512 md5".split()
)


def check_is_content(plan: Plan, host: str, beginning: bytes) -> None:
    """Raises UpstreamFailed for a web page where a file is expected that never is one: login pages, captive portals.

    Not by Content-Type, which says anything; and not where a digest will tell.
    """
    name = plan.url.partition("?")[0].rpartition("/")[2]
    extension = name.rpartition(".")[2].lower() if "." in name else ""
    if not plan.digests and extension in _NEVER_PAGES and _PAGE.match(beginning[:2048]):
        raise UpstreamFailed(
            f"{host} sent a web page instead of this .{extension} file (a login page, or a portal on the way); nothing "
            f"was kept",
            reason="page",
        )


def check_begins(plan: Plan, host: str, actual: bytes, expected: bytes) -> None:
    """Raises UpstreamFailed for what cannot be the file, by how it begins."""
    if actual != expected:
        told = "something else" if actual else "nothing, or next to nothing,"
        raise UpstreamFailed(
            f"{host} sent {told} where this {plan.kind} is expected, which begins with {plan.begins.hex(' ')}; nothing was "
            "kept",
            reason="beginning",
        )


def _hexdigests(body: bytearray, algorithms: list[str]) -> dict[str, str]:
    found = {}
    for name in algorithms:
        hasher = store.hasher(name)
        hasher.update(body)
        found[name] = hasher.hexdigest()
    return found


def _bare(error: RepomanError) -> RepomanError:
    """Without the frames it came through: they hold buffers, and the flight is remembered for a while."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


def _failed(flight: Flight, error: RepomanError) -> Outcome:
    latest = flight.latest
    logger.info("fetching a %s failed: %s", flight.plan.kind, error.message)
    return Outcome(flight.plan, status=latest.status, headers=latest.headers, url=latest.url, error=_bare(error))


def _left_alone(plan: Plan, retry_after: int) -> Unavailable:
    return Unavailable(
        f"{shown(plan.url)} failed repeatedly or asked us to wait, and is left alone for the moment; try again later",
        retry_after_seconds=retry_after,
        reason="breaker",
    )


def _stopping() -> Unavailable:
    return Unavailable("the server is stopping; try again", retry_after_seconds=5, reason="stopping")


def _not_adopted() -> Unavailable:
    return Unavailable("what was fetched was not taken in; try again", retry_after_seconds=1, reason="adoption")


# --- codings and pace


async def _paced(answer: Answer, settings: RemoteSettings, plan: Plan) -> AsyncIterator[bytes]:
    """The chunks; raises UpstreamTimeout where they come so slowly that they only keep us busy.

    Only time that is spent waiting for the upstream counts, not what our own disk takes.
    """
    waited = total = 0.0
    received = 0
    limit = settings.read_timeout
    before = clock.monotonic()
    async for chunk in answer.chunks():
        spent = clock.monotonic() - before
        waited += spent
        total += spent
        received += len(chunk)
        if waited >= limit:
            if received < waited * LEAST_BYTES_PER_SECOND:
                raise UpstreamTimeout(
                    f"{shown(answer.url)} sent {received} bytes in {waited:.0f} seconds, which is too slow to go on",
                    reason="timeout",
                )
            waited, received = 0.0, 0
        if plan.is_document and total > limit * DOCUMENT_TIMEOUTS:
            raise UpstreamTimeout(
                f"{shown(answer.url)} was not done after {total:.0f} seconds with this {plan.kind}", reason="timeout"
            )
        yield chunk
        before = clock.monotonic()


class _Inflate:
    """gzip (several members, too) or deflate, a bounded piece at a time. Raises zlib.error."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._is_begun = False
        self._decompressor = self._new()

    def _new(self) -> Any:
        return zlib.decompressobj(zlib.MAX_WBITS | (16 if self._coding == "gzip" else 0))

    def pieces(self, data: bytes) -> Any:
        if not self._is_begun and data:
            self._is_begun = True
            has_header = data[0] & 0x0F == 8 and (len(data) < 2 or int.from_bytes(data[:2], "big") % 31 == 0)
            if self._coding == "deflate" and not has_header:  # raw deflate, which some servers take it for
                self._decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
        while data:
            if self._decompressor.eof:
                if self._coding != "gzip" or not data.lstrip(b"\0"):
                    return
                self._decompressor = self._new()
            piece = self._decompressor.decompress(data, PIECE)
            if piece:
                yield piece
            data = self._decompressor.unconsumed_tail or self._decompressor.unused_data

    @property
    def is_complete(self) -> bool:
        return bool(self._decompressor.eof) or not self._is_begun


def _decoders_of(plan: Plan, answer: Answer) -> list[_Inflate]:
    """What to undo, outermost first. Raises UpstreamFailed for a coding we did not offer and do not know."""
    names = [name.strip().lower() for name in answer.headers.get("content-encoding", "").split(",")]
    codings = [name.removeprefix("x-") for name in names if name not in ("", "identity", "aws-chunked")]
    if len(codings) > 2 or any(name not in ("gzip", "deflate") for name in codings):
        raise UpstreamFailed(
            f"{shown(answer.url)} sends this {plan.kind} in a coding nobody asked for ({', '.join(codings)[:80]})",
            reason="coding",
        )
    return [_Inflate(name) for name in reversed(codings)]


async def _decoded(
    chunks: AsyncIterator[bytes], decoders: list[_Inflate], plan: Plan, answer: Answer
) -> AsyncIterator[bytes]:
    """The body without content codings.

    Some servers announce the compression that a file has by itself as a coding of the transfer (`a.tgz` with
    `Content-Encoding: gzip`). Whether it is one shows: under a real one there is a gzip file again.
    """
    if not decoders:
        async for chunk in chunks:
            yield chunk
        return
    is_doubtful = not plan.is_document and len(decoders) == 1 and _is_gzip_name(plan.url)
    is_plain = False
    try:
        async for chunk in chunks:
            if is_doubtful and chunk:
                is_doubtful = False
                packed = chunk.startswith(_GZIP)
                first = next(iter(_Inflate("gzip").pieces(chunk)), b"") if packed else b""
                is_plain = not first.startswith(_GZIP)
            if is_plain:
                yield chunk
                continue
            for piece in _inflated(chunk, decoders):
                yield piece
                await asyncio.sleep(0)  # a little input may be a lot of output
    except zlib.error as error:
        raise UpstreamFailed(
            f"{shown(answer.url)} sends this {plan.kind} in a broken coding ({error})", reason="coding"
        ) from error
    if not is_plain and not all(decoder.is_complete for decoder in decoders):
        raise UpstreamFailed(f"what {shown(answer.url)} sends for this {plan.kind} ends too early", reason="coding")


def _inflated(data: bytes, decoders: list[_Inflate]) -> Any:
    if not decoders:
        yield data
        return
    for piece in decoders[0].pieces(data):
        yield from _inflated(piece, decoders[1:])


def _is_gzip_name(url: str) -> bool:
    return url.partition("?")[0].lower().endswith((".gz", ".tgz", ".svgz", ".crate"))
