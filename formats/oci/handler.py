"""The OCI format handler: routes, challenge, scopes and the error envelope."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit

from repoman.core import errors
from repoman.core.actor import Action
from repoman.core.errors import RepomanError, message_of
from repoman.core.fetch import Ref, UpstreamRequest
from repoman.core.format import FormatHandler
from repoman.core.records import Listing, NewVersion
from repoman.core.refs import ListingRef, TagRef, VersionRef
from repoman.core.wire import Response, Route, SiteRoute

from . import upstream, views
from .names import check_image, is_image

DETAILS_MOST = 1_000
_IMAGE = r"(?P<image>.+)"
_BLOB = _IMAGE + r"/blobs/(?P<digest>[^/]+)"
_MANIFEST = _IMAGE + r"/manifests/(?P<reference>[^/]+)"
_UPLOADS = _IMAGE + r"/blobs/uploads/?"
_UPLOAD = _IMAGE + r"/blobs/uploads/(?P<upload_id>[^/]+)"
# Read from the right-hand end, so that an image may have parts called blobs, manifests, tags or uploads.
_ADDRESS = re.compile(
    r"(?P<image>.+)/(?:manifests/[^/]+|blobs/uploads/?|(?P<session>blobs/uploads/[^/]+)|blobs/[^/]+|tags/list|"
    r"referrers/[^/]+)\Z"
)

# The codes of distribution-spec "Error Codes", the most specific class first; 5xx and unknown causes have none there.
_CODES: tuple[tuple[type[RepomanError], str], ...] = (
    (errors.NameInvalid, "NAME_INVALID"),
    (errors.DigestInvalid, "DIGEST_INVALID"),
    (errors.SizeInvalid, "SIZE_INVALID"),
    (errors.ContentInvalid, "MANIFEST_INVALID"),
    (errors.ContentMissing, "MANIFEST_BLOB_UNKNOWN"),
    (errors.AuthenticationRequired, "UNAUTHORIZED"),
    (errors.Forbidden, "DENIED"),
    (errors.VersionNotFound, "MANIFEST_UNKNOWN"),
    (errors.FileNotFound, "BLOB_UNKNOWN"),
    (errors.UploadNotFound, "BLOB_UPLOAD_UNKNOWN"),
    (errors.NotFound, "NAME_UNKNOWN"),
    (errors.Conflict, "DENIED"),
    (errors.TooLarge, "SIZE_INVALID"),
    (errors.RangeInvalid, "BLOB_UPLOAD_INVALID"),
    (errors.TooManyRequests, "TOOMANYREQUESTS"),
    (errors.BadRequest, "UNSUPPORTED"),
    (errors.MethodNotAllowed, "UNSUPPORTED"),
    (errors.PreconditionFailed, "UNSUPPORTED"),
    (errors.UpstreamFailed, "UNAVAILABLE"),
    (errors.UpstreamTimeout, "UNAVAILABLE"),
    (errors.Unavailable, "UNAVAILABLE"),
    (errors.StorageFull, "UNAVAILABLE"),
)


@dataclass(frozen=True, slots=True)
class OciOptions:
    """`allow_sparse_manifests`: manifests may name blobs and children that are not here. `immutable_tags`: patterns

    (`*` and `?` as in file names) of tags that never move once set.
    """

    allow_sparse_manifests: bool = False
    immutable_tags: tuple[str, ...] = ()


class Oci(FormatHandler):
    name: ClassVar[str] = "oci"
    prefix: ClassVar[str] = "v2"
    options: ClassVar[type] = OciOptions
    version_by_digest: ClassVar[bool] = True
    site_routes: ClassVar[tuple[SiteRoute, ...]] = (
        SiteRoute(("GET", "HEAD"), "/v2/", Action.PUBLIC, views.ping, name="ping"),
        SiteRoute(("GET", "HEAD"), "/v2", Action.PUBLIC, views.ping, name="ping_without_slash"),
        SiteRoute(("GET", "HEAD"), "/v2/_catalog", Action.PUBLIC, views.catalog, name="catalog"),
    )
    routes: ClassVar[tuple[Route, ...]] = (
        Route(
            ("GET", "HEAD"),
            _MANIFEST,
            Action.READ,
            views.get_manifest,
            hot=views.hot_manifest,
            hot_headers=views.manifest_headers,
            name="manifest",
            ref=views.manifest_ref,
        ),
        Route(
            ("GET",),
            _BLOB,
            Action.READ,
            views.get_blob,
            hot=views.hot_blob,
            hot_headers=views.blob_headers,
            name="blob",
            ref=views.blob_ref,
        ),
        # No short cut: a 200 here is a promise that the service has to write down.
        Route(("HEAD",), _BLOB, Action.PROBE, views.get_blob, name="blob_probe"),
        Route(("POST",), _UPLOADS, Action.PUBLISH, views.start_upload, admit=views.admit_start, name="upload_start"),
        Route(("PATCH",), _UPLOAD, Action.PUBLISH, views.append_chunk, admit=views.admit_chunk, name="upload_chunk"),
        Route(("PUT",), _UPLOAD, Action.PUBLISH, views.finish_upload, admit=views.admit_finish, name="upload_finish"),
        Route(("GET", "HEAD"), _UPLOAD, Action.PUBLISH, views.upload_status, name="upload_status"),
        Route(("DELETE",), _UPLOAD, Action.PUBLISH, views.cancel_upload, name="upload_cancel"),
        Route(
            ("PUT",), _MANIFEST, Action.PUBLISH, views.put_manifest, admit=views.admit_manifest, name="manifest_push"
        ),
        Route(
            ("GET", "HEAD"),
            _IMAGE + r"/tags/list",
            Action.READ,
            views.list_tags,
            ref=views.tags_ref,
            name="tags",
            by_revision=True,
        ),
        Route(
            ("GET", "HEAD"),
            _IMAGE + r"/referrers/(?P<digest>[^/]+)",
            Action.READ,
            views.list_referrers,
            name="referrers",
            by_revision=True,
            ref=views.referrers_ref,
        ),
        Route(("DELETE",), _MANIFEST, Action.DELETE, views.delete_manifest, name="manifest_delete"),
        Route(("DELETE",), _BLOB, Action.DELETE, views.delete_blob, name="blob_delete"),
        Route(
            ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"),
            r"(?:manifests/[^/]+|blobs/.+|blobs/uploads/?|tags/list|referrers/[^/]+)",
            Action.READ,
            views.no_image,
            name="no_image",
        ),
    )

    def upstream_base(self, url: str) -> str:
        return upstream.base(url)

    def upstream(self, ref: Ref, options: Any) -> UpstreamRequest:
        return upstream.request(ref)

    def parse_listing(self, ref: ListingRef, body: bytes, *, url: str, media_type: str) -> Listing:
        return upstream.parse_listing(ref, body)

    def told_version(self, headers: Mapping[str, str]) -> str:
        return upstream.told_version(headers)

    def parse_version(self, ref: VersionRef | TagRef, body: bytes, headers: Mapping[str, str]) -> NewVersion:
        return upstream.parse_version(ref, body, headers)

    def error(self, error: RepomanError, *, mount: str, head: bool) -> Response:
        """`{"errors": [{code, message, detail}]}` (distribution-spec "Error Codes"), never an empty list.

        The document is the same for HEAD, whose body the edge leaves out: its length is then true.
        """
        code = next((code for kind, code in _CODES if isinstance(error, kind)), "UNKNOWN")
        items: list[dict[str, object]] = []
        missing = error.detail.get("missing")
        if isinstance(error, errors.ContentMissing) and isinstance(missing, list | tuple) and missing:
            items = [
                {"code": code, "message": "blob or manifest unknown to this image", "detail": {"digest": str(digest)}}
                for digest in missing[:DETAILS_MOST]
            ]
        else:
            item: dict[str, object] = {"code": code, "message": message_of(error)}
            if error.detail:
                item["detail"] = dict(error.detail)
            items = [item]
        headers = [("Content-Type", "application/json"), *views.FRESH]
        offset = error.detail.get("offset")
        if isinstance(error, errors.RangeInvalid) and isinstance(offset, int):
            headers.append(("Range", views.upload_range(offset)))
        return Response(error.status, headers, json.dumps({"errors": items}, default=str).encode())

    def challenge(self, error: RepomanError, *, base_url: str, scope: str) -> str:
        """One Bearer challenge, every value quoted: oras reads the first only, jib's parser knows quoted values only.

        `error` is named only if a token was presented and is the problem (RFC 6750 §3).
        """
        parts = [f'realm="{base_url}/token"', f'service="{urlsplit(base_url).netloc}"']
        if scope:
            parts.append(f'scope="{scope}"')
        if isinstance(error, errors.ScopeInsufficient):
            parts.append('error="insufficient_scope"')
        elif isinstance(error, errors.CredentialsInvalid):
            parts.append('error="invalid_token"')
        return "Bearer " + ",".join(parts)

    def scope_of(self, key: str, method: str, path: str) -> str:
        """`repository:<ns/repo/image>:<actions>`; for the catalog (no key) `registry:catalog:*`; "" where none fits.

        Whoever pushes is asked for pull as well, and whoever deletes: clients look before they act.
        """
        if not key:
            return "registry:catalog:*" if path.strip("/").endswith("_catalog") else ""
        match = _ADDRESS.match(path)
        if match is None:
            return ""
        name = f"{key}/{match['image']}"
        if not is_image(name):
            return ""
        if method in ("GET", "HEAD") and match["session"] is None:
            actions = "pull"
        elif method == "DELETE" and match["session"] is None:
            actions = "pull,delete"
        else:
            actions = "pull,push"
        return f"repository:{name}:{actions}"

    def normalize(self, name: str) -> str:
        return check_image(name)

    def client_url(self, base_url: str, key: str) -> str:
        """`host/ns/repo`: what image references start with; they have no scheme."""
        return f"{urlsplit(base_url).netloc}/{key}"
