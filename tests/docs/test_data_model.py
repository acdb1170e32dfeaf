from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "data-model.md"


def test_the_invariants_are_those_that_fsck_checks() -> None:
    """Each check stands in brackets behind the invariant it holds, and no other name does."""
    import django

    django.setup()
    from repoman.services.fsck import CHECKS

    named = re.findall(r"\[`(\w+)`\]", PAGE.read_text())
    assert sorted(named) == sorted(check.__name__ for check in CHECKS)


def test_the_lock_order_is_the_one_in_the_code() -> None:
    code = (PAGE.parents[1] / "repoman" / "catalog" / "writes.py").read_text()
    said = re.search(r"Lock order: (.*?)\.\n", code, re.DOTALL)
    shown = re.search(r"^    Blob .*$", PAGE.read_text(), re.MULTILINE)
    assert said and shown

    def names(text: str) -> list[str]:
        return re.findall(r"\w+", re.sub(r"\([^)]*\)", "", text))

    assert names(shown.group()) == names(said.group(1))
