"""A project's page, the index of projects and the JSON API, written from records; and the same pages, read.

The simple repository API 1.4 (spec: simple-repository-api; PEP 503, 592, 629, 658, 691, 700, 714, 740, 792, 833) in both
forms. Files lie flat in a page and in versions in the records; side files (`<file>.metadata`, `<file>.provenance`) are
files of their own in the records and attributes of their file in a page. A page advertises only what is in the records.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

import orjson
from packaging.version import Version

from repoman.core.errors import ContentInvalid, NameInvalid, VersionNotFound
from repoman.core.names import shown
from repoman.core.records import Document, Entry, ListedFile, Listing
from repoman.core.refs import ListingRef

from .names import (
    METADATA_SUFFIX,
    PROVENANCE_SUFFIX,
    Distribution,
    link,
    looks_like_distribution,
    normalize,
    parse_listed,
    parse_version,
    version_key,
)

SIMPLE_JSON = "application/vnd.pypi.simple.v1+json"
SIMPLE_HTML = "application/vnd.pypi.simple.v1+html"
TEXT_HTML = "text/html"
JSON, HTML, API = "json", "html", "api"  # forms; `api/<version>` is the JSON API about one version
API_VERSION = "1.4"
WITHOUT_SIZES = "1.0"  # what is true of a page some of whose files have no size (PEP 700)
FILES_MOST = 500_000
_HEX_LENGTH = {"md5": 32, "sha1": 40, "sha224": 56, "sha256": 64, "sha384": 96, "sha512": 128, "blake2b": 128}
_IN_FRAGMENTS = ("sha256", "sha512", "sha384", "md5")  # what both pip and uv read there, best first
_HEX = re.compile(r"[0-9a-f]+\Z")
_STATUSES = frozenset({"active", "archived", "quarantined", "deprecated"})
# Names of the same thing: pip falls back to the second, PDM to the third (a slip of the public index).
_CORE_KEYS = ("core-metadata", "dist-info-metadata", "data-dist-info-metadata")
_KNOWN_KEYS = frozenset(
    """filename url hashes requires-python size upload-time yanked core-metadata dist-info-metadata
    data-dist-info-metadata provenance gpg-sig""".split()
)
_TITLE = re.compile(r"\s*(?:links? for|simple index|index of|directory listing for|index)\b", re.IGNORECASE)


# --- records -> rows -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One file of a page with its side files. `yanked` is what the page says: False, True or the reason."""

    distribution: Distribution
    file: ListedFile
    yanked: bool | str
    document: ListedFile | None = None
    provenance: ListedFile | None = None

    @property
    def requires_python(self) -> str:
        return _text(self.file.metadata.get("requires_python"))

    @property
    def core_metadata(self) -> bool | dict[str, str]:
        """What PEP 658 and 714 say: False, True, or the hashes of the side file."""
        if self.document is None:
            return False
        return dict(self.document.digests) or True


def rows_of(project: str, entries: Iterable[Entry]) -> list[Row]:
    """By version, then by file name."""
    found: list[Row] = []
    for entry in entries:
        sides = {file.path: file for file in entry.files if file.path.endswith((METADATA_SUFFIX, PROVENANCE_SUFFIX))}
        for file in entry.files:
            if file.path in sides:
                continue
            distribution = parse_listed(file.path, project)
            if distribution is None:
                continue
            own = file.metadata.get("yanked")
            yanked = own if isinstance(own, bool | str) else entry.yanked and (entry.yanked_reason or True)
            found.append(
                Row(
                    distribution,
                    file,
                    yanked,
                    sides.get(file.path + METADATA_SUFFIX),
                    sides.get(file.path + PROVENANCE_SUFFIX),
                )
            )
    found.sort(key=lambda row: (row.distribution.version, row.file.path))
    return found


def versions_of(entries: Iterable[Entry]) -> list[str]:
    """One text for each release: `1.0` and `1.0.0` are one."""
    found: dict[object, str] = {}
    for entry in entries:
        found.setdefault(parse_version(entry.name) or entry.name, entry.name)
    return sorted(found.values(), key=version_key)


