"""One function per address: pages, files and what lies beside them, the JSON API, uploads.

Names are normalized before anything is looked up. A page is asked for by its form and comes ready made from the
repository; a file's address holds the project and the file's own name, and is good for ever.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import quote

from repoman.core.errors import (
    BadRequest,
    Conflict,
    ContentInvalid,
    Forbidden,
    MethodNotAllowed,
    NameInvalid,
    NotFound,
    PackageNotFound,
)
from repoman.core.format import Repo, Site
from repoman.core.multipart import MultipartParser
from repoman.core.names import shown
from repoman.core.records import Facts, NewFile, NewVersion, Publication, Staged
from repoman.core.refs import FileRef, ListingRef
from repoman.core.served import FOR_EVER, REVALIDATE, SANDBOXED, freshness
from repoman.core.wire import BodyPlan, Head, HotLookup, Parts, PartsBody, Request, Response

from . import listing, negotiation, upload
from .attestations import MEDIA_TYPE as PROVENANCE_TYPE
from .attestations import provenance_of
from .names import (
    METADATA_SUFFIX,
    PROVENANCE_SUFFIX,
    known_name,
    normalize,
    parse_listed,
    parse_version,
)

PAGE_POLICY: tuple[tuple[str, str], ...] = (
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
)
BINARY = "application/octet-stream"
PLAIN_TEXT = "text/plain; charset=utf-8"


class FileExists(BadRequest):
    """File already exists."""

    code: ClassVar[str] = "file_exists"


# --- pages -----------------------------------------------------------------------------------------------------------


def root(repo: Repo, request: Request) -> Response:
    return _document(repo, request, ListingRef("packages"))


def project(repo: Repo, request: Request, project: str) -> Response:
    """A project's page. Another spelling of the name is led to the right one, whether there is such a project or not."""
    name = known_name(project)
    if name != project:
        return _moved(request, f"simple/{name}/")
    return _document(repo, request, ListingRef("versions", name))


def root_without_slash(repo: Repo, request: Request) -> Response:
    return _moved(request, "simple/")


def project_without_slash(repo: Repo, request: Request, project: str) -> Response:
    return _moved(request, f"simple/{known_name(project)}/")


def hatch_page(repo: Repo, request: Request, project: str) -> Response:
    """Hatch asks here, in devpi's place, which files there are already, and reads only HTML."""
    name = known_name(project)
    if name != project:
        return _moved(request, f"+simple/{name}/")
    return _document(repo, request, ListingRef("versions", name))


def page_ref(project: str = "", **captured: str) -> ListingRef | None:
    """What `explain` is told that the page is made of."""
    try:
        return ListingRef("versions", normalize(project)) if project else ListingRef("packages")
    except NameInvalid:
        return None


def api(repo: Repo, request: Request, project: str, version: str = "") -> Response:
    """`/{project}/json` and `/{project}/{version}/json`, as the public index has it."""
    name = known_name(project)
    if name != project:
        return _moved(request, f"{name}/{f'{quote(version)}/' if version else ''}json")
    if version and len(version) > 200:
        raise NotFound(f"'{name}' has no version '{shown(version)}'")
    found = parse_version(version)
    form = f"{listing.API}/{found if found is not None else version}" if version else listing.API
    document = repo.document(ListingRef("versions", name), form, request.address)
    return Response(200, [*PAGE_POLICY, *freshness(document)], document)


def _document(repo: Repo, request: Request, ref: ListingRef) -> Response:
    media_type, form = negotiation.choose(request.headers.all("accept"), request.query)
    document = replace(repo.document(ref, form, request.address), media_type=negotiation.content_type(media_type))
    headers = [*PAGE_POLICY, *freshness(document), ("Vary", "Accept")]  # the edge adds Accept-Encoding
    return Response(200, headers, document)


def _moved(request: Request, path: str) -> Response:
    """To the address itself, below the same prefix. It says nothing about what is there."""
    return Response(301, [("Location", f"{request.mount}/{path}{request.query.suffix}"), REVALIDATE, *PAGE_POLICY])


