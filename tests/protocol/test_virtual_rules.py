"""Virtual repositories: which member answers, what is hidden from whom, and what happens when a member fails.

The upstreams are servers of the test, which record what they are asked. npm stands for the formats whose files are named
by a listing, OCI for those with tags and digests, generic for plain paths.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from formats.npm import samples as npm
from formats.oci import samples as oci
from formats.pypi import samples as pypi
from tests.protocol.generic_client import Files
from tests.protocol.oci_client import Image
from tests.running import Deployment, Server
from tests.tools.upstream import Answer, Upstream

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Deployment.embedded(tmp_path_factory.mktemp("virtual"), REPOMAN_UPSTREAM_ALLOW="127.0.0.0/8") as found:
        yield found


@dataclass
class Group:
    """A public virtual repository with local and remote members, all in one namespace."""

    server: Server
    format: str
    namespace: str
    key: str = ""

    def local(self, **fields: Any) -> str:
        return self.server.make_repository(self.namespace, format=self.format, **{"anonymous_read": True, **fields})

    def remote(self, url: str, *, settings: dict[str, Any] | None = None, **fields: Any) -> str:
        remote = {"url": url, "connect_timeout": 2, "read_timeout": 3, "negative_ttl": 0, **(settings or {})}
        fields = {"anonymous_read": True, **fields}
        return self.server.make_repository(self.namespace, format=self.format, type="remote", remote=remote, **fields)

    def virtual(self, *members: str, **fields: Any) -> str:
        fields = {"anonymous_read": True, **fields}
        key = self.server.make_repository(
            self.namespace, format=self.format, type="virtual", members=list(members), **fields
        )
        self.key = self.key or key
        return key

    def patch(self, key: str, **changes: Any) -> httpx.Response:
        return self.server.admin.patch(f"/api/v1/repositories/{key}", json=changes)

    def explain(self, path: str, *, client: httpx.Client | None = None, key: str = "", **query: str) -> list[dict]:
        answer = (client or self.server.admin).get(
            f"/api/v1/repositories/{key or self.key}/explain", params={"path": path, **query}
        )
        assert answer.status_code == 200, answer.text
        return answer.json().get("sources", [])


def group(server: Server, format: str) -> Group:
    return Group(server, format, server.make_namespace(f"grp{next(_numbers)}x{format}"))


def _name_of(client: httpx.Client) -> str:
    request = next(client.auth.auth_flow(client.build_request("GET", "/")))  # type: ignore[union-attr]
    return base64.b64decode(request.headers["authorization"].partition(" ")[2]).decode().partition(":")[0]


# --- npm in a few lines ----------------------------------------------------------------------------------------------


def publish(
    server: Server, key: str, name: str, version: str, *, client: Any = None, tag: str = "latest", **fields: Any
):
    document, data = npm.publication(name, version, tag=tag, **fields)
    answer = (client or server.admin).put(f"/npm/{key}/{name.replace('/', '%2f')}", json=document)
    assert answer.status_code in (200, 201), answer.text
    return data


def packument(server: Server, key: str, name: str, client: httpx.Client | None = None) -> httpx.Response:
    return (client or server.client()).get(f"/npm/{key}/{name.replace('/', '%2f')}")


def versions(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return sorted(answer.json()["versions"])


def offers(upstream: Upstream, name: str, *versions: str, tags: dict[str, str] | None = None, text: str = "") -> dict:
    """Let the upstream have this package. Returns its tarballs by version."""
    found: dict[str, bytes] = {}
    entries: dict[str, Any] = {}
    for version in versions:
        data = npm.package(name, version, **({"description": text} if text else {}))
        document = npm.document(name, version, data)
        file = f"{name.rpartition('/')[2]}-{version}.tgz"
        entry = document["versions"][version]
        entry["dist"]["tarball"] = upstream.url(f"/{name}/-/{file}")
        entries[version] = entry
        found[version] = data
        upstream.add(f"/{name}/-/{file}", Answer(data))
    body = {
        "name": name,
        "dist-tags": tags or {"latest": versions[-1]},
        "versions": entries,
        "time": dict.fromkeys(versions, "2020-01-01T00:00:00.000Z"),
    }
    upstream.add(
        f"/{name.replace('/', '%2f')}", Answer(json.dumps(body).encode(), media_type="application/json", etag='"1"')
    )
    return found


def tarball(server: Server, key: str, name: str, version: str, client: httpx.Client | None = None) -> httpx.Response:
    return (client or server.client()).get(f"/npm/{key}/{name}/-/{name.rpartition('/')[2]}-{version}.tgz")


# --- B2, B3: order, first found, merged ------------------------------------------------------------------------------


def test_o1_locals_come_before_remotes_whatever_the_configured_order(server: Server, upstream: Upstream) -> None:
    here = group(server, "generic")
    upstream.add("/a.txt", Answer(b"upstream"))
    upstream.add("/b.txt", Answer(b"upstream only"))
    first, remote, second = here.local(), here.remote(upstream.url()), here.local()
    key = here.virtual(remote, second, first)
    files = Files(server, server.admin, key)
    Files(server, server.admin, second).put("a.txt", b"second")
    assert files.get("a.txt").content == b"second"
    Files(server, server.admin, first).put("a.txt", b"first")
    assert files.get("a.txt").content == b"second"  # as configured: second stands before first
    assert files.get("b.txt").content == b"upstream only"
    assert here.patch(key, members=[first, remote, second]).status_code == 200
    assert files.get("a.txt").content == b"first"
    assert upstream.count("/a.txt") == 0
    lines = here.explain("a.txt")
    assert [line["repository"] for line in lines] == [first, second, remote]
    assert [bool(line.get("answers")) for line in lines] == [True, False, False]


def test_x1_x6_versions_are_merged_and_each_comes_whole_from_the_first_member(
    server: Server, upstream: Upstream
) -> None:
    here = group(server, "npm")
    one, two = here.local(), here.local()
    key = here.virtual(one, two, here.remote(upstream.url()))
    publish(server, one, "lib", "1.0.0", description="from one")
    publish(server, two, "lib", "1.0.0", description="from two")
    publish(server, two, "lib", "2.0.0", description="from two")
    found = packument(server, key, "lib")
    assert versions(found) == ["1.0.0", "2.0.0"]
    for version, origin in (("1.0.0", one), ("2.0.0", two)):
        dist = found.json()["versions"][version]["dist"]
        assert dist["tarball"] == f"{server.url}/npm/{key}/lib/-/lib-{version}.tgz"
        got = tarball(server, key, "lib", version)
        assert got.content == tarball(server, origin, "lib", version).content
    assert found.json()["versions"]["1.0.0"]["description"] == "from one"
    assert tarball(server, key, "lib", "3.0.0").status_code == 404
    assert upstream.requests == []


def test_x4_e20_tags_and_latest_come_from_the_first_member_that_has_them(server: Server, upstream: Upstream) -> None:
    here = group(server, "npm")
    offers(upstream, "lib", "1.0.0", "9.0.0", tags={"latest": "9.0.0", "next": "9.0.0", "old": "1.0.0"})
    local = here.local()
    key = here.virtual(local, here.remote(upstream.url()), options={"allow_remote_names": ["lib"]})
    publish(server, local, "lib", "1.0.0")
    found = packument(server, key, "lib")
    assert versions(found) == ["1.0.0", "9.0.0"]
    assert found.json()["dist-tags"] == {"latest": "1.0.0", "next": "9.0.0", "old": "1.0.0"}
    assert tarball(server, key, "lib", "1.0.0").content == tarball(server, local, "lib", "1.0.0").content
    lines = here.explain("lib/-/lib-1.0.0.tgz")
    assert [(line["outcome"], line.get("hidden_by")) for line in lines] == [("has it", None), ("not asked", local)]
    merged = here.explain("lib")
    assert merged[1]["hidden_versions"] == [{"version": "1.0.0", "by": local}]


def test_x6_what_no_listing_names_is_not_served_even_if_a_member_holds_it(server: Server) -> None:
    """A version's files come from one member: another member's further file of that version is not reachable."""
    here = group(server, "pypi")
    one, two = here.local(), here.local()
    key = here.virtual(one, two)
    for repository, sample in ((one, pypi.wheel("demo", "1.0")), (two, pypi.sdist("demo", "1.0.0"))):
        form = {":action": "file_upload", "protocol_version": "1", "name": "demo", "version": sample.version}
        form |= {"filetype": sample.kind, "metadata_version": "2.4", "sha256_digest": sample.sha256}
        if sample.kind == "bdist_wheel":
            form["pyversion"] = "py3"
        answer = server.admin.post(f"/pypi/{repository}/", data=form, files={"content": (sample.filename, sample.data)})
        assert answer.status_code == 200, answer.text
    json_page = {"Accept": "application/vnd.pypi.simple.v1+json"}
    page = server.client().get(f"/pypi/{key}/simple/demo/", headers=json_page).json()
    names = [file["filename"] for file in page["files"]]
    assert names == ["demo-1.0-py3-none-any.whl"]
    for file in page["files"]:
        assert server.client().get(file["url"]).status_code == 200
        assert server.client().get(file["url"] + ".metadata").status_code == 200
    other = f"/pypi/{key}/files/demo/{pypi.sdist('demo', '1.0.0').filename}"
    assert server.client().get(other).status_code == 404
    assert server.client().head(other).status_code == 404


def test_x9_h4_the_same_members_give_the_same_bytes_and_304(server: Server) -> None:
    here = group(server, "npm")
    local = here.local()
    key = here.virtual(local)
    publish(server, local, "lib", "1.0.0")
    first, again = packument(server, key, "lib"), packument(server, key, "lib")
    assert first.content == again.content and first.headers["etag"] == again.headers["etag"]
    asked = server.client().get(f"/npm/{key}/lib", headers={"If-None-Match": first.headers["etag"]})
    assert asked.status_code == 304
    publish(server, local, "lib", "1.1.0")
    asked = server.client().get(f"/npm/{key}/lib", headers={"If-None-Match": first.headers["etag"]})
    assert asked.status_code == 200 and "1.1.0" in asked.json()["versions"]


# --- B5: dependency confusion ----------------------------------------------------------------------------------------


def test_h1_z6_a_name_held_locally_hides_the_remote_index_files_and_what_is_cached(
    server: Server, upstream: Upstream
) -> None:
    here = group(server, "npm")
    offers(upstream, "secret-lib", "9.9.9", text="impostor")
    local, remote = here.local(), here.remote(upstream.url())
    key = here.virtual(local, remote)
    assert versions(packument(server, key, "secret-lib")) == ["9.9.9"]  # nobody holds the name yet
    assert tarball(server, key, "secret-lib", "9.9.9").status_code == 200
    publish(server, local, "secret-lib", "1.0.0")
    asked = len(upstream.requests)
    assert versions(packument(server, key, "secret-lib")) == ["1.0.0"]
    assert packument(server, key, "secret-lib").json()["dist-tags"] == {"latest": "1.0.0"}
    path = f"/npm/{key}/secret-lib/-/secret-lib-9.9.9.tgz"
    for method, headers in (("GET", {}), ("HEAD", {}), ("GET", {"Range": "bytes=0-9"})):
        assert server.client().request(method, path, headers=headers).status_code == 404
    assert tarball(server, remote, "secret-lib", "9.9.9").status_code == 200  # at its own address it still is
    assert len(upstream.requests) == asked
    lines = here.explain("secret-lib/-/secret-lib-9.9.9.tgz")
    assert lines[0]["outcome"] == "does not have it"
    assert (lines[1]["outcome"], lines[1]["hidden_by"]) == ("not asked", local)
    assert not any(line.get("answers") for line in lines)


def test_z7_a_name_stays_hidden_when_all_that_was_held_is_removed_and_purged(
    server: Server, upstream: Upstream
) -> None:
    here = group(server, "npm")
    offers(upstream, "gone", "5.0.0")
    local = here.local()
    key = here.virtual(local, here.remote(upstream.url()))
    publish(server, local, "gone", "1.0.0")
    removed = server.admin.delete(
        f"/api/v1/repositories/{local}/versions", params={"package": "gone", "all": "true", "purge": "true"}
    )
    assert removed.status_code == 204, removed.text
    assert packument(server, key, "gone").status_code == 404
    assert tarball(server, key, "gone", "5.0.0").status_code == 404
    assert upstream.requests == []


def test_z3_allow_remote_names_opens_names_and_patterns_and_counts_at_once(server: Server, upstream: Upstream) -> None:
    here = group(server, "npm")
    for name in ("@acme/lib", "@acme-evil/lib"):
        offers(upstream, name, "2.0.0")
    local = here.local()
    key = here.virtual(local, here.remote(upstream.url()))
    for name in ("@acme/lib", "@acme-evil/lib"):
        publish(server, local, name, "1.0.0")
        assert versions(packument(server, key, name)) == ["1.0.0"]
    assert here.patch(key, options={"allow_remote_names": ["@acme/*"]}).status_code == 200
    assert versions(packument(server, key, "@acme/lib")) == ["1.0.0", "2.0.0"]
    assert versions(packument(server, key, "@acme-evil/lib")) == ["1.0.0"]
    assert here.patch(key, options={"allow_remote_names": None}).status_code == 200
    assert versions(packument(server, key, "@acme/lib")) == ["1.0.0"]


def test_z5_names_are_compared_in_the_normal_form_of_the_format(server: Server, upstream: Upstream) -> None:
    here = group(server, "pypi")
    wheel = pypi.wheel("my-tool", "7.0")
    page = {
        "meta": {"api-version": "1.1"},
        "name": "my-tool",
        "files": [{"filename": wheel.filename, "url": upstream.url("/f/w.whl"), "hashes": {"sha256": wheel.sha256}}],
    }
    body = json.dumps(page).encode()
    upstream.add("/simple/my-tool/", Answer(body, media_type="application/vnd.pypi.simple.v1+json"))
    local = here.local()
    key = here.virtual(local, here.remote(upstream.url("/simple/")))
    own = pypi.wheel("My.Tool", "1.0")
    form = {":action": "file_upload", "protocol_version": "1", "name": "My.Tool", "version": "1.0"}
    form |= {"filetype": "bdist_wheel", "pyversion": "py3", "metadata_version": "2.4", "sha256_digest": own.sha256}
    answer = server.admin.post(f"/pypi/{local}/", data=form, files={"content": (own.filename, own.data)})
    assert answer.status_code == 200, answer.text
    json_page = {"Accept": "application/vnd.pypi.simple.v1+json"}

    def listed() -> list[str]:
        found = server.client().get(f"/pypi/{key}/simple/my-tool/", headers=json_page)
        return sorted(file["filename"] for file in found.json()["files"])

    assert listed() == [own.filename] and upstream.requests == []
    assert here.patch(key, options={"allow_remote_names": ["MY_tool"]}).status_code == 200
    assert listed() == sorted([own.filename, wheel.filename])


# --- B6: rights ------------------------------------------------------------------------------------------------------


def test_f4_a_private_member_shows_nothing_to_others_and_no_impostor_takes_its_place(
    server: Server, upstream: Upstream
) -> None:
    here = group(server, "npm")
    offers(upstream, "inner", "99.0.0", text="impostor")
    offers(upstream, "outer", "1.0.0")
    private, remote = here.local(anonymous_read=False), here.remote(upstream.url())
    key = here.virtual(private, remote)
    assert tarball(server, remote, "inner", "99.0.0").status_code == 200  # so that a copy of the impostor is held
    upstream.forget()
    publish(server, private, "inner", "1.0.0")
    stranger = server.client(*server.make_user())
    member = server.user(private, "reader")
    api = f"/api/v1/repositories/{key}"
    assert stranger.get(f"{api}/packages").json()["items"] == []
    assert stranger.get(f"{api}/versions", params={"package": "inner"}).status_code == 404
    assert stranger.get(f"{api}/files", params={"package": "inner"}).status_code == 404
    both = server.user(key, "reader")
    server.admin.put(f"/api/v1/repositories/{private}/grants/{_name_of(both)}", json={"role": "reader"})
    assert [item["name"] for item in both.get(f"{api}/packages").json()["items"]] == ["inner"]
    held = both.get(f"{api}/versions", params={"package": "inner"}).json()["items"]
    assert [item["version"] for item in held] == ["1.0.0"]
    assert here.patch(key, options={"allow_remote_names": ["inner"]}).status_code == 200
    assert [item["name"] for item in stranger.get(f"{api}/packages").json()["items"]] == ["inner"]
    assert here.patch(key, options={"allow_remote_names": []}).status_code == 200
    for client in (server.client(), stranger):
        assert packument(server, key, "inner", client).status_code == 404
        for version in ("1.0.0", "99.0.0"):
            assert tarball(server, key, "inner", version, client).status_code == 404
        assert client.get(f"/npm/{key}/-/package/inner/dist-tags").status_code == 404
        search = client.get(f"/npm/{key}/-/v1/search", params={"text": "inner"})
        assert search.status_code == 200 and search.json()["objects"] == [] and search.json()["total"] == 0
        assert versions(packument(server, key, "outer", client)) == ["1.0.0"]
        shown = client.get(f"/api/v1/repositories/{key}")
        assert private not in shown.text
    assert versions(packument(server, key, "inner", member)) == ["1.0.0"]
    # What is rendered for one is not served to the other, in any order of asking.
    assert packument(server, key, "inner").status_code == 404
    assert all("inner" not in seen.target for seen in upstream.requests)


def test_f4_explain_tells_nothing_of_members_that_the_caller_may_not_read(server: Server, upstream: Upstream) -> None:
    here = group(server, "npm")
    private, remote = here.local(anonymous_read=False), here.remote(upstream.url())
    key = here.virtual(private, remote)
    publish(server, private, "inner", "1.0.0")
    stranger = server.client(*server.make_user())
    held, free = here.explain("inner", client=stranger), here.explain("never-heard-of", client=stranger)
    assert held == free and [line["repository"] for line in held] == [remote]
    asked = server.admin.get(f"/api/v1/repositories/{key}/explain", params={"path": "inner", "actor": "anonymous"})
    assert private not in asked.text
    [line] = asked.json()["sources"]
    assert line["outcome"] == "not asked" and "may not read" in line["because"]
    own = here.explain("inner", client=server.user(here.namespace, "reader"))
    assert own[1]["hidden_by"] == private and own[0]["answers"] is True
    assert upstream.requests == []


def test_a5_i5_answers_are_kept_by_no_shared_cache_and_vary(server: Server) -> None:
    here = group(server, "npm")
    private = here.local(anonymous_read=False)
    key = here.virtual(private)
    publish(server, private, "lib", "1.0.0")
    reader = server.user(here.namespace, "reader")
    found = packument(server, key, "lib", reader)
    assert "private" in found.headers["cache-control"] or "no-store" in found.headers["cache-control"]
    assert "accept" in found.headers["vary"].lower()
    missing = packument(server, key, "lib")
    assert missing.status_code == 404
    etag = {"If-None-Match": found.headers["etag"]}
    assert server.client().get(f"/npm/{key}/lib", headers=etag).status_code == 404


def test_a3_tokens_limited_to_the_virtual_or_to_members(server: Server) -> None:
    """A token opens what it names: private members count only if it names them too; public ones anybody may read."""
    here = group(server, "npm")
    private, public = here.local(anonymous_read=False), here.local()
    key = here.virtual(private, public, anonymous_read=False)
    publish(server, private, "inner", "1.0.0")
    publish(server, public, "open", "1.0.0")
    owner = server.client(*server.make_user(here.namespace, "reader"))

    def status(name: str, *repositories: str) -> int:
        token = server.token(owner, actions=["read"], repositories=list(repositories))["token"]
        return packument(server, key, name, server.client("ci", token)).status_code

    assert status("inner", key, private) == 200
    assert status("inner", key) == 404
    assert status("open", key) == 200
    assert status("inner", private) == 404  # the virtual one itself is not opened
    assert packument(server, key, "inner", owner).status_code == 200


# --- B4: members that fail -------------------------------------------------------------------------------------------


def test_p2_p3_a_member_that_is_down_is_a_failure_and_never_a_quiet_404(server: Server, upstream: Upstream) -> None:
    here = group(server, "npm")
    offers(upstream, "both", "1.0.0")
    with Upstream() as dead:
        down = here.remote(dead.url())
    alive = here.remote(upstream.url())
    local = here.local()
    key = here.virtual(local, down, alive)
    publish(server, local, "ours", "1.0.0")
    for name in ("both", "nobody-has-it"):
        assert packument(server, key, name).status_code in (502, 503, 504)
        assert tarball(server, key, name, "1.0.0").status_code in (502, 503, 504)
    assert versions(packument(server, key, "ours")) == ["1.0.0"]  # names that are held need no upstream
    assert tarball(server, key, "ours", "1.0.0").status_code == 200


def test_h4_p3_a_lenient_repository_answers_without_the_member_and_says_so(server: Server, upstream: Upstream) -> None:
    here = group(server, "npm")
    offers(upstream, "both", "1.0.0")
    with Upstream() as dead:
        down = here.remote(dead.url())
    key = here.virtual(down, here.remote(upstream.url()), options={"strict": False})
    found = packument(server, key, "both")
    assert versions(found) == ["1.0.0"]
    assert found.headers["x-repoman-incomplete"] == down and found.headers["cache-control"] == "no-store"
    for path in ("both/-/both-1.0.0.tgz", "-/package/both/dist-tags"):
        got = server.client().get(f"/npm/{key}/{path}")
        assert got.status_code == 200 and got.headers["x-repoman-incomplete"] == down, path
        assert got.headers["cache-control"] == "no-store"
    # Who was not asked may have it: that is never "not there".
    for path in ("nobody-has-it", "both/7.0.0", "both/-/both-7.0.0.tgz", "nobody/-/nobody-1.0.0.tgz"):
        assert server.client().get(f"/npm/{key}/{path}").status_code in (502, 503, 504), path


def test_p3_stale_documents_stand_in_for_a_member_that_is_down(server: Server) -> None:
    here = group(server, "npm")
    with Upstream() as alive:
        offers(alive, "lib", "1.0.0")
        key = here.virtual(here.local(), here.remote(alive.url(), settings={"metadata_ttl": 0}))
        assert versions(packument(server, key, "lib")) == ["1.0.0"]
        assert tarball(server, key, "lib", "1.0.0").status_code == 200
    found = packument(server, key, "lib")
    assert versions(found) == ["1.0.0"]
    assert "stale" in found.headers["cache-status"] and found.headers["cache-control"] == "no-cache"
    assert tarball(server, key, "lib", "1.0.0").status_code == 200


def test_p6_members_after_the_one_that_has_a_file_are_not_asked(server: Server, upstream: Upstream) -> None:
    here = group(server, "npm")
    offers(upstream, "lib", "1.0.0")
    with Upstream() as dead:
        down = here.remote(dead.url())
    key = here.virtual(here.remote(upstream.url()), down)
    assert tarball(server, key, "lib", "1.0.0").status_code == 200
    assert packument(server, key, "lib").status_code in (502, 503, 504)


def test_x8_content_named_by_digest_comes_from_any_member_that_is_well(server: Server, upstream: Upstream) -> None:
    here = group(server, "oci")
    sample = oci.image("by digest")
    layer = next(iter(sample.blobs))
    for digest, data in sample.blobs.items():
        upstream.add(f"/v2/app/blobs/{digest}", Answer(data))
    manifest = Answer(sample.manifest, media_type=sample.media_type)
    upstream.add(f"/v2/app/manifests/{sample.digest}", manifest)
    upstream.add("/v2/app/manifests/1", manifest)
    with Upstream() as dead:
        down = here.remote(dead.url())
    key = here.virtual(down, here.remote(upstream.url()))
    image = Image(server.client(), key)
    assert image.ask("GET", f"/manifests/{sample.digest}").content == sample.manifest
    assert image.ask("GET", f"/blobs/{layer}").content == sample.blobs[layer]
    assert image.ask("GET", "/manifests/1").status_code in (502, 503, 504)  # a tag may be anything there


# --- B1, B8: membership and changes ----------------------------------------------------------------------------------


def test_m1_circles_selves_strangers_and_other_formats_are_refused(server: Server) -> None:
    here = group(server, "npm")
    local = here.local()
    inner = here.virtual(local)
    middle = here.virtual(inner)
    outer = here.virtual(middle)
    assert here.patch(inner, members=[local, outer]).status_code == 409
    assert here.patch(inner, members=[inner]).status_code == 409
    assert here.patch(inner, members=[local, local]).status_code == 400
    assert here.patch(inner, members=["no/such"]).status_code == 400
    other = server.make_repository(here.namespace, format="generic")
    assert here.patch(inner, members=[other]).status_code == 400
    hidden = server.make_repository(format="npm")
    owner = server.user(here.namespace, "owner")
    refused = owner.patch(f"/api/v1/repositories/{inner}", json={"members": [local, hidden]})
    assert refused.status_code == 400
    assert owner.patch(f"/api/v1/repositories/{inner}", json={"deploy_target": hidden}).status_code == 400
    assert server.admin.get(f"/api/v1/repositories/{inner}").json()["members"] == [local]


def test_m2_nested_ones_are_flattened_and_each_member_counts_once(server: Server, upstream: Upstream) -> None:
    here = group(server, "npm")
    offers(upstream, "held", "9.0.0")
    offers(upstream, "free", "1.0.0")
    one, two, remote = here.local(), here.local(), here.remote(upstream.url())
    inner = here.virtual(two, remote)
    key = here.virtual(inner, one, two)
    publish(server, one, "held", "1.0.0")  # which the inner one does not know
    assert versions(packument(server, key, "held")) == ["1.0.0"]
    assert versions(packument(server, inner, "held")) == ["9.0.0"]
    assert versions(packument(server, key, "free")) == ["1.0.0"]
    assert [line["repository"] for line in here.explain("free", key=key)] == [two, one, remote]


def test_m4_a_member_is_deleted_only_when_nobody_needs_it_or_with_force(server: Server) -> None:
    here = group(server, "npm")
    local, other = here.local(), here.local()
    key = here.virtual(local, other, deploy_target=local)
    publish(server, local, "lib", "1.0.0")
    assert packument(server, key, "lib").status_code == 200
    refused = server.admin.delete(f"/api/v1/repositories/{local}")
    assert refused.status_code == 409 and key in refused.text
    assert server.admin.delete(f"/api/v1/repositories/{local}", params={"force": "true"}).status_code == 204
    assert packument(server, key, "lib").status_code == 404
    shown = server.admin.get(f"/api/v1/repositories/{key}").json()
    assert (shown["members"], shown["deploy_target"]) == ([other], None)
    answer = server.admin.put(f"/npm/{key}/lib", json=npm.publication("lib", "2.0.0")[0])
    assert answer.status_code == 405


def test_h2_e19_publishing_removing_and_changing_members_is_seen_at_once(server: Server) -> None:
    here = group(server, "npm")
    one, two = here.local(), here.local()
    key = here.virtual(one)
    publish(server, one, "lib", "1.0.0")
    assert versions(packument(server, key, "lib")) == ["1.0.0"]
    publish(server, two, "lib", "2.0.0")
    assert here.patch(key, members=[one, two]).status_code == 200
    assert versions(packument(server, key, "lib")) == ["1.0.0", "2.0.0"]
    publish(server, two, "lib", "3.0.0")
    assert versions(packument(server, key, "lib")) == ["1.0.0", "2.0.0", "3.0.0"]
    removal = {"package": "lib", "version": "2.0.0"}
    assert server.admin.delete(f"/api/v1/repositories/{two}/versions", params=removal).status_code == 204
    assert versions(packument(server, key, "lib")) == ["1.0.0", "3.0.0"]
    assert here.patch(key, members=[one]).status_code == 200
    assert versions(packument(server, key, "lib")) == ["1.0.0"]
    assert here.patch(one, anonymous_read=False).status_code == 200
    assert packument(server, key, "lib").status_code == 404


def test_settings_that_mean_nothing_are_refused(server: Server) -> None:
    here = group(server, "npm")
    remote = here.remote("http://127.0.0.1:9/")
    key = here.virtual(remote)
    for settings in (
        {"metadata_ttl": 10**15},
        {"stale_for": -1},
        {"read_timeout": True},
        {"offline": "yes"},
        {"username": "a\r\nb"},
        {"token_realms": ["not an address"]},
        {"url": "ftp://host/"},
        {"url": "http://user:secret@host/"},
        {"url": "http://host/?a=b"},
        {"url": None},
        {"unknown": 1},
    ):
        assert here.patch(remote, remote=settings).status_code == 400, settings
    for options in ({"strict": "no"}, {"allow_remote_names": "x"}, {"allow_remote_names": [""]}, {"unknown": True}):
        assert here.patch(key, options=options).status_code == 400, options
    assert here.patch(remote, options={"strict": False}).status_code == 400
    assert here.patch(remote, members=[key]).status_code == 400


# --- B7: writes ------------------------------------------------------------------------------------------------------


def test_w1_w2_w3_a_publish_goes_to_the_deploy_target_by_its_rules_and_is_seen_at_once(server: Server) -> None:
    here = group(server, "npm")
    target = here.local(options={"immutable_tags": ["stable"]})
    key = here.virtual(here.local(), target, deploy_target=target)
    publisher = server.user(here.namespace, "publisher")
    publish(server, key, "lib", "1.0.0", client=publisher, tag="stable")
    assert versions(packument(server, key, "lib")) == versions(packument(server, target, "lib")) == ["1.0.0"]
    moved = publisher.put(f"/npm/{key}/lib", json=npm.publication("lib", "1.1.0", tag="stable")[0])
    assert moved.status_code in (403, 409)  # the target's options
    only_virtual = server.user(key, "publisher")
    refused = only_virtual.put(f"/npm/{key}/lib", json=npm.publication("lib", "2.0.0")[0])
    assert refused.status_code == 403 and target not in refused.text
    only_target = server.user(target, "publisher")
    assert only_target.put(f"/npm/{key}/lib", json=npm.publication("lib", "2.0.0")[0]).status_code == 403
    assert versions(packument(server, key, "lib")) == ["1.0.0"]


def test_w2_the_quota_of_the_target_applies(server: Server) -> None:
    full = server.make_namespace(quota_bytes=1000)
    target = server.make_repository(full, format="generic", anonymous_read=True)
    here = group(server, "generic")
    key = here.virtual(target, deploy_target=target)
    files = Files(server, server.admin, key)
    refused = files.put("big.bin", bytes(2000))
    assert refused.status_code == 403 and refused.json()["quota_bytes"] == 1000
    made = files.put("small.bin", b"small")
    assert made.status_code == 201
    assert made.headers["location"] == f"/generic/{key}/small.bin"
    assert made.json()["downloadUri"] == f"{server.url}/generic/{key}/small.bin"


@pytest.mark.parametrize("format", ["npm", "generic", "oci", "pypi"])
def test_w1_w5_k6_nothing_is_removed_through_a_virtual_or_written_to_a_remote(server: Server, format: str) -> None:
    here = group(server, format)
    local = here.local()
    remote = here.remote("http://127.0.0.1:9/simple/" if format == "pypi" else "http://127.0.0.1:9/")
    plain, deploying = here.virtual(local, remote), here.virtual(local, remote, deploy_target=local)
    digest = "sha256:" + "a" * 64
    removals = {
        "npm": [("DELETE", "npm/{}/lib/-rev/1"), ("DELETE", "npm/{}/lib/-/lib-1.0.0.tgz/-rev/1")],
        "generic": [("DELETE", "generic/{}/a.txt")],
        "oci": [("DELETE", f"v2/{{}}/app/manifests/{digest}"), ("DELETE", f"v2/{{}}/app/blobs/{digest}")],
        "pypi": [],
    }[format]
    writes = {
        "npm": [("PUT", "npm/{}/lib"), ("PUT", "npm/{}/-/package/lib/dist-tags/next")],
        "generic": [("PUT", "generic/{}/a.txt")],
        "oci": [("POST", "v2/{}/app/blobs/uploads/"), ("PUT", "v2/{}/app/manifests/1")],
        "pypi": [("POST", "pypi/{}/")],
    }[format]
    for method, path in removals:
        for key in (plain, deploying, remote):
            answer = server.admin.request(method, "/" + path.format(key))
            assert answer.status_code == 405, (method, path, key, answer.text)
    for method, path in writes:
        for key in (plain, remote):
            answer = server.admin.request(method, "/" + path.format(key), content=b"{}")
            assert answer.status_code == 405, (method, path, key, answer.text)
            assert "GET" in answer.headers["allow"]


# --- paging ----------------------------------------------------------------------------------------------------------


def test_e18_merged_tags_are_paged_over_all_members(server: Server, upstream: Upstream) -> None:
    here = group(server, "oci")
    one, two = here.local(), here.local()
    tags = {one: [f"a{n}" for n in range(5)] + ["shared"], two: [f"b{n}" for n in range(5)] + ["shared", "B"]}
    for key, names in tags.items():
        image = Image(server.admin, key)
        sample = oci.image(key)
        image.push_parts(sample)
        for name in names:
            assert image.put(sample, name).status_code == 201
    pages = [[f"c{n}" for n in range(3)], ["c3", "zz"]]
    link = (("Link", '</v2/app/tags/list?n=3&last=c2>; rel="next"'),)

    def page(seen: Any) -> bytes:
        return json.dumps({"name": "app", "tags": pages["last=" in seen.query]}).encode()

    upstream.add("/v2/app/tags/list", Answer(page, headers=link, media_type="application/json"),
                 Answer(page, media_type="application/json"))  # fmt: skip
    key = here.virtual(two, here.remote(upstream.url()), one, options={"allow_remote_names": ["app"]})
    whole = sorted({*tags[one], *tags[two], *pages[0], *pages[1]})
    client = server.client()
    assert client.get(f"/v2/{key}/app/tags/list").json() == {"name": f"{key}/app", "tags": whole}
    for size in (1, 2, 5, 100):
        seen: list[str] = []
        path = f"/v2/{key}/app/tags/list?n={size}"
        while path:
            answer = client.get(path)
            assert len(answer.json()["tags"]) <= size
            seen += answer.json()["tags"]
            path = answer.links.get("next", {}).get("url", "")
        assert seen == whole, size


def test_e18_merged_folders_are_paged_over_all_members(server: Server) -> None:
    here = group(server, "generic")
    one, two = here.local(), here.local()
    key = here.virtual(one, two)
    paths = {one: ["d/a/x", "d/a-b", "d/a.txt", "d/c"], two: ["d/a/y", "d/a0", "d/b/z", "d/c"]}
    for repository, names in paths.items():
        for name in names:
            Files(server, server.admin, repository).put(name, repository.encode())
    files = Files(server, server.client(), key)
    accept = {"Accept": "application/json"}
    whole = [item["name"] for item in files.ask("GET", "d/", headers=accept).json()["items"]]
    assert whole == ["a-b", "a.txt", "a/", "a0", "b/", "c"]
    for size in (1, 2, 3):
        seen: list[str] = []
        after: str | None = ""
        while after is not None:
            query = str(httpx.QueryParams({"limit": size, "after": after}))
            found = files.ask("GET", "d/", query=f"?{query}", headers=accept).json()
            seen += [item["name"] for item in found["items"]]
            after = found["next"]
        assert seen == whole, size
    assert files.get("d/c").text == one
    assert [item["name"] for item in files.ask("GET", "", headers=accept).json()["items"]] == ["d/"]


def test_x1_an_empty_virtual_repository_lists_nothing_and_fails_nowhere(server: Server) -> None:
    for format, path in (("npm", "npm/{}/-/v1/search?text=x"), ("generic", "generic/{}/"), ("pypi", "pypi/{}/simple/")):
        here = group(server, format)
        key = here.virtual()
        answer = server.client().get("/" + path.format(key))
        assert answer.status_code in (200, 404), (format, answer.status_code, answer.text)


def test_explain_knows_every_address_of_an_image(server: Server, upstream: Upstream) -> None:
    here = group(server, "oci")
    local, remote = here.local(), here.remote(upstream.url())
    key = here.virtual(local, remote)
    sample = oci.image("explained")
    Image(server.admin, local).push(sample, "1.0")
    layer = next(iter(sample.blobs))
    for path in (
        "app/manifests/1.0",
        f"app/manifests/{sample.digest}",
        f"app/blobs/{layer}",
        "app/tags/list",
        f"app/referrers/{sample.digest}",
    ):
        lines = here.explain(path)
        assert [line["repository"] for line in lines] == [local, remote], path
        assert lines[0]["answers"] is True and lines[0]["outcome"] == "has it", path
        assert (lines[1]["outcome"], lines[1]["hidden_by"]) == ("not asked", local), path
    [first, second] = here.explain("free/manifests/1.0")
    assert first["outcome"] == "does not have it" and second["outcome"] == "would be asked" and second["answers"]
    assert here.patch(remote, remote={"offline": True}).status_code == 200
    [_, second] = here.explain("free/manifests/1.0")
    assert second["outcome"] == "cannot be asked" and "strict" in second["because"] and "offline" in second["trouble"]
    assert here.explain("free/manifests/1.0", key=remote)[0]["outcome"] == "cannot be asked"
    assert here.explain("app/manifests/1.0", key=local)[0]["outcome"] == "has it"
    assert here.explain("") == [] and here.explain("no/such/address") == []
    assert server.admin.get(f"/api/v1/repositories/{key}/explain", params={"path": "a/../b"}).status_code in (200, 400)
    assert upstream.requests == []


@pytest.mark.parametrize("format", ["oci", "generic"])
def test_h4_what_a_lenient_repository_lacks_is_said_for_every_format(
    server: Server, upstream: Upstream, format: str
) -> None:
    here = group(server, format)
    with Upstream() as dead:
        down = here.remote(dead.url())
    local = here.local()
    key = here.virtual(local, down, here.remote(upstream.url()), options={"strict": False})
    sample = oci.image("lenient")
    upstream.add("/v2/app/manifests/1", Answer(sample.manifest, media_type=sample.media_type))
    upstream.add("/v2/app/tags/list", Answer(b'{"name": "app", "tags": ["1"]}', media_type="application/json"))
    upstream.add("/a.txt", Answer(b"a"))
    found, missing = {
        "oci": (["v2/{}/app/manifests/1", "v2/{}/app/tags/list"], "v2/{}/app/manifests/2"),
        "generic": (["generic/{}/a.txt"], "generic/{}/b.txt"),
    }[format]
    for path in found:
        answer = server.client().get("/" + path.format(key))
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-repoman-incomplete"] == down, path
        assert answer.headers["cache-control"] == "no-store", path
    for method in ("GET", "HEAD"):
        assert server.client().request(method, "/" + missing.format(key)).status_code in (502, 503, 504)
