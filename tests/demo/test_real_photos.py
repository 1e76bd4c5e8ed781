"""``xmr demo --photos`` with the real packages and the real photographs."""

from __future__ import annotations

from pathlib import Path

import pytest

from bagformer_cli.demo.photos import fetch
from bagformer_cli.demo.photos.pipeline import run_photos
from bagformer_cli.demo.photos.start import PACKAGED
from bagformer_cli.errors import InputError, MissingDependencyError


@pytest.mark.net
def test_real_photographs_are_found_zero_shot_and_better_after_training(tmp_path: Path) -> None:
    try:
        stamps = fetch.photo_dataset(tmp_path / "data" / "photos") / "MR_train_queries.jsonl"
        report = run_photos(tmp_path, model=PACKAGED)
    except (InputError, MissingDependencyError) as error:
        pytest.skip(f"{error} {error.found}")
    at_10 = {
        name: row["stages"]["recall"]["text_to_image"]["recall@10"]
        for name, row in report["rows"].items()
    }
    assert at_10["zero-shot"] >= 93
    if not stamps.exists():
        pytest.skip("The photographs to train on cannot be fetched here (apt-get).")
    assert at_10["trained"] > at_10["zero-shot"]
    right = {result["query"]: result["hits"][0]["title"] for result in report["results"]}
    assert "笔记本电脑" in right["笔记本电脑"]
    assert "帐篷" in right["户外露营帐篷"]
