"""Writing under the addresses of Maven's layout: files are kept byte for byte; checksums and metadata are checked, answered
with success, and otherwise a sign that a version is whole (sections 4, 5 and 8 of the contract).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from repoman.core import conditions
from repoman.core.actor import Action
from repoman.core.conditions import Conditions
from repoman.core.digest import find_hex
from repoman.core.errors import (
    BadRequest,
    Conflict,
    ContentInvalid,
    FileNotFound,
    Forbidden,
    MethodNotAllowed,
    NameInvalid,
    NotFound,
    PackageNotFound,
)
from repoman.core.format import Repo
from repoman.core.records import Entry, Facts, Gather, Listing, NewFile, Publication, Staged
from repoman.core.refs import FileRef, ListingRef
from repoman.core.served import REVALIDATE, SANDBOXED, link
from repoman.core.strictxml import load, text
from repoman.core.wire import (
    BodyPlan,
    Document,
    DocumentBody,
    Head,
    Request,
    Response,
    StagedBody,
    check_sent,
    check_whole,
)

from . import listing, plugins, views
from .names import (
    ALGORITHMS,
    Address,
    ChecksumPlace,
    FolderPlace,
    MetadataPlace,
    Place,
    build_prefix,
    is_version,
    parse,
    place_of,
    split_package,
)
from .package import has_placeholder
from .versions import base_of, fits

CHECKSUM_BYTES = 4096
ANNOUNCED_MOST = 100
CREATED = (*SANDBOXED, REVALIDATE)


def admit_put(repo: Repo, head: Head, path: str) -> BodyPlan:
    """Everything that can be refused without the body is refused before a byte of it is read."""
    address = parse(path)
    if isinstance(address, FolderPlace):
        raise MethodNotAllowed("folders are not uploaded; put files", allow=["GET", "HEAD"])
    check_policy(repo, address)
    check_whole(head)
    check_sent(head)
    if isinstance(address, MetadataPlace):
        return DocumentBody(listing.METADATA_BYTES)
    if isinstance(address, ChecksumPlace):
        return DocumentBody(CHECKSUM_BYTES)
    told = [name for name in repo.announced(address.ref) if name != "sha256"]
    return StagedBody(
        algorithms=tuple(dict.fromkeys((*ALGORITHMS, *told))),
        limit=head.length,
        may_be_held=_may_be_repeated(repo, address, head.length),
    )


def _may_be_repeated(repo: Repo, place: Place, length: int | None) -> bool:
    """Whether this may be the file that is there, in a namespace that has no room for another one: a deploy that was cut is
    repeated as a whole (W8)."""
    remaining = repo.remaining_bytes() if length is not None else None
    if remaining is None or length is None or length <= remaining:
        return False
    there = _entry(repo, place.package, place.path)
    return there is not None and there.size == length


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
        _put_file(repo, address, request.body, conditions.of(request.headers))
    return Response(201, [*CREATED, ("Location", f"{request.mount}/{link(path)}")])


def _put_file(repo: Repo, place: Place, staged: Staged, asked: Conditions) -> None:
    metadata: dict[str, object] = {name: staged.others[name] for name in ALGORITHMS}
    metadata["sha256"] = staged.digest.hex
    about: dict[str, object] | None = None
    look_again = False
    if place.part is not None and place.part.is_pom:
        facts = _pom(repo, place, staged)
        if facts is not None:
            metadata["pom"] = dict(facts.metadata)
            look_again = facts.metadata["packaging"] == plugins.PACKAGING and not _says_plugin(place)
    elif place.part is not None and place.part.is_main and place.part.extension == "jar":
        is_plugin = _says_plugin(place) or _pom_says_plugin(repo, place)
        about = _plugin(repo, place, staged) if is_plugin else None
        look_again = is_plugin is None
    repo.publish(
        Publication(
            package=place.package,
            files=(NewFile(place.path, staged, media_type="", metadata=metadata, is_moving=place.is_moving),),
            may_replace=repo.options.allow_redeploy,
            if_match=asked.if_match,
            if_none_match=asked.if_none_match,
            gather=(gather_of(repo, place),),
            package_metadata=about,
        )
    )
    if look_again:  # the jar and the POM that says what it is come in any order, also at one moment
        _note_plugin(repo, place)


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


def _says_plugin(place: Place) -> bool:
    return "plugin" in place.artifact


def _pom_says_plugin(repo: Repo, jar: Place) -> bool | None:
    """None while the jar's POM has not come."""
    pom = _entry(repo, jar.package, f"{jar.path.removesuffix('jar')}pom")
    return None if pom is None else _is_plugins_pom(pom)


def _is_plugins_pom(pom: Entry) -> bool:
    about = pom.metadata.get("pom")
    return isinstance(about, Mapping) and about.get("packaging") == plugins.PACKAGING


def _entry(repo: Repo, package: str, path: str) -> Entry | None:
    found = _held(repo, ListingRef("files", package, limit=1, arguments=(("under", path),))).entries
    return found[0] if found and found[0].name == path else None


def _plugin(repo: Repo, place: Place, staged: Staged) -> dict[str, object] | None:
    """For the package: the prefix under which a plugin is called, as its jar declares it (U10)."""
    try:
        facts = repo.inspect(place.path, staged, is_kept=True)
    except ContentInvalid:
        return None
    return plugins.declared(place.version, facts.metadata) if facts.name == place.package else None


