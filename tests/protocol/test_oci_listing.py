"""Tag lists, the catalog, referrers and deletion (distribution-spec "Content Discovery", "Content Management")."""

from __future__ import annotations

import re
from typing import Any

import pytest

from formats.oci import samples
from formats.oci.manifest import OCI_INDEX
from tests.protocol.oci_client import Image, new_image, refused
from tests.running import Server

NOTHING = "sha256:" + "0" * 64


@pytest.fixture
def image(server: Server) -> Image:
    return new_image(server)


def pages(image: Image, path: str, member: str) -> list[list[Any]]:
    """All pages from `path` on, following Link as a client does."""
    found = []
    while True:
        answer = image.ask("GET", path)
        assert answer.status_code == 200, answer.text
        found.append(answer.json()[member])
        link = answer.headers.get("link")
        if link is None:
            return found
        match = re.fullmatch(r'<(/[^>]*)>; rel="next"', link)
        assert match is not None, f"'{link}' is not a relative link"
        path = match[1]


def test_L1_tags_are_sorted_bytewise_under_the_clients_name(image: Image) -> None:
    sample = samples.image()
    for tag in ("b", "a", "V1", "v1", "_x", "1.0", "sha256-" + "a" * 64):
        image.push(sample, tag)
    answer = image.ask("GET", "/tags/list")
    assert answer.headers["content-type"] == "application/json"
    tags = sorted(["b", "a", "V1", "v1", "_x", "1.0", "sha256-" + "a" * 64])
    assert answer.json() == {"name": f"{image.key}/app", "tags": tags}
    assert "link" not in answer.headers


def test_L2_L3_L4_paging(image: Image) -> None:
    sample = samples.image()
    tags = [f"t{number:02}" for number in range(10)]
    image.push(sample, query="?" + "&".join(f"tag={tag}" for tag in tags))
    for size, expected in [(3, [3, 3, 3, 1]), (5, [5, 5]), (10, [10]), (100, [10])]:
        found = pages(image, f"/tags/list?n={size}", "tags")
        assert [len(page) for page in found] == expected
        assert [tag for page in found for tag in page] == tags
    assert image.ask("GET", "/tags/list?last=t04a").json()["tags"] == tags[5:]
    assert image.ask("GET", "/tags/list?n=2&last=t07").json()["tags"] == ["t08", "t09"]
    assert image.ask("GET", "/tags/list?last=zzz").json()["tags"] == []
    none = image.ask("GET", "/tags/list?n=0")
    assert none.json()["tags"] == [] and "link" not in none.headers


@pytest.mark.parametrize("n", ["-1", "x", "1.5", ""])
def test_L2_I8_n_must_be_a_count(image: Image, n: str) -> None:
    image.push(samples.image(), "a")
    refused(image.ask("GET", f"/tags/list?n={n}"), 400, "UNSUPPORTED")


def test_L1_L6_no_image_is_404_and_no_tags_is_an_empty_list(image: Image) -> None:
    refused(image.ask("GET", "/tags/list"), 404, "NAME_UNKNOWN")
    image.push(samples.image())
    assert image.ask("GET", "/tags/list").json()["tags"] == []


def test_L8_F5_the_catalog_shows_what_the_caller_may_read(server: Server, image: Image) -> None:
    for name in ("one", "two/x", "three"):
        Image(image.client, image.key, name).push(samples.image(), "latest")
    hidden = new_image(server, name="hidden")
    hidden.push(samples.image(), "latest")
    found = [name for page in pages(image, "/v2/_catalog?n=2", "repositories") for name in page]
    assert found == sorted(found)
    assert {f"{image.key}/{name}" for name in ("one", "two/x", "three")} <= set(found)
    assert f"{hidden.key}/hidden" not in found
    refused(server.client().get("/v2/_catalog"), 401, "UNAUTHORIZED")


# --- referrers -------------------------------------------------------------------------------------------------------


def test_F1_F2_F7_always_an_index(image: Image) -> None:
    for _ in range(2):
        answer = image.ask("GET", f"/referrers/{NOTHING}")
        assert answer.status_code == 200 and answer.headers["content-type"] == OCI_INDEX
        assert answer.json() == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
        image.push(samples.image(), "x")
    refused(image.ask("GET", "/referrers/sha256:bad"), 400, "DIGEST_INVALID")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_F3_F4_descriptors_and_filter(image: Image, algorithm: str) -> None:
    subject = samples.image(algorithm=algorithm).descriptor()
    one = samples.artifact(b"1", subject=subject, annotations={"a": "é"}, artifact_type="application/x.one+json")
    two = samples.image("two", subject=subject)
    three = samples.index([samples.image()], subject=subject)
    for sample in (one, two, three):
        assert image.push(sample).status_code == 201
    path = f"/referrers/{subject['digest']}"
    found = {item["digest"]: item for item in image.ask("GET", path).json()["manifests"]}
    assert found == {
        one.digest: one.descriptor(annotations={"a": "é"}, artifactType="application/x.one+json"),
        two.digest: two.descriptor(artifactType=samples.OCI_CONFIG),
        three.digest: three.descriptor(),
    }
    for value in ("application%2Fx.one%2Bjson", "application/x.one+json"):
        answer = image.ask("GET", f"{path}?artifactType={value}")
        assert [item["digest"] for item in answer.json()["manifests"]] == [one.digest]
        assert answer.headers["oci-filters-applied"] == "artifactType"


