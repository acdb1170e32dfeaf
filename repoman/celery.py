"""The Celery application: carries "wake up, there is work" and the scheduler's ticks, never data.

With REPOMAN_REDIS_URL the messages travel through Redis; without it through a folder in REPOMAN_DATA, which processes
of one machine share. Losing every message loses nothing: the JobRun rows are the truth, and workers look by themselves.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import setup_logging, task_postrun

from repoman.configuration import Configuration, load

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "repoman.settings")

TICK_TASK = "repoman.jobs.tick"
TICK_SECONDS = 10.0


def broker_settings(configuration: Configuration) -> dict[str, Any]:
    """Celery's broker settings. Makes the folder where messages wait if there is no Redis."""
    redis = configuration["REPOMAN_REDIS_URL"]
    if redis:
        # A Redis that is down must be noticed within seconds, by senders above all.
        options: dict[str, Any] = {"socket_timeout": 5, "socket_connect_timeout": 3, "visibility_timeout": 60}
        return {"broker_url": redis, "broker_transport_options": options}
    folder = configuration.data / "broker"
    for part in (folder, folder / "control"):
        part.mkdir(parents=True, exist_ok=True)
    options = {
        "data_folder_in": str(folder),
        "data_folder_out": str(folder),
        "control_folder": Path(folder / "control"),
        "polling_interval": 0.5,
    }
    return {"broker_url": "folder://localhost//", "broker_transport_options": options}


def make_app(configuration: Configuration) -> Celery:
    """An application with these settings; importing this module makes the one that everybody uses."""
    from repoman.server import broker

    broker.register()
    # Without Celery's own Django fix-up, which checks the whole project once more in every worker.
    made = Celery("repoman", include=["workers.tasks"], set_as_current=True, fixups=[])
    made.conf.update(
        **broker_settings(configuration),
        # Plain data only, in both directions: what is in a broker may have been put there by anyone.
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        event_serializer="json",
        result_backend=None,
        task_ignore_result=True,
        task_acks_late=False,
        task_store_errors_even_if_ignored=False,
        task_default_queue="repoman",
        task_default_delivery_mode="transient",
        broker_connection_retry_on_startup=True,
        broker_connection_timeout=4,
        broker_heartbeat=0,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        beat_scheduler="celery.beat:Scheduler",
        beat_schedule={
            # A tick that waited for a worker is worth nothing once the next one is there.
            "tick": {"task": TICK_TASK, "schedule": TICK_SECONDS, "options": {"expires": TICK_SECONDS}},
        },
        timezone="UTC",
        enable_utc=True,
    )
    return made


@setup_logging.connect
def _keep_our_logging(**_signal: Any) -> None:
    """Being connected is the point: Celery then leaves logging as repoman.ops.logs set it up."""


@task_postrun.connect
def _give_connections_back(**_signal: Any) -> None:
    """Tasks run in the consumer's thread, which lives as long as the process; a pool's connection must not."""
    from django.db import close_old_connections

    close_old_connections()


app = make_app(load())
