"""The generic views against a repository in memory."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from formats.generic import handler, samples
from repoman.core import errors
from repoman.core.actor import Actor
from repoman.core.digest import Digest
from repoman.core.records import BlobRef, Entry, FileEntry, Listing, Publication, Published, Staged
from repoman.core.refs import FileRef, ListingRef
from repoman.core.wire import Body, Headers, NoBody, Query, Request, Response, StagedBody

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=datetime.UTC)
MOUNT = "/generic/ns/repo"
DATE = "Fri, 02 Jan 2026 03:04:05 GMT"
BEFORE = "Fri, 02 Jan 2026 03:04:04 GMT"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class MemoryRepo:
    options: Any = field(default_factory=lambda: handler.parse_options({}))
    key: str = "ns/repo"
    actor: Actor = field(default_factory=lambda: Actor(1, "user"))
    is_anonymously_readable: bool = False
    may_read: bool = True
    files: dict[str, FileEntry] = field(default_factory=dict)

    def open(self, ref: FileRef, *, promise: bool = False) -> FileEntry:
        assert ref.package == ref.path
        if not self.may_read:
            raise errors.Forbidden("you may not read here")
        if ref.path not in self.files:
            raise errors.FileNotFound(f"no file {ref.path}")
        return self.files[ref.path]

    def current(self, ref: FileRef) -> FileEntry:
        return self.open(ref)

    def listing(self, ref: ListingRef) -> Listing:
        found: dict[str, Entry] = {}
        for path, entry in sorted(self.files.items()):
            if path.startswith(ref.package):
                name, slash, _ = path[len(ref.package) :].partition("/")
                found[name + slash] = (
                    Entry(name, "folder")
                    if slash
                    else Entry(name, size=entry.blob.size, digest=entry.blob.digest.hex, modified=entry.created_at)
                )
        if not found and ref.package:
            raise errors.FileNotFound(f"no folder {ref.package}")
        names = [name for name in sorted(found) if name > ref.after]
        return Listing(tuple(found[name] for name in names[: ref.limit]), more=len(names) > (ref.limit or 10**9))

    def publish(self, publication: Publication) -> Published:
        (new,) = publication.files
        live = self.files.get(new.path)
        held = live.blob.digest.hex if live else None
        if publication.if_none_match is not None and live and ({"*", held} & publication.if_none_match):
            raise errors.PreconditionFailed("it is there")
        if publication.if_match is not None and (live is None or not {"*", held} & publication.if_match):
            raise errors.PreconditionFailed("it is another")
        if held == new.staged.digest.hex:
            return Published(1, False)
        if live is not None and not publication.may_replace:
            raise errors.Conflict("other bytes are there")
        blob = BlobRef(new.staged.digest, new.staged.size, "key", "stamp", new.media_type or "application/octet-stream")
        self.files[new.path] = FileEntry(new.path, new.path, blob, NOW, NOW, metadata=new.metadata)
        return Published(1, live is None, live is not None)

    def remove_file(self, ref: FileRef, *, if_match: frozenset[str] | None = None) -> None:
        live = self.files.get(ref.path)
        if live is None:
            raise errors.FileNotFound(f"no file {ref.path}")
        if if_match is not None and not {"*", live.blob.digest.hex} & if_match:
            raise errors.PreconditionFailed("it is another")
        del self.files[ref.path]

    def find_in_repository(self, sha256: str) -> FileEntry | None:
        return next((entry for entry in self.files.values() if entry.blob.digest.hex == sha256), None)

    def restage(self, entry: FileEntry) -> Staged:
        return Staged(entry.blob.digest, entry.blob.size, entry.blob.storage_key, entry.blob.stamp)


def ask(
    repo: MemoryRepo,
    method: str,
    path: str,
    data: bytes = b"",
    headers: Sequence[tuple[str, str]] = (),
    *,
    query: str = "",
) -> Response:
    """One request as the edge handles it."""
    route = next(route for route in handler.routes if method in route.methods)
    match = route.regex.match(path)
    assert match is not None
    common: dict[str, Any] = {
        "method": method,
        "path": path,
        "query": Query(query.encode()),
        "headers": Headers([(name.lower().encode(), value.encode()) for name, value in headers]),
        "actor": repo.actor,
        "mount": MOUNT,
        "base_url": "https://host",
        "length": len(data),
        "has_body": bool(data),
    }
    try:
        plan = route.admit(repo, Request(**common), **match.groupdict())
        body: Body = None
        if isinstance(plan, StagedBody):
            if plan.expect is not None and Digest.of(data) != plan.expect:
                raise errors.DigestInvalid("other bytes", expected=str(plan.expect), actual=str(Digest.of(data)))
            others = {name: hashlib.new(name, data).hexdigest() for name in plan.algorithms}
            body = Staged(Digest.of(data), len(data), "key", "stamp", others)
        else:
            assert isinstance(plan, NoBody)
        return route.view(repo, Request(**common, body=body), **match.groupdict())
    except errors.RepomanError as error:
        return handler.error(error, mount=MOUNT, head=method == "HEAD")


def headers_of(response: Response) -> dict[str, str]:
    found = dict(response.headers)
    assert len(found) == len(response.headers), "a header was sent twice"
    assert found["X-Content-Type-Options"] == "nosniff"
    assert "Content-Security-Policy" in found
    assert all(value.isascii() and value.isprintable() for value in found.values())
    return found


def body_of(response: Response) -> Any:
    assert isinstance(response.content, bytes)
    return json.loads(response.content)


def problem(response: Response) -> tuple[int, str]:
    assert headers_of(response)["Content-Type"] == "application/problem+json"
    found = body_of(response)
    assert found["status"] == response.status and found["title"] and found["detail"]
    return response.status, str(found["code"])


@pytest.fixture
def repo() -> MemoryRepo:
    return MemoryRepo()


@pytest.mark.parametrize("path", sorted(samples.FILES))
def test_P11_put_then_get(repo: MemoryRepo, path: str) -> None:
    data = samples.FILES[path]
    put = ask(repo, "PUT", path, data)
    assert put.status == 201
    sent = headers_of(put)
    assert sent["ETag"] == f'"{sha256(data)}"' and sent["Location"].startswith(f"{MOUNT}/")
    body = body_of(put)
    assert (body["repo"], body["path"], body["size"]) == ("ns/repo", path, len(data))
    assert body["checksums"] == {"sha256": sha256(data)}
    assert body["downloadUri"] == "https://host" + sent["Location"]
    got = ask(repo, "GET", path)
    assert isinstance(got.content, BlobRef) and got.content.digest.hex == sha256(data)
    assert headers_of(got)["X-Checksum-Sha256"] == sha256(data)
    assert headers_of(got)["Content-Type"] == got.content.media_type == body["mimeType"]
    assert got.last_modified == NOW.timestamp()


def test_U1_U8_new_same_and_other_bytes(repo: MemoryRepo) -> None:
    assert [ask(repo, "PUT", "a", data).status for data in (b"1", b"1", b"2")] == [201, 200, 200]


def test_U8_overwriting_is_an_option() -> None:
    repo = MemoryRepo(options=handler.parse_options({"allow_overwrite": False}))
    assert [ask(repo, "PUT", "a", data).status for data in (b"1", b"1", b"2")] == [201, 200, 409]


def test_U7_conditions_of_writes(repo: MemoryRepo) -> None:
    once = [("If-None-Match", "*")]
    assert ask(repo, "PUT", "a", b"1", [("If-Match", "*")]).status == 412
    assert ask(repo, "PUT", "a", b"1", once).status == 201
    assert problem(ask(repo, "PUT", "a", b"1", once)) == (412, "precondition_failed")
    assert ask(repo, "PUT", "a", b"2", [("If-Match", f'"{sha256(b"0")}"')]).status == 412
    assert ask(repo, "PUT", "a", b"2", [("If-Match", f'W/"{sha256(b"1")}"')]).status == 412
    assert ask(repo, "PUT", "a", b"2", [("If-Match", f'"x", "{sha256(b"1")}"')]).status == 200
    assert ask(repo, "DELETE", "a", headers=[("If-Match", f'"{sha256(b"1")}"')]).status == 412
    assert ask(repo, "DELETE", "a", headers=[("If-Unmodified-Since", BEFORE)]).status == 412
    assert ask(repo, "PUT", "a", b"3", [("If-Unmodified-Since", BEFORE)]).status == 412
    assert ask(repo, "PUT", "a", b"3", [("If-Unmodified-Since", DATE)]).status == 200
    assert ask(repo, "PUT", "new", b"3", [("If-Unmodified-Since", DATE)]).status == 201
    assert ask(repo, "PUT", "a", b"4", [("If-Match", "nonsense")]).status == 400
    assert ask(repo, "DELETE", "a", headers=[("If-Match", f'"{sha256(b"3")}"')]).status == 204


def test_U7_conditions_are_refused_before_the_body(repo: MemoryRepo) -> None:
    ask(repo, "PUT", "a", b"1")
    route = next(route for route in handler.routes if route.name == "file_put")
    head = Request("PUT", "a", Query(b""), Headers([(b"if-none-match", b"*")]), repo.actor, MOUNT, "https://host")
    with pytest.raises(errors.PreconditionFailed):
        route.admit(repo, head, path="a")


def test_F7_who_may_write_but_not_read_is_judged_at_commit() -> None:
    repo = MemoryRepo(may_read=False)
    once = [("If-None-Match", "*")]
    assert [ask(repo, "PUT", "a", b"1", once).status for _ in range(2)] == [201, 412]


def test_C3_checksums_are_verified(repo: MemoryRepo) -> None:
    good = [("X-Checksum-Sha256", sha256(b"1")), ("X-Checksum-Md5", hashlib.md5(b"1").hexdigest())]
    assert ask(repo, "PUT", "a", b"1", good).status == 201
    assert headers_of(ask(repo, "GET", "a"))["X-Checksum-Md5"] == hashlib.md5(b"1").hexdigest()
    for name, value in (("X-Checksum", "0" * 64), ("X-Checksum-Sha1", "0" * 40), ("Content-MD5", "A" * 22 + "==")):
        response = ask(repo, "PUT", "b", b"1", [(name, value)])
        assert problem(response) == (409, "checksum_mismatch")
        assert {"expected", "actual"} <= set(body_of(response))
    assert problem(ask(repo, "PUT", "b", b"1", [("X-Checksum", "0")])) == (400, "checksum_malformed")
    assert "b" not in repo.files


def test_D6_sums_of_something_else_without_a_body_are_a_mismatch(repo: MemoryRepo) -> None:
    ask(repo, "PUT", "a", b"1")
    assert ask(repo, "PUT", "b", b"", [("X-Checksum-Sha256", sha256(b"1"))]).status == 409


def test_D1_D3_deploy_by_checksum(repo: MemoryRepo) -> None:
    ask(repo, "PUT", "a", b"1", [("X-Checksum-Sha1", hashlib.sha1(b"1").hexdigest())])
    deploy = ("X-Checksum-Deploy", "true")
    assert ask(repo, "PUT", "b", b"", [deploy, ("X-Checksum", sha256(b"1"))]).status == 201
    assert headers_of(ask(repo, "GET", "b"))["X-Checksum-Sha1"] == hashlib.sha1(b"1").hexdigest()
    assert ask(repo, "PUT", "c", b"", [deploy, ("X-Checksum", sha256(b"2"))]).status == 404
    assert ask(repo, "PUT", "c", b"", [deploy, ("X-Checksum-Sha1", hashlib.sha1(b"1").hexdigest())]).status == 404
    lying = [deploy, ("X-Checksum", sha256(b"1")), ("X-Checksum-Sha1", "0" * 40)]
    assert ask(repo, "PUT", "c", b"", lying).status == 409
    assert "c" not in repo.files


def test_U6_what_a_put_cannot_be(repo: MemoryRepo) -> None:
    assert problem(ask(repo, "PUT", "a", b"1", [("Content-Encoding", "gzip")])) == (415, "content_coding_unsupported")
    assert ask(repo, "PUT", "a", b"1", [("Content-Range", "bytes 0-0/1")]).status == 400
    assert ask(repo, "PUT", "a", b"1", [("Content-Encoding", "identity")]).status == 201


@pytest.mark.parametrize(
    "path", ["", "a/", "a//b", "../a", "a\\b", "a" * 256, "a/" * 64 + "a", "x" * 200 + "/" + "y" * 900]
)
def test_P3_P7_P9_bad_paths(repo: MemoryRepo, path: str) -> None:
    assert problem(ask(repo, "PUT", path, b"1")) == (400, "name_invalid")


def test_A7_paths_equal_after_nfc_are_one(repo: MemoryRepo) -> None:
    assert ask(repo, "PUT", "u\u0308", b"1").status == 201
    assert ask(repo, "PUT", "\u00fc", b"1").status == 200
    assert ask(repo, "GET", "u\u0308").status == 200


def test_O1_deleting(repo: MemoryRepo) -> None:
    ask(repo, "PUT", "d/a", b"1")
    assert problem(ask(repo, "DELETE", "d/")) == (405, "method_not_allowed")
    assert body_of(ask(repo, "DELETE", ""))["allow"] == ["GET", "HEAD"]
    assert ask(repo, "DELETE", "d/a").status == 204
    assert problem(ask(repo, "DELETE", "d/a")) == (404, "file_not_found")


def test_M3_folders(repo: MemoryRepo) -> None:
    assert ask(repo, "GET", "").status == 200
    assert problem(ask(repo, "GET", "d/")) == (404, "file_not_found")
    ask(repo, "PUT", "d e/a", b"1")
    moved = ask(repo, "GET", "d e", query="limit=1")
    assert (moved.status, headers_of(moved)["Location"]) == (301, f"{MOUNT}/d%20e/?limit=1")
    assert ask(repo, "GET", "nothing").status == 404
    page = ask(repo, "GET", "d e/")
    assert page.status == 200 and isinstance(page.content, bytes) and b'href="a"' in page.content
    assert "sandbox" not in headers_of(page)["Content-Security-Policy"]
    assert headers_of(page)["Vary"] == "Accept"


def test_M4_json_pages(repo: MemoryRepo) -> None:
    for path in ("a", "b/c", "b/d", "e"):
        ask(repo, "PUT", path, path.encode())
    names, query = [], "limit=1"
    while True:
        found = body_of(ask(repo, "GET", "", headers=[("Accept", "application/json")], query=query))
        names += [item["name"] for item in found["items"]]
        if found["next"] is None:
            break
        query = f"limit=1&after={found['next']}"
    assert names == ["a", "b/", "e"]
    assert ask(repo, "GET", "", query="limit=0").status == 400


def test_the_short_cut_answers_what_the_view_answers(repo: MemoryRepo) -> None:
    route = next(route for route in handler.routes if route.hot is not None)
    assert route.hot is not None and route.hot_headers is not None and route.hot_dated
    for path, data in samples.FILES.items():
        ask(repo, "PUT", path, data, [("X-Checksum-Sha1", hashlib.sha1(data).hexdigest())])
        lookup = route.hot(path=path)
        assert lookup is not None and (lookup.kind, lookup.package, lookup.name) == ("file", path, path)
        entry = repo.files[path]
        headers = route.hot_headers(
            name=path,
            media_type=entry.blob.media_type,
            digest=entry.blob.digest.hex,
            captured={"path": path},
            metadata=entry.metadata,
        )
        assert list(headers) == list(ask(repo, "GET", path).headers)
    assert route.hot(path="") is None and route.hot(path="a/") is None
    found = route.hot(path="u\u0308")
    assert found is not None and found.name == "\u00fc"
    assert route.hot(path="u" + "\u0308" * 9) is None


def test_R2_errors_carry_plain_data_only() -> None:
    error = errors.QuotaExceeded("full", used_bytes=1, things=frozenset({"b", "a"}), status=9)
    response = handler.error(error, mount=MOUNT, head=False)
    assert body_of(response)["things"] == ["a", "b"] and body_of(response)["status"] == 403
