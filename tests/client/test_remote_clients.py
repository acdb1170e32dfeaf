"""Real clients through remote and virtual repositories: cold, warm, and with the upstream stopped.

The upstream is a second server of ours; for npm and PyPI also the public registry that this machine's own clients use,
whatever it is: its addresses are asked for when the tests run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from formats.oci import samples as oci
from formats.pypi import samples as wheels
from tests import tools
from tests.client import pypi_scenarios as pypi
from tests.client import test_npm_clients as npm
from tests.client.pypi_scenarios import Desk, Place
from tests.client.test_npm_clients import Access, Workplace
from tests.protocol.oci_client import Image
from tests.running import Deployment, Server
from tests.tools import services

from .conftest import Sandbox

SOON_OLD = 1  # seconds until a document is asked for again


# --- the registries of this machine ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Registries:
    """What the machine's own npm and pip are set to use."""

    npm: str
    pypi: str

    def hosts(self) -> set[str]:
        """Theirs, and those of the files that the tests install."""
        package = httpx.get(f"{self.npm}is-odd", timeout=60, verify=_trust()).json()
        accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
        page = httpx.get(f"{self.pypi}six/", headers=accept, timeout=60, verify=_trust(), follow_redirects=True)
        addresses = [self.npm, self.pypi, str(page.url)]
        addresses += [version["dist"]["tarball"] for version in package["versions"].values()]
        addresses += [str(page.url.join(file["url"])) for file in page.json()["files"]]
        return {urlsplit(address).hostname or "" for address in addresses}


def _trust() -> object:
    import ssl

    return ssl.create_default_context()  # the machine's own authorities


def _said_by(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.stdout.strip() if done.returncode == 0 else ""


@pytest.fixture(scope="module")
def registries() -> Registries:
    npm_registry = _said_by(str(tools.path("npm")), "config", "get", "registry")
    index = _said_by(pypi.PYTHON, "-m", "pip", "config", "get", "global.index-url")
    default = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
    index = index or _said_by(pypi.PYTHON, "-c", default)
    assert npm_registry and index
    return Registries(npm_registry.rstrip("/") + "/", index.rstrip("/") + "/")


# --- servers ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The second instance, which is stopped and started again."""
    with Deployment.embedded(tmp_path_factory.mktemp("origin")) as found:
        yield found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, registries: Registries) -> Iterator[Server]:
    allowed = ",".join(sorted({"127.0.0.0/8", *registries.hosts()}))
    with Deployment.embedded(tmp_path_factory.mktemp("remote"), REPOMAN_UPSTREAM_ALLOW=allowed) as found:
        yield found


@contextlib.contextmanager
def stopped(origin: Server) -> Iterator[None]:
    origin.stop()
    try:
        yield
    finally:
        origin.start()


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    with services.dockerd() as address:
        yield str(address)


def remote_of(server: Server, format: str, url: str, *, namespace: str = "", name: str = "", **settings: object) -> str:
    remote = {"url": url, "metadata_ttl": SOON_OLD, "negative_ttl": 0, **settings}
    return server.make_repository(
        namespace, name=name, format=format, type="remote", remote=remote, anonymous_read=True
    )


@dataclass(frozen=True)
class Both:
    """A virtual repository over a local one, which takes what is published, and a remote one."""

    virtual: str
    local: str
    remote: str


def both(server: Server, format: str, url: str, **settings: object) -> Both:
    namespace = server.make_namespace()
    local = server.make_repository(namespace, format=format)
    remote = remote_of(server, format, url, namespace=namespace, **settings)
    virtual = server.make_repository(
        namespace, format=format, type="virtual", members=[remote, local], deploy_target=local
    )
    return Both(virtual, local, remote)


# --- OCI: what each client does to pull ------------------------------------------------------------------------------


