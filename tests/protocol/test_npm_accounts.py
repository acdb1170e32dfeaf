"""Signing in and tokens on the wire (contract, section 8; THREATS E)."""

from __future__ import annotations

import secrets
from typing import Any

import httpx
import pytest

from tests.protocol.npm_client import Registry, refused
from tests.running import Server


@pytest.fixture
def signed(server: Server) -> tuple[Registry, str, str]:
    """A private repository, and the user name and password of its maintainer."""
    key = server.make_repository(format="npm")
    username, password = server.make_user(key, "maintainer")
    return Registry(server, server.client(username, password), key), username, password


def login(registry: Registry, username: str, password: str, **fields: Any) -> httpx.Response:
    anyone = registry.as_other(registry.server.client())
    body = {"_id": f"org.couchdb.user:{username}", "name": username, "password": password, "type": "user", **fields}
    return anyone.put(f"-/user/org.couchdb.user:{username}", body)


def bearer(registry: Registry, token: str) -> Registry:
    other = registry.as_other(registry.server.client())
    other.client.headers["Authorization"] = f"Bearer {token}"
    return other


def test_npm_8_1_basic_and_bearer_work_on_every_route(signed: tuple[Registry, str, str]) -> None:
    registry, username, password = signed
    registry.publish("n", "1.0.0")
    token = login(registry, username, password).json()["token"]
    with_token_as_password = registry.as_other(registry.server.client("anything", token))
    for caller in (registry, bearer(registry, token), with_token_as_password):
        for path in ("n", "n/1.0.0", "n/-/n-1.0.0.tgz", "-/package/n/dist-tags", "-/whoami", "-/v1/search?text=n"):
            assert caller.get(path).status_code == 200, path
        assert caller.get("-/whoami").json() == {"username": username}
        assert caller.put("-/package/n/dist-tags/t", "1.0.0").status_code == 201


def test_npm_8_3_E7_wrong_credentials_are_told_as_such(signed: tuple[Registry, str, str]) -> None:
    registry, username, _ = signed
    server = registry.server
    answers = [
        registry.as_other(server.client(username, "wrong")).get("n"),
        registry.as_other(server.client("nobody-of-that-name", "wrong")).get("n"),
        bearer(registry, "rpm_" + secrets.token_urlsafe(32)).get("n"),
        bearer(registry, "x").get("n"),
    ]
    for answer in answers:
        refused(answer, 401)
        assert answer.headers["www-authenticate"].startswith("Bearer ")
        assert "otp" not in answer.headers["www-authenticate"].lower() and "one-time" not in answer.text
    assert answers[0].json() == answers[1].json()


def test_npm_8_6_15_15_there_is_no_web_login_and_nobody_is_asked_who_he_is(signed: tuple[Registry, str, str]) -> None:
    registry, _, _ = signed
    for caller in (registry, registry.as_other(registry.server.client())):
        refused(caller.ask("POST", "-/v1/login", json={"hostname": "x"}), 404)
        refused(caller.ask("POST", "-/v1/login"), 404)


def test_npm_8_7_8_8_login_gives_an_ordinary_token(signed: tuple[Registry, str, str]) -> None:
    registry, username, password = signed
    answer = login(registry, username, password, roles=[], date="2026-01-01T00:00:00.000Z", email="x@example.org")
    assert answer.status_code == 201
    assert answer.json()["ok"] is True and answer.json()["id"] == f"org.couchdb.user:{username}"
    token = answer.json()["token"]
    listed = registry.server.client(username, password).get("/api/v1/tokens").json()["items"]
    assert any("npm login" in item["name"] and set(item["actions"]) == {"read", "publish", "delete"} for item in listed)
    caller = bearer(registry, token)
    caller.publish("n", "1.0.0")
    assert caller.versions("n") == ["1.0.0"]


def test_npm_8_7_who_signs_in_anew_may_still_send_an_old_token(signed: tuple[Registry, str, str]) -> None:
    registry, username, password = signed
    stale = bearer(registry, "rpm_" + "x" * 43)
    assert stale.ask("GET", "-/whoami").status_code == 401
    for given, expected in ((password, 201), ("wrong", 401)):
        body = {"_id": f"org.couchdb.user:{username}", "name": username, "password": given, "type": "user"}
        answer = stale.put(f"-/user/org.couchdb.user:{username}", body)
        assert answer.status_code == expected, answer.text


def test_npm_8_7_E7_a_wrong_password_is_401(signed: tuple[Registry, str, str]) -> None:
    registry, username, password = signed
    wrong, unknown = login(registry, username, password + "x"), login(registry, "nobody-of-that-name", password)
    refused(wrong, 401)
    refused(unknown, 401)
    assert wrong.json() == unknown.json()


