"""Every read of the catalog. Selectors return values or rows of live content; they never write."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import orjson
from django.db.models import Exists, OuterRef, Q, QuerySet, TextField
from django.db.models.functions import Cast

from repoman.blobs.models import Blob
from repoman.core.digest import Digest
from repoman.core.records import BlobRef, Entry, FileEntry, ListedFile, Listing, VersionEntry
from repoman.db.prepared import Prepared
from repoman.db.snapshot import snapshot

from .models import Artifact, Content, Package, Repository, Tag, Version, VersionArtifact

PAGE = 10_000


_repository_by_key = Prepared(
    lambda key: (
        Repository.objects.select_related("namespace", "deploy_target")
        .filter(key=key)
        .exclude(state=Repository.State.DELETING)
    )
)


def repository_by_key(key: str) -> Repository | None:
    """A repository that is not being deleted, with its namespace."""
    return _repository_by_key.first(key)


def blob_ref(row: Artifact | Version, media_type: str = "") -> BlobRef:
    """The row's blob as a value; the row must have been selected with its blob."""
    blob = row.blob
    assert blob is not None
    return BlobRef(
        Digest.sha256(blob.digest),
        blob.size,
        blob.storage_key,
        blob.stamp,
        media_type or row.media_type or "application/octet-stream",
    )


_live_artifact = Prepared(
    lambda repository_id, package, path: (
        Artifact.objects.select_related("blob", "package", "uploaded_by")
        .filter(package__repository_id=repository_id, package__name=package, path=path, removed_revision=None)
        .filter(gate_state=Content.Gate.OPEN)
    )
)
_live_version = Prepared(
    lambda repository_id, package, name: (
        Version.objects.select_related("blob", "package")
        .filter(package__repository_id=repository_id, package__name=package, name=name, removed_revision=None)
        .filter(gate_state=Content.Gate.OPEN)
    )
)
_live_tagged = Prepared(
    lambda repository_id, package, tag: (
        Tag.objects.select_related("version__blob", "version__package")
        .filter(package__repository_id=repository_id, package__name=package, name=tag, removed_revision=None)
        .filter(version__gate_state=Content.Gate.OPEN)
    )
)


def is_named(storage_key: str) -> bool:
    """Whether a blob row names this object."""
    return Blob.objects.filter(storage_key=storage_key).exists()


def live_artifact(repository_id: int, package: str, path: str) -> Artifact | None:
    return _live_artifact.first(repository_id, package, path)


def artifact_with_bytes(repositories: QuerySet[Repository], sha256: str) -> Artifact | None:
    """Any live file with these bytes in the repositories."""
    return (
        Artifact.objects.select_related("blob", "package", "uploaded_by")
        .filter(blob__digest=sha256, removed_revision=None, package__repository__in=repositories)
        .filter(gate_state=Content.Gate.OPEN)
        .first()
    )


def readable_artifact(repositories: QuerySet[Repository], path: str, *, prefer_namespace: int) -> Artifact | None:
    """A live file named by this digest in the repositories; one in the preferred namespace first."""
    algorithm, _, encoded = path.partition(":")
    rows = Artifact.objects.select_related("blob").filter(path=path, removed_revision=None)
    if algorithm == "sha256":
        rows = rows.filter(blob__digest=encoded)  # the index that finds it
    else:
        rows = rows.filter(blob__digests__algorithm=algorithm, blob__digests__hex=encoded)
    rows = rows.filter(package__repository__in=repositories, gate_state=Content.Gate.OPEN)
    return rows.filter(package__repository__namespace_id=prefer_namespace).first() or rows.first()


def live_version(repository_id: int, package: str, name: str) -> Version | None:
    return _live_version.first(repository_id, package, name)


def live_tagged(repository_id: int, package: str, tag: str) -> Version | None:
    row = _live_tagged.first(repository_id, package, tag)
    return row.version if row else None


