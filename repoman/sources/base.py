"""Where a repository's content comes from. Local, remote and virtual are three sources behind one read door.

A source answers for what is *there*; permission, gates and promises are the services' business. `remote.py` and
`virtual.py` will stand beside `local.py` and be chosen by `Repository.type` in `source_for`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from repoman.core.records import FileEntry, Listing, VersionEntry
from repoman.core.refs import FileRef, ListingRef, TagRef, VersionRef


class Source(ABC):
    @abstractmethod
    def open(self, ref: FileRef) -> FileEntry:
        """Raises FileNotFound or PackageNotFound."""

    @abstractmethod
    def resolve(self, ref: TagRef | VersionRef) -> VersionEntry:
        """Raises VersionNotFound or PackageNotFound."""

    @abstractmethod
    def listing(self, ref: ListingRef) -> Listing:
        """Raises PackageNotFound where the format tells an empty package from none."""
