"""Run all attacks and print the table "attack | tries | survived".

``python -m tests.reliability`` runs everything on two processes; further arguments go to pytest:
``python -m tests.reliability -k f08``. The exit code is that of pytest: not 0 if one attack was not
survived.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.reliability.attacks import Table

if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    arguments = sys.argv[1:]
    if "-n" not in arguments:
        arguments = ["-n", "2", "--dist", "worksteal", *arguments]
    folder = str(Path(__file__).parent)
    sys.exit(pytest.main([folder, "-q", "-m", "slow or not slow", *arguments], plugins=[Table()]))
