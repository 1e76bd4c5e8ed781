"""Load a pretrained BERT from a folder or the hub; every weight must be found and fit.

Only numbers are taken from ``config.json`` and only tensors from the weight file, so no code of
the model's author runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor
from transformers import BertModel

from bagformer_cli.config import TextConfig
from bagformer_cli.encoders.text import bert_config
from bagformer_cli.encoders.weight_files import (
    join_shards,
    not_json,
    read_state_dict,
    summary,
    whole_numbers,
)
from bagformer_cli.errors import CheckpointError, ConfigError, listed
from bagformer_cli.hub import cached_file, fetch, is_hub_name
from bagformer_cli.messages import tr
from bagformer_cli.text.vocabulary import FILES as VOCABULARIES
from bagformer_cli.text.vocabulary import pieces_of, read_vocabulary

SETTING = "text.pretrained"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_OPTIONS = ("hidden_act", "layer_norm_eps", "max_position_embeddings", "type_vocab_size")


def load_bert(source: str, layers: int) -> BertModel:
    """Load a pretrained BERT without its pooling layer, in float32.

    Args:
        source: A folder with ``config.json`` and ``model.safetensors`` or ``pytorch_model.bin``,
            or the name of a model on the hub.
        layers: The fewest layers that it must have.

    Raises:
        CheckpointError: There is no such model, it is no BERT, or its weights are incomplete or
            do not fit its configuration.
        ConfigError: It has fewer layers.
    """
    try:
        return _load(source, layers)
    except CheckpointError as error:
        where = error.where or source
        error.where = where if where.startswith(SETTING) else f"{SETTING}: {where}"
        raise


def _load(source: str, layers: int) -> BertModel:
    about_path, weights_path = _files(source)
    about = read_json(about_path)
    config = text_settings(about, about_path)
    if config.layers < layers:
        raise ConfigError(
            tr("The pretrained BERT has too few layers."),
            where=f"{SETTING}: {source}",
            found=config.layers,
            expected=tr("at least {n}: text.layers", n=layers),
        )
    weights = read_state_dict(weights_path)
    vocab_size = int(about["vocab_size"])
    wanted = bert_config(config, vocab_size, int(about.get("pad_token_id") or 0), config.layers)
    weights = _own_names(weights)
    with torch.device("meta"):  # no memory for sizes that the weight file does not have
        _require_fitting(BertModel(wanted, add_pooling_layer=False), weights, weights_path)
    with torch.random.fork_rng(devices=[]):  # random weights, all of which are replaced
        bert = BertModel(wanted, add_pooling_layer=False)
    own = {name for name, _ in bert.named_parameters()}
    bert.load_state_dict({name: weights[name] for name in own}, strict=False)
    bert.train(False)
    return bert


def sizes_of(bert: BertModel, config: TextConfig) -> TextConfig:
    """Return the text section with the sizes of a pretrained BERT.

    Raises:
        ConfigError: Titles are longer than its positions.
    """
    own = bert.config
    if config.max_tokens > own.max_position_embeddings:
        raise ConfigError(
            tr("The pretrained BERT reads shorter titles only."),
            where="text.max_tokens",
            found=config.max_tokens,
            expected=tr("at most {n}", n=own.max_position_embeddings),
        )
    return config.model_copy(
        update={
            "width": own.hidden_size,
            "heads": own.num_attention_heads,
            "feed_forward": own.intermediate_size,
            "options": {name: getattr(own, name) for name in _OPTIONS},
        }
    )


def require_same_vocabulary(source: str, bert: BertModel, vocabulary: tuple[str, ...]) -> None:
    """Raise unless a pretrained BERT was trained with the tokenizer's vocabulary.

    With another one every token would get the embedding of a different token.

    Args:
        source: The model's folder or hub name.
        bert: The model. Without ``vocab.txt`` or ``tokenizer.json`` its number of word embeddings
            is compared.
        vocabulary: The tokenizer's tokens in the order of their ids.

    Raises:
        CheckpointError: The vocabularies differ.
    """
    where = f"{SETTING}: {source}"
    rows = int(bert.config.vocab_size)
    require_equal_vocabulary(where, vocabulary_of(source), rows, vocabulary)


def require_equal_vocabulary(
    where: str, theirs: tuple[str, ...] | None, rows: int, vocabulary: tuple[str, ...]
) -> None:
    """Raise unless the vocabulary of a pretrained BERT is that of the tokenizer.

    Args:
        where: Setting and value that name the model, ``text.pretrained: …``.
        theirs: The vocabulary of the model; None: only its number of word embeddings is known.
        rows: Number of its word embeddings.
        vocabulary: The tokenizer's tokens in the order of their ids.

    Raises:
        CheckpointError: The vocabularies differ.
    """
    if theirs is not None and theirs == vocabulary and rows >= len(vocabulary):
        return
    if theirs is None and rows == len(vocabulary):
        return
    found = tr("{n} tokens", n=f"{rows if theirs is None else min(rows, len(theirs)):,}")
    if theirs is not None and len(theirs) == len(vocabulary) and theirs != vocabulary:
        pairs = enumerate(zip(theirs, vocabulary, strict=True))
        place = next(number for number, (their, our) in pairs if their != our)
        found = f"{place}: {theirs[place]} / {vocabulary[place]}"
    own = where.partition(": ")[2] if theirs is not None else "vocab.txt"
    raise CheckpointError(
        tr("The pretrained BERT was trained with another vocabulary."),
        where=where,
        found=found,
        expected=tr("the {n} tokens of text.tokenizer", n=f"{len(vocabulary):,}"),
        hint=tr("Use its own vocabulary: --set text.tokenizer={source}", source=own),
    )


def _files(source: str) -> tuple[Path, Path]:
    """Find ``config.json`` and the weight file of a folder or hub model.

    Raises:
        CheckpointError: They are not there, or the hub cannot be reached.
    """
    folder = Path(source)
    if folder.is_dir():
        weights = [folder / name for name in WEIGHT_FILES if (folder / name).is_file()]
        if not (folder / "config.json").is_file() or not weights:
            raise _no_bert(folder, listed(sorted(p.name for p in folder.iterdir())[:8]))
        return folder / "config.json", weights[0]
    if folder.exists():
        raise _no_bert(folder, tr("a file"))
    if not is_hub_name(source):
        raise CheckpointError(
            tr("There is no such folder."),
            where=f"{SETTING}: {source}",
            expected=tr("a folder with a BERT, or the name of a model on the hub"),
        )
    return fetch(source, ["config.json"], SETTING), fetch(source, WEIGHT_FILES, SETTING)


def _no_bert(place: Path, found: str) -> CheckpointError:
    hint = join_shards(place)
    if (place / "config.yaml").is_file():
        hint = tr(
            "This is a model folder of xmr: start from it with --checkpoint {path}", path=place
        )
    elif place.is_file():
        hint = tr(
            "Weights of BagFormer, ALBEF or Chinese-CLIP: convert them with `xmr convert`, then "
            "start from the result with --checkpoint."
        )
    return CheckpointError(
        tr("This is not a pretrained BERT."),
        where=f"{SETTING}: {place}",
        found=found or tr("an empty folder"),
        expected=tr("a folder with config.json and {names}", names=" / ".join(WEIGHT_FILES)),
        hint=hint,
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: The file cannot be read or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise not_json(path, error) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            tr("The file is not valid JSON."), where=path, found=type(content).__name__
        )
    return content


def text_settings(about: Mapping[str, Any], where: Path, kind: str = "bert") -> TextConfig:
    """Read the sizes of a BERT out of its ``config.json``.

    Args:
        about: The object that describes it.
        where: The file, for messages.
        kind: The ``model_type`` that it must have, if it has one.

    Raises:
        CheckpointError: It describes another kind of model, or a size is missing or impossible.
    """
    found = about.get("model_type", kind)
    if found != kind:
        raise CheckpointError(
            tr("This is another kind of model."), where=where, found=found, expected=kind
        )
    names = {
        "width": "hidden_size",
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "feed_forward": "intermediate_size",
    }
    missing = [name for name in (*names.values(), "vocab_size") if name not in about]
    if missing:
        raise CheckpointError(
            tr("The configuration of the pretrained BERT is incomplete."),
            where=where,
            found=tr("missing: {names}", names=listed(missing)),
        )
    options = {name: about[name] for name in _OPTIONS if name in about}
    try:
        if not 0 < int(about["vocab_size"]) < 10_000_000:
            raise ValueError(f"vocab_size: {about['vocab_size']}")
        sizes = {ours: about[theirs] for ours, theirs in names.items()}
        return TextConfig.model_validate({**sizes, "options": options})
    except (ValidationError, ValueError, TypeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        keys = [str(key) for key in first["loc"]] if first else []
        shown = names.get(keys[0], keys[-1]) if keys else ""
        raise CheckpointError(
            tr("The configuration of the pretrained BERT is not usable."),
            where=where,
            found=f"{shown}: {first['input']}" if first else f"vocab_size: {about['vocab_size']}",
        ) from error


def _own_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name a checkpoint's tensors as ``BertModel`` does: without ``bert.``, with new norm names."""
    named = {}
    for name, value in weights.items():
        name = name.removeprefix("bert.")
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
        named[name.replace("LayerNorm.beta", "LayerNorm.bias")] = value
    return named


