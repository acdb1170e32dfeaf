"""Each invariant, broken by hand: found, named, repaired where nothing is lost by it, and no false alarm otherwise."""

from __future__ import annotations

import datetime
import json
import os
import random
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import F

from repoman.blobs import store
from repoman.blobs.models import Blob, Tombstone, Upload
from repoman.catalog import selectors
from repoman.catalog.models import Artifact, Burned, Holding, Namespace, Package, Repository, Tag, Version
from repoman.core import clock
from repoman.core.actor import ALL_ACTIONS
from repoman.core.errors import FileNotFound, Unavailable
from repoman.core.fetch import Outcome, Plan
from repoman.core.records import Entry, ListedFile, Listing, NewFile, NewVersion, Publication
from repoman.core.refs import ListingRef
from repoman.services.adopt import adopt
from repoman.services.collect import collect
from repoman.services.expire import expire_uploads
from repoman.services.fsck import CHECKS, Report, descriptions, fsck
from repoman.services.publish import publish
from repoman.services.purge import purge
from repoman.sources.models import Fill, UpstreamDocument
from repoman.sources.records import dump_listing
from repoman.sources.remote import plan_key

from .content import (
    age,
    assert_sound,
    begin_session,
    make_repository,
    objects,
    push,
    put,
    release,
    remove_file,
    remove_version,
    together,
    used,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def repository(blob_store, actor, namespace) -> Repository:
    """A little of everything: a tagged version with a layer, one in the trash, a lone layer, files, a session."""
    images, raw = make_repository(namespace), make_repository(namespace, "raw", "generic")
    layer = push(images, actor, b"layer")
    release(images, actor, b"{1}", (layer,), "latest")
    remove_version(images, actor, release(images, actor, b"{2}", (layer,)))
    push(images, actor, b"lone layer")
    put(raw, actor, "a.txt", b"layer")
    put(raw, actor, "b.txt", b"first")
    put(raw, actor, "b.txt", b"second")
    begin_session(images, actor, b"half an upload")
    return images


def found(report: Report) -> list[tuple[str, str]]:
    return [(problem.check, problem.message) for problem in report.problems]


def blob_of(data: bytes) -> Blob:
    import hashlib

    return Blob.objects.get(digest=hashlib.sha256(data).hexdigest())


def path_of(driver: Any, blob: Blob) -> str:
    return f"{driver.root}/{blob.storage_key}"


def damage(path: str, change: Callable[[bytearray], bytearray], *, keep_time: bool = True) -> None:
    before = os.stat(path)
    with open(path, "rb") as file:
        data = change(bytearray(file.read()))
    with open(path, "wb") as file:
        file.write(data)
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def flip(data: bytearray) -> bytearray:
    data[0] ^= 1
    return data


def test_all_is_well_where_all_is_well(repository):
    report = fsck(rehash=True)
    assert not report.problems and report.remaining == 0
    assert set(report.checked) == {check.__name__ for check in CHECKS}
    assert report.checked["blob_bytes"] == Blob.objects.count()
    assert report.hashed_bytes == sum(Blob.objects.values_list("size", flat=True))
    assert not Blob.objects.filter(verified_at=None).exists()


def test_C4_flipped_bit_is_found_by_rehash_and_names_every_artifact(repository, blob_store):
    blob = blob_of(b"layer")
    damage(path_of(blob_store, blob), flip)
    assert not fsck().problems, "size and time are unchanged: only reading shows it"
    report = fsck(rehash=True)
    (problem,) = report.problems
    assert problem.check == "blob_bytes" and problem.subject == f"sha256:{blob.digest}"
    assert problem.affected == [f"team/images app sha256:{blob.digest}", "team/raw a.txt"]
    assert fsck(rehash=True, repair=True).remaining == 1
    blob.refresh_from_db()
    assert blob.state == Blob.State.SUSPECT
    assert fsck().remaining == 1, "it stays a problem until the bytes are back"


def test_C5_missing_and_short_objects_are_found_without_reading(repository, blob_store, actor):
    missing, short = blob_of(b"{2}"), blob_of(b"second")
    os.unlink(path_of(blob_store, missing))
    damage(path_of(blob_store, short), lambda data: data[:-1])
    report = fsck(repair=True)
    assert sorted(problem.message for problem in report.problems) == [
        "its object has 5 bytes instead of 6",
        "its object is missing from the store",
    ]
    affected = [name for problem in report.problems for name in problem.affected]
    assert sorted(affected) == [f"team/images app sha256:{missing.digest} (trash)", "team/raw b.txt"]
    assert report.remaining == 2
    put(Repository.objects.get(name="raw"), actor, "b.txt", b"second")  # the same bytes again heal it
    assert [problem.subject for problem in fsck().problems] == [f"sha256:{missing.digest}"]


def test_stamp_over_the_right_bytes_is_put_right_and_suspects_that_are_intact_are_restored(repository, blob_store):
    os.utime(path_of(blob_store, blob_of(b"layer")))
    Blob.objects.filter(pk=blob_of(b"second").pk).update(state=Blob.State.SUSPECT)
    report = fsck(repair=True)
    assert len(report.problems) == 2 and report.remaining == 0
    assert not fsck().problems
    assert not Blob.objects.filter(state=Blob.State.SUSPECT).exists()


def test_stamp_over_other_bytes_of_the_same_size_is_found_without_rehash(repository, blob_store):
    damage(path_of(blob_store, blob_of(b"layer")), flip, keep_time=False)
    (problem,) = fsck().problems
    assert "bytes have the digest" in problem.message


def test_M11_random_damage_is_all_found_and_nothing_else(repository, blob_store, actor):
    raw = Repository.objects.get(name="raw")
    for number in range(40):
        put(raw, actor, f"many/{number}.bin", b"%d " % number * (number + 1))
    rng = random.Random(7)
    victims = rng.sample(sorted(Blob.objects.values_list("storage_key", flat=True)), 12)
    for number, key in enumerate(victims):
        path = f"{blob_store.root}/{key}"
        if number % 3 == 0:
            os.unlink(path)
        else:
            damage(path, flip if number % 3 == 1 else lambda data: data[:-1])
    report = fsck(rehash=True)
    expected = {
        f"sha256:{digest}" for digest in Blob.objects.filter(storage_key__in=victims).values_list("digest", flat=True)
    }
    assert {problem.subject for problem in report.problems} == expected
    assert len(report.problems) == 12 and all(problem.affected for problem in report.problems)


def test_Q9_objects_without_rows_are_told_apart_by_age_and_removed_on_request(repository, blob_store):
    store.stage(b"left behind")
    assert fsck().notices["objects_in_grace"].count == 1
    age(10**7, blob_store)
    report = fsck()
    assert not report.problems and report.notices["objects_without_row"].bytes == len(b"left behind")
    count = len(objects(blob_store))
    fsck(repair=True)
    assert len(objects(blob_store)) == count - 1
    assert not fsck().notices


def test_missing_holding_is_made_and_counted(repository, namespace):
    before = used(namespace)
    size = blob_of(b"layer").size
    Holding.objects.filter(blob=blob_of(b"layer")).delete()
    Namespace.objects.update(used_bytes=F("used_bytes") - size)
    report = fsck(repair=True)
    assert {check for check, _ in found(report)} == {"holdings_present"} and report.remaining == 0
    assert used(namespace) == before
    assert_sound()


def test_holding_of_nothing_is_dropped_and_given_back(repository, namespace, actor):
    before = used(namespace)
    other = Namespace.objects.create(name="other", created_at=clock.now(), used_bytes=5)
    Holding.objects.create(namespace=other, blob=blob_of(b"layer"))
    report = fsck(repair=True)
    assert found(report)[0][0] == "holdings_needed" and report.remaining == 0
    assert used(other) == 0 and used(namespace) == before
    assert_sound()


def test_R8_wrong_sums_are_found_and_counted_anew(repository, namespace):
    before = used(namespace)
    Namespace.objects.update(used_bytes=1, reserved_bytes=1)
    report = fsck()
    assert {check for check, _ in found(report)} == {"used_bytes", "reserved_bytes"} and report.remaining == 2
    assert fsck(repair=True).remaining == 0
    assert used(namespace) == before and namespace.reserved_bytes == len(b"half an upload")


def test_tag_of_a_removed_version_is_found(repository):
    Version.objects.filter(removed_revision=None).update(removed_revision=9, removed_at=clock.now())
    Repository.objects.filter(pk=repository.pk).update(revision=9)
    Package.objects.filter(repository=repository).update(revision=9)
    assert [check for check, _ in found(fsck())] == ["tag_targets"]


def test_version_whose_layer_was_closed_is_found(repository):
    Artifact.objects.filter(path=f"sha256:{blob_of(b'layer').digest}").update(
        removed_revision=2, removed_at=clock.now()
    )
    report = fsck()
    assert [check for check, _ in found(report)] == ["version_parts"]
    assert report.problems[0].affected == [f"team/images app sha256:{blob_of(b'{1}').digest}"]


def test_revision_behind_its_content_is_raised(repository):
    repository.refresh_from_db()
    before = repository.revision
    Repository.objects.filter(pk=repository.pk).update(revision=1)
    report = fsck(repair=True)
    assert [check for check, _ in found(report)] == ["revisions"] and report.remaining == 0
    repository.refresh_from_db()
    assert repository.revision == before


def test_row_removed_before_it_was_added_is_found(repository):
    Tag.objects.update(removed_revision=0, removed_at=clock.now())
    Version.objects.filter(removed_revision__isnull=False).update(removed_at=None)
    assert [check for check, _ in found(fsck())] == ["revisions"] * 2


# --- versions that own their files, and remotes ----------------------------------------------------------------------


def release_files(repository: Repository, actor, version: str, files: dict[str, bytes], package: str = "demo") -> None:
    new = tuple(NewFile(path, store.stage(data)) for path, data in files.items())
    publication = Publication(package, files=new, version=NewVersion(version, files=tuple(files)))
    publish(repository, actor, ALL_ACTIONS, publication)


@pytest.fixture
def python(repository, namespace, actor) -> Repository:
    found = make_repository(namespace, "python", "pypi")
    release_files(found, actor, "1.0", {"demo-1.0.tar.gz": b"sdist", "demo-1.0-py3-none-any.whl": b"wheel"})
    return found


@pytest.fixture
def node(repository, namespace, actor) -> Repository:
    found = make_repository(namespace, "node", "npm")
    for version in ("1.0.0", "2.0.0"):
        release_files(found, actor, version, {f"demo-{version}.tgz": version.encode()})
    remove_version(found, actor, "1.0.0", "demo")
    return found


def test_lone_file_of_a_version_that_is_not_there_is_found_and_left_to_its_publisher(python, actor):
    version = Version.objects.get(package__repository=python)
    version.versionartifact_set.filter(artifact__path="demo-1.0.tar.gz").delete()
    report = fsck(repair=True)
    assert found(report) == [("owned_files", "no live version of its package names it")]
    assert report.problems[0].affected == ["team/python demo demo-1.0.tar.gz"] and report.remaining == 1
    release_files(python, actor, "1.0", {"demo-1.0.tar.gz": b"sdist"})
    assert_sound()


def test_lone_file_of_a_remote_is_closed_because_it_is_only_a_copy(python):
    Repository.objects.filter(pk=python.pk).update(type=Repository.Type.REMOTE, remote={"url": "https://up.example/"})
    Version.objects.filter(package__repository=python).update(removed_revision=1, removed_at=clock.now())
    report = fsck(repair=True)
    assert [check for check, _ in found(report)] == ["owned_files"] * 2 and report.remaining == 0
    assert not Artifact.objects.filter(package__repository=python, removed_revision=None).exists()
    assert not Burned.objects.exists()
    assert_sound()


def test_repository_that_is_being_deleted_has_no_lone_files(python):
    Version.objects.filter(package__repository=python).delete()
    assert {check for check, _ in found(fsck())} == {"owned_files"}
    Repository.objects.filter(pk=python.pk).update(state=Repository.State.DELETING)
    assert not fsck().problems


def test_burned_name_that_is_live_is_found_and_lifted_for_the_same_content(node, python):
    assert not fsck().problems, "a burned name that is gone is as it should be"
    version = Package.objects.get(repository=node)
    file = Package.objects.get(repository=python)
    Burned.objects.create(package=version, name="2.0.0", digest=blob_of(b"2.0.0").digest, burned_at=clock.now())
    Burned.objects.create(package=file, name="demo-1.0.tar.gz", digest="a" * 64, burned_at=clock.now())
    Burned.objects.create(package=file, name="1.0", burned_at=clock.now())  # versions of this format do not burn
    report = fsck(repair=True)
    assert [(each.check, each.subject, each.repaired) for each in report.problems] == [
        ("burned_names", "team/node demo 2.0.0", True),
        ("burned_names", "team/python demo demo-1.0.tar.gz", False),
    ]
    assert sorted(Burned.objects.values_list("name", flat=True)) == ["1.0", "1.0.0", "demo-1.0.tar.gz"]


def test_burned_names_are_not_looked_for_in_remotes(node):
    Burned.objects.create(package=Package.objects.get(repository=node), name="2.0.0", burned_at=clock.now())
    Repository.objects.filter(pk=node.pk).update(type=Repository.Type.REMOTE, remote={"url": "https://up.example/"})
    assert not fsck().problems


def test_package_revision_behind_its_content_is_raised(node):
    package = Package.objects.get(repository=node)
    Package.objects.filter(pk=package.pk).update(revision=1)
    report = fsck(repair=True)
    assert found(report) == [
        ("package_revisions", f"its revision is 1, but content in it is stamped {package.revision}")
    ]
    assert report.remaining == 0 and Package.objects.get(pk=package.pk).revision == package.revision
    assert_sound()


def test_package_revision_past_its_repositorys_raises_that(node):
    Package.objects.filter(repository=node).update(revision=90)
    report = fsck(repair=True)
    assert [check for check, _ in found(report)] == ["package_revisions"] and report.remaining == 0
    node.refresh_from_db()
    assert node.revision == 90
    assert_sound()


@pytest.fixture
def document(repository, namespace) -> UpstreamDocument:
    remote = make_repository(namespace, "remote", "pypi", type="remote", remote={"url": "https://up.example/"})
    records, mark = dump_listing(Listing((Entry("1.0", files=(ListedFile("demo-1.0.tar.gz", url="https://x"),)),)))
    now = clock.now()
    times = {"fetched_at": now, "checked_at": now, "fresh_until": now, "url": "https://up.example/"}
    UpstreamDocument.objects.create(repository=remote, key="tag:demo:latest", etag="1", **times)
    return UpstreamDocument.objects.create(
        repository=remote, key="versions:demo", records=records, mark=mark, etag="1", **times
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"records": b"no such thing"}, "do not unpack"),
        ({"records": None, "mark": ""}, "do not unpack"),
        ({"records": dump_listing(Listing(()))[0]}, "not those of its mark"),
        ({"mark": "0" * 64}, "not those of its mark"),
    ],
)
def test_upstream_document_that_does_not_fit_its_mark_is_dropped(document, change, message):
    assert not fsck().problems
    UpstreamDocument.objects.filter(pk=document.pk).update(**change)
    report = fsck(repair=True)
    ((check, said),) = found(report)
    assert check == "upstream_documents" and message in said and report.remaining == 0
    assert list(UpstreamDocument.objects.values_list("key", flat=True)) == ["tag:demo:latest"]
    assert_sound()


