"""Packuments: records in, documents out, and back (contract, sections 3, 4, 5 and 12)."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.npm import handler, listing
from repoman.core.errors import ContentInvalid, NotFound, PackageNotFound, VersionNotFound
from repoman.core.records import Entry, ListedFile, Listing
from repoman.core.refs import FileRef, ListingRef

ADDRESS = "https://host.example/npm/team/repo"
MOMENT = datetime.datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=datetime.UTC)
SHA512, SHA1 = hashlib.sha512(b"x").hexdigest(), hashlib.sha1(b"x", usedforsecurity=False).hexdigest()
INTEGRITY = "sha512-" + base64.b64encode(bytes.fromhex(SHA512)).decode()
DIST = {
    "shasum": SHA1,
    "integrity": INTEGRITY,
    "fileCount": 3,
    "unpackedSize": 99,
    "signatures": [{"keyid": "k", "sig": "s"}],
}


def entry(version: str, *, name: str = "@s/n", dist: dict[str, Any] | None = None, **fields: Any) -> Entry:
    deprecated = fields.pop("deprecated", "")
    modified = fields.pop("modified", MOMENT)
    file = ListedFile(
        f"{name.rpartition('/')[2]}-{version}.tgz",
        size=10,
        digests={"sha256": "ab" * 32, "sha1": SHA1, "sha512": SHA512},
        metadata=DIST if dist is None else dist,
        published_at=modified,
    )
    metadata = {"name": name, "version": version, "_id": f"{name}@{version}", **fields}
    return Entry(version, "version", modified=modified, metadata=metadata, files=(file,), deprecated=deprecated)


def listed(*entries: Entry, tags: dict[str, str] | None = None, **more: Any) -> Listing:
    return Listing(entries, tags={"latest": entries[-1].name} if tags is None else tags, changed_at=MOMENT, **more)


def render(found: Listing, form: str = "full", name: str = "@s/n", **arguments: str) -> Any:
    ref = ListingRef("versions", name, arguments=tuple(arguments.items()))
    return json.loads(handler.render_listing(ref, found, form, ADDRESS).data)


def parse(document: Any, name: str = "@s/n") -> Listing:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return handler.parse_listing(ListingRef("versions", name), body, url="https://up.example/x", media_type="")


# --- rendering -------------------------------------------------------------------------------------------------------


def test_npm_3_2_the_full_document() -> None:
    person = {"name": "alice", "email": ""}
    one = entry("1.0.0", description="old", _npmUser=person, readme="# one")
    two = entry("2.0.0", description="new", license="MIT", _npmUser=person, readme="# two", unknown=[1], keywords=["k"])
    found = render(listed(two, one, tags={"latest": "2.0.0", "old": "1.0.0"}, revision=7))
    assert found["_id"] == found["name"] == "@s/n"
    assert found["_rev"].startswith("7-") and found["_rev"].replace("-", "").isalnum()
    assert (found["description"], found["license"], found["readme"], found["keywords"]) == (
        "new",
        "MIT",
        "# two",
        ["k"],
    )
    assert found["maintainers"] == [person]
    assert found["dist-tags"] == {"latest": "2.0.0", "old": "1.0.0"}
    assert list(found["versions"]) == ["1.0.0", "2.0.0"]
    assert found["versions"]["2.0.0"]["unknown"] == [1] and "readme" not in found["versions"]["2.0.0"]
    assert found["versions"]["2.0.0"]["dist"] == {**DIST, "tarball": f"{ADDRESS}/@s/n/-/n-2.0.0.tgz"}
    assert found["time"] == dict.fromkeys(("created", "modified", "1.0.0", "2.0.0"), "2026-01-02T03:04:05.678Z")


def test_npm_3_3_the_abbreviated_document() -> None:
    fields = {
        "dependencies": {"a": "1"},
        "devDependencies": {"b": "1"},
        "bundledDependencies": ["a"],
        "peerDependenciesMeta": {},
        "bin": {"x": "x.js"},
        "engines": {"node": ">=20"},
        "os": ["linux"],
        "libc": ["musl"],
        "funding": "https://x.example",
        "hasInstallScript": True,
        "_hasShrinkwrap": True,
        "_npmUser": {"name": "alice"},
    }
    dropped = {"scripts": {"install": "x"}, "readme": "x", "_nodeVersion": "1", "unknown": 1, "description": "x"}
    full = handler.render_listing(
        ListingRef("versions", "@s/n"), listed(entry("1.0.0", **fields, **dropped)), "full", ADDRESS
    )
    short = handler.render_listing(
        ListingRef("versions", "@s/n"), listed(entry("1.0.0", **fields, **dropped)), "abbreviated", ADDRESS
    )
    assert full.media_type == "application/json"
    assert short.media_type == "application/vnd.npm.install-v1+json"
    found = json.loads(short.data)
    assert set(found) == {"name", "modified", "dist-tags", "versions", "time"}
    assert found["modified"] == "2026-01-02T03:04:05.678Z"
    dist = {**DIST, "tarball": f"{ADDRESS}/@s/n/-/n-1.0.0.tgz"}
    version = found["versions"]["1.0.0"]
    assert version.pop("bundleDependencies") == fields.pop("bundledDependencies")
    assert version == {"name": "@s/n", "version": "1.0.0", "dist": dist, **fields}


def test_npm_3_2_6_integrity_is_served_always() -> None:
    dist = render(listed(entry("1.0.0", dist={})))["versions"]["1.0.0"]["dist"]
    assert (dist["integrity"], dist["shasum"]) == (INTEGRITY, SHA1)


def test_npm_3_5_one_version_by_number_or_tag() -> None:
    found = listed(entry("1.0.0"), entry("2.0.0-rc.1"), tags={"latest": "1.0.0", "next": "2.0.0-rc.1"})
    full = render(found)["versions"]
    assert render(found, "version", version="1.0.0") == render(found, "version", version="latest") == full["1.0.0"]
    assert render(found, "version", version="next") == full["2.0.0-rc.1"]
    for missing in ("3.0.0", "^1.0.0", "nothing"):
        with pytest.raises(VersionNotFound):
            render(found, "version", version=missing)


def test_npm_3_2_4_deprecations_are_told() -> None:
    found = render(listed(entry("1.0.0", deprecated="use 2"), entry("2.0.0")))["versions"]
    assert found["1.0.0"]["deprecated"] == "use 2" and "deprecated" not in found["2.0.0"]


def test_npm_12_8_tags_of_missing_versions_are_dropped_and_latest_falls_back() -> None:
    entries = [entry(version) for version in ("1.0.0", "1.10.0", "1.9.0", "2.0.0-rc.1")]
    assert render(listed(*entries, tags={"latest": "3.0.0", "gone": "3.0.0", "next": "2.0.0-rc.1"}), "tags") == {
        "latest": "1.10.0",
        "next": "2.0.0-rc.1",
    }
    assert render(listed(entries[3], tags={}), "tags") == {"latest": "2.0.0-rc.1"}
    assert render(listed(*entries, tags={"latest": "1.0.0"}), "tags") == {"latest": "1.0.0"}


@pytest.mark.parametrize("form", ["full", "abbreviated", "tags", "version"])
def test_npm_12_9_no_versions_are_not_found(form: str) -> None:
    with pytest.raises(PackageNotFound):
        render(Listing(()), form)


def test_npm_4_1_times_are_complete_or_absent() -> None:
    whole = render(listed(entry("1.0.0"), entry("2.0.0")))["time"]
    assert set(whole) == {"created", "modified", "1.0.0", "2.0.0"}
    part = render(listed(entry("1.0.0"), entry("2.0.0", modified=None)))["time"]
    assert set(part) == {"created", "modified"}
    assert "time" in render(listed(entry("1.0.0", modified=None)), "abbreviated")


def test_npm_3_4_2_the_same_records_give_the_same_bytes() -> None:
    entries = [entry(f"1.{number}.0", a=1, b=2) for number in range(20)]
    shuffled = [
        replace(item, metadata=dict(reversed(item.metadata.items()))) for item in random.Random(3).sample(entries, 20)
    ]
    for form in ("full", "abbreviated", "tags"):
        ref = ListingRef("versions", "@s/n")
        one = handler.render_listing(ref, listed(*entries, tags={"latest": "1.3.0", "a": "1.2.0"}), form, ADDRESS)
        other = handler.render_listing(ref, listed(*shuffled, tags={"a": "1.2.0", "latest": "1.3.0"}), form, ADDRESS)
        assert one == other


def test_npm_11_9_attestations_get_the_address_of_this_registry_unless_they_have_one() -> None:
    here = entry("1.0.0", dist={**DIST, "attestations": {"provenance": {"predicateType": "p"}}})
    dist = render(listed(here))["versions"]["1.0.0"]["dist"]
    assert dist["attestations"] == {
        "url": f"{ADDRESS}/-/npm/v1/attestations/@s/n@1.0.0",
        "provenance": {"predicateType": "p"},
    }
    there = {"url": "https://up.example/-/npm/v1/attestations/x", "provenance": {}}
    assert (
        render(listed(entry("1.0.0", dist={"attestations": there})))["versions"]["1.0.0"]["dist"]["attestations"]
        == there
    )


def test_the_document_beside_a_tarball_is_not_the_tarball() -> None:
    item = entry("1.0.0")
    beside = ListedFile("n-1.0.0.attestations.json")
    found = render(listed(replace(item, files=(beside, *item.files))))
    assert found["versions"]["1.0.0"]["dist"]["tarball"].endswith("/n-1.0.0.tgz")


@pytest.mark.parametrize("name", ["__proto__", "constructor", "toString", "hasOwnProperty"])
def test_names_that_mean_something_elsewhere_are_plain(name: str) -> None:
    found = listed(
        entry("1.0.0", name=name, dependencies={"__proto__": "1"}), tags={"latest": "1.0.0", "__proto__": "1.0.0"}
    )
    document = render(found, name=name)
    assert document["dist-tags"]["__proto__"] == "1.0.0"
    assert parse(document, name).tags == found.tags


# --- parsing ---------------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
MANAGED = frozenset(
    {
        *("dist", "deprecated", "name", "version", "_id", "_rev", "_attachments", "dist-tags", "versions", "time"),
        *("bundleDependencies", "bundledDependencies", "readme"),
    }
)
FIELDS = st.dictionaries(TEXT.filter(lambda key: key not in MANAGED), VALUES, max_size=5)
VERSION = st.tuples(
    st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.sampled_from(["", "-rc.1", "-a", "+b"])
).map(lambda parts: f"{parts[0]}.{parts[1]}.{parts[2]}{parts[3]}")
TIMES = st.datetimes(datetime.datetime(2010, 1, 1), datetime.datetime(2030, 1, 1)).map(
    lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000, tzinfo=datetime.UTC)
)


@st.composite
def upstreams(draw: st.DrawFn) -> Listing:
    """What an upstream's document can say, as records."""
    entries = []
    for version in draw(st.lists(VERSION, min_size=1, max_size=5, unique=True)):
        at = draw(TIMES)
        fields = draw(FIELDS)
        dist = {
            key: value
            for key, value in draw(FIELDS).items()
            if key not in ("tarball", "integrity", "shasum", "attestations")
        }
        dist |= {"integrity": INTEGRITY, "shasum": SHA1}
        path = f"n-{version}.tgz"
        file = ListedFile(
            path,
            digests={"sha512": SHA512, "sha1": SHA1},
            url=f"{ADDRESS}/@s/n/-/{path}",
            published_at=at,
            metadata=dist,
        )
        entries.append(
            Entry(
                version,
                "version",
                modified=at,
                metadata={"name": "@s/n", "version": version, **fields},
                files=(file,),
                deprecated=draw(TEXT),
            )
        )
    entries.sort(key=lambda item: handler.version_key(item.name))
    names = [item.name for item in entries]
    tags = draw(st.dictionaries(TEXT.filter(lambda tag: tag != "latest"), st.sampled_from(names), max_size=3))
    document = draw(FIELDS)
    created = draw(TIMES).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Listing(
        tuple(entries),
        tags={"latest": draw(st.sampled_from(names)), **tags},
        metadata={"document": {"maintainers": [], **document}, "created": created},
        changed_at=draw(TIMES),
    )


