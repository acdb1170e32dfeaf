"""PyPI: ours beside devpi and pypiserver."""

from __future__ import annotations

import contextlib
import json
import re
from urllib.parse import urljoin, urlsplit

from tests.bench import areas, client, installs, packages, peers, subjects
from tests.bench.client import Answer
from tests.bench.packages import FILLER_BYTES, SIMPLE_HTML, SIMPLE_JSON, Release, wheel, wheel_upload
from tests.bench.peers import Place
from tests.bench.rows import Bench

AREA = "pypi"
FORMS = {"json": SIMPLE_JSON, "html": SIMPLE_HTML}


def measure(bench: Bench) -> None:
    names = [f"project-{at:05}" for at in range(bench.plan.projects)]
    with contextlib.ExitStack() as stack:
        shelf = packages.pypi_shelf(bench.plan.versions)
        server = areas.server(bench)
        mine = areas.ours(server, server.add("python", "pypi"), server.api_token())
        limit = bench.plan.budgets[AREA] * 0.3
        areas.reduced(bench, shelf, areas.fill(bench, mine, wheel_upload, shelf.all(), limit))
        mine_many = areas.ours(server, server.add("many", "pypi"), "")
        _fill_names(bench, server, "bench/many", names)
        # It takes a while to start: the remotes go on with the same one.
        keeper = bench.rest if bench.includes("remote") else stack
        devpi = keeper.enter_context(peers.devpi(bench.folder / "devpi", shelf.all(), names))
        bench.say("devpi is there")
        light = stack.enter_context(peers.pypiserver(bench.folder / "pypiserver"))
        light_many = stack.enter_context(peers.pypiserver(bench.folder / "pypiserver-many"))
        assert light.folder is not None and light_many.folder is not None
        for item in shelf.all():
            (light.folder / item.filename).write_bytes(item.data)
        for name in names:
            (light_many.folder / f"{name.replace('-', '_')}-1.0-py3-none-any.whl").write_bytes(b"")
        bench.notes += [
            "devpi and pypiserver got their files through devpi's import and the folder; ours by uploads, and the names of "
            "the root index (releases without files) by rows, as devpi's and pypiserver's.",
            "pypiserver runs with the server it takes by itself (wsgiref: one thread, a connection for each request). It has "
            "no JSON and no conditional requests.",
        ]
        bench.shared[AREA] = devpi
        places = [mine, peers.devpi_index(devpi, "dev"), light]
        many = [mine_many, peers.devpi_index(devpi, "many"), light_many]
        _rows(bench, places, many, shelf, len(names))


def _fill_names(bench: Bench, server: subjects.Repoman, key: str, names: list[str]) -> None:
    file = bench.folder / "names.json"
    file.write_text(json.dumps(names))
    areas.run_in(server, "tests.bench.fill_names", key, str(file))


def _paths(places: list[Place], name: str) -> dict[str, list[str]]:
    return {place.name: [f"{place.index}bench-{name}/"] for place in places}


def _rows(bench: Bench, places: list[Place], many: list[Place], shelf: packages.Shelf, names: int) -> None:
    def page(form: str, size: str, gzip: bool = False) -> None:
        count = len(getattr(shelf, size))

        def holds(answer: Answer) -> bool:
            return _is(form, answer) and (gzip or _count(answer, rb"\.whl[\"'#]") >= count)

        slug = f"pypi-{form}-{size}{'-gzip' if gzip else ''}"
        areas.read(bench, slug, places, _paths(places, size), areas.accepting(FORMS[form], gzip=gzip), holds=holds)

    for size in ("small", "large"):
        for form in FORMS:
            page(form, size, size == "large")
    for size in ("small", "large"):
        areas.unchanged(bench, f"pypi-unchanged-{size}", places, _paths(places, size), areas.accepting(SIMPLE_JSON))
    roots = {place.name: [place.index] for place in many}
    for form, accept in FORMS.items():
        areas.read(
            bench, f"pypi-root-{form}", many, roots, areas.accepting(accept),
            holds=lambda answer: _is(form, answer) and _count(answer, rb"project-\d{5}[\"'<]") >= names,
        )  # fmt: skip
    for clients in (1, 8):
        areas.publishes(
            bench,
            f"pypi-publish-{clients}",
            places,
            wheel_upload,
            lambda name, version: wheel(name, version, FILLER_BYTES),
            clients,
        )
    for size in ("small", "large"):
        areas.fresh(
            bench, f"pypi-fresh-{size}", places, wheel_upload, lambda version: wheel(f"bench-{size}", version),
            _paths(places, size), lambda place: areas.accepting(SIMPLE_HTML),
        )  # fmt: skip
    _growth(bench, places[0])
    areas.installs(bench, AREA, places, installs.uv)
    if bench.wants("pypi-wheel"):
        wheels = {place.name: file_paths(place, "bench-middle") for place in places}
        known = {item.data for item in shelf.middle}
        areas.read(bench, "pypi-wheel", places, wheels, [], holds=lambda answer: areas.plain(answer) in known)
    for form in FORMS:
        page(form, "middle", True)
    for form in FORMS:
        page(form, "middle")
        page(form, "large")


def _is(form: str, answer: Answer) -> bool:
    return answer.header(b"content-type").startswith(SIMPLE_JSON) == (form == "json")


def _count(answer: Answer, pattern: bytes) -> int:
    return len(set(re.findall(rb"[\w.-]*" + pattern, areas.plain(answer))))


def file_paths(place: Place, project: str) -> list[str]:
    """Where the files of a project are, as its page says."""
    where = f"{place.index}{project}/"
    page = areas.get(place, where, areas.accepting(SIMPLE_HTML)).require(200)
    found = re.findall(rb"href=[\"']([^\"'#]+\.(?:whl|tar\.gz))", areas.plain(page))
    return [urlsplit(urljoin(place.url + where, link.decode())).path for link in found]


def _growth(bench: Bench, mine: Place) -> None:
    """A project of one file in a repository that has nothing else, and in the one that everything was added to."""
    slugs = [f"pypi-growth-{form}" for form in FORMS]
    if not any(bench.wants(slug) for slug in slugs):
        return
    server = areas.server(bench, "repoman-before")
    before = areas.ours(server, server.add("python", "pypi"), server.api_token())
    item: Release = wheel("bench-growth", "1.0")
    for place in (before, mine):
        client.run(place.address, [wheel_upload(place.host, place.base, item, place.signed)], connections=1)
    pairs = [before.named("before"), mine.named("after")]
    for slug, accept in zip(slugs, FORMS.values(), strict=True):
        paths = {place.name: [f"{place.index}{item.name}/"] for place in pairs}
        areas.read(bench, slug, pairs, paths, areas.accepting(accept))
