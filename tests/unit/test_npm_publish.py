"""The publish document, cut into parts while it arrives (contract, section 6; THREATS B7)."""

from __future__ import annotations

import base64
import json
import os
import time
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.npm import samples
from formats.npm.publish import PublishParser
from repoman.core import strictjson
from repoman.core.errors import ContentInvalid, RepomanError, TooLarge
from repoman.core.wire import PartBegin, PartData
from tests.tools.effort import allowed

Parts = list[tuple[PartBegin, bytes]]


def parsed(data: bytes, cuts: Iterable[int] = (), limit: int = 8 * 1024 * 1024) -> Parts:
    parser = PublishParser(limit)
    parts: list[tuple[PartBegin, list[bytes]]] = []
    at = 0
    for end in [*sorted(cuts), len(data)]:
        for event in parser.feed(data[at:end]):
            collect(parts, event)
        at = end
    for event in parser.finish():
        collect(parts, event)
    return [(begin, b"".join(pieces)) for begin, pieces in parts]


def collect(parts: list[tuple[PartBegin, list[bytes]]], event: object) -> None:
    if isinstance(event, PartBegin):
        parts.append((event, []))
    elif isinstance(event, PartData):
        parts[-1][1].append(event.data)


def attachments(text: str = "QUJD", key: str = "a-1.0.0.tgz") -> bytes:
    return b'{"_attachments": {"%s": {"data": "%s"}}}' % (key.encode(), text.encode())


def test_npm_6_1_6_2_a_document_is_taken_apart() -> None:
    document, data = samples.publication("@s/n", "1.0.0")
    (file, content), (field, rest) = parsed(json.dumps(document).encode())
    assert file == PartBegin("attachment", "@s/n-1.0.0.tgz", "application/octet-stream", is_file=True)
    assert content == data
    assert field == PartBegin("document", "", "application/json")
    document["_attachments"]["@s/n-1.0.0.tgz"]["data"] = ""
    assert strictjson.load(rest) == document


def test_npm_6_3_a_bundle_stays_in_the_document() -> None:
    data = samples.package("n", "1.0.0")
    document = samples.document("n", "1.0.0", data, attachments=samples.provenance("n", "1.0.0", data))
    (_, content), (_, rest) = parsed(json.dumps(document).encode())
    assert content == data
    found = strictjson.load(rest)["_attachments"]
    assert found["n-1.0.0.sigstore"] == document["_attachments"]["n-1.0.0.sigstore"]
    assert found["n-1.0.0.tgz"]["data"] == ""


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_split_of_the_stream_gives_the_same_parts(data: st.DataObject) -> None:
    content = data.draw(st.binary(max_size=200))
    document = samples.document("@s/n", "1.0.0", content, readme='"quoted" \\ \u00e9 {[')
    indent = data.draw(st.sampled_from([None, 1]))
    raw = json.dumps(document, indent=indent, ensure_ascii=data.draw(st.booleans())).encode()
    if data.draw(st.booleans()):
        raw = raw.replace(b"/", b"\\/").replace(b'"data"', b'"d\\u0061ta"')
    cuts = data.draw(st.lists(st.integers(0, len(raw)), max_size=12))
    assert parsed(raw, cuts) == parsed(raw) == parsed(raw, range(len(raw)))
    assert parsed(raw)[0][1] == content


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=6) | st.sampled_from(["_attachments", "data", "x.tgz", "content_type"]), inner, max_size=4
        )
    ),
    max_leaves=25,
)


@given(ANY_JSON, st.lists(st.integers(0, 400), max_size=5))
@settings(max_examples=300, deadline=None)
def test_what_has_no_attachment_comes_through_unchanged(value: object, cuts: list[int]) -> None:
    raw = json.dumps(value).encode()
    try:
        parts = parsed(raw, [cut for cut in cuts if cut < len(raw)])
    except ContentInvalid:
        assert "_attachments" in raw.decode()  # data that is no base64
        return
    assert len(parts) > 1 or parts[-1][1] == raw


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_R1_any_bytes_are_cut_or_refused(data: bytes) -> None:
    for raw in (data, b'{"_attachments":{"a":{"data":"' + data, attachments() + data, b'{"a":"' + data):
        try:
            parsed(raw, [len(raw) // 2])
        except RepomanError:
            pass


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("", b""),
        ("QQ==", b"A"),
        ("QUI=", b"AB"),
        ("\\/\\/\\/\\/", b"\xff\xff\xff"),
        ("\\u002B\\u002b\\u002B\\u002b", b"\xfb\xef\xbe"),
        ("QU\\u002f\\u002F", b"AO\xff"),
        ("QQ\\u003d\\u003D", b"A"),
    ],
)
def test_base64_with_escapes(text: str, content: bytes) -> None:
    raw = attachments(text)
    for cuts in ([], range(len(raw))):
        assert parsed(raw, cuts)[0][1] == content


