"""Digests: parsed once at the edge into a value, so that nothing inward validates again.

OCI image-spec `descriptor.md`, Digests: `algorithm:encoded`; sha256 has 64 and sha512 128 lower-case hex characters.
sha256 is the identity of bytes; the other algorithms only name them for clients that do.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from .errors import DigestInvalid

HEX_LENGTH = {"sha256": 64, "sha512": 128}
_PATTERN = re.compile(r"(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z")


@dataclass(frozen=True, slots=True)
class Digest:
    """`algorithm` is a key of HEX_LENGTH, `hex` lower-case of exactly that length. str() gives `algorithm:hex`."""

    algorithm: str
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    @property
    def is_identity(self) -> bool:
        return self.algorithm == "sha256"

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Raises DigestInvalid for anything but a supported algorithm with lower-case hex of its length."""
        if _PATTERN.match(text) is None:
            shown = text[:80]
            raise DigestInvalid(f"'{shown}' is not a supported digest; use sha256:<64 hex> or sha512:<128 hex>")
        algorithm, _, encoded = text.partition(":")
        return cls(algorithm, encoded)

    @classmethod
    def sha256(cls, hex_digest: str) -> Digest:
        return cls("sha256", hex_digest)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        return cls(algorithm, hashlib.new(algorithm, data).hexdigest())


_HEX = re.compile(r"(?<![0-9A-Za-z])[0-9a-fA-F]{32,128}(?![0-9A-Za-z])")
_HEX_DIGITS = {"md5": 32, "sha1": 40, "sha224": 56, **HEX_LENGTH}


def find_hex(text: str, algorithm: str) -> str:
    """The digest in a small file that says one, in lower case: bare, with the file's name before or after it, or as
    `SHA1 (name) = …`; "" where there is none, or more than one."""
    found = {match.lower() for match in _HEX.findall(text[:4096]) if len(match) == _HEX_DIGITS[algorithm]}
    return found.pop() if len(found) == 1 else ""


def looks_like_digest(reference: str) -> bool:
    """A reference with a colon is a digest, else a tag (OCI distribution-spec, Pulling manifests)."""
    return ":" in reference
