"""What is left to do when a request is answered: count it and log it, many at a time, since that is cheaper."""

from __future__ import annotations

import time
from typing import Any

from repoman.core.clock import monotonic
from repoman.ops.logs import AccessLog
from repoman.ops.metrics import Metrics

from .origin import Origin

AT_ONCE = 128
SECONDS = 0.2
# method, route class, path as logged, status, bytes in, bytes out, began at, ended at, request id, actor, origin
Note = tuple[str, str, str, int, int, int, float, float, str, str, Origin]


class Afterwards:
    """Takes a note per request; every 128 notes, or 0.2 s after the first, counts and logs them."""

    def __init__(self, metrics: Metrics, log: AccessLog) -> None:
        self.metrics = metrics
        self.log = log
        self._notes: list[Note] = []
        self._timer: Any = None

    def note(self, loop: Any, note: Note) -> None:
        notes = self._notes
        notes.append(note)
        if self._timer is None:
            self._timer = loop.call_later(SECONDS, self.settle)
        elif len(notes) >= AT_ONCE:
            self.settle()

    def settle(self) -> None:
        """Count and log what was noted."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        notes, self._notes = self._notes, []
        shift = time.time() - monotonic()
        count, log = self.metrics.request, self.log
        for method, route, path, status, received, sent, began, ended, request_id, actor, origin in notes:
            seconds = ended - began
            count(route, status, seconds, received, sent)
            if log.enabled:
                log.add(
                    ended + shift,
                    method,
                    route,
                    path,
                    status,
                    received,
                    sent,
                    seconds,
                    request_id,
                    actor,
                    origin.address,
                )
        log.flush()
