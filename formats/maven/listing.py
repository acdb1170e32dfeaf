"""`maven-metadata.xml`: made of what there is, and read from upstreams (section 4 of the contract).

Two documents. Of a folder: the versions of the artifact that it is ("releases" of the package) and the plugins of the group
that it is ("packages" `under` the group); a folder may be both, and upstreams say both in one document. Of a snapshot: its
newest files ("version"), whose names say everything. The same records give the same bytes.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from xml.etree.ElementTree import Element

from repoman.core import strictxml
from repoman.core.errors import ELSEWHERE, ContentInvalid, NameInvalid, PackageNotFound
from repoman.core.records import Document, Entry, ListedFile, Listing
from repoman.core.refs import ListingRef
from repoman.core.strictxml import text

from .names import Part, check_version, is_build, part_of
from .plugins import Plugin, plugins_of
from .versions import BUILD, SNAPSHOT, in_order, is_snapshot

XML_TYPE = "application/xml"
METADATA_BYTES = 16 * 1024 * 1024
TEXT_LENGTH = 500
NULL = "null"  # what some tools write where they have no value
_NOT_IN_NAME = re.compile(r'[\\/:"<>|?*\s]')
_MOMENT = "%Y%m%d%H%M%S"


# --- rendering -------------------------------------------------------------------------------------------------------


def render(ref: ListingRef, listing: Listing) -> Document:
    """Raises PackageNotFound where there is nothing to say: an empty list would be remembered by clients."""
    if ref.kind == "version":
        return Document(snapshot(ref, listing), XML_TYPE)
    if ref.kind == "packages":
        return Document(folder(ref.argument("under").removesuffix(":"), None, listing), XML_TYPE)
    return Document(folder(ref.package, listing, None), XML_TYPE)


def folder(name: str, releases: Listing | None, group: Listing | None) -> bytes:
    """Of a folder: as an artifact, as a group, or both. `name` is the package's; the group's where it is that only."""
    plugins = plugins_of(releases, group)
    versions = in_order(list(dict.fromkeys(entry.name for entry in releases.entries))) if releases is not None else []
    if not plugins and not versions:
        raise PackageNotFound(f"there is nothing about '{name}'")
    lines: list[str] = []
    if versions:
        group_id, _, artifact = name.partition(":")
        lines += [_line(2, "groupId", group_id), _line(2, "artifactId", artifact)]
    if plugins:
        lines.append("  <plugins>")
        for plugin in plugins:
            lines.append("    <plugin>")
            lines += [_line(6, "name", plugin.name), _line(6, "prefix", plugin.prefix)]
            lines += [_line(6, "artifactId", plugin.artifact), "    </plugin>"]
        lines.append("  </plugins>")
    if versions and releases is not None:
        fixed = [version for version in versions if not is_snapshot(version)]
        lines += ["  <versioning>", _line(4, "latest", versions[-1])]
        if fixed:
            lines.append(_line(4, "release", fixed[-1]))
        lines.append("    <versions>")
        lines += [_line(6, "version", version) for version in versions]
        lines.append("    </versions>")
        if releases.changed_at is not None:
            lines.append(_line(4, "lastUpdated", moment(releases.changed_at)))
        lines.append("  </versioning>")
    return _document(lines)


def snapshot(ref: ListingRef, listing: Listing) -> bytes:
    """Of a snapshot: for each kind of file the newest, which may be of different builds."""
    group, _, artifact = ref.package.partition(":")
    version = ref.argument("version")
    files = [file for entry in listing.entries for file in entry.files]
    newest = newest_files(artifact, version, files)
    told = listing.metadata.get("build")
    if not newest and not isinstance(told, str):
        raise PackageNotFound(f"'{ref.package}' has no files of {version}")
    builds = builds_of(artifact, version, files)
    if told:
        builds.append(Part("", "", str(told)))
    lines = [_line(2, "groupId", group), _line(2, "artifactId", artifact), _line(2, "version", version)]
    lines += ["  <versioning>", "    <snapshot>"]
    if builds:
        # The highest number, which the next build counts from (S7), with the moment of that build: together they are a
        # file's name to clients that read nothing else.
        timestamp, number = max((part.build_order for part in builds), key=lambda order: (order[1], order[0]))
        lines += [_line(6, "timestamp", timestamp), _line(6, "buildNumber", str(number))]
    else:
        lines.append(_line(6, "localCopy", "true"))
    lines.append("    </snapshot>")
    changed = [file.published_at for file in files if file.published_at is not None]
    if not changed and listing.changed_at is not None:
        changed = [listing.changed_at]
    if changed:
        lines.append(_line(4, "lastUpdated", moment(max(changed))))
    told_of = _told_of(newest) if builds else []
    if told_of:
        lines.append("    <snapshotVersions>")
        for part, file in told_of:
            lines.append("      <snapshotVersion>")
            if part.classifier:
                lines.append(_line(8, "classifier", part.classifier))
            value = f"{version[: -len(SNAPSHOT)]}{part.build}" if part.build else version
            lines += [_line(8, "extension", part.extension), _line(8, "value", value)]
            if file.published_at is not None:
                lines.append(_line(8, "updated", moment(file.published_at)))
            lines.append("      </snapshotVersion>")
        lines.append("    </snapshotVersions>")
    lines.append("  </versioning>")
    return _document(lines)


def _told_of(newest: Sequence[tuple[Part, ListedFile]]) -> list[tuple[Part, ListedFile]]:
    """Without what clients do not look for, and without what speaks of a file that a newer one has replaced."""
    newer = {(part.classifier, part.extension): part.build_order for part, _ in newest}
    return [
        (part, file)
        for part, file in newest
        if part.is_told and newer.get(part.subject, part.build_order) <= part.build_order
    ]


def builds_of(artifact: str, version: str, files: Iterable[ListedFile]) -> list[Part]:
    parts = (part_of(artifact, version, file.path.partition("/")[2]) for file in files)
    return [part for part in parts if part is not None and part.build]


def newest_files(artifact: str, version: str, files: Iterable[ListedFile]) -> list[tuple[Part, ListedFile]]:
    """For each classifier and extension the newest file, in the order of these. A build comes after one under the plain
    name: who deploys builds does not go back."""
    found: dict[tuple[str, str], tuple[Part, ListedFile]] = {}
    for file in files:
        part = part_of(artifact, version, file.path.partition("/")[2])
        if part is None:
            continue
        kind = (part.classifier, part.extension)
        if kind not in found or part.build_order > found[kind][0].build_order:
            found[kind] = (part, file)
    return [found[kind] for kind in sorted(found)]


def moment(at: datetime.datetime) -> str:
    return at.astimezone(datetime.UTC).strftime(_MOMENT)


def _line(indent: int, name: str, value: str) -> str:
    return f"{' ' * indent}<{name}>{escape(value, quote=False)}</{name}>"


def _document(lines: Sequence[str]) -> bytes:
    head = ['<?xml version="1.0" encoding="UTF-8"?>', '<metadata modelVersion="1.1.0">']
    return "\n".join([*head, *lines, "</metadata>", ""]).encode()


# --- reading ---------------------------------------------------------------------------------------------------------


def parse(ref: ListingRef, body: bytes) -> Listing:
    """Raises ContentInvalid for what is no metadata at all, or of another artifact; single items that make no sense are left
    out."""
    if len(body) > METADATA_BYTES:
        raise ContentInvalid(f"the metadata has more than {METADATA_BYTES} bytes")
    root = strictxml.load(body.removeprefix(b"\xef\xbb\xbf").lstrip(), root="metadata")
    _check_place(ref, root)
    if ref.kind == "version":
        return _parse_snapshot(ref, root)
    names = dict.fromkeys(_versions(root))
    plugins = [[plugin.prefix, plugin.artifact, plugin.name] for plugin in plugins_in(root)]
    return Listing(
        tuple(Entry(name, kind="version") for name in names),
        metadata={"plugins": plugins} if plugins else {},
        changed_at=_read_moment(text(root, "versioning/lastUpdated")),
    )


def _check_place(ref: ListingRef, root: Element) -> None:
    """Whoever says nothing of group or artifact is believed. A group's own metadata, which names plugins, has its name."""
    group, _, artifact = ref.package.partition(":")
    told_group, told_artifact = said(root, "groupId"), said(root, "artifactId")
    as_artifact = told_group in ("", group) and told_artifact in ("", artifact)
    as_group = ref.kind != "version" and told_group == ref.package.replace(":", ".").lstrip(".") and not told_artifact
    if not as_artifact and not as_group:
        told = f"{told_group}:{told_artifact}"[:TEXT_LENGTH]
        raise ContentInvalid(f"the metadata of '{ref.package}' are about '{told}'", reason=ELSEWHERE)


