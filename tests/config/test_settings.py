"""Every setting is listed with its meaning, and whole configurations can be shown and copied."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from bagformer_cli.config import builtin_configs, builtin_modes, load_config
from bagformer_cli.config.builtin import CONFIGS, MODES
from bagformer_cli.config.settings import in_words, names, settings
from bagformer_cli.config.yaml_files import MAX_VALUES
from bagformer_cli.errors import ConfigError


def test_every_setting_has_a_type_and_a_meaning() -> None:
    every = list(settings())
    assert [one.name for one in every if not one.meaning or not one.kind] == []
    assert [one.name for one in every] == list(names())
    known = {one.name: one for one in every}
    batch = known["training.batch_size"]
    assert (batch.default, batch.kind) == ("32", "whole number, 2 to 16777216")
    assert known["objectives.itm_share"].kind == "number, above 0, at most 1"
    assert known["model.keep"].kind == "whole number, at least 1, or one of: all"
    assert known["distill"].section


def test_every_builtin_config_and_mode_is_described() -> None:
    assert CONFIGS.keys() == builtin_configs().keys()
    assert MODES.keys() == builtin_modes().keys()
    assert max(map(len, [*CONFIGS.values(), *MODES.values()])) < 70


@pytest.mark.parametrize(
    ("annotation", "words"),
    [(bool, "true or false"), (list[str], "list of: text"), (int | None, "whole number, or null"),
     (dict[str, float], "keys with values: number"),
     (tuple[int, int], "list of 2: whole number")],
)  # fmt: skip
def test_types_are_in_words(annotation: Any, words: str) -> None:
    assert in_words(annotation) == words


@pytest.mark.parametrize(
    ("item", "hint"),
    [("training.seed=1", "Did you mean seed?"),
     ("batch_size=4", "Did you mean training.batch_size / evaluation.batch_size?"),
     ("training.batchsize=4", "Did you mean training.batch_size?"),
     ("image.options.dept=4", "Did you mean image.options.depth"),
     ("training.zzz=4", "xmr config list")],
)  # fmt: skip
def test_an_unknown_key_names_a_similar_one_or_the_same_elsewhere(item: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("demo", [item])
    assert hint in str(caught.value.hint)


BAD_YAML = {
    "laughs": "a: &a [1,1]\n" + "".join(
        f"b{n}: &b{n} [{', '.join(['*' + ('a' if not n else f'b{n - 1}')] * 9)}]\n"
        for n in range(9)
    ),
    "itself": "text: &a\n  options: *a\n",
    "depth": "seed: " + "[" * 400 + "]" * 400 + "\n",
    "values": f"text: {{lexicons: [{'a,' * (MAX_VALUES + 1)}]}}\n",
    "digits": f"seed: {'9' * 5000}\n",
    "bytes": "#" * 1_000_001,
    "not finite": "training: {learning_rate: .inf}\n",
    "too large": "text: {layers: 1001}\n",
    "a date": "text: {options: {layer_norm_eps: 2020-01-01}}\n",
    "an object": "seed: !!python/object/apply:os.system [ls]\n",
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_YAML)
def test_a_hostile_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    (tmp_path / "evil.yaml").write_text(BAD_YAML[kind])
    with pytest.raises(ConfigError):
        load_config(tmp_path / "evil.yaml")


def test_aliases_of_ordinary_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("text: {lexicons: &x [builtin]}\nchain: *x\n")
    assert load_config(tmp_path / "a.yaml").chain == ["builtin"]


def test_a_model_that_exceeds_memory_is_refused_before_it_is_built() -> None:
    from bagformer_cli.models.build import build_model

    config = load_config("demo", ["text.width=65536", "text.heads=64", "text.layers=200"])
    with pytest.raises(ConfigError, match="does not fit into memory"):
        build_model(config)


def test_settings_are_listed(xmr: Callable[..., Any]) -> None:
    found = xmr("config", "list", "--json").json()
    assert found.keys() == {"configs", "modes", "settings"}
    run = xmr("config", "list", "learning_rate")
    assert "training.learning_rate = 1e-05   number, above 0" in run.out
    assert "text.layers" not in run.out
    assert "muge_cls" in xmr("config", "list").out
    unknown = xmr("config", "list", "learning_rte")
    assert unknown.code == 2


@pytest.mark.parametrize("name", ["demo", "muge_tokenwise"])
def test_a_copied_configuration_is_the_same_with_comments(
    xmr: Callable[..., Any], tmp_path: Path, name: str
) -> None:
    copied = tmp_path / "mine.yaml"
    assert xmr("config", "copy", name, copied).code == 0
    assert load_config(copied) == load_config(name)
    lines = copied.read_text("utf-8").splitlines()
    assert any("Highest learning rate of AdamW" in line for line in lines)
    assert max(map(len, lines)) <= 125
    shown = xmr("config", "show", name)
    assert YAML(typ="safe").load(shown.out) == load_config(name).model_dump(mode="json")
    again = xmr("config", "copy", name, copied)
    assert again.code == 2
    assert "already exists" in again.err
