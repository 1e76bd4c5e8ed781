"""WordPiece: BERT's ids for any text, spans that point into the title."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bagformer_cli.config import load_config, save_config
from bagformer_cli.errors import InputError
from bagformer_cli.text import jit as kernels
from bagformer_cli.text.characters import (
    UNSURE,
    is_invisible,
    width_forms,
    without_invisible,
    wordpiece_tables,
)
from bagformer_cli.text.from_config import title_encoder
from bagformer_cli.text.tokenizer import SPECIALS, Tokenizer
from bagformer_cli.text.tools.make_vocab import vocabulary

TOKENIZER = Tokenizer.load()

TITLES = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from(
            "红色碎花连衣裙手机壳abcXYZ0123 　ＡＢ１２-*.[]#é̀\u200dİßﬁがガ한🇨👗👩🏽\x00\x85\ufffd"
        ),
        st.sampled_from([*SPECIALS, "iphone", "usb", "##", "2件装"]).flatmap(st.sampled_from),
    ),
    max_size=60,
)


def alone(tokenizer: Tokenizer, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    packed = tokenizer.encode_batch([text])
    return packed.ids.tolist(), list(zip(packed.starts.tolist(), packed.ends.tolist(), strict=True))


def oracle(tokenizer: Tokenizer, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    clean = text.encode("utf-32", "surrogatepass").decode("utf-32", "replace")
    found = tokenizer.oracle.encode(clean, add_special_tokens=False)
    return found.ids, found.offsets


@given(TITLES)
@settings(max_examples=400, deadline=None)
def test_ids_and_spans_are_those_of_the_tokenizers_library(text: str) -> None:
    assert alone(TOKENIZER, text) == oracle(TOKENIZER, text)


@given(st.lists(TITLES, max_size=6))
@settings(max_examples=60, deadline=None)
def test_a_batch_is_its_texts_one_after_the_other(texts: list[str]) -> None:
    packed = TOKENIZER.encode_batch(texts)
    assert packed.offsets[0] == 0
    assert packed.offsets[-1] == len(packed.ids)
    for i, text in enumerate(texts):
        own = slice(packed.offsets[i], packed.offsets[i + 1])
        assert packed.ids[own].tolist() == alone(TOKENIZER, text)[0]


def test_every_character_the_tables_are_sure_of_is_treated_as_the_library_treats_it() -> None:
    action, _ = wordpiece_tables()
    sure = np.flatnonzero(action != UNSURE)
    sure = sure[(sure < 0x3400) | ((sure > 0x9FFF) & (sure < 0x20000)) | (sure % 101 == 0)]
    texts = [f"a{chr(code)}b" for code in sure]
    found = TOKENIZER.oracle.encode_batch(texts, add_special_tokens=False)
    packed = TOKENIZER.encode_batch(texts)
    for i, expected in enumerate(found):
        own = slice(packed.offsets[i], packed.offsets[i + 1])
        assert packed.ids[own].tolist() == expected.ids, hex(sure[i])


def test_spans_point_at_the_characters_of_the_title() -> None:
    title = "  usb\u3000线 2米cafe\u0301x"
    ids, spans = alone(TOKENIZER, title)
    pieces = [TOKENIZER.vocabulary[i].removeprefix("##") for i in ids]
    assert pieces[:4] == ["usb", "线", "2", "米"]
    assert spans[:4] == [(2, 5), (6, 7), (8, 9), (9, 10)]
    assert "".join(pieces[4:]) == "cafex"
    assert spans[-1][1] == len(title)


def test_a_word_of_more_than_a_hundred_characters_is_unknown() -> None:
    ids, spans = alone(TOKENIZER, "a" * 101 + " " + "a" * 100)
    assert ids[0] == TOKENIZER.unk_id
    assert spans[0] == (0, 101)
    assert ids.count(TOKENIZER.unk_id) == 1


def test_a_literal_special_token_is_that_token() -> None:
    assert alone(TOKENIZER, "红[MASK]裙")[0][1] == TOKENIZER.mask_id
    assert TOKENIZER.mask_id not in alone(TOKENIZER, "红[mask]裙")[0]


def test_compiled_and_plain_kernels_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["红色 ABC-12 café", "👗裙", "", "한국", "x" * 120, "[SEP]"] * 3
    plain = TOKENIZER.encode_batch(texts)
    monkeypatch.setattr(kernels, "COMPILE_FROM", 1)
    compiled = TOKENIZER.encode_batch(texts)
    for name in ("ids", "offsets", "starts", "ends"):
        assert getattr(plain, name).tolist() == getattr(compiled, name).tolist()


def test_the_built_in_vocabulary_is_what_its_script_makes() -> None:
    assert list(TOKENIZER.vocabulary) == vocabulary()
    assert 7500 <= TOKENIZER.vocab_size <= 8500


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path / "vocab.txt")
    again = Tokenizer.load(tmp_path)
    assert again.fingerprint == TOKENIZER.fingerprint
    assert again.vocabulary == TOKENIZER.vocabulary


@pytest.mark.parametrize("content", [b"a\nb\n", "[PAD]\n中\n".encode("gbk"), b""])
def test_what_is_no_vocabulary_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vocab.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"vocab\.txt"):
        Tokenizer.load(path)


def test_a_missing_vocabulary_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing/vocab\.txt"):
        Tokenizer.load(tmp_path / "nothing" / "vocab.txt")


@pytest.mark.shared
def test_ids_are_those_the_original_recorded(shared: Path) -> None:
    tokenizer = Tokenizer.load(shared / "data/bert-base-chinese/vocab.txt")
    lines = (shared / "reference/segmenter.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    packed = tokenizer.encode_batch([record["text"] for record in records])
    for i, record in enumerate(records):
        own = packed.ids[packed.offsets[i] : packed.offsets[i + 1]].tolist()
        for way, tail in (("nosep", []), ("sep", [tokenizer.sep_id])):
            ids = [tokenizer.cls_id, *own[: 24 - len(tail)], *tail]
            assert ids + [0] * (25 - len(ids)) == record[way]["input_ids"], record["text"]


FOLDING = TOKENIZER.folding()


@given(TITLES)
@settings(max_examples=300, deadline=None)
def test_folded_ids_are_those_of_the_folded_text(text: str) -> None:
    """The library's ids of the text in usual width, without invisible characters."""
    usual = without_invisible(
        text.encode("utf-32-le", "surrogatepass").decode("utf-32-le", "replace")
    )
    usual = "".join(width_forms().get(c, c) for c in usual)
    ids, spans = alone(FOLDING, text)
    assert ids == oracle(TOKENIZER, usual)[0]
    kept = [at for at, c in enumerate(text) if not is_invisible(c)]
    expected = [(kept[start], kept[end - 1] + 1) for start, end in oracle(TOKENIZER, usual)[1]]
    assert spans == expected


