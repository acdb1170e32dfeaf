"""Maven 3.8, 3.9 and 4, coursier and sbt against local repositories."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.client import maven_scenarios as scenarios
from tests.client.maven_scenarios import GROUP, MAVENS, Place
from tests.client.pypi_scenarios import Desk
from tests.running import Server


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return scenarios.make_desk(tmp_path / "home")


@pytest.fixture(scope="module")
def key() -> Iterator[dict[str, str]]:
    with scenarios.signing_key() as environment:
        yield environment


def make_place(server: Server, namespace: str = "", *, login: str = "password", **fields: object) -> Place:
    """A private repository and a maintainer's credentials."""
    repository = server.make_repository(namespace, format="maven", **fields)
    username, password = server.make_user(repository, "maintainer")
    if login == "token":
        client = server.client(username, password)
        password = server.token(client, actions=["read", "publish"], repositories=[repository])["token"]
        username = "ci"
    return Place(server.admin.get(f"/api/v1/repositories/{repository}").json()["url"], username, password)


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory, embedded: Server, key: dict[str, str]) -> Place:
    place = make_place(embedded)
    author = scenarios.make_desk(tmp_path_factory.mktemp("author") / "home")
    scenarios.deploy_products(author, place, "mvn3.9", scenarios.write_products(author), key)
    return place


def answered(server: Server, place: Place) -> set[tuple[str, int]]:
    """Method and status of every request about the repository, as the server's log has them."""
    assert server.log is not None
    path = urlsplit(place.url).path
    requests = [json.loads(line) for line in server.log.read_text().splitlines() if f'"path":"{path}' in line]
    return {(request["method"], request["status"]) for request in requests if request["event"] == "request"}


@pytest.mark.parametrize(("tool", "login"), [("mvn3.8", "password"), ("mvn3.9", "token"), ("mvn4", "password")])
def test_maven_u1_s2_u10_a1_w8_deploying_and_resolving(
    desk: Desk, embedded: Server, key: dict[str, str], tool: str, login: str
) -> None:
    """A build of several modules into an empty repository; everything of it by another build that begins with nothing;
    deployed again, where a release that changed is refused, and a snapshot that changed is what comes with -U."""
    place = make_place(embedded, login=login)
    products = scenarios.write_products(desk)
    scenarios.deploy_products(desk, place, tool, products, key)
    local = scenarios.prepared(desk, "reader")
    scenarios.check_consumed(scenarios.consume(desk, place, tool, local=local), key)
    # The repository is private, and Maven keeps its credentials to itself until it is asked for them.
    assert {("GET", 401), ("GET", 200), ("GET", 404), ("PUT", 201)} <= answered(embedded, place)

    said = scenarios.deploy_again(desk, place, tool, products)
    found = scenarios.outcomes(said)
    assert {name: found[name] for name in ("parent", "bom", "core", "moving")} == {
        "parent": "SUCCESS",
        "bom": "SUCCESS",
        "core": "FAILURE",
        "moving": "SUCCESS",
    }
    # Maven 4 shows no more than the status of a file that it could not bring.
    assert "409" in said and ("is already published with other content" in said or tool == "mvn4"), said

    scenarios.check_consumed(scenarios.consume(desk, place, tool, "-U", local=local), key, moving="second")


