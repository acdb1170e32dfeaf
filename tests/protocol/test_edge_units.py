"""The edge's pure parts: where a request came from, which bytes it asked for, what waits for a thread, what is logged."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import threading
import time
from typing import Any

import pytest

from repoman.core import errors
from repoman.core.errors import BadRequest, PreconditionFailed, RangeInvalid, Unavailable
from repoman.ops.logs import JsonFormatter, redact, shown_path
from repoman.ops.metrics import Metrics
from repoman.protocol.dispatch import standard_headers
from repoman.protocol.exchange import request_id_of
from repoman.protocol.origin import Origins
from repoman.protocol.pools import Pool
from repoman.protocol.serve import Asked, encode, is_not_modified, range_of
from repoman.protocol.small import Bounded, Recent, SmallBlobs

# --- where it came from ----------------------------------------------------------------------------------------------


def scope(peer: str = "198.51.100.9", **more: Any) -> dict[str, Any]:
    return {"client": (peer, 1), "server": ("127.0.0.1", 8080), "scheme": "http", "http_version": "1.1", **more}


def lines(**headers: str) -> list[tuple[bytes, bytes]]:
    return [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]


PROXIES = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))


def test_I7_G10_forwarded_headers_of_an_untrusted_peer_change_nothing() -> None:
    origins = Origins(trusted=PROXIES)
    given = lines(host="here.test", x_forwarded_for="1.2.3.4", x_forwarded_proto="https", x_forwarded_host="evil.test")
    found = origins.of(scope(), given)
    assert (found.address, found.base_url, found.via_proxy) == ("198.51.100.9", "http://here.test", False)


def test_I7_without_trusted_proxies_nobody_is_believed() -> None:
    found = Origins().of(scope("127.0.0.1"), lines(host="here.test", x_forwarded_for="1.2.3.4"))
    assert found.address == "127.0.0.1"


def test_I7_underscore_variants_are_other_headers() -> None:
    given = [(b"host", b"here.test"), (b"x_forwarded_for", b"1.2.3.4"), (b"x_forwarded_host", b"evil.test")]
    found = Origins(trusted=PROXIES).of(scope("10.0.0.1"), given)
    assert (found.address, found.base_url) == ("10.0.0.1", "http://here.test")


@pytest.mark.parametrize(
    ("chain", "address"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("9.9.9.9, 1.2.3.4", "1.2.3.4"),
        ("9.9.9.9, 1.2.3.4, 10.1.1.1", "1.2.3.4"),
        ("10.2.2.2, 10.1.1.1", "10.2.2.2"),
        ("1.2.3.4, not an address", "10.0.0.1"),
        ("1.2.3.4:555", "1.2.3.4"),
        ('"[2001:db8::1]:443"', "2001:db8::1"),
        ("", "10.0.0.1"),
    ],
)
def test_E8_the_client_is_the_right_most_hop_that_is_no_proxy(chain: str, address: str) -> None:
    found = Origins(trusted=PROXIES).of(scope("10.0.0.1"), lines(host="here.test", x_forwarded_for=chain))
    assert found.address == address


def test_a_trusted_proxy_says_scheme_and_host() -> None:
    given = lines(host="inner", x_forwarded_proto="https", x_forwarded_host="outer.test:8443")
    found = Origins(trusted=PROXIES).of(scope("10.0.0.1"), given)
    assert found.base_url == "https://outer.test:8443" and found.via_proxy


@pytest.mark.parametrize(
    "host", ["", "a b", "a/b", "user@host", "host:", "host:0", "host:99999", "a..b", "-a", "h\xf6st", "x" * 300, "[::1"]
)
def test_I6_a_malformed_host_is_refused(host: str) -> None:
    with pytest.raises(BadRequest):
        Origins().of(scope(), [(b"host", host.encode("latin-1"))])


def test_I6_no_host_or_two_hosts_are_refused() -> None:
    for given in ([], [(b"host", b"a.test"), (b"host", b"b.test")]):
        with pytest.raises(BadRequest):
            Origins().of(scope(), given)


def test_I6_only_configured_hosts_are_accepted() -> None:
    origins = Origins(hosts=("a.test", "b.test:8080"))
    assert origins.of(scope(), lines(host="A.test:99")).base_url == "http://a.test:99"
    assert origins.of(scope(), lines(host="b.test:8080")).base_url == "http://b.test:8080"
    for host in ("c.test", "b.test", "b.test:81"):
        with pytest.raises(BadRequest):
            origins.of(scope(), lines(host=host))


def test_G10_the_public_url_is_the_only_address_where_it_is_set() -> None:
    origins = Origins(public_url="https://repo.test")
    for host in ("repo.test", "REPO.test:443"):
        assert origins.of(scope(), lines(host=host)).base_url == "https://repo.test"
    with pytest.raises(BadRequest):
        origins.of(scope(), lines(host="other.test"))
    assert origins.of(scope(), lines(host="10.0.0.7"), any_host=True).base_url == "https://repo.test"


# --- which bytes -----------------------------------------------------------------------------------------------------


def asked(**headers: str) -> Asked:
    return Asked.of(lines(**headers))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("bytes=0-0", (0, 0)),
        ("bytes=2-5", (2, 5)),
        ("bytes=2-", (2, 9)),
        ("bytes=2-99", (2, 9)),
        ("bytes=-3", (7, 9)),
        ("bytes=-99", (0, 9)),
        ("Bytes=1-1", (1, 1)),
        ("bytes=0-1,3-4", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=1-2-3", None),
        ("lines=1-2", None),
        ("bytes", None),
        ("bytes=" + "9" * 30 + "-", None),
    ],
)
def test_I4_one_range_or_the_whole(text: str, part: tuple[int, int] | None) -> None:
    assert range_of(asked(range=text), 10, '"e"', None) == part


@pytest.mark.parametrize("text", ["bytes=10-", "bytes=5-2", "bytes=-0", "bytes=99999-100000"])
def test_I4_what_does_not_fit_is_refused_with_the_size(text: str) -> None:
    with pytest.raises(RangeInvalid) as caught:
        range_of(asked(range=text), 10, '"e"', None)
    assert caught.value.detail["size"] == 10


def test_a_range_of_an_empty_file_is_ignored() -> None:
    assert range_of(asked(range="bytes=0-"), 0, '"e"', None) is None


def test_several_range_headers_are_ignored() -> None:
    assert range_of(Asked.of([(b"range", b"bytes=0-1"), (b"range", b"bytes=2-3")]), 10, '"e"', None) is None


@pytest.mark.parametrize(
    ("validator", "applies"),
    [
        ('"e"', True),
        ('W/"e"', False),
        ('"other"', False),
        ("Sun, 06 Nov 1994 08:49:37 GMT", True),
        ("Sun, 06 Nov 1994 08:49:38 GMT", False),
        ("nonsense", False),
    ],
)
def test_if_range_needs_the_very_same_thing(validator: str, applies: bool) -> None:
    found = range_of(asked(range="bytes=0-1", if_range=validator), 10, '"e"', 784111777.5)
    assert (found is not None) == applies


@pytest.mark.parametrize(
    ("headers", "modified"),
    [
        ({"if_none_match": '"e"'}, True),
        ({"if_none_match": 'W/"e"'}, True),
        ({"if_none_match": '"a", "e"'}, True),
        ({"if_none_match": "*"}, True),
        ({"if_none_match": '"a"'}, False),
        ({"if_none_match": '"a"', "if_modified_since": "Sun, 06 Nov 2094 08:49:37 GMT"}, False),
        ({"if_modified_since": "Sun, 06 Nov 1994 08:49:37 GMT"}, True),
        ({"if_modified_since": "Sun, 06 Nov 1994 08:49:36 GMT"}, False),
        ({"if_modified_since": "Sun, 06-Nov-94 08:49:37 UTC"}, False),
        ({"if_match": '"e"'}, False),
        ({"if_match": "*", "if_none_match": '"e"'}, True),
        ({"if_unmodified_since": "Sun, 06 Nov 1994 08:49:37 GMT"}, False),
    ],
)
def test_conditions_are_judged_in_order(headers: dict[str, str], modified: bool) -> None:
    assert is_not_modified(asked(**headers), '"e"', 784111777.9) == modified


@pytest.mark.parametrize(
    "headers",
    [
        {"if_match": '"a"'},
        {"if_match": 'W/"e"'},
        {"if_match": '"a"', "if_none_match": '"e"'},
        {"if_unmodified_since": "Sun, 06 Nov 1994 08:49:36 GMT"},
    ],
)
def test_a_precondition_that_fails_is_412(headers: dict[str, str]) -> None:
    with pytest.raises(PreconditionFailed):
        is_not_modified(asked(**headers), '"e"', 784111777.0)


def test_A3_a_control_character_never_reaches_a_header() -> None:
    for value in ("a\r\nSet-Cookie: x", "a\0", "a\x7f"):
        with pytest.raises(ValueError):
            encode([("X", value)])
    assert encode([("X-Y", "gr\u00fc\u00df \u2603")])[0][0] == b"x-y"


# --- what waits for a thread -----------------------------------------------------------------------------------------


def test_U1_a_full_queue_refuses_at_once() -> None:
    async def story() -> None:
        pool = Pool("test", threads=1, waiting=2)
        gate = threading.Event()
        running = pool.run(gate.wait, 10)
        queued = [pool.run(int, "1") for _ in range(2)]
        with pytest.raises(Unavailable) as caught:
            pool.run(int, "1")
        assert caught.value.retry_after_seconds >= 1
        gate.set()
        assert await running and await asyncio.gather(*queued) == [1, 1]
        assert await pool.run(int, "2") == 2
        pool.close()

    asyncio.run(story())


def test_a_pool_uses_as_few_threads_as_it_can_and_at_most_its_bound() -> None:
    async def story() -> None:
        pool = Pool("test", threads=4, waiting=100)
        for _ in range(20):
            await pool.run(int, "1")
            await asyncio.sleep(0.002)
        assert len(pool._workers) <= 2
        names = await asyncio.gather(*(pool.run(_slow_name) for _ in range(40)))
        assert len(set(names)) == 4
        pool.close()

    asyncio.run(story())


def _slow_name() -> str:
    time.sleep(0.005)
    return threading.current_thread().name


def test_errors_come_back_and_the_thread_is_tidied_up_after_each_call() -> None:
    seen: list[BaseException | None] = []

    async def story() -> None:
        pool = Pool("test", threads=1, waiting=10, around=seen.append)
        with pytest.raises(ValueError):
            await pool.run(int, "x")
        assert await pool.run(int, "3") == 3
        pool.close()

    asyncio.run(story())
    assert isinstance(seen[0], ValueError) and seen[1] is None


def test_a_cancelled_call_that_had_not_begun_never_runs() -> None:
    ran: list[int] = []

    async def story() -> None:
        pool = Pool("test", threads=1, waiting=10)
        gate = threading.Event()
        running = pool.run(gate.wait, 10)
        waiting = pool.run(ran.append, 1)
        waiting.cancel()
        gate.set()
        await running
        pool.close()

    asyncio.run(story())
    assert ran == []


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_small_blobs_stay_within_their_bytes() -> None:
    kept = SmallBlobs(limit=10_000)
    for number in range(100):
        kept.put(str(number), b"x" * 1000)
        kept.get("0")  # used often, so it stays
    assert kept.get("0") is not None and kept.get("50") is None
    assert sum(1 for number in range(100) if kept.get(str(number)) is not None) < 10


def test_what_is_replaced_counts_once() -> None:
    kept: Bounded[str, int] = Bounded(100)
    for number in range(50):
        kept.put("same", number, 60)
    kept.put("other", 1, 40)
    assert kept.get("same") == 49 and kept.get("other") == 1


def test_recent_keeps_what_is_used_and_stays_bounded() -> None:
    recent: Recent[int, int] = Recent(100)
    for number in range(10_000):
        recent.put(number, number)
        assert recent.get(0) in (0, None)
    assert len(recent) <= 100
    recent.drop(9_999)
    assert recent.get(9_999) is None


# --- what is logged and counted --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "secret",
    [
        "Authorization: Basic YWxpY2U6cGFzc3dvcmQxMjM=",
        "authorization='Bearer abcdefghijklmnop'",
        "{'password': 'hunter2hunter2'}",
        '{"password": "hunter2hunter2"}',
        "postgresql://user:hunter2hunter2@db/x",
        "https://s3.test/b/k?X-Amz-Signature=0123456789abcdef&X-Amz-Credential=AKIA%2F1",
        "token eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJyIn0.c2lnbmF0dXJl was refused",
        "rpm_abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG",
        "REPOMAN_SECRET_KEY=0123456789abcdef0123456789abcdef",
        "aws_secret_access_key = wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY",
    ],
)
def test_K1_secrets_are_taken_out(secret: str) -> None:
    shown = redact(f"before {secret} after")
    assert shown.startswith("before ") and "***" in shown
    for part in ("YWxp", "abcdefgh", "hunter2", "0123456789abcdef", "c2lnbmF0", "wJalr"):
        assert part not in shown


def test_K2_a_record_is_one_line_of_json_whatever_it_says() -> None:
    record = logging.LogRecord("x", logging.INFO, "f", 1, "a\r\nb\x1b[31m %s", ("\u2028" + "y" * 10_000,), None)
    record.fields = {"path": "a\nb"}
    text = JsonFormatter().format(record)
    assert "\n" not in text and "\x1b" not in text and len(text) < 10_000
    assert json.loads(text)["path"] == "a\nb"


def test_K2_a_path_is_escaped_and_bounded() -> None:
    assert json.loads(shown_path(b'/a"\n\x1b[31m\xff')) == '/a"\n\x1b[31m\xff'
    assert "\n" not in shown_path(b"/a\n")
    assert len(shown_path(b"/" + b"\x01" * 100_000)) < 4000


@pytest.mark.parametrize("given", [b"short", b"x" * 65, b"a b c d e f g", b"abcdefgh\n", b'abc"defgh', b"\xff" * 10])
def test_K2_an_odd_request_id_is_replaced(given: bytes) -> None:
    assert request_id_of(given).encode() != given
    assert request_id_of(b"client-id.0123_4") == "client-id.0123_4"


def test_counters_survive_and_add_up(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Metrics, "_state_text", lambda self: "")
    mine, other = Metrics(tmp_path), Metrics(tmp_path)
    other._file = tmp_path / "1-999999999.json"  # of a process that has ended
    other.gauges["queue:x"] = lambda: 7.0
    for metrics in (mine, other):
        metrics.request("oci:blob", 200, 0.003, 10, 20)
        metrics.count("sign_ins", "refused")
        metrics.flush()
    text = mine.render()
    assert 'repoman_requests_total{route="oci:blob",status="2xx"} 2\n' in text
    assert 'repoman_request_seconds_bucket{route="oci:blob",status="2xx",le="0.0025"} 0\n' in text
    assert 'repoman_request_seconds_bucket{route="oci:blob",status="2xx",le="0.005"} 2\n' in text
    assert 'repoman_sign_ins_total{kind="refused"} 2\n' in text
    assert "queue_depth{" not in text  # nobody waits in a process that has ended


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (errors.Unavailable(retry_after_seconds=9), [("Retry-After", "9")]),
        (errors.MethodNotAllowed(allow=["GET", "HEAD"]), [("Allow", "GET, HEAD")]),
        (errors.RangeInvalid(size=5), [("Content-Range", "bytes */5")]),
        (errors.NotFound(size=5), []),
    ],
)
def test_H5_what_http_has_headers_for_is_said_whatever_the_format(
    error: errors.RepomanError, headers: list[tuple[str, str]]
) -> None:
    assert standard_headers(error) == headers
