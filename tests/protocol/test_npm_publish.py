"""Publishing on the wire (contract, section 6; THREATS B, C, W)."""

from __future__ import annotations

import base64
import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from formats.npm import samples
from tests.protocol.npm_client import Registry, escaped, new_registry, refused
from tests.running import Server

AGAIN = "You cannot publish over the previously published versions: {}."


@pytest.fixture
def registry(server: Server) -> Registry:
    return new_registry(server)


def test_npm_6_8_a_publish_answers_and_is_there_at_once(registry: Registry) -> None:
    document, data = samples.publication("@s/n", "1.0.0", unknown={"kept": True})
    answer = registry.put("@s%2fn", document)
    assert answer.status_code == 201
    found = answer.json()
    assert found["ok"] is found["success"] is True and found["id"] == "@s/n"
    packument = registry.packument("@s/n")
    assert found["rev"] == packument["_rev"] and packument["versions"]["1.0.0"]["unknown"] == {"kept": True}
    assert registry.get("@s/n/-/n-1.0.0.tgz").content == data


def test_npm_6_9_other_bytes_under_a_version_are_refused(registry: Registry) -> None:
    data = registry.publish("n", "1.0.0")
    other, _ = samples.publication("n", "1.0.0", homepage="https://other.example")
    refused(registry.put("n", other), 403, AGAIN.format("1.0.0"))
    assert registry.put("n", other).json()["error"] == AGAIN.format("1.0.0")
    assert registry.get("n/-/n-1.0.0.tgz").content == data and "homepage" not in registry.packument("n")


def test_npm_6_11_R12_the_same_bytes_again_are_success(registry: Registry) -> None:
    document, _ = samples.publication("n", "1.0.0")
    first = registry.put("n", document)
    before = registry.packument("n")
    again = registry.put("n", document)
    assert (first.status_code, again.status_code) == (201, 200)
    assert registry.packument("n") == before and again.json()["rev"] == before["_rev"]


def test_npm_6_12_a_removed_version_stays_burned(registry: Registry) -> None:
    registry.publish("n", "1.0.0")
    registry.publish("n", "1.1.0")
    same, _ = samples.publication("n", "1.0.0")
    document = registry.packument("n")
    del document["versions"]["1.0.0"]
    assert registry.put(f"n/-rev/{document['_rev']}", document).status_code == 200
    other, _ = samples.publication("n", "1.0.0", homepage="https://other.example")
    for attempt in (other, same):
        refused(registry.put("n", attempt), 403, AGAIN.format("1.0.0"))
    assert registry.ask("DELETE", f"n/-rev/{registry.packument('n')['_rev']}").status_code == 200
    refused(
        registry.put("n", samples.publication("n", "1.1.0", homepage="https://x.example")[0]),
        403,
        AGAIN.format("1.1.0"),
    )
    registry.publish("n", "1.2.0")
    assert registry.tags("n") == {"latest": "1.2.0"}


def test_npm_6_13_6_14_latest(registry: Registry) -> None:
    registry.publish("n", "1.0.0-beta.1", tag="beta")
    assert registry.tags("n") == {"beta": "1.0.0-beta.1", "latest": "1.0.0-beta.1"}
    registry.publish("n", "2.0.0", tag="next")
    assert registry.tags("n") == {"beta": "1.0.0-beta.1", "latest": "1.0.0-beta.1", "next": "2.0.0"}
    registry.publish("n", "1.0.0")
    assert registry.tags("n")["latest"] == "1.0.0"
    registry.publish("n", "0.9.1", tag=None)
    assert registry.tags("n")["latest"] == "1.0.0"


def test_npm_2_8_build_metadata_is_kept_and_does_not_make_another_version(registry: Registry) -> None:
    registry.publish("n", "1.0.0+a")
    assert registry.versions("n") == ["1.0.0+a"]
    tarball = registry.packument("n")["versions"]["1.0.0+a"]["dist"]["tarball"]
    assert registry.client.get(tarball).status_code == 200
    for version in ("1.0.0+b", "1.0.0"):
        refused(registry.put("n", samples.publication("n", version)[0]), 403, AGAIN.format("1.0.0+a"))
    registry.publish("n", "1.0.1")
    refused(registry.put("n", samples.publication("n", "1.0.1+b")[0]), 403, AGAIN.format("1.0.1"))


