"""The servers that are measured: ours and its peers, each as its own documentation says to run it, durable where it can.

Every one is started by the harness on a free loopback port, in a folder below the run's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.bench.client import Request, ask, head
from tests.running import Deployment, free_port
from tests.running import Server as Ours
from tests.tools import path, services

IMAGES = "bench/images/app"  # what is read
UPLOADS = "bench/images/uploads"  # what is written to
SOURCE = "bench/images/source"  # what is mounted from
MOUNTS = "bench/mounts/target"
NAMES = (IMAGES, UPLOADS, SOURCE, MOUNTS)
USER, PASSWORD = "benchmark", "a password for benchmarks"
# bcrypt of PASSWORD at cost 5, which is what `htpasswd -B` makes.
HTPASSWD = f"{USER}:$2b$05$abcdefghijklmnopqrstuu6cWzMxbNXnjceWS97PyuocM3ZaOHIIy"
TOKEN_SECONDS = 600
ISSUER, SERVICE = "bench", "bench-registry"


class Subject:
    """One running server. `host` goes into the Host header."""

    name = ""
    # How writes are authorized: peers take them from anybody, which costs them less.
    write_kind = "anonymous"

    def __init__(self, url: str, pids: Callable[[], list[int]]) -> None:
        self.url = url
        self.host = url.removeprefix("http://")
        self.pids = pids

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.host.rpartition(":")
        return host, int(port)

    def headers(self, kind: str) -> list[tuple[str, str]] | None:
        """Credentials of the kind (anonymous, basic, token); None where the server has no such thing."""
        return [] if kind == "anonymous" else None

    def write_headers(self) -> list[tuple[str, str]]:
        found = self.headers(self.write_kind)
        assert found is not None, self.write_kind
        return found

    def for_kind(self, kind: str) -> Subject | None:
        """The process that answers callers of this kind, over the same content."""
        return self if self.headers(kind) is not None else None


def basic(user: str, password: str) -> list[tuple[str, str]]:
    return [("Authorization", f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}")]


# --- ours ------------------------------------------------------------------------------------------------------------


class Repoman(Subject):
    name = "repoman"
    write_kind = "token"

    def __init__(self, server: Ours) -> None:
        super().__init__(server.url, lambda: [server.process.pid] if server.process else [])
        self.server = server
        self._token: tuple[float, str] = (0.0, "")

    def add(self, name: str, format: str, **fields: Any) -> str:
        """A repository that anybody may read; its base path, with a slash at the end."""
        key = self.server.make_repository("bench", name=name, format=format, anonymous_read=True, **fields)
        return f"/{format}/{key}/"

    def api_token(self) -> str:
        """One with which packages are published, as clients do."""
        user = self.server.client(USER, PASSWORD)
        return str(self.server.token(user, actions=["read", "publish", "delete"])["token"])

    def prepare(self) -> None:
        """The namespace, its two repositories and the user."""
        self.server.make_namespace("bench", quota_bytes=None)
        for name in ("images", "mounts"):
            self.server.make_repository("bench", name=name, anonymous_read=True)
        created = self.server.admin.post("/api/v1/users", json={"username": USER, "password": PASSWORD})
        assert created.status_code == 201, created.text
        granted = self.server.admin.put(f"/api/v1/namespaces/bench/grants/{USER}", json={"role": "maintainer"})
        assert granted.status_code in (200, 201), granted.text

    def headers(self, kind: str) -> list[tuple[str, str]] | None:
        if kind == "basic":
            return basic(USER, PASSWORD)
        if kind == "token":
            return [("Authorization", f"Bearer {self._registry_token()}")]
        return []

    def _registry_token(self) -> str:
        made, token = self._token
        if time.monotonic() - made > TOKEN_SECONDS / 2:
            challenge = ask(self.address, Request(head("GET", "/v2/", self.host))).require(401)
            fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge.header(b"www-authenticate")))
            scopes = [("scope", f"repository:{name}:pull,push") for name in NAMES]
            query = urlencode([("service", fields["service"]), *scopes])
            where = "/" + fields["realm"].split("://", 1)[1].partition("/")[2]
            request = Request(head("GET", f"{where}?{query}", self.host, basic(USER, PASSWORD)))
            token = str(json.loads(ask(self.address, request).require(200).body)["token"])
            self._token = (time.monotonic(), token)
        return token


@contextlib.contextmanager
def repoman(data: Path, **settings: str) -> Iterator[Repoman]:
    """Embedded: SQLite and a folder, two web processes, worker and scheduler. Peers write no access log, nor does this."""
    chosen: dict[str, Any] = {"REPOMAN_ACCESS_LOG": "false", "REPOMAN_WORKERS": "2", **settings}
    with Deployment.embedded(data, **chosen) as server:
        subject = Repoman(server)
        subject.prepare()
        yield subject


class Accelerated(Subject):
    """Ours with nginx in front, which sends the files itself (X-Accel-Redirect)."""

    name = "repoman + nginx"

    def __init__(self, url: str, front: services.Server, behind: Repoman) -> None:
        super().__init__(url, lambda: [front.pid, *behind.pids()])
        self.behind = behind

    def headers(self, kind: str) -> list[tuple[str, str]] | None:
        return self.behind.headers(kind)


@contextlib.contextmanager
def accelerated(data: Path) -> Iterator[Accelerated]:
    if os.geteuid() == 0:
        # nginx's processes run as another user: the folder is its group's, and what is made in it inherits that.
        data.mkdir(parents=True)
        shutil.chown(data, group="www-data")
        data.chmod(0o2750)
    with repoman(data, REPOMAN_ACCEL="/_blobs/", REPOMAN_TRUSTED_PROXIES="127.0.0.1/32") as behind:
        text = f"""
    sendfile on; tcp_nopush on; keepalive_requests 1000000000;
    upstream behind {{ server {behind.host}; keepalive 32; }}
    server {{
        listen @listen@;
        client_max_body_size 0;
        proxy_request_buffering off;
        location / {{
            proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_set_header Host $http_host;
        }}
        location /_blobs/ {{ internal; alias {data}/blobs/; }}
    }}"""
        with services.nginx(text) as url:
            yield Accelerated(str(url), url.server, behind)


# --- distribution ----------------------------------------------------------------------------------------------------


class Distribution(Subject):
    """Three processes over one folder, because one process knows one way to sign in; only one is asked at a time."""

    name = "distribution"

    def __init__(self, servers: Mapping[str, tuple[str, services.Server]], key: Any) -> None:
        url, server = servers["anonymous"]
        super().__init__(url, lambda: [server.pid])
        self._servers = servers
        self._key = key

    def for_kind(self, kind: str) -> Subject | None:
        url, server = self._servers[kind]
        return _Door(url, server, self)

    def headers(self, kind: str) -> list[tuple[str, str]] | None:
        if kind == "basic":
            return basic(USER, PASSWORD)
        if kind == "token":
            import jwt

            now = int(time.time())
            claims = {
                "iss": ISSUER, "aud": SERVICE, "sub": USER, "iat": now, "nbf": now - 60, "exp": now + TOKEN_SECONDS,
                "jti": secrets.token_hex(8),
                "access": [{"type": "repository", "name": name, "actions": ["pull", "push"]} for name in NAMES],
            }  # fmt: skip
            return [("Authorization", f"Bearer {jwt.encode(claims, self._key, 'ES256', {'kid': 'bench'})}")]
        return []


class _Door(Subject):
    """One of the processes."""

    name = Distribution.name

    def __init__(self, url: str, server: services.Server, behind: Distribution) -> None:
        super().__init__(url, lambda: [server.pid])
        self._behind = behind

    def headers(self, kind: str) -> list[tuple[str, str]] | None:
        return self._behind.headers(kind)


@contextlib.contextmanager
def distribution(folder: Path) -> Iterator[Distribution]:
    from cryptography.hazmat.primitives.asymmetric import ec

    folder.mkdir(parents=True)
    key = ec.generate_private_key(ec.SECP256R1())
    numbers = key.public_key().public_numbers()
    x, y = (urlsafe_b64encode(n.to_bytes(32, "big")).rstrip(b"=").decode() for n in (numbers.x, numbers.y))
    keys = {"keys": [{"kty": "EC", "crv": "P-256", "kid": "bench", "alg": "ES256", "use": "sig", "x": x, "y": y}]}
    (folder / "keys.json").write_text(json.dumps(keys))
    (folder / "htpasswd").write_text(HTPASSWD + "\n")
    ways: dict[str, dict[str, Any] | None] = {
        "anonymous": None,
        "basic": {"htpasswd": {"realm": "bench", "path": str(folder / "htpasswd")}},
        "token": {
            "token": {
                "realm": "http://127.0.0.1/token",
                "service": SERVICE,
                "issuer": ISSUER,
                "jwks": str(folder / "keys.json"),
                "signingalgorithms": ["ES256"],
            }  # fmt: skip
        },
    }
    with contextlib.ExitStack() as stack:
        servers = {}
        for kind, auth in ways.items():
            own = folder / kind
            own.mkdir()

            def command(port: int, own: Path = own, auth: dict[str, Any] | None = auth) -> Sequence[str | Path]:
                settings: dict[str, Any] = {
                    "version": "0.1",
                    "log": {"level": "error", "accesslog": {"disabled": True}},
                    "storage": {
                        "filesystem": {"rootdirectory": str(folder / "storage")},
                        "cache": {"blobdescriptor": "inmemory"},
                        "delete": {"enabled": True},
                    },
                    "http": {"addr": f"127.0.0.1:{port}", "secret": "bench"},
                }
                if auth:
                    settings["auth"] = auth
                # JSON is YAML.
                (own / "config.yml").write_text(json.dumps(settings))
                return [path("registry"), "serve", own / "config.yml"]

            environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
            servers[kind] = stack.enter_context(started(f"distribution-{kind}", command, own, environment))
        yield Distribution(servers, key)


# --- others ----------------------------------------------------------------------------------------------------------


class Olareg(Subject):
    name = "olareg"


@contextlib.contextmanager
def olareg(folder: Path) -> Iterator[Olareg]:
    folder.mkdir(parents=True)

    def command(port: int) -> Sequence[str | Path]:
        flags = ("--addr", "127.0.0.1", "--port", str(port), "--store-type", "mem", "--gc-frequency", "-1s")
        return [path("olareg"), "serve", *flags]

    with started("olareg", command, folder) as (url, server):
        yield Olareg(url, lambda: [server.pid])


class Zot(Subject):
    name = "zot"

    def headers(self, kind: str) -> list[tuple[str, str]] | None:
        if kind == "basic":
            return basic(USER, PASSWORD)
        return [] if kind == "anonymous" else None


@contextlib.contextmanager
def zot(folder: Path) -> Iterator[Zot]:
    """From PATH; `commit` makes it sync what it writes."""
    folder.mkdir(parents=True)
    program = shutil.which("zot")
    assert program is not None
    (folder / "htpasswd").write_text(HTPASSWD + "\n")

    def command(port: int) -> Sequence[str | Path]:
        every = {"anonymousPolicy": ["read", "create", "update"], "defaultPolicy": ["read", "create", "update"]}
        settings = {
            "distSpecVersion": "1.1.1",
            "storage": {"rootDirectory": str(folder / "storage"), "commit": True, "gc": False},
            "http": {
                "address": "127.0.0.1", "port": str(port), "auth": {"htpasswd": {"path": str(folder / "htpasswd")}},
                "accessControl": {"repositories": {"**": every}},
            },
            "log": {"level": "error"},
        }  # fmt: skip
        (folder / "config.json").write_text(json.dumps(settings))
        return [program, "serve", folder / "config.json"]

    with started("zot", command, folder) as (url, server):
        yield Zot(url, lambda: [server.pid])


class Nginx(Subject):
    """The floor: files of the same sizes, sent with sendfile."""

    name = "nginx"

    def __init__(self, url: services.Address) -> None:
        super().__init__(str(url), lambda: [url.server.pid])
        self.folder = url.server.folder / "files"
        self.folder.mkdir(mode=0o755)

    def put(self, name: str, content: bytes) -> str:
        (self.folder / name).write_bytes(content)
        (self.folder / name).chmod(0o644)
        return f"/{name}"


@contextlib.contextmanager
def nginx() -> Iterator[Nginx]:
    text = """
    sendfile on; tcp_nopush on; keepalive_requests 1000000000;
    server { listen @listen@; root @folder@/files; }"""
    with services.nginx(text) as url:
        yield Nginx(url)


@dataclass(frozen=True, slots=True)
class Peer:
    """`start` needs a folder that does not exist; `there` tells whether the program is on this machine."""

    name: str
    start: Callable[[Path], contextlib.AbstractContextManager[Subject]]
    version: Callable[[], str]
    there: Callable[[], bool] = lambda: True


def pinned(name: str) -> Callable[[], str]:
    def version() -> str:
        from tests.tools import provision

        tool = provision.tool_of(name)
        return tool.version.lstrip("v") if tool else ""

    return version


PEERS = (
    Peer("distribution", distribution, pinned("registry")),
    Peer("olareg", olareg, pinned("olareg")),
    Peer("zot", zot, lambda: "of PATH", lambda: shutil.which("zot") is not None),
)


@contextlib.contextmanager
def started(
    name: str,
    command: Callable[[int], Sequence[str | Path]],
    folder: Path,
    environment: Mapping[str, str] | None = None,
    place: str = "/v2/",
    seconds: float = services.READY_SECONDS,
) -> Iterator[tuple[str, services.Server]]:
    """Its base URL and its process, ready (it answers at `place`) and stopped at the end."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        try:
            return ask(("127.0.0.1", port), Request(head("GET", place, f"127.0.0.1:{port}"))).status in (200, 401)
        except OSError:
            return False

    server = services.Server(
        name, command(port), folder=folder, ready=ready, environment=environment, ready_seconds=seconds
    )
    try:
        server.start()
        yield url, server
    finally:
        server.stop()
