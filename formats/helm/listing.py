"""The index: written from the entries that were kept, and an upstream's taken apart.

It is written as compact JSON, which is YAML as well: every Helm reads it, and from 3.13 on some ten times as fast. Entries
are kept as their JSON texts and only joined. An upstream's index may be YAML or JSON, and is read leniently: one bad entry
costs that entry. See README.md for what makes an index be refused as a whole.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

import orjson
from yaml.events import AliasEvent, ScalarEvent

from repoman.core.errors import ContentInvalid, NameInvalid, PackageNotFound, VersionNotFound
from repoman.core.names import shown
from repoman.core.records import Document, Entry, Frame, ListedFile, Listing
from repoman.core.refs import ListingRef
from repoman.core.served import link

from . import names
from .chartyaml import Reader
from .metadata import upstream_entry

INDEX = "index"  # forms: the index, and ChartMuseum's answers
CHARTS = "charts"
CHART = "chart"
WANTED = "wanted"  # a listing's argument: which version
YAML_TYPE = "application/x-yaml"
JSON_TYPE = "application/json"
ENTRY = "entry"  # in an archive's metadata: its index entry, as JSON text
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_HEX = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})\Z")
_MOMENT = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9:]{8})(?:\.([0-9]{1,12}))?(Z|z|[-+][0-9]{2}:?[0-9]{2})?\Z")
_URL_LENGTH = 2048
_URLS_MOST = 16  # of one entry that are looked at
# A backslash that escapes another; a surrogate pair; half of one.
_ESCAPE = re.compile(
    rb"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
_WORDS = ("true", "false", "null")  # that nothing longer begins with


# --- writing ---------------------------------------------------------------------------------------------------------


def part(package: str, listing: Listing) -> bytes:
    """The chart's share of the index: `"name":[…]`, newest version first; nothing where there is no archive."""
    entries = texts(listing)
    return orjson.dumps(package) + b":[" + b",".join(entries) + b"]" if entries else b""


def frame(form: str, changed_at: datetime.datetime | None, address: str) -> Frame:
    """What stands around the parts. `address`: of the repository, as its clients see it, without scheme and host."""
    if form == CHARTS:
        return Frame(b"{", b",", b"}", JSON_TYPE)
    head = {"apiVersion": "v1", "generated": moment(changed_at or _EPOCH), "serverInfo": {"contextPath": address}}
    return Frame(orjson.dumps(head)[:-1] + b',"entries":{', b",", b"}}\n", YAML_TYPE)


def render(ref: ListingRef, listing: Listing, form: str, address: str) -> Document:
    """One chart: an index of it alone, ChartMuseum's list of its versions, or one of them."""
    if form == INDEX:
        around = frame(form, listing.changed_at, address)
        return Document(around.head + part(ref.package, listing) + around.tail, YAML_TYPE)
    if form == CHART:
        return Document(_one(ref, listing), JSON_TYPE)
    entries = texts(listing)
    if not entries:
        raise PackageNotFound(f"there is no chart '{shown(ref.package)}' in this repository")
    return Document(b"[" + b",".join(entries) + b"]", JSON_TYPE)


def _one(ref: ListingRef, listing: Listing) -> bytes:
    version = ref.argument(WANTED)
    for entry in chosen(listing, version):
        file = archive_of(entry)
        if file is not None:
            return _entry_text(entry, file)
    raise VersionNotFound(f"there is no chart '{shown(ref.package)}' of version '{shown(version)}' here")


def chosen(listing: Listing, version: str) -> list[Entry]:
    """The version of exactly that name; for `latest`, the newest that is no pre-release, or the newest of all."""
    exact = [entry for entry in listing.entries if entry.name == version]
    if exact or version != "latest":
        return exact
    ordered = [entry for entry in ordered_of(listing) if archive_of(entry) is not None]
    return [entry for entry in ordered if names.is_stable(entry.name)] or ordered


