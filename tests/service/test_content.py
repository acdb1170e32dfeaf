"""The publish, delete and upload doors against a real database and blob store."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from repoman.access.models import Principal
from repoman.blobs import store
from repoman.blobs.models import Blob, Upload
from repoman.catalog import selectors
from repoman.catalog.models import Artifact, Holding, Namespace, Repository, Tag, Version
from repoman.core import clock
from repoman.core.actor import ALL_ACTIONS, Action, Actor
from repoman.core.digest import Digest
from repoman.core.errors import (
    Conflict,
    ContentMissing,
    DigestInvalid,
    Forbidden,
    MethodNotAllowed,
    QuotaExceeded,
    RangeInvalid,
    RepomanError,
    UploadNotFound,
)
from repoman.core.records import NewFile, NewVersion, Publication
from repoman.core.refs import FileRef, VersionRef
from repoman.core.wire import SessionBody
from repoman.events.models import Event
from repoman.services import delete, publish, upload

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def blob_store(tmp_path: Path) -> Iterator[Any]:
    from repoman.blobs.drivers.filesystem import FilesystemDriver

    driver = FilesystemDriver(str(tmp_path / "blobs"))
    driver.initialise("test")
    store.set_driver(driver)
    yield driver
    store.set_driver(None)


@pytest.fixture
def actor() -> Actor:
    row = Principal.objects.create(username="ann", created_at=clock.now())
    return Actor(principal_id=row.pk, name="ann", address="192.0.2.1", request_id="r1")


@pytest.fixture
def namespace() -> Namespace:
    return Namespace.objects.create(name="team", created_at=clock.now())


def make_repository(namespace: Namespace, name: str = "images", format: str = "oci", **fields: Any) -> Repository:
    return Repository.objects.create(
        namespace=namespace, name=name, key=f"{namespace.name}/{name}", format=format, created_at=clock.now(), **fields
    )


def push(repository: Repository, actor: Actor, data: bytes, package: str = "app") -> str:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    publish.attach(repository, actor, package, digest, store.stage(data))
    return digest


def release(
    repository: Repository, actor: Actor, document: bytes, files: tuple[str, ...], *tags: str, **more: Any
) -> str:
    staged = store.stage(document)
    version = NewVersion(str(staged.digest), staged, "application/vnd.oci.image.manifest.v1+json", files=files)
    publish.publish(repository, actor, ALL_ACTIONS, Publication("app", version=version, tags=tags, **more))
    return str(staged.digest)


def put(repository: Repository, actor: Actor, path: str, data: bytes, **more: Any) -> Any:
    publication = Publication(path, files=(NewFile(path, store.stage(data)),), **more)
    return publish.publish(repository, actor, more.pop("actions", ALL_ACTIONS), publication)


def objects(driver: Any) -> set[str]:
    return {found.key for found in driver.list()}


def test_blob_without_a_version_raises_no_revision_and_writes_no_event(blob_store, actor, namespace):
    repository = make_repository(namespace)
    digest = push(repository, actor, b"layer")
    repository.refresh_from_db()
    assert repository.revision == 0
    assert not Event.objects.exists()
    found = selectors.live_artifact(repository.pk, "app", digest)
    assert found is not None and found.blob.size == 5
    namespace.refresh_from_db()
    assert namespace.used_bytes == 5


def test_version_tag_and_parts_become_visible_under_one_revision(blob_store, actor, namespace):
    repository = make_repository(namespace)
    layer = push(repository, actor, b"layer")
    digest = release(repository, actor, b"{}", (layer,), "latest", "v1")
    repository.refresh_from_db()
    assert repository.revision == 1
    assert {tag.name for tag in Tag.objects.all()} == {"latest", "v1"}
    assert Artifact.objects.get(path=layer).added_revision == 1
    assert selectors.live_tagged(repository.pk, "app", "v1").name == digest
    assert sorted(Event.objects.values_list("kind", flat=True)) == ["tag:create", "tag:create", "version:publish"]
    assert release(repository, actor, b"{}", (layer,), "latest") == digest
    repository.refresh_from_db()
    assert repository.revision == 1, "repeating the same publication changes nothing"


def test_version_that_names_missing_parts_is_refused_and_leaves_nothing(blob_store, actor, namespace):
    repository = make_repository(namespace)
    with pytest.raises(ContentMissing) as caught:
        release(repository, actor, b"{}", ("sha256:" + "0" * 64,), "latest")
    assert caught.value.detail["missing"] == ["sha256:" + "0" * 64]
    assert not Version.objects.exists() and not Blob.objects.exists() and not objects(blob_store)
    release(repository, actor, b"{}", ("sha256:" + "0" * 64,), "latest", require_parts=False)
    assert Version.objects.count() == 1


def test_W2_same_bytes_again_succeed_and_other_bytes_conflict(blob_store, actor, namespace):
    repository = make_repository(namespace, "files", "generic")
    assert put(repository, actor, "a/b.txt", b"one").created
    assert not put(repository, actor, "a/b.txt", b"one").created
    with pytest.raises(Conflict):
        put(repository, actor, "a/b.txt", b"two")
    answer = put(repository, actor, "a/b.txt", b"two", may_replace=True)
    assert answer.replaced and not answer.created
    publication = Publication("a/b.txt", files=(NewFile("a/b.txt", store.stage(b"three")),), may_replace=True)
    with pytest.raises(Forbidden):
        publish.publish(repository, actor, frozenset({Action.READ, Action.PUBLISH}), publication)
    for clash in ("a", "a/b.txt/c"):
        with pytest.raises(Conflict):
            put(repository, actor, clash, b"x")
    namespace.refresh_from_db()
    assert namespace.used_bytes == 6, "the replaced bytes are in the trash, and count until purged"
    assert len(objects(blob_store)) == 2


def test_shared_blob_counts_once_in_a_namespace(blob_store, actor, namespace):
    for name in ("one", "two"):
        push(make_repository(namespace, name), actor, b"shared layer")
    namespace.refresh_from_db()
    assert namespace.used_bytes == 12
    assert Holding.objects.count() == 1 and len(objects(blob_store)) == 1


def test_L1_quota_is_never_exceeded_by_parallel_pushes(blob_store, actor, namespace):
    repository = make_repository(namespace)
    namespace.quota_bytes = 1000
    namespace.save()
    outcomes: list[str] = []

    def one(number: int) -> None:
        try:
            push(repository, actor, bytes([number]) * 100)
            outcomes.append("kept")
        except QuotaExceeded:
            outcomes.append("refused")
        finally:
            connections.close_all()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    namespace.refresh_from_db()
    assert outcomes.count("kept") == 10 and outcomes.count("refused") == 20
    assert namespace.used_bytes == 1000
    assert len(objects(blob_store)) == 10, "what was refused left no bytes"


def test_removed_version_takes_its_tags_and_leaves_its_parts(blob_store, actor, namespace):
    repository = make_repository(namespace)
    layer = push(repository, actor, b"layer")
    digest = release(repository, actor, b"{}", (layer,), "latest")
    with pytest.raises(MethodNotAllowed):
        delete.remove_file(repository, actor, FileRef("app", layer))
    assert delete.remove_version(repository, actor, VersionRef("app", digest)) == 2
    assert selectors.live_version(repository.pk, "app", digest) is None
    assert selectors.live_tagged(repository.pk, "app", "latest") is None
    assert selectors.live_artifact(repository.pk, "app", layer) is not None
    delete.remove_file(repository, actor, FileRef("app", layer))
    assert selectors.live_artifact(repository.pk, "app", layer) is None


def test_immutable_tags_do_not_move(blob_store, actor, namespace):
    repository = make_repository(namespace, options={"immutable_tags": ["v*"]})
    release(repository, actor, b"{}", (), "v1", "latest")
    release(repository, actor, b"{} ", (), "latest")
    with pytest.raises(Forbidden):
        release(repository, actor, b"{}  ", (), "v1")
    release(repository, actor, b"{}", (), "v1")


def test_C5_missing_object_is_healed_by_the_next_upload(blob_store, actor, namespace):
    repository = make_repository(namespace)
    push(repository, actor, b"layer")
    blob_store.delete(Blob.objects.get().storage_key)
    digest = push(repository, actor, b"layer")
    ref = selectors.blob_ref(selectors.live_artifact(repository.pk, "app", digest))
    assert store.read_small(ref) == b"layer"


def session(repository: Repository, actor: Actor, *pieces: bytes) -> str:
    state = upload.begin(repository, actor, "app", "sha256")
    offset = 0
    for piece in pieces:
        sink = upload.open_session(repository, actor, SessionBody(state.upload_id, "app", start=offset))
        sink.append(piece)
        offset = sink.finish().offset
    return state.upload_id


def test_session_of_many_requests_is_counted_hashed_once_and_ends_with_attach(blob_store, actor, namespace):
    repository = make_repository(namespace)
    upload_id = session(repository, actor, b"abc", b"", b"defg")
    namespace.refresh_from_db()
    assert (namespace.used_bytes, namespace.reserved_bytes) == (0, 7)
    expect = Digest.of(b"abcdefg")
    staged = upload.finish(repository, actor, "app", upload_id, expect)
    publish.attach(repository, actor, "app", str(expect), staged, upload_id=upload_id)
    namespace.refresh_from_db()
    assert (namespace.used_bytes, namespace.reserved_bytes) == (7, 0)
    assert not Upload.objects.exists()
    ref = selectors.blob_ref(selectors.live_artifact(repository.pk, "app", str(expect)))
    assert store.read_small(ref) == b"abcdefg"


def test_C1_session_with_a_wrong_digest_leaves_nothing(blob_store, actor, namespace):
    repository = make_repository(namespace)
    upload_id = session(repository, actor, b"abc")
    with pytest.raises(DigestInvalid):
        upload.finish(repository, actor, "app", upload_id, Digest.of(b"other"))
    namespace.refresh_from_db()
    assert (namespace.used_bytes, namespace.reserved_bytes) == (0, 0)
    assert not objects(blob_store) and not Upload.objects.exists()


def test_session_with_sha512_is_identified_by_reading_once(blob_store, actor, namespace):
    repository = make_repository(namespace)
    upload_id = session(repository, actor, b"abc")
    staged = upload.finish(repository, actor, "app", upload_id, Digest.of(b"abc", "sha512"))
    assert staged.digest == Digest.of(b"abc")


def test_D1_wrong_start_is_refused_and_harms_nothing(blob_store, actor, namespace):
    repository = make_repository(namespace)
    upload_id = session(repository, actor, b"abc")
    with pytest.raises(RangeInvalid) as caught:
        upload.open_session(repository, actor, SessionBody(upload_id, "app", start=2))
    assert caught.value.detail["offset"] == 3
    assert upload.state_of(repository, actor, "app", upload_id).offset == 3


def test_D2_second_writer_is_refused_while_the_first_appends(blob_store, actor, namespace):
    repository = make_repository(namespace)
    upload_id = session(repository, actor, b"abc")
    first = upload.open_session(repository, actor, SessionBody(upload_id, "app"))
    with pytest.raises(RangeInvalid):
        upload.open_session(repository, actor, SessionBody(upload_id, "app"))
    first.append(b"def")
    assert first.finish().offset == 6


def test_D4_session_of_somebody_else_is_not_there(blob_store, actor, namespace):
    repository = make_repository(namespace)
    other_repository = make_repository(namespace, "other")
    upload_id = session(repository, actor, b"abc")
    row = Principal.objects.create(username="bob", created_at=clock.now())
    stranger = Actor(principal_id=row.pk, name="bob")
    for attempt in (
        (repository, stranger, "app"),
        (other_repository, actor, "app"),
        (repository, actor, "else"),
    ):
        with pytest.raises(UploadNotFound):
            upload.state_of(*attempt, upload_id)
        with pytest.raises(UploadNotFound):
            upload.cancel(*attempt, upload_id)
    assert upload.state_of(repository, actor, "app", upload_id).offset == 3


def test_D5_client_that_leaves_keeps_what_came(blob_store, actor, namespace):
    repository = make_repository(namespace)
    upload_id = session(repository, actor, b"abc")
    sink = upload.open_session(repository, actor, SessionBody(upload_id, "app"))
    sink.append(b"de")
    sink.abandon(keep=True)
    assert upload.state_of(repository, actor, "app", upload_id).offset == 5
    sink = upload.open_session(repository, actor, SessionBody(upload_id, "app"))
    sink.append(b"XX")
    sink.abandon(keep=False)
    assert upload.state_of(repository, actor, "app", upload_id).offset == 5
    staged = upload.finish(repository, actor, "app", upload_id, Digest.of(b"abcde"))
    assert staged.size == 5


def test_L2_session_is_refused_at_the_piece_that_no_longer_fits(blob_store, actor, namespace):
    repository = make_repository(namespace)
    namespace.quota_bytes = 5
    namespace.save()
    upload_id = session(repository, actor, b"abc")
    sink = upload.open_session(repository, actor, SessionBody(upload_id, "app"))
    with pytest.raises(QuotaExceeded):
        sink.append(b"defgh")
    sink.abandon()
    upload.cancel(repository, actor, "app", upload_id)
    namespace.refresh_from_db()
    assert namespace.reserved_bytes == 0


def test_W1_parallel_moves_of_one_tag_all_succeed(blob_store, actor, namespace):
    repository = make_repository(namespace)
    failures: list[RepomanError] = []

    def one(number: int) -> None:
        try:
            release(repository, actor, b"{}" + b" " * number, (), "latest")
        except RepomanError as error:
            failures.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert Tag.objects.filter(removed_revision=None).count() == 1
    assert Version.objects.count() == 16
    repository.refresh_from_db()
    assert repository.revision == 16


def test_R12_finishing_again_after_a_kill_finds_the_bytes(blob_store, actor, namespace):
    repository = make_repository(namespace)
    upload_id = session(repository, actor, b"abc", b"def")
    expect = Digest.of(b"abcdef")
    upload.finish(repository, actor, "app", upload_id, expect)  # and then the process is killed
    upload.release(upload_id)
    for _ in range(2):
        staged = upload.finish(repository, actor, "app", upload_id, expect)
        upload.release(upload_id)
    publish.attach(repository, actor, "app", str(expect), staged, upload_id=upload_id)
    ref = selectors.blob_ref(selectors.live_artifact(repository.pk, "app", str(expect)))
    assert store.read_small(ref) == b"abcdef"
    assert not Upload.objects.exists() and len(objects(blob_store)) == 1
