"""The benchmarks' own parts: what they send, what they aim at, and how a run is told."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.bench import area_helm, goals, measure, packages, report
from tests.bench.client import Answer, LoadError, Script
from tests.bench.measure import Sample
from tests.bench.rows import AREAS, FULL, QUICK, Bench, Plan
from tests.bench.tables import tables

PLANS = pytest.mark.parametrize("plan", [FULL, QUICK], ids=["full", "quick"])


def slugs(plan: Plan) -> list[str]:
    return [line.slug for _, _, lines in tables(plan) for line in lines]


def rates(*values: float) -> list[Sample]:
    return [Sample(value) for value in values]


@PLANS
def test_every_row_stands_in_one_table(plan: Plan) -> None:
    assert [slug for slug, count in Counter(slugs(plan)).items() if count > 1] == []


@PLANS
def test_goals_speak_of_rows_that_stand_in_tables(plan: Plan) -> None:
    there = set(slugs(plan))
    for goal in (*goals.GOALS, *goals.more_goals(plan)):
        assert goal.row in there, goal
        assert goal.other is None or goal.other[0] in there, goal


@PLANS
def test_every_area_of_packages_has_a_budget(plan: Plan) -> None:
    assert sorted(plan.budgets) == sorted(set(AREAS) - {"oci"})


def test_rows_of_an_area_are_asked_for_by_its_name(tmp_path: Path) -> None:
    asked = Bench(QUICK, tmp_path, ("helm-index-large", "maven"))
    assert [area for area in AREAS if asked.includes(area)] == ["maven", "helm"]
    asked.begin("helm")
    assert asked.wants("helm-index-large-gzip") and not asked.wants("helm-chart")
    asked.begin("maven")
    assert asked.wants("maven-jar")


def test_a_push_may_not_cost_more_the_more_charts_there_are() -> None:
    results = {"helm-beyond-tiny": {"repoman": rates(100, 90)}, "helm-beyond-large": {"repoman": rates(50, 90)}}
    (large,) = [goal for goal in goals.more_goals(FULL) if goal.other == ("helm-beyond-large", "repoman")]
    assert large.value(results) == 1.5 and not large.is_met(1.5) and large.is_met(1.3)
    assert "10,000 chart versions" in large.text


def test_goals_beside_a_peer_that_is_not_there_are_left_out() -> None:
    (goal,) = [goal for goal in goals.GOALS if goal.row == "helm-index-large"]
    assert goal.value({"helm-index-large": {"repoman": rates(300), "nginx": rates(900)}}) is None
    value = goal.value({"helm-index-large": {"repoman": rates(300), "chartmuseum": rates(120)}})
    assert value == 2.5 and not goal.is_met(value)


def test_the_page_names_the_area_of_a_target_and_explains_the_rows(tmp_path: Path) -> None:
    bench = Bench(QUICK, tmp_path)
    bench.results["helm-fresh-tiny"] = {"repoman": rates(200), "nginx": rates(10_000)}
    bench.results["helm-beyond-tiny"] = {"repoman": rates(250)}
    bench.results["helm-beyond-large"] = {"repoman": rates(200)}
    bench.results["maven-growth-jar"] = {"before": rates(100), "after": rates(50)}
    text = report.render(bench, "nginx", tmp_path)
    assert "| index.yaml, 10 chart versions | 5.0 ms | 0.1 ms |" in text
    label = "helm: index.yaml, 10 chart versions, less the time that nginx takes"
    assert f"| {label} | with 2,000 chart versions ≤ 1.3 × that time | 1.25× | met |" in text
    assert (
        "| maven, growth: jar of 16 KiB | ≤ 1.3 × the time of before everything was added | 2.00× | **missed** |"
        in text
    )
    assert "less the time" in text and "Of Maven and Helm." in text


# --- what is sent ----------------------------------------------------------------------------------------------------


def answered(script: Script, *statuses: int, body: bytes = b"") -> list[tuple[str, bytes]]:
    """What a script sends: the request line's method and path, and the body; GETs are answered with `body`."""
    sent = []
    left = list(statuses)
    try:
        request = next(script)
        while True:
            method, path, _ = request.head.split(b" ", 2)
            sent.append((f"{method.decode()} {path.decode()}", b"".join(bytes(piece) for piece in request.body)))
            status = left.pop(0) if method == b"GET" else 201
            request = script.send(Answer(status, b"", body if method == b"GET" else b""))
    except StopIteration:
        return sent


def test_a_deploy_is_what_maven_sends() -> None:
    item = packages.maven_release("lib", "1.1", 100)
    known = b"<metadata><versioning><versions><version>1.0</version></versions></versioning></metadata>"
    sent = answered(packages.maven_deploy("h", "/r/", item, ()), 200, body=known)
    folder = "/r/org/example/bench/lib"
    files = [f"{folder}/1.1/lib-1.1.pom", f"{folder}/1.1/lib-1.1.jar"]
    sums = ("", ".sha1", ".md5")
    assert [line for line, _ in sent] == [
        *(f"PUT {file}{ending}" for file in files for ending in sums),
        f"GET {folder}/maven-metadata.xml",
        *(f"PUT {folder}/maven-metadata.xml{ending}" for ending in sums),
    ]
    assert b"<version>1.0</version><version>1.1</version></versions>" in sent[7][1]
    assert len(sent[8][1]) == 40 and len(sent[9][1]) == 32
    assert sent[3][1] == item.data


def test_the_first_deploy_finds_no_metadata_and_sends_some() -> None:
    sent = answered(packages.maven_deploy("h", "/r/", packages.maven_release("lib", "1.0"), ()), 404)
    assert sent[7][1].count(b"<version>") == 1
    with pytest.raises(LoadError):
        answered(packages.maven_deploy("h", "/r/", packages.maven_release("lib", "1.0"), ()), 500)


def test_who_resolves_the_first_gets_the_whole_tree() -> None:
    for count in (packages.INSTALLS, packages.MAVEN_INSTALLS):
        reached = set(range(packages.ROOTS))
        waiting = list(reached)
        while waiting:
            new = set(packages.needs(waiting.pop(), count)) - reached
            reached |= new
            waiting += new
        assert reached == set(range(count))
    assert len(packages.maven_tree()) == packages.MAVEN_INSTALLS


@pytest.mark.parametrize(("count", "names"), [(10, 10), (1000, 200), (2000, 200), (200, 40)])
def test_charts_are_versions_of_up_to_two_hundred(count: int, names: int) -> None:
    made = packages.charts(count)
    assert len({item.filename for item in made}) == len({item.data for item in made}) == count
    assert len({item.name for item in made}) == names
    assert sorted(area_helm.archives(made)) == sorted(item.filename for item in made)


# --- what is measured ------------------------------------------------------------------------------------------------


def test_growth_is_that_of_the_largest_moment_since_it_was_reset() -> None:
    """Of a process of its own: this one may have room left from other tests."""
    with subprocess.Popen(
        [sys.executable, "-u", "-c", "input(); block = bytearray(b'1') * (48 * 2**20); del block; print(1); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        its = [process.pid]
        before = measure.reset_peaks(its)
        process.stdin.write(b"go\n")
        process.stdin.flush()
        process.stdout.readline()
        assert measure.grown_bytes(its, before) > 40 * 2**20
        again = measure.reset_peaks(its)
        assert measure.grown_bytes(its, again) < 20 * 2**20
        process.stdin.close()
