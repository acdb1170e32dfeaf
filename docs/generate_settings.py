"""Write docs/settings.md from the table in repoman/configuration.py: `python docs/generate_settings.py`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "settings.md"
HEAD = """\
# Settings

<!-- Written by docs/generate_settings.py from repoman/configuration.py; a test compares them. -->

Settings are environment variables. A bad value, or a name that starts with `REPOMAN_` and is not known, is named in one
line and the server does not start. An empty variable counts as unset. *Secret* values are never logged or shown.

| setting | kind | default | meaning |
| --- | --- | --- | --- |
"""
TAIL = """
Names are a contract: they do not change without an entry in the changelog.

For S3 the usual variables of boto3 count: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_DEFAULT_REGION`,
`AWS_ENDPOINT_URL`.
"""


def document() -> str:
    """The whole text of docs/settings.md."""
    sys.path.insert(0, str(ROOT))
    from repoman.configuration import SETTINGS

    rows = []
    for setting in SETTINGS:
        default = f"`{setting.default}`" if setting.default else "unset"
        meaning = setting.meaning.replace("|", "\\|") + (" *Secret.*" if setting.secret else "")
        rows.append(f"| `{setting.name}` | {setting.kind} | {default} | {meaning} |\n")
    return HEAD + "".join(rows) + TAIL


if __name__ == "__main__":
    TARGET.write_text(document())
