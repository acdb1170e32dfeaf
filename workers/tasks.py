"""What Celery knows: "wake up, there is work", and the start and end of a worker process. No arguments, no results.

With the pools that run tasks in the worker's own process (solo, threads) a message wakes the process's runner. A
message that arrives elsewhere does the work itself.
"""

from __future__ import annotations

import os
from typing import Any

from celery import shared_task
from celery.signals import worker_ready, worker_shutting_down

from repoman.jobs.poke import WAKE_TASK

from . import schedule
from .runner import Runner, run_all

_runner: Runner | None = None
_runner_process = 0


@shared_task(name=WAKE_TASK, ignore_result=True)
def wake() -> None:
    if _runner is not None and _runner_process == os.getpid():
        _runner.wake()
    else:
        run_all()


@shared_task(name="repoman.jobs.tick", ignore_result=True)
def tick() -> None:
    schedule.tick()


@worker_ready.connect
def start_runner(**_signal: Any) -> None:
    global _runner, _runner_process
    if _runner is None:
        _runner, _runner_process = Runner(), os.getpid()
        _runner.start()


@worker_shutting_down.connect
def stop_runner(**_signal: Any) -> None:
    global _runner
    ended, _runner = _runner, None
    if ended is not None:
        ended.stop()
