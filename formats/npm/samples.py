"""Tiny real packages and publish documents for tests and demonstrations. Nothing here is read by the handler."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from typing import Any


def tarball(manifest: Mapping[str, Any], files: Mapping[str, bytes] | None = None, *, root: str = "package") -> bytes:
    """A `.tgz` as `npm pack` makes it: one folder, package.json first, fixed times."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in {"package.json": json.dumps(manifest).encode(), **(files or {})}.items():
            member = tarfile.TarInfo(f"{root}/{name}")
            member.size, member.mtime, member.mode = len(data), 499162500, 0o644
            archive.addfile(member, io.BytesIO(data))
    return gzip.compress(raw.getvalue(), mtime=0)


def manifest(name: str, version: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "version": version, "description": f"{name} for tests", "main": "index.js", **fields}


def package(name: str, version: str, **fields: Any) -> bytes:
    """A whole package that exports its own name and version."""
    source = f"module.exports = {json.dumps(f'{name}@{version}')}\n".encode()
    return tarball(manifest(name, version, **fields), {"index.js": source, "README.md": b"# A sample\n"})


def document(
    name: str,
    version: str,
    data: bytes,
    *,
    tag: str | None = "latest",
    fields: Mapping[str, Any] | None = None,
    dist: Mapping[str, Any] | None = None,
    attachments: Mapping[str, Any] | None = None,
    **top: Any,
) -> dict[str, Any]:
    """The body of `PUT /{name}`, as libnpmpublish builds it."""
    filename = f"{name}-{version}.tgz"
    said = {
        "integrity": "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode(),
        "shasum": hashlib.sha1(data, usedforsecurity=False).hexdigest(),
        "tarball": f"http://registry.example/{name}/-/{filename}",
        **(dist or {}),
    }
    version_manifest = {
        **manifest(name, version),
        **(fields or {}),
        "_id": f"{name}@{version}",
        "_nodeVersion": "20.0.0",
        "_npmVersion": "10.9.9",
        "readme": "# A sample\n",
        "readmeFilename": "README.md",
        "dist": said,
    }
    attachment = {
        "content_type": "application/octet-stream",
        "data": base64.b64encode(data).decode(),
        "length": len(data),
    }
    return {
        "_id": name,
        "name": name,
        "description": f"{name} for tests",
        "dist-tags": {} if tag is None else {tag: version},
        "versions": {version: version_manifest},
        "access": None,
        "_attachments": {filename: attachment, **(attachments or {})},
        **top,
    }


def publication(name: str, version: str, *, tag: str | None = "latest", **fields: Any) -> tuple[dict[str, Any], bytes]:
    """A publish document and the tarball in it; `fields` go into both manifests."""
    data = package(name, version, **fields)
    return document(name, version, data, tag=tag, fields=fields), data


def provenance(name: str, version: str, data: bytes, *, subject: str = "", sha512: str = "") -> dict[str, Any]:
    """The attachment with a provenance bundle: plain text, not base64. Its signature is made up."""
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {
                "name": subject or f"pkg:npm/{name.replace('@', '%40')}@{version}",
                "digest": {"sha512": sha512 or hashlib.sha512(data).hexdigest()},
            }
        ],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {},
    }
    bundle = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"certificate": {"rawBytes": ""}},
        "dsseEnvelope": {
            "payload": base64.b64encode(json.dumps(statement).encode()).decode(),
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [{"keyid": "", "sig": ""}],
        },
    }
    text = json.dumps(bundle)
    return {f"{name}-{version}.sigstore": {"content_type": bundle["mediaType"], "data": text, "length": len(text)}}