def project_status(metadata: Mapping[str, object]) -> dict[str, str]:
    """PEP 792: `status` and perhaps `reason`; empty for an active project."""
    given = metadata.get("project_status")
    if not isinstance(given, Mapping) or given.get("status") not in _STATUSES:
        return {}
    status, reason = _text(given.get("status")), _text(given.get("reason"))
    if status == "active" and not reason:
        return {}
    return {"status": status, **({"reason": reason} if reason else {})}


# --- rows -> pages ---------------------------------------------------------------------------------------------------


def render(ref: ListingRef, listing: Listing, form: str, address: str) -> Document:
    """See `FormatHandler.render_listing`. The media type of an HTML page is decided by who asks (`views.py`)."""
    if ref.kind == "packages":
        names = sorted({entry.name for entry in listing.entries})
        return _index_json(names) if form == JSON else _index_html(names)
    if form == JSON:
        return Document(_project_json(ref.package, listing, address), SIMPLE_JSON)
    if form == HTML:
        return Document(_project_html(ref.package, listing, address), SIMPLE_HTML)
    return Document(_api(ref.package, listing, form.partition("/")[2], address), "application/json")


def file_url(address: str, project: str, filename: str) -> str:
    """Where a file is, for ever: lockfiles hold this address."""
    return f"{address}/files/{project}/{link(filename)}"


def provenance_url(address: str, row: Row) -> str:
    found = row.distribution
    return f"{address}/integrity/{found.project}/{link(found.release)}/{link(row.file.path)}/provenance"


def _visible(project: str, listing: Listing, status: Mapping[str, str]) -> list[Row]:
    """A quarantined project shows no files (PEP 792)."""
    return [] if status.get("status") == "quarantined" else rows_of(project, listing.entries)


def _project_json(project: str, listing: Listing, address: str) -> bytes:
    status = project_status(listing.metadata)
    files = []
    version = API_VERSION
    for row in _visible(project, listing, status):
        file = row.file
        item: dict[str, Any] = {
            "filename": file.path,
            "url": file_url(address, project, file.path),
            "hashes": dict(sorted(file.digests.items())),
            "yanked": row.yanked,
        }
        if row.requires_python:
            item["requires-python"] = row.requires_python
        if file.size is None:
            version = WITHOUT_SIZES
        else:
            item["size"] = file.size
        if file.published_at is not None:
            item["upload-time"] = _time(file.published_at)
        if row.document is not None:
            item.update(dict.fromkeys(_CORE_KEYS, row.core_metadata))
        if row.provenance is not None:
            item["provenance"] = provenance_url(address, row)
        more = file.metadata.get("more")
        if isinstance(more, Mapping):
            item.update((key, value) for key, value in more.items() if key not in _KNOWN_KEYS)
        files.append(item)
    page: dict[str, Any] = {
        "meta": {"api-version": version},
        "name": project,
        "files": files,
        "versions": versions_of(listing.entries),
    }
    if status:
        page["project-status"] = status
    return orjson.dumps(page)


def _project_html(project: str, listing: Listing, address: str) -> bytes:
    status = project_status(listing.metadata)
    head = [f'<meta name="pypi:project-status" content="{escape(status["status"])}">'] if status else []
    if "reason" in status:
        head.append(f'<meta name="pypi:project-status-reason" content="{escape(status["reason"])}">')
    lines = [_anchor(row, address) for row in _visible(project, listing, status)]
    return _page(f"Links for {project}", lines, head)


def _anchor(row: Row, address: str) -> str:
    file = row.file
    url = file_url(address, row.distribution.project, file.path)
    algorithm = next((name for name in _IN_FRAGMENTS if name in file.digests), None)
    attributes = [("href", url if algorithm is None else f"{url}#{algorithm}={file.digests[algorithm]}")]
    if row.requires_python:
        attributes.append(("data-requires-python", row.requires_python))
    if row.yanked is not False:
        attributes.append(("data-yanked", "" if row.yanked is True else row.yanked))
    if row.document is not None:
        sha256 = row.document.digests.get("sha256")
        value = f"sha256={sha256}" if sha256 else "true"
        attributes += [("data-core-metadata", value), ("data-dist-info-metadata", value)]
    if row.provenance is not None:
        attributes.append(("data-provenance", provenance_url(address, row)))
    attributes.append(("data-gpg-sig", "false"))  # old clients would look for a signature file
    written = " ".join(f'{name}="{escape(value)}"' for name, value in attributes)
    return f"<a {written}>{escape(file.path)}</a><br>"


