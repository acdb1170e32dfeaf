"""The services bound to one actor and one repository: what a format's view is handed, and can't get around.

Thin on purpose: each method is a permission check and one service call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from repoman.access import permissions, registry_keys
from repoman.blobs import store
from repoman.catalog import selectors
from repoman.catalog.models import Artifact, Repository
from repoman.core.actor import Action, Actor
from repoman.core.digest import Digest
from repoman.core.errors import ContentInvalid, Forbidden, MethodNotAllowed, NotFound, PackageNotFound, RepomanError
from repoman.core.fetch import Outcome
from repoman.core.format import FormatHandler, handler_for
from repoman.core.records import (
    Document,
    Facts,
    FileEntry,
    Freshness,
    Listing,
    PackageState,
    Publication,
    Published,
    RegistryKey,
    Rendered,
    Staged,
    UploadState,
    VersionEntry,
)
from repoman.core.refs import FileRef, ListingRef, TagRef, VersionRef
from repoman.core.wire import Response, SessionBody
from repoman.policy import quota
from repoman.sources.base import Asked, Source
from repoman.sources.choose import source_for
from repoman.sources.local import LocalSource
from repoman.sources.virtual import VirtualSource

from . import annotate, announced, delete, publish, read, upload, workshop
from .own_account import OwnAccount
from .parts import assemble
from .rendered import documents
from .upload import SessionSink


class RepositoryHandle:
    """Implements `core.format.Repo`. `scope_name` is the package a registry token must name, filled per call.

    `outcomes` is what upstreams answered in this request already. Reading asks the repository's source; writing goes to
    `target`: the repository itself if it is local, a virtual one's deploy target, and else it is refused.
    """

    def __init__(
        self,
        actor: Actor,
        repository: Repository,
        *,
        outcomes: Mapping[str, Outcome] | None = None,
        is_head: bool = False,
    ) -> None:
        self.actor = actor
        self.repository = repository
        self.handler: FormatHandler = handler_for(repository.format)
        self.asked = Asked(actor, outcomes or {}, is_head)
        self._pending_uploads: dict[str, str] = {}

    @cached_property
    def source(self) -> Source:
        return source_for(self.repository, self.asked)

    def renew(self, outcomes: Mapping[str, Outcome]) -> None:
        """Look anew, with what upstreams have answered."""
        self.asked = Asked(self.actor, outcomes, self.asked.is_head)
        self.__dict__.pop("source", None)

    @property
    def gaps(self) -> Mapping[str, RepomanError]:
        """Members of a lenient virtual repository that what was asked of it had to do without, and why."""
        source = self.__dict__.get("source")
        return source.gaps if isinstance(source, VirtualSource) else {}

    def marked(self, response: Response) -> Response:
        """The response, saying that it is incomplete where it is."""
        if not self.gaps:
            return response
        told = cache_headers(None, tuple(self.gaps))
        kept = [pair for pair in response.headers if pair[0].lower() != "cache-control"]
        return replace(response, headers=[*kept, *told])

    @cached_property
    def target(self) -> Repository:
        """Where writes go. Raises MethodNotAllowed."""
        return write_target(self.repository)

    @property
    def takes_writes(self) -> bool:
        try:
            write_target(self.repository)
        except MethodNotAllowed:
            return False
        return True

    @property
    def key(self) -> str:
        return self.repository.key

    @property
    def is_anonymously_readable(self) -> bool:
        return self.repository.anonymous_read

    @cached_property
    def options(self) -> Any:
        decides = self.repository
        if decides.type == Repository.Type.VIRTUAL and decides.deploy_target is not None:
            decides = decides.deploy_target
        return self.handler.parse_options(own_options(decides))

    @cached_property
    def content_options(self) -> Sequence[Any]:
        if self.repository.type == Repository.Type.LOCAL:
            return [self.options]
        source = self.source
        members = source.contributors("") if isinstance(source, VirtualSource) else []
        locals_ = (member for member in members if member.type == Repository.Type.LOCAL)
        return [self.handler.parse_options(own_options(member)) for member in locals_]

    @cached_property
    def _actions(self) -> frozenset[Action]:
        return permissions.allowed_actions(self.actor, self.repository)

    def check(self, action: Action, package: str = "") -> None:
        """Raises AuthenticationRequired, RepositoryNotFound, Forbidden or ScopeInsufficient."""
        scope = f"{self.repository.key}/{package}" if package else ""
        if action in self._actions and permissions.has_scope(self.actor, scope, action):
            return
        permissions.check(self.actor, self.repository, action, scope_name=scope)

    def may(self, action: Action) -> bool:
        return action in self._actions

    def _check_write(self, action: Action, package: str = "") -> Repository:
        """The right to do it here and, behind a virtual repository, where it is done. Returns where that is."""
        self.check(action, package)
        target = self.target
        if target.pk != self.repository.pk:
            try:
                permissions.check(self.actor, target, action, scope_name=self._scope_in(package))
            except (NotFound, Forbidden):  # which names the target
                raise Forbidden(
                    f"you may not {action} where '{self.repository.key}' keeps what is sent to it"
                ) from None
        return target

    def _scope_in(self, package: str) -> str:
        """A registry token was issued for the name that the client used."""
        return f"{self.repository.key}/{package}" if package else ""

    @cached_property
    def _target_actions(self) -> frozenset[Action]:
        if self.target.pk == self.repository.pk:
            return self._actions
        return permissions.allowed_actions(self.actor, self.target)

    # reading

    def open(self, ref: FileRef, *, promise: bool = False) -> FileEntry:
        self.check(Action.PROBE if promise else Action.READ, ref.package)
        if self.repository.type != Repository.Type.LOCAL:
            return self._open_elsewhere(ref, promise)
        return read.open_file(self.repository, ref, promise=promise and Action.PUBLISH in self._actions)

    def _open_elsewhere(self, ref: FileRef, promise: bool) -> FileEntry:
        """Through a virtual repository, "it is here" before a push means: in the deploy target. What other members have
        is of no use to the manifest that follows, so who could push it is told to send it."""
        if promise and self._deploys(ref.package):
            return read.open_file(self.target, ref, promise=True)
        self.check(Action.READ, ref.package)
        return self.source.open(ref)

    def _deploys(self, package: str) -> bool:
        """Whether the caller could publish this here through a virtual repository."""
        if self.repository.type != Repository.Type.VIRTUAL or self.repository.deploy_target is None:
            return False
        if Action.PUBLISH not in self._actions & self._target_actions:
            return False
        return permissions.has_scope(self.actor, self._scope_in(package), Action.PUBLISH)

    def current(self, ref: FileRef) -> FileEntry:
        self.check(Action.READ, ref.package)
        if Action.READ not in self._target_actions:
            raise Forbidden(f"you may not read where '{self.repository.key}' keeps what is sent to it")
        return read.open_file(self.target, ref, promise=False)

    def version(self, ref: VersionRef | TagRef) -> VersionEntry:
        self.check(Action.READ, ref.package)
        if self.asked.is_head and isinstance(ref, VersionRef) and self.actor.scopes is not None:
            if self._deploys(ref.package):  # a registry token for pushing: what is said to be here is not sent
                return LocalSource(self.target).resolve(ref)
        return self.source.resolve(ref)

    def listing(self, ref: ListingRef) -> Listing:
        self.check(Action.READ, ref.package if not self.handler.files_are_packages else "")
        return self.source.listing(ref)

    def first_of(self, refs: Sequence[FileRef]) -> FileRef | None:
        self.check(Action.READ)
        return self.source.first_of(refs)

    def document(self, ref: ListingRef, form: str, address: str) -> Rendered:
        self.check(Action.READ, ref.package if not self.handler.files_are_packages else "")
        source = self.source
        mark = source.mark(ref)

        def render() -> Document | Rendered:
            if self.handler.is_index(ref):
                return assemble(self.handler, ref, source.parts(ref), form, address)
            return self.handler.render_listing(ref, source.listing(ref), form, address)

        found = documents.get((self.repository.pk, ref, form, address), mark, render)
        if self.repository.type == Repository.Type.LOCAL:
            return found
        return replace(found, headers=cache_headers(*source.freshness(ref)))

    def package(self, name: str) -> PackageState:
        repository = self.target
        if self._reads_nothing():
            raise PackageNotFound(f"{self.repository.key} has no package '{name}'")
        row = selectors.package(repository.pk, name)
        if row is None or not selectors.package_exists(repository.pk, name):
            raise PackageNotFound(f"{self.repository.key} has no package '{name}'")
        return PackageState(row.revision, row.metadata)

    def _reads_nothing(self) -> bool:
        """Who may only publish or delete learns from a package's state what doing it would tell as well."""
        return not self._actions & {Action.READ, Action.PUBLISH, Action.DELETE}

    def find_in_repository(self, sha256: str) -> FileEntry | None:
        row = selectors.artifact_with_bytes(permissions.readable(self.actor), sha256)
        if row is None:
            return None
        entry = selectors.file_entry(row)
        intact = store.is_intact(entry.blob.storage_key, entry.blob.size, entry.blob.stamp)
        return entry if intact else None

    def remaining_bytes(self) -> int | None:
        return quota.remaining_bytes(self.target.namespace_id)

    # publishing

    def stage_bytes(self, data: bytes, algorithms: Sequence[str] = ()) -> Staged:
        return store.stage(data, algorithms=tuple(algorithms))

    def restage(self, entry: FileEntry) -> Staged:
        blob = entry.blob
        return Staged(blob.digest, blob.size, blob.storage_key, blob.stamp, is_fresh=False)

    def discard(self, staged: Staged) -> None:
        if staged.is_fresh and not selectors.is_named(staged.storage_key):
            store.discard([staged.storage_key])

    def inspect(self, path: str, staged: Staged, *, is_kept: bool = False) -> Facts:
        try:
            return workshop.inspect(self.repository.format, path, staged)
        except BaseException as error:
            if not (is_kept and isinstance(error, ContentInvalid)):
                self.discard(staged)
            raise

    def digest(self, ref: FileRef, algorithm: str, *, of_target: bool = False) -> str:
        if of_target:
            return LocalSource(self._check_write(Action.PUBLISH, ref.package)).digest(ref, algorithm)
        self.check(Action.READ, ref.package)
        return self.source.digest(ref, algorithm)

    def held(self, ref: ListingRef) -> Listing:
        return LocalSource(self._check_write(Action.PUBLISH, ref.package)).listing(ref)

    def publish(self, publication: Publication) -> Published:
        target = self._check_write(Action.PUBLISH, publication.package)
        return publish.publish(target, self.actor, self._target_actions, publication)

    def announce(self, ref: FileRef, algorithm: str, told: str) -> bool:
        return announced.announce(self._check_write(Action.PUBLISH, ref.package), ref, algorithm, told)

    def announced(self, ref: FileRef) -> Mapping[str, str]:
        return announced.of(self._check_write(Action.PUBLISH, ref.package), ref)

    def retract(self, ref: FileRef, algorithm: str) -> bool:
        return announced.retract(self._check_removal(ref.package), ref, algorithm)

    def annotate(self, package: str, versions: Mapping[str, Mapping[str, object]]) -> None:
        annotate.annotate(self._check_write(Action.PUBLISH, package), self.actor, package, versions)

    def set_tag(self, ref: TagRef, version: str) -> None:
        publish.set_tag(self._check_write(Action.PUBLISH, ref.package), self.actor, ref, version)

    def sign(self, payload: bytes) -> tuple[str, str]:
        return registry_keys.sign(payload)

    def registry_keys(self) -> Sequence[RegistryKey]:
        return registry_keys.public_keys()

    @property
    def account(self) -> OwnAccount:
        return OwnAccount(self.actor, self.repository)

    def has_begun(self, package: str, upload_id: str) -> bool:
        return upload.has_begun(self._check_write(Action.PUBLISH, package), self.actor, package, upload_id)

    def attach(
        self, package: str, path: str, staged: Staged, *, media_type: str = "", spent_upload_id: str = ""
    ) -> None:
        target = self._check_write(Action.PUBLISH, package)
        session = self._pending_uploads.pop(staged.storage_key, "")
        try:
            publish.attach(
                target,
                self.actor,
                package,
                path,
                staged,
                media_type=media_type,
                upload_id=session,
                spent_upload_id=spent_upload_id,
            )
        except BaseException:
            if session:
                upload.release(session)
            raise

    def mount(self, package: str, path: str, source: str | None) -> bool:
        target = self._check_write(Action.PUBLISH, package)
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
        publish.attach(target, self.actor, package, path, None, blob_id=found.blob_id, media_type=found.media_type)
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
        if source.type != Repository.Type.VIRTUAL:
            return selectors.live_artifact(source.pk, parts[2], path)
        members = VirtualSource(source, self.asked).contributors(parts[2])
        found = (selectors.live_artifact(member.pk, parts[2], path) for member in members)
        return next((row for row in found if row is not None), None)

    # upload sessions

    def begin_upload(self, package: str, algorithm: str = "sha256") -> UploadState:
        return upload.begin(self._check_write(Action.PUBLISH, package), self.actor, package, algorithm)

    def upload(self, package: str, upload_id: str) -> UploadState:
        return upload.state_of(self._check_write(Action.PUBLISH, package), self.actor, package, upload_id)

    def open_session(self, plan: SessionBody) -> SessionSink:
        return upload.open_session(self._check_write(Action.PUBLISH, plan.package), self.actor, plan)

    def finish_upload(self, package: str, upload_id: str, expect: str) -> Staged:
        target = self._check_write(Action.PUBLISH, package)
        staged = upload.finish(target, self.actor, package, upload_id, Digest.parse(expect))
        self._pending_uploads[staged.storage_key] = upload_id
        return staged

    def cancel_upload(self, package: str, upload_id: str) -> None:
        upload.cancel(self._check_write(Action.PUBLISH, package), self.actor, package, upload_id)

    # removing

    def remove_tag(self, ref: TagRef) -> None:
        delete.remove_tag(self._check_removal(ref.package), self.actor, ref)

    def remove_version(self, ref: VersionRef) -> None:
        delete.remove_version(self._check_removal(ref.package), self.actor, ref)

    def remove_versions(self, package: str, versions: Sequence[str], *, if_revision: int | None = None) -> None:
        delete.remove_versions(self._check_removal(package), self.actor, package, versions, if_revision=if_revision)

    def remove_file(self, ref: FileRef, *, if_match: frozenset[str] | None = None) -> None:
        delete.remove_file(self._check_removal(ref.package), self.actor, ref, if_match=if_match)

    def _check_removal(self, package: str) -> Repository:
        self.check(Action.DELETE, package)
        return removal_target(self.repository)


