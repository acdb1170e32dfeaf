"""The index, written and taken apart (helm.md I1 to I14, I22, I26, V1 to V4; THREATS G6, G9)."""

from __future__ import annotations

import datetime
import json
import time
from typing import Any

import pytest

from formats.helm import listing, samples
from repoman.core.errors import ContentInvalid
from repoman.core.records import Entry, ListedFile, Listing
from repoman.core.refs import ListingRef
from tests.tools.effort import allowed

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
        {"urls": [""]}, {"urls": ["?x=1"]}, {"urls": [" #a"]}, {"urls": ["."]}, {"urls": ["./"]}, {"urls": ["/"]},
        {"urls": [".."]}, {"urls": ["index.yaml"]}, {"urls": ["/base/./index.yaml?x"]}, {"urls": ["https://other.example"]},
        {"urls": ["https://other.example/?x=1"]}, {"urls": ["//upstream.example/base/index.yaml"]},
    ],
)  # fmt: skip
def test_helm_v4_v12_o16_entries_that_cannot_be_kept_are_skipped(change: dict[str, Any]) -> None:
    good = samples.entry(DATA, version="2.0.0")
    body = json.dumps(
        {"apiVersion": "v1", "entries": {"demo": [samples.entry(DATA) | change, None, 7, [], good]}}
    ).encode()
    assert [entry.name for entry in split(body)["demo"].entries] == ["2.0.0"]


def test_helm_v2_c6_the_first_address_that_leads_to_a_file_counts() -> None:
    urls = ["", "?x=1", "oci://registry.example/demo:1.0.0", 7, "second.tgz", "third.tgz"]
    assert only(samples.index(samples.entry(DATA, urls=urls))).files[0].url.endswith("/base/second.tgz")
    folder = samples.index(samples.entry(DATA, url="https://other.example/demo/1.0.0/download/"))
    assert only(folder).files[0].url == "https://other.example/demo/1.0.0/download/"


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
    for empty in (b"apiVersion: v1\nentries: {}\n", b"entries:\napiVersion: v1\n", b"apiVersion: v1\nentries: null"):
        assert split(empty) == {}


