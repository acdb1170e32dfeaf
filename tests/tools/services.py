"""Real servers for tests and benchmarks: each a context manager, on a free loopback port, in a folder of its own.

    with services.postgres() as url, services.redis() as redis_url, services.s3() as store: …

Nothing here knows a test framework. What a context manager gives has the handle of its process in `.server`: its
`pid` (for tests that kill or suspend it), `stop()` and `start()` (same port, same data) and `log()`. When the `with`
block ends the server has ended and its folder is gone; when the whole run is killed, a guard process sees to the same
(guard.py).

A server that does not become ready raises ServerError with the end of its log.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from tests.running import free_port
from tests.tools import path

READY_SECONDS = 60.0
STOP_SECONDS = 15.0
START_ATTEMPTS = 3  # a free port may be taken by another process before the server has it
LOG_LINES = 40
LOOPBACK = "127.0.0.1"
GUARD = Path(__file__).with_name("guard.py")


class ServerError(Exception):
    """A server did not start, or did not become ready; the message holds the end of its log."""


class Server:
    """One server process under its guard."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        folder: Path,
        ready: Callable[[], bool],
        stop_signal: int = signal.SIGTERM,
        user: str | None = None,
        environment: Mapping[str, str] | None = None,
        ready_seconds: float = READY_SECONDS,
        stop_seconds: float = STOP_SECONDS,
    ) -> None:
        """`ready` is asked again and again while the process lives; it must prove that *this* server answers."""
        self.name = name
        self.folder = folder
        self._command = [str(word) for word in command]
        self._ready = ready
        self._ready_seconds = ready_seconds
        self._stop_seconds = stop_seconds
        self._environment = environment
        self._log = folder / "server.log"
        self._pid_file = folder / "server.pid"
        self._options = {
            "signal": int(stop_signal),
            "seconds": stop_seconds,
            "pid_file": str(self._pid_file),
            "remove": str(folder),
            "user": user,
        }
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it is ready. Raises ServerError."""
        if self._guard is not None and self._guard.poll() is None:
            raise ServerError(f"{self.name} is running already")
        if self._guard is not None:
            self.stop()
        self._pid_file.unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self._guard = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    str(GUARD),
                    json.dumps(self._options),
                    *self._command,
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self._environment,
                start_new_session=True,
            )
        deadline = time.monotonic() + self._ready_seconds
        while True:
            status = self._guard.poll()
            if status is not None:
                self.stop()
                raise ServerError(f"{self.name} ended with status {status} before it was ready{self._log_end()}")
            if self._pid_file.exists() and self._ready():
                return
            if time.monotonic() > deadline:
                self.stop()
                raise ServerError(f"{self.name} was not ready after {self._ready_seconds:.0f} s{self._log_end()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop the server with all of its children, and wait for that. Does nothing when it is not running."""
        guard, self._guard = self._guard, None
        if guard is None:
            return
        if guard.poll() is None:
            guard.terminate()
            try:
                guard.wait(timeout=self._stop_seconds + 15)
            except subprocess.TimeoutExpired:
                guard.kill()
                guard.wait()
        if guard.stdin is not None:
            guard.stdin.close()

    @property
    def running(self) -> bool:
        return self._guard is not None and self._guard.poll() is None

    @property
    def pid(self) -> int:
        """The server's own process id (not the guard's). Raises ServerError when it was never started."""
        try:
            return int(self._pid_file.read_text())
        except (FileNotFoundError, ValueError) as error:
            raise ServerError(f"{self.name} is not started") from error

    def wait(self, seconds: float) -> None:
        """Wait until the server has ended by itself, for instance after a test killed it. Raises ServerError."""
        if self._guard is None:
            return
        try:
            self._guard.wait(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise ServerError(f"{self.name} still runs after {seconds} s") from error

    def log(self) -> str:
        """All that the server and its guard have written."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def _log_end(self) -> str:
        lines = self.log().splitlines()[-LOG_LINES:]
        return "\n".join(
            [
                f"; the last lines of {self.name}'s log:",
                *(f"    {line}" for line in lines),
            ]
        )


class Address(str):
    """An address as a plain string, with the handle of the server that answers there."""

    server: Server

    def __new__(cls, value: str, server: Server) -> Self:
        address = super().__new__(cls, value)
        address.server = server
        return address


@dataclasses.dataclass(frozen=True, slots=True)
class ObjectStore:
    """An S3 endpoint with one empty bucket."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str
    region: str
    folder: Path
    server: Server

    def environment(self) -> dict[str, str]:
        """The variables by which AWS's SDKs find the endpoint and the keys."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
        }


@contextlib.contextmanager
def postgres(*, settings: Mapping[str, str] | None = None) -> Iterator[Address]:
    """A PostgreSQL server with an empty database; gives its `postgresql://` URL.

    Durable as in production (fsync and synchronous_commit on), over TCP only. `settings` are further lines of
    postgresql.conf. PostgreSQL refuses root: then it runs as the user `postgres`, which Debian's package makes.
    """
    account = _unprivileged_user("postgres")
    password = secrets.token_hex(16)
    with _folder("postgres", account) as folder:
        data = folder / "data"
        password_file = folder / "password"
        password_file.write_text(password)
        if account:
            shutil.chown(password_file, account, account)
        _complete(
            [
                path("initdb"),
                *("--pgdata", data, "--username", "repoman", "--pwfile", password_file),
                # Only the making of the cluster goes without syncing: its folder is thrown away if that fails.
                *(
                    "--auth",
                    "scram-sha-256",
                    "--encoding",
                    "UTF8",
                    "--locale",
                    "C.UTF-8",
                    "--no-sync",
                ),
            ],
            folder=folder,
            user=account,
        )
        chosen = {
            "listen_addresses": LOOPBACK,
            "unix_socket_directories": "",
            "fsync": "on",
            "synchronous_commit": "on",
            "shared_buffers": "64MB",
            "max_connections": "200",
            **(settings or {}),
        }

        def make(port: int) -> tuple[Server, str]:
            url = f"postgresql://repoman:{password}@{LOOPBACK}:{port}/repoman"
            maintenance = f"postgresql://repoman:{password}@{LOOPBACK}:{port}/postgres"
            flags = [word for key, value in chosen.items() for word in ("-c", f"{key}={value}")]
            server = Server(
                "postgres",
                [path("postgres"), "-D", data, "-c", f"port={port}", *flags],
                folder=folder,
                # Fast shutdown: open sessions are ended (PostgreSQL manual, "Shutting Down the Server").
                stop_signal=signal.SIGINT,
                user=account,
                ready=lambda: _succeeds([path("psql"), "-XAtqc", "SELECT 1", maintenance]),
            )
            return server, url

        with _started(make) as (server, url):
            maintenance = url.removesuffix("repoman") + "postgres"
            _complete(
                [path("psql"), "-Xqc", "CREATE DATABASE repoman", maintenance],
                folder=folder,
            )
            yield Address(url, server)


@contextlib.contextmanager
def redis(*, settings: Mapping[str, str] | None = None) -> Iterator[Address]:
    """A Redis server, empty and without persistence; gives its `redis://` URL. `settings` are lines of redis.conf."""
    password = secrets.token_hex(16)
    with _folder("redis") as folder:

        def make(port: int) -> tuple[Server, str]:
            chosen = {
                "bind": LOOPBACK,
                "port": str(port),
                "requirepass": password,
                "daemonize": "no",
                "dir": str(folder),
                "save": '""',
                "appendonly": "no",
                **(settings or {}),
            }
            configuration = folder / "redis.conf"
            configuration.write_text("".join(f"{key} {value}\n" for key, value in chosen.items()))

            def ready() -> bool:
                return _exchange(port, f"AUTH {password}\r\nPING\r\n".encode()).startswith(b"+OK\r\n+PONG\r\n")

            server = Server(
                "redis",
                [path("redis-server"), configuration],
                folder=folder,
                ready=ready,
            )
            return server, f"redis://:{password}@{LOOPBACK}:{port}/0"

        with _started(make) as (server, url):
            yield Address(url, server)


@contextlib.contextmanager
def s3(bucket: str = "repoman") -> Iterator[ObjectStore]:
    """An S3 server over a folder (versitygw's posix backend), with one empty bucket."""
    import boto3
    import botocore.config
    import botocore.exceptions

    access_key, secret_key, region = (
        secrets.token_hex(10),
        secrets.token_hex(20),
        "us-east-1",
    )
    with _folder("s3") as folder:
        objects, attributes = folder / "objects", folder / "attributes"
        objects.mkdir()
        attributes.mkdir()

        def make(port: int) -> tuple[Server, str]:
            endpoint = f"http://{LOOPBACK}:{port}"

            def ready() -> bool:
                client = boto3.client(
                    "s3",
                    endpoint_url=endpoint,
                    aws_access_key_id=access_key,
                    aws_secret_access_key=secret_key,
                    region_name=region,
                    config=botocore.config.Config(
                        connect_timeout=2,
                        read_timeout=10,
                        retries={"total_max_attempts": 1},
                        proxies={},
                    ),
                )
                try:
                    known = {entry["Name"] for entry in client.list_buckets()["Buckets"]}
                    if bucket not in known:
                        client.create_bucket(Bucket=bucket)
                except (
                    botocore.exceptions.BotoCoreError,
                    botocore.exceptions.ClientError,
                ):
                    return False
                finally:
                    client.close()
                return True

            server = Server(
                "versitygw",
                # Attributes beside the objects: not every file system of a temporary folder has extended ones.
                [
                    path("versitygw"),
                    "--port",
                    f"{LOOPBACK}:{port}",
                    "posix",
                    "--sidecar",
                    attributes,
                    objects,
                ],
                folder=folder,
                ready=ready,
                environment={
                    **os.environ,
                    "ROOT_ACCESS_KEY": access_key,
                    "ROOT_SECRET_KEY": secret_key,
                    "VGW_REGION": region,
                },
            )
            return server, endpoint

        with _started(make) as (server, endpoint):
            yield ObjectStore(
                endpoint=endpoint,
                access_key=access_key,
                secret_key=secret_key,
                bucket=bucket,
                region=region,
                folder=objects,
                server=server,
            )


@contextlib.contextmanager
def dockerd(*, insecure_registries: Sequence[str] = ()) -> Iterator[Address]:
    """A Docker engine, empty; gives the value for DOCKER_HOST.

    Enough to build `FROM scratch`, import, tag, push and pull; it has no network for containers, and none are run. It
    speaks plain HTTP to registries on the loopback without being told, to `insecure_registries` (host:port) as told.
    Needs root.
    """
    if os.geteuid() != 0:
        raise ServerError("dockerd needs root")
    # The engine's sockets lie a few levels below this folder, and a socket's path may have 107 bytes.
    with _folder("docker", parent=Path("/tmp")) as folder:
        address = f"unix://{folder}/s"
        configuration = folder / "daemon.json"  # else the machine's own /etc/docker/daemon.json would count
        configuration.write_text(json.dumps({"insecure-registries": list(insecure_registries)}))
        engine = path("dockerd")
        programs = {str(path(name).parent) for name in ("dockerd", "containerd", "runc")}
        server = Server(
            "dockerd",
            [
                engine,
                *(
                    "--config-file",
                    configuration,
                    "--data-root",
                    folder / "d",
                    "--exec-root",
                    folder / "e",
                ),
                *(
                    "--pidfile",
                    folder / "p",
                    "--host",
                    address,
                    "--storage-driver",
                    "vfs",
                ),
                *("--iptables=false", "--ip6tables=false", "--bridge=none"),
            ],
            folder=folder,
            environment={
                **os.environ,
                "PATH": os.pathsep.join([*sorted(programs), os.environ.get("PATH", os.defpath)]),
                # The engine's own fetches stay on the loopback.
                "NO_PROXY": "127.0.0.1,localhost",
                "no_proxy": "127.0.0.1,localhost",
            },
            ready=lambda: _succeeds([path("docker"), "--host", address, "version"]),
        )
        try:
            server.start()
            yield Address(address, server)
        finally:
            server.stop()


@contextlib.contextmanager
def nginx(conf_text: str) -> Iterator[Address]:
    """An nginx in front; gives its base URL, `http://127.0.0.1:<port>`.

    `conf_text` is what goes into the `http` block. In it `@listen@` stands for the address to listen on and `@folder@`
    for a folder of the server's own, which ends with it.
    """
    account = _unprivileged_user("www-data")
    with _folder("nginx", account) as folder:

        def make(port: int) -> tuple[Server, str]:
            body = conf_text.replace("@listen@", f"{LOOPBACK}:{port}").replace("@folder@", str(folder))
            temporary = "\n".join(
                f"    {kind}_temp_path {folder}/{kind};"
                for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            )
            pid_file = folder / "nginx.pid"
            configuration = folder / "nginx.conf"
            configuration.write_text(
                f"daemon off;\nworker_processes 2;\npid {pid_file};\nerror_log stderr info;\n"
                f"{f'user {account};' if account else ''}\n"
                "events { worker_connections 1024; }\n"
                f"http {{\n    access_log off;\n{temporary}\n{body}\n}}\n"
            )
            pid_file.unlink(missing_ok=True)

            def ready() -> bool:
                # nginx writes its process id after it has bound all its sockets.
                return pid_file.exists() and pid_file.read_text().strip() == str(server.pid)

            server = Server(
                "nginx",
                [path("nginx"), "-p", folder, "-e", "stderr", "-c", configuration],
                folder=folder,
                ready=ready,
            )
            return server, f"http://{LOOPBACK}:{port}"

        with _started(make) as (server, url):
            yield Address(url, server)


@contextlib.contextmanager
def _started(make: Callable[[int], tuple[Server, str]]) -> Iterator[tuple[Server, str]]:
    """Start the server that `make(port)` describes, on another port if it is taken meanwhile; stop it at the end."""
    for attempt in range(1, START_ATTEMPTS + 1):
        server, url = make(free_port())
        try:
            server.start()
            break
        except ServerError:
            server.stop()
            if attempt == START_ATTEMPTS or "ddress already in use" not in server.log():
                raise
    try:
        yield server, url
    finally:
        server.stop()


@contextlib.contextmanager
def _folder(name: str, user: str | None = None, *, parent: Path | None = None) -> Iterator[Path]:
    """A temporary folder, the user's own when one is named."""
    with tempfile.TemporaryDirectory(prefix=f"repoman-{name}-", dir=parent) as created:
        if user:
            shutil.chown(created, user, user)
        yield Path(created)


def _unprivileged_user(name: str) -> str | None:
    """The account a server changes to: `name` when this is root, none when this is an ordinary user anyway."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(name)
    except KeyError as error:
        raise ServerError(f"there is no user {name} on this machine") from error
    return name


def _complete(command: Sequence[str | Path], *, folder: Path, user: str | None = None) -> None:
    """Run a command to its end. Raises ServerError with its output when it fails."""
    answer = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        stdin=subprocess.DEVNULL,
        user=user,
        group=user,
        extra_groups=[] if user else None,
    )
    if answer.returncode != 0:
        raise ServerError(f"{command[0]} failed with status {answer.returncode}\n{answer.stdout}{answer.stderr}")


def _succeeds(command: Sequence[str | Path]) -> bool:
    words = [str(word) for word in command]
    environment = {**os.environ, "PGCONNECT_TIMEOUT": "2"}
    try:
        answer = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=10,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return False
    return answer.returncode == 0


def _exchange(port: int, question: bytes) -> bytes:
    """Send bytes to a loopback port and give what comes back until two lines are there; empty when nobody answers."""
    answer = b""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=2) as connection:
            connection.sendall(question)
            while answer.count(b"\r\n") < 2 and (piece := connection.recv(4096)):
                answer += piece
    except OSError:
        return answer
    return answer


def port_of(url: str) -> int:
    """The port in a URL that one of these servers gave."""
    port = urlsplit(url).port
    if port is None:
        raise ValueError(f"no port in {url}")
    return port
