"""Which model made a vector: a fingerprint of everything that vectors depend on."""

from __future__ import annotations

import hashlib

import torch

from bagformer_cli.models.build import RetrievalModel


def fingerprint(model: RetrievalModel) -> str:
    """16 hex digits: equal for models that give equal vectors.

    Weights of the two towers, tokenizer, dictionary and the settings of both sides count; the slow
    scorer, which no stored vector has seen, does not.
    """
    digest = hashlib.sha256(model.titles.fingerprint.encode())
    config = model.config
    # What stands at its default is left out: a setting that comes later changes no fingerprint.
    image = config.image.model_dump_json(exclude={"pretrained"}, exclude_defaults=True)
    head = config.model.model_dump_json(exclude={"cross"}, exclude_defaults=True)
    for part in (str(config.compat), image, head):
        digest.update(part.encode())
    for name, tensor in sorted(model.dual.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {list(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