def ordered_of(listing: Listing) -> list[Entry]:
    """Newest first by semver precedence; of spellings that are equal in it, the one that came last."""
    return sorted(
        listing.entries, key=lambda entry: (names.version_key(entry.name), _when(entry), entry.name), reverse=True
    )


def texts(listing: Listing) -> list[bytes]:
    """The entries of all versions that have an archive, as JSON, newest first."""
    found = ((entry, archive_of(entry)) for entry in ordered_of(listing))
    return [_entry_text(entry, file) for entry, file in found if file is not None]


def _when(entry: Entry) -> datetime.datetime:
    file = archive_of(entry)
    return (file.published_at if file is not None else None) or entry.modified or _EPOCH


def archive_of(entry: Entry) -> ListedFile | None:
    return next((file for file in entry.files if ENTRY in file.metadata), None)


def _entry_text(entry: Entry, file: ListedFile) -> bytes:
    kept = str(file.metadata[ENTRY]).encode()
    folder = names.folder(file.path, entry.name)
    more: dict[str, Any] = {"urls": [f"charts/{link(f'{folder}/{file.path}' if folder else file.path)}"]}
    if file.published_at is not None:
        more["created"] = moment(file.published_at)
    if "sha256" in file.digests:
        more["digest"] = file.digests["sha256"]
    return kept[:-1] + b"," + orjson.dumps(more)[1:]


def moment(value: datetime.datetime) -> str:
    """As Go reads it: RFC 3339 in UTC."""
    return value.astimezone(datetime.UTC).isoformat().replace("+00:00", "Z")


# --- reading ---------------------------------------------------------------------------------------------------------


def parse(ref: ListingRef, body: bytes, *, url: str) -> Listing:
    """One chart out of an upstream's index. Raises ContentInvalid where it is none, or does not have the chart."""
    found = None
    for package, listing in split(body, url=url):  # to its end, which tells whether it was cut off
        if package == ref.package:
            found = listing
    if found is not None:
        return found
    raise ContentInvalid(f"the index does not have the chart '{shown(ref.package)}'")


def split(body: bytes, *, url: str) -> Iterator[tuple[str, Listing]]:
    """An upstream's index as one listing for each chart, in no order. `url`: where it is. Raises ContentInvalid for what is
    no index, or was cut off."""
    files: set[str] = set()
    for package, given in _charts(body):
        try:
            names.check_name(package)
        except NameInvalid:
            continue
        entries: dict[str, Entry] = {}
        for raw in given:
            entry = _entry(package, raw, url)
            # A file's name that two charts share (`a-b` 1 and `a` b-1) is the first one's.
            if entry is not None and entry.name not in entries and entry.files[0].path not in files:
                entries[entry.name] = entry
                files.add(entry.files[0].path)
        if entries:
            moments = [entry.modified for entry in entries.values() if entry.modified is not None]
            yield package, Listing(tuple(entries.values()), changed_at=max(moments, default=None))


def _entry(package: str, raw: object, url: str) -> Entry | None:
    """One version with its archive and the provenance beside it; None for what cannot be kept."""
    if not isinstance(raw, Mapping):
        return None
    try:
        name, version, text = upstream_entry(raw)
    except (ContentInvalid, NameInvalid):
        return None
    address = _address(raw.get("urls"), url)
    if name != package or not address:
        return None
    digest = _HEX.match(raw["digest"]) if isinstance(raw.get("digest"), str) else None
    created = read_moment(raw.get("created"))
    file = names.file_name(name, version)
    archive = ListedFile(
        file,
        digests={"sha256": digest[1].lower()} if digest else {},
        url=address,
        published_at=created,
        metadata={ENTRY: text},
    )
    parts = urlsplit(address)
    beside = parts._replace(path=parts.path + names.PROVENANCE, fragment="").geturl()
    # Nothing says whether there is one: it is asked for when somebody wants it.
    provenance = ListedFile(file + names.PROVENANCE, url=beside, published_at=created)
    return Entry(version, kind="version", modified=created, files=(archive, provenance))


