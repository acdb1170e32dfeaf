"""Pages as clients read them, upstreams' pages as records, and that one is the inverse of the other."""

from __future__ import annotations

import datetime
import json
import time
from html.parser import HTMLParser
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.pypi import listing as pages
from formats.pypi.handler import Pypi
from repoman.core.errors import ContentInvalid, NotFound, VersionNotFound
from repoman.core.records import Entry, ListedFile, Listing
from repoman.core.refs import FileRef, ListingRef
from tests.tools.effort import allowed

REF = ListingRef("versions", "foo-bar")
ROOT = ListingRef("packages")
ADDRESS = "https://repo.example/pypi/team/main"
PAGE = f"{ADDRESS}/simple/foo-bar/"
MOMENT = datetime.datetime(2026, 5, 4, 3, 2, 1, 99, datetime.UTC)
SHA = "a" * 64
OTHER = "b" * 64


def file(path: str, **more: Any) -> ListedFile:
    return ListedFile(path, **{"size": 10, "digests": {"sha256": SHA}, "published_at": MOMENT, **more})


def entry(name: str, *files: ListedFile, **more: Any) -> Entry:
    return Entry(name, kind="version", files=files, modified=MOMENT, **more)


def wheel(version: str = "1.0", **more: Any) -> ListedFile:
    return file(f"foo_bar-{version}-py3-none-any.whl", **more)


def sdist(version: str = "1.0", **more: Any) -> ListedFile:
    return file(f"foo_bar-{version}.tar.gz", **more)


def beside(whole: ListedFile, suffix: str = ".metadata") -> ListedFile:
    return file(whole.path + suffix, digests={"sha256": OTHER})


def as_json(listing: Listing) -> dict[str, Any]:
    document = Pypi().render_listing(REF, listing, "json", ADDRESS)
    assert document.media_type == pages.SIMPLE_JSON
    found: dict[str, Any] = json.loads(document.data)
    return found


