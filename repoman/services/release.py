"""Taking rows away for good, and with the last row of a namespace that names a blob its Holding and the bytes charged.

Locks, in the order of `catalog/writes.py`: Blob FOR UPDATE SKIP LOCKED (a blob that a publisher claims right now is left
for the next run) → Namespace FOR NO KEY UPDATE → Artifact FOR UPDATE SKIP LOCKED. Only then it is looked whether
something may go: a condition judged before its lock would be stale. Every function runs inside the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.db.models import Exists, OuterRef, Q, QuerySet

from repoman.blobs.models import Blob
from repoman.catalog.models import Artifact, Holding, Namespace, Tag, Version, VersionArtifact
from repoman.policy import quota


@dataclass(slots=True)
class Removed:
    """Counts of rows, and `released_bytes` given back to namespaces."""

    versions: int = 0
    artifacts: int = 0
    tags: int = 0
    holdings: int = 0
    released_bytes: int = 0
    busy: int = 0  # rows left for the next run because their blob was being published

    def add(self, other: Removed) -> None:
        self.versions += other.versions
        self.artifacts += other.artifacts
        self.tags += other.tags
        self.holdings += other.holdings
        self.released_bytes += other.released_bytes
        self.busy += other.busy


def for_update(rows: QuerySet[Any], *, skip_locked: bool = True) -> QuerySet[Any]:
    """The rows, locked against everybody; without those that somebody else has locked. On SQLite the transaction is
    the lock."""
    if connection.vendor != "postgresql":
        return rows
    return rows.select_for_update(skip_locked=skip_locked, of=("self",))


def lock_blobs(blob_ids: Collection[int]) -> set[int]:
    """Those of the blobs that nobody claims at the moment, now claimed by us."""
    if not blob_ids:
        return set()
    rows = for_update(Blob.objects.filter(pk__in=list(blob_ids)).order_by("digest"))
    return set(rows.values_list("pk", flat=True))


def lock_namespace(namespace_id: int) -> None:
    rows = Namespace.objects.filter(pk=namespace_id)
    if connection.vendor == "postgresql":
        rows = rows.select_for_update(no_key=True)
    list(rows.values_list("pk"))


def release(namespace_id: int, blob_ids: Iterable[int]) -> tuple[int, int]:
    """Drop the Holdings of those blobs, locked by the caller, that no row of the namespace names any more, live or in
    the trash. Returns how many, and the bytes given back."""
    named_by_artifact = Artifact.objects.filter(
        blob_id=OuterRef("blob_id"), package__repository__namespace_id=namespace_id
    )
    named_by_version = Version.objects.filter(
        blob_id=OuterRef("blob_id"), package__repository__namespace_id=namespace_id
    )
    dead = list(
        Holding.objects.filter(namespace_id=namespace_id, blob_id__in=list(blob_ids))
        .filter(~Exists(named_by_artifact), ~Exists(named_by_version))
        .values_list("pk", "blob__size")
    )
    if not dead:
        return 0, 0
    Holding.objects.filter(pk__in=[key for key, _ in dead]).delete()
    freed = sum(size for _, size in dead)
    quota.charge(namespace_id, used=-freed)
    return len(dead), freed


def remove_rows(
    namespace_id: int,
    *,
    versions: Collection[int] = (),
    artifacts: Collection[int] = (),
    still: Q | None = None,
    from_trash: bool = False,
) -> Removed:
    """Remove these rows of one namespace for good, with the tags of the versions, as far as `still` holds once they are
    locked; a file that a version names stays, with `from_trash` only one that a live version names. Keep the batches small:
    the namespace's row is locked meanwhile."""
    condition = still if still is not None else Q()
    own_versions = Version.objects.filter(condition, pk__in=list(versions)) if versions else Version.objects.none()
    own_artifacts = Artifact.objects.filter(condition, pk__in=list(artifacts)) if artifacts else Artifact.objects.none()
    version_blobs = dict(own_versions.values_list("pk", "blob_id"))
    artifact_blobs = dict(own_artifacts.values_list("pk", "blob_id"))
    wanted = {blob_id for blob_id in (*version_blobs.values(), *artifact_blobs.values()) if blob_id is not None}
    locked = lock_blobs(wanted)
    lock_namespace(namespace_id)
    free = Q(blob_id__in=locked)
    removed = Removed()
    if version_blobs:
        doomed = list(for_update(own_versions.filter(free | Q(blob_id=None))).values_list("pk", flat=True))
        removed.tags, _ = Tag.objects.filter(version_id__in=doomed).delete()
        VersionArtifact.objects.filter(version_id__in=doomed).delete()
        Version.objects.filter(pk__in=doomed).delete()
        removed.versions = len(doomed)
        removed.busy += len(version_blobs) - len(doomed)
    if artifact_blobs:
        ours = list(for_update(own_artifacts.filter(free)).values_list("pk", flat=True))
        if from_trash:
            VersionArtifact.objects.filter(artifact_id__in=ours, version__removed_revision__isnull=False).delete()
        named = set(VersionArtifact.objects.filter(artifact_id__in=ours).values_list("artifact_id", flat=True))
        Artifact.objects.filter(pk__in=[key for key in ours if key not in named]).delete()
        removed.artifacts = len(ours) - len(named)
        removed.busy += len(artifact_blobs) - len(ours)
    removed.holdings, removed.released_bytes = release(namespace_id, locked)
    return removed
