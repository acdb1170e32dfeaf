"""Dependencies that go away and come back, and several nodes that act as one."""

from __future__ import annotations

import os
from pathlib import Path

import httpx

from tests.oci import Image, digest_of
from tests.running import ADMIN_PASSWORD, NO_TLS, Server, environment, free_port, s3_environment
from tests.tools import services

from .upstreams import until


def test_O1_database_gone_is_503_and_recovers_by_itself(tmp_path: Path) -> None:
    with services.postgres() as database:
        port = free_port()
        data = tmp_path / "data"
        server = Server(f"http://127.0.0.1:{port}", data, environment(data, port, REPOMAN_DATABASE_URL=str(database)))
        try:
            server.start()
            key = server.make_repository()
            image = Image(server.client(*server.make_user(key, "publisher")), f"{key}/app")
            document = image.push("1", b"layer")
            database.server.stop()
            for attempt in (
                lambda: image.get("1"),
                lambda: image.push_blob(b"other"),
                lambda: server.admin.get("/api/v1/users"),
            ):
                answer = attempt()
                assert answer.status_code == 503, answer.text
                assert "Retry-After" in answer.headers
            ready = httpx.get(f"{server.url}/readyz", timeout=20, verify=NO_TLS)
            assert ready.status_code == 503 and "database" in ready.text
            assert httpx.get(f"{server.url}/healthz", timeout=5).status_code == 200
            database.server.start()
            assert until(lambda: image.get("1").status_code == 200, 15), server.tail()
            assert image.get("1").content == document
            assert image.push_blob(b"after").status_code == 201
            assert until(lambda: httpx.get(f"{server.url}/readyz", timeout=20, verify=NO_TLS).status_code == 200, 30)
        finally:
            server.stop()


def test_two_nodes_behind_nginx_are_one_registry(tmp_path: Path) -> None:
    """Two web processes and two workers on two nodes, PostgreSQL + S3 + Redis, nginx in front."""
    with services.postgres() as database, services.redis() as redis, services.s3() as s3:
        nodes: list[Server] = []
        try:
            for name in ("one", "two"):
                port = free_port()
                settings = environment(
                    tmp_path / name,
                    port,
                    REPOMAN_DATABASE_URL=str(database),
                    REPOMAN_REDIS_URL=str(redis),
                    REPOMAN_SECRET_KEY="shared by all nodes of this installation",
                    REPOMAN_TRUSTED_PROXIES="127.0.0.0/8",
                    **s3_environment(s3),
                )
                node = Server(f"http://127.0.0.1:{port}", tmp_path / name, settings)
                nodes.append(node)
                node.start()
            first, second = nodes
            upstream = "".join(f"server {node.host};" for node in nodes)
            conf = f"""
            upstream repoman {{ {upstream} }}
            server {{
                listen @listen@;
                client_max_body_size 0;
                location / {{
                    proxy_pass http://repoman;
                    proxy_http_version 1.1;
                    proxy_request_buffering off;
                    proxy_buffering off;
                    proxy_set_header Host $http_host;
                    proxy_set_header X-Forwarded-For $remote_addr;
                    proxy_set_header X-Forwarded-Proto $scheme;
                }}
            }}
            """
            key = first.make_repository()
            user = first.make_user(key, "maintainer")
            document = Image(first.client(*user), f"{key}/app").push("1", b"a layer")
            other = Image(second.client(*user), f"{key}/app")
            assert other.get("1").content == document
            assert other.blob(digest_of(b"a layer")).content == b"a layer"

            token = first.token(first.client(*user), actions=["read"])
            on_second = Image(second.client("any", token["token"]), f"{key}/app")
            bearer = second.client().get(
                "/token", params={"service": "x", "scope": f"repository:{key}/app:pull"}, auth=("any", token["token"])
            )
            registry = {"Authorization": f"Bearer {bearer.json()['token']}"}
            url = f"/v2/{key}/app/manifests/1"
            assert on_second.get("1").status_code == 200
            assert second.client().get(url, headers=registry).status_code == 200
            assert first.client(*user).delete(f"/api/v1/tokens/{token['id']}").status_code == 204
            assert until(lambda: on_second.get("1").status_code == 401, 2)
            assert until(lambda: second.client().get(url, headers=registry).status_code == 401, 2)

            with services.nginx(conf) as front:
                with httpx.Client(base_url=str(front), auth=user, timeout=60, verify=NO_TLS) as client:
                    image = Image(client, f"{key}/front")
                    for number in range(6):
                        layer = os.urandom(200_000)
                        pushed = image.push(str(number), layer)
                        assert image.get(str(number)).content == pushed
                        assert image.blob(digest_of(layer)).content == layer
                        location = image.begin()
                        half = client.patch(location, content=iter([layer[:1000], layer[1000:5000]]))
                        assert half.status_code == 202 and half.headers["Range"] == "0-4999"
                        assert client.delete(half.headers["Location"]).status_code == 204
                    challenge = httpx.get(f"{front}/v2/").headers["WWW-Authenticate"]
                    assert f'realm="{front}/token"' in challenge
            result = second.job("collect", grace_seconds=60)
            assert result["state"] == "succeeded", result
            assert ADMIN_PASSWORD not in first.tail(10**6) + second.tail(10**6)
        finally:
            for node in nodes:
                node.stop()
