"""What a PostgreSQL server must promise before anything is written to it."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error
from django.db.backends.base.validation import BaseDatabaseValidation

# Each loses acknowledged commits, or the whole database, when the machine loses power.
UNSAFE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class DatabaseValidation(BaseDatabaseValidation):
    """Run by `manage.py check --database` and, always, by `migrate`."""

    def check(self, **_options: Any) -> list[CheckMessage]:
        """Raises OperationalError when the server cannot be reached."""
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [list(UNSAFE)])
            found = dict(cursor.fetchall())
        return [
            Error(
                f"PostgreSQL runs with {name} = {found[name]}, which can lose acknowledged commits: set it to on",
                id=f"repoman.E1{number:02}",
            )
            for number, (name, unsafe) in enumerate(UNSAFE.items())
            if found.get(name) == unsafe
        ]
