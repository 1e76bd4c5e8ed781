"""Functions that the experiments share: run trials once, compare their results, write tables.

A *trial* trains and measures one configuration with one seed. Its result is a JSON file, so an
experiment that was interrupted continues with the trials that are missing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bagformer_cli.config import RunConfig
from bagformer_cli.data.store.store import Store
from bagformer_cli.errors import InputError
from bagformer_cli.evaluation.compare import Difference, measure, paired_bootstrap
from bagformer_cli.files import write_text
from bagformer_cli.models.checkpoint import load_model
from bagformer_cli.training.initial_model import check_start, new_model
from bagformer_cli.training.run import resume_run, start_run
from bagformer_cli.training.train_result import TrainResult
from chinese import translate_sections, twin_of

Result = dict[str, Any]
RESULT = "result.json"


class TrialFolder(ABC):
    """A folder of trials: each has a folder in it, with the result and what was trained.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, name: str, seed: int) -> Path:
        """Return the folder of one trial."""
        return self.root / folder_name(name, seed)

    def run(self, name: str, seed: int) -> Result:
        """Train and measure one trial, or read its result if it is finished."""
        path = self.folder(name, seed) / RESULT
        return load_or_make(path, lambda: self.measure(name, seed))

    def results(self, name: str, seeds: Sequence[int]) -> list[Result]:
        """Read the results of one configuration for the seeds that are finished."""
        return load_results([self.folder(name, seed) / RESULT for seed in seeds])

    def finished(self, names: Iterable[str], seeds: Sequence[int]) -> list[int]:
        """Return the seeds for which all these configurations have a result."""
        wanted = list(names)
        return [seed for seed in seeds if all(self.results(name, [seed]) for name in wanted)]

    @abstractmethod
    def measure(self, name: str, seed: int) -> Result:
        """Train and measure one trial, whether or not it has a result."""


def folder_name(name: str, seed: int) -> str:
    """Return the folder name of a trial: ``name`` with ``_`` for other characters, then the seed.

    >>> folder_name("ITC, MLM", 2)
    'ITC__MLM-2'
    """
    return f"{''.join(c if c.isalnum() else '_' for c in name)}-{seed}"


def add_names(parser: argparse.ArgumentParser, option: str, known: Collection[str]) -> None:
    """Add an option that chooses some of the known names, separated by semicolons."""
    parser.add_argument(
        option,
        type=names_among(known),
        default=list(known),
        metavar="NAMES",
        help="names separated by semicolons (default: all)",
    )


def names_among(known: Collection[str]) -> Callable[[str], list[str]]:
    """Return a ``type`` for argparse that splits names at semicolons and refuses unknown ones."""

    def split(text: str) -> list[str]:
        names = [name.strip() for name in text.split(";")]
        unknown = next((name for name in names if name not in known), None)
        if unknown is not None:
            raise argparse.ArgumentTypeError(f"{unknown!r} is none of: {'; '.join(known)}")
        return names

    return split


def fixed_step_settings(data: Path, seed: int, steps: int, save_every: int) -> list[str]:
    """Return ``--set`` items for exactly ``steps`` steps, with an evaluation before and after."""
    return [
        f"seed={seed}",
        f"data.dataset={data}",
        "data.workers=0",
        "training.epochs=1000",
        "training.evaluate_every=100000",
        f"training.save_every={save_every}",
        f"training.max_steps={steps}",
        f"training.schedule_steps={steps}",
    ]


def load_or_make(path: Path, make: Callable[[], Result]) -> Result:
    """Read a result file; if it does not exist, call ``make`` and write its result there."""
    found = load_results([path])
    if found:
        return found[0]
    result = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(result) + "\n")
    return result


def load_results(paths: Sequence[Path]) -> list[Result]:
    """Read the result files that exist; skip the others."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]


def train(config: RunConfig, store: Store, folder: Path) -> tuple[TrainResult, float]:
    """Start a training run, or resume it if ``folder`` already holds one.

    Returns:
        The result, and the CPU seconds of all its steps. After a resume only the steps of this
        process were timed, so their seconds are scaled to all steps. If no step was left to do,
        the seconds are the wall time that the run recorded.

    Raises:
        KeyboardInterrupt: The run was stopped before its last step.
    """
    check_start(config)
    exists = (folder / "config.yaml").exists()
    state = folder / "last/state.json"
    steps_before = json.loads(state.read_text(encoding="utf-8"))["step"] if state.is_file() else 0
    started = time.process_time()
    if exists:
        outcome = resume_run(config, store, folder)
    else:
        outcome = start_run(config, store, folder, new_model(config))
    if outcome.interrupted:
        raise KeyboardInterrupt  # not a result: the next call continues the run
    spent = time.process_time() - started
    new_steps = outcome.steps - steps_before
    return outcome, spent * outcome.steps / new_steps if new_steps else outcome.seconds


def measure_model(folder: Path, store: Store, split: str = "valid") -> Result:
    """Evaluate a model folder on a split, by its vectors alone.

    Returns:
        ``text_to_image`` and ``image_to_text``: mean recall in percent; ``ranks``: rank of each
        query's best image, from 0; ``vectors``: mean per title and per image; ``image_bytes``:
        mean per image; ``query_ms``: median milliseconds of one search.
    """
    found = measure(load_model(folder), store.split(split))
    return {
        "text_to_image": 100 * found.text_to_image.mean,
        "image_to_text": 100 * found.image_to_text.mean,
        "ranks": found.ranks.tolist(),
        "vectors": [found.title_vectors, found.image_vectors],
        "image_bytes": found.image_bytes,
        "query_ms": found.query_ms,
    }


def mean_and_deviation(values: Sequence[float]) -> str:
    """Format the mean and standard deviation over seeds; a single value has no deviation.

    >>> mean_and_deviation([60.0, 70.0])
    '65.0 ± 7.1'
    """
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def paired_difference(a: Sequence[Result], b: Sequence[Result]) -> Difference:
    """Compute the difference A − B of mean recall by a bootstrap over seeds and queries.

    Args:
        a: Results of A, one a seed.
        b: Results of B for the same seeds in the same order.
    """
    return paired_bootstrap(*([np.array(one["ranks"]) for one in side] for side in (a, b)))


def format_difference(difference: Difference) -> str:
    """Format a difference with its 95 % interval."""
    return f"{difference.mean:+.2f} ({difference.lower:+.2f} … {difference.upper:+.2f})"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table.

    >>> markdown_table(["a", "b"], [["1", "2"]])
    ['| a | b |', '|---|---|', '| 1 | 2 |']
    """
    lines = [f"| {' | '.join(cells)} |" for cells in (header, *rows)]
    return [lines[0], "|---" * len(header) + "|", *lines[1:]]


def replace_section(page: Path, name: str, lines: Sequence[str]) -> None:
    """Replace the lines of a page from ``<!-- NAME: begin -->`` to ``<!-- NAME: end -->``.

    The Chinese twin of the page, if there is one, gets the same lines in Chinese.

    Raises:
        InputError: The page does not have both marks.
    """
    begin, end = (f"<!-- {name}: {which} -->" for which in ("begin", "end"))
    text = page.read_text(encoding="utf-8")
    if begin not in text or end not in text:
        raise InputError(
            "The page has no place for the tables.", where=page, expected=f"{begin} … {end}"
        )
    before, rest = text.split(begin, 1)
    _, after = rest.split(end, 1)
    write_text(page, "\n".join([f"{before}{begin}", "", *lines, "", f"{end}{after}"]))
    if twin_of(page).exists():
        write_text(twin_of(page), translate_sections(page))
