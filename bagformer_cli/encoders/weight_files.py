"""Read and write weight files safely: safetensors, and torch's files as data only.

Nothing in a weight file is ever run as code.
"""

from __future__ import annotations

import json
import os
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bagformer_cli.errors import CheckpointError, listed
from bagformer_cli.file_kinds import kind_of_file
from bagformer_cli.files import atomic_file
from bagformer_cli.messages import tr
from bagformer_cli.opening import open_regular, require_regular

_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")  # starts files of torch before 1.6


def save_tensors(
    tensors: Mapping[str, Tensor], path: str | Path, metadata: dict[str, str] | None = None
) -> None:
    """Write tensors, and ``metadata`` if given, to a safetensors file that appears whole."""
    content = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with atomic_file(path) as temporary:
        try:
            save_file(content, temporary, metadata)
        except SafetensorError as error:
            # The library reports a full disk as its own error: "I/O error: … (os error 28)".
            number = re.search(r"\(os error (\d+)\)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def load_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        CheckpointError: It is missing, cut off, or not a safetensors file.
    """
    try:
        require_regular(path, os.stat(path))
        tensors: dict[str, Tensor] = load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(tr("There is no such weight file."), where=path) from error
    except (SafetensorError, OSError) as error:
        raise damaged_weights(path) from error
    return tensors


def read_weight_file(path: str | Path) -> Any:
    """Read a safetensors file, or one that ``torch.save`` wrote, whatever its ending says.

    Raises:
        InputError: The file does not exist.
        CheckpointError: It is damaged, holds code, or is another file.
    """
    path = Path(path)
    with open_regular(path) as stream:
        head = stream.read(9)
    # A safetensors file begins with eight bytes, the size of its header, which begins with a brace.
    # The first of them may be that of a pickle; the last four are zero below 4 GB.
    if head[4:] == b"\0\0\0\0{":
        return load_tensors(path)
    is_torch = head.startswith((b"PK", b"\x80"))
    return read_pickle(path) if is_torch or path.suffix != ".safetensors" else load_tensors(path)


def join_shards(folder: Path) -> str | None:
    """Say how to join weights that lie in several files, which are not read; None: they do not."""
    if not any(folder.glob("*.index.json")):
        return None
    return tr(
        "Its weights lie in several files. Join them with transformers: "
        'AutoModel.from_pretrained(FOLDER).save_pretrained(OUT, max_shard_size="100GB")'
    )


def damaged_weights(path: str | Path) -> CheckpointError:
    """Make the error for a weight file that cannot be read."""
    return _other_kind(path) or CheckpointError(
        tr("The weight file is damaged or cut off."),
        where=path,
        found=tr("{n} bytes", n=f"{Path(path).stat().st_size:,}"),
        hint=tr("Copy it again, or use another checkpoint."),
    )


def not_json(path: Path, error: Exception) -> CheckpointError:
    """Make the error for a JSON file of a model that cannot be read."""
    line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
    kind = None if isinstance(error, OSError) else kind_of_file(path)
    return CheckpointError(
        tr("The file is not valid JSON."),
        where=f"{path}{line}",
        found=kind.found if kind else None,
        hint=kind.hint if kind else None,
    )


def whole_numbers(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """Name the weights that are whole numbers (quantised) where a model has others.

    Args:
        own: The tensors of the model by name.
        weights: Those of a weight file.
    """
    return [
        name
        for name, value in own.items()
        if name in weights and value.is_floating_point() and not weights[name].is_floating_point()
    ]


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors or torch file by name.

    A torch file may be a training checkpoint that keeps its weights under ``state_dict`` or
    ``model``.

    Raises:
        CheckpointError: The file is damaged, holds code, or holds no named tensors.
    """
    path = Path(path)
    content = read_weight_file(path)
    for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping):
        raise no_weights(path, type(content).__name__)
    tensors = {
        str(name).removeprefix("module."): value
        for name, value in content.items()
        if isinstance(value, Tensor)
    }
    if not tensors:
        raise no_weights(path, listed(list(content)[:5]))
    for name, value in tensors.items():
        require_plain(path, name, value)
    return tensors


