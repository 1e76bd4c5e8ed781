"""Merge dictionaries into one list of entries, and write it as the arrays of a lexicon.

Equal words become one entry: the first type and the greatest weight count, and the words of a
user's dictionary come before the shipped ones. Those also win against their parts. Shipped words
that consist of two others are left out (儿童 + 滑板车 are two bags), and so are those of a large
list.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bagformer_cli.text.automaton import Automaton, PrefixTree
from bagformer_cli.text.characters import codes_of, fold_table
from bagformer_cli.text.costs import cost_of, priors, raise_entries, weight_of
from bagformer_cli.text.cover_arrays import OWN, LexiconArrays
from bagformer_cli.text.dictionaries import (
    BACKGROUND,
    HEAD,
    LEAST_WEIGHT,
    MOST_WEIGHT,
    NEVER,
    RULES,
    SUFFIX,
    UNIT,
    Dictionary,
)
from bagformer_cli.text.dictionary_lines import UNTYPED
from bagformer_cli.text.lexicon_cache import end_costs

WHOLE = frozenset({UNIT, HEAD, "brand", "place"})
"""Types whose entries are names, which stay one bag even if they consist of two entries."""


LARGE = 50_000
"""Words from which a user's dictionary is a general list that nobody chose word by word. It is
treated as the shipped ones: on marked titles, the 63,748 words of BagFormer's list that consist of
two others would make bags worse (exact 0.856 → 0.838, crossing 0.019 → 0.029)."""


OWN_WORD = " (own)"
"""Ends the origin of a user's word in ``lexicon.txt``, so that a model folder knows it."""


class Entry(NamedTuple):
    """An entry of the lexicon: folded word, type, weight per million words, origin."""

    word: str
    type: str | None
    weight: float
    origin: str


class Merged(NamedTuple):
    """Merged dictionaries.

    Args:
        entries: By word, then by type.
        raised: The words whose costs have yet to be lowered so that they win against their parts.
        own: All words of the user that win; those of a ``lexicon.txt`` have lower costs already.
    """

    entries: list[Entry]
    raised: frozenset[str]
    own: frozenset[str]


def fold_all(words: Sequence[str]) -> list[str]:
    """Fold every word (see :func:`.characters.fold`)."""
    codes, _ = codes_of(["\n".join(words)])
    folded = np.where(codes == 10, codes, fold_table()[codes])
    return folded.astype("<u4").tobytes().decode("utf-32-le").split("\n") if words else []


def merge(shipped: Sequence[Dictionary], own: Sequence[Dictionary]) -> Merged:
    """Merge dictionaries.

    A word is kept if somebody vouches for it as a whole: a user's dictionary that is not
    :data:`LARGE` has it, or a dictionary gives it a weight or a type of :data:`WHOLE`. Other words
    are kept unless they consist of two entries.

    Args:
        shipped: Those that come with the project, and jieba's.
        own: Those of the user.
    """
    plain: dict[str, Entry] = {}
    roles: dict[str | None, dict[str, Entry]] = {UNIT: {}, HEAD: {}, SUFFIX: {}}
    chosen = [dictionary for dictionary in own if len(dictionary.words) < LARGE]
    large = [dictionary for dictionary in own if len(dictionary.words) >= LARGE]
    dictionaries = [*chosen, *shipped, *large]
    never = {
        word
        for dictionary in dictionaries
        if NEVER in dictionary.types
        for word, kind in zip(fold_all(dictionary.words), dictionary.types, strict=True)
        if kind == NEVER
    }
    whole: set[str] = set()
    raised: set[str] = set()
    own_words: set[str] = set()
    for number, dictionary in enumerate(dictionaries):
        is_chosen = number < len(chosen)
        excluded = never if dictionary.name == BACKGROUND else ()
        for entry, weighed, complete in _rows(dictionary):
            word = entry.word
            if word in excluded:
                continue
            merged = roles.get(entry.type, plain)
            if is_chosen or weighed or entry.type in WHOLE:
                whole.add(word)
            if is_chosen and merged is plain:
                if not complete:
                    raised.add(word)
                if not complete or entry.origin.endswith(OWN_WORD):
                    own_words.add(word)
            known = merged.get(word)
            merged[word] = entry if known is None else _joined(known, entry)
    kept = [e for word, e in plain.items() if word in whole or not _composite(word, plain)]
    for merged in roles.values():
        kept += merged.values()
    entries = sorted(kept, key=lambda entry: f"{entry.word}\0{entry.type or ''}")
    return Merged(entries, frozenset(raised), frozenset(own_words))


def _rows(dictionary: Dictionary) -> Iterator[tuple[Entry, bool, bool]]:
    """Yield the entries of a dictionary: folded, whether they have a weight, and an origin too."""
    for word, kind, weight, weighed, complete, origin in zip(
        map(str.strip, fold_all(dictionary.words)),
        dictionary.types,
        dictionary.weights,
        dictionary.weighed,
        dictionary.complete,
        dictionary.origins,
        strict=True,
    ):
        if word and kind != NEVER:
            yield Entry(word, kind, weight, origin), weighed, complete