@given(upstreams())
@settings(max_examples=200, deadline=None)
def test_parse_is_the_inverse_of_render(found: Listing) -> None:
    ref = ListingRef("versions", "@s/n")
    document = handler.render_listing(ref, found, "full", ADDRESS)
    again = handler.parse_listing(ref, document.data, url="", media_type=document.media_type)
    # What the latest version says of itself stands at the top as well, where an upstream said nothing.
    top = {key: value for key, value in again.metadata["document"].items() if key in found.metadata["document"]}  # type: ignore[attr-defined, operator]
    assert replace(again, metadata={**again.metadata, "document": top}) == found
    assert handler.render_listing(ref, again, "full", ADDRESS) == document


def version(number: str = "1.0.0", **dist: Any) -> dict[str, Any]:
    tarball = f"https://up.example/@s/n/-/n-{number}.tgz"
    return {
        "name": "@s/n",
        "version": number,
        "dist": {"tarball": tarball, "shasum": SHA1, "integrity": INTEGRITY, **dist},
    }


def packument(*versions: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": "@s/n", "versions": {item["version"]: item for item in versions}, "dist-tags": {}, **fields}


def test_npm_11_6_12_5_what_an_upstream_says_passes_through_but_the_address() -> None:
    signatures = [{"keyid": "SHA256:up", "sig": "x"}]
    attestations = {"url": "https://up.example/a", "provenance": {"predicateType": "p"}}
    sent = packument(
        version(signatures=signatures, attestations=attestations, unknown={"x": [1]}),
        users={"bob": True},
        odd=[1, {"y": 2}],
    )
    found = parse(sent)
    file = found.entries[0].files[0]
    assert (file.path, file.url) == ("n-1.0.0.tgz", "https://up.example/@s/n/-/n-1.0.0.tgz")
    assert file.digests == {"sha512": SHA512, "sha1": SHA1} and file.size is None
    served = render(found)
    assert served["users"] == {"bob": True} and served["odd"] == [1, {"y": 2}]
    dist = served["versions"]["1.0.0"]["dist"]
    assert dist.pop("tarball") == f"{ADDRESS}/@s/n/-/n-1.0.0.tgz"
    assert dist == {key: value for key, value in sent["versions"]["1.0.0"]["dist"].items() if key != "tarball"}


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("https://up.example/@s/n/-/n-1.0.0.tgz?token=x#y", "n-1.0.0.tgz"),
        ("https://up.example/@s/n/-/@s/n-1.0.0.tgz", "n-1.0.0.tgz"),
        ("https://up.example/download/@s/n/1.0.0/0123abcd", "0123abcd"),
        ("https://up.example/odd%20name.tgz", "n-1.0.0.tgz"),
        ("https://up.example/", "n-1.0.0.tgz"),
        ("https://up.example/..", "n-1.0.0.tgz"),
        ("https://up.example/" + "x" * 300, "n-1.0.0.tgz"),
        ("https://up.example/n-1.0.0.attestations.json", "n-1.0.0.tgz"),
    ],
)
def test_npm_5_14_files_are_named_as_upstream_names_them(address: str, path: str) -> None:
    assert parse(packument(version(tarball=address))).entries[0].files[0].path == path


