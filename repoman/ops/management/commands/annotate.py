"""`manage.py annotate REPOSITORY PACKAGE VERSION`: yank, deprecate, and take either back."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from repoman.catalog import selectors
from repoman.core.actor import system_actor
from repoman.ops.management.output import explained
from repoman.services import contents


class Command(BaseCommand):
    help = "Yank a version (PyPI) or deprecate it (npm), or take that back. It stays where it is."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("repository", help="namespace/name")
        parser.add_argument("package")
        parser.add_argument("version")
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("--yank", metavar="REASON", nargs="?", const="", help="installers pass it over from now on")
        what.add_argument("--unyank", action="store_true")
        what.add_argument("--deprecate", metavar="TEXT", help="clients show this text to whoever installs it")
        what.add_argument("--undeprecate", action="store_true")
        parser.add_argument("--json", action="store_true")

    def handle(self, *arguments: Any, **options: Any) -> None:
        changes: dict[str, object]
        if options["yank"] is not None:
            changes = {"yanked": True, "yanked_reason": options["yank"]}
        elif options["unyank"]:
            changes = {"yanked": False}
        else:
            changes = {"deprecated": options["deprecate"] or ""}
        with explained("annotating the version"):
            repository = selectors.repository_by_key(options["repository"])
            if repository is None:
                raise CommandError(f"there is no repository '{options['repository']}'")
            contents.annotate_version(
                system_actor("annotate"), repository, options["package"], options["version"], changes
            )
        if options["json"]:
            self.stdout.write(json.dumps({"version": options["version"], **changes}))
            return
        self.stdout.write(f"{options['package']} {options['version']}: {', '.join(sorted(changes))} set")
