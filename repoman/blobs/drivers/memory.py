"""A store in memory, for tests of what stands above the drivers. One process only; nothing is durable.

It keeps the whole contract, so that a service tested on it meets no surprise on a real store. Faults are planted
through `failpoint`; `FailNth` fails one call after the other, which is how a test walks through all of them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from repoman.core import clock
from repoman.core.hashing import Buffer

from .base import (
    BlobMissing,
    Capabilities,
    Committed,
    Driver,
    KeyTaken,
    Listed,
    Reader,
    Sink,
    SinkLost,
    Stat,
    StoreCorrupt,
    StoreForeign,
    marker_content,
    require_key,
    require_marker,
    translated,
)


class FailNth:
    """A failpoint that raises `error` at the n-th step (from 1) whose name is in `steps` (empty: any).

    for n in itertools.count(1):
        driver.failpoint = fault = FailNth(n, OSError(errno.EIO, "planted"))
        …
        if not fault.fired: break
    """

    def __init__(self, n: int, error: BaseException, *steps: str) -> None:
        self.seen = 0
        self.fired = False
        self._n = n
        self._error = error
        self._steps = steps

    def __call__(self, step: str) -> None:
        if self._steps and step not in self._steps:
            return
        self.seen += 1
        if self.seen == self._n:
            self.fired = True
            raise self._error


@dataclass(frozen=True, slots=True)
class _Object:
    content: bytes
    stamp: str
    modified: float


@dataclass(slots=True)
class _Unfinished:
    content: bytearray = field(default_factory=bytearray)
    touched: float = field(default_factory=clock.seconds)


class MemorySink(Sink):
    def __init__(self, driver: MemoryDriver, identifier: str, unfinished: _Unfinished) -> None:
        self.size = len(unfinished.content)
        self._driver = driver
        self._identifier = identifier
        self._unfinished = unfinished
        self._state = "open"

    def append(self, data: Buffer) -> None:
        self._require_open()
        with self._driver.step("write", self):
            self._unfinished.content += data
            self._unfinished.touched = clock.seconds()
            self.size = len(self._unfinished.content)

    def suspend(self, *, durable: bool = True) -> str:
        self._require_open()
        with self._driver.step("fsync", self):
            self._state = "ended"
            return json.dumps({"id": self._identifier, "size": self.size})

    def commit(self, key: str) -> Committed:
        self._require_open()
        require_key(key)
        with self._driver.step("rename", self):
            stamp = self._driver.place(self._identifier, key, bytes(self._unfinished.content))
            self._state = "ended"
        return Committed(key, self.size, stamp)

    def abandon(self) -> None:
        if self._state != "ended":
            self._state = "ended"
            self._driver.forget(self._identifier)

    def fail(self) -> None:
        if self._state == "open":
            self._state = "failed"

    def _require_open(self) -> None:
        if self._state != "open":
            raise RuntimeError("the sink has ended or failed")


class MemoryReader(Reader):
    def __init__(self, driver: MemoryDriver, stored: _Object) -> None:
        self.size = len(stored.content)
        self.stamp = stored.stamp
        self._driver = driver
        self._content = stored.content

    def pread(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0:
            raise ValueError("offset and length are not negative")
        try:
            self._driver.failpoint("read")
        except OSError as error:
            raise StoreCorrupt(str(error)) from error
        return self._content[offset : offset + length]

    def close(self) -> None:
        pass


class _Step:
    """Calls the failpoint under the driver's lock; an OSError in it becomes StoreError and fails the sink."""

    def __init__(self, driver: MemoryDriver, name: str, sink: MemorySink | None) -> None:
        self._driver = driver
        self._name = name
        self._sink = sink

    def __enter__(self) -> None:
        try:
            self._driver.failpoint(self._name)
        except OSError as error:
            if self._sink is not None:
                self._sink.fail()
            raise translated(error, self._name) from error
        self._driver.lock.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._driver.lock.release()
        if error is not None and self._sink is not None:
            self._sink.fail()


