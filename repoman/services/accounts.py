"""Users, tokens, namespaces and grants. Every change writes its event and raises the access epoch in its transaction.

Each function checks the actor's right itself, so that no interface can forget to. `epoch.bump()` comes first in every
block that judges by what others may change too (the last administrator, a name in use): its row lock queues them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from django.conf import settings
from django.db.models import Q, QuerySet

from repoman.access import epoch, passwords, permissions, throttle, tokens
from repoman.access.models import Grant, Identity, Principal, Token
from repoman.blobs.models import Upload
from repoman.catalog.models import Namespace, Repository
from repoman.core import clock
from repoman.core.actor import Action, Actor, Role
from repoman.core.errors import BadRequest, Conflict, Forbidden, NameInvalid, NotFound
from repoman.core.names import RESERVED, check_key_part
from repoman.events.record import record

from .transactions import write

LOCAL = "local"
LIVE_TOKENS_MOST = 500
REFRESH_TOKENS_MOST = 20
MOST_BYTES = 2**62
_USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}\Z")
_EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f]{1,64}@[^@\s\x00-\x1f\x7f]{1,188}\Z")
_RESERVED_USERNAMES = (RESERVED | {"anonymous", "system"}) - {"admin", "user"}


class UserNotFound(NotFound):
    """No such user."""

    code = "user_not_found"


class TokenNotFound(NotFound):
    """No such token."""

    code = "token_not_found"


# --- users -----------------------------------------------------------------------------------------------------------


def check_username(username: str) -> str:
    """1 to 128 of letters, digits and `._@+-`, starting with a letter or digit; not a word of our addresses."""
    if _USERNAME.match(username) is None:
        raise NameInvalid(
            f"'{username[:80]}' cannot be a user name: use up to 128 letters, digits and . _ @ + -, "
            "starting with a letter or digit"
        )
    if username.lower() in _RESERVED_USERNAMES:
        raise NameInvalid(f"'{username}' is reserved and cannot be a user name")
    return username


def _check_email(email: str) -> str:
    if email and _EMAIL.match(email) is None:
        raise BadRequest("'email' is not an e-mail address")
    return email


def create_user(actor: Actor, *, username: str, password: str, email: str = "", is_admin: bool = False) -> Principal:
    """A user who signs in with a password. Administrators only. Raises Conflict if the name is taken (in any case)."""
    permissions.check_admin(actor)
    check_username(username)
    _check_email(email)
    password_hash = passwords.hash_password(password)

    def block() -> Principal:
        epoch.bump()
        if Principal.objects.filter(username__iexact=username).exists():
            raise Conflict(f"the user name '{username}' is taken")
        principal = Principal.objects.create(username=username, email=email, is_admin=is_admin, created_at=clock.now())
        Identity.objects.create(
            principal=principal,
            issuer=LOCAL,
            subject=username,
            password_hash=password_hash,
            created_at=principal.created_at,
        )
        record("user:create", actor=actor, subject=username, is_admin=is_admin)
        return principal

    return write(block)


def users(actor: Actor) -> QuerySet[Principal]:
    """All users for administrators; for others themselves."""
    permissions.check_management(actor)
    rows = Principal.objects.filter(kind=Principal.Kind.USER)
    return rows if actor.is_admin else rows.filter(pk=actor.principal_id or 0)


def user(actor: Actor, username: str) -> Principal:
    """Raises UserNotFound for what is not there and, unless the actor is an administrator, for everybody else."""
    found = users(actor).filter(username=username).first()
    if found is None:
        raise UserNotFound(f"there is no user '{username[:128]}'")
    return found


def update_user(actor: Actor, username: str, changes: Mapping[str, Any]) -> Principal:
    """`changes`: password, email, is_admin, disabled. Users may change their own password and e-mail address.

    A new password ends everything that was signed in with the old one. Raises Conflict for the last administrator.
    """
    principal = user(actor, username)
    privileged = {"is_admin", "disabled"} & changes.keys()
    if privileged and not actor.is_admin:
        raise Forbidden(f"only an administrator may change {' and '.join(sorted(privileged))}")
    if "email" in changes:
        _check_email(changes["email"])
    password_hash = passwords.hash_password(changes["password"]) if "password" in changes else ""

    def block() -> Principal:
        epoch.bump()
        row = Principal.objects.filter(pk=principal.pk).first()
        if row is None:
            raise UserNotFound(f"there is no user '{username}'")
        row.is_admin = changes.get("is_admin", row.is_admin)
        row.is_disabled = changes.get("disabled", row.is_disabled)
        row.email = changes.get("email", row.email)
        row.save(update_fields=["is_admin", "is_disabled", "email"])
        _keep_an_administrator()
        if password_hash:
            Identity.objects.update_or_create(
                principal=row,
                issuer=LOCAL,
                defaults={"subject": row.username, "password_hash": password_hash},
                create_defaults={
                    "subject": row.username,
                    "password_hash": password_hash,
                    "created_at": clock.now(),
                },
            )
            refresh = Token.objects.filter(principal=row, hint__startswith=tokens.REFRESH_PREFIX, revoked_at=None)
            refresh.update(revoked_at=clock.now())
            throttle.clear(row.username)
        shown = {key: value for key, value in changes.items() if key != "password"}
        record("user:update", actor=actor, subject=username, changed=sorted(changes), **shown)
        return row

    return write(block)


def delete_user(actor: Actor, username: str) -> None:
    """Remove the user with its tokens and grants. What it published stays; unfinished uploads end with their time."""
    permissions.check_admin(actor)
    principal = user(actor, username)

    def block() -> None:
        epoch.bump()
        # Not deleted with the user: their reserved bytes are given back when they expire.
        Upload.objects.filter(principal_id=principal.pk).update(principal=None)
        Principal.objects.filter(pk=principal.pk).delete()
        _keep_an_administrator()
        record("user:delete", actor=actor, subject=username)

    write(block)


def _keep_an_administrator() -> None:
    if not Principal.objects.filter(is_admin=True, is_disabled=False, kind=Principal.Kind.USER).exists():
        raise Conflict("this is the last administrator; make another one first")


# --- tokens ----------------------------------------------------------------------------------------------------------


def create_token(
    actor: Actor,
    *,
    name: str,
    actions: Collection[Action] = (Action.READ,),
    repositories: Collection[str] | None = None,
    expires_in: int | None = None,
) -> tuple[Token, str]:
    """A token of the actor's own, and its secret. A token makes only tokens that can do no more than itself.

    Raises Conflict for a live token of that name, BadRequest for unknown repositories.
    """
    permissions.check_management(actor, site_wide=False)
    if actor.principal_id is None:
        raise Forbidden("only users have tokens")
    if expires_in is not None and not 0 < expires_in <= tokens.LONGEST_LIFE_SECONDS:
        raise BadRequest(f"'expires_in' must be 1 to {tokens.LONGEST_LIFE_SECONDS} seconds")
    if not actions:
        raise BadRequest("'actions' must name at least one action")
    lifetime = expires_in or tokens.DEFAULT_LIFE_SECONDS
    ids: list[int] | None = None
    if repositories is not None:
        known = dict(permissions.visible(actor).filter(key__in=list(repositories)).values_list("key", "pk"))
        missing = sorted(set(repositories) - known.keys())
        if missing or not repositories:
            raise BadRequest(f"'repositories' names what is not there: {', '.join(missing)[:200] or 'nothing'}")
        ids = sorted(known.values())
    if actor.token is not None:
        more = set(actions) - actor.token.actions
        if more:
            raise Forbidden(f"this token cannot give away what it has not: {', '.join(sorted(more))}")
        if actor.token.repositories is not None and ids is None:
            raise Forbidden("this token is limited to some repositories; name them for the new one")
        until = actor.extra.get("valid_until")
        if until is not None:
            left = int(float(until) - clock.seconds())
            if expires_in is not None and expires_in > left:
                raise Forbidden("this token cannot make one that lives longer than itself")
            lifetime = max(1, min(lifetime, left))

    def block() -> tuple[Token, str]:
        epoch.bump()
        principal = Principal.objects.get(pk=actor.principal_id or 0)
        live = _live_tokens(principal.pk)
        if live.filter(name=name).exists():
            raise Conflict(f"you have a token named '{name}'; revoke it first or choose another name")
        if live.count() >= LIVE_TOKENS_MOST:
            raise Conflict(f"you have {LIVE_TOKENS_MOST} tokens; revoke some first")
        row, secret = tokens.create(
            principal, name=name, actions=actions, repositories=ids, expires_in_seconds=lifetime
        )
        record(
            "token:create",
            actor=actor,
            subject=name,
            token=row.pk,
            actions=row.actions,
            repositories=sorted(repositories) if repositories is not None else None,
        )
        return row, secret

    return write(block)


def _live_tokens(principal_id: int) -> QuerySet[Token]:
    rows = Token.objects.filter(principal_id=principal_id, revoked_at=None)
    return rows.filter(Q(expires_at=None) | Q(expires_at__gt=clock.now()))


def own_tokens(actor: Actor) -> QuerySet[Token]:
    """The actor's live tokens, the refresh tokens of its registry clients among them."""
    permissions.check_management(actor, site_wide=False)
    if actor.principal_id is None:
        return Token.objects.none()
    return _live_tokens(actor.principal_id)


