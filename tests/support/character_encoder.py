"""A stand-in for the encoder of titles, and one that is killed while it works."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from bagformer_cli.data.muge import MugeFolder
from bagformer_cli.data.store import tokens
from bagformer_cli.data.store.preprocess import preprocess
from bagformer_cli.text.bags import TokenBags
from bagformer_cli.text.cut_titles import CutTitles

QUERIES = [(7, "红色连衣裙", (30, 10)), (5, "包", ()), (9, "童鞋 男", (20,)), (1, "帽子", (10,))]


class Characters:
    """A stand-in for TitleEncoder: one token and one bag a character, [CLS] first."""

    max_tokens = 100

    def __init__(self, name: str = "characters") -> None:
        self.fingerprint = name
        self.seen: list[str] = []

    def __call__(self, titles: Sequence[str]) -> TokenBags:
        self.seen += titles
        lengths = np.array([len(title) for title in titles], np.int64)
        token_offsets = np.concatenate([[0], np.cumsum(lengths + 1)])
        bag_offsets = np.concatenate([[0], np.cumsum(lengths)])
        ids = [code for title in titles for code in [1, *map(ord, title)]]
        starts = np.flatnonzero(np.array(ids) != 1)
        return TokenBags(np.array(ids, np.int32), token_offsets, starts, starts + 1, bag_offsets)

    def take_cut(self) -> CutTitles:
        return CutTitles()


class Killed(BaseException):
    """Stands for the end of the process."""


def killed_run(dataset: MugeFolder, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Preprocess until a kill after two of the four titles; return the folder of the tokens."""
    monkeypatch.setattr(tokens, "_TITLES", 2)
    with pytest.raises(Killed):
        preprocess(dataset, encoder=Mortal(), splits=["train"])
    return dataset.path / ".xmr" / "train" / "tokens-characters"


class Mortal(Characters):
    """Ends the process at the third title."""

    def __call__(self, titles: Sequence[str]) -> TokenBags:
        if len(self.seen) == 2:
            raise Killed
        return super().__call__(titles)
