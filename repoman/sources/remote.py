"""Content of an upstream: what is held here, and plans for what is not.

Freshness follows RFC 9111 with the remote's own limits: a document is *fresh* for `metadata_ttl` (less where the upstream
says so), then asked for again with its validators, and served *stale* for `stale_for` more while the upstream fails. Files
are fixed: once held they are never asked for again, except where what is under a path changes (`file_changes`).

Only "not there", said by the upstream, is remembered as such, for `negative_ttl`, in this process's memory: anybody can
ask for any number of names. Everything else that goes wrong is an error, never a 404.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from urllib.parse import urljoin, urlsplit

from repoman.catalog import selectors
from repoman.catalog.models import Artifact, Repository, Version
from repoman.core import clock
from repoman.core.digest import HEX_LENGTH, Digest, find_hex
from repoman.core.errors import (
    FileNotFound,
    NotFound,
    PackageNotFound,
    RepomanError,
    Unavailable,
    UpstreamFailed,
    VersionNotFound,
)
from repoman.core.fetch import NeedFetch, Outcome, Plan, Ref, UpstreamRequest
from repoman.core.format import FormatHandler, handler_for
from repoman.core.records import BlobRef, Entry, FileEntry, Freshness, ListedFile, Listing, VersionEntry
from repoman.core.refs import FileRef, ListingRef, TagRef, VersionRef
from repoman.db.prepared import Prepared

from . import state
from .base import Asked, Parts, Source, digest_of
from .models import UpstreamDocument
from .records import load_listing, load_marked, weaker

RECHECK_SECONDS = 10  # a listing that lacks a file somebody asks for by name is asked again if it is older than this
KEY_CHARACTERS = 600
MOST_PAGES = 200
FIXED = Freshness("hit")  # of what never changes once it is held


@dataclass(frozen=True, slots=True)
class Limits:
    """A remote's own settings (DECISIONS: `remote`), all times in seconds."""

    url: str
    metadata_ttl: int = 300
    negative_ttl: int = 60
    stale_for: int = 604_800
    offline: bool = False
    generation: int = 0

    @classmethod
    def of(cls, remote: Mapping[str, Any] | None) -> Limits:
        given = dict(remote or {})
        known = {name: given[name] for name in cls.__dataclass_fields__ if given.get(name) is not None}
        return cls(**known)


def document_key(ref: Ref) -> str:
    """The name under which an UpstreamDocument keeps what it says of `ref`."""
    match ref:
        case ListingRef(kind, package):
            text = f"{kind}:{package}" + "".join(f"|{name}={value}" for name, value in ref.about)
        case TagRef(package, tag):
            text = f"tag:{package}:{tag}"
        case VersionRef(package, version):
            text = f"version:{package}:{version}"
        case FileRef(package, path):
            text = f"file:{package}:{path}"
    if len(text) > KEY_CHARACTERS:
        text = f"{text[: KEY_CHARACTERS - 72]}#{Digest.of(text.encode()).hex}"
    return text


def plan_key(repository_id: int, generation: int, method: str, ref: Ref) -> str:
    return f"{repository_id}.{generation}:{method}:{document_key(ref)}"


def generation_of(plan: Plan) -> int:
    """Under which settings of the remote the plan was made."""
    return int(plan.key.partition(":")[0].partition(".")[2])


_document_row = Prepared(
    lambda repository_id, key: UpstreamDocument.objects.defer("records").filter(repository_id=repository_id, key=key)
)


def document_row(repository_id: int, key: str) -> UpstreamDocument | None:
    """The row of that name without its records, which are large and mostly not needed."""
    return _document_row.first(repository_id, key)


def pages_key(ref: ListingRef) -> str:
    """Where the pages of a listing are gathered until the last one has come."""
    return document_key(ref) + "#pages"


