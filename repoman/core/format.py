"""The format handler: pure protocol knowledge, and the loader that finds handlers by the names in the settings.

A handler translates between its clients' HTTP and the repository it is handed. It never sees a row, a socket, a
setting of the server, or another format. A sixth format is one folder and one line in `FORMATS`.
"""

from __future__ import annotations

import datetime
import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, BinaryIO, ClassVar, Protocol

from .actor import Action, Actor
from .errors import BadRequest, ContentInvalid, MethodNotAllowed, NotFound, RepomanError
from .fetch import Ref, UpstreamRequest
from .records import (
    Document,
    Facts,
    FileEntry,
    Frame,
    Gather,
    Gathered,
    Listing,
    NewVersion,
    PackageState,
    Publication,
    Published,
    RegistryKey,
    Rendered,
    Staged,
    TokenItem,
    UploadState,
    VersionEntry,
)
from .refs import FileRef, ListingRef, TagRef, VersionRef
from .wire import Response, Route, SiteRoute

PATTERNS_MOST = 50
PATTERN_LENGTH = 128


@dataclass(frozen=True, slots=True)
class NoOptions:
    """A format without per-repository settings."""


class Repo(Protocol):
    """One repository, as one actor sees it: what a view is handed (`services/handle.py`).

    Every method checks the actor's right to do it, and the gates; every write is one transaction with its quota, audit
    row, event and job requests. NotFound is raised for what is not there or not to be seen.
    """

    @property
    def key(self) -> str: ...
    @property
    def actor(self) -> Actor: ...
    @property
    def options(self) -> Any: ...
    @property
    def is_anonymously_readable(self) -> bool: ...

    @property
    def content_options(self) -> Sequence[Any]:
        """The options of all local repositories that what is read may come from: its own, or those of a virtual one's
        members."""
        ...

    def open(self, ref: FileRef, *, promise: bool = False) -> FileEntry:
        """A live file. `promise`: the caller will rely on it being here (HEAD before a push): the grace counts anew."""
        ...

    def current(self, ref: FileRef) -> FileEntry:
        """The live file that a write would meet: of a local repository, or a virtual one's deploy target."""
        ...

    def version(self, ref: VersionRef | TagRef) -> VersionEntry:
        """A live version, by its own name or through a tag."""
        ...

    def first_of(self, refs: Sequence[FileRef]) -> FileRef | None:
        """Of files that clients may mean by one address, the one that is there; of several members of a virtual repository
        the first one's. None where there is none. Raises as `listing`."""
        ...

    def listing(self, ref: ListingRef) -> Listing: ...

    def document(self, ref: ListingRef, form: str, address: str) -> Rendered:
        """The listing in the handler's form `form`, with links that begin with `address` (the repository's, without a
        final slash): rendered once while what it is made of stands still. Raises as `listing`."""
        ...

    @property
    def takes_writes(self) -> bool:
        """Whether anything can be published here by anybody: a local repository, or a virtual one with a target."""
        ...

    def held(self, ref: ListingRef) -> Listing:
        """The listing of a local repository (a virtual one's deploy target), for who may change it. Raises as `listing`."""
        ...

    def package(self, name: str) -> PackageState:
        """Of a local repository (a virtual one's deploy target). Raises PackageNotFound where the name holds nothing."""
        ...

    def may(self, action: Action) -> bool:
        """Whether the actor may do that in this repository."""
        ...

    def publish(self, publication: Publication) -> Published: ...

    def announce(self, ref: FileRef, algorithm: str, told: str) -> bool:
        """Keep a digest that is told of a file before the file comes: for a short time, in which the file is published with
        that digest or not at all (ContentInvalid). Nothing is visible of it. False where the file is there. For formats
        whose files may wait."""
        ...

    def announced(self, ref: FileRef) -> Mapping[str, str]:
        """Algorithm → hex of what was announced of a file and still counts."""
        ...

    def retract(self, ref: FileRef, algorithm: str) -> bool:
        """Take back what was announced; whether anything was."""
        ...

    def attach(
        self, package: str, path: str, staged: Staged, *, media_type: str = "", spent_upload_id: str = ""
    ) -> None:
        """Keep staged bytes as a file that no version names yet (an OCI blob): readable, but no revision, no event.

        `spent_upload_id`: the session that was begun for it ends, in the same transaction, without having kept anything.
        """
        ...

    def has_begun(self, package: str, upload_id: str) -> bool:
        """Whether the upload session has kept bytes. Raises UploadNotFound."""
        ...

    def mount(self, package: str, path: str, source: str | None) -> bool:
        """Link a file of another package here without its bytes: True if the actor may read it there.

        `source` is the full name (`ns/repo/package`) or None for "wherever the actor may read it".
        """
        ...

    def begin_upload(self, package: str, algorithm: str = "sha256") -> UploadState: ...

    def upload(self, package: str, upload_id: str) -> UploadState: ...

    def finish_upload(self, package: str, upload_id: str, expect: str) -> Staged:
        """Close the session: its bytes have digest `expect` (DigestInvalid if not) and are durable."""
        ...

    def cancel_upload(self, package: str, upload_id: str) -> None: ...

    def remove_tag(self, ref: TagRef) -> None: ...

    def remove_version(self, ref: VersionRef) -> None:
        """Remove the version and every tag that points to it."""
        ...

    def remove_file(self, ref: FileRef, *, if_match: frozenset[str] | None = None) -> None: ...

    def remaining_bytes(self) -> int | None:
        """What the quota still allows; None without a quota."""
        ...

    def stage_bytes(self, data: bytes, algorithms: Sequence[str] = ()) -> Staged:
        """Make a small document durable (an OCI manifest that was read for validation).

        `algorithms` are hashed besides sha256 and found in `Staged.others`.
        """
        ...

    def restage(self, entry: FileEntry) -> Staged:
        """The bytes of a live file, ready to be published under another path without a transfer.

        It names the object that is already stored: whoever publishes it must not remove that object as a duplicate of
        itself. The grace counts anew. FileNotFound if the bytes are on their way out.
        """
        ...

    def annotate(self, package: str, versions: Mapping[str, Mapping[str, object]]) -> None:
        """Change notes on versions, name → changes, under one revision: what `FormatHandler.annotations` names
        (`deprecated`: text, empty takes it back; `yanked`, `yanked_reason`). What is the same already changes nothing.
        Raises VersionNotFound, MethodNotAllowed."""
        ...

    def set_tag(self, ref: TagRef, version: str) -> None:
        """Point the tag at the version. Raises VersionNotFound, Forbidden (immutable)."""
        ...

    def remove_versions(self, package: str, versions: Sequence[str], *, if_revision: int | None = None) -> None:
        """Remove these versions, their tags and, where versions own them, their files, under one revision. Names that are
        gone are passed over. `if_revision`: Conflict unless the package's revision still is that."""
        ...

    def inspect(self, path: str, staged: Staged, *, is_kept: bool = False) -> Facts:
        """What the staged bytes claim, found out by the handler's `inspect` in a process of its own, with limits on time
        and memory. Raises ContentInvalid; the staged bytes are discarded then, unless `is_kept`."""
        ...

    def digest(self, ref: FileRef, algorithm: str, *, of_target: bool = False) -> str:
        """A digest of a live file, in hex: computed from the stored bytes and remembered; of what a remote repository does
        not hold yet, as the upstream says it. `of_target`: of the file that a write would meet, for who may write. Raises
        as `open`."""
        ...

    def discard(self, staged: Staged) -> None:
        """Drop staged bytes that will not be published."""
        ...

    def sign(self, payload: bytes) -> tuple[str, str]:
        """(key id, base64 of the DER signature) by this server's registry key: ECDSA P-256 with SHA-256."""
        ...

    def registry_keys(self) -> Sequence[RegistryKey]: ...

    @property
    def account(self) -> Account: ...

    def find_in_repository(self, sha256: str) -> FileEntry | None:
        """A live file with these bytes that the actor may read, anywhere; for deploying by checksum."""
        ...


