"""Whole evaluations against the obvious way: every pair scored on its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bagformer_cli.config import EvaluationConfig, load_config
from bagformer_cli.data.batches import TextBatch, pixels_of
from bagformer_cli.data.images import decode
from bagformer_cli.data.store.split import Split
from bagformer_cli.datasets import ensure_store
from bagformer_cli.errors import DataError
from bagformer_cli.evaluation.evaluate import EvaluationOptions, evaluate
from bagformer_cli.evaluation.products import read_products
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.training.initial_model import new_model
from tests.support.datasets import write_split

TITLES = ["红色连衣裙", "蓝色牛仔裤男宽松", "304不锈钢保温杯500ml", "儿童水杯", "手机壳"]
TINY = [
    "text.width=32",
    "text.heads=2",
    "text.feed_forward=48",
    "image.backbone=vit_tiny_patch16_224",
    "image.options={patch_size: 8, embed_dim: 24, depth: 1, num_heads: 2}",
    "image.size=16",
    "model.embed_dim=16",
]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> tuple[RetrievalModel, Split]:
    model = new_model(load_config("demo", TINY)).eval()
    answers = [(10, 11), (12,), (13, 10), (14,), (15,)]
    folder = write_split(
        tmp_path_factory.mktemp("pool"),
        "valid",
        [(n, t, items) for n, (t, items) in enumerate(zip(TITLES, answers, strict=True))],
    )
    return model, ensure_store(folder, model.titles, workers=1).split("valid")


def scores_of(model: RetrievalModel, split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """t2i, i2t and slow scores [Q, N], one pair at a time."""
    assert model.cross is not None
    shape = (len(split.query_ids), len(split.image_ids))
    t2i, i2t, slow = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for q, title in enumerate(split.texts):
        text = model.dual.encode_texts(TextBatch.from_tokens(model.titles([title]), 0))
        for n in range(shape[1]):
            picture = pixels_of(decode(split.image_bytes(n)), model.config.image.size)
            image = model.dual.encode_images(picture[None])
            products = text.vectors.values @ image.vectors.values.T
            t2i[q, n] = float(products.amax(1).sum())
            i2t[q, n] = float(products.amax(0).sum())
            slow[q, n] = float(model.cross.score(text.states, image.states))
    return t2i, i2t, slow


def recall_at_1(scores: np.ndarray, split: Split) -> float:
    answers = [
        set(split.items[split.item_offsets[q] : split.item_offsets[q + 1]])
        for q in range(len(scores))
    ]
    return float(np.mean([int(row.argmax()) in a for row, a in zip(scores, answers, strict=True)]))


@torch.no_grad()
def test_every_stage_equals_the_obvious_way(pool: tuple[RetrievalModel, Split]) -> None:
    model, split = pool
    t2i, i2t, slow = scores_of(model, split)
    found = evaluate(model, split, EvaluationConfig(batch_size=2, candidates=6, beta=0.5))
    stages = found.stages
    assert list(stages) == ["recall", "rerank", "merged"]
    expected = {"recall": t2i, "rerank": slow, "merged": slow + 0.5 * t2i}
    for stage, scores in expected.items():
        assert stages[stage]["text_to_image"].at[1] == pytest.approx(recall_at_1(scores, split))
    for stage, both in found.gains.items():
        for direction, gain in both.items():
            points = stages[stage][direction].mean - stages["recall"][direction].mean
            assert gain.mean == pytest.approx(100 * points)
            assert gain.lower <= gain.mean <= gain.upper
    assert list(found.gains) == ["rerank", "merged"]
    best = found.best
    assert best.tolist() == np.argsort(-expected["merged"], axis=1, kind="stable").tolist()
    assert (found.n_queries, found.n_items) == (5, 6)
    image_answers = [
        {q for q in range(5) if n in split.items[split.item_offsets[q] : split.item_offsets[q + 1]]}
        for n in range(6)
    ]
    hits = [int(i2t[:, n].argmax()) in image_answers[n] for n in range(6)]
    assert stages["recall"]["image_to_text"].at[1] == pytest.approx(np.mean(hits))


def test_batch_size_changes_nothing(pool: tuple[RetrievalModel, Split]) -> None:
    model, split = pool
    reports = [
        evaluate(model, split, EvaluationConfig(batch_size=size, candidates=3)).stages
        for size in (1, 4, 64)
    ]
    assert reports[0] == reports[1] == reports[2]


def test_without_rerank_there_is_one_stage(pool: tuple[RetrievalModel, Split]) -> None:
    model, split = pool
    assert list(
        evaluate(model, split, EvaluationConfig(), EvaluationOptions(rerank=())).stages
    ) == ["recall"]
    assert list(evaluate(model, split, EvaluationConfig(candidates=0)).stages) == ["recall"]


def test_evaluation_leaves_the_model_in_its_mode(pool: tuple[RetrievalModel, Split]) -> None:
    model, split = pool
    model.train()
    evaluate(model, split, EvaluationConfig(candidates=2))
    assert model.training
    model.eval()


def test_recall_is_in_percent_in_json(pool: tuple[RetrievalModel, Split]) -> None:
    model, split = pool
    figures = evaluate(model, split, EvaluationConfig(), EvaluationOptions(rerank=())).to_json()
    for both in figures["stages"].values():
        for direction in ("text_to_image", "image_to_text"):
            measures = {"recall@1", "recall@5", "recall@10", "mean_recall", "ndcg@10", "mrr", "map"}
            assert set(both[direction]) == measures
            assert both[direction]["recall@10"] == 100.0  # five titles, six images


def test_images_of_one_product_count_once(
    pool: tuple[RetrievalModel, Split], tmp_path: Path
) -> None:
    model, split = pool
    path = tmp_path / "products.tsv"
    path.write_text("".join(f"{number}\tthe only product\n" for number in range(10, 16)))
    groups = read_products(path, split.image_ids)
    found = evaluate(model, split, EvaluationConfig(), EvaluationOptions(groups=groups))
    assert found.stages["recall"]["text_to_image"].at[1] == 1.0
    path.write_text("10\tA\n11\tA\n")
    assert read_products(path, split.image_ids).tolist() == [0, 0, 1, 2, 3, 4]
    path.write_text("910\tA\n911\tA\n")
    with pytest.raises(DataError, match="no image of the split"):
        read_products(path, split.image_ids)


@pytest.mark.parametrize("line", ["10 A", "x\tA", "10\t"])
def test_a_broken_products_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "products.tsv"
    path.write_text(f"9\tB\n{line}\n")
    with pytest.raises(DataError) as caught:
        read_products(path, np.array([10]))
    assert caught.value.where == f"{path}:2"
