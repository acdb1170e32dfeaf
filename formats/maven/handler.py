"""The Maven format handler: routes and what the core asks of a format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, BinaryIO, ClassVar
from urllib.parse import quote

from repoman.core.actor import Action
from repoman.core.errors import BadRequest, FileNotFound, NotFound, RepomanError, message_of
from repoman.core.fetch import Ref, UpstreamRequest
from repoman.core.format import FormatHandler
from repoman.core.problem import problem
from repoman.core.records import Document, Facts, Gather, Gathered, Listing
from repoman.core.refs import FileRef, ListingRef
from repoman.core.wire import Response, Route

from . import complete, listing, package, plugins, uploads, versions, views
from .names import (
    ALGORITHMS,
    METADATA,
    build_order,
    check_target,
    folder_of,
    is_beside,
    place_of,
    split_checksum,
    split_package,
)

POLICIES = ("mixed", "release", "snapshot")
_PATH = r"(?P<path>.*)"


@dataclass(frozen=True, slots=True)
class MavenOptions:
    """`allow_redeploy`: other bytes may replace a release's file, by those who may delete. `version_policy`: "mixed",
    "release" or "snapshot". `keep_snapshots`: how many builds of each snapshot stay; 0: all. `check_pom`: a POM that is
    about something else than its address is refused."""

    allow_redeploy: bool = False
    version_policy: str = "mixed"
    keep_snapshots: int = 0
    check_pom: bool = True


class Maven(FormatHandler):
    name: ClassVar[str] = "maven"
    prefix: ClassVar[str] = "maven"
    options: ClassVar[type] = MavenOptions
    versions_own_files: ClassVar[bool] = True
    files_may_wait: ClassVar[bool] = True
    names_differ_by_case: ClassVar[bool] = False
    digests: ClassVar[tuple[str, ...]] = ALGORITHMS
    routes: ClassVar[tuple[Route, ...]] = (
        Route(
            ("GET", "HEAD"),
            _PATH,
            Action.READ,
            views.get,
            hot=views.hot,
            hot_headers=views.file_headers,
            name="file",
            hot_options=True,
            hot_dated=True,
            by_revision=True,
            ref=views.ref,
        ),
        Route(("PUT",), _PATH, Action.PUBLISH, uploads.put, admit=uploads.admit_put, name="file_put"),
        Route(("DELETE",), _PATH, Action.DELETE, uploads.delete, name="file_delete"),
    )

    def error(self, error: RepomanError, *, mount: str, head: bool) -> Response:
        """RFC 9457, which newer clients print; the older ones show the reason phrase alone (R1 to R3).

        Except for what is not there: Maven 3.9.10 to 3.9.16 take any problem for a failure, whatever its status, and would
        give up a first deploy, which begins by asking for metadata.
        """
        answer = problem(error, says_reason=True)
        if answer.status != HTTPStatus.NOT_FOUND:
            return answer
        headers = [("Content-Type", "text/plain; charset=utf-8"), *answer.headers[1:]]
        return replace(answer, headers=headers, content=f"{message_of(error)}\n".encode())

    def parse_options(self, given: Mapping[str, object]) -> Any:
        found = super().parse_options(given)
        if found.version_policy not in POLICIES:
            raise BadRequest(f"option 'version_policy' is one of {', '.join(POLICIES)}")
        return found

    def normalize(self, name: str) -> str:
        split_package(name)
        return name

    def plain_target(self, raw_path: bytes) -> bytes:
        if b"%" in raw_path:
            check_target(raw_path)
        return raw_path

    def version_key(self, version: str) -> Any:
        return versions.version_key(version)

    def has_builds(self, version: str) -> bool:
        return versions.is_snapshot(version)

    def render_listing(self, ref: ListingRef, found: Listing, form: str, address: str) -> Document:
        return listing.render(ref, found)

    def describe(self, found: Listing) -> Listing:
        return plugins.describe(found)

    def inspect(self, path: str, file: BinaryIO, size: int) -> Facts:
        return package.inspect(path, file, size)

    def complete(
        self,
        package: str,
        gather: Gather,
        files: Mapping[str, Mapping[str, object]],
        options: Any,
        *,
        named: frozenset[str] = frozenset(),
    ) -> Gathered:
        return complete.complete(package, gather, files, options.keep_snapshots, named)

    def is_beside(self, path: str, other: str) -> bool:
        return is_beside(path, other)

    def version_of(self, ref: FileRef) -> str:
        return ref.path.partition("/")[0]

    # upstreams

    def file_changes(self, ref: FileRef) -> bool:
        return place_of(ref).is_moving

    def digest_file(self, ref: FileRef, algorithm: str = "") -> tuple[str, FileRef] | None:
        """The SHA-1, which every repository has; not of signatures, which need none."""
        if not algorithm and ref.path.endswith(".asc"):
            return None
        algorithm = algorithm or "sha1"
        return algorithm, FileRef(ref.package, f"{ref.path}.{algorithm}")

    def upstream(self, ref: Ref, options: Any) -> UpstreamRequest:
        if isinstance(ref, FileRef):
            self._check_policy(ref.path.partition("/")[0], options)
            limit = uploads.CHECKSUM_BYTES if split_checksum(ref.path)[1] else listing.METADATA_BYTES
            return UpstreamRequest(_quoted(folder_of(ref.package) + ref.path), limit=limit)
        if isinstance(ref, ListingRef) and ref.kind in ("releases", "version"):
            version = ref.argument("version")
            self._check_policy(version, options)
            path = folder_of(ref.package) + (f"{version}/" if version else "") + METADATA
            return UpstreamRequest(_quoted(path), is_document=True, limit=listing.METADATA_BYTES)
        raise FileNotFound("a remote repository does not list folders; ask for a file by its path")

    def takes_version(self, version: str, options: Any) -> bool:
        return versions.fits(version, options.version_policy)

    def _check_policy(self, version: str, options: Any) -> None:
        if version and not self.takes_version(version, options):
            raise NotFound(f"the repository's version_policy excludes {version}")

    def parse_listing(self, ref: ListingRef, body: bytes, *, url: str, media_type: str) -> Listing:
        return listing.parse(ref, body)

    def merge_metadata(self, found: Sequence[Mapping[str, object]]) -> Mapping[str, object]:
        """The plugins of all members; which one counts where they differ is decided by their order. Of a snapshot: the
        newest build that any of them says without naming files."""
        told = [plugin for metadata in found for plugin in _listed(metadata.get("plugins"))]
        builds = [build for metadata in found if isinstance(build := metadata.get("build"), str)]
        merged = dict(found[0])
        if builds:
            merged["build"] = max(builds, key=build_order)
        return {**merged, "plugins": told} if told else merged


def _listed(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else ()


def _quoted(path: str) -> str:
    return quote(path, safe="/~!$&'()*+,;=@:")
