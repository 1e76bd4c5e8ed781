"""Compiled loops: their cache on disk, and machines where there can be none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba.core.caching import CacheImpl

from bagformer_cli.compiled import compile_loop
from bagformer_cli.interaction.kernels.cpu import loops


def _total(values: Any) -> Any:
    total = 0.0
    for value in values:
        total += value
    return total


def test_without_a_cache_folder_a_loop_is_compiled_in_this_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    total = compile_loop(_total)
    assert total(np.arange(4.0)) == 6.0
    assert total.stats.cache_path is None


def test_loops_with_named_tuples_are_loaded_from_the_cache() -> None:
    columns = loops.Items(np.array([0, 2]), np.ones(1, np.float32))
    scores = loops.TileScores(np.zeros((1, 1), np.float32), np.zeros((0, 0), np.float32))
    tile = np.array([[1.0, 2.0]], np.float32)
    rows = loops.Items(np.array([0, 1]), np.ones(1, np.float32))
    compile_loop(loops._reduce)(tile, rows, columns, scores, np.zeros(2, np.float32))
    assert scores.t2i.tolist() == [[2.0]]
    again = compile_loop(loops._reduce)  # as in another process
    again(tile, rows, columns, scores, np.zeros(2, np.float32))
    assert sum(again.stats.cache_hits.values()) == 1
