"""Remotes: cold fetches from one local upstream (nginx over files), beside Verdaccio, devpi and distribution.

The upstream writes a line for each request: how many a cache makes for 200 clients that all want the same thing.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from formats.npm import samples as npm_samples
from tests.bench import area_pypi, areas, client, packages, peers, subjects
from tests.bench.client import LoadError, Request, Script, head
from tests.bench.content import Headers
from tests.bench.measure import Sample
from tests.bench.packages import NPM_FULL, SIMPLE_JSON
from tests.bench.peers import Place
from tests.bench.rows import GIB, Bench, turns
from tests.tools import services

AREA = "remote"
CROWD = 200
CROWD_BYTES = 256 * 1024
VERSIONS = 100
WARMING = 6
IMAGE = "app"


class Origin:
    """The upstream: a tree of files and the list of calls."""

    def __init__(self, url: services.Address) -> None:
        self.url = str(url)
        self._root = url.server.folder / "files"
        self._log = url.server.folder / "calls"
        self._root.mkdir(mode=0o755)

    def put(self, name: str, content: bytes) -> str:
        file = self._root / name
        for folder in reversed([parent for parent in file.parents if parent.is_relative_to(self._root)]):
            folder.mkdir(mode=0o755, exist_ok=True)
        file.write_bytes(content)
        file.chmod(0o644)
        return f"{self.url}/{name}"

    def calls(self) -> int:
        """Requests until now; nginx writes the line when the answer is sent."""
        return len(self._log.read_bytes().splitlines()) if self._log.exists() else 0


@contextlib.contextmanager
def origin() -> Iterator[Origin]:
    text = f"""
    sendfile on; tcp_nopush on; keepalive_requests 1000000000;
    log_format calls '$request_method $uri $status';
    server {{
        listen @listen@; root @folder@/files; access_log @folder@/calls calls;
        types {{ }} default_type application/octet-stream;
        location = /v2/ {{ default_type application/json; return 200 '{{}}'; }}
        location /npm/ {{ default_type application/json; }}
        location /simple/ {{ index index.json; default_type {SIMPLE_JSON}; }}
    }}"""
    with services.nginx(text) as url:
        yield Origin(url)


@dataclass(frozen=True, slots=True)
class Round:
    """One thing that nobody has yet, in one format: its document (if any), a large file and a small one."""

    document: str  # what the path of the document ends with; empty: files are found without one
    large: str
    large_size: int
    crowd_document: str
    crowd: str


@dataclass(frozen=True, slots=True)
class Kind:
    """One format: `make` puts things on the upstream; `find` gives the path of a file, as the document says it."""

    name: str
    places: Sequence[Place]
    accept: Headers
    make: Callable[[Origin, int, int], Round]
    find: Callable[[Place, str, str], str]


def measure(bench: Bench) -> None:
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(origin())
        server = areas.server(bench)
        for kind in _kinds(bench, stack, source, server):
            _cold(bench, kind, source)


def _kinds(bench: Bench, stack: contextlib.ExitStack, source: Origin, server: subjects.Repoman) -> Iterator[Kind]:
    """In the order in which they are measured; each starts its peer when it is its turn."""

    def mine(name: str, format: str, url: str) -> Place:
        return areas.ours(server, server.add(name, format, type="remote", remote={"url": url}), "")

    if bench.wants("remote-npm") or _named(bench, "remote-npm"):
        ours = mine("far-js", "npm", f"{source.url}/npm/")
        verdaccio = stack.enter_context(peers.verdaccio(bench.folder / "verdaccio-remote", f"{source.url}/npm/"))
        yield Kind("npm", [ours, verdaccio], areas.accepting(NPM_FULL), _npm, _npm_file)
    if bench.wants("remote-pypi") or _named(bench, "remote-pypi"):
        ours = mine("far-python", "pypi", f"{source.url}/simple/")
        devpi = bench.shared.get("pypi")
        if devpi is None:
            devpi = stack.enter_context(peers.devpi(bench.folder / "devpi-remote"))
        mirror = peers.devpi_index(devpi, "far", f"{source.url}/simple/")
        mirror.base = mirror.index
        ours.base = ours.index
        yield Kind("pypi", [ours, mirror], areas.accepting(SIMPLE_JSON), _pypi, _pypi_file)
    if bench.wants("remote-oci") or _named(bench, "remote-oci"):
        base = server.add("far-images", "oci", type="remote", remote={"url": f"{source.url}/v2/bench"})
        ours = areas.ours(server, base.replace("/oci/", "/v2/"), "")
        through = stack.enter_context(peers.pull_through(bench.folder / "pull-through", source.url))
        yield Kind("oci", [ours, through], [], _oci, lambda place, _, name: place.base + name)


def _named(bench: Bench, prefix: str) -> bool:
    return any(row.startswith(f"{prefix}-") for row in bench.chosen)


def _npm(source: Origin, number: int, size: int) -> Round:
    names = []
    for label, amount in (("large", size), ("crowd", CROWD_BYTES)):
        name = f"far-{label}-{number}"
        data = npm_samples.tarball(npm_samples.manifest(name, "9.0.0"), {"data.bin": os.urandom(amount)})
        url = source.put(f"tarballs/{name}-9.0.0.tgz", data)
        versions = {}
        for at in range(VERSIONS):
            version = "9.0.0" if at == VERSIONS - 1 else f"1.0.{at}"
            versions[version] = {
                **npm_samples.manifest(name, version, **packages.npm_fields(name)),
                "_id": f"{name}@{version}",
                "dist": {
                    "tarball": url if version == "9.0.0" else f"{source.url}/tarballs/{name}-{version}.tgz",
                    "shasum": hashlib.sha1(data, usedforsecurity=False).hexdigest(),
                    "integrity": "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode(),
                },
            }
        times = dict.fromkeys(("created", "modified", *versions), "2026-01-01T00:00:00.000Z")
        document = {
            "_id": name, "name": name, "dist-tags": {"latest": "9.0.0"}, "versions": versions, "time": times,
            "maintainers": [], "readme": "",
        }  # fmt: skip
        source.put(f"npm/{name}", json.dumps(document).encode())
        names.append((name, len(data)))
    (large, whole), (crowd, _) = names
    return Round(large, f"{large}-9.0.0.tgz", whole, crowd, f"{crowd}-9.0.0.tgz")


def _npm_file(place: Place, document: str, name: str) -> str:
    return f"{place.base}{document}/-/{name}"


def _pypi(source: Origin, number: int, size: int) -> Round:
    names = []
    for label, amount in (("large", size), ("crowd", CROWD_BYTES)):
        name = f"far-{label}-{number}"
        made = packages.wheel(name, "9.0", amount)
        source.put(f"files/{made.filename}", made.data)
        others = [packages.wheel(name, f"1.{at}") for at in range(VERSIONS - 1)]
        files = [
            {"filename": item.filename, "url": f"../../files/{item.filename}", "hashes": {"sha256": item.sha256},
             "requires-python": ">=3.8", "size": len(item.data), "upload-time": "2026-01-01T00:00:00.000000Z", "yanked": False}
            for item in (*others, made)
        ]  # fmt: skip
        page = {"meta": {"api-version": "1.1"}, "name": name, "files": files,
                "versions": [item.version for item in (*others, made)]}  # fmt: skip
        source.put(f"simple/{name}/index.json", json.dumps(page).encode())
        names.append((f"{name}/", made.filename, len(made.data)))
    (large, file, whole), (crowd, small, _) = names
    return Round(large, file, whole, crowd, small)


def _pypi_file(place: Place, document: str, name: str) -> str:
    for found in area_pypi.file_paths(place, document.rstrip("/")):
        if found.endswith(name):
            return found
    raise LoadError(f"{place.name} does not show {name}")


def _oci(source: Origin, number: int, size: int) -> Round:
    paths = []
    for amount in (size, CROWD_BYTES):
        data = os.urandom(amount)
        name = f"{IMAGE}/blobs/sha256:{hashlib.sha256(data).hexdigest()}"
        source.put(f"v2/bench/{name}", data)
        paths.append(name)
    return Round("", paths[0], size, "", paths[1])


def _cold(bench: Bench, kind: Kind, source: Origin) -> None:
    """All rows of a format in one go: each round has things of its own, which every server fetches once."""
    rounds = {number: kind.make(source, number, bench.plan.cold_bytes) for number in range(bench.plan.area_rounds)}
    for number in range(WARMING):
        _first_of_all(bench, kind, kind.make(source, len(rounds) + number, CROWD_BYTES))
    bench.say(f"  {kind.name}: things to fetch are there")
    slugs = [
        f"remote-{kind.name}-{what}" for what in ("page", "first", "cold", "page-crowd", "page-calls", "crowd", "calls")
    ]
    for number, place in turns(bench, bench.plan.area_rounds, kind.places):
        thing = rounds[number]
        for step in (_one_client, _many_clients):
            if not bench.wants(f"remote-{kind.name}-{'cold' if step is _one_client else 'crowd'}"):
                continue
            try:
                step(bench, kind, place, thing, source)
            except (LoadError, OSError) as error:
                row = f"remote-{kind.name}-{'cold' if step is _one_client else 'crowd'}"
                bench.notes.append(f"{place.name} failed in `{row}`: {areas.short(error)}.")
    for slug in slugs:
        bench.report(slug)


def _first_of_all(bench: Bench, kind: Kind, thing: Round) -> None:
    """Fetches that do not count: every process of a server makes things ready when it fetches for the first time."""
    for place in kind.places:
        try:
            if thing.document:
                areas.get(place, place.base + thing.document, kind.accept).require(200)
            areas.get(place, kind.find(place, thing.document, thing.large)).require(200)
        except (LoadError, OSError) as error:
            bench.notes.append(f"{place.name} failed with its first fetch of {kind.name}: {areas.short(error)}.")


def _one_client(bench: Bench, kind: Kind, place: Place, thing: Round, source: Origin) -> None:
    prefix = f"remote-{kind.name}"
    if thing.document:
        page = client.fetch(place.address, head("GET", place.base + thing.document, place.host, kind.accept))
        bench.results[f"{prefix}-page"][place.name].append(Sample(1 / page.whole))
    path = kind.find(place, thing.document, thing.large)
    found: list[client.Fetch] = []

    def work() -> tuple[float, float]:
        found.append(client.fetch(place.address, head("GET", path, place.host)))
        if found[0].size != thing.large_size:
            raise LoadError(f"{found[0].size} of {thing.large_size} bytes came")
        return found[0].size / GIB, found[0].whole

    bench.sample(f"{prefix}-cold", place, work)
    bench.results[f"{prefix}-first"][place.name].append(Sample(1 / found[0].first))


def _many_clients(bench: Bench, kind: Kind, place: Place, thing: Round, source: Origin) -> None:
    """Everybody wants the same thing at the same moment, and nobody has it."""
    prefix = f"remote-{kind.name}"
    if thing.crowd_document:
        _crowd(bench, f"{prefix}-page", place, place.base + thing.crowd_document, kind.accept, source)
    _crowd(bench, prefix, place, kind.find(place, thing.crowd_document, thing.crowd), [], source)


def _crowd(bench: Bench, prefix: str, place: Place, path: str, headers: Headers, source: Origin) -> None:
    before = source.calls()
    refused: list[int] = []

    def one() -> Script:
        answer = yield Request(head("GET", path, place.host, headers))
        if answer.status != 200:
            refused.append(answer.status)

    def work() -> tuple[float, float]:
        load = client.run(place.address, [one() for _ in range(CROWD)], connections=CROWD)
        return load.count - len(refused), load.seconds

    bench.sample(f"{prefix}-crowd", place, work)
    if refused:
        bench.notes.append(
            f"{place.name} refused some of the {CROWD} clients in `{prefix}-crowd` ({refused[0]}); they do not count."
        )
    time.sleep(0.2)  # what goes on behind the answers
    bench.results[f"{prefix}-calls"][place.name].append(Sample(float(source.calls() - before)))
