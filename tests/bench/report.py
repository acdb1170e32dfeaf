"""The table of one run, as Markdown."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.goals import GOALS, Goal, Results, more_goals
from tests.bench.measure import Sample, machine, median, spread
from tests.bench.rows import Bench

ORDER = ("repoman", "repoman + nginx", "distribution", "zot", "olareg", "nginx", "sha256 alone", "write + fsync")

INTRODUCTION = """# Benchmarks

Written by `make bench`. Nothing here is typed by hand: run it on your own machine for your own figures.

{machine}.
Servers: Repoman, {servers}.

How to read it. All servers run on this machine over the loopback and are measured in turn within one run, round by
round, each round beginning with another one; a figure is the median of {rounds} round(s), and a ratio the median of the
ratios of each round. Reads have one round more at the start that does not count, so that everybody's caches are full. The
load generator runs on the same cores. Absolute figures depend on the machine and on what else it does; ratios are what
counts. The second figure of a cell is processor time (user and system) of the *whole process tree* of the server, the
worker and the scheduler of ours included. Durability is left as each server has it: ours is durable (fsync) before it
answers; what distribution syncs is in the table of syncs below; olareg keeps everything in memory; zot is told to sync.
Nobody writes an access log. Ours writes with a registry token, as docker does; the peers take writes from
anybody, which costs them less. nginx, where it stands, sends static files of the same sizes: the floor.
{notes}"""


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a table. `rate` and `cost` make the two texts of a cell from a sample's fields."""

    slug: str
    label: str
    rate: Callable[[float], str]
    cost: Callable[[float], str] | None = None


def _per_second(value: float) -> str:
    return f"{value:,.0f}/s"


def _micro(value: float) -> str:
    """Processor seconds per request are, per 1,000 requests, as many milliseconds as microseconds per one."""
    return f"{value * 1000:.3f} s" if value < 0.01 else f"{value * 1000:.2f} s"


def _gib(value: float) -> str:
    return f"{value:.2f} GiB/s"


def _seconds(value: float) -> str:
    return f"{value:.2f} s"


def _read_lines(suffix: str) -> list[Line]:
    labels = {
        "tag": "manifest by tag", "digest": "manifest by digest", "head": "HEAD by tag", "blob": "4 KiB blob",
        "tags": "tags/list, all tags",
    }  # fmt: skip
    return [Line(f"{slug}{suffix}", label, _per_second, _micro) for slug, label in labels.items()]


def _tables(bench: Bench) -> list[tuple[str, str, list[Line]]]:
    """Title, what its cells are, and its lines."""
    per_thousand = "requests per second · processor seconds per 1,000 requests"
    writes = "per second · processor seconds per 1,000"
    plain = "{:.1f}".format
    return [
        (f"Small reads, {bench.plan.tags:,} tags, 16 clients, anonymous", per_thousand, _read_lines("")),
        (
            "The same with a password (Basic)",
            f"{per_thousand}; peers with htpasswd (bcrypt, cost 5)",
            _read_lines("-basic"),
        ),
        ("The same with a registry token (Bearer)", per_thousand, _read_lines("-token")),
        (
            "Large blobs, one client",
            "GiB per second · processor seconds per GiB",
            [Line("down-256m", "256 MiB down", _gib, _seconds), Line("up-256m", "256 MiB up", _gib, _seconds)],
        ),
        (
            "Writes",
            writes,
            [
                Line("up-4k-1", "4 KiB blob, 1 client", _per_second, _micro),
                Line("up-4k-16", "4 KiB blob, 16 clients", _per_second, _micro),
                Line("up-1m-1", "1 MiB blob, 1 client", _per_second, _micro),
                Line("up-1m-16", "1 MiB blob, 16 clients", _per_second, _micro),
                Line("image", "image (64 KiB layer, config, manifest), 16 clients", _per_second, _micro),
                Line("mount", "mount from another repository, 16 clients", _per_second, _micro),
            ],
        ),
        (
            "Syncs per 4 KiB blob",
            "fsync, fdatasync and syncfs calls of the whole tree, counted by strace, in a server that is warm",
            [Line("fsync-1", "1 client", plain), Line("fsync-16", "16 clients", plain)],
        ),
        (
            "Slow clients",
            "median latency of 4 other clients that read manifests, without and with 200 connections that send one byte a "
            "second",
            [
                Line("trickle-without", "without", lambda value: f"{1e6 / value:,.0f} µs"),
                Line("trickle-with", "with", lambda value: f"{1e6 / value:,.0f} µs"),
            ],
        ),
        (
            "Start and rest",
            "ours on the data folder that the rows above have filled; memory is the proportional set size of all processes",
            [
                Line("start", "start to first answer", _seconds),
                Line("ready", "start to ready (worker too)", _seconds),
                Line("memory", "memory at rest", lambda value: f"{value:.0f} MiB"),
                Line("memory-loaded", "memory after the rows above", lambda value: f"{value:.0f} MiB"),
                Line("idle-processor", "processor at rest", lambda value: f"{value:.1f} % of a core"),
            ],
        ),
        (
            f"Growth: ours with {bench.plan.tags:,} and {bench.plan.grown:,} tags, manifests and layers in one image",
            writes + "; as many different names are asked of both",
            [
                Line("growth-tag", "manifest by tag", _per_second, _micro),
                Line("growth-digest", "manifest by digest", _per_second, _micro),
                Line("growth-blob", "64-byte blob", _per_second, _micro),
                Line("growth-page", "a page of 100 tags, from anywhere", _per_second, _micro),
                Line("growth-spread", "manifest by tag, up to 20,000 different ones (not judged)", _per_second, _micro),
                Line("growth-push", "4 KiB blob up, 16 clients", _per_second, _micro),
                Line("growth-manifest", "image push, 16 clients", _per_second, _micro),
            ],
        ),
    ]


