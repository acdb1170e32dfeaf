"""Listings as bytes and back: how an upstream's records are kept between requests."""

from __future__ import annotations

import datetime
import threading
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from repoman.core.digest import Digest
from repoman.core.errors import Unavailable
from repoman.core.records import Entry, Freshness, ListedFile, Listing

from .models import UpstreamDocument


def dump_listing(listing: Listing) -> tuple[bytes, str]:
    """The records, packed, and their mark: the same records give the same mark."""
    plain = orjson.dumps(
        {
            "entries": [_entry(entry) for entry in listing.entries],
            "tags": dict(listing.tags),
            "metadata": dict(listing.metadata),
            "changed_at": _moment(listing.changed_at),
        },
        option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS,
    )
    return zlib.compress(plain, 5), Digest.of(plain).hex


def dump_names(marks: Mapping[str, str], changed_at: datetime.datetime | None) -> tuple[bytes, str]:
    """What names all packages of a document about all of them: a listing of packages with the marks of their records."""
    entries = tuple(Entry(name, kind="package", digest=marks[name]) for name in sorted(marks))
    return dump_listing(Listing(entries, changed_at=changed_at))


def _entry(entry: Entry) -> dict[str, Any]:
    found: dict[str, Any] = {"name": entry.name, "kind": entry.kind}
    for name in ("size", "digest", "media_type", "artifact_type", "yanked", "yanked_reason", "deprecated"):
        value = getattr(entry, name)
        if value not in (None, "", False):
            found[name] = value
    if entry.modified is not None:
        found["modified"] = _moment(entry.modified)
    if entry.metadata:
        found["metadata"] = dict(entry.metadata)
    if entry.files:
        found["files"] = [
            {
                "path": file.path,
                "size": file.size,
                "digests": dict(file.digests),
                "url": file.url,
                "published_at": _moment(file.published_at),
                "metadata": dict(file.metadata),
            }
            for file in entry.files
        ]
    return found


_loaded: OrderedDict[str, tuple[Listing, int]] = OrderedDict()
_lock = threading.Lock()
LOADED_BYTES = 2 * 1024 * 1024  # of packed records, which take some twenty times as much as objects


def load_listing(document: UpstreamDocument) -> Listing:
    """The records of that document. The last ones are remembered by their mark: one listing serves many files, and most
    requests need no more of the row than its mark."""
    return load_marked(document)[1]


def load_marked(document: UpstreamDocument) -> tuple[str, Listing]:
    """As `load_listing`, with the mark of what was found: the row may say something else by now."""
    with _lock:
        found = _loaded.get(document.mark)
        if found is not None:
            _loaded.move_to_end(document.mark)
            return document.mark, found[0]
    # Mark and records in one look: the row may have changed since it was read.
    row = UpstreamDocument.objects.filter(pk=document.pk).values_list("mark", "records").first()
    if row is None:
        raise Unavailable("the upstream's listing was dropped meanwhile; try again", retry_after_seconds=1)
    mark, packed = row[0], bytes(row[1] or b"")
    listing = _load(packed)
    _remember(mark, listing, len(packed))
    return mark, listing


def unpacked(packed: bytes, mark: str) -> Listing:
    """What `dump_listing` packed, before it is in a row."""
    listing = _load(packed)
    _remember(mark, listing, len(packed))
    return listing


def _remember(mark: str, listing: Listing, size: int) -> None:
    with _lock:
        _loaded[mark] = (listing, size)
        _loaded.move_to_end(mark)
        total = sum(weight for _, weight in _loaded.values())
        while total > LOADED_BYTES and len(_loaded) > 1:
            total -= _loaded.popitem(last=False)[1][1]


_STRENGTH = {"stale": 0, "hit": 1, "miss": 2}


def weaker(one: Freshness | None, other: Freshness) -> Freshness:
    """Of two documents that an answer is made of, the one that says how far it can be trusted."""
    if one is None:
        return other
    return min(one, other, key=lambda mark: (_STRENGTH.get(mark.status, 1), mark.ttl))


def joined(earlier: UpstreamDocument, packed: bytes) -> tuple[bytes, str]:
    """The records of a listing's earlier pages with those of one more."""
    before, more = load_listing(earlier), _load(packed)
    return dump_listing(replace(before, entries=before.entries + more.entries))


def _load(packed: bytes) -> Listing:
    plain: dict[str, Any] = orjson.loads(zlib.decompress(packed))
    return Listing(
        tuple(
            Entry(
                name=item["name"],
                kind=item["kind"],
                size=item.get("size"),
                digest=item.get("digest", ""),
                modified=_read(item.get("modified")),
                media_type=item.get("media_type", ""),
                artifact_type=item.get("artifact_type", ""),
                metadata=item.get("metadata", {}),
                files=tuple(
                    ListedFile(
                        file["path"],
                        size=file["size"],
                        digests=file["digests"],
                        url=file["url"],
                        published_at=_read(file["published_at"]),
                        metadata=file["metadata"],
                    )
                    for file in item.get("files", ())
                ),
                yanked=item.get("yanked", False),
                yanked_reason=item.get("yanked_reason", ""),
                deprecated=item.get("deprecated", ""),
            )
            for item in plain["entries"]
        ),
        tags=plain["tags"],
        metadata=plain["metadata"],
        changed_at=_read(plain["changed_at"]),
    )


def _moment(moment: datetime.datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None


def _read(text: str | None) -> datetime.datetime | None:
    return datetime.datetime.fromisoformat(text) if text else None
