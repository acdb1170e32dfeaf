"""Requesting background work in the transaction that causes it, and the life of a request's row.

    queued ──lease()──▶ running ──succeed()──▶ succeeded
      ▲                   │  │
      └──retry()/later()──┘  └──fail(), or the last attempt ended──▶ failed

A row is leased with the database's time and a fence that grows with every lease. Whoever writes about a lease names
its fence: a runner that slept past the end of its lease is refused, whatever it did meanwhile. A runner that was killed
leaves a lease that ends; the row is then leased again, or failed if it had its last attempt (a poison job).
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db import IntegrityError, connection, transaction
from django.db.models import F, Q, QuerySet

from . import holder, kinds
from .models import JobRun
from .moment import database_now
from .poke import poke

LEASE_SECONDS = 60
BACK_OFF_SECONDS = 5
LONGEST_BACK_OFF_SECONDS = 3600
ERROR_CHARACTERS = 4000


class LeaseLost(Exception):
    """Another runner has the job, or it was ended: stop, and write nothing more about it."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run one job for LEASE_SECONDS, longer while `renew` succeeds."""

    run_id: int
    kind: str
    arguments: Mapping[str, Any]
    fence: int
    attempts: int
    max_attempts: int


def request(
    kind: str,
    arguments: Mapping[str, object] | None = None,
    *,
    requested_by: str = "",
    dedupe_key: str = "",
    run_after: datetime.datetime | None = None,
    max_attempts: int = 5,
) -> JobRun:
    """A JobRun in the caller's transaction; workers are woken after its commit, whether or not a broker answers.

    With a `dedupe_key`, a queued request of the same key is returned instead of a second one; one that already runs
    does not count, since it may have looked before the caller's change. Raises BadRequest for an unknown kind or
    argument.
    """
    given = dict(arguments or {})
    kinds.validate(kind, given)
    now = database_now()
    fields: dict[str, Any] = {
        "kind": kind,
        "arguments": given,
        "requested_by": requested_by[:160],
        "dedupe_key": dedupe_key,
        "run_after": run_after or now,
        "max_attempts": max_attempts,
        "created_at": now,
    }
    if not dedupe_key:
        run = JobRun.objects.create(**fields)
    else:
        run = _request_once(fields)
    transaction.on_commit(poke, robust=True)
    return run


def _request_once(fields: Mapping[str, Any]) -> JobRun:
    while True:
        queued = JobRun.objects.filter(dedupe_key=fields["dedupe_key"], state=JobRun.State.QUEUED).first()
        if queued is not None:
            return queued
        try:
            with transaction.atomic():
                return JobRun.objects.create(**fields)
        except IntegrityError:  # somebody else asked first, and is committed now
            continue


def _due(now: datetime.datetime) -> Q:
    return Q(state=JobRun.State.QUEUED, run_after__lte=now) | Q(state=JobRun.State.RUNNING, leased_until__lt=now)


def _waiting(now: datetime.datetime, run_id: int | None) -> QuerySet[JobRun]:
    rows = JobRun.objects.filter(_due(now))
    return rows if run_id is None else rows.filter(pk=run_id)


def lease(run_id: int | None = None) -> Lease | None:
    """Take the job that has waited longest, or that one. Jobs whose last attempt died with its runner are failed on the
    way. Where nothing is due nothing is written, so that an idle worker disturbs nobody."""
    while _waiting(database_now(), run_id).exists():
        with transaction.atomic(durable=True):
            now = database_now()
            rows = _waiting(now, run_id).order_by("run_after", "id")
            if connection.vendor == "postgresql":
                rows = rows.select_for_update(skip_locked=True)
            run = rows.first()
            if run is None:
                return None
            if run.attempts >= run.max_attempts:
                JobRun.objects.filter(pk=run.pk).update(
                    state=JobRun.State.FAILED,
                    lease="",
                    leased_until=None,
                    fence=run.fence + 1,
                    finished_at=now,
                    error=f"the worker ended during attempt {run.attempts} of {run.max_attempts}, as it did before",
                )
                continue
            run.fence += 1
            run.attempts += 1
            JobRun.objects.filter(pk=run.pk).update(
                state=JobRun.State.RUNNING,
                lease=holder.mark(),
                leased_until=now + datetime.timedelta(seconds=LEASE_SECONDS),
                fence=run.fence,
                attempts=run.attempts,
                started_at=now,
                finished_at=None,
            )
        return Lease(run.pk, run.kind, run.arguments, run.fence, run.attempts, run.max_attempts)
    return None


