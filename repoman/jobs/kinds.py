"""Which jobs there are, and what each may be asked. The code that does them is found by `workers/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from repoman.core.errors import BadRequest


@dataclass(frozen=True, slots=True)
class Kind:
    """`arguments` maps a name to its type (int: whole and not negative). `is_public`: the API may request it."""

    arguments: Mapping[str, type] = field(default_factory=dict)
    is_public: bool = False


KINDS: Mapping[str, Kind] = {
    "collect": Kind({"grace_seconds": int, "force": bool, "objects": bool, "dry_run": bool}, is_public=True),
    "purge": Kind({"window_seconds": int}, is_public=True),
    "fsck": Kind({"rehash": bool, "repair": bool}, is_public=True),
    "expire_uploads": Kind({"ttl_seconds": int}, is_public=True),
    "delete_repository": Kind({"repository_id": int}),
    "delete_leftovers": Kind(),
}


def validate(kind: str, arguments: Mapping[str, object], *, public: bool = False) -> None:
    """Raises BadRequest for an unknown kind, or an argument that is unknown or of another type.

    `public`: only kinds that people may request count as known.
    """
    found = KINDS.get(kind)
    if found is None or (public and not found.is_public):
        known = ", ".join(name for name, each in KINDS.items() if each.is_public or not public)
        raise BadRequest(f"'{str(kind)[:40]}' is not a kind of job; the kinds are {known}")
    for name, value in arguments.items():
        expected = found.arguments.get(name)
        if expected is None:
            allowed = ", ".join(found.arguments) or "none"
            raise BadRequest(f"'{str(name)[:40]}' is not an argument of {kind} (allowed: {allowed})")
        if expected is bool and not isinstance(value, bool):
            raise BadRequest(f"argument '{name}' of {kind} must be true or false")
        if expected is int and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53):
            raise BadRequest(f"argument '{name}' of {kind} must be a whole number of at least 0")
