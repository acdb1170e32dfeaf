"""Pulling blobs: bytes, ranges, conditions (distribution-spec "Pulling blobs", RFC 9110 §13 and §14)."""

from __future__ import annotations

import pytest

from repoman.core.digest import Digest
from tests.protocol.oci_client import Image, new_image, refused
from tests.running import Server

DATA = bytes(range(256)) * 8  # 2,048 bytes
LARGE = bytes(range(251)) * 12_000  # more than two pieces of 1 MiB


@pytest.fixture
def image(server: Server) -> Image:
    return new_image(server)


@pytest.mark.parametrize("data", [DATA, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_B1_B2_B7_B9_get_and_head_agree(image: Image, data: bytes, algorithm: str) -> None:
    digest = image.push_blob(data, algorithm)
    got, headed = image.ask("GET", f"/blobs/{digest}"), image.ask("HEAD", f"/blobs/{digest}")
    assert got.content == data and headed.content == b""
    for answer in (got, headed):
        assert answer.status_code == 200
        assert answer.headers["content-length"] == str(len(data))
        assert answer.headers["docker-content-digest"] == digest
        assert answer.headers["accept-ranges"] == "bytes"
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["etag"] == f'"{Digest.of(data).hex}"'
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "private" in answer.headers["cache-control"]


@pytest.mark.parametrize("data", [DATA, LARGE], ids=["small", "large"])
@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("500-1499", 500, 1499),
        ("500-", 500, None),
        ("-500", -500, None),
        ("2000-5000000000", 2000, None),
        ("0-0", 0, 0),
    ],
)
def test_B3_one_range(image: Image, data: bytes, asked: str, first: int, last: int | None) -> None:
    digest = image.push_blob(data)
    start = first if first >= 0 else len(data) + first
    end = last if last is not None else len(data) - 1
    answer = image.ask("GET", f"/blobs/{digest}", headers={"Range": f"bytes={asked}"})
    assert (answer.status_code, answer.content) == (206, data[start : end + 1])
    assert answer.headers["content-range"] == f"bytes {start}-{end}/{len(data)}"
    assert answer.headers["content-length"] == str(end + 1 - start)
    assert answer.headers["docker-content-digest"] == digest


@pytest.mark.parametrize("asked", ["2048-", "5000-6000", "500-0", "-0"])
def test_B3_B4_ranges_that_do_not_fit(image: Image, asked: str) -> None:
    digest = image.push_blob(DATA)
    answer = image.ask("GET", f"/blobs/{digest}", headers={"Range": f"bytes={asked}"})
    assert answer.status_code == 416 and answer.headers["content-range"] == "bytes */2048"


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "items=0-1", "bytes=a-b", "bytes"])
def test_B5_I4_several_ranges_and_nonsense_give_the_whole(image: Image, asked: str) -> None:
    digest = image.push_blob(DATA)
    answer = image.ask("GET", f"/blobs/{digest}", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, DATA)


def test_B6_conditions(image: Image) -> None:
    path = f"/blobs/{image.push_blob(DATA)}"
    etag = image.ask("HEAD", path).headers["etag"]
    for value in (etag, f'"x", W/{etag}', "*"):
        answer = image.ask("GET", path, headers={"If-None-Match": value})
        assert (answer.status_code, answer.content) == (304, b"") and answer.headers["etag"] == etag
    assert image.ask("GET", path, headers={"If-None-Match": '"x"'}).status_code == 200
    ranged = {"Range": "bytes=0-9", "If-Range": etag}
    assert image.ask("GET", path, headers=ranged).status_code == 206
    assert image.ask("GET", path, headers={**ranged, "If-Range": '"x"'}).status_code == 200


def test_B8_never_compressed(image: Image) -> None:
    digest = image.push_blob(b"a" * 100_000)
    for path in (f"/blobs/{digest}", "/tags/list", f"/referrers/{digest}"):
        answer = image.ask("GET", path, headers={"Accept-Encoding": "zstd, gzip, deflate, br"})
        assert "content-encoding" not in answer.headers and "content-length" in answer.headers


def test_B12_a_blob_is_seen_through_its_image_only(server: Server, image: Image) -> None:
    digest = image.push_blob(DATA)
    refused(Image(image.client, image.key, "other").ask("GET", f"/blobs/{digest}"), 404, "BLOB_UNKNOWN")
    elsewhere = new_image(server)
    refused(elsewhere.ask("GET", f"/blobs/{digest}"), 404, "BLOB_UNKNOWN")
    assert elsewhere.ask("HEAD", f"/blobs/{digest}").status_code == 404


@pytest.mark.parametrize(
    "digest", ["sha256:bad", "sha256:" + "A" * 64, "sha512:" + "a" * 64, "sha384:" + "a" * 96, "md5:" + "a" * 32, "x"]
)
def test_G1_C2_malformed_digests(image: Image, digest: str) -> None:
    refused(image.ask("GET", f"/blobs/{digest}"), 400, "DIGEST_INVALID")
    assert image.ask("HEAD", f"/blobs/{digest}").status_code == 400
    refused(image.ask("DELETE", f"/blobs/{digest}"), 400, "DIGEST_INVALID")


def test_H7_errors_of_head_have_the_headers_of_get(image: Image) -> None:
    path = f"/blobs/sha256:{'0' * 64}"
    got, headed = image.ask("GET", path), image.ask("HEAD", path)
    assert headed.status_code == 404 and headed.content == b""
    assert headed.headers["content-type"] == got.headers["content-type"]


def test_a_publisher_without_read_may_ask_whether_a_blob_is_here(server: Server, image: Image) -> None:
    digest = image.push_blob(DATA)
    secret = server.token(image.client, actions=["publish"])["token"]
    publisher = image.as_other(server.client("token", secret))
    assert publisher.ask("HEAD", f"/blobs/{digest}").status_code == 200
    refused(publisher.ask("GET", f"/blobs/{digest}"), 403, "DENIED")


def test_P7_a_body_with_get_is_ignored(image: Image) -> None:
    digest = image.push_blob(DATA)
    assert image.ask("GET", f"/blobs/{digest}", content=b"{}").content == DATA
