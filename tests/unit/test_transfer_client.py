"""G3, G7, G9, G14, Q1 to Q8, L1, L4: what is sent to an upstream, where credentials go, redirects, tokens and repeats."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import email.utils
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence

import httpx
import pytest
import uvloop

from repoman.blobs.drivers.memory import MemoryDriver
from repoman.core.errors import NotFound, Unavailable, UpstreamFailed, UpstreamTimeout
from repoman.core.fetch import Outcome
from repoman.transfer.auth import (
    Challenge,
    RemoteSettings,
    may_see_credentials,
    parse_challenges,
    registrable_domain,
)
from repoman.transfer.client import Client, retry_after_of
from repoman.transfer.flight import Flights
from repoman.transfer.guard import AddressPolicy
from tests.tools.flying import LOOPBACK, fetched, flying, names_to, plan_for, settings_for, storing
from tests.tools.upstream import Answer, Basic, Bearer, Upstream, query_of, throttled


@pytest.fixture(autouse=True)
def memory_store() -> Iterator[None]:
    with storing(MemoryDriver("a-store")):
        yield


BASIC = "Basic " + base64.b64encode(b"robot:s3cret").decode()


def signed(upstream: Upstream, **fields: object) -> RemoteSettings:
    return settings_for(upstream, username="robot", password="s3cret", **fields)


# --- what is sent


def test_q7_the_header_set_is_our_own() -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(b"x", headers=(("Set-Cookie", "session=1"),)))

        async def scene(flights: Flights) -> list[Outcome]:
            found = []
            for number in range(2):
                plan = plan_for(
                    upstream.url("/a"), key=str(number), is_document=bool(number), accept="application/json"
                )
                flight = await flights.fetch(plan, settings_for(upstream))
                found.append(await flight.outcome())
                flight.release()
            return found

        file, document = flying(scene)
        assert file.error is document.error is None
        assert "set-cookie" not in file.headers
        first, second = upstream.requests
        assert first.headers == {
            "host": f"127.0.0.1:{upstream.port}",
            "user-agent": first.headers["user-agent"],
            "accept": "application/json",
            "accept-encoding": "identity",
        }
        assert re.match(r"Repoman/[0-9][0-9.]* \(\+", first.headers["user-agent"])
        assert socket.gethostname() not in first.headers["user-agent"]
        assert second.headers["accept-encoding"] == "gzip, deflate"
        assert "cookie" not in second.headers


def test_r1_the_upstreams_validators_are_sent_and_a_304_is_told() -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(b"x", etag='W/"odd-1"', last_modified="Mon, 01 Jan 2024 00:00:00 GMT"))
        outcome = fetched(
            upstream.url("/a"),
            settings_for(upstream),
            etag='W/"odd-1"',
            last_modified="Mon, 01 Jan 2024 00:00:00 GMT",
            is_document=True,
        )
        assert outcome.is_not_modified
        assert outcome.error is None
        assert upstream.requests[0].headers["if-none-match"] == 'W/"odd-1"'
        assert upstream.requests[0].headers["if-modified-since"] == "Mon, 01 Jan 2024 00:00:00 GMT"


@pytest.mark.parametrize("validator", ["a\r\nX-Injected: 1", "\x00", "caf\u0151"])
def test_a3_a_validator_with_control_characters_is_not_sent(validator: str) -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(b"x"))
        assert fetched(upstream.url("/a"), settings_for(upstream), etag=validator, is_document=True).body == b"x"
        assert set(upstream.requests[0].headers) == {"host", "user-agent", "accept", "accept-encoding"}


def test_q1_the_path_is_sent_as_it_was_encoded() -> None:
    with Upstream() as upstream:
        for target in ("/@scope%2fname", "/a%20b/c+d", "/%D0%B1.jar?x=%2F&y=1"):
            fetched(upstream.url(target), settings_for(upstream), is_document=True)
            assert upstream.requests[-1].target == target


def test_k1_user_and_password_in_an_address_are_neither_sent_nor_told() -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(status=500))
        url = upstream.url("/a").replace("http://", "http://other:hunter2@")
        outcome = fetched(url + "?signature=topsecret", settings_for(upstream), is_document=True)
        assert "authorization" not in upstream.requests[0].headers
        assert outcome.error is not None
        assert "hunter2" not in outcome.error.message
        assert "topsecret" not in outcome.error.message
        assert "s3cret" not in repr(signed(upstream))


# --- credentials


def test_q5_basic_goes_to_the_configured_origin_without_being_asked_for() -> None:
    with Upstream() as upstream:
        upstream.protect("/", Basic("robot", "s3cret"))
        upstream.add("/a", Answer(b"private"))
        assert fetched(upstream.url("/a"), signed(upstream), is_document=True).body == b"private"
        assert upstream.count("/a") == 1
        assert upstream.requests[0].headers["authorization"] == BASIC


def test_g3_credentials_do_not_follow_a_redirect_to_another_origin() -> None:
    with Upstream() as upstream, Upstream() as other:  # same host, another port
        upstream.add("/a", Answer(redirect=other.url("/b")))
        other.add("/b", Answer(b"from elsewhere"))
        outcome = fetched(upstream.url("/a"), signed(upstream), is_document=True)
        assert outcome.body == b"from elsewhere"
        assert outcome.url == other.url("/b")
        assert upstream.requests[0].headers["authorization"] == BASIC
        assert "authorization" not in other.requests[0].headers


def test_g3_not_even_when_the_other_origin_asks_for_them() -> None:
    with Upstream() as upstream, Upstream() as other:
        upstream.add("/a", Answer(redirect=other.url("/b")))
        other.protect("/", Basic("robot", "s3cret"))
        outcome = fetched(upstream.url("/a"), signed(upstream))
        assert outcome.status == 401
        assert isinstance(outcome.error, UpstreamFailed)
        assert "token_realms" in outcome.error.message
        assert [one.headers.get("authorization") for one in other.requests] == [None]


def test_q3_an_absolute_address_out_of_a_listing_gets_no_credentials_elsewhere() -> None:
    with Upstream() as upstream, Upstream() as other:
        other.add("/file", Answer(b"x"))
        assert fetched(other.url("/file"), signed(upstream), is_document=True).body == b"x"
        assert "authorization" not in other.requests[0].headers


def test_q4_an_origin_in_token_realms_gets_them_when_it_asks() -> None:
    with Upstream() as upstream, Upstream() as other:
        upstream.add("/a", Answer(redirect=other.url("/b")))
        other.protect("/", Basic("robot", "s3cret"))
        other.add("/b", Answer(b"x"))
        outcome = fetched(upstream.url("/a"), signed(upstream, token_realms=(other.origin,)), is_document=True)
        assert outcome.body == b"x"
        assert [one.headers.get("authorization") for one in other.requests] == [None, BASIC]


@pytest.mark.parametrize(
    ("own", "asked", "may"),
    [
        ("https://registry.example.com", "https://registry.example.com/x", True),
        ("https://registry.example.com", "https://registry.example.com:443/x", True),
        ("https://registry.example.com", "https://registry.example.com:8443/x", True),  # https, the same domain
        ("https://registry.example.com", "https://auth.example.com/token", True),
        ("https://registry.example.com", "http://registry.example.com/x", False),
        ("https://registry.example.com", "http://auth.example.com/x", False),
        ("https://registry.example.com", "https://example.com.evil.net/", False),
        ("https://registry.example.com", "https://evilexample.com/", False),
        ("https://registry.example.co.uk", "https://auth.example.co.uk/", True),
        ("https://registry.example.co.uk", "https://other.co.uk/", False),
        ("https://a.github.io", "https://b.github.io/", False),
        ("https://bucket1.s3.amazonaws.com", "https://bucket2.s3.amazonaws.com/", False),
        ("https://10.0.0.1", "https://10.0.0.2/", False),
        ("https://10.0.0.1", "https://10.0.0.1:8443/", False),
        ("https://registry", "https://registry:5000/", False),
        ("https://localhost:1", "https://localhost:2/", False),
        ("http://registry.example.com:5000", "http://registry.example.com:5000/x", True),
        ("http://registry.example.com:5000", "http://registry.example.com/x", False),
        ("https://registry.example.com", "https://token.vendor.net/", False),
    ],
)
def test_q4_who_may_see_credentials(own: str, asked: str, may: bool) -> None:
    assert may_see_credentials(RemoteSettings(own, "u", "p"), httpx.URL(asked)) is may


def test_q4_a_listed_realm_is_an_origin_and_not_a_prefix() -> None:
    settings = RemoteSettings(
        "https://registry.example.com", "u", "p", token_realms=("https://token.vendor.net", "auth.org")
    )
    assert may_see_credentials(settings, httpx.URL("https://token.vendor.net/v2/token"))
    assert may_see_credentials(settings, httpx.URL("https://auth.org/"))
    assert not may_see_credentials(settings, httpx.URL("http://token.vendor.net/"))
    assert not may_see_credentials(settings, httpx.URL("https://token.vendor.net.evil.net/"))
    assert not may_see_credentials(settings, httpx.URL("https://token.vendor.net:444/"))


def test_registrable_domains_come_from_the_bundled_list(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    registrable_domain.cache_clear()
    assert registrable_domain("a.b.example.co.uk") == "example.co.uk"
    assert registrable_domain("co.uk") == ""


def test_q6_over_https_a_sister_host_gets_credentials_when_it_asks_and_a_stranger_never() -> None:
    names = ("registry.example.com", "files.example.com", "cdn.example.net")
    with Upstream(tls=names) as upstream:
        upstream.protect("/need", Basic("robot", "s3cret"))
        sister, stranger = (f"https://{name}:{upstream.port}" for name in names[1:])
        upstream.add("/a", Answer(redirect=f"{sister}/need/b"))
        upstream.add("/need/b", Answer(b"x"))
        upstream.add("/c", Answer(redirect=f"{stranger}/need/b"))

        def client() -> Client:
            return Client(LOOPBACK, resolver=names_to("127.0.0.1", *names), tls=upstream.trust, environment={})

        outcome = fetched(upstream.url("/a"), signed(upstream), is_document=True, client=client)
        assert outcome.error is None and outcome.body == b"x"
        assert [one.headers.get("authorization") for one in upstream.seen("/need/b")] == [None, BASIC]
        upstream.forget()
        outcome = fetched(upstream.url("/c"), signed(upstream), is_document=True, client=client)
        assert outcome.status == 401
        assert [one.headers.get("authorization") for one in upstream.seen("/need/b")] == [None]


# --- redirects


def test_q6_redirects_are_followed_at_most_five_times() -> None:
    with Upstream() as upstream:
        for status, path in ((301, "/r0"), (302, "/r1"), (303, "/r2"), (307, "/r3"), (308, "/r4")):
            upstream.add(path, Answer(redirect=f"/r{int(path[2]) + 1}", status=status))
        upstream.add("/r5", Answer(b"there"))
        assert fetched(upstream.url("/r0"), settings_for(upstream), is_document=True).body == b"there"
        upstream.add("/r5", Answer(redirect="/r6"))
        upstream.add("/r6", Answer(b"there"))
        outcome = fetched(upstream.url("/r0"), settings_for(upstream), is_document=True)
        assert isinstance(outcome.error, UpstreamFailed)
        assert upstream.count("/r6") == 0


def test_q6_a_loop_is_noticed() -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(redirect="/b"))
        upstream.add("/b", Answer(redirect="/a"))
        outcome = fetched(upstream.url("/a"), settings_for(upstream))
        assert isinstance(outcome.error, UpstreamFailed)
        assert "circle" in outcome.error.message
        assert len(upstream.requests) == 2


def test_q6_https_is_not_left_for_http() -> None:
    with Upstream(tls=("127.0.0.1",)) as upstream, Upstream() as plain:
        plain.add("/b", Answer(b"x"))
        upstream.add("/a", Answer(redirect=plain.url("/b")))

        def client() -> Client:
            return Client(LOOPBACK, tls=upstream.trust, environment={})

        outcome = fetched(upstream.url("/a"), settings_for(upstream), client=client)
        assert isinstance(outcome.error, UpstreamFailed)
        assert plain.connections == 0
        # an http address out of an https remote's listing: only where a digest says what must come
        assert fetched(plain.url("/b"), settings_for(upstream), client=client).error is not None
        assert plain.connections == 0


@pytest.mark.parametrize(
    "location", ["ftp://x/", "javascript:alert(1)", "http://[::1", "http://", "http://a:99999/", "\\\\x"]
)
def test_q3_a_location_that_is_no_address_is_refused(location: str) -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(redirect=location))
        outcome = fetched(upstream.url("/a"), settings_for(upstream))
        assert outcome.error is not None
        assert outcome.error.status in (404, 502)  # the last is a path of the same server


# --- tokens


def test_q5_a_token_is_fetched_once_and_used_for_its_neighbours() -> None:
    with Upstream() as upstream:
        upstream.protect("/v2/", Bearer(username="robot", password="s3cret"))
        for number in range(3):
            upstream.add(f"/v2/library/thing/blobs/{number}", Answer(b"x%d" % number))

        async def scene(flights: Flights) -> None:
            for number in range(3):
                flight = await flights.fetch(
                    plan_for(upstream.url(f"/v2/library/thing/blobs/{number}"), is_document=True), signed(upstream)
                )
                assert (await flight.outcome()).body == b"x%d" % number
                flight.release()

        flying(scene)
        assert len(upstream.token_requests) == 1
        asked = upstream.token_requests[0]
        assert query_of(asked) == {"service": ["registry"], "scope": ["repository:library/thing:pull"]}
        assert asked.headers["authorization"] == BASIC
        assert upstream.count("/v2/library/thing/blobs/0") == 2  # the first learned of the token
        assert upstream.count("/v2/library/thing/blobs/1") == 1
        assert upstream.seen("/v2/library/thing/blobs/2")[0].headers["authorization"].startswith("Bearer ")


def test_s8_token_requests_are_coalesced() -> None:
    with Upstream() as upstream:
        upstream.protect("/v2/", Bearer(delay=0.3))
        for number in range(20):
            upstream.add(f"/v2/n/blobs/{number}", Answer(b"x"))

        async def scene(flights: Flights) -> list[Outcome]:
            found = [
                await flights.fetch(
                    plan_for(upstream.url(f"/v2/n/blobs/{number}"), is_document=True), settings_for(upstream)
                )
                for number in range(20)
            ]
            return [await flight.outcome() for flight in found]

        assert all(outcome.body == b"x" for outcome in flying(scene))
        assert len(upstream.token_requests) == 1


def test_q5_a_refused_cached_token_is_refreshed_once() -> None:
    with Upstream() as upstream:
        upstream.protect("/v2/", Bearer())
        upstream.add("/v2/n/tags/list", Answer(b"x"))

        async def scene(flights: Flights) -> None:
            for number in range(3):
                if number:
                    upstream.revoke_tokens()
                plan = plan_for(upstream.url("/v2/n/tags/list"), key=str(number), is_document=True)
                flight = await flights.fetch(plan, settings_for(upstream))
                assert (await flight.outcome()).body == b"x"
                flight.release()

        flying(scene)
        assert len(upstream.token_requests) == 3
        assert upstream.count("/v2/n/tags/list") == 6


def test_q5_a_token_about_to_end_is_not_used() -> None:
    with Upstream() as upstream:
        upstream.protect("/v2/", Bearer(expires_in=1))
        upstream.add("/v2/n/tags/list", Answer(b"x"))

        async def scene(flights: Flights) -> None:
            for number in range(2):
                plan = plan_for(upstream.url("/v2/n/tags/list"), key=str(number), is_document=True)
                flight = await flights.fetch(plan, settings_for(upstream))
                assert (await flight.outcome()).error is None
                flight.release()

        flying(scene)
        assert len(upstream.token_requests) == 2


def test_g3_a_token_realm_elsewhere_is_asked_anonymously() -> None:
    scheme = Bearer()
    with Upstream() as upstream, Upstream() as realm:
        scheme.realm = realm.url("/token")
        upstream.protect("/v2/", scheme)
        realm.serve_realm(scheme)
        upstream.add("/v2/n/blobs/1", Answer(b"x"))
        assert fetched(upstream.url("/v2/n/blobs/1"), signed(upstream), is_document=True).body == b"x"
        assert "authorization" not in realm.token_requests[0].headers


def test_g3_a_realm_that_needs_credentials_it_may_not_see_is_named() -> None:
    scheme = Bearer(username="robot", password="s3cret")
    with Upstream() as upstream, Upstream() as realm:
        scheme.realm = realm.url("/token")
        upstream.protect("/v2/", scheme)
        realm.serve_realm(scheme)
        upstream.add("/v2/n/blobs/1", Answer(b"x"))
        outcome = fetched(upstream.url("/v2/n/blobs/1"), signed(upstream), is_document=True)
        assert isinstance(outcome.error, UpstreamFailed)
        assert "token_realms" in outcome.error.message
        assert "authorization" not in realm.token_requests[0].headers
        allowed = fetched(
            upstream.url("/v2/n/blobs/1"), signed(upstream, token_realms=(realm.origin,)), is_document=True
        )
        assert allowed.body == b"x"


def test_g3_a_token_stays_with_the_origin_that_asked_for_it() -> None:
    with Upstream() as upstream, Upstream() as other:
        upstream.protect("/v2/", Bearer())
        upstream.add("/v2/n/blobs/1", Answer(redirect=other.url("/v2/n/blobs/2")))
        other.add("/v2/n/blobs/2", Answer(b"x"))
        assert fetched(upstream.url("/v2/n/blobs/1"), settings_for(upstream), is_document=True).body == b"x"
        assert "authorization" not in other.requests[0].headers


def test_g1_a_token_realm_at_a_private_address_is_refused() -> None:
    with Upstream() as upstream:
        upstream.protect("/v2/", Bearer(realm="http://169.254.169.254/token"))
        outcome = fetched(upstream.url("/v2/n/blobs/1"), signed(upstream))
        assert isinstance(outcome.error, UpstreamFailed)
        assert outcome.error.detail["reason"] == "address"


@pytest.mark.parametrize(
    ("status", "error"), [(401, NotFound), (403, NotFound), (500, UpstreamFailed), (200, UpstreamFailed)]
)
def test_d5_a_realm_that_refuses_reads_as_the_upstreams_own_refusal(status: int, error: type[Exception]) -> None:
    with Upstream() as upstream:
        upstream.protect("/v2/", Bearer(token_answer=Answer(b'{"nothing": 1}', status=status)))
        assert isinstance(fetched(upstream.url("/v2/n/blobs/1"), settings_for(upstream)).error, error)


def test_g9_an_endless_token_answer_is_capped() -> None:
    with Upstream() as upstream:
        upstream.protect("/v2/", Bearer(token_answer=Answer(b"x" * 10_000_000)))
        outcome = fetched(upstream.url("/v2/n/blobs/1"), settings_for(upstream))
        assert isinstance(outcome.error, UpstreamFailed)


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (['Basic realm="a"'], [("basic", {"realm": "a"})]),
        (["Basic"], [("basic", {})]),
        (['bearer realm="https://x/t",scope="a:b:c,d"'], [("bearer", {"realm": "https://x/t", "scope": "a:b:c,d"})]),
        (['Bearer  realm = "x" ,  error=no , service=s'], [("bearer", {"realm": "x", "error": "no", "service": "s"})]),
        (['Basic realm="a, b", Bearer realm="c\\"d"'], [("basic", {"realm": "a, b"}), ("bearer", {"realm": 'c"d'})]),
        (["Negotiate, NTLM", 'Basic realm="z"'], [("negotiate", {}), ("ntlm", {}), ("basic", {"realm": "z"})]),
        (['Bearer realm="never ends'], [("bearer", {"realm": "never ends"})]),
        (["Negotiate YWJj, Basic realm=x"], [("negotiate", {}), ("basic", {"realm": "x"})]),
        ([", , Basic realm=x,,"], [("basic", {"realm": "x"})]),
        ([""], []),
        (["====", '"', ",,,,"], []),
    ],
)  # fmt: skip
def test_challenges_are_parsed_robustly(lines: list[str], found: list[tuple[str, dict[str, str]]]) -> None:
    assert [(one.scheme, dict(one.parameters)) for one in parse_challenges(lines)] == found


def test_hostile_challenges_take_no_time() -> None:
    begun = time.monotonic()
    for text in ('a="' + "\\" * 100_000, "a=b," * 100_000, " " * 100_000 + "x", "a " * 100_000, '"' * 100_000):
        parse_challenges([text] * 50)
    assert time.monotonic() - begun < 2
    assert Challenge("bearer").get("realm") == ""


# --- repeats


def test_l4_502_503_504_are_repeated_and_500_429_404_are_not() -> None:
    with Upstream() as upstream:
        for status in (502, 503, 504):
            upstream.add("/a", Answer(status=status, times=2), Answer(b"fine"))
            upstream.forget()
            assert fetched(upstream.url("/a"), settings_for(upstream), is_document=True).body == b"fine"
            assert upstream.count("/a") == 3
        for status in (500, 429, 404, 400):
            upstream.add("/b", Answer(status=status), Answer(b"fine"))
            upstream.forget()
            assert fetched(upstream.url("/b"), settings_for(upstream)).error is not None
            assert upstream.count("/b") == 1


def test_l4_at_most_two_repeats() -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(status=503))
        outcome = fetched(upstream.url("/a"), settings_for(upstream))
        assert outcome.status == 503
        assert isinstance(outcome.error, UpstreamFailed)
        assert upstream.count("/a") == 3


def test_l4_a_broken_connection_is_repeated_before_the_first_byte_only() -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(raw=b"", times=2), Answer(b"fine"))
        assert fetched(upstream.url("/a"), settings_for(upstream), is_document=True).body == b"fine"
        upstream.add("/b", Answer(b"x" * 10_000, cut_after=100), Answer(b"fine"))
        assert isinstance(fetched(upstream.url("/b"), settings_for(upstream)).error, UpstreamFailed)
        assert upstream.count("/b") == 1


def test_l1_a_short_retry_after_is_waited_for_and_a_long_one_is_told() -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(status=503, headers=(("Retry-After", "1"),)), Answer(b"fine"))
        begun = time.monotonic()
        assert fetched(upstream.url("/a"), settings_for(upstream), is_document=True).body == b"fine"
        assert time.monotonic() - begun >= 1
        upstream.add("/b", Answer(status=503, headers=(("Retry-After", "120"),)), Answer(b"fine"))
        outcome = fetched(upstream.url("/b"), settings_for(upstream))
        assert outcome.error is not None
        assert outcome.error.detail["retry_after_seconds"] == 120
        assert upstream.count("/b") == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7), ("99999999999999", 300), ("0", 1), ("-5", 30), ("soon", 30), ("", 30)],
)
def test_g7_a_429_tells_how_long_to_wait(text: str, seconds: int) -> None:
    with Upstream() as upstream:
        upstream.add("/a", throttled(text))
        error = fetched(upstream.url("/a"), settings_for(upstream)).error
        assert isinstance(error, Unavailable)
        assert error.retry_after_seconds == seconds


def test_g7_retry_after_may_be_a_date() -> None:
    soon = email.utils.formatdate(time.time() + 40, usegmt=True)
    assert 38 <= (retry_after_of({"retry-after": soon}) or 0) <= 41
    assert retry_after_of({"retry-after": "Mon, 01 Jan 1990 00:00:00 GMT"}) == 0
    assert retry_after_of({"retry-after": "Mon, 01 Jan 2990 00:00:00 GMT"}) == 300
    assert retry_after_of({}) is None


# --- time-outs and connections


@pytest.mark.parametrize(
    "answer",
    [Answer(b"x", stall="headers"), Answer(b"x" * 1000, stall="body", stall_after=10), Answer(b"x", delay=30)],
)
def test_g4_silence_ends_in_a_timeout(answer: Answer) -> None:
    with Upstream() as upstream:
        upstream.add("/a", answer)
        begun = time.monotonic()
        outcome = fetched(upstream.url("/a"), settings_for(upstream, read_timeout=1))
        assert isinstance(outcome.error, UpstreamTimeout)
        assert time.monotonic() - begun < 3


def test_g4_headers_that_drip_end_in_a_timeout() -> None:
    """Each byte comes within read_timeout; all of them do not."""
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def drip() -> None:
        connection, _ = listener.accept()
        with connection:
            for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 1000:
                try:
                    connection.sendall(bytes([byte]))
                except OSError:
                    return
                if stop.wait(0.1):
                    return

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    begun = time.monotonic()
    outcome = fetched(url, RemoteSettings(url, connect_timeout=0.5, read_timeout=0.5))
    stop.set()
    listener.close()
    assert isinstance(outcome.error, UpstreamTimeout)
    assert time.monotonic() - begun < 3


def test_g4_a_body_that_drips_ends_in_a_timeout() -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(b"x" * 1000, chunk_size=1, chunk_delay=0.05))
        begun = time.monotonic()
        outcome = fetched(upstream.url("/a"), settings_for(upstream, read_timeout=1))
        assert isinstance(outcome.error, UpstreamTimeout)
        assert time.monotonic() - begun < 3


def test_g4_a_name_that_cannot_be_resolved_and_a_closed_port() -> None:
    with Upstream() as upstream:
        unknown = fetched(
            "http://nowhere.example/x",
            settings_for(upstream),
            client=lambda: Client(LOOPBACK, resolver=names_to("127.0.0.1", "somewhere.example"), environment={}),
        )
        assert isinstance(unknown.error, UpstreamFailed)
        assert "nowhere.example" in unknown.error.message
        port = upstream.port
    closed = fetched(f"http://127.0.0.1:{port}/x", RemoteSettings(f"http://127.0.0.1:{port}"))
    assert isinstance(closed.error, UpstreamFailed)


def test_g4_an_untrusted_certificate() -> None:
    with Upstream(tls=("127.0.0.1",)) as upstream:
        outcome = fetched(upstream.url("/a"), signed(upstream))
        assert isinstance(outcome.error, UpstreamFailed)
        assert outcome.error.detail["reason"] == "tls"
        assert not upstream.requests


def test_g4_a_certificate_of_another_name() -> None:
    with Upstream(tls=("right.example",)) as upstream:
        outcome = fetched(
            f"https://wrong.example:{upstream.port}/a",
            signed(upstream),
            client=lambda: Client(
                LOOPBACK, tls=upstream.trust, resolver=names_to("127.0.0.1", "wrong.example"), environment={}
            ),
        )
        assert isinstance(outcome.error, UpstreamFailed)
        assert outcome.error.detail["reason"] == "tls"


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Flood: " + b"x" * 300_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nBad Header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n",
    ],
)
def test_g5_what_is_no_http_is_a_failure_and_nothing_else(raw: bytes) -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(raw=raw))
        outcome = fetched(upstream.url("/a"), settings_for(upstream), is_document=True)
        assert isinstance(outcome.error, UpstreamFailed), outcome


def test_connections_are_used_again() -> None:
    with Upstream() as upstream:
        upstream.add("/a", Answer(b"x"))

        async def scene(flights: Flights) -> None:
            for number in range(10):
                flight = await flights.fetch(
                    plan_for(upstream.url("/a"), key=str(number), is_document=True), settings_for(upstream)
                )
                assert (await flight.outcome()).error is None
                flight.release()

        flying(scene)
        assert upstream.connections == 1


@pytest.mark.parametrize("pause", [0.0, 0.2])
def test_g5_bytes_beyond_the_declared_length_are_not_the_next_answer(pause: float) -> None:
    """The server sends a whole second answer after the first body, at once or a moment later."""
    poison = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for _ in range(2):
            connection, _address = listener.accept()
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with connection:
            while connection.recv(65536):
                first = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"
                if pause:
                    connection.sendall(first)
                    time.sleep(pause)
                    connection.sendall(poison)
                else:
                    connection.sendall(first + poison)

    threading.Thread(target=serve, daemon=True).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"

    async def scene(flights: Flights) -> None:
        for number in range(2):
            flight = await flights.fetch(plan_for(url, key=str(number), is_document=True), RemoteSettings(url))
            assert (await flight.outcome()).body == b"good"
            flight.release()
            await asyncio.sleep(0.5)

    flying(scene)
    listener.close()


# --- proxies


def test_q9_a_proxy_of_the_environment_is_used_and_asked_for_nothing_private() -> None:
    with Upstream() as proxy:
        proxy.add("http://public.example/a", Answer(b"through the proxy"))
        proxy.everywhere = Answer(b"through the proxy")
        environment = {"http": proxy.origin.replace("http://", "http://user:word@"), "no": "direct.example"}

        def client() -> Client:
            return Client(AddressPolicy(), resolver=names_to("10.0.0.1"), environment=environment)

        settings = RemoteSettings("http://public.example")
        outcome = fetched("http://public.example/a", settings, is_document=True, client=client)
        assert outcome.body == b"through the proxy", outcome
        assert proxy.requests[0].headers["proxy-authorization"].startswith("Basic ")
        assert "word" not in str(outcome)
        seen = len(proxy.requests)
        for url in (
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://localhost/",
            "http://x.internal/",
            "http://direct.example/",
        ):
            refused = fetched(url, settings, client=client)
            assert isinstance(refused.error, UpstreamFailed), url
            assert refused.error.detail["reason"] == "address"
        assert len(proxy.requests) == seen


def tunnelling_proxy(target_port: int, asked: list[str]) -> socket.socket:
    """A proxy that knows CONNECT only and connects every name to the loopback."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(4096)
            asked.append(head.decode("latin-1").split("\r\n")[0])
            server = socket.create_connection(("127.0.0.1", target_port))
            client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            threading.Thread(target=pump, args=(client, server), daemon=True).start()
            threading.Thread(target=pump, args=(server, client), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return listener


def test_q9_https_goes_through_a_tunnel_and_the_name_is_still_verified() -> None:
    with Upstream(tls=("registry.example.com",)) as upstream:
        upstream.protect("/", Basic("robot", "s3cret"))
        upstream.add("/a", Answer(b"x"))
        asked: list[str] = []
        listener = tunnelling_proxy(upstream.port, asked)
        proxy = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def client() -> Client:
            return Client(AddressPolicy(), tls=upstream.trust, environment={})

        settings = signed(upstream, proxy=proxy)
        assert fetched(upstream.url("/a"), settings, is_document=True, client=client).body == b"x"
        assert asked == [f"CONNECT registry.example.com:{upstream.port} HTTP/1.1"]
        wrong = fetched(f"https://other.example.com:{upstream.port}/a", settings, client=client)
        assert isinstance(wrong.error, UpstreamFailed)
        assert wrong.error.detail["reason"] == "tls"
        listener.close()


def test_u5_a_dead_name_server_holds_up_nobody_else() -> None:
    """Many requests for one name that is never resolved, and one for another."""
    looking = 0

    async def resolver(host: str, port: int) -> Sequence[str]:
        nonlocal looking
        if host == "dead.example.com":
            looking += 1
            await asyncio.sleep(60)
        return ["127.0.0.1"]

    with Upstream() as upstream:
        upstream.add("/a", Answer(b"x"))

        async def scene(flights: Flights) -> None:
            settings = settings_for(upstream, connect_timeout=0.5)
            dead = [
                await flights.fetch(plan_for(f"http://dead.example.com/{number}", repository_id=2), settings)
                for number in range(40)
            ]
            fine = await flights.fetch(plan_for(upstream.url("/a"), is_document=True), settings)
            assert (await fine.outcome()).body == b"x"
            for flight in dead:
                assert isinstance((await flight.outcome()).error, UpstreamTimeout | Unavailable)

        flying(scene, client=lambda: Client(LOOPBACK, resolver=resolver, environment={}))
        assert looking <= 2


def test_on_the_other_event_loop() -> None:
    """TLS, a token dance, a redirect and a cut body on uvloop, which servers use where it is installed."""
    previous = asyncio.get_event_loop_policy()
    with Upstream(tls=("127.0.0.1",)) as upstream:
        upstream.protect("/v2/", Bearer())
        upstream.add("/v2/n/blobs/1", Answer(redirect="/blob"))
        upstream.add("/blob", Answer(b"x" * 3_000_000))
        upstream.add("/cut", Answer(b"x" * 3_000_000, cut_after=2_000_000))

        def client() -> Client:
            return Client(LOOPBACK, tls=upstream.trust, environment={})

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
        try:
            outcome = fetched(upstream.url("/v2/n/blobs/1"), settings_for(upstream), client=client)
            assert outcome.error is None and outcome.size == 3_000_000
            assert isinstance(
                fetched(upstream.url("/cut"), settings_for(upstream), client=client).error, UpstreamFailed
            )
            assert fetched(upstream.url("/none"), settings_for(upstream)).error is not None
        finally:
            asyncio.set_event_loop_policy(previous)
