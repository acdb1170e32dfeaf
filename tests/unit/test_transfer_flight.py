"""S1 to S9, T1 to T9, V1 to V6, G4, G5, G8, G9, G12, G14, M3, U3: one fetch for everybody, verified, relayed as it comes."""

from __future__ import annotations

import asyncio
import errno
import gzip
import hashlib
import os
import random
import resource
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from repoman.blobs import store
from repoman.blobs.drivers.filesystem import FilesystemDriver
from repoman.blobs.drivers.memory import FailNth, MemoryDriver
from repoman.core.errors import (
    NotFound,
    QuotaExceeded,
    RepomanError,
    StorageFull,
    Unavailable,
    UpstreamFailed,
    UpstreamTimeout,
)
from repoman.core.fetch import Outcome
from repoman.core.records import Staged
from repoman.transfer import flight as flight_module
from repoman.transfer.breaker import FAILURES
from repoman.transfer.client import Client
from repoman.transfer.flight import HELD_BACK, WORTH_RELAYING, Flights, run
from tests.tools.flying import LOOPBACK, fetched, flying, plan_for, read_all, settings_for, storing
from tests.tools.upstream import Answer, Upstream, bomb, endless, html_page, throttled, zeros

MEBIBYTE = 1 << 20
CONTENT = random.Random(7).randbytes(3 * MEBIBYTE + 12345)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FilesystemDriver]:
    driver = FilesystemDriver(tmp_path / "store")
    driver.initialise("a-store")
    with storing(driver):
        yield driver


@pytest.fixture
def memory() -> Iterator[MemoryDriver]:
    driver = MemoryDriver("a-store")
    with storing(driver):
        yield driver


@pytest.fixture(params=["disk", "memory"])
def any_store(request: pytest.FixtureRequest) -> Iterator[FilesystemDriver | MemoryDriver]:
    yield request.getfixturevalue(request.param)


def stored(staged: Staged | None) -> bytes:
    assert staged is not None
    with store.driver().open(staged.storage_key) as reader:
        return reader.pread(0, reader.size)


def nothing_is_left(driver: FilesystemDriver | MemoryDriver) -> bool:
    if isinstance(driver, MemoryDriver):
        return not driver._unfinished and not list(driver.list())
    return not os.listdir(driver.upload_path("")) and not list(driver.list())


# --- one fetch for everybody


def test_s1_g8_200_followers_of_one_flight_all_get_the_bytes(any_store: object) -> None:
    """At different speeds, some from the middle, some late."""
    with Upstream() as upstream:
        upstream.add("/a", Answer(CONTENT, chunk_size=100_000, chunk_delay=0.01))
        settings = settings_for(upstream)

        async def follow(flights: Flights, number: int) -> bytes:
            await asyncio.sleep((number % 20) * 0.01)
            flight = await flights.fetch(plan_for(upstream.url("/a")), settings, adopt=adopt)
            await flight.started()
            return await read_all(flight, pause=0.02 if number % 10 == 0 else 0, most=200_000)

        adopted: list[Outcome] = []

        async def adopt(outcome: Outcome) -> None:
            adopted.append(outcome)
            await asyncio.sleep(0.1)

        async def scene(flights: Flights) -> list[bytes]:
            return await asyncio.gather(*[follow(flights, number) for number in range(200)])

        bodies = flying(scene)
        assert {hashlib.sha256(body).hexdigest() for body in bodies} == {hashlib.sha256(CONTENT).hexdigest()}
        assert upstream.count("/a") == 1
        assert len(adopted) == 1
        assert stored(adopted[0].staged) == CONTENT


def test_s2_g12_a_leader_that_leaves_does_not_stop_the_flight(disk: FilesystemDriver) -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(CONTENT, chunk_size=200_000, chunk_delay=0.02))
        settings = settings_for(upstream)

        async def leader(flights: Flights) -> None:
            flight = await flights.fetch(plan_for(upstream.url("/a")), settings, adopt=adopt)
            await flight.piece(0)
            await asyncio.Event().wait()

        adopted = []

        async def adopt(outcome: Outcome) -> None:
            adopted.append(outcome)

        async def scene(flights: Flights) -> bytes:
            first = asyncio.create_task(leader(flights))
            await asyncio.sleep(0.1)
            second = asyncio.create_task(leader(flights))
            await asyncio.sleep(0.05)
            first.cancel()
            second.cancel()
            await asyncio.sleep(0)
            flight = await flights.fetch(plan_for(upstream.url("/a")), settings)
            return await read_all(flight)

        assert flying(scene) == CONTENT
        assert upstream.count("/a") == 1
        assert stored(adopted[0].staged) == CONTENT