def test_upstream_document_that_is_dropped_during_a_fetch_is_not_confirmed(document):
    """A 304 then confirms nothing: a row without records would be fresh, and could not be read."""
    ref = ListingRef("versions", "demo")
    url = "https://up.example/demo/"
    plan = Plan(document.repository_id, plan_key(document.repository_id, 0, "GET", ref), "listing", ref, url, etag="1")
    outcome = Outcome(plan, status=304)
    adopt(plan, outcome)
    assert outcome.error is None
    UpstreamDocument.objects.filter(pk=document.pk).delete()
    adopt(plan, outcome)
    assert isinstance(outcome.error, Unavailable) and not fsck().problems
    assert not UpstreamDocument.objects.filter(key="versions:demo").exists()


def test_claims_that_are_long_over_are_noticed_and_expire(repository):
    now = clock.now()
    for hours in (-1, 0, 2):
        Fill.objects.create(key=f"{hours}", holder="somebody", until=now - datetime.timedelta(hours=hours))
    report = fsck()
    assert not report.problems and report.checked["claims"] == 3
    assert report.notices["old_claims"].examples == ["2"]
    expire_uploads()
    assert sorted(Fill.objects.values_list("key", flat=True)) == ["-1", "0"]


def test_live_twins_are_found(repository):
    """The database refuses them; so the constraint is taken away for the moment."""
    constraint = next(each for each in Tag._meta.constraints if each.name == "tag_live_once")
    with connection.schema_editor() as editor:
        editor.remove_constraint(Tag, constraint)
    try:
        row = Tag.objects.get()
        row.pk = None
        row.save(force_insert=True)
        assert found(fsck()) == [("live_once", "2 live tags have this name")]
    finally:
        Tag.objects.filter(pk=row.pk).delete()
        with connection.schema_editor() as editor:
            editor.add_constraint(Tag, constraint)


