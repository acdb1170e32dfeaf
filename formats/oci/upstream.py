"""Another registry as an upstream: what to ask it for, and what its answers say. distribution-spec "Pull"."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlsplit, urlunsplit

from repoman.core import strictjson
from repoman.core.digest import Digest, looks_like_digest
from repoman.core.errors import ContentInvalid, DigestInvalid
from repoman.core.fetch import Ref, UpstreamRequest
from repoman.core.records import Entry, Listing, NewVersion
from repoman.core.refs import FileRef, ListingRef, TagRef, VersionRef

from . import manifest
from .listing import REFERRERS, REFERRERS_BY_TAG
from .manifest import DOCKER_IMAGE, DOCKER_LIST, OCI_IMAGE, OCI_INDEX
from .views import new_version

ACCEPT = ", ".join((OCI_INDEX, OCI_IMAGE, DOCKER_LIST, DOCKER_IMAGE))
PAGE = 1000
LISTING_BYTES = 16 * 1024 * 1024


def base(url: str) -> str:
    """`https://host/prefix` as clients are told it → the root of its API, `https://host/v2/prefix/`."""
    parts = urlsplit(url)
    path = parts.path.strip("/")
    if path != "v2" and not path.startswith("v2/"):
        path = f"v2/{path}" if path else "v2"
    return urlunsplit((parts.scheme, parts.netloc, f"/{path}/", "", ""))


def request(ref: Ref) -> UpstreamRequest:
    image = quote(ref.package, safe="/")
    match ref:
        case TagRef(_, tag):
            return UpstreamRequest(f"{image}/manifests/{tag}", accept=ACCEPT, limit=manifest.MAX_BYTES)
        case VersionRef(_, digest):
            return UpstreamRequest(f"{image}/manifests/{digest}", accept=ACCEPT, limit=manifest.MAX_BYTES)
        case FileRef(_, digest):
            return UpstreamRequest(f"{image}/blobs/{digest}")
        case ListingRef(kind) if kind in (REFERRERS, REFERRERS_BY_TAG):
            subject = next(value for name, value in ref.arguments if name == "subject")
            where = f"referrers/{subject}" if kind == REFERRERS else f"manifests/{referrers_tag(subject)}"
            return UpstreamRequest(f"{image}/{where}", accept=OCI_INDEX, limit=LISTING_BYTES)
    return UpstreamRequest(f"{image}/tags/list?n={PAGE}", accept="application/json", limit=LISTING_BYTES)


def referrers_tag(subject: str) -> str:
    """distribution-spec "Referrers Tag Schema": the digest as a tag, each part cut to what a tag can hold."""
    algorithm, _, encoded = subject.partition(":")
    return f"{algorithm[:32]}-{encoded[:64]}"


def parse_listing(ref: ListingRef, body: bytes) -> Listing:
    """Tags or referrers, a page or all. Entries that no client could use are left out. Raises ContentInvalid."""
    found = strictjson.load(body)
    if not isinstance(found, dict):
        raise ContentInvalid("the answer is not a JSON object")
    if ref.kind in (REFERRERS, REFERRERS_BY_TAG):
        return _referrers(found)
    tags = found.get("tags", ())
    if tags is None:  # some registries say so of an image without tags
        tags = ()
    if not isinstance(tags, list | tuple) or "errors" in found:
        raise ContentInvalid("the answer is not a list of tags")
    names = sorted({tag for tag in tags if isinstance(tag, str) and 0 < len(tag) <= 128}, key=str.encode)
    return Listing(tuple(Entry(name, kind="tag") for name in names))


def _referrers(found: dict[str, object]) -> Listing:
    manifests = found.get("manifests", ())
    if manifests is None:
        manifests = ()
    if not isinstance(manifests, list | tuple) or found.get("schemaVersion") != 2:
        raise ContentInvalid("the answer is not an image index")
    entries: dict[str, Entry] = {}
    for item in manifests:
        if not isinstance(item, dict):
            continue
        name, size = item.get("digest"), item.get("size")
        try:
            digest = str(Digest.parse(name)) if isinstance(name, str) else ""
        except DigestInvalid:
            continue
        if not digest or type(size) is not int or size < 0:
            continue
        annotations = item.get("annotations")
        entries[digest] = Entry(
            digest,
            kind="version",
            size=size,
            digest=digest,
            media_type=str(item.get("mediaType") or OCI_IMAGE),
            artifact_type=str(item.get("artifactType") or ""),
            metadata={"annotations": annotations} if isinstance(annotations, dict) and annotations else {},
        )
    return Listing(tuple(entries[name] for name in sorted(entries)))


def told_version(headers: Mapping[str, str]) -> str:
    return headers.get("docker-content-digest", "")


def parse_version(ref: VersionRef | TagRef, body: bytes, headers: Mapping[str, str]) -> NewVersion:
    """A manifest as it is published here. Raises ContentInvalid, DigestInvalid."""
    algorithm = ref.version.partition(":")[0] if isinstance(ref, VersionRef) else "sha256"
    digest = Digest.of(body, algorithm)
    if isinstance(ref, VersionRef) and looks_like_digest(ref.version) and str(digest) != ref.version:
        raise DigestInvalid(f"the manifest has the digest {digest}, not {ref.version}")
    _check_told(told_version(headers), body)
    return new_version(str(digest), None, manifest.parse(body, headers.get("content-type", "")))


def _check_told(told: str, body: bytes) -> None:
    """What is asked for by tag has no digest of its own: the one the upstream sends beside it is all there is to find
    bytes that changed on the way. Raises DigestInvalid; what is no digest that we know says nothing."""
    try:
        expected = Digest.parse(told)
    except DigestInvalid:
        return
    if (found := Digest.of(body, expected.algorithm)) != expected:
        raise DigestInvalid(f"the manifest has the digest {found}, but was sent as {told}")
