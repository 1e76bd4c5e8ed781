"""preprocess, train, eval and score, one after the other, as a user runs them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bagformer_cli.demo import write_demo
from tests.support.small_model import TINY, saved_model, set_options

SETS = set_options(
    *TINY, "training.max_steps=4", "training.batch_size=8", "data.titles_per_image=1"
)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with a small demo dataset."""
    place = tmp_path_factory.mktemp("workplace")
    write_demo(place / "data" / "demo", images=60, workers=1)
    return place


@pytest.fixture
def here(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(workplace)
    return workplace


def test_preprocess_train_eval_score(here: Path, xmr: Callable[..., Any]) -> None:
    shutil.rmtree(here / "runs", ignore_errors=True)
    assert xmr("preprocess").code == 0

    trained = xmr("train", "--interaction", "bagwise", *SETS, "--json")
    assert trained.code == 0, trained.err
    report = trained.json()
    assert report["steps"] == 4
    assert Path(report["checkpoint"]) == Path("runs/demo-bagwise/best")

    evaluated = xmr("eval", "--dataset", "demo", "--submission", "out.jsonl", "--json").json()
    assert set(evaluated) >= {"dataset", "split", "n_queries", "n_items", "stages", "seconds"}
    assert list(evaluated["stages"]) == ["recall", "rerank", "merged"]
    lines = [json.loads(line) for line in (here / "out.jsonl").read_text().splitlines()]
    assert len(lines) == evaluated["n_queries"]
    assert all(len(set(line["item_ids"])) == 10 for line in lines)
    assert set(evaluated["attributes"]) >= {"kind", "colour", "pattern", "binding"}

    picture = next((here / "data/demo").glob("*.tsv"))
    image = here / "image.jpg"
    import base64

    image.write_bytes(base64.b64decode(picture.read_text().splitlines()[0].split("\t")[1]))
    scored = xmr("score", "image.jpg", "红色碎花连衣裙", "蓝色牛仔裤", "--json").json()
    assert set(scored) == {
        "image",
        "titles",
        "text_to_image",
        "image_to_text",
        "text_to_image_mean",
        "image_to_text_mean",
        "probability",
        "pooling",
        "bags",
        "checkpoint",
    }
    assert len(scored["text_to_image"]) == len(scored["image_to_text"]) == 2
    assert "".join(bag["text"] for bag in scored["bags"][0]) == "红色碎花连衣裙"


def test_a_run_can_be_resumed_but_not_overwritten(here: Path, xmr: Callable[..., Any]) -> None:
    shutil.rmtree(here / "runs", ignore_errors=True)
    assert xmr("train", "--interaction", "cls", *SETS).code == 0
    run = xmr("train", "--resume", "--set", "training.max_steps=6", "--json")
    assert run.code == 0, run.err
    assert run.json()["steps"] == 6
    again = xmr("train", "--output-dir", "runs/demo-cls", *SETS)
    assert again.code == 2
    assert "already holds a run" in again.err


def test_eval_without_muge_says_where_to_get_its_files(here: Path, xmr: Callable[..., Any]) -> None:
    run = xmr("eval", "--dataset", "muge")
    assert run.code == 2
    for word in ("107332", "MR_valid_queries.jsonl", "MR_valid_imgs.tsv", "data/muge"):
        assert word in run.err
    assert "Traceback" not in run.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["score", "nowhere.jpg", "标题"], "nowhere.jpg"),
        (["score", "text.jpg", "标题"], "text.jpg"),
        (["score", "image.png", "  "], "empty"),
        (["eval", "--checkpoint", "nofolder"], "nofolder"),
        (["train", "--dataset", "nofolder"], "nofolder"),
        (["train", "--config", "demoo"], "demo"),
        (["train", "--set", "training.epoch=1"], "epochs"),
        (["train", "--checkpoint", "nofolder"], "nofolder"),
        (["train", "--resume", "--output-dir", "nofolder"], "nofolder"),
    ],
)
def test_wrong_input_exits_with_2_and_names_the_input(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    xmr: Callable[..., Any],
    arguments: list[str],
    says: str,
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.jpg").write_text("not an image")
    Image.new("RGB", (20, 20), "red").save(tmp_path / "image.png")
    if "  " in arguments:
        saved_model(tmp_path / "runs/a/best")
    run = xmr(*arguments)
    assert run.code == 2, run.err
    assert says in run.err
    assert "Traceback" not in run.err
    assert run.out == ""
    if "eval" in arguments:
        assert not (tmp_path / "data").exists()  # the demo dataset is not drawn without a model


def test_a_title_of_ten_thousand_characters_is_truncated_with_a_warning(
    here: Path, xmr: Callable[..., Any], tmp_path: Path
) -> None:
    from PIL import Image

    Image.new("RGB", (20, 20), "red").save(tmp_path / "image.png")
    saved_model(tmp_path / "model")
    long = "红色连衣裙" * 2000
    run = xmr("score", tmp_path / "image.png", long, "--checkpoint", tmp_path / "model", "--json")
    assert run.code == 0
    assert "its end is ignored. It has 10000 characters" in run.err
    assert run.json()["titles"] == [long]


@pytest.mark.shared
@pytest.mark.slow
def test_real_muge_files_work_in_all_four_commands(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, xmr: Callable[..., Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data" / "muge"
    data.mkdir(parents=True)
    for file in (shared / "data" / "muge_sample").iterdir():
        for split in ("valid", "train"):
            shutil.copy(file, data / file.name.replace("valid", split))
    assert xmr("preprocess", "--dataset", "muge", "--config", "demo").code == 0
    small = [*SETS, "--set", "training.batch_size=2", "--config", "demo"]
    trained = xmr("train", "--interaction", "bagwise", "--dataset", "muge", *small)
    assert trained.code == 0, trained.err
    report = xmr("eval", "--dataset", "muge", "--json").json()
    assert (report["n_queries"], report["n_items"]) == (2, 8)
    few = xmr("eval", "--dataset", "muge", "--submission", "out.jsonl")
    assert few.code == 2  # the official file needs ten images per query
    assert not (tmp_path / "out.jsonl").exists()
    picture = tmp_path / "image.jpg"
    import base64

    line = (data / "MR_valid_imgs.tsv").read_text().splitlines()[0]
    picture.write_bytes(base64.urlsafe_b64decode(line.split("\t")[1]))
    scored = xmr("score", "image.jpg", "圣诞 抱枕", "--json")
    assert scored.code == 0, scored.err
