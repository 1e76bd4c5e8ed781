"""How commands are declared: :class:`App`, the two options every command has, and the help pages.

A command file makes an :class:`App` and decorates functions that parse, call a plain function of
a lower layer and print through ``console``. Help pages are plain text in sections, laid out here
rather than by Typer so that Chinese wraps at the right column and nothing heavy is imported.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from bagformer_cli.cli import console
from bagformer_cli.cli.console import cells, wrap
from bagformer_cli.cli.failures import unknown_command
from bagformer_cli.messages import tr

MAX_WIDTH = 100
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
        help=tr("Show a traceback where something fails."),
        callback=lambda value: console.set_debug(value),
        is_eager=True,
    ),
]
"""``--debug``: declare it as ``debug: Debug = False``; nothing else is to be done with it."""


class Command(TyperCommand):
    """A command whose help page is laid out by :func:`_write_help`."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page of this command."""
        _write_help(self, ctx, formatter, [])


class Group(TyperGroup):
    """A command with subcommands, the nearest of which is named where there is no such one."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page of this group."""
        _write_help(self, ctx, formatter, self.sections(ctx))

    def sections(self, ctx: Any) -> list[tuple[str, list[tuple[str, str]]]]:
        """The subcommands as (heading, rows of name and one line)."""
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                rows.append((name, (command.help or "").split("\n\n")[0].replace("\n", " ")))
        return [(tr("Commands"), rows)]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the subcommand ``args[0]``; fail with a suggestion where there is none."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise unknown_command(args[0], self.list_commands(ctx), ctx.command_path)
        return super().resolve_command(ctx, args)


class App(typer.Typer):
    """A Typer application in this project's style.

    One decorated function makes a plain command, several make a group of subcommands
    (``App(group=True)`` makes a group of a single one).

    Args:
        help: What the command or group does; the first paragraph is its line in a list.
        group: Whether it stays a group with one subcommand.
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
        return super().command(name, **options)


def _write_help(
    command: Any,
    ctx: Any,
    formatter: Any,
    sections: list[tuple[str, list[tuple[str, str]]]],
) -> None:
    width = max(40, min(shutil.get_terminal_size().columns, MAX_WIDTH))
    usage = " ".join([ctx.command_path, *command.collect_usage_pieces(ctx)])
    lines = [f"{tr('Usage')}: {usage}"]
    for paragraph in (command.help or "").split("\n\n"):
        if paragraph.startswith("    "):  # an example: kept as it is
            lines += ["", paragraph.rstrip()]
        elif paragraph.strip():
            lines += ["", *wrap(paragraph, width)]
    for heading, rows in [*sections, *_option_sections(command, ctx)]:
        if rows:
            lines += ["", f"{heading}:", *_definitions(rows, width)]
    formatter.write("\n".join(lines) + "\n")


def _option_sections(command: Any, ctx: Any) -> Iterable[tuple[str, list[tuple[str, str]]]]:
    sections: dict[str, list[tuple[str, str]]] = {}
    for kind, default in (("argument", tr("Arguments")), ("option", tr("Options"))):
        sections.setdefault(default, [])
        for parameter in command.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if parameter.param_type_name == kind and record is not None:
                heading = getattr(parameter, "rich_help_panel", None) or default
                sections.setdefault(heading, []).append(record)
    general = sections.pop(tr("Options"))
    return [*sections.items(), (tr("Options"), general)]


def _definitions(rows: list[tuple[str, str]], width: int) -> list[str]:
    column = min(max(cells(name) for name, _ in rows), 28)
    lines = []
    for name, text in rows:
        wrapped = wrap(text, max(20, width - column - 4)) or [""]
        if cells(name) > column:
            lines.append(f"  {name}")
            name = ""
        lines.append(f"  {name}{' ' * (column - cells(name))}  {wrapped[0]}".rstrip())
        lines += [f"{' ' * (column + 4)}{line}" for line in wrapped[1:]]
    return lines
