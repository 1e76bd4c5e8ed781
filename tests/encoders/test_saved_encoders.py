"""Encoders from saved weights give what their libraries give; frozen layers; normalised pixels."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

from bagformer_cli.config import ImageConfig, TextConfig, load_config
from bagformer_cli.data.batches import normalised
from bagformer_cli.data.images import CLIP_MEAN, CLIP_STD
from bagformer_cli.encoders.fusion import FusionEncoder
from bagformer_cli.encoders.pretrained_bert import load_bert, sizes_of
from bagformer_cli.encoders.states import States
from bagformer_cli.encoders.text import TextEncoder
from bagformer_cli.encoders.vision import VisionEncoder
from bagformer_cli.errors import CheckpointError, ConfigError
from bagformer_cli.models.build import build_model
from bagformer_cli.models.checkpoint import load_model, save_model
from bagformer_cli.training.initial_model import new_model
from tests.support.small_model import TINY


def saved_bert(folder: Path, layers: int = 4) -> BertModel:
    torch.manual_seed(1)
    bert = BertModel(
        BertConfig(
            vocab_size=200,
            hidden_size=32,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=48,
            layer_norm_eps=1e-7,
        ),
        add_pooling_layer=False,
    ).eval()
    bert.save_pretrained(folder)
    return bert


def test_a_saved_bert_gives_its_first_layers_to_the_text_encoder(tmp_path: Path) -> None:
    bert = saved_bert(tmp_path)
    loaded = load_bert(str(tmp_path), 2)
    config = sizes_of(loaded, TextConfig(layers=2))
    assert (config.width, config.heads, config.options["layer_norm_eps"]) == (32, 2, 1e-7)
    encoder = TextEncoder(config, 200, 0, loaded).eval()
    ids = torch.randint(1, 200, (2, 7))
    hidden = bert(ids, output_hidden_states=True).hidden_states[2]
    torch.testing.assert_close(encoder(ids, torch.ones(2, 7, dtype=torch.bool)), hidden)


def test_the_later_layers_start_the_fusion_encoder(tmp_path: Path) -> None:
    loaded = load_bert(str(saved_bert(tmp_path) and tmp_path), 2)
    config = sizes_of(loaded, TextConfig(layers=2))
    fusion = FusionEncoder(config, 2, 32).eval()
    fusion.load_bert_layers(loaded, 2)
    for layer in fusion.layers:  # silence the part that BERT does not have
        torch.nn.init.zeros_(layer.multihead_attn.out_proj.weight)
        torch.nn.init.zeros_(layer.multihead_attn.out_proj.bias)
        torch.nn.init.ones_(layer.norm2.weight)
        layer.norm2 = torch.nn.Identity()
    states = torch.randn(2, 5, 32)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    expected = states
    additive = torch.where(mask, 0.0, -torch.inf)[:, None, None, :]
    for layer in loaded.encoder.layer[2:]:
        output = layer(expected, attention_mask=additive)
        expected = output[0] if isinstance(output, tuple) else output
    ours = fusion(States(states, mask), States(torch.randn(2, 3, 32)))
    torch.testing.assert_close(ours[mask], expected[mask], rtol=1e-4, atol=1e-5)


def test_a_bert_with_too_few_layers_is_refused(tmp_path: Path) -> None:
    saved_bert(tmp_path, layers=1)
    with pytest.raises(ConfigError, match="too few layers"):
        load_bert(str(tmp_path), 2)


def test_a_bert_that_is_nowhere_is_an_error_with_advice() -> None:
    with pytest.raises(CheckpointError, match="HF_ENDPOINT"):
        load_bert("nobody/no-such-bert", 2)


@pytest.mark.parametrize("form", ["file", "folder"])
def test_a_saved_timm_backbone_is_read(tmp_path: Path, form: str) -> None:
    options = {"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    torch.manual_seed(3)
    source = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, num_classes=0, global_pool="", **options
    ).eval()
    place = tmp_path / "weights.safetensors"
    save_file(source.state_dict(), place)
    if form == "folder":
        timm.models.save_for_hf(source, tmp_path / "saved", model_args={"img_size": 32, **options})
        place = tmp_path / "saved"
    config = ImageConfig(
        backbone="vit_tiny_patch16_224",
        size=32,
        pretrained=str(place),
        options=options,
        mean=CLIP_MEAN,
        std=CLIP_STD,
    )
    encoder = VisionEncoder(config).eval()
    pixels = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(encoder(pixels), source.forward_features(pixels))


def test_backbone_weights_that_are_nowhere_are_an_error() -> None:
    with pytest.raises(CheckpointError, match=r"image\.pretrained"):
        VisionEncoder(ImageConfig(pretrained="/nowhere/vit.safetensors"))


# ------------------------------------------------------------------ frozen layers, normalisation


@pytest.mark.parametrize(
    ("backbone", "frozen", "trained"),
    [
        ("resnet10t", ("conv1", "layer1"), ("layer2", "layer4")),
        ("convnext_atto", ("stem", "stages.0"), ("stages.1", "stages.3")),
        ("efficientnet_b0", ("conv_stem", "blocks.0"), ("blocks.1", "conv_head")),
        ("vit_tiny_patch16_224", ("patch_embed", "cls_token", "blocks.0"), ("blocks.1", "norm")),
    ],
)
def test_the_input_layers_of_any_backbone_can_be_frozen(
    backbone: str, frozen: tuple[str, ...], trained: tuple[str, ...]
) -> None:
    encoder = VisionEncoder(ImageConfig(backbone=backbone, size=32, frozen_layers=1)).train()
    before = {name: value.clone() for name, value in encoder.backbone.named_buffers()}
    encoder(torch.randn(2, 3, 32, 32)).sum().backward()
    for name, parameter in encoder.backbone.named_parameters():
        if name.startswith(frozen):
            assert parameter.grad is None, name
        if name.startswith(trained):
            assert parameter.grad is not None, name
    for name, value in encoder.backbone.named_buffers():  # statistics of batch normalisation
        if name.startswith(frozen):
            assert torch.equal(value, before[name]), name


def test_more_frozen_layers_than_there_are_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"frozen_layers.*at most 4"):
        VisionEncoder(ImageConfig(backbone="resnet10t", size=32, frozen_layers=5))


SMALL_RESNET = [*TINY, "image.backbone=resnet10t", "image.options={}", "image.size=32"]


def saved_resnet(folder: Path) -> Path:
    torch.manual_seed(5)
    source = timm.create_model("resnet10t", num_classes=0, global_pool="")
    folder.mkdir(parents=True, exist_ok=True)
    save_file(source.state_dict(), folder / "weights.safetensors")
    return folder / "weights.safetensors"


def test_a_pretrained_backbone_sees_pixels_normalised_as_in_its_training(tmp_path: Path) -> None:
    weights = saved_resnet(tmp_path)
    config = ImageConfig(backbone="resnet10t", size=32, pretrained=str(weights))
    encoder = VisionEncoder(config).eval()
    assert encoder.mean == (0.485, 0.456, 0.406)
    raw = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    scaled = raw.permute(0, 3, 1, 2) / 255
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    expected = encoder.backbone.forward_features((scaled - mean) / std)
    found = encoder(normalised(raw))[:, 1:]
    torch.testing.assert_close(found, expected.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-4)


def test_pixels_stay_as_they_are_for_a_backbone_from_scratch_or_with_clip_values() -> None:
    for more in ({}, {"mean": CLIP_MEAN, "std": CLIP_STD}):
        encoder = VisionEncoder(ImageConfig(backbone="resnet10t", size=32, **more)).eval()  # type: ignore[arg-type]
        pixels = torch.randn(1, 3, 32, 32)
        expected = encoder.backbone.forward_features(pixels).flatten(2).transpose(1, 2)
        assert torch.equal(encoder(pixels)[:, 1:], expected)


def test_a_model_folder_and_runs_that_start_from_it_keep_the_normalisation(tmp_path: Path) -> None:
    pretrained = f"image.pretrained={saved_resnet(tmp_path / 'timm')}"
    first = build_model(load_config("demo", [*SMALL_RESNET, pretrained])).eval()
    save_model(first, tmp_path / "model")
    again = load_model(tmp_path / "model")
    assert again.config.image.mean == (0.485, 0.456, 0.406)
    pixels = torch.randn(1, 3, 32, 32)
    assert torch.equal(again.dual.encode_images(pixels).cls, first.dual.encode_images(pixels).cls)
    assert "pixel_scale" not in str(list(first.state_dict()))  # the format of weights is unchanged
    student = new_model(load_config("demo", SMALL_RESNET), tmp_path / "model")
    assert student.config.image.std == (0.229, 0.224, 0.225)


def test_published_weights_keep_the_normalisation_of_the_original(tmp_path: Path) -> None:
    settings = ["compat=bagformer", f"image.pretrained={saved_resnet(tmp_path)}"]
    model = build_model(load_config("demo", [*SMALL_RESNET, *settings]))
    assert model.config.image.mean == CLIP_MEAN
