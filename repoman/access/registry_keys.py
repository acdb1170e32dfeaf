"""The keys with which this server signs what it publishes (npm's `dist.signatures`): ECDSA P-256, kept for good.

One key signs until it is replaced; older ones stay in the list that clients fetch, since what they signed is still there.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.db import transaction

from repoman.core import clock
from repoman.core.records import RegistryKey
from repoman.db.prepared import Prepared

from . import epoch, secrets
from .models import PublishingKey


def new_key() -> PublishingKey:
    """A key that signs from now on, in the caller's transaction."""
    private = ec.generate_private_key(ec.SECP256R1())
    der = private.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode("ascii")
    sealed = secrets.encrypt(pem)
    return PublishingKey.objects.create(
        keyid="SHA256:" + base64.b64encode(hashlib.sha256(der).digest()).decode("ascii"),
        private=sealed.ciphertext,
        secret_key_id=sealed.key_id,
        public=base64.b64encode(der).decode("ascii"),
        created_at=clock.now(),
    )


def _current() -> PublishingKey:
    row = _newest()
    if row is not None:
        return row
    with transaction.atomic(durable=True):
        epoch.bump()  # its lock: of several processes that need the first key, one makes it
        return _newest() or new_key()


_signing = Prepared(lambda: PublishingKey.objects.filter(expires_at=None).order_by("-created_at", "-pk"))


def _newest() -> PublishingKey | None:
    return _signing.first()


def ensure() -> None:
    """Make the first key, at every start: a publish that had to would change everybody's rights meanwhile."""
    _current()


@lru_cache(maxsize=8)
def _private(key_id: str, ciphertext: str) -> Any:
    pem = secrets.decrypt(secrets.Sealed(key_id, ciphertext))
    return serialization.load_pem_private_key(pem.encode("ascii"), password=None)


def sign(payload: bytes) -> tuple[str, str]:
    """The key's id and the DER signature in base64. Raises SecretUnreadable."""
    row = _current()
    signature = _private(row.secret_key_id, row.private).sign(payload, ec.ECDSA(hashes.SHA256()))
    return row.keyid, base64.b64encode(signature).decode("ascii")


def public_keys() -> Sequence[RegistryKey]:
    """All keys that ever signed, the newest first."""
    return [RegistryKey(row.keyid, row.public, row.expires_at) for row in PublishingKey.objects.order_by("-pk")]
