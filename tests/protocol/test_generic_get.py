"""Getting files and folders: ranges, conditions, types, safety (RFC 9110 §13 and §14, RFC 6266)."""

from __future__ import annotations

import base64
import hashlib
from html.parser import HTMLParser
from urllib.parse import urljoin

import pytest

from formats.generic import samples
from tests.protocol.generic_client import Files, new_files, refused, sha256
from tests.running import Server

DATA = samples.numbered(2048)
LARGE = samples.numbered(3_000_001)


@pytest.fixture
def files(server: Server) -> Files:
    return new_files(server)


@pytest.mark.parametrize("data", [b"", DATA, LARGE], ids=["empty", "small", "large"])
def test_C4_C5_G9_get_and_head_agree(files: Files, data: bytes) -> None:
    files.put("a.bin", data)
    got, headed = files.get("a.bin"), files.ask("HEAD", "a.bin")
    assert got.content == data and headed.content == b""
    drop = ("date", "x-request-id")
    assert {k: v for k, v in got.headers.items() if k not in drop} == {
        k: v for k, v in headed.headers.items() if k not in drop
    }
    assert got.headers["content-length"] == str(len(data))
    assert got.headers["etag"] == f'"{sha256(data)}"'
    assert got.headers["x-checksum-sha256"] == sha256(data)
    assert got.headers["repr-digest"] == f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"
    assert got.headers["accept-ranges"] == "bytes" and "last-modified" in got.headers
    assert got.headers["cache-control"] == "private, no-cache"


@pytest.mark.parametrize("data", [DATA, LARGE], ids=["small", "large"])
@pytest.mark.parametrize(("asked", "first", "last"), [("5-9", 5, 9), ("100-", 100, None), ("-7", -7, None)])
def test_G4_ranges(files: Files, data: bytes, asked: str, first: int, last: int | None) -> None:
    files.put("a", data)
    start = first if first >= 0 else len(data) + first
    end = len(data) - 1 if last is None else last
    answer = files.get("a", Range=f"bytes={asked}")
    assert (answer.status_code, answer.content) == (206, data[start : end + 1])
    assert answer.headers["content-range"] == f"bytes {start}-{end}/{len(data)}"
    assert answer.headers["x-checksum-sha256"] == sha256(data)
    assert files.ask("HEAD", "a", headers={"Range": "bytes=0-1"}).status_code == 200


def test_G4_E12_ranges_past_the_end(files: Files) -> None:
    files.put("a", DATA)
    clamped = files.get("a", Range="bytes=2000-99999999999")
    assert (clamped.status_code, clamped.content) == (206, DATA[2000:])
    longer = files.get("a", Range="bytes=-5000")
    assert (longer.status_code, longer.content) == (206, DATA)
    answer = files.get("a", Range="bytes=2048-")
    refused(answer, 416, "range_invalid")
    assert answer.headers["content-range"] == "bytes */2048"


def test_G5_E10_several_ranges_give_the_whole(files: Files) -> None:
    files.put("a", DATA)
    for asked in ("bytes=0-1,4-5", "bytes=x", "lines=1-2"):
        answer = files.get("a", Range=asked)
        assert (answer.status_code, answer.content) == (200, DATA)


def test_G6_a_range_of_an_empty_file_is_ignored(files: Files) -> None:
    files.put("a", b"")
    assert files.get("a", Range="bytes=0-").status_code == 200


def test_G1_G2_G7_conditions(files: Files) -> None:
    files.put("a", DATA)
    headers = files.get("a").headers
    etag, modified = headers["etag"], headers["last-modified"]
    for asked in ({"If_None_Match": etag}, {"If_None_Match": f'"x", W/{etag}'}, {"If_Modified_Since": modified}):
        answer = files.get("a", **asked)
        assert (answer.status_code, answer.content) == (304, b"")
        assert (answer.headers["etag"], answer.headers["last-modified"]) == (etag, modified)
        assert answer.headers["cache-control"] == "private, no-cache"
    assert files.get("a", If_None_Match='"x"', If_Modified_Since=modified).status_code == 200
    assert files.get("a", If_Match='"x"').status_code == 412
    assert files.get("a", If_Match=etag).status_code == 200
    for validator, status in [(etag, 206), (modified, 206), ('"x"', 200), (f"W/{etag}", 200)]:
        assert files.get("a", Range="bytes=0-1", If_Range=validator).status_code == status


def test_G3_unreadable_dates_are_ignored(files: Files) -> None:
    files.put("a", DATA)
    for date in ("Sun, 06-Nov-94 08:49:37 GMT", "Sun, 06 Nov 2094 08:49:37 UTC", "yesterday"):
        assert files.get("a", If_Modified_Since=date).status_code == 200


