"""Emptying the trash, and removing whole repositories: exactly what is due goes, and every namespace gets its bytes back."""

from __future__ import annotations

import pytest
from django.db import transaction
from django.db.models import Q

from repoman.blobs import store
from repoman.blobs.models import Blob, Upload
from repoman.catalog.models import (
    Artifact,
    Holding,
    Namespace,
    Package,
    Repository,
    Tag,
    Version,
    VersionArtifact,
)
from repoman.core import clock
from repoman.core.actor import ALL_ACTIONS, Actor
from repoman.core.errors import NotFound, Unavailable
from repoman.core.records import NewFile, NewVersion, Publication
from repoman.events.models import Event
from repoman.jobs.models import JobRun
from repoman.jobs.queue import request
from repoman.services import contents, publish
from repoman.services import purge as purging
from repoman.services.collect import collect
from repoman.services.purge import drop_repository, purge, purge_revision
from repoman.services.release import remove_rows
from repoman.services.undelete import undelete
from workers import runner
from workers.deletion.job import delete_leftovers

from .content import (
    age,
    assert_sound,
    begin_session,
    make_repository,
    objects,
    push,
    put,
    release,
    releases,
    remove_file,
    remove_version,
    together,
    used,
)

pytestmark = pytest.mark.django_db(transaction=True)


def test_only_what_is_older_than_the_window_goes(blob_store, actor, namespace):
    repository = make_repository(namespace, "raw", "generic")
    put(repository, actor, "old.txt", b"old")
    put(repository, actor, "young.txt", b"young")
    put(repository, actor, "live.txt", b"live")
    remove_file(repository, actor, "old.txt")
    age(1000)
    remove_file(repository, actor, "young.txt")
    assert used(namespace) == 12
    counts = purge(window_seconds=500)
    assert (counts["files"], counts["blobs"], counts["bytes"]) == (1, 1, 3)
    assert used(namespace) == 9
    assert set(Artifact.objects.values_list("path", flat=True)) == {"young.txt", "live.txt"}
    assert Blob.objects.count() == 3, "bytes are the collector's"
    assert_sound()


def test_bytes_that_something_else_in_the_namespace_names_stay_charged(blob_store, actor, namespace):
    raw, other = make_repository(namespace, "raw", "generic"), make_repository(namespace, "more", "generic")
    put(raw, actor, "a.txt", b"same")
    put(other, actor, "b.txt", b"same")
    remove_file(raw, actor, "a.txt")
    counts = purge(window_seconds=0)
    assert (counts["files"], counts["blobs"], counts["bytes"]) == (1, 0, 0)
    assert used(namespace) == 4
    remove_file(other, actor, "b.txt")
    assert purge(window_seconds=0)["bytes"] == 4
    assert used(namespace) == 0 and not Holding.objects.exists()
    assert_sound()


def test_L3_overwriting_gives_the_old_bytes_back_after_the_window(blob_store, actor, namespace):
    repository = make_repository(namespace, "raw", "generic")
    for turn in range(4):
        put(repository, actor, "a.txt", b"x" * (turn + 1))
    assert used(namespace) == 10
    purge(window_seconds=0)
    assert used(namespace) == 4
    collect(grace_seconds=0)
    assert len(objects(blob_store)) == 1
    assert_sound()


def test_version_goes_with_its_tags_and_links_and_its_layers_follow_their_grace(blob_store, actor, namespace):
    repository = make_repository(namespace)
    layer = push(repository, actor, b"layer")
    digest = release(repository, actor, b"{}", (layer,), "v1")
    release(repository, actor, b"{ }", (layer,), "v1")
    remove_version(repository, actor, digest)
    purge(window_seconds=0)
    assert Version.objects.count() == 1 and VersionArtifact.objects.count() == 1
    assert list(Tag.objects.values_list("removed_revision", flat=True)) == [None]
    assert Artifact.objects.filter(removed_revision=None).count() == 1
    assert_sound()


