"""Running jobs: take one, do it, write its end. The queue in the database is the truth; nothing else is trusted.

A worker process has one `Runner`: threads that take jobs, and one that beats, ticks the schedule and looks for work every
few seconds, so that a message lost by the broker costs seconds. The lease is renewed by a thread of its own while the job
runs; a process that is suspended or killed renews nothing, and its job is taken over.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from django.db import close_old_connections, connection

from repoman.core import clock
from repoman.core.errors import RepomanError
from repoman.jobs import queue
from repoman.jobs.heartbeat import BEAT_SECONDS, beat
from repoman.jobs.lease import LeaseBusy, LeaseEnded
from repoman.jobs.progress import Stopping
from repoman.jobs.queue import Lease, LeaseLost

from . import schedule
from .table import job_for

POLL_SECONDS = 2.0
RENEW_SECONDS = 15.0
BUSY_SECONDS = 3.0  # until a job is tried again whose like is running elsewhere
LONGEST_RUN_SECONDS = 24 * 3600.0  # a job that hangs keeps its lease no longer than that
_log = logging.getLogger("repoman.jobs")


class _Renewal:
    """Renews a lease from a thread of its own; `check` tells the job to stop when it is lost or the worker ends."""

    def __init__(self, held: Lease, stopping: threading.Event) -> None:
        self._held = held
        self._stopping = stopping
        self._ended = threading.Event()
        self._lost = False
        self._progress: Mapping[str, object] | None = None
        self._began = clock.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"job-{held.run_id}-lease", daemon=True)

    def __enter__(self) -> _Renewal:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._ended.wait(RENEW_SECONDS) and clock.monotonic() - self._began < LONGEST_RUN_SECONDS:
                try:
                    queue.renew(self._held, self._progress)
                except LeaseLost:
                    self._lost = True
                    return
                except Exception as error:  # the database is away: the lease still stands, the next round tries again
                    _log.warning("job_lease_not_renewed", extra={"run": self._held.run_id, "error": _text(error)})
                finally:
                    close_old_connections()
        finally:
            connection.close()

    def check(self, step: str, counts: Mapping[str, int]) -> None:
        """The job's Progress."""
        self._progress = {"step": step, **counts}
        if self._lost:
            raise LeaseLost(f"job {self._held.run_id} was taken over")
        if self._stopping.is_set():
            raise Stopping


_never = threading.Event()


def run_next(stopping: threading.Event = _never, *, run_id: int | None = None) -> bool:
    """Take the next due job, or that one, and bring it to an end. False where nothing is due."""
    held = queue.lease(run_id)
    if held is None:
        return False
    try:
        _run(held, stopping)
    except LeaseLost:
        _log.warning("job_lease_lost", extra={"run": held.run_id, "kind": held.kind})
    return True


def _run(held: Lease, stopping: threading.Event) -> None:
    began = clock.monotonic()
    try:
        job = job_for(held.kind)
        with _Renewal(held, stopping) as renewal:
            result = job(renewal.check, **held.arguments)
    except (LeaseLost, LeaseEnded) as error:
        raise LeaseLost(str(error)) from error
    except Stopping:
        queue.later(held, 0)
    except LeaseBusy:
        queue.later(held, BUSY_SECONDS)
    except RepomanError as error:
        if error.status < 500:  # asking again would get the same answer
            queue.fail(held, f"{error.code}: {error.message}")
            _log.error("job_failed", extra={"run": held.run_id, "kind": held.kind, "error": error.message})
        else:
            _retry(held, error, f"{error.code}: {error.message}")
    except Exception as error:  # the job's own mistake must not take the worker with it; the row keeps it visible
        _retry(held, error, _text(error))
    else:
        queue.succeed(held, result)
        seconds = round(clock.monotonic() - began, 3)
        _log.info("job_succeeded", extra={"run": held.run_id, "kind": held.kind, "seconds": seconds, **_flat(result)})


def _flat(result: Mapping[str, object]) -> dict[str, object]:
    return {f"result_{name}": value for name, value in result.items() if isinstance(value, int | str)}


def _retry(held: Lease, error: Exception, text: str) -> None:
    again = queue.retry(held, text)
    _log.error(
        "job_attempt_failed" if again else "job_failed",
        extra={"run": held.run_id, "kind": held.kind, "attempt": held.attempts, "error": text},
        exc_info=error,
    )


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[: queue.ERROR_CHARACTERS]


def run_all(stopping: threading.Event = _never) -> int:
    """Everything that is due now, one after the other. Returns how many."""
    done = 0
    while not stopping.is_set() and run_next(stopping):
        done += 1
    return done


class Runner:
    """A worker: `start`, `wake` when there may be work, `stop` when the process ends (jobs stop between two batches and
    go back to the queue)."""

    def __init__(self, *, threads: int = 2, tick: bool = True) -> None:
        self._stopping = threading.Event()
        self._work = threading.Semaphore(0)
        self._tick = tick
        self._threads = [
            threading.Thread(target=self._serve, name=f"jobs-{number}", daemon=True) for number in range(threads)
        ]
        self._threads.append(threading.Thread(target=self._look_around, name="jobs-heartbeat", daemon=True))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        self._work.release()

    def stop(self, seconds: float = 20.0) -> bool:
        """Whether all threads ended in time; those that did not are left to the end of the process, and their jobs to
        whoever takes them over."""
        self._stopping.set()
        deadline = clock.monotonic() + seconds
        for _ in self._threads:
            self._work.release()
        for thread in self._threads:
            thread.join(max(0.0, deadline - clock.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _serve(self) -> None:
        try:
            while not self._stopping.is_set():
                self._work.acquire(timeout=POLL_SECONDS)
                self._guarded(lambda: run_all(self._stopping))
        finally:
            connection.close()

    def _look_around(self) -> None:
        next_tick = clock.monotonic()
        while not self._stopping.is_set():
            self._guarded(beat)
            self._guarded(queue.free_orphans)
            if self._tick and clock.monotonic() >= next_tick:
                next_tick = clock.monotonic() + schedule.TICK_SECONDS
                self._guarded(schedule.tick)
            self._stopping.wait(BEAT_SECONDS)

    def _guarded(self, act: Callable[[], object]) -> None:
        """A thread of the worker outlives whatever fails: the database may be back in a moment."""
        try:
            act()
        except Exception as error:
            _log.warning("worker_not_working", extra={"error": _text(error)})
            self._stopping.wait(POLL_SECONDS)
        finally:
            close_old_connections()
