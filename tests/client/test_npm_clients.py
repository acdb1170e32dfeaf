"""npm, pnpm, Yarn 1, Yarn 4 and Bun against a running server: what each does, bytes compared (contract, section 14).

Every scenario is a function that takes a registry's address and credentials, so that it can be run against any type of
repository: `Access` says where and as whom, `Workplace` is one client with a home of its own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import tools
from tests.running import Server

NPM = ("npm", "npm10", "npm12")
PNPM = ("pnpm", "pnpm12")
LIKE_NPM = (*NPM, *PNPM)
NEWEST = ("npm12", "pnpm12")
OTHERS = [pytest.param(tool, marks=pytest.mark.every_client) for tool in LIKE_NPM if tool not in NEWEST]
SECONDS = 120
AGAIN = "cannot publish over the previously published versions"


@dataclass(frozen=True)
class Access:
    """A registry and somebody who may use it. `url` ends with a slash; `token` is for reading and writing."""

    url: str
    username: str
    password: str
    token: str

    @property
    def prefix(self) -> str:
        """What npm's settings for this registry begin with."""
        return re.sub(r"^https?:", "", self.url)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, auth=(self.username, self.password), timeout=30)


def make_access(server: Server, **fields: Any) -> Access:
    key = server.make_repository(format="npm", **fields)
    username, password = server.make_user(key, "maintainer")
    token = server.token(server.client(username, password), actions=["read", "publish", "delete"], repositories=[key])
    return Access(f"{server.url}/npm/{key}/", username, password, token["token"])


