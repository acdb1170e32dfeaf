"""The simple repository API on a running server: forms, pages, caching, who may read (pypi.md sections 2 to 4, 6, 7)."""

from __future__ import annotations

import gzip
import hashlib
import re

import httpx
import pytest

from formats.pypi import samples
from formats.pypi.listing import SIMPLE_HTML, SIMPLE_JSON
from tests.protocol.pypi_client import Index, new_index, refused
from tests.running import Server

WHEEL = samples.wheel("Demo.Package", "1.0")
SDIST = samples.sdist("Demo.Package", "1.0")
PIP = f"{SIMPLE_JSON}, {SIMPLE_HTML}; q=0.1, text/html; q=0.01"


@pytest.fixture
def index(server: Server) -> Index:
    return new_index(server)


@pytest.fixture
def filled(index: Index) -> Index:
    index.publish(WHEEL, SDIST)
    return index


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (PIP, SIMPLE_JSON),
        (f"{SIMPLE_JSON}, */*;q=0.1", SIMPLE_JSON),
        ("application/vnd.pypi.simple.latest+json", SIMPLE_JSON),
        ("*/*", "text/html; charset=utf-8"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html; charset=utf-8"),
        (SIMPLE_HTML, f"{SIMPLE_HTML}; charset=utf-8"),
        ("image/png", "text/html; charset=utf-8"),
    ],
)
def test_pypi_3_the_form_follows_accept(filled: Index, accept: str, expected: str) -> None:
    for path in ("simple/demo-package/", "simple/"):
        answer = filled.get(path, Accept=accept)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == expected
        assert "accept" in {word.strip().lower() for word in answer.headers["vary"].split(",")}


def test_pypi_3_6_the_query_overrides_accept(filled: Index) -> None:
    answer = filled.get("simple/demo-package/?format=application/vnd.pypi.simple.v1%2Bjson", Accept="text/html")
    assert answer.headers["content-type"] == SIMPLE_JSON


def test_pypi_3_10_head_is_get_without_a_body(filled: Index) -> None:
    for path in ("simple/demo-package/", "simple/", "simple/missing/"):
        got, headed = filled.get(path, Accept=PIP), filled.get(path, "HEAD", Accept=PIP)
        drop = ("date", "x-request-id")
        assert {k: v for k, v in got.headers.items() if k not in drop} == {
            k: v for k, v in headed.headers.items() if k not in drop
        }
        assert headed.content == b"" and headed.status_code == got.status_code


def test_pypi_4_1_a_json_page_and_every_file_on_it(filled: Index) -> None:
    page = filled.page("demo-package")
    assert page["meta"] == {"api-version": "1.4"} and page["versions"] == ["1.0"]
    assert [item["filename"] for item in page["files"]] == [WHEEL.filename, SDIST.filename]
    for item, sample in zip(page["files"], (WHEEL, SDIST), strict=True):
        assert item["hashes"] == {"sha256": sample.sha256} and item["size"] == len(sample.data)
        assert item["requires-python"] == ">=3.8" and item["yanked"] is False
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z", item["upload-time"])
        got = filled.client.get(item["url"])
        assert got.content == sample.data and item["url"].startswith(filled.address)
    wheel, sdist = page["files"]
    document = filled.client.get(wheel["url"] + ".metadata").content
    assert document == WHEEL.metadata
    for key in ("core-metadata", "dist-info-metadata", "data-dist-info-metadata"):
        assert wheel[key] == {"sha256": hashlib.sha256(document).hexdigest()}
        assert key not in sdist


def test_pypi_4_2_an_html_page(filled: Index) -> None:
    text = filled.html("demo-package")
    assert f'#sha256={WHEEL.sha256}"' in text and f">{WHEEL.filename}</a>" in text
    assert 'data-requires-python="&gt;=3.8"' in text and "data-yanked" not in text
    assert 'name="pypi:repository-version" content="1.4"' in text and "<base" not in text


