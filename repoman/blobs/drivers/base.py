"""What a storage driver promises. Plain synchronous Python; no driver knows Django, a request or a database row.

An object is written once through a Sink, becomes visible whole under a key that was never used before, is read in
pieces and is deleted one day. Nothing is ever changed in place, so a reader needs no lock and a late delete hits a
dead key.

    <store>/
      repoman-store.json                         marker: which instance this store belongs to
      sha256/ab/abcd….<generation>               objects (key of `storage_key`)
      multipart/01/0123….data                    S3 only: large objects, named before their digest is known
      uploads/…                                  unfinished sinks; nobody but their sink and `sweep` looks here

Order that every driver keeps: all bytes durable → visible under the key → the directory entry durable → commit()
returns. A crash anywhere before that leaves at most something in `uploads/` (or an object no row names), never a
short object.

Errors (all raised by drivers are of this tree; the right-hand column is how an interface answers):

    StoreError
    ├── BlobMissing          404   nothing under this key
    ├── SinkLost             404   the resume token's bytes are gone or fewer than it says
    ├── SinkBusy             409   another sink is open on the same token
    ├── KeyTaken             500   commit() under a key that exists: a mistake of the caller, nothing was replaced
    ├── StoreFull            507   no space, inodes or quota left; the sink can only be abandoned
    ├── StoreCorrupt         503   the object's bytes cannot be read or are not what was written: mark the blob suspect
    └── StoreUnavailable     503   everything else that failed; the outcome of a write is "not stored"
        ├── StoreReadOnly          mounted read-only, or no right to write
        └── StoreForeign           marker missing or of another instance (unmounted, wrong folder, wrong bucket)
"""

from __future__ import annotations

import errno
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Self

from repoman.core import errors
from repoman.core.hashing import Buffer

MARKER = "repoman-store.json"
UPLOADS = "uploads/"
_KEY = re.compile(r"[a-z0-9]+(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)+\Z")
_HEX = re.compile(r"[0-9a-f]{64}\Z")
_GENERATION = re.compile(r"[0-9A-Za-z_-]{1,64}\Z")
MAXIMUM_KEY_LENGTH = 255
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_WRITE = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


class StoreError(errors.RepomanError):
    """The blob store failed."""

    code = "store_error"


class BlobMissing(StoreError, errors.NotFound):
    """Nothing is stored under this key."""

    code = "blob_missing"


class SinkLost(StoreError, errors.UploadNotFound):
    """The bytes of this unfinished upload are no longer there."""

    code = "upload_not_found"


class SinkBusy(StoreError, errors.Conflict):
    """The unfinished upload is being written to."""

    code = "upload_busy"


class KeyTaken(StoreError):
    """The storage key is in use; keys are never used twice."""

    code = "key_taken"


class StoreFull(StoreError, errors.StorageFull):
    """The blob store has no room left; nothing was stored."""

    code = "storage_full"


class StoreUnavailable(StoreError, errors.Unavailable):
    """The blob store is not available; try again."""

    code = "store_unavailable"


class StoreReadOnly(StoreUnavailable):
    """The blob store cannot be written to."""

    code = "store_read_only"


class StoreForeign(StoreUnavailable):
    """The blob store is not the one of this instance."""

    code = "store_foreign"


class StoreCorrupt(StoreError, errors.Unavailable):
    """The stored bytes cannot be read back as they were written."""

    code = "blob_corrupt"


@dataclass(frozen=True, slots=True)
class Stat:
    """`size` in bytes; `stamp` identifies the bytes as last written (filesystem: mtime in ns, S3: ETag): where it
    differs from the one that commit() gave, the object was touched by others and must be hashed before it is
    trusted."""

    size: int
    stamp: str


@dataclass(frozen=True, slots=True)
class Committed:
    """What commit() stored. `key` is the physical key to keep in the row; see `Sink.commit`."""

    key: str
    size: int
    stamp: str


@dataclass(frozen=True, slots=True)
class Listed:
    """`modified`: seconds since the epoch by the store's own clock."""

    key: str
    size: int
    modified: float


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Data, not questions to the type. `local_files`: Reader.fileno() and Driver.path() answer; `presigned`: url()
    does."""

    local_files: bool
    presigned: bool


class Sink(ABC):
    """One growing object that nobody else sees. Always ends in commit(), suspend() or abandon().

    One thread at a time. Once a call has raised, abandon() is the only one that still works. Used as a context manager
    it abandons itself unless it was ended before.
    """

    size: int
    """Bytes appended so far, those before a resume included."""

    @abstractmethod
    def append(self, data: Buffer) -> None:
        """Take `data` (any length; pieces of 1 to 8 MiB are best), which the caller may reuse afterwards.
        Raises StoreFull, StoreReadOnly, StoreUnavailable."""

    @abstractmethod
    def suspend(self, *, durable: bool = True) -> str:
        """Close the sink for now; returns a token (JSON text below 500 characters) for `Driver.sink(resume=…)`.

        The bytes survive a killed process, and with `durable` a power cut. The token stays good until a later suspend()
        of the same upload has returned *and* its token was resumed, so a crash between suspend() and the row that keeps
        the token loses nothing: resuming an older token drops what came after it. Raises as append()."""

    @abstractmethod
    def commit(self, key: str) -> Committed:
        """Make the object durable and visible, and say under which key.

        `key` comes from `storage_key` and was never used before: an existing object raises KeyTaken and stays. The
        answer's key equals it, except that S3 names an object of several parts before its digest is known: keep the key
        of the answer. Whatever is raised, nothing is acknowledged; what may be left is reclaimed later as an object
        that no row names. A repeat starts from a new sink."""

    @abstractmethod
    def abandon(self) -> None:
        """Drop everything appended, earlier suspends included. Idempotent, does nothing after commit() or suspend(),
        and raises nothing: what cannot be removed now is left to `Driver.sweep`."""

    def grown(self) -> int | None:
        """A new descriptor, the caller's to close, through which what was appended can be read (pread) while more is
        appended, and after commit() or abandon() as well; None where no local file grows. Raises StoreUnavailable."""
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()


class Reader(ABC):
    """An open object. Threads may share it. Stays readable on the filesystem when the key is deleted meanwhile."""

    size: int
    stamp: str

    @abstractmethod
    def pread(self, offset: int, length: int) -> bytes:
        """Exactly min(length, size - offset) bytes (empty from the end on). Raises StoreCorrupt where the object is
        shorter or other than when it was opened or its medium fails, BlobMissing where it vanished,
        StoreUnavailable."""

    def fileno(self) -> int | None:
        """A descriptor for sendfile, good until close(); None where there is no local file."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Idempotent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _no_fault(step: str) -> None:
    """Where a test has planted nothing."""


