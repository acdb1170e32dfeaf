"""The blob store as the rest of the house sees it: bytes in through a sink, bytes out by reference.

Order that must hold: bytes durable → rows → answer; rows away → grace → bytes away. Nothing here writes a row except
`mark_suspect`. No function here is called inside a transaction.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable
from typing import Any

from repoman.core import clock
from repoman.core.digest import Digest
from repoman.core.errors import (
    DigestInvalid,
    FileNotFound,
    RepomanError,
    TooLarge,
    Unavailable,
)
from repoman.core.hashing import Sha256
from repoman.core.records import BlobRef, Staged

from .drivers.base import (
    BlobMissing,
    Driver,
    Reader,
    StoreError,
    storage_key,
)
from .models import Blob, BlobDigest

SMALL_BYTES = 64 * 1024
PIECE = 1024 * 1024
_driver: Driver | None = None
_driver_lock = threading.Lock()


def driver() -> Driver:
    """The configured driver, one per process."""
    global _driver
    if _driver is None:
        with _driver_lock:
            if _driver is None:
                _driver = _make_driver()
    return _driver


def set_driver(replacement: Driver | None) -> None:
    """Use another driver from now on (tests); None goes back to the configured one."""
    global _driver
    _driver = replacement


def _make_driver() -> Driver:
    from django.conf import settings

    location = settings.CONFIGURATION.blobs
    if location.startswith("s3://"):
        from .drivers.s3 import S3Driver

        bucket, _, prefix = location[len("s3://") :].partition("/")
        return S3Driver(bucket=bucket, prefix=prefix.strip("/"))
    from .drivers.filesystem import FilesystemDriver

    return FilesystemDriver(location)


class BlobSink:
    """New bytes on their way into the store, hashed once while they come. Always ends in finish() or abandon()."""

    def __init__(
        self,
        *,
        expect: Digest | None,
        algorithms: tuple[str, ...],
        limit: int | None,
        too_large: Callable[[int], RepomanError] | None,
    ) -> None:
        self._expect = expect
        wanted = {name for name in algorithms if name != "sha256"}
        if expect is not None and not expect.is_identity:
            wanted.add(expect.algorithm)
        self._limit = limit
        self._too_large = too_large
        self._identity = hashlib.sha256()
        self._others = {name: hasher(name) for name in sorted(wanted)}
        self.size = 0
        self._sink = driver().sink()

    def append(self, buffer: bytes | bytearray | memoryview) -> None:
        """Raises what `too_large` gives (or TooLarge) past the limit, StorageFull, Unavailable."""
        self.size += len(buffer)
        if self._limit is not None and self.size > self._limit:
            raise self._too_large(self.size) if self._too_large else TooLarge(f"the limit is {self._limit} bytes")
        self._identity.update(buffer)
        for hasher in self._others.values():
            hasher.update(buffer)
        self._sink.append(buffer)

    def grown(self) -> int | None:
        """A descriptor of the growing bytes, the caller's to close; None where the driver has none (`Sink.grown`)."""
        return self._sink.grown()

    def hexdigests(self) -> dict[str, str]:
        """The digests of what came so far, sha256 among them."""
        found = {name: hasher.hexdigest() for name, hasher in self._others.items()}
        return {**found, "sha256": self._identity.hexdigest()}

    def finish(self) -> Staged:
        """Durable from here on, under a fresh key that no row names yet. Raises DigestInvalid, StorageFull, …"""
        hex_digest = self._identity.hexdigest()
        others = {name: hasher.hexdigest() for name, hasher in self._others.items()}
        if self._expect is not None:
            actual = hex_digest if self._expect.is_identity else others[self._expect.algorithm]
            if actual != self._expect.hex:
                self.abandon()
                raise digest_mismatch(self._expect, Digest(self._expect.algorithm, actual))
        try:
            committed = self._sink.commit(storage_key(hex_digest, clock.new_id()))
        except StoreError:
            self.abandon()
            raise
        return Staged(Digest.sha256(hex_digest), self.size, committed.key, committed.stamp, others)

    def abandon(self, keep: bool = False) -> None:
        self._sink.abandon()


def hasher(algorithm: str) -> Any:
    """A running hash of an algorithm of hashlib's, or "blake2b_256" (BLAKE2b of 32 bytes, as PyPI uses it)."""
    if algorithm == "blake2b_256":
        return hashlib.blake2b(digest_size=32)
    return hashlib.new(algorithm, usedforsecurity=False)


def digest_mismatch(expected: Digest, actual: Digest) -> DigestInvalid:
    return DigestInvalid(
        f"the content has the digest {actual}, not {expected}; nothing was stored",
        expected=str(expected),
        actual=str(actual),
    )


