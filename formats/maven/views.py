"""Reading and writing under the addresses of Maven's layout: files, their checksums, metadata, folders.

Files are what was uploaded, byte for byte. Checksums and metadata are always made of what is there; what clients upload of
them is checked, answered with success, and otherwise a sign that a version is whole (sections 4 and 5 of the contract).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

from repoman.core.digest import find_hex
from repoman.core.errors import (
    BadRequest,
    ContentInvalid,
    FileNotFound,
    Forbidden,
    MethodNotAllowed,
    NameInvalid,
    NotFound,
    PackageNotFound,
)
from repoman.core.folder_page import Row, as_html, page_size
from repoman.core.format import Repo
from repoman.core.records import Entry, Facts, FileEntry, Gather, Listing, NewFile, Publication, Rendered, Staged
from repoman.core.refs import FileRef, ListingRef
from repoman.core.served import FOR_EVER, PAGE, REVALIDATE, SANDBOXED, attachment, link
from repoman.core.strictxml import load, text
from repoman.core.wire import (
    BodyPlan,
    Document,
    DocumentBody,
    Head,
    HotLookup,
    Request,
    Response,
    StagedBody,
    check_whole,
)

from . import listing
from .complete import EXPECTED
from .names import (
    METADATA,
    Address,
    ChecksumPlace,
    FolderPlace,
    MetadataPlace,
    Place,
    build_prefix,
    check_version,
    parse,
    place_of,
)
from .package import has_placeholder
from .versions import base_of, is_snapshot

CHECKSUM_BYTES = 4096
ANNOUNCED_MOST = 100
NAMES_READ = 50_000
ALGORITHMS = ("md5", "sha1")  # those that clients ask for with every file; the others are computed when asked for
CHANGES = "changes"  # in a file's metadata: other bytes may take its place
TEXT = ("Content-Type", "text/plain; charset=us-ascii")
CREATED = (*SANDBOXED, REVALIDATE)
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
    if _is_short(path):
        return _folder_without_slash(repo, request, path)
    address = _named(repo, path)
    if isinstance(address, FolderPlace):
        return _folder(repo, request, address)
    if isinstance(address, MetadataPlace):
        return _metadata(repo, request, address)
    if isinstance(address, ChecksumPlace):
        return _checksum(repo, request, address)
    try:
        return _file(repo.open(address.ref), path)
    except (FileNotFound, PackageNotFound):
        if address.part is None:
            return _folder_without_slash(repo, request, path)
        raise FileNotFound(f"'{repo.key}' has no file '{path}'") from None


def _named(repo: Repo, path: str) -> Address:
    """What is asked for. What cannot be in any repository is not in this one: builds go on with their next one (H1)."""
    try:
        return parse(path)
    except NameInvalid as error:
        if has_placeholder(path):
            raise
        raise FileNotFound(f"'{repo.key}' has no file '{path}': {error.message}") from None


def check_policy(repo: Repo, address: Address) -> None:
    """Raises BadRequest for what the repository's version policy excludes. What is about several versions is never. It is
    about what comes in: what is here is read whatever the policy says by now, also past other members of a virtual one."""
    if isinstance(address, ChecksumPlace):
        address = address.of
    version = address.version if isinstance(address, Place | MetadataPlace) else ""
    policy = repo.options.version_policy
    if not version or policy == "mixed" or is_snapshot(version) == (policy == "snapshot"):
        return
    kinds = "snapshots" if policy == "snapshot" else "releases"
    raise BadRequest(f"'{repo.key}' takes {kinds} only (its version_policy), and {version} is none of them")


def _file(entry: FileEntry, path: str) -> Response:
    headers = file_headers(
        name=entry.path,
        media_type=entry.blob.media_type,
        digest=entry.blob.digest.hex,
        captured={"path": path},
        metadata=entry.metadata,
    )
    blob = replace(entry.blob, media_type=served_type(entry.path))
    return Response(200, headers, blob, last_modified=entry.created_at.timestamp())


def file_headers(
    *,
    name: str,
    media_type: str,
    digest: str,
    captured: Mapping[str, str],
    metadata: Mapping[str, object] | None = None,
) -> list[tuple[str, str]]:
    """All headers of a file but those of the edge. The checksums spare clients a request for each (C1)."""
    place = parse(captured["path"])
    assert isinstance(place, Place)
    known = metadata or {}
    headers = [
        ("Content-Type", served_type(name)),
        *SANDBOXED,
        REVALIDATE if place.is_moving or known.get(CHANGES) else FOR_EVER,
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
        return Response(200, [TEXT, *SANDBOXED, *_freshness(document)], told.encode())
    place = address.of
    told = repo.digest(place.ref, address.algorithm)
    return Response(200, [TEXT, *SANDBOXED, REVALIDATE if place.is_moving else FOR_EVER], told.encode())


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
    return Response(200, [*SANDBOXED, *_freshness(document), *sums], document)


def _document(repo: Repo, request: Request, place: MetadataPlace) -> Rendered:
    """Raises PackageNotFound where nothing is known at that level (G9)."""
    if place.version:
        return repo.document(metadata_ref(place), "", request.address)
    releases = _found(repo, metadata_ref(place), request)
    group = _found(repo, ListingRef("packages", arguments=(("under", f"{place.group}:"),)), request)
    if releases is not None and group is not None:  # the folder is an artifact and a group
        both = listing.folder(
            place.package,
            repo.listing(metadata_ref(place)),
            repo.listing(ListingRef("packages", arguments=(("under", f"{place.group}:"),))),
        )
        return replace(releases, data=both, packed=b"", etag=f'"{hashlib.sha256(both).hexdigest()[:32]}"')
    found = releases or group
    if found is None:
        raise PackageNotFound(f"'{repo.key}' has no artifact '{place.package}' and no plugins of '{place.group}'")
    return found


def _found(repo: Repo, ref: ListingRef, request: Request) -> Rendered | None:
    try:
        return repo.document(ref, "", request.address)
    except NotFound:
        return None


def _freshness(document: Rendered) -> list[tuple[str, str]]:
    """To be asked for again each time, unless the document says otherwise itself."""
    own = [line for line in document.headers if line[0].lower() == "cache-control"]
    return [] if own else [REVALIDATE]


# --- folders ---------------------------------------------------------------------------------------------------------


def _is_short(path: str) -> bool:
    """Whether a path is too short for a file: a folder without its slash, if anything."""
    return path != "" and not path.endswith("/") and len(path.split("/")) < 4 and METADATA not in path


def _folder_without_slash(repo: Repo, request: Request, path: str) -> Response:
    """To the folder: relative links on its page would otherwise lead astray. Raises FileNotFound."""
    try:
        place = parse(f"{path}/")
        is_there = isinstance(place, FolderPlace) and next(_rows(repo, place.segments), None) is not None
    except (NameInvalid, NotFound):
        is_there = False
    if not is_there:
        raise FileNotFound(f"'{repo.key}' has no file '{path}'")
    return Response(301, [("Location", f"{request.mount}/{link(path)}/{request.query.suffix}"), *PAGE, REVALIDATE])


def _folder(repo: Repo, request: Request, place: FolderPlace) -> Response:
    limit = page_size(request.query)
    after = request.query.get("after") or ""
    found = {row.name: row for row in _rows(repo, place.segments)}
    if place.segments and not found:
        raise FileNotFound(f"'{repo.key}' has no folder '{'/'.join(place.segments)}'")
    names = sorted((name for name in found if name > after), key=str.encode)
    shown = [found[name] for name in names[:limit]]
    page = as_html(
        shown,
        title="/".join((repo.key, *place.segments)) + "/",
        has_parent=bool(place.segments),
        after=shown[-1].name if len(names) > limit else None,
        limit=limit,
    )
    return Response(200, [("Content-Type", "text/html; charset=utf-8"), *PAGE, REVALIDATE], page)


def _rows(repo: Repo, segments: tuple[str, ...]) -> Iterator[Row]:
    """What is in a folder, as a group's, an artifact's and a version's: it may be all of them (P4). Raises FileNotFound
    where groups are not known (of an upstream)."""
    yield from _group(repo, ".".join(segments))
    if len(segments) >= 3:
        package, version = f"{'.'.join(segments[:-2])}:{segments[-2]}", segments[-1]
        yield from _files(repo, package, version)
    if len(segments) >= 2:
        yield from _versions(repo, f"{'.'.join(segments[:-1])}:{segments[-1]}")


def _files(repo: Repo, package: str, version: str) -> Iterator[Row]:
    try:
        found = repo.listing(ListingRef("files", package, arguments=(("under", f"{version}/"),)))
    except PackageNotFound:
        return
    for entry in found.entries:
        yield Row(entry.name.partition("/")[2], entry)
    if found.entries and is_snapshot(version):
        yield Row(METADATA, Entry(METADATA))


def _versions(repo: Repo, package: str) -> Iterator[Row]:
    try:
        found = repo.listing(ListingRef("releases", package))
    except PackageNotFound:
        return
    for entry in found.entries:
        yield Row(f"{entry.name}/", entry)
    if found.entries:
        yield Row(METADATA, Entry(METADATA, modified=found.changed_at))


def _group(repo: Repo, group: str) -> Iterator[Row]:
    """Artifacts and groups directly below a group; what lies deeper is skipped, not read."""
    for separator in (":", ".") if group else ("",):
        prefix = f"{group}{separator}"
        seen: set[str] = set()
        for name in _names(repo, prefix):
            child = name[len(prefix) :].partition(":")[0].partition(".")[0] if separator != ":" else name[len(prefix) :]
            if child not in seen:
                seen.add(child)
                yield Row(f"{child}/", Entry(child, kind="folder"))


def _names(repo: Repo, prefix: str) -> Iterator[str]:
    """Package names that begin so, without most of those that are below the same child."""
    after = ""
    arguments = (("under", prefix),) if prefix else ()
    for _ in range(NAMES_READ):
        page = repo.listing(ListingRef("packages", after=after, limit=200, arguments=arguments))
        for entry in page.entries:
            yield entry.name
        if not page.more or not page.entries:
            return
        last = page.entries[-1].name
        child_end = min(
            (at for at in (last.find(":", len(prefix)), last.find(".", len(prefix))) if at >= 0), default=-1
        )
        # The character after the separator is where the child's names of that kind end.
        after = last if child_end < 0 or prefix.endswith(":") else last[:child_end] + chr(ord(last[child_end]) + 1)


# --- writing ---------------------------------------------------------------------------------------------------------


def admit_put(repo: Repo, head: Head, path: str) -> BodyPlan:
    """Everything that can be refused without the body is refused before a byte of it is read."""
    address = parse(path)
    if isinstance(address, FolderPlace):
        raise MethodNotAllowed("folders are not uploaded; put files", allow=["GET", "HEAD"])
    check_policy(repo, address)
    check_whole(head)
    if isinstance(address, MetadataPlace):
        return DocumentBody(listing.METADATA_BYTES)
    if isinstance(address, ChecksumPlace):
        return DocumentBody(CHECKSUM_BYTES)
    return StagedBody(algorithms=ALGORITHMS)


def put(repo: Repo, request: Request, path: str) -> Response:
    """201, also for bytes that are there already: a deploy that was cut is repeated as a whole (W8)."""
    address = parse(path)
    if isinstance(address, MetadataPlace):
        assert isinstance(request.body, Document)
        _put_metadata(repo, address, request.body.data)
    elif isinstance(address, ChecksumPlace):
        assert isinstance(request.body, Document)
        _put_checksum(repo, address, request.body.data)
    else:
        assert isinstance(address, Place) and isinstance(request.body, Staged)
        _put_file(repo, address, request.body)
    return Response(201, [*CREATED, ("Location", f"{request.mount}/{link(path)}")])


def _put_file(repo: Repo, place: Place, staged: Staged) -> None:
    # All that a checksum which came before may have said of it, but for SHA-512.
    metadata: dict[str, object] = {name: staged.others[name] for name in ALGORITHMS}
    metadata["sha256"] = staged.digest.hex
    if repo.options.allow_redeploy:
        metadata[CHANGES] = True
    about: dict[str, object] | None = None
    if place.part is not None and place.part.is_pom:
        facts = _pom(repo, place, staged)
        if facts is not None:
            metadata["pom"] = dict(facts.metadata)
    elif place.part is not None and place.part.is_main and _may_be_plugin(place):
        about = _plugin(repo, place, staged)
    repo.publish(
        Publication(
            package=place.package,
            files=(NewFile(place.path, staged, media_type="", metadata=metadata, is_moving=place.is_moving),),
            may_replace=repo.options.allow_redeploy,
            gather=(gather_of(repo, place),),
            package_metadata=about,
        )
    )


def gather_of(repo: Repo, place: Place) -> Gather:
    """The files that are judged together with this one: the version's; of a snapshot the build's, unless older builds are
    to be tidied away with it."""
    if place.part is not None and place.part.build and not repo.options.keep_snapshots:
        return Gather(place.version, build_prefix(place.artifact, place.version, place.part.build))
    return Gather(place.version, f"{place.version}/")


def _pom(repo: Repo, place: Place, staged: Staged) -> Facts | None:
    """What a POM says; None for one that cannot be read, which is kept as it is (X2). Raises ContentInvalid where it is
    about something else than its address."""
    try:
        facts = repo.inspect(place.path, staged, is_kept=True)
    except ContentInvalid:
        return None
    named = f"{facts.name}:{facts.version}"
    if not repo.options.check_pom or has_placeholder(named):
        return facts
    if (facts.name, base_of(facts.version)) != (place.package, place.version):
        repo.discard(staged)
        raise ContentInvalid(
            f"the POM is about {named}, and its address says {place.package}:{place.version}; nothing was stored "
            "(deploy it under its own coordinates, or set the repository's option check_pom to false)",
            pom=named,
            address=f"{place.package}:{place.version}",
        )
    return facts


def _may_be_plugin(place: Place) -> bool:
    return "plugin" in place.artifact and place.part is not None and place.part.extension == "jar"


def _plugin(repo: Repo, place: Place, staged: Staged) -> dict[str, object] | None:
    """For the package: the prefix under which a plugin is called, as its jar declares it (U10)."""
    try:
        facts = repo.inspect(place.path, staged, is_kept=True)
    except ContentInvalid:
        return None
    return {"plugin": dict(facts.metadata)} if facts.name == place.package else None


def _put_checksum(repo: Repo, address: ChecksumPlace, data: bytes) -> None:
    told = find_hex(data.decode("latin-1"), address.algorithm)
    if not told:
        raise BadRequest(f"the body is no {address.algorithm} checksum in hexadecimal")
    if isinstance(address.of, MetadataPlace):
        return
    place = address.of
    if place.is_moving or repo.options.allow_redeploy:
        return  # it may be about the bytes that are there, or about those that are coming
    try:
        actual = repo.digest(place.ref, address.algorithm, of_target=True)
    except NotFound:
        _expect(repo, place, address.algorithm, told)
        return
    if actual != told:
        raise BadRequest(
            f"'{place.name}' has the {address.algorithm} {actual}, not {told}: it was changed on its way, or is another "
            "file's checksum",
            expected=told,
            actual=actual,
        )


def _expect(repo: Repo, place: Place, algorithm: str, told: str) -> None:
    """Keep a checksum that came before its file, to judge the file by it (C8). The last one said counts: of a deploy that
    was cut and is repeated with other bytes there is an older one."""
    path = f"{place.path}.{algorithm}"
    said = NewFile(path, repo.stage_bytes(told.encode()), is_moving=True, metadata={EXPECTED: told})
    repo.publish(
        Publication(
            package=place.package,
            files=(said,),
            gather=(gather_of(repo, place),),
        )
    )


def _put_metadata(repo: Repo, place: MetadataPlace, data: bytes) -> None:
    """Check it, and show what it names and is here: that its publisher has uploaded all of it. It adds nothing itself."""
    root = load(data.removeprefix(b"\xef\xbb\xbf").lstrip(), root="metadata")
    here = place.package.split(":")
    told = [text(root, name) or own for name, own in zip(("groupId", "artifactId"), here, strict=True)]
    has_versions = root.find("versioning") is not None
    if has_versions and told != here:
        raise BadRequest(f"the metadata is about {':'.join(told)[:400]}, and its address about {place.package}")
    if place.version:
        builds = list(dict.fromkeys(listing.builds_in(root, place.version)))[:ANNOUNCED_MOST]
        under = [build_prefix(place.folder[-1], place.version, build) for build in builds]
        if not builds or repo.options.keep_snapshots:
            under = [f"{place.version}/"]
        _show(repo, place.package, [Gather(place.version, prefix, is_whole=True) for prefix in under])
        return
    if has_versions:
        named = [(each.text or "").strip() for each in root.iterfind("versioning/versions/version")]
        latest = [text(root, "versioning/release"), text(root, "versioning/latest")]
        releases = _held(repo, ListingRef("releases", place.package))
        known = {entry.name for entry in releases.entries}
        # What is new stands last, or is said to be; through a virtual repository many more are named that others have.
        new = [version for version in dict.fromkeys([*latest, *reversed(named)]) if version and version not in known]
        checked = [check_version(version) for version in new[:ANNOUNCED_MOST]]
        _show(repo, place.package, [Gather(version, f"{version}/", is_whole=True) for version in checked])
        if "plugin" not in releases.metadata:
            _note_plugin(repo, place.package, next(filter(None, latest), ""))
    for plugin in list(listing.plugins_in(root))[-ANNOUNCED_MOST:]:
        _note_told_plugin(repo, f"{place.group}:{plugin.artifact}", plugin)


def _show(repo: Repo, package: str, gathers: list[Gather]) -> None:
    """Only of what has files: what somebody only speaks of must not leave a name behind."""
    kept = [
        gather
        for gather in gathers
        if _held(repo, ListingRef("files", package, limit=1, arguments=(("under", gather.under),))).entries
    ]
    if kept:
        repo.publish(Publication(package=package, gather=tuple(kept)))


def _note_plugin(repo: Repo, package: str, version: str) -> None:
    """Of a plugin whose name does not say so, the prefix is found when a version is whole."""
    found = _held(repo, ListingRef("version", package, arguments=(("version", version),)))
    if not any(entry.metadata.get("packaging") == "maven-plugin" for entry in found.entries):
        return
    for file in (file for entry in found.entries for file in entry.files):
        place = place_of(FileRef(package, file.path))
        if place.part is not None and place.part.is_main and place.part.extension == "jar":
            try:
                staged = repo.restage(repo.current(place.ref))
            except Forbidden:  # a token that may only publish
                return
            about = _plugin(repo, place, staged)
            if about is not None:
                repo.publish(Publication(package=package, package_metadata=about))
            return


def _note_told_plugin(repo: Repo, package: str, plugin: listing.Plugin) -> None:
    """What a group's metadata say of a plugin that is here and whose jar says nothing that can be read (G2)."""
    releases = _held(repo, ListingRef("releases", package))
    if releases.entries and "plugin" not in releases.metadata:
        about = {"prefix": plugin.prefix, "name": plugin.name}
        repo.publish(Publication(package=package, package_metadata={"plugin": about}))


def _held(repo: Repo, ref: ListingRef) -> Listing:
    try:
        return repo.held(ref)
    except NotFound:
        return Listing(())


def delete(repo: Repo, request: Request, path: str) -> Response:
    address = parse(path)
    if isinstance(address, Place):
        try:
            repo.remove_file(address.ref)
        except PackageNotFound:
            raise FileNotFound(f"'{repo.key}' has no file '{path}'") from None
    elif isinstance(address, FolderPlace):
        raise MethodNotAllowed(
            "folders are not deleted as a whole; delete files, or versions through the API", allow=["GET", "HEAD"]
        )
    elif isinstance(address, ChecksumPlace) and isinstance(address.of, Place):
        with suppress(NotFound):  # what is here is what was said of a file that has not come
            repo.remove_file(FileRef(address.of.package, f"{address.of.path}.{address.algorithm}"))
    # What is derived goes with what it is derived from.
    return Response(204, CREATED)
