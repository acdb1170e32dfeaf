"""Every storage driver keeps the contract of `repoman/blobs/drivers/base.py`, on healthy and on failing media.

The filesystem faults are real ones (a small tmpfs, a read-only remount, a killed process) wherever the kernel can be made
to give them; EIO comes through the drivers' failpoint. The S3 faults come from a proxy in front of a real server. Mounting
needs root.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import http.client
import http.server
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from repoman.blobs.drivers import base, s3
from repoman.blobs.drivers.base import (
    BlobMissing,
    Driver,
    KeyTaken,
    SinkBusy,
    SinkLost,
    StoreCorrupt,
    StoreError,
    StoreForeign,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
    storage_key,
)
from repoman.blobs.drivers.filesystem import FilesystemDriver
from repoman.blobs.drivers.memory import FailNth, MemoryDriver
from repoman.blobs.drivers.s3 import S3Driver, part_size
from tests.tools import services

ROOT = Path(__file__).parents[2]
INSTANCE = "0123456789abcdef0123456789abcdef"
PART = 5 * 1024 * 1024  # the smallest that S3 allows
KINDS = ("filesystem", "s3", "memory")
_numbers = itertools.count(1)


def pattern(size: int) -> bytes:
    """Bytes whose every 64 KiB differ, so that a swapped, repeated or missing piece shows."""
    block = bytes(range(256)) * 256
    return b"".join(number.to_bytes(8, "big") + block[8:] for number in range(size // len(block) + 1))[:size]


def fresh_key(content: bytes = b"") -> str:
    return storage_key(hashlib.sha256(content).hexdigest(), f"{next(_numbers):08x}")


def keep(driver: Driver, content: bytes, key: str | None = None) -> base.Committed:
    with driver.sink() as sink:
        if content:
            sink.append(content)
        return sink.commit(key or fresh_key(content))


def everything(driver: Driver, key: str) -> bytes:
    with driver.open(key) as reader:
        return b"".join(reader.pread(offset, 1 << 20) for offset in range(0, reader.size, 1 << 20))


def keys(driver: Driver, prefix: str = "", after: str = "") -> list[str]:
    return [listed.key for listed in driver.list(prefix, after)]


@dataclasses.dataclass(slots=True)
class Store:
    """A store and how to come to it again, as another process would."""

    kind: str
    driver: Driver
    again: Callable[[], Driver]


@pytest.fixture(scope="module")
def object_store() -> Iterator[services.ObjectStore]:
    with services.s3() as server:
        yield server


def s3_driver(server: services.ObjectStore, prefix: str, endpoint: str | None = None, bucket: str = "") -> S3Driver:
    return S3Driver(
        bucket or server.bucket,
        prefix,
        endpoint_url=endpoint or server.endpoint,
        region_name=server.region,
        access_key=server.access_key,
        secret_key=server.secret_key,
        part_bytes=PART,
    )


def empty_store(kind: str, request: pytest.FixtureRequest) -> Store:
    if kind == "filesystem":
        location = request.getfixturevalue("tmp_path") / "store"
        return Store(kind, FilesystemDriver(location), lambda: FilesystemDriver(location))
    if kind == "s3":
        server = request.getfixturevalue("object_store")
        prefix = f"store/{next(_numbers)}"
        return Store(kind, s3_driver(server, prefix), lambda: s3_driver(server, prefix))
    memory = MemoryDriver()
    return Store(kind, memory, lambda: memory)


@pytest.fixture(params=KINDS)
def bare(request: pytest.FixtureRequest) -> Store:
    """A store that was not initialised."""
    return empty_store(request.param, request)


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest) -> Store:
    made = empty_store(request.param, request)
    made.driver.initialise(INSTANCE)
    return made


@pytest.fixture
def driver(store: Store) -> Driver:
    return store.driver


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


# Writing and reading


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 2 * PART, 64 * 1024 * 1024 + 1])
def test_d9_what_is_committed_reads_back_whole_after_a_restart(store: Store, size: int) -> None:
    content = pattern(size)
    with store.driver.sink() as sink:
        for start in range(0, size, 1_000_003):
            sink.append(memoryview(content)[start : start + 1_000_003])
        assert sink.size == size
        assert keys(store.driver) == []
        committed = sink.commit(fresh_key(content))
    again = store.again()
    assert committed.size == size
    assert again.stat(committed.key) == base.Stat(size, committed.stamp)
    assert [(listed.key, listed.size) for listed in again.list()] == [(committed.key, size)]
    with again.open(committed.key) as reader:
        assert (reader.size, reader.stamp) == (size, committed.stamp)
    assert everything(again, committed.key) == content


def test_a_key_is_kept_as_asked_or_answered_otherwise_only_by_s3(store: Store) -> None:
    small, large = fresh_key(), fresh_key()
    assert keep(store.driver, b"small", small).key == small
    answered = keep(store.driver, pattern(PART + 1), large).key
    assert answered == large or (
        store.kind == "s3" and re.fullmatch(r"multipart/[0-9a-f]{2}/[0-9a-f]{32}\.data", answered)
    )
    assert base.require_key(answered)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: memoryview(data).cast("I")])
def test_every_kind_of_buffer_is_taken_and_may_be_reused(driver: Driver, kind: Callable[[bytes], bytes]) -> None:
    buffer = bytearray(b"abcdefgh")
    with driver.sink() as sink:
        sink.append(kind(bytes(buffer)))
        sink.append(buffer)
        buffer[:] = b"ijklmnop"
        sink.append(buffer)
        buffer.clear()
        key = sink.commit(fresh_key()).key
    assert everything(driver, key) == b"abcdefghabcdefghijklmnop"


def test_r5_a_read_gives_exactly_what_is_there(driver: Driver) -> None:
    content = pattern(300_000)
    with driver.open(keep(driver, content).key) as reader:
        for offset, length in [
            (0, 10),
            (10, 10),
            (20, 0),
            (299_999, 5),
            (300_000, 1),
            (400_000, 9),
            (0, 1 << 30),
            (7, 1),
        ]:
            assert reader.pread(offset, length) == content[offset : offset + length]
        with pytest.raises(ValueError):
            reader.pread(-1, 1)


def test_threads_share_a_reader(driver: Driver) -> None:
    content = pattern(3_000_000)
    wrong: list[int] = []
    with driver.open(keep(driver, content).key) as reader:

        def work(number: int) -> None:
            for offset in range(number, len(content), 400_007):
                if reader.pread(offset, 50_000) != content[offset : offset + 50_000]:
                    wrong.append(offset)

        run_threads(work, 6)
    assert wrong == []


def run_threads(work: Callable[[int], None], count: int) -> None:
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_capabilities_tell_what_answers(store: Store) -> None:
    key = keep(store.driver, b"content").key
    url = store.driver.url(key, expires_seconds=60, media_type="application/gzip", filename='ä "x".tgz')
    path = store.driver.path(key)
    with store.driver.open(key) as reader:
        descriptor = reader.fileno()
        assert (descriptor is not None) == (path is not None) == store.driver.capabilities.local_files
        if descriptor is not None:
            assert os.pread(descriptor, 100, 0) == b"content"
    assert (url is not None) == store.driver.capabilities.presigned
    if url is not None:
        with urllib.request.urlopen(url) as answer:
            assert answer.read() == b"content"
            assert answer.headers["Content-Type"] == "application/gzip"
            assert "filename*=UTF-8''%C3%A4%20%22x%22.tgz" in answer.headers["Content-Disposition"]
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(url.replace(key, key[:-1] + "0"))
    if path is not None:
        assert isinstance(store.driver, FilesystemDriver)
        assert Path(store.driver.root, path).read_bytes() == b"content"


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/etc/passwd",
        "../x/y",
        "sha256/../x",
        "sha256/a//b",
        "sha256/.x",
        "uploads/x",
        "x",
        "sha256/a\0",
        "s/" * 200,
    ],
)
def test_a1_a_key_that_is_none_is_refused_everywhere(driver: Driver, key: str) -> None:
    for call in (driver.open, driver.stat, driver.delete):
        with pytest.raises(ValueError, match="not a storage key"):
            call(key)
    with driver.sink() as sink, pytest.raises(ValueError, match="not a storage key"):
        sink.commit(key)


def test_a6_storage_keys_come_from_digests_only() -> None:
    assert storage_key("ab" * 32, "7") == f"sha256/ab/{'ab' * 32}.7"
    for digest, generation in [
        ("AB" * 32, "7"),
        ("ab" * 31, "7"),
        ("ab" * 32, ""),
        ("ab" * 32, "../x"),
        ("ab" * 32, "a.b"),
    ]:
        with pytest.raises(ValueError):
            storage_key(digest, generation)


# Keys are never used twice


def test_w2_an_existing_key_is_an_error_and_keeps_its_bytes(driver: Driver) -> None:
    key = keep(driver, b"first").key
    with driver.sink() as sink:
        sink.append(b"second")
        with pytest.raises(KeyTaken):
            sink.commit(key)
        with pytest.raises(RuntimeError):
            sink.append(b"more")
    assert everything(driver, key) == b"first"
    assert driver.sweep(time.time() + 60) == 0


def test_w2_of_commits_racing_for_one_key_exactly_one_wins(driver: Driver) -> None:
    key, won, lost = fresh_key(), [], []

    def work(number: int) -> None:
        with driver.sink() as sink:
            sink.append(bytes([number]) * 100_000)
            barrier.wait()
            try:
                sink.commit(key)
                won.append(number)
            except StoreError:
                lost.append(number)

    barrier = threading.Barrier(8)
    run_threads(work, 8)
    assert (len(won), len(lost)) == (1, 7)
    deadline = time.monotonic() + 5
    while driver.stat(key) is None and time.monotonic() < deadline:
        time.sleep(0.05)  # some gateways show the winner a moment after they have refused the others
    assert everything(driver, key) == bytes(won) * 100_000


def test_w1_many_commits_at_once_all_arrive(driver: Driver) -> None:
    contents = {fresh_key(): os.urandom(20_000 + number) for number in range(48)}
    order = list(contents)

    def work(number: int) -> None:
        for key in order[number::12]:
            keep(driver, contents[key], key)

    run_threads(work, 12)
    assert keys(driver) == sorted(contents)
    assert all(everything(driver, key) == content for key, content in contents.items())


def test_q5_a_late_delete_hits_a_dead_key_and_is_no_error(driver: Driver) -> None:
    first = keep(driver, b"same").key
    second = keep(driver, b"same").key
    driver.delete(first)
    driver.delete(first)
    assert driver.stat(first) is None
    with pytest.raises(BlobMissing):
        driver.open(first)
    assert everything(driver, second) == b"same"


def test_q3_an_open_local_file_outlives_its_key(store: Store) -> None:
    if not store.driver.capabilities.local_files:
        with store.driver.open(keep(store.driver, b"content").key) as reader:
            assert reader.fileno() is None
        return
    key = keep(store.driver, b"content").key
    with store.driver.open(key) as reader:
        store.driver.delete(key)
        assert reader.pread(0, 100) == b"content"


# Unfinished sinks


def test_d6_an_abandoned_sink_leaves_nothing(driver: Driver) -> None:
    for size in (0, 1, PART + 1):
        sink = driver.sink()
        sink.append(pattern(size))
        sink.abandon()
        sink.abandon()
        with pytest.raises(RuntimeError):
            sink.append(b"x")
        with pytest.raises(RuntimeError):
            sink.commit(fresh_key())
    assert keys(driver) == []
    assert driver.sweep(time.time() + 60) == 0


def test_leaving_the_block_without_an_end_abandons(driver: Driver) -> None:
    with pytest.raises(ZeroDivisionError), driver.sink() as sink:
        sink.append(b"x")
        raise ZeroDivisionError
    assert driver.sweep(time.time() + 60) == 0


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 2 * PART, 64 * 1024 * 1024 + 1])
def test_d5_a_suspended_sink_goes_on_after_a_restart(store: Store, size: int) -> None:
    content = pattern(size + 10)
    sink = store.driver.sink()
    for start in range(0, size, 8 << 20):
        sink.append(content[start : min(start + (8 << 20), size)])
    token = sink.suspend()
    sink.abandon()  # does nothing any more
    assert len(token) < 500
    assert json.loads(json.dumps(token)) == token
    with store.again().sink(token) as resumed:
        assert resumed.size == size
        resumed.append(content[size : size + 3])
        token = resumed.suspend()
    with store.again().sink(token) as resumed:
        resumed.append(content[size + 3 :])
        committed = resumed.commit(fresh_key(content))
    assert committed.size == size + 10
    assert everything(store.again(), committed.key) == content
    with pytest.raises(SinkLost):
        store.again().sink(token)
    assert store.again().sweep(time.time() + 60) == 0


@pytest.mark.parametrize("size", [0, 1, PART, PART + 1])
def test_d5_m1_what_came_after_the_last_kept_token_is_dropped(store: Store, size: int) -> None:
    """A process that dies between suspend() and keeping its token leaves the older token in the row."""
    content = pattern(size)
    sink = store.driver.sink()
    sink.append(content)
    kept = sink.suspend()
    for extra in (b"lost", pattern(PART + 7)):
        going_on = store.again().sink(kept)
        going_on.append(extra)
        going_on.suspend()  # its token is lost
    with store.again().sink(kept) as resumed:
        assert resumed.size == size
        resumed.append(b"end")
        key = resumed.commit(fresh_key()).key
    assert everything(store.again(), key) == content + b"end"


def test_d5_many_small_chunks_make_one_object(store: Store) -> None:
    content = pattern(PART + 500_000)
    token = store.driver.sink().suspend()
    for start in range(0, len(content), 700_001):
        sink = store.again().sink(token)
        assert sink.size == start
        sink.append(content[start : start + 700_001])
        token = sink.suspend(durable=False)
    with store.again().sink(token) as sink:
        key = sink.commit(fresh_key(content)).key
    assert everything(store.driver, key) == content
    assert store.driver.sweep(time.time() + 60) == 0


def test_d6_abandoning_a_resumed_sink_drops_all_of_it(store: Store) -> None:
    for size in (1, PART + 1):
        sink = store.driver.sink()
        sink.append(pattern(size))
        token = sink.suspend()
        store.again().sink(token).abandon()
        with pytest.raises(SinkLost):
            store.again().sink(token)
    assert store.driver.sweep(time.time() + 60) == 0


@pytest.mark.parametrize(
    "token",
    ["", "{}", "null", "[1]", '{"id": "../../x", "size": 0}', '{"id": "00000000000000000000000000000000", "size": 0}'],
)
def test_d4_a_damaged_or_unknown_token_is_lost(driver: Driver, token: str) -> None:
    with pytest.raises(SinkLost):
        driver.sink(token)


def test_d2_a_local_sink_is_open_only_once(store: Store) -> None:
    token = store.driver.sink().suspend()
    first = store.again().sink(token)
    if store.kind == "filesystem":
        with pytest.raises(SinkBusy):
            store.again().sink(token)
    first.append(b"x")
    assert first.commit(fresh_key()).size == 1


@pytest.mark.parametrize("size", [0, 1, PART + 1])
def test_d6_sweep_removes_what_nobody_touched_and_nothing_else(store: Store, size: int) -> None:
    committed = keep(store.driver, pattern(size)).key
    sink = store.driver.sink()
    sink.append(pattern(size))
    token = sink.suspend()
    assert store.again().sweep(time.time() - 3600) == 0
    store.again().sink(token).suspend()
    assert store.again().sweep(time.time() + 60) == 1
    assert store.again().sweep(time.time() + 60) == 0
    with pytest.raises(SinkLost):
        store.again().sink(token)
    assert keys(store.driver) == [committed]


def test_d6_a_local_sink_that_is_open_is_not_swept(tmp_path: Path) -> None:
    driver = FilesystemDriver(tmp_path / "store")
    driver.initialise(INSTANCE)
    with driver.sink() as sink:
        sink.append(b"x")
        assert FilesystemDriver(tmp_path / "store").sweep(time.time() + 60) == 0
        assert sink.commit(fresh_key()).size == 1


# Listing


def test_a_listing_has_prefix_after_and_order(driver: Driver) -> None:
    wanted = sorted(
        storage_key(digest * 32, generation) for digest in ("00", "0a", "ab", "ff") for generation in ("1", "2", "10")
    )
    for key in reversed(wanted):
        keep(driver, b"x", key)
    driver.sink().suspend()
    assert keys(driver) == wanted
    for after in [*wanted, "sha256/", "sha256/0a", "sha256/0b/", "a", "zzz", wanted[3] + "0"]:
        assert keys(driver, after=after) == [key for key in wanted if key > after]
        assert keys(driver, "sha256/0", after) == [key for key in wanted if key > after and key.startswith("sha256/0")]
    for prefix in ["sha256", "sha256/ab/", "sha256/ab/ab", wanted[0], "sha256/abc", "b", "uploads/"]:
        assert keys(driver, prefix) == [key for key in wanted if key.startswith(prefix)]
    assert all(abs(listed.modified - time.time()) < 600 for listed in driver.list())


def test_m11_five_thousand_objects_are_listed_in_order(store: Store, request: pytest.FixtureRequest) -> None:
    wanted = sorted(storage_key(hashlib.sha256(b"%d" % number).hexdigest(), "1") for number in range(5000))
    if store.kind == "memory":
        for key in wanted:
            keep(store.driver, b"", key)
    else:  # files put there by hand: what is tested is the listing
        if isinstance(store.driver, FilesystemDriver):
            root = Path(store.driver.root)
        else:
            assert isinstance(store.driver, S3Driver)
            server = request.getfixturevalue("object_store")
            root = Path(server.folder, server.bucket, store.driver.full(""))
        for key in wanted:
            (root / key).parent.mkdir(parents=True, exist_ok=True)
            (root / key).touch()
    assert keys(store.driver) == wanted
    assert keys(store.driver, after=wanted[4321]) == wanted[4322:]
    assert next(iter(store.driver.list(after=wanted[1234]))).key == wanted[1235]


# Whose store it is


def test_m7_a_store_that_was_not_initialised_is_not_written_to(bare: Store) -> None:
    for call in (bare.driver.check, bare.driver.sink, lambda: keys(bare.driver), lambda: bare.driver.open(fresh_key())):
        with pytest.raises(StoreForeign):
            call()
    bare.driver.initialise(INSTANCE)
    bare.driver.check()
    keep(bare.driver, b"content")


def test_m7_initialising_twice_or_at_once_finds_the_same_store(bare: Store) -> None:
    run_threads(lambda number: bare.again().initialise(INSTANCE), 4)
    key = keep(bare.driver, b"content").key
    bare.again().initialise(INSTANCE)
    bare.again().check(INSTANCE)
    assert everything(bare.again(), key) == b"content"
    assert bare.again().sweep(time.time() + 60) == 0


def test_m7_another_instance_is_refused(store: Store) -> None:
    other = "f" * 32
    keep(store.driver, b"content")
    for call in (store.again().initialise, store.again().check):
        with pytest.raises(StoreForeign, match="another instance"):
            call(other)
    store.driver.check()


def test_m7_content_without_a_marker_is_never_adopted(tmp_path: Path, object_store: services.ObjectStore) -> None:
    for name in ("file", "folder/"):
        (tmp_path / name).mkdir(parents=True) if name.endswith("/") else (tmp_path / name).touch()
        with pytest.raises(StoreForeign, match="no marker"):
            FilesystemDriver(tmp_path).initialise(INSTANCE)
        (tmp_path / name).rmdir() if name.endswith("/") else (tmp_path / name).unlink()
    bucket = s3_driver(object_store, "foreign")
    bucket.call("put_object", Key="foreign/thing", Body=b"")
    with pytest.raises(StoreForeign, match="no marker"):
        bucket.initialise(INSTANCE)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"instance": "0123456789abcdef0123456789abcdef"}'])
def test_m7_a_damaged_marker_is_refused(tmp_path: Path, content: bytes) -> None:
    driver = FilesystemDriver(tmp_path / "store")
    driver.initialise(INSTANCE)
    (tmp_path / "store" / base.MARKER).write_bytes(content)
    with pytest.raises(StoreForeign):
        driver.check()
    with pytest.raises(StoreForeign):
        FilesystemDriver(tmp_path / "store").sink()


def test_m7_an_unmounted_store_is_neither_empty_nor_new(tmp_path: Path) -> None:
    """Bytes under a missing mount are not reported missing, not deleted, and nothing is written below the mount point."""
    folder = tmp_path / "mount"
    driver = FilesystemDriver(folder)
    with mounted(folder, "size=4m"):
        driver.initialise(INSTANCE)
        key = keep(driver, b"content").key
        open_sink = driver.sink()
        open_sink.append(b"x")
    calls: list[Callable[[], object]] = [
        driver.check,
        driver.sink,
        lambda: driver.open(key),
        lambda: driver.stat(key),
        lambda: driver.delete(key),
        lambda: keys(driver),
        lambda: driver.sweep(time.time()),
        lambda: open_sink.commit(fresh_key()),
    ]
    for call in calls:
        with pytest.raises(StoreForeign):
            call()
    open_sink.abandon()
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    folder.rmdir()
    with pytest.raises(StoreForeign):
        driver.check()


def test_m7_another_store_mounted_over_is_noticed(tmp_path: Path) -> None:
    driver = FilesystemDriver(tmp_path / "store")
    driver.initialise(INSTANCE)
    with mounted(tmp_path / "store", "size=4m"):
        FilesystemDriver(tmp_path / "store").initialise("f" * 32)
        with pytest.raises(StoreForeign, match="another instance"):
            driver.sink()
    keep(driver, b"content")


# A failing filesystem


def test_m3_a_full_disk_refuses_writes_and_nothing_else(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "size=1m") as folder:
        driver = FilesystemDriver(folder)
        driver.initialise(INSTANCE)
        kept = keep(driver, b"k" * 300_000).key
        with driver.sink() as sink:
            with pytest.raises(StoreFull) as caught:
                for _ in range(40):
                    sink.append(bytes(50_000))
            with pytest.raises(StoreFull):
                driver.check()
            assert everything(driver, kept) == b"k" * 300_000
            with pytest.raises(RuntimeError):
                sink.commit(fresh_key())
        assert str(folder) not in str(caught.value)
        assert driver.sweep(time.time() + 60) == 0
        driver.check()
        driver.delete(kept)
        keep(driver, bytes(700_000))
        assert len(keys(driver)) == 1


def test_m3_a_disk_without_inodes_refuses_new_files(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "size=4m,nr_inodes=12") as folder:
        driver = FilesystemDriver(folder)
        driver.initialise(INSTANCE)
        kept = []
        with pytest.raises(StoreFull):
            for _ in range(12):
                kept.append(keep(driver, b"x", storage_key("ab" * 32, str(len(kept)))).key)
        assert keys(driver) == kept
        driver.delete(kept.pop())
        kept.append(keep(driver, b"x", storage_key("ab" * 32, "again")).key)
        assert keys(driver) == sorted(kept)


def test_m6_a_read_only_store_still_reads(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=4m") as folder:
        driver = FilesystemDriver(folder)
        driver.initialise(INSTANCE)
        key = keep(driver, b"content").key
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        for call in (driver.sink, driver.check, lambda: driver.delete(key)):
            with pytest.raises(StoreReadOnly):
                call()
        assert everything(driver, key) == b"content"
        assert keys(driver) == [key]
        subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
        driver.check()
        keep(driver, b"more")


def test_m9_an_uploads_folder_on_another_filesystem_is_refused(tmp_path: Path) -> None:
    driver = FilesystemDriver(tmp_path / "store")
    driver.initialise(INSTANCE)
    with mounted(tmp_path / "store" / "uploads", "size=1m"):
        with pytest.raises(StoreUnavailable, match="several filesystems"):
            driver.check()
        with driver.sink() as sink, pytest.raises(StoreUnavailable):
            sink.commit(fresh_key())
    assert keys(driver) == []


def test_m8_without_descriptors_calls_fail_and_recover(tmp_path: Path) -> None:
    program = """