def revoke_token(actor: Actor, token_id: int) -> None:
    """At once, on every process. Own tokens, or anybody's for administrators. Revoking twice succeeds."""
    permissions.check_management(actor, site_wide=False)
    rows = Token.objects.filter(pk=token_id)
    if not actor.is_admin:
        rows = rows.filter(principal_id=actor.principal_id or 0)
    row = rows.select_related("principal").first()
    if row is None:
        raise TokenNotFound(f"there is no token {token_id}")
    revoke_own_token(actor, row)


def revoke_own_token(actor: Actor, row: Token) -> None:
    """Revoke a token that the caller has found to be the actor's to revoke."""

    def block() -> None:
        if Token.objects.filter(pk=row.pk, revoked_at=None).update(revoked_at=clock.now()):
            record("token:revoke", actor=actor, subject=row.name, token=row.pk, owner=row.principal.username)
            epoch.bump()

    write(block)


def remember_client(actor: Actor, client: str) -> str:
    """A refresh token for a registry client that signed in with a password: durable, listed, revocable.

    It stands for the user's content rights and is good at the token endpoint only. The oldest beyond 20 end.
    """

    def block() -> str:
        epoch.bump()
        principal = Principal.objects.get(pk=actor.principal_id or 0)
        live = _live_tokens(principal.pk).filter(hint__startswith=tokens.REFRESH_PREFIX).order_by("-pk")
        stale = list(live.values_list("pk", flat=True)[REFRESH_TOKENS_MOST - 1 :])
        Token.objects.filter(pk__in=stale).update(revoked_at=clock.now())
        row, secret = tokens.create(
            principal,
            name=f"sign-in of {client or 'a registry client'}"[:128],
            actions=(Action.READ, Action.PUBLISH, Action.DELETE),
            repositories=None,
            prefix=tokens.REFRESH_PREFIX,
        )
        record("token:create", actor=actor, subject=row.name, token=row.pk, actions=row.actions)
        return secret

    return write(block)


