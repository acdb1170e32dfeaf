"""What a repository holds, for people and scripts: packages, versions, files, page by page; and taking it away.

Pages are found by keyset in an order that concurrent writes cannot disturb: names in byte order, versions from the
newest revision to the oldest.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.db.models import Q, Sum

from repoman.access import permissions
from repoman.catalog import selectors
from repoman.catalog.models import Artifact, Content, Package, Repository, Tag, Version, VersionArtifact
from repoman.core.actor import Action, Actor
from repoman.core.digest import looks_like_digest
from repoman.core.errors import BadRequest, MethodNotAllowed, NotFound, PackageNotFound
from repoman.core.format import handler_for
from repoman.core.refs import FileRef, TagRef, VersionRef
from repoman.events.record import record
from repoman.sources.base import Asked
from repoman.sources.virtual import VirtualSource

from . import annotate, delete
from .purge import purge_file, purge_package, purge_revision, purge_version
from .transactions import write


@dataclass(frozen=True, slots=True)
class PackageItem:
    name: str


@dataclass(frozen=True, slots=True)
class VersionItem:
    """`bytes`: its own document and the files it names. `revision`: the one that made it visible."""

    version: str
    tags: tuple[str, ...]
    bytes: int
    media_type: str
    artifact_type: str
    subject: str
    published_at: datetime.datetime
    uploaded_by: str
    revision: int
    yanked: bool
    deprecated: str


@dataclass(frozen=True, slots=True)
class FileItem:
    name: str
    bytes: int
    digest: str
    media_type: str
    published_at: datetime.datetime
    uploaded_by: str


def _places(actor: Actor, repository: Repository, package: str) -> list[Repository]:
    """Where the content is: the repository, or those members of a virtual one that contribute to the package for this
    actor."""
    if repository.type != Repository.Type.VIRTUAL:
        return [repository]
    return VirtualSource(repository, Asked(actor)).contributors(package)


def packages(actor: Actor, repository: Repository, *, q: str = "", after: str = "", limit: int) -> list[PackageItem]:
    """Names that hold something, in byte order after `after`; `q` is a substring, taken literally. Of a remote: what is
    held here; of a virtual repository: what its members hold."""
    virtual = VirtualSource(repository, Asked(actor)) if repository.type == Repository.Type.VIRTUAL else None
    places = virtual.contributors("") if virtual else [repository]
    rows = selectors.live_packages([place.pk for place in places]).order_by("name")
    if virtual:
        rows = rows.filter(virtual.unhidden())
    if q:
        rows = rows.filter(name__icontains=q)
    if after:
        rows = rows.filter(name__gt=after)
    return [PackageItem(name) for name in rows.values_list("name", flat=True).distinct()[:limit]]


def _package(actor: Actor, repository: Repository, name: str) -> Package:
    """The package; in a virtual repository that of the first contributing member that has it."""
    plain = handler_for(repository.format).normalize(name)
    for place in _places(actor, repository, plain):
        found = Package.objects.filter(repository=place, name=plain).first()
        if found is not None and selectors.package_exists(place.pk, found.name):
            return found
    raise PackageNotFound(f"'{repository.key}' has no package '{name[:200]}'")


def _is_tag(repository: Repository, version: str) -> bool:
    return handler_for(repository.format).version_by_digest and not looks_like_digest(version)


def versions(
    actor: Actor,
    repository: Repository,
    package: str,
    *,
    version: str = "",
    after: tuple[int, str] | None = None,
    limit: int,
) -> list[VersionItem]:
    """Versions of the package, the newest revision first; `version` names one, where the format has digests also by
    tag. `after` is (revision, version) of the last one seen. Raises PackageNotFound."""
    owner = _package(actor, repository, package)
    rows = Version.objects.filter(package=owner, removed_revision=None, gate_state=Content.Gate.OPEN)
    if version and _is_tag(repository, version):
        rows = rows.filter(tags__name=version, tags__removed_revision=None)
    elif version:
        rows = rows.filter(name=version)
    if after is not None:
        rows = rows.filter(Q(added_revision__lt=after[0]) | Q(added_revision=after[0], name__gt=after[1]))
    page = list(rows.select_related("blob", "uploaded_by").order_by("-added_revision", "name")[:limit])
    ids = [row.pk for row in page]
    tags: dict[int, list[str]] = {}
    for version_id, name in (
        Tag.objects.filter(version_id__in=ids, removed_revision=None).order_by("name").values_list("version_id", "name")
    ):
        tags.setdefault(version_id, []).append(name)
    sizes = dict(
        VersionArtifact.objects.filter(version_id__in=ids, artifact__removed_revision=None)
        .values_list("version_id")
        .annotate(total=Sum("artifact__blob__size"))
        .values_list("version_id", "total")
    )
    return [
        VersionItem(
            version=row.name,
            tags=tuple(tags.get(row.pk, ())),
            bytes=(row.blob.size if row.blob else 0) + (sizes.get(row.pk) or 0),
            media_type=row.media_type,
            artifact_type=row.artifact_type,
            subject=row.subject,
            published_at=row.first_seen_at,
            uploaded_by=row.uploaded_by.username if row.uploaded_by else "",
            revision=row.added_revision or 0,
            yanked=row.is_yanked,
            deprecated=row.deprecated,
        )
        for row in page
    ]


def files(
    actor: Actor,
    repository: Repository,
    package: str,
    *,
    version: str = "",
    name: str = "",
    after: str = "",
    limit: int,
) -> list[FileItem]:
    """Files of the package, or of one of its versions, by path in byte order. Raises PackageNotFound."""
    owner = _package(actor, repository, package)
    rows = Artifact.objects.filter(package=owner, removed_revision=None, gate_state=Content.Gate.OPEN)
    if version:
        named = Version.objects.filter(package=owner, removed_revision=None, gate_state=Content.Gate.OPEN)
        if _is_tag(repository, version):
            named = named.filter(tags__name=version, tags__removed_revision=None)
        else:
            named = named.filter(name=version)
        rows = rows.filter(pk__in=VersionArtifact.objects.filter(version__in=named).values("artifact_id"))
    if name:
        rows = rows.filter(path=name)
    if after:
        rows = rows.filter(path__gt=after)
    return [
        FileItem(
            name=row.path,
            bytes=row.blob.size,
            digest=f"sha256:{row.blob.digest}",
            media_type=row.media_type,
            published_at=row.first_seen_at,
            uploaded_by=row.uploaded_by.username if row.uploaded_by else "",
        )
        for row in rows.select_related("blob", "uploaded_by").order_by("path")[:limit]
    ]


# --- taking away -----------------------------------------------------------------------------------------------------


def _check_not_virtual(repository: Repository) -> None:
    if repository.type == Repository.Type.VIRTUAL:
        raise MethodNotAllowed(f"'{repository.key}' is virtual: change the member that has it", allow=["GET", "HEAD"])


def _check_removal(actor: Actor, repository: Repository, purge: bool) -> None:
    permissions.check(actor, repository, Action.DELETE)
    _check_not_virtual(repository)
    if purge:
        permissions.check(actor, repository, Action.MANAGE)


def remove_versions(
    actor: Actor,
    repository: Repository,
    package: str,
    *,
    version: str = "",
    everything: bool = False,
    purge: bool = False,
) -> None:
    """Remove one version (a tag where the format has digests: only the tag), or with `everything` all the package holds.

    `purge`: skip the trash, so that the bytes no longer count, also with what the trash holds of it already; for owners.
    Raises BadRequest, PackageNotFound, VersionNotFound.
    """
    _check_removal(actor, repository, purge)
    if bool(version) == everything:
        raise BadRequest("name one 'version', or ask for 'all=true'")
    owner = _removable(actor, repository, package, purge)
    if version and _is_tag(repository, version):
        revision = delete.remove_tag(repository, actor, TagRef(owner.name, version))
        if purge:
            purge_revision(repository, revision)
        return
    if version:
        remove: Callable[[], object] = partial(
            delete.remove_version, repository, actor, VersionRef(owner.name, version)
        )
        empty: Callable[[], dict[str, int]] = partial(purge_version, owner, version)
    else:
        remove, empty = partial(_remove_all, actor, repository, owner), partial(purge_package, owner)
    _remove(actor, repository, f"{owner.name} {version}".rstrip(), remove, empty if purge else None)


def _removable(actor: Actor, repository: Repository, name: str, purge: bool) -> Package:
    """The package; one that is wholly in the trash where that is to be emptied of it."""
    try:
        return _package(actor, repository, name)
    except PackageNotFound:
        plain = handler_for(repository.format).normalize(name)
        found = Package.objects.filter(repository=repository, name=plain).first() if purge else None
        if found is None:
            raise
        return found


def _remove(
    actor: Actor,
    repository: Repository,
    subject: str,
    remove: Callable[[], object],
    empty: Callable[[], dict[str, int]] | None,
) -> None:
    """Remove it and, where that is asked for, for good. What is only in the trash is there for `empty`, which says how
    much of it there was; with nothing there either it is as missing as for others."""
    missing: NotFound | None = None
    try:
        remove()
    except NotFound as error:
        missing = error
    counts: dict[str, Any] = {**empty()} if empty is not None else {}
    if missing is not None and not any(counts.values()):
        raise missing
    if empty is not None:
        write(partial(record, "trash:purge", actor=actor, repository=repository, subject=subject, **counts))


def _remove_all(actor: Actor, repository: Repository, owner: Package) -> None:
    """One revision for each version and file; what somebody else removes meanwhile is not missed. Raises PackageNotFound
    where there is nothing live."""
    if not selectors.package_exists(repository.pk, owner.name):
        raise PackageNotFound(f"'{repository.key}' has no package '{owner.name}'")
    names = Version.objects.filter(package=owner, removed_revision=None).order_by("-added_revision", "name")
    for name in list(names.values_list("name", flat=True)):
        with suppress(NotFound):
            delete.remove_version(repository, actor, VersionRef(owner.name, name))
    paths = Artifact.objects.filter(package=owner, removed_revision=None, held_by_version=False).order_by("path")
    for path in list(paths.values_list("path", flat=True)):
        with suppress(NotFound):
            delete.remove_file(repository, actor, FileRef(owner.name, path))


def remove_file(actor: Actor, repository: Repository, package: str, *, name: str = "", purge: bool = False) -> None:
    """Remove one file of the package. Where files are packages, `name` may be left out. `purge` as for versions. Raises
    FileNotFound."""
    _check_removal(actor, repository, purge)
    if not name and not handler_for(repository.format).files_are_packages:
        raise BadRequest("'name' is needed: which file of the package?")
    owner = _removable(actor, repository, package, purge)
    path = name or owner.name
    remove = partial(delete.remove_file, repository, actor, FileRef(owner.name, path))
    _remove(actor, repository, f"{owner.name} {path}", remove, partial(purge_file, owner, path) if purge else None)


def annotate_version(
    actor: Actor, repository: Repository, package: str, version: str, changes: dict[str, object]
) -> VersionItem:
    """Yanking and deprecation, for formats that have them. Raises VersionNotFound, MethodNotAllowed for the others.

    Returns the version as it is now."""
    permissions.check(actor, repository, Action.PUBLISH)
    _check_not_virtual(repository)
    if not handler_for(repository.format).annotations:
        raise MethodNotAllowed(
            f"{repository.format} repositories have no {', '.join(sorted(changes)) or 'annotations'}",
            allow=["GET", "HEAD", "DELETE"],
        )
    owner = _package(actor, repository, package).name
    annotate.annotate(repository, actor, owner, {version: changes})
    (found,) = versions(actor, repository, owner, version=version, limit=1)
    return found
