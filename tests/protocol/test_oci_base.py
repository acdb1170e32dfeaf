"""Names, the version check, the challenge and who gets which status (distribution-spec "Determining Support")."""

from __future__ import annotations

import http.client
import re

import httpx
import pytest

from formats.oci import samples
from formats.oci.samples import image as sample_image
from repoman.core.digest import Digest
from tests.protocol.oci_client import Image, new_image, refused
from tests.running import Server

NOTHING = "sha256:" + "0" * 64


def challenge(answer: httpx.Response) -> dict[str, str]:
    assert answer.status_code == 401
    lines = answer.headers.get_list("www-authenticate")
    assert len(lines) == 1 and lines[0].startswith("Bearer ")
    return dict(re.findall(r'(\w+)="([^"]*)"', lines[0]))


def test_V1_V2_a_known_caller_gets_200(server: Server) -> None:
    for path in ("/v2/", "/v2"):
        answer = server.admin.get(path)
        assert (answer.status_code, answer.content) == (200, b"{}")
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["docker-distribution-api-version"] == "registry/2.0"


def test_V3_A1_A2_A3_the_anonymous_ping_is_challenged(server: Server) -> None:
    server.make_repository(format="oci", anonymous_read=True)
    answer = server.client().get("/v2/")
    refused(answer, 401, "UNAUTHORIZED")
    found = challenge(answer)
    assert found["realm"] == f"{server.url}/token" and found["service"] and "error" not in found


def test_V5_head_is_answered_like_get(server: Server) -> None:
    for client in (server.admin, server.client()):
        got, headed = client.get("/v2/"), client.head("/v2/")
        assert headed.status_code == got.status_code and headed.content == b""
        assert headed.headers["content-length"] == got.headers["content-length"]


def test_A40_A41_basic_works_with_a_token_as_password(server: Server) -> None:
    secret = server.token(server.admin)["token"]
    assert server.client("anything", secret).get("/v2/").status_code == 200
    assert server.client().get("/v2/", headers={"Authorization": f"Bearer {secret}"}).status_code == 200
    assert server.client().get("/v2/", headers={"Authorization": f"bearer {secret}"}).status_code == 200


def test_bad_credentials_are_never_anonymous(server: Server) -> None:
    key = server.make_repository(format="oci", anonymous_read=True)
    refused(server.client("admin", "wrong").get("/v2/"), 401, "UNAUTHORIZED")
    refused(server.client("admin", "wrong").get(f"/v2/{key}/app/tags/list"), 401, "UNAUTHORIZED")


@pytest.mark.parametrize(
    "name", ["a--b", "a__b", "a/b/c/d", "blobs/uploads", "tags/list/x", "manifests", "v2", "a.b_c-d"]
)
def test_N1_N4_every_legal_name_can_be_pushed_and_pulled(server: Server, name: str) -> None:
    image = new_image(server, name=name)
    sample = sample_image()
    assert image.push(sample, "latest").status_code == 201
    assert image.ask("GET", "/manifests/latest").content == sample.manifest
    assert image.ask("GET", "/tags/list").json() == {"name": f"{image.key}/{name}", "tags": ["latest"]}
    for digest, data in sample.blobs.items():
        assert image.ask("GET", f"/blobs/{digest}").content == data


@pytest.mark.parametrize("name", ["a___b", "a..b", "A", "-a", "a-", "_a", "a" * 250])
def test_N1_N2_illegal_names_are_refused(server: Server, name: str) -> None:
    image = new_image(server, name=name)
    for method, path in [("GET", "/tags/list"), ("POST", "/blobs/uploads/"), ("GET", f"/blobs/{NOTHING}")]:
        refused(image.ask(method, path), 400, "NAME_INVALID")


def test_an_image_needs_a_name_below_the_repository(server: Server) -> None:
    key = server.make_repository(format="oci")
    refused(server.admin.get(f"/v2/{key}/manifests/latest"), 400, "NAME_INVALID")


@pytest.mark.parametrize(
    "path",
    ["app/../x/tags/list", "app%2f..%2fx/tags/list", "app/%2e%2e/tags/list", "app%00/tags/list", "app//tags/list"],
)
def test_A1_A2_A3_paths_that_name_two_things_are_refused(server: Server, path: str) -> None:
    key = server.make_repository(format="oci", anonymous_read=True)
    connection = http.client.HTTPConnection(server.host, timeout=20)
    connection.putrequest("GET", f"/v2/{key}/{path}")
    connection.endheaders()
    assert connection.getresponse().status in (400, 404)
    connection.close()


