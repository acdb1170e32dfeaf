"""The short cut for reads and the long way: the same answer, to the same callers, at the same moment."""

from __future__ import annotations

import hashlib
import itertools
import json

import httpx
import pytest

from formats.helm import samples as helm
from formats.maven import samples as maven
from tests.protocol.edge_client import Answer, ask, basic, metric, metric_grows
from tests.running import ADMIN_PASSWORD, Server

ADMIN = f"Authorization: {basic('admin', ADMIN_PASSWORD)}"
UNLIKE = {"x-request-id", "date"}
LONG_WAY = "?way=long"  # any query takes the long way; none of the reads below knows this one


def same(one: Answer, other: Answer) -> None:
    assert one.status == other.status
    assert [line for line in one.headers if line[0] not in UNLIKE] == [
        line for line in other.headers if line[0] not in UNLIKE
    ]
    assert one.body == other.body


def push_image(client: httpx.Client, key: str, *, size: int = 0, tag: str = "latest") -> tuple[str, str]:
    """A manifest with one config blob; gives the digests of both. `size` pads the blob."""
    config = b"{}" + b" " * size
    blob = "sha256:" + hashlib.sha256(config).hexdigest()
    answer = client.post(f"/v2/{key}/app/blobs/uploads/?digest={blob}", content=config)
    assert answer.status_code == 201, answer.text
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": blob, "size": len(config)},
            "layers": [],
            "annotations": {"tag": tag},
        }
    ).encode()
    answer = client.put(
        f"/v2/{key}/app/manifests/{tag}",
        content=manifest,
        headers={"Content-Type": "application/vnd.oci.image.manifest.v1+json"},
    )
    assert answer.status_code == 201, answer.text
    return answer.headers["docker-content-digest"], blob


CONDITIONS = [
    (),
    ("Range: bytes=1-3",),
    ("Range: bytes=-2",),
    ("Range: bytes=0-0,2-3",),
    ("Range: bytes=9999999-",),
    ("Range: bytes=5-2",),
    ("If-None-Match: *",),
    ('If-None-Match: "other"',),
    ('If-Match: "other"',),
    ("If-Match: *",),
    ('If-Range: "other"', "Range: bytes=0-1"),
    ("If-Modified-Since: Sun, 06 Nov 2099 08:49:37 GMT",),
    ("If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT",),
    ("Accept: application/json", "Accept-Encoding: gzip, zstd"),
]


def deploy(client: httpx.Client, key: str) -> maven.Coordinates:
    at = maven.Coordinates()
    for path, data in ((at.path(), maven.jar()), (at.path("pom"), maven.pom(at))):
        assert client.put(f"/maven/{key}/{path}", content=data).status_code == 201
    return at


def push_chart(client: httpx.Client, key: str) -> None:
    data = helm.chart()
    form = {"chart": ("x", data), "prov": ("y", helm.provenance(data))}
    assert client.post(f"/helm/{key}/api/charts", files=form).status_code == 201


@pytest.mark.parametrize("is_public", [True, False])
def test_R10_every_read_is_the_same_through_both_ways(server: Server, is_public: bool) -> None:
    images = server.make_repository(format="oci", anonymous_read=is_public)
    files = server.make_repository(format="generic", anonymous_read=is_public)
    manifest, blob = push_image(server.admin, images)
    _, large_blob = push_image(server.admin, images, size=200_000, tag="large")
    for name, content, kind in (
        ("a/plain.txt", b"hello world", "text/plain"),
        ("empty.bin", b"", "application/octet-stream"),
        ("large.tar.gz", b"x" * 300_000, "application/gzip"),
        ("\u00fcml.html", b"<script>", "text/html"),
    ):
        answer = server.admin.put(f"/generic/{files}/{name}", content=content, headers={"Content-Type": kind})
        assert answer.status_code == 201, answer.text
    java = server.make_repository(format="maven", anonymous_read=is_public)
    artifact = deploy(server.admin, java)
    charts = server.make_repository(format="helm", anonymous_read=is_public)
    push_chart(server.admin, charts)
    caller = () if is_public else (ADMIN,)
    before = metric(server, "repoman_short_cut_reads")
    for path in (
        f"/v2/{images}/app/manifests/latest",
        f"/v2/{images}/app/manifests/{manifest}",
        f"/v2/{images}/app/blobs/{blob}",
        f"/v2/{images}/app/blobs/{large_blob}",
        f"/{images}/v2/app/manifests/latest",
        f"/generic/{files}/a/plain.txt",
        f"/generic/{files}/empty.bin",
        f"/generic/{files}/large.tar.gz",
        f"/generic/{files}/%C3%BCml.html",
        f"/maven/{java}/{artifact.path()}",
        f"/maven/{java}/{artifact.path('pom')}",
        f"/helm/{charts}/charts/demo-1.0.0.tgz",
        f"/helm/{charts}/demo-1.0.0.tgz.prov",
    ):
        for method in ("GET", "HEAD"):
            for _ in range(6):  # both processes know the path then
                ask(server, method, path, *caller)
            for lines in CONDITIONS:
                same(ask(server, method, path, *caller, *lines), ask(server, method, path + LONG_WAY, *caller, *lines))
    assert metric_grows(server, "repoman_short_cut_reads", before + 200)


