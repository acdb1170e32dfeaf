"""The how-to of remote and virtual repositories, typed into a real shell."""

from __future__ import annotations

from pathlib import Path

from tests.docs.snippets import ADDRESS, ROOT, Reader
from tests.running import Deployment

PAGE = ROOT / "docs/remote-and-virtual.md"


def test_the_commands_work_as_printed(tmp_path: Path) -> None:
    assert PAGE.read_text().count(ADDRESS) == 1
    settings = {"REPOMAN_ADMIN_PASSWORD": "", "REPOMAN_UPSTREAM_ALLOW": "127.0.0.0/8"}
    with Deployment.embedded(tmp_path / "data", **settings) as server:
        failures = Reader(tmp_path / "reader", server.host, server.data).run_page(PAGE)
        assert not failures, "\n".join(failures) + f"\n--- server\n{server.tail()}"
