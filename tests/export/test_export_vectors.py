"""`xmr export vectors`: what is written is read back with the same recall."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from bagformer_cli.data.muge import MugeFolder
from bagformer_cli.vectors.multi_vectors import MultiVectors
from bagformer_cli.vectors.vector_files import read_vector_file
from bagformer_cli.vectors.vector_writers import SUFFIXES, Part, write_vector_file
from tests.support.datasets import picture, write_split
from tests.support.small_model import saved_model, write_table

QUERIES = [(n, title, (100 + n,)) for n, title in enumerate(["红裙", "包", "大伞", "鞋"] * 3)]


def items(lengths: list[int]) -> MultiVectors:
    torch.manual_seed(1)
    values = torch.nn.functional.normalize(torch.randn(sum(lengths), 5), dim=-1)
    return MultiVectors(values, torch.tensor([0, *np.cumsum(lengths)]))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("lengths", [[1, 1, 1, 1], [2, 1, 3, 1], [2, 0, 3, 1]], ids=str)
def test_every_form_is_read_back(suffix: str, lengths: list[int], tmp_path: Path) -> None:
    vectors = items(lengths)
    path = tmp_path / f"texts{suffix}"
    ids = [7, 3, 2**60, 5]
    parts = iter([Part(ids[:1], vectors[:1]), Part(ids[1:], vectors[1:])])
    kept = [at for at in range(4) if lengths[at]]
    single = lengths == [1] * 4
    assert write_vector_file(path, "text", parts, single=single) == len(kept)
    found = read_vector_file(path, "text")
    assert found.ids == [ids[at] for at in kept]
    assert found.vectors.lengths.tolist() == [lengths[at] for at in kept]
    assert torch.allclose(found.vectors.values, vectors.values, atol=1e-7)
    assert found.scaled == 0


@pytest.mark.parametrize("suffix", [".npy", ".lance"])
def test_an_older_file_is_replaced_whole(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"images{suffix}"
    for lengths in ([2, 3], [1, 1]):
        vectors = items(lengths)
        write_vector_file(path, "image", iter([Part([1, 2], vectors)]))
        assert read_vector_file(path, "image").vectors.lengths.tolist() == lengths


def test_jsonl_is_the_form_of_chinese_clip(tmp_path: Path) -> None:
    vectors = items([1, 1])
    for side, key in (("text", "text_id"), ("image", "image_id")):
        path = tmp_path / f"{side}.jsonl"
        write_vector_file(path, side, iter([Part([4, 9], vectors)]))  # type: ignore[arg-type]
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [list(line) for line in lines] == [[key, "feature"]] * 2
        assert [line[key] for line in lines] == [4, 9]
        assert np.array([line["feature"] for line in lines]).shape == (2, 5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MugeFolder:
    images = [(100 + n, picture(n)) for n in range(len(QUERIES))]
    return write_split(tmp_path_factory.mktemp("data"), "valid", QUERIES, images)


@pytest.mark.parametrize("form", ["jsonl", "safetensors"])
def test_the_recall_of_exported_vectors_is_that_of_the_model(
    form: str, model: Path, data: MugeFolder, tmp_path: Path, xmr: Callable[..., Any]
) -> None:
    out = tmp_path / "vectors"
    run = xmr("export", "vectors", model, out, "--dataset", data.path, "--format", form, "--json")
    assert run.code == 0, run.err
    assert {one["items"] for one in run.json()["files"].values()} == {len(QUERIES)}
    files = out / f"texts.{form}", out / f"images.{form}"
    measured = [
        xmr("eval", *how, "--dataset", data.path, "--json").json()["stages"]["recall"]
        for how in (
            ("--checkpoint", str(model), "--rerank", "0"),
            ("--features", *files),
            ("--model", out),
        )
    ]
    assert measured[0] == measured[1] == measured[2]


def test_the_vectors_of_an_index_and_of_xmr_encode(
    model: Path, tmp_path: Path, xmr: Callable[..., Any]
) -> None:
    table = write_table(tmp_path, 3)
    encoded, index = tmp_path / "encoded", tmp_path / "index"
    made = xmr("encode", table, "--out", encoded, "--checkpoint", model, "--dtype", "float32")
    assert made.code == 0, made.err
    assert xmr("index", "build", encoded, index).code == 0
    for source in (encoded, index):
        run = xmr("export", "vectors", source, tmp_path / f"of-{source.name}", "--json")
        assert run.code == 0, run.err
    for name in ("texts", "images"):
        paths = [tmp_path / f"of-{one}" / f"{name}.parquet" for one in ("encoded", "index")]
        tables = [pq.read_table(path) for path in paths]
        rows = [dict(zip(*(one.to_pylist() for one in t.columns), strict=True)) for t in tables]
        assert rows[0] == rows[1]
        assert set(rows[0]) == {"sku0", "sku1", "sku2"}
    run = xmr("export", "vectors", encoded, tmp_path / "st", "--format", "safetensors")
    assert run.code == 2
    assert "numbers only" in run.err
    assert xmr("export", "vectors", tmp_path / "nothing", tmp_path / "x").code == 2
