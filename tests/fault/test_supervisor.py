"""The life of the process family: it starts, is kept alive, ends in order, and says in one line why it cannot start."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.running import ADMIN_PASSWORD, ROOT, Server, descendants, environment, free_port

SOON_SECONDS = 60


def eventually(what: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + SOON_SECONDS
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(0.05)
    return False


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found


@contextlib.contextmanager
def started(data: Path, **settings: str) -> Iterator[Server]:
    port = free_port()
    server = Server(f"http://127.0.0.1:{port}", data, environment(data, port, **settings))
    server.start()
    try:
        yield server
    finally:
        server.kill()


def pid_of(server: Server) -> int:
    assert server.process is not None
    return server.process.pid


def family(server: Server) -> dict[str, list[int]]:
    """Process ids by role. The arbiter has children of its own, the worker none."""
    (image,) = children(pid_of(server))
    roles: dict[str, list[int]] = {"image": [image], "arbiter": [], "web": [], "worker": []}
    for pid in children(image):
        below = children(pid)
        roles["arbiter" if below else "worker"].append(pid)
        roles["web"] += below
    return roles


def is_whole(server: Server, *, without: int = 0) -> bool:
    """Every role is there, the process `without` is not among them, and the server is ready."""
    try:
        roles = family(server)
    except ValueError:
        return False
    if without in sum(roles.values(), []):
        return False
    if [len(roles[name]) for name in ("arbiter", "web", "worker")] != [1, 2, 1]:
        return False
    with contextlib.suppress(Exception):
        return bool(server.admin.get("/readyz").status_code == 200)
    return False


def trickle(server: Server, path: str, size: int) -> socket.socket:
    """A PUT of which one byte has been sent."""
    import base64

    credentials = base64.b64encode(f"admin:{ADMIN_PASSWORD}".encode()).decode()
    host, port = server.host.split(":")
    sock = socket.create_connection((host, int(port)), timeout=SOON_SECONDS)
    head = f"PUT {path} HTTP/1.1\r\nHost: {server.host}\r\nAuthorization: Basic {credentials}\r\nContent-Length: {size}"
    sock.sendall(f"{head}\r\n\r\nx".encode())
    return sock


def test_it_says_where_it_is_and_what_to_try_and_ends_with_all_its_processes(tmp_path: Path) -> None:
    with started(tmp_path / "data") as server:
        pids = descendants(pid_of(server))
        assert eventually(lambda: "docker login" in server.tail())
        said = server.tail()
        assert f"Repoman is ready at {server.url}" in said
        assert "Sign in as admin" in said
        assert len(set(map(os.getpgid, pids))) >= 3
        assert server.stop() == 0
        assert not [pid for pid in pids if alive(pid)]
        assert "Traceback" not in server.tail()


def test_m10_a_request_in_flight_is_finished_after_term(tmp_path: Path) -> None:
    with started(tmp_path / "data") as server:
        key = server.make_repository(format="generic")
        with trickle(server, f"/generic/{key}/file", 4) as sock:
            time.sleep(0.5)
            assert server.process is not None
            server.process.send_signal(signal.SIGTERM)
            assert eventually(lambda: not can_connect(server))
            sock.sendall(b"yyy")
            assert sock.recv(4096).startswith(b"HTTP/1.1 201 ")
        assert server.process.wait(SOON_SECONDS) == 0


def can_connect(server: Server) -> bool:
    host, port = server.host.split(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=5):
        return True
    return False


def test_a_second_signal_ends_everything_at_once(tmp_path: Path) -> None:
    with started(tmp_path / "data") as server:
        key = server.make_repository(format="generic")
        pids = descendants(pid_of(server))
        with trickle(server, f"/generic/{key}/file", 4):
            time.sleep(0.5)
            assert server.process is not None
            server.process.send_signal(signal.SIGINT)
            assert eventually(lambda: not can_connect(server))
            assert server.process.poll() is None
            server.process.send_signal(signal.SIGINT)
            server.process.wait(15)
            assert eventually(lambda: not [pid for pid in pids if alive(pid)])


def test_killed_processes_are_replaced(tmp_path: Path) -> None:
    with started(tmp_path / "data") as server:
        assert eventually(lambda: is_whole(server))
        for role in ("web", "worker", "arbiter", "image"):
            victim = family(server)[role][0]
            os.kill(victim, signal.SIGKILL)
            assert eventually(partial(is_whole, server, without=victim)), role
        assert server.stop() == 0


def test_killing_the_supervisor_leaves_no_orphans(tmp_path: Path) -> None:
    with started(tmp_path / "data") as server:
        pids = descendants(pid_of(server))
        assert len(pids) >= 5
        os.kill(pid_of(server), signal.SIGKILL)
        assert eventually(lambda: not [pid for pid in pids if alive(pid)])


def run(data: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "repoman.server"],
        cwd=ROOT,
        env=environment(data, free_port()) | settings,
        capture_output=True,
        text=True,
        timeout=120,
    )


def assert_one_line(ended: subprocess.CompletedProcess[str], *words: str) -> None:
    assert ended.returncode == 2
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        assert_one_line(run(tmp_path, REPOMAN_BIND=address), "REPOMAN_BIND", address, "in use")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REPOMAN_BIND", "here"),
        ("REPOMAN_BIND", "198.51.100.1:8080"),
        ("REPOMAN_BIND", "no-such-host.invalid:8080"),
        ("REPOMAN_WORKERS", "many"),
        ("REPOMAN_URL", "https://example.com/with/path"),
        ("REPOMAN_SECRET_KEY", "short"),
        ("REPOMAN_WROKERS", "2"),
        ("REPOMAN_DATABASE_URL", "mysql://somewhere"),
    ],
)
def test_a_bad_setting_is_named_in_one_line(tmp_path: Path, name: str, value: str) -> None:
    assert_one_line(run(tmp_path, **{name: value}), name)


def test_a_data_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_one_line(run(tmp_path, REPOMAN_DATA=str(tmp_path / "file")), "REPOMAN_DATA", "not a folder")
    assert_one_line(run(tmp_path, REPOMAN_DATA=str(tmp_path / "file" / "below")), "REPOMAN_DATA", "cannot be written")


def test_m7_a_data_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    assert_one_line(run(tmp_path, REPOMAN_DATA="/proc/repoman"), "REPOMAN_DATA", "cannot be written")


def test_o1_a_database_that_cannot_be_reached_is_said_in_one_line(tmp_path: Path) -> None:
    url = f"postgresql://nobody:hidden@127.0.0.1:{free_port()}/nothing"
    ended = run(tmp_path, REPOMAN_DATABASE_URL=url)
    assert_one_line(ended, "database")
    assert "hidden" not in ended.stderr


def run_family(body: str) -> subprocess.CompletedProcess[str]:
    """A Family of small children; `body` defines `children`."""
    program = """
        import os, sys, time
        from repoman.server.image import fork
        from repoman.server.supervisor import Child, Family, block_signals
        block_signals()
    """
    script = textwrap.dedent(program) + textwrap.dedent(body) + "\nos._exit(Family(children).run())\n"
    return subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, env=dict(os.environ)
    )


def test_a_child_that_cannot_start_ends_the_others_and_is_named() -> None:
    ended = run_family(
        """
        def sleep():
            time.sleep(600)
        children = [Child("sleeper", lambda: fork(sleep)), Child("web server", lambda: fork(lambda: 7))]
        """
    )
    assert ended.returncode == 1
    said = ended.stderr.splitlines()
    assert len(said) == 3
    assert said[-1] == "repoman: the web server cannot be kept running: it ended with status 7, 3 times in a row"


def test_a_child_that_has_said_why_it_ends_is_not_started_again() -> None:
    ended = run_family('children = [Child("server", lambda: fork(lambda: 2), exit_is_final=True)]')
    assert ended.returncode == 2
    assert ended.stderr == ""
