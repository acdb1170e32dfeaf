"""Every insert and close of catalog rows, and the one place where the lock order is written down.

Lock order: Blob (ordered by digest) → Package → Namespace (quota) → Repository (revision) → Version → Artifact → Tag.
Nothing after the repository's row waits for anybody: whoever holds it only inserts and commits. Every function here
runs inside the caller's transaction. On SQLite the transaction itself is the lock.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import QuerySet

from repoman.blobs.models import Blob, BlobDigest, Tombstone
from repoman.core import clock
from repoman.core.errors import RepositoryNotFound, Unavailable
from repoman.core.records import Staged
from repoman.db.prepared import Prepared, PreparedInsert

from .models import Artifact, Burned, Package, Repository, Tag, Version, VersionArtifact

_package = Prepared(lambda repository_id, name: Package.objects.filter(repository_id=repository_id, name=name))
insert_artifact = PreparedInsert(Artifact)
insert_version = PreparedInsert(Version)
insert_tag = PreparedInsert(Tag)
_blob = Prepared(lambda blob_id: Blob.objects.filter(pk=blob_id))
_repository = Prepared(lambda repository_id: Repository.objects.filter(pk=repository_id))


class ClaimLost(Exception):
    """A blob or row that was looked up before the transaction is gone in it; the service runs the whole block again."""


def lock_shared(rows: QuerySet[Any]) -> list[Any]:
    """The rows, kept from being deleted until the transaction ends, without making other readers of them wait."""
    if connection.vendor != "postgresql":
        return list(rows)
    try:
        sql, parameters = rows.query.sql_with_params()
    except EmptyResultSet:  # a condition that no row can meet, such as "one of these none"
        return []
    return list(rows.model.objects.raw(f"{sql} FOR KEY SHARE OF {rows.model._meta.db_table}", parameters))


def claim_staged(staged: Iterable[Staged], damaged: frozenset[str] = frozenset()) -> tuple[dict[str, Blob], list[str]]:
    """Blob rows for staged bytes, by sha256 hex, and the storage keys of ours that lost to a blob already there.

    `damaged`: storage keys known to be missing or altered: those rows take our bytes instead (healing).
    """
    now = clock.now()
    wanted = {item.digest.hex: item for item in staged}
    surplus: list[str] = []
    rows: dict[str, Blob] = {}
    for hex_digest in sorted(wanted):
        blob = _insert_blob(wanted[hex_digest], now)
        if blob is not None:
            rows[hex_digest] = blob
    there = [hex_digest for hex_digest in wanted if hex_digest not in rows]
    if there:
        found = lock_shared(Blob.objects.filter(digest__in=there).order_by("digest"))
        rows |= {blob.digest: blob for blob in found}
    for hex_digest, item in wanted.items():
        blob = rows.get(hex_digest)
        if blob is None:
            raise ClaimLost(hex_digest)
        if blob.storage_key != item.storage_key:
            if blob.state == Blob.State.SUSPECT or blob.storage_key in damaged:
                Tombstone.objects.bulk_create(
                    [Tombstone(storage_key=blob.storage_key, size=blob.size, created_at=now)], ignore_conflicts=True
                )
                Blob.objects.filter(pk=blob.pk).update(
                    storage_key=item.storage_key, stamp=item.stamp, state=Blob.State.PRESENT, touched_at=now
                )
                blob.storage_key, blob.stamp, blob.state = item.storage_key, item.stamp, Blob.State.PRESENT
            else:
                surplus.append(item.storage_key)
        if item.others:
            BlobDigest.objects.bulk_create(
                [BlobDigest(blob=blob, algorithm=name, hex=value) for name, value in item.others.items()],
                ignore_conflicts=True,
            )
    return rows, surplus


def _insert_blob(item: Staged, now: datetime.datetime) -> Blob | None:
    """The new row, or None where the digest has one. Raises ClaimLost if only an old object could stand for it."""
    blob = Blob(
        digest=item.digest.hex,
        size=item.size,
        storage_key=item.storage_key,
        stamp=item.stamp,
        created_at=now,
        touched_at=now,
    )
    moment = connection.ops.adapt_datetimefield_value(now)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO blobs_blob (digest, size, storage_key, stamp, store, state, created_at, touched_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (digest) DO NOTHING RETURNING id",
            [blob.digest, blob.size, blob.storage_key, blob.stamp, blob.store, str(blob.state), moment, moment],
        )
        row = cursor.fetchone()
    if row is None:
        return None
    if not item.is_fresh:
        raise ClaimLost("the object that was to be linked has just been collected")
    blob.pk = row[0]
    blob._state.adding = False
    return blob


def attach(package_id: int, path: str, blob: Blob, *, media_type: str, uploaded_by: int | None) -> bool:
    """A file that is kept by versions only, under a name that has none yet. False where a live one has the name."""
    now = connection.ops.adapt_datetimefield_value(clock.now())
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO catalog_artifact (package_id, path, blob_id, media_type, held_by_version, gate_state, metadata,"
            " uploaded_by_id, origin, first_seen_at, touched_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (package_id, path) WHERE removed_revision IS NULL DO NOTHING",
            [package_id, path, blob.pk, media_type, True, "open", "{}", uploaded_by, "", now, now],
        )
        return bool(cursor.rowcount == 1)


def claim_blob(blob_id: int) -> Blob:
    """An existing blob, kept from the collector until the transaction ends. Raises ClaimLost if it is gone."""
    if connection.vendor == "postgresql":
        found = lock_shared(Blob.objects.filter(pk=blob_id))
        blob = found[0] if found else None
    else:
        blob = _blob.first(blob_id)
    if blob is None:
        raise ClaimLost(str(blob_id))
    return blob


def package(repository: Repository, name: str, *, display_name: str = "") -> Package:
    """The package's row, made if it is not there."""
    found = _package.first(repository.pk, name)
    if found is not None:
        return found
    new = Package(repository=repository, name=name, display_name=display_name or name, created_at=clock.now())
    Package.objects.bulk_create([new], ignore_conflicts=True)
    return Package.objects.get(repository=repository, name=name)


