"""Run one server as a child of this small program, and leave nothing of it behind, however the test run ends.

    python -I guard.py ['{"signal": 2, "seconds": 10, "pid_file": "…", "remove": "…", "user": "…"}'] COMMAND…

The starter holds the other end of this program's standard input. When that closes (the starter ended, was interrupted
or killed) or SIGTERM arrives, the server gets its stop signal, then `seconds` to end, then SIGKILL, together with all
of its descendants: this program is their subreaper, so that even daemons that detach come back to it. `remove` is a
folder that is removed when the starter has gone away, because nobody else can then.

A program of its own because a signal on the parent's death alone (PR_SET_PDEATHSIG) follows the parent's thread, not
its process, and does not reach grandchildren.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _before_exec() -> None:
    """In the server's process: should the guard itself be killed, at least the server's main process follows it."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _children() -> list[int]:
    return [int(word) for word in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def _kill_all() -> None:
    """Kill children until there are none; the children of a killed one become ours."""
    while children := _children():
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, 0)


def _unmount_below(folder: Path) -> None:
    """Undo the mounts that container engines leave below the folder, innermost first, so that it can be removed."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{folder}/")), key=len, reverse=True):
        subprocess.run(["umount", "-l", mount], check=False)


def main() -> int:
    options = json.loads(sys.argv[1])
    command = sys.argv[2:]
    starter = os.getppid()
    stop_asked = False

    def ask_to_stop(_signal: int, _frame: object) -> None:
        nonlocal stop_asked
        stop_asked = True

    # The flag is read at least once a second; the wake-up descriptor makes the select below return at once.
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, ask_to_stop)
    # Handlers that do nothing, not SIG_IGN, which the server would inherit.
    for passed_over in (signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(passed_over, lambda _signal, _frame: None)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    user = options.get("user")
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        user=user,
        group=user,
        extra_groups=[] if user else None,
        preexec_fn=_before_exec,
        start_new_session=True,
    )
    Path(options["pid_file"]).write_text(f"{server.pid}\n")
    starter_gone = False
    while not stop_asked and not starter_gone and server.poll() is None:
        readable, _, _ = select.select([0, wake_read], [], [], 1.0)
        if wake_read in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_read, 4096)
        # The starter never writes: readable means closed. Its id is asked too: its other children may hold the pipe.
        starter_gone = 0 in readable or os.getppid() != starter
    if server.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            server.send_signal(options["signal"])
            server.send_signal(signal.SIGCONT)  # a test may have suspended it
        deadline = time.monotonic() + options["seconds"]
        while server.poll() is None and time.monotonic() < deadline:
            select.select([wake_read], [], [], 0.05)
            with contextlib.suppress(BlockingIOError):
                os.read(wake_read, 4096)
    status = server.poll()
    _kill_all()
    folder = options.get("remove")
    if folder:
        _unmount_below(Path(folder))
        if starter_gone or os.getppid() != starter:
            shutil.rmtree(folder, ignore_errors=True)
    if status is None:
        return 137
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
