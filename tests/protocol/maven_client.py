"""A small client for Maven repositories in tests: every request is visible, and nothing is retried."""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote
from xml.etree.ElementTree import Element

import httpx

from formats.maven import samples
from formats.maven.samples import Coordinates
from tests.running import Server

from .caller import Caller, plain

METADATA = "maven-metadata.xml"
DEMO = Coordinates()
SUMS = ("md5", "sha1", "sha256", "sha512")


class Maven(Caller):
    """One Maven repository, as one caller. Paths are plain text; `raw` sends a request target as it is."""

    prefix = "maven"

    def ask(self, method: str, path: str, *, query: str = "", **more: Any) -> httpx.Response:
        return self.client.request(method, self.base + quote(path, safe="/+$") + query, **more)

    def get(self, path: str, method: str = "GET", **headers: str) -> httpx.Response:
        return self.ask(method, path, headers=plain(headers))

    def put(self, path: str, data: Any, **headers: str) -> httpx.Response:
        return self.ask("PUT", path, content=data, headers=plain(headers))

    def delete(self, path: str) -> httpx.Response:
        return self.ask("DELETE", path)

    # deploying

    def put_all(self, files: Mapping[str, bytes], *, sums: Iterable[str] = ("sha1", "md5")) -> None:
        """Each file, then its checksums, as clients do it."""
        for path, data in files.items():
            self.created(self.put(path, data))
            for algorithm in sums:
                self.created(self.put(f"{path}.{algorithm}", hashlib.new(algorithm, data).hexdigest().encode()))

    def deploy(
        self,
        at: Coordinates,
        *,
        text: str = "hello",
        build: str = "",
        packaging: str = "jar",
        says_whole: bool = True,
        more: Mapping[str, bytes] | None = None,
    ) -> dict[str, bytes]:
        """A whole deploy: files, sums, and the metadata that name them. Returns the files."""
        files = {at.path("pom", build=build): samples.pom(at, packaging=packaging)}
        if packaging != "pom":
            files[at.path(build=build)] = samples.jar(text)
        files.update(more or {})
        self.put_all(files)
        if says_whole:
            if build:
                self.put_all({f"{at.folder()}/{METADATA}": samples.snapshot_metadata(at, build)})
            self.put_all({at.metadata: samples.metadata(at, [at.version])})
        return files

    # what is shown

    def metadata(self, folder: str) -> Element:
        answer = self.get(f"{folder}/{METADATA}")
        assert answer.status_code == 200, f"{folder}: {answer.status_code} {answer.text}"
        return ElementTree.fromstring(answer.content)

    def versions(self, at: Coordinates = DEMO) -> list[str]:
        """As the artifact's metadata list them; none where there are none."""
        answer = self.get(at.metadata)
        if answer.status_code == 404:
            return []
        assert answer.status_code == 200, answer.text
        found = ElementTree.fromstring(answer.content)
        return [each.text or "" for each in found.iterfind("versioning/versions/version")]

    def builds(self, at: Coordinates) -> dict[tuple[str, str], str]:
        """Of a snapshot: (classifier, extension) → value."""
        return {
            (each.findtext("classifier") or "", each.findtext("extension") or ""): each.findtext("value") or ""
            for each in self.metadata(at.folder()).iterfind("versioning/snapshotVersions/snapshotVersion")
        }

    def prefixes(self, folder: str) -> dict[str, str]:
        """Of a group: plugin's prefix → artifact."""
        return {
            each.findtext("prefix") or "": each.findtext("artifactId") or ""
            for each in self.metadata(folder).iterfind("plugins/plugin")
        }

    @staticmethod
    def created(answer: httpx.Response) -> None:
        assert answer.status_code == 201, f"{answer.request.url}: {answer.status_code} {answer.text}"


def new_maven(server: Server, role: str = "maintainer", **fields: Any) -> Maven:
    key = server.make_repository(format="maven", **fields)
    return Maven(server, server.member(key, role), key)


def refused(answer: httpx.Response, status: int, code: str, words: str = "") -> None:
    """RFC 9457, and the same sentence as the reason phrase (R1 to R3)."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    found = answer.json()
    assert (answer.status_code, found["status"], found["code"]) == (status, status, code), answer.text
    assert found["title"]
    _says(answer, found["detail"], words)


def missing(answer: httpx.Response, words: str = "") -> None:
    """404 in plain text, which no client takes for anything but "not here" (U3)."""
    assert answer.status_code == 404, answer.text
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    _says(answer, answer.text.removesuffix("\n"), words)


def _says(answer: httpx.Response, sentence: str, words: str) -> None:
    assert sentence and words in sentence, answer.text
    reason = answer.extensions["reason_phrase"].decode("latin-1")
    assert reason == " ".join(sentence.split()).encode("latin-1", "replace").decode("latin-1")[:400]
    assert "Traceback" not in answer.text and answer.headers["x-request-id"]


def summed(data: bytes, algorithm: str) -> str:
    return hashlib.new(algorithm, data).hexdigest()
