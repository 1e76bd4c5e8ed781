"""Encode with a frozen tower once, not at every step (``training.encode_frozen_once``).

A tower none of whose weights is trained gives the same states at every step, if nothing before it
or in it is random. :func:`keep_outputs` encodes a split with such towers; batches then bring the
states, and a step computes only what comes after the tower: projections, pooling, cross-encoder::

    every step   pixels ─▶ frozen tower ─▶ states ─▶ projection ─▶ loss
    kept         once: all pixels ─▶ frozen tower ─▶ states of the split
                 every step:               rows of them ─▶ projection ─▶ loss

Validation during training reads kept states as well (:class:`KeptModel`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.layers.drop import DropPath
from timm.layers.patch_dropout import PatchDropout
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from bagformer_cli.config import RunConfig
from bagformer_cli.data.batches import Batch, TextBatch, text_batches
from bagformer_cli.data.kept_outputs import KeptOutputs
from bagformer_cli.data.store.split import Split
from bagformer_cli.encoders.states import States, TitleStates
from bagformer_cli.errors import ConfigError
from bagformer_cli.evaluation.encoded_split import EncodedSplit, input_batches
from bagformer_cli.evaluation.sources import OwnModel
from bagformer_cli.machine import memory
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.encode import encode_images, encode_texts
from bagformer_cli.progress import SILENT, Progress

SETTING = "training.encode_frozen_once"


def titles_of(batch: Batch) -> TextBatch | TitleStates:
    """Return the titles of a batch, with the output of a frozen text tower if it was kept."""
    if batch.outputs is None or batch.outputs.texts is None:
        return batch.text
    return TitleStates(batch.text, batch.outputs.texts)


def images_of(batch: Batch) -> Tensor | States:
    """Return the pixels of a batch, or the output of a frozen image tower if it was kept."""
    if batch.outputs is None or batch.outputs.images is None:
        return batch.pixels()
    return States(batch.outputs.images, batch.outputs.image_mask)


def why_not_kept(model: RetrievalModel, config: RunConfig) -> tuple[str | None, str | None]:
    """Say why the outputs of the text and of the image tower change from step to step.

    Args:
        model: The model.
        config: The configuration of the run.

    Returns:
        A reason for the text tower and one for the image tower; None: its outputs can be kept.
    """
    dual: Any = model.dual
    if config.compat is not None:
        reason = tr("{setting} has its own way to encode", setting="compat")
        return reason, reason
    text, image = _changes(model, dual.text_encoder), _changes(model, dual.vision_encoder)
    if dual.early:
        text = text or tr("{setting} changes what enters it", setting="model.bag_fusion: early")
    if dual.text_codes is not None:
        text = text or tr("{setting} changes what enters it", setting="model.codes")
    if dual.image_codes is not None and dual.shared is None:
        image = image or tr("{setting} changes what enters it", setting="model.codes")
    if config.data.augment is not None and config.image.regions is None:
        image = image or tr(
            "{setting} changes what enters it", setting=tr("data.augment (set it to null)")
        )
    cross = config.model.cross
    if config.objectives.mfm or (cross is not None and cross.finer):
        name = "objectives.mfm" if config.objectives.mfm else "model.cross.finer"
        image = image or tr("{setting} reads the pixels", setting=name)
    return text, image


def _changes(model: RetrievalModel, tower: nn.Module) -> str | None:
    """Say whether weights of a tower are trained, or its output is random in training."""
    trained = sum(p.numel() for p in tower.parameters() if p.requires_grad)
    if trained:
        return tr("{n} of its numbers are trained", n=f"{trained:,}")
    was_training = model.training
    model.train()
    parts = [type(part).__name__ for part in tower.modules() if _is_random(part)]
    model.train(was_training)
    return tr("its {layer} layers are random in training", layer=parts[0]) if parts else None


def _is_random(part: nn.Module) -> bool:
    """Tell whether a layer's output depends on chance, or on the other items of a batch."""
    if not part.training:
        return False
    if isinstance(part, _DropoutNd):
        return part.p > 0
    if isinstance(part, DropPath):
        return bool(part.drop_prob)
    return isinstance(part, _BatchNorm | PatchDropout)


def keep_outputs(
    model: RetrievalModel, config: RunConfig, split: Split, progress: Progress = SILENT
) -> KeptOutputs | None:
    """Encode a split with the towers that are frozen.

    Args:
        model: The model, on its device.
        config: The configuration of the run.
        split: The split to encode.
        progress: Where to report.

    Returns:
        The outputs, on the CPU; None if ``training.encode_frozen_once`` is false.

    Raises:
        ConfigError: The outputs of both towers change from step to step, or they do not fit into
            memory.
    """
    if not config.training.encode_frozen_once:
        return None
    text, image = why_not_kept(model, config)
    if text is not None and image is not None:
        raise ConfigError(
            tr("No tower gives the same outputs at every step, so none can be kept."),
            where=SETTING,
            found=tr("text tower: {text}; image tower: {image}", text=text, image=image),
            expected=tr("a frozen tower (text.frozen_layers, image.frozen_layers) without dropout"),
            hint=f"--set {SETTING}=false",
        )
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():  # not inference_mode: the states enter a graph later
            titles, offsets = (None, None) if text else _titles(model, split, progress)
            images, mask = (None, None) if image else _images(model, split, progress)
    finally:
        model.train(was_training)
    return KeptOutputs(titles, offsets, images, mask)


