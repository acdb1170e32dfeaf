"""The index, written and taken apart (helm.md I1 to I14, I22, I26, V1 to V4; THREATS G6, G9)."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest

from formats.helm import listing, samples
from repoman.core.errors import ContentInvalid
from repoman.core.records import Entry, ListedFile, Listing

URL = "https://upstream.example/base/index.yaml"
DATA = samples.chart()


def split(body: bytes, url: str = URL) -> dict[str, Listing]:
    return dict(listing.split(body, url=url))


def only(body: bytes, url: str = URL) -> Entry:
    (found,) = split(body, url)["demo"].entries
    return found


def version(name: str, *, at: int = 1, entry: str = "", prov_only: bool = False) -> Entry:
    moment = datetime.datetime(2024, 1, at, tzinfo=datetime.UTC)
    text = entry or json.dumps({"name": "demo", "version": name}, separators=(",", ":"))
    files = [ListedFile(f"demo-{name}.tgz.prov", published_at=moment)]
    if not prov_only:
        digests = {"sha256": "a" * 64}
        files.append(ListedFile(f"demo-{name}.tgz", digests=digests, published_at=moment, metadata={"entry": text}))
    return Entry(name, kind="version", modified=moment, files=tuple(files))


# --- writing ---------------------------------------------------------------------------------------------------------


def test_helm_i1_i2_i5_i9_i10_i22_the_index_as_compact_json() -> None:
    found = Listing(
        (version("1.0.0"), version("1.1.0-rc.1"), version("1.0.0+b", at=2), version("9.0.0", prov_only=True))
    )
    frame = listing.frame(listing.INDEX, datetime.datetime(2024, 2, 3, 4, 5, 6, 700, tzinfo=datetime.UTC), "/helm/a/b")
    body = frame.head + listing.part("demo", found) + frame.tail
    assert b" " not in body
    index = json.loads(body)
    assert list(index) == ["apiVersion", "generated", "serverInfo", "entries"]
    assert index["generated"] == "2024-02-03T04:05:06.000700Z" and index["serverInfo"] == {"contextPath": "/helm/a/b"}
    entries = index["entries"]["demo"]
    assert [entry["version"] for entry in entries] == ["1.1.0-rc.1", "1.0.0+b", "1.0.0"]
    assert entries[1] == {
        "name": "demo", "version": "1.0.0+b", "urls": ["charts/demo-1.0.0+b.tgz"], "created": "2024-01-02T00:00:00Z",
        "digest": "a" * 64,
    }  # fmt: skip


def test_helm_i11_an_empty_repository_has_an_index() -> None:
    frame = listing.frame(listing.INDEX, None, "/x")
    assert json.loads(frame.head + frame.tail)["entries"] == {}
    assert listing.part("demo", Listing((version("1.0.0", prov_only=True),))) == b""


def test_addresses_are_escaped_where_they_must_be() -> None:
    text = json.dumps({"name": "my chart#?ü", "version": "1.0.0"})
    file = ListedFile("my chart#?ü-1.0.0.tgz", metadata={"entry": text})
    (entry,) = json.loads(b"{" + listing.part("x", Listing((Entry("1.0.0", files=(file,)),))) + b"}")["x"]
    assert (
        entry["urls"] == ["charts/my%20chart%23%3F%C3%BC-1.0.0.tgz"]
        and "digest" not in entry
        and "created" not in entry
    )


# --- reading ---------------------------------------------------------------------------------------------------------


def test_helm_v1_v5_addresses_digests_and_the_provenance_beside() -> None:
    found = only(samples.index(samples.entry(DATA, url="sub/demo-1.0.0.tgz?token=1", digest="sha256:" + "AB" * 32)))
    archive, provenance = found.files
    assert archive.url == "https://upstream.example/base/sub/demo-1.0.0.tgz"
    assert archive.digests == {"sha256": "ab" * 32} and archive.size is None
    assert (
        provenance.path == "demo-1.0.0.tgz.prov" and provenance.url == archive.url + ".prov" and not provenance.digests
    )


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("charts/x.tgz", "https://upstream.example/base/charts/x.tgz"),
        ("/x.tgz", "https://upstream.example/x.tgz"),
        ("../x.tgz", "https://upstream.example/x.tgz"),
        ("//other.example/x.tgz", "https://other.example/x.tgz"),
        ("http://other.example:8080/a b/x.tgz?y=1#z", "http://other.example:8080/a%20b/x.tgz?y=1"),
        ("HTTPS://other.example/x.tgz", "https://other.example/x.tgz"),
    ],
)
def test_helm_v2_c6_addresses_by_helms_rule(given: str, url: str) -> None:
    assert only(samples.index(samples.entry(DATA, url=given))).files[0].url == url


def test_c8_the_provenance_of_an_address_with_a_query() -> None:
    found = only(samples.index(samples.entry(DATA, url="https://other.example/x.tgz?y=1")))
    assert found.files[1].url == "https://other.example/x.tgz.prov?y=1"


@pytest.mark.parametrize(
    "change",
    [
        {"urls": ["oci://registry.example/demo:1.0.0"]}, {"urls": []}, {"urls": None}, {"urls": "x.tgz"}, {"urls": [1]},
        {"urls": ["file:///etc/passwd"]}, {"urls": ["javascript:alert(1)"]}, {"urls": ["https://user:pw@host/x.tgz"]},
        {"urls": ["http://[bad/x.tgz"]}, {"urls": ["https:///x.tgz"]}, {"urls": ["x" * 5000]}, {"version": "x"},
        {"version": None}, {"name": "other"}, {"name": "../demo"}, {"name": None},
    ],
)  # fmt: skip
def test_helm_v4_v12_o16_entries_that_cannot_be_kept_are_skipped(change: dict[str, Any]) -> None:
    good = samples.entry(DATA, version="2.0.0")
    body = json.dumps(
        {"apiVersion": "v1", "entries": {"demo": [samples.entry(DATA) | change, None, 7, [], good]}}
    ).encode()
    assert [entry.name for entry in split(body)["demo"].entries] == ["2.0.0"]


def test_helm_v4_junk_around_good_entries() -> None:
    entries = {"demo": [samples.entry(DATA)], "a/b": [1], "x": None, "y": "z", "-": [samples.entry(DATA)], "empty": []}
    body = json.dumps(
        {"apiVersion": "v1", "entries": entries, "foo": [1], "generated": "junk", "publicKeys": 1}
    ).encode()
    assert list(split(body)) == ["demo"]


def test_helm_v3_the_first_of_two_wins() -> None:
    twice = [samples.entry(DATA, url="first.tgz"), samples.entry(DATA, url="second.tgz")]
    assert only(samples.index(*twice)).files[0].url.endswith("/first.tgz")
    # a-1 of version 2.0.0 and a of version 1-2.0.0 have one file name
    alike = samples.index(samples.entry(DATA, "a-1", "2.0.0"), samples.entry(DATA, "a", "1-2.0.0"))
    assert sum(len(found.entries) for found in split(alike).values()) == 1


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("2024-01-31T10:11:12Z", "2024-01-31T10:11:12Z"),
        ("2024-01-31T10:11:12.123456789+02:00", "2024-01-31T08:11:12.123456Z"),
        ("2024-01-31 10:11:12", "2024-01-31T10:11:12Z"),
        ("2024-01-31T10:11:12+0100", "2024-01-31T09:11:12Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("0001-01-01T00:00:00+01:00", None),
        ("yesterday", None), ("2024-13-01T00:00:00Z", None), (1, None), (None, None), ({}, None),
    ],
)  # fmt: skip
def test_helm_i7_moments(given: Any, found: str | None) -> None:
    moment = listing.read_moment(given)
    assert (listing.moment(moment) if moment is not None else None) == found


YAML = b"""apiVersion: v1
entries:
  demo:
  - apiVersion: v2
    appVersion: 1.10
    created: 2024-01-31T10:11:12.5Z
    digest: %s
    name: demo
    urls:
    - https://charts.example/demo-1.0.0.tgz
    version: 1.0.0
  - name: demo
    urls: [demo-0.9.0.tgz]
    version: 0.9.0
