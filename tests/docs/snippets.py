"""The shell blocks of a page, run as they are printed.

Blocks fenced as ```sh are run, all others are not. The blocks of a section (a `##` heading) run in one bash, which
stops at the first command that fails; variables that the first section sets are known in the others. Only the address
that a page starts with, `REPO=127.0.0.1:8080`, becomes that of the server under test, and `var` leads to its data.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.tools import copy_maven_repository, path

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "REPO=127.0.0.1:8080"
SECTION_SECONDS = 240
CLIENTS = tuple(
    "docker podman skopeo buildah crane oras regctl notation jq curl npm pnpm bun twine uv flit hatch poetry pdm "
    "coursier".split()
)
# Sections whose heading names versions of one command run once with each.
VERSIONED = {
    "Helm 3 and 4": ("helm", ("helm3", "helm4")),
    "Use with Helm 3 and 4": ("helm", ("helm3", "helm4")),
    "Dependencies with Helm 3 and 4": ("helm", ("helm3", "helm4")),
    "Publish with curl": ("helm", ("helm4",)),
    "Replace and remove": ("helm", ("helm4",)),
    "Remote and virtual repositories": ("helm", ("helm3",)),
    "cosign 2": ("cosign", ("cosign2",)),
    "cosign 3": ("cosign", ("cosign3",)),
    "Yarn 1": ("yarn", ("yarn1",)),
    "Yarn 4": ("yarn", ("yarn4",)),
    "Maven 3": ("mvn", ("mvn3.9",)),
    "Maven 4": ("mvn", ("mvn4",)),
    "Snapshots": ("mvn", ("mvn3.9",)),
}
# curl's failures become failures of the command, as a reader would notice them.
CURLRC = "fail-with-body\nsilent\nshow-error\n"


@dataclass(frozen=True, slots=True)
class Section:
    heading: str
    script: str


def sections(page: Path) -> list[Section]:
    """The sections of a page that have shell blocks, in order."""
    found = []
    for part in re.split(r"^## ", page.read_text(), flags=re.MULTILINE):
        heading = part.splitlines()[0].strip()
        blocks = re.findall(r"^```sh\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
        if blocks:
            found.append(Section(heading, "".join(blocks)))
    return found


@dataclass
class Reader:
    """Somebody who works through a page: a folder, a home for each section, and the server's address."""

    folder: Path
    host: str
    data: Path
    docker: str = ""

    def __post_init__(self) -> None:
        self.work = self.folder / "work"
        self.work.mkdir(parents=True)
        (self.work / "var").symlink_to(self.data)
        (self.folder / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{self.folder}/graph"\nrunroot = "{self.folder}/run"\n'
        )

    def run_page(self, page: Path) -> list[str]:
        """Run every section. Returns a description of each that failed."""
        failures = []
        for number, section in enumerate(sections(page)):
            command, versions = VERSIONED.get(section.heading, ("", ("",)))
            for version in versions:
                failure = self.run(section, f"{number}{version}", {command: version} if command else {})
                if failure:
                    failures.append(f"--- {section.heading} {version}\n{failure}")
                    if number == 0:
                        return failures  # the others need what it sets
        return failures

    def run(self, section: Section, name: str, names: dict[str, str]) -> str:
        """Run one section; "" or what went wrong. `names`: command → tool that stands for it."""
        home = self.folder / f"home{name}"
        programs = home / "bin"
        programs.mkdir(parents=True)
        (home / ".curlrc").write_text(CURLRC)
        for client in CLIENTS:
            (programs / client).symlink_to(path(client))
        for command, tool in names.items():
            (programs / command).symlink_to(path(tool))
        if "mvn" in names:  # whose plugins are there, as they are with somebody who builds
            copy_maven_repository(home / ".m2" / "repository")
        variables = self.folder / "variables"
        before = f". {variables}\n" if variables.exists() else ""
        kept = " ".join(re.findall(r"^([A-Z]+)=", section.script, re.MULTILINE))
        after = "" if variables.exists() or not kept else f"\ndeclare -p {kept} > {variables}"
        script = section.script
        if ADDRESS in script:
            assert script.count(ADDRESS) == 1
            script = script.replace(ADDRESS, f"REPO={self.host}")
        environment = {
            # Clients behave in another way where CI is set; a reader has it not.
            **{key: value for key, value in os.environ.items() if not key.startswith(("REPOMAN_", "DOCKER_", "CI"))},
            "HOME": str(home),
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "XDG_RUNTIME_DIR": str(home),
            "XDG_CONFIG_HOME": str(home / ".config"),
            "XDG_CACHE_HOME": str(home / ".cache"),
            "JDK_JAVA_OPTIONS": f'"-Duser.home={home}"',  # Java does not go by HOME
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
            **({"DOCKER_HOST": self.docker} if self.docker else {}),
        }
        try:
            answer = subprocess.run(
                ["bash", "-eu", "-o", "pipefail", "-x", "-c", before + script + after],
                cwd=self.work,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=SECTION_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            return f"not finished after {SECTION_SECONDS} s\n{error.stdout!r}"
        return "" if answer.returncode == 0 else f"status {answer.returncode}\n{answer.stdout[-4000:]}"
