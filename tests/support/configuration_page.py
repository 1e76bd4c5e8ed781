"""``make docs``: write every setting into ``docs/configuration.md`` and its Chinese twin."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = {"en": DOCS / "configuration.md", "zh": DOCS / "configuration.zh.md"}
HEADERS = {
    "en": """\
# Settings

Written by `make docs` from the schema; `xmr config list` shows the same. A configuration file
states what differs from the defaults, or from the file that it `extends`; `--mode` and `--set` are
applied on top. `xmr config show NAME` prints a whole configuration, `xmr config copy NAME FILE`
writes it with comments.
""",
    "zh": """\
# 配置项

本页由 `make docs` 根据配置的定义生成，`xmr config list` 显示同样的内容。\
配置文件只写与默认值（或与 `extends` 所指文件）不同的项，`--mode` 和 `--set` 再叠加在它上面。\
`xmr config show NAME` 打印完整的配置，`xmr config copy NAME FILE` 把它连同注释写成文件。
""",
}
TABLES = {
    "en": ("Built-in configurations", "Modes", ("name", "content")),
    "zh": ("内置配置", "模式", ("名称", "内容")),
}
COLUMNS = {
    "en": ("setting", "default", "values", "meaning"),
    "zh": ("配置项", "默认值", "取值", "含义"),
}


def page(language: str) -> str:
    """Return the text of the page in a language, ``en`` or ``zh``."""
    # In a new process, because the language is chosen when the package is imported.
    return subprocess.run(
        [sys.executable, "-m", "tests.support.configuration_page", "--print", language],
        env={**os.environ, "XMR_LANG": language},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def _text(language: str) -> str:
    from bagformer_cli.config.builtin import CONFIGS, MODES
    from bagformer_cli.config.settings import settings

    parts = [HEADERS[language]]
    *titles, names = TABLES[language]
    for title, about in zip(titles, (CONFIGS, MODES), strict=True):
        lines = [f"| `{name}` | {text} |" for name, text in about.items()]
        parts.append("\n".join([f"## {title}\n", *_head(names), *lines, ""]))
    rows: list[str] = []
    for one in settings():
        if one.section and "." not in one.name:
            parts += _table(rows, language)
            rows = []
            parts.append(f"## {one.name}\n\n{one.meaning}\n")
            continue
        default = f"`{one.default}`" if one.default else ""
        meaning = one.meaning.replace("|", "\\|")
        rows.append(f"| `{one.name}` | {default} | {one.kind} | {meaning} |")
    return "\n".join([*parts, *_table(rows, language)])


def _head(names: tuple[str, ...]) -> list[str]:
    return [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]


def _table(rows: list[str], language: str) -> list[str]:
    return ["\n".join([*_head(COLUMNS[language]), *rows, ""])] if rows else []


if __name__ == "__main__":
    if "--print" in sys.argv:
        sys.stdout.write(_text(sys.argv[-1]))
    else:
        for name, path in PAGES.items():
            path.write_text(page(name), encoding="utf-8")
