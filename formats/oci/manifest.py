"""Manifests: read once into a value, and refused where two readers could understand them differently.

OCI image-spec v1.1 `manifest.md`, `image-index.md`, `descriptor.md`; distribution-spec "Pushing Manifests". The
types of configs, layers and artifacts are free-form and never a ground for refusal; a manifest's own must be known.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from repoman.core import strictjson
from repoman.core.digest import Digest
from repoman.core.errors import ContentInvalid, DigestInvalid

OCI_IMAGE = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_IMAGE = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
EMPTY = "application/vnd.oci.empty.v1+json"
IMAGE_TYPES = frozenset({OCI_IMAGE, DOCKER_IMAGE})
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
OCI_TYPES = frozenset({OCI_IMAGE, OCI_INDEX})
# What clients that know no better declare: then the body says what it is.
GENERIC_TYPES = frozenset(
    {"", "application/json", "application/octet-stream", "text/plain", "application/x-www-form-urlencoded"}
)
SCHEMA_1_TYPES = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)
# Layers that clients may leave out of a push (image-spec `layer.md`, Non-Distributable Layers).
FOREIGN_TYPES = frozenset(
    {
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    }
)
MAX_BYTES = 4 * 1024 * 1024  # what containerd, containers/image and oras read at most
MAX_PARTS = 10_000
MAX_SIZE = 2**63 - 1
MEDIA_TYPE_LENGTH = 255


@dataclass(frozen=True, slots=True)
class Descriptor:
    """`size` in bytes. `is_foreign`: the client may keep the bytes elsewhere; nothing here ever fetches them."""

    media_type: str
    digest: str
    size: int
    is_foreign: bool = False


@dataclass(frozen=True, slots=True)
class Manifest:
    """`blobs` are config and layers (of an image), `children` the members of an index: manifests or, with BuildKit's

    registry cache, blobs. `subject` is "" without one. `artifact_type` is what referrers are filtered by.
    """

    media_type: str
    blobs: tuple[Descriptor, ...] = ()
    children: tuple[Descriptor, ...] = ()
    subject: str = ""
    artifact_type: str = ""
    config_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_index(self) -> bool:
        return self.media_type in INDEX_TYPES

    def sizes(self) -> dict[str, int]:
        """Declared size by digest. Raises ContentInvalid where the manifest contradicts itself."""
        found: dict[str, int] = {}
        for part in (*self.blobs, *self.children):
            if found.setdefault(part.digest, part.size) != part.size:
                raise ContentInvalid(f"the manifest gives two sizes for {part.digest}")
        return found


def parse(data: bytes, content_type: str | None) -> Manifest:
    """Raises ContentInvalid, saying which field is wrong. `content_type` is the request's header."""
    declared = (content_type or "").partition(";")[0].strip().lower()
    if declared in SCHEMA_1_TYPES:
        raise ContentInvalid("image manifest schema 1 is not supported; push the image with a current client")
    body = strictjson.load(data)
    if not isinstance(body, dict):
        raise ContentInvalid("the manifest is not a JSON object")
    version = body.get("schemaVersion")
    if version == 1 and "fsLayers" in body:
        raise ContentInvalid("image manifest schema 1 is not supported; push the image with a current client")
    if type(version) is not int or version != 2:
        raise ContentInvalid("schemaVersion must be 2")
    media_type = _media_type(declared, body)
    annotations = _annotations(body.get("annotations"))
    # Docker's types have no subject: the field is then an unknown one, and kept without a meaning.
    subject = _optional_descriptor(body.get("subject"), "subject") if media_type in OCI_TYPES else None
    artifact_type = _optional_text(body.get("artifactType"), "artifactType") if media_type in OCI_TYPES else ""
    blobs: tuple[Descriptor, ...] = ()
    children: tuple[Descriptor, ...] = ()
    config_type = ""
    if media_type in IMAGE_TYPES:
        _refuse(body, media_type, "manifests", "fsLayers")
        config = _descriptor(body.get("config"), "config")
        blobs = (config, *_descriptors(body, "layers"))
        config_type = config.media_type
        artifact_type = artifact_type or config_type
    else:
        _refuse(body, media_type, "config", "layers", "fsLayers")
        children = _descriptors(body, "manifests")
    manifest = Manifest(
        media_type=media_type,
        blobs=blobs,
        children=children,
        subject=subject.digest if subject is not None else "",
        artifact_type=artifact_type,
        config_type=config_type,
        annotations=annotations,
    )
    manifest.sizes()
    return manifest


