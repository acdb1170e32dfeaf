"""Resumable transfers: sessions that survive a restart, are counted while they last, and belong to who began them."""

from __future__ import annotations

import datetime

from django.conf import settings
from django.db import connection

from repoman.access import secrets
from repoman.blobs import store
from repoman.blobs.drivers.base import Committed, SinkLost, StoreError, storage_key
from repoman.blobs.models import EndedUpload, Upload
from repoman.catalog import writes
from repoman.catalog.models import Repository
from repoman.core import clock
from repoman.core.actor import Actor
from repoman.core.digest import Digest
from repoman.core.errors import Conflict, RangeInvalid, TooManyRequests, UploadNotFound
from repoman.core.records import Staged, UploadState
from repoman.core.wire import SessionBody
from repoman.db.prepared import Prepared
from repoman.jobs import holder
from repoman.policy import quota

from .release import for_update
from .transactions import write

MAC_PURPOSE = b"upload session"
LEAST_LIFE_SECONDS = 5  # with a time to live of 0, for tests, a session can still be used
LEASE_SECONDS = 60
RENEW_SECONDS = 20
MOST_SESSIONS = 10_000  # per namespace


def _new_lease() -> str:
    return f"{holder.mark()}.{clock.new_id()[:6]}"


def _state(row: Upload, upload_id: str) -> UploadState:
    return UploadState(upload_id, row.package, row.offset, row.algorithm)


# --- ids -------------------------------------------------------------------------------------------------------------


def _promise(key: str, created: str, algorithm: str, repository: Repository, package: str, actor: Actor) -> str:
    """What an id says, and to whom it was given."""
    return "\0".join((key, created, algorithm, str(repository.pk), package, str(actor.principal_id)))


def _issue(repository: Repository, actor: Actor, package: str, algorithm: str) -> str:
    """A session's id: 128 random bits, when it was begun, the algorithm, and a mac over these and whose it is.

    So a session that has no bytes yet needs no row: beginning one writes nothing.
    """
    key, created = clock.new_id(), f"{int(clock.seconds()):x}"
    promise = _promise(key, created, algorithm, repository, package, actor)
    return f"{key}.{created}.{algorithm}.{secrets.mac(MAC_PURPOSE, promise)}"


_stored = Prepared(lambda key: Upload.objects.filter(pk=key))
_ended = Prepared(lambda key: EndedUpload.objects.filter(pk=key))


def find(repository: Repository, actor: Actor, package: str, upload_id: str) -> Upload:
    """The session, if it is this actor's, in this package of this repository; one that has kept nothing yet is not saved.

    Raises UploadNotFound.
    """
    unknown = UploadNotFound(f"upload session '{upload_id[:40]}' is unknown; it may have expired or been finished")
    parts = upload_id.split(".")
    if len(upload_id) > 200 or len(parts) != 4 or not upload_id.isascii():
        raise unknown
    key, created, algorithm, mark = parts
    if not secrets.mac_fits(MAC_PURPOSE, _promise(key, created, algorithm, repository, package, actor), mark):
        raise unknown
    row = _stored.first(key)
    if row is not None:
        return row
    begun = int(created, 16)
    life = settings.CONFIGURATION["REPOMAN_UPLOAD_TTL"]
    if _ended.first(key) is not None or clock.seconds() - begun > max(life, LEAST_LIFE_SECONDS):
        raise unknown
    moment = datetime.datetime.fromtimestamp(begun, datetime.UTC)
    return Upload(
        id=key,
        repository=repository,
        package=package,
        principal_id=actor.principal_id,
        algorithm=algorithm,
        created_at=moment,
        touched_at=moment,
    )


def is_saved(row: Upload) -> bool:
    return not row._state.adding


def begin(repository: Repository, actor: Actor, package: str, algorithm: str) -> UploadState:
    """A new session with nothing in it. Raises Unavailable where the repository takes no writes."""
    if repository.state != Repository.State.ACTIVE:
        writes.check_writable(repository)
    return UploadState(_issue(repository, actor, package, algorithm), package, 0, algorithm)


