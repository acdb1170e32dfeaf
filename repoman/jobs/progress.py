"""How long work says where it stands, and learns that it should stop. Services take one; jobs and commands give it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

Progress = Callable[[str, Mapping[str, int]], None]
"""`progress(step, counts)`, called between batches. It may raise to stop the work there (Stopping, LeaseLost)."""


class Stopping(Exception):
    """The worker is shutting down; the job goes back to the queue."""


def silent(step: str, counts: Mapping[str, int]) -> None:
    """Nobody listens."""
