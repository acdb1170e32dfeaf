"""The format handler: pure protocol knowledge, and the loader that finds handlers by the names in the settings.

A handler translates between its clients' HTTP and the repository it is handed. It never sees a row, a socket, a
setting of the server, or another format. A sixth format is one folder and one line in `FORMATS`.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, ClassVar, Protocol

from .actor import Actor
from .errors import BadRequest, RepomanError
from .records import FileEntry, Listing, Publication, Published, Staged, UploadState, VersionEntry
from .refs import FileRef, ListingRef, TagRef, VersionRef
from .wire import Response, Route, SiteRoute


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

    def open(self, ref: FileRef, *, promise: bool = False) -> FileEntry:
        """A live file. `promise`: the caller will rely on it being here (HEAD before a push): the grace counts anew."""
        ...

    def version(self, ref: VersionRef | TagRef) -> VersionEntry:
        """A live version, by its own name or through a tag."""
        ...

    def listing(self, ref: ListingRef) -> Listing: ...

    def publish(self, publication: Publication) -> Published: ...

    def attach(self, package: str, path: str, staged: Staged, *, media_type: str = "") -> None:
        """Keep staged bytes as a file that no version names yet (an OCI blob): readable, but no revision, no event."""
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

    def find_in_repository(self, sha256: str) -> FileEntry | None:
        """A live file with these bytes that the actor may read, anywhere; for deploying by checksum."""
        ...


class Site(Protocol):
    """What one actor may see across repositories."""

    @property
    def actor(self) -> Actor: ...

    def names(self, format_name: str, *, after: str, limit: int) -> Sequence[str]:
        """Full package names (`ns/repo/package`) of this format's repositories that the actor may read, in order."""
        ...


class FormatHandler(ABC):
    """Subclass, set the class variables, and put one instance named `handler` into the package's `__init__`."""

    name: ClassVar[str]
    prefix: ClassVar[str]
    routes: ClassVar[tuple[Route, ...]]
    site_routes: ClassVar[tuple[SiteRoute, ...]] = ()
    options: ClassVar[type] = NoOptions
    version_by_digest: ClassVar[bool] = False
    files_are_packages: ClassVar[bool] = False

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
            if isinstance(default, tuple) and not (
                isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
            ):
                raise BadRequest(f"option '{key}' must be a list of strings")
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
