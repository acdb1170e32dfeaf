"""The API on a running server: races, and revocation on every process."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.running import ADMIN_PASSWORD, NO_TLS, Server

REVOKED_WITHIN_SECONDS = 2.0


def at_once(count: int, act: Callable[[int], int]) -> Counter[int]:
    """Statuses of `count` calls that begin together."""
    barrier = threading.Barrier(count)
    statuses: list[int] = []

    def one(number: int) -> None:
        barrier.wait(30)
        statuses.append(act(number))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return Counter(statuses)


@pytest.mark.parametrize("what", ["users", "namespaces", "repositories", "tokens"])
def test_w6_made_at_once_by_many_there_is_one_and_the_others_conflict(server: Server, what: str) -> None:
    namespace = server.make_namespace()
    path, body = {
        "users": ("users", {"username": f"user-{namespace}", "password": "a long enough password"}),
        "namespaces": ("namespaces", {"name": f"{namespace}-x"}),
        "repositories": (f"namespaces/{namespace}/repositories", {"name": "one", "format": "oci", "type": "local"}),
        "tokens": ("tokens", {"name": f"token-{namespace}"}),
    }[what]

    def make(number: int) -> int:
        with _admin(server) as client:
            return client.post(f"/api/v1/{path}", json=body).status_code

    assert at_once(10, make) == {201: 1, 409: 9}


def _admin(server: Server) -> httpx.Client:
    return server.client("admin", ADMIN_PASSWORD)


def test_e6_what_is_revoked_is_refused_on_every_process_at_once(server: Server) -> None:
    """A token, a grant and an account, each used often enough to be remembered by every process."""
    key = server.make_repository()
    address = f"/v2/{key}/app/tags/list"

    def status(client: httpx.Client) -> int:
        return client.get(address).status_code

    def all_refuse(clients: list[httpx.Client], expected: set[int]) -> None:
        """Fresh connections, so that they spread over the processes."""
        deadline = time.monotonic() + REVOKED_WITHIN_SECONDS
        while True:
            seen = {status(client) for client in clients}
            if seen <= expected:
                return
            assert time.monotonic() < deadline, seen

    def fresh(user: str, password: str) -> list[httpx.Client]:
        return [server.client(user, password) for _ in range(12)]

    name, password = server.make_user(key, "publisher")
    made = server.token(server.client(name, password), actions=["read"])
    by_token, by_password = fresh("token", made["token"]), fresh(name, password)
    issued = server.client(name, password).get("/token", params={"scope": f"repository:{key}/app:pull"}).json()["token"]

    def with_issued() -> list[httpx.Client]:
        headers = {"Authorization": f"Bearer {issued}"}
        return [httpx.Client(base_url=server.url, verify=NO_TLS, headers=headers) for _ in range(12)]

    for client in (*by_token, *by_password, *with_issued()):
        assert status(client) == status(client) == 404  # readable; there is no such image
        client.close()
    owner: Any = _admin(server)
    assert server.client(name, password).delete(f"/api/v1/tokens/{made['id']}").status_code == 204
    all_refuse(fresh("token", made["token"]), {401})
    assert owner.delete(f"/api/v1/repositories/{key}/grants/{name}").status_code == 204
    body = server.client(name, password).get(address).json()
    assert body["errors"][0]["code"] == "NAME_UNKNOWN"
    assert server.client(name, password).post(f"/v2/{key}/app/blobs/uploads/").status_code == 404
    assert owner.patch(f"/api/v1/users/{name}", json={"disabled": True}).status_code == 200
    all_refuse(fresh(name, password), {401})
    all_refuse(with_issued(), {401})


def test_q12_a_deleted_repository_answers_404_everywhere_and_its_bytes_come_back(server: Server) -> None:
    key = server.make_repository(format="generic")
    namespace = key.partition("/")[0]
    assert server.admin.put(f"/generic/{key}/a.txt", content=b"x" * 1000).status_code == 201
    assert server.admin.get(f"/api/v1/namespaces/{namespace}").json()["used_bytes"] == 1000
    assert server.admin.delete(f"/api/v1/repositories/{key}").status_code == 204
    for _ in range(5):
        with _admin(server) as client:
            assert client.get(f"/generic/{key}/a.txt").status_code == 404
    deadline = time.monotonic() + 30
    while server.admin.get(f"/api/v1/namespaces/{namespace}").json()["used_bytes"]:
        assert time.monotonic() < deadline, "the job did not give the bytes back"
        time.sleep(0.2)
    while server.admin.delete(f"/api/v1/namespaces/{namespace}").status_code != 204:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_the_described_pages_and_their_files_are_served(server: Server) -> None:
    with server.client() as nobody:
        assert nobody.get("/api/v1/schema").json()["openapi"].startswith("3.")
        page = nobody.get("/api/v1/docs")
        assert page.status_code == 200
        for address in ("swagger-ui.css", "swagger-ui-bundle.js"):
            found = nobody.get(f"/static/drf_spectacular_sidecar/swagger-ui-dist/{address}")
            assert found.status_code == 200
