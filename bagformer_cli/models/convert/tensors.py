"""Make the weights of a model from the tensors of a checkpoint.

A converter lists for each weight of our model the tensors that it is made of (:class:`Weight`).
:func:`assemble` makes the weights and reports what became of every tensor::

    ours                                    theirs                                       form
    dual.text_encoder.bert.embeddings. …    text_model.embeddings. …                     same
    … blocks.0.attn.qkv.weight [3W, W]      … q_proj.weight, k_proj …, v_proj … [W, W]   stacked
    dual.vision_proj.weight [D, W]          visual.proj [W, D]                           transposed
    … pos_embed [1, 1 + g², W]              visual.positional_embedding [1 + h², W]  flat_positions

Shapes: W width, D embedding dimension, g and h patches per side of the model's
and of the checkpoint's image.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from math import isqrt
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bagformer_cli.encoders.weight_files import no_weights, read_weight_file, require_plain
from bagformer_cli.errors import SIMILAR
from bagformer_cli.models.convert.report import Shape, TensorReport

Form = Literal[
    "same",
    "unsqueezed",
    "transposed",
    "stacked",
    "positions",
    "flat_positions",
    "temperature",
    "zeros",
]


@dataclass(frozen=True)
class Weight:
    """A weight of our model and the tensors that it is made of.

    Attributes:
        name: Our name.
        sources: Names in the checkpoint, in the order in which they are stacked.
        form: ``same``; ``unsqueezed``: leading axes of length 1 are added; ``transposed``;
            ``stacked``: joined along the first axis; ``positions``: position embeddings,
            interpolated to the model's grid; ``flat_positions``: without ours' leading axis;
            ``temperature``: exp(-x) of a logit scale;
            ``zeros``: has no source and adds nothing.
        optional: Zeros take its place if the checkpoint does not have it.
    """

    name: str
    sources: tuple[str, ...] = ()
    form: Form = "same"
    optional: bool = False


@dataclass(frozen=True)
class Ignored:
    """Tensors that the model does not need.

    Attributes:
        pattern: Matches the beginning of their names.
        reason: Why they are not needed, for the report.
    """

    pattern: re.Pattern[str]
    reason: str


OLD_SPELLINGS = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))
"""Names of layer normalisation in checkpoints that were converted from TensorFlow."""
_FOLDED = ("state_dict", "model")  # keys of a training checkpoint that hold the weights


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint, without ``module.`` before their names.

    Args:
        path: A safetensors file, or one that ``torch.save`` wrote: tensors by name, perhaps under
            ``state_dict`` or ``model``.

    Raises:
        InputError: There is no such file.
        CheckpointError: It is damaged, holds code, or holds something else than tensors.
    """
    content = read_weight_file(path)
    for key in _FOLDED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise no_weights(path, type(content).__name__)
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise no_weights(path, f"{name}: {type(value).__name__}")
        require_plain(path, name, value)
    if all(name.startswith("module.") for name in content):  # DistributedDataParallel's
        return {name.removeprefix("module."): value for name, value in content.items()}
    return dict(content)


def assemble(
    weights: Sequence[Weight],
    shapes: Mapping[str, Shape],
    tensors: Mapping[str, Tensor],
    ignored: Sequence[Ignored] = (),
) -> tuple[dict[str, Tensor], TensorReport]:
    """Make weights of tensors, and account for every tensor.

    Args:
        weights: The sources of each weight of the model.
        shapes: The shape of each weight of the model, by our names.
        tensors: The checkpoint.
        ignored: Tensors that may be there although no weight needs them.

    Returns:
        The weights by our names, float32, without those that the report finds missing or of
        another shape; and the report.
    """
    report = TensorReport()
    given = _by_usual_name(tensors)
    made: dict[str, Tensor] = {}
    used: set[str] = set()
    for weight in weights:
        target = shapes[weight.name]
        absent = [name for name in weight.sources if name not in given]
        if weight.form == "zeros" or (absent and weight.optional):
            made[weight.name] = torch.zeros(target)
            continue
        report.missing += absent
        here = [name for name in weight.sources if name in given]
        used.update(here)
        expected = _source_shape(weight, target)
        values = [tensors[given[name]] for name in here]
        wrong = [
            (name, tuple(value.shape))
            for name, value in zip(here, values, strict=True)
            if not _fits(weight.form, tuple(value.shape), expected)
        ]
        report.misshapen |= {given[name]: (found, expected) for name, found in wrong}
        bad = {name for name, _ in wrong}
        whole = {
            name
            for name, value in zip(here, values, strict=True)
            if not value.is_floating_point() and name not in bad and not weight.optional
        }  # optional: batch normalisation's count of batches
        report.whole += [given[name] for name in here if name in whole]
        bad |= whole
        positions = weight.form.endswith("positions") and here and not bad
        resized = _resized(values, expected) if positions else ""
        for name in here:
            if name in bad:
                continue
            if resized:
                report.resized[given[name]] = resized
            elif given[name] != name:
                report.renamed[given[name]] = name
            else:
                report.loaded.append(name)
        if not absent and not bad:
            made[weight.name] = _make(weight.form, values, target)
    _explain_rest(report, given, used, ignored)
    _pair_renamed(report, tensors, weights, shapes)
    return made, report


