"""What services and formats hand each other: plain frozen values, no rows."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field

from .digest import Digest
from .refs import FileRef


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
    """Stored bytes, ready to be sent. `media_type` is what the client is told.

    `flight` names a fetch whose bytes are still arriving: `digest.hex` is then empty where nobody has said it, and
    `size` is negative where the upstream has not.
    """

    digest: Digest
    size: int
    storage_key: str
    stamp: str
    media_type: str = "application/octet-stream"
    flight: str = ""


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
class ListedFile:
    """A file as a listing names it, whether its bytes are here or still at an upstream.

    `path` is unique in its package. `url` is where an upstream keeps it (absolute; empty for what was published here).
    `digests` maps algorithms to lower-case hex; a fetch verifies the strongest. `size` None: not said. `metadata` is the
    format's own.
    """

    path: str
    size: int | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    url: str = ""
    published_at: datetime.datetime | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a listing: a tag, a version, a file, a folder or a package. `kind` says which.

    A version carries its `files`; `modified` is the moment it became visible, for an upstream's the upstream's own.
    """

    name: str
    kind: str = "file"
    size: int | None = None
    digest: str = ""
    modified: datetime.datetime | None = None
    media_type: str = ""
    artifact_type: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict)
    files: tuple[ListedFile, ...] = ()
    yanked: bool = False
    yanked_reason: str = ""
    deprecated: str = ""


@dataclass(frozen=True, slots=True)
class Freshness:
    """How a remote's document stands: `status` is "hit", "miss" or "stale"; `ttl` seconds left (negative: past its
    time); `age` seconds since the upstream last confirmed it; `detail` why it is stale."""

    status: str = "hit"
    ttl: int = 0
    age: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """Neutral records of what a package or repository holds. `more` says that entries follow the last one.

    `tags` (name → version) and `metadata` (the format's own, about the package itself) belong to a listing of versions.
    `changed_at`: the last visible change. `freshness` is set where an upstream's document is part of it; `gaps` names
    members of a lenient virtual repository that could not be asked.
    """

    entries: tuple[Entry, ...]
    more: bool = False
    revision: int = 0
    tags: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, object] = field(default_factory=dict)
    changed_at: datetime.datetime | None = None
    freshness: Freshness | None = None
    gaps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """A listing rendered in a format's own form. `media_type` as the client is told."""

    data: bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands before, between and after the parts of a document about all packages."""

    head: bytes
    between: bytes
    tail: bytes
    media_type: str


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Piece:
    """A stretch of a document. Documents may share it."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered document, kept ready to be sent. `packed` is the same with gzip, empty where that gains nothing.

    `pieces` are one, except where the document is long and shares them with others: then it is sent without being put
    together. `etag` is strong and quoted, of the form that is sent without a content coding; `headers` are about freshness
    (Cache-Status, Age, Cache-Control of what is stale), and belong to this answer only.
    """

    pieces: tuple[Piece, ...]
    packed: bytes
    media_type: str
    etag: str
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def data(self) -> bytes:
        """All of it: a copy where there are several pieces."""
        return b"".join([piece.data for piece in self.pieces])

    @property
    def held_bytes(self) -> int:
        """In both forms; what is shared counts as well."""
        return sum([len(piece.data) for piece in self.pieces]) + len(self.packed)


@dataclass(frozen=True, slots=True)
class PackageState:
    """What a package is at the moment. `revision`: the repository's that last changed it. `metadata` is the format's
    own (npm: access; PyPI: project status)."""

    revision: int
    metadata: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a package's bytes claim about themselves (`FormatHandler.inspect`).

    `metadata` is plain JSON for rows; `documents` are small files taken out of the archive that are served beside it
    (name → bytes).
    """

    name: str
    version: str
    metadata: Mapping[str, object] = field(default_factory=dict)
    documents: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to be made visible: freshly staged bytes under `path` in the package.

    `held_by_version`: kept only while a version names it (an OCI layer), instead of standing by itself (a raw file).
    `is_moving`: the format has paths whose content changes (a Maven snapshot under its plain name): who may publish may
    replace this one, whatever `may_replace` says.
    `about`: path → sha256 hex of other files of the package that this one speaks of. One that is there with other bytes:
    ContentInvalid. One that is there while nothing that it speaks of is there *waits*, and binds nobody: it is replaced by
    one that comes with what it speaks of, by its publisher, and by who may delete.
    """

    path: str
    staged: Staged
    media_type: str = ""
    held_by_version: bool = False
    is_moving: bool = False
    metadata: Mapping[str, object] = field(default_factory=dict)
    published_at: datetime.datetime | None = None  # at the upstream
    about: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A version to be made visible. `files` are paths in the package that it names (they must be there, or be
    published with it, unless listed in `may_be_missing`); `versions` are versions of the package it names.

    Where the format's versions own their files, a live version of that name takes the new files besides those it has."""

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
    published_at: datetime.datetime | None = None  # at the upstream


