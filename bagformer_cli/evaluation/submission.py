"""Write and check MUGE's submission file: the ten best images of every query, best first.

One JSON object per line, in either naming of the dataset: ``query_id, query_text, item_ids`` or
``text_id, text, image_ids``. The check rejects all that the public evaluation script rejects, and
two mistakes that the script accepts: JSON ``true`` in place of an id, and two lines for one query.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.data.muge import FIELDS, Naming, Query, iter_queries
from bagformer_cli.data.muge_lines import MAX_ID
from bagformer_cli.data.product_ids import ProductIds
from bagformer_cli.errors import DataError, InputError, cannot_read, first_few, listed, nearest
from bagformer_cli.evaluation.metrics import NO_POSITIVE, NOT_FOUND, Recall, recall
from bagformer_cli.messages import tr
from bagformer_cli.outputs import output_file

PER_QUERY = 10
"""Images of each query in MUGE's submission."""

_SHOWN = 80  # characters of a wrong value in an error


@dataclass(frozen=True, slots=True)
class Prediction:
    """A correct line of a submission.

    Attributes:
        query_id: The query.
        item_ids: Its ten best images, best first.
    """

    query_id: int
    item_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CheckedSubmission:
    """The content of a correct submission.

    Attributes:
        naming: Its field names; None: the file has no line.
        n_queries: Number of queries that it answers.
        unknown: Its queries that the ground truth lacks; the official script ignores them.
        recall: Its recall; None: there is no ground truth, or it has no answers.
        n_without_answers: Queries of the ground truth that name no image; they count as misses.
    """

    naming: Naming | None
    n_queries: int
    unknown: tuple[int, ...] = ()
    recall: Recall | None = None
    n_without_answers: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the figures that ``xmr eval --check --json`` prints, recall in percent."""
        return {
            "naming": self.naming,
            "n_queries": self.n_queries,
            "unknown": list(self.unknown),
            "recall": None if self.recall is None else self.recall.percent(),
            "n_without_answers": self.n_without_answers,
        }


# --------------------------------------------------------------------------------------- writing


def require_pool(path: str | Path, images: int) -> None:
    """Refuse a submission from a pool of fewer than ten images.

    Args:
        path: The submission that is to be written.
        images: Number of images of the split.

    Raises:
        InputError: There are fewer than ten.
    """
    if images < PER_QUERY:
        raise InputError(
            tr("The official file names ten images for every query; the split has fewer."),
            where=path,
            found=tr("{n} images", n=images),
            expected=tr("at least {least}", least=PER_QUERY),
        )


def write_submission(
    path: str | Path,
    queries: Sequence[Query],
    item_ids: NDArray[np.int64] | Sequence[Sequence[int]],
    naming: Naming = "query",
    shop: ProductIds | None = None,
) -> None:
    """Write a submission; the file appears whole.

    Args:
        path: The file.
        queries: Every query of the split, in order.
        item_ids: [Q, 10] ids (not positions) of the images found for each query, best first.
        naming: The field names.
        shop: The shop's ids of images and queries. If there are some, each line also has
            ``shop_ids`` and ``shop_query_id``; the official script reads neither.

    Raises:
        InputError: The pool has fewer than ten images, or a query or an image is repeated.
    """
    rows = np.asarray(item_ids)
    if rows.ndim == 2:
        require_pool(path, rows.shape[1])
    if rows.shape != (len(queries), PER_QUERY):
        raise InputError(
            tr("The official file names exactly ten images for every query."),
            where=path,
            found="x".join(map(str, rows.shape)),
            expected=f"{len(queries)} x {PER_QUERY}",
        )
    if not np.issubdtype(rows.dtype, np.integer):
        raise TypeError(f"image ids must be integers, found {rows.dtype}")
    id_field, text_field, items_field = FIELDS[naming]
    seen: set[int] = set()
    with output_file(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        for query, row in zip(queries, rows.tolist(), strict=True):
            if len(set(row)) < PER_QUERY or query.query_id in seen:
                raise InputError(
                    tr("The official file names ten different images for every query, once."),
                    where=path,
                    found=f"{query.query_id}: {row}",
                )
            seen.add(query.query_id)
            line = {id_field: query.query_id, text_field: query.text, items_field: row}
            if shop is not None and shop.images:
                known = shop.images
                line["shop_ids"] = [known[n].id if n in known else str(n) for n in row]
            if shop is not None and query.query_id in shop.queries:
                line["shop_query_id"] = shop.queries[query.query_id]
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")


# -------------------------------------------------------------------------------------- checking


def check_submission(
    path: str | Path,
    truth: str | Path | Sequence[Query] | None = None,
    pool: Collection[int] | None = None,
) -> CheckedSubmission:
    """Check a submission, and measure its recall if the answers are known.

    Args:
        path: The submission, in either naming.
        truth: The split's queries file, or its queries; each must be answered. None: check each
            line alone.
        pool: Ids of the images that can be answers; None: any whole number.

    Raises:
        InputError: The file does not exist.
        DataError: A line is wrong (the first one is named), or queries have no line.
    """
    path = Path(path)
    queries = None if truth is None else _queries(truth)
    found: dict[int, Prediction] = {}
    errors: list[DataError] = []
    naming: Naming | None = None
    first_line: dict[int, int] = {}
    for number, raw in _lines(path):
        where = f"{path}:{number}"
        try:
            line = _object(raw, where)
            naming = naming or _naming_of(line)
            prediction = _parse(line, naming, where, pool)
            first = first_line.setdefault(prediction.query_id, number)
            if first != number:
                raise DataError(
                    tr("The query {id} is answered twice.", id=prediction.query_id),
                    where=where,
                    found=tr("first on line {line}", line=first),
                )
        except DataError as error:
            errors.append(error)
        else:
            found[prediction.query_id] = prediction
    if errors:
        if len(errors) > 1:
            more = tr("{n} more lines are wrong.", n=f"{len(errors) - 1:,}")
            hint = errors[0].hint
            errors[0].hint = tr("{sentence} {hint}", sentence=hint, hint=more) if hint else more
        raise errors[0]
    if queries is None:
        return CheckedSubmission(naming, len(found))
    missing = [query.query_id for query in queries if query.query_id not in found]
    if missing:
        raise DataError(
            tr("Queries have no prediction."),
            where=path,
            found=tr(
                "{n} of {total} missing: {ids}",
                n=len(missing),
                total=len(queries),
                ids=_some(missing),
            ),
            expected=tr("one line for every query of the split"),
            hint=None if found else tr("The file is empty."),
        )
    known = {query.query_id for query in queries}
    unknown = tuple(query_id for query_id in found if query_id not in known)
    hidden = sum(not query.item_ids for query in queries)
    return CheckedSubmission(naming, len(found), unknown, _score(found, queries), hidden)


def _score(found: dict[int, Prediction], queries: Sequence[Query]) -> Recall | None:
    """Compute recall as the official script does: a query without answers counts as a miss."""
    if not any(query.item_ids for query in queries):
        return None
    ranks = []
    for query in queries:
        wanted = set(query.item_ids)
        hits = [k for k, item in enumerate(found[query.query_id].item_ids) if item in wanted]
        ranks.append(hits[0] if hits else NOT_FOUND if wanted else NO_POSITIVE)
    return recall(np.array(ranks, dtype=np.int64), missing="miss")


def _queries(truth: str | Path | Sequence[Query]) -> Sequence[Query]:
    queries = list(iter_queries(truth)) if isinstance(truth, (str, Path)) else truth
    if not queries:
        raise DataError(
            tr("The ground truth holds no query."),
            where=truth if isinstance(truth, (str, Path)) else None,
        )
    return queries


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        stream = open(path, "rb")  # noqa: SIM115 - the message below is for opening alone
    except OSError as error:
        raise cannot_read(path, error) from error
    with stream:
        for number, raw in enumerate(stream, 1):
            yield number, raw.strip()


def _object(raw: bytes, where: str) -> dict[str, Any]:
    """Parse a line: a JSON object without repeated keys."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        line = dict(pairs)
        if len(line) < len(pairs):
            raise DataError(
                tr("A field is repeated."), where=where, found=listed(key for key, _ in pairs)
            )
        return line

    if not raw:
        raise DataError(
            tr("The line is blank."), where=where, expected=tr("one JSON object on every line")
        )
    try:
        line = json.loads(raw.decode("utf-8"), object_pairs_hook=once)
    except UnicodeDecodeError as error:
        raise DataError(
            tr("The line is not UTF-8."),
            where=where,
            found=raw[error.start : error.start + 8].hex(" ").upper(),
            hint=tr("Save the file as UTF-8."),
        ) from None
    except (ValueError, RecursionError):
        marked = raw.startswith(b"\xef\xbb\xbf")
        raise DataError(
            tr("The line is not JSON."),
            where=where,
            found=_shown(raw.decode("utf-8", "replace")),
            expected=tr("one JSON object on every line"),
            hint=tr("Save the file without a byte-order mark.") if marked else None,
        ) from None
    if not isinstance(line, dict):
        raise DataError(tr("The line is JSON, but not an object."), where=where, found=_shown(line))
    return line


