"""Bringing back what a revision removed, under a new revision, without touching what came meanwhile."""

from __future__ import annotations

import pytest

from repoman.blobs import store
from repoman.catalog import selectors
from repoman.catalog.models import Artifact, Repository, Tag, Version
from repoman.core.actor import Actor
from repoman.core.errors import NotFound, RepomanError
from repoman.core.refs import TagRef
from repoman.events.models import Event
from repoman.jobs.lease import LeaseBusy
from repoman.services import delete
from repoman.services.collect import collect
from repoman.services.purge import purge
from repoman.services.undelete import undelete

from .content import (
    assert_sound,
    make_repository,
    push,
    put,
    release,
    remove_file,
    remove_version,
    together,
    used,
)

pytestmark = pytest.mark.django_db(transaction=True)


def revision(repository: Repository) -> int:
    repository.refresh_from_db()
    return repository.revision


def test_version_comes_back_with_its_tags_and_layers_under_one_new_revision(blob_store, actor, namespace):
    repository = make_repository(namespace)
    layer = push(repository, actor, b"layer")
    digest = release(repository, actor, b"{}", (layer,), "v1", "latest")
    before = used(namespace)
    removed = remove_version(repository, actor, digest)
    collect(grace_seconds=0)
    outcome = undelete(repository, removed, actor)
    assert outcome.revision == removed + 1 == revision(repository)
    assert sorted(one["kind"] for one in outcome.restored) == ["tag", "tag", "version"] and not outcome.skipped
    version = selectors.live_tagged(repository.pk, "app", "latest")
    assert version.name == digest and [part.path for part in version.artifacts.all()] == [layer]
    assert store.read_small(selectors.blob_ref(version)) == b"{}"
    assert used(namespace) == before
    event = Event.objects.get(kind="repository:undelete")
    assert event.revision == outcome.revision and event.actor == "ann" and event.detail["restored_count"] == 3
    assert Version.objects.filter(removed_revision=removed).count() == 1, "the log keeps what happened"
    assert_sound()
    purge(window_seconds=0)
    collect(grace_seconds=0)
    assert store.read_small(selectors.blob_ref(selectors.live_artifact(repository.pk, "app", layer))) == b"layer"
    assert_sound()


def test_file_comes_back(blob_store, actor, namespace):
    repository = make_repository(namespace, "raw", "generic")
    put(repository, actor, "a.txt", b"content")
    removed = remove_file(repository, actor, "a.txt")
    outcome = undelete(repository, removed, actor)
    assert outcome.restored == [{"kind": "file", "package": "a.txt", "name": "a.txt"}]
    row = selectors.live_artifact(repository.pk, "a.txt", "a.txt")
    assert row.added_revision == outcome.revision and store.read_small(selectors.blob_ref(row)) == b"content"
    assert_sound()


def test_what_was_taken_meanwhile_is_skipped_and_reported(blob_store, actor, namespace):
    repository = make_repository(namespace, "raw", "generic")
    put(repository, actor, "a.txt", b"first")
    removed = remove_file(repository, actor, "a.txt")
    put(repository, actor, "a.txt", b"second")
    now = revision(repository)
    outcome = undelete(repository, removed, actor)
    assert outcome.revision is None and not outcome.restored
    assert [one["reason"] for one in outcome.skipped] == ["another file has its path now"]
    assert revision(repository) == now and not Event.objects.filter(kind="repository:undelete").exists()
    put(repository, actor, "a.txt", b"first")
    assert [one["reason"] for one in undelete(repository, removed, actor).skipped] == ["it is there already"]


def test_tag_that_moved_on_keeps_its_new_version(blob_store, actor, namespace):
    repository = make_repository(namespace)
    one = release(repository, actor, b"{1}", (), "latest")
    removed = remove_version(repository, actor, one)
    two = release(repository, actor, b"{2}", (), "latest")
    outcome = undelete(repository, removed, actor)
    assert [found["kind"] for found in outcome.restored] == ["version"]
    assert [found["reason"] for found in outcome.skipped] == ["the tag points elsewhere now"]
    assert selectors.live_tagged(repository.pk, "app", "latest").name == two


def test_removed_tag_comes_back_while_its_version_lives(blob_store, actor, namespace):
    repository = make_repository(namespace)
    digest = release(repository, actor, b"{}", (), "v1")
    removed = delete.remove_tag(repository, actor, TagRef("app", "v1"))
    undelete(repository, removed, actor)
    assert selectors.live_tagged(repository.pk, "app", "v1").name == digest
    remove_version(repository, actor, digest)
    outcome = undelete(repository, removed, actor)
    assert [found["reason"] for found in outcome.skipped] == ["its version is not there"]


def test_what_the_trash_no_longer_holds_cannot_come_back(blob_store, actor, namespace):
    repository = make_repository(namespace)
    removed = remove_version(repository, actor, release(repository, actor, b"{}", ()))
    purge(window_seconds=0)
    for number in (removed, 99):
        with pytest.raises(NotFound):
            undelete(repository, number, actor)


def test_stranger_may_not_bring_anything_back(blob_store, actor, namespace):
    repository = make_repository(namespace)
    removed = remove_version(repository, actor, release(repository, actor, b"{}", ()))
    with pytest.raises(RepomanError):
        undelete(repository, removed, Actor())
    assert not Version.objects.filter(removed_revision=None).exists()


def test_undelete_beside_purge_and_collection_is_whole_or_not_there(blob_store, actor, namespace):
    repository = make_repository(namespace)
    for number in range(8):
        layer = push(repository, actor, b"layer %d" % number)
        digest = release(repository, actor, b"{%d}" % number, (layer,), f"v{number}")
        removed = remove_version(repository, actor, digest)

        def bring_back(removed: int = removed) -> None:
            try:
                undelete(repository, removed, actor)
            except NotFound:
                return

        def purge_soon() -> None:
            while True:
                try:
                    purge(window_seconds=0)
                except LeaseBusy:  # the collector is at it
                    continue
                return

        raised = together(bring_back, purge_soon, lambda: collect(grace_seconds=0, objects=False))
        assert raised == [None] * 3
        version = selectors.live_version(repository.pk, "app", digest)
        if version is not None:
            assert store.read_small(selectors.blob_ref(version)) == b"{%d}" % number
            part = Artifact.objects.select_related("blob").get(path=layer, removed_revision=None)
            assert store.read_small(selectors.blob_ref(part)) == b"layer %d" % number
        else:
            assert not Tag.objects.filter(name=f"v{number}", removed_revision=None).exists()
        assert_sound()
