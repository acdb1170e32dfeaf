"""OCI repositories that show another registry, and virtual ones of both kinds. The upstream is a second server of ours,
seen through a proxy of the test that counts, or a server of the test that misbehaves."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from formats.oci import samples
from tests.fault.upstreams import until
from tests.protocol.oci_client import Image, refused
from tests.running import Deployment, Server
from tests.tools.upstream import Answer, Upstream

DIGEST = "docker-content-digest"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Deployment.embedded(tmp_path_factory.mktemp("oci-remote"), REPOMAN_UPSTREAM_ALLOW="127.0.0.0/8") as found:
        yield found


@pytest.fixture
def proxy(embedded: Server) -> Iterator[Upstream]:
    with Upstream(backend=embedded.url) as found:
        yield found


def remote_of(server: Server, url: str, *, namespace: str = "", **settings: Any) -> str:
    remote = {"url": url, "connect_timeout": 2, "read_timeout": 5, "negative_ttl": 0, **settings}
    return server.make_repository(namespace, format="oci", type="remote", remote=remote, anonymous_read=True)


def origin_image(embedded: Server, **fields: Any) -> Image:
    return Image(embedded.admin, embedded.make_repository(format="oci", **{"anonymous_read": True, **fields}))


def test_a_pull_asks_the_upstream_once_and_then_nobody(server: Server, embedded: Server, proxy: Upstream) -> None:
    origin = origin_image(embedded)
    sample = samples.image("once")
    origin.push(sample, "1.0")
    image = Image(server.client(), remote_of(server, proxy.url(f"/v2/{origin.key}")))
    assert image.ask("HEAD", "/manifests/1.0").headers[DIGEST] == sample.digest
    for _ in range(2):
        found = image.ask("GET", "/manifests/1.0")
        assert found.content == sample.manifest and found.headers["content-type"] == sample.media_type
        assert found.headers[DIGEST] == sample.digest
        assert image.ask("GET", f"/manifests/{sample.digest}").content == sample.manifest
        for digest, data in sample.blobs.items():
            assert image.ask("GET", f"/blobs/{digest}").content == data
    assert image.ask("HEAD", "/manifests/1.0").status_code == 200
    for digest in sample.blobs:
        assert proxy.count(f"/v2/{origin.key}/app/blobs/{digest}", "GET") == 1
    assert proxy.count(f"/v2/{origin.key}/app/manifests/1.0", "GET") == 1
    assert proxy.count(f"/v2/{origin.key}/app/manifests/{sample.digest}") == 0  # the tag brought it


def test_a_head_of_a_blob_that_is_not_held_keeps_nothing(server: Server, embedded: Server, proxy: Upstream) -> None:
    origin = origin_image(embedded)
    digest = origin.push_blob(b"only looked at" * 100)
    image = Image(server.client(), remote_of(server, proxy.url(f"/v2/{origin.key}")))
    found = image.ask("HEAD", f"/blobs/{digest}")
    assert found.status_code == 200 and found.headers["content-length"] == "1400"
    assert found.headers[DIGEST] == digest and found.content == b""
    assert proxy.count(f"/v2/{origin.key}/app/blobs/{digest}", "GET") == 0
    refused(image.ask("GET", f"/blobs/sha256:{'0' * 64}"), 404, "BLOB_UNKNOWN")
    refused(image.ask("GET", "/manifests/no-such"), 404, "MANIFEST_UNKNOWN")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_every_platform_of_an_index_is_pulled_by_digest(
    server: Server, embedded: Server, proxy: Upstream, algorithm: str
) -> None:
    origin = origin_image(embedded)
    index = samples.index(algorithm=algorithm)
    assert origin.push(index, "" if algorithm == "sha512" else "all").status_code == 201
    image = Image(server.client(), remote_of(server, proxy.url(f"/v2/{origin.key}")))
    assert image.ask("GET", f"/manifests/{index.digest}").content == index.manifest
    for child in index.children:
        assert image.ask("GET", f"/manifests/{child.digest}").content == child.manifest
        for digest, data in child.blobs.items():
            assert image.ask("GET", f"/blobs/{digest}").content == data


def test_credentials_are_used_through_the_token_flow_and_never_shown(server: Server, embedded: Server) -> None:
    origin = origin_image(embedded, anonymous_read=False)
    sample = samples.image("private")
    origin.push(sample, "1.0")
    username, password = embedded.make_user(origin.key, "reader")
    url = f"{embedded.url}/{origin.key}"
    key = remote_of(server, url, username=username, password=password)
    image = Image(server.client(), key)
    assert image.ask("GET", "/manifests/1.0").content == sample.manifest
    for digest, data in sample.blobs.items():
        assert image.ask("GET", f"/blobs/{digest}").content == data
    assert image.ask("GET", "/tags/list").json()["tags"] == ["1.0"]
    shown = server.admin.get(f"/api/v1/repositories/{key}").text
    assert password not in shown and username in shown
    wrong = Image(server.client(), remote_of(server, url, username=username, password="wrong"))
    refused(wrong.ask("GET", "/manifests/1.0"), 502, "UNAVAILABLE")  # a 401 would be taken for ours
    nobody = Image(server.client(), remote_of(server, url))
    refused(nobody.ask("GET", "/manifests/1.0"), 404, "MANIFEST_UNKNOWN")


def test_tags_are_listed_in_our_pages_and_asked_for_again_after_their_time(
    server: Server, embedded: Server, proxy: Upstream
) -> None:
    origin = origin_image(embedded)
    sample = samples.image("tags")
    origin.push_parts(sample)
    names = [f"v{number}" for number in range(5)]
    for name in names:
        origin.put(sample, name)
    key = remote_of(server, proxy.url(f"/v2/{origin.key}"), metadata_ttl=1)
    image = Image(server.client(), key)
    first = image.ask("GET", "/tags/list?n=2")
    assert first.json() == {"name": f"{key}/app", "tags": names[:2]}
    assert first.links["next"]["url"].startswith(f"/v2/{key}/app/tags/list?")
    assert image.ask("GET", first.links["next"]["url"]).json()["tags"] == names[2:4]
    assert proxy.count(f"/v2/{origin.key}/app/tags/list") == 1
    origin.put(samples.image("tags", layers=1), "new")
    time.sleep(1.1)
    assert image.ask("GET", "/tags/list").json()["tags"] == ["new", *names]


def test_a_tag_that_moved_is_seen_and_asked_for_by_head_first(
    server: Server, embedded: Server, proxy: Upstream
) -> None:
    origin = origin_image(embedded)
    one, two = samples.image("one"), samples.image("two")
    origin.push(one, "latest")
    image = Image(server.client(), remote_of(server, proxy.url(f"/v2/{origin.key}"), metadata_ttl=0))
    path = f"/v2/{origin.key}/app/manifests/latest"
    assert image.ask("GET", "/manifests/latest").content == one.manifest
    proxy.forget()
    assert image.ask("GET", "/manifests/latest").content == one.manifest
    assert (proxy.count(path, "HEAD"), proxy.count(path, "GET")) == (1, 0)
    origin.push(two, "latest")
    assert image.ask("GET", "/manifests/latest").content == two.manifest
    assert image.ask("GET", f"/manifests/{one.digest}").content == one.manifest


def test_what_is_held_is_served_while_the_upstream_is_down(server: Server, embedded: Server) -> None:
    origin = origin_image(embedded)
    sample = samples.image("stale")
    origin.push(sample, "1.0")
    with Upstream(backend=embedded.url) as proxy:
        image = Image(server.client(), remote_of(server, proxy.url(f"/v2/{origin.key}"), metadata_ttl=0))
        image.ask("GET", "/manifests/1.0"), image.ask("GET", "/tags/list")
        for digest in sample.blobs:
            image.ask("GET", f"/blobs/{digest}")
    for method in ("GET", "HEAD"):
        assert image.ask(method, "/manifests/1.0").headers[DIGEST] == sample.digest
        for digest in sample.blobs:
            assert image.ask(method, f"/blobs/{digest}").status_code == 200
    assert image.ask("GET", "/tags/list").json()["tags"] == ["1.0"]
    for path in ("/manifests/2.0", f"/blobs/sha256:{'0' * 64}", f"/manifests/sha256:{'0' * 64}"):
        assert image.ask("GET", path).status_code in (502, 503, 504), path


def test_referrers_are_shown_with_their_filter_and_pages(server: Server, embedded: Server, proxy: Upstream) -> None:
    origin = origin_image(embedded)
    sample = samples.image("subject")
    origin.push(sample, "1.0")
    signatures = [samples.artifact(text, subject=sample.descriptor()) for text in (b"a", b"b")]
    sbom = samples.artifact(b"s", subject=sample.descriptor(), artifact_type="application/sbom")
    for item in (*signatures, sbom):
        origin.push(item)
    image = Image(server.client(), remote_of(server, proxy.url(f"/v2/{origin.key}")))
    path = f"/referrers/{sample.digest}"
    ours, theirs = image.ask("GET", path).json(), origin.ask("GET", path).json()
    assert ours["manifests"] == theirs["manifests"] and len(ours["manifests"]) == 3
    only = image.ask("GET", f"{path}?artifactType=application/sbom")
    assert [item["digest"] for item in only.json()["manifests"]] == [sbom.digest]
    assert only.headers["oci-filters-applied"] == "artifactType"
    page = image.ask("GET", f"{path}?n=2")
    rest = image.ask("GET", page.links["next"]["url"])
    assert page.json()["manifests"] + rest.json()["manifests"] == ours["manifests"]
    assert image.ask("GET", f"/manifests/{sbom.digest}").content == sbom.manifest
    assert proxy.count(f"/v2/{origin.key}/app{path}") == 1
    assert image.ask("GET", f"/referrers/sha256:{'0' * 64}").json()["manifests"] == []


def test_referrers_of_an_upstream_without_the_api_come_from_its_tag(server: Server, upstream: Upstream) -> None:
    """distribution-spec "Referrers Tag Schema": a client that gets a list from us looks for no tag itself."""
    sample = samples.image("subject")
    sbom = samples.artifact(b"s", subject=sample.descriptor(), artifact_type="application/sbom")
    listed = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json"}
    entry = sbom.descriptor(artifactType="application/sbom", annotations={"a": "b"})
    tag = sample.digest.replace(":", "-")
    body = json.dumps(listed | {"manifests": [entry]}).encode()
    upstream.add(f"/v2/app/manifests/{tag}", Answer(body, media_type=listed["mediaType"]))
    image = Image(server.client(), remote_of(server, upstream.url()))
    assert image.ask("GET", f"/referrers/{sample.digest}").json()["manifests"] == [entry]
    upstream.add(f"/v2/app/referrers/{sample.digest}", Answer(status=503))
    assert image.ask("GET", f"/referrers/{sample.digest}").status_code in (502, 503)  # not "unsigned"


def test_a_tag_whose_bytes_are_not_what_the_upstream_says_is_not_kept(server: Server, upstream: Upstream) -> None:
    """distribution-spec "Pulling manifests": Docker-Content-Digest is the only digest of what is asked for by tag."""
    sample = samples.image("told")
    good = Answer(sample.manifest, media_type=sample.media_type, headers=(("Docker-Content-Digest", sample.digest),))
    wrong = replace(good, body=sample.manifest.replace(b'"size":', b'"size": ', 1))
    assert wrong.body != good.body and json.loads(wrong.body) == json.loads(sample.manifest)
    upstream.add("/v2/app/manifests/1.0", wrong, good)
    image = Image(server.client(), remote_of(server, upstream.url()))
    answer = image.ask("GET", "/manifests/1.0")
    assert answer.status_code == 502 and sample.digest in answer.text, answer.text
    # The failure is told to everybody for a moment.
    assert until(lambda: image.ask("GET", "/manifests/1.0").status_code != 502, 20)
    found = image.ask("GET", "/manifests/1.0")
    assert found.content == sample.manifest and found.headers[DIGEST] == sample.digest


def test_a_large_blob_is_sent_on_while_it_arrives_and_read_in_ranges_afterwards(
    server: Server, upstream: Upstream
) -> None:
    data = hashlib.shake_256(b"large").digest(8_000_000)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    upstream.add(f"/v2/app/blobs/{digest}", Answer(data, chunk_size=1_000_000, chunk_delay=0.2))
    key = remote_of(server, upstream.url())
    with server.client().stream("GET", f"/v2/{key}/app/blobs/{digest}") as answer:
        assert answer.status_code == 200 and answer.headers["content-length"] == str(len(data))
        first = None
        started, hasher = time.monotonic(), hashlib.sha256()
        for piece in answer.iter_raw():
            first = first or time.monotonic() - started
            hasher.update(piece)
        assert first is not None and time.monotonic() - started > first + 0.5
    assert hasher.hexdigest() == digest[7:]
    part = server.client().get(f"/v2/{key}/app/blobs/{digest}", headers={"Range": "bytes=7000000-7000009"})
    assert part.status_code == 206 and part.content == data[7000000:7000010]
    assert upstream.count(f"/v2/app/blobs/{digest}") == 1


# --- virtual ---------------------------------------------------------------------------------------------------------


def virtual_of(server: Server, url: str, **fields: Any) -> tuple[str, str, str]:
    """(virtual, local, remote): the local member takes what is pushed."""
    namespace = server.make_namespace()
    local = server.make_repository(namespace, format="oci", anonymous_read=True)
    remote = remote_of(server, url, namespace=namespace)
    key = server.make_repository(
        namespace, format="oci", type="virtual", members=[local, remote], deploy_target=local, anonymous_read=True,
        **fields,
    )  # fmt: skip
    return key, local, remote


def test_what_is_pushed_to_a_virtual_address_is_kept_by_the_target_and_hides_the_remote(
    server: Server, embedded: Server, proxy: Upstream
) -> None:
    origin = origin_image(embedded)
    theirs, ours = samples.image("theirs"), samples.image("ours")
    origin.push(theirs, "1.0"), origin.push(theirs, "2.0")
    key, local, _ = virtual_of(server, proxy.url(f"/v2/{origin.key}"))
    image = Image(server.client(), key)
    assert image.ask("GET", "/manifests/1.0").content == theirs.manifest
    pushed = Image(server.admin, key).push(ours, "1.0")
    assert pushed.status_code == 201 and pushed.headers["location"].startswith(f"/v2/{key}/app/manifests/")
    proxy.forget()
    assert image.ask("GET", "/manifests/1.0").content == ours.manifest
    assert image.ask("GET", "/tags/list").json()["tags"] == ["1.0"]
    for path in ("/manifests/2.0", f"/manifests/{theirs.digest}", f"/blobs/{next(iter(theirs.blobs))}"):
        for method in ("GET", "HEAD"):
            assert Image(server.client(), key).ask(method, path).status_code == 404, path
    assert Image(server.client(), local).ask("GET", "/manifests/1.0").content == ours.manifest
    other = Image(server.client(), key, "not-ours")
    assert other.ask("GET", "/tags/list").status_code == 404
    assert all("not-ours" in seen.path for seen in proxy.requests)


def test_it_is_here_means_in_the_target_for_those_who_push(server: Server, embedded: Server, proxy: Upstream) -> None:
    """A layer that only a remote member has is sent by whoever pushes; whoever pulls finds it."""
    origin = origin_image(embedded)
    sample = samples.image("shared layers")
    origin.push(sample, "1.0")
    key, local, _ = virtual_of(server, proxy.url(f"/v2/{origin.key}"))
    publisher = Image(server.user(key.partition("/")[0], "publisher"), key)
    digest = next(iter(sample.blobs))
    assert Image(server.client(), key).ask("HEAD", f"/blobs/{digest}").status_code == 200
    assert publisher.ask("HEAD", f"/blobs/{digest}").status_code == 404
    assert publisher.ask("GET", f"/blobs/{digest}").content == sample.blobs[digest]
    for each, data in sample.blobs.items():  # as docker does: look first, then send
        if publisher.ask("HEAD", f"/blobs/{each}").status_code != 200:
            publisher.push_blob(data)
        assert publisher.ask("HEAD", f"/blobs/{each}").status_code == 200
    assert publisher.put(sample, "mine").status_code == 201
    assert Image(server.client(), local).ask("GET", "/manifests/mine").content == sample.manifest


def test_w4_mounts_are_resolved_in_members_that_the_caller_may_read(server: Server, upstream: Upstream) -> None:
    key, local, _ = virtual_of(server, upstream.url())
    private = server.make_repository(key.partition("/")[0], format="oci")
    members = [local, private]
    server.admin.patch(f"/api/v1/repositories/{key}", json={"members": members})
    digest = Image(server.admin, private, "base").push_blob(b"private layer")
    query = f"/blobs/uploads/?mount={digest}&from={key}/base"
    insider = Image(server.user(key.partition("/")[0], "publisher"), key, "derived")
    outsider_name, outsider_password = server.make_user(key, "publisher")
    server.admin.put(f"/api/v1/repositories/{local}/grants/{outsider_name}", json={"role": "publisher"})
    outsider = Image(server.client(outsider_name, outsider_password), key, "other")
    assert outsider.ask("POST", query).status_code == 202
    mounted = insider.ask("POST", query)
    assert mounted.status_code == 201
    assert mounted.headers["location"] == f"/v2/{key}/derived/blobs/{digest}"
    assert Image(server.client(), local, "derived").ask("GET", f"/blobs/{digest}").content == b"private layer"


def test_a_registry_token_for_the_virtual_name_reads_and_pushes_through_it(server: Server, upstream: Upstream) -> None:
    key, local, _ = virtual_of(
        server,
        upstream.url(),
    )
    username, password = server.make_user(key.partition("/")[0], "publisher")

    def with_token(actions: str) -> Image:
        scope = f"repository:{key}/app:{actions}"
        answer = httpx.get(f"{server.url}/token", params={"scope": scope}, auth=(username, password))
        client = server.client()
        client.headers["Authorization"] = f"Bearer {answer.json()['token']}"
        return Image(client, key)

    sample = samples.image("by token")
    assert with_token("pull,push").push(sample, "1").status_code == 201
    puller = with_token("pull")
    assert puller.ask("GET", "/manifests/1").content == sample.manifest
    refused(puller.ask("POST", "/blobs/uploads/"), 401, "UNAUTHORIZED")
    elsewhere = Image(puller.client, local)
    assert elsewhere.ask("GET", "/manifests/1").status_code in (
        200,
        401,
    )  # the member is public; its name was not named
