"""B3, B4, B6, G4: the breaker as a pure machine, and what counts as a failure."""

from __future__ import annotations

import json

import pytest

from repoman.core.errors import NotFound, RepomanError, Unavailable, UpstreamFailed, UpstreamTimeout
from repoman.core.fetch import Outcome
from repoman.transfer.breaker import FAILURES, LONGEST_SECONDS, PROBE_SECONDS, Breaker, Result, judge
from tests.tools.flying import plan_for


def failed(breaker: Breaker, now: float, times: int) -> Breaker:
    for _ in range(times):
        breaker, admission = breaker.admit(now)
        assert admission.is_allowed
        breaker = breaker.record(now, admission.generation, Result.FAILED)
    return breaker


def test_b3_opens_after_five_in_a_row_and_not_before() -> None:
    breaker = failed(Breaker(), 100.0, FAILURES - 1)
    assert breaker.status(100.0) == "closed"
    breaker = failed(breaker, 100.0, 1)
    assert breaker.status(100.0) == "open"
    _, admission = breaker.admit(101.0)
    assert not admission.is_allowed
    assert admission.retry_after == 9


def test_b3_a_sign_of_life_ends_the_series() -> None:
    breaker = failed(Breaker(), 0.0, FAILURES - 1)
    breaker = breaker.record(0.0, breaker.generation, Result.ALIVE)
    assert failed(breaker, 0.0, FAILURES - 1).status(0.0) == "closed"


def test_b4_half_open_lets_exactly_one_probe_through() -> None:
    breaker = failed(Breaker(), 0.0, FAILURES)
    breaker, probe = breaker.admit(10.0)
    assert probe.is_allowed and probe.is_probe
    for _ in range(100):
        breaker, other = breaker.admit(11.0)
        assert not other.is_allowed
        assert other.retry_after >= 1
    closed = breaker.record(12.0, probe.generation, Result.ALIVE)
    assert closed.status(12.0) == "closed"
    assert closed.openings == 0
    assert all(closed.admit(12.0)[1].is_allowed for _ in range(10))


def test_b4_a_stalled_probe_gives_way_to_another_at_its_deadline() -> None:
    breaker, stalled = failed(Breaker(), 0.0, FAILURES).admit(10.0)
    assert not breaker.admit(10.0 + PROBE_SECONDS - 1)[1].is_allowed
    breaker, second = breaker.admit(10.0 + PROBE_SECONDS)
    assert second.is_allowed and second.is_probe
    late = breaker.record(50.0, stalled.generation, Result.ALIVE)
    assert late == breaker, "the late answer of the first probe says nothing any more"


def test_b4_a_failed_probe_doubles_the_pause_up_to_five_minutes() -> None:
    now = 0.0
    breaker = failed(Breaker(), now, FAILURES)
    pauses = []
    for _ in range(8):
        pauses.append(breaker.open_until - now)
        now = breaker.open_until
        breaker, probe = breaker.admit(now)
        breaker = breaker.record(now, probe.generation, Result.FAILED)
    assert pauses == [10, 20, 40, 80, 160, LONGEST_SECONDS, LONGEST_SECONDS, LONGEST_SECONDS]


def test_b4_results_from_before_the_opening_are_fenced() -> None:
    breaker = Breaker()
    admissions = [breaker.admit(0.0)[1] for _ in range(20)]
    for admission in admissions[:FAILURES]:
        breaker = breaker.record(0.0, admission.generation, Result.FAILED)
    opened = breaker
    for admission in admissions[FAILURES:]:
        breaker = breaker.record(5.0, admission.generation, Result.FAILED)
        breaker = breaker.record(5.0, admission.generation, Result.ALIVE)
    assert breaker == opened


def test_b4_a_probe_that_failed_on_our_side_leaves_room_for_the_next() -> None:
    breaker, probe = failed(Breaker(), 0.0, FAILURES).admit(10.0)
    breaker = breaker.record(10.5, probe.generation, Result.UNKNOWN)
    assert breaker.status(10.5) == "half-open"
    assert breaker.admit(10.5)[1].is_probe


def test_g7_a_429_blocks_until_its_retry_after_and_opens_nothing() -> None:
    breaker = Breaker().record(100.0, 0, Result.ALIVE, retry_after=60)
    assert breaker.status(130.0) == "throttled"
    _, admission = breaker.admit(130.0)
    assert not admission.is_allowed and admission.retry_after == 30
    assert breaker.admit(160.0)[1].is_allowed


def test_b7_the_state_survives_a_row() -> None:
    breaker, _ = failed(Breaker(), 7.5, FAILURES).admit(20.0)
    assert Breaker.from_json(json.loads(json.dumps(breaker.to_json()))) == breaker
    assert Breaker.from_json({"failures": 2, "of_a_later_version": 1}) == Breaker(failures=2)


@pytest.mark.parametrize(
    ("status", "error", "result"),
    [
        (200, None, Result.ALIVE),
        (304, None, Result.ALIVE),
        (404, NotFound(), Result.ALIVE),
        (401, UpstreamFailed(reason="credentials"), Result.ALIVE),
        (403, NotFound(), Result.ALIVE),
        (500, UpstreamFailed(reason="status"), Result.ALIVE),
        (502, UpstreamFailed(reason="status"), Result.FAILED),
        (503, UpstreamFailed(reason="status"), Result.FAILED),
        (504, UpstreamFailed(reason="status"), Result.FAILED),
        (200, UpstreamFailed(reason="digest"), Result.ALIVE),
        (200, UpstreamTimeout(reason="timeout"), Result.FAILED),
        (0, UpstreamTimeout(reason="timeout"), Result.FAILED),
        (0, UpstreamFailed(reason="connect"), Result.FAILED),
        (0, UpstreamFailed(reason="tls"), Result.FAILED),
        (0, UpstreamFailed(reason="address"), Result.UNKNOWN),
        (0, UpstreamFailed(reason="redirect"), Result.UNKNOWN),
        (0, Unavailable(reason="queue"), Result.UNKNOWN),
        (0, RepomanError(), Result.UNKNOWN),
    ],
)
def test_b3_what_counts(status: int, error: RepomanError | None, result: Result) -> None:
    assert judge(Outcome(plan_for("http://x.example/"), status=status, error=error))[0] is result
