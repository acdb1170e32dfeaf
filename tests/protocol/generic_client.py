"""A small client for generic repositories in tests."""

from __future__ import annotations

import hashlib
import http.client
from typing import Any
from urllib.parse import quote

import httpx

from tests.running import Server


class Files:
    """One generic repository, as one caller. Paths are plain text; `raw` sends a request target as it is."""

    def __init__(self, server: Server, client: httpx.Client, key: str) -> None:
        self.server, self.client, self.key = server, client, key
        self.base = f"/generic/{key}/"

    def ask(self, method: str, path: str, *, query: str = "", **more: Any) -> httpx.Response:
        return self.client.request(method, self.base + quote(path) + query, **more)

    def put(self, path: str, data: bytes, **headers: str) -> httpx.Response:
        return self.ask("PUT", path, content=data, headers={name.replace("_", "-"): v for name, v in headers.items()})

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.ask("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def as_other(self, client: httpx.Client) -> Files:
        return Files(self.server, client, self.key)

    def raw(self, method: str, target: str, **headers: str) -> tuple[int, bytes]:
        """Status and body for a request target that no library would send."""
        connection = http.client.HTTPConnection(self.server.host, timeout=20)
        connection.putrequest(method, self.base + target, skip_accept_encoding=True)
        request = self.client.build_request(method, "/")
        auth = self.client.auth
        if auth is not None:
            request = next(auth.auth_flow(request))
            connection.putheader("Authorization", request.headers["authorization"])
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        try:
            return answer.status, answer.read()
        finally:
            connection.close()


def new_files(server: Server, role: str = "maintainer", **fields: Any) -> Files:
    key = server.make_repository(format="generic", **fields)
    return Files(server, server.user(key, role), key)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def refused(answer: httpx.Response, status: int, code: str) -> None:
    """RFC 9457, with this code."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    found = answer.json()
    assert (answer.status_code, found["status"], found["code"]) == (status, status, code), answer.text
    assert found["title"] and found["detail"]
