"""XML from strangers: whatever it holds, nothing is fetched or opened, and time and memory stay bounded (THREATS B8)."""

from __future__ import annotations

import builtins
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repoman.core.errors import ContentInvalid
from repoman.core.strictxml import DEPTH, ELEMENTS, load, text

ROOT = Path(__file__).resolve().parents[2]


def refused(data: bytes, words: str = ".") -> None:
    with pytest.raises(ContentInvalid, match=words):
        load(data, root="project")


def test_names_lose_their_namespaces_and_attributes_are_left_out() -> None:
    root = load(
        b'<?xml version="1.0"?><p:project xmlns:p="urn:a" a="1"><p:b xmlns="urn:c"><c p:x="y"> text </c></p:b></p:project>',
        root="project",
    )
    assert (root.tag, root.attrib) == ("project", {})
    assert text(root, "b/c") == "text" and root.find("b/c").attrib == {}  # type: ignore[union-attr]
    assert text(root, "b/d") == "" and text(root, "b/d", "x") == "x" and text(None, "b") == ""


@pytest.mark.parametrize(
    ("encoding", "declared"),
    [
        ("utf-8", "UTF-8"),
        ("utf-8-sig", "UTF-8"),
        ("utf-8-sig", ""),
        ("utf-16", "UTF-16"),
        ("latin-1", "ISO-8859-1"),
        ("cp1252", "windows-1252"),
        ("utf-8", ""),
    ],
)
def test_maven_x2_m7_encodings(encoding: str, declared: str) -> None:
    head = f'<?xml version="1.0" encoding="{declared}"?>' if declared else ""
    data = f"{head}<project><name>caf\u00e9</name></project>".encode(encoding)
    assert text(load(data, root="project"), "name") == "caf\u00e9"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"   ",
        b"\0" * 1000,
        bytes(range(256)),
        b"<project>",
        b"<project></projekt>",
        b"<project/><project/>",
        b"text",
        b"{}",
        b'<?xml version="1.0" encoding="no-such-encoding"?><project/>',
        b'<?xml version="1.0" encoding="utf-7"?><project>+ADw-</project>',
        b'<?xml version="1.0" encoding="idna"?><project/>',
        b'<?xml version="1.0" encoding="hex"?><project/>',
        b"<project>&nbsp;</project>",
        b"<project>&#0;</project>",
        b"<project>\xff\xfe</project>",
        b"<project a='1' a='2'/>",
        b"<x:project/>",
        b"<html><body>Sign in</body></html>",
        "<project>caf\u00e9</project>".encode("latin-1"),
        b'\n<?xml version="1.0"?><project/>',
    ],
)
def test_maven_x2_e23_what_is_no_such_xml_is_refused_in_words(data: bytes) -> None:
    refused(data)


LAUGHS = b'<!DOCTYPE project [<!ENTITY a0 "ha">' + b"".join(
    b'<!ENTITY a%d "%s">' % (number, b"&a%d;" % (number - 1) * 10) for number in range(1, 10)
)
CANARY = "a canary that no answer may hold"
DTD = {
    "a document type": b"<!DOCTYPE project><project/>",
    "billion laughs": LAUGHS + b"]><project>&a9;</project>",
    "quadratic": b'<!DOCTYPE project [<!ENTITY a "'
    + b"x" * 100_000
    + b'">]><project>'
    + b"&a;" * 100_000
    + b"</project>",
    "a file": b'<!DOCTYPE project [<!ENTITY a SYSTEM "file://FILE">]><project>&a;</project>',
    "an address": b'<!DOCTYPE project [<!ENTITY a SYSTEM "http://127.0.0.1:PORT/x">]><project>&a;</project>',
    "an external document type": b'<!DOCTYPE project SYSTEM "http://127.0.0.1:PORT/x.dtd"><project/>',
    "a public document type": b'<!DOCTYPE project PUBLIC "-//A//B//EN" "http://127.0.0.1:PORT/x.dtd"><project/>',
    "a parameter entity": b'<!DOCTYPE project [<!ENTITY % a SYSTEM "http://127.0.0.1:PORT/x.dtd"> %a;]><project/>',
    "attribute defaults": b'<!DOCTYPE project [<!ATTLIST project a CDATA "b">]><project/>',
    "in another encoding": '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE project><project/>'.encode("utf-16"),
}