def _joined(known: Entry, entry: Entry) -> Entry:
    """Join two entries of a word: the first type with its origin, and the greater weight."""
    weight = max(known.weight, entry.weight)
    if known.type is None and entry.type is not None:
        return entry._replace(weight=weight)
    return known if weight == known.weight else known._replace(weight=weight)


def _composite(word: str, entries: Container[str]) -> bool:
    """Return whether the word consists of two entries: 儿童 + 滑板车 are two bags."""
    return any(
        word[:cut] in entries and word[cut:] in entries
        for cut in range(2, len(word) - 1)
        if not (word[cut - 1].isascii() and word[cut].isascii())
    )


def write_lexicon(folder: Path, merged: Merged, *, remarkable: bool = False) -> None:
    """Write a cache folder: the entries as text, the arrays, ``meta.json``.

    Args:
        folder: An empty folder.
        merged: The entries.
        remarkable: Whether there is something to say about the dictionaries.
    """
    entries = merged.entries
    weights = _rounded([entry.weight for entry in entries])
    kinds = np.array([entry.type or "" for entry in entries])
    plain = np.flatnonzero(~np.isin(kinds, list(RULES)))
    words = [entries[i].word for i in plain]
    types, numbers = np.unique(kinds[plain], return_inverse=True)
    untyped = int(types[:1].tolist() == [""])
    prior, follows = priors(words, kinds[plain])
    heads, suffixes = (_ends(entries, weights, role) for role in (HEAD, SUFFIX))
    own = np.fromiter((word in merged.own for word in words), bool, len(words))
    arrays = LexiconArrays(
        Automaton.build(words),
        _costs(weights[plain], prior),
        (numbers - untyped).astype(np.int16),
        np.where(own, follows | OWN, follows).astype(np.int8),
        PrefixTree.build([entry.word for entry in entries if entry.type == UNIT]),
        end_costs(heads),
        end_costs(suffixes),
    )
    chosen = np.flatnonzero([word in merged.raised for word in words])
    if len(chosen):
        raised = raise_entries(words, chosen, arrays)[chosen]
        at = plain[chosen]
        heavier = weight_of((raised - prior[chosen]).astype(np.float64))
        weights[at] = _rounded(np.maximum(weights[at], heavier))
        arrays = arrays._replace(cost=_costs(weights[plain], prior))
    text = _lexicon_text(merged, weights)
    (folder / "lexicon.txt").write_text(text, encoding="utf-8", newline="\n")
    for name, tree in (("entries", arrays.entries), ("units", arrays.units)):
        (folder / name).mkdir()
        tree.save(folder / name)
    np.save(folder / "cost.npy", arrays.cost)
    np.save(folder / "type.npy", arrays.type)
    np.save(folder / "follows.npy", arrays.follows)
    np.save(folder / "heads.npy", heads)
    np.save(folder / "suffixes.npy", suffixes)
    meta = {
        "types": types[untyped:].tolist(),
        "fingerprint": hashlib.sha256(text.encode()).hexdigest()[:16],
        "remarkable": remarkable,
    }
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _lexicon_text(merged: Merged, weights: npt.NDArray[np.float64]) -> str:
    """Return the content of ``lexicon.txt``."""
    lines = [
        "# The dictionary this segmentation was made with; `xmr bags --lexicon` reads it.",
        "# word, type, weight (expected in a million words), origin",
        "# type: -",
    ]
    for entry, weight in zip(merged.entries, weights.tolist(), strict=True):
        origin = _origin(entry, merged.own)
        lines.append(f"{entry.word}\t{entry.type or UNTYPED}\t{weight:.6g}\t{origin}")
    return "\n".join(lines) + "\n"


def _origin(entry: Entry, own: frozenset[str]) -> str:
    if entry.type in RULES or entry.word not in own:
        return entry.origin
    return entry.origin.removesuffix(OWN_WORD) + OWN_WORD


def _rounded(weights: Sequence[float] | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Round weights as ``lexicon.txt`` has them, so that a lexicon read from it is the same."""
    clipped = np.clip(np.asarray(weights, np.float64), LEAST_WEIGHT, MOST_WEIGHT)
    return np.array([float(f"{weight:.6g}") for weight in clipped.tolist()], np.float64)


def _costs(weights: npt.NDArray[np.float64], prior: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    return np.maximum(1, np.rint(cost_of(weights) + prior)).astype(np.int32)


def _ends(
    entries: Sequence[Entry], weights: npt.NDArray[np.float64], role: str
) -> npt.NDArray[np.int64]:
    """Return the code points and the costs of all heads or suffixes: [2, n]."""
    costs = np.maximum(1, np.rint(cost_of(weights))).astype(np.int64).tolist()
    ends = [
        (ord(entry.word), cost)
        for entry, cost in zip(entries, costs, strict=True)
        if entry.type == role and len(entry.word) == 1
    ]
    return np.array(ends, np.int64).reshape(-1, 2).T
