"""Run the code of a GPU without one, and find what would be wrong or slow there.

Torch's device ``meta`` has shapes and types but no values, and no memory that it shares with the
host. :class:`SecondDevice` lets it stand in for a GPU: MaxSim takes the CUDA path there, whose
kernels are recorded instead of started. What a test of the same code on the CPU cannot see:

- an operator that mixes tensors of both devices, which CUDA refuses;
- a copy to the device that waits for everything queued there (all but those of ``to_device``);
- a number that is read from the device (torch refuses it on ``meta``).
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

COPIES = ("copy_", "_to_copy")
INDEXED = ("index", "index_put", "index_put_", "_index_put_impl_")
"""Operators that take an index on the host, and copy it."""


class SecondDevice(TorchDispatchMode):
    """Record what a GPU would refuse or wait for.

    Attributes:
        places: ``file:line operator`` of each finding.
        kernels: Names of the kernels that were started.
    """

    device = torch.device("meta")

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []
        self.kernels: list[str] = []

    def kernel(self, name: str) -> Any:
        """Return what ``kernel[grid](...)`` starts."""
        started = self.kernels

        class Recorded:
            def __getitem__(self, grid: object) -> Callable[..., None]:
                return lambda *arguments, **constants: started.append(name)

        return Recorded()

    def record(self, what: str) -> None:
        own = [one for one in traceback.extract_stack() if "bagformer_cli/" in one.filename]
        if not own or any(one.name == "to_device" for one in own):
            return
        place = own[-1].filename.rpartition("bagformer_cli/")[2]
        self.places.append(f"{place}:{own[-1].lineno} {what}")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        there = any(x.device == self.device for x in tensors)
        on_host = any(x.device != self.device and x.dim() for x in tensors)
        target = kwargs.get("device")
        to_there = target is not None and torch.device(target) == self.device
        if (there and on_host) or (name in COPIES and on_host and to_there):
            self.record(f"{name} from the host" if name in COPIES + INDEXED else f"{name} of both")
        return func(*args, **kwargs)


@contextmanager
def second_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[SecondDevice]:
    """Let ``meta`` stand in for a GPU of the newest generation inside the block."""
    from bagformer_cli.interaction.kernels import cuda
    from bagformer_cli.interaction.kernels.cuda import launch, scan, settings

    maxsim = importlib.import_module("bagformer_cli.interaction.maxsim")
    found, path, autocast = SecondDevice(), maxsim._path, torch.autocast

    def choose(bags: Tensor, *others: Any) -> Any:
        return cuda if bags.device == found.device else path(bags, *others)

    def no_autocast(kind: str, *arguments: Any, **options: Any) -> Any:
        return nullcontext() if kind == "meta" else autocast(kind, *arguments, **options)

    for module, names in (
        (launch, ("score_tiles", "patch_gradients", "bag_gradients")),
        (scan, ("scan_tiles", "scan_codes")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, found.kernel(name))
    monkeypatch.setattr(settings, "_generation", lambda device: 9)
    monkeypatch.setattr(maxsim, "_path", choose)
    monkeypatch.setattr(torch, "autocast", no_autocast)
    with found:
        yield found
