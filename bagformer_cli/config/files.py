"""Configurations from YAML files, names and ``a.b=c`` overrides, and back into files."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from bagformer_cli.assets import asset_folder
from bagformer_cli.config.expected import shown, wanted
from bagformer_cli.config.rules import RunConfig
from bagformer_cli.errors import ConfigError, nearest
from bagformer_cli.files import write_text
from bagformer_cli.messages import tr


def yaml() -> YAML:
    """The YAML reader and writer: round-trip, comments and order kept."""
    reader = YAML()
    reader.default_flow_style = False
    reader.width = 100
    reader.representer.add_representer(
        type(None), lambda dumper, _: dumper.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    return reader


def builtin_configs() -> dict[str, Path]:
    """Name (``demo``, ``muge_bagformer`` ...) to file of the configs that ship with the package."""
    return {path.stem: path for path in sorted(asset_folder("configs").glob("*.yaml"))}


def builtin_modes() -> dict[str, Path]:
    """Name (``inflate``, ``shrinktofast`` ...) to file of the modes that ship with the package."""
    return {path.stem: path for path in sorted(asset_folder("configs").glob("modes/*.yaml"))}


def find_mode(name: str | Path) -> Path:
    """The file of a mode: settings to lay over any config.

    Raises:
        ConfigError: There is none of that path or name.
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
        expected=tr("a file, or one of: {names}", names=", ".join(modes)),
        hint=tr("Did you mean {name}?", name=near) if near else None,
    )


def find_config(name: str | Path) -> Path:
    """The config file of that path or built-in name.

    Raises:
        ConfigError: There is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    builtin = builtin_configs()
    stem = path.name.removesuffix(".yaml")
    if path.parent in (Path(), Path("configs")) and stem in builtin:
        return builtin[stem]
    near = nearest(stem, builtin)
    raise ConfigError(
        tr("There is no config file of that name."),
        where=name,
        expected=tr("a file, or one of: {names}", names=", ".join(builtin)),
        hint=tr("Did you mean {name}?", name=near) if near else None,
    )


def load_config(
    source: str | Path | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    mode: str | Path | None = None,
) -> RunConfig:
    """Read a configuration.

    Args:
        source: A file, a built-in name, a mapping, or None for the defaults.
        overrides: ``a.b=c`` items, applied in order; ``c`` is read as YAML.
        mode: A mode's name or file, laid over ``source`` before the overrides.

    Raises:
        ConfigError: What is wrong, where, and the nearest right name.
    """
    if source is None or isinstance(source, Mapping):
        values: dict[str, Any] = _plain(source or {})
        where = "config"
    else:
        path = find_config(source)
        values = _plain(_read_with_parents(path))
        where = str(path)
    if mode is not None:
        path = find_mode(mode)
        _merge(values, _plain(_read_with_parents(path)))
        where = f"{where} + {path}"
    for item in overrides:
        _override(values, item)
    return _validate(values, where, overrides)


def save_config(config: RunConfig, path: str | Path, template: str | Path | None = None) -> None:
    """Write every setting to ``path``; comments of the file ``template`` are kept."""
    document = _read(find_config(template)) if template is not None else CommentedMap()
    document.pop("extends", None)
    _merge(document, config.model_dump(mode="json"))
    buffer = io.StringIO()
    yaml().dump(document, buffer)
    write_text(path, buffer.getvalue())


def _read(path: Path) -> CommentedMap:
    try:
        document = yaml().load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(tr("The file is not UTF-8 text."), where=path, found=error) from error
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark is not None else path
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(tr("The file is not valid YAML."), where=place, found=problem) from error
    if document is None:
        return CommentedMap()
    if not isinstance(document, CommentedMap):
        raise ConfigError(
            tr("A config file holds sections with keys and values."),
            where=path,
            found=type(document).__name__,
        )
    return document


def _read_with_parents(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The file's values on top of those of the file it extends."""
    if path.resolve() in seen:
        raise ConfigError(
            tr("Config files extend each other in a circle."),
            where=path,
            found=" > ".join(p.name for p in (*seen, path)),
        )
    values: dict[str, Any] = _plain(_read(path))
    parent = values.pop("extends", None)
    if parent is None:
        return values
    beside = path.parent / str(parent)
    base = _read_with_parents(
        beside if beside.is_file() else find_config(str(parent)), (*seen, path.resolve())
    )
    _merge(base, values)
    return base


