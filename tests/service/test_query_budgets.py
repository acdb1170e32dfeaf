"""How many statements the hot paths may cost, whatever is stored. A number that grows is a decision, not an accident."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from repoman.blobs import store
from repoman.core.actor import ALL_ACTIONS, Actor
from repoman.core.records import Gather, NewFile, Publication
from repoman.core.refs import FileRef, ListingRef, TagRef
from repoman.services import publish
from repoman.services.handle import RepositoryHandle

from .content import make_repository, push, release, releases

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def count() -> Iterator[Callable[[Callable[[], Any]], int]]:
    """Statements of a call that was made once before, so that compiled queries and caches are warm."""

    def counted(act: Callable[[], Any]) -> int:
        with CaptureQueriesContext(connection) as captured:
            act()
        return len([one for one in captured.captured_queries if not one["sql"].startswith(("BEGIN", "COMMIT"))])

    yield counted


def test_reads_of_one_object(namespace: Any, blob_store: Any, actor: Actor, count: Any) -> None:
    images = make_repository(namespace)
    layer = push(images, actor, b"layer")
    for number in range(30):
        release(images, actor, b"manifest %d" % number, (layer,), f"v{number}")
    reader = Actor(principal_id=actor.principal_id, name="ann", is_admin=True)
    for act in (
        lambda: RepositoryHandle(reader, images).version(TagRef("app", "v7")),
        lambda: RepositoryHandle(reader, images).open(FileRef("app", layer)),
    ):
        act()
        assert count(act) <= 1


def test_a_document_costs_the_same_with_any_number_of_versions(
    namespace: Any, blob_store: Any, actor: Actor, count: Any
) -> None:
    node = make_repository(namespace, "node", "npm")

    def read() -> Any:
        return RepositoryHandle(actor, node).document(
            ListingRef("versions", "demo"), "full", "http://host/npm/team/node"
        )

    seen = []
    for first, last in ((0, 2), (2, 60)):
        releases(node, actor, first, last)
        seen.append(count(read))  # the first one after a change renders
        assert count(read) <= 1  # and then one row says that nothing changed
    assert seen[0] == seen[1] <= 5


def test_writes(namespace: Any, blob_store: Any, actor: Actor, count: Any) -> None:
    images = make_repository(namespace)
    node = make_repository(namespace, "node", "npm")
    layer = push(images, actor, b"layer")
    release(images, actor, b"a manifest", (layer,), "v1")
    releases(node, actor, 0, 3)
    assert count(lambda: push(images, actor, b"another layer")) <= 7
    assert count(lambda: release(images, actor, b"another manifest", (layer,), "v1")) <= 17
    assert count(lambda: releases(node, actor, 3, 4)) <= 21


def parts(repository: Any, actor: Actor, first: int, last: int) -> None:
    """A jar, then the POM that completes the version."""
    for number in range(first, last):
        version = f"{number}.0"
        for name, metadata in ((f"demo-{version}.jar", {}), (f"demo-{version}.pom", {"pom": {"packaging": "jar"}})):
            path = f"{version}/{name}"
            new = NewFile(path, store.stage(path.encode()), metadata=metadata)
            publication = Publication("org.example:demo", files=(new,), gather=(Gather(version, f"{version}/"),))
            publish.publish(repository, actor, ALL_ACTIONS, publication)


def test_versions_that_come_in_parts_and_their_metadata(
    namespace: Any, blob_store: Any, actor: Actor, count: Any
) -> None:
    java = make_repository(namespace, "java", "maven")

    def read() -> Any:
        return RepositoryHandle(actor, java).document(ListingRef("releases", "org.example:demo"), "", "http://host")

    seen = []
    for first, last in ((0, 2), (2, 60)):
        parts(java, actor, first, last)
        seen.append(count(read))
        assert count(read) <= 1
    assert seen[0] == seen[1] <= 3
    assert count(lambda: parts(java, actor, 60, 61)) <= 34  # two files and a version
