"""Weights of the original's full size, made by the reference's own generator."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"连衣裙女电动车头盔红色"]
"""A vocabulary for small models of the original's kind."""


def generator(shared: Path) -> Any:
    """The reference's generator of deterministic weights."""
    path = shared / "reference/make_weights.py"
    spec = importlib.util.spec_from_file_location("make_weights", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def weights_of(shared: Path) -> dict[str, Tensor]:
    module = generator(shared)
    keys = json.loads((shared / "reference/state_dict_keys.json").read_text(encoding="utf-8"))
    names = module.fixture_names(keys["keys"])
    return {name: torch.from_numpy(array) for name, array in module.generate(names)}
