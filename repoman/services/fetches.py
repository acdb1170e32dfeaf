"""What a fetch needs besides its plan: the remote's settings, room for what comes, and that nobody else fetches the same.

A fetch is claimed, so that of several processes and machines one asks the upstream; the others wait until the claim is
gone and look again. A failed fetch leaves its error for a moment, for those who waited. Claims need not outlive a crash,
so none of them is worth an fsync:

* On SQLite all processes are on one machine. A claim is a lock on a file; the kernel frees it when its holder dies.
* On PostgreSQL it is a row, written without waiting for the log (`synchronous_commit` off, in that transaction only) and
  renewed while the fetch lasts. One whose process died is free at once on its machine, after CLAIM_SECONDS elsewhere.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from django.conf import settings
from django.db import connection, transaction

from repoman.access import secrets
from repoman.catalog.models import Namespace, Repository
from repoman.core import clock, errors
from repoman.core.errors import NotFound, QuotaExceeded, RepomanError, RepositoryNotFound, UpstreamFailed
from repoman.core.fetch import Outcome, Plan
from repoman.core.format import handler_for
from repoman.jobs import holder
from repoman.sources.models import Fill
from repoman.sources.remote import Limits, generation_of, is_here
from repoman.transfer.auth import RemoteSettings

from .adopt import adopt, repository_row

CLAIM_SECONDS = 30
REMEMBERED_SECONDS = 2
SWEPT_EVERY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Prepared:
    """`is_ours`: this process is to fetch. Otherwise `error` is what another one's fetch has just failed with, or None
    while it is under way. `is_outdated`: it came meanwhile, or the remote's settings are others by now; look again."""

    settings: RemoteSettings
    limit: int | None
    is_ours: bool
    error: RepomanError | None = None
    is_outdated: bool = False
    size: int | None = None
    namespace: str = ""
    used_bytes: int = 0
    quota_bytes: int | None = None

    def too_large(self, size: int) -> RepomanError:
        """The error for more than `limit` bytes."""
        if self.size is not None and size > self.size:
            return UpstreamFailed(
                f"the upstream sends more than the {self.size} bytes that this file has; nothing was kept",
                reason="length",
                expected=self.size,
                actual=size,
            )
        return QuotaExceeded(
            f"namespace '{self.namespace}' uses {self.used_bytes} of {self.quota_bytes} bytes; what the upstream sends "
            f"({size} bytes) does not fit. Remove content or ask an administrator for a larger quota",
            namespace=self.namespace,
            used_bytes=self.used_bytes,
            quota_bytes=self.quota_bytes,
            needed_bytes=size,
        )


def settings_of(remote: Mapping[str, Any]) -> RemoteSettings:
    """How to ask this remote; its password in clear. Raises SecretUnreadable."""
    sealed = secrets.Sealed.parse(str(remote.get("password") or ""))
    return RemoteSettings(
        url=str(remote["url"]),
        username=str(remote.get("username") or ""),
        password=secrets.decrypt(sealed) if sealed.ciphertext else "",
        connect_timeout=float(remote.get("connect_timeout") or 10),
        read_timeout=float(remote.get("read_timeout") or 60),
        token_realms=tuple(remote.get("token_realms") or ()),
    )


def prepare(plan: Plan, *, is_alone: bool) -> Prepared:
    """Claim the fetch, or find out who has it. `is_alone`: no other process serves this data. Raises RepositoryNotFound."""
    repository = repository_row.first(plan.repository_id)
    if repository is None or repository.remote is None or repository.state == Repository.State.DELETING:
        raise RepositoryNotFound("the repository was deleted meanwhile")
    settings = settings_of(repository.remote)  # may raise: before the claim, which nobody would give back
    namespace: Namespace = repository.namespace
    limit = plan.limit
    if not plan.is_document:
        room = None
        if namespace.quota_bytes is not None:
            room = max(0, namespace.quota_bytes - namespace.used_bytes - namespace.reserved_bytes)
        bounds = [bound for bound in (limit, room, plan.size) if bound is not None]
        limit = min(bounds) if bounds else None
    is_outdated = generation_of(plan) != Limits.of(repository.remote).generation
    is_ours, error = (False, None) if is_outdated else (True, None) if is_alone else claims().take(plan.key)
    if is_ours and is_here(plan, handler_for(repository.format)):
        # Fetched by somebody else between the look that found it missing and our claim.
        is_ours, is_outdated = False, True
        if not is_alone:
            claims().give_back(plan.key, None)
    return Prepared(
        settings,
        limit,
        is_ours,
        error,
        is_outdated,
        plan.size,
        namespace.name,
        namespace.used_bytes + namespace.reserved_bytes,
        namespace.quota_bytes,
    )


