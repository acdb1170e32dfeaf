"""Maven, coursier and sbt through remote and virtual repositories: cold, warm, and with the upstream stopped.

The upstream is a second server of ours, or Maven Central as this machine's own Maven is set up to use it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.client import maven_scenarios as scenarios
from tests.client.maven_scenarios import GROUP, MAVENS, Place
from tests.client.pypi_scenarios import Desk
from tests.client.test_remote_clients import both, remote_of, stopped
from tests.running import Deployment, Server
from tests.tools import provision

TOOLS = [tool if tool == "mvn3.9" else pytest.param(tool, marks=pytest.mark.every_client) for tool in MAVENS]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return scenarios.make_desk(tmp_path / "home")


@pytest.fixture(scope="module")
def key() -> Iterator[dict[str, str]]:
    with scenarios.signing_key() as environment:
        yield environment


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The upstream, which is stopped and started again."""
    with Deployment.embedded(tmp_path_factory.mktemp("origin")) as found:
        yield found


@pytest.fixture(scope="module")
def central() -> str:
    return provision.central_address(provision.cache_folder()) + "/"


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory, central: str) -> Iterator[Server]:
    allowed = f"127.0.0.0/8,{urlsplit(central).hostname}"
    with Deployment.embedded(tmp_path_factory.mktemp("relay"), REPOMAN_UPSTREAM_ALLOW=allowed) as found:
        yield found


def place_of(server: Server, repository: str, role: str) -> Place:
    """With a user that has the role in the whole namespace: members of a virtual repository are in it."""
    username, password = server.make_user(repository.partition("/")[0], role)
    return Place(f"{server.url}/maven/{repository}/", username, password)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, origin: Server, key: dict[str, str]) -> Place:
    """What the upstream has, and a reader of it: it gives nothing to anybody else."""
    repository = origin.make_repository(format="maven")
    author = scenarios.make_desk(tmp_path_factory.mktemp("author") / "home")
    products = scenarios.write_products(author)
    scenarios.deploy_products(author, place_of(origin, repository, "publisher"), "mvn3.9", products, key)
    return place_of(origin, repository, "reader")


def relayed(relay: Server, source: Place, **settings: object) -> str:
    """A remote repository of the source in which nothing is held yet."""
    return remote_of(relay, "maven", source.url, username=source.username, password=source.password, **settings)


# --- another server of ours ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", TOOLS)
def test_maven_16_resolves_cold_warm_and_without_the_upstream(
    desk: Desk, relay: Server, origin: Server, source: Place, key: dict[str, str], tool: str
) -> None:
    place = place_of(relay, relayed(relay, source), "reader")
    scenarios.check_consumed(scenarios.consume(desk, place, tool), key)
    scenarios.check_consumed(scenarios.consume(desk, place, tool), key)
    with stopped(origin):
        scenarios.check_consumed(scenarios.consume(desk, place, tool), key)


@pytest.mark.every_client
def test_maven_16_coursier_and_sbt_resolve_cold_and_without_the_upstream(
    desk: Desk, relay: Server, origin: Server, source: Place
) -> None:
    for_coursier, for_sbt = (place_of(relay, relayed(relay, source), "reader") for _ in range(2))
    scenarios.coursier_fetch(desk, for_coursier, "cold")
    scenarios.coursier_resolve(desk, for_coursier, "cold")
    scenarios.sbt_build(desk, for_sbt)
    with stopped(origin):
        scenarios.coursier_fetch(desk, for_coursier, "stopped")
        scenarios.coursier_resolve(desk, for_coursier, "stopped")
        scenarios.sbt_build(desk, for_sbt)


def test_maven_s2_a_new_snapshot_of_the_upstream_is_seen(desk: Desk, relay: Server, origin: Server) -> None:
    author = place_of(origin, origin.make_repository(format="maven"), "publisher")
    place = place_of(relay, relayed(relay, author, metadata_ttl=0), "reader")
    products = scenarios.write_products(desk)
    scenarios.write_settings(desk, author)
    local = scenarios.prepared(desk, "author")
    for text in ("first", "second"):
        scenarios.mark(products, "moving", text)
        scenarios.mvn(desk, "mvn3.9", products / "moving", "deploy", scenarios.deploy_to(author), local=local)
        snapshot = f"{GROUP}:moving:2.0-SNAPSHOT"
        (jar,) = scenarios.coursier(desk, place, "fetch", snapshot, "--mode", "update-changing", "--ttl", "0s")
        assert scenarios.marker_of(Path(jar)) == text


