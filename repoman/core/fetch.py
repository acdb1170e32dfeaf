"""What to ask of an upstream, as plain data. Made by a source, carried out by the edge or a worker, adopted by a service.

A source that lacks something raises `NeedFetch(plans)`. Whoever asked runs the plans (`repoman/transfer/`), has the
outcomes adopted (`services/adopt.py`), and asks the source again with the outcomes, failures among them. No source and
no format ever waits for a network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .errors import RepomanError
from .records import Staged
from .refs import FileRef, ListingRef, TagRef, VersionRef

Ref = FileRef | TagRef | VersionRef | ListingRef
DOCUMENT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """How a format asks an upstream for one thing: `path` is relative to the remote's `url` (already percent-encoded, no
    leading slash), or `url` is absolute (a file's address out of a listing)."""

    path: str = ""
    url: str = ""
    accept: str = ""
    is_document: bool = False  # small, read by us; otherwise bytes that are kept as they are
    limit: int = DOCUMENT_BYTES  # of a document


@dataclass(frozen=True, slots=True)
class Plan:
    """One request to an upstream. Two plans with the same `key` are the same fetch, in whatever process.

    `kind`: "listing", "tag", "version", "file", "digest" (what an upstream says beside a file that its digest is; read and
    not kept), or "probe" (a HEAD that keeps nothing). `digests` and `size`: what the body must have, and `begins` what it
    must begin with, checked before anything is kept; `algorithms` are hashed besides. `limit`: most bytes. `etag` and
    `last_modified`: the upstream's own validators of what is held. `is_document`: the body is kept in memory for the
    adopter, else staged in the store. `page`: of a listing that comes in several, which one this is, from 0.
    `is_awaited`: who asks needs all of a file, and is not handed what is still on its way. `beside`: of a digest, the key of
    the file that it is of.
    """

    repository_id: int
    key: str
    kind: str
    ref: Ref
    url: str
    method: str = "GET"
    accept: str = ""
    etag: str = ""
    last_modified: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)
    algorithms: tuple[str, ...] = ()
    begins: bytes = b""
    size: int | None = None
    limit: int | None = None
    is_document: bool = False
    page: int = 0
    is_awaited: bool = False
    beside: str = ""


@dataclass(slots=True)
class Outcome:
    """What became of a plan. `status` is the upstream's last one, 0 where it gave none.

    `error` is set where there is nothing to adopt: NotFound (the upstream says so), UpstreamFailed, UpstreamTimeout,
    Unavailable, QuotaExceeded. `is_arriving`: the headers are here and the body is on its way; `flight` is then what the
    edge reads it from.
    """

    plan: Plan
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case
    url: str = ""  # where the answer came from, after redirects
    body: bytes = b""
    staged: Staged | None = None
    error: RepomanError | None = None
    size: int | None = None
    is_arriving: bool = False
    flight: object = None

    @property
    def is_not_modified(self) -> bool:
        return self.status == 304


class NeedFetch(Exception):
    """Not an error: something has to be asked of an upstream first."""

    def __init__(self, plans: tuple[Plan, ...]) -> None:
        super().__init__(", ".join(plan.key for plan in plans))
        self.plans = plans
