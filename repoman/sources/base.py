"""Where a repository's content comes from. Local, remote and virtual are three sources behind one read door.

A source answers for what is *there*; permission, gates and promises are the services' business. None of them waits for a
network: what has to be asked of an upstream first is raised as `NeedFetch`, and found in `Asked.outcomes` afterwards.
"""

from __future__ import annotations

import datetime
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from repoman.blobs import store
from repoman.core.actor import Actor
from repoman.core.fetch import Outcome
from repoman.core.records import FileEntry, Freshness, Listing, VersionEntry
from repoman.core.refs import FileRef, ListingRef, TagRef, VersionRef


@dataclass(slots=True)
class Asked:
    """Who asks, and what upstreams have answered in this request already (by plan key). `is_head`: no bytes are wanted.

    `served` and `listed` are what a remote says of the file or version, and of the listing, that it gave last: how far it
    can be trusted to be the upstream's present one. Of several listings the weakest counts.
    """

    actor: Actor
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    is_head: bool = False
    served: Freshness | None = None
    listed: Freshness | None = None


Part = tuple[str, str]  # a package and its mark


@dataclass(frozen=True, slots=True)
class Parts:
    """What a document about all packages is made of, not read yet: `parts` in the order of the packages' names.

    A mark stands still while `read(package)` gives the same, and means the same in every repository. `read` gives the mark
    of what it found, too: that may have changed since. A package may turn out to be empty. `changed_at`: the last change of
    any of them.
    """

    parts: Sequence[Part]
    read: Callable[[str], tuple[str, Listing]]
    changed_at: datetime.datetime | None


def digest_of(entry: FileEntry, algorithm: str) -> str:
    """A digest of stored bytes, in hex: what is known of the file, else what is known of its bytes or computed now."""
    if algorithm == entry.blob.digest.algorithm:
        return entry.blob.digest.hex
    known = entry.metadata.get(algorithm)
    return known if isinstance(known, str) else store.other_digest(entry.blob, algorithm)


class Source(ABC):
    @abstractmethod
    def open(self, ref: FileRef) -> FileEntry:
        """Raises FileNotFound or PackageNotFound, NeedFetch, and what upstreams fail with."""

    @abstractmethod
    def digest(self, ref: FileRef, algorithm: str) -> str:
        """A digest of the file in hex. Raises as `open`."""

    @abstractmethod
    def resolve(self, ref: TagRef | VersionRef) -> VersionEntry:
        """Raises VersionNotFound or PackageNotFound; and as `open`."""

    @abstractmethod
    def listing(self, ref: ListingRef) -> Listing:
        """Raises PackageNotFound where the format tells an empty package from none; and as `open`."""

    @abstractmethod
    def mark(self, ref: ListingRef) -> str:
        """A text that stands still while `listing(ref)` gives the same records. Cheap. Raises as `listing`."""

    @abstractmethod
    def parts(self, ref: ListingRef) -> Parts:
        """The packages that `listing(ref)` names, for formats with a document about all of them, each still to be read.
        Costs the names alone. Raises as `listing`."""

    @abstractmethod
    def first_of(self, refs: Sequence[FileRef]) -> FileRef | None:
        """Of files that clients may mean by one address, the one that is there; of several members of a virtual repository
        the first one's. None where there is none. Raises as `listing`."""

    def freshness(self, ref: ListingRef) -> tuple[Freshness | None, tuple[str, ...]]:
        """How the documents that `listing(ref)` is made of stand, and which members it had to do without."""
        return None, ()

    def explain(self, ref: FileRef | TagRef | VersionRef | ListingRef) -> list[dict[str, object]]:
        """Where that would come from, as plain JSON, without asking anybody: one line for each repository that has a
        say, in the order they are asked."""
        return []
