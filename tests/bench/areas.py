"""What the areas of packages have in common: rows of reads, of publishes, of first reads after a publish, of installs."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.bench import client, packages, subjects
from tests.bench.client import Answer, LoadError, Request, Script, ask, head
from tests.bench.content import Headers
from tests.bench.measure import Sample
from tests.bench.packages import Release
from tests.bench.peers import Place
from tests.bench.rows import SEED_CLIENTS, Bench, turns, wrk
from tests.bench.subjects import Repoman, basic
from tests.running import ROOT

# A server that needs longer for one answer is asked by few clients, so that a round ends.
SLOW_SECONDS, SLOW_CLIENTS = 0.12, 2
FRESH = 4
LONG_INSTALL = 10.0
Publish = Callable[[str, str, Release, Headers], Script]
Paths = Mapping[str, Sequence[str]]


def ours(subject: Repoman, base: str, token: str) -> Place:
    """One repository of ours as a place like the peers'."""
    format = base.split("/")[1]
    signed = basic("__token__", token) if format == "pypi" else [("Authorization", f"Bearer {token}")]
    index = f"{base}simple/" if format == "pypi" else ""
    return Place("repoman", subject.url, subject.pids, base, index=index, signed=signed)


def server(bench: Bench, name: str = "repoman-packages") -> Repoman:
    """Ours, for all areas of packages: started by the first that needs it."""
    if name not in bench.shared:
        started = subjects.repoman(bench.folder / name, REPOMAN_UPSTREAM_ALLOW="127.0.0.0/8")
        bench.shared[name] = bench.rest.enter_context(started)
    found: Repoman = bench.shared[name]
    return found


def get(place: Place, path: str, headers: Headers = ()) -> Answer:
    return ask(place.address, Request(head("GET", path, place.host, headers)))


def plain(answer: Answer) -> bytes:
    """The body, which may be chunked."""
    if b"transfer-encoding: chunked" not in answer.head.lower():
        return answer.body
    whole, left = b"", answer.body
    while left:
        size, _, left = left.partition(b"\r\n")
        whole, left = whole + left[: int(size, 16)], left[int(size, 16) + 2 :]
    return whole


def accepting(media_type: str, *, gzip: bool = False) -> Headers:
    return [("Accept", media_type), *([("Accept-Encoding", "gzip")] if gzip else [])]


def fill(bench: Bench, place: Place, publish: Publish, items: Sequence[Release], seconds: float) -> int:
    """Publish in order with some clients; how many are there when it ends or the time is over."""
    signed = place.write_headers()
    scripts = (publish(place.host, place.uploads, item, signed) for item in items)
    load = client.run(place.address, scripts, connections=SEED_CLIENTS, seconds=seconds)
    bench.say(f"{load.count} of {len(items)} published to {place.name} in {load.seconds:.1f} s")
    return load.count


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    """The folder, with these files by their paths in it."""
    for name, data in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return folder


def fill_files(bench: Bench, server: Repoman, place: Place, folder: Path) -> None:
    """Put the files of a folder into a repository of ours by rows (`fill_files.py`)."""
    key = place.base.split("/", 2)[2].strip("/")
    begun = time.monotonic()
    run_in(server, "tests.bench.fill_files", key, str(folder))
    bench.say(f"{key} filled in {time.monotonic() - begun:.1f} s")


