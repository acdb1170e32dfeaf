"""Maven: ours beside nginx, which sends the same files from a folder: the floor."""

from __future__ import annotations

import contextlib
import hashlib
import re

from tests.bench import areas, client, installs, packages, peers, subjects
from tests.bench.client import LoadError
from tests.bench.packages import (
    FILLER_BYTES,
    METADATA,
    Release,
    maven_at,
    maven_deploy,
    maven_files,
    maven_pom,
    maven_put,
    maven_release,
    with_sums,
)
from tests.bench.peers import Place
from tests.bench.rows import Bench

AREA = "maven"
JARS = 20
CHECKED = 3
XML = "application/xml"


def measure(bench: Bench) -> None:
    with contextlib.ExitStack() as stack:
        server = areas.server(bench)
        mine = areas.ours(server, server.add("java", "maven"), server.api_token())
        small, large = bench.plan.releases
        jars = [maven_release("bench-jars", f"1.{at}", FILLER_BYTES) for at in range(JARS)]
        first = [maven_release("bench-small", f"1.{at}", FILLER_BYTES) for at in range(small)]
        uploaded = [*first, *jars, *packages.maven_tree()]
        if areas.fill(bench, mine, maven_deploy, uploaded, bench.plan.budgets[AREA] / 2) < len(uploaded):
            raise LoadError("the artifacts could not be deployed in time")
        poms = [maven_pom("bench-large", f"1.{at}") for at in range(large)]
        _fill(bench, server, mine, poms)
        _check_fill(bench, server)
        bench.notes.append(
            f"The {large:,} versions of the large artifact are POMs that were put in place by rows, not by uploads."
        )
        tree = _tree(mine, uploaded, poms[0])
        floor = stack.enter_context(peers.files({f"maven/{path}": data for path, data in tree.items()}))
        _rows(bench, mine, floor.at("/maven/"), jars)


def _fill(bench: Bench, server: subjects.Repoman, place: Place, items: list[Release]) -> None:
    files = {path: data for item in items for path, data in maven_files(item).items()}
    areas.fill_files(bench, server, place, areas.write_files(bench.folder / place.base.strip("/"), files))


def _check_fill(bench: Bench, server: subjects.Repoman) -> None:
    """What was filled by rows answers as what was uploaded. Raises LoadError."""
    items = [maven_pom("bench-check", f"1.{at}") for at in range(CHECKED)]
    told = []
    for name in ("filled", "uploaded"):
        place = areas.ours(server, server.add(f"java-{name}", "maven"), server.api_token())
        if name == "filled":
            _fill(bench, server, place, items)
        else:
            areas.fill(bench, place, maven_deploy, items, 60)
        told.append([answer(place, path) for path in paths_of(items)])
    if told[0] != told[1]:
        raise LoadError(f"the filled repository answers otherwise than one that was filled by uploads: {told}")


def answer(place: Place, path: str) -> tuple[int, str, str, bytes]:
    """What does not depend on when it was made: status, type, a checksum, and the content but for moments."""
    found = areas.get(place, place.base + path)
    is_metadata = path.endswith(METADATA)
    told = "" if is_metadata else found.header(b"x-checksum-sha1")
    content = re.sub(rb"<lastUpdated>\d{14}<", b"<lastUpdated><", found.body)
    return found.status, found.header(b"content-type"), told, content


def paths_of(items: list[Release]) -> list[str]:
    """Files, their checksums, and the artifacts' metadata."""
    files = [path for item in items for path in with_sums(maven_files(item))]
    return [*files, *dict.fromkeys(maven_at(item.name, item.version).metadata for item in items)]


def _tree(mine: Place, uploaded: list[Release], large: Release) -> dict[str, bytes]:
    """What ours has, as files: artifacts, and the metadata that it made, all with their checksums; of the large artifact only
    the metadata, as nothing else of it is read."""
    found: dict[str, bytes] = {}
    for item in uploaded:
        found |= maven_files(item)
    for path in dict.fromkeys(maven_at(item.name, item.version).metadata for item in (*uploaded, large)):
        found[path] = areas.get(mine, mine.base + path).require(200).body
    found = with_sums(found)
    path = maven_at(large.name, large.version).metadata
    packed = areas.get(mine, mine.base + path, areas.accepting(XML, gzip=True)).require(200)
    return found | {f"{path}.gz": packed.body}


def _metadata(places: list[Place], size: str) -> dict[str, list[str]]:
    return {place.name: [place.base + maven_at(f"bench-{size}", "").metadata] for place in places}


def _rows(bench: Bench, mine: Place, floor: Place, jars: list[Release]) -> None:
    places = [mine, floor]
    names = [maven_at(item.name, item.version).path() for item in jars]
    known = {item.data for item in jars}
    sums = {hashlib.sha1(data, usedforsecurity=False).hexdigest().encode() for data in known}
    for slug, suffix, contents in (("maven-jar", "", known), ("maven-sum", ".sha1", sums)):
        paths = {place.name: [f"{place.base}{name}{suffix}" for name in names] for place in places}
        areas.read(bench, slug, places, paths, [], holds=lambda found: found.body in contents)
    sizes = dict(zip(("small", "large"), bench.plan.releases, strict=True))
    for size, count in sizes.items():
        areas.read(
            bench, f"maven-metadata-{size}", places, _metadata(places, size), areas.accepting(XML),
            holds=lambda found: found.body.count(b"<version>") >= count,
        )  # fmt: skip
    areas.read(
        bench, "maven-metadata-large-gzip", places, _metadata(places, "large"), areas.accepting(XML, gzip=True),
        holds=lambda found: found.header(b"content-encoding") == "gzip",
    )  # fmt: skip
    for size in sizes:
        areas.unchanged(bench, f"maven-unchanged-{size}", places, _metadata(places, size), areas.accepting(XML))
    for clients in (1, 8):
        areas.publishes(
            bench, f"maven-deploy-{clients}", [mine], maven_deploy,
            lambda name, version: maven_release(name, version, FILLER_BYTES), clients,
        )  # fmt: skip
    for size in sizes:
        # Maven itself reads the metadata before it has ended: others would not be the first.
        areas.fresh(
            bench, f"maven-fresh-{size}", [mine], maven_put, lambda version: maven_release(f"bench-{size}", version),
            _metadata([mine], size), areas.accepting(XML),
        )  # fmt: skip
    _growth(bench, mine)
    areas.installs(bench, AREA, places, installs.maven)


def _growth(bench: Bench, mine: Place) -> None:
    """An artifact of one version in a repository that has nothing else, and in the one that everything was added to."""
    slugs = ("maven-growth-metadata", "maven-growth-jar")
    if not any(bench.wants(slug) for slug in slugs):
        return
    server = areas.server(bench, "repoman-before")
    before = areas.ours(server, server.add("java", "maven"), server.api_token())
    item = maven_release("bench-growth", "1.0", FILLER_BYTES)
    for place in (before, mine):
        client.run(place.address, [maven_deploy(place.host, place.base, item, place.signed)], connections=1)
    pairs = [before.named("before"), mine.named("after")]
    at = maven_at(item.name, item.version)
    for slug, name in zip(slugs, (at.metadata, at.path()), strict=True):
        areas.read(bench, slug, pairs, {place.name: [place.base + name] for place in pairs}, [])
