"""The three kinds of thing a client can ask a repository for. Naming which one is all a source needs."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file whose content is fixed: a layer, a tarball, a raw file. `path` is unique in its package."""

    package: str
    path: str


@dataclass(frozen=True, slots=True)
class VersionRef:
    """One immutable release of a package; for OCI, one manifest by its digest."""

    package: str
    version: str


@dataclass(frozen=True, slots=True)
class TagRef:
    """A mutable pointer to a version: an OCI tag, an npm dist-tag."""

    package: str
    tag: str


@dataclass(frozen=True, slots=True)
class ListingRef:
    """A computed document. `kind` is the format's own word ("tags", "referrers", "folder"), `package` what it is about.

    `after` and `limit` page through it in byte order; `arguments` are the format's own filters, but for those that say
    what it is about.

    Kinds that every repository has of what was published in it: "versions" (of a package, with their files), "releases"
    (the same by name alone), "version" (one of them), "files" (of a package, `under` a prefix), "packages" (with `q` in
    their names, or `under` a prefix), "tags", "referrers", "folder".
    """

    kind: str
    package: str = ""
    after: str = ""
    limit: int | None = None
    arguments: tuple[tuple[str, str], ...] = field(default=())

    @property
    def about(self) -> tuple[tuple[str, str], ...]:
        """The arguments that choose the listing, instead of entries out of it: "subject", and one named as the kind."""
        return tuple(item for item in self.arguments if item[0] in ("subject", self.kind))

    def argument(self, name: str) -> str:
        """The first value of that name; "" where there is none."""
        return next((value for key, value in self.arguments if key == name), "")
