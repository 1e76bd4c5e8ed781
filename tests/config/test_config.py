"""Configuration files: what is read is what is written, and every mistake has its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from bagformer_cli import __version__
from bagformer_cli.config import RunConfig, builtin_configs, find_config, load_config, save_config
from bagformer_cli.errors import ConfigError


@pytest.mark.parametrize("name", sorted(builtin_configs()))
def test_every_built_in_config_loads(name: str) -> None:
    assert isinstance(load_config(name), RunConfig)


def test_the_published_settings_are_those_of_the_original_code() -> None:
    config = load_config("muge_bagformer")
    assert config.image.backbone == "vit_base_patch16_224"
    assert (config.image.size, config.text.max_tokens, config.model.embed_dim) == (256, 25, 256)
    assert config.text.layers == 6
    assert config.model.cross is not None
    assert config.model.cross.layers == 6
    training = config.training
    assert (training.learning_rate, training.weight_decay) == (1e-5, 0.02)
    assert (training.epochs, training.warmup_steps, training.batch_size) == (6, 0, 32)
    assert config.data.augment is not None
    assert config.data.augment.crop_scale == (0.5, 1.0)
    assert config.data.augment.randaugment == (2, 7)
    weights = config.objectives
    assert (weights.itc, weights.late_interaction, weights.itm) == (1, 1, 1)
    temperature = weights.temperature
    assert (temperature.initial, temperature.minimum, temperature.maximum) == (0.07, 0.05, 0.5)
    assert config.evaluation.candidates == 256


def test_small_cards_scale_the_learning_rate_with_the_pairs_of_a_step() -> None:
    base = load_config("muge_bagformer").training
    for name in ("muge_bagformer_8gb", "muge_bagformer_24gb", "muge_bagformer_80gb"):
        training = load_config(name).training
        pairs = training.batch_size * training.accumulate
        expected = base.learning_rate * (pairs / base.batch_size) ** 0.5
        assert training.learning_rate == pytest.approx(expected, rel=0.02), name


def test_a_config_comes_back_from_its_file_unchanged(tmp_path: Path) -> None:
    config = load_config("demo", ["training.max_steps=7", "image.options={depth: 3}"])
    save_config(config, tmp_path / "config.yaml", "demo")
    assert load_config(tmp_path / "config.yaml") == config


def test_comments_of_the_template_are_kept(tmp_path: Path) -> None:
    save_config(load_config("demo"), tmp_path / "config.yaml", "demo")
    first = find_config("demo").read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("#")
    assert first in (tmp_path / "config.yaml").read_text(encoding="utf-8")


def test_a_file_that_extends_another_states_only_what_differs(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("seed: 3\nmodel: {embed_dim: 32}\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\nmodel: {interaction: cls}\n")
    config = load_config(tmp_path / "b.yaml")
    assert (config.seed, config.model.embed_dim, config.model.interaction) == (3, 32, "cls")


def test_a_name_that_is_too_long_for_the_disk_is_no_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no config file of that name"):
        load_config("a" * 5000)
    child = tmp_path / "child.yaml"
    child.write_text(f"extends: {'a' * 5000}\n")
    with pytest.raises(ConfigError, match="no config file of that name"):
        load_config(child)


def test_a_key_that_is_a_mapping_of_lists_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("seed: 3\nmodel: {{a: [1]}: 2, b: 3}\n")
    with pytest.raises(ConfigError, match="a key that is a list or a mapping"):
        load_config(path)


def test_files_that_extend_each_other_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(ConfigError, match="circle"):
        load_config(tmp_path / "a.yaml")


def test_overrides_are_read_as_yaml() -> None:
    config = load_config(
        None,
        ["training.learning_rate=1e-4", "data.augment=null", "text.lexicons=[a.txt, builtin]"],
    )
    assert config.training.learning_rate == 1e-4
    assert config.data.augment is None
    assert config.text.lexicons == ["a.txt", "builtin"]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("trainin.epochs=1", "training"),
        ("training.epoch=1", "epochs"),
        ("model.cross.layer=1", "layers"),
        ("training.epochs=many", "expected: a whole number"),
        ("training.epochs=0", "expected: at least 1"),
        ("model.interaction=bagwize", "one of: cls, tokenwise, bagwise"),
        ("model.keep=x", "a whole number, or all"),
        ("model.image_first=maybe", "true or false"),
        ("training.learning_rate=quick", "a number"),
        ("training.learning_rate=0", "above 0"),
        ("training.precision=fp8", "one of: auto, fp32, bf16"),
        ("text.lexicons=[1]", "a text"),
        ("text.lexicons=words.txt", "a list"),
        ("data.augment.crop_scale=[1, 2, 3]", "a list of at most 2"),
        ("model.head=null.x", "keys with values"),
        ("training.batch_size=", "found: null; expected: a whole number"),
        ("objectives.temperature.initial=3", "between"),
        ("seed.x=1", "seed"),
        ("seed", "section.key=value"),
        ("seed=[", "YAML"),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(override: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({"seed": 1}, [override])
    assert caught.value.where == f"--set {override}"
    assert says in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_key_of_a_newer_version_is_named_as_such(tmp_path: Path) -> None:
    """Only in a file that xmr wrote, and not where another key is meant."""
    file = tmp_path / "config.yaml"
    for text, stored, advice in (
        ("model: {quantum: 3}", True, f"this is {__version__}. Update xmr"),
        ("model: {quantum: 3}", False, "xmr config list"),
        ("model: {interactoin: cls}", True, "Did you mean model.interaction"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_config(file, stored=stored)
        assert advice in str(caught.value.hint)
    file.write_text("")
    with pytest.raises(ConfigError) as caught:
        load_config(file, ["model.quantum=3"], stored=True)
    assert "xmr config list" in str(caught.value.hint)


def test_a_wrong_setting_of_a_file_is_named_by_file_and_key(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("training: {epoch: 3}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "a.yaml", ["training.batch_size=8"])
    assert caught.value.where == f"{tmp_path / 'a.yaml'}: training.epoch"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"model": {"cross": None}}, "require model.cross"),
        ({"objectives": {"itc": 0, "late_interaction": 0, "itm": 0}}, "nothing to train"),
        ({"model": {"bag_fusion": "early", "interaction": "cls"}}, "requires model.interaction"),
        ({"text": {"width": 100, "heads": 3}}, "multiple"),
    ],
)
def test_an_impossible_combination_is_refused(values: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_config(values)


def test_a_broken_yaml_file_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("seed: 1\ntext: [\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert caught.value.where is not None
    assert caught.value.where.startswith(f"{path}:")


def test_a_missing_config_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="muge_bagformer"):
        load_config("muge_bagforme")
