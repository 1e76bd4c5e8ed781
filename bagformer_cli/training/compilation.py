"""Compile the layers of a model for training (``training.compile``).

Each transformer layer of the towers and of the cross-encoder is compiled by ``torch.compile``:
normalisation, casts to bfloat16, GELU, dropout and residuals become few kernels instead of many
that each read and write the whole state. All layers of a kind share one compilation, which takes
seconds instead of the minutes that a whole tower takes.

Nothing else changes: parameters keep their names, a model folder is the same, and evaluation runs
the layers uncompiled. Lengths of titles vary from batch to batch: layers that read titles are
compiled once for all of them (``dynamic``). Dropout draws from torch's own generator, so that
gradient caching can repeat its masks and a resumed run draws those of the unbroken one.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import nn
from transformers.models.bert.modeling_bert import BertLayer

BACKEND = "inductor"
"""torch.compile's backend."""
_READ_TITLES = (BertLayer, nn.TransformerDecoderLayer, nn.TransformerEncoderLayer)
_READ_IMAGES = (Block,)


def compile_layers(model: nn.Module) -> int:
    """Compile the transformer layers of a model in place.

    Convolutions are left as they are: they are the library's own kernels, and hardly two stages of
    a network have one shape.

    Args:
        model: The model. A copy made later (a momentum encoder) has to be compiled itself.

    Returns:
        The number of compiled layers.
    """
    # Inductor would number its random numbers for each graph, with and without gradients.
    options: dict[str, Any] = {"fallback_random": True} if BACKEND == "inductor" else {}
    # torch's own code looks at the gradient of every input of a layer, and warns itself of it.
    warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
    layers = list(_layers(model))
    for layer in layers:
        layer.compile(
            backend=BACKEND, dynamic=isinstance(layer, _READ_TITLES), options=options or None
        )
    return len(layers)


def uncompiled() -> AbstractContextManager[None]:
    """Run compiled layers as they were written inside the block, as evaluation does."""
    stance: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return stance


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the outermost layers to compile."""
    if isinstance(module, _READ_TITLES + _READ_IMAGES):
        yield module
        return
    for child in module.children():
        yield from _layers(child)
