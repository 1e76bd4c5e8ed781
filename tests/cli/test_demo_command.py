"""``xmr demo`` from end to end, on few pictures and few steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from bagformer_cli import config
from bagformer_cli.demo import write_demo


@pytest.mark.slow
def test_the_whole_way(
    tmp_path: Path, xmr: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_demo(tmp_path / "data" / "demo", images=300, seed=5, workers=1, size=64)
    load = config.load_config
    names = []

    def short(source: Any, items: Sequence[str] = (), *rest: Any) -> config.RunConfig:
        if source in ("pretrain_demo", "demo"):
            names.append(source)
            items = [*items, "training.max_steps=2", "training.schedule_steps=2"]
        return load(source, items, *rest)

    monkeypatch.setattr(config, "load_config", short)
    run = xmr("demo", "--output-dir", tmp_path, "--json")
    assert run.code == 0, run.err
    report = run.json()
    assert names == ["pretrain_demo", "demo"]
    assert set(report["stages"]) == {"recall", "rerank", "merged"}
    assert Path(report["checkpoint"]) == tmp_path / "runs" / "demo" / "best"
    trained = load(tmp_path / "runs" / "demo" / "config.yaml", [])
    assert trained.training.checkpoint == str(tmp_path / "runs" / "demo-pretrained" / "last")
    score, search = report["score"], report["search"]
    assert len(score["titles"]) == len(score["text_to_image"]) == 3
    assert (tmp_path / "image.jpg").read_bytes()[:2] == b"\xff\xd8"
    assert search["rows"] == report["n_items"]
    assert search["results"][0]["query"] == score["titles"][0]
    for result in search["results"]:
        assert 0 < len(result["hits"]) <= 6
    assert "search.html" in {path.name for path in tmp_path.iterdir()}
    again = xmr("search", score["titles"][0], "--index", search["index"], "-k", 6, "--json").json()
    assert [hit["id"] for hit in again["results"][0]["hits"]] == [
        hit["id"] for hit in search["results"][0]["hits"]
    ]