def look(key: str) -> tuple[bool, RepomanError | None]:
    """(whether the fetch of another process is over, the error it ended with)."""
    return claims().look(key)


def renew(key: str) -> None:
    claims().renew(key)


def finish(plan: Plan, outcome: Outcome, *, is_alone: bool, seconds: float = 0.0) -> None:
    """Adopt what came and give the claim back. `outcome.error` afterwards is what became of it."""
    error: RepomanError | None = None
    try:
        adopt(plan, outcome, seconds)
        error = outcome.error
    except RepomanError as raised:
        error = raised
        raise
    finally:
        if not is_alone:
            # "Not there" needs no memory here: whoever waited finds out by asking, and remembers it then.
            claims().give_back(plan.key, error if not isinstance(error, NotFound) else None)


# --- claims ----------------------------------------------------------------------------------------------------------


class Claims(Protocol):
    def take(self, key: str) -> tuple[bool, RepomanError | None]:
        """(whether it is ours now, the error that the last fetch has just failed with)."""

    def look(self, key: str) -> tuple[bool, RepomanError | None]:
        """(whether nobody has it any more, the error that the fetch ended with)."""

    def renew(self, key: str) -> None: ...

    def give_back(self, key: str, error: RepomanError | None) -> None: ...


class FileClaims:
    """Locks on files in one folder. A file without a lock means nothing but the error that it may hold."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, int] = {}
        self._swept_at = 0.0
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def take(self, key: str) -> tuple[bool, RepomanError | None]:
        path = self._path(key)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False, None
            if _is_at(descriptor, path):
                break
            os.close(descriptor)  # its holder removed it between our two calls
        error = _left_in(descriptor)
        if error is not None:
            os.close(descriptor)
            return False, error
        self._held[key] = descriptor
        return True, None

    def look(self, key: str) -> tuple[bool, RepomanError | None]:
        try:
            descriptor = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True, None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return True, _left_in(descriptor)
        except BlockingIOError:
            return False, None
        finally:
            os.close(descriptor)

    def renew(self, key: str) -> None:
        """The lock is there as long as we are."""

    def give_back(self, key: str, error: RepomanError | None) -> None:
        descriptor = self._held.pop(key, None)
        if descriptor is None:
            return
        path = self._path(key)
        try:
            if error is None:
                os.unlink(path)
            else:
                until = clock.seconds() + REMEMBERED_SECONDS
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps({"until": until, "error": _told(error)}).encode(), 0)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(path)  # no room for the error, say: the others will find out by themselves
        finally:
            os.close(descriptor)
        if error is not None:
            self._sweep()

    def _path(self, key: str) -> Path:
        return self._folder / hashlib.sha256(key.encode()).hexdigest()[:32]

    def _sweep(self) -> None:
        """Remove files with errors that nobody waits for any more."""
        now = clock.seconds()
        with self._lock:
            if 0 <= now - self._swept_at < SWEPT_EVERY_SECONDS:
                return
            self._swept_at = now
        for entry in list(os.scandir(self._folder)):
            with contextlib.suppress(OSError):
                if now - entry.stat().st_mtime > SWEPT_EVERY_SECONDS:
                    _remove_unlocked(entry.path)


def _remove_unlocked(path: str) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(descriptor, path):
            os.unlink(path)
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, path: Path | str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _left_in(descriptor: int) -> RepomanError | None:
    """The error of a fetch that has just failed, if the file holds one."""
    text = os.pread(descriptor, 65536, 0)
    if not text:
        return None
    try:
        told = json.loads(text)
        return _error_of(told["error"]) if told["until"] > clock.seconds() else None
    except (ValueError, KeyError, TypeError):
        return None


class RowClaims:
    """Rows, for processes on several machines."""

    def take(self, key: str) -> tuple[bool, RepomanError | None]:
        now = clock.now()
        until = now + datetime.timedelta(seconds=CLAIM_SECONDS)
        ours = holder.mark()
        with _unsynchronised(), connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO sources_fill (key, holder, until, error) VALUES (%s, %s, %s, NULL)"
                " ON CONFLICT (key) DO UPDATE SET holder = EXCLUDED.holder, until = EXCLUDED.until, error = NULL"
                " WHERE sources_fill.until <= %s RETURNING id",
                [key, ours, until, now],
            )
            if cursor.fetchone() is not None:
                return True, None
            row = Fill.objects.filter(key=key).first()
            if row is None:
                return False, None  # given back this very moment: look again
            if row.error is not None:
                return False, _error_of(row.error)
            if not holder.is_dead(row.holder):
                return False, None
            taken = Fill.objects.filter(pk=row.pk, holder=row.holder, until=row.until)
            return taken.update(holder=ours, until=until, error=None) == 1, None

    def look(self, key: str) -> tuple[bool, RepomanError | None]:
        row = Fill.objects.filter(key=key).first()
        if row is None:
            return True, None
        is_over = row.until <= clock.now()
        if row.error is not None and not is_over:
            return True, _error_of(row.error)
        return is_over or holder.is_dead(row.holder), None

    def renew(self, key: str) -> None:
        until = clock.now() + datetime.timedelta(seconds=CLAIM_SECONDS)
        with _unsynchronised():
            Fill.objects.filter(key=key, holder=holder.mark(), error=None).update(until=until)

    def give_back(self, key: str, error: RepomanError | None) -> None:
        rows = Fill.objects.filter(key=key, holder=holder.mark())
        with _unsynchronised():
            if error is None:
                rows.delete()
                return
            now = clock.now()
            rows.update(until=now + datetime.timedelta(seconds=REMEMBERED_SECONDS), error=_told(error))
            Fill.objects.filter(until__lt=now - datetime.timedelta(seconds=10 * CLAIM_SECONDS)).delete()


@contextlib.contextmanager
def _unsynchronised() -> Iterator[None]:
    with transaction.atomic(durable=True):
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL synchronous_commit TO off")
        yield


_claims: Claims | None = None
_claims_lock = threading.Lock()


def claims() -> Claims:
    """This process's, made at the first use (after a fork)."""
    global _claims
    with _claims_lock:
        if _claims is None:
            is_local = settings.DATABASES["default"]["ENGINE"] == "repoman.db.sqlite"
            _claims = FileClaims(settings.CONFIGURATION.data / "fetches") if is_local else RowClaims()
        return _claims


def _told(error: RepomanError) -> dict[str, Any]:
    """An error as plain JSON. Details that are not plain are left out."""
    plain = {name: value for name, value in error.detail.items() if isinstance(value, str | int | float | None)}
    wait = getattr(error, "retry_after_seconds", None)
    return {"type": type(error).__name__, "message": error.message, "detail": plain, "retry_after": wait}


def _error_of(told: Mapping[str, Any]) -> RepomanError:
    kind = getattr(errors, str(told.get("type")), errors.UpstreamFailed)
    message, detail, wait = str(told.get("message")), dict(told.get("detail") or {}), told.get("retry_after")
    if not (isinstance(kind, type) and issubclass(kind, RepomanError)):
        kind = errors.UpstreamFailed
    if issubclass(kind, errors.Unavailable | errors.TooManyRequests):
        detail.pop("retry_after_seconds", None)
        return kind(message, retry_after_seconds=int(wait or 5), **detail)
    found: RepomanError = kind(message, **detail)
    return found
