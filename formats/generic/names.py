"""Paths of files and folders, and the names that go into headers."""

from __future__ import annotations

from urllib.parse import quote

from repoman.core.errors import NameInvalid
from repoman.core.names import check_path
from repoman.core.refs import FileRef

# Sub-delimiters that mean nothing in a path, kept readable in links; a colon is escaped, because in the first segment
# of a relative link it would end a scheme.
_SAFE = "-._~!$&'()*+,;=@"


def is_folder(path: str) -> bool:
    return path == "" or path.endswith("/")


def check_file(path: str) -> str:
    """The path of a file as rows hold it, in NFC. Raises NameInvalid."""
    if is_folder(path):
        raise NameInvalid("a file needs a name: the path is empty or ends with '/'")
    return check_path(path)


def check_folder(path: str) -> str:
    """A folder's prefix: "" for the root, else `a/b/`. Raises NameInvalid."""
    return f"{check_path(path[:-1])}/" if path else ""


def file_ref(path: str) -> FileRef:
    """Where a file is kept: every file is a package of its own, named as its path."""
    return FileRef(path, path)


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
