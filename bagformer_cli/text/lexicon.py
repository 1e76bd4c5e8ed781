"""A lexicon: the entries of dictionaries, and the arrays that the segmenter reads.

The arrays (automaton, costs, types) are computed once from the merged dictionaries
(:mod:`.merging`) and kept in the user's cache folder, under a digest of the sources. They are plain
arrays that are mapped into memory; nothing is unpickled, and nothing is written next to a
dictionary.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bagformer_cli.assets import asset_folder
from bagformer_cli.errors import MissingDependencyError, cannot_read
from bagformer_cli.files import atomic_file, atomic_folder, cache_folder
from bagformer_cli.messages import tr
from bagformer_cli.text.automaton import Automaton, PrefixTree
from bagformer_cli.text.cover import LexiconArrays
from bagformer_cli.text.dictionaries import BACKGROUND, read_dictionary
from bagformer_cli.text.dictionary_lines import UNTYPED
from bagformer_cli.text.merging import Entry, end_costs, merge, write_lexicon

FORMAT = "lexicon 13"
"""Part of the digest. Change it with the cached arrays, the merging or the folding."""


class Source(NamedTuple):
    """A dictionary file: the origin of its entries, its path, whether it comes with the project."""

    name: str
    path: Path
    shipped: bool


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
        for name, path, shipped in files:
            try:
                content = hashlib.sha256(path.read_bytes()).digest()
            except OSError as error:
                raise cannot_read(path, error) from error
            digest.update(f"{name} {shipped}".encode() + b"\0" + content)
        folder = cache_folder() / "lexicon" / digest.hexdigest()[:32]
        if not (folder / "meta.json").is_file():
            shipped, own = ([read_dictionary(path, name=name) for name, path, is_shipped in files if is_shipped is which] for which in (True, False))
            merged = merge(shipped, own)
            with atomic_folder(folder, keep_existing=True) as temporary:
                write_lexicon(temporary, merged)
        return cls._open(folder)

    @classmethod
    def _open(cls, folder: Path) -> Lexicon:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        entry_cost, entry_type, entry_head, heads, suffixes = (
            np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))
            for name in ("cost", "type", "head", "heads", "suffixes")
        )
        return cls(
            folder,
            tuple(meta["types"]),
            LexiconArrays(
                Automaton.open(folder / "entries"),
                entry_cost,
                entry_type,
                entry_head,
                PrefixTree.open(folder / "units"),
                end_costs(heads),
                end_costs(suffixes),
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


def _files_of(source: str | Path) -> list[Source]:
    if source == BACKGROUND:
        return [Source(BACKGROUND, jieba_words(), True)]
    if source == "builtin":
        files = sorted(asset_folder("entity_dicts").glob("*.tsv"))
        own = [Source(path.name, path, True) for path in files]
        return [*own, Source(BACKGROUND, jieba_words(), True)]
    return [Source(Path(source).name, Path(source), False)]
