"""What the workshop's process runs (`workshop.py`). It is imported before Django is set up there, so it imports nothing."""

from __future__ import annotations

import resource
import signal
from multiprocessing.connection import Connection
from typing import Any

MEMORY_BYTES = 768 * 1024 * 1024  # of address space more than what the process has when it starts


def work(connection: Connection) -> None:
    """The helper's life: questions one after the other, until the other side is gone."""
    import django

    from repoman.core.errors import ContentInvalid, RepomanError

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    django.setup()
    size = _address_space() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    while True:
        try:
            function, arguments = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer: tuple[bool, Any] = (True, function(*arguments))
        except MemoryError:
            answer = (False, ContentInvalid("the content needs too much memory to be read"))
        except RepomanError as error:
            answer = (False, error)
        except Exception as error:
            answer = (False, ContentInvalid(f"the content cannot be read ({type(error).__name__})"))
        try:
            connection.send(answer)
        except OSError:
            return


def _address_space() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()
