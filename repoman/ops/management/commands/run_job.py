"""`manage.py run_job KIND`: do a job now, in this process, with a row that says how it went."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction
from django.utils.module_loading import import_string

from repoman.jobs.kinds import KINDS
from repoman.jobs.models import JobRun
from repoman.jobs.queue import request
from repoman.ops.management.output import explained, write_counts

RUN_NEXT = "workers.runner.run_next"  # by name: nothing in repoman/ imports workers


class Command(BaseCommand):
    help = "Do a job now, in this process. Exits with 1 if it fails."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("kind", choices=sorted(KINDS))
        parser.add_argument(
            "arguments", nargs="*", metavar="NAME=VALUE", help="for example grace_seconds=0 or rehash=true"
        )
        parser.add_argument("--queue", action="store_true", help="only request it; a worker does it")
        parser.add_argument("--json", action="store_true", help="print the outcome as one JSON object")

    def handle(self, *arguments: Any, **options: Any) -> None:
        with explained("the job"):
            with transaction.atomic(durable=True):
                run = request(
                    options["kind"],
                    dict(_argument(text) for text in options["arguments"]),
                    requested_by="system:command",
                    max_attempts=1,
                )
            if not options["queue"]:
                import_string(RUN_NEXT)(run_id=run.pk)
            run.refresh_from_db()
        outcome = {"id": run.pk, "kind": run.kind, "state": run.state, "result": run.result, "error": run.error}
        if options["json"]:
            self.stdout.write(json.dumps(outcome))
        else:
            self.stdout.write(f"job {run.pk} {run.kind}: {run.state}")
            write_counts(self.stdout, run.result or {}, as_json=False)
            if run.error:
                self.stderr.write(run.error)
        if run.state == JobRun.State.FAILED:
            sys.exit(1)


def _argument(text: str) -> tuple[str, object]:
    name, separator, value = text.partition("=")
    if not separator:
        raise CommandError(f"'{text}' is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