def said(parent: Element, path: str) -> str:
    """The text at the path; what was written for want of a value is none (M7)."""
    found = text(parent, path)
    return "" if found == NULL else found


def _versions(root: Element) -> Iterator[str]:
    for each in root.iterfind("versioning/versions/version"):
        try:
            version = check_version((each.text or "").strip())
        except NameInvalid:
            continue
        if version != NULL:
            yield version


def plugins_in(root: Element) -> Iterator[Plugin]:
    """The plugins that a group's metadata name."""
    for each in root.iterfind("plugins/plugin"):
        prefix, artifact = said(each, "prefix")[:TEXT_LENGTH], said(each, "artifactId")[:TEXT_LENGTH]
        if prefix and artifact:
            yield Plugin(prefix, artifact, said(each, "name")[:TEXT_LENGTH] or artifact)


def builds_in(root: Element, version: str) -> Iterator[str]:
    """The builds (`yyyyMMdd.HHmmss-number`) that a snapshot's metadata names."""
    stem = version[: -len(SNAPSHOT)]
    for each in root.iterfind("versioning/snapshotVersions/snapshotVersion"):
        value = text(each, "value")
        if value.startswith(stem) and is_build(value):
            yield value[len(stem) :]
    timestamp, number = text(root, "versioning/snapshot/timestamp"), text(root, "versioning/snapshot/buildNumber")
    if is_build(f"{timestamp}-{number}"):
        yield f"{timestamp}-{number}"


