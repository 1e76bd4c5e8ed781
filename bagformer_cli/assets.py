"""Where ``entity_dicts/`` and ``configs/`` are: inside an installed wheel, or in the checkout."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def asset_folder(name: str) -> Path:
    """The folder ``name`` (``"entity_dicts"`` or ``"configs"``) that ships with the package."""
    package = Path(str(resources.files("bagformer_cli")))
    packed = package / "_assets" / name
    return packed if packed.is_dir() else package.parent / name
