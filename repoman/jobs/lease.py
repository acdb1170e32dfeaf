"""A named lease: one holder at a time, over processes and machines, for work that must not run twice side by side.

It is a row of ScheduleTick named "lease:…" that says until when, by the database's clock, somebody holds it. The exact
moment doubles as the holder's key: it is renewed and given back only by who knows it. A second row "by:…" says which
process that is, so that nobody on the same machine waits for one that was killed.
"""

from __future__ import annotations

import datetime
from types import TracebackType

from django.db import connection, transaction

from repoman.core import clock

from . import holder
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

    A holder that was killed on another machine is waited for at most LEASE_SECONDS.
    """

    def __init__(self, name: str, *, seconds: int = LEASE_SECONDS) -> None:
        self._name = _PREFIX + name
        self._by = f"by:{name}:"
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
            taken = taken or free.filter(last_at__gt=longest).update(last_at=until)
            if not taken and self._is_orphan():
                taken = free.update(last_at=until)
            if not taken:
                raise LeaseBusy(self._name.removeprefix(_PREFIX))
            ScheduleTick.objects.filter(name__startswith=self._by).delete()
            ScheduleTick.objects.create(name=self._by + holder.mark(), last_at=now)
        self._until = until
        self._renewed = clock.monotonic()
        return self

    def _is_orphan(self) -> bool:
        """Whether the process that holds it was killed. The row is locked, so that only one finds so."""
        rows = ScheduleTick.objects.filter(name=self._name)
        list(rows.select_for_update() if connection.vendor == "postgresql" else rows)
        names = list(ScheduleTick.objects.filter(name__startswith=self._by).values_list("name", flat=True))
        return bool(names) and all(holder.is_dead(name.removeprefix(self._by)) for name in names)

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
            if ScheduleTick.objects.filter(name=self._name, last_at=self._until).update(last_at=database_now()) == 1:
                ScheduleTick.objects.filter(name__startswith=self._by).delete()
