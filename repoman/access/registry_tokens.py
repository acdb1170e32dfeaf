"""Registry tokens: the short-lived Bearer tokens that OCI clients fetch at /token. ES256, our own keys, nothing else.

A key signs for a day and verifies until the last token it may have signed has expired, so rotation is unseen by
clients. Only the principal and the names a token was issued for are in it: what the principal may do, whether it is
disabled, and whether the API token or password it signed in with still stands, is asked of the database at each use.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.conf import settings
from django.db import transaction

from repoman.core import clock
from repoman.core.actor import Action, Actor, TokenLimits
from repoman.core.errors import BadRequest, CredentialsInvalid

from . import secrets, tokens
from .models import Identity, Principal, SigningKey, Token

ISSUER = "repoman"
SERVICE = "repoman"  # the audience, and the `service` that challenges name
ALGORITHM = "ES256"
SIGNS_FOR = datetime.timedelta(hours=24)
LONGEST_TOKEN = datetime.timedelta(seconds=86_400)
LEEWAY_SECONDS = 10
MOST_BYTES = 7_500  # what header limits of proxies leave
_KID = re.compile(r"[0-9a-f]{32}\Z")
_HEADERS = frozenset({"alg", "typ", "kid"})


@dataclass(frozen=True, slots=True)
class Issued:
    token: str
    expires_in_seconds: int
    issued_at: datetime.datetime


# --- keys ------------------------------------------------------------------------------------------------------------


def new_key() -> SigningKey:
    """Make a key that signs from now on, in the caller's transaction, and drop those that verify nothing any more."""
    now = clock.now()
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode("ascii")
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    sealed = secrets.encrypt(pem)
    SigningKey.objects.filter(verifies_until__lt=now).delete()
    return SigningKey.objects.create(
        kid=clock.new_id(),
        private=sealed.ciphertext,
        secret_key_id=sealed.key_id,
        public=public.decode("ascii"),
        created_at=now,
        signs_until=now + SIGNS_FOR,
        verifies_until=now + SIGNS_FOR + LONGEST_TOKEN + datetime.timedelta(seconds=LEEWAY_SECONDS),
    )


def replace_key(*, forget_old: bool = False) -> SigningKey:
    """A new key signs from now on, in the caller's transaction. Tokens in use stay good, unless `forget_old` (a key
    was stolen): then none does."""
    now = clock.now()
    if forget_old:
        SigningKey.objects.all().delete()
    else:
        SigningKey.objects.filter(signs_until__gt=now).update(signs_until=now)
    return new_key()


def _signing_key() -> SigningKey:
    """The newest key that may sign and that this server can decrypt; made if there is none."""
    row = _usable()
    if row is not None:
        return row
    with transaction.atomic(durable=True):
        return _usable() or new_key()


def _usable() -> SigningKey | None:
    rows = SigningKey.objects.filter(signs_until__gt=clock.now(), secret_key_id=secrets.current_key_id())
    return rows.order_by("-created_at", "-pk").first()


@lru_cache(maxsize=16)
def _private(key_id: str, ciphertext: str) -> Any:
    pem = secrets.decrypt(secrets.Sealed(key_id, ciphertext))
    return serialization.load_pem_private_key(pem.encode("ascii"), password=None)


@lru_cache(maxsize=16)
def _public(pem: str) -> Any:
    return serialization.load_pem_public_key(pem.encode("ascii"))


# --- issuing ---------------------------------------------------------------------------------------------------------


def _credential_mark(password_hash: str) -> str:
    """What ties a token to the password it was issued for, without telling anything about it."""
    return hashlib.sha256(b"registry token " + password_hash.encode()).hexdigest()[:16]