def file_entry(row: Artifact) -> FileEntry:
    return FileEntry(
        package=row.package.name,
        path=row.path,
        blob=blob_ref(row),
        created_at=row.first_seen_at,
        touched_at=row.touched_at,
        uploaded_by=row.uploaded_by.username if row.uploaded_by else "",
        metadata=row.metadata,
    )


def version_entry(row: Version) -> VersionEntry:
    return VersionEntry(
        package=row.package.name,
        version=row.name,
        document=blob_ref(row) if row.blob_id else None,
        created_at=row.first_seen_at,
        artifact_type=row.artifact_type,
        subject=row.subject,
        metadata=row.metadata,
    )


def live_packages(repository_ids: Sequence[int] | QuerySet[Repository]) -> QuerySet[Package]:
    """Packages that hold something live: a version, or a file that stands by itself."""
    return Package.objects.filter(repository__in=repository_ids).filter(
        Exists(Version.objects.filter(package=OuterRef("pk"), removed_revision=None))
        | Exists(Artifact.objects.filter(package=OuterRef("pk"), removed_revision=None, held_by_version=False))
    )


_any_version = Prepared(
    lambda repository_id, package: Version.objects.filter(
        package__repository_id=repository_id, package__name=package, removed_revision=None
    ).values_list("pk")
)
_any_file = Prepared(
    lambda repository_id, package: Artifact.objects.filter(
        package__repository_id=repository_id, package__name=package, removed_revision=None
    ).values_list("pk")
)


def package_exists(repository_id: int, package: str) -> bool:
    """Whether anything was ever put under this name and is still there, blobs without a version included."""
    found = _any_version.first(repository_id, package) or _any_file.first(repository_id, package)
    return found is not None


def tags(repository_id: int, package: str, *, after: str, limit: int | None) -> Listing:
    """Live tags in byte order."""
    rows = Tag.objects.filter(package__repository_id=repository_id, package__name=package, removed_revision=None)
    if after:
        rows = rows.filter(name__gt=after)
    count = PAGE if limit is None else limit
    found = list(rows.order_by("name").values_list("name", "version__name")[: count + 1])
    entries = tuple(Entry(name, kind="tag", digest=version) for name, version in found[:count])
    return Listing(entries, more=len(found) > count)


def referrers(
    repository_id: int,
    package: str,
    subject: str,
    artifact_types: Sequence[str],
    *,
    after: str = "",
    limit: int | None = None,
) -> Listing:
    """Live versions whose subject is `subject`, in byte order of their names."""
    count = PAGE if limit is None else limit
    rows = Version.objects.filter(
        package__repository_id=repository_id, package__name=package, subject=subject, removed_revision=None
    ).filter(gate_state=Content.Gate.OPEN)
    if artifact_types:
        rows = rows.filter(artifact_type__in=list(artifact_types))
    if after:
        rows = rows.filter(name__gt=after)
    found = list(rows.select_related("blob").order_by("name")[: count + 1])
    entries = tuple(
        Entry(
            row.name,
            kind="version",
            size=row.blob.size if row.blob else 0,
            digest=row.name,
            modified=row.first_seen_at,
            media_type=row.media_type,
            artifact_type=row.artifact_type,
            metadata=row.metadata,
        )
        for row in found[:count]
    )
    return Listing(entries, more=len(found) > count)


_package_state = Prepared(lambda repository_id, name: Package.objects.filter(repository_id=repository_id, name=name))


def package(repository_id: int, name: str) -> Package | None:
    """The name's row, whatever it still holds."""
    return _package_state.first(repository_id, name)


