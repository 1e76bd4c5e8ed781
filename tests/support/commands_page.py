"""``make docs``: write all help pages into ``docs/commands.md`` and ``docs/commands.zh.md``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from bagformer_cli.cli.root import COMMANDS, app

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = {"en": DOCS / "commands.md", "zh": DOCS / "commands.zh.md"}
HEADERS = {
    "en": """\
# Commands

Written by `make docs` from the help pages; `xmr COMMAND --help` shows the same.
""",
    "zh": """\
# 命令

本页由 `make docs` 根据各命令的帮助生成，内容与 `xmr COMMAND --help` 相同。
""",
}


def commands() -> Iterator[tuple[str, ...]]:
    """List all commands and subcommands: ``("data",)``, ``("data", "check")``, …"""
    root: Any = typer.main.get_command(app)
    for section in COMMANDS.values():
        for name in section:
            yield (name,)
            for subcommand in getattr(root.get_command(None, name), "commands", {}):
                yield (name, subcommand)


def page(language: str) -> str:
    """Return the text of the page in a language, ``en`` or ``zh``."""
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
        env={**os.environ, "XMR_LANG": language, "COLUMNS": "90"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    parts = [HEADERS[language]]
    for path, text in zip(every, shown.split("\0"), strict=False):
        title = " ".join(["xmr", *path])
        parts.append(
            f"{'##' if len(path) < 2 else '###'} {title}\n\n```text\n{text.strip()}\n```\n"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    for name, path in PAGES.items():
        path.write_text(page(name), "utf-8")
