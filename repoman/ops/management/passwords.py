"""How commands take a password: from standard input, or a random one; never as an argument, which others could see."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandError, CommandParser

from repoman.core import clock


def add_password_arguments(parser: CommandParser) -> None:
    parser.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def password_from(options: Mapping[str, Any]) -> tuple[str, bool]:
    """The password, and whether it was made up here."""
    if not options["password_stdin"]:
        return clock.new_secret()[:24], True
    password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise CommandError("standard input held no password")
    return password, False
