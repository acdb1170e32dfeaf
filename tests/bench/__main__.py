"""Run the benchmarks: see the package. Needs the tools of `python tests/tools/provision.py`."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from tests.bench import area_helm, area_maven, area_npm, area_pypi, area_remote, peers, report, rows, subjects
from tests.running import ROOT
from tests.tools import provision, services


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "rows",
        nargs="*",
        metavar="ROW",
        help=f"beginnings of rows, such as tag, up-4k or npm-full; areas: {', '.join(rows.AREAS)}",
    )
    parser.add_argument("--quick", action="store_true", help="one round, less content: about seven minutes")
    parser.add_argument(
        "--output", type=Path, help="write the table to this file; a full run writes docs/benchmarks.md, others show it"
    )
    parser.add_argument("--folder", type=Path, help="where the servers keep their data (default: the temporary folder)")
    parser.add_argument("--peers", help="comma-separated, instead of all; 'none' for ours alone; images only")
    parser.add_argument("--rounds", type=int, help="instead of what the run has")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    plan = rows.QUICK if given.quick else rows.FULL
    if given.rounds:
        from dataclasses import replace

        plan = replace(plan, rounds=given.rounds, large_rounds=given.rounds, area_rounds=given.rounds)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=given.folder) as created, contextlib.ExitStack() as stack:
        folder = Path(created)
        folder.chmod(0o711)  # a front nginx reaches the files in it
        bench = rows.Bench(plan, folder, tuple(given.rows))
        names = []
        if bench.includes("oci"):
            names.append(_images(bench, given.peers))
        stack.callback(lambda: bench.rest.close())
        for area, (measure, versions) in AREAS.items():
            if bench.includes(area) and given.peers is None:
                bench.say(area)
                bench.begin(area)
                try:
                    measure(bench)
                except rows.LoadError:
                    for server in bench.shared.values():
                        if isinstance(server, subjects.Repoman):
                            print(server.server.tail(), file=sys.stderr)  # its folder goes
                    raise
                names.append(versions())
        servers = ", ".join(dict.fromkeys(name for name in names if name)) or "alone"
        bench.say(f"done in {time.monotonic() - begun:.0f} s")
        # Before the folder is removed, which takes a while.
        text = report.render(bench, servers, folder)
        whole = not (given.quick or given.rows or given.peers or given.rounds)
        output = given.output or (ROOT / "docs" / "benchmarks.md" if whole else None)
        if output:
            output.write_text(text)
        else:
            print(text, flush=True)
    return 0


def _versions(*tools: str) -> Callable[[], str]:
    return lambda: ", ".join(f"{name} {subjects.pinned(tool)()}" for name, tool in (item.split(":") for item in tools))


AREAS: dict[str, tuple[Callable[[rows.Bench], None], Callable[[], str]]] = {
    "npm": (area_npm.measure, _versions("Verdaccio:verdaccio")),
    "pypi": (area_pypi.measure, _versions("devpi:devpi-server", "pypiserver:pypi-server")),
    "maven": (area_maven.measure, lambda: "nginx"),
    "helm": (area_helm.measure, peers.chartmuseum_version),
    "remote": (area_remote.measure, lambda: ""),
}


def _images(bench: rows.Bench, peers: str | None) -> str:
    """The rows of container images; their servers have ended when it returns."""
    with contextlib.ExitStack() as stack:
        names = _start(bench, stack, peers)
        rows.seed(bench)
        for group in rows.GROUPS:
            bench.say(group.__name__)
            group(bench)
    bench.peers, bench.ours, bench.nginx = [], None, None
    return names


def _start(bench: rows.Bench, stack: contextlib.ExitStack, peers: str | None) -> str:
    """Start all servers; a text that names the peers."""
    names = []
    wanted = None if peers is None else set(peers.split(","))
    for peer in subjects.PEERS:
        if wanted is not None and peer.name not in wanted:
            continue
        if not peer.there():
            bench.notes.append(f"{peer.name} is not on this machine's PATH and was not measured.")
            continue
        bench.peers.append(stack.enter_context(peer.start(bench.folder / peer.name)))
        names.append(f"{peer.name} {peer.version()}")
    if wanted is None or "nginx" in wanted:
        bench.nginx = stack.enter_context(subjects.nginx())
        names.append("nginx")
    bench.ours = stack.enter_context(subjects.repoman(bench.folder / "repoman"))
    return ", ".join(names)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except (services.ServerError, rows.LoadError, provision.ProvisionError, RuntimeError) as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(1)
