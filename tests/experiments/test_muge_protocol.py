"""MUGE's protocol: published figures, settings, errors before any work, and a dry run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import muge_rows
from bagformer_cli.config import load_config
from bagformer_cli.errors import InputError
from muge_protocol import choose_rows, count_splits, counts_of, main, missing_files
from muge_report import differences, figures_table, hours_text, results_page, rows_list
from muge_rows import CommandFailed, Inputs, RowRunner, as_items, run_xmr
from muge_sample import write_sample
from muge_tables import DICTIONARY, PRETRAINED, ROWS, SPLITS, VOCABULARY, Figures
from tests.support.datasets import write_split

CLIP_ROWS = [name for name in ROWS if not name.startswith("bagformer/")]


# ------------------------------------------------------------------------------------------ tables


def test_every_published_mean_is_the_mean_of_its_recalls() -> None:
    figures = {name: row.published for name, row in ROWS.items() if row.published is not None}
    assert list(figures) == CLIP_ROWS
    for name, one in figures.items():
        assert one.r1 < one.r5 < one.r10, name
        assert one.mean == pytest.approx((one.r1 + one.r5 + one.r10) / 3, abs=0.1), (
            name
        )  # of rounded ones
    for size in ("RN50", "B-16", "L-14", "L-14-336", "H-14"):
        assert figures[f"fine-tuned/{size}"].mean > figures[f"zero-shot/{size}"].mean


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.config])
def test_every_training_is_a_valid_configuration(name: str) -> None:
    row = ROWS[name]
    config = load_config(row.config, list(row.settings))  # type: ignore[arg-type]
    micro = config.training.micro_batch_size or config.training.batch_size
    assert config.training.batch_size % micro == 0
    interaction = name.removeprefix("bagformer/") if row.is_bagformer else "cls"
    assert config.model.interaction == interaction
    pairs = SPLITS["train"].pairs
    assert pairs is not None
    steps = config.training.epochs * (pairs // config.training.batch_size)
    assert steps == (46_932 if row.is_bagformer else 732)


# -------------------------------------------------------------------------------------- arguments


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    return " ".join(capsys.readouterr().err.split())


def test_a_row_that_does_not_exist_is_refused_with_the_names(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shown = refused(capsys, "--weights", tmp_path, "--rows", "zero-shot/B16")
    assert "no such row" in shown
    assert "zero-shot/B-16" in shown


def test_missing_weights_are_named_before_any_work(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / PRETRAINED).touch()
    rows = "zero-shot/B-16,bagformer/cls"
    shown = refused(capsys, "--weights", tmp_path, "--rows", rows, "--out", tmp_path / "out")
    for name in ("clip_cn_vit-b-16.pt", "chinese-clip-vit-base-patch16", VOCABULARY, DICTIONARY):
        assert name in shown
    assert not (tmp_path / "out").exists()
    assert "the weights of no row" in refused(capsys, "--weights", tmp_path)


def test_rows_without_weights_are_left_out_unless_they_are_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "chinese-clip-vit-base-patch16").mkdir()
    (tmp_path / "clip_cn_vit-h-14.pt").touch()  # needs a vocabulary, which a folder has
    assert [row.name for row in choose_rows(None, tmp_path)] == [
        "zero-shot/B-16",
        "fine-tuned/B-16",
    ]
    assert "zero-shot/H-14 is left out: vocab.txt is missing" in capsys.readouterr().err
    assert [row.name for row in choose_rows("*/B-16, zero-shot/*B*", tmp_path)] == [
        "zero-shot/B-16",
        "fine-tuned/B-16",
    ]
    (tmp_path / VOCABULARY).touch()
    assert not missing_files(ROWS["fine-tuned/H-14"], tmp_path)


def test_a_missing_or_cut_dataset_is_an_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "weights/chinese-clip-vit-base-patch16").mkdir(parents=True)
    usual = ("--weights", tmp_path / "weights", "--out", tmp_path / "out", "--data")
    assert "107332" in refused(capsys, *usual, tmp_path / "muge")
    data = write_split(tmp_path / "muge", "valid").path
    shown = refused(capsys, *usual, data, "--rows", "zero-shot/B-16")
    assert "found 2 images, 2 queries, 2 pairs" in shown
    assert "expected 29,806 images, 5,008 queries, 30,588 pairs" in shown
    assert "29,806" in refused(capsys, *usual, data, "--rows", "zero-shot/B-16")  # counted before
    shown = refused(capsys, *usual, data, "--rows", "fine-tuned/B-16", "--other-data")
    assert "MR_train_queries.jsonl" in shown
    other = write_split(tmp_path / "other", "valid").path
    assert "another dataset" in refused(capsys, *usual, other, "--rows", "zero-shot/B-16")
    for content in (b"10\tbm90IGFuIGltYWdl\n11\tbm90IGFuIGltYWdl\n", b""):
        (data / "MR_valid_imgs.tsv").write_bytes(content)
        with pytest.raises(InputError):
            count_splits(data, ["valid"])


def test_a_dataset_that_was_downloaded_again_is_counted_again(tmp_path: Path) -> None:
    data, out = write_split(tmp_path / "muge", "valid").path, tmp_path / "out"
    assert counts_of(data, ["valid"], out)["valid"]["queries"] == 2
    write_split(data, "valid", [(7, "帽", (10,))])
    assert counts_of(data, ["valid"], out)["valid"]["queries"] == 1


def test_a_dry_run_takes_no_weights(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--dry-run", "--weights", str(tmp_path)])
    assert caught.value.code == 2


def test_the_list_fits_a_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--list", "--weights", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1::2]] == list(ROWS)
    assert max(map(len, lines)) <= 80


# ------------------------------------------------------------------------------------------ report


def result(mean: float) -> dict[str, Any]:
    names = ("recall@1", "recall@5", "recall@10", "mean_recall")
    return {"figures": dict(zip(names, (52.0, 77.0, 84.4, mean), strict=True))}


def test_the_table_shows_each_published_figure_with_the_difference() -> None:
    lines = figures_table({"zero-shot/B-16": result(71.13), "bagformer/cls": result(60.0)})
    cells = [line.split() for line in lines[3:9]]
    assert cells[0] == ["zero-shot/B-16", "ours", "52.0", "77.0", "84.4", "71.1"]
    assert cells[1] == ["published", "52.1", "76.7", "84.4", "71.1"]
    assert cells[2] == ["difference", "-0.1", "+0.3", "+0.0", "+0.0"]
    assert cells[4] == ["published", "–", "–", "–", "–"]
    assert max(map(len, lines[:9])) <= 80
    assert "could not be read" in lines[-1]
    table = results_page({"zero-shot/B-16": result(70.0)})
    assert table[2].startswith("| zero-shot/B-16 | 52.0 | 77.0 | 84.4 | 70.0 | 52.1 |")
    assert table[2].endswith("| -1.1 |")
    assert differences(Figures(1, 2, 3, 2), None) == ["–"] * 4


def test_hours_are_those_of_the_estimate_with_its_machine() -> None:
    probe = {"training_seconds": 9000.0, "steps": 20}
    shown = hours_text(ROWS["fine-tuned/B-16"], {"probe": probe, "machine": "H100"})
    assert shown == "fine-tuned/B-16: 2.50 h (xmr estimate, 20 steps on H100)"
    assert rows_list({"bagformer/cls": []})[1].endswith("there")


# ---------------------------------------------------------------------------------- steps of a row


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RowRunner:
    """A runner of commands that do nothing but record themselves in ``tmp_path/calls``."""
    for split in ("train", "valid"):
        write_split(tmp_path / "data", split)
    weights = tmp_path / "weights"
    weights.mkdir()
    for name in ("clip_cn_vit-b-16.pt", VOCABULARY):
        (weights / name).touch()

    def record(arguments: list[object]) -> dict[str, Any]:
        words = [str(argument) for argument in arguments]
        with (tmp_path / "calls").open("a") as stream:
            stream.write(json.dumps(words) + "\n")
        if words[0] == "convert":
            folder = Path(words[3])
            folder.mkdir(parents=True)
            (folder / "config.yaml").write_text("image: {size: 336}\n")
        recall = {"text_to_image": result(1.0)["figures"]}
        return {"n_queries": 2, "n_items": 2, "stages": {"recall": recall}}

    monkeypatch.setattr(muge_rows, "run_xmr", record)
    return RowRunner(Inputs(tmp_path / "data", weights, tmp_path / "out", ("training.epochs=1",)))


def calls(runner: RowRunner) -> list[list[str]]:
    lines = (runner.inputs.out.parent / "calls").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_row_converts_trains_and_measures_once(runner: RowRunner) -> None:
    row = ROWS["fine-tuned/B-16"]
    found = runner.run(row)
    assert runner.run(row) == found == runner.results()[row.name]
    runner.run(ROWS["zero-shot/B-16"])
    made = calls(runner)
    assert [words[0] for words in made] == ["convert", "train", "eval", "eval"]
    sets = {item.partition("=")[0]: item.partition("=")[2]
            for item, before in zip(made[1][1:], made[1], strict=False)
            if before == "--set"}  # fmt: skip
    assert sets["image.size"] == "336"  # of the weights
    assert sets["training.epochs"] == "1"  # the user's, not the row's
    assert sets["training.batch_size"] == "1024"
    assert made[2][made[2].index("--checkpoint") + 1].endswith("fine-tuned-B-16/run/best")
    assert "submission" not in found  # there is no test split


def test_an_interrupted_training_is_resumed(runner: RowRunner) -> None:
    row = ROWS["fine-tuned/B-16"]
    run = runner.folder(row) / "run"
    run.mkdir(parents=True)
    (run / "config.yaml").touch()
    runner.run(row)
    assert ["train", "--resume", "--output-dir", str(run)] in calls(runner)


def test_a_row_is_not_finished_with_other_settings(runner: RowRunner) -> None:
    row = ROWS["fine-tuned/B-16"]
    runner.run(row)
    inputs = runner.inputs
    other = RowRunner(Inputs(inputs.data, inputs.weights, inputs.out, ("training.epochs=2",)))
    with pytest.raises(InputError, match="other settings"):
        other.run(row)


def test_a_failed_command_has_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(CommandFailed) as caught:
        run_xmr(["eval"])
    assert caught.value.code == 1


def test_values_are_written_as_set_items() -> None:
    items = as_items({"image.options": {"depth": 2}, "model.projection_bias": False})
    assert items == ['image.options={"depth": 2}', "model.projection_bias=false"]


# --------------------------------------------------------------------------------------- a dry run


def test_the_sample_has_real_images_first_and_drawn_ones_after_them(tmp_path: Path) -> None:
    real = write_split(tmp_path / "real", "valid").path
    data = write_sample(real, tmp_path / "out")
    assert write_sample(real, tmp_path / "out") == data  # kept
    counts = count_splits(data, ["train", "valid", "test"])
    assert counts["test"]["images"] >= 10  # a submission names ten images
    assert counts["test"]["pairs"] == 0  # as MUGE's: its answers are hidden
    first = (data / "MR_valid_queries.jsonl").read_text().splitlines()[0]
    assert json.loads(first) == {"query_id": 1, "query_text": "红色连衣裙", "item_ids": [10]}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_dry_run_goes_from_raw_files_to_the_table(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    real = write_split(tmp_path / "real", "valid").path
    rows = "zero-shot/RN50,fine-tuned/L-14-336,bagformer/bagwise"
    usual = ["--dry-run", "--data", str(real), "--out", str(tmp_path / "out"), "--rows", rows]
    assert main(usual) == 0
    shown = capfd.readouterr().out
    table = shown[shown.index("Text to image") :].splitlines()
    assert [line.split()[0] for line in table if " ours " in line] == rows.split(",")
    results = RowRunner(Inputs(tmp_path, tmp_path, tmp_path / "out")).results()
    assert list(results) == rows.split(",")
    for found in results.values():
        assert 0 <= found["figures"]["mean_recall"] <= 100
        assert len(Path(found["submission"]).read_text().splitlines()) >= 10
    assert main(usual) == 0  # nothing is run again
    assert "$ xmr" not in capfd.readouterr().out
    some = [*usual[:-1], "zero-shot/RN50,fine-tuned/L-14-336", "--estimate"]
    assert main(some) == 0
    shown = capfd.readouterr().out
    assert "zero-shot/RN50: no training" in shown
    assert "fine-tuned/L-14-336: 0.0" in shown  # hours