_version_rows = Prepared(
    lambda package_id: (
        Version.objects.filter(package_id=package_id, removed_revision=None, gate_state=Content.Gate.OPEN)
        .order_by("added_revision", "name")
        .values_list(
            "id",
            "name",
            "media_type",
            Cast("metadata", TextField()),
            "is_yanked",
            "yanked_reason",
            "deprecated",
            "first_seen_at",
            "upstream_published_at",
        )
    )
)
_file_rows = Prepared(
    lambda package_id: (
        VersionArtifact.objects.filter(
            version__package_id=package_id,
            version__removed_revision=None,
            artifact__removed_revision=None,
            artifact__gate_state=Content.Gate.OPEN,
            artifact__blob__state=Blob.State.PRESENT,
        )
        .order_by("artifact__path")
        .values_list(
            "version_id",
            "artifact__path",
            Cast("artifact__metadata", TextField()),
            "artifact__first_seen_at",
            "artifact__upstream_published_at",
            "artifact__blob__digest",
            "artifact__blob__size",
        )
    )
)
_tag_rows = Prepared(
    lambda package_id: (
        Tag.objects.filter(package_id=package_id, removed_revision=None)
        .order_by("name")
        .values_list("name", "version__name")
    )
)


@snapshot()
def versions(repository_id: int, package: str) -> Listing | None:
    """All live versions of the package with their files, and its tags; None where the name holds no version.

    Files whose bytes failed a check are left out, and versions of which nothing is left then. Three queries, whatever the
    number of versions.
    """
    owner = _package_state.first(repository_id, package)
    if owner is None:
        return None
    rows = _version_rows.all(owner.pk)
    if not rows:
        return None
    files: dict[int, list[ListedFile]] = {}
    for version_id, path, metadata, seen, published, digest, size in _file_rows.all(owner.pk):
        listed = ListedFile(
            path,
            size=size,
            digests={"sha256": digest},
            published_at=published or seen,
            metadata=orjson.loads(metadata),
        )
        files.setdefault(version_id, []).append(listed)
    entries = tuple(
        Entry(
            name,
            kind="version",
            modified=published or seen,
            media_type=media_type,
            metadata=orjson.loads(metadata),
            files=tuple(files[key]),
            yanked=yanked,
            yanked_reason=reason,
            deprecated=deprecated,
        )
        for key, name, media_type, metadata, yanked, reason, deprecated, seen, published in rows
        if key in files
    )
    return Listing(
        entries,
        revision=owner.revision,
        tags=dict(_tag_rows.all(owner.pk)),
        metadata=owner.metadata,
        changed_at=owner.changed_at,
    )


_package_marks = Prepared(
    lambda repository_id: (
        Package.objects.filter(repository_id=repository_id, revision__gt=0)
        .order_by("name")
        .values_list("id", "name", "revision")
    )
)
_last_change = Prepared(
    lambda repository_id: (
        Package.objects.filter(repository_id=repository_id, revision__gt=0)
        .order_by("-revision")
        .values_list("changed_at")[:1]
    )
)


def package_marks(repository_id: int) -> list[tuple[int, str, int]]:
    """Id, name and revision of every package that ever showed something, in byte order of the names: one query, and no
    other table."""
    return list(_package_marks.all(repository_id))


def last_change(repository_id: int) -> datetime.datetime | None:
    """When what any package shows changed last."""
    row = _last_change.first(repository_id)
    return row[0] if row is not None else None


_release_rows = Prepared(
    lambda package_id: (
        Version.objects.filter(package_id=package_id, removed_revision=None, gate_state=Content.Gate.OPEN)
        .order_by("added_revision", "name")
        .values_list("name")
    )
)


@snapshot()
def releases(repository_id: int, package: str) -> Listing | None:
    """All live versions of the package by their names, for documents that say no more of them; None where it has none."""
    owner = _package_state.first(repository_id, package)
    rows = _release_rows.all(owner.pk) if owner is not None else []
    if owner is None or not rows:
        return None
    entries = tuple(Entry(name, kind="version") for (name,) in rows)
    return Listing(entries, revision=owner.revision, metadata=owner.metadata, changed_at=owner.changed_at)


