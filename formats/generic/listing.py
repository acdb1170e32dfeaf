"""Folder listings: a page for people, JSON for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import quote, urlencode

from repoman.core.errors import BadRequest
from repoman.core.records import Entry, Listing
from repoman.core.wire import Query

from .names import link

PAGE = 1_000
PAGE_MOST = 10_000
_COUNT = re.compile(r"[0-9]{1,9}\Z")
# Links must work, so no sandbox; the text is escaped and nothing else may load or run.
PAGE_POLICY = (
    "Content-Security-Policy",
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line: `name` is relative to the folder; a folder's ends with `/`."""

    name: str
    entry: Entry

    @property
    def is_folder(self) -> bool:
        return self.entry.kind == "folder"


def rows_of(folder: str, listing: Listing) -> list[Row]:
    rows = []
    for entry in listing.entries:
        name = entry.name.removeprefix(folder).rstrip("/")
        rows.append(Row(f"{name}/" if entry.kind == "folder" else name, entry))
    return rows


def page_size(query: Query) -> int:
    given = query.get("limit")
    if given is None:
        return PAGE
    if _COUNT.match(given) is None or int(given) == 0:
        raise BadRequest(f"limit must be a whole number from 1 to {PAGE_MOST}")
    return min(int(given), PAGE_MOST)


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
    """A plain page with relative links; every name is escaped twice, for the address and for the page."""
    lines = []
    if folder:
        lines.append('<tr><td><a href="../">../</a></td><td></td><td></td></tr>')
    for row in rows_of(folder, listing):
        size = "" if row.is_folder or row.entry.size is None else f"{row.entry.size:,}"
        modified = f"{row.entry.modified:%Y-%m-%d %H:%M}" if row.entry.modified else ""
        lines.append(
            f'<tr><td><a href="{escape(link(row.name))}">{escape(row.name)}</a></td>'
            f"<td>{modified}</td><td>{size}</td></tr>"
        )
    after = _next(folder, listing)
    more = ""
    if after is not None:
        query = urlencode({"limit": limit, "after": after}, quote_via=quote, safe="")
        more = f'<p><a href="?{escape(query)}" rel="next">More</a></p>\n'
    shown = escape(title)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{shown}</title>\n'
        "<style>body{font-family:sans-serif;margin:2rem}td{padding:0 1.5rem .2rem 0}"
        "td:nth-child(3){text-align:right}</style></head>\n"
        f"<body><h1>{shown}</h1>\n<table>\n" + "\n".join(lines) + f"\n</table>\n{more}</body>\n</html>\n"
    ).encode()


def _next(folder: str, listing: Listing) -> str | None:
    """What `after` must be to go on: the last name, with the slash that tells a folder from a file."""
    if not listing.more or not listing.entries:
        return None
    return rows_of(folder, Listing(listing.entries[-1:]))[0].name