def has_begun(repository: Repository, actor: Actor, package: str, upload_id: str) -> bool:
    """Whether the session has kept bytes, or may be keeping some now. Raises UploadNotFound."""
    return is_saved(find(repository, actor, package, upload_id))


def _save(row: Upload) -> None:
    """The session's row, in the caller's transaction. Raises TooManyRequests past 10,000 in the namespace."""
    namespace_id = row.repository.namespace_id
    if Upload.objects.filter(repository__namespace_id=namespace_id).count() >= MOST_SESSIONS:
        raise TooManyRequests("the namespace has too many unfinished uploads", retry_after_seconds=60)
    row.save(force_insert=True)


def spend(upload_id: str) -> None:
    """End a session that kept nothing, in the caller's transaction: its content came another way. Raises UploadNotFound."""
    key = upload_id.partition(".")[0]
    if _ended.first(key) is not None or _stored.first(key) is not None:
        raise UploadNotFound(f"upload session '{upload_id[:40]}' has ended or is in use")
    note_end(key)


def note_end(key: str) -> None:
    """Remember that the session is over, in the transaction that ends it."""
    moment = connection.ops.adapt_datetimefield_value(clock.now())
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO blobs_endedupload (id, ended_at) VALUES (%s, %s) ON CONFLICT DO NOTHING", [key, moment]
        )


def take(upload_id: str) -> Upload | None:
    """End the session's row in the caller's transaction, whose part it is to return what it reserved. None where
    somebody else ended it: of several at once, one gives back."""
    key = upload_id.partition(".")[0]
    rows = for_update(Upload.objects.filter(pk=key), skip_locked=False)
    row: Upload | None = rows.select_related("repository").first()
    if row is not None:
        Upload.objects.filter(pk=key).delete()
        note_end(key)
    return row


def cancel(repository: Repository, actor: Actor, package: str, upload_id: str) -> None:
    """End the session; what it kept and reserved is given back. Raises UploadNotFound."""

    def block() -> Upload:
        found = find(repository, actor, package, upload_id)
        if not is_saved(found):
            note_end(found.pk)
            return found
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

    def __init__(self, repository: Repository, row: Upload, upload_id: str, lease: str, limit: int | None) -> None:
        self._repository = repository
        self._row = row
        self._upload_id = upload_id
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
        return UploadState(self._upload_id, self._row.package, offset, self._row.algorithm)

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
        changed = write(lambda: Upload.objects.filter(pk=self._row.pk, lease=self._lease).update(leased_until=until))
        if changed != 1:
            raise RangeInvalid("another request continued this upload", offset=self._row.offset)
        self._renewed = clock.monotonic()


def _release(upload_id: str, lease: str) -> None:
    write(lambda: Upload.objects.filter(pk=upload_id, lease=lease).update(lease="", leased_until=None))


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
        if not is_saved(row):
            row.touched_at = now
            row.lease, row.leased_until, row.target = lease, until, target
            _save(row)
            return row
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
    return SessionSink(repository, row, plan.upload_id, lease, quota.remaining_bytes(repository.namespace_id))


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
        write(lambda: Upload.objects.filter(pk=row.pk).update(target=found.key))
        return found


def finished_bytes(row: Upload) -> Committed | None:
    """The bytes of a session whose finish was killed before a row named them."""
    stat = store.driver().stat(row.target) if row.target else None
    return Committed(row.target, stat.size, stat.stamp) if stat is not None and stat.size == row.offset else None


def release(upload_id: str) -> None:
    """Let others continue a session whose finish failed after its bytes were stored."""
    key = upload_id.partition(".")[0]
    write(lambda: Upload.objects.filter(pk=key).update(lease="", leased_until=None))


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
    return _state(find(repository, actor, package, upload_id), upload_id)
