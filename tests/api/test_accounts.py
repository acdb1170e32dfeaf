"""Users, tokens, namespaces, grants, jobs and the audit log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import override_settings

from repoman.access import epoch, tokens
from repoman.access.models import Identity, Principal, Token
from repoman.catalog.models import Namespace
from repoman.events.models import Event
from repoman.jobs.models import JobRun

from .conftest import PASSWORD, Caller, basic

Make = Callable[..., Caller]


def test_users_are_made_changed_and_deleted_by_administrators(admin: Caller, ada: Caller) -> None:
    made = admin.post("users", {"username": "Bob@example.org", "password": PASSWORD, "email": "bob@example.org"})
    assert made.status == 201 and "password" not in made.json
    assert made.json["username"] == "Bob@example.org" and not made.json["is_admin"]
    assert admin.post("users", {"username": "bob@EXAMPLE.org", "password": PASSWORD}).code == "conflict"
    assert ada.post("users", {"username": "carl", "password": PASSWORD}).code == "forbidden"
    assert [item["username"] for item in ada.get("users").json["items"]] == ["ada"]
    assert {item["username"] for item in admin.get("users").json["items"]} == {"Bob@example.org", "ada", "admin"}
    assert ada.get("users/admin").code == ada.get("users/missing").code == "user_not_found"
    assert admin.patch("users/Bob@example.org", {"is_admin": True}).json["is_admin"]
    assert admin.delete("users/Bob@example.org").status == 204
    assert admin.get("users/Bob@example.org").status == 404
    kinds = list(Event.objects.filter(subject="Bob@example.org").order_by("pk").values_list("kind", "actor", "address"))
    assert [kind for kind, _, _ in kinds] == ["user:create", "user:update", "user:delete"]
    assert {(actor, address) for _, actor, address in kinds} == {("admin", "127.0.0.1")}


@pytest.mark.parametrize(
    "username",
    [
        "",
        "-a",
        ".a",
        "a b",
        "a/b",
        "api",
        "Helm",
        "v2",
        "anonymous",
        "a" * 129,
        "ä",
        "a\nb",
        "a:b",
        "system:x",
        "a\u202eb",
    ],
)
def test_a5_bad_and_reserved_user_names_are_refused(admin: Caller, username: str) -> None:
    assert admin.post("users", {"username": username, "password": PASSWORD}).status == 400
    assert Principal.objects.count() == 1


def test_users_change_their_own_password_and_nothing_else(ada: Caller, admin: Caller) -> None:
    refresh = tokens.create(
        Principal.objects.get(username="ada"), name="docker", actions=(), repositories=None, prefix="rpr_"
    )[0]
    for body in ({"is_admin": True}, {"disabled": False}, {"is_admin": False, "password": PASSWORD}):
        assert ada.patch("users/ada", body).code == "forbidden"
    assert ada.patch("users/admin", {"password": "another password"}).status == 404
    assert ada.patch("users/ada", {"password": "short"}).code == "password_invalid"
    before = epoch.current()
    assert ada.patch("users/ada", {"password": "another password", "email": "a@example.org"}).status == 200
    assert epoch.current() > before
    assert ada.get("users/ada").code == "credentials_invalid"
    assert Caller(basic("ada", "another password")).get("users/ada").json["email"] == "a@example.org"
    refresh.refresh_from_db()
    assert refresh.revoked_at is not None
    text = str(list(Event.objects.values())) + str(list(Identity.objects.values()))
    assert "another password" not in text


def test_e6_a_disabled_user_is_out_at_once_and_the_last_administrator_stays(admin: Caller, ada: Caller) -> None:
    token = ada.token(actions=["manage"])
    before = epoch.current()
    assert admin.patch("users/ada", {"disabled": True}).json["disabled"]
    assert epoch.current() > before
    assert ada.get("users/ada").status == token.get("users/ada").status == 401
    for change in ({"disabled": True}, {"is_admin": False}):
        assert admin.patch("users/admin", change).code == "conflict"
    assert admin.delete("users/admin").code == "conflict"
    assert admin.get("users/admin").json["is_admin"]


@pytest.mark.parametrize(
    "field", ["id", "kind", "namespace", "disabled", "created_at", "password_hash", "is_superuser"]
)
def test_f8_extra_and_read_only_fields_are_refused_by_name(admin: Caller, ada: Caller, raw: str, field: str) -> None:
    answer = admin.post("users", {"username": "eve", "password": PASSWORD, field: 1})
    assert answer.code == "invalid" and field in answer.json["detail"] and field in answer.json["errors"]
    assert not Principal.objects.filter(username="eve").exists()


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("PATCH", "users/ada", {"username": "eve"}, "username"),
        ("POST", "namespaces", {"name": "beta", "used_bytes": 0}, "used_bytes"),
        ("PATCH", "namespaces/acme", {"name": "beta"}, "name"),
        ("PATCH", "namespaces/acme", {"reserved_bytes": 0}, "reserved_bytes"),
        ("PUT", "namespaces/acme/grants/ada", {"role": "reader", "username": "eve"}, "username"),
        (
            "POST",
            "namespaces/acme/repositories",
            {"name": "x1", "format": "oci", "type": "local", "owner": "eve"},
            "owner",
        ),
        (
            "POST",
            "namespaces/acme/repositories",
            {"name": "x1", "format": "oci", "type": "local", "tenant": 1},
            "tenant",
        ),
        ("PATCH", "repositories/acme/stuff", {"format": "oci"}, "format"),
        ("PATCH", "repositories/acme/stuff", {"revision": 7}, "revision"),
        ("POST", "tokens", {"name": "t", "principal": 1}, "principal"),
        ("POST", "jobs", {"kind": "collect", "state": "succeeded"}, "state"),
        ("POST", "repositories/acme/stuff/undelete", {"revision": 1, "x": 1}, "x"),
    ],
)
def test_f8_each_call_refuses_what_is_not_its_own(
    admin: Caller, ada: Caller, raw: str, method: str, path: str, body: Any, field: str
) -> None:
    answer = admin.send(method, path, body)
    assert answer.status == 400 and answer.code == "invalid" and field in answer.json["errors"]


# --- tokens ----------------------------------------------------------------------------------------------------------


def test_a_token_is_shown_once_listed_and_revoked(ada: Caller, admin: Caller) -> None:
    made = ada.post("tokens", {"name": "ci"})
    assert made.status == 201 and made.json["token"].startswith("rpm_") and made.json["actions"] == ["read"]
    row = Token.objects.get()
    assert row.expires_at is not None and (row.expires_at - row.created_at).days == 90 and row.repositories is None
    listed = ada.get("tokens").json["items"]
    assert [item["id"] for item in listed] == [made.json["id"]] and "token" not in listed[0]
    assert made.json["token"] not in str(list(Token.objects.values())) + str(list(Event.objects.values()))
    assert admin.get("tokens").json["items"] == []
    before = epoch.current()
    stranger_gone = Caller(basic("admin", PASSWORD)).delete("tokens/99999")
    assert stranger_gone.code == "token_not_found"
    assert ada.delete(f"tokens/{row.pk}").status == 204 and epoch.current() > before
    assert ada.delete(f"tokens/{row.pk}").status == 204
    assert Caller(f"Bearer {made.json['token']}").get("users").status == 401
    assert ada.get("tokens").json["items"] == []


def test_f1_tokens_of_others_are_not_there_but_administrators_revoke_them(
    ada: Caller, admin: Caller, make_user: Make
) -> None:
    made = ada.post("tokens", {"name": "ci", "expires_in": 60}).json
    assert make_user("eve").delete(f"tokens/{made['id']}").code == "token_not_found"
    assert admin.delete(f"tokens/{made['id']}").status == 204


def test_w6_a_second_token_of_one_name_is_a_conflict_until_the_first_is_revoked(ada: Caller) -> None:
    first = ada.post("tokens", {"name": "ci"})
    assert ada.post("tokens", {"name": "ci"}).code == "conflict"
    ada.delete(f"tokens/{first.json['id']}")
    assert ada.post("tokens", {"name": "ci"}).status == 201


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "x", "expires_in": 0},
        {"name": "x", "expires_in": -1},
        {"name": "x", "expires_in": 10**12},
        {"name": "x", "expires_in": "60"},
        {"name": "x", "expires_in": True},
        {"name": "x", "actions": []},
        {"name": "x", "actions": ["fly"]},
        {"name": "x", "actions": "read"},
        {"name": "x", "actions": [["read"]]},
        {"name": "x", "repositories": []},
        {"name": "x", "repositories": ["acme/missing"]},
        {"name": "x", "repositories": ["acme/images"]},
        {"name": "x\ny"},
        {"name": "x" * 129},
        {"name": 7},
    ],
)
def test_tokens_that_make_no_sense_are_refused(ada: Caller, images: str, body: Any) -> None:
    """The repository exists, but ada may not know of it."""
    assert ada.post("tokens", body).status == 400
    assert not Token.objects.exists()


def test_a_token_gives_away_no_more_than_it_has(admin: Caller, images: str, raw: str) -> None:
    limited = admin.token(actions=["read", "manage"], repositories=[images], expires_in=1000)
    assert limited.post("tokens", {"name": "a", "actions": ["publish"], "repositories": [images]}).status == 403
    assert limited.post("tokens", {"name": "b"}).status == 403
    assert limited.post("tokens", {"name": "c", "repositories": [raw]}).status == 400
    assert limited.post("tokens", {"name": "d", "repositories": [images], "expires_in": 5000}).status == 403
    made = limited.post("tokens", {"name": "e", "repositories": [images]})
    assert made.status == 201 and made.json["repositories"] == [images]
    row = Token.objects.get(pk=made.json["id"])
    assert row.expires_at is not None and (row.expires_at - row.created_at).total_seconds() <= 1000
    assert limited.get(f"repositories/{images}").status == 200
    assert limited.get(f"repositories/{raw}").status == 404
    assert [item["key"] for item in limited.get("repositories").json["items"]] == [images]
    for path in ("namespaces", "namespaces/acme", "users", "audit", "jobs"):
        assert limited.get(path).status == 403
    reader = admin.token(actions=["read"])
    assert reader.get("users").code == reader.post("namespaces", {"name": "beta"}).code == "forbidden"
    assert reader.get(f"repositories/{raw}/packages").status == 200


def test_e5_a_registry_token_does_not_open_the_api(admin: Caller, images: str) -> None:
    from repoman.access import registry_tokens
    from repoman.access.authenticate import authenticate
    from repoman.core.actor import Action

    assert admin.credentials is not None
    actor = authenticate(admin.credentials, address="", request_id="")
    issued = registry_tokens.issue(actor, {f"{images}/app": frozenset({Action.READ, Action.PUBLISH})}).token
    caller = Caller(f"Bearer {issued}")
    for path in ("users", "namespaces", f"repositories/{images}", f"repositories/{images}/packages", "audit", "tokens"):
        assert caller.get(path).code == "insufficient_scope"


# --- namespaces and grants -------------------------------------------------------------------------------------------


def test_anyone_signed_in_creates_a_namespace_and_owns_it(ada: Caller, admin: Caller, nobody: Caller) -> None:
    made = ada.post("namespaces", {"name": "mine", "description": "Ünsere\nSachen"})
    assert made.status == 201 and made.json["quota_bytes"] == 10 * 2**30 and made.json["used_bytes"] == 0
    assert ada.get("namespaces/mine").json == made.json
    assert nobody.post("namespaces", {"name": "other"}).code == "authentication_required"
    assert (
        ada.post("namespaces", {"name": "mine"}).code == admin.post("namespaces", {"name": "mine"}).code == "conflict"
    )
    assert ada.post("namespaces", {"name": "big", "quota_bytes": None}).code == "forbidden"
    assert ada.patch("namespaces/mine", {"quota_bytes": None}).code == "forbidden"
    assert ada.patch("namespaces/mine", {"description": ""}).json["description"] == ""
    assert admin.patch("namespaces/mine", {"quota_bytes": 5}).json["quota_bytes"] == 5
    assert admin.patch("namespaces/mine", {"quota_bytes": None}).json["quota_bytes"] is None
    assert [item["name"] for item in ada.get("namespaces").json["items"]] == ["mine"]
    assert ada.get("namespaces/mine/grants").json["items"][0]["role"] == "owner"
    assert ada.delete("namespaces/mine").status == 204
    assert ada.get("namespaces/mine").code == "namespace_not_found"


def test_l4_a_quota_may_be_set_below_what_is_used(admin: Caller, acme: str) -> None:
    Namespace.objects.filter(name=acme).update(used_bytes=1000)
    changed = admin.patch("namespaces/acme", {"quota_bytes": 10})
    assert changed.json["quota_bytes"] == 10 and changed.json["used_bytes"] == 1000
    for bad in (-1, 2**63, 1.5, "10", True):
        assert admin.patch("namespaces/acme", {"quota_bytes": bad}).status == 400


@pytest.mark.parametrize(
    "name", ["a", "A1", "api", "v2", "-a", "a_", "a..b", "a" * 64, "ab/cd", "ab cd", "", "äb", "a\u200bb"]
)
def test_a5_a6_bad_and_reserved_namespace_names_are_refused(ada: Caller, name: str) -> None:
    assert ada.post("namespaces", {"name": name}).status == 400


def test_only_administrators_create_namespaces_where_the_setting_says_so(ada: Caller, admin: Caller) -> None:
    from django.conf import settings

    values = {**settings.CONFIGURATION.values, "REPOMAN_NAMESPACE_CREATION": "admin", "REPOMAN_DEFAULT_QUOTA": 77}
    with override_settings(CONFIGURATION=type(settings.CONFIGURATION)(values)):
        assert ada.post("namespaces", {"name": "mine"}).code == "forbidden"
        assert admin.post("namespaces", {"name": "mine"}).json["quota_bytes"] == 77


def test_a_namespace_with_repositories_is_not_deleted(admin: Caller, raw: str) -> None:
    assert admin.delete("namespaces/acme").code == "conflict"
    assert admin.delete(f"repositories/{raw}").status == 204
    assert admin.delete("namespaces/acme").code == "conflict"  # until the job has removed what it held
    from repoman.services.purge import drop_repository

    drop_repository(JobRun.objects.get().arguments["repository_id"])
    assert admin.delete("namespaces/acme").status == 204


def test_e6_grants_are_given_replaced_and_taken_back(admin: Caller, ada: Caller, raw: str) -> None:
    where = f"repositories/{raw}"
    assert ada.get(where).status == 404
    before = epoch.current()
    assert admin.put("namespaces/acme/grants/ada", {"role": "reader"}).status == 201
    assert epoch.current() > before
    assert ada.get(where).status == 200 and ada.patch(where, {"description": "x"}).status == 403
    assert admin.put("namespaces/acme/grants/ada", {"role": "owner"}).status == 200
    assert ada.patch(where, {"description": "x"}).status == 200
    before = epoch.current()
    assert admin.delete("namespaces/acme/grants/ada").status == 204
    assert epoch.current() > before
    assert admin.delete("namespaces/acme/grants/ada").status == 204
    assert ada.get(where).status == 404
    assert admin.put(f"{where}/grants/ada", {"role": "publisher"}).json["role"] == "publisher"
    assert ada.get(where).status == 200 and ada.get("namespaces/acme").status == 404
    assert [item["username"] for item in admin.get(f"{where}/grants").json["items"]] == ["ada"]
    assert admin.put("namespaces/acme/grants/missing", {"role": "reader"}).code == "user_not_found"
    for role in ("king", "", None, 7, ["reader"]):
        assert admin.put("namespaces/acme/grants/ada", {"role": role}).status == 400
    assert Event.objects.filter(kind="grant:set", namespace="acme").count() == 3


def test_the_last_owner_stays_unless_an_administrator_says_otherwise(
    admin: Caller, ada: Caller, make_user: Make
) -> None:
    ada.post("namespaces", {"name": "mine"})
    assert ada.delete("namespaces/mine/grants/ada").code == "conflict"
    assert ada.put("namespaces/mine/grants/ada", {"role": "reader"}).code == "conflict"
    make_user("bob")
    assert ada.put("namespaces/mine/grants/bob", {"role": "owner"}).status == 201
    assert ada.delete("namespaces/mine/grants/ada").status == 204
    assert admin.delete("namespaces/mine/grants/bob").status == 204


# --- jobs and audit --------------------------------------------------------------------------------------------------


def test_administrators_request_jobs(admin: Caller, ada: Caller) -> None:
    made = admin.post("jobs", {"kind": "collect", "arguments": {"grace_seconds": 0}})
    assert made.status == 202 and made.json["state"] == "queued"
    assert admin.get(f"jobs/{made.json['id']}").json["kind"] == "collect"
    assert [item["id"] for item in admin.get("jobs").json["items"]] == [made.json["id"]]
    assert ada.post("jobs", {"kind": "collect"}).code == ada.get(f"jobs/{made.json['id']}").code == "forbidden"
    assert admin.get("jobs/999").code == "job_not_found"
    for body in (
        {},
        {"kind": "delete_repository", "arguments": {"repository_id": 1}},
        {"kind": "collect", "arguments": {"grace_seconds": -1}},
        {"kind": "collect", "arguments": {"unknown": 1}},
        {"kind": "collect", "arguments": []},
        {"kind": ["collect"]},
    ):
        assert admin.post("jobs", body).status == 400
    assert JobRun.objects.count() == 1


def test_f5_owners_read_their_namespaces_audit_and_administrators_all(admin: Caller, ada: Caller, raw: str) -> None:
    ada.post("namespaces", {"name": "mine"})
    assert ada.get(f"repositories/{raw}").status == 404
    assert ada.patch("namespaces/mine", {"quota_bytes": 5}).status == 403
    seen = ada.get("audit").json["items"]
    assert {item["namespace"] for item in seen} == {"mine"}
    assert [item["kind"] for item in seen] == ["access:refused", "namespace:create"]
    refused = admin.get("audit?kind=access:refused&actor=ada").json["items"]
    assert {(item["repository"], item["allowed"]) for item in refused} == {("acme/stuff", False), ("", False)}
    assert {"at", "actor", "address", "kind", "namespace", "repository", "subject", "allowed", "detail"} <= set(seen[0])
    assert admin.get("audit?namespace=acme&repository=acme/stuff&since=2020-01-01T00:00:00Z").json["items"]
    assert ada.get("audit?namespace=acme").json["items"] == []
    assert admin.get("audit?since=yesterday").status == 400
    Namespace.objects.filter(name="mine").update(created_at="2999-01-01T00:00:00Z")
    assert ada.get("audit").json["items"] == []  # what was before belongs to whoever had the name then
