"""Emptying the trash: closed rows older than the window go for good, and with them what their namespaces were charged.

Nothing here touches bytes; that is the collector's. Short transactions, so it runs beside everything else.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from django.conf import settings
from django.db.models import Exists, OuterRef, ProtectedError, Q, QuerySet

from repoman.blobs.models import Upload
from repoman.catalog.models import Artifact, Package, Repository, Tag, Version, VersionArtifact
from repoman.core import clock
from repoman.core.actor import system_actor
from repoman.core.errors import Conflict, Unavailable
from repoman.core.format import handler_for
from repoman.core.refs import FileRef
from repoman.events.record import record
from repoman.jobs.lease import NamedLease
from repoman.jobs.progress import Progress, silent

from .publish import burns
from .release import Removed, remove_rows
from .transactions import write

BATCH = 200
_CLOSED = Q(removed_revision__isnull=False)


def purge(*, window_seconds: int | None = None, progress: Progress = silent) -> dict[str, int]:
    """Remove what was closed longer ago than `window_seconds` (REPOMAN_TRASH_WINDOW). Returns counts and bytes.

    Raises LeaseBusy while another purge runs.
    """
    seconds = settings.CONFIGURATION["REPOMAN_TRASH_WINDOW"] if window_seconds is None else window_seconds
    before = clock.now() - datetime.timedelta(seconds=seconds)
    with NamedLease("purge") as lease:

        def report(step: str, counts: Mapping[str, int]) -> None:
            lease.renew()
            progress(step, counts)

        removed = _purge_closed(Q(removed_revision__isnull=False, removed_at__lte=before), Q(), report)
    return counts_of(removed)


# --- at once, for an owner who wants the room (`?purge=true`) --------------------------------------------------------
#
# The window is not waited for, nor the grace of what only versions keep: a push that counted on one of those is told that it
# is missing. What is live stays. All give the counts; "busy" is what somebody publishes again at this moment.


def purge_revision(repository: Repository, revision: int) -> dict[str, int]:
    """Remove what `revision` of the repository closed."""
    removed = _purge_closed(Q(removed_revision=revision), Q(package__repository=repository), silent)
    return counts_of(removed)


def purge_package(package: Package) -> dict[str, int]:
    """Remove all that the package has in the trash, and the files that only versions in it keep."""
    parts = _parts_of(Version.objects.filter(_CLOSED, package=package))
    removed = _purge_closed(_CLOSED, Q(package=package), silent)
    _purge_files(parts, removed)
    return counts_of(removed)


def purge_version(package: Package, name: str) -> dict[str, int]:
    """Remove every row of that version in the trash, of whatever revision, and the files that only these name or that lie
    where its files do. Bytes count as long as any row names them, and a version that lost a file left an older row."""
    rows = Version.objects.filter(_CLOSED, package=package, name=name)
    parts = _parts_of(rows)
    handler = handler_for(package.repository.format)
    loose = Artifact.objects.filter(_CLOSED, package=package).filter(~Exists(_naming()))
    for key, path in loose.values_list("pk", "path"):
        if handler.version_of(FileRef(package.name, path)) == name:
            parts.append(key)
    removed = Removed()
    _in_batches(rows.filter(~Exists(_live_tag())), "versions", _CLOSED, removed, silent)
    _purge_files(parts, removed)
    return counts_of(removed)


def purge_file(package: Package, path: str) -> dict[str, int]:
    """Remove every row of that file in the trash, and of what lies beside it. Versions in the trash that named it do so no
    longer; where a version cannot be without any of its files, they go as well."""
    handler = handler_for(package.repository.format)
    rows = Artifact.objects.filter(_CLOSED, package=package)
    if handler.versions_own_files:
        near = rows.filter(path__gte=path, path__lt=f"{path}/").values_list("pk", "path")
        keys = [key for key, other in near if other == path or handler.is_beside(path, other)]
    else:
        keys = list(rows.filter(path=path).values_list("pk", flat=True))
    naming = Version.objects.filter(_CLOSED, package=package, artifacts__in=keys)
    names = dict(naming.values_list("pk", "name"))
    removed = Removed()
    if burns(package.repository) == "version":
        whole = Version.objects.filter(_CLOSED, package=package, name__in=set(names.values()))
        keys = list(dict.fromkeys([*keys, *_parts_of(whole)]))
        _in_batches(whole.filter(~Exists(_live_tag())), "versions", _CLOSED, removed, silent)
    _purge_files(keys, removed, from_trash=True)
    left = VersionArtifact.objects.filter(version=OuterRef("pk"))
    empty = Version.objects.filter(_CLOSED, pk__in=names, blob=None).filter(~Exists(left), ~Exists(_live_tag()))
    _in_batches(empty, "versions", _CLOSED, removed, silent)
    return counts_of(removed)


def _parts_of(versions: QuerySet[Version]) -> list[int]:
    """Ids of the files that these name and that may go with them: those in the trash, and those that only versions keep."""
    rows = VersionArtifact.objects.filter(version__in=versions)
    rows = rows.filter(Q(artifact__removed_revision__isnull=False) | Q(artifact__held_by_version=True))
    return list(rows.values_list("artifact_id", flat=True).distinct())


def _purge_files(keys: Sequence[int], total: Removed, *, from_trash: bool = False) -> None:
    """Remove those of the files that no version names, or none that is live (`from_trash`)."""
    still = _CLOSED | Q(held_by_version=True)
    namespaces = Artifact.objects.filter(pk__in=keys[:1]).values_list("package__repository__namespace_id", flat=True)
    for namespace_id in namespaces:
        for start in range(0, len(keys), BATCH):
            batch = keys[start : start + BATCH]
            act = partial(remove_rows, namespace_id, artifacts=batch, still=still, from_trash=from_trash)
            total.add(write(act))


# --- what all of them do ---------------------------------------------------------------------------------------------


def counts_of(removed: Removed) -> dict[str, int]:
    return {
        "versions": removed.versions,
        "files": removed.artifacts,
        "tags": removed.tags,
        "blobs": removed.holdings,
        "bytes": removed.released_bytes,
        "busy": removed.busy,
    }


def _purge_closed(closed: Q, where: Q, progress: Progress) -> Removed:
    """Tags, then versions, then files: what names goes before what is named."""
    total = Removed()
    total.tags += _purge_tags(Tag.objects.filter(closed, where), progress)
    versions = Version.objects.filter(closed, where).filter(~Exists(_live_tag()))
    _in_batches(versions, "versions", closed, total, progress)
    files = Artifact.objects.filter(closed, where).filter(~Exists(_naming()))
    _in_batches(files, "artifacts", closed, total, progress)
    return total


def _live_tag() -> QuerySet[Tag]:
    return Tag.objects.filter(version=OuterRef("pk"), removed_revision=None)


def _naming() -> QuerySet[VersionArtifact]:
    return VersionArtifact.objects.filter(artifact=OuterRef("pk"))


def _purge_tags(rows: QuerySet[Tag], progress: Progress) -> int:
    removed = 0
    while True:
        keys = list(rows.values_list("pk", flat=True)[:BATCH])
        if not keys:
            return removed
        removed += write(lambda keys=keys: Tag.objects.filter(pk__in=keys).delete()[0])  # type: ignore[misc]
        progress("tags", {"tags": removed})


def _in_batches(rows: QuerySet[Any], argument: str, still: Q, total: Removed, progress: Progress) -> None:
    """Remove the rows a batch at a time, each batch in one namespace; every row is tried once."""
    last = 0
    while True:
        found = list(
            rows.filter(pk__gt=last).order_by("pk").values_list("pk", "package__repository__namespace_id")[:BATCH]
        )
        if not found:
            return
        last = found[-1][0]
        for namespace_id in sorted({namespace for _, namespace in found}):
            keys = [key for key, namespace in found if namespace == namespace_id]
            total.add(write(_removal(namespace_id, argument, keys, still)))
        progress(argument, counts_of(total))


def _removal(namespace_id: int, argument: str, keys: list[int], still: Q) -> Callable[[], Removed]:
    return lambda: remove_rows(namespace_id, **{argument: keys}, still=still)  # type: ignore[arg-type]


def drop_repository(repository_id: int, *, progress: Progress = silent) -> dict[str, int]:
    """Remove everything in a repository whose state is DELETING, and then the repository. It may be interrupted and
    called again; a repository that is gone, or is not to be deleted, is left alone.

    Its bytes stay until the collector finds that no namespace holds them. Raises Conflict where another repository
    still refers to it.
    """
    from .expire import end_uploads

    repository = Repository.objects.filter(pk=repository_id, state=Repository.State.DELETING).first()
    if repository is None:
        return {"repositories": 0}
    total = Removed()
    uploads = end_uploads(Upload.objects.filter(repository=repository), progress=progress)
    everything = Q(package__repository=repository)
    for _ in range(100):  # rows whose blob is being published elsewhere are tried again
        total.tags += _purge_tags(Tag.objects.filter(everything), progress)
        _in_batches(Version.objects.filter(everything), "versions", everything, total, progress)
        _in_batches(Artifact.objects.filter(everything), "artifacts", everything, total, progress)
        if not Artifact.objects.filter(everything).exists() and not Version.objects.filter(everything).exists():
            break
    else:
        raise Unavailable(f"some content of '{repository.key}' is being published elsewhere all the time")
    total.busy = 0
    _drop_packages(repository, progress)

    def drop() -> int:
        try:
            gone, _ = Repository.objects.filter(pk=repository_id, state=Repository.State.DELETING).delete()
        except ProtectedError as error:
            raise Conflict(f"another repository still refers to '{repository.key}'") from error
        if gone:
            record("repository:purge", actor=system_actor("delete_repository"), repository=repository)
        return 1 if gone else 0

    return {"repositories": write(drop), "uploads": uploads["uploads"], **counts_of(total)}


def _drop_packages(repository: Repository, progress: Progress) -> None:
    removed = 0
    while True:
        keys = list(Package.objects.filter(repository=repository).values_list("pk", flat=True)[: BATCH * 5])
        if not keys:
            return
        removed += write(lambda keys=keys: Package.objects.filter(pk__in=keys).delete()[0])  # type: ignore[misc]
        progress("packages", {"packages": removed})
