"""Several repositories under one address.

The members, nested ones flattened, are asked in a fixed order: local ones first, then remotes, each as configured. A name
that a local member has ever held hides what remotes have under it, for everybody, also where the caller may not read that
member (dependency confusion); `allow_remote_names` opens a name. A version's files come from one member, except where it
is a series of builds (`has_builds`): those are of all. Only members that the caller may read contribute. A member that
fails makes the answer fail, unless the repository is lenient (`strict` false); it never makes it shorter in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property, reduce
from typing import Any, TypeVar

from django.db.models import Exists, OuterRef, Q

from repoman.access import permissions
from repoman.catalog import selectors
from repoman.catalog.models import Package, Repository, RepositoryMember
from repoman.core.actor import Action, Actor
from repoman.core.digest import looks_like_digest
from repoman.core.errors import (
    ELSEWHERE,
    FileNotFound,
    NameInvalid,
    NotFound,
    PackageNotFound,
    RepomanError,
    UpstreamFailed,
    VersionNotFound,
)
from repoman.core.fetch import NeedFetch, Plan
from repoman.core.format import FormatHandler, handler_for
from repoman.core.records import Entry, FileEntry, Freshness, Listing, VersionEntry
from repoman.core.refs import FileRef, ListingRef, TagRef, VersionRef
from repoman.db.prepared import Prepared

from .base import Asked, Parts, Source
from .local import LocalSource
from .records import weaker
from .remote import RemoteSource, find_file, whole_of

Found = TypeVar("Found")
# Listings of other kinds come in pages, in the order of their names.
_LISTED_WHOLE = frozenset({"versions", "releases", "version"})
_GIVES = ("has it", "holds it", "would be asked")  # outcomes of `explain`, the surest first
HIDDEN_SHOWN = 50


_members = Prepared(
    lambda virtual_id: (
        RepositoryMember.objects.filter(virtual_id=virtual_id).select_related("member__namespace").order_by("position")
    )
)


def leaves_of(virtual: Repository) -> list[Repository]:
    """The local and remote repositories in it at any depth, each once, at its first place; locals before remotes."""
    found: list[Repository] = []
    seen: set[int] = {virtual.pk}

    def walk(repository: Repository) -> None:
        for row in _members.all(repository.pk):
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


def may_contribute(actor: Actor, member: Repository) -> bool:
    """Whether the actor sees this member's content through a virtual repository: what everybody may read, and what its
    own rights, within its token's limits, let it read directly."""
    return member.anonymous_read or Action.READ in permissions.allowed_actions(actor, member)


def opens(handler: FormatHandler, patterns: Sequence[str], package: str) -> bool:
    """Whether one of `allow_remote_names` is about this name. A plain name may be spelt in any way the format has."""
    for pattern in patterns:
        if not any(character in pattern for character in "*?["):
            try:
                pattern = handler.normalize(pattern)
            except NameInvalid:
                continue
            if pattern == package:
                return True
        elif fnmatchcase(package, pattern):
            return True
    return False


@dataclass(frozen=True, slots=True)
class _Leaf:
    repository: Repository
    source: LocalSource | RemoteSource
    is_readable: bool

    @property
    def is_local(self) -> bool:
        return self.repository.type == Repository.Type.LOCAL

    @property
    def key(self) -> str:
        return self.repository.key

    def known(self, ref: ListingRef) -> Listing | None:
        """What it lists, without asking anybody."""
        if isinstance(self.source, RemoteSource):
            return self.source.known(ref)
        try:
            return self.source.listing(ref)
        except NotFound:
            return None


