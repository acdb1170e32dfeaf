"""A small registry client for tests: every request is visible, nothing is retried."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx

from formats.oci.samples import Sample
from repoman.core.digest import Digest
from tests.running import Server


class Image:
    """One image of one repository, as one caller. Paths are relative to `/v2/<key>/<name>`."""

    def __init__(self, client: httpx.Client, key: str, name: str = "app") -> None:
        self.client, self.key, self.name = client, key, name
        self.base = f"/v2/{key}/{name}"

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """`path` may be a Location the server gave."""
        return self.client.request(method, path if path.startswith("/v2/") else self.base + path, **more)

    def start(self, query: str = "") -> str:
        """Open a session and return its address."""
        answer = self.ask("POST", f"/blobs/uploads/{query}")
        assert answer.status_code == 202, answer.text
        return answer.headers["location"]

    def push_blob(self, data: bytes, algorithm: str = "sha256") -> str:
        digest = str(Digest.of(data, algorithm))
        answer = self.ask("POST", f"/blobs/uploads/?digest={digest}", content=data)
        assert answer.status_code == 201, answer.text
        return digest

    def push_parts(self, sample: Sample) -> None:
        for digest, data in sample.blobs.items():
            self.push_blob(data, digest.partition(":")[0])
        for child in sample.children:
            assert self.push(child).status_code == 201

    def put(self, sample: Sample, reference: str = "", query: str = "") -> httpx.Response:
        return self.ask(
            "PUT",
            f"/manifests/{reference or sample.digest}{query}",
            content=sample.manifest,
            headers={"Content-Type": sample.media_type},
        )

    def push(self, sample: Sample, reference: str = "", query: str = "") -> httpx.Response:
        self.push_parts(sample)
        return self.put(sample, reference, query)

    def as_other(self, client: httpx.Client) -> Image:
        return Image(client, self.key, self.name)


def new_image(server: Server, role: str = "maintainer", name: str = "app", **fields: Any) -> Image:
    """An image in a fresh repository, as a user with that role."""
    key = server.make_repository(format="oci", **fields)
    return Image(server.user(key, role), key, name)


def code_of(answer: httpx.Response) -> str:
    """The code of the first error, after the envelope has been checked."""
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["docker-distribution-api-version"] == "registry/2.0"
    found = answer.json()["errors"]
    assert found and all(item["code"].replace("_", "").isupper() and item["message"] for item in found)
    return str(found[0]["code"])


def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, code_of(answer)) == (status, code), answer.text


def in_chunks(data: bytes, size: int = 1000) -> Iterator[bytes]:
    """A body without a declared length."""
    for start in range(0, len(data), size):
        yield data[start : start + size]
