"""The worker child: one process with the job runner, Celery's consumer that wakes it, and the scheduler's clock."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import signal
import sys
import threading
import warnings
from types import FrameType
from typing import Any

# Who depends on the runner's own time limit ends by then; what is cut is taken up again by another worker (leases).
GRACE_SECONDS = 25


def load() -> Any:
    """Import everything that the worker needs, without threads or connections. Gives the Celery application."""
    import django

    django.setup()
    app = importlib.import_module("repoman.celery").app
    # What Celery imports by name at its start, imported now so that forks share it.
    for name in ("celery.apps.worker", "celery.concurrency.solo", "celery.beat", "kombu.transport.filesystem"):
        importlib.import_module(name)
    importlib.import_module("workers.tasks")
    app.finalize()
    return app


def run(*, scheduler: bool) -> None:
    """Work until TERM; returns then."""
    app = load()
    # Started, stopped and connected: what the supervisor and /readyz say already.
    for name in ("celery", "kombu"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Celery warns of root because of serialisations that run code; ours is JSON alone.
    warnings.filterwarnings("ignore", message="You're running the worker with superuser")
    from celery.beat import EmbeddedService
    from celery.exceptions import WorkerShutdown

    tasks = importlib.import_module("workers.tasks")
    # Before the consumer: jobs run even while the broker cannot be reached.
    tasks.start_runner()
    clock = EmbeddedService(app, thread=True, scheduler_cls=app.conf.beat_scheduler) if scheduler else None
    if clock is not None:
        clock.daemon = True
        clock.start()
    # Tasks only wake the runner, so they run in the consumer's own thread.
    worker = app.Worker(
        pool="solo",
        concurrency=1,
        loglevel="WARNING",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        send_events=False,
    )
    from celery.signals import worker_ready

    def end(_number: int, _frame: FrameType | None) -> None:
        # The consumer sleeps in the broker for up to two seconds and would only then see Celery's own flag.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        raise WorkerShutdown(0)

    def take_signals(**_signal: Any) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)

    worker_ready.connect(take_signals, weak=False)
    take_signals()
    try:
        worker.start()
    except WorkerShutdown:
        pass
    finally:
        # A job that does not end in time is cut here, whatever its thread waits for.
        cut = threading.Timer(GRACE_SECONDS, os._exit, (0,))
        cut.daemon = True
        cut.start()
        if clock is not None:
            clock.stop()
        tasks.stop_runner()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m repoman.server.jobs")
    parser.add_argument("--no-scheduler", action="store_true")
    given = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "repoman.settings")
    run(scheduler=not given.no_scheduler)
    sys.exit(0)


if __name__ == "__main__":
    main()
