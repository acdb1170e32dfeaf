"""A document about all packages costs what changed in it (docs/adr/0015)."""

from __future__ import annotations

import datetime
import gc
import gzip
import json
import random
import subprocess
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakValueDictionary

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from formats.helm import samples
from repoman.blobs import store
from repoman.catalog.models import Artifact, Namespace, Repository
from repoman.core import clock
from repoman.core.actor import ALL_ACTIONS, Actor
from repoman.core.errors import ContentInvalid
from repoman.core.fetch import Outcome, Plan
from repoman.core.format import FormatHandler, handler_for
from repoman.core.records import Entry, Frame, Listing, NewFile, NewVersion, Publication, Rendered
from repoman.core.refs import FileRef, ListingRef, VersionRef
from repoman.core.wire import Response
from repoman.services import delete, parts, publish
from repoman.services.adopt import adopt
from repoman.services.fsck import fsck
from repoman.services.handle import RepositoryHandle
from repoman.services.undelete import undelete
from repoman.sources.base import Parts
from repoman.sources.models import UpstreamDocument
from repoman.sources.remote import plan_key

from .content import make_repository

INDEX = ListingRef("packages")
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def charts(namespace: Namespace, blob_store: Any) -> Repository:
    return make_repository(namespace, "charts", "helm")


@pytest.fixture
def statements() -> Iterator[Callable[[Callable[[], Any]], int]]:
    def counted(act: Callable[[], Any]) -> int:
        with CaptureQueriesContext(connection) as captured:
            act()
        return len([one for one in captured.captured_queries if not one["sql"].startswith(("BEGIN", "COMMIT"))])

    yield counted


def put(repository: Repository, actor: Actor, name: str, version: str = "1.0.0", **more: Any) -> None:
    file = f"{name}-{version}.tgz"
    entry = json.dumps({"name": name, "version": version}, separators=(",", ":"))
    new = NewFile(file, store.stage(f"{file}{more}".encode()), metadata={"entry": entry})
    publish.publish(
        repository, actor, ALL_ACTIONS, Publication(name, files=(new,), version=NewVersion(version, files=(file,)))
    )


def document(repository: Repository, actor: Actor, ref: ListingRef = INDEX) -> Rendered:
    current = Repository.objects.select_related("namespace").get(pk=repository.pk)
    return RepositoryHandle(actor, current).document(ref, "index", "/helm/team/charts")


def names(repository: Repository, actor: Actor) -> list[str]:
    found = document(repository, actor)
    if found.packed:
        assert gzip.decompress(found.packed) == found.data
    return list(json.loads(found.data)["entries"])


# --- of what is published here ---------------------------------------------------------------------------------------


def test_the_index_after_a_push_costs_the_same_with_any_number_of_charts(
    charts: Repository, actor: Actor, statements: Any
) -> None:
    seen = []
    for first, last in ((0, 3), (3, 60)):
        for number in range(first, last):
            put(charts, actor, f"chart-{number}")
        names(charts, actor)
        put(charts, actor, "chart-1", f"2.{last}.0")
        seen.append(statements(lambda: document(charts, actor)))
        assert statements(lambda: document(charts, actor)) <= 1, "one row says that nothing changed"
    assert seen[0] == seen[1] <= 8


def test_every_change_shows_at_once(charts: Repository, actor: Actor) -> None:
    assert names(charts, actor) == []
    for name in ("b", "a", "c"):
        put(charts, actor, name)
        assert name in names(charts, actor)
    put(charts, actor, "b", "2.0.0")
    assert [entry["version"] for entry in json.loads(document(charts, actor).data)["entries"]["b"]] == [
        "2.0.0",
        "1.0.0",
    ]
    for version in ("1.0.0", "2.0.0"):
        delete.remove_version(charts, actor, VersionRef("b", version))
    assert names(charts, actor) == ["a", "c"]
    page = ListingRef("packages", limit=1, arguments=(("offset", "1"),))
    assert list(json.loads(document(charts, actor, page).data)["entries"]) == ["c"]


