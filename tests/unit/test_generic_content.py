"""What generic files are served as, names in headers, and folder pages."""

from __future__ import annotations

import datetime
import json

import pytest

from formats.generic import content, listing
from formats.generic.names import check_file, check_folder
from repoman.core import folder_page
from repoman.core.errors import BadRequest, NameInvalid
from repoman.core.records import Entry, Listing
from repoman.core.served import attachment, link
from repoman.core.wire import Query

HEX = "ab" * 32
MOMENT = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("a.txt", "text/plain; charset=utf-8"),
        ("a.tar.gz", "application/gzip"),
        ("a.tgz", "application/gzip"),
        ("a.tar.xz", "application/x-xz"),
        ("a.jar", "application/java-archive"),
        ("a.html", "text/html; charset=utf-8"),
        ("a.svg", "image/svg+xml"),
        ("a.JSON", "application/json"),
        ("LICENSE", "application/octet-stream"),
        ("data:text/html,x", "application/octet-stream"),
        ("html", "application/octet-stream"),
        ("dir.html/file", "application/octet-stream"),
    ],
)
def test_U12_E18_the_type_is_guessed_from_the_name(path: str, media_type: str) -> None:
    assert content.guessed_type(path) == media_type
    assert content.served_type(path, "") == content.served_type(path, "application/octet-stream") == media_type
    assert content.served_type(path, "image/png") == "image/png"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, ""),
        ("", ""),
        ("application/x-www-form-urlencoded", ""),
        ("multipart/form-data; boundary=x", ""),
        ("application/octet-stream", ""),
        ("nonsense", ""),
        ("text/html\r\nX: y", ""),
        ("a/" + "b" * 300, ""),
        ("text/plain; charset=UTF-8", "text/plain; charset=UTF-8"),
        ("application/vnd.example+json", "application/vnd.example+json"),
    ],
)
def test_U12_a_sane_declared_type_is_kept(given: str | None, kept: str) -> None:
    assert content.declared_type(given) == kept


@pytest.mark.parametrize(
    "path",
    ["a.html", "a.htm", "a.xhtml", "a.svg", "a.xml", "a.js", "a.mjs", "a.pdf", "a.css", "a.swf", "a.xsl", "a", "a.zip"],
)
def test_X1_J2_active_content_is_never_shown_in_place(path: str) -> None:
    headers = dict(content.file_headers(name=f"d/{path}", media_type="", digest=HEX))
    assert headers["Content-Disposition"] == f'attachment; filename="{path}"'
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")


def test_X1_J2_a_declared_type_does_not_open_the_door() -> None:
    for declared in ("text/html", "TEXT/HTML; charset=utf-8", "image/svg+xml", "application/xhtml+xml"):
        assert "Content-Disposition" in dict(content.file_headers(name="a.png", media_type=declared, digest=HEX))


@pytest.mark.parametrize("path", ["a.txt", "a.json", "a.png", "a.mp4", "a.md"])
def test_X1_passive_content_is_shown(path: str) -> None:
    headers = dict(content.file_headers(name=path, media_type="", digest=HEX))
    assert "Content-Disposition" not in headers
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ('d/a"b\\c.bin', "attachment; filename=\"a_b_c.bin\"; filename*=UTF-8''a%22b%5Cc.bin"),
        ("grün.bin", "attachment; filename=\"gr_n.bin\"; filename*=UTF-8''gr%C3%BCn.bin"),
        ("a\r\nX: y.bin", "attachment; filename=\"a__X: y.bin\"; filename*=UTF-8''a%0D%0AX%3A%20y.bin"),
        ("100%.bin", "attachment; filename=\"100_.bin\"; filename*=UTF-8''100%25.bin"),
        ("a b;c.bin", 'attachment; filename="a b;c.bin"'),
    ],
)
def test_X2_X3_I3_file_names_in_headers_are_encoded(path: str, value: str) -> None:
    assert attachment(path) == value
    assert value.isascii() and value.isprintable()