def _index_json(names: Sequence[str]) -> Document:
    page = {"meta": {"api-version": API_VERSION}, "projects": [{"name": name} for name in names]}
    return Document(orjson.dumps(page), SIMPLE_JSON)


def _index_html(names: Sequence[str]) -> Document:
    return Document(_page("Simple index", [f'<a href="{name}/">{name}</a><br>' for name in names]), SIMPLE_HTML)


def _page(title: str, lines: Sequence[str], head: Sequence[str] = ()) -> bytes:
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta name="pypi:repository-version" content="{API_VERSION}">',
            *head,
            f"<title>{escape(title)}</title>",
            "</head>",
            "<body>",
            f"<h1>{escape(title)}</h1>",
            *lines,
            "</body>",
            "</html>",
            "",
        ]
    ).encode("utf-8", "replace")


# --- the JSON API ----------------------------------------------------------------------------------------------------


def _api(project: str, listing: Listing, wanted: str, address: str) -> bytes:
    """`/{project}/json`, or with a version `/{project}/{version}/json`. Raises VersionNotFound."""
    status = project_status(listing.metadata)
    rows = _visible(project, listing, status)
    by_release: dict[str, list[Row]] = {text: [] for text in versions_of(listing.entries)}
    texts = {parse_version(text): text for text in by_release}
    for row in rows:
        text = texts.get(row.distribution.version)
        if text is not None:
            by_release[text].append(row)
    chosen = _chosen(texts, by_release, wanted) if wanted else _latest(by_release)
    if chosen is None:
        raise VersionNotFound(
            f"'{project}' has no version '{shown(wanted)}'" if wanted else f"'{project}' has no version"
        )
    entries = [entry for entry in listing.entries if parse_version(entry.name) == parse_version(chosen)]
    found: dict[str, Any] = {
        "info": _info(project, chosen, entries, by_release[chosen], listing, address),
        "last_serial": listing.revision,
        "urls": [_api_file(row, address) for row in by_release[chosen]],
        "vulnerabilities": [],
    }
    if not wanted:
        found["releases"] = {
            text: [_api_file(row, address) for row in of_release] for text, of_release in by_release.items()
        }
    if status:
        found["project_status"] = status
    return orjson.dumps(found)


def _chosen(texts: Mapping[Version | None, str], known: Mapping[str, object], wanted: str) -> str | None:
    version = parse_version(wanted)
    return texts.get(version) if version is not None else (wanted if wanted in known else None)


def _latest(by_release: Mapping[str, Sequence[Row]]) -> str | None:
    """The highest version that is neither a pre-release nor yanked, else the highest of all."""
    best = None
    for text, rows in by_release.items():  # lowest first
        version = parse_version(text)
        is_yanked = bool(rows) and all(row.yanked is not False for row in rows)
        if version is not None and not version.is_prerelease and not is_yanked:
            best = text
    return best if best is not None else next(reversed(list(by_release)), None)


def _info(
    project: str, chosen: str, entries: Sequence[Entry], rows: Sequence[Row], listing: Listing, address: str
) -> dict[str, Any]:
    core = next((entry.metadata for entry in entries if entry.metadata), {})
    described = listing.metadata.get("description")
    description = described if isinstance(described, Mapping) and described.get("version") == chosen else {}
    yanked = [row.yanked for row in rows]
    is_yanked = bool(yanked) and all(value is not False for value in yanked)
    reason = next((value for value in yanked if isinstance(value, str)), None) if is_yanked else None
    texts = (
        "author",
        "author_email",
        "maintainer",
        "maintainer_email",
        "summary",
        "license",
        "home_page",
        "download_url",
    )
    return {
        **{key: _text(core.get(key)) for key in texts},
        "bugtrack_url": None,
        "classifiers": _list(core.get("classifiers")) or [],
        "description": _text(description.get("text")),
        "description_content_type": _text(core.get("description_content_type")) or None,
        "docs_url": None,
        "downloads": {"last_day": -1, "last_month": -1, "last_week": -1},
        "dynamic": _list(core.get("dynamic")),
        "keywords": _text(core.get("keywords")),
        "license_expression": _text(core.get("license_expression")) or None,
        "license_files": _list(core.get("license_files")),
        "name": _text(core.get("name")) or project,
        "package_url": f"{address}/simple/{project}/",
        "platform": ",".join(_list(core.get("platforms")) or []) or None,
        "project_url": f"{address}/simple/{project}/",
        "project_urls": dict(urls) if isinstance(urls := core.get("project_urls"), Mapping) else None,
        "provides_extra": _list(core.get("provides_extra")),
        "release_url": f"{address}/simple/{project}/",
        "requires_dist": _list(core.get("requires_dist")),
        "requires_python": _text(core.get("requires_python")) or None,
        "version": chosen,
        "yanked": is_yanked,
        "yanked_reason": reason,
    }


