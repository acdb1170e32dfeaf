"""Several queries that see one moment.

Outside a transaction each statement sees what is committed when it begins: what is put together from several would be
partly of before and partly of after a change between them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from django.db import connection

_BEGIN = {
    "sqlite": ("BEGIN", "PRAGMA query_only = ON"),
    "postgresql": ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",),
}
_END = {"sqlite": ("PRAGMA query_only = OFF", "COMMIT"), "postgresql": ("COMMIT",)}


@contextlib.contextmanager
def snapshot() -> Iterator[None]:
    """For a few short reads; a write inside is refused by the database. Inside a transaction nothing changes: who needs one
    moment there holds the repository's lock. May be used as a decorator."""
    if connection.in_atomic_block:
        yield
        return
    connection.ensure_connection()
    _run(_BEGIN[connection.vendor])
    try:
        yield
    finally:
        if connection.connection is not None:
            _run(_END[connection.vendor])


def _run(statements: tuple[str, ...]) -> None:
    with connection.wrap_database_errors:
        for statement in statements:
            connection.connection.execute(statement)
