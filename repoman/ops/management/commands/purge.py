"""`manage.py purge`: empty the trash of what is older than the window."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from repoman.ops.management.output import explained, progress_on, write_counts
from repoman.services.purge import purge


class Command(BaseCommand):
    help = "Remove content for good that was deleted longer ago than the trash window. Its bytes follow by `collect`."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--window-seconds", type=int, default=None, help="instead of REPOMAN_TRASH_WINDOW; 0 is taken literally"
        )
        parser.add_argument("--json", action="store_true", help="print the counts as one JSON object")

    def handle(self, *arguments: Any, **options: Any) -> None:
        with explained("a purge"):
            counts = purge(
                window_seconds=options["window_seconds"], progress=progress_on(self.stderr, quiet=options["json"])
            )
        write_counts(self.stdout, counts, as_json=options["json"])