# --- namespaces ------------------------------------------------------------------------------------------------------


def namespace(actor: Actor, name: str, action: Action = Action.READ) -> Namespace:
    """The namespace, if the actor has a role in it that allows `action`. Raises NamespaceNotFound, Forbidden."""
    found = Namespace.objects.filter(name=name).first()
    permissions.check_namespace(actor, found, action, name=name[:63])
    assert found is not None
    return found


def _check_quota(quota_bytes: int | None) -> None:
    if quota_bytes is not None and not 0 <= quota_bytes <= MOST_BYTES:
        raise BadRequest("'quota_bytes' must be null or at least 0")


def create_namespace(actor: Actor, *, name: str, description: str = "", **quota: int | None) -> Namespace:
    """A tenant, owned by its creator. `quota_bytes` (None: no limit) may be given by administrators only."""
    permissions.check_management(actor)
    if settings.CONFIGURATION["REPOMAN_NAMESPACE_CREATION"] == "admin" and not actor.is_admin:
        raise Forbidden("only an administrator may create namespaces here")
    if "quota_bytes" in quota and not actor.is_admin:
        raise Forbidden("only an administrator may set a quota")
    check_key_part(name, "namespace")
    quota_bytes = quota.get("quota_bytes", settings.CONFIGURATION["REPOMAN_DEFAULT_QUOTA"])
    _check_quota(quota_bytes)

    def block() -> Namespace:
        if Namespace.objects.filter(name=name).exists():
            raise Conflict(f"the namespace name '{name}' is taken")
        now = clock.now()
        row = Namespace.objects.create(
            name=name,
            description=description,
            quota_bytes=quota_bytes,
            created_by_id=actor.principal_id,
            created_at=now,
        )
        if actor.principal_id is not None:
            Grant.objects.create(principal_id=actor.principal_id, namespace=row, role=Role.OWNER, created_at=now)
        record("namespace:create", actor=actor, namespace=name, subject=name, quota_bytes=quota_bytes)
        return row

    return write(block)