def test_tombstone_of_a_live_blob_is_taken_away(repository, blob_store):
    blob = blob_of(b"layer")
    Tombstone.objects.create(storage_key=blob.storage_key, created_at=clock.now())
    assert collect(grace_seconds=500)["pending"] == 1, "the collector does not believe it either"
    report = fsck(repair=True)
    assert [check for check, _ in found(report)] == ["tombstones"] and report.remaining == 0
    assert_sound()


def test_tombstones_that_wait_for_days_are_noticed(repository):
    old = clock.now() - datetime.timedelta(days=3)
    Tombstone.objects.create(storage_key="sha256/aa/" + "a" * 64 + ".gone", created_at=old, size=7)
    report = fsck()
    assert not report.problems and report.notices["old_tombstones"].bytes == 7


def test_session_whose_bytes_are_lost_is_ended(repository, blob_store, namespace):
    row = Upload.objects.get()
    os.unlink(blob_store.upload_path(json.loads(row.resume)["id"]))
    assert not fsck().problems, "a session in use is left alone"
    age(1000)
    report = fsck()
    assert [check for check, _ in found(report)] == ["uploads"]
    assert fsck(repair=True).remaining == 0
    namespace.refresh_from_db()
    assert namespace.reserved_bytes == 0 and not Upload.objects.exists()


