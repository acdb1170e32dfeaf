"""The PostgreSQL backend beside a server that goes away and comes back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
import pytest

from tests.tools import services


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with services.postgres() as running:
        yield running


@pytest.fixture
def database(server: Any, django_db_blocker: Any) -> Iterator[Any]:
    """A wrapper of its own with an empty pool."""
    with django_db_blocker.unblock():
        made = make_wrapper(str(server))
        made.inc_thread_sharing()
        yield made
        made.close()
        made.close_pool()


def make_wrapper(url: str) -> Any:
    from django.db import connections

    parts = urlsplit(url)
    settings = {
        "ENGINE": "repoman.db.postgresql",
        "NAME": parts.path.lstrip("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
        "OPTIONS": {"pool": {"max_size": 4}},
    }
    return type(connections)({"default": settings})["default"]


def one(database: Any) -> int:
    with database.cursor() as cursor:
        cursor.execute("SELECT 1")
        return int(cursor.fetchone()[0])


def use_pool(database: Any, threads: int) -> None:
    """Have that many connections in the pool, all idle."""
    pool = database.pool
    pool.open()
    taken = [pool.getconn() for _ in range(threads)]
    for connection in taken:
        pool.putconn(connection)


def test_o2_after_a_restart_no_request_gets_a_dead_connection(server: Any, database: Any) -> None:
    use_pool(database, 4)
    assert one(database) == 1
    database.close()
    server.server.stop()
    server.server.start()
    for _ in range(8):
        assert one(database) == 1
        database.close()


def test_o1_a_missing_server_is_an_error_in_time_and_its_return_needs_no_restart(server: Any, database: Any) -> None:
    from django.db import OperationalError

    assert one(database) == 1
    server.server.stop()
    try:
        # in the middle of its use
        with pytest.raises(OperationalError):
            one(database)
        database.close()
        for _ in range(2):
            with pytest.raises(OperationalError):
                one(database)
            database.close()
    finally:
        server.server.start()
    assert one(database) == 1


def test_o4_waiting_for_a_lock_ends_with_an_error(server: Any, database: Any) -> None:
    from django.db import OperationalError

    with psycopg.connect(str(server)) as other:
        other.execute("CREATE TABLE IF NOT EXISTS held (n integer)")
        other.commit()
        other.execute("LOCK TABLE held")
        with database.cursor() as cursor, pytest.raises(OperationalError, match="lock timeout"):
            cursor.execute("SELECT * FROM held")


def test_o4_more_threads_than_connections_all_get_their_turn(database: Any) -> None:
    pool = database.pool
    pool.open()
    answers: list[int] = []

    def work() -> None:
        for _ in range(5):
            connection = pool.getconn()
            answers.append(connection.execute("SELECT 1").fetchone()[0])
            pool.putconn(connection)

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [1] * 100


def test_o6_a_server_that_may_lose_commits_is_refused(server: Any, database: Any) -> None:
    assert [
        message
        for message in database.validation.check()
        if message.level >= 40 and "full_page" not in message.msg and "fsync" not in message.msg
    ] == []
    with psycopg.connect(str(server), autocommit=True) as owner:
        owner.execute("ALTER ROLE CURRENT_USER SET synchronous_commit = off")
        try:
            database.close()
            database.close_pool()
            messages = database.validation.check()
        finally:
            owner.execute("ALTER ROLE CURRENT_USER RESET synchronous_commit")
    assert any("synchronous_commit = off" in message.msg for message in messages)