@snapshot()
def version_files(repository_id: int, package: str, version: str) -> Listing | None:
    """One live version with its files; None where it is not there."""
    row = _live_version.first(repository_id, package, version)
    if row is None:
        return None
    rows = (
        VersionArtifact.objects.filter(version=row, artifact__removed_revision=None)
        .filter(artifact__gate_state=Content.Gate.OPEN, artifact__blob__state=Blob.State.PRESENT)
        .order_by("artifact__path")
        .values_list(
            "artifact__path",
            "artifact__first_seen_at",
            "artifact__upstream_published_at",
            "artifact__blob__digest",
            "artifact__blob__size",
        )
    )
    files = tuple(
        ListedFile(path, size=size, digests={"sha256": digest}, published_at=published or seen)
        for path, seen, published, digest, size in rows
    )
    entry = Entry(row.name, kind="version", modified=row.first_seen_at, metadata=row.metadata, files=files)
    return Listing((entry,), revision=row.package.revision, changed_at=row.package.changed_at)


def files(repository_id: int, package: str, *, under: str, after: str = "", limit: int | None = None) -> Listing:
    """Live files of the package whose paths begin with `under`, in byte order."""
    rows = Artifact.objects.filter(
        package__repository_id=repository_id, package__name=package, removed_revision=None, gate_state=Content.Gate.OPEN
    )
    if under:
        rows = rows.filter(path__gte=under, path__lt=after_prefix(under))
    if after:
        rows = rows.filter(path__gt=after)
    count = PAGE if limit is None else limit
    rows = rows.order_by("path")
    found = list(rows.values_list("path", "blob__size", "blob__digest", "first_seen_at", "metadata")[: count + 1])
    entries = tuple(
        Entry(path, size=size, digest=digest, modified=seen, metadata=metadata)
        for path, size, digest, seen, metadata in found[:count]
    )
    return Listing(entries, more=len(found) > count)


