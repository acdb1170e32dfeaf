"""What is published: packages of each format of known sizes, as scripts of requests, and sets of packages to install.

Manifests are as long as those of real packages, so that documents are; archives are small.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from formats.helm import samples as helm_samples
from formats.maven import samples as maven_samples
from formats.npm import samples as npm_samples
from formats.pypi import samples as pypi_samples
from tests.bench.client import Request, Script, head
from tests.bench.content import Headers

NPM_FULL = "application/json"
NPM_SHORT = "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8, */*"
SIMPLE_JSON = "application/vnd.pypi.simple.v1+json"
SIMPLE_HTML = "text/html"
BOUNDARY = "frontier-between-parts"
FILLER_BYTES = 16 * 1024
INSTALLS = 50
MAVEN_INSTALLS = 60
ROOTS = 8
GROUP = "org.example.bench"
METADATA = "maven-metadata.xml"
SUMS = ("sha1", "md5")  # what Maven sends beside every file


@dataclass(frozen=True, slots=True)
class Release:
    """One version of one package and its archive: a tarball, a wheel, a jar, a chart. `document` is npm's publish document,
    Maven's POM."""

    name: str
    version: str
    filename: str
    data: bytes
    document: bytes = b""
    metadata: bytes = b""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass(slots=True)
class Shelf:
    """What everybody holds: packages with few, some and many versions, and a set to install."""

    small: list[Release] = field(default_factory=list)
    middle: list[Release] = field(default_factory=list)
    large: list[Release] = field(default_factory=list)
    installs: list[Release] = field(default_factory=list)

    def all(self) -> list[Release]:
        return [*self.small, *self.installs, *self.middle, *self.large]


def npm_fields(name: str) -> dict[str, object]:
    """About 1.5 KB, as the manifest of an ordinary package has."""
    return {
        "license": "MIT",
        "author": {"name": "A. Person", "email": "person@example.org", "url": "https://example.org/~person"},
        "homepage": f"https://example.org/{name}#readme",
        "repository": {"type": "git", "url": f"git+https://git.example.org/{name}.git"},
        "bugs": {"url": f"https://git.example.org/{name}/issues"},
        "keywords": ["sample", "benchmark", "package", "measure", "registry"],
        "engines": {"node": ">=18"},
        "scripts": {word: f"node scripts/{word}.js --strict" for word in ("build", "lint", "test", "bench", "release")},
        "dependencies": {f"{name}-part-{at}": f"^{at}.2.3" for at in range(8)},
        "devDependencies": {f"{name}-tool-{at}": f"~{at}.4.5" for at in range(12)},
    }


def npm_release(name: str, version: str, filler: int = 0, **fields: object) -> Release:
    """With `filler` bytes that do not compress in its tarball."""
    files = {"index.js": f"module.exports = {json.dumps(version)}\n".encode()}
    if filler:
        files["data.bin"] = os.urandom(filler)
    data = npm_samples.tarball(npm_samples.manifest(name, version, **fields), files)
    document = json.dumps(npm_samples.document(name, version, data, fields=fields)).encode()
    return Release(name, version, f"{name}-{version}.tgz", data, document)


def wheel(name: str, version: str, filler: int = 0, requires: Sequence[str] = ()) -> Release:
    files = {f"{name.replace('-', '_')}/data.bin": os.urandom(filler)} if filler else None
    made = pypi_samples.wheel(name, version, text=version, files=files, requires=requires)
    return Release(name, version, made.filename, made.data, metadata=made.metadata)


def npm_shelf(sizes: Sequence[int]) -> Shelf:
    small, middle, large = sizes
    return Shelf(
        [npm_release("bench-small", f"1.0.{at}", FILLER_BYTES, **npm_fields("bench-small")) for at in range(small)],
        [npm_release("bench-middle", f"1.0.{at}", FILLER_BYTES, **npm_fields("bench-middle")) for at in range(middle)],
        [npm_release("bench-large", f"1.0.{at}", **npm_fields("bench-large")) for at in range(large)],
        [
            npm_release(f"part-{at:02}", "1.0.0", 2048, dependencies={f"part-{to:02}": "^1.0.0" for to in needs(at)})
            for at in range(INSTALLS)
        ],
    )


def pypi_shelf(sizes: Sequence[int]) -> Shelf:
    small, middle, large = sizes
    return Shelf(
        [wheel("bench-small", f"1.{at}", FILLER_BYTES) for at in range(small)],
        [wheel("bench-middle", f"1.{at}", FILLER_BYTES) for at in range(middle)],
        [wheel("bench-large", f"1.{at}") for at in range(large)],
        [wheel(f"part-{at:02}", "1.0", 2048, [f"part-{to:02} >=1.0" for to in needs(at)]) for at in range(INSTALLS)],
    )


def needs(number: int, count: int = INSTALLS) -> list[int]:
    """Which packages of a set of `count` one of them depends on: who installs the first ROOTS gets all."""
    return [to for to in (number + ROOTS, number + ROOTS + 1) if to < count]


def npm_publish(host: str, base: str, item: Release, headers: Headers) -> Script:
    typed = (*headers, ("Content-Type", "application/json"))
    done = yield Request(head("PUT", base + item.name, host, typed, len(item.document)), (item.document,))
    done.require(200, 201)