@dataclass
class Workplace:
    """One client, with its own home, cache and settings: nothing is shared between tests or taken from the machine."""

    tool: str
    home: Path
    more: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self.npmrc.write_text("update-notifier=false\nfund=false\nfetch-retries=0\n")

    @property
    def npmrc(self) -> Path:
        return self.home / ".npmrc"

    @property
    def environment(self) -> dict[str, str]:
        ours = ("npm_", "yarn_", "pnpm_", "bun_", "node_", "corepack_", "repoman_")
        kept = {key: value for key, value in os.environ.items() if not key.lower().startswith(ours)}
        # pnpm 10 hands what it does not do itself to the npm it finds first.
        folders = [str(tools.path(name).parent) for name in (self.tool, "node", "npm")]
        return {
            **kept,
            "HOME": str(self.home),
            "PATH": os.pathsep.join([*folders, kept["PATH"]]),
            "XDG_CONFIG_HOME": str(self.home / ".config"),
            "XDG_CACHE_HOME": str(self.home / ".cache"),
            "XDG_DATA_HOME": str(self.home / ".local" / "share"),
            "XDG_STATE_HOME": str(self.home / ".local" / "state"),
            "npm_config_globalconfig": str(self.home / "none"),
            "BUN_INSTALL_CACHE_DIR": str(self.home / ".bun-cache"),
            "BUN_INSTALL": str(self.home / ".bun"),
            "YARN_CACHE_FOLDER": str(self.home / ".yarn-cache"),
            "YARN_GLOBAL_FOLDER": str(self.home / ".yarn-global"),
            "YARN_ENABLE_TELEMETRY": "0",
            "YARN_UNSAFE_HTTP_WHITELIST": "127.0.0.1",
            "YARN_NODE_LINKER": "node-modules",
            "YARN_ENABLE_IMMUTABLE_INSTALLS": "false",
            "YARN_NPM_MINIMAL_AGE_GATE": "0",  # what is published here is a second old
            "NO_PROXY": "127.0.0.1,localhost",
            "NO_COLOR": "1",
            "TERM": "dumb",
            "CI": "1",
            **self.more,
        }

    def run(
        self, *arguments: str, folder: Path | None = None, fails: bool = False, tool: str = "", errors: bool = True
    ) -> str:
        """What it prints, on both streams unless `errors` is False. It must succeed, or fail where `fails` is set."""
        done = subprocess.run(
            [str(tools.path(tool or self.tool)), *arguments],
            cwd=folder or self.home,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if errors else subprocess.DEVNULL,
            timeout=SECONDS,
        )
        output = done.stdout.decode(errors="replace")
        if fails:
            assert done.returncode != 0, f"{self.tool} {arguments} should have failed:\n{output}"
        else:
            assert done.returncode == 0, f"{self.tool} {arguments} ended with {done.returncode}:\n{output[-4000:]}"
        return output

    def answer(self, arguments: Sequence[str], answers: Sequence[tuple[str, str]], folder: Path | None = None) -> str:
        """Run the client on a terminal and answer its questions: (what it shows, what is typed)."""
        environment = {key: value for key, value in self.environment.items() if key != "CI"}
        command = [str(tools.path(self.tool)), *arguments]
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(folder or self.home)
            os.execve(command[0], command, environment)
        output, seen, pending = "", 0, list(answers)
        deadline = time.monotonic() + SECONDS
        try:
            while time.monotonic() < deadline:
                if select.select([terminal], [], [], 0.2)[0]:
                    try:
                        data = os.read(terminal, 65536)
                    except OSError:
                        break
                    if not data:
                        break
                    output += data.decode(errors="replace")
                if pending and re.search(pending[0][0], output[seen:], re.IGNORECASE):
                    seen = len(output)
                    time.sleep(0.2)  # some clients drop what is typed before they listen
                    os.write(terminal, pending.pop(0)[1].encode() + b"\r")
        finally:
            os.close(terminal)
            _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0 and not pending, f"{command}: {pending}\n{output}"
        return output

    # --- settings ----------------------------------------------------------------------------------------------------

    def use(self, access: Access) -> None:
        """The registry for everything, without credentials."""
        with self.npmrc.open("a") as file:
            file.write(f"registry={access.url}\n")
        self.more["YARN_NPM_REGISTRY_SERVER"] = access.url

    def sign_in(self, access: Access) -> None:
        """The registry for everything, with a token."""
        self.use(access)
        with self.npmrc.open("a") as file:
            file.write(f"{access.prefix}:_authToken={access.token}\nalways-auth=true\n")
        self.more |= {"YARN_NPM_AUTH_TOKEN": access.token, "YARN_NPM_ALWAYS_AUTH": "true"}

    # --- packages and projects ---------------------------------------------------------------------------------------

    def package(self, name: str, version: str, **fields: Any) -> Path:
        """A folder with a package that says its name and version, and has a command that does."""
        folder = self.home / "packages" / f"{name.replace('/', '-')}-{version}"
        folder.mkdir(parents=True)
        manifest = {
            **{"name": name, "version": version, "description": "for tests", "license": "MIT", "main": "index.js"},
            **{"bin": {"say": "say.js"}, "keywords": ["sample"], **fields},
        }
        (folder / "package.json").write_text(json.dumps(manifest, indent=2))
        (folder / "index.js").write_text(f"module.exports = {json.dumps(f'{name}@{version}')}\n")
        (folder / "say.js").write_text("#!/usr/bin/env node\nconsole.log(require('./index.js'))\n")
        (folder / "README.md").write_text(f"# {name}\n")
        if self.tool == "yarn4":
            (folder / "yarn.lock").write_text("")
            self.run("install", folder=folder)
        return folder

    def project(self, name: str = "project", **fields: Any) -> Path:
        folder = self.home / name
        folder.mkdir()
        (folder / "package.json").write_text(json.dumps({"name": name, "version": "1.0.0", "private": True, **fields}))
        if self.tool == "yarn4":
            (folder / "yarn.lock").write_text("")
        return folder

    def publish(self, folder: Path, *options: str, fails: bool = False) -> str:
        if self.tool == "yarn4":
            return self.run("npm", "publish", *options, folder=folder, fails=fails)
        if self.tool == "yarn1":
            version = json.loads((folder / "package.json").read_text())["version"]
            return self.run(
                "publish", "--new-version", version, "--non-interactive", *options, folder=folder, fails=fails
            )
        if self.tool in PNPM:
            return self.run("publish", "--no-git-checks", *options, folder=folder, fails=fails)
        return self.run("publish", *options, folder=folder, fails=fails)

    def add(self, folder: Path, *wanted: str, fails: bool = False) -> str:
        verb = "install" if self.tool in NPM else "add"
        return self.run(verb, *wanted, folder=folder, fails=fails)

    def from_lock(self, folder: Path) -> None:
        """Install exactly what the lock file says, with nothing kept from before."""
        for cache in (".npm", ".cache", ".local", ".bun-cache", ".yarn-cache", ".yarn-global"):
            subprocess.run(["rm", "-rf", str(self.home / cache)], check=True)
        subprocess.run(["rm", "-rf", str(folder / "node_modules")], check=True)
        arguments = {"yarn4": ["install", "--immutable"], "npm": ["ci"], "npm10": ["ci"], "npm12": ["ci"]}
        self.run(*arguments.get(self.tool, ["install", "--frozen-lockfile"]), folder=folder)

    def says(self, folder: Path, name: str) -> str:
        """What the installed package exports."""
        return self.run("-p", f"require({json.dumps(name)})", folder=folder, tool="node").strip()