@pytest.mark.parametrize("tool", MAVENS)
def test_maven_h15_w2_v4_r1_r3_refusals_are_shown(desk: Desk, embedded: Server, tool: str) -> None:
    """A wrong password and none at all, a snapshot where only releases are taken, a full namespace."""
    place = make_place(embedded)
    strict = make_place(embedded, options={"version_policy": "release"})
    full = make_place(embedded, embedded.make_namespace(quota_bytes=100))
    # The other transport of Maven 4 says nothing but the status.
    more = ["-Dmaven.resolver.transport=apache"] * (tool == "mvn4")
    said = scenarios.be_refused(desk, place, strict, full, tool, *more)
    found = scenarios.outcomes(said)
    assert {name: found[name] for name in scenarios.REFUSED} == dict.fromkeys(scenarios.REFUSED, "FAILURE")
    for module, sentence in {
        "reads-wrong": r"401.*the user name or password is wrong",
        "reads-nobody": r"401.*sign in",
        "writes-wrong": r"401.*the user name or password is wrong",
        "writes-snapshot": r"400.*takes releases only \(its version_policy\), and 1-SNAPSHOT is none of them",
        "writes-too-much": r"403.*uses 0 of 100 bytes",
    }.items():
        about = re.search(rf"\[ERROR\] Failed to execute goal [^\n]* project {module}:.*?-> \[Help", said, re.DOTALL)
        assert about and re.search(sentence, about[0]), f"{module}:\n{said}"


def test_maven_s4_i4_coursier(desk: Desk, seeded: Place) -> None:
    scenarios.coursier_fetch(desk, seeded)
    scenarios.coursier_resolve(desk, seeded)
    for place, signed in ((seeded, False), (seeded.with_password("wrong"), True)):
        said = scenarios.coursier(
            desk, place, "fetch", f"{GROUP}:core:1.0", signed=signed, cache="refused", fails=True
        )  # fmt: skip
        assert any("unauthorized" in line for line in said), said


def test_maven_u9_e15_sbt(desk: Desk, embedded: Server, seeded: Place) -> None:
    """A build that resolves from here and publishes; what sbt sends no metadata of is found by others."""
    said = scenarios.sbt_build_and_publish(desk, seeded)
    assert "Server returned HTTP response code: 409" in said, said
    newest, snapshot = f"{GROUP}:from-sbt:latest.release", f"{GROUP}:from-sbt:1.1-SNAPSHOT"
    assert f"{GROUP}:from-sbt:1.0:default" in scenarios.coursier(desk, seeded, "resolve", newest)
    files = [Path(line).name for line in scenarios.coursier(desk, seeded, "fetch", snapshot)]
    assert "from-sbt-1.1-SNAPSHOT.jar" in files and "app-1.0.jar" in files


# --- many at once ----------------------------------------------------------------------------------------------------

TOGETHER = 16
REAL = 4


@pytest.mark.timeout(400)
def test_maven_g5_e1_deploys_at_the_same_time_lose_no_version(desk: Desk, server: Server) -> None:
    """Four of Maven's, and twelve that send what it sends in its order."""
    place = make_place(server)
    artifact = "together"
    scenarios.write_settings(desk, place)
    folder = f"{place.url}{GROUP.replace('.', '/')}/{artifact}/"
    with server.client(place.username, place.password) as client, ThreadPoolExecutor(TOGETHER) as pool:

        def by_hand(version: str) -> None:
            # Maven takes a while to start: the others begin when the first of them is in the middle of its deploy.
            deadline = time.monotonic() + 120
            while client.get(f"{folder}maven-metadata.xml").status_code == 404 and time.monotonic() < deadline:
                time.sleep(0.05)
            scenarios.put_release(client, place, artifact, version, secrets.token_bytes(2000))

        versions = [f"1.{number}" for number in range(TOGETHER)]
        running = [
            pool.submit(scenarios.deploy_file, desk, place, "mvn3.9", artifact, version) for version in versions[:REAL]
        ]
        running += [pool.submit(by_hand, version) for version in versions[REAL:]]
        for each in running:
            each.result()
        metadata = client.get(f"{folder}maven-metadata.xml").text
        assert re.findall("<version>(.*?)</version>", metadata) == versions
        assert "<release>1.15</release>" in metadata and "<latest>1.15</latest>" in metadata
        for version in versions:
            for extension in ("jar", "pom"):
                assert client.head(f"{folder}{version}/{artifact}-{version}.{extension}").status_code == 200
    assert scenarios.coursier(desk, place, "resolve", f"{GROUP}:{artifact}:latest.release") == [
        f"{GROUP}:{artifact}:1.15:default"
    ]
