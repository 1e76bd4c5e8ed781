"""Modes: each belongs to a config, and each works on every config or is refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bagformer_cli.config import (
    RunConfig,
    builtin_configs,
    builtin_modes,
    default_config,
    load_config,
)
from bagformer_cli.errors import ConfigError
from bagformer_cli.models.build import build_model
from bagformer_cli.text.bags import TitleEncoder
from bagformer_cli.text.from_config import build_titles

WITHOUT_SEQUENCE = (
    "demo", "demo_towers", "fast_slow", "pretrain_demo", "real", "rerank_demo",
)  # fmt: skip
NO_ROOM_FOR_CODES = {(name, "inflate") for name in WITHOUT_SEQUENCE}
"""Convolutional backbones without a shared encoder have no sequence to append code tokens to."""


@pytest.fixture(scope="module")
def titles() -> TitleEncoder:
    return build_titles(load_config("demo"))


def builds(config: RunConfig, titles: TitleEncoder) -> None:
    """Build the model without memory for its weights."""
    with torch.device("meta"):
        build_model(config, titles, pretrained=False)


def test_every_mode_works_on_every_config_or_is_refused(titles: TitleEncoder) -> None:
    refused: dict[tuple[str, str], ConfigError] = {}
    built: set[str] = set()
    for name in builtin_configs():
        for mode in builtin_modes():
            config = load_config(name, ["text.tokenizer=builtin", "text.layers=1"], mode)
            architecture = config.model_dump_json(include={"text", "image", "model"})
            if architecture in built:
                continue
            try:
                builds(config, titles)
                built.add(architecture)
            except ConfigError as error:
                refused[name, mode] = error
    assert refused.keys() == NO_ROOM_FOR_CODES
    assert all("code tokens" in error.message and error.expected for error in refused.values())


@pytest.mark.parametrize("mode", sorted(builtin_modes()))
@pytest.mark.parametrize("dataset", ["muge", "demo"])
def test_a_mode_chooses_its_own_config(mode: str, dataset: str, titles: TitleEncoder) -> None:
    name = default_config(dataset, mode=mode)
    assert name in (
        {"demo_shared"} if dataset == "demo" else {"inflate_shrink", "aladin", "fast_slow"}
    )
    builds(load_config(name, ["text.tokenizer=builtin", "text.layers=1"], mode), titles)


def test_inflate_on_muge_takes_the_settings_of_its_paper() -> None:
    assert default_config("muge", mode="inflate") == "inflate_shrink"
    assert default_config("muge", mode="captioner") == "fast_slow"
    assert default_config("muge", mode="alignment_triplet") == "aladin"
    assert default_config("muge", "tokenwise") == "muge_tokenwise"
    assert default_config("muge") == "muge_bagformer"
    assert default_config() == "demo"


def test_a_mode_file_without_a_base_config_takes_that_of_the_dataset(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("objectives: {itc: 0.5}\n")
    assert default_config("muge", mode=tmp_path / "mine.yaml") == "muge_bagformer"
    assert default_config("demo", mode=tmp_path / "mine.yaml") == "demo"


@pytest.mark.parametrize("base", ["demo", "{large: demo}", "{full: 3}"])
def test_a_base_config_of_another_form_is_refused(base: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"base_config: {base}\n")
    with pytest.raises(ConfigError, match="base_config") as caught:
        default_config("muge", mode=path)
    assert str(path) in str(caught.value.where)


def test_a_mode_sets_every_objective() -> None:
    """An objective that a mode does not train is off, whatever the config trains."""
    trained = {
        "fast": {"itc"},
        "base": {"late_interaction"},
        "inflate": {"late_interaction"},
        "shrinktobase": set(),
        "shrinktofast": set(),
        "dualnce": {"itc"},
        "captioner": {"caption"},
        "slowtofast": set(),
        "alignment_triplet": {"late_interaction"},
        "matching_triplet_e2e": {"itc"},
        "matching_triplet_finetune": {"itc"},
        "matching_distill_finetune": set(),
        "alignment_and_matching_distill": {"late_interaction"},
    }
    names = ("itc", "late_interaction", "itm", "mlm", "mfm", "caption")
    for mode in builtin_modes().keys() - {"chain"}:
        for config in ("fast_slow", "pretrain_albef", "pretrain_qq", "muge_bagformer"):
            weights = load_config(config, mode=mode).objectives
            on = {name for name in names if getattr(weights, name)}
            assert on == trained[mode], (config, mode)
            assert weights.momentum is None
