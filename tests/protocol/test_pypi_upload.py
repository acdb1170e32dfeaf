"""The upload API on running servers: forms, digests, conflicts, races, hostile bodies (pypi.md sections 8 and 15)."""

from __future__ import annotations

import hashlib
import http.client
import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from formats.pypi import samples
from tests.protocol.pypi_client import (
    BOUNDARY,
    Index,
    fields_of,
    form,
    new_index,
    part,
    refused,
    whole,
)
from tests.running import Server

WHEEL = samples.wheel("Up.Demo", "1.0")
SDIST = samples.sdist("Up.Demo", "1.0")
OTHER = samples.wheel("Up.Demo", "1.0", text="other bytes")


@pytest.fixture
def index(server: Server) -> Index:
    return new_index(server)


def blake2(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=32).hexdigest()


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def nothing_there(index: Index, project: str = "up-demo") -> None:
    assert index.get(f"simple/{project}/").status_code == 404


# --- success ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "legacy/", "legacy", "upload/", "upload"])
def test_pypi_8_1_2_8_3_1_every_address_for_uploads(index: Index, path: str) -> None:
    answer = index.upload(WHEEL, to=path)
    assert answer.status_code == 200 and answer.history == []
    assert index.names("up-demo") == [WHEEL.filename]


def test_pypi_18_14_no_redirect_without_the_final_slash(index: Index) -> None:
    answer = index.client.post(
        f"/pypi/{index.key}",
        content=form(WHEEL),
        headers={"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"},
    )
    assert answer.status_code == 200
    assert index.names("up-demo") == [WHEEL.filename]


@pytest.mark.parametrize("file_first", [False, True])
def test_pypi_8_1_4_fields_in_any_order(index: Index, file_first: bool) -> None:
    body = form(WHEEL, file_first=file_first, classifiers=["A :: B", "C :: D"], new_field="x", md5_digest="")
    assert index.post(body).status_code == 200
    assert index.file(WHEEL).content == WHEEL.data


@pytest.mark.parametrize(
    "digests",
    [
        {"sha256_digest": WHEEL.sha256},
        {"sha256_digest": None, "md5_digest": md5(WHEEL.data)},
        {"sha256_digest": None, "blake2_256_digest": blake2(WHEEL.data)},
        {"sha256_digest": WHEEL.sha256.upper(), "blake2_256_digest": blake2(WHEEL.data)},
        {"sha256_digest": WHEEL.sha256, "md5_digest": md5(WHEEL.data), "blake2_256_digest": blake2(WHEEL.data)},
    ],
    ids=["sha256", "md5", "blake2", "twine", "all"],
)
def test_pypi_8_2_2_18_15_the_digests_that_clients_send(index: Index, digests: dict[str, str | None]) -> None:
    assert index.upload(WHEEL, **digests).status_code == 200


def test_pypi_8_1_5_8_1_13_18_16_what_flit_and_uv_leave_out(index: Index) -> None:
    assert index.upload(SDIST, protocol_version=None, metadata_version=None, summary=None).status_code == 200


def test_pypi_8_2_5_an_old_clients_signature_is_dropped(index: Index) -> None:
    body = whole(
        [
            *(part(name, value) for name, value in fields_of(WHEEL)),
            part("content", WHEEL.data, WHEEL.filename, {"Content-Type": "application/octet-stream"}),
            part("gpg_signature", b"-----BEGIN PGP SIGNATURE-----", f"{WHEEL.filename}.asc"),
        ]
    )
    assert index.post(body).status_code == 200
    assert index.names("up-demo") == [WHEEL.filename]


