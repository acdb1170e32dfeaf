"""Emptying the trash: closed rows older than the window go for good, and with them what their namespaces were charged.

Nothing here touches bytes; that is the collector's. Short transactions, so it runs beside everything else.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Any

from django.conf import settings
from django.db.models import Exists, OuterRef, ProtectedError, Q, QuerySet

from repoman.blobs.models import Upload
from repoman.catalog.models import Artifact, Package, Repository, Tag, Version, VersionArtifact
from repoman.core import clock
from repoman.core.actor import system_actor
from repoman.core.errors import Conflict, Unavailable
from repoman.events.record import record
from repoman.jobs.lease import NamedLease
from repoman.jobs.progress import Progress, silent

from .release import Removed, remove_rows
from .transactions import write

BATCH = 200


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


def purge_revision(repository: Repository, revision: int) -> dict[str, int]:
    """Remove at once what `revision` of the repository closed, without waiting for the window (`?purge=true`)."""
    removed = _purge_closed(Q(removed_revision=revision), Q(package__repository=repository), silent)
    return counts_of(removed)


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
    live_tag = Tag.objects.filter(version=OuterRef("pk"), removed_revision=None)
    versions = Version.objects.filter(closed, where).filter(~Exists(live_tag))
    _in_batches(versions, "versions", closed, total, progress)
    named = VersionArtifact.objects.filter(artifact=OuterRef("pk"))
    files = Artifact.objects.filter(closed, where).filter(~Exists(named))
    _in_batches(files, "artifacts", closed, total, progress)
    return total


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
