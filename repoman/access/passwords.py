"""Passwords: argon2id, a bounded length without truncation, and the same work whether or not the account exists."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import threading
import unicodedata
from collections import OrderedDict
from functools import lru_cache

import argon2

from repoman.core.errors import BadRequest, Unavailable

MOST_BYTES = 1024
FEWEST_CHARACTERS = 8
TOKEN_PREFIXES = ("rpm_", "rpr_")

# OWASP's parameters for argon2id: 19 MiB and two passes, so that many sign-ins at once stay affordable.
_hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
_slots = threading.BoundedSemaphore(max(2, len(os.sched_getaffinity(0))))
_SLOT_WAIT_SECONDS = 5.0

# That a password fits a hash is a fact that never changes, so it may be remembered; nothing else is. Keys are MACs
# under a key of this process, values nothing, and a changed password has another hash.
_process_key = secrets.token_bytes(32)
_verified: OrderedDict[bytes, None] = OrderedDict()
_verified_lock = threading.Lock()
_VERIFIED_MOST = 4096


class PasswordInvalid(BadRequest):
    """The password cannot be used."""

    code = "password_invalid"


def _prepare(password: str) -> bytes | None:
    """The bytes that are hashed (NFC, so that every keyboard types the same), or None for what no password can be."""
    try:
        if len(password) > MOST_BYTES:
            return None
        encoded = unicodedata.normalize("NFC", password).encode("utf-8", "strict")
    except UnicodeEncodeError:
        return None
    return encoded if 0 < len(encoded) <= MOST_BYTES else None


def check_new(password: str) -> None:
    """Raises PasswordInvalid for a password that may not be set: too short, too long, or like a token."""
    encoded = _prepare(password)
    if len(password) < FEWEST_CHARACTERS:
        raise PasswordInvalid(f"a password needs at least {FEWEST_CHARACTERS} characters")
    if encoded is None:
        raise PasswordInvalid(f"a password has at most {MOST_BYTES} bytes of valid Unicode")
    if password.startswith(TOKEN_PREFIXES):
        raise PasswordInvalid(f"a password may not start with {' or '.join(TOKEN_PREFIXES)}: tokens do")
    if any(unicodedata.category(character) == "Cc" for character in password):
        raise PasswordInvalid("a password may not contain control characters")


def hash_password(password: str) -> str:
    check_new(password)
    encoded = _prepare(password)
    assert encoded is not None
    return _hasher.hash(encoded)


@lru_cache(maxsize=1)
def _nobody() -> str:
    """A hash that no password fits, for accounts that do not exist."""
    return _hasher.hash(secrets.token_bytes(32))


def verify_password(password: str, password_hash: str) -> bool:
    """Whether the password fits. An empty hash (no such account, no password) costs the same time and is False.

    Raises Unavailable when too many sign-ins are being checked at once.
    """
    encoded = _prepare(password)
    known = bool(password_hash) and encoded is not None
    fact = hmac.new(_process_key, password_hash.encode() + b"\0" + (encoded or b""), hashlib.sha256).digest()
    with _verified_lock:
        if known and fact in _verified:
            _verified.move_to_end(fact)
            return True
    if not _slots.acquire(timeout=_SLOT_WAIT_SECONDS):
        raise Unavailable("too many sign-ins are being checked; try again")
    try:
        _hasher.verify(password_hash if known else _nobody(), encoded or b"\0")
    except argon2.exceptions.VerifyMismatchError:
        return False
    finally:
        _slots.release()
    if not known:
        return False
    with _verified_lock:
        _verified[fact] = None
        while len(_verified) > _VERIFIED_MOST:
            _verified.popitem(last=False)
    return True
