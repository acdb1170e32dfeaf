"""The services bound to one actor and one repository: what a format's view is handed, and can't get around.

Thin on purpose: each method is a permission check and one service call.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from repoman.access import permissions
from repoman.blobs import store
from repoman.catalog import selectors
from repoman.catalog.models import Artifact, Repository
from repoman.core.actor import Action, Actor
from repoman.core.digest import Digest
from repoman.core.format import FormatHandler, handler_for
from repoman.core.records import FileEntry, Listing, Publication, Published, Staged, UploadState, VersionEntry
from repoman.core.refs import FileRef, ListingRef, TagRef, VersionRef
from repoman.core.wire import SessionBody
from repoman.policy import quota
from repoman.sources.local import source_for

from . import delete, publish, read, upload
from .upload import SessionSink


class RepositoryHandle:
    """Implements `core.format.Repo`. `scope_name` is the package a registry token must name, filled per call."""

    def __init__(self, actor: Actor, repository: Repository) -> None:
        self.actor = actor
        self.repository = repository
        self.handler: FormatHandler = handler_for(repository.format)
        self._pending_uploads: dict[str, str] = {}

    @property
    def key(self) -> str:
        return self.repository.key

    @property
    def is_anonymously_readable(self) -> bool:
        return self.repository.anonymous_read

    @cached_property
    def options(self) -> Any:
        return self.handler.parse_options(self.repository.options)

    @cached_property
    def _actions(self) -> frozenset[Action]:
        return permissions.allowed_actions(self.actor, self.repository)

    def check(self, action: Action, package: str = "") -> None:
        """Raises AuthenticationRequired, RepositoryNotFound, Forbidden or ScopeInsufficient."""
        scope = f"{self.repository.key}/{package}" if package else ""
        if action in self._actions and permissions.has_scope(self.actor, scope, action):
            return
        permissions.check(self.actor, self.repository, action, scope_name=scope)

    # reading

    def open(self, ref: FileRef, *, promise: bool = False) -> FileEntry:
        self.check(Action.PROBE if promise else Action.READ, ref.package)
        return read.open_file(self.repository, ref, promise=promise and Action.PUBLISH in self._actions)

    def version(self, ref: VersionRef | TagRef) -> VersionEntry:
        self.check(Action.READ, ref.package)
        return source_for(self.repository).resolve(ref)

    def listing(self, ref: ListingRef) -> Listing:
        self.check(Action.READ, ref.package if not self.handler.files_are_packages else "")
        return source_for(self.repository).listing(ref)

    def find_in_repository(self, sha256: str) -> FileEntry | None:
        row = selectors.artifact_with_bytes(permissions.readable(self.actor), sha256)
        if row is None:
            return None
        entry = selectors.file_entry(row)
        intact = store.is_intact(entry.blob.storage_key, entry.blob.size, entry.blob.stamp)
        return entry if intact else None

    def remaining_bytes(self) -> int | None:
        return quota.remaining_bytes(self.repository.namespace_id)

    # publishing

    def stage_bytes(self, data: bytes, algorithms: Sequence[str] = ()) -> Staged:
        return store.stage(data, algorithms=tuple(algorithms))

    def restage(self, entry: FileEntry) -> Staged:
        blob = entry.blob
        return Staged(blob.digest, blob.size, blob.storage_key, blob.stamp, is_fresh=False)

    def publish(self, publication: Publication) -> Published:
        self.check(Action.PUBLISH, publication.package)
        return publish.publish(self.repository, self.actor, self._actions, publication)

    def attach(self, package: str, path: str, staged: Staged, *, media_type: str = "") -> None:
        self.check(Action.PUBLISH, package)
        session = self._pending_uploads.pop(staged.storage_key, "")
        try:
            publish.attach(self.repository, self.actor, package, path, staged, media_type=media_type, upload_id=session)
        except BaseException:
            if session:
                upload.release(session)
            raise

    def mount(self, package: str, path: str, source: str | None) -> bool:
        self.check(Action.PUBLISH, package)
        if source is not None:
            found = self._readable_file(source, path)
        else:
            readable = permissions.readable(self.actor).filter(format=self.repository.format)
            if self.actor.scopes is not None:
                # A registry token was issued for names of this repository: elsewhere it shows nothing.
                readable = readable.filter(pk=self.repository.pk)
            found = selectors.readable_artifact(readable, path, prefer_namespace=self.repository.namespace_id)
        if found is None or not publish.is_whole(found):
            return False
        publish.attach(
            self.repository, self.actor, package, path, None, blob_id=found.blob_id, media_type=found.media_type
        )
        return True

    def _readable_file(self, name: str, path: str) -> Artifact | None:
        """The live file in the package of this full name, if the actor may read it there."""
        parts = name.split("/", 2)
        source = selectors.repository_by_key("/".join(parts[:2])) if len(parts) == 3 else None
        if source is None or source.format != self.repository.format:
            return None
        if Action.READ not in permissions.allowed_actions(self.actor, source):
            return None
        elsewhere = source.pk != self.repository.pk  # within a repository, rights are the same for every name
        if elsewhere and not permissions.has_scope(self.actor, name, Action.READ):
            return None
        return selectors.live_artifact(source.pk, parts[2], path)

    # upload sessions

    def begin_upload(self, package: str, algorithm: str = "sha256") -> UploadState:
        self.check(Action.PUBLISH, package)
        return upload.begin(self.repository, self.actor, package, algorithm)

    def upload(self, package: str, upload_id: str) -> UploadState:
        self.check(Action.PUBLISH, package)
        return upload.state_of(self.repository, self.actor, package, upload_id)

    def open_session(self, plan: SessionBody) -> SessionSink:
        self.check(Action.PUBLISH, plan.package)
        return upload.open_session(self.repository, self.actor, plan)

    def finish_upload(self, package: str, upload_id: str, expect: str) -> Staged:
        self.check(Action.PUBLISH, package)
        staged = upload.finish(self.repository, self.actor, package, upload_id, Digest.parse(expect))
        self._pending_uploads[staged.storage_key] = upload_id
        return staged

    def cancel_upload(self, package: str, upload_id: str) -> None:
        self.check(Action.PUBLISH, package)
        upload.cancel(self.repository, self.actor, package, upload_id)

    # removing

    def remove_tag(self, ref: TagRef) -> None:
        self.check(Action.DELETE, ref.package)
        delete.remove_tag(self.repository, self.actor, ref)

    def remove_version(self, ref: VersionRef) -> None:
        self.check(Action.DELETE, ref.package)
        delete.remove_version(self.repository, self.actor, ref)

    def remove_file(self, ref: FileRef, *, if_match: frozenset[str] | None = None) -> None:
        self.check(Action.DELETE, ref.package)
        delete.remove_file(self.repository, self.actor, ref, if_match=if_match)


class SiteHandle:
    """Implements `core.format.Site`."""

    def __init__(self, actor: Actor) -> None:
        self.actor = actor

    def names(self, format_name: str, *, after: str, limit: int) -> Sequence[str]:
        readable = permissions.readable(self.actor).filter(format=format_name)
        return selectors.package_names(readable, after=after, limit=limit)


def open_repository(actor: Actor, key: str) -> RepositoryHandle | None:
    """The handle, or None where there is no such repository: the caller answers as for one that is hidden."""
    repository = selectors.repository_by_key(key)
    return RepositoryHandle(actor, repository) if repository is not None else None
