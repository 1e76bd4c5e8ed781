"""The scripts in examples/ run, in the order of their README, and are as short as it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bagformer_cli.demo import write_demo

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
ALONE = ["bags_only.py", "own_dictionary.py"]
WITH_A_MODEL = {
    "train_and_evaluate.py 2": "recall: R@1",
    "score_and_explain.py": "row ",
    "search_catalogue.py": " products",
    "distil_fast_student.py 2": "student: mean recall",
    "export_onnx.py": "difference from torch",
}


def run(command: str, folder: Path) -> str:
    """Run an example in a folder; return what it prints."""
    script, *arguments = command.split()
    done = subprocess.run(
        [sys.executable, EXAMPLES / script, *arguments],
        cwd=folder, capture_output=True, text=True, encoding="utf-8", timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent), "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_the_table_lists_every_script(page: str) -> None:
    listed = re.findall(r"^\| \[(\w+\.py)\]", (EXAMPLES / page).read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == [script.name for script in SCRIPTS]
    assert sorted(listed) == sorted({*ALONE, *(name.split()[0] for name in WITH_A_MODEL)})


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_is_short(script: Path) -> None:
    assert len(script.read_text("utf-8").splitlines()) < 60


@pytest.mark.slow
def test_the_scripts_that_need_no_model(tmp_path: Path) -> None:
    assert "碎花:pattern" in run("bags_only.py", tmp_path)
    assert run("own_dictionary.py", tmp_path).startswith("山茶拾光|奶油风")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_scripts_that_share_a_model(tmp_path: Path) -> None:
    write_demo(tmp_path / "data/demo", images=240, workers=1)
    for command, words in WITH_A_MODEL.items():
        assert words in run(command, tmp_path), command
