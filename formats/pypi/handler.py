"""The PyPI format handler: routes and the error envelope."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

from repoman.core import errors
from repoman.core.actor import Action
from repoman.core.errors import NotFound, RepomanError, message_of
from repoman.core.fetch import Ref, UpstreamRequest
from repoman.core.format import FormatHandler
from repoman.core.problem import reason_phrase
from repoman.core.records import Document, Facts, Listing
from repoman.core.refs import ListingRef
from repoman.core.served import SANDBOXED
from repoman.core.wire import Response, Route, SiteRoute

from . import listing as pages
from . import names, package, views

ROOT_BYTES = 512 * 1024 * 1024  # an index of all projects of the public index has tens of megabytes
_ACCEPT = f"{pages.SIMPLE_JSON}, {pages.SIMPLE_HTML};q=0.2, {pages.TEXT_HTML};q=0.1"
_PROJECT = r"(?P<project>[^/]+)"
_READ = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class PypiOptions:
    """`check_record`: a wheel whose RECORD does not match its content is refused."""

    check_record: bool = True


class Pypi(FormatHandler):
    name: ClassVar[str] = "pypi"
    prefix: ClassVar[str] = "pypi"
    options: ClassVar[type] = PypiOptions
    versions_own_files: ClassVar[bool] = True
    burns: ClassVar[str] = "file"
    is_listed: ClassVar[bool] = True
    annotations: ClassVar[frozenset[str]] = frozenset({"yanked", "yanked_reason"})
    # Clients ask the host for these whatever the repository's address is.
    site_routes: ClassVar[tuple[SiteRoute, ...]] = (
        SiteRoute(("GET",), "/_/oidc/audience", Action.PUBLIC, views.no_trusted_publishing, name="oidc_audience"),
        SiteRoute(("POST",), "/_/oidc/mint-token", Action.PUBLIC, views.no_trusted_publishing, name="oidc_mint"),
        SiteRoute(("GET",), "/.well-known/pytp", Action.PUBLIC, views.no_trusted_publishing, name="oidc_discovery"),
    )
    routes: ClassVar[tuple[Route, ...]] = (
        Route(_READ, r"simple/", Action.READ, views.root, name="index", by_revision=True, ref=views.page_ref),
        Route(_READ, r"simple", Action.READ, views.root_without_slash, name="index_slash"),
        Route(
            _READ,
            rf"simple/{_PROJECT}/",
            Action.READ,
            views.project,
            name="project",
            by_revision=True,
            ref=views.page_ref,
        ),
        Route(_READ, rf"simple/{_PROJECT}", Action.READ, views.project_without_slash, name="project_slash"),
        Route(_READ, rf"\+simple/{_PROJECT}/?", Action.READ, views.hatch_page, name="hatch_page", ref=views.page_ref),
        # A file's name has a dot, so that the project `files` keeps its JSON API.
        Route(
            _READ,
            rf"files/{_PROJECT}/(?P<filename>[^/]+\.[^/]+)",
            Action.READ,
            views.file,
            hot=views.hot_file,
            hot_headers=views.file_headers,
            name="file",
            ref=views.file_ref,
        ),
        Route(
            _READ,
            rf"integrity/{_PROJECT}/(?P<version>[^/]+)/(?P<filename>[^/]+)/provenance",
            Action.READ,
            views.provenance,
            name="provenance",
            ref=views.provenance_ref,
        ),
        # Uploads are never redirected: twine and Poetry do not follow a redirect of a POST.
        Route(
            ("POST",), r"(?:(?:legacy|upload)/?)?", Action.PUBLISH, views.put, admit=views.admit_upload, name="upload"
        ),
        Route(_READ, r"(?:(?:legacy|upload)/?)?", Action.READ, views.not_the_index, name="upload_hint"),
        Route(
            ("POST",),
            r"simple(?:/.*)?",
            Action.READ,
            views.not_for_uploads,
            admit=views.admit_to_index,
            name="index_hint",
        ),
        Route(_READ, rf"{_PROJECT}/json/?", Action.READ, views.api, name="api", by_revision=True, ref=views.page_ref),
        Route(
            _READ,
            rf"{_PROJECT}/(?P<version>[^/]+)/json/?",
            Action.READ,
            views.api,
            name="api_version",
            by_revision=True,
            ref=views.page_ref,
        ),
        Route(_READ, rf"{_PROJECT}/?", Action.READ, views.not_a_project, name="project_hint"),
    )

    def error(self, error: RepomanError, *, mount: str, head: bool) -> Response:
        """One sentence as text, and as the reason phrase: twine and pip show nothing else. A conflict is 400: Flit
        fails on 409, and `--skip-existing` knows the words `File already exists` (see README.md)."""
        status = 400 if isinstance(error, errors.Conflict) else error.status
        message = message_of(error).strip().rstrip(".")
        headers = [("Content-Type", views.PLAIN_TEXT), *SANDBOXED, ("Cache-Control", "no-store")]
        return Response(status, headers, f"{message}\n".encode("utf-8", "replace"), reason=reason_phrase(message))

    def normalize(self, name: str) -> str:
        return names.normalize(name)

    def version_key(self, version: str) -> Any:
        return names.version_key(version)

    def version_identity(self, version: str) -> Any:
        return names.parse_version(version) or version

    def render_listing(self, ref: ListingRef, listing: Listing, form: str, address: str) -> Document:
        return pages.render(ref, listing, form, address)

    def parse_listing(self, ref: ListingRef, body: bytes, *, url: str, media_type: str) -> Listing:
        return pages.parse(ref, body, url=url, media_type=media_type)

    def inspect(self, path: str, file: BinaryIO, size: int) -> Facts:
        return package.inspect(path, file, size)

    def upstream(self, ref: Ref, options: Any) -> UpstreamRequest:
        """Pages only; files have the addresses that pages say. The path is relative to the remote's index."""
        if isinstance(ref, ListingRef) and ref.kind == "versions":
            return UpstreamRequest(path=f"{names.known_name(ref.package)}/", accept=_ACCEPT, is_document=True)
        if isinstance(ref, ListingRef) and ref.kind == "packages":
            return UpstreamRequest(path="", accept=_ACCEPT, is_document=True, limit=ROOT_BYTES)
        raise NotFound("the upstream's index does not list that")
