"""The unigram tokenizer cuts as SentencePiece does, and its tokens cover the text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bagformer_cli.errors import InputError
from bagformer_cli.text.tokenizer import SPECIALS, Tokenizer
from bagformer_cli.text.unigram import UnigramTokenizer

PIECES = {
    "▁": -2,
    "红": -4,
    "色": -4,
    "红色": -5,
    "连衣裙": -6,
    "▁usb": -5,
    "u": -6,
    "s": -6,
    "b": -6,
}
TOKENIZER = UnigramTokenizer(
    [*SPECIALS, *PIECES], [*(0.0 for _ in SPECIALS), *map(float, PIECES.values())], True
)


def pieces(text: str) -> list[str]:
    return [TOKENIZER.vocabulary[i] for i in TOKENIZER.encode_batch([text]).ids]


def test_the_likeliest_cut_wins():
    assert pieces("红色连衣裙") == ["▁", "红色", "连衣裙"]
    assert pieces("usb红") == ["▁usb", "红"]
    assert pieces("红 usb") == ["▁", "红", "▁usb"]


def test_widths_are_folded_and_invisible_characters_left_out():
    assert pieces("红\u200b色") == ["▁", "红色"]
    assert pieces("ｕｓｂ") == ["▁usb"]
    spans = TOKENIZER.encode_batch(["红\u200b色"])
    assert (spans.starts[-1], spans.ends[-1]) == (0, 3)


@given(st.lists(st.text(alphabet="红色连衣裙usb ★\u200bＡ５\ud800", max_size=12), max_size=4))
def test_tokens_lie_inside_the_text_in_order(texts):
    found = TOKENIZER.encode_batch(texts)
    assert len(found.offsets) == len(texts) + 1
    for number, text in enumerate(texts):
        here = slice(found.offsets[number], found.offsets[number + 1])
        starts, ends = found.starts[here], found.ends[here]
        assert (np.diff(starts) >= 0).all()
        assert ((starts >= 0) & (starts < ends) & (ends <= len(text))).all()


def test_a_saved_vocabulary_is_read_as_the_same(tmp_path):
    TOKENIZER.save(tmp_path / "vocab.txt")
    again = Tokenizer.load(tmp_path).folding()
    assert isinstance(again, UnigramTokenizer)
    assert again.fingerprint == TOKENIZER.fingerprint
    assert again.folding(False).fingerprint != again.fingerprint


def test_a_line_without_a_probability_is_named(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\t0\n红\n")
    with pytest.raises(InputError) as error:
        Tokenizer.load(tmp_path)
    assert error.value.found == "2: 红"