def render(bench: Bench, servers: str, folder: Path) -> str:
    results: Results = bench.results
    notes = "".join(f"\n- {note}" for note in dict.fromkeys(bench.notes))
    text = [
        INTRODUCTION.format(
            machine=f"{datetime.date.today():%B %Y}, {machine(folder)}",
            servers=servers,
            rounds=bench.plan.rounds,
            notes=f"\nNotes of this run:\n{notes}\n" if notes else "",
        )
    ]
    for title, meaning, lines in _tables(bench):
        text += _table(results, title, meaning, lines)
    text += _judged(results, [*GOALS, *more_goals(f"{bench.plan.tags:,}", f"{bench.plan.grown:,}")])
    text += _spreads(results)
    return "\n".join(text) + "\n"


def _table(results: Results, title: str, meaning: str, lines: Sequence[Line]) -> list[str]:
    there = [line for line in lines if results.get(line.slug)]
    if not there:
        return []
    names = list(dict.fromkeys(name for line in there for name in results[line.slug]))
    names.sort(key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
    rows = [f"## {title}", "", f"{meaning[0].upper()}{meaning[1:]}.", ""]
    rows += [f"| | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    for line in there:
        cells = [_cell(line, results[line.slug].get(name, ())) for name in names]
        rows.append(f"| {line.label} | {' | '.join(cells)} |")
    return [*rows, ""]


def _cell(line: Line, samples: Sequence[Sample]) -> str:
    if not samples:
        return ""
    text = line.rate(median([sample.rate for sample in samples]))
    costs = [sample.cost for sample in samples if sample.cost is not None]
    if costs and line.cost:
        text += f" · {line.cost(median(costs))}"
    return text


def _judged(results: Results, goals: Sequence[Goal]) -> list[str]:
    labels = {line.slug: line.label for _, _, lines in _tables_of_labels() for line in lines}
    rows = ["## Targets", "", "| row | target | reached | |", "| --- | --- | ---: | --- |"]
    missed = 0
    for goal in goals:
        value = goal.value(results)
        if value is None:
            continue
        met = goal.is_met(value)
        missed += not met
        shown = f"{value:.2f}{goal.unit}" if goal.unit in ("×", " s") else f"{value:.0f}{goal.unit}"
        kind = goal.row.rpartition("-")[2]
        label = labels.get(goal.row, goal.row)
        if goal.row.startswith("growth-"):
            label = f"growth: {label}"
        elif goal.row == "trickle-without":
            label = "200 slow connections"
        label += {"basic": ", Basic", "token": ", token"}.get(kind, "")
        rows.append(f"| {label} | {goal.text} | {shown} | {'met' if met else '**missed**'} |")
    verdict = (
        "Every target that could be measured is met." if not missed else f"{missed} of {len(rows) - 4} are missed."
    )
    return [*rows, "", verdict, ""]


def _tables_of_labels() -> list[tuple[str, str, list[Line]]]:
    from tests.bench.rows import FULL

    return _tables(Bench(FULL, Path()))


def _spreads(results: Results) -> list[str]:
    """How far the rounds of one cell lay apart: what a reader may take a difference for."""
    found = [
        spread([sample.rate for sample in samples])
        for row in results.values()
        for samples in row.values()
        if len(samples) > 1
    ]
    if not found:
        return []
    return [
        "## How steady it was",
        "",
        f"Between its slowest and its fastest round a cell spread by {median(found):.0%} of its median (the median of all "
        f"cells; the widest {max(found):.0%}).",
    ]
