"""multipart/form-data, cut into parts while it arrives. RFC 7578, RFC 2046 §5.1.

The cutting itself is python-multipart's. What is added here: parts as events, names decoded and judged, and an end that
must really have come. Parts with a file name are files; all others are small fields, kept in memory by whoever asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import python_multipart
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from .errors import BadRequest
from .wire import PartBegin, PartData, PartEnd, PartEvent

HEADERS_MOST = 8  # of one part
HEADER_BYTES = 4096
NAME_BYTES = 1024
BOUNDARY_MOST = 200  # RFC 2046 allows 70; no client needs more, some send more
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{1,%d}(?<! )\Z" % BOUNDARY_MOST)
_MULTIPART = re.compile(r"\s*multipart/form-data\s*(?:;|\Z)", re.IGNORECASE)
_TYPE = re.compile(r"[!#$&^_.+0-9A-Za-z-]{1,127}/[!#$&^_.+0-9A-Za-z-]{1,127}")
_PLAIN_ENCODINGS = frozenset({"", "7bit", "8bit", "binary"})


def is_form(content_type: str) -> bool:
    return _MULTIPART.match(content_type) is not None


class MultipartParser:
    """`wire.PartsParser` for one body with this Content-Type. Raises BadRequest where there is no usable boundary."""

    def __init__(self, content_type: str) -> None:
        self._events: list[PartEvent] = []
        self._field = bytearray()
        self._value = bytearray()
        self._headers: dict[str, str] = {}
        self._has_ended = False
        self._parser = python_multipart.MultipartParser(
            _boundary(content_type),
            {
                "on_part_begin": self._part_begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._part_data,
                "on_part_end": self._part_end,
                "on_end": self._end,
            },
            max_header_count=HEADERS_MOST,
            max_header_size=HEADER_BYTES,
        )

    def feed(self, data: bytes) -> Sequence[PartEvent]:
        """The events that `data` completes. What follows the closing boundary is passed over (RFC 2046 §5.1.1)."""
        if data and not self._has_ended:
            try:
                self._parser.write(data)
            except FormParserError as error:
                raise BadRequest(f"the form cannot be read: {_shown(str(error))}") from None
        events, self._events = self._events, []
        return events

    def finish(self) -> Sequence[PartEvent]:
        """Raises BadRequest where the closing boundary has not come: the body was cut."""
        if not self._has_ended:
            raise BadRequest("the form ends before its closing boundary")
        return ()

    # what the cutter calls

    def _part_begin(self) -> None:
        self._headers = {}
        self._field.clear()
        self._value.clear()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        name = self._field.decode("latin-1").lower()
        if any(byte < 32 and byte != 9 or byte == 127 for byte in self._value):
            raise BadRequest("a header in the form contains a control character")
        if name in self._headers:
            raise BadRequest(f"a part of the form has the header '{name[:40]}' twice")
        self._headers[name] = self._value.decode("latin-1").strip()
        self._field.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        kind, options = parse_options_header(self._headers.get("content-disposition", ""))
        if kind.strip().lower() != b"form-data" or b"name" not in options:
            raise BadRequest("a part of the form does not say which field it is")
        encoding = self._headers.get("content-transfer-encoding", "").lower()
        if encoding not in _PLAIN_ENCODINGS:
            raise BadRequest("parts of a form are sent as they are, without Content-Transfer-Encoding (RFC 7578 §4.7)")
        # An empty file name is what browsers send for "no file chosen": such a part is a field.
        # `filename*` has no place in a form (RFC 7578 §4.2), and is not looked at.
        given = options.get(b"filename", b"")
        filename = _name(given, "file") if given else ""
        self._events.append(
            PartBegin(
                name=_name(options[b"name"], "field"),
                filename=filename,
                media_type=_media_type(self._headers.get("content-type", "")),
                is_file=bool(filename),
            )
        )

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(PartData(bytes(data[start:end])))

    def _part_end(self) -> None:
        self._events.append(PartEnd())

    def _end(self) -> None:
        self._has_ended = True


def _boundary(content_type: str) -> bytes:
    if not is_form(content_type):
        raise BadRequest("the body must be a form: multipart/form-data")
    try:
        given = parse_options_header(content_type)[1].get(b"boundary", b"")
    except ValueError:
        given = b""
    if _BOUNDARY.match(given) is None:
        raise BadRequest("the Content-Type of the form names no usable boundary")
    return given


def _name(given: bytes, what: str) -> str:
    if len(given) > NAME_BYTES:
        raise BadRequest(f"a {what} name in the form is longer than {NAME_BYTES} bytes")
    try:
        name = given.decode("utf-8", "strict")
    except UnicodeDecodeError:
        raise BadRequest(f"a {what} name in the form is not UTF-8") from None
    if not name or any(ord(character) < 32 or 127 <= ord(character) < 160 for character in name):
        raise BadRequest(f"a {what} name in the form is empty or contains a control character")
    return name


def _media_type(given: str) -> str:
    match = _TYPE.match(given)
    return match[0].lower() if match is not None else ""


def _shown(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:200])
