"""A signal that asks a command to end gives the exit code of Ctrl-C, wherever it arrives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os
import sys
from bagformer_cli.cli.signals import signals_interrupt
try:
    with signals_interrupt():
        exec("import os, signal; os.kill(os.getpid(), signal.{name}); list(range(10**6))")
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_inside_exec_leaves_the_exit_code_to_the_command(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "stopped.py").write_text(PROGRAM.format(name=name))
    command = [sys.executable, "-m", "stopped"]  # as `python -m`, which treats it differently
    assert subprocess.run(command, cwd=tmp_path, timeout=60).returncode == 130