import os, resource, sys
from repoman.blobs.drivers.base import StoreUnavailable, storage_key
from repoman.blobs.drivers.filesystem import FilesystemDriver
driver = FilesystemDriver(sys.argv[1])
driver.initialise("i")
key = storage_key("ab" * 32, "1")
with driver.sink() as sink:
    sink.append(b"content")
    sink.commit(key)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
while True:
    try:
        taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        break
for call in (driver.sink, lambda: driver.open(key), driver.check):
    try:
        call()
    except StoreUnavailable as error:
        print(type(error).__name__)
for descriptor in taken:
    os.close(descriptor)
driver.check()
print(driver.open(key).pread(0, 9).decode())
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "store")], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["StoreUnavailable"] * 3 + ["content"]


@pytest.mark.parametrize("step", ["fsync", "rename", "fsync-directory"])
def test_m4_eio_is_not_acknowledged_and_never_retried(tmp_path: Path, step: str) -> None:
    driver = FilesystemDriver(tmp_path / "store")
    driver.initialise(INSTANCE)
    driver.failpoint = fault = FailNth(1, OSError(errno.EIO, "planted"), step)
    key = fresh_key()
    with driver.sink() as sink:
        sink.append(b"content")
        with pytest.raises(StoreUnavailable):
            sink.commit(key)
        for again in (sink.suspend, lambda: sink.commit(key), lambda: sink.append(b"")):
            with pytest.raises(RuntimeError):
                again()
    assert fault.seen == 1
    assert driver.stat(key) is None
    assert [path.name for path in (tmp_path / "store").rglob("*") if path.is_file()] == [base.MARKER]
    assert everything(driver, keep(driver, b"content", key).key) == b"content"


