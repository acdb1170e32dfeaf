"""Who may do what. One function decides (`allowed_actions`), one refuses (`check`), one explains (`explain`).

Rights come from roles granted directly or through groups, on the namespace or on the repository, and from a
repository's anonymous reading. An API token narrows its owner's rights and never widens them; a registry token
narrows them further to the names it was issued for. Whatever cannot be looked up is refused: errors pass through.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from django.apps import apps
from django.db.models import Q, QuerySet

from repoman.core.actor import ALL_ACTIONS, ROLE_ACTIONS, Action, Actor, Role
from repoman.core.errors import (
    AuthenticationRequired,
    Forbidden,
    NotFound,
    RepositoryNotFound,
    ScopeInsufficient,
)
from repoman.db.prepared import Prepared

from .models import Grant, Membership

if TYPE_CHECKING:
    from repoman.catalog.models import Namespace, Repository

CATALOG_SCOPE = "registry:catalog"
DELETING = "deleting"


class NamespaceNotFound(NotFound):
    """No such namespace."""

    code = "namespace_not_found"


def grants_of(principal_id: int) -> QuerySet[Grant]:
    """Grants that count for the principal: its own and those of its groups that are not disabled."""
    groups = Membership.objects.filter(member_id=principal_id, group__is_disabled=False).values("group_id")
    return Grant.objects.filter(Q(principal_id=principal_id) | Q(principal_id__in=groups))


def _of_roles(roles: Collection[str]) -> frozenset[Action]:
    found: frozenset[Action] = frozenset()
    for role in roles:
        found |= ROLE_ACTIONS[Role(role)]
    return found


def _with_probe(actions: frozenset[Action]) -> frozenset[Action]:
    return actions | {Action.PROBE} if actions & {Action.READ, Action.PUBLISH} else actions


_roles_on = Prepared(
    lambda principal_id, namespace_id, repository_id: (
        grants_of(principal_id)
        .filter(Q(namespace_id=namespace_id) | Q(repository_id=repository_id))
        .values_list("role")
    )
)


def own_actions(actor: Actor, repository: Repository) -> frozenset[Action]:
    """What the principal itself may do, whatever credentials it came with."""
    if repository.state == DELETING:
        return frozenset()
    if actor.is_system or (actor.is_admin and actor.principal_id is not None):
        return _with_probe(ALL_ACTIONS)
    found: frozenset[Action] = frozenset({Action.READ}) if repository.anonymous_read else frozenset()
    if actor.principal_id is not None:
        roles = _roles_on.all(actor.principal_id, repository.namespace_id, repository.pk)
        found |= _of_roles([role for (role,) in roles])
    return _with_probe(found)


def _token_covers(actor: Actor, repository: Repository) -> bool:
    limits = actor.token
    return limits is None or limits.repositories is None or repository.pk in limits.repositories


def _narrowed(actor: Actor, repository: Repository, actions: frozenset[Action]) -> frozenset[Action]:
    if actor.token is None:
        return actions
    if not _token_covers(actor, repository):
        return frozenset()
    return _with_probe(actions & actor.token.actions)


def allowed_actions(actor: Actor, repository: Repository) -> frozenset[Action]:
    """What the actor may do here: roles, anonymous reading and the API token's limits; not a registry token's scopes.

    PROBE is among them wherever READ or PUBLISH is. Empty for a repository that is being deleted.
    """
    return _narrowed(actor, repository, own_actions(actor, repository))


def has_scope(actor: Actor, scope_name: str, action: Action) -> bool:
    """Whether the credentials were issued for this action on this name. True for all but registry tokens.

    A registry token counts only where a name is asked for: it opens neither the management API nor other formats.
    """
    if actor.scopes is None:
        return True
    issued = actor.scopes.get(scope_name, frozenset()) if scope_name else frozenset()
    return action in _with_probe(frozenset(issued))


def check(
    actor: Actor, repository: Repository | None, action: Action, *, scope_name: str = "", mount: str = ""
) -> None:
    """Return if the actor may, else raise. `repository` None is one that does not exist.

    - AuthenticationRequired: anonymous and not publicly readable, existing or not (anonymous with a registry token
      that was not issued for it: ScopeInsufficient).
    - RepositoryNotFound: signed in, but may neither read this nor do anything else with it.
    - Forbidden: may do other things here, or the API token lacks an action that its owner has.
    - ScopeInsufficient: has the right, but the registry token was not issued for `scope_name`.

    `mount` is only for messages: the address the client used.
    """
    if action is Action.PUBLIC:
        return
    name = repository.key if repository is not None else mount.strip("/")
    actions = allowed_actions(actor, repository) if repository is not None else frozenset()
    if action in actions:
        if not has_scope(actor, scope_name, action):
            raise ScopeInsufficient(f"the token was not issued to {action} '{scope_name or name}'")
        return
    if actor.is_anonymous:
        if actor.scopes is not None and not has_scope(actor, scope_name, action):
            raise ScopeInsufficient("the token was not issued for this; sign in for a new one")
        raise AuthenticationRequired("sign in to use this repository")
    missing = RepositoryNotFound(f"there is no repository '{name}', or you may not see it")
    if repository is None:
        raise missing
    own = own_actions(actor, repository)
    if not own:
        raise missing
    if not _token_covers(actor, repository) and not repository.anonymous_read:
        raise missing
    if action in own:
        raise Forbidden(f"this token does not allow to {action} in '{name}'", action=str(action))
    raise Forbidden(f"you may not {action} in '{name}'", action=str(action))


def check_site(actor: Actor, scope_name: str) -> None:
    """For site-wide OCI routes (the catalog): raises ScopeInsufficient for a registry token issued for other names.

    A token without any scope stands for its user, since clients ask for none before they list (c/image).
    """
    if actor.scopes and scope_name not in actor.scopes:
        raise ScopeInsufficient(f"the token was not issued for '{scope_name}'")


# --- namespaces and the management interface -------------------------------------------------------------------------


def namespace_roles(actor: Actor, namespace: Namespace) -> frozenset[Role]:
    """Roles granted on the namespace itself, directly or through groups. Administrators own every namespace."""
    if actor.is_system or (actor.is_admin and actor.principal_id is not None):
        return frozenset({Role.OWNER})
    if actor.principal_id is None:
        return frozenset()
    roles = grants_of(actor.principal_id).filter(namespace_id=namespace.pk)
    return frozenset(Role(role) for role in roles.values_list("role", flat=True))


def check_management(actor: Actor, *, site_wide: bool = True) -> None:
    """For every management call: signed in, not with a registry token, and an API token only with `manage`.

    `site_wide`: what the call concerns is more than one repository, so that a token limited to some is refused.
    """
    if actor.is_system:
        return
    if actor.is_anonymous:
        raise AuthenticationRequired()
    if actor.scopes is not None:
        raise ScopeInsufficient("a registry token does not open the management API; use a password or an API token")
    if actor.token is not None:
        if Action.MANAGE not in actor.token.actions:
            raise Forbidden("this token does not allow to manage; make one with the action 'manage'", action="manage")
        if site_wide and actor.token.repositories is not None:
            raise Forbidden("this token is limited to some repositories", action="manage")


def check_namespace(actor: Actor, namespace: Namespace | None, action: Action, *, name: str = "") -> None:
    """READ for any role on the namespace, MANAGE for owners; a namespace without any role for the actor is not there.

    Raises AuthenticationRequired, NamespaceNotFound, Forbidden.
    """
    check_management(actor)
    roles = namespace_roles(actor, namespace) if namespace is not None else frozenset()
    if namespace is None or not roles:
        shown = namespace.name if namespace is not None else name
        raise NamespaceNotFound(f"there is no namespace '{shown}', or you have no role in it")
    if action not in _of_roles(roles):
        raise Forbidden(f"only its owners may {action} namespace '{namespace.name}'", action=str(action))


def check_admin(actor: Actor) -> None:
    """Raises AuthenticationRequired or Forbidden for anyone but an administrator (or the server itself)."""
    check_management(actor)
    if not actor.is_admin:
        raise Forbidden("only an administrator may do this", action="administer")


def visible_namespaces(actor: Actor) -> QuerySet[Namespace]:
    """Namespaces in which the actor has a role."""
    rows = apps.get_model("catalog", "Namespace").objects.all()
    if actor.is_system or (actor.is_admin and actor.principal_id is not None):
        return rows
    if actor.principal_id is None:
        return rows.none()
    return rows.filter(pk__in=grants_of(actor.principal_id).filter(namespace__isnull=False).values("namespace_id"))


def owned_namespaces(actor: Actor) -> QuerySet[Namespace]:
    """Namespaces that the actor owns by a grant, its own or a group's."""
    owned = grants_of(actor.principal_id or 0).filter(namespace__isnull=False, role=Role.OWNER)
    return apps.get_model("catalog", "Namespace").objects.filter(pk__in=owned.values("namespace_id"))