class Anchors(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []
        self.meta: dict[str | None, str | None] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "a":
            self.found.append(values)
        if tag == "meta":
            self.meta[values.get("name")] = values.get("content")

    def handle_data(self, data: str) -> None:
        if self.found and "text" not in self.found[-1]:
            self.found[-1]["text"] = data


def as_html(listing: Listing) -> tuple[str, Anchors]:
    text = Pypi().render_listing(REF, listing, "html", ADDRESS).data.decode()
    return text, Anchors(text)


def parse(body: Any, media_type: str = pages.SIMPLE_JSON, url: str = PAGE, ref: ListingRef = REF) -> Listing:
    data = body if isinstance(body, bytes) else (body.encode() if isinstance(body, str) else json.dumps(body).encode())
    return Pypi().parse_listing(ref, data, url=url, media_type=media_type)


def upstream(*files: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"meta": {"api-version": "1.1"}, "name": "foo-bar", "files": list(files), **more}


def item(filename: str = "foo_bar-1.0-py3-none-any.whl", **more: Any) -> dict[str, Any]:
    return {"filename": filename, "url": f"../../files/{filename}", "hashes": {"sha256": SHA}, **more}


# --- JSON ------------------------------------------------------------------------------------------------------------


def test_pypi_4_1_1_to_4_1_9_a_json_page() -> None:
    whole = wheel(metadata={"requires_python": ">=3.8,<4"})
    page = as_json(Listing((entry("1.0", whole, beside(whole), sdist()),)))
    assert page["meta"] == {"api-version": "1.4"}
    assert page["name"] == "foo-bar" and page["versions"] == ["1.0"]
    first, second = page["files"]
    assert first == {
        "filename": "foo_bar-1.0-py3-none-any.whl",
        "url": f"{ADDRESS}/files/foo-bar/foo_bar-1.0-py3-none-any.whl",
        "hashes": {"sha256": SHA},
        "requires-python": ">=3.8,<4",
        "size": 10,
        "upload-time": "2026-05-04T03:02:01.000099Z",
        "yanked": False,
        "core-metadata": {"sha256": OTHER},
        "dist-info-metadata": {"sha256": OTHER},
        "data-dist-info-metadata": {"sha256": OTHER},
    }
    assert second["filename"] == "foo_bar-1.0.tar.gz" and "core-metadata" not in second
    assert set(page) == {"meta", "name", "files", "versions"}


def test_pypi_5_2_18_1_metadata_are_advertised_only_where_they_are() -> None:
    page = as_json(Listing((entry("1.0", wheel()),)))
    assert not {"core-metadata", "dist-info-metadata"} & set(page["files"][0])
    _, html = as_html(Listing((entry("1.0", wheel()),)))
    assert "data-core-metadata" not in html.found[0]


def test_pypi_18_2_the_hash_is_that_of_the_metadata() -> None:
    whole = wheel()
    assert as_json(Listing((entry("1.0", whole, beside(whole)),)))["files"][0]["core-metadata"]["sha256"] == OTHER


def test_pypi_11_1_yanked_versions_and_files() -> None:
    listing = Listing(
        (
            entry("1.0", wheel("1.0"), yanked=True),
            entry("2.0", wheel("2.0"), yanked=True, yanked_reason='broken "<b>'),
            entry("3.0", wheel("3.0", metadata={"yanked": "this one"}), sdist("3.0")),
        )
    )
    assert [found["yanked"] for found in as_json(listing)["files"]] == [True, 'broken "<b>', "this one", False]
    text, html = as_html(listing)
    assert [found.get("data-yanked") for found in html.found] == ["", 'broken "<b>', "this one", None]
    assert "<b>" not in text and 'data-yanked="false"' not in text


def test_pypi_4_1_11_the_projects_status() -> None:
    listing = Listing((entry("1.0", wheel()),), metadata={"project_status": {"status": "archived", "reason": "<old>"}})
    page = as_json(listing)
    assert page["project-status"] == {"status": "archived", "reason": "<old>"} and len(page["files"]) == 1
    _, html = as_html(listing)
    assert html.meta["pypi:project-status"] == "archived" and html.meta["pypi:project-status-reason"] == "<old>"


def test_pypi_11_3_a_quarantined_project_shows_no_files() -> None:
    listing = Listing((entry("1.0", wheel()),), metadata={"project_status": {"status": "quarantined"}})
    assert as_json(listing)["files"] == [] and as_html(listing)[1].found == []


def test_pypi_4_1_14_a_project_without_files() -> None:
    page = as_json(Listing(()))
    assert page["files"] == [] and page["versions"] == []


def test_pypi_4_1_15_files_are_in_order_of_version_and_name() -> None:
    listing = Listing(
        (entry("10.0", wheel("10.0")), entry("2.0", sdist("2.0"), wheel("2.0")), entry("2.0rc1", wheel("2.0rc1")))
    )
    page = as_json(listing)
    assert page["versions"] == ["2.0rc1", "2.0", "10.0"]
    assert [found["filename"].split("-")[1].removesuffix(".tar.gz") for found in page["files"]] == [
        "2.0rc1",
        "2.0",
        "2.0",
        "10.0",
    ]


def test_pypi_2_4_spellings_of_one_version_are_one() -> None:
    assert as_json(Listing((entry("1.0", wheel("1.0")), entry("1.0.0", sdist("1.0.0")))))["versions"] == ["1.0"]


def test_pypi_4_1_3_18_13_no_newer_version_than_what_is_known() -> None:
    page = as_json(Listing((entry("1.0", wheel(size=None), sdist()),)))
    assert page["meta"]["api-version"] == "1.0" and "size" not in page["files"][0]


def test_pypi_18_10_local_versions_in_addresses() -> None:
    page = as_json(Listing((entry("1.0+cu121", wheel("1.0+cu121")),)))
    assert page["files"][0]["url"].endswith("/foo_bar-1.0%2Bcu121-py3-none-any.whl")
    _, html = as_html(Listing((entry("1.0+cu121", wheel("1.0+cu121")),)))
    assert "%2Bcu121" in str(html.found[0]["href"])


def test_pypi_10_3_provenance_is_advertised_with_our_address() -> None:
    whole = wheel()
    listing = Listing((entry("1.0", whole, beside(whole, ".provenance")),))
    url = f"{ADDRESS}/integrity/foo-bar/1.0/foo_bar-1.0-py3-none-any.whl/provenance"
    assert as_json(listing)["files"][0]["provenance"] == url
    assert as_html(listing)[1].found[0]["data-provenance"] == url
    assert len(as_json(listing)["files"]) == 1


# --- HTML ------------------------------------------------------------------------------------------------------------


def test_pypi_4_2_an_html_page() -> None:
    whole = wheel(metadata={"requires_python": ">=3.8,<4"})
    text, html = as_html(Listing((entry("1.0", whole, beside(whole)),)))
    assert html.found == [
        {
            "href": f"{ADDRESS}/files/foo-bar/foo_bar-1.0-py3-none-any.whl#sha256={SHA}",
            "data-requires-python": ">=3.8,<4",
            "data-core-metadata": f"sha256={OTHER}",
            "data-dist-info-metadata": f"sha256={OTHER}",
            "data-gpg-sig": "false",
            "text": "foo_bar-1.0-py3-none-any.whl",
        }
    ]
    assert "&gt;=3.8,&lt;4" in text and "<base" not in text and text.startswith("<!DOCTYPE html>")
    assert html.meta["pypi:repository-version"] == "1.4"


def test_pypi_4_2_2_fragments_have_a_hash_that_all_clients_know() -> None:
    def fragment(**digests: str) -> str:
        _, html = as_html(Listing((entry("1.0", wheel(digests=digests)),)))
        return str(html.found[0]["href"]).partition("#")[2]

    assert fragment(md5="c" * 32, sha256=SHA, blake2b="d" * 128) == f"sha256={SHA}"
    assert fragment(md5="c" * 32) == "md5=" + "c" * 32
    assert fragment(blake2b="d" * 128, sha1="e" * 40) == ""


def test_pypi_4_3_the_index_of_projects() -> None:
    listing = Listing((Entry("b-c", kind="package"), Entry("a", kind="package")))
    found = json.loads(Pypi().render_listing(ROOT, listing, "json", ADDRESS).data)
    assert found == {"meta": {"api-version": "1.4"}, "projects": [{"name": "a"}, {"name": "b-c"}]}
    html = Anchors(Pypi().render_listing(ROOT, listing, "html", ADDRESS).data.decode())
    assert [anchor["href"] for anchor in html.found] == ["a/", "b-c/"]


# --- the JSON API ----------------------------------------------------------------------------------------------------


def api(listing: Listing, version: str = "") -> dict[str, Any]:
    form = f"api/{version}" if version else "api"
    found: dict[str, Any] = json.loads(Pypi().render_listing(REF, listing, form, ADDRESS).data)
    return found


CORE = {
    "name": "Foo.Bar",
    "summary": "Sum.",
    "requires_dist": ["idna"],
    "classifiers": ["A"],
    "project_urls": {"Home": "https://example.org"},
    "requires_python": ">=3.8",
    "keywords": "a,b",
    "description_content_type": "text/markdown",
}


def test_pypi_12_1_to_12_3_the_json_api() -> None:
    listing = Listing(
        (
            entry("1.0", sdist("1.0", metadata={"md5": "c" * 32, "blake2b_256": "d" * 64}), metadata=CORE),
            entry("1.1", wheel("1.1"), metadata={**CORE, "summary": "Newer."}),
        ),
        revision=7,
        metadata={"description": {"version": "1.1", "text": "# Long"}},
    )
    found = api(listing)
    assert found["last_serial"] == 7 and found["vulnerabilities"] == []
    assert sorted(found["releases"]) == ["1.0", "1.1"]
    info = found["info"]
    assert (info["name"], info["version"], info["summary"]) == ("Foo.Bar", "1.1", "Newer.")
    assert info["description"] == "# Long" and info["requires_dist"] == ["idna"]
    assert info["project_urls"] == {"Home": "https://example.org"}
    assert info["yanked"] is False and info["yanked_reason"] is None
    assert [row["filename"] for row in found["urls"]] == ["foo_bar-1.1-py3-none-any.whl"]
    older = api(listing, "1.0.0")
    assert "releases" not in older and older["info"]["version"] == "1.0" and older["info"]["description"] == ""
    assert older["urls"] == [
        {
            "comment_text": "",
            "digests": {"sha256": SHA, "md5": "c" * 32, "blake2b_256": "d" * 64},
            "downloads": -1,
            "filename": "foo_bar-1.0.tar.gz",
            "has_sig": False,
            "md5_digest": "c" * 32,
            "packagetype": "sdist",
            "python_version": "source",
            "requires_python": None,
            "size": 10,
            "upload_time": "2026-05-04T03:02:01",
            "upload_time_iso_8601": "2026-05-04T03:02:01.000099Z",
            "url": f"{ADDRESS}/files/foo-bar/foo_bar-1.0.tar.gz",
            "yanked": False,
            "yanked_reason": None,
        }
    ]


def test_pypi_12_5_the_latest_version() -> None:
    def latest(*entries: Entry) -> Any:
        return api(Listing(entries))["info"]["version"]

    assert latest(entry("1.0", wheel("1.0")), entry("2.0rc1", wheel("2.0rc1"))) == "1.0"
    assert latest(entry("1.0", wheel("1.0")), entry("2.0", wheel("2.0"), yanked=True)) == "1.0"
    assert latest(entry("1.0rc1", wheel("1.0rc1")), entry("1.0rc2", wheel("1.0rc2"))) == "1.0rc2"
    info = api(Listing((entry("1.0", wheel(), yanked=True, yanked_reason="bad"),)))["info"]
    assert info["yanked"] is True and info["yanked_reason"] == "bad"


def test_pypi_12_1_versions_that_are_not_there() -> None:
    for version in ("2.0", "nonsense", "1.0/../2"):
        with pytest.raises(VersionNotFound):
            api(Listing((entry("1.0", wheel()),)), version)
    with pytest.raises(VersionNotFound):
        api(Listing(()))


# --- upstreams -------------------------------------------------------------------------------------------------------


def test_pypi_13_1_13_9_what_an_upstream_is_asked() -> None:
    handler = Pypi()
    asked = handler.upstream(REF, None)
    assert asked.path == "foo-bar/" and asked.is_document
    assert asked.accept.startswith("application/vnd.pypi.simple.v1+json, ") and "text/html" in asked.accept
    assert handler.upstream(ROOT, None).path == ""
    with pytest.raises(NotFound):
        handler.upstream(FileRef("foo-bar", "foo_bar-1.0.tar.gz"), None)


def test_pypi_13_2_what_an_upstream_says_is_kept() -> None:
    page = upstream(
        item(
            size=5,
            **{
                "requires-python": ">=3.9",
                "upload-time": "2020-01-02T03:04:05.6Z",
                "yanked": "reason",
                "core-metadata": {"sha256": OTHER},
                "provenance": "https://pypi.example/integrity/x",
                "new-key": {"a": 1},
                "_private": 1,
                "gpg-sig": False,
            },
        ),
        versions=["1.0", "0.9", "legacy-x"],
        **{"project-status": {"status": "deprecated", "reason": "use baz"}},
    )
    found = parse(page)
    assert [one.name for one in found.entries] == ["0.9", "1.0"]
    assert found.metadata == {"project_status": {"status": "deprecated", "reason": "use baz"}}
    release = found.entries[1]
    assert (release.yanked, release.yanked_reason) == (True, "reason")
    whole, document, proof = release.files
    assert whole.size == 5 and whole.digests == {"sha256": SHA}
    assert whole.published_at == datetime.datetime(2020, 1, 2, 3, 4, 5, 600_000, datetime.UTC) == release.modified
    assert whole.metadata == {"requires_python": ">=3.9", "more": {"new-key": {"a": 1}}}
    assert whole.url == f"{ADDRESS}/files/foo_bar-1.0-py3-none-any.whl"
    assert (document.path, document.url) == (whole.path + ".metadata", whole.url + ".metadata")
    assert document.digests == {"sha256": OTHER}
    assert (proof.path, proof.url) == (whole.path + ".provenance", "https://pypi.example/integrity/x")
    again = as_json(found)["files"][0]
    assert (
        again["new-key"] == {"a": 1} and again["yanked"] == "reason" and again["upload-time"].startswith("2020-01-02")
    )
    assert again["provenance"].startswith(ADDRESS) and again["url"].startswith(ADDRESS)


@pytest.mark.parametrize(
    ("given_value", "digests"),
    [(True, {}), ({"sha256": OTHER}, {"sha256": OTHER}), ({}, {}), ({"sha256": "short"}, {})],
)
@pytest.mark.parametrize("key", ["core-metadata", "dist-info-metadata", "data-dist-info-metadata"])
def test_pypi_4_1_9_core_metadata_under_any_of_its_names(key: str, given_value: Any, digests: dict[str, str]) -> None:
    files = parse(upstream(item(**{key: given_value}))).entries[0].files
    assert [found.path.endswith(".metadata") for found in files] == [False, True]
    assert files[1].digests == digests
    assert len(parse(upstream(item(**{key: False}))).entries[0].files) == 1


def test_pypi_5_1_the_suffix_goes_before_a_query() -> None:
    page = upstream(
        {**item(**{"core-metadata": True}), "url": "https://cdn.example/f/foo_bar-1.0-py3-none-any.whl?sig=a%2Fb"}
    )
    document = parse(page).entries[0].files[1]
    assert document.url == "https://cdn.example/f/foo_bar-1.0-py3-none-any.whl.metadata?sig=a%2Fb"


def test_pypi_2_6_legacy_versions_are_passed_over_one_by_one() -> None:
    page = upstream(
        item("foo-bar-dev-r123.tar.gz"), item("foo_bar-1.0-py2.7.egg"), item("foo-bar-1.0.zip"), item("other-1.0.zip"),
        {"filename": 5}, "text", None, {"filename": "foo-bar-2.0.zip"}, item("foo-bar-3.0.zip", url="javascript:alert(1)"),
    )  # fmt: skip
    page["files"][-1]["url"] = "javascript:alert(1)"
    assert [found.path for one in parse(page).entries for found in one.files] == ["foo-bar-1.0.zip"]


def test_pypi_18_12_yanked_files_of_one_release() -> None:
    page = upstream(item(yanked=True), item("foo_bar-1.0.tar.gz", yanked=False), item("foo_bar-2.0.tar.gz", yanked=""))
    found = parse(page)
    assert [one.yanked for one in found.entries] == [False, False]
    assert [row["yanked"] for row in as_json(found)["files"]] == [True, False, False]


HTML_PAGE = f"""<!DOCTYPE html><html><head><base href="https://files.example/root/"><title>Links for Foo.Bar</title>
<meta name="pypi:repository-version" content="1.1"><script>alert(1)</script></head><body>
<a href="a/foo_bar-1.0-py3-none-any.whl#sha256={SHA}" data-requires-python="&gt;=3.8"
 data-dist-info-metadata="sha256={OTHER}">x</a>
<A HREF='foo-bar-1.0.tar.gz#md5={"c" * 32}' data-yanked>y</A>
<a href="foo_bar-1.0%2Bcu1.tar.gz" data-yanked="why &lt;" data-core-metadata="true">z</a>
<a href="javascript:alert(1)">foo_bar-6.0.tar.gz</a><a>foo_bar-7.0.tar.gz</a><a href="http://[::1">bad</a>
<a href="../">up</a>
</body></html>"""


def test_pypi_13_3_18_11_an_html_page_is_read_with_its_base() -> None:
    found = parse(HTML_PAGE, "text/html; charset=utf-8")
    assert [one.name for one in found.entries] == ["1.0", "1.0+cu1"]
    first, second = found.entries
    old, whole, document = first.files
    assert whole.url == "https://files.example/root/a/foo_bar-1.0-py3-none-any.whl"
    assert whole.digests == {"sha256": SHA} and whole.metadata == {"requires_python": ">=3.8"}
    assert document.digests == {"sha256": OTHER} and document.url == whole.url + ".metadata"
    assert old.digests == {"md5": "c" * 32} and old.metadata == {"yanked": True}
    assert (second.yanked, second.yanked_reason) == (True, "why <")
    assert second.files[0].path == "foo_bar-1.0+cu1.tar.gz"


def test_pypi_13_3_relative_addresses_follow_the_page_after_redirects() -> None:
    found = parse(
        "<title>Links for foo-bar</title><a href='../foo_bar-1.0.tar.gz'>x</a>",
        "text/html",
        "http://b.example/s/foo-bar/",
    )
    assert found.entries[0].files[0].url == "http://b.example/s/foo_bar-1.0.tar.gz"


def test_pypi_13_1_static_folders_and_flat_pages() -> None:
    page = "<html><body><a href='foo_bar-1.0.tar.gz'>a</a> <a href='other-2.0.tar.gz'>b</a></body></html>"
    assert [one.name for one in parse(page, "text/html").entries] == ["1.0"]
    only_others = "<html><body><a href='other-2.0.tar.gz'>b</a></body></html>"
    assert parse(only_others, "text/html").entries == ()
    empty = "<html><head><title>Links for foo-bar</title></head><body></body></html>"
    assert parse(empty, "application/vnd.pypi.simple.v1+html").entries == ()


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        ("<html><title>Sign in</title><form><input type=password></form></html>", "text/html"),
        ("<html><title>502 Bad Gateway</title></html>", "text/html"),
        ("", "text/html"),
        ("", pages.SIMPLE_JSON),
        ("{", pages.SIMPLE_JSON),
        ("[]", pages.SIMPLE_JSON),
        ('{"message": "Not Found"}', "application/json"),
        ('{"meta": {}, "files": []}', pages.SIMPLE_JSON),
        ('{"meta": {"api-version": "2.0"}, "files": []}', pages.SIMPLE_JSON),
        ('{"meta": {"api-version": "1.0"}, "files": {}}', pages.SIMPLE_JSON),
        ('{"meta": {"api-version": "1.0"}, "name": "other", "files": []}', pages.SIMPLE_JSON),
        ('{"meta": {"api-version": "1.0"}, "name": 1, "files": []}', pages.SIMPLE_JSON),
        ("[" * 100_000, pages.SIMPLE_JSON),
        ("<meta name='pypi:repository-version' content='2.0'>", "text/html"),
        ("anything", "text/plain"),
        ("anything", ""),
    ],
    ids=range(16),
)
def test_pypi_g6_18_28_what_is_no_page_of_an_index(body: str, media_type: str) -> None:
    with pytest.raises(ContentInvalid):
        parse(body, media_type)