def test_R10_what_is_not_there_is_the_same_through_both_ways(server: Server) -> None:
    files = server.make_repository(format="generic", anonymous_read=True)
    server.admin.put(f"/generic/{files}/gone", content=b"1")
    path = f"/generic/{files}/gone"
    for _ in range(6):
        assert ask(server, "GET", path).status == 200
    assert server.admin.delete(path).status_code == 204
    for _ in range(6):
        found = ask(server, "GET", path)
        assert found.status == 404
        same(found, ask(server, "GET", path + LONG_WAY))


def test_Q5_a_write_is_seen_at_once_by_every_process(server: Server) -> None:
    files = server.make_repository(format="generic", anonymous_read=True)
    path = f"/generic/{files}/counter"
    for number in range(40):
        content = f"value {number}".encode()
        assert server.admin.put(path, content=content).status_code in (200, 201)
        for _ in range(4):  # connections of their own, so both processes answer
            assert ask(server, "GET", path).body == content


def test_W4_a_moved_tag_is_seen_at_once_by_every_process(server: Server) -> None:
    images = server.make_repository(format="oci")
    first, _ = push_image(server.admin, images, tag="one")
    second, _ = push_image(server.admin, images, tag="two")
    bodies = {digest: server.admin.get(f"/v2/{images}/app/manifests/{digest}").content for digest in (first, second)}
    for number in range(20):
        digest = (first, second)[number % 2]
        answer = server.admin.put(
            f"/v2/{images}/app/manifests/moving",
            content=bodies[digest],
            headers={"Content-Type": "application/vnd.oci.image.manifest.v1+json"},
        )
        assert answer.status_code == 201
        for _ in range(4):
            found = ask(server, "GET", f"/v2/{images}/app/manifests/moving", ADMIN)
            assert found.body == bodies[digest] and found.header("docker-content-digest") == digest


_fresh = itertools.count()


def rendered_anew(target: str) -> str:
    """The same document under a query nobody asked for before: it is not in memory."""
    return f"{target}{'&' if '?' in target else '?'}way={next(_fresh)}"


def test_R10_rendered_documents_are_the_same_from_memory(server: Server) -> None:
    images = server.make_repository(format="oci", anonymous_read=True)
    files = server.make_repository(format="generic", anonymous_read=True)
    digest, _ = push_image(server.admin, images)
    push_image(server.admin, images, tag="other")
    for name in ("a", "b/c", "b/d"):
        server.admin.put(f"/generic/{files}/{name}", content=name.encode())
    java = server.make_repository(format="maven", anonymous_read=True)
    artifact = deploy(server.admin, java)
    charts = server.make_repository(format="helm", anonymous_read=True)
    push_chart(server.admin, charts)
    before = metric(server, "repoman_short_cut_reads")
    for target in (
        f"/v2/{images}/app/tags/list",
        f"/v2/{images}/app/tags/list?n=1",
        f"/{images}/v2/app/tags/list",
        f"/v2/{images}/app/referrers/{digest}",
        f"/generic/{files}/",
        f"/generic/{files}/b/",
        f"/maven/{java}/{artifact.metadata}",
        f"/maven/{java}/{artifact.metadata}.sha1",
        f"/maven/{java}/{artifact.path()}.sha512",
        f"/maven/{java}/org/example/",
        f"/helm/{charts}/index.yaml",
        f"/helm/{charts}/api/charts/demo",
        f"/helm/{charts}/api/charts/demo/1.0.0",
    ):
        for method in ("GET", "HEAD"):
            for lines in ((), ("Accept: application/json",), ("Accept: text/html",), ("If-None-Match: *",)):
                for _ in range(6):
                    kept = ask(server, method, target, *lines)
                same(kept, ask(server, method, rendered_anew(target), *lines))
    assert metric_grows(server, "repoman_short_cut_reads", before + 100)


