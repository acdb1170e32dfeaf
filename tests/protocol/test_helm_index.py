"""The index, archives and what lies beside them, on running servers (helm.md sections 1 to 4, 6 and 10)."""

from __future__ import annotations

import gzip
import hashlib
import json
from typing import Any

import httpx
import pytest

from formats.helm import samples
from tests.protocol.helm_client import Charts, new_charts, refused, saved
from tests.running import Server


@pytest.fixture
def charts(server: Server) -> Charts:
    return new_charts(server)


def raw(charts: Charts, path: str, **headers: str) -> tuple[httpx.Response, bytes]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    with charts.client.stream("GET", charts.base + path, headers=names) as answer:
        return answer, b"".join(answer.iter_raw())


# --- the index -------------------------------------------------------------------------------------------------------


def test_helm_i11_13_6_an_empty_repository_has_an_index(charts: Charts) -> None:
    index = charts.index()
    assert index["apiVersion"] == "v1" and index["entries"] == {}
    assert index["serverInfo"] == {"contextPath": f"/helm/{charts.key}"}
    assert index["generated"].endswith("Z") and charts.index() == index


def test_helm_i2_i10_i22_i24_m6_what_was_just_published_is_in_it(charts: Charts) -> None:
    for number in range(3):
        data = charts.publish(version=f"1.{number}.0", appVersion="1.10", keywords=["a"])
        entry = charts.entry(version=f"1.{number}.0")
        assert entry["digest"] == hashlib.sha256(data).hexdigest()
        assert entry["urls"] == [f"charts/demo-1.{number}.0.tgz"]
        assert entry["appVersion"] == "1.10" and entry["keywords"] == ["a"]
        assert charts.index()["generated"] >= entry["created"] > "2024"
    assert charts.versions() == ["1.2.0", "1.1.0", "1.0.0"]
    created = charts.entry()["created"]
    charts.publish("other")
    assert charts.entry()["created"] == created


def test_helm_i9_i13_13_22_every_version_by_its_exact_name(charts: Charts) -> None:
    published = ["1.0.0+a", "1.0.0-rc.1", "2.0", "v1.5", "1.0.0", "1.0.0+b"]
    data = {version: charts.publish(version=version) for version in published}
    assert charts.versions() == ["2.0", "v1.5", "1.0.0+b", "1.0.0", "1.0.0+a", "1.0.0-rc.1"]
    for version in published:
        entry = charts.entry(version=version)
        assert charts.get(entry["urls"][0]).content == data[version]


def test_helm_i26_x4_nothing_changed_means_the_same_bytes(charts: Charts) -> None:
    charts.publish()
    first, again = charts.get("index.yaml"), charts.get("index.yaml")
    assert first.content == again.content and first.headers["etag"] == again.headers["etag"]
    assert first.headers["content-type"] == "application/x-yaml"
    assert first.headers["cache-control"] == "private, no-cache"
    assert charts.get("index.yaml", If_None_Match=first.headers["etag"]).status_code == 304
    charts.publish(version="1.1.0")
    changed = charts.get("index.yaml", If_None_Match=first.headers["etag"])
    assert changed.status_code == 200 and changed.headers["etag"] != first.headers["etag"]


def test_helm_c3_13_12_compressed_only_for_who_asks(charts: Charts) -> None:
    for number in range(40):
        charts.publish(f"chart-{number}")
    plain, body = raw(charts, "index.yaml", Accept_Encoding="identity")
    assert "content-encoding" not in plain.headers and int(plain.headers["content-length"]) == len(body)
    packed, small = raw(charts, "index.yaml", Accept_Encoding="gzip")
    assert packed.headers["content-encoding"] == "gzip" and len(small) < len(body) / 3
    assert gzip.decompress(small) == body
    assert "Accept-Encoding" in plain.headers["vary"] and len(json.loads(body)["entries"]) == 40
    tags = [plain.headers["etag"], packed.headers["etag"]]
    assert tags[0] != tags[1] and not any(tag.startswith("W/") for tag in tags)
    for coding, own in (("identity", tags[0]), ("gzip", tags[1])):
        for tag in tags:  # either says that the document is known
            again, nothing = raw(charts, "index.yaml", Accept_Encoding=coding, If_None_Match=tag)
            assert (again.status_code, again.headers["etag"], nothing) == (304, own, b"")
    one, data = raw(charts, "charts/chart-0-1.0.0.tgz", Accept_Encoding="gzip")
    assert "content-encoding" not in one.headers and data == samples.chart("chart-0")


