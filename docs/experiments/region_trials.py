"""Trials on the pre-extracted regions of one backbone, for the experiments that compare modes.

``methods.py``, ``equal_steps.py`` and ``slow_models.py`` import it. All methods read the same
regions (grid cells of one trained backbone, where the papers use a detector's boxes) and differ in
their mode alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from bagformer_cli.config import load_config
from bagformer_cli.data.regions import write_regions
from bagformer_cli.data.store.store import Store
from bagformer_cli.datasets import ensure_store
from bagformer_cli.evaluation.evaluate import EvaluationOptions, Reranker, evaluate
from bagformer_cli.files import write_text
from bagformer_cli.models.backbone_regions import grid_regions
from bagformer_cli.models.checkpoint import load_model
from bagformer_cli.models.runs import find_checkpoint
from bagformer_cli.text.from_config import build_titles
from trials import (
    Result,
    TrialFolder,
    fixed_step_settings,
    mean_and_deviation,
    measure_model,
    train,
)

CONFIG = "demo_regions"
VOCAB = "vocab.txt"
OTHER_SPLIT = {"valid": "test", "test": "valid"}

CODES = "model.codes=8"
NCE = "objectives.loss=nce"
MEAN = "objectives.late_scale=mean"
# Single-vector models, and students that start from their teacher, learn less at the learning
# rate of 2e-3 that suits multi-vector models from scratch (docs/log.md).
SLOWER = "training.learning_rate=1.0e-3"
SMALL = ("model.head.feed_forward=192", "model.head.dropout=0", SLOWER)
# Demo scores are means of cosines, a tenth of the paper's sums. At the paper's temperature of 1/2
# the teacher's softmax would be almost uniform.
SOFT = ("distill.teacher_temperature=0.04", "distill.student_temperature=0.04", SLOWER)
# A student that is distilled on its nearest candidates from the first step learns to give all pairs
# the same score, and it does not recover (docs/log.md). So distillation starts after a quarter.
FEW = (
    "distill.candidates=4",
    "distill.teacher_temperature=1.0",
    "distill.activate_distillation_after=0.25",
)


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Attributes:
        mode: Training mode (``configs/modes/``).
        teacher: Name of the method whose model is the teacher or, in modes without
            distillation, the checkpoint to start from.
        sets: ``--set`` items applied after the mode.
        cross_encoder: For a row that trains nothing: the method whose cross-encoder reranks the
            candidates of ``teacher``.
        stages: Multiple of the steps of a trial. N trains as long as a chain of N models.
    """

    mode: str = ""
    teacher: str | None = None
    sets: tuple[str, ...] = ()
    cross_encoder: str | None = None
    stages: int = 1

    @property
    def earlier(self) -> list[str]:
        """The methods that are trained before this one; its price includes their steps."""
        return [name for name in (self.teacher, self.cross_encoder) if name is not None]


RESULT_COLUMNS = [
    "method",
    "seeds",
    "text to image",
    "image to text",
    "vectors (title / image)",
    "bytes per image",
    "ms per query",
    "steps",
    "CPU s",
]


