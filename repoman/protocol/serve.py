"""Answers out of values: the one place for HEAD, ranges, conditions, lengths, redirects and the pieces of large files.

RFC 9110 §13 (conditions, in the order of §13.2.2) and §14 (ranges). Bodies are never compressed here.
"""

from __future__ import annotations

import asyncio
import email.utils
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

from repoman.blobs import store
from repoman.blobs.drivers.base import Reader, StoreError
from repoman.core.errors import PreconditionFailed, RangeInvalid
from repoman.core.records import BlobRef, Rendered
from repoman.core.wire import Redirect, Response
from repoman.ops.logs import logger

from .exchange import Exchange
from .pools import pools
from .small import SMALL_BYTES, SmallBlobs

PIECE = 1024 * 1024
REDIRECTED_BYTES = 1024 * 1024  # smaller ones cost less here than another round trip costs the client
REDIRECT_SECONDS = 300
Pairs = list[tuple[bytes, bytes]]

# A request with none of these is answered whole.
CONDITIONAL = frozenset(
    {b"range", b"if-range", b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since"}
)
_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_RANGE = re.compile(r"\s*(?:(?P<first>[0-9]{1,19})\s*-\s*(?P<last>[0-9]{1,19})?|-\s*(?P<suffix>[0-9]{1,19}))\s*\Z")


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """`accel` is REPOMAN_ACCEL or empty; `redirects` REPOMAN_REDIRECT."""

    accel: str = ""
    redirects: bool = False


def settings_of() -> ServeSettings:
    from django.conf import settings

    configuration = settings.CONFIGURATION
    return ServeSettings(accel=configuration["REPOMAN_ACCEL"], redirects=configuration["REPOMAN_REDIRECT"])


# --- conditions and ranges -------------------------------------------------------------------------------------------


def http_date(seconds: float) -> str:
    return email.utils.formatdate(int(seconds), usegmt=True)


def parse_date(text: str) -> float | None:
    """Seconds since the epoch; None for what is no date in GMT (such a condition is ignored)."""
    if not text.rstrip().endswith("GMT") or len(text) > 64:
        return None
    try:
        parsed = email.utils.parsedate_to_datetime(text)
        return parsed.timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _tags(values: Sequence[str]) -> list[str]:
    return [tag for value in values for tag in _TAG.findall(value)]


def _weakly(tag: str) -> str:
    return tag.removeprefix("W/")


@dataclass(frozen=True, slots=True)
class Asked:
    """The conditional headers of a request, each with all its values."""

    range: str | None = None
    if_range: str | None = None
    if_match: tuple[str, ...] = ()
    if_none_match: tuple[str, ...] = ()
    if_modified_since: str | None = None
    if_unmodified_since: str | None = None

    @classmethod
    def of(cls, headers: Sequence[tuple[bytes, bytes]]) -> Asked:
        found: dict[bytes, list[str]] = {}
        for name, value in headers:
            if name in CONDITIONAL:
                found.setdefault(name, []).append(value.decode("latin-1"))
        if not found:
            return _NOTHING_ASKED

        def one(name: bytes) -> str | None:
            values = found.get(name, ())
            return values[0] if len(values) == 1 else None

        several_ranges = len(found.get(b"range", ())) > 1
        return cls(
            range="," if several_ranges else one(b"range"),
            if_range=one(b"if-range"),
            if_match=tuple(found.get(b"if-match", ())),
            if_none_match=tuple(found.get(b"if-none-match", ())),
            if_modified_since=one(b"if-modified-since"),
            if_unmodified_since=one(b"if-unmodified-since"),
        )


_NOTHING_ASKED = Asked()


def is_not_modified(asked: Asked, etag: str, modified: float | None) -> bool:
    """Whether a GET or HEAD is answered 304. Raises PreconditionFailed. RFC 9110 §13.2.2."""
    if asked.if_match:
        if not any(value.strip() == "*" for value in asked.if_match) and etag not in _tags(asked.if_match):
            raise PreconditionFailed("If-Match: what is here is not what you named")
    elif asked.if_unmodified_since is not None and modified is not None:
        limit = parse_date(asked.if_unmodified_since)
        if limit is not None and int(modified) > limit:
            raise PreconditionFailed("If-Unmodified-Since: what is here is newer")
    if asked.if_none_match:
        return any(value.strip() == "*" for value in asked.if_none_match) or _weakly(etag) in map(
            _weakly, _tags(asked.if_none_match)
        )
    if asked.if_modified_since is not None and modified is not None:
        limit = parse_date(asked.if_modified_since)
        return limit is not None and int(modified) <= limit
    return False


def range_of(asked: Asked, size: int, etag: str, modified: float | None) -> tuple[int, int] | None:
    """(first, last) to send, or None for the whole. Raises RangeInvalid (with `size`).

    Several ranges, other units and what cannot be parsed are answered whole; an inverted range is refused, as the OCI
    conformance suite wants and RFC 9110 §14.2 allows. A range of an empty file is ignored, so that resuming it works.
    """
    if asked.range is None or size == 0:
        return None
    unit, separator, text = asked.range.partition("=")
    if not separator or unit.strip().lower() != "bytes" or "," in text:
        return None
    match = _RANGE.match(text)
    if match is None:
        return None
    if asked.if_range is not None and not _may_range(asked.if_range.strip(), etag, modified):
        return None
    if match["suffix"] is not None:
        length = int(match["suffix"])
        if length == 0:
            raise RangeInvalid("a range of no bytes cannot be sent", size=size)
        return max(0, size - length), size - 1
    first = int(match["first"])
    last = int(match["last"]) if match["last"] is not None else size - 1
    if first >= size or (match["last"] is not None and last < first):
        raise RangeInvalid(f"the range does not fit: there are {size} bytes", size=size)
    return first, min(last, size - 1)


def _may_range(validator: str, etag: str, modified: float | None) -> bool:
    """If-Range: a strong tag must be equal, a date exactly the same (RFC 9110 §13.1.5)."""
    if validator.startswith(('"', "W/")):
        return validator == etag
    date = parse_date(validator)
    return date is not None and modified is not None and int(modified) == int(date)


# --- headers ---------------------------------------------------------------------------------------------------------


def encode(headers: Sequence[tuple[str, str]]) -> Pairs:
    """Header lines as bytes. A value with a control character is a mistake of the code and raises ValueError."""
    lines: Pairs = []
    for name, value in headers:
        if not value.isprintable() and any(ord(character) < 32 or ord(character) == 127 for character in value):
            raise ValueError(f"header {name} would contain a control character")
        try:
            encoded = value.encode("latin-1")
        except UnicodeEncodeError:
            encoded = value.encode("utf-8")
        lines.append((name.lower().encode("ascii"), encoded))
    return lines


def blob_headers(
    headers: Sequence[tuple[str, str]], ref: BlobRef, *, etag: str | None, modified: float | None
) -> tuple[Pairs, str]:
    """The lines of a whole answer with these bytes but for length and request id, and the entity tag among them.

    The short cut and the long way both come here, so they cannot differ.
    """
    lines = encode(headers)
    names = {name for name, _ in lines}
    if b"content-type" not in names:
        lines.append((b"content-type", ref.media_type.encode("latin-1", "replace")))
    if ref.flight and not ref.digest.hex:
        # Nobody knows the digest before all is here: an entity tag that the format made of it says nothing.
        return [line for line in lines if line[0] != b"etag"], ""
    if b"etag" in names:
        etag = next(value for name, value in lines if name == b"etag").decode("latin-1")
    else:
        etag = etag or f'"{ref.digest.hex}"'
        lines.append((b"etag", etag.encode("latin-1")))
    if modified is not None and b"last-modified" not in names:
        lines.append((b"last-modified", http_date(modified).encode()))
    lines.append((b"accept-ranges", b"bytes"))
    return lines, etag


def takes_gzip(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether Accept-Encoding allows gzip (RFC 9110 §12.5.3). What cannot be parsed is passed over."""
    for name, value in headers:
        if name == b"accept-encoding":
            for item in value.lower().split(b","):
                coding, _, weight = item.strip().partition(b";")
                if coding.strip() in (b"gzip", b"x-gzip", b"*"):
                    return weight.replace(b" ", b"") not in (b"q=0", b"q=0.0", b"q=0.00", b"q=0.000")
    return False


def _varying(lines: Pairs, on: bytes) -> Pairs:
    """With `on` among what the answer varies on, in one line."""
    values = [value for name, value in lines if name == b"vary"]
    rest = [line for line in lines if line[0] != b"vary"]
    return [*rest, (b"vary", b", ".join([*values, on]))]


_NOT_IN_304 = frozenset({b"content-type", b"content-disposition", b"accept-ranges", b"content-length"})


# --- sending ---------------------------------------------------------------------------------------------------------


class Server:
    """Sends responses. Holds the small blobs of this process; used from the loop's thread only."""

    def __init__(self, settings: ServeSettings | None = None) -> None:
        self.settings = settings or ServeSettings()
        self.small = SmallBlobs()

    async def send(self, exchange: Exchange, response: Response) -> None:
        """Send what a view returned. Raises RepomanErrors only before the first byte."""
        content = response.content
        if isinstance(content, BlobRef):
            await self.send_blob(
                exchange,
                *blob_headers(response.headers, content, etag=response.etag, modified=response.last_modified),
                content,
                modified=response.last_modified,
                status=response.status,
            )
            return
        lines = encode(response.headers)
        if isinstance(content, Rendered):
            await self.send_rendered(exchange, lines, content, status=response.status)
            return
        if isinstance(content, Redirect):
            lines.append((b"location", quote(content.url, safe="%/:=&?~#+!$,;'@()*[]").encode("ascii")))
            await exchange.respond(response.status if response.status >= 300 else 307, lines, b"")
            return
        names = {name for name, _ in lines}
        if response.etag is not None and b"etag" not in names:
            lines.append((b"etag", response.etag.encode("latin-1")))
        if response.last_modified is not None and b"last-modified" not in names:
            lines.append((b"last-modified", http_date(response.last_modified).encode()))
        if response.status == 200 and exchange.method in ("GET", "HEAD"):
            etag = response.etag or next((value.decode("latin-1") for name, value in lines if name == b"etag"), "")
            asked = Asked.of(exchange.headers)
            if etag and is_not_modified(asked, etag, response.last_modified):
                await exchange.respond(304, [line for line in lines if line[0] not in _NOT_IN_304], b"")
                return
        await exchange.respond(response.status, lines, content, response.reason or "")

    async def send_rendered(self, exchange: Exchange, lines: Pairs, document: Rendered, *, status: int = 200) -> None:
        """Send a rendered document, with gzip where the client takes it. `lines` is not changed.

        Each form has a strong tag of its own (RFC 9110 §8.8.3.3); who has either has what the document says.
        """
        lines = [line for line in lines if line[0] not in (b"content-type", b"etag")]
        own = encode(document.headers)
        overridden = {name for name, _ in own}
        lines = [line for line in lines if line[0] not in overridden] + own
        lines.append((b"content-type", document.media_type.encode("latin-1")))
        asked = Asked.of(exchange.headers)
        is_packed = bool(document.packed) and takes_gzip(exchange.headers)
        tags = [document.etag, f'{document.etag[:-1]}-gzip"']
        if is_packed:
            tags.reverse()
        lines.append((b"etag", tags[0].encode("latin-1")))
        lines = _varying(lines, b"Accept-Encoding")
        if status == 200 and any(is_not_modified(asked, tag, None) for tag in tags):
            await exchange.respond(304, [line for line in lines if line[0] not in _NOT_IN_304], b"")
            return
        if is_packed:
            lines.append((b"content-encoding", b"gzip"))
            await exchange.respond(status, lines, document.packed)
            return
        first, *others = [piece.data for piece in document.pieces]
        await exchange.respond(status, lines, first, more=others)

    async def send_blob(
        self, exchange: Exchange, lines: Pairs, etag: str, ref: BlobRef, *, modified: float | None, status: int = 200
    ) -> None:
        """Send stored bytes, or as much of them as was asked for. `lines` is not changed."""
        asked = Asked.of(exchange.headers) if status == 200 else _NOTHING_ASKED
        if is_not_modified(asked, etag, modified):
            await exchange.respond(304, [line for line in lines if line[0] not in _NOT_IN_304], b"")
            return
        data = self.small.get(ref.digest.hex)
        if data is None and ref.size <= SMALL_BYTES:
            data = await pools().storage.run(store.read_small, ref)
            self.small.put(ref.digest.hex, data)
        if data is not None:
            await self._send_small(exchange, lines, etag, ref, data, asked, modified, status)
            return
        if exchange.is_head:
            await self._head(exchange, lines, ref, status)
            return
        part = range_of(asked, ref.size, etag, modified)
        if await self._handed_over(exchange, lines, ref):
            return
        reader = await pools().storage.run(store.reader, ref)
        try:
            await self._send_pieces(exchange, lines, ref, reader, part, status)
        finally:
            reader.close()

    async def _send_small(
        self,
        exchange: Exchange,
        lines: Pairs,
        etag: str,
        ref: BlobRef,
        data: bytes,
        asked: Asked,
        modified: float | None,
        status: int,
    ) -> None:
        part = None if exchange.is_head else range_of(asked, ref.size, etag, modified)
        if part is None:
            await exchange.respond(status, list(lines), data)
            return
        first, last = part
        content_range = (b"content-range", f"bytes {first}-{last}/{ref.size}".encode())
        await exchange.respond(206, [*lines, content_range], data[first : last + 1])

    async def send_head(self, exchange: Exchange, response: Response, ref: BlobRef) -> None:
        """The head of a file that is not here: its length where that is known."""
        lines, _ = blob_headers(response.headers, ref, etag=response.etag, modified=response.last_modified)
        if ref.size >= 0:
            lines.append((b"content-length", str(ref.size).encode()))
        await exchange.start(response.status, [*lines, (b"x-request-id", exchange.request_id.encode())])
        await exchange.finish(b"")

    async def _head(self, exchange: Exchange, lines: Pairs, ref: BlobRef, status: int) -> None:
        """As GET would answer: bytes that are missing or damaged are found before anything is promised."""
        driver = store.driver()
        stat = driver.stat(ref.storage_key) if driver.capabilities.local_files else None
        if stat is None or stat.size != ref.size or stat.stamp != ref.stamp:
            reader = await pools().storage.run(store.reader, ref)
            reader.close()
        length = (b"content-length", str(ref.size).encode())
        await exchange.start(status, [*lines, length, (b"x-request-id", exchange.request_id.encode())])
        await exchange.finish(b"")

    async def _handed_over(self, exchange: Exchange, lines: Pairs, ref: BlobRef) -> bool:
        """Whether somebody else sends these bytes: the front proxy from its own disk, or the object store."""
        if self.settings.accel and exchange.origin.via_proxy:
            path = store.driver().path(ref.storage_key)
            if path is not None:
                reader = await pools().storage.run(store.reader, ref)
                reader.close()
                location = self.settings.accel.rstrip("/") + "/" + quote(path)
                await exchange.respond(200, [*lines, (b"x-accel-redirect", location.encode("ascii"))], b"")
                return True
        if self.settings.redirects and ref.size >= REDIRECTED_BYTES and store.driver().capabilities.presigned:
            url = await pools().storage.run(_presigned, ref, lines)
            if url is not None:
                kept = [line for line in lines if line[0] not in (b"content-type", b"accept-ranges", b"etag")]
                await exchange.respond(307, [*kept, (b"location", url.encode("ascii"))], b"")
                return True
        return False

    async def _send_pieces(
        self,
        exchange: Exchange,
        lines: Pairs,
        ref: BlobRef,
        reader: Reader,
        part: tuple[int, int] | None,
        status: int,
    ) -> None:
        """Send in pieces of 1 MiB. When reading fails midway the answer is left unfinished: the server then cuts the

        connection, so that the client sees a failure and not a short file.
        """
        first, last = part if part is not None else (0, ref.size - 1)
        headers = list(lines)
        if part is not None:
            headers.append((b"content-range", f"bytes {first}-{last}/{ref.size}".encode()))
        headers.append((b"content-length", str(last - first + 1).encode()))
        headers.append((b"x-request-id", exchange.request_id.encode()))
        read = Pieces(reader)
        piece = await read.at(first, min(PIECE, last + 1 - first))  # an unreadable file is still a clean error
        await exchange.start(206 if part is not None else status, headers)
        offset = first
        while True:
            offset += len(piece)
            if offset > last:
                await exchange.finish(piece)
                return
            await exchange.push(piece)
            try:
                piece = await read.at(offset, min(PIECE, last + 1 - offset))
            except (StoreError, OSError) as error:
                logger.error(
                    "read_failed_midway",
                    extra={
                        "fields": {
                            "digest": ref.digest.hex,
                            "offset": offset,
                            "error": str(error),
                            "request_id": exchange.request_id,
                        }
                    },
                )
                pools().storage.post(_doubt, ref)
                return


class Pieces:
    """Reads pieces of an open object: in this thread where the page cache has them, else in the storage pool."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._descriptor = reader.fileno()
        self._probe = bytearray(1)

    async def at(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes. Raises StoreError."""
        if self._descriptor is not None and self._is_cached(offset, length):
            data = os.pread(self._descriptor, length, offset)
            if len(data) == length:
                # A long file that is all in the page cache would otherwise never let others run.
                await asyncio.sleep(0)
                return data
        return await pools().storage.run(self._reader.pread, offset, length)

    def _is_cached(self, offset: int, length: int) -> bool:
        """Whether the first and last byte of the piece are in memory; the kernel reads ahead what lies between."""
        assert self._descriptor is not None
        try:
            os.preadv(self._descriptor, [self._probe], offset, os.RWF_NOWAIT)
            os.preadv(self._descriptor, [self._probe], offset + length - 1, os.RWF_NOWAIT)
        except OSError:  # EAGAIN: not in memory; EOPNOTSUPP: this file system cannot say
            return False
        return True


def _presigned(ref: BlobRef, lines: Pairs) -> str | None:
    """A short-lived address of bytes that are there. Raises as store.reader."""
    store.reader(ref).close()
    media_type = next((value.decode("latin-1") for name, value in lines if name == b"content-type"), ref.media_type)
    disposition = next((value.decode("latin-1") for name, value in lines if name == b"content-disposition"), "")
    return store.driver().url(
        ref.storage_key,
        expires_seconds=REDIRECT_SECONDS,
        media_type=media_type,
        filename=_filename_of(disposition),
    )


@lru_cache(maxsize=256)
def _filename_of(disposition: str) -> str:
    match = re.search(r'filename="((?:[^"\\]|\\.)*)"', disposition)
    return re.sub(r"\\(.)", r"\1", match[1]) if match else ""


def _doubt(ref: BlobRef) -> None:
    store.mark_suspect(ref)
