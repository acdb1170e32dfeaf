"""Tiny real wheels and sdists, built in code: for tests, demonstrations and checks of a running server.

The same arguments give the same bytes. Nothing here is read by the handler.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

MOMENT = (2020, 2, 2, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Sample:
    """A file as a client would upload it; `metadata` is what its METADATA or PKG-INFO holds."""

    filename: str
    data: bytes
    metadata: bytes
    name: str
    version: str
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def kind(self) -> str:
        return "bdist_wheel" if self.filename.endswith(".whl") else "sdist"


def metadata(
    name: str,
    version: str,
    *,
    metadata_version: str = "2.4",
    requires_python: str = ">=3.8",
    requires: Sequence[str] = (),
    summary: str = "A sample.",
    description: str = "# A sample\n",
    more: str = "",
) -> bytes:
    lines = [f"Metadata-Version: {metadata_version}", f"Name: {name}", f"Version: {version}", f"Summary: {summary}"]
    if requires_python:
        lines.append(f"Requires-Python: {requires_python}")
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    if more:
        lines.append(more)
    lines += ["Description-Content-Type: text/markdown", "", description]
    return "\n".join(lines).encode()


def stem(name: str, version: str) -> str:
    return f"{name.lower().replace('-', '_').replace('.', '_')}-{version}"


def wheel(
    name: str = "demo-package",
    version: str = "1.0",
    *,
    tag: str = "py3-none-any",
    text: str = "hello",
    filename: str = "",
    document: bytes | None = None,
    record: bytes | None = None,
    files: Mapping[str, bytes] | None = None,
    left_out: Sequence[str] = (),
    requires: Sequence[str] = (),
    requires_python: str = ">=3.8",
) -> Sample:
    """A wheel with one module that holds `text`. `files` are added, `left_out` names files of its own to omit."""
    document = (
        document
        if document is not None
        else metadata(name, version, requires=requires, requires_python=requires_python)
    )
    base = stem(name, version)
    module = base.partition("-")[0]
    folder = f"{base}.dist-info"
    content: dict[str, bytes] = {
        f"{module}/__init__.py": f"TEXT = {text!r}\n".encode(),
        f"{folder}/METADATA": document,
        f"{folder}/WHEEL": f"Wheel-Version: 1.0\nGenerator: sample\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
        **(files or {}),
    }
    if record is None:
        rows = [f"{path},sha256={_urlsafe(data)},{len(data)}" for path, data in content.items()]
        record = "\n".join([*rows, f"{folder}/RECORD,,", ""]).encode()
    content[f"{folder}/RECORD"] = record
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in content.items():
            if path.removeprefix(f"{folder}/") not in left_out:
                archive.writestr(zipfile.ZipInfo(path, MOMENT), data, zipfile.ZIP_DEFLATED)
    return Sample(filename or f"{base}-{tag}.whl", target.getvalue(), document, name, version)


def sdist(
    name: str = "demo-package",
    version: str = "1.0",
    *,
    text: str = "hello",
    filename: str = "",
    document: bytes | None = None,
    files: Mapping[str, bytes] | None = None,
    requires: Sequence[str] = (),
    requires_python: str = ">=3.8",
) -> Sample:
    """An sdist that an installer can only download: it names a build back end that is its own."""
    document = (
        document
        if document is not None
        else metadata(name, version, requires=requires, requires_python=requires_python)
    )
    base = stem(name, version)
    content = {
        f"{base}/PKG-INFO": document,
        f"{base}/pyproject.toml": b'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        f"{base}/{base.partition('-')[0]}.py": f"TEXT = {text!r}\n".encode(),
        **(files or {}),
    }
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, data in content.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode, member.mtime = len(data), 0o644, 1_580_601_600
            archive.addfile(member, io.BytesIO(data))
    return Sample(filename or f"{base}.tar.gz", gzip.compress(plain.getvalue(), mtime=0), document, name, version)


def _urlsafe(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
