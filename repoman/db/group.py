"""Group commit: what several threads want to write at the same moment is committed together.

A durable commit of SQLite waits for the disk, and one follows the other, so a process could acknowledge no more writes
than the disk can sync. Here the first thread that comes leads: it takes its turn to write, and until it has it others
queue up behind it; then it runs all their blocks in one transaction, each in a savepoint of its own, and commits once.
Who comes alone pays nothing: there is no other thread and no savepoint then.

A block that raises undoes only itself. Where the transaction as a whole fails (a foreign key that is checked at the
commit, a full disk), nobody knows whose fault it is: each block is then run again by its own thread, alone.
PostgreSQL does the same inside; there blocks are run as they come.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from django.db import DatabaseError, connection, transaction

Result = TypeVar("Result")
MOST = 32


class _Entry:
    """One block and what became of it. `wake` is released once: to go on with a result, or to lead."""

    __slots__ = ("block", "error", "leads", "result", "runs_alone", "wake")

    def __init__(self, block: Callable[[], Any]) -> None:
        self.block = block
        self.result: Any = None
        self.error: BaseException | None = None
        self.leads = False
        self.runs_alone = False
        self.wake = threading.Lock()
        self.wake.acquire()


class CommitGroup:
    """The writers of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Entry] = []
        self._is_led = False

    def run(self, block: Callable[[], Result]) -> Result:
        """What `block` returns, once it is committed. Raises what it raises, having changed nothing then."""
        entry = _Entry(block)
        with self._lock:
            self._waiting.append(entry)
            entry.leads = not self._is_led
            self._is_led = True
        if not entry.leads:
            entry.wake.acquire()
        if entry.leads:
            self._lead(entry)
        if entry.runs_alone:
            with transaction.atomic(durable=True):
                return block()
        if entry.error is not None:
            raise entry.error
        result: Result = entry.result
        return result

    def _lead(self, own: _Entry) -> None:
        group: list[_Entry] = []
        try:
            with transaction.atomic(durable=True):
                group = self._take(own)
                for entry in group:
                    self._run(entry, is_alone=len(group) == 1)
        except BaseException as error:
            self._failed(own, group, error)
        finally:
            self._pass_on()
            for entry in group:
                if entry is not own:
                    entry.wake.release()

    def _take(self, own: _Entry) -> list[_Entry]:
        """Those who wait now, the leader first."""
        with self._lock:
            self._waiting.remove(own)
            others, self._waiting = self._waiting[: MOST - 1], self._waiting[MOST - 1 :]
        return [own, *others]

    @staticmethod
    def _run(entry: _Entry, *, is_alone: bool) -> None:
        if is_alone:
            entry.result = entry.block()  # what it raises undoes the transaction, and is its own
            return
        try:
            with transaction.atomic():
                entry.result = entry.block()
        except DatabaseError as error:
            if connection.needs_rollback or not connection.in_atomic_block:
                raise
            entry.error = error
        except Exception as error:
            entry.error = error

    def _failed(self, own: _Entry, group: list[_Entry], error: BaseException) -> None:
        if len(group) <= 1:
            if not group:
                with self._lock:
                    self._waiting.remove(own)
            own.error = error
            return
        for entry in group:
            if entry.error is None:
                entry.runs_alone = True
        if not isinstance(error, Exception):
            own.runs_alone, own.error = False, error

    def _pass_on(self) -> None:
        """Who waits longest leads next."""
        with self._lock:
            if self._waiting:
                following = self._waiting[0]
                following.leads = True
            else:
                following = None
                self._is_led = False
        if following is not None:
            following.wake.release()


_group = CommitGroup()


def commit(block: Callable[[], Result]) -> Result:
    """Run `block` in a durable transaction, together with others' where that saves a sync."""
    if connection.vendor != "sqlite" or connection.in_atomic_block:
        with transaction.atomic(durable=True):
            return block()
    return _group.run(block)
