"""Remote and virtual PyPI repositories: what is particular to this format (pypi.md sections 13 and 14)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from formats.pypi import samples
from formats.pypi.listing import SIMPLE_JSON
from tests.fault.upstreams import until
from tests.protocol.pypi_client import Index, new_index, refused
from tests.running import Deployment, Server
from tests.tools.upstream import Answer, Upstream, html_page

WHEEL = samples.wheel("demo", "1.0")
SDIST = samples.sdist("demo", "1.0")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Deployment.embedded(tmp_path_factory.mktemp("remote"), REPOMAN_UPSTREAM_ALLOW="127.0.0.0/8") as found:
        yield found


@pytest.fixture
def index(server: Server, upstream: Upstream) -> Index:
    return new_index(server, type="remote", remote={"url": upstream.url("/simple/")})


def item(sample: samples.Sample = WHEEL, **more: Any) -> dict[str, Any]:
    return {
        "filename": sample.filename,
        "url": f"/files/{sample.filename}",
        "hashes": {"sha256": sample.sha256},
        "size": len(sample.data),
        "upload-time": "2020-01-02T03:04:05.678901Z",
        "requires-python": ">=3.8",
        "yanked": False,
        **more,
    }


def serve_page(upstream: Upstream, *items: dict[str, Any], name: str = "demo", **more: Any) -> None:
    page = {"meta": {"api-version": "1.4"}, "name": name, "files": list(items), "versions": ["1.0"], **more}
    upstream.add(f"/simple/{name}/", Answer(json.dumps(page).encode(), media_type=SIMPLE_JSON))


def serve_files(upstream: Upstream) -> None:
    for sample in (WHEEL, SDIST):
        upstream.add(f"/files/{sample.filename}", Answer(sample.data))
    upstream.add(f"/files/{WHEEL.filename}.metadata", Answer(WHEEL.metadata))


def test_pypi_13_1_13_2_13_6_what_the_upstream_says_and_our_addresses(index: Index, upstream: Upstream) -> None:
    sha256 = hashlib.sha256(WHEEL.metadata).hexdigest()
    serve_page(
        upstream,
        item(**{"core-metadata": {"sha256": sha256}, "new-key": 1}),
        item(SDIST, yanked="a reason"),
        **{"project-status": {"status": "archived", "reason": "done"}},
    )
    serve_files(upstream)
    page = index.page("demo")
    assert upstream.seen("/simple/demo/")[0].headers["accept"].startswith(SIMPLE_JSON)
    wheel, sdist = page["files"]
    assert wheel["url"] == f"{index.address}/files/demo/{WHEEL.filename}"
    assert wheel["upload-time"] == "2020-01-02T03:04:05.678901Z" and wheel["size"] == len(WHEEL.data)
    assert wheel["core-metadata"] == {"sha256": sha256} and wheel["new-key"] == 1
    assert sdist["yanked"] == "a reason" and wheel["yanked"] is False
    assert page["project-status"] == {"status": "archived", "reason": "done"}
    assert upstream.count(f"/files/{WHEEL.filename}") == 0
    for sample in (WHEEL, SDIST):
        assert index.file(sample).content == sample.data and index.file(sample).content == sample.data
        assert upstream.count(f"/files/{sample.filename}") == 1
    assert index.file(WHEEL, ".metadata").content == WHEEL.metadata


def test_pypi_5_4_metadata_advertised_without_a_hash(index: Index, upstream: Upstream) -> None:
    serve_page(upstream, item(**{"core-metadata": True}), item(SDIST))
    serve_files(upstream)
    assert index.page("demo")["files"][0]["core-metadata"] is True
    assert index.file(WHEEL, ".metadata").content == WHEEL.metadata
    refused(index.file(SDIST, ".metadata"), 404)


def test_pypi_13_1_13_3_an_upstream_with_html_alone(index: Index, upstream: Upstream) -> None:
    text = (
        f"<!DOCTYPE html><html><head><base href='{upstream.origin}/'><title>Links for Demo</title></head><body>"
        f"<a href='files/{WHEEL.filename}#sha256={WHEEL.sha256}' data-requires-python='&gt;=3.8'>x</a>"
        f"<a href='files/{SDIST.filename}#sha256={SDIST.sha256}' data-yanked=''>y</a><script>alert(1)</script></body></html>"
    )
    upstream.add("/simple/demo/", Answer(text.encode(), media_type="text/html; charset=utf-8"))
    serve_files(upstream)
    page = index.page("demo")
    assert page["meta"]["api-version"] == "1.0" and page["versions"] == ["1.0"]
    assert [found["yanked"] for found in page["files"]] == [False, True]
    assert index.file(WHEEL).content == WHEEL.data and index.file(SDIST).content == SDIST.data
    assert "script" not in index.html("demo") and upstream.origin not in index.html("demo")


def test_pypi_13_3_18_11_addresses_after_a_redirect(index: Index, upstream: Upstream) -> None:
    upstream.add("/simple/demo/", Answer(redirect="/moved/deep/demo/", status=301))
    page = {"meta": {"api-version": "1.0"}, "name": "demo", "files": [item(url=f"../files/{WHEEL.filename}")]}
    upstream.add("/moved/deep/demo/", Answer(json.dumps(page).encode(), media_type=SIMPLE_JSON))
    upstream.add(f"/moved/deep/files/{WHEEL.filename}", Answer(WHEEL.data))
    assert index.names("demo") == [WHEEL.filename]
    assert index.file(WHEEL).content == WHEEL.data


def test_pypi_10_4_provenance_passes_through_unchanged(index: Index, upstream: Upstream) -> None:
    proof = b'{"version":1,  "attestation_bundles":[]}'
    serve_page(upstream, item(provenance=upstream.url("/integrity/x")))
    upstream.add("/integrity/x", Answer(proof, media_type="application/vnd.pypi.integrity.v1+json"))
    found = index.page("demo")["files"][0]["provenance"]
    assert found == f"{index.address}/integrity/demo/1.0/{WHEEL.filename}/provenance"
    answer = index.client.get(found)
    assert answer.content == proof and answer.headers["content-type"] == "application/vnd.pypi.integrity.v1+json"


def test_pypi_13_6_g5_other_bytes_than_the_index_says(index: Index, upstream: Upstream) -> None:
    serve_page(upstream, item())
    upstream.add(f"/files/{WHEEL.filename}", Answer(samples.wheel("demo", "1.0", text="evil").data), Answer(WHEEL.data))
    try:
        got = index.file(WHEEL)
        assert got.status_code in (502, 503), got.status_code
    except httpx.TransportError:  # the connection was broken before the last byte
        pass
    # What has just failed is not asked for again at once.
    assert until(lambda: index.file(WHEEL).status_code == 200, 15)
    assert index.file(WHEEL).content == WHEEL.data


def test_pypi_13_8_6_8_18_5_a_broken_upstream_is_never_404(index: Index, upstream: Upstream) -> None:
    upstream.add("/simple/login/", html_page())
    upstream.add("/simple/down/", Answer(status=503))
    upstream.add("/simple/other/", Answer(b'{"message": "x"}', media_type="application/json"))
    for name in ("login", "down", "other"):
        answer = index.get(f"simple/{name}/", Accept=SIMPLE_JSON)
        assert answer.status_code in (502, 503, 504), (name, answer.status_code)
    assert index.get("simple/missing/").status_code == 404


def test_pypi_13_8_uploads_to_a_remote_are_refused(index: Index) -> None:
    refused(index.upload(WHEEL), 405)


def test_pypi_13_an_index_of_projects(index: Index, upstream: Upstream) -> None:
    page = {"meta": {"api-version": "1.4"}, "projects": [{"name": "Demo"}, {"name": "Foo.Bar"}]}
    upstream.add("/simple/", Answer(json.dumps(page).encode(), media_type=SIMPLE_JSON))
    assert index.get("simple/", Accept=SIMPLE_JSON).json()["projects"] == [{"name": "demo"}, {"name": "foo-bar"}]


def test_pypi_14_2_17_6_h1_a_local_name_hides_the_upstreams(server: Server, upstream: Upstream) -> None:
    namespace = server.make_namespace()
    local = new_index(server, namespace=namespace)
    remote = server.make_repository(namespace, format="pypi", type="remote", remote={"url": upstream.url("/simple/")})
    key = server.make_repository(
        namespace, format="pypi", type="virtual", members=[local.key, remote], deploy_target=local.key
    )
    virtual = Index(server, server.user(namespace, "maintainer"), key)
    newer = samples.wheel("demo", "99.0")
    serve_page(upstream, item(newer), versions=["99.0"])
    serve_page(upstream, item(samples.wheel("public", "2.0")), name="public")
    assert virtual.names("demo") == [newer.filename]
    virtual.publish(WHEEL)
    assert local.names("demo") == [WHEEL.filename] and virtual.names("demo") == [WHEEL.filename]
    refused(virtual.file(newer), 404)
    assert virtual.file(WHEEL).content == WHEEL.data and virtual.file(WHEEL, ".metadata").content == WHEEL.metadata
    assert virtual.names("public") == ["public-2.0-py3-none-any.whl"]
    asked = upstream.count("/simple/demo/")
    virtual.page("demo")
    assert upstream.count("/simple/demo/") == asked