def test_a_file_comes_back_only_beside_what_it_speaks_of(charts: Repository, actor: Actor) -> None:
    """P5: a chart and its provenance are removed, other bytes take the version, and the first is brought back."""
    put(charts, actor, "demo")
    file, proof = "demo-1.0.0.tgz", "demo-1.0.0.tgz.prov"
    live = Artifact.objects.filter(package__name="demo", removed_revision=None)
    digest = live.get().blob.digest

    def prove() -> None:
        new = NewFile(proof, store.stage(b"proof"), about={file: digest})
        version = NewVersion("1.0.0", files=(proof,), optional=(file,))
        publish.publish(charts, actor, ALL_ACTIONS, Publication("demo", files=(new,), version=version))

    prove()
    revision = delete.remove_version(charts, actor, VersionRef("demo", "1.0.0"))
    put(charts, actor, "demo", other="bytes")
    with pytest.raises(ContentInvalid):
        prove()
    outcome = undelete(charts, revision, actor)
    assert [one["name"] for one in outcome.skipped if one["kind"] == "file"] == [file, proof]
    assert list(live.values_list("path", flat=True)) == [file]
    assert not fsck().problems


# --- of upstreams ----------------------------------------------------------------------------------------------------


@pytest.fixture
def remote(namespace: Namespace, blob_store: Any) -> Repository:
    return Repository.objects.create(
        namespace=namespace,
        name="remote",
        key="team/remote",
        format="helm",
        type=Repository.Type.REMOTE,
        remote={"url": "https://upstream.example/charts/", "generation": 0},
        created_at=clock.now(),
    )


def told(remote: Repository, *pairs: tuple[str, str], **fields: Any) -> None:
    key = plan_key(remote.pk, 0, "GET", INDEX)
    plan = Plan(remote.pk, key, "listing", INDEX, "https://upstream.example/charts/index.yaml", is_document=True)
    body = samples.index(
        *(samples.entry(f"{name}{version}".encode(), name, version, **fields) for name, version in pairs)
    )
    outcome = Outcome(plan, 200, {}, "https://elsewhere.example/x/index.yaml", body=body, size=len(body))
    adopt(plan, outcome)
    assert outcome.error is None, outcome.error


def test_only_what_changed_in_an_upstreams_index_is_written(remote: Repository, actor: Actor) -> None:
    many = [(f"chart-{number}", "1.0.0") for number in range(900)]
    told(remote, *many)
    rows = UpstreamDocument.objects.filter(repository=remote)
    assert rows.count() == 901
    assert names(remote, actor) == sorted(name for name, _ in many)
    before = dict(rows.values_list("key", "fetched_at"))
    told(remote, *many[5:], ("chart-7", "2.0.0"), ("new", "1.0.0"))
    after = dict(rows.values_list("key", "fetched_at"))
    assert before.keys() - after.keys() == {f"versions:chart-{number}" for number in range(5)}
    changed = {key for key, at in after.items() if before.get(key) != at}
    assert changed == {"packages:", "versions:chart-7", "versions:new"}
    assert not fsck().problems


def test_a_file_is_found_without_reading_the_index(remote: Repository, actor: Actor, statements: Any) -> None:
    told(remote, *((f"chart-{number}", "1.0.0") for number in range(300)))
    source = RepositoryHandle(actor, remote).source
    ref = FileRef("chart-250", "chart-250-1.0.0.tgz")

    def find() -> Any:
        with pytest.raises(Exception) as needed:
            RepositoryHandle(actor, remote).open(ref)
        return needed.value

    plan = find().plans[0]
    assert plan.url == "https://upstream.example/charts/chart-250-1.0.0.tgz" and plan.digests["sha256"]
    with CaptureQueriesContext(connection) as captured:
        find()
    assert len(captured.captured_queries) <= 4
    read = [one["sql"] for one in captured.captured_queries if '"records"' in one["sql"]]
    assert all("packages:" not in sql for sql in read) and source is not None


def test_a_row_that_was_dropped_is_read_anew_with_the_index(remote: Repository, actor: Actor) -> None:
    told(remote, ("a", "1.0.0"), ("b", "1.0.0"))
    rows = UpstreamDocument.objects.filter(repository=remote)
    rows.filter(key="versions:a").update(records=b"broken")
    assert fsck().problems
    assert not fsck(repair=True).remaining
    assert not rows.filter(key="packages:").exists(), "it would go on to name what is not there"
    told(remote, ("a", "1.0.0"), ("b", "1.0.0"))
    assert names(remote, actor) == ["a", "b"]


# --- putting together ------------------------------------------------------------------------------------------------