def _address(urls: object, base: str) -> str:
    """The first address that can be fetched, as Helm makes it absolute: a relative one's own query is dropped; or ""."""
    given = urls[:_URLS_MOST] if isinstance(urls, list) else []
    return next((address for one in given if (address := _absolute(one, base))), "")


def _absolute(given: object, base: str) -> str:
    """ "" for what is not http, or leads to no file: to the index itself, or to a folder that it is in."""
    if not isinstance(given, str) or len(given) > _URL_LENGTH:
        return ""
    try:
        found = urlsplit(given.strip())
        if not found.scheme:
            found = urlsplit(urljoin(base, found._replace(query="", fragment="").geturl()))
        is_web = found.scheme in ("http", "https") and bool(found.hostname)
    except ValueError:
        return ""
    if not is_web or found.username is not None or found.password is not None:
        return ""
    index = urlsplit(base).path
    if found.path in ("", "/", index) or (found.path.endswith("/") and index.startswith(found.path)):
        return ""
    return quote(found._replace(fragment="").geturl(), safe="%/:?#[]@!$&'()*+,;=~-._")


def read_moment(value: object) -> datetime.datetime | None:
    """A moment as some tool may have written it; None for what is none. Without a zone it is UTC."""
    match = _MOMENT.match(value) if isinstance(value, str) else None
    if match is None:
        return None
    day, clock, fraction, zone = match.groups()
    zone = "+00:00" if zone in (None, "Z", "z") else zone
    try:
        found = datetime.datetime.fromisoformat(f"{day}T{clock}.{(fraction or '0')[:6]:0<6}{zone}")
        return found.astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        return None


def _charts(body: bytes) -> Iterator[tuple[str, Sequence[object]]]:
    """Each chart's name with its entries, whatever they are."""
    if body.lstrip()[:1] == b"{":
        try:
            found = _json(body)
        except orjson.JSONDecodeError:
            pass  # flow mappings of YAML begin like JSON
        else:
            yield from _json_charts(found)
            return
    yield from _yaml_charts(body)