def test_G11_E14_never_compressed(files: Files) -> None:
    files.put("a.txt", b"a" * 100_000)
    answer = files.get("a.txt", Accept_Encoding="gzip, br, zstd")
    assert "content-encoding" not in answer.headers and answer.headers["content-length"] == "100000"


@pytest.mark.parametrize("path", ["page.html", "drawing.svg", "feed.xml", "code.js", "paper.pdf", "x.xhtml"])
def test_X1_J2_active_content_is_saved_not_shown(files: Files, path: str) -> None:
    files.put(path, b"<script>alert(1)</script>", Content_Type="text/html")
    for method in ("GET", "HEAD"):
        headers = files.ask(method, path).headers
        assert headers["content-disposition"] == f'attachment; filename="{path}"'
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("sandbox; default-src 'none'")


def test_X2_I3_file_names_are_encoded(files: Files) -> None:
    path = 'gr\u00fc\u00dfe "x";.bin'
    files.put(path, b"1")
    expected = "attachment; filename=\"gr__e _x_;.bin\"; filename*=UTF-8''gr%C3%BC%C3%9Fe%20%22x%22%3B.bin"
    assert files.get(path).headers["content-disposition"] == expected


def test_U12_E18_types(files: Files) -> None:
    files.put("a.txt", b"1")
    files.put("LICENSE", b"1")
    files.put("b", b"1", Content_Type="application/vnd.example+json")
    files.put("c.png", b"1", Content_Type="application/x-www-form-urlencoded")
    found = [files.get(path).headers["content-type"] for path in ("a.txt", "LICENSE", "b", "c.png")]
    assert found == [
        "text/plain; charset=utf-8",
        "application/octet-stream",
        "application/vnd.example+json",
        "image/png",
    ]


def test_missing_files(files: Files) -> None:
    refused(files.get("nope"), 404, "file_not_found")
    assert files.ask("HEAD", "nope").status_code == 404
    assert files.ask("POST", "nope", content=b"x").status_code == 405


# --- folders ---------------------------------------------------------------------------------------------------------


class Links(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]


def test_M3_P11_E24_every_link_of_every_page_works(files: Files) -> None:
    for path, data in samples.FILES.items():
        files.put(path, data)
    seen: set[str] = set()
    pending = [files.base]
    contents = []
    while pending:
        address = pending.pop()
        answer = files.client.get(address)
        assert answer.status_code == 200, address
        if address.endswith("/"):
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            found = [urljoin(address, link) for link in Links(answer.text).found]
            pending += [link for link in found if link not in seen and link.startswith(files.base)]
            seen.update(found)
        else:
            contents.append(answer.content)
    assert sorted(contents) == sorted(samples.FILES.values())


def test_M3_J1_names_are_escaped(files: Files) -> None:
    files.put("<img src=x onerror=alert(1)>", b"1")
    answer = files.get("")
    assert "<img" not in answer.text and "&lt;img" in answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_M3_a_folder_without_its_slash(files: Files) -> None:
    files.put("d e/f/a", b"1")
    answer = files.get("d e")
    assert (answer.status_code, answer.headers["location"]) == (301, f"{files.base}d%20e/")
    refused(files.get("d"), 404, "file_not_found")
    refused(files.get("nope/"), 404, "file_not_found")
    assert files.get("").status_code == 200


def test_M4_E17_json_pages(files: Files) -> None:
    paths = [f"{number:02}" for number in range(10)] + ["a/1", "a/2", "a.b", "b/1", "c"]
    for path in paths:
        files.put(path, path.encode())
    for limit in (1, 2, 7, 100):
        names: list[str] = []
        after = ""
        while True:
            answer = files.ask("GET", "", query=f"?limit={limit}{after}", headers={"Accept": "application/json"})
            assert answer.headers["content-type"] == "application/json" and answer.headers["vary"] == "Accept"
            found = answer.json()
            assert len(found["items"]) <= limit
            names += [item["name"] for item in found["items"]]
            for item in found["items"]:
                if item["kind"] == "file":
                    assert files.client.get(item["url"]).headers["x-checksum-sha256"] == item["sha256"]
            if found["next"] is None:
                break
            after = f"&after={found['next']}"
        assert names == [f"{number:02}" for number in range(10)] + ["a.b", "a/", "b/", "c"]
    assert files.ask("GET", "", query="?limit=0").status_code == 400
    assert files.ask("GET", "", query="?limit=x").status_code == 400


def test_M5_F5_listing_needs_the_right_to_read(server: Server, files: Files) -> None:
    files.put("d/a", b"1")
    stranger = files.as_other(server.client(*server.make_user()))
    for path in ("", "d/", "d", "nope/"):
        assert stranger.get(path).status_code == 404
        assert files.as_other(server.client()).get(path).status_code == 401
