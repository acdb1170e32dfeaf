"""What is published: npm packages and wheels of known sizes, as scripts of requests, and sets of packages to install.

Manifests are as long as those of real packages, so that documents are; archives are small.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

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
ROOTS = 8


@dataclass(frozen=True, slots=True)
class Release:
    """One version of one package and its archive: a tarball or a wheel. `document` is npm's publish document."""

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


def needs(number: int) -> list[int]:
    """Which packages of the set one of them depends on: who installs the first ROOTS gets all."""
    return [to for to in (number + ROOTS, number + ROOTS + 1) if to < INSTALLS]


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
