"""What the small clients of all formats have in common: one repository, as one caller."""

from __future__ import annotations

import http.client
import json
from typing import ClassVar, Self

import httpx

from tests.running import Server


class Caller:
    """`base` is the repository's path, with a slash at its end; `raw` sends a request target as it is."""

    prefix: ClassVar[str]

    def __init__(self, server: Server, client: httpx.Client, key: str) -> None:
        self.server, self.client, self.key = server, client, key
        self.base = f"/{self.prefix}/{key}/"

    @property
    def address(self) -> str:
        return f"{self.server.url}{self.base}".removesuffix("/")

    def as_other(self, client: httpx.Client) -> Self:
        return type(self)(self.server, client, self.key)

    def problems(self) -> list[object]:
        """What fsck finds in this repository. The server may be one on which other tests have done damage."""
        result = self.server.job("fsck")["result"]
        found: list[object] = result["items"]
        assert len(found) == result["problems"], "so much damage that the job does not list it all"
        return [item for item in found if self.key in json.dumps(item)]

    def raw(self, method: str, target: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        """Status and body for a request target that no library would send."""
        connection = http.client.HTTPConnection(self.server.host, timeout=60)
        connection.putrequest(method, self.base + target, skip_accept_encoding=True)
        if self.client.auth is not None:
            request = next(self.client.auth.auth_flow(self.client.build_request(method, "/")))
            connection.putheader("Authorization", request.headers["authorization"])
        for name, value in plain(headers).items():
            connection.putheader(name, value)
        if body and "content_length" not in headers:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        try:
            return answer.status, answer.read()
        finally:
            connection.close()


def plain(headers: dict[str, str]) -> dict[str, str]:
    """Headers that were given as keywords."""
    return {name.replace("_", "-"): value for name, value in headers.items()}
