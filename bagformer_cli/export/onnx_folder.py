"""Write a model as an ONNX folder, which ``bagformer_cli.runtime`` reads without torch.

``runtime/folder.py`` describes the folder. Quantised graphs are made from the float32 ones:

======================  =============================================================
``fp16``                all weights and activations float16 (for GPUs; a CPU gains no speed)
``int8-dynamic``        weights int8; activations are quantised while the graph runs
``int8-static``         weights int8; activations by ranges measured on examples
======================  =============================================================

Shapes: n items, L positions, G bags of a title at most, S side of an image in pixels.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bagformer_cli.config import save_config
from bagformer_cli.errors import CheckpointError, MissingDependencyError, listed
from bagformer_cli.export.towers import CrossTower, ImageTower, TextTower, reads_ids
from bagformer_cli.files import new_files
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.card import write_card
from bagformer_cli.models.fingerprint import fingerprint
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.runtime.folder import CROSS, IMAGE, TEXT, CrossInput, Manifest
from bagformer_cli.text.padding import pad_titles

Precision = Literal["fp32", "fp16", "int8-dynamic", "int8-static"]
OPSET = 18
_QUANTISED = ("MatMul", "Gemm", "Conv")
_LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir", "root")


@dataclass(frozen=True)
class Examples:
    """Titles and images whose activations set the ranges of static quantisation.

    Args:
        titles: Titles; a few hundred are enough.
        pixels: [n, S, S, 3] uint8, resized images.
    """

    titles: Sequence[str]
    pixels: NDArray[np.uint8]


def export_onnx(
    model: RetrievalModel,
    out: Path,
    precision: Precision = "fp32",
    examples: Examples | None = None,
    progress: Progress = SILENT,
) -> Manifest:
    """Write a model as an ONNX folder.

    Args:
        model: A model on the CPU, in evaluation mode.
        out: The folder. Files of the same names are replaced.
        precision: Numbers of the graphs; the module compares them.
        examples: Required for ``int8-static``.
        progress: Where progress is reported.

    Raises:
        CheckpointError: The model reads regions or has the habits of the original code.
        MissingDependencyError: onnx, onnxscript or onnxruntime is not installed.
    """
    _require_exportable(model)
    _require_packages(precision)
    config = model.config
    cross = model.cross if model.can_rerank else None
    reads: CrossInput | None = None
    if cross is not None:
        reads = "ids" if reads_ids(cross) else "states"
    manifest = Manifest(
        fingerprint(model), config.model.embed_dim, config.image.size, precision, OPSET, reads
    )
    towers: dict[str, nn.Module] = {
        TEXT: TextTower(model.dual, states=reads == "states"),
        IMAGE: ImageTower(model.dual, cross),
    }
    feeds = {TEXT: _text_feed(model, _TRACED), IMAGE: {"pixels": _traced_pixels(config.image.size)}}
    if cross is not None:
        towers[CROSS] = CrossTower(model)
        feeds[CROSS] = _pairs_feed(towers, feeds)
    with (
        progress.task(tr("Exporting"), len(towers), tr("{n} graphs", n="{n}")) as task,
        tempfile.TemporaryDirectory() as scratch,
        new_files(out) as folder,
    ):
        for name, tower in towers.items():
            exact = Path(scratch) / name
            _trace(tower.eval(), feeds[name], exact)
            _convert(exact, folder / name, precision, _calibration(model, towers, name, examples))
            task.advance(1)
        model.titles.tokenizer.save(folder / "vocab.txt")
        model.titles.segmenter.lexicon.save(folder / "lexicon.txt")
        save_config(config, folder / "config.yaml")
        manifest.save(folder)
        write_card(folder, config, use=_USE)
    return manifest


_USE = """\
```python
from bagformer_cli import runtime  # numpy and onnxruntime, no torch

retriever = runtime.load("FOLDER")
images = retriever.encode_images(["photo.jpg"])
titles = retriever.encode_texts(["红色碎花连衣裙"])
print(retriever.score(images, titles).t2i_mean)
```