@pytest.mark.parametrize("name", DTD)
def test_maven_x1_e16_b8_document_types_are_never_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "canary").write_text(CANARY)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        data = DTD[name].replace(b"FILE", str(tmp_path / "canary").encode())
        data = data.replace(b"PORT", str(listener.getsockname()[1]).encode())
        opened: list[object] = []
        real = builtins.open
        monkeypatch.setattr(builtins, "open", lambda *given, **more: opened.append(given) or real(*given, **more))
        with pytest.raises(ContentInvalid, match="document type") as found:
            load(data, root="project")
        assert not opened and CANARY not in str(found.value)
        with pytest.raises(TimeoutError):
            listener.accept()


def test_what_only_points_elsewhere_is_text_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "canary").write_text(CANARY)
    data = (
        '<?xml-stylesheet href="http://127.0.0.1:1/x"?><project xmlns:xi="http://www.w3.org/2001/XInclude">'
        f'<xi:include href="file://{tmp_path}/canary" parse="text"/><name>n</name></project>'
    )
    root = load(data.encode(), root="project")
    assert [each.tag for each in root] == ["include", "name"] and CANARY not in "".join(root.itertext())


def test_maven_x1_b8_nesting() -> None:
    def nested(depth: int) -> bytes:
        return b"<project>" + b"<a>" * (depth - 1) + b"</a>" * (depth - 1) + b"</project>"

    load(nested(DEPTH), root="project")
    refused(nested(DEPTH + 1), "too deep")
    refused(nested(10_000), "too deep")
    refused(b"<project>" + b"<a>" * 5_000_000, "too deep")


def test_b8_as_many_elements_as_allowed_and_one_more() -> None:
    load(b"<project>" + b"<a/>" * (ELEMENTS - 1) + b"</project>", root="project")
    refused(b"<project>" + b"<a/>" * ELEMENTS + b"</project>", "too many elements")


HOSTILE = {
    "billion laughs": "LAUGHS + b']><project>&a9;</project>'",
    "deep": "b'<a>' * 5_000_000",
    "many elements": "b'<project>' + b'<a/>' * 4_000_000",
    "many attributes": "b'<project ' + b' '.join(b'a%d=\"\"' % n for n in range(1_000_000)) + b'/>'",
    "many namespaces": "b'<project ' + b' '.join(b'xmlns:a%d=\"u%d\"' % (n, n) for n in range(200_000)) + b'/>'",
    "one text": "b'<project>' + b'x' * 16_000_000 + b'</project>'",
    "a name": "b'<' + b'p' * 16_000_000 + b'/>'",
    "an unfinished tag": "b'<project a=\"' + b'x' * 16_000_000",
    "comments": "b'<project>' + b'<!-- -->' * 2_000_000 + b'</project>'",
    "instructions": "b'<project>' + b'<?a b?>' * 2_000_000 + b'</project>'",
    "character references": "b'<project>' + b'&#65;' * 3_000_000 + b'</project>'",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_maven_x1_b8_memory_and_time_are_bounded(name: str) -> None:
    """In a process of its own that may have 700 MiB and 20 seconds, for a document of 16 MB."""
    program = f"""
        import resource
        from repoman.core.strictxml import load
        from repoman.core.errors import ContentInvalid
        from tests.unit.test_strictxml import LAUGHS
        data = {HOSTILE[name]}
        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
        resource.setrlimit(resource.RLIMIT_AS, (700 << 20, 700 << 20))
        try:
            load(data, root="project")
        except ContentInvalid:
            pass
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet="<>/ab!?&;[]'\"=- \n", max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for whole in (data, b"<project>" + data + b"</project>"):
        try:
            assert load(whole, root="project").tag == "project"
        except ContentInvalid as error:
            assert len(error.message) < 400 and error.message.isprintable()