def _note_plugin(repo: Repo, place: Place) -> None:
    """Where `place`, a plugin's POM or main jar, was the second of the two to come: note what the jar declares."""
    stem = place.path.rpartition(".")[0]
    pom, jar = _entry(repo, place.package, f"{stem}.pom"), _entry(repo, place.package, f"{stem}.jar")
    if pom is None or jar is None or not _is_plugins_pom(pom):
        return
    place = place_of(FileRef(place.package, jar.name))
    try:
        staged = repo.restage(repo.current(place.ref))
    except (Forbidden, NotFound):  # a token that may only publish; a jar that was removed meanwhile
        return
    about = _plugin(repo, place, staged)
    if about is not None:
        repo.publish(Publication(package=place.package, package_metadata=about))


def _put_checksum(repo: Repo, address: ChecksumPlace, data: bytes) -> None:
    told = find_hex(data.decode("latin-1"), address.algorithm)
    if not told:
        raise BadRequest(f"the body is no {address.algorithm} checksum in hexadecimal")
    if isinstance(address.of, MetadataPlace):
        return
    place = address.of
    if place.is_moving or repo.options.allow_redeploy:
        return  # it may be about the bytes that are there, or about those that are coming
    actual = _digest(repo, place, address.algorithm)
    if actual is None:
        if repo.announce(place.ref, address.algorithm, told):
            return  # it came before its file, which is judged by it (C8)
        actual = _digest(repo, place, address.algorithm)
        if actual is None:
            return  # the file came and went
    if actual != told:
        raise BadRequest(
            f"'{place.name}' has the {address.algorithm} {actual}, not {told}: it was changed on its way, or is another "
            "file's checksum",
            expected=told,
            actual=actual,
        )


def _digest(repo: Repo, place: Place, algorithm: str) -> str | None:
    """None where the file is not here."""
    try:
        return repo.digest(place.ref, algorithm, of_target=True)
    except NotFound:
        return None


def _put_metadata(repo: Repo, place: MetadataPlace, data: bytes) -> None:
    """Check it, and show what it names and is here: that its publisher has uploaded all of it. It adds nothing itself. A
    signature of it cannot be true of what is derived, and is let go."""
    if place.beside:
        return
    root = load(data.removeprefix(b"\xef\xbb\xbf").lstrip(), root="metadata")
    here = place.package.split(":")
    told = [listing.said(root, name) or own for name, own in zip(("groupId", "artifactId"), here, strict=True)]
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
        possible = [version for version in new if is_version(version)][:ANNOUNCED_MOST]
        _show(repo, place.package, [Gather(version, f"{version}/", is_whole=True) for version in possible])
    _keep_told(repo, place.group, list(listing.plugins_in(root))[-ANNOUNCED_MOST:])


def _show(repo: Repo, package: str, gathers: list[Gather]) -> None:
    """Only of what has files: what somebody only speaks of must not leave a name behind."""
    kept = [
        gather
        for gather in gathers
        if _held(repo, ListingRef("files", package, limit=1, arguments=(("under", gather.under),))).entries
    ]
    if kept:
        repo.publish(Publication(package=package, gather=tuple(kept)))


def _keep_told(repo: Repo, group: str, given: Sequence[plugins.Plugin]) -> None:
    """What a group's metadata say of its plugins, also before they are here (G2, E20)."""
    above = f"{group}:"
    named = [plugin for plugin in given if _is_package(above + plugin.artifact)]
    if not named:
        return
    known = _held(repo, ListingRef("packages", limit=0, arguments=(("under", above),))).metadata
    new = plugins.told(named, known)
    if new:
        with suppress(Conflict):  # another group's name differs by case only; a deploy does not fail of that
            repo.publish(Publication(package=above, package_metadata=new))


def _is_package(name: str) -> bool:
    try:
        split_package(name)
    except NameInvalid:
        return False
    return True


def _held(repo: Repo, ref: ListingRef) -> Listing:
    try:
        return repo.held(ref)
    except NotFound:
        return Listing(())


def delete(repo: Repo, request: Request, path: str) -> Response:
    """What is derived goes with what it is derived from."""
    address = parse(path)
    missing = FileNotFound(f"'{repo.key}' has no file '{path}'")
    if isinstance(address, Place):
        try:
            repo.remove_file(address.ref, if_match=conditions.of(request.headers).if_match)
        except PackageNotFound:
            raise missing from None
    elif isinstance(address, FolderPlace):
        raise MethodNotAllowed(
            "folders are not deleted as a whole; delete files, or versions through the API", allow=["GET", "HEAD"]
        )
    elif not _retracts(repo, address) and repo.may(Action.READ) and not views.exists(repo, request, address):
        raise missing
    return Response(204, CREATED)


def _retracts(repo: Repo, address: Address) -> bool:
    """Whether it was what is told of a file that has not come."""
    if not isinstance(address, ChecksumPlace) or not isinstance(address.of, Place):
        return False
    return repo.retract(address.of.ref, address.algorithm)


def check_policy(repo: Repo, address: Address) -> None:
    """Raises BadRequest for what the repository's version policy excludes. What is about several versions is never. It is
    about what comes in: what is here is read whatever the policy says by now, also past other members of a virtual one."""
    if isinstance(address, ChecksumPlace):
        address = address.of
    version = address.version if isinstance(address, Place | MetadataPlace) else ""
    policy = repo.options.version_policy
    if not version or fits(version, policy):
        return
    kinds = "snapshots" if policy == "snapshot" else "releases"
    raise BadRequest(f"'{repo.key}' takes {kinds} only (its version_policy), and {version} is none of them")
