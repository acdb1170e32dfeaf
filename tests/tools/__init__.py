"""The real clients and servers that tests and benchmarks drive."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.tools import provision


class ToolMissingError(Exception):
    """A tool that a test needs is not on this machine; the message names the command that brings it."""


def path(name: str) -> Path:
    """Absolute path of a command, such as `crane`, `helm3` or `dockerd`.

    Raises ToolMissingError when it is not here: a missing tool is an error of the machine, not a reason to skip a test.
    """
    tool = provision.tool_of(name)
    if tool is None:
        raise ToolMissingError(f"{name} is not among the tools of tests/tools/provision.py")
    command = name if name in tool.commands else tool.commands[0]
    found = tool.paths(provision.cache_folder()).get(command)
    if found is None:
        raise ToolMissingError(f"{name} is not on this machine; bring it with: {provision.COMMAND} {tool.name}")
    return found


def copy_maven_repository(target: Path) -> None:
    """A local repository for Maven in a new folder, with the plugins of the prepared one: hard links to its files."""
    prepared = path("maven-repository")
    try:
        shutil.copytree(prepared, target, copy_function=os.link)
    except shutil.Error:  # on another file system
        shutil.rmtree(target)
        shutil.copytree(prepared, target)
