"""Read configurations from YAML files and ``a.b=c`` overrides; write them back.

``load_config`` lays the sources over each other, later ones win::

    defaults of the schema < a file it extends < the file < --mode < --set a.b=c
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from bagformer_cli import __version__
from bagformer_cli.config.expected import shown, wanted
from bagformer_cli.config.modes import find_mode, read_mode
from bagformer_cli.config.rules import RunConfig
from bagformer_cli.config.settings import keys_of, meant
from bagformer_cli.config.yaml_files import (
    find_config,
    merge,
    parse_yaml,
    plain,
    read_document,
    read_with_parents,
    yaml,
)
from bagformer_cli.errors import ConfigError, listed, nearest
from bagformer_cli.files import write_text
from bagformer_cli.messages import tr

ADDED_LATER: dict[tuple[str, str], Any] = {
    ("text", "fold_width"): False,
    ("model", "code_gain"): 0.3,
    ("distill", "learned_scale"): False,
}
"""Settings that stored configurations may lack, and what was done before they existed."""


def load_config(
    source: str | Path | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    mode: str | Path | None = None,
    *,
    stored: bool = False,
) -> RunConfig:
    """Read a configuration.

    Args:
        source: A file, a built-in name, a mapping, or None for the defaults.
        overrides: ``a.b=c`` items, applied in order; ``c`` is read as YAML.
        mode: Name or file of a mode, laid over ``source`` before the overrides.
        stored: ``source`` is complete, as a run or a model stored it. A setting that it lacks was
            added later, and takes the value that repeats what was done before (ADDED_LATER).

    Raises:
        ConfigError: An unknown key, a wrong type or settings that exclude each other; the message
            names the place and, for a misspelt name, the nearest known one.

    >>> load_config("demo", ["training.batch_size=32"]).training.batch_size
    32
    """
    if source is None or isinstance(source, Mapping):
        values: dict[str, Any] = plain(source or {})
        where = "config"
    else:
        path = find_config(source)
        values = plain(read_with_parents(path))
        where = str(path)
    if stored:
        for (section, key), before in ADDED_LATER.items():
            if isinstance(values.get(section), dict):
                values[section].setdefault(key, before)
    if mode is not None:
        path = find_mode(mode)
        merge(values, read_mode(path).settings)
        where = f"{where} + {path}"
    for item in overrides:
        _override(values, item)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise _config_error(error, where, overrides, stored) from error


def save_config(config: RunConfig, path: str | Path, template: str | Path | None = None) -> None:
    """Write every setting to ``path``, with the comments of the file ``template``."""
    document = read_document(find_config(template)) if template is not None else CommentedMap()
    document.pop("extends", None)
    merge(document, config.model_dump(mode="json"))
    buffer = io.StringIO()
    yaml().dump(document, buffer)
    write_text(path, buffer.getvalue())


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
        value = plain(parse_yaml(text)) if text.strip() else None
    except YAMLError as error:
        raise ConfigError(
            tr("The value is not valid YAML."),
            where=f"--set {item}",
            found=text,
            hint=tr("Close every bracket and quote, and put the value in single quotes."),
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
    """Read ``1e-4`` as a number. YAML 1.2 requires a dot and would read it as a string."""
    try:
        return float(text) if text[:1] in "+-.0123456789" else text
    except ValueError:
        return text


def _config_error(
    error: ValidationError, where: str, overrides: Sequence[str], stored: bool
) -> ConfigError:
    """Turn the first of pydantic's findings into a ConfigError with its file or ``--set`` item."""
    findings = error.errors()
    first = findings[0]
    keys = _setting(first["loc"])
    dotted = ".".join(keys)
    place = f"{where}: {dotted}" if dotted else where
    for item in overrides:
        if dotted and f"{item.partition('=')[0].strip()}.".startswith(f"{dotted}."):
            place = f"--set {item}"
    if first["type"] == "extra_forbidden":
        return _unknown_key(keys, place, stored and not place.startswith("--set "))
    if first["type"] == "value_error":
        broken = str(first["ctx"]["error"])
        named = [item for item in overrides if item.partition("=")[0].strip() in broken]
        return ConfigError(
            tr("{sentence}.", sentence=broken),
            where=f"--set {named[0]}" if named else place,
            hint=tr("Change one of these settings, with --set or in the config file."),
        )
    return ConfigError(
        tr("The value does not fit."),
        where=place,
        found=shown(first["input"]),
        expected=wanted(one for one in findings if _setting(one["loc"]) == keys),
    )


def _unknown_key(keys: Sequence[str], place: str, stored: bool) -> ConfigError:
    """Make the error for a key that does not exist; name a similar one, or the same elsewhere."""
    advice = tr("`xmr config list` shows every setting.")
    if stored:
        advice = tr(
            "A newer version of xmr may have written this file; this is {version}. Update xmr.",
            version=__version__,
        )
    known = keys_of(keys[:-1])
    near = nearest(keys[-1], known)
    elsewhere = meant(keys[-1]) if near is None else [".".join([*keys[:-1], near])]
    return ConfigError(
        tr("Unknown key {key!r}.", key=keys[-1]),
        where=place,
        expected=None if elsewhere else tr("one of: {names}", names=listed(known)),
        hint=tr("Did you mean {name}?", name=" / ".join(elsewhere[:3])) if elsewhere else advice,
    )


def _setting(place: Sequence[int | str]) -> list[str]:
    """Keep the keys of pydantic's location; drop union members and list positions."""
    keys: list[str] = []
    for key in map(str, place):
        keys.append(key)
        if not keys_of(keys):
            break
    return keys
