"""What masked modelling hides: how much, what never, and the same whenever it is asked again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bagformer_cli.config import DataConfig
from bagformer_cli.data.masking import TokenMasking, hidden_patches
from bagformer_cli.data.sampler import Sampling
from bagformer_cli.data.store.preprocess import preprocess
from bagformer_cli.data.train_batches import TrainBatches
from bagformer_cli.text.bags import TokenBags
from tests.data.test_batches import packed
from tests.data.test_store import Characters
from tests.support.datasets import write_split

SPECIAL = (0, 101, 102, 103)
MASK = 103


def masking(share: float = 0.15, whole_bags: bool = False) -> TokenMasking:
    return TokenMasking(share, whole_bags, MASK, SPECIAL, 200)


def randoms(count: int) -> list[np.random.Generator]:
    return [np.random.default_rng([7, n]) for n in range(count)]


MANY = packed([[[5, 6, 7], [8], [9, 10]] for _ in range(2000)])


def test_shares_are_those_of_bert() -> None:
    shown, chosen = masking().hide(MANY, randoms(2000))
    content = ~np.isin(MANY.ids, SPECIAL)
    assert chosen[content].mean() == pytest.approx(0.15, abs=0.01)
    masked, kept = shown.ids == MASK, shown.ids == MANY.ids
    assert masked[chosen].mean() == pytest.approx(0.8, abs=0.03)
    assert kept[chosen].mean() == pytest.approx(0.1, abs=0.03)
    others = shown.ids[chosen & ~masked & ~kept]
    assert len(np.unique(others)) > 50
    assert not np.isin(others, SPECIAL).any()


@pytest.mark.parametrize("whole_bags", [False, True])
def test_specials_are_never_hidden_and_nothing_else_is_touched(whole_bags: bool) -> None:
    shown, chosen = masking(1.0, whole_bags).hide(MANY, randoms(2000))
    special = np.isin(MANY.ids, SPECIAL)
    assert not chosen[special].any()
    assert chosen[~special].all()
    assert (shown.ids[special] == MANY.ids[special]).all()
    none, nothing = masking(0.0, whole_bags).hide(MANY, randoms(2000))
    assert (none.ids == MANY.ids).all()
    assert not nothing.any()


def test_a_title_that_is_nothing_but_specials_hides_nothing() -> None:
    empty = TokenBags(
        np.array([101, 102], np.int32), *(np.array(x) for x in ([0, 2], [0], [1], [0, 1]))
    )
    assert not masking(1.0).hide(empty, randoms(1))[1].any()


def test_whole_bags_are_hidden_together_and_in_one_way() -> None:
    shown, chosen = masking(0.3, whole_bags=True).hide(MANY, randoms(2000))
    ways = set()
    for a, b in zip(MANY.bag_starts, MANY.bag_ends, strict=True):
        assert chosen[a:b].all() or not chosen[a:b].any()
        if chosen[a] and b - a > 1:
            masked, kept = shown.ids[a:b] == MASK, shown.ids[a:b] == MANY.ids[a:b]
            assert masked.all() or not masked.any()
            ways.add("masked" if masked.all() else "kept" if kept.all() else "random")
    assert ways == {"masked", "kept", "random"}


def test_no_title_depends_on_another() -> None:
    titles = [[[5, 6], [7]], [[8, 9, 10]], [[11], [12]]]
    shown, chosen = masking(0.5).hide(packed(titles), randoms(3))
    begin = 0
    for title, random in zip(titles, randoms(3), strict=True):
        alone, told = masking(0.5).hide(packed([title]), [random])
        end = begin + len(alone.ids)
        assert (shown.ids[begin:end] == alone.ids).all()
        assert (chosen[begin:end] == told).all()
        begin = end


def test_patches_are_hidden_by_the_sample_alone_and_only_where_there_are_any() -> None:
    valid = np.ones((400, 50), bool)
    valid[:, 40:] = False
    hidden = hidden_patches(np.arange(400), valid, 0.135)
    assert hidden[:, :40].mean() == pytest.approx(0.135, abs=0.01)
    assert not hidden[:, 40:].any()
    assert (hidden_patches(np.array([3]), valid[:1], 0.135) == hidden[3]).all()


def batches(tmp_path: Path, batch_size: int = 4, **options: int) -> TrainBatches:
    queries = [(n, f"红色连衣裙{n}", (n,)) for n in range(8)]
    folder = write_split(tmp_path / "data", queries=queries)
    split = preprocess(folder, encoder=Characters()).split("train")
    return TrainBatches(
        split,
        DataConfig(augment=None, workers=0),
        Sampling(batch_size, 3, **options),
        image_size=8,
        pad_id=0,
        masking=TokenMasking(0.4, False, MASK, (0, 1, 2, MASK), 200),
    )


def test_batches_hide_the_same_again_and_other_things_in_another_epoch(tmp_path: Path) -> None:
    ours, again = batches(tmp_path), batches(tmp_path)
    first, same, later = ours.batch(1).masked, again.batch(1).masked, ours.batch(3).masked
    assert first is not None and same is not None and later is not None  # noqa: PT018
    assert torch.equal(first.input_ids, same.input_ids)
    assert torch.equal(first.targets, same.targets)
    assert not torch.equal(first.targets, later.targets)


def test_ranks_hide_what_one_process_hides(tmp_path: Path) -> None:
    whole = batches(tmp_path, 4).batch(0)
    parts = [batches(tmp_path, 2, rank=rank, world_size=2).batch(0) for rank in range(2)]
    assert whole.masked is not None
    for rank, part in enumerate(parts):
        assert part.masked is not None
        rows = slice(2 * rank, 2 * rank + 2)
        assert torch.equal(part.masked.targets, whole.masked.targets[rows])
        assert torch.equal(part.masked.seeds, whole.masked.seeds[rows])


def test_a_part_of_a_batch_is_the_batch_of_that_part(tmp_path: Path) -> None:
    whole = batches(tmp_path, 4).batch(0)
    first, second = whole.part(0, 2), whole.part(2, 4)
    assert torch.equal(torch.cat([first.raw, second.raw]), whole.raw)
    ids = whole.text.input_ids.flatten()
    for part, begin in ((first, 0), (second, 2)):
        own = part.text.input_ids.flatten()
        a, b = whole.text.bag_offsets[begin], whole.text.bag_offsets[begin + 2]
        assert len(part.text.bag_starts) == b - a
        start = whole.text.bag_starts[a]
        theirs = whole.text.token_index[start : start + len(part.text.token_index)]
        assert torch.equal(own[part.text.token_index], ids[theirs])
        assert torch.equal(part.own, torch.arange(2))