@pytest.mark.parametrize(
    "body",
    [
        YAML[: YAML.index(b"version: 0.9.0")],
        YAML[: YAML.index(b"ion: 0.9.0")],
        YAML[: YAML.index(b"urls: [demo") + 8],
        YAML[: YAML.index(b"generated")].removesuffix(b".0\n"),
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


# Entries in the orders of keys that tools write: Helm's own, as people do by hand, and with the digest at the end.
ORDERS = {
    "helm": """  - created: "2024-01-31T10:11:12.5Z"
    description: a sentence of
      two lines
    digest: {digest}
    maintainers:
    - name: Somebody
    name: {name}
    urls:
    - https://charts.example/{name}-{version}.tgz
    version: {version}
""",
    "by hand": """  - name: {name}
    version: {version}
    urls: [{name}-{version}.tgz]
""",
    "addresses at the end": """  - name: {name}
    version: {version}
    digest: {digest}
    urls:
    - {name}-{version}.tgz
""",
    "digest at the end": """  - name: {name}
    version: "{version}"
    urls: ["{name}-{version}.tgz"]
    created: 2024-01-31T10:11:12Z
    digest: {digest}
""",
    "moment at the end": """  - name: {name}
    urls: [{name}-{version}.tgz]
    version: {version}
    digest: {digest}
    created: 2024-01-31T10:11:12+02:00
""",
}
HEADS = {"plain": "apiVersion: v1\n", "dated": 'apiVersion: v1\ngenerated: "2024-01-31T10:11:12Z"\n'}


def block(order: str, head: str = "plain") -> tuple[bytes, list[tuple[str, str]]]:
    """An index that ends with its entries, and the charts with their versions in it."""
    charts = {"one": ["1.2.34", "1.2.3"], "two": ["1.2"], "three": ["10.0.0", "1.0.0"]}
    text = HEADS[head] + "entries:\n"
    for name, versions in charts.items():
        text += f"  {name}:\n"
        text += "".join(ORDERS[order].format(name=name, version=one, digest="0a" * 32) for one in versions)
    return text.encode(), [(name, one) for name, versions in charts.items() for one in versions]


@pytest.mark.parametrize("order", [order for order in ORDERS if order != "moment at the end"])
@pytest.mark.parametrize("head", HEADS)
def test_helm_v4_an_index_cut_anywhere_is_refused_unless_between_two_entries(order: str, head: str) -> None:
    body, versions = block(order, head)
    whole = split(body)
    assert [(name, one.name) for name, listing in whole.items() for one in listing.entries] == versions
    taken = set()
    for length in range(len(body)):
        try:
            found = split(body[:length])
        except ContentInvalid:
            continue
        kept = [(name, entry) for name, listing in found.items() for entry in listing.entries]
        assert [(name, entry.name) for name, entry in kept] == versions[: len(kept)], body[:length]
        # Nobody can know that the very first entry has another line.
        assert len(kept) == 1 or all(entry in whole[name].entries for name, entry in kept), body[:length]
        rest = body[length:].lstrip(b" \n")
        assert len(kept) == 1 or rest == b"" or rest.startswith((b"- ", b"two:", b"three:")), body[:length]
        taken.add(len(kept))
    assert taken == set(range(1, len(versions) + 1))


@pytest.mark.parametrize("order", ORDERS)
def test_helm_v4_no_line_break_at_the_end_is_no_cut(order: str) -> None:
    body, versions = block(order)
    for more in (b"", b" ", b"\r\n", b"\n# the end", b"\n...", b"\n---\nmore: 1"):
        assert sum(len(found.entries) for found in split(body.rstrip() + more).values()) == len(versions)


HEAD = b"apiVersion: v1\nentries:\n"
GOOD = b"  x:\n  - {name: x, version: 1.2.3, urls: [x-1.2.3.tgz]}\n"
BLOCK = b"  x:\n  - name: x\n    version: 1.2.3\n    urls:\n    - x-1.2.3.tgz\n"


@pytest.mark.parametrize(
    "end",
    [
        b"  z:\n", b"  z:", b"  z:\n  -\n", b"  z:\n  - ", b"  z:\n  - name", b"  z:\n  - name:\n",
        b"  z:\n  - name: z\n", b"  z:\n  - name: z\n    version: 1.2.3\n    urls:\n",
        b"  z:\n  - name: z\n    urls: [z-1.2.3.tgz]\n    version:\n",
        b"  z:\n  - name: z\n    urls: [z-1.2.3.tgz]\n    version: 1.2",
        b"  z:\n  - name: z\n    urls: [download/7]\n    version: 1.2.3",
        b"  z:\n  - name: z\n    version: 1.2.3\n    urls:\n    - z-1.2.3.tgz?token=1",
        b"  z:\n  - name: z\n    version: 1.2.3\n    urls: [z-1.2.3.tgz]\n    description: a senten",
        b"  z:\n  - name: z\n    version: 1.2.3\n    urls: [z-1.2.3.tgz]\n    description: |\n      # a senten",
        b"  z:\n  - name: z\n    version: 1.2.3\n    urls: [z-1.2.3.tgz]\n    icon:\n",
        b"  z:\n  - name: z\n    version: 1.2.3\n    urls: [z-1.2.3.tgz]\n    digest: " + b"a" * 63,
        b"  z: &z\n  - name: z\n    version: 1.2.3\n",
        b"  z:\n  - name: z\n    version: 1.2.3\n    urls: [z-1.2.3.tgz]\n    dependencies:\n    - version: ~",
        b"  z: &z\n  - name: z\n    version: 1.2.3\n    urls: [z-1.2.3.tgz]\n  zz: *z",
    ],
)  # fmt: skip
@pytest.mark.parametrize("entries", [GOOD, BLOCK, b""], ids=["brackets before", "lines before", "nothing before"])
def test_helm_v4_what_ends_in_the_middle_of_an_entry_is_refused(end: bytes, entries: bytes) -> None:
    dated = HEAD.replace(b"entries", b"generated: '2024-01-31T10:11:12Z'\nentries")
    for head in (HEAD, dated):
        with pytest.raises(ContentInvalid, match="cut off|cannot be read"):
            split(head + entries + end)


def test_helm_v4_an_entry_without_the_digest_that_all_others_have_was_cut() -> None:
    entry = "  - name: {0}\n    version: 1.0.0\n    urls: [{0}-1.0.0.tgz]\n"
    digest = "    digest: " + "a" * 64 + "\n"
    first, second = (f"  {name}:\n" + entry.format(name) for name in "xz")
    with pytest.raises(ContentInvalid, match="cut off"):
        split(HEAD + (first + digest + second).encode())
    for whole in (first + digest + second + digest, first + second, second + digest + first + second + digest):
        assert list(split(HEAD + whole.encode()))


@pytest.mark.parametrize(
    "end",
    [
        # without a name, but it ends as the one before it; or what follows shows that nothing is missing
        b"  z:\n  - created: yesterday\n    version: 1.2.3\n    urls:\n    - z-1.2.3.tgz\n",
        b"  z:\n  - version: 1.2.3\ngenerated: x\n", b"  z:\n  - version: 1.2.3\n...\n", b"  z:\n  - {version: 1.2.3}",
        b"  z:\n  - name: z\n    version: x\n    urls: []\n", b"  z:\n  - null\n", b"  z: []", b"  z: null", b"  z: 1\n",
        b"  z:\n  - name: z\n    urls: [oci://registry.example/z:1.2.3]\n    version: 1.2.3\n", b"  z:\ngenerated: x\n",
    ],
)  # fmt: skip
def test_helm_v4_a_bad_entry_at_the_end_costs_that_entry(end: bytes) -> None:
    assert list(split(HEAD + BLOCK + end)) == ["x"]


@pytest.mark.parametrize(
    "body",
    [
        b"{apiVersion: v1, entries: {x: [{name: x, version: 1.2.3, urls: [a]}]}}",
        b"apiVersion: v1\nentries: {x: [{name: x, version: 1.2.3, urls: [a]}]}",
        HEAD + b"  x: [{name: x, version: 1.2.3, urls: [a]}]",
        HEAD + b"  x:\n  - {name: x, version: 1.2.3, urls: [a]}",
        HEAD + b"  x:\n  - name: x\n    version: 1.2.3\n    urls: [a]",
        HEAD + b"  x:\n  - name: x\n    urls: [a]\n    version: '1.2.3'",
    ],
)
def test_helm_v4_what_brackets_or_quotes_close_is_whole(body: bytes) -> None:
    assert list(split(body)) == ["x"]


def test_helm_v4_an_alias_of_a_charts_list_is_read() -> None:
    for entries in (b"  x: &x\n" + BLOCK[5:], b"  x: &x [{name: x, version: 1.2.3, urls: [a]}]\n"):
        assert list(split(HEAD + entries + b"  xx: *x\n" + GOOD.replace(b"x", b"z"))) == ["x", "z"]
    shared = (
        b"  x: [&x {name: x, version: 1.2.3, urls: &u [a]}]\n  xx: [*x]\n  z: [{name: z, version: 1.0.0, urls: *u}]\n"
    )
    assert list(split(HEAD + shared)) == ["x", "z"]
    assert list(split(b"&top\napiVersion: v1\nentries: &all\n" + GOOD)) == ["x"]


@pytest.mark.parametrize(
    "text", [rb"a\ud83d b", rb"\ude00", rb"\ud83d\u0041", b"caf\xe9", rb"\\\ud83d", b"\xf0\x9f\x98 a"]
)
def test_helm_v4_i5_json_with_characters_that_are_none(text: bytes) -> None:
    body = samples.index(samples.entry(DATA, description="TEXT", home=r"\ud83d \u00e9 \U0001f600"))
    found = only(body.replace(b"TEXT", text))
    kept = json.loads(str(found.files[0].metadata["entry"]))
    assert "\ufffd" in kept["description"] and kept["home"] == r"\ud83d \u00e9 \U0001f600"
    whole = only(body.replace(b"TEXT", rb"\ud83d\ude00\ud83d"))
    assert json.loads(str(whole.files[0].metadata["entry"]))["description"] == "\U0001f600\ufffd"
    with pytest.raises(ContentInvalid):
        split(body.replace(b"TEXT", text)[:-20])


@pytest.mark.parametrize(
    "field",
    [
        b"keywords: [" + b"a," * 100_001 + b"a]",
        b"annotations: {" + b",".join(b"k%d: v" % n for n in range(60_000)) + b"}",
        b"keywords: [" + b",".join(b"&k%d a" % n for n in range(100_001)) + b"], home: *k99989, icon: *k100000",
        b"x: " + b"[" * 100 + b"]" * 100,
        b"x: [&deep " + b"[" * 100 + b"]" * 100 + b", b], y: *deep",
    ],
    ids=["values", "pairs", "anchors", "levels", "alias"],
)
def test_helm_v4_b9_an_entry_that_is_too_large_costs_that_entry(field: bytes) -> None:
    large = b"  - {name: x, version: 2.0.0, urls: [a], " + field + b", description: d}\n"
    anchored = large.replace(b"{", b"&large {", 1)
    good = GOOD.replace(b"x", b"z")
    others = b"  zz: " + (
        b"[%s]\n" % b",".join(b"*k%d" % n for n in range(99_980, 100_001)) if b"&k" in field else b"*large\n"
    )
    for end in (large, large + good, anchored + others + good):
        found = split(HEAD + GOOD + end)
        assert [entry.name for entry in found.pop("x").entries] == ["1.2.3"] and (list(found) == ["z"] or end is large)


def test_helm_v4_b9_what_is_too_large_elsewhere_costs_nothing() -> None:
    large = b"[" + b"a," * 100_001 + b"a]"
    assert list(split(b"apiVersion: v1\nfoo: " + large + b"\nentries:\n  b: &b " + large + b"\n  c: *b\n" + GOOD)) == [
        "x"
    ]
    exactly = b"[" + b"a," * (100_000 - 11) + b"a]"
    assert list(split(HEAD + GOOD[:-2] + b", x: " + exactly + b"}\n" + GOOD.replace(b"x", b"z"))) == ["x", "z"]
    with pytest.raises(ContentInvalid, match="deeper than 256"):
        split(HEAD + b"  z: " + b"[" * 300 + b"]" * 300 + b"\n" + GOOD)
    with pytest.raises(ContentInvalid, match="no index"):
        split(b"apiVersion: v1\nentries: " + large)


def test_b9_g9_aliases_that_stand_for_much_cost_little() -> None:
    bomb = b"x0: &x0 [a,a,a,a,a,a,a,a,a,a]\n" + b"".join(
        b"x%d: &x%d [%s]\n" % (n, n, b",".join([b"*x%d" % (n - 1)] * 10)) for n in range(1, 12)
    )
    begun = time.process_time()
    assert [entry.name for entry in split(bomb + YAML)["demo"].entries] == ["1.0.0", "0.9.0"]
    many = b"".join(
        b"  - {name: x, version: 1.0.%d, urls: [a], dependencies: [{name: a, import-values: *x3}]}\n" % n
        for n in range(2000)
    )
    assert 0 < len(split(bomb + HEAD + b"  x:\n" + many)["x"].entries) < 2000
    assert time.process_time() - begun < allowed(10)


def test_helm_v4_one_chart_of_an_index_that_was_cut_off_is_refused_too() -> None:
    ref = ListingRef("versions", "x")
    assert [entry.name for entry in listing.parse(ref, HEAD + BLOCK, url=URL).entries] == ["1.2.3"]
    with pytest.raises(ContentInvalid, match="cut off"):
        listing.parse(ref, HEAD + BLOCK + b"  z:\n", url=URL)