def _media_type(declared: str, body: Mapping[str, Any]) -> str:
    inner = body.get("mediaType")
    if inner is not None and not isinstance(inner, str):
        raise ContentInvalid("mediaType must be a string")
    if declared in GENERIC_TYPES:
        # helm and old pushers leave mediaType out; then only the members tell, and they must tell clearly.
        found = inner or (OCI_INDEX if "manifests" in body else OCI_IMAGE if "layers" in body else "")
    else:
        if inner and inner != declared:
            raise ContentInvalid(
                f"the manifest's mediaType is '{inner[:100]}' but Content-Type says '{declared[:100]}'"
            )
        found = declared
    if found not in IMAGE_TYPES | INDEX_TYPES:
        raise ContentInvalid(f"'{found[:100]}' is not a supported manifest type")
    return found


def _refuse(body: Mapping[str, Any], media_type: str, *keys: str) -> None:
    """One document must not be an image to one client and an index to the next (CVE-2021-41190)."""
    for key in keys:
        if body.get(key) is not None:
            raise ContentInvalid(f"a manifest of type {media_type} must not have '{key}'")


def _descriptors(body: Mapping[str, Any], key: str) -> tuple[Descriptor, ...]:
    if key not in body:
        raise ContentInvalid(f"'{key}' is missing")
    items = body[key]
    if items is None:  # how Go writes an empty list
        return ()
    if not isinstance(items, list):
        raise ContentInvalid(f"'{key}' must be a list")
    if len(items) > MAX_PARTS:
        raise ContentInvalid(f"'{key}' has more than {MAX_PARTS} members")
    return tuple(_descriptor(item, f"{key}[{position}]") for position, item in enumerate(items))


def _optional_descriptor(value: Any, where: str) -> Descriptor | None:
    return None if value is None else _descriptor(value, where)


def _descriptor(value: Any, where: str) -> Descriptor:
    if not isinstance(value, dict):
        raise ContentInvalid(f"'{where}' must be a descriptor: an object with mediaType, digest and size")
    media_type = _text(value.get("mediaType"), f"{where}.mediaType")
    given = value.get("digest")
    if not isinstance(given, str):
        raise ContentInvalid(f"'{where}.digest' must be a string")
    try:
        digest = Digest.parse(given)
    except DigestInvalid as error:
        raise ContentInvalid(f"'{where}.digest': {error.message}") from None
    size = value.get("size")
    if type(size) is not int or not 0 <= size <= MAX_SIZE:
        raise ContentInvalid(f"'{where}.size' must be an integer from 0 to {MAX_SIZE}")
    urls = value.get("urls")
    if urls is not None and not (isinstance(urls, list) and all(isinstance(url, str) for url in urls)):
        raise ContentInvalid(f"'{where}.urls' must be a list of strings")
    _annotations(value.get("annotations"), f"{where}.annotations")
    _optional_text(value.get("artifactType"), f"{where}.artifactType")
    _check_data(value.get("data"), digest, size, where)
    return Descriptor(media_type, str(digest), size, is_foreign=bool(urls) or media_type in FOREIGN_TYPES)


def _check_data(data: Any, digest: Digest, size: int, where: str) -> None:
    """Embedded content must be what the descriptor says (image-spec `descriptor.md`, `data`)."""
    if data is None:
        return
    try:
        content = base64.b64decode(data, validate=True) if isinstance(data, str) else None
    except (binascii.Error, ValueError):
        content = None
    if content is None:
        raise ContentInvalid(f"'{where}.data' is not base64")
    if len(content) != size or hashlib.new(digest.algorithm, content).hexdigest() != digest.hex:
        raise ContentInvalid(f"'{where}.data' is not the content that the descriptor names")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MEDIA_TYPE_LENGTH or not value.isprintable():
        raise ContentInvalid(f"'{where}' must be a string of 1 to {MEDIA_TYPE_LENGTH} printable characters")
    return value


def _optional_text(value: Any, where: str) -> str:
    return "" if value is None or value == "" else _text(value, where)


def _annotations(value: Any, where: str = "annotations") -> Mapping[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ContentInvalid(f"'{where}' must be an object whose values are strings")
    return value