def test_npm_6_16_restricted_access_is_kept(server: Server) -> None:
    registry = new_registry(server, anonymous_read=True)
    for name, access, public in (("@s/a", None, True), ("@s/b", "restricted", False), ("@s/c", "public", True)):
        document, _ = samples.publication(name, "1.0.0")
        document["access"] = access
        assert registry.put(escaped(name), document).status_code == 201
        assert registry.get(f"-/package/{escaped(name)}/visibility").json() == {"public": public}


def test_a_version_may_be_deprecated_from_the_start(registry: Registry) -> None:
    registry.publish("n", "1.0.0", deprecated="never use this")
    assert registry.packument("n")["versions"]["1.0.0"]["deprecated"] == "never use this"


# --- what does not fit together --------------------------------------------------------------------------------------


def changed(change: Any, name: str = "n", version: str = "1.0.0", **fields: Any) -> dict[str, Any]:
    document, _ = samples.publication(name, version, **fields)
    change(document)
    return document


def the_version(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(iter(document["versions"].values()))
    return found


def the_attachment(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(iter(document["_attachments"].values()))
    return found


BAD_DOCUMENTS: dict[str, Any] = {
    "another name": lambda d: d.update(name="m"),
    "another _id": lambda d: d.update(_id="m"),
    "no versions": lambda d: d.pop("versions"),
    "versions is a list": lambda d: d.update(versions=[]),
    "two versions": lambda d: d["versions"].update({"1.0.1": dict(the_version(d), version="1.0.1")}),
    "a version that is none": lambda d: d.update(versions={"v1": the_version(d)}),
    "a version without a manifest": lambda d: d.update(versions={"1.0.0": None}),
    "another version in the manifest": lambda d: the_version(d).update(version="1.0.1"),
    "another name in the manifest": lambda d: the_version(d).update(name="m"),
    "another _id in the manifest": lambda d: the_version(d).update(_id="m@1.0.0"),
    "private": lambda d: the_version(d).update(private=True),
    "two tags": lambda d: d.update({"dist-tags": {"a": "1.0.0", "b": "1.0.0"}}),
    "a tag elsewhere": lambda d: d.update({"dist-tags": {"latest": "2.0.0"}}),
    "a tag that is a range": lambda d: d.update({"dist-tags": {"1.x": "1.0.0"}}),
    "tags is a text": lambda d: d.update({"dist-tags": "latest"}),
    "another length": lambda d: the_attachment(d).update(length=1),
    "a length of true": lambda d: the_attachment(d).update(length=True),
    "another integrity": lambda d: the_version(d)["dist"].update(
        integrity="sha512-" + base64.b64encode(bytes(64)).decode()
    ),
    "a malformed integrity": lambda d: the_version(d)["dist"].update(integrity="sha512-x"),
    "another shasum": lambda d: the_version(d)["dist"].update(shasum="0" * 40),
    "a malformed shasum": lambda d: the_version(d)["dist"].update(shasum="x"),
    "dist is a text": lambda d: the_version(d).update(dist="x"),
    "other dependencies": lambda d: the_version(d).update(dependencies={"a": "1"}),
    "other scripts": lambda d: the_version(d).update(scripts={"postinstall": "x"}),
    "another bin": lambda d: the_version(d).update(bin={"x": "y"}),
    "an unknown access": lambda d: d.update(access="everyone"),
    "no attachments": lambda d: d.update(_attachments={}),
    "two tarballs": lambda d: d["_attachments"].update({"other.tgz": the_attachment(d)}),
    "a tarball that is none": lambda d: the_attachment(d).update(data="QUJD", length=3),
    "an empty tarball": lambda d: the_attachment(d).update(data="", length=0),
    "not base64": lambda d: the_attachment(d).update(data="!"),
    "a deprecation that is no text": lambda d: the_version(d).update(deprecated=[1]),
}


@pytest.mark.parametrize("case", BAD_DOCUMENTS)
def test_npm_6_4_6_5_B10_C1_what_does_not_fit_together_is_refused(registry: Registry, case: str) -> None:
    answer = registry.put("n", changed(BAD_DOCUMENTS[case]))
    refused(answer, 400)
    refused(registry.get("n"), 404)


@pytest.mark.parametrize(
    ("manifest", "text"),
    [
        ({"name": "m", "version": "1.0.0"}, "is of 'm'"),
        ({"name": "n", "version": "1.0.1"}, "is of version '1.0.1'"),
        ({"name": "n", "version": "1.0.0", "private": True}, "private"),
        ({"name": "n", "version": "1.0.0", "dependencies": {"evil": "1"}}, "dependencies.evil"),
    ],
)
def test_npm_6_5_B10_the_tarball_must_be_of_this_version(
    registry: Registry, manifest: dict[str, Any], text: str
) -> None:
    refused(registry.put("n", samples.document("n", "1.0.0", samples.tarball(manifest))), 400, text)


@pytest.mark.parametrize("name", ["N", "@S/n", "_n", "@s/-n", "favicon.ico"])
def test_npm_2_5_names_that_may_not_be_published(registry: Registry, name: str) -> None:
    refused(registry.put(escaped(name), samples.publication(name, "1.0.0")[0]), 400)


@pytest.mark.parametrize(
    "data",
    [
        samples.tarball({"name": "n", "version": "1.0.0"}, {"../../evil": b"x"}),
        samples.tarball({"name": "n", "version": "1.0.0"}, root="/package"),
        samples.tarball({}, root="package/deeper"),
        b"PK\x03\x04" + bytes(100),
        os.urandom(2000),
    ],
    ids=["traversal", "absolute", "no manifest", "zip", "noise"],
)
def test_npm_6_5_B1_B6_hostile_tarballs_are_refused(registry: Registry, data: bytes) -> None:
    refused(registry.put("n", samples.document("n", "1.0.0", data)), 400)
    assert registry.server.admin.get(f"/api/v1/namespaces/{registry.key.split('/')[0]}").json()["used_bytes"] == 0


def test_B2_a_bomb_is_refused(registry: Registry) -> None:
    data = samples.tarball({"name": "n", "version": "1.0.0"}, {"zeros": bytes(120_000_000)})
    refused(registry.put("n", samples.document("n", "1.0.0", data)), 400, "bomb")


# --- provenance ------------------------------------------------------------------------------------------------------


def test_npm_6_3_11_9_11_10_a_provenance_bundle_is_served(registry: Registry) -> None:
    data = samples.package("@s/n", "1.0.0")
    bundle = samples.provenance("@s/n", "1.0.0", data)
    assert registry.put("@s%2fn", samples.document("@s/n", "1.0.0", data, attachments=bundle)).status_code == 201
    attestations = registry.packument("@s/n")["versions"]["1.0.0"]["dist"]["attestations"]
    assert attestations["provenance"] == {"predicateType": "https://slsa.dev/provenance/v1"}
    assert attestations["url"] == f"{registry.url}-/npm/v1/attestations/@s/n@1.0.0"
    sent = json.loads(next(iter(bundle.values()))["data"])
    path = attestations["url"].removeprefix(registry.server.url)
    for address in (path, registry.base + path.removeprefix("/"), path.replace("@s/n", "@s%2fn")):
        found = registry.client.get(address)
        assert found.json() == {"attestations": [{"predicateType": "https://slsa.dev/provenance/v1", "bundle": sent}]}
    refused(registry.get("@s/n/-/n-1.0.0.attestations.json"), 404)
    refused(registry.get("-/npm/v1/attestations/@s/n@2.0.0"), 404)
    refused(registry.get("npm/other/repo/-/npm/v1/attestations/@s/n@1.0.0"), 404)
    document = registry.packument("@s/n")
    assert registry.ask("DELETE", f"@s%2fn/-rev/{document['_rev']}").status_code == 200
    refused(registry.client.get(path) and registry.get("-/npm/v1/attestations/@s/n@1.0.0"), 404)


@pytest.mark.parametrize(
    "change",
    [
        {"subject": "pkg:npm/other@1.0.0"},
        {"subject": "pkg:npm/@s/n@1.0.0"},
        {"sha512": "0" * 128},
    ],
)
def test_npm_11_12_provenance_of_something_else_is_refused(registry: Registry, change: dict[str, str]) -> None:
    data = samples.package("@s/n", "1.0.0")
    document = samples.document("@s/n", "1.0.0", data, attachments=samples.provenance("@s/n", "1.0.0", data, **change))
    refused(registry.put("@s%2fn", document), 422)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"dsseEnvelope": 7}', '{"dsseEnvelope": {"payload": "!"}}', None, 7]
)
def test_npm_11_12_S6_a_bundle_that_cannot_be_read_is_refused(registry: Registry, text: Any) -> None:
    data = samples.package("n", "1.0.0")
    document = samples.document("n", "1.0.0", data, attachments={"n-1.0.0.sigstore": {"data": text}})
    refused(registry.put("n", document), 422)


