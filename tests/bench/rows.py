"""What is measured. Each function fills some rows of the results; rounds go over the servers in turn.

A row is named by its slug (`tag`, `tag-basic`, `up-4k-16` …); a sample is a rate and the processor seconds of the
server's whole process tree per unit. Rows of a group can be chosen by the slug's beginning.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tests.bench import client, content, measure, subjects
from tests.bench.client import LoadError, Request, ask, head
from tests.bench.measure import Sample
from tests.bench.subjects import IMAGES, MOUNTS, SOURCE, UPLOADS, Nginx, Repoman, Subject
from tests.running import ROOT
from tests.tools import path

CLIENTS = 16
SMALL, MIDDLE, LARGE = 4096, 2**20, 256 * 2**20
SEED_CLIENTS = 8
TRICKLES = 200
LUA = Path(__file__).with_name("reads.lua")
GIB = 2**30
S = TypeVar("S", bound=Subject)


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how much. `seconds` is a whole number: wrk knows no others."""

    seconds: int
    rounds: int
    large_rounds: int
    tags: int
    grown: int
    # Blobs per round, at most: what a server in memory takes is kept there.
    small_count: int
    middle_count: int
    # What is not measured after so many seconds is left out, and said so: the machine is busy with other things.
    budget: float
    # The areas of packages and of remotes: their budgets, their rounds, versions of the three packages, projects of the
    # root index, and how many bytes a cold file has.
    budgets: Mapping[str, float]
    area_rounds: int
    versions: tuple[int, int, int]
    projects: int
    cold_bytes: int
    # Versions of the small and the large Maven artifact; chart versions in the three indexes of Helm.
    releases: tuple[int, int]
    charts: tuple[int, int, int]


FULL = Plan(
    seconds=1, rounds=4, large_rounds=4, tags=1000, grown=100_000, small_count=4000, middle_count=96, budget=690,
    budgets={"npm": 185, "pypi": 275, "maven": 190, "helm": 190, "remote": 110}, area_rounds=3, versions=(1, 100, 1000),
    projects=5000, cold_bytes=32 * 2**20, releases=(1, 5000), charts=(10, 1000, 10_000),
)  # fmt: skip
QUICK = Plan(
    seconds=1, rounds=1, large_rounds=1, tags=200, grown=10_000, small_count=600, middle_count=24, budget=105,
    budgets={"npm": 45, "pypi": 65, "maven": 60, "helm": 75, "remote": 55}, area_rounds=1, versions=(1, 20, 200),
    projects=1000, cold_bytes=8 * 2**20, releases=(1, 500), charts=(10, 200, 2000),
)  # fmt: skip
AREAS = ("oci", "npm", "pypi", "maven", "helm", "remote")


@dataclass
class Bench:
    """One run: the servers that live, and what was measured. `folder` is the run's own, on a real file system."""

    plan: Plan
    folder: Path
    chosen: tuple[str, ...] = ()
    ours: Repoman | None = None
    peers: list[Subject] = field(default_factory=list)
    nginx: Nginx | None = None
    results: dict[str, dict[str, list[Sample]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    notes: list[str] = field(default_factory=list)
    images: list[content.Image] = field(default_factory=list)
    large: content.Blob | None = None
    # A server that one area leaves to the next, and what ends it.
    shared: dict[str, Any] = field(default_factory=dict)
    rest: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def includes(self, area: str) -> bool:
        """Whether rows of this area were asked for. Rows of all areas but OCI's are named with the area first."""
        prefixes = {row.partition("-")[0] for row in self.chosen}
        named = {prefix if prefix in AREAS else "oci" for prefix in prefixes}
        return not self.chosen or area in named

    def begin(self, area: str) -> None:
        """From now on the budget of this area counts."""
        self._area, self._area_begun = area, time.monotonic()

    def wants(self, slug: str) -> bool:
        """Whether this row was asked for, and there is time for it."""
        whole = not self.chosen or self._area in self.chosen
        if not whole and not any(slug == row or slug.startswith(f"{row}-") for row in self.chosen):
            return False
        budget = self.plan.budgets.get(self._area)
        if budget is None:
            budget = self.plan.budget if whole else float("inf")
        if time.monotonic() - self._area_begun < budget:
            return True
        self.notes.append(f"`{slug}` was not measured: the time of the run was over.")
        return False

    def all(self) -> list[Subject]:
        assert self.ours is not None
        return [self.ours, *self.peers]

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._begun:5.0f} s] {text}", file=sys.stderr, flush=True)

    def __post_init__(self) -> None:
        self._begun = time.monotonic()
        self.begin("oci")

    def sample(self, slug: str, subject: Subject, work: Callable[[], tuple[float, float]]) -> None:
        """`work` gives units done and the seconds they took."""
        before = measure.processor_seconds(subject.pids())
        units, seconds = work()
        after = measure.processor_seconds(subject.pids())
        if not units:
            raise LoadError(f"{subject.name} did nothing in {slug}")
        self.results[slug][subject.name].append(Sample(units / seconds, (after - before) / units))

    def forget(self, slug: str, subject: Subject, is_warming: bool) -> None:
        """Take back the sample of a round that was only there to fill everybody's caches."""
        if is_warming:
            self.results[slug][subject.name].pop()

    def report(self, slug: str) -> None:
        for name, samples in self.results.get(slug, {}).items():
            rate = measure.median([sample.rate for sample in samples])
            costs = [sample.cost for sample in samples if sample.cost is not None]
            cost = f"{measure.median(costs) * 1e6:12,.1f} µs" if costs else ""
            spread = measure.spread([sample.rate for sample in samples])
            self.say(f"  {slug:14} {name:16} {rate:12,.3f} {cost:16} spread {spread:4.0%}")


