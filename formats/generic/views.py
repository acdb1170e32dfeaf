"""One function per method: files are put, got and deleted under their paths; a path that ends with `/` is a folder."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import replace

from repoman.core import conditions
from repoman.core.conditions import Conditions
from repoman.core.digest import Digest
from repoman.core.errors import (
    FileNotFound,
    Forbidden,
    MethodNotAllowed,
    NameInvalid,
    NotFound,
    PackageNotFound,
    PreconditionFailed,
)
from repoman.core.folder_page import page_size
from repoman.core.format import Repo
from repoman.core.records import FileEntry, Listing, NewFile, Publication, Staged
from repoman.core.refs import FileRef, ListingRef
from repoman.core.served import PAGE, REVALIDATE, SANDBOXED, link
from repoman.core.wire import BodyPlan, Head, HotLookup, NoBody, Request, Response, StagedBody, check_sent, check_whole

from . import checksums, listing
from .content import declared_type, file_headers, served_type
from .names import check_file, check_folder, file_ref, is_folder

JSON = ("Content-Type", "application/json")
PLAIN = (*SANDBOXED, REVALIDATE)


# --- reading ---------------------------------------------------------------------------------------------------------


def hot(path: str) -> HotLookup | None:
    if is_folder(path):
        return None
    if not path.isascii():
        try:
            path = check_file(path)
        except NameInvalid:
            return None
    ref = file_ref(path)
    return HotLookup("file", ref.package, ref.path)


def ref(path: str) -> FileRef | ListingRef:
    """What a path names, for `explain`."""
    return ListingRef("folder", check_folder(path)) if is_folder(path) else file_ref(check_file(path))


def get(repo: Repo, request: Request, path: str) -> Response:
    if is_folder(path):
        return _folder(repo, request, check_folder(path))
    name = check_file(path)
    try:
        entry = _open(repo, name)
    except FileNotFound:
        if _is_folder(repo, name):
            return _to_folder(request, name)
        raise
    headers = file_headers(
        name=entry.path, media_type=entry.blob.media_type, digest=entry.blob.digest.hex, metadata=entry.metadata
    )
    blob = replace(entry.blob, media_type=served_type(entry.path, entry.blob.media_type))
    return Response(200, headers, blob, last_modified=entry.created_at.timestamp())


def _open(repo: Repo, path: str) -> FileEntry:
    try:
        return repo.open(file_ref(path))
    except PackageNotFound:
        raise FileNotFound(f"there is no file '{path}' in this repository") from None


def _is_folder(repo: Repo, path: str) -> bool:
    try:
        return bool(repo.listing(ListingRef("folder", f"{path}/", limit=1)).entries)
    except (FileNotFound, PackageNotFound):
        return False


def _to_folder(request: Request, path: str) -> Response:
    """A folder asked for without its slash: relative links on its page would otherwise lead astray."""
    return Response(301, [("Location", f"{request.mount}/{link(path)}/{request.query.suffix}"), *PLAIN])


def _folder(repo: Repo, request: Request, folder: str) -> Response:
    limit = page_size(request.query)
    after = request.query.get("after") or ""
    try:
        found = repo.listing(ListingRef("folder", folder, after=after, limit=limit))
    except PackageNotFound:
        found = Listing(())
    if folder and not found.entries and not after:
        raise FileNotFound(f"there is no folder '{folder}' in this repository")
    common = [*PAGE, REVALIDATE, ("Vary", "Accept")]
    if listing.wants_json(request.headers.all("accept")):
        address = f"{request.address}/{link(folder)}"
        return Response(200, [JSON, *common], listing.as_json(folder, found, address))
    page = listing.as_html(folder, found, f"{repo.key}/{folder}", limit)
    return Response(200, [("Content-Type", "text/html; charset=utf-8"), *common], page)


# --- writing ---------------------------------------------------------------------------------------------------------


def admit_put(repo: Repo, head: Head, path: str) -> BodyPlan:
    """Everything that can be refused without the body is refused before a byte of it is read."""
    name = check_file(path)
    check_whole(head)
    expected = checksums.declared(head.headers)
    _judge_early(repo, name, conditions.of(head.headers))
    if _is_deploy(head):
        return NoBody()
    check_sent(head)
    sha256 = expected.get("sha256")
    return StagedBody(
        expect=Digest.sha256(sha256) if sha256 else None,
        algorithms=tuple(algorithm for algorithm in expected if algorithm != "sha256"),
    )


def put(repo: Repo, request: Request, path: str) -> Response:
    """201 for a new file, 200 for a replaced one or for bytes that were there already (RFC 9110 §9.3.4)."""
    name = check_file(path)
    expected = checksums.declared(request.headers)
    if _is_deploy(request):
        staged, known = _deploy(repo, expected)
    else:
        assert isinstance(request.body, Staged)
        staged = request.body
        known = _sums(staged.digest.hex, staged.others)
        checksums.compare(expected, known)
    asked = _for_commit(repo, name, conditions.of(request.headers))
    media_type = declared_type(request.headers.get("content-type"))
    ref = file_ref(name)
    metadata = {algorithm: value for algorithm, value in known.items() if algorithm != "sha256"}
    published = repo.publish(
        Publication(
            package=ref.package,
            files=(NewFile(ref.path, staged, media_type=media_type, metadata=metadata),),
            may_replace=repo.options.allow_overwrite,
            if_match=asked.if_match,
            if_none_match=asked.if_none_match,
        )
    )
    location = f"{request.mount}/{link(name)}"
    body = {
        "repo": repo.key,
        "path": name,
        "size": staged.size,
        "mimeType": served_type(name, media_type),
        "checksums": known,
        "downloadUri": f"{request.base_url}{location}",
    }
    headers = [JSON, *PLAIN, ("Location", location), ("ETag", f'"{staged.digest.hex}"')]
    status = 201 if published.created and not published.replaced else 200
    return Response(status, headers, json.dumps(body, ensure_ascii=False).encode())


def _is_deploy(head: Head) -> bool:
    return (head.headers.get("x-checksum-deploy") or "").strip().lower() == "true"


def _deploy(repo: Repo, expected: Mapping[str, str]) -> tuple[Staged, dict[str, str]]:
    """Publish bytes that are here already, named by their checksum: only those the caller may read anyway.

    404 makes clients upload as usual, so that is the answer to everything that cannot be linked. A weaker checksum than
    SHA-256 never selects content.
    """
    sha256 = expected.get("sha256")
    entry = repo.find_in_repository(sha256) if sha256 else None
    if entry is None:
        raise FileNotFound("there is no content with this SHA-256 that could be deployed; upload the file")
    known = _sums(entry.blob.digest.hex, entry.metadata)
    checksums.compare(expected, known)
    return repo.restage(entry), known


def _sums(sha256: str, others: Mapping[str, object]) -> dict[str, str]:
    found = {"sha256": sha256}
    for algorithm in ("sha1", "md5", "sha512"):
        value = others.get(algorithm)
        if isinstance(value, str):
            found[algorithm] = value
    return found


def delete(repo: Repo, request: Request, path: str) -> Response:
    if is_folder(path):
        raise MethodNotAllowed("folders are not deleted as a whole; delete their files", allow=["GET", "HEAD"])
    name = check_file(path)
    asked = conditions.of(request.headers)
    _judge_early(repo, name, Conditions(if_none_match=asked.if_none_match))
    if_match = _for_commit(repo, name, asked).if_match
    try:
        repo.remove_file(file_ref(name), if_match=if_match)
    except PackageNotFound:
        raise FileNotFound(f"there is no file '{name}' in this repository") from None
    return Response(204, PLAIN)


# --- preconditions of writes -----------------------------------------------------------------------------------------


def _judge_early(repo: Repo, path: str, asked: Conditions) -> None:
    """Spares the client a body that would be refused; the transaction judges again, and is what counts."""
    if asked == Conditions():
        return
    try:
        entry = _current(repo, path)
    except Forbidden:  # may write but not read: the transaction alone decides
        return
    current = entry.blob.digest.hex if entry is not None else None
    if asked.if_match is not None and not _fits(asked.if_match, current):
        raise PreconditionFailed("If-Match: the file is not the one you named", current=current)
    if asked.if_none_match is not None and _fits(asked.if_none_match, current):
        raise PreconditionFailed("If-None-Match: the file exists", current=current)
    if asked.unmodified_since is not None and entry is not None:
        _check_date(entry, asked.unmodified_since)


def _for_commit(repo: Repo, path: str, asked: Conditions) -> Conditions:
    """Turns a date condition into the entity tag it was judged on, so that nothing can come in between."""
    if asked.unmodified_since is None:
        return asked
    entry = _current(repo, path)
    if entry is None:
        return replace(asked, if_none_match=conditions.ANY)
    _check_date(entry, asked.unmodified_since)
    return replace(asked, if_match=frozenset({entry.blob.digest.hex}))


def _check_date(entry: FileEntry, limit: datetime.datetime) -> None:
    if entry.created_at.replace(microsecond=0) > limit:
        raise PreconditionFailed("If-Unmodified-Since: the file is newer", current=entry.blob.digest.hex)


def _current(repo: Repo, path: str) -> FileEntry | None:
    try:
        return repo.current(file_ref(path))
    except NotFound:
        return None


def _fits(wanted: frozenset[str], current: str | None) -> bool:
    return current is not None and ("*" in wanted or current in wanted)
