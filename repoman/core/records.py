"""What services and formats hand each other: plain frozen values, no rows."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field

from .digest import Digest


@dataclass(frozen=True, slots=True)
class Staged:
    """Bytes that are durable in the blob store and that no row names yet.

    `others` holds further digests that were asked for ({"sha512": hex}). `storage_key` and `stamp` are the driver's.
    `is_fresh` False: they are a live file's own bytes, named again, instead of newly stored ones.
    """

    digest: Digest
    size: int
    storage_key: str
    stamp: str
    others: Mapping[str, str] = field(default_factory=dict)
    is_fresh: bool = True


@dataclass(frozen=True, slots=True)
class BlobRef:
    """Stored bytes, ready to be sent. `media_type` is what the client is told."""

    digest: Digest
    size: int
    storage_key: str
    stamp: str
    media_type: str = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a repository. `path` is unique in its package; times are UTC."""

    package: str
    path: str
    blob: BlobRef
    created_at: datetime.datetime
    touched_at: datetime.datetime
    uploaded_by: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VersionEntry:
    """One version of a package, with its main document where the format has one (an OCI manifest)."""

    package: str
    version: str
    document: BlobRef | None
    created_at: datetime.datetime
    artifact_type: str = ""
    subject: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a listing: a tag, a version, a file or a folder. `kind` says which."""

    name: str
    kind: str = "file"
    size: int | None = None
    digest: str = ""
    modified: datetime.datetime | None = None
    media_type: str = ""
    artifact_type: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listing:
    """Neutral records of what a package or repository holds. `more` says that entries follow the last one."""

    entries: tuple[Entry, ...]
    more: bool = False
    revision: int = 0


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to be made visible: freshly staged bytes under `path` in the package.

    `held_by_version`: kept only while a version names it (an OCI layer), instead of standing by itself (a raw file).
    """

    path: str
    staged: Staged
    media_type: str = ""
    held_by_version: bool = False
    metadata: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A version to be made visible. `files` are paths in the package that it names (they must be there, or be
    published with it, unless listed in `may_be_missing`); `versions` are versions of the package it names."""

    version: str
    document: Staged | None = None
    media_type: str = ""
    files: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    either: tuple[str, ...] = ()  # names that may be a file or a version (children of an OCI index)
    optional: tuple[str, ...] = ()  # files that are kept with the version if they are there, and never missed if not
    sizes: Mapping[str, int] = field(default_factory=dict)  # what it says its parts weigh; another stored size: refused
    subject: str = ""
    artifact_type: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Publication:
    """What publish is asked to make visible, in one transaction and under one revision.

    `may_replace`: other bytes under a live path are replaced (needs DELETE besides PUBLISH); otherwise a Conflict.
    `if_match` / `if_none_match`: the sha256 hex values (or "*") the live file must / must not have, judged inside the
    transaction. `require_parts`: names missing from `files`, `versions`, `either` are an error (ContentMissing).
    """

    package: str
    files: tuple[NewFile, ...] = ()
    version: NewVersion | None = None
    tags: tuple[str, ...] = ()
    may_replace: bool = False
    require_parts: bool = True
    if_match: frozenset[str] | None = None
    if_none_match: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """`created`: something new became visible (201); otherwise the same bytes were there already.
    `replaced`: other bytes stood there before."""

    revision: int
    created: bool
    replaced: bool = False


@dataclass(frozen=True, slots=True)
class UploadState:
    """A resumable transfer: `offset` bytes are kept. `package` is the one it was begun for."""

    upload_id: str
    package: str
    offset: int
    algorithm: str = "sha256"