def run_in(server: Repoman, module: str, *arguments: str) -> None:
    """Run a module in the environment of the server. Raises LoadError."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT, env=server.server.environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if done.returncode:
        raise LoadError(f"filling failed: {done.stdout}{done.stderr}")


def read(
    bench: Bench,
    slug: str,
    places: Sequence[Place],
    paths: Paths,
    headers: Headers | Callable[[Place], Headers],
    *,
    status: int = 200,
    holds: Callable[[Answer], bool] = lambda answer: True,
) -> None:
    """One row. A place whose first answer is not what the row is about is left out, and said so."""
    if not bench.wants(slug):
        return
    found: list[Place] = []
    slow: dict[str, int] = {}
    for place in places:
        if not paths.get(place.name):
            continue
        sent = headers(place) if callable(headers) else headers
        try:
            answer = get(place, paths[place.name][0], sent)
            if answer.status != status or not holds(answer):
                bench.notes.append(f"{place.name} has nothing for `{slug}`.")
                continue
            seconds = _warm(place, paths[place.name], sent)
        except (LoadError, OSError) as error:
            bench.notes.append(f"{place.name} failed in `{slug}`: {short(error)}.")
            continue
        if seconds > SLOW_SECONDS:
            slow[place.name] = SLOW_CLIENTS
            bench.notes.append(
                f"{place.name} was asked by {SLOW_CLIENTS} clients in `{slug}`: an answer takes {seconds:.2f} s."
            )
        found.append(place)
    for _, place in turns(bench, bench.plan.area_rounds, found) if found else ():
        sent = headers(place) if callable(headers) else headers
        chosen = paths[place.name]

        def work() -> tuple[float, float]:
            if place.name in slow:
                scripts = _gets(place, chosen, sent, status)
                load = client.run(place.address, scripts, connections=slow[place.name], seconds=bench.plan.seconds)
                return load.count, load.seconds
            file = bench.folder / "paths"
            file.write_text("\n".join(chosen) + "\n")
            count, seconds, _ = wrk(place, file, sent, bench.plan.seconds)
            return count, seconds

        try:
            try:
                bench.sample(slug, place, work)
            except LoadError:
                if place.name in slow:
                    raise
                slow[place.name] = SLOW_CLIENTS
                bench.notes.append(
                    f"{place.name} was asked by {SLOW_CLIENTS} clients in `{slug}`: more got no answer in time."
                )
                bench.sample(slug, place, work)
        except (LoadError, OSError) as error:
            bench.notes.append(f"{place.name} failed in `{slug}`: {short(error)}.")
    bench.report(slug)


def _warm(place: Place, paths: Sequence[str], headers: Headers) -> float:
    """Fill the server's caches a little; seconds of the fastest of some answers to one client."""
    fastest = float("inf")
    for attempt in range(3):
        begun = time.perf_counter()
        get(place, paths[0], headers)
        fastest = min(fastest, time.perf_counter() - begun)
        if attempt == 0 and fastest < SLOW_SECONDS:
            client.run(place.address, _gets(place, paths, headers, None), connections=4, seconds=0.15)
    return fastest


def _gets(place: Place, paths: Sequence[str], headers: Headers, status: int | None) -> Iterator[Script]:
    requests = [Request(head("GET", path, place.host, headers)) for path in paths]

    def one(request: Request) -> Script:
        answer = yield request
        if status is not None:
            answer.require(status)

    while True:
        for request in requests:
            yield one(request)


def etag_of(place: Place, path: str, headers: Headers) -> str:
    """Empty when the server gives none."""
    answer = get(place, path, headers)
    return answer.header(b"etag") if answer.status == 200 else ""


def unchanged(bench: Bench, slug: str, places: Sequence[Place], paths: Paths, headers: Headers) -> None:
    """Conditional requests: the client has the document already."""
    if not bench.wants(slug):
        return
    tags = {place.name: etag_of(place, paths[place.name][0], headers) for place in places}
    for name, tag in tags.items():
        if not tag:
            bench.notes.append(f"{name} gives no ETag: nothing in `{slug}`.")
    with_tag = [place for place in places if tags[place.name]]
    read(bench, slug, with_tag, paths, lambda place: [*headers, ("If-None-Match", tags[place.name])], status=304)