# --- sets of repositories --------------------------------------------------------------------------------------------


def visible(actor: Actor) -> QuerySet[Repository]:
    """Repositories that the actor may know of, whatever actions its API token has: for lists of the management API."""
    rows = apps.get_model("catalog", "Repository").objects.exclude(state=DELETING)
    if not (actor.is_system or (actor.is_admin and actor.principal_id is not None)):
        condition = Q(anonymous_read=True)
        if actor.principal_id is not None:
            grants = grants_of(actor.principal_id)
            condition |= Q(namespace_id__in=grants.filter(namespace__isnull=False).values("namespace_id"))
            condition |= Q(pk__in=grants.filter(repository__isnull=False).values("repository_id"))
        rows = rows.filter(condition)
    if actor.token is not None and actor.token.repositories is not None:
        rows = rows.filter(pk__in=list(actor.token.repositories))
    return rows


def readable(actor: Actor) -> QuerySet[Repository]:
    """Repositories in which `allowed_actions` holds READ. A registry token's scopes are not looked at (`has_scope`)."""
    rows = visible(actor)  # every role may read
    if actor.token is not None and Action.READ not in actor.token.actions:
        return rows.none()
    return rows


def readable_repository_ids(actor: Actor, format_name: str | None = None) -> QuerySet[Repository]:
    """The same as a subquery of ids, for filters."""
    rows = readable(actor)
    if format_name is not None:
        rows = rows.filter(format=format_name)
    return rows.values("pk")  # type: ignore[return-value]


