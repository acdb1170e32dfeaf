"""What is aimed at, as ratios within one run, and whether a run reached it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.bench.measure import Sample, median
from tests.bench.rows import Plan

OURS = "repoman"
Results = Mapping[str, Mapping[str, Sequence[Sample]]]


@dataclass(frozen=True, slots=True)
class Goal:
    """`ours` and `other` are (row, server) pairs; the ratio is taken round by round, and its median counts.

    `field` is what is compared (rate or cost); without `other` the value itself counts, times `scale`.
    """

    row: str
    text: str
    limit: float
    at_least: bool = True
    other: tuple[str, str] | None = None
    server: str = OURS
    field: str = "rate"
    scale: float = 1.0
    unit: str = "×"
    # Compared with the slower one of these servers in the row, in place of `other`.
    slowest_of: tuple[str, ...] = ()
    # Compared with the best one of those of these servers that are in the row.
    best_of: tuple[str, ...] = ()

    def value(self, results: Results) -> float | None:
        """None when one of the two was not measured."""
        ours = results.get(self.row, {}).get(self.server)
        if not ours:
            return None
        mine = [self._of(sample) for sample in ours]
        if self.slowest_of:
            columns = [results[self.row].get(name) for name in self.slowest_of]
            if not all(columns):
                return None
            theirs = [min(self._of(sample) for sample in row) for row in zip(*columns, strict=True)]  # type: ignore[arg-type]
        elif self.best_of:
            columns = [results[self.row][name] for name in self.best_of if results[self.row].get(name)]
            if not columns:
                return None
            best = max if self.at_least else min
            theirs = best(([self._of(sample) for sample in column] for column in columns), key=median)
        elif self.other is None:
            return median(mine) * self.scale
        else:
            found = results.get(self.other[0], {}).get(self.other[1])
            if not found:
                return None
            theirs = [self._of(sample) for sample in found]
        if len(mine) != len(theirs):
            return median(mine) / median(theirs) if median(theirs) else None
        ratios = [one / two for one, two in zip(mine, theirs, strict=True) if two]
        return median(ratios) if ratios else None

    def _of(self, sample: Sample) -> float:
        return sample.rate if self.field == "rate" else sample.cost or 0.0

    def is_met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


def _ahead(row: str, peer: str, limit: float = 1.0, server: str = OURS) -> Goal:
    return Goal(row, f"{'≥' if limit != 1.0 else 'ahead of'} {f'{limit:g} × ' if limit != 1.0 else ''}{peer}", limit,
                other=(row, peer), server=server)  # fmt: skip


def _goals() -> list[Goal]:
    goals: list[Goal] = []
    for row in ("tag", "digest", "head", "blob", "tags"):
        goals += [
            _ahead(row, "distribution", 2.0),
            _ahead(row, "zot"),
            _ahead(row, "olareg", 0.6),
            Goal(row, "≤ 60 µs of processor time", 60, False, field="cost", scale=1e6, unit=" µs"),
        ]
        for kind in ("basic", "token"):
            named = f"{row}-{kind}"
            goals.append(Goal(named, "≥ 0.85 × our own anonymous", 0.85, other=(row, OURS)))
            goals += [_ahead(named, peer) for peer in ("distribution", "zot")]
    goals += [
        _ahead("down-256m", "distribution"),
        _ahead("down-256m", "nginx", 0.9),
        Goal("down-256m", "processor time per GiB ≤ 1.6 × nginx", 1.6, False, ("down-256m", "nginx"), field="cost"),
        Goal("down-256m", "behind nginx (X-Accel-Redirect): processor time equal to nginx (≤ 1.1 ×)", 1.1, False,
             ("down-256m", "nginx"), server="repoman + nginx", field="cost"),
        Goal("up-256m", "≥ 0.85 × the slower of sha256 and write + fsync", 0.85,
             slowest_of=("sha256 alone", "write + fsync")),
    ]  # fmt: skip
    for row in ("up-4k-16", "up-1m-16"):
        goals.append(_ahead(row, "zot", 1.5))
    for row in ("image", "mount"):
        goals += [_ahead(row, "distribution"), _ahead(row, "zot")]
    return goals


PEERS = ("verdaccio", "devpi", "pypiserver", "distribution")


def _ahead_of_all(row: str, limit: float = 1.0, at_least: bool = True) -> Goal:
    if not at_least:
        return Goal(row, "not more than the best peer", 1.0, False, best_of=PEERS)
    return Goal(row, f"≥ {limit:g} × the best peer" if limit != 1.0 else "ahead of the best peer", limit, best_of=PEERS)


def _package_goals() -> list[Goal]:
    """Every row ahead of the best peer, small documents three times; what does not change costs the same for ever."""
    goals: list[Goal] = []
    for area, forms in (("npm", ("full", "short")), ("pypi", ("json", "html"))):
        for form in forms:
            goals.append(_ahead_of_all(f"{area}-{form}-small", SMALL_FACTOR))
            for size in ("middle", "large"):
                goals += [_ahead_of_all(f"{area}-{form}-{size}{suffix}") for suffix in ("", "-gzip")]
        goals += [_ahead_of_all(f"{area}-unchanged-{size}", SMALL_FACTOR) for size in ("small", "large")]
        singles = ("fresh-small", "fresh-large", "publish-1", "publish-8", "install-cold", "install-warm")
        files = ("tarball",) if area == "npm" else ("root-json", "root-html", "wheel")
        goals += [_ahead_of_all(f"{area}-{row}") for row in (*files, *singles)]
        text = "≤ 1.3 × the time of before everything was added"
        for form in forms:
            row = f"{area}-growth-{form}"
            goals.append(Goal(row, text, 1.3, False, (row, "after"), server="before"))
        row = f"{area}-unchanged-large"
        text = "the largest takes ≤ 1.3 × its time"
        goals.append(Goal(f"{area}-unchanged-small", text, 1.3, False, (row, OURS)))
    for area in ("npm", "pypi", "oci"):
        has_pages = area != "oci"
        rows = ("page", "first", "cold", "page-crowd", "crowd") if has_pages else ("first", "cold", "crowd")
        goals += [_ahead_of_all(f"remote-{area}-{row}") for row in rows]
        for row in ("page-calls", "calls") if has_pages else ("calls",):
            goals.append(Goal(f"remote-{area}-{row}", "1 upstream request", 1, False, unit=""))
            goals.append(_ahead_of_all(f"remote-{area}-{row}", at_least=False))
    return goals


def _repository_goals() -> list[Goal]:
    """What is read warm is ahead of ChartMuseum, three times where it is a document. nginx is the floor, and not judged."""
    peer = "chartmuseum"
    goals = [
        _ahead(f"helm-index-{size}{way}", peer, SMALL_FACTOR) for size in ("small", "large") for way in ("", "-gzip")
    ]
    goals += [_ahead(row, peer) for row in ("helm-chart", "helm-upload-1", "helm-upload-8")]
    goals += [_ahead(f"helm-fresh-{size}", peer) for size in ("tiny", "small", "large")]
    goals += [_ahead(f"helm-update{major}-{size}", peer) for major in "34" for size in ("small", "large")]
    text = "the largest takes ≤ 1.3 × its time"
    for area in ("maven", "helm"):
        goals.append(Goal(f"{area}-unchanged-small", text, 1.3, False, (f"{area}-unchanged-large", OURS)))
    text = "≤ 1.3 × the time of before everything was added"
    for row in ("maven-growth-metadata", "maven-growth-jar"):
        goals.append(Goal(row, text, 1.3, False, (row, "after"), server="before"))
    return goals


SMALL_FACTOR = 3.0
GOALS = [*_goals(), *_package_goals(), *_repository_goals()]


def more_goals(plan: Plan) -> list[Goal]:
    """Those that name the sizes of the run, and those that need no peer."""
    small, grown = f"{plan.tags:,}", f"{plan.grown:,}"
    # What a longer index costs to send is not the push's: beyond that, a push may not cost more the more is there.
    pushes = [
        Goal(
            "helm-beyond-tiny",
            f"with {count:,} chart versions ≤ 1.3 × that time",
            1.3,
            False,
            (f"helm-beyond-{size}", OURS),
        )
        for size, count in zip(("small", "large"), plan.charts[1:], strict=True)
    ]
    goals = [
        Goal(f"growth-{row}", f"≤ 1.3 × the time at {small}", 1.3, False, (f"growth-{row}", grown), server=small)
        for row in ("tag", "digest", "blob", "push", "manifest", "page")
    ]
    return [
        *goals,
        *pushes,
        # Rates are one over the median latency here.
        Goal("trickle-without", "median latency of others ≤ 1.5 × of without", 1.5, False, ("trickle-with", OURS)),
        Goal("memory", "≤ 250 MiB", 250, False, unit=" MiB"),
        Goal("start", "≤ 4 s to the first answer", 4, False, unit=" s"),
    ]
