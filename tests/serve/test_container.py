"""The Dockerfile and compose.yaml: what they copy, install and run is there.

Docker does not run in the tests; ``tests/export/test_without_torch.py`` runs the service with no
more packages than the image has.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
from ruamel.yaml import YAML

from bagformer_cli.cli.root import app

HERE = Path(__file__).resolve().parents[2]

TRAINING = {
    "numba", "pyahocorasick", "scipy", "tensorboard", "timm", "torch", "torchvision", "transformers"
}  # fmt: skip
"""Requirements of the package that a service of an exported model does without."""


def dockerfile() -> list[tuple[str, str]]:
    """The instructions with their arguments."""
    text = (HERE / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    pairs = (line.partition(" ") for line in joined.splitlines() if line.strip())
    return [(name, rest.strip()) for name, _, rest in pairs]


def of(instruction: str) -> list[str]:
    return [rest for name, rest in dockerfile() if name == instruction]


def commands() -> dict[str, list[str]]:
    """What each file runs after ``xmr``."""
    compose: Any = YAML(typ="safe").load(HERE / "compose.yaml")
    assert json.loads(of("ENTRYPOINT")[0]) == ["xmr"]
    return {
        "Dockerfile": json.loads(of("CMD")[0]),
        "compose.yaml": compose["services"]["service"]["command"],
    }


@pytest.mark.parametrize("file", ["Dockerfile", "compose.yaml"])
def test_the_command_and_its_options_are_there(file: str) -> None:
    name, *arguments = commands()[file]
    group: Any = typer.main.get_command(app)
    command = group.get_command(None, name)
    known = {option for parameter in command.params for option in parameter.opts}
    given = [one for one in arguments if one.startswith("--")]
    assert set(given) <= known
    assert {"--index", "--checkpoint", "--runtime", "--host"} == set(given)


def test_the_image_has_the_requirements_of_the_package_without_those_of_training() -> None:
    project = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    runtime = [one for one in extras["export"] if one.startswith("onnxruntime")]
    all_of_them = [*project["dependencies"], *extras["serve"], *extras["qdrant"], *runtime]
    wanted = {one for one in all_of_them if re.split("[<>=]", one)[0] not in TRAINING}
    text = (HERE / "docker" / "requirements.txt").read_text(encoding="utf-8")
    assert {line for line in text.splitlines() if line and not line.startswith("#")} == wanted


def test_copied_files_are_there() -> None:
    for line in of("COPY"):
        *sources, target = line.split()
        assert target
        assert all((HERE / source).exists() for source in sources), line


def test_the_build_reads_what_is_copied_and_nothing_else() -> None:
    lines = (HERE / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {source for line in of("COPY") for source in line.split()[:-1]}
    assert "*" in lines
    assert kept == copied


def test_the_service_is_no_superuser_and_says_when_it_is_ready() -> None:
    assert of("USER") == ["1000"]
    assert "/readyz" in of("HEALTHCHECK")[0]
