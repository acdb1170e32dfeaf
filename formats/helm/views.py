"""One function per address: the index, archives and what lies beside them, ChartMuseum's API, uploads.

What an archive is comes from its Chart.yaml, never from the name it was sent or asked for with. Answers and errors of the
API are ChartMuseum's.
"""

from __future__ import annotations

import base64
import importlib.metadata
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import orjson

from repoman.core.errors import (
    BadRequest,
    Conflict,
    ContentInvalid,
    FileNotFound,
    NameInvalid,
    NotFound,
    Unavailable,
    VersionNotFound,
)
from repoman.core.format import Repo
from repoman.core.multipart import MultipartParser, is_form
from repoman.core.names import shown
from repoman.core.records import Facts, FileEntry, NewFile, NewVersion, Publication, Rendered, Staged
from repoman.core.refs import FileRef, ListingRef, VersionRef
from repoman.core.served import REVALIDATE, SANDBOXED, attachment, freshness
from repoman.core.wire import (
    BodyPlan,
    Head,
    HotLookup,
    Part,
    Parts,
    PartsBody,
    Request,
    Response,
    StagedBody,
    check_whole,
)

from . import listing, names
from .package import CHART_BYTES, CONTENT, PROVENANCE_BYTES
from .values import read_values

JSON = ("Content-Type", listing.JSON_TYPE)
CHART_TYPE = "application/gzip"
PROVENANCE_TYPE = "application/pgp-signature"
FORM_FILES = ("chart", "prov")
FIELDS_BYTES = 8 * 1024 * 1024  # of what a form sends without a file's name, and is held in memory
INDEX = ListingRef("packages")


class AlreadyThere(Conflict):
    """file already exists"""


def answer(value: object, status: int = 200) -> Response:
    return Response(status, [JSON, *SANDBOXED, ("Cache-Control", "no-store")], orjson.dumps(value))


def _document(document: Rendered) -> Response:
    return Response(200, [*SANDBOXED, *freshness(document)], document)


# --- the index -------------------------------------------------------------------------------------------------------


def index_ref() -> ListingRef:
    return INDEX


def index(repo: Repo, request: Request) -> Response:
    return _document(repo.document(INDEX, listing.INDEX, request.mount))


def not_the_index(repo: Repo, request: Request) -> Response:
    """What people open in a browser."""
    raise NotFound(f"there is nothing here; the index is at {request.address}/index.yaml")


# --- files -----------------------------------------------------------------------------------------------------------


def file_ref(file: str, name: str = "") -> FileRef | None:
    return next(iter(names.refs(file, name)), None)


def hot_file(file: str, name: str = "") -> HotLookup | None:
    found = names.refs(file, name)
    return HotLookup("file", found[0].package, found[0].path) if len(found) == 1 else None


def file(repo: Repo, request: Request, file: str, name: str = "") -> Response:
    """An archive or the provenance beside it."""
    entry = repo.open(_found(repo, file, name))
    headers = file_headers(name=entry.path, media_type=entry.blob.media_type, digest=entry.blob.digest.hex)
    return Response(200, headers, entry.blob)


def _found(repo: Repo, file: str, name: str = "") -> FileRef:
    """The file of the chart that has it: names and versions may both have dashes. Of several, in a virtual repository, the
    first member's; a provenance file is that of the archive. Raises FileNotFound."""
    refs = names.refs(file, name)
    if not refs:
        raise FileNotFound(f"{repo.key} has no file '{shown(file)}'")
    if len(refs) == 1:
        return refs[0]
    archives = {FileRef(ref.package, file.removesuffix(names.PROVENANCE)): ref for ref in refs}
    found = repo.first_of(tuple(archives))
    if found is not None:
        return archives[found]
    return repo.first_of(refs) or refs[0]


def file_headers(
    *, name: str, media_type: str, digest: str, captured: Any = None, metadata: Mapping[str, object] | None = None
) -> list[tuple[str, str]]:
    """All headers but those of the edge. Never a content coding: clients would keep what they unpacked, or unpack twice."""
    is_provenance = name.endswith(names.PROVENANCE)
    return [
        ("Content-Type", PROVENANCE_TYPE if is_provenance else CHART_TYPE),
        ("Content-Disposition", attachment(name)),
        *SANDBOXED,
        REVALIDATE,
    ]


# --- ChartMuseum's API: reading --------------------------------------------------------------------------------------


def charts(repo: Repo, request: Request) -> Response:
    """All charts, or a page of them: `offset` and `limit` count names in their order."""
    offset = _number(request, "offset", 0)
    limit = _number(request, "limit", 1)
    arguments = (("offset", str(offset)),) if offset else ()
    ref = ListingRef("packages", limit=limit, arguments=arguments)
    return _document(repo.document(ref, listing.CHARTS, request.mount))


