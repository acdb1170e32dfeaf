"""What the collector takes and what it leaves, beside everything that may happen meanwhile."""

from __future__ import annotations

import datetime
import threading

import pytest
from django.db import connections

from repoman.blobs import store
from repoman.blobs.drivers.base import StoreForeign, StoreUnavailable, storage_key
from repoman.blobs.models import Blob, Tombstone, Upload
from repoman.catalog import selectors
from repoman.catalog.models import Artifact, Holding, Namespace, Version, VersionArtifact
from repoman.core import clock
from repoman.core.digest import Digest
from repoman.core.errors import ContentMissing, FileNotFound, RepomanError
from repoman.core.refs import FileRef
from repoman.jobs.lease import LeaseBusy, LeaseEnded, NamedLease
from repoman.services import collect as collecting
from repoman.services import publish, upload
from repoman.services.collect import CollectionRefused, collect
from repoman.services.expire import expire_uploads
from repoman.services.handle import RepositoryHandle
from repoman.services.purge import purge

from .content import (
    age,
    assert_sound,
    begin_session,
    make_repository,
    objects,
    push,
    put,
    release,
    remove_version,
    row_of,
    together,
    used,
)

pytestmark = pytest.mark.django_db(transaction=True)


def test_Q1_blob_that_no_version_names_is_kept_for_the_grace_from_its_last_touch(blob_store, actor, namespace):
    repository = make_repository(namespace)
    digest = push(repository, actor, b"layer")
    age(1000)
    assert collect(grace_seconds=2000)["files"] == 0
    push(repository, actor, b"layer")  # the grace counts anew
    assert collect(grace_seconds=500)["files"] == 0
    assert selectors.live_artifact(repository.pk, "app", digest) is not None
    age(1000)
    counts = collect(grace_seconds=500)
    assert (counts["files"], counts["blobs"], counts["bytes"], counts["released_bytes"]) == (1, 1, 5, 5)
    assert not Blob.objects.exists() and not Tombstone.objects.exists() and not objects(blob_store)
    assert used(namespace) == 0


def test_grace_of_zero_is_literal(blob_store, actor, namespace):
    push(make_repository(namespace), actor, b"layer")
    assert collect(grace_seconds=0)["blobs"] == 1
    assert_sound()


def test_Q4_what_a_version_names_is_kept_also_while_the_version_is_in_the_trash(blob_store, actor, namespace):
    repository = make_repository(namespace)
    layer = push(repository, actor, b"layer")
    digest = release(repository, actor, b"{}", (layer,), "latest")
    age(10**6)
    assert collect(grace_seconds=0)["blobs"] == 0
    remove_version(repository, actor, digest)
    assert collect(grace_seconds=0)["blobs"] == 0
    assert used(namespace) == 7
    purge(window_seconds=0)
    counts = collect(grace_seconds=0)
    assert (counts["files"], counts["blobs"], counts["bytes"]) == (1, 2, 7)
    assert used(namespace) == 0 and not objects(blob_store)
    assert_sound()


def test_Q4_blob_stays_while_any_namespace_holds_it(blob_store, actor, namespace):
    other = Namespace.objects.create(name="other", created_at=clock.now())
    here, there = make_repository(namespace), make_repository(other)
    push(here, actor, b"layer")
    age(1000)
    push(there, actor, b"layer")
    counts = collect(grace_seconds=500)
    assert (counts["files"], counts["blobs"]) == (1, 0)
    assert used(namespace) == 0 and used(other) == 5
    assert Holding.objects.count() == 1 and len(objects(blob_store)) == 1
    assert_sound()


def test_file_that_stands_by_itself_is_never_collected(blob_store, actor, namespace):
    repository = make_repository(namespace, "raw", "generic")
    put(repository, actor, "a.txt", b"content")
    age(10**6)
    assert collect(grace_seconds=0)["blobs"] == 0
    assert_sound()


def test_Q10_collection_empties_the_trash_and_ends_uploads_by_their_own_settings(
    blob_store, actor, namespace, settings
):
    repository = make_repository(namespace)
    remove_version(repository, actor, release(repository, actor, b"{}", ()))
    begin_session(repository, actor, b"part of it")
    values = {**settings.CONFIGURATION.values, "REPOMAN_TRASH_WINDOW": 0, "REPOMAN_UPLOAD_TTL": 0}
    settings.CONFIGURATION = type(settings.CONFIGURATION)(values)
    counts = collect(grace_seconds=0)
    assert (counts["purged_versions"], counts["uploads"], counts["blobs"]) == (1, 1, 1)
    assert not objects(blob_store) and not Upload.objects.exists()
    assert_sound()


