"""Merge dictionaries into a lexicon: entries with type, weight and origin.

The arrays that the segmenter reads (automaton, costs, types) are computed once and kept in the
user's cache folder, under a digest of the sources. They are plain arrays that are mapped into
memory; nothing is unpickled, and nothing is written next to a dictionary.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bagformer_cli.assets import asset_folder
from bagformer_cli.errors import MissingDependencyError, cannot_read
from bagformer_cli.files import atomic_file, atomic_folder, cache_folder
from bagformer_cli.messages import tr
from bagformer_cli.text.automaton import Automaton, PrefixTree
from bagformer_cli.text.characters import CODE_POINTS, codes_of, fold_table
from bagformer_cli.text.cover import TAKES_HEAD, TAKES_SUFFIX, LexiconArrays
from bagformer_cli.text.dictionaries import BACKGROUND, UNTYPED, Dictionary, read_dictionary

FORMAT = "lexicon 11"
"""Part of the digest. Change it with the cached arrays, the merging or the folding."""

LONGEST = 64
"""Characters of an entry at most. Longer ones are ignored."""

UNIT, HEAD, SUFFIX, NEVER = "unit", "head", "suffix", "never"
"""Types that are parts of rules and not entries: units follow a number, heads make a product of the
word before them, suffixes belong to the word before them, and words of type never are removed from
jieba's list."""

RULES = frozenset({UNIT, HEAD, SUFFIX, NEVER})

HEADLESS = frozenset({"place", "brand", "selling", "season"})
"""Types that take no head: 北京 + 机 is not a product."""

SUFFIXLESS = frozenset({"category"})
"""Types that take no suffix: 甜品 + 用 are two bags."""


SINGLE_COST, PAIR_COST, LONGER_COST = 7000, -1750, 2500
"""Costs by length, in thousandths: of one untyped character, of two, of each beyond three."""

WHOLE = frozenset({UNIT, HEAD, "brand", "place"})
"""Types whose entries are names, which stay one bag even if they consist of two entries."""


class Entry(NamedTuple):
    """An entry of the lexicon: folded word, type, weight per million words, origin."""

    word: str
    type: str | None
    weight: float
    origin: str


@dataclass(frozen=True)
class Lexicon:
    """The merged entries, and the arrays that the segmenter reads.

    Args:
        folder: The cache folder these arrays are mapped from.
        types: Names of the types, which ``arrays.type`` indexes.
        arrays: The automaton over the entries, their costs and types, units, heads, suffixes.
        fingerprint: Identifies the content: equal fingerprints give equal bags.
    """

    folder: Path
    types: tuple[str, ...]
    arrays: LexiconArrays
    fingerprint: str

    @classmethod
    def load(cls, sources: Sequence[str | Path] = ("builtin",)) -> Lexicon:
        """Open the lexicon of ``sources``; build it first if it is not in the cache.

        Args:
            sources: Dictionary files; ``"builtin"`` is what ships with the project,
                ``"jieba"`` the word list of the installed ``jieba`` package.

        Raises:
            InputError: A file or package is missing.
            DataError: A dictionary is broken; the place is named.
        """
        files = [file for source in sources for file in _files_of(source)]
        digest = hashlib.sha256(FORMAT.encode())
        for name, path in files:
            try:
                digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
            except OSError as error:
                raise cannot_read(path, error) from error
        folder = cache_folder() / "lexicon" / digest.hexdigest()[:32]
        if not (folder / "meta.json").is_file():
            merged = _merge([read_dictionary(path, name=name) for name, path in files])
            with atomic_folder(folder, keep_existing=True) as temporary:
                _write(temporary, merged)
        return cls._open(folder)

    @classmethod
    def _open(cls, folder: Path) -> Lexicon:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        entry_cost, entry_type, entry_head, heads, suffixes = (
            np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))
            for name in ("cost", "type", "head", "heads", "suffixes")
        )
        head_cost, suffix_cost = np.zeros((2, CODE_POINTS), np.int32)
        head_cost[heads[0]] = heads[1]
        suffix_cost[suffixes[0]] = suffixes[1]
        return cls(
            folder,
            tuple(meta["types"]),
            LexiconArrays(
                Automaton.open(folder / "entries"),
                entry_cost,
                entry_type,
                entry_head,
                PrefixTree.open(folder / "units"),
                head_cost,
                suffix_cost,
            ),
            meta["fingerprint"],
        )

    def __len__(self) -> int:
        return len(self.arrays.cost)

    def entries(self) -> Iterator[Entry]:
        """Yield all entries in order of their words, with units, heads and suffixes."""
        with open(self.folder / "lexicon.txt", encoding="utf-8") as stream:
            for line in stream:
                if line.startswith("#") and "\t" not in line:
                    continue
                word, kind, weight, origin = line.rstrip("\n").split("\t")
                yield Entry(word, None if kind == UNTYPED else kind, float(weight), origin)

    def save(self, path: str | Path) -> None:
        """Write ``lexicon.txt``. A lexicon loaded from it gives the same bags on any machine."""
        with atomic_file(path) as temporary:
            temporary.write_bytes((self.folder / "lexicon.txt").read_bytes())


def jieba_words() -> Path:
    """Return the path of jieba's word list, without importing the package.

    Raises:
        MissingDependencyError: It is not installed.
    """
    spec = find_spec("jieba")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "dict.txt"
        if path.is_file():
            return path
    raise MissingDependencyError(
        tr("The word list of jieba is not installed."), hint="pip install jieba"
    )


def _files_of(source: str | Path) -> list[tuple[str, Path]]:
    if source == BACKGROUND:
        return [(BACKGROUND, jieba_words())]
    if source == "builtin":
        own = sorted(asset_folder("entity_dicts").glob("*.tsv"))
        return [*((path.name, path) for path in own), (BACKGROUND, jieba_words())]
    return [(Path(source).name, Path(source))]


