from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_settings_page_equals_the_table_in_the_code() -> None:
    """Otherwise: python docs/generate_settings.py"""
    script = "import runpy; print(runpy.run_path('docs/generate_settings.py')['document'](), end='')"
    answer = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (ROOT / "docs" / "settings.md").read_text() == answer.stdout


def test_every_setting_that_a_page_names_exists() -> None:
    from repoman.configuration import NOT_SETTINGS, SETTINGS

    known = {setting.name for setting in SETTINGS} | NOT_SETTINGS
    wrong = []
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for number, line in enumerate(page.read_text().splitlines(), 1):
            for name in re.findall(r"REPOMAN_[A-Z_]*[A-Z]", line):
                if name not in known:
                    wrong.append(f"{page.relative_to(ROOT)}:{number}: {name}")
    assert wrong == []
