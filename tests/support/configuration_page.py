"""``make docs``: write every setting into ``docs/configuration.md``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
HEADER = """\
# Settings

Written by `make docs` from the schema; `xmr config list` shows the same. A configuration file
states what differs from the defaults, or from the file that it `extends`; `--mode` and `--set` are
applied on top. `xmr config show NAME` prints a whole configuration, `xmr config copy NAME FILE`
writes it with comments.
"""


def page() -> str:
    """Return the text of ``docs/configuration.md``."""
    # In a new process, because the language is chosen when the package is imported.
    return subprocess.run(
        [sys.executable, "-m", "tests.support.configuration_page", "--print"],
        env={**os.environ, "XMR_LANG": "en"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def _text() -> str:
    from bagformer_cli.config.builtin import CONFIGS, MODES
    from bagformer_cli.config.settings import settings

    parts = [HEADER]
    for title, about in (("Built-in configurations", CONFIGS), ("Modes", MODES)):
        rows = [f"| `{name}` | {text} |" for name, text in about.items()]
        parts.append("\n".join([f"## {title}\n", "| name | content |", "|---|---|", *rows, ""]))
    rows = []
    for one in settings():
        if one.section and "." not in one.name:
            parts += _table(rows)
            rows = []
            parts.append(f"## {one.name}\n\n{one.meaning}\n")
            continue
        default = f"`{one.default}`" if one.default else ""
        meaning = one.meaning.replace("|", "\\|")
        rows.append(f"| `{one.name}` | {default} | {one.kind} | {meaning} |")
    return "\n".join([*parts, *_table(rows)])


def _table(rows: list[str]) -> list[str]:
    head = ["| setting | default | values | meaning |", "|---|---|---|---|"]
    return ["\n".join([*head, *rows, ""])] if rows else []


if __name__ == "__main__":
    if "--print" in sys.argv:
        sys.stdout.write(_text())
    else:
        PAGE.write_text(page(), encoding="utf-8")
