"""How releases of each format are made, published, read and listed: what differs between them, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import httpx

from formats.helm import samples as helm
from formats.maven import samples as maven
from formats.npm import samples as npm
from formats.npm.listing import INSTALL_TYPE
from formats.pypi import samples as pypi
from formats.pypi.listing import SIMPLE_JSON
from tests.protocol.pypi_client import BOUNDARY, form

from .model import Release, content

LARGEST = 60_000
Get = Callable[..., httpx.Response]
Judge = Callable[[bytes], bool]
# (version, file) → (whether bytes have the digest that is listed, what is noted about the version)
Listed = dict[tuple[str, str], tuple[Judge, str | None]]


@dataclass(frozen=True)
class Upload:
    """One content of a file, and the request that publishes it."""

    data: bytes
    method: str
    path: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return sha256(self.data)


class Kind(ABC):
    """`packages`: what all clients publish to. `refused`: the answer to other content under a name that is taken.
    `burns`: what was removed never comes back by publishing. `has_tags`, `notes`: what else there is to change."""

    format: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]
    refused: ClassVar[int]
    burns: ClassVar[bool] = False
    has_tags: ClassVar[bool] = False
    has_notes: ClassVar[bool] = False

    @abstractmethod
    def names(self, rng: random.Random, package: str, version: str) -> list[str]:
        """The files that a release will have, in the order in which they are published."""

    @abstractmethod
    def upload(self, rng: random.Random, release: Release, name: str) -> Upload: ...

    def afterwards(self, rng: random.Random, release: Release) -> Iterator[Upload]:
        """What clients send when all files are there."""
        return iter(())

    @abstractmethod
    def file_path(self, release: Release, name: str) -> str: ...

    @abstractmethod
    def document_path(self, release: Release, name: str) -> tuple[str, Mapping[str, str]]:
        """Where a reader finds out whether this file is there, and the headers for that."""

    @abstractmethod
    def digest_listed(self, release: Release, name: str, answer: httpx.Response) -> str | None:
        """What that document says of the file; None where it does not name it."""

    @abstractmethod
    def listed(self, get: Get, fail: Callable[[str], None], releases: Sequence[Release]) -> Listed:
        """All files of one package that are listed; `releases` are those that anybody ever published to it."""


class Npm(Kind):
    format = "npm"
    packages = ("alpha", "@scope/beta")
    refused = 403
    burns = has_tags = has_notes = True

    def names(self, rng: random.Random, package: str, version: str) -> list[str]:
        return [f"{package.rpartition('/')[2]}-{version}.tgz"]

    def upload(self, rng: random.Random, release: Release, name: str, tag: str | None = None) -> Upload:
        manifest = npm.manifest(release.package, release.version)
        data = npm.tarball(manifest, {"index.js": content(rng, LARGEST)})
        document = npm.document(release.package, release.version, data, tag=tag)
        return Upload(data, "PUT", packument_path(release.repository, release.package), {"json": document})

    def file_path(self, release: Release, name: str) -> str:
        return f"/npm/{release.repository}/{release.package}/-/{name}"

    def document_path(self, release: Release, name: str) -> tuple[str, Mapping[str, str]]:
        return packument_path(release.repository, release.package), {"Accept": "application/json"}

    def digest_listed(self, release: Release, name: str, answer: httpx.Response) -> str | None:
        manifest = json.loads(answer.content)["versions"].get(release.version)
        return manifest["dist"]["integrity"] if manifest else None

    def listed(self, get: Get, fail: Callable[[str], None], releases: Sequence[Release]) -> Listed:
        path = packument_path(releases[0].repository, releases[0].package)
        answer = get(path, Accept="application/json")
        short = get(path, Accept=INSTALL_TYPE)
        if answer.status_code != 200:
            return {}
        document = answer.json()
        versions, tags = document["versions"], document["dist-tags"]
        if short.json()["versions"].keys() != versions.keys():
            fail(f"{path} has two documents that differ")
        if tags.get("latest") not in versions or not set(tags.values()) <= set(versions):
            fail(f"{path} has tags of versions that are not there: {tags}")
        found: Listed = {}
        for version, manifest in versions.items():
            name = manifest["dist"]["tarball"].rpartition("/")[2]
            found[version, name] = (_has_integrity(manifest["dist"]["integrity"]), manifest.get("deprecated"))
        return found


class Pypi(Kind):
    """An sdist, and often a wheel after it: two publications of one version."""

    format = "pypi"
    packages = ("gamma", "delta-lib")
    refused = 400
    burns = has_notes = True

    def names(self, rng: random.Random, package: str, version: str) -> list[str]:
        kinds = (pypi.sdist, pypi.wheel) if rng.random() < 0.6 else (pypi.sdist,)
        return [kind(package, version).filename for kind in kinds]

    def upload(self, rng: random.Random, release: Release, name: str) -> Upload:
        kind = pypi.wheel if name.endswith(".whl") else pypi.sdist
        more = {f"{pypi.stem(release.package, release.version)}/data.bin": content(rng, LARGEST)}
        sample = kind(release.package, release.version, text=rng.randbytes(8).hex(), files=more)
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        return Upload(
            sample.data, "POST", f"/pypi/{release.repository}/", {"content": form(sample), "headers": headers}
        )

    def file_path(self, release: Release, name: str) -> str:
        return f"/pypi/{release.repository}/files/{release.package}/{name}"

    def document_path(self, release: Release, name: str) -> tuple[str, Mapping[str, str]]:
        return f"/pypi/{release.repository}/simple/{release.package}/", {"Accept": SIMPLE_JSON}

    def digest_listed(self, release: Release, name: str, answer: httpx.Response) -> str | None:
        files = json.loads(answer.content)["files"]
        return next((file["hashes"]["sha256"] for file in files if file["filename"] == name), None)

    def listed(self, get: Get, fail: Callable[[str], None], releases: Sequence[Release]) -> Listed:
        path, headers = self.document_path(releases[0], "")
        answer = get(path, **headers)
        if answer.status_code != 200:
            return {}
        found: Listed = {}
        for file in answer.json()["files"]:
            name = file["filename"]
            version = name.removesuffix(".tar.gz").split("-")[1]
            found[version, name] = (_has_sha256(file["hashes"]["sha256"]), file.get("yanked") or None)
            beside = file.get("core-metadata")
            if beside:
                side = get(f"{self.file_path(releases[0], name)}.metadata")
                if side.status_code != 200 or sha256(side.content) != beside["sha256"]:
                    fail(f"{name}.metadata answers {side.status_code}, or has other bytes than listed")
        return found


class Maven(Kind):
    """A jar and its POM, in either order, and often metadata after them. A file is "listed" by its checksum."""

    format = "maven"
    packages = ("org.torture:alpha", "org.torture.deep:beta")
    refused = 409

    def _at(self, release: Release) -> maven.Coordinates:
        group, _, artifact = release.package.partition(":")
        return maven.Coordinates(group, artifact, release.version)

    def names(self, rng: random.Random, package: str, version: str) -> list[str]:
        stem = f"{version}/{package.partition(':')[2]}-{version}"
        names = [f"{stem}.jar", f"{stem}.pom"]
        rng.shuffle(names)
        return names

    def upload(self, rng: random.Random, release: Release, name: str) -> Upload:
        at = self._at(release)
        if name.endswith(".pom"):
            data = maven.pom(at, more=f"<description>{rng.randbytes(8).hex()}</description>")
        else:
            data = maven.jar(files={"data.bin": content(rng, LARGEST)})
        return Upload(data, "PUT", self.file_path(release, name), {"content": data})

    def afterwards(self, rng: random.Random, release: Release) -> Iterator[Upload]:
        at = self._at(release)
        if rng.random() < 0.5:  # as a client that has seen no other versions
            data = maven.metadata(at, [release.version])
            yield Upload(data, "PUT", f"/maven/{release.repository}/{at.metadata}", {"content": data})

    def file_path(self, release: Release, name: str) -> str:
        at = self._at(release)
        return f"/maven/{release.repository}/{at.group.replace('.', '/')}/{at.artifact}/{name}"

    def document_path(self, release: Release, name: str) -> tuple[str, Mapping[str, str]]:
        return f"{self.file_path(release, name)}.sha1", {}

    def digest_listed(self, release: Release, name: str, answer: httpx.Response) -> str | None:
        return answer.text

    def listed(self, get: Get, fail: Callable[[str], None], releases: Sequence[Release]) -> Listed:
        """Besides: the metadata lists every version that is whole, and none of which nothing is there."""
        found: Listed = {}
        whole, partly = set(), set()
        for release in releases:
            sums = {name: get(self.document_path(release, name)[0]) for name in release.files}
            for name, answer in sums.items():
                if answer.status_code == 200:
                    partly.add(release.version)
                    found[release.version, name] = (_has_sha1(answer.text), None)
            if all(answer.status_code == 200 for answer in sums.values()):
                whole.add(release.version)
        path = f"/maven/{releases[0].repository}/{self._at(releases[0]).metadata}"
        answer = get(path)
        text = answer.text if answer.status_code == 200 else ""
        versions = {part.partition("<")[0] for part in text.split("<version>")[1:]}
        if not whole <= versions <= partly:
            fail(f"{path} lists {sorted(versions)}; whole are {sorted(whole)}, partly there {sorted(partly - whole)}")
        if text and get(f"{path}.sha1").text != hashlib.sha1(answer.content).hexdigest():
            fail(f"{path} and its checksum differ")
        return found


class Helm(Kind):
    format = "helm"
    packages = ("epsilon", "zeta-chart")
    refused = 409

    def names(self, rng: random.Random, package: str, version: str) -> list[str]:
        return [f"{package}-{version}.tgz"]

    def upload(self, rng: random.Random, release: Release, name: str) -> Upload:
        files = {f"{release.package}/data.bin": content(rng, LARGEST)}
        data = helm.chart(release.package, release.version, files=files, text=rng.randbytes(8).hex())
        where = rng.choice(("api/charts", name))
        method = "POST" if where == "api/charts" else "PUT"
        return Upload(data, method, f"/helm/{release.repository}/{where}", {"content": data})

    def file_path(self, release: Release, name: str) -> str:
        return f"/helm/{release.repository}/charts/{name}"

    def document_path(self, release: Release, name: str) -> tuple[str, Mapping[str, str]]:
        return f"/helm/{release.repository}/index.yaml", {}

    def digest_listed(self, release: Release, name: str, answer: httpx.Response) -> str | None:
        entries = json.loads(answer.content)["entries"].get(release.package, [])
        return next((entry["digest"] for entry in entries if entry["version"] == release.version), None)

    def listed(self, get: Get, fail: Callable[[str], None], releases: Sequence[Release]) -> Listed:
        path, _ = self.document_path(releases[0], "")
        plain, packed = get(path, **{"Accept-Encoding": "identity"}), get(path, **{"Accept-Encoding": "gzip"})
        if plain.content != packed.content:
            fail(f"{path} is another document with gzip")
        entries = plain.json()["entries"].get(releases[0].package, []) if plain.status_code == 200 else []
        return {
            (entry["version"], entry["urls"][0].rpartition("/")[2]): (_has_sha256(entry["digest"]), None)
            for entry in entries
        }


KINDS: dict[str, Kind] = {kind.format: kind for kind in (Npm(), Pypi(), Maven(), Helm())}


def packument_path(repository: str, package: str) -> str:
    return f"/npm/{repository}/{package.replace('/', '%2f')}"


def dist_tags_path(repository: str, package: str) -> str:
    return f"/npm/{repository}/-/package/{package.replace('/', '%2f')}/dist-tags"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _has_sha256(digest: str) -> Judge:
    return lambda data: sha256(data) == digest


def _has_sha1(digest: str) -> Judge:
    return lambda data: hashlib.sha1(data).hexdigest() == digest


def _has_integrity(integrity: str) -> Judge:
    return lambda data: "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode() == integrity
