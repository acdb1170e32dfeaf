"""Paths of files and folders."""

from __future__ import annotations

from repoman.core.errors import NameInvalid
from repoman.core.names import check_path
from repoman.core.refs import FileRef


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
