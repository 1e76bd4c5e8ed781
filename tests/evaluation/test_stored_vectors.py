"""`xmr eval --features`: anybody's vectors, in every form, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from bagformer_cli.data.muge import MugeFolder
from bagformer_cli.errors import DataError, InputError
from bagformer_cli.evaluation.stored_vectors import StoredVectors
from bagformer_cli.vectors.vector_files import read_vector_file
from tests.support.datasets import write_split

N, DIM = 8, 6
QUERIES = [(n, f"标题{n}", (100 + n,)) for n in range(N)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MugeFolder:
    return write_split(tmp_path_factory.mktemp("data"), "valid", QUERIES)


def random_items(seed: int, many: bool = False) -> list[NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 4, N) if many else np.ones(N, int)
    return [random.normal(size=(length, DIM)).astype(np.float32) for length in lengths]


def write(path: Path, ids: list[Any], items: list[NDArray[np.float32]], side: str) -> Path:
    """Write vectors as a stranger would, in the form that the path's ending names."""
    lists = [item[0].tolist() if len(item) == 1 else item.tolist() for item in items]
    offsets = np.cumsum([0, *map(len, items)])
    values = np.concatenate(items)
    if path.suffix == ".jsonl":
        lines = [{f"{side}_id": i, "feature": one} for i, one in zip(ids, lists, strict=True)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    elif path.suffix == ".parquet":
        if any(len(item) > 1 for item in items):
            lists = [item.tolist() for item in items]
        pq.write_table(pa.table({"id": ids, "vector": lists, "title": ["x"] * len(ids)}), path)
    elif path.suffix == ".npz":
        np.savez(path, ids=ids, vectors=values, offsets=offsets)
    elif path.suffix == ".npy":
        np.save(path, values)
        np.save(path.with_suffix(".ids.npy"), ids)
        np.save(path.with_suffix(".offsets.npy"), offsets)
    else:
        arrays = {"ids": np.array(ids), "vectors": values, "offsets": offsets}
        save_file({name: torch.from_numpy(one) for name, one in arrays.items()}, path)
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "npz", "npy", "safetensors"])
@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_recall_is_that_of_maxsim_of_unit_vectors(
    suffix: str, many: bool, data: MugeFolder, tmp_path: Path, xmr: Callable[..., Any]
) -> None:
    texts, images = random_items(1, many), random_items(2, many)
    order = np.random.default_rng(3).permutation(N)  # the files have orders of their own
    files = [
        write(tmp_path / f"t.{suffix}", list(range(N)), texts, "text"),
        write(
            tmp_path / f"i.{suffix}",
            [100 + int(n) for n in order],
            [images[n] for n in order],
            "image",
        ),
    ]
    run = xmr("eval", "--features", *files, "--dataset", data.path, "--json")
    assert run.code == 0, run.err

    def unit(item: NDArray[np.float32]) -> NDArray[np.float32]:
        return item / np.linalg.norm(item, axis=1, keepdims=True)

    scores = np.array([[(unit(t) @ unit(i).T).max(1).sum() for i in images] for t in texts])
    better = (scores > np.diag(scores)[:, None]).sum(axis=1)
    figures = run.json()["stages"]["recall"]["text_to_image"]
    for k in (1, 5):
        assert figures[f"recall@{k}"] == pytest.approx(100 * (better < k).mean())
    facts = run.json()["features"]
    assert (facts["dim"], facts["scaled"]) == (DIM, sum(map(len, [*texts, *images])))


def line(identity: object, feature: object) -> str:
    return json.dumps({"text_id": identity, "feature": feature})


GOOD = line(1, [0.6, 0.8])


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("{", "not a JSON object"),
        ('{"feature": [1, 0]}', "'text_id' is missing"),
        ('{"image_id": 2, "feature": [1, 0]}', "'text_id' is missing"),
        ('{"text_id": 2}', "'feature' is missing"),
        (line(2.5, [1, 0]), "not a whole number"),
        (line("  ", [1, 0]), "empty or broken text"),
        (line(None, [1, 0]), "not a whole number"),
        (line(True, [1, 0]), "not a whole number"),
        (line(2, []), "not a vector"),
        (line(2, [[]]), "not a vector"),
        (line(2, [[1, 0], [1]]), "not a vector"),
        (line(2, [[1, 0], 1]), "not a vector"),
        (line(2, ["1", 0]), "not a vector"),
        (line(2, [True, False]), "not a vector"),
        (line(2, "1 0"), "not a vector"),
        (line(2, [1, 0, 0]), "another dimension"),
        (line(2, [float("nan"), 0]), "not a number"),
        (line(2, [1e60, 0]), "not a number"),
        (line(2, [10**400, 0]), "not a number"),
        (line(2, [0, 0]), "is zero"),
        (line(1, [1, 0]), "occurs twice"),
    ],
)
def test_a_wrong_line_is_named(bad: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text(f"{GOOD}\n\n{bad}\n")
    with pytest.raises(DataError, match=said) as caught:
        read_vector_file(file, "text")
    assert caught.value.where is not None
    assert f"{file}:3" in caught.value.where


def test_an_id_is_named_where_the_line_has_one(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text(f"{GOOD}\n{line(77, [0, 0])}\n")
    with pytest.raises(DataError) as caught:
        read_vector_file(file, "text")
    assert caught.value.where == f"{file}:2, id 77"


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        ([[1.0, 0.0], [1.0]], "another dimension"),
        ([[1.0, 0.0], None], "no id or no vector"),
        ([[1.0, 0.0], [1.0, None]], "lacks a value"),
        ([[1.0, 0.0], [float("inf"), 0.0]], "not a number"),
        (["a", "b"], "not a vector"),
        ([[], []], "not a vector"),
    ],
)
def test_a_wrong_row_of_a_parquet_file(vectors: list[Any], said: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"image_id": [1, 2], "feature": vectors}), tmp_path / "i.parquet")
    with pytest.raises(DataError, match=said):
        read_vector_file(tmp_path / "i.parquet", "image")