def test_s2_with_nobody_left_the_flight_still_ends_adopted(disk: FilesystemDriver) -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(CONTENT, chunk_size=500_000, chunk_delay=0.02))
        adopted = asyncio.Event()

        async def adopt(outcome: Outcome) -> None:
            assert outcome.error is None
            adopted.set()

        async def scene(flights: Flights) -> None:
            asked = asyncio.create_task(
                flights.fetch(plan_for(upstream.url("/a")), settings_for(upstream), adopt=adopt)
            )
            await asked
            await asyncio.wait_for(adopted.wait(), 10)
            assert flights.count == 0

        flying(scene)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(status=500), UpstreamFailed),
        (Answer(CONTENT, cut_after=2 * MEBIBYTE), UpstreamFailed),
        (Answer(b"x", status=404), NotFound),
        (Answer(CONTENT, stall="body", stall_after=MEBIBYTE), UpstreamTimeout),
        (throttled(7), Unavailable),
    ],
)
def test_s3_the_failure_reaches_every_follower(
    disk: FilesystemDriver, answer: Answer, error: type[RepomanError]
) -> None:
    with Upstream() as upstream:
        upstream.add("/a", answer)
        settings = settings_for(upstream, read_timeout=1)

        async def follow(flights: Flights) -> RepomanError:
            flight = await flights.fetch(plan_for(upstream.url("/a")), settings)
            with pytest.raises(RepomanError) as caught:
                await read_all(flight)
            told = (await flight.outcome()).error
            assert told is not None and told.message == caught.value.message
            return caught.value

        async def scene(flights: Flights) -> list[RepomanError]:
            return await asyncio.gather(*[follow(flights) for _ in range(10)])

        assert {type(one) for one in flying(scene)} == {error}
        assert upstream.count("/a") == 1
        assert nothing_is_left(disk)


def test_s4_slow_readers_slow_down_nobody(disk: FilesystemDriver) -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(CONTENT))
        begun = time.monotonic()

        async def scene(flights: Flights) -> tuple[float, float, bytes]:
            flight = await flights.fetch(plan_for(upstream.url("/a")), settings_for(upstream))
            slow = asyncio.create_task(read_all(flight, pause=0.05, most=100_000))
            fast = asyncio.create_task(read_all(flight))
            await flight.outcome()
            flight.release()
            assert await fast == CONTENT
            fast_done = time.monotonic() - begun
            assert await slow == CONTENT
            return fast_done, time.monotonic() - begun, b""

        fast, slow, _ = flying(scene)
        assert slow > 1.5
        assert fast < slow / 2


def test_s6_the_first_bytes_come_long_before_the_last(any_store: object) -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(CONTENT, chunk_size=WORTH_RELAYING + HELD_BACK, chunk_delay=0.3))

        async def scene(flights: Flights) -> None:
            flight = await flights.fetch(plan_for(upstream.url("/a")), settings_for(upstream))
            outcome = await flight.started()
            assert outcome.is_arriving
            assert outcome.status == 200
            assert outcome.size == len(CONTENT)
            assert outcome.headers["content-type"] == "application/octet-stream"
            first = await flight.piece(0)
            assert CONTENT.startswith(first)
            assert upstream.bodies("/a") == 0

        flying(scene)


def test_s6_little_that_came_is_relayed_when_no_more_comes_at_once(disk: FilesystemDriver) -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(CONTENT, stall="body", stall_after=HELD_BACK + 1000))

        async def scene(flights: Flights) -> None:
            flight = await flights.fetch(plan_for(upstream.url("/a")), settings_for(upstream))
            assert await asyncio.wait_for(flight.piece(0), 2) == CONTENT[:1000]

        flying(scene)


def test_t1_the_last_piece_is_held_back_until_the_release(any_store: object) -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(CONTENT))

        async def scene(flights: Flights) -> None:
            flight = await flights.fetch(plan_for(upstream.url("/a")), settings_for(upstream))
            outcome = await flight.outcome()
            assert outcome.error is None
            seen = b""
            while len(seen) < len(CONTENT) - HELD_BACK:
                seen += await flight.piece(len(seen))
            assert len(seen) == len(CONTENT) - HELD_BACK
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(flight.piece(len(seen)), 0.2)
            flight.release()
            seen += await flight.piece(len(seen))
            assert seen == CONTENT
            assert await flight.piece(len(seen)) == b""

        flying(scene)


