"""Modes: training recipes that are laid over a configuration (``xmr train --mode NAME``).

A mode is a YAML file in ``configs/modes/``. It sets all objectives (those it does not train are 0),
the vectors that are kept and the distillation, and leaves data, encoders and schedule to the
configuration. It names the configuration it belongs to, in full size and for the demo dataset::

    base_config: {full: inflate_shrink, demo: demo_shared}
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bagformer_cli.assets import asset_folder
from bagformer_cli.config.yaml_files import find_config, read_with_parents
from bagformer_cli.errors import ConfigError, listed, nearest
from bagformer_cli.messages import tr


@dataclass(frozen=True)
class Mode:
    """The content of a mode file.

    Attributes:
        settings: Sections and keys to lay over a configuration.
        base_config: Config name by dataset size, ``full`` and ``demo``; empty if the file names
            none.
    """

    settings: dict[str, Any]
    base_config: dict[str, str]


def builtin_modes() -> dict[str, Path]:
    """List the modes that ship with the package: name (``inflate``, ``fast`` …) to file."""
    return {path.stem: path for path in sorted(asset_folder("configs").glob("modes/*.yaml"))}


def find_mode(name: str | Path) -> Path:
    """Find a mode file by path or built-in name.

    Raises:
        ConfigError: No such file and no such name; the message lists the built-in names.
    """
    if Path(name).is_file():
        return Path(name)
    modes = builtin_modes()
    if str(name) in modes:
        return modes[str(name)]
    near = nearest(str(name), modes)
    raise ConfigError(
        tr("There is no mode of that name."),
        where=f"--mode {name}",
        expected=tr("a file, or one of: {names}", names=listed(modes)),
        hint=tr("Did you mean {name}?", name=near) if near else None,
    )


def read_mode(name: str | Path) -> Mode:
    """Read a mode by path or built-in name.

    Raises:
        ConfigError: The file is missing, is not YAML, or ``base_config`` is not a mapping of
            ``full`` and ``demo`` to config names.
    """
    path = find_mode(name)
    settings = read_with_parents(path)
    base = settings.pop("base_config", {})
    named = isinstance(base, dict) and all(isinstance(config, str) for config in base.values())
    if not named or not base.keys() <= {"full", "demo"}:
        raise ConfigError(
            tr("base_config names the configuration that a mode belongs to."),
            where=f"{path}: base_config",
            found=base,
            expected="{full: NAME, demo: NAME}",
        )
    return Mode(settings, base)


def default_config(
    dataset: str | None = None, interaction: str | None = None, mode: str | Path | None = None
) -> str:
    """Choose the configuration of a training for which the user names none.

    Args:
        dataset: The dataset's name or folder; None is the demo dataset.
        interaction: ``cls``, ``tokenwise``, ``bagwise`` or None.
        mode: Name or file of a mode. Its ``base_config`` decides where it has one.

    Returns:
        A built-in config name: the mode's, else ``demo``, else the published full-size settings
        of the interaction.

    Raises:
        ConfigError: There is no such mode, or its ``base_config`` names no config.

    >>> default_config("muge", mode="inflate")
    'inflate_shrink'
    >>> default_config("muge", "tokenwise")
    'muge_tokenwise'
    """
    demo = dataset in (None, "demo")
    if mode is not None:
        base = read_mode(mode).base_config.get("demo" if demo else "full")
        if base is not None:
            find_config(base)
            return base
    if demo:
        return "demo"
    full_size = {"cls": "muge_cls", "tokenwise": "muge_tokenwise"}
    return full_size.get(interaction or "", "muge_bagformer")
