"""The publish door: staged bytes become visible. One short transaction per publication.

Inside it, in this order: claim the blobs → the package's row → holdings and quota → lock the repository → judge →
revision → rows → events. Bytes are durable before it starts; objects that lost a race are removed after it ended.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import orjson
from django.db.models import Exists, OuterRef, TextField
from django.db.models.functions import Cast

from repoman.blobs import store
from repoman.blobs.models import Blob
from repoman.catalog import selectors, writes
from repoman.catalog.models import Artifact, Burned, Content, Package, Repository, Tag, Version, VersionArtifact
from repoman.core import clock
from repoman.core.actor import Action, Actor
from repoman.core.errors import (
    Conflict,
    ContentInvalid,
    ContentMissing,
    Forbidden,
    PreconditionFailed,
    UploadNotFound,
    VersionNotFound,
)
from repoman.core.format import FormatHandler, handler_for
from repoman.core.records import Gather, NewFile, NewVersion, Publication, Published, Staged
from repoman.core.refs import TagRef
from repoman.db.prepared import Prepared
from repoman.events.record import record
from repoman.policy import gates, quota

from . import announced, suspect
from .transactions import write
from .upload import spend, take

ABOUT = "about"  # in a file's metadata: what it speaks of

_stored = Prepared(lambda digest: Blob.objects.filter(digest=digest).values_list("storage_key", "size", "stamp"))


_live_version = Prepared(
    lambda package_id, name: Version.objects.filter(package_id=package_id, name=name, removed_revision=None)
)
_live_tag = Prepared(
    lambda package_id, name: Tag.objects.select_related("version").filter(
        package_id=package_id, name=name, removed_revision=None
    )
)
_live_file = Prepared(
    lambda package_id, path: Artifact.objects.select_related("blob").filter(
        package_id=package_id, path=path, removed_revision=None
    )
)


_gathered = Prepared(
    lambda package_id, version, under, end: (
        Artifact.objects.filter(package_id=package_id, path__gte=under, path__lt=end, removed_revision=None)
        .filter(gate_state=Content.Gate.OPEN)
        .annotate(
            is_named=Exists(
                VersionArtifact.objects.filter(
                    artifact=OuterRef("pk"), version__name=version, version__removed_revision=None
                )
            )
        )
        .values_list("path", Cast("metadata", TextField()), "is_named")
    )
)


@dataclass(slots=True)
class _Change:
    """What a transaction did so far: the revision is taken when the first visible row is added."""

    repository: Repository
    actor: Actor
    moment: datetime.datetime
    revision: int | None = None
    replaced: bool = False
    created: bool = False
    waiting: frozenset[str] = frozenset()  # paths: see `_waiting`
    dropped: list[str] = field(default_factory=list)  # paths: see Published
    surplus: list[str] = field(default_factory=list)
    healed: list[str] = field(default_factory=list)  # digests whose lost bytes this publication brought back

    @property
    def handler(self) -> FormatHandler:
        return handler_for(self.repository.format)

    def stamp(self) -> int:
        if self.revision is None:
            self.revision = writes.next_revision(self.repository)
        return self.revision

    def finish(self, package: Package) -> None:
        """To be called last: if anything visible changed, the package says so."""
        if self.revision is not None:
            writes.stamp_package(package.pk, self.revision, self.moment)


def damaged_keys(staged: list[Staged]) -> frozenset[str]:
    """Storage keys of blobs that rows say are there and the store says are not, among those being uploaded again."""
    digests = [item.digest.hex for item in staged]
    found = [row for digest in digests for row in _stored.all(digest)]
    own = {item.storage_key for item in staged}
    return frozenset(key for key, size, stamp in found if key not in own and not store.is_intact(key, size, stamp))


def publish(repository: Repository, actor: Actor, actions: frozenset[Action], publication: Publication) -> Published:
    """Make the publication visible. `actions`: what the actor may do here; replacing needs DELETE.

    Raises ContentMissing, Conflict, PreconditionFailed, Forbidden, QuotaExceeded, RepositoryNotFound.
    """
    staged = _staged_in(publication)
    damaged = damaged_keys(staged)

    def block() -> _Change:
        blobs, surplus = writes.claim_staged(staged, damaged)
        healed = [item.digest.hex for item in staged if damaged and item.storage_key not in surplus]
        package = writes.package(repository, publication.package, display_name=publication.display_name)
        quota.hold(repository.namespace_id, blobs.values())
        change = _Change(writes.lock_repository(repository), actor, clock.now(), surplus=surplus, healed=healed)
        is_new_name = package.revision == 0 and repository.type == Repository.Type.LOCAL
        if is_new_name and not change.handler.names_differ_by_case:
            _refuse_twin(package)
        _judge_subjects(publication, package)
        change.waiting = _waiting(publication, package)
        for new_file in publication.files:
            if change.handler.files_may_wait and not new_file.is_moving:
                announced.judge(change.repository, package.name, new_file)
            _put_file(change, actions, publication, package, new_file, blobs[new_file.staged.digest.hex])
        if publication.rivals:
            _refuse_rivals(change, publication)
        _judge_companions(change, actions, publication, package)
        version = None
        if publication.version is not None:
            version = _put_version(change, publication, package, publication.version, blobs)
        wanted = publication.tags + tuple(
            tag for tag in publication.default_tags if _live_tag.first(package.pk, tag) is None
        )
        for tag in dict.fromkeys(wanted):
            assert version is not None, "a tag needs a version to point to"
            _move_tag(change, package, tag, version)
        for gather in publication.gather:
            _gather(change, publication, package, gather, blobs)
        if publication.package_metadata is not None:
            _describe_package(change, package, publication.package_metadata)
        change.finish(package)
        return change

    change: _Change | None = None
    try:
        while change is None:
            try:
                change = write(block)
            except announced.Unhashed as lacking:  # a digest was told while the file came
                publication = _hashed(publication, lacking)
                staged = _staged_in(publication)
    except BaseException:
        store.discard([key for key in (item.storage_key for item in staged) if not selectors.is_named(key)])
        raise
    store.discard(change.surplus)
    for digest in change.healed:
        suspect.note_change(digest, is_back=True)
    revision = change.revision or change.repository.revision
    return Published(revision, change.created, change.replaced, tuple(change.dropped))


def _staged_in(publication: Publication) -> list[Staged]:
    staged = [item.staged for item in publication.files]
    if publication.version is not None and publication.version.document is not None:
        staged.append(publication.version.document)
    return staged


def _hashed(publication: Publication, lacking: announced.Unhashed) -> Publication:
    """The same, with a digest more of one of its files."""

    def hashed(staged: Staged) -> Staged:
        found = announced.digest_of(staged, lacking.algorithm)
        return replace(staged, others={**staged.others, lacking.algorithm: found})

    files = [replace(new, staged=hashed(new.staged)) if new.path == lacking.path else new for new in publication.files]
    return replace(publication, files=tuple(files))


def _refuse_twin(package: Package) -> None:
    """A name that another one has but for case would be a trap for people."""
    others = Package.objects.filter(repository_id=package.repository_id, name__iexact=package.name)
    twin = others.exclude(pk=package.pk).values_list("name", flat=True).first()
    if twin is not None:
        raise Conflict(f"'{package.name}' differs only by case from '{twin}', which is there")


def _describe_package(change: _Change, package: Package, metadata: Mapping[str, object]) -> None:
    # Read again: the row was read before the repository was locked, and another publication may have added to it since.
    kept = Package.objects.values_list("metadata", flat=True).get(pk=package.pk)
    merged = {**kept, **metadata}
    if merged != kept:
        change.stamp()
        Package.objects.filter(pk=package.pk).update(metadata=merged)


def burns(repository: Repository) -> str:
    """What of the repository never comes back under its name; of a remote, where removing only evicts, nothing."""
    return handler_for(repository.format).burns if repository.type == Repository.Type.LOCAL else ""


def _refuse_burned(package: Package, name: str) -> None:
    if Burned.objects.filter(package=package, name=name).exists():
        raise Conflict(
            f"'{name}' of '{package.name}' was removed, and a name is not used twice; publish under another one, "
            "or have it brought back (undelete)",
            burned=True,
        )


def _put_file(
    change: _Change, actions: frozenset[Action], publication: Publication, package: Package, new: NewFile, blob: Blob
) -> None:
    live = _live_file.first(package.pk, new.path)
    held = live.blob.digest if live else None
    if publication.if_none_match is not None and live is not None:
        if "*" in publication.if_none_match or held in publication.if_none_match:
            raise PreconditionFailed(f"'{new.path}' is already there", digest=f"sha256:{held}")
    if publication.if_match is not None:
        if live is None or ("*" not in publication.if_match and held not in publication.if_match):
            raise PreconditionFailed(f"'{new.path}' is not what If-Match expects")
    if live is not None and live.blob_id == blob.pk:
        writes.touch([live])
        return
    if live is not None and new.path in change.waiting:
        _judge_displaced(change, actions, publication, new, live)
    elif live is not None and not new.is_moving:
        if not publication.may_replace:
            raise Conflict(
                f"'{new.path}' is already published with other content", digest=f"sha256:{held}", path=new.path
            )
        if Action.DELETE not in actions:
            raise Forbidden(f"replacing '{new.path}' with other content needs the maintainer role")
    elif live is None and change.handler.files_are_packages:
        clash = selectors.path_clash(change.repository.pk, new.path)
        if clash is not None:
            raise Conflict(f"'{new.path}' cannot be both a file and a folder: '{clash}' is there")
    if live is None and burns(change.repository) == "file":
        _refuse_burned(package, new.path)
    revision = change.stamp()
    if live is not None:
        writes.close(Artifact.objects.filter(pk=live.pk), revision, change.moment)
        change.replaced = True
    row = writes.insert_artifact(
        package=package,
        path=new.path,
        blob=blob,
        media_type=new.media_type,
        held_by_version=new.held_by_version,
        metadata={**new.metadata, ABOUT: dict(new.about)} if new.about else dict(new.metadata),
        uploaded_by_id=change.actor.principal_id,
        origin=publication.origin[:255],
        upstream_published_at=new.published_at,
        first_seen_at=change.moment,
        touched_at=change.moment,
        added_revision=revision,
    )
    if live is not None and change.handler.versions_own_files:
        _renew(change, {live.pk}, [row.pk])
    change.created = change.created or live is None
    record(
        "file:replace" if live else "file:publish",
        actor=change.actor,
        repository=change.repository,
        revision=revision,
        subject=new.path if package.name == new.path else f"{package.name}/{new.path}",
        digest=f"sha256:{blob.digest}",
        bytes=blob.size,
        replaced=f"sha256:{held}" if new.path in change.waiting else "",
    )


def _waiting(publication: Publication, package: Package) -> frozenset[str]:
    """Paths that this publication is about whose live file waits: nothing that it speaks of (`NewFile.about`) is there."""
    found = set()
    for path in {*publication.companions, *(new.path for new in publication.files if new.about)}:
        live = _live_file.first(package.pk, path)
        about = about_of(live.metadata) if live is not None else {}
        if about and all(_live_file.first(package.pk, name) is None for name in about):
            found.add(path)
    return frozenset(found)


def _judge_displaced(
    change: _Change, actions: frozenset[Action], publication: Publication, new: NewFile, live: Artifact
) -> None:
    """Whether this file may take the place of one that waits. What somebody was told is kept is not pushed out by another
    one that waits as well: only by what is really published."""
    is_whole = any(other.path in new.about for other in publication.files)
    is_own = live.uploaded_by_id is not None and live.uploaded_by_id == change.actor.principal_id
    if not (is_whole or is_own or Action.DELETE in actions):
        raise Conflict(
            f"'{new.path}' is there from somebody else, and waits for what it speaks of; send yours together with that, "
            "or after it"
        )


def _judge_subjects(publication: Publication, package: Package) -> None:
    """A file that speaks of another's bytes comes only beside those (`NewFile.about`)."""
    ours = {new.path: new.staged.digest.hex for new in publication.files}
    for new in publication.files:
        for path, digest in new.about.items():
            live = _live_file.first(package.pk, path) if path not in ours else None
            there = ours.get(path) or (live.blob.digest if live is not None else digest)
            if there != digest:
                raise ContentInvalid(
                    f"'{new.path}' speaks of '{path}' with sha256 {digest}; the one it would stand beside has {there}"
                )


