"""The benchmark's named sets: each tests what its name says, and its figures are right."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from bagformer_cli.config import load_config
from bagformer_cli.data.attributes import answers, read_attributes
from bagformer_cli.data.muge import MugeFolder, iter_images, iter_queries
from bagformer_cli.data.query_sets import read_sets
from bagformer_cli.demo import write_benchmark
from bagformer_cli.demo.benchmark import RULES, SHARE, plan_sets
from bagformer_cli.demo.plan import (
    MOST_THINGS,
    Pictures,
    PlannedQuery,
    hold_out,
    plan_pictures,
)
from bagformer_cli.demo.set_figures import set_figures
from bagformer_cli.text.from_config import build_titles

HELD = hold_out(0)
POOL = 800


@cache
def pool(split: str = "benchmark-test") -> Pictures:
    return plan_pictures(split, POOL, HELD, 0)


@cache
def sets(split: str = "benchmark-test") -> dict[str, list[PlannedQuery]]:
    return plan_sets(split, pool(split), HELD, 0)


def test_every_set_is_large_enough_and_every_query_has_an_answer() -> None:
    assert list(sets()) == list(RULES)
    for name, queries in sets().items():
        assert len(queries) >= POOL // SHARE * (0.4 if name == "exchanged" else 0.9), name
        assert len({query.text for query in queries}) == len(queries)
        assert all(len(query.positions) for query in queries)


@pytest.mark.parametrize(("name", "things"), [("one", 1), ("two", 2), ("three", 3)])
def test_sets_name_as_many_things_as_they_say(name: str, things: int) -> None:
    assert {len(query.named) for query in sets()[name]} == {things}
    assert all(colour >= 0 for query in sets()[name] for _, colour, _, _ in query.named)


def test_exchanged_colours_are_in_the_pool() -> None:
    shown = [{(kind, colour) for kind, colour, *_ in pool().items(i)} for i in range(POOL)]
    for query in sets()["exchanged"]:
        (first, colour, *_), (second, other, *_) = query.named
        assert any({(first, other), (second, colour)} <= things for things in shown)


def test_parts_name_the_colour_of_a_part_and_unseen_what_training_never_shows() -> None:
    assert all(query.named[0][3] >= 0 for query in sets()["parts"])
    for query in sets()["unseen"]:
        kind, colour, pattern, _ = query.named[0]
        assert HELD.colours[kind, colour] or (pattern >= 0 and HELD.patterns[kind, pattern])


def test_titles_are_long_and_a_model_of_25_tokens_reads_the_goods() -> None:
    config = load_config("demo")
    titles = build_titles(config)
    bags = [len(titles.bags(query.text)) for query in sets()["titles"]]
    assert np.mean([count >= 10 for count in bags]) > 0.85
    assert np.mean(bags) > 10


def test_selection_and_claims_share_no_query_plan() -> None:
    assert not np.array_equal(pool("benchmark-valid").things, pool().things)


def test_an_exchange_is_what_a_ranker_without_binding_cannot_tell() -> None:
    """Two images, one query: the oracle knows the right one, a bag of attributes does not."""
    things = np.full((2, MOST_THINGS, 4), -1, np.int8)
    things[0, 0], things[0, 1] = (0, 1, 0, 2), (1, 3, 0, 2)
    things[1, 0], things[1, 1] = (0, 3, 0, 2), (1, 1, 0, 2)
    pictures = Pictures(things, np.zeros(2, bool))
    query = PlannedQuery("", ((0, 3, -1, -1), (1, 1, -1, -1)), np.array([1]))
    found = set_figures([query], pictures, np.full((2, 12), 1 / 12))
    assert found["oracle"] == 100
    assert found["unbound"] == pytest.approx(100 * 2 / 3, abs=0.1)  # second, so in the first five


def test_the_files_name_the_sets_and_all_answers_are_there(tmp_path: Path) -> None:
    write_benchmark(tmp_path / "bench", images=80, workers=1, size=32)
    folder = MugeFolder(tmp_path / "bench")
    assert folder.splits == ["valid", "test"]
    known = read_attributes(folder.path)
    for split in folder.splits:
        here = {
            number: known.images[number] for number, _ in iter_images(folder.images_path(split))
        }
        assert len(here) == 80
        asked = {one.query_id: one for one in iter_queries(folder.queries_path(split))}
        named = read_sets(folder.path, split)
        assert sorted(q for one in named.values() for q in one.queries) == sorted(asked)
        assert named["mixed"].figures["oracle"] == 100
        for one in named.values():
            for number in one.queries:
                wanted = [i for i in here if answers(here[i], known.queries[number])]
                assert list(asked[number].item_ids) == wanted
