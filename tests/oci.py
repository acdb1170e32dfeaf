"""A small OCI client for tests that need to see every status, and to do many things at once."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Iterator
from typing import Any

import httpx

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def pieces(size: int, *, piece: int = 1 << 20) -> Iterator[bytes]:
    """`size` bytes that differ from each other and are the same every time."""
    block = hashlib.shake_256(b"pieces").digest(piece)
    for number in range(size // piece):
        yield number.to_bytes(8, "big") + block[8:]
    if size % piece:
        yield block[: size % piece]


def digest_of_pieces(size: int) -> str:
    hasher = hashlib.sha256()
    for data in pieces(size):
        hasher.update(data)
    return f"sha256:{hasher.hexdigest()}"


class Image:
    """One image name (`ns/repo/path`) on a server, as one client."""

    def __init__(self, client: httpx.Client, name: str) -> None:
        self.client = client
        self.base = f"/v2/{name}"

    def push_blob(self, data: bytes) -> httpx.Response:
        return self.client.post(
            f"{self.base}/blobs/uploads/",
            params={"digest": digest_of(data)},
            content=data,
            headers={"Content-Type": "application/octet-stream"},
        )

    def push_stream(self, digest: str, body: Iterable[bytes], *, length: int | None = None) -> httpx.Response:
        """POST, one streamed PATCH (chunked unless a length is given), PUT."""
        location = self.begin()
        headers = {"Content-Type": "application/octet-stream"}
        if length is not None:
            headers["Content-Length"] = str(length)
        answer = self.client.patch(location, content=body, headers=headers)
        if answer.status_code != 202:
            return answer
        return self.client.put(answer.headers["Location"], params={"digest": digest})

    def begin(self) -> str:
        answer = self.client.post(f"{self.base}/blobs/uploads/")
        assert answer.status_code == 202, answer.text
        return answer.headers["Location"]

    def manifest(self, layers: Iterable[bytes] = (), **more: Any) -> bytes:
        def descriptor(data: bytes, media_type: str) -> dict[str, Any]:
            return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}

        return json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": descriptor(CONFIG, "application/vnd.oci.image.config.v1+json"),
                "layers": [descriptor(layer, "application/vnd.oci.image.layer.v1.tar") for layer in layers],
                **more,
            }
        ).encode()

    def push_manifest(self, document: bytes, reference: str) -> httpx.Response:
        return self.client.put(
            f"{self.base}/manifests/{reference}", content=document, headers={"Content-Type": MANIFEST}
        )

    def push(self, reference: str, *layers: bytes) -> bytes:
        """Config, layers, manifest; all must succeed. Returns the manifest."""
        for data in (CONFIG, *layers):
            answer = self.push_blob(data)
            assert answer.status_code == 201, answer.text
        document = self.manifest(layers, annotations={"nonce": secrets.token_hex(4)})
        answer = self.push_manifest(document, reference)
        assert answer.status_code == 201, answer.text
        return document

    def blob(self, digest: str, **headers: str) -> httpx.Response:
        return self.client.get(f"{self.base}/blobs/{digest}", headers=headers)

    def get(self, reference: str) -> httpx.Response:
        return self.client.get(f"{self.base}/manifests/{reference}")
