"""The table of one run, as Markdown."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

from tests.bench.goals import GOALS, Goal, Results, more_goals
from tests.bench.measure import Sample, machine, median, spread
from tests.bench.rows import AREAS, Bench, Plan
from tests.bench.tables import Line, tables

ORDER = (
    "repoman", "repoman + nginx", "verdaccio", "devpi", "pypiserver", "chartmuseum", "distribution", "zot", "olareg", "nginx",
    "sha256 alone", "write + fsync",
)  # fmt: skip

INTRODUCTION = """# Benchmarks

Written by `make bench`. Nothing here is typed by hand: run it on your own machine for your own figures.

{machine}.
Servers: Repoman, {servers}.

How to read it. All servers run on this machine over the loopback and are measured in turn within one run, round by
round, each round beginning with another one; a figure is the median of {rounds} round(s), of packages and remotes of
{area_rounds}, and a ratio the median of the ratios of each round. Reads have one round more at the start that does not count, so that everybody's caches are full. The
load generator runs on the same cores. Absolute figures depend on the machine and on what else it does; ratios are what
counts. The second figure of a cell is processor time (user and system) of the *whole process tree* of the server, the
worker and the scheduler of ours included. Durability is left as each server has it: ours is durable (fsync) before it
answers; what distribution syncs is in the table of syncs below; olareg keeps everything in memory; zot is told to sync.
Nobody writes an access log. Ours writes with a registry token, as docker does, and takes packages with an API token; the
peers take writes from anybody, which costs them less. Rows of packages have a few requests at the start that do not count. nginx, where it stands, sends static files of the same sizes: the floor.

Of Maven and Helm. nginx has the files that are read as a tree, checksums, metadata and indexes included, as ours makes them;
of the long documents also the packed ones. A deploy is what Maven sends for one release, read of the metadata included. The first read of the
metadata is that after a deploy of files alone, as sbt and Bazel do it: Maven has read the metadata itself before it ends.
`mvn` takes the plugin that it runs from a local repository that was prepared, and everything else from the server;
`helm repo update` reads the index after it has fetched it, and that takes most of its time. After a push an index is longer,
so it takes longer to send: of each first read the time is told, too, that is left when that of nginx for a file of that size
is taken off, and this rest is what may not grow with the number of charts. Uploads of charts, and what is read of single
charts, are from a repository that has no others.
{notes}"""


def render(bench: Bench, servers: str, folder: Path) -> str:
    results: Results = bench.results
    notes = "".join(f"\n- {note}" for note in dict.fromkeys(bench.notes))
    text = [
        INTRODUCTION.format(
            machine=f"{datetime.date.today():%B %Y}, {machine(folder)}",
            servers=servers,
            rounds=bench.plan.rounds,
            area_rounds=bench.plan.area_rounds,
            notes=f"\nNotes of this run:\n{notes}\n" if notes else "",
        )
    ]
    for title, meaning, lines in tables(bench.plan):
        text += _table(results, title, meaning, lines)
    text += _judged(results, [*GOALS, *more_goals(bench.plan)], bench.plan)
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


def _judged(results: Results, goals: Sequence[Goal], plan: Plan) -> list[str]:
    labels = {line.slug: line.label for _, _, lines in tables(plan) for line in lines}
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
        area = goal.row.partition("-")[0]
        if goal.row.startswith("growth-"):
            label = f"growth: {label}"
        elif area in AREAS and area != "oci":
            part = goal.row.split("-")[1]
            label = f"{area}{' ' + part if area == 'remote' else ''}{', growth' if part == 'growth' else ''}: {label}"
        elif goal.row == "trickle-without":
            label = "200 slow connections"
        label += {"basic": ", Basic", "token": ", token"}.get(kind, "")
        rows.append(f"| {label} | {goal.text} | {shown} | {'met' if met else '**missed**'} |")
    verdict = (
        "Every target that could be measured is met." if not missed else f"{missed} of {len(rows) - 4} are missed."
    )
    return [*rows, "", verdict, ""]


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
