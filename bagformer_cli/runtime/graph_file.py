"""Check an ONNX file before onnxruntime opens it: the exported model may be a stranger's.

A graph computes with tensors and can do nothing else, but its file may name further files with
weights, and a loop may run for ever. So the file is read here without any library. It is a message
of Protocol Buffers, a tree whose branches are fields with a number::

    model ─7─▶ graph ─1─▶ node ─5─▶ attribute ─5─▶ tensor        attribute ─6─▶ graph (of a loop)
                     ─5─▶ tensor ─13─▶ entry: "location", "text.onnx.data"

Only branches that can hold such names are followed; the weights are skipped.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from bagformer_cli.errors import CheckpointError
from bagformer_cli.messages import tr
from bagformer_cli.opening import open_regular

_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _TENSOR, _SPARSE, _ENTRY, _REFUSED = range(8)
_FIELDS = {  # kind of message: number of a field to the kind of message it holds
    _MODEL: {7: _GRAPH, 20: _REFUSED, 25: _REFUSED},  # 20: training; 25: functions
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _REFUSED, 10: _TENSOR, 11: _REFUSED, 22: _SPARSE, 23: _SPARSE},
    _TENSOR: {13: _ENTRY},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
}


class _ProgramError(Exception):
    """The graph is more than a list of operations."""


def check_graph(path: Path) -> None:
    """Check that a graph has neither loops nor functions, and reads no file outside of its folder.

    Raises:
        CheckpointError: It does, or it is no ONNX file.
        InputError: It cannot be read.
    """
    with open_regular(path) as stream:
        try:
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                names = set(_files(data, 0, len(data), _MODEL))
        except _ProgramError as error:
            raise _refused(path, tr("a loop, a branch or a function")) from error
        except (ValueError, IndexError) as error:  # also for an empty file
            raise _refused(path, tr("the file is damaged")) from error
    folders = {path.parent.resolve(), path.resolve().parent}  # the second: a link in a cache
    for name in names:
        file = path.parent / name
        if name != Path(name).name or file.resolve().parent not in folders or not file.is_file():
            raise _refused(path, tr("weights in the file {name}", name=name))


def _refused(path: Path, found: str) -> CheckpointError:
    return CheckpointError(
        tr("This is no graph that `xmr export onnx` wrote."),
        where=path,
        found=found,
        hint=tr("Export the model again: xmr export onnx CHECKPOINT OUT/"),
    )


def _files(data: mmap.mmap, begin: int, end: int, kind: int) -> Iterator[str]:
    """Yield the names of the files that a message names.

    Raises:
        _ProgramError: It has a loop, a branch or a function.
        ValueError: It is damaged.
    """
    if kind == _REFUSED:
        raise _ProgramError
    key = value = b""
    for field, first, last in _messages(data, begin, end):
        if kind == _ENTRY:
            key = data[first:last] if field == 1 else key
            value = data[first:last] if field == 2 else value
        elif field in _FIELDS[kind]:
            yield from _files(data, first, last, _FIELDS[kind][field])
    if key == b"location":
        yield value.decode("utf-8")


def _messages(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, begin and end of the fields of a message that have a length."""
    while at < end:
        tag, at = _number(data, at)
        field, wire = tag >> 3, tag & 7
        if wire == 0:
            _, at = _number(data, at)
        elif wire == 2:
            length, at = _number(data, at)
            if at + length > end:
                raise ValueError("a field ends after its message")
            yield field, at, at + length
            at += length
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError("a group")
    if at != end:
        raise ValueError("a field ends after its message")


def _number(data: mmap.mmap, at: int) -> tuple[int, int]:
    """Read a variable-length integer; return it and where the next byte is."""
    number = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
    raise ValueError("a number without an end")