def test_pypi_8_1_6_chunked_bodies_and_expect(index: Index) -> None:
    body = form(WHEEL)
    pieces = (body[start : start + 100] for start in range(0, len(body), 100))
    answer = index.client.post(
        index.base, content=pieces, headers={"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    )
    assert answer.status_code == 200
    answer = index.post(form(SDIST), Expect="100-continue")
    assert answer.status_code == 200
    assert index.names("up-demo") == [WHEEL.filename, SDIST.filename]


def test_pypi_8_3_6_r12_the_same_bytes_again_change_nothing(index: Index) -> None:
    index.publish(WHEEL, SDIST)
    before = index.get("simple/up-demo/", Accept="application/vnd.pypi.simple.v1+json")
    for sample in (WHEEL, SDIST, WHEEL):
        assert index.upload(sample).status_code == 200
    after = index.get("simple/up-demo/", Accept="application/vnd.pypi.simple.v1+json")
    assert after.content == before.content and after.headers["etag"] == before.headers["etag"]


def test_pypi_2_1_the_first_spelling_is_shown(index: Index) -> None:
    index.publish(WHEEL)
    assert index.get("up-demo/json").json()["info"]["name"] == "Up.Demo"


def test_pypi_a_publisher_may_upload_and_a_reader_may_not(index: Index) -> None:
    server = index.server
    publisher = index.as_other(server.user(index.key, "publisher"))
    assert publisher.upload(WHEEL).status_code == 200
    refused(publisher.upload(OTHER), 400, "File already exists")
    reader = index.as_other(server.user(index.key, "reader"))
    refused(reader.upload(SDIST), 403)
    assert index.names("up-demo") == [WHEEL.filename]


def test_pypi_8_1_1_tokens(index: Index) -> None:
    token = index.server.token(index.client, actions=["publish", "read"], repositories=[index.key])["token"]
    assert index.as_other(index.server.client("__token__", token)).upload(WHEEL).status_code == 200


def test_pypi_8_3_4_credentials_come_first(index: Index) -> None:
    anonymous = index.as_other(index.server.client())
    wrong = index.as_other(index.server.client("admin", "wrong"))
    for caller in (anonymous, wrong):
        answer = caller.upload(WHEEL)
        refused(answer, 401)
        assert answer.headers["www-authenticate"].startswith("Basic")
    stranger = index.as_other(index.server.client(*index.server.make_user()))
    refused(stranger.upload(WHEEL), 404)
    nothing_there(index)


# --- refusals --------------------------------------------------------------------------------------------------------


def test_pypi_8_3_7_other_bytes_under_a_name_that_is_taken(index: Index) -> None:
    index.publish(WHEEL)
    answer = index.upload(OTHER)
    refused(answer, 400)
    assert answer.text.startswith("File already exists") and answer.reason_phrase.startswith("File already exists")
    assert "was ever registered" not in answer.text
    assert index.file(WHEEL).content == WHEEL.data


def test_pypi_2_10_a_removed_name_takes_no_other_bytes(index: Index) -> None:
    index.publish(WHEEL, SDIST)
    assert index.remove_file(WHEEL).status_code == 204
    answer = index.upload(OTHER)
    refused(answer, 400)
    assert answer.text.startswith("File already exists") and answer.reason_phrase.startswith("File already exists")
    assert index.names("up-demo") == [SDIST.filename]
    index.publish(samples.wheel("Up.Demo", "1.0.post1"))


@pytest.mark.parametrize("name", ["md5_digest", "sha256_digest", "blake2_256_digest"])
def test_pypi_8_2_3_c1_a_wrong_digest(index: Index, name: str) -> None:
    wrong = "0" * (32 if name == "md5_digest" else 64)
    refused(index.upload(WHEEL, **{name: wrong}), 400, "does not have the")
    nothing_there(index)
    index.publish(WHEEL)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"sha256_digest": None}, "no digest"),
        ({"sha256_digest": "short"}, "hexadecimal"),
        ({"action": "submit"}, ":action"),
        ({"action": "doc_upload"}, ":action"),
        ({"action": None}, ":action"),
        ({"protocol_version": "9"}, "protocol_version"),
        ({"filetype": "bdist_egg"}, "filetype"),
        ({"filetype": "sdist"}, "not a file of type"),
        ({"name": None}, "'name'"),
        ({"name": "other"}, "up-demo"),
        ({"name": "../x"}, "project name"),
        ({"name": "a\0b"}, "NUL"),
        ({"name": b"\xff\xfe"}, "UTF-8"),
        ({"name": "x" * 5000}, "project name"),
        ({"version": "1.1"}, "version"),
        ({"version": "latest"}, "version"),
        ({"version": "1" * 5000}, "version"),
        ({"filename": "Up.Demo-1.0.zip"}, "neither"),
        ({"filename": "up_demo-1.0.egg"}, "neither"),
        ({"filename": "up_demo-2.0-py3-none-any.whl"}, "version"),
        ({"filename": "other-1.0-py3-none-any.whl"}, "project"),
        ({"filename": ".up_demo-1.0-py3-none-any.whl"}, "file name"),
        ({"filename": "../../up_demo-1.0-py3-none-any.whl"}, "file name"),
        ({"filename": "..%2fup_demo-1.0-py3-none-any.whl"}, "file name"),
        ({"filename": "up_demo-1.0-py3-none-any.whl" + "x" * 400}, "file name"),
        ({"filename": "up_d\u00e9mo-1.0-py3-none-any.whl"}, "file name"),
        ({"filename": "up_demo\u200b-1.0-py3-none-any.whl"}, "file name"),
        ({"summary": "a\0b"}, "NUL"),
        ({"attestations": "[" * 100_000}, "nested"),
        ({"data": b""}, "sha256"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_pypi_8_1_b10_r1_forms_that_are_refused(embedded: Server, changed: dict[str, str], words: str) -> None:
    index = new_index(embedded)
    answer = index.upload(WHEEL, **changed)
    refused(answer, 400, words)
    nothing_there(index)
    index.publish(WHEEL)


@pytest.mark.parametrize(
    "sample",
    [
        samples.wheel("Up.Demo", "1.0", left_out=["METADATA"]),
        samples.wheel("Up.Demo", "1.0", left_out=["WHEEL"]),
        samples.wheel("Up.Demo", "1.0", left_out=["RECORD"]),
        samples.wheel("Up.Demo", "1.0", record=b"up_demo/__init__.py,,\n"),
        samples.wheel("Up.Demo", "1.0", document=samples.metadata("Up.Demo", "9.9")),
        samples.wheel("Up.Demo", "1.0", document=samples.metadata("other", "1.0")),
        samples.wheel("Up.Demo", "1.0", document=samples.metadata("Up.Demo", "1.0", metadata_version="9.0")),
        samples.wheel("Up.Demo", "1.0", files={"../evil.py": b"x"}),
        samples.wheel("Up.Demo", "1.0", files={"zeros": bytes(70 * 1024 * 1024)}),
        samples.sdist("Up.Demo", "1.0", files={"second/file": b"x"}),
        samples.sdist("Up.Demo", "1.0", files={"/etc/passwd": b"x"}),
        samples.sdist("Up.Demo", "1.0", files={"up_demo-1.0/zeros": bytes(80 * 1024 * 1024)}),
        samples.sdist("Up.Demo", "1.0", document=samples.metadata("other", "1.0")),
    ],
    ids=range(13),
)
def test_pypi_15_b1_b2_b3_b10_b11_archives_that_are_refused(embedded: Server, sample: samples.Sample) -> None:
    index = new_index(embedded)
    began = time.monotonic()
    refused(index.upload(sample), 400)
    assert time.monotonic() - began < 10
    nothing_there(index)
    index.publish(WHEEL)


def test_pypi_b6_b3_files_that_are_something_else(embedded: Server) -> None:
    index = new_index(embedded)
    for data in (SDIST.data, b"<html>", WHEEL.data + b"more", b"#!/bin/sh\n" + WHEEL.data, WHEEL.data[:-1]):
        refused(index.upload(WHEEL, data=data, sha256_digest=hashlib.sha256(data).hexdigest()), 400)
    refused(index.upload(SDIST, data=WHEEL.data, sha256_digest=WHEEL.sha256), 400)
    nothing_there(index)


def test_pypi_b11_a_repository_may_let_record_pass(embedded: Server) -> None:
    index = new_index(embedded, options={"check_record": False})
    index.publish(samples.wheel("Up.Demo", "1.0", record=b"up_demo/__init__.py,,\n"))


def test_pypi_8_1_5_8_1_7_parts_that_are_refused(embedded: Server) -> None:
    index = new_index(embedded)
    fields = [part(name, value) for name, value in fields_of(WHEEL)]
    content = part("content", WHEEL.data, WHEEL.filename)
    for parts in (
        fields,
        [*fields, content, content],
        [*fields, part("content", WHEEL.data)],
        [*fields, content, part("description", b"x", "d.txt")],
        [*fields, content, part("name", "other")],
        [content],
    ):
        refused(index.post(whole(parts)), 400)
    nothing_there(index)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", ""),
        (b"nonsense", ""),
        (form(WHEEL)[:-20], ""),
        (form(WHEEL)[:200], ""),
        (form(WHEEL).replace(b"\r\n", b"\n"), ""),
        (form(WHEEL), "application/json"),
        (form(WHEEL), "multipart/form-data"),
        (form(WHEEL), "multipart/form-data; boundary=other"),
        (form(WHEEL), "multipart/form-data; boundary=" + "x" * 300),
        (b'{"a": 1}', "application/json"),
        (whole([part("a" * 2000, "x")]), ""),
        (whole([part("a\0b", "x")]), ""),
        (whole([b"--" + BOUNDARY.encode() + b"\r\nX: y\r\n\r\nz\r\n"]), ""),
    ],
    ids=range(13),
)
def test_pypi_r1_a3_i2_bodies_that_are_no_form(embedded: Server, body: bytes, content_type: str) -> None:
    index = new_index(embedded)
    refused(index.post(body, content_type=content_type), 400)
    index.publish(WHEEL)


