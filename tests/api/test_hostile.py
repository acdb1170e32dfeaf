"""Bodies, headers and methods that no honest client sends: 4xx as a problem document, never a 5xx."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from django.db import OperationalError

from repoman.catalog.models import Namespace
from repoman.services import accounts

from .conftest import Answer, Caller, basic


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b'"name"',
        b'{"name": "beta", "name": "gamma"}',
        b'{"name": NaN}',
        b'{"name": "beta", "quota_bytes": Infinity}',
        b'{"name": "beta", "quota_bytes": ' + b"9" * 100_000 + b"}",
        b'{"name": "beta", "quota_bytes": 1e400}',
        b'{"name": "be\\u0000ta"}',
        b'{"name": "beta", "description": "\\ud800"}',
        b'{"name": "beta", "description": "\\u0007"}',
        b'{"name": "beta", "description": "\xff"}',
        b'{"name": "\xc0\xaf"}',
        b'{"name": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"name": {"a": ' * 30 + b"1" + b"}" * 60,
        b'{"name": ["beta"]}',
        b'{"name": null}',
        b'{"name": "beta", "description": 7}',
        b'{"name": "beta", "description": {}}',
        b"\xff\xfe{\x00}\x00",
        b"name=beta",
    ],
)
def test_b7_json_that_is_broken_deep_or_ambiguous_is_refused(admin: Caller, raw: bytes) -> None:
    answer = admin.send("POST", "namespaces", raw=raw)
    assert answer.status == 400 and answer.code
    assert not Namespace.objects.exists()


def test_b7_bodies_are_bounded(admin: Caller) -> None:
    answer = admin.send("POST", "namespaces", raw=b'{"name": "beta", "description": "' + b"x" * 300_000 + b'"}')
    assert answer.status == 413 and answer.code == "too_large"
    assert admin.post("namespaces", {"name": "beta", "description": "x" * 10_001}).status == 400


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "x", "application/xml"],
)
def test_bodies_must_say_that_they_are_json(admin: Caller, content_type: str) -> None:
    answer = admin.send("POST", "namespaces", raw=b'{"name": "beta"}', content_type=content_type)
    assert answer.status in (400, 415) and answer.code
    charset = admin.send("POST", "namespaces", raw=b'{"name": "beta"}', content_type="application/json; charset=utf-8")
    assert charset.status == 201


def test_i6_unknown_methods_are_405_and_override_headers_are_ignored(admin: Caller, nobody: Caller, acme: str) -> None:
    for method in ("TRACE", "OPTIONS", "CONNECT", "PROPFIND", "POST", "PUT"):
        answer = admin.send(method, "namespaces/acme")
        assert answer.status == 405 and answer.code == "method_not_allowed", method
        assert answer.headers["Allow"]
    answer = admin.send("GET", "namespaces/acme", HTTP_X_HTTP_METHOD_OVERRIDE="DELETE", HTTP_X_METHOD="DELETE")
    assert answer.status == 200 and Namespace.objects.exists()
    head = admin.send("HEAD", "namespaces/acme")
    assert head.status == 200 and head.content == b""


def test_accept_changes_nothing(admin: Caller, nobody: Caller) -> None:
    for accept in ("text/html", "application/xml", "*/*;q=0", "nonsense"):
        assert admin.get("users", HTTP_ACCEPT=accept).headers["Content-Type"] == "application/json"
        assert nobody.get("users", HTTP_ACCEPT=accept).code == "authentication_required"
    assert admin.get("users?format=api").status == 400


@pytest.mark.parametrize(
    "path",
    [
        "",
        "nothing",
        "users/",
        "users/a/b",
        "../users",
        "%2e%2e/users",
        "users/%00",
        "users/a%0ab",
        "repositories/a%2fb/c",
        "jobs/x",
        "jobs/-1",
        "tokens/" + "9" * 30,
    ],
)
def test_a1_a3_addresses_of_nothing_are_404_problems(admin: Caller, path: str) -> None:
    answer = admin.get(path)
    assert answer.status == 404 and answer.code


@pytest.mark.parametrize(
    "credentials",
    ["Basic", "Basic ::::", "Bearer \x07", "Negotiate abc", basic("admin", "wrong password"), "Basic " + "A" * 20_000],
)
def test_wrong_credentials_are_never_anonymous(nobody: Caller, admin: Caller, raw: str, credentials: str) -> None:
    admin.patch(f"repositories/{raw}", {"anonymous_read": True})
    assert nobody.get(f"repositories/{raw}").status == 200
    answer = Caller(credentials).get(f"repositories/{raw}")
    assert answer.status == 401 and answer.code == "credentials_invalid"
    assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")


def test_e8_guessing_through_the_api_is_slowed(admin: Caller) -> None:
    answers: list[Answer] = [Caller(basic("admin", f"guess number {number}")).get("users") for number in range(12)]
    assert {answer.status for answer in answers[:10]} == {401} and answers[-1].status == 429
    assert answers[-1].code == "too_many_requests" and int(answers[-1].headers["Retry-After"]) >= 1


def test_r2_failures_of_the_inside_show_nothing_of_it(
    admin: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("/var/secret/path SELECT * FROM access_token")

    monkeypatch.setattr(accounts, "users", explode)
    with caplog.at_level(logging.ERROR):
        answer = admin.get("users")
    assert answer.status == 500 and answer.code == "internal"
    assert b"secret" not in answer.content and b"SELECT" not in answer.content and b"Traceback" not in answer.content
    assert any("api_failed" in record.message for record in caplog.records)

    def gone(*_: Any, **__: Any) -> None:
        raise OperationalError("connection to server at 10.0.0.7 failed")

    monkeypatch.setattr(accounts, "users", gone)
    answer = admin.get("users")
    assert answer.status == 503 and answer.code == "unavailable" and answer.headers["Retry-After"]
    assert b"10.0.0.7" not in answer.content


def test_answers_are_not_kept_by_caches(admin: Caller, nobody: Caller) -> None:
    for answer in (admin.get("users"), nobody.get("users"), admin.get("missing")):
        assert "no-store" in answer.headers["Cache-Control"]
        json.loads(answer.content)
