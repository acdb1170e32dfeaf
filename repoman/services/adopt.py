"""The adoption door: what an upstream answered becomes rows. The one place where fetched content is taken over.

Called with the outcome of a plan, whatever it was, by the edge and by workers. Files and versions go through the publish
door as any other, in the name of the server; so quota, events and revisions are the same.
"""

from __future__ import annotations

import datetime
import logging
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urljoin, urlsplit

from repoman.blobs import store
from repoman.blobs.models import BlobDigest
from repoman.catalog import selectors
from repoman.catalog.models import Artifact, Repository
from repoman.core import clock
from repoman.core.actor import ALL_ACTIONS, system_actor
from repoman.core.errors import (
    BadRequest,
    NotFound,
    RepomanError,
    RepositoryNotFound,
    Unavailable,
    UpstreamFailed,
)
from repoman.core.fetch import Outcome, Plan
from repoman.core.format import handler_for
from repoman.core.records import Entry, ListedFile, NewFile, NewVersion, Publication, Staged
from repoman.core.refs import FileRef, ListingRef, TagRef, VersionRef
from repoman.db.prepared import Prepared
from repoman.events.models import Event
from repoman.events.record import record
from repoman.sources import state
from repoman.sources.models import UpstreamDocument
from repoman.sources.records import dump_listing, dump_names, joined, load_listing, unpacked
from repoman.sources.remote import Limits, document_key, document_row, find_file, generation_of, pages_key

from . import workshop
from .publish import publish
from .transactions import write

ACTOR = system_actor("upstream")
PARTS_AT_ONCE = 400
PART_KEYS = document_key(ListingRef("versions"))
JITTER = 0.1
_LINK = re.compile(r"<([^<>]{1,2000})>([^,<]{0,500})")
_NEXT = re.compile(r";\s*rel\s*=\s*\"?[^\";]*\bnext\b")
_MAX_AGE = re.compile(r"(?:^|[,\s])(?:s-maxage|max-age)\s*=\s*\"?(\d{1,9})")
logger = logging.getLogger("repoman.upstream")
repository_row = Prepared(lambda repository_id: Repository.objects.select_related("namespace").filter(pk=repository_id))


def adopt(plan: Plan, outcome: Outcome, seconds: float = 0.0) -> None:
    """Take over what came, and remember what it says about the upstream. Sets `outcome.error` where it cannot be kept.

    `seconds`: how long the upstream took. What was asked for under other settings of the remote is not taken. Staged bytes
    that are not kept are discarded. Raises nothing but what the database raises.
    """
    repository = repository_row.first(plan.repository_id)
    if repository is None or repository.state == Repository.State.DELETING:
        _drop(outcome)
        outcome.error = RepositoryNotFound("the repository was deleted meanwhile")
        return
    limits = Limits.of(repository.remote)
    if generation_of(plan) != limits.generation:
        _drop(outcome)
        outcome.error = Unavailable("the remote's settings were changed meanwhile; try again", retry_after_seconds=1)
        return
    key = document_key(plan.ref)
    if outcome.error is None and plan.kind != "probe":
        try:
            _keep(repository, limits, plan, outcome)
            state.note_present(repository.pk, limits.generation, key)
        except BadRequest as error:
            _drop(outcome)
            outcome.error = UpstreamFailed(f"the upstream's answer cannot be used: {error.message}", **error.detail)
        except RepomanError as error:
            _drop(outcome)
            outcome.error = error
    state.note(repository, outcome)
    if isinstance(outcome.error, NotFound):
        state.note_absent(repository.pk, limits.generation, key, limits.negative_ttl)
        if plan.kind in ("listing", "tag", "file") and not handler_for(repository.format).is_index(plan.ref):
            _forget(repository, key)
    elif outcome.error is not None and state.is_trouble(outcome.error):
        state.note_failed(repository.pk, limits.generation, key, outcome.error, seconds)


def _drop(outcome: Outcome) -> None:
    if outcome.staged is not None:
        store.discard([outcome.staged.storage_key])
        outcome.staged = None


def _forget(repository: Repository, key: str) -> None:
    """What the upstream says is gone is not served as its stale copy later."""
    rows = UpstreamDocument.objects.filter(repository=repository, key=key)
    if rows.exists():
        write(rows.delete)


def _keep(repository: Repository, limits: Limits, plan: Plan, outcome: Outcome) -> None:
    match plan.kind:
        case "listing":
            _keep_listing(repository, limits, plan, outcome)
        case "tag":
            _keep_tag(repository, limits, plan, outcome)
        case "version":
            _keep_version(repository, plan, outcome, tags=())
        case "file":
            _keep_file(repository, limits, plan, outcome)


