"""``--runtime onnx`` of search, encode and score: the results of the model itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bagformer_cli.models.build import RetrievalModel
from tests.conftest import Run
from tests.support.small_model import saved_model

Made = tuple[RetrievalModel, Path, Path]
Xmr = Callable[..., Run]


def search(xmr: Xmr, index: Path, *more: object) -> list[list[tuple[str, float]]]:
    found = xmr("search", "--index", index, "--trust", "--json", *more).json()["results"]
    return [[(hit["id"], hit["score"]) for hit in one["hits"]] for one in found]


def test_a_search_finds_what_the_model_finds(xmr: Xmr, index: Path, shop: Path) -> None:
    queries = ("红色连衣裙", "T恤", "第3款")
    photo = shop.parent / "photos" / "3.png"
    for what in (queries, ("--image", photo), (*queries, "--of", "titles")):
        want = search(xmr, index, *what)
        got = search(xmr, index, *what, "--runtime", "onnx")
        for ours, theirs in zip(want, got, strict=True):
            assert [name for name, _ in theirs] == [name for name, _ in ours]
            assert [s for _, s in theirs] == pytest.approx([s for _, s in ours], abs=1e-4)


def test_an_exported_folder_is_a_checkpoint(xmr: Xmr, index: Path, bagwise: Made) -> None:
    assert search(xmr, index, "T恤", "--checkpoint", bagwise[2]) == search(
        xmr, index, "T恤", "--runtime", "onnx"
    )


def test_it_reranks_as_the_model(xmr: Xmr, index: Path, shop: Path) -> None:
    photo = shop.parent / "photos" / "3.png"
    for what in (("T恤",), ("--image", photo, "--of", "titles")):
        want = search(xmr, index, *what, "--rerank", "6")
        got = search(xmr, index, *what, "--rerank", "6", "--runtime", "onnx")
        for ours, theirs in zip(want, got, strict=True):
            assert [name for name, _ in theirs] == [name for name, _ in ours]
            assert [s for _, s in theirs] == pytest.approx([s for _, s in ours], abs=1e-4)


def test_an_export_without_a_cross_encoder_cannot_rerank(
    xmr: Xmr, index: Path, bagwise: Made, tmp_path: Path
) -> None:
    for file in bagwise[2].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    manifest = json.loads((tmp_path / "export.json").read_text()) | {"cross": None}
    (tmp_path / "export.json").write_text(json.dumps(manifest))
    run = xmr("search", "T恤", "--index", index, "--checkpoint", tmp_path, "--rerank", "3")
    assert run.code == 2
    assert "no cross-encoder" in run.err


def test_it_cannot_explain(xmr: Xmr, shop: Path, bagwise: Made) -> None:
    photo = shop.parent / "photos" / "3.png"
    run = xmr("score", photo, "T恤", "--checkpoint", bagwise[2], "--explain")
    assert run.code == 2
    assert "cannot explain" in run.err


def test_a_model_that_was_not_exported_is_named(xmr: Xmr, index: Path, tmp_path: Path) -> None:
    other = saved_model(tmp_path / "model", seed=1)
    common = ("search", "T恤", "--index", index, "--checkpoint", other)
    run = xmr(*common, "--runtime", "onnx")
    assert run.code == 2
    assert f"xmr export onnx {other}" in run.err
    assert "built with another model" in xmr(*common).err


def test_an_export_of_an_older_model_is_to_be_made_again(
    xmr: Xmr, index: Path, bagwise: Made, tmp_path: Path
) -> None:
    for file in bagwise[2].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    manifest = json.loads((tmp_path / "export.json").read_text()) | {"model": "0" * 16}
    (tmp_path / "export.json").write_text(json.dumps(manifest))
    run = xmr("search", "T恤", "--index", index, "--checkpoint", tmp_path)
    assert run.code == 2
    assert "xmr export onnx" in run.err


def test_scores_are_the_models(xmr: Xmr, shop: Path, bagwise: Made) -> None:
    photo = shop.parent / "photos" / "3.png"
    both = [
        xmr("score", photo, "红色连衣裙", "T恤", "--json", "--checkpoint", bagwise[1], *more).json()
        for more in ((), ("--runtime", "onnx"))
    ]
    for name in ("text_to_image", "image_to_text", "text_to_image_mean", "image_to_text_mean"):
        assert both[1][name] == pytest.approx(both[0][name], abs=1e-4)
    assert both[1]["bags"] == both[0]["bags"]


def test_encoded_files_are_the_models(xmr: Xmr, shop: Path, bagwise: Made, tmp_path: Path) -> None:
    tables = []
    for name in ("torch", "onnx"):
        out = tmp_path / name
        run = xmr(
            "encode", shop, "--out", out, "--checkpoint", bagwise[1], "--runtime", name,
            "--dtype", "float32",
        )  # fmt: skip
        assert run.code == 0, run.err
        with pa.OSFile(str(next(out.glob("*.arrow")))) as source:
            tables.append(pa.ipc.open_file(source).read_all())
    assert tables[0].schema.equals(tables[1].schema, check_metadata=True)
    for column in ("image_vectors", "title_vectors", "image_vector", "title_vector"):
        flat = [table[column].combine_chunks().flatten() for table in tables]
        if column.endswith("s"):
            flat = [values.flatten() for values in flat]
        ours, theirs = (np.array(values.to_numpy(zero_copy_only=False), float) for values in flat)
        np.testing.assert_allclose(theirs, ours, atol=2e-3 if column.endswith("r") else 1e-5)


@pytest.mark.slow
def test_an_export_is_compared_with_the_model(xmr: Xmr, bagwise: Made, tmp_path: Path) -> None:
    from tests.support.datasets import write_split

    queries = [(n, f"红色碎花连衣裙{n}号", (100 + n,)) for n in range(8)]
    write_split(tmp_path / "data", "valid", queries)
    run = xmr(
        "export", "onnx", bagwise[1], tmp_path / "out", "--dataset", tmp_path / "data", "--json"
    )
    found = run.json()["compared"]
    assert found["onnx"]["text_to_image"] == found["torch"]["text_to_image"]
    assert found["onnx"]["image_to_text"] == found["torch"]["image_to_text"]
    assert 0 < found["onnx"]["score_difference"] < 1e-4
    assert min(found["onnx"]["titles_per_second"], found["onnx"]["images_per_second"]) > 0


def test_impossible_options_are_refused_before_any_work(xmr: Xmr, tmp_path: Path) -> None:
    run = xmr("export", "onnx", "m", tmp_path / "out", "--fp16", "--int8", "dynamic")
    assert (run.code, "--fp16, --int8" in run.err) == (2, True)
    run = xmr("export", "onnx", "m", tmp_path / "out", "--int8", "static")
    assert (run.code, "--dataset" in run.err) == (2, True)
    assert not (tmp_path / "out").exists()
