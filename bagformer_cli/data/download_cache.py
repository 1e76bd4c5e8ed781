"""Downloaded images in the cache folder, of which the oldest are deleted beyond a limit."""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import suppress
from pathlib import Path

from bagformer_cli.errors import XmrError
from bagformer_cli.files import atomic_file, cache_folder

MOST_BYTES = 10_000_000_000
"""Size limit of the images in the cache. A catalogue that is larger is downloaded again, in part,
when it is encoded again."""
_KEPT = 0.8  # of the limit after the oldest were deleted, so that it is not reached at once
_SIZED_EVERY = 1000
"""Images stored by this process between two looks at the whole cache."""

_lock = threading.Lock()
_stored = 0


def cache_file(url: str) -> Path:
    """Return the place of a downloaded image in the cache."""
    name = hashlib.sha256(url.encode()).hexdigest()
    return cache_folder() / "images" / name[:2] / name


def store(url: str, data: bytes) -> None:
    """Keep a downloaded image, unless the cache cannot be written: that is no error."""
    global _stored
    with suppress(OSError, XmrError), atomic_file(cache_file(url)) as temporary:
        temporary.write_bytes(data)
    with _lock:
        look = _stored % _SIZED_EVERY == 0
        _stored += 1
        if look:
            delete_oldest(cache_folder() / "images")


def delete_oldest(folder: Path, limit: int = MOST_BYTES) -> None:
    """Delete the images that were downloaded first, if all together have more than ``limit`` bytes.

    Other processes may delete at the same time, or read: an open file stays readable.
    """
    found: list[tuple[float, int, str]] = []
    for base, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(base, name)
            with suppress(OSError):
                known = os.stat(path)
                found.append((known.st_mtime, known.st_size, path))
    size = sum(one[1] for one in found)
    if size <= limit:
        return
    for _, bytes_, path in sorted(found):
        if size <= _KEPT * limit:
            return
        with suppress(OSError):
            os.unlink(path)
        size -= bytes_
