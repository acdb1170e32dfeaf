"""How a remote's upstream is doing: what it does not have and failed to give (in memory, for a while), and its last
trouble (for people)."""

from __future__ import annotations

import datetime
import logging
import threading
from collections import OrderedDict

from repoman.catalog.models import Repository
from repoman.core import clock
from repoman.core.errors import RepomanError, Unavailable, UpstreamFailed, UpstreamTimeout
from repoman.core.fetch import Outcome

from .models import UpstreamState

MOST_REMEMBERED = 20_000
NOTED_EVERY_SECONDS = 30.0
FAILED_AT_LEAST_SECONDS = 2.0
FAILED_AT_MOST_SECONDS = 30.0
_Key = tuple[int, int, str]
_absent: OrderedDict[_Key, float] = OrderedDict()
_failed: OrderedDict[_Key, tuple[float, datetime.datetime, RepomanError]] = OrderedDict()
_noted: dict[int, tuple[bool, float]] = {}
_lock = threading.Lock()
logger = logging.getLogger("repoman.sources")


# --- in memory -------------------------------------------------------------------------------------------------------


def is_known_absent(repository_id: int, generation: int, key: str) -> bool:
    """Whether the upstream said lately that it does not have this."""
    with _lock:
        until = _absent.get((repository_id, generation, key))
        if until is None:
            return False
        if until <= clock.monotonic():
            del _absent[repository_id, generation, key]
            return False
        return True


def note_absent(repository_id: int, generation: int, key: str, seconds: float) -> None:
    with _lock:
        _failed.pop((repository_id, generation, key), None)
        if seconds > 0:
            _absent[repository_id, generation, key] = clock.monotonic() + seconds
            _absent.move_to_end((repository_id, generation, key))
            while len(_absent) > MOST_REMEMBERED:
                _absent.popitem(last=False)


def note_present(repository_id: int, generation: int, key: str) -> None:
    with _lock:
        _absent.pop((repository_id, generation, key), None)
        _failed.pop((repository_id, generation, key), None)


def failed_lately(
    repository_id: int, generation: int, key: str, since: datetime.datetime | None = None
) -> RepomanError | None:
    """What the upstream failed with when it was asked for this a moment ago; None where another process got it since."""
    with _lock:
        found = _failed.get((repository_id, generation, key))
        if found is None:
            return None
        if found[0] <= clock.monotonic():
            del _failed[repository_id, generation, key]
            return None
        return found[2] if since is None or found[1] >= since else None


def note_failed(repository_id: int, generation: int, key: str, error: RepomanError, took_seconds: float) -> None:
    """Remember it for twice as long as it took to find out, within bounds: who holds a stale copy then waits for a
    silent upstream a third of the time at most, and one that is back is seen at once where it failed at once."""
    seconds = min(max(2 * took_seconds, FAILED_AT_LEAST_SECONDS), FAILED_AT_MOST_SECONDS)
    plain = error.with_traceback(None)
    plain.__cause__ = plain.__context__ = None
    with _lock:
        _failed[repository_id, generation, key] = (clock.monotonic() + seconds, clock.now(), plain)
        _failed.move_to_end((repository_id, generation, key))
        while len(_failed) > MOST_REMEMBERED:
            _failed.popitem(last=False)


# --- for people ------------------------------------------------------------------------------------------------------


def is_trouble(error: RepomanError | None) -> bool:
    """Whether the upstream is to blame, and not the quota, the disk or the server that is stopping."""
    if isinstance(error, Unavailable):
        return error.detail.get("reason") in ("throttled", "breaker")
    return isinstance(error, UpstreamFailed | UpstreamTimeout)


def note(repository: Repository, outcome: Outcome) -> None:
    """Keep the upstream's last trouble. Looked at when it begins and ends, and now and then while nothing changes, for
    other processes ask the same upstream; logged by the one that saw the change first."""
    error = outcome.error
    fails = is_trouble(error)
    if error is not None and not fails and not outcome.status:
        return  # nothing was heard of the upstream
    now = clock.monotonic()
    with _lock:
        before, at = _noted.get(repository.pk, (None, 0.0))
        if fails == before and now - at < NOTED_EVERY_SECONDS:
            return
        _noted[repository.pk] = (fails, now)
    rows = UpstreamState.objects.filter(repository=repository)
    fields = {"key": repository.key, "status": outcome.status}
    if not fails:
        if rows.exclude(last_error="").update(last_error="", last_status=outcome.status, changed_at=clock.now()):
            logger.info("upstream_recovered", extra={"fields": fields})
        return
    assert error is not None
    told = {"last_error": error.message[:2000], "last_status": outcome.status}
    begun = {**told, "changed_at": clock.now()}
    _, is_new = UpstreamState.objects.get_or_create(repository=repository, defaults=begun)
    if not is_new and not rows.filter(last_error="").update(**begun):
        rows.update(**told)  # it lasts since then
        return
    logger.warning("upstream_trouble", extra={"fields": {**fields, "error": error.message[:300]}})


def trouble_of(repository: Repository) -> dict[str, object] | None:
    """The upstream's last trouble as plain JSON; None where the last fetch was well."""
    row = UpstreamState.objects.filter(repository=repository).exclude(last_error="").first()
    if row is None:
        return None
    return {"error": row.last_error, "status": row.last_status or None, "since": row.changed_at.isoformat()}
