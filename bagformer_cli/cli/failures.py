"""What Python, Typer and torch raise, turned into this project's errors.

Code that knows better raises its own :class:`XmrError`; this is the net below it.
"""

from __future__ import annotations

import errno
from typing import Any

import typer

from bagformer_cli.errors import DiskFullError, InputError, XmrError, nearest
from bagformer_cli.messages import tr

# Typer has carried Click's exceptions inside itself since 0.24 and shared Click's before: the one
# public name they have in either is that of a subclass.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

_FULL = {errno.ENOSPC, errno.EDQUOT}


def explain(failure: BaseException) -> XmrError:
    """The error to show for ``failure``; one that nobody foresaw is called a bug, exit code 1."""
    if isinstance(failure, XmrError):
        return failure
    if isinstance(failure, UsageError):
        return _usage(failure)
    if isinstance(failure, OSError):
        known = _system(failure)
        if known is not None:
            return known
    if isinstance(failure, MemoryError) or type(failure).__name__ == "OutOfMemoryError":
        return XmrError(
            tr("There is not enough memory."),
            found=str(failure) or None,
            hint=tr("Use a smaller batch, or fewer workers, and run the command again."),
        )
    return XmrError(
        tr("This should not have happened: it is a bug in xmr."),
        found=f"{type(failure).__name__}: {failure}",
        hint=tr("Run the command again with --debug and report what it prints."),
    )


def unknown_command(name: str, known: list[str], program: str) -> InputError:
    """The error for a command that does not exist, with the nearest one that does."""
    near = nearest(name, known)
    return InputError(
        tr("There is no such command."),
        found=f"{program} {name}",
        expected=", ".join(known),
        hint=tr("Did you mean `{command}`?", command=f"{program} {near}")
        if near
        else tr("`{command}` lists the commands.", command=f"{program} --help"),
    )


def _usage(failure: Any) -> InputError:
    context = failure.ctx
    program = context.command_path if context is not None else "xmr"
    hint = tr("`{command}` shows how it is used.", command=f"{program} --help")
    kind = type(failure).__name__
    if kind == "NoSuchOption":
        known = [option for p in context.command.get_params(context) for option in p.opts]
        near = nearest(failure.option_name, known)
        return InputError(
            tr("There is no such option."),
            found=f"{program} {failure.option_name}",
            expected=near,
            hint=hint,
        )
    if kind == "MissingParameter":
        return InputError(
            tr("Something is missing on the command line."),
            where=program,
            expected=_parameter(failure),
            hint=hint,
        )
    if kind == "BadParameter":
        found, wanted = _value(failure)
        return InputError(
            tr("A value on the command line is wrong."),
            where=f"{program} {_parameter(failure)}",
            found=found,
            expected=wanted,
            hint=hint,
        )
    if kind == "BadOptionUsage":
        return InputError(tr("This option takes a value."), where=failure.option_name, hint=hint)
    if failure.message.startswith("Got unexpected extra argument"):
        return InputError(
            tr("There are more arguments than this command takes."),
            where=program,
            found=failure.message.rpartition("(")[2].rstrip(")"),
            hint=hint,
        )
    return InputError(failure.format_message(), where=program, hint=hint)


def _parameter(failure: Any) -> str:
    """The option or argument as it is written on the command line."""
    if failure.param is None:
        return str(failure.param_hint or "")
    if failure.param.param_type_name == "option":
        return str(failure.param.opts[0])
    return str(failure.param.metavar or failure.param.name).upper()


def _value(failure: Any) -> tuple[str | None, str]:
    """What was given for a wrong parameter, as far as it is known, and what Typer says of it."""
    errors = getattr(failure.__cause__, "errors", None)  # Typer checks values with pydantic
    found = str(errors()[0]["input"]) if errors is not None else None
    descriptor = getattr(failure.param, "type_descriptor", None)
    if descriptor is not None and descriptor.is_choice:
        names = ", ".join(str(choice) for choice in descriptor.choices)
        return found, tr("one of: {names}", names=names)
    if errors is not None and errors()[0]["type"] != "value_error":
        from bagformer_cli.config.expected import wanted

        return found, wanted(errors())
    return found, str(failure.message).removeprefix("Value error, ")


def _system(failure: OSError) -> XmrError | None:
    where = failure.filename
    if failure.errno in _FULL:
        return DiskFullError(
            tr("The disk is full."),
            where=where,
            found=failure.strerror,
            hint=tr("Free some space, or choose another folder, and run the command again."),
        )
    if failure.errno in {errno.EMFILE, errno.ENFILE}:
        return XmrError(
            tr("Too many files are open."),
            found=failure.strerror,
            hint=tr("Raise the limit with `ulimit -n 4096` and run the command again."),
        )
    if where is None:
        return None
    if isinstance(failure, FileNotFoundError):
        return InputError(tr("There is no such file or folder."), where=where)
    if isinstance(failure, PermissionError) or failure.errno == errno.EROFS:
        return InputError(
            tr("This file or folder cannot be opened: permission denied."),
            where=where,
            found=None if isinstance(failure, PermissionError) else failure.strerror,
        )
    if isinstance(failure, IsADirectoryError):
        return InputError(tr("This is a folder; a file was expected."), where=where)
    if isinstance(failure, NotADirectoryError):
        return InputError(tr("This is a file; a folder was expected."), where=where)
    if isinstance(failure, FileExistsError):
        return InputError(tr("There is something of this name already."), where=where)
    return None
