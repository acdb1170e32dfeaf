"""Big bodies, damaged files and full disks, on a real server."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.oci import Image, digest_of, digest_of_pieces, pieces
from tests.running import Deployment, Server, descendants

GIB = 1 << 30
MIB = 1 << 20


def anonymous_rss(pid: int) -> int:
    """Bytes of private anonymous memory of the process tree: what the page cache of files does not count in."""
    total = 0
    for process in [pid, *descendants(pid)]:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    total += int(line.split()[1]) * 1024
    return total


class MemoryWatch:
    """The most that the tree's memory grew by while the block ran."""

    def __init__(self, server: Server) -> None:
        assert server.process is not None
        self._pid = server.process.pid
        self._stop = threading.Event()
        self.growth = 0

    def __enter__(self) -> MemoryWatch:
        before = anonymous_rss(self._pid)

        def watch() -> None:
            while not self._stop.wait(0.05):
                self.growth = max(self.growth, anonymous_rss(self._pid) - before)

        self._thread = threading.Thread(target=watch)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "with-length"])
def test_D9_two_gibibytes_in_and_out_keep_memory_flat(embedded: Server, chunked: bool) -> None:
    key = embedded.make_repository()
    image = Image(embedded.client(*embedded.make_user(key, "publisher")), f"{key}/big")
    size = 2 * GIB + 1
    digest = digest_of_pieces(size)
    image.push_blob(b"warm up")
    image.blob(digest_of(b"warm up"))
    with MemoryWatch(embedded) as watch:
        answer = image.push_stream(digest, pieces(size), length=None if chunked else size)
        assert answer.status_code == 201, answer.text
        hasher = hashlib.sha256()
        with image.client.stream("GET", f"{image.base}/blobs/{digest}") as download:
            assert download.headers["Content-Length"] == str(size)
            for data in download.iter_raw(MIB):
                hasher.update(data)
    assert f"sha256:{hasher.hexdigest()}" == digest
    assert watch.growth < 64 * MIB, f"memory grew by {watch.growth / MIB:.0f} MiB"


def blob_files(server: Server) -> dict[str, Path]:
    """Files of the store by sha256 hex."""
    return {path.name.split(".")[0]: path for path in (server.data / "blobs" / "sha256").rglob("*.*") if path.is_file()}


