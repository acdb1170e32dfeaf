"""What is pushed and pulled: blobs and images of given sizes, all different, with their digests known beforehand.

A blob is a short prefix of its own and a body shared by all: cheap to make, nothing a server could recognise.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.bench.client import LoadError, Request, Script, head

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
# What docker's and containerd's resolvers send.
ACCEPT = (
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, "
    "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json"
)
PREFIX_BYTES = 32
MANIFEST_BYTES = 1000
_bodies: dict[int, bytes] = {}

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Blob:
    digest: str
    size: int
    pieces: tuple[bytes | memoryview, ...]


@dataclass(frozen=True, slots=True)
class Image:
    """One layer, one config and a manifest of about 1,000 bytes."""

    tag: str
    layer: Blob
    config: Blob
    manifest: bytes
    digest: str


def digest_of(*pieces: bytes | memoryview) -> str:
    hasher = hashlib.sha256()
    for piece in pieces:
        hasher.update(piece)
    return f"sha256:{hasher.hexdigest()}"


def blob(size: int) -> Blob:
    """A new blob of `size` bytes, at least PREFIX_BYTES."""
    body = _bodies.setdefault(size, os.urandom(size - PREFIX_BYTES))
    prefix = os.urandom(PREFIX_BYTES)
    return Blob(digest_of(prefix, body), size, (prefix, memoryview(body)))


def image(tag: str, layer_bytes: int = 4096, config: Blob | None = None) -> Image:
    """A new image, with a config of its own unless one is given."""
    layer = blob(layer_bytes)
    config = config or _config(layer)
    content = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config.digest, "size": config.size},
        "layers": [{"mediaType": LAYER, "digest": layer.digest, "size": layer.size}],
        "annotations": {"org.opencontainers.image.description": ""},
    }
    missing = MANIFEST_BYTES - len(json.dumps(content))
    content["annotations"] = {"org.opencontainers.image.description": "x" * missing}
    manifest = json.dumps(content).encode()
    return Image(tag, layer, config, manifest, digest_of(manifest))


def _config(layer: Blob) -> Blob:
    text = json.dumps({
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
    }).encode()  # fmt: skip
    return Blob(digest_of(text), len(text), (text,))


def path_of(url: str) -> str:
    """The path and query of a Location, which may be absolute."""
    if "://" in url:
        return "/" + url.split("://", 1)[1].partition("/")[2]
    return url


def push_blob(host: str, name: str, item: Blob, headers: Headers) -> Script:
    """POST opens a session, one PUT brings the bytes: the shortest way that every registry knows."""
    opened = yield Request(head("POST", f"/v2/{name}/blobs/uploads/", host, headers, 0))
    where = path_of(opened.require(202).header(b"location"))
    where += ("&" if "?" in where else "?") + f"digest={item.digest}"
    octets = (*headers, ("Content-Type", "application/octet-stream"))
    done = yield Request(head("PUT", where, host, octets, item.size), item.pieces)
    done.require(201)


def push_image(host: str, name: str, item: Image, headers: Headers) -> Script:
    """What a client sends for one image that is not there: HEAD, POST and PUT for layer and config; the manifest."""
    for part in (item.layer, item.config):
        known = yield Request(head("HEAD", f"/v2/{name}/blobs/{part.digest}", host, headers), (), True)
        known.require(404)
        yield from push_blob(host, name, part, headers)
    typed = (*headers, ("Content-Type", MANIFEST))
    path = f"/v2/{name}/manifests/{item.tag}"
    done = yield Request(head("PUT", path, host, typed, len(item.manifest)), (item.manifest,))
    done.require(201)


def mount(host: str, name: str, source: str, digest: str, headers: Headers) -> Script:
    path = f"/v2/{name}/blobs/uploads/?mount={digest}&from={source}"
    done = yield Request(head("POST", path, host, headers, 0))
    done.require(201)


def head_requests(host: str, paths: Sequence[str], headers: Headers) -> Iterator[Script]:
    """HEAD for one path after the other, for ever."""
    requests = [Request(head("HEAD", path, host, headers), (), True) for path in paths]

    def one(request: Request) -> Script:
        answer = yield request
        if answer.status != 200:
            raise LoadError(f"HEAD answered {answer.status}: {answer.head[:300]!r}")

    while True:
        for request in requests:
            yield one(request)
