"""``compat: bagformer``: matching, layout of bags and masks, worked by hand on a small model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bagformer_cli.config import load_config
from bagformer_cli.data.batches import TextBatch
from bagformer_cli.encoders.states import States
from bagformer_cli.models.build import RetrievalModel, build_model
from bagformer_cli.models.cross_encoders import MatchingHead
from bagformer_cli.models.dual import DualEncoder, Encoded
from bagformer_cli.original.model import CompatDualEncoder, CompatMatchingHead, lay_out
from bagformer_cli.original.text import CompatSegmenter, CompatTitleEncoder, EntityMatcher, WordList
from bagformer_cli.text.tokenizer import Tokenizer
from bagformer_cli.text.wordpiece import PackedTokens
from tests.support.original_weights import VOCABULARY

TINY = {
    "text": {"layers": 1, "width": 32, "heads": 2, "feed_forward": 48},
    "image": {
        "size": 32,
        "options": {"patch_size": 16, "embed_dim": 32, "depth": 1, "num_heads": 2},
    },
    "model": {"embed_dim": 16, "cross": {"layers": 1}},
}


def matcher(*entries: tuple[int, ...]) -> EntityMatcher:
    flat = np.array([token for entry in entries for token in entry], np.int32)
    offsets = np.cumsum([0, *map(len, entries)])
    return EntityMatcher(PackedTokens(ids=flat, starts=flat, ends=flat, offsets=offsets))


def words(*entries: str) -> CompatSegmenter:
    return CompatSegmenter(WordList(entries), Tokenizer(VOCABULARY))


def test_an_entry_is_found_only_if_its_beginnings_are_entries() -> None:
    found = matcher((1, 2, 3), (4, 5), (4, 5, 6), (7, 8, 9, 10), (7, 8), (11,))
    ids = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], np.int32)
    # 1-2-3 never: 1-2 is no entry. 7-8-9-10 never: 7-8-9 is none. 11: one token is no entity.
    assert list(found.entities(ids)) == [(3, 6), (6, 8)]
    assert len(found) == 3


def test_the_leftmost_entity_wins_then_the_longest() -> None:
    found = matcher((1, 2), (2, 3), (2, 3, 4))
    assert list(found.entities(np.array([1, 2, 3, 4], np.int32))) == [(0, 2)]
    assert list(found.entities(np.array([9, 2, 3, 4], np.int32))) == [(1, 4)]


def test_an_entity_leaves_both_its_ends_as_boundaries() -> None:
    found = matcher((1, 2), (3, 4))
    assert found.boundaries(np.array([0, 1, 2, 5, 6], np.int32)) == [0, 1, 3, 4]
    assert found.boundaries(np.array([0, 1, 2, 3, 4, 5], np.int32)) == [0, 1, 3, 3, 5]
    assert found.boundaries(np.array([0, 5, 1, 2], np.int32)) == [0, 1, 2, 4]
    assert found.boundaries(np.array([1, 2, 1, 2], np.int32)) == [0, 2, 2, 4]
    assert found.boundaries(np.array([5], np.int32)) == [0]


def test_the_bags_shown_are_pieces_of_the_title() -> None:
    titles = CompatTitleEncoder(
        Tokenizer(VOCABULARY), words("动车", "头盔", "电动车"), max_tokens=7, add_sep=False
    )
    bags = titles.bags("电动车 头盔红裙")
    assert [(bag.text, bag.source) for bag in bags] == [
        ("电", "token"),
        ("动车", "lexicon"),
        ("头盔", "lexicon"),
        ("红", "token"),
    ]
    assert [bag.text for bag in titles.bags("电动车 头盔红裙", whole=True)][-1] == "裙"


def test_titles_do_not_depend_on_each_other() -> None:
    titles = CompatTitleEncoder(Tokenizer(VOCABULARY), words("动车", "连衣"), 7, False)
    texts = ["电动车", "", "连衣裙动车", "女"]
    together = titles(texts)
    for i, text in enumerate(texts):
        alone, same = titles([text]), together.select([i])
        assert alone.ids.tolist() == same.ids.tolist()
        assert alone.bag_starts.tolist() == same.bag_starts.tolist()
        assert alone.bag_ends.tolist() == same.bag_ends.tolist()


def test_every_padding_position_is_a_bag_and_neighbours_have_an_empty_one_between_them() -> None:
    titles = CompatTitleEncoder(Tokenizer(VOCABULARY), words("动车", "头盔"), 8, False)
    batch = TextBatch.from_tokens(titles(["电动车头盔", "女"]), pad_id=0)
    at = lay_out(batch, 8, pad_id=0)
    # [CLS] 电 |动 车| empty |头 盔| [PAD] [PAD]; [CLS] 女 and six of [PAD]
    assert at.offsets.tolist() == [0, 1, 2, 4, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
    assert at.present.sum(dim=1).tolist() == [7, 8]
    assert at.mask.int().tolist() == [[0, 1, 1, 1, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0, 0]]
    assert at.attention_mask.sum(dim=1).tolist() == [6, 2]
    sums = at.sum_bags(torch.arange(16.0).reshape(2, 8, 1))[..., 0]
    assert sums[0].tolist() == [0, 1, 2 + 3, 0, 4 + 5, 6, 7, 0]
    assert sums[1].tolist() == [8, 9, 10, 11, 12, 13, 14, 15]


def test_an_entity_at_the_very_end_leaves_an_empty_bag_behind_it() -> None:
    titles = CompatTitleEncoder(Tokenizer(VOCABULARY), words("动车"), 4, False)
    at = lay_out(TextBatch.from_tokens(titles(["电动车", "女"]), 0), 4, 0)
    assert at.offsets.tolist() == [0, 1, 2, 4, 4, 5, 6, 7]
    assert at.mask[0].tolist() == [False, True, True, True]


def test_special_words_in_a_title_are_masked_like_padding_but_attended_to() -> None:
    titles = CompatTitleEncoder(Tokenizer(VOCABULARY), words(), 6, True)
    at = lay_out(TextBatch.from_tokens(titles(["女[PAD]裙[CLS]"]), 0), 6, 0)
    assert at.input_ids.tolist() == [[2, 8, 0, 7, 2, 3]]
    assert at.attention_mask.all()
    assert at.mask[0].tolist() == [False, True, False, True, False, True]  # [SEP] is not masked


def tiny(compat: str | None = "bagformer", **model: Any) -> RetrievalModel:
    settings: dict[str, Any] = {**TINY, "compat": compat, "model": {**TINY["model"], **model}}
    config = load_config(settings)
    tokenizer = Tokenizer(VOCABULARY)
    titles = CompatTitleEncoder(tokenizer, words("动车", "头盔"), 25, False)
    torch.manual_seed(0)
    return build_model(config, titles).eval()


def encode(model: RetrievalModel, titles: list[str]) -> Encoded:
    batch = TextBatch.from_tokens(model.titles(titles), model.titles.tokenizer.pad_id)
    return model.dual.encode_texts(batch)


def test_the_configuration_alone_decides() -> None:
    compat, normal = tiny(), tiny(compat=None)
    assert isinstance(compat.dual, CompatDualEncoder)
    assert isinstance(compat.cross, CompatMatchingHead)
    assert type(normal.dual) is DualEncoder
    assert type(normal.cross) is MatchingHead
    assert compat.state_dict().keys() == normal.state_dict().keys()


@pytest.mark.parametrize("interaction", ["cls", "tokenwise", "bagwise"])
@pytest.mark.parametrize("fusion", ["early", "late"])
@torch.inference_mode()
def test_a_score_does_not_depend_on_batch_mates(interaction: str, fusion: str) -> None:
    model = tiny(interaction=interaction, bag_fusion=fusion)
    titles = ["电动车头盔", "女", "", "红色连衣裙女" * 5]
    together = encode(model, titles)
    for i, title in enumerate(titles):
        alone = encode(model, [title])
        torch.testing.assert_close(alone.vectors.values, together.vectors[i].values)
        torch.testing.assert_close(alone.states.values[0], together.states.values[i])
        assert torch.isfinite(alone.states.values).all()


@torch.inference_mode()
def test_a_title_that_is_masked_altogether_still_has_a_slow_score() -> None:
    model = tiny(bag_fusion="early")
    encoded = encode(model, [""])
    assert not encoded.states.kept.any()
    assert model.cross is not None
    score = model.cross.score(encoded.states, States(torch.randn(1, 5, 32)))
    assert torch.isfinite(score).all()


@torch.inference_mode()
def test_the_slow_score_sees_images_in_half_precision_but_not_in_training() -> None:
    model = tiny()
    encoded = encode(model, ["女"])
    head: Any = model.cross
    exact = torch.full((1, 5, 32), 1.0) + torch.randn(1, 5, 32) * 1e-4
    rounded = exact.half().float()
    assert not torch.equal(exact, rounded)

    def score(images: Tensor) -> Tensor:
        scores: Tensor = head.score(encoded.states, States(images))
        return scores

    torch.testing.assert_close(score(exact), score(rounded), rtol=0, atol=0)
    head.training = True
    assert not torch.equal(score(exact), score(rounded))
