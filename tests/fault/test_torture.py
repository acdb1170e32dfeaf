"""M1, M2, M10, Q3, R3, R4, R5, R8, W2, W3, G5, G12: a few rounds of the torture.

`python -m tests.torture` runs as many as you like.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.running import Deployment
from tests.tools.upstream import Answer, Upstream
from tests.torture.run import Plan, torture


@pytest.mark.timeout(900)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_M1_Q3_what_was_acknowledged_survives_kill_and_collection(database: str, tmp_path: Path) -> None:
    told: list[str] = []
    failures = torture(
        Plan(rounds=2, seconds=3.0, clients=3, seed=3, database=database), tmp_path / "data", told.append
    )
    assert not failures, "\n".join([*failures, *told])


def test_R1_G4_access_that_changes_during_a_fetch_is_no_error(tmp_path: Path) -> None:
    with (
        Upstream() as upstream,
        Deployment.embedded(tmp_path / "data", REPOMAN_UPSTREAM_ALLOW="127.0.0.0/8") as server,
        ThreadPoolExecutor(1) as pool,
    ):
        upstream.add("/slow.bin", Answer(b"slow", delay=2))
        key = server.make_repository(format="generic", type="remote", remote={"url": upstream.url("/")})
        reader = server.user(key, "reader")
        fetching = pool.submit(reader.get, f"/generic/{key}/slow.bin")
        while not upstream.count("/slow.bin"):
            time.sleep(0.05)
        server.make_user(key, "reader")
        assert (fetching.result().status_code, fetching.result().content) == (200, b"slow")