def test_two_versions_do_not_share_a_file() -> None:
    same = "https://up.example/n.tgz"
    found = parse(packument(version("1.0.0", tarball=same), version("2.0.0", tarball=same)))
    assert [item.name for item in found.entries] == ["1.0.0"]


@pytest.mark.parametrize(
    "bad",
    [
        *(
            None,
            7,
            "x",
            [],
            {},
            {"dist": None},
            {"dist": {}},
            {"dist": {"tarball": 7}},
            {"dist": {"tarball": "ftp://x/y"}},
        ),
        *(
            {"dist": {"tarball": "file:///etc/passwd"}},
            {"dist": {"tarball": "//x/y.tgz"}},
            {"dist": {"tarball": "https://"}},
        ),
        {"dist": {"tarball": "https://[/x.tgz"}},
        {**version("2.0.0"), "version": "3.0.0"},
        {**version("2.0.0"), "name": "other"},
    ],
)
def test_G6_malformed_versions_are_left_out_one_by_one(bad: Any) -> None:
    sent = packument(version("1.0.0"))
    sent["versions"]["2.0.0"] = bad
    assert [item.name for item in parse(sent).entries] == ["1.0.0"]


def test_versions_that_are_no_versions_are_left_out() -> None:
    sent = packument(version("1.0.0"))
    for name in ("1.0", "v1.0.0", "", "__proto__", "01.0.0"):
        sent["versions"][name] = {**version("1.0.0"), "version": name}
    assert [item.name for item in parse(sent).entries] == ["1.0.0"]


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<!DOCTYPE html><html>sign in</html>", b"{}", b"[]", b"null", b'"x"', b"7", b'{"error": "not_found"}'),
        *(b'{"name": "@s/n"}', b'{"name": "@s/n", "versions": []}', b'{"name": "@s/n", "versions": "x"}'),
        *(b'{"name": "other", "versions": {}}', b'{"versions": {}}', b'{"name": "@s/n", "versions": {}', b"\xff\xfe"),
        *(b'{"name": "@s/n", "versions": NaN}', b"[" * 100_000, b'{"a":' * 100_000, b'{"name": 7, "versions": {}}'),
    ],
    ids=lambda body: repr(body[:30]),
)
def test_G6_B7_what_is_no_packument_is_refused(body: bytes) -> None:
    with pytest.raises(ContentInvalid):
        parse(body)


