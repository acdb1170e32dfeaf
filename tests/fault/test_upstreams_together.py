"""Many clients that want the same thing that is not here yet: one fetch, the right bytes for everybody, and nobody waits
for the slowest."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.running import Deployment, Server, descendants, environment, free_port, s3_environment
from tests.tools import services
from tests.tools.upstream import Answer, Upstream

from .herd import Reader, peak_memory, read_together
from .upstreams import ALLOW, Project, Remote, until

MIB = 1024 * 1024
CLIENTS = 200


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Deployment.embedded(tmp_path_factory.mktemp("together"), **ALLOW) as found:
        yield found


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as found:
        yield found


def spread(remote: Remote, path: str, expected: bytes, count: int = CLIENTS, **more: int) -> list[Reader]:
    where = f"/{remote.format}/{remote.key}/{path}"
    return [Reader(remote.server, where, expected, **more) for _ in range(count)]


def assert_one_fetch(upstream: Upstream, path: str) -> None:
    assert upstream.count(path) == 1, upstream.count(path)
    assert upstream.bodies(path) == 1


def test_G8_S1_E1_200_clients_of_two_processes_and_a_cold_file_of_64_MiB(server: Server, upstream: Upstream) -> None:
    content = os.urandom(64 * MIB)
    upstream.add("/large.bin", Answer(content, chunk_size=MIB))
    remote = Remote.of(server, upstream)
    before = peak_memory(server)
    readers = spread(remote, "large.bin", content)
    read_together(readers)
    assert all(reader.is_whole for reader in readers), [(r.status, r.offset) for r in readers if not r.is_whole][:5]
    assert_one_fetch(upstream, "/large.bin")
    grown = {pid: size - before.get(pid, 0) for pid, size in peak_memory(server).items() if pid in before}
    assert max(grown.values()) < 480 * MIB, grown  # a few pieces for each client, whatever the file's size
    assert remote.kept() == ["large.bin"] and remote.used() == len(content)


def test_G8_200_clients_and_a_cold_file_that_a_page_lists(server: Server, upstream: Upstream) -> None:
    project = Project(upstream, "together", content=os.urandom(8 * MIB))
    project.serve()
    remote = Remote.of(server, upstream, "pypi")
    readers = spread(remote, f"files/{project.name}/{project.file}", project.content)
    read_together(readers)
    assert all(reader.is_whole for reader in readers), [(r.status, r.offset) for r in readers if not r.is_whole][:5]
    assert_one_fetch(upstream, project.file_path)
    assert_one_fetch(upstream, project.path)


def test_G8_S6_the_first_byte_leaves_before_the_last_one_came(server: Server, upstream: Upstream) -> None:
    content = os.urandom(4 * MIB)
    upstream.add("/trickles.bin", Answer(content, chunk_size=64 * 1024, chunk_delay=0.04))
    remote = Remote.of(server, upstream)
    (reader,) = readers = spread(remote, "trickles.bin", content, 1)
    read_together(readers)
    assert reader.is_whole
    took = reader.ended_at - reader.began_at
    assert took > 2.4, took
    assert reader.first_at - reader.began_at < took / 2, (reader.first_at - reader.began_at, took)


def test_G8_S2_S4_slow_ones_and_those_who_leave_hold_nobody_up(server: Server, upstream: Upstream) -> None:
    content = os.urandom(6 * MIB)
    upstream.add("/slow.bin", Answer(content, chunk_size=256 * 1024, chunk_delay=0.01))
    remote = Remote.of(server, upstream)
    leaving = spread(remote, "slow.bin", content, 20, leave_after=300_000)
    slow = spread(remote, "slow.bin", content, 10, pace=MIB)
    fast = spread(remote, "slow.bin", content, 30)
    read_together([*leaving, *slow, *fast])
    assert all(reader.is_whole for reader in [*slow, *fast])
    assert min(reader.ended_at - reader.began_at for reader in slow) > 5
    assert max(reader.ended_at for reader in fast) < min(reader.ended_at for reader in slow)
    assert_one_fetch(upstream, "/slow.bin")


def test_G12_the_last_client_leaves_and_the_file_is_kept_all_the_same(server: Server, upstream: Upstream) -> None:
    content = os.urandom(4 * MIB)
    upstream.add("/left.bin", Answer(content, chunk_size=64 * 1024, chunk_delay=0.01))
    remote = Remote.of(server, upstream)
    read_together(spread(remote, "left.bin", content, 3, leave_after=300_000))
    assert until(lambda: remote.kept() == ["left.bin"], 10)
    assert remote.get("left.bin").content == content
    assert_one_fetch(upstream, "/left.bin")


def test_G5_S3_a_failure_midway_reaches_everybody_and_cuts_the_answer(server: Server, upstream: Upstream) -> None:
    """Nobody gets a whole answer with a wrong end, one attempt is made for all, and the next one can succeed."""
    project = Project(upstream, "cut", content=os.urandom(4 * MIB))
    wrong = project.content[:-1] + bytes([project.content[-1] ^ 1])
    project.serve(answer=Answer(wrong, chunk_size=64 * 1024, chunk_delay=0.005))
    remote = Remote.of(server, upstream, "pypi")
    remote.page(project)
    readers = spread(remote, f"files/{project.name}/{project.file}", project.content, 40)
    read_together(readers)
    assert not any(reader.is_whole or reader.offset == len(project.content) for reader in readers)
    # Those of the process that fetches have begun to read; those of the other one are told.
    assert {reader.status for reader in readers} <= {200, 502}
    assert upstream.count(project.file_path) == 1
    assert remote.kept() == []
    project.serve()
    assert until(lambda: remote.file(project).content == project.content, 10)


def test_S3_a_cold_failure_is_one_attempt_for_all(server: Server, upstream: Upstream) -> None:
    upstream.add("/down.bin", Answer(status=500, delay=0.3))
    remote = Remote.of(server, upstream)
    readers = spread(remote, "down.bin", b"", 40)
    read_together(readers)
    assert {reader.status for reader in readers} == {502}
    assert upstream.count("/down.bin") == 1


def test_G12_M1_kill_9_during_a_fill_leaves_nothing_half(tmp_path: Path) -> None:
    """Of all processes at once, then of the one web process that fetches: the other takes over by itself."""
    content = os.urandom(4 * MIB)
    with Upstream() as upstream, Deployment.embedded(tmp_path / "data", **ALLOW) as server:
        upstream.add("/killed.bin", Answer(content, chunk_size=64 * 1024, chunk_delay=0.05))
        remote = Remote.of(server, upstream)
        reading = Reader(server, f"/generic/{remote.key}/killed.bin", content, leave_after=MIB)
        read_together([reading])
        server.kill()
        server.start()
        assert remote.kept() == [] and remote.used() == 0
        report = server.manage("fsck", "--rehash", "--json")
        assert report.returncode == 0, report.stdout + report.stderr
        upstream.add("/killed.bin", Answer(content))
        assert remote.get("killed.bin").content == content

        upstream.add("/taken.bin", Answer(content, chunk_size=64 * 1024, chunk_delay=0.03))
        readers = spread(remote, "taken.bin", content, 16)
        started = time.monotonic()

        killed: list[int] = []

        def kill_who_fetches() -> bool:
            assert server.process is not None
            for pid in descendants(server.process.pid):
                with contextlib.suppress(OSError):  # it has just ended
                    if any("/blobs/" in name for name in open_files(pid)):
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)
                        return True  # another may have taken over by now, and is to live
            return False

        timer = threading.Timer(1.0, lambda: until(kill_who_fetches, 10))
        timer.start()
        read_together(readers)
        timer.join()
        assert killed, "nobody was fetching any more"
        cut = [reader for reader in readers if not reader.is_whole]
        assert all(reader.offset < len(content) for reader in cut)
        assert any(reader.is_whole for reader in readers), "the clients of the other process are served"
        assert time.monotonic() - started < 20, "and do not wait for a lease to end"
        assert until(lambda: remote.get("taken.bin").content == content, 10)
        report = server.manage("fsck", "--rehash", "--json")
        assert report.returncode == 0, report.stdout + report.stderr


def open_files(pid: int) -> list[str]:
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(entry))
        except OSError:
            continue
    return found


def test_G8_two_nodes_ask_once(tmp_path: Path) -> None:
    """PostgreSQL, S3 and Redis behind two nodes of two processes each."""
    content = os.urandom(16 * MIB)
    with (
        services.postgres() as database,
        services.redis() as redis,
        services.s3() as s3,
        Upstream() as upstream,
    ):
        nodes: list[Server] = []
        try:
            for name in ("one", "two"):
                port = free_port()
                settings = environment(
                    tmp_path / name,
                    port,
                    REPOMAN_DATABASE_URL=str(database),
                    REPOMAN_REDIS_URL=str(redis),
                    REPOMAN_SECRET_KEY="shared by all nodes of this installation",
                    **s3_environment(s3),
                    **ALLOW,
                )
                nodes.append(Server(f"http://127.0.0.1:{port}", tmp_path / name, settings))
                nodes[-1].start()
            first = nodes[0]
            upstream.add("/shared.bin", Answer(content, chunk_size=MIB, chunk_delay=0.02))
            remote = Remote.of(first, upstream)
            where = f"/generic/{remote.key}/shared.bin"
            readers = [Reader(nodes[number % 2], where, content) for number in range(CLIENTS)]
            read_together(readers)
            whole = [reader for reader in readers if reader.is_whole]
            assert len(whole) == CLIENTS, [(r.status, r.offset) for r in readers if not r.is_whole][:5]
            assert_one_fetch(upstream, "/shared.bin")

            project = Project(upstream, "shared", content=os.urandom(MIB))
            project.serve()
            pypi = Remote.of(first, upstream, "pypi")
            where = f"/pypi/{pypi.key}/files/{project.name}/{project.file}"
            readers = [Reader(nodes[number % 2], where, project.content) for number in range(CLIENTS)]
            read_together(readers)
            assert all(reader.is_whole for reader in readers)
            assert_one_fetch(upstream, project.file_path)
            assert_one_fetch(upstream, project.path)

            upstream.add("/failing.bin", Answer(status=500, delay=0.5))
            readers = [Reader(nodes[number % 2], f"/generic/{remote.key}/failing.bin", b"") for number in range(40)]
            read_together(readers)
            assert {reader.status for reader in readers} == {502}
            assert upstream.count("/failing.bin") == 1
            shown = [httpx.get(f"{node.url}/metrics").text for node in nodes]  # whoever was first has fetched
            assert any("repoman_upstream_fetches_total" in text for text in shown)
        finally:
            for node in nodes:
                node.stop()