def test_pypi_4_3_the_index_of_projects(filled: Index) -> None:
    filled.publish(samples.wheel("another", "1"))
    found = filled.get("simple/", Accept=SIMPLE_JSON).json()
    assert found["projects"] == [{"name": "another"}, {"name": "demo-package"}]
    text = filled.get("simple/", Accept="text/html").text
    assert '<a href="another/">another</a>' in text


def test_pypi_4_3_5_an_empty_index(index: Index) -> None:
    assert index.get("simple/", Accept=SIMPLE_JSON).json()["projects"] == []


@pytest.mark.parametrize("name", ["Demo.Package", "demo_package", "DEMO--PACKAGE", "not.there", "Not_There"])
def test_pypi_2_2_other_spellings_are_led_to_the_right_one(filled: Index, name: str) -> None:
    """Whether the project exists or not, and below the same prefix."""
    key = re.sub(r"[-_.]+", "-", name).lower()
    answer = filled.get(f"simple/{name}/?format=x")
    assert (answer.status_code, answer.headers["location"]) == (301, f"{filled.base}simple/{key}/?format=x")
    without = filled.get(f"simple/{name}")
    assert (without.status_code, without.headers["location"]) == (301, f"{filled.base}simple/{key}/")


def test_pypi_2_2_a_missing_slash(filled: Index) -> None:
    for path in ("simple/demo-package", "simple"):
        answer = filled.get(path)
        assert (answer.status_code, answer.headers["location"]) == (301, f"{filled.base}{path}/")


def test_pypi_18_20_one_project_under_all_its_spellings(index: Index) -> None:
    index.publish(samples.wheel("Up.Demo", "1.0"), samples.sdist("up_demo", "1.1"))
    assert index.page("up-demo")["versions"] == ["1.0", "1.1"]
    assert index.get("simple/", Accept=SIMPLE_JSON).json()["projects"] == [{"name": "up-demo"}]


def test_pypi_2_4_spellings_of_one_version_are_one_release(index: Index) -> None:
    index.publish(samples.wheel("demo", "1.0"), samples.sdist("demo", "1.0.0"))
    page = index.page("demo")
    assert page["versions"] == ["1.0"] and len(page["files"]) == 2


def test_pypi_2_5_18_10_local_versions(index: Index) -> None:
    sample = samples.wheel("demo", "1.0+cu121")
    index.publish(sample)
    item = index.page("demo")["files"][0]
    assert item["url"].endswith("/demo-1.0%2Bcu121-py3-none-any.whl")
    assert index.client.get(item["url"]).content == sample.data
    assert index.raw("GET", "files/demo/demo-1.0+cu121-py3-none-any.whl") == (200, sample.data)


def test_pypi_4_1_14_7_5_what_is_missing_is_404(filled: Index) -> None:
    for path in ("simple/missing/", "simple/not%20a%20name/", "missing/json", "files/missing/missing-1.0.tar.gz"):
        refused(filled.get(path), 404)


# --- caching ---------------------------------------------------------------------------------------------------------


def test_pypi_6_1_6_2_revalidation(filled: Index) -> None:
    for accept in (SIMPLE_JSON, "text/html"):
        first = filled.get("simple/demo-package/", Accept=accept)
        assert first.headers["cache-control"] == "private, no-cache"
        again = filled.get(
            "simple/demo-package/", Accept=accept, If_None_Match=first.headers["etag"], Cache_Control="max-age=0"
        )
        assert again.status_code == 304 and again.content == b""
        assert again.headers["vary"] == first.headers["vary"] and again.headers["etag"] == first.headers["etag"]
    assert first.headers["etag"].startswith('"')


def test_pypi_6_1_each_form_has_its_own_tag(filled: Index) -> None:
    tags = {filled.get("simple/demo-package/", Accept=accept).headers["etag"] for accept in (SIMPLE_JSON, "text/html")}
    assert len(tags) == 2


def test_pypi_6_4_an_upload_is_seen_at_once(filled: Index) -> None:
    before = filled.get("simple/demo-package/", Accept=SIMPLE_JSON)
    for number in range(5):
        sample = samples.wheel("Demo.Package", f"2.{number}")
        filled.publish(sample)
        after = filled.get("simple/demo-package/", Accept=SIMPLE_JSON, If_None_Match=before.headers["etag"])
        assert after.status_code == 200 and sample.filename in after.text
        before = after