class Driver(ABC):
    """One store. Threads and processes may share it; it holds no state that another process would need."""

    capabilities: ClassVar[Capabilities]
    failpoint: Callable[[str], None] = staticmethod(_no_fault)
    """Called with the name of each primitive step just before it ("write", "fsync", "rename"…). A test may raise
    OSError here, which then counts as that step's own error, or kill the process."""

    @abstractmethod
    def sink(self, resume: str | None = None) -> Sink:
        """A new sink, or the one suspended under `resume` exactly as it stood then (its `size` says where). At most one
        sink may be open on one token: the filesystem raises SinkBusy, elsewhere the caller's lock has to see to it.
        Raises SinkLost, StoreUnavailable."""

    @abstractmethod
    def open(self, key: str) -> Reader:
        """Raises BlobMissing, StoreUnavailable."""

    @abstractmethod
    def stat(self, key: str) -> Stat | None:
        """None where there is no such object. Raises StoreUnavailable."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Deleting what is gone succeeds. Not synced: an object that comes back after a power cut is reclaimed as one
        that no row names. Raises StoreReadOnly, StoreUnavailable."""

    @abstractmethod
    def list(self, prefix: str = "", after: str = "") -> Iterator[Listed]:
        """Committed objects whose key starts with `prefix` and is greater than `after`, in key order, streaming. What
        comes or goes meanwhile may or may not be seen; an error raises StoreUnavailable instead of ending early."""

    def url(self, key: str, *, expires_seconds: int, media_type: str, filename: str = "") -> str | None:
        """A presigned address for GET, at most `expires_seconds` valid, that answers with this media type and, where a
        file name is given, as an attachment of that name; None where the store has none. Not checked for existence."""
        return None

    def path(self, key: str) -> str | None:
        """The object's file relative to the store's root, for X-Accel-Redirect; None where there are no local files."""
        return None

    @abstractmethod
    def sweep(self, older_than: float) -> int:
        """Remove unfinished sinks that nobody has touched since `older_than` (seconds since the epoch); returns how
        many. Raises StoreUnavailable."""

    @abstractmethod
    def check(self, instance_id: str | None = None) -> None:
        """Is the store there, ours and writable? With `instance_id` the marker must carry it (and is compared from then
        on); without, the id of the last check() or initialise(), or any. A missing marker is never made up for.
        Raises StoreForeign, StoreReadOnly, StoreFull, StoreUnavailable."""

    @abstractmethod
    def initialise(self, instance_id: str) -> None:
        """Make an empty store this instance's, or find that it is already; then as check(). Only for the first start:
        once an instance remembers having initialised its store, an empty one is a lost one, and check() refuses it.
        Raises StoreForeign for a store that has content but no marker, or another instance's."""


def storage_key(digest_hex: str, generation: str) -> str:
    """`sha256/ab/abcd….<generation>`; `generation` fresh for every sink (`clock.new_id()`), so that no key is used
    twice."""
    if not _HEX.match(digest_hex) or not _GENERATION.match(generation):
        raise ValueError("a storage key needs a sha256 in lower-case hex and a generation")
    return f"sha256/{digest_hex[:2]}/{digest_hex}.{generation}"


def require_key(key: str) -> str:
    """Raises ValueError for anything that could leave the store or hit its own files; keys come from rows, not
    clients."""
    if len(key) > MAXIMUM_KEY_LENGTH or not _KEY.match(key) or key.startswith(UPLOADS):
        raise ValueError(f"not a storage key: {key[:80]!r}")
    return key


def translated(error: OSError, doing: str) -> StoreError:
    """The driver's error for a system call's. The message names the act and the reason, never a path."""
    reason = f"{doing}: {os.strerror(error.errno) if error.errno else error}"
    if error.errno in _NO_SPACE:
        return StoreFull(f"The blob store has no room left ({reason}).")
    if error.errno in _NO_WRITE:
        return StoreReadOnly(f"The blob store cannot be written to ({reason}).")
    return StoreUnavailable(f"The blob store failed ({reason}).")


def marker_content(instance_id: str) -> bytes:
    return json.dumps({"kind": "repoman-store", "version": 1, "instance": instance_id}).encode() + b"\n"


def require_marker(content: bytes | None, instance_id: str | None) -> None:
    """Raises StoreForeign unless `content` is a marker, and this instance's where an id is given."""
    if content is None:
        raise StoreForeign(
            "The blob store has no marker file: it is not mounted, not the configured one, or was never initialised."
        )
    try:
        marker = json.loads(content)
    except ValueError:
        marker = None
    if not isinstance(marker, dict) or marker.get("kind") != "repoman-store":
        raise StoreForeign("The blob store's marker file is damaged.")
    if instance_id is not None and marker.get("instance") != instance_id:
        raise StoreForeign("The blob store belongs to another instance.")