def test_file_that_a_version_in_the_trash_names_waits_for_it(blob_store, actor, namespace):
    repository = make_repository(namespace)
    layer = push(repository, actor, b"layer")
    digest = release(repository, actor, b"{}", (layer,))
    revision = remove_version(repository, actor, digest)
    row = Artifact.objects.get(path=layer)
    Artifact.objects.filter(pk=row.pk).update(removed_revision=revision, removed_at=clock.now())
    Version.objects.update(removed_at=clock.now())
    removed = None
    with transaction.atomic():
        removed = remove_rows(namespace.pk, artifacts=[row.pk], still=Q(removed_revision=revision))
    assert removed.artifacts == 0
    counts = purge(window_seconds=0)
    assert (counts["versions"], counts["files"]) == (1, 1)
    assert used(namespace) == 0


def test_purge_of_one_revision_frees_a_full_namespace_at_once(blob_store, actor, namespace):
    repository = make_repository(namespace)
    one, two = release(repository, actor, b"{1}", ()), release(repository, actor, b"{2}", ())
    first = remove_version(repository, actor, one)
    remove_version(repository, actor, two)
    counts = purge_revision(repository, first)
    assert (counts["versions"], counts["bytes"]) == (1, 3)
    assert Version.objects.get().name == two
    assert_sound()


# --- ?purge=true: DECISIONS 10, "so a full namespace can free itself" ------------------------------------------------


def deploy(repository: Repository, actor: Actor, *names: str, version: str = "1", package: str = "org:demo") -> None:
    """Files of 20 bytes each in one version that owns them."""
    files = tuple(NewFile(f"{version}/{name}", store.stage(f"{version} {name}".ljust(20).encode())) for name in names)
    new = NewVersion(version, files=tuple(file.path for file in files))
    publish.publish(repository, actor, ALL_ACTIONS, Publication(package, files=files, version=new))


@pytest.mark.parametrize("format", ["maven", "pypi", "helm"])
def test_D10_purge_of_a_version_takes_what_older_rows_of_it_still_hold(blob_store, actor, namespace, format):
    repository = make_repository(namespace, "files", format)
    package = "org:demo" if format == "maven" else "demo"
    deploy(repository, actor, "a", "b", "c", package=package)
    deploy(repository, actor, "a", version="2", package=package)
    for name in ("a", "b"):
        contents.remove_file(actor, repository, package, name=f"1/{name}")
    purge(window_seconds=500)
    assert used(namespace) == 80
    contents.remove_versions(actor, repository, package, version="1", purge=True)
    assert used(namespace) == 20 and set(Version.objects.values_list("name", flat=True)) == {"2"}
    assert Event.objects.get(kind="trash:purge").detail["bytes"] == 60
    assert_sound()
    with pytest.raises(NotFound):
        contents.remove_versions(actor, repository, package, version="1", purge=True)


@pytest.mark.parametrize("everything", [True, False])
def test_D10_purge_of_a_package_that_is_wholly_in_the_trash(blob_store, actor, namespace, everything):
    repository = make_repository(namespace, "java", "maven")
    deploy(repository, actor, "demo-1.jar", "demo-1.pom")
    for name in ("1/demo-1.pom", "1/demo-1.jar"):
        contents.remove_file(actor, repository, "org:demo", name=name)
    # One that no version ever named, and one that is another version's.
    loose = NewFile("1/demo-1-x.jar", store.stage(b"loose"))
    publish.publish(repository, actor, ALL_ACTIONS, Publication("org:demo", files=(loose,)))
    contents.remove_file(actor, repository, "org:demo", name=loose.path)
    deploy(repository, actor, "demo-2.jar", version="2")
    contents.remove_versions(actor, repository, "org:demo", version="2")
    asked = {"everything": True} if everything else {"version": "1"}
    with pytest.raises(NotFound):
        contents.remove_versions(actor, repository, "org:demo", **asked)
    assert used(namespace) == 65
    contents.remove_versions(actor, repository, "org:demo", purge=True, **asked)
    assert used(namespace) == (0 if everything else 20)
    assert_sound()
    with pytest.raises(NotFound):
        contents.remove_versions(actor, repository, "org:demo", purge=True, **asked)


