"""A training that starts from the towers of a Chinese-CLIP: its scores, settings and errors."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
import torch
from PIL import Image
from transformers import ChineseCLIPModel

from bagformer_cli.config import load_config
from bagformer_cli.errors import CheckpointError, ConfigError, InputError
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.cross_encoders import MatchingHead
from bagformer_cli.training.initial_model import check_start, new_model
from tests.support.chinese_clip import DIM, SIZE, ours, theirs


def started(folder: Path, *overrides: str) -> RetrievalModel:
    size, tower = f"image.size={SIZE}", folder
    items = [f"text.chinese_clip={tower}", f"image.chinese_clip={tower}", size, *overrides]
    config = load_config("muge_chinese_clip", [*items, "text.fold_width=false"])
    check_start(config)
    return new_model(config).eval()


def test_a_training_starts_with_the_scores_of_the_model(
    tiny_clip: tuple[Path, ChineseCLIPModel], images: list[Image.Image]
) -> None:
    folder, model = tiny_clip
    begun = started(folder, "model.interaction=cls")
    expected = theirs(model, folder, images)
    torch.testing.assert_close(ours(begun, images), expected, atol=1e-5, rtol=0)
    assert begun.config.text.layers == 2
    assert begun.config.text.width == 128
    assert begun.config.model.embed_dim == DIM
    assert begun.temperature.item() == pytest.approx(0.01)


def test_maxsim_of_tokens_starts_from_the_projections_of_the_model(
    tiny_clip: tuple[Path, ChineseCLIPModel],
) -> None:
    head = "model.cross={layers: 1, token_maxsim: true}"
    begun = started(tiny_clip[0], "model.interaction=bagwise", "objectives.itm=1", head)
    part = cast(MatchingHead, begun.cross).token_maxsim
    assert part is not None
    assert torch.equal(part.text_proj.weight, begun.dual.text_proj.weight)
    assert torch.equal(part.vision_proj.weight, tiny_clip[1].visual_projection.weight)


def test_a_training_can_start_with_one_tower_or_another_image_size(
    tiny_clip: tuple[Path, ChineseCLIPModel], images: list[Image.Image]
) -> None:
    folder, model = tiny_clip
    config = load_config("demo", [f"image.chinese_clip={folder}", "image.size=64"])
    begun = new_model(config)
    assert begun.config.image.options["embed_dim"] == 128
    assert begun.state_dict()["dual.vision_encoder.backbone.pos_embed"].shape == (1, 65, 128)
    assert torch.equal(begun.dual.vision_proj.weight, model.visual_projection.weight)
    assert begun.config.text.layers == config.text.layers


def test_settings_that_contradict_a_chinese_clip_are_refused(
    tiny_clip: tuple[Path, ChineseCLIPModel], tmp_path: Path
) -> None:
    folder = tiny_clip[0]
    for other in ("text.pretrained=x", "text.encoder=words", "image.pretrained=true"):
        with pytest.raises(ConfigError):
            load_config("muge_chinese_clip", [other])
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n红\n")
    with pytest.raises(InputError, match="another vocabulary"):
        started(folder, f"text.tokenizer={tmp_path / 'vocab.txt'}")
    with pytest.raises(CheckpointError, match="No such file or folder"):
        started(tmp_path / "none.pt")


@pytest.mark.parametrize(
    ("target", "said"), [("blocks.11.attn.qkv", "blocks.11.attn.qkv"), ("blocks.1.attn.qkv", None)]
)
def test_lora_targets_are_those_of_the_towers_and_checked_before_the_data(
    tiny_clip: tuple[Path, ChineseCLIPModel], target: str, said: str | None
) -> None:
    """The configuration's own backbone has 12 blocks, the Chinese-CLIP that is named has 2."""
    folder = tiny_clip[0]
    items = [f"text.chinese_clip={folder}", f"image.chinese_clip={folder}", f"image.size={SIZE}"]
    lora = f"training.lora={{towers: image, targets: [{target}]}}"
    config = load_config("muge_chinese_clip", [*items, lora])
    if said is None:
        check_start(config)
        return
    with pytest.raises(ConfigError, match="finds no linear layer") as caught:
        check_start(config)
    assert said in str(caught.value.found)
