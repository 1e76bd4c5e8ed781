"""Small datasets in MUGE form, for tests."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from bagformer_cli.data.muge import (
    IMAGES_NAME,
    QUERIES_NAME,
    MugeFolder,
    MugeImageWriter,
    Naming,
    Query,
    write_queries,
)


def picture(seed: int = 0, size: tuple[int, int] = (24, 20), form: str = "PNG") -> bytes:
    """A picture file with smooth random colours."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (4, 5, 3), np.uint8))
    stream = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).save(stream, form)
    return stream.getvalue()


def write_split(
    folder: Path,
    split: str = "train",
    queries: Sequence[tuple[int, str, Iterable[int]]] = (
        (1, "红色连衣裙", (10,)),
        (2, "包", (11,)),
    ),
    images: Sequence[tuple[int, bytes]] | None = None,
    naming: Naming = "query",
) -> MugeFolder:
    """Write one split; without ``images``, one picture for each id that a query names."""
    folder.mkdir(parents=True, exist_ok=True)
    if images is None:
        ids = dict.fromkeys(i for _, _, items in queries for i in items)
        images = [(number, picture(number)) for number in ids]
    write_queries(
        folder / QUERIES_NAME[naming].format(split=split),
        (Query(number, text, tuple(items)) for number, text, items in queries),
        naming,
    )
    with MugeImageWriter(folder / IMAGES_NAME[naming].format(split=split)) as writer:
        for number, data in images:
            writer.write(number, data)
    return MugeFolder(folder)


def image_line(number: object, data: bytes) -> bytes:
    """A line of an images file."""
    return f"{number}\t".encode() + base64.b64encode(data) + b"\n"


def query_line(number: object, text: object, items: object) -> bytes:
    """A line of a queries file, whatever the types."""
    line = {"query_id": number, "query_text": text, "item_ids": items}
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"