def content_of(folder: Path, name: str) -> str:
    """A digest over the installed files of a package."""
    top = (folder / "node_modules" / name).resolve()
    sums = hashlib.sha256()
    for path in sorted(top.rglob("*")):
        if path.is_file() and "node_modules" not in path.relative_to(top).parts:
            sums.update(f"{path.relative_to(top)}\0".encode() + path.read_bytes())
    return sums.hexdigest()


def integrity_of(access: Access, name: str, version: str) -> str:
    """The integrity that the packument tells, checked against the tarball's bytes."""
    dist = access.get(name.replace("/", "%2f")).json()["versions"][version]["dist"]
    data = httpx.get(dist["tarball"], auth=(access.username, access.password)).content
    told: str = dist["integrity"]
    assert told == "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    return told


# --- scenarios -------------------------------------------------------------------------------------------------------


def publishes_and_installs(work: Workplace, access: Access) -> None:
    """Scoped, unscoped, transitive and tagged packages go in, and come out byte for byte, twice."""
    scoped, plain = f"@team-{work.tool}/library", f"{work.tool}-application"
    work.publish(work.package(scoped, "1.0.0"))
    work.publish(work.package(scoped, "1.1.0-beta.1"), "--tag", "beta")
    work.publish(work.package(plain, "2.0.0", dependencies={scoped: "^1.0.0"}))
    tags = access.get(f"-/package/{scoped}/dist-tags").json()
    assert tags == {"latest": "1.0.0", "beta": "1.1.0-beta.1"}
    project = work.project()
    work.add(project, plain)
    assert work.says(project, plain) == f"{plain}@2.0.0"
    work.add(project, f"{scoped}@beta")
    assert work.says(project, scoped) == f"{scoped}@1.1.0-beta.1"
    before = content_of(project, plain), content_of(project, scoped)
    lock = {path.name: path.read_bytes() for path in project.iterdir() if path.is_file()}
    work.from_lock(project)
    assert (content_of(project, plain), content_of(project, scoped)) == before
    assert {path.name: path.read_bytes() for path in project.iterdir() if path.is_file()} == lock
    installed = (work.home / "packages" / f"{plain}-2.0.0" / "index.js").read_bytes()
    assert (project / "node_modules" / plain / "index.js").read_bytes() == installed
    told = integrity_of(access, plain, "2.0.0")
    if work.tool != "yarn4":  # whose lock file has a checksum of its own archive
        assert told.encode() in b"".join(lock.values())


def refuses_other_bytes(work: Workplace, access: Access) -> None:
    """The same bytes again are fine where the client tries, other bytes are refused in the words tools look for."""
    name = f"@again-{work.tool}/n"
    folder = work.package(name, "1.0.0")
    work.publish(folder)
    integrity = integrity_of(access, name, "1.0.0")
    (folder / "index.js").write_text("module.exports = 'something else'\n")
    output = work.publish(folder, fails=True)
    if work.tool in NPM:
        assert AGAIN in output
    assert integrity_of(access, name, "1.0.0") == integrity


