"""A CSV or JSONL of (image path, title) to a dataset in MUGE form."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bagformer_cli.data.images import verify
from bagformer_cli.data.muge import (
    IMAGES_NAME,
    QUERIES_NAME,
    SPLITS,
    MugeImageWriter,
    Naming,
    Query,
    write_queries,
)
from bagformer_cli.data.table import Row, read_table
from bagformer_cli.errors import DataError, InputError, cannot_read
from bagformer_cli.files import disk_errors
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress

_SHARES = 10_000


@dataclass(frozen=True, slots=True)
class Imported:
    """What was written for one split."""

    queries: int
    images: int
    pairs: int


def import_table(
    source: Path,
    out: Path,
    *,
    root: Path | None = None,
    split: str = "train",
    valid: float = 0.0,
    test: float = 0.0,
    naming: Naming = "query",
    encoding: str = "utf-8",
    skip_broken: bool = False,
    progress: Progress = SILENT,
) -> dict[str, Imported]:
    """Bring a table of (image path, title) into MUGE form.

    Lines with the same title are one query with several images; lines with the same path are one
    image of several queries. What is linked stays in one split.

    Args:
        source: A ``.csv``, ``.tsv`` or ``.jsonl`` file; ``tables.COLUMNS`` says what its columns
            may be called. A CSV without a header has the image first and the title second.
        out: The folder to write.
        root: What relative image paths start from; None: the table's folder.
        split: Where lines go that name no split of their own.
        valid: Share of the products, 0 to 1, that goes to the validation split instead.
        test: The same for the test split.
        naming: Which of MUGE's namings to write.
        encoding: Of the table (Excel in China often writes ``gb18030``).
        skip_broken: Leave out lines whose image is missing or broken, with a warning.
        progress: Where to report.

    Returns:
        What was written, by split.

    Raises:
        DataError: A line is broken; the error names it.
        InputError: The table is missing or empty, or the folder holds a dataset already.
    """
    if not 0 <= valid + test < 1 or min(valid, test) < 0:
        raise InputError(
            tr("The shares of validation and test must leave something for training."),
            found=f"{valid} + {test}",
            expected=tr("each from 0, together below 1"),
        )
    rows = list(read_table(source, encoding))
    if not rows:
        raise InputError(tr("The table is empty."), where=source)
    root = source.parent if root is None else root
    image_ids = _numbered(
        {row.image: row.image_id for row in rows}, [(row.image, row) for row in rows], "image_id"
    )
    query_ids = _numbered(
        {row.title: row.query_id for row in rows}, [(row.title, row) for row in rows], "query_id"
    )
    owner = _splits_of(rows, split, valid, test)
    names = [name for name in SPLITS if name in owner.values()]
    written: dict[str, Imported] = {}
    with staged(out, names, naming) as stage:
        for name in names:
            queries_path, images_path = split_paths(stage, name, naming)
            own = [row for row in rows if owner[row.title] == name]
            kept = _write_images(images_path, own, image_ids, root, skip_broken, progress)
            answers: dict[str, dict[int, None]] = {}
            for row in own:
                if row.image in kept:
                    answers.setdefault(row.title, {})[image_ids[row.image]] = None
            queries = (Query(query_ids[title], title, tuple(ids)) for title, ids in answers.items())
            write_queries(queries_path, queries, naming)
            pairs = sum(len(ids) for ids in answers.values())
            written[name] = Imported(len(answers), len(kept), pairs)
    return written


def split_paths(folder: Path, split: str, naming: Naming) -> tuple[Path, Path]:
    """The queries file and the images file of a split."""
    names = (QUERIES_NAME[naming], IMAGES_NAME[naming])
    return folder / names[0].format(split=split), folder / names[1].format(split=split)


@contextmanager
def staged(out: Path, splits: Iterable[str], naming: Naming) -> Iterator[Path]:
    """A folder whose files move into ``out`` together, when the block succeeds.

    Raises:
        InputError: ``out`` holds one of the splits already.
    """
    for split in splits:
        for path in split_paths(out, split, naming):
            if path.exists():
                raise InputError(
                    tr("The file is there already."),
                    where=path,
                    hint=tr("Choose another folder, or remove it first."),
                )
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{out.name}.", suffix=".part", dir=out.parent) as stage:
            yield Path(stage)
            out.mkdir(exist_ok=True)
            for path in sorted(Path(stage).iterdir()):
                path.replace(out / path.name)


def _numbered(
    given: dict[str, int | None], uses: list[tuple[str, Row]], name: str
) -> dict[str, int]:
    """An id for every key: the one its lines give, else the next free number."""
    ids: dict[str, int] = {}
    owners: dict[int, str] = {}
    for key, row in uses:
        number = getattr(row, name)
        if number is None:
            continue
        if ids.setdefault(key, number) != number or owners.setdefault(number, key) != key:
            raise DataError(
                tr("The {name} contradicts an earlier line.", name=name),
                where=row.where,
                found=f"{number}: {key}",
                expected=f"{ids[key]}: {owners.get(number, key)}",
            )
    number = 0
    for key in given:
        if key not in ids:
            number += 1
            while number in owners:
                number += 1
            ids[key] = number
    return ids


def _splits_of(rows: list[Row], split: str, valid: float, test: float) -> dict[str, str]:
    """The split of each title; titles that share an image stay together."""
    root: dict[str, str] = {}

    def find(key: str) -> str:
        while root.setdefault(key, key) != key:
            root[key] = root[root[key]]
            key = root[key]
        return key

    for row in rows:
        root[find(f"t{row.title}")] = find(f"i{row.image}")
    own: dict[str, str] = {}
    for row in rows:
        group = find(f"t{row.title}")
        if row.split is not None and own.setdefault(group, row.split) != row.split:
            raise DataError(
                tr("The product is in another split already: it shares a title or an image."),
                where=row.where,
                found=row.split,
                expected=own[group],
            )
    result = {}
    for row in rows:
        group = find(f"t{row.title}")
        digest = hashlib.blake2b(group.encode(), digest_size=8).digest()
        draw = int.from_bytes(digest, "big") % _SHARES / _SHARES
        by_chance = "valid" if draw < valid else "test" if draw < valid + test else split
        result[row.title] = own.get(group, by_chance)
    return result


def _write_images(
    path: Path,
    rows: list[Row],
    ids: dict[str, int],
    root: Path,
    skip_broken: bool,
    progress: Progress,
) -> set[str]:
    """Write each image of ``rows`` once; the paths of those that were good."""
    first = {row.image: row for row in reversed(rows)}
    kept = set()
    with (
        MugeImageWriter(path) as writer,
        progress.task(path.name, len(first), tr("pictures")) as task,
    ):
        for image in dict.fromkeys(row.image for row in rows):
            where = first[image].where
            try:
                data = _image(root / image, where)
            except InputError as error:
                if not skip_broken:
                    raise
                progress.warn(tr("left out: {error}", error=error))
            else:
                writer.write(ids[image], data)
                kept.add(image)
            task.advance()
    return kept


def _image(path: Path, where: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            tr("The image of this line cannot be read."),
            where=where,
            found=cannot_read(path, error),
        ) from None
    verify(data, where=f"{where} ({path})")
    return data
