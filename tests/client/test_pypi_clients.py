"""twine, uv, Flit, Hatch, Poetry, PDM, build and pip against local repositories, and through remote and virtual ones."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import pytest

from formats.pypi import samples
from tests.client import pypi_scenarios as scenarios
from tests.client.pypi_scenarios import INSTALLERS, PUBLISHERS, Desk, Place
from tests.running import Deployment, Server


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    return Desk(home)


def make_place(server: Server, login: str = "password") -> tuple[Place, str]:
    """A private repository and a maintainer's credentials; and its key."""
    key = server.make_repository(format="pypi")
    username, password = server.make_user(key, "maintainer")
    if login == "token":
        client = server.client(username, password)
        password = server.token(client, actions=["read", "publish"], repositories=[key])["token"]
        username = "__token__"
    base = server.admin.get(f"/api/v1/repositories/{key}").json()["url"]
    return Place(f"{base}simple/", base, username, password), key


def yank(server: Server, key: str) -> None:
    answer = server.admin.patch(
        f"/api/v1/repositories/{key}/versions",
        params={"package": "leaf", "version": "1.1"},
        json={"yanked": True, "yanked_reason": "a reason to yank"},
    )
    assert answer.status_code in (200, 204), answer.text


@pytest.fixture(params=["password", "token"])
def place(request: pytest.FixtureRequest, embedded: Server) -> Place:
    return make_place(embedded, request.param)[0]


@pytest.fixture
def seeded(desk: Desk, place: Place) -> Place:
    scenarios.seed_for_installers(desk, place)
    return place


# What is long, and no other with a token than with a password once the tools have signed in with both.
long = pytest.mark.parametrize(
    "place", ["password", pytest.param("token", marks=pytest.mark.every_client)], indirect=True
)


@pytest.mark.parametrize("tool", PUBLISHERS)
def test_pypi_17_2_publishing(desk: Desk, place: Place, tool: str) -> None:
    scenarios.publish_and_repeat(desk, place, tool)


def test_pypi_17_2_publishing_with_flit(desk: Desk, place: Place) -> None:
    scenarios.publish_with_flit(desk, place)


@long
def test_pypi_8_3_7_skipping_what_is_there(desk: Desk, place: Place) -> None:
    scenarios.skip_what_is_there(desk, place)


@long
def test_pypi_17_2_building(desk: Desk, place: Place) -> None:
    scenarios.build_and_install_from_source(desk, place)


@pytest.mark.parametrize("tool", INSTALLERS)
def test_pypi_17_1_17_8_installing(desk: Desk, seeded: Place, tool: str) -> None:
    scenarios.install_with_dependencies(desk, seeded, tool)


def test_pypi_17_8_uv_lock_and_sync(desk: Desk, seeded: Place) -> None:
    scenarios.lock_and_install_again(desk, seeded)


def test_pypi_17_1_poetry_lock_and_install(desk: Desk, seeded: Place) -> None:
    scenarios.poetry_lock_and_install(desk, seeded)


def test_pypi_17_1_pdm_lock_and_sync(desk: Desk, seeded: Place) -> None:
    scenarios.pdm_lock_and_install(desk, seeded)


@pytest.mark.parametrize("tool", INSTALLERS)
def test_pypi_7_2_credentials_from_netrc(desk: Desk, seeded: Place, tool: str) -> None:
    scenarios.sign_in_by_netrc(desk, seeded, tool)


@pytest.mark.parametrize("tool", INSTALLERS)
def test_pypi_17_3_only_what_is_old_enough(desk: Desk, embedded: Server, tool: str) -> None:
    place, key = make_place(embedded)
    scenarios.twine(desk, place, [samples.wheel("leaf", "1.0")])
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(milliseconds=1)
    scenarios.twine(desk, place, [samples.wheel("leaf", "1.1")])
    scenarios.only_what_is_old_enough(desk, place, tool, moment.isoformat().replace("+00:00", "Z"))


@pytest.mark.parametrize("tool", INSTALLERS)
def test_pypi_17_7_yanked_releases(desk: Desk, embedded: Server, tool: str) -> None:
    place, key = make_place(embedded)
    scenarios.twine(desk, place, [samples.wheel("leaf", "1.0"), samples.wheel("leaf", "1.1")])
    yank(embedded, key)
    scenarios.yanked_releases(desk, place, tool)