def _require_fitting(bert: BertModel, weights: Mapping[str, Tensor], where: Path) -> None:
    """Raise unless every parameter has a finite weight of its shape.

    Weights of heads, which the model does not have, are no fault.
    """
    own = dict(bert.named_parameters())
    missing = [name for name in own if name not in weights]
    shapes = [
        f"{name} {list(weights[name].shape)} / {list(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    layers = sum(name.endswith("attention.self.query.weight") for name in weights)
    expected = bert.config.num_hidden_layers
    found = [
        *summary(tr("missing"), missing),
        *summary(tr("another shape"), shapes),
        *summary(tr("whole numbers"), whole_numbers(own, weights)),
    ]
    if layers != expected and not missing:
        found.append(tr("{n} layers", n=layers))
    if found:
        raise CheckpointError(
            tr("The weights are not those of the BERT that config.json describes."),
            where=where,
            found="; ".join(found),
            expected=tr(
                "{layers} layers of width {width}, {tokens} tokens",
                layers=expected,
                width=bert.config.hidden_size,
                tokens=f"{bert.config.vocab_size:,}",
            ),
        )
    broken = [name for name in own if not weights[name].isfinite().all()]
    if broken:
        raise CheckpointError(
            tr("Weights of this model are not finite numbers."),
            where=where,
            found="; ".join(summary("NaN", broken)),
        )


def vocabulary_of(source: str) -> tuple[str, ...] | None:
    """Read the tokens of a pretrained BERT; None: it names none."""
    for name in VOCABULARIES:
        path = Path(source) / name
        if not Path(source).is_dir():
            try:
                path = cached_file(source, name) or fetch(source, [name], SETTING)
            except CheckpointError:
                continue
        if not path.is_file():
            continue
        return pieces_of(read_vocabulary(path)[0])
    return None
