"""What the demo set asks: unseen combinations, near misses, complete answers, honest words."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter
from functools import cache

import numpy as np
import pytest

from bagformer_cli.data.attributes import answers
from bagformer_cli.demo.difficulty import mean_recall, oracle_scores
from bagformer_cli.demo.kinds import KINDS
from bagformer_cli.demo.palette import COLOURS, PATTERNS, SOLID
from bagformer_cli.demo.plan import (
    Answers,
    Pictures,
    PlannedQuery,
    hold_out,
    plan_pictures,
    plan_queries,
    split_sizes,
    thing_of,
)
from bagformer_cli.demo.scene import Item
from bagformer_cli.demo.titles import BRANDS, buyer_query, phrase, seller_title

HELD = hold_out(0)


@cache
def pictures(split: str) -> Pictures:
    return plan_pictures(split, split_sizes(3000)[split], HELD, 0)


@cache
def queries(split: str) -> list[PlannedQuery]:
    return list(plan_queries(split, pictures(split), 0))


def shown(split: str) -> list[Item]:
    """All things in a split's pictures."""
    things = pictures(split).things.reshape(-1, 4)
    return [(k, c, p, part) for k, c, p, part in things[things[:, 0] >= 0].tolist()]


def test_the_default_set_is_large_enough() -> None:
    assert split_sizes(3000) == {"train": 2000, "valid": 640, "test": 360}
    assert len(pictures("valid")) >= 600
    assert len(queries("valid")) >= 300
    answered = np.mean([len(query.positions) for query in queries("valid")])
    assert answered / len(pictures("valid")) < 0.01, "chance R@1 is below 1 %"


@pytest.mark.parametrize("images", [60, 61, 100, 1000, 100_000])
def test_the_splits_are_all_the_pictures(images: int) -> None:
    sizes = split_sizes(images)
    assert sum(sizes.values()) == images
    assert sizes["train"] > sizes["valid"] >= sizes["test"] >= 10


@pytest.mark.parametrize("split", ["valid", "test"])
def test_all_that_validation_shows_is_a_combination_training_never_shows(split: str) -> None:
    seen = {(kind, colour, pattern) for kind, colour, pattern, _ in shown("train")}
    for kind, colour, pattern, _ in shown(split):
        assert (kind, colour, pattern) not in seen


@pytest.mark.parametrize("split", ["valid", "test"])
def test_many_questions_are_about_a_pair_training_never_shows(split: str) -> None:
    """The kind in that colour at all, or in that pattern."""
    seen = {("colour", k, c) for k, c, _, _ in shown("train")}
    seen |= {("pattern", k, p) for k, _, p, _ in shown("train")}
    new = 0
    for query in queries(split):
        asked = {("colour", k, c) for k, c, _, _ in query.named if c >= 0}
        asked |= {("pattern", k, p) for k, _, p, _ in query.named if p >= 0}
        new += bool(asked - seen)
    assert new > len(queries(split)) * 0.15


def test_what_is_held_out_is_spread_evenly() -> None:
    assert (HELD.colours.sum(1) == 1).all()
    assert (HELD.patterns.sum(1) == 1).all()
    assert not HELD.patterns[:, SOLID].any()
    assert np.ptp(HELD.colours.sum(0)) <= 2
    assert HELD.triples[HELD.colours].all()
    assert HELD.triples.transpose(0, 2, 1)[HELD.patterns].all()
    assert 0.3 < HELD.triples.mean() < 0.55
    assert HELD.triples.any((1, 2)).all()


def test_what_is_asked_was_seen_in_form() -> None:
    """Each kind, colour and pattern by itself is well known from training."""
    things = np.array(shown("train"))
    for column, amount, least in ((0, len(KINDS), 30), (1, len(COLOURS), 150), (2, 8, 150)):
        assert np.bincount(things[:, column], minlength=amount).min() > least


@pytest.mark.parametrize("split", ["valid", "test"])
def test_the_answers_are_complete(split: str) -> None:
    pool = [
        [thing_of(item) for item in pictures(split).items(i)] for i in range(len(pictures(split)))
    ]
    for query in queries(split):
        named = [thing_of(item) for item in query.named]
        expected = [i for i, things in enumerate(pool) if answers(things, named)]
        assert query.positions.tolist() == expected
        assert expected


def test_training_answers_are_complete_too() -> None:
    pool = [[thing_of(item) for item in pictures("train").items(i)] for i in range(2000)]
    for query in random.Random(0).sample(queries("train"), 150):
        named = [thing_of(item) for item in query.named]
        expected = [i for i, things in enumerate(pool) if answers(things, named)]
        assert query.positions.tolist() == expected


def test_an_oracle_is_nearly_perfect() -> None:
    pool = [[thing_of(item) for item in pictures("valid").items(i)] for i in range(640)]
    asked = queries("valid")[:250]
    named = [[thing_of(item) for item in query.named] for query in asked]
    recall = mean_recall(oracle_scores(named, pool), [query.positions.tolist() for query in asked])
    assert recall > 95


def test_mean_recall_by_hand() -> None:
    scores = np.array([[3.0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0], [0.0] * 11])
    # the first query's answer is third; of equal scores the earlier image comes first
    assert mean_recall(scores, [[2], [0]]) == pytest.approx(100 * (0.5 + 1 + 1) / 3)
    assert mean_recall(scores, [[2], [10]]) == pytest.approx(100 * (0 + 0.5 + 0.5) / 3)


