"""Preconditions of writes (RFC 9110 §13.1), as sets of sha256 values that the service judges inside its transaction.

An entity tag of this server is the quoted sha256 of the bytes. Conditions of reads are the edge's business.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from repoman.core.errors import BadRequest
from repoman.core.wire import Headers

_LIST = re.compile(r'\s*(?:(?:W/)?"[^"]*"\s*(?:,\s*|\Z))+\Z')
_TAG = re.compile(r'(W/)?"([^"]*)"')
ANY = frozenset({"*"})


@dataclass(frozen=True, slots=True)
class Conditions:
    """None: not asked. An empty `if_match` fits nothing. `unmodified_since` counts only without If-Match."""

    if_match: frozenset[str] | None = None
    if_none_match: frozenset[str] | None = None
    unmodified_since: datetime.datetime | None = None


def of(headers: Headers) -> Conditions:
    """Raises BadRequest for a malformed list. A date that cannot be read counts as absent (RFC 9110 §13.1.4)."""
    if_match = _tags(headers, "if-match", weak_counts=False)
    if_none_match = _tags(headers, "if-none-match", weak_counts=True)
    since = None if if_match is not None else _date(headers.get("if-unmodified-since"))
    return Conditions(if_match, if_none_match, since)


def _tags(headers: Headers, name: str, *, weak_counts: bool) -> frozenset[str] | None:
    given = ", ".join(headers.all(name)).strip()
    if name not in headers:
        return None
    if given == "*":
        return ANY
    if _LIST.match(given) is None:
        raise BadRequest(f"{name} must be * or a list of quoted entity tags")
    return frozenset(tag for weak, tag in _TAG.findall(given) if weak_counts or not weak)


def _date(given: str | None) -> datetime.datetime | None:
    if given is None:
        return None
    try:
        found = parsedate_to_datetime(given)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=datetime.UTC)