def test_C4_known_checksums_are_told() -> None:
    metadata = {"md5": "m" * 32, "sha1": "s" * 40, "sha512": "x", "other": 1}
    headers = dict(content.file_headers(name="a", media_type="", digest=HEX, metadata=metadata))
    assert headers["X-Checksum-Sha256"] == HEX
    assert (headers["X-Checksum-Md5"], headers["X-Checksum-Sha1"]) == ("m" * 32, "s" * 40)
    assert "X-Checksum-Md5" not in dict(content.file_headers(name="a", media_type="", digest=HEX))


def test_no_digest_is_told_of_a_file_that_is_still_arriving() -> None:
    told = dict(content.file_headers(name="a", media_type="", digest=""))
    assert not told.keys() & {"X-Checksum-Sha256", "Repr-Digest"}


def test_G14_E15_replaceable_files_are_revalidated() -> None:
    assert dict(content.file_headers(name="a", media_type="", digest=HEX))["Cache-Control"] == "private, no-cache"


def test_P11_links_are_encoded_segment_by_segment() -> None:
    assert link("a b/1:2/x+y~z@#?%;=/ü") == "a%20b/1%3A2/x+y~z@%23%3F%25;=/%C3%BC"


@pytest.mark.parametrize(
    "path", ["", "a/", "/a", "a//b", "../a", "a/./b", "a\\b", "a\x00", "a\u200bb", "a\u202eb", " a"]
)
def test_P3_A1_A7_bad_paths_are_refused(path: str) -> None:
    with pytest.raises(NameInvalid):
        check_file(path)


def test_P6_A7_paths_are_one_in_nfc() -> None:
    assert check_file("u\u0308") == check_file("\u00fc") == "\u00fc"
    assert check_folder("") == "" and check_folder("a/u\u0308/") == "a/\u00fc/"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ([], False),
        (["*/*"], False),
        (["application/json"], True),
        (["text/html,application/xhtml+xml,*/*;q=0.8"], False),
        (["text/html;q=0.5, application/json;q=0.9"], True),
        (["text/html, application/json;q=0.9"], False),
        (["application/json;q=0"], False),
        (["application/json;q=nonsense"], False),
        (["text/html;q=0.1", "application/json"], True),
    ],
)
def test_I5_accept_decides_between_page_and_json(accept: list[str], expected: bool) -> None:
    assert listing.wants_json(accept) is expected


def test_I8_page_sizes_are_bounded() -> None:
    assert folder_page.page_size(Query(b"")) == folder_page.PAGE
    assert folder_page.page_size(Query(b"limit=999999999")) == folder_page.PAGE_MOST
    for bad in (b"limit=0", b"limit=-1", b"limit=x", b"limit="):
        with pytest.raises(BadRequest):
            folder_page.page_size(Query(bad))


def entries() -> Listing:
    return Listing(
        (
            Entry("1:2 <b>.txt", size=1234, digest=f"sha256:{HEX}", modified=MOMENT),
            Entry('sub"dir', kind="folder"),
        ),
        more=True,
    )


def test_M3_X5_E24_a_folder_page_is_escaped_and_its_links_work() -> None:
    page = listing.as_html("a/", entries(), "ns/repo/a/", 2).decode()
    assert '<a href="../">' in page
    assert '<a href="1%3A2%20%3Cb%3E.txt">1:2 &lt;b&gt;.txt</a>' in page
    assert '<a href="sub%22dir/">sub&quot;dir/</a>' in page
    assert '<a href="?limit=2&amp;after=sub%22dir%2F" rel="next">' in page
    assert "<b>" not in page
    assert '<a href="../">' not in listing.as_html("", Listing(()), "ns/repo/", 10).decode()


def test_M4_a_folder_as_json() -> None:
    found = json.loads(listing.as_json("a/", entries(), "https://host/generic/ns/repo/a/"))
    assert found == {
        "path": "a/",
        "items": [
            {
                "name": "1:2 <b>.txt",
                "kind": "file",
                "url": "https://host/generic/ns/repo/a/1%3A2%20%3Cb%3E.txt",
                "size": 1234,
                "sha256": HEX,
                "modified": "2026-01-02T03:04:00+00:00",
            },
            {"name": 'sub"dir/', "kind": "folder", "url": "https://host/generic/ns/repo/a/sub%22dir/"},
        ],
        "next": 'sub"dir/',
    }
    assert json.loads(listing.as_json("", Listing(()), ""))["next"] is None