@pytest.mark.parametrize("step", ["write", "fsync"])
def test_m4_eio_while_suspending_loses_no_older_token(tmp_path: Path, step: str) -> None:
    driver = FilesystemDriver(tmp_path / "store")
    driver.initialise(INSTANCE)
    sink = driver.sink()
    sink.append(b"content")
    token = sink.suspend()
    sink = driver.sink(token)
    driver.failpoint = FailNth(1, OSError(errno.EIO, "planted"), step)
    with pytest.raises(StoreUnavailable):
        sink.append(b"more")
        sink.suspend()
    with pytest.raises(RuntimeError):
        sink.suspend()
    sink.abandon()
    with pytest.raises(SinkLost):  # pages of the file may be gone, so nothing of it is trusted again
        driver.sink(token)


def test_m5_eio_on_read_says_that_the_blob_is_suspect(driver: Driver) -> None:
    key = keep(driver, b"content").key
    with driver.open(key) as reader:
        driver.failpoint = FailNth(1, OSError(errno.EIO, "planted"), "read")
        if isinstance(driver, S3Driver):
            assert reader.pread(0, 7) == b"content"  # the network's errors are tried again
        else:
            with pytest.raises(StoreCorrupt):
                reader.pread(0, 7)


def test_c5_r5_a_file_cut_while_it_is_read_is_never_a_short_answer(tmp_path: Path) -> None:
    driver = FilesystemDriver(tmp_path / "store")
    driver.initialise(INSTANCE)
    committed = keep(driver, b"x" * 100_000)
    path = tmp_path / "store" / committed.key
    with driver.open(committed.key) as reader:
        os.truncate(path, 60_000)
        assert reader.pread(0, 50_000) == b"x" * 50_000
        with pytest.raises(StoreCorrupt):
            reader.pread(50_000, 20_000)
    assert driver.stat(committed.key) != base.Stat(committed.size, committed.stamp)