def open_sink(
    *,
    expect: Digest | None = None,
    algorithms: tuple[str, ...] = (),
    limit: int | None = None,
    too_large: Callable[[int], RepomanError] | None = None,
) -> BlobSink:
    """A sink for a new blob. `too_large(size)` makes the error for exceeding `limit` (a quota, say)."""
    return BlobSink(expect=expect, algorithms=algorithms, limit=limit, too_large=too_large)


def stage(data: bytes, *, algorithms: tuple[str, ...] = ()) -> Staged:
    """Bytes that are already in memory, made durable."""
    sink = open_sink(algorithms=algorithms)
    try:
        sink.append(data)
    except BaseException:
        sink.abandon()
        raise
    return sink.finish()


def discard(keys: list[str]) -> None:
    """Remove objects that no row ever named (the losers of a race). A failure leaves an orphan for the collector."""
    for key in keys:
        try:
            driver().delete(key)
        except StoreError:
            continue  # the collector removes objects without rows


def is_intact(key: str, size: int, stamp: str) -> bool:
    """Whether the object is there with the size and stamp it was stored with. Raises Unavailable."""
    stat = driver().stat(key)
    return stat is not None and stat.size == size and stat.stamp == stamp


def reader(ref: BlobRef) -> Reader:
    """Open stored bytes for sending. Where size or stamp differ from what was stored, they are hashed first.

    Raises FileNotFound (missing), Unavailable (store down, or the bytes are not the digest's: marked suspect).
    """
    try:
        opened = driver().open(ref.storage_key)
    except BlobMissing:
        mark_suspect(ref)
        raise FileNotFound("the bytes are missing from the blob store; upload them again") from None
    if opened.size == ref.size and opened.stamp == ref.stamp:
        return opened
    try:
        if opened.size == ref.size and hash_of(opened) == ref.digest.hex:
            return opened
    except StoreError:
        opened.close()
        raise
    opened.close()
    raise _damaged(ref)


def _damaged(ref: BlobRef) -> Unavailable:
    """The error for bytes that are not their digest's; the blob is marked suspect."""
    mark_suspect(ref)
    return Unavailable("the stored bytes are damaged; an operator must repair them or the content be pushed again")


def hash_of(opened: Reader) -> str:
    """sha256 of everything in the reader, hex."""
    identity = hashlib.sha256()
    _read_into(opened, identity)
    return identity.hexdigest()


def _read_into(opened: Reader, *running: Any) -> None:
    """Everything in the reader, once, into each of the running hashes."""
    offset = 0
    while offset < opened.size:
        piece = opened.pread(offset, min(PIECE, opened.size - offset))
        for each in running:
            each.update(piece)
        offset += len(piece)


def other_digest(ref: BlobRef, algorithm: str) -> str:
    """Another digest of stored bytes than their sha256, in hex: computed once and remembered. Raises as `reader`."""
    from django.db import IntegrityError, transaction

    rows = BlobDigest.objects.filter(blob__digest=ref.digest.hex, algorithm=algorithm)
    known = rows.values_list("hex", flat=True).first()
    if known is not None:
        return known
    running, identity = hasher(algorithm), hashlib.sha256()
    with reader(ref) as opened:
        _read_into(opened, running, identity)
    if identity.hexdigest() != ref.digest.hex:
        raise _damaged(ref)
    found: str = running.hexdigest()
    with contextlib.suppress(IntegrityError), transaction.atomic():  # the blob may be collected at this moment
        blob = Blob.objects.filter(digest=ref.digest.hex).first()
        if blob is not None:
            row = BlobDigest(blob=blob, algorithm=algorithm, hex=found)
            BlobDigest.objects.bulk_create([row], ignore_conflicts=True)
    return found


def read_small(ref: BlobRef) -> bytes:
    """All bytes of a small blob, verified against its digest. Raises as `reader`."""
    with reader(ref) as opened:
        data = opened.pread(0, ref.size) if ref.size else b""
    if hashlib.sha256(data).hexdigest() != ref.digest.hex:
        raise _damaged(ref)
    return data


_when_suspect: list[Callable[[BlobRef], None]] = []


def when_suspect(tell: Callable[[BlobRef], None]) -> None:
    """Have `tell` called whenever a blob turns out to be lost or damaged, outside any transaction."""
    _when_suspect.append(tell)


def mark_suspect(ref: BlobRef) -> None:
    """Note that these bytes failed a check: fsck reports them, and the next upload of the same bytes heals them."""
    from django.db import transaction

    with transaction.atomic():
        rows = Blob.objects.filter(digest=ref.digest.hex, storage_key=ref.storage_key)
        is_news = rows.exclude(state=Blob.State.SUSPECT).update(state=Blob.State.SUSPECT) > 0
    if is_news:
        for tell in _when_suspect:
            tell(ref)


def hash_state(state: bytes | None) -> Any:
    """A running sha256 continued from a saved state, or from the start."""
    return Sha256.restore(state) if state else Sha256()