class VirtualSource(Source):
    """`gaps`: members of a lenient repository that what was asked had to do without, and why. `on_behalf_of`: who wants to
    know what the asking actor gets (`explain`), where that is somebody else."""

    def __init__(self, repository: Repository, asked: Asked, *, on_behalf_of: Actor | None = None) -> None:
        self._repository = repository
        self._asked = asked
        self._handler = handler_for(repository.format)
        self._on_behalf_of = on_behalf_of
        self._gaps: list[str] = []  # of the last listing
        self.gaps: dict[str, RepomanError] = {}

    @cached_property
    def _leaves(self) -> list[_Leaf]:
        found: list[_Leaf] = []
        for member in leaves_of(self._repository):
            is_local = member.type == Repository.Type.LOCAL
            source = LocalSource(member) if is_local else RemoteSource(member, self._asked)
            found.append(_Leaf(member, source, may_contribute(self._asked.actor, member)))
        return found

    @property
    def _is_strict(self) -> bool:
        return bool(self._repository.options.get("strict", True))

    @property
    def _open_names(self) -> Sequence[str]:
        return self._repository.options.get("allow_remote_names") or ()

    def _owner_of(self, package: str) -> _Leaf | None:
        """The local member whose name it is, unless remotes may add to it."""
        if not self._handler.virtual_by_name or not package or opens(self._handler, self._open_names, package):
            return None
        for leaf in self._leaves:
            if leaf.is_local and selectors.package(leaf.repository.pk, package) is not None:
                return leaf
        return None

    def _asked_for(self, package: str) -> list[_Leaf]:
        """The members that may contribute to this name, in order."""
        owner = self._owner_of(package)
        return [leaf for leaf in self._leaves if leaf.is_readable and (owner is None or leaf.is_local)]

    def contributors(self, package: str) -> list[Repository]:
        """The members that may contribute to this name for this caller, in order."""
        return [leaf.repository for leaf in self._asked_for(package)]

    def _without(self, leaf: _Leaf, error: RepomanError) -> None:
        """Note that the answer lacks what this member has. Raises where that is not good enough."""
        if leaf.is_local or self._is_strict:
            raise error
        self.gaps.setdefault(leaf.key, error)

    # --- one thing ---------------------------------------------------------------------------------------------------

    def open(self, ref: FileRef) -> FileEntry:
        missing = FileNotFound(f"{self._repository.key} has no file '{ref.path}'")
        leaves = self._asked_for(ref.package)
        if self._handler.is_listed:
            return self._lister_of(ref, leaves, missing).source.open(ref)
        if self._handler.version_by_digest and looks_like_digest(ref.path):
            held = [leaf for leaf in leaves if selectors.live_artifact(leaf.repository.pk, ref.package, ref.path)]
            return self._any(held, leaves, lambda leaf: leaf.source.open(ref), missing)
        return self._first(self._until_its_version(ref, leaves), lambda leaf: leaf.source.open(ref), missing)

    def _until_its_version(self, ref: FileRef, leaves: list[_Leaf]) -> list[_Leaf]:
        """The members that may have this file, where its path says of which version it is: not those after a local member
        that has the version, or a version would be mixed of several. A series of builds is meant to be."""
        version = self._handler.version_of(ref)
        if not version or self._handler.has_builds(version):
            return leaves
        for index, leaf in enumerate(leaves):
            if leaf.is_local and selectors.live_version(leaf.repository.pk, ref.package, version) is not None:
                return leaves[: index + 1]
        return leaves

    def digest(self, ref: FileRef, algorithm: str) -> str:
        missing = FileNotFound(f"{self._repository.key} has no file '{ref.path}'")
        leaves = self._until_its_version(ref, self._asked_for(ref.package))
        return self._first(leaves, lambda leaf: leaf.source.digest(ref, algorithm), missing)

    def first_of(self, refs: Sequence[FileRef]) -> FileRef | None:
        """Members after the one that has one of them are not asked."""
        asked = [(ref, self._asked_for(ref.package)) for ref in refs]
        for leaf in self._leaves:
            theirs = [ref for ref, leaves in asked if leaf in leaves]
            try:
                found = leaf.source.first_of(theirs) if theirs else None
            except NotFound:
                continue
            except RepomanError as error:
                self._without(leaf, error)
                continue
            if found is not None:
                return found
        return None

    def _lister_of(self, ref: FileRef, leaves: Sequence[_Leaf], missing: NotFound) -> _Leaf:
        """The member from which the merged listing takes this file: only what is listed can be had, and from there.

        Members after that one are not asked: they cannot change the answer.
        """
        about = ListingRef("versions", ref.package)
        taken: set[Any] = set()  # versions of earlier members
        for leaf in leaves:
            try:
                listing = leaf.source.listing(about)
            except NotFound:
                continue
            except RepomanError as error:
                self._without(leaf, error)
                continue
            found = find_file(listing, ref.path)
            if found is not None:
                if self._handler.version_identity(found[0].name) in taken:
                    raise missing  # of a version that an earlier member has too
                return leaf
            taken.update(self._handler.version_identity(entry.name) for entry in listing.entries)
        # The listings may be older than a lock file, or have dropped what is still held: each remote looks again.

        def look_again(leaf: _Leaf) -> _Leaf:
            leaf.source.open(ref)
            return leaf

        return self._first([leaf for leaf in leaves if not leaf.is_local], look_again, missing)

    def resolve(self, ref: TagRef | VersionRef) -> VersionEntry:
        name = ref.tag if isinstance(ref, TagRef) else ref.version
        missing = VersionNotFound(f"{self._repository.key}/{ref.package} has no '{name}'")
        leaves = self._asked_for(ref.package)
        if isinstance(ref, VersionRef) and self._handler.version_by_digest:
            held = [leaf for leaf in leaves if selectors.live_version(leaf.repository.pk, ref.package, ref.version)]
            return self._any(held, leaves, lambda leaf: leaf.source.resolve(ref), missing)
        return self._first(leaves, lambda leaf: leaf.source.resolve(ref), missing)

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
                self._without(leaf, error)
                trouble = trouble or error
        raise trouble or missing

    def _any(
        self, held: Sequence[_Leaf], leaves: Sequence[_Leaf], ask: Callable[[_Leaf], Found], missing: NotFound
    ) -> Found:
        """What is named by its digest is the same from everybody: from a member that holds it, else from the first that
        can give it. A member that fails matters only where no other has it."""
        trouble: RepomanError | None = None
        for leaf in [*held, *(leaf for leaf in leaves if leaf not in held)]:
            try:
                return ask(leaf)
            except NotFound:
                continue
            except RepomanError as error:
                trouble = trouble or error
        raise trouble or missing

    # --- listings ----------------------------------------------------------------------------------------------------

    def listing(self, ref: ListingRef) -> Listing:
        found = self._listings(ref)
        gaps = tuple(self._gaps)
        if not found and ref.kind != "packages":
            raise PackageNotFound(f"{self._repository.key} has no '{ref.package}'")
        merged = self._merge_versions(found) if ref.kind in _LISTED_WHOLE else self._merge_names(ref, found)
        return replace(merged, gaps=gaps, freshness=_weakest(listing.freshness for _, listing in found))

    def mark(self, ref: ListingRef) -> str:
        marks = self._each(ref.package, lambda leaf: f"{leaf.repository.pk}={leaf.source.mark(ref)}")
        if not marks and ref.kind != "packages":
            raise PackageNotFound(f"{self._repository.key} has no '{ref.package}'")
        hidden = ""
        if ref.kind == "packages":  # names of members that the caller may not read hide names, too
            rows = (leaf.repository for leaf in self._leaves if leaf.is_local and not leaf.is_readable)
            hidden = ",".join(f"{row.pk}.{row.revision}" for row in rows)
        rule = f"{'|'.join(self._open_names)};{self._is_strict};{hidden}"
        return ";".join(mark for _, mark in marks) + f";{rule};{','.join(self._gaps)}"

    def freshness(self, ref: ListingRef) -> tuple[Freshness | None, tuple[str, ...]]:
        marks = self._each(ref.package, lambda leaf: leaf.source.freshness(ref)[0])
        return _weakest(mark for _, mark in marks), tuple(self._gaps)

    def parts(self, ref: ListingRef) -> Parts:
        """A package of one member is that member's part; of several, their versions merged."""
        found = self._each("", lambda leaf: leaf.source.parts(ref))
        held = self._held_names() if any(not leaf.is_local for leaf, _ in found) else frozenset()
        shares: dict[str, list[int]] = {}  # package → which of `found` have it
        marks: dict[str, str] = {}
        for number, (leaf, parts) in enumerate(found):
            for package, mark in parts.parts:
                if leaf.is_local or package not in held or opens(self._handler, self._open_names, package):
                    shares.setdefault(package, []).append(number)
                    marks[package] = f"{marks[package]}+{mark}" if package in marks else mark

        def read(package: str) -> tuple[str, Listing]:
            read = [(found[number][0], found[number][1].read(package)) for number in shares[package]]
            mark = "+".join(mark for _, (mark, _) in read)
            if len(read) == 1:
                return mark, read[0][1][1]
            return mark, self._merge_versions([(leaf, listing) for leaf, (_, listing) in read])

        changed = [parts.changed_at for _, parts in found if parts.changed_at is not None]
        return Parts(sorted(marks.items()), read, max(changed, default=None))

    def _listings(self, ref: ListingRef) -> list[tuple[_Leaf, Listing]]:
        """What every contributing member lists, in order; each is asked for what comes before the page's end."""
        if ref.kind in _LISTED_WHOLE:
            return self._each(ref.package, lambda leaf: leaf.source.listing(whole_of(ref)))
        page = replace(ref, limit=ref.limit + 1 if ref.limit is not None else None)
        # Of a remote's names some are left out, so that no number of them is known to be enough.
        names = replace(ref, limit=None) if ref.kind == "packages" else page
        return self._each(ref.package, lambda leaf: leaf.source.listing(page if leaf.is_local else names))

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
            except NotFound as error:
                if package or leaf.is_local or not self._handler.is_indexed:
                    continue
                # An upstream without an index is not one with nothing in it.
                failure = UpstreamFailed(error.message)
                self._without(leaf, failure)
                self._gaps.append(leaf.key)
                trouble = trouble or failure
            except RepomanError as error:
                # What is about something else says nothing of this, and will not tomorrow: the others are not held up.
                if error.detail.get("reason") != ELSEWHERE:
                    self._without(leaf, error)
                self._gaps.append(leaf.key)
                trouble = trouble or error
        if plans:
            raise NeedFetch(tuple({plan.key: plan for plan in plans}.values()))
        if not found and trouble is not None:
            raise trouble
        return found

    def _winners(self, found: Sequence[tuple[_Leaf, Listing]]) -> dict[Any, tuple[_Leaf, Entry]]:
        """Every version with the first member that has it; a series of builds with the files of all."""
        entries: dict[Any, tuple[_Leaf, Entry]] = {}
        for leaf, listing in found:
            for entry in listing.entries:
                identity = self._handler.version_identity(entry.name)
                first, earlier = entries.setdefault(identity, (leaf, entry))
                if earlier is not entry and entry.files and self._handler.has_builds(entry.name):
                    entries[identity] = (first, _with_files_of(earlier, entry))
        return entries

    def _merge_versions(self, found: Sequence[tuple[_Leaf, Listing]]) -> Listing:
        """Versions by name, the first member's whole (but see `_winners`); a tag, `latest` among them, as the first member
        that has it says, and in the spelling of the member that the version comes from."""
        entries = self._winners(found)
        tags: dict[str, str] = {}
        for _, listing in found:
            for tag, version in listing.tags.items():
                winner = entries.get(self._handler.version_identity(version))
                if winner is not None:
                    tags.setdefault(tag, winner[1].name)
        changed = [listing.changed_at for _, listing in found if listing.changed_at is not None]
        return Listing(
            tuple(entry for _, entry in entries.values()),
            tags=tags,
            metadata=self._handler.merge_metadata([listing.metadata for _, listing in found]),
            changed_at=max(changed) if changed else None,
        )

    def _merge_names(self, ref: ListingRef, found: Sequence[tuple[_Leaf, Listing]]) -> Listing:
        held = self._held_names() if ref.kind == "packages" else frozenset()
        entries: dict[tuple[str, str], Entry] = {}
        for leaf, listing in found:
            for entry in listing.entries:
                if leaf.is_local or entry.name not in held or opens(self._handler, self._open_names, entry.name):
                    entries.setdefault((entry.name, entry.kind), entry)
        ordered = sorted(entries.values(), key=_place)
        if ref.after:
            ordered = [entry for entry in ordered if _place(entry) > ref.after.encode()]
        more = any(listing.more for _, listing in found)
        if ref.limit is None:
            return Listing(tuple(ordered), more=more)
        return Listing(tuple(ordered[: ref.limit]), more=more or len(ordered) > ref.limit)

    def unhidden(self) -> Q:
        """Of rows of packages: those that no rule hides."""
        if not self._handler.virtual_by_name:
            return Q()
        locals_ = [leaf.repository.pk for leaf in self._leaves if leaf.is_local]
        held = Package.objects.filter(repository_id__in=locals_, name=OuterRef("name"))
        opened: list[str] = []
        if self._open_names:
            opened = [name for name in self._held_names() if opens(self._handler, self._open_names, name)]
        return Q(repository_id__in=locals_) | Q(name__in=opened) | Q(~Exists(held))

    def _held_names(self) -> frozenset[str]:
        """Every name that a local member has ever held, whoever may read it: remotes do not list them."""
        if not self._handler.virtual_by_name:
            return frozenset()
        locals_ = [leaf.repository.pk for leaf in self._leaves if leaf.is_local]
        return frozenset(Package.objects.filter(repository_id__in=locals_).values_list("name", flat=True))

    # --- why ---------------------------------------------------------------------------------------------------------

    def explain(self, ref: FileRef | TagRef | VersionRef | ListingRef) -> list[dict[str, object]]:
        """One line for each member that this caller may read, in the order they are asked. `answers`: the content comes
        from there; `hidden_by`: why it does not. Members that the caller may not read are not mentioned."""
        owner = self._owner_of(ref.package)
        shown = [leaf for leaf in self._leaves if leaf.is_readable]
        hidden_versions = self._hidden_versions(ref, [leaf for leaf in shown if owner is None or leaf.is_local])
        lines: list[dict[str, object]] = []
        for leaf in shown:
            for line in leaf.source.explain(ref):
                if not leaf.is_local:
                    self._explain_remote(line, owner)
                hidden = hidden_versions.get(leaf.key, {})
                if hidden and isinstance(ref, FileRef):
                    version, by = next(iter(hidden.items()))
                    line |= {"outcome": "not asked", "hidden_by": by, "because": f"version {version} comes from {by}"}
                elif hidden:
                    line["hidden_versions"] = [
                        {"version": version, "by": by} for version, by in list(hidden.items())[:HIDDEN_SHOWN]
                    ]
                lines.append(line)
        self._mark_answering(ref, lines)
        return lines

    def _explain_remote(self, line: dict[str, object], owner: _Leaf | None) -> None:
        """What hides a remote. Whether a member that the caller may not read holds the name is told only to somebody
        else who may read it: to the caller itself it would be that member's content."""
        secret = [leaf for leaf in self._leaves if leaf.is_local and not leaf.is_readable]
        asker = self._on_behalf_of
        knows = asker is not None and all(may_contribute(asker, leaf.repository) for leaf in secret)
        if owner is not None and owner.is_readable:
            line |= {"outcome": "not asked", "hidden_by": owner.key, "because": "a local member holds the name"}
        elif owner is not None and knows:
            line |= {"outcome": "not asked", "because": "a local member that the caller may not read holds the name"}
        elif secret and not knows and self._handler.virtual_by_name:
            held = {"repository": line["repository"], "type": line["type"]}
            line.clear()
            line |= held | {"outcome": "asked, unless a local member holds the name"}

    def _hidden_versions(
        self, ref: FileRef | TagRef | VersionRef | ListingRef, leaves: Sequence[_Leaf]
    ) -> Mapping[str, Mapping[str, str]]:
        """Of each member: its versions (with a FileRef: that of the file) that an earlier member has, and which has it."""
        is_about = isinstance(ref, FileRef) or (isinstance(ref, ListingRef) and ref.kind == "versions")
        if not self._handler.is_listed or not is_about:
            return {}
        about = ListingRef("versions", ref.package)
        known = [(leaf, listing) for leaf in leaves if (listing := leaf.known(about)) is not None]
        winners = self._winners(known)
        found: dict[str, dict[str, str]] = {}
        for leaf, listing in known:
            for entry in listing.entries:
                winner = winners[self._handler.version_identity(entry.name)][0]
                has_file = not isinstance(ref, FileRef) or any(file.path == ref.path for file in entry.files)
                if winner is not leaf and has_file:
                    found.setdefault(leaf.key, {})[entry.name] = winner.key
        return found

    def _mark_answering(self, ref: FileRef | TagRef | VersionRef | ListingRef, lines: list[dict[str, object]]) -> None:
        if isinstance(ref, ListingRef):
            for line in lines:
                if _gives(line):
                    line["answers"] = True
            return
        name = ref.path if isinstance(ref, FileRef) else ref.version if isinstance(ref, VersionRef) else ""
        ordered = lines
        if self._handler.version_by_digest and looks_like_digest(name):
            ordered = sorted(lines, key=lambda line: _GIVES.index(str(line["outcome"])) // 2 if _gives(line) else 2)
        for line in ordered:
            if _gives(line):
                line["answers"] = True
                return
            if line["outcome"] == "cannot be asked" and self._is_strict and ordered is lines:
                line["because"] = "the repository is strict: without this member there is no answer"
                return


def _with_files_of(entry: Entry, later: Entry) -> Entry:
    paths = {file.path for file in entry.files}
    return replace(entry, files=(*entry.files, *(file for file in later.files if file.path not in paths)))


def _gives(line: Mapping[str, object]) -> bool:
    return line["outcome"] in _GIVES


def _place(entry: Entry) -> bytes:
    """Where an entry stands among the names of all members: as in each member, a folder behind its slash."""
    return (f"{entry.name}/" if entry.kind == "folder" else entry.name).encode()


def _weakest(marks: Iterable[Freshness | None]) -> Freshness | None:
    """Of the members' documents: what is stale makes the whole stale."""
    return reduce(weaker, filter(None, marks), None)
