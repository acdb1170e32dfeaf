"""Reading manifests: what is taken, and what is refused because two readers could differ on it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from formats.oci import manifest, samples
from formats.oci.manifest import DOCKER_IMAGE, DOCKER_LIST, OCI_IMAGE, OCI_INDEX
from repoman.core.errors import ContentInvalid


def written(body: Any) -> bytes:
    return json.dumps(body).encode()


def changed(**changes: Any) -> bytes:
    body = samples.image().body
    body.update(changes)
    return written(body)


def with_layer(**changes: Any) -> bytes:
    body = samples.image().body
    body["layers"][0].update(changes)
    return written(body)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("docker", [False, True])
def test_M8_G2_an_image_names_its_config_and_layers(docker: bool, algorithm: str) -> None:
    sample = samples.image(layers=3, docker=docker, algorithm=algorithm)
    found = manifest.parse(sample.manifest, sample.media_type)
    assert {part.digest for part in found.blobs} == set(sample.blobs)
    assert found.sizes() == {digest: len(data) for digest, data in sample.blobs.items()}
    assert found.artifact_type == found.config_type
    assert not found.children and not found.is_index


def test_an_index_names_its_children() -> None:
    sample = samples.index()
    found = manifest.parse(sample.manifest, OCI_INDEX)
    assert [part.digest for part in found.children] == [child.digest for child in sample.children]
    assert found.is_index and not found.blobs and found.artifact_type == ""


def test_M13_F3_a_referrer_has_subject_type_and_annotations() -> None:
    subject = samples.image().descriptor()
    sample = samples.artifact(subject=subject, annotations={"a": "b"})
    found = manifest.parse(sample.manifest, OCI_IMAGE)
    assert found.subject == subject["digest"]
    assert found.artifact_type == "application/vnd.example.signature.v1"
    assert found.annotations == {"a": "b"}


def test_F3_a_docker_manifest_has_no_subject() -> None:
    sample = samples.image(docker=True, subject=samples.image().descriptor())
    assert manifest.parse(sample.manifest, DOCKER_IMAGE).subject == ""


def test_M5_media_type_may_be_missing_from_the_body() -> None:
    sample = samples.image(with_media_type=False)
    assert manifest.parse(sample.manifest, OCI_IMAGE).media_type == OCI_IMAGE
    assert manifest.parse(sample.manifest, DOCKER_IMAGE).media_type == DOCKER_IMAGE


@pytest.mark.parametrize("content_type", [None, "", "application/json", "application/octet-stream"])
def test_M4_a_generic_content_type_leaves_it_to_the_body(content_type: str | None) -> None:
    assert manifest.parse(samples.image(docker=True).manifest, content_type).media_type == DOCKER_IMAGE
    assert manifest.parse(samples.image(with_media_type=False).manifest, content_type).media_type == OCI_IMAGE


def test_M4_parameters_of_content_type_are_ignored() -> None:
    assert manifest.parse(samples.image().manifest, f"{OCI_IMAGE}; charset=utf-8").media_type == OCI_IMAGE


@pytest.mark.parametrize("key", ["layers", "manifests"])
def test_M19_null_and_empty_lists_are_legal(key: str) -> None:
    sample, kind = (samples.image(), OCI_IMAGE) if key == "layers" else (samples.index(), OCI_INDEX)
    for value in (None, []):
        found = manifest.parse(written({**sample.body, key: value}), kind)
        assert len(found.blobs) + len(found.children) == (1 if key == "layers" else 0)


def test_M20_unknown_fields_are_ignored() -> None:
    assert manifest.parse(changed(**{"org.example": {"x": [1.5, None, True]}}), OCI_IMAGE).blobs


def test_M9_foreign_layers_need_not_be_here() -> None:
    for changes in ({"urls": ["https://x.example/l"]}, {"mediaType": next(iter(manifest.FOREIGN_TYPES))}):
        found = manifest.parse(with_layer(**changes), OCI_IMAGE)
        assert [part.is_foreign for part in found.blobs] == [False, True]
    assert not manifest.parse(with_layer(urls=[]), OCI_IMAGE).blobs[1].is_foreign


def test_M12_an_index_may_name_blobs() -> None:
    image = samples.image()
    body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [image.body["config"], *image.body["layers"]]}
    assert len(manifest.parse(written(body), OCI_INDEX).children) == 2


def test_M17_embedded_data_must_be_what_the_descriptor_says() -> None:
    sample = samples.image()
    (layer,) = sample.body["layers"]
    data = sample.blobs[layer["digest"]]
    assert manifest.parse(with_layer(data=base64.b64encode(data).decode()), OCI_IMAGE)
    for bad in (base64.b64encode(data + b"x").decode(), "!!!", 5, base64.b64encode(b"").decode()):
        with pytest.raises(ContentInvalid):
            manifest.parse(with_layer(data=bad), OCI_IMAGE)


def test_M15_a_manifest_of_four_million_bytes_is_read() -> None:
    data = changed(annotations={f"large-annotation-{number}": "A" * 10_000 for number in range(390)})
    assert 3_900_000 < len(data) < manifest.MAX_BYTES
    assert len(manifest.parse(data, OCI_IMAGE).annotations) == 390


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (changed(manifests=[]), OCI_IMAGE),
        (written({**samples.index().body, "layers": []}), OCI_INDEX),
        (written({**samples.index().body, "config": {}}), OCI_INDEX),
        (samples.image().manifest, OCI_INDEX),
        (samples.image().manifest, DOCKER_IMAGE),
        (samples.image(with_media_type=False).manifest, OCI_INDEX),
        (samples.image(with_media_type=False).manifest, DOCKER_LIST),
        (changed(mediaType=5), OCI_IMAGE),
        (samples.image().manifest, "application/vnd.example.manifest+json"),
        (changed(mediaType="application/vnd.example.manifest+json"), "application/json"),
        (written({"schemaVersion": 2}), "application/json"),
        (written({"schemaVersion": 1, "fsLayers": [], "history": []}), "application/json"),
        (written({"schemaVersion": 1}), "application/vnd.docker.distribution.manifest.v1+prettyjws"),
    ],
)
def test_B12_M6_type_confusion_and_unknown_types_are_refused(data: bytes, content_type: str) -> None:
    with pytest.raises(ContentInvalid):
        manifest.parse(data, content_type)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'"x"',
        b"{",
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        changed(schemaVersion=1),
        changed(schemaVersion=2.0),
        changed(schemaVersion=True),
        changed(schemaVersion="2"),
        changed(config=None),
        changed(config=[]),
        changed(layers={}),
        changed(layers=[None]),
        changed(layers=["x"]),
        changed(annotations=[]),
        changed(annotations={"a": 1}),
        changed(artifactType=1),
        changed(subject="sha256:" + "a" * 64),
        changed(subject={}),
        changed(subject={"mediaType": "a/b", "digest": "sha256:bad", "size": 1}),
        changed(layers=samples.image().body["layers"] * 10_001),
    ],
)
def test_M8_wrong_shapes_are_refused(data: bytes) -> None:
    with pytest.raises(ContentInvalid):
        manifest.parse(data, OCI_IMAGE)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": -1},
        {"size": 2**63},
        {"size": 1.0},
        {"size": "1"},
        {"size": True},
        {"size": None},
        {"digest": "sha256:" + "A" * 64},
        {"digest": "sha256:" + "a" * 63},
        {"digest": "sha384:" + "a" * 96},
        {"digest": "sha512:" + "a" * 64},
        {"digest": 7},
        {"mediaType": ""},
        {"mediaType": None},
        {"mediaType": "a" * 256},
        {"mediaType": "a\u0001b"},
        {"urls": "https://x.example"},
        {"urls": [1]},
        {"annotations": {"a": None}},
    ],
)
def test_B14_C2_bad_descriptors_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ContentInvalid):
        manifest.parse(with_layer(**changes), OCI_IMAGE)


def test_B14_a_manifest_that_gives_two_sizes_for_one_digest_is_refused() -> None:
    body = samples.image().body
    body["layers"].append({**body["layers"][0], "size": body["layers"][0]["size"] + 1})
    with pytest.raises(ContentInvalid, match="two sizes"):
        manifest.parse(written(body), OCI_IMAGE)


@pytest.mark.parametrize(
    "text",
    [
        '{"schemaVersion":2,"schemaVersion":2}',
        '{"a":{"b":1,"b":2}}',
        '{"a":NaN}',
        '{"a":Infinity}',
        '{"a":1e999}',
        '{"a":' + "9" * 100_000 + "}",
        '{"a":"\\u0000"}',
        '{"\\u0000":1}',
        '{"a":"\\ud800"}',
        '{"a":' + "[" * 65 + "]" * 65 + "}",
        '{"a":' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"a":' + '{"a":' * 100_000 + "1" + "}" * 100_001,
    ],
    ids=lambda text: text[:30],
)
def test_B7_hostile_json_is_refused(text: str) -> None:
    with pytest.raises(ContentInvalid):
        manifest.parse(text.encode(), OCI_IMAGE)


def test_B7_an_escaped_backslash_before_u0000_is_no_nul() -> None:
    assert manifest.parse(changed(annotations={"a": "\\u0000"}), OCI_IMAGE).annotations == {"a": "\\u0000"}
