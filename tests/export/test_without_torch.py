"""``--runtime onnx``: searching and encoding import neither torch nor what is built on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from bagformer_cli.interaction.topk import topk_rescored
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.runtime.scan import scan, score_items
from bagformer_cli.vectors.arrays import Vectors, offsets_of
from bagformer_cli.vectors.multi_vectors import MultiVectors

Made = tuple[RetrievalModel, Path, Path]

XMR_AND_ITS_MODULES = """
import sys
from bagformer_cli.cli.main import main

code = main(sys.argv[1:])
heavy = {"torch", "transformers", "timm", "numba", "scipy", "torchvision"}
print(sorted(heavy & set(sys.modules)), file=sys.stderr)
raise SystemExit(code)
"""


def in_a_new_process(*arguments: object) -> tuple[Any, list[str]]:
    """Run ``xmr`` and return its JSON and which heavy packages it imported."""
    command = [sys.executable, "-c", XMR_AND_ITS_MODULES, *map(str, arguments), "--json"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "XMR_LANG": "en"}
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), json.loads(done.stderr.splitlines()[-1].replace("'", '"'))


def test_a_search_imports_no_torch_and_finds_the_same(
    index: Path, shop: Path, bagwise: Made, xmr: Any
) -> None:
    common = ("search", "--index", index, "--trust", "--checkpoint", bagwise[1])
    what = ("红色连衣裙", "T恤", "--where", "price < 8 AND category != '鞋'")
    found, heavy = in_a_new_process(*common, *what, "--runtime", "onnx")
    assert heavy == []
    wanted = xmr(*common, *what, "--json").json()
    for ours, theirs in zip(found["results"], wanted["results"], strict=True):
        assert [hit["id"] for hit in ours["hits"]] == [hit["id"] for hit in theirs["hits"]]
        scores = [[hit["score"] for hit in one["hits"]] for one in (ours, theirs)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-4)
        assert len(scores[0]) == 8


TORCH_IS_NOT_INSTALLED = """
import sys
from importlib.machinery import PathFinder

ABSENT = {"torch", "transformers", "timm", "numba", "scipy", "torchvision"}

class FindsTheOthers(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in ABSENT else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = FindsTheOthers
"""

A_SERVICE = """
import json
from pathlib import Path

from fastapi.testclient import TestClient

from bagformer_cli.index import cache_recall, segment_scan
from bagformer_cli.index.search import Index
from bagformer_cli.serve.app import create_app
from bagformer_cli.serve.service import SearchService
from bagformer_cli.serve.settings import ServiceLimits

segment_scan.NUMPY_PRODUCTS = cache_recall.EXACT_BYTES = 0  # as if the index were large
index, model, image = sys.argv[1:]
opened = Index.open(index, Path(model), runtime="onnx")
with TestClient(create_app(SearchService(opened, ServiceLimits()))) as client:
    found = [
        client.get("/api/search", params={"q": "红色连衣裙"}),
        client.post("/api/search", content=Path(image).read_bytes()),
        client.get("/api/search", params={"q": "红色连衣裙", "fusion": "weighted"}),
        client.get("/api/explain", params={"q": "红色连衣裙", "id": "1"}),
    ]
print(json.dumps([[one.status_code, one.json()] for one in found]))
"""


def test_a_service_needs_no_torch(index: Path, shop: Path, bagwise: Made, xmr: Any) -> None:
    """The image of the Dockerfile has none."""
    photo = next(path for path in sorted(shop.parent.rglob("*")) if path.suffix in {".jpg", ".png"})
    code = TORCH_IS_NOT_INSTALLED + A_SERVICE
    command = [sys.executable, "-c", code, str(index), str(bagwise[2]), str(photo)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text, image, fused, explained = json.loads(done.stdout)
    model = ("--index", index, "--trust", "--checkpoint", bagwise[1], "-k", 24, "--json")
    words = ("红色连衣裙", "--fusion", "weighted")
    for answer, query in ((text, words[:1]), (image, ("--image", photo)), (fused, words)):
        assert answer[0] == 200
        wanted = xmr("search", *query, *model).json()["results"][0]["hits"]
        assert [hit["id"] for hit in answer[1]["hits"]] == [hit["id"] for hit in wanted]
    assert explained[0] == 400
    assert "explain" in explained[1]["error"]


@pytest.mark.slow
def test_encoding_imports_no_torch(shop: Path, bagwise: Made, tmp_path: Path) -> None:
    common = ("encode", shop, "--checkpoint", bagwise[1], "--dtype", "int8", "--out")
    _, heavy = in_a_new_process(*common, tmp_path / "onnx", "--runtime", "onnx")
    assert heavy == []
    _, heavy = in_a_new_process(*common, tmp_path / "torch")
    assert "torch" in heavy
    rows = []
    for name in ("onnx", "torch"):
        with pa.OSFile(str(next((tmp_path / name).glob("*.arrow")))) as source:
            rows.append(pa.ipc.open_file(source).read_all())
    for column in ("image_vectors", "title_vectors"):
        ours, theirs = (
            one[column].combine_chunks().flatten().flatten().to_numpy().astype(int) for one in rows
        )
        assert np.abs(ours - theirs).max() <= 1


def items(lengths: list[int], seed: int = 0, dim: int = 12) -> Vectors:
    random = np.random.default_rng(seed)
    values = random.normal(size=(sum(lengths), dim)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return Vectors(values, offsets_of(np.array(lengths)))


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("block", [1 << 22, 30])
def test_the_scan_in_numpy_is_that_of_torch(
    dtype: Any, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bagformer_cli.runtime.scan.BLOCK", block)
    random = np.random.default_rng(1)
    lengths = random.integers(0, 6, 60).tolist()
    stored = items(lengths).stored(dtype)
    queries = items([3, 1, 5], seed=2)
    asked, tensors = MultiVectors.from_arrays(queries), MultiVectors.from_arrays(stored)
    for rows in (None, np.sort(random.choice(60, 25, replace=False))):
        chosen = None if rows is None else torch.from_numpy(rows)
        want = topk_rescored(asked, tensors, 7, dtype=torch.float32, candidates=chosen)
        scores, positions = scan(queries, stored, 7, rows)
        np.testing.assert_allclose(scores, want[0].numpy(), atol=1e-5)
        np.testing.assert_array_equal(positions, want[1].numpy())


def test_items_and_queries_without_vectors_score_0() -> None:
    scores = score_items(items([2, 0, 1]), items([0, 3, 0]))
    assert (scores[:, [0, 2]] == 0).all()
    assert (scores[1] == 0).all()
    assert scores[0, 1] != 0
    assert scan(items([2]), items([]), 3)[0].shape == (1, 0)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_stored_vectors_are_those_of_torch(dtype: Any) -> None:
    given = items([3, 0, 5, 1])
    given.values[4] *= 1e-3
    ours = given.stored(dtype)
    theirs = MultiVectors.from_arrays(given).to(dtype=getattr(torch, dtype))
    np.testing.assert_array_equal(ours.values, theirs.values.numpy())
    if dtype == "int8":
        assert ours.scales is not None
        assert theirs.scales is not None
        np.testing.assert_array_equal(ours.scales, theirs.scales.numpy())


def test_mean_vectors_have_unit_length() -> None:
    given = items([3, 0, 5])
    mean = MultiVectors.from_arrays(given).mean()
    want = torch.nn.functional.normalize(mean, dim=-1).numpy()
    np.testing.assert_allclose(given.mean(), want, atol=1e-6)
