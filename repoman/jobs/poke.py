"""Telling workers that there is work. Nothing depends on it: a worker that was not told finds the row by itself.

Sending happens in a thread of its own, many requests in one message, because a broker that is down may take seconds to
say so and no request may wait for it.
"""

from __future__ import annotations

import logging
import os
import threading

WAKE_TASK = "repoman.jobs.wake"
_log = logging.getLogger("repoman.jobs")
_wanted = threading.Event()
_start = threading.Lock()
_thread: threading.Thread | None = None
_thread_process = 0


def poke() -> None:
    """Wake a worker, some time soon. Never raises, never waits."""
    global _thread, _thread_process
    _wanted.set()
    if _thread is not None and _thread_process == os.getpid() and _thread.is_alive():
        return
    with _start:
        if _thread is None or _thread_process != os.getpid() or not _thread.is_alive():
            _thread = threading.Thread(target=_send_forever, name="jobs-poke", daemon=True)
            _thread_process = os.getpid()
            _thread.start()


def _send_forever() -> None:
    while True:
        _wanted.wait()
        _wanted.clear()
        _send()


def _send() -> None:
    try:
        from repoman.celery import app

        # A message that nobody took within a minute tells nothing new: workers look by themselves every few seconds.
        app.send_task(WAKE_TASK, retry=False, ignore_result=True, expires=60)
    except Exception as error:  # whatever the broker's library raises: the row is there, and workers poll
        _log.warning("job_poke_failed", extra={"error": f"{type(error).__name__}: {error}"[:300]})
