"""Operators' commands about accounts and keys."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from repoman.access import registry_tokens, secrets
from repoman.access.authenticate import authenticate
from repoman.access.models import SigningKey
from repoman.blobs import store
from repoman.catalog.models import Repository
from repoman.core.actor import ALL_ACTIONS, Actor, system_actor
from repoman.core.errors import CredentialsInvalid
from repoman.core.records import NewFile, NewVersion, Publication
from repoman.events.models import Event
from repoman.services import publish

from .conftest import PASSWORD, Caller, basic


def run(*arguments: str, **options: Any) -> Any:
    out = io.StringIO()
    call_command(*arguments, "--json", stdout=out, **options)
    return json.loads(out.getvalue())


def test_create_user_and_reset_password(monkeypatch: pytest.MonkeyPatch) -> None:
    made = run("create_user", "eve", "--admin")
    assert made["is_admin"] and Caller(basic("eve", made["password"])).get("users/eve").status == 200
    with pytest.raises(CommandError, match="taken"):
        run("create_user", "eve")
    with pytest.raises(CommandError, match="reserved"):
        run("create_user", "api")
    monkeypatch.setattr("sys.stdin", io.StringIO(PASSWORD + "\n"))
    assert "password" not in run("create_user", "zoe", "--password-stdin")
    assert Caller(basic("zoe", PASSWORD)).get("users/zoe").status == 200
    changed = run("reset_password", "zoe")
    assert Caller(basic("zoe", PASSWORD)).get("users/zoe").status == 401
    assert Caller(basic("zoe", changed["password"])).get("users/zoe").status == 200
    with pytest.raises(CommandError, match="no user"):
        run("reset_password", "nobody-here")
    assert Event.objects.filter(kind="user:create", actor="system:create_user").count() == 2


def test_k3_rotate_keys_loses_no_token_and_no_secret(settings: Any) -> None:
    def sign_in(token: str) -> Actor:
        return authenticate(f"Bearer {token}", address="192.0.2.1", request_id="r")

    token = registry_tokens.issue(Actor(), {}).token
    old_secret = settings.SECRET_KEY
    with override_settings(SECRET_KEY="a new secret key, long enough 0123456789", SECRET_KEY_FALLBACKS=[old_secret]):
        assert run("rotate_keys")["secrets"] == 1
        assert sign_in(token).is_anonymous
        assert {row.secret_key_id for row in SigningKey.objects.all()} == {secrets.current_key_id()}
    run("rotate_keys", "--forget-old")
    with pytest.raises(CredentialsInvalid):
        sign_in(token)


def test_annotate_yanks_and_takes_it_back(admin: Caller, acme: str) -> None:
    admin.post("namespaces/acme/repositories", {"name": "python", "format": "pypi", "type": "local"})
    repository = Repository.objects.get(key="acme/python")
    publication = Publication(
        "demo",
        files=(NewFile("demo-1.0.tar.gz", store.stage(b"x")),),
        version=NewVersion("1.0", files=("demo-1.0.tar.gz",)),
    )
    publish.publish(repository, system_actor("test"), ALL_ACTIONS, publication)
    assert run("annotate", "acme/python", "demo", "1.0", "--yank", "broken")["yanked"]
    shown = admin.get("repositories/acme/python/versions?package=demo").json["items"]
    assert [item["yanked"] for item in shown] == [True]
    run("annotate", "acme/python", "demo", "1.0", "--unyank")
    assert not admin.get("repositories/acme/python/versions?package=demo").json["items"][0]["yanked"]
    for arguments, match in (
        (("acme/missing", "demo", "1.0", "--unyank"), "no repository"),
        (("acme/python", "demo", "2.0", "--unyank"), "no version"),
        (("acme/python", "other", "1.0", "--unyank"), "no package"),
        (("acme/python", "demo", "1.0", "--deprecate", "old"), "no 'deprecated'"),
    ):
        with pytest.raises(CommandError, match=match):
            run("annotate", *arguments)