def issue(actor: Actor, scopes: Mapping[str, frozenset[Action]]) -> Issued:
    """A token for the actor (anonymous too) and these names. The caller has intersected them with its rights.

    Raises BadRequest if it would not fit into a header.
    """
    lifetime = int(settings.CONFIGURATION["REPOMAN_REGISTRY_TOKEN_TTL"])
    now = clock.now().replace(microsecond=0)
    until = actor.extra.get("valid_until")
    if until:
        lifetime = max(1, min(lifetime, int(float(until) - now.timestamp())))
    claims: dict[str, object] = {
        "iss": ISSUER,
        "aud": SERVICE,
        "sub": actor.name,
        "iat": int(now.timestamp()),
        "exp": int(now.timestamp()) + lifetime,
        "jti": clock.new_id(),
        "scopes": {name: sorted(str(action) for action in actions) for name, actions in scopes.items()},
    }
    if actor.principal_id is not None:
        claims["principal"] = actor.principal_id
        if actor.token is not None:
            claims["token"] = actor.token.token_id
        else:
            stored = Identity.objects.filter(principal_id=actor.principal_id, issuer="local").first()
            claims["password"] = _credential_mark(stored.password_hash if stored else "")
    key = _signing_key()
    encoded = jwt.encode(
        claims, _private(key.secret_key_id, key.private), algorithm=ALGORITHM, headers={"kid": key.kid}
    )
    if len(encoded) > MOST_BYTES:
        raise BadRequest("too many names are asked for in one token")
    return Issued(encoded, lifetime, now)


# --- verifying -------------------------------------------------------------------------------------------------------


def verify(encoded: str, *, address: str, request_id: str) -> Actor:
    """The actor of a registry token, with `scopes` and, in `extra`, `valid_until`. Raises CredentialsInvalid."""
    claims = _claims(encoded)
    scopes = _scopes(claims.get("scopes"))
    valid_until = float(claims["exp"])
    extra = {"valid_until": str(valid_until), "registry_token": str(claims["jti"])[:64]}
    if "principal" not in claims:
        return Actor(scopes=scopes, address=address, request_id=request_id, extra=extra)
    principal = Principal.objects.filter(pk=_integer(claims["principal"])).first()
    if principal is None or principal.is_disabled:
        raise CredentialsInvalid("the token's account is disabled or gone")
    limits: TokenLimits | None = None
    if "token" in claims:
        row = Token.objects.filter(pk=_integer(claims["token"]), principal_id=principal.pk).first()
        if row is None or not tokens.is_live(row):
            raise CredentialsInvalid("the API token behind this token was revoked or has expired")
        limits = TokenLimits(row.pk, tokens.actions_of(row), repositories_of(row))
        if row.expires_at is not None:
            extra["valid_until"] = str(min(valid_until, row.expires_at.timestamp()))
    else:
        stored = Identity.objects.filter(principal_id=principal.pk, issuer="local").first()
        if claims.get("password") != _credential_mark(stored.password_hash if stored else ""):
            raise CredentialsInvalid("the password was changed after this token was issued")
    return Actor(
        principal_id=principal.pk,
        name=principal.username,
        is_admin=principal.is_admin,
        token=limits,
        scopes=scopes,
        address=address,
        request_id=request_id,
        extra=extra,
    )


def repositories_of(row: Token) -> frozenset[int] | None:
    return frozenset(row.repositories) if row.repositories is not None else None


def _claims(encoded: str) -> dict[str, Any]:
    invalid = CredentialsInvalid("the token is not valid; ask for a new one")
    if len(encoded) > MOST_BYTES:
        raise invalid
    try:
        header = jwt.get_unverified_header(encoded)
        # The key is looked up in our table and nowhere else: whatever else a header brings is an attempt.
        kid = header.get("kid")
        if header.get("alg") != ALGORITHM or set(header) - _HEADERS or not isinstance(kid, str) or not _KID.match(kid):
            raise invalid
        row = SigningKey.objects.filter(kid=kid, verifies_until__gt=clock.now()).first()
        if row is None:
            raise invalid
        return jwt.decode(
            encoded,
            _public(row.public),
            algorithms=[ALGORITHM],
            audience=SERVICE,
            issuer=ISSUER,
            leeway=LEEWAY_SECONDS,
            options={
                "require": ["exp", "iat", "aud", "iss", "sub", "jti"],
                "strict_aud": True,
                "verify_nbf": True,
                "verify_iat": True,
            },
        )
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise invalid from None


def _scopes(given: object) -> Mapping[str, frozenset[Action]]:
    if not isinstance(given, dict):
        raise CredentialsInvalid("the token is not valid; ask for a new one")
    return {str(name): frozenset(Action(action) for action in actions) for name, actions in given.items()}


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise CredentialsInvalid("the token is not valid; ask for a new one")
    return value
