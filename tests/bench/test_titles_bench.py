"""The ways `xmr bench titles` compares: they do the same work, and the table shows all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bagformer_cli.bench import titles as bench
from bagformer_cli.bench.plain_titles import CachedTitles, PlainTitles
from bagformer_cli.original.text import EntityMatcher
from tests.text.test_bags import encoder

WORDS = ["红色", "红色连", "连衣裙", "动车", "电动车", "电动", "手机壳", "手机", "手机壳膜"]
TITLES = ["红色连衣裙 2件", "电动车手机壳膜", "iPhone 15手机壳", "Café-裙，红色红色", "", "手" * 40]


@pytest.mark.parametrize("title", TITLES)
def test_both_plain_tokenizers_give_the_ids_of_ours(title: str) -> None:
    tokenizer = encoder().tokenizer
    ids = tokenizer.encode_batch([title]).ids.tolist()
    assert PlainTitles(tokenizer, WORDS).tokenize(title) == ids
    assert CachedTitles(tokenizer, WORDS).tokenize("".join(title.split("é"))) == (
        tokenizer.encode_batch(["".join(title.split("é"))]).ids.tolist()
    )


@pytest.mark.parametrize("title", TITLES)
def test_the_plain_matching_loop_leaves_the_originals_bags(title: str) -> None:
    tokenizer = encoder().tokenizer
    plain = PlainTitles(tokenizer, WORDS)
    starts, mask = plain.bags(title)
    padded = tokenizer.encode_batch([title]).ids[:24].tolist()
    padded = [tokenizer.cls_id, *padded] + [tokenizer.pad_id] * (24 - len(padded))
    matcher = EntityMatcher(tokenizer.encode_batch(WORDS))
    assert starts == matcher.boundaries(np.array(padded, np.int32))
    assert len(mask) == len(starts)
    assert not mask[0]


def test_the_bare_automaton_finds_the_leftmost_longest_entries() -> None:
    cached = CachedTitles(encoder().tokenizer, WORDS)
    found = [(end + 1, WORDS[number]) for end, number in cached.matches("电动车手机壳红色连衣裙")]
    assert found == [(3, "电动车"), (6, "手机壳"), (9, "红色连")]


def test_the_table_has_every_way_and_its_ratios() -> None:
    rows = bench.run(encoder(), TITLES[:4] * 200, WORDS, rounds=1)
    assert rows[0].speedup == 1
    assert rows[1].time_of_floor == 1
    assert rows[2].name.startswith("xmr")
    for row in rows:
        assert row.speedup == pytest.approx(row.titles_per_second / rows[0].titles_per_second)
        assert row.time_of_floor == pytest.approx(rows[1].titles_per_second / row.titles_per_second)


def test_xmr_bench_titles(
    xmr: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bagformer_cli.cli import bench as command

    monkeypatch.setattr(command, "TITLES", 50)
    titles, words = tmp_path / "titles.txt", tmp_path / "words.txt"
    titles.write_text("\n".join(TITLES), "utf-8")
    words.write_text("\n".join(WORDS), "utf-8")
    options = ("--titles", titles, "--no-builtin", "--lexicon", words)
    found = xmr("bench", "titles", *options, "--json").json()
    assert found["dictionary"]["entries"] == len(WORDS)
    assert len(found["titles"]) == 9
    assert xmr("bench", "titles", "--titles", titles, "--no-builtin").code == 2
