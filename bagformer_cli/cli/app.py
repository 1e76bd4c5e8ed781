"""Declare commands: :class:`App`, and the two options that every command has.

A command file makes an :class:`App` and decorates functions. Each parses its options, calls a
plain function of a lower layer, and prints the result through ``console``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from bagformer_cli.cli import console
from bagformer_cli.cli.failures import (
    UsageError,
    excluding_options,
    invalid_value,
    name_parameter,
    needed_option,
    parameter_name,
    to_error,
    unknown_command,
)
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


class OptionRules(NamedTuple):
    """The options of a command that need or exclude each other; see :meth:`App.command`."""

    needs: Mapping[str, Sequence[str]]
    apart: Sequence[Sequence[str]]


_NO_RULES = OptionRules({}, ())

LARGEST = 2**31 - 1
"""Largest value of an option that takes a whole number and declares no limit."""


class Command(TyperCommand):
    """A command with a help page by :func:`help_page`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line and check what Typer does not.

        Raises:
            InputError: A number is not finite or too large, or options need or exclude each other.
        """
        try:
            rest = super().parse_args(ctx, with_dashed_texts(args, self.get_params(ctx)))
        except UsageError as error:
            if getattr(error, "ctx", None) is None:
                error.ctx = ctx  # type: ignore[attr-defined]  # for the hint
            raise
        given = given_options(ctx)
        self._check_numbers(ctx, given)
        self._check_combination(ctx, given)
        return rest

    def _check_numbers(self, ctx: Any, given: Mapping[str, Any]) -> None:
        limits = {_key(p): _maximum(p) for p in self.get_params(ctx)}
        for name, value in given.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise invalid_value(ctx.command_path, name, value, tr("a number"))
            whole = isinstance(value, int) and not isinstance(value, bool)
            if whole and limits[name] is None and abs(value) > LARGEST:
                expected = tr("at most {n}", n=f"{LARGEST:,}")
                raise invalid_value(ctx.command_path, name, value, expected)

    def _check_combination(self, ctx: Any, given: Mapping[str, Any]) -> None:
        rules = getattr(self.callback, "option_rules", _NO_RULES)
        for name, others in rules.needs.items():
            if name in given and not any(_is_given(other, given) for other in others):
                raise needed_option(ctx.command_path, name, " | ".join(others))
        for group in rules.apart:
            keys = given.keys() & set(group)
            found = [parameter_name(p) for p in self.get_params(ctx) if _key(p) in keys]
            if len(found) > 1:
                raise excluding_options(ctx.command_path, found)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an error about a value names the option that the value came from."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, BrokenPipeError):
            raise
        except Exception as failure:
            error = to_error(failure)
            name_parameter(error, ctx)
            raise error from (None if error is failure else failure)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page of this command."""
        formatter.write(help_page(self, ctx, {}))


def with_dashed_texts(args: list[str], parameters: Sequence[Any]) -> list[str]:
    """Let titles and queries begin with a dash (``-5度睡袋``): move them after ``--``.

    Only what cannot be an option moves: its name has a blank or a character beyond ASCII, or does
    not begin with a letter.

    Args:
        args: The arguments of a command.
        parameters: Its parameters.
    """
    options = [p for p in parameters if p.param_type_name == "option"]
    with_value = {name for p in options if not p.is_flag for name in p.opts}
    named: list[str] = []
    texts: list[str] = []
    left = list(args)
    while left:
        one = left.pop(0)
        if one == "--":
            texts += left
            break
        if one in with_value:
            named += [one, *left[:1]]
            del left[:1]
        elif one.startswith("-") and one != "-" and not _is_text(one, with_value):
            named.append(one)
        else:
            texts.append(one)
    moved = any(text.startswith("-") and text != "-" for text in texts) and "--" not in args
    return [*named, "--", *texts] if moved else args


def _is_text(argument: str, with_value: set[str]) -> bool:
    """Tell whether an argument that begins with a dash cannot be an option."""
    if argument[:2] in with_value:  # `-k20`
        return False
    name = argument.partition("=")[0].lstrip("-")
    return not name[:1].isalpha() or not name.isascii() or " " in name


def _is_given(wanted: str, given: Mapping[str, Any]) -> bool:
    """Say whether ``--gold`` is given, or ``--engine ray`` with this value."""
    name, _, value = wanted.partition(" ")
    return name in given and (not value or str(given[name]) == value)


def given_options(ctx: Any) -> dict[str, Any]:
    """Return what the command line gives: option such as ``--where``, or argument, to value."""
    given = {}
    for parameter in ctx.command.get_params(ctx):
        source = ctx.get_parameter_source(parameter.name)
        value = ctx.params.get(parameter.name)
        if source is not None and source.name == "COMMANDLINE" and value not in (None, ()):
            given[_key(parameter)] = value
    return given


def _key(parameter: Any) -> str:
    """Return ``--where`` for an option, ``titles`` for an argument: the same in all languages."""
    if parameter.param_type_name == "option":
        return parameter_name(parameter)
    return str(parameter.name)


def _maximum(parameter: Any) -> float | None:
    """Return the limit of a numeric parameter; Typer before 0.24 kept it in Click's type."""
    return getattr(parameter, "max", None) or getattr(getattr(parameter, "type", None), "max", None)


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

    def command(
        self,
        name: str | None = None,
        *,
        needs: Mapping[str, Sequence[str]] | None = None,
        apart: Sequence[Sequence[str]] = (),
        **options: Any,
    ) -> Callable[[Any], Any]:
        """Declare a command.

        Args:
            name: Its name; None: that of the function.
            needs: Option to others, such as ``--gold`` or ``--engine ray``; it has no effect
                unless one of them is given. Arguments are named as the function's parameter.
            apart: Groups of options of which at most one may be given.
            **options: Passed to ``typer.Typer.command``.
        """
        options.setdefault("cls", Command)
        if options.get("help"):  # Typer would strip the indentation of examples
            options["help"] = options["help"].replace("\n    ", f"\n{EXAMPLE}")
        declare = super().command(name, **options)

        def decorate(function: Any) -> Any:
            function.option_rules = OptionRules(needs or {}, apart)
            return declare(function)

        return decorate
