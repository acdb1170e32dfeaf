"""The delete door: rows are closed under one revision and stay in the trash until purged."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Exists, OuterRef, QuerySet

from repoman.catalog import writes
from repoman.catalog.models import Artifact, Package, Repository, Tag, Version, VersionArtifact
from repoman.core import clock
from repoman.core.actor import Actor
from repoman.core.errors import Conflict, FileNotFound, MethodNotAllowed, PreconditionFailed, VersionNotFound
from repoman.core.format import FormatHandler, handler_for
from repoman.core.refs import FileRef, TagRef, VersionRef
from repoman.events.record import record
from repoman.policy import gates

from .publish import burns
from .transactions import write


@dataclass(slots=True)
class _Removal:
    """One transaction that takes things of one package away. The revision is taken with the first of them."""

    repository: Repository
    actor: Actor
    package: Package
    moment: datetime.datetime
    revision: int | None = None

    @property
    def handler(self) -> FormatHandler:
        return handler_for(self.repository.format)

    def stamp(self) -> int:
        if self.revision is None:
            self.revision = writes.next_revision(self.repository)
            writes.stamp_package(self.package.pk, self.revision, self.moment)
        return self.revision

    def record(self, kind: str, subject: str, **detail: Any) -> None:
        record(kind, actor=self.actor, repository=self.repository, revision=self.revision, subject=subject, **detail)

    def judge(self, tag: str, version: str) -> None:
        options = self.handler.parse_options(self.repository.options)
        gates.judge_tag_move(
            gates.TagMove(self.actor, self.repository.key, options, self.package.name, tag, version, "")
        )


def _removal(repository: Repository, actor: Actor, package_name: str) -> _Removal | None:
    """Inside the transaction, with the repository locked. None where there is no such package."""
    current = writes.lock_repository(repository)
    package = Package.objects.filter(repository=repository, name=package_name).first()
    return _Removal(current, actor, package, clock.now()) if package is not None else None


def remove_tag(repository: Repository, actor: Actor, ref: TagRef) -> int:
    """Take the tag away; the version stays. Returns the revision. Raises VersionNotFound, Forbidden (immutable)."""

    def block() -> int:
        removal = _removal(repository, actor, ref.package)
        tags = Tag.objects.filter(
            package__repository=repository, package__name=ref.package, name=ref.tag, removed_revision=None
        )
        found = tags.select_related("version").first()
        if removal is None or found is None:
            raise VersionNotFound(f"{repository.key}/{ref.package} has no tag '{ref.tag}'")
        removal.judge(ref.tag, found.version.name)
        revision = removal.stamp()
        writes.close(tags, revision, removal.moment)
        removal.record("tag:delete", f"{ref.package}:{ref.tag}", version=found.version.name)
        return revision

    return write(block)


def remove_version(repository: Repository, actor: Actor, ref: VersionRef) -> int:
    """Take the version and every tag to it away. Returns the revision. Raises VersionNotFound, Forbidden."""
    revision = remove_versions(repository, actor, ref.package, [ref.version])
    if revision is None:
        raise VersionNotFound(f"{repository.key}/{ref.package} has no version '{ref.version}'")
    return revision


def remove_versions(
    repository: Repository, actor: Actor, package: str, names: Sequence[str], *, if_revision: int | None = None
) -> int | None:
    """Take these versions away under one revision, with their tags and, where versions own them, their files.

    Returns the revision; None where none of them was there. `if_revision`: what the package's must still be (Conflict).
    Raises Forbidden for an immutable tag.
    """

    def block() -> int | None:
        removal = _removal(repository, actor, package)
        if removal is None:
            return None
        if if_revision is not None and removal.package.revision != if_revision:
            raise Conflict(f"'{package}' was changed meanwhile; read it again and repeat")
        versions = Version.objects.filter(package=removal.package, name__in=list(names), removed_revision=None)
        for version in versions.select_related("blob").order_by("name"):
            _close_version(removal, version)
        return removal.revision

    return write(block)


def _close_version(removal: _Removal, version: Version) -> None:
    tags = Tag.objects.filter(version=version, removed_revision=None)
    names = sorted(tags.values_list("name", flat=True))
    for name in names:
        removal.judge(name, version.name)
    revision = removal.stamp()
    writes.close(tags, revision, removal.moment)
    writes.close(Version.objects.filter(pk=version.pk), revision, removal.moment)
    digests: list[str] = []
    if removal.handler.versions_own_files:
        files = _own_files(version)
        digests = _burn_files(removal, files)
        writes.close(Artifact.objects.filter(pk__in=[file.pk for file in files]), revision, removal.moment)
    if burns(removal.repository) == "version":
        writes.burn(removal.package.pk, [(version.name, digests[0] if digests else "")], removal.moment)
    subject = f"{removal.package.name}@{version.name}" if version.blob_id else f"{removal.package.name} {version.name}"
    removal.record("version:delete", subject, tags=names, files=digests)


def _own_files(version: Version) -> list[Artifact]:
    """The live files that only this version names."""
    others = VersionArtifact.objects.filter(artifact=OuterRef("pk"), version__removed_revision=None)
    files = Artifact.objects.filter(versions=version, removed_revision=None).select_related("blob").order_by("path")
    return list(files.filter(~Exists(others.exclude(version=version))))


def _burn_files(removal: _Removal, files: Sequence[Artifact]) -> list[str]:
    """Their digests; and where the format does not use a file's name twice, that is noted."""
    if burns(removal.repository) == "file":
        writes.burn(removal.package.pk, [(file.path, file.blob.digest) for file in files], removal.moment)
    return [file.blob.digest for file in files]


