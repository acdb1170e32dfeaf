"""Remote and virtual npm repositories: what is particular to this format (contract, sections 4, 5, 11 and 12)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from formats.npm import samples
from tests.protocol.npm_client import INSTALL, Registry, escaped, new_registry, refused
from tests.running import Deployment, Server
from tests.tools.upstream import Answer, Upstream

KEY = {
    "expires": None,
    "keyid": "SHA256:theirs",
    "keytype": "ecdsa-sha2-nistp256",
    "scheme": "ecdsa-sha2-nistp256",
    "key": "x",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Deployment.embedded(tmp_path_factory.mktemp("npm-remote"), REPOMAN_UPSTREAM_ALLOW="127.0.0.0/8") as found:
        yield found


@pytest.fixture
def registry(server: Server, upstream: Upstream) -> Registry:
    return new_registry(server, type="remote", remote={"url": upstream.url("/npm/")})


def serve(upstream: Upstream, name: str, *versions: str, **more: Any) -> dict[str, bytes]:
    """Put a packument and its tarballs behind the upstream. Returns version → tarball."""
    found: dict[str, bytes] = {}
    manifests = {}
    base = name.rpartition("/")[2]
    for version in versions:
        document, data = samples.publication(name, version)
        manifest = document["versions"][version]
        manifest["dist"]["tarball"] = upstream.url(f"/npm/{name}/-/{base}-{version}.tgz")
        manifest["dist"]["signatures"] = [{"keyid": KEY["keyid"], "sig": "x"}]
        manifest["dist"]["unknown"] = [1]
        manifests[version] = manifest
        found[version] = data
        upstream.add(f"/npm/{name}/-/{base}-{version}.tgz", Answer(data))
    packument = {
        **{
            "_id": name,
            "_rev": "9-upstream",
            "name": name,
            "dist-tags": {"latest": versions[-1]},
            "versions": manifests,
        },
        "time": {
            "created": "2020-01-01T00:00:00.000Z",
            "modified": "2020-02-02T00:00:00.000Z",
            **dict.fromkeys(versions, "2020-01-02T03:04:05.678Z"),
        },
        **{"users": {"ann": True}, "readme": "# theirs", **more},
    }
    upstream.add(
        f"/npm/{escaped(name)}", Answer(json.dumps(packument).encode(), media_type="application/json", etag='"1"')
    )
    return found


def test_npm_12_2_one_document_of_the_upstream_answers_for_all_its_versions(
    registry: Registry, upstream: Upstream
) -> None:
    serve(upstream, "many", "1.0.0", "1.1.0")
    registry.packument("many")
    for selector in ("1.0.0", "1.1.0", "latest"):
        assert registry.get(f"many/{selector}").status_code == 200
    assert upstream.count("/npm/many") == 1


def test_npm_11_6_12_1_12_5_what_the_upstream_says_with_our_addresses(registry: Registry, upstream: Upstream) -> None:
    tarballs = serve(upstream, "@s/n", "1.0.0", "1.1.0")
    found = registry.packument("@s/n")
    (asked,) = upstream.seen("/npm/@s%2fn")
    assert asked.headers["accept"] == "application/json"
    assert found["users"] == {"ann": True} and found["readme"] == "# theirs" and found["_rev"] != "9-upstream"
    assert found["time"] == {
        "created": "2020-01-01T00:00:00.000Z",
        "modified": "2020-02-02T00:00:00.000Z",
        "1.0.0": "2020-01-02T03:04:05.678Z",
        "1.1.0": "2020-01-02T03:04:05.678Z",
    }
    short = registry.packument("@s/n", accept=INSTALL)
    assert short["modified"] == "2020-02-02T00:00:00.000Z" and short["time"] == found["time"]
    assert upstream.count("/npm/@s%2fn") == 1
    dist = found["versions"]["1.0.0"]["dist"]
    assert dist["tarball"] == f"{registry.url}@s/n/-/n-1.0.0.tgz"
    assert dist["signatures"] == [{"keyid": KEY["keyid"], "sig": "x"}] and dist["unknown"] == [1]
    for version, data in tarballs.items():
        for _ in range(2):
            assert registry.get(f"@s/n/-/n-{version}.tgz").content == data
        assert upstream.count(f"/npm/@s/n/-/n-{version}.tgz") == 1
    assert registry.get("@s/n/latest").json()["version"] == "1.1.0"
    assert registry.tags("@s/n") == {"latest": "1.1.0"}


def test_npm_5_14_G5_a_file_asked_for_first_is_found_and_verified(registry: Registry, upstream: Upstream) -> None:
    data = serve(upstream, "n", "1.0.0")["1.0.0"]
    assert registry.get("n/-/n-1.0.0.tgz").content == data
    serve(upstream, "m", "1.0.0")
    upstream.add("/npm/m/-/m-1.0.0.tgz", Answer(data))
    answer = registry.get("m/-/m-1.0.0.tgz")
    assert answer.status_code == 502 and answer.json()["error"]


def test_npm_2_5_old_names_are_proxied(registry: Registry, upstream: Upstream) -> None:
    serve(upstream, "JSONStream", "1.0.0")
    assert registry.versions("JSONStream") == ["1.0.0"]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(b"<html>sign in</html>", media_type="text/html"),
        Answer(b"{}"),
        Answer(b'{"error": "x"}'),
        Answer(status=500),
        Answer(b'{"name": "other", "versions": {}}'),
    ],
)
def test_G6_what_is_no_packument_is_not_believed(registry: Registry, upstream: Upstream, answer: Answer) -> None:
    upstream.add("/npm/n", answer)
    refused(registry.get("n"), 502)


def test_npm_12_what_is_not_there_is_not_found(registry: Registry) -> None:
    refused(registry.get("nobody"), 404)
    refused(registry.get("nobody/-/nobody-1.0.0.tgz"), 404)


def test_npm_11_6_keys_are_the_upstream_s(registry: Registry, upstream: Upstream) -> None:
    upstream.add("/npm/-/npm/v1/keys", Answer(json.dumps({"keys": [KEY]}).encode(), media_type="application/json"))
    assert KEY in registry.get("-/npm/v1/keys").json()["keys"]


def test_npm_11_3_11_4_an_upstream_that_does_not_sign_has_no_keys(registry: Registry) -> None:
    refused(registry.get("-/npm/v1/keys"), 404)


def test_npm_12_11_nothing_is_written_to_a_remote(registry: Registry, upstream: Upstream) -> None:
    serve(upstream, "n", "1.0.0")
    refused(registry.put("n", samples.publication("n", "2.0.0")[0]), 405)
    refused(registry.put("-/package/n/dist-tags/t", "1.0.0"), 405)
    refused(registry.ask("DELETE", f"n/-rev/{registry.packument('n')['_rev']}"), 405)


# --- virtual repositories --------------------------------------------------------------------------------------------


@pytest.fixture
def both(server: Server, upstream: Upstream) -> tuple[Registry, Registry]:
    """A virtual repository over a local and a remote one, and the local one."""
    namespace = server.make_namespace()
    local = server.make_repository(namespace, format="npm")
    remote = server.make_repository(namespace, format="npm", type="remote", remote={"url": upstream.url("/npm/")})
    virtual = server.make_repository(
        namespace, format="npm", type="virtual", members=[local, remote], deploy_target=local
    )
    client = server.user(namespace, "maintainer")
    return Registry(server, client, virtual), Registry(server, client, local)


def test_npm_5_5_12_6_H1_local_names_hide_those_of_upstreams(
    both: tuple[Registry, Registry], upstream: Upstream
) -> None:
    virtual, local = both
    theirs = serve(upstream, "theirs", "1.0.0")
    serve(upstream, "ours", "9.9.9")
    ours = local.publish("ours", "1.0.0")
    assert virtual.versions("ours") == ["1.0.0"] and virtual.versions("theirs") == ["1.0.0"]
    for name, data in (("ours", ours), ("theirs", theirs["1.0.0"])):
        tarball = virtual.packument(name)["versions"]["1.0.0"]["dist"]["tarball"]
        assert tarball == f"{virtual.url}{name}/-/{name}-1.0.0.tgz"
        assert virtual.client.get(tarball).content == data
    assert upstream.count("/npm/ours") == 0
    refused(virtual.get("ours/-/ours-9.9.9.tgz"), 404)


def test_npm_12_11_writes_go_to_the_deploy_target(both: tuple[Registry, Registry]) -> None:
    virtual, local = both
    virtual.publish("n", "1.0.0")
    virtual.publish("n", "1.1.0-rc.1", tag="next")
    assert local.tags("n") == virtual.tags("n") == {"latest": "1.0.0", "next": "1.1.0-rc.1"}
    refused(
        virtual.put("n", samples.publication("n", "1.0.0", homepage="https://x.example")[0]),
        403,
        "previously published",
    )
    document = virtual.packument("n?write=true")
    document["versions"]["1.0.0"]["deprecated"] = "old"
    assert virtual.put("n", document).status_code == 200
    assert local.packument("n")["versions"]["1.0.0"]["deprecated"] == "old"
    assert virtual.put("-/package/n/dist-tags/t", "1.0.0").status_code == 201
    document = virtual.packument("n?write=true")
    del document["versions"]["1.0.0"]["deprecated"]
    assert virtual.put("n", document).status_code == 200
    assert "deprecated" not in local.packument("n")["versions"]["1.0.0"]
    # Content is removed where it is.
    document = virtual.packument("n?write=true")
    del document["versions"]["1.1.0-rc.1"]
    refused(virtual.put(f"n/-rev/{document['_rev']}", document), 405)
    refused(virtual.ask("DELETE", f"n/-rev/{document['_rev']}"), 405)
    assert local.versions("n") == ["1.0.0", "1.1.0-rc.1"]


def test_npm_9_search_in_a_virtual_repository(both: tuple[Registry, Registry]) -> None:
    virtual, local = both
    local.publish("findable", "1.0.0")
    answer = virtual.get("-/v1/search?text=findable")
    assert [hit["package"]["name"] for hit in answer.json()["objects"]] == ["findable"]