def test_Q5_same_bytes_pushed_again_after_their_collection_stay(blob_store, actor, namespace):
    repository = make_repository(namespace)
    for _ in range(3):
        digest = push(repository, actor, b"layer")
        collect(grace_seconds=0)
    digest = push(repository, actor, b"layer")
    release(repository, actor, b"{}", (digest,))
    collect(grace_seconds=0)
    entry = selectors.live_artifact(repository.pk, "app", digest)
    assert store.read_small(selectors.blob_ref(entry)) == b"layer"


def test_Q2_manifest_that_names_a_collected_layer_is_refused_and_leaves_nothing(blob_store, actor, namespace):
    repository = make_repository(namespace)
    layer = push(repository, actor, b"layer")
    collect(grace_seconds=0)
    with pytest.raises(ContentMissing):
        release(repository, actor, b"{}", (layer,))
    assert not Version.objects.exists() and not Blob.objects.exists()


def test_Q2_blob_a_publisher_was_told_of_is_kept_also_by_a_collection_with_a_shorter_grace(
    blob_store, actor, namespace
):
    """The setting is a day; who asks for a collection with a minute must not break a push that is on its way."""
    repository = make_repository(namespace)
    told, forgotten = push(repository, actor, b"told"), push(repository, actor, b"forgotten")
    age(100)
    RepositoryHandle(actor, repository).open(FileRef("app", told), promise=True)
    assert collect(grace_seconds=60)["files"] == 1
    assert release(repository, actor, b"{}", (told,))
    with pytest.raises(FileNotFound):
        RepositoryHandle(actor, repository).open(FileRef("app", forgotten), promise=True)


