"""Flights without a server: a loop, a client that may reach the loopback, a store in a folder or in memory.

    with Upstream() as upstream, storing(FilesystemDriver(folder)):
        outcome = fetched(upstream.url("/a.bin"), settings_for(upstream))

or, for what happens between two steps, `flying(scene)` with `async def scene(flights)`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar

from repoman.blobs import store
from repoman.blobs.drivers.base import Driver
from repoman.core.fetch import Outcome, Plan
from repoman.core.refs import FileRef
from repoman.protocol.pools import Pool
from repoman.transfer.auth import RemoteSettings
from repoman.transfer.client import Client
from repoman.transfer.flight import Flights
from repoman.transfer.guard import AddressPolicy
from tests.tools.upstream import Upstream

LOOPBACK = AddressPolicy(["127.0.0.0/8"])
Result = TypeVar("Result")


@contextlib.contextmanager
def storing(driver: Driver) -> Iterator[Driver]:
    """Use this store for a while."""
    store.set_driver(driver)
    try:
        yield driver
    finally:
        store.set_driver(None)


def names_to(address: str, *names: str) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    """A resolver that knows these names, all at `address`, and addresses as they are."""

    async def resolver(host: str, port: int) -> Sequence[str]:
        if host in names or not names:
            return [address]
        if host.replace(".", "").isdigit():
            return [host]
        raise OSError(-2, "Name or service not known")

    return resolver


def plan_for(url: str, **fields: Any) -> Plan:
    """A plan for a file; its key is the address unless one is given."""
    defaults: dict[str, Any] = {
        "repository_id": 1,
        "key": url,
        "kind": "file",
        "ref": FileRef("package", "file"),
        "url": url,
    }
    return Plan(**{**defaults, **fields})


def settings_for(upstream: Upstream, **fields: Any) -> RemoteSettings:
    defaults: dict[str, Any] = {"url": upstream.origin, "connect_timeout": 3, "read_timeout": 5}
    return RemoteSettings(**{**defaults, **fields})


def flying(
    scene: Callable[[Flights], Awaitable[Result]], *, client: Callable[[], Client] | None = None, **options: Any
) -> Result:
    """Run `scene` with Flights of its own; everything is closed afterwards."""
    pool = Pool("storage", threads=4, waiting=2048)

    async def run() -> Result:
        made = client() if client is not None else Client(LOOPBACK, environment={})
        flights = Flights(made, run=pool.run, **options)
        try:
            return await scene(flights)
        finally:
            await flights.close()

    try:
        return asyncio.run(run())
    finally:
        pool.close()


def fetched(
    url: str,
    settings: RemoteSettings,
    *,
    client: Callable[[], Client] | None = None,
    **fields: Any,
) -> Outcome:
    """The outcome of one plan, as if adopted."""

    async def scene(flights: Flights) -> Outcome:
        flight = await flights.fetch(plan_for(url, **fields), settings)
        outcome = await flight.outcome()
        flight.release()
        return outcome

    return flying(scene, client=client)


async def read_all(flight: Any, *, pause: float = 0.0, most: int = 1 << 20) -> bytes:
    """What a follower gets, to its end. Raises the flight's error."""
    data = bytearray()
    while piece := await flight.piece(len(data), most):
        data += piece
        if pause:
            await asyncio.sleep(pause)
    return bytes(data)
