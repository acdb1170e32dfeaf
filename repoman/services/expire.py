"""Ending upload sessions that nobody continued, and removing what unfinished transfers and dead fetches left."""

from __future__ import annotations

import datetime
from typing import Any

from django.conf import settings
from django.db.models import Q, QuerySet

from repoman.blobs import store
from repoman.blobs.drivers.base import SinkBusy, SinkLost, StoreError
from repoman.blobs.models import EndedUpload, Upload
from repoman.core import clock
from repoman.jobs.progress import Progress, silent
from repoman.policy import quota
from repoman.sources.models import Fill

from .release import for_update
from .transactions import write
from .upload import note_end

BATCH = 200
# A sink is marked just before the row that names it says so; what is this much older than any session is nobody's.
SWEEP_MARGIN_SECONDS = 60
CLAIM_MARGIN_SECONDS = 300


def expire_uploads(*, ttl_seconds: int | None = None, progress: Progress = silent) -> dict[str, int]:
    """End sessions idle for longer than `ttl_seconds` (REPOMAN_UPLOAD_TTL). Returns counts and bytes."""
    configured: int = settings.CONFIGURATION["REPOMAN_UPLOAD_TTL"]
    seconds = configured if ttl_seconds is None else ttl_seconds
    now = clock.now()
    idle = Q(touched_at__lte=now - datetime.timedelta(seconds=seconds)) & (
        Q(leased_until=None) | Q(leased_until__lt=now)
    )
    counts = end_uploads(Upload.objects.filter(idle), progress=progress)
    # Sessions are known by their rows, so only what no row names is left; those younger than the setting may still be.
    oldest = now - datetime.timedelta(seconds=max(seconds, configured) + SWEEP_MARGIN_SECONDS)
    forgotten = EndedUpload.objects.filter(ended_at__lt=oldest)
    write(lambda: forgotten.delete())
    # Claims of fetches whose process died; nobody waits for them any more.
    ended = Fill.objects.filter(until__lt=now - datetime.timedelta(seconds=CLAIM_MARGIN_SECONDS))
    write(lambda: ended.delete())
    counts["swept"] = store.driver().sweep(oldest.timestamp())
    return counts


def end_uploads(rows: QuerySet[Upload], *, progress: Progress = silent) -> dict[str, int]:
    """End these sessions: the row goes and its reservation is returned in one transaction; then its bytes.

    A session that a request is changing at this moment is left for the next run.
    """
    counts = {"uploads": 0, "bytes": 0}
    last = ""
    while True:
        keys = list(rows.filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:BATCH])
        if not keys:
            return counts
        last = keys[-1]
        for key in keys:
            ended = write(lambda key=key: _end(rows.filter(pk=key)))  # type: ignore[misc]
            if ended is None:
                continue
            counts["uploads"] += 1
            counts["bytes"] += ended.reserved
            _abandon(ended.resume)
        progress("uploads", counts)


def _end(rows: QuerySet[Upload]) -> Upload | None:
    row: Any = for_update(rows).select_related("repository").first()
    if row is None:
        return None
    Upload.objects.filter(pk=row.pk).delete()
    note_end(row.pk)
    quota.charge(row.repository.namespace_id, reserved=-row.reserved)
    return row  # type: ignore[no-any-return]


def _abandon(resume: str) -> None:
    if not resume:
        return
    try:
        store.driver().sink(resume).abandon()
    except (SinkLost, SinkBusy):
        return  # gone already, or a request is still appending: it will find its session ended
    except StoreError:
        return  # the sweep removes what cannot be removed now
