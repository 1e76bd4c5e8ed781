"""What only the LanceDB engine has: damage, the vector cache, shared storage (S3)."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("lancedb", reason="needs lancedb, which is not installed")

import lancedb

from bagformer_cli.errors import InputError
from bagformer_cli.index import lancedb as engines
from bagformer_cli.index import lancedb_table, vector_cache
from bagformer_cli.index.engine import engine_error
from bagformer_cli.index.lancedb import LanceEngine
from bagformer_cli.vectors.residual_codes import Codebook
from tests.support.index_rows import LAYOUT, best, coded, embeddings, query, rows
from tests.support.remarks import Remarks


@pytest.fixture
def engine(tmp_path: Path) -> LanceEngine:
    made = LanceEngine.create(str(tmp_path / "index"), LAYOUT)
    made.upsert(rows(range(40)))
    return made


def found(engine: LanceEngine, method: str = "exact", k: int = 100) -> list[str]:
    result = engine.recall("image", query(), k, None, method, candidates=k)  # type: ignore[arg-type]
    return [row["id"] for row in engine.fetch(result.keys[0], ["id"])]


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


def test_the_vector_cache_follows_the_table_in_segments(engine: LanceEngine) -> None:
    assert found(engine) == best(query(), range(40))
    names = []
    for number in range(50, 70, 2):
        engine.upsert(rows([number + 1]))
        assert f"p{number + 1}" in found(engine)
        names.append(list(engine.cache("image").names))
    assert max(map(len, names)) <= vector_cache.MAX_SEGMENTS + 1
    assert any(len(after) < len(before) for before, after in pairwise(names))
    again = LanceEngine.open(engine.uri)
    assert found(again) == found(engine)
    folder = engine.cache("image").folder
    kept = {path.name.partition(".")[0] for path in folder.glob("segment-*")}
    assert kept == set(again.cache("image").names)


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


@pytest.mark.parametrize(
    "names",
    [[["../elsewhere", 1, 1]], [["/tmp", 1, 1]], [["segment-x", 1, 1]], [["segment-x", 1]], [3],
     [["segment-x", 1, -1]], [["segment-x", 1, 1e300]], "segments", 3],
)  # fmt: skip
def test_names_in_a_cache_are_no_paths(engine: LanceEngine, names: Any) -> None:
    expected = found(engine)
    folder = engine.cache("image").folder
    (folder / "segments.json").write_text(json.dumps({"segments": names}))
    again = LanceEngine.open(engine.uri)
    assert found(again) == expected
    assert json.loads((folder / "segments.json").read_text())["segments"] != names


def test_row_ids_in_a_wrong_order_are_noticed(engine: LanceEngine) -> None:
    expected = found(engine)
    (keys,) = engine.cache("image").folder.glob("*.keys.npy")
    np.save(keys, np.load(keys)[::-1])
    assert found(LanceEngine.open(engine.uri)) == expected


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


def test_a_cache_that_cannot_be_written_is_made_in_the_users_folder(
    engine: LanceEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XMR_CACHE", str(tmp_path / "cache"))
    found(engine)
    engine.upsert(rows(range(40, 44)))
    reader = LanceEngine.open(engine.uri)
    extend = vector_cache.VectorCache._extend

    def read_only(cache: vector_cache.VectorCache, *arguments: Any) -> None:
        if Path(engine.uri) in cache.folder.parents:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        extend(cache, *arguments)

    monkeypatch.setattr(vector_cache.VectorCache, "_extend", read_only)
    assert found(reader) == best(query(), range(44))


def test_a_search_on_a_device_finds_the_same_rows_and_forgets_old_segments(
    engine: LanceEngine,
) -> None:
    expected = found(engine, k=10)
    engine.device = torch.device("cpu")  # stands for a GPU: the vectors are copied to it
    engine.upsert(rows(range(40, 45)))
    engine.remove([f"p{number}" for number in range(40, 45)])
    assert found(engine, k=10) == expected
    cache = engine.cache("image")
    assert set(cache._on_device) == set(cache.names)
    before = cache.names
    engine.remove([f"p{number}" for number in range(3, 40)])
    engine.upsert(rows(range(50, 60)))
    assert found(engine) == found(LanceEngine.open(engine.uri))
    cache = engine.cache("image")
    assert cache.names != before
    assert set(cache._on_device) == set(cache.names)


def test_centroids_go_with_the_segment_they_were_built_from(
    engine: LanceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_cache, "CENTROIDS_FROM_BYTES", 1)
    engine.optimize()
    engine.remove([f"p{number}" for number in range(20)])
    assert engine.cache("image").centroids is not None
    (values,) = Path(engine.uri).glob("vector_cache/*/image/segment-*/values.npy")
    values.write_bytes(values.read_bytes()[:-100])
    again = LanceEngine.open(engine.uri)
    assert found(again) == best(query(), range(20, 40))
    assert again.cache("image").centroids is None  # its positions are other rows now
    left = values.parents[1] / ".segment-x.part"
    left.mkdir()
    again.upsert(rows([50]))
    assert found(again) == best(query(), [*range(20, 40), 50])
    assert not left.exists()  # a killed process's


def test_the_cache_of_an_earlier_version_is_used_under_its_new_name(engine: LanceEngine) -> None:
    found(engine)
    names = engine.cache("image").names
    (Path(engine.uri) / "vector_cache").rename(Path(engine.uri) / "mirror")
    again = LanceEngine.open(engine.uri)
    assert found(again) == best(query(), range(40))
    assert again.cache("image").names == names
    assert not (Path(engine.uri) / "mirror").exists()


def test_many_removed_rows_leave_the_cache(engine: LanceEngine) -> None:
    found(engine)
    engine.remove(where="price >= 15")
    assert found(engine) == best(query(), range(15))
    engine.upsert(rows([90, 91]))
    assert sorted(found(engine)) == sorted(best(query(), [*range(15), 90, 91]))
    assert len(engine.cache("image")) == len(found(engine))


def test_compaction_changes_no_result(engine: LanceEngine) -> None:
    for number in range(41, 47):
        engine.upsert(rows([number, number - 30]))
    before = found(engine)
    keys = engine.cache("image").keys.copy()
    engine.optimize()
    assert found(engine) == before
    assert set(engine.cache("image").keys) == set(keys)


def lies(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the numbers of a file; what others have mapped stays."""
    array = np.load(path)
    path.unlink()
    np.save(path, change(array))