def test_t1_a_refused_adoption_never_arrives_complete(any_store: object) -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(CONTENT))

        async def adopt(outcome: Outcome) -> None:
            raise QuotaExceeded("no room")

        async def scene(flights: Flights) -> None:
            flight = await flights.fetch(plan_for(upstream.url("/a")), settings_for(upstream), adopt=adopt)
            with pytest.raises(QuotaExceeded):
                await read_all(flight)
            assert isinstance((await flight.settled()).error, QuotaExceeded)

        flying(scene)


def test_t1_a_crash_of_the_adoption_is_an_error_for_everybody(disk: FilesystemDriver) -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(b"x"))

        async def adopt(outcome: Outcome) -> None:
            raise ZeroDivisionError

        async def scene(flights: Flights) -> None:
            flight = await flights.fetch(plan_for(upstream.url("/a")), settings_for(upstream), adopt=adopt)
            assert (await asyncio.wait_for(flight.settled(), 5)).error is not None
            with pytest.raises(RepomanError):
                await flight.piece(0)

        flying(scene)


def test_t1_what_nobody_adopts_fails_after_a_while(disk: FilesystemDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flight_module, "ADOPTION_SECONDS", 0.2)
    with Upstream() as upstream:
        upstream.add("/a", Answer(b"x"))

        async def scene(flights: Flights) -> None:
            flight = await flights.fetch(plan_for(upstream.url("/a")), settings_for(upstream))
            with pytest.raises(Unavailable):
                await asyncio.wait_for(flight.piece(0), 5)
            assert flights.count == 0

        flying(scene)


def test_s9_a_failure_is_remembered_for_a_moment_and_not_longer(
    disk: FilesystemDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flight_module, "REMEMBERED_SECONDS", 0.5)
    with Upstream() as upstream:
        upstream.add("/a", Answer(status=500), Answer(b"fine"))
        upstream.add("/b", Answer(status=404), Answer(b"fine"))

        async def ask(flights: Flights, path: str) -> Outcome:
            flight = await flights.fetch(plan_for(upstream.url(path), is_document=True), settings_for(upstream))
            outcome = await flight.outcome()
            flight.release()
            return outcome

        async def scene(flights: Flights) -> None:
            for _ in range(5):
                assert isinstance((await ask(flights, "/a")).error, UpstreamFailed)
                assert flights.find(upstream.url("/a")) is not None
            assert upstream.count("/a") == 1
            await asyncio.sleep(0.6)
            assert (await ask(flights, "/a")).body == b"fine"
            assert isinstance((await ask(flights, "/b")).error, NotFound)
            assert (await ask(flights, "/b")).body == b"fine", "not there is an answer, not a failure"

        flying(scene)


# --- what is kept, and what is not


def test_v1_every_digest_is_verified_before_anything_is_kept(any_store: FilesystemDriver | MemoryDriver) -> None:
    right = {
        "sha512": hashlib.sha512(CONTENT).hexdigest(),
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "sha1": hashlib.sha1(CONTENT).hexdigest(),
        "md5": hashlib.md5(CONTENT).hexdigest(),
        "blake2b_256": hashlib.blake2b(CONTENT, digest_size=32).hexdigest(),
    }
    with Upstream() as upstream:
        upstream.add("/a", Answer(CONTENT))
        for name in right:
            for is_document in (False, True):
                wrong = {**right, name: right[name][::-1]}
                outcome = fetched(upstream.url("/a"), settings_for(upstream), digests=wrong, is_document=is_document)
                assert isinstance(outcome.error, UpstreamFailed)
                assert outcome.error.detail["reason"] == "digest"
                assert name in outcome.error.message
                assert outcome.staged is None and outcome.body == b""
        assert nothing_is_left(any_store)
        outcome = fetched(upstream.url("/a"), settings_for(upstream), digests=right, size=len(CONTENT))
        assert outcome.error is None
        assert outcome.staged is not None
        assert {**outcome.staged.others, "sha256": outcome.staged.digest.hex} == right
        assert stored(outcome.staged) == CONTENT


def test_v1_g5_one_wrong_bit_never_arrives_complete(any_store: FilesystemDriver | MemoryDriver) -> None:
    digests = {"sha256": hashlib.sha256(CONTENT).hexdigest()}
    with Upstream() as upstream:
        upstream.add("/a", Answer(CONTENT, corrupt=True), Answer(CONTENT))

        async def scene(flights: Flights) -> int:
            flight = await flights.fetch(plan_for(upstream.url("/a"), digests=digests), settings_for(upstream))
            seen = 0
            with pytest.raises(UpstreamFailed):
                while piece := await flight.piece(seen):
                    seen += len(piece)
            return seen

        assert flying(scene) <= len(CONTENT) - HELD_BACK
        assert nothing_is_left(any_store)
        assert fetched(upstream.url("/a"), settings_for(upstream), digests=digests).error is None


