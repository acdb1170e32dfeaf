"""One function per endpoint of the distribution spec; the ids (end-N) are those of its endpoint table.

Views get `(repo, request, **captured)` and return a Response; `admit_…` say beforehand how a body is taken. Captured
`image` is the package, `reference` a tag or digest.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from repoman.core.digest import HEX_LENGTH, Digest, looks_like_digest
from repoman.core.errors import (
    AuthenticationRequired,
    DigestInvalid,
    FileNotFound,
    NameInvalid,
    PackageNotFound,
    RangeInvalid,
    SizeInvalid,
    TooLarge,
    VersionNotFound,
)
from repoman.core.format import Repo, Site
from repoman.core.records import Listing, NewVersion, Publication, Staged, UploadState, VersionEntry
from repoman.core.refs import FileRef, ListingRef, TagRef, VersionRef
from repoman.core.served import FOR_EVER, REVALIDATE
from repoman.core.wire import (
    BodyPlan,
    Document,
    DocumentBody,
    Head,
    HotLookup,
    NoBody,
    Query,
    Request,
    Response,
    SessionBody,
    StagedBody,
)

from . import listing, manifest
from .manifest import Manifest
from .names import check_image, check_known_tag, check_new_tag, mount_source, visible_name

# Old docker versions and some probes look for the version header; the spec calls it legacy.
COMMON: tuple[tuple[str, str], ...] = (
    ("Docker-Distribution-Api-Version", "registry/2.0"),
    ("X-Content-Type-Options", "nosniff"),
)
FRESH: tuple[tuple[str, str], ...] = (*COMMON, ("Cache-Control", "private, no-store"))
# A tag moves, a digest never does; what a caller may see depends on the caller, so no shared cache keeps either.
JSON = ("Content-Type", "application/json")
BLOB_TYPE = "application/octet-stream"
MOST_TAGS = 100
_CONTENT_RANGE = re.compile(r"(?:bytes[ =])?([0-9]{1,18})-([0-9]{1,18})(?:/(?:\*|[0-9]{1,18}))?\Z")


# --- host root -------------------------------------------------------------------------------------------------------


def ping(site: Site, request: Request) -> Response:
    """end-1. Anonymous callers are challenged here even if something is public: docker, podman and crane learn only

    from this answer that there is a way to sign in. A registry token counts, even one issued to nobody.
    """
    _demand_credentials(site)
    return Response(200, [JSON, *FRESH], b"{}")


def catalog(site: Site, request: Request) -> Response:
    """`_catalog` of the docker API: what the caller may read, across repositories."""
    _demand_credentials(site)
    limit = listing.page_size(request.query, listing.CATALOG_PAGE, listing.CATALOG_PAGE_MOST)
    names = list(site.names("oci", after=request.query.get("last") or "", limit=limit + 1)) if limit else []
    headers = [JSON, *FRESH]
    if len(names) > limit:
        names = names[:limit]
        headers.append(listing.next_link("/v2/_catalog", [("n", str(limit)), ("last", names[-1])]))
    return Response(200, headers, listing.catalog(names))


def _demand_credentials(site: Site) -> None:
    if site.actor.is_anonymous and site.actor.scopes is None:
        raise AuthenticationRequired("sign in to use this registry")


# --- manifests -------------------------------------------------------------------------------------------------------


def hot_manifest(image: str, reference: str) -> HotLookup:
    return HotLookup("version" if looks_like_digest(reference) else "tag", image, reference)


def manifest_headers(
    *, name: str, media_type: str, digest: str, captured: Any, metadata: Any = None
) -> list[tuple[str, str]]:
    """The headers of a manifest; `name` is the version's name: the digest by which the manifest was pushed."""
    by_digest = looks_like_digest(captured["reference"])
    return [*COMMON, FOR_EVER if by_digest else REVALIDATE, ("Docker-Content-Digest", name)]


def manifest_ref(image: str, reference: str) -> TagRef | VersionRef:
    return VersionRef(image, reference) if looks_like_digest(reference) else TagRef(image, reference)


def blob_ref(image: str, digest: str) -> FileRef:
    return FileRef(image, digest)


def tags_ref(image: str) -> ListingRef:
    return ListingRef("tags", image)


def referrers_ref(image: str, digest: str) -> ListingRef:
    return ListingRef(listing.REFERRERS, image, arguments=(("subject", digest),))


def get_manifest(repo: Repo, request: Request, image: str, reference: str) -> Response:
    """end-3. Serves what was pushed whatever Accept says: a client that cannot use it says so better than a 406."""
    check_image(image, repo.key)
    entry = _find_version(repo, image, reference)
    if entry.document is None:
        raise VersionNotFound(f"there is no manifest '{reference}' in '{image}'")
    headers = manifest_headers(
        name=entry.version,
        media_type=entry.document.media_type,
        digest=entry.document.digest.hex,
        captured={"image": image, "reference": reference},
    )
    return Response(200, headers, entry.document)


