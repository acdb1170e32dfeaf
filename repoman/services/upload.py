"""Resumable transfers: sessions that survive a restart, are counted while they last, and belong to who began them."""

from __future__ import annotations

import datetime

from django.db import transaction

from repoman.blobs import store
from repoman.blobs.drivers.base import Committed, SinkLost, StoreError, storage_key
from repoman.blobs.models import Upload
from repoman.catalog import writes
from repoman.catalog.models import Repository
from repoman.core import clock
from repoman.core.actor import Actor
from repoman.core.digest import Digest
from repoman.core.errors import Conflict, RangeInvalid, TooManyRequests, UploadNotFound
from repoman.core.records import Staged, UploadState
from repoman.core.wire import SessionBody
from repoman.jobs import holder
from repoman.policy import quota

from .release import for_update
from .transactions import write

LEASE_SECONDS = 60
RENEW_SECONDS = 20
MOST_SESSIONS = 10_000  # per namespace


def _new_lease() -> str:
    return f"{holder.mark()}.{clock.new_id()[:6]}"


def _state(row: Upload) -> UploadState:
    return UploadState(row.pk, row.package, row.offset, row.algorithm)


def find(repository: Repository, actor: Actor, package: str, upload_id: str) -> Upload:
    """The session, if it is this actor's, in this package of this repository. Raises UploadNotFound otherwise."""
    row = Upload.objects.filter(pk=upload_id, repository=repository, package=package).first()
    if row is None or row.principal_id != actor.principal_id:
        raise UploadNotFound(f"upload session '{upload_id[:40]}' is unknown; it may have expired or been finished")
    return row


def begin(repository: Repository, actor: Actor, package: str, algorithm: str) -> UploadState:
    """A new session with nothing in it. Raises TooManyRequests past 10,000 sessions in the namespace."""
    now = clock.now()
    row = Upload(
        id=clock.new_id(),
        repository=repository,
        package=package,
        principal_id=actor.principal_id,
        algorithm=algorithm,
        created_at=now,
        touched_at=now,
    )

    def block() -> None:
        writes.check_writable(repository)
        if Upload.objects.filter(repository__namespace_id=repository.namespace_id).count() >= MOST_SESSIONS:
            raise TooManyRequests("the namespace has too many unfinished uploads", retry_after_seconds=60)
        row.save(force_insert=True)

    write(block)
    return _state(row)


def take(upload_id: str) -> Upload | None:
    """End the session's row in the caller's transaction, whose part it is to return what it reserved. None where
    somebody else ended it: of several at once, one gives back."""
    rows = for_update(Upload.objects.filter(pk=upload_id), skip_locked=False)
    row: Upload | None = rows.select_related("repository").first()
    if row is not None:
        Upload.objects.filter(pk=upload_id).delete()
    return row


def cancel(repository: Repository, actor: Actor, package: str, upload_id: str) -> None:
    """End the session; what it kept and reserved is given back. Raises UploadNotFound."""

    def block() -> Upload:
        found = find(repository, actor, package, upload_id)
        row = take(found.pk)
        if row is None:
            raise UploadNotFound(f"upload session '{upload_id[:40]}' has just ended")
        quota.charge(repository.namespace_id, reserved=-row.reserved)
        return row

    row = write(block)
    if row.resume:
        try:
            store.driver().sink(row.resume).abandon()
        except StoreError:
            pass  # the sweep removes what the store could not


