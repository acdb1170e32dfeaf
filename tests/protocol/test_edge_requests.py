"""Requests as hostile or clumsy clients send them, against a running server: one answer each, in the right shape."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from tests.protocol.edge_client import Answer, ask, basic, connect, head, metric, read
from tests.running import ADMIN_PASSWORD, Server

ADMIN = f"Authorization: {basic('admin', ADMIN_PASSWORD)}"


@pytest.fixture(scope="module")
def files(embedded: Server) -> str:
    """A public generic repository with one file, `plain.txt`."""
    key = embedded.make_repository(format="generic", anonymous_read=True)
    assert embedded.admin.put(f"/generic/{key}/plain.txt", content=b"0123456789").status_code == 201
    return key


def refused(answer: Answer, *statuses: int) -> None:
    """An error in a declared shape, with a request id and nothing of the inside."""
    assert answer.status in statuses, (answer.status, answer.body)
    assert answer.header("x-request-id")
    content = json.loads(answer.body)
    assert "errors" in content or "code" in content
    for word in (b"Traceback", b"SELECT", b"/repoman/", b".py", b"sqlite"):
        assert word not in answer.body


# --- paths -----------------------------------------------------------------------------------------------------------

TRAVERSALS = [
    "../../../../etc/passwd",
    "..%2f..%2f..%2fetc/passwd",
    "%2e%2e/%2e%2e/etc/passwd",
    "%252e%252e/%252e%252e/etc/passwd",
    "..%5c..%5cetc/passwd",
    "..\\..\\etc\\passwd",
    "a/./b",
    "a/../plain.txt",
    "%2e/plain.txt",
]


@pytest.mark.parametrize("path", TRAVERSALS)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_A1_a_path_that_climbs_is_refused(embedded: Server, files: str, path: str, method: str) -> None:
    answer = ask(embedded, method, f"/generic/{files}/{path}", ADMIN, body=b"x" if method == "PUT" else b"")
    refused(answer, 400, 404)


@pytest.mark.parametrize(
    "target",
    ["/%2F%2Fetc/passwd", "//etc/passwd", "/generic//etc/passwd", "/v2//etc/manifests/x", "/generic/%2Fetc/passwd/x"],
)
def test_A2_doubled_and_encoded_slashes_are_refused(embedded: Server, target: str) -> None:
    refused(ask(embedded, "GET", target, ADMIN), 400, 404)


@pytest.mark.parametrize("bad", ["%00", "%0d%0aX:1", "%1b[31m", "%7f", "%e2%80%ae", "%c0%af", "%ff", "%ed%a0%80"])
def test_A3_A7_control_and_invisible_characters_and_bad_utf8_are_refused(
    embedded: Server, files: str, bad: str
) -> None:
    for target in (f"/generic/{files}/a{bad}b", f"/v2/{files}/a{bad}b/manifests/x", f"/generic/{files}/a?x={bad}"):
        answer = ask(embedded, "GET", target, ADMIN)
        assert answer.status in (400, 404), (target, answer.status)
    refused(ask(embedded, "GET", f"/generic/{files}/a{bad}b", ADMIN), 400, 404)


def test_A4_an_encoded_key_is_the_same_key(embedded: Server) -> None:
    key = embedded.make_repository(format="generic")
    namespace, _, name = key.partition("/")
    encoded = f"/generic/{namespace}/%{ord(name[0]):02x}{name[1:]}/file"
    embedded.admin.put(f"/generic/{key}/file", content=b"1")
    assert ask(embedded, "GET", encoded).status == 401
    assert ask(embedded, "GET", encoded, ADMIN).body == b"1"
    for empty in ("/generic/", "/generic//", "/generic/x", "/v2/x/", "/generic/x//y"):
        refused(ask(embedded, "GET", empty, ADMIN), 400, 404)


def test_A6_a_path_longer_than_its_limit_is_refused(embedded: Server, files: str) -> None:
    for path in ("x" * 256, "/".join(["y" * 200] * 6), "a/" * 100 + "b"):
        refused(ask(embedded, "GET", f"/generic/{files}/{path}", ADMIN), 400)


def test_the_missing_and_the_hidden_get_the_same_answer(embedded: Server) -> None:
    key = embedded.make_repository(format="generic")
    embedded.admin.put(f"/generic/{key}/file", content=b"1")
    missing = key.rpartition("/")[0] + "/not-there"
    stranger = f"Authorization: {basic(*embedded.make_user())}"
    for caller, status in (((), 401), ((stranger,), 404)):
        hidden = ask(embedded, "GET", f"/generic/{key}/file", *caller)
        absent = ask(embedded, "GET", f"/generic/{missing}/file", *caller)
        assert hidden.status == absent.status == status
        assert hidden.body.replace(key.encode(), b"KEY") == absent.body.replace(missing.encode(), b"KEY")
        assert [name for name, _ in hidden.headers] == [name for name, _ in absent.headers]


def test_a_repository_is_not_found_under_another_formats_address(embedded: Server, files: str) -> None:
    refused(ask(embedded, "GET", f"/v2/{files}/app/manifests/latest", ADMIN), 404)
    refused(ask(embedded, "GET", f"/v2/{files}/app/manifests/latest"), 401)


def test_a_repositorys_own_address_gets_its_slash(embedded: Server, files: str) -> None:
    answer = ask(embedded, "GET", f"/generic/{files}")
    assert (answer.status, answer.header("location")) == (301, f"/generic/{files}/")


@pytest.mark.parametrize("target", ["/_/oidc/x", "/-/npm/v1/x", "/.well-known/x", "/nothing", "/v3/x", "/apix"])
def test_reserved_and_unknown_roots_are_not_found(embedded: Server, target: str) -> None:
    refused(ask(embedded, "GET", target), 404)


def test_the_root_leads_to_the_web_ui(embedded: Server) -> None:
    answer = ask(embedded, "GET", "/")
    assert (answer.status, answer.header("location")) == (302, "/ui/")


# --- methods and headers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["TRACE", "PROPFIND", "FOO", "OPTIONS", "PATCH"])
def test_I6_unknown_methods_are_405(embedded: Server, files: str, method: str) -> None:
    answer = ask(embedded, method, f"/generic/{files}/plain.txt", ADMIN)
    refused(answer, 405)
    assert "GET" in (answer.header("allow") or "")
    assert ask(embedded, method, "/v2/", ADMIN).status == 405
    assert ask(embedded, method, "/healthz").status == 405


def test_I6_a_method_override_is_ignored(embedded: Server, files: str) -> None:
    answer = ask(embedded, "GET", f"/generic/{files}/plain.txt", ADMIN, "X-HTTP-Method-Override: DELETE")
    assert answer.body == b"0123456789"
    assert ask(embedded, "GET", f"/generic/{files}/plain.txt").status == 200


@pytest.mark.parametrize("host", ["a b", "evil/../x", "x" * 300, "user@host", "a:b:c"])
@pytest.mark.parametrize("target", ["/generic/{files}/plain.txt", "/v2/", "/api/v1/namespaces", "/ui/", "/token"])
def test_I6_a_malformed_host_is_400_in_every_place(embedded: Server, files: str, host: str, target: str) -> None:
    refused(ask(embedded, "GET", target.format(files=files), ADMIN, host=host), 400)


def test_a_probe_by_address_is_answered_whatever_the_host(embedded: Server) -> None:
    assert ask(embedded, "GET", "/healthz", host="!!").body == b"ok\n"


def test_two_authorization_headers_are_refused(embedded: Server, files: str) -> None:
    refused(ask(embedded, "GET", f"/generic/{files}/plain.txt", ADMIN, ADMIN), 400)


@pytest.mark.parametrize(
    "value", ["", "Basic", "Basic !!!", "Basic Og==", "Bearer", "Bearer x", "Digest x", "Basic " + "A" * 7000]
)
def test_E7_credentials_that_make_no_sense_are_never_anonymous(embedded: Server, files: str, value: str) -> None:
    refused(ask(embedded, "GET", f"/generic/{files}/plain.txt", f"Authorization: {value}"), 401)


def test_I7_forwarded_headers_from_anyone_are_ignored(embedded: Server, files: str) -> None:
    lines = ("X-Forwarded-Host: evil.test", "X-Forwarded-Proto: https", "X_Forwarded_Host: evil.test")
    answer = ask(embedded, "PUT", f"/generic/{files}/where", ADMIN, *lines, body=b"x")
    assert json.loads(answer.body)["downloadUri"] == f"http://{embedded.host}/generic/{files}/where"
    realm = ask(embedded, "GET", "/v2/", *lines).header("www-authenticate") or ""
    assert "evil" not in realm and f"http://{embedded.host}/token" in realm


def test_K2_a_request_id_is_kept_if_it_is_plain_and_replaced_if_not(embedded: Server, files: str) -> None:
    for target in (f"/generic/{files}/plain.txt", "/v2/", "/api/v1/namespaces", "/nothing"):
        assert ask(embedded, "GET", target, "X-Request-Id: build-4711.a").header("x-request-id") == "build-4711.a"
        odd = ask(embedded, "GET", target, 'X-Request-Id: <script>"').header("x-request-id") or ""
        assert odd.isalnum() and len(odd) >= 16


def test_I2_too_many_parameters_are_refused(embedded: Server, files: str) -> None:
    query = "&".join(f"a{number}=1" for number in range(1_100))
    refused(ask(embedded, "GET", f"/generic/{files}/plain.txt?{query}", ADMIN), 400, 414)


def test_requests_on_one_connection_are_answered_in_order(embedded: Server, files: str) -> None:
    with connect(embedded) as sock:
        for number in range(30):
            target = (f"/generic/{files}/plain.txt", f"/generic/{files}/missing", "/healthz")[number % 3]
            sock.sendall(head("GET", target, ADMIN, host=embedded.host))
            assert read(sock).status == (200, 404, 200)[number % 3]


# --- bodies ----------------------------------------------------------------------------------------------------------


def test_D10_bad_credentials_are_refused_before_the_body_is_asked_for(embedded: Server, files: str) -> None:
    for line, status in ((f"Authorization: {basic('admin', 'wrong')}", 401), ("X: y", 401)):
        with connect(embedded) as sock:
            lines = (line, "Content-Length: 100000000", "Expect: 100-continue")
            sock.sendall(head("PUT", f"/generic/{files}/new", *lines, host=embedded.host))
            first = sock.recv(12)
            assert first == f"HTTP/1.1 {status}".encode()


def test_D10_a_declared_length_over_the_quota_is_refused_before_the_body(embedded: Server) -> None:
    namespace = embedded.make_namespace(quota_bytes=1000)
    key = embedded.make_repository(namespace, format="generic")
    with connect(embedded) as sock:
        lines = (ADMIN, "Content-Length: 1001", "Expect: 100-continue")
        sock.sendall(head("PUT", f"/generic/{key}/big", *lines, host=embedded.host))
        answer = read(sock)
        refused(answer, 403)
        assert json.loads(answer.body)["code"] == "quota_exceeded"
    with connect(embedded) as sock:
        lines = (ADMIN, "Content-Length: 1000", "Expect: 100-continue")
        sock.sendall(head("PUT", f"/generic/{key}/fits", *lines, host=embedded.host))
        assert sock.recv(100).startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"x" * 1000)
        assert read(sock).status == 201


def test_R12_the_same_bytes_again_fit_into_a_full_namespace(embedded: Server) -> None:
    key = embedded.make_repository(embedded.make_namespace(quota_bytes=1000), format="generic")
    data = b"z" * 1000
    named = {"X-Checksum-Sha256": hashlib.sha256(data).hexdigest()}
    assert embedded.admin.put(f"/generic/{key}/file", content=data, headers=named).status_code == 201
    assert embedded.admin.put(f"/generic/{key}/file", content=data, headers=named).status_code == 200


def test_L2_a_chunked_body_is_stopped_where_the_quota_ends(embedded: Server) -> None:
    key = embedded.make_repository(embedded.make_namespace(quota_bytes=1_000_000), format="generic")

    def endless() -> object:
        while True:
            yield b"x" * 65_536

    answer = embedded.admin.put(f"/generic/{key}/big", content=endless())
    assert answer.status_code == 403 and answer.json()["code"] == "quota_exceeded"
    assert embedded.admin.get(f"/api/v1/namespaces/{key.partition('/')[0]}").json()["used_bytes"] == 0


def test_D7_a_body_that_ends_early_publishes_nothing(embedded: Server, files: str) -> None:
    with connect(embedded) as sock:
        sock.sendall(head("PUT", f"/generic/{files}/short", ADMIN, "Content-Length: 1000", host=embedded.host) + b"x")
    for _ in range(20):
        assert ask(embedded, "GET", f"/generic/{files}/short").status == 404
        time.sleep(0.02)


def test_D5_what_came_before_the_client_left_is_kept_in_a_session(embedded: Server) -> None:
    key = embedded.make_repository(format="oci")
    opened = embedded.admin.post(f"/v2/{key}/app/blobs/uploads/")
    location = opened.headers["location"]
    data = os.urandom(700_000)
    with connect(embedded) as sock:
        lines = (ADMIN, f"Content-Length: {len(data) + 1}", "Content-Type: application/octet-stream")
        sock.sendall(head("PATCH", location, *lines, host=embedded.host) + data)
        time.sleep(0.3)
    for _ in range(100):
        status = embedded.admin.get(location)
        if status.headers["range"] != "0-0":
            break
        time.sleep(0.05)
    assert status.headers["range"] == f"0-{len(data) - 1}"
    digest = "sha256:" + hashlib.sha256(data + b"!").hexdigest()
    assert embedded.admin.put(location, params={"digest": digest}, content=b"!").status_code == 201
    assert embedded.admin.get(f"/v2/{key}/app/blobs/{digest}").content == data + b"!"


def test_a_small_body_that_nobody_wants_leaves_the_connection_usable(embedded: Server) -> None:
    key = embedded.make_repository(format="oci")
    with connect(embedded) as sock:
        for _ in range(3):
            lines = (ADMIN, "Content-Type: application/json", "Content-Length: 2")
            sock.sendall(head("POST", f"/v2/{key}/app/blobs/uploads/", *lines, host=embedded.host) + b"{}")
            assert read(sock).status == 202


def test_a_large_api_body_is_413(embedded: Server) -> None:
    answer = embedded.admin.post("/api/v1/namespaces", content=b'{"name": "' + b"x" * 9_000_000)
    assert answer.status_code == 413 and answer.json()["code"] == "too_large"


def test_U2_clients_that_trickle_keep_nobody_waiting(embedded: Server, files: str) -> None:
    slow = [connect(embedded) for _ in range(200)]
    try:
        for number, sock in enumerate(slow):
            lines = (ADMIN, "Content-Length: 100000")
            sock.sendall(head("PUT", f"/generic/{files}/slow{number}", *lines, host=embedded.host) + b"x")
        for _ in range(5):
            for sock in slow:
                sock.sendall(b"y")
            assert ask(embedded, "GET", f"/generic/{files}/plain.txt").status == 200
            assert ask(embedded, "PUT", f"/generic/{files}/quick", ADMIN, body=os.urandom(10)).status in (200, 201)
        assert metric(embedded, r'repoman_queue_depth\{pool="\w+"\}') == 0  # they hold no thread
    finally:
        for sock in slow:
            sock.close()


# --- answers ---------------------------------------------------------------------------------------------------------


def blob_file(server: Server, data: bytes) -> Path:
    name = hashlib.sha256(data).hexdigest()
    return next((server.data / "blobs").glob(f"sha256/{name[:2]}/{name}.*"))


def test_C5_bytes_that_are_gone_are_404_for_get_and_head(embedded: Server, files: str) -> None:
    data = os.urandom(200_000)
    embedded.admin.put(f"/generic/{files}/gone", content=data)
    for _ in range(6):
        assert ask(embedded, "HEAD", f"/generic/{files}/gone").status == 200
    blob_file(embedded, data).unlink()
    for _ in range(4):
        for method in ("HEAD", "GET"):
            assert ask(embedded, method, f"/generic/{files}/gone").status == 404


@pytest.mark.parametrize("size", [300, 200_000, 5_000_000])
def test_R5_altered_bytes_are_never_served_as_good(embedded: Server, files: str, size: int) -> None:
    data = os.urandom(size)
    embedded.admin.put(f"/generic/{files}/altered{size}", content=data)
    path = blob_file(embedded, data)
    path.chmod(0o644)
    with open(path, "r+b") as file:
        file.seek(size // 2)
        file.write(bytes([data[size // 2] ^ 1]))
    os.utime(path, ns=(1, 1))
    for _ in range(4):
        refused(ask(embedded, "GET", f"/generic/{files}/altered{size}"), 503)


def test_R5_a_file_that_shrinks_while_it_is_sent_cuts_the_connection(embedded: Server, files: str) -> None:
    data = os.urandom(64 * 2**20)
    embedded.admin.put(f"/generic/{files}/shrinks", content=data)
    with connect(embedded) as sock:
        sock.sendall(head("GET", f"/generic/{files}/shrinks", host=embedded.host))
        time.sleep(0.3)  # the answer has begun, and the socket's buffers are full
        os.truncate(blob_file(embedded, data), 40 * 2**20)
        answer = read(sock)
    assert answer.status == 200 and answer.ended and len(answer.body) < len(data)
    assert data.startswith(answer.body)


def test_large_files_come_whole_and_in_ranges(server: Server) -> None:
    key = server.make_repository(format="generic", anonymous_read=True)
    data = os.urandom(9_000_001)
    assert server.admin.put(f"/generic/{key}/large", content=data).status_code == 201
    client = server.client()
    assert client.get(f"/generic/{key}/large").content == data
    for text, part in (
        ("0-0", data[:1]),
        ("1048570-1048590", data[1048570:1048591]),
        ("8999999-", data[8999999:]),
        ("-2000000", data[-2000000:]),
    ):
        answer = client.get(f"/generic/{key}/large", headers={"Range": f"bytes={text}"})
        assert answer.status_code == 206 and answer.content == part
    several = client.get(f"/generic/{key}/large", headers={"Range": "bytes=0-1,5-6"})
    assert several.status_code == 200 and len(several.content) == len(data)


# --- operation -------------------------------------------------------------------------------------------------------


def test_readiness_names_each_dependency(embedded: Server) -> None:
    answer = embedded.client().get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"ready": True, "checks": {"database": "ok", "blobs": "ok", "worker": "ok"}}


def test_readiness_names_what_fails(embedded: Server) -> None:
    marker = embedded.data / "blobs" / "repoman-store.json"
    kept = marker.read_bytes()
    marker.unlink()
    try:
        for _ in range(100):
            answer = embedded.client().get("/readyz")
            if answer.status_code == 503:
                break
            time.sleep(0.1)
        assert answer.status_code == 503 and answer.headers["retry-after"]
        checks = answer.json()["checks"]
        assert checks["blobs"] != "ok" and checks["database"] == "ok"
        assert str(embedded.data) not in answer.text
    finally:
        marker.write_bytes(kept)


def test_K5_metrics_name_no_user_chosen_thing(embedded: Server, files: str) -> None:
    ask(embedded, "GET", f"/generic/{files}/plain.txt")
    time.sleep(1.5)
    text = embedded.client().get("/metrics").text
    assert 'repoman_requests_total{route="generic:file",status="2xx"}' in text
    assert "repoman_jobs{" in text and "repoman_quota_used_bytes" in text and "repoman_storage_free_bytes" in text
    assert files not in text and "plain.txt" not in text and files.partition("/")[0] not in text


def test_K1_K2_the_log_has_one_line_per_request_and_no_secret(embedded: Server, files: str) -> None:
    name = f"logged{os.getpid()}"
    secret = "a-planted-password-4711"
    ask(embedded, "GET", f"/generic/{files}/{name}?token={secret}", "X-Request-Id: planted-id-0001", ADMIN)
    ask(embedded, "GET", f"/generic/{files}/{name}", f"Authorization: {basic('nobody', secret)}")
    for _ in range(50):
        text = (embedded.data / "server.log").read_text(errors="replace")
        found = [json.loads(line) for line in text.splitlines() if name in line and line.startswith("{")]
        if len([line for line in found if line["event"] == "request"]) >= 2:
            break
        time.sleep(0.1)
    requests = [line for line in found if line["event"] == "request"]
    requests.sort(key=lambda line: -line["status"])  # each process writes its own lines, at most 0.2 s late
    assert [line["status"] for line in requests] == [404, 401]
    assert requests[0]["request_id"] == "planted-id-0001" and requests[0]["actor"] == "admin"
    assert {"at", "method", "route", "path", "bytes_in", "bytes_out", "duration_ms", "address"} <= set(requests[0])
    assert secret not in text and ADMIN_PASSWORD not in text and basic("nobody", secret).split()[1] not in text


def test_R7_a_refusal_of_a_known_caller_is_in_the_audit_log(embedded: Server) -> None:
    key = embedded.make_repository(format="generic")
    name, password = embedded.make_user(key, "reader")
    assert embedded.client(name, password).put(f"/generic/{key}/x", content=b"1").status_code == 403
    found = embedded.admin.get("/api/v1/audit", params={"actor": name, "kind": "access:refused"}).json()["items"]
    assert len(found) == 1 and found[0]["allowed"] is False and found[0]["repository"] == key
