"""The API through Django's test client: no server, but the real database, services and store."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import argon2
import pytest
from django.test import Client

from repoman.access import epoch, passwords
from repoman.blobs import store
from repoman.blobs.drivers.filesystem import FilesystemDriver
from repoman.core.actor import system_actor
from repoman.services import accounts

PASSWORD = "a long enough password"
_numbers = itertools.count(1)


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def code(self) -> str:
        """The problem's stable code; fails unless this is a complete problem document."""
        assert self.headers["Content-Type"] == "application/problem+json", self.content
        problem = self.json
        assert problem["status"] == self.status and problem["request_id"] and problem["detail"] and problem["title"]
        return str(problem["code"])


@dataclass
class Caller:
    """One who calls. `credentials` is the Authorization header, None for nobody."""

    credentials: str | None = None
    name: str = ""
    client: Client = field(default_factory=lambda: Client(raise_request_exception=False))

    def send(self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, **headers: str) -> Answer:
        more: dict[str, Any] = {}
        if self.credentials is not None:
            more["HTTP_AUTHORIZATION"] = self.credentials
        content_type = headers.pop("content_type", "application/json" if body is not None or raw is not None else "")
        data = raw if raw is not None else json.dumps(body).encode() if body is not None else b""
        if content_type:
            more["content_type"] = content_type
        response = self.client.generic(method, f"/api/v1/{path}", data, **more, **headers)
        return Answer(response.status_code, response.headers, response.content)

    def get(self, path: str, **headers: str) -> Answer:
        return self.send("GET", path, **headers)

    def post(self, path: str, body: Any = None) -> Answer:
        return self.send("POST", path, {} if body is None else body)

    def put(self, path: str, body: Any) -> Answer:
        return self.send("PUT", path, body)

    def patch(self, path: str, body: Any) -> Answer:
        return self.send("PATCH", path, body)

    def delete(self, path: str) -> Answer:
        return self.send("DELETE", path)

    def token(self, **fields: Any) -> Caller:
        made = self.post("tokens", {"name": f"token-{next(_numbers)}", **fields})
        assert made.status == 201, made.content
        return Caller(f"Bearer {made.json['token']}", self.name)


def basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


@pytest.fixture(autouse=True, scope="session")
def cheap_passwords() -> Iterator[None]:
    """The same algorithm with little work, since hundreds of callers sign in here."""
    real = passwords._hasher
    passwords._hasher = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    passwords._nobody.cache_clear()
    yield
    passwords._hasher = real
    passwords._nobody.cache_clear()


@pytest.fixture(autouse=True)
def prepared(db: None, tmp_path: Path) -> Iterator[None]:
    epoch.ensure()
    driver = FilesystemDriver(str(tmp_path / "blobs"))
    driver.initialise("test")
    store.set_driver(driver)
    yield
    store.set_driver(None)


@pytest.fixture
def make_user() -> Any:
    def make(username: str, **more: Any) -> Caller:
        accounts.create_user(system_actor("test"), username=username, password=PASSWORD, **more)
        return Caller(basic(username, PASSWORD), username)

    return make


@pytest.fixture
def admin(make_user: Any) -> Caller:
    caller: Caller = make_user("admin", is_admin=True)
    return caller


@pytest.fixture
def ada(make_user: Any) -> Caller:
    """A user without any role."""
    caller: Caller = make_user("ada")
    return caller


@pytest.fixture
def nobody() -> Caller:
    return Caller()


@pytest.fixture
def acme(admin: Caller) -> str:
    """A namespace of the administrator's."""
    assert admin.post("namespaces", {"name": "acme"}).status == 201
    return "acme"


@pytest.fixture
def images(admin: Caller, acme: str) -> str:
    made = admin.post(f"namespaces/{acme}/repositories", {"name": "images", "format": "oci", "type": "local"})
    assert made.status == 201, made.content
    return f"{acme}/images"


@pytest.fixture
def raw(admin: Caller, acme: str) -> str:
    made = admin.post(f"namespaces/{acme}/repositories", {"name": "stuff", "format": "generic", "type": "local"})
    assert made.status == 201, made.content
    return f"{acme}/stuff"
