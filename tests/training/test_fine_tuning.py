"""Fine-tuning keeps what it starts from: rates of layers, average of weights, early stopping."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bagformer_cli.config import load_config
from bagformer_cli.data.store.store import Store
from bagformer_cli.encoders.weight_files import load_tensors
from bagformer_cli.errors import ConfigError
from bagformer_cli.evaluation.evaluate import evaluate
from bagformer_cli.evaluation.metrics import Recall
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.checkpoint import load_model, save_model
from bagformer_cli.progress import SILENT
from bagformer_cli.training import validation
from bagformer_cli.training.distributed import SINGLE_PROCESS
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.metrics_log import board_scalars, read_metrics
from bagformer_cli.training.optimizer import build_optimizer, set_learning_rate
from bagformer_cli.training.run import make_trainer, resume_config, resume_run, start_run
from bagformer_cli.training.train_result import TrainResult
from bagformer_cli.training.weight_average import WeightAverage
from tests.support.remarks import Remarks
from tests.support.small_architectures import small_config
from tests.training.test_resume import assert_resume_is_exact

VIT = "image={backbone: vit_base_patch16_224, options: {patch_size: 8, embed_dim: 24, depth: 3, num_heads: 2, reg_tokens: 2}}"  # noqa: E501


def rates(name: str, *overrides: str) -> dict[str, float]:
    """Learning rate of every parameter, at a base rate of 1."""
    config = small_config(name, None, Path(), *overrides)
    model = new_model(config)
    optimizer = build_optimizer(model, config.training)
    set_learning_rate(optimizer, 1.0)
    names = {p: name for name, p in model.named_parameters()}
    found = {names[p]: g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert found.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    return found


def test_a_layer_learns_at_the_rate_of_the_layer_above_times_the_decay() -> None:
    """Two layers of BERT, three blocks of a vision transformer: decay ** depth from the top."""
    found = rates("demo", "training.layer_decay=0.5", "text.layers=2", VIT)
    bert, backbone = "dual.text_encoder.bert.", "dual.vision_encoder.backbone."
    depths = {
        f"{bert}embeddings.": 3, f"{bert}encoder.layer.0.": 2, f"{bert}encoder.layer.1.": 1,
        f"{backbone}patch_embed.": 4, f"{backbone}cls_token": 4, f"{backbone}pos_embed": 4,
        f"{backbone}reg_token": 4, f"{backbone}blocks.0.": 3, f"{backbone}blocks.1.": 2,
        f"{backbone}blocks.2.": 1, f"{backbone}norm.": 1,
        "dual.text_proj.": 0, "dual.vision_proj.": 0, "cross.": 0, "temperature": 0,
    }  # fmt: skip
    for name, rate in found.items():
        (depth,) = [depth for start, depth in depths.items() if name.startswith(start)]
        assert rate == 0.5**depth, name
    assert all(any(name.startswith(start) for name in found) for start in depths)


@pytest.mark.parametrize(
    ("backbone", "options", "top", "stem"),
    [
        ("resnet10t", "{channels: [8, 12, 16, 24], stem_width: 8}", "layer4.0.conv1.weight",
         "conv1.0.weight"),
        ("convnext_atto", "{depths: [1, 1, 1, 1], dims: [8, 12, 16, 24]}", "head.norm.weight",
         "stem.0.weight"),
        ("swin_tiny_patch4_window7_224",
         "{depths: [1, 1, 1, 1], embed_dim: 12, num_heads: [1, 1, 2, 2], window_size: 1}",
         "layers.3.blocks.0.attn.qkv.weight", "patch_embed.proj.weight"),
    ],
)  # fmt: skip
def test_layers_of_other_backbones_are_found(
    backbone: str, options: str, top: str, stem: str
) -> None:
    found = rates(
        "demo", "training.layer_decay=0.5", f"image={{backbone: {backbone}, options: {options}}}"
    )
    start = "dual.vision_encoder.backbone."
    own = {name: rate for name, rate in found.items() if name.startswith(start)}
    assert own[start + top] == max(own.values()) == 0.5
    assert own[start + stem] == min(own.values()) == 0.5**5


def test_without_layer_decay_all_share_one_rate() -> None:
    assert set(rates("demo").values()) == {1.0}


def test_the_average_of_the_weights_is_its_recursion(store: Store, tmp_path: Path) -> None:
    """average_t = 0.7 average_(t-1) + 0.3 w_t, for weights and running statistics alike."""
    config = small_config("demo", None, tmp_path, "training.ema=0.7", "training.max_steps=4")
    trainer = make_trainer(
        new_model(config), config, store, tmp_path / "run", False, SINGLE_PROCESS, SILENT
    )
    (tmp_path / "run").mkdir()
    model, average = trainer.model, trainer.average
    assert average is not None
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    counted = [name for name, value in expected.items() if value.is_floating_point()]
    update = average.update

    def both() -> None:
        for name, value in model.state_dict().items():
            if name in counted:
                expected[name] = 0.7 * expected[name] + 0.3 * value
        update()

    average.update = both  # type: ignore[method-assign]
    trainer.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    moved = 0
    with average.applied():
        for name, value in model.state_dict().items():
            torch.testing.assert_close(value, expected[name] if name in counted else value)
            moved += not torch.equal(value, before[name])
    assert moved > 50
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_average_is_evaluated_and_saved_as_the_best_model(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config("demo", None, tmp_path, "training.ema=0.5", "training.max_steps=3")
    script(monkeypatch, [0.1, 0.2])
    start_run(config, store, tmp_path / "run", new_model(config))
    best, last = (load_model(tmp_path / "run" / name).state_dict() for name in ("best", "last"))
    state = load_tensors(tmp_path / "run/last/state.safetensors")
    average = {k.removeprefix("ema."): v for k, v in state.items() if k.startswith("ema.")}
    assert len(average) > 50
    for name, value in average.items():
        assert torch.equal(best[name], value), name
    assert any(not torch.equal(best[name], last[name]) for name in average)


@pytest.mark.parametrize("name", ["demo", "pretrain_albef"])
def test_a_run_with_average_and_layer_decay_resumes_to_the_bit(
    store: Store, tmp_path: Path, name: str
) -> None:
    """A convolutional network; a vision transformer with momentum encoder and queues."""
    items = ["training.ema=0.9", "training.layer_decay=0.7", "training.early_stopping={}"]
    assert_resume_is_exact(store, tmp_path, name, None, *items)


def test_an_average_is_begun_when_a_resume_asks_for_one(store: Store, tmp_path: Path) -> None:
    config = small_config("demo", None, tmp_path, "training.max_steps=2")
    start_run(config, store, tmp_path / "run", new_model(config))
    items = ["training.max_steps=3", "training.ema=0.5"]
    resume_run(resume_config(tmp_path / "run", items), store, tmp_path / "run")
    assert load_model(tmp_path / "run/last").config.training.ema == 0.5


# Early stopping and the recall before training.


def script(monkeypatch: pytest.MonkeyPatch, recalls: list[float]) -> None:
    """Let evaluations measure these recalls, in [0, 1], one after the other."""
    rest = iter(recalls)

    def measured(model: RetrievalModel, *rest_of_call: Any) -> Any:
        found = evaluate(model, *rest_of_call)
        hits = round(100 * next(rest))
        found.stages["recall"]["text_to_image"] = Recall(dict.fromkeys((1, 5, 10), hits), 100)
        return found

    monkeypatch.setattr(validation, "evaluate", measured)


def stopped(
    store: Store, run: Path, monkeypatch: pytest.MonkeyPatch, recalls: list[float], early: str
) -> TrainResult:
    script(monkeypatch, recalls)
    items = [f"training.early_stopping={early}", "training.evaluate_every=2",
             f"training.max_steps={2 * len(recalls) - 2}"]  # fmt: skip
    config = small_config("demo", None, run.parent, *items)
    return start_run(config, store, run, new_model(config))


@pytest.mark.parametrize(
    ("early", "recalls", "steps"),
    [
        ("{patience: 2}", [0.5, 0.6, 0.6, 0.55, 0.9], 6),  # equal is no gain
        ("{patience: 2}", [0.5, 0.4, 0.6, 0.5, 0.7], 8),  # a gain begins the count again
        ("{patience: 1}", [0.5, 0.5, 0.9], 2),  # the start counts
        ("{patience: 1, min_delta: 5}", [0.5, 0.56, 0.60, 0.9], 4),  # 4 points are too few
        ("{patience: 2, min_delta: 5}", [0.5, 0.53, 0.56, 0.58, 0.60, 0.9], 8),  # slow rises add up
    ],
)  # fmt: skip
def test_training_stops_at_the_evaluation_that_exhausts_the_patience(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, early: str, recalls: list[float],
    steps: int,
) -> None:  # fmt: skip
    result = stopped(store, tmp_path / "run", monkeypatch, recalls, early)
    assert result.steps == steps
    assert result.stopped_early == (steps < 2 * len(recalls) - 2)
    assert not result.interrupted
    assert result.best == pytest.approx(max(recalls[: steps // 2 + 1]))


def test_a_resume_counts_the_evaluations_before_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped once, the run stays stopped; with more patience it goes on where it was."""
    run = tmp_path / "run"
    assert stopped(store, run, monkeypatch, [0.5, 0.4, 0.3, 0.2], "{patience: 2}").steps == 4
    script(monkeypatch, [])
    assert resume_run(resume_config(run), store, run).steps == 4
    script(monkeypatch, [0.1, 0.9])
    more = resume_config(run, ["training.early_stopping.patience=3", "training.max_steps=20"])
    assert resume_run(more, store, run).steps == 6


