"""Remote and virtual chart repositories (helm.md section 9; DECISIONS 9; THREATS G and H)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from formats.helm import samples
from tests.fault.upstreams import until
from tests.protocol.helm_client import Charts, new_charts, refused, saved
from tests.running import Deployment, Server
from tests.tools.upstream import Answer, Basic, Upstream, html_page

DATA = samples.chart()
PROOF = samples.provenance(DATA)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Deployment.embedded(tmp_path_factory.mktemp("helm-remote"), REPOMAN_UPSTREAM_ALLOW="127.0.0.0/8") as found:
        yield found


def remote_of(server: Server, upstream: Upstream, path: str = "/charts", **settings: Any) -> Charts:
    remote = {"url": upstream.url(path), "connect_timeout": 2, "read_timeout": 3, **settings}
    return new_charts(server, type="remote", remote=remote)


@pytest.fixture
def charts(server: Server, upstream: Upstream) -> Charts:
    return remote_of(server, upstream)


def offer(
    upstream: Upstream, *pairs: tuple[str, str], folder: str = "/charts", etag: str = "", **fields: Any
) -> dict[str, bytes]:
    """Let the upstream have these charts (name, version). Returns their archives by file name."""
    found, entries = {}, []
    for name, version in pairs:
        data = samples.chart(name, version, text="theirs")
        file = f"{name}-{version}.tgz"
        found[file] = data
        entries.append(samples.entry(data, name, version, **fields))
        upstream.add(f"{folder}/{file}", Answer(data, media_type="application/gzip"))
    serve(upstream, samples.index(*entries), folder=folder, etag=etag)
    return found


def serve(upstream: Upstream, body: bytes, *, folder: str = "/charts", etag: str = "", **more: Any) -> None:
    upstream.add(f"{folder}/index.yaml", Answer(body, media_type="text/yaml", etag=etag, **more))


# --- remote ----------------------------------------------------------------------------------------------------------


def test_helm_v1_i4_the_upstreams_charts_under_our_addresses(charts: Charts, upstream: Upstream) -> None:
    data = offer(
        upstream, ("demo", "1.0.0"), ("demo", "1.1.0+a"), ("other", "v2"), vendorField={"x": 1}, appVersion="1.10"
    )
    index = charts.index()
    assert index["serverInfo"] == {"contextPath": f"/helm/{charts.key}"} and list(index["entries"]) == ["demo", "other"]
    assert charts.versions() == ["1.1.0+a", "1.0.0"] and charts.versions("other") == ["v2"]
    entry = charts.entry()
    assert entry == {
        "name": "demo", "version": "1.0.0", "description": "A sample.", "apiVersion": "v2", "appVersion": "1.10",
        "urls": ["charts/demo-1.0.0.tgz"], "created": "2024-01-02T03:04:05Z",
        "digest": hashlib.sha256(data["demo-1.0.0.tgz"]).hexdigest(),
    }  # fmt: skip
    assert upstream.origin not in charts.get("index.yaml").text
    assert index["generated"] == "2024-01-02T03:04:05Z"  # of the newest entry: not of the request (I26)
    for file, content in data.items():
        for path in (f"charts/{file}", file, f"charts/{file}"):
            assert charts.get(path).content == content
        assert upstream.count(f"/charts/{file}", "GET") == 1
    assert upstream.count("/charts/index.yaml") == 1
    assert charts.get("api/charts/demo/latest").json()["version"] == "1.1.0+a"
    assert charts.get("api/charts?limit=1").json() == {"demo": index["entries"]["demo"]}
    refused(charts.get("charts/demo-9.0.0.tgz"), 404)
    refused(charts.get("charts/none-1.0.0.tgz"), 404)
    refused(charts.delete("other", "v2"), 405)


def test_helm_v2_c6_addresses_of_every_kind(charts: Charts, upstream: Upstream) -> None:
    with Upstream() as elsewhere:
        for path in ("/charts/sub/a-1.0.0.tgz", "/root-1.0.0.tgz"):
            upstream.add(path, Answer(DATA))
        elsewhere.add("/far/c.tgz", Answer(DATA))
        addresses = {"a": "sub/a-1.0.0.tgz?x=1", "b": "/root-1.0.0.tgz", "c": elsewhere.url("/far/c.tgz?token=1")}
        entries = [samples.entry(DATA, name, url=url) for name, url in addresses.items()]
        entries += [samples.entry(DATA, "d", url="oci://registry.example/d:1.0.0")]
        serve(upstream, samples.index(*entries))
        assert list(charts.index()["entries"]) == ["a", "b", "c"]  # O16, V12: what is only in a registry is left out
        for name in addresses:
            assert charts.get(f"charts/{name}-1.0.0.tgz").content == DATA
        assert upstream.seen("/charts/sub/a-1.0.0.tgz")[0].query == ""
        assert elsewhere.seen("/far/c.tgz")[0].query == "token=1"
        refused(charts.get("charts/d-1.0.0.tgz"), 404)


def test_g3_credentials_stay_with_the_upstream(server: Server, upstream: Upstream) -> None:
    upstream.protect("/charts", Basic("user", "secret"))
    charts = remote_of(server, upstream, username="user", password="secret")
    with Upstream() as elsewhere:
        elsewhere.add("/a-1.0.0.tgz", Answer(DATA))
        upstream.add("/charts/b-1.0.0.tgz", Answer(DATA))
        entries = [samples.entry(DATA, "a", url=elsewhere.url("/a-1.0.0.tgz")), samples.entry(DATA, "b")]
        serve(upstream, samples.index(*entries))
        assert charts.get("charts/a-1.0.0.tgz").content == charts.get("charts/b-1.0.0.tgz").content == DATA
        assert "authorization" not in elsewhere.seen("/a-1.0.0.tgz")[0].headers
        assert "authorization" in upstream.seen("/charts/b-1.0.0.tgz")[-1].headers


def test_helm_v2_relative_addresses_belong_to_the_url_that_was_configured(charts: Charts, upstream: Upstream) -> None:
    upstream.add("/charts/index.yaml", Answer(redirect="/elsewhere/deep/index.yaml"))
    serve(upstream, samples.index(samples.entry(DATA)), folder="/elsewhere/deep")
    upstream.add("/charts/demo-1.0.0.tgz", Answer(DATA))
    assert charts.get("charts/demo-1.0.0.tgz").content == DATA


def test_helm_v4_i6_an_index_in_yaml_with_everything_wrong(charts: Charts, upstream: Upstream) -> None:
    text = f"""