class SessionSink:
    """Bytes on their way into a session. Holds the session's lease from open to finish or abandon."""

    def __init__(self, repository: Repository, row: Upload, lease: str, limit: int | None) -> None:
        self._repository = repository
        self._row = row
        self._lease = lease
        self._limit = limit  # bytes this request may add
        self._added = 0
        self._renewed = clock.monotonic()
        self._hasher = store.hash_state(bytes(row.hash_state) if row.hash_state else None)
        self._hash_lost = row.offset > 0 and not row.hash_state
        try:
            self._sink = store.driver().sink(row.resume or None)
        except SinkLost:
            _drop(row)
            raise
        except StoreError:
            _release(row.pk, lease)
            raise

    def append(self, buffer: bytes | bytearray | memoryview) -> None:
        """Raises QuotaExceeded at the buffer that no longer fits, StorageFull, RangeInvalid (lease lost)."""
        if clock.monotonic() - self._renewed > RENEW_SECONDS:
            self._renew()
        self._added += len(buffer)
        if self._limit is not None and self._added > self._limit:
            raise quota.refuse(self._repository.namespace_id, self._added)
        self._hasher.update(buffer)
        self._sink.append(buffer)

    def finish(self) -> UploadState:
        """Keep what came; the session's offset grows by it. Raises QuotaExceeded, RangeInvalid (lease lost)."""
        try:
            resume = self._sink.suspend(durable=False)  # power loss may cost a session; a killed process may not
        except StoreError:
            _release(self._row.pk, self._lease)
            raise
        offset = self._row.offset + self._added
        state = None if self._hash_lost else self._hasher.state()

        def block() -> None:
            changed = Upload.objects.filter(pk=self._row.pk, lease=self._lease).update(
                offset=offset,
                reserved=offset,
                resume=resume,
                hash_state=state,
                lease="",
                leased_until=None,
                touched_at=clock.now(),
            )
            if changed != 1:
                raise RangeInvalid("another request continued this upload", offset=self._row.offset)
            quota.charge(self._repository.namespace_id, reserved=offset - self._row.reserved)

        try:
            write(block)
        except BaseException:
            _release(self._row.pk, self._lease)
            raise
        return UploadState(self._row.pk, self._row.package, offset, self._row.algorithm)

    def abandon(self, keep: bool = False) -> None:
        """The client left or the request failed. `keep`: what came so far counts (it may resume); else it never was."""
        if keep and self._added:
            self.finish()
            return
        if not self._row.resume:
            self._sink.abandon()
        else:
            try:
                # The row says where the session stands; what follows is overwritten.
                self._sink.suspend(durable=False)
            except StoreError:
                pass  # nothing of this request counts anyway
        _release(self._row.pk, self._lease)

    def _renew(self) -> None:
        until = clock.now() + datetime.timedelta(seconds=LEASE_SECONDS)
        with transaction.atomic(durable=True):
            changed = Upload.objects.filter(pk=self._row.pk, lease=self._lease).update(leased_until=until)
        if changed != 1:
            raise RangeInvalid("another request continued this upload", offset=self._row.offset)
        self._renewed = clock.monotonic()


def _release(upload_id: str, lease: str) -> None:
    with transaction.atomic(durable=True):
        Upload.objects.filter(pk=upload_id, lease=lease).update(lease="", leased_until=None)


def _drop(row: Upload) -> None:
    def block() -> None:
        current = take(row.pk)
        if current is not None:
            quota.charge(current.repository.namespace_id, reserved=-current.reserved)

    write(block)


def _lease(
    repository: Repository, actor: Actor, package: str, upload_id: str, start: int | None, *, target: str = ""
) -> tuple[Upload, str]:
    """Take the session for one request: the row as it was before, and the lease.

    Raises UploadNotFound, RangeInvalid (wrong start, or somebody else has it).
    """
    lease = _new_lease()

    def block() -> Upload:
        row = find(repository, actor, package, upload_id)
        now = clock.now()
        if row.lease and row.leased_until and row.leased_until > now and not holder.is_dead(row.lease):
            raise RangeInvalid("another request is sending bytes to this upload right now", offset=row.offset)
        if start is not None and start != row.offset:
            raise RangeInvalid(f"the upload stands at {row.offset}, not at {start}", offset=row.offset)
        until = now + datetime.timedelta(seconds=LEASE_SECONDS)
        taken = Upload.objects.filter(pk=row.pk, lease=row.lease, offset=row.offset).update(
            lease=lease, leased_until=until, **({"target": target} if target else {})
        )
        if taken != 1:
            raise RangeInvalid("another request is sending bytes to this upload right now", offset=row.offset)
        return row

    return write(block), lease