def require_plain(path: Path, name: str, value: Tensor) -> None:
    """Refuse a tensor that holds no plain numbers.

    Raises:
        CheckpointError: It is quantised, sparse or complex, or only its shape was saved (``meta``).
    """
    if value.is_quantized or value.is_meta or value.layout != torch.strided or value.is_complex():
        form = "meta" if value.is_meta else value.layout
        raise no_weights(path, f"{name}: {value.dtype}, {form}")


def no_weights(path: Path, found: str) -> CheckpointError:
    """Make the error for a file that holds something else than tensors."""
    return CheckpointError(
        tr("This file holds no weights."),
        where=path,
        found=found,
        expected=tr("tensors by name"),
    )


def summary(label: str, names: Sequence[str]) -> list[str]:
    """Name the first of some weights and count the others; empty for none.

    >>> summary("missing", ["a.weight", "b.weight"])
    ['missing: a.weight (+1)']
    """
    more = f" (+{len(names) - 1})" if len(names) > 1 else ""
    return [f"{label}: {names[0]}{more}"] if names else []


def read_pickle(path: str | Path) -> Any:
    """Read a file that ``torch.save`` wrote as data only: code in it is refused, never run.

    Raises:
        InputError: The file does not exist.
        CheckpointError: It is cut off, not a torch checkpoint, or holds code.
    """
    path = Path(path)
    with open_regular(path) as stream:
        head = stream.read(4)
    is_zip = head.startswith(b"PK")
    try:
        if is_zip and not zipfile.is_zipfile(path):
            raise _damaged(path)
    except zipfile.BadZipFile:  # "zipfiles that span multiple disks are not supported"
        raise _damaged(path) from None
    if not is_zip and not head.startswith(b"\x80"):
        raise _not_torch(path, repr(head))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of pickles that it refuses right after
            # By such a name torch would choose the reader of safetensors.
            misnamed = path.suffix == ".safetensors"
            with open(path, "rb") if misnamed else nullcontext(path) as source:
                content = torch.load(
                    source, map_location="cpu", weights_only=True, mmap=is_zip and not misnamed
                )
    except (pickle.UnpicklingError, EOFError, RuntimeError, LookupError, ValueError,
            TypeError, AttributeError, AssertionError, struct.error,
            zipfile.BadZipFile) as error:  # fmt: skip
        raise _refused(path, error) from error
    return content


def _refused(path: Path, error: Exception) -> CheckpointError:
    """Find out why torch refused a file: code, another kind of pickle, or damage."""
    named = re.search(r"GLOBAL (\S+)", str(error))
    code = named[1] if named else None
    with open(path, "rb") as stream:
        head = stream.read(32)
    if code is None and not head.startswith(b"PK") and _MAGIC not in head:
        operations: set[str] = set()
        try:
            with open(path, "rb") as stream:  # genops lists operations and runs none
                operations.update(operation.name for operation, _, _ in pickletools.genops(stream))
        except ValueError:
            return _damaged(path)
        if not operations & {"GLOBAL", "STACK_GLOBAL", "INST"}:
            return _not_torch(path, tr("another pickle"))
        code = ", ".join(sorted(operations & {"GLOBAL", "STACK_GLOBAL", "INST", "REDUCE"}))
    if code is None:
        return _damaged(path)
    return CheckpointError(
        tr("The checkpoint holds code, and code in a checkpoint is never run."),
        where=path,
        found=code,
        expected=tr("tensors, numbers, strings, lists and dicts"),
        hint=tr(
            "If you trust the file, load it with the program that wrote it and save only its "
            '["model"].'
        ),
    )


def _damaged(path: Path) -> CheckpointError:
    return CheckpointError(
        tr("The checkpoint is damaged or cut off."),
        where=path,
        found=tr("{n} bytes", n=path.stat().st_size),
        hint=tr("Copy or download it again."),
    )


def _other_kind(path: str | Path) -> CheckpointError | None:
    """Make the error for a file that is known not to hold weights; None: it is not known."""
    kind = kind_of_file(path)
    if kind is None:
        return None
    return CheckpointError(
        tr("This file holds no weights."),
        where=path,
        found=kind.found,
        expected=tr("tensors by name"),
        hint=kind.hint,
    )


def _not_torch(path: Path, found: str) -> CheckpointError:
    return _other_kind(path) or CheckpointError(
        tr("This is not a checkpoint."),
        where=path,
        found=found,
        expected=tr("a safetensors file, or one that torch.save wrote"),
    )