def turns(bench: Bench, rounds: int, found: Sequence[S]) -> Iterator[tuple[int, S]]:
    """Each server once a round, beginning with another one each time."""
    for number in range(rounds):
        at = number % len(found)
        for subject in (*found[at:], *found[:at]):
            yield number, subject


def wrk(
    subject: Subject, file: Path, headers: content.Headers, seconds: int, connections: int = CLIENTS
) -> tuple[int, float, float]:
    """Answers, seconds, and the median latency in seconds. Raises LoadError when one request failed."""
    words = [str(path("wrk")), "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(LUA), subject.url, "--", str(file)]
    for name, value in headers:
        words += [name, value]
    done = subprocess.run(words, capture_output=True, text=True, timeout=seconds + 60, check=False)
    found = re.search(r"^RESULT (\d+) (\d+) ([\d.]+) ([\d.]+) (\d+)$", done.stdout, re.MULTILINE)
    if not found:
        raise LoadError(f"wrk on {subject.name}: {done.stdout}{done.stderr}")
    count, duration, median, _, errors = found.groups()
    if int(errors):
        raise LoadError(f"{errors} of {count} requests to {subject.name} failed ({file.name}):\n{done.stdout}")
    return int(count), int(duration) / 1e6, float(median) / 1e6


# --- content ---------------------------------------------------------------------------------------------------------


def seed(bench: Bench) -> None:
    """The images, pushed to everybody: as many tags, manifests, configs and 4 KiB layers."""
    bench.images = [content.image(f"v{number}") for number in range(bench.plan.tags)]
    for subject in bench.all():
        headers = subject.write_headers()
        scripts = (content.push_image(subject.host, IMAGES, item, headers) for item in bench.images)
        load = client.run(subject.address, scripts, connections=SEED_CLIENTS, seconds=bench.plan.budget / 8)
        bench.say(f"{load.count} images pushed to {subject.name} in {load.seconds:.1f} s")
        if load.count < len(bench.images):  # scripts are taken in order, and those begun are finished
            bench.images = bench.images[: load.count]
            bench.notes.append(f"Only {load.count} images could be pushed to {subject.name} in time; others have more.")


def _large(bench: Bench) -> content.Blob:
    if bench.large is None:
        bench.large = content.blob(LARGE)
    return bench.large


# --- reads -----------------------------------------------------------------------------------------------------------

READS = ("tag", "digest", "head", "blob", "tags")
KINDS = ("anonymous", "basic", "token")


def _paths(bench: Bench) -> dict[str, list[str]]:
    return {
        "tag": [f"/v2/{IMAGES}/manifests/{item.tag}" for item in bench.images],
        "digest": [f"/v2/{IMAGES}/manifests/{item.digest}" for item in bench.images],
        "head": [f"/v2/{IMAGES}/manifests/{item.tag}" for item in bench.images],
        "blob": [f"/v2/{IMAGES}/blobs/{item.layer.digest}" for item in bench.images],
        "tags": [f"/v2/{IMAGES}/tags/list"],
    }


def _compare(bench: Bench, subject: Subject, headers: content.Headers) -> None:
    """Everybody gives the right bytes for what is about to be measured. Raises LoadError."""
    item = bench.images[len(bench.images) // 2]
    for place, digest in (
        (f"manifests/{item.tag}", item.digest),
        (f"manifests/{item.digest}", item.digest),
        (f"blobs/{item.layer.digest}", item.layer.digest),
    ):
        answer = ask(subject.address, Request(head("GET", f"/v2/{IMAGES}/{place}", subject.host, headers)))
        if content.digest_of(answer.require(200).body) != digest:
            raise LoadError(f"{subject.name} gave other bytes for {place}")
    answer = ask(subject.address, Request(head("GET", f"/v2/{IMAGES}/tags/list", subject.host, headers)))
    body = answer.require(200).body
    found = json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])["tags"]
    if len(found) != len(bench.images):
        note = f"{subject.name} gives {len(found)} of {len(bench.images)} tags in one answer."
        if note not in bench.notes:
            bench.notes.append(note)


