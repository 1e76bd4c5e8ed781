"""``sets.json``: named sets of queries, and recall on each."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bagformer_cli.data.query_sets import FILE_NAME, QuerySet, read_sets, sets_text
from bagformer_cli.errors import DataError
from bagformer_cli.evaluation.query_sets import recall_by_set


def test_what_is_written_is_read(tmp_path: Path) -> None:
    sets = {"两件": QuerySet((3, 1), {"oracle": 99.5}), "empty": QuerySet(())}
    (tmp_path / FILE_NAME).write_text(sets_text({"test": sets}), encoding="utf-8")
    assert read_sets(tmp_path, "test") == sets
    assert read_sets(tmp_path, "valid") == {}


def test_a_folder_without_the_file_has_no_sets(tmp_path: Path) -> None:
    assert read_sets(tmp_path, "test") == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": "xmr-query-sets", "version": 2, "splits": {}}',
        '{"format": "xmr-query-sets", "version": 1, "splits": []}',
        '{"format": "xmr-query-sets", "version": 1, "splits": {"test": {"a": {"queries": "12"}}}}',
        '{"format": "xmr-query-sets", "version": 1, "splits": {"test": {"a": {"queries": [0.5]}}}}',
        '{"format": "xmr-query-sets", "version": 1, "splits": {"test": {"a": [1]}}}',
    ],
)
def test_another_file_of_that_name_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="query sets"):
        read_sets(tmp_path, "test")


def test_recall_by_set_by_hand(tmp_path: Path) -> None:
    sets = {"first": QuerySet((11, 13), {"oracle": 100.0}), "gone": QuerySet((99,))}
    (tmp_path / FILE_NAME).write_text(sets_text({"test": sets}), encoding="utf-8")
    split: Any = SimpleNamespace(name="test", query_ids=np.array([11, 12, 13]))
    ranks = {
        "text_to_image": np.array([0, 50, 7]),
        "merged/text_to_image": np.array([0, 50, 0]),
    }
    found: Any = SimpleNamespace(ranks=ranks, stages={"recall": {}, "merged": {}})
    report = recall_by_set(tmp_path, split, found)
    assert list(report) == ["first"]
    assert report["first"]["queries"] == 2
    assert report["first"]["figures"] == {"oracle": 100.0}
    assert report["first"]["stages"]["recall"]["recall@1"] == 50
    assert report["first"]["stages"]["recall"]["mean_recall"] == pytest.approx(
        100 * (0.5 + 0.5 + 1) / 3
    )
    assert report["first"]["stages"]["merged"]["mean_recall"] == 100
