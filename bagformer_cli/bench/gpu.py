"""Measure MaxSim, the loss, search and training on a GPU, against the peaks of the same process.

Correctness comes first: every kernel is compared with float64 on ragged shapes. A card may be there
for minutes only: every result is reported at once, a part that fails leaves the others, and nothing
is begun after a limit of time. With :data:`TINY` everything runs in Triton's interpreter on a CPU,
so that an error is found before a card is used.

Shapes: Q titles of G bags in total, N images × P patches, D dimensions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bagformer_cli.bench.gpu_checks import Check, all_checks, relative_error
from bagformer_cli.bench.gpu_clock import COPIED, SQUARE, Clock, peaks
from bagformer_cli.bench.gpu_peers import failure_of, loss_peers, peers
from bagformer_cli.bench.gpu_report import TARGETS, Report, Row
from bagformer_cli.bench.gpu_training import Step, measure_steps
from bagformer_cli.bench.maxsim import Workload
from bagformer_cli.interaction.device_images import DeviceImages
from bagformer_cli.interaction.kernels import reference
from bagformer_cli.interaction.kernels.cuda import settings
from bagformer_cli.interaction.kernels.cuda.scan import DeviceBlock, scan
from bagformer_cli.interaction.kernels.reference import Packed
from bagformer_cli.interaction.maxsim import maxsim
from bagformer_cli.losses.contrastive import contrastive_loss
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.training.arithmetic import training_arithmetic
from bagformer_cli.vectors.multi_vectors import MultiVectors, offsets_of
from bagformer_cli.vectors.residual_codes import Codebook

SECONDS = 480.0
"""Time of a run, after which no further measurement is begun."""

TIMED_FROM = 5e10
"""Operations of a call from which all tiles are timed: every row of the table at full size."""

SAMPLE = 16
"""Titles and images whose scores are compared with float64."""


class Sizes(NamedTuple):
    """Sizes of the benchmark.

    Attributes:
        scores: (titles, images) of each measurement of scores.
        patches: Patches of an image.
        dim: D.
        batches: Pairs of each measurement of the loss.
        products: Products of the search; ``length`` vectors each.
        length: Vectors of a product.
        query: Bags of a query.
        queries: Queries searched together.
        square: Side of the matrices of the peaks.
        copied: Bytes of the copy.
    """

    scores: tuple[tuple[int, int], ...] = ((1024, 2048), (64, 4096))
    patches: int = 257
    dim: int = 256
    batches: tuple[int, ...] = (256, 1024)
    products: int = 200_000
    length: int = 32
    query: int = 5
    queries: int = 16
    square: int = SQUARE
    copied: int = COPIED


TINY = Sizes(
    scores=((3, 2),), patches=17, dim=16, batches=(2,), products=9, length=2, query=2, queries=2,
    square=32, copied=1 << 10,
)  # fmt: skip


def run(
    device: torch.device,
    sizes: Sizes | None = None,
    *,
    rounds: int = 5,
    seconds: float = SECONDS,
    progress: Progress = SILENT,
) -> Report:
    """Check all kernels, then measure them.

    Args:
        device: The GPU; a CPU only with Triton's interpreter.
        sizes: Sizes; None: those of issue 16.
        rounds: Measured runs; the median counts.
        seconds: Time after which no further measurement is begun.
        progress: Receives the progress, and every result in one line.
    """
    sizes = sizes or Sizes()
    bench = _Bench(device, sizes, Clock(device, rounds, 2 if device.type == "cuda" else 0))
    limit = _Limit(seconds)
    # The peaks first: after a kernel that reads beyond its input, CUDA refuses all further work.
    bench.peaks = peaks(bench.clock, square=sizes.square, copied=sizes.copied)
    report = Report(_machine(device), {k: value / 1e12 for k, value in bench.peaks.items()}, [])
    progress.info(_line(*(f"{name} {value:.3g}" for name, value in report.peaks.items())))
    with progress.task(tr("Comparing with float64"), total=None):
        checks = all_checks(device, small=sizes is TINY)
        for check in limit.until(checks, lambda failure: Check("", "", torch.inf, False, failure)):
            report.checks.append(check)
            progress.info(_line(check.name, check.dtype, f"{check.error:.1e}", check.failure))
    with progress.task(tr("Timing"), total=None) as task:
        with settings.all_timed(TIMED_FROM):
            for part in (bench.scores, bench.losses, bench.search):
                for row in limit.until(part(), _failed_row):
                    report.rows.append(row)
                    task.advance()
                    progress.info(_line(row.work, row.name, row.dtype, row.shown_time))
        report.tiles = _tile_times()
        for name, times in report.tiles.items():
            progress.info(_line(name, *(f"{tile} {ms:.3g} ms" for tile, ms in times.items())))
        for step in limit.until(measure_steps(bench.clock, tiny=sizes is TINY), _failed_step):
            report.steps.append(step)
            task.advance()
            shown = step.failure or f"{step.seconds:.3g} s"
            progress.info(_line(step.name, str(step.pairs), shown))
    return report


Result = TypeVar("Result")


class _Limit:
    """A limit of time for all measurements together."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._end = seconds, time.monotonic() + seconds

    def until(self, results: Iterator[Result], failed: Callable[[str], Result]) -> Iterator[Result]:
        """Yield results until the time is over or one fails; then ``failed`` with the reason."""
        while True:
            if time.monotonic() > self._end:
                reason = tr("not measured: {n} s are over", n=f"{self.seconds:g}")
                yield failed(reason)
                return
            try:
                yield next(results)
            except StopIteration:
                return
            except Exception as raised:  # an error of one part must not lose the others
                yield failed(failure_of(raised))
                return


