"""``calibration.json``: read, used, refused; ``xmr eval --calibrate``, ``score`` and ``search``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bagformer_cli.api import load
from bagformer_cli.calibration import CALIBRATION, Calibration, Curve, read_calibration
from bagformer_cli.errors import CheckpointError, InputError
from bagformer_cli.models.fingerprint import fingerprint
from bagformer_cli.runtime.folder import Manifest
from tests.support.datasets import picture, write_split
from tests.support.small_model import saved_model, small_model, write_table

Xmr = Callable[..., Any]
PLATT = Curve("platt", 8.0, -4.0)
STEPS = Curve("isotonic", scores=(0.0, 0.5, 0.6), probabilities=(0.1, 0.1, 0.9))
COLOURS = ["红色", "蓝色", "黑色", "白色"]


def calibrated(folder: Path, curve: Curve = PLATT, **changes: Any) -> Path:
    """A model folder with a calibration that fits it, or differs by ``changes``."""
    saved_model(folder)
    curves = {"text_to_image": curve, "image_to_text": STEPS}
    Calibration(**{"model": fingerprint(small_model()), "curves": curves, **changes}).save(folder)
    return folder


def write_data(folder: Path, images_per_query: int = 1, hidden: bool = False) -> Path:
    """A validation split: forty images, a query for each; hidden: without answers."""
    queries = [
        (n, f"{COLOURS[n % 4]}第{n}款", () if hidden else tuple(range(n, n + images_per_query)))
        for n in range(40)
    ]
    pictures = [(n, picture(n)) for n in range(40 + images_per_query)]
    write_split(folder, "valid", queries, pictures)
    return folder


def test_curves_by_hand() -> None:
    assert PLATT.probability(0.5) == pytest.approx(0.5)
    assert PLATT.probability([-1e6, 1e6]).tolist() == [0, 1]
    assert STEPS.probability([-1, 0.5, 0.55, 2]).tolist() == pytest.approx([0.1, 0.1, 0.5, 0.9])


@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=9, unique=True),
    st.lists(st.floats(0, 1), min_size=9, max_size=9),
    st.lists(st.floats(-2, 2), min_size=2, max_size=9),
)
def test_a_curve_rises_between_0_and_1(
    knots: list[float], levels: list[float], scores: list[float]
) -> None:
    knots = sorted(knots)
    curve = Curve(
        "isotonic", scores=tuple(knots), probabilities=tuple(sorted(levels)[: len(knots)])
    )
    found = curve.probability(sorted(scores))
    assert (np.diff(found) >= 0).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_a_calibration_is_read_as_it_was_written(tmp_path: Path) -> None:
    known = Calibration(
        "a" * 16, {"text_to_image": PLATT, "image_to_text": STEPS}, "店", "valid", "int8-dynamic"
    )
    known.save(tmp_path)
    assert read_calibration(tmp_path) == known
    assert "slope" in (tmp_path / CALIBRATION).read_text("utf-8")
    assert read_calibration(tmp_path / "nowhere") is None


DAMAGES: list[Callable[[dict[str, Any]], object]] = [
    lambda content: content.update(version=2),
    lambda content: content.update(model=7),
    lambda content: content.pop("model"),
    lambda content: content.update(curves={}),
    lambda content: content.update(curves=[]),
    lambda content: content["curves"].update(title_to_title={"method": "platt"}),
    lambda content: content["curves"].update(text_to_image={"method": "spline"}),
    lambda content: content["curves"]["text_to_image"].update(slope=-1),
    lambda content: content["curves"]["text_to_image"].update(slope="8"),
    lambda content: content["curves"]["text_to_image"].update(intercept=float("nan")),
    lambda content: content["curves"]["text_to_image"].update(colour="red"),
    lambda content: content["curves"]["image_to_text"].update(scores=[0.5, 0.5, 0.6]),
    lambda content: content["curves"]["image_to_text"].update(probabilities=[0.5, 0.4, 0.6]),
    lambda content: content["curves"]["image_to_text"].update(probabilities=[0.5, 0.6, 1.6]),
    lambda content: content["curves"]["image_to_text"].update(probabilities=[0.5]),
    lambda content: content["curves"]["image_to_text"].update(scores=[]),
]


@pytest.mark.parametrize("number", range(len(DAMAGES)))
def test_a_damaged_file_is_one_error(tmp_path: Path, number: int) -> None:
    path = calibrated(tmp_path) / CALIBRATION
    content = json.loads(path.read_text("utf-8"))
    DAMAGES[number](content)
    path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(CheckpointError, match=r"damaged|Another version") as caught:
        read_calibration(tmp_path)
    assert "--calibrate" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"version": 1}', "[" * 100_000])
def test_something_else_is_one_error(tmp_path: Path, text: str) -> None:
    (tmp_path / CALIBRATION).write_text(text, "utf-8")
    with pytest.raises(CheckpointError):
        read_calibration(tmp_path)


def test_eval_fits_and_score_and_search_show_it(
    xmr: Xmr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, data = saved_model(tmp_path / "runs/a/best"), write_data(tmp_path / "data", 3)
    before = xmr("score", data / "nowhere.png", "红色", "--checkpoint", model)
    assert before.code == 2
    shop = write_table(tmp_path / "shop", 12)
    assert xmr("index", "build", shop, "index", "--checkpoint", model).code == 0
    image = tmp_path / "shop/photos/3.png"

    def hits(*more: str) -> list[dict[str, Any]]:
        found = xmr("search", "--index", "index", "--json", *more).json()
        return list(found["results"][0]["hits"])

    assert {hit["probability"] for hit in hits("红色")} == {None}
    run = xmr("eval", "--checkpoint", model, "--dataset", data, "--calibrate", "--json")
    assert run.code == 0, run.err
    report = run.json()["calibration"]
    known = read_calibration(model)
    assert known is not None
    assert report["path"] == str(model / CALIBRATION)
    assert known.model == fingerprint(small_model())
    assert (known.dataset, known.split) == ("data", "valid")
    assert report["text_to_image"]["pairs"] == 400
    assert set(report["text_to_image"]["log_losses"]) == {"platt", "isotonic", "base_rate"}

    curve = known.curves["text_to_image"]
    for hit in hits("红色"):
        assert hit["probability"] == pytest.approx(float(curve.probability(hit["mean"])))
    for hit in hits("--image", str(image), "--of", "titles"):
        expected = float(known.curves["image_to_text"].probability(hit["mean"]))
        assert hit["probability"] == pytest.approx(expected)
    # A curve is about one direction; a rerank has another order.
    assert {hit["probability"] for hit in hits("--image", str(image))} == {None}
    assert {hit["probability"] for hit in hits("红色", "--of", "titles")} == {None}
    assert {hit["probability"] for hit in hits("红色", "--rerank", "3")} == {None}
    assert "probability, %" in xmr("search", "红色", "--index", "index").out

    scored = xmr("score", image, "红色", "--checkpoint", model, "--json").json()
    expected = float(curve.probability(scored["text_to_image_mean"][0]))
    assert scored["probability"] == [pytest.approx(expected)]
    shown = xmr("eval", "--checkpoint", model, "--dataset", data, "--calibrate")
    assert "ECE" in shown.out
    assert "held-out" in shown.out


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--threshold", "0"], 0),
        (["--threshold", "1"], 3),
        (["--threshold-score", "-1"], 0),
        (["--threshold-score", "1"], 3),
    ],
)
def test_the_exit_code_says_whether_all_titles_reach_the_threshold(
    xmr: Xmr, tmp_path: Path, options: list[str], code: int
) -> None:
    model = calibrated(tmp_path / "model")
    (tmp_path / "a.png").write_bytes(picture(1))
    run = xmr(
        "score", tmp_path / "a.png", "红色", "蓝色", "--checkpoint", model, *options, "--json"
    )
    assert run.code == code
    assert run.json()["reached"] == [code == 0] * 2
    shown = xmr("score", tmp_path / "a.png", "红色", "--checkpoint", model, *options)
    assert shown.code == code
    assert "reaches the threshold" in shown.out


def test_one_title_below_is_enough_for_exit_code_3(xmr: Xmr, tmp_path: Path) -> None:
    model = calibrated(tmp_path / "model")
    (tmp_path / "a.png").write_bytes(picture(1))
    ask = ["score", tmp_path / "a.png", "红色", "蓝色包", "--checkpoint", model, "--json"]
    scores = sorted(xmr(*ask).json()["text_to_image_mean"])
    assert scores[0] < scores[1]
    run = xmr(*ask, "--threshold-score", f"{sum(scores) / 2:.6f}")
    assert run.code == 3
    assert sorted(run.json()["reached"]) == [False, True]


def test_a_threshold_without_calibration_is_an_error(xmr: Xmr, tmp_path: Path) -> None:
    model = saved_model(tmp_path / "model")
    (tmp_path / "a.png").write_bytes(picture(1))
    ask = ["score", tmp_path / "a.png", "红色", "--checkpoint", model]
    run = xmr(*ask, "--threshold", "0.5")
    assert run.code == 2
    assert "--calibrate" in run.err
    assert "--threshold-score" in run.err
    assert xmr(*ask, "--threshold", "50").code == 2
    assert xmr(*ask, "--threshold-score", "0.5").code in (0, 3)
    assert xmr(*ask, "--json").json()["probability"] is None


def test_the_calibration_of_other_weights_is_not_used(xmr: Xmr, tmp_path: Path) -> None:
    model = calibrated(tmp_path / "model")
    (tmp_path / "a.png").write_bytes(picture(1))
    saved_model(model, seed=1)  # trained further, in the same folder
    ask = ["score", tmp_path / "a.png", "红色", "--checkpoint", model]
    run = xmr(*ask, "--json")
    assert run.json()["probability"] is None
    assert "other weights" in run.err
    refused = xmr(*ask, "--threshold", "0.5")
    assert refused.code == 2
    write_table(tmp_path, 3)
    build = ["index", "build", tmp_path / "products.csv", tmp_path / "index"]
    assert xmr(*build, "--checkpoint", model).code == 0
    found = xmr("search", "红色", "--index", tmp_path / "index", "--json")
    assert "other weights" in found.err
    assert found.json()["results"][0]["hits"][0]["probability"] is None


def test_scores_of_another_precision_have_no_probability() -> None:
    known = Calibration("a" * 16, {"text_to_image": PLATT})
    assert known.refusal("a" * 16) is None
    assert known.refusal("a" * 16, "fp16") is None
    assert "int8" in str(known.refusal("a" * 16, "int8-dynamic"))
    assert known.refusal("b" * 16) is not None


def test_an_index_with_fewer_vectors_has_no_probabilities(xmr: Xmr, tmp_path: Path) -> None:
    model = calibrated(tmp_path / "model")
    write_table(tmp_path, 4)
    build = ["index", "build", tmp_path / "products.csv", tmp_path / "index", "--pool", "2"]
    run = xmr(*build, "--checkpoint", model)
    assert run.code == 0, run.err
    found = xmr("search", "红色", "--index", tmp_path / "index", "--json")
    assert found.json()["results"][0]["hits"][0]["probability"] is None
    assert "fewer or coarser" in found.err


def test_python_reads_the_calibration_of_a_loaded_model(tmp_path: Path) -> None:
    found = load(calibrated(tmp_path), device="cpu").calibration()
    assert found is not None
    assert found.curves["text_to_image"] == PLATT
    assert load(saved_model(tmp_path / "other"), device="cpu").calibration() is None


@pytest.mark.parametrize("split", ["train", "test"])
def test_only_the_validation_split_is_fitted(xmr: Xmr, tmp_path: Path, split: str) -> None:
    model, data = saved_model(tmp_path / "model"), write_data(tmp_path / "data")
    ask = ["eval", "--checkpoint", model, "--dataset", data, "--calibrate"]
    run = xmr(*ask, "--split", split)
    assert run.code == 2
    assert split in run.err
    assert not (model / CALIBRATION).exists()


def test_a_split_without_answers_is_refused(xmr: Xmr, tmp_path: Path) -> None:
    model = saved_model(tmp_path / "model")
    data = write_data(tmp_path / "data", hidden=True)
    ask = ["eval", "--checkpoint", model, "--dataset", data, "--calibrate"]
    assert xmr(*ask).code == 2
    run = xmr(*ask, "--submission", tmp_path / "out.jsonl")
    assert run.code == 2
    assert "0 matching" in run.err
    assert not (model / CALIBRATION).exists()


def test_a_split_in_which_every_result_matches_is_refused(xmr: Xmr, tmp_path: Path) -> None:
    queries = [(n, COLOURS[n % 4], tuple(range(10))) for n in range(12)]
    write_split(tmp_path / "data", "valid", queries, [(n, picture(n)) for n in range(10)])
    model = saved_model(tmp_path / "model")
    run = xmr("eval", "--checkpoint", model, "--dataset", tmp_path / "data", "--calibrate")
    assert run.code == 2
    assert "120 matching pairs, 0 others" in run.err


def test_a_large_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / CALIBRATION).write_bytes(b" " * (1 << 23))
    with pytest.raises(InputError, match="too large"):
        read_calibration(tmp_path)


def test_exports_carry_the_calibration(xmr: Xmr, tmp_path: Path) -> None:
    model = calibrated(tmp_path / "model")
    assert xmr("export", "sentence-transformers", model, tmp_path / "st").code == 0
    assert read_calibration(tmp_path / "st") == read_calibration(model)


def test_a_later_calibration_reaches_the_export_in_the_model_folder(
    xmr: Xmr, tmp_path: Path
) -> None:
    model, data = saved_model(tmp_path / "model"), write_data(tmp_path / "data", 3)
    for name, key in (("onnx", fingerprint(small_model())), ("other", "0" * 16)):
        folder = model / "onnx" if name == "onnx" else model / "old" / "onnx"
        folder.mkdir(parents=True)
        for file in ("text.onnx", "image.onnx", "config.yaml", "vocab.txt", "lexicon.txt"):
            (folder / file).touch()
        Manifest(key, 16, 16).save(folder)
    assert xmr("eval", "--checkpoint", model, "--dataset", data, "--calibrate").code == 0
    assert read_calibration(model / "onnx") == read_calibration(model) is not None
    Manifest("0" * 16, 16, 16).save(model / "onnx")
    (model / "onnx" / CALIBRATION).unlink()
    assert xmr("eval", "--checkpoint", model, "--dataset", data, "--calibrate").code == 0
    assert read_calibration(model / "onnx") is None
