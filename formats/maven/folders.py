"""Folders as pages: what is in them, as groups, artifacts and versions; addresses without their last slash (I4, I5)."""

from __future__ import annotations

from collections.abc import Iterator

from repoman.core.errors import (
    FileNotFound,
    NameInvalid,
    NotFound,
    PackageNotFound,
)
from repoman.core.folder_page import Row, as_html, page_size
from repoman.core.format import Repo
from repoman.core.records import Entry
from repoman.core.refs import ListingRef
from repoman.core.served import PAGE, REVALIDATE, link
from repoman.core.wire import (
    Request,
    Response,
)

from .names import (
    METADATA,
    FolderPlace,
    parse,
)
from .versions import is_snapshot

NAMES_READ = 50_000


def is_short(path: str) -> bool:
    """Whether a path is too short for a file: a folder without its slash, if anything."""
    return path != "" and not path.endswith("/") and len(path.split("/")) < 4 and METADATA not in path


def without_slash(repo: Repo, request: Request, path: str) -> Response:
    """To the folder: relative links on its page would otherwise lead astray. Raises FileNotFound."""
    try:
        place = parse(f"{path}/")
        is_there = isinstance(place, FolderPlace) and next(_rows(repo, place.segments), None) is not None
    except (NameInvalid, NotFound):
        is_there = False
    if not is_there:
        raise FileNotFound(f"'{repo.key}' has no file '{path}'")
    return Response(301, [("Location", f"{request.mount}/{link(path)}/{request.query.suffix}"), *PAGE, REVALIDATE])


def folder(repo: Repo, request: Request, place: FolderPlace) -> Response:
    limit = page_size(request.query)
    after = request.query.get("after") or ""
    found = {row.name: row for row in _rows(repo, place.segments)}
    if place.segments and not found:
        raise FileNotFound(f"'{repo.key}' has no folder '{'/'.join(place.segments)}'")
    names = sorted((name for name in found if name > after), key=str.encode)
    shown = [found[name] for name in names[:limit]]
    page = as_html(
        shown,
        title="/".join((repo.key, *place.segments)) + "/",
        has_parent=bool(place.segments),
        after=shown[-1].name if len(names) > limit else None,
        limit=limit,
    )
    return Response(200, [("Content-Type", "text/html; charset=utf-8"), *PAGE, REVALIDATE], page)


def _rows(repo: Repo, segments: tuple[str, ...]) -> Iterator[Row]:
    """What is in a folder, as a group's, an artifact's and a version's: it may be all of them (P4). Raises FileNotFound
    where groups are not known (of an upstream)."""
    yield from _group(repo, ".".join(segments))
    if len(segments) >= 3:
        package, version = f"{'.'.join(segments[:-2])}:{segments[-2]}", segments[-1]
        yield from _files(repo, package, version)
    if len(segments) >= 2:
        yield from _versions(repo, f"{'.'.join(segments[:-1])}:{segments[-1]}")


def _files(repo: Repo, package: str, version: str) -> Iterator[Row]:
    try:
        found = repo.listing(ListingRef("files", package, arguments=(("under", f"{version}/"),)))
    except PackageNotFound:
        return
    for entry in found.entries:
        yield Row(entry.name.partition("/")[2], entry)
    if found.entries and is_snapshot(version):
        yield Row(METADATA, Entry(METADATA))


def _versions(repo: Repo, package: str) -> Iterator[Row]:
    try:
        found = repo.listing(ListingRef("releases", package))
    except PackageNotFound:
        return
    for entry in found.entries:
        yield Row(f"{entry.name}/", entry)
    if found.entries:
        yield Row(METADATA, Entry(METADATA, modified=found.changed_at))


def _group(repo: Repo, group: str) -> Iterator[Row]:
    """Artifacts and groups directly below a group; what lies deeper is skipped, not read."""
    for separator in (":", ".") if group else ("",):
        prefix = f"{group}{separator}"
        seen: set[str] = set()
        for name in _names(repo, prefix):
            child = name[len(prefix) :].partition(":")[0].partition(".")[0] if separator != ":" else name[len(prefix) :]
            if child not in seen:
                seen.add(child)
                yield Row(f"{child}/", Entry(child, kind="folder"))


def _names(repo: Repo, prefix: str) -> Iterator[str]:
    """Package names that begin so, without most of those that are below the same child."""
    after = ""
    arguments = (("under", prefix),) if prefix else ()
    for _ in range(NAMES_READ):
        page = repo.listing(ListingRef("packages", after=after, limit=200, arguments=arguments))
        for entry in page.entries:
            yield entry.name
        if not page.more or not page.entries:
            return
        last = page.entries[-1].name
        child_end = min(
            (at for at in (last.find(":", len(prefix)), last.find(".", len(prefix))) if at >= 0), default=-1
        )
        # The character after the separator is where the child's names of that kind end.
        after = last if child_end < 0 or prefix.endswith(":") else last[:child_end] + chr(ord(last[child_end]) + 1)
