"""The peers of packages and of remotes: Verdaccio, devpi, pypiserver, ChartMuseum, distribution as a pull-through cache,
and nginx over a folder as the floor.

Each takes uploads from anybody and writes no access log. `base` is where its repository is; `uploads` where it takes
publishes; `index` where a project's page is (with the project's name and a slash behind it).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.bench.client import LoadError
from tests.bench.packages import Release
from tests.bench.subjects import Subject, started
from tests.tools import path, services

NAMES = Path(__file__).with_name("devpi_names.py")
STAGE = {"type": "stage", "bases": [], "volatile": True, "acl_upload": [":ANONYMOUS:"]}


class Place(Subject):
    """A repository of one server, in one format. Ours and the peers' look alike here."""

    def __init__(
        self,
        name: str,
        url: str,
        pids: Callable[[], list[int]],
        base: str = "/",
        *,
        index: str = "",
        uploads: str = "",
        signed: Sequence[tuple[str, str]] = (),
        folder: Path | None = None,
    ) -> None:
        super().__init__(url, pids)
        self.name = name
        self.base = base
        self.index = index
        self.uploads = uploads or base
        self.signed = list(signed)
        self.folder = folder

    def write_headers(self) -> list[tuple[str, str]]:
        return self.signed

    def named(self, name: str) -> Place:
        """The same under another name, to be a column of its own."""
        copied = self.at(self.base, self.index, self.uploads)
        copied.name = name
        return copied

    def at(self, base: str, index: str = "", uploads: str = "") -> Place:
        """Another repository of the same server."""
        return Place(
            self.name, self.url, self.pids, base, index=index, uploads=uploads, signed=self.signed, folder=self.folder
        )


@contextlib.contextmanager
def verdaccio(folder: Path, uplink: str = "") -> Iterator[Place]:
    """Local, or with an uplink for everything. Its packages lie in `folder`/storage."""
    folder.mkdir(parents=True)
    rules: dict[str, Any] = {"access": "$all", "publish": "$all", "unpublish": "$all"}
    settings: dict[str, Any] = {
        "storage": str(folder / "storage"),
        "auth": {"htpasswd": {"file": str(folder / "htpasswd")}},
        "uplinks": {"up": {"url": uplink, "timeout": "30s", "maxage": "10m"}} if uplink else {},
        "packages": {"**": {**rules, "proxy": "up"} if uplink else rules},
        "web": {"enable": False},
        "max_body_size": "200mb",
        "log": {"type": "stdout", "format": "json", "level": "fatal"},
    }
    (folder / "config.yaml").write_text(json.dumps(settings))  # JSON is YAML

    def command(port: int) -> Sequence[str | Path]:
        return [path("verdaccio"), "--config", folder / "config.yaml", "--listen", f"127.0.0.1:{port}"]

    with started("verdaccio", command, folder, place="/-/ping") as (url, server):
        yield Place("verdaccio", url, lambda: [server.pid], folder=folder / "storage")