class RemoteSource(Source):
    def __init__(self, repository: Repository, asked: Asked) -> None:
        self._repository = repository
        self._asked = asked
        self._handler = handler_for(repository.format)
        self._limits = Limits.of(repository.remote)
        self._rows: dict[str, UpstreamDocument | None] = {}  # a source lives for one look, between two fetches

    @cached_property
    def _options(self) -> Any:
        return self._handler.parse_options(self._repository.options)

    # --- files -------------------------------------------------------------------------------------------------------

    def open(self, ref: FileRef) -> FileEntry:
        return self._open(ref)

    def _open(self, ref: FileRef, *, is_awaited: bool = False) -> FileEntry:
        row = _held_file(self._repository.pk, ref)
        is_held = row is not None
        if row is not None:
            if not self._handler.file_changes(ref):
                self._asked.served = FIXED if self._answered(ref) is None else Freshness("miss")
                return selectors.file_entry(row)
            document = self._row(document_key(ref))
            if document is not None and document.fresh_until > clock.now():
                self._asked.served = self._fetched(ref, self._answered(ref))
                return selectors.file_entry(row)
        listed = self._listed(ref) if self._handler.is_listed else None
        try:
            plan = replace(self._file_plan(ref, listed, is_held=is_held), is_awaited=is_awaited)
        except RepomanError as error:  # of what says the file's digest
            if row is None or isinstance(error, NotFound) or (stale := self._stale(document_key(ref))) is None:
                raise
            self._asked.served = stale
            return selectors.file_entry(row)
        outcome = self._asked.outcomes.get(plan.key)
        if outcome is None:
            if self._asked.is_head and listed is not None and listed.size is not None:
                return self._arriving(ref, plan, listed.size, listed)
            trouble = self._trouble(document_key(ref))
            if trouble is None:
                raise NeedFetch((plan,))
        elif outcome.error is None:
            if outcome.is_arriving or plan.kind == "probe":
                return self._arriving(ref, plan, -1 if outcome.size is None else outcome.size, listed)
            kept = selectors.live_artifact(self._repository.pk, ref.package, ref.path)
            if kept is not None:
                self._asked.served = self._fetched(ref, outcome)
                return selectors.file_entry(kept)
            raise UpstreamFailed(f"'{ref.path}' was fetched but could not be kept")
        else:
            trouble = outcome.error
        if isinstance(trouble, NotFound):
            raise FileNotFound(f"{self._repository.key} has no file '{ref.path}': {trouble.message}")
        if row is not None and (stale := self._stale(document_key(ref))) is not None:
            self._asked.served = stale
            return selectors.file_entry(row)
        raise trouble

    def _answered(self, ref: Ref) -> Outcome | None:
        """What the upstream sent in this request already, if it was asked."""
        return self._asked.outcomes.get(plan_key(self._repository.pk, self._limits.generation, "GET", ref))

    def _fetched(self, ref: Ref, outcome: Outcome | None) -> Freshness:
        """Of what is held and current, whether it came in this request or before."""
        document = self._row(document_key(ref))
        status = "hit" if outcome is None or outcome.is_not_modified else "miss"
        return _freshness(document, status) if document is not None else Freshness(status)

    def _listed(self, ref: FileRef) -> ListedFile:
        """The file as the upstream's listing names it. Raises FileNotFound, and as `listing`."""
        about = ListingRef("versions", ref.package)
        try:
            found = find_file(load_listing(self._document(about)[0]), ref.path)
        except PackageNotFound:
            found = None
            if self._row(document_key(self._told_in(about))) is None:
                raise
        if found is not None:
            return found[1]
        source = self._told_in(about)
        document = self._row(document_key(source))
        assert document is not None
        plan = self._listing_plan(source, document)
        if (clock.now() - document.checked_at).total_seconds() > RECHECK_SECONDS:
            outcome = self._asked.outcomes.get(plan.key)
            trouble = outcome.error if outcome is not None else self._trouble(document_key(source))
            if outcome is None and trouble is None:
                raise NeedFetch((plan,))
            if trouble is not None and not isinstance(trouble, NotFound):
                raise trouble  # an upstream that does not answer has not said that it lacks the file
        raise FileNotFound(f"{self._repository.key} has no file '{ref.path}'")

    def _file_plan(self, ref: FileRef, listed: ListedFile | None, *, is_held: bool) -> Plan:
        if listed is not None:
            request = UpstreamRequest(url=listed.url)
        else:
            request = self._handler.upstream(ref, self._options)
        document = self._row(document_key(ref)) if is_held and self._handler.file_changes(ref) else None
        digests = dict(listed.digests) if listed is not None else {}
        algorithm, _, encoded = ref.path.partition(":")
        if not digests and self._handler.version_by_digest and len(encoded) == HEX_LENGTH.get(algorithm):
            digests = {algorithm: encoded}
        is_probe = self._asked.is_head and not is_held
        if not digests and not is_probe:
            digests = self._told_digest(ref, held=document)
        return self._plan(
            "probe" if is_probe else "file",
            ref,
            request,
            method="HEAD" if is_probe else "GET",
            digests=digests,
            algorithms=self._handler.digests,
            begins=self._handler.begins_with(ref) if not digests else b"",
            size=listed.size if listed is not None else None,
            etag=document.etag if document is not None else "",
            last_modified=document.last_modified if document is not None else "",
        )

    def _told_digest(
        self, file: FileRef, algorithm: str = "", *, held: UpstreamDocument | None = None
    ) -> dict[str, str]:
        """What the upstream says beside a file that its digest is; nothing where it says nothing that could be read.
        `held`: of the file itself, where a copy of it is held: then it is not waited for again and again either."""
        where = self._handler.digest_file(file, algorithm)
        if where is None:
            return {}
        algorithm, ref = where
        beside = plan_key(self._repository.pk, self._limits.generation, "GET", file)
        plan = self._plan("digest", ref, self._handler.upstream(ref, self._options), beside=beside)
        outcome = self._asked.outcomes.get(plan.key)
        trouble = outcome.error if outcome is not None else self._trouble(document_key(ref))
        if outcome is None and trouble is None and held is not None:
            key = document_key(ref)
            trouble = state.failed_lately(self._repository.pk, self._limits.generation, key, held.checked_at)
        if isinstance(trouble, NotFound):
            return {}
        if trouble is not None:
            raise trouble
        if outcome is None:
            raise NeedFetch((plan,))
        told = find_hex(outcome.body.decode("latin-1"), algorithm)
        return {algorithm: told} if told else {}

    def digest(self, ref: FileRef, algorithm: str) -> str:
        """Of the bytes that are served: the upstream is asked for it only where none are held. What is past its time is
        asked for anew as by `open`, except just after that: then it is of the file that its reader has just got."""
        row = _held_file(self._repository.pk, ref)
        if row is None:
            told = self._told_digest(ref, algorithm)
            if told:
                return told[algorithm]
            raise FileNotFound(f"{self._repository.key} does not know the {algorithm} of '{ref.path}'")
        if not self._handler.file_changes(ref):
            self._asked.served = FIXED
            return digest_of(selectors.file_entry(row), algorithm)
        document = self._row(document_key(ref))
        if document is not None and (clock.now() - document.checked_at).total_seconds() <= RECHECK_SECONDS:
            self._asked.served = self._fetched(ref, self._answered(ref))
            return digest_of(selectors.file_entry(row), algorithm)
        return digest_of(self._open(ref, is_awaited=True), algorithm)

    def _arriving(self, ref: FileRef, plan: Plan, size: int, listed: ListedFile | None) -> FileEntry:
        """A file that is on its way: what can be said of it before its bytes are here."""
        metadata = dict(listed.metadata) if listed is not None else {}
        metadata |= {name: value for name, value in plan.digests.items() if name in self._handler.digests}
        hex_digest = plan.digests.get("sha256", "")
        now = clock.now()
        self._asked.served = Freshness("miss")
        blob = BlobRef(Digest.sha256(hex_digest), size, "", "", flight=plan.key)
        published = listed.published_at if listed is not None and listed.published_at is not None else now
        return FileEntry(ref.package, ref.path, blob, created_at=published, touched_at=now, metadata=metadata)

    def first_of(self, refs: Sequence[FileRef]) -> FileRef | None:
        for ref in refs:
            try:
                listed = self.listing(ListingRef("versions", ref.package))
            except PackageNotFound:
                continue
            if find_file(listed, ref.path) is not None:
                return ref
        return next((ref for ref in refs if _held_file(self._repository.pk, ref) is not None), None)

    # --- versions and tags -------------------------------------------------------------------------------------------

    def resolve(self, ref: TagRef | VersionRef) -> VersionEntry:
        if isinstance(ref, VersionRef):
            return self._version(ref)
        held = selectors.live_tagged(self._repository.pk, ref.package, ref.tag)
        document = self._row(document_key(ref))
        if held is not None and document is not None and document.fresh_until > clock.now():
            self._asked.served = self._fetched(ref, self._answered(ref))
            return selectors.version_entry(held)
        request = self._handler.upstream(ref, self._options)
        trouble = self._trouble(document_key(ref))
        ask_first = self._plan("tag", ref, request, method="HEAD") if held is not None else None
        fetch = self._plan("tag", ref, request)
        for plan in (ask_first, fetch):
            if plan is None:
                continue
            outcome = self._asked.outcomes.get(plan.key)
            if outcome is None:
                if trouble is None:
                    raise NeedFetch((plan,))
                break
            trouble = outcome.error
            if trouble is not None:
                break
            held = selectors.live_tagged(self._repository.pk, ref.package, ref.tag)
            document = self._row(document_key(ref))
            if held is not None and document is not None and self._is_answered(plan, outcome, held.name):
                self._asked.served = _freshness(document, "hit" if plan.method == "HEAD" else "miss")
                return selectors.version_entry(held)
        if isinstance(trouble, NotFound):
            raise VersionNotFound(f"{self._repository.key}/{ref.package} has no '{ref.tag}': {trouble.message}")
        if held is not None and (stale := self._stale(document_key(ref))) is not None:
            self._asked.served = stale
            return selectors.version_entry(held)
        raise trouble or UpstreamFailed(f"'{ref.package}:{ref.tag}' was fetched but could not be kept")

    def _is_answered(self, plan: Plan, outcome: Outcome, version: str) -> bool:
        """Whether that version is what the upstream has just said that the tag is."""
        return plan.method != "HEAD" or self._handler.told_version(outcome.headers) == version

    def _version(self, ref: VersionRef) -> VersionEntry:
        row = _held_version(self._repository.pk, ref)
        if row is not None:
            self._asked.served = FIXED
            return selectors.version_entry(row)
        algorithm, _, encoded = ref.version.partition(":")
        plan = self._plan("version", ref, self._handler.upstream(ref, self._options), digests={algorithm: encoded})
        outcome = self._asked.outcomes.get(plan.key)
        trouble = outcome.error if outcome is not None else self._trouble(document_key(ref))
        if trouble is None and outcome is None:
            raise NeedFetch((plan,))
        if isinstance(trouble, NotFound):
            raise VersionNotFound(f"{self._repository.key}/{ref.package} has no '{ref.version}': {trouble.message}")
        if trouble is not None:
            raise trouble
        row = selectors.live_version(self._repository.pk, ref.package, ref.version)
        if row is None:
            raise UpstreamFailed(f"'{ref.package}@{ref.version}' was fetched but could not be kept")
        self._asked.served = Freshness("miss")
        return selectors.version_entry(row)

    # --- listings ----------------------------------------------------------------------------------------------------

    def listing(self, ref: ListingRef) -> Listing:
        whole = whole_of(ref)
        document, freshness = self._document(whole)
        found = self._taken(ref, load_listing(document))
        self._asked.listed = weaker(self._asked.listed, freshness)
        return replace(paged(found, ref), freshness=freshness)

    def _taken(self, ref: ListingRef, found: Listing) -> Listing:
        """Without the versions that the options exclude: they are not to be had here."""
        if not self._repository.options or ref.kind not in ("versions", "releases"):
            return found
        takes, options = self._handler.takes_version, self._options
        entries = tuple(entry for entry in found.entries if takes(entry.name, options))
        return found if len(entries) == len(found.entries) else replace(found, entries=entries)

    def mark(self, ref: ListingRef) -> str:
        document, freshness = self._document(whole_of(ref))
        self._asked.listed = weaker(self._asked.listed, freshness)
        options = json.dumps(self._repository.options, sort_keys=True) if self._repository.options else ""
        return f"u{self._repository.pk}.{document.mark}{options}"

    def freshness(self, ref: ListingRef) -> tuple[Freshness | None, tuple[str, ...]]:
        return self._document(whole_of(ref))[1], ()

    def parts(self, ref: ListingRef) -> Parts:
        document, freshness = self._document(whole_of(ref))
        self._asked.listed = weaker(self._asked.listed, freshness)
        found = load_listing(document)
        return Parts([(entry.name, f"u{entry.digest}") for entry in found.entries], self._read_part, found.changed_at)

    def _read_part(self, package: str) -> tuple[str, Listing]:
        row = self._row(document_key(ListingRef("versions", package)))
        if row is None:  # the upstream's index has changed meanwhile
            return "", Listing(())
        mark, found = load_marked(row)
        return f"u{mark}", found

    def _told_in(self, ref: ListingRef) -> ListingRef:
        """The document in which the upstream says what `ref` is about: itself, or that about all packages."""
        return ListingRef("packages") if self._handler.is_indexed and ref.kind == "versions" else ref

    def _document(self, ref: ListingRef) -> tuple[UpstreamDocument, Freshness]:
        """What the upstream says, as fresh as it has to be. Raises NeedFetch, PackageNotFound, Unavailable, Upstream…"""
        source = self._told_in(ref)
        if source != ref:
            _, freshness = self._document(source)
            part = self._row(document_key(ref))
            if part is None:
                raise PackageNotFound(f"{self._repository.key} has no '{ref.package}'")
            return part, freshness
        row = self._row(document_key(ref))
        plan = self._listing_plan(ref, row)
        outcome = self._asked.outcomes.get(plan.key)
        if outcome is None:
            if row is not None and row.fresh_until > clock.now():
                return row, _freshness(row, "hit")
            trouble = self._trouble(document_key(ref))
            if trouble is None:
                raise NeedFetch((plan,))
        else:
            if outcome.error is None:
                outcome = self._whole(ref, plan)
            if outcome.error is None and row is not None:
                return row, _freshness(row, "hit" if outcome.is_not_modified else "miss")
            trouble = outcome.error
        # A package that is gone is gone; an upstream whose index is gone has lost more than somebody took away.
        may_be_stale = self._handler.is_index(ref) or not isinstance(trouble, NotFound)
        if row is not None and may_be_stale and (stale := self._stale(document_key(ref))) is not None:
            return row, stale
        if isinstance(trouble, NotFound):
            about = f"'{ref.package}'" if ref.package else "index"
            raise PackageNotFound(f"{self._repository.key} has no {about}: {trouble.message}")
        raise trouble or UpstreamFailed(f"what the upstream says of '{ref.package}' was read but could not be kept")

    def _whole(self, ref: ListingRef, plan: Plan) -> Outcome:
        """The outcome of the last page of a listing whose first has come. Raises NeedFetch for the one after it."""
        outcome = self._asked.outcomes[plan.key]
        for number in range(1, MOST_PAGES):
            pages = self._row(pages_key(ref))
            if pages is None:
                return outcome
            following = replace(plan, key=f"{plan.key}#{number}", url=pages.url, etag="", last_modified="", page=number)
            found = self._asked.outcomes.get(following.key)
            if found is None:
                raise NeedFetch((following,))
            if found.error is not None:
                return found
            outcome = found
        raise UpstreamFailed(f"the upstream has more than {MOST_PAGES} pages of '{ref.package}'")

    def _listing_plan(self, ref: ListingRef, row: UpstreamDocument | None) -> Plan:
        return self._plan(
            "listing",
            ref,
            self._handler.upstream(ref, self._options),
            etag=row.etag if row is not None else "",
            last_modified=row.last_modified if row is not None else "",
        )

    # --- plans and trouble -------------------------------------------------------------------------------------------

    def _plan(self, kind: str, ref: Ref, request: UpstreamRequest, *, method: str = "GET", **more: Any) -> Plan:
        url = request.url or join(self._handler.upstream_base(self._limits.url), request.path)
        is_document = kind in ("listing", "tag", "version", "digest") and method == "GET"
        return Plan(
            repository_id=self._repository.pk,
            key=plan_key(self._repository.pk, self._limits.generation, method, ref),
            kind=kind,
            ref=ref,
            url=url,
            method=method,
            accept=request.accept,
            is_document=is_document,
            limit=request.limit if is_document else None,
            **more,
        )

    def known(self, ref: ListingRef) -> Listing | None:
        """What is held of a listing, fresh or not."""
        row = self._row(document_key(whole_of(ref)))
        return load_listing(row) if row is not None and row.mark else None

    def _row(self, key: str) -> UpstreamDocument | None:
        if key not in self._rows:
            row = document_row(self._repository.pk, key)
            is_ours = row is not None and row.generation == self._limits.generation
            self._rows[key] = row if is_ours else None
        return self._rows[key]

    def _stale(self, key: str) -> Freshness | None:
        """What is to be said of what is held if it may still be served although its time is over; None: it may not."""
        row = self._row(key)
        if row is None:
            return None
        if self._limits.offline:
            return _freshness(row, "stale", "offline")
        if row.fresh_until + datetime.timedelta(seconds=self._limits.stale_for) > clock.now():
            return _freshness(row, "stale", "stale-if-error")
        return None

    def _trouble(self, key: str) -> RepomanError | None:
        """Why the upstream is not to be asked now; None: it may be. Who holds a stale copy is not made to wait again and
        again for an upstream that has just failed to answer."""
        if state.is_known_absent(self._repository.pk, self._limits.generation, key):
            return NotFound("the upstream does not have it (remembered)")
        row = self._row(key)
        if row is not None and self._stale(key) is not None:
            failed = state.failed_lately(self._repository.pk, self._limits.generation, key, row.checked_at)
            if failed is not None:
                return failed
        if self._limits.offline:
            return Unavailable(
                f"the remote repository '{self._repository.key}' is set offline and does not hold this",
                retry_after_seconds=60,
            )
        return None

    def explain(self, ref: FileRef | TagRef | VersionRef | ListingRef) -> list[dict[str, object]]:
        line: dict[str, object] = {"repository": self._repository.key, "type": "remote", "url": self._limits.url}
        about: Ref = whole_of(ref) if isinstance(ref, ListingRef) else ref
        if isinstance(ref, FileRef):
            held = selectors.live_artifact(self._repository.pk, ref.package, ref.path) is not None
            if self._handler.is_listed:
                about = ListingRef("versions", ref.package)
        elif isinstance(ref, TagRef):
            held = selectors.live_tagged(self._repository.pk, ref.package, ref.tag) is not None
        elif isinstance(ref, VersionRef):
            held = selectors.live_version(self._repository.pk, ref.package, ref.version) is not None
        else:
            held = self._row(document_key(about)) is not None
        source = self._told_in(about) if isinstance(about, ListingRef) else about
        row = self._row(document_key(source))
        if row is not None:
            ttl = int((row.fresh_until - clock.now()).total_seconds())
            line["document"] = {"checked_at": row.checked_at.isoformat(), "ttl": ttl}
            if isinstance(ref, FileRef) and isinstance(about, ListingRef):
                known = self.known(about)
                line["listed"] = known is not None and find_file(known, ref.path) is not None
        trouble = self._trouble(document_key(source))
        if trouble is not None:
            line["trouble"] = trouble.message
        if held:
            line["outcome"] = "holds it"
        elif isinstance(trouble, NotFound) or line.get("listed") is False:
            line["outcome"] = "does not have it"
        else:
            line["outcome"] = "would be asked" if trouble is None else "cannot be asked"
        return [line]