# --- documents -------------------------------------------------------------------------------------------------------


def _until(limits: Limits, headers: Mapping[str, str], now: datetime.datetime) -> datetime.datetime:
    """Until when a document counts as fresh: the remote's limit or, if shorter, what the upstream says; never all
    documents at the same moment."""
    seconds = float(limits.metadata_ttl)
    told = _MAX_AGE.search(headers.get("cache-control", ""))
    if told is not None:
        age = headers.get("age", "0")
        seconds = min(seconds, max(0.0, int(told[1]) - (int(age) if age.isdigit() else 0)))
    return now + datetime.timedelta(seconds=seconds * (1 - JITTER * random.random()))


def _save(
    repository: Repository,
    limits: Limits,
    plan: Plan,
    outcome: Outcome,
    *,
    records: bytes | None = None,
    mark: str = "",
    changed: tuple[_Changed, ...] = (),
    beside: Callable[[], None] | None = None,
) -> None:
    """The document's row as of now, in one statement. A 304 leaves what it holds and makes it fresh again. `beside` is done
    in the same transaction, first."""
    now = clock.now()
    # A body that nothing measured may have been cut: it is asked for again each time.
    is_certain = outcome.is_not_modified or plan.kind == "tag" or outcome.size is not None
    row = UpstreamDocument(
        repository=repository,
        key=document_key(plan.ref),
        generation=limits.generation,
        url=outcome.url or plan.url,
        etag=_validator(outcome.headers.get("etag", ""), 512),
        last_modified=_validator(outcome.headers.get("last-modified", ""), 64),
        records=records,
        mark=mark,
        fetched_at=now,
        checked_at=now,
        fresh_until=_until(limits, outcome.headers, now) if is_certain else now,
    )

    def block() -> None:
        if plan.kind == "listing" and outcome.is_not_modified:
            # Without the records it would confirm nothing; they may have been dropped while the upstream was asked.
            known = UpstreamDocument.objects.filter(repository=repository, key=row.key).exclude(mark="")
            if not known.exists():
                raise Unavailable("the upstream's listing was dropped meanwhile; try again", retry_after_seconds=1)
        if beside is not None:
            beside()
        _put(row, ("generation", "checked_at", "fresh_until") if outcome.is_not_modified else _ALL)
        for each in changed:
            each.record(repository)

    write(block)


_ALL = ("generation", "url", "etag", "last_modified", "records", "mark", "fetched_at", "checked_at", "fresh_until")


def _put(row: UpstreamDocument, fields: tuple[str, ...]) -> None:
    UpstreamDocument.objects.bulk_create(
        [row], update_conflicts=True, unique_fields=["repository", "key"], update_fields=fields
    )


def _validator(value: str, most: int) -> str:
    """As it is, or not at all: a part of a validator would never match again."""
    return value if len(value) <= most else ""


def _keep_listing(repository: Repository, limits: Limits, plan: Plan, outcome: Outcome) -> None:
    assert isinstance(plan.ref, ListingRef)
    if outcome.is_not_modified:
        _save(repository, limits, plan, outcome)
        return
    media_type = outcome.headers.get("content-type", "")
    if handler_for(repository.format).is_index(plan.ref):
        _keep_index(repository, limits, plan, outcome, media_type)
        return
    packed, mark = workshop.parse_listing(
        repository.format, plan.ref, outcome.body, url=outcome.url or plan.url, media_type=media_type
    )
    following = _next_page(plan, outcome)
    gathered = UpstreamDocument.objects.filter(repository=repository, key=pages_key(plan.ref))
    if plan.page:
        row = document_row(repository.pk, pages_key(plan.ref))
        if row is None or row.etag != str(plan.page - 1):
            raise Unavailable("the pages of the listing were asked for twice at the same time", retry_after_seconds=1)
        packed, mark = joined(row, packed)
    if following:
        _gather(repository, limits, plan, following, packed, mark)
        return
    packed, mark, changed = _with_what_is_held(
        repository, plan.ref.package if plan.ref.kind == "versions" else "", packed, mark
    )
    _save(repository, limits, plan, outcome, records=packed, mark=mark, changed=changed)
    if plan.page:
        write(gathered.delete)


