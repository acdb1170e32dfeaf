"""Undelete where versions own their files: what one revision removed comes back, no more, and never a file by itself."""

from __future__ import annotations

from typing import Any

import pytest

from repoman.blobs import store
from repoman.catalog import selectors
from repoman.catalog.models import Artifact, Burned, Repository, Tag, Version
from repoman.core.actor import ALL_ACTIONS, Actor
from repoman.core.errors import Conflict
from repoman.core.records import Listing, NewFile, NewVersion, Publication
from repoman.core.refs import FileRef, VersionRef
from repoman.services import delete, publish
from repoman.services.purge import purge
from repoman.services.undelete import undelete

from .content import assert_sound, make_repository

pytestmark = pytest.mark.django_db(transaction=True)
SDIST, WHEEL, OTHER = "demo-1.0.tar.gz", "demo-1.0-py3-none-any.whl", "demo-1.0-cp311-none-any.whl"


@pytest.fixture
def python(namespace: Any, blob_store: Any) -> Repository:
    return make_repository(namespace, "python", "pypi")


@pytest.fixture
def node(namespace: Any, blob_store: Any) -> Repository:
    return make_repository(namespace, "node", "npm")


def release(repository: Repository, actor: Actor, version: str, *paths: str, **more: Any) -> None:
    new = tuple(NewFile(path, store.stage(path.encode())) for path in paths)
    publication = Publication("demo", files=new, version=NewVersion(version, files=paths), **more)
    publish.publish(repository, actor, ALL_ACTIONS, publication)


def listed(repository: Repository) -> dict[str, list[str]]:
    found = selectors.versions(repository.pk, "demo")
    return {entry.name: [file.path for file in entry.files] for entry in (found or Listing(())).entries}


def test_a_file_that_another_revision_removed_stays_removed(python: Repository, actor: Actor) -> None:
    release(python, actor, "1.0", SDIST, WHEEL)
    first = delete.remove_file(python, actor, FileRef("demo", WHEEL))
    second = delete.remove_file(python, actor, FileRef("demo", SDIST))
    undelete(python, first, actor)
    assert listed(python) == {"1.0": [WHEEL]}
    assert set(Burned.objects.values_list("name", flat=True)) == {SDIST}
    assert_sound()
    undelete(python, second, actor)
    assert listed(python) == {"1.0": [WHEEL, SDIST]} and not Burned.objects.exists()
    assert_sound()


def test_a_file_that_another_revision_removed_stays_removed_from_a_live_version(
    python: Repository, actor: Actor
) -> None:
    release(python, actor, "1.0", SDIST, WHEEL, OTHER)
    first = delete.remove_file(python, actor, FileRef("demo", WHEEL))
    delete.remove_file(python, actor, FileRef("demo", SDIST))
    undelete(python, first, actor)
    assert listed(python) == {"1.0": [OTHER, WHEEL]}
    assert_sound()


@pytest.mark.parametrize("kind", ["version", "file"])
def test_Q5_a_purge_that_was_cut_off_leaves_no_files_to_bring_back(
    node: Repository, python: Repository, actor: Actor, kind: str
) -> None:
    """Versions go first; killed then, the trash holds files that nothing names any more."""
    repository = node if kind == "version" else python
    release(repository, actor, "1.0", SDIST, WHEEL)
    if kind == "version":
        removed = delete.remove_version(repository, actor, VersionRef("demo", "1.0"))
    else:
        removed = delete.remove_file(repository, actor, FileRef("demo", WHEEL))

    def killed(step: str, counts: object) -> None:
        if step == "versions":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        purge(window_seconds=0, progress=killed)
    assert not Version.objects.filter(removed_revision=removed).exists()
    assert Artifact.objects.filter(removed_revision=removed).exists()
    outcome = undelete(repository, removed, actor)
    assert outcome.restored == [] and {one["reason"] for one in outcome.skipped} == {"its version is gone"}
    assert_sound()
    with pytest.raises(Conflict):
        release(repository, actor, "1.0", WHEEL)


def test_what_comes_back_comes_with_its_files_and_tags(node: Repository, actor: Actor) -> None:
    release(node, actor, "1.0", SDIST, tags=("latest",))
    removed = delete.remove_version(node, actor, VersionRef("demo", "1.0"))
    outcome = undelete(node, removed, actor)
    assert {one["kind"] for one in outcome.restored} == {"file", "version", "tag"}
    assert Tag.objects.filter(removed_revision=None).count() == 1 and not Burned.objects.exists()
    assert_sound()


def test_W2_a_version_goes_with_any_of_its_files_where_versions_burn(node: Repository, actor: Actor) -> None:
    release(node, actor, "1.0", SDIST, f"{SDIST}.attestations.json", "beside.json")
    removed = delete.remove_file(node, actor, FileRef("demo", SDIST))
    assert listed(node) == {}
    for path in (WHEEL, SDIST):
        with pytest.raises(Conflict):
            release(node, actor, "1.0", path)
    undelete(node, removed, actor)
    assert len(listed(node)["1.0"]) == 3 and not Burned.objects.exists()
    assert_sound()
