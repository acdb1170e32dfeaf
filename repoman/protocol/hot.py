"""The short cut for reads of one stored object: no thread, no ORM, at most one look-up, and the same answer as the long

way, which it leaves everything to that is not plainly allowed and there.

Credentials and what they allow are remembered from the long way, "allowed" only, and hold while the access epoch that
was read before they were judged still stands: it comes with the object in the same query, so a revocation counts at
once, in every process. What a name means is looked up every time, so an acknowledged write is visible everywhere.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import json
import mmap
import os
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from repoman.core.actor import Action, Actor
from repoman.core.clock import monotonic
from repoman.core.digest import Digest
from repoman.core.records import BlobRef, Rendered
from repoman.ops.logs import logger

from .exchange import head_of
from .serve import Pairs, blob_headers
from .small import Bounded, Recent
from .target import Target

RETRY_SECONDS = 1.0
MOST_ALLOWED = 4096
DOCUMENT_BYTES = 32 * 1024 * 1024
LARGEST_DOCUMENT = 256 * 1024
LARGEST_PACKED = 16 * 1024 * 1024  # the same bytes that `services/rendered.py` holds
LONGEST_KEY = 512
_FOREVER = float("inf")


# --- who, and what they may do ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class Known:
    """Credentials that were verified under `epoch`. `allowed` holds (repository id, action, scope) that were granted."""

    actor: Actor
    epoch: int
    valid_until: float
    allowed: set[tuple[int, Action, str]] = field(default_factory=set)

    def allow(self, repository_id: int, action: Action, scope: str) -> None:
        """Remember that a check passed. Only a registry token's outcome depends on the scope."""
        if len(self.allowed) >= MOST_ALLOWED:
            self.allowed.clear()
        self.allowed.add((repository_id, action, scope if self.actor.scopes is not None else ""))


class Credentials:
    """Verified Authorization headers, by a keyed hash: the header itself is not kept. From the loop's thread only."""

    def __init__(self, limit: int = 8192) -> None:
        self._key = os.urandom(32)
        self._known: Recent[bytes, Known] = Recent(limit)

    def find(self, authorization: bytes) -> Known | None:
        """None if they were never verified, or are no longer good by the clock."""
        known = self._known.get(hashlib.blake2b(authorization, digest_size=16, key=self._key).digest())
        if known is None or known.valid_until <= time.time():
            return None
        return known

    def remember(self, authorization: bytes, known: Known) -> None:
        self._known.put(hashlib.blake2b(authorization, digest_size=16, key=self._key).digest(), known)

    def forget(self, authorization: bytes) -> None:
        self._known.drop(hashlib.blake2b(authorization, digest_size=16, key=self._key).digest())


# --- what a name means -----------------------------------------------------------------------------------------------

# epoch, repository id, anonymous_read, then what the answer is made of.
_SELECT = """
SELECT (SELECT value FROM access_accessepoch WHERE id = 1), r.id, r.anonymous_read,
       o.id, {name}, o.media_type, {metadata}, {options}, o.first_seen_at, b.digest, b.size, b.storage_key, b.stamp
  FROM catalog_repository r
  JOIN catalog_package p ON p.repository_id = r.id AND p.name = {mark}
  {join}
  JOIN blobs_blob b ON b.id = o.blob_id AND b.state = 'present'
 WHERE r.key = {mark} AND r.format = {mark} AND r.type = 'local' AND r.state = 'active' AND o.gate_state = 'open'
"""
_JOINS = {
    "tag": (
        "o.name",
        "JOIN catalog_tag t ON t.package_id = p.id AND t.name = {mark} AND t.removed_revision IS NULL"
        " JOIN catalog_version o ON o.id = t.version_id",
    ),
    "version": (
        "o.name",
        "JOIN catalog_version o ON o.package_id = p.id AND o.name = {mark} AND o.removed_revision IS NULL",
    ),
    "file": (
        "o.path",
        "JOIN catalog_artifact o ON o.package_id = p.id AND o.path = {mark} AND o.removed_revision IS NULL",
    ),
}


# epoch, repository id, anonymous_read, revision, options
_REPOSITORY = """
SELECT (SELECT value FROM access_accessepoch WHERE id = 1), r.id, r.anonymous_read, r.revision, {options}
  FROM catalog_repository r
 WHERE r.key = {mark} AND r.format = {mark} AND r.type = 'local' AND r.state = 'active'
"""


def _statements(mark: str, as_text: str = "") -> dict[str, str]:
    metadata, options = f"o.metadata{as_text}", f"r.options{as_text}"
    found = {
        kind: _SELECT.format(name=name, join=join.format(mark=mark), mark=mark, metadata=metadata, options=options)
        for kind, (name, join) in _JOINS.items()
    }
    found["repository"] = _REPOSITORY.format(mark=mark, options=options)
    return {kind: " ".join(text.split()) for kind, text in found.items()}


