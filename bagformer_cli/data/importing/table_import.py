"""Import a table of (image path, title) as a dataset in MUGE form."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bagformer_cli.data.images import verify
from bagformer_cli.data.importing.rows import Row, read_rows
from bagformer_cli.data.muge import (
    SPLITS,
    MugeImageWriter,
    Naming,
    Query,
    split_files,
    write_queries,
)
from bagformer_cli.errors import DataError, InputError, cannot_read
from bagformer_cli.files import disk_errors
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress

_STEPS = 10_000  # resolution of the shares of validation and test


@dataclass(frozen=True, slots=True)
class Imported:
    """Counts of what was written for one split."""

    queries: int
    images: int
    pairs: int


@dataclass(frozen=True, slots=True)
class TableOptions:
    """Options of an import.

    Args:
        root: Folder that relative image paths start from; None: the table's folder.
        split: Split of rows without a ``split`` value.
        valid: Share of those rows' products, 0 to 1, that goes to validation instead.
        test: The same for test.
        naming: Which of MUGE's namings to write.
        encoding: Encoding of the table (Excel in China often writes ``gb18030``).
        skip_broken: Leave out rows with a missing or broken image, with a warning, instead of
            stopping at the first.
    """

    root: Path | None = None
    split: str = "train"
    valid: float = 0.0
    test: float = 0.0
    naming: Naming = "query"
    encoding: str = "utf-8"
    skip_broken: bool = False


def import_table(
    source: Path,
    out: Path,
    options: TableOptions = TableOptions(),
    progress: Progress = SILENT,
) -> dict[str, Imported]:
    """Write a table of (image path, title) as a dataset in MUGE form.

    Rows with the same title become one query with several images; rows with the same path become
    one image of several queries. Rows that share a title or an image, directly or through others,
    go to the same split.

    Args:
        source: A ``.csv``, ``.tsv`` or ``.jsonl`` file; ``table.COLUMNS`` lists the accepted
            headings. A CSV without headings has the image first and the title second.
        out: The folder to write.
        options: See :class:`TableOptions`.
        progress: Receives the number of images written, and warnings.

    Returns:
        Counts by split.

    Raises:
        DataError: A row is broken; the error names it.
        InputError: The table is missing or empty, or the folder already has such a file.
    """
    if not 0 <= options.valid + options.test < 1 or min(options.valid, options.test) < 0:
        raise InputError(
            tr("The shares of validation and test must leave something for training."),
            found=f"{options.valid} + {options.test}",
            expected=tr("each at least 0, sum below 1"),
        )
    rows = list(read_rows(source, options.encoding))
    if not rows:
        raise InputError(tr("The table is empty."), where=source)
    root = source.parent if options.root is None else options.root
    image_ids = _numbered(
        {row.image: row.image_id for row in rows}, [(row.image, row) for row in rows], "image_id"
    )
    query_ids = _numbered(
        {row.title: row.query_id for row in rows}, [(row.title, row) for row in rows], "query_id"
    )
    splits = _splits_of(rows, options)
    names = [name for name in SPLITS if name in splits.values()]
    written: dict[str, Imported] = {}
    with staged(out, names, options.naming) as stage:
        for name in names:
            queries_path, images_path = split_files(stage, name, options.naming)
            own = [row for row in rows if splits[row.title] == name]
            kept = _write_images(images_path, own, image_ids, root, options.skip_broken, progress)
            answers: dict[str, dict[int, None]] = {}
            for row in own:
                if row.image in kept:
                    answers.setdefault(row.title, {})[image_ids[row.image]] = None
            queries = (Query(query_ids[title], title, tuple(ids)) for title, ids in answers.items())
            write_queries(queries_path, queries, options.naming)
            pairs = sum(len(ids) for ids in answers.values())
            written[name] = Imported(len(answers), len(kept), pairs)
    return written


@contextmanager
def staged(out: Path, splits: Iterable[str], naming: Naming) -> Iterator[Path]:
    """Give a temporary folder; when the block succeeds, its files move into ``out`` together.

    Raises:
        InputError: ``out`` already has a file of one of the splits.
    """
    for split in splits:
        for path in split_files(out, split, naming):
            if path.exists():
                raise InputError(
                    tr("The file already exists."),
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
    """Give every key an id: the one in its rows, else the next free number from 1.

    Args:
        given: Keys (titles or image paths) in the order of their first row.
        uses: Every key with its row.
        name: The field of a row that may hold the id.

    Raises:
        DataError: A key has two ids, or an id two keys.
    """
    ids: dict[str, int] = {}
    owners: dict[int, str] = {}
    for key, row in uses:
        number = getattr(row, name)
        if number is None:
            continue
        if ids.setdefault(key, number) != number or owners.setdefault(number, key) != key:
            raise DataError(
                tr("The {name} contradicts an earlier row.", name=name),
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


def _splits_of(rows: list[Row], options: TableOptions) -> dict[str, str]:
    """Choose the split of each title.

    Titles and images are the nodes of a graph, rows its edges; a connected component goes to one
    split. Components are found with a disjoint-set forest: ``parent`` leads each node to the root
    that names its component.
    """
    parent: dict[str, str] = {}

    def component(node: str) -> str:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]  # path halving keeps later walks short
            node = parent[node]
        return node

    for row in rows:
        parent[component(f"t{row.title}")] = component(f"i{row.image}")
    given: dict[str, str] = {}
    for row in rows:
        own = component(f"t{row.title}")
        if row.split is not None and given.setdefault(own, row.split) != row.split:
            raise DataError(
                tr(
                    "This row belongs to another split: it shares a title or an image with earlier "
                    "rows."
                ),
                where=row.where,
                found=row.split,
                expected=given[own],
            )
    splits = {}
    for row in rows:
        own = component(f"t{row.title}")
        # A hash, not a random number: the same component is drawn to the same split every time.
        digest = hashlib.blake2b(own.encode(), digest_size=8).digest()
        draw = int.from_bytes(digest, "big") % _STEPS / _STEPS
        drawn = options.split
        if draw < options.valid:
            drawn = "valid"
        elif draw < options.valid + options.test:
            drawn = "test"
        splits[row.title] = given.get(own, drawn)
    return splits


def _write_images(
    path: Path,
    rows: list[Row],
    ids: dict[str, int],
    root: Path,
    skip_broken: bool,
    progress: Progress,
) -> set[str]:
    """Write each image of ``rows`` once; return the paths of those that are good."""
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
