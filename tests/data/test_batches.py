"""Batches: the layout of titles, known positives, and sameness however they are made."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn import functional as F

from bagformer_cli.config import DataConfig
from bagformer_cli.data.batches import (
    Batch,
    TextBatch,
    image_batches,
    pixels_of,
    text_batches,
)
from bagformer_cli.data.images import CLIP_MEAN, CLIP_STD, decode, resize
from bagformer_cli.data.positives import Positives, text_hash
from bagformer_cli.data.sampler import Sampling
from bagformer_cli.data.store import preprocess as stages
from bagformer_cli.data.store import split as store_split
from bagformer_cli.data.store.preprocess import preprocess
from bagformer_cli.data.store.split import Split
from bagformer_cli.data.train_batches import TrainBatches
from bagformer_cli.errors import InputError
from bagformer_cli.text.bags import TokenBags
from tests.data.test_images import png_header
from tests.data.test_store import Characters
from tests.support.datasets import picture, write_split

# ---------------------------------------------------------------------------------------- titles


def packed(titles: Sequence[Sequence[Sequence[int]]]) -> TokenBags:
    """Titles as lists of bags of token ids; [CLS] is 101, [SEP] 102."""
    ids: list[int] = []
    token_offsets, bag_offsets, starts, ends = [0], [0], [], []
    for bags in titles:
        ids.append(101)
        for bag in bags:
            starts.append(len(ids))
            ids += bag
            ends.append(len(ids))
        ids.append(102)
        token_offsets.append(len(ids))
        bag_offsets.append(len(starts))
    whole = (np.array(values, np.int64) for values in (token_offsets, starts, ends, bag_offsets))
    return TokenBags(np.array(ids, np.int32), *whole)


def test_a_text_batch_by_hand() -> None:
    batch = TextBatch.from_tokens(packed([[[5, 6], [7]], [[8]], [[9], [3, 4, 2]]]), pad_id=0)
    assert batch.input_ids.tolist() == [
        [101, 5, 6, 7, 102, 0],
        [101, 8, 102, 0, 0, 0],
        [101, 9, 3, 4, 2, 102],
    ]
    assert batch.attention_mask.tolist() == [
        [True] * 5 + [False],
        [True] * 3 + [False] * 3,
        [True] * 6,
    ]
    assert batch.token_index.tolist() == [1, 2, 3, 7, 13, 14, 15, 16]
    assert batch.bag_starts.tolist() == [0, 2, 3, 4, 5]
    assert batch.bag_offsets.tolist() == [0, 2, 3, 5]


titles = st.lists(
    st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=4), min_size=1, max_size=4),
    min_size=1,
    max_size=6,
)


@given(titles)
def test_embedding_bag_over_the_layout_sums_each_bag(lists: list[list[list[int]]]) -> None:
    batch = TextBatch.from_tokens(packed(lists), pad_id=0)
    values = batch.input_ids.double().reshape(-1, 1)
    sums = F.embedding_bag(batch.token_index, values, batch.bag_starts, mode="sum")
    expected = [[float(sum(bag)) for bag in bags] for bags in lists]
    found = [
        sums[batch.bag_offsets[i] : batch.bag_offsets[i + 1], 0].tolist() for i in range(len(lists))
    ]
    assert found == expected


@given(titles)
def test_a_title_does_not_depend_on_its_batch_mates(lists: list[list[list[int]]]) -> None:
    together = TextBatch.from_tokens(packed(lists), pad_id=0)
    for row, bags in enumerate(lists):
        alone = TextBatch.from_tokens(packed([bags]), pad_id=0)
        length = alone.input_ids.shape[1]
        assert torch.equal(together.input_ids[row, :length], alone.input_ids[0])
        assert not together.attention_mask[row, length:].any()


def test_no_titles_make_an_empty_batch() -> None:
    batch = TextBatch.from_tokens(packed([]), pad_id=0)
    assert len(batch) == 0
    assert batch.bag_offsets.tolist() == [0]


def test_text_batches_hold_every_title_once() -> None:
    tokens = packed([[[number]] for number in range(1, 8)])
    found = list(text_batches(tokens, 3, pad_id=0))
    assert [len(batch) for batch in found] == [3, 3, 1]
    assert torch.cat([batch.input_ids[:, 1] for batch in found]).tolist() == list(range(1, 8))


# ------------------------------------------------------------------------------------- positives


def test_positives_by_id_by_equal_title_and_by_equal_image() -> None:
    """Query 0 → image 0. Query 1 has the title of 0; image 1 is the picture of image 0."""
    found = Positives.build(
        ["Red  Dress", "red dress ", "bag", "hat"],
        image_hash=np.array([11, 11, 22, 33]),
        item_offsets=np.array([0, 1, 2, 3, 3]),
        items=np.array([0, 2, 3]),
    )
    everything = found.matrix(found.text_groups, found.image_groups)
    assert everything.tolist() == [
        [True, True, True, False],
        [True, True, True, False],
        [False, False, False, True],
        [False, False, False, False],
    ]


def test_titles_that_differ_in_white_space_and_case_are_equal() -> None:
    assert text_hash(" 红色\t连衣裙  NIKE") == text_hash("红色 连衣裙 nike ")
    assert text_hash("红色连衣裙") != text_hash("红色 连衣裙")


@given(st.data())
def test_positives_equal_those_of_a_slow_search(data: st.DataObject) -> None:
    queries, images = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    texts = [
        str(n) for n in data.draw(st.lists(st.integers(0, 3), min_size=queries, max_size=queries))
    ]
    hashes = np.array(data.draw(st.lists(st.integers(0, 3), min_size=images, max_size=images)))
    answers = [
        data.draw(st.lists(st.integers(0, images - 1), unique=True, max_size=3)) for _ in texts
    ]
    offsets = np.cumsum([0, *map(len, answers)])
    items = np.array([item for answer in answers for item in answer], np.int64)
    found = Positives.build(texts, hashes, offsets, items)
    matching = {(texts[q], hashes[i]) for q, answer in enumerate(answers) for i in answer}
    slow = [[(text, value) in matching for value in hashes] for text in texts]
    assert found.matrix(found.text_groups, found.image_groups).tolist() == slow


# -------------------------------------------------------------------------------------- training


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    queries = [(q, f"标题{'甲乙丙丁'[q % 4]}{q}", (q, (q + 1) % 9)) for q in range(9)]
    images = [(n, picture(n, (40, 30), "JPEG")) for n in range(12)]
    folder = write_split(tmp_path_factory.mktemp("data"), "train", queries, images)
    return preprocess(folder, encoder=Characters()).split("train")


def make(split: Split, batch_size: int = 4, **options: object) -> TrainBatches:
    names = {"rank", "world_size", "seed"}
    own = {name: value for name, value in options.items() if name in names}
    config = {name: value for name, value in options.items() if name not in names}
    settings = DataConfig.model_validate({"workers": 0, **config})
    sampling = Sampling(batch_size, **{"seed": 3, **own})  # type: ignore[arg-type]
    return TrainBatches(split, settings, sampling, image_size=16, pad_id=0)


def evaluation_pixels(data: bytes, size: int, size_hint: int | None = None) -> NDArray[np.float32]:
    """Decode, resize and normalise with numpy: [3, S, S]."""
    pixels = resize(decode(data, size_hint), size).astype(np.float32) / np.float32(255)
    pixels = (pixels - np.float32(CLIP_MEAN)) / np.float32(CLIP_STD)
    return np.moveaxis(pixels, -1, -3)


def same(one: Batch, two: Batch) -> bool:
    pairs = [
        (one.raw, two.raw),
        (one.text.input_ids, two.text.input_ids),
        (one.positives, two.positives),
        (one.query_ids, two.query_ids),
        (one.image_ids, two.image_ids),
    ]
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_batch_holds_pairs_that_belong_together(split: Split) -> None:
    for batch in islice(make(split).iterate(), 8):
        assert len(batch) == 4
        assert batch.raw.shape == (4, 16, 16, 3)
        assert batch.pixels().shape == (4, 3, 16, 16)
        assert batch.positives.diagonal().all()
        for row in range(4):
            query, image = int(batch.query_ids[row]), int(batch.image_ids[row])
            assert image in {query, (query + 1) % 9}
            title = split.texts[query]
            own = batch.text.input_ids[row]
            assert own[1 : 1 + len(title)].tolist() == [ord(c) for c in title]
            answers = {query, (query + 1) % 9}
            assert batch.positives[row].tolist() == [int(i) in answers for i in batch.image_ids]


def test_an_epoch_holds_no_pair_twice_and_the_next_has_another_order(split: Split) -> None:
    train = make(split)
    assert train.per_epoch == 4  # 18 pairs in fours; the last two are left out
    epochs = []
    for epoch in range(2):
        batches = islice(train.iterate(epoch * 4), 4)
        pairs = [
            pair
            for batch in batches
            for pair in zip(batch.query_ids.tolist(), batch.image_ids.tolist(), strict=True)
        ]
        assert len(set(pairs)) == 16
        epochs.append(pairs)
    assert epochs[0] != epochs[1]


def test_workers_cache_and_resumption_change_nothing(split: Split) -> None:
    """Batch n is bit-equal whether made alone, by threads, from memory, or after a new start."""
    expected = list(islice(make(split).iterate(), 10))
    others = [
        list(islice(make(split, workers=3).iterate(), 10)),
        list(islice(make(split).iterate(0), 5)) + list(islice(make(split).iterate(5), 5)),
        [make(split).batch(number) for number in range(10)],
    ]
    again = make(split)
    list(islice(again.iterate(), 10))
    others.append(list(islice(again.iterate(), 10)))
    for other in others:
        assert all(same(a, b) for a, b in zip(expected, other, strict=True))
    assert not same(expected[0], make(split, seed=4).batch(0))


def test_images_that_do_not_fit_the_memory_are_decoded_each_time(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []

    def counting(data: bytes, hint: int, *, as_original: bool) -> object:
        decoded.append(data)
        return decode(data, hint, as_original=as_original)

    monkeypatch.setattr(store_split, "decode", counting)
    list(islice(make(split).iterate(), 12))
    assert len(decoded) == 9  # as many as there are images with a query
    decoded.clear()
    list(islice(make(split, cache_mb=0).iterate(), 12))
    assert len(decoded) == 48


def test_without_variation_training_sees_what_evaluation_sees(split: Split) -> None:
    batch = make(split, augment=None, cache_mb=0).batch(0)
    for row, image in enumerate(batch.image_ids.tolist()):
        expected = evaluation_pixels(split.image_bytes(image), 16, size_hint=16)
        np.testing.assert_array_equal(batch.pixels()[row].numpy(), expected)


def test_ranks_share_the_batches_of_one_process(split: Split) -> None:
    whole = make(split, batch_size=8)
    parts = [make(split, batch_size=4, rank=rank, world_size=2) for rank in range(2)]
    assert [part.per_epoch for part in parts] == [whole.per_epoch] * 2
    for number in range(5):
        one, two = (part.batch(number) for part in parts)
        both = whole.batch(number)
        assert torch.equal(torch.cat([one.query_ids, two.query_ids]), both.query_ids)
        assert torch.equal(torch.cat([one.raw, two.raw]), both.raw)


def test_too_few_pairs_for_a_batch_is_a_clear_error(split: Split) -> None:
    with pytest.raises(InputError, match="not enough pairs") as caught:
        make(split, batch_size=19)
    assert caught.value.where == f"{split.dataset}, split train"
    assert ".xmr" not in str(caught.value)


def test_an_image_that_breaks_only_when_decoded_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "verify", lambda data: None)  # as if it broke after preprocessing
    broken = png_header(64, 64)
    folder = write_split(tmp_path, "train", [(1, "a", (5,)), (2, "b", (5,))], [(5, broken)])
    split = preprocess(folder, encoder=Characters()).split("train")
    with pytest.raises(InputError, match="image 5"):
        next(make(split, batch_size=2, workers=2).iterate())


def test_a_reader_that_stops_early_leaves_no_thread_behind(split: Split) -> None:
    import threading

    stream = make(split, workers=3).iterate()
    next(stream)
    stream.close()
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("batches")]


# ------------------------------------------------------------------------------------ evaluation


@pytest.mark.parametrize("workers", [0, 2, None])
def test_evaluation_sees_every_image_in_order(split: Split, workers: int | None) -> None:
    found = list(image_batches(split, 16, 5, workers=workers))
    assert [len(batch) for batch in found] == [5, 5, 2]
    expected = np.stack([evaluation_pixels(split.image_bytes(i), 16) for i in range(12)])
    np.testing.assert_array_equal(torch.cat(found).numpy(), expected)


def test_one_image_is_the_same_alone(split: Split) -> None:
    data = split.image_bytes(3)
    np.testing.assert_array_equal(pixels_of(decode(data), 16).numpy(), evaluation_pixels(data, 16))


def test_batches_move_to_another_device(split: Split) -> None:
    moved = make(split).batch(0).to("meta")
    assert moved.raw.device.type == moved.text.token_index.device.type == "meta"
    assert moved.pixels().shape == (4, 3, 16, 16)
