"""Requests and responses as formats see them. Knows neither Django nor ASGI; the edge (`protocol/`) speaks to both.

A route's life: the edge finds the `Route`; `admit` (synchronous, in the decision pool, after permission) says how the
body is taken and what it may weigh; the edge streams the body accordingly; `view` (synchronous, same pool) returns a
`Response` whose content is a value. Only the edge opens files and sockets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qsl, quote

from .actor import Action, Actor
from .digest import Digest
from .errors import BadRequest, ContentCodingUnsupported, LengthRequired
from .records import BlobRef, Rendered, Staged, UploadState
from .refs import FileRef, ListingRef, TagRef, VersionRef

MAX_PARAMETERS = 1000
_COUNT = re.compile(r"[0-9]{1,18}\Z")


class Headers:
    """Request headers: case-insensitive, several values kept. `get` joins nothing: it gives the first value."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        self._pairs = pairs  # names already lower-case, as ASGI gives them

    def get(self, name: str, default: str | None = None) -> str | None:
        wanted = name.lower().encode("latin-1")
        for key, value in self._pairs:
            if key == wanted:
                return value.decode("latin-1")
        return default

    def all(self, name: str) -> list[str]:
        wanted = name.lower().encode("latin-1")
        return [value.decode("latin-1") for key, value in self._pairs if key == wanted]

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(self._pairs)


