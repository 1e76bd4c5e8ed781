"""A fingerprint of the model that made a vector."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from bagformer_cli.models.build import RetrievalModel


def fingerprint(model: RetrievalModel) -> str:
    """Hash everything that a model's vectors depend on.

    Weights of both towers, tokenizer, dictionary and settings count. The cross-encoder does not: no
    stored vector depends on it.

    Returns:
        16 hex digits, equal for models that give equal vectors.
    """
    digest = hashlib.sha256(model.titles.fingerprint.encode())
    config = model.config
    # Settings at their default are left out, so that a setting added later changes no fingerprint.
    image = config.image.model_dump_json(exclude={"pretrained"}, exclude_defaults=True)
    head = config.model.model_dump_json(exclude={"cross"}, exclude_defaults=True)
    for part in (str(config.compat), image, head):
        digest.update(part.encode())
    for name, tensor in sorted(model.dual.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {list(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
