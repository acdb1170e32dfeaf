"""Versions whose files are published one by one: when they are shown, whoever comes first, and what leaves with them."""

from __future__ import annotations

import datetime
import hashlib
from functools import partial
from typing import Any

import pytest

from formats.maven.samples import Coordinates
from repoman.blobs import store
from repoman.catalog import selectors
from repoman.catalog.models import Announced, Artifact, Package, Repository, Version
from repoman.core import clock
from repoman.core.actor import ALL_ACTIONS, Action, Actor
from repoman.core.errors import Conflict, ContentInvalid, Forbidden
from repoman.core.records import Gather, NewFile, Publication
from repoman.core.refs import FileRef, ListingRef, VersionRef
from repoman.events.models import Event
from repoman.services import announced, delete, publish
from repoman.services.collect import collect
from repoman.services.handle import RepositoryHandle
from repoman.services.purge import purge
from repoman.services.undelete import undelete
from repoman.sources.local import LocalSource

from .content import age, assert_sound, make_repository, together

pytestmark = pytest.mark.django_db(transaction=True)
DEMO = Coordinates()
POM = {"pom": {"packaging": "jar"}}


@pytest.fixture
def maven(namespace: Any, blob_store: Any) -> Repository:
    return make_repository(namespace, "java", "maven")


def put(
    repository: Repository,
    actor: Actor,
    name: str,
    data: bytes = b"",
    *,
    version: str = "1.0",
    metadata: dict[str, Any] | None = None,
    actions: frozenset[Action] = ALL_ACTIONS,
    whole: bool = False,
    **more: Any,
) -> Any:
    path = f"{version}/{name}"
    new = NewFile(path, store.stage(data or path.encode()), metadata=metadata or {}, **more)
    gather = Gather(version, f"{version}/", is_whole=whole)
    return publish.publish(repository, actor, actions, Publication(DEMO.package, files=(new,), gather=(gather,)))


def shown(repository: Repository) -> dict[str, list[str]]:
    """Version → its files, as the catalog lists them."""
    found = selectors.versions(repository.pk, DEMO.package)
    return {entry.name: [file.path for file in entry.files] for entry in found.entries} if found else {}


def test_a_version_is_shown_when_it_is_complete_and_takes_what_comes_later(maven: Repository, actor: Actor) -> None:
    put(maven, actor, "demo-1.0-sources.jar")
    put(maven, actor, "demo-1.0.jar")
    assert shown(maven) == {}
    assert LocalSource(maven).open(FileRef(DEMO.package, "1.0/demo-1.0.jar")).blob.size
    assert_sound()
    put(maven, actor, "demo-1.0.pom", metadata=POM)
    assert shown(maven) == {"1.0": ["1.0/demo-1.0-sources.jar", "1.0/demo-1.0.jar", "1.0/demo-1.0.pom"]}
    put(maven, actor, "demo-1.0-javadoc.jar")
    assert "1.0/demo-1.0-javadoc.jar" in shown(maven)["1.0"]
    assert Version.objects.get().metadata == {"packaging": "jar"}
    assert Event.objects.filter(kind="version:publish").count() == 1
    assert_sound()


def test_saying_that_it_is_whole_shows_it_and_without_files_leaves_no_trace(maven: Repository, actor: Actor) -> None:
    put(maven, actor, "demo-1.0.jar", whole=True)
    assert shown(maven) == {"1.0": ["1.0/demo-1.0.jar"]}
    before = Repository.objects.get(pk=maven.pk).revision
    publish.publish(
        maven, actor, ALL_ACTIONS, Publication(DEMO.package, gather=(Gather("2.0", "2.0/", is_whole=True),))
    )
    assert shown(maven).keys() == {"1.0"} and Repository.objects.get(pk=maven.pk).revision == before


def test_M1_a_file_has_the_digests_that_were_told_before_it_came(maven: Repository, actor: Actor) -> None:
    ref = FileRef(DEMO.package, "1.0/demo-1.0.jar")
    for algorithm in ("sha1", "sha512"):  # what was not hashed on the way is hashed then
        assert announced.announce(maven, ref, algorithm, "0" * 40)
        with pytest.raises(ContentInvalid, match="nothing was stored") as raised:
            put(maven, actor, "demo-1.0.jar", b"bytes")
        actual = hashlib.new(algorithm, b"bytes").hexdigest()
        assert raised.value.detail == {"expected": "0" * 40, "actual": actual}
        assert announced.announce(maven, ref, algorithm, actual)
    assert not Artifact.objects.exists() and not Package.objects.exists()
    put(maven, actor, "demo-1.0.jar", b"bytes")
    assert not announced.announce(maven, ref, "sha1", "0" * 40) and not Announced.objects.exists()
    assert_sound()


