"""Django's SQLite backend with durable commits and a fair queue of writers (see `gate.py`).

Every `atomic()` begins with BEGIN IMMEDIATE after the writer gate let it in, and every write outside one passes the
gate for its own statement; reads never do. The holder also empties the write-ahead log when it has grown, before it
leaves the gate: nobody else ever runs a checkpoint. Settings that can lose an acknowledged commit are refused.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db.backends.sqlite3 import base
from django.db.utils import NotSupportedError, OperationalError

from repoman.db.sqlite.gate import GateBusy, Hold, WriterGate, gate_for

# Like Django's other backends, this module must export what the loader looks for.
Database = base.Database

WRITER_TIMEOUT_SECONDS = 30.0
# How long SQLite itself may wait: for readers that recover the log after a crash, or that close the last connection.
BUSY_TIMEOUT_MILLISECONDS = 10_000
# From here on the log is emptied after a commit; 1,000 pages, SQLite's own default.
CHECKPOINT_BYTES = 4 * 2**20
# From here on each commit tries, and waits a moment for readers to leave.
CHECKPOINT_URGENT_BYTES = 64 * 2**20
CHECKPOINT_PAUSE_SECONDS = 0.5
CHECKPOINT_WAIT_MILLISECONDS = 20
CHECKPOINT_URGENT_WAIT_MILLISECONDS = 1_000

SYNCHRONOUS_FULL = 2

_LEADING = re.compile(r"(?:\s+|--[^\n]*\n?|/\*.*?\*/|\()*([A-Za-z]+)", re.DOTALL)
_WRITING_WORD = re.compile(r"\b(INSERT|UPDATE|DELETE|REPLACE)\b", re.IGNORECASE)
_FIXED = re.compile(r"synchronous|journal_mode|locking_mode|wal_autocheckpoint|wal_checkpoint", re.IGNORECASE)
_UNSAFE_PRAGMA = re.compile(rf"PRAGMA\s+(?:\w+\.)?(?:(?:{_FIXED.pattern})\s*[=(]|wal_checkpoint)", re.IGNORECASE)
_READING = frozenset({"SELECT", "VALUES", "EXPLAIN", "PRAGMA", "ATTACH", "DETACH"})
_TRANSACTION = frozenset({"BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE"})


def _writes(query: str) -> bool:
    """Whether a statement outside a transaction may change the database.

    Raises NotSupportedError for what would go round the gate or make commits unsafe.
    """
    match = _LEADING.match(query)
    word = match.group(1).upper() if match else ""
    if word == "PRAGMA":
        if _UNSAFE_PRAGMA.match(query, match.start(1) if match else 0):
            raise NotSupportedError("this database's journal and synchronisation are fixed")
        return False
    if word in _TRANSACTION:
        raise NotSupportedError("use transaction.atomic(), so that writers queue")
    if word == "WITH":
        return _WRITING_WORD.search(query) is not None
    return word not in _READING


class GatedCursor(base.SQLiteCursorWrapper):
    """Passes the writer gate around statements that write outside a transaction.

    Such a statement is run to its end before the gate is left, since SQLite commits it only then: rows that RETURNING
    gives are kept here.
    """

    database: DatabaseWrapper
    _rows: deque[Any] | None = None

    def execute(self, query: str, params: Any = None) -> Any:  # type: ignore[override]
        self._rows = None
        if self.connection.in_transaction or not _writes(query):
            return super().execute(query, params)
        with self.database.writing():
            super().execute(query, params)
            if self.description is not None:
                self._rows = deque(super().fetchall())
        return self

    def executemany(self, query: str, param_list: Any) -> Any:  # type: ignore[override]
        self._rows = None
        if self.connection.in_transaction or not _writes(query):
            return super().executemany(query, param_list)
        with self.database.writing():
            return super().executemany(query, param_list)

    def executescript(self, script: str) -> Any:  # type: ignore[override]
        self._rows = None
        if self.connection.in_transaction:
            return super().executescript(script)
        with self.database.writing():
            return super().executescript(script)

    def fetchone(self) -> Any:
        if self._rows is None:
            return super().fetchone()
        return self._rows.popleft() if self._rows else None

    def fetchmany(self, size: int | None = None) -> list[Any]:
        count = self.arraysize if size is None else size
        if self._rows is None:
            return super().fetchmany(count)
        return [self._rows.popleft() for _ in range(min(count, len(self._rows)))]

    def fetchall(self) -> list[Any]:
        if self._rows is None:
            return super().fetchall()
        rows, self._rows = list(self._rows), deque()
        return rows

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._rows is None:
            return super().__next__()
        if not self._rows:
            raise StopIteration
        return self._rows.popleft()


class _Writing:
    """The gate around one statement outside atomic(). With autocommit off the statement opens a transaction; the gate
    is then left at its commit or rollback."""

    __slots__ = ("_database",)

    def __init__(self, database: DatabaseWrapper) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database.enter_gate()

    def __exit__(self, *_error: object) -> None:
        if self._database.connection is None or not self._database.connection.in_transaction:
            self._database.leave_gate()


class DatabaseWrapper(base.DatabaseWrapper):
    """OPTIONS may hold `writer_timeout` (seconds a writer waits in line, 30) beside SQLite's own."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._gate: WriterGate | None = None
        self._hold: Hold | None = None
        self._writer_timeout = WRITER_TIMEOUT_SECONDS

    # Connecting

    def get_connection_params(self) -> dict[str, Any]:
        params: dict[str, Any] = super().get_connection_params()
        self._writer_timeout = float(params.pop("writer_timeout", WRITER_TIMEOUT_SECONDS))
        params.setdefault("timeout", BUSY_TIMEOUT_MILLISECONDS / 1000)
        self.transaction_mode = "IMMEDIATE"
        if any(_FIXED.search(command) for command in self.init_commands):
            raise ImproperlyConfigured("SQLite's journal and synchronisation are fixed: take them out of init_command")
        return params

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        if self.is_in_memory_db():
            return super().get_new_connection(conn_params)
        try:
            self._gate = gate_for(self.settings_dict["NAME"])
        except OSError as error:
            raise OperationalError(f"unable to open database file: {error.strerror}") from error
        connection = super().get_new_connection(conn_params)
        try:
            self._make_durable(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _make_durable(self, connection: Any) -> None:
        """Raises ImproperlyConfigured where an acknowledged commit could be lost."""

        def pragma(text: str) -> Any:
            row = connection.execute(f"PRAGMA {text}").fetchone()
            return row[0] if row else None

        if pragma("journal_mode") != "wal":
            self.enter_gate()
            try:
                mode = pragma("journal_mode = WAL")
            finally:
                self.leave_gate()
            if mode != "wal":
                raise ImproperlyConfigured(f"SQLite cannot keep a write-ahead log here (journal mode {mode})")
        pragma("synchronous = FULL")
        pragma("wal_autocheckpoint = 0")
        if pragma("synchronous") < SYNCHRONOUS_FULL or not pragma("foreign_keys"):
            raise ImproperlyConfigured("this SQLite does not honour synchronous = FULL or foreign_keys = ON")

    # The gate

    def enter_gate(self) -> None:
        """Raises OperationalError when the line did not move in time. A no-op for who is already in."""
        if self._gate is None or self._hold is not None:
            return
        try:
            self._hold = self._gate.enter(self._writer_timeout)
        except GateBusy:
            raise OperationalError(f"database is busy: no turn to write within {self._writer_timeout:g} s") from None

    def leave_gate(self) -> None:
        """Empty the log if it has grown, then let the next writer in. Idempotent."""
        hold, self._hold = self._hold, None
        if hold is None:
            return
        try:
            self._checkpoint_if_grown()
        finally:
            hold.release()

    def writing(self) -> _Writing:
        return _Writing(self)

    def _checkpoint_if_grown(self) -> None:
        gate, connection = self._gate, self.connection
        if gate is None or connection is None:
            return
        try:
            size = os.stat(f"{self.settings_dict['NAME']}-wal").st_size
        except FileNotFoundError:
            return
        if size < CHECKPOINT_BYTES:
            return
        urgent = size >= CHECKPOINT_URGENT_BYTES
        now = time.monotonic()
        if not urgent and now - gate.last_checkpoint < CHECKPOINT_PAUSE_SECONDS:
            return
        gate.last_checkpoint = now
        # TRUNCATE, for the file's size is what tells the next writer that there is something to do. Readers that are
        # still in the log make it report "busy" after having copied what could be copied; the next commit tries again.
        wait = CHECKPOINT_URGENT_WAIT_MILLISECONDS if urgent else CHECKPOINT_WAIT_MILLISECONDS
        connection.execute(f"PRAGMA busy_timeout = {wait}")
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except Database.OperationalError:
            # The commit stands whatever becomes of the checkpoint (a full disk, say); a later writer tries again.
            return
        finally:
            connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MILLISECONDS}")

    # Transactions

    def create_cursor(self, name: Any = None) -> GatedCursor:
        cursor: GatedCursor = self.connection.cursor(factory=GatedCursor)
        cursor.database = self
        return cursor

    def _start_transaction_under_autocommit(self) -> None:
        self.enter_gate()
        try:
            with self.wrap_database_errors:
                self.connection.execute("BEGIN IMMEDIATE")
        except BaseException:
            self.leave_gate()
            raise

    def _commit(self) -> None:
        super()._commit()
        self.leave_gate()

    def _rollback(self) -> None:
        super()._rollback()
        self.leave_gate()

    def _close(self) -> None:
        hold, self._hold = self._hold, None
        try:
            super()._close()
        finally:
            if hold is not None:
                hold.release()
