"""Tiny real images and artifacts, built in code: for tests, demonstrations and checks of a running server.

The same arguments give the same bytes. Nothing here is read by the handler.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from repoman.core.digest import Digest

from .manifest import DOCKER_IMAGE, EMPTY, OCI_IMAGE, OCI_INDEX

OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@dataclass(frozen=True, slots=True)
class Sample:
    """A manifest with the blobs it names: `blobs` maps digest to bytes, `children` are pushed before it."""

    media_type: str
    manifest: bytes
    digest: str
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    children: tuple[Sample, ...] = ()

    @property
    def body(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.manifest)
        return found

    def descriptor(self, **more: Any) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.manifest), **more}


def descriptor(data: bytes, media_type: str, algorithm: str = "sha256") -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(Digest.of(data, algorithm)), "size": len(data)}


def tar_layer(files: Mapping[str, bytes]) -> tuple[bytes, str]:
    """A gzip-compressed layer and the digest of what it holds uncompressed (its `diff_id`)."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(content), 0o644, 0
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), mtime=0), str(Digest.of(plain.getvalue()))


def image(
    text: str = "hello",
    *,
    layers: int = 1,
    docker: bool = False,
    algorithm: str = "sha256",
    architecture: str = "amd64",
    annotations: Mapping[str, str] | None = None,
    subject: Mapping[str, Any] | None = None,
    with_media_type: bool = True,
) -> Sample:
    """An image whose layers each hold one file with `text`."""
    blobs: dict[str, bytes] = {}
    members: list[dict[str, Any]] = []
    identities: list[str] = []
    for number in range(layers):
        data, identity = tar_layer({f"file-{number}.txt": f"{text} {number}\n".encode()})
        member = descriptor(data, DOCKER_LAYER if docker else OCI_LAYER, algorithm)
        blobs[member["digest"]] = data
        members.append(member)
        identities.append(identity)
    config = _dump(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {"Labels": {"text": text}},
            "rootfs": {"type": "layers", "diff_ids": identities},
        }
    )
    config_member = descriptor(config, DOCKER_CONFIG if docker else OCI_CONFIG, algorithm)
    blobs[config_member["digest"]] = config
    media_type = DOCKER_IMAGE if docker else OCI_IMAGE
    body: dict[str, Any] = {"schemaVersion": 2, "config": config_member, "layers": members}
    if with_media_type:
        body["mediaType"] = media_type
    if annotations:
        body["annotations"] = dict(annotations)
    if subject:
        body["subject"] = dict(subject)
    return _sample(media_type, body, blobs, algorithm=algorithm)


def artifact(
    content: bytes = b"{}",
    *,
    artifact_type: str = "application/vnd.example.signature.v1",
    media_type: str = "application/vnd.example.payload",
    subject: Mapping[str, Any] | None = None,
    annotations: Mapping[str, str] | None = None,
    algorithm: str = "sha256",
) -> Sample:
    """An artifact as ORAS packs it, with the empty config; with `subject` a referrer."""
    empty = descriptor(b"{}", EMPTY, algorithm)
    layer = descriptor(content, media_type, algorithm)
    body: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE,
        "artifactType": artifact_type,
        "config": empty,
        "layers": [layer],
    }
    if subject:
        body["subject"] = dict(subject)
    if annotations:
        body["annotations"] = dict(annotations)
    return _sample(OCI_IMAGE, body, {empty["digest"]: b"{}", layer["digest"]: content}, algorithm=algorithm)


def index(
    children: Sequence[Sample] | None = None, *, algorithm: str = "sha256", subject: Mapping[str, Any] | None = None
) -> Sample:
    """A multi-platform index; without `children`, of two images."""
    if children is None:
        children = [image(algorithm=algorithm), image("hello", architecture="arm64", algorithm=algorithm)]
    members = [
        child.descriptor(platform={"os": "linux", "architecture": architecture})
        for child, architecture in zip(children, ("amd64", "arm64", "s390x", "ppc64le"), strict=False)
    ]
    body: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": members}
    if subject:
        body["subject"] = dict(subject)
    return _sample(OCI_INDEX, body, {}, tuple(children), algorithm=algorithm)


def _sample(
    media_type: str,
    body: Mapping[str, Any],
    blobs: Mapping[str, bytes],
    children: tuple[Sample, ...] = (),
    *,
    algorithm: str,
) -> Sample:
    data = _dump(body)
    return Sample(media_type, data, str(Digest.of(data, algorithm)), dict(blobs), children)


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
