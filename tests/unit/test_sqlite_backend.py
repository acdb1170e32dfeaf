"""The SQLite backend: no writer is turned away, no commit is lost, nothing unsafe is accepted.

Run as a program, this file is one of the writing processes: `test_sqlite_backend.py write|hold DATABASE …`.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def configure(database: str, **options: Any) -> None:
    import django
    from django.conf import settings

    sys.path.insert(0, str(ROOT))
    settings.configure(
        DATABASES={
            "default": {"ENGINE": "repoman.db.sqlite", "NAME": database, "CONN_MAX_AGE": None, "OPTIONS": options}
        },
        USE_TZ=True,
    )
    django.setup()


def write_rows(database: str, writer: str, threads: int, rows: int) -> None:
    """Each thread inserts `rows` rows: one half in transactions that read first, one half as single statements."""
    configure(database)
    from django.db import connection, transaction

    failures: list[str] = []

    def work(number: int) -> None:
        try:
            for row in range(rows):
                if row % 2:
                    with transaction.atomic(), connection.cursor() as cursor:
                        cursor.execute("SELECT total FROM counter")
                        total = cursor.fetchone()[0]
                        cursor.execute("INSERT INTO line (writer, number) VALUES (%s, %s)", [f"{writer}-{number}", row])
                        cursor.execute("UPDATE counter SET total = %s", [total + 1])
                else:
                    with connection.cursor() as cursor:
                        cursor.execute(
                            "INSERT INTO line (writer, number) VALUES (%s, %s) RETURNING id",
                            [f"{writer}-{number}", row],
                        )
                        assert cursor.fetchone()[0] > 0
        except BaseException as error:  # reported to the parent process
            failures.append(repr(error))
        finally:
            connection.close()

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failures:
        print("\n".join(failures))
        raise SystemExit(1)


def hold_gate(database: str) -> None:
    """Sit in an open transaction until killed."""
    configure(database)
    from django.db import connection, transaction

    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO line (writer, number) VALUES ('killed', 0)")
        print("holding", flush=True)
        time.sleep(600)


def program(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    return subprocess.Popen(
        [sys.executable, __file__, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A file with the tables that the writers fill."""
    path = tmp_path / "rows.sqlite3"
    connection = sqlite3.connect(path)
    connection.executescript(
        "PRAGMA journal_mode = WAL;"
        "CREATE TABLE line (id INTEGER PRIMARY KEY, writer TEXT, number INTEGER, UNIQUE (writer, number));"
        "CREATE TABLE counter (total INTEGER); INSERT INTO counter VALUES (0);"
    )
    connection.close()
    return path


@pytest.fixture
def wrapper(database: Path, django_db_blocker: Any) -> Iterator[Any]:
    with django_db_blocker.unblock():
        made = make_wrapper(database)
        yield made
        made.close()


def make_wrapper(database: Path, **options: Any) -> Any:
    from django.db import connections

    settings = {"ENGINE": "repoman.db.sqlite", "NAME": str(database), "OPTIONS": options}
    handler = type(connections)({"default": settings})
    made = handler["default"]
    made.inc_thread_sharing()
    return made


def count(database: Path, query: str = "SELECT count(*) FROM line") -> int:
    connection = sqlite3.connect(database)
    try:
        return int(connection.execute(query).fetchone()[0])
    finally:
        connection.close()


def test_o5_fifty_writers_in_four_processes_lose_no_row_and_are_never_turned_away(database: Path) -> None:
    processes = [
        program("write", str(database), str(number), threads, "40")
        for number, threads in enumerate(["13", "13", "12", "12"])
    ]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0], outputs
    assert count(database) == 50 * 40
    assert count(database, "SELECT total FROM counter") == 50 * 20


def test_killing_the_writer_frees_the_gate_and_leaves_nothing_of_its_transaction(database: Path, wrapper: Any) -> None:
    holder = program("hold", str(database))
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "holding\n"
        holder.send_signal(signal.SIGKILL)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with wrapper.cursor() as cursor:
        cursor.execute("INSERT INTO line (writer, number) VALUES ('after', 1)")
    assert count(database) == 1