def free_orphans() -> int:
    """End the leases of runners that were killed on this machine, instead of waiting for their time. Returns how many."""
    orphans = [
        (run_id, fence)
        for run_id, fence, mark in JobRun.objects.filter(state=JobRun.State.RUNNING).values_list("pk", "fence", "lease")
        if holder.is_dead(mark)
    ]
    for run_id, fence in orphans:
        with transaction.atomic(durable=True):
            past = database_now() - datetime.timedelta(seconds=1)
            JobRun.objects.filter(pk=run_id, fence=fence, state=JobRun.State.RUNNING).update(leased_until=past)
    return len(orphans)


def _held(held: Lease) -> Any:
    return JobRun.objects.filter(pk=held.run_id, fence=held.fence, state=JobRun.State.RUNNING)


def renew(held: Lease, progress: Mapping[str, object] | None = None) -> None:
    """LEASE_SECONDS more. Raises LeaseLost; a lease that ran out but that nobody else took is good again."""
    with transaction.atomic(durable=True):
        until = database_now() + datetime.timedelta(seconds=LEASE_SECONDS)
        changes: dict[str, Any] = {"leased_until": until}
        if progress is not None:
            changes["progress"] = dict(progress)
        if _held(held).update(**changes) != 1:
            raise LeaseLost(f"job {held.run_id} was taken over")


def _end(held: Lease, **changes: Any) -> None:
    with transaction.atomic(durable=True):
        if _held(held).update(lease="", leased_until=None, **changes) != 1:
            raise LeaseLost(f"job {held.run_id} was taken over")


def succeed(held: Lease, result: Mapping[str, object]) -> None:
    """Raises LeaseLost."""
    _end(held, state=JobRun.State.SUCCEEDED, result=dict(result), error="", progress=None, finished_at=database_now())


def fail(held: Lease, error: str) -> None:
    """It will not be tried again. Raises LeaseLost."""
    _end(held, state=JobRun.State.FAILED, error=error[:ERROR_CHARACTERS], finished_at=database_now())


def retry(held: Lease, error: str) -> bool:
    """Try again after a pause that doubles each time; failed after the last attempt. Returns whether it will be tried
    again. Raises LeaseLost."""
    if held.attempts >= held.max_attempts:
        fail(held, error)
        return False
    pause = min(BACK_OFF_SECONDS * 2 ** (held.attempts - 1), LONGEST_BACK_OFF_SECONDS)
    _requeue(held, pause, error=error[:ERROR_CHARACTERS])
    return True


def later(held: Lease, seconds: float) -> None:
    """Not now (somebody else does the same, or this worker is stopping): it costs no attempt. Raises LeaseLost."""
    _requeue(held, seconds, attempts=F("attempts") - 1)


def _requeue(held: Lease, seconds: float, **changes: Any) -> None:
    run_after = database_now() + datetime.timedelta(seconds=seconds)
    try:
        _end(held, state=JobRun.State.QUEUED, run_after=run_after, **changes)
    except IntegrityError:  # the same was requested again meanwhile; that request will do what this one could not
        _end(
            held,
            state=JobRun.State.FAILED,
            finished_at=database_now(),
            error=f"{changes.get('error', '')}\na later request of the same takes its place".strip(),
        )


def forget_finished(older_than: datetime.timedelta, *, batch: int = 500) -> int:
    """Remove rows of jobs that ended well long ago; failed ones stay ten times as long. Returns how many."""
    removed = 0
    now = database_now()
    for state, age in ((JobRun.State.SUCCEEDED, older_than), (JobRun.State.FAILED, older_than * 10)):
        while True:
            with transaction.atomic(durable=True):
                old = JobRun.objects.filter(state=state, finished_at__lt=now - age)
                count, _ = JobRun.objects.filter(pk__in=list(old.values_list("pk", flat=True)[:batch])).delete()
            removed += count
            if count < batch:
                break
    return removed


def revive(run_id: int) -> bool:
    """Put a failed job into the queue again, with all its attempts. False where there is none of that id."""
    with transaction.atomic(durable=True):
        revived = JobRun.objects.filter(pk=run_id, state=JobRun.State.FAILED).update(
            state=JobRun.State.QUEUED, run_after=database_now(), attempts=0, finished_at=None
        )
        transaction.on_commit(poke, robust=True)
    return revived == 1
