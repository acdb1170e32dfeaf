"""What every start makes sure of: the schema, the blob store that is ours, an administrator."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.core.management import call_command
from django.db import connection, transaction

from repoman.access import epoch, registry_keys
from repoman.access.models import Principal
from repoman.blobs import store
from repoman.blobs.models import Store
from repoman.core import clock
from repoman.core.actor import system_actor

from . import accounts

ADVISORY_LOCK = 0x7265706F  # any number that nothing else of ours takes


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Two starts at once prepare one after the other, on one machine and across machines."""
    data = settings.CONFIGURATION.data
    data.mkdir(parents=True, exist_ok=True)
    with open(data / "prepare.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if connection.vendor != "postgresql":
            yield
            return
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [ADVISORY_LOCK])
        try:
            yield
        finally:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [ADVISORY_LOCK])


def migrate() -> None:
    """Bring the schema up to date; a killed run is completed by the next."""
    call_command("migrate", verbosity=0, interactive=False)
    epoch.ensure()
    registry_keys.ensure()


def claim_store() -> None:
    """Make the blob store ours at the first start; afterwards refuse one that is empty or another installation's.

    Raises StoreForeign, StoreReadOnly, StoreFull, StoreUnavailable.
    """
    with transaction.atomic(durable=True):
        row, _ = Store.objects.get_or_create(
            name="default", defaults={"instance_id": clock.new_id(), "created_at": clock.now()}
        )
    if row.is_initialised:
        store.driver().check(row.instance_id)
        return
    store.driver().initialise(row.instance_id)
    with transaction.atomic(durable=True):
        Store.objects.filter(pk=row.pk).update(is_initialised=True)


def first_administrator() -> tuple[str, Path | None] | None:
    """At the first start, create the administrator. Returns its name, and the file that holds a random password.

    None where there is an administrator already. The file is written before the account, with mode 0600.
    """
    if Principal.objects.filter(is_admin=True).exists():
        return None
    configuration = settings.CONFIGURATION
    username, password = configuration["REPOMAN_ADMIN_USER"], configuration["REPOMAN_ADMIN_PASSWORD"]
    path: Path | None = None
    if not password:
        password = clock.new_secret()[:24]
        path = configuration.data / "admin-password"
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(password + "\n")
            file.flush()
            os.fsync(file.fileno())
    accounts.create_user(system_actor("prepare"), username=username, password=password, is_admin=True)
    return username, path
