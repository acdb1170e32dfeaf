"""Removing what a deleted repository held, in the background."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction

from repoman.catalog.models import Repository
from repoman.jobs.progress import Progress
from repoman.jobs.queue import request
from repoman.services import purge


def delete_repository(progress: Progress, *, repository_id: int) -> Mapping[str, Any]:
    """A repository that is gone already, or is not to be deleted, is left alone."""
    return purge.drop_repository(repository_id, progress=progress)


def delete_leftovers(progress: Progress) -> Mapping[str, Any]:
    """Ask again for every deletion that was not finished: its job may have failed, or its row been lost in a restore."""
    waiting = list(Repository.objects.filter(state=Repository.State.DELETING).values_list("pk", flat=True))
    for key in waiting:
        with transaction.atomic(durable=True):
            request(
                "delete_repository",
                {"repository_id": key},
                requested_by="system:schedule",
                dedupe_key=f"delete_repository:{key}",
            )
    return {"repositories": len(waiting)}
