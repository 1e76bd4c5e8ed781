"""Estimates are those of a real run; a missing dataset is replaced by drawn products."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bagformer_cli.config import load_config, save_config
from bagformer_cli.errors import InputError
from bagformer_cli.interaction.kernels import reference
from bagformer_cli.interaction.maxsim import argmax_index_bytes
from bagformer_cli.training import estimate
from bagformer_cli.training.initial_model import new_model
from tests.support.datasets import write_split
from tests.support.small_run import TINY


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small configuration and a dataset, as the current folder."""
    monkeypatch.chdir(tmp_path)
    for split in ("train", "valid"):
        write_split(tmp_path / "shop", split, [(n, f"红色{n}", (100 + n,)) for n in range(24)])
    save_config(load_config("demo", [*TINY, "training.max_steps=6"]), tmp_path / "small.yaml")
    return tmp_path


def test_the_estimate_of_a_dataset(small: Path, xmr: Callable[..., Any]) -> None:
    run = xmr("estimate", "--config", "small.yaml", "--dataset", "shop", "--steps", "3", "--json")
    assert run.code == 0, run.err
    found = run.json()
    probe = found["probe"]
    assert (probe["data"], probe["steps"], probe["epoch_pairs"]) == ("dataset", 3, 24)
    assert probe["epoch_seconds"] == pytest.approx(3 * probe["step_seconds"])
    assert probe["training_seconds"] == pytest.approx(6 * probe["step_seconds"])
    assert sum(found["parameters"]["parts"].values()) == found["parameters"]["total"]
    trained = xmr("train", "--config", "small.yaml", "--dataset", "shop", "--output-dir", "run",
                  "--json")  # fmt: skip
    assert trained.json()["parameters"] == found["parameters"]["total"]
    size = sum(path.stat().st_size for path in Path("run").rglob("*.safetensors"))
    assert found["run_bytes"] == pytest.approx(size, rel=0.05)


def test_a_missing_dataset_is_drawn_and_said(small: Path, xmr: Callable[..., Any]) -> None:
    before = sorted(os.listdir())
    run = xmr("estimate", "--config", "small.yaml", "--dataset", "muge", "--steps", "1")
    assert run.code == 0, run.err
    assert "drawn products" in run.out
    assert "muge is not here" in run.err
    assert "100,000 pairs" in run.out
    assert sorted(os.listdir()) == before


def test_weights_are_not_read(small: Path, xmr: Callable[..., Any]) -> None:
    run = xmr("estimate", "--config", "small.yaml", "--dataset", "shop", "--steps", "1", "--set",
              "text.pretrained=bert-base-chinese", "--set", "text.tokenizer=bert-base-chinese",
              "--json")  # fmt: skip
    assert run.code == 0, run.err
    assert "bert-base-chinese" in run.err


def test_a_long_step_ends_the_probe(small: Path, monkeypatch: pytest.MonkeyPatch,
                                    xmr: Callable[..., Any]) -> None:  # fmt: skip
    monkeypatch.setattr(estimate, "MOST_SECONDS", 0.0)
    run = xmr("estimate", "--config", "small.yaml", "--dataset", "shop", "--json")
    assert run.json()["probe"]["steps"] == 1


def test_a_chain_is_refused() -> None:
    with pytest.raises(InputError, match="--mode inflate"):
        estimate.for_estimate(load_config("demo", ["chain=[inflate, shrinktobase]"]))


def test_the_index_holds_the_vectors_of_an_image() -> None:
    model = new_model(load_config("demo", TINY))
    vectors, size = estimate.index_bytes(model)
    assert vectors == 1 + 4  # class token and patches of 16 x 16 pixels
    assert size == 1_000_000 * (2 * (5 * 16 + 4) + 2 * 16)


def test_indices_of_the_argmax_are_those_of_the_device() -> None:
    assert argmax_index_bytes(torch.device("cpu")) == reference.ARGMAX_BYTES
