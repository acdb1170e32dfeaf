"""The token endpoint of the registry protocol: GET and POST forms, scopes, refresh tokens."""

from __future__ import annotations

import base64
import datetime
from typing import Any
from urllib.parse import urlencode

import pytest

from repoman.access import authenticate, registry_tokens, tokens
from repoman.access.models import Grant, Principal, Token
from repoman.catalog.models import Namespace, Repository
from repoman.core import clock
from repoman.core.actor import Action, Actor, Role, system_actor
from repoman.core.errors import BadRequest, CredentialsInvalid, TooManyRequests
from repoman.core.wire import Query
from repoman.protocol.token import issue, parse_scopes
from repoman.services import accounts

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def world() -> None:
    """ada publishes to acme/private, reads acme/public as everybody does, and knows nothing of acme/hidden."""
    accounts.create_user(system_actor("test"), username="ada", password=PASSWORD)
    namespace = Namespace.objects.create(name="acme", created_at=clock.now())
    for name in ("private", "public", "hidden"):
        row = Repository.objects.create(
            namespace=namespace,
            name=name,
            key=f"acme/{name}",
            format="oci",
            anonymous_read=name == "public",
            created_at=clock.now(),
        )
        if name == "private":
            Grant.objects.create(
                principal=Principal.objects.get(), repository=row, role=Role.PUBLISHER, created_at=clock.now()
            )


def basic(username: str = "ada", password: str = PASSWORD) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def get(*scopes: str, authorization: str | None = None, **params: str) -> dict[str, Any]:
    pairs = [("service", "repoman"), *(("scope", scope) for scope in scopes), *params.items()]
    return issue(Query(urlencode(pairs).encode()), None, authorization, "192.0.2.1", "r1", "http://localhost")


def post(*scopes: str, **fields: str) -> dict[str, Any]:
    pairs = [("service", "repoman"), ("client_id", "docker"), *(("scope", scope) for scope in scopes), *fields.items()]
    form = Query(urlencode(pairs).encode())
    return issue(Query(b""), form, None, "192.0.2.1", "r1", "http://localhost")


def actor_of(answer: dict[str, Any]) -> Actor:
    return authenticate.authenticate(f"Bearer {answer['token']}", address="192.0.2.1", request_id="r2")


READ, PUBLISH, DELETE = Action.READ, Action.PUBLISH, Action.DELETE


def test_a12_the_answer_has_what_every_client_looks_for() -> None:
    answer = get("repository:acme/private/app:pull,push", authorization=basic())
    assert answer["token"] == answer["access_token"] and answer["expires_in"] == 900
    issued = datetime.datetime.strptime(answer["issued_at"], "%Y-%m-%dT%H:%M:%SZ")
    assert abs((issued - clock.now().replace(tzinfo=None)).total_seconds()) < 60
    assert answer["scope"] == "repository:acme/private/app:pull,push" and "refresh_token" not in answer
    actor = actor_of(answer)
    assert actor.name == "ada" and actor.scopes == {"acme/private/app": frozenset({READ, PUBLISH})}
    assert len(answer["token"]) < 4096


def test_a13_wrong_credentials_are_refused_and_never_anonymous() -> None:
    for header in (basic(password="wrong password"), basic("nobody"), "Basic x", "Bearer x"):
        with pytest.raises(CredentialsInvalid):
            get("repository:acme/public/app:pull", authorization=header)
    with pytest.raises(CredentialsInvalid):
        post("repository:acme/public/app:pull", grant_type="password", username="ada", password="wrong password")


def test_a13_a_smaller_or_empty_grant_is_still_an_answer() -> None:
    assert actor_of(get("repository:acme/private/app:*", authorization=basic())).scopes == {
        "acme/private/app": frozenset({READ, PUBLISH})
    }
    for scope in (
        "repository:acme/hidden/app:pull",
        "repository:acme/missing/app:pull",
        "repository:library/alpine:pull",
        "repository:acme/private:pull",
        "repository:acme/private/:pull",
        "repository:acme/private/app:",
        "repository:acme/private/app:fly",
        "plugin:acme/private/app:pull",
        "nonsense",
        "::",
        "repository:" + "a/" * 200 + "b:pull",
        "repository:äcme/private/app:pull",
    ):
        assert actor_of(get(scope, authorization=basic())).scopes == {}, scope


def test_a14_no_scope_at_all_is_legal() -> None:
    assert actor_of(get(authorization=basic())).scopes == {}
    anonymous = actor_of(get())
    assert anonymous.is_anonymous and anonymous.scopes == {}


def test_a11_a16_a24_scopes_are_repeated_and_space_separated_and_foreign_ones_dropped() -> None:
    answer = get(
        "repository:acme/private/a:pull repository:acme/public/b:pull,push",
        "repository:acme/private/a:push",
        "repository:library/alpine:pull",
        "repository(plugin):acme/private/c:pull",
        "registry:catalog:*",
        authorization=basic(),
    )
    expected = {
        "acme/private/a": frozenset({READ, PUBLISH}),
        "acme/public/b": frozenset({READ}),
        "acme/private/c": frozenset({READ}),
        "registry:catalog": frozenset({READ}),
    }
    assert actor_of(answer).scopes == expected
    fields = {"grant_type": "password", "username": "ada", "password": PASSWORD}
    form = post("repository:acme/private/a:pull,push repository:acme/public/b:pull", "registry:catalog:*", **fields)
    assert set(actor_of(form).scopes or ()) == {"acme/private/a", "acme/public/b", "registry:catalog"}


