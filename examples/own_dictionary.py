"""Give your own words to the segmenter, and see which titles they change.

    python examples/own_dictionary.py

A dictionary is a TSV of word and type. Words of your own list win against the shipped words that
they consist of. `xmr train` takes it as text.lexicons, `xmr bags` as --lexicon.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from bagformer_cli.text.lexicon import Lexicon
from bagformer_cli.text.segmenter import Segmenter

WORDS = "山茶拾光\tbrand\n云感被\tcategory\n"
TITLES = ["山茶拾光奶油风床上四件套", "云感被冬季加厚", "红色连衣裙"]


def main() -> None:
    """Cut titles without and with the own words."""
    with tempfile.TemporaryDirectory() as folder:
        words = Path(folder) / "words.tsv"
        words.write_text(WORDS, encoding="utf-8")
        lexicons = [Lexicon.load(), Lexicon.load(["builtin", words])]
    for remark in lexicons[1].remarks:  # lines that were left out, words with two types
        print(remark)
    before, after = (Segmenter(lexicon) for lexicon in lexicons)
    for title in TITLES:
        old = [bag.text for bag in before.unpack([title], before.segment_batch([title]))[0]]
        new = [bag.text for bag in after.unpack([title], after.segment_batch([title]))[0]]
        changed = "" if old == new else f"   (before: {'|'.join(old)})"
        print(f"{'|'.join(new)}{changed}")


if __name__ == "__main__":
    main()
