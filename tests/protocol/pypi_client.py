"""A small client for PyPI repositories in tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from formats.pypi.listing import SIMPLE_HTML, SIMPLE_JSON
from formats.pypi.samples import Sample
from tests.running import Server

from .caller import Caller, plain

BOUNDARY = "frontier-between-parts"
Fields = Sequence[tuple[str, str | bytes]]


class Index(Caller):
    """One PyPI repository, as one caller."""

    prefix = "pypi"

    # reading

    def get(self, path: str, method: str = "GET", **headers: str) -> httpx.Response:
        return self.client.request(method, self.base + path, headers=plain(headers))

    def page(self, project: str) -> dict[str, Any]:
        answer = self.get(f"simple/{project}/", Accept=SIMPLE_JSON)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def names(self, project: str) -> list[str]:
        return [item["filename"] for item in self.page(project)["files"]]

    def html(self, project: str) -> str:
        answer = self.get(f"simple/{project}/", Accept=SIMPLE_HTML)
        assert answer.status_code == 200, answer.text
        return answer.text

    def file(self, sample: Sample, suffix: str = "", method: str = "GET", **headers: str) -> httpx.Response:
        return self.get(f"files/{project_of(sample)}/{sample.filename}{suffix}", method, **headers)

    # writing

    def upload(self, sample: Sample, *, to: str = "", **changed: Any) -> httpx.Response:
        """As a client does it. A field that is None is left out; `filename` and `data` replace the sample's."""
        body = form(sample, **changed)
        return self.post(body, to=to)

    def post(self, body: bytes, *, to: str = "", content_type: str = "", **headers: str) -> httpx.Response:
        kind = content_type or f"multipart/form-data; boundary={BOUNDARY}"
        return self.client.post(self.base + to, content=body, headers={"Content-Type": kind, **headers})

    def publish(self, *samples: Sample) -> None:
        for sample in samples:
            answer = self.upload(sample)
            assert answer.status_code == 200, answer.text

    def yank(self, project: str, version: str, **changes: Any) -> httpx.Response:
        return self.client.patch(
            f"/api/v1/repositories/{self.key}/versions",
            params={"package": project, "version": version},
            json={"yanked": True, **changes},
        )

    def remove_file(self, sample: Sample, name: str = "") -> httpx.Response:
        return self.client.delete(
            f"/api/v1/repositories/{self.key}/files",
            params={"package": project_of(sample), "version": sample.version, "name": name or sample.filename},
        )


def project_of(sample: Sample) -> str:
    return sample.name.lower().replace("_", "-").replace(".", "-")


def fields_of(sample: Sample, **changed: Any) -> list[tuple[str, str | bytes]]:
    known: dict[str, Any] = {
        ":action": "file_upload",
        "protocol_version": "1",
        "name": sample.name,
        "version": sample.version,
        "filetype": sample.kind,
        "sha256_digest": sample.sha256,
        "metadata_version": "2.4",
        "summary": "A sample.",
    }
    known.update({key.replace("action", ":action"): value for key, value in changed.items()})
    found: list[tuple[str, str | bytes]] = []
    for name, value in known.items():
        for text in value if isinstance(value, list) else [value]:
            if text is not None:
                found.append((name, text))
    return found


def form(
    sample: Sample, *, filename: str = "", data: bytes | None = None, file_first: bool = False, **changed: Any
) -> bytes:
    fields = [part(name, value) for name, value in fields_of(sample, **changed)]
    content = part("content", sample.data if data is None else data, filename or sample.filename)
    return whole([content, *fields] if file_first else [*fields, content])


def part(name: str, value: str | bytes, filename: str = "", more: Mapping[str, str] | None = None) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    head = f'Content-Disposition: form-data; name="{name}"'
    if filename:
        head += f'; filename="{filename}"'
    for header, text in (more or {}).items():
        head += f"\r\n{header}: {text}"
    return f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + data + b"\r\n"


def whole(parts: Sequence[bytes]) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def new_index(server: Server, role: str = "maintainer", **fields: Any) -> Index:
    key = server.make_repository(format="pypi", **fields)
    return Index(server, server.member(key, role), key)


def refused(answer: httpx.Response, status: int, words: str = "") -> None:
    """One sentence, in the body and as the reason phrase."""
    assert answer.status_code == status, f"{answer.status_code} {answer.text}"
    assert answer.headers["content-type"].startswith("text/plain"), answer.text
    assert words in answer.text, answer.text
    reason = answer.extensions["reason_phrase"].decode("latin-1")
    assert reason == answer.text.strip().encode("latin-1", "replace").decode("latin-1")[:400]
    assert "Traceback" not in answer.text and "request-id" not in answer.text
    assert answer.headers["x-request-id"]
