"""What only the LanceDB engine has: damage, snapshots, shared storage (S3)."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lancedb", reason="needs lancedb, which is not installed")

import lancedb

from bagformer_cli.errors import InputError
from bagformer_cli.index import lancedb_table
from bagformer_cli.index.engine_errors import engine_error
from bagformer_cli.index.lancedb import LanceEngine
from bagformer_cli.vectors.residual_codes import Codebook
from tests.support.index_rows import LAYOUT, best, coded, embeddings, query, rows
from tests.support.lancedb_index import found, new_engine


@pytest.fixture
def engine(tmp_path: Path) -> LanceEngine:
    return new_engine(tmp_path)


def test_a_damaged_table_is_named(engine: LanceEngine) -> None:
    for file in Path(engine.uri).glob("items.lance/data/*.lance"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(InputError, match="damaged") as caught:
        found(LanceEngine.open(engine.uri))
    assert engine.uri in str(caught.value)


def test_a_damaged_manifest_is_named(engine: LanceEngine) -> None:
    for file in Path(engine.uri).glob("items.lance/_versions/*"):
        file.write_bytes(b"nonsense")
    with pytest.raises(InputError) as caught:
        found(LanceEngine.open(engine.uri))
    assert engine.uri in str(caught.value)


def test_an_index_appears_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = str(tmp_path / "index")
    book = Codebook.train(torch.cat(embeddings([f"p{number}" for number in range(90)])))
    create = lancedb.db.LanceDBConnection.create_table

    def stop_at_the_rows(self: Any, name: str, *args: Any, **options: Any) -> Any:
        if name == "items":
            raise KeyboardInterrupt
        return create(self, name, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(lancedb.db.LanceDBConnection, "create_table", stop_at_the_rows)
        with pytest.raises(KeyboardInterrupt):
            LanceEngine.create(uri, coded(book), book)
    assert [path.name for path in Path(uri).iterdir()] == ["write.lock"]
    made = LanceEngine.create(uri, coded(book), book)
    made.upsert(rows(range(40), layout=coded(book), codebook=book))
    assert made.count() == 40


def test_a_folder_that_is_no_index_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match="not an index"):
        LanceEngine.open(str(tmp_path))
    lancedb.connect(str(tmp_path / "db")).create_table("items", [{"a": 1}])
    with pytest.raises(InputError, match="not an index"):
        LanceEngine.open(str(tmp_path / "db"))


def test_the_name_of_an_index_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    metadata = {**LAYOUT.schema.metadata, b"xmr_index": b"../../outside"}
    database = lancedb.connect(str(tmp_path / "index"))
    database.create_table("items", schema=LAYOUT.schema.with_metadata(metadata))
    with pytest.raises(InputError, match="not an index"):
        LanceEngine.open(str(tmp_path / "index"))


def test_the_table_is_asked_for_its_version_only_after_a_write(
    engine: LanceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = LanceEngine.open(engine.uri)
    versions = Path(engine.uri) / "items.lance" / "_versions"
    assert found(reader) == best(query(), range(40))
    asked = []
    probe = reader.table._probe
    assert probe is not None
    ask = probe.checkout_latest
    monkeypatch.setattr(probe, "checkout_latest", lambda: asked.append(1) or ask())
    found(reader)
    assert asked  # written a moment ago: what follows might bear the same time
    long_ago = os.stat(versions).st_mtime_ns - 10 * lancedb_table.MTIME_SETTLED_NS
    os.utime(versions, ns=(long_ago, long_ago))
    found(reader)
    asked.clear()
    found(reader)
    assert not asked
    engine.upsert(rows(range(40, 44)))
    assert found(reader) == best(query(), range(44))
    assert asked


def test_a_narrow_filter_finds_all_rows_through_the_single_vector_index(
    engine: LanceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lancedb_table, "MIN_INDEXED_ROWS", 100)
    monkeypatch.setattr(lancedb_table, "MIN_PROBES", 1)
    engine.upsert(rows(range(400)))
    engine.optimize()
    assert "image_vector_idx" in engine.info()["indices"]
    few = engine.recall("image", query(), 20, "price < 11", "vector", candidates=20)
    names = {row["id"] for row in engine.fetch(few.keys[0], ["id"])}
    assert names == {f"p{number}" for number in range(11) if number % 4}


def test_a_filter_cannot_be_widened_by_brackets(engine: LanceEngine) -> None:
    odd = "price < 5) OR (price > 35"
    with pytest.raises(InputError, match="not an expression"):
        engine.remove(where=odd)
    with pytest.raises(InputError, match="not an expression"):
        engine.recall("image", query(), 40, odd, "vector", candidates=40)
    assert engine.count() == 40
    expected = {f"p{number}" for number in [*range(5), *range(36, 40)] if number % 4}
    either = "price < 5 OR price > 35"  # the first stage joins it with another condition
    result = engine.recall("image", query(), 40, either, "vector", candidates=40)
    assert {row["id"] for row in engine.fetch(result.keys[0], ["id"])} == expected


def test_a_filter_is_evaluated_at_the_newest_version(engine: LanceEngine) -> None:
    reader = LanceEngine.open(engine.uri)
    found(reader)
    old = {path.name for path in Path(engine.uri).glob("items.lance/_versions/*")}
    engine.upsert(rows(range(40, 44)))
    for path in Path(engine.uri).glob("items.lance/_versions/*"):
        if path.name in old:
            path.unlink()  # as a compaction does after a day
    result = reader.recall("image", query(), 100, "price >= 40", "exact", candidates=9)
    assert len(result.keys[0]) == 3
    assert reader.count("price >= 40") == 4


@pytest.mark.parametrize("dim", [8, 64, 256])
def test_products_without_a_side_are_added_to_others(tmp_path: Path, dim: int) -> None:
    layout = replace(LAYOUT, dim=dim, dtype="int8")
    made = LanceEngine.create(str(tmp_path / "index"), layout)
    made.upsert(rows(range(10), layout=layout, titles=False))
    made.upsert(rows([4, 8, 12], layout=layout))  # none has an image
    made.upsert(rows(range(20, 30), layout=layout, titles=False))  # none has a title
    assert made.count() == 21
    keys = made.table.keys("title_count IS NOT NULL")
    assert {row["id"] for row in made.fetch(keys, ["id"])} == {"p4", "p8", "p12"}
    keys = made.table.keys("image_count IS NOT NULL")
    expected = {f"p{n}" for n in [*range(10), *range(20, 30)] if n % 4}
    assert {row["id"] for row in made.fetch(keys, ["id"])} == expected


def fast_score(engine: LanceEngine, name: str, method: Any = "exact") -> float:
    """The score of one product, after any first stage."""
    result = engine.recall("image", query(), 1, f"id = '{name}'", method, candidates=1)
    scores = result.scores
    if not result.final:
        scores = engine.late_interaction("image", query(), result.keys)
    return float(scores[0][0])


def wanted_score(name: str, seed: int) -> float:
    return float((query().tensors.values @ embeddings([name], seed)[0].T).amax(1).sum())


def test_a_product_that_is_written_again_has_its_new_vectors(engine: LanceEngine) -> None:
    """LanceDB keeps the row id of such a product, and the cache holds its old vectors."""
    engine.optimize()
    assert fast_score(engine, "p5") == pytest.approx(wanted_score("p5", 0), abs=1e-5)
    for seed in range(1, 14):  # more often than a cache has segments
        engine.upsert(rows([5, 6], seed=seed))
        for one in (engine, LanceEngine.open(engine.uri)):
            for method in ("vector", "exact"):
                score = fast_score(one, "p5", method)
                assert score == pytest.approx(wanted_score("p5", seed), abs=1e-5)
        assert len(found(engine)) == len(set(found(engine)))
    engine.optimize()
    assert fast_score(engine, "p6") == pytest.approx(wanted_score("p6", 13), abs=1e-5)
    assert fast_score(engine, "p7") == pytest.approx(wanted_score("p7", 0), abs=1e-5)
    assert engine.cache("image").alive.sum() == len(found(engine))


def test_a_snapshot_keeps_the_old_vectors_of_a_product(engine: LanceEngine) -> None:
    snapshot = engine.snapshot("image")
    assert isinstance(snapshot, LanceEngine)
    engine.upsert(rows([5], seed=1))
    assert fast_score(engine, "p5") == pytest.approx(wanted_score("p5", 1), abs=1e-5)
    assert fast_score(snapshot, "p5") == pytest.approx(wanted_score("p5", 0), abs=1e-5)


def test_a_snapshot_stays_at_its_version(engine: LanceEngine) -> None:
    before = found(engine)
    snapshot = engine.snapshot("image")
    engine.upsert(rows(range(20), seed=7))
    engine.remove(["p21", "p22"])
    engine.optimize()
    assert found(engine) != before
    recalled = snapshot.recall("image", query(), 100, None, "exact", candidates=100)
    names = [row["id"] for row in snapshot.fetch(recalled.keys[0], ["id"])]
    assert names == before
    assert "p21" not in found(engine)
    later = engine.snapshot("image")
    assert found(later) == found(engine)  # type: ignore[arg-type]


def test_what_is_acknowledged_is_flushed_to_the_disk(
    engine: LanceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Path(engine.uri) / "items.lance"
    flushed: set[str] = set()
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda n: (flushed.add(os.readlink(f"/proc/self/fd/{n}")), fsync(n))[1]
    )
    for write in (lambda: engine.upsert(rows([60])), lambda: engine.remove(["p1"])):
        before = {path: path.stat().st_mtime_ns for path in table.rglob("*")}
        flushed.clear()
        write()
        made = {
            path
            for path in table.rglob("*")
            if path.is_file() and before.get(path) != path.stat().st_mtime_ns
        }
        assert len(made) >= 2
        assert {str(path.resolve()) for path in made} <= flushed
        assert {str(path.parent.resolve()) for path in made} <= flushed


def test_an_interrupted_build_marks_the_index_as_incomplete(engine: LanceEngine) -> None:
    def stop() -> None:
        with engine.filling("a.csv"):
            raise KeyboardInterrupt

    assert not engine.incomplete
    with pytest.raises(KeyboardInterrupt):
        stop()
    assert LanceEngine.open(engine.uri).info()["unfinished"]
    with pytest.raises(InputError, match="incomplete index"):
        LanceEngine.create(engine.uri, LAYOUT)
    with engine.filling("b.csv"):  # another catalogue does not complete the first one
        pass
    assert engine.unfinished_sources() == {"a.csv"}
    with engine.filling("a.csv"):
        pass
    assert not engine.info()["unfinished"]
    (Path(engine.uri) / "unfinished").touch()  # as an earlier version left it
    assert engine.incomplete
    with engine.filling("a.csv"):
        pass
    assert not engine.incomplete


def test_a_write_conflict_is_not_called_damage() -> None:
    said = engine_error(
        "index", RuntimeError("lance error: Retryable commit conflict for version 7")
    )
    assert "Another process is writing" in str(said)


def test_a_missing_side_is_named(tmp_path: Path) -> None:
    made = LanceEngine.create(str(tmp_path / "index"), replace(LAYOUT, sides=("image",)))
    for method in ("exact", "vector"):
        with pytest.raises(InputError, match="holds no titles"):
            made.recall("title", query(), 3, None, method, candidates=3)  # type: ignore[arg-type]


@pytest.mark.slow
def test_an_index_on_shared_storage_is_written_and_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``s3://`` against moto's server on loopback: one writes, others read without any server."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        for name, value in {
            "AWS_ENDPOINT": address,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        boto3.client("s3", endpoint_url=address, region_name="us-east-1").create_bucket(
            Bucket="catalogue"
        )
        uri = "s3://catalogue/index"
        with pytest.raises(InputError, match="not an index"):
            LanceEngine.open(uri)
        writer = LanceEngine.create(uri, LAYOUT)
        writer.upsert(rows(range(20)))
        reader = LanceEngine.open(uri)
        assert found(reader) == best(query(), range(20))
        writer.upsert(rows([30]))
        writer.remove(["p1"])
        assert found(reader) == best(query(), [*range(2, 20), 30])
        assert reader.count("price < 5") == 4
        book = Codebook.train(torch.cat(embeddings([f"p{number}" for number in range(90)])))
        codes = LanceEngine.create("s3://catalogue/codes", coded(book), book)
        codes.upsert(rows(range(20), layout=coded(book), codebook=book))
        again = LanceEngine.open("s3://catalogue/codes")
        assert set(found(again)) == set(best(query(), range(20)))
        assert again.codebook is not None
        assert again.codebook.digest == book.digest
    finally:
        server.stop()
