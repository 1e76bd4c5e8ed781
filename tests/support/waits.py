"""Find out, on a CPU, where a training step would make the host wait for a GPU.

Reading a number of a GPU tensor (``float(loss)``, a mask as an index, ``nonzero``) makes the host
wait until the GPU has finished all that was queued. Without a GPU nothing waits, but the same calls
are made. :class:`Waits` records those that read a tensor which would be on the GPU: every floating
tensor, the tensors of a batch that ``Batch.to`` moves, and everything computed from these.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import ExitStack
from types import FrameType
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

READS = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "unique")
"""Operators that read their input, or whose result has a size that only the GPU knows."""
INDEXED = ("index", "index_put", "index_put_", "_index_put_impl_")
"""Operators that first find the True positions of a mask."""
METHODS = (Tensor.cpu, Tensor.tolist, Tensor.numpy, Tensor.__array__)
STAND_INS = ("interaction/kernels", "interaction/maxsim.py")
"""Code that is another one on a GPU, with its own tests."""


class Waits:
    """Record the places that wait inside calls of one function.

    Args:
        function: Only what happens inside a function of this name counts.
        but: Names of functions that may wait.
    """

    def __init__(self, function: str, but: Iterable[str] = ()) -> None:
        self.function, self.but = function, tuple(but)
        self.places: list[str] = []
        self._on_gpu = WeakTensorKeyDictionary()

    def mark(self, *tensors: Tensor) -> None:
        """Treat tensors as if they were on the GPU."""
        for tensor in tensors:
            self._on_gpu[tensor] = True

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self._stack.enter_context(_Methods(self))
        self._stack.enter_context(_Operators(self))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def on_gpu(self, value: Any) -> bool:
        return isinstance(value, Tensor) and (value.is_floating_point() or value in self._on_gpu)

    def record(self, what: str) -> None:
        """Note the innermost place in the package, if it counts."""
        frames: list[FrameType] = []
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            frames.append(frame)
            frame = frame.f_back
        names = {one.f_code.co_name for one in frames}
        own = [one for one in frames if "bagformer_cli/" in one.f_code.co_filename]
        files = [one.f_code.co_filename for one in own]
        if self.function not in names or names & set(self.but):
            return
        if any(part in file for file in files for part in STAND_INS):
            return
        place = own[0]
        name = place.f_code.co_filename.rpartition("bagformer_cli/")[2]
        self.places.append(f"{name}:{place.f_lineno} {what}")


class _Operators(TorchDispatchMode):
    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs, waits = kwargs or {}, self.waits
        leaves = tree_leaves((args, kwargs))
        touched = any(waits.on_gpu(leaf) for leaf in leaves)
        name = func._schema.name.removeprefix("aten::")
        if touched and name.rstrip("_0123456789").startswith(READS):
            waits.record(name)
        masks = [x for x in tree_leaves(args[1:2]) if isinstance(x, Tensor)]
        if name in INDEXED and any(x.dtype == torch.bool and waits.on_gpu(x) for x in masks):
            waits.record(f"{name} by a mask")
        if name == "repeat_interleave" and touched and kwargs.get("output_size") is None:
            waits.record(name)
        found = func(*args, **kwargs)
        if touched:
            waits.mark(*(leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)))
        return found


class _Methods(TorchFunctionMode):
    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in METHODS and self.waits.on_gpu(args[0]):
            self.waits.record(func.__name__)
        return func(*args, **(kwargs or {}))