@dataclass
class Pull:
    """One client that pulls `sample` under an address, and compares what it got with what was pushed."""

    sandbox: Sandbox
    engine: str
    sample: oci.Sample
    chart: Path | None = None

    @property
    def config(self) -> str:
        return str(self.sample.children[0].body["config"]["digest"])

    def fresh(self, name: str) -> Path:
        folder = self.sandbox.home / name
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def every_blob(self) -> dict[str, bytes]:
        found = {self.sample.digest: self.sample.manifest}
        for child in self.sample.children:
            found |= {child.digest: child.manifest, **child.blobs}
        return found

    def docker(self, reference: str) -> None:
        docker = {"DOCKER_HOST": self.engine}
        self.sandbox.run("docker", "pull", reference, environment=docker)
        shown = self.sandbox.run("docker", "image", "inspect", "-f", "{{.Id}}", reference, environment=docker)
        self.sandbox.run("docker", "rmi", "-f", reference, environment=docker)
        assert shown.strip() == self.config

    def podman(self, reference: str) -> None:
        podman = ["podman", *self.sandbox.containers()]
        self.sandbox.run(*podman, "pull", "--tls-verify=false", reference)
        shown = self.sandbox.run(*podman, "image", "inspect", "--format", "{{.Id}}", reference)
        self.sandbox.run(*podman, "rmi", "-f", reference)
        assert shown.strip() == self.config.partition(":")[2]

    def skopeo(self, reference: str) -> None:
        folder = self.fresh("skopeo")
        self.sandbox.run(
            "skopeo", "copy", "--all", "--src-tls-verify=false", f"docker://{reference}", f"oci:{folder}:1"
        )
        self.compare(folder)

    def crane(self, reference: str) -> None:
        assert self.sandbox.run("crane", "digest", "--insecure", reference).strip() == self.sample.digest
        self.sandbox.run("crane", "validate", "--insecure", "--remote", reference)
        folder = self.fresh("crane")
        self.sandbox.run("crane", "pull", "--insecure", "--format", "oci", reference, folder)
        self.compare(folder)

    def oras(self, reference: str) -> None:
        folder = self.fresh("oras")
        self.sandbox.run("oras", "copy", "-r", "--from-plain-http", reference, "--to-oci-layout", f"{folder}:1")
        self.compare(folder)
        found = json.loads(self.sandbox.run("oras", "discover", "--plain-http", "--format", "json", reference))
        assert len(found.get("referrers") or found.get("manifests")) == 1

    def regctl(self, reference: str) -> None:
        self.sandbox.run("regctl", "registry", "set", "--tls", "disabled", reference.partition("/")[0])
        folder = self.fresh("regctl")
        self.sandbox.run("regctl", "image", "copy", reference, f"ocidir://{folder}:1")
        self.compare(folder)

    def helm(self, tool: str, reference: str) -> None:
        assert self.chart is not None
        folder = self.fresh("helm")
        folder.mkdir()
        name = reference.rpartition(":")[0]
        self.sandbox.run(tool, "pull", "--plain-http", f"oci://{name}", "--version", "1.2.3", "-d", folder)
        assert next(folder.glob("*.tgz")).read_bytes() == self.chart.read_bytes()

    def compare(self, layout: Path) -> None:
        for digest, data in self.every_blob().items():
            assert (layout / "blobs" / digest.replace(":", "/")).read_bytes() == data, digest

    def by(self, client: str, reference: str) -> None:
        if client.startswith("helm"):
            self.helm(client, reference)
        else:
            getattr(self, client)(reference)


CLIENTS = ("docker", "podman", "skopeo", "crane", "oras", "regctl", "helm3", "helm4")


def pull_of(sandbox: Sandbox, engine: str, origin: Server, key: str, clients: tuple[str, ...]) -> Pull:
    """Something for every client, under its own name, so that each begins with an empty cache."""
    sample = oci.index()
    for client in clients:
        if not client.startswith("helm"):
            image = Image(origin.admin, key, client)
            assert image.push(sample, "1").status_code == 201
            assert image.push(oci.artifact(b"note", subject=sample.descriptor())).status_code == 201
    pull = Pull(sandbox, engine, sample)
    charts = [client for client in clients if client.startswith("helm")]
    if charts:
        sandbox.run("helm3", "create", "demo")
        sandbox.run("helm3", "package", "demo", "--version", "1.2.3")
        pull.chart = sandbox.home / "demo-1.2.3.tgz"
        username, password = origin.make_user(key, "publisher")
        sandbox.run(
            "helm3", "registry", "login", "--insecure", origin.host, "-u", username, "--password-stdin", stdin=password
        )
        for client in charts:
            sandbox.run("helm3", "push", "--plain-http", pull.chart, f"oci://{origin.host}/{key}/{client}")
        sandbox.run("helm3", "registry", "logout", origin.host)
    return pull