class Trials(TrialFolder):
    """The trials of one output folder.

    Args:
        out: Output folder: trials go to ``steps/`` in it, those with ``seconds`` to ``time/``.
        data: Dataset folder, with regions files.
        methods: The methods by name; a method comes after those in its ``earlier``.
        steps: Optimizer steps of each training.
        seconds: CPU seconds of each training. The number of steps then follows from the seconds
            per step of the trial with ``steps``. None: train ``steps`` steps.
        split: The split that is measured. Beta of a reranker is chosen on the other of ``valid``
            and ``test``.
    """

    def __init__(
        self,
        out: Path,
        data: Path,
        methods: Mapping[str, Method],
        steps: int,
        seconds: float | None = None,
        split: str = "valid",
    ) -> None:
        super().__init__(out / ("steps" if seconds is None else "time"))
        self.out, self.data, self.methods = out, data, methods
        self.steps, self.seconds, self.split = steps, seconds, split

    @cached_property
    def store(self) -> Store:
        """The preprocessed dataset."""
        titles = build_titles(load_config(CONFIG, [f"text.tokenizer={self.data / VOCAB}"]))
        return ensure_store(self.data, titles, workers=1)

    def measure(self, name: str, seed: int) -> Result:
        """Train and measure one method; a reranked one only measures."""
        reranks = self.methods[name].cross_encoder is not None
        return self._rerank(name, seed) if reranks else self._train(name, seed)

    def price(self, name: str, seed: int) -> tuple[int, float]:
        """Add up the steps and CPU seconds of a method and of all that are trained before it."""
        chain, waiting = set(), [name]
        while waiting:
            chain.add(waiting[-1])
            waiting += self.methods[waiting.pop()].earlier
        found = [self.results(one, [seed])[0] for one in sorted(chain)]
        return sum(one["steps"] for one in found), sum(one["cpu_seconds"] for one in found)

    def _train(self, name: str, seed: int) -> Result:
        method, folder = self.methods[name], self.folder(name, seed)
        items = fixed_step_settings(self.data, seed, self._steps_of(name, seed), save_every=50)
        items.append(f"text.tokenizer={self.data / VOCAB}")
        config = load_config(CONFIG, [*items, *method.sets], method.mode)
        if method.teacher is not None:
            teacher = str(self.folder(method.teacher, seed) / "best")
            if config.distill is None:
                config.training.checkpoint = teacher
            else:
                config.distill.teacher = teacher
        outcome, cpu = train(config, self.store, folder)
        found = measure_model(folder / "best", self.store, self.split)
        return {"steps": outcome.steps, "cpu_seconds": cpu, **found}

    def _steps_of(self, name: str, seed: int) -> int:
        if self.seconds is None:
            return self.methods[name].stages * self.steps
        known = Trials(self.out, self.data, self.methods, self.steps).run(name, seed)
        per_second = float(known["steps"]) / float(known["cpu_seconds"])
        return max(1, round(self.seconds * per_second))

    def _rerank(self, name: str, seed: int) -> Result:
        """Choose beta on the other split, then rerank and measure this one."""
        method = self.methods[name]
        assert method.teacher is not None
        assert method.cross_encoder is not None
        fast = load_model(self.folder(method.teacher, seed) / "best")
        slow = load_model(self.folder(method.cross_encoder, seed) / "best")
        measured, other = (self.store.split(one) for one in (self.split, OTHER_SPLIT[self.split]))
        config = fast.config.evaluation
        known = self.run(method.teacher, seed)
        started = time.process_time()
        config.candidates = 10
        tuning = EvaluationOptions(reranker=Reranker(slow, other), tune_beta=True)
        tuned = evaluate(fast, other, config, tuning)
        assert tuned.beta is not None
        config.beta = tuned.beta
        middle = time.process_time()
        found = evaluate(
            fast, measured, config, EvaluationOptions(reranker=Reranker(slow, measured))
        )
        ended = time.process_time()
        merged = found.stages["merged"]
        lists = len(measured.query_ids) + len(measured.image_ids)
        return {
            **{key: known[key] for key in ("vectors", "image_bytes")},
            "steps": 0,
            "cpu_seconds": ended - started,
            "query_ms": known["query_ms"] + 1000 * (ended - middle) / lists,
            "beta": tuned.beta,
            "text_to_image": 100 * merged["text_to_image"].mean,
            "image_to_text": 100 * merged["image_to_text"].mean,
            "ranks": found.ranks["merged/text_to_image"].tolist(),
        }


def prepare(data: Path, backbone: Path) -> None:
    """Write the regions of every split and a vocabulary of the tokens in training titles.

    Args:
        data: Dataset folder; the files are written into it unless they exist.
        backbone: Model folder whose grid cells become the regions.
    """
    model = load_model(find_checkpoint(backbone))
    store = ensure_store(data, model.titles, workers=1)
    for name in store.splits:
        path = data / f"MR_{name}_regions.tsv"
        if not path.is_file():
            write_regions(path, grid_regions(model, store.split(name)))
    if not (data / VOCAB).is_file():
        tokenizer = model.titles.tokenizer
        ids = set(np.unique(store.split("train").tokens.ids).tolist())
        ids |= {tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id}
        ids |= {tokenizer.unk_id, tokenizer.mask_id}
        words = [word for number, word in enumerate(tokenizer.vocabulary) if number in ids]
        write_text(data / VOCAB, "".join(f"{word}\n" for word in words))


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that methods.py and slow_models.py share, so that they share trials."""
    parser.add_argument("--out", type=Path, default=Path("runs/methods"), help="output folder")
    parser.add_argument("--dataset", default="demo", help="dataset name or folder")
    parser.add_argument(
        "--backbone",
        type=Path,
        default=Path("runs/demo"),
        help="model or run folder; its grid cells are the regions (default: %(default)s)",
    )
    parser.add_argument(
        "--steps", type=int, default=400, help="optimizer steps of each training (default: 400)"
    )
    parser.add_argument("--page", type=Path, help="Markdown page whose tables are replaced")


def result_cells(name: str, found: Sequence[Result]) -> list[str]:
    """Return a method's cells of ``RESULT_COLUMNS``.

    Args:
        name: The method.
        found: Its results, at least one.
    """
    vectors = [statistics.mean(one["vectors"][side] for one in found) for side in (0, 1)]
    return [
        name,
        str(len(found)),
        mean_and_deviation([one["text_to_image"] for one in found]),
        mean_and_deviation([one["image_to_text"] for one in found]),
        " / ".join(f"{count:.1f}" for count in vectors),
        f"{statistics.mean(one['image_bytes'] for one in found):.0f}",
        f"{statistics.median(one['query_ms'] for one in found):.2f}",
        f"{statistics.mean(one['steps'] for one in found):.0f}",
        f"{statistics.median(one['cpu_seconds'] for one in found):.0f}",
    ]