@contextlib.contextmanager
def devpi(folder: Path, shelf: Sequence[Release] = (), names: Sequence[str] = ()) -> Iterator[Place]:
    """With the user bench and two indexes: `dev` holds the files of the shelf, `many` only names.

    Both are put in place by its import and in its own storage: an upload takes it a tenth of a second.
    """
    folder.mkdir(parents=True)
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    data, source = folder / "data", folder / "import"
    _write_import(source, shelf)
    (folder / "names.json").write_text(json.dumps(list(names)))
    programs = path("devpi-server").parent
    for words in (
        [programs / "devpi-import", "--no-root-pypi", "--no-events", "--serverdir", data, source],
        [programs / "python", NAMES, data, "bench/many", folder / "names.json"],
    ):
        done = subprocess.run(
            [str(word) for word in words],
            env=environment, cwd=folder, capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        if done.returncode:
            raise LoadError(f"devpi could not be filled: {done.stdout[-600:]}{done.stderr[-1500:]}")
    # Debug and access lines are off, as with the others.
    quiet = {"version": 1, "disable_existing_loggers": False, "root": {"level": "ERROR"}}
    (folder / "logging.json").write_text(json.dumps(quiet))

    def command(port: int) -> Sequence[str | Path]:
        where = ("--serverdir", data, "--host", "127.0.0.1", "--port", str(port))
        # Its own limit is 100 connections, with which 200 clients would wait for one another.
        more = ("--connection-limit", "1000", "--logger-cfg", folder / "logging.json", "--request-timeout", "60")
        # Its default takes up to a minute at the start, for a key that only signs logins, of which none is measured.
        more = (*more, "--argon2-memory-cost", "8192", "--argon2-time-cost", "1")
        return [path("devpi-server"), *where, *more]

    with started("devpi", command, folder, environment, "/+api", 180) as (url, server):
        yield Place("devpi", url, lambda: [server.pid], folder=data)


def _write_import(folder: Path, shelf: Sequence[Release]) -> None:
    (folder / "bench" / "dev").mkdir(parents=True)
    projects: dict[str, dict[str, Any]] = {}
    files = []
    for item in shelf:
        place = f"bench/dev/{item.filename}"
        (folder / place).write_bytes(item.data)
        projects.setdefault(item.name, {})[item.version] = {"name": item.name, "version": item.version}
        files.append({
            "relpath": place, "type": "releasefile", "projectname": item.name, "version": item.version,
            "entrymapping": {"last_modified": "Thu, 01 Jan 2026 00:00:00 GMT"},
        })  # fmt: skip
    indexes = {
        "bench/dev": {"projects": projects, "files": files, "indexconfig": STAGE},
        "bench/many": {"projects": {}, "files": [], "indexconfig": STAGE},
    }
    content = {"dumpversion": "2", "users": {"bench": {"username": "bench"}}, "indexes": indexes}
    (folder / "dataindex.json").write_text(json.dumps(content))


def devpi_index(server: Place, name: str, mirror: str = "") -> Place:
    """One that is there, or a new one that mirrors the index at `mirror`."""
    if mirror:
        with httpx.Client(base_url=server.url, timeout=60) as admin:
            signed = admin.post("/+login", json={"user": "root", "password": ""})
            assert signed.status_code == 200, signed.text
            secret = b64encode(f"root:{signed.json()['result']['password']}".encode()).decode()
            settings = {"type": "mirror", "mirror_url": mirror, "mirror_no_project_list": True, "volatile": True}
            answer = admin.put(f"/bench/{name}", json=settings, headers={"X-Devpi-Auth": secret})
            assert answer.status_code == 200, answer.text
    return server.at(f"/bench/{name}/", f"/bench/{name}/+simple/", f"/bench/{name}/")


@contextlib.contextmanager
def pypiserver(folder: Path) -> Iterator[Place]:
    """Over a folder of files."""
    files = folder / "packages"
    files.mkdir(parents=True)

    def command(port: int) -> Sequence[str | Path]:
        where = ("-i", "127.0.0.1", "-p", str(port), "-a", ".", "-P", ".", "--disable-fallback")
        return [path("pypi-server"), "run", *where, files]

    with started("pypiserver", command, folder, place="/health") as (url, server):
        yield Place("pypiserver", url, lambda: [server.pid], index="/simple/", uploads="/", folder=files)


@contextlib.contextmanager
def pull_through(folder: Path, upstream: str) -> Iterator[Place]:
    """distribution as a cache of `upstream`."""
    folder.mkdir(parents=True)

    def command(port: int) -> Sequence[str | Path]:
        settings = {
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}, "cache": {"blobdescriptor": "inmemory"}},
            "http": {"addr": f"127.0.0.1:{port}", "secret": "bench"},
            "proxy": {"remoteurl": upstream},
        }  # fmt: skip
        (folder / "config.yml").write_text(json.dumps(settings))
        return [path("registry"), "serve", folder / "config.yml"]

    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    with started("distribution", command, folder, environment) as (url, server):
        yield Place("distribution", url, lambda: [server.pid], "/v2/bench/")


CHARTMUSEUM = "chartmuseum"


def chartmuseum_version() -> str:
    """What the program on PATH says of itself; empty where there is none."""
    program = shutil.which(CHARTMUSEUM)
    if program is None:
        return ""
    told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    return f"ChartMuseum {' '.join(told.split('(')[0].split()[2:]) or 'of PATH'}"


@contextlib.contextmanager
def chartmuseum(folder: Path) -> Iterator[Place]:
    """From PATH, over a folder that is there: its repositories are the folders in that, with charts in them.

    `at` a repository: see `chartmuseum_repository`.
    """
    program = shutil.which(CHARTMUSEUM)
    assert program is not None

    def command(port: int) -> Sequence[str | Path]:
        where = ("--listen-host", "127.0.0.1", "--port", str(port))
        return [program, *where, "--depth", "1", "--storage", "local", "--storage-local-rootdir", folder]

    with started("chartmuseum", command, folder, place="/health") as (url, server):
        yield Place("chartmuseum", url, lambda: [server.pid], folder=folder)


def chartmuseum_repository(server: Place, name: str) -> Place:
    return server.at(f"/{name}/", uploads=f"/api/{name}/charts")


@contextlib.contextmanager
def files(content: Mapping[str, bytes]) -> Iterator[Place]:
    """nginx with these files, by their paths; one that has another with `.gz` behind its name is sent as that to those who
    accept gzip."""
    text = """
    sendfile on; tcp_nopush on; gzip_static on; keepalive_requests 1000000000;
    server { listen @listen@; root @folder@/files; }"""
    with services.nginx(text) as url:
        root = url.server.folder / "files"
        for name, data in content.items():
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        for found in (root, *root.rglob("*")):  # its processes may run as another user
            found.chmod(0o755 if found.is_dir() else 0o644)
        yield Place("nginx", str(url), lambda: [url.server.pid], folder=root)
