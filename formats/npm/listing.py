"""Packuments: records in, documents out, and the way back for what an upstream sends (contract, sections 3 and 12).

A version's record is its manifest without `dist`; `dist` without the tarball's address is the record of its file. So
what is not understood passes through untouched: only `dist.tarball` is made new, with the address the client used.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import orjson

from repoman.core.errors import ContentInvalid, PackageNotFound, VersionNotFound
from repoman.core.names import shown
from repoman.core.records import Document, Entry, ListedFile, Listing
from repoman.core.refs import ListingRef

from . import names

FULL = "full"
ABBREVIATED = "abbreviated"
VERSION = "version"
TAGS = "tags"
INSTALL_TYPE = "application/vnd.npm.install-v1+json"
JSON_TYPE = "application/json"
ATTESTATIONS = ".attestations.json"  # beside a version's tarball
_ABBREVIATED = (
    *("name", "version", "deprecated", "dependencies", "acceptDependencies", "optionalDependencies"),
    *("devDependencies", "bundleDependencies", "peerDependencies", "peerDependenciesMeta", "bin", "directories"),
    *("dist", "engines", "cpu", "os", "libc", "funding", "_hasShrinkwrap", "hasInstallScript", "_npmUser"),
)
# Told at the top of a full document as the latest version has them.
_FROM_LATEST = (
    *("description", "author", "bugs", "contributors", "homepage", "keywords", "license", "repository"),
    *("readme", "readmeFilename"),
)
_RENDERED = frozenset({"_id", "_rev", "_attachments", "name", "dist-tags", "versions", "time"})
_ALGORITHMS = {"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}
_HEX = re.compile(r"[0-9a-fA-F]{40}\Z")
_VERSIONS_MOST = 200_000


# --- rendering -------------------------------------------------------------------------------------------------------


def render(ref: ListingRef, listing: Listing, form: str, address: str) -> Document:
    """Raises PackageNotFound where no versions are left: an empty document breaks clients (contract 12.9)."""
    entries = sorted(listing.entries, key=lambda entry: names.version_key(entry.name))
    if not entries:
        raise PackageNotFound(f"there is no package '{ref.package}' in this repository")
    tags = effective_tags(listing.tags, [entry.name for entry in entries])
    if form == TAGS:
        return Document(orjson.dumps(tags), JSON_TYPE)
    if form == VERSION:
        return _render_version(ref, entries, tags, address)
    name = ref.package
    versions = {entry.name: version_document(name, entry, address) for entry in entries}
    modified = _moment(listing.changed_at or _last(entries))
    found: dict[str, Any]
    if form == ABBREVIATED:
        short = {
            version: {key: manifest[key] for key in _ABBREVIATED if key in manifest}
            for version, manifest in versions.items()
        }
        found = {"name": name, "modified": modified, "dist-tags": tags, "versions": short}
        found["time"] = _times(listing, entries, modified)
        return Document(orjson.dumps(found), INSTALL_TYPE)
    upstream = listing.metadata.get("document")
    if upstream is None:  # published here: clients put the README into each version
        for manifest in versions.values():
            manifest.pop("readme", None)
    latest = next(entry for entry in entries if entry.name == tags[names.LATEST])
    found = {"_id": name, "_rev": document_revision(name, listing), "name": name}
    found.update((key, latest.metadata[key]) for key in _FROM_LATEST if key in latest.metadata)
    found["maintainers"] = _maintainers(entries)
    if isinstance(upstream, Mapping):
        found.update((key, value) for key, value in upstream.items() if key not in _RENDERED)
    found.update({"dist-tags": tags, "versions": versions, "time": _times(listing, entries, modified)})
    return Document(orjson.dumps(found), JSON_TYPE)


def _render_version(ref: ListingRef, entries: list[Entry], tags: Mapping[str, str], address: str) -> Document:
    """One version by number or tag, the same as in the packument (contract 3.5)."""
    wanted = dict(ref.arguments).get("version", names.LATEST)
    wanted = tags.get(wanted, wanted)
    for entry in entries:
        if entry.name == wanted:
            return Document(orjson.dumps(version_document(ref.package, entry, address)), JSON_TYPE)
    raise VersionNotFound(f"there is no version or tag '{shown(wanted)}' of '{ref.package}'")


def version_document(name: str, entry: Entry, address: str) -> dict[str, Any]:
    """A version's manifest with `dist`, fields in one order."""
    manifest: dict[str, Any] = {"name": name, "version": entry.name}
    manifest.update((key, entry.metadata[key]) for key in sorted(entry.metadata) if key not in ("name", "version"))
    if "bundleDependencies" not in manifest and "bundledDependencies" in manifest:
        manifest["bundleDependencies"] = manifest["bundledDependencies"]
    if entry.deprecated:
        manifest["deprecated"] = entry.deprecated
    manifest["dist"] = _dist(name, entry, address)
    return manifest


