"""How a remote's upstream is doing: what it does not have (in memory, for a while), and its last trouble (for people)."""

from __future__ import annotations

import threading
from collections import OrderedDict

from repoman.catalog.models import Repository
from repoman.core import clock
from repoman.core.errors import NotFound
from repoman.core.fetch import Outcome

from .models import UpstreamState

MOST_ABSENT = 20_000
NOTED_EVERY_SECONDS = 30.0
_absent: OrderedDict[tuple[int, int, str], float] = OrderedDict()
_noted: dict[int, tuple[bool, float]] = {}
_lock = threading.Lock()


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
        _absent[repository_id, generation, key] = clock.monotonic() + seconds
        _absent.move_to_end((repository_id, generation, key))
        while len(_absent) > MOST_ABSENT:
            _absent.popitem(last=False)


def note_present(repository_id: int, generation: int, key: str) -> None:
    with _lock:
        _absent.pop((repository_id, generation, key), None)


def note(repository: Repository, outcome: Outcome) -> None:
    """Keep the upstream's last trouble for people. Written when it begins, ends, and now and then while it lasts."""
    error = outcome.error
    fails = error is not None and not isinstance(error, NotFound)
    now = clock.monotonic()
    with _lock:
        before, at = _noted.get(repository.pk, (False, 0.0))
        if fails == before and (not fails or now - at < NOTED_EVERY_SECONDS):
            return
        _noted[repository.pk] = (fails, now)
    UpstreamState.objects.update_or_create(
        repository=repository,
        defaults={
            "last_error": error.message[:2000] if fails and error is not None else "",
            "last_status": outcome.status,
            "changed_at": clock.now(),
        },
    )


def trouble_of(repository: Repository) -> dict[str, object] | None:
    """The upstream's last trouble as plain JSON; None where the last fetch was well."""
    row = UpstreamState.objects.filter(repository=repository).exclude(last_error="").first()
    if row is None:
        return None
    return {"error": row.last_error, "status": row.last_status or None, "since": row.changed_at.isoformat()}
