"""Real servers for tests: started through the supervisor, as an operator would, on a free loopback port."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent
# httpx reads the machine's certificates for each client anew, in 30 ms; no server of these tests speaks TLS.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
ADMIN_PASSWORD = "an administrator's password"
_numbers = itertools.count(1)
GRANTS = 60  # of an account that several tests share, so that looking through them stays cheaper than another hash


# Below what Linux gives to outgoing connections: a port found here may stay unused for a while, and is still free then.
PORTS = range(20000, 32768)


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on, and that no client's own socket will take meanwhile."""
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@dataclass
class _Member:
    username: str
    client: httpx.Client
    keys: set[str]


@dataclass
class Server:
    """A running server. `admin` signs in as the administrator; `url` has no trailing slash."""

    url: str
    data: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    log: Path | None = None
    admin: httpx.Client = field(init=False)
    _members: list[_Member] = field(init=False)

    def __post_init__(self) -> None:
        self.admin = self.client("admin", ADMIN_PASSWORD)
        self._members = []

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://")

    def client(self, user: str = "", password: str = "") -> httpx.Client:
        return httpx.Client(base_url=self.url, auth=(user, password) if user else None, timeout=60, verify=NO_TLS)

    # starting and stopping

    def start(self, *, wait: float = 60) -> None:
        self.log = self.data / "server.log"
        self.data.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "repoman.server"],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.tail()}")
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/readyz", timeout=5, verify=NO_TLS).status_code == 200:
                    return
            time.sleep(0.1)
        self.stop()
        raise RuntimeError(f"the server is not ready after {wait} s:\n{self.tail()}")

    def stop(self, number: int = signal.SIGTERM, *, wait: float = 40) -> int:
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(wait)
            except subprocess.TimeoutExpired:
                self.kill()
        return int(self.process.returncode or 0)

    def kill(self) -> None:
        """kill -9 for every process of the server at once; returns when none of them is there any more."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGSTOP)  # or it would start others for those that are gone
        below = descendants(self.process.pid)
        for pid in [self.process.pid, *below]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(20)
        deadline = time.monotonic() + 20
        while any(is_running(pid) for pid in below) and time.monotonic() < deadline:
            time.sleep(0.01)  # until then they hold the address

    def tail(self, size: int = 6000) -> str:
        return self.log.read_text(errors="replace")[-size:] if self.log and self.log.exists() else ""

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`manage.py …` with this server's settings."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    # what tests need in it

    def make_namespace(self, name: str = "", **fields: Any) -> str:
        name = name or f"ns{next(_numbers)}{secrets.token_hex(4)}"
        self._created(self.admin.post("/api/v1/namespaces", json={"name": name, **fields}))
        return name

    def make_repository(self, namespace: str = "", *, name: str = "", format: str = "oci", **fields: Any) -> str:
        """A repository in its own new namespace, unless one is named. Returns its key."""
        namespace = namespace or self.make_namespace()
        name = name or f"repo{next(_numbers)}"
        body = {"name": name, "format": format, "type": "local", **fields}
        self._created(self.admin.post(f"/api/v1/namespaces/{namespace}/repositories", json=body))
        return f"{namespace}/{name}"

    def make_user(self, key: str = "", role: str = "", *, username: str = "", **fields: Any) -> tuple[str, str]:
        """A user with a role on the namespace or repository `key`. Returns name and password."""
        username = username or f"user{next(_numbers)}{secrets.token_hex(4)}"
        password = f"p{secrets.token_urlsafe(12)}"  # a dash at its beginning would be an option to some clients
        self._created(self.admin.post("/api/v1/users", json={"username": username, "password": password, **fields}))
        if key:
            self.grant(key, username, role)
        return username, password

    def grant(self, key: str, username: str, role: str) -> None:
        where = f"repositories/{key}" if "/" in key else f"namespaces/{key}"
        answer = self.admin.put(f"/api/v1/{where}/grants/{username}", json={"role": role})
        assert answer.status_code in (200, 201), answer.text

    def user(self, key: str, role: str) -> httpx.Client:
        """A client of someone who is new, and has this role only."""
        return self.client(*self.make_user(key, role))

    def member(self, key: str, role: str) -> httpx.Client:
        """A client of someone with a role on `key`, who may have others on what other tests made: hashing a password and
        comparing it with the hash cost more than most tests."""
        found = next((each for each in self._members if key not in each.keys and len(each.keys) < GRANTS), None)
        if found is None:
            username, password = self.make_user()
            found = _Member(username, self.client(username, password), set())
            self._members.append(found)
        self.grant(key, found.username, role)
        found.keys.add(key)
        return found.client

    def token(self, client: httpx.Client, **fields: Any) -> dict[str, Any]:
        answer = client.post("/api/v1/tokens", json={"name": f"test-{next(_numbers)}-{secrets.token_hex(4)}", **fields})
        self._created(answer)
        found: dict[str, Any] = answer.json()
        return found

    def job(self, kind: str, *, wait: float = 60, **arguments: Any) -> dict[str, Any]:
        """Run a job to its end and return its description."""
        answer = self.admin.post("/api/v1/jobs", json={"kind": kind, "arguments": arguments})
        assert answer.status_code == 202, answer.text
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline:
            found: dict[str, Any] = self.admin.get(f"/api/v1/jobs/{answer.json()['id']}").json()
            if found["state"] in ("succeeded", "failed"):
                return found
            time.sleep(0.1)
        raise AssertionError(f"job {kind} has not ended after {wait} s: {found}\n{self.tail()}")

    @staticmethod
    def _created(answer: httpx.Response) -> None:
        assert answer.status_code == 201, f"{answer.request.url}: {answer.status_code} {answer.text}"


def descendants(pid: int) -> list[int]:
    """Every process below `pid`, deepest first."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                found += [*descendants(int(child)), int(child)]
    return found


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def environment(data: Path, port: int, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("REPOMAN_", "AWS_", "DJANGO_"))}
    return {
        **kept,
        "REPOMAN_DATA": str(data),
        "REPOMAN_BIND": f"127.0.0.1:{port}",
        "REPOMAN_ADMIN_PASSWORD": ADMIN_PASSWORD,
        "REPOMAN_WORKERS": "2",
        **more,
    }


class Deployment:
    """The two ways to run: embedded, and on servers."""

    @staticmethod
    @contextlib.contextmanager
    def embedded(data: Path, *, start: bool = True, **settings: str) -> Iterator[Server]:
        port = free_port()
        server = Server(f"http://127.0.0.1:{port}", data, environment(data, port, **settings))
        with _running(server, start):
            yield server

    @staticmethod
    @contextlib.contextmanager
    def full(data: Path, *, start: bool = True, **settings: str) -> Iterator[Server]:
        from tests.tools import services

        with services.postgres() as database, services.redis() as redis, services.s3() as s3:
            port = free_port()
            more = {
                "REPOMAN_DATABASE_URL": database,
                "REPOMAN_REDIS_URL": redis,
                **s3_environment(s3),
                **settings,
            }
            server = Server(f"http://127.0.0.1:{port}", data, environment(data, port, **more))
            with _running(server, start):
                yield server


def s3_environment(s3: Any) -> Mapping[str, str]:
    return {
        "REPOMAN_BLOBS": f"s3://{s3.bucket}/repoman",
        "AWS_ENDPOINT_URL": s3.endpoint,
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


@contextlib.contextmanager
def _running(server: Server, start: bool) -> Iterator[None]:
    try:
        if start:
            server.start()
        yield
    finally:
        server.stop()