def test_pypi_13_an_upstreams_index_of_projects() -> None:
    page = {
        "meta": {"api-version": "1.0"},
        "projects": [{"name": "Foo.Bar"}, {"name": "foo_bar"}, {"name": "../x"}, 5, {}],
    }
    assert [one.name for one in parse(page, ref=ROOT).entries] == ["foo-bar"]
    html = "<title>Simple index</title><a href='/simple/foo-bar/'>Foo.Bar</a><a href='baz'>baz</a><a href='../'>up</a>"
    assert [one.name for one in parse(html, "text/html", ref=ROOT).entries] == ["baz", "foo-bar"]
    for body, media_type in (({"meta": {"api-version": "1.0"}}, pages.SIMPLE_JSON), ("<form>", "text/html")):
        with pytest.raises(ContentInvalid):
            parse(body, media_type, ref=ROOT)


# --- inverses --------------------------------------------------------------------------------------------------------

_DIGEST = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
_MOMENTS = st.datetimes(datetime.datetime(1990, 1, 1), datetime.datetime(2100, 1, 1)).map(
    lambda at: at.replace(tzinfo=datetime.UTC)
)
_PLAIN = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


@st.composite
def releases(draw: st.DrawFn) -> Listing:
    entries = []
    for number in sorted(draw(st.sets(st.integers(0, 40), max_size=4))):
        version = f"1.{number}"
        files: list[ListedFile] = []
        for make in draw(st.lists(st.sampled_from([wheel, sdist]), max_size=2, unique=True)):
            metadata = draw(st.fixed_dictionaries({}, optional={"requires_python": _PLAIN}))
            whole = make(
                version, size=draw(st.integers(0, 2**40)), digests={"sha256": draw(_DIGEST)},
                published_at=draw(_MOMENTS), metadata=metadata,
            )  # fmt: skip
            files.append(whole)
            if draw(st.booleans()):
                files.append(
                    ListedFile(whole.path + ".metadata", None, {"sha256": draw(_DIGEST)}, "", whole.published_at)
                )
        files.sort(key=lambda one: one.path)
        yanked = bool(files) and draw(st.booleans())
        reason = draw(_PLAIN | st.just("")) if yanked else ""
        entries.append(Entry(version, kind="version", files=tuple(files), yanked=yanked, yanked_reason=reason))
    return Listing(tuple(entries))


