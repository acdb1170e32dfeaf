"""Names and paths that every format shares: repository keys and the path grammar. One place, no exceptions."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote_to_bytes

from .errors import NameInvalid

_PART = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*\Z")
_ESCAPED_AGAIN = re.compile(r"%(?:2f|5c|2e|00)", re.IGNORECASE)
_ESCAPED_SEPARATOR = re.compile(rb"%(?:2f|5c|00)", re.IGNORECASE)
PATH_BYTES = 1024
SEGMENT_BYTES = 255
DEPTH = 64

# Words that are, or are likely to become, the first segment of an address or a format's name.
RESERVED = frozenset(
    """
    alpine api apk apt assets auth blobs bower cargo catalog chef cocoapods composer conan conda cran debian deb docker
    favicon generic gems go golang hackage health healthz helm hex huggingface livez login logout luarocks manifests
    maven metrics npm nuget oauth oci oidc opam opkg ostree p2 pub puppet pypi readyz repoman rpm rubygems search
    signin signup simple static swift terraform token ui uploads v1 v2 v3 vagrant webjars well-known yum
    """.split()
)


def check_key_part(text: str, what: str) -> str:
    """A namespace's or repository's name: 2 to 63 characters of `[a-z0-9]+(?:[._-][a-z0-9]+)*`, not a reserved word."""
    if not 2 <= len(text) <= 63 or _PART.match(text) is None:
        raise NameInvalid(
            f"'{text[:80]}' cannot be a {what} name: use 2 to 63 lower-case letters and digits, "
            "with single '.', '_' or '-' between them"
        )
    if text in RESERVED:
        raise NameInvalid(f"'{text}' is reserved and cannot be a {what} name")
    return text


def decode_target(raw_path: bytes) -> str:
    """The path of a request target, percent-decoded exactly once.

    Raises NameInvalid for what could name two things: an encoded or repeated separator, a dot segment, a backslash, a
    control character, invalid UTF-8, or an escape that would be one after another round of decoding. RFC 3986 §6.2.2.
    """
    if b"%" in raw_path:
        if _ESCAPED_SEPARATOR.search(raw_path):
            raise NameInvalid("the path contains an encoded separator or NUL")
        raw_path = unquote_to_bytes(raw_path)
    try:
        path = raw_path.decode("utf-8", "strict")
    except UnicodeDecodeError:
        raise NameInvalid("the path is not valid UTF-8") from None
    if not path.isprintable() or "\\" in path or "//" in path or "/." in path or "%" in path:
        _explain(path)
    return path


def _explain(path: str) -> None:
    if "\\" in path:
        raise NameInvalid("the path contains a backslash")
    if "//" in path:
        raise NameInvalid("the path contains an empty segment")
    if _ESCAPED_AGAIN.search(path):
        raise NameInvalid("the path is percent-encoded twice")
    if any(segment in (".", "..") for segment in path.split("/")):
        raise NameInvalid("the path contains a '.' or '..' segment")
    for character in path:
        if character != " " and not character.isprintable():
            raise NameInvalid("the path contains a control or invisible character")


def check_path(path: str) -> str:
    """A file's path inside a repository, in NFC: no empty, '.' or '..' segment, at most 1,024 bytes, 255 a segment.

    Look-alikes that change under NFKC stay what they are, except invisible, private and unassigned characters, which
    are refused. Raises NameInvalid.
    """
    if not path:
        raise NameInvalid("the path is empty")
    try:
        size = len(path.encode("utf-8", "strict"))
    except UnicodeEncodeError:
        raise NameInvalid("the path is not valid Unicode") from None
    if size > PATH_BYTES:
        raise NameInvalid(f"the path is longer than {PATH_BYTES} bytes")
    if not path.isascii():
        path = unicodedata.normalize("NFC", path)
        run = 0
        for character in path:
            category = unicodedata.category(character)
            if category in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
                raise NameInvalid(f"the path contains the invisible or unassigned character U+{ord(character):04X}")
            run = run + 1 if category in ("Mn", "Me") else 0
            if run > 4:
                raise NameInvalid("the path stacks too many combining marks on one letter")
    segments = path.split("/")
    if len(segments) > DEPTH:
        raise NameInvalid(f"the path is deeper than {DEPTH} segments")
    for segment in segments:
        if segment in ("", ".", ".."):
            raise NameInvalid("the path contains an empty, '.' or '..' segment")
        if len(segment.encode()) > SEGMENT_BYTES:
            raise NameInvalid(f"a part of the path is longer than {SEGMENT_BYTES} bytes")
        if segment != segment.strip():
            raise NameInvalid("a part of the path starts or ends with white space")
    if "\\" in path or any(ord(character) < 32 or ord(character) == 127 for character in path):
        raise NameInvalid("the path contains a backslash or control character")
    return path


def shown(text: str, most: int = 100) -> str:
    """A stranger's text as it may stand in a sentence of ours."""
    return text[:most].encode("unicode_escape").decode("ascii")
