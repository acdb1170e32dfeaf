"""The web child: gunicorn's arbiter with our worker class, on a socket that somebody else bound.

`python -m repoman.server.web --fd 3` runs it alone; the image process forks it with everything loaded. The options
other than `--fd` and `--workers` exist for tests and benchmarks.
"""

from __future__ import annotations

import argparse
import gc
import resource
from dataclasses import fields, replace
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.util import import_app

from repoman.server.process import die_with_parent
from repoman.server.worker import Limits, ServerWorker

APPLICATION = "repoman.asgi:application"
# How long requests in flight may take to finish after TERM.
GRACE_SECONDS = 30
# A web process whose event loop stands still for this long is killed and replaced; also gunicorn's bound on the wait
# for one piece of a body, which ours (Limits.body_seconds) comes before.
HANG_SECONDS = 90
BACKLOG = 2048
# Descriptors that connections leave to files, databases and pipes.
RESERVED_DESCRIPTORS = 512


class WebApplication(BaseApplication):  # type: ignore[misc]
    """gunicorn, configured in code alone: neither its files nor its environment variables are read."""

    def __init__(self, application: str, settings: dict[str, Any]) -> None:
        self._application = application
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        application = import_app(self._application)
        # Everything loaded so far is shared with the children to come; the collector must not touch its pages.
        gc.collect()
        gc.freeze()
        return application


def raise_descriptor_limit() -> int:
    """Lift the soft limit on open files to the hard one; gives the number of connections a process may hold."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 65_536) if hard != resource.RLIM_INFINITY else 65_536
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return max(64, min(20_000, soft - RESERVED_DESCRIPTORS))


def run(
    *,
    bind: str,
    workers: int,
    application: str = APPLICATION,
    limits: Limits | None = None,
    parser: str = "auto",
    loop: str = "auto",
    log_level: str = "warning",
    grace_seconds: int = GRACE_SECONDS,
    connections: int | None = None,
) -> None:
    """Serve until TERM; returns by SystemExit. `bind` is `fd://N` or `host:port`."""

    def post_fork(arbiter: Any, _worker: Any) -> None:
        die_with_parent(arbiter.pid)

    class Worker(ServerWorker):
        pass

    if limits is not None:
        Worker.limits = limits
    settings = {
        "bind": [bind],
        "workers": workers,
        "worker_class": Worker,
        "worker_connections": connections or raise_descriptor_limit(),
        "preload_app": True,
        "timeout": HANG_SECONDS,
        "graceful_timeout": grace_seconds,
        "keepalive": round((limits or Limits()).idle_seconds),
        "backlog": BACKLOG,
        "http_parser": parser,
        "asgi_loop": loop,
        # Forwarded headers are the application's business (REPOMAN_TRUSTED_PROXIES); gunicorn shall believe nobody.
        "forwarded_allow_ips": "",
        "control_socket_disable": True,
        "loglevel": log_level,
        "errorlog": "-",
        "post_fork": post_fork,
        "limit_request_line": 8190,
        "limit_request_fields": 100,
        "limit_request_field_size": 8190,
    }
    WebApplication(application, settings).run()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m repoman.server.web")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--fd", type=int)
    where.add_argument("--bind")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--application", default=APPLICATION)
    parser.add_argument("--parser", choices=("auto", "fast", "python"), default="auto")
    parser.add_argument("--loop", choices=("auto", "asyncio", "uvloop"), default="auto")
    parser.add_argument("--log-level", default="warning")
    parser.add_argument("--grace-seconds", type=int, default=GRACE_SECONDS)
    parser.add_argument("--connections", type=int, help="most connections of one web process")
    for field in fields(Limits):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    given = parser.parse_args()
    run(
        bind=given.bind if given.fd is None else f"fd://{given.fd}",
        workers=given.workers,
        application=given.application,
        limits=replace(Limits(), **{field.name: getattr(given, field.name) for field in fields(Limits)}),
        parser=given.parser,
        loop=given.loop,
        log_level=given.log_level,
        grace_seconds=given.grace_seconds,
        connections=given.connections,
    )


if __name__ == "__main__":
    main()