def _api_file(row: Row, address: str) -> dict[str, Any]:
    file = row.file
    uploaded = file.published_at
    digests = {name: file.digests[name] for name in ("md5", "sha256") if name in file.digests}
    for name in ("md5", "blake2b_256"):
        value = _text(file.metadata.get(name))
        if value:
            digests[name] = value
    return {
        "comment_text": "",
        "digests": digests,
        "downloads": -1,
        "filename": file.path,
        "has_sig": False,
        "md5_digest": digests.get("md5"),
        "packagetype": "bdist_wheel" if row.distribution.kind == "wheel" else "sdist",
        "python_version": row.distribution.python,
        "requires_python": row.requires_python or None,
        "size": file.size,
        "upload_time": None if uploaded is None else f"{uploaded.astimezone(datetime.UTC):%Y-%m-%dT%H:%M:%S}",
        "upload_time_iso_8601": None if uploaded is None else _time(uploaded),
        "url": file_url(address, row.distribution.project, file.path),
        "yanked": row.yanked is not False,
        "yanked_reason": row.yanked if isinstance(row.yanked, str) else None,
    }


# --- pages -> records ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Found:
    """One file as a page names it, before it is known whether it is a distribution."""

    filename: str
    url: str
    digests: dict[str, str] = field(default_factory=dict)
    size: int | None = None
    published_at: datetime.datetime | None = None
    requires_python: str = ""
    yanked: bool | str = False
    core_metadata: bool | dict[str, str] = False
    provenance: str = ""
    more: dict[str, Any] = field(default_factory=dict)


def parse(ref: ListingRef, body: bytes, *, url: str, media_type: str) -> Listing:
    """See `FormatHandler.parse_listing`. What is no distribution of this project, or has a legacy version, is skipped
    file by file; a page that is no index at all (a login or error page) raises ContentInvalid."""
    kind = media_type.partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        return _parse_json(ref, body, url)
    if kind.endswith("html") or kind.endswith("+xml"):
        return _parse_html(ref, body, url)
    raise ContentInvalid(f"the upstream's answer is neither JSON nor HTML but '{shown(kind)}'")


def _parse_json(ref: ListingRef, body: bytes, url: str) -> Listing:
    try:
        page = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ContentInvalid(f"the upstream's page is not JSON: {error}") from None
    meta = page.get("meta") if isinstance(page, dict) else None
    if not isinstance(page, dict) or not isinstance(meta, dict):
        raise ContentInvalid("the upstream's document is not a page of a Python package index")
    version = _text(meta.get("api-version"))
    if version.partition(".")[0] != "1":
        raise ContentInvalid(
            f"the upstream speaks version '{shown(version)}' of the simple API, which is not known here"
        )
    if ref.kind == "packages":
        projects = page.get("projects")
        if not isinstance(projects, list):
            raise ContentInvalid("the upstream's document is not an index of projects")
        return _packages(item.get("name") for item in projects if isinstance(item, dict))
    files, name = page.get("files"), page.get("name", ref.package)
    if not isinstance(files, list) or not isinstance(name, str) or _key(name) != ref.package:
        raise ContentInvalid("the upstream's document is not the page of this project")
    given = page.get("versions")
    versions = [text for text in given if isinstance(text, str)] if isinstance(given, list) else []
    # The specification's example has the status in `meta`, its text and the public index on top.
    status = page.get("project-status") or meta.get("project-status")
    return _listing(ref.package, _json_files(files, url), versions, status)