def reads(bench: Bench) -> None:
    paths = _paths(bench)
    floor: dict[str, str] = {}
    if bench.nginx is not None:
        item = bench.images[0]
        listing = json.dumps({"name": IMAGES, "tags": sorted(image.tag for image in bench.images)}).encode()
        floor["tag"] = floor["digest"] = floor["head"] = bench.nginx.put("manifest", item.manifest)
        floor["blob"] = bench.nginx.put("blob", b"".join(item.layer.pieces))
        floor["tags"] = bench.nginx.put("tags", listing)
    busy: dict[str, float] = {}
    for kind in KINDS:
        found = [(subject, part) for subject in bench.all() if (part := subject.for_kind(kind)) is not None]
        for subject, part in found:
            _compare(bench, part, [*(subject.headers(kind) or []), ("Accept", content.ACCEPT)])
        names = {part.name: subject for subject, part in found}
        for what in READS:
            slug = what if kind == "anonymous" else f"{what}-{kind}"
            if not bench.wants(slug):
                continue
            running = [part for _, part in found]
            if kind == "anonymous" and bench.nginx is not None:
                running.append(bench.nginx)
            rounds = bench.plan.rounds if kind == "anonymous" else min(bench.plan.rounds, 3)
            for number, part in turns(bench, rounds + 1, running):
                _read(bench, slug, what, part, names.get(part.name), kind, paths[what], floor, busy)
                bench.forget(slug, part, number == 0)
            bench.report(slug)
    _mention(bench, "head", busy)


def _read(
    bench: Bench,
    slug: str,
    what: str,
    part: Subject,
    subject: Subject | None,
    kind: str,
    paths: list[str],
    floor: dict[str, str],
    busy: dict[str, float],
) -> None:
    headers = [("Accept", content.ACCEPT), *((subject.headers(kind) or []) if subject else [])]
    chosen = paths if subject else [floor[what]]
    if what == "head":

        def work() -> tuple[float, float]:
            scripts = content.head_requests(part.host, chosen, headers)
            load = client.run(part.address, scripts, connections=CLIENTS, seconds=bench.plan.seconds)
            busy[part.name] = max(busy.get(part.name, 0.0), load.client_seconds / load.seconds)
            return load.count, load.seconds

    else:
        file = bench.folder / "paths"
        file.write_text("\n".join(chosen) + "\n")

        def work() -> tuple[float, float]:
            count, seconds, _ = wrk(part, file, headers, bench.plan.seconds)
            return count, seconds

    bench.sample(slug, part, work)


# --- large blobs -----------------------------------------------------------------------------------------------------


