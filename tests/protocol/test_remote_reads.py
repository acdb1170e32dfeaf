"""What a remote repository asks of its upstream and when, and what of that its clients see."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tests.fault.upstreams import ALLOW, PAGE, QUICK, Project, Remote, is_stale, until
from tests.protocol.edge_client import metric
from tests.running import Deployment, Server
from tests.tools.upstream import Answer, Basic, Upstream

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Deployment.embedded(tmp_path_factory.mktemp("remotes"), **ALLOW) as found:
        yield found


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as found:
        yield found


def answers(remote: Remote, path: str, count: int = 4) -> list[httpx.Response]:
    """By connections of their own, so by both processes as it happens."""
    return [remote.get(path) for _ in range(count)]


# --- freshness -------------------------------------------------------------------------------------------------------


def test_F1_fresh_content_is_not_asked_for_again(server: Server, upstream: Upstream) -> None:
    upstream.add("/fresh.txt", Answer(b"one", etag='"1"'))
    remote = Remote.of(server, upstream)
    first, *others = answers(remote, "fresh.txt")
    assert first.headers["cache-status"].startswith("repoman; fwd=miss")
    for other in others:
        assert other.content == b"one"
        told, ttl = other.headers["cache-status"].rsplit("ttl=", 1)
        assert told == "repoman; hit; " and 260 <= int(ttl) <= 300
    assert upstream.count("/fresh.txt") == 1


def test_R1_R4_F4_both_validators_are_sent_and_304_extends(server: Server, upstream: Upstream) -> None:
    modified = "Mon, 02 Jan 2023 03:04:05 GMT"
    upstream.add("/dated.txt", Answer(b"one", etag='W/"odd-1"', last_modified=modified))
    remote = Remote.of(server, upstream, metadata_ttl=2)
    assert remote.get("dated.txt").content == b"one"
    assert until(lambda: remote.get("dated.txt").content and upstream.count("/dated.txt") == 2, 5)
    assert [found.content for found in answers(remote, "dated.txt")] == [b"one"] * 4
    assert upstream.count("/dated.txt") == 2, "the 304 did not extend"
    asked = upstream.seen("/dated.txt")[1].headers
    assert asked["if-none-match"] == 'W/"odd-1"' and asked["if-modified-since"] == modified
    assert upstream.bodies("/dated.txt") == 1


def test_F1_ttl_0_asks_every_time_and_sees_changes_at_once(server: Server, upstream: Upstream) -> None:
    remote = Remote.of(server, upstream, metadata_ttl=0)
    for number in range(4):
        content = b"%d" % number
        upstream.add("/changing.txt", Answer(content, etag=f'"{number}"'))
        assert [found.content for found in answers(remote, "changing.txt", 2)] == [content] * 2
    assert upstream.bodies("/changing.txt") == 4
    assert remote.kept() == ["changing.txt"] and remote.used() >= 1


def test_F2_a_shorter_max_age_counts_and_a_longer_one_does_not(server: Server, upstream: Upstream) -> None:
    upstream.add("/short.txt", Answer(b"1", headers=(("Cache-Control", "public, max-age=0"),)))
    upstream.add("/long.txt", Answer(b"1", headers=(("Cache-Control", "max-age=86400"), ("Age", "5"))))
    remote = Remote.of(server, upstream, metadata_ttl=60)
    assert remote.get("short.txt").status_code == remote.get("short.txt").status_code == 200
    assert upstream.count("/short.txt") == 2
    remote.get("long.txt")
    assert 50 <= int(remote.get("long.txt").headers["cache-status"].rsplit("ttl=", 1)[1]) <= 60


def test_R4_a_changed_page_changes_what_clients_see(server: Server, upstream: Upstream) -> None:
    project = Project(upstream, "growing")
    project.serve()
    remote = Remote.of(server, upstream, "pypi", metadata_ttl=0)
    first = remote.page(project)
    assert (
        remote.get(f"simple/{project.name}/", Accept=PAGE, **{"If-None-Match": first.headers["etag"]}).status_code
        == 304
    )
    newer = Project(upstream, "growing", version="2.0")
    newer.serve()
    page = remote.page(newer)
    assert [file["filename"] for file in page.json()["files"]] == [newer.file]
    assert page.headers["etag"] != first.headers["etag"]
    assert remote.file(newer).content == newer.content
    sent = [seen.headers.get("if-none-match") for seen in upstream.seen(project.path)]
    assert sent[0] is None and sent[1] == project.page.etag


def test_T3_a_body_that_nothing_measures_is_not_kept_as_fresh_or_fixed(server: Server, upstream: Upstream) -> None:
    upstream.add("/unmeasured.txt", Answer(b"perhaps all of it", declared=-1))
    remote = Remote.of(server, upstream)
    for number in (1, 2):
        assert remote.get("unmeasured.txt").content == b"perhaps all of it"
        assert upstream.count("/unmeasured.txt") == number


# --- not there -------------------------------------------------------------------------------------------------------


def test_N1_G7_not_there_is_remembered_for_its_time_only(server: Server, upstream: Upstream) -> None:
    remote = Remote.of(server, upstream, negative_ttl=2)
    assert {found.status_code for found in answers(remote, "later.txt", 6)} == {404}
    assert 1 <= upstream.count("/later.txt") <= 2, "once for each process"
    upstream.add("/later.txt", Answer(b"here"))
    assert until(lambda: remote.get("later.txt").status_code == 200, 4)
    none = Remote.of(server, upstream, negative_ttl=0)
    answers(none, "never.txt", 3)
    assert upstream.count("/never.txt") == 3


def test_A3_what_the_upstream_calls_gone_is_not_served_as_stale_later(server: Server, upstream: Upstream) -> None:
    upstream.add("/gone.txt", Answer(b"here"))
    remote = Remote.of(server, upstream, metadata_ttl=0, negative_ttl=0, **QUICK)
    assert remote.get("gone.txt").status_code == 200
    upstream.remove("/gone.txt")
    assert remote.get("gone.txt").status_code == 404
    upstream.add("/gone.txt", Answer(status=500))
    assert remote.get("gone.txt").status_code == 502


def test_D4_D5_401_is_not_there_without_credentials_and_a_fault_of_ours_with(
    server: Server, upstream: Upstream
) -> None:
    upstream.protect("/private/", Basic("me", "right"))
    upstream.add("/private/a.txt", Answer(b"secret content"))
    anonymous = Remote.of(server, upstream)
    found = anonymous.get("private/a.txt")
    assert found.status_code == 404 and "401" in found.text and "www-authenticate" not in found.headers
    wrong = Remote.of(server, upstream, username="me", password="wrong")
    found = wrong.get("private/a.txt")
    assert found.status_code == 502 and "www-authenticate" not in found.headers
    assert "credentials" in wrong.shown()["upstream_trouble"]["error"]
    # K5: other credentials are another upstream; what the first ones were told does not count.
    wrong.change(password="right")
    assert wrong.get("private/a.txt").content == b"secret content"
    assert until(lambda: wrong.shown()["upstream_trouble"] is None, 5)


# --- files that change, and those that must not ----------------------------------------------------------------------


def test_G13_C4_a_released_file_stays_what_it_was_and_the_change_is_recorded(
    server: Server, upstream: Upstream
) -> None:
    project = Project(upstream, "fixed")
    project.serve()
    remote = Remote.of(server, upstream, "pypi", metadata_ttl=0)
    remote.page(project)
    assert remote.file(project).content == project.content
    again = Project(upstream, "fixed")
    again.serve()
    for _ in range(2):
        (listed,) = remote.page(again).json()["files"]
        assert listed["hashes"] == {"sha256": hashlib.sha256(project.content).hexdigest()}, "a page lies about its file"
        assert remote.file(again).content == project.content
    events = server.admin.get(
        "/api/v1/audit", params={"kind": "upstream:changed", "namespace": remote.key.partition("/")[0]}
    ).json()["items"]
    assert len(events) == 1, events
    assert hashlib.sha256(again.content).hexdigest() in events[0]["detail"]["listed"]
    assert server.tail(10**7).count("upstream_changed_a_file") == 1
    assert upstream.count(again.file_path) == 1


def test_K5_another_url_is_another_upstream(server: Server, upstream: Upstream) -> None:
    """What was learnt of the first one, its documents and what it lacked, counts no more; nor does what is under way."""
    upstream.add("/one/a.txt", Answer(b"of the first"))
    upstream.add("/two/a.txt", Answer(b"of the second"))
    upstream.add("/two/b.txt", Answer(b"only there"))
    upstream.add("/one/slow.txt", Answer(b"too late", delay=1.5))
    upstream.add("/two/slow.txt", Answer(b"in time"))
    remote = Remote.of(server, upstream.url("/one/"), metadata_ttl=3600, negative_ttl=3600)
    assert {found.content for found in answers(remote, "a.txt")} == {b"of the first"}
    assert {found.status_code for found in answers(remote, "b.txt")} == {404}
    with contextlib.suppress(httpx.ReadTimeout):
        httpx.get(remote.url("slow.txt"), timeout=0.5)
    remote.change(url=upstream.url("/two/"))
    assert {found.content for found in answers(remote, "a.txt")} == {b"of the second"}
    assert {found.content for found in answers(remote, "b.txt")} == {b"only there"}
    assert remote.get("slow.txt").content == b"in time"
    time.sleep(1.5)
    assert remote.get("slow.txt").content == b"in time"
    upstream.add("/two/a.txt", Answer(status=500))
    remote.change(url=upstream.url("/three/"), metadata_ttl=0)
    assert remote.get("a.txt").status_code == 404, "not the copy of another upstream"


# --- HEAD, ranges, conditions ----------------------------------------------------------------------------------------


def test_T8_G14_HEAD_says_what_is_there_and_keeps_nothing(server: Server, upstream: Upstream) -> None:
    upstream.add("/probed.bin", Answer(b"x" * 1000))
    remote = Remote.of(server, upstream)
    found = remote.head("probed.bin")
    assert found.status_code == 200 and found.headers["content-length"] == "1000"
    assert remote.head("absent.bin").status_code == 404
    assert remote.kept() == [] and upstream.bodies("/probed.bin") == 0
    assert remote.get("folder/").status_code in (200, 404) and remote.kept() == []
    project = Project(upstream, "headed")
    project.serve()
    pypi = Remote.of(server, upstream, "pypi")
    found = pypi.head(f"files/{project.name}/{project.file}")
    assert found.status_code == 200 and found.headers["content-length"] == str(len(project.content))
    assert upstream.count(project.file_path) == 0


def test_T7_a_range_of_a_cold_file_is_never_kept_as_the_file(server: Server, upstream: Upstream) -> None:
    content = os.urandom(2 * MIB)
    upstream.add("/ranged.bin", Answer(content, ranges=True))
    remote = Remote.of(server, upstream)
    found = remote.get("ranged.bin", Range="bytes=10-19")
    assert found.content in (content, content[10:20])
    assert "range" not in upstream.seen("/ranged.bin")[0].headers
    found = remote.get("ranged.bin", Range="bytes=10-19")
    assert found.status_code == 206 and found.content == content[10:20]
    assert remote.get("ranged.bin").content == content and upstream.count("/ranged.bin") == 1


def test_Q7_Q8_G3_nothing_of_a_client_goes_up_and_nothing_odd_comes_down(server: Server, upstream: Upstream) -> None:
    odd = (("Set-Cookie", "a=b"), ("X-Powered-By", "something"), ("Server", "secret/1"), ("Alt-Svc", "h3"))
    upstream.add("/headers.txt", Answer(b"plain", gzip=True, headers=odd))
    remote = Remote.of(server, upstream)
    found = remote.get("headers.txt", Cookie="session=1", Referer="http://inside", **{"X-Forwarded-For": "203.0.113.9"})
    assert found.content == b"plain" and "content-encoding" not in found.headers
    names = set(upstream.seen("/headers.txt")[0].headers)
    assert names <= {"host", "user-agent", "accept", "accept-encoding", "connection"}, names
    assert not {"set-cookie", "x-powered-by", "alt-svc"} & set(found.headers)


def test_G3_credentials_stay_with_their_origin(server: Server, upstream: Upstream) -> None:
    with Upstream() as other:
        other.add("/elsewhere.txt", Answer(b"from there"))
        upstream.add("/moved.txt", Answer(redirect=other.url("/elsewhere.txt")))
        remote = Remote.of(server, upstream, username="me", password="mine only")
        assert remote.get("moved.txt").content == b"from there"
        assert "authorization" in upstream.seen("/moved.txt")[0].headers
        assert "authorization" not in other.seen("/elsewhere.txt")[0].headers


# --- offline, silent, full -------------------------------------------------------------------------------------------


def test_B1_offline_serves_what_is_held_and_asks_nobody(server: Server, upstream: Upstream) -> None:
    project = Project(upstream, "offline")
    project.serve()
    remote = Remote.of(server, upstream, "pypi", metadata_ttl=0, stale_for=0)
    remote.page(project)
    assert remote.file(project).status_code == 200
    remote.change(offline=True)
    upstream.forget()
    page = remote.page(project)
    assert page.status_code == 200 and "detail=offline" in page.headers["cache-status"]
    assert remote.file(project).content == project.content
    missing = remote.page("unknown")
    assert missing.status_code == 503 and "retry-after" in missing.headers and "offline" in missing.text
    assert upstream.requests == []
    remote.change(offline=False)
    assert "offline" not in remote.page(project).headers["cache-status"]


def test_A3_stale_is_served_for_its_time_only(server: Server, upstream: Upstream) -> None:
    upstream.add("/stale.txt", Answer(b"old"))
    remote = Remote.of(server, upstream, metadata_ttl=0, stale_for=2, **QUICK)
    assert remote.get("stale.txt").status_code == 200
    upstream.add("/stale.txt", Answer(status=503))
    assert is_stale(remote.get("stale.txt"))
    assert until(lambda: remote.get("stale.txt").status_code == 502, 6)


def test_G4_B6_an_upstream_that_does_not_answer(server: Server, upstream: Upstream) -> None:
    """Connections are not even accepted: the time limit holds, stale content is there without that wait from then on, other
    repositories do not notice, and when it is back it is used."""
    upstream.add("/held.txt", Answer(b"held"))
    remote = Remote.of(server, upstream, metadata_ttl=0, stale_for=3600, **QUICK)
    other = Remote.of(server, upstream)
    assert remote.get("held.txt").content == b"held"
    with socket.socket() as listener, contextlib.ExitStack() as clients:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = clients.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        dead = Remote.of(server, f"http://127.0.0.1:{listener.getsockname()[1]}/", **QUICK)
        started = time.monotonic()
        assert dead.get("cold.txt").status_code == 504
        assert time.monotonic() - started < 6
    upstream.add("/held.txt", Answer(b"held", stall="headers"))
    first = remote.get("held.txt")
    assert is_stale(first) and first.content == b"held"
    waits = []
    for _ in range(6):
        started = time.monotonic()
        assert is_stale(remote.get("held.txt"))
        waits.append(time.monotonic() - started)
    assert sum(wait > 0.8 for wait in waits) <= 1, waits  # the other process finds out by itself
    upstream.add("/other.txt", Answer(b"other"))
    assert other.get("other.txt").content == b"other"
    upstream.add("/held.txt", Answer(b"new"))
    assert until(lambda: remote.get("held.txt").content == b"new", 20)


def test_B3_B4_the_breaker_opens_and_closes_by_itself(server: Server) -> None:
    with Upstream() as upstream:
        upstream.add("/known.txt", Answer(b"known"))
        remote = Remote.of(server, upstream, metadata_ttl=0, **QUICK)
        assert remote.get("known.txt").status_code == 200
        upstream.everywhere = Answer(status=502)
        upstream.add("/known.txt", Answer(status=502))

        def is_left_alone() -> bool:
            found = remote.get(f"cold-{time.monotonic()}.txt")
            assert found.status_code in (502, 503), found.status_code
            return found.status_code == 503 and "retry-after" in found.headers

        assert until(is_left_alone, 25)
        assert is_stale(remote.get("known.txt"))
        upstream.everywhere = None
        upstream.add("/known.txt", Answer(b"known again"))
        assert until(lambda: remote.get("known.txt").content == b"known again", 30)


def test_L2_quota_a_fetch_that_does_not_fit_is_403_with_usage(server: Server, upstream: Upstream) -> None:
    namespace = server.make_namespace(quota_bytes=2 * MIB)
    remote = Remote.of(server, upstream, namespace=namespace)
    upstream.add("/fits.bin", Answer(os.urandom(MIB)))
    upstream.add("/declared.bin", Answer(os.urandom(3 * MIB)))
    upstream.add("/chunked.bin", Answer(os.urandom(3 * MIB), chunked=True))
    assert remote.get("fits.bin").status_code == 200
    found = remote.get("declared.bin")
    assert found.status_code == 403 and str(2 * MIB) in found.text and found.json()["quota_bytes"] == 2 * MIB
    try:
        cut = remote.get("chunked.bin")
        assert cut.status_code == 403, "it was not known before, but nothing had been sent"
    except httpx.RemoteProtocolError:
        pass  # it had begun, and was cut
    assert remote.kept() == ["fits.bin"] and remote.used() == MIB
    assert remote.get("fits.bin").status_code == 200
    assert remote.shown()["upstream_trouble"] is None, "the quota is not the upstream's fault"


def test_M3_a_full_disk_is_507_and_works_again_when_there_is_room(
    tmp_path: Path, small_disk: Path, upstream: Upstream
) -> None:
    blobs = {"REPOMAN_BLOBS": str(small_disk / "blobs")}
    with Deployment.embedded(tmp_path / "data", **ALLOW, **blobs) as server:
        remote = Remote.of(server, upstream)
        upstream.add("/held.bin", Answer(b"held" * 1000))
        upstream.add("/room.bin", Answer(os.urandom(200_000)))
        assert remote.get("held.bin").status_code == 200
        filler = small_disk / "filler"
        with contextlib.suppress(OSError), open(filler, "wb") as file:
            while True:
                file.write(b"\0" * 65536)
        assert remote.get("room.bin").status_code == 507
        assert remote.get("held.bin").status_code == 200
        assert remote.kept() == ["held.bin"]
        filler.unlink()
        assert until(lambda: remote.get("room.bin").status_code == 200, 10)


# --- for operators ---------------------------------------------------------------------------------------------------


def test_K5_B7_trouble_is_counted_by_outcome_shown_and_logged_once(server: Server, upstream: Upstream) -> None:
    remote = Remote.of(server, upstream, metadata_ttl=0, **QUICK)
    upstream.add("/a.txt", Answer(b"a"))
    assert remote.shown()["upstream_trouble"] is None
    assert remote.get("a.txt").status_code == 200
    upstream.add("/a.txt", Answer(status=500))
    for number in range(6):
        assert is_stale(remote.get("a.txt"))
        assert remote.get(f"cold-{number}.txt").status_code == 404
    trouble = remote.shown()["upstream_trouble"]
    assert trouble is None or trouble["status"] == 500
    for number in range(4):
        upstream.add(f"/down-{number}.txt", Answer(status=500))
        assert remote.get(f"down-{number}.txt").status_code == 502
    trouble = remote.shown()["upstream_trouble"]
    assert trouble["status"] == 500 and "500" in trouble["error"] and trouble["since"]
    log = server.tail(10**7)
    mine = [line for line in log.splitlines() if remote.key in line and "upstream_trouble" in line]
    changes = [line for line in log.splitlines() if remote.key in line and "upstream_recovered" in line]
    assert len(mine) == len(changes) + 1, "each change once, whichever process saw it"
    assert until(lambda: metric(server, "repoman_upstream_stale_answers_total") >= 6, 5)
    shown = httpx.get(f"{server.url}/metrics").text
    kinds = {line.split('"')[1] for line in shown.splitlines() if line.startswith("repoman_upstream_fetches_total")}
    assert {"ok", "not_found", "error"} <= kinds and not any("." in kind or "/" in kind for kind in kinds)
    assert until(lambda: metric(server, "repoman_upstream_fetches_under_way") == 0, 30)
    assert remote.key not in shown and upstream.host not in shown


def test_a_repaired_answer_replaces_what_was_refused(server: Server, upstream: Upstream) -> None:
    """The page lists a wrong digest first; nothing is kept until page and file agree."""
    project = Project(upstream, "repaired")
    lying = replace(project.page, body=Project(upstream, "repaired").page.body, etag='"lie"')
    project.serve(page=lying)
    remote = Remote.of(server, upstream, "pypi", metadata_ttl=0)
    assert remote.file(project).status_code == 502
    project.serve()
    assert until(lambda: remote.file(project).status_code == 200, 8)
    assert remote.file(project).content == project.content