CUT = [
    Answer(CONTENT, cut_after=2_000_000),
    Answer(CONTENT, cut_after=2_000_000, close_cleanly=True),
    Answer(CONTENT, cut_after=2_000_000, chunked=True),
    Answer(CONTENT, cut_after=2_000_000, chunked=True, close_cleanly=True),
    Answer(CONTENT, cut_after=0),
    Answer(CONTENT, cut_after=0, chunked=True, close_cleanly=True),
    Answer(CONTENT, cut_after=len(CONTENT), chunked=True, close_cleanly=True),
    Answer(CONTENT, cut_after=len(CONTENT) - 1, close_cleanly=True),
    Answer(CONTENT, declared=len(CONTENT) + 1, close_cleanly=True, cut_after=len(CONTENT)),
]


@pytest.mark.parametrize("answer", CUT)
def test_t1_g5_what_was_cut_is_not_kept_and_the_next_try_succeeds(
    any_store: FilesystemDriver | MemoryDriver, answer: Answer
) -> None:
    for is_document in (False, True):
        with Upstream() as upstream:
            upstream.add("/a", answer, Answer(CONTENT))
            outcome = fetched(upstream.url("/a"), settings_for(upstream), is_document=is_document)
            assert isinstance(outcome.error, UpstreamFailed)
            assert outcome.staged is None and outcome.body == b""
            assert nothing_is_left(any_store)
            again = fetched(upstream.url("/a"), settings_for(upstream), is_document=is_document)
            assert again.error is None
            assert upstream.count("/a") == 2
            if again.staged is not None:
                store.discard([again.staged.storage_key])


def test_g5_a_length_that_is_not_the_expected_one(disk: FilesystemDriver) -> None:
    with Upstream() as upstream:
        upstream.add("/short", Answer(CONTENT, declared=1000))  # more comes than is declared
        outcome = fetched(upstream.url("/short"), settings_for(upstream))
        assert stored(outcome.staged) == CONTENT[:1000]
        for size in (999, len(CONTENT)):
            outcome = fetched(upstream.url("/short"), settings_for(upstream), size=size)
            assert isinstance(outcome.error, UpstreamFailed)
            assert outcome.error.detail == {"reason": "length", "expected": size, "actual": 1000}
        upstream.add("/chunked", Answer(CONTENT, chunked=True))
        outcome = fetched(upstream.url("/chunked"), settings_for(upstream), size=len(CONTENT) + 1)
        assert isinstance(outcome.error, UpstreamFailed)
        outcome = fetched(upstream.url("/chunked"), settings_for(upstream), size=len(CONTENT))
        assert stored(outcome.staged) == CONTENT


def test_t3_a_body_that_only_the_connection_ends_is_marked(disk: FilesystemDriver) -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(CONTENT, declared=-1))
        outcome = fetched(upstream.url("/a"), settings_for(upstream))
        assert outcome.error is None and outcome.size is None
        assert stored(outcome.staged) == CONTENT
        digests = {"sha1": hashlib.sha1(CONTENT).hexdigest()}
        assert fetched(upstream.url("/a"), settings_for(upstream), digests=digests).size == len(CONTENT)
        upstream.add("/b", Answer(CONTENT, chunked=True))
        assert fetched(upstream.url("/b"), settings_for(upstream)).size == len(CONTENT)


def test_e1_an_empty_file_is_a_file(any_store: object) -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(b""))
        outcome = fetched(upstream.url("/a"), settings_for(upstream), size=0)
        assert outcome.error is None
        assert stored(outcome.staged) == b""
        assert fetched(upstream.url("/a"), settings_for(upstream), is_document=True).error is None


@pytest.mark.parametrize("size", [1, HELD_BACK - 1, HELD_BACK, HELD_BACK + 1, WORTH_RELAYING, MEBIBYTE, 2 * MEBIBYTE])
def test_sizes_around_every_border(any_store: object, size: int) -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(CONTENT[:size]))

        async def adopt(outcome: Outcome) -> None:
            assert outcome.size == size

        async def scene(flights: Flights) -> bytes:
            flight = await flights.fetch(plan_for(upstream.url("/a")), settings_for(upstream), adopt=adopt)
            return await read_all(flight)

        assert flying(scene) == CONTENT[:size]


def test_t7_a_partial_answer_is_never_the_whole(disk: FilesystemDriver) -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(CONTENT, always_partial=True))
        outcome = fetched(upstream.url("/a"), settings_for(upstream))
        assert isinstance(outcome.error, UpstreamFailed)
        assert outcome.status == 206
        assert "range" not in upstream.requests[0].headers


