"""W5: what is put together from several queries is of one moment, whatever is committed between them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import DatabaseError, connection, connections

from repoman.access.models import Principal
from repoman.catalog import selectors
from repoman.core.actor import Actor
from repoman.db.snapshot import snapshot
from repoman.services import annotate

from .content import make_repository, releases

pytestmark = pytest.mark.django_db(transaction=True)
NOTES = {"0.0.0": {"deprecated": "old"}}


def meanwhile(act: Callable[[], object], after: int) -> Any:
    """Wraps statements: when `after` of them are done, somebody else does `act` on a connection of their own."""
    done = 0

    def elsewhere() -> None:
        try:
            act()
        finally:
            connections.close_all()

    def wrapper(execute: Any, *arguments: Any) -> Any:
        nonlocal done
        result = execute(*arguments)
        done += 1
        if done == after:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(elsewhere).result()
        return result

    return wrapper


@pytest.mark.parametrize("after", [1, 2, 3])
def test_W5_a_listing_says_nothing_newer_than_its_revision(
    namespace: Any, blob_store: Any, actor: Actor, after: int
) -> None:
    node = make_repository(namespace, "node", "npm")
    releases(node, actor, 0, 2)
    before = selectors.versions(node.pk, "demo")

    def change() -> None:
        annotate.annotate(node, actor, "demo", NOTES)
        releases(node, actor, 2, 3)

    with connection.execute_wrapper(meanwhile(change, after)):
        assert selectors.versions(node.pk, "demo") == before
    found = selectors.versions(node.pk, "demo")
    assert before is not None and found is not None and found.revision == before.revision + 2
    assert [(entry.name, entry.deprecated) for entry in found.entries] == [
        ("0.0.0", "old"),
        ("1.0.0", ""),
        ("2.0.0", ""),
    ]
    assert found.tags == {"latest": "2.0.0"}


def test_a_snapshot_only_reads_and_ends_with_its_block(actor: Actor) -> None:
    with pytest.raises(DatabaseError), snapshot():
        Principal.objects.update(username="bob")
    Principal.objects.update(username="bob")
    with pytest.raises(ZeroDivisionError), snapshot():
        1 / 0  # noqa: B018
    with snapshot():
        assert Principal.objects.get().username == "bob"