def _dist(name: str, entry: Entry, address: str) -> dict[str, Any]:
    file = tarball_of(entry)
    if file is None:
        return {}
    dist = {key: file.metadata[key] for key in sorted(file.metadata)}
    if "integrity" not in dist and "sha512" in file.digests:
        dist["integrity"] = integrity(file.digests["sha512"])
    if "shasum" not in dist and "sha1" in file.digests:
        dist["shasum"] = file.digests["sha1"]
    attestations = dist.get("attestations")
    if isinstance(attestations, Mapping) and "url" not in attestations:
        dist["attestations"] = {"url": f"{address}/-/npm/v1/attestations/{name}@{entry.name}", **attestations}
    dist["tarball"] = f"{address}/{name}/-/{file.path}"
    return dist


def tarball_of(entry: Entry) -> ListedFile | None:
    return next((file for file in entry.files if not file.path.endswith(ATTESTATIONS)), None)


def effective_tags(tags: Mapping[str, str], versions: Iterable[str]) -> dict[str, str]:
    """Tags whose version is there, in order; `latest` falls to the highest stable version left (contract 12.8)."""
    known = list(versions)
    present = set(known)
    found = {tag: tags[tag] for tag in sorted(tags) if tags[tag] in present}
    if names.LATEST not in found and known:
        stable = [version for version in known if names.is_stable(version)]
        found = {names.LATEST: max(stable or known, key=names.version_key), **found}
    return found


def document_revision(name: str, listing: Listing) -> str:
    """`_rev` of the document of these records; without a revision (in a virtual repository), what they say stands for it."""
    if listing.revision:
        return revision_text(name, listing.revision)
    said = [sorted((entry.name, entry.deprecated) for entry in listing.entries), sorted(listing.tags.items())]
    return f"0-{hashlib.sha256(orjson.dumps([name, *said])).hexdigest()[:16]}"


def revision_text(name: str, revision: int) -> str:
    """`_rev`: opaque to clients, which paste it into an address."""
    mark = hashlib.sha256(f"{name}\0{revision}".encode()).hexdigest()[:16]
    return f"{revision}-{mark}"


def _times(listing: Listing, entries: list[Entry], modified: str | None) -> dict[str, str | None]:
    """`created`, `modified` and every version's moment, or no version's at all: clients that hold back young versions

    take a partial map for worse than none (contract, section 4).
    """
    moments = [entry.modified for entry in entries]
    created = listing.metadata.get("created")
    first = (
        created if isinstance(created, str) else _moment(min((at for at in moments if at is not None), default=None))
    )
    found: dict[str, str | None] = {}
    if first is not None:
        found["created"] = first
    if modified is not None:
        found["modified"] = modified
    if all(at is not None for at in moments):
        found.update((entry.name, _moment(entry.modified)) for entry in entries)
    return found


def _last(entries: list[Entry]) -> datetime.datetime | None:
    return max((entry.modified for entry in entries if entry.modified is not None), default=None)


def _maintainers(entries: list[Entry]) -> list[dict[str, str]]:
    """Who published what is there; a repository's members are managed elsewhere."""
    found: dict[str, dict[str, str]] = {}
    for entry in entries:
        user = entry.metadata.get("_npmUser")
        if isinstance(user, Mapping) and isinstance(user.get("name"), str):
            found[user["name"]] = {"name": user["name"], "email": str(user.get("email") or "")}
    return [found[name] for name in sorted(found)]