def _find_version(repo: Repo, image: str, reference: str) -> VersionEntry:
    try:
        if looks_like_digest(reference):
            return repo.version(VersionRef(image, str(Digest.parse(reference))))
        return repo.version(TagRef(image, check_known_tag(reference)))
    except PackageNotFound:
        # jib takes only MANIFEST_UNKNOWN for "not there yet".
        raise VersionNotFound(f"there is no manifest '{reference[:150]}' in '{image}'") from None


def admit_manifest(repo: Repo, head: Head, image: str, reference: str) -> BodyPlan:
    check_image(image, repo.key)
    if looks_like_digest(reference):
        Digest.parse(reference)
        _tags_of(head.query)
    else:
        check_new_tag(reference)
    return DocumentBody(manifest.MAX_BYTES)


def put_manifest(repo: Repo, request: Request, image: str, reference: str) -> Response:
    """end-7a and, with `?tag=`, end-7b. The bytes are kept as they came."""
    check_image(image, repo.key)
    assert isinstance(request.body, Document)
    data = request.body.data
    if looks_like_digest(reference):
        expected = Digest.parse(reference)
        digest = Digest.of(data, expected.algorithm)
        if digest != expected:
            raise DigestInvalid(f"the manifest has the digest {digest}, not {expected}")
        tags = asked = _tags_of(request.query)
    else:
        digest = Digest.of(data)
        tags, asked = (check_new_tag(reference),), ()
    parsed = manifest.parse(data, request.headers.get("content-type"))
    staged = repo.stage_bytes(data, _further(digest))
    repo.publish(
        Publication(
            package=image,
            version=new_version(str(digest), staged, parsed),
            tags=tags,
            require_parts=not repo.options.allow_sparse_manifests,
        )
    )
    headers = [
        *FRESH,
        ("Location", f"{request.mount}/{image}/manifests/{digest}"),
        ("Docker-Content-Digest", str(digest)),
    ]
    if parsed.subject:
        headers.append(("OCI-Subject", parsed.subject))
    if asked:
        headers.append(("OCI-Tag", ", ".join(asked)))
    return Response(201, headers)


def new_version(name: str, staged: Staged | None, parsed: Manifest) -> NewVersion:
    """What a manifest publishes: the blobs and manifests that it names, whether they must be there, and their sizes."""
    wanted = _distinct(part.digest for part in parsed.blobs if not part.is_foreign)
    either = _distinct(part.digest for part in parsed.children if not part.is_foreign)
    foreign = _distinct(part.digest for part in (*parsed.blobs, *parsed.children) if part.is_foreign)
    return NewVersion(
        version=name,
        document=staged,
        media_type=parsed.media_type,
        files=wanted,
        either=either,
        optional=tuple(digest for digest in foreign if digest not in wanted and digest not in either),
        sizes=parsed.sizes(),
        subject=parsed.subject,
        artifact_type=parsed.artifact_type,
        metadata={"annotations": dict(parsed.annotations), "config_type": parsed.config_type},
    )


def _distinct(digests: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(digests))


def _tags_of(query: Query) -> tuple[str, ...]:
    tags = _distinct(query.all("tag"))
    if len(tags) > MOST_TAGS:
        raise TooLarge(f"at most {MOST_TAGS} tags can be set with one push")
    return tuple(check_new_tag(tag) for tag in tags)


def delete_manifest(repo: Repo, request: Request, image: str, reference: str) -> Response:
    """end-9. By tag only the tag goes; by digest the manifest and every tag to it."""
    check_image(image, repo.key)
    try:
        if looks_like_digest(reference):
            repo.remove_version(VersionRef(image, str(Digest.parse(reference))))
        else:
            repo.remove_tag(TagRef(image, check_known_tag(reference)))
    except PackageNotFound:
        raise VersionNotFound(f"there is no manifest '{reference[:150]}' in '{image}'") from None
    return Response(202, FRESH)


# --- blobs -----------------------------------------------------------------------------------------------------------


def hot_blob(image: str, digest: str) -> HotLookup:
    return HotLookup("file", image, digest)


def blob_headers(
    *, name: str, media_type: str, digest: str, captured: Any, metadata: Any = None
) -> list[tuple[str, str]]:
    return [*COMMON, FOR_EVER, ("Docker-Content-Digest", name)]


