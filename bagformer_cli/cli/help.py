"""Lay out help pages as plain text in sections.

Typer's own layout is not used because it breaks Chinese lines at the wrong column, reflows
examples, and changes between versions.
"""

from __future__ import annotations

import shutil
import types
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from bagformer_cli.messages import tr
from bagformer_cli.wrapping import display_width, wrap

MAX_WIDTH = 100
EXAMPLE = "\u2060    "  # marks a line of an example: Typer would strip spaces, not a word joiner
MAX_NAME_WIDTH = 30  # the text of a longer name starts on the next line

_ARGUMENTS = {  # the names of all arguments, as help pages and errors write them
    "catalogue": tr("CATALOGUE"), "checkpoint": tr("CHECKPOINT"),
    "dictionaries": tr("DICTIONARIES"), "folder": tr("FOLDER"), "ids": tr("IDS"),
    "image": tr("IMAGE"), "marked": tr("MARKED"), "name": tr("NAME"), "out": tr("OUT"),
    "part": tr("PART"), "queries": tr("QUERIES"), "run": tr("RUN"), "runs": tr("RUNS"),
    "source": tr("SOURCE"), "titles": tr("TITLES"), "uri": tr("URI"),
}  # fmt: skip

Rows: TypeAlias = list[tuple[str, str]]
"""The rows of a section: a name and its help."""


def help_page(command: Any, context: Any, subcommands: dict[str, Rows]) -> str:
    """Lay out the help page of a Typer command.

    Args:
        command: The command. Paragraphs of its help that start with :data:`EXAMPLE` keep their
            line breaks.
        context: Typer's context of the call.
        subcommands: Heading to rows of subcommands; empty for a plain command.
    """
    width = max(40, min(shutil.get_terminal_size().columns, MAX_WIDTH))
    parameters = [p for p in command.get_params(context) if not getattr(p, "hidden", False)]
    arguments = [p for p in parameters if p.param_type_name == "argument"]
    usage = [context.command_path, tr("[OPTIONS]"), *map(_argument_usage, arguments)]
    if subcommands:
        usage.append(tr("COMMAND …"))
    lines = [tr("Usage: {usage}", usage=" ".join(usage)), *_description(command.help, width)]
    sections = {**subcommands, **_parameter_sections(parameters, _annotations(command))}
    widest = max(display_width(name) for rows in sections.values() for name, _ in rows)
    column = min(widest, MAX_NAME_WIDTH)
    for heading, rows in sections.items():
        lines += ["", tr("{heading}:", heading=heading), *_definitions(rows, column, width)]
    return "\n".join(lines) + "\n"


def _description(help: str | None, width: int) -> list[str]:
    """Lay out the help text: paragraphs wrapped, examples unchanged."""
    lines: list[str] = []
    for paragraph in (help or "").split("\n\n"):
        if paragraph.startswith(EXAMPLE):
            if not lines or not lines[-1].startswith("    "):  # no empty line between examples
                lines.append("")
            lines += paragraph.replace(EXAMPLE, "    ").rstrip().splitlines()
        elif paragraph.strip():
            lines += ["", *wrap(paragraph, width)]
    return lines


def _parameter_sections(parameters: list[Any], declared: dict[str, Any]) -> dict[str, Rows]:
    """List arguments, options with a heading of their panel, and the other options, in order."""
    sections: dict[str, Rows] = {}
    options: Rows = []
    for parameter in parameters:
        if parameter.param_type_name == "argument":
            rows = sections.setdefault(tr("Arguments"), [])
            rows.append((argument_name(parameter), _help_text(parameter)))
        else:
            panel = getattr(parameter, "rich_help_panel", None)
            rows = sections.setdefault(panel, []) if panel else options
            rows.append((_option(parameter, declared.get(parameter.name)), _help_text(parameter)))
    return {**sections, tr("Options"): options}


def _annotations(command: Any) -> dict[str, Any]:
    """Return the declared types of a command's parameters."""
    function = command.callback
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return {} if function is None else get_type_hints(function)


def argument_name(argument: Any) -> str:
    """Return the name of an argument as help pages and errors write it, for example ``IMAGE``."""
    name = str(argument.metavar or argument.name)
    return _ARGUMENTS.get(name, name.upper())


def _argument_usage(argument: Any) -> str:
    name = argument_name(argument)
    name = name if argument.required else f"[{name}]"
    return name if argument.nargs == 1 else f"{name}…"


def _option(option: Any, declared: Any) -> str:
    names = sorted(option.opts, key=len)
    if not getattr(option, "is_flag", False):
        names[-1] += f" {option.metavar or _placeholder(declared)}"
    return ", ".join([*names, *option.secondary_opts])


def _placeholder(declared: Any) -> str:
    """Return the placeholder of a type, a word in the user's language, or the choices."""
    origin = get_origin(declared)
    if origin is Annotated:
        return _placeholder(get_args(declared)[0])
    if origin is Literal:
        return "|".join(map(str, get_args(declared)))
    if origin in (Union, types.UnionType):
        return _placeholder(next(a for a in get_args(declared) if a is not type(None)))
    if origin in (list, tuple):
        return _placeholder(get_args(declared)[0])
    if isinstance(declared, type) and issubclass(declared, Enum):
        return "|".join(str(member.value) for member in declared)
    kinds = {int: tr("INTEGER"), float: tr("NUMBER"), Path: tr("PATH")}
    return kinds.get(declared, tr("TEXT"))


def _help_text(parameter: Any) -> str:
    if parameter.name == "help":
        return tr("Show this page.")
    text = str(parameter.help or "")
    if parameter.required:
        note = tr("required")
        return f"{text} [{note}]"
    default = parameter.default
    if isinstance(parameter.show_default, str):
        default = parameter.show_default
    elif isinstance(default, Enum):
        default = default.value
    elif default is True:
        default = parameter.opts[0]
    elif isinstance(default, (list, tuple)):
        default = " ".join(map(str, default))
    no_default = default is None or default is False or default == ""
    if no_default or callable(default) or not parameter.show_default:
        return text
    note = tr("default: {value}", value=default)
    return f"{text} [{note}]"


def _definitions(rows: Rows, column: int, width: int) -> list[str]:
    lines = []
    for name, text in rows:
        wrapped = wrap(text, max(20, width - column - 4)) or [""]
        if display_width(name) > column:
            lines.append(f"  {name}")
            name = ""
        lines.append(f"  {name}{' ' * (column - display_width(name))}  {wrapped[0]}".rstrip())
        lines += [f"{' ' * (column + 4)}{line}" for line in wrapped[1:]]
    return lines
