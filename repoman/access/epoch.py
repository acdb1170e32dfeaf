"""One number that every change to access raises, so that a remembered "allowed" can be told from a current one.

A process that keeps the outcome of a sign-in or a permission check also keeps the epoch it was made under, and asks
`current()` before using it again. A revocation is thereby effective everywhere as soon as its transaction commits.
"""

from __future__ import annotations

from django.db import connection
from django.db.models import F

from .models import AccessEpoch

ROW = 1


def current() -> int:
    """The epoch as committed; one point query. 0 on a database that was never prepared."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT value FROM access_accessepoch WHERE id = %s", [ROW])
        row = cursor.fetchone()
    return int(row[0]) if row else 0


def bump() -> None:
    """Raise the epoch; to be called inside the transaction of every change to who may do what.

    That is: a revoked token, a disabled or deleted principal, a password, a grant, a membership, a repository's
    anonymous reading or state. It takes the row's lock until the commit, so call it late in the transaction.
    """
    if not AccessEpoch.objects.filter(pk=ROW).update(value=F("value") + 1):
        AccessEpoch.objects.bulk_create([AccessEpoch(pk=ROW, value=1)], ignore_conflicts=True)
        AccessEpoch.objects.filter(pk=ROW).update(value=F("value") + 1)


def ensure() -> None:
    """Make the row if it is missing (at every start)."""
    AccessEpoch.objects.bulk_create([AccessEpoch(pk=ROW, value=1)], ignore_conflicts=True)
