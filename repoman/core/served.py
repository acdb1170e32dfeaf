"""Headers under which other people's files and our own pages are sent, so that neither acts on this origin.

A page or drawing among the files must not run with the reader's session: everything is sandboxed and typed strictly.
"""

from __future__ import annotations

from urllib.parse import quote

from .records import Rendered

SANDBOXED: tuple[tuple[str, str], ...] = (
    ("X-Content-Type-Options", "nosniff"),
    (
        "Content-Security-Policy",
        "sandbox; default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)
# Of pages of ours whose links must work, so no sandbox; nothing else may load or run.
PAGE: tuple[tuple[str, str], ...] = (
    ("X-Content-Type-Options", "nosniff"),
    (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)
# What a caller may see depends on the caller: keep, but ask again, and share with nobody.
REVALIDATE = ("Cache-Control", "private, no-cache")
FOR_EVER = ("Cache-Control", "private, max-age=31536000, immutable")

# Sub-delimiters that mean nothing in a path, kept readable in links; a colon is escaped, because in the first segment
# of a relative link it would end a scheme.
_SAFE = "-._~!$&'()*+,;=@"


def freshness(document: Rendered) -> list[tuple[str, str]]:
    """Of a rendered document: to be asked for again each time, unless it says otherwise itself (what is stale)."""
    is_told = any(name.lower() == "cache-control" for name, _ in document.headers)
    return [] if is_told else [REVALIDATE]


def link(path: str) -> str:
    """A path for use in an address: percent-encoded segment by segment."""
    return "/".join(quote(segment, safe=_SAFE) for segment in path.split("/"))


def attachment(path: str) -> str:
    """Content-Disposition for saving under the file's own name (RFC 6266, RFC 8187)."""
    name = path.rsplit("/", 1)[-1]
    plain = "".join(character if 32 <= ord(character) < 127 and character not in '"\\%' else "_" for character in name)
    if plain == name:
        return f'attachment; filename="{plain}"'
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
