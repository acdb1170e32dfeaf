"""Keeping the store clean: plain functions that call one service each and give its counts."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from repoman.jobs.progress import Progress
from repoman.jobs.queue import forget_finished
from repoman.services import collect as collecting
from repoman.services import expire
from repoman.services import fsck as checking
from repoman.services import purge as purging

KEEP_FINISHED = datetime.timedelta(days=7)
PROBLEMS_IN_RESULT = 500


def collect(
    progress: Progress,
    *,
    grace_seconds: int | None = None,
    force: bool = False,
    objects: bool = True,
    dry_run: bool = False,
) -> Mapping[str, Any]:
    return collecting.collect(
        grace_seconds=grace_seconds, force=force, objects=objects, dry_run=dry_run, progress=progress
    )


def purge(progress: Progress, *, window_seconds: int | None = None) -> Mapping[str, Any]:
    counts = purging.purge(window_seconds=window_seconds, progress=progress)
    return {**counts, "job_runs": forget_finished(KEEP_FINISHED)}


def fsck(progress: Progress, *, rehash: bool = False, repair: bool = False) -> Mapping[str, Any]:
    report = checking.fsck(rehash=rehash, repair=repair, progress=progress)
    return report.as_dict(most_problems=PROBLEMS_IN_RESULT)


def expire_uploads(progress: Progress, *, ttl_seconds: int | None = None) -> Mapping[str, Any]:
    return expire.expire_uploads(ttl_seconds=ttl_seconds, progress=progress)
