"""Reading under the addresses of Maven's layout: files as they were uploaded, checksums and metadata of what is there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from repoman.core.errors import (
    FileNotFound,
    NameInvalid,
    NotFound,
    PackageNotFound,
)
from repoman.core.format import Repo
from repoman.core.records import FileEntry, Piece, Rendered
from repoman.core.refs import FileRef, ListingRef
from repoman.core.served import FOR_EVER, REVALIDATE, SANDBOXED, attachment, freshness
from repoman.core.wire import (
    HotLookup,
    Request,
    Response,
)

from . import folders, listing
from .names import (
    METADATA,
    Address,
    ChecksumPlace,
    FolderPlace,
    MetadataPlace,
    Place,
    parse,
)
from .package import has_placeholder

_TYPES = {
    "pom": "application/xml",
    "xml": "application/xml",
    "module": "application/json",
    "json": "application/json",
    "asc": "application/pgp-signature",
    "zip": "application/zip",
    "gz": "application/gzip",
    "txt": "text/plain; charset=utf-8",
}
_JARS = frozenset({"jar", "war", "ear", "rar", "aar", "hpi", "jpi", "nar", "par", "sar", "har"})


# --- reading ---------------------------------------------------------------------------------------------------------


def ref(path: str) -> FileRef | ListingRef | None:
    """What a path names, for `explain`."""
    try:
        address = parse(path)
    except NameInvalid:
        return None
    if isinstance(address, ChecksumPlace):
        address = address.of
    if isinstance(address, MetadataPlace):
        return metadata_ref(address)
    return address.ref if isinstance(address, Place) else None


def hot(path: str) -> HotLookup | None:
    if path.endswith((".md5", ".sha1", ".sha256", ".sha512", METADATA, "/")):
        return None
    try:
        address = parse(path)
    except NameInvalid:
        return None
    return HotLookup("file", address.package, address.path) if isinstance(address, Place) else None


def get(repo: Repo, request: Request, path: str) -> Response:
    if folders.is_short(path):
        return folders.without_slash(repo, request, path)
    address = _named(repo, path)
    if isinstance(address, FolderPlace):
        return folders.folder(repo, request, address)
    if isinstance(address, MetadataPlace):
        return _metadata(repo, request, address)
    if isinstance(address, ChecksumPlace):
        return _checksum(repo, request, address)
    try:
        return _file(repo, repo.open(address.ref), path)
    except (FileNotFound, PackageNotFound):
        if address.part is None:
            return folders.without_slash(repo, request, path)
        raise FileNotFound(f"'{repo.key}' has no file '{path}'") from None


def _named(repo: Repo, path: str) -> Address:
    """What is asked for. What cannot be in any repository is not in this one: builds go on with their next one (H1)."""
    try:
        return parse(path)
    except NameInvalid as error:
        if has_placeholder(path):
            raise
        raise FileNotFound(f"'{repo.key}' has no file '{path}': {error.message}") from None


def _file(repo: Repo, entry: FileEntry, path: str) -> Response:
    headers = file_headers(
        name=entry.path,
        media_type=entry.blob.media_type,
        digest=entry.blob.digest.hex,
        captured={"path": path},
        metadata=entry.metadata,
        options={"allow_redeploy": _may_change(repo)},
    )
    blob = replace(entry.blob, media_type=served_type(entry.path))
    return Response(200, headers, blob, last_modified=entry.created_at.timestamp())


def _may_change(repo: Repo) -> bool:
    """Whether other bytes may take the place of a release's file."""
    return any(options.allow_redeploy for options in repo.content_options)


