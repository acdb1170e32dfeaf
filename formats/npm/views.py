"""Reading: packuments, versions, tarballs, tags, and what clients ask about a package or the registry.

Views get `(repo, request, **captured)` and return a Response. Captured `name` is the package with its scope.
"""

from __future__ import annotations

from typing import Any

import orjson

from repoman.core.actor import Action
from repoman.core.errors import FileNotFound, NotFound, PackageNotFound, VersionNotFound
from repoman.core.format import Repo
from repoman.core.names import shown
from repoman.core.records import Listing
from repoman.core.refs import FileRef, ListingRef
from repoman.core.served import FOR_EVER
from repoman.core.wire import HotLookup, Request, Response

from . import names
from .listing import ABBREVIATED, ATTESTATIONS, FULL, INSTALL_TYPE, JSON_TYPE, TAGS, VERSION, moment

NOSNIFF = ("X-Content-Type-Options", "nosniff")
JSON = ("Content-Type", JSON_TYPE)
FRESH: tuple[tuple[str, str], ...] = (NOSNIFF, ("Cache-Control", "private, no-store"))
# Clients keep a document and ask whether it changed; where they cannot ask, they must not use it (3.4).
REVALIDATE = ("Cache-Control", "private, no-cache, must-revalidate")
# The edge adds Accept-Encoding. Not Authorization, though it would be true: npm writes what Vary names into its cache.
VARY = ("Vary", "Accept")
TARBALL_TYPE = "application/octet-stream"
PACKAGES_MOST = 1_000
KEYS = ListingRef("keys")


def answer(value: Any, status: int = 200) -> Response:
    return Response(status, [JSON, *FRESH], orjson.dumps(value))


# --- documents -------------------------------------------------------------------------------------------------------


def packument_ref(name: str) -> ListingRef:
    return ListingRef("versions", name)


def packument(repo: Repo, request: Request, name: str) -> Response:
    """3.1: the abbreviated form for whoever prefers it. `?write=true` is a read before a change (3.1.6)."""
    ref = packument_ref(names.check_name(name))
    form = ABBREVIATED if wants_abbreviated(request.headers.all("accept")) else FULL
    rendered = repo.document(ref, form, request.address)
    caching = FRESH[1] if request.query.get("write") == "true" else REVALIDATE
    return Response(200, [NOSNIFF, VARY, caching], rendered)


def version_ref(name: str, selector: str) -> ListingRef:
    return packument_ref(name)


def version(repo: Repo, request: Request, name: str, selector: str) -> Response:
    """3.5: one version by number or tag, as Corepack asks for it."""
    ref = ListingRef("versions", names.check_name(name), arguments=(("version", selector),))
    rendered = repo.document(ref, VERSION, request.address)
    return Response(200, [NOSNIFF, VARY, REVALIDATE], rendered)


def tags(repo: Repo, request: Request, name: str) -> Response:
    rendered = repo.document(ListingRef("versions", names.check_name(name)), TAGS, request.address)
    return Response(200, [NOSNIFF, VARY, REVALIDATE], rendered)


def wants_abbreviated(accept: list[str]) -> bool:
    """Whether the install form is asked for by name and full JSON is not preferred to it (RFC 9110 §12.5.1)."""
    quality = {INSTALL_TYPE: 0.0, JSON_TYPE: 0.0}
    for part in ",".join(accept)[:2048].split(","):
        essence, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if essence in quality:
            quality[essence] = _quality(parameters)
    return quality[INSTALL_TYPE] > 0 and quality[INSTALL_TYPE] >= quality[JSON_TYPE]


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                return float(value.strip()[:5])
            except ValueError:
                return 0.0
    return 1.0


# --- tarballs --------------------------------------------------------------------------------------------------------


def tarball_ref(name: str, again: str | None, file: str) -> FileRef | None:
    """None where the scope before the file's name is another one than the package's."""
    if again is not None and again != f"@{names.split(name)[0]}":
        return None
    return FileRef(name, file)


def hot_tarball(name: str, again: str | None, file: str) -> HotLookup | None:
    ref = tarball_ref(name, again, file)
    if ref is None or file.endswith(ATTESTATIONS):
        return None
    return HotLookup("file", ref.package, ref.path)


def tarball_headers(
    *, name: str, media_type: str, digest: str, captured: Any, metadata: Any = None
) -> list[tuple[str, str]]:
    """5.8. The type never depends on Accept: some clients send that of metadata (15.27)."""
    return [NOSNIFF, FOR_EVER, ("Content-Type", TARBALL_TYPE)]


