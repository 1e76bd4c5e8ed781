"""Documents: links resolve, commands and options exist, generated pages are up to date."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from bagformer_cli.cli.root import app
from tests.support import commands_page, configuration_page
from tests.support.twins import anchor_of

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "data").glob("*.md"),
    *(ROOT / "entity_dicts").glob("*.md"),
]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.relative_to(ROOT).as_posix())
def test_links_resolve(document: Path) -> None:
    text = FENCE.sub("", document.read_text("utf-8"))
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = document.parent / name if name else document
        assert file.exists(), f"{document.name}: {target}"
        if anchor:
            headings = {anchor_of(h) for h in HEADING.findall(file.read_text("utf-8"))}
            assert anchor in headings, f"{document.name}: {target}"


def _shown_commands(document: Path) -> list[str]:
    """List the ``xmr …`` lines of a document's shell blocks, with continued lines joined."""
    lines: list[str] = []
    for language, block in FENCE.findall(document.read_text("utf-8")):
        if language in {"bash", "sh", "shell", "console"}:
            lines += block.replace("\\\n", " ").splitlines()
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [part.removeprefix("$ ") for part in parts if re.match(r"(\$ )?xmr\b", part)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.relative_to(ROOT).as_posix())
def test_shown_commands_and_options_exist(document: Path) -> None:
    for line in _shown_commands(document):
        words = shlex.split(line, comments=True)[1:]
        command: Any = typer.main.get_command(app)
        path = ["xmr"]
        while hasattr(command, "list_commands") and words and not words[0].startswith("-"):
            path.append(words.pop(0))
            command = command.get_command(None, path[-1])
            assert command is not None, f"{document.name}: {line}"
        context = command.make_context(" ".join(path), [], resilient_parsing=True)
        known = {name for p in command.get_params(context) for name in (*p.opts, *p.secondary_opts)}
        for word in words:
            option = word.partition("=")[0]
            if option.startswith("--"):
                assert option in known, f"{document.name}: {line}"


def test_the_page_of_commands_is_up_to_date() -> None:
    """`make docs` writes it."""
    assert commands_page.PAGES["en"].read_text("utf-8") == commands_page.page("en")


def test_the_page_of_settings_is_up_to_date() -> None:
    """`make docs` writes it."""
    assert configuration_page.PAGES["en"].read_text("utf-8") == configuration_page.page("en")


def test_python_examples_compile() -> None:
    for document in DOCUMENTS:
        for language, block in FENCE.findall(document.read_text("utf-8")):
            if language == "python":
                compile(block, f"{document.name}", "exec")
