"""Parsing what strangers wrote, in a process of its own: it may crash, hang or grow without anybody else noticing.

One helper process per web process, started when something needs it and ended after a while without work. What it does is
pure: bytes in, plain values out. Small documents are parsed right here: handing them over would cost more.
"""

from __future__ import annotations

import datetime
import io
import multiprocessing
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from repoman.blobs import store
from repoman.blobs.drivers.base import Reader
from repoman.catalog.models import Repository
from repoman.core import clock
from repoman.core.errors import ContentInvalid, Unavailable
from repoman.core.format import handler_for
from repoman.core.records import BlobRef, Facts, Staged
from repoman.core.refs import ListingRef
from repoman.sources.records import dump_listing, dump_names

from .workbench import work

SMALL_BYTES = 64 * 1024  # of an archive, which may hold far more
SMALL_DOCUMENT_BYTES = 256 * 1024
SECONDS = 30.0
IDLE_SECONDS = 600.0
Result = TypeVar("Result")


def parse_listing(format_name: str, ref: ListingRef, body: bytes, *, url: str, media_type: str) -> tuple[bytes, str]:
    """An upstream's document as packed records, and their mark. Raises ContentInvalid, Unavailable."""
    if len(body) <= SMALL_DOCUMENT_BYTES:
        return _parse_listing(format_name, ref, body, url, media_type)
    found: tuple[bytes, str] = _workshop.run(_parse_listing, format_name, ref, body, url, media_type)
    return found


def _parse_listing(format_name: str, ref: ListingRef, body: bytes, url: str, media_type: str) -> tuple[bytes, str]:
    return dump_listing(handler_for(format_name).parse_listing(ref, body, url=url, media_type=media_type))


def split_index(
    format_name: str, body: bytes, *, url: str, media_type: str
) -> tuple[Mapping[str, tuple[bytes, str]], tuple[bytes, str]]:
    """An upstream's document about all packages as each package's packed records with their mark, and what names them all:
    a listing of packages, each with that mark as its digest. Raises ContentInvalid, Unavailable."""
    if len(body) <= SMALL_DOCUMENT_BYTES:
        return _split_index(format_name, body, url, media_type)
    found: tuple[dict[str, tuple[bytes, str]], tuple[bytes, str]] = _workshop.run(
        _split_index, format_name, body, url, media_type
    )
    return found


def _split_index(
    format_name: str, body: bytes, url: str, media_type: str
) -> tuple[dict[str, tuple[bytes, str]], tuple[bytes, str]]:
    packed: dict[str, tuple[bytes, str]] = {}
    changed: list[datetime.datetime] = []
    for package, listing in handler_for(format_name).split_index(body, url=url, media_type=media_type):
        if package not in packed:
            packed[package] = dump_listing(listing)
            changed += [listing.changed_at] if listing.changed_at is not None else []
    return packed, dump_names({name: mark for name, (_, mark) in packed.items()}, max(changed, default=None))


def inspect(format_name: str, path: str, staged: Staged) -> Facts:
    """What the staged bytes claim about themselves. Raises ContentInvalid, Unavailable."""
    ref = BlobRef(staged.digest, staged.size, staged.storage_key, staged.stamp)
    if staged.size <= SMALL_BYTES:
        return _inspect(format_name, path, ref)
    found: Facts = _workshop.run(_inspect, format_name, path, ref)
    return found


def _inspect(format_name: str, path: str, ref: BlobRef) -> Facts:
    with store.reader(ref) as opened:
        file = io.BufferedReader(StoredFile(opened), 256 * 1024)
        return handler_for(format_name).inspect(path, file, ref.size)


class StoredFile(io.RawIOBase):
    """Stored bytes as a file that can be read and sought."""

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self._reader = reader
        self._offset = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._offset, io.SEEK_END: self._reader.size}[whence]
        if base + offset < 0:
            raise OSError(22, "a position before the start")
        self._offset = base + offset
        return self._offset

    def tell(self) -> int:
        return self._offset

    def readinto(self, buffer: Any) -> int:
        piece = self._reader.pread(self._offset, len(buffer))
        buffer[: len(piece)] = piece
        self._offset += len(piece)
        return len(piece)


def warm_up_if_needed() -> None:
    """Have the process started where there are remote repositories, whose listings it will read."""
    rows = Repository.objects.filter(type=Repository.Type.REMOTE).exclude(state=Repository.State.DELETING)
    if rows.exists():
        warm_up()


def warm_up() -> None:
    """Have the process started in the background, where it will most likely be needed soon."""
    threading.Thread(target=_workshop.start, name="workshop-start", daemon=True).start()


# --- the process -----------------------------------------------------------------------------------------------------


class _Workshop:
    """The helper process, used by one thread at a time. Nothing that happens to it is lost but the work in hand."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: Any = None
        self._connection: Connection | None = None
        self._timer: threading.Timer | None = None

    def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Raises what the function raises; ContentInvalid where it crashed, hung or grew too large."""
        begun = clock.monotonic()
        if not self._lock.acquire(timeout=SECONDS):
            raise Unavailable("the server is busy reading other packages; try again", retry_after_seconds=5)
        try:
            left = max(1.0, SECONDS - (clock.monotonic() - begun))
            return self._ask(function, arguments, left)
        finally:
            self._lock.release()

    def start(self) -> None:
        """Start the process if it is not there. Its first question waits until it is ready, in any case."""
        with self._lock:
            self._started()
            self._rest()

    def _ask(self, function: Callable[..., Result], arguments: tuple[Any, ...], seconds: float) -> Result:
        connection = self._started()
        try:
            connection.send((function, arguments))
            if not connection.poll(seconds):
                raise EOFError
            is_well, answer = connection.recv()
        except (EOFError, OSError):
            self._end()
            raise ContentInvalid("the content could not be read within the limits of time and memory") from None
        self._rest()
        if is_well:
            result: Result = answer
            return result
        raise answer

    def _started(self) -> Connection:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._process is not None and self._connection is not None and self._process.is_alive():
            return self._connection
        self._end()
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs,), daemon=True, name="workshop")
        self._process.start()
        theirs.close()
        self._connection = ours
        return ours

    def _rest(self) -> None:
        """End the process when nobody has needed it for a while."""
        self._timer = threading.Timer(IDLE_SECONDS, self._end_if_idle)
        self._timer.daemon = True
        self._timer.start()

    def _end_if_idle(self) -> None:
        if self._lock.acquire(blocking=False):
            try:
                self._end()
            finally:
                self._lock.release()

    def _end(self) -> None:
        process, self._process = self._process, None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        if process is not None:
            process.kill()
            process.join(5)


_workshop = _Workshop()
