"""Roles × credentials × actions, and which refusal each caller sees."""

from __future__ import annotations

import dataclasses

import pytest

from repoman.access import epoch, permissions
from repoman.access.models import Grant, Membership, Principal
from repoman.catalog.models import Namespace, Repository
from repoman.core import clock
from repoman.core.actor import ALL_ACTIONS, Action, Actor, Role, TokenLimits, system_actor
from repoman.core.errors import AuthenticationRequired, Forbidden, RepositoryNotFound, ScopeInsufficient

pytestmark = pytest.mark.django_db

ACTIONS = (Action.PROBE, Action.READ, Action.PUBLISH, Action.DELETE, Action.MANAGE)


def principal(name: str, **more: object) -> Principal:
    return Principal.objects.create(username=name, created_at=clock.now(), **more)


def actor_for(row: Principal, **more: object) -> Actor:
    return Actor(principal_id=row.pk, name=row.username, is_admin=row.is_admin, **more)  # type: ignore[arg-type]


def grant(
    row: Principal, role: Role, *, namespace: Namespace | None = None, repository: Repository | None = None
) -> None:
    Grant.objects.create(principal=row, role=role, namespace=namespace, repository=repository, created_at=clock.now())


@pytest.fixture
def namespace() -> Namespace:
    return Namespace.objects.create(name="acme", created_at=clock.now())


@pytest.fixture
def private(namespace: Namespace) -> Repository:
    return make(namespace, "private")


@pytest.fixture
def public(namespace: Namespace) -> Repository:
    return make(namespace, "public-one", anonymous_read=True)


def make(namespace: Namespace, name: str, **more: object) -> Repository:
    return Repository.objects.create(
        namespace=namespace, name=name, key=f"{namespace.name}/{name}", format="oci", created_at=clock.now(), **more
    )


def refusal(actor: Actor, repository: Repository | None, action: Action, scope: str = "") -> type[Exception] | None:
    try:
        permissions.check(actor, repository, action, scope_name=scope)
    except Exception as error:
        return type(error)
    return None


EXPECTED = {
    Role.READER: {Action.READ},
    Role.PUBLISHER: {Action.READ, Action.PUBLISH},
    Role.MAINTAINER: {Action.READ, Action.PUBLISH, Action.DELETE},
    Role.OWNER: {Action.READ, Action.PUBLISH, Action.DELETE, Action.MANAGE},
}


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("way", ["namespace", "repository", "group on namespace", "group on repository"])
def test_f2_each_role_may_do_its_own_actions_and_no_other(private: Repository, role: Role, way: str) -> None:
    user = principal("ada")
    holder = user
    if way.startswith("group"):
        holder = principal("team", kind=Principal.Kind.GROUP)
        Membership.objects.create(group=holder, member=user)
    if way.endswith("namespace"):
        grant(holder, role, namespace=private.namespace)
    else:
        grant(holder, role, repository=private)
    actor = actor_for(user)
    assert permissions.allowed_actions(actor, private) == EXPECTED[role] | {Action.PROBE}
    for action in ACTIONS:
        expected = None if action in EXPECTED[role] | {Action.PROBE} else Forbidden
        assert refusal(actor, private, action) is expected
    other = make(private.namespace, "other")
    expected_elsewhere = EXPECTED[role] | {Action.PROBE} if way.endswith("namespace") else frozenset()
    assert permissions.allowed_actions(actor, other) == expected_elsewhere


def test_f1_strangers_see_nothing_and_anonymous_callers_are_challenged(private: Repository, public: Repository) -> None:
    stranger = actor_for(principal("stranger"))
    for action in ACTIONS:
        assert refusal(stranger, private, action) is RepositoryNotFound
        assert refusal(stranger, None, action) is RepositoryNotFound
        assert refusal(Actor(), private, action) is AuthenticationRequired
        assert refusal(Actor(), None, action) is AuthenticationRequired
    assert refusal(Actor(), None, Action.PUBLIC) is None
    assert refusal(Actor(), public, Action.READ) is None
    assert refusal(Actor(), public, Action.PUBLISH) is AuthenticationRequired
    assert refusal(stranger, public, Action.READ) is None
    assert refusal(stranger, public, Action.PUBLISH) is Forbidden


def test_admins_and_the_system_may_do_all_but_not_with_a_deleted_repository(private: Repository) -> None:
    admin = actor_for(principal("root", is_admin=True))
    for actor in (admin, system_actor("collect")):
        assert permissions.allowed_actions(actor, private) == ALL_ACTIONS | {Action.PROBE}
    private.state = Repository.State.DELETING
    assert refusal(admin, private, Action.READ) is RepositoryNotFound
    assert refusal(Actor(), private, Action.READ) is AuthenticationRequired


@pytest.mark.parametrize("is_admin", [False, True])
def test_e5_an_api_token_narrows_its_owner_exactly(private: Repository, public: Repository, is_admin: bool) -> None:
    user = principal("ada", is_admin=is_admin)
    grant(user, Role.OWNER, namespace=private.namespace)
    for held in ([Action.READ], [Action.PUBLISH], [Action.DELETE], [Action.MANAGE], []):
        actor = actor_for(user, token=TokenLimits(1, frozenset(held)))
        may_probe = bool({Action.READ, Action.PUBLISH} & set(held))
        for repository in (private, public):
            for action in ACTIONS:
                allowed = action in held or (action is Action.PROBE and may_probe)
                assert refusal(actor, repository, action) is (None if allowed else Forbidden), (held, action)
    elsewhere = actor_for(user, token=TokenLimits(1, frozenset(ALL_ACTIONS), frozenset({public.pk})))
    assert refusal(elsewhere, public, Action.MANAGE) is None
    for action in ACTIONS:
        assert refusal(elsewhere, private, action) is RepositoryNotFound
    here = actor_for(user, token=TokenLimits(1, frozenset(ALL_ACTIONS), frozenset({private.pk})))
    assert refusal(here, private, Action.DELETE) is None
    assert refusal(here, public, Action.READ) is Forbidden


