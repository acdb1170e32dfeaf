"""Numbers for Prometheus, over all web processes of this machine.

Each process counts in plain Python lists and writes them to a small file at most once a second; whoever is asked for
`/metrics` adds the files up, so an answer is at most a second old. Files of a process that ended stay until the server
that started it ends, because a counter may not fall. No label is ever a name that a user chose.
"""

from __future__ import annotations

import json
import os
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_COUNT, _SECONDS, _IN, _OUT, _FIRST = 0, 1, 2, 3, 4
_WIDTH = _FIRST + len(BUCKETS) + 1
FLUSH_SECONDS = 1.0
STATE_SECONDS = 5.0  # how long the numbers that need the database are kept


class Metrics:
    """The counters of one process. `folder` holds one file per process; None keeps them to this one (tests)."""

    def __init__(self, folder: Path | None = None) -> None:
        self.cells: dict[tuple[str, int], list[float]] = {}
        self.counters: dict[tuple[str, str], float] = {}
        self.gauges: dict[str, Callable[[], float]] = {}
        self._folder = folder
        self._file = folder / f"{os.getppid()}-{os.getpid()}.json" if folder else None
        self._changed = False
        self._timer: Any = None
        self._lock = threading.Lock()
        self._state: tuple[float, str] = (0.0, "")

    def request(self, route: str, status: int, seconds: float, received: int, sent: int) -> None:
        """Count one finished request. `route` is a route's class, never a path. From the loop's thread only."""
        cell = self.cells.get((route, status // 100))
        if cell is None:
            cell = self.cells[route, status // 100] = [0.0] * _WIDTH
        cell[0] += 1
        cell[1] += seconds
        cell[2] += received
        cell[3] += sent
        cell[_FIRST + bisect_left(BUCKETS, seconds)] += 1
        self._changed = True

    def count(self, name: str, label: str = "", amount: float = 1) -> None:
        """Add to a counter that has at most one label, `kind`. `label` is one of a few words of the code."""
        key = (name, label)
        self.counters[key] = self.counters.get(key, 0) + amount
        self._changed = True

    def keep_flushing(self, loop: Any) -> None:
        """Write the file once a second while there is something new."""
        if self._changed:
            self._changed = False
            self.flush()
        self._timer = loop.call_later(FLUSH_SECONDS, self.keep_flushing, loop)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.flush()

    def flush(self) -> None:
        if self._file is None:
            return
        from repoman.ops.logs import logger

        try:
            temporary = self._file.with_suffix(".new")
            temporary.write_text(json.dumps(self._content()))
            temporary.replace(self._file)
        except OSError as error:
            logger.warning("metrics_not_written", extra={"fields": {"reason": str(error.strerror)}})

    def _content(self) -> dict[str, Any]:
        return {
            "cells": [[route, status, cell] for (route, status), cell in list(self.cells.items())],
            "counters": [[name, label, value] for (name, label), value in list(self.counters.items())],
            "gauges": {name: read() for name, read in list(self.gauges.items())},
        }

    def forget_earlier(self) -> None:
        """Remove the files of processes whose server has ended."""
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in self._folder.glob("*-*.json"):
            parent = path.name.partition("-")[0]
            if parent.isdigit() and int(parent) != os.getppid() and not _is_running(int(parent)):
                path.unlink(missing_ok=True)

    def render(self) -> str:
        """The text of `/metrics` (Prometheus exposition format 0.0.4). Reads files and the database."""
        cells: dict[tuple[str, int], list[float]] = {}
        counters: dict[tuple[str, str], float] = {}
        gauges: dict[str, float] = {}
        for content, is_running in self._all():
            for route, status, values in content["cells"]:
                if len(values) == _WIDTH:
                    total = cells.setdefault((str(route), int(status)), [0.0] * _WIDTH)
                    for index, value in enumerate(values):
                        total[index] += value
            for name, label, value in content["counters"]:
                counters[str(name), str(label)] = counters.get((str(name), str(label)), 0) + value
            if is_running:
                for name, value in content["gauges"].items():
                    gauges[name] = gauges.get(name, 0) + value
        return "".join(_render(cells, counters, gauges)) + self._state_text()

    def _all(self) -> Iterable[tuple[dict[str, Any], bool]]:
        yield self._content(), True
        if self._folder is None or self._file is None:
            return
        for path in sorted(self._folder.glob("*-*.json")):
            if path == self._file:
                continue
            try:
                content = json.loads(path.read_text())
            except (OSError, ValueError):
                continue  # replaced or removed this very moment
            process = path.stem.partition("-")[2]
            yield content, process.isdigit() and _is_running(int(process))

    def _state_text(self) -> str:
        """Jobs, storage and quota, from the database; kept for 5 s so that scraping costs little."""
        with self._lock:
            at, text = self._state
            if time.monotonic() - at > STATE_SECONDS or not text:
                text = "".join(_render_state())
                self._state = (time.monotonic(), text)
            return text


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _head(name: str, kind: str, meaning: str) -> str:
    return f"# HELP {name} {meaning}\n# TYPE {name} {kind}\n"


def _render(
    cells: dict[tuple[str, int], list[float]], counters: dict[tuple[str, str], float], gauges: dict[str, float]
) -> Iterable[str]:
    ordered = sorted(cells.items())
    for name, index, meaning in (
        ("repoman_requests_total", _COUNT, "Requests answered."),
        ("repoman_request_bytes_total", _IN, "Body bytes received."),
        ("repoman_response_bytes_total", _OUT, "Body bytes sent."),
    ):
        yield _head(name, "counter", meaning)
        for (route, status), cell in ordered:
            yield f'{name}{{route="{route}",status="{status}xx"}} {_number(cell[index])}\n'
    yield _head("repoman_request_seconds", "histogram", "Time from the request's head to the end of its answer.")
    for (route, status), cell in ordered:
        labels = f'route="{route}",status="{status}xx"'
        running = 0.0
        for limit, value in zip((*BUCKETS, "+Inf"), cell[_FIRST:], strict=True):
            running += value
            yield f'repoman_request_seconds_bucket{{{labels},le="{limit}"}} {_number(running)}\n'
        yield f"repoman_request_seconds_sum{{{labels}}} {cell[_SECONDS]:.6f}\n"
        yield f"repoman_request_seconds_count{{{labels}}} {_number(cell[_COUNT])}\n"
    names = sorted({name for name, _ in counters})
    for name in names:
        yield _head(f"repoman_{name}_total", "counter", name.replace("_", " ").capitalize() + ".")
        for (own, label), value in sorted(counters.items()):
            if own == name:
                labels = f'{{kind="{label}"}}' if label else ""
                yield f"repoman_{name}_total{labels} {_number(value)}\n"
    if gauges:
        yield _head("repoman_queue_depth", "gauge", "Calls that wait for a thread, by pool.")
        for name, value in sorted(gauges.items()):
            if name.startswith("queue:"):
                yield f'repoman_queue_depth{{pool="{name[6:]}"}} {_number(value)}\n'
        for name, value in sorted(gauges.items()):
            if not name.startswith("queue:"):
                yield _head(f"repoman_{name}", "gauge", name.replace("_", " ").capitalize() + ".")
                yield f"repoman_{name} {_number(value)}\n"


def _render_state() -> Iterable[str]:
    """Numbers of the whole installation. Where the database does not answer, one line says so and the rest is left out."""
    from django.db import DatabaseError, InterfaceError
    from django.db.models import Count, Sum

    from repoman.blobs.models import Blob, Upload
    from repoman.catalog.models import Namespace, Repository
    from repoman.jobs.models import JobRun

    yield _head("repoman_database_up", "gauge", "Whether the database answered.")
    try:
        jobs = dict(JobRun.objects.values_list("state").annotate(count=Count("pk")))
        blobs = Blob.objects.aggregate(count=Count("pk"), size=Sum("size"))
        suspect = Blob.objects.filter(state=Blob.State.SUSPECT).count()
        usage = Namespace.objects.aggregate(
            count=Count("pk"), used=Sum("used_bytes"), reserved=Sum("reserved_bytes"), limit=Sum("quota_bytes")
        )
        repositories = Repository.objects.count()
        uploads = Upload.objects.count()
    except (DatabaseError, InterfaceError):
        yield "repoman_database_up 0\n"
        return
    yield "repoman_database_up 1\n"
    yield _head("repoman_jobs", "gauge", "Recorded jobs by state.")
    for state in JobRun.State.values:
        yield f'repoman_jobs{{state="{state}"}} {jobs.get(state, 0)}\n'
    for name, value, meaning in (
        ("repoman_blobs", blobs["count"], "Blobs stored."),
        ("repoman_blob_bytes", blobs["size"], "Bytes of all blobs, each counted once."),
        ("repoman_blobs_suspect", suspect, "Blobs whose bytes failed a check."),
        ("repoman_uploads_open", uploads, "Unfinished upload sessions."),
        ("repoman_namespaces", usage["count"], "Namespaces."),
        ("repoman_repositories", repositories, "Repositories."),
        ("repoman_quota_used_bytes", usage["used"], "Bytes that namespaces hold, in sum."),
        ("repoman_quota_reserved_bytes", usage["reserved"], "Bytes reserved by unfinished uploads, in sum."),
        ("repoman_quota_limit_bytes", usage["limit"], "Sum of the quotas that are set."),
    ):
        yield f"{_head(name, 'gauge', meaning)}{name} {value or 0}\n"
    free = _free_bytes()
    if free is not None:
        yield _head("repoman_storage_free_bytes", "gauge", "Free bytes of the blob folder.")
        yield f"repoman_storage_free_bytes {free}\n"


def _free_bytes() -> int | None:
    from django.conf import settings

    location = settings.CONFIGURATION.blobs
    if location.startswith("s3://"):
        return None
    try:
        found = os.statvfs(location)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.6f}"
