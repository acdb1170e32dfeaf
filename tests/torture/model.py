"""What the clients know: for each name, the states it may be in. Every name has one writer, so this is exact.

A write that was acknowledged leaves one possible state; one whose outcome is unknown adds a state; one that was refused
changes nothing.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Generic, TypeVar

State = TypeVar("State")


class Slot(Generic[State]):
    """One name. `None` as a state: it is not there."""

    def __init__(self) -> None:
        self.possible: set[State | None] = {None}
        self.was_there = False

    def acknowledged(self, state: State | None) -> None:
        self.possible = {state}
        self.was_there = self.was_there or state is not None

    def unknown(self, state: State | None) -> None:
        self.possible.add(state)

    @property
    def known(self) -> State | None:
        """The state, where there is only one possible; None otherwise."""
        return next(iter(self.possible)) if len(self.possible) == 1 else None

    @property
    def is_removed(self) -> bool:
        """It was there for certain, and now it is not."""
        return self.was_there and self.possible == {None}


@dataclass
class Manifest:
    """A manifest that was sent: its bytes and the digests of its config and layers."""

    repository: str
    package: str
    document: bytes
    parts: tuple[str, ...]
    slot: Slot[bool] = field(default_factory=Slot)

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.document).hexdigest()}"


@dataclass
class Session:
    """An upload session that was left open: `kept` bytes of `data` were acknowledged, `sent` may have arrived."""

    location: str
    data: bytes
    kept: int = 0
    sent: int = 0
    is_finished: bool = False  # a PUT was sent: the session may be over


@dataclass
class Removal:
    """What one request took away from a release: files with their digests, and the event that tells its revision."""

    kind: str
    subject: str
    files: dict[str, str]


@dataclass
class Release:
    """A version that one client published, in a package that all of them publish to. `files`: name → digest.

    `note`: its deprecation, or the reason why it was yanked; it stays as it was when something is removed, for then the
    log has several of them.
    """

    format: str
    repository: str
    package: str
    version: str
    files: dict[str, Slot[str]]
    note: Slot[str] = field(default_factory=Slot)
    removals: list[Removal] = field(default_factory=list)
    was_removed: bool = False

    @property
    def where(self) -> tuple[str, str, str]:
        return self.format, self.repository, self.package

    @property
    def is_there(self) -> bool:
        return all(slot.known for slot in self.files.values())


@dataclass
class Known:
    """What one client knows of its own names. Keys: (repository, package or path[, tag]). `published` counts releases:
    no two have one version."""

    manifests: dict[tuple[str, str, str], Manifest] = field(default_factory=dict)
    tags: dict[tuple[str, str, str], Slot[str]] = field(default_factory=dict)
    files: dict[tuple[str, str], Slot[str]] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)
    releases: list[Release] = field(default_factory=list)
    dist_tags: dict[tuple[str, str, str], Slot[str]] = field(default_factory=dict)
    published: int = 0


@dataclass(frozen=True)
class Place:
    """What the storm rages against. `packages`: local repositories by their format; `sign_in` may remove in all of them."""

    url: str
    sign_in: tuple[str, str]
    admin: tuple[str, str]
    images: list[str]
    raws: list[str]
    tight: str
    packages: dict[str, list[str]]
    shared: list[bytes]


class Ledger:
    """Counts of a run, and what went wrong, from all threads."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self._lock = threading.Lock()

    def count(self, what: str, number: int = 1) -> None:
        with self._lock:
            self.counts[what] += number

    def fail(self, text: str) -> None:
        with self._lock:
            self.failures.append(text)


def content(rng: random.Random, largest: int) -> bytes:
    """Some bytes, small ones more often."""
    size = int(largest ** rng.random()) if rng.random() > 0.03 else 0
    return rng.randbytes(size)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
