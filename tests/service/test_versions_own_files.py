"""Formats whose versions own their files: what publishing, removing, bringing back and noting does to rows."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from repoman.blobs import store
from repoman.catalog import selectors
from repoman.catalog.models import Artifact, Burned, Package, Repository, Version
from repoman.core.actor import ALL_ACTIONS, Actor
from repoman.core.errors import BadRequest, Conflict, MethodNotAllowed, VersionNotFound
from repoman.core.records import Gather, Listing, NewFile, NewVersion, Publication
from repoman.core.refs import FileRef, TagRef, VersionRef
from repoman.events.models import Event
from repoman.services import annotate, delete, publish
from repoman.services.fsck import fsck
from repoman.services.purge import purge
from repoman.services.undelete import undelete

from .content import make_repository

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def python(namespace: Any, blob_store: Any) -> Repository:
    return make_repository(namespace, "python", "pypi")


@pytest.fixture
def node(namespace: Any, blob_store: Any) -> Repository:
    return make_repository(namespace, "node", "npm")


def release(
    repository: Repository, actor: Actor, package: str, version: str, files: dict[str, bytes], **more: Any
) -> Any:
    new = tuple(NewFile(path, store.stage(data)) for path, data in files.items())
    publication = Publication(package, files=new, version=NewVersion(version, files=tuple(files)), **more)
    return publish.publish(repository, actor, ALL_ACTIONS, publication)


def listed(repository: Repository, package: str) -> dict[str, list[str]]:
    found = selectors.versions(repository.pk, package)
    return {entry.name: [file.path for file in entry.files] for entry in (found or Listing(())).entries}


def revision(repository: Repository, package: str) -> int:
    return Package.objects.get(repository=repository, name=package).revision


def test_a_version_takes_files_of_later_publications(python: Repository, actor: Actor) -> None:
    assert release(python, actor, "demo", "1.0", {"demo-1.0.tar.gz": b"sdist"}).created
    assert release(python, actor, "demo", "1.0", {"demo-1.0-py3-none-any.whl": b"wheel"}).created
    assert listed(python, "demo") == {"1.0": ["demo-1.0-py3-none-any.whl", "demo-1.0.tar.gz"]}
    assert Version.objects.count() == 1 and revision(python, "demo") == 2
    again = release(python, actor, "demo", "1.0", {"demo-1.0.tar.gz": b"sdist"})
    assert not again.created and revision(python, "demo") == 2
    with pytest.raises(Conflict):
        release(python, actor, "demo", "1.0", {"demo-1.0.tar.gz": b"other"})
    assert not fsck().problems


def test_a_removed_file_takes_what_lies_beside_it_and_its_name_stays_used(python: Repository, actor: Actor) -> None:
    wheel = "demo-1.0-py3-none-any.whl"
    release(python, actor, "demo", "1.0", {wheel: b"wheel", f"{wheel}.metadata": b"meta", "demo-1.0.tar.gz": b"sdist"})
    removed = delete.remove_file(python, actor, FileRef("demo", wheel))
    assert listed(python, "demo") == {"1.0": ["demo-1.0.tar.gz"]} and revision(python, "demo") == removed
    for data in (b"wheel", b"other"):
        with pytest.raises(Conflict, match="undelete"):
            release(python, actor, "demo", "1.0", {wheel: data})
    purge(window_seconds=0)
    with pytest.raises(Conflict):
        release(python, actor, "demo", "1.0", {wheel: b"other"})
    assert not fsck().problems
    delete.remove_file(python, actor, FileRef("demo", "demo-1.0.tar.gz"))
    assert listed(python, "demo") == {} and not Version.objects.filter(removed_revision=None).exists()


def test_what_was_removed_comes_back_into_its_version(python: Repository, actor: Actor) -> None:
    wheel = "demo-1.0-py3-none-any.whl"
    release(python, actor, "demo", "1.0", {wheel: b"wheel", "demo-1.0.tar.gz": b"sdist"})
    removed = delete.remove_file(python, actor, FileRef("demo", wheel))
    undelete(python, removed, actor)
    assert listed(python, "demo") == {"1.0": [wheel, "demo-1.0.tar.gz"]}
    assert not Burned.objects.exists() and not fsck().problems
    gone = delete.remove_version(python, actor, VersionRef("demo", "1.0"))
    assert listed(python, "demo") == {} and not Artifact.objects.filter(removed_revision=None).exists()
    undelete(python, gone, actor)
    assert listed(python, "demo") == {"1.0": [wheel, "demo-1.0.tar.gz"]}
    assert not Burned.objects.exists() and not fsck().problems


def test_a_removed_version_stays_used_and_several_go_under_one_revision(node: Repository, actor: Actor) -> None:
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        files = {f"demo-{version}.tgz": version.encode()}
        release(node, actor, "demo", version, files, tags=("latest",), default_tags=("latest",))
    stale = revision(node, "demo") - 1
    with pytest.raises(Conflict, match="meanwhile"):
        delete.remove_versions(node, actor, "demo", ["1.0.0"], if_revision=stale)
    before = node.__class__.objects.get(pk=node.pk).revision
    gone = delete.remove_versions(node, actor, "demo", ["1.0.0", "2.0.0", "9.9.9"], if_revision=revision(node, "demo"))
    assert gone == before + 1 and listed(node, "demo") == {"1.1.0": ["demo-1.1.0.tgz"]}
    assert set(Burned.objects.values_list("name", flat=True)) == {"1.0.0", "2.0.0"}
    with pytest.raises(Conflict):
        release(node, actor, "demo", "2.0.0", {"demo-2.0.0.tgz": b"2.0.0"})
    assert delete.remove_versions(node, actor, "demo", ["9.9.9"]) is None
    assert Event.objects.filter(kind="version:delete").count() == 2
    assert not fsck().problems


def test_default_tags_are_set_once(node: Repository, actor: Actor) -> None:
    release(node, actor, "demo", "1.0.0", {"a.tgz": b"1"}, tags=("beta",), default_tags=("latest",))
    release(node, actor, "demo", "2.0.0", {"b.tgz": b"2"}, tags=("beta",), default_tags=("latest",))
    found = selectors.versions(node.pk, "demo")
    assert found is not None and found.tags == {"beta": "2.0.0", "latest": "1.0.0"}
    publish.set_tag(node, actor, TagRef("demo", "latest"), "2.0.0")
    with pytest.raises(VersionNotFound):
        publish.set_tag(node, actor, TagRef("demo", "latest"), "3.0.0")


def test_a8_a_name_that_differs_by_case_is_refused(node: Repository, actor: Actor) -> None:
    release(node, actor, "demo", "1.0.0", {"a.tgz": b"1"})
    with pytest.raises(Conflict, match="case"):
        release(node, actor, "Demo", "1.0.0", {"a.tgz": b"1"})
    assert not Package.objects.filter(name="Demo").exists()


def test_notes_change_only_what_they_name(node: Repository, python: Repository, actor: Actor) -> None:
    for version in ("1.0.0", "2.0.0"):
        release(node, actor, "demo", version, {f"{version}.tgz": version.encode()})
    first = annotate.annotate(node, actor, "demo", {"1.0.0": {"deprecated": "old"}, "2.0.0": {"deprecated": ""}})
    assert first == revision(node, "demo")
    assert annotate.annotate(node, actor, "demo", {"1.0.0": {"deprecated": "old"}}) is None
    found = selectors.versions(node.pk, "demo")
    assert found is not None and [entry.deprecated for entry in found.entries] == ["old", ""]
    with pytest.raises(VersionNotFound):
        annotate.annotate(node, actor, "demo", {"1.0.0": {"deprecated": "x"}, "9.0.0": {"deprecated": "x"}})
    with pytest.raises(MethodNotAllowed):
        annotate.annotate(node, actor, "demo", {"1.0.0": {"yanked": True}})
    with pytest.raises(BadRequest):
        annotate.annotate(node, actor, "demo", {"1.0.0": {"deprecated": "x" * 5000}})
    release(python, actor, "demo", "1.0", {"demo-1.0.tar.gz": b"sdist"})
    annotate.annotate(python, actor, "demo", {"1.0": {"yanked": True, "yanked_reason": "broken"}})
    row = Version.objects.get(package__repository=python)
    assert row.is_yanked and row.yanked_reason == "broken"
    annotate.annotate(python, actor, "demo", {"1.0": {"yanked": False}})
    row.refresh_from_db()
    assert not row.is_yanked and row.yanked_reason == ""
    assert Event.objects.filter(kind="version:annotate").count() == 3


# --- files that come one by one, are replaced, expire ----------------------------------------------------------------


@pytest.fixture
def java(namespace: Any, blob_store: Any) -> Repository:
    return make_repository(namespace, "java", "maven")


def put(repository: Repository, actor: Actor, path: str, data: bytes, **more: Any) -> Any:
    metadata = {"pom": {"packaging": "jar", "name": data.decode()}} if path.endswith(".pom") else {}
    version = path.partition("/")[0]
    new = NewFile(path, store.stage(data), metadata=metadata, is_moving=version.endswith("SNAPSHOT"))
    publication = Publication("g:a", files=(new,), gather=(Gather(version, f"{version}/"),), **more)
    return publish.publish(repository, actor, ALL_ACTIONS, publication)


def live(repository: Repository) -> dict[str, list[str]]:
    return listed(repository, "g:a")


def test_maven_s5_v5_a_replaced_file_takes_the_old_ones_place_in_its_version(java: Repository, actor: Actor) -> None:
    put(java, actor, "1/a-1.pom", b"one")
    put(java, actor, "1/a-1.jar", b"one")
    put(java, actor, "1/a-1-x.jar", b"x")
    first = Version.objects.get(removed_revision=None)
    changed = put(java, actor, "1/a-1.jar", b"two", may_replace=True)
    assert live(java) == {"1": ["1/a-1-x.jar", "1/a-1.jar", "1/a-1.pom"]}
    second = Version.objects.get(removed_revision=None)
    assert (second.first_seen_at, second.added_revision) == (first.first_seen_at, changed.revision)
    first.refresh_from_db()
    assert first.removed_revision == changed.revision and first.artifacts.count() == 3, "history stays"
    assert second.artifacts.filter(removed_revision=None).count() == second.artifacts.count() == 3
    assert not fsck().problems
    undelete(java, changed.revision, actor)
    assert live(java) == {"1": ["1/a-1-x.jar", "1/a-1.jar", "1/a-1.pom"]}
    assert selectors.live_artifact(java.pk, "g:a", "1/a-1.jar").blob.digest == hashlib.sha256(b"two").hexdigest()  # type: ignore[union-attr]
    assert not fsck().problems


def test_maven_e20_a_version_says_what_the_pom_that_came_last_says(java: Repository, actor: Actor) -> None:
    put(java, actor, "1/a-1.jar", b"jar")
    publish.publish(java, actor, ALL_ACTIONS, Publication("g:a", gather=(Gather("1", "1/", is_whole=True),)))
    assert Version.objects.get(removed_revision=None).metadata == {}
    before = revision(java, "g:a")
    put(java, actor, "1/a-1.pom", b"named")
    assert Version.objects.get(removed_revision=None).metadata == {"packaging": "jar", "name": "named"}
    assert revision(java, "g:a") == before + 1
    again = put(java, actor, "1/a-1.pom", b"named")
    assert revision(java, "g:a") == before + 1 and not again.created


def test_maven_v6_q10_expired_builds_are_in_the_trash_and_their_bytes_leave_with_it(
    java: Repository, actor: Actor
) -> None:
    java.options = {"keep_snapshots": 1}
    java.save()
    builds = [f"20240{number}01.000000-{number}" for number in (1, 2, 3)]
    for build in builds:
        for kind in ("jar", "pom"):
            put(java, actor, f"1-SNAPSHOT/a-1-{build}.{kind}", f"{build} {kind}".encode())
    assert live(java) == {"1-SNAPSHOT": [f"1-SNAPSHOT/a-1-{builds[2]}.{kind}" for kind in ("jar", "pom")]}
    assert Event.objects.filter(kind="file:expire").count() == 4
    assert not fsck().problems
    closed = Artifact.objects.filter(path__contains=builds[1]).values_list("removed_revision", flat=True)
    undelete(java, closed[0], actor)
    assert len(live(java)["1-SNAPSHOT"]) == 4 and not fsck().problems
    put(java, actor, f"1-SNAPSHOT/a-1-{builds[2]}-x.jar", b"x")
    assert len(live(java)["1-SNAPSHOT"]) == 3
    purge(window_seconds=0)
    assert Artifact.objects.count() == 3 and Version.objects.count() == 1
    assert not fsck().problems


def test_maven_a2_what_lies_beside_a_file_goes_with_it_also_before_its_version(java: Repository, actor: Actor) -> None:
    for name in ("a-1.tar", "a-1.tar.gz", "a-1.tar.asc", "a-1.tar.asc.sha1x"):
        put(java, actor, f"1/{name}", name.encode())
    delete.remove_file(java, actor, FileRef("g:a", "1/a-1.tar"))
    assert sorted(Artifact.objects.filter(removed_revision=None).values_list("path", flat=True)) == [
        "1/a-1.tar.asc.sha1x",
        "1/a-1.tar.gz",
    ]
    assert not fsck().problems
