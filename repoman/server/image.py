"""The process that imports everything once, and of which the others are forks: their pages are shared.

Before the first fork there are no threads and no connections here. The data is prepared (checks, migrations, the
first administrator) in a fork of its own, so that this process never opens the database.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.util
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from typing import NoReturn

from repoman.configuration import SettingError
from repoman.server.process import die_with_parent
from repoman.server.supervisor import Child, Family, block_signals, say, unblock_signals

NAMES = {"web": "web server", "worker": "worker"}


def preload_application() -> None:
    """Import what serves requests, and Django. Raises SettingError for settings that only now turn out to be bad."""
    web = importlib.import_module("repoman.server.web")
    web.import_app(web.APPLICATION)
    for optional in ("uvloop", "gunicorn_h1c"):
        if importlib.util.find_spec(optional) is not None:
            importlib.import_module(optional)


def preload_worker() -> None:
    """Import what runs jobs. Web processes need most of it too, to wake workers."""
    importlib.import_module("repoman.server.jobs").load()


def share() -> None:
    """The last act before children are forked: nothing may be running, and the collector leaves our pages alone.
    Raises RuntimeError if something imported has started a thread, which a fork would not have."""
    if threading.active_count() > 1:
        names = ", ".join(thread.name for thread in threading.enumerate() if thread is not threading.main_thread())
        raise RuntimeError(f"threads before the fork: {names}")
    gc.collect()
    gc.freeze()


def fork(act: Callable[[], int | None]) -> int:
    """Run `act` in a child process with a group of its own; gives the child's id. Its exit status is what `act` gives
    (None: 0). The child ends with this process."""
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    _be_child(parent, act)


def _be_child(parent: int, act: Callable[[], int | None]) -> NoReturn:
    status = 1
    try:
        os.setpgid(0, 0)
        unblock_signals()
        gc.enable()
        die_with_parent(parent)
        status = act() or 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status & 0xFF)


def prepare() -> int:
    """Checks, migrations, the administrator: `manage.py prepare`."""
    from django.core.management import CommandError, call_command
    from django.db import Error, connection

    # One connection of its own: its errors tell what is wrong, a pool's only that it took too long.
    if connection.vendor == "postgresql":
        connection.settings_dict["OPTIONS"] = {**connection.settings_dict["OPTIONS"], "pool": False}
    try:
        # `call_command` leaves out all checks; the one that must not be missed is what the database promises.
        for problem in connection.validation.check():
            if problem.is_serious():
                raise CommandError(problem.msg)
        call_command("prepare")
    except (CommandError, SettingError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except Error as error:
        print(f"error: the database cannot be used: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m repoman.server.image")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--roles", required=True)
    parser.add_argument("--fd", type=int)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    unblock_signals()
    die_with_parent(given.parent)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "repoman.settings")
    roles = given.roles.split(",")
    # Nothing made while importing is garbage; looking for it takes a tenth of the time.
    gc.disable()
    try:
        preload_application()
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    block_signals()
    preparing = fork(prepare)
    preload_worker()
    code = os.waitstatus_to_exitcode(os.waitpid(preparing, 0)[1])
    if code:
        return code if code > 0 else 1
    share()

    def web() -> int:
        importlib.import_module("repoman.server.web").run(bind=f"fd://{given.fd}", workers=given.workers)
        return 0

    def worker() -> int:
        if given.fd is not None:
            os.close(given.fd)
        importlib.import_module("repoman.server.jobs").run(scheduler=True)
        return 0

    acts = {"web": web, "worker": worker}

    def close_listener() -> None:
        if given.fd is not None:
            socket.close(given.fd)

    children = [Child(NAMES[role], lambda role=role: fork(acts[role])) for role in roles]  # type: ignore[misc]
    return Family(children, on_stop=close_listener).run()


if __name__ == "__main__":
    try:
        status = main()
    except Exception:
        traceback.print_exc()
        say("the server could not be started; the error above is a bug")
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
