"""When a remote is left alone for a while: a pure state machine, to be kept in memory or in a row.

Only failures of the infrastructure count (no connection, time-outs, 502, 503, 504), and only in an unbroken series: one
broken path must not take a remote down, so 4xx and 500 show that it lives.

    closed ── 5 failures in a row ──▶ open for 10 s ── time is up ──▶ one probe ── it lives ──▶ closed
                                        ▲                                │
                                        └── failed: twice as long (≤ 5 min)

A probe that does not come back has a deadline, after which another is let through. Every change of state begins a new
generation; a result of an older one is ignored, so that a request that was sent before the breaker opened can neither
close it nor prolong it. A 429 with Retry-After blocks until then, whatever the state.

`now` is in seconds, always of the same clock (the epoch's where the state is shared between processes).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from repoman.core.errors import Unavailable, UpstreamTimeout
from repoman.core.fetch import Outcome

FAILURES = 5
FIRST_SECONDS = 10.0
LONGEST_SECONDS = 300.0
PROBE_SECONDS = 30.0


class Result(enum.Enum):
    """What a request said about its remote. UNKNOWN: nothing (it failed here, or was refused before it was sent)."""

    ALIVE = "alive"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a request may be sent now; `generation` goes back with its result. `retry_after` seconds where not."""

    is_allowed: bool
    generation: int
    is_probe: bool = False
    retry_after: int = 0


@dataclass(frozen=True, slots=True)
class Breaker:
    """The state; what a new remote has is the default. `open_until` 0: closed. `openings`: in a row."""

    failures: int = 0
    generation: int = 0
    openings: int = 0
    open_until: float = 0.0
    probe_until: float = 0.0
    blocked_until: float = 0.0

    def status(self, now: float) -> str:
        """ "closed", "open", "half-open" or "throttled", for people and metrics."""
        if self.open_until:
            return "open" if now < self.open_until else "half-open"
        return "throttled" if now < self.blocked_until else "closed"

    def admit(self, now: float) -> tuple[Self, Admission]:
        """The next state, and whether to send. To be stored before the request is sent, so that one is the probe."""
        if now < self.blocked_until:
            return self, self._refused(self.blocked_until - now)
        if not self.open_until:
            return self, Admission(True, self.generation)
        if now < self.open_until:
            return self, self._refused(self.open_until - now)
        if now < self.probe_until:
            return self, self._refused(min(self.probe_until - now, FIRST_SECONDS))
        probing = replace(self, generation=self.generation + 1, probe_until=now + PROBE_SECONDS)
        return probing, Admission(True, probing.generation, is_probe=True)

    def record(self, now: float, generation: int, result: Result, retry_after: int | None = None) -> Self:
        """The next state after a request of `generation`. `retry_after`: a 429's, in seconds."""
        if generation != self.generation:
            return self
        state = self
        if retry_after is not None and result is Result.ALIVE:
            state = replace(state, blocked_until=max(state.blocked_until, now + retry_after))
        if result is Result.UNKNOWN:
            return replace(state, probe_until=0.0) if state.probe_until else state
        if result is Result.ALIVE:
            if state.open_until:
                return type(self)(generation=self.generation + 1, blocked_until=state.blocked_until)
            return replace(state, failures=0) if state.failures else state
        failures = state.failures + 1
        if not state.open_until and failures < FAILURES:
            return replace(state, failures=failures)
        pause = min(FIRST_SECONDS * 2.0 ** min(state.openings, 16), LONGEST_SECONDS)
        return replace(
            state,
            failures=failures,
            generation=state.generation + 1,
            openings=state.openings + 1,
            open_until=now + pause,
            probe_until=0.0,
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """What to_json gave; unknown names are ignored."""
        return cls(**{name: value for name, value in fields.items() if name in cls.__slots__})

    def _refused(self, seconds: float) -> Admission:
        return Admission(False, self.generation, retry_after=max(1, math.ceil(seconds)))


def judge(outcome: Outcome) -> tuple[Result, int | None]:
    """What an outcome says about its remote, and the Retry-After of a 429."""
    error = outcome.error
    if outcome.status == 429:
        return Result.ALIVE, error.retry_after_seconds if isinstance(error, Unavailable) else None
    if outcome.status in (502, 503, 504) or isinstance(error, UpstreamTimeout):
        return Result.FAILED, None
    if outcome.status:
        return Result.ALIVE, None
    reason = error.detail.get("reason") if error is not None else None
    if reason == "throttled" and isinstance(error, Unavailable):  # by its token server
        return Result.ALIVE, error.retry_after_seconds
    return (Result.FAILED if reason in ("connect", "tls", "protocol") else Result.UNKNOWN), None
