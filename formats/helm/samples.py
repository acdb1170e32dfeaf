"""Tiny real charts and provenance files, built in code: for tests, demonstrations and checks of a running server.

The same arguments give the same bytes. Nothing here is read by the handler.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from typing import Any


def tarball(files: Mapping[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, data in files.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode, member.mtime = len(data), 0o644, 1_580_601_600
            archive.addfile(member, io.BytesIO(data))
    return gzip.compress(raw.getvalue(), mtime=0)


def metadata(name: str, version: str, **fields: Any) -> dict[str, Any]:
    return {"apiVersion": "v2", "name": name, "version": version, "description": "A sample.", **fields}


def chart(
    name: str = "demo",
    version: str = "1.0.0",
    *,
    document: bytes | None = None,
    files: Mapping[str, bytes] | None = None,
    text: str = "hello",
    **fields: Any,
) -> bytes:
    """A chart with one template and one value. `document` is its Chart.yaml, instead of `fields` as JSON (which is YAML)."""
    document = document if document is not None else json.dumps(metadata(name, version, **fields)).encode()
    root = name.replace("/", "-") or "chart"
    template = (
        b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}\ndata:\n  text: {{ .Values.text }}\n"
    )
    content = {
        f"{root}/Chart.yaml": document,
        f"{root}/values.yaml": f"text: {json.dumps(text)}\n".encode(),
        f"{root}/templates/configmap.yaml": template,
    }
    return tarball(content | dict(files or {}))


def provenance(data: bytes, name: str = "demo", version: str = "1.0.0", *, file: str = "", **fields: Any) -> bytes:
    """What `helm package --sign` writes beside the archive `data`, with a signature that nobody made."""
    body = json.dumps(metadata(name, version, **fields))
    file = file or f"{name}-{version}.tgz"
    digest = hashlib.sha256(data).hexdigest()
    return (
        f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{body}\n\n...\nfiles:\n  {file}: sha256:{digest}\n"
        "-----BEGIN PGP SIGNATURE-----\n\nwsBcBAEBCgAQBQJdy0ReCRCEO7+YH8GHYgAA\n=abcd\n-----END PGP SIGNATURE-----\n"
    ).encode()


def index(*entries: Mapping[str, Any], **top: Any) -> bytes:
    """An upstream's index, as JSON, of these entries under their names."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        found.setdefault(str(entry["name"]), []).append(entry)
    return json.dumps({"apiVersion": "v1", "entries": found, "generated": "2024-01-02T03:04:05Z", **top}).encode()


def entry(data: bytes, name: str = "demo", version: str = "1.0.0", *, url: str = "", **fields: Any) -> dict[str, Any]:
    return {
        **metadata(name, version),
        "urls": [url or f"{name}-{version}.tgz"],
        "created": "2024-01-02T03:04:05Z",
        "digest": hashlib.sha256(data).hexdigest(),
        **fields,
    }