def get_blob(repo: Repo, request: Request, image: str, digest: str) -> Response:
    """end-2. A HEAD is how clients ask whether they may skip an upload, so its 200 is a promise to keep the blob."""
    check_image(image, repo.key)
    name = str(Digest.parse(digest))
    try:
        entry = repo.open(FileRef(image, name), promise=request.method == "HEAD")
    except PackageNotFound:
        raise FileNotFound(f"there is no blob {name} in '{image}'") from None
    headers = blob_headers(
        name=name, media_type=BLOB_TYPE, digest=entry.blob.digest.hex, captured={"image": image, "digest": digest}
    )
    return Response(200, headers, replace(entry.blob, media_type=BLOB_TYPE))


def delete_blob(repo: Repo, request: Request, image: str, digest: str) -> Response:
    """end-10. The service refuses with MethodNotAllowed while a manifest of the image names the blob."""
    check_image(image, repo.key)
    name = str(Digest.parse(digest))
    try:
        repo.remove_file(FileRef(image, name))
    except PackageNotFound:
        raise FileNotFound(f"there is no blob {name} in '{image}'") from None
    return Response(202, FRESH)


# --- uploads ---------------------------------------------------------------------------------------------------------


def admit_start(repo: Repo, head: Head, image: str) -> BodyPlan:
    check_image(image, repo.key)
    if head.query.get("mount"):
        Digest.parse(head.query.get("mount") or "")
        return NoBody()
    if "digest" in head.query:
        digest = _digest_parameter(head.query)
        return StagedBody(expect=digest, algorithms=_further(digest))
    _algorithm(head.query)
    return NoBody()


def start_upload(repo: Repo, request: Request, image: str) -> Response:
    """end-4a, 4b (`?digest=` with the blob as body), 4c (`?digest-algorithm=`) and 11 (`?mount=[&from=]`).

    A mount that cannot be had, for whatever reason, opens a session: clients then send the bytes. Parameters and
    headers that some clients add (`origin`, a JSON Content-Type) mean nothing here.
    """
    check_image(image, repo.key)
    query = request.query
    given = query.get("mount")
    if given:
        digest = Digest.parse(given)
        source = mount_source(request.mount, repo.key, query.get("from"))
        if source != "" and repo.mount(image, str(digest), source):
            return _blob_created(request, image, digest)
    elif isinstance(request.body, Staged):
        digest = _digest_parameter(query)
        repo.attach(image, str(digest), request.body, media_type=BLOB_TYPE)
        return _blob_created(request, image, digest)
    return _session(202, request, image, repo.begin_upload(image, _algorithm(query)))


def admit_chunk(repo: Repo, head: Head, image: str, upload_id: str) -> BodyPlan:
    check_image(image, repo.key)
    start, length = _content_range(head)
    return SessionBody(upload_id, image, start=start, length=length)


def append_chunk(repo: Repo, request: Request, image: str, upload_id: str) -> Response:
    """end-5. docker sends one chunk of unknown length without Content-Range; it goes to where the session stands."""
    assert isinstance(request.body, UploadState)
    return _session(202, request, image, request.body)


def admit_finish(repo: Repo, head: Head, image: str, upload_id: str) -> BodyPlan:
    check_image(image, repo.key)
    digest = _digest_parameter(head.query)
    start, length = _content_range(head)
    if start is None and not head.has_body:
        return NoBody()
    if not start and not repo.has_begun(image, upload_id):
        # All of it at once: there is nothing to continue, so no session has to be kept.
        return StagedBody(expect=digest, algorithms=_further(digest))
    return SessionBody(upload_id, image, start=start, length=length)


def finish_upload(repo: Repo, request: Request, image: str, upload_id: str) -> Response:
    """end-6, with or without a last chunk."""
    check_image(image, repo.key)
    digest = _digest_parameter(request.query)
    if isinstance(request.body, Staged):
        repo.attach(image, str(digest), request.body, media_type=BLOB_TYPE, spent_upload_id=upload_id)
    else:
        staged = repo.finish_upload(image, upload_id, str(digest))
        repo.attach(image, str(digest), staged, media_type=BLOB_TYPE)
    return _blob_created(request, image, digest)


def upload_status(repo: Repo, request: Request, image: str, upload_id: str) -> Response:
    """end-13."""
    check_image(image, repo.key)
    return _session(204, request, image, repo.upload(image, upload_id))


def cancel_upload(repo: Repo, request: Request, image: str, upload_id: str) -> Response:
    """end-14. Who may push may cancel: containers/image holds no delete right when it cleans up after itself."""
    check_image(image, repo.key)
    repo.cancel_upload(image, upload_id)
    return Response(204, FRESH)


def _blob_created(request: Request, image: str, digest: Digest) -> Response:
    location = f"{request.mount}/{image}/blobs/{digest}"
    return Response(201, [*FRESH, ("Location", location), ("Docker-Content-Digest", str(digest))])