# --- bodies ----------------------------------------------------------------------------------------------------------


def test_D7_npm_14_4_a_body_that_is_cut_off_leaves_nothing(registry: Registry) -> None:
    body = json.dumps(samples.publication("n", "1.0.0")[0]).encode()
    for cut in (1, len(body) // 2, len(body) - 1):
        refused(registry.ask("PUT", "n", content=body[:cut]), 400)
    refused(registry.get("n"), 404)
    assert registry.server.admin.get(f"/api/v1/namespaces/{registry.key.split('/')[0]}").json()["used_bytes"] == 0


def test_a_body_of_unknown_length_is_taken(registry: Registry) -> None:
    body = json.dumps(samples.publication("n", "1.0.0")[0]).encode()
    pieces = (body[at : at + 100] for at in range(0, len(body), 100))
    assert registry.ask("PUT", "n", content=pieces).status_code == 201


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b"null",
            b"[]",
            b"7",
            b'"x"',
            b"{",
            b"\xff",
            b'{"a": NaN}',
            b'{"name": "n", "name": "m"}',
            b"[" * 100_000,
        ),
        *(b'{"a":' * 100_000, b'{"versions": {"1.0.0": {"x": 1' + b"0" * 100_000 + b"}}}", b'{"_id": "n\\u0000"}'),
        *(b'{"versions": {}}', b'{"_attachments": {"a": {"data": "QUJD"}}}', b'{"_attachments": "x"}'),
    ],
    ids=lambda body: repr(body[:24]),
)
def test_R1_B7_hostile_bodies_are_refused(registry: Registry, body: bytes) -> None:
    for path in ("n", "n/-rev/1-a", "-/package/n/dist-tags/latest", "-/package/n/access"):
        answer = registry.ask("POST" if path.endswith("access") else "PUT", path, content=body)
        assert 400 <= answer.status_code < 500, (path, answer.text)
        assert answer.json()["error"]


