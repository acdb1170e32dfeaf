"""Files and what lies beside them: ranges, HEAD, types, caching (pypi.md sections 5 and 10)."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

from formats.pypi import samples
from tests.protocol.pypi_client import Index, new_index, refused
from tests.running import Server

WHEEL = samples.wheel("demo", "1.0", files={"demo/data.bin": hashlib.shake_256(b"data").digest(50_000)})
LARGE = samples.wheel("demo", "2.0", files={"demo/data.bin": hashlib.shake_256(b"data").digest(3_000_001)})
SDIST = samples.sdist("demo", "1.0")


@pytest.fixture
def index(server: Server) -> Index:
    found = new_index(server)
    found.publish(WHEEL, SDIST, LARGE)
    return found


@pytest.mark.parametrize("sample", [WHEEL, SDIST, LARGE], ids=["wheel", "sdist", "large"])
def test_pypi_5_8_17_5_the_range_matrix(index: Index, sample: samples.Sample) -> None:
    data = sample.data
    size = len(data)
    for asked, start, end in (
        ("0-0", 0, 1),
        ("10-99", 10, 100),
        (f"{size - 5}-", size - 5, size),
        (f"{size - 1}-{size + 100}", size - 1, size),
        ("-7", size - 7, size),
        (f"-{size}", 0, size),
        (f"-{size + 10_000}", 0, size),
    ):
        answer = index.file(sample, Range=f"bytes={asked}")
        assert (answer.status_code, answer.content) == (206, data[start:end]), asked
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
        assert answer.headers["content-length"] == str(end - start)
    past = index.file(sample, Range=f"bytes={size}-")
    refused(past, 416)
    assert past.headers["content-range"] == f"bytes */{size}"
    for asked in ("bytes=0-1,5-6", "lines=1-2", "bytes=x"):
        whole = index.file(sample, Range=asked)
        assert (whole.status_code, whole.content) == (200, data)


def test_pypi_18_8_poetrys_suffix_range_of_a_small_wheel(index: Index) -> None:
    small = samples.wheel("small", "1.0")
    index.publish(small)
    answer = index.file(small, Range="bytes=-10000")
    assert (answer.status_code, answer.content) == (206, small.data)


def test_pypi_5_8_if_range(index: Index) -> None:
    tag = index.file(WHEEL).headers["etag"]
    assert index.file(WHEEL, Range="bytes=0-3", If_Range=tag).status_code == 206
    assert index.file(WHEEL, Range="bytes=0-3", If_Range='"other"').status_code == 200


def test_pypi_5_9_5_10_18_6_head(index: Index) -> None:
    for sample, suffix in ((WHEEL, ""), (SDIST, ""), (LARGE, ""), (WHEEL, ".metadata")):
        got, headed = index.file(sample, suffix), index.file(sample, suffix, "HEAD")
        assert headed.status_code == 200 and headed.content == b""
        assert headed.headers["content-length"] == str(len(got.content)) != "0"
        assert headed.headers["accept-ranges"] == "bytes"
        drop = ("date", "x-request-id")
        assert {k: v for k, v in got.headers.items() if k not in drop} == {
            k: v for k, v in headed.headers.items() if k not in drop
        }


@pytest.mark.parametrize("accepted", ["identity", "gzip, deflate", "gzip, deflate, br, zstd"])
def test_pypi_5_11_18_9_files_are_never_compressed(index: Index, accepted: str) -> None:
    for sample, suffix in ((WHEEL, ""), (SDIST, ""), (WHEEL, ".metadata")):
        answer = index.file(sample, suffix, Accept_Encoding=accepted)
        assert "content-encoding" not in answer.headers


def test_pypi_5_12_5_14_types_and_caching(index: Index) -> None:
    for sample, suffix, kind in (
        (WHEEL, "", "application/octet-stream"),
        (SDIST, "", "application/octet-stream"),
        (WHEEL, ".metadata", "text/plain; charset=utf-8"),
    ):
        answer = index.file(sample, suffix)
        assert answer.headers["content-type"] == kind
        assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'
        assert "immutable" in answer.headers["cache-control"] and "max-age=31536000" in answer.headers["cache-control"]
        assert "public" not in answer.headers["cache-control"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
        again = index.file(sample, suffix, If_None_Match=answer.headers["etag"])
        assert (again.status_code, again.content) == (304, b"")


def test_pypi_5_1_the_metadata_are_the_archives_own(index: Index) -> None:
    assert index.file(WHEEL, ".metadata").content == WHEEL.metadata
    refused(index.file(SDIST, ".metadata"), 404)


def test_pypi_5_15_whoever_may_not_read_gets_no_file(index: Index) -> None:
    anonymous = index.as_other(index.server.client())
    stranger = index.as_other(index.server.client(*index.server.make_user()))
    for suffix in ("", ".metadata"):
        assert anonymous.file(WHEEL, suffix).status_code == 401
        refused(stranger.file(WHEEL, suffix), 404)
        assert stranger.file(WHEEL, suffix, "HEAD").status_code == 404


def test_pypi_13_5_other_spellings_of_the_project_lead_to_the_same_file(index: Index) -> None:
    sample = samples.wheel("Foo.Bar", "1.0")
    index.publish(sample)
    for name in ("foo-bar", "Foo.Bar", "FOO_BAR"):
        assert index.get(f"files/{name}/{sample.filename}").content == sample.data
    refused(index.get(f"files/demo/{sample.filename}"), 404)


def test_pypi_r10_removed_files_are_gone_from_every_address(index: Index) -> None:
    index.file(WHEEL)
    assert index.remove_file(WHEEL).status_code == 204
    for suffix in ("", ".metadata", ".provenance"):
        refused(index.file(WHEEL, suffix), 404)
    assert WHEEL.filename not in index.names("demo") and WHEEL.filename not in index.html("demo")
    assert index.file(SDIST).status_code == 200


# --- attestations ----------------------------------------------------------------------------------------------------


def attestation(sample: samples.Sample, **changed: Any) -> str:
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": sample.filename, "digest": {"sha256": sample.sha256}}],
        "predicateType": "https://docs.pypi.org/attestations/publish/v1",
        "predicate": None,
        **changed,
    }
    item = {
        "version": 1,
        "verification_material": {
            "certificate": base64.b64encode(b"certificate").decode(),
            "transparency_entries": [{"logIndex": "1"}],
        },
        "envelope": {
            "statement": base64.b64encode(json.dumps(statement).encode()).decode(),
            "signature": base64.b64encode(b"signature").decode(),
        },
    }
    return json.dumps([item])


def test_pypi_10_attestations_come_back_as_provenance(index: Index) -> None:
    for sample in (samples.wheel("signed", "1.0"), samples.sdist("signed", "1.0")):
        given = attestation(sample)
        assert index.upload(sample, attestations=given).status_code == 200
        item = next(found for found in index.page("signed")["files"] if found["filename"] == sample.filename)
        assert item["provenance"] == f"{index.address}/integrity/signed/1.0/{sample.filename}/provenance"
        answer = index.client.get(item["provenance"])
        assert answer.headers["content-type"] == "application/vnd.pypi.integrity.v1+json"
        assert answer.json()["version"] == 1
        assert answer.json()["attestation_bundles"][0]["attestations"] == json.loads(given)
        assert f'data-provenance="{item["provenance"]}"' in index.html("signed")
    refused(index.get(f"integrity/signed/2.0/{sample.filename}/provenance"), 404)


def test_pypi_10_1_attestations_about_something_else_are_refused(index: Index) -> None:
    sample, other = samples.wheel("signed", "1.0"), samples.wheel("signed", "1.1")
    for given in (attestation(other), "[]", "{", '[{"version": 1}]', attestation(sample, predicateType="x")):
        refused(index.upload(sample, attestations=given), 400)
    assert index.get("simple/signed/").status_code == 404
    index.publish(sample)


def test_pypi_10_files_without_attestations_advertise_none(index: Index) -> None:
    assert all("provenance" not in item for item in index.page("demo")["files"])
    refused(index.get(f"integrity/demo/1.0/{WHEEL.filename}/provenance"), 404)