def down(bench: Bench) -> None:
    """One 256 MiB blob, one client; gibibytes a second."""
    if not bench.wants("down-256m"):
        return
    item = _large(bench)
    found: list[Subject] = bench.all()
    with contextlib.ExitStack() as stack:
        front = stack.enter_context(subjects.accelerated(bench.folder / "accelerated"))
        found.append(front)
        for subject in found:
            script = content.push_blob(subject.host, IMAGES, item, front.behind.headers("token") or [])
            if not isinstance(subject, subjects.Accelerated):
                script = content.push_blob(subject.host, IMAGES, item, subject.write_headers())
            client.run(subject.address, [script], connections=1)
        where = {subject.name: f"/v2/{IMAGES}/blobs/{item.digest}" for subject in found}
        if bench.nginx is not None:
            where[bench.nginx.name] = bench.nginx.put("large", b"".join(item.pieces))
            found.append(bench.nginx)
        for _, subject in turns(bench, bench.plan.large_rounds, found):
            request = head("GET", where[subject.name], subject.host)

            def work(subject: Subject = subject, request: bytes = request) -> tuple[float, float]:
                # Four in a row: the clock of processor time ticks in hundredths of a second.
                seconds = sum(client.download(subject.address, request, item.size) for _ in range(4))
                return 4 * item.size / GIB, seconds

            bench.sample("down-256m", subject, work)
    bench.report("down-256m")


def up_large(bench: Bench) -> None:
    """One 256 MiB blob, one client; the floors are sha256 alone and write + fsync alone, in the same rounds."""
    if not bench.wants("up-256m"):
        return
    base = _large(bench).pieces[1]
    results = bench.results["up-256m"]
    for number in range(bench.plan.large_rounds):
        prefix = os.urandom(content.PREFIX_BYTES)
        item = content.Blob(content.digest_of(prefix, base), LARGE, (prefix, memoryview(base)))
        for _, subject in turns(bench, 1, bench.all()):

            def work(subject: Subject = subject, item: content.Blob = item) -> tuple[float, float]:
                script = content.push_blob(subject.host, UPLOADS, item, subject.write_headers())
                load = client.run(subject.address, [script], connections=1)
                return LARGE / GIB, load.seconds

            subject.write_headers()  # a token is fetched outside the measured time
            bench.sample("up-256m", subject, work)
        results["sha256 alone"].append(_hash_floor(memoryview(base)))
        results["write + fsync"].append(_write_floor(bench.folder / f"floor{number}", memoryview(base)))
    bench.report("up-256m")


def _hash_floor(data: memoryview) -> Sample:
    before, begun = time.process_time(), time.perf_counter()
    hasher = hashlib.sha256()
    for at in range(0, len(data), MIDDLE):
        hasher.update(data[at : at + MIDDLE])
    seconds = time.perf_counter() - begun
    size = len(data) / GIB
    return Sample(size / seconds, (time.process_time() - before) / size)


def _write_floor(file: Path, data: memoryview) -> Sample:
    before, begun = time.process_time(), time.perf_counter()
    with open(file, "wb", buffering=0) as written:
        for at in range(0, len(data), MIDDLE):
            written.write(data[at : at + MIDDLE])
        os.fsync(written.fileno())
    seconds = time.perf_counter() - begun
    file.unlink()
    size = len(data) / GIB
    return Sample(size / seconds, (time.process_time() - before) / size)


# --- small writes ----------------------------------------------------------------------------------------------------