def test_a_long_index_arrives_whole(charts: Charts) -> None:
    for number in range(30):
        charts.publish(f"chart-{number}", description=f"{number}" * 50_000)
    for number in range(2):
        charts.publish("chart-7", f"2.{number}.0")
        plain, body = raw(charts, "index.yaml", Accept_Encoding="identity")
        assert int(plain.headers["content-length"]) == len(body) > 2 * 1024 * 1024
        assert len(json.loads(body)["entries"]["chart-7"]) == 2 + number
        assert gzip.decompress(raw(charts, "index.yaml", Accept_Encoding="gzip")[1]) == body
        head = charts.get("index.yaml", "HEAD", Accept_Encoding="identity")
        assert head.headers["content-length"] == plain.headers["content-length"] and not head.content
        again = charts.get("index.yaml", Accept_Encoding="identity", If_None_Match=plain.headers["etag"])
        assert again.status_code == 304 and not again.content


def test_helm_c11_head_works_everywhere(charts: Charts) -> None:
    data = charts.publish()
    saved(charts.post(samples.provenance(data), "api/prov"))
    for path in (
        "index.yaml",
        "charts/demo-1.0.0.tgz",
        "charts/demo-1.0.0.tgz.prov",
        "api/charts",
        "api/charts/demo",
        "api/charts/demo/1.0.0",
    ):
        whole, head = charts.get(path, Accept_Encoding="identity"), charts.get(path, "HEAD", Accept_Encoding="identity")
        assert head.status_code == 200 and not head.content
        assert head.headers["content-length"] == str(len(whole.content)), path
        assert head.headers.get("etag") == whole.headers.get("etag")


# --- files -----------------------------------------------------------------------------------------------------------