def report_kept(
    model: RetrievalModel, config: RunConfig, kept: KeptOutputs, progress: Progress
) -> None:
    """Say which towers encode once, and why the other one does not."""
    text, image = why_not_kept(model, config)
    names = {tr("text tower"): text, tr("image tower"): image}
    once = [name for name, reason in names.items() if reason is None]
    progress.info(
        tr(
            "Encoded once, because nothing in it is trained: {names} ({mb} MB of memory).",
            names=" + ".join(once),
            mb=f"{kept.megabytes:,.0f}",
        )
    )
    for name, reason in names.items():
        if reason is not None:
            progress.info(tr("Encoded at every step: {name} ({reason}).", name=name, reason=reason))


def needs_pixels(config: RunConfig, kept: KeptOutputs | None) -> bool:
    """Tell whether anything reads the pixels of a batch besides a frozen image tower."""
    distill = config.distill is not None and config.distill.weight > 0
    return kept is None or kept.images is None or distill or bool(config.objectives.momentum)


class KeptModel(OwnModel):
    """A model that is evaluated on a split whose tower outputs were kept.

    Args:
        model: The model.
        kept: The outputs of its frozen towers for the split.
    """

    model: RetrievalModel

    def __init__(self, model: RetrievalModel, kept: KeptOutputs) -> None:
        super().__init__(model)
        self.kept = kept

    def encode(
        self, split: Split, batch_size: int, *, states: bool = False, progress: Progress = SILENT
    ) -> EncodedSplit:
        """Encode a split from the kept outputs on; see :class:`VectorSource`."""
        model = self.model
        pixels: Iterator[Tensor | States] = iter(input_batches(model, split, batch_size))
        if self.kept.images is not None:  # so quick that there is no progress to show
            pixels, progress = self._images(len(split.image_ids), batch_size), SILENT
        images = encode_images(
            model,
            pixels,
            states=states,
            total=len(split.image_ids),
            description=tr("Encoding images"),
            progress=progress,
        )
        texts = encode_texts(model, self._titles(split, batch_size), states=states)
        return EncodedSplit(images, texts)

    def _images(self, count: int, batch_size: int) -> Iterator[States]:
        for rows in _slices(count, batch_size):
            values, mask = self.kept.image_rows(rows)
            assert values is not None
            yield States(values, mask)

    def _titles(self, split: Split, batch_size: int) -> Iterator[TextBatch | TitleStates]:
        batches = text_batches(split.tokens, batch_size, self.model.titles.tokenizer.pad_id)
        for rows, batch in zip(_slices(len(split.query_ids), batch_size), batches, strict=True):
            values = self.kept.title_rows(rows)
            yield batch if values is None else TitleStates(batch, values)


def _slices(count: int, size: int) -> Iterator[NDArray[np.int64]]:
    for begin in range(0, count, size):
        yield np.arange(begin, min(begin + size, count))


def _titles(
    model: RetrievalModel, split: Split, progress: Progress
) -> tuple[Tensor, NDArray[np.int64]]:
    """Encode all titles: their packed states, and the offsets of the titles."""
    first = _reads_first_only(model)
    parts: list[Tensor] = []
    lengths: list[NDArray[np.int64]] = []
    pad, size = model.titles.tokenizer.pad_id, model.config.evaluation.batch_size
    with progress.task(
        tr("Encoding titles"), len(split.query_ids), tr("{n} titles", n="{n}")
    ) as task:
        for batch in text_batches(split.tokens, size, pad):
            here = batch.to(model.device)
            output = model.dual.text_encoder(here.input_ids, here.attention_mask).cpu()
            mask = torch.ones(len(batch), 1, dtype=torch.bool) if first else batch.attention_mask
            parts.append(output[:, : mask.shape[1]][mask].float())
            lengths.append(mask.sum(1).numpy())
            _require_memory(parts, sum(map(len, lengths)), len(split.query_ids))
            task.advance(len(batch))
    return torch.cat(parts), np.concatenate([[0], np.concatenate(lengths).cumsum()])


def _images(
    model: RetrievalModel, split: Split, progress: Progress
) -> tuple[Tensor, Tensor | None]:
    """Encode all images: their states and which positions count."""
    kept = 1 if _reads_first_only(model) else None
    parts: list[Tensor] = []
    masks: list[Tensor] = []
    count = len(split.image_ids)
    with progress.task(tr("Encoding images"), count, tr("{n} images", n="{n}")) as task:
        for given in input_batches(model, split, model.config.evaluation.batch_size):
            pixels = given.to(model.device)
            mask = model.dual.vision_encoder.mask(pixels)
            if mask is not None:
                masks.append(mask[:, :kept].cpu())
            # A copy: a view would keep all positions in memory.
            parts.append(model.dual.vision_encoder(pixels)[:, :kept].float().cpu().clone())
            _require_memory(parts, sum(map(len, parts)), count)
            task.advance(len(given))
    return torch.cat(parts), torch.cat(masks) if masks else None


def _reads_first_only(model: RetrievalModel) -> bool:
    """Tell whether position 0 of a tower's output is all that a model reads."""
    dual = model.dual
    whole = dual.config.late is not None or model.cross is not None
    return not (whole or dual.head is not None or dual.shared is not None)


def _require_memory(parts: list[Tensor], done: int, total: int) -> None:
    """Raise if the outputs of a whole split will not fit into half of the machine's memory."""
    available = memory()
    if len(parts) != 1 or available is None:
        return
    needed = parts[0].numel() * parts[0].element_size() * total / done
    if needed > available / 2:
        raise ConfigError(
            tr("The outputs of the frozen tower do not fit into memory."),
            where=SETTING,
            found=f"{needed / 1e9:,.0f} GB",
            expected=tr("at most {n}", n=f"{available / 2e9:,.0f} GB"),
            hint=f"--set {SETTING}=false",
        )