def test_Q6_killed_between_commit_and_removal_the_next_run_removes_the_bytes(blob_store, actor, namespace, monkeypatch):
    push(make_repository(namespace), actor, b"layer")

    def killed(self: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(collecting._Collection, "tombstones", killed)
        with pytest.raises(KeyboardInterrupt):
            collect(grace_seconds=0)
    assert not Blob.objects.exists() and Tombstone.objects.count() == 1 and len(objects(blob_store)) == 1
    assert_sound()
    counts = collect(grace_seconds=0)
    assert counts["bytes"] == 5 and not objects(blob_store) and not Tombstone.objects.exists()


def test_N7_removal_that_fails_holds_up_no_other_and_is_tried_again(blob_store, actor, namespace, monkeypatch):
    repository = make_repository(namespace)
    for number in range(5):
        push(repository, actor, b"layer %d" % number)
    bad = Blob.objects.order_by("pk")[0].storage_key
    delete = blob_store.delete

    def refuse(key: str) -> None:
        if key == bad:
            raise StoreUnavailable("denied")
        delete(key)

    with monkeypatch.context() as patch:
        patch.setattr(blob_store, "delete", refuse)
        counts = collect(grace_seconds=0)
    assert (counts["blobs"], counts["pending"]) == (5, 1)
    assert objects(blob_store) == {bad}
    push(repository, actor, b"layer 0")  # pushed again meanwhile: another key, so the late removal cannot hurt it
    collect(grace_seconds=500)
    assert bad not in objects(blob_store) and len(objects(blob_store)) == 1
    assert_sound()


def test_Q9_old_objects_without_rows_are_removed_young_ones_kept(blob_store, actor, namespace, settings):
    push(make_repository(namespace), actor, b"layer")
    store.stage(b"left by a killed process")
    age(10**6, blob_store)
    store.stage(b"just being published")
    counts = collect(grace_seconds=0)
    assert counts["objects"] == 1
    # The layer went as a blob; what is young stays although nothing names it yet.
    assert len(objects(blob_store)) == 1
    assert collect(grace_seconds=0, objects=False)["objects"] == 0


def test_dry_run_counts_and_removes_nothing(blob_store, actor, namespace):
    repository = make_repository(namespace)
    push(repository, actor, b"layer")
    counts = collect(grace_seconds=0, dry_run=True)
    assert counts["files"] == 1
    assert Artifact.objects.count() == 1 and len(objects(blob_store)) == 1


def test_Q8_run_over_its_share_stops_and_asks(blob_store, actor, namespace, monkeypatch):
    monkeypatch.setattr(collecting, "BREAKER_COUNT", 3)
    repository = make_repository(namespace)
    layers = [push(repository, actor, b"layer %d" % number) for number in range(8)]
    release(repository, actor, b"{}", tuple(layers))
    VersionArtifact.objects.all().delete()  # a table that came back empty
    with pytest.raises(CollectionRefused):
        collect(grace_seconds=0)
    assert Artifact.objects.count() == 8 and len(objects(blob_store)) == 9
    Artifact.objects.all().delete()
    Version.objects.all().delete()
    Holding.objects.all().delete()
    with pytest.raises(CollectionRefused):
        collect(grace_seconds=0)
    assert Blob.objects.count() == 9
    Blob.objects.all().delete()  # an older database beside a newer store
    age(10**6, blob_store)
    with pytest.raises(CollectionRefused):
        collect(grace_seconds=0)
    assert len(objects(blob_store)) == 9
    assert collect(grace_seconds=0, force=True)["objects"] == 9


def test_missing_holdings_alone_lose_nothing(blob_store, actor, namespace):
    repository = make_repository(namespace)
    release(repository, actor, b"{}", (push(repository, actor, b"layer"),))
    Holding.objects.all().delete()
    assert collect(grace_seconds=0, force=True)["blobs"] == 0
    assert len(objects(blob_store)) == 2


def test_N5_store_that_is_not_ours_is_no_evidence(blob_store, actor, namespace, monkeypatch):
    push(make_repository(namespace), actor, b"layer")

    def foreign(instance_id: str | None = None) -> None:
        raise StoreForeign()

    monkeypatch.setattr(blob_store, "check", foreign)
    with pytest.raises(StoreForeign):
        collect(grace_seconds=0)
    assert Blob.objects.count() == 1


def test_Q7_of_two_collectors_one_works(blob_store, actor, namespace):
    push(make_repository(namespace), actor, b"layer")
    with NamedLease("collect"):
        with pytest.raises(LeaseBusy):
            collect(grace_seconds=0)
    assert collect(grace_seconds=0)["blobs"] == 1


def test_lease_that_ran_out_is_taken_and_its_holder_refused():
    with pytest.raises(LeaseEnded), NamedLease("work", seconds=0) as first:
        with NamedLease("work"):
            first._renewed -= 3600
            first.renew()
    with NamedLease("work"):
        pass


def test_lease_from_a_clock_that_ran_ahead_does_not_lock_for_ever():
    with NamedLease("work", seconds=40 * 86400), NamedLease("work") as second:
        second.renew()


def test_Q7_query_that_fails_deletes_nothing(blob_store, actor, namespace, monkeypatch):
    push(make_repository(namespace), actor, b"layer")

    def fail(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("statement timeout")

    monkeypatch.setattr(collecting, "remove_rows", fail)
    with pytest.raises(RuntimeError):
        collect(grace_seconds=0)
    assert Blob.objects.count() == 1 and len(objects(blob_store)) == 1


def test_D6_idle_sessions_end_with_their_bytes_and_reservations_others_stay(blob_store, actor, namespace):
    repository = make_repository(namespace)
    begin_session(repository, actor, b"abandoned")
    leased = begin_session(repository, actor, b"still sending")
    age(1000)
    until = clock.now() + datetime.timedelta(seconds=60)
    Upload.objects.filter(pk=row_of(leased)).update(lease="somebody", leased_until=until)
    young = begin_session(repository, actor, b"fresh")
    counts = expire_uploads(ttl_seconds=500)
    assert (counts["uploads"], counts["bytes"]) == (1, 9)
    assert set(Upload.objects.values_list("pk", flat=True)) == {row_of(leased), row_of(young)}
    namespace.refresh_from_db()
    assert namespace.reserved_bytes == len(b"still sending") + len(b"fresh")
    assert_sound()


def test_D6_session_ended_twice_at_once_gives_back_once(blob_store, actor, namespace):
    repository = make_repository(namespace)
    for number in range(5):
        begin_session(repository, actor, b"part %d" % number)
    assert together(*[lambda: expire_uploads(ttl_seconds=0)] * 4) == [None] * 4
    namespace.refresh_from_db()
    assert namespace.reserved_bytes == 0 and not Upload.objects.exists()


def test_Q3_pushing_beside_a_collector_in_a_loop_never_leaves_a_version_without_its_bytes(blob_store, actor, namespace):
    """With a grace of zero a layer may be gone before its manifest comes: then the manifest is refused, and the client
    pushes again. What was acknowledged is whole."""
    repository = make_repository(namespace)
    other = make_repository(Namespace.objects.create(name="other", created_at=clock.now()))
    stop = threading.Event()
    released: list[tuple[object, str, str]] = []
    refused: list[str] = []

    def pusher(where: object, number: int) -> None:
        try:
            for turn in range(15):
                layer = push(where, actor, b"shared layer %d" % (turn % 3))
                own = push(where, actor, b"own %d %d" % (number, turn))
                try:
                    digest = release(where, actor, b"{%d %d}" % (number, turn), (layer, own), "latest")
                except ContentMissing:
                    refused.append(own)
                    continue
                if turn % 4 == 3:
                    remove_version(where, actor, digest)
                else:
                    released.append((where, digest, own))
        finally:
            connections.close_all()

    def collector() -> None:
        while not stop.is_set():
            collect(grace_seconds=0, force=True)
            purge(window_seconds=0)

    def pushers() -> None:
        threads = [
            threading.Thread(target=pusher, args=(where, number))
            for number, where in enumerate((repository, repository, other))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stop.set()

    assert together(pushers, collector) == [None, None]
    assert len(released) + len(refused) > 20
    for where, digest, own in released:
        version = selectors.live_version(where.pk, "app", digest)
        layer = selectors.live_artifact(where.pk, "app", own)
        for row in (version, layer):
            data = store.read_small(selectors.blob_ref(row))
            assert Digest.of(data) == Digest.sha256(row.blob.digest)
    assert_sound()


def test_Q3_nobody_is_refused_beside_a_collector_within_the_grace(blob_store, actor, namespace):
    repository = make_repository(namespace)
    stop = threading.Event()

    def pusher() -> None:
        for turn in range(20):
            layer = push(repository, actor, b"layer %d" % (turn % 4))
            remove_version(repository, actor, release(repository, actor, b"{%d}" % turn, (layer,)))
        stop.set()

    def collector() -> None:
        while not stop.is_set():
            collect(grace_seconds=60)
            purge(window_seconds=0)

    assert together(pusher, collector) == [None, None]
    assert_sound()


def test_mount_of_a_blob_that_is_being_collected_either_keeps_it_or_fails(blob_store, actor, namespace):
    repository = make_repository(namespace)
    other = make_repository(Namespace.objects.create(name="other", created_at=clock.now()))
    for number in range(10):
        digest = push(repository, actor, b"layer %d" % number)
        blob_id = Artifact.objects.get(path=digest).blob_id
        raised = together(
            lambda blob_id=blob_id, digest=digest: publish.attach(other, actor, "app", digest, None, blob_id=blob_id),
            lambda: collect(grace_seconds=0, objects=False),
        )
        assert raised[1] is None
        row = selectors.live_artifact(other.pk, "app", digest)
        if raised[0] is None and row is not None:
            assert store.is_intact(row.blob.storage_key, row.blob.size, row.blob.stamp)
        collect(grace_seconds=0, objects=False)
        assert_sound()


def test_key_of_a_collected_blob_is_never_used_again(blob_store, actor, namespace):
    repository = make_repository(namespace)
    push(repository, actor, b"layer")
    first = Blob.objects.get().storage_key
    collect(grace_seconds=0)
    push(repository, actor, b"layer")
    second = Blob.objects.get().storage_key
    assert first != second and second.startswith(storage_key(Digest.of(b"layer").hex, "x")[:-1])


def test_D3_session_that_several_end_at_once_gives_back_once(blob_store, actor, namespace):
    """A cancellation, an expiry and a completion meet: exactly one of them ends the session."""
    repository = make_repository(namespace)
    kept = begin_session(repository, actor, b"another session, so that too much given back shows")
    for _ in range(10):
        upload_id = begin_session(repository, actor, b"content")

        def finish(upload_id: str = upload_id) -> None:
            expect = Digest.of(b"content")
            staged = upload.finish(repository, actor, "app", upload_id, expect)
            publish.attach(repository, actor, "app", str(expect), staged, upload_id=upload_id)

        raised = together(
            lambda upload_id=upload_id: upload.cancel(repository, actor, "app", upload_id),
            lambda upload_id=upload_id: upload.cancel(repository, actor, "app", upload_id),
            finish,
            lambda: expire_uploads(ttl_seconds=3600),
        )
        assert raised[3] is None
        assert all(error is None or isinstance(error, RepomanError) for error in raised), raised
        assert [row.pk for row in Upload.objects.all()] == [row_of(kept)]
        assert_sound()
