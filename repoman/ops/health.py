"""Whether this process can serve: each dependency is tried, and the answer names those that fail, never why in detail.

`/healthz` is answered by the event loop alone and says only that the process lives.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from repoman.core.errors import RepomanError
from repoman.ops.logs import logger

KEEP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Check:
    """`reason` is a sentence for operators that gives away nothing of the inside; empty when all is well."""

    name: str
    reason: str

    @property
    def is_well(self) -> bool:
        return not self.reason


_last: tuple[float, tuple[Check, ...]] = (-KEEP_SECONDS, ())
_lock = threading.Lock()


def readiness() -> tuple[Check, ...]:
    """Try database, blob store and worker. Kept for a second, so that many probes cost one. Synchronous."""
    global _last
    with _lock:
        at, checks = _last
        if time.monotonic() - at > KEEP_SECONDS:
            checks = tuple(
                _tried(name, check) for name, check in (("database", _database), ("blobs", _blobs), ("worker", _worker))
            )
            _last = (time.monotonic(), checks)
        return checks


def _tried(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, check())
    except RepomanError as error:
        reason = error.message
    except Exception as error:
        logger.warning("not_ready", exc_info=error, extra={"fields": {"dependency": name}})
        reason = "does not answer"
    return Check(name, reason)


_migrated = False


def _database() -> str:
    """Answers, and has every migration (which, once seen, stays true for this process)."""
    global _migrated
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    with connection.cursor() as cursor:
        cursor.execute("SELECT value FROM access_accessepoch") if _migrated else cursor.execute("SELECT 1")
        cursor.fetchone()
    if not _migrated:
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            return "has migrations that are not applied"
        _migrated = True
    return ""


def _blobs() -> str:
    from repoman.blobs import store

    store.driver().check()
    return ""


def _worker() -> str:
    """Some worker, on any machine, said within the last seconds that it lives."""
    from repoman.jobs.heartbeat import worker_seen

    return "" if worker_seen() else "is not running"