def test_npm_6_18_a_document_that_is_too_large_is_refused(registry: Registry) -> None:
    document = {"name": "n", "versions": {}, "readme": "x" * 9_000_000}
    refused(registry.put("n", document), 413)


def test_a_packed_document_is_refused(registry: Registry) -> None:
    refused(registry.ask("PUT", "n", content=b"x", headers={"Content-Encoding": "gzip"}), 400)


def test_npm_6_20_D10_rights_are_judged_before_the_body(registry: Registry) -> None:
    document, _ = samples.publication("n", "1.0.0")
    refused(registry.as_role("reader").put("n", document), 403)
    refused(registry.as_other(registry.server.client()).put("n", document), 401)
    refused(registry.as_other(registry.server.client("nobody", "wrong")).put("n", document), 401)
    refused(registry.as_other(registry.server.client(*registry.server.make_user())).put("n", document), 404)
    assert registry.as_role("publisher").put("n", document).status_code == 201


def test_E5_a_token_of_readers_does_not_publish(registry: Registry) -> None:
    server = registry.server
    owner = server.client(*server.make_user(registry.key, "maintainer"))
    token = server.token(owner, actions=["read"], repositories=[registry.key])["token"]
    bearer = registry.as_other(server.client())
    bearer.client.headers["Authorization"] = f"Bearer {token}"
    refused(bearer.put("n", samples.publication("n", "1.0.0")[0]), 403)
    registry.publish("n", "1.0.0")
    assert bearer.versions("n") == ["1.0.0"]


