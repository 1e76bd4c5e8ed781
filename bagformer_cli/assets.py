"""Locate ``entity_dicts/`` and ``configs/``, in an installed wheel or in a checkout."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def asset_folder(name: str) -> Path:
    """Return the path of a packaged folder, ``"entity_dicts"`` or ``"configs"``."""
    package = Path(str(resources.files("bagformer_cli")))
    packed = package / "_assets" / name
    return packed if packed.is_dir() else package.parent / name