def _number(request: Request, name: str, least: int) -> int | None:
    given = request.query.get(name)
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and len(given) < 19) or int(given) < least:
        raise BadRequest(f"'{name}' must be a whole number, {least} or more")
    return int(given)


def chart_ref(name: str, **captured: str) -> ListingRef:
    return ListingRef("versions", name)


def chart(repo: Repo, request: Request, name: str) -> Response:
    return _document(repo.document(ListingRef("versions", name), listing.CHARTS, request.mount))


def chart_version(repo: Repo, request: Request, name: str, version: str) -> Response:
    ref = ListingRef("versions", name, arguments=((listing.WANTED, version),))
    return _document(repo.document(ref, listing.CHART, request.mount))


def templates(repo: Repo, request: Request, name: str, version: str) -> Response:
    """The files below `templates/` in base64, and the values as JSON."""
    found = _content(repo, name, version)
    files = [
        {"name": path, "data": base64.b64encode(data).decode()}
        for path, data in sorted(found.items())
        if path.startswith("templates/")
    ]
    return answer({"templates": files, "values": read_values(found.get("values.yaml", b""))})


def values(repo: Repo, request: Request, name: str, version: str) -> Response:
    found = _content(repo, name, version)
    if "values.yaml" not in found:
        raise NotFound(f"the chart '{shown(name)}' has no values.yaml")
    return Response(200, [("Content-Type", "application/yaml"), *SANDBOXED, REVALIDATE], found["values.yaml"])


def _content(repo: Repo, name: str, version: str) -> Mapping[str, bytes]:
    entry = _archive(repo, name, version)
    if entry.blob.flight:
        raise Unavailable("the chart is being fetched from its upstream; try again", retry_after_seconds=2)
    try:
        return repo.inspect(CONTENT + entry.path, repo.restage(entry)).documents
    except ContentInvalid as error:  # an upstream's, which nobody looked into; or more than is shown
        raise NotFound(f"the content of '{shown(entry.path)}' cannot be shown: {error.message}") from None


def _archive(repo: Repo, name: str, version: str) -> FileEntry:
    for entry in listing.chosen(repo.listing(ListingRef("versions", name)), version):
        found = listing.archive_of(entry)
        if found is not None:
            return repo.open(FileRef(name, found.path))
    raise VersionNotFound(f"there is no chart '{shown(name)}' of version '{shown(version)}' here")


def health(repo: Repo, request: Request) -> Response:
    return answer({"healthy": True})


def info(repo: Repo, request: Request) -> Response:
    try:
        version = importlib.metadata.version("repoman")
    except importlib.metadata.PackageNotFoundError:
        version = "0"
    return answer({"version": version})


# --- ChartMuseum's API: changing -------------------------------------------------------------------------------------


def admit_charts(repo: Repo, head: Head) -> BodyPlan:
    """A form, or the archive itself under whatever type: curl calls it a form's fields where nobody says otherwise."""
    check_whole(head)
    content_type = head.headers.get("content-type") or ""
    if is_form(content_type):
        parser = MultipartParser(content_type)
        return PartsBody(parser, limit=CHART_BYTES, max_fields_bytes=FIELDS_BYTES, max_parts=100)
    return StagedBody(limit=CHART_BYTES)


def admit_file(repo: Repo, head: Head, **captured: str) -> BodyPlan:
    check_whole(head)
    is_provenance = head.path.endswith(names.PROVENANCE)
    return StagedBody(limit=PROVENANCE_BYTES if is_provenance else CHART_BYTES)


def admit_provenance(repo: Repo, head: Head) -> BodyPlan:
    check_whole(head)
    return StagedBody(limit=PROVENANCE_BYTES)


def post_charts(repo: Repo, request: Request) -> Response:
    if not isinstance(request.body, Parts):
        assert isinstance(request.body, Staged)
        return _save(repo, request, chart=request.body)
    parts = request.body
    try:
        chart, provenance = _of_form(repo, parts)
    except BaseException:
        for part in parts.files():
            if part.staged is not None:
                repo.discard(part.staged)
        raise
    try:
        return _save(repo, request, chart=chart, provenance=provenance)
    except AlreadyThere as error:
        if str(error.detail["path"]).endswith(names.PROVENANCE):
            raise
        raise AlreadyThere("chart already exists", **error.detail) from None


