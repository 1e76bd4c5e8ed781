"""``make docs``: write all help pages into ``docs/commands.md``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from bagformer_cli.cli.root import COMMANDS, app

PAGE = Path(__file__).resolve().parents[2] / "docs" / "commands.md"
HEADER = """\
# Commands

Written by `make docs` from the help pages; `xmr COMMAND --help` shows the same.
"""


def commands() -> Iterator[tuple[str, ...]]:
    """List all commands and subcommands: ``("data",)``, ``("data", "check")``, …"""
    root: Any = typer.main.get_command(app)
    for section in COMMANDS.values():
        for name in section:
            yield (name,)
            for subcommand in getattr(root.get_command(None, name), "commands", {}):
                yield (name, subcommand)


def page() -> str:
    """Return the text of ``docs/commands.md``."""
    every = [(), *commands()]
    program = (
        "import sys\n"
        "from bagformer_cli.cli.main import main\n"
        f"for path in {every!r}:\n"
        "    main([*path, '--help'])\n"
        "    print(chr(0), end='')\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "XMR_LANG": "en", "COLUMNS": "90"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    parts = [HEADER]
    for path, text in zip(every, shown.split("\0"), strict=False):
        title = " ".join(["xmr", *path])
        parts.append(
            f"{'##' if len(path) < 2 else '###'} {title}\n\n```text\n{text.strip()}\n```\n"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
