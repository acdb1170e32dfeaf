"""What the commands print: progress to people on the error stream, results as lines or as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.core.management.base import CommandError, OutputWrapper
from django.db import DatabaseError

from repoman.core.errors import RepomanError
from repoman.jobs.lease import LeaseBusy, LeaseEnded
from repoman.jobs.progress import Progress, silent

EVERY_SECONDS = 1.0


def progress_on(stream: OutputWrapper, *, quiet: bool) -> Progress:
    """One line a second at most, and only where a person looks at it."""
    if quiet or not stream.isatty():
        return silent
    last = 0.0

    def show(step: str, counts: Mapping[str, int]) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= EVERY_SECONDS:
            last = now
            figures = ", ".join(f"{name} {value}" for name, value in counts.items() if value)
            stream.write(f"{step}: {figures or 'started'}")

    return show


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Expected errors as one line and an exit status, not a traceback."""
    try:
        yield
    except LeaseBusy as error:
        raise CommandError(
            f"{doing} is running elsewhere at the moment (lease '{error}'); `manage.py jobs` shows it. Try again later."
        ) from None
    except LeaseEnded:
        raise CommandError(f"{doing} was taken over by another process; nothing is lost, run it again.") from None
    except RepomanError as error:
        raise CommandError(error.message) from None
    except DatabaseError as error:
        raise CommandError(
            f"the database did not answer as expected ({str(error).strip()[:300]}). Is it there, and is it migrated?"
        ) from error


def write_counts(stream: OutputWrapper, counts: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        stream.write(json.dumps(counts, default=str))
        return
    for name, value in counts.items():
        stream.write(f"{name.replace('_', ' ')}: {in_words(name, value)}")


def in_words(name: str, value: Any) -> str:
    if isinstance(value, int) and name.endswith("bytes"):
        return size_in_words(value)
    return str(value)


def size_in_words(size: int) -> str:
    """1536 → '1.5 KiB (1536 bytes)'."""
    amount = float(size)
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            return f"{size} bytes" if unit == "bytes" else f"{amount:.1f} {unit} ({size} bytes)"
        amount /= 1024
    raise AssertionError("unreachable")
