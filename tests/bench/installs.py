"""Real clients that install the set: npm and uv, each with a home and a cache of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench.client import LoadError
from tests.bench.packages import INSTALLS, ROOTS
from tests.bench.peers import Place
from tests.tools import path

SECONDS = 90


def _environment(home: Path, programs: Sequence[str], more: Mapping[str, str]) -> dict[str, str]:
    """Nothing of the machine's settings for these clients."""
    mine = ("npm_", "node_", "uv_", "pip_", "virtual_env", "http_proxy", "https_proxy", "all_proxy")
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
    _check(target / "node_modules", "part-??")


def uv(place: Place, home: Path, target: Path) -> None:
    environment = _environment(home, ("uv",), {"UV_CACHE_DIR": str(home / "uv-cache"), "UV_NO_CONFIG": "1"})
    wanted = [f"part-{at:02}" for at in range(ROOTS)]
    words = [str(path("uv")), "pip", "install", "--quiet", "--python", sys.executable, "--target", str(target / "lib")]
    _run([*words, "--default-index", f"{place.url}{place.index}", *wanted], target, environment)
    _check(target / "lib", "part_??")


def _check(folder: Path, pattern: str) -> None:
    found = len(list(folder.glob(pattern)))
    if found != INSTALLS:
        raise LoadError(f"{found} of {INSTALLS} packages were installed")