def test_whole_numbers_are_numbers_and_nested_lists_without_vectors_are_refused(
    tmp_path: Path,
) -> None:
    file = tmp_path / "i.parquet"
    pq.write_table(pa.table({"id": ["a", "b"], "vector": [[3, 4], [0, 2]]}), file)
    found = read_vector_file(file, "image")
    assert found.ids == ["a", "b"]
    assert found.vectors.values.tolist() == pytest.approx(torch.tensor([[0.6, 0.8], [0, 1]]))
    pq.write_table(pa.table({"id": ["a", "b"], "vector": [[[3, 4]], []]}), file)
    with pytest.raises(DataError, match="has no vector"):
        read_vector_file(file, "image")


@pytest.mark.parametrize(
    "arrays",
    [
        {"ids": np.arange(2), "vectors": np.ones((3, 4))},
        {"ids": np.arange(2), "vectors": np.ones((2, 4, 1))},
        {"ids": np.ones(2), "vectors": np.ones((2, 4))},
        {"ids": np.arange(2), "vectors": np.ones((3, 4)), "offsets": np.array([0, 4, 3])},
        {"vectors": np.ones((3, 4))},
        {"ids": np.arange(2), "vectors": np.array([["a"], ["b"]])},
        {"ids": np.array([1, "x"], object), "vectors": np.ones((2, 4))},
    ],
)
def test_arrays_that_do_not_fit(arrays: dict[str, Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(DataError):
        read_vector_file(tmp_path / "t.npz", "text")


@pytest.mark.parametrize("name", ["t.npz", "t.parquet", "t.safetensors", "t.npy", "t.jsonl"])
def test_files_that_are_no_vectors(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_vector_file(tmp_path / name, "text")
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError):
        read_vector_file(tmp_path / name, "text")
    (tmp_path / name).write_bytes(b"PK\x03\x04 not what the name says")
    with pytest.raises(DataError):
        read_vector_file(tmp_path / name, "text")


def test_an_unknown_ending(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ending"):
        read_vector_file(tmp_path / "t.csv", "text")


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 99], "not among the queries"),
        ([0, 1, 2, 3, 4, 5, 6, "a"], "not among the queries"),
        ([0, 1, 2, 3, 4, 5, 6, "6"], "occurs twice"),
        ([0, 1, 2, 3, 4, 5], "lacks 2 of the split's 8 queries"),
    ],
)
def test_ids_that_are_not_those_of_the_split(
    ids: list[Any], said: str, data: MugeFolder, tmp_path: Path
) -> None:
    texts = write(tmp_path / "t.jsonl", ids, random_items(1)[: len(ids)], "text")
    images = write(tmp_path / "i.jsonl", [100 + n for n in range(N)], random_items(2), "image")
    source = StoredVectors(texts, images)
    with pytest.raises(DataError, match=said):
        source.encode(source.open(data, "valid"), 4)


def test_options_that_make_no_sense(data: MugeFolder, tmp_path: Path, xmr: Any) -> None:
    texts = write(tmp_path / "t.jsonl", list(range(N)), random_items(1), "text")
    other = write(tmp_path / "i.jsonl", [100], [np.ones((1, 3), np.float32)], "image")
    run = xmr("eval", "--features", texts, other, "--dataset", data.path)
    assert run.code == 2
    assert "different dimensions" in run.err
    assert xmr("eval", "--features", texts, other).code == 2
    assert xmr("eval", "--features", texts, other, "--model", "hf:a/b").code == 2
    assert xmr("eval", "--features", texts, other, "--dataset", data.path, "--beta", "1").code == 2
