"""Frozen towers encode once: the same training as with towers that encode at every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bagformer_cli.config import RunConfig
from bagformer_cli.data.store.store import Store
from bagformer_cli.errors import ConfigError
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.training.frozen_towers import keep_outputs, why_not_kept
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.metrics_log import read_metrics
from bagformer_cli.training.run import start_run
from tests.support.remarks import Remarks
from tests.support.small_architectures import small_config
from tests.support.small_run import losses, weights
from tests.training.test_resume import assert_resume_is_exact

TEXT = ["text.frozen_layers=1", "text.dropout=0"]
IMAGE = [
    "image={backbone: vit_base_patch16_224, size: 32, frozen_layers: 1, "
    "options: {patch_size: 8, embed_dim: 24, depth: 1, num_heads: 2}}",
    "data.augment=null",
]
ONCE = "training.encode_frozen_once=true"
VARIANTS = {
    "cls": [*TEXT, *IMAGE, "model.interaction=cls", "objectives.late_interaction=0"],
    "cls alone": [*TEXT, *IMAGE, "model={interaction: cls, cross: null}",
                  "objectives={itm: 0, late_interaction: 0}"],
    "tokenwise": [*TEXT, *IMAGE, "model.interaction=tokenwise"],
    "bagwise": [*TEXT, *IMAGE, "model.interaction=bagwise"],
    "in chunks": [*TEXT, *IMAGE, "training.micro_batch_size=3"],
    "momentum": [*TEXT, *IMAGE, "objectives.momentum={queue: 16}"],
    "text only": TEXT,
    "image only": IMAGE,
}  # fmt: skip
"""Overrides of the demo config."""


def settings(folder: Path, *overrides: str) -> RunConfig:
    return small_config("demo", None, folder, "training.log_every=1", *overrides)


def trained(store: Store, run: Path, *overrides: str, **options: Any) -> RetrievalModel:
    config = settings(run.parent, *overrides, "training.max_steps=3", "training.evaluate_every=1")
    model = new_model(config)
    start_run(config, store, run, model, **options)
    return model


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_recall_and_weights_are_those_of_encoding_at_every_step(
    store: Store, tmp_path: Path, variant: str
) -> None:
    for name, more in (("each", ()), ("once", (ONCE,))):
        trained(store, tmp_path / name, *VARIANTS[variant], *more)
    each, once = (losses(tmp_path / name) for name in ("each", "once"))
    assert len(once) == 3
    for left, right in zip(each, once, strict=True):
        assert right["loss"] == pytest.approx(left["loss"], rel=1e-5)
    recalls = [
        [line["stages"] for line in read_metrics(tmp_path / name, "valid")]
        for name in ("each", "once")
    ]
    assert recalls[0] == recalls[1]
    left, right = (weights(tmp_path / name / "last") for name in ("each", "once"))
    for key, value in left.items():
        assert torch.allclose(value, right[key], atol=1e-5), key


def test_a_frozen_tower_reads_every_image_once(store: Store, tmp_path: Path) -> None:
    config = settings(tmp_path, *VARIANTS["bagwise"], ONCE, "training.max_steps=4",
                      "training.evaluate_every=1")  # fmt: skip
    model = new_model(config)
    seen: list[int] = []
    for tower in (model.dual.vision_encoder, model.dual.text_encoder):
        tower.register_forward_hook(lambda _tower, _given, output: seen.append(len(output)))
    notes = Remarks()
    start_run(config, store, tmp_path / "run", model, progress=notes)
    assert sum(seen) == 2 * (16 + 16)  # train and valid, titles and images
    said = next(note for note in notes.notes if "Encoded once" in note)
    assert "text tower + image tower" in said


def test_the_other_tower_is_named_with_its_reason(store: Store, tmp_path: Path) -> None:
    notes = Remarks()
    trained(store, tmp_path / "run", *TEXT, ONCE, progress=notes)
    assert any("image tower (" in note and "are trained" in note for note in notes.notes)


def test_single_vectors_keep_one_position(store: Store, tmp_path: Path) -> None:
    config = settings(tmp_path, *VARIANTS["cls alone"], ONCE)
    kept = keep_outputs(new_model(config), config, store.split("train"))
    assert kept is not None
    assert kept.images is not None
    assert kept.titles is not None
    assert (kept.images.shape, kept.titles.shape) == ((16, 1, 24), (16, 32))


@pytest.mark.parametrize(
    ("overrides", "tower", "reason"),
    [
        (["text.frozen_layers=1", "text.dropout=0.1"], 0, "random"),
        (["text.frozen_layers=0", "text.dropout=0"], 0, "trained"),
        ([*TEXT, "model.bag_fusion=early"], 0, "bag_fusion"),
        ([IMAGE[0], "data.augment={flip: true}"], 1, "data.augment"),
        ([*IMAGE, "model.codes=2"], 1, "model.codes"),
        ([*TEXT, *IMAGE, "compat=bagformer"], 1, "compat"),
        ([*IMAGE, "image.options={patch_size: 8, embed_dim: 24, depth: 1, num_heads: 2, "
          "patch_drop_rate: 0.5}"], 1, "random"),
    ],
)  # fmt: skip
def test_what_changes_from_step_to_step_is_not_kept(
    tmp_path: Path, overrides: list[str], tower: int, reason: str
) -> None:
    config = settings(tmp_path, *overrides)
    assert reason in (why_not_kept(new_model(config), config)[tower] or "")


def test_without_a_frozen_tower_the_setting_is_an_error(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        trained(store, tmp_path / "run", ONCE)
    assert error.value.where == "training.encode_frozen_once"
    assert "are trained" in str(error.value.found)


def test_a_resumed_run_equals_an_unbroken_one(store: Store, tmp_path: Path) -> None:
    assert_resume_is_exact(store, tmp_path, "demo", None, *VARIANTS["bagwise"], ONCE)


def test_a_head_on_frozen_towers_learns_the_same(store: Store, tmp_path: Path) -> None:
    """ALADIN's second stage: the towers are frozen by ``model.freeze_towers``."""
    for name, more in (("each", ()), ("once", (ONCE,))):
        config = small_config(
            "demo", "matching_distill_finetune", tmp_path, "data.augment=null",
            "training.log_every=1", "training.max_steps=3", *more,
        )  # fmt: skip
        notes = Remarks()
        start_run(config, store, tmp_path / name, new_model(config), progress=notes)
    assert any("text tower + image tower" in note for note in notes.notes)
    each, once = (losses(tmp_path / name) for name in ("each", "once"))
    assert [line["loss"] for line in once] == pytest.approx([line["loss"] for line in each])