def file_headers(
    *,
    name: str,
    media_type: str,
    digest: str,
    captured: Mapping[str, str],
    metadata: Mapping[str, object] | None = None,
    options: Mapping[str, object] | None = None,
) -> list[tuple[str, str]]:
    """All headers of a file but those of the edge. The checksums spare clients a request for each (C1)."""
    place = parse(captured["path"])
    assert isinstance(place, Place)
    known = metadata or {}
    headers = [
        ("Content-Type", served_type(name)),
        *SANDBOXED,
        REVALIDATE if place.is_moving or (options or {}).get("allow_redeploy") else FOR_EVER,
        ("Content-Disposition", attachment(name)),
    ]
    for algorithm in ("sha1", "md5"):
        value = known.get(algorithm)
        if isinstance(value, str):
            headers.append((f"X-Checksum-{algorithm.capitalize()}", value))
    if digest:
        headers.append(("X-Checksum-Sha256", digest))
    return headers


def served_type(path: str) -> str:
    extension = path.rpartition(".")[2].lower()
    return "application/java-archive" if extension in _JARS else _TYPES.get(extension, "application/octet-stream")


def _checksum(repo: Repo, request: Request, address: ChecksumPlace) -> Response:
    if isinstance(address.of, MetadataPlace):
        document = _document(repo, request, address.of)
        told = hashlib.new(address.algorithm, document.data, usedforsecurity=False).hexdigest()
        return Response(200, [*SANDBOXED, *freshness(document)], _checksum_document(told))
    place = address.of
    told = repo.digest(place.ref, address.algorithm)
    changes = place.is_moving or _may_change(repo)
    return Response(200, [*SANDBOXED, REVALIDATE if changes else FOR_EVER], _checksum_document(told))


def _checksum_document(told: str) -> Rendered:
    return Rendered((Piece(told.encode()),), b"", "text/plain; charset=us-ascii", f'"{told}"')


def exists(repo: Repo, request: Request, address: Address) -> bool:
    """Whether what is derived, a checksum or metadata, can be read."""
    try:
        if isinstance(address, MetadataPlace):
            _document(repo, request, address)
        elif isinstance(address, ChecksumPlace) and isinstance(address.of, Place):
            repo.open(address.of.ref)
        elif isinstance(address, ChecksumPlace):
            return exists(repo, request, address.of)
    except NotFound:
        return False
    return True


# --- metadata --------------------------------------------------------------------------------------------------------


def metadata_ref(place: MetadataPlace) -> ListingRef:
    if place.version:
        return ListingRef("version", place.package, arguments=(("version", place.version),))
    return ListingRef("releases", place.package)


def _metadata(repo: Repo, request: Request, place: MetadataPlace) -> Response:
    document = _document(repo, request, place)
    sums = [
        (f"X-Checksum-{name.capitalize()}", hashlib.new(name, document.data, usedforsecurity=False).hexdigest())
        for name in ("sha1", "md5")
    ]
    return Response(200, [*SANDBOXED, *freshness(document), *sums], document)


def _document(repo: Repo, request: Request, place: MetadataPlace) -> Rendered:
    """Raises PackageNotFound where nothing is known at that level (G9), FileNotFound for a signature."""
    if place.beside:
        raise FileNotFound(f"'{repo.key}' makes {METADATA} itself, and does not sign it")
    if place.version:
        return repo.document(metadata_ref(place), "", request.address)
    as_artifact, as_group = metadata_ref(place), ListingRef("packages", arguments=(("under", f"{place.group}:"),))
    releases, group = _found(repo, as_artifact, request), _found(repo, as_group, request)
    if releases is not None and group is not None:  # the folder is an artifact and a group
        both = listing.folder(place.package, repo.listing(as_artifact), repo.listing(as_group))
        return replace(releases, pieces=(Piece(both),), packed=b"", etag=f'"{hashlib.sha256(both).hexdigest()[:32]}"')
    found = releases or group
    if found is None:
        raise PackageNotFound(f"'{repo.key}' has no artifact '{place.package}' and no plugins of '{place.group}'")
    return found


def _found(repo: Repo, ref: ListingRef, request: Request) -> Rendered | None:
    try:
        return repo.document(ref, "", request.address)
    except NotFound:
        return None
