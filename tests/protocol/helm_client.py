"""A small client for chart repositories in tests."""

from __future__ import annotations

import json
from typing import Any

import httpx

from formats.helm import samples
from tests.running import Server

from .caller import Caller, plain


class Charts(Caller):
    """One chart repository, as one caller."""

    prefix = "helm"

    # reading

    def get(self, path: str, method: str = "GET", **headers: str) -> httpx.Response:
        return self.client.request(method, self.base + path, headers=plain(headers))

    def index(self) -> dict[str, Any]:
        answer = self.get("index.yaml", Accept_Encoding="identity")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = json.loads(answer.content)
        return found

    def versions(self, name: str = "demo") -> list[str]:
        return [entry["version"] for entry in self.index()["entries"].get(name, [])]

    def entry(self, name: str = "demo", version: str = "1.0.0") -> dict[str, Any]:
        (found,) = [entry for entry in self.index()["entries"][name] if entry["version"] == version]
        return found

    # writing

    def post(self, data: bytes, to: str = "api/charts", content_type: str = "application/gzip") -> httpx.Response:
        return self.client.post(self.base + to, content=data, headers={"Content-Type": content_type})

    def form(self, to: str = "api/charts", **files: tuple[str, bytes] | bytes) -> httpx.Response:
        """A form whose files have names as curl gives them."""
        parts = {name: given if isinstance(given, tuple) else (f"{name}.bin", given) for name, given in files.items()}
        return self.client.post(self.base + to, files=parts)

    def put(self, path: str, data: bytes) -> httpx.Response:
        return self.client.put(self.base + path, content=data)

    def publish(self, name: str = "demo", version: str = "1.0.0", **fields: Any) -> bytes:
        data = samples.chart(name, version, **fields)
        saved(self.post(data))
        return data

    def delete(self, name: str, version: str) -> httpx.Response:
        return self.client.delete(f"{self.base}api/charts/{name}/{version}")


def new_charts(server: Server, role: str = "maintainer", **fields: Any) -> Charts:
    key = server.make_repository(format="helm", **fields)
    return Charts(server, server.member(key, role), key)


def saved(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()) == (201, {"saved": True}), f"{answer.status_code} {answer.text}"


def refused(answer: httpx.Response, status: int, words: str = "") -> None:
    """ChartMuseum's error, with the sentence in it."""
    assert answer.status_code == status, f"{answer.status_code} {answer.text}"
    assert answer.headers["content-type"] == "application/json"
    assert isinstance(answer.json()["error"], str) and words in answer.text, answer.text
    assert "Traceback" not in answer.text and answer.headers["x-request-id"]
