"""The OCI distribution conformance suite, nothing switched off, on a real server over HTTP."""

from __future__ import annotations

import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from tests import tools
from tests.running import Server

# Tests that the suite itself leaves out, each with the reason. Anything else that is skipped fails this test.
ALLOWED_SKIPS: dict[str, str] = {}


def run_suite(server: Server, folder: Path, *, username: str = "", password: str = "") -> dict[str, str]:
    """Outcome by test name: passed, failed, skipped."""
    key = server.make_repository(options={"allow_sparse_manifests": True})
    user, secret = server.make_user(key, "maintainer")
    done = subprocess.run(
        [str(tools.path("oci-conformance"))],
        cwd=folder,
        env={
            "HOME": str(folder),
            "PATH": "/usr/bin:/bin",
            "OCI_REGISTRY": server.host,
            "OCI_TLS": "disabled",
            "OCI_REPO1": f"{key}/one",
            "OCI_REPO2": f"{key}/two/nested",
            "OCI_USERNAME": username or user,
            "OCI_PASSWORD": password or secret,
            "OCI_VERSION": "dev",
            "OCI_DATA_SPARSE": "true",
            "OCI_RESULTS_DIR": str(folder / "results"),
        },
        capture_output=True,
        text=True,
        timeout=280,
    )
    report = folder / "results" / "junit.xml"
    assert report.exists(), f"the suite wrote no report:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    outcomes: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}/{case.get('name')}"
        outcome = "passed"
        for child in case:
            if child.tag in ("failure", "error"):
                outcome = f"failed: {child.get('message') or ''} {(child.text or '')[:600]}"
            elif child.tag == "skipped":
                outcome = "skipped"
        outcomes[name] = outcome
    assert done.returncode == 0 or any(value.startswith("failed") for value in outcomes.values()), done.stdout[-3000:]
    return outcomes


def test_conformance_suite_passes_and_skips_nothing_unexplained(server: Server, tmp_path: Path) -> None:
    outcomes = run_suite(server, tmp_path)
    failed = {name: outcome for name, outcome in outcomes.items() if outcome.startswith("failed")}
    assert not failed, "\n".join(f"{name}: {outcome}" for name, outcome in failed.items())
    assert sum(outcome == "passed" for outcome in outcomes.values()) > 100
    skipped = {name for name, outcome in outcomes.items() if outcome == "skipped"}
    assert skipped <= set(ALLOWED_SKIPS), f"skipped without a reason: {sorted(skipped - set(ALLOWED_SKIPS))}"
