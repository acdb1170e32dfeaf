"""Bringing back what one revision removed, as long as the trash holds it.

Nothing in the log changes: the closed rows stay closed, and copies of them become live under a new revision. Where
versions own their files, a file comes back only with its version, and a version only with the files that went with it.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Q

from repoman.access import permissions
from repoman.blobs.models import Blob
from repoman.catalog import writes
from repoman.catalog.models import Artifact, Burned, Repository, Tag, Version, VersionArtifact
from repoman.core import clock
from repoman.core.actor import Action, Actor
from repoman.core.errors import NotFound
from repoman.core.format import handler_for
from repoman.events.record import record
from repoman.policy import quota

from .publish import about_of
from .transactions import write

NAMES_IN_EVENT = 100


@dataclass(slots=True)
class Undeleted:
    """`revision`: the new one, None where nothing came back. `restored` and `skipped` name things as
    {"kind", "package", "name"}, the skipped with a `reason`."""

    revision: int | None = None
    restored: list[dict[str, str]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)


def undelete(repository: Repository, revision: int, actor: Actor) -> Undeleted:
    """Bring back what `revision` of the repository removed. What has been taken by something else meanwhile is skipped
    and reported. Needs PUBLISH and DELETE. Raises NotFound where the trash holds nothing of that revision."""
    permissions.check(actor, repository, Action.DELETE)
    permissions.check(actor, repository, Action.PUBLISH)
    return write(lambda: _undelete(repository, revision, actor))


def _undelete(repository: Repository, revision: int, actor: Actor) -> Undeleted:
    closed: dict[str, Any] = {"package__repository": repository, "removed_revision": revision}
    # Blobs first, as everywhere: what a purge is removing at this moment is gone once we have them.
    blob_ids = set(Artifact.objects.filter(**closed).values_list("blob_id", flat=True))
    blob_ids |= set(Version.objects.filter(**closed).exclude(blob=None).values_list("blob_id", flat=True))
    parts = VersionArtifact.objects.filter(
        version__package__repository=repository, version__removed_revision=revision
    ).exclude(artifact__removed_revision=None)
    blob_ids |= set(parts.values_list("artifact__blob_id", flat=True))
    blobs = {blob.pk: blob for blob in writes.lock_shared(Blob.objects.filter(pk__in=blob_ids).order_by("digest"))}
    quota.hold(repository.namespace_id, blobs.values())
    current = writes.lock_repository(repository)
    change = _Restoration(current, actor, clock.now(), Undeleted(), blobs)
    artifacts = list(Artifact.objects.filter(**closed).select_related("package").order_by("pk"))
    versions = list(Version.objects.filter(**closed).select_related("package").order_by("pk"))
    tags = list(Tag.objects.filter(**closed).select_related("package", "version").order_by("pk"))
    if not (artifacts or versions or tags):
        raise NotFound(f"revision {revision} of '{repository.key}' removed nothing that the trash still holds")
    named = set(parts.values_list("artifact_id", flat=True))
    for artifact in artifacts:
        if not change.owns_files:
            change.artifact(artifact)
        elif artifact.pk not in named:  # a purge that takes versions first was here, or was cut off
            change.skipped("file", artifact.package.name, artifact.path, "its version is gone")
    for version in versions:
        change.version(version)
    for tag in tags:
        change.tag(tag)
    outcome = change.outcome
    if outcome.revision is not None:
        rows: list[Any] = [*artifacts, *versions, *tags]
        for package_id in {row.package_id for row in rows}:
            writes.stamp_package(package_id, outcome.revision, change.moment)
        for one in outcome.restored:  # what did not come back stays burned
            Burned.objects.filter(package__repository=current, package__name=one["package"], name=one["name"]).delete()
        record(
            "repository:undelete",
            actor=actor,
            repository=current,
            revision=outcome.revision,
            subject=f"revision {revision}",
            restored=[f"{one['kind']} {one['package']} {one['name']}" for one in outcome.restored[:NAMES_IN_EVENT]],
            restored_count=len(outcome.restored),
            skipped_count=len(outcome.skipped),
        )
    return outcome


@dataclass(slots=True)
class _Restoration:
    repository: Repository
    actor: Actor
    moment: datetime.datetime
    outcome: Undeleted
    blobs: dict[int, Blob]

    @property
    def owns_files(self) -> bool:
        return handler_for(self.repository.format).versions_own_files

    def _stamp(self) -> int:
        if self.outcome.revision is None:
            self.outcome.revision = writes.next_revision(self.repository)
        return self.outcome.revision

    def _restored(self, kind: str, package: str, name: str) -> None:
        self.outcome.restored.append({"kind": kind, "package": package, "name": name})

    def skipped(self, kind: str, package: str, name: str, reason: str) -> None:
        self.outcome.skipped.append({"kind": kind, "package": package, "name": name, "reason": reason})

    def artifact(self, row: Artifact) -> Artifact | None:
        """The live file with these bytes at this path, copied if need be; None where other bytes stand there."""
        live = Artifact.objects.filter(package=row.package, path=row.path, removed_revision=None).first()
        if live is not None:
            same = live.blob_id == row.blob_id
            reason = "it is there already" if same else "another file has its path now"
            self.skipped("file", row.package.name, row.path, reason)
            return live if same else None
        if row.blob_id not in self.blobs:
            self.skipped("file", row.package.name, row.path, "its bytes are gone")
            return None
        for path, digest in about_of(row.metadata).items():
            beside = Artifact.objects.filter(package=row.package, path=path, removed_revision=None)
            if beside.exclude(blob__digest=digest).exists():
                self.skipped("file", row.package.name, row.path, f"it speaks of other bytes than '{path}' has now")
                return None
        self._restored("file", row.package.name, row.path)
        # A file that no version named had no revision of its own, and needs none now.
        added = self._stamp() if row.added_revision is not None or not row.held_by_version else None
        return writes.copy_live(row, touched_at=self.moment, added_revision=added)

    def version(self, row: Version) -> None:
        live = Version.objects.filter(package=row.package, name=row.name, removed_revision=None).first()
        if live is not None:
            same = live.blob_id == row.blob_id
            if same and self.owns_files and self._rejoin(row, live):
                return
            reason = "it is there already" if same else "another version has its name now"
            self.skipped("version", row.package.name, row.name, reason)
            return
        if row.blob_id is not None and row.blob_id not in self.blobs:
            self.skipped("version", row.package.name, row.name, "its bytes are gone")
            return
        files = self._files_of(row)
        parts = [part for part in map(self._part, files) if part is not None]
        if not parts if self.owns_files else len(parts) < len(files):
            self.skipped("version", row.package.name, row.name, "one of its files cannot be brought back")
            return
        copy = writes.copy_live(row, added_revision=self._stamp())
        VersionArtifact.objects.bulk_create([VersionArtifact(version=copy, artifact=part) for part in parts])
        self._restored("version", row.package.name, row.name)

    def _rejoin(self, row: Version, live: Version) -> bool:
        """Give the live version the files of the closed one that have come back. False where it has them all."""
        known = set(VersionArtifact.objects.filter(version=live).values_list("artifact_id", flat=True))
        parts = map(self._part, self._files_of(row))
        new = [part for part in parts if part is not None and part.pk not in known]
        VersionArtifact.objects.bulk_create([VersionArtifact(version=live, artifact=part) for part in new])
        if new:
            self._stamp()
            self._restored("version", row.package.name, row.name)
        return bool(new)

    def _files_of(self, row: Version) -> list[Artifact]:
        """Its files; where versions own them, without those that another revision removed."""
        files = row.artifacts.select_related("package").order_by("pk")
        if self.owns_files:
            files = files.filter(Q(removed_revision=None) | Q(removed_revision=row.removed_revision))
        return list(files)

    def _part(self, row: Artifact) -> Artifact | None:
        """The live file a version that comes back names: the very row, or what stands for it now."""
        if row.removed_revision is None:
            return row
        live = Artifact.objects.filter(
            package=row.package, path=row.path, removed_revision=None, blob_id=row.blob_id
        ).first()
        return live or self.artifact(row)

    def tag(self, row: Tag) -> None:
        if Tag.objects.filter(package=row.package, name=row.name, removed_revision=None).exists():
            self.skipped("tag", row.package.name, row.name, "the tag points elsewhere now")
            return
        target = Version.objects.filter(package=row.package, name=row.version.name, removed_revision=None).first()
        if target is None:
            self.skipped("tag", row.package.name, row.name, "its version is not there")
            return
        writes.add_tag(target, row.name, self._stamp(), self.actor.principal_id)
        self._restored("tag", row.package.name, row.name)
