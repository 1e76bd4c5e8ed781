"""WordPiece with character offsets: the ids of BERT's tokenizer, from a compiled kernel.

Titles of ordinary characters go through the kernel in :mod:`.wordpiece`; a title with anything
unusual in it (Hangul, a literal ``[MASK]``, an unassigned code point) goes to the ``tokenizers``
library, which is the oracle for all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bagformer_cli.errors import InputError, listed
from bagformer_cli.files import write_text
from bagformer_cli.messages import tr
from bagformer_cli.text.automaton import PrefixTree
from bagformer_cli.text.characters import (
    DROP,
    INVISIBLE,
    class_table,
    codes_of,
    is_invisible,
    width_forms,
    wordpiece_tables,
)
from bagformer_cli.text.jit import kernels
from bagformer_cli.text.vocabulary import read_vocabulary
from bagformer_cli.text.wordpiece import PackedTokens, Vocabulary

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Tokenizer:
    """BERT's WordPiece (lower case, accents stripped) over a vocabulary.

    Args:
        vocabulary: Entries in order of id; must hold [PAD] [UNK] [CLS] [SEP] [MASK].
        fold_width: Read full-width and half-width forms as the usual characters (Ａ as A, ５ as 5,
            ｶ as カ), and leave out every invisible character. False: exactly BERT's tokens.

    Raises:
        InputError: A special token is missing, or an entry is there twice.
    """

    def __init__(self, vocabulary: Sequence[str], fold_width: bool = False) -> None:
        self.vocabulary = tuple(vocabulary)
        self.fold_width = fold_width
        self._ids = {piece: index for index, piece in enumerate(self.vocabulary)}
        missing = [token for token in SPECIALS if token not in self._ids]
        if missing or len(self._ids) != len(self.vocabulary):
            raise InputError(
                tr("This is not a WordPiece vocabulary."),
                found=tr("no {tokens}", tokens=listed(missing))
                if missing
                else tr("the same entry twice"),
                expected=tr("one entry a line, each once, among them {tokens}", tokens=SPECIALS),
            )
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
            self._ids[token] for token in SPECIALS
        )

    @classmethod
    def load(cls, source: str | Path = "builtin") -> Tokenizer:
        """Read a vocabulary: of WordPiece, or of SentencePiece if its lines hold probabilities.

        Args:
            source: ``"builtin"``, a ``vocab.txt`` or ``tokenizer.json``, a folder that holds one,
                or the name of a model on the Hugging Face hub.

        Raises:
            InputError: There is no such vocabulary, or it is not one.
        """
        entries, path = read_vocabulary(source)
        try:
            if entries and "\t" in entries[0]:
                from bagformer_cli.text.unigram import UnigramTokenizer

                return UnigramTokenizer.parse(entries)
            return cls(entries)
        except InputError as error:
            error.where = str(path)
            raise

    def folding(self, fold_width: bool = True) -> Tokenizer:
        """Return a tokenizer over the same vocabulary that folds widths, or does not."""
        if fold_width == self.fold_width:
            return self
        return Tokenizer(self.vocabulary, fold_width)

    @property
    def vocab_size(self) -> int:
        """The number of entries of the vocabulary."""
        return len(self.vocabulary)

    @cached_property
    def fingerprint(self) -> str:
        """Identify vocabulary and folding: equal fingerprints give equal ids."""
        digest = hashlib.sha256("\n".join(self.vocabulary).encode()).hexdigest()[:16]
        return f"{digest} folds width" if self.fold_width else digest

    def save(self, path: str | Path) -> None:
        """Write ``vocab.txt``."""
        write_text(path, "".join(f"{piece}\n" for piece in self.vocabulary))

    def encode_batch(self, texts: Sequence[str]) -> PackedTokens:
        """Cut texts into tokens, without special tokens and without truncation."""
        codes, offsets = codes_of(texts)
        compiled = kernels(len(texts), len(codes))
        tokens, unsure = compiled.wordpiece(codes, offsets, self._tables)
        if unsure.any():
            return self._with_oracle(tokens, texts, np.flatnonzero(unsure))
        return PackedTokens(*tokens)

    def _with_oracle(
        self, tokens: PackedTokens, texts: Sequence[str], unsure: npt.NDArray[np.int64]
    ) -> PackedTokens:
        """Insert the tokens that the oracle finds in the ``unsure`` texts, which have none yet."""
        clean = [
            texts[i].encode("utf-32-le", "surrogatepass").decode("utf-32-le", "replace")
            for i in unsure
        ]
        places = [np.arange(len(text) + 1) for text in clean]  # in the given text
        if self.fold_width:
            kept = [[at for at, c in enumerate(text) if not is_invisible(c)] for text in clean]
            places = [np.array([*at, len(text)]) for at, text in zip(kept, clean, strict=True)]
            clean = [
                "".join(self._widths.get(text[at], text[at]) for at in own)
                for own, text in zip(kept, clean, strict=True)
            ]
        encoded = self.oracle.encode_batch(clean, add_special_tokens=False)
        ids: list[npt.NDArray[np.int32]] = []
        starts: list[npt.NDArray[np.int32]] = []
        ends: list[npt.NDArray[np.int32]] = []
        done = 0
        for index, found, place in zip(unsure, encoded, places, strict=True):
            here = tokens.offsets[index]
            spans = np.array(found.offsets, np.int32).reshape(-1, 2)
            ids += [tokens.ids[done:here], np.array(found.ids, np.int32)]
            starts += [tokens.starts[done:here], place[spans[:, 0]].astype(np.int32)]
            ends += [tokens.ends[done:here], place[spans[:, 1] - 1].astype(np.int32) + 1]
            done = here
        lengths = np.diff(tokens.offsets)
        lengths[unsure] = [len(found.ids) for found in encoded]
        return PackedTokens(
            np.concatenate([*ids, tokens.ids[done:]]),
            np.concatenate([*starts, tokens.starts[done:]]),
            np.concatenate([*ends, tokens.ends[done:]]),
            np.concatenate([[0], np.cumsum(lengths)]),
        )

    @cached_property
    def oracle(self) -> Any:
        """The ``tokenizers.Tokenizer`` over the same vocabulary."""
        from tokenizers import Tokenizer as Oracle
        from tokenizers.models import WordPiece
        from tokenizers.normalizers import BertNormalizer
        from tokenizers.pre_tokenizers import BertPreTokenizer

        oracle = Oracle(WordPiece(self._ids, unk_token="[UNK]", max_input_chars_per_word=100))
        oracle.normalizer = BertNormalizer(strip_accents=True, lowercase=True)
        oracle.pre_tokenizer = BertPreTokenizer()
        oracle.add_special_tokens(list(SPECIALS))
        return oracle

    @cached_property
    def _tables(self) -> Vocabulary:
        pieces = PrefixTree.build([piece or "\0" for piece in self.vocabulary])
        action, becomes = wordpiece_tables()
        if self.fold_width:
            action, becomes = action.copy(), becomes.copy()
            for wide, usual in self._widths.items():
                action[ord(wide)], becomes[ord(wide)] = action[ord(usual)], becomes[ord(usual)]
            action[class_table() == INVISIBLE] = DROP
        return Vocabulary(action, becomes, pieces, pieces.find("##"), self.unk_id)

    @cached_property
    def _widths(self) -> dict[str, str]:
        """The usual form of each full-width or half-width character.

        One whose usual form is not in the vocabulary stays as it is if it is there itself (￥).
        """
        return {
            wide: usual
            for wide, usual in width_forms().items()
            if usual.lower() in self._ids or wide not in self._ids
        }
