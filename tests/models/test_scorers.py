"""Which vectors a model keeps, codes, one encoder for both sides, regions, and the captioner."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bagformer_cli.config import RegionsConfig, load_config
from bagformer_cli.data.batches import TextBatch
from bagformer_cli.data.regions import RegionFile, Regions, write_regions
from bagformer_cli.encoders.pooling import pool_grid
from bagformer_cli.encoders.states import States
from bagformer_cli.errors import ConfigError, DataError, InputError
from bagformer_cli.models.build import RetrievalModel, build_model
from bagformer_cli.text.bags import TitleEncoder
from bagformer_cli.text.from_config import build_titles
from bagformer_cli.vectors.multi_vectors import MultiVectors

TITLES = ["红色碎花连衣裙", "304不锈钢保温杯500ml", "女", "2024新款儿童加绒牛仔裤男宽松"]
TINY = [
    "text.width=32",
    "text.heads=2",
    "text.feed_forward=48",
    "text.layers=1",
    "image.backbone=vit_tiny_patch16_224",
    "image.options={patch_size: 4, embed_dim: 24, depth: 1, num_heads: 2}",
    "image.size=32",
    "model.embed_dim=16",
]
REGIONS = ["image.regions={width: 6, maximum: 5, boxes: true}", "model.shared={cells: 32}"]


@pytest.fixture(scope="module")
def titles() -> TitleEncoder:
    return build_titles(load_config("demo"))


def model_of(titles: TitleEncoder, *overrides: str, mode: str | None = None) -> RetrievalModel:
    torch.manual_seed(0)
    return build_model(load_config("demo", [*TINY, *overrides], mode), titles).eval()


def batch(titles: TitleEncoder, texts: list[str]) -> TextBatch:
    return TextBatch.from_tokens(titles(texts), titles.tokenizer.pad_id)


def some_regions(counts: list[int]) -> torch.Tensor:
    torch.manual_seed(1)
    rows = torch.zeros(len(counts), max(counts), 6 + 5)
    for row, count in zip(rows, counts, strict=True):
        row[:count, :10] = torch.rand(count, 10)
        row[:count, -1] = 1
    return rows


def test_multi_vectors_are_joined_and_truncated_item_by_item() -> None:
    first = MultiVectors(torch.arange(5.0)[:, None], torch.tensor([0, 2, 5]))
    second = MultiVectors(torch.tensor([[10.0], [20.0], [21.0]]), torch.tensor([0, 1, 3]))
    joined = MultiVectors.join([first, second])
    assert joined.values[:, 0].tolist() == [0, 1, 10, 2, 3, 4, 20, 21]
    assert joined.offsets.tolist() == [0, 3, 8]
    shorter = joined.truncate(4)
    assert shorter.values[:, 0].tolist() == [0, 1, 10, 2, 3, 4, 20]
    assert shorter.offsets.tolist() == [0, 3, 7]


def test_padding_is_left_out_of_multi_vectors() -> None:
    padded = torch.tensor([[[1.0], [2.0]], [[3.0], [0.0]]])
    packed = MultiVectors.from_dense(padded, torch.tensor([[True, True], [True, False]]))
    assert packed.values[:, 0].tolist() == [1, 2, 3]
    assert packed.offsets.tolist() == [0, 2, 3]


def test_a_grid_is_pooled_to_four_rows_of_eight() -> None:
    grid = torch.arange(64.0).reshape(1, 64, 1)
    cells = pool_grid(grid, 32)
    assert cells.shape == (1, 32, 1)
    assert float(cells[0, 0]) == (0 + 8) / 2  # cell (0, 0): rows 0 and 1 of column 0
    assert torch.equal(pool_grid(grid, 64), grid)


@pytest.mark.parametrize(
    ("mode", "image", "extra"),
    [("fast", 1, 0), ("base", 32, 0), ("inflate", 64, 32)],
)
@pytest.mark.parametrize("shared", ["null", "{cells: 32}"])
def test_a_mode_decides_how_many_vectors_there_are(
    titles: TitleEncoder, mode: str, image: int, extra: int, shared: str
) -> None:
    model = model_of(titles, f"model.shared={shared}", mode=mode)
    texts = model.dual.encode_texts(batch(titles, TITLES)).vectors.lengths
    images = model.dual.encode_images(torch.randn(2, 3, 32, 32)).vectors.lengths
    tokens = titles(TITLES)
    content = torch.from_numpy(np.diff(tokens.token_offsets) - 1)  # [CLS] counts, [SEP] does not
    expected = torch.ones(4) if mode == "fast" else content + extra
    assert texts.tolist() == expected.tolist()
    assert images.tolist() == [image] * 2


@pytest.mark.parametrize("interaction", ["tokenwise", "bagwise"])
@pytest.mark.parametrize("more", [[], REGIONS])
def test_no_batch_mate_changes_a_title_or_an_image_with_codes(
    titles: TitleEncoder, interaction: str, more: list[str]
) -> None:
    model = model_of(
        titles, f"model.interaction={interaction}", "model.codes=4", "model.cross=null",
        "objectives.itm=0", *more
    )  # fmt: skip
    together = model.dual.encode_texts(batch(titles, TITLES)).vectors.to_list()
    for title, vectors in zip(TITLES, together, strict=True):
        alone = model.dual.encode_texts(batch(titles, [title])).vectors.values
        torch.testing.assert_close(alone, vectors, rtol=1e-5, atol=1e-5)
    if not more:
        return
    pixels = some_regions([5, 2, 3])
    images = model.dual.encode_images(pixels).vectors
    assert images.lengths.tolist() == [9, 6, 7]
    alone = model.dual.encode_images(pixels[1:2, :2]).vectors.values
    torch.testing.assert_close(alone, images.to_list()[1], rtol=1e-5, atol=1e-5)


def test_codes_learn_from_both_sides(titles: TitleEncoder) -> None:
    model = model_of(titles, mode="inflate")
    text = model.dual.encode_texts(batch(titles, TITLES)).vectors.values
    image = model.dual.encode_images(torch.randn(2, 3, 32, 32)).vectors.values
    (text.sum() + image.sum()).backward()
    for codes in (model.dual.text_codes, model.dual.image_codes):
        assert codes is not None
        assert codes.embedding.weight.grad is not None
        assert float(codes.embedding.weight.grad.abs().min(dim=1).values.max()) > 0


def test_codes_need_a_sequence(titles: TitleEncoder) -> None:
    with pytest.raises(ConfigError, match=r"model\.codes"):
        model_of(titles, "image.backbone=resnet10t", "image.options={}", mode="inflate")


def test_the_alignment_leaves_out_the_first_position_of_an_image(titles: TitleEncoder) -> None:
    model = model_of(titles, mode="alignment_triplet")
    images = model.dual.encode_images(torch.randn(2, 3, 32, 32))
    assert images.vectors.lengths.tolist() == [64, 64]
    assert images.vectors is images.late


def test_a_frozen_backbone_stays_as_it_is_and_in_evaluation_mode(titles: TitleEncoder) -> None:
    model = model_of(titles, "text.dropout=0.5", mode="matching_triplet_finetune").train()
    trained = {name.split(".")[1] for name, p in model.dual.named_parameters() if p.requires_grad
               for name in [f"dual.{name}"]}  # fmt: skip
    assert trained == {"head"}
    assert not model.dual.text_encoder.training
    assert model.dual.head is not None
    assert model.dual.head.training


def test_a_bag_of_words_is_the_mean_of_its_words(titles: TitleEncoder) -> None:
    model = model_of(titles, "text.encoder=words", mode="dualnce")
    text = batch(titles, TITLES)
    states = model.dual.text_encoder(text.input_ids, text.attention_mask)
    own = titles(TITLES)
    for i in range(len(TITLES)):
        ids = torch.from_numpy(own.ids[own.token_offsets[i] + 1 : own.token_offsets[i + 1] - 1])
        expected = model.dual.text_encoder.words(ids.long()).mean(dim=0)
        torch.testing.assert_close(states[i, 0], expected)


# ------------------------------------------------------------------------------------- captioner


@pytest.fixture(scope="module")
def captioner(titles: TitleEncoder) -> RetrievalModel:
    return model_of(titles, "model.cross.layers=1", mode="captioner")


@torch.no_grad()
def test_the_captioner_reads_one_way_at_a_time(
    titles: TitleEncoder, captioner: RetrievalModel
) -> None:
    text = batch(titles, TITLES[1:2])
    images = captioner.encode_images(torch.randn(1, 3, 32, 32))
    cross = captioner.cross
    assert cross is not None
    ahead, behind = cross(States(text.input_ids, text.attention_mask), images.states)
    changed = text.input_ids.clone()
    changed[0, 4] = 7
    ahead_2, behind_2 = cross(States(changed, text.attention_mask), images.states)
    # entry l of `ahead` is token l + 1 given those before it, of `behind` token l given those after
    torch.testing.assert_close(ahead[0, :3], ahead_2[0, :3])
    torch.testing.assert_close(behind[0, 5:], behind_2[0, 5:])
    assert not torch.allclose(ahead[0, 3:], ahead_2[0, 3:])
    assert not torch.allclose(behind[0, :5], behind_2[0, :5])


@torch.no_grad()
def test_the_captioner_scores_as_its_formula_says(
    titles: TitleEncoder, captioner: RetrievalModel
) -> None:
    text = batch(titles, TITLES)
    images = captioner.encode_images(torch.randn(4, 3, 32, 32))
    cross = captioner.cross
    assert cross is not None
    scores = cross.score(States(text.input_ids, text.attention_mask), images.states)
    for i, title in enumerate(TITLES):
        ids = batch(titles, [title]).input_ids[0]
        total, image = 0.0, images.states.select(torch.tensor([i]))
        for end in range(1, len(ids)):  # word by word, each reading cut where it has come to
            total += float(cross(States(ids[None, : end + 1]), image)[0][0, -1])
        total += float(cross(States(ids[None]), image)[1].sum())
        assert float(scores[i]) == pytest.approx(total, abs=1e-3)


@pytest.mark.parametrize(
    ("backbone", "options", "cells"),
    [
        ("vit_tiny_patch16_224", "{patch_size: 16, embed_dim: 24, depth: 1, num_heads: 2}", 64),
        ("resnet10t", "{}", 16),
    ],
)
def test_image_features_get_finer(
    titles: TitleEncoder, backbone: str, options: str, cells: int
) -> None:
    model = model_of(
        titles,
        f"image.backbone={backbone}",
        f"image.options={options}",
        "model.cross.finer=2",
        "model.cross.layers=1",
        mode="captioner",
    )
    pixels = torch.randn(2, 3, 32, 32)
    seen = model.encode_images(pixels).states.values
    assert seen.shape[:2] == (2, cells)
    seen.sum().backward()
    finer = model.cross.finer  # type: ignore[union-attr]
    assert all(p.grad is not None for p in finer.parameters())  # type: ignore[union-attr]


# --------------------------------------------------------------------------------------- regions


def test_regions_come_back_from_their_file(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    made = {
        7: Regions(random.random((3, 4), np.float32), random.random((3, 4), np.float32), ["a"] * 3),
        9: Regions(random.random((2, 4), np.float32)),
    }
    path = tmp_path / "x.tsv"
    assert write_regions(path, made.items()) == 2
    read = RegionFile(path, RegionsConfig(width=4, maximum=2))
    assert np.array_equal(read[7].features, made[7].features)
    assert read[7].boxes is not None
    assert list(read[7].labels or []) == ["a"] * 3
    assert read[9].boxes is None
    rows = read.batch([9, 7])
    assert rows.shape == (2, 2, 9)
    assert np.array_equal(rows[1, :, :4], made[7].features[:2])
    assert rows[:, :, -1].tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    "line", ["x\tAAAA", "7", "7\t!!!", "7\tAAAA", "7\tAADAfwAAwH8AAMB/AADAfw=="]
)
def test_a_broken_regions_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "x.tsv"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match="wrong format"):
        RegionFile(path, RegionsConfig(width=4)).batch([7])


def test_a_missing_regions_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="xmr data regions"):
        RegionFile(tmp_path / "no.tsv", RegionsConfig())