def after_prefix(prefix: str) -> str:
    """The first text in byte order that no text with this prefix (which ends with an ASCII character) comes after."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def packages(repository_id: int, *, q: str = "", after: str = "", limit: int | None = None) -> Listing:
    """Names that hold something, in byte order; `q` is a substring, taken literally."""
    rows = live_packages([repository_id]).order_by("name")
    if q:
        rows = rows.filter(name__icontains=q)
    if after:
        rows = rows.filter(name__gt=after)
    names = rows.values_list("name", "display_name", "changed_at")
    found = list(names if limit is None else names[: limit + 1])
    shown = found if limit is None else found[:limit]
    entries = tuple(
        Entry(name, kind="package", modified=changed, metadata={"display_name": display} if display else {})
        for name, display, changed in shown
    )
    return Listing(entries, more=len(found) > len(shown))


@snapshot()
def packages_under(repository_id: int, under: str, *, after: str = "", limit: int | None = None) -> Listing:
    """Names that hold something and begin with `under`, as `FormatHandler.describe` takes them: with what is kept of each
    and, where anything is, the names of its live versions; and what is kept of the name `under` itself, which may hold
    nothing. Versions are read only of packages of which something is kept."""
    rows = live_packages([repository_id]).filter(name__gte=under, name__lt=after_prefix(under)).order_by("name")
    if after:
        rows = rows.filter(name__gt=after)
    names = rows.values_list("pk", "name", "changed_at", "metadata")
    found = list(names if limit is None else names[: limit + 1])
    shown = found if limit is None else found[:limit]
    keeping = [key for key, _, _, metadata in shown if metadata]
    versions: dict[int, list[str]] = {}
    for start in range(0, len(keeping), PAGE):
        live = Version.objects.filter(package__in=keeping[start : start + PAGE], removed_revision=None)
        open_ones = live.filter(gate_state=Content.Gate.OPEN).order_by("package", "name")
        for key, name in open_ones.values_list("package_id", "name"):
            versions.setdefault(key, []).append(name)
    entries = tuple(
        Entry(name, kind="package", modified=changed, metadata={"kept": metadata, "versions": versions.get(key, [])})
        for key, name, changed, metadata in shown
    )
    own = _package_state.first(repository_id, under)
    return Listing(entries, more=len(found) > len(shown), metadata=own.metadata if own is not None else {})


def folder(repository_id: int, prefix: str, *, after: str, limit: int | None) -> Listing:
    """What is directly below `prefix` ("" or ending in "/"): files and folders in byte order, after the name `after`.

    Folders are skipped over, not read through, so the cost depends on the page and not on what the folders hold.
    """
    count = PAGE if limit is None else limit
    entries: list[Entry] = []
    start = prefix + after
    skipping = bool(after)
    if after.endswith("/"):
        start, skipping = prefix + after[:-1] + "0", False  # "0" is the byte after "/"
    base = (
        Artifact.objects.filter(
            package__repository_id=repository_id, removed_revision=None, gate_state=Content.Gate.OPEN
        )
        .select_related("blob", "package")
        .order_by("package__name")
    )
    end = prefix[:-1] + "0" if prefix else ""
    while len(entries) <= count:
        query = base.filter(package__name__gt=start) if skipping else base.filter(package__name__gte=start)
        if end:
            query = query.filter(package__name__lt=end)
        rows = list(query[:500])
        if not rows:
            break
        for row in rows:
            rest = row.package.name[len(prefix) :]
            name, slash, _ = rest.partition("/")
            if slash:
                if entries and entries[-1].name == name and entries[-1].kind == "folder":
                    continue
                entries.append(Entry(name, kind="folder"))
            else:
                entries.append(
                    Entry(
                        name,
                        size=row.blob.size,
                        digest=row.blob.digest,
                        modified=row.first_seen_at,
                        media_type=row.media_type,
                    )
                )
            if len(entries) > count:
                break
        last = entries[-1]
        if last.kind == "folder":
            start, skipping = prefix + last.name + "0", False
        else:
            start, skipping = rows[-1].package.name, True
        if len(rows) < 500 and last.kind != "folder":
            break
    return Listing(tuple(entries[:count]), more=len(entries) > count)


def folder_exists(repository_id: int, prefix: str) -> bool:
    """Whether any live file's name starts with `prefix` (which ends in "/")."""
    return Artifact.objects.filter(
        package__repository_id=repository_id,
        package__name__gt=prefix,
        package__name__lt=prefix[:-1] + "0",
        removed_revision=None,
    ).exists()


def path_clash(repository_id: int, name: str) -> str | None:
    """A live file that is a folder of `name`, or lies below `name` as if that were a folder; None if there is none."""
    parts = name.split("/")
    ancestors = ["/".join(parts[:index]) for index in range(1, len(parts))]
    live = Artifact.objects.filter(package__repository_id=repository_id, removed_revision=None)
    if ancestors:
        found = live.filter(package__name__in=ancestors).values_list("package__name", flat=True).first()
        if found:
            return found
    below = live.filter(Q(package__name__gt=name + "/") & Q(package__name__lt=name + "0"))
    return below.values_list("package__name", flat=True).first()


def package_names(repositories: QuerySet[Repository], *, after: str, limit: int) -> list[str]:
    """Full names (`ns/repo/package`) in byte order, after the full name `after`."""
    names: list[str] = []
    rows = repositories.order_by("key").values_list("id", "key")
    if after:
        first_key = "/".join(after.split("/")[:2])
        rows = rows.filter(key__gte=first_key)
    for repository_id, key in rows:
        packages = live_packages([repository_id]).order_by("name")
        if after.startswith(key + "/"):
            packages = packages.filter(name__gt=after[len(key) + 1 :])
        names += [f"{key}/{name}" for name in packages.values_list("name", flat=True)[: limit - len(names)]]
        if len(names) >= limit:
            break
    return names