def own_options(repository: Repository) -> dict[str, Any]:
    """The format's options of a repository, without those that a type has for every format."""
    return {name: value for name, value in repository.options.items() if name not in VIRTUAL_OPTIONS}


VIRTUAL_OPTIONS: Mapping[str, object] = {"strict": True, "allow_remote_names": []}  # with their defaults


def write_target(repository: Repository) -> Repository:
    """Where writes to the repository go. Raises MethodNotAllowed where nothing can be written."""
    if repository.type == Repository.Type.LOCAL:
        return repository
    if repository.type == Repository.Type.REMOTE:
        raise MethodNotAllowed(
            f"'{repository.key}' shows what an upstream has; publish to a local repository", allow=["GET", "HEAD"]
        )
    if repository.deploy_target is None:
        raise MethodNotAllowed(
            f"'{repository.key}' is virtual and has no deploy target; publish to one of its members",
            allow=["GET", "HEAD"],
        )
    return repository.deploy_target


def removal_target(repository: Repository) -> Repository:
    """Where removals from the repository happen. Not through a virtual one: which member's would it be? Raises
    MethodNotAllowed."""
    if repository.type == Repository.Type.VIRTUAL:
        raise MethodNotAllowed(
            f"'{repository.key}' is virtual: remove it from the member that has it", allow=["GET", "HEAD"]
        )
    return write_target(repository)


def cache_headers(freshness: Freshness | None, gaps: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """What a client is told of an upstream's document (RFC 9211), and that it should not keep what is stale or partial."""
    headers: list[tuple[str, str]] = []
    if freshness is not None:
        status = "fwd=miss" if freshness.status == "miss" else "hit"
        detail = f"; detail={freshness.detail}" if freshness.detail else ""
        headers.append(("Cache-Status", f"repoman; {status}; ttl={freshness.ttl}{detail}"))
        headers.append(("Age", str(freshness.age)))
    if gaps:
        headers.append(("X-Repoman-Incomplete", ", ".join(gaps)))
    if gaps or (freshness is not None and freshness.status == "stale"):
        headers.append(("Cache-Control", "no-store" if gaps else "no-cache"))
    return tuple(headers)


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
