"""Evaluation of a model folder on a dataset, and the check of a submission."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bagformer_cli.config import load_config
from bagformer_cli.data.muge import MugeFolder
from bagformer_cli.errors import DataError, InputError, PathError
from bagformer_cli.evaluation import dataset as evaluation
from bagformer_cli.evaluation.compare import compare_folders
from bagformer_cli.evaluation.dataset import check_folder, evaluate_folder
from bagformer_cli.evaluation.request import EvaluationRequest
from bagformer_cli.evaluation.reranking import reranker_key, save_beta
from bagformer_cli.models.checkpoint import save_model
from tests.support.datasets import picture, write_split
from tests.support.ordinary_user import permissions_count
from tests.support.remarks import Remarks
from tests.support.small_model import saved_model, small_model

QUERIES = [(number, title, (100 + number,)) for number, title in enumerate(["裙", "包", "伞"] * 4)]
IMAGES = [(100 + number, picture(number)) for number in range(12)]
REQUEST = EvaluationRequest(rerank=[2], device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> MugeFolder:
    return write_split(tmp_path_factory.mktemp("data"), "valid", QUERIES)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("model"))


def test_the_report_has_the_stages_and_the_model(folder: MugeFolder, model: Path) -> None:
    report = evaluate_folder(folder, model, REQUEST).report
    assert list(report["stages"]) == ["recall", "rerank", "merged"]
    assert (report["n_queries"], report["n_items"]) == (12, 12)
    assert report["checkpoint"] == str(model)
    assert "submission" not in report


@pytest.mark.parametrize("setting", ["tune_beta", "calibrate"])
def test_a_model_folder_that_cannot_be_written_is_named_before_the_work(
    folder: MugeFolder, model: Path, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "Reranking", None)
    model.chmod(0o555)
    with permissions_count(), pytest.raises(PathError, match="cannot be written"):
        evaluate_folder(folder, model, EvaluationRequest(**{setting: True}))
    model.chmod(0o755)


def test_another_model_reranks_with_the_beta_that_was_tuned_for_it(
    folder: MugeFolder, tmp_path: Path
) -> None:
    fast, slow = saved_model(tmp_path / "fast"), saved_model(tmp_path / "slow", seed=1)
    request = replace(REQUEST, reranker=slow)
    tuned = evaluate_folder(folder, fast, replace(request, tune_beta=True)).report
    saved = load_config(fast / "config.yaml").evaluation.slow_betas
    assert saved == {reranker_key(slow): tuned["beta"]}
    again = evaluate_folder(folder, fast, request).report
    assert again["slow"] == str(slow)
    assert again["beta"] == tuned["beta"]
    assert again["stages"] == tuned["stages"]


def test_each_cross_encoder_has_its_own_beta(folder: MugeFolder, tmp_path: Path) -> None:
    fast, *others = (saved_model(tmp_path / f"m{n}", seed=n) for n in range(3))
    for slow, beta in zip((None, *others), (3.0, 5.0, None), strict=True):
        key = None if slow is None else reranker_key(slow)
        if beta is not None:
            save_beta(fast, beta, key)
    remarks = Remarks()
    found = [
        evaluate_folder(folder, fast, replace(REQUEST, reranker=slow), remarks).report["beta"]
        for slow in (None, *others)
    ]
    assert found[:2] == [3.0, 5.0]
    notes = [note for note in remarks.notes if "No beta was chosen" in note]
    assert len(notes) == 1
    assert str(others[1]) in notes[0]
    assert f"{found[2]:g} of the configuration" in notes[0]


def test_beta_cannot_be_tuned_without_candidates(folder: MugeFolder, model: Path) -> None:
    with pytest.raises(InputError, match="reranks nothing"):
        evaluate_folder(folder, model, replace(REQUEST, rerank=[0], tune_beta=True))


@pytest.mark.parametrize(
    "changes",
    [
        {"rerank": [0], "beta": 1.0},
        {"beta": 1.0, "tune_beta": True},
        {"products": Path("p.tsv"), "submission": Path("s.jsonl"), "rerank": None},
        {"items": Path("k.txt"), "submission": Path("s.jsonl")},
        {"products": Path("p.tsv")},
        {"naming": "text"},
    ],
    ids=str,
)
def test_settings_of_which_one_would_be_ignored_are_refused(
    folder: MugeFolder, model: Path, changes: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(InputError):
        evaluate_folder(folder, model, replace(REQUEST, **changes))


def test_a_beta_needs_a_trained_cross_encoder(folder: MugeFolder, tmp_path: Path) -> None:
    other = small_model()
    other.trained = frozenset({"cls", "late"})
    save_model(other, tmp_path)
    with pytest.raises(InputError, match="no trained cross-encoder") as caught:
        evaluate_folder(folder, tmp_path, EvaluationRequest(beta=0.5, device="cpu"))
    assert caught.value.found == "--beta"


def test_queries_without_answers_are_counted_and_named(model: Path, tmp_path: Path) -> None:
    queries = [(n, title, items if n < 9 else ()) for n, title, items in QUERIES]
    some = write_split(tmp_path, "valid", queries, IMAGES)
    remarks = Remarks()
    report = evaluate_folder(some, model, REQUEST, remarks).report
    assert report["n_without_answers"] == 3
    (warning,) = remarks.warnings
    assert "3 of 12" in warning
    assert "9, 10, 11" in warning


def test_beta_is_not_tuned_on_hidden_answers(model: Path, tmp_path: Path) -> None:
    hidden = write_split(tmp_path, "valid", [(n, title, ()) for n, title, _ in QUERIES], IMAGES)
    request = replace(REQUEST, tune_beta=True, submission=tmp_path / "s.jsonl")
    with pytest.raises(InputError, match="hidden"):
        evaluate_folder(hidden, model, request)
    assert not (tmp_path / "s.jsonl").exists()
    with pytest.raises(InputError, match="hidden"):
        compare_folders([model, model], hidden, "valid")


def test_named_subsets_are_averaged(folder: MugeFolder, model: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("100\tone\n101\tone\n102\ttwo\n")
    report = evaluate_folder(folder, model, replace(REQUEST, items=keys)).report
    one, two = (report["subsets"][name]["stages"]["recall"] for name in ("one", "two"))
    mean = report["stages"]["recall"]["text_to_image"]["recall@1"]
    assert two["text_to_image"]["recall@1"] == 100.0  # one image
    assert mean == (one["text_to_image"]["recall@1"] + 100.0) / 2


def test_a_written_submission_passes_the_check_with_the_same_recall(
    folder: MugeFolder, model: Path, tmp_path: Path, xmr: Callable[..., Any]
) -> None:
    file = tmp_path / "out.jsonl"
    # Two candidates are reranked; the other eight images keep their order of the recall stage.
    report = evaluate_folder(folder, model, replace(REQUEST, submission=file)).report
    checked = check_folder(file, folder, "valid")
    assert checked.n_queries == 12
    assert checked.recall is not None
    merged = report["stages"]["merged"]["text_to_image"]
    assert checked.recall.percent()["recall@1"] == merged["recall@1"]
    run = xmr("eval", "--check", file, "--dataset", folder.path, "--json")
    assert run.json() == {
        "dataset": str(folder.path),
        "split": "valid",
        "check": str(file),
        **checked.to_json(),
    }
    shown = xmr("eval", "--check", file, "--dataset", folder.path)
    assert shown.code == 0
    assert "correct submission: 12 queries" in shown.out


def test_a_wrong_submission_is_refused_with_its_line(
    folder: MugeFolder, tmp_path: Path, xmr: Callable[..., Any]
) -> None:
    file = tmp_path / "out.jsonl"
    line = {"query_id": 0, "query_text": "裙", "item_ids": list(range(10))}
    file.write_text(json.dumps(line) + "\n")
    with pytest.raises(DataError, match="not in the pool"):
        check_folder(file, folder, "valid")
    run = xmr("eval", "--check", file, "--dataset", folder.path)
    assert run.code == 2
    assert f"{file}:1" in run.err.replace("\n", "")


def test_without_images_only_the_queries_are_compared(tmp_path: Path) -> None:
    folder = write_split(tmp_path / "data", "test", QUERIES)
    folder.images_path("test").unlink()
    file = tmp_path / "out.jsonl"
    lines = [
        json.dumps({"query_id": number, "query_text": text, "item_ids": list(range(10))})
        for number, text, _ in QUERIES
    ]
    file.write_text("\n".join(lines))
    assert check_folder(file, folder, "test").n_queries == 12
    file.write_text("\n".join(lines[1:]))
    with pytest.raises(DataError, match="1 of 12 missing: 0"):
        check_folder(file, folder, "test")


def test_models_are_compared_with_the_first(folder: MugeFolder, tmp_path: Path) -> None:
    same, other = saved_model(tmp_path / "a"), saved_model(tmp_path / "b", seed=3)
    first, second, third = compare_folders([same, same, other], folder, "valid")
    assert "difference" not in first
    assert second["difference"] == {"mean": 0.0, "lower": 0.0, "upper": 0.0}
    difference = third["text_to_image"]["mean_recall"] - first["text_to_image"]["mean_recall"]
    assert third["difference"]["mean"] == pytest.approx(difference)
