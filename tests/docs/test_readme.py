"""What the README and the how-tos print is typed into a real shell, against a real server, with the real clients."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.docs.snippets import ADDRESS, ROOT, Reader, sections
from tests.running import Deployment, Server, free_port
from tests.tools import services

PAGES = {
    "oci": "docs/formats/oci.md",
    "npm": "docs/formats/npm.md",
    "pypi": "docs/formats/pypi.md",
    "maven": "docs/formats/maven.md",
    "helm": "docs/formats/helm.md",
    "generic": "docs/formats/generic.md",
    "api": "docs/api.md",
}
START = "make run\n"


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    with services.dockerd() as address:
        yield str(address)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Server]:
    """A server as a new user has it: nothing in it, and a random password in the data folder."""
    with Deployment.embedded(tmp_path / "data", REPOMAN_ADMIN_PASSWORD="") as server:
        yield server


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", PAGES)
def test_the_commands_of_a_how_to_work_as_printed(name: str, fresh: Server, tmp_path: Path, engine: str) -> None:
    reader = Reader(tmp_path / "reader", fresh.host, fresh.data, docker=engine)
    failures = reader.run_page(ROOT / PAGES[name])
    assert not failures, "\n".join(failures) + f"\n--- server\n{fresh.tail()}"


@pytest.mark.timeout(900)
def test_the_quick_start_works_as_printed(tmp_path: Path, engine: str) -> None:
    """`make run`, what it prints, the commands after it, and Ctrl-C."""
    quick_start = sections(ROOT / "README.md")
    assert quick_start[0].script == START
    data, port, log = tmp_path / "data", free_port(), tmp_path / "make-run.log"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("REPOMAN_")}
    environment |= {"REPOMAN_DATA": str(data), "REPOMAN_BIND": f"127.0.0.1:{port}"}
    with open(log, "wb") as output:
        process = subprocess.Popen(
            ["make", "run"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait_until_ready(f"http://127.0.0.1:{port}", process, log)
        # The server answers a moment before it says so.
        deadline = time.monotonic() + 30
        while f"127.0.0.1:{port}" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert f"127.0.0.1:{port}" in log.read_text()
        assert (data / "admin-password").read_text().strip() in log.read_text()
        reader = Reader(tmp_path / "reader", f"127.0.0.1:{port}", data, docker=engine)
        answers = [reader.run(section, f"{number}", {}) for number, section in enumerate(quick_start[1:])]
        failures = [answer for answer in answers if answer]
        assert not failures, "\n".join(failures) + f"\n--- server\n{log.read_text()[-4000:]}"
    finally:
        os.killpg(process.pid, signal.SIGINT)  # Ctrl-C reaches the whole group
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/healthz")


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"not ready:\n{log.read_text()}")


@pytest.mark.parametrize("page", ["README.md", *PAGES.values()])
def test_a_page_with_commands_says_once_where_the_server_is(page: str) -> None:
    text = (ROOT / page).read_text()
    assert text.count(ADDRESS) == 1