def _refuse_rivals(change: _Change, publication: Publication) -> None:
    """Two files that clients ask for at one address cannot both be there."""
    for rival in publication.rivals:
        if selectors.live_artifact(change.repository.pk, rival.package, rival.path) is not None:
            raise Conflict(f"'{rival.path}' is already there, of '{rival.package}': the two would have one address")


def about_of(metadata: Mapping[str, object]) -> Mapping[str, str]:
    """What a file speaks of, by what its row keeps."""
    about = metadata.get(ABOUT)
    return about if isinstance(about, dict) else {}


def _judge_companions(change: _Change, actions: frozenset[Action], publication: Publication, package: Package) -> None:
    """What is there already and speaks of other bytes than those that were put (`Publication.companions`)."""
    ours = {new.path: new.staged.digest.hex for new in publication.files}
    for path in publication.companions:
        live = _live_file.first(package.pk, path) if path not in ours else None
        about = about_of(live.metadata) if live is not None else {}
        if live is None or all(ours[name] == digest for name, digest in about.items() if name in ours):
            continue
        if path not in change.waiting and not publication.may_replace:
            raise Conflict(
                f"'{path}' is there and speaks of other bytes than these; remove it, or send what belongs to it"
            )
        if path not in change.waiting and Action.DELETE not in actions:
            raise Forbidden(f"replacing what '{path}' speaks of needs the maintainer role")
        revision = change.stamp()
        _renew(change, {live.pk}, [])
        writes.close(Artifact.objects.filter(pk=live.pk), revision, change.moment)
        change.dropped.append(path)
        record(
            "file:delete",
            actor=change.actor,
            repository=change.repository,
            revision=revision,
            subject=f"{package.name}/{path}",
            digest=f"sha256:{live.blob.digest}",
            bytes=live.blob.size,
            because="it speaks of other bytes than were published",
        )


