"""An object whose pickle runs code, to see that nothing unpickles it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


class MakesFolder:
    """Unpickled, it makes a folder: a test looks whether the folder exists.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)
