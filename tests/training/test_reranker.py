"""The second stage: a matching head on frozen towers, its negatives by scores that were trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bagformer_cli.config import RunConfig, load_config
from bagformer_cli.data.store.store import Store
from bagformer_cli.errors import ConfigError
from bagformer_cli.models.checkpoint import load_model
from bagformer_cli.progress import SILENT
from bagformer_cli.training.distributed import SINGLE_PROCESS
from bagformer_cli.training.initial_model import check_start, new_model
from bagformer_cli.training.run import make_trainer, start_run
from tests.support.remarks import Remarks
from tests.support.small_architectures import small_config
from tests.support.small_run import weights

TOWERS = ["objectives={itc: 0.0, late_interaction: 1.0, itm: 0.0}"]
RERANKER = [
    "model.freeze_towers=true", "data.augment=null", "training.encode_frozen_once=true",
    "objectives={itc: 0.0, late_interaction: 0.0, itm: 1.0, late_scale: mean}",
]  # fmt: skip


@pytest.fixture(scope="module")
def towers(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = small_config("demo", None, tmp_path_factory.mktemp("towers"), *TOWERS,
                          "training.max_steps=2")  # fmt: skip
    folder = tmp_path_factory.mktemp("runs") / "towers"
    start_run(config, store, folder, new_model(config))
    return folder / "last"


def second(towers: Path, folder: Path, *more: str) -> RunConfig:
    return small_config("demo", None, folder, *RERANKER, f"training.checkpoint={towers}",
                        "training.max_steps=2", *more)  # fmt: skip


def test_towers_and_projections_stay_and_the_model_reranks(
    store: Store, towers: Path, tmp_path: Path
) -> None:
    config = second(towers, tmp_path)
    assert check_start(config).trained == {"late", "slow"}
    start_run(config, store, tmp_path / "run", new_model(config))
    before, after = weights(towers), weights(tmp_path / "run/last")
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == set(before)
    assert any(name.startswith("cross.") for name in set(after) - set(before))
    model = load_model(tmp_path / "run/best")
    assert model.trained == {"late", "slow"}
    assert model.can_rerank


def test_maxsim_of_tokens_starts_from_the_towers(
    store: Store, towers: Path, tmp_path: Path
) -> None:
    config = second(towers, tmp_path, "model.cross.token_maxsim=true")
    remarks = Remarks()
    model = new_model(config, progress=remarks)
    head: Any = model.cross
    for name in ("text_proj", "vision_proj"):
        copy, own = getattr(head.token_maxsim, name), getattr(model.dual, name)
        assert torch.equal(copy.weight, own.weight)
        assert torch.equal(own.weight, weights(towers)[f"dual.{name}.weight"])
        assert copy.weight.requires_grad
        assert not own.weight.requires_grad
    (warning,) = remarks.warnings
    assert "cross.fusion" in warning  # random; the copies are not
    assert "token_maxsim.text_proj" not in warning
    start_run(config, store, tmp_path / "run", model)
    after = weights(tmp_path / "run/last")
    trained = after["cross.token_maxsim.text_proj.weight"]
    assert not torch.equal(trained, after["dual.text_proj.weight"])
    # A run that goes on from this one keeps what was trained.
    again: Any = new_model(second(tmp_path / "run/last", tmp_path, "model.cross.token_maxsim=true"))
    assert torch.equal(again.cross.token_maxsim.text_proj.weight, trained)


def test_a_trained_copy_is_kept_where_it_fits(store: Store, towers: Path, tmp_path: Path) -> None:
    """Images of another backbone have another width: only their projection starts again."""
    config = second(towers, tmp_path, "model.cross.token_maxsim=true")
    start_run(config, store, tmp_path / "run", new_model(config))
    wider = "image.options={channels: [8, 12, 16, 32], output_stride: 16}"
    model = new_model(
        second(tmp_path / "run/last", tmp_path, "model.cross.token_maxsim=true", wider)
    )
    head: Any = model.cross
    trained = weights(tmp_path / "run/last")["cross.token_maxsim.text_proj.weight"]
    assert torch.equal(head.token_maxsim.text_proj.weight, trained)
    assert not torch.equal(trained, model.dual.text_proj.weight)
    assert torch.equal(head.token_maxsim.vision_proj.weight, model.dual.vision_proj.weight)


@pytest.mark.parametrize(
    ("setting", "required"),
    [
        ("model.cross.fusion=joint", "model.cross.fusion: cross"),
        ("model.interaction=cls", "a late interaction"),
    ],
)
def test_maxsim_of_tokens_needs_a_late_interaction_and_a_fusion_encoder(
    setting: str, required: str
) -> None:
    with pytest.raises(ConfigError, match=f"token_maxsim requires {required}"):
        load_config("demo", ["model.cross.token_maxsim=true", setting])


def test_negatives_are_drawn_by_the_scores_that_were_trained(
    store: Store, towers: Path, tmp_path: Path
) -> None:
    config = second(towers, tmp_path, "training.encode_frozen_once=false")
    model = new_model(config)
    trainer = make_trainer(model, config, store, tmp_path, False, SINGLE_PROCESS, SILENT)
    (matching,) = trainer.task.objectives
    encoded = trainer.task.encode(trainer.batches.batch(0), 0.0)
    one: Any = matching
    t2i, i2t = one._logits(encoded)
    late = encoded.scores("late")
    torch.testing.assert_close(t2i, late.t2i / model.temperature)
    torch.testing.assert_close(i2t, late.i2t / model.temperature)
    model.trained = frozenset({"cls", "late"})
    t2i, i2t = one._logits(encoded)
    torch.testing.assert_close(t2i * model.temperature, encoded.scores("cls").t2i)
    assert torch.equal(i2t, t2i.T)


def test_the_demo_reranker_is_a_configuration() -> None:
    config = load_config("rerank_demo")
    assert config.model.freeze_towers
    assert config.training.encode_frozen_once
    assert config.data.augment is None
    assert config.model.cross is not None
    assert config.model.cross.token_maxsim
