"""From the Authorization header to an Actor.

Basic carries a password or an API token, Bearer an API token or a registry token.

What is wrong is refused and never taken for anonymous. Nothing is remembered here besides that a password fits its
hash; a caller that remembers actors does so until `valid_until` and only while the access epoch stands still.
"""

from __future__ import annotations

import base64
import binascii
import logging

from repoman.core.actor import Actor, TokenLimits
from repoman.core.errors import CredentialsInvalid

from . import passwords, registry_tokens, throttle, tokens
from .models import Identity, Principal

MOST_HEADER_BYTES = 8_192
LOCAL = "local"

log = logging.getLogger(__name__)


def authenticate(authorization: str | None, *, address: str, request_id: str) -> Actor:
    """The actor of a request. None (no header) is the anonymous one.

    Raises CredentialsInvalid (wrong, malformed, expired, revoked, disabled: all alike), TooManyRequests, Unavailable.
    """
    if authorization is None:
        return Actor(address=address, request_id=request_id)
    if len(authorization) > MOST_HEADER_BYTES:
        raise CredentialsInvalid("the Authorization header is too long")
    scheme, _, value = authorization.strip().partition(" ")
    value = value.strip()
    match scheme.lower():
        case "basic":
            username, password = _basic(value)
            return sign_in(username, password, address=address, request_id=request_id)
        case "bearer":
            if value.startswith(passwords.TOKEN_PREFIXES):
                return _by_api_token(value, address=address, request_id=request_id)
            return registry_tokens.verify(value, address=address, request_id=request_id)
    raise CredentialsInvalid("use Basic or Bearer credentials")


def sign_in(username: str, password: str, *, address: str, request_id: str) -> Actor:
    """A user by name and password; or, where the password is an API token, that token's owner whatever the name."""
    if password.startswith(passwords.TOKEN_PREFIXES):
        return _by_api_token(password, address=address, request_id=request_id)
    throttle.check(username, address)
    identity = None
    if 0 < len(username) <= 128 and "\0" not in username:
        identity = Identity.objects.select_related("principal").filter(issuer=LOCAL, subject=username).first()
    fits = passwords.verify_password(password, identity.password_hash if identity is not None else "")
    if identity is None or not fits or identity.principal.is_disabled:
        if not fits:  # a right password is no guess, though its account is disabled
            throttle.failed(username, address)
        log.info("signin_refused", extra={"fields": {"address": address, "request_id": request_id}})
        raise CredentialsInvalid("the user name or password is wrong")
    return actor_of(identity.principal, address=address, request_id=request_id)


def actor_of(principal: Principal, *, address: str = "", request_id: str = "") -> Actor:
    """The principal with all its rights, as after a sign-in with a password."""
    return Actor(
        principal_id=principal.pk,
        name=principal.username,
        is_admin=principal.is_admin,
        address=address,
        request_id=request_id,
    )


def by_refresh_token(secret: str, *, address: str, request_id: str) -> Actor:
    """For the token endpoint only. Raises CredentialsInvalid."""
    return _by_token(secret, tokens.REFRESH_PREFIX, address=address, request_id=request_id)


def _by_api_token(secret: str, *, address: str, request_id: str) -> Actor:
    return _by_token(secret, tokens.API_PREFIX, address=address, request_id=request_id)


def _by_token(secret: str, prefix: str, *, address: str, request_id: str) -> Actor:
    row = tokens.find(secret, prefix=prefix)
    if row is None or row.principal.is_disabled:
        raise CredentialsInvalid("the token is wrong, expired or revoked")
    tokens.note_use(row.pk)
    tokens.flush_uses()
    limits = TokenLimits(row.pk, tokens.actions_of(row), registry_tokens.repositories_of(row))
    extra = {"valid_until": str(row.expires_at.timestamp())} if row.expires_at is not None else {}
    return Actor(
        principal_id=row.principal_id,
        name=row.principal.username,
        is_admin=row.principal.is_admin,
        token=limits,
        address=address,
        request_id=request_id,
        extra=extra,
    )


def _basic(value: str) -> tuple[str, str]:
    """User name and password, split at the first colon: UTF-8, as the challenge asks for (RFC 7617), or what is none as
    ISO-8859-1, which Maven's HTTP client writes whatever it is asked for."""
    try:
        packed = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise CredentialsInvalid("the Basic credentials cannot be decoded") from None
    try:
        decoded = packed.decode("utf-8")
    except UnicodeDecodeError:
        decoded = packed.decode("latin-1")
    username, colon, password = decoded.partition(":")
    if not colon:
        raise CredentialsInvalid("the Basic credentials cannot be decoded")
    return username, password


def valid_until(actor: Actor) -> float | None:
    """Seconds since the epoch after which the credentials are no longer good; None: until they are changed."""
    value = actor.extra.get("valid_until")
    return float(value) if value else None
