"""The upload form: what it must have, what it may leave out, and what must agree."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.pypi import attestations, samples, upload
from repoman.core.digest import Digest
from repoman.core.errors import BadRequest, ContentInvalid, DigestInvalid
from repoman.core.records import Staged
from repoman.core.wire import Part, Parts

WHEEL = samples.wheel("Demo.Package", "1.0")


def staged(data: bytes = WHEEL.data) -> Staged:
    others = {
        "md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
        "blake2b_256": hashlib.blake2b(data, digest_size=32).hexdigest(),
    }
    return Staged(Digest.of(data), len(data), "key", "stamp", others)


FIELDS: dict[str, Any] = {
    ":action": "file_upload",
    "protocol_version": "1",
    "name": "Demo.Package",
    "version": "1.0",
    "filetype": "bdist_wheel",
    "sha256_digest": WHEEL.sha256,
}


def parts(filename: str = WHEEL.filename, **changed: Any) -> Parts:
    found = [Part("content", filename, "", staged=staged())]
    for name, value in {**FIELDS, **{key.replace("action", ":action"): text for key, text in changed.items()}}.items():
        for text in value if isinstance(value, list) else [value]:
            if text is not None:
                found.append(Part(name, "", "", text if isinstance(text, bytes) else text.encode()))
    return Parts(tuple(found))


def refused(form: Parts, words: str = ".") -> None:
    with pytest.raises(BadRequest, match=words):
        upload.read_form(form)


def test_pypi_8_1_a_form_is_read() -> None:
    found = upload.read_form(
        parts(md5_digest=staged().others["md5"].upper(), blake2_256_digest=staged().others["blake2b_256"])
    )
    assert (found.distribution.project, found.distribution.release) == ("demo-package", "1.0")
    assert set(found.digests) == {"md5", "sha256", "blake2b_256"}
    upload.compare(found.digests, upload.sums_of(found.staged))


def test_pypi_8_1_7_unknown_and_empty_fields_are_absent() -> None:
    upload.read_form(
        parts(md5_digest="", blake2_256_digest="", new_field="x", classifiers=["a", "b"], protocol_version=None)
    )


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"action": "submit"}, ":action"),
        ({"action": None}, ":action"),
        ({"action": ""}, ":action"),
        ({"protocol_version": "2"}, "protocol_version"),
        ({"name": None}, "'name' is missing"),
        ({"name": "../demo"}, "not a project name"),
        ({"name": "other"}, "project 'demo-package'"),
        ({"name": ["Demo.Package", "other"]}, "twice"),
        ({"version": None}, "'version' is missing"),
        ({"version": "latest"}, "not a version"),
        ({"version": "1.1"}, "not a file of version"),
        ({"filetype": None}, "'filetype' is missing"),
        ({"filetype": "bdist_egg"}, "PEP 527"),
        ({"filetype": "bdist_wininst"}, "PEP 527"),
        ({"filetype": "sdist"}, "not a file of type"),
        ({"filename": "demo.whl"}, "not a wheel's name"),
        ({"filename": "demo_package-1.0.zip"}, "neither"),
        ({"filename": "../demo_package-1.0-py3-none-any.whl"}, "cannot be a file name"),
        ({"sha256_digest": None}, "no digest"),
        ({"sha256_digest": "abc"}, "64 hexadecimal"),
        ({"sha256_digest": "g" * 64}, "64 hexadecimal"),
        ({"md5_digest": "a" * 64}, "32 hexadecimal"),
        ({"summary": b"\xff"}, "UTF-8"),
        ({"summary": "a\0b"}, "NUL"),
        ({"content": "text"}, "exactly one file"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_pypi_8_1_c2_forms_that_are_refused(changed: dict[str, Any], words: str) -> None:
    refused(parts(**changed), words)


def test_pypi_8_1_5_exactly_one_file() -> None:
    refused(Parts(parts().parts[1:]), "exactly one file")
    refused(Parts((*parts().parts, Part("content", WHEEL.filename, "", staged=staged()))), "exactly one file")


def test_pypi_8_1_7_a_field_sent_as_a_file() -> None:
    refused(Parts((*parts().parts, Part("description", "d.txt", "", staged=staged()))), "is text")


def test_pypi_8_2_5_a_signature_and_unknown_files_are_left_alone() -> None:
    upload.read_form(Parts((*parts().parts, Part("gpg_signature", "x.asc", "", staged=staged()))))


def test_pypi_2_4_an_uncanonical_version_in_the_form() -> None:
    assert upload.read_form(parts(version="v1.0.0")).distribution.release == "1.0"


@pytest.mark.parametrize("name", ["md5_digest", "sha256_digest", "blake2_256_digest"])
def test_pypi_8_2_c1_each_digest_is_verified(name: str) -> None:
    wrong = upload.read_form(parts(**{name: "0" * (32 if name == "md5_digest" else 64)}))
    with pytest.raises(DigestInvalid):
        upload.compare(wrong.digests, upload.sums_of(wrong.staged))


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from([*FIELDS, "attestations", "content", "x"]), st.binary(max_size=30), max_size=5))
def test_pypi_r1_any_fields_are_read_or_refused(changed: dict[str, bytes]) -> None:
    given_parts = [Part(name, "", "", value) for name, value in changed.items()]
    try:
        upload.read_form(Parts((*parts().parts, *given_parts)))
    except BadRequest:
        pass


# --- attestations ----------------------------------------------------------------------------------------------------


def attestation(
    filename: str = WHEEL.filename,
    sha256: str = WHEEL.sha256,
    *,
    kind: str = "https://docs.pypi.org/attestations/publish/v1",
    **statement: Any,
) -> dict[str, Any]:
    found = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": filename, "digest": {"sha256": sha256}}],
        "predicateType": kind,
        "predicate": None,
        **statement,
    }
    return {
        "version": 1,
        "verification_material": {
            "certificate": base64.b64encode(b"certificate").decode(),
            "transparency_entries": [{"logIndex": "1"}],
        },
        "envelope": {
            "statement": base64.b64encode(json.dumps(found).encode()).decode(),
            "signature": base64.b64encode(b"signature").decode(),
        },
    }


def provenance(*given_items: Any) -> dict[str, Any]:
    text = json.dumps(list(given_items))
    found: dict[str, Any] = json.loads(attestations.provenance_of(text, filename=WHEEL.filename, sha256=WHEEL.sha256))
    return found


def test_pypi_10_1_10_3_attestations_become_a_provenance_object() -> None:
    both = [attestation(), attestation(kind="https://slsa.dev/provenance/v1")]
    found = provenance(*both)
    assert found["version"] == 1
    assert found["attestation_bundles"][0]["attestations"] == both
    assert found["attestation_bundles"][0]["publisher"]["kind"] == "unverified"


@pytest.mark.parametrize(
    "given_items",
    [
        [],
        [{}],
        ["text"],
        [attestation(filename="other-1.0-py3-none-any.whl")],
        [attestation(sha256="0" * 64)],
        [attestation(kind="https://example.org/other")],
        [attestation(), attestation()],
        [attestation(), attestation(kind="https://slsa.dev/provenance/v1"), attestation()],
        [{**attestation(), "version": 2}],
        [{**attestation(), "envelope": {"statement": "bm8=", "signature": "bm8="}}],
        [attestation(subject=[])],
        [attestation(subject="text")],
        [attestation(subject=[{"name": WHEEL.filename, "digest": "text"}])],
        [attestation(_type="https://in-toto.io/Statement/v9")],
        [attestation(predicateType=5)],
    ],
    ids=range(15),
)
def test_pypi_10_1_s6_attestations_that_are_refused(given_items: list[Any]) -> None:
    with pytest.raises(ContentInvalid):
        provenance(*given_items)


@pytest.mark.parametrize("text", ["", "null", "{}", "[", "[" * 100_000, '[{"version": NaN}]', "5"])
def test_pypi_10_1_b7_text_that_is_no_list_of_attestations(text: str) -> None:
    with pytest.raises(ContentInvalid):
        attestations.provenance_of(text, filename=WHEEL.filename, sha256=WHEEL.sha256)