def test_c4_a_file_that_was_touched_has_another_stamp(tmp_path: Path) -> None:
    driver = FilesystemDriver(tmp_path / "store")
    driver.initialise(INSTANCE)
    committed = keep(driver, b"content")
    path = tmp_path / "store" / committed.key
    path.write_bytes(b"CONTENT")
    found = driver.stat(committed.key)
    assert found is not None
    assert (found.size, found.stamp != committed.stamp) == (7, True)


def test_m1_a_fault_at_every_single_step_leaves_all_or_nothing(store: Store) -> None:
    content = pattern(PART + 100_000)
    for n in itertools.count(1):
        driver = store.again()
        driver.check(INSTANCE)
        driver.failpoint = fault = FailNth(n, OSError(errno.EIO, "planted"))
        key, committed = fresh_key(content), None
        sink: base.Sink | None = None
        try:
            sink = driver.sink()
            sink.append(content[:PART])
            token = sink.suspend()
            sink = driver.sink(token)
            sink.append(content[PART:])
            committed = sink.commit(key)
        except StoreError:
            if sink is not None:
                sink.abandon()
        driver.failpoint = base.Driver.failpoint
        for listed in store.driver.list():
            assert everything(store.driver, listed.key) == content
            store.driver.delete(listed.key)
            if committed is not None:
                assert listed.key == committed.key
                committed = None
        assert committed is None  # an acknowledged one was there
        store.driver.sweep(time.time() + 60)
        assert store.driver.sweep(time.time() + 60) == 0
        if not fault.fired:
            assert n > 8 or store.kind == "memory"
            break


