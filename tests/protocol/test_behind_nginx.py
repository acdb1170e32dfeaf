"""The shipped nginx configuration in front of a real server: bytes, headers, and what must not get through."""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.protocol.test_http_layer import SMUGGLING
from tests.running import ADMIN_PASSWORD, ROOT, Deployment, Server
from tests.tools import services

NGINX = ROOT / "deploy" / "nginx"
# What belongs to the connection or to the moment, or names the program that answers; and, since this machine counts as
# the proxy, what Repoman tells a proxy instead of sending the bytes. (nginx repeats Accept-Ranges when it sends a file.)
OWN = {"date", "server", "connection", "x-request-id", "transfer-encoding"}
OWN |= {"x-accel-redirect", "content-length", "accept-ranges"}


@dataclass
class Front:
    url: str
    server: Server

    def client(self, url: str) -> httpx.Client:
        return httpx.Client(base_url=url, auth=("admin", ADMIN_PASSWORD), timeout=60)


@pytest.fixture(scope="module", params=["passed on", "sent by nginx"])
def front(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """With and without files that nginx reads itself."""
    settings = {"REPOMAN_TRUSTED_PROXIES": "127.0.0.1/32"}
    folder = tmp_path_factory.mktemp("nginx")
    blobs = Path("/tmp") / f"repoman-blobs-{os.getpid()}"  # pytest's own folders are closed to other users
    blobs.mkdir(mode=0o755)
    try:
        if request.param == "sent by nginx":
            shutil.chown(blobs, group="www-data")
            blobs.chmod(0o2750 | stat.S_ISGID)
            settings |= {"REPOMAN_ACCEL": "/_blobs/", "REPOMAN_BLOBS": str(blobs)}
        with Deployment.embedded(folder / "data", **settings) as server:
            with services.nginx(configuration(server, blobs)) as url:
                yield Front(str(url), server)
    finally:
        shutil.rmtree(blobs)


def configuration(server: Server, blobs: Path) -> str:
    """The shipped files with this machine's addresses and folders."""
    main = (NGINX / "repoman.conf").read_text()
    inner = (NGINX / "locations.inc").read_text()
    for old, new in {
        "127.0.0.1:8080": server.host,
        "listen 80;": "listen @listen@;",
        "    include /etc/nginx/repoman/locations.inc;": inner.replace("/srv/repoman/blobs/", f"{blobs}/"),
    }.items():
        assert old in main
        main = main.replace(old, new)
    return main


def told(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in OWN}


def test_bodies_of_any_size_and_framing_pass_both_ways(front: Front) -> None:
    key = front.server.make_repository(format="generic")
    data = os.urandom(2**20) * 20
    with front.client(front.url) as client:
        assert client.put(f"/generic/{key}/length", content=data).status_code == 201
        pieces = (data[start : start + 100_000] for start in range(0, len(data), 100_000))
        assert client.put(f"/generic/{key}/chunked", content=pieces).status_code == 201
        for name in ("length", "chunked"):
            assert client.get(f"/generic/{key}/{name}").content == data


def test_j2_every_header_of_an_answer_arrives(front: Front) -> None:
    key = front.server.make_repository(format="generic")
    data = b"<script>alert(1)</script>" * 100_000
    path = f"/generic/{key}/page.html"
    with front.client(front.url) as proxied, front.client(front.server.url) as direct:
        assert proxied.put(path, content=data, headers={"Content-Type": "text/html"}).status_code == 201
        expected = told(direct.get(path))
        assert "content-security-policy" in expected
        for method in ("GET", "HEAD"):
            answer = proxied.request(method, path)
            assert told(answer) == expected
            assert answer.headers["content-length"] == str(len(data))
            assert "bytes" in answer.headers["accept-ranges"]
        etag = expected["etag"]
        for headers, status in [
            ({"If-None-Match": etag}, 304),
            ({"If-Match": '"other"'}, 412),
            ({"Range": "bytes=10-19"}, 206),
            ({"Range": "bytes=10-19", "If-Range": etag}, 206),
            ({"Range": "bytes=10-19", "If-Range": '"other"'}, 200),
            ({"Range": "bytes=99999999-"}, 416),
        ]:
            answer = proxied.get(path, headers=headers)
            assert answer.status_code == status, headers
            if status == 206:
                assert answer.content == data[10:20]
                assert answer.headers["content-range"] == f"bytes 10-19/{len(data)}"


def test_g10_addresses_in_answers_are_those_the_client_used(front: Front) -> None:
    answer = httpx.get(
        f"{front.url}/v2/", headers={"X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"}
    )
    assert answer.status_code == 401
    assert f'realm="{front.url}/' in answer.headers["www-authenticate"]
    assert "evil" not in answer.headers["www-authenticate"]


def test_a1_the_folder_of_the_blobs_cannot_be_asked_for(front: Front) -> None:
    for path in ("/_blobs/", "/_blobs/sha256/", "/_blobs/sha256/../", "/_blobs%2fsha256%2f"):
        assert httpx.get(f"{front.url}{path}").status_code in (400, 404)


@pytest.mark.parametrize("name", SMUGGLING)
def test_i1_through_nginx_one_request_gets_one_answer(front: Front, name: str) -> None:
    """nginx may refuse, or repair before passing on; a second answer, or one from the smuggled request, never comes."""
    host, port = front.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as sock:
        sock.sendall(SMUGGLING[name].replace(b"/hash", b"/v2/").replace(b"/pid", b"/healthz"))
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    assert len(re.findall(rb"HTTP/1\.\d \d{3} ", answer)) <= 1, answer
    # 501 and 505 are nginx's own, for codings and versions that it does not know.
    assert not re.match(rb"HTTP/1\.\d 50[0234] ", answer), answer
