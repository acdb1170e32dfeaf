"""Tiny real artifacts, built in code: for tests, demonstrations and checks of a running server.

The same arguments give the same bytes. Nothing here is read by the handler.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MOMENT = (2020, 2, 2, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Coordinates:
    group: str = "org.example"
    artifact: str = "demo"
    version: str = "1.0"

    def folder(self, version: str = "") -> str:
        return f"{self.group.replace('.', '/')}/{self.artifact}/{version or self.version}"

    def path(self, extension: str = "jar", classifier: str = "", build: str = "") -> str:
        """Where a file lies in a repository. `build`: of a snapshot, `yyyyMMdd.HHmmss-number`."""
        version = f"{self.version.removesuffix('SNAPSHOT')}{build}" if build else self.version
        tail = f"-{classifier}.{extension}" if classifier else f".{extension}"
        return f"{self.folder()}/{self.artifact}-{version}{tail}"

    @property
    def metadata(self) -> str:
        return f"{self.group.replace('.', '/')}/{self.artifact}/maven-metadata.xml"

    @property
    def package(self) -> str:
        return f"{self.group}:{self.artifact}"


def pom(
    at: Coordinates,
    *,
    packaging: str = "jar",
    dependencies: Sequence[Coordinates] = (),
    parent: Coordinates | None = None,
    inherits: Sequence[str] = (),
    more: str = "",
) -> bytes:
    """A POM; `inherits` names what it leaves to its parent (groupId, version)."""
    own = {"groupId": at.group, "artifactId": at.artifact, "version": at.version}
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<project xmlns="http://maven.apache.org/POM/4.0.0">']
    lines.append("  <modelVersion>4.0.0</modelVersion>")
    if parent is not None:
        lines.append(f"  <parent>{_coordinates(parent)}</parent>")
    lines += [f"  <{name}>{value}</{name}>" for name, value in own.items() if name not in inherits]
    lines.append(f"  <packaging>{packaging}</packaging>")
    if dependencies:
        inner = "".join(f"<dependency>{_coordinates(each)}</dependency>" for each in dependencies)
        lines.append(f"  <dependencies>{inner}</dependencies>")
    return "\n".join([*lines, more, "</project>", ""]).encode()


def _coordinates(at: Coordinates) -> str:
    return f"<groupId>{at.group}</groupId><artifactId>{at.artifact}</artifactId><version>{at.version}</version>"


def jar(text: str = "hello", *, files: Mapping[str, bytes] | None = None) -> bytes:
    """An archive with one resource that holds `text`, and `files`."""
    content = {
        "META-INF/MANIFEST.MF": b"Manifest-Version: 1.0\r\n\r\n",
        "demo.txt": text.encode(),
        **(files or {}),
    }
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in content.items():
            archive.writestr(zipfile.ZipInfo(path, MOMENT), data, zipfile.ZIP_DEFLATED)
    return target.getvalue()


def plugin_jar(at: Coordinates, prefix: str, *, name: str = "A plugin") -> bytes:
    descriptor = (
        f"<plugin><name>{name}</name>{_coordinates(at)}<goalPrefix>{prefix}</goalPrefix><mojos/></plugin>"
    ).encode()
    return jar(files={"META-INF/maven/plugin.xml": descriptor})


def metadata(at: Coordinates, versions: Sequence[str]) -> bytes:
    """What a client uploads after a deploy."""
    listed = "".join(f"<version>{version}</version>" for version in versions)
    return (
        f"<metadata><groupId>{at.group}</groupId><artifactId>{at.artifact}</artifactId><versioning>"
        f"<release>{versions[-1]}</release><versions>{listed}</versions><lastUpdated>20240102030405</lastUpdated>"
        "</versioning></metadata>"
    ).encode()


def snapshot_metadata(
    at: Coordinates, build: str, kinds: Sequence[tuple[str, str]] = (("", "jar"), ("", "pom"))
) -> bytes:
    """What a client uploads after it has deployed a snapshot's build; `kinds` are (classifier, extension)."""
    timestamp, _, number = build.partition("-")
    updated = timestamp.replace(".", "")
    value = f"{at.version.removesuffix('SNAPSHOT')}{build}"
    items = "".join(
        "<snapshotVersion>"
        + (f"<classifier>{classifier}</classifier>" if classifier else "")
        + f"<extension>{extension}</extension><value>{value}</value><updated>{updated}</updated></snapshotVersion>"
        for classifier, extension in kinds
    )
    return (
        f"<metadata modelVersion='1.1.0'>{_coordinates(at)}<versioning><snapshot><timestamp>{timestamp}</timestamp>"
        f"<buildNumber>{number}</buildNumber></snapshot><lastUpdated>{updated}</lastUpdated>"
        f"<snapshotVersions>{items}</snapshotVersions></versioning></metadata>"
    ).encode()
