"""Kill a program at random moments and start it again, as a machine that loses power does."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from random import Random

from tests.support.warm import Started


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


def killed_at_random(start: Callable[[], Started], longest: float, times: int, seed: int) -> int:
    """Start a program ``times`` times and SIGKILL its process group at a random moment.

    Args:
        start: Starts the program, the same each time.
        longest: Seconds that an undisturbed run takes: moments are drawn between 0.1 of it, when
            a program has imported its modules, and the end.
        times: How often.
        seed: Seed of the moments.

    Returns:
        How many runs were killed before they ended.
    """
    random = Random(seed)
    kills = 0
    for _ in range(times):
        process = start()
        try:
            process.wait(timeout=random.uniform(0.1 * longest, longest))
        except subprocess.TimeoutExpired:
            process.kill()
            kills += 1
    return kills