def test_L1_the_quota_holds_and_says_how_full_it_is(server: Server) -> None:
    namespace = server.make_namespace(quota_bytes=3_000)
    key = server.make_repository(namespace, format="npm")
    registry = Registry(server, server.user(key, "maintainer"), key)
    registry.publish("n", "1.0.0")
    data = samples.tarball(samples.manifest("n", "1.0.1"), {"noise": os.urandom(6_000)})
    answer = registry.put("n", samples.document("n", "1.0.1", data))
    refused(answer, 403, "3000")
    assert registry.versions("n") == ["1.0.0"]


def test_a_tarball_of_many_megabytes(registry: Registry) -> None:
    data = samples.tarball(samples.manifest("n", "1.0.0"), {"noise": os.urandom(12_000_000)})
    assert registry.put("n", samples.document("n", "1.0.0", data)).status_code == 201
    assert registry.get("n/-/n-1.0.0.tgz").content == data


# --- races -----------------------------------------------------------------------------------------------------------


def test_W3_versions_published_at_once_are_all_there(registry: Registry) -> None:
    documents = [samples.publication("n", f"1.{number}.0", tag=f"t-{number}")[0] for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda document: registry.put("n", document), documents))
    assert [answer.status_code for answer in answers] == [201] * 16
    found = registry.packument("n")
    assert list(found["versions"]) == [f"1.{number}.0" for number in range(16)]
    assert {tag: version for tag, version in found["dist-tags"].items() if tag != "latest"} == {
        f"t-{number}": f"1.{number}.0" for number in range(16)
    }
    assert set(found["time"]) == {"created", "modified", *found["versions"]}
    assert len({answer.json()["rev"] for answer in answers}) == 16


def test_W2_one_version_published_at_once_with_other_bytes_has_one_winner(registry: Registry) -> None:
    attempts = [samples.publication("n", "1.0.0", homepage=f"https://{number}.example") for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda attempt: registry.put("n", attempt[0]), attempts))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [201] + [403] * 11
    winner = next(number for number, answer in enumerate(answers) if answer.status_code == 201)
    assert registry.get("n/-/n-1.0.0.tgz").content == attempts[winner][1]
    assert registry.packument("n")["homepage"] == f"https://{winner}.example"
    for answer in answers:
        if answer.status_code == 403:
            assert answer.json()["error"] == AGAIN.format("1.0.0")


def test_W2_the_same_bytes_at_once_all_succeed(registry: Registry) -> None:
    document, data = samples.publication("n", "1.0.0")
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: registry.put("n", document), range(12)))
    assert {answer.status_code for answer in answers} <= {200, 201} and sum(a.status_code == 201 for a in answers) == 1
    assert registry.get("n/-/n-1.0.0.tgz").content == data


def test_W5_publishing_and_unpublishing_at_once_ends_in_some_order(registry: Registry) -> None:
    registry.publish("n", "1.0.0")

    def publish(number: int) -> int:
        return registry.put("n", samples.publication("n", f"2.{number}.0")[0]).status_code

    def unpublish(_: int) -> int:
        found = registry.get("n?write=true")
        if found.status_code == 404:
            return 404
        return registry.ask("DELETE", f"n/-rev/{found.json()['_rev']}").status_code

    with ThreadPoolExecutor(8) as pool:
        published = pool.map(publish, range(8))
        removed = pool.map(unpublish, range(8))
        assert set(published) == {201} and set(removed) <= {200, 404, 409}
    last = registry.get("n")
    assert last.status_code in (200, 404)
    if last.status_code == 200:
        assert last.json()["dist-tags"]["latest"] in last.json()["versions"]
