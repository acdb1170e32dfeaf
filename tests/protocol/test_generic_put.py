"""Putting and deleting files: paths, checksums, conditions, overwriting (RFC 9110 §9.3.4, RFC 9530)."""

from __future__ import annotations

import base64
import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from formats.generic import samples
from tests.protocol.generic_client import Files, new_files, refused, sha256
from tests.protocol.oci_client import in_chunks
from tests.running import Server


@pytest.fixture
def files(server: Server) -> Files:
    return new_files(server)


@pytest.mark.parametrize("path", sorted(samples.FILES))
def test_P11_P1_round_trip(files: Files, path: str) -> None:
    data = samples.FILES[path]
    answer = files.put(path, data)
    assert answer.status_code == 201
    body = answer.json()
    assert (body["repo"], body["path"], body["size"]) == (files.key, path, len(data))
    assert body["checksums"] == {"sha256": sha256(data)}
    assert answer.headers["etag"] == f'"{sha256(data)}"'
    for address in (answer.headers["location"], body["downloadUri"]):
        assert files.client.get(address).content == data
    assert files.get(path).content == data


def test_U1_U8_E22_new_same_and_other_bytes(files: Files) -> None:
    assert [files.put("a", data).status_code for data in (b"1", b"1", b"2", b"2")] == [201, 200, 200, 200]
    assert files.get("a").content == b"2"


def test_U8_F6_overwriting_needs_the_option_and_the_right(server: Server, files: Files) -> None:
    files.put("a", b"1")
    publisher = files.as_other(server.user(files.key, "publisher"))
    refused(publisher.put("a", b"2"), 403, "forbidden")
    assert publisher.put("a", b"1").status_code == 200
    assert publisher.put("b", b"1").status_code == 201
    strict = new_files(server, options={"allow_overwrite": False})
    strict.put("a", b"1")
    refused(strict.put("a", b"2"), 409, "conflict")
    assert strict.put("a", b"1").status_code == 200
    assert files.get("a").content == strict.get("a").content == b"1"


def test_E1_U5_a_body_of_unknown_length_is_stored(files: Files) -> None:
    data = samples.numbered(3_000_000)
    assert files.ask("PUT", "a", content=in_chunks(data, 100_000)).status_code == 201
    got = files.get("a")
    assert got.content == data and got.headers["x-checksum-sha256"] == sha256(data)


@pytest.mark.parametrize(
    "target",
    [
        "../../etc/passwd",
        "..%2f..%2fetc/passwd",
        "%2e%2e/x",
        "%252e%252e/x",
        "a/%2e/b",
        "a//b",
        "%2Fetc",
        "a%5cb",
        "a%00b",
        "a%0d%0ab",
        "a%1fb",
        "a%252fb",
        "%c0%ae",
        "a%e2%80%8bb",
        "a%e2%80%aeb",
        "a/",
        "",
        "x" * 256,
        "a/" * 64 + "a",
    ],
)
def test_P2_P3_P7_A1_A2_A3_A7_bad_paths(files: Files, target: str) -> None:
    for method in ("PUT", "GET"):
        status, body = files.raw(method, target, Content_Length="0")
        assert status in ((400, 404, 414) if method == "PUT" or target not in ("", "a/") else (200, 404)), body
        assert b"root:" not in body


def test_A7_P6_one_file_in_nfc(files: Files) -> None:
    assert files.put("u\u0308", b"1").status_code == 201
    assert files.put("\u00fc", b"1").status_code == 200
    assert files.get("u\u0308").content == b"1"


def test_P8_a_file_and_a_folder_cannot_share_a_name(files: Files) -> None:
    files.put("a/b", b"1")
    files.put("c", b"1")
    refused(files.put("a", b"1"), 409, "conflict")
    refused(files.put("c/d", b"1"), 409, "conflict")
    assert files.put("a.b", b"1").status_code == 201


def test_U6_codings_and_partial_puts_are_refused(files: Files) -> None:
    refused(files.put("a", b"1", Content_Encoding="gzip"), 415, "content_coding_unsupported")
    refused(files.put("a", b"1", Content_Range="bytes 0-0/5"), 400, "bad_request")
    assert files.get("a").status_code == 404


