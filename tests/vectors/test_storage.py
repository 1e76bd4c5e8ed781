"""Vectors in a folder: written, mapped and searched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bagformer_cli.bench.cpu_clock import status_bytes
from bagformer_cli.errors import InputError
from bagformer_cli.interaction import MultiVectors
from bagformer_cli.interaction.topk import topk
from bagformer_cli.vectors.storage import DTYPES, open_vectors, write_vectors


def vectors(lengths: list[int], dim: int = 8, seed: int = 0) -> MultiVectors:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(sum(lengths), dim, generator=generator)
    return MultiVectors(values, torch.tensor([0, *lengths]).cumsum(0))


@pytest.mark.parametrize("lengths", [[3, 0, 5, 2], [4, 4, 4], [0, 0], []])
@pytest.mark.parametrize("dtype", [kind for kind in DTYPES.values() if kind != torch.uint8])
def test_stored_items_equal_those_that_were_written(
    tmp_path: Path, lengths: list[int], dtype: torch.dtype
) -> None:
    items = vectors(lengths).to(dtype=dtype)
    half = len(items) // 2
    found = write_vectors(tmp_path / "v", [items[:half], items[half:]])
    assert torch.equal(found.values, items.values)
    assert torch.equal(found.offsets, items.offsets)
    assert found.dtype == dtype
    if items.scales is not None:
        assert found.scales is not None
        assert torch.equal(found.scales, items.scales)
    assert not (tmp_path / "v" / "ends.npy").exists()


def test_nothing_is_read_before_it_is_needed(tmp_path: Path) -> None:
    size = 64 << 20
    part = MultiVectors(torch.zeros(size // 256, 256, dtype=torch.int8),
                        torch.arange(size // 8192 + 1) * 32, torch.ones(size // 8192))  # fmt: skip
    write_vectors(tmp_path / "v", [part])
    del part
    before = status_bytes("VmRSS")
    opened = open_vectors(tmp_path / "v")
    assert len(opened) == size // 8192
    after = status_bytes("VmRSS")
    if before is not None and after is not None:  # known on Linux
        assert after - before < size / 8


def test_a_search_over_stored_vectors_is_a_search_over_the_vectors(tmp_path: Path) -> None:
    texts, images = vectors([3, 5]), vectors([4] * 60, seed=1).quantize()
    stored = write_vectors(tmp_path / "v", [images])
    for found, expected in zip(topk(texts, stored, 7), topk(texts, images, 7), strict=True):
        assert torch.equal(found, expected)


def test_writing_replaces_and_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    write_vectors(folder, [vectors([2])])
    write_vectors(folder, [vectors([3, 1])])
    assert len(open_vectors(folder)) == 2
    for parts in ([], [vectors([1]), vectors([1], dim=4)], [vectors([1]).to(dtype=torch.float64)]):
        with pytest.raises(ValueError, match=r"at least one|alike|stored as"):
            write_vectors(folder, parts)
    assert len(open_vectors(folder)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


def test_a_damaged_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    with pytest.raises(InputError, match="cannot be read"):
        open_vectors(folder)
    write_vectors(folder, [vectors([2, 3])])
    record = json.loads((folder / "vectors.json").read_text())
    (folder / "vectors.json").write_text(json.dumps(record | {"format": 2}))
    with pytest.raises(InputError, match="cannot be read"):
        open_vectors(folder)
    (folder / "vectors.json").write_text(json.dumps(record))
    values = folder / "values.npy"
    values.write_bytes(values.read_bytes()[:-8])
    with pytest.raises(InputError, match="cannot be read"):
        open_vectors(folder)
