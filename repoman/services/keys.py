"""Rotating what signs and what encrypts."""

from __future__ import annotations

from repoman.access import epoch, registry_tokens, secrets
from repoman.access.models import PublishingKey, SigningKey
from repoman.catalog.models import Repository
from repoman.core.actor import Actor
from repoman.events.record import record

from .transactions import write


def rotate(actor: Actor, *, forget_old: bool = False) -> dict[str, object]:
    """A new signing key; every stored secret under the current secret key. Returns the key's id and how many secrets.

    `forget_old`: registry tokens signed before end at once. Raises SecretUnreadable where neither the secret key nor
    its fallbacks open a stored secret; nothing is changed then.
    """

    def block() -> dict[str, object]:
        key = registry_tokens.replace_key(forget_old=forget_old)
        count = _encrypt_anew()
        record("key:rotate", actor=actor, subject=key.kid, forget_old=forget_old, secrets=count)
        if forget_old:
            epoch.bump()
        return {"kid": key.kid, "secrets": count}

    return write(block)


def _encrypt_anew() -> int:
    current, count = secrets.current_key_id(), 0
    for key in SigningKey.objects.exclude(secret_key_id=current):
        sealed = secrets.encrypt(secrets.decrypt(secrets.Sealed(key.secret_key_id, key.private)))
        SigningKey.objects.filter(pk=key.pk).update(private=sealed.ciphertext, secret_key_id=sealed.key_id)
        count += 1
    for own in PublishingKey.objects.exclude(secret_key_id=current):
        sealed = secrets.encrypt(secrets.decrypt(secrets.Sealed(own.secret_key_id, own.private)))
        PublishingKey.objects.filter(pk=own.pk).update(private=sealed.ciphertext, secret_key_id=sealed.key_id)
        count += 1
    for repository in Repository.objects.select_for_update().exclude(remote=None):
        remote = dict(repository.remote or {})
        sealed = secrets.Sealed.parse(str(remote.get("password", "")))
        if sealed.ciphertext and sealed.key_id != current:
            remote["password"] = str(secrets.encrypt(secrets.decrypt(sealed)))
            Repository.objects.filter(pk=repository.pk).update(remote=remote)
            count += 1
    return count
