"""Open files whose names came from a table, a folder or the command line.

A name may lead to a pipe that nobody writes to, or to a device without an end. Only regular files
are opened here, so that reading always ends.
"""

from __future__ import annotations

import math
import os
import stat
import tokenize
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from bagformer_cli.errors import InputError, PathError, cannot_read
from bagformer_cli.messages import tr

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A pipe that nobody writes to would block `open` itself. Regular files ignore the flag.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)

_SMALL_ZIP, _MOST_RATIO = 64 << 20, 200
"""Bytes to which any zip file may unpack; beyond, how many times larger than itself. Spreadsheets
shrink to a tenth or a twentieth, arrays of numbers hardly."""
_MOST_SHOWN = 500  # characters of a name in a message: a cell may hold a whole file in base64


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading; links to regular files are followed.

    Raises:
        InputError: There is no such file, it is a folder, a pipe, a device or a socket, or it
            cannot be opened.
    """
    try:
        require_regular(path, os.stat(path))  # before `open`: opening a device can have effects
        handle = os.open(path, _FLAGS | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise cannot_read(shown(path), error) from None
    except ValueError:  # a null character, or half of a surrogate pair
        raise InputError(tr("This cannot be the name of a file."), where=shown(path)) from None
    try:
        require_regular(path, os.fstat(handle))  # after `open`: the name may lead elsewhere now
    except InputError:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def read_regular(path: str | Path, most: int) -> bytes:
    """Read a regular file of at most ``most`` bytes.

    Raises:
        InputError: It cannot be read (see :func:`open_regular`), or it is larger.
    """
    with open_regular(path) as stream:
        try:
            data = stream.read(most + 1)
        except OSError as error:
            raise cannot_read(shown(path), error) from None
        size = max(len(data), os.fstat(stream.fileno()).st_size)
    if len(data) > most:
        raise InputError(
            tr("The file is too large."),
            where=shown(path),
            found=tr("{n} MB", n=-(-size // 10**6)),
            expected=tr("at most {n} MB", n=most // 10**6),
        )
    return data


def load_array(path: str | Path, *, mapped: bool = False, writable: bool = False) -> NDArray[Any]:
    """Read a ``.npy`` file that may be damaged or made by a stranger.

    Args:
        path: The file.
        mapped: Map it into memory instead of reading it. An array without elements is read.
        writable: The mapped memory can be written; the file does not change.

    Raises:
        InputError, OSError: It cannot be opened, or is no regular file.
        ValueError: It is no such file, it holds Python objects, or it is shorter than it says.
    """
    import numpy as np
    from numpy.lib import format as npy

    headers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    with open_regular(path) as stream:
        try:
            shape, is_fortran, dtype = headers[npy.read_magic(stream)](stream)
            elements, start = math.prod(shape), stream.tell()
        except (LookupError, SyntaxError, TypeError, RecursionError, MemoryError,
                tokenize.TokenError) as error:  # fmt: skip
            raise ValueError(f"{path}: {error}") from error
        size = os.fstat(stream.fileno()).st_size
        if dtype.hasobject or min(shape, default=0) < 0:
            raise ValueError(f"{path}: {dtype} {shape}")
        if start + elements * dtype.itemsize > size:
            raise ValueError(f"{path}: {size} bytes are not {dtype} {shape}")
        if mapped and elements:
            order, mode = ("F" if is_fortran else "C"), ("c" if writable else "r")
            return np.memmap(stream, dtype, mode, start, shape, order)  # type: ignore[call-overload, no-any-return]
        stream.seek(0)
        array: NDArray[Any] = npy.read_array(stream, allow_pickle=False)
        return array


def require_moderate_zip(
    packed: zipfile.ZipFile, path: object, most: int | None = None, hint: str | None = None
) -> None:
    """Check that a zip file does not unpack to a multiple that no data has.

    Zeros shrink to a thousandth. So some megabytes of a stranger's could fill the memory.

    Args:
        packed: The open file. :mod:`zipfile` unpacks no more of a part than its entry says.
        path: The file, for the message.
        most: Bytes that it may unpack to; None: only the ratio is checked.
        hint: The next step for the user, for the message.

    Raises:
        InputError: It unpacks to more than ``most``, or to more than 200 times its size.
    """
    size = 0
    if packed.fp is not None:
        at = packed.fp.tell()
        size = packed.fp.seek(0, os.SEEK_END)
        packed.fp.seek(at)
    require_moderate(sum(one.file_size for one in packed.infolist()), size, path, most, hint)


def require_moderate(
    unpacked: int, size: int, path: object, most: int | None = None, hint: str | None = None
) -> None:
    """Check that a file of ``size`` bytes does not unpack to a multiple that no data has.

    Raises:
        InputError: It does; see :func:`require_moderate_zip`.
    """
    limit = max(_SMALL_ZIP, _MOST_RATIO * size)
    limit = limit if most is None else min(limit, most)
    if unpacked > limit:
        raise InputError(
            tr("The file unpacks to too much."),
            where=shown(str(path)),
            found=tr("{n} MB", n=unpacked >> 20),
            expected=tr("at most {n} MB", n=limit >> 20),
            hint=hint,
        )


def require_plain_folder(folder: str | Path) -> None:
    """Check that a folder, at any depth, holds only regular files and folders.

    An index or a store is written and read by libraries that follow links and open whatever has
    the right name. In a folder of somebody else a link could lead to any file of the user's, and a
    pipe would block for ever.

    Raises:
        InputError: It holds a link, a pipe, a device or a socket.
    """
    folders = [os.fspath(folder)]
    while folders:
        try:
            entries = list(os.scandir(folders.pop()))
        except OSError:  # missing, or removed meanwhile
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif not entry.is_file(follow_symlinks=False) and os.path.lexists(entry.path):
                raise InputError(
                    tr("This folder may hold only files and folders."),
                    where=shown(entry.path),
                    found=tr("a link") if entry.is_symlink() else tr("a pipe or a device"),
                    hint=tr("Remove it, or make this folder again."),
                )


def require_regular(path: str | Path, found: os.stat_result) -> None:
    """Check that ``os.stat`` found a regular file.

    Raises:
        InputError: It is a folder, a pipe, a device or a socket.
    """
    if stat.S_ISREG(found.st_mode):
        return
    if stat.S_ISDIR(found.st_mode):
        raise PathError(tr("This is a folder; a file was expected."), shown(path), "folder")
    kind = tr("a device")
    if stat.S_ISFIFO(found.st_mode):
        kind = tr("a pipe")
    elif stat.S_ISSOCK(found.st_mode):
        kind = tr("a socket")
    raise InputError(
        tr("This is not a regular file."),
        where=shown(path),
        found=kind,
        expected=tr("a regular file"),
    )


def require_inside(path: str | Path, root: str | Path) -> None:
    """Check that a path, with ``..`` and all links resolved, is inside a folder.

    Raises:
        InputError: It is not.
    """
    try:
        real, folder = os.path.realpath(path), os.path.realpath(root)
    except ValueError:
        raise InputError(tr("This cannot be the name of a file."), where=shown(path)) from None
    if not Path(real).is_relative_to(folder):
        raise InputError(
            tr("The file is outside of the folder given with --root."),
            where=shown(path),
            expected=tr("a path inside {folder}", folder=root),
        )


def shown(path: str | Path) -> str:
    r"""Write a file name as valid text: bytes that are not UTF-8 become ``\xBA``.

    >>> shown(os.fsdecode(bytes([0xBA, 0xEC])) + ".jpg")
    '\\xba\\xec.jpg'
    """
    try:
        text = os.fsencode(path).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        text = ascii(str(path))
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def require_text(path: str | Path) -> None:
    """Check that a name is valid text: run folders and indexes store it in UTF-8.

    Raises:
        InputError: It is not UTF-8.
    """
    if not is_text(str(path)):
        raise InputError(
            tr("The file name is not UTF-8."),
            where=shown(path),
            hint=tr("Rename it, or choose another name."),
        )


def is_text(name: str) -> bool:
    r"""Say whether a string is valid text without null characters: UTF-8 and any file can hold it.

    >>> is_text("红裙"), is_text("\ud83d"), is_text("a\0b")
    (True, False, False)
    """
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return "\0" not in name
