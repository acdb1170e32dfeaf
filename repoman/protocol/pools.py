"""Bounded thread pools: where synchronous work runs, so that the event loop never waits for a database or a disk.

Each kind of work has threads of its own, so that slow passwords, slow disks or slow API calls cannot keep the others
waiting. A full queue refuses at once (Unavailable with Retry-After) instead of making everybody wait longer.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from repoman.core.clock import monotonic
from repoman.core.errors import Unavailable

Result = TypeVar("Result")
STALE_SECONDS = 10.0  # what waited this long is refused instead of begun: its client has most likely given up

_Call = tuple["asyncio.Future[Any] | None", float, Callable[..., Any], tuple[Any, ...]]


class _Worker:
    """A thread of a pool; `wake` is released once for each call that is handed to it."""

    __slots__ = ("call", "thread", "wake")

    def __init__(self, call: _Call | None) -> None:
        self.call = call
        self.thread: threading.Thread | None = None
        self.wake = threading.Lock()
        self.wake.acquire()


class Pool:
    """`threads` threads, started as they are needed, and at most `waiting` queued calls.

    `around` is called once in every thread after each call, with the exception or None: it returns or closes the
    thread's database connection.
    """

    def __init__(
        self, name: str, *, threads: int, waiting: int, around: Callable[[BaseException | None], None] | None = None
    ) -> None:
        self.name = name
        self.threads = threads
        self.waiting = waiting
        self._around = around
        self._lock = threading.Lock()
        self._queue: deque[_Call] = deque()
        self._idle: list[_Worker] = []  # the last one to rest is the first to work: few threads, few connections
        self._workers: list[_Worker] = []
        self._closed = False

    @property
    def depth(self) -> int:
        """Calls that wait for a thread."""
        return len(self._queue)

    def waiting_calls(self) -> float:
        return float(len(self._queue))

    def run(self, function: Callable[..., Result], *arguments: Any) -> asyncio.Future[Result]:
        """Run it in a thread; await the future for its result or error. Raises Unavailable when the queue is full.

        Cancelling the future does not stop a call that has begun.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        if len(self._queue) >= self.waiting:
            raise Unavailable("the server is busy; try again in a moment", retry_after_seconds=1)
        self._give((future, monotonic(), function, arguments))
        return future

    def post(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Run it without a result, queue limit or loop: for what must happen, such as abandoning a sink."""
        self._give((None, 0.0, function, arguments))

    def _give(self, call: _Call) -> None:
        with self._lock:
            if self._idle:
                worker = self._idle.pop()
                worker.call = call
                worker.wake.release()
            elif len(self._workers) < self.threads:
                worker = _Worker(call)
                self._workers.append(worker)
                worker.thread = threading.Thread(
                    target=self._work, args=(worker,), name=f"{self.name}-{len(self._workers)}", daemon=True
                )
                worker.thread.start()
            else:
                self._queue.append(call)

    def _work(self, worker: _Worker) -> None:
        while (call := worker.call) is not None:
            worker.call = None
            self._call(*call)
            del call
            with self._lock:
                if self._queue:
                    worker.call = self._queue.popleft()
                    continue
                if self._closed:
                    return
                self._idle.append(worker)
            worker.wake.acquire()

    def _call(
        self,
        future: asyncio.Future[Any] | None,
        queued_at: float,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
    ) -> None:
        result: Any = None
        error: BaseException | None = None
        if future is not None and future.cancelled():
            return
        if future is not None and monotonic() - queued_at > STALE_SECONDS:
            error = Unavailable("the server is busy; try again in a moment", retry_after_seconds=2)
        else:
            try:
                result = function(*arguments)
            except BaseException as raised:
                error = raised
        if self._around is not None:
            try:
                self._around(error)
            except Exception as raised:
                error = error or raised
        if future is None:
            if error is not None:
                from repoman.ops.logs import logger

                logger.error("pool_call_failed", exc_info=error, extra={"fields": {"pool": self.name}})
            return
        try:
            future.get_loop().call_soon_threadsafe(_settle, future, result, error)
        except RuntimeError:
            return  # the loop has closed: nobody waits any more

    def close(self) -> None:
        """Finish what is queued, then end the threads. Waits at most 30 s for each."""
        with self._lock:
            self._closed = True
            resting, self._idle = self._idle, []
        for worker in resting:
            worker.wake.release()
        for worker in self._workers:
            if worker.thread is not None:
                worker.thread.join(30)


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):
        future.set_exception(RuntimeError("a call in a pool raised StopIteration"))
    else:
        future.set_exception(error)


def _give_back(error: BaseException | None) -> None:
    """Leave the thread's connection fit for the next call: returned to its pool (PostgreSQL), closed after an error.

    A connection that an exception of the database left in doubt is not used again; a new one is cheap.
    """
    from django.db import DatabaseError, InterfaceError, connections

    for connection in connections.all(initialized_only=True):
        if connection.connection is None:
            continue
        broken = isinstance(error, DatabaseError | InterfaceError) or connection.in_atomic_block
        if broken or connection.settings_dict["CONN_MAX_AGE"] == 0:
            connection.close()
        elif not connection.get_autocommit():
            connection.close()


class Pools:
    """The pools of one process."""

    def __init__(self, *, decisions: int = 8, storage: int = 8, api: int = 4, sign_in: int = 2) -> None:
        self.decisions = Pool("decision", threads=decisions, waiting=512, around=_give_back)
        self.storage = Pool("storage", threads=storage, waiting=2048, around=_give_back)
        self.api = Pool("api", threads=api, waiting=128, around=_give_back)
        self.sign_in = Pool("sign-in", threads=sign_in, waiting=128, around=_give_back)

    def all(self) -> tuple[Pool, ...]:
        return (self.decisions, self.storage, self.api, self.sign_in)

    def close(self) -> None:
        for pool in self.all():
            pool.close()


_pools: Pools | None = None


def pools() -> Pools:
    """The pools of this process, made at the first use (after a fork)."""
    global _pools
    if _pools is None:
        from django.conf import settings

        is_postgresql = settings.DATABASES["default"]["ENGINE"] == "repoman.db.postgresql"
        _pools = Pools(decisions=settings.CONFIGURATION["REPOMAN_DATABASE_POOL"] if is_postgresql else 8)
    return _pools


def close_pools() -> None:
    global _pools
    if _pools is not None:
        _pools.close()
        _pools = None