class Query:
    """Query parameters, decoded once; several values kept. Raises BadRequest past 1,000 parameters or bad UTF-8."""

    __slots__ = ("_pairs", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw.decode("latin-1")
        try:
            self._pairs = parse_qsl(
                self.raw, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS, encoding="utf-8"
            )
        except (ValueError, UnicodeDecodeError) as error:
            raise BadRequest(f"the query string cannot be read: {error}") from None
        for key, value in self._pairs:
            if any(ord(character) < 32 or ord(character) == 127 for character in key + value):
                raise BadRequest("the query string contains a control character")

    @property
    def suffix(self) -> str:
        """The query as it came, for the end of a Location: "" or `?…`."""
        return f"?{quote(self.raw, safe='=&%+,;:@/?~!$*()-._')}" if self.raw else ""

    def get(self, name: str, default: str | None = None) -> str | None:
        for key, value in self._pairs:
            if key == name:
                return value
        return default

    def all(self, name: str) -> list[str]:
        return [value for key, value in self._pairs if key == name]

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def count(self, name: str, default: int, most: int, least: int = 0) -> int:
        """A whole number, brought between `least` and `most`. Raises BadRequest for what is none."""
        given = self.get(name)
        if given is None:
            return default
        if _COUNT.match(given) is None:
            raise BadRequest(f"'{name}' is a whole number")
        return max(least, min(int(given), most))


# --- how a body is taken ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NoBody:
    """Whatever body comes is read and dropped (bounded), and the view sees None."""


@dataclass(frozen=True, slots=True)
class DocumentBody:
    """At most `max_bytes`, in memory; the view sees a Document."""

    max_bytes: int


@dataclass(frozen=True, slots=True)
class StagedBody:
    """Streamed to the blob store, hashed once, durable before the view runs; the view sees a Staged.

    `expect` is checked at the end of the stream (DigestInvalid); `algorithms` are hashed besides sha256. `may_be_held`:
    these may be bytes that the namespace holds already, so that the quota is asked when they are known, not before.
    """

    expect: Digest | None = None
    algorithms: tuple[str, ...] = ()
    limit: int | None = None  # bytes; None: only the quota bounds it
    may_be_held: bool = False


@dataclass(frozen=True, slots=True)
class SessionBody:
    """Appended to the upload session; the view sees an UploadState with the new offset.

    `start` is the offset the client says it continues at (RangeInvalid if it is not the session's); None: wherever it
    stands. `length` is what Content-Range declares.
    """

    upload_id: str
    package: str
    start: int | None = None
    length: int | None = None


@dataclass(frozen=True, slots=True)
class PartBegin:
    """A part of a form begins. `is_file`: its data goes to the blob store; else it is kept in memory."""

    name: str
    filename: str = ""
    media_type: str = ""
    is_file: bool = False


@dataclass(frozen=True, slots=True)
class PartData:
    data: bytes


@dataclass(frozen=True, slots=True)
class PartEnd:
    """The part that began last is complete."""


PartEvent = PartBegin | PartData | PartEnd


class PartsParser(Protocol):
    """Cuts a body into parts while it arrives. Pure and stateful: one per request. Raises BadRequest, ContentInvalid."""

    def feed(self, data: bytes) -> Iterable[PartEvent]: ...

    def finish(self) -> Iterable[PartEvent]:
        """What the end of the body completes. Raises where it ended too early."""
        ...


@dataclass(frozen=True, slots=True)
class PartsBody:
    """A form: several parts, files among them streamed to the blob store; the view sees Parts.

    `max_fields_bytes`: most that all parts held in memory may have together, `max_parts` how many there may be.
    `algorithms` are hashed besides sha256 for every file; `limit` bounds each file (None: only the quota does).
    """

    parser: PartsParser
    max_fields_bytes: int = 8 * 1024 * 1024
    max_parts: int = 10_000
    algorithms: tuple[str, ...] = ()
    limit: int | None = None


BodyPlan = NoBody | DocumentBody | StagedBody | SessionBody | PartsBody


@dataclass(frozen=True, slots=True)
class Document:
    data: bytes


@dataclass(frozen=True, slots=True)
class Part:
    """One part: `data` in memory, or `staged` in the store."""

    name: str
    filename: str
    media_type: str
    data: bytes = b""
    staged: Staged | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """All parts in the order they came."""

    parts: tuple[Part, ...]

    def all(self, name: str) -> list[Part]:
        return [part for part in self.parts if part.name == name]

    def files(self) -> list[Part]:
        return [part for part in self.parts if part.staged is not None]


Body = Document | Staged | UploadState | Parts | None


# --- requests and responses ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Head:
    """A request before its body. `path` is what follows the repository, decoded, without a leading slash.

    `mount` is the address prefix the client used for this repository (`/v2/ns/repo`, `/generic/ns/repo`): links that
    go back to the client start with it. `base_url` is scheme and host as the client sees them. `length` is the
    declared Content-Length, None if chunked or absent.
    """

    method: str
    path: str
    query: Query
    headers: Headers
    actor: Actor
    mount: str
    base_url: str
    length: int | None = None
    has_body: bool = False

    @property
    def address(self) -> str:
        """The repository's address as the client sees it, without a slash at its end."""
        return f"{self.base_url}{self.mount}"


@dataclass(frozen=True, slots=True)
class Request(Head):
    body: Body = None


@dataclass(frozen=True, slots=True)
class Redirect:
    url: str


Content = bytes | BlobRef | Redirect | Rendered


@dataclass(frozen=True, slots=True)
class Response:
    """`headers` go out as given; the edge adds length, date, request id, and for a BlobRef type, ETag and ranges.

    `reason` replaces the standard reason phrase (twine shows it to people). `last_modified` in seconds since the epoch
    lets the edge answer date conditions of a BlobRef.
    """

    status: int = 200
    headers: Sequence[tuple[str, str]] = ()
    content: Content = b""
    reason: str | None = None
    etag: str | None = None
    last_modified: float | None = None


@dataclass(frozen=True, slots=True)
class HotLookup:
    """What a route's short cut asks the edge to look up: one live row by name.

    kind "tag" (package, name), "version" (package, name) or "file" (package, name).
    """

    kind: str
    package: str
    name: str


AdmitFunction = Callable[..., BodyPlan]  # (repo, head, **captured)
ViewFunction = Callable[..., Response]  # (repo, request, **captured)
HotFunction = Callable[..., "HotLookup | None"]  # (**captured) with GET or HEAD
HotAnswer = Callable[..., "Sequence[tuple[str, str]]"]  # headers besides the edge's own
RefFunction = Callable[..., "FileRef | TagRef | VersionRef | ListingRef | None"]  # (**captured)


def no_body(repo: Any, head: Head, **captured: str) -> BodyPlan:
    return NoBody()


@dataclass(frozen=True, slots=True)
class Route:
    """`pattern` matches the whole of what follows the repository in the path; `action` is required of the caller.

    `hot` names the single row that a GET or HEAD needs, or None to take the long way; `hot_headers` are the headers
    the format adds to that row's bytes, called with the row's own fields: `hot_headers(name=, media_type=, digest=,
    captured=, metadata=)`, where `name` is the file's path or the version's name (for a tag: of the version it points
    to), `digest` the sha256 in hex and `metadata` the row's. A Content-Type among them replaces the stored one.
    `hot_options`: they depend on the repository's options, too, and are called with these as they were set (`options=`).
    `hot_dated` says that the answer carries Last-Modified, the moment the row was made. Both ways must answer alike.

    `by_revision` says that a 200 of this route is made from the repository's content alone (and path, query, Accept
    and address), whoever asks: it is kept in memory, and sent again while the repository's revision stands still.

    `ref` names what the route reads, so that `explain` can say where it would come from.
    """

    methods: tuple[str, ...]
    pattern: str
    action: Action
    view: ViewFunction
    admit: AdmitFunction = no_body
    hot: HotFunction | None = None
    hot_headers: HotAnswer | None = None
    name: str = ""
    hot_options: bool = False
    hot_dated: bool = False
    by_revision: bool = False
    ref: RefFunction | None = None
    regex: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "regex", re.compile(self.pattern + r"\Z"))


@dataclass(frozen=True, slots=True)
class SiteRoute:
    """A route at the host root or at a format's prefix, outside any repository: ping, catalog, token.

    `path` is exact. `view(site, request)` gets the site handle: what this actor may see across repositories.
    """

    methods: tuple[str, ...]
    path: str
    action: Action
    view: ViewFunction
    max_body: int = 0
    name: str = ""


def check_whole(head: Head) -> None:
    """Of an upload that is the file itself: raises for a part of one, and for one in a content coding."""
    coding = (head.headers.get("content-encoding") or "identity").strip().lower()
    if coding not in ("identity", ""):
        raise ContentCodingUnsupported()
    if "content-range" in head.headers:
        raise BadRequest(f"Content-Range has no meaning on {head.method}: send the whole file")


def check_sent(head: Head) -> None:
    """Of an upload that is the file itself: raises for a request that has no body. One with an empty body says so."""
    if not head.has_body and head.length is None:
        raise LengthRequired()


def json_headers(media_type: str = "application/json", **more: str) -> list[tuple[str, str]]:
    return [("Content-Type", media_type), *((key.replace("_", "-"), value) for key, value in more.items())]


def captured_of(match: re.Match[str]) -> Mapping[str, str]:
    return match.groupdict()
