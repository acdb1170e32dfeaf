"""A small client for npm repositories in tests: requests as npm, pnpm and Yarn send them."""

from __future__ import annotations

from typing import Any

import httpx

from formats.npm import samples
from tests.running import Server

from .caller import Caller, plain

INSTALL_TYPE = "application/vnd.npm.install-v1+json"
INSTALL = f"{INSTALL_TYPE}; q=1.0, application/json; q=0.8, */*"


class Registry(Caller):
    """One npm repository, as one caller. Names are written as npm writes them, `@scope%2fname`."""

    prefix = "npm"

    @property
    def url(self) -> str:
        return self.server.url + self.base

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self.client.request(method, self.base + path, **more)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.ask("GET", path, headers=plain(headers))

    def put(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return self.ask("PUT", path, json=body, **more)

    def publish(self, name: str, version: str, *, tag: str | None = "latest", **fields: Any) -> bytes:
        """Publish a sample, which must succeed. Returns the tarball."""
        document, data = samples.publication(name, version, tag=tag, **fields)
        answer = self.put(escaped(name), document)
        assert answer.status_code == 201, answer.text
        return data

    def packument(self, name: str, **headers: str) -> dict[str, Any]:
        answer = self.get(escaped(name), **headers)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def versions(self, name: str) -> list[str]:
        return list(self.packument(name)["versions"])

    def tags(self, name: str) -> dict[str, str]:
        found: dict[str, str] = self.get(f"-/package/{escaped(name)}/dist-tags").json()
        return found

    def as_role(self, role: str) -> Registry:
        return self.as_other(self.server.user(self.key, role))


def escaped(name: str) -> str:
    return name.replace("/", "%2f")


def new_registry(server: Server, role: str = "maintainer", **fields: Any) -> Registry:
    key = server.make_repository(format="npm", **fields)
    return Registry(server, server.member(key, role), key)


def refused(answer: httpx.Response, status: int, text: str = "") -> None:
    """Contract 1.1: the sentence under both keys, as JSON."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()
    assert found["error"] == found["message"] and text in found["error"], found