def _naming_of(line: dict[str, Any]) -> Naming:
    return "query" if "query_id" in line or "item_ids" in line else "text"


def _parse(
    line: dict[str, Any], naming: Naming, where: str, pool: Collection[int] | None
) -> Prediction:
    """Check the fields of a line.

    Raises:
        DataError: A field is missing or wrong.
    """
    id_field, _, items_field = FIELDS[naming]
    for field in (id_field, items_field):
        if field not in line:
            near = nearest(field, line)
            raise DataError(
                tr("The field '{field}' is missing.", field=field),
                where=where,
                found=listed(line) or "{}",
                expected=listed(FIELDS[naming]),
                hint=tr("Did you mean {name}?", name=near) if near else None,
            )
    query_id = line[id_field]
    if not _is_id(query_id):
        raise DataError(
            tr("'{field}' is not a whole number.", field=id_field),
            where=where,
            found=_shown(query_id),
            expected=tr("a number without quotes, 0 to 2^63 - 1"),
        )
    return Prediction(query_id, _item_ids(line[items_field], items_field, query_id, where, pool))


def _item_ids(
    items: Any, field: str, query_id: int, where: str, pool: Collection[int] | None
) -> tuple[int, ...]:
    """Check the images of a query: ten different ones of the pool.

    Raises:
        DataError: They are something else.
    """
    if not isinstance(items, list):
        raise DataError(
            tr("'{field}' is not a list.", field=field),
            where=where,
            found=_shown(items),
            expected=tr("ten image ids, best first"),
        )
    if len(items) != PER_QUERY:
        raise DataError(
            tr("The query {id} has the wrong number of images.", id=query_id),
            where=where,
            found=len(items),
            expected=PER_QUERY,
        )
    for rank, item in enumerate(items, 1):
        if not _is_id(item):
            raise DataError(
                tr("Image {rank} of query {id} is not a whole number.", rank=rank, id=query_id),
                where=where,
                found=_shown(item),
                expected=tr("a number without quotes, 0 to 2^63 - 1"),
            )
        if items.index(item) < rank - 1:
            raise DataError(
                tr("The query {id} names the same image twice.", id=query_id),
                where=where,
                found=tr(
                    "{item}, at {first} and {second}",
                    item=item,
                    first=items.index(item) + 1,
                    second=rank,
                ),
            )
        if pool is not None and item not in pool:
            raise DataError(
                tr("Image {rank} of query {id} is not in the pool.", rank=rank, id=query_id),
                where=where,
                found=item,
                hint=tr("Is the file of another split?"),
            )
    return tuple(items)


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_ID  # a bool is an int, but not an id


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _some(ids: Sequence[int], most: int = 10) -> str:
    return first_few(ids, most)
