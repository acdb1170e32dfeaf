"""Pushing blobs: sessions, chunks, single requests and mounts (distribution-spec "Pushing blobs")."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from repoman.core.digest import Digest
from tests.protocol.oci_client import Image, in_chunks, new_image, refused
from tests.running import Server

DATA = bytes(range(256)) * 40


@pytest.fixture
def image(server: Server) -> Image:
    return new_image(server)


def test_U1_U3_U4_a_session_has_one_relative_address(image: Image) -> None:
    answer = image.ask("POST", "/blobs/uploads/")
    assert answer.status_code == 202
    (location,) = answer.headers.get_list("location")
    assert location == f"{image.base}/blobs/uploads/{answer.headers['docker-upload-uuid']}"
    assert (answer.headers["range"], answer.headers["content-length"]) == ("0-0", "0")


def test_N9_no_redirect_without_the_final_slash(image: Image) -> None:
    assert image.ask("POST", "/blobs/uploads").status_code == 202


def test_U5_range_is_last_byte_index(image: Image) -> None:
    location = image.start()
    answer = image.ask("PATCH", location, content=DATA[:10])
    assert (answer.status_code, answer.headers["range"]) == (202, "0-9")
    status = image.ask("GET", answer.headers["location"])
    assert (status.status_code, status.headers["range"]) == (204, "0-9")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_U6_E1_a_chunk_of_unknown_length_is_stored(image: Image, algorithm: str) -> None:
    location = image.start()
    answer = image.ask("PATCH", location, content=in_chunks(DATA))
    assert (answer.status_code, answer.headers["range"]) == (202, f"0-{len(DATA) - 1}")
    digest = Digest.of(DATA, algorithm)
    done = image.ask("PUT", f"{answer.headers['location']}?digest={digest}")
    assert done.status_code == 201
    assert done.headers["location"] == f"{image.base}/blobs/{digest}"
    assert done.headers["docker-content-digest"] == str(digest)
    got = image.ask("GET", done.headers["location"])
    assert got.content == DATA and got.headers["docker-content-digest"] == str(digest)


@pytest.mark.parametrize("form", ["{}-{}", "bytes {}-{}/*"])
def test_U7_U10_chunks_in_order_the_last_one_in_put(image: Image, form: str) -> None:
    location = image.start()
    for start in (0, 4000):
        ranged = {"Content-Range": form.format(start, start + 3999)}
        answer = image.ask("PATCH", location, content=DATA[start : start + 4000], headers=ranged)
        assert answer.status_code == 202
    ranged = {"Content-Range": form.format(8000, len(DATA) - 1)}
    done = image.ask("PUT", f"{location}?digest={Digest.of(DATA)}", content=DATA[8000:], headers=ranged)
    assert done.status_code == 201
    assert image.ask("GET", done.headers["location"]).content == DATA


def test_U7_U9_D1_a_chunk_out_of_order_changes_nothing(image: Image) -> None:
    first = image.start()
    second = image.ask("PATCH", first, content=DATA[:100], headers={"Content-Range": "0-99"}).headers["location"]
    for ranged in ("0-99", "50-149", "200-299"):
        answer = image.ask("PATCH", first, content=DATA[:100], headers={"Content-Range": ranged})
        refused(answer, 416, "BLOB_UPLOAD_INVALID")
        assert answer.headers["range"] == "0-99"
    put = image.ask("PUT", f"{first}?digest={Digest.of(DATA)}", content=b"x", headers={"Content-Range": "7-7"})
    assert put.status_code == 416
    for location in (first, second):
        status = image.ask("GET", location)
        assert (status.status_code, status.headers["range"]) == (204, "0-99")
    rest = {"Content-Range": f"100-{len(DATA) - 1}"}
    assert image.ask("PATCH", first, content=DATA[100:], headers=rest).status_code == 202
    assert image.ask("PUT", f"{first}?digest={Digest.of(DATA)}").status_code == 201


@pytest.mark.parametrize(("given", "status"), [("0-5", 400), ("5-0", 416), ("bytes", 416), ("0-", 416)])
def test_U8_a_content_range_that_cannot_be_right(image: Image, given: str, status: int) -> None:
    location = image.start()
    assert image.ask("PATCH", location, content=b"01234", headers={"Content-Range": given}).status_code == status
    assert image.ask("GET", location).headers["range"] == "0-0"


def test_U10_C1_C2_the_digest_is_judged(image: Image) -> None:
    digest = str(Digest.of(DATA))
    for query in (
        "",
        "?digest=",
        "?digest=sha256:totallywrong",
        f"?digest={digest.upper()}",
        "?digest=md5:" + "a" * 32,
    ):
        refused(image.ask("PUT", image.start() + query, content=DATA), 400, "DIGEST_INVALID")
    other = Digest.of(b"other")
    refused(image.ask("PUT", f"{image.start()}?digest={other}", content=DATA), 400, "DIGEST_INVALID")
    refused(image.ask("POST", f"/blobs/uploads/?digest={other}", content=DATA), 400, "DIGEST_INVALID")
    refused(image.ask("GET", f"/blobs/{other}"), 404, "BLOB_UNKNOWN")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("data", [b"", b"{}", DATA], ids=["empty", "two bytes", "more"])
def test_U11_U21_G2_single_post(image: Image, data: bytes, algorithm: str) -> None:
    digest = Digest.of(data, algorithm)
    for _ in range(2):  # U18: again is as good as once
        answer = image.ask("POST", f"/blobs/uploads/?digest={digest}", content=data)
        assert answer.status_code == 201
        assert answer.headers["location"] == f"{image.base}/blobs/{digest}"
    got = image.ask("GET", f"/blobs/{digest}")
    assert got.content == data and got.headers["content-length"] == str(len(data))


def test_N10_an_escaped_digest_in_the_query_is_the_same(image: Image) -> None:
    digest = str(Digest.of(DATA)).replace(":", "%3A")
    assert image.ask("POST", f"/blobs/uploads/?digest={digest}", content=DATA).status_code == 201


def test_U11_single_post_of_unknown_length(image: Image) -> None:
    digest = Digest.of(DATA)
    assert image.ask("POST", f"/blobs/uploads/?digest={digest}", content=in_chunks(DATA)).status_code == 201
    assert image.ask("GET", f"/blobs/{digest}").content == DATA


def test_U2_U16_post_then_put_and_empty_chunks(image: Image) -> None:
    assert image.ask("PUT", f"{image.start()}?digest={Digest.of(DATA)}", content=DATA).status_code == 201
    location = image.start()
    assert image.ask("PATCH", location, content=b"").headers["range"] == "0-0"
    assert image.ask("PUT", f"{location}?digest={Digest.of(b'')}").status_code == 201


def test_4c_a_session_for_sha512(image: Image) -> None:
    location = image.start("?digest-algorithm=sha512")
    image.ask("PATCH", location, content=DATA)
    assert image.ask("PUT", f"{location}?digest={Digest.of(DATA, 'sha512')}").status_code == 201
    refused(image.ask("POST", "/blobs/uploads/?digest-algorithm=sha384"), 400, "DIGEST_INVALID")


def test_U12_N6_U14_mount_from_another_repository(server: Server, image: Image) -> None:
    source = new_image(server, anonymous_read=True)
    digest = source.push_blob(DATA)
    query = f"?mount={digest}&from={source.key}/app"
    answer = image.ask("POST", f"/blobs/uploads/{query}", headers={"Content-Type": "application/json"})
    assert answer.status_code == 201
    assert answer.headers["location"] == f"{image.base}/blobs/{digest}"
    assert answer.headers["docker-content-digest"] == digest
    assert image.ask("GET", f"/blobs/{digest}").content == DATA


def test_U13_mount_without_from(server: Server, image: Image) -> None:
    digest = new_image(server, anonymous_read=True).push_blob(DATA + b"somewhere")
    assert image.ask("POST", f"/blobs/uploads/?mount={digest}").status_code == 201


def test_F3_C6_A36_what_may_not_be_read_is_not_mounted(server: Server, image: Image) -> None:
    secret = new_image(server)
    digest = secret.push_blob(DATA + b"secret")
    for query in (f"?mount={digest}&from={secret.key}/app", f"?mount={digest}"):
        answer = image.ask("POST", f"/blobs/uploads/{query}")
        assert answer.status_code == 202 and answer.headers["range"] == "0-0"
    refused(image.ask("GET", f"/blobs/{digest}"), 404, "BLOB_UNKNOWN")


def test_U12_a_mount_that_cannot_be_had_opens_a_session(image: Image) -> None:
    digest = Digest.of(b"nobody has this")
    for source in ("&from=no/such/image", "&from=..%2F..", "&from=", f"&from={image.key}/other&origin=x", ""):
        location = image.start(f"?mount={digest}{source}")
        assert image.ask("DELETE", location).status_code == 204
    refused(image.ask("POST", "/blobs/uploads/?mount=sha256:bad"), 400, "DIGEST_INVALID")


def test_U19_a_cancelled_session_is_gone(image: Image) -> None:
    location = image.start()
    image.ask("PATCH", location, content=DATA)
    answer = image.ask("DELETE", location)
    assert (answer.status_code, answer.content) == (204, b"")
    for method, more in [("GET", ""), ("PATCH", ""), ("PUT", f"?digest={Digest.of(DATA)}"), ("DELETE", "")]:
        refused(image.ask(method, location + more), 404, "BLOB_UPLOAD_UNKNOWN")


def test_A32_whoever_pushes_may_cancel(server: Server, image: Image) -> None:
    publisher = image.as_other(server.user(image.key, "publisher"))
    assert publisher.ask("DELETE", publisher.start()).status_code == 204


def test_U20_D4_a_session_belongs_to_its_user_and_image(server: Server, image: Image) -> None:
    location = image.start()
    image.ask("PATCH", location, content=DATA[:10])
    upload_id = location.rsplit("/", 1)[1]
    colleague = image.as_other(server.user(image.key, "maintainer"))
    elsewhere = Image(image.client, image.key, "other")
    for other in (colleague, elsewhere):
        for method in ("GET", "PATCH", "DELETE"):
            refused(other.ask(method, f"/blobs/uploads/{upload_id}"), 404, "BLOB_UPLOAD_UNKNOWN")
    assert image.ask("GET", location).headers["range"] == "0-9"


def test_U18_the_same_blob_from_many_at_once(image: Image) -> None:
    digest = Digest.of(DATA)

    def push(_: int) -> tuple[int, int]:
        location = image.start()
        image.ask("PATCH", location, content=DATA)
        put = image.ask("PUT", f"{location}?digest={digest}")
        return put.status_code, image.ask("HEAD", f"/blobs/{digest}").status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(push, range(16))) == {(201, 200)}


def test_D2_two_chunks_at_once_never_interleave(image: Image) -> None:
    location = image.start()
    pieces = [bytes([65 + number]) * 50_000 for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda piece: image.ask("PATCH", location, content=piece), pieces))
    assert {answer.status_code for answer in answers} <= {202, 409, 416}
    kept = sum(answer.status_code == 202 for answer in answers)
    assert kept >= 1
    assert image.ask("GET", location).headers["range"] == f"0-{50_000 * kept - 1}"


def test_D3_two_completions_at_once(image: Image) -> None:
    location = image.start()
    image.ask("PATCH", location, content=DATA)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: image.ask("PUT", f"{location}?digest={Digest.of(DATA)}"), range(4)))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses[0] == 201 and set(statuses) <= {201, 404, 409, 416}
    assert image.ask("GET", f"/blobs/{Digest.of(DATA)}").content == DATA