def remove_file(repository: Repository, actor: Actor, ref: FileRef, *, if_match: frozenset[str] | None = None) -> int:
    """Take the file away. Returns the revision.

    Where versions own their files, what lies beside the file (the handler's `is_beside`) goes with it, and its version
    too when nothing of it is left; at once where versions burn, or other content could take its name. Elsewhere a
    file that a live version still names stays: MethodNotAllowed. Raises FileNotFound, PreconditionFailed.
    """

    def block() -> int:
        removal = _removal(repository, actor, ref.package)
        files: QuerySet[Artifact] = Artifact.objects.filter(
            package__repository=repository, package__name=ref.package, path=ref.path, removed_revision=None
        )
        found = files.select_related("blob").first()
        if removal is None or found is None:
            raise FileNotFound(f"{repository.key} has no file '{ref.path}'")
        if if_match is not None and "*" not in if_match and found.blob.digest not in if_match:
            raise PreconditionFailed(f"'{ref.path}' is not what If-Match expects")
        owners = list(Version.objects.filter(versionartifact__artifact=found, removed_revision=None))
        if owners and not removal.handler.versions_own_files:
            raise MethodNotAllowed(
                f"'{ref.path}' is still named by a version of '{ref.package}'; delete that version first"
            )
        revision = removal.stamp()
        if owners and burns(repository) == "version":
            for version in owners:
                _close_version(removal, version)
        elif removal.handler.versions_own_files:
            near = Artifact.objects.filter(
                package=removal.package, path__gte=ref.path, path__lt=f"{ref.path}/", removed_revision=None
            )
            group = [
                file
                for file in near.select_related("blob").order_by("path")
                if file.path == ref.path or removal.handler.is_beside(ref.path, file.path)
            ]
            _burn_files(removal, group)
            for version in owners:
                _close_without(removal, version, {file.pk for file in group})
            files = Artifact.objects.filter(pk__in=[file.pk for file in group])
        writes.close(files, revision, removal.moment)
        removal.record(
            "file:delete",
            ref.path if ref.package == ref.path else f"{ref.package}/{ref.path}",
            digest=f"sha256:{found.blob.digest}",
            bytes=found.blob.size,
        )
        return revision

    return write(block)


def _close_without(removal: _Removal, version: Version, gone: set[int]) -> None:
    """The version as it is without these files, unless nothing is left."""
    revision = removal.stamp()
    left = list(
        VersionArtifact.objects.filter(version=version, artifact__removed_revision=None)
        .exclude(artifact_id__in=gone)
        .values_list("artifact_id", flat=True)
    )
    if not left:
        for tag in Tag.objects.filter(version=version, removed_revision=None):
            removal.judge(tag.name, version.name)
    writes.renew_version(version, left, revision, removal.moment)