def test_session_that_is_looked_at_goes_on_as_before(repository, blob_store, actor):
    from repoman.core.wire import SessionBody
    from repoman.services import upload

    upload_id = begin_session(repository, actor, b"half an upload")
    age(1000)
    assert not fsck().problems
    offset = upload.state_of(repository, actor, "app", upload_id).offset
    sink = upload.open_session(repository, actor, SessionBody(upload_id, "app", start=offset))
    sink.append(b" and the other half")
    assert sink.finish().offset == len(b"half an upload and the other half")


def test_nothing_is_reported_beside_writers_and_collectors(repository, blob_store, actor, namespace):
    """Races are no findings."""
    raw = Repository.objects.get(name="raw")
    reports: list[Report] = []

    def write() -> None:
        for turn in range(15):
            put(raw, actor, "a.txt", b"content %d" % turn)
            layer = push(repository, actor, b"layer %d" % turn)
            digest = release(repository, actor, b"{%d %d}" % (turn, turn), (layer,), "latest")
            if turn % 2:
                remove_version(repository, actor, digest)
            begin_session(repository, actor, b"part %d" % turn)

    def clean() -> None:
        for _ in range(10):
            purge(window_seconds=0)
            collect(grace_seconds=60, objects=False)
            remove_file(raw, actor, put_name())

    def put_name() -> str:
        put(raw, actor, "removed.txt", os.urandom(5))
        return "removed.txt"

    def check() -> None:
        for _ in range(6):
            reports.append(fsck(rehash=True))

    assert together(write, clean, check, check) == [None] * 4
    assert [problem.as_dict() for report in reports for problem in report.problems] == []


