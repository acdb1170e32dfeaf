"""Ping, search, audit and keys on the wire (contract, sections 1, 9, 10 and 11)."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from tests.protocol.npm_client import INSTALL, Registry, new_registry, refused
from tests.running import Server


@pytest.fixture
def registry(server: Server) -> Registry:
    return new_registry(server)


def test_npm_1_10_ping(registry: Registry) -> None:
    for caller in (registry, registry.as_other(registry.server.client())):
        assert caller.get("-/ping").json() == {}
        assert caller.get("-/ping?write=true").status_code == 200


# --- 9: search -------------------------------------------------------------------------------------------------------


@pytest.fixture
def searched(registry: Registry) -> Registry:
    registry.publish("logger", "1.0.0", keywords=["log", "text"], author={"name": "Ann"})
    registry.publish("logger", "2.0.0-rc.1", tag="next")
    registry.publish("@tools/logger", "1.0.0", keywords=["log"], author="Bob <bob@example.org>")
    registry.publish("@tools/paint", "1.0.0", homepage="https://paint.example", bugs={"url": "https://bugs.example"})
    registry.publish("a-logger", "0.1.0", repository="github:x/y")
    return registry


def found(registry: Registry, text: str, more: str = "") -> list[str]:
    answer = registry.get(f"-/v1/search?text={text}{more}")
    assert answer.status_code == 200, answer.text
    return [item["package"]["name"] for item in answer.json()["objects"]]


def test_npm_9_2_9_3_15_16_a_hit_has_what_clients_read(searched: Registry) -> None:
    answer = searched.get("-/v1/search?text=logger&size=20&from=0&quality=0.65&popularity=0.98&maintenance=0.5").json()
    assert answer["total"] == 3 and answer["time"]
    hit = answer["objects"][0]
    user = searched.get("-/whoami").json()["username"]
    assert set(hit["score"]) == {"final", "detail"} and set(hit["score"]["detail"]) == {
        "quality",
        "popularity",
        "maintenance",
    }
    assert hit["searchScore"] > 0
    package = hit["package"]
    assert (package["name"], package["version"]) == ("@tools/logger", "1.0.0")
    assert package["publisher"] == {"username": user, "email": ""} and package["maintainers"] == [package["publisher"]]
    assert package["keywords"] == ["log"] and package["date"].endswith("Z")
    assert [item["package"]["version"] for item in answer["objects"]] == ["1.0.0", "1.0.0", "0.1.0"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("logger", ["@tools/logger", "logger", "a-logger"]),
        ("LOGGER", ["@tools/logger", "logger", "a-logger"]),
        ("tools", ["@tools/logger", "@tools/paint"]),
        ("scope:tools", ["@tools/logger", "@tools/paint"]),
        ("scope:@tools%20paint", ["@tools/paint"]),
        ("keywords:text", ["logger"]),
        ("keywords:text,log", ["logger", "@tools/logger"]),
        ("author:ann", ["logger"]),
        ("logger%20text", ["logger"]),
        ("text", ["logger"]),
        ("scope:nobody%20text", []),
        ("nothing-like-it", []),
        ("%25", []),
        ("_", []),
        ("*", []),
        ("a.*", []),
        ("'%20OR%201=1", []),
    ],
)
def test_npm_9_5_A11_what_is_found(searched: Registry, text: str, names: list[str]) -> None:
    assert sorted(found(searched, text)) == sorted(names)


def test_npm_9_1_I8_pages_are_bounded(searched: Registry) -> None:
    everything = found(searched, "")
    assert len(everything) == 4
    assert found(searched, "", "&size=2") + found(searched, "", "&size=2&from=2") == everything
    assert found(searched, "", "&size=0") == [] and found(searched, "", "&from=999") == []
    assert found(searched, "", "&size=999999999") == everything
    for query in ("size=-1", "from=x", "size=1.5", "from=" + "9" * 19, "text=" + "x" * 600):
        refused(searched.get(f"-/v1/search?{query}"), 400)


def test_npm_9_4_F5_search_respects_rights(searched: Registry) -> None:
    refused(searched.as_other(searched.server.client()).get("-/v1/search?text=logger"), 401)
    assert found(new_registry(searched.server), "logger") == []


def test_npm_9_removed_packages_are_not_found(searched: Registry) -> None:
    searched.ask("DELETE", f"logger/-rev/{searched.packument('logger')['_rev']}")
    assert found(searched, "logger") == ["@tools/logger", "a-logger"]


# --- 10: audit -------------------------------------------------------------------------------------------------------

BULK = "-/npm/v1/security/advisories/bulk"
TREES = ("-/npm/v1/security/audits", "-/npm/v1/security/audits/quick")


@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_npm_10_1_10_2_15_3_bulk(registry: Registry, coding: str) -> None:
    body = json.dumps({"n": ["1.0.0", "2.0.0"], "@s/n": ["1.0.0"]}).encode()
    answer = registry.ask(
        "POST", BULK, content=gzip.compress(body) if coding == "gzip" else body, headers={"Content-Encoding": coding}
    )
    assert answer.status_code == 200 and answer.json() == {}
    assert answer.headers["content-type"] == "application/json" and "content-encoding" not in answer.headers


@pytest.mark.parametrize("path", TREES)
def test_npm_10_12_a_tree(registry: Registry, path: str) -> None:
    tree = {
        "name": "x",
        "requires": {"n": "^1"},
        "dependencies": {
            ".": {"dependencies": {"n": {"version": "1.0.0", "dependencies": {"m": {"version": "2.0.0"}}}}},
            "o": {"version": "1.0.0"},
        },
    }
    for data, headers in (
        (json.dumps(tree).encode(), {}),
        (gzip.compress(json.dumps(tree).encode()), {"Content-Encoding": "gzip"}),
    ):
        found = registry.ask("POST", path, content=data, headers=headers).json()
        assert found["actions"] == [] and found["advisories"] == {} and found["muted"] == []
        counts = found["metadata"]["vulnerabilities"]
        assert counts == dict.fromkeys(("info", "low", "moderate", "high", "critical"), 0)
        assert found["metadata"]["totalDependencies"] == 4


@pytest.mark.parametrize("path", [BULK, *TREES])
@pytest.mark.parametrize(
    ("body", "coding", "status"),
    [
        (b"", "identity", 400),
        (b"[]", "identity", 400),
        (b"{", "identity", 400),
        (b"{}", "gzip", 400),
        (gzip.compress(b"{}")[:-3], "gzip", 400),
        (gzip.compress(b"{}") + b"x", "gzip", 400),
        (gzip.compress(b"[" * 100_000), "gzip", 400),
        (gzip.compress(bytes(20_000_000)), "gzip", 413),
        (b"x" * 5_000_000, "identity", 413),
        (b"{}", "br", 400),
        (b'{"dependencies":' * 90 + b"1" + b"}" * 90, "identity", 400),
    ],
    ids=["empty", "list", "cut", "not gzip", "cut gzip", "rest", "deep", "bomb", "large", "brotli", "deep tree"],
)
def test_npm_10_15_R1_B2_B7_bodies_are_bounded(
    registry: Registry, path: str, body: bytes, coding: str, status: int
) -> None:
    refused(registry.ask("POST", path, content=body, headers={"Content-Encoding": coding}), status)


@pytest.mark.parametrize("body", [{"n": "1.0.0"}, {"n": [1]}, {"n": None}])
def test_npm_10_1_names_have_lists_of_versions(registry: Registry, body: Any) -> None:
    refused(registry.ask("POST", BULK, json=body), 400)


def test_npm_8_17_tokens_of_readers_may_audit(registry: Registry) -> None:
    assert registry.as_role("reader").ask("POST", BULK, json={}).status_code == 200
    refused(registry.as_other(registry.server.client()).ask("POST", BULK, json={}), 401)


# --- 11: signatures --------------------------------------------------------------------------------------------------


def test_npm_11_1_11_2_every_version_is_signed_and_the_keys_verify(registry: Registry) -> None:
    registry.publish("@s/n", "1.0.0")
    registry.publish("@s/n", "1.1.0")
    keys = {key["keyid"]: key for key in registry.get("-/npm/v1/keys").json()["keys"]}
    for key in keys.values():
        assert key["keytype"] == key["scheme"] == "ecdsa-sha2-nistp256" and key["keyid"].startswith("SHA256:")
        assert key["expires"] is None or key["expires"].endswith("Z")
    documents = [registry.packument("@s/n"), registry.packument("@s/n", accept=INSTALL)]
    for version in ("1.0.0", "1.1.0"):
        dists = [document["versions"][version]["dist"] for document in documents]
        dists.append(registry.get(f"@s/n/{version}").json()["dist"])
        assert dists[0] == dists[1] == dists[2]  # 15.17
        (signature,) = dists[0]["signatures"]
        public = load_der_public_key(base64.b64decode(keys[signature["keyid"]]["key"]))
        assert isinstance(public, ec.EllipticCurvePublicKey)
        payload = f"@s/n@{version}:{dists[0]['integrity']}".encode()
        public.verify(base64.b64decode(signature["sig"]), payload, ec.ECDSA(hashes.SHA256()))


def test_npm_11_10_attestations_that_are_not_there(registry: Registry) -> None:
    registry.publish("n", "1.0.0")
    for path in ("n@1.0.0", "n@2.0.0", "nobody@1.0.0"):
        refused(registry.get(f"-/npm/v1/attestations/{path}"), 404)
    for path in ("n", "n@latest", "n@", "@s/n@1.0.0@2"):
        answer = registry.get(f"-/npm/v1/attestations/{path}")
        assert answer.status_code in (400, 404) and answer.json()["error"]
