"""Asking for background work, and reading what became of it; and reading the audit log."""

from __future__ import annotations

from collections.abc import Mapping

from django.db.models import Q, QuerySet

from repoman.access import permissions
from repoman.core.actor import Actor
from repoman.core.errors import NotFound
from repoman.events.models import Event
from repoman.events.record import record
from repoman.jobs import kinds, queue
from repoman.jobs.models import JobRun

from .transactions import write


class JobNotFound(NotFound):
    """No such job."""

    code = "job_not_found"


def request_job(actor: Actor, kind: str, arguments: Mapping[str, object]) -> JobRun:
    """Administrators only. Raises BadRequest for an unknown kind or argument."""
    permissions.check_admin(actor)
    kinds.validate(kind, arguments, public=True)

    def block() -> JobRun:
        run = queue.request(kind, arguments, requested_by=actor.name)
        record("job:request", actor=actor, subject=kind, job=run.pk, arguments=dict(arguments))
        return run

    return write(block)


def jobs(actor: Actor) -> QuerySet[JobRun]:
    permissions.check_admin(actor)
    return JobRun.objects.all()


def job(actor: Actor, job_id: int) -> JobRun:
    found = jobs(actor).filter(pk=job_id).first()
    if found is None:
        raise JobNotFound(f"there is no job {job_id}")
    return found


def audit(actor: Actor) -> QuerySet[Event]:
    """All of it for administrators; for others that of the namespaces they own, since they do.

    Not their own acts elsewhere: that a refusal was recorded would tell that the thing exists.
    """
    permissions.check_management(actor)
    if actor.is_admin:
        return Event.objects.all()
    condition = Q(pk__in=[])
    for name, since in permissions.owned_namespaces(actor).values_list("name", "created_at"):
        # A name may have belonged to somebody else before.
        condition |= Q(namespace=name, at__gte=since)
    return Event.objects.filter(condition)
