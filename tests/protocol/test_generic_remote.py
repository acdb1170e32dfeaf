"""Generic repositories that show an upstream's files: ranges, conditions, files that change, names, and what is not
there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from formats.generic.samples import FILES, numbered
from tests.protocol.generic_client import Files, refused, sha256
from tests.running import Deployment, Server
from tests.tools.upstream import Answer, Upstream


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Deployment.embedded(tmp_path_factory.mktemp("generic-remote"), REPOMAN_UPSTREAM_ALLOW="127.0.0.0/8") as found:
        yield found


def remote_of(server: Server, url: str, **settings: Any) -> Files:
    remote = {"url": url, "connect_timeout": 2, "read_timeout": 5, "negative_ttl": 0, **settings}
    key = server.make_repository(format="generic", type="remote", remote=remote, anonymous_read=True)
    return Files(server, server.client(), key)


def test_a_file_is_fetched_once_and_served_with_all_headers(server: Server, upstream: Upstream) -> None:
    data = numbered(300_000)
    upstream.add("/dir/app.bin", Answer(data, etag='"up"'))
    files = remote_of(server, upstream.url())
    assert files.ask("HEAD", "dir/app.bin").headers["content-length"] == "300000"
    assert upstream.count("/dir/app.bin", "GET") == 0
    assert files.get("dir/app.bin").content == data
    found = files.get("dir/app.bin")
    assert found.content == data
    assert found.headers["etag"] == f'"{sha256(data)}"' and found.headers["x-checksum-sha256"] == sha256(data)
    assert "last-modified" in found.headers and found.headers["x-content-type-options"] == "nosniff"
    part = files.get("dir/app.bin", Range="bytes=100000-100003")
    assert (part.status_code, part.content) == (206, data[100000:100004])
    assert files.get("dir/app.bin", If_None_Match=found.headers["etag"]).status_code == 304
    assert files.get("dir/app.bin", If_Modified_Since=found.headers["last-modified"]).status_code == 304
    assert files.ask("HEAD", "dir/app.bin").headers["etag"] == found.headers["etag"]
    assert upstream.count("/dir/app.bin", "GET") == 1


def test_a_range_of_what_is_not_here_yet_gives_the_right_bytes(server: Server, upstream: Upstream) -> None:
    data = numbered(50_000)
    upstream.add("/cold.bin", Answer(data))
    files = remote_of(server, upstream.url())
    found = files.get("cold.bin", Range="bytes=10-19")
    assert (found.status_code, found.content) in ((206, data[10:20]), (200, data))


def test_a_file_that_changes_upstream_changes_here_after_its_time(server: Server, upstream: Upstream) -> None:
    upstream.add("/latest.txt", Answer(b"one", etag='"1"'))
    files = remote_of(server, upstream.url(), metadata_ttl=1)
    assert files.get("latest.txt").content == b"one"
    upstream.add("/latest.txt", Answer(b"two", etag='"2"'))
    assert files.get("latest.txt").content == b"one"
    time.sleep(1.1)
    changed = files.get("latest.txt")
    assert changed.content == b"two" and changed.headers["etag"] == f'"{sha256(b"two")}"'
    assert upstream.seen("/latest.txt")[-1].headers["if-none-match"] == '"1"'
    time.sleep(1.1)
    assert files.get("latest.txt").content == b"two"
    assert upstream.seen("/latest.txt")[-1].headers["if-none-match"] == '"2"'
    assert upstream.bodies("/latest.txt") == 2


def test_what_is_held_is_served_while_the_upstream_is_down(server: Server) -> None:
    with Upstream() as upstream:
        upstream.add("/a.txt", Answer(b"kept"))
        files = remote_of(server, upstream.url(), metadata_ttl=0)
        assert files.get("a.txt").content == b"kept"
    found = files.get("a.txt")
    assert found.content == b"kept"
    assert files.get("b.txt").status_code in (502, 503, 504)


@pytest.mark.parametrize("name", sorted(FILES))
def test_names_reach_the_upstream_as_they_are(server: Server, upstream: Upstream, name: str) -> None:
    def echo(seen: Any) -> bytes:
        return seen.target.encode()

    upstream.everywhere = Answer(echo)
    found = remote_of(server, upstream.url("/base dir".replace(" ", "%20"))).get(name)
    from urllib.parse import unquote

    assert unquote(found.text) == f"/base dir/{name}"


def test_nothing_above_the_address_is_asked_for(server: Server, upstream: Upstream) -> None:
    files = remote_of(server, upstream.url("/inside/"))
    for target in ("../secret", "..%2fsecret", "a/../../secret", "%2e%2e/secret", "/etc/passwd", "http://127.0.0.1/x"):
        status, _ = files.raw("GET", target)
        assert status in (400, 404), target
    assert all(seen.path.startswith("/inside/") for seen in upstream.requests)


def test_folders_of_an_upstream_are_not_listed_and_nothing_is_404(server: Server, upstream: Upstream) -> None:
    upstream.add("/dir/", Answer(b"<html>index</html>", media_type="text/html"))
    files = remote_of(server, upstream.url())
    assert files.get("dir/").status_code == 404
    assert upstream.requests == []
    refused(files.get("no/such.txt"), 404, "file_not_found")
    assert files.ask("PUT", "new.txt", content=b"x").status_code == 401
    admin = files.as_other(server.admin)
    refused(admin.put("new.txt", b"x"), 405, "method_not_allowed")
    refused(admin.ask("DELETE", "new.txt"), 405, "method_not_allowed")


def test_a_page_for_people_has_no_power_here(server: Server, upstream: Upstream) -> None:
    upstream.add("/p.html", Answer(b"<script>1</script>", media_type="text/html", headers=(("Set-Cookie", "a=b"),)))
    found = remote_of(server, upstream.url()).get("p.html")
    assert found.status_code == 200 and "set-cookie" not in found.headers
    assert found.headers["content-disposition"].startswith("attachment")
    assert "sandbox" in found.headers["content-security-policy"]


def test_a_virtual_repository_puts_to_its_target_and_reads_both(server: Server, upstream: Upstream) -> None:
    namespace = server.make_namespace()
    upstream.add("/theirs.txt", Answer(b"theirs"))
    upstream.add("/both.txt", Answer(b"theirs too"))
    local = server.make_repository(namespace, format="generic", options={"allow_overwrite": False})
    remote = server.make_repository(namespace, format="generic", type="remote", remote={"url": upstream.url()})
    key = server.make_repository(
        namespace, format="generic", type="virtual", members=[remote, local], deploy_target=local
    )
    files = Files(server, server.user(namespace, "maintainer"), key)
    assert files.get("theirs.txt").content == b"theirs"
    assert files.get("both.txt").content == b"theirs too"
    assert files.put("both.txt", b"ours").status_code == 201
    assert files.get("both.txt").content == b"ours"
    assert files.put("both.txt", b"ours").status_code == 200
    assert files.put("both.txt", b"other").status_code in (403, 409)  # the target's options
    assert files.put("new.txt", b"n", If_None_Match="*").status_code == 201
    listed = files.ask("GET", "", headers={"Accept": "application/json"}).json()["items"]
    assert [item["name"] for item in listed] == ["both.txt", "new.txt"]
    assert files.get("both.txt", If_None_Match=f'"{sha256(b"ours")}"').status_code == 304
    assert files.get("theirs.txt", Range="bytes=0-1").content == b"th"