KILLED = """
import json, os, signal, sys
from repoman.blobs.drivers.filesystem import FilesystemDriver
from repoman.blobs.drivers.s3 import S3Driver
kind, options, n, key, part = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
driver = S3Driver(**options) if kind == "s3" else FilesystemDriver(**options)
driver.check()
steps = 0
def failpoint(step):
    global steps
    steps += 1
    if steps == n:
        os.kill(os.getpid(), signal.SIGKILL)
driver.failpoint = failpoint
with driver.sink() as sink:
    sink.append(b"a" * part)
    sink.append(b"b" * 1000)
    token = sink.suspend()
    print("token", token, flush=True)
with driver.sink(token) as sink:
    sink.append(b"c" * 1000)
    print("committed", sink.commit(key).key, flush=True)
"""


@pytest.mark.parametrize("kind", ["filesystem", "s3"])
def test_m1_killed_at_every_step_nothing_partial_is_seen_and_tokens_hold(
    kind: str, request: pytest.FixtureRequest
) -> None:
    store = empty_store(kind, request)
    store.driver.initialise(INSTANCE)
    if isinstance(store.driver, FilesystemDriver):
        options: dict[str, object] = {"location": store.driver.root}
    else:
        server = request.getfixturevalue("object_store")
        assert isinstance(store.driver, S3Driver)
        options = {
            "bucket": server.bucket,
            "prefix": store.driver.full(""),
            "endpoint_url": server.endpoint,
            "region_name": server.region,
            "access_key": server.access_key,
            "secret_key": server.secret_key,
            "part_bytes": PART,
        }
    whole = b"a" * PART + b"b" * 1000 + b"c" * 1000
    for n in itertools.count(1):
        arguments = [kind, json.dumps(options), str(n), fresh_key(), str(PART)]
        done = subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode in (0, -9), done.stderr
        said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
        found = keys(store.driver)
        if "committed" in said:
            assert found == [said["committed"]]
        for key in found:
            assert everything(store.driver, key) == whole
            store.driver.delete(key)
        if "token" in said and not found:
            with store.again().sink(said["token"]) as sink:
                assert sink.size == PART + 1000
                sink.append(b"c" * 1000)
                key = sink.commit(fresh_key()).key
            assert everything(store.driver, key) == whole
            store.driver.delete(key)
        store.driver.sweep(time.time() + 60)
        assert store.driver.sweep(time.time() + 60) == 0
        if done.returncode == 0:
            assert n > 8
            break


