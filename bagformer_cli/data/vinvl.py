"""Region files of VinVL, as Oscar and ALADIN read them, imported as a dataset's regions files.

A VinVL file is a TSV with one image per line, most confident regions first::

    image key <tab> number of regions n <tab> base64 of float32 [n, F + 6]

The last six columns of a region are its box: x1, y1, x2, y2, width and height, as shares of the
image's sides. The keys are the dataset's image numbers, or the ids in its ``ids.jsonl``. Only the
offset of each line is kept in memory.

Shapes: n regions of an image, F features of a region (2048).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from bagformer_cli.data.byte_ranges import ByteRange
from bagformer_cli.data.product_ids import ImageName, ids_of
from bagformer_cli.data.regions import Regions
from bagformer_cli.data.store.split import Split
from bagformer_cli.errors import DataError, InputError, listed
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress

BOX = 6
"""Columns of a region's box: x1, y1, x2, y2, width, height."""


class VinvlFile:
    """A region file of VinVL; the regions of an image are read on access.

    Args:
        path: The TSV.
        width: F; 2048 for VinVL's detector.

    Raises:
        InputError: The file does not exist or cannot be read.
        DataError: A line has no tab, or a key is there twice.
    """

    def __init__(self, path: Path, width: int = 2048) -> None:
        self.path, self.width = path, width
        if not path.is_file():
            raise InputError(tr("The file of VinVL regions does not exist."), where=path)
        self._offsets: dict[str, int] = {}
        for number, line in enumerate(ByteRange(path).lines(skip_blank_end=True), 1):
            key, tab, _ = line.raw.partition(b"\t")
            name = key.decode("utf-8", "replace").strip()
            if not tab or not name:
                raise self._broken(str(number), line.raw)
            if name in self._offsets:
                raise DataError(
                    tr("The image key is there twice."), where=f"{path}:{number}", found=name
                )
            self._offsets[name] = line.begin

    def __contains__(self, key: str) -> bool:
        return key in self._offsets

    def __getitem__(self, key: str) -> Regions:
        """Read the regions of an image.

        Raises:
            DataError: Its line is broken, or the regions have another size.
        """
        with self.path.open("rb") as stream:
            stream.seek(self._offsets[key])
            line = stream.readline()
        fields = line.rstrip(b"\r\n").split(b"\t")
        try:
            count = int(fields[1])
            values = np.frombuffer(base64.b64decode(fields[-1], validate=True), "<f4")
            values = values.reshape(count, -1)
        except (IndexError, ValueError, binascii.Error) as error:
            raise self._broken(key, line) from error
        if len(fields) != 3 or not count or not np.isfinite(values).all():
            raise self._broken(key, line)
        if values.shape[1] != self.width + BOX:
            raise DataError(
                tr("The regions have another number of columns."),
                where=f"{self.path}: {key}",
                found=values.shape[1],
                expected=tr("{n} features and {box} of the box", n=self.width, box=BOX),
                hint=tr("--width is the number of features without the box."),
            )
        return Regions(values[:, : self.width], values[:, self.width : self.width + 4])

    def _broken(self, which: str, line: bytes) -> DataError:
        return DataError(
            tr("A line of the file of VinVL regions has the wrong format."),
            where=f"{self.path}: {which}",
            found=repr(line[:40]),
            expected=tr(
                "image key, tab, number of regions, tab, base64 of float32 [regions, {width}]",
                width=self.width + BOX,
            ),
        )


def vinvl_regions(
    source: VinvlFile, split: Split, progress: Progress = SILENT
) -> Iterator[tuple[int, Regions]]:
    """Read the regions of every image of a split.

    Args:
        source: The file; it may hold images of other splits and datasets too.
        split: The split. Its images are known by their numbers, else by the ids of ``ids.jsonl``.
        progress: Where progress is reported.

    Yields:
        Image number and its regions, in the order of the split.

    Raises:
        DataError: The file lacks images of the split, or a line of it is broken.
    """
    named = ids_of(split.dataset).images
    numbers: list[int] = split.image_ids.tolist()
    keys = {
        number: next((key for key in _keys(number, named) if key in source), None)
        for number in numbers
    }
    missing = [number for number, key in keys.items() if key is None]
    if missing:
        raise DataError(
            tr("Images of the dataset are missing from the file of VinVL regions."),
            where=source.path,
            found=tr(
                "{n} of {total} images of {split}: {names}",
                n=len(missing), total=len(numbers), split=split.name,
                names=listed([_keys(number, named)[-1] for number in missing[:5]]),
            ),
            expected=tr("a line for each image, whose key is the image's id"),
        )  # fmt: skip
    with progress.task(
        tr("Regions of {split}", split=split.name), len(numbers), tr("{n} images", n="{n}")
    ) as task:
        for number, key in keys.items():
            yield number, source[str(key)]
            task.advance()


def _keys(number: int, named: Mapping[int, ImageName]) -> list[str]:
    """Return the keys that an image may have: its number, its own id, its file's name."""
    name = named.get(number)
    if name is None:
        return [str(number)]
    return [name.id, Path(name.file).stem, Path(name.file).name]