DAMAGES: dict[str, Callable[[Path, str], object]] = {
    "values": lambda folder, name: (folder / name / "values.npy").write_bytes(b"nonsense"),
    "values of another type": lambda folder, name: lies(
        folder / name / "values.npy", lambda values: values.astype(np.int16)
    ),
    "keys gone": lambda folder, name: (folder / f"{name}.keys.npy").unlink(),
    "keys reversed": lambda folder, name: lies(
        folder / f"{name}.keys.npy", lambda keys: keys[::-1].copy()
    ),
    "keys of other rows": lambda folder, name: lies(
        folder / f"{name}.keys.npy", lambda keys: keys + np.uint64(1)
    ),
    "count": lambda folder, name: (folder / name / "vectors.json").write_text(
        (folder / name / "vectors.json").read_text().replace('"items": ', '"items": 1')
    ),
    "list": lambda folder, name: (folder / "segments.json").write_text("{"),
    "another folder": lambda folder, name: (folder / "segments.json").write_text(
        '{"segments": [["../../elsewhere", 0, 1]]}'
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_made_again_with_a_remark(engine: LanceEngine, damage: str) -> None:
    before = found(engine)
    cache = engine.cache("image")
    DAMAGES[damage](cache.folder, cache.names[0])
    said = Remarks()
    again = LanceEngine.open(engine.uri)
    again.updated_cache("image", said)
    assert found(again) == before
    (remark,) = said.warnings
    assert "damaged" in remark
    assert str(cache.folder) in remark
    assert found(LanceEngine.open(engine.uri)) == before


@pytest.mark.parametrize("checksums", [False, True])
def test_a_cache_that_is_gone_or_of_an_earlier_version_is_made_without_a_remark(
    engine: LanceEngine, checksums: bool
) -> None:
    before, said = found(engine), Remarks()
    cache = engine.cache("image")
    # Without checksums, or without the versions that the segments are copies of.
    listed = {"segments": [list(one.listed[:2]) for one in cache.segments]}
    if not checksums:
        listed = {"segments": cache.names}
    (cache.folder / "segments.json").write_text(json.dumps(listed))
    again = LanceEngine.open(engine.uri)
    again.updated_cache("image", said)
    assert found(again) == before
    shutil.rmtree(cache.folder)
    again = LanceEngine.open(engine.uri)
    again.updated_cache("image", said)
    assert found(again) == before
    assert not said.warnings


def test_the_centroid_first_stage_finds_what_the_scan_finds(
    engine: LanceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_cache, "CENTROIDS_FROM_BYTES", 1)
    monkeypatch.setattr(engines, "MIN_CANDIDATES", 12)
    monkeypatch.setattr(engines, "CANDIDATES_PER_RESULT", 1)
    engine.optimize()
    result = engine.recall("image", query(), 3, None, "tokens", candidates=3)
    assert result.method == "tokens"
    assert found(engine, "tokens", 3) == found(engine, "exact", 3)
    cheap = engine.recall("image", query(), 3, "price >= 20", "tokens", candidates=3)
    whole = engine.recall("image", query(), 3, "price >= 20", "exact", candidates=3)
    assert cheap.keys[0].tolist() == whole.keys[0].tolist()
    engine.upsert(rows([77], seed=0))  # came later: scanned
    assert set(found(engine, "tokens", 100)) >= {"p77"}
    engine.remove(["p77", found(engine, "exact", 1)[0]])
    assert found(engine, "tokens", 3) == found(engine, "exact", 3)
    again = LanceEngine.open(engine.uri)
    assert again.recall("image", query(), 3, None, "tokens", candidates=3).method == "tokens"


def test_a_note_says_that_there_are_no_centroids(engine: LanceEngine) -> None:
    result = engine.recall("image", query(), 3, None, "tokens", candidates=3)
    assert result.method == "exact"
    assert "too small for centroids" in result.note
    assert "too small" not in engine.recall("image", query(), 3, None, "exact", candidates=3).note


def test_damaged_centroids_are_not_used(
    engine: LanceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_cache, "CENTROIDS_FROM_BYTES", 1)
    engine.optimize()
    folder = engine.cache("image").folder / "tokens"
    for name in ("numbers.npy", "tokens.json"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-3])
        again = LanceEngine.open(engine.uri)
        result = again.recall("image", query(), 3, None, "tokens", candidates=3)
        assert result.method == "exact"
        assert len(result.keys[0]) == 3


def test_a_folder_without_write_permission_is_cached_in_the_users_folder(
    engine: LanceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    reader = LanceEngine.open(engine.uri)
    assert found(reader) == best(query(), range(40))
    assert not (Path(engine.uri) / "vector_cache").exists()


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