# A failing object store

Fault = Callable[["Request"], bool]


@dataclasses.dataclass(slots=True)
class Request:
    """A request on its way through the proxy; a fault that returns True has answered it itself."""

    handler: http.server.BaseHTTPRequestHandler
    method: str
    path: str
    body: bytes

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> bool:
        self.handler.send_response_only(status)
        for name, value in {"Content-Length": str(len(body)), "Connection": "close", **(headers or {})}.items():
            self.handler.send_header(name, value)
        self.handler.end_headers()
        if self.method != "HEAD":
            self.handler.wfile.write(body)
        return True

    def reset(self) -> bool:
        self.handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.handler.connection.close()
        return True

    def forward(self, server: str) -> tuple[int, list[tuple[str, str]], bytes]:
        upstream = http.client.HTTPConnection(urlsplit(server).netloc)
        try:
            upstream.putrequest(self.method, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.handler.headers.items():
                if name.lower() not in ("expect", "connection"):
                    upstream.putheader(name, value)
            upstream.endheaders(self.body)
            answer = upstream.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            upstream.close()


class Proxy:
    """In front of the S3 server; `fault` sees each request first, `cut` how many bytes of an answer's body get through."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.seen: list[str] = []
        self.fault: Fault = lambda request: False
        self.cut: Callable[[Request], int | None] = lambda request: None
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                self.close_connection = True
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                request = Request(self, self.command, self.path, body)
                proxy.seen.append(f"{self.command} {self.path}")
                self.close_connection = True
                if proxy.fault(request):
                    return
                status, headers, content = request.forward(proxy.server)
                self.send_response_only(status)
                for name, value in headers:
                    if name.lower() not in ("connection", "transfer-encoding"):
                        self.send_header(name, value)
                self.send_header("Connection", "close")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content[: proxy.cut(request)])

            def handle_expect_100(self) -> bool:
                self.send_response_only(100)
                self.end_headers()
                return True

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.http.server_port}"
        self._thread = threading.Thread(target=self.http.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self._thread.join()
        self.http.server_close()


@pytest.fixture
def proxy(object_store: services.ObjectStore) -> Iterator[Proxy]:
    made = Proxy(object_store.endpoint)
    yield made
    made.close()


@pytest.fixture
def distant(proxy: Proxy, object_store: services.ObjectStore) -> S3Driver:
    """A driver behind the proxy, its store initialised."""
    driver = s3_driver(object_store, f"distant/{next(_numbers)}", proxy.endpoint)
    driver.initialise(INSTANCE)
    proxy.seen.clear()
    return driver


def times(count: int, method: str, fragment: str, act: Callable[[Request], bool]) -> Fault:
    """`act` on the first `count` requests of this method whose path and query contain `fragment`."""
    left = itertools.count(-count)
    return lambda request: request.method == method and fragment in request.path and next(left) < 0 and act(request)


FAULTS: dict[str, Callable[[Request], bool]] = {
    "500": lambda request: request.answer(500),
    "503": lambda request: request.answer(503, b"<Error><Code>SlowDown</Code></Error>"),
    "reset": Request.reset,
}
CALLS = [
    ("PUT", "/sha256/"),
    ("HEAD", "/sha256/"),
    ("POST", "uploads"),
    ("PUT", "partNumber=1"),
    ("PUT", "partNumber=2"),
    ("POST", "uploadId"),
    ("HEAD", "/multipart/"),
]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("method", "fragment"), CALLS)
def test_n1_one_failure_of_any_call_is_overcome(
    distant: S3Driver, proxy: Proxy, method: str, fragment: str, fault: str
) -> None:
    proxy.fault = times(1, method, fragment, FAULTS[fault])
    content = pattern(100 if "sha256" in fragment else PART + 100)
    assert everything(distant, keep(distant, content).key) == content


@pytest.mark.parametrize(("method", "fragment"), [CALLS[0], CALLS[1], CALLS[3], CALLS[5]])
def test_n1_lasting_failure_of_any_call_is_unavailable_after_bounded_tries(
    distant: S3Driver, proxy: Proxy, method: str, fragment: str
) -> None:
    proxy.fault = times(10_000, method, fragment, FAULTS["503"])
    with pytest.raises(StoreUnavailable):
        keep(distant, pattern(100 if "sha256" in fragment else PART + 100))
    assert sum(seen.startswith(method) and fragment in seen for seen in proxy.seen) == s3.ATTEMPTS


@pytest.mark.parametrize("size", [100, PART + 100])
def test_n2_success_without_an_object_is_found_before_it_is_acknowledged(
    distant: S3Driver, proxy: Proxy, size: int
) -> None:
    done = b"<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>"
    proxy.fault = lambda request: (
        (request.method == "PUT" and "/sha256/" in request.path and request.answer(200, headers={"ETag": '"x"'}))
        or (request.method == "POST" and "uploadId" in request.path and request.answer(200, done))
    )
    with pytest.raises(StoreUnavailable, match="does not have it"):
        keep(distant, pattern(size))
    assert keys(distant) == []


def test_n2_an_object_stored_short_or_altered_is_found_and_removed(
    distant: S3Driver, proxy: Proxy, object_store: services.ObjectStore
) -> None:
    other = s3_driver(object_store, distant.full("").strip("/"))
    for stored in (b"shor", b"CONTENT"):

        def replace(request: Request, stored: bytes = stored) -> bool:
            if request.method != "PUT" or "/sha256/" not in request.path:
                return False
            key = urlsplit(request.path).path.split("/", 2)[2]
            sink = request.handler.headers["x-amz-meta-sink"]
            other.call("put_object", Key=key, Body=stored, ChecksumAlgorithm="CRC32", Metadata={"sink": sink})
            return request.answer(200, headers={"ETag": '"x"'})

        proxy.fault = replace
        with pytest.raises(StoreUnavailable, match="other bytes"):
            keep(distant, b"content")
        assert keys(distant) == []


def test_n2_an_error_inside_a_successful_completion_is_an_error(distant: S3Driver, proxy: Proxy) -> None:
    inside = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>again</Message></Error>"
    proxy.fault = times(1, "POST", "uploadId", lambda request: request.answer(200, inside))
    content = pattern(PART + 1)
    assert everything(distant, keep(distant, content).key) == content
    proxy.fault = times(10, "POST", "uploadId", lambda request: request.answer(200, inside))
    with pytest.raises(StoreUnavailable):
        keep(distant, content)


@pytest.mark.parametrize(("method", "fragment"), [("PUT", "/sha256/"), ("POST", "uploadId"), ("PUT", "partNumber")])
def test_n3_a_write_whose_answer_was_lost_counts_as_done(
    distant: S3Driver, proxy: Proxy, method: str, fragment: str
) -> None:
    def lose(request: Request) -> bool:
        request.forward(proxy.server)
        return request.reset()

    proxy.fault = times(1, method, fragment, lose)
    content = pattern(100 if "sha256" in fragment else PART + 100)
    key = keep(distant, content).key
    assert keys(distant) == [key]
    assert everything(distant, key) == content
    assert distant.sweep(time.time() + 60) == 0


def test_n3_an_orphan_of_an_unknown_outcome_is_reclaimed_by_listing(distant: S3Driver, proxy: Proxy) -> None:
    proxy.fault = times(10_000, "HEAD", "/sha256/", FAULTS["reset"])
    key = fresh_key()
    with pytest.raises(StoreUnavailable):
        keep(distant, b"content", key)
    proxy.fault = lambda request: False
    assert keys(distant) == [key]
    distant.delete(key)
    keep(distant, b"content", key)


@pytest.mark.parametrize("step", [1 << 20, 300_000, PART + 100])
def test_n4_a_read_that_is_cut_goes_on_by_range(distant: S3Driver, proxy: Proxy, step: int) -> None:
    content = pattern(PART + 100)
    key = keep(distant, content).key
    cuts = iter([200_000, 0, 1_000_000])
    proxy.cut = lambda request: next(cuts, None) if request.method == "GET" and "/multipart/" in request.path else None
    with distant.open(key) as reader:
        assert b"".join(reader.pread(offset, step) for offset in range(0, len(content), step)) == content


def test_n4_a_read_that_is_always_cut_fails_visibly(distant: S3Driver, proxy: Proxy) -> None:
    key = keep(distant, b"content").key
    proxy.cut = lambda request: 0 if request.method == "GET" else None
    with distant.open(key) as reader, pytest.raises(StoreUnavailable):
        reader.pread(0, 7)


def test_n4_the_wrong_range_or_a_replaced_object_is_never_passed_on(
    distant: S3Driver, proxy: Proxy, object_store: services.ObjectStore
) -> None:
    content = pattern(1000)
    key = keep(distant, content).key
    with distant.open(key) as reader:
        proxy.fault = times(1, "GET", "/sha256/", lambda request: request.answer(200, content))
        with pytest.raises(StoreCorrupt):
            reader.pread(10, 10)
        distant.call("put_object", Key=distant.full(key), Body=content[::-1])
        with pytest.raises(StoreCorrupt):
            reader.pread(10, 10)
        distant.delete(key)
        with pytest.raises(BlobMissing):
            reader.pread(10, 10)


def test_n4_reads_that_follow_each_other_share_one_answer(distant: S3Driver, proxy: Proxy) -> None:
    content = pattern(PART)
    key = keep(distant, content).key
    proxy.seen.clear()
    with distant.open(key) as reader:
        assert b"".join(reader.pread(offset, 1 << 18) for offset in range(0, PART, 1 << 18)) == content
    assert sum(seen.startswith("GET") for seen in proxy.seen) == 2


def test_n5_one_404_is_no_proof_that_a_blob_is_gone(distant: S3Driver, proxy: Proxy) -> None:
    proxy.fault = times(1, "HEAD", "/sha256/", lambda request: request.answer(404))
    key = keep(distant, b"content").key
    proxy.fault = times(1, "HEAD", "/sha256/", lambda request: request.answer(404))
    assert everything(distant, key) == b"content"


def test_n5_a_listing_that_breaks_off_raises_instead_of_ending(distant: S3Driver, proxy: Proxy) -> None:
    keep(distant, b"content")
    proxy.fault = times(10_000, "GET", "list-type=2", FAULTS["503"])
    with pytest.raises(StoreUnavailable):
        keys(distant)


def test_n6_wrong_credentials_bucket_or_an_empty_bucket_lose_and_report_nothing(
    object_store: services.ObjectStore,
) -> None:
    key = fresh_key()
    refused = S3Driver(
        object_store.bucket,
        endpoint_url=object_store.endpoint,
        region_name=object_store.region,
        access_key=object_store.access_key,
        secret_key="wrong",
    )
    nowhere = s3_driver(object_store, "", bucket="elsewhere")
    empty = s3_driver(object_store, "nothing-here")
    for driver in (refused, nowhere, empty):
        calls: list[Callable[[], object]] = [
            driver.check,
            driver.sink,
            lambda: driver.open(key),  # noqa: B023
            lambda: driver.stat(key),  # noqa: B023
            lambda: driver.delete(key),  # noqa: B023
            lambda: keys(driver),  # noqa: B023
        ]
        for call in calls:
            with pytest.raises(StoreUnavailable) as caught:
                call()
            assert object_store.bucket not in str(caught.value)
            assert "127.0.0.1" not in str(caught.value)


def test_n1_a_server_that_is_down_is_unavailable(object_store: services.ObjectStore) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        driver = s3_driver(object_store, "x", f"http://127.0.0.1:{reserved.getsockname()[1]}")
        with pytest.raises(StoreUnavailable):
            driver.check()


def test_m3_a_full_object_store_says_so(distant: S3Driver, proxy: Proxy) -> None:
    full = b"<Error><Code>XMinioStorageFull</Code></Error>"
    proxy.fault = times(10, "PUT", "/sha256/", lambda request: request.answer(507, full))
    with pytest.raises(StoreFull):
        keep(distant, b"content")
    proxy.fault = times(
        10, "PUT", "/sha256/", lambda request: request.answer(403, b"<Error><Code>AccessDenied</Code></Error>")
    )
    with pytest.raises(StoreReadOnly):
        keep(distant, b"content")


def test_a_server_without_conditional_writes_is_looked_at_first(distant: S3Driver, proxy: Proxy) -> None:
    refusal = b"<Error><Code>NotImplemented</Code></Error>"
    proxy.fault = lambda request: "If-None-Match" in request.handler.headers and request.answer(501, refusal)
    for content in (b"content", pattern(PART + 1)):
        key = keep(distant, content).key
        assert everything(distant, key) == content
    small = keep(distant, b"first").key
    with pytest.raises(KeyTaken):
        keep(distant, b"second", small)


def test_d9_ten_thousand_parts_hold_far_more_than_five_gibibytes() -> None:
    assert sum(part_size(number) for number in range(1, 10_001)) == 484 * 1024**3 + 384 * 1024**2
    assert {part_size(number) for number in range(1, 2001)} == {8 * 1024 * 1024}
    assert part_size(10_000) == 128 * 1024 * 1024
    assert all(part_size(number) <= part_size(number + 1) for number in range(1, 10_000))
