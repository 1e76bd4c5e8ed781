"""Teachers and students in training: modes, chains, distillation, and unsuitable teachers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bagformer_cli.config import RunConfig, load_config
from bagformer_cli.data.store.store import Store
from bagformer_cli.datasets import ensure_store
from bagformer_cli.errors import CheckpointError, ConfigError
from bagformer_cli.models.build import build_titles
from bagformer_cli.training import chain as chains
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.metrics_log import read_metrics
from bagformer_cli.training.run import start_run
from bagformer_cli.training.task import RetrievalTask
from bagformer_cli.training.teacher import check_teacher
from tests.support import small_run
from tests.support.datasets import write_split
from tests.support.killing import killed_often
from tests.support.small_model import set_options

TINY = [
    *small_run.TINY,
    "model.cross=null",
    "objectives.itm=0",
    "training.batch_size=4",
    "training.warmup_steps=0",
]
SHORT = ["training.max_steps=2", "training.schedule_steps=2"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("set")
    names = ["红色", "绿色", "蓝色", "黄色", "黑色", "白色", "紫色", "青色"]
    queries = [(n, f"{name}连衣裙", (10 + n,)) for n, name in enumerate(names)]
    for split in ("train", "valid"):
        found = write_split(folder, split, queries)
    return ensure_store(found, build_titles(load_config("demo")), workers=1)


def settings(mode: str | None, *overrides: str) -> RunConfig:
    return load_config("demo", [*TINY, *SHORT, *overrides], mode)


def trained(store: Store, out: Path, mode: str, *overrides: str) -> Path:
    config = settings(mode, *overrides)
    start_run(config, store, out, new_model(config))
    return out


@pytest.mark.parametrize(
    ("mode", "losses"),
    [
        ("dualnce", ["itc_loss"]),
        ("slowtofast", ["itc_loss", "distill_loss"]),
        ("captioner", ["caption_loss"]),
    ],
)
def test_a_mode_of_fast_and_slow_trains_no_other_scorer(mode: str, losses: list[str]) -> None:
    """The config ``fast_slow`` trains a captioner; the modes of the fast scorer must not."""
    untrained = ["text.pretrained=null", "text.tokenizer=builtin", "image.pretrained=false"]
    small = ["text.layers=1", "text.width=32", "text.heads=2", "image.backbone=resnet10t"]
    config = load_config("fast_slow", [*untrained, *small], mode)
    model = new_model(config)
    assert [objective.name for objective in RetrievalTask(model, config).objectives] == losses
    assert (model.cross is not None) == (mode == "captioner")


def test_an_unknown_mode_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="inflate"):
        load_config("demo", [], "inflat")


def test_a_chain_killed_in_any_stage_is_resumed_to_the_bit(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = [*TINY, *SHORT, "model.codes=2", "training.save_every=1"]
    chain = load_config("demo", more, "chain")

    def configs(run: Path) -> dict[str, RunConfig]:
        return chains.stage_configs(chain, run, "demo", more)

    whole = tmp_path / "whole"
    chains.start_chain(chain, configs(whole), store, whole)
    summary = json.loads((whole / chains.SUMMARY).read_text(encoding="utf-8"))
    assert [stage["name"] for stage in summary] == ["inflate", "shrinktobase", "shrinktofast"]

    class Killed(BaseException):
        pass

    from bagformer_cli.training.loop import Trainer

    plain = Trainer._save_last
    for at in (2, 4, 8):  # in the first stage, at the start of the second, in the third
        broken = tmp_path / f"broken{at}"
        saves = iter(range(1, 100))

        def dying(self: Trainer, at: int = at, saves: object = saves) -> None:
            plain(self)
            if next(saves) == at:  # type: ignore[call-overload]
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_save_last", dying)
            with pytest.raises(Killed):
                chains.start_chain(chain, configs(broken), store, broken)
        assert not (broken / chains.SUMMARY).exists()
        chains.resume_chain(store, broken)
        for stage in ("1-inflate", "2-shrinktobase", "3-shrinktofast"):
            ours = load_file(broken / stage / "last/model.safetensors")
            theirs = load_file(whole / stage / "last/model.safetensors")
            assert all(torch.equal(ours[name], theirs[name]) for name in theirs), (at, stage)


@pytest.mark.slow
def test_a_chain_killed_at_random_equals_the_unbroken_chain(store: Store, tmp_path: Path) -> None:
    """SIGKILL at random moments, also between stages, of `xmr train`."""
    (tmp_path / "config.yaml").write_text("extends: demo\n")
    extra = ["training.max_steps=40", "training.schedule_steps=40", "training.save_every=2"]
    sets = set_options(*TINY, *extra, "model.codes=2")
    dataset = str(store.path.parent)

    def command(out: Path) -> list[str]:
        program = [
            sys.executable,
            "-m",
            "bagformer_cli.cli.main",
            "train",
            "--output-dir",
            str(out),
        ]
        if (out / "config.yaml").exists():
            return [*program, "--resume"]
        start = ["--config", str(tmp_path / "config.yaml"), "--mode", "chain"]
        return [*program, *start, "--dataset", dataset, *sets]

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole), check=True, capture_output=True)
    summary = json.loads((whole / chains.SUMMARY).read_text(encoding="utf-8"))

    def lines() -> int:
        return sum(log.read_text().count("\n") for log in killed.glob("*/metrics.jsonl"))

    kills = killed_often(lambda: command(killed), lines, 10, further=24)
    assert kills >= 6  # three stages of 40 lines are long enough for nearly all of them
    if not (killed / chains.SUMMARY).exists():
        subprocess.run(command(killed), check=True, capture_output=True)
    for stage in ("1-inflate", "2-shrinktobase", "3-shrinktofast"):
        ours = load_file(killed / stage / "last/model.safetensors")
        theirs = load_file(whole / stage / "last/model.safetensors")
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs), stage
    again = json.loads((killed / chains.SUMMARY).read_text(encoding="utf-8"))
    assert [stage["best"] for stage in again] == [stage["best"] for stage in summary]


def test_distillation_begins_after_the_configured_epochs(store: Store, tmp_path: Path) -> None:
    out = trained(
        store,
        tmp_path / "run",
        "alignment_and_matching_distill",
        "distill.activate_distillation_after=2",  # two epochs of two steps
        "training.max_steps=6",
        "training.schedule_steps=6",
        "model.head.feed_forward=32",
    )
    taught = {line["step"]: "distill_loss" in line for line in read_metrics(out, "train")}
    assert taught == {1: False, 2: False, 3: False, 4: False, 5: True, 6: True}


def test_true_labels_train_until_distillation_begins() -> None:
    late = "distill.activate_distillation_after=2"
    assert settings("slowtofast", late, "distill.hard_loss_weight=1").distill is not None
    with pytest.raises(ConfigError, match="activate_distillation_after"):
        settings("slowtofast", late, "distill.hard_loss_weight=0")


def test_the_matching_head_does_not_change_before_distillation(
    store: Store, tmp_path: Path
) -> None:
    more = ("training.weight_decay=0", "model.head.feed_forward=32")
    for after, moves in ((50, False), (0, True)):
        config = settings(
            "alignment_and_matching_distill",
            f"distill.activate_distillation_after={after}",
            *more,
        )
        model = new_model(config)
        before = {n: p.detach().clone() for n, p in model.dual.head.named_parameters()}  # type: ignore[union-attr]
        start_run(config, store, tmp_path / str(after), model)
        after_run = dict(model.dual.head.named_parameters())  # type: ignore[union-attr]
        moved = any(not torch.equal(before[name], after_run[name]) for name in before)
        assert moved is moves


def test_a_student_starts_from_its_teacher_and_does_not_change_it(
    store: Store, tmp_path: Path
) -> None:
    teacher = trained(store, tmp_path / "t", "inflate", "model.codes=2") / "last"
    before = load_file(teacher / "model.safetensors")
    config = settings("shrinktobase", f"distill.teacher={teacher}")
    student = new_model(config).state_dict()
    assert all(torch.equal(student[name], before[name]) for name in student)
    scratch = new_model(settings("shrinktobase", f"distill.teacher={teacher}",
                                 "distill.start_from_teacher=false")).state_dict()  # fmt: skip
    assert any(not torch.equal(scratch[name], before[name]) for name in scratch)
    start_run(config, store, tmp_path / "s", new_model(config))
    after = load_file(teacher / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_distillation_of_mined_candidates_is_resumed_to_the_bit(
    store: Store, tmp_path: Path
) -> None:
    from bagformer_cli.training.run import resume_config, resume_run

    teacher = trained(
        store, tmp_path / "t", "captioner", "model.cross={kind: captioner, layers: 1}"
    )
    more = [
        f"distill.teacher={teacher}",
        "distill.mined=true",
        "distill.candidates=2",
        "training.schedule_steps=4",
    ]
    trained(store, tmp_path / "whole", "slowtofast", *more, "training.max_steps=4")
    trained(store, tmp_path / "broken", "slowtofast", *more, "training.max_steps=3")
    config = resume_config(tmp_path / "broken", ["training.max_steps=4"])
    resume_run(config, store, tmp_path / "broken")
    ours = load_file(tmp_path / "broken/last/model.safetensors")
    theirs = load_file(tmp_path / "whole/last/model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_best_is_the_latest_model_if_no_fast_scorer_is_trained(
    store: Store, tmp_path: Path
) -> None:
    out = trained(store, tmp_path / "run", "captioner", "model.cross={kind: captioner, layers: 1}")
    best, last = (load_file(out / name / "model.safetensors") for name in ("best", "last"))
    assert all(torch.equal(best[name], last[name]) for name in last)


# ------------------------------------------------------------------------ unsuitable teachers


def test_a_student_without_a_teacher_is_refused() -> None:
    with pytest.raises(ConfigError, match="--teacher"):
        check_teacher(settings("shrinktobase"))


def test_a_missing_teacher_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no model folder"):
        check_teacher(settings("shrinktobase", f"distill.teacher={tmp_path / 'nobody'}"))


def test_an_unsuitable_teacher_is_refused(store: Store, tmp_path: Path) -> None:
    teacher = trained(store, tmp_path / "t", "base") / "best"
    for more in ("image.size=24", "text.max_tokens=20", "image.regions={width: 4}"):
        with pytest.raises(CheckpointError, match="cannot be the teacher"):
            check_teacher(settings("shrinktobase", f"distill.teacher={teacher}", more,
                                   "model.shared={cells: 32}"))  # fmt: skip
    with pytest.raises(CheckpointError, match="trained cross-encoder"):
        check_teacher(settings("slowtofast", f"distill.teacher={teacher}"))