generated: "2024-01-31T10:11:12Z"
""" % (b"a" * 64)


def test_an_index_in_yaml() -> None:
    found = split(YAML)["demo"]
    assert [entry.name for entry in found.entries] == ["1.0.0", "0.9.0"]
    first = found.entries[0].files[0]
    assert json.loads(str(first.metadata["entry"]))["appVersion"] == "1.1" and first.digests == {"sha256": "a" * 64}
    assert found.changed_at == datetime.datetime(2024, 1, 31, 10, 11, 12, 500_000, tzinfo=datetime.UTC)
    assert split(b"apiVersion: v1\nentries: {}\n") == split(b"apiVersion: v1\nentries:\n") == {}
    assert list(split(b"{apiVersion: v1, entries: {demo: [{name: demo, version: 1.0.0, urls: [a]}]}}\n")) == ["demo"]


@pytest.mark.parametrize(
    "body",
    [
        YAML[: YAML.index(b"version: 0.9.0")],
        YAML[: YAML.index(b"ion: 0.9.0")],
        YAML[: YAML.index(b"urls: [demo") + 8],
        YAML[: YAML.index(b"generated")].removesuffix(b"\n"),
        samples.index(samples.entry(DATA))[:-30],
        b"<!DOCTYPE html><html><body>Sign in</body></html>",
        b"", b"[]", b"{}", b"null", b"apiVersion: v1\n", b"entries: {}\n", b'{"apiVersion": "v1", "entries": []}',
        b"apiVersion: ''\nentries: {}", b"apiVersion: v1\nentries: [a]", b"a: *b", b"\xff\xff", b"{" * 100_000,
        b"apiVersion: v1\nentries:\n  demo:\n  - name: [" + b"[" * 100,
    ],
    ids=range(19),
)  # fmt: skip
def test_helm_v4_g6_what_is_no_index_or_was_cut_off_is_refused(body: bytes) -> None:
    with pytest.raises(ContentInvalid):
        split(body)


def test_g9_an_alias_bomb_in_an_index_is_refused() -> None:
    bomb = b"x0: &x0 [a,a,a,a,a,a,a,a,a,a]\n" + b"".join(
        b"x%d: &x%d [%s]\n" % (n, n, b",".join([b"*x%d" % (n - 1)] * 10)) for n in range(1, 12)
    )
    with pytest.raises(ContentInvalid):
        split(bomb + YAML)