def test_a30_names_may_hold_a_colon_and_actions_come_in_any_order() -> None:
    assert parse_scopes(["repository:host:5000/a/b/c:push,pull", "repository:a/b/c:delete,pull,x"]) == {
        "host:5000/a/b/c": frozenset({READ, PUBLISH}),
        "a/b/c": frozenset({READ, DELETE}),
    }


def test_anonymous_callers_get_a_token_for_what_is_public() -> None:
    actor = actor_of(get("repository:acme/public/app:pull,push", "repository:acme/private/app:pull"))
    assert actor.is_anonymous and actor.scopes == {"acme/public/app": frozenset({READ})}


def test_too_many_or_too_long_scopes_are_refused() -> None:
    with pytest.raises(BadRequest):
        get(*[f"repository:acme/private/a{number}:pull" for number in range(101)], authorization=basic())
    with pytest.raises(BadRequest):
        get("repository:acme/private/" + "a" * 70_000 + ":pull", authorization=basic())
    with pytest.raises(BadRequest):
        names = [f"repository:acme/private/{'a' * 200}{number}:pull" for number in range(60)]
        get(*names, authorization=basic())


def test_a20_a27_grant_types() -> None:
    for fields in (
        {},
        {"grant_type": "authorization_code"},
        {"grant_type": "password"},
        {"grant_type": "refresh_token"},
    ):
        with pytest.raises(BadRequest):
            post(**fields)
    with pytest.raises(CredentialsInvalid):
        post(grant_type="refresh_token", refresh_token="rpr_" + "a" * 43)


def test_a15_a25_a_refresh_token_is_durable_revocable_and_good_only_here() -> None:
    for answer in (
        get(authorization=basic(), offline_token="true", client_id="docker"),
        post(grant_type="password", username="ada", password=PASSWORD, access_type="offline"),
    ):
        secret = answer["refresh_token"]
        assert all(character.isascii() and (character.isalnum() or character in "._~-") for character in secret)
        again = post("repository:acme/private/app:pull", grant_type="refresh_token", refresh_token=secret)
        assert again["refresh_token"] == secret
        assert actor_of(again).scopes == {"acme/private/app": frozenset({READ})}
        for header in (f"Bearer {secret}", basic("ada", secret)):
            with pytest.raises(CredentialsInvalid):
                authenticate.authenticate(header, address="192.0.2.1", request_id="r")
        row = Token.objects.get(secret_hash=tokens.hash_secret(secret))
        assert "docker" in row.name
        ada = authenticate.authenticate(basic(), address="192.0.2.1", request_id="r")
        accounts.revoke_token(ada, row.pk)
        with pytest.raises(CredentialsInvalid):
            post(grant_type="refresh_token", refresh_token=secret)
        with pytest.raises(CredentialsInvalid):
            actor_of(again)
    for number in range(25):
        get(authorization=basic(), offline_token="true", client_id=f"client{number}")
    assert Token.objects.filter(hint__startswith="rpr_", revoked_at=None).count() == accounts.REFRESH_TOKENS_MOST


def test_a41_an_api_token_signs_in_and_gets_no_refresh_token() -> None:
    ada = authenticate.authenticate(basic(), address="192.0.2.1", request_id="r")
    row, secret = accounts.create_token(ada, name="ci", actions=[READ])
    scope = "repository:acme/private/app:pull,push"
    for answer in (
        get(scope, authorization=basic("anything", secret), offline_token="true"),
        get(scope, authorization=f"Bearer {secret}"),
        post(scope, grant_type="password", username="x", password=secret, access_type="offline"),
    ):
        assert "refresh_token" not in answer
        actor = actor_of(answer)
        assert actor.scopes == {"acme/private/app": frozenset({READ})}
        assert actor.token is not None and actor.token.token_id == row.pk


def test_a_registry_token_is_not_exchanged_for_another() -> None:
    answer = get(authorization=basic())
    with pytest.raises(CredentialsInvalid):
        get("repository:acme/private/app:pull", authorization=f"Bearer {answer['token']}")


def test_e8_guessing_at_the_token_endpoint_is_slowed() -> None:
    for _ in range(10):
        with pytest.raises(CredentialsInvalid):
            get(authorization=basic(password="a wrong guess"))
    with pytest.raises(TooManyRequests):
        post(grant_type="password", username="ada", password=PASSWORD)


def test_a35_rights_are_judged_again_when_the_token_is_used() -> None:
    from repoman.access import permissions

    actor = actor_of(get("repository:acme/private/app:pull,push", authorization=basic()))
    repository = Repository.objects.get(key="acme/private")
    permissions.check(actor, repository, PUBLISH, scope_name="acme/private/app")
    Grant.objects.update(role=Role.READER)
    with pytest.raises(Exception, match="may not publish"):
        permissions.check(actor, repository, PUBLISH, scope_name="acme/private/app")
    assert registry_tokens.SERVICE == "repoman"
