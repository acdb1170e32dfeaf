"""The checksums a client declares with an upload, in every header that clients use for it.

`X-Checksum-<algorithm>` and `X-Checksum` (hexadecimal; the latter is how the `jf` client sends SHA-256), `Repr-Digest`
and `Content-Digest` (RFC 9530), `Digest` (RFC 3230), `Content-MD5`. Unknown algorithms say nothing; a known one that is
malformed is an error, never ignored.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping

from repoman.core.errors import BadRequest, Conflict
from repoman.core.wire import Headers

HEX_LENGTH = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
_BY_LENGTH = {length: algorithm for algorithm, length in HEX_LENGTH.items()}
_NAMES = {"md5": "md5", "sha": "sha1", "sha-1": "sha1", "sha-256": "sha256", "sha-512": "sha512"}
_HEX = re.compile(r"[0-9a-fA-F]+\Z")
_MEMBER = re.compile(r"\s*([a-z*][a-z0-9_.*-]*)\s*=\s*:([A-Za-z0-9+/=]*):\s*(?:;.*)?\Z")


class ChecksumMalformed(BadRequest):
    """A checksum header cannot be read."""

    code = "checksum_malformed"


class ChecksumMismatch(Conflict):
    """The content does not have the checksum that was declared. detail: algorithm, expected, actual."""

    code = "checksum_mismatch"


def declared(headers: Headers) -> dict[str, str]:
    """Lower-case hexadecimal by algorithm (md5, sha1, sha256, sha512). Raises ChecksumMalformed."""
    found: dict[str, str] = {}
    for algorithm, value in _all(headers):
        if found.setdefault(algorithm, value) != value:
            raise ChecksumMalformed(f"two headers declare different values for {algorithm}")
    return found


def compare(expected: Mapping[str, str], actual: Mapping[str, str]) -> None:
    """Raises ChecksumMismatch for the first algorithm known on both sides whose values differ."""
    for algorithm, value in expected.items():
        if algorithm in actual and actual[algorithm] != value:
            raise ChecksumMismatch(
                f"the content does not have the declared {algorithm}; nothing was stored",
                algorithm=algorithm,
                expected=value,
                actual=actual[algorithm],
            )


def repr_digest(sha256: str) -> str:
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"


def _all(headers: Headers) -> Iterator[tuple[str, str]]:
    for algorithm in HEX_LENGTH:
        for given in headers.all(f"x-checksum-{algorithm}"):
            yield algorithm, _hex(algorithm, given.strip())
    for given in headers.all("x-checksum"):
        plain = given.strip()
        guessed = _BY_LENGTH.get(len(plain))
        if guessed is None:
            raise ChecksumMalformed("X-Checksum is not a hexadecimal checksum of a known length")
        yield guessed, _hex(guessed, plain)
    for header in ("repr-digest", "content-digest"):
        for given in headers.all(header):
            yield from _structured(header, given)
    for given in headers.all("digest"):
        for member in given.split(","):
            name, separator, value = member.strip().partition("=")
            if separator and name.lower() in _NAMES:
                yield _NAMES[name.lower()], _decode(_NAMES[name.lower()], value)
    for given in headers.all("content-md5"):
        yield "md5", _decode("md5", given.strip())


def _structured(header: str, given: str) -> Iterator[tuple[str, str]]:
    for member in given.split(","):
        match = _MEMBER.match(member)
        if match is None:
            name = member.strip().partition("=")[0].strip().lower()
            if name in _NAMES or not name:
                raise ChecksumMalformed(f"{header} is malformed; use for example sha-256=:<base64>:")
        elif match[1] in _NAMES:
            yield _NAMES[match[1]], _decode(_NAMES[match[1]], match[2])


def _hex(algorithm: str, given: str) -> str:
    if len(given) != HEX_LENGTH[algorithm] or _HEX.match(given) is None:
        raise ChecksumMalformed(f"a {algorithm} checksum has {HEX_LENGTH[algorithm]} hexadecimal characters")
    return given.lower()


def _decode(algorithm: str, given: str) -> str:
    try:
        value = base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError):
        raise ChecksumMalformed(f"the {algorithm} checksum is not base64") from None
    if len(value) * 2 != HEX_LENGTH[algorithm]:
        raise ChecksumMalformed(f"a {algorithm} checksum has {HEX_LENGTH[algorithm] // 2} bytes")
    return value.hex()
