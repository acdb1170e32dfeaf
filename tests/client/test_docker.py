"""docker, the classic engine: push and pull, private and public, and what it prints when refused."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import Server
from tests.tools import services

from .conftest import Project, Sandbox, make_project


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    with services.dockerd() as address:
        yield str(address)


def payload_of(archive: Path) -> bytes:
    """The content of payload.bin in what `docker save` wrote."""
    with tarfile.open(archive) as outer:
        manifest = json.load(outer.extractfile("manifest.json"))
        for layer in manifest[0]["Layers"]:
            with tarfile.open(fileobj=io.BytesIO(outer.extractfile(layer).read())) as inner:
                if "payload.bin" in inner.getnames():
                    return inner.extractfile("payload.bin").read()
    raise AssertionError("payload.bin is in no layer")


def round_trip(sandbox: Sandbox, engine: str, project: Project) -> None:
    docker = {"DOCKER_HOST": engine}
    layer, payload = sandbox.layer()
    sandbox.run(
        "docker", "login", project.host, "-u", project.username, "--password-stdin", stdin=project.password,
        environment=docker,
    )  # fmt: skip
    for key in (project.private, project.public):
        image = f"{project.host}/{key}/team/app:1.0"
        sandbox.run("docker", "import", layer, image, environment=docker)
        before = sandbox.run("docker", "image", "inspect", "-f", "{{.Id}}", image, environment=docker)
        sandbox.run("docker", "push", image, environment=docker)
        sandbox.run("docker", "push", image, environment=docker)
        sandbox.run("docker", "rmi", "-f", image, environment=docker)
        if key == project.public:
            sandbox.run("docker", "logout", project.host, environment=docker)
        sandbox.run("docker", "pull", image, environment=docker)
        assert sandbox.run("docker", "image", "inspect", "-f", "{{.Id}}", image, environment=docker) == before
        saved = sandbox.home / "saved.tar"
        sandbox.run("docker", "save", "-o", saved, image, environment=docker)
        assert payload_of(saved) == payload
        sandbox.run("docker", "rmi", "-f", image, environment=docker)
    refused = sandbox.run(
        "docker", "pull", f"{project.host}/{project.private}/team/app:1.0", environment=docker, fails=True
    )
    assert "denied" in refused or "unauthorized" in refused or "no basic auth" in refused, refused


def test_docker_round_trip(sandbox: Sandbox, engine: str, project: Project) -> None:
    round_trip(sandbox, engine, project)


def test_docker_round_trip_on_postgresql_and_s3(sandbox: Sandbox, engine: str, full: Server) -> None:
    round_trip(sandbox, engine, make_project(full, "password"))


def test_docker_shows_why_a_push_is_refused(sandbox: Sandbox, engine: str, embedded: Server) -> None:
    docker = {"DOCKER_HOST": engine}
    key = embedded.make_repository(embedded.make_namespace(quota_bytes=1000))
    username, password = embedded.make_user(key, "publisher")
    reader, reader_password = embedded.make_user(key, "reader")
    layer, _ = sandbox.layer()
    image = f"{embedded.host}/{key}/app:1"
    sandbox.run("docker", "import", layer, image, environment=docker)
    login = ("docker", "login", embedded.host, "--password-stdin", "-u")
    wrong = sandbox.run(*login, username, stdin="wrong", environment=docker, fails=True)
    assert "unauthorized" in wrong
    sandbox.run(*login, reader, stdin=reader_password, environment=docker)
    assert "denied" in sandbox.run("docker", "push", image, environment=docker, fails=True)
    sandbox.run(*login, username, stdin=password, environment=docker)
    full_up = sandbox.run("docker", "push", image, environment=docker, fails=True)
    assert "1000 bytes" in full_up, full_up


def test_docker_manifest_list(sandbox: Sandbox, engine: str, embedded: Server) -> None:
    project = make_project(embedded, "password")
    docker = {"DOCKER_HOST": engine, "DOCKER_CLI_EXPERIMENTAL": "enabled"}
    sandbox.run(
        "docker", "login", project.host, "-u", project.username, "--password-stdin", stdin=project.password,
        environment=docker,
    )  # fmt: skip
    base = f"{project.host}/{project.private}/multi"
    for name in ("amd64", "arm64"):
        layer, _ = sandbox.layer(seed=name)
        sandbox.run("docker", "import", "--platform", f"linux/{name}", layer, f"{base}:{name}", environment=docker)
        sandbox.run("docker", "push", f"{base}:{name}", environment=docker)
    # With the list under another name, its children's blobs must be mounted: docker accepts nothing less.
    target = f"{project.host}/{project.private}/released"
    create = ("docker", "manifest", "create", "--insecure", f"{target}:all", f"{base}:amd64", f"{base}:arm64")
    sandbox.run(*create, environment=docker)
    annotate = ("docker", "manifest", "annotate", "--arch", "arm64", f"{target}:all", f"{base}:arm64")
    sandbox.run(*annotate, environment=docker)
    sandbox.run("docker", "manifest", "push", "--insecure", f"{target}:all", environment=docker)
    shown = sandbox.run("docker", "manifest", "inspect", "--insecure", f"{target}:all", environment=docker)
    assert "amd64" in shown and "arm64" in shown
