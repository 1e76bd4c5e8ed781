"""``xmr``: the command itself.

Each command lives in a file of its own in this folder and is imported when it is run, so that
``xmr --help`` answers at once. Whatever goes wrong ends here: one block on stderr, and the exit
code 2 (the user's input is wrong), 1 (something else failed) or 130 (interrupted).
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from bagformer_cli import __version__
from bagformer_cli.cli import console
from bagformer_cli.cli.app import App, Debug, Group
from bagformer_cli.cli.failures import explain
from bagformer_cli.cli.help import Rows
from bagformer_cli.messages import tr

# Section of the help page -> command -> its one line. `xmr NAME` is bagformer_cli/cli/NAME.py.
COMMANDS: dict[str, dict[str, str]] = {
    tr("Start here"): {
        "demo": tr("Go the whole way once: draw data, train, evaluate, score"),
        "doctor": tr("Show what is installed and what this machine can do"),
    },
    tr("Data"): {
        "data": tr("Make, check and import datasets"),
        "preprocess": tr("Turn titles into tokens and bags, images into a store"),
        "bags": tr("Show the entity bags of titles"),
        "dict": tr("Look at and check entity dictionaries"),
    },
    tr("Search"): {
        "encode": tr("Turn piles of images or titles into files of vectors"),
        "index": tr("Build an index over a catalogue, look at it, change it"),
        "search": tr("Search a catalogue by words or by an image"),
    },
    tr("Models"): {
        "train": tr("Train a model"),
        "eval": tr("Measure recall both ways, write the official submission"),
        "compare": tr("Put trained models side by side"),
        "score": tr("Score an image against titles"),
        "convert": tr("Bring published weights into this project's form"),
        "bench": tr("Measure speed beside the plain reference way"),
    },
}


class _Xmr(Group):
    """The root: knows every command by name and imports the one that is run."""

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

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            console.interrupted()
            raise typer.Exit(130) from None


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``xmr`` and return its exit code.

    Args:
        arguments: What follows ``xmr``; default ``sys.argv[1:]``.
    """
    console.reset()
    try:
        command = typer.main.get_command(app)
        code = command.main(
            args=list(sys.argv[1:] if arguments is None else arguments),
            prog_name="xmr",
            standalone_mode=False,
        )
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        # The reader went away (`xmr bags … | head`): say nothing, now or at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except typer.Abort:
        console.interrupted()
        return 130
    except Exception as failure:
        if type(failure).__name__ == "NoArgsIsHelpError":  # `xmr` or `xmr dict` alone
            print(failure, file=sys.stderr)
            return 2
        known = explain(failure)
        console.error(known, failure)
        return known.exit_code


if __name__ == "__main__":
    sys.exit(main())
