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


_HEX = r"(?<![0-9A-Za-z])([0-9a-fA-F]{32,128})(?![0-9A-Za-z])"
_HEX_DIGITS = {"md5": 32, "sha1": 40, "sha224": 56, **HEX_LENGTH}


# Where tools write a digest: `hex  name`, `hex *name`, `SHA1 (name) = hex`; as a word of its own; anywhere.
_PLACES = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (rf"^[ \t]*{_HEX}(?= [ *])|= ?{_HEX}(?=\s*$)", rf"(?<!\S){_HEX}(?!\S)", _HEX)
)


def find_hex(text: str, algorithm: str) -> str:
    """The digest in a small file that says one, in lower case: bare, with the file's name before or after it, or as
    `SHA1 (name) = …`; "" where there is none, or more than one. A name may look like a digest."""
    length = _HEX_DIGITS[algorithm]
    for place in _PLACES:
        words = (word.lower() for match in place.finditer(text[:4096]) for word in match.groups() if word)
        if found := {word for word in words if len(word) == length}:
            return found.pop() if len(found) == 1 else ""
    return ""


def looks_like_digest(reference: str) -> bool:
    """A reference with a colon is a digest, else a tag (OCI distribution-spec, Pulling manifests)."""
    return ":" in reference