def test_W3_a_rendered_document_shows_every_acknowledged_write_at_once(server: Server) -> None:
    images = server.make_repository(format="oci")
    digest, _ = push_image(server.admin, images, tag="t0")
    body = server.admin.get(f"/v2/{images}/app/manifests/{digest}").content
    for number in range(1, 15):
        answer = server.admin.put(
            f"/v2/{images}/app/manifests/t{number}",
            content=body,
            headers={"Content-Type": "application/vnd.oci.image.manifest.v1+json"},
        )
        assert answer.status_code == 201
        for _ in range(4):
            tags = json.loads(ask(server, "GET", f"/v2/{images}/app/tags/list", ADMIN).body)["tags"]
            assert len(tags) == number + 1
    assert server.admin.delete(f"/v2/{images}/app/manifests/t3").status_code == 202
    for _ in range(4):
        assert b'"t3"' not in ask(server, "GET", f"/v2/{images}/app/tags/list", ADMIN).body
    for _ in range(4):
        assert ask(server, "GET", f"/v2/{images}/app/tags/list").status == 401
    stranger = f"Authorization: {basic(*server.make_user())}"
    for _ in range(4):
        assert ask(server, "GET", f"/v2/{images}/app/tags/list", stranger).status == 404


def test_E6_what_was_allowed_is_refused_at_once_when_it_is_taken_back(server: Server) -> None:
    files = server.make_repository(format="generic")
    path = f"/generic/{files}/secret"
    server.admin.put(path, content=b"secret")
    name, password = server.make_user(files, "reader")
    user = server.client(name, password)
    token = server.token(user, actions=["read"])
    by_password = f"Authorization: {basic(name, password)}"
    by_token = f"Authorization: Bearer {token['token']}"
    for line in (by_password, by_token):
        for _ in range(8):
            assert ask(server, "GET", path, line).body == b"secret"
    assert user.delete(f"/api/v1/tokens/{token['id']}").status_code == 204
    for _ in range(6):
        assert ask(server, "GET", path, by_token).status == 401
        assert ask(server, "GET", path, by_password).status == 200
    assert server.admin.delete(f"/api/v1/repositories/{files}/grants/{name}").status_code == 204
    for _ in range(6):
        assert ask(server, "GET", path, by_password).status == 404
    assert server.admin.put(f"/api/v1/repositories/{files}/grants/{name}", json={"role": "reader"}).is_success
    for _ in range(6):
        assert ask(server, "GET", path, by_password).status == 200  # a refusal is never remembered
    assert server.admin.patch(f"/api/v1/users/{name}", json={"disabled": True}).status_code == 200
    for _ in range(6):
        assert ask(server, "GET", path, by_password).status == 401


def test_E6_a_repository_that_is_no_longer_public_is_closed_at_once(server: Server) -> None:
    files = server.make_repository(format="generic", anonymous_read=True)
    path = f"/generic/{files}/file"
    server.admin.put(path, content=b"1")
    for _ in range(6):
        assert ask(server, "GET", path).status == 200
    assert server.admin.patch(f"/api/v1/repositories/{files}", json={"anonymous_read": False}).status_code == 200
    for _ in range(6):
        assert ask(server, "GET", path).status == 401


def test_E5_a_registry_token_reads_only_what_it_was_issued_for(server: Server) -> None:
    images = server.make_repository(format="oci")
    digest, _ = push_image(server.admin, images)
    other = server.make_repository(format="oci")
    push_image(server.admin, other)
    issued = server.admin.get("/token", params={"service": "x", "scope": f"repository:{images}/app:pull"})
    line = f"Authorization: Bearer {issued.json()['token']}"
    for _ in range(6):
        assert ask(server, "GET", f"/v2/{images}/app/manifests/latest", line).status == 200
        assert ask(server, "GET", f"/v2/{images}/app/manifests/{digest}", line).status == 200
    for _ in range(6):
        refused = ask(server, "GET", f"/v2/{other}/app/manifests/latest", line)
        assert refused.status == 401 and "insufficient_scope" in (refused.header("www-authenticate") or "")


def test_a_repository_made_again_under_its_name_shows_nothing_of_the_old_one(server: Server) -> None:
    namespace = server.make_namespace()
    path = f"/generic/{namespace}/again/file"
    server.make_repository(namespace, name="again", format="generic", anonymous_read=True)
    server.admin.put(path, content=b"old")
    for _ in range(6):
        assert ask(server, "GET", path).body == b"old"
    assert server.admin.delete(f"/api/v1/repositories/{namespace}/again").status_code in (202, 204)
    for _ in range(4):
        assert ask(server, "GET", path).status == 401
