"""`manage.py collect`: reclaim bytes that nothing refers to, beside a running server."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from repoman.ops.management.output import explained, progress_on, write_counts
from repoman.services.collect import collect


class Command(BaseCommand):
    help = "Reclaim bytes that nothing refers to. Safe beside a running server."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--grace-seconds", type=int, default=None, help="instead of REPOMAN_COLLECT_GRACE; 0 is taken literally"
        )
        parser.add_argument(
            "--force", action="store_true", help="also when more than half of everything would be removed"
        )
        parser.add_argument("--no-objects", action="store_true", help="do not list the store for objects without rows")
        parser.add_argument("--dry-run", action="store_true", help="only count what would be removed")
        parser.add_argument("--json", action="store_true", help="print the counts as one JSON object")

    def handle(self, *arguments: Any, **options: Any) -> None:
        with explained("a collection"):
            counts = collect(
                grace_seconds=options["grace_seconds"],
                force=options["force"],
                objects=not options["no_objects"],
                dry_run=options["dry_run"],
                progress=progress_on(self.stderr, quiet=options["json"]),
            )
        write_counts(self.stdout, counts, as_json=options["json"])