def _parse_snapshot(ref: ListingRef, root: Element) -> Listing:
    """Files, as they would be named if they had been published here."""
    version, artifact = ref.argument("version"), ref.package.partition(":")[2]
    changed = _read_moment(text(root, "versioning/lastUpdated"))
    files: dict[str, ListedFile] = {}
    for each in root.iterfind("versioning/snapshotVersions/snapshotVersion"):
        value, extension, classifier = said(each, "value"), said(each, "extension"), said(each, "classifier")
        if not extension or _NOT_IN_NAME.search(f"{classifier}{extension}"):
            continue
        if not value or (value != version and not _is_build_of(value, version)):
            continue
        tail = f"-{classifier}.{extension}" if classifier else f".{extension}"
        path = f"{version}/{artifact}-{value}{tail}"
        files[path] = ListedFile(path, published_at=_read_moment(text(each, "updated")) or changed)
    ordered = tuple(file for _, file in newest_files(artifact, version, files.values()))
    found = Entry(version, kind="version", files=ordered)
    if files:
        return Listing((found,), changed_at=changed)
    # The older form says the newest build alone, of whatever kinds of file there are.
    timestamp, number = text(root, "versioning/snapshot/timestamp"), text(root, "versioning/snapshot/buildNumber")
    build = f"{timestamp}-{number}"
    return Listing((found,), metadata={"build": build if is_build(build) else ""}, changed_at=changed)


def _is_build_of(value: str, version: str) -> bool:
    found = BUILD.match(value)
    return found is not None and found["base"] == version[: -len(SNAPSHOT)]


def _read_moment(given: str) -> datetime.datetime | None:
    digits = given.replace(".", "")
    if len(digits) != 14 or not (digits.isascii() and digits.isdigit()):
        return None
    try:
        return datetime.datetime.strptime(digits, _MOMENT).replace(tzinfo=datetime.UTC)
    except ValueError:
        return None
