"""A folder as a page for people: relative links, folders with a slash at their end, as listing parsers expect it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import quote, urlencode

from .errors import BadRequest
from .records import Entry
from .served import link
from .wire import Query

PAGE = 1_000
PAGE_MOST = 10_000
_COUNT = re.compile(r"[0-9]{1,9}\Z")


@dataclass(frozen=True, slots=True)
class Row:
    """One line: `name` is relative to the folder; a folder's ends with `/`."""

    name: str
    entry: Entry

    @property
    def is_folder(self) -> bool:
        return self.name.endswith("/")


def page_size(query: Query) -> int:
    given = query.get("limit")
    if given is None:
        return PAGE
    if _COUNT.match(given) is None or int(given) == 0:
        raise BadRequest(f"limit must be a whole number from 1 to {PAGE_MOST}")
    return min(int(given), PAGE_MOST)


def as_html(rows: Sequence[Row], *, title: str, has_parent: bool, after: str | None, limit: int) -> bytes:
    """Every name is escaped twice, for the address and for the page. `after`: where the next page begins; None: this is
    the last one."""
    lines = []
    if has_parent:
        lines.append('<tr><td><a href="../">../</a></td><td></td><td></td></tr>')
    for row in rows:
        size = "" if row.is_folder or row.entry.size is None else f"{row.entry.size:,}"
        modified = f"{row.entry.modified:%Y-%m-%d %H:%M}" if row.entry.modified else ""
        lines.append(
            f'<tr><td><a href="{escape(link(row.name))}">{escape(row.name)}</a></td>'
            f"<td>{modified}</td><td>{size}</td></tr>"
        )
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