Row = tuple[Any, ...]


class WalHeader:
    """The header of SQLite's WAL index, which every commit changes (sqlite.org/walformat.html, "WAL-Index Header").

    While these 48 bytes stand still, so does all that a query could see: they hold the last valid frame, the checksum
    over all frames up to it, and the salts of the log. Reading them from shared memory costs a fraction of a query.

    The file is opened once per process and never closed, on purpose: POSIX drops a process's locks on a file when any
    of its descriptors for it is closed, and those locks are SQLite's.
    """

    SIZE = 48

    def __init__(self, path: str) -> None:
        self._path = path
        self._map: mmap.mmap | None = None
        self._descriptor: int | None = None

    def read(self) -> bytes | None:
        """The header; None where there is none to be read. Only meaningful while a connection of ours is open."""
        if self._map is None:
            return None
        return self._map[: self.SIZE]

    def open(self) -> None:
        """To be called once our own connection has read something: the file is there then, and stays."""
        if self._descriptor is not None:
            return
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            self._map = mmap.mmap(self._descriptor, 4096, prot=mmap.PROT_READ)
        except (OSError, ValueError):
            self._map = None


class SqliteLookup:
    """Point look-ups on the loop's own connection, which only reads. A failure leaves the request to the long way."""

    is_inline = True

    def __init__(self, path: str) -> None:
        self._path = path
        self._statements = _statements("?")
        self._connection: sqlite3.Connection | None = None
        self._cursor: sqlite3.Cursor | None = None
        self._retry_at = 0.0
        self._header = WalHeader(f"{path}-shm")

    def version(self) -> bytes | None:
        """While it stays the same, `find` finds the same. None: it cannot be told."""
        if self._cursor is None:
            return None
        return self._header.read()

    def find(self, target: Target) -> Row | None:
        """The live row that the target's path names, or the repository's; None: there is none to be had this way."""
        cursor = self._cursor
        if cursor is None:
            cursor = self._open()
            if cursor is None:
                return None
        try:
            # fetchall also ends the statement: an open one would hold back the checkpoint.
            rows = cursor.execute(self._statements[target.lookup_kind], target.lookup_names).fetchall()
        except sqlite3.Error as error:
            self.close()
            self._retry_at = monotonic() + RETRY_SECONDS
            logger.warning("short_cut_failed", extra={"fields": {"error": str(error)}})
            return None
        return rows[0] if rows else None

    def _open(self) -> sqlite3.Cursor | None:
        if monotonic() < self._retry_at:
            return None
        try:
            self._connection = sqlite3.connect(
                f"file:{_quoted(self._path)}?mode=ro",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=0,
            )
            self._cursor = self._connection.cursor()
            self._cursor.execute("PRAGMA query_only = ON")
            self._cursor.execute("SELECT COUNT(*) FROM access_accessepoch").fetchall()
            self._header.open()
        except sqlite3.Error:
            self.close()
            self._retry_at = monotonic() + RETRY_SECONDS
            return None
        return self._cursor

    def close(self) -> None:
        connection, self._connection, self._cursor = self._connection, None, None
        if connection is not None:
            connection.close()


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


class PostgresqlLookup:
    """The same in one round trip on a few connections of the loop's own, with prepared statements."""

    is_inline = False
    MOST = 6

    def version(self) -> bytes | None:
        """Another node may write at any moment: nothing but asking tells."""
        return None

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._parameters = {
            "dbname": settings["NAME"],
            "user": settings["USER"] or None,
            "password": settings["PASSWORD"] or None,
            "host": settings["HOST"] or None,
            "port": settings["PORT"] or None,
            "application_name": "repoman-reads",
            "connect_timeout": 3,
            "options": "-c statement_timeout=5s -c default_transaction_read_only=on",
        }
        self._statements = _statements("%s", "::text")
        self._idle: list[Any] = []
        self._open = 0
        self._retry_at = 0.0

    async def find(self, target: Target) -> Row | None:
        """The live row that the target's path names, or the repository's; None: there is none to be had this way."""
        import psycopg

        if self._idle:
            cursor = self._idle.pop()
        else:
            if self._open >= self.MOST or monotonic() < self._retry_at:
                return None
            cursor = await self._connect()
            if cursor is None:
                return None
        try:
            await cursor.execute(self._statements[target.lookup_kind], target.lookup_names, prepare=True)
            row: Row | None = await cursor.fetchone()
        except psycopg.Error as error:
            self._retry_at = monotonic() + RETRY_SECONDS
            logger.warning("short_cut_failed", extra={"fields": {"error": type(error).__name__}})
            await self._drop(cursor)
            return None
        except asyncio.CancelledError:
            await self._drop(cursor)
            raise
        self._idle.append(cursor)
        return row

    async def _connect(self) -> Any:
        import psycopg

        self._open += 1
        try:
            connection = await psycopg.AsyncConnection.connect(autocommit=True, **self._parameters)
        except (psycopg.Error, OSError):
            self._open -= 1
            self._retry_at = monotonic() + RETRY_SECONDS
            return None
        except asyncio.CancelledError:
            self._open -= 1
            raise
        return connection.cursor(binary=True)

    async def _drop(self, cursor: Any) -> None:
        self._open -= 1
        await cursor.connection.close()

    async def close_all(self) -> None:
        while self._idle:
            await self._drop(self._idle.pop())