def _keep_index(repository: Repository, limits: Limits, plan: Plan, outcome: Outcome, media_type: str) -> None:
    """A document about all packages: a row for each, written where its records changed, under one that names them all and
    whose freshness counts for them. Addresses in it are relative to what the remote was given, not to where that led."""
    found, (packed, mark) = workshop.split_index(repository.format, outcome.body, url=plan.url, media_type=media_type)
    records = dict(found)
    changed: list[_Changed] = []
    held = Artifact.objects.filter(package__repository=repository, removed_revision=None)
    for package in sorted(set(held.values_list("package__name", flat=True)) & records.keys()):
        records_of, mark_of, altered = _with_what_is_held(repository, package, *records[package])
        records[package] = (records_of, mark_of)
        changed += altered
    if changed:
        marks = {name: one for name, (_, one) in records.items()}
        packed, mark = dump_names(marks, unpacked(packed, mark).changed_at)
    rows = UpstreamDocument.objects.filter(repository=repository, key__startswith=PART_KEYS)

    def write_parts() -> None:
        known = {key: row for key, *row in rows.values_list("key", "mark", "generation")}
        wanted = {document_key(ListingRef("versions", name)): one for name, one in records.items()}
        gone = sorted(known.keys() - wanted.keys())
        for start in range(0, len(gone), PARTS_AT_ONCE):
            rows.filter(key__in=gone[start : start + PARTS_AT_ONCE]).delete()
        new = [key for key, (_, one) in wanted.items() if known.get(key) != [one, limits.generation]]
        for start in range(0, len(new), PARTS_AT_ONCE):
            now = clock.now()
            batch = [
                UpstreamDocument(
                    repository=repository,
                    key=key,
                    generation=limits.generation,
                    url=plan.url,
                    records=wanted[key][0],
                    mark=wanted[key][1],
                    fetched_at=now,
                    checked_at=now,
                    fresh_until=now,
                )
                for key in new[start : start + PARTS_AT_ONCE]
            ]
            UpstreamDocument.objects.bulk_create(
                batch, update_conflicts=True, unique_fields=["repository", "key"], update_fields=_ALL
            )

    _save(repository, limits, plan, outcome, records=packed, mark=mark, changed=tuple(changed), beside=write_parts)


def _next_page(plan: Plan, outcome: Outcome) -> str:
    """The address of the page after this one, by its Link header (RFC 8288); "" after the last. Of the same origin."""
    for target, parameters in _LINK.findall(outcome.headers.get("link", "")):
        if _NEXT.search(parameters):
            url = urljoin(outcome.url or plan.url, target)
            if urlsplit(url)[:2] != urlsplit(plan.url)[:2]:
                raise UpstreamFailed("the upstream's next page is on another host")
            return url
    return ""


def _gather(repository: Repository, limits: Limits, plan: Plan, following: str, packed: bytes, mark: str) -> None:
    """Keep the pages so far; `etag` holds the number of the last one."""
    assert isinstance(plan.ref, ListingRef)
    now = clock.now()
    row = UpstreamDocument(
        repository=repository,
        key=pages_key(plan.ref),
        generation=limits.generation,
        url=following,
        etag=str(plan.page),
        records=packed,
        mark=mark,
        fetched_at=now,
        checked_at=now,
        fresh_until=now,
    )
    write(lambda: _put(row, _ALL))


# --- files that the upstream replaced --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Changed:
    """A file that is held here and that the upstream now lists with other bytes."""

    package: str
    path: str
    held: str
    listed: str

    def record(self, repository: Repository) -> None:
        """In the audit log and in the server's, once for each change."""
        subject = f"{self.package}/{self.path}"
        known = Event.objects.filter(kind="upstream:changed", repository=repository.key, subject=subject)
        if any(event.detail.get("listed") == self.listed for event in known.order_by("-pk")[:10]):
            return
        record(
            "upstream:changed",
            actor=ACTOR,
            repository=repository,
            subject=subject,
            allowed=False,
            held=self.held,
            listed=self.listed,
        )
        fields = {"repository": repository.key, "subject": subject, "held": self.held, "listed": self.listed}
        logger.warning("upstream_changed_a_file", extra={"fields": fields})