def test_npm_4_7_a_package_that_was_unpublished_has_no_versions() -> None:
    found = parse(
        {"name": "@s/n", "time": {"created": "2020-01-01T00:00:00.000Z", "unpublished": {"versions": ["1.0.0"]}}}
    )
    assert found.entries == ()


def test_half_a_surrogate_pair_in_a_description_is_survived() -> None:
    body = json.dumps(packument(version("1.0.0"), description="cut \ud83d")).encode()
    assert parse(body).metadata["document"]["description"] == "cut ?"  # type: ignore[index]


@pytest.mark.parametrize(
    ("value", "text"),
    [("use 2", "use 2"), ("", ""), (False, ""), (None, ""), (True, "this version is deprecated"), ({}, "")],
)
def test_deprecations_of_any_type_are_texts(value: Any, text: str) -> None:
    assert parse(packument({**version(), "deprecated": value})).entries[0].deprecated == text


@pytest.mark.parametrize(
    ("dist", "digests"),
    [
        ({"integrity": INTEGRITY}, {"sha512": SHA512}),
        ({"shasum": SHA1.upper()}, {"sha1": SHA1}),
        (
            {"integrity": f"{INTEGRITY}?opt sha1-{base64.b64encode(bytes.fromhex(SHA1)).decode()}"},
            {"sha512": SHA512, "sha1": SHA1},
        ),
        ({"integrity": f"{INTEGRITY} sha512-{base64.b64encode(bytes(64)).decode()}"}, {"sha512": SHA512}),
        ({"integrity": "sha384-" + base64.b64encode(bytes(48)).decode()}, {"sha384": "00" * 48}),
        ({"integrity": "sha256-" + base64.b64encode(bytes(32)).decode()}, {"sha256": "00" * 32}),
        ({"integrity": "sha512-AAAA", "shasum": "zz"}, {}),
        ({"integrity": "md5-AAAA sha512- sha512", "shasum": None}, {}),
        ({"integrity": 7, "shasum": ["x"]}, {}),
        ({"integrity": "sha512-\u00e9"}, {}),
        ({}, {}),
    ],
)
def test_C2_integrity_in_every_form(dist: dict[str, Any], digests: dict[str, str]) -> None:
    assert listing.digests_of(dist) == digests