# --- files -----------------------------------------------------------------------------------------------------------


def file_ref(project: str, filename: str) -> FileRef | None:
    try:
        return FileRef(normalize(project), filename)
    except NameInvalid:
        return None


def hot_file(project: str, filename: str) -> HotLookup | None:
    ref = file_ref(project, filename)
    return HotLookup("file", ref.package, ref.path) if ref is not None else None


def file(repo: Repo, request: Request, project: str, filename: str) -> Response:
    """A wheel, an sdist, or a wheel's METADATA beside it."""
    entry = repo.open(FileRef(known_name(project), filename))
    headers = file_headers(name=entry.path, media_type=entry.blob.media_type, digest=entry.blob.digest.hex)
    return Response(200, headers, entry.blob)


def file_headers(
    *, name: str, media_type: str, digest: str, captured: Any = None, metadata: Mapping[str, object] | None = None
) -> list[tuple[str, str]]:
    """All headers of a file but those of the edge. Never a content coding: installers would unpack before they hash."""
    if name.endswith(PROVENANCE_SUFFIX):
        served = PROVENANCE_TYPE
    else:
        served = PLAIN_TEXT if name.endswith(METADATA_SUFFIX) else BINARY
    return [("Content-Type", served), *SANDBOXED, FOR_EVER]


def provenance_ref(project: str, version: str, filename: str) -> FileRef | None:
    return file_ref(project, filename + PROVENANCE_SUFFIX)


def provenance(repo: Repo, request: Request, project: str, version: str, filename: str) -> Response:
    """PEP 740's object about one file."""
    name = known_name(project)
    found = parse_listed(filename, name)
    if found is None or found.version != parse_version(version):
        raise NotFound(f"'{name}' {shown(version)} has no file '{shown(filename)}'")
    entry = repo.open(FileRef(name, filename + PROVENANCE_SUFFIX))
    return Response(200, [("Content-Type", PROVENANCE_TYPE), *SANDBOXED, REVALIDATE], entry.blob)


# --- what people get wrong -------------------------------------------------------------------------------------------


def not_the_index(repo: Repo, request: Request) -> Response:
    """Installers were given the address for uploads."""
    raise MethodNotAllowed(
        f"this address is for uploads (POST); installers use the index at {request.address}/simple/", allow=["POST"]
    )


def not_a_project(repo: Repo, request: Request, project: str) -> Response:
    """What pip asks for if it was given the repository's address instead of the index's."""
    raise NotFound(f"there is nothing here; the index for installers is at {request.address}/simple/")


def admit_to_index(repo: Repo, head: Head, **captured: str) -> BodyPlan:
    raise MethodNotAllowed(
        f"this address is the index for installers; upload to {head.address}/", allow=["GET", "HEAD"]
    )


def not_for_uploads(repo: Repo, request: Request, **captured: str) -> Response:
    raise MethodNotAllowed(allow=["GET", "HEAD"])


def no_trusted_publishing(site: Site, request: Request) -> Response:
    """Tried by uv and twine in CI; they go on with a token when this says quickly that there is no such thing."""
    body = {
        "message": "trusted publishing is not available here; use an API token",
        "errors": [{"code": "not-enabled", "description": "trusted publishing is not available here"}],
    }
    return Response(
        404, [("Content-Type", "application/json"), ("Cache-Control", "no-store")], json.dumps(body).encode()
    )


# --- uploads ---------------------------------------------------------------------------------------------------------


def admit_upload(repo: Repo, head: Head) -> BodyPlan:
    """The file goes to the store as it comes; no field decides anything before the form is complete."""
    return PartsBody(
        MultipartParser(head.headers.get("content-type") or ""),
        max_fields_bytes=upload.FIELD_BYTES,
        max_parts=upload.FIELDS_MOST,
        algorithms=upload.ALGORITHMS,
    )