def _with_what_is_held(
    repository: Repository, package: str, packed: bytes, mark: str
) -> tuple[bytes, str, tuple[_Changed, ...]]:
    """The records with the digests and sizes of the files that are held here, which is what clients get, whatever the
    upstream says of them by now."""
    if not package:
        return packed, mark, ()
    rows = Artifact.objects.filter(
        package__repository=repository, package__name=package, removed_revision=None
    ).values_list("path", "blob_id", "blob__digest", "blob__size", "metadata")
    held = {path: (blob, size, {"sha256": digest}, metadata) for path, blob, digest, size, metadata in rows}
    if not held:
        return packed, mark, ()
    of_blob = {blob: digests for blob, _, digests, _ in held.values()}
    for blob, algorithm, value in BlobDigest.objects.filter(blob__in=of_blob).values_list("blob", "algorithm", "hex"):
        of_blob[blob][algorithm] = value
    listing = unpacked(packed, mark)
    changed: list[_Changed] = []

    def kept(file: ListedFile) -> ListedFile:
        if file.path not in held:
            return file
        _, size, digests, metadata = held[file.path]
        told = {name: value.lower() for name, value in file.digests.items()}
        common = told.keys() & digests.keys()
        if all(told[name] == digests[name] for name in common) and (file.size is None or common or file.size == size):
            return file
        listed = next((f"{name}:{told[name]}" for name in sorted(common)), f"{file.size} bytes")
        changed.append(_Changed(package, file.path, f"sha256:{digests['sha256']}", listed))
        return replace(file, digests=digests, size=size, metadata=metadata)

    def with_kept(entry: Entry) -> Entry:
        files = tuple(kept(file) for file in entry.files)
        return replace(entry, files=files) if files != entry.files else entry

    entries = tuple(with_kept(entry) for entry in listing.entries)
    if not changed:
        return packed, mark, ()
    packed, mark = dump_listing(replace(listing, entries=entries))
    return packed, mark, tuple(changed)


# --- versions --------------------------------------------------------------------------------------------------------


def _keep_tag(repository: Repository, limits: Limits, plan: Plan, outcome: Outcome) -> None:
    assert isinstance(plan.ref, TagRef)
    if plan.method == "HEAD":
        held = selectors.live_tagged(repository.pk, plan.ref.package, plan.ref.tag)
        if held is not None and handler_for(repository.format).told_version(outcome.headers) == held.name:
            _save(repository, limits, plan, replace(outcome, status=304))
        return
    _keep_version(repository, plan, outcome, tags=(plan.ref.tag,))
    _save(repository, limits, plan, outcome)


def _keep_version(repository: Repository, plan: Plan, outcome: Outcome, *, tags: tuple[str, ...]) -> None:
    assert isinstance(plan.ref, TagRef | VersionRef)
    handler = handler_for(repository.format)
    version = handler.parse_version(plan.ref, outcome.body, outcome.headers)
    algorithm = version.version.partition(":")[0]
    staged = store.stage(outcome.body, algorithms=() if algorithm == "sha256" else (algorithm,))
    publish(
        repository,
        ACTOR,
        ALL_ACTIONS,
        Publication(
            package=plan.ref.package,
            version=replace(version, document=staged),
            tags=tags,
            require_parts=False,
            origin=outcome.url or plan.url,
        ),
    )


# --- files -----------------------------------------------------------------------------------------------------------


def _keep_file(repository: Repository, limits: Limits, plan: Plan, outcome: Outcome) -> None:
    assert isinstance(plan.ref, FileRef)
    handler = handler_for(repository.format)
    if handler.file_changes(plan.ref):
        if not outcome.is_not_modified:
            _publish_file(repository, plan, outcome, None, "")
        _save(repository, limits, plan, outcome)
        return
    if outcome.size is None:
        raise UpstreamFailed("nothing in the upstream's answer says that it was complete; it was not kept")
    entry_name, listed = "", None
    if handler.is_listed:
        document = document_row(repository.pk, document_key(ListingRef("versions", plan.ref.package)))
        found = find_file(load_listing(document), plan.ref.path) if document is not None else None
        if found is None:
            raise Unavailable("the upstream's listing changed while the file arrived; try again", retry_after_seconds=1)
        entry_name, listed = found[0].name, found[1]
    _publish_file(repository, plan, outcome, listed, entry_name)


def _publish_file(
    repository: Repository, plan: Plan, outcome: Outcome, listed: ListedFile | None, version: str
) -> None:
    assert isinstance(plan.ref, FileRef)
    staged = outcome.staged
    assert isinstance(staged, Staged)
    handler = handler_for(repository.format)
    media_type = outcome.headers.get("content-type", "").partition(";")[0].strip()[:255]
    metadata: dict[str, object] = dict(listed.metadata) if listed is not None else {}
    metadata |= {name: value for name, value in staged.others.items() if name in handler.digests}
    version = version or handler.version_of(plan.ref)
    published_at = listed.published_at if listed is not None else None
    publish(
        repository,
        ACTOR,
        ALL_ACTIONS,
        Publication(
            package=plan.ref.package,
            files=(
                NewFile(
                    plan.ref.path,
                    staged,
                    media_type=media_type if not handler.is_listed else "",
                    metadata=metadata,
                    published_at=published_at,
                ),
            ),
            version=NewVersion(version, files=(plan.ref.path,), published_at=published_at) if version else None,
            may_replace=handler.file_changes(plan.ref),
            origin=outcome.url or plan.url,
        ),
    )
    outcome.staged = None
