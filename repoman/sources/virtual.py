"""Several repositories under one address.

The members, nested ones flattened, are asked in a fixed order: local ones first, then remotes, each as configured. A name
that a local member has ever held hides what remotes have under it, for everybody, also where the caller may not read that
member (dependency confusion); `allow_remote_names` opens a name. A version's files come from one member. Only members
that the caller may read contribute. A member that fails makes the answer fail, unless the repository is lenient
(`strict` false); it never makes it shorter in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, TypeVar

from repoman.access import permissions
from repoman.catalog import selectors
from repoman.catalog.models import Repository, RepositoryMember
from repoman.core.actor import Action
from repoman.core.errors import (
    FileNotFound,
    NotFound,
    PackageNotFound,
    RepomanError,
    VersionNotFound,
)
from repoman.core.fetch import NeedFetch, Plan
from repoman.core.format import handler_for
from repoman.core.records import Entry, FileEntry, Freshness, Listing, VersionEntry
from repoman.core.refs import FileRef, ListingRef, TagRef, VersionRef

from .base import Asked, Source
from .local import LocalSource
from .remote import RemoteSource, find_file, paged, whole_of

Found = TypeVar("Found")
_SORTED_KINDS = frozenset({"tags", "referrers", "folder", "packages"})


def leaves_of(virtual: Repository) -> list[Repository]:
    """The local and remote repositories in it at any depth, each once, at its first place; locals before remotes."""
    found: list[Repository] = []
    seen: set[int] = {virtual.pk}

    def walk(repository: Repository) -> None:
        rows = RepositoryMember.objects.filter(virtual=repository).select_related("member__namespace")
        for row in rows.order_by("position"):
            member = row.member
            if member.pk in seen or member.state == Repository.State.DELETING:
                continue
            seen.add(member.pk)
            if member.type == Repository.Type.VIRTUAL:
                walk(member)
            else:
                found.append(member)

    walk(virtual)
    return sorted(found, key=lambda member: member.type != Repository.Type.LOCAL)


@dataclass(frozen=True, slots=True)
class _Leaf:
    repository: Repository
    source: Source
    is_readable: bool

    @property
    def is_local(self) -> bool:
        return self.repository.type == Repository.Type.LOCAL


class VirtualSource(Source):
    def __init__(self, repository: Repository, asked: Asked) -> None:
        self._repository = repository
        self._asked = asked
        self._handler = handler_for(repository.format)
        self._gaps: list[str] = []  # members that the last question had to do without

    @cached_property
    def _leaves(self) -> list[_Leaf]:
        found: list[_Leaf] = []
        for member in leaves_of(self._repository):
            is_local = member.type == Repository.Type.LOCAL
            source: Source = LocalSource(member) if is_local else RemoteSource(member, self._asked)
            readable = Action.READ in permissions.allowed_actions(self._asked.actor, member)
            found.append(_Leaf(member, source, readable))
        return found

    @property
    def _is_strict(self) -> bool:
        return bool(self._repository.options.get("strict", True))

    def _owner_of(self, package: str) -> _Leaf | None:
        """The local member whose name it is, unless remotes may add to it."""
        if not self._handler.virtual_by_name or not package:
            return None
        patterns: Sequence[str] = self._repository.options.get("allow_remote_names") or ()
        if any(fnmatchcase(package, pattern) for pattern in patterns):
            return None
        for leaf in self._leaves:
            if leaf.is_local and selectors.package(leaf.repository.pk, package) is not None:
                return leaf
        return None

    def _asked_for(self, package: str) -> list[_Leaf]:
        """The members that may contribute to this name, in order."""
        owner = self._owner_of(package)
        return [leaf for leaf in self._leaves if leaf.is_readable and (owner is None or leaf.is_local)]

    # --- one thing ---------------------------------------------------------------------------------------------------

    def open(self, ref: FileRef) -> FileEntry:
        if self._handler.is_listed:
            leaf = self._lister_of(ref)
            return leaf.source.open(ref)
        missing = FileNotFound(f"{self._repository.key} has no file '{ref.path}'")
        return self._first(self._asked_for(ref.package), lambda leaf: leaf.source.open(ref), missing)

    def _lister_of(self, ref: FileRef) -> _Leaf:
        """The member from which the merged listing takes this file: only what is listed can be had, and from there."""
        missing = FileNotFound(f"{self._repository.key} has no file '{ref.path}'")
        found = self._listings(ListingRef("versions", ref.package))
        for leaf, entry in self._winners(found).values():
            if any(file.path == ref.path for file in entry.files):
                return leaf
        if any(find_file(listing, ref.path) is not None for _, listing in found):
            raise missing  # of a version that another member has too
        # The listings may be older than a lock file, or have dropped what is still held: each remote looks again.

        def look_again(leaf: _Leaf) -> _Leaf:
            leaf.source.open(ref)
            return leaf

        remotes = [leaf for leaf in self._asked_for(ref.package) if not leaf.is_local]
        return self._first(remotes, look_again, missing)

    def resolve(self, ref: TagRef | VersionRef) -> VersionEntry:
        name = ref.tag if isinstance(ref, TagRef) else ref.version
        missing = VersionNotFound(f"{self._repository.key}/{ref.package} has no '{name}'")
        return self._first(self._asked_for(ref.package), lambda leaf: leaf.source.resolve(ref), missing)

    def _first(self, leaves: Sequence[_Leaf], ask: Callable[[_Leaf], Found], missing: NotFound) -> Found:
        """What the first member that has it gives. A failure before it is the answer where the repository is strict."""
        trouble: RepomanError | None = None
        for leaf in leaves:
            try:
                return ask(leaf)
            except NotFound as error:
                if isinstance(error, PackageNotFound | FileNotFound | VersionNotFound):
                    continue
                raise
            except RepomanError as error:
                if leaf.is_local or self._is_strict:
                    raise
                trouble = trouble or error
        raise trouble or missing

    # --- listings ----------------------------------------------------------------------------------------------------

    def listing(self, ref: ListingRef) -> Listing:
        found = self._listings(ref)
        gaps = tuple(self._gaps)
        if not found:
            raise PackageNotFound(f"{self._repository.key} has no '{ref.package}'")
        merged = self._merge_versions(found) if ref.kind == "versions" else self._merge_names(ref, found)
        return replace(
            merged, gaps=gaps, freshness=_oldest([listing.freshness for _, listing in found if listing.freshness])
        )

    def mark(self, ref: ListingRef) -> str:
        marks = self._each(ref.package, lambda leaf: f"{leaf.repository.pk}={leaf.source.mark(ref)}")
        if not marks:
            raise PackageNotFound(f"{self._repository.key} has no '{ref.package}'")
        options = self._repository.options
        rule = f"{options.get('allow_remote_names') or ''}{self._is_strict}"
        return ";".join(mark for _, mark in marks) + f";{rule};{','.join(self._gaps)}"

    def freshness(self, ref: ListingRef) -> tuple[Freshness | None, tuple[str, ...]]:
        marks = self._each(ref.package, lambda leaf: leaf.source.freshness(ref)[0])
        return _oldest([mark for _, mark in marks if mark is not None]), tuple(self._gaps)

    def _listings(self, ref: ListingRef) -> list[tuple[_Leaf, Listing]]:
        """What every contributing member lists, in order; each is asked for what comes before the page's end."""
        page = whole_of(ref) if ref.kind not in _SORTED_KINDS else replace(ref, limit=_one_more(ref.limit))
        return self._each(ref.package, lambda leaf: leaf.source.listing(page))

    def _each(self, package: str, ask: Callable[[_Leaf], Found]) -> list[tuple[_Leaf, Found]]:
        """Ask all members; what upstreams must be asked for is gathered, so that they are asked at the same time."""
        self._gaps = []
        found: list[tuple[_Leaf, Found]] = []
        plans: list[Plan] = []
        trouble: RepomanError | None = None
        for leaf in self._asked_for(package):
            try:
                found.append((leaf, ask(leaf)))
            except NeedFetch as need:
                plans += need.plans
            except NotFound:
                continue
            except RepomanError as error:
                if leaf.is_local or self._is_strict:
                    raise
                self._gaps.append(leaf.repository.key)
                trouble = trouble or error
        if plans:
            raise NeedFetch(tuple({plan.key: plan for plan in plans}.values()))
        if not found and trouble is not None:
            raise trouble
        return found

    def _winners(self, found: list[tuple[_Leaf, Listing]]) -> dict[Any, tuple[_Leaf, Entry]]:
        """Every version with the first member that has it."""
        entries: dict[Any, tuple[_Leaf, Entry]] = {}
        for leaf, listing in found:
            for entry in listing.entries:
                entries.setdefault(self._handler.version_identity(entry.name), (leaf, entry))
        return entries

    def _merge_versions(self, found: list[tuple[_Leaf, Listing]]) -> Listing:
        """Versions by name, the first member's whole; a tag from the first member that has it and whose version stayed
        its own."""
        entries = self._winners(found)
        tags: dict[str, str] = {}
        for leaf, listing in found:
            for tag, version in listing.tags.items():
                winner = entries.get(self._handler.version_identity(version))
                if tag not in tags and winner is not None and winner[0] is leaf:
                    tags[tag] = version
        first = found[0][1]
        changed = [listing.changed_at for _, listing in found if listing.changed_at is not None]
        return Listing(
            tuple(entry for _, entry in entries.values()),
            tags=tags,
            metadata=first.metadata,
            changed_at=max(changed) if changed else None,
        )

    def _merge_names(self, ref: ListingRef, found: list[tuple[_Leaf, Listing]]) -> Listing:
        entries: dict[tuple[str, str], Entry] = {}
        for _, listing in found:
            for entry in listing.entries:
                entries.setdefault((entry.name, entry.kind), entry)
        more = any(listing.more for _, listing in found)
        whole = Listing(tuple(sorted(entries.values(), key=lambda entry: (entry.name.encode(), entry.kind))))
        page = paged(whole, replace(ref, arguments=()))
        return replace(page, more=page.more or more)

    # --- why ---------------------------------------------------------------------------------------------------------

    def explain(self, ref: FileRef | TagRef | VersionRef | ListingRef) -> list[dict[str, object]]:
        owner = self._owner_of(ref.package)
        lines: list[dict[str, object]] = []
        for leaf in self._leaves:
            key = leaf.repository.key
            if not leaf.is_readable:
                is_owner = owner is not None and owner.repository.pk == leaf.repository.pk
                lines.append({"repository": key, "outcome": "hidden from this caller", "owns_the_name": is_owner})
                continue
            for line in leaf.source.explain(ref):
                if owner is not None and not leaf.is_local:
                    line["outcome"] = "not asked"
                    line["hidden_by"] = (
                        owner.repository.key if owner.is_readable else "a member this caller may not read"
                    )
                lines.append(line)
        winner = next((line for line in lines if line.get("outcome") in ("has it", "holds it", "would be asked")), None)
        if winner is not None:
            winner["answers"] = True
        return lines


def _one_more(limit: int | None) -> int | None:
    return limit + 1 if limit is not None else None


def _oldest(marks: Sequence[Freshness]) -> Freshness | None:
    """The weakest of the members' documents: what is stale makes the whole stale."""
    rank = {"stale": 0, "hit": 1, "miss": 2}
    return min(marks, key=lambda mark: (rank.get(mark.status, 1), mark.ttl), default=None)