def open_session(repository: Repository, actor: Actor, plan: SessionBody) -> SessionSink:
    """A sink that continues the session. Raises UploadNotFound, RangeInvalid, Unavailable."""
    row, lease = _lease(repository, actor, plan.package, plan.upload_id, plan.start)
    return SessionSink(repository, row, lease, quota.remaining_bytes(repository.namespace_id))


def finish(repository: Repository, actor: Actor, package: str, upload_id: str, expect: Digest) -> Staged:
    """The session's bytes, durable under a key that no row names yet; `attach(upload_id=…)` then ends the session.

    Raises UploadNotFound, RangeInvalid, DigestInvalid (the session is over then: its bytes are not what was promised).
    """
    key = storage_key(expect.hex[:64], clock.new_id())
    row, lease = _lease(repository, actor, package, upload_id, None, target=key)
    try:
        committed = _commit(row, key)
    except SinkLost:
        _drop(row)
        raise
    except StoreError:
        _release(row.pk, lease)
        raise
    try:
        staged = _identify(row, expect, committed.key, committed.stamp)
        actual = Digest(expect.algorithm, staged.others.get(expect.algorithm, staged.digest.hex))
        if actual != expect:
            raise store.digest_mismatch(expect, actual)
    except BaseException:
        store.discard([committed.key])
        _drop(row)
        raise
    if not Upload.objects.filter(pk=row.pk, lease=lease).exists():
        store.discard([committed.key])
        raise Conflict("the upload was cancelled while it was being finished")
    return staged


def _commit(row: Upload, key: str) -> Committed:
    """The session's bytes under `key`, or where an earlier request that finished it left them. Raises StoreError."""
    driver = store.driver()
    try:
        return driver.sink(row.resume or None).commit(key)
    except SinkLost:
        found = finished_bytes(row)
        if found is None:
            raise
        with transaction.atomic(durable=True):
            Upload.objects.filter(pk=row.pk).update(target=found.key)
        return found


def finished_bytes(row: Upload) -> Committed | None:
    """The bytes of a session whose finish was killed before a row named them."""
    stat = store.driver().stat(row.target) if row.target else None
    return Committed(row.target, stat.size, stat.stamp) if stat is not None and stat.size == row.offset else None


def release(upload_id: str) -> None:
    """Let others continue a session whose finish failed after its bytes were stored."""
    with transaction.atomic(durable=True):
        Upload.objects.filter(pk=upload_id).update(lease="", leased_until=None)


def _identify(row: Upload, expect: Digest, key: str, stamp: str) -> Staged:
    """What the committed bytes are: from the running hash where that suffices, else by reading them once."""
    if expect.is_identity and (row.hash_state or row.offset == 0):
        hex_digest = store.hash_state(bytes(row.hash_state) if row.hash_state else None).hexdigest()
        return Staged(Digest.sha256(hex_digest), row.offset, key, stamp)
    import hashlib

    identity = hashlib.sha256()
    other = hashlib.new(expect.algorithm)
    with store.driver().open(key) as opened:
        offset = 0
        while offset < opened.size:
            piece = opened.pread(offset, min(store.PIECE, opened.size - offset))
            identity.update(piece)
            other.update(piece)
            offset += len(piece)
    others = {} if expect.is_identity else {expect.algorithm: other.hexdigest()}
    return Staged(Digest.sha256(identity.hexdigest()), offset, key, stamp, others)


def state_of(repository: Repository, actor: Actor, package: str, upload_id: str) -> UploadState:
    return _state(find(repository, actor, package, upload_id))