def changes_what_is_there(work: Workplace, access: Access) -> None:
    """view, dist-tag, deprecate and its reverse, unpublish a version and the package: npm's words, and pnpm's."""
    name = f"@change-{work.tool}/n"
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        work.publish(work.package(name, version))
    path = name.replace("/", "%2f")
    viewed = work.run("view", name)
    assert f"{name}@2.0.0" in viewed and "latest: 2.0.0" in viewed
    assert json.loads(work.run("view", name, "versions", "--json", errors=False)) == ["1.0.0", "1.1.0", "2.0.0"]
    work.run("dist-tag", "add", f"{name}@1.1.0", "stable")
    assert "stable: 1.1.0" in work.run("dist-tag", "ls", name)
    work.run("dist-tag", "rm", name, "stable")
    assert access.get(f"-/package/{path}/dist-tags").json() == {"latest": "2.0.0"}
    work.run("deprecate", f"{name}@1.x", "use version 2")
    versions = access.get(path).json()["versions"]
    assert [versions[v].get("deprecated") for v in versions] == ["use version 2", "use version 2", None]
    if work.tool == "pnpm12":
        work.run("undeprecate", f"{name}@1.1.0")
    else:
        work.run("deprecate", f"{name}@1.1.0", "")
    versions = access.get(path).json()["versions"]
    assert [versions[v].get("deprecated") for v in versions] == ["use version 2", None, None]
    work.run("unpublish", f"{name}@2.0.0", "--force")
    document = access.get(path).json()
    assert list(document["versions"]) == ["1.0.0", "1.1.0"] and document["dist-tags"] == {"latest": "1.1.0"}
    assert access.get(f"{path}/-/n-2.0.0.tgz").status_code == 404
    work.run("unpublish", name, "--force")
    assert access.get(path).status_code == 404
    output = work.publish(work.home / "packages" / f"{name.replace('/', '-')}-1.0.0", fails=True)
    if work.tool in NPM:
        assert AGAIN in output


def asks_about_the_registry(work: Workplace, access: Access) -> None:
    """whoami, ping, search, owners, access, profile, audit: what is only read."""
    name = f"@ask-{work.tool}/needle"
    work.publish(work.package(name, "1.0.0"))
    assert access.username in work.run("whoami")
    work.run("ping")
    assert name in work.run("search", "needle")
    assert access.username in work.run("owner", "ls", name)
    assert re.search("private|restricted", work.run("access", "get", "status", name))
    project = work.project()
    work.add(project, name)
    assert re.search("0 vulnerabilities|No known vulnerabilities", work.run("audit", folder=project))
    work.run("outdated", folder=project)
    if work.tool in NPM:
        assert f"{name}: read-write" in work.run("access", "list", "packages")
        assert f"{access.username}: read-write" in work.run("access", "list", "collaborators", name)
        assert access.username in work.run("profile", "get")
        assert "token" in work.run("token", "list").lower()
        refusal = work.run("owner", "add", access.username + "x", name, fails=True)
        assert "404" in refusal or "EOWNER" in refusal


def verifies_signatures(work: Workplace) -> None:
    """pnpm 12 needs nothing but the registry's keys for it; npm asks a public service first."""
    name = f"@signed-{work.tool}/n"
    work.publish(work.package(name, "1.0.0"))
    project = work.project()
    work.add(project, name)
    assert "1 package has a verified registry signature" in work.run("audit", "signatures", folder=project)