apiVersion: v1
generated: whenever
entries:
  demo:
  - apiVersion: v2
    name: demo
    version: 1.0.0
    appVersion: 1.10
    created: 2024-01-31 10:11:12
    digest: sha256:{hashlib.sha256(DATA).hexdigest().upper()}
    urls: [demo-1.0.0.tgz]
    keywords: [1, yes]
    maintainers: null
    unknown: &a [x]
    again: *a
    home: one
    home: two
  - name: demo
    version: 1.0.0
    urls: [second.tgz]
  - null
  - version: 7
  broken: 1
  oci:
  - {{name: oci, version: 1.0.0, urls: ["oci://x/y:1"]}}
serverInfo: {{}}
"""
    serve(upstream, text.encode())
    upstream.add("/charts/demo-1.0.0.tgz", Answer(DATA))
    assert charts.index()["entries"] == {
        "demo": [{
            "name": "demo", "home": "two", "version": "1.0.0", "keywords": ["1", "true"], "apiVersion": "v2",
            "appVersion": "1.1", "urls": ["charts/demo-1.0.0.tgz"], "created": "2024-01-31T10:11:12Z",
            "digest": hashlib.sha256(DATA).hexdigest(),
        }]
    }  # fmt: skip
    assert charts.get("charts/demo-1.0.0.tgz").content == DATA


def test_helm_p3_p7_13_14_provenance_is_fetched_when_somebody_wants_it(charts: Charts, upstream: Upstream) -> None:
    data = offer(upstream, ("demo", "1.0.0"), ("bare", "1.0.0"))
    proof = samples.provenance(data["demo-1.0.0.tgz"])
    upstream.add("/charts/demo-1.0.0.tgz.prov", Answer(proof))
    assert charts.get("charts/demo-1.0.0.tgz").status_code == 200
    assert upstream.count("/charts/demo-1.0.0.tgz.prov") == 0
    for _ in range(3):
        answer = charts.get("charts/demo-1.0.0.tgz.prov")
        assert answer.content == proof and answer.headers["content-type"] == "application/pgp-signature"
        refused(charts.get("charts/bare-1.0.0.tgz.prov"), 404)
    assert upstream.count("/charts/demo-1.0.0.tgz.prov") == 1 and upstream.count("/charts/bare-1.0.0.tgz.prov") == 1
    assert charts.versions() == ["1.0.0"]


def test_helm_v6_asked_again_with_its_validators(server: Server, upstream: Upstream) -> None:
    charts = remote_of(server, upstream, metadata_ttl=0)
    offer(upstream, ("demo", "1.0.0"), ("kept", "1.0.0"), etag='"1"')
    first = charts.get("index.yaml")
    again = charts.get("index.yaml")
    assert upstream.seen("/charts/index.yaml")[1].headers["if-none-match"] == '"1"'
    assert first.headers["etag"] == again.headers["etag"] and again.headers["cache-status"].startswith("repoman; hit")
    assert charts.get("charts/demo-1.0.0.tgz").status_code == 200
    offer(upstream, ("demo", "2.0.0"), ("new", "1.0.0"), ("kept", "1.0.0"), etag='"2"')
    assert {name: charts.versions(name) for name in charts.index()["entries"]} == {
        "demo": ["2.0.0"], "kept": ["1.0.0"], "new": ["1.0.0"],
    }  # fmt: skip
    assert charts.get("charts/demo-1.0.0.tgz").status_code == 200  # lock files name it still
    assert charts.problems() == []


@pytest.mark.parametrize(
    "body",
    [
        html_page().body,
        samples.index(samples.entry(DATA))[:-20],
        b"apiVersion: v1\nentries:\n  demo:\n  - name: demo\n    urls: [demo-1.0.0.tgz]\n    vers",
        b"apiVersion: v1\ngenerated: x\nentries:\n  demo:\n  - name: demo\n",
        b"apiVersion: v1\nentries:\n  demo:\n  - name: demo\n    version: 1.0.0\n    urls:\n",
        b"apiVersion: v1\nentries:\n  a:\n  - {name: a, version: 1.0.0, urls: [a]}\n  demo:\n",
        b"",
        b"apiVersion: v1\n",
        b"apiVersion: v1\nentries: {}\nx: !!python/object:os.system [" + b"[" * 100,
    ],
    ids=[
        "login page",
        "cut JSON",
        "cut YAML",
        "cut behind a name",
        "cut behind urls",
        "cut behind a chart's name",
        "nothing",
        "no entries",
        "no YAML",
    ],
)
def test_helm_v4_g6_what_is_no_index_replaces_nothing(server: Server, upstream: Upstream, body: bytes) -> None:
    cold = remote_of(server, upstream, metadata_ttl=0)
    serve(upstream, body)
    refused(cold.get("index.yaml"), 502)
    refused(cold.get("charts/demo-1.0.0.tgz"), 502)
    warm = remote_of(server, upstream, "/warm", metadata_ttl=0)
    data = offer(upstream, ("demo", "1.0.0"), folder="/warm")
    assert warm.versions() == ["1.0.0"]
    serve(upstream, body, folder="/warm")
    stale = warm.get("index.yaml")
    assert stale.status_code == 200 and "stale" in stale.headers["cache-status"]
    assert warm.versions() == ["1.0.0"] and warm.get("charts/demo-1.0.0.tgz").content == data["demo-1.0.0.tgz"]


@pytest.mark.parametrize(
    "body",
    [
        b"apiVersion: v1\nentries:\n  demo: &a\n  - name: demo\n    urls: [demo-1.0.0.tgz]\n    version: 1.0.0\n  d: *a\n",
        b"apiVersion: v1\nentries:\n  demo:\n  - name: demo\n    urls: [demo-1.0.0.tgz]\n    version: 1.0.0",
        b"{apiVersion: v1, entries: {demo: [{name: demo, version: 1.0.0, urls: [demo-1.0.0.tgz]}]}}",
        rb'{"apiVersion":"v1","entries":{"demo":[{"name":"demo","version":"1.0.0","home":"\ud83d","urls":["demo-1.0.0.tgz"]}]}}',
        b'{"apiVersion":"v1","entries":{"demo":[{"name":"demo","version":"1.0.0","home":"\xe9","urls":["demo-1.0.0.tgz"]}]}}',
        b"apiVersion: v1\nentries:\n  demo:\n  - {name: demo, version: 1.0.0, urls: [demo-1.0.0.tgz]}\n"
        b"  - {name: demo, version: 2.0.0, urls: [x], keywords: [" + b"a," * 100_001 + b"]}\n",
    ],
    ids=["alias", "no line break", "brackets", "half a pair", "no UTF-8", "a large entry"],
)
def test_helm_v4_what_helm_reads_is_read(charts: Charts, upstream: Upstream, body: bytes) -> None:
    serve(upstream, body)
    upstream.add("/charts/demo-1.0.0.tgz", Answer(DATA))
    assert list(charts.index()["entries"]) == ["demo"] and charts.versions() == ["1.0.0"]
    assert charts.get("charts/demo-1.0.0.tgz").content == DATA


@pytest.mark.parametrize("url", ["", "?x=1", "index.yaml", "."])
def test_helm_v2_c6_the_index_is_served_as_no_chart(charts: Charts, upstream: Upstream, url: str) -> None:
    entries = [samples.entry(DATA, urls=[url]), samples.entry(DATA, "other", urls=[url, "other-1.0.0.tgz"])]
    serve(upstream, samples.index(*({**entry, "digest": ""} for entry in entries)))
    upstream.add("/charts/other-1.0.0.tgz", Answer(DATA))
    assert list(charts.index()["entries"]) == ["other"]
    refused(charts.get("charts/demo-1.0.0.tgz"), 404)
    assert charts.get("charts/other-1.0.0.tgz").content == DATA


def test_helm_v5_g5_other_bytes_than_the_index_says(charts: Charts, upstream: Upstream) -> None:
    offer(upstream, ("demo", "1.0.0"))
    upstream.add("/charts/demo-1.0.0.tgz", Answer(samples.chart(text="evil")), Answer(samples.chart(text="theirs")))
    try:
        got = charts.get("charts/demo-1.0.0.tgz")
        assert got.status_code == 502
    except httpx.TransportError:  # the connection was broken before the last byte
        pass
    assert until(lambda: charts.get("charts/demo-1.0.0.tgz").status_code == 200, 15)
    assert charts.get("charts/demo-1.0.0.tgz").content == samples.chart(text="theirs")


def test_helm_v5_an_index_without_digests(charts: Charts, upstream: Upstream) -> None:
    offer(upstream, ("demo", "1.0.0"), digest="md5:1234")
    assert "digest" not in charts.entry()
    data = charts.get("charts/demo-1.0.0.tgz").content
    assert data == samples.chart(text="theirs") and charts.get("charts/demo-1.0.0.tgz").content == data


@pytest.mark.parametrize("body", [b"", b"\x1f", b"no archive", b"PK\x03\x04"], ids=["empty", "a byte", "text", "zip"])
def test_helm_v5_a10_b10_without_a_digest_an_archive_is_at_least_gzip(
    charts: Charts, upstream: Upstream, body: bytes
) -> None:
    offer(upstream, ("demo", "1.0.0"), digest="")
    upstream.add("/charts/demo-1.0.0.tgz", Answer(body), Answer(body), Answer(samples.chart()))
    upstream.add("/charts/demo-1.0.0.tgz.prov", Answer(samples.provenance(samples.chart())))
    refused(charts.get("charts/demo-1.0.0.tgz"), 502)
    assert until(lambda: charts.get("charts/demo-1.0.0.tgz").status_code == 200, 15)
    assert charts.get("charts/demo-1.0.0.tgz").content == samples.chart()
    assert charts.get("charts/demo-1.0.0.tgz.prov").status_code == 200


def test_g13_v5_what_is_held_wins_over_what_the_upstream_says_later(server: Server, upstream: Upstream) -> None:
    charts = remote_of(server, upstream, metadata_ttl=0)
    held = offer(upstream, ("demo", "1.0.0"), ("other", "1.0.0"))["demo-1.0.0.tgz"]
    assert charts.get("charts/demo-1.0.0.tgz").content == held
    evil = samples.chart(text="evil")
    other = samples.entry(samples.chart("other", text="theirs"), "other")
    serve(upstream, samples.index(samples.entry(evil, appVersion="9"), other))
    upstream.add("/charts/demo-1.0.0.tgz", Answer(evil))
    assert charts.entry()["digest"] == hashlib.sha256(held).hexdigest() and "appVersion" not in charts.entry()
    assert charts.get("charts/demo-1.0.0.tgz").content == held
    namespace = charts.key.split("/")[0]
    rows = server.admin.get("/api/v1/audit", params={"namespace": namespace, "kind": "upstream:changed"}).json()[
        "items"
    ]
    assert [row["subject"] for row in rows] == ["demo/demo-1.0.0.tgz"]


def test_v10_an_upstream_without_an_index(server: Server, charts: Charts, upstream: Upstream) -> None:
    refused(charts.get("index.yaml"), 404, "index")
    upstream.add("/down/index.yaml", Answer(status=503))
    refused(remote_of(server, upstream, "/down").get("index.yaml"), 502)


def test_a_head_costs_no_download(charts: Charts, upstream: Upstream) -> None:
    offer(upstream, ("demo", "1.0.0"))
    answer = charts.get("charts/demo-1.0.0.tgz", "HEAD")
    assert answer.status_code == 200 and upstream.bodies("/charts/demo-1.0.0.tgz") <= 1
    assert charts.get("charts/demo-1.0.0.tgz.prov", "HEAD").status_code == 404


def test_section_5_templates_of_what_is_being_fetched(charts: Charts, upstream: Upstream) -> None:
    offer(upstream, ("demo", "1.0.0"))
    assert charts.get("api/charts/demo/1.0.0/values").status_code in (200, 503)
    assert until(lambda: charts.get("api/charts/demo/1.0.0/values").status_code == 200, 15)
    assert charts.get("api/charts/demo/latest/templates").json()["values"] == {"text": "theirs"}


def test_offline_and_explained(server: Server, upstream: Upstream) -> None:
    charts = remote_of(server, upstream)
    offer(upstream, ("demo", "1.0.0"), ("cold", "1.0.0"))
    assert charts.get("charts/demo-1.0.0.tgz").status_code == 200
    api = f"/api/v1/repositories/{charts.key}"
    explain = lambda path: server.admin.get(f"{api}/explain", params={"path": path}).json()["sources"][0]  # noqa: E731
    assert explain("charts/demo-1.0.0.tgz")["outcome"] == "holds it"
    assert explain("charts/cold-1.0.0.tgz")["outcome"] == "would be asked"
    assert explain("charts/none-1.0.0.tgz")["outcome"] == "does not have it"
    assert explain("index.yaml")["outcome"] == "holds it"
    assert server.admin.patch(api, json={"remote": {"offline": True}}).status_code == 200
    assert charts.versions() == ["1.0.0"] and charts.get("charts/demo-1.0.0.tgz").status_code == 200
    refused(charts.get("charts/cold-1.0.0.tgz"), 503)


def test_another_address_is_another_upstream(server: Server, upstream: Upstream) -> None:
    charts = remote_of(server, upstream)
    offer(upstream, ("demo", "1.0.0"), ("same", "1.0.0"), etag='"1"')
    assert list(charts.index()["entries"]) == ["demo", "same"]
    offer(upstream, ("same", "1.0.0"), ("other", "1.0.0"), folder="/new", etag='"1"')
    api = f"/api/v1/repositories/{charts.key}"
    assert server.admin.patch(api, json={"remote": {"url": upstream.url("/new/")}}).status_code == 200
    assert list(charts.index()["entries"]) == ["other", "same"]
    refused(charts.get("charts/demo-1.0.0.tgz"), 404)
    assert charts.get("charts/same-1.0.0.tgz").status_code == 200
    assert upstream.count("/new/same-1.0.0.tgz") == 1 and upstream.count("/charts/same-1.0.0.tgz") == 0


# --- virtual ---------------------------------------------------------------------------------------------------------


class Group:
    """A virtual repository over a local one and two remotes, all public and in one namespace."""

    def __init__(self, server: Server, *upstreams: Upstream, **options: Any) -> None:
        self.server = server
        self.namespace = server.make_namespace()
        self.client = server.user(self.namespace, "maintainer")
        self.local = self.add("local")
        self.remotes = [
            self.add(
                "remote",
                remote={"url": upstream.url("/charts"), "metadata_ttl": 0, "negative_ttl": 0, "read_timeout": 3},
            )
            for upstream in upstreams
        ]
        members = [self.local.key, *(remote.key for remote in self.remotes)]
        self.charts = self.add("virtual", members=members, deploy_target=self.local.key, options=options)

    def add(self, type: str, **fields: Any) -> Charts:
        key = self.server.make_repository(
            self.namespace, format="helm", type=type, **{"anonymous_read": True, **fields}
        )
        return Charts(self.server, self.client, key)


def all_links_work(charts: Charts) -> None:
    """THREATS H3: every file that the index lists downloads with the listed digest."""
    for entries in charts.index()["entries"].values():
        for entry in entries:
            data = charts.get(entry["urls"][0])
            assert data.status_code == 200, data.text
            assert hashlib.sha256(data.content).hexdigest() == entry["digest"]


def test_helm_v7_v8_v11_members_are_merged(server: Server, upstream: Upstream) -> None:
    with Upstream() as second:
        group = Group(server, upstream, second)
        offer(upstream, ("demo", "1.0.0"), ("demo", "1.1.0"), ("a", "1.0.0"))
        newer = samples.chart(version="1.1.0", text="second")
        serve(second, samples.index(
            samples.entry(newer, version="1.1.0"), samples.entry(samples.chart(version="1.1.0+b"), version="1.1.0+b"),
            samples.entry(samples.chart("z"), "z", created="2030-01-01T00:00:00Z"),
        ))  # fmt: skip
        second.add("/charts/demo-1.1.0+b.tgz", Answer(samples.chart(version="1.1.0+b")))
        second.add("/charts/z-1.0.0.tgz", Answer(samples.chart("z")))
        index = group.charts.index()
        assert index["serverInfo"] == {"contextPath": f"/helm/{group.charts.key}"}
        assert list(index["entries"]) == ["a", "demo", "z"] and index["generated"] == "2030-01-01T00:00:00Z"
        assert group.charts.versions() == ["1.1.0+b", "1.1.0", "1.0.0"]
        all_links_work(group.charts)
        first = samples.chart(version="1.1.0", text="theirs")
        assert group.charts.get("charts/demo-1.1.0.tgz").content == first
        # .prov comes from where its chart comes from (V8)
        upstream.add("/charts/demo-1.1.0.tgz.prov", Answer(samples.provenance(first, version="1.1.0")))
        second.add("/charts/demo-1.1.0.tgz.prov", Answer(samples.provenance(newer, version="1.1.0")))
        proof = group.charts.get("charts/demo-1.1.0.tgz.prov").content
        assert proof == samples.provenance(first, version="1.1.0")


def test_helm_v9_h1_a_local_name_hides_the_upstreams(server: Server, upstream: Upstream) -> None:
    group = Group(server, upstream)
    offer(upstream, ("demo", "99.0.0"), ("public", "1.0.0"))
    assert group.charts.versions() == ["99.0.0"]
    saved(group.charts.post(DATA))  # M6: through the deploy target, and in the index at once
    assert group.charts.versions() == ["1.0.0"] == group.local.versions()
    assert list(group.charts.index()["entries"]) == ["demo", "public"]
    refused(group.charts.get("charts/demo-99.0.0.tgz"), 404)
    all_links_work(group.charts)
    refused(group.charts.delete("demo", "1.0.0"), 405)
    assert group.local.delete("demo", "1.0.0").status_code == 200
    assert list(group.charts.index()["entries"]) == ["public"]  # the name stays ours
    api = f"/api/v1/repositories/{group.charts.key}"
    assert server.admin.patch(api, json={"options": {"allow_remote_names": ["de*"]}}).status_code == 200
    saved(group.charts.post(DATA))
    assert group.charts.versions() == ["99.0.0", "1.0.0"]
    all_links_work(group.charts)


def test_a10_h1_an_upstream_cannot_take_the_address_of_a_local_chart(server: Server, upstream: Upstream) -> None:
    """`foo-1` of version 2.0.0 and `foo` of version 1-2.0.0 have one file name."""
    group = Group(server, upstream)
    data = offer(upstream, ("foo-1", "2.0.0"))
    assert group.charts.get("charts/foo-1-2.0.0.tgz").content == data["foo-1-2.0.0.tgz"]
    ours = group.local.publish("foo", "1-2.0.0")
    assert group.charts.get("charts/foo-1-2.0.0.tgz").content == ours
    refused(group.charts.get("charts/foo-1-2.0.0.tgz.prov"), 404)


def both(charts: Charts) -> dict[str, bytes]:
    """What the index says and the addresses in it give: the archives of foo-1 2.0.0 and foo 1-2.0.0."""
    found = {}
    for name, version in (("foo-1", "2.0.0"), ("foo", "1-2.0.0")):
        (url,) = charts.entry(name, version)["urls"]
        assert url == f"charts/{name}/foo-1-2.0.0.tgz"
        found[name] = charts.get(url).content
        assert charts.get(f"api/charts/{name}/{version}").json()["urls"] == [url]
    return found


def test_helm_x6_v8_members_with_charts_of_one_file_name(server: Server) -> None:
    """Each has an address of its own; the plain one is that of the first member."""
    namespace = server.make_namespace()
    client = server.user(namespace, "maintainer")
    make = lambda **fields: Charts(server, client, server.make_repository(namespace, format="helm", **fields))  # noqa: E731
    first, second = make(), make()
    ours = {"foo": first.publish("foo", "1-2.0.0"), "foo-1": second.publish("foo-1", "2.0.0")}
    proof = samples.provenance(ours["foo-1"], "foo-1", "2.0.0")
    saved(second.post(proof, "api/prov"))
    for members, name in (([first, second], "foo"), ([second, first], "foo-1")):
        charts = make(type="virtual", members=[member.key for member in members])
        assert both(charts) == ours
        all_links_work(charts)
        assert charts.get("charts/foo-1-2.0.0.tgz").content == ours[name]
        assert charts.get("charts/foo-1/foo-1-2.0.0.tgz.prov").content == proof
        assert charts.get("charts/foo-1-2.0.0.tgz.prov").status_code == (200 if name == "foo-1" else 404)
        assert charts.get("api/charts/foo/1-2.0.0/values").status_code == 200


def test_helm_x6_v8_upstreams_with_charts_of_one_file_name(server: Server, upstream: Upstream) -> None:
    with Upstream() as second:
        theirs = offer(upstream, ("foo", "1-2.0.0"))["foo-1-2.0.0.tgz"]
        others = offer(second, ("foo-1", "2.0.0"))["foo-1-2.0.0.tgz"]
        proof = samples.provenance(others, "foo-1", "2.0.0")
        second.add("/charts/foo-1-2.0.0.tgz.prov", Answer(proof))
        group = Group(server, upstream, second)
        assert group.charts.get("charts/foo-1-2.0.0.tgz").content == theirs
        assert both(group.charts) == {"foo": theirs, "foo-1": others}
        all_links_work(group.charts)
        assert group.charts.get("charts/foo-1/foo-1-2.0.0.tgz.prov").content == proof
        refused(group.charts.get("charts/foo-1-2.0.0.tgz.prov"), 404)
        turned = group.add("virtual", members=[group.remotes[1].key, group.remotes[0].key])
        assert turned.get("charts/foo-1-2.0.0.tgz").content == others
        assert turned.get("charts/foo-1-2.0.0.tgz.prov").content == proof


def test_a8_an_upstreams_names_may_differ_by_case_alone(charts: Charts, upstream: Upstream) -> None:
    data = offer(upstream, ("demo", "1.0.0"), ("Demo", "1.0.0"))
    assert list(charts.index()["entries"]) == ["Demo", "demo"]
    for file, content in data.items():
        assert charts.get(f"charts/{file}").content == content


def test_f4_a_private_member_shows_nothing_and_its_names_are_not_asked_for(server: Server, upstream: Upstream) -> None:
    group = Group(server, upstream)
    private = group.add("local", anonymous_read=False)
    key = server.make_repository(
        group.namespace, format="helm", type="virtual", members=[private.key, group.remotes[0].key], anonymous_read=True
    )
    offer(upstream, ("secret", "9.0.0"), ("public", "1.0.0"))
    private.publish("secret")
    nobody = Charts(server, server.client(), key)
    assert list(nobody.index()["entries"]) == ["public"]
    refused(nobody.get("charts/secret-1.0.0.tgz"), 404)
    refused(nobody.get("charts/secret-9.0.0.tgz"), 404)
    member = Charts(server, group.client, key)
    assert member.versions("secret") == ["1.0.0"] and list(member.index()["entries"]) == ["public", "secret"]
    assert list(nobody.index()["entries"]) == ["public"]
    private.publish("public", "2.0.0")
    assert nobody.index()["entries"] == {} and member.versions("public") == ["2.0.0"]


@pytest.mark.parametrize("trouble", [Answer(status=503), Answer(status=404), html_page()], ids=["503", "404", "a page"])
def test_helm_v10_h4_a_member_that_fails_is_never_left_out_in_silence(
    server: Server, upstream: Upstream, trouble: Answer
) -> None:
    with Upstream() as second:
        group = Group(server, upstream, second)
        offer(upstream, ("demo", "1.0.0"))
        second.add("/charts/index.yaml", trouble)
        group.local.publish("ours")
        refused(group.charts.get("index.yaml"), 502)
        # An upstream that says that it has no index has said of a chart that it does not know it.
        refused(group.charts.get("charts/unknown-1.0.0.tgz"), 404 if trouble.status == 404 else 502)
        assert group.charts.get("charts/ours-1.0.0.tgz").status_code == 200
        api = f"/api/v1/repositories/{group.charts.key}"
        assert server.admin.patch(api, json={"options": {"strict": False}}).status_code == 200
        partial = group.charts.get("index.yaml")
        assert list(json.loads(partial.content)["entries"]) == ["demo", "ours"]
        assert partial.headers["x-repoman-incomplete"] == group.remotes[1].key
        assert partial.headers["cache-control"] == "no-store"
        offer(second, ("late", "1.0.0"))
        assert until(lambda: list(group.charts.index()["entries"]) == ["demo", "late", "ours"], 15)


@pytest.mark.parametrize("status", [503, 404, 403])
def test_helm_v10_p3_the_last_good_copy_of_a_member(server: Server, upstream: Upstream, status: int) -> None:
    group = Group(server, upstream)
    data = offer(upstream, ("demo", "1.0.0"))
    assert group.charts.versions() == ["1.0.0"]
    assert group.charts.get("charts/demo-1.0.0.tgz").content == data["demo-1.0.0.tgz"]
    upstream.add("/charts/index.yaml", Answer(status=status))
    for charts in (group.remotes[0], group.charts, group.charts):
        stale = charts.get("index.yaml")
        assert stale.status_code == 200 and "stale" in stale.headers["cache-status"]
    assert group.charts.get("charts/demo-1.0.0.tgz").content == data["demo-1.0.0.tgz"]
    group.local.publish("ours")
    assert list(group.charts.index()["entries"]) == ["demo", "ours"]


def test_uploads_go_to_the_deploy_target(server: Server, upstream: Upstream) -> None:
    group = Group(server, upstream)
    offer(upstream, ("demo", "1.0.0"))
    saved(group.charts.form(chart=samples.chart("ours"), prov=samples.provenance(samples.chart("ours"), "ours")))
    saved(group.charts.put("charts/more-1.0.0.tgz", samples.chart("more")))
    assert list(group.local.index()["entries"]) == ["more", "ours"]
    assert group.charts.get("charts/ours-1.0.0.tgz.prov").status_code == 200
    refused(group.charts.post(samples.chart("ours", text="x")), 409)
    empty = group.add("virtual", members=[group.remotes[0].key])
    refused(empty.post(samples.chart("x")), 405, "deploy target")
    assert group.add("virtual", members=[]).index()["entries"] == {}
