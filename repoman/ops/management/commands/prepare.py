"""`manage.py prepare`: what every start makes sure of before anything is served. Safe to run at any time, twice too."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from repoman.core.errors import RepomanError
from repoman.services import installation


class Command(BaseCommand):
    help = "Bring the database up to date, claim the blob store, create the first administrator."
    requires_system_checks = "__all__"

    def handle(self, *arguments: Any, **options: Any) -> None:
        try:
            with installation.one_at_a_time():
                installation.migrate()
                installation.claim_store()
                created = installation.first_administrator()
        except RepomanError as error:
            raise CommandError(error.message) from error
        except DatabaseError as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise CommandError(f"the database cannot be used: {reason}") from error
        except OSError as error:
            raise CommandError(f"{error.filename or 'the data folder'}: {error.strerror}") from error
        if created is None:
            return
        username, path = created
        if path is None:
            self.stdout.write(f"Administrator '{username}' created, with the password from REPOMAN_ADMIN_PASSWORD.")
        else:
            password = path.read_text().strip()
            self.stdout.write(f"Administrator '{username}' created. Password, shown once: {password}")
            self.stdout.write(f"It is kept in {path}; delete that file when you have changed the password.")
