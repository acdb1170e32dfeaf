"""Each pinned client runs here at its pinned version, and what is half-made or outdated is not taken for present."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tools import path, provision

PINNED = [
    tool for tool in provision.TOOLS if isinstance(tool, provision.PythonTool | provision.NpmTool | provision.MavenTool)
]
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
def test_every_client_answers_its_pinned_version(
    command: str, tool: provision.PythonTool | provision.NpmTool | provision.MavenTool, tmp_path: Path
) -> None:
    if command == "devpi-init":  # it has no --version
        assert "--serverdir" in answer(command, "--help", folder=tmp_path)
        return
    if command == "sbt":  # it would first download the sbt that the folder asks for
        assert (tool.folder(provision.cache_folder()) / "lib" / f"sbt-launch-{tool.version}.jar").is_file()
        return
    expected = r"\d+\.\d+\.\d+" if command == "npm24" else re.escape(tool.version)  # that npm came with its Node
    question = "version" if command == "coursier" else "--version"
    assert re.search(rf"(?<![\d.]){expected}(?![\d.])", answer(command, question, folder=tmp_path))


def test_debians_maven_and_a_jdk_for_all_of_them(tmp_path: Path) -> None:
    assert "Apache Maven 3.8." in answer("mvn3.8", "--version", folder=tmp_path)
    assert int(re.findall(r"\d+", answer("javac", "--version", folder=tmp_path))[0]) >= 17
    assert path("java").parent == path("javac").parent == path("javadoc").parent


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
def test_a_changed_pin_is_not_present(tool: provision.PythonTool | provision.NpmTool | provision.MavenTool) -> None:
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


# --- the prepared repository of Maven -----------------------------------------------------------------------------------


def test_the_prepared_repository_holds_nothing_that_maven_goes_on_writing_into() -> None:
    """Tests have hard links to its files. That builds need nothing else is shown by the tests of the clients."""
    names = {found.name for found in path("maven-repository").rglob("*") if found.is_file()}
    assert "maven-deploy-plugin-3.1.4.jar" in names and f"sbt-{provision.SBT.version}.jar" in names
    assert not [name for name in names if name.startswith(("_remote.repositories", "maven-metadata", "resolver-"))]
    assert not (path("maven-repository") / "warm").exists()
    assert list(path("sbt-boot").glob(f"scala-*/org.scala-sbt/sbt/{provision.SBT.version}"))


def test_another_project_needs_another_prepared_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = provision.MAVEN_CACHE
    assert set(prepared.paths(provision.cache_folder())) == set(prepared.commands)
    assert dataclasses.replace(prepared, maven=prepared.maven[:2]).paths(provision.cache_folder()) == {}
    shutil.copytree(provision.WARM, tmp_path / "warm")
    monkeypatch.setattr(provision, "WARM", tmp_path / "warm")
    assert set(prepared.paths(provision.cache_folder())) == set(prepared.commands)
    (tmp_path / "warm/maven/pom.xml").write_text("<project/>")
    assert prepared.paths(provision.cache_folder()) == {}


def test_the_address_of_maven_central_is_the_one_that_maven_uses() -> None:
    address = provision.central_address(provision.cache_folder())
    assert re.fullmatch(r"https?://\S+[^/]", address)