@dataclass(frozen=True, slots=True)
class Gather:
    """Files that are published one by one and are parts of `version`: those of the package whose path begins with `under`
    (not empty, ends with an ASCII character). `is_whole`: the publisher has said that these are all."""

    version: str
    under: str
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class Gathered:
    """What becomes of gathered files: the version as it can be shown by now, if it can, and the paths that are outdated by
    it and leave with the same revision."""

    version: NewVersion | None = None
    outdated: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Publication:
    """What publish is asked to make visible, in one transaction and under one revision.

    `may_replace`: other bytes under a live path are replaced (needs DELETE besides PUBLISH); otherwise a Conflict.
    `if_match` / `if_none_match`: the sha256 hex values (or "*") the live file must / must not have, judged inside the
    transaction. `require_parts`: names missing from `files`, `versions`, `either` are an error (ContentMissing).
    `default_tags` are set only where the package does not have such a tag yet. `package_metadata`, where given, is
    merged into the package's own. `display_name`: how the publisher writes the name, kept from the first time.
    `origin`: the upstream's address, for what a remote repository took over. `gather`: versions that may be complete with
    this, judged by the handler's `complete` inside the transaction. `companions`: paths whose files, where they are there,
    may speak of a file published here (`NewFile.about`): those that speak of other bytes go with what is replaced, or where
    they waited for it, and are a Conflict otherwise. `rivals`: files of other packages that have the same address for
    clients: a Conflict where one of them is there.
    """

    package: str
    files: tuple[NewFile, ...] = ()
    version: NewVersion | None = None
    tags: tuple[str, ...] = ()
    may_replace: bool = False
    require_parts: bool = True
    if_match: frozenset[str] | None = None
    if_none_match: frozenset[str] | None = None
    default_tags: tuple[str, ...] = ()
    package_metadata: Mapping[str, object] | None = None
    display_name: str = ""
    origin: str = ""
    companions: tuple[str, ...] = ()
    rivals: tuple[FileRef, ...] = ()
    gather: tuple[Gather, ...] = ()


@dataclass(frozen=True, slots=True)
class Published:
    """`created`: something new became visible (201); otherwise the same bytes were there already.
    `replaced`: other bytes stood there before. `dropped`: paths of files that spoke of other bytes, and are gone."""

    revision: int
    created: bool
    replaced: bool = False
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UploadState:
    """A resumable transfer: `offset` bytes are kept. `package` is the one it was begun for."""

    upload_id: str
    package: str
    offset: int
    algorithm: str = "sha256"


@dataclass(frozen=True, slots=True)
class RegistryKey:
    """A key with which this server signs what it publishes. `public` is the SubjectPublicKeyInfo in base64."""

    keyid: str
    public: str
    expires_at: datetime.datetime | None = None


@dataclass(frozen=True, slots=True)
class TokenItem:
    """An API token as its owner sees it; the secret is shown once, when it is made."""

    id: int
    name: str
    hint: str
    actions: tuple[str, ...]
    created_at: datetime.datetime
    expires_at: datetime.datetime | None
