"""The parent of the whole family: starts it, watches it, ends it, and says in one line what is wrong.

    supervisor          this module; light: standard library and `repoman.configuration` only. Owns the listening socket
    └── image           imports everything once, prepares the data, forks the children (image.py)
        ├── web         gunicorn's arbiter, which forks the web processes (web.py, worker.py)
        └── worker      job runner, Celery consumer and scheduler (jobs.py)

Each process below the supervisor has a process group of its own, so a terminal's Ctrl-C reaches the supervisor alone,
and ends by itself when its parent is killed. TERM or Ctrl-C ends all, requests in flight finished; a second one ends
them at once. Exit status: 0 after TERM, 2 for a bad setting, 1 for what could not start or stay up.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from repoman.configuration import Configuration, SettingError, load

# Requests in flight get 30 s (web.GRACE_SECONDS), jobs 25; then everything is killed.
GRACE_SECONDS = 35.0
# A child that lived shorter counts as one that could not start; so many in a row, and the whole server ends.
SHORT_LIFE_SECONDS = 10.0
SHORT_LIVES = 3
BACK_OFF_SECONDS = 0.2
BACK_OFF_LIMIT_SECONDS = 5.0
FORCED_SECONDS = 3.0
BACKLOG = 2048
READY_SECONDS = 60.0

_WATCHED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
_ENDING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def say(line: str) -> None:
    """For people, on standard error, where logs go too."""
    print(f"repoman: {line}", file=sys.stderr, flush=True)


@dataclass(slots=True)
class Child:
    """A process that shall run. `spawn` starts it and gives its process id; the process leads a group of its own."""

    name: str
    spawn: Callable[[], int]
    # Whether ending with an exit status of its own means that it has said why and must not be tried again.
    exit_is_final: bool = False
    pid: int = 0
    started: float = 0.0
    short_lives: int = 0
    next_start: float = 0.0


def how_it_ended(status: int) -> str:
    """A wait status in words."""
    code = os.waitstatus_to_exitcode(status)
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"


@dataclass(slots=True)
class Family:
    """Runs children until told to end, or until one of them cannot be kept alive."""

    children: Sequence[Child]
    on_stop: Callable[[], None] = lambda: None
    grace_seconds: float = GRACE_SECONDS
    # Whether the children have families of their own, which they end at once when asked a second time.
    passes_on: bool = False
    exit_status: int = 0
    _stopping: bool = False
    _deadline: float = field(default=0.0)

    def run(self) -> int:
        """Gives the exit status. The caller's signal mask must block `_WATCHED` (see `block_signals`)."""
        for child in self.children:
            self._start(child)
        while True:
            self._handle(signal.sigtimedwait(_WATCHED, self._patience()))
            self._reap()
            now = time.monotonic()
            if not self._stopping:
                for child in self.children:
                    if not child.pid and now >= child.next_start:
                        self._start(child)
            elif not any(child.pid for child in self.children):
                return self.exit_status
            elif now >= self._deadline:
                self._kill()

    def stop(self, exit_status: int = 0) -> None:
        """Ask all to end; idempotent."""
        if self._stopping:
            return
        self._stopping = True
        self._deadline = time.monotonic() + self.grace_seconds
        self.exit_status = exit_status
        self.on_stop()
        for child in self.children:
            self._signal(child, signal.SIGTERM)

    def _patience(self) -> float:
        now = time.monotonic()
        if self._stopping:
            return max(0.0, min(1.0, self._deadline - now))
        return min((max(0.0, child.next_start - now) for child in self.children if not child.pid), default=5.0)

    def _handle(self, info: signal.struct_siginfo | None) -> None:
        if info is None or info.si_signo not in _ENDING:
            return
        if self._stopping:
            self._deadline = time.monotonic() + (FORCED_SECONDS if self.passes_on else 0.0)
            if self.passes_on:
                say("ending at once")
                for child in self.children:
                    self._signal(child, signal.SIGTERM)
        else:
            self.stop()

    def _start(self, child: Child) -> None:
        child.started = time.monotonic()
        child.pid = child.spawn()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in self.children:
                if child.pid == pid:
                    child.pid = 0
                    self._ended(child, status)

    def _ended(self, child: Child, status: int) -> None:
        if self._stopping:
            return
        code = os.waitstatus_to_exitcode(status)
        if child.exit_is_final and code >= 0:
            self.stop(code)
            return
        now = time.monotonic()
        child.short_lives = child.short_lives + 1 if now - child.started < SHORT_LIFE_SECONDS else 1
        if child.short_lives >= SHORT_LIVES and now - child.started < SHORT_LIFE_SECONDS:
            say(
                f"the {child.name} cannot be kept running: it {how_it_ended(status)}, {child.short_lives} times in a row"
            )
            self.stop(1)
            return
        pause = min(BACK_OFF_SECONDS * 2 ** (child.short_lives - 1), BACK_OFF_LIMIT_SECONDS)
        say(f"the {child.name} {how_it_ended(status)}; starting it again")
        child.next_start = now + pause

    def _signal(self, child: Child, number: int) -> None:
        if child.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, number)

    def _kill(self) -> None:
        self._deadline = time.monotonic() + 1.0
        for child in self.children:
            if child.pid:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.pid, signal.SIGKILL)
                self._signal(child, signal.SIGKILL)