def put(repo: Repo, request: Request) -> Response:
    """200 for a new file, and for the same bytes again; 400 for other bytes under a name that is or was taken."""
    assert isinstance(request.body, Parts)
    parts = request.body
    try:
        form = upload.read_form(parts)
        repo.publish(_publication(repo, form))
    except Conflict as error:
        _discard(repo, parts)
        if "digest" in error.detail or "burned" in error.detail:
            raise FileExists(f"File already exists: {error.message}", **error.detail) from None
        raise
    except Exception:
        _discard(repo, parts)
        raise
    _discard(repo, parts, but=form.staged)
    return Response(200, [("Content-Type", PLAIN_TEXT), *SANDBOXED], b"OK\n")


def _publication(repo: Repo, form: upload.Upload) -> Publication:
    """Everything that must be true of the upload, and then what becomes visible."""
    distribution = form.distribution
    sums = upload.sums_of(form.staged)
    upload.compare(form.digests, sums)
    state = _state(repo, distribution.project)
    _check_status(state)
    facts = repo.inspect(distribution.filename, form.staged)
    if (facts.name, facts.version) != (distribution.project, distribution.release):
        raise ContentInvalid(f"{distribution.filename} does not hold {distribution.project} {distribution.release}")
    problems = facts.metadata.get("problems")
    if repo.options.check_record and isinstance(problems, list) and problems:
        raise ContentInvalid(str(problems[0]), problems=problems)
    beside = dict(_beside(form, facts, sums["sha256"]))
    files = (
        NewFile(distribution.filename, form.staged, BINARY, metadata=_file_metadata(facts, sums)),
        *(NewFile(distribution.filename + suffix, repo.stage_bytes(data)) for suffix, data in beside.items()),
    )
    core = {key: value for key, value in facts.metadata.items() if key not in ("description", "problems")}
    return Publication(
        package=distribution.project,
        files=files,
        version=NewVersion(distribution.release, files=tuple(file.path for file in files), metadata=core),
        display_name=str(facts.metadata["name"]),
        package_metadata=_description(state, facts),
    )


def _beside(form: upload.Upload, facts: Facts, sha256: str) -> Iterator[tuple[str, bytes]]:
    """The side files, by their suffixes."""
    if "METADATA" in facts.documents:
        yield METADATA_SUFFIX, facts.documents["METADATA"]
    if form.attestations:
        yield PROVENANCE_SUFFIX, provenance_of(form.attestations, filename=form.distribution.filename, sha256=sha256)


def _file_metadata(facts: Facts, sums: Mapping[str, str]) -> dict[str, object]:
    found: dict[str, object] = {name: value for name, value in sums.items() if name != "sha256"}
    requires_python = facts.metadata.get("requires_python")
    if isinstance(requires_python, str):
        found["requires_python"] = requires_python
    return found


def _state(repo: Repo, project: str) -> Mapping[str, object]:
    try:
        return repo.package(project).metadata
    except PackageNotFound:
        return {}


def _check_status(state: Mapping[str, object]) -> None:
    """PEP 792: nothing is uploaded to an archived or quarantined project."""
    status = listing.project_status(state)
    if status.get("status") in ("archived", "quarantined"):
        reason = f": {status['reason']}" if "reason" in status else ""
        raise Forbidden(f"the project is {status['status']} and takes no uploads{reason}")


def _description(state: Mapping[str, object], facts: Facts) -> dict[str, object] | None:
    """The project's description is that of its highest version; the first file of a version decides."""
    text = facts.metadata.get("description")
    known = state.get("description")
    before = parse_version(str(known.get("version"))) if isinstance(known, Mapping) else None
    version = parse_version(facts.version)
    if not isinstance(text, str) or version is None or (before is not None and before >= version):
        return None
    return {"description": {"version": facts.version, "text": text}}


def _discard(repo: Repo, parts: Parts, but: Staged | None = None) -> None:
    """Drop what will not be published: everything, or what else came with it (an old client's signature)."""
    for part in parts.files():
        if part.staged is not None and part.staged is not but:
            repo.discard(part.staged)