def test_N8_the_mirror_mount_serves_the_same(server: Server) -> None:
    image = new_image(server)
    sample = sample_image()
    image.push(sample, "latest")
    base = f"/{image.key}/v2/app"
    answer = image.client.get(f"{base}/manifests/latest", params={"ns": "docker.io"})
    assert answer.content == sample.manifest
    assert answer.headers["docker-content-digest"] == sample.digest
    assert image.client.get(f"{base}/tags/list").json()["name"] == "app"
    assert image.client.post(f"{base}/blobs/uploads/").headers["location"].startswith(f"{base}/blobs/uploads/")


def test_unknown_addresses_and_methods_have_the_envelope(server: Server) -> None:
    image = new_image(server)
    refused(image.client.get("/v2/_oci/ext/discover"), 404, "NAME_UNKNOWN")
    answer = image.ask("POST", "/tags/list")
    assert answer.status_code == 405 and answer.json()["errors"][0]["code"] == "UNSUPPORTED"


# --- 3.6: which status to whom ---------------------------------------------------------------------------------------


def test_anonymous_is_challenged_for_private_and_missing_alike(server: Server) -> None:
    private = server.make_repository(format="oci")
    missing = private.partition("/")[0] + "/never-made"
    for key in (private, missing):
        for method, path, actions in [
            ("GET", "manifests/x", "pull"),
            ("HEAD", f"blobs/{NOTHING}", "pull"),
            ("POST", "blobs/uploads/", "pull,push"),
            ("PUT", "manifests/x", "pull,push"),
            ("DELETE", "manifests/x", "pull,delete"),
        ]:
            answer = server.client().request(method, f"/v2/{key}/app/{path}")
            assert challenge(answer)["scope"] == f"repository:{key}/app:{actions}", (method, path)


def test_anonymous_reads_what_is_public(server: Server) -> None:
    image = new_image(server, anonymous_read=True)
    sample = sample_image()
    image.push(sample, "latest")
    anonymous = image.as_other(server.client())
    assert anonymous.ask("GET", "/manifests/latest").content == sample.manifest
    refused(anonymous.ask("GET", "/manifests/nope"), 404, "MANIFEST_UNKNOWN")
    assert challenge(anonymous.ask("POST", "/blobs/uploads/"))["scope"].endswith(":pull,push")


def test_a_stranger_sees_hidden_as_missing(server: Server) -> None:
    image = new_image(server)
    sample = sample_image()
    image.push(sample, "latest")
    stranger = server.client(*server.make_user())
    for key in (image.key, image.key.partition("/")[0] + "/never-made"):
        other = Image(stranger, key)
        refused(other.ask("GET", "/manifests/latest"), 404, "NAME_UNKNOWN")
        refused(other.ask("GET", "/tags/list"), 404, "NAME_UNKNOWN")
        refused(other.ask("POST", "/blobs/uploads/"), 404, "NAME_UNKNOWN")
        assert other.ask("HEAD", f"/blobs/{next(iter(sample.blobs))}").status_code == 404


def test_a_reader_may_not_push_and_a_publisher_may_not_delete(server: Server) -> None:
    image = new_image(server)
    sample = sample_image()
    image.push(sample, "latest")
    reader = image.as_other(server.user(image.key, "reader"))
    refused(reader.ask("POST", "/blobs/uploads/"), 403, "DENIED")
    refused(reader.put(sample, "other"), 403, "DENIED")
    publisher = image.as_other(server.user(image.key, "publisher"))
    assert publisher.push(samples.image("other"), "other").status_code == 201
    refused(publisher.ask("DELETE", "/manifests/latest"), 403, "DENIED")


def test_quota_is_denied_with_usage_and_limit(server: Server) -> None:
    namespace = server.make_namespace(quota_bytes=1000)
    key = server.make_repository(namespace, format="oci")
    image = Image(server.user(key, "publisher"), key)
    data = b"x" * 2000
    answer = image.ask("POST", f"/blobs/uploads/?digest={Digest.of(data)}", content=data)
    refused(answer, 403, "DENIED")
    assert "1000" in answer.json()["errors"][0]["message"].replace(",", "")