def test_D10_purge_of_a_file_that_is_in_the_trash_leaves_its_neighbours_there(blob_store, actor, namespace):
    repository = make_repository(namespace, "java", "maven")
    deploy(repository, actor, "demo-1.jar", "demo-1.jar.asc", "demo-1-x.jar", "demo-1.pom")
    contents.remove_file(actor, repository, "org:demo", name="1/demo-1-x.jar")
    contents.remove_file(actor, repository, "org:demo", name="1/demo-1.jar")
    removed = Repository.objects.get(pk=repository.pk).revision
    with pytest.raises(NotFound):
        contents.remove_file(actor, repository, "org:demo", name="1/demo-1.jar")
    contents.remove_file(actor, repository, "org:demo", name="1/demo-1.jar", purge=True)
    assert used(namespace) == 40
    assert_sound()
    assert undelete(repository, removed - 1, actor).restored
    live = Artifact.objects.filter(removed_revision=None).order_by("path")
    assert list(live.values_list("path", flat=True)) == ["1/demo-1-x.jar", "1/demo-1.pom"]
    contents.remove_file(actor, repository, "org:demo", name="1/demo-1.pom", purge=True)
    contents.remove_file(actor, repository, "org:demo", name="1/demo-1-x.jar", purge=True)
    assert used(namespace) == 0 and not Version.objects.exists()
    assert_sound()


def test_D10_purge_of_a_file_takes_its_version_where_that_cannot_be_without(blob_store, actor, namespace):
    repository = make_repository(namespace, "node", "npm")
    releases(repository, actor, 1, 3)
    contents.remove_file(actor, repository, "demo", name="demo-1.0.0.tgz")
    contents.remove_file(actor, repository, "demo", name="demo-1.0.0.tgz", purge=True)
    contents.remove_file(actor, repository, "demo", name="demo-2.0.0.tgz", purge=True)
    assert used(namespace) == 0 and not Version.objects.exists() and not Artifact.objects.exists()
    assert_sound()


def test_D10_purge_of_a_file_takes_what_stood_under_its_name_before(blob_store, actor, namespace):
    repository = make_repository(namespace, "raw", "generic")
    for data in (b"one", b"three", b"fourth"):
        put(repository, actor, "a.txt", data)
    contents.remove_file(actor, repository, "a.txt")
    contents.remove_file(actor, repository, "a.txt", purge=True)
    assert used(namespace) == 0
    assert_sound()


def test_D10_purge_of_an_image_in_the_trash_leaves_what_others_name(blob_store, actor, namespace):
    repository = make_repository(namespace)
    own, shared = push(repository, actor, b"own layer"), push(repository, actor, b"shared")
    digest = release(repository, actor, b"{1}", (own, shared), "v1")
    other = release(repository, actor, b"{2}", (shared,), "v2")
    remove_version(repository, actor, digest)
    contents.remove_versions(actor, repository, "app", version=digest, purge=True)
    assert used(namespace) == len(b"shared") + 3
    assert_sound()
    remove_version(repository, actor, other)
    contents.remove_versions(actor, repository, "app", everything=True, purge=True)
    assert used(namespace) == 0 and not Artifact.objects.exists()
    assert_sound()


def test_row_that_is_brought_back_between_look_and_lock_stays(blob_store, actor, namespace):
    repository = make_repository(namespace, "raw", "generic")
    put(repository, actor, "a.txt", b"content")
    with transaction.atomic():
        removed = remove_rows(
            namespace.pk, artifacts=[Artifact.objects.get().pk], still=Q(removed_revision__isnull=False)
        )
    assert removed.artifacts == 0 and used(namespace) == 7


def test_two_purges_beside_pushes_and_deletions_count_exactly(blob_store, actor, namespace):
    repository = make_repository(namespace, "raw", "generic")
    other = make_repository(namespace, "more", "generic")

    def write_and_delete(where: Repository, number: int) -> None:
        for turn in range(12):
            put(where, actor, f"{number}.txt", b"shared %d" % (turn % 3))
            if turn % 2:
                remove_file(where, actor, f"{number}.txt")

    def purges() -> None:
        for _ in range(10):
            for where in (repository, other):
                for revision in range(1, 30):
                    purge_revision(where, revision)

    acts = [lambda: write_and_delete(repository, 1), lambda: write_and_delete(other, 2), purges, purges]
    assert together(*acts) == [None] * 4
    assert_sound()
    purge(window_seconds=0)
    assert used(namespace) == 0
    assert_sound()


def delete(repository: Repository) -> JobRun:
    """What a DELETE of the repository does in its transaction."""
    with transaction.atomic(durable=True):
        Repository.objects.filter(pk=repository.pk).update(state=Repository.State.DELETING)
        return request("delete_repository", {"repository_id": repository.pk}, max_attempts=5)


