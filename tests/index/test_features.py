"""`xmr index build --features` and `xmr search --features`: vectors that another program made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.small_model import saved_model, write_table

N, DIM = 6, 8


def write_vectors(path: Path, side: str, ids: list[Any], seed: int) -> NDArray[np.float64]:
    values = np.random.default_rng(seed).normal(size=(len(ids), DIM))
    lines = [
        json.dumps({f"{side}_id": name, "feature": value.tolist()})
        for name, value in zip(ids, values, strict=True)
    ]
    path.write_text("\n".join(lines) + "\n")
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, NDArray[np.float64]]:
    """Vectors of images sku0 … sku5, of queries 1 … 3, and their cosines [3, 6]."""
    names = [f"sku{n}" for n in range(N)]
    images = write_vectors(tmp_path / "images.jsonl", "image", names, 1)
    queries = write_vectors(tmp_path / "queries.jsonl", "text", [1, 2, 3], 2)
    return tmp_path / "images.jsonl", tmp_path / "queries.jsonl", queries @ images.T


def found_ids(run: Any) -> list[list[str]]:
    return [[hit["id"] for hit in one["hits"]] for one in run.json()["results"]]


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_vectors_alone_are_indexed_and_searched(
    dtype: str, files: Any, tmp_path: Path, xmr: Callable[..., Any]
) -> None:
    images, queries, cosines = files
    index = tmp_path / "index"
    run = xmr("index", "build", images, index, "--features", images, "--dtype", dtype, "--json")
    assert run.code == 0, run.err
    assert run.json()["rows"] == N
    assert "6 of 6 vectors had another length than 1" in run.err
    run = xmr("search", "--features", queries, "--index", index, "--json")
    assert run.code == 0, run.err
    wanted = [[f"sku{n}" for n in np.argsort(-row)] for row in cosines]
    assert found_ids(run) == wanted
    assert [one["query"] for one in run.json()["results"]] == ["1", "2", "3"]
    scores = [hit["score"] for hit in run.json()["results"][0]["hits"]]
    assert scores == pytest.approx(sorted(cosines[0], reverse=True), abs=0.02)
    run = xmr("search", "红裙", "--index", index)
    assert run.code == 2
    assert "--features FILE" in run.err


def test_a_catalogue_gives_titles_and_attributes(
    files: Any, tmp_path: Path, xmr: Callable[..., Any]
) -> None:
    images, queries, _ = files
    table = write_table(tmp_path, N + 1)  # the last product has no vector
    index = tmp_path / "index"
    run = xmr("index", "build", table, index, "--features", images, "--json")
    assert run.code == 0, run.err
    assert (run.json()["rows"], len(run.json()["skipped"])) == (N, 1)
    assert "No vector has the id of this product" in run.json()["skipped"][0]
    search = "search", "--features", queries, "--index", index, "--where", "price < 2", "--json"
    run = xmr(*search)
    assert {name for names in found_ids(run) for name in names} == {"sku0", "sku1"}
    assert run.json()["results"][0]["hits"][0]["title"]
    for more in (("--without", "红"), ("--fusion", "rrf")):
        run = xmr(*search, *more)
        assert run.code == 2, (run.out, run.err)
    assert "never has terms" in run.err  # and no advice that cannot help


def test_vectors_without_a_product_are_counted(
    files: Any, tmp_path: Path, xmr: Callable[..., Any]
) -> None:
    table = write_table(tmp_path, N - 2)
    run = xmr("index", "build", table, tmp_path / "index", "--features", files[0])
    assert run.code == 0, run.err
    assert "2 vectors belong to no product" in run.err


def test_vectors_are_added_and_replaced(
    files: Any, tmp_path: Path, xmr: Callable[..., Any]
) -> None:
    images, queries, cosines = files
    index, more = tmp_path / "index", tmp_path / "more.jsonl"
    assert (
        xmr("index", "build", images, index, "--features", images, "--dtype", "float32").code == 0
    )
    names = ["sku5", "sku6", "sku7"]  # one of them is in the index
    added = write_vectors(more, "image", names, 5)
    run = xmr("index", "add", more, index, "--features", more, "--json")
    assert run.code == 0, run.err
    report = run.json()
    assert (report["added"], report["replaced"], report["rows"]) == (2, 1, N + 2)
    asked = write_vectors(queries, "text", [1, 2, 3], 2)
    scores = np.concatenate([cosines[:, :5], asked @ added.T], axis=1)
    run = xmr("search", "--features", queries, "--index", index, "--json")
    assert found_ids(run) == [[f"sku{n}" for n in np.argsort(-row)] for row in scores]


def test_a_product_without_a_new_vector_keeps_its_old_one(
    files: Any, tmp_path: Path, xmr: Callable[..., Any]
) -> None:
    table, index, more = write_table(tmp_path, N), tmp_path / "index", tmp_path / "more.jsonl"
    assert xmr("index", "build", table, index, "--features", files[0]).code == 0
    write_vectors(more, "image", ["sku1"], 5)
    run = xmr("index", "add", table, index, "--features", more, "--json")
    assert run.code == 0, run.err
    assert run.json()["unchanged"] == ["sku0", "sku2", "sku3", "sku4", "sku5"]
    assert (run.json()["replaced"], run.json()["rows"]) == (1, N)
    assert "stay in the index as they were: 5" in run.err


def test_vectors_that_do_not_fit_the_index_are_not_added(
    files: Any, tmp_path: Path, xmr: Callable[..., Any]
) -> None:
    images, _, _ = files
    index, other = tmp_path / "index", tmp_path / "other.jsonl"
    assert xmr("index", "build", images, index, "--features", images).code == 0
    other.write_text('{"image_id": 1, "feature": [1, 0]}\n')
    run = xmr("index", "add", other, index, "--features", other)
    assert run.code == 2
    assert "another dimension" in run.err
    assert xmr("index", "add", images, index, "--features", images, "--trust").code == 2
    assert xmr("index", "info", index, "--json").json()["rows"] == N
    assert not xmr("index", "info", index, "--json").json()["unfinished"]
    run = xmr("index", "add", images, index)
    assert run.code == 2
    assert "xmr index add CATALOGUE INDEX --features" in run.err


def test_vectors_are_not_added_to_an_index_of_a_model(
    files: Any, tmp_path: Path, xmr: Callable[..., Any]
) -> None:
    model, index = saved_model(tmp_path / "model"), tmp_path / "index"
    assert xmr("index", "build", write_table(tmp_path, 2), index, "--checkpoint", model).code == 0
    run = xmr("index", "add", files[0], index, "--features", files[0])
    assert run.code == 2
    assert "A model of xmr made the vectors" in run.err


def test_what_makes_no_sense_is_refused(
    files: Any, tmp_path: Path, xmr: Callable[..., Any]
) -> None:
    images, queries, _ = files
    index = tmp_path / "index"
    build = "index", "build", images, index, "--features", images
    assert xmr(*build, "--pool", "2").code == 2
    assert xmr(*build, "--checkpoint", "x").code == 2
    assert not index.exists()
    assert xmr(*build).code == 0
    search = "search", "--features", queries, "--index", index
    assert xmr(*search, "--rerank", "5").code == 2
    assert xmr(*search, "红裙").code == 2
    run = xmr("index", "add", images, index)
    assert run.code == 2
    assert xmr("search", "--features", tmp_path / "none.jsonl", "--index", index).code == 2
    other = tmp_path / "other.jsonl"
    other.write_text('{"text_id": 1, "feature": [1, 0]}\n')
    run = xmr("search", "--features", other, "--index", index)
    assert run.code == 2
    assert "another dimension" in run.err
