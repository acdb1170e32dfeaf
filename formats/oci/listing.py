"""Tag lists, the catalog and referrers: records in, documents out, and the links between pages.

distribution-spec "Listing Tags" and "Listing Referrers". Links are relative: oras and crane follow none that leave the
origin they asked, containers/image takes only path and query.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from repoman.core.errors import BadRequest
from repoman.core.records import Entry, Listing
from repoman.core.wire import Query

from .manifest import OCI_INDEX

TAGS_PAGE = 10_000  # so high that scripts which never follow a Link get what they ask for
CATALOG_PAGE = 100
CATALOG_PAGE_MOST = 1_000
REFERRERS = "referrers"
REFERRERS_BY_TAG = "referrers-by-tag"  # the same where an upstream has no referrers API ("Referrers Tag Schema")
REFERRERS_BATCH = 50
REFERRERS_BYTES = 3_500_000  # containerd reads one page of referrers, and at most 4 MiB of it
_COUNT = re.compile(r"[0-9]{1,18}\Z")


def page_size(query: Query, default: int, most: int) -> int:
    """The value of `n`, capped. Raises BadRequest for what is not a number from 0 on."""
    given = query.get("n")
    if given is None:
        return default
    if _COUNT.match(given) is None:
        raise BadRequest("n must be a whole number from 0 on")
    return min(int(given), most)


def next_link(path: str, parameters: Sequence[tuple[str, str]]) -> tuple[str, str]:
    return ("Link", f'<{path}?{urlencode(parameters, quote_via=quote, safe="")}>; rel="next"')


def tag_list(name: str, tags: Sequence[str]) -> bytes:
    return _dump({"name": name, "tags": list(tags)})


def catalog(names: Sequence[str]) -> bytes:
    return _dump({"repositories": list(names)})


def referrers_index(descriptors: Sequence[bytes]) -> bytes:
    head = _dump({"schemaVersion": 2, "mediaType": OCI_INDEX})[:-1]
    return head + b',"manifests":[' + b",".join(descriptors) + b"]}"


def referrer_descriptor(entry: Entry) -> bytes:
    """What the index says of one referrer: its annotations are copied whole, absent fields stay absent."""
    found: dict[str, Any] = {"mediaType": entry.media_type, "digest": entry.name, "size": entry.size or 0}
    annotations = entry.metadata.get("annotations")
    if annotations:
        found["annotations"] = annotations
    if entry.artifact_type:
        found["artifactType"] = entry.artifact_type
    return _dump(found)


def referrers_page(read: Callable[[str, int], Listing], after: str, limit: int | None) -> tuple[list[bytes], str]:
    """Descriptors of one page and, if more follow, the last one's digest (else "").

    `read(after, limit)` gives the next records. A page ends at `limit` descriptors or before REFERRERS_BYTES; it holds
    at least one, so that paging always ends.
    """
    page: list[bytes] = []
    size = 0
    last = after
    while True:
        wanted = REFERRERS_BATCH if limit is None else min(REFERRERS_BATCH, limit - len(page))
        listing = read(last, wanted)
        for entry in listing.entries:
            descriptor = referrer_descriptor(entry)
            if page and size + len(descriptor) > REFERRERS_BYTES:
                return page, last
            page.append(descriptor)
            size += len(descriptor) + 1
            last = entry.name
        if not listing.more or not listing.entries:
            return page, ""
        if limit is not None and len(page) >= limit:
            return page, last


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
