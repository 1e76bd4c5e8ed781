"""The root command: lists the subcommands, runs one of them, turns exceptions into exit codes.

Each subcommand is a module in this folder and is imported only when it runs, so that
``xmr --help`` is fast. All exceptions end here, as one block on stderr and an exit code: 2 if the
user's input is wrong, 130 if the user interrupted, 1 otherwise.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from bagformer_cli import __version__
from bagformer_cli.cli import console
from bagformer_cli.cli.app import App, Debug, Group
from bagformer_cli.cli.failures import UsageError, to_error
from bagformer_cli.cli.help import Rows
from bagformer_cli.cli.main import INTERRUPTED
from bagformer_cli.cli.printable import discard_output, is_broken
from bagformer_cli.cli.signals import signals_interrupt
from bagformer_cli.messages import tr

CLOSED_PIPE = 141  # the exit code that a shell gives for SIGPIPE

# Section of the help page -> command -> one-line help. `xmr NAME` is bagformer_cli/cli/NAME.py.
COMMANDS: dict[str, dict[str, str]] = {
    tr("Start here"): {
        "demo": tr("Run the full pipeline on generated data: draw, train, evaluate, search"),
        "doctor": tr("Check the installation and the hardware"),
    },
    tr("Data"): {
        "data": tr("Generate, check and import datasets"),
        "preprocess": tr("Cut titles into tokens and bags, store images"),
        "bags": tr("Show the entity bags of titles"),
        "dict": tr("Inspect, check and mine entity dictionaries"),
    },
    tr("Search"): {
        "encode": tr("Encode many images or titles to vector files (resumable)"),
        "index": tr("Build, update and inspect a search index"),
        "search": tr("Search an index by text or by image"),
        "serve": tr("Serve a search page and a JSON API over an index"),
    },
    tr("Models"): {
        "train": tr("Train a model"),
        "estimate": tr("Estimate memory, time and disk space of a training"),
        "mine": tr("Find hard negatives of titles for training"),
        "config": tr("Look up settings, show and copy built-in configurations"),
        "report": tr("Show training runs as one page: curves, figures, settings"),
        "eval": tr("Measure recall in both directions, write a submission"),
        "compare": tr("Compare trained models"),
        "score": tr("Score an image against titles"),
        "convert": tr("Convert published weights to a model folder"),
        "export": tr("Write models and vectors in other programs' formats"),
        "push": tr("Upload a model folder to the Hugging Face hub"),
        "bench": tr("Benchmark against reference implementations"),
    },
}


class _Xmr(Group):
    """The root group: lists every command, imports only the one that runs."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for section in COMMANDS.values() for name in section]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.commands and cmd_name in self.list_commands(ctx):
            module = importlib.import_module(f"bagformer_cli.cli.{cmd_name}")
            command = typer.main.get_command(module.app)
            command.name = cmd_name
            self.commands[cmd_name] = command
        return self.commands.get(cmd_name)

    def sections(self, ctx: Any) -> dict[str, Rows]:
        return {heading: list(commands.items()) for heading, commands in COMMANDS.items()}


def _show_version(value: bool) -> None:
    if value:
        print(f"xmr {__version__}")
        raise typer.Exit


app = App(
    tr("Image-title retrieval for Chinese e-commerce, with entity bags and late interaction.")
)


@app.callback(cls=_Xmr)
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help=tr("Show the version."), callback=_show_version, is_eager=True
        ),
    ] = False,
    debug: Debug = False,
) -> None:
    pass


def run(arguments: Sequence[str]) -> int:
    """Run ``xmr`` with the arguments after its name and return its exit code."""
    console.reset()
    code = 1
    try:
        try:
            with signals_interrupt():
                code = _run(list(arguments))
                sys.stdout.flush()
        except BrokenPipeError:
            if not is_broken(sys.stdout):
                raise
            code = CLOSED_PIPE
    except KeyboardInterrupt:
        console.interrupted()
        code = INTERRUPTED
    except Exception as failure:
        error = to_error(failure)
        console.error(error, failure)
        code = error.exit_code
    for stream in (sys.stdout, sys.stderr):
        if is_broken(stream):  # else Python would complain about it at exit
            discard_output(stream)
    return code


def _run(arguments: list[str]) -> int:
    """Parse the arguments and run their command.

    Typer's own ``main`` is not used: it takes every EOFError for the user's end of input.
    """
    command: Any = typer.main.get_command(app)
    try:
        with command.make_context("xmr", arguments) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    except UsageError as failure:
        if type(failure).__name__ != "NoArgsIsHelpError":
            raise
        print(failure, file=sys.stderr)  # `xmr` or `xmr dict` alone: the help page
        return 2
    return 0
