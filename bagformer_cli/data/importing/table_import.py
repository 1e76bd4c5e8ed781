"""Import a table of (image path, title) as a dataset in MUGE form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bagformer_cli.data.downloads import Download
from bagformer_cli.data.image_cells import SeveralImages
from bagformer_cli.data.image_files import ImageAccess, image_error, place_of
from bagformer_cli.data.images import verify
from bagformer_cli.data.importing.numbering import Names, ids_to_keep, image_names, numbers_of
from bagformer_cli.data.importing.rows import Row, read_rows
from bagformer_cli.data.importing.splits import divide
from bagformer_cli.data.importing.staging import Imported, ImportResult, staged
from bagformer_cli.data.left_out import LeftOut
from bagformer_cli.data.muge import (
    MugeImageWriter,
    Naming,
    Query,
    split_files,
    write_queries,
)
from bagformer_cli.data.product_ids import FILE_NAME as IDS
from bagformer_cli.data.product_ids import ImageName, ProductIds, id_lines
from bagformer_cli.data.table import remarks_of
from bagformer_cli.data.table_formats import unreadable_kind
from bagformer_cli.errors import DataError, InputError
from bagformer_cli.files import write_text
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """Options of an import.

    Args:
        root: Folder that relative image paths start from, and that images must be inside; None:
            the table's folder, and images may be anywhere.
        split: Split of rows without a ``split`` value.
        valid: Share of those rows' products, 0 to 1, that goes to validation instead.
        test: The same for test.
        naming: Which of MUGE's namings to write.
        encoding: Encoding of the table (Excel in China often writes ``gb18030``).
        strict: Stop at the first row that cannot be imported instead of leaving it out.
        download: Which addresses of images are downloaded.
        columns: Role (``image``, ``title``, ``id``) to the heading of its column, where the user
            named it.
        sheet: Name or number of a workbook's sheet; None: the first one.
    """

    root: Path | None = None
    split: str = "train"
    valid: float = 0.0
    test: float = 0.0
    naming: Naming = "query"
    encoding: str = "utf-8"
    strict: bool = False
    download: Download = "public"
    columns: Mapping[str, str] = field(default_factory=dict)
    sheet: str | None = None


def import_table(
    source: Path,
    out: Path,
    options: ImportOptions = ImportOptions(),
    progress: Progress = SILENT,
) -> ImportResult:
    """Write a table of (image path, title) as a dataset in MUGE form.

    Rows with the same title become one query with several images; rows with the same path become
    one image of several queries. Rows that share a title or an image, directly or through others,
    go to the same split. A row that cannot be imported is left out, named and counted. Ids that are
    no numbers are kept in ``ids.jsonl``.

    Args:
        source: A ``.csv``, ``.tsv``, ``.jsonl`` or ``.xlsx`` file; ``data/columns.py`` lists the
            accepted headings. A CSV without headings has the image first and the title second.
        out: The folder to write.
        options: See :class:`ImportOptions`.
        progress: Receives the number of images written, and warnings.

    Raises:
        DataError: ``options.strict``, and a row is broken; the error names it.
        InputError: The table is missing or empty, no row of it can be imported, or the folder
            already has such a file.
    """
    if not 0 <= options.valid + options.test < 1 or min(options.valid, options.test) < 0:
        raise InputError(
            tr("The shares of validation and test must leave something for training."),
            where="--valid, --test",
            found=f"{options.valid:g} + {options.test:g}",
            expected=tr("each at least 0, sum below 1"),
        )
    if options.root is not None and not options.root.is_dir():
        raise InputError(
            tr("--images names no folder."),
            where=options.root,
            hint=tr("It is the folder that relative image paths of the table start from."),
        )
    left_out = LeftOut(progress, strict=options.strict, in_order_of=source)
    if source.is_file() and (error := unreadable_kind(source)) is not None:
        raise error
    several = SeveralImages()
    rows, image_ids, query_ids = _read(source, options, left_out, several)
    for remark in (*remarks_of(source, options.sheet), several.remark):
        if remark is not None:
            progress.warn(remark)
    parts = divide(rows, left_out, options.split, options.valid, options.test)
    if not parts:
        raise left_out.nothing_left(
            tr("Nothing can be imported.") if left_out.errors else tr("The table is empty."), source
        )
    numbers = _number(rows, image_ids, query_ids)
    root = source.parent if options.root is None else options.root
    work = _Work(options, root, left_out, progress)
    written: dict[str, Imported] = {}
    good: list[Row] = []
    with staged(out, parts, options.naming) as stage:
        for name, own in parts.items():
            kept = _write_split(stage, name, own, numbers, work)
            if kept:
                images, titles = ({row.image for row in kept}, {row.title for row in kept})
                pairs = {(row.title, row.image) for row in kept}
                written[name] = Imported(len(titles), len(images), len(pairs))
            good += kept
        if not written:
            raise left_out.nothing_left(tr("Nothing can be imported."), source)
        ids = _ids(good, numbers)
        has_ids = bool(ids.images or ids.queries)
        if has_ids:
            write_text(stage / IDS, "".join(f"{line}\n" for line in id_lines(ids)))
    left_out.finish()
    return ImportResult(written, left_out.errors, out / IDS if has_ids else None)


class _Numbers(NamedTuple):
    """The numbers of images (by path or address) and of queries (by title), and their names.

    Images and queries without an id in the table have no name.
    """

    images: dict[str, int]
    queries: dict[str, int]
    image_names: dict[str, ImageName]
    query_names: dict[str, str]


class _Work(NamedTuple):
    """The options of an import, the folder of relative paths, and who receives messages."""

    options: ImportOptions
    root: Path
    left_out: LeftOut
    progress: Progress


def _read(
    source: Path, options: ImportOptions, left_out: LeftOut, several: SeveralImages
) -> tuple[list[Row], Names, Names]:
    """Read the good rows, and the ids that they give to images and to queries."""
    rows: list[Row] = []
    image_ids, query_ids = Names("image_id"), Names("query_id")
    for row in read_rows(source, options.encoding, options.columns, options.sheet, several):
        try:
            if isinstance(row, DataError):
                raise row
            image_ids.give(row.image, row.image_id, row.where)
            query_ids.give(row.title, row.query_id, row.where)
        except DataError as error:
            left_out(error)
        else:
            rows.append(row)
    return rows, image_ids, query_ids


def _number(rows: list[Row], image_ids: Names, query_ids: Names) -> _Numbers:
    """Number all images and titles."""
    names = image_names(rows, image_ids)
    images = numbers_of(
        dict.fromkeys(row.image for row in rows), {image: name.id for image, name in names.items()}
    )
    titles = dict.fromkeys(row.title for row in rows)
    given = {title: name for title in titles if (name := query_ids.get(title)) is not None}
    return _Numbers(images, numbers_of(titles, given), names, given)


def _ids(rows: list[Row], numbers: _Numbers) -> ProductIds:
    """Collect the ids of the rows that their numbers do not say."""
    images, titles = {row.image for row in rows}, {row.title for row in rows}
    return ids_to_keep(
        {image: name for image, name in numbers.image_names.items() if image in images},
        numbers.images,
        {title: name for title, name in numbers.query_names.items() if title in titles},
        numbers.queries,
    )


def _write_split(
    stage: Path, name: str, rows: list[Row], numbers: _Numbers, work: _Work
) -> list[Row]:
    """Write the files of a split, if it has a good image; return the rows with good images."""
    queries_path, images_path = split_files(stage, name, work.options.naming)
    kept = _write_images(images_path, rows, numbers.images, work)
    if not kept:
        images_path.unlink()
        return []
    good = [row for row in rows if row.image in kept]
    answers: dict[str, dict[int, None]] = {}
    for row in good:
        answers.setdefault(row.title, {})[numbers.images[row.image]] = None
    write_queries(
        queries_path,
        (Query(numbers.queries[title], title, tuple(ids)) for title, ids in answers.items()),
        work.options.naming,
    )
    return good


def _write_images(path: Path, rows: list[Row], numbers: dict[str, int], work: _Work) -> set[str]:
    """Write each image of ``rows`` once; return those that are good, as the rows name them."""
    users: dict[str, list[Row]] = {}
    for row in rows:
        users.setdefault(row.image, []).append(row)
    access = ImageAccess(work.options.root, work.options.download)
    places = [place_of(image, work.root) for image in users]
    kept = set()
    with (
        MugeImageWriter(path) as writer,
        work.progress.task(path.name, len(users), tr("{n} images", n="{n}")) as task,
    ):
        contents = access.read_all(places)
        for (image, own), place, data in zip(users.items(), places, contents, strict=True):
            try:
                if isinstance(data, InputError):
                    raise data
                verify(data, place)
            except InputError as error:
                for row in own:
                    work.left_out(image_error(row.where, error))
            else:
                writer.write(numbers[image], data)
                kept.add(image)
            task.advance()
    return kept
