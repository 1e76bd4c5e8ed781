"""The experiment on photographs: folds, parts, means of bags, tables. No tower is run."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from bagformer_cli.config import load_config
from bagformer_cli.data.batches import TextBatch
from bagformer_cli.data.kept_outputs import KeptOutputs
from bagformer_cli.data.positives import Positives
from bagformer_cli.encoders.pooling import sum_bags
from bagformer_cli.evaluation.metrics import NO_POSITIVE
from bagformer_cli.text.bags import TokenBags
from bagformer_cli.training.frozen_towers import keep_outputs
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.run import start_run
from photo_sets import Part, Photographs
from photo_tables import COLUMNS, differences_table, group_bootstrap, recall_table
from photographs import ARMS, COMPARED, train
from tests.support.small_architectures import small_config, small_store
from tests.support.small_run import weights
from trials import Result

# Title 0 is shared by photographs 0 and 1; photographs 3 and 5 have two titles each.
ANSWERS = ((0, 1), (2,), (3,), (3,), (4,), (5,), (5,))
PRODUCTS = np.array([False, False, False, True, False, True])


@pytest.fixture
def whole() -> Photographs:
    titles = len(ANSWERS)
    # Each title: [CLS], a bag of two tokens, a bag of one token, [SEP].
    tokens = TokenBags(
        np.arange(5 * titles, dtype=np.int32),
        np.arange(titles + 1) * 5,
        np.stack([np.arange(titles) * 5 + 1, np.arange(titles) * 5 + 3], 1).reshape(-1),
        np.stack([np.arange(titles) * 5 + 3, np.arange(titles) * 5 + 4], 1).reshape(-1),
        np.arange(titles + 1) * 2,
    )
    random = torch.Generator().manual_seed(0)
    outputs = KeptOutputs(
        titles=torch.randn(5 * titles, 8, generator=random),
        images=torch.randn(len(PRODUCTS), 3, 4, generator=random),
    )
    return Photographs(
        [f"title {number}" for number in range(titles)],
        tokens,
        np.cumsum([0, *map(len, ANSWERS)]),
        np.array([item for items in ANSWERS for item in items]),
        np.arange(len(PRODUCTS)) + 100,
        PRODUCTS,
        outputs,
    )


def test_photographs_that_share_a_title_are_one_group(whole: Photographs) -> None:
    photos, titles = whole.groups()
    assert photos[0] == photos[1] == titles[0]
    assert photos[3] == titles[2] == titles[3]
    assert len(np.unique(photos)) == 5


@pytest.mark.parametrize("seed", range(5))
def test_folds_divide_no_group_and_deal_both_kinds_equally(whole: Photographs, seed: int) -> None:
    fold = whole.folds(2, seed)
    assert fold[0] == fold[1]
    assert sorted(fold[PRODUCTS]) == [0, 1]
    assert set(fold[~PRODUCTS]) == {0, 1}
    assert fold.tolist() == whole.folds(2, seed).tolist()


def test_another_seed_deals_other_folds(whole: Photographs) -> None:
    assert len({tuple(whole.folds(2, seed)) for seed in range(20)}) > 1


def test_parts_divide_the_titles_and_keep_their_answers_and_outputs(whole: Photographs) -> None:
    chosen = whole.folds(2, 0) == 0
    parts = [Part(whole, chosen), Part(whole, ~chosen)]
    assert sorted(np.concatenate([part.queries for part in parts])) == list(range(len(ANSWERS)))
    for part in parts:
        assert whole.outputs.titles is not None
        assert part.outputs.titles is not None
        for row, query in enumerate(part.queries):
            begin, end = part.item_offsets[row : row + 2]
            assert tuple(part.photos[part.items[begin:end]]) == ANSWERS[query]
            assert part.texts[row] == f"title {query}"
            kept = part.outputs.titles[5 * row : 5 * row + 5]
            assert torch.equal(kept, whole.outputs.titles[5 * query : 5 * query + 5])
            assert part.tokens.ids[5 * row] == 5 * query
        assert whole.outputs.images is not None
        assert part.outputs.images is not None
        assert torch.equal(part.outputs.images, whole.outputs.images[part.photos])
        assert Positives.of(part).keys.size == len(part.items)


def test_sums_over_bags_become_means(whole: Photographs) -> None:
    assert whole.outputs.titles is not None
    part = Part(whole.with_bag_means(), np.ones(len(PRODUCTS), bool))
    batch = TextBatch.from_tokens(part.tokens, pad_id=0)
    assert part.outputs.titles is not None
    bags = sum_bags(part.outputs.titles.reshape(len(ANSWERS), 5, 8), batch)
    states = whole.outputs.titles.reshape(len(ANSWERS), 5, 8)
    expected = torch.stack([states[:, 1:3].mean(1), states[:, 3]], 1).reshape(-1, 8)
    torch.testing.assert_close(bags, expected)
    kept = part.outputs.titles.reshape(len(ANSWERS), 5, 8)
    assert torch.equal(kept[:, 0], states[:, 0])


def test_the_bootstrap_draws_whole_groups() -> None:
    gaps = np.repeat([1.0, -1.0, 1.0, 0.0], 10)
    alone = group_bootstrap(gaps, np.arange(40))
    together = group_bootstrap(gaps, np.repeat(np.arange(4), 10))
    assert alone.mean == together.mean == pytest.approx(25.0)
    assert together.upper - together.lower > 2 * (alone.upper - alone.lower)
    constant = group_bootstrap(np.full(40, 0.1), np.arange(40))
    assert (constant.lower, constant.upper) == (pytest.approx(10.0), pytest.approx(10.0))


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_is_a_valid_configuration(arm: str) -> None:
    names = list(ARMS)
    about = ARMS[arm]
    load_config("real", list(about.sets), about.mode)
    assert about.teacher is None or names.index(about.teacher) < names.index(arm)


def test_compared_arms_exist() -> None:
    assert {name for pair in COMPARED for name in pair} <= set(ARMS)


@pytest.mark.parametrize(
    ("student", "rival"), [(a, b) for a, b in COMPARED if ARMS[a].teacher is not None]
)
def test_a_student_and_its_teacher_take_the_steps_of_their_rival(student: str, rival: str) -> None:
    taught = ARMS[student]
    assert taught.teacher is not None
    assert taught.shares + ARMS[taught.teacher].shares == ARMS[rival].shares


def test_training_is_that_of_a_run(tmp_path: Path) -> None:
    config = small_config(
        "demo",
        None,
        tmp_path,
        "text.frozen_layers=1",
        "text.dropout=0",
        "image={backbone: vit_base_patch16_224, size: 32, frozen_layers: 1, "
        "options: {patch_size: 8, embed_dim: 24, depth: 1, num_heads: 2}}",
        "data.augment=null",
        "model.cross=null",
        "objectives.itm=0",
        "training.encode_frozen_once=true",
        "training.max_steps=3",
        "training.schedule_steps=3",
    )
    store = small_store(tmp_path / "set")
    start_run(config, store, tmp_path / "run", new_model(config))
    model, part = new_model(config), cast(Part, store.split("train"))
    outputs = keep_outputs(model, config, part)
    assert outputs is not None
    part.outputs = outputs
    start = model.dual.text_proj.weight.detach().clone()
    train(model, config, part, 3, None)
    assert not torch.equal(model.dual.text_proj.weight, start)
    there = weights(tmp_path / "run" / "last")
    for name, value in model.state_dict().items():
        assert torch.allclose(value, there[name], atol=1e-6), name


def result(products: int, stamps: int) -> Result:
    """Every product title has rank ``products``, every caption rank ``stamps``."""
    answered = [products if PRODUCTS[items[0]] else stamps for items in ANSWERS]
    photos = [products if product else stamps for product in PRODUCTS]
    moved = [
        rank if PRODUCTS[items[0]] else NO_POSITIVE
        for rank, items in zip(answered, ANSWERS, strict=True)
    ]
    apart = [
        rank if product else NO_POSITIVE for rank, product in zip(photos, PRODUCTS, strict=True)
    ]
    return {
        "ranks": {
            "folds": {"titles": answered, "photos": photos},
            "transfer": {"titles": moved, "photos": apart},
        },
        "title_vectors": 2.5,
        "image_vectors": 17.0,
        "image_bytes": 26112.0,
        "query_ms": 0.5,
        "steps": 96,
        "cpu": 10.0,
    }


def test_the_tables_have_each_set_in_its_column(whole: Photographs) -> None:
    found = {
        "bagwise, no ITC": dict.fromkeys(range(3), result(0, 7)),
        "cls": dict.fromkeys(range(2), result(7, 0)),
        "bagwise": {0: result(0, 0)},
    }
    rows = recall_table(found, whole)
    assert rows[2] == (
        "| bagwise, no ITC | 3 | 100.0 ± 0.0 | 100.0 ± 0.0 | 33.3 ± 0.0 | 33.3 ± 0.0 | 100.0 ± 0.0 "
        "| 100.0 ± 0.0 | 2.5 / 17.0 | 26,112 | 0.50 | 96 | 10.0 |"
    )
    rows = differences_table(found, whole, COMPARED)
    assert len(rows) == 3
    cells = rows[2].strip("| ").split(" | ")
    assert cells[:4] == ["bagwise, no ITC", "cls", "2", "+66.7 (+66.7 … +66.7; +66.7 … +66.7)"]
    assert cells[5].startswith("-66.7")
    assert len(cells) == 3 + len(COLUMNS)
