"""Regions of images: read from files, and extracted for datasets that have no such file.

A regions file is a TSV with one image per line::

    image id <tab> base64 of float32 [n, F] <tab> labels as JSON <tab> base64 of float32 [n, 4]

Labels and boxes (x1, y1, x2, y2 as shares of the image's sides) may be missing. Only the offset of
each line is kept in memory: memory does not grow with the size of the regions.

Shapes: n regions of an image, B images of a batch, R regions of the batch's image that has most,
F features of a region.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bagformer_cli.config import RegionsConfig
from bagformer_cli.data.byte_ranges import ByteRange
from bagformer_cli.data.store.split import Split
from bagformer_cli.errors import DataError, InputError
from bagformer_cli.files import atomic_file
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress

Floats = NDArray[np.float32]

GRIDS = ((1, 1), (2, 2), (3, 3), (4, 4), (1, 2))
"""Rows and columns of the grids of crops: 32 crops in all, the whole image first."""
CROP = 12
"""Side of a crop in pixels."""
HIDDEN = 256
"""Width of the hidden layer of the fixed network."""


@dataclass(frozen=True)
class Regions:
    """The regions of one image.

    Attributes:
        features: [n, F].
        boxes: [n, 4], shares of the image's sides; None: not given.
        labels: Class of each region; None: not given.
    """

    features: Floats
    boxes: Floats | None = None
    labels: Sequence[str] | None = None


class RegionFile:
    """A regions file; the regions of an image are read on access.

    Args:
        path: The TSV.
        config: Number of features of a region, and of regions that are used.

    Raises:
        InputError: The file does not exist.
    """

    def __init__(self, path: Path, config: RegionsConfig) -> None:
        self.path, self.config = path, config
        if not path.is_file():
            raise InputError(
                tr("The regions file does not exist."),
                where=path,
                hint=tr("Create it with: xmr data regions FOLDER. Or set image.regions.files."),
            )

    @classmethod
    def of(cls, split: Split, config: RegionsConfig) -> RegionFile:
        """Open the file of a split: in the dataset's folder, or where the configuration says."""
        name = config.files.format(split=split.name)
        return cls(split.dataset / name, config)

    @cached_property
    def _offsets(self) -> dict[int, int]:
        """Image id to the offset of its line."""
        offsets: dict[int, int] = {}
        for number, line in enumerate(ByteRange(self.path).lines(), 1):
            image_id = line.raw.split(b"\t", 1)[0]
            if not image_id.isdigit():
                raise self._broken(number, line.raw)
            offsets[int(image_id)] = line.begin
        return offsets

    def __getitem__(self, image_id: int) -> Regions:
        """Read the regions of an image.

        Raises:
            DataError: The file lacks the image, or its line is broken.
        """
        begin = self._offsets.get(int(image_id))
        if begin is None:
            raise DataError(
                tr("An image is missing from the regions file."), where=self.path, found=image_id
            )
        with self.path.open("rb") as stream:
            stream.seek(begin)
            line = stream.readline()
        fields = line.rstrip(b"\r\n").split(b"\t")
        try:
            features = np.frombuffer(base64.b64decode(fields[1], validate=True), "<f4")
            features = features.reshape(-1, self.config.width)
            labels = json.loads(fields[2]) if len(fields) > 2 and fields[2] else None
            boxes = None
            if len(fields) > 3 and fields[3]:
                boxes = np.frombuffer(base64.b64decode(fields[3], validate=True), "<f4")
                boxes = boxes.reshape(len(features), 4)
        except (IndexError, ValueError, binascii.Error) as error:
            raise self._broken(image_id, line) from error
        if not len(features) or not np.isfinite(features).all():
            raise self._broken(image_id, line)
        if self.config.boxes and boxes is None:
            raise DataError(
                tr("The regions file has no boxes, but image.regions.boxes is set."),
                where=self.path,
                found=tr("image {id}", id=image_id),
            )
        return Regions(features, boxes, labels)

    def batch(self, image_ids: Iterable[int]) -> Floats:
        """Read the first regions of B images: [B, R, F + 5], padded with zeros.

        A row is the F features, the box, and a 1; padding has a 0 there.
        """
        found = [self[number] for number in image_ids]
        most = self.config.maximum
        longest = min(most, max(len(regions.features) for regions in found))
        width = self.config.width
        rows = np.zeros((len(found), longest, width + 5), np.float32)
        for row, regions in zip(rows, found, strict=True):
            n = min(longest, len(regions.features))
            row[:n, :width] = regions.features[:n]
            if regions.boxes is not None:
                row[:n, width : width + 4] = regions.boxes[:n]
            row[:n, -1] = 1
        return rows

    def _broken(self, which: int, line: bytes) -> DataError:
        return DataError(
            tr("A line of the regions file has the wrong format."),
            where=f"{self.path}: {which}",
            found=repr(line[:40]),
            expected=tr(
                "image id, tab, base64 of float32 [n, {width}] (, tab, labels, tab, boxes)",
                width=self.config.width,
            ),
        )


def write_regions(path: str | Path, regions: Iterable[tuple[int, Regions]]) -> int:
    """Write a regions file, which appears only when it is complete; return its number of images."""
    count = 0
    with atomic_file(path) as temporary, temporary.open("wb") as stream:
        for number, found in regions:
            fields = [str(number).encode(), _encoded(found.features)]
            if found.labels is not None or found.boxes is not None:
                fields.append(json.dumps(found.labels or [], ensure_ascii=False).encode())
            if found.boxes is not None:
                fields.append(_encoded(found.boxes))
            stream.write(b"\t".join(fields) + b"\n")
            count += 1
    return count


def crop_regions(
    split: Split, width: int, progress: Progress = SILENT
) -> Iterable[tuple[int, Regions]]:
    """Extract regions of every image of a split: crops on grids, through a small fixed network.

    The network is two random layers, drawn from a fixed seed, over 12 x 12 pixels. It is not
    trained, but equal crops give equal features, and similar crops similar ones.
    """
    random = np.random.default_rng(2048)
    pixels = CROP * CROP * 3
    first = random.standard_normal((pixels, HIDDEN), np.float32) / np.sqrt(pixels)
    second = random.standard_normal((HIDDEN, width), np.float32) / np.sqrt(HIDDEN)
    boxes = np.array(
        [
            (column / columns, row / rows, (column + 1) / columns, (row + 1) / rows)
            for rows, columns in GRIDS
            for row in range(rows)
            for column in range(columns)
        ],
        np.float32,
    )
    labels = [f"{rows}x{columns}" for rows, columns in GRIDS for _ in range(rows * columns)]
    with progress.task(
        tr("Regions of {split}", split=split.name), len(split.image_ids), tr("{n} images", n="{n}")
    ) as task:
        for position, number in enumerate(split.image_ids.tolist()):
            image = split.image(position)
            crops = np.stack([_crop(image, box) for box in boxes])
            features = np.maximum((crops.reshape(len(boxes), -1) - 0.5) @ first, 0) @ second
            yield number, Regions(features.astype(np.float32), boxes, labels)
            task.advance()


def _crop(image: Image.Image, box: Floats) -> Floats:
    """Scale a part of an image to 12 x 12 pixels: [12, 12, 3] in [0, 1]."""
    width, height = image.size
    left, top, right, bottom = (box * (width, height, width, height)).tolist()
    small = image.resize((CROP, CROP), Image.Resampling.BOX, box=(left, top, right, bottom))
    return np.asarray(small, np.float32) / np.float32(255)


def _encoded(array: Floats) -> bytes:
    return base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes())
