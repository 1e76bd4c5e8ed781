"""Backbones of every family: patches are those of the library, with its normalisation and size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from bagformer_cli import hub
from bagformer_cli.config import ImageConfig
from bagformer_cli.encoders import pretrained_backbone
from bagformer_cli.encoders.vision import VisionEncoder
from bagformer_cli.errors import CheckpointError, ConfigError

SMALL: dict[str, Any] = {"embed_dim": 24, "depth": 2, "num_heads": 2}
FAMILIES: list[tuple[str, int, dict[str, Any], bool]] = [  # name, size, options, class token
    ("vit_tiny_patch16_224", 32, SMALL, True),
    ("vit_base_patch16_siglip_224", 48, SMALL, False),
    ("vit_base_patch16_clip_quickgelu_224", 32, SMALL, True),
    ("vit_small_patch14_reg4_dinov2", 28, SMALL, True),
    ("vit_medium_patch16_reg4_gap_256", 32, SMALL, False),  # registers, but no class token
    ("vit_small_patch16_dinov3", 32, SMALL, True),
    ("deit_tiny_distilled_patch16_224", 32, SMALL, True),  # two tokens before the patches
    ("beit_base_patch16_224", 32, SMALL, True),
    ("eva02_tiny_patch14_224", 28, SMALL, True),
    ("convnext_atto", 64, {"depths": [1, 1, 1, 1], "dims": [8, 12, 16, 24]}, False),
    ("convnextv2_atto", 64, {"depths": [1, 1, 1, 1], "dims": [8, 12, 16, 24]}, False),
    ("swin_tiny_patch4_window7_224", 64,
     {"depths": [1, 1, 1, 1], "embed_dim": 12, "num_heads": [1, 1, 2, 2], "window_size": 2}, False),
    ("resnet10t", 64, {"channels": [8, 12, 16, 24], "stem_width": 8}, False),
    ("mobilenetv3_small_050", 64, {}, False),
]  # fmt: skip


@pytest.mark.parametrize(("name", "size", "options", "own"), FAMILIES, ids=[f[0] for f in FAMILIES])
def test_patches_are_the_last_map_of_the_library_row_by_row(
    name: str, size: int, options: dict[str, Any], own: bool
) -> None:
    torch.manual_seed(0)
    encoder = VisionEncoder(ImageConfig(backbone=name, size=size, options=options)).eval()
    pixels = torch.randn(2, 3, size, size)
    with torch.no_grad():
        states = encoder(pixels)
        features = encoder.backbone.forward_features(pixels)
        (grid,) = encoder.backbone.forward_intermediates(
            pixels, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
        )
    cells = grid.flatten(2).transpose(1, 2)
    if grid.shape[1] != encoder.width:  # a further layer follows the last map
        cells = features.flatten(2).transpose(1, 2)
    torch.testing.assert_close(states[:, 1:], cells, rtol=1e-4, atol=1e-5)
    expected = features[:, 0] if own else cells.mean(1)
    torch.testing.assert_close(states[:, 0], expected, rtol=1e-4, atol=1e-5)


def saved(folder: Path, size: int = 48) -> Path:
    """A tiny ViT as timm saves it, trained with other pixels than CLIP's."""
    folder.mkdir()
    source = timm.create_model("vit_tiny_patch16_224", img_size=size, num_classes=0, **SMALL)
    save_file(source.state_dict(), folder / "model.safetensors")
    pixels = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "input_size": [3, size, size]}
    about = {"architecture": "vit_tiny_patch16_224", "pretrained_cfg": pixels}
    (folder / "config.json").write_text(json.dumps(about))
    return folder


def settings(**values: Any) -> ImageConfig:
    return ImageConfig(backbone="vit_tiny_patch16_224", options=SMALL, **values)


def test_size_mean_and_std_are_those_of_the_weights(tmp_path: Path) -> None:
    folder = saved(tmp_path / "vit")
    encoder = VisionEncoder(settings(size=0, pretrained=str(folder)))
    assert (encoder.size, encoder.mean, encoder.std) == (48, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert encoder(torch.zeros(1, 3, 48, 48)).shape[1] == 1 + 9
    larger = VisionEncoder(settings(size=64, pretrained=str(folder)))
    assert (larger.size, larger(torch.zeros(1, 3, 64, 64)).shape[1]) == (64, 1 + 16)
    assert VisionEncoder(settings(size=0)).size == 224  # what timm says of the backbone


def test_a_model_of_its_own_size_is_saved_with_it(tmp_path: Path) -> None:
    from bagformer_cli.models.checkpoint import load_model, save_model
    from bagformer_cli.training.initial_model import new_model
    from tests.support.small_architectures import small_config

    folder = saved(tmp_path / "vit")
    image = "image={backbone: vit_tiny_patch16_224, size: 0, pretrained: %s, options: %s}"
    config = small_config("demo", None, tmp_path, image % (folder, json.dumps(SMALL)))
    assert config.image.size == 0
    model = new_model(config)
    save_model(model, tmp_path / "model")
    read = load_model(tmp_path / "model")
    assert read.config.image.size == model.config.image.size == 48
    assert read.config.image.mean == (0.5, 0.4, 0.3)


def test_a_hub_name_is_read_like_the_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(tmp_path / "vit")
    asked: list[str] = []

    def fetch(name: str, files: Any, setting: str) -> Path:
        asked.append(name)
        return next(folder / file for file in files if (folder / file).exists())

    monkeypatch.setattr(pretrained_backbone, "fetch", fetch)
    found = VisionEncoder(settings(size=0, pretrained="timm/vit_tiny.of_a_shop"))
    ours = VisionEncoder(settings(size=0, pretrained=str(folder)))
    assert set(asked) == {"timm/vit_tiny.of_a_shop"}
    assert found.mean == ours.mean
    weights = zip(found.state_dict().values(), ours.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in weights)


def test_without_a_hub_one_message_names_model_cache_and_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError) as caught:
        VisionEncoder(settings(pretrained="timm/vit_tiny.of_a_shop"))
    error = caught.value
    assert error.where == "image.pretrained: timm/vit_tiny.of_a_shop"
    assert str(hub.cache_folder()) in str(error.found)
    assert "--set image.pretrained=FOLDER" in str(error.hint)


def test_a_mistyped_weight_file_is_no_hub_name() -> None:
    with pytest.raises(CheckpointError, match="no weight file or folder"):
        VisionEncoder(settings(pretrained="weights/vit.pth"))


def test_a_backbone_of_two_branches_is_refused() -> None:
    encoder = VisionEncoder(ImageConfig(backbone="crossvit_tiny_240", size=240)).eval()
    with pytest.raises(ConfigError, match="neither tokens nor one feature map"), torch.no_grad():
        encoder(torch.zeros(1, 3, 240, 240))
