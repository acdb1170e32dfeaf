"""Checksum headers and preconditions of uploads (RFC 9530, RFC 3230, RFC 9110 §13)."""

from __future__ import annotations

import base64
import hashlib

import pytest

from formats.generic import checksums
from formats.generic.checksums import ChecksumMalformed, ChecksumMismatch
from repoman.core import conditions
from repoman.core.errors import BadRequest
from repoman.core.wire import Headers

DATA = b"hello\n"
SUMS = {name: hashlib.new(name, DATA).hexdigest() for name in ("md5", "sha1", "sha256", "sha512")}


def encoded(name: str) -> str:
    return base64.b64encode(bytes.fromhex(SUMS[name])).decode()


def headers(*pairs: tuple[str, str]) -> Headers:
    return Headers([(name.lower().encode(), value.encode()) for name, value in pairs])


@pytest.mark.parametrize(
    ("name", "value", "algorithm"),
    [
        ("X-Checksum-Md5", SUMS["md5"], "md5"),
        ("X-Checksum-Sha1", SUMS["sha1"].upper(), "sha1"),
        ("X-Checksum-Sha256", f" {SUMS['sha256']} ", "sha256"),
        ("X-Checksum-Sha512", SUMS["sha512"], "sha512"),
        ("X-Checksum", SUMS["sha256"], "sha256"),
        ("X-Checksum", SUMS["sha1"], "sha1"),
        ("Repr-Digest", f"sha-256=:{encoded('sha256')}:", "sha256"),
        ("Content-Digest", f"unknown=:AAAA:, sha-512=:{encoded('sha512')}:;q=1", "sha512"),
        ("Digest", f"SHA-256={encoded('sha256')}", "sha256"),
        ("Digest", f"unixsum=1,sha={encoded('sha1')}", "sha1"),
        ("Content-MD5", encoded("md5"), "md5"),
    ],
)
def test_C1_C2_every_header_is_understood(name: str, value: str, algorithm: str) -> None:
    assert checksums.declared(headers((name, value))) == {algorithm: SUMS[algorithm]}


def test_C2_unknown_algorithms_say_nothing() -> None:
    assert checksums.declared(headers(("Repr-Digest", "crc32c=:AAAAAA==:"), ("Digest", "adler32=1"))) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Checksum-Md5", "xyz"),
        ("X-Checksum-Md5", ""),
        ("X-Checksum-Sha256", SUMS["sha1"]),
        ("X-Checksum-Sha256", "g" * 64),
        ("X-Checksum", "a" * 63),
        ("Repr-Digest", "sha-256=abc"),
        ("Repr-Digest", "sha-256=:AAAA:"),
        ("Repr-Digest", "sha-256=:A:"),
        ("Repr-Digest", ""),
        ("Digest", "sha-256=!!"),
        ("Content-MD5", "AAAA"),
    ],
)
def test_C3_malformed_values_are_errors(name: str, value: str) -> None:
    with pytest.raises(ChecksumMalformed):
        checksums.declared(headers((name, value)))


def test_C3_headers_that_contradict_each_other_are_errors() -> None:
    with pytest.raises(ChecksumMalformed):
        checksums.declared(headers(("X-Checksum-Sha1", SUMS["sha1"]), ("X-Checksum-Sha1", "0" * 40)))
    both = checksums.declared(
        headers(("X-Checksum", SUMS["sha256"]), ("Repr-Digest", f"sha-256=:{encoded('sha256')}:"))
    )
    assert both == {"sha256": SUMS["sha256"]}


def test_C3_a_mismatch_names_both_values() -> None:
    checksums.compare(SUMS, SUMS)
    checksums.compare({"md5": "0" * 32}, {"sha256": SUMS["sha256"]})
    with pytest.raises(ChecksumMismatch) as caught:
        checksums.compare({"sha1": "0" * 40}, SUMS)
    assert caught.value.detail == {"algorithm": "sha1", "expected": "0" * 40, "actual": SUMS["sha1"]}
    assert caught.value.status == 409


def test_C5_repr_digest_is_base64_of_the_sha256() -> None:
    assert checksums.repr_digest(SUMS["sha256"]) == f"sha-256=:{encoded('sha256')}:"


def test_U7_lists_of_entity_tags() -> None:
    found = conditions.of(
        headers(("If-Match", '"a", W/"b" ,"c,d"'), ("If-None-Match", 'W/"x"'), ("If-None-Match", '"y"'))
    )
    assert found.if_match == {"a", "c,d"}, "If-Match compares strongly: a weak tag never fits"
    assert found.if_none_match == {"x", "y"}, "If-None-Match compares weakly"
    assert conditions.of(headers(("If-None-Match", "*"))).if_none_match == conditions.ANY
    assert conditions.of(headers(("If-Match", 'W/"a"'))).if_match == frozenset()
    assert conditions.of(headers()) == conditions.Conditions()


@pytest.mark.parametrize("value", ["", "abc", '"a', '"a" "b"', "*, *", '"a",,"b"'])
def test_U7_a_malformed_list_is_an_error(value: str) -> None:
    with pytest.raises(BadRequest):
        conditions.of(headers(("If-Match", value)))


def test_A11_a_pathological_list_is_judged_quickly() -> None:
    with pytest.raises(BadRequest):
        conditions.of(headers(("If-Match", '"a",' * 2000 + "x")))


def test_G3_dates_that_cannot_be_read_count_as_absent() -> None:
    found = conditions.of(headers(("If-Unmodified-Since", "Sun, 06 Nov 1994 08:49:37 GMT"))).unmodified_since
    assert found is not None and found.isoformat() == "1994-11-06T08:49:37+00:00"
    for value in ("yesterday", "", "0", "99999999999999999999"):
        assert conditions.of(headers(("If-Unmodified-Since", value))).unmodified_since is None
    both = conditions.of(headers(("If-Match", '"a"'), ("If-Unmodified-Since", "Sun, 06 Nov 1994 08:49:37 GMT")))
    assert both.unmodified_since is None
