"""Region files of VinVL: what Oscar's reader gives is what ours gives."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest

from bagformer_cli.config import RegionsConfig
from bagformer_cli.data.product_ids import ImageName, ProductIds, id_lines
from bagformer_cli.data.regions import RegionFile
from bagformer_cli.data.store.split import Split
from bagformer_cli.data.vinvl import VinvlFile, vinvl_regions
from bagformer_cli.datasets import ensure_store
from bagformer_cli.errors import DataError, InputError
from tests.support.datasets import write_split

WIDTH = 4


def values(key: object, count: int) -> np.ndarray:
    random = np.random.default_rng(crc32(str(key).encode()))
    return random.random((count, WIDTH + 6), np.float32)


def line(key: object, array: np.ndarray) -> bytes:
    """As Oscar's feature extraction writes it."""
    return b"%s\t%d\t%s\n" % (str(key).encode(), len(array), base64.b64encode(array.tobytes()))


def oscar(row: bytes) -> np.ndarray:
    """As Oscar and ALADIN read it: ``frombuffer(b64decode(row[-1])).reshape(num_boxes, -1)``."""
    fields = [field.strip() for field in row.split(b"\t")]
    return np.frombuffer(base64.b64decode(fields[-1]), np.float32).reshape(int(fields[1]), -1)


@pytest.fixture
def split(tmp_path: Path) -> Split:
    queries = [(n, "红裙", (n,)) for n in (7, 8, 9)]
    return ensure_store(write_split(tmp_path / "set", "train", queries), None).split("train")


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"".join(lines))
    return path


def test_features_and_boxes_are_those_that_oscar_reads(tmp_path: Path, split: Split) -> None:
    rows = {key: line(key, values(key, count)) for key, count in ((9, 3), (7, 5), (8, 1), (1, 2))}
    source = VinvlFile(write(tmp_path / "features.tsv", *rows.values()), WIDTH)
    found = dict(vinvl_regions(source, split))
    assert list(found) == split.image_ids.tolist()
    for number, regions in found.items():
        theirs = oscar(rows[number])
        assert np.array_equal(regions.features, theirs[:, :WIDTH])
        assert regions.boxes is not None
        assert np.array_equal(regions.boxes, theirs[:, WIDTH : WIDTH + 4])


def test_the_command_writes_files_that_training_reads(
    tmp_path: Path, split: Split, xmr: Callable[..., Any]
) -> None:
    path = write(tmp_path / "f.tsv", *(line(n, values(n, n - 5)) for n in (7, 8, 9)))
    run = xmr("data", "regions", split.dataset, "--vinvl", path, "--width", WIDTH, "--json")
    assert run.code == 0, run.err
    config = RegionsConfig(width=WIDTH, maximum=3, boxes=True)
    batch = RegionFile.of(split, config).batch([7, 9])
    assert batch.shape == (2, 3, WIDTH + 5)
    expected = values(9, 4)[:3]
    assert np.array_equal(batch[1, :, : WIDTH + 4], expected[:, : WIDTH + 4])
    assert batch[0, :, -1].tolist() == [1, 1, 0]


def test_keys_may_be_the_ids_or_file_names_of_a_shop(tmp_path: Path, split: Split) -> None:
    names = {
        7: ImageName("SKU-7", "SKU-7", "a/sku.jpg"),
        8: ImageName("x", "x", "b/picture.png"),
        9: ImageName("y", "y", "c/other.jpg"),
    }
    text = "\n".join(id_lines(ProductIds(names)))
    (split.dataset / "ids.jsonl").write_text(text, encoding="utf-8")
    keys = ("SKU-7", "picture", "other.jpg")
    source = VinvlFile(write(tmp_path / "f.tsv", *(line(k, values(k, 2)) for k in keys)), WIDTH)
    found = [regions.features for _, regions in vinvl_regions(source, split)]
    assert all(
        np.array_equal(ours, values(key, 2)[:, :WIDTH])
        for ours, key in zip(found, keys, strict=True)
    )


def test_missing_images_are_counted_and_named(tmp_path: Path, split: Split) -> None:
    source = VinvlFile(write(tmp_path / "f.tsv", line(7, values(7, 2))), WIDTH)
    with pytest.raises(DataError, match="missing") as caught:
        list(vinvl_regions(source, split))
    assert "2 of 3" in str(caught.value.found)
    assert "8, 9" in str(caught.value.found)


@pytest.mark.parametrize(
    ("row", "word"),
    [
        (b"7\t2\n", "wrong format"),
        (b"7\tmany\tAAAA\n", "wrong format"),
        (b"7\t1\t!!!\n", "wrong format"),
        (b"7\t0\t\n", "wrong format"),
        (line(7, np.full((1, WIDTH + 6), np.nan, np.float32)), "wrong format"),
        (line(7, np.zeros((2, WIDTH), np.float32)), "another number of columns"),
        (b"7\t1\t[]\tAAAA\n", "wrong format"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, row: bytes, word: str) -> None:
    with pytest.raises(DataError, match=word) as caught:
        VinvlFile(write(tmp_path / "f.tsv", row), WIDTH)["7"]
    assert "f.tsv: 7" in str(caught.value.where)


def test_a_line_without_a_key_a_key_twice_and_no_file_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="wrong format"):
        VinvlFile(write(tmp_path / "a.tsv", b"no tab\n"), WIDTH)
    with pytest.raises(DataError, match="twice"):
        VinvlFile(write(tmp_path / "b.tsv", line(7, values(7, 1)), line(7, values(7, 1))), WIDTH)
    with pytest.raises(InputError, match="does not exist"):
        VinvlFile(tmp_path / "none.tsv", WIDTH)