def _put_version(
    change: _Change, publication: Publication, package: Package, new: NewVersion, blobs: dict[str, Blob]
) -> Version:
    live = _live_version.first(package.pk, new.version)
    blob = blobs[new.document.digest.hex] if new.document else None
    parts = _parts(publication, package, new)
    if live is not None:
        if blob is not None and live.blob_id != blob.pk:
            raise Conflict(f"version '{new.version}' of '{package.name}' is already published with other content")
        writes.touch(parts)
        if change.handler.versions_own_files:
            _extend(change, live, parts)
        return live
    if burns(change.repository) == "version":
        _refuse_burned(package, new.version)
    revision = change.stamp()
    version = writes.insert_version(
        package=package,
        name=new.version,
        blob=blob,
        media_type=new.media_type,
        artifact_type=new.artifact_type[:255],
        subject=new.subject,
        metadata=dict(new.metadata),
        uploaded_by_id=change.actor.principal_id,
        origin=publication.origin[:255],
        upstream_published_at=new.published_at,
        first_seen_at=change.moment,
        added_revision=revision,
    )
    writes.link_parts(version, parts, revision)
    change.created = True
    record(
        "version:publish",
        actor=change.actor,
        repository=change.repository,
        revision=revision,
        subject=f"{package.name}@{new.version}" if new.document else f"{package.name} {new.version}",
        digest=new.version if new.document else "",
        bytes=blob.size if blob else None,
    )
    return version