def test_pypi_6_6_pages_are_compressed_where_clients_take_that(filled: Index) -> None:
    for number in range(20):
        filled.publish(samples.wheel("Demo.Package", f"3.{number}"))
    plain = filled.get("simple/demo-package/", Accept=SIMPLE_JSON, Accept_Encoding="identity")
    assert "content-encoding" not in plain.headers
    with filled.client.stream(
        "GET", filled.base + "simple/demo-package/", headers={"Accept": SIMPLE_JSON, "Accept-Encoding": "gzip, deflate"}
    ) as answer:
        packed = b"".join(answer.iter_raw())
        assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed) == plain.content and len(packed) < len(plain.content) / 3
    assert "accept-encoding" in plain.headers["vary"].lower()


def test_pypi_13_4_g10_addresses_are_the_servers(filled: Index) -> None:
    assert filled.server.url in filled.html("demo-package")
    answer = filled.get("simple/demo-package/", Host="bad host/")
    assert answer.status_code == 400 and "bad host" not in answer.text


# --- who may read ----------------------------------------------------------------------------------------------------


def test_pypi_7_1_7_8_anonymous_callers_are_challenged(filled: Index) -> None:
    anonymous = filled.as_other(filled.server.client())
    for path in (
        "simple/",
        "simple/demo-package/",
        "simple/missing/",
        f"files/demo-package/{WHEEL.filename}",
        "missing/json",
    ):
        answer = anonymous.get(path)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"].startswith("Basic realm=")
        refused(answer, 401)


def test_pypi_7_2_user_names_that_clients_send_with_a_token(filled: Index) -> None:
    token = filled.server.token(filled.client, actions=["read"])["token"]
    for name in ("__token__", "anything"):
        assert filled.as_other(filled.server.client(name, token)).page("demo-package")["versions"] == ["1.0"]


def test_pypi_4_3_5_f5_a_stranger_sees_nothing(filled: Index) -> None:
    stranger = filled.as_other(filled.server.client(*filled.server.make_user()))
    for path in ("simple/", "simple/demo-package/", f"files/demo-package/{WHEEL.filename}", "demo-package/json"):
        answer = stranger.get(path)
        refused(answer, 404)
        assert WHEEL.filename not in answer.text


def test_pypi_f7_e5_a_token_that_may_only_publish_reads_nothing(filled: Index) -> None:
    token = filled.server.token(filled.client, actions=["publish"])["token"]
    writer = filled.as_other(filled.server.client("__token__", token))
    writer.publish(samples.wheel("Demo.Package", "5.0"), WHEEL)
    for path in (
        "simple/",
        "simple/demo-package/",
        f"files/demo-package/{WHEEL.filename}",
        f"files/demo-package/{WHEEL.filename}.metadata",
        "demo-package/json",
        f"integrity/demo-package/1.0/{WHEEL.filename}/provenance",
        "%2Bsimple/demo-package/",
    ):
        assert writer.get(path).status_code in (403, 404), path


def test_pypi_anonymous_reading_where_it_is_allowed(server: Server) -> None:
    index = new_index(server, anonymous_read=True)
    index.publish(WHEEL)
    anonymous = index.as_other(server.client())
    assert anonymous.names("demo-package") == [WHEEL.filename]
    assert anonymous.file(WHEEL).content == WHEEL.data
    assert anonymous.upload(samples.wheel("Demo.Package", "2.0")).status_code == 401


# --- yank, removal ---------------------------------------------------------------------------------------------------


def test_pypi_11_1_18_24_yanked_versions_stay_and_say_so(filled: Index) -> None:
    assert filled.yank("demo-package", "1.0", yanked_reason="broken <b>").status_code in (200, 204)
    assert [item["yanked"] for item in filled.page("demo-package")["files"]] == ["broken <b>"] * 2
    assert 'data-yanked="broken &lt;b&gt;"' in filled.html("demo-package")
    assert filled.file(WHEEL).content == WHEEL.data
    assert filled.yank("demo-package", "1.0", yanked=False).status_code in (200, 204)
    assert [item["yanked"] for item in filled.page("demo-package")["files"]] == [False] * 2
    assert "data-yanked" not in filled.html("demo-package")


