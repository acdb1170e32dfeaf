"""`manage.py fsck`: check every invariant of rows and bytes, and repair what can be."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from repoman.ops.management.output import explained, progress_on, size_in_words
from repoman.services.fsck import Problem, descriptions, fsck


class Command(BaseCommand):
    help = "Check every invariant of rows and bytes beside a running server. Exits with 1 if problems remain."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--rehash", action="store_true", help="read all bytes and compare them with their digests")
        parser.add_argument("--repair", action="store_true", help="put right what can be without losing anything")
        parser.add_argument(
            "--check", action="append", default=[], metavar="NAME", help="only this check (may be repeated)"
        )
        parser.add_argument("--list", action="store_true", help="say what each check holds, and check nothing")
        parser.add_argument("--json", action="store_true", help="print the report as one JSON object")

    def handle(self, *arguments: Any, **options: Any) -> None:
        if options["list"]:
            for name, meaning in descriptions().items():
                self.stdout.write(f"{name}: {meaning}")
            return
        try:
            with explained("a check"):
                report = fsck(
                    rehash=options["rehash"],
                    repair=options["repair"],
                    only=tuple(options["check"]),
                    progress=progress_on(self.stderr, quiet=options["json"]),
                    tell=(lambda problem: None) if options["json"] else self._tell,
                )
        except ValueError as error:
            raise CommandError(f"{error}; `manage.py fsck --list` names them") from None
        if options["json"]:
            self.stdout.write(json.dumps(report.as_dict()))
        else:
            for name, count in report.checked.items():
                self.stdout.write(f"{name}: {count} checked")
            for name, notice in report.notices.items():
                self.stdout.write(f"notice {name}: {notice.count}, {size_in_words(notice.bytes)}")
            if report.hashed_bytes:
                self.stdout.write(f"hashed: {size_in_words(report.hashed_bytes)}")
            repaired = len(report.problems) - report.remaining
            self.stdout.write(f"{len(report.problems)} problems, {repaired} repaired, {report.remaining} remain")
        if report.remaining:
            sys.exit(1)

    def _tell(self, problem: Problem) -> None:
        state = " (repaired)" if problem.repaired else ""
        self.stdout.write(f"{problem.check}: {problem.subject}: {problem.message}{state}")
        for name in problem.affected:
            self.stdout.write(f"    {name}")
