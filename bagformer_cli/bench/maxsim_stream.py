"""A whole catalogue scored both ways in one streaming pass from disk, in bounded memory.

Shapes: Q titles, N images × P patches, D dimensions.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from bagformer_cli.bench import plain_maxsim as plain
from bagformer_cli.bench.maxsim import Workload, matrix_peak, status_bytes
from bagformer_cli.files import atomic_file
from bagformer_cli.interaction.maxsim import BUDGET, maxsim_blocks
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.vectors.multi_vectors import MultiVectors

TOP = 10  # what is kept of every title's and every image's scores


@dataclass(frozen=True, slots=True)
class Streamed:
    """What one pass took.

    Attributes:
        titles: Q.
        images: N.
        dtype: What was multiplied.
        seconds: Wall time of the pass, reading included.
        cpu_seconds: Processor time of the pass, of all threads.
        gflops: Useful 10⁹ operations a second: 2·G·N·P·D by ``seconds``.
        peak_share: ``gflops`` / the type's matrix peak here, in [0, 1].
        extra_bytes: The most memory of its own it held (the mapped file apart), None if unknown.
        original_seconds: What the two original loops would take, from a small part of the work.
    """

    titles: int
    images: int
    dtype: str
    seconds: float
    cpu_seconds: float
    gflops: float
    peak_share: float
    extra_bytes: int | None
    original_seconds: float


def run(
    folder: Path,
    *,
    titles: int = 5008,
    images: int = 29806,
    patches: int = 257,
    dim: int = 256,
    dtype: torch.dtype = torch.bfloat16,
    budget: int = BUDGET,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Streamed:
    """Score every title against every image, both ways; keep each one's best ten.

    Args:
        folder: Where the images' vectors lie, or are written first (bfloat16, N·P·D·2 bytes).
        titles: Q; by default MUGE's validation split.
        images: N; likewise.
        patches: P.
        dim: D.
        dtype: What is multiplied.
        budget: Bytes for temporaries.
        seed: Of the random unit vectors.
        progress: Told of images written and scored.
    """
    path = folder / f"maxsim-{images}x{patches}x{dim}-{seed}.bf16"
    if not path.exists():
        _write(path, images, patches, dim, seed, progress)
    values = torch.from_file(
        str(path), shared=False, size=images * patches * dim, dtype=torch.bfloat16
    )
    catalogue = MultiVectors.from_dense(values.view(images, patches, dim))
    load = Workload.make(titles, min(images, 16), patches, dim, seed)
    texts = load.texts.to(dtype=dtype)
    with progress.task(tr("Scoring"), total=images) as task, _OwnMemory() as memory:
        start, spent = time.perf_counter(), time.process_time()
        title_best = torch.empty(titles, 0)
        image_best = torch.empty(images, min(TOP, titles))
        for first, end, t2i, i2t in maxsim_blocks(texts, catalogue, dtype=dtype, budget=budget):
            scores = torch.cat([title_best, t2i], 1)
            title_best = scores.topk(min(TOP, scores.shape[1]), dim=1).values
            image_best[first:end] = i2t.topk(min(TOP, titles), dim=1).values
            task.advance(end - first)
        seconds, spent = time.perf_counter() - start, time.process_time() - spent
    operations = 2.0 * len(texts.values) * images * patches * dim
    gflops = operations / seconds / 1e9
    return Streamed(
        titles=titles,
        images=images,
        dtype=str(dtype).removeprefix("torch."),
        seconds=seconds,
        cpu_seconds=spent,
        gflops=gflops,
        peak_share=gflops / matrix_peak(dtype),
        extra_bytes=memory.extra_bytes,
        original_seconds=_original_seconds(titles, images, patches, dim, seed),
    )


def _write(path: Path, images: int, patches: int, dim: int, seed: int, progress: Progress) -> None:
    """Random unit vectors, a block at a time."""
    generator = torch.Generator().manual_seed(seed)
    block = max(1, (64 << 20) // (patches * dim * 4))
    with (
        atomic_file(path) as temporary,
        temporary.open("wb") as stream,
        progress.task(tr("Writing"), total=images) as task,
    ):
        for first in range(0, images, block):
            n = min(block, images - first)
            vectors = torch.randn(n * patches, dim, generator=generator)
            rounded = F.normalize(vectors, dim=-1).bfloat16()
            stream.write(rounded.view(torch.uint8).numpy().data)
            task.advance(n)


def _original_seconds(titles: int, images: int, patches: int, dim: int, seed: int) -> float:
    """The original's two loops on 32 titles and 32 images, times how often that would fit."""
    part = Workload.make(min(titles, 32), min(images, 32), patches, dim, seed)
    padded = plain.pad(part.texts, 25)
    dense: Tensor = part.images.values.view(len(part.images), patches, dim)
    fastest = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        plain.original_t2i(padded, dense)
        plain.original_i2t(padded, dense)
        fastest = min(fastest, time.perf_counter() - start)
    return fastest * (titles / len(part.texts)) * (images / len(part.images))


class _OwnMemory:
    """The most anonymous memory the process holds while it is open, above what it began with."""

    def __init__(self) -> None:
        self.extra_bytes: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> _OwnMemory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        before = status_bytes("RssAnon")
        while before is not None and not self._stop.wait(0.01):
            now = status_bytes("RssAnon") or before
            self.extra_bytes = max(self.extra_bytes or 0, now - before)