def test_pypi_11_1_yank_without_a_reason(filled: Index) -> None:
    filled.yank("demo-package", "1.0")
    assert [item["yanked"] for item in filled.page("demo-package")["files"]] == [True] * 2
    assert 'data-yanked=""' in filled.html("demo-package")


def test_pypi_5_2_17_4_metadata_that_are_gone_are_not_advertised(filled: Index) -> None:
    assert filled.remove_file(WHEEL, WHEEL.filename + ".metadata").status_code == 204
    item = filled.page("demo-package")["files"][0]
    assert item["filename"] == WHEEL.filename and "core-metadata" not in item and "dist-info-metadata" not in item
    assert "core-metadata" not in filled.html("demo-package")
    refused(filled.file(WHEEL, ".metadata"), 404)


def test_pypi_a_version_that_lost_its_last_file_is_gone(filled: Index) -> None:
    for sample in (WHEEL, SDIST):
        assert filled.remove_file(sample).status_code == 204
    answer = filled.get("simple/demo-package/", Accept=SIMPLE_JSON)
    assert answer.status_code == 404


# --- what people get wrong -------------------------------------------------------------------------------------------


def test_pypi_12_8_12_9_wrong_addresses_are_explained(filled: Index) -> None:
    for path in ("", "legacy/", "upload"):
        answer = filled.get(path)
        refused(answer, 405, "/simple/")
        assert answer.headers["allow"] == "POST"
    refused(filled.get("demo-package/"), 404, "/simple/")
    for path in ("simple/", "simple", "simple/demo-package/"):
        refused(filled.upload(WHEEL, to=path), 405, f"upload to {filled.address}/")


def test_pypi_8_3_10_18_26_hatch_finds_the_page_in_devpis_place(filled: Index) -> None:
    answer = filled.get("%2Bsimple/demo-package/", Accept="*/*")
    assert answer.headers["content-type"].startswith("text/html")
    assert re.search(rf"<a [^>]+>{re.escape(WHEEL.filename)}</a>", answer.text)
    assert filled.get("%2Bsimple/missing/").status_code == 404


@pytest.mark.parametrize("path", ["/_/oidc/audience", "/.well-known/pytp?discover=%2Fpypi%2Fa%2Fb%2F"])
def test_pypi_9_6_18_23_trusted_publishing_is_quickly_denied(embedded: Server, path: str) -> None:
    answer = httpx.get(embedded.url + path)
    assert answer.status_code == 404 and answer.headers["content-type"] == "application/json"
    assert answer.json()["errors"][0]["code"] == "not-enabled"


def test_pypi_9_6_minting_a_token(embedded: Server) -> None:
    answer = httpx.post(embedded.url + "/_/oidc/mint-token", json={"token": "x"})
    assert answer.status_code == 404 and answer.json()["errors"]


@pytest.mark.parametrize(
    "target",
    [
        "simple/../../../etc/passwd",
        "simple/..%2f..%2fetc%2fpasswd/",
        "simple/%2e%2e/",
        "simple/%252e%252e/",
        "simple/a%00b/",
        "simple/a%0d%0ab/",
        "simple/" + "a" * 300 + "/",
        "simple/%ff/",
        "simple/%e2%80%ae/",
        "files/demo-package/..%5cx.whl",
        "files/demo-package/%2e%2e",
        "files/../simple/",
        "files/demo-package/" + "a" * 3000 + ".whl",
        "integrity/demo-package/1.0/../provenance",
        "demo-package/" + "9" * 5000 + "/json",
        "demo-package/%0a/json",
        "//simple//",
    ],
)
def test_pypi_r1_a1_a3_a6_a7_hostile_addresses(embedded: Server, target: str) -> None:
    index = new_index(embedded)
    index.publish(WHEEL)
    status, body = index.raw("GET", target)
    assert 400 <= status < 500, (status, body)
    assert b"root:" not in body and b"Traceback" not in body
