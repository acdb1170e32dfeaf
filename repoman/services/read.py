"""The read door: source, gate, promise. Permission has been checked by the handle."""

from __future__ import annotations

import datetime

from repoman.catalog import selectors, writes
from repoman.catalog.models import Repository
from repoman.core import clock
from repoman.core.errors import FileNotFound
from repoman.core.records import FileEntry
from repoman.core.refs import FileRef
from repoman.sources.local import LocalSource

from .transactions import write

# The shortest grace beside which no client may see a failure; a collection can be asked for with one below the setting.
SHORTEST_SAFE_GRACE_SECONDS = 60


def needs_promise(touched_at: datetime.datetime) -> bool:
    """Whether the last "it is here" is so long ago that the next one must be remembered: half the shortest grace that a
    collection may have without anybody noticing."""
    from django.conf import settings

    grace = min(settings.CONFIGURATION["REPOMAN_COLLECT_GRACE"], SHORTEST_SAFE_GRACE_SECONDS)
    return (clock.now() - touched_at).total_seconds() > grace / 2


def open_file(repository: Repository, ref: FileRef, *, promise: bool) -> FileEntry:
    """The file. With `promise`, its grace counts from now before we say that it is here."""
    entry = LocalSource(repository).open(ref)
    if promise and needs_promise(entry.touched_at):
        write(lambda: _touch(repository, ref))
    return entry


def _touch(repository: Repository, ref: FileRef) -> None:
    row = selectors.live_artifact(repository.pk, ref.package, ref.path)
    if row is None:
        raise FileNotFound(f"{repository.key} has no file '{ref.path}'")
    writes.touch([row])