def update_namespace(actor: Actor, name: str, changes: Mapping[str, Any]) -> Namespace:
    """`changes`: description (owners), quota_bytes (administrators; below what is used: reads and deletes go on)."""
    row = namespace(actor, name, Action.MANAGE)
    if "quota_bytes" in changes:
        if not actor.is_admin:
            raise Forbidden("only an administrator may set a quota")
        _check_quota(changes["quota_bytes"])

    def block() -> Namespace:
        # Only these columns: the usage beside them changes all the time.
        Namespace.objects.filter(pk=row.pk).update(**changes)
        record("namespace:update", actor=actor, namespace=name, subject=name, changed=sorted(changes), **changes)
        return Namespace.objects.get(pk=row.pk)

    return write(block)


def delete_namespace(actor: Actor, name: str) -> None:
    """Raises Conflict while it has repositories, those on their way out included."""
    row = namespace(actor, name, Action.MANAGE)

    def block() -> None:
        epoch.bump()
        left = Repository.objects.filter(namespace=row)
        if left.exclude(state=Repository.State.DELETING).exists():
            raise Conflict(f"namespace '{name}' still has repositories; delete them first")
        if left.exists():
            raise Conflict(f"repositories of namespace '{name}' are still being deleted; try again in a moment")
        Namespace.objects.filter(pk=row.pk).delete()
        record("namespace:delete", actor=actor, namespace=name, subject=name)

    write(block)


# --- grants ----------------------------------------------------------------------------------------------------------


def grants(actor: Actor, target: Namespace | Repository) -> QuerySet[Grant]:
    """Who has a role on the namespace or repository; for its owners."""
    _check_grants(actor, target)
    return _on(target).select_related("principal")


def _on(target: Namespace | Repository) -> QuerySet[Grant]:
    if isinstance(target, Namespace):
        return Grant.objects.filter(namespace=target)
    return Grant.objects.filter(repository=target)


def _check_grants(actor: Actor, target: Namespace | Repository) -> None:
    if isinstance(target, Namespace):
        permissions.check_namespace(actor, target, Action.MANAGE)
    else:
        permissions.check_management(actor, site_wide=False)
        permissions.check(actor, target, Action.MANAGE)


def _names(target: Namespace | Repository) -> dict[str, Any]:
    return {"namespace": target.name} if isinstance(target, Namespace) else {"repository": target}


def set_grant(actor: Actor, target: Namespace | Repository, username: str, role: Role) -> tuple[Grant, bool]:
    """Give a role; one for each principal and target, so another replaces it. True: there was none before."""
    _check_grants(actor, target)

    def block() -> tuple[Grant, bool]:
        epoch.bump()
        principal = _grantee(username)
        existing = _on(target).filter(principal=principal).first()
        if existing is None:
            on = {"namespace": target} if isinstance(target, Namespace) else {"repository": target}
            grant = Grant.objects.create(principal=principal, role=role, created_at=clock.now(), **on)
        else:
            grant = existing
            grant.role = role
            grant.save(update_fields=["role"])
            _keep_an_owner(actor, target)
        record("grant:set", actor=actor, subject=username, role=str(role), **_names(target))
        return grant, existing is None

    return write(block)


def remove_grant(actor: Actor, target: Namespace | Repository, username: str) -> None:
    """Take the role back; taking back what is not there succeeds."""
    _check_grants(actor, target)

    def block() -> None:
        epoch.bump()
        principal = _grantee(username)
        removed, _ = _on(target).filter(principal=principal).delete()
        _keep_an_owner(actor, target)
        if removed:
            record("grant:remove", actor=actor, subject=username, **_names(target))

    write(block)


def _grantee(username: str) -> Principal:
    principal = Principal.objects.filter(username=username).first()
    if principal is None:
        raise UserNotFound(f"there is no user '{username[:128]}'")
    return principal


def _keep_an_owner(actor: Actor, target: Namespace | Repository) -> None:
    if isinstance(target, Namespace) and not actor.is_admin and not _on(target).filter(role=Role.OWNER).exists():
        raise Conflict(f"this is the last owner of namespace '{target.name}'; make another one first")