def _merge(dictionaries: Sequence[Dictionary]) -> list[Entry]:
    """Merge equal words (and equal units, heads, suffixes): first type, greatest weight."""
    plain: dict[str, Entry] = {}
    roles: dict[str | None, dict[str, Entry]] = {UNIT: {}, HEAD: {}, SUFFIX: {}}
    never = {
        word
        for dictionary in dictionaries
        if NEVER in dictionary.types
        for word, kind in zip(fold_all(dictionary.words), dictionary.types, strict=True)
        if kind == NEVER
    }
    whole: set[str] = set()
    for dictionary in dictionaries:
        for word, kind, weight, is_whole, origin in zip(
            map(str.strip, fold_all(dictionary.words)),
            dictionary.types,
            dictionary.weights,
            dictionary.wholes,
            dictionary.origins,
            strict=True,
        ):
            if not word or len(word) > LONGEST or kind == NEVER:
                continue
            if dictionary.name == BACKGROUND and word in never:
                continue
            merged = roles.get(kind, plain)
            if is_whole or kind in WHOLE:
                whole.add(word)
            known = merged.get(word)
            if known is None:
                merged[word] = Entry(word, kind, weight, origin)
            elif weight > known.weight or (known.type is None and kind is not None):
                first = known.type is not None or kind is None
                merged[word] = Entry(
                    word,
                    known.type or kind,
                    max(weight, known.weight),
                    known.origin if first else origin,
                )
    kept = [e for word, e in plain.items() if word in whole or not _composite(word, plain)]
    for merged in roles.values():
        kept += merged.values()
    return sorted(kept, key=lambda entry: f"{entry.word}\0{entry.type or ''}")


def _composite(word: str, entries: Container[str]) -> bool:
    """Return whether the word consists of two entries: 儿童 + 滑板车 are two bags."""
    return any(
        word[:cut] in entries and word[cut:] in entries
        for cut in range(2, len(word) - 1)
        if not (word[cut - 1].isascii() and word[cut].isascii())
    )


def fold_all(words: Sequence[str]) -> list[str]:
    """Fold every word (see :func:`.characters.fold`)."""
    codes, _ = codes_of(["\n".join(words)])
    folded = np.where(codes == 10, codes, fold_table()[codes])
    return folded.astype("<u4").tobytes().decode("utf-32-le").split("\n") if words else []


def _write(folder: Path, merged: Sequence[Entry]) -> None:
    """Write the cache folder: the entries as text, the arrays, ``meta.json``."""
    weights = [f"{entry.weight:.6g}" for entry in merged]
    lines = [
        "# The dictionary this segmentation was made with; `xmr bags --lexicon` reads it.",
        "# word, type, weight (expected in a million words), origin",
        "# type: -",
        *(f"{e[0]}\t{e[1] or UNTYPED}\t{w}\t{e[3]}" for e, w in zip(merged, weights, strict=True)),
    ]
    text = "\n".join(lines) + "\n"
    (folder / "lexicon.txt").write_text(text, encoding="utf-8")
    costs = -1000.0 * np.log(np.array(weights, np.float64) / 1e6)
    kinds = np.array([e.type or "" for e in merged])
    plain = ~np.isin(kinds, list(RULES))
    for name in ("entries", "units"):
        (folder / name).mkdir()
    entries = [e.word for e, own in zip(merged, plain, strict=True) if own]
    Automaton.build(entries).save(folder / "entries")
    PrefixTree.build([e.word for e in merged if e.type == UNIT]).save(folder / "units")
    types, numbers = np.unique(kinds[plain], return_inverse=True)
    untyped = int(types[:1].tolist() == [""])
    prior, follows = _priors(entries, kinds[plain])
    np.save(folder / "cost.npy", np.maximum(1, np.rint(costs[plain] + prior)).astype(np.int32))
    np.save(folder / "type.npy", (numbers - untyped).astype(np.int16))
    np.save(folder / "head.npy", follows)
    for name, role in (("heads", HEAD), ("suffixes", SUFFIX)):
        ends = [
            (ord(e.word), max(1, round(cost)))
            for e, cost in zip(merged, costs, strict=True)
            if e.type == role and len(e.word) == 1
        ]
        np.save(folder / f"{name}.npy", np.array(ends, np.int64).reshape(-1, 2).T)
    fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
    meta = {"types": types[untyped:].tolist(), "fingerprint": fingerprint}
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _priors(
    words: Sequence[str], types: npt.NDArray[np.str_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int8]]:
    """Return the cost that a word's length adds, and whether a head or a suffix may follow it.

    Most words have two or three ideographs. A head or suffix may follow two to four ideographs,
    unless the type of the word forbids it (HEADLESS, SUFFIXLESS).
    """
    codes, offsets = codes_of(words)
    wide = np.concatenate([[0], np.cumsum(codes >= 128)])
    ideographs = np.concatenate([[0], np.cumsum((codes >= 0x3400) & (codes <= 0x9FFF))])
    lengths, length = np.diff(offsets), np.diff(wide[offsets])
    cost = np.select(
        [length > 3, (length < lengths) | (length == 3), length == 2, types == ""],
        [LONGER_COST * (length - 3), 0, PAIR_COST, SINGLE_COST],
    )
    pure = np.diff(ideographs[offsets]) == lengths
    follows = TAKES_HEAD * ~np.isin(types, list(HEADLESS))
    follows = follows + TAKES_SUFFIX * ~np.isin(types, list(SUFFIXLESS))
    return cost, np.where(pure & (lengths >= 2) & (lengths <= 4), follows, 0).astype(np.int8)