class MemoryDriver(Driver):
    """With `instance_id` the store is initialised already."""

    capabilities = Capabilities(local_files=False, presigned=False)

    def __init__(self, instance_id: str | None = None) -> None:
        self.lock = threading.RLock()
        self.marker: bytes | None = None
        self._instance_id: str | None = None
        self._objects: dict[str, _Object] = {}
        self._unfinished: dict[str, _Unfinished] = {}
        self._count = 0
        if instance_id is not None:
            self.initialise(instance_id)

    def step(self, name: str, sink: MemorySink | None = None) -> _Step:
        return _Step(self, name, sink)

    def sink(self, resume: str | None = None) -> Sink:
        with self.step("create" if resume is None else "resume"):
            require_marker(self.marker, self._instance_id)
            if resume is None:
                identifier = clock.new_id()
                unfinished = self._unfinished[identifier] = _Unfinished()
                return MemorySink(self, identifier, unfinished)
            try:
                fields = json.loads(resume)
                identifier, size = str(fields["id"]), int(fields["size"])
            except (ValueError, KeyError, TypeError) as error:
                raise SinkLost("The upload's token is damaged.") from error
            found = self._unfinished.get(identifier)
            if found is None or size < 0 or len(found.content) < size:
                raise SinkLost()
            del found.content[size:]
            found.touched = clock.seconds()
            return MemorySink(self, identifier, found)

    def open(self, key: str) -> Reader:
        with self.step("open"):
            require_marker(self.marker, self._instance_id)
            stored = self._objects.get(require_key(key))
            if stored is None:
                raise BlobMissing()
            return MemoryReader(self, stored)

    def stat(self, key: str) -> Stat | None:
        with self.step("stat"):
            require_marker(self.marker, self._instance_id)
            stored = self._objects.get(require_key(key))
            return None if stored is None else Stat(len(stored.content), stored.stamp)

    def delete(self, key: str) -> None:
        with self.step("delete"):
            require_marker(self.marker, self._instance_id)
            self._objects.pop(require_key(key), None)

    def list(self, prefix: str = "", after: str = "") -> Iterator[Listed]:
        with self.step("list"):
            require_marker(self.marker, self._instance_id)
            found = sorted(
                (key, len(stored.content), stored.modified)
                for key, stored in self._objects.items()
                if key.startswith(prefix) and key > after
            )
        return (Listed(*row) for row in found)

    def sweep(self, older_than: float) -> int:
        with self.step("sweep"):
            stale = [name for name, unfinished in self._unfinished.items() if unfinished.touched < older_than]
            for name in stale:
                del self._unfinished[name]
            return len(stale)

    def check(self, instance_id: str | None = None) -> None:
        expected = instance_id if instance_id is not None else self._instance_id
        with self.step("check"):
            require_marker(self.marker, expected)
            self._instance_id = expected

    def initialise(self, instance_id: str) -> None:
        with self.step("initialise"):
            if self.marker is None:
                if self._objects:
                    raise StoreForeign("The store has objects but no marker.")
                self.marker = marker_content(instance_id)
        self.check(instance_id)

    def place(self, identifier: str, key: str, content: bytes) -> str:
        """The object's stamp. The lock is held."""
        if key in self._objects:
            raise KeyTaken()
        if identifier not in self._unfinished:
            raise SinkLost()
        self._count += 1
        self._objects[key] = _Object(content, str(self._count), clock.seconds())
        del self._unfinished[identifier]
        return str(self._count)

    def forget(self, identifier: str) -> None:
        with self.lock:
            self._unfinished.pop(identifier, None)

    def tamper(self, key: str, content: bytes) -> None:
        """Test only: change stored bytes behind the driver's back (a flipped bit, a truncation)."""
        with self.lock:
            self._count += 1
            self._objects[key] = _Object(content, str(self._count), clock.seconds())