def tarball(repo: Repo, request: Request, name: str, again: str | None, file: str) -> Response:
    ref = tarball_ref(names.check_name(name), again, file)
    if ref is None or file.endswith(ATTESTATIONS):
        raise FileNotFound(f"there is no file '{shown(file)}' in '{name}'")
    try:
        entry = repo.open(ref)
    except PackageNotFound:
        raise FileNotFound(f"there is no package '{name}' in this repository") from None
    headers = tarball_headers(
        name=entry.path, media_type=entry.blob.media_type, digest=entry.blob.digest.hex, captured={}
    )
    return Response(200, headers, entry.blob)


# --- about packages and people ---------------------------------------------------------------------------------------


def permission(repo: Repo) -> str:
    return "read-write" if repo.may(Action.PUBLISH) else "read-only"


def collaborators(repo: Repo, request: Request, name: str) -> Response:
    """7.4.2. Roles belong to the repository, and its list of members is not for every reader: the caller's own is told."""
    demand_versions(repo, name)
    return answer({} if repo.actor.is_anonymous else {repo.actor.name: permission(repo)})


def visibility(repo: Repo, request: Request, name: str) -> Response:
    return answer({"public": _is_public(repo, name)})


def access(repo: Repo, request: Request, name: str) -> Response:
    """The same in the words of pnpm 12."""
    is_public = _is_public(repo, name)
    return answer({"access": "public" if is_public else "restricted", "public": is_public})


def _is_public(repo: Repo, name: str) -> bool:
    """Public is what everyone may read and nobody published as restricted (6.16)."""
    is_restricted = demand_versions(repo, name).metadata.get("access") == "restricted"
    return repo.is_anonymously_readable and not is_restricted


def demand_versions(repo: Repo, name: str) -> Listing:
    found = repo.listing(packument_ref(names.check_name(name)))
    if not found.entries:
        raise PackageNotFound(f"there is no package '{name}' in this repository")
    return found


def scope_packages(repo: Repo, request: Request, scope: str) -> Response:
    """7.4.3: 404 makes the client ask for a user's packages instead."""
    prefix = f"@{scope.removeprefix('@')}/"
    found = [name for name in package_names(repo, prefix) if name.startswith(prefix)]
    if not found:
        raise NotFound(f"there are no packages in the scope '{shown(prefix[:-1])}'")
    return answer(dict.fromkeys(found, permission(repo)))


def user_packages(repo: Repo, request: Request, username: str) -> Response:
    """What the caller may do with the packages here. Another's rights are not told."""
    if repo.actor.is_anonymous or username != repo.actor.name:
        raise NotFound(f"there are no packages of '{shown(username)}' to be seen")
    return answer(dict.fromkeys(package_names(repo, ""), permission(repo)))


def package_names(repo: Repo, text: str, limit: int = PACKAGES_MOST) -> list[str]:
    """Names that contain `text`, at most so many."""
    found = repo.listing(ListingRef("packages", limit=limit, arguments=(("q", text),)))
    return [entry.name for entry in found.entries]


# --- the registry ----------------------------------------------------------------------------------------------------


def ping(repo: Repo, request: Request) -> Response:
    return answer({})


def keys(repo: Repo, request: Request) -> Response:
    """11.2, 11.6: the keys behind `dist.signatures`: those of upstreams, and this server's own."""
    try:
        found = {entry.name: dict(entry.metadata) for entry in repo.listing(KEYS).entries}
    except NotFound:
        if (
            not repo.takes_writes
        ):  # versions are signed where they are published, not where an upstream shows them (11.4)
            raise NotFound("this registry does not sign packages") from None
        found = {}
    for key in repo.registry_keys():
        found[key.keyid] = {
            "expires": None if key.expires_at is None else moment(key.expires_at),
            "keyid": key.keyid,
            "keytype": "ecdsa-sha2-nistp256",
            "scheme": "ecdsa-sha2-nistp256",
            "key": key.public,
        }
    return answer({"keys": list(found.values())})


def attestations_ref(name: str, version: str, doubled: str | None) -> FileRef:
    return FileRef(name, attestations_path(name, version))


def attestations(repo: Repo, request: Request, name: str, version: str, doubled: str | None) -> Response:
    """11.9: kept as it is sent, in a file beside the tarball."""
    names.check_name(name)
    names.check_version(version)
    missing = VersionNotFound(f"there are no attestations for '{name}@{version}'")
    if doubled is not None and f"/{doubled}" != request.mount:
        raise missing
    try:
        entry = repo.open(FileRef(name, attestations_path(name, version)))
    except NotFound:
        raise missing from None
    return Response(200, [NOSNIFF, REVALIDATE, JSON], entry.blob)


def attestations_path(name: str, version: str) -> str:
    return names.tarball_name(name, version).removesuffix(".tgz") + ATTESTATIONS