def test_r3_a_304_nobody_asked_for(disk: FilesystemDriver) -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(status=304))
        outcome = fetched(upstream.url("/a"), settings_for(upstream))
        assert isinstance(outcome.error, UpstreamFailed)
        assert outcome.status == 304


@pytest.mark.parametrize("status", [201, 204, 300, 400, 405, 407, 418, 451, 500, 501, 599])
def test_a3_other_statuses_are_failures_and_not_not_found(disk: FilesystemDriver, status: int) -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(status=status))
        outcome = fetched(upstream.url("/a"), settings_for(upstream))
        assert isinstance(outcome.error, UpstreamFailed)
        assert outcome.status == status


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_d4_d5_refusals_read_as_not_there_only_without_credentials(disk: FilesystemDriver, status: int) -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(status=status))
        assert isinstance(fetched(upstream.url("/a"), settings_for(upstream)).error, NotFound)
        outcome = fetched(upstream.url("/a"), settings_for(upstream, username="u", password="p"))
        assert isinstance(outcome.error, UpstreamFailed if status in (401, 403) else NotFound)
        assert str(status) in outcome.error.message


def test_t8_a_probe_asks_by_head_and_keeps_nothing(disk: FilesystemDriver) -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(CONTENT, etag='"e"'))
        outcome = fetched(upstream.url("/a"), settings_for(upstream), method="HEAD", kind="probe")
        assert (outcome.error, outcome.size, outcome.headers["etag"]) == (None, len(CONTENT), '"e"')
        assert upstream.count("/a", "HEAD") == 1 and upstream.count("/a", "GET") == 0
        assert nothing_is_left(disk)


def test_t8_an_upstream_that_refuses_head_is_asked_by_get_without_reading_the_body(disk: FilesystemDriver) -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(status=405), Answer(zeros(1 << 30), declared=1 << 30))
        outcome = fetched(upstream.url("/a"), settings_for(upstream), method="HEAD", kind="probe")
        assert (outcome.error, outcome.status, outcome.size) == (None, 200, 1 << 30)
        assert upstream.bytes_sent("/a") < 64 * MEBIBYTE
        assert nothing_is_left(disk)


# --- codings


def test_v2_g14_a_content_coding_is_removed_before_the_digest(any_store: object) -> None:
    digests = {"sha256": hashlib.sha256(CONTENT).hexdigest()}
    with Upstream() as upstream:
        upstream.add("/a.bin", Answer(CONTENT, gzip=True))
        outcome = fetched(upstream.url("/a.bin"), settings_for(upstream), digests=digests, size=len(CONTENT))
        assert outcome.error is None
        assert stored(outcome.staged) == CONTENT
        assert "content-encoding" not in outcome.headers and "content-length" not in outcome.headers
        raw = zlib.compressobj(wbits=-15)
        forms = {
            "deflate": zlib.compress(CONTENT),
            "Deflate": raw.compress(CONTENT) + raw.flush(),
            "x-gzip": gzip.compress(CONTENT[:1000]) + gzip.compress(CONTENT[1000:]),
            "gzip, gzip": gzip.compress(gzip.compress(CONTENT)),
            "identity": CONTENT,
            "aws-chunked": CONTENT,
        }
        for coding, body in forms.items():
            upstream.add("/b.bin", Answer(body, headers=(("Content-Encoding", coding),)))
            outcome = fetched(upstream.url("/b.bin"), settings_for(upstream), is_document=True, digests=digests)
            assert outcome.error is None, (coding, outcome.error)
            assert outcome.body == CONTENT


def test_v2_a_compressed_file_stays_compressed_where_its_own_compression_is_announced(any_store: object) -> None:
    packed = gzip.compress(CONTENT)
    with Upstream() as upstream:
        upstream.add("/a.tgz", Answer(packed, headers=(("Content-Encoding", "gzip"),)))
        assert stored(fetched(upstream.url("/a.tgz"), settings_for(upstream)).staged) == packed
        upstream.add("/b.tgz", Answer(packed, gzip=True))  # and here it really was added
        assert stored(fetched(upstream.url("/b.tgz"), settings_for(upstream)).staged) == packed
        upstream.add("/c.tgz", Answer(packed))
        assert stored(fetched(upstream.url("/c.tgz"), settings_for(upstream)).staged) == packed


