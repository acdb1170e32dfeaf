"""Links between pages lead somewhere, and files that pages name are there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    {
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "formats").glob("*/README.md"),
    }
)
_FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_NAMED = re.compile(r"(?:repoman|formats|workers|tests|docs|deploy)/[A-Za-z0-9_./-]*[A-Za-z0-9_/]\Z")
_TOP = re.compile(
    r"(?:manage\.py|Makefile|compose\.yaml|pyproject\.toml|requirements(?:-dev)?\.lock|[A-Z]+\.md|LICENSE)\Z"
)


def prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text())


def anchors(page: Path) -> Iterator[str]:
    """GitHub's names for the headings of a page."""
    for heading in re.findall(r"^#+\s+(.*)$", prose(page), re.MULTILINE):
        plain = re.sub(r"[^\w\s-]", "", heading.replace("`", "").lower())
        yield re.sub(r"\s", "-", plain.strip())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    wrong = []
    for target in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        if not found.exists():
            wrong.append(f"{target}: no such file")
        elif anchor and anchor not in set(anchors(found)):
            wrong.append(f"{target}: no such heading")
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page: Path) -> None:
    wrong = []
    for code in _CODE.findall(prose(page)):
        for word in code.split():
            name = word.strip(",:;()").split(":", 1)[0]
            if (_NAMED.match(name) or _TOP.match(name)) and "…" not in name:
                if not (ROOT / name).exists() and not (page.parent / name).exists():
                    wrong.append(name)
    assert wrong == []


def test_every_page_of_the_docs_is_linked_from_another() -> None:
    linked = set()
    for page in PAGES:
        for target in _LINK.findall(prose(page)):
            if not re.match(r"[a-z]+:", target):
                linked.add((page.parent / target.partition("#")[0]).resolve())
    pages = {page for page in PAGES if (ROOT / "docs") in page.parents}
    assert {str(page.relative_to(ROOT)) for page in pages - linked} == set()
