"""What becomes of documents when bytes turn out to be lost or damaged, or are back: they say what can be had.

A listing names only files whose bytes are whole. When a blob's state changes, the packages that show it get a new revision,
so that documents made before are not served any more; nothing is removed, and a new upload of the same bytes heals it.
"""

from __future__ import annotations

from repoman.blobs import store
from repoman.catalog import writes
from repoman.catalog.models import Artifact, Repository
from repoman.core import clock
from repoman.core.actor import system_actor
from repoman.core.errors import RepositoryNotFound, Unavailable
from repoman.core.format import handler_for
from repoman.core.records import BlobRef
from repoman.events.record import record

from .transactions import write

ACTOR = system_actor("store")


def note_change(digest: str, *, is_back: bool) -> None:
    """Stamp every package that lists a file with this sha256."""
    rows = Artifact.objects.filter(blob__digest=digest, removed_revision=None, versions__removed_revision=None)
    places: dict[int, set[int]] = {}
    for repository_id, package_id in rows.values_list("package__repository_id", "package_id").distinct():
        places.setdefault(repository_id, set()).add(package_id)
    for repository in Repository.objects.filter(pk__in=places):
        if not handler_for(repository.format).versions_own_files:
            continue
        try:
            write(lambda repository=repository: _stamp(repository, places[repository.pk], digest, is_back))  # type: ignore[misc]
        except (RepositoryNotFound, Unavailable):
            continue  # deleted or read-only meanwhile


def _stamp(repository: Repository, packages: set[int], digest: str, is_back: bool) -> None:
    current = writes.lock_repository(repository)
    revision = writes.next_revision(current)
    moment = clock.now()
    for package_id in sorted(packages):
        writes.stamp_package(package_id, revision, moment)
    kind = "blob:healed" if is_back else "blob:suspect"
    record(kind, actor=ACTOR, repository=current, revision=revision, subject=f"sha256:{digest}")


def _lost(ref: BlobRef) -> None:
    note_change(ref.digest.hex, is_back=False)


store.when_suspect(_lost)