def test_many_pictures_hold_several_things_of_different_kinds_and_colours() -> None:
    counts: Counter[int] = Counter()
    for i in range(2000):
        items = pictures("train").items(i)
        counts[len(items)] += 1
        assert len({item[0] for item in items}) == len(items)
        assert len({item[1] for item in items}) == len(items)
        assert all(part != colour for _, colour, _, part in items)
    assert counts[2] + counts[3] > 800
    assert min(counts.values()) > 200


@pytest.mark.parametrize("split", ["train", "valid"])
def test_near_misses_are_in_the_pool(split: str) -> None:
    """The same kinds with the same colours, but exchanged."""
    seen: dict[tuple[tuple[int, ...], tuple[int, ...]], set[tuple[int, ...]]] = {}
    for i in range(len(pictures(split))):
        items = sorted(pictures(split).items(i))
        if len(items) > 1:
            kinds = tuple(item[0] for item in items)
            colours = tuple(item[1] for item in items)
            seen.setdefault((kinds, tuple(sorted(colours))), set()).add(colours)
    exchanged = sum(len(orders) > 1 for orders in seen.values())
    assert exchanged > len(pictures(split)) * 0.03


def test_some_questions_have_several_answers_and_some_name_two_things() -> None:
    asked = queries("valid")
    assert sum(len(query.positions) > 1 for query in asked) > len(asked) * 0.25
    two = sum(len(query.named) == 2 for query in asked)
    assert len(asked) * 0.12 < two < len(asked) * 0.7
    assert max(len(query.named) for query in asked) == 3
    for column in (1, 2, 3):
        assert any(item[column] >= 0 for query in asked for item in query.named)


def test_no_text_is_there_twice() -> None:
    for split in ("train", "valid", "test"):
        texts = [query.text for query in queries(split)]
        assert len(set(texts)) == len(texts)


def test_a_seed_makes_the_plan() -> None:
    again = plan_pictures("test", 360, hold_out(0), 0)
    assert (again.things == pictures("test").things).all()
    other = plan_pictures("test", 360, hold_out(1), 1)
    assert (other.things != pictures("test").things).any()


def test_a_large_plan_is_small() -> None:
    tracemalloc.start()
    try:
        plan = plan_pictures("train", 5000, HELD, 0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(plan) == 5000
    assert peak < 5000 * 150, "bytes for a picture"


def test_answers_by_hand() -> None:
    nothing = [-1, -1, -1, -1]
    plan = Pictures(
        np.array(
            [
                [[3, 0, 2, 1], [18, 5, 0, 1], nothing],
                [[3, 5, 2, 1], [18, 0, 0, 1], nothing],
                [[3, 0, 0, 4], nothing, nothing],
            ],
            np.int8,
        ),
        np.zeros(3, bool),
    )
    find = Answers(plan)
    assert find.of([(3, -1, -1, -1)]).tolist() == [0, 1, 2]
    assert find.of([(3, 0, -1, -1)]).tolist() == [0, 2]
    assert find.of([(3, 0, 2, -1)]).tolist() == [0]
    assert find.of([(3, 0, -1, 4)]).tolist() == [2]
    assert find.of([(3, 0, -1, -1), (18, 5, -1, -1)]).tolist() == [0]
    assert find.of([(3, 0, -1, -1), (18, 0, -1, -1)]).tolist() == []
    assert find.of([(7, -1, -1, -1)]).tolist() == []


def test_a_phrase_in_each_word_order() -> None:
    class Plain(random.Random):
        def random(self) -> float:
            return 0.5

    dress = [kind.key for kind in KINDS].index("dress")
    said = [phrase((dress, 0, 1, -1), order, Plain(0)) for order in range(4)]
    assert said == ["红色条纹连衣裙", "条纹红色连衣裙", "连衣裙 红色条纹", "红色连衣裙条纹"]
    assert phrase((dress, 0, -1, -1), 2, Plain(0)) == "连衣裙 红色"
    assert phrase((dress, -1, 4, -1), 3, Plain(0)) == "碎花连衣裙"
    assert phrase((dress, -1, -1, -1), 2, Plain(0)) == "连衣裙"
    assert phrase((dress, 0, -1, 2), 0, Plain(0)).endswith("黄色腰带")


@pytest.mark.parametrize("seed", range(40))
def test_titles_and_queries_say_what_they_name(seed: int) -> None:
    rng = random.Random(seed)
    kinds = rng.sample(range(len(KINDS)), 3)
    named = [(k, rng.randrange(12), rng.randrange(8), -1) for k in kinds]
    title = seller_title(named, gift=seed % 2 == 0, rng=rng)
    query = buyer_query(named[:2], rng)
    for text, things in ((title, named), (query, named[:2])):
        assert text == text.strip()
        for kind, colour, pattern, _ in things:
            for entry in (KINDS[kind], COLOURS[colour], PATTERNS[pattern]):
                assert any(name in text for name in (entry.name, *entry.others)), text
    assert len(query) < 32
    assert len(title) < 70


def test_titles_are_noisy_in_many_ways() -> None:
    titles = [query.text for query in queries("train") if any(b in query.text for b in BRANDS)]
    assert len(titles) > 600
    text = "\n".join(titles)
    for words in (
        BRANDS,
        ("2024", "25年"),
        ("女", "儿童"),
        ("包邮", "爆款"),
        ("套装", "三件套"),
        "【「[",
    ):
        assert any(word in text for word in words)
    assert any(char.isdigit() and char.isascii() for char in text)
    assert np.mean([len(title) for title in titles]) > 15


def test_half_of_the_default_queries_name_several_things() -> None:
    asked = Counter(len(query.named) for split in ("valid", "test") for query in queries(split))
    assert 0.46 < (asked[2] + asked[3]) / asked.total() < 0.56
    assert asked[3] > 80
