"""All tests of this folder once more, on PostgreSQL: its locks are finer than SQLite's, so its races are others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools import services

FOLDER = Path(__file__).parent


@pytest.mark.timeout(1200)
def test_services_hold_their_promises_on_postgresql(tmp_path: Path) -> None:
    if os.environ.get("REPOMAN_DATABASE_URL", "").startswith("postgresql"):
        return  # this is that run
    with services.postgres() as url:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "-n",
                "2",
                str(FOLDER),
                "--ignore",
                __file__,
            ],
            cwd=FOLDER.parent.parent,
            env={**os.environ, "REPOMAN_DATABASE_URL": str(url), "REPOMAN_DATA": str(tmp_path / "data")},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