def _session(status: int, request: Request, image: str, state: UploadState) -> Response:
    """Where the session goes on. Range has no unit and ends at the last byte kept: docker computes layer sizes from it.

    An empty session says 0-0 as well (distribution-spec issues 577 and 578).
    """
    headers = [
        *FRESH,
        ("Location", f"{request.mount}/{image}/blobs/uploads/{state.upload_id}"),
        ("Range", upload_range(state.offset)),
        ("Docker-Upload-UUID", state.upload_id),
    ]
    return Response(status, headers)


def upload_range(offset: int) -> str:
    return f"0-{max(offset - 1, 0)}"


def _digest_parameter(query: Query) -> Digest:
    given = query.get("digest")
    if not given:
        raise DigestInvalid("the parameter 'digest' is missing")
    return Digest.parse(given)


def _algorithm(query: Query) -> str:
    given = query.get("digest-algorithm", "sha256") or ""
    if given not in HEX_LENGTH:
        raise DigestInvalid(f"'{given[:40]}' is not a supported digest algorithm; use {' or '.join(HEX_LENGTH)}")
    return given


def _further(digest: Digest) -> tuple[str, ...]:
    """What must be hashed besides sha256 so that the bytes can be known by this digest."""
    return () if digest.is_identity else (digest.algorithm,)


def _content_range(head: Head) -> tuple[int | None, int | None]:
    """(offset, length) as the client declares them; (None, None) without Content-Range.

    The spec's form is `first-last`; `bytes first-last/total` is taken too. RangeInvalid if malformed, SizeInvalid if
    it contradicts Content-Length.
    """
    given = head.headers.get("content-range")
    if given is None:
        return None, None
    match = _CONTENT_RANGE.match(given.strip())
    if match is None:
        raise RangeInvalid("Content-Range must be <first byte>-<last byte>")
    first, last = int(match[1]), int(match[2])
    if last < first:
        raise RangeInvalid("Content-Range ends before it starts")
    length = last - first + 1
    if head.length is not None and head.length != length:
        raise SizeInvalid(f"Content-Range covers {length} bytes but Content-Length is {head.length}")
    return first, length


# --- listings --------------------------------------------------------------------------------------------------------


def list_tags(repo: Repo, request: Request, image: str) -> Response:
    """end-8. Tags in byte order; `last` need not exist; `n=0` is an empty page without a link."""
    check_image(image, repo.key)
    limit = listing.page_size(request.query, listing.TAGS_PAGE, listing.TAGS_PAGE)
    after = request.query.get("last") or ""
    found = repo.listing(ListingRef("tags", image, after=after, limit=max(limit, 1)))
    tags = [entry.name for entry in found.entries][:limit]
    headers = [JSON, *FRESH]
    if tags and (found.more or len(found.entries) > limit):
        headers.append(listing.next_link(f"{request.mount}/{image}/tags/list", [("n", str(limit)), ("last", tags[-1])]))
    return Response(200, headers, listing.tag_list(visible_name(request.mount, image), tags))


def list_referrers(repo: Repo, request: Request, image: str, digest: str) -> Response:
    """end-12. Always an index: an unknown subject, and even an unknown image, just has no referrers."""
    check_image(image, repo.key)
    subject = str(Digest.parse(digest))
    # `+` is common in media types and some clients leave it unescaped, which a query decodes to a space.
    types = [value.replace(" ", "+") for value in request.query.all("artifactType") if value]
    limit = listing.page_size(request.query, 0, 2**31) if "n" in request.query else None

    def read(after: str, count: int) -> Listing:
        arguments = (("subject", subject), *(("artifactType", value) for value in types))
        for kind in (listing.REFERRERS, listing.REFERRERS_BY_TAG):  # upstreams of the older kind have a tag for it
            try:
                return repo.listing(ListingRef(kind, image, after=after, limit=count, arguments=arguments))
            except PackageNotFound:
                continue
        return Listing(())

    page: list[bytes] = []
    last = ""
    if limit != 0:
        page, last = listing.referrers_page(read, request.query.get("last") or "", limit)
    headers = [("Content-Type", manifest.OCI_INDEX), *FRESH]
    if types:
        headers.append(("OCI-Filters-Applied", "artifactType"))
    if last:
        parameters = [("artifactType", value) for value in types]
        if limit is not None:
            parameters.append(("n", str(limit)))
        headers.append(listing.next_link(f"{request.mount}/{image}/referrers/{subject}", [*parameters, ("last", last)]))
    return Response(200, headers, listing.referrers_index(page))


# --- addresses without an image --------------------------------------------------------------------------------------


def no_image(repo: Repo, request: Request) -> Response:
    """Names the mistake: `ns/repo:tag` without an image below the repository."""
    raise NameInvalid(f"an image needs a name below the repository, as in {visible_name(request.mount, 'image')}")