def is_here(plan: Plan, handler: FormatHandler) -> bool:
    """Whether what the plan is about is held by now and would be served without asking: as in the source, so that whoever
    looks again does not come back."""
    ref, repository_id = plan.ref, plan.repository_id
    if plan.kind in ("probe", "digest") or plan.page:
        return False
    if isinstance(ref, VersionRef):
        return _held_version(repository_id, ref) is not None
    if isinstance(ref, FileRef):
        if _held_file(repository_id, ref) is None:
            return False
        if not handler.file_changes(ref):
            return True
    elif isinstance(ref, TagRef) and selectors.live_tagged(repository_id, ref.package, ref.tag) is None:
        return False
    document = document_row(repository_id, document_key(ref))
    now = clock.now()
    if document is None or document.generation != generation_of(plan) or document.fresh_until <= now:
        return False
    is_recent = (now - document.checked_at).total_seconds() <= RECHECK_SECONDS
    return is_recent or not isinstance(ref, ListingRef)


# --- parts -----------------------------------------------------------------------------------------------------------


def _held_file(repository_id: int, ref: FileRef) -> Artifact | None:
    """The row of a file whose bytes are here, as far as is known."""
    row = selectors.live_artifact(repository_id, ref.package, ref.path)
    return row if row is not None and row.blob.state == row.blob.State.PRESENT else None


