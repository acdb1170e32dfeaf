"""Small upstreams and remotes of them, for tests of what remotes do when an upstream does not do its part."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.running import NO_TLS, Server
from tests.tools.upstream import Answer, Upstream

ALLOW = {"REPOMAN_UPSTREAM_ALLOW": "127.0.0.0/8"}
PAGE = "application/vnd.pypi.simple.v1+json"
QUICK = {"connect_timeout": 1, "read_timeout": 1}


def until(condition: Callable[[], Any], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


@dataclass
class Project:
    """A PyPI project with one file, as an upstream shows it. `path` is the page's, `file_path` the file's."""

    upstream: Upstream
    name: str
    content: bytes = field(default_factory=lambda: os.urandom(3000))
    version: str = "1.0"

    @property
    def file(self) -> str:
        return f"{self.name}-{self.version}.tar.gz"

    @property
    def path(self) -> str:
        return f"/simple/{self.name}/"

    @property
    def file_path(self) -> str:
        return f"/files/{self.file}"

    @property
    def page(self) -> Answer:
        listed = {
            "filename": self.file,
            "url": self.upstream.url(self.file_path),
            "hashes": {"sha256": hashlib.sha256(self.content).hexdigest()},
            "size": len(self.content),
        }
        document = {"meta": {"api-version": "1.1"}, "name": self.name, "versions": [self.version], "files": [listed]}
        body = json.dumps(document).encode()
        return Answer(body, media_type=PAGE, etag=f'"{hashlib.sha256(body).hexdigest()[:8]}"')

    @property
    def answer(self) -> Answer:
        return Answer(self.content)

    def serve(self, page: Answer | None = None, answer: Answer | None = None) -> None:
        self.upstream.add(self.path, page or self.page)
        self.upstream.add(self.file_path, answer or self.answer)


@dataclass
class Remote:
    """A remote repository and somebody who reads it."""

    server: Server
    key: str
    format: str

    @classmethod
    def of(
        cls, server: Server, upstream: Upstream | str, format: str = "generic", namespace: str = "", **remote: Any
    ) -> Remote:
        base = upstream if isinstance(upstream, str) else upstream.url("/simple/" if format == "pypi" else "/")
        settings = {"url": base, **remote}
        key = server.make_repository(namespace, format=format, type="remote", anonymous_read=True, remote=settings)
        return cls(server, key, format)

    def url(self, path: str) -> str:
        return f"{self.server.url}/{self.format}/{self.key}/{path}"

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(self.url(path), headers=headers, timeout=60, verify=NO_TLS)

    def head(self, path: str) -> httpx.Response:
        return httpx.head(self.url(path), timeout=60, verify=NO_TLS)

    def page(self, project: Project | str) -> httpx.Response:
        name = project if isinstance(project, str) else project.name
        return self.get(f"simple/{name}/", Accept=PAGE)

    def file(self, project: Project) -> httpx.Response:
        """The file as a client finds it: by the address that the page gives."""
        return self.get(f"files/{project.name}/{project.file}")

    def change(self, **remote: Any) -> None:
        answer = self.server.admin.patch(f"/api/v1/repositories/{self.key}", json={"remote": remote})
        assert answer.status_code == 200, answer.text

    def shown(self) -> dict[str, Any]:
        found: dict[str, Any] = self.server.admin.get(f"/api/v1/repositories/{self.key}").json()
        return found

    def kept(self) -> list[str]:
        """Names of all files that the repository holds."""
        names: list[str] = []
        for package in self.server.admin.get(f"/api/v1/repositories/{self.key}/packages").json()["items"]:
            found = self.server.admin.get(f"/api/v1/repositories/{self.key}/files", params={"package": package["name"]})
            names += [item["name"] for item in found.json()["items"]]
        return names

    def used(self) -> int:
        namespace = self.key.partition("/")[0]
        return int(self.server.admin.get(f"/api/v1/namespaces/{namespace}").json()["used_bytes"])


def is_stale(answer: httpx.Response) -> bool:
    told = answer.headers.get("cache-status", "")
    return "detail=stale-if-error" in told and "; hit; ttl=-" in told
