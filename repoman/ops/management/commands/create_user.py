"""`manage.py create_user NAME`: a user who signs in with a password."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from repoman.core.actor import system_actor
from repoman.ops.management.output import explained
from repoman.ops.management.passwords import add_password_arguments, password_from
from repoman.services import accounts


class Command(BaseCommand):
    help = "Create a user. Without --password-stdin a random password is made and printed once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--email", default="")
        parser.add_argument("--admin", action="store_true", help="an administrator")
        add_password_arguments(parser)

    def handle(self, *arguments: Any, **options: Any) -> None:
        password, is_random = password_from(options)
        with explained("creating the user"):
            user = accounts.create_user(
                system_actor("create_user"),
                username=options["username"],
                password=password,
                email=options["email"],
                is_admin=options["admin"],
            )
        if options["json"]:
            shown = {"username": user.username, "is_admin": user.is_admin}
            self.stdout.write(json.dumps(shown | ({"password": password} if is_random else {})))
            return
        self.stdout.write(f"user '{user.username}' created")
        if is_random:
            self.stdout.write(f"password, shown once: {password}")
