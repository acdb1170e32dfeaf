"""Pushing and pulling manifests (distribution-spec "Pushing Manifests", "Pulling manifests")."""

from __future__ import annotations

import json
from typing import Any

import pytest

from formats.oci import samples
from formats.oci.manifest import MAX_BYTES, OCI_IMAGE, OCI_INDEX
from repoman.core.digest import Digest
from tests.protocol.oci_client import Image, new_image, refused
from tests.running import Server


@pytest.fixture
def image(server: Server) -> Image:
    return new_image(server)


def put_json(image: Image, body: Any, content_type: str = OCI_IMAGE, reference: str = "x") -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return image.ask("PUT", f"/manifests/{reference}", content=data, headers={"Content-Type": content_type})


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("kind", ["image", "docker", "index", "artifact"])
def test_M1_M2_P1_P2_bytes_type_and_digest_survive(image: Image, kind: str, algorithm: str) -> None:
    sample = {
        "image": lambda: samples.image(algorithm=algorithm),
        "docker": lambda: samples.image(docker=True, algorithm=algorithm),
        "index": lambda: samples.index(algorithm=algorithm),
        "artifact": lambda: samples.artifact(algorithm=algorithm),
    }[kind]()
    pushed = image.push(sample)
    assert pushed.status_code == 201
    assert pushed.headers["location"] == f"{image.base}/manifests/{sample.digest}"
    assert pushed.headers["docker-content-digest"] == sample.digest
    assert image.push(sample, query="?tag=latest").status_code == 201
    for reference in (sample.digest, "latest"):
        got, headed = image.ask("GET", f"/manifests/{reference}"), image.ask("HEAD", f"/manifests/{reference}")
        assert got.content == sample.manifest and headed.content == b""
        for answer in (got, headed):
            assert answer.status_code == 200
            assert answer.headers["content-type"] == sample.media_type
            assert answer.headers["content-length"] == str(len(sample.manifest))
            assert answer.headers["docker-content-digest"] == sample.digest
            assert answer.headers["x-content-type-options"] == "nosniff"
    assert "no-cache" in image.ask("GET", "/manifests/latest").headers["cache-control"]


def test_M3_the_digest_must_be_the_bodys(image: Image) -> None:
    sample = samples.image()
    image.push_parts(sample)
    for reference in ("sha256:baddigeststring", "sha256:" + "0" * 64, str(Digest.of(b"x", "sha512"))):
        refused(image.put(sample, reference), 400, "DIGEST_INVALID")


def test_M4_M5_types(image: Image) -> None:
    sample = samples.image(with_media_type=False)
    image.push_parts(sample)
    assert put_json(image, sample.manifest, f"{OCI_IMAGE}; charset=utf-8", "a").status_code == 201
    assert image.ask("HEAD", "/manifests/a").headers["content-type"] == OCI_IMAGE
    assert put_json(image, samples.image().manifest, "application/json", "b").status_code == 201
    refused(put_json(image, samples.image().manifest, OCI_INDEX), 400, "MANIFEST_INVALID")


@pytest.mark.parametrize(
    "body",
    [
        {**samples.image().body, "manifests": []},
        {**samples.image().body, "schemaVersion": 1},
        {**samples.image().body, "config": None},
        {**samples.image().body, "layers": [{"digest": "sha256:" + "0" * 64, "size": -1, "mediaType": "a/b"}]},
        {**samples.image().body, "layers": [{"digest": "sha256:" + "0" * 64, "size": 2**63, "mediaType": "a/b"}]},
        {**samples.image().body, "subject": {"digest": "nonsense"}},
        b"not json",
        b"[" * 100_000,
        b'{"schemaVersion":2,"schemaVersion":2}',
        b'{"a":"\\u0000"}',
        b'{"a":' + b"9" * 100_000 + b"}",
    ],
    ids=lambda body: str(body)[:40],
)
def test_M8_B7_B12_B14_bad_manifests(image: Image, body: Any) -> None:
    image.push_parts(samples.image())
    refused(put_json(image, body), 400, "MANIFEST_INVALID")


