"""What a fetch needs of the database: the remote's settings, room for what comes, and that nobody else fetches the same.

A fetch is claimed by a row, so that of several processes and machines one asks the upstream; the others wait until the row
is gone and look again. A claim is renewed while the fetch lasts; one whose process died is free at once on its machine,
and after CLAIM_SECONDS elsewhere. A failed fetch leaves its error for a moment, for those who waited.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from repoman.access import secrets
from repoman.catalog.models import Namespace, Repository
from repoman.core import clock, errors
from repoman.core.errors import NotFound, QuotaExceeded, RepomanError, RepositoryNotFound
from repoman.core.fetch import Outcome, Plan
from repoman.jobs import holder
from repoman.sources.models import Fill
from repoman.transfer.auth import RemoteSettings

from .adopt import adopt

CLAIM_SECONDS = 30
REMEMBERED_SECONDS = 2


@dataclass(frozen=True, slots=True)
class Prepared:
    """`is_ours`: this process is to fetch. Otherwise `error` is what another one's fetch has just failed with, or None
    while it is under way."""

    settings: RemoteSettings
    limit: int | None
    is_ours: bool
    error: RepomanError | None = None
    namespace: str = ""
    used_bytes: int = 0
    quota_bytes: int | None = None

    def too_large(self, size: int) -> RepomanError:
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
    repository = Repository.objects.select_related("namespace").filter(pk=plan.repository_id).first()
    if repository is None or repository.remote is None or repository.state == Repository.State.DELETING:
        raise RepositoryNotFound("the repository was deleted meanwhile")
    namespace: Namespace = repository.namespace
    limit = plan.limit
    if not plan.is_document and namespace.quota_bytes is not None:
        limit = max(0, namespace.quota_bytes - namespace.used_bytes - namespace.reserved_bytes)
    is_ours, error = (True, None) if is_alone else _claim(plan.key)
    return Prepared(
        settings_of(repository.remote),
        limit,
        is_ours,
        error,
        namespace.name,
        namespace.used_bytes + namespace.reserved_bytes,
        namespace.quota_bytes,
    )


def _claim(key: str) -> tuple[bool, RepomanError | None]:
    now = clock.now()
    with transaction.atomic(durable=True):
        row = Fill.objects.select_for_update().filter(key=key).first()
        if row is not None and row.until > now:
            if row.error is not None:
                return False, _error_of(row.error)
            if not holder.is_dead(row.holder):
                return False, None
        until = now + datetime.timedelta(seconds=CLAIM_SECONDS)
        if row is None:
            made = Fill.objects.bulk_create([Fill(key=key, holder=holder.mark(), until=until)], ignore_conflicts=True)
            ours = Fill.objects.filter(key=key, holder=holder.mark()).exists() if made else False
            return ours, None
        Fill.objects.filter(pk=row.pk).update(holder=holder.mark(), until=until, error=None)
        return True, None


def look(key: str) -> tuple[bool, RepomanError | None]:
    """(whether the fetch of another process is over, the error it ended with)."""
    row = Fill.objects.filter(key=key).first()
    if row is None:
        return True, None
    if row.error is not None and row.until > clock.now():
        return True, _error_of(row.error)
    return row.until <= clock.now() or holder.is_dead(row.holder), None


def renew(key: str) -> None:
    until = clock.now() + datetime.timedelta(seconds=CLAIM_SECONDS)
    Fill.objects.filter(key=key, holder=holder.mark(), error=None).update(until=until)


def finish(plan: Plan, outcome: Outcome, *, is_alone: bool) -> None:
    """Adopt what came and give the claim back. `outcome.error` afterwards is what became of it."""
    try:
        adopt(plan, outcome)
    except BaseException as raised:
        if not is_alone:
            _give_back(plan.key, raised if isinstance(raised, RepomanError) else None)
        raise
    if not is_alone:
        _give_back(plan.key, outcome.error)


def _give_back(key: str, error: RepomanError | None) -> None:
    rows = Fill.objects.filter(key=key, holder=holder.mark())
    if error is None or isinstance(error, NotFound):
        rows.delete()
        return
    until = clock.now() + datetime.timedelta(seconds=REMEMBERED_SECONDS)
    told = {"type": type(error).__name__, "message": error.message, "retry_after": _wait_of(error)}
    rows.update(until=until, error=told)


def _wait_of(error: RepomanError) -> int | None:
    return getattr(error, "retry_after_seconds", None)


def _error_of(told: Mapping[str, Any]) -> RepomanError:
    kind = getattr(errors, str(told.get("type")), errors.UpstreamFailed)
    wait = told.get("retry_after")
    if isinstance(kind, type) and issubclass(kind, errors.Unavailable | errors.TooManyRequests) and wait:
        return kind(str(told.get("message")), retry_after_seconds=int(wait))
    if isinstance(kind, type) and issubclass(kind, RepomanError):
        found: RepomanError = kind(str(told.get("message")))
        return found
    return errors.UpstreamFailed(str(told.get("message")))


def forget_old_claims() -> int:
    """Rows of fetches that ended long ago without giving back their claim. Returns how many."""
    old = clock.now() - datetime.timedelta(seconds=CLAIM_SECONDS * 10)
    return Fill.objects.filter(until__lt=old).delete()[0]
