#!/usr/bin/env python
"""Operator's commands: `python manage.py help` lists them."""

import os
import sys


def main() -> None:
    os.umask(0o027)  # as the server: what commands write is for this account and its group
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "repoman.settings")
    from repoman.configuration import SettingError

    try:
        from django.core.management import execute_from_command_line

        execute_from_command_line(sys.argv)
    except SettingError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