On the command line: `xmr search 红色碎花连衣裙 --checkpoint FOLDER`.
The graphs (`*.onnx`) can be run by any program that reads ONNX."""

# --------------------------------------------------------------------------------------- tracing

_TRACED = ("红色碎花连衣裙 夏季新款", "女包")
"""Titles of different lengths, so that no size is 0 or 1, which a trace would keep as constants."""
_DYNAMIC = {
    "input_ids": {0: "n", 1: "positions"},
    "attention_mask": {0: "n", 1: "positions"},
    "bag_tokens": {0: "n", 1: "bags", 2: "positions"},
    "pixels": {0: "n"},
    "text_states": {0: "n", 1: "positions"},
    "text_mask": {0: "n", 1: "positions"},
    "image_states": {0: "n"},
}


def _trace(tower: nn.Module, feed: dict[str, NDArray[Any]], path: Path) -> None:
    names = {name for axes in _DYNAMIC.values() for name in axes.values()}
    sizes = {name: torch.export.Dim(name) for name in names}
    shapes = {name: {axis: sizes[at] for axis, at in _DYNAMIC[name].items()} for name in feed}
    with _quiet(), torch.no_grad():
        program: Any = torch.onnx.export(
            tower,
            tuple(torch.from_numpy(value) for value in feed.values()),
            dynamo=True,
            verbose=False,
            dynamic_shapes=shapes,
            input_names=list(feed),
            output_names=_outputs(tower),
            opset_version=OPSET,
        )
        program.save(str(path))


def _outputs(tower: nn.Module) -> list[str]:
    if isinstance(tower, CrossTower):
        return ["scores"]
    states = tower.states if isinstance(tower, TextTower) else tower.cross is not None
    extra = ["states", "states_mask"] if isinstance(tower, TextTower) else ["states"]
    return ["vectors", "mask", "cls", *(extra if states else [])]


@torch.no_grad()
def _pairs_feed(
    towers: dict[str, nn.Module], feeds: dict[str, dict[str, NDArray[Any]]]
) -> dict[str, NDArray[Any]]:
    """Run both towers on as many titles as images: what the cross-encoder reads of the pairs."""
    found = {
        name: towers[name].eval()(*map(torch.from_numpy, feeds[name].values()))
        for name in (TEXT, IMAGE)
    }
    if len(found[TEXT]) > 3:
        text, mask = (tensor.numpy() for tensor in found[TEXT][3:])
    else:
        text, mask = feeds[TEXT]["input_ids"], feeds[TEXT]["attention_mask"]
    return {"text_states": text, "text_mask": mask, "image_states": found[IMAGE][3].numpy()}


def _text_feed(model: RetrievalModel, titles: Sequence[str]) -> dict[str, NDArray[Any]]:
    padded = pad_titles(model.titles(list(titles)), model.titles.tokenizer.pad_id)
    return {
        "input_ids": padded.input_ids,
        "attention_mask": padded.attention_mask,
        "bag_tokens": padded.bag_tokens(),
    }


def _traced_pixels(size: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporters' warnings and log lines: they are about internals, not about the model."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    try:
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


# ------------------------------------------------------------------------------------- precision


def _convert(
    exact: Path, path: Path, precision: Precision, feeds: list[dict[str, NDArray[Any]]]
) -> None:
    """Write a float32 graph in another precision; its large weights may be in a second file."""
    if precision == "fp32":
        for file in exact.parent.glob(f"{exact.name}*"):
            shutil.copyfile(file, path.parent / file.name)
        return
    with _quiet():
        if precision == "fp16":
            import onnx
            from onnxruntime.transformers.float16 import convert_float_to_float16

            halved = convert_float_to_float16(onnx.load(exact), keep_io_types=True)
            onnx.save(halved, path)
            return
        from onnxruntime import quantization as quantise

        options: dict[str, Any] = {
            "per_channel": True,
            "op_types_to_quantize": list(_QUANTISED[:2]),
            # Products of two activations (attention, sums of bags) stay float32.
            "extra_options": {"MatMulConstBOnly": True},
        }
        if precision == "int8-dynamic":
            quantise.quantize_dynamic(exact, path, **options)
            return
        options["op_types_to_quantize"] = list(_QUANTISED)
        quantise.quantize_static(exact, path, _Feeds(feeds), **options)


class _Feeds:
    """The examples as onnxruntime's calibration reads them."""

    def __init__(self, feeds: list[dict[str, NDArray[Any]]]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._feeds, None)


def _calibration(
    model: RetrievalModel,
    towers: dict[str, nn.Module],
    name: str,
    examples: Examples | None,
    batch: int = 16,
) -> list[dict[str, NDArray[Any]]]:
    if examples is None:
        return []
    titles, pixels = examples.titles, examples.pixels
    texts = [_text_feed(model, titles[i : i + batch]) for i in range(0, len(titles), batch)]
    images = [{"pixels": pixels[i : i + batch]} for i in range(0, len(pixels), batch)]
    if name != CROSS:
        return texts if name == TEXT else images
    return [
        _pairs_feed(towers, {TEXT: text, IMAGE: image})
        for text, image in zip(texts, images, strict=False)
        if len(text["input_ids"]) == len(image["pixels"])
    ]


# ---------------------------------------------------------------------------------------- checks


def _require_exportable(model: RetrievalModel) -> None:
    if model.config.image.regions is not None:
        raise CheckpointError(
            tr("A model that reads regions of a detector cannot be exported to ONNX."),
            where="image.regions",
            hint=tr("Export a model that reads pixels."),
        )
    if model.config.compat is not None:
        raise CheckpointError(
            tr("A model with compat (the original code's habits) cannot be exported to ONNX."),
            where="compat",
            found=model.config.compat,
            hint=tr("Train one without compat, starting from it: --set training.checkpoint=FOLDER"),
        )


def _require_packages(precision: Precision) -> None:
    from importlib.util import find_spec

    needed = ["onnx", "onnxscript"] + (["onnxruntime"] if precision != "fp32" else [])
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            tr("Exporting needs further packages."),
            found=tr("missing: {names}", names=listed(missing)),
            hint="pip install 'bagformer-cli[export]'",
        )