def configured() -> SqliteLookup | PostgresqlLookup:
    from django.conf import settings

    database = settings.DATABASES["default"]
    if database["ENGINE"] == "repoman.db.sqlite":
        return SqliteLookup(str(database["NAME"]))
    return PostgresqlLookup(database)


# --- the answer ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Memo:
    """Headers made from a row, kept with the target as long as the row says the same. `whole` includes the length,

    and `head` is the same as it goes over the wire, up to the request's id.

    `version` is the database's from before the row was read.
    """

    row: Row
    version: bytes | None
    ref: BlobRef
    lines: Pairs
    whole: Pairs
    head: bytes
    etag: str
    modified: float | None


def memo_of(target: Target, row: Row, version: bytes | None) -> Memo:
    """The answer's headers for this row: those kept with the target, or made anew by the format."""
    memo: Memo | None = target.memo
    if memo is not None and memo.row[3:] == row[3:]:
        memo.row = row
        memo.version = version
        return memo
    _, name, media_type, metadata, options, first_seen_at, digest, size, storage_key, stamp = row[3:]
    route = target.route
    assert route is not None and route.hot_headers is not None
    media_type = media_type or "application/octet-stream"
    ref = BlobRef(Digest.sha256(digest), size, storage_key, stamp, media_type)
    more = {"options": json.loads(options)} if route.hot_options else {}
    headers = route.hot_headers(
        name=name,
        media_type=media_type,
        digest=digest,
        captured=target.captured,
        metadata=json.loads(metadata),
        **more,
    )
    modified = _timestamp(first_seen_at) if route.hot_dated else None
    lines, etag = blob_headers(headers, ref, etag=None, modified=modified)
    whole = [*lines, (b"content-length", str(size).encode())]
    head = head_of(200, whole) + b"x-request-id: "
    memo = target.memo = Memo(row, version, ref, lines, whole, head, etag, modified)
    return memo


@dataclass(slots=True)
class Kept:
    """A document that was rendered once: `row` and `options` are the repository's when it was, `version` as in a Memo."""

    row: Row
    options: Mapping[str, Any]
    version: bytes | None
    lines: Pairs
    content: bytes | Rendered


def is_current(kept: Kept, row: Row) -> bool:
    """Whether the repository, as it is now, would be rendered the same."""
    return bool(row[1] == kept.row[1] and row[3] == kept.row[3] and json.loads(row[4]) == kept.options)


# Query string, Accept and address besides the path: all that a rendered document may depend on.
RenderedKey = tuple[str, bytes, bytes, bytes, str]


class Documents:
    """Rendered documents of this process, at most 16 MiB of them. From the loop's thread only."""

    def __init__(self, limit: int = DOCUMENT_BYTES) -> None:
        self._kept: Bounded[RenderedKey, Kept] = Bounded(limit)
        self.get = self._kept.get

    def put(self, key: RenderedKey, document: Kept) -> None:
        content = document.content
        if isinstance(content, Rendered):
            size, largest = content.held_bytes, LARGEST_PACKED
        else:
            size, largest = len(content), LARGEST_DOCUMENT
        if size <= largest and len(key[2]) + len(key[3]) <= LONGEST_KEY:
            self._kept.put(key, document, size + 2048)


def _timestamp(moment: Any) -> float:
    """Seconds since the epoch of a stored moment: a datetime, or SQLite's text in UTC."""
    if isinstance(moment, str):
        moment = datetime.datetime.fromisoformat(moment)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    found: float = moment.timestamp()
    return found


def is_allowed(known: Known | None, target: Target, row: Row) -> bool:
    """Whether the long way allowed this before, under the epoch that still stands; or everybody may read it."""
    if known is None:
        return bool(row[2])
    if known.epoch != row[0]:
        return False
    scope = target.scope if known.actor.scopes is not None else ""
    return (row[1], Action.READ, scope) in known.allowed