def test_M6_schema_1_is_refused(image: Image) -> None:
    body = {"schemaVersion": 1, "name": "x", "tag": "y", "fsLayers": [], "history": [], "signatures": []}
    for media_type in ("manifest.v1+json", "manifest.v1+prettyjws"):
        answer = put_json(image, body, f"application/vnd.docker.distribution.{media_type}")
        refused(answer, 400, "MANIFEST_INVALID")


def test_B14_a_size_that_is_not_the_stored_one(image: Image) -> None:
    sample = samples.image()
    image.push_parts(sample)
    body = sample.body
    body["layers"][0]["size"] += 1
    refused(put_json(image, body), 400, "MANIFEST_INVALID")


def test_M9_missing_parts_are_named(image: Image) -> None:
    sample = samples.image(layers=2)
    answer = image.put(sample, "x")
    refused(answer, 400, "MANIFEST_BLOB_UNKNOWN")
    assert {item["detail"]["digest"] for item in answer.json()["errors"]} == set(sample.blobs)
    refused(image.put(samples.index(), "x"), 400, "MANIFEST_BLOB_UNKNOWN")


def test_M9_foreign_layers_may_be_absent(image: Image) -> None:
    sample = samples.image()
    body = sample.body
    body["layers"].append(
        {
            "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "digest": "sha256:" + "1" * 64,
            "size": 5,
            "urls": ["https://elsewhere.example/layer"],
        }
    )
    image.push_parts(sample)
    assert put_json(image, body).status_code == 201


def test_M10_sparse_manifests_are_an_option(server: Server) -> None:
    image = new_image(server, options={"allow_sparse_manifests": True})
    for sample in (samples.image(), samples.index()):
        assert image.put(sample).status_code == 201
        assert image.ask("GET", f"/manifests/{sample.digest}").content == sample.manifest


def test_M12_an_index_of_blobs(image: Image) -> None:
    sample = samples.image()
    image.push_parts(sample)
    body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [sample.body["config"], *sample.body["layers"]]}
    assert put_json(image, body, OCI_INDEX, "cache").status_code == 201


def test_M13_subject_is_acknowledged_even_if_absent(image: Image) -> None:
    subject = samples.image("absent").descriptor()
    for sample in (samples.artifact(subject=subject), samples.index(subject=subject)):
        assert image.push(sample).headers["oci-subject"] == subject["digest"]


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_M14_G3_many_tags_with_one_push(image: Image, algorithm: str) -> None:
    sample = samples.image(algorithm=algorithm)
    tags = [f"t{number}" for number in range(12)]
    answer = image.push(sample, query="?" + "&".join(f"tag={tag}" for tag in tags))
    assert answer.status_code == 201
    assert {tag.strip() for line in answer.headers.get_list("oci-tag") for tag in line.split(",")} == set(tags)
    for tag in tags:
        assert image.ask("HEAD", f"/manifests/{tag}").headers["docker-content-digest"] == sample.digest


def test_M15_K8_large_manifests(image: Image) -> None:
    sample = samples.image(annotations={f"a{number}": "A" * 10_000 for number in range(390)})
    assert image.push(sample, "large").status_code == 201
    assert image.ask("GET", "/manifests/large").content == sample.manifest
    refused(put_json(image, b" " * (MAX_BYTES + 1)), 413, "SIZE_INVALID")


def test_M16_W2_pushing_again_is_success_and_tags_move(image: Image) -> None:
    one, two = samples.image("one"), samples.image("two")
    for sample in (one, one, two, one):
        assert image.push(sample, "latest").status_code == 201
        assert image.ask("GET", "/manifests/latest").content == sample.manifest