def test_a_token_never_widens(private: Repository) -> None:
    user = principal("ada")
    grant(user, Role.READER, repository=private)
    actor = actor_for(user, token=TokenLimits(1, frozenset(ALL_ACTIONS)))
    assert refusal(actor, private, Action.READ) is None
    assert refusal(actor, private, Action.PUBLISH) is Forbidden


def test_e5_a_registry_token_opens_only_the_names_it_was_issued_for(private: Repository, public: Repository) -> None:
    user = principal("ada")
    grant(user, Role.PUBLISHER, repository=private)
    name = "acme/private/image"
    actor = actor_for(user, scopes={name: frozenset({Action.READ})})
    assert refusal(actor, private, Action.READ, name) is None
    assert refusal(actor, private, Action.PROBE, name) is None
    assert refusal(actor, private, Action.PUBLISH, name) is ScopeInsufficient
    assert refusal(actor, private, Action.DELETE, name) is Forbidden
    for scope in ("acme/private/image2", "acme/private/image/deeper", "acme/private", "", "registry:catalog"):
        assert refusal(actor, private, Action.READ, scope) is ScopeInsufficient
    pusher = actor_for(user, scopes={name: frozenset({Action.PUBLISH})})
    assert refusal(pusher, private, Action.PROBE, name) is None
    assert refusal(pusher, private, Action.READ, name) is ScopeInsufficient
    nobody = Actor(scopes={})
    assert refusal(nobody, private, Action.READ, name) is ScopeInsufficient
    assert refusal(nobody, public, Action.READ, "acme/public-one/x") is ScopeInsufficient
    granted = Actor(scopes={"acme/public-one/x": frozenset({Action.READ})})
    assert refusal(granted, public, Action.READ, "acme/public-one/x") is None
    assert refusal(granted, private, Action.READ, name) is ScopeInsufficient
    stranger = actor_for(principal("stranger"), scopes={name: frozenset({Action.READ})})
    assert refusal(stranger, private, Action.READ, name) is RepositoryNotFound
    with pytest.raises(ScopeInsufficient):
        permissions.check_management(actor)
    with pytest.raises(ScopeInsufficient):
        permissions.check_site(actor, permissions.CATALOG_SCOPE)
    permissions.check_site(dataclasses.replace(actor, scopes={}), permissions.CATALOG_SCOPE)


def test_f5_lists_hold_what_the_actor_may_read(private: Repository, public: Repository, namespace: Namespace) -> None:
    hidden = make(namespace, "hidden")
    gone = make(namespace, "gone", state=Repository.State.DELETING, anonymous_read=True)
    user = principal("ada")
    team = principal("team", kind=Principal.Kind.GROUP)
    Membership.objects.create(group=team, member=user)
    grant(team, Role.READER, repository=private)
    everything = {private.pk, public.pk, hidden.pk}
    admin = principal("root", is_admin=True)
    cases = [
        (Actor(), {public.pk}),
        (actor_for(user), {private.pk, public.pk}),
        (actor_for(admin), everything),
        (system_actor("x"), everything),
        (
            actor_for(user, token=TokenLimits(1, frozenset({Action.READ}), frozenset({private.pk, hidden.pk}))),
            {private.pk},
        ),
        (actor_for(user, token=TokenLimits(1, frozenset({Action.PUBLISH}))), set()),
    ]
    for actor, expected in cases:
        assert set(permissions.readable(actor).values_list("pk", flat=True)) == expected
        ids = permissions.readable_repository_ids(actor, "oci")
        assert set(Repository.objects.filter(pk__in=ids).values_list("pk", flat=True)) == expected
        for repository in (private, public, hidden, gone):
            may = Action.READ in permissions.allowed_actions(actor, repository)
            assert may == (repository.pk in expected)
    team.is_disabled = True
    team.save()
    assert set(permissions.readable(actor_for(user)).values_list("pk", flat=True)) == {public.pk}


def test_explain_names_every_rule(private: Repository) -> None:
    user = principal("ada")
    team = principal("team", kind=Principal.Kind.GROUP)
    Membership.objects.create(group=team, member=user)
    grant(team, Role.READER, namespace=private.namespace)
    grant(user, Role.PUBLISHER, repository=private)
    said = permissions.explain(actor_for(user), private, Action.DELETE)
    assert said["allowed"] is False and said["grants"] == [
        {"role": "reader", "on": "acme", "through": "team"},
        {"role": "publisher", "on": "acme/private", "through": ""},
    ]
    assert permissions.explain(actor_for(user), private, Action.PUBLISH)["allowed"] is True
    assert permissions.explain(Actor(), private, Action.READ)["reasons"]
    limited = actor_for(user, token=TokenLimits(1, frozenset({Action.READ}), frozenset()))
    assert len(permissions.explain(limited, private, Action.PUBLISH)["reasons"]) == 4  # type: ignore[arg-type]


def test_the_epoch_rises_with_every_bump() -> None:
    assert epoch.current() == 0
    epoch.ensure()
    epoch.ensure()
    first = epoch.current()
    epoch.bump()
    assert epoch.current() == first + 1
