"""A cross-encoder that nothing trained is not built, and never reranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from bagformer_cli.config import builtin_modes, load_config
from bagformer_cli.datasets import ensure_store
from bagformer_cli.errors import CheckpointError
from bagformer_cli.evaluation.evaluate import EvaluationOptions, Reranker, evaluate
from bagformer_cli.models.build import build_model
from bagformer_cli.models.checkpoint import load_model, load_tensors, save_model, save_tensors
from bagformer_cli.models.item_encoder import ModelEncoder
from bagformer_cli.models.runs import WEIGHTS
from bagformer_cli.models.trained import trained_scorers
from bagformer_cli.training.initial_model import new_model
from tests.support.datasets import write_split
from tests.support.small_model import TINY, saved_model

NO_ITM = ["objectives.itm=0"]


def written_before(folder: Path, *overrides: str) -> Path:
    """A model folder of an older version: a cross-encoder in any case, no list of scorers."""
    model = build_model(load_config("demo", [*TINY, *overrides]), keep_cross=True)
    save_model(model, folder)
    save_tensors(load_tensors(folder / WEIGHTS), folder / WEIGHTS)
    return folder


@pytest.mark.parametrize("mode", sorted(set(builtin_modes()) - {"chain"}))
def test_a_mode_builds_a_cross_encoder_only_if_it_trains_one(mode: str) -> None:
    model = build_model(load_config("demo", [*TINY, "model.cross.layers=1"], mode))
    assert (model.cross is not None) == (mode == "captioner")
    assert (model.config.model.cross is not None) == (mode == "captioner")
    assert model.can_rerank == (mode == "captioner")


@pytest.mark.parametrize(
    ("overrides", "trained"),
    [
        ([], "cls late slow"),
        (["objectives.itc=0", *NO_ITM], "late"),
        (["model.interaction=cls", *NO_ITM], "cls"),  # there is no late interaction
        (["objectives={itc: 0, late_interaction: 0, itm: 0, mlm: 1}"], ""),
        (["objectives={itc: 0, itm: 0}", "distill={teacher: x}", "model.keep=1"], "cls"),
    ],
)
def test_the_objectives_say_which_scorers_are_trained(overrides: list[str], trained: str) -> None:
    assert trained_scorers(load_config("demo", [*TINY, *overrides])) == set(trained.split())


def test_masked_modelling_builds_the_cross_encoder_but_does_not_train_its_score() -> None:
    model = build_model(load_config("demo", [*TINY, *NO_ITM, "objectives.mlm=1"]))
    assert model.cross is not None
    assert not model.can_rerank


def test_the_towers_begin_alike_with_and_without_a_cross_encoder() -> None:
    with_it = new_model(load_config("demo", TINY)).state_dict()
    without = new_model(load_config("demo", [*TINY, *NO_ITM])).state_dict()
    assert not any(name.startswith("cross.") for name in without)
    assert all(value.equal(with_it[name]) for name, value in without.items())


def test_a_model_folder_says_which_scorers_were_trained(tmp_path: Path) -> None:
    save_model(new_model(load_config("demo", [*TINY, "objectives.itc=0"])), tmp_path)
    assert load_model(tmp_path).trained == {"late", "slow"}


def test_in_an_older_folder_the_objectives_decide(tmp_path: Path) -> None:
    untrained = load_model(written_before(tmp_path / "untrained", *NO_ITM))
    assert untrained.cross is not None  # a stopped run goes on with all of its weights
    assert not untrained.can_rerank
    assert load_model(written_before(tmp_path / "trained")).can_rerank


def test_an_untrained_cross_encoder_never_reranks(tmp_path: Path) -> None:
    model = load_model(written_before(tmp_path / "model", *NO_ITM))
    folder = write_split(tmp_path / "data", "valid")
    split = ensure_store(folder, model.titles, workers=1).split("valid")
    settings = model.config.evaluation
    assert settings.candidates
    assert list(evaluate(model, split, settings).stages) == ["recall"]
    for options in (
        EvaluationOptions(rerank=[2]),
        EvaluationOptions(reranker=Reranker(model, split)),
    ):
        with pytest.raises(CheckpointError, match="no trained cross-encoder"):
            evaluate(model, split, settings, options)


def test_commands_refuse_to_rerank_with_it(tmp_path: Path, xmr: Callable[..., Any]) -> None:
    model = written_before(tmp_path / "model", *NO_ITM)
    whole = saved_model(tmp_path / "whole")
    folder = write_split(tmp_path / "data", "valid").path
    common = ("eval", "--dataset", folder)
    for more in (
        ("--checkpoint", model, "--rerank", "2"),
        ("--checkpoint", whole, "--slow", model),
    ):
        run = xmr(*common, *more)
        assert run.code == 2
        assert "no trained cross-encoder" in run.err
    assert xmr(*common, "--checkpoint", model, "--rerank", "0", "--json").code == 0


def test_a_search_refuses_to_rerank_with_it(tmp_path: Path) -> None:
    from bagformer_cli.index.search import Index

    class Layout:
        model = None
        checkpoint = None
        attributes: ClassVar[dict[str, str]] = {}

    class Engine:
        layout = Layout()
        uri = "index"

    index = object.__new__(Index)
    index.engine = Engine()  # type: ignore[assignment]
    index.encoder = ModelEncoder(load_model(written_before(tmp_path, *NO_ITM)))
    with pytest.raises(CheckpointError, match="no trained cross-encoder"):
        index.search("红裙", rerank=3)


def test_frozen_towers_keep_the_cross_encoder_they_start_from(tmp_path: Path) -> None:
    start = saved_model(tmp_path)
    frozen = [*TINY, "model.freeze_towers=true", "model.head={heads: 2, feed_forward: 48}", *NO_ITM]
    model = new_model(load_config("demo", frozen), start)
    assert model.can_rerank
    before = load_tensors(start / WEIGHTS)
    weights = model.state_dict()
    assert all(weights[name].equal(before[name]) for name in before if name.startswith("cross."))
    moving = new_model(load_config("demo", [*TINY, *NO_ITM]), start)
    assert moving.cross is None  # its towers leave the states that the cross-encoder knows
