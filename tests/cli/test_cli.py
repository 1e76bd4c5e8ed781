"""The command line as a whole: help pages, start-up, usage errors, streams."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from bagformer_cli import __version__
from bagformer_cli.cli.root import app
from tests.support.commands_page import commands

HEAVY = {
    "torch",
    "torchvision",
    "transformers",
    "timm",
    "lancedb",
    "numba",
    "tensorboard",
    "numpy",
    "pyarrow",
    "PIL",
    "rich",
}
EVERY: list[tuple[str, ...]] = [(), *commands()]


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_help_pages_fit_into_80_columns(
    path: tuple[str, ...], xmr: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their text is compared with docs/commands.md in tests/test_docs.py."""
    monkeypatch.setenv("COLUMNS", "80")
    run = xmr(*path, "--help")
    assert (run.code, run.err) == (0, "")
    assert all(len(line) <= 80 for line in run.out.splitlines() if not line.startswith("    xmr"))


@pytest.mark.parametrize("path", [p for p in EVERY if p], ids=" ".join)
def test_every_command_has_the_common_options_and_explains_all(path: tuple[str, ...]) -> None:
    command: Any = typer.main.get_command(app)
    for name in path:
        command = command.get_command(None, name)
    parameters = command.get_params(command.make_context("xmr", [], resilient_parsing=True))
    if not hasattr(command, "list_commands"):
        assert {"as_json", "debug"} <= {parameter.name for parameter in parameters}
    assert [p.name for p in parameters if p.name != "help" and not p.help] == []


@pytest.mark.parametrize(
    ("command", "verb"), [("vectors", "encode"), ("onnx", "compared")], ids=str
)
def test_an_export_says_what_it_does_with_a_split(
    command: str, verb: str, xmr: Callable[..., Any]
) -> None:
    shown = " ".join(xmr("export", command, "--help").out.split())
    assert re.search(rf"Split of --dataset [^.]*\b{verb}\.", shown)
    assert "Split to evaluate" not in shown


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import json, sys\n"
        "from bagformer_cli.cli.main import main\n"
        f"for path in {[list(path) for path in EVERY]!r}:\n"
        "    assert main([*path, '--help']) == 0\n"
        f"print(json.dumps(sorted({HEAVY!r} & set(sys.modules))), file=sys.stderr)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert json.loads(run.stderr) == []


def test_help_pages_are_in_chinese_with_xmr_lang() -> None:
    run = _process("--help", XMR_LANG="zh", COLUMNS="80")
    assert run.returncode == 0
    assert "用法" in run.stdout.splitlines()[0]
    assert "训练" in run.stdout


def test_version_is_printed(xmr: Callable[..., Any]) -> None:
    assert xmr("--version").out == f"xmr {__version__}\n"


def test_no_arguments_show_the_help_page(xmr: Callable[..., Any]) -> None:
    run = xmr()
    assert (run.code, run.out) == (2, "")
    assert run.err.startswith("Usage: xmr [OPTIONS] COMMAND")
    assert xmr("data").err.startswith("Usage: xmr data [OPTIONS] COMMAND")


def test_a_misspelt_command_suggests_a_similar_one(xmr: Callable[..., Any]) -> None:
    run = xmr("trian")
    assert run.code == 2
    assert "No such command." in run.err
    assert "Did you mean `xmr train`?" in run.err
    assert "Did you mean `xmr data check`?" in xmr("data", "chek").err


def test_an_unknown_command_points_to_the_list(xmr: Callable[..., Any]) -> None:
    run = xmr("qqqq")
    assert "`xmr --help` lists the commands." in run.err


def test_a_misspelt_option_suggests_a_similar_one(xmr: Callable[..., Any]) -> None:
    run = xmr("train", "--intraction", "bagwise")
    assert run.code == 2
    assert "found     xmr train --intraction\n" in run.err
    assert "expected  --interaction\n" in run.err
    assert "`xmr train --help`" in run.err


def test_a_value_that_is_not_a_choice_gets_the_choices(xmr: Callable[..., Any]) -> None:
    run = xmr("train", "--interaction", "bagwize")
    assert run.code == 2
    assert "xmr train --interaction" in run.err
    assert "bagwize" in run.err
    assert "bagwise" in run.err.split("expected")[1]


def test_a_value_of_the_wrong_type_gets_the_right_type(xmr: Callable[..., Any]) -> None:
    run = xmr("train", "--seed", "soon")
    assert run.code == 2
    assert "xmr train --seed" in run.err
    assert "soon" in run.err
    assert "expected  a whole number\n" in run.err
    assert "expected  at least 1\n" in xmr("search", "x", "-k", "0").err


def test_an_option_without_its_value_is_an_error(xmr: Callable[..., Any]) -> None:
    run = xmr("train", "--seed")
    assert run.code == 2
    assert "This option needs a value." in run.err
    assert "--seed" in run.err
    assert "`xmr train --help`" in run.err
    assert "`xmr dict stats --help`" in xmr("dict", "stats", "--titles").err


def test_too_many_arguments_are_listed(xmr: Callable[..., Any]) -> None:
    run = xmr("doctor", "one", "two")
    assert run.code == 2
    assert "Too many arguments." in run.err
    assert "found     one two\n" in run.err


def test_a_missing_argument_is_named(xmr: Callable[..., Any]) -> None:
    run = xmr("score")
    assert run.code == 2
    assert "A required argument or option is missing." in run.err
    assert "expected  IMAGE" in run.err


def test_doctor_reports_packages_and_cpu(xmr: Callable[..., Any]) -> None:
    run = xmr("doctor", "--json")
    assert run.code == 0
    found = run.json()
    assert found["xmr"] == __version__
    assert found["cpu"]["cores"] >= 1
    assert {"torch", "typer", "numpy"} <= {p["name"] for p in found["packages"]}
    assert all(p["ok"] for p in found["packages"] if p["extra"] is None)
    page = xmr("doctor").out
    assert "torch" in page
    assert "qdrant-client" in page


def test_doctor_fails_if_a_required_package_is_missing(
    xmr: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bagformer_cli import machine

    lacking = machine.Package("torch", ">=2.6", None, None, ok=False)
    monkeypatch.setattr(machine, "packages", lambda: [lacking])
    run = xmr("doctor")
    assert run.code == 1
    assert 'pip install "torch>=2.6"' in run.out


def test_a_closed_pipe_is_not_an_error() -> None:
    program = (
        f"{sys.executable} -m bagformer_cli.cli.main doctor --json | true; echo ${{PIPESTATUS[0]}}"
    )
    run = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert run.stderr == ""


def test_a_stream_without_chinese_gets_escapes() -> None:
    run = _process("bags", "红色连衣裙", PYTHONIOENCODING="ascii")
    assert run.returncode == 0
    assert "\\u7ea2" in run.stdout


def _process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bagformer_cli.cli.main", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("module", ["typer", "bagformer_cli.cli.console"])
def test_an_interrupt_while_xmr_is_imported_is_quiet(module: str) -> None:
    program = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *rest):\n"
        f"        if name == {module!r}:\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from bagformer_cli.cli.main import main\n"
        "sys.exit(main(['doctor']))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (130, "", "")


def test_the_package_runs_without_being_installed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bagformer_cli", "--version"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("xmr ")
