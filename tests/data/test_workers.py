"""Jobs by several processes: in order, errors as they are, and no process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path

import pytest

from bagformer_cli.data.workers import run_jobs
from bagformer_cli.errors import DataError


def square(number: int) -> int:
    return number * number


def fail(number: int) -> int:
    raise DataError("broken", where=f"file:{number}", found="x", hint="mend it")


def linger(path: str) -> None:
    Path(path, str(os.getpid())).touch()
    time.sleep(60)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers: int) -> None:
    assert list(run_jobs(square, range(7), workers)) == [0, 1, 4, 9, 16, 25, 36]
    assert list(run_jobs(square, [], workers)) == []


def test_an_error_keeps_its_parts_on_the_way_from_a_worker() -> None:
    with pytest.raises(DataError) as caught:
        list(run_jobs(fail, [4, 5], 2))
    error = caught.value
    assert (error.where, error.found, error.hint) == ("file:4", "x", "mend it")


def test_who_stops_early_leaves_no_worker_behind() -> None:
    before = set(active_children())
    results = run_jobs(square, range(50), 2)
    assert next(results) == 0
    results.close()
    assert not set(active_children()) - before


def alive(process: int) -> bool:
    try:
        state = (
            Path(f"/proc/{process}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0]
        )
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="asks /proc who is alive")
@pytest.mark.parametrize("how", ["kill -9", "Ctrl-C", "kill -2 of the parent"])
def test_workers_end_with_their_parent(tmp_path: Path, how: str) -> None:
    script = (
        "import signal, sys\n"
        "from bagformer_cli.data.workers import run_jobs\n"
        "from tests.data.test_workers import linger\n"
        "if __name__ == '__main__':\n"
        # a job in the background of a shell, as tests may be, begins with Ctrl-C ignored
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    list(run_jobs(linger, [sys.argv[1]] * 2, 2))\n"
    )
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    seen = tmp_path / "seen"
    seen.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(seen)],
        env=environment,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 50
    while len(list(seen.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = [int(path.name) for path in seen.iterdir()]
    assert len(workers) == 2
    if how == "Ctrl-C":
        os.killpg(parent.pid, signal.SIGINT)  # a terminal's goes to all
    else:
        parent.send_signal(signal.SIGKILL if how == "kill -9" else signal.SIGINT)
    said = parent.communicate(timeout=20)[1]
    assert said.count("Traceback") <= 1  # the parent's own KeyboardInterrupt
    assert "CANCELLED" not in said
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(alive, workers))
