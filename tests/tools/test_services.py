"""The helpers start real servers that really serve, and leave nothing behind, however the run ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import boto3
import botocore.config
import psycopg
import pytest
import redis

from tests.tools import ToolMissingError, path, provision, services

ROOT = Path(__file__).parents[2]


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_paths_are_programs_and_unknown_names_are_errors() -> None:
    for tool in provision.TOOLS:
        if not tool.bench:
            for command in tool.commands:
                assert os.access(path(command), os.X_OK)
    with pytest.raises(ToolMissingError, match="no-such-tool"):
        path("no-such-tool")


def test_missing_tool_names_the_command_that_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPOMAN_TOOLS", str(tmp_path))
    with pytest.raises(ToolMissingError, match=r"tests/tools/provision\.py crane"):
        path("crane")


def test_postgres_is_durable_and_keeps_its_data_over_a_kill() -> None:
    with services.postgres() as url:
        with psycopg.connect(url) as connection:
            assert connection.execute("SHOW fsync").fetchone() == ("on",)
            assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
            connection.execute("CREATE TABLE kept (value int)")
            connection.execute("INSERT INTO kept VALUES (7)")
        first = url.server.pid
        os.kill(first, signal.SIGKILL)
        url.server.wait(30)
        url.server.start()
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT value FROM kept").fetchone() == (7,)
        last = url.server.pid
    assert gone(first)
    assert gone(last)


def test_redis_serves() -> None:
    with services.redis() as url:
        client = redis.Redis.from_url(url)
        client.set("key", "value")
        assert client.get("key") == b"value"
        client.close()
        pid, folder = url.server.pid, url.server.folder
    assert gone(pid)
    assert not folder.exists()


def test_s3_serves_objects_and_presigned_addresses() -> None:
    with services.s3() as store:
        client = boto3.client(
            "s3",
            endpoint_url=store.endpoint,
            aws_access_key_id=store.access_key,
            aws_secret_access_key=store.secret_key,
            region_name=store.region,
            # The presigned addresses of older signatures, boto3's default for them, are not served.
            config=botocore.config.Config(signature_version="s3v4", proxies={}),
        )
        assert client.list_objects_v2(Bucket=store.bucket)["KeyCount"] == 0
        client.put_object(Bucket=store.bucket, Key="a/b", Body=b"bytes")
        address = client.generate_presigned_url("get_object", Params={"Bucket": store.bucket, "Key": "a/b"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(address, timeout=10) as answer:
            assert answer.read() == b"bytes"
        client.close()


def test_nginx_serves_and_a_wrong_configuration_shows_its_log() -> None:
    with services.nginx("server { listen @listen@; location / { alias @folder@/files/; } }") as url:
        files = url.server.folder / "files"
        files.mkdir()
        (files / "file").write_bytes(b"content")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{url}/file", timeout=10) as answer:
            assert answer.read() == b"content"
    with pytest.raises(services.ServerError, match='unknown directive "nonsense"'), services.nginx("nonsense;"):
        pass


def test_dockerd_builds_and_keeps_images(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY file /file\n")
    with services.dockerd() as host:
        environment = {**os.environ, "DOCKER_HOST": host, "DOCKER_CONFIG": str(tmp_path / "configuration")}
        docker = [str(path("docker"))]
        for words in (["build", "-q", "-t", "some/image:1", str(tmp_path)], ["image", "inspect", "some/image:1"]):
            answer = subprocess.run([*docker, *words], env=environment, capture_output=True, text=True, check=False)
            assert answer.returncode == 0, answer.stderr
        folder = host.server.folder
    assert not folder.exists()


def test_a_killed_run_leaves_neither_process_nor_folder() -> None:
    """The starter is killed with SIGKILL; a descendant of a server, detached from it, goes too."""
    program = (
        "import time\n"
        "from tests.tools import services\n"
        "with services.redis() as a, services.nginx('server { listen @listen@; }') as b:\n"
        "    print(a.server.pid, b.server.pid, a.server.folder, b.server.folder, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        words = starter.stdout.readline().split()
        workers = [int(word) for word in Path(f"/proc/{words[1]}/task/{words[1]}/children").read_text().split()]
        starter.kill()
    left = {*map(int, words[:2]), *workers}
    folders = {Path(word) for word in words[2:]}
    assert workers
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        left = {pid for pid in left if not gone(pid)}
        folders = {folder for folder in folders if folder.exists()}
        if not left and not folders:
            break
        time.sleep(0.05)
    assert not left
    assert not folders


def test_a_suspended_server_is_stopped_all_the_same() -> None:
    with services.redis() as url:
        os.kill(url.server.pid, signal.SIGSTOP)
        port = services.port_of(url)
    with contextlib.closing(socket.socket()) as probe:
        assert probe.connect_ex((services.LOOPBACK, port)) != 0