def test_helm_c3_c5_c10_c14_archives_and_their_headers(charts: Charts) -> None:
    data = charts.publish()
    for path in ("charts/demo-1.0.0.tgz", "demo-1.0.0.tgz"):
        answer = charts.get(path, Accept="application/gzip,application/octet-stream")
        assert answer.content == data and answer.headers["content-type"] == "application/gzip"
        assert answer.headers["content-disposition"].startswith("attachment; filename=")  # THREATS J2
        assert (
            answer.headers["x-content-type-options"] == "nosniff"
            and "sandbox" in answer.headers["content-security-policy"]
        )
        assert answer.headers["etag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    part = charts.get("charts/demo-1.0.0.tgz", Range="bytes=2-5")
    assert part.status_code == 206 and part.content == data[2:6]
    assert charts.get("charts/demo-1.0.0.tgz", Accept="text/html").status_code == 200


def test_helm_c9_13_21_a_plus_in_a_version(charts: Charts) -> None:
    data = charts.publish(version="1.0.0+build.7")
    for target in (
        "charts/demo-1.0.0+build.7.tgz",
        "charts/demo-1.0.0%2Bbuild.7.tgz",
        "charts/demo-1.0.0%2bbuild.7.tgz",
    ):
        assert charts.raw("GET", target) == (200, data)
    assert charts.raw("GET", "charts/demo-1.0.0%20build.7.tgz")[0] == 404
    assert charts.raw("GET", "api/charts/demo/1.0.0%2Bbuild.7")[0] == 200
    assert charts.raw("GET", "api/charts/demo/1.0.0+build.7")[0] == 200


def test_a10_helm_i15_13_23_names_and_versions_with_dashes(charts: Charts) -> None:
    first = charts.publish("foo-1", "2.0.0")
    refused(charts.post(samples.chart("foo", "1-2.0.0")), 409, "foo-1")
    assert charts.get("charts/foo-1-2.0.0.tgz").content == first
    other = charts.publish("foo", "1-3.0.0")
    beside = charts.publish("foo", "2.0.0")
    rest = charts.publish("foo-1.0.0-rc", "1")
    assert charts.get("charts/foo-1-3.0.0.tgz").content == other
    assert charts.get("charts/foo-1.0.0-rc-1.tgz").content == rest
    assert charts.delete("foo", "2.0.0").status_code == 200
    assert charts.get("charts/foo-2.0.0.tgz").status_code == 404 and beside
    assert charts.delete("foo-1", "2.0.0").status_code == 200
    assert charts.versions("foo") == ["1-3.0.0"] and charts.versions("foo-1") == []
    again = charts.publish("foo", "1-2.0.0")
    assert charts.get("charts/foo-1-2.0.0.tgz").content == again
    refused(charts.post(samples.chart("foo-1", "2.0.0")), 409, "foo")


def test_helm_v8_c7_c8_what_another_chart_could_be_called_has_its_own_address(charts: Charts) -> None:
    """`foo-1` of version 2.0.0 and `foo` of version 1-2.0.0 would have one address."""
    data = charts.publish("foo-1", "2.0.0")
    proof = samples.provenance(data, "foo-1", "2.0.0")
    plain, own = "charts/foo-1-2.0.0.tgz", "charts/foo-1/foo-1-2.0.0.tgz"
    assert charts.entry("foo-1", "2.0.0")["urls"] == [own]
    assert charts.get("api/charts/foo-1/2.0.0").json()["urls"] == [own]
    saved(charts.put(f"{own}.prov", proof))
    for method in ("GET", "HEAD", "GET"):
        for path, content in ((own, data), (f"{own}.prov", proof), (plain, data), (f"{plain}.prov", proof)):
            answer = charts.get(path, method)
            assert answer.status_code == 200 and answer.headers["etag"] == f'"{hashlib.sha256(content).hexdigest()}"'
            assert answer.content == (content if method == "GET" else b"")
    for path in ("charts/foo/foo-1-2.0.0.tgz", "charts/other/foo-1-2.0.0.tgz", "charts/a/b/foo-1-2.0.0.tgz"):
        refused(charts.get(path), 404)
    refused(charts.put("charts/foo/foo-1-3.0.0.tgz", samples.chart("foo-1", "3.0.0")), 400, "foo/foo-1-3.0.0.tgz")
    saved(charts.put("charts/foo-1/foo-1-3.0.0.tgz", samples.chart("foo-1", "3.0.0")))
    charts.publish("demo")
    assert charts.entry()["urls"] == ["charts/demo-1.0.0.tgz"]
    assert charts.get("charts/demo/demo-1.0.0.tgz").content == samples.chart()


def test_helm_p3_c15_what_is_not_there_is_404_and_no_page(charts: Charts) -> None:
    charts.publish()
    for path in (
        "charts/demo-1.0.0.tgz.prov",
        "charts/demo-2.0.0.tgz",
        "charts/other-1.0.0.tgz",
        "charts/demo.tgz",
        "artifacthub-repo.yml",
        "",
        "api/charts/other",
        "api/charts/demo/2.0.0",
        "index.yml",
    ):
        refused(charts.get(path), 404)


@pytest.mark.parametrize(
    "target", ["charts/..%2f..%2fetc-1.0.0.tgz", "charts/%2e%2e/x-1.0.0.tgz", "charts/a%00-1.0.0.tgz"]
)
def test_a1_a3_paths_that_lead_elsewhere(charts: Charts, target: str) -> None:
    status, body = charts.raw("GET", target)
    assert status in (400, 404) and b"root:" not in body


# --- who may ---------------------------------------------------------------------------------------------------------


def test_helm_a1_a7_m9_signing_in(server: Server, charts: Charts) -> None:
    data = charts.publish()
    nobody = charts.as_other(server.client())
    for path in ("index.yaml", "charts/demo-1.0.0.tgz", "api/charts", "charts/none-1.0.0.tgz"):
        answer = nobody.get(path)
        refused(answer, 401)
        assert answer.json()["error"] == "unauthorized"
        assert answer.headers["www-authenticate"].startswith("Basic realm=")
    token = server.token(charts.client, actions=["read"], repositories=[charts.key])["token"]
    assert charts.as_other(server.client("anything", token)).get("charts/demo-1.0.0.tgz").content == data
    bearer = nobody.get("charts/demo-1.0.0.tgz", Authorization=f"Bearer {token}")
    assert bearer.content == data
    refused(nobody.get("index.yaml", Authorization="Bearer wrong"), 401)
    stranger = charts.as_other(server.client(*server.make_user()))
    refused(stranger.get("index.yaml"), 404)
    reader = charts.as_other(server.user(charts.key, "reader"))
    assert reader.versions() == ["1.0.0"]
    refused(reader.post(samples.chart(version="2.0.0")), 403)
    refused(reader.delete("demo", "1.0.0"), 403)
    refused(nobody.post(samples.chart()), 401)


def test_a_token_that_may_only_publish_publishes(server: Server, charts: Charts) -> None:
    token = server.token(charts.client, actions=["publish"], repositories=[charts.key])["token"]
    publisher = charts.as_other(server.client("ci", token))
    data = samples.chart()
    saved(publisher.post(samples.provenance(data), "api/prov"))
    saved(publisher.post(data))
    refused(publisher.get("index.yaml"), 403)
    assert charts.get("charts/demo-1.0.0.tgz.prov").content == samples.provenance(data)


def test_anybody_reads_a_public_repository(server: Server) -> None:
    charts = new_charts(server, anonymous_read=True)
    charts.publish()
    nobody = charts.as_other(server.client())
    assert nobody.versions() == ["1.0.0"] and nobody.get("charts/demo-1.0.0.tgz").status_code == 200
    assert nobody.index()["serverInfo"] == {"contextPath": f"/helm/{charts.key}"}


def test_g10_no_host_of_a_request_is_in_the_index(charts: Charts) -> None:
    charts.publish()
    answer = charts.get("index.yaml", Host="evil.example")
    assert answer.status_code in (200, 400) and "evil.example" not in answer.text


# --- what else there is of a repository ------------------------------------------------------------------------------


def test_the_management_api_knows_charts(server: Server, charts: Charts) -> None:
    data = charts.publish()
    saved(charts.post(samples.provenance(data), "api/prov"))
    charts.publish(version="1.1.0")
    api = f"/api/v1/repositories/{charts.key}"
    ask: Any = lambda path, **query: server.admin.get(f"{api}/{path}", params=query).json()["items"]  # noqa: E731
    assert [item["name"] for item in ask("packages")] == ["demo"]
    assert [item["version"] for item in ask("versions", package="demo")] == ["1.1.0", "1.0.0"]
    files = ask("files", package="demo", version="1.0.0")
    assert [item["name"] for item in files] == ["demo-1.0.0.tgz", "demo-1.0.0.tgz.prov"]
    said = server.admin.get(f"{api}/explain", params={"path": "index.yaml"}).json()
    assert said["sources"][0]["outcome"] == "has it"
    removed = server.admin.delete(f"{api}/versions", params={"package": "demo", "version": "1.0.0"})
    assert removed.status_code == 204 and charts.versions() == ["1.1.0"]
    revision = max(
        row["revision"] or 0
        for row in server.admin.get(f"/api/v1/audit?namespace={charts.key.split('/')[0]}").json()["items"]
    )
    assert server.admin.post(f"{api}/undelete", json={"revision": revision}).status_code == 200
    assert charts.versions() == ["1.1.0", "1.0.0"]
    assert charts.get("charts/demo-1.0.0.tgz.prov").content == samples.provenance(data)


def test_helm_o17_a_chart_in_a_registry_is_not_in_an_index(server: Server, charts: Charts) -> None:
    """Two formats, two repositories: what is pushed to one is not in the other."""
    charts.publish()
    oci = server.make_repository(charts.key.split("/")[0], format="oci")
    name = oci.split("/")[1]
    assert server.admin.get(f"/v2/{oci}/demo/tags/list").status_code == 404
    assert server.admin.get(f"/helm/{oci}/index.yaml").status_code == 404
    assert server.admin.get(f"/v2/{charts.key}/demo/tags/list").status_code == 404
    refused_name = server.admin.post(
        f"/api/v1/namespaces/{charts.key.split('/')[0]}/repositories",
        json={"name": name, "format": "helm", "type": "local"},
    )
    assert refused_name.status_code == 409
