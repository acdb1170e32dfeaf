"""Remote repositories of all formats, and their upstream: it lives in this process, so it survives the server's kills.

`Trouble` makes it fail now and then. Whatever it does, a success has the bytes that the upstream meant: a digest that its
listing said, or, for files that may change, one of the contents that it ever had.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import httpx

from formats.helm import samples as helm
from formats.maven import samples as maven
from formats.npm import samples as npm
from formats.oci import samples as oci
from formats.pypi import samples as pypi
from formats.pypi.listing import SIMPLE_JSON
from tests.oci import MANIFEST
from tests.running import Server
from tests.tools.upstream import Answer, Upstream, html_page, throttled

QUICK = {"connect_timeout": 2, "read_timeout": 3, "metadata_ttl": 1, "negative_ttl": 0}
IMAGE_TAGS = ("v1", "v2", "latest")


@dataclass(frozen=True)
class Item:
    """Something to fetch through a remote. `judge` says what is wrong with the body of a success ("" if nothing);
    `evict` is how the copy that is held is removed (resource and parameters), where that can be."""

    format: str
    path: str
    judge: Callable[[bytes], str]
    accept: str = ""
    evict: tuple[str, dict[str, str]] | None = None

    def fault_in(self, answer: httpx.Response) -> str:
        return self.judge(answer.content)


class Mirrors:
    """The upstream's content, and how it is seen through the remotes. `answers`: what it says when it is well."""

    def __init__(self, upstream: Upstream, rng: random.Random) -> None:
        self.upstream = upstream
        self.rng = rng
        self.answers: dict[str, Answer] = {}
        self.is_certain: set[str] = set()  # paths whose content clients can tell from any other
        self.ever: dict[str, set[str]] = {}
        self.items: list[Item] = []
        self._lock = threading.Lock()

    # content

    def build(self, server: Server, namespace: str) -> list[str]:
        """Fill the upstream, and make a remote of each format. Returns their keys."""
        keys = {
            "generic": self._remote(server, namespace, "generic", "/raw/"),
            "npm": self._remote(server, namespace, "npm", "/npm/"),
            "pypi": self._remote(server, namespace, "pypi", "/simple/"),
            "maven": self._remote(server, namespace, "maven", "/m2/"),
            "helm": self._remote(server, namespace, "helm", "/charts/"),
            "oci": self._remote(server, namespace, "oci", "/v2/up"),
        }
        for number in range(6):
            self._raw(keys["generic"], f"{number}.bin")
        for name in ("up-a", "@up/b"):
            self._npm(keys["npm"], name)
        self._pypi(keys["pypi"], "up-c")
        self._maven(keys["maven"], "up-d")
        self._helm(keys["helm"], "up-e")
        self._oci(keys["oci"], "app")
        for path, answer in self.answers.items():
            self.upstream.add(path, answer)
        return list(keys.values())

    def _remote(self, server: Server, namespace: str, format: str, path: str) -> str:
        remote = {"url": self.upstream.url(path), **QUICK}
        return server.make_repository(namespace, format=format, type="remote", anonymous_read=True, remote=remote)

    def _says(self, path: str, answer: Answer, *, certain: bool = True) -> None:
        self.answers[path] = answer
        if certain:
            self.is_certain.add(path)

    def _one_of(self, path: str) -> Callable[[bytes], str]:
        return lambda body: "" if _sha256(body) in self.ever[path] else f"other bytes ({len(body)})"

    def _file(
        self, format: str, upstream_path: str, path: str, data: bytes, key: str = "", package: str = "", name: str = ""
    ) -> None:
        self.ever.setdefault(upstream_path, set()).add(_sha256(data))
        self._says(upstream_path, Answer(data))
        evict = (_files_of(key), {"package": package, "name": name or path.rpartition("/")[2]}) if key else None
        self.items.append(Item(format, path, self._one_of(upstream_path), evict=evict))

    def _raw(self, key: str, name: str) -> None:
        path = f"/raw/{name}"
        self.ever[path] = set()
        self._renew(path)
        evict = (_files_of(key), {"package": name})
        self.items.append(Item("generic", f"/generic/{key}/{name}", self._one_of(path), evict=evict))

    def _renew(self, path: str) -> None:
        data = self.rng.randbytes(int(1_500_000 ** self.rng.random()))
        self.ever[path].add(_sha256(data))
        self._says(path, Answer(data, etag=f'"{_sha256(data)[:12]}"'), certain=False)

    def _npm(self, key: str, name: str) -> None:
        escaped = name.replace("/", "%2f")
        versions: dict[str, object] = {}
        sums: dict[str, str] = {}
        for version in ("1.0.0", "1.1.0", "2.0.0"):
            data = npm.tarball(npm.manifest(name, version), {"index.js": self.rng.randbytes(20_000)})
            filename = f"{name.rpartition('/')[2]}-{version}.tgz"
            said = npm.document(name, version, data)["versions"][version]
            said["dist"]["tarball"] = self.upstream.url(f"/npm/{name}/-/{filename}")
            versions[version] = said
            sums[version] = said["dist"]["integrity"]
            self._file("npm", f"/npm/{name}/-/{filename}", f"/npm/{key}/{name}/-/{filename}", data, key, name)
        document = {"_id": name, "name": name, "dist-tags": {"latest": "2.0.0"}, "versions": versions}
        self._says(f"/npm/{escaped}", _document(document), certain=False)

        def judge(body: bytes) -> str:
            found = json.loads(body)["versions"]
            listed = {version: manifest["dist"]["integrity"] for version, manifest in found.items()}
            return "" if listed == sums else f"other versions or digests: {listed}"

        self.items.append(Item("npm", f"/npm/{key}/{escaped}", judge, "application/json"))

    def _pypi(self, key: str, name: str) -> None:
        files: list[dict[str, object]] = []
        sums: dict[str, str] = {}
        for version in ("1.0", "2.0"):
            for kind in (pypi.sdist, pypi.wheel):
                sample = kind(name, version, files={"more.bin": self.rng.randbytes(20_000)})
                url = self.upstream.url(f"/files/{sample.filename}")
                size = len(sample.data)
                files.append(
                    {"filename": sample.filename, "url": url, "hashes": {"sha256": sample.sha256}, "size": size}
                )
                sums[sample.filename] = sample.sha256
                ours = f"/pypi/{key}/files/{name}/{sample.filename}"
                self._file("pypi", f"/files/{sample.filename}", ours, sample.data, key, name)
        document = {"meta": {"api-version": "1.1"}, "name": name, "versions": ["1.0", "2.0"], "files": files}
        self._says(f"/simple/{name}/", _document(document, SIMPLE_JSON), certain=False)

        def judge(body: bytes) -> str:
            listed = {file["filename"]: file["hashes"]["sha256"] for file in json.loads(body)["files"]}
            return "" if listed == sums else f"other files or digests: {listed}"

        self.items.append(Item("pypi", f"/pypi/{key}/simple/{name}/", judge, SIMPLE_JSON))

    def _maven(self, key: str, name: str) -> None:
        versions = ["1.0", "1.9", "1.10"]
        for version in versions:
            at = maven.Coordinates("org.torture", name, version)
            for extension, data in (
                ("jar", maven.jar(files={"data.bin": self.rng.randbytes(20_000)})),
                ("pom", maven.pom(at)),
            ):
                path = at.path(extension)
                where = f"{version}/{path.rpartition('/')[2]}"
                self._file("maven", f"/m2/{path}", f"/maven/{key}/{path}", data, key, at.package, where)
                self._says(f"/m2/{path}.sha1", Answer(hashlib.sha1(data).hexdigest().encode()), certain=False)
        document = maven.metadata(at, versions)
        self._says(f"/m2/{at.metadata}", Answer(document, media_type="text/xml", etag='"1"'), certain=False)

        def judge(body: bytes) -> str:
            listed = [part.partition("<")[0] for part in body.decode().split("<version>")[1:]]
            return "" if listed == versions else f"other versions: {listed}"

        self.items.append(Item("maven", f"/maven/{key}/{at.metadata}", judge))

    def _helm(self, key: str, name: str) -> None:
        """An index with addresses of its own folder and of others."""
        entries: list[dict[str, object]] = []
        sums: dict[str, str] = {}
        for version, folder in (("1.0.0", "charts/"), ("1.1.0", "elsewhere/"), ("2.0.0-rc.1", "charts/deep/")):
            data = helm.chart(name, version, files={f"{name}/data.bin": self.rng.randbytes(20_000)})
            filename = f"{name}-{version}.tgz"
            url = f"/{folder}{filename}"
            relative = url.removeprefix("/charts/") if folder != "elsewhere/" else self.upstream.url(url)
            entries.append(helm.entry(data, name, version, url=relative))
            sums[version] = _sha256(data)
            self._file("helm", url, f"/helm/{key}/charts/{filename}", data, key, name, filename)
        answer = Answer(helm.index(*entries), media_type="application/x-yaml", etag='"1"')
        self._says("/charts/index.yaml", answer, certain=False)

        def judge(body: bytes) -> str:
            found = json.loads(body)["entries"].get(name, [])
            listed = {entry["version"]: entry["digest"] for entry in found}
            return "" if listed == sums else f"other versions or digests: {listed}"

        self.items.append(Item("helm", f"/helm/{key}/index.yaml", judge))

    def _oci(self, key: str, name: str) -> None:
        base, ours = f"/v2/up/{name}", f"/v2/{key}/{name}"
        for tag in IMAGE_TAGS:
            sample = oci.image(f"{tag} {self.rng.randbytes(4000).hex()}", layers=2)
            for digest, data in sample.blobs.items():
                self._file("oci", f"{base}/blobs/{digest}", f"{ours}/blobs/{digest}", data)
            for reference in (tag, sample.digest):
                path = f"{base}/manifests/{reference}"
                self.ever.setdefault(path, set()).add(sample.digest.removeprefix("sha256:"))
                headers = (("Docker-Content-Digest", sample.digest),)
                self._says(path, Answer(sample.manifest, media_type=sample.media_type, headers=headers))
                self.items.append(Item("oci", f"{ours}/manifests/{reference}", self._one_of(path), MANIFEST))

    # storm

    def choose(self, rng: random.Random) -> Item | None:
        return rng.choice(self.items) if self.items else None

    def is_well(self) -> None:
        """All faults are over."""
        with self._lock:
            for path, answer in self.answers.items():
                self.upstream.add(path, answer)

    def is_down(self) -> None:
        with self._lock:
            for path in self.answers:
                self.upstream.add(path, Answer(b"down", status=503, media_type="text/plain"))

    def move(self, rng: random.Random) -> None:
        """A file or a tag of the upstream becomes another."""
        with self._lock:
            path = rng.choice([path for path in self.answers if path.startswith("/raw/")])
            self._renew(path)
            self.upstream.add(path, self.answers[path])
            one, other = (f"/v2/up/app/manifests/{tag}" for tag in rng.sample(IMAGE_TAGS, 2))
            self.ever[one] |= self.ever[other]
            self.answers[one] = self.answers[other]
            self.upstream.add(one, self.answers[one])

    def fail(self, rng: random.Random) -> None:
        """Some paths give one or two bad answers."""
        with self._lock:
            for path in rng.sample(list(self.answers), 5):
                self.upstream.add(path, rng.choice(list(self._faults(path))), self.answers[path])

    def _faults(self, path: str) -> Iterator[Answer]:
        good = self.answers[path]
        half = len(good.body) // 2 if isinstance(good.body, bytes) else 0
        yield replace(good, cut_after=half)
        yield replace(good, cut_after=half, close_cleanly=True)
        yield replace(good, cut_after=half, chunked=True)
        yield replace(good, chunk_size=max(1, half // 4), chunk_delay=0.2)
        yield replace(good, stall="headers")
        yield replace(good, stall="body", stall_after=half)
        yield Answer(b"busy", status=503, times=2, media_type="text/plain")
        yield Answer(b"broken", status=500, times=2, media_type="text/plain")
        yield throttled(1)
        if path in self.is_certain:
            yield replace(good, corrupt=True)
        if not path.startswith("/raw/") and not path.endswith(".sha1"):  # no page is a checksum
            yield html_page()


class Trouble(threading.Thread):
    """Faults, and now and then an outage of the whole upstream."""

    def __init__(self, mirrors: Mirrors, rng: random.Random, stop: threading.Event) -> None:
        super().__init__(name="trouble", daemon=True)
        self.mirrors, self.rng, self.stop = mirrors, rng, stop

    def run(self) -> None:
        while not self.stop.wait(self.rng.uniform(0.05, 0.4)):
            chance = self.rng.random()
            if chance < 0.1:
                self.mirrors.is_down()
                self.stop.wait(self.rng.uniform(0.1, 0.5))
                self.mirrors.is_well()
            elif chance < 0.25:
                self.mirrors.move(self.rng)
            else:
                self.mirrors.fail(self.rng)
        self.mirrors.is_well()


def _files_of(key: str) -> str:
    return f"/api/v1/repositories/{key}/files"


def _document(document: object, media_type: str = "application/json") -> Answer:
    body = json.dumps(document).encode()
    return Answer(body, media_type=media_type, etag=f'"{_sha256(body)[:12]}"')


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