@pytest.mark.parametrize(
    "answer",
    [
        Answer(b"not gzip", headers=(("Content-Encoding", "gzip"),)),
        Answer(gzip.compress(CONTENT)[:-10], headers=(("Content-Encoding", "gzip"),)),
        Answer(gzip.compress(CONTENT)[:-4] + b"abcd", headers=(("Content-Encoding", "gzip"),)),
        Answer(CONTENT, headers=(("Content-Encoding", "br"),)),
        Answer(CONTENT, headers=(("Content-Encoding", "gzip, gzip, gzip"),)),
    ],
)
def test_v2_broken_and_unknown_codings_are_failures(any_store: FilesystemDriver | MemoryDriver, answer: Answer) -> None:
    with Upstream() as upstream:
        upstream.add("/a", answer)
        for is_document in (False, True):
            outcome = fetched(upstream.url("/a"), settings_for(upstream), is_document=is_document)
            assert isinstance(outcome.error, UpstreamFailed)
            assert outcome.error.detail["reason"] == "coding"
        assert nothing_is_left(any_store)


# --- limits


def test_g9_a_bomb_is_stopped_at_the_limit(any_store: FilesystemDriver | MemoryDriver) -> None:
    with Upstream() as upstream:
        upstream.add("/a", bomb(200 * MEBIBYTE))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for is_document in (True, False):
            outcome = fetched(upstream.url("/a"), settings_for(upstream), is_document=is_document, limit=5 * MEBIBYTE)
            assert isinstance(outcome.error, UpstreamFailed)
            assert "larger than" in outcome.error.message
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB
        assert nothing_is_left(any_store)


def test_g9_an_endless_body_and_a_huge_declared_one(disk: FilesystemDriver) -> None:
    with Upstream() as upstream:
        upstream.add("/endless", Answer(lambda _: endless(), chunked=True))
        upstream.add("/huge", Answer(b"x", declared=10**12, cut_after=1))
        for path in ("/endless", "/huge"):
            for is_document in (True, False):
                outcome = fetched(
                    upstream.url(path), settings_for(upstream), is_document=is_document, limit=3 * MEBIBYTE
                )
                assert isinstance(outcome.error, UpstreamFailed)
                assert outcome.error.detail["reason"] == "too_large"
        document = fetched(upstream.url("/huge"), settings_for(upstream), is_document=True)
        assert document.error is not None
        assert nothing_is_left(disk)


def test_l2_the_limits_error_is_the_callers(disk: FilesystemDriver) -> None:
    with Upstream() as upstream:
        upstream.add("/declared", Answer(CONTENT))
        upstream.add("/chunked", Answer(CONTENT, chunked=True))

        async def scene(flights: Flights) -> None:
            for path in ("/declared", "/chunked"):
                flight = await flights.fetch(
                    plan_for(upstream.url(path), limit=MEBIBYTE),
                    settings_for(upstream),
                    limit_error=lambda size: QuotaExceeded("no room", needed_bytes=size),
                )
                error = (await flight.outcome()).error
                assert isinstance(error, QuotaExceeded)
                assert int(str(error.detail["needed_bytes"])) > MEBIBYTE

        flying(scene)
        assert nothing_is_left(disk)


@pytest.mark.parametrize("name", ["a.jar", "a.whl", "a.tgz", "a-1.0.pom", "a.jar.sha1"])
def test_v6_g6_a_web_page_is_not_taken_for_a_file(any_store: FilesystemDriver | MemoryDriver, name: str) -> None:
    with Upstream() as upstream:
        upstream.add(f"/{name}", html_page())
        outcome = fetched(upstream.url(f"/{name}?x=y.html"), settings_for(upstream))
        assert isinstance(outcome.error, UpstreamFailed)
        assert outcome.error.detail["reason"] == "page"
        assert nothing_is_left(any_store)


def test_v6_pages_where_pages_may_be_and_types_that_lie(disk: FilesystemDriver) -> None:
    with Upstream() as upstream:
        for path in ("/index.html", "/readme", "/docs/"):
            upstream.add(path, html_page())
            assert fetched(upstream.url(path), settings_for(upstream)).error is None
        upstream.add("/a.jar", Answer(b"PK\x03\x04...", media_type="text/html"))
        assert fetched(upstream.url("/a.jar"), settings_for(upstream)).error is None


@pytest.mark.parametrize("pieces", [(b"",), (b"\x1f",), (b"no archive",), (b"\x1f", b"x"), (b"\x1f", b"\x8a", b"x")])
def test_v5_b10_what_does_not_begin_as_it_must_is_not_kept(
    any_store: FilesystemDriver | MemoryDriver, pieces: tuple[bytes, ...]
) -> None:
    with Upstream() as upstream:
        upstream.add("/whole", Answer(b"".join(pieces)))
        upstream.add("/pieces", Answer(lambda _: (piece for piece in pieces), chunked=True))
        for path in ("/whole", "/pieces"):
            outcome = fetched(upstream.url(path), settings_for(upstream), begins=b"\x1f\x8b")
            assert isinstance(outcome.error, UpstreamFailed)
            assert outcome.error.detail["reason"] == "beginning"
            assert nothing_is_left(any_store)