def comparable(listing: Listing, *, with_times: bool) -> Any:
    return [
        (
            one.name,
            one.yanked,
            one.yanked_reason,
            [
                (
                    found.path,
                    dict(found.digests),
                    dict(found.metadata),
                    (found.size, found.published_at) if with_times and not found.path.endswith(".metadata") else None,
                )
                for found in one.files
            ],
        )
        for one in listing.entries
        if one.files or with_times
    ]


@settings(max_examples=150, deadline=None)
@given(releases())
def test_pypi_parsing_is_the_inverse_of_rendering(listing: Listing) -> None:
    handler = Pypi()
    for form, media_type in (("json", pages.SIMPLE_JSON), ("html", "text/html")):
        document = handler.render_listing(REF, listing, form, ADDRESS)
        assert handler.render_listing(REF, listing, form, ADDRESS) == document
        found = handler.parse_listing(REF, document.data, url=PAGE, media_type=media_type)
        assert comparable(found, with_times=form == "json") == comparable(listing, with_times=form == "json")
        assert handler.parse_listing(REF, document.data, url=PAGE, media_type=media_type) == found


_KEYS = ["filename", "url", "hashes", "size", "yanked", "core-metadata", "upload-time", "x"]
_ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=5),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(_ANY_JSON)
def test_pypi_r1_any_json_of_an_upstream_is_read_or_refused(value: Any) -> None:
    for page in (value, upstream(versions=value), {**upstream(), "files": value}, upstream(value, item(size=value))):
        try:
            as_json(parse(orjson.dumps(page)))
        except (ContentInvalid, orjson.JSONEncodeError):
            pass


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="<>a=/\"'#& !-hrefmtnbsdoc.0", max_size=120))
def test_pypi_r1_any_html_of_an_upstream_is_read_or_refused(text: str) -> None:
    for page in (text, HTML_PAGE[: len(text) * 5] + text + HTML_PAGE[len(text) * 5 :]):
        try:
            parse(page, "text/html")
        except ContentInvalid:
            pass


def test_pypi_a_page_with_40000_files_is_rendered_and_read_in_seconds() -> None:
    entries = tuple(
        entry(
            f"1.{number}", *(file(f"foo_bar-1.{number}-cp3{minor}-cp3{minor}-linux_x86_64.whl") for minor in range(20))
        )
        for number in range(2000)
    )
    began = time.process_time()
    document = Pypi().render_listing(REF, Listing(entries), "json", ADDRESS)
    parse(document.data)
    assert time.process_time() - began < allowed(12)
