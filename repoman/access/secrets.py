"""Secrets that must be read back (signing keys, an upstream's password) are stored encrypted, with the key's id beside.

The key is derived from the SECRET_KEY setting; SECRET_KEY_FALLBACKS, where set, still decrypt what older keys wrote.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

from repoman.core.errors import Unavailable


@dataclass(frozen=True, slots=True)
class Sealed:
    """An encrypted text and the id (16 hex characters) of the key that opens it."""

    key_id: str
    ciphertext: str

    def __str__(self) -> str:
        return f"{self.key_id}:{self.ciphertext}"

    @classmethod
    def parse(cls, text: str) -> Sealed:
        key_id, _, ciphertext = text.partition(":")
        return cls(key_id, ciphertext)


class SecretUnreadable(Unavailable):
    """A stored secret was written with another secret key; give the server the key it was written with."""

    code = "secret_unreadable"


def _derive(secret: str, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"repoman " + purpose).derive(secret.encode())


@lru_cache(maxsize=8)
def _key(secret: str) -> tuple[str, Fernet]:
    key_id = hashlib.sha256(_derive(secret, b"key id")).hexdigest()[:16]
    return key_id, Fernet(base64.urlsafe_b64encode(_derive(secret, b"stored secrets")))


def current_key_id() -> str:
    return _key(settings.SECRET_KEY)[0]


def encrypt(text: str) -> Sealed:
    key_id, fernet = _key(settings.SECRET_KEY)
    return Sealed(key_id, fernet.encrypt(text.encode()).decode("ascii"))


def decrypt(sealed: Sealed) -> str:
    """Raises SecretUnreadable where no configured key opens it."""
    for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
        key_id, fernet = _key(secret)
        if key_id == sealed.key_id:
            try:
                return fernet.decrypt(sealed.ciphertext.encode("ascii")).decode()
            except InvalidToken:
                raise SecretUnreadable("a stored secret is damaged") from None
    raise SecretUnreadable(f"a stored secret needs the secret key with id {sealed.key_id}")


@lru_cache(maxsize=8)
def _mac_key(secret: str, purpose: bytes) -> bytes:
    return _derive(secret, b"mac " + purpose)


def mac(purpose: bytes, text: str) -> str:
    """What proves that this installation wrote `text`, for a purpose: 32 hex characters."""
    return hmac.new(_mac_key(settings.SECRET_KEY, purpose), text.encode(), hashlib.sha256).hexdigest()[:32]


def mac_fits(purpose: bytes, text: str, given: str) -> bool:
    """Whether `given` is the mac of `text`, under the current secret key or one before it."""
    for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
        expected = hmac.new(_mac_key(secret, purpose), text.encode(), hashlib.sha256).hexdigest()[:32]
        if hmac.compare_digest(expected, given):
            return True
    return False
