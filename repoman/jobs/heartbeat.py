"""Whether somebody works: each worker refreshes one row every few seconds, and `/readyz` looks at it."""

from __future__ import annotations

import datetime

from django.db import transaction

from .models import ScheduleTick
from .moment import database_now

NAME = "heartbeat:worker"
BEAT_SECONDS = 5


def beat() -> None:
    """A worker is here and can reach the database."""
    with transaction.atomic(durable=True):
        now = database_now()
        if ScheduleTick.objects.filter(name=NAME).update(last_at=now) == 0:
            ScheduleTick.objects.bulk_create([ScheduleTick(name=NAME, last_at=now)], ignore_conflicts=True)


def worker_seen(seconds: float = 4 * BEAT_SECONDS) -> bool:
    """Whether a worker beat within the last `seconds`, by the database's clock. Two small queries."""
    now = database_now()
    return ScheduleTick.objects.filter(name=NAME, last_at__gte=now - datetime.timedelta(seconds=seconds)).exists()
