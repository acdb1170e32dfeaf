"""Real clients that install the set, each with a home and a cache of its own: npm, uv, Maven; and Helm, which reads indexes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from formats.maven.samples import pom
from tests.bench.client import LoadError
from tests.bench.packages import INSTALLS, MAVEN_INSTALLS, ROOTS, maven_at
from tests.bench.peers import Place
from tests.tools import path
from tests.tools.provision import DEPENDENCY_PLUGIN

SECONDS = 90


def _environment(home: Path, programs: Sequence[str], more: Mapping[str, str]) -> dict[str, str]:
    """Nothing of the machine's settings for these clients."""
    mine = ("npm_", "node_", "uv_", "pip_", "virtual_env", "maven_", "helm_", "http_proxy", "https_proxy", "all_proxy")
    kept = {key: value for key, value in os.environ.items() if not key.lower().startswith(mine)}
    folders = [str(path(name).parent) for name in programs]
    return {
        **kept,
        "HOME": str(home),
        "PATH": os.pathsep.join([*folders, kept.get("PATH", os.defpath)]),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_DATA_HOME": str(home / "data"),
        "NO_PROXY": "127.0.0.1,localhost",
        "CI": "1",
        **more,
    }


def _run(words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        words, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=SECONDS, check=False,
    )  # fmt: skip
    if done.returncode:
        raise LoadError(
            f"{Path(words[0]).name} ended with {done.returncode}: {done.stdout[-600:]}{done.stderr[-1500:]}"
        )


def npm(place: Place, home: Path, target: Path) -> None:
    wanted = {f"part-{at:02}": "^1.0.0" for at in range(ROOTS)}
    (target / "package.json").write_text(json.dumps({"name": "root", "version": "1.0.0", "dependencies": wanted}))
    environment = _environment(home, ("npm", "node"), {"npm_config_globalconfig": str(home / "none")})
    words = [str(path("npm")), "install", f"--registry={place.url}{place.base}", f"--cache={home / 'npm-cache'}"]
    words += [
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "--no-package-lock",
        "--no-update-notifier",
        "--loglevel=error",
    ]
    _run(words, target, environment)
    _check(target / "node_modules", "part-??", INSTALLS)


def uv(place: Place, home: Path, target: Path) -> None:
    environment = _environment(home, ("uv",), {"UV_CACHE_DIR": str(home / "uv-cache"), "UV_NO_CONFIG": "1"})
    wanted = [f"part-{at:02}" for at in range(ROOTS)]
    words = [str(path("uv")), "pip", "install", "--quiet", "--python", sys.executable, "--target", str(target / "lib")]
    _run([*words, "--default-index", f"{place.url}{place.index}", *wanted], target, environment)
    _check(target / "lib", "part_??", INSTALLS)


def maven(place: Place, home: Path, target: Path) -> None:
    """Resolves and copies the jars. The plugin that does it comes from the prepared repository of the tools, which is read
    behind the local one; everything else is asked of the place."""
    address = f"{place.url}{place.base}"
    (home / "settings.xml").write_text(
        f"<settings><mirrors><mirror><id>bench</id><mirrorOf>*</mirrorOf><url>{address}</url></mirror></mirrors></settings>"
    )
    wanted = [maven_at(f"part-{at:02}", "1.0") for at in range(ROOTS)]
    (target / "pom.xml").write_bytes(pom(maven_at("root", "1.0"), packaging="pom", dependencies=wanted))
    switches = {
        "maven.repo.local": home / "repository",
        "maven.repo.local.tail": path("maven-repository"),
        "user.home": home,
        "outputDirectory": target / "lib",
    }
    more = {"MAVEN_SKIP_RC": "1", "MAVEN_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
    words = [str(path("mvn3.9")), "-B", "-ntp", "-q", "-s", str(home / "settings.xml")]
    words += [f"-D{name}={value}" for name, value in switches.items()]
    _run([*words, f"{DEPENDENCY_PLUGIN}:copy-dependencies"], target, _environment(home, ("mvn3.9",), more))
    _check(target / "lib", "part-*.jar", MAVEN_INSTALLS)


def helm_update(helm: str, place: Place, home: Path) -> None:
    repositories = home / "repositories.json"
    known = [{"name": "bench", "url": f"{place.url}{place.base}"}]
    repositories.write_text(json.dumps({"apiVersion": "", "repositories": known}))
    words = [str(path(helm)), "repo", "update", "--repository-config", str(repositories)]
    _run([*words, "--repository-cache", str(home / "cache")], home, _environment(home, (helm,), {}))
    _check(home / "cache", "bench-index.yaml", 1)


def _check(folder: Path, pattern: str, count: int) -> None:
    found = len(list(folder.glob(pattern)))
    if found != count:
        raise LoadError(f"{found} of {count} packages were installed")