def test_F5_paging_by_n(image: Image) -> None:
    subject = samples.image().descriptor()
    digests = set()
    for number in range(7):
        sample = samples.artifact(b"%d" % number, subject=subject)
        assert image.push(sample).status_code == 201
        digests.add(sample.digest)
    found = pages(image, f"/referrers/{subject['digest']}?n=3", "manifests")
    assert [len(page) for page in found] == [3, 3, 1]
    assert {item["digest"] for page in found for item in page} == digests


def test_F5_paging_by_size(image: Image) -> None:
    subject = samples.image().descriptor()
    for number in range(3):
        image.push(samples.artifact(b"%d" % number, subject=subject, annotations={"a": "x" * 2_000_000}))
    assert [len(page) for page in pages(image, f"/referrers/{subject['digest']}", "manifests")] == [1, 1, 1]


def test_F12_referrers_come_and_go_with_their_own_manifest(image: Image) -> None:
    subject = samples.image()
    image.push(subject, "x")
    sample = samples.artifact(subject=subject.descriptor())
    image.push(sample)
    path = f"/referrers/{subject.digest}"
    assert image.ask("DELETE", f"/manifests/{subject.digest}").status_code == 202
    assert len(image.ask("GET", path).json()["manifests"]) == 1, "deleting a subject leaves its referrers"
    assert image.ask("DELETE", f"/manifests/{sample.digest}").status_code == 202
    assert image.ask("GET", path).json()["manifests"] == []


# --- deleting --------------------------------------------------------------------------------------------------------


def test_D1_deleting_a_tag_leaves_the_manifest(image: Image) -> None:
    sample = samples.image()
    image.push(sample, query="?tag=a&tag=b")
    assert image.ask("DELETE", "/manifests/a").status_code == 202
    refused(image.ask("GET", "/manifests/a"), 404, "MANIFEST_UNKNOWN")
    assert image.ask("HEAD", "/manifests/a").status_code == 404
    for reference in ("b", sample.digest):
        assert image.ask("GET", f"/manifests/{reference}").content == sample.manifest
    assert image.ask("GET", "/tags/list").json()["tags"] == ["b"]
    refused(image.ask("DELETE", "/manifests/a"), 404, "MANIFEST_UNKNOWN")


def test_D2_deleting_a_digest_takes_its_tags(image: Image) -> None:
    sample, other = samples.image(), samples.image("other")
    image.push(sample, query="?tag=a&tag=b")
    image.push(other, "c")
    assert image.ask("DELETE", f"/manifests/{sample.digest}").status_code == 202
    for reference in ("a", "b", sample.digest):
        refused(image.ask("GET", f"/manifests/{reference}"), 404, "MANIFEST_UNKNOWN")
    assert image.ask("GET", "/tags/list").json()["tags"] == ["c"]
    refused(image.ask("DELETE", f"/manifests/{sample.digest}"), 404, "MANIFEST_UNKNOWN")


def test_D3_deleting_blobs(server: Server, image: Image) -> None:
    sample = samples.image()
    image.push(sample, "x")
    blob = next(iter(sample.blobs))
    refused(image.ask("DELETE", f"/blobs/{blob}"), 405, "UNSUPPORTED")
    elsewhere = new_image(server)
    elsewhere.push_blob(sample.blobs[blob])
    image.ask("DELETE", f"/manifests/{sample.digest}")
    assert image.ask("DELETE", f"/blobs/{blob}").status_code == 202
    refused(image.ask("GET", f"/blobs/{blob}"), 404, "BLOB_UNKNOWN")
    refused(image.ask("DELETE", f"/blobs/{blob}"), 404, "BLOB_UNKNOWN")
    assert elsewhere.ask("GET", f"/blobs/{blob}").content == sample.blobs[blob]


def test_Q5_deleted_and_pushed_again(image: Image) -> None:
    sample = samples.image()
    for _ in range(3):
        assert image.push(sample, "x").status_code == 201
        assert image.ask("GET", "/manifests/x").content == sample.manifest
        assert image.ask("DELETE", f"/manifests/{sample.digest}").status_code == 202
        assert image.ask("GET", "/manifests/x").status_code == 404


def test_D5_children_of_an_index_can_be_deleted_after_it(image: Image) -> None:
    sample = samples.index()
    image.push(sample, "x")
    assert image.ask("DELETE", f"/manifests/{sample.digest}").status_code == 202
    for child in sample.children:
        assert image.ask("DELETE", f"/manifests/{child.digest}").status_code == 202
