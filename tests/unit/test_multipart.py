"""Forms are cut into the same parts however they arrive, and what is no whole form is refused."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repoman.core.errors import BadRequest
from repoman.core.multipart import MultipartParser, is_form
from repoman.core.wire import PartBegin, PartData, PartEnd
from tests.tools.effort import allowed

TYPE = "multipart/form-data; boundary=frontier"
Part = tuple[str, str, str, bytes]  # name, file name, type, content


def form(parts: list[tuple[bytes, bytes]], boundary: bytes = b"frontier", closing: bytes = b"--\r\n") -> bytes:
    """Parts as (header lines, content)."""
    body = b"".join(b"--" + boundary + b"\r\n" + head + b"\r\n\r\n" + content + b"\r\n" for head, content in parts)
    return body + b"--" + boundary + closing


def field(name: str, content: bytes, filename: str | None = None, more: bytes = b"") -> tuple[bytes, bytes]:
    head = f'Content-Disposition: form-data; name="{name}"'
    if filename is not None:
        head += f'; filename="{filename}"'
    return head.encode() + more, content


def parse(body: bytes, content_type: str = TYPE, step: int | None = None) -> list[Part]:
    parser = MultipartParser(content_type)
    parts: list[Part] = []
    begun: PartBegin | None = None
    content = b""
    step = step or len(body) or 1
    for start in range(0, len(body), step):
        for event in parser.feed(body[start : start + step]):
            if isinstance(event, PartBegin):
                assert begun is None
                begun, content = event, b""
            elif isinstance(event, PartData):
                assert begun is not None
                content += event.data
            else:
                assert isinstance(event, PartEnd) and begun is not None
                assert begun.is_file == bool(begun.filename)
                parts.append((begun.name, begun.filename, begun.media_type, content))
                begun = None
    assert list(parser.finish()) == [] and begun is None
    return parts


def refused(body: bytes, content_type: str = TYPE) -> None:
    with pytest.raises(BadRequest):
        parse(body, content_type)


BODY = form(
    [
        field(":action", b"file_upload"),
        field("content", b"\r\n--front\r\n--frontie\0\xff" * 3, "a-1.0.tar.gz", b"\r\nContent-Type: application/gzip"),
        field("empty", b""),
        field("none", b"", ""),
    ]
)
PARTS: list[Part] = [
    (":action", "", "", b"file_upload"),
    ("content", "a-1.0.tar.gz", "application/gzip", b"\r\n--front\r\n--frontie\0\xff" * 3),
    ("empty", "", "", b""),
    ("none", "", "", b""),
]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 50, 1000])
def test_parts_are_the_same_in_pieces_of_any_size(step: int) -> None:
    assert parse(BODY, step=step) == PARTS


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.from_regex(r"[a-z:_]{1,9}", fullmatch=True), st.binary(max_size=200)), max_size=5),
    st.integers(1, 60),
)
def test_any_content_arrives_as_it_was_sent(fields: list[tuple[str, bytes]], step: int) -> None:
    fields = [(name, content.replace(b"frontier", b"")) for name, content in fields]
    found = parse(form([field(name, content) for name, content in fields]), step=step)
    assert [(name, content) for name, _, _, content in found] == fields


def test_boundaries_as_clients_write_them() -> None:
    for written, boundary in (
        ('"frontier"', b"frontier"),
        ("----WebKitFormBoundary7MA4YWxk", b"----WebKitFormBoundary7MA4YWxk"),
        ('"a b:c=d?"; charset=utf-8', b"a b:c=d?"),
    ):
        body = form([field("a", b"1")], boundary)
        assert parse(body, f"Multipart/Form-Data;  boundary={written}") == [("a", "", "", b"1")]


def test_what_follows_the_end_is_passed_over() -> None:
    assert parse(BODY + b"--frontier\r\n\r\nmore\r\n") == PARTS
    assert parse(form([field("a", b"1")], closing=b"--")) == [("a", "", "", b"1")]


def test_names_beyond_ascii() -> None:
    assert parse(form([field("n\u00e4me", b"1", "gr\u00fc\u00dfe.txt")])) == [
        ("n\u00e4me", "gr\u00fc\u00dfe.txt", "", b"1")
    ]


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/mixed; boundary=frontier",
        "multipart/form-datax; boundary=frontier",
        'multipart/form-data; boundary="a\u00e9"',
        'multipart/form-data; boundary="a "',
        "multipart/form-data; boundary=" + "x" * 201,
        "multipart/form-data; boundary=a\tb",
    ],
)
def test_a_body_without_a_usable_boundary_is_refused(content_type: str) -> None:
    refused(BODY, content_type)


def test_is_form() -> None:
    assert is_form(TYPE) and is_form("multipart/form-data")
    assert not is_form("application/x-www-form-urlencoded") and not is_form("")


def test_every_cut_is_refused() -> None:
    for length in range(BODY.rindex(b"--frontier--") + len(b"--frontier--")):
        refused(BODY[:length])


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Type: text/plain",
        b"Content-Disposition: form-data",
        b'Content-Disposition: attachment; name="a"',
        b'Content-Disposition: form-data; name=""',
        b'Content-Disposition: form-data; name="a\0b"',
        b'Content-Disposition: form-data; name="a\x1fb"',
        b'Content-Disposition: form-data; name="a"; filename="b\x7f"',
        b'Content-Disposition: form-data; name="a"; filename="\xff"',
        b'Content-Disposition: form-data; name="a\nX: y"',
        b'Content-Disposition: form-data; name="a"\r\nContent-Disposition: form-data; name="b"',
        b'Content-Disposition: form-data; name="a"\r\nContent-Transfer-Encoding: base64',
        b'Content-Disposition: form-data; name="' + b"a" * 1025 + b'"',
        b'Content-Disposition: form-data; name="' + b"a" * 10_000 + b'"',
        b'Content-Disposition: form-data; name="a"' + b"\r\nX-A: 1" + b"".join(b"\r\nX-%d: 1" % n for n in range(20)),
        b"no colon",
        b": no name",
        b"Spaced Name: 1",
    ],
)
def test_a3_i2_parts_that_cannot_be_read_are_refused(head: bytes) -> None:
    refused(form([(head, b"1")]))


def test_lines_that_end_in_a_bare_newline_are_refused() -> None:
    refused(BODY.replace(b"\r\n", b"\n"))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, len(BODY)))
def test_r1_noise_is_a_bad_request_or_a_form(noise: bytes, position: int) -> None:
    for body in (noise, BODY[:position] + noise + BODY[position + len(noise) :]):
        try:
            parse(body)
        except BadRequest:
            pass


def test_large_files_are_cut_fast_also_where_they_look_like_boundaries() -> None:
    """Content in which every few bytes a boundary could begin."""
    chance = random.Random(1)
    for content in (chance.randbytes(8_000_000), b"\r\n--frontie" * 700_000, b"\r\n" * 4_000_000):
        body = form([field("content", content, "a.whl")])
        began = time.process_time()
        assert parse(body, step=65_536)[0][3] == content
        assert time.process_time() - began < allowed(4)
