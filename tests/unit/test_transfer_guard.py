"""G1, G2, Q2: which addresses a remote may reach, and that the connection goes to the address that was judged."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import httpcore
import pytest

from repoman.transfer.client import Client
from repoman.transfer.guard import AddressPolicy, AddressRefused, GuardedBackend
from tests.tools.flying import LOOPBACK, fetched, names_to, settings_for
from tests.tools.upstream import Answer, Upstream

PRIVATE = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "100.127.255.254",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a00:1::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", PRIVATE)
def test_g1_no_private_address_is_permitted(address: str) -> None:
    assert not AddressPolicy().permits("upstream.example", address)


@pytest.mark.parametrize("address", PUBLIC)
def test_g1_public_addresses_are_permitted(address: str) -> None:
    assert AddressPolicy().permits("upstream.example", address)


def test_g1_an_allowed_network_is_permitted_in_every_face() -> None:
    policy = AddressPolicy(["10.1.0.0/16", "fd12::/16", "[::1]"])
    assert policy.permits("x.example", "10.1.2.3")
    assert policy.permits("x.example", "::ffff:10.1.2.3")
    assert policy.permits("x.example", "fd12::5")
    assert policy.permits("x.example", "::1")
    assert not policy.permits("x.example", "10.2.0.1")
    assert not policy.permits("x.example", "127.0.0.1")


def test_g1_an_allowed_name_is_permitted_but_not_where_clouds_keep_credentials() -> None:
    policy = AddressPolicy(["Registry.Corp.Example."])
    assert policy.permits("registry.corp.example", "10.9.8.7")
    assert not policy.permits("other.corp.example", "10.9.8.7")
    assert not policy.permits("registry.corp.example.evil.example", "10.9.8.7")
    for address in ("169.254.169.254", "fe80::1", "fd00:ec2::254", "224.0.0.1", "::ffff:169.254.169.254"):
        assert not policy.permits("registry.corp.example", address)
    assert AddressPolicy(["169.254.0.0/16"]).permits("metadata", "169.254.169.254")


@pytest.mark.parametrize(
    ("host", "permitted"),
    [
        ("registry.example.com", True),
        ("8.8.8.8", True),
        ("127.0.0.1", False),
        ("127.1", False),
        ("0x7f.1", False),
        ("2130706433", False),
        ("017700000001", False),
        ("[::1]", False),
        ("[::ffff:10.0.0.1]", False),
        ("169.254.169.254", False),
        ("localhost", False),
        ("localhost.", False),
        ("a.localhost", False),
        ("intranet", False),
        ("metadata.google.internal", False),
        ("printer.local", False),
        ("allowed.internal", True),
    ],
)
def test_q9_names_and_addresses_are_judged_where_a_proxy_resolves(host: str, permitted: bool) -> None:
    assert AddressPolicy(["allowed.internal"]).permits_unresolved(host) is permitted


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "0x7f.1", "0x7f000001", "2130706433", "017700000001", "localhost"]
)
def test_g1_every_notation_of_an_address_is_refused(host: str) -> None:
    """The port is open, so only the guard can be what refuses."""
    with Upstream() as upstream:
        upstream.add("/x", Answer(b"secret"))
        outcome = fetched(
            f"http://{host}:{upstream.port}/x",
            settings_for(upstream),
            client=lambda: Client(AddressPolicy(), environment={}),
        )
        assert outcome.error is not None
        assert outcome.error.status == 502
        assert "REPOMAN_UPSTREAM_ALLOW" in outcome.error.message
        assert upstream.connections == 0


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/x", "file:///etc/passwd", "gopher://x/", "http:///x", "//x", "x", "unix:/x"]
)
def test_g1_other_schemes_are_refused(url: str) -> None:
    with Upstream() as upstream:
        outcome = fetched(url, settings_for(upstream))
        assert outcome.error is not None
        assert outcome.error.status == 502
        assert upstream.connections == 0


def test_g1_a_unix_socket_is_never_connected() -> None:
    async def scene() -> None:
        await GuardedBackend(LOOPBACK).connect_unix_socket("/run/x.sock")

    with pytest.raises(AddressRefused):
        asyncio.run(scene())


def test_g2_the_connection_goes_to_the_judged_address_however_the_next_answer_reads() -> None:
    """DNS rebinding: the first answer is public, every later one is the loopback. There is one look-up, and its answer is
    what is connected."""
    looked_up: list[str] = []
    connected: list[str] = []

    async def rebinding(host: str, port: int) -> Sequence[str]:
        looked_up.append(host)
        return ["192.0.32.10"] if len(looked_up) == 1 else ["127.0.0.1"]

    async def scene() -> None:
        loop = asyncio.get_running_loop()

        async def create_connection(factory: object, host: str, port: int, **_: object) -> object:
            connected.append(host)
            raise OSError(111, "refused")

        loop.create_connection = create_connection  # type: ignore[assignment,method-assign]
        await GuardedBackend(AddressPolicy(), resolver=rebinding).connect_tcp("rebind.example", 80, timeout=2)

    with pytest.raises(httpcore.ConnectError):
        asyncio.run(scene())
    assert looked_up == ["rebind.example"]
    assert connected == ["192.0.32.10"]


def test_g2_a_name_that_turns_to_the_loopback_is_refused_when_it_is_connected() -> None:
    with Upstream() as upstream:
        upstream.add("/x", Answer(b"secret"))
        outcome = fetched(
            f"http://rebind.example:{upstream.port}/x",
            settings_for(upstream),
            client=lambda: Client(AddressPolicy(), resolver=names_to("127.0.0.1", "rebind.example"), environment={}),
        )
        assert outcome.error is not None
        assert "rebind.example" in outcome.error.message
        assert "127.0.0.1" not in outcome.error.message  # what an internal name resolves to is not told
        assert upstream.connections == 0


def test_g2_the_systems_resolver_is_asked_once_per_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = socket.getaddrinfo

    def counting(host: str, *arguments: object, **options: object) -> object:
        asked.append(host)
        return real("127.0.0.1", *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", counting)
    with Upstream() as upstream:
        upstream.add("/x", Answer(b"fine"))
        outcome = fetched(f"http://once.example:{upstream.port}/x", settings_for(upstream), is_document=True)
        assert outcome.body == b"fine"
    assert asked.count("once.example") == 1


def test_g2_of_several_addresses_only_permitted_ones_are_tried_in_turn() -> None:
    """A public address that is dead, then a private one: the private one is not a fallback."""
    with Upstream() as upstream:
        upstream.add("/x", Answer(b"secret"))

        async def mixed(host: str, port: int) -> Sequence[str]:
            return ["10.255.255.1", "127.0.0.1"]

        async def dead_first(host: str, port: int) -> Sequence[str]:
            return ["127.0.0.9", "127.0.0.1"]

        settings = settings_for(upstream)
        refused = fetched(
            f"http://mixed.example:{upstream.port}/x",
            settings,
            client=lambda: Client(AddressPolicy(), resolver=mixed, environment={}),
        )
        assert refused.error is not None
        assert upstream.connections == 0
        found = fetched(
            f"http://several.example:{upstream.port}/x",
            settings,
            is_document=True,
            client=lambda: Client(LOOPBACK, resolver=dead_first, environment={}),
        )
        assert found.body == b"secret"


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:169.254.169.254]/",
        "http://[fd00:ec2::254]/",
        "http://0x0a.1/",
        "http://10.0.0.1/",
        "http://localtest.example/",
    ],
)
def test_g1_each_redirect_is_judged_again(target: str) -> None:
    with Upstream() as upstream:
        upstream.add("/start", Answer(redirect=target))
        outcome = fetched(
            upstream.url("/start"),
            settings_for(upstream),
            client=lambda: Client(LOOPBACK, resolver=_as_is_or("10.1.2.3"), environment={}),
        )
        assert outcome.error is not None
        assert outcome.error.status == 502
        assert outcome.error.detail["reason"] == "address"
        assert upstream.count("/start") == 1  # not worth a second try


def _as_is_or(address: str):  # type: ignore[no-untyped-def]
    async def resolver(host: str, port: int) -> Sequence[str]:
        found = await asyncio.get_running_loop().getaddrinfo(host, port) if not host.endswith("example") else None
        return [str(found[0][4][0])] if found else [address]

    return resolver
