"""Declare commands: :class:`App`, and the two options that every command has.

A command file makes an :class:`App` and decorates functions. Each parses its options, calls a
plain function of a lower layer, and prints the result through ``console``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from bagformer_cli.cli import console
from bagformer_cli.cli.failures import UsageError, unknown_command
from bagformer_cli.cli.help import EXAMPLE, Rows, help_page
from bagformer_cli.messages import tr

Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help=tr("Print the result as JSON on stdout."),
        callback=lambda value: console.set_json(value),
    ),
]
"""``--json``: declare it as ``as_json: Json = False``."""

Debug = Annotated[
    bool,
    typer.Option(
        "--debug",
        help=tr("Print a traceback if the command fails."),
        callback=lambda value: console.set_debug(value),
        is_eager=True,
    ),
]
"""``--debug``: declare it as ``debug: Debug = False``; its callback does the rest."""


class Command(TyperCommand):
    """A command with a help page by :func:`help_page`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line; attach the command to an error, for its hint."""
        try:
            return super().parse_args(ctx, args)
        except UsageError as error:
            if getattr(error, "ctx", None) is None:
                error.ctx = ctx  # type: ignore[attr-defined]
            raise

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page of this command."""
        formatter.write(help_page(self, ctx, {}))


class Group(TyperGroup):
    """A command with subcommands; a misspelt one gets a suggestion."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page of this group."""
        formatter.write(help_page(self, ctx, self.sections(ctx)))

    def sections(self, ctx: Any) -> dict[str, Rows]:
        """Return the subcommands: heading to rows of name and one-line help."""
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                rows.append((name, (command.help or "").split("\n\n")[0].replace("\n", " ")))
        return {tr("Commands"): rows}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the subcommand ``args[0]``.

        Raises:
            InputError: It does not exist; the hint suggests a similar one.
        """
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise unknown_command(args[0], self.list_commands(ctx), ctx.command_path)
        return super().resolve_command(ctx, args)


class App(typer.Typer):
    """A Typer application in this project's style.

    One decorated function makes a plain command; several make a group of subcommands.

    Args:
        help: Help text of the group. Its first paragraph is the line in a list of commands.
        group: True makes a group even of a single subcommand.
    """

    def __init__(self, help: str | None = None, *, group: bool = False) -> None:
        super().__init__(
            cls=Group,
            help=help,
            add_completion=False,
            no_args_is_help=True,
            rich_markup_mode=None,
            pretty_exceptions_enable=False,
            context_settings={"help_option_names": ["-h", "--help"]},
        )
        if group:
            self.callback()(lambda: None)

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
        """Declare a command; takes what ``typer.Typer.command`` takes."""
        options.setdefault("cls", Command)
        if options.get("help"):  # Typer would strip the indentation of examples
            options["help"] = options["help"].replace("\n    ", f"\n{EXAMPLE}")
        return super().command(name, **options)