def up_small(bench: Bench) -> None:
    for label, size, count in (("4k", SMALL, bench.plan.small_count), ("1m", MIDDLE, bench.plan.middle_count)):
        for clients in (1, CLIENTS):
            slug = f"up-{label}-{clients}"
            if not bench.wants(slug):
                continue
            busy: dict[str, float] = {}
            for _, subject in turns(bench, bench.plan.rounds, bench.all()):
                headers = subject.write_headers()
                items = [content.blob(size) for _ in range(count if clients > 1 else count // 2)]
                scripts = [content.push_blob(subject.host, UPLOADS, item, headers) for item in items]
                _writes(bench, slug, subject, scripts, clients, busy)
            _mention(bench, slug, busy)
            bench.report(slug)


def images_and_mounts(bench: Bench) -> None:
    if bench.wants("image"):
        busy: dict[str, float] = {}
        for number, subject in turns(bench, bench.plan.rounds, bench.all()):
            headers = subject.write_headers()
            made = [content.image(f"r{number}-{at}", 64 * 1024) for at in range(bench.plan.small_count // 4)]
            scripts = [content.push_image(subject.host, UPLOADS, item, headers) for item in made]
            _writes(bench, "image", subject, scripts, CLIENTS, busy)
        _mention(bench, "image", busy)
        bench.report("image")
    if bench.wants("mount"):
        busy = {}
        for _, subject in turns(bench, bench.plan.rounds, bench.all()):
            headers = subject.write_headers()
            pushed: list[str] = []
            sources = (_remembered(subject, headers, pushed) for _ in range(bench.plan.small_count // 4))
            client.run(subject.address, sources, connections=CLIENTS, seconds=2 * bench.plan.seconds)
            scripts = [content.mount(subject.host, MOUNTS, SOURCE, digest, headers) for digest in pushed]
            _writes(bench, "mount", subject, scripts, CLIENTS, busy)
        _mention(bench, "mount", busy)
        bench.report("mount")


def _remembered(subject: Subject, headers: content.Headers, pushed: list[str]) -> client.Script:
    """Push a new blob to be mounted from, and note its digest when it is there."""
    item = content.blob(256)
    yield from content.push_blob(subject.host, SOURCE, item, headers)
    pushed.append(item.digest)


def _writes(
    bench: Bench,
    slug: str,
    subject: Subject,
    scripts: Sequence[client.Script],
    clients: int,
    busy: dict[str, float],
) -> None:
    def work() -> tuple[float, float]:
        load = client.run(subject.address, scripts, connections=clients, seconds=bench.plan.seconds)
        busy[subject.name] = max(busy.get(subject.name, 0.0), load.client_seconds / load.seconds)
        return load.count, load.seconds

    bench.sample(slug, subject, work)


def _mention(bench: Bench, slug: str, busy: dict[str, float]) -> None:
    """Say where the load generator was what limited."""
    for name, share in busy.items():
        if share > 0.85:
            bench.notes.append(
                f"In `{slug}` the load generator was busy {share:.0%} of the time with {name}: a lower bound."
            )


# --- syncs -----------------------------------------------------------------------------------------------------------


def syncs(bench: Bench) -> None:
    """fsync, fdatasync and syncfs calls per 4 KiB blob, counted by strace."""
    if not any(bench.wants(f"fsync-{clients}") for clients in (1, CLIENTS)):
        return
    if shutil.which("strace") is None:
        bench.notes.append("strace is not on this machine: syncs per blob were not counted.")
        return
    for clients, count in ((1, 40), (CLIENTS, 320)):
        for subject in bench.all():
            headers = subject.write_headers()
            # The folders of two hex digits and SQLite's files are there and known before it counts.
            warm = [content.push_blob(subject.host, UPLOADS, content.blob(SMALL), headers) for _ in range(600)]
            client.run(subject.address, warm, connections=CLIENTS, seconds=2)
            items = [content.blob(SMALL) for _ in range(count)]
            scripts = [content.push_blob(subject.host, UPLOADS, item, headers) for item in items]
            calls = _traced(subject, lambda scripts=scripts: client.run(subject.address, scripts, connections=clients))  # type: ignore[misc]
            if calls is not None:
                bench.results[f"fsync-{clients}"][subject.name].append(Sample(calls / count))
            else:
                bench.notes.append(f"strace could not attach to {subject.name}.")
        bench.report(f"fsync-{clients}")


def _traced(subject: Subject, work: Callable[[], object]) -> int | None:
    """How many syncs the server's processes asked for while `work` ran; None where tracing is refused."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "calls"
        pids = [word for pid in measure.tree(subject.pids()) for word in ("-p", str(pid))]
        words = ["strace", "-c", "-f", "-e", "trace=fsync,fdatasync,syncfs", "-o", str(output), *pids]
        with open(Path(folder) / "messages", "wb") as messages:
            tracer = subprocess.Popen(words, stdout=messages, stderr=messages)
        try:
            time.sleep(1.0)  # strace says "attached" per thread, in an order of its own
            if tracer.poll() is not None:
                return None
            work()
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait(30)
        counted = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s.*sync", output.read_text(), re.MULTILINE)
        return sum(int(word) for word in counted)


# --- slow clients ----------------------------------------------------------------------------------------------------


class Trickle:
    """Connections that send one byte a second each: half of them inside their headers, half inside a body."""

    def __init__(self, subject: Subject, count: int) -> None:
        headers = subject.write_headers()
        self._open: list[socket.socket] = []
        self._over = threading.Event()
        for number in range(count):
            connection = socket.create_connection(subject.address, timeout=10)
            if number % 2:
                opened = ask(
                    subject.address, Request(head("POST", f"/v2/{UPLOADS}/blobs/uploads/", subject.host, headers, 0))
                )
                where = content.path_of(opened.require(202).header(b"location"))
                connection.sendall(head("PATCH", where, subject.host, headers, 1000))
            else:
                connection.sendall(
                    f"GET /v2/{IMAGES}/manifests/v1 HTTP/1.1\r\nHost: {subject.host}\r\nX-Slow: ".encode()
                )
            self._open.append(connection)
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        while not self._over.wait(1.0):
            for connection in self._open:
                # A server may end a slow connection: that is its right, and no business of this row.
                with contextlib.suppress(OSError):
                    connection.sendall(b"x")

    def alive(self) -> int:
        """How many the server has kept."""
        kept = 0
        for connection in self._open:
            connection.setblocking(False)
            try:
                kept += connection.recv(1) != b""
            except BlockingIOError:
                kept += 1
            except OSError:
                continue
            connection.setblocking(True)
        return kept

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        for connection in self._open:
            connection.close()


def trickle(bench: Bench) -> None:
    """Others' median latency with and without 200 slow connections; the rate here is requests a second per client."""
    if not bench.wants("trickle"):
        return
    file = bench.folder / "paths"
    file.write_text("\n".join(_paths(bench)["tag"]) + "\n")
    headers = [("Accept", content.ACCEPT)]
    kept: dict[str, int] = {}
    for _, subject in turns(bench, min(bench.plan.rounds, 3), bench.all()):
        _, _, quiet = wrk(subject, file, headers, bench.plan.seconds, 4)
        slow = Trickle(subject, TRICKLES)
        try:
            time.sleep(1.2)
            _, _, busy = wrk(subject, file, headers, bench.plan.seconds, 4)
            kept[subject.name] = slow.alive()
        finally:
            slow.close()
        bench.results["trickle-without"][subject.name].append(Sample(1 / quiet))
        bench.results["trickle-with"][subject.name].append(Sample(1 / busy))
    for name, count in kept.items():
        if count < TRICKLES:
            bench.notes.append(f"{name} had ended {TRICKLES - count} of the {TRICKLES} slow connections by itself.")
    bench.report("trickle-without")
    bench.report("trickle-with")


# --- start and idle --------------------------------------------------------------------------------------------------


def start(bench: Bench) -> None:
    """Ours, stopped and started on the folder that all the rows before have filled; then its memory at rest."""
    if not (bench.wants("start") or bench.wants("memory")):
        return
    assert bench.ours is not None
    server = bench.ours.server
    loaded = measure.memory_bytes(bench.ours.pids())
    bench.results["memory-loaded"]["repoman"].append(Sample(loaded / 2**20))
    for _ in range(min(bench.plan.rounds, 3)):
        server.stop()
        answered: list[float] = []
        begun = time.perf_counter()
        watch = threading.Thread(target=_first_answer, args=(bench.ours, begun, answered), daemon=True)
        watch.start()
        server.start()
        watch.join(30)
        if answered:
            bench.results["start"]["repoman"].append(Sample(answered[0]))
        bench.results["ready"]["repoman"].append(Sample(time.perf_counter() - begun))
        for subject_path in itertools.islice(_paths(bench)["tag"], 20):
            request = Request(head("GET", subject_path, bench.ours.host, [("Accept", content.ACCEPT)]))
            ask(bench.ours.address, request).require(200)
        time.sleep(3)
        bench.results["memory"]["repoman"].append(Sample(measure.memory_bytes(bench.ours.pids()) / 2**20))
        before = measure.processor_seconds(bench.ours.pids())
        time.sleep(2)
        idle = (measure.processor_seconds(bench.ours.pids()) - before) / 2
        bench.results["idle-processor"]["repoman"].append(Sample(idle * 100))
    for subject in bench.peers:
        bench.results["memory-loaded"][subject.name].append(Sample(measure.memory_bytes(subject.pids()) / 2**20))
    for slug in ("start", "ready", "memory", "memory-loaded", "idle-processor"):
        bench.report(slug)


def _first_answer(subject: Subject, begun: float, answered: list[float]) -> None:
    request = head("GET", "/v2/", subject.host)
    while time.perf_counter() - begun < 30:
        try:
            with socket.create_connection(subject.address, timeout=10) as connection:
                connection.sendall(request)
                if connection.recv(64).startswith(b"HTTP/1.1 401"):
                    answered.append(time.perf_counter() - begun)
                    return
        except OSError:
            pass  # not there yet
        time.sleep(0.01)


# --- growth ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _grown(bench: Bench, name: str, count: int) -> Iterator[tuple[Subject, list[dict[str, str]]]]:
    """Ours with `count` tags, manifests and blobs in one image, and what was put there."""
    data = bench.folder / name
    with subjects.repoman(data) as subject:
        listing = bench.folder / f"{name}.json"
        words = [sys.executable, "-m", "tests.bench.fill", str(count), IMAGES, str(listing)]
        done = subprocess.run(
            words, cwd=ROOT, env=subject.server.environment, capture_output=True, text=True, timeout=600, check=False
        )
        if done.returncode:
            raise LoadError(f"filling failed: {done.stdout}{done.stderr}")
        subject.name = name
        yield subject, json.loads(listing.read_text())


def growth(bench: Bench) -> None:
    """The same work on ours with 1,000 and with 100,000 tags, manifests and blobs, in turn."""
    slugs = ("tag", "digest", "blob", "page", "push", "manifest", "spread")
    if not any(bench.wants(f"growth-{slug}") for slug in slugs):
        return
    with contextlib.ExitStack() as stack:
        found = {}
        for count in (bench.plan.tags, bench.plan.grown):
            begun = time.monotonic()
            subject, items = stack.enter_context(_grown(bench, f"{count:,}", count))
            found[subject.name] = (subject, items)
            bench.say(f"{count:,} tags, manifests and blobs put in place in {time.monotonic() - begun:.0f} s")
        servers = [subject for subject, _ in found.values()]
        for slug in slugs:
            if not bench.wants(f"growth-{slug}"):
                continue
            for number, subject in turns(bench, bench.plan.rounds + 1, servers):
                items = found[subject.name][1]
                _grown_work(bench, slug, number, subject, items)
                bench.forget(f"growth-{slug}", subject, number == 0)
            bench.report(f"growth-{slug}")


def _grown_work(bench: Bench, slug: str, number: int, subject: Subject, items: list[dict[str, str]]) -> None:
    headers = [("Accept", content.ACCEPT)]
    row = f"growth-{slug}"
    if slug in ("push", "manifest"):
        signed = subject.write_headers()
        if slug == "push":
            blobs = [content.blob(SMALL) for _ in range(bench.plan.small_count)]
            scripts = [content.push_blob(subject.host, IMAGES, item, signed) for item in blobs]
        else:
            images = [content.image(f"g{number}-{at}") for at in range(bench.plan.small_count // 4)]
            scripts = [content.push_image(subject.host, IMAGES, item, signed) for item in images]
        _writes(bench, row, subject, scripts, CLIENTS, {})
        return
    # As many different names from both, so that what differs is the depth of the indexes, not the share in caches.
    some = random.Random(3).sample(items, min(len(items), bench.plan.tags))
    paths = {
        "tag": [f"/v2/{IMAGES}/manifests/{item['tag']}" for item in some],
        "digest": [f"/v2/{IMAGES}/manifests/{item['manifest']}" for item in some],
        "blob": [f"/v2/{IMAGES}/blobs/{item['layer']}" for item in items if item["layer"]],
        # Not the last 100 tags: their page would be shorter.
        "page": [f"/v2/{IMAGES}/tags/list?n=100&last={item['tag']}" for item in items[: len(items) // 2]][:200],
        "spread": [f"/v2/{IMAGES}/manifests/{item['tag']}" for item in items],
    }[slug]
    file = bench.folder / "paths"
    file.write_text("\n".join(paths) + "\n")

    def work() -> tuple[float, float]:
        count, seconds, _ = wrk(subject, file, headers, bench.plan.seconds)
        return count, seconds

    bench.sample(row, subject, work)


GROUPS: tuple[Callable[[Bench], None], ...] = (
    reads,
    down,
    up_small,
    up_large,
    images_and_mounts,
    syncs,
    trickle,
    start,
    growth,
)