def reference_of(server: Server, key: str, client: str) -> str:
    return f"{server.host}/{key}/{client}{'/demo' if client.startswith('helm') else ''}:1"


def test_every_client_pulls_cold_warm_and_without_the_upstream(
    sandbox: Sandbox, engine: str, server: Server, origin: Server
) -> None:
    source = origin.make_repository(format="oci", anonymous_read=True)
    pull = pull_of(sandbox, engine, origin, source, CLIENTS)
    key = remote_of(server, "oci", f"{origin.url}/{source}")
    for client in CLIENTS:
        pull.by(client, reference_of(server, key, client))
        pull.by(client, reference_of(server, key, client))
    with stopped(origin):
        for client in CLIENTS:
            pull.by(client, reference_of(server, key, client))


def test_every_client_pulls_what_the_upstream_gives_to_one_user_only(
    sandbox: Sandbox, engine: str, server: Server, origin: Server
) -> None:
    clients = ("docker", "skopeo", "crane", "oras", "regctl", "helm4")
    source = origin.make_repository(format="oci")
    pull = pull_of(sandbox, engine, origin, source, clients)
    username, password = origin.make_user(source, "reader")
    key = remote_of(server, "oci", f"{origin.url}/{source}", username=username, password=password)
    for client in clients:
        pull.by(client, reference_of(server, key, client))
    sandbox.run("crane", "digest", "--insecure", f"{origin.host}/{source}/crane:1", fails=True)


def test_clients_push_to_a_virtual_address_and_pull_from_all_members(
    sandbox: Sandbox, engine: str, server: Server, origin: Server
) -> None:
    clients = ("docker", "skopeo", "crane", "oras", "regctl")
    source = origin.make_repository(format="oci", anonymous_read=True)
    pull = pull_of(sandbox, engine, origin, source, clients)
    where = both(server, "oci", f"{origin.url}/{source}")
    username, password = server.make_user(where.virtual.partition("/")[0], "publisher")
    docker = {"DOCKER_HOST": engine}
    sandbox.run("docker", "login", server.host, "-u", username, "--password-stdin", stdin=password, environment=docker)
    shutil.copy(sandbox.home / ".docker" / "config.json", sandbox.home / "auth.json")
    base = f"{server.host}/{where.virtual}"
    for client in clients:
        pull.by(client, f"{base}/{client}:1")

    # docker pushes what it pulled through the same address: its layers are with the remote, and must come along.
    sandbox.run("docker", "pull", f"{base}/docker:1", environment=docker)
    for name in ("docker", "renamed"):
        sandbox.run("docker", "tag", f"{base}/docker:1", f"{base}/{name}:mine", environment=docker)
        sandbox.run("docker", "push", f"{base}/{name}:mine", environment=docker)
        found = server.admin.get(f"/v2/{where.local}/{name}/manifests/mine")
        assert found.json()["config"]["digest"] == pull.config
    sandbox.run("docker", "rmi", "-f", f"{base}/docker:1", environment=docker)
    sandbox.run("docker", "pull", f"{base}/docker:1", environment=docker, fails=True)  # the name is ours now

    # From a layout that is complete, under names that the remote has and names that nobody has.
    layout = pull.fresh("layout")
    sandbox.run("skopeo", "copy", "--all", "--src-tls-verify=false", f"docker://{base}/skopeo:1", f"oci:{layout}:1")
    for name in ("skopeo", "new"):
        sandbox.run(
            "skopeo", "copy", "--all", "--dest-tls-verify=false", f"oci:{layout}:1", f"docker://{base}/{name}:2"
        )
        pull.skopeo(f"{base}/{name}:2")
    sandbox.run("crane", "copy", "--insecure", f"{base}/new:2", f"{base}/copied:2")
    pull.crane(f"{base}/copied:2")
    # These leave out what they are told is there, layers and manifests, and the remote has all of it under the name.
    sandbox.run("oras", "copy", "--from-oci-layout", f"{layout}:1", "--to-plain-http", f"{base}/oras:2")
    sandbox.run("crane", "push", "--insecure", layout, f"{base}/crane:2")
    sandbox.run("regctl", "registry", "set", "--tls", "disabled", server.host)
    sandbox.run("regctl", "image", "copy", f"ocidir://{layout}:1", f"{base}/by-regctl:2")
    for name in ("oras", "crane", "by-regctl"):
        pull.skopeo(f"{server.host}/{where.virtual}/{name}:2")
        assert server.admin.get(f"/v2/{where.local}/{name}/manifests/2").content == pull.sample.manifest
    (sandbox.home / "thing.txt").write_bytes(b"a thing")
    sandbox.run("oras", "push", "--plain-http", f"{base}/things:1", "thing.txt")
    sandbox.run("oras", "attach", "--plain-http", f"{base}/things:1", "--artifact-type", "a/b", "thing.txt")
    found = json.loads(sandbox.run("oras", "discover", "--plain-http", "--format", "json", f"{base}/things:1"))
    assert len(found.get("referrers") or found.get("manifests")) == 1
    tags = sandbox.run("crane", "ls", "--insecure", f"{base}/skopeo").split()
    assert tags == ["2"]  # what the remote has under the name is hidden


