"""The contract of objectives: what the task, the loop and the log need of a new one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from bagformer_cli.config import RunConfig, load_config
from bagformer_cli.data.store.store import Store
from bagformer_cli.datasets import ensure_store
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.dual import Encoded
from bagformer_cli.models.scorers import ScoreMatrix, Scorer
from bagformer_cli.progress import SILENT
from bagformer_cli.training import objectives
from bagformer_cli.training.distributed import SINGLE_PROCESS
from bagformer_cli.training.encoded_batch import Context, EncodedBatch
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.metrics_log import read_metrics
from bagformer_cli.training.objectives import OBJECTIVES, MatrixObjective, Objective
from bagformer_cli.training.run import make_trainer, start_run
from tests.support.datasets import write_split
from tests.support.small_run import TINY

EVERY_LOSS = {
    "itc_loss", "late_interaction_loss", "itm_loss", "mlm_loss", "mfm_loss", "caption_loss",
    "distill_loss",
}  # fmt: skip


class AgreementObjective(MatrixObjective):
    """An objective of a new paper: both directions of late interaction should agree."""

    name = "agreement_loss"

    @classmethod
    def build(cls, context: Context) -> list[Objective]:
        return [cls(context, 0.25)]

    def loss(self, batch: EncodedBatch) -> Tensor:
        scores = batch.scores("late")
        return (scores.t2i - scores.i2t.T).square().mean()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("pairs")
    queries = [(n, f"{'红绿蓝黄'[n % 4]}色连衣裙第{n}款", (n,)) for n in range(16)]
    return ensure_store(write_split(folder, "train", queries), new_model(settings()).titles)


def settings(*overrides: str) -> RunConfig:
    return load_config("demo", [*TINY, *overrides])


def test_a_new_objective_is_one_class_and_one_entry(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In chunks as well, and its gradient reaches the encoders."""
    monkeypatch.setattr(objectives, "OBJECTIVES", (*OBJECTIVES, AgreementObjective))
    alone = "objectives={itc: 0.0, late_interaction: 1.0e-9, itm: 0.0}"
    config = settings(alone, "training.max_steps=8", "training.micro_batch_size=3")
    start_run(config, store, tmp_path / "run", new_model(config))
    lines = read_metrics(tmp_path / "run", "train")
    assert all(line["agreement_loss_weight"] == 0.25 for line in lines)
    assert lines[-1]["agreement_loss"] < lines[0]["agreement_loss"]


def test_every_objective_has_a_unique_name_and_a_docstring() -> None:
    assert all(kind.__doc__ for kind in OBJECTIVES)
    found = []
    for overrides in (
        ["model.cross={fusion: joint}", "objectives={mlm: 1.0, mfm: 1.0}"],
        ["model.cross={kind: captioner}", "objectives={itc: 0.0, late_interaction: 0.0, itm: 0.0, "
         "caption: 1.0}", "distill={weight: 1.0}", "model.interaction=cls",
         "model.alignment=bagwise"],
    ):  # fmt: skip
        config = settings(*overrides)
        names = [
            one.name for one in objectives.build_objectives(Context(new_model(config), config))
        ]
        assert len(set(names)) == len(names)
        found += names
    assert set(found) == EVERY_LOSS


@pytest.mark.parametrize("loss", ["nce", "triplet", "power_hinge"])
def test_equal_scores_have_the_random_guess_loss(store: Store, tmp_path: Path, loss: str) -> None:
    config = settings(f"objectives={{itm: 0.0, loss: {loss}}}")
    trainer = make_trainer(
        new_model(config), config, store, tmp_path, False, SINGLE_PROCESS, SILENT
    )
    task = trainer.task

    def guess(
        model: RetrievalModel, scorer: Scorer, texts: Encoded, images: Encoded
    ) -> ScoreMatrix:
        return ScoreMatrix(torch.zeros(8, 8), torch.zeros(8, 8))

    task.context.score = guess
    losses = task(trainer.batches.batch(0)).losses
    expected = task.random_guess_losses(8)
    assert losses.keys() == expected.keys() == {"itc_loss", "late_interaction_loss"}
    for name, value in expected.items():
        assert float(losses[name].detach()) == pytest.approx(value, rel=1e-5), name
