"""``xmr encode``: the vectors of the model, whatever the parts, and no work twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from bagformer_cli.api import Retriever
from bagformer_cli.errors import InputError
from bagformer_cli.index.compression.reduction import VectorReduction
from bagformer_cli.index.compression.token_pooling import pool_clusters, prune_by_similarity
from bagformer_cli.index.encoded import encoded_files, layout_of_file, read_rows
from bagformer_cli.index.row_vectors import side_vectors, single_vectors
from bagformer_cli.index.rows import TERMS, Layout
from bagformer_cli.index.search import Index
from bagformer_cli.vectors.multi_vectors import MultiVectors
from tests.support.datasets import picture
from tests.support.small_model import indexed_shop, saved_model, small_model, write_table


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("model") / "best")


# ----------------------------------------------------------------------------------- the command


def run(xmr: Callable[..., Any], *arguments: object) -> dict[str, Any]:
    done = xmr("encode", *arguments, "--json")
    assert done.code == 0, done.err
    return {**done.json(), "said": done.err}


def test_encoded_vectors_are_those_of_the_model(
    tmp_path: Path, model: Path, xmr: Callable[..., Any]
) -> None:
    table = write_table(tmp_path, 7)
    out = tmp_path / "out"
    report = run(xmr, table, "--out", out, "--checkpoint", model, "--piece-size", 3, "--dtype",
                 "float32", "--batch-size", 2)  # fmt: skip
    assert (report["rows"], report["files"], report["made"], report["skipped"]) == (7, 3, 3, 0)
    retriever = Retriever(small_model())
    number = 0
    for file in encoded_files(out):
        for rows in read_rows(file):
            ids = rows["id"].to_pylist()
            assert ids == [f"sku{number + n}" for n in range(len(ids))]
            images, titles = side_vectors(rows, "image"), side_vectors(rows, "title")
            for n, title in enumerate(rows["title"].to_pylist()):
                wanted = retriever.encode_images([tmp_path / f"photos/{number + n}.png"]).values
                torch.testing.assert_close(images[n].values, wanted, atol=1e-5, rtol=0)
                wanted = retriever.encode_texts([title]).values
                torch.testing.assert_close(titles[n].values, wanted, atol=1e-5, rtol=0)
            assert np.allclose(np.linalg.norm(single_vectors(rows, "image"), axis=1), 1, atol=1e-2)
            number += len(ids)
    assert number == 7


def test_complete_files_are_not_written_again(
    tmp_path: Path, model: Path, xmr: Callable[..., Any]
) -> None:
    table = write_table(tmp_path, 7)
    arguments = (table, "--out", tmp_path / "out", "--checkpoint", model, "--piece-size", 3)
    run(xmr, *arguments)
    files = encoded_files(tmp_path / "out")
    stamps = [file.stat().st_mtime_ns for file in files]
    assert run(xmr, *arguments)["made"] == 0
    files[1].unlink()  # as if the run had been killed before it
    (tmp_path / "out" / ".part-00001.arrow.abc.part").write_bytes(b"half")
    again = run(xmr, *arguments)
    assert (again["made"], again["rows"]) == (1, 7)
    assert files[0].stat().st_mtime_ns == stamps[0]
    assert not list((tmp_path / "out").glob(".*"))
    files[2].write_bytes(files[2].read_bytes()[:500])  # cut off by a disk
    assert run(xmr, *arguments)["made"] == 1
    table.write_text(table.read_text("utf-8").replace("第6款", "第60款"), "utf-8")
    assert run(xmr, *arguments)["made"] == 1
    assert run(xmr, *arguments, "--one", "mean")["made"] == 3
    other = saved_model(tmp_path / "other", seed=1)
    assert run(xmr, table, "--out", tmp_path / "out", "--checkpoint", other, "--piece-size", 3)[
        "made"
    ] == 3  # fmt: skip


def test_unreadable_products_are_named_and_left_out(
    tmp_path: Path, model: Path, xmr: Callable[..., Any]
) -> None:
    table = write_table(tmp_path, 3, broken=True)
    report = run(xmr, table, "--out", tmp_path / "out", "--checkpoint", model)
    assert (report["rows"], report["skipped"]) == (3, 3)
    for place in ("products.csv:5", "products.csv:6", "products.csv:7"):
        assert place in report["said"]
    strict = xmr("encode", table, "--out", tmp_path / "o2", "--checkpoint", model, "--strict")
    assert strict.code == 2
    assert "products.csv:5" in strict.err
    assert not list((tmp_path / "o2").glob("part-*"))


def test_a_folder_of_two_different_runs_is_incomplete(
    tmp_path: Path, model: Path, xmr: Callable[..., Any]
) -> None:
    out, table = tmp_path / "out", write_table(tmp_path, 7)
    arguments = (table, "--out", out, "--checkpoint", model, "--piece-size", 3)
    run(xmr, *arguments)
    table.write_text(table.read_text("utf-8").replace("photos/5", "photos/none"), "utf-8")
    assert xmr("encode", *arguments[:-1], 2, "--strict").code == 2  # stops in the middle
    with pytest.raises(InputError, match="incomplete"):
        encoded_files(out)
    run(xmr, *arguments[:-1], 2)
    assert len(encoded_files(out)) == 4


def test_a_file_without_rows_has_a_layout(
    tmp_path: Path, model: Path, xmr: Callable[..., Any]
) -> None:
    table = write_table(tmp_path, 4)
    table.write_text(table.read_text("utf-8").replace("photos/3", "photos/none"), "utf-8")
    run(xmr, table, "--out", tmp_path / "out", "--checkpoint", model, "--piece-size", 3)
    first, last = encoded_files(tmp_path / "out")
    assert list(read_rows(last)) == []
    assert layout_of_file(last) == layout_of_file(first)


def test_the_vectors_of_another_catalogue_stay(
    tmp_path: Path, model: Path, xmr: Callable[..., Any]
) -> None:
    out, table = tmp_path / "out", write_table(tmp_path, 4)
    run(xmr, table, "--out", out, "--checkpoint", model)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    other = table.with_name("other.csv")
    other.write_bytes(table.read_bytes())
    refused = xmr("encode", other, "--out", out, "--checkpoint", model)
    assert refused.code == 2
    assert "vectors of another catalogue" in refused.err
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_a_text_file_of_titles_is_encoded(
    tmp_path: Path, model: Path, xmr: Callable[..., Any]
) -> None:
    file = tmp_path / "queries.txt"
    file.write_text("红色连衣裙\n包\n\n手机壳\n", "utf-8")
    report = run(xmr, file, "--titles", "--out", tmp_path / "out", "--checkpoint", model)
    assert (report["rows"], report["skipped"]) == (3, 1)
    rows = next(read_rows(encoded_files(tmp_path / "out")[0]))
    assert rows["id"].to_pylist() == ["1", "2", "4"]
    assert side_vectors(rows, "image").lengths.tolist() == [0, 0, 0]
    assert side_vectors(rows, "title").lengths.min() > 0


def test_a_damaged_file_is_named(tmp_path: Path, model: Path, xmr: Callable[..., Any]) -> None:
    run(xmr, write_table(tmp_path, 3), "--out", tmp_path / "out", "--checkpoint", model)
    file = encoded_files(tmp_path / "out")[0]
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(InputError, match="damaged"):
        list(read_rows(file))


def test_words_that_older_encoded_files_lack_are_counted(
    tmp_path: Path, xmr: Callable[..., Any]
) -> None:
    """An earlier version wrote the files: their titles have no words until the next add."""
    pytest.importorskip("lancedb", reason="needs lancedb, which is not installed")
    folder = indexed_shop(tmp_path)
    index, model = folder / "index", folder / "runs/a/best"
    encode = ["encode", folder / "products.csv", "--out", folder / "files", "--checkpoint", model]
    assert xmr(*encode, "--dtype", "int8").code == 0
    again = xmr("index", "add", folder / "files", index)
    assert again.code == 0, again.err
    assert "--fusion" not in again.err
    for file in encoded_files(folder / "files"):
        rows = pa.Table.from_batches(list(read_rows(file)))
        layout = Layout.from_schema(rows.schema)
        assert layout is not None
        rows = rows.drop_columns([TERMS])
        metadata = {**rows.schema.metadata, **replace(layout, terms=False).schema.metadata}
        rows = rows.replace_schema_metadata(metadata)
        other = file.with_suffix(".new")  # the rows are still mapped from the file
        with pa.OSFile(str(other), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
            writer.write_table(rows)
        other.replace(file)
    older = xmr("index", "add", folder / "files", index)
    assert older.code == 0, older.err
    assert "12 titles of these files have no words" in " ".join(older.err.split())
    opened = Index.open(index)
    assert opened.search("第7款", fusion="rrf").hits[0].lexical is None
    assert xmr("index", "add", write_table(tmp_path / "more", 1), index).code == 0
    found = Index.open(index).search("第7款", fusion="rrf")
    assert found.hits[0].id == "sku7"
    assert found.hits[0].lexical is not None


# ------------------------------------------------------------------------------ vector reduction


def many() -> MultiVectors:
    generator = torch.Generator().manual_seed(0)
    items = [torch.randn(n, 8, generator=generator) for n in (1, 2, 17, 33)]
    return MultiVectors.from_list([torch.nn.functional.normalize(item, dim=1) for item in items])


def test_pooled_items_are_fewer_unit_vectors() -> None:
    pooled = pool_clusters(many(), 4)
    assert pooled.lengths.tolist() == [1, 2, 5, 9]  # the first vector stands apart
    torch.testing.assert_close(pooled.values.norm(dim=1), torch.ones(17))
    for before, after in zip(many().to_list(), pooled.to_list(), strict=True):
        torch.testing.assert_close(before[0], after[0])


def test_pooling_equal_vectors_loses_nothing() -> None:
    base = torch.nn.functional.normalize(torch.randn(4, 8), dim=1)
    item = torch.cat([base[:1], base[1:].repeat_interleave(5, dim=0)])
    pooled = pool_clusters(MultiVectors.from_list([item]), 5)
    query = torch.randn(3, 8)
    best = (query @ pooled.values.T).amax(1)
    torch.testing.assert_close(best, (query @ item.T).amax(1))


def test_pruning_keeps_the_vectors_most_similar_to_the_first() -> None:
    item = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1], [0.8, 0.2]])
    pruned = prune_by_similarity(MultiVectors.from_list([item]), 0.5)
    torch.testing.assert_close(pruned.values, item[[0, 2]])
    with_empty = prune_by_similarity(MultiVectors.from_list([item[:0], item]), 0.5)
    assert with_empty.lengths.tolist() == [0, 2]
    assert many().truncate(3).lengths.tolist() == [1, 2, 3, 3]


def test_a_reduction_survives_as_json() -> None:
    reduction = VectorReduction(keep=20, prune=0.5, pool=2)
    assert VectorReduction.from_json(reduction.to_json()) == reduction
    assert reduction(many()).lengths.tolist() == [1, 1, 5, 6]


def test_failed_downloads_are_tried_again_by_the_next_run(
    tmp_path: Path, model: Path, xmr: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bagformer_cli.data import downloads

    monkeypatch.setenv("XMR_CACHE", str(tmp_path / "cache"))
    down = True
    fetched = []

    def fetch(url: str, *_: object) -> bytes:
        fetched.append(url)
        if "2.png" in url and down:
            raise downloads._TemporaryError("HTTP 503")
        return picture(len(fetched))

    monkeypatch.setattr(downloads, "_fetch", fetch)
    monkeypatch.setattr(downloads.time, "sleep", lambda _: None)
    lines = ["id,image,title", *(f"a{n},https://a.cn/{n}.png,红裙" for n in range(4))]
    (tmp_path / "t.csv").write_text("\n".join(lines), "utf-8")
    arguments = (tmp_path / "t.csv", "--out", tmp_path / "v", "--checkpoint", model,
                 "--piece-size", 2, "--workers", 1)  # fmt: skip
    report = run(xmr, *arguments)
    assert (report["rows"], report["made"], report["skipped"]) == (3, 2, 1)
    assert "t.csv:4 (id a2)" in report["said"]
    down = False
    report = run(xmr, *arguments)
    assert (report["rows"], report["made"], report["skipped"]) == (4, 1, 0)
    assert len(fetched) == 6  # the failed one twice and once again; the others from the cache
    assert run(xmr, *arguments)["made"] == 0