def test_Q12_deleted_repository_goes_with_everything_in_it_and_nothing_else(blob_store, actor, namespace, monkeypatch):
    monkeypatch.setattr(purging, "BATCH", 3)
    kept = make_repository(namespace, "kept")
    doomed = make_repository(namespace, "doomed")
    shared = push(kept, actor, b"shared")
    release(kept, actor, b"{}", (shared,), "latest")
    for number in range(10):
        layers = (push(doomed, actor, b"shared"), push(doomed, actor, b"layer %d" % number))
        digest = release(doomed, actor, b"{%d}" % number, layers, f"v{number}", "latest")
        if number % 3 == 0:
            remove_version(doomed, actor, digest)
    begin_session(doomed, actor, b"half an upload")
    run = delete(doomed)
    assert runner.run_next()
    run.refresh_from_db()
    assert run.state == "succeeded", run.error
    assert (run.result["repositories"], run.result["versions"], run.result["uploads"]) == (1, 10, 1)
    assert list(Repository.objects.values_list("name", flat=True)) == ["kept"]
    assert Package.objects.count() == 1 and not Upload.objects.exists()
    assert used(namespace) == len(b"shared") + len(b"{}")
    namespace.refresh_from_db()
    assert namespace.reserved_bytes == 0
    assert Event.objects.filter(kind="repository:purge", repository="team/doomed").count() == 1
    assert_sound()
    collect(grace_seconds=0)
    assert len(objects(blob_store)) == 2


def test_Q12_deletion_that_was_killed_goes_on_where_it_stood(blob_store, actor, namespace, monkeypatch):
    monkeypatch.setattr(purging, "BATCH", 2)
    repository = make_repository(namespace)
    for number in range(7):
        release(repository, actor, b"{%d}" % number, (push(repository, actor, b"layer %d" % number),))
    delete(repository)
    steps: list[str] = []

    class Killed(BaseException):
        pass

    def progress(step: str, counts: object) -> None:
        steps.append(step)
        if len(steps) % 2 == 0:
            raise Killed

    for _ in range(100):
        try:
            drop_repository(repository.pk, progress=progress)
            break
        except Killed:
            assert_sound()
    assert not Repository.objects.exists() and not Holding.objects.exists() and used(namespace) == 0
    assert len(steps) > 5, "it was interrupted several times"


def test_repository_that_is_not_being_deleted_is_left_alone(blob_store, actor, namespace):
    repository = make_repository(namespace)
    push(repository, actor, b"layer")
    assert drop_repository(repository.pk) == {"repositories": 0}
    assert Artifact.objects.count() == 1


def test_deletion_whose_job_was_lost_is_asked_for_again(blob_store, actor, namespace):
    repository = make_repository(namespace)
    push(repository, actor, b"layer")
    Repository.objects.update(state=Repository.State.DELETING)
    for _ in range(2):
        assert delete_leftovers(lambda step, counts: None) == {"repositories": 1}
    assert JobRun.objects.count() == 1
    runner.run_all()
    assert not Repository.objects.exists() and used(namespace) == 0


def test_blob_that_is_being_published_elsewhere_holds_up_only_its_own_row(blob_store, actor, namespace, monkeypatch):
    repository = make_repository(namespace)
    push(repository, actor, b"busy")
    push(repository, actor, b"free")
    busy = Blob.objects.order_by("pk")[0].pk
    lock = purging.remove_rows.__globals__["lock_blobs"]
    monkeypatch.setitem(purging.remove_rows.__globals__, "lock_blobs", lambda keys: lock(keys) - {busy})
    Repository.objects.update(state=Repository.State.DELETING)
    with pytest.raises(Unavailable):
        drop_repository(repository.pk)
    assert [row.blob_id for row in Artifact.objects.all()] == [busy]
    assert used(namespace) == 4
    assert_sound()
    monkeypatch.undo()
    assert drop_repository(repository.pk)["repositories"] == 1


def test_other_namespaces_are_not_touched(blob_store, actor, namespace):
    other = Namespace.objects.create(name="other", created_at=clock.now())
    here, there = make_repository(namespace, "raw", "generic"), make_repository(other, "raw", "generic")
    for repository in (here, there):
        put(repository, actor, "a.txt", b"same")
    remove_file(here, actor, "a.txt")
    purge(window_seconds=0)
    assert used(namespace) == 0 and used(other) == 4
    assert_sound()