def _json(body: bytes) -> Any:
    """As Go reads it: bytes that are no UTF-8, and halves of surrogate pairs, are U+FFFD. Raises orjson.JSONDecodeError."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        text = body.decode("utf-8", "replace").encode()
        return orjson.loads(_ESCAPE.sub(lambda found: rb"\ufffd" if found[1] else found[0], text))


def _json_charts(found: Any) -> Iterator[tuple[str, Sequence[object]]]:
    entries = found.get("entries") if isinstance(found, dict) and found.get("apiVersion") else ()
    if entries is not None and not isinstance(entries, dict):
        raise ContentInvalid("the document is no index of charts")
    for package, given in (entries or {}).items():
        if isinstance(given, list):
            yield package, given


def _yaml_charts(body: bytes) -> Iterator[tuple[str, Sequence[object]]]:
    """Chart by chart, so that memory holds no more than one and what was made of the others."""
    reader = Reader(body, is_strict=False)
    is_index = has_entries = False
    is_closed = reader.is_flow()
    ending: _Ending | None = None  # where nothing stands behind the entries
    for key in reader.pairs():
        reader.renew()
        if key == "entries" and not has_entries:
            has_entries = True
            is_closed = is_closed or reader.is_flow()
            ending = _Ending()
            if reader.is_mapping():
                yield from _yaml_entries(reader, ending)
            elif reader.value() not in (None, ""):
                raise ContentInvalid("the document is no index of charts")
        else:
            value = reader.value()
            is_index = is_index or (key == "apiVersion" and bool(value))
            ending = None
    reader.end()
    if not is_index or not has_entries:
        raise ContentInvalid("the document is no index of charts: it has no apiVersion or no entries")
    if ending is not None and not is_closed and not ending.is_whole(body, reader):
        raise ContentInvalid("the index was cut off: it ends in the middle of an entry")


def _yaml_entries(reader: Reader, ending: _Ending) -> Iterator[tuple[str, Sequence[object]]]:
    for package in reader.pairs():
        reader.renew()
        is_closed = reader.is_flow()
        if reader.is_list():
            entries = []
            for _ in reader.items():
                reader.renew()
                is_entry_closed = is_closed or reader.is_flow()
                entries.append(reader.value())
                ending.add(entries[-1], is_entry_closed)
            yield package, entries
            continue
        given = reader.value()
        for entry in given if isinstance(given, list) and given else [given]:
            ending.add(entry, is_closed)
        if isinstance(given, list):
            yield package, given


@dataclass(slots=True)
class _Ending:
    """What an index that ends with its entries ends with. Cut off between two lines, YAML is still YAML, and so it mostly is
    in the middle of one: whether it was, is seen from the last value and the last entry.

    An index is whole where it, its entries or the last of them stand in brackets, or `...` or another document follows. Else
    both of these must be seen to be whole:

    - The last value: it ends with its line, a quote or a bracket. A plain one behind which the text ends is whole where it
      is a digest of full length; a moment with its zone; a version for which an address of the entry ends with
      `<name>-<version>.tgz`, or such an address; `true`, `false` or `null`. Nothing behind `key:` or `-` is not whole.
    - The last entry: it has a name, a version and an address, and a digest where all others have one; or, whatever is wrong
      with it, it ends with the same key as the entry before it.
    """

    last: object = None
    before: dict[str, object] | None = None
    is_closed: bool = False
    has_digests: bool = True  # all before the last

    def add(self, value: object, is_closed: bool) -> None:
        """The next entry, or what stands for the entries of a chart. `is_closed`: by a bracket."""
        if isinstance(self.last, dict):
            self.before = self.last
            self.has_digests = self.has_digests and bool(self.last.get("digest"))
        self.last, self.is_closed = value, is_closed

    def is_whole(self, body: bytes, reader: Reader) -> bool:
        if self.is_closed or reader.is_ended():
            return True
        event = reader.last
        if event is None or (getattr(event, "value", None) == "" and not event.style):
            return False
        if not _is_line_whole(body, event) and not self._is_value_whole(event):
            return False
        return not isinstance(self.last, dict) or self._is_entry_whole(self.last)

    def _is_entry_whole(self, entry: dict[str, object]) -> bool:
        if entry and self.before and next(reversed(entry)) == next(reversed(self.before)):
            return True
        if not (entry.get("name") and entry.get("version") and entry.get("urls")):
            return False
        return self.before is None or not self.has_digests or bool(entry.get("digest"))

    def _is_value_whole(self, event: Any) -> bool:
        """Whether a value behind which the text ends can only be the whole one."""
        if not isinstance(event, ScalarEvent):
            return not isinstance(event, AliasEvent)
        text = event.value
        if event.style or text in _WORDS:
            return event.style not in ("|", ">")
        entry: dict[str, object] = self.last if isinstance(self.last, dict) else {}
        key = next(reversed(entry), "")
        if key == "digest":
            return _HEX.match(text) is not None
        if key == "created":
            moment = _MOMENT.match(text)
            return moment is not None and moment[4] is not None
        version = text if key == "version" else entry.get("version")
        urls = entry.get("urls") if key == "version" else [text] if key == "urls" else []
        file = f"/{entry.get('name')}-{version}{names.CHART}"
        return isinstance(urls, list) and any(f"/{unquote(str(url))}".endswith(file) for url in urls[:_URLS_MOST])


def _is_line_whole(body: bytes, event: Any) -> bool:
    """Whether a line, or a comment, ends the text, and not the value that `event` has."""
    line = body.rstrip(b" \t").rpartition(b"\n")[2]
    return not line or (line.lstrip().startswith(b"#") and getattr(event, "style", None) not in ("|", ">"))
