"""Where the code of each kind of job is: one line per kind, read by the runner."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

Job = Callable[..., Mapping[str, Any]]
"""`job(progress, **arguments) → result`. It may run twice or be killed anywhere: what it did is in domain rows."""

JOBS: Mapping[str, str] = {
    "collect": "workers.collection.job:collect",
    "purge": "workers.collection.job:purge",
    "fsck": "workers.collection.job:fsck",
    "expire_uploads": "workers.collection.job:expire_uploads",
    "delete_repository": "workers.deletion.job:delete_repository",
    "delete_leftovers": "workers.deletion.job:delete_leftovers",
}


def job_for(kind: str) -> Job:
    """Raises KeyError for an unknown kind."""
    module, _, name = JOBS[kind].partition(":")
    found: Job = getattr(importlib.import_module(module), name)
    return found
