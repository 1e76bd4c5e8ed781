"""Write whole configurations with the meaning of each setting as a comment."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml.comments import CommentedMap

from bagformer_cli.config.rules import RunConfig
from bagformer_cli.config.settings import settings
from bagformer_cli.config.yaml_files import find_config, merge, read_document, yaml

_WIDTH = 96


def commented_yaml(config: RunConfig, template: str | Path) -> str:
    """Write a whole configuration as YAML, with the meaning of each setting above it.

    Args:
        config: The configuration.
        template: Config file or built-in name whose own comments are kept.
    """
    document = read_document(find_config(template))
    document.pop("extends", None)
    merge(document, config.model_dump(mode="json"))
    ordered = _in_order(document, list(RunConfig.model_fields))
    known = {
        one.name: one.meaning if one.section else f"{one.meaning} ({one.kind})"
        for one in settings()
        if one.meaning
    }
    _comment(ordered, known, "", 0)
    buffer = io.StringIO()
    yaml().dump(ordered, buffer)
    return buffer.getvalue()


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
            text = _wrapped(known[name], _WIDTH - 2 * depth)
            section.yaml_set_comment_before_after_key(key, before=text, indent=2 * depth)
        if isinstance(value, CommentedMap) and value and not name.endswith("options"):
            value.fa.set_block_style()
            _comment(value, known, f"{name}.", depth + 1)


def _wrapped(text: str, width: int) -> str:
    """Break a comment into lines; Chinese characters take two columns."""
    lines, line, used = [], "", 0
    for word in _words(text):
        size = sum(2 if ord(character) > 0x2E80 else 1 for character in word)
        if line and used + size > width - 2:
            lines.append(line.rstrip())
            line, used = "", 0
        line += word if line else word.lstrip()
        used += size
    return "\n".join([*lines, line.rstrip()])


def _words(text: str) -> list[str]:
    """Split where a line may break: before blanks and around wide characters."""
    words: list[str] = []
    for character in text:
        wide = ord(character) > 0x2E80
        joins = character in "，。；：）、" if wide else character != " "
        if words and joins and (wide or ord(words[-1][-1]) <= 0x2E80):
            words[-1] += character
        else:
            words.append(character)
    return words
