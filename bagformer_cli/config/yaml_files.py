"""Config files: find them by name, read YAML with ``extends``, lay values over each other."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

from bagformer_cli.assets import asset_folder
from bagformer_cli.errors import ConfigError, PathError, cannot_read, listed, nearest
from bagformer_cli.messages import tr

MAX_BYTES = 1_000_000
"""Bytes of a configuration file; the largest built-in one has 3,000."""
MAX_DEPTH = 30
MAX_VALUES = 20_000


def yaml() -> YAML:
    """Create the YAML reader and writer, which keeps comments and order."""
    reader = YAML()
    reader.default_flow_style = False
    reader.width = 100
    reader.representer.add_representer(
        type(None), lambda dumper, _: dumper.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    return reader


def builtin_configs() -> dict[str, Path]:
    """List the configs that ship with the package: name (``demo``, ``muge_cls`` …) to file."""
    return {path.stem: path for path in sorted(asset_folder("configs").glob("*.yaml"))}


def find_config(name: str | Path) -> Path:
    """Find a config file by path or built-in name.

    Raises:
        ConfigError: No such file and no such name; the message lists the built-in names.
    """
    path = Path(name)
    if os.path.isfile(path):  # Path.is_file raises OSError for a name that is too long for the disk
        return path
    builtin = builtin_configs()
    stem = path.name.removesuffix(".yaml")
    if path.parent in (Path(), Path("configs")) and stem in builtin:
        return builtin[stem]
    if os.path.isdir(path):
        raise PathError(tr("This is a folder; a file was expected."), path, "folder")
    near = nearest(stem, builtin)
    raise ConfigError(
        tr("There is no config file of that name."),
        where=name,
        expected=tr("a file, or one of: {names}", names=listed(builtin)),
        hint=tr("Did you mean {name}?", name=near) if near else None,
    )


def read_document(path: Path) -> CommentedMap:
    """Read one YAML file with its comments.

    Raises:
        ConfigError: Not UTF-8, not YAML, not a mapping, or far larger than any configuration; the
            message names the line.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(
            tr("The file is too large for a configuration."),
            where=path,
            found=tr("{n} bytes", n=path.stat().st_size),
            expected=tr("at most {n}", n=MAX_BYTES),
        )
    try:
        document = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise cannot_read(path, error) from error
    except YAMLError as error:
        raise _not_yaml(path, error) from error
    if document is None:
        return CommentedMap()
    if not isinstance(document, CommentedMap):
        raise ConfigError(
            tr("A config file holds sections with keys and values."),
            where=path,
            found=tr("a list") if isinstance(document, list) else str(document)[:60],
            hint=tr("For example: a line `training:`, below it `  batch_size: 64`."),
        )
    return document


def _not_yaml(path: Path, error: YAMLError) -> ConfigError:
    """Make the error for a file that is not YAML; it shows the line where reading stopped."""
    mark = getattr(error, "problem_mark", None)
    lines = path.read_text(encoding="utf-8").splitlines()
    place, found = str(path), str(getattr(error, "problem", None) or error).splitlines()[0]
    if mark is not None and lines:
        number = min(mark.line + 1, len(lines))
        place, found = f"{path}:{number}", lines[number - 1].strip()
    return ConfigError(
        tr("The file is not valid YAML."),
        where=place,
        found=found,
        hint=tr("Look for an open bracket or quote, a missing colon, or a tab, here or above."),
    )


def read_with_parents(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a file's values, laid over those of the file it ``extends``."""
    if path.resolve() in seen:
        raise ConfigError(
            tr("Config files extend each other in a circle."),
            where=path,
            found=" > ".join(p.name for p in (*seen, path)),
        )
    values: dict[str, Any] = plain(read_document(path))
    parent = values.pop("extends", None)
    if parent is None:
        return values
    beside = path.parent / str(parent)
    base = read_with_parents(
        beside if os.path.isfile(beside) else find_config(str(parent)), (*seen, path.resolve())
    )
    merge(base, values)
    return base


def parse_yaml(text: str) -> Any:
    """Parse a YAML text with its comments.

    Aliases of aliases can stand for billions of values, and deep nesting ends Python's stack, so
    both are counted before anything is built.

    Raises:
        YAMLError: Not YAML, nested too deeply, or with too many values.
    """
    depth = values = 0
    sizes: dict[str, int] = {}  # anchor to the values below it, aliases counted
    open_anchors: list[tuple[str | None, int]] = []
    for event in yaml().parse(io.StringIO(text)):
        if isinstance(event, CollectionStartEvent):
            depth += 1
            open_anchors.append((event.anchor, values))
        elif isinstance(event, CollectionEndEvent):
            depth -= 1
            anchor, before = open_anchors.pop()
            if anchor is not None:
                sizes[anchor] = values - before
        elif isinstance(event, AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_anchors):
                raise YAMLError(tr("a value that contains itself"))
            values += sizes.get(event.anchor, 1)
        values += 1
        if depth > MAX_DEPTH:
            raise YAMLError(tr("nested more than {n} levels deep", n=MAX_DEPTH))
        if values > MAX_VALUES:
            raise YAMLError(tr("more than {n} values", n=MAX_VALUES))
    try:
        return yaml().load(text)
    except ValueError as error:  # a number of thousands of digits, a date that does not exist
        raise YAMLError(tr("a number or a date that cannot be read")) from error
    except TypeError as error:  # ruamel cannot compare a key such as {a: [1]} with other keys
        raise YAMLError(tr("a key that is a list or a mapping")) from error


def plain(value: Any) -> Any:
    """Convert the YAML library's containers and scalars to plain Python ones."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    for kind in (int, float, str):
        if isinstance(value, kind) and type(value) not in (kind, bool):
            return kind(value)
    return value


def merge(into: Any, values: Mapping[str, Any]) -> None:
    """Lay ``values`` over ``into``, section by section. ``options`` are replaced as a whole."""
    for key, value in values.items():
        section = isinstance(value, Mapping) and isinstance(into.get(key), Mapping)
        if section and key != "options":
            merge(into[key], value)
        else:
            into[key] = value
