"""The npm format handler: routes, challenge and the error envelope. Section numbers are those of README.md's contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

import orjson

from repoman.core.actor import Action
from repoman.core.errors import NotFound, RepomanError, message_of
from repoman.core.fetch import Ref, UpstreamRequest
from repoman.core.format import FormatHandler
from repoman.core.records import Document, Facts, Listing
from repoman.core.refs import ListingRef
from repoman.core.wire import Response, Route

from . import accounts, audit, changes, listing, names, package, search, views

KEYS_BYTES = 256 * 1024
# `/-/…` is the registry's own space: no name begins with a dash (2.7).
_NAME = r"(?P<name>@[^/]+/[^/]+|[^@/-][^/]*)"
_FILE = rf"{_NAME}/-/(?:(?P<again>@[^/]+)/)?(?P<file>[^/]+)"  # all three forms of 2.2
_REVISION = r"/-rev/(?P<revision>[^/]+)"
_ABOUT = r"-/package/(?P<name>@[^/]+/[^/]+|[^/]+)"
_USER = r"-/user/org\.couchdb\.user:(?P<username>[^/]+)"
_READ = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class NpmOptions:
    """`immutable_tags`: patterns (`*` and `?` as in file names) of dist-tags that never move once set."""

    immutable_tags: tuple[str, ...] = ()


class Npm(FormatHandler):
    name: ClassVar[str] = "npm"
    prefix: ClassVar[str] = "npm"
    options: ClassVar[type] = NpmOptions
    versions_own_files: ClassVar[bool] = True
    burns: ClassVar[str] = "version"
    is_listed: ClassVar[bool] = True
    annotations: ClassVar[frozenset[str]] = frozenset({"deprecated"})
    names_differ_by_case: ClassVar[bool] = False
    routes: ClassVar[tuple[Route, ...]] = (
        # packages (3, 5)
        Route(
            _READ,
            _NAME + "/?",
            Action.READ,
            views.packument,
            name="packument",
            by_revision=True,
            ref=views.packument_ref,
        ),
        Route(
            _READ,
            _FILE,
            Action.READ,
            views.tarball,
            hot=views.hot_tarball,
            hot_headers=views.tarball_headers,
            name="tarball",
            ref=views.tarball_ref,
        ),
        Route(
            _READ,
            _NAME + r"/(?P<selector>[^/]+)/?",
            Action.READ,
            views.version,
            name="version",
            ref=views.version_ref,
            by_revision=True,
        ),
        # publishing and changing (6, 7)
        Route(("PUT",), _NAME, Action.PUBLISH, changes.put, admit=changes.admit_put, name="publish"),
        Route(
            ("PUT",),
            _NAME + _REVISION,
            Action.DELETE,
            changes.put_revision,
            admit=changes.admit_document,
            name="change",
        ),
        Route(("DELETE",), _NAME + _REVISION, Action.DELETE, changes.delete_package, name="unpublish"),
        Route(("DELETE",), _FILE + _REVISION, Action.DELETE, changes.delete_tarball, name="tarball_delete"),
        Route(
            _READ,
            _ABOUT + "/dist-tags",
            Action.READ,
            views.tags,
            name="tags",
            ref=views.packument_ref,
            by_revision=True,
        ),
        Route(
            ("PUT", "POST"),
            _ABOUT + r"/dist-tags/(?P<tag>[^/]+)",
            Action.PUBLISH,
            changes.put_tag,
            admit=changes.admit_value,
            name="tag_set",
        ),
        Route(("DELETE",), _ABOUT + r"/dist-tags/(?P<tag>[^/]+)", Action.DELETE, changes.delete_tag, name="tag_remove"),
        # who may what (7.4)
        Route(_READ, _ABOUT + "/collaborators", Action.READ, views.collaborators, name="collaborators"),
        Route(_READ, _ABOUT + "/visibility", Action.READ, views.visibility, name="visibility"),
        Route(_READ, _ABOUT + "/access", Action.READ, views.access, name="access_read"),
        Route(
            ("POST",), _ABOUT + "/access", Action.PUBLISH, changes.set_access, admit=changes.admit_value, name="access"
        ),
        Route(_READ, r"-/org/(?P<scope>[^/]+)/package", Action.READ, views.scope_packages, name="scope_packages"),
        Route(_READ, r"-/user/(?P<username>[^/:]+)/package", Action.READ, views.user_packages, name="user_packages"),
        # the repository as a whole (1.10, 9, 10, 11)
        Route(_READ, r"-/ping/?", Action.PUBLIC, views.ping, name="ping"),
        Route(_READ, r"-/v1/search/?", Action.READ, search.search, name="search"),
        Route(
            ("POST",),
            r"-/npm/v1/security/advisories/bulk/?",
            Action.READ,
            audit.bulk,
            admit=audit.admit,
            name="audit_bulk",
        ),
        Route(
            ("POST",),
            r"-/npm/v1/security/audits(?:/quick)?/?",
            Action.READ,
            audit.tree,
            admit=audit.admit,
            name="audit_tree",
        ),
        Route(_READ, r"-/npm/v1/keys/?", Action.READ, views.keys, name="keys"),
        Route(
            _READ,
            # Older clients append the whole path of the address to BASE, whose prefix then comes twice (11.10).
            r"(?:(?P<doubled>npm/[^/]+/[^/]+)/)?-/npm/v1/attestations/(?P<name>@[^/@]+/[^/@]+|[^/@]+)@(?P<version>[^/@]+)",
            Action.READ,
            views.attestations,
            name="attestations",
            ref=views.attestations_ref,
        ),
        # accounts (8)
        Route(_READ, r"-/whoami/?", Action.PUBLIC, accounts.whoami, name="whoami"),
        Route(("POST",), r"-/v1/login/?", Action.PUBLIC, accounts.no_web_login, name="web_login"),
        Route(
            ("PUT",),
            _USER + r"(?:/-rev/[^/]+)?",
            Action.PUBLIC,
            accounts.sign_in,
            admit=accounts.admit,
            name="sign_in",
        ),
        Route(_READ, _USER, Action.READ, accounts.user, name="user"),
        Route(("DELETE",), r"-/user/token/(?P<token>[^/]+)", Action.PUBLIC, accounts.sign_out, name="sign_out"),
        Route(_READ, r"-/npm/v1/user/?", Action.PUBLIC, accounts.profile, name="profile"),
        Route(_READ, r"-/npm/v1/tokens/?", Action.PUBLIC, accounts.tokens, name="tokens"),
        Route(
            ("POST",),
            r"-/npm/v1/tokens/?",
            Action.PUBLIC,
            accounts.make_token,
            admit=accounts.admit,
            name="token_make",
        ),
        Route(
            ("DELETE",),
            r"-/npm/v1/tokens/token/(?P<token>[^/]+)",
            Action.PUBLIC,
            accounts.revoke_token,
            name="token_revoke",
        ),
    )

    def error(self, error: RepomanError, *, mount: str, head: bool) -> Response:
        """The sentence in `error` and in `message`: clients print the one or the other (1.1)."""
        text = message_of(error)
        found: dict[str, object] = {"error": text, "message": text, "code": error.code}
        if error.detail:
            found["detail"] = dict(error.detail)
        headers = [("Content-Type", "application/json"), *views.FRESH]
        return Response(error.status, headers, orjson.dumps(found, default=str))

    def challenge(self, error: RepomanError, *, base_url: str, scope: str) -> str:
        """Both kinds of credentials work everywhere. npm words its advice after the first one it finds (8.3)."""
        return 'Bearer realm="Repoman", Basic realm="Repoman", charset="UTF-8"'

    def normalize(self, name: str) -> str:
        return names.check_name(name)

    def plain_target(self, raw_path: bytes) -> bytes:
        return names.plain_target(raw_path)

    def version_key(self, version: str) -> Any:
        return names.version_key(version)

    def version_identity(self, version: str) -> Any:
        return names.without_build(version)

    def render_listing(self, ref: ListingRef, listed: Listing, form: str, address: str) -> Document:
        return listing.render(ref, listed, form, address)

    def inspect(self, path: str, file: BinaryIO, size: int) -> Facts:
        return package.inspect(file)

    def upstream(self, ref: Ref, options: Any) -> UpstreamRequest:
        """The full document, from which both forms are made (12.1), and the keys behind its signatures (11.6); files come
        from the addresses in it."""
        if isinstance(ref, ListingRef) and ref.kind == "versions":
            return UpstreamRequest(
                path=names.check_name(ref.package).replace("/", "%2f"), accept="application/json", is_document=True
            )
        if ref == views.KEYS:
            return UpstreamRequest(path="-/npm/v1/keys", accept="application/json", is_document=True, limit=KEYS_BYTES)
        raise NotFound("remote npm repositories do not have that")

    def parse_listing(self, ref: ListingRef, body: bytes, *, url: str, media_type: str) -> Listing:
        return listing.parse_keys(body) if ref == views.KEYS else listing.parse(ref, body, url=url)