def test_v5_what_begins_as_it_must(disk: FilesystemDriver) -> None:
    with Upstream() as upstream:
        upstream.add("/whole", Answer(b"\x1f\x8b..."))
        upstream.add("/pieces", Answer(lambda _: iter((b"\x1f", b"\x8b", b"...")), chunked=True))
        for path in ("/whole", "/pieces"):
            outcome = fetched(upstream.url(path), settings_for(upstream), begins=b"\x1f\x8b")
            assert outcome.error is None and outcome.staged is not None and outcome.staged.size == 5


# --- faults on our side, and ends


def test_m3_a_full_disk_is_told_as_such_and_leaves_nothing(disk: FilesystemDriver) -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(CONTENT))
        for number in range(1, 20):
            fault = FailNth(number, OSError(errno.ENOSPC, "planted"))
            disk.failpoint = fault  # type: ignore[method-assign]
            outcome = fetched(upstream.url("/a"), settings_for(upstream))
            disk.failpoint = lambda step: None  # type: ignore[method-assign]
            if not fault.fired:
                assert outcome.error is None
                break
            assert isinstance(outcome.error, StorageFull | Unavailable), outcome.error
            assert nothing_is_left(disk)
        else:
            raise AssertionError("the fault never stopped firing")


def test_m8_a_storage_pool_that_is_full_for_a_moment_is_waited_for(disk: FilesystemDriver) -> None:
    busy = 5

    async def scene(_: Flights) -> None:
        async def in_thread(function, *arguments):  # type: ignore[no-untyped-def]
            return await asyncio.to_thread(function, *arguments)

        def reluctant(function, *arguments):  # type: ignore[no-untyped-def]
            nonlocal busy
            if busy:
                busy -= 1
                raise Unavailable("the server is busy")
            return in_thread(function, *arguments)

        flights = Flights(Client(LOOPBACK, environment={}), run=reluctant)
        flight = await flights.fetch(plan_for(upstream.url("/a")), settings_for(upstream))
        assert (await flight.outcome()).error is None
        flight.release()
        await flights.close()

    with Upstream() as upstream:
        upstream.add("/a", Answer(CONTENT))
        flying(scene)
    assert busy == 0


def test_m10_a_stop_leaves_nothing_and_tells_everybody(any_store: FilesystemDriver | MemoryDriver) -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(CONTENT, stall="body", stall_after=2 * MEBIBYTE))

        async def scene(flights: Flights) -> None:
            flight = await flights.fetch(plan_for(upstream.url("/a")), settings_for(upstream))
            reader = asyncio.create_task(read_all(flight))
            await flight.piece(0)
            await flights.close()
            with pytest.raises(Unavailable):
                await reader
            assert isinstance((await flight.outcome()).error, Unavailable)

        flying(scene)
        assert nothing_is_left(any_store)


