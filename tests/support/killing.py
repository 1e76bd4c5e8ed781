"""Kill a program at random moments and start it again, as a machine that loses power does."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any


def killed_often(
    command: Callable[[], Sequence[str]], done: Callable[[], int], times: int, *, further: int = 8
) -> int:
    """Start a program ``times`` times, and SIGKILL it each time a little later.

    Args:
        command: What to start this time.
        done: How far it is, any number that grows.
        times: How often.
        further: It is killed when ``done`` has grown by a random number below this, and at most a
            tenth of a second later.

    Returns:
        How often it was killed, and had not ended of its own.
    """
    random = Random(0)
    kills = 0
    for _ in range(times):
        process = subprocess.Popen(command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        target = done() + random.randrange(further)
        deadline = time.monotonic() + 120
        while process.poll() is None and done() <= target and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.1))
        process.kill()
        process.wait()
        kills += process.returncode == -signal.SIGKILL
    return kills


def killed_at_random(
    command: Sequence[str], longest: float, times: int, seed: int, **popen: Any
) -> int:
    """Start a program ``times`` times and SIGKILL its process group at a random moment.

    Args:
        command: The command, the same each time.
        longest: Seconds that an undisturbed run takes; moments are drawn from its last 70 %, since
            a program only imports modules before.
        times: How often.
        seed: Seed of the moments.
        popen: Further arguments of ``subprocess.Popen``.

    Returns:
        How many runs were killed before they ended.
    """
    random = Random(seed)
    kills = 0
    for _ in range(times):
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **popen,
        )
        try:
            process.wait(timeout=random.uniform(0.3 * longest, longest))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
    return kills