def manages_tokens(work: Workplace, access: Access) -> None:
    """npm token create, list and revoke, by somebody who signed in with a password."""
    secret = base64.b64encode(access.password.encode()).decode()
    with work.npmrc.open("a") as file:
        file.write(
            f"registry={access.url}\n{access.prefix}:username={access.username}\n{access.prefix}:_password={secret}\n"
        )
    assert access.username in work.run("whoami")
    if work.tool == "npm10":
        output = work.answer(["token", "create", "--read-only", "--json"], [("password", access.password)])
        token = json.loads(output[output.index("{") : output.rindex("}") + 1])["token"]
    else:
        options = ["--name", "made here", "--packages-and-scopes-permission", "read-only", "--json"]
        made = work.run("token", "create", "--password", access.password, *options, errors=False)
        token = json.loads(made)["token"]
    assert httpx.get(f"{access.url}-/whoami", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    listed = json.loads(work.run("token", "list", "--json", errors=False))
    assert token not in json.dumps(listed)
    (key,) = [
        item["key"] for item in listed if item["readonly"] is True and token.startswith(item["token"].rstrip("\u2026"))
    ]
    work.run("token", "revoke", str(key))
    assert httpx.get(f"{access.url}-/whoami", headers={"Authorization": f"Bearer {token}"}).status_code == 401


def signs_in_with_a_password(work: Workplace, access: Access) -> None:
    """The client's own login, on a terminal; then publish and log out, after which the token is gone."""
    work.use(access)
    asked = [("username", access.username), ("password", access.password)]
    name = f"@login-{work.tool}/n"
    if work.tool == "yarn4":
        folder = work.package(name, "1.0.0")
        work.answer(["npm", "login"], asked, folder)
        settings = work.home / ".yarnrc.yml"
    else:
        folder = work.package(name, "1.0.0")
        if work.tool == "pnpm12":
            work.answer(["login"], [*asked, ("email", "someone@example.org")])
            settings = work.home / ".config" / "pnpm" / "auth.ini"
        else:
            work.answer(["login", "--auth-type=legacy"], asked)
            settings = work.npmrc
    found = re.search(r"rpm_[A-Za-z0-9_-]+", settings.read_text())
    assert found is not None
    headers = {"Authorization": f"Bearer {found[0]}"}
    assert httpx.get(f"{access.url}-/whoami", headers=headers).json() == {"username": access.username}
    work.publish(folder)
    assert list(access.get(name.replace("/", "%2f")).json()["versions"]) == ["1.0.0"]
    if work.tool == "yarn4":
        work.run("npm", "logout", folder=folder)
        return  # Yarn forgets the token without revoking it
    work.run("logout")
    assert httpx.get(f"{access.url}-/whoami", headers=headers).status_code == 401
    assert found[0] not in settings.read_text()


# --- which client does what ------------------------------------------------------------------------------------------


@pytest.fixture
def access(embedded: Server) -> Access:
    return make_access(embedded)


@pytest.fixture
def workplace(tmp_path: Path) -> Callable[[str], Workplace]:
    return lambda tool: Workplace(tool, tmp_path / "home")


@pytest.mark.parametrize("tool", [*LIKE_NPM, "yarn1", "yarn4", "bun"])
def test_npm_14_1_publish_and_install(workplace: Callable[[str], Workplace], access: Access, tool: str) -> None:
    work = workplace(tool)
    work.sign_in(access)
    publishes_and_installs(work, access)


@pytest.mark.parametrize("tool", [*NEWEST, *OTHERS, "yarn1", "yarn4", "bun"])
def test_npm_6_9_publish_again(workplace: Callable[[str], Workplace], access: Access, tool: str) -> None:
    work = workplace(tool)
    work.sign_in(access)
    refuses_other_bytes(work, access)


@pytest.mark.parametrize("tool", [*NEWEST, *OTHERS])
def test_npm_7_change(workplace: Callable[[str], Workplace], access: Access, tool: str) -> None:
    work = workplace(tool)
    work.sign_in(access)
    changes_what_is_there(work, access)


@pytest.mark.parametrize("tool", [*NEWEST, *OTHERS])
def test_npm_9_10_ask(workplace: Callable[[str], Workplace], access: Access, tool: str) -> None:
    work = workplace(tool)
    work.sign_in(access)
    asks_about_the_registry(work, access)


@pytest.mark.parametrize("tool", [*LIKE_NPM, "yarn4"])
def test_npm_8_7_login_with_user_and_password(workplace: Callable[[str], Workplace], access: Access, tool: str) -> None:
    signs_in_with_a_password(workplace(tool), access)


@pytest.mark.parametrize("tool", NPM)
def test_npm_8_12_tokens(workplace: Callable[[str], Workplace], access: Access, tool: str) -> None:
    manages_tokens(workplace(tool), access)


def test_npm_11_8_signatures(workplace: Callable[[str], Workplace], access: Access) -> None:
    work = workplace("pnpm12")
    work.sign_in(access)
    verifies_signatures(work)


def test_npm_8_6_login_without_a_hint_falls_back_from_the_browser(
    workplace: Callable[[str], Workplace], access: Access
) -> None:
    work = workplace("npm12")
    work.use(access)
    work.answer(["login"], [("username", access.username), ("password", access.password)])
    assert access.username in work.run("whoami")


def test_yarn_1_does_the_rest(workplace: Callable[[str], Workplace], access: Access) -> None:
    work = workplace("yarn1")
    work.sign_in(access)
    name = "@rest-yarn1/n"
    work.publish(work.package(name, "1.0.0"))
    assert '"1.0.0"' in work.run("info", name, "--json")
    work.run("tag", "add", f"{name}@1.0.0", "stable")
    assert "stable: 1.0.0" in work.run("tag", "list", name)
    work.run("tag", "remove", name, "stable")
    assert access.get(f"-/package/{name}/dist-tags").json() == {"latest": "1.0.0"}
    assert access.username in work.run("owner", "list", name)


def test_yarn_4_does_the_rest(workplace: Callable[[str], Workplace], access: Access) -> None:
    work = workplace("yarn4")
    work.sign_in(access)
    name = "@rest-yarn4/n"
    folder = work.package(name, "1.0.0")
    work.publish(folder)
    assert "skipping" in work.publish(folder, "--tolerate-republish")
    project = work.project()
    assert access.username in work.run("npm", "whoami", folder=project)
    assert '"1.0.0"' in work.run("npm", "info", name, "--json", folder=project)
    work.run("npm", "tag", "add", f"{name}@1.0.0", "stable", folder=project)
    assert "stable" in work.run("npm", "tag", "list", name, folder=project)
    work.run("npm", "tag", "remove", name, "stable", folder=project)
    work.add(project, name)
    assert "No audit suggestions" in work.run("npm", "audit", folder=project)
    assert "__archiveUrl" not in (project / "yarn.lock").read_text()  # 5.6


def test_bun_does_the_rest(workplace: Callable[[str], Workplace], access: Access) -> None:
    work = workplace("bun")
    work.sign_in(access)
    name = "@rest-bun/n"
    work.publish(work.package(name, "1.0.0"))
    assert access.username in work.run("pm", "whoami")
    assert f"{name}@1.0.0" in work.run("info", name)
    project = work.project()
    work.add(project, name)
    assert "No vulnerabilities found" in work.run("audit", folder=project)


@pytest.mark.parametrize("tool", [*LIKE_NPM, "yarn1", "yarn4", "bun"])
def test_npm_5_13_without_credentials_nothing_is_installed(
    workplace: Callable[[str], Workplace], access: Access, tool: str
) -> None:
    publisher = Workplace("npm", workplace(tool).home.parent / "publisher")
    publisher.sign_in(access)
    publisher.publish(publisher.package("private-thing", "1.0.0"))
    work = workplace(tool)
    work.use(access)
    assert re.search("401|Unauthorized|authenticat|sign in", work.add(work.project(), "private-thing", fails=True))


@pytest.mark.parametrize("tool", [*LIKE_NPM, "yarn1", "yarn4", "bun"])
def test_a_public_repository_needs_no_credentials(
    workplace: Callable[[str], Workplace], embedded: Server, tool: str
) -> None:
    access = make_access(embedded, anonymous_read=True)
    publisher = Workplace("npm", workplace(tool).home.parent / "publisher")
    publisher.sign_in(access)
    publisher.publish(publisher.package("public-thing", "1.0.0"))
    work = workplace(tool)
    work.use(access)
    project = work.project()
    work.add(project, "public-thing")
    assert work.says(project, "public-thing") == "public-thing@1.0.0"


@pytest.mark.parametrize("tool", ["npm10", "npm12", "pnpm12", "bun"])
def test_npm_on_postgresql_and_s3(workplace: Callable[[str], Workplace], full: Server, tool: str) -> None:
    work, access = workplace(tool), make_access(full)
    work.sign_in(access)
    publishes_and_installs(work, access)


def test_npm_3_3_3_install_scripts_run(workplace: Callable[[str], Workplace], access: Access) -> None:
    """npm 12, pnpm and Bun ask before they run scripts; npm 10 runs what the registry says is there."""
    work = workplace("npm10")
    work.sign_in(access)
    scripts = {"postinstall": "node -e \"require('fs').writeFileSync('ran', '1')\""}
    work.publish(work.package("with-script", "1.0.0", scripts=scripts))
    project = work.project()
    work.add(project, "with-script")
    assert (project / "node_modules" / "with-script" / "ran").exists()
    lock = json.loads((project / "package-lock.json").read_text())
    assert lock["packages"]["node_modules/with-script"]["hasInstallScript"] is True