# --- npm -------------------------------------------------------------------------------------------------------------


def npm_access(server: Server, key: str, role: str = "maintainer") -> Access:
    username, password = server.make_user(key.partition("/")[0], role)
    token = server.token(server.client(username, password), actions=["read", "publish", "delete"])["token"]
    return Access(f"{server.url}/npm/{key}/", username, password, token)


@pytest.fixture
def workplace(tmp_path: Path) -> Callable[[str], Workplace]:
    return lambda tool: Workplace(tool, tmp_path / f"home-{tool}")


def lock_of(project: Path) -> str:
    return "".join(path.read_text() for path in sorted(project.iterdir()) if path.is_file() and "lock" in path.name)


@pytest.mark.parametrize("tool", ["npm", "pnpm"])
def test_npm_clients_install_through_a_remote_also_while_it_is_down(
    workplace: Callable[[str], Workplace], server: Server, origin: Server, tool: str
) -> None:
    source = origin.make_repository(format="npm", anonymous_read=True)
    author = workplace("npm")
    author.sign_in(npm_access(origin, source))
    author.publish(author.package("@team/library", "1.0.0"))
    author.publish(author.package("application", "2.0.0", dependencies={"@team/library": "^1.0.0"}))
    namespace = server.make_namespace()
    url = f"{origin.url}/npm/{source}/"
    key = remote_of(server, "npm", url, namespace=namespace, name="shown")
    work = Workplace(tool, author.home.parent / "reader")
    work.sign_in(npm_access(server, key, "reader"))
    project = work.project()
    work.add(project, "application")
    assert work.says(project, "application") == "application@2.0.0"
    installed = npm.content_of(project, "application"), npm.content_of(project, "@team/library")
    assert origin.host not in lock_of(project)
    work.from_lock(project)
    with stopped(origin):
        work.from_lock(project)
        assert (npm.content_of(project, "application"), npm.content_of(project, "@team/library")) == installed
        work.add(work.project("other"), "@team/library")
    # The lock alone, and a cache that is empty again.
    assert server.admin.delete(f"/api/v1/repositories/{key}").status_code == 204
    assert remote_of(server, "npm", url, namespace=namespace, name="shown") == key
    work.from_lock(project)
    assert (npm.content_of(project, "application"), npm.content_of(project, "@team/library")) == installed


