"""Listings as bytes and back: how an upstream's records are kept between requests."""

from __future__ import annotations

import datetime
import threading
import zlib
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import orjson

from repoman.core.digest import Digest
from repoman.core.records import Entry, ListedFile, Listing

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


_loaded: OrderedDict[str, Listing] = OrderedDict()
_lock = threading.Lock()
MOST_LOADED = 8


def load_listing(document: UpstreamDocument) -> Listing:
    """The records that `dump_listing` packed. The last few are remembered: one listing serves many files."""
    with _lock:
        found = _loaded.get(document.mark)
        if found is not None:
            _loaded.move_to_end(document.mark)
            return found
    found = _load(bytes(document.records or b""))
    with _lock:
        _loaded[document.mark] = found
        while len(_loaded) > MOST_LOADED:
            _loaded.popitem(last=False)
    return found


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