def test_a_writer_that_gets_no_turn_in_time_is_told_that_the_database_is_busy(
    database: Path, django_db_blocker: Any
) -> None:
    from django.db import OperationalError

    holder = program("hold", str(database))
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "holding\n"
        with django_db_blocker.unblock():
            other = make_wrapper(database, writer_timeout=0.2)
            with other.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM line")  # reading needs no turn
                assert cursor.fetchone() == (0,)
                with pytest.raises(OperationalError, match="database is busy"):
                    cursor.execute("INSERT INTO line (writer, number) VALUES ('late', 1)")
            other.close()
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_the_gate_is_left_after_commit_rollback_error_and_close(database: Path, wrapper: Any) -> None:
    from django.db import IntegrityError

    def insert(number: int) -> None:
        with wrapper.cursor() as cursor:
            cursor.execute("INSERT INTO line (writer, number) VALUES ('a', %s)", [number])

    insert(1)
    assert wrapper._hold is None
    with pytest.raises(IntegrityError):
        insert(1)
    assert wrapper._hold is None
    wrapper.set_autocommit(False)
    insert(2)
    assert wrapper._hold is not None
    wrapper.rollback()
    assert wrapper._hold is None
    insert(3)
    wrapper.commit()
    assert wrapper._hold is None
    insert(4)
    wrapper.close()
    assert wrapper._hold is None
    assert count(database) == 2


def test_writers_are_served_in_the_order_they_came(tmp_path: Path) -> None:
    from repoman.db.sqlite.gate import gate_for

    gate = gate_for(tmp_path / "order")
    first = gate.enter(1)
    served: list[int] = []

    def work(number: int) -> None:
        hold = gate.enter(30)
        served.append(number)
        hold.release()

    threads = []
    for number in range(20):
        thread = threading.Thread(target=work, args=(number,))
        thread.start()
        threads.append(thread)
        while len(gate._line) <= number:
            time.sleep(0.001)
    first.release()
    for thread in threads:
        thread.join()
    assert served == list(range(20))


def test_a_forked_child_does_not_share_its_parents_turn(tmp_path: Path) -> None:
    from repoman.db.sqlite.gate import GateBusy, gate_for

    hold = gate_for(tmp_path / "forked").enter(1)
    child = os.fork()
    if child == 0:
        try:
            gate_for(tmp_path / "forked").enter(0.1)
        except GateBusy:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    hold.release()
    gate_for(tmp_path / "forked").enter(1).release()


def test_the_log_is_emptied_by_the_writer_when_it_has_grown(database: Path, wrapper: Any) -> None:
    log = Path(f"{database}-wal")
    with wrapper.cursor() as cursor:
        for number in range(8):
            cursor.execute("INSERT INTO line (writer, number) VALUES (%s, %s)", ["x" * 2**20, number])
        wrapper._gate.last_checkpoint = 0.0
        cursor.execute("INSERT INTO line (writer, number) VALUES ('last', 0)")
        assert log.stat().st_size < 4 * 2**20
        cursor.execute("PRAGMA synchronous")
        assert cursor.fetchone() == (2,)
        cursor.execute("PRAGMA wal_autocheckpoint")
        assert cursor.fetchone() == (0,)


@pytest.mark.parametrize(
    "command",
    [
        "PRAGMA synchronous = OFF",
        "PRAGMA synchronous=NORMAL",
        "PRAGMA journal_mode=DELETE",
        "PRAGMA wal_autocheckpoint=1",
    ],
)
def test_o6_settings_that_lose_commits_are_refused(
    database: Path, wrapper: Any, command: str, django_db_blocker: Any
) -> None:
    from django.core.exceptions import ImproperlyConfigured
    from django.db import NotSupportedError

    with wrapper.cursor() as cursor, pytest.raises(NotSupportedError):
        cursor.execute(command)
    with django_db_blocker.unblock(), pytest.raises(ImproperlyConfigured):
        make_wrapper(database, init_command=command).ensure_connection()


def test_transactions_cannot_be_begun_round_the_gate(wrapper: Any) -> None:
    from django.db import NotSupportedError

    with wrapper.cursor() as cursor, pytest.raises(NotSupportedError, match="atomic"):
        cursor.execute("BEGIN")


@pytest.mark.parametrize(
    ("query", "writes"),
    [
        ("SELECT 1", False),
        ("  -- why\n /* really */ (select 1)", False),
        ("WITH a AS (SELECT 1) SELECT * FROM a", False),
        ("WITH a AS (SELECT 1) INSERT INTO line SELECT * FROM a", True),
        ("PRAGMA foreign_keys", False),
        ("insert into line values (1)", True),
        ("CREATE TABLE x (y)", True),
        ("VACUUM", True),
        ("", True),
    ],
)
def test_statements_are_told_apart_by_what_they_do(query: str, writes: bool) -> None:
    from repoman.db.sqlite.base import _writes

    assert _writes(query) is writes


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write_rows(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        hold_gate(sys.argv[2])
