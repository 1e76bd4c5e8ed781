"""The estimate of memory is that of a real step, and the table of docs/training.md that of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from bagformer_cli.config import load_config
from bagformer_cli.models.build import build_without_memory
from bagformer_cli.models.lora import add_adapters
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.memory_estimate import training_bytes
from bagformer_cli.training.optimizer import build_optimizer
from tests.support.small_architectures import small_config

PAGE = Path(__file__).resolve().parents[2] / "docs/training.md"
H14 = [
    "text={layers: 24, width: 1024, heads: 16, feed_forward: 4096, max_tokens: 52}",
    "image={backbone: vit_huge_patch14_clip_224, size: 224}",
    "model={embed_dim: 1024, cross: null, gradient_checkpointing: true}",
    "objectives.itm=0",
]
ROWS = {
    "all weights, gradient checkpointing": [],
    "the same, with `training.ema`": ["training.ema=0.999"],
    "LoRA, rank 8, gradient checkpointing": ["training.lora={rank: 8}"],
}


def test_the_table_of_the_page_is_computed() -> None:
    text = PAGE.read_text(encoding="utf-8")
    found = {
        cells[0]: cells[1:]
        for cells in (
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in text.splitlines()
            if re.match(r"\| .* gradient checkpointing|\| the same", line)
        )
    }
    assert found.keys() == ROWS.keys()
    for name, more in ROWS.items():
        config = load_config("demo", [*H14, *more])
        model = build_without_memory(config)
        if config.training.lora is not None:
            with torch.device("meta"):
                add_adapters(model, config.training.lora)
        needed = training_bytes(model, config, 32)
        expected = [f"{value / 1e9:.1f}" for value in (*needed.values(), sum(needed.values()))]
        if config.training.ema is None:
            expected[3] = "–"
        assert found[name] == expected, name
        assert sum(needed.values()) + 1e9 < 24e9


@pytest.mark.parametrize("more", [[], ["training.lora={rank: 2}"]], ids=["whole", "LoRA"])
def test_weights_gradients_and_moments_are_those_of_a_real_step(
    tmp_path: Path, more: list[str]
) -> None:
    vit = "{patch_size: 8, embed_dim: 24, depth: 1, num_heads: 2}"
    config = small_config("demo", None, tmp_path, "model.cross=null", "objectives.itm=0",
                          f"image={{backbone: vit_base_patch16_224, size: 32, options: {vit}}}",
                          "training.ema=0.9", *more)  # fmt: skip
    model = new_model(config)
    needed = training_bytes(model, config, 1)
    optimizer = build_optimizer(model, config.training)
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()

    def size(tensors: list[torch.Tensor]) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    moments = [
        state[key] for state in optimizer.state.values() for key in ("exp_avg", "exp_avg_sq")
    ]
    assert needed["weights"] == size(list(model.parameters()))
    assert needed["gradients"] == needed["average"] == size(trained)
    assert needed["moments"] == size(moments)