@pytest.mark.parametrize(
    "body",
    [
        *({}, {"name": "x"}, {"name": "x", "password": "y"}, {"password": ""}, {"password": 7}, {"password": None}),
        *([], "x", None, {"password": "x", "name": 7}),
    ],
)
def test_npm_8_7_R1_a_login_without_a_password_is_refused(signed: tuple[Registry, str, str], body: Any) -> None:
    registry, username, _ = signed
    anyone = registry.as_other(registry.server.client())
    refused(anyone.put(f"-/user/org.couchdb.user:{username}", body), 400)
    assert anyone.ask("PUT", f"-/user/org.couchdb.user:{username}", content=b"{").status_code == 400
    assert anyone.ask("PUT", f"-/user/org.couchdb.user:{username}", content=b"x" * 70_000).status_code == 413


def test_E9_long_and_odd_passwords_cost_little(signed: tuple[Registry, str, str]) -> None:
    registry, username, password = signed
    for wrong in ("x" * 50_000, password + "\u00e9", "\U0001f512" * 20, password + " "):
        refused(login(registry, username, wrong), 401)


def test_npm_8_9_logout_revokes_the_token(signed: tuple[Registry, str, str]) -> None:
    registry, username, password = signed
    token = login(registry, username, password).json()["token"]
    other = login(registry, username, password).json()["token"]
    assert bearer(registry, token).ask("DELETE", f"-/user/token/{token}").status_code in (200, 204)
    refused(bearer(registry, token).get("-/whoami"), 401)
    assert bearer(registry, other).get("-/whoami").status_code == 200
    assert registry.ask("DELETE", "-/user/token/nothing").status_code in (200, 204)
    refused(registry.as_other(registry.server.client()).ask("DELETE", f"-/user/token/{other}"), 401)
    assert bearer(registry, other).get("-/whoami").status_code == 200


def test_K1_tokens_in_addresses_are_not_logged(embedded: Server) -> None:
    key = embedded.make_repository(format="npm")
    username, password = embedded.make_user(key, "maintainer")
    registry = Registry(embedded, embedded.client(username, password), key)
    token = login(registry, username, password).json()["token"]
    bearer(registry, token).ask("DELETE", f"-/user/token/{token}")
    registry.ask("DELETE", f"-/npm/v1/tokens/token/{token}")
    assert embedded.log is not None
    log = embedded.log.read_text()
    assert "-/user/token/" in log and token not in log and password not in log


def test_npm_8_10_whoami(signed: tuple[Registry, str, str]) -> None:
    registry, username, _ = signed
    assert registry.get("-/whoami").json() == {"username": username}
    refused(registry.as_other(registry.server.client()).get("-/whoami"), 401)


def test_npm_8_11_the_profile_is_read_only(signed: tuple[Registry, str, str]) -> None:
    registry, username, _ = signed
    assert registry.get("-/npm/v1/user").json()["name"] == username
    assert registry.ask("POST", "-/npm/v1/user", json={"email": "x"}).status_code in (404, 405, 501)
    refused(registry.as_other(registry.server.client()).get("-/npm/v1/user"), 401)


def test_npm_8_12_15_26_tokens_are_listed_in_pages(signed: tuple[Registry, str, str]) -> None:
    registry, username, password = signed
    assert registry.get("-/npm/v1/tokens").json() == {"objects": [], "total": 0, "urls": {}}
    secrets_made = [login(registry, username, password).json()["token"] for _ in range(3)]
    answer = registry.get("-/npm/v1/tokens?page=0&perPage=2")
    found = answer.json()
    assert found["total"] == 3 and len(found["objects"]) == 2
    assert not any(secret in answer.text for secret in secrets_made)
    item = found["objects"][0]
    assert item["key"] and item["token"] and item["created"].endswith("Z") and item["readonly"] is False
    assert "cidr_whitelist" in item
    last = registry.client.get(found["urls"]["next"]).json()
    assert len(last["objects"]) == 1 and last["urls"] == {}
    keys = {entry["key"] for entry in found["objects"] + last["objects"]}
    assert len(keys) == 3
    for query in ("page=-1", "perPage=x", "page=1e3", "perPage=99999999999999999999"):
        refused(registry.get(f"-/npm/v1/tokens?{query}"), 400)
    assert registry.get("-/npm/v1/tokens?page=9999&perPage=0").json()["objects"] == []


