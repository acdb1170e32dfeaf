"""M1, M2, M10, Q3, R3, R4, R8: a few rounds of the torture (`python -m tests.torture` runs as many as you like)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.run import Plan, torture


@pytest.mark.timeout(900)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_M1_Q3_what_was_acknowledged_survives_kill_and_collection(database: str, tmp_path: Path) -> None:
    told: list[str] = []
    failures = torture(
        Plan(rounds=3, seconds=5.0, clients=4, seed=3, database=database), tmp_path / "data", told.append
    )
    assert not failures, "\n".join([*failures, *told])