def _held_version(repository_id: int, ref: VersionRef) -> Version | None:
    """The row of a version whose bytes, if it has any, are here as far as is known."""
    row = selectors.live_version(repository_id, ref.package, ref.version)
    return row if row is not None and (row.blob is None or row.blob.state == row.blob.State.PRESENT) else None


def join(base: str, path: str) -> str:
    """`path` below `base`. Raises UpstreamFailed for a path that would leave it."""
    root = base if base.endswith("/") else base + "/"
    url = urljoin(root, path) if not path.startswith("/") else root + path.lstrip("/")
    ours, found = urlsplit(root), urlsplit(url)
    if (ours.scheme, ours.netloc) != (found.scheme, found.netloc):
        raise UpstreamFailed("the address would leave the upstream")
    return url


def whole_of(ref: ListingRef) -> ListingRef:
    """The listing without page and filters: an upstream is asked for all of it once."""
    return ListingRef(ref.kind, ref.package, arguments=ref.about)


def paged(found: Listing, ref: ListingRef) -> Listing:
    """What `ref` asks for out of the whole: filters, then the page."""
    q = ref.argument("q").lower()
    types = {value for name, value in ref.arguments if name == "artifactType"}
    entries = found.entries
    if q:
        entries = tuple(entry for entry in entries if q in entry.name.lower())
    if types:
        entries = tuple(entry for entry in entries if entry.artifact_type in types)
    if ref.after or ref.limit is not None or q or types:
        if ref.kind != "versions":
            entries = tuple(sorted(entries, key=lambda entry: entry.name.encode()))
        if ref.after:
            entries = tuple(entry for entry in entries if entry.name.encode() > ref.after.encode())
        more = ref.limit is not None and len(entries) > ref.limit
        return replace(found, entries=entries if ref.limit is None else entries[: ref.limit], more=more)
    return found


def find_file(listing: Listing, path: str) -> tuple[Entry, ListedFile] | None:
    for entry in listing.entries:
        for file in entry.files:
            if file.path == path:
                return entry, file
    return None


def _freshness(row: UpstreamDocument, status: str, detail: str = "") -> Freshness:
    now = clock.now()
    return Freshness(
        status=status,
        ttl=math.floor((row.fresh_until - now).total_seconds()),
        age=max(0, int((now - row.checked_at).total_seconds())),
        detail=detail,
    )
