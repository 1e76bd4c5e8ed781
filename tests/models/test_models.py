"""Towers, pooling, the dual encoder, the matching head, model folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bagformer_cli.config import ImageConfig, RunConfig, load_config
from bagformer_cli.data.batches import TextBatch
from bagformer_cli.encoders.pooling import sum_bags
from bagformer_cli.encoders.vision import VisionEncoder
from bagformer_cli.errors import CheckpointError, ConfigError
from bagformer_cli.models.build import RetrievalModel, build_model
from bagformer_cli.models.checkpoint import load_model, save_model
from bagformer_cli.models.runs import find_checkpoint
from bagformer_cli.text.bags import TitleEncoder
from bagformer_cli.text.from_config import build_titles

TITLES = ["红色碎花连衣裙", "304不锈钢保温杯500ml", "女", "2024新款儿童加绒牛仔裤男宽松"]
TINY = [
    "text.width=32",
    "text.heads=2",
    "text.feed_forward=48",
    "text.layers=2",
    "image.backbone=vit_tiny_patch16_224",
    "image.options={patch_size: 8, embed_dim: 24, depth: 2, num_heads: 2}",
    "image.size=32",
    "model.embed_dim=16",
]


@pytest.fixture(scope="module")
def titles() -> TitleEncoder:
    return build_titles(load_config("demo"))


def tiny(*overrides: str) -> RunConfig:
    return load_config("demo", [*TINY, *overrides])


def model_of(titles: TitleEncoder, *overrides: str) -> RetrievalModel:
    torch.manual_seed(0)
    return build_model(tiny(*overrides), titles).eval()


def batch(titles: TitleEncoder, texts: list[str]) -> TextBatch:
    return TextBatch.from_tokens(titles(texts), titles.tokenizer.pad_id)


def test_a_batch_pads_ids_and_keeps_every_bag(titles: TitleEncoder) -> None:
    tokens = titles(TITLES)
    text = TextBatch.from_tokens(tokens, titles.tokenizer.pad_id)
    ids = text.input_ids.flatten()
    for bag in range(len(text.bag_starts)):
        end = text.bag_starts[bag + 1] if bag + 1 < len(text.bag_starts) else None
        ours = ids[text.token_index[text.bag_starts[bag] : end]]
        assert ours.tolist() == tokens.ids[tokens.bag_starts[bag] : tokens.bag_ends[bag]].tolist()
    assert (
        text.attention_mask.sum(1).tolist()
        == (tokens.token_offsets[1:] - tokens.token_offsets[:-1]).tolist()
    )


def test_a_bag_is_the_sum_of_its_tokens(titles: TitleEncoder) -> None:
    text = batch(titles, TITLES)
    states = torch.randn(*text.input_ids.shape, 8)
    flat = states.reshape(-1, 8)
    ends = [*text.bag_starts.tolist()[1:], len(text.token_index)]
    for bag, (start, end) in enumerate(zip(text.bag_starts.tolist(), ends, strict=True)):
        expected = sum(flat[i] for i in text.token_index[start:end].tolist())
        torch.testing.assert_close(sum_bags(states, text)[bag], expected)


@pytest.mark.parametrize(
    ("interaction", "fusion"),
    [("cls", "late"), ("tokenwise", "late"), ("bagwise", "late"), ("bagwise", "early")],
)
def test_no_batch_mate_changes_a_title(titles: TitleEncoder, interaction: str, fusion: str) -> None:
    model = model_of(titles, f"model.interaction={interaction}", f"model.bag_fusion={fusion}")
    together = model.dual.encode_texts(batch(titles, TITLES)).vectors.to_list()
    for title, vectors in zip(TITLES, together, strict=True):
        alone = model.dual.encode_texts(batch(titles, [title])).vectors.values
        torch.testing.assert_close(alone, vectors, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("interaction", "expected"), [("cls", [1] * 4), ("tokenwise", None), ("bagwise", None)]
)
def test_the_interaction_decides_how_many_vectors_there_are(
    titles: TitleEncoder, interaction: str, expected: list[int] | None
) -> None:
    model = model_of(titles, f"model.interaction={interaction}")
    tokens = titles(TITLES)
    if interaction == "tokenwise":
        expected = (tokens.token_offsets[1:] - tokens.token_offsets[:-1] - 2).tolist()
    if interaction == "bagwise":
        expected = (tokens.bag_offsets[1:] - tokens.bag_offsets[:-1]).tolist()
    texts = model.dual.encode_texts(batch(titles, TITLES)).vectors
    images = model.dual.encode_images(torch.randn(2, 3, 32, 32)).vectors
    assert texts.lengths.tolist() == expected
    assert images.lengths.tolist() == [1 if interaction == "cls" else 17] * 2
    for vectors in (texts, images):
        torch.testing.assert_close(vectors.values.norm(dim=1), torch.ones(len(vectors.values)))


def test_the_matching_head_ignores_padding(titles: TitleEncoder) -> None:
    model = model_of(titles)
    assert model.cross is not None
    images = model.dual.encode_images(torch.randn(4, 3, 32, 32))
    together = model.dual.encode_texts(batch(titles, TITLES))
    scores = model.cross.score(together.states, images.states)
    for i, title in enumerate(TITLES):
        alone = model.dual.encode_texts(batch(titles, [title]))
        one = model.cross.score(alone.states, images.states.select(torch.tensor([i])))
        torch.testing.assert_close(one[0], scores[i], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "patches"),
    [
        ("vit_tiny_patch16_224", {"patch_size": 8, "depth": 1}, 16),
        ("vit_small_patch16_dinov3", {"depth": 1}, 4),  # with register tokens
        ("resnet10t", {}, 1),
        ("convnext_atto", {}, 1),
        ("swin_tiny_patch4_window7_224", {"depths": (1, 1), "window_size": 2}, 16),
    ],
)
def test_any_timm_backbone_gives_a_class_vector_and_patches(
    name: str, options: dict[str, object], patches: int
) -> None:
    encoder = VisionEncoder(ImageConfig(backbone=name, size=32, options=options)).eval()
    with torch.no_grad():
        states = encoder(torch.randn(2, 3, 32, 32))
    assert states.shape == (2, 1 + patches, encoder.width)


def test_a_backbone_without_class_token_gets_the_mean_of_its_patches() -> None:
    encoder = VisionEncoder(ImageConfig(backbone="resnet10t", size=64)).eval()
    with torch.no_grad():
        states = encoder(torch.randn(1, 3, 64, 64))
    torch.testing.assert_close(states[:, 0], states[:, 1:].mean(1))


def test_an_unknown_backbone_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="vit_tiny_patch16_224"):
        VisionEncoder(ImageConfig(backbone="vit_tinny_patch16_224"))


def test_an_option_that_does_not_fit_the_backbone_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"image\.options\.depht.*Did you mean"):
        load_config("demo", ["image.options={depht: 2}"])
    with pytest.raises(ConfigError, match=r"image\.options: .*options of vit_tiny"):
        VisionEncoder(ImageConfig(backbone="vit_tiny_patch16_224", options={"channels": [2]}))


def test_frozen_layers_get_no_gradient(titles: TitleEncoder) -> None:
    model = model_of(titles, "text.frozen_layers=1", "image.frozen_layers=1")
    text = model.dual.encode_texts(batch(titles, TITLES))
    image = model.dual.encode_images(torch.randn(2, 3, 32, 32))
    (text.vectors.values.sum() + image.vectors.values.sum()).backward()
    trained = {name for name, p in model.dual.named_parameters() if p.grad is not None}
    bert, vit = "text_encoder.bert.encoder.layer", "vision_encoder.backbone.blocks"
    assert not any(name.startswith((f"{bert}.0", f"{vit}.0")) for name in trained)
    assert any(name.startswith(f"{bert}.1") for name in trained)
    assert any(name.startswith(f"{vit}.1") for name in trained)
    assert "text_encoder.bert.embeddings.word_embeddings.weight" not in trained
    assert "vision_encoder.backbone.pos_embed" not in trained


def test_gradient_checkpointing_changes_no_gradient(titles: TitleEncoder) -> None:
    pixels, text = torch.randn(2, 3, 32, 32), batch(titles, TITLES)
    gradients = []
    for switch in ("false", "true"):
        model = model_of(titles, f"model.gradient_checkpointing={switch}").train()
        (
            model.dual.encode_texts(text).cls @ model.dual.encode_images(pixels).cls.T
        ).sum().backward()
        gradients.append([p.grad for p in model.dual.parameters() if p.grad is not None])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed, rtol=1e-4, atol=1e-6)


# ----------------------------------------------------------------------- model folders


def test_a_model_folder_gives_the_same_scores_again(titles: TitleEncoder, tmp_path: Path) -> None:
    model = model_of(titles)
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.yaml",
        "model.safetensors",
        "vocab.txt",
        "lexicon.txt",
        "README.md",
    }
    pixels = torch.randn(2, 3, 32, 32)
    for mine, theirs in (
        (model.dual.encode_images(pixels), again.dual.encode_images(pixels)),
        (
            model.dual.encode_texts(batch(titles, TITLES)),
            again.dual.encode_texts(batch(again.titles, TITLES)),
        ),
    ):
        assert torch.equal(mine.vectors.values, theirs.vectors.values)
        assert torch.equal(mine.vectors.offsets, theirs.vectors.offsets)
    assert [again.titles.bags(t) for t in TITLES] == [titles.bags(t) for t in TITLES]


def test_a_weight_file_that_is_cut_off_is_refused(titles: TitleEncoder, tmp_path: Path) -> None:
    save_model(model_of(titles), tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged or cut off"):
        load_model(tmp_path)


def test_a_checkpoint_of_another_architecture_is_refused(
    titles: TitleEncoder, tmp_path: Path
) -> None:
    save_model(model_of(titles), tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    weights["dual.text_projj.weight"] = weights.pop("dual.text_proj.weight")
    save_file(weights, path)
    with pytest.raises(CheckpointError, match=r"text_projj\.weight") as caught:
        load_model(tmp_path)
    assert caught.value.exit_code == 2


def test_a_run_folder_stands_for_its_best_model(titles: TitleEncoder, tmp_path: Path) -> None:
    save_model(model_of(titles), tmp_path / "runs" / "a" / "best")
    best = tmp_path / "runs" / "a" / "best"
    assert find_checkpoint(tmp_path / "runs" / "a") == best
    assert find_checkpoint(None, tmp_path / "runs") == best


def test_a_folder_without_a_model_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_model(tmp_path)
    with pytest.raises(CheckpointError, match="no trained model"):
        find_checkpoint(None, tmp_path / "runs")