def test_damaged_bytes_are_never_served_after_the_check(repository, blob_store):
    blob = blob_of(b"layer")
    os.unlink(path_of(blob_store, blob))
    row = selectors.live_artifact(repository.pk, "app", f"sha256:{blob.digest}")
    with pytest.raises((FileNotFound, Unavailable)):
        store.read_small(selectors.blob_ref(row))


def run(*arguments: str) -> tuple[int, str]:
    out = StringIO()
    try:
        call_command("fsck", *arguments, stdout=out, stderr=StringIO())
    except SystemExit as end:
        return int(end.code or 0), out.getvalue()
    return 0, out.getvalue()


def test_command_exits_with_1_while_problems_remain(repository, blob_store, namespace):
    status, text = run("--rehash", "--json")
    assert status == 0 and json.loads(text)["clean"] is True
    Namespace.objects.update(used_bytes=1)
    status, text = run("--json")
    report = json.loads(text)
    assert status == 1 and report["problems"] == 1 and report["items"][0]["check"] == "used_bytes"
    status, text = run("--repair")
    assert status == 0 and "(repaired)" in text and "1 problems, 1 repaired, 0 remain" in text
    os.unlink(path_of(blob_store, blob_of(b"layer")))
    status, text = run("--check", "blob_bytes")
    assert status == 1 and "team/raw a.txt" in text
    with pytest.raises(CommandError, match="no such check: nonsense"):
        run("--check", "nonsense")
    status, text = run("--list")
    assert all(f"{name}: " in text for name in descriptions())


def test_every_check_says_what_it_holds():
    for name, meaning in descriptions().items():
        assert len(meaning) > 40, name
