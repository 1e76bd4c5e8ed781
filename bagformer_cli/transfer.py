"""Copy from the host to a GPU without waiting for the GPU.

A plain ``tensor.to("cuda")`` waits until everything that was queued on the GPU before is finished;
the GPU is then idle until the host has queued new work. A copy from page-locked ("pinned") memory
is queued like a kernel, and the host continues::

    host   │ queue step 1 │ copy batch 2 │ queue step 2 │ …          never waits
    GPU           │ step 1 ············· │ copy │ step 2 ········ │
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Copy a tensor to a device; from the host to a GPU without waiting.

    The tensor must not be changed afterwards: the GPU may read it later.
    """
    if tensor.device.type == "cpu" and str(device).startswith("cuda"):
        return tensor.pin_memory().to(device, non_blocking=True)  # pinned memory stays as it is
    return tensor.to(device)
