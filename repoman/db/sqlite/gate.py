"""The queue that every writer of one SQLite file passes, over all threads and all processes of the machine.

SQLite lets one connection write at a time but has no queue: who finds it taken sleeps and tries again, and may give up
while later comers were served. Also, releases before 3.51.3 can lose a commit when two connections race to reset the
write-ahead log. Both go away when writers and checkpoints pass one lock, in the order they came.

Two advisory locks (flock) on two files beside the database: who wants to write first takes `.queue`, then `.writer`,
then lets `.queue` go. So at most one process waits for the writer, nobody overtakes it, and the kernel frees both
when a holder is killed. Inside a process, waiting threads form a line; only one helper thread ever sleeps in the
kernel, so that a wait can end in time. The files are empty and never removed.

Must never: be held while waiting for a network, or be used across a fork (a child starts with gates of its own).
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections import deque
from pathlib import Path


class GateBusy(Exception):
    """Nobody let us in within the time given."""


class _Waiter:
    """A thread in line. `granted` is guarded by the gate's mutex."""

    __slots__ = ("granted", "woken")

    def __init__(self) -> None:
        self.granted = False
        self.woken = threading.Event()


class Hold:
    """The right to write. Given back by `release()`, at the latest when nobody remembers the hold."""

    __slots__ = ("_gate",)

    def __init__(self, gate: WriterGate) -> None:
        self._gate: WriterGate | None = gate

    def release(self) -> None:
        """Idempotent."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate._give_back()

    def __del__(self) -> None:
        self.release()


class WriterGate:
    """One per database file and process; get it from `gate_for`."""

    def __init__(self, path: str) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._writer = os.open(path + ".writer", flags, 0o600)
        self._queue = os.open(path + ".queue", flags, 0o600)
        # Re-entrant: the garbage collector may give back a forgotten hold while this thread is in here.
        self._mutex = threading.RLock()
        self._line: deque[_Waiter] = deque()
        self._held = False
        self._fetching = False
        self._wanted = threading.Semaphore(0)
        self._helper: threading.Thread | None = None
        self._closed = False
        # When this process last tried to empty the write-ahead log (monotonic seconds); read and set by the holder.
        self.last_checkpoint = 0.0

    def enter(self, timeout_seconds: float) -> Hold:
        """Wait in line for the right to write. Raises GateBusy after `timeout_seconds`."""
        with self._mutex:
            if not self._held and not self._fetching and not self._line and self._try_lock():
                self._held = True
                return Hold(self)
            waiter = _Waiter()
            self._line.append(waiter)
            if not self._held:
                self._fetch()
        if waiter.woken.wait(timeout_seconds):
            return Hold(self)
        with self._mutex:
            if waiter.granted:  # in the very moment we gave up
                return Hold(self)
            self._line.remove(waiter)
        raise GateBusy

    def _try_lock(self) -> bool:
        """Take the writer lock if nobody has it and no other process waits for it."""
        try:
            fcntl.flock(self._queue, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            fcntl.flock(self._writer, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            fcntl.flock(self._queue, fcntl.LOCK_UN)
        return True

    def _fetch(self) -> None:
        """Have the helper thread wait for the lock (mutex held)."""
        if self._fetching:
            return
        self._fetching = True
        if self._helper is None:
            self._helper = threading.Thread(target=self._run_helper, name="sqlite-writer-gate", daemon=True)
            self._helper.start()
        self._wanted.release()

    def _run_helper(self) -> None:
        while True:
            self._wanted.acquire()
            if self._closed:
                return
            fcntl.flock(self._queue, fcntl.LOCK_EX)
            fcntl.flock(self._writer, fcntl.LOCK_EX)
            fcntl.flock(self._queue, fcntl.LOCK_UN)
            with self._mutex:
                self._fetching = False
                if not self._grant_first():
                    fcntl.flock(self._writer, fcntl.LOCK_UN)

    def _grant_first(self) -> bool:
        """Hand the lock we have to the first in line (mutex held)."""
        if not self._line:
            self._held = False
            return False
        waiter = self._line.popleft()
        self._held = True
        waiter.granted = True
        waiter.woken.set()
        return True

    def _give_back(self) -> None:
        with self._mutex:
            if self._closed:
                return
            fcntl.flock(self._writer, fcntl.LOCK_UN)
            self._held = False
            if self._line and not self._fetching:
                if self._try_lock():
                    self._grant_first()
                else:  # another process was waiting: its turn
                    self._fetch()

    def _forget(self) -> None:
        """In a forked child: close our descriptors, which leaves the parent's locks as they are."""
        self._closed = True
        os.close(self._writer)
        os.close(self._queue)


_gates: dict[str, WriterGate] = {}
_gates_mutex = threading.Lock()


def gate_for(database: str | os.PathLike[str]) -> WriterGate:
    """The gate of a database file. Raises OSError if its folder cannot be written."""
    path = str(Path(database).resolve())
    with _gates_mutex:
        gate = _gates.get(path)
        if gate is None:
            gate = _gates[path] = WriterGate(path)
        return gate


def _after_fork_in_child() -> None:
    global _gates_mutex
    _gates_mutex = threading.Lock()
    for gate in _gates.values():
        gate._mutex = threading.RLock()
        gate._forget()
    _gates.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
