"""The caller's own sign-in and tokens, for clients that manage them through their registry (`npm login`, `npm token`).

Tokens made here are ordinary API tokens: listed, revocable, audited. They never manage, whoever asks.
"""

from __future__ import annotations

import secrets as random_source
from collections.abc import Sequence

from repoman.access import authenticate, tokens
from repoman.access.models import Identity, Principal, Token
from repoman.access.passwords import verify_password
from repoman.catalog.models import Repository
from repoman.core.actor import Action, Actor
from repoman.core.errors import AuthenticationRequired, BadRequest, Forbidden
from repoman.core.records import TokenItem

from . import accounts

CONTENT_ACTIONS = (Action.READ, Action.PUBLISH, Action.DELETE)


def _item(row: Token) -> TokenItem:
    return TokenItem(row.pk, row.name, row.hint, tuple(row.actions), row.created_at, row.expires_at)


class OwnAccount:
    """Implements `core.format.Account` for one actor, in one repository."""

    def __init__(self, actor: Actor, repository: Repository) -> None:
        self._actor = actor
        self._repository = repository

    def sign_in(self, username: str, password: str, *, token_name: str) -> str:
        actor = authenticate.sign_in(username, password, address=self._actor.address, request_id=self._actor.request_id)
        if actor.token is not None:
            return password  # it is a token already; another one would only be another secret
        name = f"{token_name} {random_source.token_hex(4)}"[:128]
        return accounts.create_token(actor, name=name, actions=CONTENT_ACTIONS)[1]

    def password_matches(self, password: str) -> bool:
        principal = self._principal()
        identity = Identity.objects.filter(principal=principal, issuer=authenticate.LOCAL).first()
        return identity is not None and verify_password(password, identity.password_hash)

    def exists(self, username: str) -> bool:
        self._principal()
        return Principal.objects.filter(username=username, is_disabled=False).exists()

    def email(self) -> str:
        return self._principal().email

    def tokens(self) -> Sequence[TokenItem]:
        """Live API tokens, the newest first; not the refresh tokens of registry clients."""
        rows = Token.objects.filter(principal=self._principal(), revoked_at=None, hint__startswith=tokens.API_PREFIX)
        return [_item(row) for row in rows.order_by("-pk") if tokens.is_live(row)]

    def make_token(
        self, name: str, *, actions: Sequence[str], expires_in: int | None = None, is_for_this_repository: bool = False
    ) -> tuple[TokenItem, str]:
        self._principal()
        if self._actor.token is not None:
            raise Forbidden("a token makes no tokens here; sign in with a password, or use the REST API")
        wanted = [Action(action) for action in actions if action in CONTENT_ACTIONS]
        if len(wanted) != len(actions):
            raise BadRequest(f"a token's actions here are {', '.join(CONTENT_ACTIONS)}")
        repositories = [self._repository.key] if is_for_this_repository else None
        row, secret = accounts.create_token(
            self._actor, name=name, actions=wanted, repositories=repositories, expires_in=expires_in
        )
        return _item(row), secret

    def revoke_token(self, key: str) -> None:
        principal = self._principal()
        rows = Token.objects.filter(principal=principal)
        if key.startswith(tokens.API_PREFIX) and len(key) > 16:
            row = rows.filter(secret_hash=tokens.hash_secret(key)).first()
        elif key.isdigit() and len(key) < 19:
            row = rows.filter(pk=int(key)).first()
        else:
            found = list(rows.filter(hint=key, revoked_at=None)[:2])
            row = found[0] if len(found) == 1 else None
        if row is None:
            raise accounts.TokenNotFound("you have no such token")
        # A token may end itself, and a password all of its owner's tokens; a token may not end others.
        if self._actor.token is not None and self._actor.token.token_id != row.pk:
            raise Forbidden("a token can only revoke itself here; sign in with a password, or use the REST API")
        accounts.revoke_own_token(self._actor, row)

    def _principal(self) -> Principal:
        if self._actor.principal_id is None:
            raise AuthenticationRequired()
        return Principal.objects.get(pk=self._actor.principal_id)
