"""The preprocessed dataset on disk: random access to every image and title without loading them.

::

    <dataset>/.xmr/                     the store
        store.json                      its version
        lock                            held while a process preprocesses
        train/                          a split
            images-00000.arrow …        shards: image_id, hash, image (the file's bytes, as given)
            queries-00000.arrow …       shards: query_id, text, item_ids
            images.json queries.json    which shards are finished, and of which input (convert.py)
            tokens-<fingerprint>/*.npy  fields of TokenBags, one folder for each TitleEncoder
            split.json                  digests of both inputs; written last: the split is complete
        valid/ …  test/ …

Arrow's IPC files were chosen by measuring random reads (docs/performance.md): 115,000 images a
second one by one, against 2,200 from Lance and 2,900 from Parquet.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from bagformer_cli.data.muge import SPLITS
from bagformer_cli.data.store.split import Split
from bagformer_cli.data.store.tokens import Encoder, read_json
from bagformer_cli.errors import InputError, listed
from bagformer_cli.files import cache_folder
from bagformer_cli.messages import tr
from bagformer_cli.opening import require_plain_folder

VERSION = 2


class Store:
    """A preprocessed dataset.

    Args:
        path: Folder of the store.
        encoder: Fingerprint of the title encoder whose tokens :attr:`Split.tokens` gives; None:
            the tokens that were made last.
        dataset: The dataset's folder; None: the folder that the store is in.
    """

    def __init__(self, path: Path, encoder: str | None = None, dataset: Path | None = None) -> None:
        self.path, self.encoder = path, encoder
        self.dataset = path.parent if dataset is None else dataset

    @classmethod
    def open(cls, path: str | Path, encoder: Encoder | None = None) -> Store:
        """Open a store.

        Raises:
            InputError: The folder holds no store, one of another version, or links and pipes.
        """
        require_plain_folder(path)
        store = cls(Path(path), None if encoder is None else encoder.fingerprint)
        if store_version(store.path) != VERSION or not store.splits:
            raise InputError(
                tr("There is no preprocessed dataset."),
                where=path,
                hint=tr("Create it with: xmr preprocess --dataset FOLDER"),
            )
        return store

    @property
    def splits(self) -> list[str]:
        """The complete splits, in the order train, valid, test."""
        return [name for name in SPLITS if (self.path / name / "split.json").is_file()]

    def split(self, name: str) -> Split:
        """Open one split.

        Raises:
            InputError: The store has no such split.
        """
        if name not in self.splits:
            raise InputError(
                tr("The dataset has no split '{split}'.", split=name),
                where=self.dataset,
                found=listed(self.splits),
            )
        return Split(self.path / name, self._tokens(self.path / name), name, self.dataset)

    def _tokens(self, split: Path) -> Path | None:
        if self.encoder is not None:
            return split / f"tokens-{self.encoder}"
        finished = [path.parent for path in split.glob("tokens-*/done.json")]
        return max(finished, key=lambda path: path.stat().st_mtime_ns, default=None)


def default_store(folder: Path) -> Path:
    """Give the path of a dataset's store: ``<folder>/.xmr``; in the cache if that is read-only."""
    own = folder / ".xmr"
    if own.is_dir() or os.access(folder, os.W_OK):
        return own
    return cached_store(folder)


def cached_store(folder: Path) -> Path:
    """Give the path in the cache of the store of a dataset that cannot be written."""
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return cache_folder() / "stores" / name


def store_version(path: Path) -> object:
    """Read the version of the store in a folder; None if the folder holds no store."""
    return read_json(path / "store.json").get("version")