def _json_files(files: Iterable[object], url: str) -> Iterator[_Found]:
    for item in files:
        if not isinstance(item, dict):
            continue
        filename, given = item.get("filename"), item.get("url")
        address = _join(url, given) if isinstance(given, str) else ""
        if not isinstance(filename, str) or not address:
            continue
        size, yanked = item.get("size"), item.get("yanked")
        core = next((value for key in _CORE_KEYS if (value := item.get(key)) is not None), False)
        provenance = item.get("provenance")
        yield _Found(
            filename=filename,
            url=address,
            digests=_digests(item.get("hashes")),
            size=size if isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 2**63 else None,
            published_at=_parsed_time(item.get("upload-time")),
            requires_python=_text(item.get("requires-python")),
            yanked=yanked if yanked is True or (isinstance(yanked, str) and yanked) else False,
            core_metadata=_digests(core) or True if isinstance(core, dict) else core is True,
            provenance=_join(url, provenance) if isinstance(provenance, str) else "",
            more={key: value for key, value in item.items() if key not in _KNOWN_KEYS and not key.startswith("_")},
        )


def _parse_html(ref: ListingRef, body: bytes, url: str) -> Listing:
    reader = _Reader()
    reader.feed(body.decode("utf-8", "replace"))
    reader.close()
    base = _join(url, reader.base) if reader.base else url
    version = reader.meta.get("pypi:repository-version", "")
    if version and version.partition(".")[0] != "1":
        raise ContentInvalid(
            f"the upstream speaks version '{shown(version)}' of the simple API, which is not known here"
        )
    is_index = bool(version) or _TITLE.match(reader.title) is not None
    if ref.kind == "packages":
        if not is_index:
            raise ContentInvalid("the upstream's page is not an index of projects")
        return _packages(_project_of(anchor) for anchor in reader.anchors)
    found = [file for anchor in reader.anchors if (file := _html_file(anchor, base)) is not None]
    if not is_index and not any(looks_like_distribution(file.filename) for file in found):
        raise ContentInvalid("the upstream's page is not a page of a Python package index")
    status = {
        "status": reader.meta.get("pypi:project-status"),
        "reason": reader.meta.get("pypi:project-status-reason"),
    }
    return _listing(ref.package, found, (), status)


def _html_file(anchor: Mapping[str, str], base: str) -> _Found | None:
    """A link as installers read it: the name is the last part of its address."""
    address = _join(base, anchor.get("href", ""))
    if not address:
        return None
    parts = urlsplit(address)
    name, _, value = parts.fragment.partition("&")[0].partition("=")
    core = anchor.get("data-core-metadata", anchor.get("data-dist-info-metadata", ""))
    core_name, separator, core_value = core.partition("=")
    provenance = anchor.get("data-provenance", "")
    return _Found(
        filename=unquote(parts.path.rpartition("/")[2]),
        url=urlunsplit(parts._replace(fragment="")),
        digests=_digests({name: value}),
        requires_python=anchor.get("data-requires-python", ""),
        yanked=(anchor["data-yanked"] or True) if "data-yanked" in anchor else False,
        core_metadata=_digests({core_name: core_value}) or True if separator else core == "true",
        provenance=_join(base, provenance) if provenance else "",
    )