@pytest.mark.parametrize(
    "moment", ["", "x", "2026-13-01T00:00:00Z", 7, None, {}, "0001-01-01T00:00:00+23:59", "x" * 100, "99999-01-01"]
)
def test_R1_odd_times_are_none(moment: Any) -> None:
    found = parse(packument(version(), time={"1.0.0": moment, "modified": moment, "created": moment}))
    assert found.entries[0].modified is None and found.changed_at is None and "created" not in found.metadata


@given(VALUES, VALUES, VALUES, VALUES)
@settings(max_examples=200, deadline=None)
def test_R1_documents_with_odd_values_are_read_or_refused(time: Any, tags: Any, manifest: Any, dist: Any) -> None:
    sent = {
        "name": "@s/n",
        "time": time,
        "dist-tags": tags,
        "versions": {"1.0.0": manifest, "2.0.0": {"dist": dist, "keywords": manifest}, "3.0.0": version("3.0.0")},
        "maintainers": dist,
        "bundledDependencies": time,
    }
    render(parse(sent))


# --- upstreams -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "path"), [("n", "n"), ("@s/n", "@s%2fn"), ("JSONStream", "JSONStream")])
def test_npm_12_1_the_full_document_is_asked_for(name: str, path: str) -> None:
    request = handler.upstream(ListingRef("versions", name), None)
    assert (request.path, request.accept, request.is_document) == (path, "application/json", True)


@pytest.mark.parametrize("ref", [FileRef("n", "n-1.0.0.tgz"), ListingRef("packages"), ListingRef("tags", "n")])
def test_nothing_else_is_asked_of_an_upstream(ref: Any) -> None:
    with pytest.raises(NotFound):
        handler.upstream(ref, None)


def test_npm_3_2_2_revisions_are_opaque_and_change() -> None:
    texts = {listing.revision_text(name, number) for name in ("n", "@s/n") for number in (1, 2)}
    assert len(texts) == 4 and all(text.replace("-", "").isalnum() for text in texts)
