"""The rounds: storm, kill, restart, check; and the end, when nothing may be left."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from formats.npm import samples as npm
from tests.running import ADMIN_PASSWORD, Server, descendants, environment, free_port
from tests.tools import services
from tests.tools.upstream import Upstream

from .check import Checker
from .kinds import KINDS, packument_path
from .mirrors import Mirrors, Trouble
from .model import Known, Ledger, Place, content
from .packages import Packages
from .storm import Client, Collector, Reader

QUOTA = 6_000_000
READERS = 2


@dataclass(frozen=True)
class Plan:
    """`strict_share` of the rounds collect with a grace of a minute, the others with next to none."""

    rounds: int = 20
    seconds: float = 10.0
    clients: int = 6
    seed: int = 1
    database: str = "sqlite"
    strict_share: float = 0.5


def torture(plan: Plan, data: Path, tell: Callable[[str], None] = lambda line: None) -> list[str]:
    """Run the plan in the folder `data`. Returns what went wrong: nothing, in words."""
    with Upstream() as upstream, _server(plan, data) as server:
        return _Torture(plan, server, upstream, tell).run()


@contextlib.contextmanager
def _server(plan: Plan, data: Path) -> Iterator[Server]:
    port = free_port()
    with contextlib.ExitStack() as stack:
        settings = {
            "REPOMAN_LOG_LEVEL": "WARNING",
            "REPOMAN_ACCESS_LOG": "false",
            "REPOMAN_TRASH_WINDOW": "3600",
            "REPOMAN_UPSTREAM_ALLOW": "127.0.0.0/8",
        }
        if plan.database == "postgresql":
            settings["REPOMAN_DATABASE_URL"] = str(stack.enter_context(services.postgres()))
        server = Server(f"http://127.0.0.1:{port}", data, environment(data, port, **settings))
        stack.callback(server.stop)
        yield server


class _Torture:
    def __init__(self, plan: Plan, server: Server, upstream: Upstream, tell: Callable[[str], None]) -> None:
        self.plan = plan
        self.server = server
        self.tell = tell
        self.ledger = Ledger()
        self.rng = random.Random(plan.seed)
        self.known = [Known() for _ in range(plan.clients)]
        self.mirrors = Mirrors(upstream, random.Random(plan.seed))

    def run(self) -> list[str]:
        self.server.start()
        self._prepare()
        for number in range(1, self.plan.rounds + 1):
            self._round(number)
            if self.ledger.failures:
                return [*self.ledger.failures, f"the end of the server's log:\n{self.server.tail(20_000)}"]
        self._end()
        return self.ledger.failures

    def _prepare(self) -> None:
        one, two = self.server.make_namespace(), self.server.make_namespace()
        self.tight_namespace = self.server.make_namespace(quota_bytes=QUOTA)
        make = self.server.make_repository
        username, password = self.server.make_user(one, "maintainer")
        for namespace in (two, self.tight_namespace):
            answer = self.server.admin.put(
                f"/api/v1/namespaces/{namespace}/grants/{username}", json={"role": "maintainer"}
            )
            assert answer.status_code in (200, 201), answer.text
        self.remotes = self.mirrors.build(self.server, two)
        self.place = Place(
            url=self.server.url,
            sign_in=(username, password),
            admin=("admin", ADMIN_PASSWORD),
            images=[make(each, anonymous_read=True) for each in (one, one, two)],
            raws=[make(each, format="generic") for each in (one, two)],
            tight=make(self.tight_namespace, format="generic"),
            packages={format: [make(each, format=format) for each in (one, two)] for format in KINDS},
            shared=[content(self.rng, 200_000) for _ in range(10)],
        )
        # The first npm publication makes the key that signs them all, once.
        document, _ = npm.publication("first", "1.0.0")
        self._expect(self.server.admin.put(packument_path(self.place.packages["npm"][0], "first"), json=document), 201)

    def _round(self, number: int) -> None:
        rng = random.Random(f"{self.plan.seed}:{number}")
        is_strict = rng.random() < self.plan.strict_share
        stop = threading.Event()
        threads: list[threading.Thread] = [
            self._client(kind, index, known, random.Random(f"{self.plan.seed}:{number}:{index}"), stop, is_strict)
            for index, (kind, known) in enumerate(
                [*((Client, known) for known in self.known), *((Reader, Known()) for _ in range(READERS))]
            )
        ]
        admin = self.server.client("admin", ADMIN_PASSWORD)
        collector = Collector(admin, (60, 3600) if is_strict else (0, 0, 1, 60), self.ledger, rng, stop)
        trouble = Trouble(self.mirrors, random.Random(f"{self.plan.seed}:{number}:trouble"), stop)
        before = self.ledger.counts.copy()
        threads += [collector, trouble]
        for thread in threads:
            thread.start()
        moment = rng.uniform(0.2, 1.0) * self.plan.seconds
        how = self._disturb(rng, moment, stop)
        for thread in threads:
            thread.join(90)
            if thread.is_alive():
                self.ledger.fail(f"{thread.name} hangs")
        admin.close()
        began = time.monotonic()
        self.server.start()
        ready = time.monotonic() - began
        self.server.admin.close()
        self.server.__post_init__()  # connections of before the kill are dead
        checker = Checker(self.server, self.ledger)
        checker.check(self.known)
        checker.mirrors(self.mirrors)
        self._burned(rng)
        checker.quota(self.tight_namespace)
        report = checker.fsck()
        counts = self.ledger.counts - before
        self.tell(
            f"round {number}: {'grace 60' if is_strict else 'grace 0'}, {how} after {moment:.1f} s, ready in {ready:.1f} s; "
            + ", ".join(f"{name} {counts[name]}" for name in sorted(counts) if counts[name])
            + f"; fsck {json.dumps(report.get('checked', {}))} notices {json.dumps(report.get('notices', {}))[:300]}"
        )

    def _client(
        self, kind: type[Client], index: int, known: Known, rng: random.Random, stop: threading.Event, is_strict: bool
    ) -> Client:
        return kind(
            index,
            self.place,
            self.mirrors,
            known=known,
            ledger=self.ledger,
            rng=rng,
            stop=stop,
            is_strict=is_strict,
        )

    def _burned(self, rng: random.Random) -> None:
        """Each client tries to take some names that were removed."""
        for index, known in enumerate(self.known):
            client = self._client(Client, index, known, rng, threading.Event(), True)
            for _ in range(3):
                Packages(client).publish_burned()
            client.http.close()

    def _disturb(self, rng: random.Random, moment: float, stop: threading.Event) -> str:
        """Let the storm rage until the moment; then end the server. Says how."""
        told = ""
        if rng.random() < 0.3:
            time.sleep(moment / 2)
            told = self._kill_one(rng)
            time.sleep(moment / 2)
        else:
            time.sleep(moment)
        stop_first = rng.random() < 0.2
        if stop_first:
            stop.set()
            status = self.server.stop(signal.SIGTERM)
            if status != 0:
                self.ledger.fail(f"the server ended with {status} after SIGTERM:\n{self.server.tail(2000)}")
            return f"{told}SIGTERM"
        self.server.kill()
        stop.set()
        return f"{told}SIGKILL"

    def _kill_one(self, rng: random.Random) -> str:
        assert self.server.process is not None
        below = descendants(self.server.process.pid)
        if not below:
            return ""
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(below), signal.SIGKILL)
        return "one process, then "

    def _end(self) -> None:
        """Delete all there is; then nothing may be left, in rows or in the store."""
        checker = Checker(self.server, self.ledger)
        http = self.server.admin
        for known in self.known:
            for session in known.sessions:
                http.delete(session.location)  # not the administrator's: it ends by its own time
            for one in known.manifests.values():
                if one.slot.known:
                    self._expect(http.delete(f"/v2/{one.repository}/{one.package}/manifests/{one.digest}"), 202)
            for (repository, path), slot in known.files.items():
                if slot.known:
                    self._expect(http.delete(f"/generic/{repository}/{path}"), 204, 202, 200)
        for format, keys in self.place.packages.items():
            first = ("first",) if format == "npm" else ()
            for key, package in itertools.product(keys, (*KINDS[format].packages, *first)):
                everything = {"package": package, "all": "true"}
                self._expect(http.delete(f"/api/v1/repositories/{key}/versions", params=everything), 204, 404)
        for key in self.remotes:
            self._expect(http.delete(f"/api/v1/repositories/{key}", params={"force": "true"}), 204)
        self._until_deleted(http)
        self.server.stop()
        self.server.environment["REPOMAN_UPLOAD_TTL"] = "0"
        for command in (
            # The leases of killed processes would keep their sessions for a minute more.
            (
                "shell",
                "-v",
                "0",
                "-c",
                "from repoman.blobs.models import Upload; Upload.objects.update(leased_until=None)",
            ),
            ("run_job", "expire_uploads"),
            ("purge", "--window-seconds", "0"),
            ("collect", "--grace-seconds", "0", "--force"),
        ):
            done = self.server.manage(*command)
            if done.returncode != 0:
                self.ledger.fail(f"{command} ended with {done.returncode}: {done.stderr[-1000:]}")
        report = checker.fsck()
        left = {name: report.get("checked", {}).get(name) for name in ("blob_bytes", "object_rows", "holdings_needed")}  # type: ignore[attr-defined]
        if any(left.values()):
            self.ledger.fail(f"after everything was deleted there are left: {left}; {report['notices']}")
        self.server.start()
        self.server.__post_init__()
        for namespace in {key.partition("/")[0] for key in (*self.place.images, *self.place.raws, self.place.tight)}:
            found = self.server.admin.get(f"/api/v1/namespaces/{namespace}").json()
            if found["used_bytes"] != 0:
                self.ledger.fail(f"{namespace} is empty and uses {found['used_bytes']} bytes")
        self.tell(f"the end: nothing is left; in all {dict(sorted(self.ledger.counts.items()))}")

    def _until_deleted(self, http: httpx.Client) -> None:
        for _ in range(600):
            jobs = http.get("/api/v1/jobs", params={"limit": 1000}).json()["items"]
            if all(job["state"] in ("succeeded", "failed") for job in jobs if job["kind"] == "delete_repository"):
                return
            time.sleep(0.1)
        self.ledger.fail("the repositories that were deleted are not gone after a minute")

    def _expect(self, answer: httpx.Response, *statuses: int) -> None:
        if answer.status_code not in statuses:
            self.ledger.fail(f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text[:200]}")


def main(arguments: list[str] | None = None) -> int:
    import argparse
    import tempfile

    parser = argparse.ArgumentParser(prog="python -m tests.torture")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10.0, help="the longest a storm lasts")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    given = parser.parse_args(arguments)
    plan = Plan(given.rounds, given.seconds, given.clients, given.seed, given.database)
    print(f"seed {plan.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="repoman-torture-") as folder:
        failures = torture(plan, Path(folder) / "data", lambda line: print(line, flush=True))
        for failure in failures[:50]:
            print(f"FAILURE {failure}", file=sys.stderr)
    return 1 if failures else 0