def test_npm_8_12_tokens_are_made_and_revoked(signed: tuple[Registry, str, str]) -> None:
    registry, _, password = signed
    registry.publish("n", "1.0.0")
    made = registry.ask("POST", "-/npm/v1/tokens", json={"password": password, "readonly": True, "cidr_whitelist": []})
    assert made.status_code in (200, 201), made.text
    token = made.json()
    assert token["readonly"] is True
    reader = bearer(registry, token["token"])
    assert reader.versions("n") == ["1.0.0"]
    refused(reader.put("-/package/n/dist-tags/t", "1.0.0"), 403)
    newer = {
        **{
            "password": password,
            "name": "ci",
            "description": "d",
            "expires": 7,
            "packages": [],
            "scopes": [],
            "orgs": [],
        },
        **{"packages_all": True, "packages_and_scopes_permission": "read-write", "bypass_2fa": False},
    }
    writer = registry.ask("POST", "-/npm/v1/tokens", json=newer).json()
    assert writer["name"] == "ci" and writer["readonly"] is False and writer["expiry"]
    assert bearer(registry, writer["token"]).put("-/package/n/dist-tags/t", "1.0.0").status_code == 201
    assert registry.ask("DELETE", f"-/npm/v1/tokens/token/{token['key']}").status_code == 204
    refused(reader.get("n"), 401)
    assert registry.ask("DELETE", f"-/npm/v1/tokens/token/{writer['token']}").status_code == 204
    refused(bearer(registry, writer["token"]).get("n"), 401)
    refused(registry.ask("DELETE", "-/npm/v1/tokens/token/0"), 404)


def test_npm_8_12_a_token_made_here_is_good_here_only(signed: tuple[Registry, str, str]) -> None:
    registry, username, password = signed
    server = registry.server
    made = registry.ask("POST", "-/npm/v1/tokens", json={"password": password}).json()["token"]
    elsewhere = server.make_repository(format="npm")
    server.admin.put(f"/api/v1/repositories/{elsewhere}/grants/{username}", json={"role": "maintainer"})
    registry.publish("n", "1.0.0")
    other = Registry(server, registry.client, elsewhere)
    other.publish("n", "1.0.0")
    assert bearer(registry, made).get("n").status_code == 200
    assert bearer(other, made).get("n").status_code in (403, 404)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"password": "wrong"}, 401),
        ({"password": None}, 401),
        ({"cidr_whitelist": ["10.0.0.0/8"]}, 400),
        ({"packages": ["n"]}, 400),
        ({"scopes": ["@s"]}, 400),
        ({"packages_and_scopes_permission": "no-access"}, 400),
        ({"expires": 0}, 400),
        ({"expires": True}, 400),
        ({"expires": 10**9}, 400),
        ({"name": "x" * 200}, 400),
        ({"name": ["x"]}, 400),
    ],
)
def test_npm_8_12_R9_what_cannot_be_promised_is_refused(
    signed: tuple[Registry, str, str], fields: dict[str, Any], status: int
) -> None:
    registry, _, password = signed
    refused(registry.ask("POST", "-/npm/v1/tokens", json={"password": password, **fields}), status)
    assert registry.get("-/npm/v1/tokens").json()["total"] == 0


def test_F1_tokens_of_others_are_neither_seen_nor_revoked(signed: tuple[Registry, str, str]) -> None:
    registry, username, password = signed
    token = login(registry, username, password).json()["token"]
    key = registry.get("-/npm/v1/tokens").json()["objects"][0]["key"]
    other = registry.as_role("maintainer")
    assert other.get("-/npm/v1/tokens").json()["total"] == 0
    for name in (key, token):
        refused(other.ask("DELETE", f"-/npm/v1/tokens/token/{name}"), 404)
    assert bearer(registry, token).get("-/whoami").status_code == 200
    anyone = registry.as_other(registry.server.client())
    for method, path in (
        ("GET", "-/npm/v1/tokens"),
        ("POST", "-/npm/v1/tokens"),
        ("DELETE", f"-/npm/v1/tokens/token/{key}"),
    ):
        answer = anyone.ask(method, path, json={"password": password}) if method == "POST" else anyone.ask(method, path)
        refused(answer, 401)


def test_E6_a_user_who_was_disabled_is_out(signed: tuple[Registry, str, str]) -> None:
    registry, username, password = signed
    token = login(registry, username, password).json()["token"]
    registry.server.admin.patch(f"/api/v1/users/{username}", json={"disabled": True})
    refused(bearer(registry, token).get("-/whoami"), 401)
    refused(login(registry, username, password), 401)