def moment(at: datetime.datetime) -> str:
    """ISO 8601 in UTC with milliseconds, as JavaScript writes it."""
    return at.astimezone(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _moment(at: datetime.datetime | None) -> str | None:
    return None if at is None else moment(at)


def integrity(sha512: str) -> str:
    """A subresource integrity string from a digest in hex."""
    return "sha512-" + base64.b64encode(bytes.fromhex(sha512)).decode()


# --- parsing ---------------------------------------------------------------------------------------------------------


def parse(ref: ListingRef, body: bytes, *, url: str) -> Listing:
    """An upstream's full packument. Versions that make no sense are left out one by one; what is no packument at all (a

    login page, an error) raises ContentInvalid.
    """
    document = _load(body)
    if not isinstance(document, dict) or not isinstance(document.get("versions"), dict | None):
        raise ContentInvalid("the upstream's answer is not a package document")
    name = document.get("name", document.get("_id"))
    time: dict[str, Any] = document["time"] if isinstance(document.get("time"), dict) else {}
    if name != ref.package or ("versions" not in document and "unpublished" not in time):
        raise ContentInvalid("the upstream's answer is not the document of this package")
    entries: list[Entry] = []
    paths: set[str] = set()
    for version, manifest in (document.get("versions") or {}).items():
        entry = _entry(ref.package, version, manifest, parse_moment(time.get(version)), url)
        if entry is None or entry.files[0].path in paths:
            continue
        paths.add(entry.files[0].path)
        entries.append(entry)
        if len(entries) > _VERSIONS_MOST:
            raise ContentInvalid(f"the upstream's document has more than {_VERSIONS_MOST} versions")
    tags = document.get("dist-tags")
    metadata: dict[str, object] = {"document": {key: value for key, value in document.items() if key not in _RENDERED}}
    if isinstance(time.get("created"), str) and parse_moment(time["created"]) is not None:
        metadata["created"] = time["created"]
    return Listing(
        tuple(sorted(entries, key=lambda entry: names.version_key(entry.name))),
        tags={tag: version for tag, version in tags.items() if isinstance(version, str)}
        if isinstance(tags, dict)
        else {},
        metadata=metadata,
        changed_at=parse_moment(time.get("modified")),
    )


def parse_keys(body: bytes) -> Listing:
    """An upstream's keys, as they are (contract 11.6). Raises ContentInvalid for what is no such document."""
    document = _load(body)
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise ContentInvalid("the upstream's answer is not a list of keys")
    known = [key for key in keys if isinstance(key, dict) and isinstance(key.get("keyid"), str)]
    return Listing(tuple(Entry(key["keyid"], "key", metadata=key) for key in known))


def _entry(name: str, version: str, manifest: Any, at: datetime.datetime | None, url: str) -> Entry | None:
    """None for what could not be installed anyway."""
    if not isinstance(manifest, dict) or not names.is_version(version) or manifest.get("version", version) != version:
        return None
    dist = manifest.get("dist")
    if not isinstance(dist, dict) or manifest.get("name", name) != name:
        return None
    address = dist.get("tarball")
    if not isinstance(address, str) or not _is_address(address):
        return None
    kept = {key: value for key, value in manifest.items() if key not in ("dist", "deprecated")}
    deprecated = manifest.get("deprecated")
    if deprecated and not isinstance(deprecated, str):
        deprecated = "this version is deprecated"
    file = ListedFile(
        path=_path_of(address, name, version),
        digests=digests_of(dist),
        url=address,
        published_at=at,
        metadata={key: value for key, value in dist.items() if key != "tarball"},
    )
    return Entry(version, "version", modified=at, metadata=kept, files=(file,), deprecated=deprecated or "")


def _path_of(address: str, name: str, version: str) -> str:
    """The file's name at the upstream (contract 5.14), unless it could not be one here."""
    last = urlsplit(address).path.rpartition("/")[2]
    if names.is_file_name(last) and not last.endswith(ATTESTATIONS):
        return last
    return f"{names.split(name)[1]}-{version}.tgz"


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and len(text) <= 2048 and text.isprintable()
    except ValueError:
        return False


def digests_of(dist: Mapping[str, Any]) -> dict[str, str]:
    """Algorithm → hex, from `integrity` (Subresource Integrity §3.5) and `shasum`. What is malformed is passed over."""
    found: dict[str, str] = {}
    text = dist.get("integrity")
    for token in text.split() if isinstance(text, str) else ():
        algorithm, _, encoded = token.partition("-")
        length = _ALGORITHMS.get(algorithm)
        if length is None or algorithm in found:
            continue
        try:
            value = base64.b64decode(encoded.partition("?")[0], validate=True)
        except (binascii.Error, ValueError):
            continue
        if len(value) == length:
            found[algorithm] = value.hex()
    shasum = dist.get("shasum")
    if isinstance(shasum, str) and _HEX.match(shasum):
        found.setdefault("sha1", shasum.lower())
    return found


def parse_moment(value: Any) -> datetime.datetime | None:
    """An ISO 8601 instant; None for anything else."""
    if not isinstance(value, str) or not 10 <= len(value) <= 40:
        return None
    try:
        at = datetime.datetime.fromisoformat(value.replace("Z", "+00:00"))
        return (at if at.tzinfo else at.replace(tzinfo=datetime.UTC)).astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        return None


def _load(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    # Some documents have half of a surrogate pair in a description, which only the slower parser takes.
    try:
        return _scrubbed(json.loads(body, parse_constant=_refuse_constant))
    except (ValueError, RecursionError):
        raise ContentInvalid("the upstream's answer is not JSON") from None


def _refuse_constant(text: str) -> None:
    raise ValueError(text)


def _scrubbed(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode() if not value.isascii() else value
    if isinstance(value, list):
        return [_scrubbed(item) for item in value]
    if isinstance(value, dict):
        return {_scrubbed(key): _scrubbed(item) for key, item in value.items()}
    return value
