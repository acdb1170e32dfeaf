"""The only sources of time and randomness, so that a test can replace both and replay a failing seed."""

from __future__ import annotations

import datetime
import secrets
import time


def now() -> datetime.datetime:
    """The current moment, timezone-aware, UTC."""
    return datetime.datetime.now(datetime.UTC)


def seconds() -> float:
    """Wall-clock seconds since the epoch; for stored moments, never for measuring durations."""
    return time.time()


def monotonic() -> float:
    """Seconds that never go back; for durations and time-outs inside one process."""
    return time.monotonic()


def new_id() -> str:
    """128 random bits as 32 lower-case hex characters: upload sessions, requests, leases."""
    return secrets.token_hex(16)


def new_secret() -> str:
    """256 random bits, URL-safe, for tokens that are shown once and kept only as a hash."""
    return secrets.token_urlsafe(32)
