"""What benches made of whole trainings share: results that stay, who is better, the page."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bagformer_cli.config import RunConfig
from bagformer_cli.data.store.store import Store
from bagformer_cli.evaluation.compare import Difference, measure, paired_bootstrap
from bagformer_cli.files import write_text
from bagformer_cli.models.checkpoint import load_model
from bagformer_cli.training.loop import TrainResult
from bagformer_cli.training.run import check_start, new_model, resume_run, start_run

Result = dict[str, Any]


def kept(path: Path, make: Callable[[], Result]) -> Result:
    """What a file holds; it is made and written unless that was done."""
    found = done([path])
    if found:
        return found[0]
    report = make()
    write_text(path, json.dumps(report) + "\n")
    return report


def done(paths: Sequence[Path]) -> list[Result]:
    """The results that are there."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]


def train(config: RunConfig, store: Store, folder: Path) -> tuple[TrainResult, float]:
    """Train, or go on where a run was stopped.

    Returns:
        How it ended, and its CPU seconds; those of a run that went on are reckoned from the steps
        of this sitting, and are those of its training steps where none was left to do.
    """
    check_start(config)
    begun = (folder / "config.yaml").exists()
    state = folder / "last/state.json"
    before = json.loads(state.read_text(encoding="utf-8"))["step"] if state.is_file() else 0
    started = time.process_time()
    if begun:
        outcome = resume_run(config, store, folder)
    else:
        outcome = start_run(config, store, folder, new_model(config))
    spent = time.process_time() - started
    new = outcome.steps - before
    return outcome, spent * outcome.steps / new if new else outcome.seconds


def measured(folder: Path, store: Store) -> Result:
    """Figures of a model folder's fast scorer on the validation split."""
    found = measure(load_model(folder), store.split("valid"))
    return {
        "text_to_image": 100 * found.text_to_image.mean,
        "image_to_text": 100 * found.image_to_text.mean,
        "ranks": found.ranks.tolist(),
        "vectors": [found.title_vectors, found.image_vectors],
        "image_bytes": found.image_bytes,
        "query_ms": found.query_ms,
    }


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds, or the one value."""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def difference(better: Sequence[Result], worse: Sequence[Result]) -> Difference:
    """Paired bootstrap over seeds and queries of results that belong together."""
    return paired_bootstrap(*([np.array(one["ranks"]) for one in side] for side in (better, worse)))


def interval(gap: Difference) -> str:
    """A difference with its 95 % interval."""
    return f"{gap.mean:+.2f} ({gap.lower:+.2f} … {gap.upper:+.2f})"


def write_page(page: Path, name: str, lines: Sequence[str]) -> None:
    """Put lines between a page's marks ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``."""
    begin, end = (f"<!-- {name}: {which} -->" for which in ("begin", "end"))
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(begin, 1)
    _, after = rest.split(end, 1)
    write_text(page, "\n".join([f"{before}{begin}", "", *lines, "", f"{end}{after}"]))
