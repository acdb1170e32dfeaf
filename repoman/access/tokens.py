"""API tokens: `rpm_` and 256 random bits, shown once and kept as their sha256; and the refresh tokens (`rpr_`) of
registry clients, which are the same rows but are accepted by the token endpoint only.
"""

from __future__ import annotations

import datetime
import hashlib
import logging
import re
import threading
from collections.abc import Collection

from django.db import DatabaseError, transaction

from repoman.core import clock
from repoman.core.actor import Action

from .models import Principal, Token

API_PREFIX = "rpm_"
REFRESH_PREFIX = "rpr_"
DEFAULT_LIFE_SECONDS = 90 * 86_400
LONGEST_LIFE_SECONDS = 3650 * 86_400
ACTIONS = (Action.READ, Action.PUBLISH, Action.DELETE, Action.MANAGE)
_SECRET = re.compile(r"rp[mr]_[A-Za-z0-9_-]{43}\Z")

log = logging.getLogger(__name__)


def hash_secret(secret: str) -> str:
    """A plain sha256 is enough: the secret has 256 random bits, so there is nothing to guess from the hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def create(
    principal: Principal,
    *,
    name: str,
    actions: Collection[Action],
    repositories: Collection[int] | None,
    expires_in_seconds: int | None = DEFAULT_LIFE_SECONDS,
    prefix: str = API_PREFIX,
) -> tuple[Token, str]:
    """A new row and its secret, in the caller's transaction. `repositories` None: all the owner may."""
    secret = prefix + clock.new_secret()
    now = clock.now()
    row = Token.objects.create(
        principal=principal,
        name=name,
        secret_hash=hash_secret(secret),
        hint=secret[:8],
        actions=sorted(str(action) for action in actions),
        repositories=sorted(repositories) if repositories is not None else None,
        created_at=now,
        expires_at=now + datetime.timedelta(seconds=expires_in_seconds) if expires_in_seconds else None,
    )
    return row, secret


def find(secret: str, *, prefix: str = API_PREFIX) -> Token | None:
    """The live token with this secret and its principal; None if unknown, expired, revoked, or of another kind."""
    if not secret.startswith(prefix) or _SECRET.match(secret) is None:
        return None
    row = Token.objects.select_related("principal").filter(secret_hash=hash_secret(secret)).first()
    return row if row is not None and is_live(row) else None


def is_live(row: Token) -> bool:
    return row.revoked_at is None and (row.expires_at is None or row.expires_at > clock.now())


def actions_of(row: Token) -> frozenset[Action]:
    return frozenset(Action(action) for action in row.actions)


# --- last_used_at: noted in memory, written in batches ---------------------------------------------------------------

_WRITE_EVERY_SECONDS = 120.0
_uses: dict[int, datetime.datetime] = {}
_uses_lock = threading.Lock()
_written_at = 0.0


def note_use(token_id: int) -> None:
    """Remember that the token was used now. Cheap: no query. Whoever remembers sign-ins calls it at each use."""
    _uses[token_id] = clock.now()


def flush_uses(*, force: bool = False) -> int:
    """Write what was noted, at most every two minutes unless forced; returns how many tokens. Keeps it on failure."""
    global _written_at
    with _uses_lock:
        if not _uses or (not force and clock.monotonic() - _written_at < _WRITE_EVERY_SECONDS):
            return 0
        _written_at = clock.monotonic()
        noted = dict(_uses)
    try:
        with transaction.atomic():
            for token_id, moment in noted.items():
                Token.objects.filter(pk=token_id).update(last_used_at=moment)
    except DatabaseError as error:
        log.warning("token_use_not_written", extra={"fields": {"error": str(error)[:200]}})
        return 0
    for token_id, moment in noted.items():
        if _uses.get(token_id) == moment:
            _uses.pop(token_id, None)
    return len(noted)