@pytest.mark.parametrize(
    ("wide", "usual"),
    [
        ("ｉＰｈｏｎｅ１５", "iPhone15"),
        ("５０％，（红）１．５！", "50%，（红）1.5！"),
        ("ｶﾞｰｾﾞ", "カーセ"),  # as BERT reads ガーゼ: it strips the voice marks
        ("Ｔ恤\u3000Ｍ", "T恤 M"),
        ("한국Ａ", "한국A"),  # by the library
        ("[\u200bMASK]", "[MASK]"),
    ],
)
def test_widths_are_folded_only_if_asked_for(wide: str, usual: str) -> None:
    assert alone(FOLDING, wide)[0] == alone(TOKENIZER, usual)[0]
    assert alone(TOKENIZER, wide) == oracle(TOKENIZER, wide)
    assert FOLDING.folding(False).fingerprint == TOKENIZER.fingerprint != FOLDING.fingerprint


def test_a_character_stays_wide_if_only_that_form_is_in_the_vocabulary() -> None:
    tokenizer = Tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "￥", "a", "ａ"], True)
    assert tokenizer.encode_batch(["￥ ａ"]).ids.tolist() == [5, 6]


def test_every_invisible_character_is_dropped_by_tokens_and_bags() -> None:
    """The whole of Unicode: what `is_invisible` says, tables and library alike."""
    hidden = [chr(c) for c in range(0x110000) if is_invisible(chr(c))]
    assert {"\u200b", "\u200d", "\u202e", "\u2066", "\ufeff", "\u00ad", "\ufe0f", "\u3164"} <= {
        *hidden
    }
    assert not {*"\t\n \u3000"} & {*hidden}
    expected = alone(FOLDING, "红ab12")
    for character in hidden:
        if not 0xD800 <= ord(character) <= 0xDFFF:
            assert alone(FOLDING, f"红a{character}b12")[0] == expected[0], hex(ord(character))


def test_a_stored_configuration_without_the_setting_keeps_wide_characters(tmp_path: Path) -> None:
    """Models trained before ``text.fold_width`` existed: their titles are read as before."""
    config = load_config("demo")
    assert config.text.fold_width
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml", stored=True).text.fold_width
    lines = (tmp_path / "config.yaml").read_text("utf-8").splitlines(keepends=True)
    (tmp_path / "config.yaml").write_text(
        "".join(line for line in lines if "fold_width" not in line), "utf-8"
    )
    stored = load_config(tmp_path / "config.yaml", stored=True)
    assert not stored.text.fold_width
    assert load_config(tmp_path / "config.yaml").text.fold_width  # as a new configuration
    lexicon = tmp_path / "words.txt"
    lexicon.write_text("裙\n", "utf-8")
    for made, folds in ((config, True), (stored, False)):
        assert title_encoder(made, TOKENIZER, [lexicon]).tokenizer.fold_width == folds
