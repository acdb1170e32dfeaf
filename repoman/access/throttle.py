"""Wrong passwords are counted in the database, per account and per address, and slow the next attempts down.

Past the limit each further failure doubles the pause, from one second to five minutes. A right password for an
account that is under attack from elsewhere still works: an address without failures of its own is let through.
Counts fade as a whole after a quarter of an hour; a success does not clear them, or an attacker could sign in to an
account of his own between guesses. Names are kept as hashes: people type passwords into the wrong field.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import math

from django.conf import settings
from django.db import connection, transaction

from repoman.core import clock
from repoman.core.errors import TooManyRequests

from .models import SignInThrottle

WINDOW_SECONDS = 900
LONGEST_PAUSE_SECONDS = 300
ADDRESS_FACTOR = 10


def _account_key(username: str) -> str:
    return "account:" + hashlib.sha256(username.encode("utf-8", "replace")).hexdigest()


def _address_key(address: str) -> str:
    """An IPv6 client owns a whole /64, so that counts as one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "address:" + address[:100]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return f"address:{parsed.ipv4_mapped}"
        return f"address:{ipaddress.ip_network((parsed, 64), strict=False)}"
    return f"address:{parsed}"


def check(username: str, address: str) -> None:
    """Raises TooManyRequests where this attempt has to wait; one query."""
    now = clock.now()
    account_key, address_key = _account_key(username), _address_key(address)
    rows = {row.key: row for row in SignInThrottle.objects.filter(key__in=[account_key, address_key])}
    account, peer = rows.get(account_key), rows.get(address_key)
    if peer is None or not _counts(peer, now):
        return
    until = [row.blocked_until for row in (account, peer) if row is not None and row.blocked_until is not None]
    if until and max(until) > now:
        seconds = max(1, math.ceil((max(until) - now).total_seconds()))
        raise TooManyRequests(f"too many wrong passwords; try again in {seconds} s", retry_after_seconds=seconds)


def _counts(row: SignInThrottle, now: datetime.datetime) -> bool:
    blocked = row.blocked_until is not None and row.blocked_until > now
    return blocked or row.first_at > now - datetime.timedelta(seconds=WINDOW_SECONDS)


def failed(username: str, address: str) -> None:
    """Count a wrong password. Its own short transaction."""
    limit = int(settings.CONFIGURATION["REPOMAN_LOGIN_FAILURES"])
    now = clock.now()
    with transaction.atomic(durable=True):
        # Always in this order, so that two failures cannot wait for each other.
        _count(_account_key(username), limit, now)
        _count(_address_key(address), limit * ADDRESS_FACTOR, now)
        if now.second == 0:  # now and then, drop what has faded
            faded = now - datetime.timedelta(seconds=WINDOW_SECONDS + LONGEST_PAUSE_SECONDS)
            SignInThrottle.objects.filter(first_at__lt=faded, blocked_until=None).delete()
            SignInThrottle.objects.filter(first_at__lt=faded, blocked_until__lt=now).delete()


def _count(key: str, limit: int, now: datetime.datetime) -> None:
    SignInThrottle.objects.bulk_create([SignInThrottle(key=key, failures=0, first_at=now)], ignore_conflicts=True)
    rows = SignInThrottle.objects.filter(key=key)
    row = (rows.select_for_update() if connection.vendor == "postgresql" else rows).get()
    if not _counts(row, now):
        row.failures, row.first_at, row.blocked_until = 0, now, None
    row.failures += 1
    if row.failures >= limit:
        pause = min(LONGEST_PAUSE_SECONDS, 2 ** min(row.failures - limit, 20))
        row.blocked_until = now + datetime.timedelta(seconds=pause)
    row.save(update_fields=["failures", "first_at", "blocked_until"])


def clear(username: str) -> None:
    """Forget an account's failures (an administrator set a new password); in the caller's transaction."""
    SignInThrottle.objects.filter(key=_account_key(username)).delete()