def wheel_upload(host: str, base: str, item: Release, headers: Headers) -> Script:
    fields = {
        ":action": "file_upload",
        "protocol_version": "1",
        "metadata_version": "2.4",
        "name": item.name,
        "version": item.version,
        "filetype": "bdist_wheel",
        "pyversion": "py3",
        "sha256_digest": item.sha256,
    }
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    opening = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="content"; filename="{item.filename}"\r\n\r\n'
    body = "".join([*parts, opening]).encode() + item.data + f"\r\n--{BOUNDARY}--\r\n".encode()
    typed = (*headers, ("Content-Type", f"multipart/form-data; boundary={BOUNDARY}"))
    done = yield Request(head("POST", base, host, typed, len(body)), (body,))
    done.require(200, 201)


# --- Maven -----------------------------------------------------------------------------------------------------------


def maven_at(name: str, version: str) -> maven_samples.Coordinates:
    return maven_samples.Coordinates(GROUP, name, version)


def maven_release(name: str, version: str, filler: int = 0, needed: Sequence[str] = ()) -> Release:
    """A jar and its POM, which depends on version 1.0 of those that are `needed`."""
    at = maven_at(name, version)
    files = {"data.bin": os.urandom(filler)} if filler else None
    data = maven_samples.jar(f"{name} {version}", files=files)
    document = maven_samples.pom(at, dependencies=[maven_at(each, "1.0") for each in needed])
    return Release(name, version, f"{name}-{version}.jar", data, document)


def maven_pom(name: str, version: str) -> Release:
    """A version that is a POM alone."""
    return Release(name, version, "", b"", maven_samples.pom(maven_at(name, version), packaging="pom"))


def maven_files(item: Release) -> dict[str, bytes]:
    """By their paths in a repository, as they are uploaded."""
    at = maven_at(item.name, item.version)
    return {at.path("pom"): item.document, **({at.path("jar"): item.data} if item.data else {})}


def with_sums(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Each file followed by its checksums."""
    found: dict[str, bytes] = {}
    for path, data in files.items():
        found[path] = data
        for name in SUMS:
            found[f"{path}.{name}"] = hashlib.new(name, data, usedforsecurity=False).hexdigest().encode()
    return found


def maven_tree() -> list[Release]:
    """The set that is resolved: the first ROOTS lead to all."""
    names = [f"part-{at:02}" for at in range(MAVEN_INSTALLS)]
    return [
        maven_release(name, "1.0", 2048, [names[to] for to in needs(at, MAVEN_INSTALLS)])
        for at, name in enumerate(names)
    ]


def maven_deploy(host: str, base: str, item: Release, headers: Headers) -> Script:
    """As Maven deploys a release: its files with their checksums; then what it has read of the artifact's metadata, with
    this version added, and the checksums of that."""
    yield from _put_all(host, base, with_sums(maven_files(item)), headers)
    at = maven_at(item.name, item.version)
    told = yield Request(head("GET", base + at.metadata, host, headers))
    known = told.require(200, 404).status == 200
    metadata = _with_version(told.body, item.version) if known else maven_samples.metadata(at, [item.version])
    yield from _put_all(host, base, with_sums({at.metadata: metadata}), headers)


def maven_put(host: str, base: str, item: Release, headers: Headers) -> Script:
    """As tools deploy that never send metadata (sbt, Bazel): the files alone."""
    yield from _put_all(host, base, maven_files(item), headers)


def _put_all(host: str, base: str, files: Mapping[str, bytes], headers: Headers) -> Script:
    for path, data in files.items():
        done = yield Request(head("PUT", base + path, host, headers, len(data)), (data,))
        done.require(200, 201)


def _with_version(metadata: bytes, version: str) -> bytes:
    end = metadata.rindex(b"</versions>")
    return metadata[:end] + f"<version>{version}</version>".encode() + metadata[end:]


# --- Helm ------------------------------------------------------------------------------------------------------------


def helm_fields(name: str) -> dict[str, Any]:
    """About 700 bytes, as the Chart.yaml of an ordinary chart has."""
    return {
        "description": f"A chart that deploys {name} with its database, its cache and all that it needs on a cluster.",
        "appVersion": "1.10",
        "type": "application",
        "kubeVersion": ">=1.27.0-0",
        "home": f"https://example.org/{name}",
        "icon": f"https://example.org/{name}/icon.svg",
        "keywords": ["sample", "benchmark", "chart", "measure"],
        "sources": [f"https://git.example.org/charts/{name}"],
        "maintainers": [{"name": "A. Person", "email": "person@example.org"}],
        "annotations": {"category": "Database", "licenses": "Apache-2.0"},
        "dependencies": [{"name": "common", "version": "2.x.x", "repository": "https://example.org/charts"}],
    }


def chart(name: str, version: str, filler: int = 0) -> Release:
    files = {f"{name}/data.bin": os.urandom(filler)} if filler else None
    data = helm_samples.chart(name, version, files=files, **helm_fields(name))
    return Release(name, version, f"{name}-{version}.tgz", data)


def charts(count: int) -> list[Release]:
    """So many versions, of about 200 charts where there are many."""
    names = min(200, max(10, count // 5))
    return [chart(f"chart-{at % names:03}", f"1.{at // names}.0") for at in range(count)]


def chart_upload(host: str, path: str, item: Release, headers: Headers) -> Script:
    """To ChartMuseum's API, which is at `path`."""
    typed = (*headers, ("Content-Type", "application/octet-stream"))
    done = yield Request(head("POST", path, host, typed, len(item.data)), (item.data,))
    done.require(201)
