"""Damaged files of a store are found, named, and made again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bagformer_cli.data.muge import MugeFolder
from bagformer_cli.data.store.preprocess import preprocess
from bagformer_cli.data.store.split import read_batches
from bagformer_cli.errors import DataError
from tests.support.character_encoder import Characters, killed_run
from tests.support.datasets import picture
from tests.support.remarks import Remarks


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(bytes(data))


def shortened(path: Path) -> None:
    """A valid file with one number less."""
    array = np.load(path)
    np.save(path, array[:-1])


def lying(path: Path) -> None:
    """A valid file whose numbers lead outside of the other arrays."""
    array = np.load(path)
    np.save(path, np.full_like(array, np.iinfo(array.dtype).max))


@pytest.mark.parametrize("damage", [emptied, cut, zeroed, one_bit, shortened, lying])
def test_damaged_tokens_are_found_and_made_again(
    dataset: MugeFolder, damage: Callable[[Path], None]
) -> None:
    made = preprocess(dataset, encoder=Characters(), splits=["train"])
    folder = made.path / "train" / "tokens-characters"
    right = {path.name: np.load(path) for path in folder.glob("*.npy")}
    assert len(right) == 5
    for name in right:
        path = folder / name
        content = path.read_bytes()
        path.unlink()  # what is mapped stays
        path.write_bytes(content)
        damage(path)
        said, encoder = Remarks(), Characters()
        split = preprocess(dataset, encoder=encoder, splits=["train"], progress=said).split("train")
        assert len(encoder.seen) == 4
        (remark,) = said.warnings
        assert "damaged" in remark
        assert str(folder) in remark
        for field_name, expected in right.items():
            found = getattr(split.tokens, field_name.removesuffix(".npy"))
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("damage", [emptied, cut, zeroed])
@pytest.mark.parametrize("name", ["images-00000.arrow", "queries-00000.arrow"])
def test_damaged_shards_are_found_and_made_again(
    dataset: MugeFolder, name: str, damage: Callable[[Path], None]
) -> None:
    path = preprocess(dataset, encoder=Characters(), splits=["train"]).path / "train" / name
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    damage(path)
    said = Remarks()
    preprocess(dataset, encoder=Characters(), splits=["train"], progress=said)
    (remark,) = said.warnings
    assert str(path) in remark
    assert path.read_bytes() == content


def test_a_shard_whose_offsets_lie_is_refused(dataset: MugeFolder) -> None:
    folder = preprocess(dataset, encoder=None, splits=["train"]).path / "train"
    path = folder / "images-00000.arrow"
    (batch,) = read_batches(path)
    column = batch.column("image")
    offsets = np.frombuffer(column.buffers()[1], np.int32).copy()
    offsets[1] = 1 << 30
    lies = pa.Array.from_buffers(pa.binary(), len(column), [None, pa.py_buffer(offsets),
                                                            column.buffers()[2]])  # fmt: skip
    columns = [batch.column("image_id"), batch.column("hash"), lies]
    path.unlink()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=batch.schema))
    with pytest.raises(DataError, match="damaged"):
        read_batches(path)


def test_an_image_damaged_inside_the_store_is_named_with_what_to_do(dataset: MugeFolder) -> None:
    folder = preprocess(dataset, encoder=None, splits=["train"]).path / "train"
    path = folder / "images-00000.arrow"
    data = path.read_bytes()
    broken = picture(10)[:80] + bytes(len(picture(10)) - 80)
    path.unlink()
    path.write_bytes(data.replace(picture(10), broken))
    split = preprocess(dataset, encoder=None, splits=["train"]).split("train")
    assert split.image(0).size == (24, 20)
    with pytest.raises(DataError, match=r"train, image 10: .*broken") as caught:
        split.image(2)
    assert str(folder) in str(caught.value.hint)


def test_arrays_shorter_than_a_killed_run_recorded_are_made_from_the_start(
    dataset: MugeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = killed_run(dataset, monkeypatch)
    cut(folder / "ids.npy")
    encoder = Characters()
    split = preprocess(dataset, encoder=encoder, splits=["train"]).split("train")
    assert len(encoder.seen) == 4
    np.testing.assert_array_equal(split.tokens.ids, Characters()(list(split.texts)).ids)