class Lines(FormatHandler):
    """Each package is a line of text."""

    name = "lines"
    prefix = "lines"
    routes = ()
    is_indexed = True

    def __init__(self) -> None:
        self.rendered: list[str] = []
        self.around = Frame(b"begin\n", b"\n", b"\nend", "text/plain")

    def error(self, error: Any, *, mount: str, head: bool) -> Response:
        return Response(500)

    def render_part(self, package: str, listing: Listing, form: str) -> bytes:
        self.rendered.append(package)
        return b"".join(entry.name.encode() for entry in listing.entries)

    def frame(self, form: str, changed_at: datetime.datetime | None, address: str) -> Frame:
        return self.around


@pytest.fixture
def lines(request: pytest.FixtureRequest) -> Lines:
    found = Lines()
    found.__class__.name = request.node.name  # nothing that another test left
    return found


def of(content: dict[str, str], **marks: str) -> Parts:
    """Parts whose marks are their content, unless given."""

    def read(package: str) -> tuple[str, Listing]:
        return content[package], Listing((Entry(content[package]),) if content[package] else ())

    return Parts(sorted((name, marks.get(name, text)) for name, text in content.items()), read, None)


@pytest.fixture
def restarted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Called, it leaves what a process has kept when it starts: nothing."""

    def restart() -> None:
        for name in ("_parts", "_runs"):
            monkeypatch.setattr(parts, name, parts.Kept(parts.KEPT_BYTES))
        monkeypatch.setattr(parts, "_pieces", WeakValueDictionary())

    return restart


def long_content(seed: random.Random) -> dict[str, str]:
    """Of several runs and pieces."""
    return {f"p{number:03}": seed.randbytes(seed.randint(1, 15_000)).hex() for number in range(300)}


def test_packed_and_plain_are_the_same_whatever_changes(lines: Lines) -> None:
    seed = random.Random(5)
    content = {f"p{number}": seed.randbytes(seed.randint(1, 3000)).hex() for number in range(400)}
    content["big"] = "x" * 3_000_000
    for _ in range(6):
        found = parts.assemble(lines, INDEX, of(content), "", "")
        expected = "\n".join(["begin", *(content[name] for name in sorted(content) if content[name]), "end"]).encode()
        assert found.data == expected and gzip.decompress(found.packed) == expected
        before = len(lines.rendered)
        assert parts.assemble(lines, INDEX, of(content), "", "").etag == found.etag
        assert len(lines.rendered) == before
        content[f"p{seed.randrange(400)}"] = seed.randbytes(50).hex()
        content[f"q{seed.randrange(400)}"] = "new" * 20
        content[f"p{seed.randrange(400)}"] = ""
        content.pop(f"p{seed.randrange(100)}", None)


def test_other_programs_unpack_it(lines: Lines) -> None:
    found = parts.assemble(lines, INDEX, of(long_content(random.Random(1))), "", "")
    subprocess.run(["gzip", "-t"], input=found.packed, check=True)
    assert subprocess.run(["gzip", "-dc"], input=found.packed, check=True, capture_output=True).stdout == found.data


def test_the_entity_tag_is_that_of_any_process(lines: Lines, restarted: Callable[[], None]) -> None:
    """It is made from content alone, whatever was shown before and under whatever marks."""
    seed = random.Random(2)
    content = long_content(seed)
    for _ in range(3):
        for _ in range(5):
            content[f"p{seed.randrange(300):03}"] = seed.randbytes(seed.randint(1, 15_000)).hex()
            kept = parts.assemble(lines, INDEX, of(content), "", "")
        elsewhere = parts.assemble(lines, INDEX, of(content, **dict.fromkeys(content, "m")), "other", "")
        restarted()
        fresh = parts.assemble(lines, INDEX, of(content), "", "")
        assert kept == elsewhere == fresh
        restarted()
        page = ListingRef("packages", limit=len(content))
        assert parts.assemble(lines, page, of(content), "", "") == fresh
    few = parts.assemble(lines, INDEX, of({"a": "1", "b": "2"}), "", "")
    assert few.data == b"begin\n1\n2\nend" and few.etag == '"eda508f7710e5313c7ea43a4653cc219"'


def test_other_bytes_have_another_entity_tag(lines: Lines) -> None:
    content = {f"p{number}": f"{number}" + "x" * 40_000 for number in range(50)}
    pages = [ListingRef("packages", limit=40, arguments=(("offset", str(offset)),)) for offset in range(10)]
    seen = {parts.assemble(lines, page, of({**content, "p20": "y"}), "", "") for page in pages}
    seen.add(parts.assemble(lines, INDEX, of(content), "", ""))
    for name in content:
        seen.add(parts.assemble(lines, INDEX, of({**content, name: content[name][:-1] + "y"}), "", ""))
        seen.add(parts.assemble(lines, INDEX, of({**content, name: ""}), "", ""))
    for head, between, tail in (("begin", "\n", "\nend\n"), ("begin ", "\n", "\nend"), ("begin\n", "\n\n", "\nend")):
        lines.around = Frame(head.encode(), between.encode(), tail.encode(), "text/plain")
        seen.add(parts.assemble(lines, INDEX, of(content), "", ""))
    assert len({found.etag for found in seen}) == len({found.data for found in seen}) > 60
    lines.around = Frame(b"", b"", b"", "text/plain")
    swapped = [parts.assemble(lines, INDEX, of({"a": first, "b": other}), "", "") for first, other in ("12", "21")]
    assert swapped[0].etag != swapped[1].etag


def test_a_long_document_shares_what_did_not_change(lines: Lines) -> None:
    content = long_content(random.Random(3))
    before = parts.assemble(lines, INDEX, of(content), "", "")
    content["p150"] = "another"
    after = parts.assemble(lines, INDEX, of(content), "", "")
    assert len(after.pieces) > 4 and len(after.data) > 4 * parts.PIECE_BYTES // 2
    shared = {id(piece) for piece in before.pieces} & {id(piece) for piece in after.pieces}
    assert len(after.pieces) - len(shared) <= 4, "head and tail, and where the change is"
    del before, after, shared
    gc.collect()
    assert not [key for key in parts._pieces.keys() if lines.name in str(key)]


def test_what_changed_while_it_was_read_is_not_kept_under_the_old_mark(lines: Lines) -> None:
    newer, older = "newer" * 1000, "older" * 1000
    parts.assemble(lines, INDEX, of({"a": newer}, a=older), "", "")
    for _ in range(2):
        found = parts.assemble(lines, INDEX, of({"a": older}), "", "")
        assert found.data == gzip.decompress(found.packed) == f"begin\n{older}\nend".encode()
    assert lines.rendered == ["a", "a"]
    parts.assemble(lines, INDEX, of({"a": newer}), "", "")
    assert lines.rendered == ["a", "a"]


def test_pages_pass_over_what_shows_nothing(lines: Lines) -> None:
    content = {"a": "1", "b": "", "c": "3", "d": "4"}
    for offset, limit, expected in ((0, 2, "1\n3"), (1, 1, "3"), (1, 9, "3\n4"), (3, 1, "")):
        ref = ListingRef("packages", limit=limit, arguments=(("offset", str(offset)),))
        assert parts.assemble(lines, ref, of(content), "", "").data.decode() == f"begin\n{expected}\nend"


def test_what_is_kept_is_bounded() -> None:
    kept: parts.Kept[bytes] = parts.Kept(10_000)
    for number in range(100):
        kept.put((number,), bytes(1000))
    assert [number for number in range(100) if kept.get((number,)) is not None] == list(range(92, 100))
    assert kept.get((95,)) == bytes(1000)
    kept.put((95,), b"x")
    kept.put((200,), bytes(20_000))
    assert kept.get((95,)) is None and kept.get((200,)) is None


def test_formats_without_such_a_document_say_so() -> None:
    npm = handler_for("npm")
    assert not npm.is_indexed
    with pytest.raises(Exception, match="no document about all packages"):
        npm.frame("", None, "")
    with pytest.raises(ContentInvalid):
        npm.split_index(b"", url="", media_type="")


def test_fsck_finds_a_file_beside_other_bytes_than_it_speaks_of(charts: Repository, actor: Actor) -> None:
    put(charts, actor, "demo")
    live = Artifact.objects.get(path="demo-1.0.0.tgz")
    new = NewFile("demo-1.0.0.tgz.prov", store.stage(b"proof"), about={live.path: live.blob.digest})
    version = NewVersion("1.0.0", files=(new.path,), optional=(live.path,))
    publish.publish(charts, actor, ALL_ACTIONS, Publication("demo", files=(new,), version=version))
    assert not fsck().problems
    Artifact.objects.filter(path=new.path).update(metadata={"about": {live.path: "0" * 64}})
    (problem,) = fsck().problems
    assert problem.check == "companions" and new.path in problem.subject
