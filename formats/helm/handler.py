"""The Helm format handler: routes and the error envelope."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

import orjson

from repoman.core import errors
from repoman.core.actor import Action
from repoman.core.errors import NotFound, RepomanError, message_of
from repoman.core.fetch import Ref, UpstreamRequest
from repoman.core.format import FormatHandler
from repoman.core.records import Document, Facts, Frame, Listing
from repoman.core.refs import FileRef, ListingRef
from repoman.core.served import SANDBOXED
from repoman.core.wire import Response, Route

from . import listing, names, package, views

INDEX_BYTES = 128 * 1024 * 1024
_ACCEPT = "application/x-yaml, application/yaml;q=0.9, text/yaml;q=0.9, */*;q=0.5"
_FILE = r"(?:charts/)?(?P<file>[^/]+\.tgz(?:\.prov)?)"
_FILE_OF = r"charts/(?P<name>[^/]+)/(?P<file>[^/]+\.tgz(?:\.prov)?)"
_CHART = r"api/charts/(?P<name>[^/]+)"
_VERSION = _CHART + r"/(?P<version>[^/]+)"
_READ = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class HelmOptions:
    """`allow_overwrite`: whoever may delete can replace a chart by sending it with `force`."""

    allow_overwrite: bool = False


class Helm(FormatHandler):
    name: ClassVar[str] = "helm"
    prefix: ClassVar[str] = "helm"
    options: ClassVar[type] = HelmOptions
    versions_own_files: ClassVar[bool] = True
    is_listed: ClassVar[bool] = True
    is_indexed: ClassVar[bool] = True
    names_differ_by_case: ClassVar[bool] = False
    routes: ClassVar[tuple[Route, ...]] = (
        Route(_READ, r"index\.yaml", Action.READ, views.index, name="index", by_revision=True, ref=views.index_ref),
        *(
            Route(
                _READ,
                pattern,
                Action.READ,
                views.file,
                hot=views.hot_file,
                hot_headers=views.file_headers,
                name=name,
                ref=views.file_ref,
            )
            for name, pattern in (("file", _FILE), ("file_of", _FILE_OF))
        ),
        Route(("PUT",), _FILE, Action.PUBLISH, views.put_file, admit=views.admit_file, name="put"),
        Route(("PUT",), _FILE_OF, Action.PUBLISH, views.put_file, admit=views.admit_file, name="put_of"),
        Route(_READ, r"api/charts/?", Action.READ, views.charts, name="charts", ref=lambda: views.INDEX),
        Route(
            ("POST",), r"api/charts/?", Action.PUBLISH, views.post_charts, admit=views.admit_charts, name="post_chart"
        ),
        Route(
            ("POST",),
            r"api/prov/?",
            Action.PUBLISH,
            views.post_provenance,
            admit=views.admit_provenance,
            name="post_provenance",
        ),
        Route(_READ, _CHART, Action.READ, views.chart, name="chart", by_revision=True, ref=views.chart_ref),
        Route(
            _READ,
            _VERSION,
            Action.READ,
            views.chart_version,
            name="chart_version",
            by_revision=True,
            ref=views.chart_ref,
        ),
        Route(("DELETE",), _VERSION, Action.DELETE, views.delete, name="delete"),
        Route(_READ, _VERSION + "/templates", Action.READ, views.templates, name="templates", ref=views.chart_ref),
        Route(_READ, _VERSION + "/values", Action.READ, views.values, name="values", ref=views.chart_ref),
        Route(_READ, r"health", Action.READ, views.health, name="health"),
        Route(_READ, r"info", Action.READ, views.info, name="info"),
        Route(_READ, r"", Action.READ, views.not_the_index, name="index_hint"),
    )

    def error(self, error: RepomanError, *, mount: str, head: bool) -> Response:
        """ChartMuseum's `{"error": …}`, with the sentence; what its clients know by other words has those."""
        text = message_of(error)
        found: dict[str, object] = {"error": text, "code": error.code}
        if isinstance(error, errors.AuthenticationRequired):
            found |= {"error": "unauthorized", "message": text}
        if error.detail:
            found["detail"] = dict(error.detail)
        headers = [views.JSON, *SANDBOXED, ("Cache-Control", "no-store")]
        return Response(error.status, headers, orjson.dumps(found, default=str))

    def normalize(self, name: str) -> str:
        return names.check_name(name)

    def version_key(self, version: str) -> Any:
        return names.version_key(version)

    def render_listing(self, ref: ListingRef, listed: Listing, form: str, address: str) -> Document:
        return listing.render(ref, listed, form, address)

    def render_part(self, package: str, listed: Listing, form: str) -> bytes:
        return listing.part(package, listed)

    def frame(self, form: str, changed_at: datetime.datetime | None, address: str) -> Frame:
        return listing.frame(form, changed_at, address)

    def inspect(self, path: str, file: BinaryIO, size: int) -> Facts:
        return package.inspect(path, file, size)

    def upstream(self, ref: Ref, options: Any) -> UpstreamRequest:
        """The index, which says everything; files have the addresses in it."""
        if isinstance(ref, ListingRef) and ref.kind in ("packages", "versions"):
            return UpstreamRequest(path="index.yaml", accept=_ACCEPT, is_document=True, limit=INDEX_BYTES)
        raise NotFound("the upstream's index does not list that")

    def begins_with(self, ref: FileRef) -> bytes:
        return package.GZIP if ref.path.endswith(names.CHART) else b""

    def parse_listing(self, ref: ListingRef, body: bytes, *, url: str, media_type: str) -> Listing:
        return listing.parse(ref, body, url=url)

    def split_index(self, body: bytes, *, url: str, media_type: str) -> Iterator[tuple[str, Listing]]:
        return listing.split(body, url=url)