def test_npm_publishes_to_a_virtual_address_and_never_gets_the_namesake(
    workplace: Callable[[str], Workplace], server: Server, origin: Server
) -> None:
    source = origin.make_repository(format="npm", anonymous_read=True)
    author = workplace("npm")
    author.sign_in(npm_access(origin, source))
    author.publish(author.package("ours", "99.0.0"))
    author.publish(author.package("theirs", "1.0.0"))
    where = both(server, "npm", f"{origin.url}/npm/{source}/")
    access = npm_access(server, where.virtual)
    work = Workplace("npm", author.home.parent / "publisher")
    work.sign_in(access)
    npm.publishes_and_installs(work, access)
    # npm itself looks first: beside a higher version of that name it wants to be told that this one is the latest.
    work.publish(work.package("ours", "1.0.0", dependencies={"theirs": "*"}), "--tag", "latest")
    project = work.project("both")
    work.add(project, "ours")
    assert work.says(project, "ours") == "ours@1.0.0"
    work.add(project, "ours@99.0.0", fails=True)
    said = server.admin.get(f"/api/v1/repositories/{where.virtual}/explain", params={"path": "ours"}).json()["sources"]
    assert [(line["repository"], line.get("hidden_by")) for line in said] == [
        (where.local, None), (where.remote, where.local),
    ]  # fmt: skip


def test_npm_installs_from_the_registry_of_this_machine(
    workplace: Callable[[str], Workplace], server: Server, registries: Registries
) -> None:
    where = both(server, "npm", registries.npm, metadata_ttl=300)
    work = workplace("npm")
    work.sign_in(npm_access(server, where.virtual, "reader"))
    project = work.project()
    work.add(project, "is-odd@3.0.1")
    assert work.run("-p", "require('is-odd')(3)", folder=project, tool="node").strip() == "true"
    assert str(urlsplit(registries.npm).hostname) not in lock_of(project)
    before = npm.content_of(project, "is-odd")
    work.from_lock(project)
    assert npm.content_of(project, "is-odd") == before


# --- PyPI ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    return Desk(home)


def place_of(server: Server, key: str, role: str = "maintainer") -> Place:
    username, password = server.make_user(key.partition("/")[0], role)
    base = f"{server.url}/pypi/{key}/"
    return Place(f"{base}simple/", base, username, password)


def test_pip_and_uv_install_through_a_remote_also_while_it_is_down(desk: Desk, server: Server, origin: Server) -> None:
    source = origin.make_repository(format="pypi", anonymous_read=True)
    pypi.seed_for_installers(desk, place_of(origin, source))
    namespace = server.make_namespace()
    url = f"{origin.url}/pypi/{source}/simple/"
    place = place_of(server, remote_of(server, "pypi", url, namespace=namespace, name="shown"), "reader")
    for tool in pypi.INSTALLERS:
        pypi.install_with_dependencies(desk, place, tool)
    pypi.lock_and_install_again(desk, place)
    project = desk.home / "uv-project"
    assert origin.host not in (project / "uv.lock").read_text()

    def from_lock() -> dict[str, str]:
        shutil.rmtree(project / ".venv")
        desk.run("uv", "sync", "--frozen", "--no-cache", at=project, environment=pypi.uv_environment(place))
        return pypi.fingerprint(pypi.site_packages(project), "top_level", "leaf")

    warm = from_lock()
    with stopped(origin):
        assert from_lock() == warm
        pypi.pip_install(desk, place, "top-level")
        assert pypi.installed(desk, "pip-target", "top_level") == "top"
    assert server.admin.delete(f"/api/v1/repositories/{namespace}/shown").status_code == 204
    remote_of(server, "pypi", url, namespace=namespace, name="shown")
    assert from_lock() == warm  # the lock alone, and a cache that is empty again