def _gather(
    change: _Change, publication: Publication, package: Package, gather: Gather, blobs: dict[str, Blob]
) -> None:
    """Show of a version what is complete by now. With the repository locked, whoever publishes another part of it has either
    committed, and is seen here, or comes after this and sees all of it."""
    files: dict[str, Mapping[str, object]] = {}
    named: set[str] = set()
    end = selectors.after_prefix(gather.under)
    for path, metadata, is_named in _gathered.all(package.pk, gather.version, gather.under, end):
        files[path] = orjson.loads(metadata)
        if is_named:
            named.add(path)
    options = change.handler.parse_options(change.repository.options)
    found = change.handler.complete(package.name, gather, files, options, named=frozenset(named))
    if found.version is not None:
        version = _put_version(change, publication, package, found.version, blobs)
        if found.version.metadata and version.metadata != found.version.metadata:  # its files say more by now
            change.stamp()
            Version.objects.filter(pk=version.pk).update(metadata=dict(found.version.metadata))
    live = Artifact.objects.filter(package=package, path__in=found.outdated, removed_revision=None)
    outdated = list(live.order_by("path")) if found.outdated else []
    if outdated:
        revision = change.stamp()
        _renew(change, {row.pk for row in outdated}, [])
        writes.close(Artifact.objects.filter(pk__in=[row.pk for row in outdated]), revision, change.moment)
    for row in outdated:
        record(
            "file:expire",
            actor=change.actor,
            repository=change.repository,
            revision=change.revision,
            subject=f"{package.name}/{row.path}",
        )


def _renew(change: _Change, gone: set[int], instead: list[int]) -> None:
    """Versions that name files which leave name those that come instead: a live version names what is live (ids)."""
    revision = change.stamp()
    for version in Version.objects.filter(versionartifact__artifact__in=gone, removed_revision=None).distinct():
        links = VersionArtifact.objects.filter(version=version).exclude(artifact__in=gone)
        files = [*links.values_list("artifact_id", flat=True), *instead]
        writes.renew_version(version, files, revision, change.moment)


def _extend(change: _Change, version: Version, parts: list[Artifact]) -> None:
    """A version that owns its files takes those of this publication besides those it has."""
    links = VersionArtifact.objects.filter(version=version, artifact__in=[part.pk for part in parts])
    known = set(links.values_list("artifact_id", flat=True))
    new = [part for part in parts if part.pk not in known]
    if new:
        writes.link_parts(version, new, change.stamp())


