"""The OCI views against a repository in memory: statuses, headers, bodies and what they ask of the repository."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from formats.oci import handler, samples
from formats.oci.listing import REFERRERS_BYTES
from formats.oci.manifest import MAX_BYTES, OCI_INDEX
from repoman.core import errors
from repoman.core.actor import Actor
from repoman.core.digest import Digest
from repoman.core.records import (
    BlobRef,
    Entry,
    FileEntry,
    Listing,
    Publication,
    Published,
    Staged,
    UploadState,
    VersionEntry,
)
from repoman.core.refs import FileRef, ListingRef, TagRef, VersionRef
from repoman.core.wire import (
    Body,
    Document,
    DocumentBody,
    Headers,
    NoBody,
    Query,
    Request,
    Response,
    SessionBody,
    StagedBody,
)

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
KEY = "ns/repo"
MOUNT = "/v2/ns/repo"
EMPTY_DIGEST = str(Digest.of(b""))


def staged_of(data: bytes, algorithms: Sequence[str] = ()) -> Staged:
    return Staged(
        Digest.of(data), len(data), "key", "stamp", {name: hashlib.new(name, data).hexdigest() for name in algorithms}
    )


@dataclass
class MemoryRepo:
    """Keeps what the views publish. `elsewhere`: blobs that a mount may take, by full name."""

    options: Any = field(default_factory=lambda: handler.parse_options({}))
    key: str = KEY
    actor: Actor = field(default_factory=lambda: Actor(1, "user"))
    is_anonymously_readable: bool = False
    files: dict[tuple[str, str], Staged] = field(default_factory=dict)
    versions: dict[tuple[str, str], Publication] = field(default_factory=dict)
    tags: dict[tuple[str, str], str] = field(default_factory=dict)
    sessions: dict[str, bytearray] = field(default_factory=dict)
    elsewhere: dict[tuple[str, str], Staged] = field(default_factory=dict)
    promises: list[str] = field(default_factory=list)
    types: dict[str, str] = field(default_factory=dict)

    def _blob(self, staged: Staged, media_type: str) -> BlobRef:
        return BlobRef(staged.digest, staged.size, staged.storage_key, staged.stamp, media_type)

    def open(self, ref: FileRef, *, promise: bool = False) -> FileEntry:
        if not any(package == ref.package for package, _ in self.files):
            raise errors.PackageNotFound()
        if (ref.package, ref.path) not in self.files:
            raise errors.FileNotFound(f"no blob {ref.path}")
        if promise:
            self.promises.append(ref.path)
        staged = self.files[ref.package, ref.path]
        return FileEntry(ref.package, ref.path, self._blob(staged, self.types.get(ref.path, "")), NOW, NOW)

    def version(self, ref: VersionRef | TagRef) -> VersionEntry:
        if not any(package == ref.package for package, _ in self.versions):
            raise errors.PackageNotFound()
        name = self.tags.get((ref.package, ref.tag)) if isinstance(ref, TagRef) else ref.version
        found = self.versions.get((ref.package, name or ""))
        if found is None or found.version is None or found.version.document is None:
            raise errors.VersionNotFound("no such manifest")
        new = found.version
        assert new.document is not None
        return VersionEntry(ref.package, new.version, self._blob(new.document, new.media_type), NOW)

    def listing(self, ref: ListingRef) -> Listing:
        found: list[Entry]
        if ref.kind == "tags":
            if not any(package == ref.package for package, _ in self.versions):
                raise errors.PackageNotFound("no such image")
            found = [Entry(tag, "tag") for package, tag in sorted(self.tags) if package == ref.package]
        else:
            arguments = dict(ref.arguments[:1])
            types = [value for name, value in ref.arguments if name == "artifactType"]
            found = []
            for (package, name), publication in sorted(self.versions.items()):
                new = publication.version
                if new is None or new.document is None or package != ref.package:
                    continue
                if new.subject != arguments["subject"] or (types and new.artifact_type not in types):
                    continue
                found.append(
                    Entry(
                        name,
                        "version",
                        size=new.document.size,
                        media_type=new.media_type,
                        artifact_type=new.artifact_type,
                        metadata=new.metadata,
                    )
                )
        found = [entry for entry in found if entry.name > ref.after]
        return Listing(tuple(found[: ref.limit]), more=ref.limit is not None and len(found) > ref.limit)

    def publish(self, publication: Publication) -> Published:
        new = publication.version
        assert new is not None
        if publication.require_parts:
            missing = [path for path in new.files if (publication.package, path) not in self.files]
            missing += [
                name
                for name in new.either
                if (publication.package, name) not in self.files and (publication.package, name) not in self.versions
            ]
            if missing:
                raise errors.ContentMissing("parts are missing", missing=missing)
        created = (publication.package, new.version) not in self.versions
        self.versions[publication.package, new.version] = publication
        for tag in publication.tags:
            self.tags[publication.package, tag] = new.version
        return Published(1, created)

    def attach(
        self, package: str, path: str, staged: Staged, *, media_type: str = "", spent_upload_id: str = ""
    ) -> None:
        if spent_upload_id:
            self.cancel_upload(package, spent_upload_id)
        self.files[package, path] = staged
        self.types[path] = media_type

    def mount(self, package: str, path: str, source: str | None) -> bool:
        for (name, digest), staged in self.elsewhere.items():
            if digest == path and source in (None, name):
                self.files[package, path] = staged
                return True
        return False

    def begin_upload(self, package: str, algorithm: str = "sha256") -> UploadState:
        upload_id = f"{package}-{algorithm}-{len(self.sessions)}".replace("/", "-")
        self.sessions[upload_id] = bytearray()
        return UploadState(upload_id, package, 0, algorithm)

    def upload(self, package: str, upload_id: str) -> UploadState:
        if upload_id not in self.sessions:
            raise errors.UploadNotFound("no such session")
        return UploadState(upload_id, package, len(self.sessions[upload_id]))

    def has_begun(self, package: str, upload_id: str) -> bool:
        return self.upload(package, upload_id).offset > 0

    def finish_upload(self, package: str, upload_id: str, expect: str) -> Staged:
        self.upload(package, upload_id)
        data = bytes(self.sessions.pop(upload_id))
        wanted = Digest.parse(expect)
        if Digest.of(data, wanted.algorithm) != wanted:
            raise errors.DigestInvalid("other bytes")
        return staged_of(data)

    def cancel_upload(self, package: str, upload_id: str) -> None:
        self.upload(package, upload_id)
        del self.sessions[upload_id]

    def remove_tag(self, ref: TagRef) -> None:
        if self.tags.pop((ref.package, ref.tag), None) is None:
            raise errors.VersionNotFound("no such tag")

    def remove_version(self, ref: VersionRef) -> None:
        if self.versions.pop((ref.package, ref.version), None) is None:
            raise errors.VersionNotFound("no such manifest")

    def remove_file(self, ref: FileRef, *, if_match: frozenset[str] | None = None) -> None:
        if self.files.pop((ref.package, ref.path), None) is None:
            raise errors.FileNotFound("no such blob")

    def remaining_bytes(self) -> int | None:
        return None

    def find_in_repository(self, sha256: str) -> FileEntry | None:
        return None

    def stage_bytes(self, data: bytes, algorithms: Sequence[str] = ()) -> Staged:
        return staged_of(data, algorithms)

    def restage(self, entry: FileEntry) -> Staged:
        raise NotImplementedError

    # what the edge does

    def append(self, plan: SessionBody, data: bytes) -> UploadState:
        state = self.upload(plan.package, plan.upload_id)
        if plan.start is not None and plan.start != state.offset:
            raise errors.RangeInvalid("wrong start", offset=state.offset)
        self.sessions[plan.upload_id] += data
        return self.upload(plan.package, plan.upload_id)


def ask(
    repo: MemoryRepo,
    method: str,
    path: str,
    data: bytes = b"",
    *,
    query: str = "",
    mount: str = MOUNT,
    chunked: bool = False,
    **headers: str,
) -> Response:
    """One request as the edge handles it: route, admission, body, view, and the envelope for what is raised."""
    route, match = next(
        (route, match)
        for route in handler.routes
        if method in route.methods and (match := route.regex.match(path)) is not None
    )
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    common: dict[str, Any] = {
        "method": method,
        "path": path,
        "query": Query(query.encode()),
        "headers": Headers(pairs),
        "actor": repo.actor,
        "mount": mount,
        "base_url": "https://host",
        "length": None if chunked else len(data),
        "has_body": bool(data) or chunked,
    }
    try:
        plan = route.admit(repo, Request(**common), **match.groupdict())
        body: Body = None
        if isinstance(plan, DocumentBody):
            if len(data) > plan.max_bytes:
                raise errors.TooLarge("the document is too large")
            body = Document(data)
        elif isinstance(plan, StagedBody):
            if plan.expect is not None and Digest.of(data, plan.expect.algorithm) != plan.expect:
                raise errors.DigestInvalid("other bytes")
            body = staged_of(data, plan.algorithms)
        elif isinstance(plan, SessionBody):
            body = repo.append(plan, data)
        else:
            assert isinstance(plan, NoBody)
        return route.view(repo, Request(**common, body=body), **match.groupdict())
    except errors.RepomanError as error:
        return handler.error(error, mount=mount, head=method == "HEAD")


def headers_of(response: Response) -> dict[str, str]:
    found = dict(response.headers)
    assert len(found) == len(response.headers), "a header was sent twice"
    assert found["Docker-Distribution-Api-Version"] == "registry/2.0"
    assert found["X-Content-Type-Options"] == "nosniff"
    return found


def body_of(response: Response) -> Any:
    assert isinstance(response.content, bytes)
    return json.loads(response.content)


def code_of(response: Response) -> str:
    (item,) = body_of(response)["errors"]
    return str(item["code"])


def push(
    repo: MemoryRepo, sample: samples.Sample, reference: str = "", image: str = "app", query: str = ""
) -> Response:
    for digest, data in sample.blobs.items():
        assert ask(repo, "POST", f"{image}/blobs/uploads/", data, query=f"digest={digest}").status == 201
    for child in sample.children:
        assert push(repo, child, image=image).status == 201
    path = f"{image}/manifests/{reference or sample.digest}"
    return ask(repo, "PUT", path, sample.manifest, query=query, content_type=sample.media_type)


@pytest.fixture
def repo() -> MemoryRepo:
    return MemoryRepo()


# --- ping, catalog ---------------------------------------------------------------------------------------------------


class MemorySite:
    def __init__(self, actor: Actor, names: Sequence[str] = ()) -> None:
        self.actor = actor
        self._names = names

    def names(self, format_name: str, *, after: str, limit: int) -> Sequence[str]:
        return [name for name in sorted(self._names) if name > after][:limit]


def visit(site: MemorySite, path: str, query: str = "") -> Response:
    route = next(route for route in handler.site_routes if route.path == path)
    request = Request("GET", path, Query(query.encode()), Headers([]), site.actor, "", "https://host")
    return route.view(site, request)


def test_V1_V2_a_known_caller_may_use_the_api() -> None:
    for path in ("/v2/", "/v2"):
        response = visit(MemorySite(Actor(1, "user")), path)
        assert (response.status, response.content) == (200, b"{}")
        assert headers_of(response)["Content-Type"] == "application/json"


def test_V3_an_anonymous_ping_is_challenged() -> None:
    with pytest.raises(errors.AuthenticationRequired):
        visit(MemorySite(Actor()), "/v2/")


def test_V4_a_token_of_any_scope_pings() -> None:
    assert visit(MemorySite(Actor(scopes={})), "/v2/").status == 200


def test_L8_the_catalog_pages() -> None:
    site = MemorySite(Actor(1, "user"), ["b/r/x", "a/r/x", "a/r/é"])
    response = visit(site, "/v2/_catalog", "n=2")
    assert body_of(response) == {"repositories": ["a/r/x", "a/r/é"]}
    assert headers_of(response)["Link"] == '</v2/_catalog?n=2&last=a%2Fr%2F%C3%A9>; rel="next"'
    last = visit(site, "/v2/_catalog", "n=2&last=a%2Fr%2F%C3%A9")
    assert body_of(last) == {"repositories": ["b/r/x"]} and "Link" not in headers_of(last)
    assert body_of(visit(site, "/v2/_catalog", "n=0")) == {"repositories": []}
    with pytest.raises(errors.AuthenticationRequired):
        visit(MemorySite(Actor()), "/v2/_catalog")


# --- challenge and errors --------------------------------------------------------------------------------------------


def test_A1_A3_A6_the_challenge() -> None:
    ask_for = {"base_url": "https://host:8443", "scope": "repository:ns/repo/a:pull"}
    plain = 'Bearer realm="https://host:8443/token",service="host:8443",scope="repository:ns/repo/a:pull"'
    assert handler.challenge(errors.AuthenticationRequired(), **ask_for) == plain
    assert handler.challenge(errors.CredentialsInvalid(), **ask_for) == plain + ',error="invalid_token"'
    assert handler.challenge(errors.ScopeInsufficient(), **ask_for) == plain + ',error="insufficient_scope"'
    assert "scope" not in handler.challenge(errors.AuthenticationRequired(), base_url="https://h", scope="")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.NameInvalid(), 400, "NAME_INVALID"),
        (errors.DigestInvalid(), 400, "DIGEST_INVALID"),
        (errors.SizeInvalid(), 400, "SIZE_INVALID"),
        (errors.ContentInvalid(), 400, "MANIFEST_INVALID"),
        (errors.BadRequest(), 400, "UNSUPPORTED"),
        (errors.AuthenticationRequired(), 401, "UNAUTHORIZED"),
        (errors.ScopeInsufficient(), 401, "UNAUTHORIZED"),
        (errors.Forbidden(), 403, "DENIED"),
        (errors.QuotaExceeded(), 403, "DENIED"),
        (errors.RepositoryNotFound(), 404, "NAME_UNKNOWN"),
        (errors.PackageNotFound(), 404, "NAME_UNKNOWN"),
        (errors.VersionNotFound(), 404, "MANIFEST_UNKNOWN"),
        (errors.FileNotFound(), 404, "BLOB_UNKNOWN"),
        (errors.UploadNotFound(), 404, "BLOB_UPLOAD_UNKNOWN"),
        (errors.MethodNotAllowed(), 405, "UNSUPPORTED"),
        (errors.Conflict(), 409, "DENIED"),
        (errors.TooLarge(), 413, "SIZE_INVALID"),
        (errors.RangeInvalid(), 416, "BLOB_UPLOAD_INVALID"),
        (errors.TooManyRequests(), 429, "TOOMANYREQUESTS"),
        (errors.UpstreamFailed(), 502, "UNAVAILABLE"),
        (errors.Unavailable(), 503, "UNAVAILABLE"),
        (errors.UpstreamTimeout(), 504, "UNAVAILABLE"),
        (errors.StorageFull(), 507, "UNAVAILABLE"),
        (errors.RepomanError(), 500, "UNKNOWN"),
    ],
)
def test_H1_H2_H3_every_error_has_the_specs_envelope(error: errors.RepomanError, status: int, code: str) -> None:
    response = handler.error(error, mount=MOUNT, head=False)
    assert (response.status, code_of(response)) == (status, code)
    assert headers_of(response)["Content-Type"] == "application/json"
    assert body_of(response)["errors"][0]["message"]


def test_quota_refusals_name_usage_and_limit() -> None:
    error = errors.QuotaExceeded("the namespace 'ns' is full", used_bytes=90, quota_bytes=100, needed_bytes=20)
    (item,) = body_of(handler.error(error, mount=MOUNT, head=False))["errors"]
    assert "90" in item["message"] and "100" in item["message"] and item["detail"]["needed_bytes"] == 20


# --- pushing and pulling ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_M1_M2_P1_what_was_pushed_is_served(repo: MemoryRepo, algorithm: str) -> None:
    sample = samples.image(algorithm=algorithm)
    pushed = push(repo, sample, image="team/app")
    assert pushed.status == 201
    sent = headers_of(pushed)
    assert sent["Location"] == f"/v2/ns/repo/team/app/manifests/{sample.digest}"
    assert sent["Docker-Content-Digest"] == sample.digest
    assert "OCI-Subject" not in sent and "OCI-Tag" not in sent
    got = ask(repo, "GET", f"team/app/manifests/{sample.digest}")
    assert isinstance(got.content, BlobRef)
    assert (got.content.digest, got.content.media_type) == (Digest.of(sample.manifest), sample.media_type)
    assert headers_of(got)["Docker-Content-Digest"] == sample.digest
    assert "immutable" in headers_of(got)["Cache-Control"]


def test_M3_the_digest_in_the_address_must_be_the_bodys(repo: MemoryRepo) -> None:
    sample = samples.image()
    other = samples.image("other").digest
    for reference in (other, "sha256:baddigeststring", "sha256:" + "A" * 64, "sha384:" + "a" * 96):
        response = ask(repo, "PUT", f"app/manifests/{reference}", sample.manifest, content_type=sample.media_type)
        assert (response.status, code_of(response)) == (400, "DIGEST_INVALID")


def test_M9_missing_parts_are_named_one_by_one(repo: MemoryRepo) -> None:
    sample = samples.image(layers=2)
    response = ask(repo, "PUT", "app/manifests/1", sample.manifest, content_type=sample.media_type)
    items = body_of(response)["errors"]
    assert response.status == 400
    assert {item["code"] for item in items} == {"MANIFEST_BLOB_UNKNOWN"}
    assert {item["detail"]["digest"] for item in items} == set(sample.blobs)


def test_M10_sparse_manifests_are_an_option() -> None:
    repo = MemoryRepo(options=handler.parse_options({"allow_sparse_manifests": True}))
    for sample in (samples.image(), samples.index()):
        path = f"app/manifests/{sample.digest}"
        assert ask(repo, "PUT", path, sample.manifest, content_type=sample.media_type).status == 201


def test_M13_a_referrer_is_acknowledged_even_before_its_subject(repo: MemoryRepo) -> None:
    subject = samples.image()
    response = push(repo, samples.artifact(subject=subject.descriptor()))
    assert headers_of(response)["OCI-Subject"] == subject.digest


def test_M14_several_tags_in_one_push(repo: MemoryRepo) -> None:
    sample = samples.image(algorithm="sha512")
    tags = [f"v{number}" for number in range(10)]
    response = push(repo, sample, query="&".join(f"tag={tag}" for tag in tags))
    assert response.status == 201
    assert headers_of(response)["OCI-Tag"].split(", ") == tags
    assert headers_of(ask(repo, "GET", "app/manifests/v3"))["Docker-Content-Digest"] == sample.digest


def test_M14_one_bad_tag_refuses_the_push(repo: MemoryRepo) -> None:
    assert push(repo, samples.image(), query="tag=ok&tag=.bad").status == 400
    assert not repo.versions
    many = "&".join(f"tag=t{number}" for number in range(101))
    assert push(repo, samples.image(), query=many).status == 413


def test_M14_tags_count_only_on_a_push_by_digest(repo: MemoryRepo) -> None:
    response = push(repo, samples.image(), "one", query="tag=two")
    assert response.status == 201 and "OCI-Tag" not in headers_of(response)
    assert set(repo.tags) == {("app", "one")}


def test_M15_B13_a_manifest_over_4_mib_is_too_large(repo: MemoryRepo) -> None:
    response = ask(repo, "PUT", "app/manifests/1", b" " * (MAX_BYTES + 1))
    assert (response.status, code_of(response)) == (413, "SIZE_INVALID")


def test_M12_an_index_of_blobs_is_taken(repo: MemoryRepo) -> None:
    image = samples.image()
    push(repo, image)
    members = [image.body["config"], *image.body["layers"]]
    data = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": members}).encode()
    assert ask(repo, "PUT", "app/manifests/cache", data, content_type=OCI_INDEX).status == 201


def test_what_a_manifest_asks_of_publish(repo: MemoryRepo) -> None:
    body = samples.image(layers=2, annotations={"a": "b"}).body
    body["layers"][1]["urls"] = ["https://elsewhere.example/layer"]
    foreign = body["layers"][1]["digest"]
    data = json.dumps(body).encode()
    for digest, blob in samples.image(layers=2).blobs.items():
        repo.attach("app", digest, staged_of(blob))
    assert ask(repo, "PUT", "app/manifests/1", data, content_type=body["mediaType"]).status == 201
    publication = repo.versions["app", str(Digest.of(data))]
    assert publication.tags == ("1",) and publication.require_parts
    new = publication.version
    assert new is not None
    assert new.files == (body["config"]["digest"], body["layers"][0]["digest"])
    assert new.optional == (foreign,)
    assert new.sizes[foreign] == body["layers"][1]["size"]
    assert new.metadata["annotations"] == {"a": "b"}


@pytest.mark.parametrize("path", ["app/manifests/nope", "app/manifests/.INVALID", f"app/manifests/{EMPTY_DIGEST}"])
def test_P5_H4_what_is_not_there_is_manifest_unknown(repo: MemoryRepo, path: str) -> None:
    for method in ("GET", "HEAD", "DELETE"):
        response = ask(repo, method, path)
        assert (response.status, code_of(response)) == (404, "MANIFEST_UNKNOWN")


def test_H4_a_blob_of_an_image_never_pushed_is_blob_unknown(repo: MemoryRepo) -> None:
    for method in ("GET", "HEAD"):
        response = ask(repo, method, f"app/blobs/{EMPTY_DIGEST}")
        assert (response.status, code_of(response)) == (404, "BLOB_UNKNOWN")


def test_names_and_digests_are_checked_on_every_route(repo: MemoryRepo) -> None:
    for method, path in [
        ("GET", "Bad/manifests/x"),
        ("PUT", "Bad/manifests/x"),
        ("DELETE", "Bad/manifests/x"),
        ("GET", f"Bad/blobs/{EMPTY_DIGEST}"),
        ("DELETE", f"Bad/blobs/{EMPTY_DIGEST}"),
        ("POST", "Bad/blobs/uploads/"),
        ("PATCH", "Bad/blobs/uploads/x"),
        ("PUT", "Bad/blobs/uploads/x"),
        ("GET", "Bad/blobs/uploads/x"),
        ("DELETE", "Bad/blobs/uploads/x"),
        ("GET", "Bad/tags/list"),
        ("GET", f"Bad/referrers/{EMPTY_DIGEST}"),
        ("GET", "manifests/x"),
    ]:
        assert code_of(ask(repo, method, path)) == "NAME_INVALID", (method, path)
    for method, path in [
        ("GET", "app/blobs/sha256:bad"),
        ("HEAD", "app/blobs/bad"),
        ("DELETE", "app/blobs/sha256:bad"),
        ("GET", "app/manifests/sha256:bad"),
        ("DELETE", "app/manifests/sha256:bad"),
        ("GET", "app/referrers/sha256:bad"),
        ("PUT", "app/blobs/uploads/x"),
    ]:
        assert code_of(ask(repo, method, path)) == "DIGEST_INVALID", (method, path)


# --- blobs -----------------------------------------------------------------------------------------------------------


def test_B1_B9_a_blob_is_opaque_bytes(repo: MemoryRepo) -> None:
    digest = str(Digest.of(b"<html>"))
    repo.attach("app", digest, staged_of(b"<html>"), media_type="text/html")
    response = ask(repo, "GET", f"app/blobs/{digest}")
    assert isinstance(response.content, BlobRef)
    assert response.content.media_type == "application/octet-stream"
    assert headers_of(response)["Docker-Content-Digest"] == digest


def test_D6_only_head_is_a_promise(repo: MemoryRepo) -> None:
    repo.attach("app", EMPTY_DIGEST, staged_of(b""))
    ask(repo, "GET", f"app/blobs/{EMPTY_DIGEST}")
    assert repo.promises == []
    ask(repo, "HEAD", f"app/blobs/{EMPTY_DIGEST}")
    assert repo.promises == [EMPTY_DIGEST]


def test_the_short_cut_answers_what_the_view_answers(repo: MemoryRepo) -> None:
    sample = samples.image(algorithm="sha512")
    push(repo, sample, query="tag=latest")
    blob = next(iter(sample.blobs))
    for path in ("app/manifests/latest", f"app/manifests/{sample.digest}", f"app/blobs/{blob}"):
        route, match = next(
            (route, match)
            for route in handler.routes
            if "GET" in route.methods and (match := route.regex.match(path)) is not None
        )
        assert route.hot is not None and route.hot_headers is not None
        lookup = route.hot(**match.groupdict())
        assert lookup is not None and lookup.package == "app"
        response = ask(repo, "GET", path)
        assert isinstance(response.content, BlobRef) and response.last_modified is None and response.etag is None
        name = blob if lookup.kind == "file" else sample.digest
        assert lookup.kind == "tag" or lookup.name == name
        headers = route.hot_headers(
            name=name,
            media_type=response.content.media_type,
            digest=response.content.digest.hex,
            captured=match.groupdict(),
            metadata={},
        )
        assert list(headers) == list(response.headers)


# --- uploads ---------------------------------------------------------------------------------------------------------


def start(repo: MemoryRepo, query: str = "") -> tuple[Response, str]:
    response = ask(repo, "POST", "app/blobs/uploads/", query=query)
    assert response.status == 202
    return response, headers_of(response)["Location"].removeprefix(f"{MOUNT}/")


def test_U1_U3_U4_a_session_is_opened(repo: MemoryRepo) -> None:
    response, path = start(repo)
    sent = headers_of(response)
    assert path == f"app/blobs/uploads/{sent['Docker-Upload-UUID']}"
    assert sent["Range"] == "0-0"


def test_N9_without_the_final_slash_too(repo: MemoryRepo) -> None:
    assert ask(repo, "POST", "app/blobs/uploads").status == 202


def test_N8_links_start_with_the_clients_mount(repo: MemoryRepo) -> None:
    response = ask(repo, "POST", "app/blobs/uploads/", mount="/ns/repo/v2")
    assert headers_of(response)["Location"].startswith("/ns/repo/v2/app/blobs/uploads/")


def test_U5_U6_U17_range_is_last_byte_index(repo: MemoryRepo) -> None:
    _, path = start(repo)
    chunk = ask(repo, "PATCH", path, b"0123456789", chunked=True)
    assert (chunk.status, headers_of(chunk)["Range"]) == (202, "0-9")
    status = ask(repo, "GET", path)
    assert (status.status, headers_of(status)["Range"]) == (204, "0-9")
    digest = Digest.of(b"0123456789")
    done = ask(repo, "PUT", path, query=f"digest={digest}")
    assert done.status == 201
    assert headers_of(done)["Location"] == f"{MOUNT}/app/blobs/{digest}"
    assert headers_of(done)["Docker-Content-Digest"] == str(digest)


@pytest.mark.parametrize("form", ["{}-{}", "bytes {}-{}/*", "bytes {}-{}/10", "bytes={}-{}"])
def test_U7_chunks_in_order_with_content_range(repo: MemoryRepo, form: str) -> None:
    _, path = start(repo)
    assert ask(repo, "PATCH", path, b"01234", content_range=form.format(0, 4)).status == 202
    wrong = ask(repo, "PATCH", path, b"01234", content_range=form.format(0, 4))
    assert (wrong.status, code_of(wrong)) == (416, "BLOB_UPLOAD_INVALID")
    assert headers_of(wrong)["Range"] == "0-4"
    digest = Digest.of(b"0123456789")
    last = ask(repo, "PUT", path, b"56789", query=f"digest={digest}", content_range=form.format(5, 9))
    assert last.status == 201


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("0-5", 400),
        ("0-3", 400),
        ("5-0", 416),
        ("a-b", 416),
        ("", 416),
        ("-5", 416),
        ("0-", 416),
        ("0-" + "9" * 19, 416),
    ],
)
def test_U8_content_range_is_judged_before_the_body(repo: MemoryRepo, given: str, status: int) -> None:
    _, path = start(repo)
    assert ask(repo, "PATCH", path, b"01234", content_range=given).status == status
    assert headers_of(ask(repo, "GET", path))["Range"] == "0-0"


def test_U10_the_closing_digest_is_judged(repo: MemoryRepo) -> None:
    for query in ("", "digest=", "digest=sha256:bad", "digest=md5:" + "a" * 32):
        _, path = start(repo)
        assert code_of(ask(repo, "PUT", path, b"x", query=query)) == "DIGEST_INVALID"
    _, path = start(repo)
    assert ask(repo, "PUT", path, b"x", query=f"digest={EMPTY_DIGEST}").status == 400


def test_U11_U21_G2_one_post_is_enough(repo: MemoryRepo) -> None:
    for data in (b"", b"{}", b"x" * 1000):
        for algorithm in ("sha256", "sha512"):
            digest = Digest.of(data, algorithm)
            response = ask(repo, "POST", "app/blobs/uploads/", data, query=f"digest={digest}")
            assert response.status == 201
            assert headers_of(response)["Location"] == f"{MOUNT}/app/blobs/{digest}"
            kept = repo.files["app", str(digest)]
            assert algorithm == "sha256" or kept.others == {"sha512": digest.hex}
    assert ask(repo, "POST", "app/blobs/uploads/", b"x", query=f"digest={EMPTY_DIGEST}").status == 400


def test_U12_U13_U14_mounts(repo: MemoryRepo) -> None:
    repo.elsewhere["other/repo/image", EMPTY_DIGEST] = staged_of(b"")
    for query in (f"mount={EMPTY_DIGEST}&from=other%2Frepo%2Fimage&origin=x", f"mount={EMPTY_DIGEST}"):
        response = ask(repo, "POST", "app/blobs/uploads/", query=query)
        assert response.status == 201
        assert headers_of(response)["Location"] == f"{MOUNT}/app/blobs/{EMPTY_DIGEST}"
        assert headers_of(response)["Docker-Content-Digest"] == EMPTY_DIGEST
    unknown = Digest.of(b"unknown")
    for source in ("&from=other/repo/image", "&from=nobody/knows/it", "&from=../x", "&from=", ""):
        start(repo, f"mount={unknown}{source}")
    assert ask(repo, "POST", "app/blobs/uploads/", query="mount=sha256:bad").status == 400


def test_U19_a_cancelled_session_is_gone(repo: MemoryRepo) -> None:
    _, path = start(repo)
    assert ask(repo, "DELETE", path).status == 204
    for method in ("GET", "DELETE", "PATCH"):
        assert code_of(ask(repo, method, path)) == "BLOB_UPLOAD_UNKNOWN"


def test_4c_the_algorithm_may_be_named_first(repo: MemoryRepo) -> None:
    response, _ = start(repo, "digest-algorithm=sha512")
    assert "sha512" in headers_of(response)["Docker-Upload-UUID"]
    for bad in ("sha384", "", "SHA256"):
        assert ask(repo, "POST", "app/blobs/uploads/", query=f"digest-algorithm={bad}").status == 400


# --- listings --------------------------------------------------------------------------------------------------------


def test_L1_L4_tags_page_with_relative_links(repo: MemoryRepo) -> None:
    for tag in ("b", "a", "V1", "sha256-" + "a" * 64):
        push(repo, samples.image(), tag)
    everything = ask(repo, "GET", "app/tags/list")
    assert body_of(everything) == {"name": "ns/repo/app", "tags": ["V1", "a", "b", "sha256-" + "a" * 64]}
    assert "Link" not in headers_of(everything)
    first = ask(repo, "GET", "app/tags/list", query="n=2")
    assert body_of(first)["tags"] == ["V1", "a"]
    assert headers_of(first)["Link"] == f'<{MOUNT}/app/tags/list?n=2&last=a>; rel="next"'
    assert body_of(ask(repo, "GET", "app/tags/list", query="last=aa"))["tags"] == ["b", "sha256-" + "a" * 64]


def test_L2_n_is_a_count(repo: MemoryRepo) -> None:
    push(repo, samples.image(), "a")
    nothing = ask(repo, "GET", "app/tags/list", query="n=0")
    assert (body_of(nothing)["tags"], "Link" in headers_of(nothing)) == ([], False)
    for bad in ("-1", "x", "", "1.5", "٣"):
        assert ask(repo, "GET", "app/tags/list", query=f"n={bad}").status == 400
    assert body_of(ask(repo, "GET", "app/tags/list", query="n=999999999"))["tags"] == ["a"]


def test_L1_L6_no_tags_is_not_no_image(repo: MemoryRepo) -> None:
    assert code_of(ask(repo, "GET", "app/tags/list")) == "NAME_UNKNOWN"
    push(repo, samples.image())
    assert body_of(ask(repo, "GET", "app/tags/list"))["tags"] == []


def test_F1_F2_F7_referrers_of_anything_are_an_index(repo: MemoryRepo) -> None:
    response = ask(repo, "GET", "app/referrers/sha256:" + "0" * 64)
    assert response.status == 200
    assert headers_of(response)["Content-Type"] == OCI_INDEX
    assert body_of(response) == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    assert "OCI-Filters-Applied" not in headers_of(response)


def test_F3_F4_descriptors_and_filters(repo: MemoryRepo) -> None:
    subject = samples.image().descriptor()
    one = samples.artifact(b"1", subject=subject, annotations={"a": "é"}, artifact_type="application/x.one+json")
    two = samples.artifact(b"2", subject=subject, artifact_type="application/x.two")
    three = samples.index([samples.image()], subject=subject)
    for sample in (one, two, three):
        assert push(repo, sample).status == 201
    path = f"app/referrers/{subject['digest']}"
    found = {item["digest"]: item for item in body_of(ask(repo, "GET", path))["manifests"]}
    assert found[one.digest] == one.descriptor(annotations={"a": "é"}, artifactType="application/x.one+json")
    assert found[two.digest] == two.descriptor(artifactType="application/x.two")
    assert found[three.digest] == three.descriptor()
    for query in ("artifactType=application%2Fx.one%2Bjson", "artifactType=application/x.one+json"):
        response = ask(repo, "GET", path, query=query)
        assert [item["digest"] for item in body_of(response)["manifests"]] == [one.digest]
        assert headers_of(response)["OCI-Filters-Applied"] == "artifactType"
    both = ask(repo, "GET", path, query="artifactType=application/x.two&artifactType=application/x.one%2Bjson")
    assert len(body_of(both)["manifests"]) == 2


def follow(repo: MemoryRepo, path: str, query: str) -> list[list[str]]:
    pages = []
    while True:
        response = ask(repo, "GET", path, query=query)
        assert isinstance(response.content, bytes) and len(response.content) < 4 * 1024 * 1024
        pages.append([item["digest"] for item in body_of(response)["manifests"]])
        link = headers_of(response).get("Link")
        if link is None:
            return pages
        target = link.removeprefix("<").removesuffix('>; rel="next"')
        assert target.startswith(f"{MOUNT}/{path}?")
        query = target.partition("?")[2]


def test_F5_referrers_page_by_count(repo: MemoryRepo) -> None:
    subject = samples.image().descriptor()
    for number in range(120):
        push(repo, samples.artifact(b"%d" % number, subject=subject))
    path = f"app/referrers/{subject['digest']}"
    assert [len(page) for page in follow(repo, path, "")] == [120]
    pages = follow(repo, path, "n=50&artifactType=application/vnd.example.signature.v1")
    assert [len(page) for page in pages] == [50, 50, 20]
    assert len({digest for page in pages for digest in page}) == 120
    assert follow(repo, path, "n=0") == [[]]


def test_F5_referrers_page_by_size(repo: MemoryRepo) -> None:
    subject = samples.image().descriptor()
    for number in range(4):
        annotations = {"a": "x" * (REFERRERS_BYTES // 2)}
        push(repo, samples.artifact(b"%d" % number, subject=subject, annotations=annotations))
    pages = follow(repo, f"app/referrers/{subject['digest']}", "")
    assert [len(page) for page in pages] == [1, 1, 1, 1]


# --- deleting --------------------------------------------------------------------------------------------------------


def test_D1_D2_D3_D4_deleting_is_accepted(repo: MemoryRepo) -> None:
    sample = samples.image()
    push(repo, sample, "a")
    assert ask(repo, "DELETE", "app/manifests/a").status == 202
    assert ask(repo, "GET", f"app/manifests/{sample.digest}").status == 200
    assert ask(repo, "DELETE", f"app/manifests/{sample.digest}").status == 202
    assert ask(repo, "GET", f"app/manifests/{sample.digest}").status == 404
    blob = next(iter(sample.blobs))
    assert ask(repo, "DELETE", f"app/blobs/{blob}").status == 202
    assert code_of(ask(repo, "DELETE", f"app/blobs/{blob}")) == "BLOB_UNKNOWN"
