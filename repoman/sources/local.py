"""Content that was published here: rows, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from repoman.catalog import selectors
from repoman.catalog.models import Repository
from repoman.core.errors import FileNotFound, NotFound, PackageNotFound, VersionNotFound
from repoman.core.format import handler_for
from repoman.core.records import FileEntry, Listing, VersionEntry
from repoman.core.refs import FileRef, ListingRef, TagRef, VersionRef

from .base import Parts, Source, digest_of


class LocalSource(Source):
    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def open(self, ref: FileRef) -> FileEntry:
        row = selectors.live_artifact(self._repository.pk, ref.package, ref.path)
        if row is None:
            raise FileNotFound(f"{self._repository.key} has no file '{ref.path}'")
        return selectors.file_entry(row)

    def digest(self, ref: FileRef, algorithm: str) -> str:
        return digest_of(self.open(ref), algorithm)

    def resolve(self, ref: TagRef | VersionRef) -> VersionEntry:
        if isinstance(ref, TagRef):
            row = selectors.live_tagged(self._repository.pk, ref.package, ref.tag)
            name = ref.tag
        else:
            row = selectors.live_version(self._repository.pk, ref.package, ref.version)
            name = ref.version
        if row is None:
            if not selectors.package_exists(self._repository.pk, ref.package):
                raise PackageNotFound(f"{self._repository.key} has no package '{ref.package}'")
            raise VersionNotFound(f"{self._repository.key}/{ref.package} has no '{name}'")
        return selectors.version_entry(row)

    def listing(self, ref: ListingRef) -> Listing:
        match ref.kind:
            case "versions" | "releases":
                read = selectors.versions if ref.kind == "versions" else selectors.releases
                found = read(self._repository.pk, ref.package)
                if found is None:
                    raise PackageNotFound(f"{self._repository.key} has no package '{ref.package}'")
                return found
            case "version":
                version = ref.argument("version")
                found = selectors.version_files(self._repository.pk, ref.package, version)
                if found is None:
                    raise VersionNotFound(f"{self._repository.key}/{ref.package} has no '{version}'")
                return found
            case "files":
                return selectors.files(
                    self._repository.pk, ref.package, under=ref.argument("under"), after=ref.after, limit=ref.limit
                )
            case "packages" if ref.argument("under"):
                found = selectors.packages_under(
                    self._repository.pk, ref.argument("under"), after=ref.after, limit=ref.limit
                )
                return handler_for(self._repository.format).describe(found)
            case "packages":
                return selectors.packages(self._repository.pk, q=ref.argument("q"), after=ref.after, limit=ref.limit)
            case "folder":
                return self._folder(ref)
            case "tags":
                tags = selectors.tags(self._repository.pk, ref.package, after=ref.after, limit=ref.limit)
                if not tags.entries and not selectors.package_exists(self._repository.pk, ref.package):
                    raise PackageNotFound(f"{self._repository.key} has no package '{ref.package}'")
                return tags
            case "referrers":
                subject = ref.argument("subject")
                types = [value for key, value in ref.arguments if key == "artifactType"]
                return selectors.referrers(
                    self._repository.pk, ref.package, subject, types, after=ref.after, limit=ref.limit
                )
        # What only upstreams have under another name.
        raise PackageNotFound(f"{self._repository.key} has no listing of the kind '{ref.kind}'")

    def first_of(self, refs: Sequence[FileRef]) -> FileRef | None:
        there = (ref for ref in refs if selectors.live_artifact(self._repository.pk, ref.package, ref.path) is not None)
        return next(there, None)

    def mark(self, ref: ListingRef) -> str:
        if ref.kind in ("versions", "releases", "version"):
            row = selectors.package(self._repository.pk, ref.package)
            if row is None:
                raise PackageNotFound(f"{self._repository.key} has no package '{ref.package}'")
            return f"{row.pk}.{row.revision}"
        return f"r{self._repository.pk}.{self._repository.revision}"

    def parts(self, ref: ListingRef) -> Parts:
        rows = selectors.package_marks(self._repository.pk)
        parts = [(name, f"p{key}.{revision}") for key, name, revision in rows]
        changed_at = selectors.last_change(self._repository.pk) or self._repository.created_at
        return Parts(parts, self._read_part, changed_at)

    def _read_part(self, package: str) -> tuple[str, Listing]:
        row = selectors.package(self._repository.pk, package)
        found = selectors.versions(self._repository.pk, package)
        return f"p{row.pk}.{row.revision}" if row is not None else "", found or Listing(())

    def explain(self, ref: FileRef | TagRef | VersionRef | ListingRef) -> list[dict[str, object]]:
        try:
            if isinstance(ref, FileRef):
                self.open(ref)
            elif isinstance(ref, ListingRef):
                self.listing(ref)
            else:
                self.resolve(ref)
        except NotFound:
            return [{"repository": self._repository.key, "type": "local", "outcome": "does not have it"}]
        return [{"repository": self._repository.key, "type": "local", "outcome": "has it"}]

    def _folder(self, ref: ListingRef) -> Listing:
        found = selectors.folder(self._repository.pk, ref.package, after=ref.after, limit=ref.limit)
        if not found.entries and ref.package and not selectors.folder_exists(self._repository.pk, ref.package):
            raise FileNotFound(f"{self._repository.key} has no folder '{ref.package}'")
        return found
