"""Messages of ordinary mistakes in Chinese: lists, names of columns, places; one process."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from pathlib import Path
from bagformer_cli.cli import bars
from bagformer_cli.cli.main import main

bars.MIN_SECONDS = 0.0  # every task leaves its line
Path("table.csv").write_text("id,image,title\\na,a.png,\\nb,b.png,\\n", "utf-8")
Path("words.txt").write_text("雾霾蓝,颜色\\n云朵鹿\\n冰川纹\\n松鹤院,门派\\n", "utf-8")
for command in sys.argv[1:]:
    print(chr(0), end="", file=sys.stderr, flush=True)
    sys.stdout.flush()
    sys.stdout = sys.stderr
    main(command.split())
"""

EXPECTED = {
    "preprocess --config demoo": "、demo、",
    "train --set model.interaction=bag": "cls、tokenwise、bagwise",
    "bags --input table.csv": "标题为空",
    "score nowhere.jpg 红裙": "nowhere.jpg（参数“",
    "dict check words.txt --no-builtin": "检查：用时 ",
    "dict stats words.txt --no-builtin": "words.txt：有 1 行被跳过或未能完整读取",
}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each command prints."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, *EXPECTED],
        cwd=tmp_path_factory.mktemp("wording"),
        env={**os.environ, "XMR_LANG": "zh", "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(EXPECTED, run.stderr.split("\0")[1:], strict=True))


@pytest.mark.parametrize("command", EXPECTED)
def test_a_chinese_message_reads_as_chinese(shown: dict[str, str], command: str) -> None:
    assert EXPECTED[command] in shown[command]
    assert not re.search(r"[a-z一-鿿], [a-z一-鿿]", shown[command]), shown[command]


def test_a_chinese_type_is_counted_with_its_type(shown: dict[str, str]) -> None:
    assert len(re.findall(r"^颜色 +1$", shown["dict stats words.txt --no-builtin"], re.M)) == 1
