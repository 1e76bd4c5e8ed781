"""Residual codes in ``xmr encode`` and ``xmr index``: stored with their codebook, and checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bagformer_cli.errors import InputError
from bagformer_cli.index.compression.codebook import layout_and_codebook
from bagformer_cli.index.encoded import encoded_files, read_rows
from bagformer_cli.index.engines import create_engine, open_engine
from bagformer_cli.index.row_vectors import side_vectors
from bagformer_cli.index.rows import Layout
from bagformer_cli.interaction.maxsim import score_texts
from bagformer_cli.vectors.residual_codes import Codebook
from tests.support.index_rows import best, coded, embeddings, query, rows
from tests.support.small_model import saved_model, write_table


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("model") / "best")


@pytest.fixture(scope="module")
def book() -> Codebook:
    names = [f"p{number}" for number in range(200)]
    return Codebook.train(torch.cat(embeddings(names) + embeddings(names, 1)))


def coded_rows(book: Codebook, numbers: range) -> Any:
    return rows(numbers, layout=coded(book), codebook=book)


def test_an_index_of_residual_codes_searches_their_decoded_vectors(
    tmp_path: Path, book: Codebook
) -> None:
    engine = create_engine(str(tmp_path / "index"), coded(book), book)
    engine.upsert(coded_rows(book, range(1, 60)))
    engine.upsert(coded_rows(book, range(50, 90)))
    engine.remove(["p3"])
    engine.optimize()
    engine = open_engine(engine.uri)
    assert engine.codebook is not None
    assert engine.codebook.digest == book.digest
    asked = query()
    result = engine.recall("image", asked, 5, None, "exact", candidates=5)
    there = engine.fetch(result.keys[0], ["id"])
    scores = []
    for number in range(1, 90):
        if number % 4 == 0:  # without an image
            scores.append(-9.0)
            continue
        decoded = book.decode(book.encode(embeddings([f"p{number}"])[0]))
        scores.append(float((asked.tensors.values @ decoded.T).amax(1).sum()))
    scores[2] = -9.0  # p3, which was removed
    order = sorted(range(1, 90), key=lambda number: -scores[number - 1])[:5]
    assert [row["id"] for row in there] == [f"p{number}" for number in order]
    wanted = torch.tensor([scores[number - 1] for number in order])
    assert torch.allclose(torch.from_numpy(result.scores[0]), wanted, atol=1e-4)
    late = engine.late_interaction("image", asked, result.keys)[0]
    assert torch.allclose(torch.from_numpy(late), wanted, atol=1e-4)
    near = [int(name[1:]) for name in best(asked, range(1, 90))[:3]]
    assert len(set(near) & set(order)) >= 2


def test_residual_codes_of_another_codebook_are_refused(tmp_path: Path, book: Codebook) -> None:
    other = Codebook.train(torch.cat(embeddings(["a", "b", "c"])))
    with pytest.raises(InputError, match="another codebook"):
        create_engine(str(tmp_path / "index"), coded(book), other)
    with pytest.raises(InputError, match="another codebook"):
        create_engine(str(tmp_path / "index"), coded(book))
    engine = create_engine(str(tmp_path / "index"), coded(book), book)
    with pytest.raises(InputError, match="do not fit the index") as caught:
        engine.upsert(coded_rows(other, range(4)))
    assert "codebook" in str(caught.value)
    assert "xmr index add CATALOGUE" in str(caught.value)
    assert engine.count() == 0


def test_qdrant_refuses_residual_codes(tmp_path: Path, book: Codebook) -> None:
    with pytest.raises(InputError, match="cannot use residual codes") as caught:
        create_engine(f"qdrant://{tmp_path}/items", coded(book), book)
    assert "--dtype" in str(caught.value)


def encoded(folder: Path) -> torch.Tensor:
    layout, book = layout_and_codebook(folder)
    batches = [batch for file in encoded_files(folder) for batch in read_rows(file)]
    assert all(Layout.from_schema(batch.schema) == layout for batch in batches)
    vectors = [side_vectors(batch, "image", book).to(dtype=torch.float32) for batch in batches]
    parts = [own.values for own in vectors]
    return torch.cat(parts)


def test_encoded_files_of_residual_codes_become_an_index(
    tmp_path: Path, model: Path, xmr: Callable[..., Any]
) -> None:
    table = write_table(tmp_path, 9)
    common = ["--checkpoint", model, "--piece-size", 4]
    residual = ["encode", table, "--out", tmp_path / "coded", "--dtype", "residual4", *common]
    made = xmr(*residual, "--json").json()
    assert made["made"] == 3
    xmr("encode", table, "--out", tmp_path / "plain", *common)
    found, wanted = encoded(tmp_path / "coded"), encoded(tmp_path / "plain")
    assert found.shape == wanted.shape
    assert float((found * wanted).sum(1).mean()) > 0.98
    # A second run finds the codebook of the first, so it writes only files that are missing.
    assert xmr(*residual, "--json").json()["made"] == 0
    sorted((tmp_path / "coded").glob("part-*"))[1].unlink()
    assert xmr(*residual, "--json").json()["made"] == 1
    assert torch.equal(encoded(tmp_path / "coded"), found)

    index = tmp_path / "index"
    assert xmr("index", "build", tmp_path / "coded", index, "--json").json()["rows"] == 9
    info = xmr("index", "info", index, "--json").json()
    assert info["layout"]["dtype"] == "residual4"
    assert info["layout"]["codebook"] == layout_and_codebook(tmp_path / "coded")[1].digest  # type: ignore[union-attr]
    found = xmr("search", "连衣裙", "--index", index, "--json", "-k", 3).json()
    hits = found["results"][0]["hits"]
    assert len(hits) == 3
    # A catalogue is encoded with the index's codebook; files with another codebook are refused.
    assert xmr("index", "add", table, index, "--json").json()["rows"] == 9
    less = write_table(tmp_path / "less", 5)
    xmr("encode", less, "--out", tmp_path / "other", "--dtype", "residual4", *common)
    wrong = xmr("index", "add", tmp_path / "other", index)
    assert wrong.code == 2
    assert "codebook" in wrong.err
    next((tmp_path / "coded").glob("codebook-*")).write_bytes(b"")
    gone = xmr("index", "build", tmp_path / "coded", tmp_path / "i")
    assert gone.code == 2
    assert "missing or damaged" in gone.err


def test_an_index_of_residual_codes_is_built_from_a_catalogue(
    tmp_path: Path, model: Path, xmr: Callable[..., Any]
) -> None:
    table = write_table(tmp_path, 9)
    index = tmp_path / "index"
    xmr("index", "build", table, index, "--dtype", "residual4", "--checkpoint", model)
    layout = open_engine(str(index)).layout
    assert layout.dtype == "residual4"
    engine = open_engine(str(index))
    result = engine.recall("image", query(dim=layout.dim), 9, None, "exact", candidates=9)
    assert len(result.keys[0]) == 9
    assert torch.isfinite(score_texts(query(dim=layout.dim).tensors, engine.cache("image")  # type: ignore[attr-defined]
                                      .segments[0].vectors)).all()  # fmt: skip


def test_an_index_of_a_type_that_is_no_longer_read_is_refused() -> None:
    layout = coded(Codebook.train(torch.eye(8)))
    known = layout.schema.metadata
    old = {key: value.replace(b"residual4", b"residual2") for key, value in known.items()}
    with pytest.raises(InputError, match="cannot read vectors of this type") as caught:
        Layout.from_schema(layout.schema.with_metadata(old))
    assert caught.value.found == "residual2"