def test_early_stopping_needs_a_recall_to_compare(store: Store, tmp_path: Path) -> None:
    config = small_config(
        "demo",
        None,
        tmp_path,
        "training.early_stopping={}",
        "model.freeze_towers=true",
        "objectives={itc: 0, late_interaction: 0}",
    )
    with pytest.raises(ConfigError, match="this run has none to compare"):
        start_run(config, store, tmp_path / "run", new_model(config))


@pytest.fixture
def checkpoint(store: Store, tmp_path: Path) -> Path:
    save_model(new_model(small_config("demo", None, tmp_path)), tmp_path / "start")
    return tmp_path / "start"


@pytest.mark.parametrize(
    ("recalls", "warned"), [([0.5, 0.4, 0.45], True), ([0.5, 0.4, 0.6], False)]
)
def test_a_training_that_stays_below_its_start_says_so(
    store: Store, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch,
    recalls: list[float], warned: bool,
) -> None:  # fmt: skip
    script(monkeypatch, recalls)
    config = small_config(
        "demo", None, tmp_path, f"training.checkpoint={checkpoint}", "training.evaluate_every=2",
        "training.max_steps=4",
    )  # fmt: skip
    notes = Remarks()
    run = tmp_path / "run"
    result = start_run(config, store, run, new_model(config), progress=notes)
    assert result.best_step == (0 if warned else 4)
    assert (result.start, result.best) == pytest.approx((0.5, max(recalls)))
    said = [line for line in notes.warnings if "did not raise validation recall" in line]
    assert len(said) == warned
    if warned:
        assert "(50.00 %)" in said[0]
        assert "training.learning_rate" in said[0]
    assert any("40.00 text to image (start 50.00)" in line for line in notes.notes)
    valid = read_metrics(run, "valid")
    assert ["above_start" in line for line in valid] == [False, True, True]
    assert [line["above_start"] for line in valid[1:]] == pytest.approx(
        [100 * (recall - 0.5) for recall in recalls[1:]]
    )
    assert ("1_recall/above_start", pytest.approx(-10.0)) in board_scalars("valid", valid[1])