def test_uploads_to_a_virtual_index_and_installs_that_never_get_the_namesake(
    desk: Desk, server: Server, origin: Server
) -> None:
    source = origin.make_repository(format="pypi", anonymous_read=True)
    pypi.seed_for_installers(desk, place_of(origin, source))
    pypi.twine(desk, place_of(origin, source), [wheels.wheel("ours", "99.0", text="impostor")])
    where = both(server, "pypi", f"{origin.url}/pypi/{source}/simple/")
    place = place_of(server, where.virtual)
    pypi.publish_and_repeat(desk, place, "twine")
    pypi.uv_publish(desk, place, [wheels.wheel("ours", "1.0", text="ours", requires=["top-level"])])
    for install, target in pypi.INSTALLERS.values():
        install(desk, place, "ours")
        assert pypi.versions_in(desk, target) == {"ours": "1.0", "top_level": "1.0", "leaf": "1.1"}
        assert pypi.installed(desk, target, "ours") == "ours"
        install(desk, place, "ours==99.0", fails=True)
    path = {"path": f"files/ours/{wheels.wheel('ours', '99.0').filename}"}
    said = server.admin.get(f"/api/v1/repositories/{where.virtual}/explain", params=path).json()["sources"]
    assert [(line["repository"], line["outcome"]) for line in said] == [
        (where.local, "does not have it"), (where.remote, "not asked"),
    ]  # fmt: skip


def test_pip_and_uv_install_from_the_index_of_this_machine(desk: Desk, server: Server, registries: Registries) -> None:
    where = both(server, "pypi", registries.pypi, metadata_ttl=300)
    place = place_of(server, where.virtual, "reader")
    for tool, (install, target) in pypi.INSTALLERS.items():
        install(desk, place, "python-dateutil==2.9.0.post0")
        assert {"python_dateutil", "six"} <= set(pypi.versions_in(desk, target)), tool
    project = pypi.uv_project(desk, place, "python-dateutil==2.9.0.post0")
    environment = pypi.uv_environment(place)
    desk.run("uv", "lock", at=project, environment=environment)
    lock = (project / "uv.lock").read_text()
    assert not any(host in lock for host in registries.hosts())
    desk.run("uv", "sync", "--frozen", "--no-cache", at=project, environment=environment)
    hashes = desk.home / "hashes.txt"
    exported = desk.run("uv", "export", "--frozen", "--no-emit-project", "-q", at=project, environment=environment)
    hashes.write_text("\n".join(line for line in exported.splitlines() if "warning" not in line))
    pypi.pip_install(desk, place, "--require-hashes", "-r", str(hashes))
    assert "six" in pypi.versions_in(desk, "pip-target")


# --- generic ---------------------------------------------------------------------------------------------------------


def test_curl_downloads_through_a_remote_and_continues(sandbox: Sandbox, server: Server, origin: Server) -> None:
    source = origin.make_repository(format="generic", anonymous_read=True)
    content = hashlib.shake_256(b"remote").digest(3_000_000)
    assert origin.admin.put(f"/generic/{source}/tools/file%20name.bin", content=content).status_code == 201
    where = both(server, "generic", f"{origin.url}/generic/{source}/")
    username, password = server.make_user(where.virtual.partition("/")[0], "maintainer")
    curl = ("curl", "-sSf", "-u", f"{username}:{password}")
    url = f"{server.url}/generic/{where.virtual}"
    back = sandbox.home / "back.bin"
    sandbox.run(*curl, f"{url}/tools/file%20name.bin", "-o", back)
    assert back.read_bytes() == content
    back.write_bytes(content[:1_000_000])
    with stopped(origin):
        sandbox.run(*curl, "-C", "-", f"{url}/tools/file%20name.bin", "-o", back)
        assert back.read_bytes() == content
        assert "3000000" in sandbox.run(*curl, "-I", f"{url}/tools/file%20name.bin")
    (sandbox.home / "own.bin").write_bytes(content[:1000])
    sandbox.run(*curl, "-T", "own.bin", f"{url}/own.bin")
    sandbox.run(*curl, f"{url}/own.bin", "-o", back)
    assert back.read_bytes() == content[:1000]
    sandbox.run(*curl, "-X", "DELETE", f"{url}/own.bin", fails=True)
