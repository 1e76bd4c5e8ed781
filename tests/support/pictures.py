"""Draw a photo, break images inside, and read and write files of images by hand."""

from __future__ import annotations

import base64
import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def photo(size: tuple[int, int] = (48, 40)) -> Image.Image:
    """A picture whose corners differ in colour and brightness."""
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (3, 4, 3), np.uint8)
    small[0, 0], small[-1, -1] = 255, 0
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


# Broken inside.
def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        len(content).to_bytes(4, "big")
        + kind
        + content
        + zlib.crc32(kind + content).to_bytes(4, "big")
    )


def broken_png() -> bytes:
    """A PNG whose header and end are right, and whose pixels end in the middle."""
    stream = io.BytesIO()
    photo((64, 64)).save(stream, "PNG")
    data = stream.getvalue()
    start = data.index(b"IDAT") - 4
    size = int.from_bytes(data[start : start + 4], "big")
    content = bytearray(data[start + 8 : start + 8 + size])
    content[size // 2 : size // 2 + 40] = bytes(40)
    return data[:start] + chunk(b"IDAT", bytes(content)) + chunk(b"IEND", b"")


def broken_jpeg() -> bytes:
    """A JPEG whose end mark stands where its second half should be."""
    random = np.random.default_rng(1)
    stream = io.BytesIO()
    noise = Image.fromarray(random.integers(0, 256, (600, 600, 3), np.uint8))
    noise.save(stream, "JPEG", quality=95)
    data = stream.getvalue()
    middle = data.index(b"\xff\xda") + 200
    # An unknown marker inside the scan: the decoder stops with an error there.
    return data[:middle] + b"\xff\xb1" + data[middle + 2 : middle + 90_000] + b"\xff\xd9"


BROKEN = {"png": broken_png, "jpeg": broken_jpeg}


def write_images(folder: Path, split: str, images: dict[int, bytes]) -> Path:
    """Write a split of a dataset by hand: a query for each image."""
    folder.mkdir(parents=True, exist_ok=True)
    queries = [
        json.dumps({"query_id": number, "query_text": f"红裙{number}", "item_ids": [number]})
        for number in images
    ]
    (folder / f"MR_{split}_queries.jsonl").write_text("\n".join(queries) + "\n")
    lines = [f"{number}\t{base64.b64encode(data).decode()}\n" for number, data in images.items()]
    (folder / f"MR_{split}_imgs.tsv").write_text("".join(lines))
    return folder


def arrow_vectors(folder: Path) -> np.ndarray:
    """All numbers of the image vectors of ``xmr encode``'s files, product by product."""
    import pyarrow as pa

    found = []
    for file in sorted(folder.rglob("*.arrow")):
        with pa.memory_map(str(file)) as stream:
            try:
                table = pa.ipc.open_file(stream).read_all()
            except pa.ArrowInvalid:
                stream.seek(0)
                table = pa.ipc.open_stream(stream).read_all()
            columns = [c for c in table.column_names if c.startswith("image") and "vector" in c]
            rows = zip(*(table[name].to_pylist() for name in columns), strict=True)
            found += [list(row) for row in rows]
    flat: list[float] = []

    def collect(value: Any) -> None:
        if isinstance(value, (list, np.ndarray)):
            for one in value:
                collect(one)
        elif value is not None:
            flat.append(float(value))

    collect(found)
    assert flat
    return np.array(flat)