def _of_form(repo: Repo, parts: Parts) -> tuple[Staged | None, Staged | None]:
    """The archive and the provenance file. Nothing that was sent is dropped without a word: a part that has no file's name
    (curl's `-F "prov=<file"`) is the file as well. Empty, it is what browsers send where no file was chosen."""
    found: dict[str, Part] = {}
    for part in parts.parts:
        if part.staged is None and (part.name not in FORM_FILES or not part.data):
            continue
        if part.name not in FORM_FILES or part.name in found:
            raise BadRequest(f"the form has a file '{shown(part.name)}'; one 'chart' and one 'prov' are taken")
        found[part.name] = part
    if not found:
        raise BadRequest("the form has no file 'chart' or 'prov'")
    staged = {name: part.staged or repo.stage_bytes(part.data) for name, part in found.items()}
    return staged.get("chart"), staged.get("prov")


def post_provenance(repo: Repo, request: Request) -> Response:
    assert isinstance(request.body, Staged)
    return _save(repo, request, provenance=request.body)


def put_file(repo: Repo, request: Request, file: str, name: str = "") -> Response:
    """As other tools and plain HTTP clients publish: under the name that the content must have."""
    assert isinstance(request.body, Staged)
    if file.endswith(names.PROVENANCE):
        return _save(repo, request, provenance=request.body, named=(name, file))
    return _save(repo, request, chart=request.body, named=(name, file))


def delete(repo: Repo, request: Request, name: str, version: str) -> Response:
    repo.remove_version(VersionRef(name, version))
    return answer({"deleted": True})


def _save(
    repo: Repo,
    request: Request,
    *,
    chart: Staged | None = None,
    provenance: Staged | None = None,
    named: tuple[str, str] = ("", ""),
) -> Response:
    """Publish what came, all of it or nothing. 201 also for what is there already, byte for byte."""
    staged = [one for one in (chart, provenance) if one is not None]
    try:
        publication = _publication(repo, chart, provenance, named)
        may_replace = "force" in request.query and bool(repo.options.allow_overwrite)
        published = repo.publish(replace(publication, may_replace=may_replace))
    except BaseException as error:
        for one in staged:
            repo.discard(one)
        if isinstance(error, Conflict) and "digest" in error.detail:
            raise AlreadyThere("file already exists", reason=error.message, path=error.detail["path"]) from None
        raise
    if published.dropped:
        gone = " and ".join(f"'{path}'" for path in published.dropped)
        return answer({"saved": True, "warning": f"{gone} spoke of other bytes and is not there any more"}, 201)
    return answer({"saved": True}, 201)


def _publication(repo: Repo, chart: Staged | None, provenance: Staged | None, named: tuple[str, str]) -> Publication:
    """What becomes visible. `named`: the chart and the file that the address names, where it does. Raises ContentInvalid,
    NameInvalid, BadRequest for what does not hold together."""
    about = repo.inspect("chart" + names.CHART, chart) if chart is not None else None
    proof = repo.inspect("chart" + names.CHART + names.PROVENANCE, provenance) if provenance is not None else None
    if about is not None and proof is not None and (about.name, about.version) != (proof.name, proof.version):
        raise BadRequest(
            f"the provenance file is of '{shown(proof.name)}' {proof.version}, the chart is "
            f"'{shown(about.name)}' {about.version}"
        )
    facts = about or proof
    assert facts is not None
    archive = names.file_name(facts.name, facts.version)
    beside = archive + names.PROVENANCE
    ours = archive if chart is not None else beside
    if named[0] not in ("", facts.name) or named[1] not in ("", ours):
        sent = "/".join(one for one in named if one)
        raise NameInvalid(
            f"the content is '{shown(ours)}' of '{shown(facts.name)}', and was sent under '{shown(sent)}'"
        )
    files = tuple(_files(archive, chart, about, provenance, proof))
    return Publication(
        facts.name,
        files=files,
        version=NewVersion(facts.version, files=tuple(one.path for one in files), optional=(archive, beside)),
        companions=(beside,) if chart is not None else (),
        rivals=tuple(FileRef(name, archive) for name, _ in names.readings(archive) if name != facts.name),
    )


def _files(
    archive: str, chart: Staged | None, about: Facts | None, provenance: Staged | None, proof: Facts | None
) -> Iterator[NewFile]:
    if chart is not None and about is not None:
        yield NewFile(archive, chart, CHART_TYPE, metadata={listing.ENTRY: about.metadata["entry"]})
    if provenance is not None and proof is not None:
        sha256 = str(proof.metadata["sha256"])
        yield NewFile(archive + names.PROVENANCE, provenance, PROVENANCE_TYPE, about={archive: sha256})
