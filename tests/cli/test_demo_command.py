"""The pipeline of ``xmr demo`` from end to end, with few images and few steps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bagformer_cli.config import RunConfig, load_config, save_config
from bagformer_cli.demo import pipeline, write_demo
from bagformer_cli.progress import SILENT
from bagformer_cli.training.train_result import TrainResult

SHORT = ["training.max_steps=2", "training.schedule_steps=2"]


@pytest.mark.slow
def test_the_pipeline_trains_evaluates_scores_and_searches(
    tmp_path: Path, xmr: Callable[..., Any]
) -> None:
    write_demo(tmp_path / "data" / "demo", images=300, seed=5, workers=1, size=64)
    report = pipeline.run_demo(tmp_path, settings=SHORT)
    assert set(report["stages"]) == {"recall", "rerank", "merged"}
    assert set(report["attributes"]) >= {"kind", "colour", "pattern"}
    run = tmp_path / "runs" / "demo"
    assert Path(report["checkpoint"]) == run / "best"
    towers = tmp_path / "runs" / "demo-towers"
    assert load_config(run / "config.yaml").training.checkpoint == str(towers / "best")
    trained = load_config(towers / "config.yaml")
    assert trained.training.checkpoint == str(tmp_path / "runs" / "demo-pretrained" / "last")
    assert trained.objectives.itc == 0
    assert load_config(run / "best" / "config.yaml").evaluation.beta == report["beta"]
    score, search = report["score"], report["search"]
    assert len(score["titles"]) == len(score["text_to_image_mean"]) == 3
    assert (tmp_path / "image.jpg").read_bytes()[:2] == b"\xff\xd8"
    assert search["rows"] == report["n_items"]
    assert search["results"][0]["query"] == score["titles"][0]
    for result in search["results"]:
        assert 0 < len(result["hits"]) <= 6
    colour = search["results"][0]["hits"][0]["attributes"]["colour"]
    filtered = next(one for one in search["results"] if "--where" in one["query"])
    assert {hit["attributes"]["colour"] for hit in filtered["hits"]} == {colour}
    assert (tmp_path / "search.html").is_file()
    again = xmr("search", score["titles"][0], "--index", search["index"], "-k", 6, "--json").json()
    assert [hit["id"] for hit in again["results"][0]["hits"]] == [
        hit["id"] for hit in search["results"][0]["hits"]
    ]


@pytest.mark.slow
def test_an_interrupted_demo_continues_and_a_finished_one_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    write_demo(tmp_path / "data" / "demo", images=300, seed=5, workers=1, size=64)
    for step in ("start_run", "build_index", "_search"):
        with monkeypatch.context() as patch:
            patch.setattr(pipeline, step, stop)
            with pytest.raises(KeyboardInterrupt):
                pipeline.run_demo(tmp_path, settings=SHORT)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/best")}
    assert {path.parent.name for path in made} == {"demo-pretrained", "demo-towers", "demo"}
    report = pipeline.run_demo(tmp_path, settings=SHORT)
    assert Path(report["checkpoint"]) == tmp_path / "runs/demo-2/best"
    assert all(path.stat().st_mtime_ns == time for path, time in made.items())


def test_the_trainings_of_an_interrupted_demo_are_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    interrupted: set[str] = set()

    def train(kind: str, config: RunConfig, folder: Path) -> TrainResult:
        calls.append(f"{kind} {folder.name}")
        save_config(config, folder / "config.yaml")
        return TrainResult(folder, 1, 1, 0, folder.name in interrupted, None, None, 0.5)

    monkeypatch.setattr(pipeline, "new_model", lambda config: None)
    monkeypatch.setattr(pipeline, "start_run", lambda c, s, run, *_, **__: train("start", c, run))
    monkeypatch.setattr(pipeline, "resume_run", lambda c, s, run, *_: train("resume", c, run))

    def demo(seed: int = 0) -> list[str]:
        calls.clear()
        with suppress(KeyboardInterrupt):
            pipeline._train(Any, tmp_path, [f"seed={seed}"], SILENT)  # type: ignore[arg-type]
        return list(calls)

    interrupted.add("demo-pretrained")
    assert demo() == ["start demo-pretrained"]
    assert demo() == ["resume demo-pretrained"]
    interrupted.clear()
    assert demo() == ["resume demo-pretrained", "start demo-towers", "start demo"]
    another = ["start demo-pretrained-2", "start demo-towers-2", "start demo-2"]
    assert demo(seed=1) == another
    assert demo() == ["resume demo-pretrained", "resume demo-towers", "resume demo"]


@pytest.mark.slow
def test_an_interrupted_training_says_how_to_continue(
    tmp_path: Path, xmr: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(config: Any, store: Any, folder: Path, *_: Any, **__: Any) -> TrainResult:
        return TrainResult(folder, 1, 1, 0, True, None, None, 0.5)

    write_demo(tmp_path / "data" / "demo", images=300, seed=5, workers=1, size=64)
    monkeypatch.setattr(pipeline, "start_run", stop)
    run = xmr("demo", "--output-dir", tmp_path)
    assert (run.code, run.out) == (130, "")
    assert "`xmr demo` continues from here" in run.err


def test_the_report_is_printed_with_commands_to_try_next(
    tmp_path: Path, xmr: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    recall = {"recall@1": 50.0, "recall@5": 75.0, "recall@10": 100.0, "mean_recall": 75.0}
    report = {
        "dataset": "demo", "split": "valid", "n_queries": 2, "n_items": 2, "seconds": {},
        "stages": {"recall": {"text_to_image": recall}}, "checkpoint": "runs/demo/best",
        "example": {"query_id": 1, "rank": 1},
        "score": {"image": "image.jpg", "titles": ["红裙"], "text_to_image": [1.0],
                  "image_to_text": [1.5], "text_to_image_mean": [0.5],
                  "image_to_text_mean": [0.3], "pooling": "each", "bags": [[]],
                  "checkpoint": "runs/demo/best"},
        "search": {"page": "search.html", "results": [{"query": "红裙", "hits": []}]},
        "total_seconds": 12.3,
    }  # fmt: skip
    monkeypatch.setattr(pipeline, "run_demo", lambda *_, **__: report)
    out = xmr("demo", "--output-dir", tmp_path).out
    for text in ("75.00", "0.50", "search.html", "Done in 12 s.", f"cd {tmp_path}", "xmr score"):
        assert text in out
