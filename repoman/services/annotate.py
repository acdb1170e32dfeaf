"""Notes on versions that change what clients make of them and not what they are: deprecation and yanking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repoman.catalog import writes
from repoman.catalog.models import Package, Repository, Version
from repoman.core import clock
from repoman.core.actor import Actor
from repoman.core.errors import BadRequest, MethodNotAllowed, VersionNotFound
from repoman.core.format import handler_for
from repoman.events.record import record

from .transactions import write

# What a format may offer, the column that keeps it, and its type.
COLUMNS: Mapping[str, tuple[str, type]] = {
    "deprecated": ("deprecated", str),
    "yanked": ("is_yanked", bool),
    "yanked_reason": ("yanked_reason", str),
}
LONGEST_TEXT = 4096


def _checked(repository: Repository, changes: Mapping[str, object]) -> dict[str, object]:
    """Column → value. Raises MethodNotAllowed for what the format does not have, BadRequest for a wrong type."""
    offered = handler_for(repository.format).annotations
    columns: dict[str, object] = {}
    for name, value in changes.items():
        if name not in offered:
            raise MethodNotAllowed(
                f"versions of {repository.format} repositories have no '{name}'"
                + (f" (they have {', '.join(sorted(offered))})" if offered else ""),
                allow=["GET", "HEAD", "DELETE"],
            )
        column, kind = COLUMNS[name]
        if kind is str and value is None:
            value = ""
        if not isinstance(value, kind):
            raise BadRequest(f"'{name}' must be {'a text' if kind is str else 'true or false'}", field=name)
        if isinstance(value, str) and (len(value) > LONGEST_TEXT or "\0" in value):
            raise BadRequest(f"'{name}' has at most {LONGEST_TEXT} characters and no NUL", field=name)
        columns[column] = value
    if columns.get("is_yanked") is False:
        columns.setdefault("yanked_reason", "")
    return columns


def annotate(
    repository: Repository, actor: Actor, package_name: str, versions: Mapping[str, Mapping[str, object]]
) -> int | None:
    """Change the notes of several versions of a package under one revision; what stands already changes nothing.

    Returns the revision, None where nothing changed. Raises VersionNotFound, MethodNotAllowed, BadRequest.
    """
    wanted = {name: _checked(repository, changes) for name, changes in versions.items()}

    def block() -> int | None:
        current = writes.lock_repository(repository)
        package = Package.objects.filter(repository=repository, name=package_name).first()
        rows = {
            row.name: row
            for row in Version.objects.filter(package=package, name__in=list(wanted), removed_revision=None)
        }
        missing = sorted(set(wanted) - set(rows))
        if package is None or missing:
            raise VersionNotFound(f"{repository.key}/{package_name} has no version '{(missing or [''])[0]}'")
        revision: int | None = None
        moment = clock.now()
        for name, columns in wanted.items():
            row = rows[name]
            changed = {column: value for column, value in columns.items() if getattr(row, column) != value}
            if not changed:
                continue
            if revision is None:
                revision = writes.next_revision(current)
                writes.stamp_package(package.pk, revision, moment)
            Version.objects.filter(pk=row.pk).update(**changed)
            notes: dict[str, Any] = {column: _shown(value) for column, value in changed.items()}
            record(
                "version:annotate",
                actor=actor,
                repository=current,
                revision=revision,
                subject=f"{package_name} {name}",
                **notes,
            )
        return revision

    return write(block)


def _shown(value: object) -> str:
    return str(value)[:500]