def test_a_digest_that_was_told_counts_for_a_while_and_is_then_forgotten(
    maven: Repository, actor: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref, other = FileRef(DEMO.package, "1.0/demo-1.0.jar"), FileRef(DEMO.package, "1.0/demo-1.0.pom")
    announced.announce(maven, ref, "sha1", "0" * 40)
    later = clock.now() + announced.KEPT + datetime.timedelta(seconds=1)
    monkeypatch.setattr(clock, "now", lambda: later)
    assert announced.of(maven, ref) == {}
    put(maven, actor, "demo-1.0.jar", b"of another build")
    announced.announce(maven, other, "sha1", "1" * 40)
    assert list(Announced.objects.values_list("path", flat=True)) == [other.path]
    assert announced.retract(maven, other, "sha1") and not announced.retract(maven, other, "sha1")


def test_W3_the_last_of_several_who_come_at_once_shows_the_version(maven: Repository, actor: Actor) -> None:
    """Neither may have looked before the other committed."""
    for number in range(10):
        version = f"{number}.0"
        raised = together(
            *(
                lambda name=name, version=version, metadata=metadata: put(
                    maven, actor, f"demo-{version}{name}", version=version, metadata=metadata
                )
                for name, metadata in ((".jar", {}), (".pom", POM), ("-sources.jar", {}))
            )
        )
        assert raised == [None] * 3
        assert len(shown(maven)[version]) == 3
    assert_sound()


def test_paths_that_move_are_replaced_by_who_may_publish_and_others_are_not(maven: Repository, actor: Actor) -> None:
    only = frozenset({Action.READ, Action.PUBLISH})
    name, version = "demo-1.0-SNAPSHOT.jar", "1.0-SNAPSHOT"
    put(maven, actor, name, b"one", version=version, actions=only, is_moving=True, whole=True)
    assert put(maven, actor, name, b"two", version=version, actions=only, is_moving=True).replaced
    assert LocalSource(maven).open(FileRef(DEMO.package, f"{version}/{name}")).blob.size == 3
    assert shown(maven) == {version: [f"{version}/{name}"]}
    put(maven, actor, "demo-1.0.jar", b"one")
    with pytest.raises(Conflict):
        put(maven, actor, "demo-1.0.jar", b"two")
    with pytest.raises(Forbidden):
        new = NewFile("1.0/demo-1.0.jar", store.stage(b"two"))
        publish.publish(maven, actor, only, Publication(DEMO.package, files=(new,), may_replace=True))
    assert_sound()


def test_builds_beyond_those_to_be_kept_leave_and_what_nothing_replaces_stays(
    namespace: Any, blob_store: Any, actor: Actor
) -> None:
    maven = make_repository(namespace, "kept", "maven", options={"keep_snapshots": 2})
    version = "1.0-SNAPSHOT"
    for number in range(1, 5):
        build = f"demo-1.0-2024010{number}.030405-{number}"
        if number == 1:
            put(maven, actor, f"{build}-sources.jar", version=version)
        put(maven, actor, f"{build}.jar", version=version)
        put(maven, actor, f"{build}.pom", version=version, metadata=POM)
    kept = [path.partition("/")[2].removeprefix("demo-1.0-") for path in shown(maven)[version]]
    assert kept == [
        "20240101.030405-1-sources.jar",
        "20240103.030405-3.jar",
        "20240103.030405-3.pom",
        "20240104.030405-4.jar",
        "20240104.030405-4.pom",
    ]
    assert Event.objects.filter(kind="file:expire").count() == 4
    assert_sound()


def test_removing_and_bringing_back_a_version_with_all_its_parts(maven: Repository, actor: Actor) -> None:
    for name, metadata in (("demo-1.0.jar", {}), ("demo-1.0.pom", POM), ("demo-1.0.jar.asc", {})):
        put(maven, actor, name, metadata=metadata)
    before = shown(maven)
    revision = delete.remove_version(maven, actor, VersionRef(DEMO.package, "1.0"))
    assert shown(maven) == {} and not Artifact.objects.filter(removed_revision=None).exists()
    undelete(maven, revision, actor)
    assert shown(maven) == before
    delete.remove_file(maven, actor, FileRef(DEMO.package, "1.0/demo-1.0.jar"))
    assert shown(maven) == {"1.0": ["1.0/demo-1.0.pom"]}, "its signature goes with it"
    put(maven, actor, "demo-1.0.jar", b"other bytes")
    assert shown(maven) == {"1.0": ["1.0/demo-1.0.jar", "1.0/demo-1.0.pom"]}
    assert_sound()


def test_R3_files_of_a_version_that_is_not_shown_are_nobodys_to_collect(
    maven: Repository, actor: Actor, blob_store: Any
) -> None:
    put(maven, actor, "demo-1.0.jar", b"acknowledged")
    age(10**7, blob_store)
    purge(window_seconds=0)
    collect(grace_seconds=0)
    with store.reader(LocalSource(maven).open(FileRef(DEMO.package, "1.0/demo-1.0.jar")).blob) as opened:
        assert opened.pread(0, 100) == b"acknowledged"
    assert_sound()


def test_listings_without_files_and_of_one_version_say_what_the_whole_says(maven: Repository, actor: Actor) -> None:
    for version in ("1.0", "1.1"):
        put(maven, actor, f"demo-{version}.jar", version=version)
        put(maven, actor, f"demo-{version}.pom", version=version, metadata=POM)
    source = LocalSource(maven)
    whole = source.listing(ListingRef("versions", DEMO.package))
    names = source.listing(ListingRef("releases", DEMO.package))
    assert [entry.name for entry in names.entries] == [entry.name for entry in whole.entries] == ["1.0", "1.1"]
    assert names.changed_at == whole.changed_at and names.revision == whole.revision
    one = source.listing(ListingRef("version", DEMO.package, arguments=(("version", "1.1"),)))
    assert [(file.path, file.size, file.digests) for file in one.entries[0].files] == [
        (file.path, file.size, file.digests) for file in whole.entries[1].files
    ]
    files = source.listing(ListingRef("files", DEMO.package, arguments=(("under", "1.1/"),)))
    assert [entry.name for entry in files.entries] == ["1.1/demo-1.1.jar", "1.1/demo-1.1.pom"]
    under = source.listing(ListingRef("packages", arguments=(("under", "org.example:"),)))
    assert [entry.name for entry in under.entries] == [DEMO.package]
    assert source.listing(ListingRef("packages", arguments=(("under", "org.exampl:"),))).entries == ()
    for kind in ("releases", "version"):
        about = ListingRef(kind, DEMO.package, arguments=(("version", "1.0"),))
        mark = source.mark(about)
        assert mark == source.mark(about)
    put(maven, actor, "demo-1.1-sources.jar", version="1.1")
    assert source.mark(about) != mark


def test_other_digests_are_computed_once_and_remembered(maven: Repository, actor: Actor) -> None:
    put(maven, actor, "demo-1.0.jar", b"bytes", metadata={"sha1": hashlib.sha1(b"bytes").hexdigest()})
    handle = RepositoryHandle(actor, maven)
    ref = FileRef(DEMO.package, "1.0/demo-1.0.jar")
    for algorithm in ("sha256", "sha1", "sha512", "sha512"):
        assert handle.digest(ref, algorithm) == hashlib.new(algorithm, b"bytes").hexdigest()
    assert store.other_digest(handle.open(ref).blob, "sha512") == hashlib.sha512(b"bytes").hexdigest()


def test_G5_what_is_kept_of_a_package_by_many_at_once_is_all_kept(maven: Repository, actor: Actor) -> None:
    put(maven, actor, "demo-1.0.jar")

    def keep(number: int) -> None:
        kept = Publication(DEMO.package, package_metadata={f"plugin {number}": {"prefix": "p", "name": "n"}})
        publish.publish(maven, actor, ALL_ACTIONS, kept)

    assert together(*(partial(keep, number) for number in range(8))) == [None] * 8
    assert len(Package.objects.get().metadata) == 8
    assert_sound()
