"""Fixtures every folder shares: settings for tests, and real servers, started once per test process."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("REPOMAN_DATA", tempfile.mkdtemp(prefix="repoman-test-"))
os.environ.setdefault("REPOMAN_SECRET_KEY", "a-key-for-tests-that-is-long-enough-0123456789")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "repoman.settings")

from tests.running import Deployment, Server


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server as `make run` starts it: SQLite, a folder, worker and scheduler inside."""
    with Deployment.embedded(tmp_path_factory.mktemp("embedded")) as server:
        yield server


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on PostgreSQL, Redis and S3."""
    with Deployment.full(tmp_path_factory.mktemp("full")) as server:
        yield server


@pytest.fixture(params=["embedded", "full"])
def server(request: pytest.FixtureRequest) -> Server:
    """The same test against both deployments."""
    found: Server = request.getfixturevalue(request.param)
    return found


# The long files first, or one process works through them at the end while the others are done. Other folders come last.
FOLDERS = ("client", "fault", "docs", "contract", "service", "protocol", "api", "tools", "unit")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The whole matrix of clients takes too long for every change: `make clients` runs it. What is left out is counted."""
    order = {Path(__file__).parent / name: rank for rank, name in enumerate(FOLDERS)}
    items.sort(key=lambda item: order.get(item.path.parent, len(order)))
    if os.environ.get("REPOMAN_EVERY_CLIENT"):
        return
    left_out = [item for item in items if item.get_closest_marker("every_client")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("every_client")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)