def test_a_training_from_random_weights_is_not_warned(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, [0.5, 0.4])
    config = small_config("demo", None, tmp_path, "training.max_steps=2")
    notes = Remarks()
    start_run(config, store, tmp_path / "run", new_model(config), progress=notes)
    assert notes.warnings == []


def test_eval_and_compare_show_the_recall_before_training(
    store: Store, tmp_path: Path, xmr: Callable[..., Any]
) -> None:
    config = small_config(
        "demo", None, tmp_path, f"data.dataset={store.path.parent}", "training.max_steps=2"
    )
    start_run(config, store, tmp_path / "run", new_model(config))
    start = read_metrics(tmp_path / "run", "valid")[0]["stages"]["recall"]
    found = xmr("eval", "--checkpoint", tmp_path / "run", "--json").json()
    assert found["before_training"] == start
    shown = xmr("eval", "--checkpoint", tmp_path / "run").out
    assert "before training" in shown
    found = xmr("compare", tmp_path / "run", "--json").json()
    assert found["runs"][0]["before_training"] == start
    found = xmr("eval", "--checkpoint", tmp_path / "run", "--split", "train", "--json").json()
    assert "before_training" not in found


def test_settings_of_fine_tuning_have_ranges() -> None:
    for item in ("training.layer_decay=0", "training.layer_decay=1.1", "training.ema=1",
                 "training.early_stopping={patience: 0}"):  # fmt: skip
        with pytest.raises(ConfigError):
            load_config("demo", [item])


def test_an_average_covers_frozen_models_too() -> None:
    model = torch.nn.Linear(2, 2).requires_grad_(False)
    average = WeightAverage(model, 0.9)
    assert average.state_dict() == {}