def _parts(publication: Publication, package: Package, new: NewVersion) -> list[Artifact]:
    """The live files the version names, locked against collection. Raises ContentMissing for what is not there."""
    wanted = set(new.files) | set(new.either) | set(new.optional)
    parts = (
        writes.lock_shared(Artifact.objects.filter(package=package, path__in=sorted(wanted), removed_revision=None))
        if wanted
        else []
    )
    if publication.require_parts:
        stored = dict(
            Artifact.objects.filter(pk__in=[part.pk for part in parts]).values_list("path", "blob__size")
            if new.sizes
            else ((part.path, None) for part in parts)
        )
        missing = set(new.files) - stored.keys()
        named = set(new.versions) | (set(new.either) - stored.keys())
        if named:
            there = Version.objects.filter(package=package, name__in=sorted(named), removed_revision=None)
            found = dict(there.values_list("name", "blob__size"))
            missing |= named - found.keys()
            stored |= found
        for name, size in new.sizes.items():
            if stored.get(name) not in (None, size):
                raise ContentInvalid(f"it says that {name} has {size} bytes; {stored[name]} are stored", digest=name)
        if missing:
            shown = sorted(missing)
            raise ContentMissing(
                f"{len(shown)} of the parts it names are not in '{package.name}': push them first ({shown[0]} …)",
                missing=shown,
            )
    return parts


def _move_tag(change: _Change, package: Package, name: str, version: Version) -> None:
    live = _live_tag.first(package.pk, name)
    if live is not None and live.version_id == version.pk:
        return
    options = change.handler.parse_options(change.repository.options)
    if live is not None:
        gates.judge_tag_move(
            gates.TagMove(
                change.actor,
                change.repository.key,
                options,
                package.name,
                name,
                live.version.name,
                version.name,
            )
        )
    revision = change.stamp()
    if live is not None:
        writes.close(Tag.objects.filter(pk=live.pk), revision, change.moment)
    writes.add_tag(version, name, revision, change.actor.principal_id)
    record(
        "tag:move" if live else "tag:create",
        actor=change.actor,
        repository=change.repository,
        revision=revision,
        subject=f"{package.name}:{name}",
        version=version.name,
        previous=live.version.name if live else "",
    )


def set_tag(repository: Repository, actor: Actor, ref: TagRef, version_name: str) -> None:
    """Point the tag at a live version of its package. Raises VersionNotFound, Forbidden (immutable)."""

    def block() -> None:
        change = _Change(writes.lock_repository(repository), actor, clock.now())
        package = Package.objects.filter(repository=repository, name=ref.package).first()
        version = _live_version.first(package.pk, version_name) if package is not None else None
        if package is None or version is None:
            raise VersionNotFound(f"{repository.key}/{ref.package} has no version '{version_name}'")
        _move_tag(change, package, ref.tag, version)
        change.finish(package)

    write(block)


def attach(
    repository: Repository,
    actor: Actor,
    package_name: str,
    path: str,
    staged: Staged | None,
    *,
    blob_id: int | None = None,
    media_type: str = "",
    upload_id: str = "",
    spent_upload_id: str = "",
) -> None:
    """Keep a blob under a name in a package until a version names it: readable, no revision, no event.

    The bytes are `staged`, or those of the row `blob_id` (a mount). With `upload_id`, that session ends with it; with
    `spent_upload_id` one that kept nothing, because all came at once.
    """
    damaged = damaged_keys([staged]) if staged else frozenset()

    def block() -> list[str]:
        surplus: list[str] = []
        if staged is not None:
            blobs, surplus = writes.claim_staged([staged], damaged)
            blob = blobs[staged.digest.hex]
        else:
            assert blob_id is not None
            blob = writes.claim_blob(blob_id)
        package = writes.package(repository, package_name)
        released = 0
        if upload_id:
            session = take(upload_id)
            if session is None or session.repository_id != repository.pk:
                raise UploadNotFound(f"upload session {upload_id} has ended")
            released = session.reserved
        if spent_upload_id:
            spend(spent_upload_id)
        quota.hold(repository.namespace_id, [blob], release_reserved=released)
        writes.check_writable(repository)
        if not writes.attach(package.pk, path, blob, media_type=media_type, uploaded_by=actor.principal_id):
            writes.touch(list(Artifact.objects.filter(package=package, path=path, removed_revision=None)))
        return surplus

    try:
        surplus = write(block)
    except BaseException:
        if staged is not None and not upload_id and not selectors.is_named(staged.storage_key):
            store.discard([staged.storage_key])
        raise
    store.discard(surplus)


def is_whole(found: Artifact) -> bool:
    """Whether the file's bytes are there as they were stored. Raises Unavailable."""
    blob = found.blob
    return blob.state == Blob.State.PRESENT and store.is_intact(blob.storage_key, blob.size, blob.stamp)
