"""Measure full-size training steps on a GPU: compute alone, on one batch that is there already.

The model is that of ``muge_bagformer_80gb`` with random weights: ViT-B/16 at 256 pixels, BERT with
six text and six fusion layers, bag-wise late interaction, bfloat16. Pixels and titles are random,
so that neither weights nor data need be downloaded. A step is what ``xmr train`` does with a batch:
losses, gradients, their norm, AdamW.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bagformer_cli.assets import asset_folder
from bagformer_cli.bench.gpu_clock import Clock
from bagformer_cli.bench.gpu_peers import failure_of
from bagformer_cli.config import RunConfig, load_config
from bagformer_cli.data.batches import Batch, TextBatch
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.training.compilation import compile_layers
from bagformer_cli.training.gradient_cache import accumulate_gradients
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.optimizer import build_optimizer
from bagformer_cli.training.task import RetrievalTask

RANDOM_WEIGHTS = ["text.pretrained=null", "text.tokenizer=builtin", "image.pretrained=false"]
DICTIONARIES = [str(path) for path in sorted(asset_folder("entity_dicts").glob("*.tsv"))]
"""Those that come with xmr: the word list of jieba is a package that a lent machine may lack."""
TINY = [
    "text.layers=1", "text.width=32", "text.heads=2", "text.feed_forward=48", "image.size=16",
    "image.options={patch_size: 8, embed_dim: 32, depth: 1, num_heads: 2}",
    "model.embed_dim=16", "model.cross.layers=1",
]  # fmt: skip
TITLE = "红色碎花连衣裙女夏季新款 中长款雪纺裙"
LARGE = 12_800
"""Pairs of a step of the published results on MUGE, in parts of 256 images."""


WITH_ITM, WITHOUT_ITM, SECONDS = 0.40, 0.48, 25.0
"""Shares of the bfloat16 peak of steps of 256 pairs, and seconds of the step of 12,800 pairs, that
issue 16 asks for on an H100 or H200."""


@dataclass(frozen=True, slots=True)
class Step:
    """The time of one kind of training step.

    Attributes:
        name: Losses, and how the batch is encoded.
        pairs: Titles, each with its image.
        seconds: Median time of a step; None: it failed.
        flops: Floating-point operations of the towers and the cross-encoder, forward and backward,
            without what is computed twice; None: not counted.
        extra_bytes: Memory on the device besides weights and moments; None on a CPU.
        target: Share of the peak, or for the step in chunks seconds, that issue 16 asks for.
        failure: Why it could not be measured.
    """

    name: str
    pairs: int
    seconds: float | None
    flops: float | None = None
    extra_bytes: int | None = None
    target: float | None = None
    failure: str = ""

    @property
    def pairs_per_second(self) -> float | None:
        """Pairs trained on in a second."""
        return self.pairs / self.seconds if self.seconds else None


class _Kind(NamedTuple):
    """A kind of step: its name, pairs, settings and target, and whether layers are compiled."""

    name: str
    pairs: int
    settings: tuple[str, ...]
    target: float | None = None
    compiled: bool = False


def measure_steps(clock: Clock, *, tiny: bool = False) -> Iterator[Step]:
    """Measure steps of 256 pairs with and without ITM, compiled or not, and one of 12,800.

    Args:
        clock: The clock and its device. The step of 12,800 pairs is run once, after a small one.
        tiny: Train a very small model on a few pairs, to find errors without a card.
    """
    small, large, part = (4, 6, 2) if tiny else (256, LARGE, 256)
    no_itm = "objectives.itm=0"
    chunks = (no_itm, f"training.micro_batch_size={part}")
    for kind in (
        _Kind("ITC + MaxSim + ITM", small, (), WITH_ITM),
        _Kind("ITC + MaxSim", small, (no_itm,), WITHOUT_ITM),
        _Kind("ITC + MaxSim + ITM, compiled", small, (), WITH_ITM, compiled=True),
        _Kind("ITC + MaxSim, compiled", small, (no_itm,), WITHOUT_ITM, compiled=True),
    ):
        yield _measured(clock, kind, tiny)
    once = Clock(clock.device, rounds=1, warm=0)
    name = tr("ITC + MaxSim, {part} images at a time", part=part)
    # Compiles what the large step compiles.
    _measured(once, _Kind(name, 2 * part, chunks), tiny)
    yield _measured(once, _Kind(name, large, chunks, SECONDS), tiny)


def _measured(clock: Clock, kind: _Kind, tiny: bool) -> Step:
    items = [*RANDOM_WEIGHTS, *(TINY if tiny else ()), f"training.batch_size={kind.pairs}"]
    items.append(f"text.lexicons={DICTIONARIES}")
    config = load_config("muge_bagformer_80gb", [*items, *kind.settings])
    torch.manual_seed(0)
    try:
        model = new_model(config).to(clock.device)
        step = _Step(model, config)
        flops = None
        if config.training.micro_batch_size is None:
            with FlopCounterMode(display=False) as counted:
                step()
            flops = float(counted.get_total_flops())
        if kind.compiled:
            compile_layers(model)
        seconds = clock.seconds(step)
        extra = clock.memory(step) if clock.rounds > 1 else None
        return Step(kind.name, kind.pairs, seconds, flops, extra, kind.target)
    except Exception as raised:  # no memory, or a compiler that fails: other steps continue
        failure = failure_of(raised)
        return Step(kind.name, kind.pairs, None, target=kind.target, failure=failure)
    finally:
        if clock.device.type == "cuda":
            torch.cuda.empty_cache()


class _Step:
    """One optimizer step on one batch, again and again."""

    def __init__(self, model: RetrievalModel, config: RunConfig) -> None:
        self.task = RetrievalTask(model, config).train()
        optimizer = build_optimizer(model, config.training)
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.optimizer, self.config = optimizer, config
        batch = random_batch(model, config.training.batch_size)
        self.gradients = partial(
            accumulate_gradients,
            self.task,
            batch.to(model.device),
            chunk=config.training.micro_batch_size,
            bf16=config.training.precision == "bf16",
        )

    def __call__(self) -> None:
        self.gradients()
        nn.utils.clip_grad_norm_(self.parameters, self.config.training.clip or 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def random_batch(model: RetrievalModel, pairs: int) -> Batch:
    """Make a batch of random pixels and of titles of different lengths, on the CPU.

    Images repeat after 256: drawing 12,800 takes 18 s, in which a lent card would wait.
    """
    titles = model.titles([TITLE[: 4 + n % (len(TITLE) - 4)] for n in range(pairs)])
    size = model.config.image.size
    drawn = torch.randint(0, 256, (min(pairs, 256), size, size, 3), dtype=torch.uint8)
    own = torch.arange(pairs)
    return Batch(
        TextBatch.from_tokens(titles, model.titles.tokenizer.pad_id),
        drawn[own % len(drawn)],
        own,
        torch.eye(pairs, dtype=torch.bool),
        own,
        own,
        own,
        own,
    )
