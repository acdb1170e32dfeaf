"""npm: ours beside Verdaccio."""

from __future__ import annotations

import contextlib
import json

from tests.bench import areas, client, installs, packages, peers
from tests.bench.client import Answer, LoadError
from tests.bench.packages import FILLER_BYTES, NPM_FULL, NPM_SHORT, Release, npm_publish, npm_release
from tests.bench.peers import Place
from tests.bench.rows import Bench

AREA = "npm"


def measure(bench: Bench) -> None:
    with contextlib.ExitStack() as stack:
        verdaccio = stack.enter_context(peers.verdaccio(bench.folder / "verdaccio"))
        server = areas.server(bench)
        mine = areas.ours(server, server.add("js", "npm"), server.api_token())
        shelf = packages.npm_shelf(bench.plan.versions)
        limit = bench.plan.budgets[AREA] * 0.4
        areas.reduced(bench, shelf, areas.fill(bench, mine, npm_publish, shelf.all(), limit))
        fill_verdaccio(bench, verdaccio, shelf)
        _rows(bench, [mine, verdaccio], shelf)


def fill_verdaccio(bench: Bench, place: Place, shelf: packages.Shelf) -> None:
    """The first version of each through its API, the others by its files: it rewrites the whole document for each."""
    assert place.folder is not None
    firsts = [*shelf.installs, *(kind[0] for kind in (shelf.small, shelf.middle, shelf.large) if kind)]
    if areas.fill(bench, place, npm_publish, firsts, 30) < len(firsts):
        raise LoadError("Verdaccio could not be filled in time")
    for kind in (shelf.small, shelf.middle, shelf.large):
        if len(kind) < 2:
            continue
        file = place.folder / kind[0].name / "package.json"
        document = json.loads(file.read_text())
        made = document["time"][kind[0].version]
        for item in kind[1:]:
            said = json.loads(item.document)["versions"][item.version]
            said.pop("readme", None)
            document["versions"][item.version] = {**said, "contributors": []}
            document["time"][item.version] = made
            shasum = said["dist"]["shasum"]
            document["_attachments"][item.filename] = {"shasum": shasum, "version": item.version}
            (file.parent / item.filename).write_bytes(item.data)
        document["dist-tags"]["latest"] = kind[-1].version
        file.write_text(json.dumps(document))
    bench.notes.append(
        "Verdaccio got all but the first version of a package through its files: published one by one they take minutes."
    )


def _paths(places: list[Place], name: str) -> dict[str, list[str]]:
    return {place.name: [f"{place.base}bench-{name}"] for place in places}


def _rows(bench: Bench, places: list[Place], shelf: packages.Shelf) -> None:
    forms = {"full": NPM_FULL, "short": NPM_SHORT}

    def packument(form: str, size: str, gzip: bool) -> None:
        count = len(getattr(shelf, size))

        def holds(answer: Answer) -> bool:
            return gzip or len(json.loads(areas.plain(answer))["versions"]) >= count

        slug = f"npm-{form}-{size}{'-gzip' if gzip else ''}"
        areas.read(bench, slug, places, _paths(places, size), areas.accepting(forms[form], gzip=gzip), holds=holds)

    for size in ("small", "large"):
        for form in forms:
            packument(form, size, size == "large")
    for size in ("small", "large"):
        areas.unchanged(
            bench, f"npm-unchanged-{size}", places, _paths(places, size), areas.accepting(NPM_FULL, gzip=True)
        )
    for clients in (1, 8):
        areas.publishes(bench, f"npm-publish-{clients}", places, npm_publish, _added, clients)
    for size in ("small", "large"):
        areas.fresh(
            bench, f"npm-fresh-{size}", places, npm_publish, lambda version: npm_release(f"bench-{size}", version),
            _paths(places, size), areas.accepting(NPM_FULL),
        )  # fmt: skip
    _growth(bench, places[0])
    areas.installs(bench, AREA, places, installs.npm)
    tarballs = {place.name: [f"{place.base}{item.name}/-/{item.filename}" for item in shelf.middle] for place in places}
    areas.read(bench, "npm-tarball", places, tarballs, [], holds=lambda answer: answer.body == shelf.middle[0].data)
    for form in forms:
        packument(form, "middle", True)
    for form in forms:
        packument(form, "middle", False)
        packument(form, "large", False)


def _added(name: str, version: str) -> Release:
    return npm_release(name, version, FILLER_BYTES)


def _growth(bench: Bench, mine: Place) -> None:
    """A package of one version in a repository that has nothing else, and in the one that everything was added to."""
    slugs = [f"npm-growth-{form}" for form in ("full", "short")]
    if not any(bench.wants(slug) for slug in slugs):
        return
    server = areas.server(bench, "repoman-before")
    before = areas.ours(server, server.add("js", "npm"), server.api_token())
    # The filled one's small package may have grown in other rows: a new one, the same on both.
    item = npm_release("bench-growth", "1.0.0")
    for place in (before, mine):
        script = npm_publish(place.host, place.base, item, place.signed)
        client.run(place.address, [script], connections=1)
    pairs = [before.named("before"), mine.named("after")]
    for slug, accept in zip(slugs, (NPM_FULL, NPM_SHORT), strict=True):
        paths = {place.name: [f"{place.base}{item.name}"] for place in pairs}
        areas.read(bench, slug, pairs, paths, areas.accepting(accept))
