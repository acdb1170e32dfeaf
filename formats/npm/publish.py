"""The publish document, taken apart while it arrives: `PUT /{name}` (contract, section 6).

One JSON document carries the manifest and, in base64, the tarball. The parser follows its structure just far enough to
find `_attachments.<file name>.data`, decodes those strings piece by piece as file parts, and keeps all the rest as a
part named "document", in which the data is an empty string. What follows only has to be as long as a manifest: memory
does not grow with the tarball. Whether the rest is valid JSON is judged afterwards, by `strictjson`: for a document that
is, both see the same structure.

The bundle of a provenance statement comes as a second attachment, `<name>-<version>.sigstore`, whose data is text and
not base64 (libnpmpublish, publish.js): it stays in the document.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Generator, Iterator
from enum import Enum

from repoman.core.errors import ContentInvalid, TooLarge
from repoman.core.strictjson import DEPTH
from repoman.core.wire import PartBegin, PartData, PartEnd, PartEvent

ATTACHMENT = "attachment"
DOCUMENT = "document"
SIGSTORE = ".sigstore"
DOCUMENT_BYTES = 8 * 1024 * 1024
CONTAINERS_MOST = 500_000
TOKENS_MOST = 200_000  # among the keys that are looked at
ATTACHMENTS_MOST = 4
_KEY_BYTES = 4096
_SLICE = 1024 * 1024
_PLAIN = re.compile(rb'[^"{}\[\]:,]*+')
_ASIDE = re.compile(rb'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)  # with the strings that are complete
_TEXT = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)  # up to the quote, or a backslash that ends the piece
_QUOTE, _COMMA = b'",'
_OPEN_OBJECT, _CLOSE_OBJECT, _OPEN_ARRAY, _CLOSE_ARRAY = b"{}[]"
_ESCAPES = (
    (b"\\/", b"/"),
    *((b"\\u%04x" % ord(character), character) for character in (b"+", b"/", b"=")),
    *((b"\\u%04X" % ord(character), character) for character in (b"+", b"/", b"=")),
)
_UNFINISHED = re.compile(rb"\\(?:u[0-9a-fA-F]{0,3})?\Z")


class _State(Enum):
    STRUCTURE = 1  # between tokens
    TEXT = 2  # in a string that stays in the document
    DATA = 3  # in the base64 of an attachment


class PublishParser:
    """`wire.PartsParser`. The document part comes last; attachments come in the order they are in."""

    def __init__(self, document_bytes: int = DOCUMENT_BYTES) -> None:
        self._limit = document_bytes
        self._document = bytearray()
        self._state = _State.STRUCTURE
        self._containers = bytearray()  # of "{" and "[", the open ones
        self._containers_left = CONTAINERS_MOST
        self._tokens_left = TOKENS_MOST
        self._keys = ["", "", ""]  # the current keys of the outermost three objects
        self._expects_key = False
        self._is_key = False  # the string being read is a key that is looked at
        self._text_from = 0  # where it begins in the document
        self._escaped = False  # the last byte of the piece before was a backslash
        self._rest = b""  # of base64: fewer than four characters, or an unfinished escape
        self._padded = False  # the base64 came to its end
        self._media_type = ""
        self._attachments = 0

    def feed(self, data: bytes) -> Iterator[PartEvent]:
        at = 0
        while at < len(data):
            if self._state is _State.DATA:
                at = yield from self._data(data, at)
            elif self._state is _State.TEXT:
                at = self._text(data, at)
            else:
                at = self._structure(data, at)
                if self._is_in_data():
                    yield PartBegin(ATTACHMENT, filename=self._keys[1], media_type=self._media_type, is_file=True)

    def finish(self) -> Iterator[PartEvent]:
        if self._containers or self._state is not _State.STRUCTURE:
            raise ContentInvalid("the document ends too early")
        yield PartBegin(DOCUMENT, media_type="application/json")
        yield PartData(bytes(self._document))
        yield PartEnd()

    def _is_in_data(self) -> bool:
        return self._state is _State.DATA

    # --- structure ---------------------------------------------------------------------------------------------------

    def _structure(self, data: bytes, at: int) -> int:
        """Up to and including the next string, or the end of the piece."""
        start, size, containers = at, len(data), self._containers
        while at < size:
            is_followed = self._is_followed()
            match = (_PLAIN if is_followed else _ASIDE).match(data, at)
            at = match.end() if match else at
            if at == size:
                break
            token = data[at]
            at += 1
            if is_followed:
                self._tokens_left -= 1
                if self._tokens_left < 0:
                    raise ContentInvalid(
                        f"the document has more than {TOKENS_MOST} keys and values around its versions"
                    )
            if token == _QUOTE:
                self._keep(data, start, at)
                self._begin_string(is_followed)
                return at
            if token == _OPEN_OBJECT or token == _OPEN_ARRAY:
                self._containers_left -= 1
                if len(containers) > DEPTH or self._containers_left < 0:
                    raise ContentInvalid(f"the document has more than {DEPTH} levels or {CONTAINERS_MOST} objects")
                containers.append(token)
                self._expects_key = token == _OPEN_OBJECT
            elif token == _CLOSE_OBJECT or token == _CLOSE_ARRAY:
                if not containers or containers.pop() != token - 2:
                    raise ContentInvalid("the document is not valid JSON: its brackets do not match")
                self._expects_key = False
            else:
                self._expects_key = token == _COMMA
        self._keep(data, start, size)
        return size

    def _is_followed(self) -> bool:
        """Whether keys matter where the parser stands; elsewhere only brackets are counted."""
        depth = len(self._containers)
        if depth == 0:
            return True
        if depth > 3 or self._containers[-1] != _OPEN_OBJECT:
            return False
        return depth == 1 or self._keys[0] == "_attachments"

    def _begin_string(self, is_followed: bool) -> None:
        self._is_key = is_followed and self._expects_key
        self._text_from = len(self._document)
        self._state = _State.TEXT
        if self._is_key or not self._is_in_attachment() or self._keys[2] != "data":
            return
        if self._keys[1].endswith(SIGSTORE):
            return
        self._attachments += 1
        if self._attachments > ATTACHMENTS_MOST:
            raise ContentInvalid(f"the document has more than {ATTACHMENTS_MOST} attachments")
        self._state = _State.DATA
        self._rest, self._padded = b"", False

    def _is_in_attachment(self) -> bool:
        """Directly in `_attachments.<file name>`."""
        return self._containers == b"{{{" and self._keys[0] == "_attachments"

    # --- strings that stay -------------------------------------------------------------------------------------------

    def _text(self, data: bytes, at: int) -> int:
        start = at
        if self._escaped:
            self._escaped = False
            at += 1
        match = _TEXT.match(data, at)
        end = match.end() if match else at
        is_complete = end < len(data) and data[end] == _QUOTE
        if end < len(data):
            end += 1
            self._escaped = not is_complete
        self._keep(data, start, end)
        if self._is_key and len(self._document) - self._text_from > _KEY_BYTES:
            raise ContentInvalid(f"the document has a key of more than {_KEY_BYTES} bytes")
        if is_complete:
            self._end_text()
        return end

    def _end_text(self) -> None:
        self._state = _State.STRUCTURE
        if self._is_key:
            self._expects_key = False
            depth = len(self._containers)
            if depth:
                self._keys[depth - 1] = self._string()
        elif self._is_in_attachment() and self._keys[2] == "content_type":
            self._media_type = self._string()[:255]

    def _string(self) -> str:
        """The string that just ended, decoded."""
        raw = self._document[self._text_from :]
        try:
            return raw[:-1].decode() if b"\\" not in raw else str(json.loads(b'"' + raw))
        except ValueError:
            raise ContentInvalid("the document is not valid JSON") from None

    def _keep(self, data: bytes, start: int, end: int) -> None:
        if len(self._document) + end - start > self._limit:
            raise TooLarge(
                f"the document, without its attachments, is larger than {self._limit} bytes", limit=self._limit
            )
        self._document += data[start:end]

    # --- base64 ------------------------------------------------------------------------------------------------------

    def _data(self, data: bytes, at: int) -> Generator[PartEvent, None, int]:
        """Base64 up to the closing quote or the end of the piece."""
        quote = data.find(b'"', at)
        end = quote if quote >= 0 else len(data)
        while at < end:
            piece = data[at : min(at + _SLICE, end)]
            at += len(piece)
            decoded = self._decode(piece, is_last=False)
            if decoded:
                yield PartData(decoded)
        if quote < 0:
            return end
        decoded = self._decode(b"", is_last=True)
        if decoded:
            yield PartData(decoded)
        yield PartEnd()
        self._state = _State.STRUCTURE
        self._media_type = ""
        self._keep(data, quote, quote + 1)
        return quote + 1

    def _decode(self, piece: bytes, *, is_last: bool) -> bytes:
        text = self._rest + piece if self._rest else piece
        held = b""
        if b"\\" in text:
            text, held = _unescape(text, is_last=is_last)
        whole = len(text) - len(text) % 4
        if is_last and whole != len(text):
            raise ContentInvalid("the base64 of an attachment is cut off")
        self._rest = text[whole:] + held
        if not whole:
            return b""
        if self._padded:
            raise ContentInvalid("the base64 of an attachment goes on after its padding")
        block = text[:whole]
        self._padded = block.endswith(b"=")
        try:
            return binascii.a2b_base64(block, strict_mode=True)
        except binascii.Error as error:
            raise ContentInvalid(f"an attachment is not valid base64: {error}") from None


def _unescape(text: bytes, *, is_last: bool) -> tuple[bytes, bytes]:
    """Text with its JSON escapes resolved, and the unfinished one at its end: some serializers write `\\/` for a slash,
    others `\\u002B` for a plus. Nobody escapes letters and digits: that is refused."""
    held = b""
    last = text.rfind(b"\\")
    if not is_last and _UNFINISHED.match(text, last) is not None:
        text, held = text[:last], text[last:]
    if b"\\\\" not in text:
        for escape, character in _ESCAPES:
            text = text.replace(escape, character)
    if b"\\" in text:
        raise ContentInvalid("an attachment is not valid base64")
    return text, held