def block_signals() -> None:
    """From now on signals wait to be asked for. Forked children undo it with `unblock_signals`."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)


def unblock_signals() -> None:
    for number in _ENDING:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


# Before anything is started


def check_data_folder(configuration: Configuration) -> None:
    """Make the folder if it is not there. Raises SettingError if nothing can be written into it."""
    folder = configuration.data
    probe = folder / f".writable-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        probe.unlink()
    except FileExistsError:
        raise SettingError(f"REPOMAN_DATA: {folder} is not a folder") from None
    except OSError as error:
        raise SettingError(f"REPOMAN_DATA: {folder} cannot be written ({error.strerror})") from None


def listen(configuration: Configuration) -> socket.socket:
    """The listening socket. Raises SettingError naming what is wrong with the address."""
    host, port = configuration["REPOMAN_BIND"]
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # From here on nobody else gets the port; who connects is served as soon as the web processes are there.
        listener.listen(BACKLOG)
    except socket.gaierror as error:
        raise SettingError(f"REPOMAN_BIND: {host} is no address of this machine ({error.strerror})") from None
    except OSError as error:
        reason = {
            errno.EADDRINUSE: "is in use by another process; stop that one, or set REPOMAN_BIND to another address",
            errno.EADDRNOTAVAIL: "is no address of this machine",
            errno.EACCES: "needs more rights than this user has (ports below 1024 do)",
        }.get(error.errno or 0, f"cannot be used ({error.strerror})")
        raise SettingError(f"REPOMAN_BIND: {shown} {reason}") from None
    return listener


# When it runs


def local_address(configuration: Configuration) -> tuple[str, int]:
    """Where the server is reached from this machine."""
    host, port = configuration["REPOMAN_BIND"]
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}.get(host, host), port


def public_url(configuration: Configuration) -> str:
    given = configuration["REPOMAN_URL"]
    if given:
        return str(given)
    host, port = local_address(configuration)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_ready(configuration: Configuration) -> bool:
    """Whether /readyz answers 200."""
    name = public_url(configuration).partition("://")[2]
    question = f"GET /readyz HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode()
    try:
        with socket.create_connection(local_address(configuration), timeout=30) as connection:
            connection.sendall(question)
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def welcome(configuration: Configuration) -> str:
    url = public_url(configuration)
    host = url.partition("://")[2]
    user = configuration["REPOMAN_ADMIN_USER"]
    kept = configuration.data / "admin-password"
    password = f"the password in {os.path.relpath(kept)}" if kept.exists() else "the password you have set"
    return f"""
Repoman is ready at {url}
Sign in as {user} with {password}. First commands to try:

  docker login -u {user} {host}
  curl -u {user} {url}/api/v1/namespaces --json '{{"name": "demo"}}'
  curl -u {user} {url}/api/v1/namespaces/demo/repositories --json '{{"name": "images", "format": "oci", "type": "local"}}'

then `docker push {host}/demo/images/hello:1`. Ctrl-C ends the server.
"""


def _notify_systemd(state: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, contextlib.suppress(OSError):
            notify.sendto(state.encode(), f"\0{address[1:]}" if address.startswith("@") else address)


def _announce(configuration: Configuration, with_web: bool) -> None:
    """In a thread: wait until the server is ready, and say so."""
    if with_web:
        warned = False
        began = time.monotonic()
        while not is_ready(configuration):
            if not warned and time.monotonic() - began > READY_SECONDS:
                warned = True
                say(f"still not ready; {public_url(configuration)}/readyz says what is missing")
            time.sleep(0.1)
        print(welcome(configuration), flush=True)
    _notify_systemd("READY=1")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m repoman.server", description="Run Repoman.")
    parser.add_argument("--only", choices=("web", "worker"), help="run this part of the server alone")
    given = parser.parse_args(arguments)
    try:
        configuration = load()
        check_data_folder(configuration)
        roles = [given.only] if given.only else ["web", "worker"] if configuration["REPOMAN_SUPERVISED"] else ["web"]
        listener = listen(configuration) if "web" in roles else None
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    command = [sys.executable, "-m", "repoman.server.image", "--parent", str(os.getpid()), "--roles", ",".join(roles)]
    passed: tuple[int, ...] = ()
    if listener is not None:
        passed = (listener.fileno(),)
        command += ["--fd", str(listener.fileno()), "--workers", str(configuration.workers)]
    environment = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}

    def spawn() -> int:
        # A new session is a new process group too; the child undoes the signal mask it inherits.
        return subprocess.Popen(command, pass_fds=passed, env=environment, start_new_session=True).pid

    def close_listener() -> None:
        _notify_systemd("STOPPING=1")
        if listener is not None:
            listener.close()

    block_signals()
    threading.Thread(target=_announce, args=(configuration, listener is not None), daemon=True).start()
    server = Child("server", spawn, exit_is_final=True)
    family = Family([server], on_stop=close_listener, grace_seconds=GRACE_SECONDS + 5, passes_on=True)
    return family.run()
