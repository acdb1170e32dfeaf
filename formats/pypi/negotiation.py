"""Which form of a page a client wants. PEP 691 "Version + Format Selection", RFC 9110 §12.5.1.

Every client asks in its own way: pip and PDM with JSON first, uv with JSON first and HTML close behind, Poetry with JSON
and `*/*`, Hatch, curl and browsers without any of our types. What matches nothing gets the default.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from repoman.core.wire import Query

from .listing import HTML, JSON, SIMPLE_HTML, SIMPLE_JSON, TEXT_HTML

# Offered types in order of preference among equals: the default is text/html, for scrapers and Hatch.
_OFFERED: tuple[tuple[str, str], ...] = ((TEXT_HTML, HTML), (SIMPLE_JSON, JSON), (SIMPLE_HTML, HTML))
_LATEST = {
    "application/vnd.pypi.simple.latest+json": SIMPLE_JSON,
    "application/vnd.pypi.simple.latest+html": SIMPLE_HTML,
}
_QUALITY = re.compile(r"[01](?:\.[0-9]{0,3})?\Z")


def choose(accept: Sequence[str], query: Query) -> tuple[str, str]:
    """(media type, form) of the answer; the type is a concrete one. `?format=` overrides Accept."""
    forms = dict(_OFFERED)
    asked = query.get("format")
    if asked is not None:
        essence = asked.partition(";")[0].strip().lower()
        essence = _LATEST.get(essence, essence)
        if essence in forms:
            return essence, forms[essence]
    ranges = _ranges(accept)
    if not ranges:
        return _OFFERED[0]
    best, best_quality = _OFFERED[0], 0.0
    for media_type, form in _OFFERED:
        quality = _quality(media_type, ranges)
        if quality > best_quality:
            best, best_quality = (media_type, form), quality
    return best


def content_type(media_type: str) -> str:
    """JSON has no charset; HTML says its own, besides the page's meta element."""
    return media_type if media_type == SIMPLE_JSON else f"{media_type}; charset=utf-8"


def _ranges(accept: Sequence[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in ",".join(accept).split(","):
        essence, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if "/" not in essence:
            continue
        essence = _LATEST.get(essence, essence)
        found[essence] = max(found.get(essence, 0.0), _weight(parameters))
    return found


def _weight(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            return min(float(value), 1.0) if _QUALITY.match(value.strip()) else 0.0
    return 1.0


def _quality(media_type: str, ranges: dict[str, float]) -> float:
    """The most specific range counts."""
    for key in (media_type, f"{media_type.partition('/')[0]}/*", "*/*"):
        if key in ranges:
            return ranges[key]
    return 0.0
