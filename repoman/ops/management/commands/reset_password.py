"""`manage.py reset_password NAME`: for who forgot it, or was kept out by somebody else's guesses."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from repoman.core.actor import system_actor
from repoman.ops.management.output import explained
from repoman.ops.management.passwords import add_password_arguments, password_from
from repoman.services import accounts


class Command(BaseCommand):
    help = (
        "Give a user a new password: ends what was signed in with the old one, forgets wrong guesses. API tokens stay. "
        "Without --password-stdin a random password is made and printed once."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--enable", action="store_true", help="also enable the account")
        add_password_arguments(parser)

    def handle(self, *arguments: Any, **options: Any) -> None:
        password, is_random = password_from(options)
        changes: dict[str, Any] = {"password": password}
        if options["enable"]:
            changes["disabled"] = False
        with explained("resetting the password"):
            user = accounts.update_user(system_actor("reset_password"), options["username"], changes)
        if options["json"]:
            self.stdout.write(json.dumps({"username": user.username} | ({"password": password} if is_random else {})))
            return
        self.stdout.write(f"password of '{user.username}' changed")
        if is_random:
            self.stdout.write(f"password, shown once: {password}")
