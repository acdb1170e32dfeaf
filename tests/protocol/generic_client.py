"""A small client for generic repositories in tests."""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import quote

import httpx

from tests.running import Server

from .caller import Caller, plain


class Files(Caller):
    """One generic repository, as one caller. Paths are plain text; `raw` sends a request target as it is."""

    prefix = "generic"

    def ask(self, method: str, path: str, *, query: str = "", **more: Any) -> httpx.Response:
        return self.client.request(method, self.base + quote(path) + query, **more)

    def put(self, path: str, data: bytes, **headers: str) -> httpx.Response:
        return self.ask("PUT", path, content=data, headers=plain(headers))

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.ask("GET", path, headers=plain(headers))


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