def _tile_times() -> dict[str, dict[str, float]]:
    """Return the times of the tables of tiles by readable names, in milliseconds."""
    return {
        " ".join(str(part).removeprefix("torch.") for part in key): {
            type(tile).__name__ + str(astuple(tile)): 1e3 * seconds  # type: ignore[call-overload]
            for tile, seconds in times.items()
        }
        for key, times in settings.TIMES.items()
        if isinstance(key, tuple)
    }


def _failed_row(failure: str) -> Row:
    return Row("", "xmr", "", None, None, None, failure=failure)


def _failed_step(failure: str) -> Step:
    return Step("", 0, None, failure=failure)


def _line(*cells: str) -> str:
    return "  ".join(cell for cell in cells if cell)


@dataclass
class _Bench:
    device: torch.device
    sizes: Sizes
    clock: Clock
    peaks: dict[str, float] = field(default_factory=dict)

    def scores(self) -> Iterator[Row]:
        """Measure scores in both directions, and peers."""
        for titles, count in self.sizes.scores:
            texts, images = self._titles(titles), self._images(count, self.sizes.patches)
            work = f"{titles:,} titles × {count:,} images × {self.sizes.patches} × {texts.dim}"
            operations = 2.0 * len(texts.values) * len(images.values) * texts.dim
            exact = _exact_scores(texts[:SAMPLE], images[:SAMPLE])
            for dtype in (torch.bfloat16, torch.int8):
                a, b = texts.to(dtype=dtype), images.to(dtype=dtype)
                name = _name(dtype)
                yield self._row(
                    work, "xmr, both directions", name, partial(maxsim, a, b), operations,
                    target=self._target("scores", titles, count, name),
                    error=partial(_sample_error, a, b, exact),
                )  # fmt: skip
                del a, b
            for peer in peers(texts, images):
                yield self._row(work, peer.name, "bfloat16", peer.run, operations)

    def losses(self) -> Iterator[Row]:
        """Measure the contrastive loss, forward and backward."""
        for batch in self.sizes.batches:
            texts, images = self._titles(batch), self._images(batch, self.sizes.patches)
            operations = 6.0 * len(texts.values) * len(images.values) * texts.dim
            for dtype in (torch.bfloat16, torch.float32):
                name = _name(dtype)
                work = f"contrastive loss of {batch:,} pairs, forward and backward"
                step, target = _loss_step(texts, images, dtype), self._target("loss", batch, name)
                yield self._row(work, "xmr", name, step, operations, target=target, memory=True)
                if dtype == torch.float32:
                    with training_arithmetic(deterministic=False):
                        row = self._row(
                            work, "xmr, as in training", name, step, operations, target=target
                        )
                    yield row
                vectors = texts.to(dtype=dtype), images.to(dtype=dtype)
                for peer in loss_peers(*vectors, _contrastive):
                    yield self._row(work, peer.name, name, peer.run, operations, memory=True)

    def search(self) -> Iterator[Row]:
        """Measure the ten best of all products for one query and for several."""
        sizes = self.sizes
        products = self._images(sizes.products, sizes.length)
        codebook = Codebook.train(products.values[: 1 << 16].float().cpu())
        for stored in ("bfloat16", "int8", "residual codes"):
            if stored == "residual codes":
                some = products[: max(1, len(products) // 20)].code(codebook)  # the CPU encodes
                kept = MultiVectors(some.values.to(self.device), some.offsets, None, some.codebook)
            else:
                kept = products.to(dtype=getattr(torch, stored))
            catalogue, block = DeviceImages(kept, self.device), DeviceBlock.of(kept)
            for count in (1, sizes.queries):
                lengths = torch.full((count,), sizes.query)
                queries = self._texts(offsets_of(lengths), seed=3).to("cpu", torch.float32)
                work = f"{count} × {sizes.query} bags, {len(kept):,} × {sizes.length} × {sizes.dim}"
                yield self._row(
                    work, "xmr, all scores", stored, partial(scan, queries, block),
                    float(kept.nbytes), target=self._target("search", count, stored), peak="copy",
                )  # fmt: skip
                yield self._row(
                    work, "xmr, ten best", stored, partial(catalogue.topk, queries, 10),
                    float(kept.nbytes), error=partial(_best_error, catalogue, queries), peak="copy",
                )  # fmt: skip
            if stored == "bfloat16":
                query = self._texts(torch.tensor([0, sizes.query]), seed=3)
                for peer in peers(query, kept):
                    if not peer.both:
                        yield self._row(
                            f"1 × {sizes.query} bags, {len(kept):,} × {sizes.length} × {sizes.dim}",
                            peer.name, stored, peer.run, float(kept.nbytes), peak="copy",
                        )  # fmt: skip

    def _row(
        self,
        work: str,
        name: str,
        dtype: str,
        run: Callable[[], Any],
        amount: float,
        *,
        peak: str | None = None,
        memory: bool = False,
        target: float | None = None,
        error: Callable[[], float] | None = None,
    ) -> Row:
        """Measure ``run``, which takes ``amount`` operations or bytes, after its ``error``."""
        found = None
        try:
            found = error() if error else None
            seconds = self.clock.seconds(run)
            extra = self.clock.memory(run) if memory else None
        except Exception as raised:  # peers and compilers raise many types
            failure = failure_of(raised)
            return Row(work, name, dtype, None, None, None, target, found, failure=failure)
        rate = amount / seconds
        share = rate / self.peaks[peak or dtype]
        return Row(work, name, dtype, 1e3 * seconds, rate / 1e12, share, target, found, extra)

    def _target(self, *key: object) -> float | None:
        return None if self.sizes is TINY else TARGETS.get(key)

    def _titles(self, count: int) -> MultiVectors:
        """Return titles of 2–25 bags, 10 on average."""
        offsets = Workload.make(count, 1, 1, 1).texts.offsets
        return self._texts(offsets, seed=1)

    def _texts(self, offsets: Tensor, seed: int) -> MultiVectors:
        return MultiVectors(self._unit(int(offsets[-1]), seed), offsets)

    def _images(self, count: int, patches: int) -> MultiVectors:
        values = self._unit(count * patches, seed=2)
        return MultiVectors(values, torch.arange(count + 1) * patches)

    def _unit(self, count: int, seed: int) -> Tensor:
        """Return random unit vectors [count, D] in bfloat16."""
        generator = torch.Generator(self.device).manual_seed(seed)
        out = torch.empty(count, self.sizes.dim, dtype=torch.bfloat16, device=self.device)
        for part in torch.split(out, 1 << 20):
            drawn = torch.randn(part.shape, generator=generator, device=self.device)
            part.copy_(F.normalize(drawn, dim=1))
        return out


def _loss_step(texts: MultiVectors, images: MultiVectors, dtype: torch.dtype) -> Callable[[], None]:
    """Return a function that computes the contrastive loss and its gradients."""
    bags = texts.values.to(dtype).requires_grad_()
    patches = images.values.to(dtype).requires_grad_()

    def step() -> None:
        bags.grad = patches.grad = None
        titles = MultiVectors(bags, texts.offsets)
        t2i, i2t = maxsim(titles, MultiVectors(patches, images.offsets), dtype=dtype)
        _contrastive(t2i, i2t).backward()  # type: ignore[no-untyped-call]

    return step


def _contrastive(t2i: Tensor, i2t: Tensor) -> Tensor:
    """Return the loss of pairs: title n belongs to image n."""
    positives = torch.eye(len(t2i), dtype=torch.bool, device=t2i.device)
    return contrastive_loss(t2i, i2t, positives, 0.07)


def _sample_error(texts: MultiVectors, images: MultiVectors, exact: tuple[Tensor, Tensor]) -> float:
    """Return the error of the scores of the first titles and images, of all that are scored."""
    found = maxsim(texts, images)
    return max(
        relative_error(ours[:SAMPLE, :SAMPLE], true)
        for ours, true in zip(found, exact, strict=True)
    )


def _best_error(catalogue: DeviceImages, queries: MultiVectors) -> float:
    """Return the error of the scores of the ten best products."""
    scores, positions = catalogue.topk(queries, 10)
    return relative_error(scores, _exact_pairs(queries, catalogue.images, positions))


def _exact_scores(texts: MultiVectors, images: MultiVectors) -> tuple[Tensor, Tensor]:
    """Score all pairs in float64: t2i [Q, N] and i2t [N, Q]."""
    bags, patches = texts.values.double(), images.values.double()
    vectors = Packed(bags, patches, texts.offsets, images.offsets)
    t2i, i2t, _ = reference.forward(vectors, budget=1 << 28, keep_argmax=False)
    return t2i, i2t


def _exact_pairs(texts: MultiVectors, images: MultiVectors, positions: Tensor) -> Tensor:
    """Score found products in float64: [Q, k]."""
    rows = []
    for query, own in zip(texts.to_list(), positions.tolist(), strict=True):
        found = images.select(own).to("cpu", torch.float32)
        rows.append(
            torch.stack([(query.double() @ v.double().T).amax(1).sum() for v in found.to_list()])
        )
    return torch.stack(rows)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _machine(device: torch.device) -> dict[str, str]:
    import triton  # type: ignore[import-untyped,unused-ignore]

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "interpreter on a CPU"
    return {"card": name, "torch": torch.__version__, "triton": triton.__version__}
