"""A small client for npm repositories in tests: requests as npm, pnpm and Yarn send them."""

from __future__ import annotations

import http.client
from typing import Any

import httpx

from formats.npm import samples
from tests.running import Server

INSTALL_TYPE = "application/vnd.npm.install-v1+json"
INSTALL = f"{INSTALL_TYPE}; q=1.0, application/json; q=0.8, */*"


class Registry:
    """One npm repository, as one caller. Names are written as npm writes them, `@scope%2fname`."""

    def __init__(self, server: Server, client: httpx.Client, key: str) -> None:
        self.server, self.client, self.key = server, client, key
        self.base = f"/npm/{key}/"

    @property
    def url(self) -> str:
        return self.server.url + self.base

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self.client.request(method, self.base + path, **more)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.ask("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

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

    def as_other(self, client: httpx.Client) -> Registry:
        return Registry(self.server, client, self.key)

    def as_role(self, role: str) -> Registry:
        return self.as_other(self.server.user(self.key, role))

    def raw(self, method: str, target: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        """Status and body for a request target that no library would send."""
        connection = http.client.HTTPConnection(self.server.host, timeout=60)
        connection.putrequest(method, self.base + target, skip_accept_encoding=True)
        request = self.client.build_request(method, "/")
        if self.client.auth is not None:
            request = next(self.client.auth.auth_flow(request))
            connection.putheader("Authorization", request.headers["authorization"])
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        if body and "content_length" not in headers:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        try:
            return answer.status, answer.read()
        finally:
            connection.close()


def escaped(name: str) -> str:
    return name.replace("/", "%2f")


def new_registry(server: Server, role: str = "maintainer", **fields: Any) -> Registry:
    key = server.make_repository(format="npm", **fields)
    return Registry(server, server.user(key, role), key)


def refused(answer: httpx.Response, status: int, text: str = "") -> None:
    """Contract 1.1: the sentence under both keys, as JSON."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()
    assert found["error"] == found["message"] and text in found["error"], found