def _by_usual_name(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Map the usual spelling of each name to the name in the checkpoint."""
    given = {name: name for name in tensors}
    for name in tensors:
        usual = name
        for old, new in OLD_SPELLINGS:
            usual = usual.replace(old, new)
        if usual not in given:
            del given[name]
            given[usual] = name
    return given


def _source_shape(weight: Weight, target: Shape) -> Shape:
    """Return the shape that each source of a weight must have."""
    if weight.form == "transposed":
        return target[::-1]
    if weight.form == "stacked":
        return (target[0] // len(weight.sources), *target[1:])
    if weight.form == "unsqueezed":
        return target[next((i for i, n in enumerate(target) if n != 1), len(target) - 1) :]
    if weight.form == "flat_positions":
        return target[-2:]
    return target


def source_shapes(weights: Sequence[Weight], shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return the shape that each tensor of a checkpoint must have, by its name.

    Args:
        weights: The sources of each weight of the model.
        shapes: The shape of each weight of the model, by our names.
    """
    return {
        name: _source_shape(weight, shapes[weight.name])
        for weight in weights
        for name in weight.sources
    }


def _fits(form: Form, found: Shape, expected: Shape) -> bool:
    if not form.endswith("positions") or len(found) != len(expected):
        return found == expected
    rows = found[-2] - 1
    square = rows > 0 and isqrt(rows) ** 2 == rows
    return square and found[-1] == expected[-1] and found[:-2] == expected[:-2]


def _resized(values: Sequence[Tensor], expected: Shape) -> str:
    """Describe the two grids of position embeddings; empty: they are equal."""
    old, new = (isqrt(rows - 1) for rows in (values[0].shape[-2], expected[-2]))
    return "" if old == new else f"{old} × {old} → {new} × {new}"


def _make(form: Form, values: Sequence[Tensor], target: Shape) -> Tensor:
    first = values[0].float()
    if form == "transposed":
        return first.t().contiguous()
    if form == "stacked":
        return torch.cat([value.float() for value in values])
    if form == "temperature":
        return torch.exp(-first)
    if form.endswith("positions"):
        grid = isqrt(target[-2] - 1)
        return interpolate_positions(first.reshape(1, -1, target[-1]), grid).reshape(target)
    return first.reshape(target)


def interpolate_positions(positions: Tensor, grid: int) -> Tensor:
    """Interpolate position embeddings to another grid: bicubic, the class token's row unchanged.

    Args:
        positions: [1, 1 + g * g, W].
        grid: Patches per side of the new grid.
    """
    old = round((positions.shape[1] - 1) ** 0.5)
    if old == grid:
        return positions
    cells = positions[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    cells = F.interpolate(cells, size=(grid, grid), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], cells.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def _explain_rest(
    report: TensorReport, given: Mapping[str, str], used: set[str], ignored: Sequence[Ignored]
) -> None:
    """Sort the tensors that no weight needs into ignored and unknown ones."""
    for usual, name in given.items():
        if usual in used:
            continue
        reason = next((one.reason for one in ignored if one.pattern.match(usual)), None)
        if reason is None:
            report.unknown.append(name)
        else:
            report.ignored.setdefault(reason, []).append(name)


def _pair_renamed(
    report: TensorReport,
    tensors: Mapping[str, Tensor],
    weights: Sequence[Weight],
    shapes: Mapping[str, Shape],
) -> None:
    """Move missing tensors that are there under another name to the renamed ones.

    Two tensors of one shape belong together if their names are similar, or if no other missing or
    unknown tensor has that shape.

    They are not loaded: the shape of a query matrix is also that of a key matrix.
    """
    if len(report.missing) * len(report.unknown) > _MOST_PAIRS:
        return
    wanted = source_shapes(weights, shapes)
    pairs = [
        (SequenceMatcher(None, missing, found).ratio(), missing, found)
        for missing in report.missing
        for found in report.unknown
        if tuple(tensors[found].shape) == wanted[missing]
    ]
    of_missing = Counter(missing for _, missing, _ in pairs)
    of_found = Counter(found for _, _, found in pairs)
    for likeness, missing, found in sorted(pairs, key=lambda pair: -pair[0]):
        alone = of_missing[missing] == of_found[found] == 1  # the only two of their shape
        if (likeness < SIMILAR and not alone) or missing not in report.missing:
            continue
        if found in report.unknown:
            report.missing.remove(missing)
            report.unknown.remove(found)
            report.renamed[found] = missing
            report.guessed.add(found)


_MOST_PAIRS = 10_000  # beyond, most names differ: the checkpoint is of another model
