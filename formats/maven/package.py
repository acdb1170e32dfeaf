"""What a POM and a plugin's jar say about themselves. Nothing is fetched, no parent looked up (X1 to X4, X8, U10)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import BinaryIO
from xml.etree.ElementTree import Element

from repoman.core import strictxml, zips
from repoman.core.errors import ContentInvalid
from repoman.core.records import Facts
from repoman.core.strictxml import text

POM_BYTES = 1024 * 1024
PLUGIN_DESCRIPTOR = "META-INF/maven/plugin.xml"
DESCRIPTOR_BYTES = 16 * 1024 * 1024
TEXT_LENGTH = 500
PASSES = 10
VALUE_LENGTH = 2_000  # of a coordinate, and of what stands for a placeholder
_PLACEHOLDER = re.compile(r"\$\{([^${}]{1,200})\}")


def inspect(path: str, file: BinaryIO, size: int) -> Facts:
    if path.endswith(".pom"):
        return pom(file, size)
    return plugin(file, size)


def pom(file: BinaryIO, size: int) -> Facts:
    """`name` is `group:artifact`; a value with a placeholder that the POM itself does not explain is left as it is.

    `metadata`: packaging, and name, description, url, parent where it has them. Raises ContentInvalid.
    """
    if size > POM_BYTES:
        raise ContentInvalid(f"the POM has {size} bytes; at most {POM_BYTES} are read")
    project = strictxml.load(file.read(POM_BYTES + 1), root="project")
    parent = project.find("parent")
    values = _values(project, parent)
    group, artifact, version = (_filled(values.get(name, ""), values) for name in ("groupId", "artifactId", "version"))
    if not (group and artifact and version):
        missing = [n for n, v in (("groupId", group), ("artifactId", artifact), ("version", version)) if not v]
        raise ContentInvalid(f"the POM has no {' and no '.join(missing)}, and none of its parent")
    packaging = _filled(text(project, "packaging", "jar")[:TEXT_LENGTH], values)[:TEXT_LENGTH]
    found: dict[str, object] = {"packaging": packaging or "jar"}
    for name in ("name", "description", "url"):
        value = " ".join(_filled(text(project, name)[:VALUE_LENGTH], values).split())[:TEXT_LENGTH]
        if value:
            found[name] = value
    if parent is not None:
        found["parent"] = ":".join(text(parent, name) for name in ("groupId", "artifactId", "version"))[:TEXT_LENGTH]
    return Facts(f"{group}:{artifact}", version, found)


def has_placeholder(value: str) -> bool:
    return "${" in value


def _values(project: Element, parent: Element | None) -> dict[str, str]:
    """Coordinates by their plain names, and everything that a placeholder may stand for. Nothing long stands for one: a
    short text of many placeholders would otherwise become one of gigabytes."""
    found: dict[str, str] = {}
    properties = project.find("properties")
    for each in properties if properties is not None else ():
        value = (each.text or "").strip()
        if len(value) <= VALUE_LENGTH:
            found[each.tag] = value
    for name in ("groupId", "artifactId", "version"):
        inherited = text(parent, name)[:VALUE_LENGTH] if name != "artifactId" else ""
        own = text(project, name)[:VALUE_LENGTH] or inherited
        found[name] = found[f"project.{name}"] = found[f"pom.{name}"] = own
        if parent is not None:
            found[f"project.parent.{name}"] = text(parent, name)[:VALUE_LENGTH]
    return found


def _filled(value: str, values: Mapping[str, str]) -> str:
    """With the placeholders replaced that the POM explains, at most PASSES deep and VALUE_LENGTH long."""
    for _ in range(PASSES):
        filled = _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), value)
        if filled == value or len(filled) > VALUE_LENGTH:
            break
        value = filled
    return value


def plugin(file: BinaryIO, size: int) -> Facts:
    """A plugin's jar: `metadata` has the prefix and the name that its descriptor gives it. Raises ContentInvalid for jars
    without a descriptor."""
    found = zips.read_one(file, size, PLUGIN_DESCRIPTOR, most=DESCRIPTOR_BYTES)
    if found is None:
        raise ContentInvalid(f"the jar has no {PLUGIN_DESCRIPTOR}")
    descriptor = strictxml.load(found, root="plugin")
    group, artifact = text(descriptor, "groupId"), text(descriptor, "artifactId")
    prefix = text(descriptor, "goalPrefix")[:TEXT_LENGTH]
    if not (group and artifact and prefix):
        raise ContentInvalid(f"{PLUGIN_DESCRIPTOR} lacks groupId, artifactId or goalPrefix")
    return Facts(
        f"{group}:{artifact}",
        text(descriptor, "version"),
        {"prefix": prefix, "name": text(descriptor, "name")[:TEXT_LENGTH] or artifact},
    )