def publishes(
    bench: Bench,
    slug: str,
    places: Sequence[Place],
    publish: Publish,
    make: Callable[[str, str], Release],
    clients: int,
) -> None:
    """New versions of eight packages in turn, by so many clients at once."""
    if not bench.wants(slug):
        return
    busy: dict[str, float] = {}
    for number, place in turns(bench, bench.plan.area_rounds, places):
        count = min(250, bench.plan.small_count)
        items = [make(f"added-{clients}-{at % 8}", f"{number + 1}.{at}.0") for at in range(count)]
        signed = place.write_headers()
        scripts = [publish(place.host, place.uploads, item, signed) for item in items]

        def work() -> tuple[float, float]:
            load = client.run(place.address, scripts, connections=clients, seconds=bench.plan.seconds)
            busy[place.name] = max(busy.get(place.name, 0.0), load.client_seconds / load.seconds)
            return load.count, load.seconds

        try:
            bench.sample(slug, place, work)
        except (LoadError, OSError) as error:
            bench.notes.append(f"{place.name} failed in `{slug}`: {short(error)}.")
    for name, share in busy.items():
        if share > 0.85:
            bench.notes.append(
                f"In `{slug}` the load generator was busy {share:.0%} of the time with {name}: a lower bound."
            )
    bench.report(slug)


def fresh(
    bench: Bench,
    slug: str,
    places: Sequence[Place],
    publish: Publish,
    make: Callable[[str], Release],
    paths: Paths,
    headers: Headers | Callable[[Place], Headers],
) -> None:
    """The first read after a publish, one client: the document has to be made anew. Requests a second of the reads."""
    if not bench.wants(slug):
        return
    for number, place in turns(bench, bench.plan.area_rounds, places):
        sent = headers(place) if callable(headers) else headers
        get(place, paths[place.name][0], sent)  # it was read before
        seconds = 0.0
        for at in range(FRESH):
            item = make(f"2.{number}.{at}")
            client.run(place.address, [publish(place.host, place.uploads, item, place.write_headers())], connections=1)
            begun = time.perf_counter()
            answer = get(place, paths[place.name][0], sent).require(200)
            seconds += time.perf_counter() - begun
            if item.version.encode() not in answer.body:
                bench.notes.append(f"{place.name} did not show a new version at once (`{slug}`).")
        bench.results[slug][place.name].append(Sample(FRESH / seconds))
    bench.report(slug)


Install = Callable[[Place, Path, Path], None]


def installs(bench: Bench, area: str, places: Sequence[Place], install: Install) -> None:
    """A real client that installs the whole set: with an empty cache, then again with a full one."""
    cold, warm = f"{area}-install-cold", f"{area}-install-warm"
    if not bench.wants(cold):
        return
    left_out: set[str] = set()
    for number, place in turns(bench, bench.plan.area_rounds, places):
        if place.name in left_out:
            continue
        home = bench.folder / f"home-{area}-{place.name}-{number}"
        try:
            for at, slug in enumerate((cold, warm)):
                target = home / f"project-{at}"
                target.mkdir(parents=True)

                def work() -> tuple[float, float]:
                    begun = time.perf_counter()
                    install(place, home, target)
                    return 1, time.perf_counter() - begun

                bench.sample(slug, place, work)
        except LoadError as error:
            bench.notes.append(f"{place.name} failed in `{cold}`: {short(error)}.")
            left_out.add(place.name)
        else:
            if 1 / bench.results[cold][place.name][-1].rate > LONG_INSTALL:
                bench.notes.append(f"An install from {place.name} takes so long that it was measured once.")
                left_out.add(place.name)
    bench.report(cold)
    bench.report(warm)


def short(error: Exception) -> str:
    """For a note: without the answer that it may quote."""
    return " ".join(str(error).partition(": b'")[0].split())[:200].rstrip(".")


def reduced(bench: Bench, shelf: packages.Shelf, published: int) -> None:
    """What could not be published in time is not in the others either."""
    missing = len(shelf.all()) - published
    if missing > 0:
        shelf.large = shelf.large[: max(0, len(shelf.large) - missing)]
        bench.notes.append(
            f"Only {len(shelf.large)} versions of the large package could be published in time; all have as many."
        )
