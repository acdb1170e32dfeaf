"""`manage.py rotate_keys`: new keys for registry tokens, and stored secrets under the current secret key."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from repoman.core.actor import system_actor
from repoman.ops.management.output import explained
from repoman.services import keys


class Command(BaseCommand):
    help = (
        "Sign registry tokens with a new key from now on; those in use stay good. Keys also rotate by themselves every "
        "day. Stored secrets are encrypted anew where they are under an older secret key."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--forget-old", action="store_true", help="a key was stolen: every registry token in use ends now"
        )
        parser.add_argument("--json", action="store_true", help="print the result as one JSON object")

    def handle(self, *arguments: Any, **options: Any) -> None:
        with explained("rotating keys"):
            done = keys.rotate(system_actor("rotate_keys"), forget_old=options["forget_old"])
        if options["json"]:
            self.stdout.write(json.dumps(done))
            return
        self.stdout.write(f"key {done['kid']} signs registry tokens from now on")
        self.stdout.write(f"{done['secrets']} stored secrets encrypted anew")
