"""Write whole configurations with the meaning of each setting as a comment."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml.comments import CommentedMap

from bagformer_cli.config.builtin import CONFIGS
from bagformer_cli.config.rules import RunConfig
from bagformer_cli.config.settings import settings
from bagformer_cli.config.yaml_files import find_config, merge, read_document, yaml
from bagformer_cli.messages import language, tr
from bagformer_cli.wrapping import wrap

_WIDTH = 94


def commented_yaml(config: RunConfig, template: str | Path) -> str:
    """Write a whole configuration as YAML, with the meaning of each setting above it.

    Args:
        config: The configuration.
        template: Config file or built-in name whose own comments are kept. Those of a built-in
            one are English; in another language its line of ``xmr config list`` stands instead.
    """
    document = _document(template)
    merge(document, config.model_dump(mode="json"))
    ordered = _in_order(document, list(RunConfig.model_fields))
    known = {
        one.name: one.meaning
        if one.section
        else tr("{message} ({details})", message=one.meaning, details=one.kind)
        for one in settings()
        if one.meaning
    }
    _comment(ordered, known, "", 0)
    buffer = io.StringIO()
    yaml().dump(ordered, buffer)
    return buffer.getvalue()


def _document(template: str | Path) -> CommentedMap:
    """Return an empty document, or the template with its comments."""
    if language() != "en" and str(template) in CONFIGS:
        document = CommentedMap()
        document.yaml_set_start_comment("\n".join(wrap(CONFIGS[str(template)], _WIDTH)))
        return document
    document = read_document(find_config(template))
    document.pop("extends", None)
    return document


def _in_order(document: CommentedMap, keys: list[str]) -> CommentedMap:
    """Put the sections into the order of the schema."""
    for key in keys:
        document.move_to_end(key)
    return document


def _comment(section: CommentedMap, known: Mapping[str, str], prefix: str, depth: int) -> None:
    for key in list(section):
        name = f"{prefix}{key}"
        value: Any = section[key]
        if isinstance(value, dict) and not isinstance(value, CommentedMap):
            value = section[key] = CommentedMap(value)
        if name in known:
            text = "\n".join(wrap(known[name], _WIDTH - 2 * depth))
            section.yaml_set_comment_before_after_key(key, before=text, indent=2 * depth)
        if isinstance(value, CommentedMap) and value and not name.endswith("options"):
            value.fa.set_block_style()
            _comment(value, known, f"{name}.", depth + 1)