def flip(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


DAMAGES = {
    "flipped": flip,
    "truncated": lambda path: os.truncate(path, path.stat().st_size - 1),
    "missing": Path.unlink,
}


def test_C4_R5_damaged_files_are_errors_to_the_reader_and_found_by_fsck(tmp_path: Path) -> None:
    with Deployment.embedded(tmp_path / "data") as server:
        namespace = server.make_namespace()
        damaged: dict[str, tuple[Image, bytes]] = {}
        for size in (3_000, 3 * MIB):
            for name, damage in DAMAGES.items():
                key = server.make_repository(namespace, name=f"{name}-{size}")
                image = Image(server.client(*server.make_user(key, "publisher")), f"{key}/app")
                content = os.urandom(size)
                assert image.push_blob(content).status_code == 201
                damage(blob_files(server)[hashlib.sha256(content).hexdigest()])
                with contextlib.suppress(httpx.HTTPError):
                    answer = image.blob(digest_of(content))
                    assert answer.status_code in (404, 503), f"{key}: wrong bytes must not be a success"
                damaged[key] = image, content
        report = server.manage("fsck", "--rehash", "--json")
        assert report.returncode != 0, report.stdout + report.stderr
        found = json.loads(report.stdout)["items"]
        for key, (_, content) in damaged.items():
            digest = hashlib.sha256(content).hexdigest()
            assert any(digest in item["subject"] and key in str(item["affected"]) for item in found), (key, found)
        for key, (image, content) in damaged.items():
            # C5: pushing the same bytes again heals it.
            assert image.push_blob(content).status_code == 201, key
            assert image.blob(digest_of(content)).content == content, key
        healed = server.manage("fsck", "--rehash", "--json")
        assert healed.returncode == 0, healed.stdout + healed.stderr


def test_M3_full_disk_is_507_and_works_again_when_there_is_room(tmp_path: Path, small_disk: Path) -> None:
    with Deployment.embedded(tmp_path / "data", REPOMAN_BLOBS=str(small_disk / "blobs")) as server:
        key = server.make_repository()
        image = Image(server.client(*server.make_user(key, "maintainer")), f"{key}/app")
        kept = os.urandom(2 * MIB)
        assert image.push_blob(kept).status_code == 201
        filler = small_disk / "filler"
        with contextlib.suppress(OSError), open(filler, "wb") as file:
            while True:
                file.write(b"\0" * 65536)
        refused = image.push_blob(os.urandom(2 * MIB))
        assert refused.status_code == 507, refused.text
        assert refused.json()["errors"][0]["code"]
        streamed = image.push_stream(digest_of_pieces(2 * MIB), pieces(2 * MIB))
        assert streamed.status_code == 507, streamed.text
        assert image.blob(digest_of(kept)).content == kept
        assert server.client().get("/healthz").status_code == 200
        filler.unlink()
        again = os.urandom(2 * MIB)
        assert image.push_blob(again).status_code == 201
        assert image.blob(digest_of(again)).content == again
        report = server.manage("fsck", "--rehash", "--json")
        assert report.returncode == 0, report.stdout + report.stderr
        assert json.loads(report.stdout)


def test_U2_trickling_connections_keep_nobody_waiting(embedded: Server) -> None:
    import socket

    key = embedded.make_repository(anonymous_read=True)
    image = Image(embedded.client(*embedded.make_user(key, "publisher")), f"{key}/app")
    document = image.push("1", b"layer")
    location = image.begin()
    credentials = image.client.build_request("GET", "/").headers
    authorization = next(iter(image.client.auth.sync_auth_flow(httpx.Request("GET", embedded.url)))).headers[
        "Authorization"
    ]
    assert credentials is not None
    host, _, port = embedded.host.partition(":")
    slow: list[socket.socket] = []
    try:
        for number in range(200):
            connection = socket.create_connection((host, int(port)), timeout=10)
            slow.append(connection)
            if number % 2:
                connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x")
            else:
                connection.sendall(
                    f"PATCH {location} HTTP/1.1\r\nHost: {embedded.host}\r\nAuthorization: {authorization}\r\n"
                    "Content-Length: 100000\r\nContent-Type: application/octet-stream\r\n\r\n".encode()
                )
        for _ in range(3):
            for connection in slow:
                with contextlib.suppress(OSError):
                    connection.sendall(b"x")
            started = time.monotonic()
            for _ in range(20):
                assert image.get("1").content == document
            assert image.push_blob(os.urandom(1000)).status_code == 201
            assert time.monotonic() - started < 30, "normal requests still answer"
    finally:
        for connection in slow:
            connection.close()


def test_L1_fifty_parallel_pushes_never_exceed_the_quota(server: Server) -> None:
    namespace = server.make_namespace(quota_bytes=1_000_000)
    key = server.make_repository(namespace)
    username, password = server.make_user(namespace, "publisher")
    statuses: list[int] = []
    over: list[int] = []

    def usage() -> int:
        return int(server.admin.get(f"/api/v1/namespaces/{namespace}").json()["used_bytes"])

    def push(number: int) -> None:
        image = Image(server.client(username, password), f"{key}/app{number % 5}")
        body = bytes([number]) * 60_000
        halves = [body[:30_000], body[30_000:]]
        answer = image.push_blob(body) if number % 2 else image.push_stream(digest_of(body), iter(halves))
        statuses.append(answer.status_code)

    threads = [threading.Thread(target=push, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        used = usage()
        if used > 1_000_000:
            over.append(used)
        time.sleep(0.02)
    for thread in threads:
        thread.join()
    assert not over
    assert set(statuses) == {201, 403}
    assert statuses.count(201) <= 16
    assert usage() == 60_000 * statuses.count(201)
    report = server.manage("fsck", "--json")
    assert report.returncode == 0, report.stdout + report.stderr
