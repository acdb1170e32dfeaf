"""Formats whose versions own their files: what publishing, removing, bringing back and noting does to rows."""

from __future__ import annotations

from typing import Any

import pytest

from repoman.blobs import store
from repoman.catalog import selectors
from repoman.catalog.models import Artifact, Burned, Package, Repository, Version
from repoman.core.actor import ALL_ACTIONS, Actor
from repoman.core.errors import BadRequest, Conflict, MethodNotAllowed, VersionNotFound
from repoman.core.records import Listing, NewFile, NewVersion, Publication
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
