"""A lexicon: the entries of dictionaries, and the arrays that the segmenter reads.

The arrays (automaton, costs, types) are computed once from the merged dictionaries
(:mod:`.merging`) and kept in the user's cache folder, under a digest of the sources
(:mod:`.lexicon_cache`). They are plain arrays that are mapped into memory; nothing is unpickled,
and nothing is written next to a dictionary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from bagformer_cli.assets import asset_folder
from bagformer_cli.errors import MissingDependencyError
from bagformer_cli.files import atomic_file
from bagformer_cli.messages import tr
from bagformer_cli.opening import read_regular, shown
from bagformer_cli.text.boundaries import ENDING, NEXT_TO_LEXICON, Boundaries, only_one
from bagformer_cli.text.cover_arrays import LexiconArrays
from bagformer_cli.text.dictionaries import BACKGROUND, Dictionary, read_dictionary
from bagformer_cli.text.dictionary_lines import UNTYPED
from bagformer_cli.text.dictionary_remarks import remarks_on
from bagformer_cli.text.lexicon_cache import open_cached
from bagformer_cli.text.lines import MOST_BYTES
from bagformer_cli.text.merging import Entry, merge, write_lexicon

FORMAT = "lexicon 16"
"""Part of the digest. Change it with the cached arrays, the reading, the merging or the folding."""


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
        remarks: Sentences for the user: lines left out, words with two types, an unusable cache.
        boundaries: Learned boundaries; None: costs alone decide.
    """

    folder: Path
    types: tuple[str, ...]
    arrays: LexiconArrays
    fingerprint: str
    remarks: tuple[str, ...] = ()
    boundaries: Boundaries | None = None

    @classmethod
    def load(cls, sources: Sequence[str | Path] = ("builtin",)) -> Lexicon:
        """Open the lexicon of ``sources``; build it first if it is not in the cache.

        Lines that cannot be used are left out and named in ``remarks``.

        Args:
            sources: Dictionary files; ``"builtin"`` is what ships with the project,
                ``"jieba"`` the word list of the installed ``jieba`` package. One of them may be
                a file of learned boundaries (ending ``.safetensors``).

        Raises:
            InputError: A file or package is missing.
            DataError: No line of a dictionary can be used.
        """
        learned = [Path(source) for source in sources if str(source).endswith(ENDING)]
        boundaries = only_one(learned)
        files = [
            file
            for source in sources
            if not str(source).endswith(ENDING)
            for file in _files_of(source)
        ]
        digest = hashlib.sha256(FORMAT.encode())
        for name, path, shipped in files:
            content = hashlib.sha256(read_regular(path, MOST_BYTES)).digest()
            digest.update(f"{name} {shipped}".encode() + b"\0" + content)

        def write(folder: Path) -> None:
            shipped, own = _read(files, shipped=True), _read(files, shipped=False)
            merged = merge([one for _, one in shipped], [one for _, one in own])
            write_lexicon(folder, merged, remarkable=bool(remarks_on(own)))

        found = open_cached(digest.hexdigest()[:32], write)
        remarks = [found.remark] if found.remark else []
        if found.remarkable:  # read again: the remarks are in the language of this process
            remarks += remarks_on(_read(files, shipped=False))
        fingerprint = found.fingerprint
        if boundaries is not None:
            fingerprint = f"{fingerprint} {boundaries.fingerprint}"
        return cls(found.folder, found.types, found.arrays, fingerprint, tuple(remarks), boundaries)

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
        """Write ``lexicon.txt``, and learned boundaries next to it.

        A lexicon loaded from :func:`saved_lexicon` gives the same bags on any machine.
        """
        with atomic_file(path) as temporary:
            temporary.write_bytes((self.folder / "lexicon.txt").read_bytes())
        if self.boundaries is not None:
            self.boundaries.save(Path(path).with_name(NEXT_TO_LEXICON))


def saved_lexicon(path: Path) -> list[Path]:
    """Return the sources of a lexicon that was saved to ``path``."""
    learned = path.with_name(NEXT_TO_LEXICON)
    return [path, learned] if learned.exists() else [path]


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


def _read(files: Sequence[Source], *, shipped: bool) -> list[tuple[Path, Dictionary]]:
    return [
        (path, read_dictionary(path, name=name))
        for name, path, comes_with_xmr in files
        if comes_with_xmr == shipped
    ]


def _files_of(source: str | Path) -> list[Source]:
    if source == BACKGROUND:
        return [Source(BACKGROUND, jieba_words(), True)]
    if source == "builtin":
        files = sorted(asset_folder("entity_dicts").glob("*.tsv"))
        own = [Source(path.name, path, True) for path in files]
        return [*own, Source(BACKGROUND, jieba_words(), True)]
    # The name becomes the origin of entries, a field of lexicon.txt.
    return [Source(" ".join(shown(Path(source).name).split()), Path(source), False)]
