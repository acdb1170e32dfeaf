"""Processor time and memory of whole process trees, from /proc; and what machine this is."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import sqlite3
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.running import descendants

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one server in one row. `rate`: units a second; `cost`: processor seconds per unit; None: unknown."""

    rate: float
    cost: float | None = None


def tree(roots: Iterable[int]) -> list[int]:
    found: list[int] = []
    for root in roots:
        found += [root, *descendants(root)]
    return found


def processor_seconds(roots: Iterable[int]) -> float:
    """User and system time of the processes and all below them, those included that ended and were waited for."""
    ticks = 0
    for pid in tree(roots):
        with contextlib.suppress(OSError):
            # proc(5): after the command's closing parenthesis, utime stime cutime cstime are fields 12 to 15.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(word) for word in fields[11:15])
    return ticks / TICKS


def memory_bytes(roots: Iterable[int]) -> int:
    """Proportional set size of all processes: shared pages are counted once in the sum."""
    total = 0
    for pid in tree(roots):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def reset_peaks(roots: Iterable[int]) -> dict[int, int]:
    """From now on the kernel notes anew what is the most memory that each process has. Gives what each has now."""
    found = {}
    for pid in tree(roots):
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5)
            found[pid] = _resident(pid, "VmRSS")
    return found


def grown_bytes(roots: Iterable[int], before: Mapping[int, int]) -> int:
    """By how much the processes' resident sets had grown at their largest since `reset_peaks`, in all."""
    grown = 0
    for pid in tree(roots):
        with contextlib.suppress(OSError):
            grown += max(0, _resident(pid, "VmHWM") - before.get(pid, 0))
    return grown


def _resident(pid: int, field: str) -> int:
    """0 for a process that ends just now."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition(f"{field}:")[2].split()[0]) * 1024 if f"{field}:" in text else 0


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def spread(values: Sequence[float]) -> float:
    """Largest less smallest, as a share of the median."""
    middle = statistics.median(values)
    return (max(values) - min(values)) / middle if middle else 0.0


def machine(folder: Path) -> str:
    """One sentence, without names of hosts or folders."""
    memory = Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0]
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    release = ".".join(platform.release().split("-")[0].split(".")[:2])
    extras = [name for name, module in (("gunicorn_h1c", "gunicorn_h1c"), ("uvloop", "uvloop")) if _has(module)]
    return (
        f"{len(os.sched_getaffinity(0))} cores ({model}), {int(memory) / 2**20:.0f} GiB of memory, "
        f"{_file_system(folder)}, Linux {release}, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}, optional extras: {' and '.join(extras) or 'none'}"
    )


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _file_system(folder: Path) -> str:
    """Its type, by the longest mount point that holds the folder."""
    best = ("", "unknown file system")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split()
        point, kind = words[4], words[words.index("-") + 1]
        if f"{folder.resolve()}/".startswith(point.rstrip("/") + "/") and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]