@pytest.mark.parametrize(
    "text",
    [
        *("Q", "QU", "QUJ", "QUJDQ", "QQ", "Q===", "====", "QQ==QQ==", "QQ=A", "QU\\nJD", "QU JD", "QU\u00e9D", "-_-_"),
        *("QUJ\\u0000", "QUJ\\u005c", "QUJ\\u0022", "\\u0051UJD", "QUJ\\\\/", "QUJ\\x", "\\", "QU\\u00"),
    ],
)
def test_base64_that_is_none_is_refused(text: str) -> None:
    raw = attachments(text)
    for cuts in ([], range(len(raw))):
        with pytest.raises(ContentInvalid):
            parsed(raw, cuts)


def test_only_attachments_at_the_top_are_attachments() -> None:
    raw = json.dumps(
        {
            "versions": {"_attachments": {"x.tgz": {"data": "no base64!"}}},
            "list": [{"_attachments": {"x.tgz": {"data": "no base64!"}}}],
            "_attachments": {
                "x.tgz": {"data": {"data": "no base64!"}, "more": {"data": "no base64!"}, "length": "data"}
            },
            "data": "no base64!",
        }
    ).encode()
    ((field, rest),) = parsed(raw)
    assert field.name == "document" and rest == raw


def test_B7_a_second_spelling_of_a_key_is_found_out() -> None:
    raw = b'{"_attachments":{"a":{"data":"QUJD","d\\u0061ta":"QUJE"}}}'
    parts = parsed(raw)
    assert [part[1] for part in parts[:2]] == [b"ABC", b"ABD"]
    with pytest.raises(ContentInvalid, match="twice"):
        strictjson.load(parts[-1][1])


@pytest.mark.parametrize("raw", [b"", b"{", b'{"a', b'{"a":"b', attachments()[:-1], attachments()[:-5], b"[", b'"\\'])
def test_D7_a_document_that_ends_too_early_is_refused(raw: bytes) -> None:
    if not raw:
        with pytest.raises(ContentInvalid):
            strictjson.load(parsed(raw)[0][1])
        return
    with pytest.raises(ContentInvalid):
        parsed(raw)


def test_more_attachments_than_anybody_sends_are_refused() -> None:
    raw = json.dumps({"_attachments": {f"{number}.tgz": {"data": ""} for number in range(9)}}).encode()
    with pytest.raises(ContentInvalid, match="attachments"):
        parsed(raw)


MEGABYTES = 8_000_000


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"{" + b"," * (MEGABYTES - 9),
        b"{" + b'"a":1,' * (MEGABYTES // 6),
        b'{"_attachments":{' + b'"a":1,' * (MEGABYTES // 7),
        b"[" + b"[]," * (MEGABYTES // 3),
        b"[" + b'"",' * (MEGABYTES // 3),
        b'["' + b"\\\\" * (MEGABYTES // 2),
        b'{"' + b"k" * MEGABYTES,
        b'{"_attachments":{"a":{"data":"' + b"\\/" * 4_000_000,
        b"]" * 10,
        b"{]",
        b"[}",
    ],
    ids=lambda raw: f"{raw[:24]!r}",
)
def test_B7_hostile_json_costs_little(raw: bytes) -> None:
    begun = time.process_time()
    with pytest.raises(ContentInvalid):
        parsed(raw, range(0, len(raw), 65_536))
    assert time.process_time() - begun < allowed(3)


def test_npm_6_18_the_document_is_bounded_without_its_attachments() -> None:
    raw = json.dumps(samples.document("n", "1.0.0", os.urandom(20_000))).encode()
    assert len(parsed(raw, limit=10_000)) == 2
    with pytest.raises(TooLarge):
        parsed(json.dumps({"readme": "x" * 20_000}).encode(), limit=10_000)


def test_npm_6_19_memory_stays_flat_and_time_short_however_large_the_tarball_is() -> None:
    piece = base64.b64encode(os.urandom(48 * 1024))
    parser = PublishParser()
    tracemalloc.start()
    begun = time.process_time()
    try:
        size = 0
        for data in (b'{"_attachments":{"a.tgz":{"data":"', *[piece] * 800, b'"}}}'):
            for event in parser.feed(data):
                size += len(event.data) if isinstance(event, PartData) else 0
        list(parser.finish())
        assert size == 800 * 48 * 1024
        assert tracemalloc.get_traced_memory()[1] < 1024 * 1024
        assert time.process_time() - begun < allowed(2)
    finally:
        tracemalloc.stop()