def test_pypi_i2_forms_with_too_much_in_them(embedded: Server) -> None:
    index = new_index(embedded)
    content = part("content", WHEEL.data, WHEEL.filename)
    many = whole([*(part("classifiers", "x") for _ in range(20_000)), content])
    large = whole(
        [*(part(name, value) for name, value in fields_of(WHEEL)), part("description", b"x" * 9_000_000), content]
    )
    for body in (many, large):
        assert index.post(body).status_code in (400, 413)
    nothing_there(index)
    thousand = [part("classifiers", f"A :: {number}") for number in range(2000)]
    body = whole(
        [
            *(part(name, value) for name, value in fields_of(WHEEL)),
            *thousand,
            part("description", b"x" * 3_000_000),
            content,
        ]
    )
    assert index.post(body).status_code == 200


def test_pypi_d7_r4_an_upload_that_is_cut_leaves_nothing(embedded: Server) -> None:
    index = new_index(embedded)
    body = form(WHEEL)
    request = index.client.build_request("POST", "/")
    assert index.client.auth is not None
    authorization = next(index.client.auth.auth_flow(request)).headers["authorization"]
    head = (
        f"POST {index.base} HTTP/1.1\r\nHost: {embedded.host}\r\nAuthorization: {authorization}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    host, port = embedded.host.split(":")
    for length in (0, 10, len(body) // 2, len(body) - 1):
        with socket.create_connection((host, int(port)), 10) as connection:
            connection.sendall(head + body[:length])
    time.sleep(0.3)
    nothing_there(index)
    index.publish(WHEEL)


def test_pypi_d10_bad_credentials_are_refused_before_the_body(embedded: Server) -> None:
    index = new_index(embedded)
    connection = http.client.HTTPConnection(embedded.host, timeout=20)
    connection.putrequest("POST", index.base)
    connection.putheader("Authorization", "Basic YTpi")
    connection.putheader("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
    connection.putheader("Content-Length", "1000000000")
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 401
    connection.close()


def test_pypi_11_3_8_3_11_over_quota_says_so_in_the_reason(server: Server) -> None:
    namespace = server.make_namespace(quota_bytes=10_000)
    index = new_index(server, namespace=namespace)
    index.publish(WHEEL)
    answer = index.upload(
        samples.wheel("Up.Demo", "2.0", files={"up_demo/data": hashlib.shake_256(b"x").digest(50_000)})
    )
    refused(answer, 403)
    assert "10000" in answer.reason_phrase
    assert index.page("up-demo")["versions"] == ["1.0"]


# --- races -----------------------------------------------------------------------------------------------------------


def test_pypi_w3_16_uploads_of_different_versions_lose_none(index: Index) -> None:
    wanted = [samples.wheel("Up.Demo", f"1.{number}") for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(index.upload, wanted))
    assert [answer.status_code for answer in answers] == [200] * 16
    assert sorted(index.names("up-demo")) == sorted(sample.filename for sample in wanted)
    assert len(index.page("up-demo")["versions"]) == 16


def test_pypi_w3_16_uploads_of_files_of_one_version_lose_none(index: Index) -> None:
    wanted = [samples.wheel("Up.Demo", "1.0", tag=f"cp3{number}-cp3{number}-linux_x86_64") for number in range(15)]
    wanted.append(SDIST)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(index.upload, wanted))
    assert [answer.status_code for answer in answers] == [200] * 16
    page = index.page("up-demo")
    assert sorted(item["filename"] for item in page["files"]) == sorted(sample.filename for sample in wanted)
    assert page["versions"] == ["1.0"]
    assert sum("core-metadata" in item for item in page["files"]) == 15
    for sample in wanted:
        assert index.file(sample).content == sample.data


def test_pypi_w2_different_bytes_under_one_name_have_one_winner(index: Index) -> None:
    wanted = [samples.wheel("Up.Demo", "1.0", text=f"edition {number}") for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(index.upload, wanted))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 15
    winner = next(sample for sample, answer in zip(wanted, answers, strict=True) if answer.status_code == 200)
    for answer in answers:
        assert answer.status_code == 200 or answer.text.startswith("File already exists")
    item = index.page("up-demo")["files"][0]
    assert item["hashes"]["sha256"] == winner.sha256
    assert index.file(winner).content == winner.data and index.file(winner, ".metadata").content == winner.metadata


def test_pypi_w2_the_same_bytes_at_once_all_succeed(index: Index) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(index.upload, [WHEEL] * 16))
    assert [answer.status_code for answer in answers] == [200] * 16
    assert index.names("up-demo") == [WHEEL.filename]


def test_pypi_w5_yank_against_uploads(index: Index) -> None:
    index.publish(WHEEL)
    wanted = [samples.wheel("Up.Demo", "1.0", tag=f"cp3{number}-cp3{number}-linux_x86_64") for number in range(6)]
    with ThreadPoolExecutor(12) as pool:
        uploads = [pool.submit(index.upload, sample) for sample in wanted]
        yanks = [pool.submit(index.yank, "up-demo", "1.0", yanked_reason="bad") for _ in range(6)]
    assert {job.result().status_code for job in uploads} == {200}
    assert {job.result().status_code for job in yanks} <= {200, 204}
    assert [item["yanked"] for item in index.page("up-demo")["files"]] == ["bad"] * 7


def test_pypi_w5_removal_against_uploads(index: Index) -> None:
    """Whatever came first, the page lists what can be downloaded, and the bytes are the ones it names."""
    wanted = [samples.wheel("Up.Demo", "1.0", tag=f"cp3{number}-cp3{number}-linux_x86_64") for number in range(6)]
    index.publish(*wanted[:3])
    with ThreadPoolExecutor(12) as pool:
        removals = [pool.submit(index.remove_file, sample) for sample in wanted]
        uploads = [pool.submit(index.upload, sample) for sample in wanted]
    assert {job.result().status_code for job in removals} <= {204, 404}
    assert {job.result().status_code for job in uploads} <= {200, 400}
    answer = index.get("simple/up-demo/", Accept="application/vnd.pypi.simple.v1+json")
    listed = {item["filename"]: item for item in answer.json()["files"]} if answer.status_code == 200 else {}
    for sample in wanted:
        got = index.file(sample)
        assert (got.status_code == 200) == (sample.filename in listed)
        if sample.filename in listed:
            assert got.content == sample.data and "core-metadata" in listed[sample.filename]


def test_pypi_c5_uploading_again_heals_what_was_lost(embedded: Server) -> None:
    """A wheel or its metadata whose bytes are gone are not served short or wrong, and come back with the same upload."""
    index = new_index(embedded)
    sample = samples.wheel("Up.Demo", "7.0", text="lost and found")
    index.publish(sample)
    for digest in (sample.sha256, hashlib.sha256(sample.metadata).hexdigest()):
        for path in (embedded.data / "blobs").rglob(f"{digest}*"):
            path.unlink()
    fresh = index.as_other(embedded.client(*embedded.make_user(index.key, "maintainer")))
    assert fresh.file(sample, Range="bytes=0-0").status_code == 404
    assert index.upload(sample).status_code == 200
    assert index.file(sample).content == sample.data and index.file(sample, ".metadata").content == sample.metadata


def test_pypi_r1_damaged_forms_are_never_server_errors(embedded: Server) -> None:
    """Bytes cut out, put in, doubled and flipped anywhere in a good form."""
    index = new_index(embedded)
    body = form(WHEEL, md5_digest=md5(WHEEL.data), classifiers=["A", "B"])
    chance = random.Random(20260504)
    for _ in range(300):
        damaged = bytearray(body)
        for _ in range(chance.randrange(1, 4)):
            at, length = chance.randrange(len(damaged)), chance.randrange(1, 40)
            piece = bytes(damaged[at : at + length])
            kind = chance.randrange(4)
            if kind == 0:
                del damaged[at : at + length]
            elif kind == 1:
                damaged[at:at] = chance.randbytes(length)
            elif kind == 2:
                damaged[at:at] = piece
            else:
                damaged[at] ^= 1 << chance.randrange(8)
        answer = index.post(bytes(damaged))
        assert answer.status_code == 200 or 400 <= answer.status_code < 500, (answer.status_code, answer.text)
    assert all(item["hashes"]["sha256"] == WHEEL.sha256 for item in index.page("up-demo")["files"])


# --- the JSON API ----------------------------------------------------------------------------------------------------


def test_pypi_12_the_json_api(index: Index) -> None:
    index.publish(WHEEL, SDIST, samples.wheel("Up.Demo", "1.1", requires=["idna>=2"]))
    found = index.get("up-demo/json").json()
    assert found["info"]["version"] == "1.1" and found["info"]["requires_dist"] == ["idna>=2"]
    assert found["info"]["description"] == "# A sample\n"
    assert set(found["releases"]) == {"1.0", "1.1"} and found["vulnerabilities"] == []
    older = index.get("up-demo/1.0/json").json()
    assert "releases" not in older
    by_name = {item["filename"]: item for item in older["urls"]}
    wheel = by_name[WHEEL.filename]
    assert wheel["digests"] == {"md5": md5(WHEEL.data), "sha256": WHEEL.sha256, "blake2b_256": blake2(WHEEL.data)}
    assert (wheel["packagetype"], wheel["python_version"], wheel["size"]) == ("bdist_wheel", "py3", len(WHEEL.data))
    assert (by_name[SDIST.filename]["packagetype"], by_name[SDIST.filename]["python_version"]) == ("sdist", "source")
    assert index.client.get(wheel["url"]).content == WHEEL.data


def test_pypi_12_1_spellings_and_slashes(index: Index) -> None:
    index.publish(WHEEL)
    for path, target in (("Up.Demo/json", "up-demo/json"), ("UP_DEMO/1.0/json", "up-demo/1.0/json")):
        answer = index.get(path)
        assert (answer.status_code, answer.headers["location"]) == (301, index.base + target)
    assert index.get("up-demo/json/").status_code == index.get("up-demo/1.0.0/json/").status_code == 200
    for path in ("up-demo/2.0/json", "missing/json", "missing/1.0/json", "up-demo/nonsense/json"):
        refused(index.get(path), 404)
    answer = index.get("up-demo/json")
    assert answer.headers["content-type"] == "application/json"
    assert index.get("up-demo/json", If_None_Match=answer.headers["etag"]).status_code == 304


def test_pypi_12_projects_named_like_our_own_addresses(index: Index) -> None:
    for name in ("files", "integrity", "legacy", "upload", "json"):
        index.publish(samples.wheel(name, "1.0"))
        assert index.page(name)["versions"] == ["1.0"]
        assert index.get(f"{name}/1.0/json").json()["info"]["name"] == name, name
        assert index.get(f"{name}/json").json()["info"]["name"] == name, name


def test_pypi_the_rest_api_lists_what_was_published(index: Index) -> None:
    index.publish(WHEEL, SDIST)
    api = f"/api/v1/repositories/{index.key}"
    assert [item["name"] for item in index.client.get(f"{api}/packages").json()["items"]] == ["up-demo"]
    versions = index.client.get(f"{api}/versions", params={"package": "up-demo"}).json()["items"]
    assert [item["version"] for item in versions] == ["1.0"]
    files = index.client.get(f"{api}/files", params={"package": "up-demo", "version": "1.0"}).json()["items"]
    assert {WHEEL.filename, SDIST.filename} <= {item["name"] for item in files}


def test_pypi_r7_an_upload_is_in_the_audit_log(index: Index) -> None:
    index.publish(WHEEL)
    namespace = index.key.partition("/")[0]
    found = index.server.admin.get("/api/v1/audit", params={"namespace": namespace}).json()["items"]
    assert {"version:publish", "file:publish"} <= {item["kind"] for item in found}
    assert f"up-demo/{WHEEL.filename}" in {item["subject"] for item in found}