def check_writable(repository: Repository, *, lock: bool = False) -> Repository:
    """The repository's row as it stands now. Raises RepositoryNotFound or Unavailable by its state.

    `lock` keeps it until the transaction ends: for whoever is about to take a revision.
    """
    if lock and connection.vendor == "postgresql":
        current = Repository.objects.filter(pk=repository.pk).select_for_update().first()
    else:
        current = _repository.first(repository.pk)
    if current is None or current.state == Repository.State.DELETING:
        raise RepositoryNotFound(f"repository '{repository.key}' was deleted")
    if current.state == Repository.State.READ_ONLY:
        raise Unavailable(f"repository '{repository.key}' is read-only at the moment", retry_after_seconds=60)
    return current


def lock_repository(repository: Repository) -> Repository:
    return check_writable(repository, lock=True)


def next_revision(repository: Repository) -> int:
    """Raise the locked repository's revision by one and return it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE catalog_repository SET revision = revision + 1 WHERE id = %s RETURNING revision", [repository.pk]
        )
        row = cursor.fetchone()
    return int(row[0])


def stamp_package(package_id: int, revision: int, moment: datetime.datetime) -> None:
    """What the package shows changed with this revision. Nobody waits: only who holds the repository writes this."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE catalog_package SET revision = %s, changed_at = %s WHERE id = %s",
            [revision, connection.ops.adapt_datetimefield_value(moment), package_id],
        )


def burn(package_id: int, names: Iterable[tuple[str, str]], moment: datetime.datetime) -> None:
    """Names (each with the sha256 that stood there) that nothing else may take from now on."""
    Burned.objects.bulk_create(
        [Burned(package_id=package_id, name=name, digest=digest, burned_at=moment) for name, digest in names],
        ignore_conflicts=True,
    )


def close(rows: QuerySet[Any], revision: int, moment: datetime.datetime) -> int:
    """Close live rows: they leave the clients' view and stay in the trash."""
    return rows.filter(removed_revision=None).update(removed_revision=revision, removed_at=moment)


def copy_live(row: Any, **changes: Any) -> Any:
    """A live copy of an Artifact or Version: the same content, with who brought it first and when."""
    kept = {
        each.attname: getattr(row, each.attname)
        for each in row._meta.concrete_fields
        if each.attname not in ("id", "removed_revision", "removed_at", "added_revision", *changes)
    }
    return type(row).objects.create(**kept, **changes)


def renew_version(version: Version, files: Sequence[int], revision: int, moment: datetime.datetime) -> Version | None:
    """The live version, from now on with these files (their ids): its row is closed and a copy takes its place and its
    tags. Without files nothing does."""
    tags = list(Tag.objects.filter(version=version, removed_revision=None))
    close(Tag.objects.filter(version=version), revision, moment)
    close(Version.objects.filter(pk=version.pk), revision, moment)
    if not files:
        return None
    copy: Version = copy_live(version, added_revision=revision)
    VersionArtifact.objects.bulk_create([VersionArtifact(version=copy, artifact_id=key) for key in files])
    for tag in tags:
        add_tag(copy, tag.name, revision, tag.moved_by_id)
    return copy


def touch(artifacts: Sequence[Artifact]) -> None:
    """The grace of these files and their blobs counts from now. Raises ClaimLost if one has just been collected."""
    now = clock.now()
    touched = Artifact.objects.filter(pk__in=[row.pk for row in artifacts]).update(touched_at=now)
    if touched != len({row.pk for row in artifacts}):
        raise ClaimLost("a file that was to be promised has just been collected")
    Blob.objects.filter(pk__in=[row.blob_id for row in artifacts]).update(touched_at=now)


def link_parts(version: Version, parts: Sequence[Artifact], revision: int) -> None:
    """The new version names these files; those no version named before become visible with it."""
    if not parts:
        return
    with connection.cursor() as cursor:
        for start in range(0, len(parts), 400):
            some = parts[start : start + 400]
            marks = ", ".join(["(%s, %s)"] * len(some))
            cursor.execute(
                f"INSERT INTO catalog_versionartifact (version_id, artifact_id) VALUES {marks}",
                [value for part in some for value in (version.pk, part.pk)],
            )
    new = [part.pk for part in parts if part.added_revision is None]
    if new:
        Artifact.objects.filter(pk__in=new, added_revision=None).update(added_revision=revision)


def add_tag(version: Version, name: str, revision: int, moved_by: int | None) -> Tag:
    return insert_tag(
        package_id=version.package_id,
        name=name,
        version=version,
        moved_by_id=moved_by,
        moved_at=clock.now(),
        added_revision=revision,
    )
