"""A named lease: one holder at a time, over processes and machines, for work that must not run twice side by side.

It is a row of ScheduleTick named "lease:…" that says until when, by the database's clock, somebody holds it. The exact
moment doubles as the holder's mark: it is renewed and given back only by who knows it.
"""

from __future__ import annotations

import datetime
from types import TracebackType

from django.db import transaction

from repoman.core import clock

from .models import ScheduleTick
from .moment import database_now

LEASE_SECONDS = 120
RENEW_SECONDS = 15
_PREFIX = "lease:"


class LeaseBusy(Exception):
    """Somebody else holds the lease."""


class LeaseEnded(Exception):
    """The lease ran out and somebody else took it: stop."""


class NamedLease:
    """`with NamedLease("collect") as lease: … lease.renew() …`. Entering raises LeaseBusy; it never waits.

    A holder that was killed is waited for at most LEASE_SECONDS.
    """

    def __init__(self, name: str, *, seconds: int = LEASE_SECONDS) -> None:
        self._name = _PREFIX + name
        self._seconds = seconds
        self._until = datetime.datetime.min.replace(tzinfo=datetime.UTC)
        self._renewed = 0.0

    def __enter__(self) -> NamedLease:
        with transaction.atomic(durable=True):
            now = database_now()
            self._make_row()
            until = now + datetime.timedelta(seconds=self._seconds)
            # A moment too far ahead was written while the clock was wrong.
            longest = now + datetime.timedelta(seconds=3600)
            free = ScheduleTick.objects.filter(name=self._name)
            taken = free.filter(last_at__lte=now).update(last_at=until)
            if taken != 1 and free.filter(last_at__gt=longest).update(last_at=until) != 1:
                raise LeaseBusy(self._name.removeprefix(_PREFIX))
        self._until = until
        self._renewed = clock.monotonic()
        return self

    def _make_row(self) -> None:
        if not ScheduleTick.objects.filter(name=self._name).exists():
            past = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
            ScheduleTick.objects.bulk_create([ScheduleTick(name=self._name, last_at=past)], ignore_conflicts=True)

    def renew(self) -> None:
        """Cheap to call often: it writes every RENEW_SECONDS. Raises LeaseEnded."""
        if clock.monotonic() - self._renewed < RENEW_SECONDS:
            return
        with transaction.atomic(durable=True):
            until = database_now() + datetime.timedelta(seconds=self._seconds)
            self._move(until)
        self._until = until
        self._renewed = clock.monotonic()

    def _move(self, until: datetime.datetime) -> None:
        if ScheduleTick.objects.filter(name=self._name, last_at=self._until).update(last_at=until) != 1:
            raise LeaseEnded(self._name.removeprefix(_PREFIX))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with transaction.atomic(durable=True):
            ScheduleTick.objects.filter(name=self._name, last_at=self._until).update(last_at=database_now())
