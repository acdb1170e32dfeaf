"""The adoption door: what an upstream answered becomes rows. The one place where fetched content is taken over.

Called with the outcome of a plan, whatever it was, by the edge and by workers. Files and versions go through the publish
door as any other, in the name of the server; so quota, events and revisions are the same.
"""

from __future__ import annotations

import datetime
import random
import re
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import urljoin, urlsplit

from repoman.blobs import store
from repoman.catalog import selectors
from repoman.catalog.models import Repository
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
from repoman.core.records import ListedFile, NewFile, NewVersion, Publication, Staged
from repoman.core.refs import FileRef, ListingRef, TagRef, VersionRef
from repoman.sources import state
from repoman.sources.models import UpstreamDocument
from repoman.sources.records import joined, load_listing
from repoman.sources.remote import Limits, document_key, find_file, pages_key

from . import workshop
from .publish import publish
from .transactions import write

ACTOR = system_actor("upstream")
JITTER = 0.1
_LINK = re.compile(r"<([^<>]{1,2000})>([^,<]{0,500})")
_NEXT = re.compile(r";\s*rel\s*=\s*\"?[^\";]*\bnext\b")
_MAX_AGE = re.compile(r"(?:^|[,\s])(?:s-maxage|max-age)\s*=\s*\"?(\d{1,9})")


def adopt(plan: Plan, outcome: Outcome) -> None:
    """Take over what came, and remember what it says about the upstream. Sets `outcome.error` where it cannot be kept.

    Staged bytes that are not kept are discarded. Raises nothing but what the database raises.
    """
    repository = Repository.objects.select_related("namespace").filter(pk=plan.repository_id).first()
    if repository is None or repository.state == Repository.State.DELETING:
        _drop(outcome)
        outcome.error = RepositoryNotFound("the repository was deleted meanwhile")
        return
    limits = Limits.of(repository.remote)
    key = document_key(plan.ref)
    state.note(repository, outcome)
    if outcome.error is None and plan.kind != "probe":
        try:
            _keep(repository, limits, plan, outcome)
            state.note_present(repository.pk, limits.generation, key)
        except BadRequest as error:
            _drop(outcome)
            outcome.error = UpstreamFailed(f"the upstream's answer cannot be used: {error.message}")
        except RepomanError as error:
            _drop(outcome)
            outcome.error = error
    if isinstance(outcome.error, NotFound):
        state.note_absent(repository.pk, limits.generation, key, limits.negative_ttl)
        if plan.kind in ("listing", "tag"):
            _forget(repository, key)


def _drop(outcome: Outcome) -> None:
    if outcome.staged is not None:
        store.discard([outcome.staged.storage_key])
        outcome.staged = None


def _forget(repository: Repository, key: str) -> None:
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
) -> None:
    """The document's row as of now. A 304 leaves what it holds and makes it fresh again."""
    now = clock.now()
    key = document_key(plan.ref)
    changes: dict[str, object] = {"checked_at": now, "fresh_until": _until(limits, outcome.headers, now)}
    if not outcome.is_not_modified:
        changes |= {
            "url": outcome.url or plan.url,
            "etag": outcome.headers.get("etag", "")[:512],
            "last_modified": outcome.headers.get("last-modified", "")[:64],
            "fetched_at": now,
            "generation": limits.generation,
            "records": records,
            "mark": mark,
        }

    def block() -> None:
        UpstreamDocument.objects.update_or_create(
            repository=repository,
            key=key,
            defaults=changes,
            create_defaults={"fetched_at": now, "url": plan.url, "generation": limits.generation, **changes},
        )

    write(block)


def _keep_listing(repository: Repository, limits: Limits, plan: Plan, outcome: Outcome) -> None:
    assert isinstance(plan.ref, ListingRef)
    if outcome.is_not_modified:
        _save(repository, limits, plan, outcome)
        return
    media_type = outcome.headers.get("content-type", "")
    packed, mark = workshop.parse_listing(
        repository.format, plan.ref, outcome.body, url=outcome.url or plan.url, media_type=media_type
    )
    following = _next_page(plan, outcome)
    gathered = UpstreamDocument.objects.filter(repository=repository, key=pages_key(plan.ref))
    if plan.page:
        row = gathered.first()
        if row is None or row.etag != str(plan.page - 1):
            raise Unavailable("the pages of the listing were asked for twice at the same time", retry_after_seconds=1)
        packed, mark = joined(row, packed)
    if following:
        _gather(repository, limits, plan, following, packed, mark)
        return
    _save(repository, limits, plan, outcome, records=packed, mark=mark)
    if plan.page:
        write(gathered.delete)


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
    values = {
        "generation": limits.generation,
        "url": following,
        "etag": str(plan.page),
        "records": packed,
        "mark": mark,
        "fetched_at": now,
        "checked_at": now,
        "fresh_until": now,
    }
    key = pages_key(plan.ref)
    write(lambda: UpstreamDocument.objects.update_or_create(repository=repository, key=key, defaults=values))


# --- versions --------------------------------------------------------------------------------------------------------


def _keep_tag(repository: Repository, limits: Limits, plan: Plan, outcome: Outcome) -> None:
    assert isinstance(plan.ref, TagRef)
    if plan.method == "HEAD":
        held = selectors.live_tagged(repository.pk, plan.ref.package, plan.ref.tag)
        told = outcome.headers.get("docker-content-digest", "")
        if held is not None and told == held.name:
            _save(repository, limits, plan, replace(outcome, status=304))
        return
    _keep_version(repository, plan, outcome, tags=(plan.ref.tag,))
    _save(repository, limits, plan, outcome)


def _keep_version(repository: Repository, plan: Plan, outcome: Outcome, *, tags: tuple[str, ...]) -> None:
    assert isinstance(plan.ref, TagRef | VersionRef)
    handler = handler_for(repository.format)
    version = handler.parse_version(plan.ref, outcome.body, outcome.headers.get("content-type", ""))
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
    if handler.files_change:
        if not outcome.is_not_modified:
            _publish_file(repository, plan, outcome, None, "")
        _save(repository, limits, plan, outcome)
        return
    entry_name, listed = "", None
    if handler.is_listed:
        about = document_key(ListingRef("versions", plan.ref.package))
        document = UpstreamDocument.objects.filter(repository=repository, key=about).first()
        found = find_file(load_listing(document), plan.ref.path) if document is not None else None
        if found is not None:
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
            may_replace=handler.files_change,
            origin=outcome.url or plan.url,
        ),
    )
    outcome.staged = None