def test_descriptors_and_temporary_files_are_given_back(any_store: object, tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    with Upstream() as upstream:
        upstream.add("/a", Answer(CONTENT))
        upstream.add("/b", Answer(CONTENT, cut_after=MEBIBYTE))

        async def scene(flights: Flights) -> None:
            for number in range(3):
                for path in ("/a", "/b"):
                    flight = await flights.fetch(
                        plan_for(upstream.url(path), key=f"{path}{number}"), settings_for(upstream)
                    )
                    await flight.outcome()
                    flight.release()
                    assert not list(folder.iterdir()), "temporary files have no name"
                    del flight
                if not number:
                    before = len(os.listdir("/proc/self/fd"))
            await asyncio.sleep(0.2)
            flights._failed.clear()
            assert len(os.listdir("/proc/self/fd")) <= before + 2

        flying(scene, folder=str(folder))


def test_b6_while_the_breaker_is_open_nothing_is_asked(disk: FilesystemDriver) -> None:
    with Upstream() as upstream:
        upstream.everywhere = Answer(status=503, headers=(("Retry-After", "60"),))

        async def scene(flights: Flights) -> None:
            for number in range(FAILURES + 5):
                flight = await flights.fetch(plan_for(upstream.url(f"/{number}")), settings_for(upstream))
                error = (await flight.outcome()).error
                assert isinstance(error, UpstreamFailed if number < FAILURES else Unavailable), number
            other = await flights.fetch(plan_for(upstream.url("/x"), repository_id=2), settings_for(upstream))
            assert (await other.outcome()).status == 503, "another remote's breaker is its own"

        flying(scene)
        assert len(upstream.requests) == FAILURES + 1


def test_b3_one_broken_path_does_not_take_the_remote_down(disk: FilesystemDriver) -> None:
    with Upstream() as upstream:
        upstream.add("/broken", Answer(status=500))
        upstream.add("/fine", Answer(b"x"))

        async def scene(flights: Flights) -> None:
            for number in range(20):
                flight = await flights.fetch(plan_for(upstream.url("/broken"), key=str(number)), settings_for(upstream))
                assert isinstance((await flight.outcome()).error, UpstreamFailed)
            flight = await flights.fetch(plan_for(upstream.url("/fine")), settings_for(upstream))
            assert (await flight.outcome()).error is None

        flying(scene)


def test_l1_no_more_than_the_given_number_at_a_time(disk: FilesystemDriver) -> None:
    with Upstream() as upstream:
        upstream.everywhere = Answer(b"x" * 1000, delay=0.1)
        most = 0

        async def scene(flights: Flights) -> None:
            nonlocal most
            found = [
                await flights.fetch(plan_for(upstream.url(f"/{number}")), settings_for(upstream, concurrency=4))
                for number in range(20)
            ]
            waiting = asyncio.gather(*[flight.outcome() for flight in found])
            while not waiting.done():
                most = max(most, upstream.open_connections)
                await asyncio.sleep(0.01)
            assert all(outcome.error is None for outcome in await waiting)

        flying(scene)
        assert most == 4


def test_l1_a_queue_that_does_not_move_is_left(disk: FilesystemDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flight_module, "QUEUE_SECONDS", 0.2)
    with Upstream() as upstream:
        upstream.add("/stuck", Answer(b"x", stall="headers"))
        upstream.add("/document", Answer(b"x"))

        async def scene(flights: Flights) -> None:
            settings = settings_for(upstream, concurrency=1)
            await flights.fetch(plan_for(upstream.url("/stuck")), settings)
            await asyncio.sleep(0.05)
            second = await flights.fetch(plan_for(upstream.url("/other")), settings)
            assert isinstance((await second.outcome()).error, Unavailable)
            document = await flights.fetch(plan_for(upstream.url("/document"), is_document=True), settings)
            assert (await document.outcome()).body == b"x", "documents do not wait for files"

        flying(scene)


def test_a_worker_runs_a_plan_by_itself(disk: FilesystemDriver) -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(CONTENT))
        outcome = run(plan_for(upstream.url("/a")), settings_for(upstream), policy=LOOPBACK)
        assert outcome.error is None
        assert stored(outcome.staged) == CONTENT
        outcome = run(plan_for(upstream.url("/b")), settings_for(upstream), policy=LOOPBACK)
        assert isinstance(outcome.error, NotFound)


def test_a_worker_uses_the_configured_policy(disk: FilesystemDriver) -> None:
    with Upstream() as upstream:
        outcome = run(plan_for(upstream.url("/a")), settings_for(upstream))
        assert isinstance(outcome.error, UpstreamFailed)
        assert "REPOMAN_UPSTREAM_ALLOW" in outcome.error.message


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_u3_t9_memory_stays_flat_for_512_mebibytes_and_50_readers(disk: FilesystemDriver) -> None:
    size = 512 * MEBIBYTE
    with Upstream() as upstream:
        upstream.add("/a", Answer(zeros(size), declared=size))
        highest = 0

        async def follow(flights: Flights, number: int) -> int:
            flight = await flights.fetch(plan_for(upstream.url("/a")), settings_for(upstream), adopt=adopt)
            await flight.started()
            seen = 0
            while piece := await flight.piece(seen, 256 * 1024 if number else MEBIBYTE):
                seen += len(piece)
            return seen

        async def adopt(outcome: Outcome) -> None:
            assert outcome.error is None

        async def watch() -> None:
            nonlocal highest
            while True:
                highest = max(highest, _resident())
                await asyncio.sleep(0.02)

        async def scene(flights: Flights) -> None:
            watcher = asyncio.create_task(watch())
            read = await asyncio.gather(*[follow(flights, number) for number in range(50)])
            watcher.cancel()
            assert read == [size] * 50

        before = _resident()
        begun = time.monotonic()
        flying(scene)
        assert highest - before < 96 * MEBIBYTE
        assert time.monotonic() - begun < 90
        assert upstream.count("/a") == 1
