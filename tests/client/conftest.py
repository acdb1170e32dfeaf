"""A home of its own for every client, and a project on a running server to push to."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import tools
from tests.running import Server


@dataclass
class Sandbox:
    """Runs real clients with their own home, so that no login or cache is shared between tests."""

    home: Path
    run_root: Path

    def run(
        self,
        tool: str,
        *arguments: str | Path,
        stdin: str | bytes | None = None,
        fails: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """Output of the client, both streams. It must succeed, or fail where `fails` is set."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            [str(tools.path(tool)), *map(str, arguments)],
            cwd=self.home,
            input=data,
            env={**self.environment, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=240,
        )
        output = done.stdout.decode(errors="replace")
        if fails:
            assert done.returncode != 0, f"{tool} {arguments} should have failed:\n{output}"
        else:
            assert done.returncode == 0, f"{tool} {arguments} ended with {done.returncode}:\n{output[-4000:]}"
        return output

    @property
    def environment(self) -> dict[str, str]:
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("DOCKER", "REPOMAN", "REGISTRY"))
        }
        return {
            **kept,
            "HOME": str(self.home),
            "DOCKER_CONFIG": str(self.home / ".docker"),
            "XDG_RUNTIME_DIR": str(self.home / "run"),
            "XDG_CONFIG_HOME": str(self.home / ".config"),
            "XDG_CACHE_HOME": str(self.home / ".cache"),
            "XDG_DATA_HOME": str(self.home / ".local"),
            "REGISTRY_AUTH_FILE": str(self.home / "auth.json"),
            "COSIGN_PASSWORD": "",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def containers(self) -> list[str]:
        """Options that keep podman and buildah inside this sandbox. podman wants a runroot below 50 characters."""
        return ["--root", str(self.home / "storage"), "--runroot", str(self.run_root), "--storage-driver", "vfs"]

    def layer(self, name: str = "payload.bin", size: int = 300_000, seed: str = "") -> tuple[Path, bytes]:
        """A tar with one file of unguessable bytes, and those bytes."""
        payload = hashlib.shake_256(f"{self.home}{name}{seed}".encode()).digest(size)
        path = self.home / f"{name}{seed}.tar"
        with tarfile.open(path, "w") as archive:
            member = tarfile.TarInfo(name)
            member.size = len(payload)
            archive.addfile(member, io.BytesIO(payload))
        return path, payload


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    home = tmp_path / "home"
    for folder in (home, home / "run", home / ".docker"):
        folder.mkdir(mode=0o700)
    (home / "auth.json").write_text("{}")  # podman and buildah want the file to be there
    policy = home / ".config" / "containers" / "policy.json"
    policy.parent.mkdir(parents=True)
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    with tempfile.TemporaryDirectory(prefix="rr", dir="/tmp", ignore_cleanup_errors=True) as run_root:
        yield Sandbox(home, Path(run_root))


@dataclass
class Project:
    """A private and a public OCI repository, and the credentials of a maintainer of both."""

    server: Server
    private: str
    public: str
    username: str
    password: str

    @property
    def host(self) -> str:
        return self.server.host


@pytest.fixture(params=["password", "token"])
def project(request: pytest.FixtureRequest, embedded: Server) -> Project:
    """Everything is done once signed in with user and password, once with a token as the password."""
    return make_project(embedded, request.param)


def make_project(server: Server, login: str) -> Project:
    namespace = server.make_namespace(quota_bytes=500_000_000)
    private = server.make_repository(namespace, name="private")
    public = server.make_repository(namespace, name="public", anonymous_read=True)
    username, password = server.make_user(namespace, "maintainer")
    if login == "token":
        client = server.client(username, password)
        password = server.token(client, actions=["read", "publish", "delete"], repositories=[private, public])["token"]
        username = "ci"
    return Project(server, private, public, username, password)
