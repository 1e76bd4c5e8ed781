"""Several processes as one: what each must hear from the others.

Every process computes the same loss of the whole batch and back-propagates its share, loss over
world size; gradients of gathered tensors and of parameters are then summed over processes. So
loss and gradients are those of one process with the whole batch, whatever the loss is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bagformer_cli.errors import ConfigError
from bagformer_cli.messages import tr
from bagformer_cli.vectors.multi_vectors import MultiVectors

_PATIENCE = timedelta(hours=6)  # the others wait while the first evaluates
_OTHER_LAUNCHERS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")


@dataclass(frozen=True)
class World:
    """The processes of a run; one alone needs no other and does nothing here.

    Args:
        rank: Which this is.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def gather(self, rows: Tensor) -> Tensor:
        """[n, ...] rows of every process, one after another, with gradients; n may differ."""
        if self.size == 1:
            return rows
        if rows.dtype == torch.bool:  # gloo has none
            return self.gather(rows.to(torch.uint8)).bool()
        counts = self._counts(len(rows))
        gathered: Tensor = _Gather.apply(rows, counts, self.rank)
        return gathered

    def gather_vectors(self, items: MultiVectors) -> MultiVectors:
        """The items of every process, with gradients."""
        if self.size == 1:
            return items
        lengths = self.gather(items.lengths.to(items.device)).cpu()
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        return MultiVectors(self.gather(items.values), offsets)

    def sum_gradients(self, model: nn.Module) -> None:
        """Add up every parameter's gradient over the processes."""
        if self.size == 1:
            return
        trained = [p for p in model.parameters() if p.requires_grad]
        reached = torch.tensor([float(p.grad is not None) for p in trained], device=_device())
        dist.all_reduce(reached)  # what no loss reached stays without a gradient, as on one
        trained = [p for p, count in zip(trained, reached.tolist(), strict=True) if count]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        parts = torch.split(flat, [p.numel() for p in trained])
        for parameter, part in zip(trained, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def total(self, number: float) -> float:
        """A number added up over the processes."""
        if self.size == 1:
            return number
        value = torch.tensor(number, dtype=torch.float64, device=_device())
        dist.all_reduce(value)
        return float(value)

    def mean(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Each figure's mean over the processes, which all have the same ones."""
        if self.size == 1:
            return dict(figures)
        values = torch.tensor(list(figures.values()), dtype=torch.float64, device=_device())
        dist.all_reduce(values)
        return dict(zip(figures, (values / self.size).tolist(), strict=True))

    def tell(self, value: Any) -> Any:
        """What the first process has, to all."""
        if self.size == 1:
            return value
        box = [value if self.first else None]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def collect(self, value: Any) -> list[Any]:
        """Each process's value, in order, to all."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process goes through the block before the others do."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def require(self, processes: int | None) -> None:
        """Refuse to go on with other than so many processes; None: as many as there are.

        Raises:
            ConfigError: There are others.
        """
        if processes is not None and processes != self.size:
            raise _alone("training.processes", self.size, processes)

    def _counts(self, count: int) -> list[int]:
        own = torch.tensor([count], device=_device())
        counts = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(counts, own)
        return [int(n) for n in counts]


ALONE = World()


class _Gather(torch.autograd.Function):
    """Rows of all processes; backwards, the sum of what all of them say of one's own rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int], rank: int) -> Tensor:
        ctx.own = slice(sum(counts[:rank]), sum(counts[: rank + 1]))
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient[ctx.own], None, None


def join_world() -> World:
    """The world that ``torchrun`` made this process a part of; else this process alone.

    Raises:
        ConfigError: More processes were asked for than found each other.
    """
    wanted = int(os.environ.get("WORLD_SIZE", "1"))
    if wanted == 1:
        for name in _OTHER_LAUNCHERS:
            count = os.environ.get(name, "1")
            if count.isdigit() and int(count) > 1:
                raise _alone(name, 1, int(count))
        return ALONE
    if not dist.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        if backend == "nccl":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group(backend, timeout=_PATIENCE)
    if dist.get_world_size() != wanted:
        raise _alone("WORLD_SIZE", dist.get_world_size(), wanted)
    return World(dist.get_rank(), wanted)


def leave_world(world: World) -> None:
    """The end of :func:`join_world`."""
    if world.size > 1 and dist.is_initialized():
        dist.destroy_process_group()


def _alone(where: str, found: int, expected: int) -> ConfigError:
    """A launcher that starts processes without telling torch would train each of them alone."""
    return ConfigError(
        tr("Not as many processes train together as were asked for."),
        where=where,
        found=found,
        expected=expected,
        hint=tr("Start them with: torchrun --nproc-per-node N $(which xmr) train ..."),
    )


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
