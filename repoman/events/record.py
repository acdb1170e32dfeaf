"""Writing facts: in the change's own transaction, so that what cannot be recorded is not done."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from django.db import transaction

from repoman.core import clock
from repoman.core.actor import Actor
from repoman.core.errors import RepomanError
from repoman.db.prepared import PreparedInsert

from .models import Event

if TYPE_CHECKING:
    from repoman.catalog.models import Repository

_insert = PreparedInsert(Event)
REFUSALS_PER_MINUTE = 30
_refusals: OrderedDict[tuple[object, int], int] = OrderedDict()
_refusals_lock = threading.Lock()


def record(
    kind: str,
    *,
    actor: Actor,
    repository: Repository | None = None,
    namespace: str = "",
    revision: int | None = None,
    subject: str = "",
    allowed: bool = True,
    **detail: object,
) -> Event:
    """One Event row in the caller's transaction. `detail` is plain JSON and never holds a secret."""
    if repository is not None:
        namespace = repository.key.partition("/")[0]
    return _insert(
        at=clock.now(),
        kind=kind,
        actor=actor.name[:160],
        actor_id=actor.principal_id,
        address=actor.address[:64],
        request_id=actor.request_id[:64],
        namespace=namespace,
        repository=repository.key if repository is not None else "",
        revision=revision,
        subject=subject[:1200],
        allowed=allowed,
        detail={key: value for key, value in detail.items() if value not in (None, "")},
    )


def refused(
    error: RepomanError,
    *,
    actor: Actor,
    kind: str = "access:refused",
    namespace: str = "",
    repository: str = "",
    subject: str = "",
) -> None:
    """Record that a known caller was refused, in a transaction of its own; at most 30 a minute per caller and kind.

    Anonymous callers are not recorded: anyone could fill the log.
    """
    if actor.is_anonymous:
        return
    minute = int(clock.seconds() // 60)
    with _refusals_lock:
        key = ((actor.principal_id, kind), minute)
        _refusals[key] = _refusals.get(key, 0) + 1
        while len(_refusals) > 10_000:
            _refusals.popitem(last=False)
        if _refusals[key] > REFUSALS_PER_MINUTE:
            return
    with transaction.atomic(durable=True):
        _insert(
            at=clock.now(),
            kind=kind,
            actor=actor.name[:160],
            actor_id=actor.principal_id,
            address=actor.address[:64],
            request_id=actor.request_id[:64],
            namespace=namespace or repository.partition("/")[0],
            repository=repository,
            subject=subject[:1200],
            allowed=False,
            detail={"code": error.code, "message": error.message[:500]},
        )
