"""Helm: ours beside ChartMuseum, where that is on PATH, and nginx with the finished index as a file: the floor."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.bench import areas, client, installs, packages, peers, subjects
from tests.bench import measure as processes
from tests.bench.client import LoadError, head
from tests.bench.measure import Sample, median
from tests.bench.packages import FILLER_BYTES, Release, chart, chart_upload
from tests.bench.peers import Place
from tests.bench.rows import Bench, turns

AREA = "helm"
INDEX = "index.yaml"
YAML = "*/*"
SIZES = ("tiny", "small", "large")
READERS = 20
CHARTS = 20
PUSHES, LONG_SECONDS = 6, 3.0
CHECKED = 3
_ENTRY = re.compile(rb"\"?digest\"?: ?\"?[0-9a-f]{64}")
# What a push into an index costs beyond sending the index cannot be nothing, as the clocks are not exact.
LEAST_SECONDS = 1e-5


def measure(bench: Bench) -> None:
    with contextlib.ExitStack() as stack:
        server = areas.server(bench)
        token = server.api_token()
        folder = bench.folder / "charts"
        shelves = {size: packages.charts(count) for size, count in zip(SIZES, bench.plan.charts, strict=True)}
        mine = {name: repository(server, name, token) for name in (*SIZES, "uploads")}
        for size, items in shelves.items():
            areas.fill_files(bench, server, mine[size], areas.write_files(folder / size, archives(items)))
        _check_fill(bench, server, token)
        bench.notes.append("The indexes of Helm were put in place by rows or as files, not by uploads.")
        museum = _museum(bench, stack, folder)
        _memory(bench, server, [mine, *museum], bench.plan.charts[-1])
        added = [chart("added", f"1.{at}.0", FILLER_BYTES) for at in range(CHARTS)]
        for place in (mine, *museum):
            areas.fill(bench, place["uploads"], chart_upload, added, 30)
        floor = _floor(stack, mine, added)
        _rows(bench, [mine, *museum, floor], dict(zip(SIZES, bench.plan.charts, strict=True)), added)


Places = Mapping[str, Place]


def repository(server: subjects.Repoman, name: str, token: str) -> Place:
    base = server.add(f"charts-{name}", "helm")
    return areas.ours(server, base, token).at(base, uploads=f"{base}api/charts")


def _museum(bench: Bench, stack: contextlib.ExitStack, folder: Path) -> list[Places]:
    """ChartMuseum over the folder, or nothing, and said so."""
    if shutil.which(peers.CHARTMUSEUM) is None:
        bench.notes.append("chartmuseum is not on this machine's PATH and was not measured.")
        return []
    started = stack.enter_context(peers.chartmuseum(folder))
    bench.notes.append("ChartMuseum writes a line for each request to its log: it has no switch for that.")
    return [{name: peers.chartmuseum_repository(started, name) for name in (*SIZES, "uploads")}]


def _floor(stack: contextlib.ExitStack, mine: Places, added: Sequence[Release]) -> Places:
    content = {f"uploads/charts/{name}": data for name, data in archives(added).items()}
    for size in SIZES:
        for suffix, gzip in (("", False), (".gz", True)):
            found = areas.get(mine[size], mine[size].base + INDEX, areas.accepting(YAML, gzip=gzip)).require(200)
            content[f"{size}/{INDEX}{suffix}"] = found.body
    place = stack.enter_context(peers.files(content))
    return {name: place.at(f"/{name}/") for name in (*SIZES, "uploads")}


def archives(items: Sequence[Release]) -> dict[str, bytes]:
    return {item.filename: item.data for item in items}


def _check_fill(bench: Bench, server: subjects.Repoman, token: str) -> None:
    """What was filled by rows answers as what was uploaded. Raises LoadError."""
    items = packages.charts(CHECKED)
    told = []
    for name in ("filled", "uploaded"):
        place = repository(server, name, token)
        if name == "filled":
            areas.fill_files(bench, server, place, areas.write_files(bench.folder / "charts-check", archives(items)))
        else:
            areas.fill(bench, place, chart_upload, items, 60)
        told.append((index(place), [file_answer(place, item) for item in items]))
    if told[0] != told[1]:
        raise LoadError(f"the filled repository answers otherwise than one that was filled by uploads: {told}")


def index(place: Place) -> dict[str, Any]:
    """What is in it that does not depend on when and where it was made."""
    found: dict[str, Any] = json.loads(areas.get(place, place.base + INDEX).require(200).body)
    del found["generated"], found["serverInfo"]
    for entries in found["entries"].values():
        for entry in entries:
            del entry["created"]
    return found


def file_answer(place: Place, item: Release) -> tuple[int, str, bytes]:
    found = areas.get(place, f"{place.base}charts/{item.filename}")
    return found.status, found.header(b"content-type"), found.body


# --- rows ------------------------------------------------------------------------------------------------------------


def _rows(bench: Bench, servers: Sequence[Places], counts: Mapping[str, int], added: Sequence[Release]) -> None:
    def of(name: str) -> list[Place]:
        return [places[name] for places in servers]

    def paths(name: str, path: str = INDEX) -> dict[str, list[str]]:
        return {place.name: [place.base + path] for place in of(name)}

    for size in SIZES[1:]:
        areas.read(
            bench, f"helm-index-{size}", of(size), paths(size), areas.accepting(YAML),
            holds=lambda found: len(_ENTRY.findall(areas.plain(found))) >= counts[size],
        )  # fmt: skip
        areas.read(
            bench, f"helm-index-{size}-gzip", of(size), paths(size), areas.accepting(YAML, gzip=True),
            holds=lambda found: found.header(b"content-encoding") == "gzip",
        )  # fmt: skip
        areas.unchanged(bench, f"helm-unchanged-{size}", of(size), paths(size), areas.accepting(YAML))
    _fresh(bench, servers)
    known = {item.data for item in added}
    where = {place.name: [f"{place.base}charts/{item.filename}" for item in added] for place in of("uploads")}
    areas.read(bench, "helm-chart", of("uploads"), where, [], holds=lambda found: areas.plain(found) in known)
    takers = [place for place in of("uploads") if place.name != "nginx"]
    for clients in (1, 8):
        areas.publishes(
            bench, f"helm-upload-{clients}", takers, chart_upload,
            lambda name, version: chart(name, version, FILLER_BYTES), clients,
        )  # fmt: skip
    for helm in ("helm3", "helm4"):
        for size in SIZES[1:]:
            _updates(bench, f"helm-update{helm[-1]}-{size}", helm, of(size))


def _updates(bench: Bench, slug: str, helm: str, places: Sequence[Place]) -> None:
    """A real client that fetches and reads the index anew; it keeps nothing that it could compare with."""
    if not bench.wants(slug):
        return
    for number, place in turns(bench, bench.plan.area_rounds, places):
        home = bench.folder / f"home-{slug}-{place.name}-{number}"
        home.mkdir()

        def work() -> tuple[float, float]:
            begun = time.perf_counter()
            installs.helm_update(helm, place, home)
            return 1, time.perf_counter() - begun

        bench.sample(slug, place, work)
    bench.report(slug)


def _fresh(bench: Bench, servers: Sequence[Places]) -> None:
    """The index right after one push, one client; and how much longer that is than nginx needs for a file of that size."""
    floor = servers[-1]
    slugs = {size: f"helm-fresh-{size}" for size in SIZES}
    if not any(bench.wants(slug) for slug in slugs.values()):
        return
    for number in range(bench.plan.area_rounds):
        for size, slug in slugs.items():
            sending = _seconds(bench, slug, floor[size], -1)
            bench.results[slug]["nginx"].append(Sample(1 / sending))
            for places in servers[:-1]:
                whole = _seconds(bench, slug, places[size], number)
                bench.results[slug][places[size].name].append(Sample(1 / whole))
                beyond = max(whole - sending, LEAST_SECONDS)
                bench.results[f"helm-beyond-{size}"][places[size].name].append(Sample(1 / beyond))
    for size, slug in slugs.items():
        bench.report(slug)
        bench.report(f"helm-beyond-{size}")


def _seconds(bench: Bench, slug: str, place: Place, number: int) -> float:
    """Of one read of the index, the median of some, of fewer where it takes long; with a number, each after a push of a
    version of its own."""
    request = head("GET", place.base + INDEX, place.host, areas.accepting(YAML))
    size = client.fetch(place.address, request).size  # it was read before
    found = []
    for at in range(PUSHES):
        if number >= 0:
            item = chart("chart-000", f"2.{number}.{at}")
            upload = chart_upload(place.host, place.uploads, item, place.write_headers())
            client.run(place.address, [upload], connections=1)
        read = client.fetch(place.address, request)
        if number >= 0 and read.size <= size:
            bench.notes.append(f"{place.name} did not show a new version at once (`{slug}`).")
        size = read.size
        found.append(read.whole)
        if sum(found) > LONG_SECONDS:
            break
    return median(found)


# --- memory ----------------------------------------------------------------------------------------------------------


def _memory(bench: Bench, server: subjects.Repoman, servers: Sequence[Places], count: int) -> None:
    """By how much the processes grow while they index charts for the first time and READERS clients fetch the index."""
    if not bench.wants("helm-memory"):
        return
    server.server.stop()
    server.server.start()
    for places in servers:
        areas.get(places["tiny"], places["tiny"].base + INDEX).require(200)  # what a process needs for any request
        place = places["large"]
        before = processes.reset_peaks(place.pids())
        request = head("GET", place.base + INDEX, place.host, areas.accepting(YAML))
        deadline = time.monotonic() + bench.plan.seconds + 1

        def read() -> int:
            answers = 0
            while not answers or time.monotonic() < deadline:
                client.fetch(place.address, request)
                answers += 1
            return answers

        with ThreadPoolExecutor(READERS) as pool:
            answers = sum(work.result() for work in [pool.submit(read) for _ in range(READERS)])
        grown = processes.grown_bytes(place.pids(), before)
        bench.results["helm-memory"][place.name].append(Sample(grown / 2**20))
        bench.say(f"{answers} indexes of {count:,} versions read from {place.name} while it grew")
    bench.report("helm-memory")
