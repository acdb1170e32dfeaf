"""`manage.py jobs`: what waits, runs, ended and failed; and a second chance for what failed."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from repoman.jobs.heartbeat import worker_seen
from repoman.jobs.models import JobRun
from repoman.jobs.queue import revive
from repoman.ops.management.output import explained


class Command(BaseCommand):
    help = "List jobs, newest first, or try a failed one again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--state", choices=JobRun.State.values, help="only jobs in this state")
        parser.add_argument("--kind", help="only jobs of this kind")
        parser.add_argument("--limit", type=int, default=20, help="at most so many (20)")
        parser.add_argument("--retry", type=int, metavar="ID", help="put this failed job into the queue again")
        parser.add_argument("--json", action="store_true", help="print one JSON object per job")

    def handle(self, *arguments: Any, **options: Any) -> None:
        with explained("the list of jobs"):
            if options["retry"] is not None:
                if not revive(options["retry"]):
                    raise CommandError(f"there is no failed job {options['retry']}; `manage.py jobs --state failed`")
                self.stdout.write(f"job {options['retry']} is queued again")
                return
            rows = JobRun.objects.order_by("-pk")
            if options["state"]:
                rows = rows.filter(state=options["state"])
            if options["kind"]:
                rows = rows.filter(kind=options["kind"])
            found = list(rows[: max(0, options["limit"])])
            if not options["json"] and not worker_seen():
                self.stderr.write("no worker is running: nothing in the queue is being done")
        for run in found:
            self.stdout.write(json.dumps(_described(run), default=str) if options["json"] else _line(run))


def _described(run: JobRun) -> dict[str, Any]:
    names = (
        "id kind arguments state requested_by attempts max_attempts run_after leased_until progress result error "
        "created_at started_at finished_at"
    )
    return {name: getattr(run, name) for name in names.split()}


def _line(run: JobRun) -> str:
    told = run.error.splitlines()[0] if run.error else json.dumps(run.result or run.progress or run.arguments)
    return f"{run.pk}  {run.created_at:%Y-%m-%d %H:%M:%S}  {run.kind}  {run.state} ({run.attempts})  {told[:200]}"
