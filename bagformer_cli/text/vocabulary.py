"""Find and read the vocabulary of a WordPiece tokenizer: ``vocab.txt`` or ``tokenizer.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from bagformer_cli.errors import InputError, cannot_read, listed
from bagformer_cli.file_kinds import require_text_file
from bagformer_cli.hub import fetch
from bagformer_cli.messages import tr

FILES = ("vocab.txt", "tokenizer.json")
"""The files that hold a vocabulary, the preferred one first."""


def read_vocabulary(source: str | Path = "builtin") -> tuple[tuple[str, ...], Path]:
    """Read the entries of a vocabulary in the order of their ids.

    Args:
        source: ``"builtin"``, one of :data:`FILES`, a folder that holds one, or the name of a
            model on the Hugging Face hub.

    Returns:
        The entries, and the file that they were read from.

    Raises:
        InputError: There is no such vocabulary, or its tokenizer is not BERT's for lower-cased
            text.
    """
    path = _vocabulary_file(source)
    require_text_file(path, tr("one entry a line"))
    try:
        text = path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise cannot_read(path, error) from error
    if path.suffix == ".json":
        return _from_json(text, path), path
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return tuple(line.rstrip("\r") for line in lines), path


def pieces_of(lines: Sequence[str]) -> tuple[str, ...]:
    r"""Leave out the log-probability that SentencePiece's vocabularies have after each piece.

    >>> pieces_of(["红色\t-9.5", "裙"])
    ('红色', '裙')
    """
    return tuple(line.partition("\t")[0] for line in lines)


def _vocabulary_file(source: str | Path) -> Path:
    if source == "builtin":
        return Path(str(resources.files("bagformer_cli"))) / "text" / "builtin_vocab.txt"
    path = Path(source)
    if path.is_dir():
        path = next((path / name for name in FILES if (path / name).is_file()), path / FILES[0])
    if path.is_file():
        return path
    named = isinstance(source, str) and source.count("/") <= 1 and not source.startswith((".", "/"))
    if path.suffix or not named:
        raise InputError(
            tr("There is no vocabulary here."),
            where=path,
            expected=tr("a vocab.txt, a model folder, or the name of a model on the hub"),
        )
    return fetch(str(source), FILES, "text.tokenizer")


def _from_json(text: str, path: Path) -> tuple[str, ...]:
    """Read the vocabulary of a ``tokenizer.json`` whose rules are those of our tokenizer."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(tr("The file is not valid JSON."), where=path) from None
    model, normalizer = _part(content, "model"), _part(content, "normalizer")
    found = model.get("vocab")
    ids: dict[str, int] = found if isinstance(found, dict) else {}
    if (
        model.get("type", "WordPiece") != "WordPiece"
        or not ids
        or sorted(map(str, ids.values())) != sorted(map(str, range(len(ids))))
    ):
        raise InputError(
            tr("This is not a WordPiece vocabulary."),
            where=path,
            found=model.get("type"),
            expected="WordPiece",
        )
    require_lower_case(normalizer, "lowercase", path)
    return tuple(sorted(ids, key=ids.__getitem__))


def require_lower_case(rules: dict[str, Any], lower_case: str, where: Path) -> None:
    """Raise unless a tokenizer cuts text as BERT's does for lower-cased text.

    Args:
        rules: Its settings, as in ``tokenizer_config.json``. Absent ones have BERT's values.
        lower_case: Name of the setting for lower case.
        where: The file, for the message.

    Raises:
        InputError: It keeps upper case or accents, or does not separate Chinese characters.
    """
    needed = {
        lower_case: rules.get(lower_case, True),
        "strip_accents": rules.get("strip_accents"),
        "tokenize_chinese_chars": rules.get("tokenize_chinese_chars", True),
    }
    wrong = [f"{name}: {str(value).lower()}" for name, value in needed.items() if value is False]
    if wrong:
        raise InputError(
            tr("The tokenizer has other rules than BERT's for lower-cased text."),
            where=where,
            found=listed(wrong),
            expected="true",
        )


def _part(content: Any, name: str) -> dict[str, Any]:
    part = content.get(name) if isinstance(content, dict) else None
    return part if isinstance(part, dict) else {}
