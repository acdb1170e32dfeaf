"""The generic format handler: routes and the error envelope."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import quote

from repoman.core import errors
from repoman.core.actor import Action
from repoman.core.errors import FileNotFound, RepomanError
from repoman.core.fetch import Ref, UpstreamRequest
from repoman.core.format import FormatHandler
from repoman.core.problem import problem
from repoman.core.refs import FileRef
from repoman.core.wire import Response, Route, SiteRoute

from . import views
from .checksums import ChecksumMismatch
from .content import file_headers
from .names import check_file

_PATH = r"(?P<path>.*)"


@dataclass(frozen=True, slots=True)
class GenericOptions:
    """`allow_overwrite`: other bytes may replace a file, by those who may delete."""

    allow_overwrite: bool = True


class Generic(FormatHandler):
    name: ClassVar[str] = "generic"
    prefix: ClassVar[str] = "generic"
    options: ClassVar[type] = GenericOptions
    files_are_packages: ClassVar[bool] = True
    site_routes: ClassVar[tuple[SiteRoute, ...]] = ()
    routes: ClassVar[tuple[Route, ...]] = (
        Route(
            ("GET", "HEAD"),
            _PATH,
            Action.READ,
            views.get,
            hot=views.hot,
            hot_headers=file_headers,
            name="file",
            hot_dated=True,
            by_revision=True,
            ref=views.ref,
        ),
        Route(("PUT",), _PATH, Action.PUBLISH, views.put, admit=views.admit_put, name="file_put"),
        Route(("DELETE",), _PATH, Action.DELETE, views.delete, name="file_delete"),
    )

    def error(self, error: RepomanError, *, mount: str, head: bool) -> Response:
        if isinstance(error, errors.DigestInvalid):
            # Declared checksums are parsed here, so this is the edge saying that the bytes do not have theirs.
            return problem(error, status=ChecksumMismatch.status, code=ChecksumMismatch.code)
        return problem(error)

    def normalize(self, name: str) -> str:
        return check_file(name)

    def file_changes(self, ref: FileRef) -> bool:
        return True

    def upstream(self, ref: Ref, options: Any) -> UpstreamRequest:
        """Files under the same path; folders are not listed (an upstream's page is for people)."""
        if not isinstance(ref, FileRef):
            raise FileNotFound("a remote repository does not list folders; ask for a file by its path")
        return UpstreamRequest(quote(ref.path, safe="/~!$&'()*+,;=:@"))
