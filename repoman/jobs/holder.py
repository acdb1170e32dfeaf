"""Who holds a lease: a short mark of this process that another one on the same machine can prove dead.

A lease whose holder was killed could be waited for; with the mark nobody has to. Elsewhere, and wherever there is doubt,
the holder counts as alive and its lease ends by its own time.
"""

from __future__ import annotations

import hashlib
import os
import socket
from functools import lru_cache

MARK_CHARACTERS = 25


@lru_cache(maxsize=1)
def _machine() -> str:
    """This boot of this machine, as seen from this container: process ids mean something only inside one."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        boot += os.readlink("/proc/self/ns/pid")
    except OSError:
        boot = f"{socket.gethostname()} {os.getpid()}"  # nobody can be proved dead
    return hashlib.sha256(boot.encode()).hexdigest()[:8]


def _started(pid: int) -> int | None:
    """When the process began, in clock ticks after boot (proc(5), stat field 22); None where there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def mark() -> str:
    """At most MARK_CHARACTERS of [0-9a-f.]: machine, process id, time of its start."""
    pid = os.getpid()
    return f"{_machine()}.{pid:x}.{_started(pid) or 0:x}"


def is_dead(text: str) -> bool:
    """Whether the process of that mark (whatever follows a further dot) ran here and is gone."""
    parts = text.split(".")
    if len(parts) < 3 or parts[0] != _machine():
        return False
    try:
        return _started(int(parts[1], 16)) != int(parts[2], 16)
    except (OSError, ValueError):
        return False