# --- why -------------------------------------------------------------------------------------------------------------


def explain(actor: Actor, repository: Repository, action: Action) -> dict[str, object]:
    """Plain JSON that says whether the actor may do the action here, and every rule that bears on it."""
    allowed = action in allowed_actions(actor, repository)
    reasons: list[str] = []
    grants: list[dict[str, str]] = []
    if repository.state == DELETING:
        reasons.append("the repository is being deleted: nothing is allowed")
    if actor.is_admin:
        reasons.append("an administrator may do everything")
    if repository.anonymous_read:
        reasons.append("everybody may read this repository")
    if actor.principal_id is not None:
        rows = (
            grants_of(actor.principal_id)
            .filter(Q(namespace_id=repository.namespace_id) | Q(repository_id=repository.pk))
            .select_related("principal")
            .order_by("pk")
        )
        for row in rows:
            through = row.principal.username if row.principal_id != actor.principal_id else ""
            target = repository.key if row.repository_id else repository.key.partition("/")[0]
            grants.append({"role": row.role, "on": target, "through": through})
            verb = "gives" if action in _with_probe(ROLE_ACTIONS[Role(row.role)]) else "does not give"
            group = f" (through the group '{through}')" if through else ""
            reasons.append(f"the role {row.role} on '{target}'{group} {verb} {action}")
        if not rows and not actor.is_admin:
            reasons.append("no role here, neither direct nor through a group")
    elif not actor.is_system:
        reasons.append("not signed in: only public repositories can be read")
    if actor.token is not None:
        if not _token_covers(actor, repository):
            reasons.append("the token is limited to other repositories")
        if action not in _with_probe(actor.token.actions):
            reasons.append(f"the token does not have the action {action}")
    if repository.state == "read_only" and action in (Action.PUBLISH, Action.DELETE):
        reasons.append("the repository is read-only at the moment: writes are answered 503")
    return {
        "actor": actor.name,
        "action": str(action),
        "repository": repository.key,
        "allowed": allowed,
        "grants": grants,
        "reasons": reasons,
    }
