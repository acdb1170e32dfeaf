"""Folder listings: a page for people, JSON for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from repoman.core import folder_page
from repoman.core.folder_page import Row
from repoman.core.records import Listing
from repoman.core.served import link


def rows_of(folder: str, listing: Listing) -> list[Row]:
    rows = []
    for entry in listing.entries:
        name = entry.name.removeprefix(folder).rstrip("/")
        rows.append(Row(f"{name}/" if entry.kind == "folder" else name, entry))
    return rows


def wants_json(accept: Sequence[str]) -> bool:
    """Whether JSON is asked for by name and HTML is not preferred to it (RFC 9110 §12.5.1)."""
    quality = {"application/json": 0.0, "text/html": 0.0}
    for part in ",".join(accept).split(","):
        essence, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if essence in quality:
            quality[essence] = _quality(parameters)
    return quality["application/json"] > 0 and quality["application/json"] >= quality["text/html"]


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            return float(value) if re.fullmatch(r"[01](?:\.[0-9]{0,3})?", value.strip()) else 0.0
    return 1.0


def as_json(folder: str, listing: Listing, address: str) -> bytes:
    """`{"path", "items": [{name, kind, size, sha256, modified, url}], "next"}`; `next` is the value for `after`."""
    items: list[dict[str, object]] = []
    for row in rows_of(folder, listing):
        item: dict[str, object] = {"name": row.name, "kind": row.entry.kind, "url": address + link(row.name)}
        if not row.is_folder:
            item["size"] = row.entry.size
            item["sha256"] = row.entry.digest.rpartition(":")[2]
            item["modified"] = row.entry.modified.isoformat() if row.entry.modified else None
        items.append(item)
    return json.dumps({"path": folder, "items": items, "next": _next(folder, listing)}, ensure_ascii=False).encode()


def as_html(folder: str, listing: Listing, title: str, limit: int) -> bytes:
    after = _next(folder, listing)
    return folder_page.as_html(rows_of(folder, listing), title=title, has_parent=bool(folder), after=after, limit=limit)


def _next(folder: str, listing: Listing) -> str | None:
    """What `after` must be to go on: the last name, with the slash that tells a folder from a file."""
    if not listing.more or not listing.entries:
        return None
    return rows_of(folder, Listing(listing.entries[-1:]))[0].name
