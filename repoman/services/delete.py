"""The delete door: rows are closed under one revision and stay in the trash until purged."""

from __future__ import annotations

from django.db.models import QuerySet

from repoman.catalog import writes
from repoman.catalog.models import Artifact, Repository, Tag, Version
from repoman.core import clock
from repoman.core.actor import Actor
from repoman.core.errors import FileNotFound, MethodNotAllowed, PreconditionFailed, VersionNotFound
from repoman.core.format import handler_for
from repoman.core.refs import FileRef, TagRef, VersionRef
from repoman.events.record import record
from repoman.policy import gates

from .transactions import write


def remove_tag(repository: Repository, actor: Actor, ref: TagRef) -> int:
    """Take the tag away; the version stays. Returns the revision. Raises VersionNotFound, Forbidden (immutable)."""

    def block() -> int:
        current = writes.lock_repository(repository)
        tags = Tag.objects.filter(
            package__repository=repository, package__name=ref.package, name=ref.tag, removed_revision=None
        )
        found = tags.select_related("version").first()
        if found is None:
            raise VersionNotFound(f"{repository.key}/{ref.package} has no tag '{ref.tag}'")
        _judge(current, actor, ref.package, ref.tag, found.version.name)
        revision = writes.next_revision(current)
        writes.close(tags, revision, clock.now())
        record(
            "tag:delete",
            actor=actor,
            repository=current,
            revision=revision,
            subject=f"{ref.package}:{ref.tag}",
            version=found.version.name,
        )
        return revision

    return write(block)


def remove_version(repository: Repository, actor: Actor, ref: VersionRef) -> int:
    """Take the version and every tag to it away. Returns the revision. Raises VersionNotFound, Forbidden."""

    def block() -> int:
        current = writes.lock_repository(repository)
        versions = Version.objects.filter(
            package__repository=repository, package__name=ref.package, name=ref.version, removed_revision=None
        )
        found = versions.first()
        if found is None:
            raise VersionNotFound(f"{repository.key}/{ref.package} has no version '{ref.version}'")
        tags = Tag.objects.filter(version=found, removed_revision=None)
        names = sorted(tags.values_list("name", flat=True))
        for name in names:
            _judge(current, actor, ref.package, name, found.name)
        revision = writes.next_revision(current)
        moment = clock.now()
        writes.close(tags, revision, moment)
        writes.close(versions, revision, moment)
        record(
            "version:delete",
            actor=actor,
            repository=current,
            revision=revision,
            subject=f"{ref.package}@{ref.version}",
            tags=names,
        )
        return revision

    return write(block)


def remove_file(repository: Repository, actor: Actor, ref: FileRef, *, if_match: frozenset[str] | None = None) -> int:
    """Take the file away. Returns the revision.

    Raises FileNotFound, PreconditionFailed, and MethodNotAllowed for a file that a live version still names.
    """

    def block() -> int:
        current = writes.lock_repository(repository)
        files: QuerySet[Artifact] = Artifact.objects.filter(
            package__repository=repository, package__name=ref.package, path=ref.path, removed_revision=None
        )
        found = files.select_related("blob").first()
        if found is None:
            raise FileNotFound(f"{repository.key} has no file '{ref.path}'")
        if if_match is not None and "*" not in if_match and found.blob.digest not in if_match:
            raise PreconditionFailed(f"'{ref.path}' is not what If-Match expects")
        if found.versions.filter(removed_revision=None).exists():
            raise MethodNotAllowed(
                f"'{ref.path}' is still named by a version of '{ref.package}'; delete that version first"
            )
        moment = clock.now()
        revision = writes.next_revision(current)
        writes.close(files, revision, moment)
        record(
            "file:delete",
            actor=actor,
            repository=current,
            revision=revision,
            subject=ref.path if ref.package == ref.path else f"{ref.package}/{ref.path}",
            digest=f"sha256:{found.blob.digest}",
            bytes=found.blob.size,
        )
        return revision

    return write(block)


def _judge(repository: Repository, actor: Actor, package: str, tag: str, version: str) -> None:
    options = handler_for(repository.format).parse_options(repository.options)
    gates.judge_tag_move(gates.TagMove(actor, repository.key, options, package, tag, version, ""))
