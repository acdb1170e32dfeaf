"""A database, a blob store and somebody who acts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from repoman.access.models import Principal
from repoman.blobs import store
from repoman.blobs.drivers.base import Driver
from repoman.catalog.models import Namespace
from repoman.core import clock
from repoman.core.actor import Actor


@pytest.fixture
def blob_store(tmp_path: Path) -> Iterator[Driver]:
    from repoman.blobs.drivers.filesystem import FilesystemDriver

    driver = FilesystemDriver(str(tmp_path / "blobs"))
    driver.initialise("test")
    store.set_driver(driver)
    yield driver
    store.set_driver(None)


@pytest.fixture
def actor() -> Actor:
    row = Principal.objects.create(username="ann", is_admin=True, created_at=clock.now())
    return Actor(principal_id=row.pk, name="ann", is_admin=True, address="192.0.2.1", request_id="r1")


@pytest.fixture
def namespace() -> Namespace:
    return Namespace.objects.create(name="team", created_at=clock.now())
