"""The training loop: it learns, logs, saves, stops and is resumed."""

from __future__ import annotations

import errno
import io
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from bagformer_cli.config import RunConfig, TrainingConfig, load_config
from bagformer_cli.data.muge import MugeImageWriter, Query, write_queries
from bagformer_cli.data.store.store import Store
from bagformer_cli.datasets import ensure_store
from bagformer_cli.errors import DiskFullError, InputError, TrainingError
from bagformer_cli.files import recover_folder
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.checkpoint import load_model
from bagformer_cli.progress import Task
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.metrics_log import MetricsLog, read_metrics
from bagformer_cli.training.optimizer import build_optimizer, learning_rate
from bagformer_cli.training.run import resume_config, resume_run, start_run
from bagformer_cli.training.run_folder import unused_run_folder
from bagformer_cli.training.train_result import TrainResult
from tests.support.killing import killed_often
from tests.support.small_model import set_options
from tests.support.small_run import TINY, losses, weights

COLOURS = {
    "红色": "red",
    "绿色": "lime",
    "蓝色": "blue",
    "黄色": "yellow",
    "黑色": "black",
    "白色": "white",
    "紫色": "magenta",
    "青色": "cyan",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images of one colour each, and their names."""
    path = tmp_path_factory.mktemp("colours")
    for split in ("train", "valid"):
        with MugeImageWriter(path / f"MR_{split}_imgs.tsv") as images:
            for number, colour in enumerate(COLOURS.values()):
                buffer = io.BytesIO()
                Image.new("RGB", (16, 16), colour).save(buffer, "PNG")
                images.write(number, buffer.getvalue())
        queries = [Query(n, f"{name}连衣裙", (n,)) for n, name in enumerate(COLOURS)]
        write_queries(path / f"MR_{split}_queries.jsonl", queries)
    return path


def settings(*overrides: str) -> RunConfig:
    return load_config("demo", [*TINY, *overrides])


def prepared(folder: Path, config: RunConfig) -> tuple[RetrievalModel, Store]:
    model = new_model(config)
    return model, ensure_store(folder, model.titles, workers=1)


def run(folder: Path, out: Path, *overrides: str, **options: Any) -> TrainResult:
    config = settings(*overrides)
    model, store = prepared(folder, config)
    return start_run(config, store, out, model, **options)


@pytest.mark.parametrize("interaction", ["cls", "tokenwise", "bagwise"])
def test_a_model_overfits_eight_pairs(folder: Path, tmp_path: Path, interaction: str) -> None:
    result = run(
        folder,
        tmp_path / "run",
        f"model.interaction={interaction}",
        "training.max_steps=300",
        "training.schedule_steps=300",
        "objectives.temperature.minimum=0.01",
    )
    first, *_, last = losses(tmp_path / "run")
    assert result.best == 1.0
    for name in (name for name in last if name.endswith("_loss")):
        assert last[name] < first["chance"][name] / 10, name


def test_early_fusion_overfits_eight_pairs(folder: Path, tmp_path: Path) -> None:
    result = run(folder, tmp_path / "run", "model.bag_fusion=early", "training.max_steps=120")
    assert result.best == 1.0


def test_a_run_folder_holds_what_the_design_says(folder: Path, tmp_path: Path) -> None:
    result = run(folder, tmp_path / "run", "training.max_steps=3")
    assert result.steps == result.total_steps == 3
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "best",
        "last",
        "metrics.jsonl",
        "tensorboard",
        "config.yaml",
        ".lock",
        "run.json",
    }
    model = {"config.yaml", "model.safetensors", "vocab.txt", "lexicon.txt", "README.md"}
    assert {path.name for path in (tmp_path / "run/best").iterdir()} == model
    assert {path.name for path in (tmp_path / "run/last").iterdir()} == {
        *model,
        "state.safetensors",
        "state.json",
    }
    valid = read_metrics(tmp_path / "run", "valid")
    assert [line["step"] for line in valid] == [0, 3]
    assert set(valid[0]["stages"]["recall"]) == {"text_to_image", "image_to_text"}


def test_a_resumed_run_is_the_unbroken_run_to_the_bit(folder: Path, tmp_path: Path) -> None:
    common = ["training.schedule_steps=12", "training.accumulate=2", "text.dropout=0.1"]
    run(folder, tmp_path / "whole", *common, "training.max_steps=12")
    broken = tmp_path / "broken"
    run(folder, broken, *common, "training.max_steps=5")
    config = resume_config(broken, ["training.max_steps=12"])
    _, store = prepared(folder, config)
    torch.manual_seed(999)  # whatever the new process did before must not matter
    resume_run(config, store, broken)
    ours, theirs = weights(broken / "last"), weights(tmp_path / "whole/last")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert losses(broken) == losses(tmp_path / "whole")


def test_a_resumed_convolutional_model_is_the_unbroken_one_to_the_bit(
    folder: Path, tmp_path: Path
) -> None:
    """Its weights are channels-last in memory, and so must AdamW's restored moments be."""
    demo = [item for item in TINY if not item.startswith("image.")]
    options = "image.options={channels: [8, 8, 8, 8], output_stride: 8, stem_width: 8}"
    demo += ["image.backbone=resnet10t", options, "image.size=16", "training.schedule_steps=6"]
    for name, steps in (("whole", 6), ("broken", 3)):
        config = load_config("demo", [*demo, f"training.max_steps={steps}"])
        model, store = prepared(folder, config)
        start_run(config, store, tmp_path / name, model)
    assert any(p.ndim == 4 and p.shape[1] > 1 and not p.is_contiguous() for p in model.parameters())
    config = resume_config(tmp_path / "broken", ["training.max_steps=6"])
    resume_run(config, store, tmp_path / "broken")
    ours, theirs = weights(tmp_path / "broken/last"), weights(tmp_path / "whole/last")
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


def test_lines_that_a_killed_run_wrote_after_its_last_save_are_written_again(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    run(folder, out, "training.max_steps=4")
    with (out / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 5, "kind": "train", "loss": 99.0}\n{"step": 6, "ki')
    with MetricsLog(out, step=4):
        pass
    assert [line["step"] for line in read_metrics(out, "train")] == [1, 2, 3, 4]


def test_a_folder_whose_replacement_was_interrupted_is_restored(tmp_path: Path) -> None:
    (tmp_path / ".last.old").mkdir()
    (tmp_path / ".last.old" / "x").write_text("kept")
    recover_folder(tmp_path / "last")
    assert (tmp_path / "last" / "x").read_text() == "kept"


def test_weights_that_are_not_finite_stop_the_first_evaluation(
    folder: Path, tmp_path: Path
) -> None:
    config = settings("training.max_steps=5")
    model, store = prepared(folder, config)
    with torch.no_grad():
        model.dual.text_proj.weight.fill_(torch.nan)
    with pytest.raises(TrainingError, match="diverged"):
        start_run(config, store, tmp_path / "run", model)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_names_its_step(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bagformer_cli.training.objectives import contrastive

    calls = iter(range(100))
    plain = contrastive.contrastive_loss

    def broken(*arguments: Any) -> torch.Tensor:
        return plain(*arguments) * (torch.nan if next(calls) >= 6 else 1.0)

    monkeypatch.setattr(contrastive, "contrastive_loss", broken)
    with pytest.raises(TrainingError) as caught:  # two contrastive losses a step
        run(folder, tmp_path / "run", "training.max_steps=9", "training.save_every=1")
    assert caught.value.where == "step 4"
    assert "learning_rate" in str(caught.value.hint)
    assert load_model(tmp_path / "run/last") is not None  # the last good state is there


class _Interrupting:
    """A progress bar that presses Ctrl-C during the third training step."""

    def __init__(self) -> None:
        self.steps = 0

    @contextmanager
    def task(
        self, description: str, total: int | None = None, amount: str = "{n}"
    ) -> Iterator[Task]:
        outer = self

        class _Task:
            def advance(self, n: int = 1, **status: object) -> None:
                if description == "Training" and n:
                    outer.steps += 1
                    if outer.steps == 3:
                        signal.raise_signal(signal.SIGINT)

        yield _Task()

    def info(self, message: str) -> None:
        pass

    def warn(self, message: str) -> None:
        pass


def test_ctrl_c_saves_after_the_current_step(folder: Path, tmp_path: Path) -> None:
    result = run(folder, tmp_path / "run", "training.max_steps=9", progress=_Interrupting())
    assert result.interrupted
    assert result.steps == 3
    config = resume_config(tmp_path / "run")
    _, store = prepared(folder, config)
    assert resume_run(config, store, tmp_path / "run").steps == 9


def test_a_folder_that_holds_a_run_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "run", "training.max_steps=1")
    before = weights(tmp_path / "run/last")
    with pytest.raises(InputError, match="already holds a run") as caught:
        run(folder, tmp_path / "run", "training.max_steps=1", "seed=5")
    assert "--resume" in str(caught.value.hint)
    after = weights(tmp_path / "run/last")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_full_disk_loses_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bagformer_cli.encoders import weight_files

    out = tmp_path / "run"
    run(folder, out, "training.max_steps=2", "training.schedule_steps=8")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    config = resume_config(out, ["training.max_steps=8", "training.save_every=1"])
    _, store = prepared(folder, config)
    with monkeypatch.context() as patch:
        patch.setattr(weight_files, "save_file", full)
        with pytest.raises(DiskFullError):
            resume_run(config, store, out)
    assert not list(out.glob(".*.part"))
    assert resume_run(config, store, out).steps == 8


def test_a_run_starts_from_the_weights_of_another(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "a", "training.max_steps=3", "model.interaction=cls")
    config = settings("model.interaction=bagwise", "model.embed_dim=16")
    model = new_model(config, tmp_path / "a")
    own, theirs = model.state_dict(), weights(tmp_path / "a/best")
    assert all(torch.equal(own[name], theirs[name]) for name in theirs)


def test_names_of_new_runs_do_not_collide(tmp_path: Path) -> None:
    assert unused_run_folder(tmp_path, "demo") == tmp_path / "demo"
    (tmp_path / "demo").mkdir()
    assert unused_run_folder(tmp_path, "demo") == tmp_path / "demo-2"


def test_the_learning_rate_rises_then_falls_along_half_a_cosine() -> None:
    config = TrainingConfig(learning_rate=1.0, min_learning_rate=0.1, warmup_steps=4)
    rates = [learning_rate(step, 12, config) for step in range(14)]
    assert rates[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert rates[8] == pytest.approx(0.55)
    assert rates[12:] == pytest.approx([0.1, 0.1])


def test_biases_and_norms_are_not_decayed(folder: Path) -> None:
    model = new_model(settings())
    optimizer = build_optimizer(model, TrainingConfig(weight_decay=0.3))
    decayed, others = optimizer.param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.3, 0.0)
    assert all(p.ndim > 1 for p in decayed["params"])
    assert any(p is model.temperature for p in others["params"])


@pytest.mark.slow
def test_a_run_killed_twenty_times_equals_the_unbroken_run(folder: Path, tmp_path: Path) -> None:
    """SIGKILL at random moments: at the start, between steps, while ``last/`` is written."""
    ensure_store(folder, new_model(settings()).titles, workers=1)
    (tmp_path / "config.yaml").write_text("extends: demo\n")
    extra = [
        "training.save_every=2",
        "training.max_steps=120",
        "training.schedule_steps=120",
        "text.dropout=0.1",
        "objectives={itm: 0.5, mlm: 0.1, momentum: {queue: 21}}",
    ]

    def command(out: Path, *more: str) -> list[str]:
        sets = set_options(*TINY, *extra)
        start = ["--config", str(tmp_path / "config.yaml"), "--dataset", str(folder), *sets]
        program = [sys.executable, "-m", "bagformer_cli.cli.main", "train"]
        return [*program, "--output-dir", str(out), *(more or start)]

    subprocess.run(command(tmp_path / "whole"), check=True, capture_output=True)
    killed = tmp_path / "killed"
    log = killed / "metrics.jsonl"

    def next_command() -> list[str]:
        begun = (killed / "config.yaml").exists()
        return command(killed, *(["--resume"] if begun else []))

    def lines() -> int:
        return log.read_text().count("\n") if log.exists() else 0

    kills = killed_often(next_command, lines, 20)
    assert kills >= 15  # the run is long enough for nearly all of them
    subprocess.run(command(killed, "--resume"), check=True, capture_output=True)
    ours, theirs = weights(killed / "last"), weights(tmp_path / "whole/last")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert losses(killed) == losses(tmp_path / "whole")
