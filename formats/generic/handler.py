"""The generic format handler: routes and the error envelope."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar
from urllib.parse import quote

from repoman.core import errors
from repoman.core.actor import Action
from repoman.core.errors import FileNotFound, RepomanError
from repoman.core.fetch import Ref, UpstreamRequest
from repoman.core.format import FormatHandler
from repoman.core.refs import FileRef
from repoman.core.wire import Response, Route, SiteRoute

from . import views
from .checksums import ChecksumMismatch
from .content import file_headers
from .names import check_file

_PATH = r"(?P<path>.*)"
_KEPT = frozenset({"type", "title", "status", "code", "detail"})


@dataclass(frozen=True, slots=True)
class GenericOptions:
    """`allow_overwrite`: other bytes may replace a file, by those who may delete."""

    allow_overwrite: bool = True


class Generic(FormatHandler):
    name: ClassVar[str] = "generic"
    prefix: ClassVar[str] = "generic"
    options: ClassVar[type] = GenericOptions
    files_are_packages: ClassVar[bool] = True
    files_change: ClassVar[bool] = True
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
        """RFC 9457 problem details with a stable `code`. The same for HEAD, whose body the edge leaves out."""
        status, code = error.status, error.code
        if isinstance(error, errors.DigestInvalid):
            # Declared checksums are parsed here, so this is the edge saying that the bytes do not have theirs.
            status, code = ChecksumMismatch.status, ChecksumMismatch.code
        problem: dict[str, object] = {
            "type": "about:blank",
            "title": _title(status),
            "status": status,
            "code": code,
            "detail": error.message,
        }
        problem.update((key, value) for key, value in error.detail.items() if key not in _KEPT)
        headers = [("Content-Type", "application/problem+json"), *views.PLAIN]
        retry_after = getattr(error, "retry_after_seconds", None)
        if retry_after is not None:
            headers.append(("Retry-After", str(retry_after)))
        allow = error.detail.get("allow")
        if isinstance(allow, list | tuple):
            headers.append(("Allow", ", ".join(str(method) for method in allow)))
        size = error.detail.get("size")
        if isinstance(error, errors.RangeInvalid) and isinstance(size, int):
            headers.append(("Content-Range", f"bytes */{size}"))
        return Response(status, headers, json.dumps(problem, default=_plain).encode())

    def normalize(self, name: str) -> str:
        return check_file(name)

    def upstream(self, ref: Ref, options: Any) -> UpstreamRequest:
        """Files under the same path; folders are not listed (an upstream's page is for people)."""
        if not isinstance(ref, FileRef):
            raise FileNotFound("a remote repository does not list folders; ask for a file by its path")
        return UpstreamRequest(quote(ref.path, safe="/~!$&'()*+,;=:@"))


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _plain(value: object) -> object:
    """JSON for what `detail` may hold besides plain data."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset | tuple):
        return sorted(str(item) for item in value)
    return str(value)