class _Reader(HTMLParser):
    """Anchors, meta data, the base and the title; nothing else of an upstream's markup gets any further."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.anchors: list[dict[str, str]] = []
        self.meta: dict[str, str] = {}
        self.base = ""
        self.title = ""
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            found: dict[str, str] = {}
            for name, value in attrs:
                found.setdefault(name, value or "")
            if len(self.anchors) >= 2 * FILES_MOST:
                raise ContentInvalid("the upstream's page has more links than are read")
            self.anchors.append(found)
        elif tag == "meta":
            found = {name: value or "" for name, value in attrs}
            self.meta.setdefault(found.get("name", "").lower(), found.get("content", ""))
        elif tag == "base" and not self.base:
            self.base = next((value or "" for name, value in attrs if name == "href"), "")
        elif tag in ("title", "h1"):
            self._in_title = not self.title

    def handle_endtag(self, tag: str) -> None:
        if tag in ("title", "h1"):
            self._in_title = False

    def handle_data(self, data: str) -> None:
        if self._in_title and len(self.title) < 200:
            self.title += data


def _listing(project: str, found: Iterable[_Found], versions: Iterable[str], status: object) -> Listing:
    """Files gathered into their releases, lowest version first."""
    names: dict[Version, str] = {}
    for text in versions:
        version = parse_version(text)
        if version is not None:
            names.setdefault(version, str(version))
    files: dict[Version, list[_Found]] = {version: [] for version in names}
    seen: set[str] = set()
    for file in found:
        distribution = parse_listed(file.filename, project)
        if distribution is None or file.filename in seen:
            continue
        seen.add(file.filename)
        if len(seen) > FILES_MOST:
            raise ContentInvalid("the upstream's page has more files than are read")
        names.setdefault(distribution.version, distribution.release)
        files.setdefault(distribution.version, []).append(file)
    entries = tuple(_entry(names[version], files[version]) for version in sorted(names))
    metadata = {}
    if isinstance(status, Mapping):
        kept = project_status({"project_status": status})
        if kept:
            metadata["project_status"] = kept
    return Listing(entries, metadata=metadata)


def _entry(name: str, found: Sequence[_Found]) -> Entry:
    """A release is yanked if all its files are; a file says itself what differs from its release."""
    is_yanked = bool(found) and all(file.yanked is not False for file in found)
    reason = next((file.yanked for file in found if isinstance(file.yanked, str)), "") if is_yanked else ""
    whole: bool | str = is_yanked and (reason or True)
    files: list[ListedFile] = []
    for file in sorted(found, key=lambda file: file.filename):
        metadata: dict[str, object] = {}
        if file.requires_python:
            metadata["requires_python"] = file.requires_python
        if file.yanked != whole:
            metadata["yanked"] = file.yanked
        if file.more:
            metadata["more"] = file.more
        files.append(ListedFile(file.filename, file.size, file.digests, file.url, file.published_at, metadata))
        if file.core_metadata is not False:
            digests = file.core_metadata if isinstance(file.core_metadata, dict) else {}
            files.append(
                ListedFile(file.filename + METADATA_SUFFIX, None, digests, _beside(file.url), file.published_at)
            )
        if file.provenance:
            files.append(ListedFile(file.filename + PROVENANCE_SUFFIX, None, {}, file.provenance, file.published_at))
    times = [file.published_at for file in found if file.published_at is not None]
    return Entry(
        name,
        kind="version",
        modified=min(times) if times else None,
        files=tuple(files),
        yanked=is_yanked,
        yanked_reason=reason,
    )


def _packages(names: Iterable[object]) -> Listing:
    found = sorted({key for name in names if isinstance(name, str) and (key := _key(name))})
    return Listing(tuple(Entry(name, kind="package") for name in found))


def _project_of(anchor: Mapping[str, str]) -> str:
    path = urlsplit(anchor["href"]).path if _is_plain(anchor.get("href", "")) else ""
    return unquote(path.rstrip("/").rpartition("/")[2])


def _is_plain(href: str) -> bool:
    try:
        return bool(urlsplit(href).path)
    except ValueError:
        return False


# --- values ----------------------------------------------------------------------------------------------------------


def _key(name: str) -> str:
    try:
        return normalize(name)
    except NameInvalid:
        return ""


def _join(base: str, given: str) -> str:
    """An absolute address, "" for what is no web address."""
    try:
        found = urljoin(base, given.strip())
        parts = urlsplit(found)
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not parts.netloc or not found.isprintable() or len(found) > 4096:
        return ""
    return found


def _beside(url: str) -> str:
    """The side file's address: the suffix belongs to the path, before a query (PEP 658)."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path + METADATA_SUFFIX, fragment=""))


def _digests(given: object) -> dict[str, str]:
    if not isinstance(given, Mapping):
        return {}
    found = {}
    for name, value in given.items():
        if isinstance(value, str) and len(value) == _HEX_LENGTH.get(name, -1) and _HEX.match(value.lower()):
            found[name] = value.lower()
    return found


def _time(moment: datetime.datetime) -> str:
    """PEP 700: UTC with `Z`, up to six decimals."""
    return f"{moment.astimezone(datetime.UTC):%Y-%m-%dT%H:%M:%S.%f}Z"


def _parsed_time(given: object) -> datetime.datetime | None:
    if not isinstance(given, str) or len(given) > 40:
        return None
    try:
        found = datetime.datetime.fromisoformat(given)
        return (found if found.tzinfo is not None else found.replace(tzinfo=datetime.UTC)).astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        return None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _list(value: object) -> list[str] | None:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list | tuple) else None