def _plain(value: Any) -> Any:
    """Round-trip containers and scalars as plain Python ones."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    for kind in (int, float, str):
        if isinstance(value, kind) and type(value) not in (kind, bool):
            return kind(value)
    return value


def _merge(into: Any, values: Mapping[str, Any]) -> None:
    """Lay ``values`` over ``into``, section by section; free-form ``options`` as a whole."""
    for key, value in values.items():
        section = isinstance(value, Mapping) and isinstance(into.get(key), Mapping)
        if section and key != "options":
            _merge(into[key], value)
        else:
            into[key] = value


def _override(values: dict[str, Any], item: str) -> None:
    """Apply one ``a.b=c``."""
    path, separator, text = item.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise ConfigError(
            tr("An override has the form section.key=value."),
            where=f"--set {item}",
            hint=tr("For example: --set training.max_steps=20"),
        )
    try:
        value = _plain(yaml().load(text)) if text.strip() else None
    except YAMLError as error:
        raise ConfigError(
            tr("The value is not valid YAML."), where=f"--set {item}", found=text
        ) from error
    if isinstance(value, str):
        value = _number(value)
    section = values
    for key in keys[:-1]:
        inner = section.setdefault(key, {})
        if inner is None:
            inner = section[key] = {}
        if not isinstance(inner, dict):
            raise ConfigError(
                tr("{key} is a value, not a section.", key=key), where=f"--set {item}", found=inner
            )
        section = inner
    section[keys[-1]] = value


def _number(text: str) -> Any:
    """YAML 1.2 reads 1e-4 as a string for want of a dot; people mean the number."""
    try:
        return float(text) if text[:1] in "+-.0123456789" else text
    except ValueError:
        return text


def _validate(values: Mapping[str, Any], where: str, overrides: Sequence[str] = ()) -> RunConfig:
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise _config_error(error, where, overrides) from error


def _config_error(error: ValidationError, where: str, overrides: Sequence[str]) -> ConfigError:
    """The first of pydantic's findings as an error of ours, at the place it was written."""
    findings = error.errors()
    first = findings[0]
    keys = _setting(first["loc"])
    dotted = ".".join(keys)
    place = f"{where}: {dotted}" if dotted else where
    for item in overrides:
        if dotted and f"{item.partition('=')[0].strip()}.".startswith(f"{dotted}."):
            place = f"--set {item}"
    if first["type"] == "extra_forbidden":
        known = _known_keys(keys[:-1])
        near = nearest(keys[-1], known)
        return ConfigError(
            tr("Unknown key {key!r}.", key=keys[-1]),
            where=place,
            expected=tr("one of: {names}", names=", ".join(known)),
            hint=tr("Did you mean {name}?", name=near) if near else None,
        )
    if first["type"] == "value_error":
        return ConfigError(str(first["ctx"]["error"]), where=place)
    return ConfigError(
        tr("The value does not fit."),
        where=place,
        found=shown(first["input"]),
        expected=wanted(one for one in findings if _setting(one["loc"]) == keys),
    )


def _setting(place: Sequence[int | str]) -> list[str]:
    """The keys of pydantic's ``place`` that lead to a setting: no kinds of a union, no items."""
    keys: list[str] = []
    for key in map(str, place):
        keys.append(key)
        if not _known_keys(keys):
            break
    return keys


def _known_keys(path: Sequence[str]) -> list[str]:
    """The keys that the section at ``path`` may have."""
    model: type[BaseModel] = RunConfig
    for key in path:
        field = model.model_fields.get(key)
        section = None if field is None else _section_of(field.annotation)
        if section is None:
            return []
        model = section
    return list(model.model_fields)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """The section class in an annotation such as ``CrossConfig | None``."""
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