@pytest.mark.parametrize("tool", TOOLS)
def test_maven_e33_e34_deploys_to_a_virtual_address_and_never_gets_the_namesake(
    desk: Desk, relay: Server, origin: Server, source: Place, key: dict[str, str], tool: str
) -> None:
    """Newer versions of our names are upstream, which ranges and a plugin without a version would take."""
    impostors = origin.make_repository(format="maven", anonymous_read=True)
    bad = Place(f"{origin.url}/maven/{impostors}/", "", "")
    for artifact, version in (("core", "1.4"), ("app", "1.4"), ("fixture-tool", "9.0")):
        scenarios.put_release(origin.admin, bad, artifact, version, b"not ours")
    scenarios.put_release(origin.admin, bad, "theirs", "1.0", b"theirs")
    where = both(relay, "maven", bad.url)
    second = relayed(relay, source, namespace=where.virtual.partition("/")[0])
    members = [where.remote, second, where.local]
    answer = relay.admin.patch(f"/api/v1/repositories/{where.virtual}", json={"members": members})
    assert answer.status_code == 200, answer.text

    place = place_of(relay, where.virtual, "publisher")
    products = scenarios.write_products(desk, "1.1")
    # Everything but the snapshot, which comes from the upstream then.
    scenarios.deploy_products(desk, place, tool, products, key, "-pl", "!moving")
    reader = place_of(relay, where.virtual, "reader")
    scenarios.check_consumed(scenarios.consume(desk, reader, tool, version="1.1"), key, "1.1")
    resolved = scenarios.coursier(desk, reader, "resolve", f"{GROUP}:core:[1.0,2.0)", f"{GROUP}:theirs:latest.release")
    assert resolved == [f"{GROUP}:core:1.1:default", f"{GROUP}:theirs:1.0:default"]
    path = f"{GROUP.replace('.', '/')}/core/1.4/core-1.4.jar"
    said = relay.admin.get(f"/api/v1/repositories/{where.virtual}/explain", params={"path": path}).json()["sources"]
    asked = {line["repository"]: line["outcome"] for line in said}
    assert asked == {where.local: "does not have it", where.remote: "not asked", second: "not asked"}
    opened = {"options": {"allow_remote_names": [f"{GROUP}:core"]}}
    assert relay.admin.patch(f"/api/v1/repositories/{where.virtual}", json=opened).status_code == 200
    resolved = scenarios.coursier(desk, reader, "resolve", f"{GROUP}:core:[1.0,2.0)", cache="opened")
    assert resolved == [f"{GROUP}:core:1.4:default"]  # what all of this is about


# --- Maven Central ---------------------------------------------------------------------------------------------------

STARTERS = ("spring-boot-starter-web", "spring-boot-starter-data-jpa")


@pytest.mark.timeout(600)
@pytest.mark.every_client
def test_maven_16_a_tree_of_maven_central_cold_warm_and_without_it(desk: Desk, relay: Server, central: str) -> None:
    where = both(relay, "maven", central, metadata_ttl=300)
    place = place_of(relay, where.virtual, "reader")
    cold = scenarios.copy_tree(desk, place, "mvn3.9", STARTERS)
    assert len(cold) >= 60
    trees = [f"org.springframework.boot:{starter}:3.3.5" for starter in STARTERS]
    by_coursier = scenarios.coursier(desk, place, "fetch", *trees)
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in map(Path, by_coursier)}
    assert len(digests) >= 60
    assert all(cold[name] == digests[name] for name in cold.keys() & digests.keys())  # versions may differ
    answer = relay.admin.patch(f"/api/v1/repositories/{where.remote}", json={"remote": {"offline": True}})
    assert answer.status_code == 200, answer.text
    assert scenarios.copy_tree(desk, place, "mvn3.9", STARTERS) == cold
    assert len(scenarios.coursier(desk, place, "fetch", *trees, cache="offline")) == len(digests)
