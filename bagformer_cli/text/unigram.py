"""SentencePiece's unigram tokens with character offsets, over a vocabulary with probabilities.

Multilingual encoders (XLM-RoBERTa, e5) cut 笔记本电脑 into 笔记 / 本 / 电脑, where BERT's WordPiece
has one token per character. The vocabulary file is the ``.vocab`` of SentencePiece: a piece, a tab
and its log-probability on each line. The special tokens have BERT's names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bagformer_cli.errors import InputError
from bagformer_cli.files import write_text
from bagformer_cli.messages import tr
from bagformer_cli.text.characters import is_invisible
from bagformer_cli.text.tokenizer import Tokenizer
from bagformer_cli.text.wordpiece import PackedTokens

WORD_START = "▁"


class UnigramTokenizer(Tokenizer):
    """The likeliest cut of a text into pieces, as SentencePiece's unigram model finds it.

    Letters keep their case. A text is normalised (NFKC) first, so widths are always folded.

    Args:
        vocabulary: Pieces in order of id; must hold [PAD] [UNK] [CLS] [SEP] [MASK]. ``▁`` stands
            for the beginning of a word.
        scores: Log-probability of each piece.
        fold_width: Also leave out every invisible character.

    Raises:
        InputError: A special token is missing, or a piece is there twice.
    """

    def __init__(
        self, vocabulary: Sequence[str], scores: Sequence[float], fold_width: bool = False
    ) -> None:
        super().__init__(vocabulary, fold_width)
        self.scores = tuple(scores)

    @classmethod
    def parse(cls, lines: Sequence[str]) -> UnigramTokenizer:
        """Read the lines of a vocabulary file.

        Raises:
            InputError: A line is not a piece, a tab and a number; or as for the class.
        """
        pieces, scores = [], []
        for number, line in enumerate(lines, 1):
            piece, _, score = line.rpartition("\t")
            try:
                scores.append(float(score))
            except ValueError:
                raise InputError(
                    tr("This line of the vocabulary is not a piece with its log-probability."),
                    found=f"{number}: {line[:60]}",
                    expected=tr("a piece, a tab, a number"),
                ) from None
            pieces.append(piece)
        return cls(pieces, scores)

    def folding(self, fold_width: bool = True) -> Tokenizer:
        """Return a tokenizer over the same vocabulary that drops invisible characters, or keeps."""
        if fold_width == self.fold_width:
            return self
        return UnigramTokenizer(self.vocabulary, self.scores, fold_width)

    @cached_property
    def fingerprint(self) -> str:
        """Identify vocabulary, probabilities and folding: equal fingerprints give equal ids."""
        digest = hashlib.sha256(self._text().encode()).hexdigest()[:16]
        return f"{digest} unigram{' folds width' if self.fold_width else ''}"

    def save(self, path: str | Path) -> None:
        """Write ``vocab.txt``."""
        write_text(path, self._text())

    def _text(self) -> str:
        pairs = zip(self.vocabulary, self.scores, strict=True)
        return "".join(f"{piece}\t{score:.6g}\n" for piece, score in pairs)

    def encode_batch(self, texts: Sequence[str]) -> PackedTokens:
        """Cut texts into tokens, without special tokens and without truncation."""
        clean, places = [], []
        for text in texts:
            # A lone surrogate is no text for the library; "?" keeps every offset.
            text = text.encode("utf-8", "replace").decode()
            kept = [
                at for at, sign in enumerate(text) if not (self.fold_width and is_invisible(sign))
            ]
            clean.append("".join(text[at] for at in kept))
            places.append(np.array([*kept, len(text)], np.int64))
        encoded = self.oracle.encode_batch(clean, add_special_tokens=False)
        spans = [np.array(found.offsets, np.int64).reshape(-1, 2) for found in encoded]
        starts = [place[span[:, 0]] for place, span in zip(places, spans, strict=True)]
        ends = [
            place[np.maximum(span[:, 1] - 1, span[:, 0])] + 1
            for place, span in zip(places, spans, strict=True)
        ]
        none = np.zeros(0, np.int32)
        return PackedTokens(
            np.concatenate([none, *(np.array(found.ids, np.int32) for found in encoded)]),
            np.concatenate([none, *starts]).astype(np.int32),
            np.concatenate([none, *ends]).astype(np.int32),
            np.cumsum([0, *(len(found.ids) for found in encoded)]).astype(np.int64),
        )

    @cached_property
    def oracle(self) -> Any:
        """The ``tokenizers.Tokenizer`` over the same vocabulary."""
        from tokenizers import Tokenizer as Oracle
        from tokenizers import normalizers, pre_tokenizers
        from tokenizers.models import Unigram

        pairs = list(zip(self.vocabulary, self.scores, strict=True))
        oracle = Oracle(Unigram(pairs, unk_id=self.unk_id))
        oracle.normalizer = normalizers.NFKC()
        oracle.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
        return oracle
