"""Training on several processes (``torchrun``) with the loss and the gradients of one process.

Every process loads its own part of each batch and encodes it. Vectors are then gathered, so that
every process computes the same loss of the whole batch. Example with two processes and a batch of
four pairs, ITC::

    process 0: titles 0 1, images 0 1 ──┐ all_gather of   ┌─ scores of titles 0 1 × images 0 1 2 3
    process 1: titles 2 3, images 2 3 ──┘ image vectors   └─ scores of titles 2 3 × images 0 1 2 3
                                                             all_gather of rows: the 4 × 4 matrix

Each process back-propagates ``loss / world_size``. The backward pass of ``all_gather`` sums, over
the processes, the gradients of a process's own rows; :meth:`Processes.all_reduce_gradients` then
sums the gradients of the parameters. Both sums together are the gradient of the whole batch,
whatever the loss is. ``DistributedDataParallel`` would average the gradients of separate losses,
which is wrong as soon as negatives come from other processes.

With GPUs, vectors and gradients travel by nccl. Numbers that the host decides with (row counts, a
signal to stop, which pairs match) travel by gloo from the host's memory: reading them from a GPU
would make the host wait for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bagformer_cli.errors import ConfigError
from bagformer_cli.messages import tr
from bagformer_cli.vectors.multi_vectors import MultiVectors, offsets_of

_TIMEOUT = timedelta(hours=6)  # the other processes wait while the main process evaluates
_OTHER_LAUNCHERS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")


@dataclass(frozen=True)
class Processes:
    """The processes that train one run together, seen from one of them.

    With a world size of 1 every method returns its input at once and needs no process group.

    Args:
        rank: Number of this process, from 0.
        world_size: Number of processes.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """True for rank 0, the process that writes files and reports."""
        return self.rank == 0

    def all_gather(self, rows: Tensor) -> Tensor:
        """Concatenate the rows of every process in rank order, with gradients.

        Args:
            rows: [n, ...]; n may differ between processes.
        """
        if self.world_size == 1:
            return rows
        if rows.dtype == torch.bool:  # gloo cannot send bool
            return self.all_gather(rows.to(torch.uint8)).bool()
        counts = self._row_counts(len(rows))
        gathered: Tensor = _AllGather.apply(rows, counts, self.rank)
        return gathered

    def all_gather_vectors(self, items: MultiVectors) -> MultiVectors:
        """Concatenate the multi-vector embeddings of every process, with gradients."""
        if self.world_size == 1:
            return items
        offsets = offsets_of(self.all_gather(items.lengths))
        return MultiVectors(self.all_gather(items.values), offsets)

    def all_reduce_gradients(self, model: nn.Module) -> None:
        """Sum every parameter's gradient over the processes, in place."""
        if self.world_size == 1:
            return
        trained = [p for p in model.parameters() if p.requires_grad]
        # A parameter that no loss reached on any process keeps ``grad=None``, as on one process:
        # a gradient of zeros would make AdamW apply weight decay to it.
        reached = torch.tensor([float(p.grad is not None) for p in trained])
        dist.all_reduce(reached)
        trained = [p for p, count in zip(trained, reached.tolist(), strict=True) if count]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        parts = torch.split(flat, [p.numel() for p in trained])
        for parameter, part in zip(trained, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def all_reduce_sum(self, number: float) -> float:
        """Sum a number over the processes."""
        if self.world_size == 1:
            return number
        value = torch.tensor(number, dtype=torch.float64)
        dist.all_reduce(value)
        return float(value)

    def all_reduce_mean(self, numbers: Sequence[float]) -> list[float]:
        """Average each number over the processes; all must pass as many in the same order."""
        if self.world_size == 1:
            return list(numbers)
        values = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(values)
        means: list[float] = (values / self.world_size).tolist()
        return means

    def broadcast_object(self, value: Any) -> Any:
        """Return the main process's value on every process."""
        if self.world_size == 1:
            return value
        box = [value if self.is_main else None]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def all_gather_object(self, value: Any) -> list[Any]:
        """Return the values of all processes in rank order, on every process."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait until every process has come here."""
        if self.world_size > 1:
            dist.barrier()

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Let the main process finish the block before the others enter it.

        For files that one process prepares and the others then find.
        """
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()

    def require_world_size(self, expected: int | None) -> None:
        """Raise unless ``expected`` processes train together; None: accept any number.

        Raises:
            ConfigError: The world size differs.
        """
        if expected is not None and expected != self.world_size:
            raise _wrong_world_size("training.processes", self.world_size, expected)

    def _row_counts(self, count: int) -> list[int]:
        own = torch.tensor([count])
        counts = [torch.empty_like(own) for _ in range(self.world_size)]
        dist.all_gather(counts, own)
        return [int(n) for n in counts]


SINGLE_PROCESS = Processes()


class _AllGather(torch.autograd.Function):
    """``all_gather`` of rows; backward sums the gradients that all processes have for them."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int], rank: int) -> Tensor:
        ctx.own = slice(sum(counts[:rank]), sum(counts[: rank + 1]))
        # all_gather needs equal shapes: pad to the longest, cut afterwards
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


def join_process_group() -> Processes:
    """Join the process group that ``torchrun`` announces; without torchrun, a single process.

    Raises:
        ConfigError: Another launcher (MPI, Slurm) started several processes without torchrun, so
            that each would train alone, or fewer processes joined than were started.
    """
    wanted = int(os.environ.get("WORLD_SIZE", "1"))
    if wanted == 1:
        for name in _OTHER_LAUNCHERS:
            count = os.environ.get(name, "1")
            if count.isdigit() and int(count) > 1:
                raise _wrong_world_size(name, 1, int(count))
        return SINGLE_PROCESS
    if not dist.is_initialized():
        backend = "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(_own_card())
            backend = "cpu:gloo,cuda:nccl"
        dist.init_process_group(backend, timeout=_TIMEOUT)
    if dist.get_world_size() != wanted:
        raise _wrong_world_size("WORLD_SIZE", dist.get_world_size(), wanted)
    return Processes(dist.get_rank(), wanted)


def leave_process_group(processes: Processes) -> None:
    """Leave the process group that :func:`join_process_group` joined."""
    if processes.world_size > 1 and dist.is_initialized():
        dist.destroy_process_group()


def _wrong_world_size(where: str, found: int, expected: int) -> ConfigError:
    return ConfigError(
        tr("The number of processes that train together is not the number asked for."),
        where=where,
        found=found,
        expected=expected,
        hint=tr("Start them with: torchrun --nproc-per-node N $(which xmr) train ..."),
    )


def _own_card() -> int:
    """Return the number of this process's GPU.

    Raises:
        ConfigError: This machine has fewer GPUs than processes: nccl refuses two on one card.
    """
    number, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= count:
        raise ConfigError(
            tr("There are more processes than GPUs on this machine."),
            where="--nproc-per-node",
            found=int(os.environ.get("LOCAL_WORLD_SIZE", str(number + 1))),
            expected=tr("at most {n}", n=count),
            hint=tr("To train on the CPU, hide the GPUs: CUDA_VISIBLE_DEVICES= torchrun ..."),
        )
    return number
