"""The database's clock: leases and schedules are judged by it, so that machines whose clocks differ agree."""

from __future__ import annotations

import datetime

from django.db import connection


def database_now() -> datetime.datetime:
    """The current moment by the database's own clock, timezone-aware, UTC. On SQLite that is this machine's."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT clock_timestamp()")
            moment: datetime.datetime = cursor.fetchone()[0]
            return moment.astimezone(datetime.UTC)
        cursor.execute("SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')")
        text: str = cursor.fetchone()[0]
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC)