@pytest.mark.parametrize(
    "headers",
    [
        lambda data: {"X-Checksum-Sha256": sha256(data)},
        lambda data: {"X-Checksum": sha256(data)},
        lambda data: {
            "X-Checksum-Sha1": hashlib.sha1(data).hexdigest(),
            "X-Checksum-Md5": hashlib.md5(data).hexdigest(),
        },
        lambda data: {"Repr-Digest": f"sha-512=:{base64.b64encode(hashlib.sha512(data).digest()).decode()}:"},
        lambda data: {"Content-Digest": f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"},
        lambda data: {"Digest": f"SHA-256={base64.b64encode(hashlib.sha256(data).digest()).decode()}"},
        lambda data: {"Content-MD5": base64.b64encode(hashlib.md5(data).digest()).decode()},
    ],
)
def test_C1_C2_C3_declared_checksums(files: Files, headers: object) -> None:
    data = samples.numbered(10_000)
    assert callable(headers)
    assert files.ask("PUT", "good", content=data, headers=headers(data)).status_code == 201
    answer = files.ask("PUT", "bad", content=data, headers=headers(data + b"x"))
    refused(answer, 409, "checksum_mismatch")
    assert files.get("bad").status_code == 404


def test_C3_malformed_checksums(files: Files) -> None:
    for name, value in [("X-Checksum-Md5", "xyz"), ("X-Checksum", "1"), ("Repr-Digest", "sha-256=x")]:
        refused(files.ask("PUT", "a", content=b"1", headers={name: value}), 400, "checksum_malformed")


def test_C4_checksums_that_were_declared_are_told(files: Files) -> None:
    files.put("a", b"1", X_Checksum_Md5=hashlib.md5(b"1").hexdigest(), X_Checksum_Sha1=hashlib.sha1(b"1").hexdigest())
    for method in ("GET", "HEAD"):
        headers = files.ask(method, "a").headers
        assert headers["x-checksum-md5"] == hashlib.md5(b"1").hexdigest()
        assert headers["x-checksum-sha1"] == hashlib.sha1(b"1").hexdigest()
        assert headers["x-checksum-sha256"] == sha256(b"1")


def test_D1_deploy_by_checksum(files: Files) -> None:
    data = samples.numbered(20_000)
    files.put("a", data)
    sums = {"X_Checksum": sha256(data), "X_Checksum_Deploy": "true"}
    assert files.put("b", b"", **sums).status_code == 201
    assert files.get("b").content == data
    assert files.put("b", b"", **sums).status_code == 200
    refused(
        files.put("c", b"", X_Checksum=sha256(b"what nobody has stored"), X_Checksum_Deploy="true"),
        404,
        "file_not_found",
    )
    files.ask("DELETE", "a")
    assert files.get("b").content == data


def test_D2_E6_a_hash_gives_no_access(server: Server, files: Files) -> None:
    secret = new_files(server)
    secret.put("a", b"secret")
    refused(files.put("b", b"", X_Checksum=sha256(b"secret"), X_Checksum_Deploy="true"), 404, "file_not_found")


def test_D6_E7_sums_without_bytes_are_a_mismatch(files: Files) -> None:
    files.put("a", b"1")
    refused(files.put("b", b"", X_Checksum_Sha256=sha256(b"1")), 409, "checksum_mismatch")


def test_U7_W6_conditions(files: Files) -> None:
    assert files.put("a", b"1", If_Match="*").status_code == 412
    etag = files.put("a", b"1", If_None_Match="*").headers["etag"]
    refused(files.put("a", b"2", If_None_Match="*"), 412, "precondition_failed")
    changed = files.put("a", b"2", If_Match=etag)
    assert changed.status_code == 200
    assert files.put("a", b"3", If_Match=etag).status_code == 412
    assert files.ask("DELETE", "a", headers={"If-Match": etag}).status_code == 412
    assert files.get("a").content == b"2"
    assert files.ask("DELETE", "a", headers={"If-Match": changed.headers["etag"]}).status_code == 204


def test_U7_create_only_from_many_at_once(files: Files) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: files.put("a", b"%d" % number, If_None_Match="*"), range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [412] * 7


def test_U9_W4_readers_see_one_whole_file(files: Files) -> None:
    candidates = [bytes([65 + number]) * 200_000 for number in range(4)]
    files.put("a", candidates[0])
    with ThreadPoolExecutor(8) as pool:
        writes = [pool.submit(files.put, "a", data) for data in candidates * 3]
        reads = [pool.submit(files.get, "a") for _ in range(20)]
    assert {write.result().status_code for write in writes} <= {200, 201}
    for read in reads:
        answer = read.result()
        assert answer.content in candidates
        assert answer.headers["x-checksum-sha256"] == sha256(answer.content)


def test_O1_deleting(server: Server, files: Files) -> None:
    files.put("d/a", b"1")
    publisher = files.as_other(server.user(files.key, "publisher"))
    refused(publisher.ask("DELETE", "d/a"), 403, "forbidden")
    refused(files.ask("DELETE", "d/"), 405, "method_not_allowed")
    assert files.ask("DELETE", "").status_code == 405
    assert files.ask("DELETE", "d/a").status_code == 204
    refused(files.ask("DELETE", "d/a"), 404, "file_not_found")
    assert files.get("d/").status_code == 404
    assert files.put("d", b"now a file").status_code == 201


def test_quota_is_403(server: Server) -> None:
    namespace = server.make_namespace(quota_bytes=1000)
    key = server.make_repository(namespace, format="generic")
    files = Files(server, server.user(key, "maintainer"), key)
    refused(files.put("a", b"x" * 2000), 403, "quota_exceeded")
    assert files.put("a", b"x" * 900).status_code == 201


def test_anonymous_and_strangers(server: Server, files: Files) -> None:
    files.put("a", b"1")
    anonymous = files.as_other(server.client())
    for method in ("GET", "PUT", "DELETE"):
        answer = anonymous.ask(method, "a")
        refused(answer, 401, "authentication_required")
        assert answer.headers["www-authenticate"].startswith("Basic ")
    stranger = files.as_other(server.client(*server.make_user()))
    for method in ("GET", "PUT", "DELETE"):
        assert stranger.ask(method, "a").status_code == 404
    public = new_files(server, anonymous_read=True)
    public.put("a", b"1")
    assert public.as_other(server.client()).get("a").content == b"1"
    assert public.as_other(server.client()).put("b", b"1").status_code == 401