class Account(Protocol):
    """The caller's own sign-in, for clients that manage tokens through their registry (npm login, npm token).

    All but `sign_in` and `exists` raise AuthenticationRequired for an anonymous caller.
    """

    def sign_in(self, username: str, password: str, *, token_name: str) -> str:
        """A new API token of that user, as `npm login` wants it: all actions but `manage`, 90 days. Raises
        CredentialsInvalid, TooManyRequests."""
        ...

    def password_matches(self, password: str) -> bool: ...

    def exists(self, username: str) -> bool: ...

    def email(self) -> str: ...

    def tokens(self) -> Sequence[TokenItem]: ...

    def make_token(
        self, name: str, *, actions: Sequence[str], expires_in: int | None = None, is_for_this_repository: bool = False
    ) -> tuple[TokenItem, str]:
        """The token and its secret."""
        ...

    def revoke_token(self, key: str) -> None:
        """By id, by hint, or by the secret itself. Raises NotFound."""
        ...


class Site(Protocol):
    """What one actor may see across repositories."""

    @property
    def actor(self) -> Actor: ...

    def names(self, format_name: str, *, after: str, limit: int) -> Sequence[str]:
        """Full package names (`ns/repo/package`) of this format's repositories that the actor may read, in order."""
        ...


class FormatHandler(ABC):
    """Subclass, set the class variables, and put one instance named `handler` into the package's `__init__`.

    - `version_by_digest`: a version is a document, named by its digest (OCI).
    - `files_are_packages`: every file is a package of its own (generic).
    - `versions_own_files`: a file belongs to one version and goes with it; the last file takes its version along.
    - `burns`: what never comes back under its name once it was removed: "version", "file", or nothing.
    - `files_may_wait`: files are published one by one, and one may be in no version yet.
    - `is_listed`: an upstream says in a listing ("versions" of a package) which files there are, with their addresses
      and digests; otherwise files are asked for directly.
    - `is_indexed`: the listing "packages" is one document with all that the repository holds, made of a part for each
      package; an upstream says in its own which versions there are, and is asked for nothing else.
    - `digests`: hashed besides sha256 for every file that comes from an upstream, and kept in its metadata.
    - `annotations`: what `Repo.annotate` may change.
    - `names_differ_by_case`: False refuses a new package whose name another one has but for case.
    - `virtual_by_name`: in a virtual repository, a name held locally hides what remotes have under it.
    """

    name: ClassVar[str]
    prefix: ClassVar[str]
    routes: ClassVar[tuple[Route, ...]]
    site_routes: ClassVar[tuple[SiteRoute, ...]] = ()
    options: ClassVar[type] = NoOptions
    version_by_digest: ClassVar[bool] = False
    files_are_packages: ClassVar[bool] = False
    versions_own_files: ClassVar[bool] = False
    burns: ClassVar[str] = ""
    files_may_wait: ClassVar[bool] = False
    is_listed: ClassVar[bool] = False
    is_indexed: ClassVar[bool] = False
    digests: ClassVar[tuple[str, ...]] = ()
    annotations: ClassVar[frozenset[str]] = frozenset()
    names_differ_by_case: ClassVar[bool] = True
    virtual_by_name: ClassVar[bool] = True

    @abstractmethod
    def error(self, error: RepomanError, *, mount: str, head: bool) -> Response:
        """This format's error envelope."""

    def challenge(self, error: RepomanError, *, base_url: str, scope: str) -> str:
        """The value of WWW-Authenticate on a 401. `scope` names what was asked, as `package:action`, or is empty."""
        return 'Basic realm="Repoman", charset="UTF-8"'

    def scope_of(self, key: str, method: str, path: str) -> str:
        """What a registry token must have been issued for; empty where the format knows no such tokens."""
        return ""

    def normalize(self, name: str) -> str:
        """The package name as rows hold it. Raises NameInvalid."""
        return name

    def plain_target(self, raw_path: bytes) -> bytes:
        """The request target with what only this format may write in more than one way written plainly, before it is
        decoded: npm's scopes come as `@scope%2fname`. It must not make two things of one."""
        return raw_path

    def version_key(self, version: str) -> Any:
        """Sorts versions of one package, lowest first. Any text must do."""
        return version

    def version_identity(self, version: str) -> Any:
        """What two spellings of one version have in common (PEP 440: 1.0 and 1.0.0)."""
        return version

    def has_builds(self, version: str) -> bool:
        """Whether it is a name for a series of builds (a Maven snapshot): in a virtual repository it has those of all
        members. Any other version comes whole from one."""
        return False

    # listings

    def is_index(self, ref: object) -> bool:
        """Whether that is the one document about everything (`is_indexed`)."""
        return self.is_indexed and isinstance(ref, ListingRef) and ref.kind == "packages"

    def render_listing(self, ref: ListingRef, listing: Listing, form: str, address: str) -> Document:
        """The document for clients; links begin with `address`. The same records give the same bytes."""
        raise MethodNotAllowed(f"{self.name} repositories have no such document")

    def describe(self, found: Listing) -> Listing:
        """Packages that are listed `under` a name, with what listings say of them. Given is what a repository keeps: each
        entry's metadata has what is `kept` of the package and the names of its live `versions` (of those of which anything
        is kept), the listing's own what is kept of the name above them. Entries must speak for themselves: a virtual
        repository lists those of several members."""
        return found

    def render_part(self, package: str, listing: Listing, form: str) -> bytes:
        """The package's share of the document about all, made of its versions; empty where it has none."""
        raise MethodNotAllowed(f"{self.name} repositories have no document about all packages")

    def frame(self, form: str, changed_at: datetime.datetime | None, address: str) -> Frame:
        """What stands around the parts. `changed_at`: the last change of any of them."""
        raise MethodNotAllowed(f"{self.name} repositories have no document about all packages")

    def inspect(self, path: str, file: BinaryIO, size: int) -> Facts:
        """What a package file claims about itself. `file` can be read and sought. Reads a bounded amount whatever the
        file says, writes nothing, runs nothing. Raises ContentInvalid."""
        raise ContentInvalid(f"{self.name} has no packages that could be inspected")

    # files that are published one by one

    def complete(
        self,
        package: str,
        gather: Gather,
        files: Mapping[str, Mapping[str, object]],
        options: Any,
        *,
        named: frozenset[str] = frozenset(),
    ) -> Gathered:
        """What the live files below `gather.under` (path → metadata) make of the version; `named` are those it has already.
        Called inside the transaction, after which nobody can have missed another's file; pure and quick. Raises
        ContentInvalid where they contradict each other: then nothing of the publication is kept."""
        return Gathered()

    def is_beside(self, path: str, other: str) -> bool:
        """Where versions own their files: whether `other` is only about the file at `path` (its signature, its metadata),
        and goes with it. Asked for paths that begin with that one."""
        return other.startswith(f"{path}.")

    def version_of(self, ref: FileRef) -> str:
        """The version that a file belongs to by its path; "" where paths do not say that."""
        return ""

    # upstreams

    def file_changes(self, ref: FileRef) -> bool:
        """Whether what an upstream has under this path may be another file tomorrow."""
        return False

    def begins_with(self, ref: FileRef) -> bytes:
        """What every file of that kind begins with: refused from an upstream is what does not, where no digest will tell.
        b"" where anything may be."""
        return b""

    def digest_file(self, ref: FileRef, algorithm: str = "") -> tuple[str, FileRef] | None:
        """Where an upstream says the digest of that file: (algorithm, a small file that holds it in hex). With
        `algorithm`, that one's. None where the format has no such files."""
        return None

    def upstream_base(self, url: str) -> str:
        """What `UpstreamRequest.path` is relative to, made of the remote's `url`."""
        return url

    def upstream(self, ref: Ref, options: Any) -> UpstreamRequest:
        """What to ask an upstream for. Raises NotFound for what no upstream is asked for."""
        raise NotFound(f"remote {self.name} repositories do not have that")

    def takes_version(self, version: str, options: Any) -> bool:
        """Whether a remote repository with these options has versions of this kind: it does not list others. The
        default options exclude nothing, and are not asked."""
        return True

    def parse_listing(self, ref: ListingRef, body: bytes, *, url: str, media_type: str) -> Listing:
        """An upstream's document as records; `url` is where it came from, after redirects. The inverse of
        `render_listing`. Raises ContentInvalid for what is no such document (a login page, an error page)."""
        raise ContentInvalid(f"{self.name} has no listings that could be read")

    def split_index(self, body: bytes, *, url: str, media_type: str) -> Iterator[tuple[str, Listing]]:
        """An upstream's document about all packages as each package's listing of versions; `url` is the address that the
        remote was given. Raises ContentInvalid as `parse_listing`, also after some were given."""
        raise ContentInvalid(f"{self.name} has no document about all packages")

    def merge_metadata(self, found: Sequence[Mapping[str, object]]) -> Mapping[str, object]:
        """What a virtual repository says of a package beyond its versions, of what its members say, in their order."""
        return found[0]

    def told_version(self, headers: Mapping[str, str]) -> str:
        """What an upstream's headers alone (names in lower case) say that a tag is: a version's name, "" for nothing."""
        return ""

    def parse_version(self, ref: VersionRef | TagRef, body: bytes, headers: Mapping[str, str]) -> NewVersion:
        """An upstream's version document (an OCI manifest) as what `publish` takes, without `document`. Raises
        ContentInvalid, DigestInvalid where a VersionRef or the headers name another digest."""
        raise ContentInvalid(f"{self.name} has no version documents")

    def client_url(self, base_url: str, key: str) -> str:
        """The address a client is given for this repository."""
        return f"{base_url}/{self.prefix}/{key}/"

    def parse_options(self, given: Mapping[str, object]) -> Any:
        """An instance of `options` from plain JSON. Raises BadRequest naming the key that is unknown or mistyped."""
        known = {field.name: field for field in fields(self.options)}
        for key, value in given.items():
            if key not in known:
                allowed = ", ".join(sorted(known)) or "none"
                raise BadRequest(f"'{key}' is not an option of {self.name} repositories (allowed: {allowed})")
            default = known[key].default
            if isinstance(default, bool) and not isinstance(value, bool):
                raise BadRequest(f"option '{key}' must be true or false")
            if type(default) is int and (type(value) is not int or not 0 <= value < 2**31):
                raise BadRequest(f"option '{key}' must be a whole number, at least 0")
            if isinstance(default, str) and not isinstance(value, str):
                raise BadRequest(f"option '{key}' must be a text")
            if isinstance(default, tuple):
                if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
                    raise BadRequest(f"option '{key}' must be a list of strings")
                if len(value) > PATTERNS_MOST or any(not 0 < len(item) <= PATTERN_LENGTH for item in value):
                    raise BadRequest(
                        f"option '{key}' takes at most {PATTERNS_MOST} patterns of 1 to {PATTERN_LENGTH} characters"
                    )
        return self.options(**{key: tuple(value) if isinstance(value, list) else value for key, value in given.items()})


@lru_cache(maxsize=1)
def handlers() -> Mapping[str, FormatHandler]:
    """The configured handlers by format name, in the order of the FORMATS setting."""
    from django.conf import settings  # the one place below the interfaces that reads a setting

    found: dict[str, FormatHandler] = {}
    for module_name in settings.FORMATS:
        handler: FormatHandler = importlib.import_module(module_name).handler
        found[handler.name] = handler
    return found


def handler_for(name: str) -> FormatHandler:
    return handlers()[name]
