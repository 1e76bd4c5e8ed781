"""The vector cache of a LanceDB index: followed, damaged, moved, with centroids."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("lancedb", reason="needs lancedb, which is not installed")

from bagformer_cli.index import cache_recall, vector_cache
from bagformer_cli.index.lancedb import LanceEngine
from tests.support.index_rows import best, query, rows
from tests.support.lancedb_index import found, new_engine
from tests.support.remarks import Remarks


@pytest.fixture
def engine(tmp_path: Path) -> LanceEngine:
    return new_engine(tmp_path)


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
    assert set(cache.scanner._on_device) == set(cache.names)
    before = cache.names
    engine.remove([f"p{number}" for number in range(3, 40)])
    engine.upsert(rows(range(50, 60)))
    assert found(engine) == found(LanceEngine.open(engine.uri))
    cache = engine.cache("image")
    assert cache.names != before
    assert set(cache.scanner._on_device) == set(cache.names)


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
    monkeypatch.setattr(cache_recall, "MIN_CANDIDATES", 12)
    monkeypatch.setattr(cache_recall, "CANDIDATES_PER_RESULT", 1)
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