def test_M16_F6_immutable_tags_do_not_move(server: Server) -> None:
    image = new_image(server, options={"immutable_tags": ["v*"]})
    one, two = samples.image("one"), samples.image("two")
    for _ in range(2):
        assert image.push(one, "v1").status_code == 201
    for answer in (image.push(two, "v1"), image.push(two, query="?tag=free&tag=v1")):
        assert 400 <= answer.status_code < 500 and answer.json()["errors"][0]["code"] == "DENIED"
    assert image.ask("GET", "/manifests/v1").content == one.manifest
    assert image.ask("GET", "/manifests/free").status_code == 404
    assert image.ask("DELETE", "/manifests/v1").status_code == 403
    assert image.push(two, "latest").status_code == 201


def test_M18_M19_M20_odd_but_legal(image: Image) -> None:
    sample = samples.artifact()
    image.push_parts(sample)
    assert put_json(image, {**sample.body, "layers": []}).status_code == 201
    assert put_json(image, {**sample.body, "layers": None}).status_code == 201
    assert put_json(image, {**sample.body, "org.example.extra": {"x": [1]}}).status_code == 201
    assert put_json(image, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}, OCI_INDEX).status_code == 201


@pytest.mark.parametrize("tag", [".INVALID_MANIFEST_NAME", "-a", "a" * 129, "a+b"])
def test_N3_P5_bad_tags(image: Image, tag: str) -> None:
    sample = samples.image()
    image.push(sample)
    refused(image.put(sample, tag), 400, "MANIFEST_INVALID")
    refused(image.ask("GET", f"/manifests/{tag}"), 404, "MANIFEST_UNKNOWN")


def test_P3_accept_is_not_judged(image: Image) -> None:
    sample = samples.image()
    image.push(sample, "x")
    for accept in ("application/vnd.docker.distribution.manifest.v2+json", "*/*;q=0.1", "text/html", ";;", ""):
        assert image.ask("GET", "/manifests/x", headers={"Accept": accept}).content == sample.manifest


def test_P5_H4_missing_manifests(image: Image) -> None:
    for _ in range(2):
        for reference in ("nope", "sha256:" + "0" * 64):
            refused(image.ask("GET", f"/manifests/{reference}"), 404, "MANIFEST_UNKNOWN")
            assert image.ask("HEAD", f"/manifests/{reference}").status_code == 404
        image.push(samples.image(), "other")
    refused(image.ask("GET", "/manifests/sha256:totallywrong"), 400, "DIGEST_INVALID")


def test_P6_conditions(image: Image) -> None:
    image.push(samples.image(), "x")
    etag = image.ask("HEAD", "/manifests/x").headers["etag"]
    answer = image.ask("GET", "/manifests/x", headers={"If-None-Match": etag})
    assert (answer.status_code, answer.content) == (304, b"")
    image.push(samples.image("other"), "x")
    assert image.ask("GET", "/manifests/x", headers={"If-None-Match": etag}).status_code == 200


def test_F11_tags_that_look_like_digests(image: Image) -> None:
    sample = samples.image()
    for tag in ("sha256-" + "a" * 64, "sha256-" + "a" * 64 + ".sig"):
        assert image.push(sample, tag).status_code == 201
        assert image.ask("GET", f"/manifests/{tag}").content == sample.manifest


def test_W1_many_push_one_tag_at_once(image: Image) -> None:
    from concurrent.futures import ThreadPoolExecutor

    candidates = [samples.image(str(number)) for number in range(8)]
    for sample in candidates:
        image.push_parts(sample)
    with ThreadPoolExecutor(8) as pool:
        assert {answer.status_code for answer in pool.map(lambda sample: image.put(sample, "x"), candidates)} == {201}
    assert image.ask("GET", "/manifests/x").content in {sample.manifest for sample in candidates}
    for sample in candidates:
        assert image.ask("GET", f"/manifests/{sample.digest}").content == sample.manifest
