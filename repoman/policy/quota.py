"""What a namespace may hold. One conditional UPDATE decides, so that no set of parallel pushes exceeds the limit."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import connection

from repoman.blobs.models import Blob
from repoman.catalog.models import Holding, Namespace
from repoman.core.errors import QuotaExceeded
from repoman.db.prepared import Prepared

_usage = Prepared(
    lambda namespace_id: Namespace.objects.filter(pk=namespace_id).values_list(
        "quota_bytes", "used_bytes", "reserved_bytes"
    )
)
_held = Prepared(
    lambda namespace_id, digest: Holding.objects.filter(namespace_id=namespace_id, blob__digest=digest).values_list(
        "pk"
    )
)


def is_held(namespace_id: int, sha256: str) -> bool:
    """Whether the namespace holds these bytes already, so that storing them again costs it nothing."""
    return _held.first(namespace_id, sha256) is not None


def remaining_bytes(namespace_id: int) -> int | None:
    """What the quota still allows; None without one; never negative. For refusing early: `charge` has the last word."""
    row = _usage.first(namespace_id)
    if row is None or row[0] is None:
        return None
    return max(0, row[0] - row[1] - row[2])


def refuse(namespace_id: int, needed: int) -> QuotaExceeded:
    """The error that says how full the namespace is. To be raised by the caller."""
    name, quota, used, reserved = Namespace.objects.values_list(
        "name", "quota_bytes", "used_bytes", "reserved_bytes"
    ).get(pk=namespace_id)
    return QuotaExceeded(
        f"namespace '{name}' uses {used + reserved} of {quota} bytes; {needed} more do not fit. "
        "Remove content (with purge, or wait for the trash to empty) or ask an administrator for a larger quota",
        namespace=name,
        used_bytes=used + reserved,
        quota_bytes=quota,
        needed_bytes=needed,
    )


def charge(namespace_id: int, *, used: int = 0, reserved: int = 0) -> None:
    """Add to what the namespace uses and reserves; negative gives back. Takes the namespace's row lock.

    Must run inside a transaction. Raises QuotaExceeded if the sum grows past the limit; giving back always works.
    """
    if used == 0 and reserved == 0:
        return
    growth = used + reserved
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE catalog_namespace SET used_bytes = used_bytes + %s, reserved_bytes = reserved_bytes + %s"
            " WHERE id = %s AND (%s <= 0 OR quota_bytes IS NULL OR used_bytes + reserved_bytes + %s <= quota_bytes)",
            [used, reserved, namespace_id, growth, growth],
        )
        if cursor.rowcount == 1:
            return
    raise refuse(namespace_id, growth)


def hold(namespace_id: int, blobs: Iterable[Blob], *, release_reserved: int = 0) -> None:
    """Holdings for the blobs, and the quota charge for those the namespace did not hold yet. Raises QuotaExceeded."""
    wanted = {blob.pk: blob for blob in blobs}
    growth = 0
    for blob_id in sorted(wanted):
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO catalog_holding (namespace_id, blob_id) VALUES (%s, %s) ON CONFLICT DO NOTHING",
                [namespace_id, blob_id],
            )
            if cursor.rowcount == 1:
                growth += wanted[blob_id].size
    charge(namespace_id, used=growth, reserved=-release_reserved)
