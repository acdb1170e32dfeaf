"""What runs by itself, and how often: one table. Any number of schedulers may tick; each tick counts once."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field

from django.db import transaction

from repoman.jobs.models import ScheduleTick
from repoman.jobs.moment import database_now
from repoman.jobs.queue import request


@dataclass(frozen=True, slots=True)
class Entry:
    """`name` is the row's; a job of `kind` is requested every `every_seconds`, for the first time one period after the
    first start."""

    name: str
    kind: str
    every_seconds: int
    arguments: Mapping[str, object] = field(default_factory=dict)


SCHEDULE: tuple[Entry, ...] = (
    Entry("expire-uploads", "expire_uploads", 300),
    Entry("delete-leftovers", "delete_leftovers", 900),
    Entry("purge", "purge", 3600),
    Entry("collect", "collect", 3600, {"objects": False}),
    Entry("collect-objects", "collect", 86400),
)
TICK_SECONDS = 10


def tick(schedule: tuple[Entry, ...] = SCHEDULE) -> list[str]:
    """Request what is due and return the names. A second scheduler, or a second tick, finds the row moved on.

    The moment in the row and the request are one transaction. A moment in the future was written while the clock was
    wrong: it counts as due.
    """
    now = database_now()
    rows = dict(ScheduleTick.objects.filter(name__in=[entry.name for entry in schedule]).values_list("name", "last_at"))
    requested: list[str] = []
    for entry in schedule:
        last = rows.get(entry.name)
        if last is None:
            with transaction.atomic(durable=True):
                ScheduleTick.objects.bulk_create([ScheduleTick(name=entry.name, last_at=now)], ignore_conflicts=True)
        elif not last <= now < last + datetime.timedelta(seconds=entry.every_seconds) and _take(entry, last, now):
            requested.append(entry.name)
    return requested


def _take(entry: Entry, last: datetime.datetime, now: datetime.datetime) -> bool:
    with transaction.atomic(durable=True):
        if ScheduleTick.objects.filter(name=entry.name, last_at=last).update(last_at=now) != 1:
            return False
        request(
            entry.kind,
            entry.arguments,
            requested_by="system:schedule",
            dedupe_key=f"schedule:{entry.name}",
        )
        return True
