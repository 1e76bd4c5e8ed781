"""The files of an import: written under a temporary folder, then moved into place together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bagformer_cli.data.muge import Naming, queries_last, split_files
from bagformer_cli.data.product_ids import FILE_NAME as IDS
from bagformer_cli.errors import InputError, PathError
from bagformer_cli.files import new_files
from bagformer_cli.messages import tr


@dataclass(frozen=True, slots=True)
class Imported:
    """Counts of what was written for one split."""

    queries: int
    images: int
    pairs: int


@dataclass(frozen=True, slots=True)
class ImportResult:
    """The outcome of an import.

    Args:
        splits: Counts by split.
        left_out: The rows that were left out, as errors.
        ids: The file that maps the numbers to the ids of the source; None: they are the same.
    """

    splits: dict[str, Imported]
    left_out: list[InputError] = field(default_factory=list)
    ids: Path | None = None


@contextmanager
def staged(out: Path, splits: Iterable[str], naming: Naming) -> Iterator[Path]:
    """Give a temporary folder; when the block succeeds, its files move into ``out`` together.

    Raises:
        InputError: ``out`` is a file, or already has a file of one of the splits.
    """
    wanted = [path for split in splits for path in split_files(out, split, naming)]
    for path in (*wanted, out / IDS):
        if path.exists():
            raise InputError(
                tr("The file already exists."),
                where=path,
                hint=tr("Choose another folder, or remove it first."),
            )
    if out.exists() and not out.is_dir():
        raise PathError(tr("This is a file; a folder was expected."), out, "file")
    with new_files(out, queries_last) as stage:
        yield stage
