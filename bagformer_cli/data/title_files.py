"""Files of titles: read line by line, cut into bags by several processes."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any

from bagformer_cli.data.workers import run_jobs
from bagformer_cli.errors import DataError, cannot_read
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.text.bags import TitleEncoder
from bagformer_cli.text.lexicon import Lexicon
from bagformer_cli.text.segmenter import Bag, Segmenter
from bagformer_cli.text.tokenizer import Tokenizer

SPAN = 1 << 20
"""Bytes of titles in one piece of work."""

ALONE_BELOW = 8 << 20
"""A smaller file is not worth starting processes for."""


@cache
def bag_encoder(tokenizer: str, lexicons: tuple[str, ...]) -> TitleEncoder:
    """The encoder over these, made once in a process."""
    return TitleEncoder(Tokenizer.load(tokenizer), Segmenter(Lexicon.load(lexicons)))


def read_titles(path: str | Path) -> Iterator[str]:
    """The lines of a text file, one title each, without their ends; it streams.

    Raises:
        InputError: There is no such file.
        DataError: A line is not UTF-8.
    """
    path = Path(path)
    try:
        with open(path, "rb") as stream:
            for number, raw in enumerate(stream, 1):
                yield _decode(raw, path, number)
    except OSError as error:
        raise cannot_read(path, error) from error


@contextmanager
def seekable(path: Path) -> Iterator[Path]:
    """The file, or a copy of what comes through a pipe; ``-`` is the standard input."""
    if str(path) != "-" and (not path.exists() or path.is_file() or path.is_dir()):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "titles.txt"
        try:
            piped = str(path) == "-"
            with (
                open(0 if piped else path, "rb", closefd=not piped) as stream,
                open(copy, "wb") as out,
            ):
                shutil.copyfileobj(stream, out)
        except OSError as error:
            raise cannot_read(path, error) from error
        yield copy


def _decode(raw: bytes, path: Path, number: int) -> str:
    if number == 1:
        raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        return raw.rstrip(b"\r\n").decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            tr("The line is not UTF-8."),
            where=f"{path}:{number}",
            found=raw[error.start : error.start + 8].hex(" ").upper(),
            hint=tr("Save the file as UTF-8."),
        ) from error


def record(title: str, bags: Sequence[Bag]) -> dict[str, Any]:
    """One title as `xmr bags --json` prints it."""
    found = [
        {"start": b.start, "end": b.end, "text": b.text, "source": b.source, "type": b.type}
        for b in bags
    ]
    return {"text": title, "bags": found}


@dataclass(frozen=True, slots=True)
class _Span:
    path: str
    start: int
    end: int
    tokenizer: str
    lexicons: tuple[str, ...]


def bag_lines(
    path: str | Path,
    tokenizer: str,
    lexicons: Sequence[str],
    *,
    workers: int = 1,
    progress: Progress = SILENT,
) -> Iterator[str]:
    """The bags of every title of a file, as JSON lines, in the order of the file.

    Args:
        path: A title a line.
        tokenizer: What :meth:`Tokenizer.load` takes.
        lexicons: What :meth:`Lexicon.load` takes.
        workers: Processes at the same time.
        progress: Where to report.

    Yields:
        Many lines at once, each with its end.
    """
    path = Path(path)
    bag_encoder(tokenizer, tuple(lexicons))  # the cache is made here, and errors are seen
    try:
        size = path.stat().st_size
    except OSError as error:
        raise cannot_read(path, error) from error
    jobs = [
        _Span(str(path), start, min(size, start + SPAN), tokenizer, tuple(lexicons))
        for start in range(0, size, SPAN)
    ]
    with progress.task(tr("Cutting titles into bags"), total=size, unit=tr("bytes")) as task:
        for job, lines in zip(
            jobs, run_jobs(_bag_span, jobs, workers if size >= ALONE_BELOW else 1), strict=True
        ):
            task.advance(job.end - job.start)
            if lines:  # else a line that began earlier goes through this piece
                yield lines


def _bag_span(job: _Span) -> str:
    """The lines that begin in a range of bytes."""
    encoder = bag_encoder(job.tokenizer, job.lexicons)
    titles: list[str] = []
    with open(job.path, "rb") as stream:
        if job.start:
            stream.seek(job.start - 1)
            stream.readline()  # the rest of a line that began in the span before
        while stream.tell() < job.end:
            at = stream.tell()
            raw = stream.readline()
            try:
                titles.append(_decode(raw, Path(job.path), 1 if at == 0 else 0))
            except DataError as error:
                error.where = f"{job.path}:{_line_number(job.path, at)}"
                raise
    return "".join(json_lines(encoder, titles))


def json_lines(encoder: TitleEncoder, titles: Sequence[str]) -> Iterator[str]:
    """:func:`record` of every title as a line of JSON, without making the objects."""
    tokens = encoder.tokenizer.encode_batch(titles)
    segmenter = encoder.segmenter
    packed = encoder.align(tokens, segmenter.segment_batch(titles))
    offsets = packed.offsets.tolist()
    starts, ends = packed.starts.tolist(), packed.ends.tolist()
    tails: dict[tuple[int, int], str] = {}
    for pair in set(zip(packed.kinds.tolist(), packed.types.tolist(), strict=True)):
        source, kind = segmenter.describe(*pair)
        tails[pair] = f', "source": "{source}", "type": {json.dumps(kind, ensure_ascii=False)}}}'
    ways = [tails[pair] for pair in zip(packed.kinds.tolist(), packed.types.tolist(), strict=True)]
    for i, title in enumerate(titles):
        bags = ", ".join(
            f'{{"start": {start}, "end": {end}, "text": {encode_basestring(title[start:end])}{tail}'
            for start, end, tail in zip(
                starts[offsets[i] : offsets[i + 1]],
                ends[offsets[i] : offsets[i + 1]],
                ways[offsets[i] : offsets[i + 1]],
                strict=True,
            )
        )
        yield f'{{"text": {encode_basestring(title)}, "bags": [{bags}]}}\n'


def _line_number(path: str, at: int) -> int:
    with open(path, "rb") as stream:
        return (
            sum(1 for _ in iter(lambda: stream.readline() if stream.tell() < at else b"", b"")) + 1
        )
