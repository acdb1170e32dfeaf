"""What the benchmarks put in place by rows answers as what was uploaded, and breaks no invariant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.bench import area_helm, area_maven, areas, client, packages
from tests.bench.areas import Publish
from tests.bench.packages import Release
from tests.bench.peers import Place
from tests.bench.rows import QUICK, Bench
from tests.bench.subjects import Repoman
from tests.running import Deployment


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repoman]:
    with Deployment.embedded(tmp_path_factory.mktemp("filled")) as server:
        found = Repoman(server)
        found.prepare()
        yield found


def upload(place: Place, publish: Publish, items: Sequence[Release]) -> None:
    for item in items:
        script = publish(place.host, place.uploads, item, place.write_headers())
        client.run(place.address, [script], connections=1)


def charts_in(folder: Path, items: Sequence[Release]) -> Path:
    return areas.write_files(folder / "charts", area_helm.archives(items))


def assert_clean(subject: Repoman) -> None:
    """Every invariant holds, the namespace's count of bytes among them."""
    job = subject.server.job("fsck", rehash=True)
    assert job["state"] == "succeeded" and job["result"]["clean"], job


def test_poms_filled_by_rows_answer_as_those_that_were_deployed(subject: Repoman, tmp_path: Path) -> None:
    items = [packages.maven_pom("bench-fill", f"1.{at}") for at in (2, 10, 9)]
    filled = areas.ours(subject, subject.add("filled", "maven"), subject.api_token())
    deployed = areas.ours(subject, subject.add("deployed", "maven"), subject.api_token())
    files = {path: data for item in items for path, data in packages.maven_files(item).items()}
    areas.fill_files(Bench(QUICK, tmp_path), subject, filled, areas.write_files(tmp_path / "poms", files))
    upload(deployed, packages.maven_deploy, items)
    for path in area_maven.paths_of(items):
        told = area_maven.answer(filled, path)
        assert told[0] == 200 and told == area_maven.answer(deployed, path), path
    metadata = area_maven.answer(filled, packages.maven_at("bench-fill", "").metadata)[3]
    assert metadata.index(b"<version>1.9<") < metadata.index(b"<version>1.10<")
    assert_clean(subject)


def test_charts_filled_by_rows_answer_as_those_that_were_uploaded(subject: Repoman, tmp_path: Path) -> None:
    items = packages.charts(12)
    filled = area_helm.repository(subject, "filled", subject.api_token())
    uploaded = area_helm.repository(subject, "uploaded", subject.api_token())
    areas.fill_files(Bench(QUICK, tmp_path), subject, filled, charts_in(tmp_path, items))
    upload(uploaded, packages.chart_upload, items)
    found = area_helm.index(filled)
    assert sorted(found["entries"]) == [f"chart-{at:03}" for at in range(10)]
    assert [entry["version"] for entry in found["entries"]["chart-001"]] == ["1.1.0", "1.0.0"]
    assert found == area_helm.index(uploaded)
    for item in items:
        assert area_helm.file_answer(filled, item) == area_helm.file_answer(uploaded, item)
    assert_clean(subject)


def test_what_is_filled_by_rows_takes_uploads_and_bytes_that_are_there_twice(subject: Repoman, tmp_path: Path) -> None:
    place = area_helm.repository(subject, "both", subject.api_token())
    items = packages.charts(12)
    upload(area_helm.repository(subject, "earlier", subject.api_token()), packages.chart_upload, items[:5])
    areas.fill_files(Bench(QUICK, tmp_path), subject, place, charts_in(tmp_path, items))
    upload(place, packages.chart_upload, [packages.chart("chart-000", "2.0.0")])
    versions = [entry["version"] for entry in area_helm.index(place)["entries"]["chart-000"]]
    assert versions == ["2.0.0", "1.1.0", "1.0.0"]
    assert_clean(subject)
