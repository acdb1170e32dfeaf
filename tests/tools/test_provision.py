"""Each pinned client runs here at its pinned version, and what is half-made or outdated is not taken for present."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.tools import path, provision

PINNED = [tool for tool in provision.TOOLS if isinstance(tool, provision.PythonTool | provision.NpmTool)]
# What only the benchmarks need is brought only by `make bench`; where it is, it must work too.
HERE = [tool for tool in PINNED if not tool.bench or tool.paths(provision.cache_folder())]
YARN_1 = next(tool for tool in PINNED if tool.name == "yarn1")


def answer(command: str, *arguments: str, folder: Path) -> str:
    """What the command prints, in an empty folder and with no configuration of this machine's user."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    run = subprocess.run(
        [path(command), *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize(("command", "tool"), [(command, tool) for tool in HERE for command in tool.commands])
def test_every_client_answers_its_pinned_version(command: str, tool: provision.Tool, tmp_path: Path) -> None:
    if command == "devpi-init":  # it has no --version
        assert "--serverdir" in answer(command, "--help", folder=tmp_path)
        return
    expected = r"\d+\.\d+\.\d+" if command == "npm24" else re.escape(tool.version)  # that npm came with its Node
    assert re.search(rf"(?<![\d.]){expected}(?![\d.])", answer(command, "--version", folder=tmp_path))


def test_node_and_npm_are_new_enough(tmp_path: Path) -> None:
    major, minor, _ = answer("node", "--version", folder=tmp_path).removeprefix("v").split(".")
    assert (int(major), int(minor)) >= provision.MINIMUM_NODE
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", answer("npm", "--version", folder=tmp_path))


def test_node_comes_from_the_cache_where_the_machine_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = provision.NODE_24.paths(provision.cache_folder())
    monkeypatch.setenv("PATH", "")
    assert path("node") == fetched["node24"]
    assert path("npm") == fetched["npm24"]


def test_what_is_there_is_kept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def build(tool: provision.Tool, cache: Path) -> None:
        raise provision.ProvisionError("    nothing should be built")

    monkeypatch.setattr(provision, "_build", build)
    wanted = [tool for tool in PINNED if not tool.bench]
    assert provision.main([tool.name for tool in wanted]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{tool.name} {tool.version}: present" for tool in wanted]


@pytest.mark.parametrize("tool", PINNED, ids=lambda tool: tool.name)
def test_a_changed_pin_is_not_present(tool: provision.PythonTool | provision.NpmTool) -> None:
    assert dataclasses.replace(tool, version="0").paths(provision.cache_folder()) == {}


def test_a_client_whose_interpreter_has_gone_is_not_present(tmp_path: Path) -> None:
    binaries = YARN_1.folder(tmp_path) / "bin"
    binaries.mkdir(parents=True)
    (binaries / "yarn1").write_text("#!/bin/sh\n")
    (binaries / "yarn1").chmod(0o755)
    node = tmp_path / "node"
    node.write_text("#!/bin/sh\n")
    node.chmod(0o755)
    (binaries / "node").symlink_to(node)
    assert YARN_1.paths(tmp_path) == {"yarn1": binaries / "yarn1"}
    node.unlink()
    assert YARN_1.paths(tmp_path) == {}


def test_a_failed_installation_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: list[str], *, folder: Path, **_: object) -> None:
        (folder / "half-made").write_text("")
        raise provision.ProvisionError("    no network")

    monkeypatch.setenv("REPOMAN_TOOLS", str(tmp_path))
    monkeypatch.setattr(provision, "_require", lambda tool, cache: (Path("/node"), Path("/npm")))
    monkeypatch.setattr(provision, "_run", run)
    assert provision.main(["yarn1"]) == 1
    assert "no network" in capsys.readouterr().out
    assert [left.name for left in tmp_path.iterdir()] == [".lock"]
