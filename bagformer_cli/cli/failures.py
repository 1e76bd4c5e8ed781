"""Turn exceptions of Python, Typer and torch into this project's errors.

Code that can explain a failure raises its own :class:`XmrError`. This module covers the rest.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

import typer

from bagformer_cli.cli.help import argument_name
from bagformer_cli.cli.path_advice import path_advice
from bagformer_cli.errors import (
    InputError,
    MissingDependencyError,
    PathError,
    XmrError,
    listed,
    nearest,
    path_error,
)
from bagformer_cli.messages import tr

# Typer bundles Click's exceptions since 0.24 and imported Click's before. In both, the base class
# of usage errors is only reachable through a public subclass.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def to_error(failure: BaseException) -> XmrError:
    """Make the error to print for an exception; an unexpected one becomes a bug report."""
    from bagformer_cli.files import disk_full, is_disk_full

    if isinstance(failure, XmrError):
        return _with_advice(failure)
    if isinstance(failure, UsageError):
        return _usage_error(failure)
    if is_disk_full(failure):
        return disk_full(getattr(failure, "filename", None), failure)
    if isinstance(failure, OSError):
        known = _system_error(failure)
        if known is not None:
            return _with_advice(known)
    known = _library_error(failure)
    if known is not None:
        return known
    return XmrError(
        tr("Unexpected error: this is a bug in xmr."),
        found=f"{type(failure).__name__}: {failure}",
        hint=tr("Run the command again with --debug and report its output."),
    )


def name_parameter(error: XmrError, context: Any) -> None:
    """Add the option or argument to an error about a value that the user gave there.

    Args:
        error: The error, changed in place: its ``where``, or else what it ``found``.
        context: Typer's context of the command.
    """
    named: dict[str, list[str]] = {}  # value to the parameters that have it
    for parameter in context.command.get_params(context):
        given = context.params.get(parameter.name)
        for value in given if isinstance(given, list | tuple) else [given]:
            if value is not None and not isinstance(value, bool):
                named.setdefault(str(value), []).append(parameter_name(parameter))
    if error.where in named:
        names = listed(dict.fromkeys(named[error.where]))
        error.where = tr("{value} (from {option})", value=error.where, option=names)
    elif error.where is None and error.found in named:
        error.where = f"{context.command_path} {named[error.found][0]}"


def _with_advice(error: XmrError) -> XmrError:
    """Add the next step to an error about a path."""
    if isinstance(error, PathError) and error.hint is None:
        error.hint = path_advice(str(error.where), error.reason)
    return error


def unknown_command(name: str, known: list[str], program: str) -> InputError:
    """Make the error for a command that does not exist; suggest a similar one."""
    similar = nearest(name, known)
    return InputError(
        tr("No such command."),
        found=f"{program} {name}",
        expected=listed(known),
        hint=tr("Did you mean `{command}`?", command=f"{program} {similar}")
        if similar
        else tr("`{command}` lists the commands.", command=f"{program} --help"),
    )


def invalid_value(program: str, name: str, found: object, expected: str) -> InputError:
    """Make the error for a value that an option or argument cannot have."""
    return InputError(
        tr("Invalid value on the command line."),
        where=f"{program} {name}",
        found=found,
        expected=expected,
        hint=_usage(program),
    )


def needed_option(program: str, name: str, others: str) -> InputError:
    """Make the error for an option that has no effect without another."""
    return InputError(
        tr("This option has no effect without another one."),
        where=f"{program} {name}",
        expected=others,
        hint=_usage(program),
    )


def excluding_options(program: str, names: Sequence[str]) -> InputError:
    """Make the error for options of which only one can be given."""
    return InputError(
        tr("These options exclude each other."),
        where=program,
        found=listed(names),
        expected=tr("one of: {names}", names=listed(names)),
        hint=_usage(program),
    )


def _usage(program: str) -> str:
    return tr("`{command}` shows its usage.", command=f"{program} --help")


def _no_such_option(failure: Any, program: str) -> InputError:
    """Make the error for an option that does not exist; name a similar one, or a setting."""
    name: str = failure.option_name
    parameters = failure.ctx.command.get_params(failure.ctx)
    options = {  # dashes are no similarity
        option.lstrip("-"): option for p in parameters for option in (*p.opts, *p.secondary_opts)
    }
    similar = options.get(nearest(name.lstrip("-"), options) or "")
    hint = _usage(program)
    if similar is None:
        from bagformer_cli.config.settings import meant

        settings = meant(name.lstrip("-").replace("-", "_")) if "set" in options else []
        if settings:
            values = listed(f"{setting}=…" for setting in settings[:3])
            hint = tr("Settings are given with --set: {values}", values=values)
        elif not name.startswith("--") and any(p.param_type_name == "argument" for p in parameters):
            hint = tr("A text that begins with a dash goes after `--`: {example}",
                      example=f"{program} -- {name}…")  # fmt: skip
    return InputError(tr("No such option."), found=f"{program} {name}", expected=similar, hint=hint)


def _usage_error(failure: Any) -> InputError:
    context = failure.ctx
    program = context.command_path if context is not None else "xmr"
    hint = _usage(program)
    kind = type(failure).__name__
    if kind == "NoSuchOption":
        return _no_such_option(failure, program)
    if kind == "MissingParameter":
        return InputError(
            tr("A required argument or option is missing."),
            where=program,
            expected=_parameter(failure),
            hint=hint,
        )
    if kind == "BadParameter":
        found, wanted = _value(failure)
        return invalid_value(program, _parameter(failure), found, wanted)
    if kind == "BadOptionUsage" and "does not take a value" in failure.message:
        return InputError(
            tr("This option takes no value."), where=f"{program} {failure.option_name}", hint=hint
        )
    if kind == "BadOptionUsage":
        return InputError(tr("This option needs a value."), where=failure.option_name, hint=hint)
    if failure.message.startswith("Got unexpected extra argument"):
        return InputError(
            tr("Too many arguments."),
            where=program,
            found=failure.message.rpartition("(")[2].rstrip(")"),
            hint=hint,
        )
    if failure.message.startswith("Missing command"):
        return InputError(tr("A command is missing."), where=program, hint=hint)
    return InputError(
        tr("The command line cannot be read."), where=program, found=failure.message, hint=hint
    )


def _parameter(failure: Any) -> str:
    """Return the name of an option or argument as written on the command line."""
    if failure.param is None:
        return str(failure.param_hint or "")
    return parameter_name(failure.param)


def parameter_name(parameter: Any) -> str:
    """Return the name of a parameter as it is written: ``--image``, or ``CATALOGUE``."""
    if parameter.param_type_name == "option":
        return str(max(parameter.opts, key=len))
    return argument_name(parameter)


def _value(failure: Any) -> tuple[str | None, str]:
    """Return the value given for a parameter (None if unknown) and a text of the right values."""
    errors = getattr(failure.__cause__, "errors", None)  # Typer validates values with pydantic
    found = str(errors()[0]["input"]) if errors is not None else None
    descriptor = getattr(failure.param, "type_descriptor", None)
    if descriptor is not None and descriptor.is_choice:
        names = listed(str(choice) for choice in descriptor.choices)
        return found, tr("one of: {names}", names=names)
    if errors is not None and errors()[0]["type"] != "value_error":
        from bagformer_cli.config.expected import wanted

        return found, wanted(errors())
    return found, str(failure.message).removeprefix("Value error, ")


def _library_error(failure: BaseException) -> XmrError | None:
    """Explain failures of the machine for which libraries have their own exceptions."""
    name, said = type(failure).__name__, str(failure)
    if (
        isinstance(failure, MemoryError)
        or name == "OutOfMemoryError"
        or "can't allocate memory" in said
    ):
        return XmrError(
            tr("Out of memory."),
            hint=tr("Use a smaller batch size or fewer workers and run the command again."),
        )
    if name == "BrokenProcessPool" or said.startswith("DataLoader worker"):
        return XmrError(
            tr("The system ended a worker process, which usually means that memory was short."),
            hint=tr("Use a smaller batch size or fewer workers and run the command again."),
        )
    if isinstance(failure, ModuleNotFoundError) and failure.name:
        return MissingDependencyError(
            tr("A required package is missing."),
            found=failure.name.partition(".")[0],
            hint=tr("`{command}` checks the installation.", command="xmr doctor"),
        )
    return None


def _system_error(failure: OSError) -> XmrError | None:
    where = failure.filename
    if failure.errno in {errno.EMFILE, errno.ENFILE}:
        return XmrError(
            tr("Too many open files."),
            found=failure.strerror,
            hint=tr("Raise the limit with `ulimit -n 4096`, then run the command again."),
        )
    # A rename names the temporary file first and its target second.
    return path_error(failure.filename2 or where, failure) if where is not None else None