def test_pypi_8_3_8_what_twine_says_about_skipping(desk: Desk, embedded: Server) -> None:
    """Newer ones refuse the option for every index but one, before they send anything; same bytes need no option."""
    place, _ = make_place(embedded)
    files = [samples.wheel("demo", "1.0")]
    scenarios.twine(desk, place, files)
    said = scenarios.twine(desk, place, files, "--skip-existing", fails=True)
    assert "skip" in said.lower(), said
    scenarios.twine(desk, place, files)


def test_pypi_8_3_2_over_quota_is_shown(desk: Desk, embedded: Server) -> None:
    namespace = embedded.make_namespace(quota_bytes=1000)
    key = embedded.make_repository(namespace, format="pypi")
    username, password = embedded.make_user(key, "publisher")
    base = f"{embedded.url}/pypi/{key}/"
    place = Place(f"{base}simple/", base, username, password)
    sample = samples.wheel("demo", "1.0", files={"demo/data.txt": bytes(range(256)) * 20})
    said = scenarios.twine(desk, place, [sample], fails=True)
    assert "1000" in said and "403" in said, said
    said = scenarios.uv_publish(desk, place, [sample], fails=True)
    assert "1000" in said, said


def test_pypi_12_7_pip_index_versions(desk: Desk, seeded: Place) -> None:
    said = desk.run("pip-new", "index", "versions", "leaf", "--index-url", seeded.signed_index)
    assert "1.1" in said and "1.0" in said


# --- through remote and virtual repositories -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A second server, whose remotes may reach the first one."""
    with Deployment.embedded(tmp_path_factory.mktemp("relay"), REPOMAN_UPSTREAM_ALLOW="127.0.0.0/8") as server:
        yield server


def make_relayed(relay: Server, source: Place, kind: str) -> Place:
    """A remote repository of the source, or a virtual one with a local member before that remote."""
    namespace = relay.make_namespace()
    remote = {"url": source.index, "username": source.username, "password": source.password}
    key = relay.make_repository(namespace, format="pypi", type="remote", remote=remote)
    if kind == "virtual":
        local = relay.make_repository(namespace, format="pypi")
        key = relay.make_repository(namespace, format="pypi", type="virtual", members=[local, key], deploy_target=local)
    username, password = relay.make_user(namespace, "maintainer")
    base = f"{relay.url}/pypi/{key}/"
    return Place(f"{base}simple/", base, username, password)


@pytest.fixture(params=["remote", "virtual"])
def relayed(request: pytest.FixtureRequest, desk: Desk, embedded: Server, relay: Server) -> Place:
    source, _ = make_place(embedded)
    scenarios.seed_for_installers(desk, source)
    return make_relayed(relay, source, request.param)


@pytest.mark.parametrize("tool", INSTALLERS)
def test_pypi_17_1_installing_through_others(desk: Desk, relayed: Place, tool: str) -> None:
    scenarios.install_with_dependencies(desk, relayed, tool)


def test_pypi_17_1_17_8_locking_through_others(desk: Desk, relayed: Place) -> None:
    scenarios.lock_and_install_again(desk, relayed)
    scenarios.poetry_lock_and_install(desk, relayed)
    scenarios.pdm_lock_and_install(desk, relayed)


@pytest.mark.parametrize("tool", INSTALLERS)
def test_pypi_17_3_13_2_upload_times_and_yanks_through_a_remote(
    desk: Desk, embedded: Server, relay: Server, tool: str
) -> None:
    source, key = make_place(embedded)
    scenarios.twine(desk, source, [samples.wheel("leaf", "1.0")])
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(milliseconds=1)
    scenarios.twine(desk, source, [samples.wheel("leaf", "1.1")])
    scenarios.only_what_is_old_enough(
        desk, make_relayed(relay, source, "remote"), tool, moment.isoformat().replace("+00:00", "Z")
    )
    yank(embedded, key)
    scenarios.yanked_releases(desk, make_relayed(relay, source, "remote"), tool)


@pytest.mark.parametrize("tool", ["twine", "uv", "poetry"])
def test_pypi_8_3_13_publishing_through_a_virtual_repository(
    desk: Desk, embedded: Server, relay: Server, tool: str
) -> None:
    source, _ = make_place(embedded)
    scenarios.publish_and_repeat(desk, make_relayed(relay, source, "virtual"), tool)
