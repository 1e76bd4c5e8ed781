"""Files with one title per line: read as a stream, segmented into bags by several processes.

``xmr bags --input`` prints one JSON line per title, in the order of the file. The file is divided
into byte ranges; each process loads the encoder once and turns ranges into JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache, partial
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any

from bagformer_cli.data.byte_ranges import ByteRange, byte_ranges, decode_line, line_number
from bagformer_cli.data.workers import run_jobs
from bagformer_cli.errors import DataError, InputError
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.text.bags import TitleEncoder
from bagformer_cli.text.lexicon import Lexicon
from bagformer_cli.text.segmenter import Bag, Segmenter
from bagformer_cli.text.tokenizer import Tokenizer

RANGE_BYTES = 1 << 20
"""Bytes of titles per job."""

ALONE_BELOW = 8 << 20
"""Files of fewer bytes are segmented in this process: starting others would take longer."""


@cache
def bag_encoder(tokenizer: str, lexicons: tuple[str, ...]) -> TitleEncoder:
    """Load a title encoder; each process loads it once."""
    return TitleEncoder(Tokenizer.load(tokenizer).folding(), Segmenter(Lexicon.load(lexicons)))


def read_titles(path: str | Path) -> Iterator[str]:
    """Read a text file line by line: one title per line, without line ends.

    Raises:
        InputError: The file cannot be read, or has no line.
        DataError: A line is not UTF-8.
    """
    path = Path(path)
    number = 0
    for number, line in enumerate(ByteRange(path).lines(), 1):
        try:
            title = decode_line(line.content)
        except DataError as error:
            error.where = f"{path}:{number}"
            raise
        yield title
    if not number:
        raise _no_titles(path)


def _no_titles(path: str | Path) -> InputError:
    return InputError(
        tr("The file has no titles."), where=path, expected=tr("one title on each line")
    )


def record(title: str, bags: Sequence[Bag]) -> dict[str, Any]:
    """Make the JSON object that ``xmr bags --json`` prints for a title."""
    found = [
        {"start": b.start, "end": b.end, "text": b.text, "source": b.source, "type": b.type}
        for b in bags
    ]
    return {"text": title, "bags": found}


def bag_lines(
    path: str | Path,
    tokenizer: str,
    lexicons: Sequence[str],
    *,
    workers: int = 1,
    progress: Progress = SILENT,
) -> Iterator[str]:
    """Segment every title of a file; yield JSON lines in the order of the file.

    Args:
        path: A file with one title per line.
        tokenizer: See :meth:`Tokenizer.load`.
        lexicons: See :meth:`Lexicon.load`.
        workers: Number of processes.
        progress: Receives the number of bytes done.

    Yields:
        The JSON lines of one byte range, each with its line end.

    Raises:
        InputError: The file, the tokenizer or a lexicon cannot be read, or the file is empty.
        DataError: A line is not UTF-8.
    """
    names = tuple(lexicons)
    bag_encoder(tokenizer, names)  # loaded here first: errors are raised, and the cache is written
    ranges = byte_ranges(Path(path), RANGE_BYTES)
    if not ranges:
        raise _no_titles(path)
    size = ranges[-1].end or 0
    found = run_jobs(
        partial(_bag_range, tokenizer, names), ranges, workers if size >= ALONE_BELOW else 1
    )
    with progress.task(
        tr("Cutting titles into bags"), total=size, amount=tr("{n} bytes", n="{n}")
    ) as task:
        for part, lines in zip(ranges, found, strict=True):
            task.advance((part.end or 0) - part.begin)
            if lines:  # empty if one long line fills the whole range
                yield lines


def _bag_range(tokenizer: str, lexicons: tuple[str, ...], part: ByteRange) -> str:
    """Segment the titles of one byte range; runs in any process."""
    titles = []
    for line in part.lines():
        try:
            titles.append(decode_line(line.content))
        except DataError as error:
            error.where = f"{part.path}:{line_number(part.path, line.begin)}"
            raise
    return "".join(json_lines(bag_encoder(tokenizer, lexicons), titles))


def json_lines(encoder: TitleEncoder, titles: Sequence[str]) -> Iterator[str]:
    """Write :func:`record` of every title as a JSON line.

    The text is put together from the packed arrays: making the objects first takes longer than
    the segmentation.
    """
    tokens = encoder.tokenizer.encode_batch(titles)
    segmenter = encoder.segmenter
    packed = encoder.align(tokens, segmenter.segment_batch(titles))
    offsets = packed.offsets.tolist()
    starts, ends = packed.starts.tolist(), packed.ends.tolist()
    tails: dict[tuple[int, int], str] = {}
    for pair in set(zip(packed.kinds.tolist(), packed.types.tolist(), strict=True)):
        source, kind = segmenter.describe(*pair)
        tails[pair] = f', "source": "{source}", "type": {json.dumps(kind, ensure_ascii=False)}}}'
    endings = [
        tails[pair] for pair in zip(packed.kinds.tolist(), packed.types.tolist(), strict=True)
    ]
    for i, title in enumerate(titles):
        bags = ", ".join(
            f'{{"start": {start}, "end": {end}, "text": {encode_basestring(title[start:end])}{tail}'
            for start, end, tail in zip(
                starts[offsets[i] : offsets[i + 1]],
                ends[offsets[i] : offsets[i + 1]],
                endings[offsets[i] : offsets[i + 1]],
                strict=True,
            )
        )
        yield f'{{"text": {encode_basestring(title)}, "bags": [{bags}]}}\n'
