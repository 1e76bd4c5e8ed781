"""Compare the training modes on the demo set, several seeds each (``make methods``).

All methods read the same pre-extracted regions (grid cells of one trained backbone, where the
papers use a detector's boxes) and differ in their mode alone. Trials that are finished are not
repeated; interrupted ones are resumed. The tables go between two marks of docs/methods.md.

    python docs/experiments/methods.py --backbone runs/demo --page docs/methods.md
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from bagformer_cli.config import load_config
from bagformer_cli.data.regions import write_regions
from bagformer_cli.data.store.store import Store
from bagformer_cli.datasets import ensure_store, resolve
from bagformer_cli.evaluation.evaluate import EvaluationOptions, Reranker, evaluate
from bagformer_cli.files import write_text
from bagformer_cli.models.backbone_regions import grid_regions
from bagformer_cli.models.checkpoint import load_model
from bagformer_cli.models.runs import find_checkpoint
from bagformer_cli.text.from_config import build_titles
from trials import (
    Result,
    fixed_step_settings,
    folder_name,
    format_difference,
    load_or_make,
    load_results,
    mean_and_deviation,
    measure_model,
    paired_difference,
    replace_section,
    train,
)

CONFIG = "demo_regions"
VOCAB = "vocab.txt"


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
    """

    mode: str = ""
    teacher: str | None = None
    sets: tuple[str, ...] = ()
    cross_encoder: str | None = None


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
# Distilling on the nearest candidates from the first step makes all scores of an untrained student
# equal, and it does not recover (docs/log.md).
FEW = (
    "distill.candidates=4",
    "distill.teacher_temperature=1.0",
    "distill.activate_distillation_after=0.25",
)

METHODS: dict[str, Method] = {
    "fast": Method("fast", sets=(NCE, SLOWER)),
    "base": Method("base", sets=(NCE,)),
    "inflate": Method("inflate", sets=(CODES, NCE)),
    "shrinktobase": Method("shrinktobase", "inflate", SOFT),
    "shrinktofast": Method("shrinktofast", "shrinktobase", SOFT),
    "shrinktofast, from scratch": Method(
        "shrinktofast", "shrinktobase", (*SOFT, "distill.start_from_teacher=false")
    ),
    "fast, power hinge": Method("fast", sets=(SLOWER,)),
    "base, power hinge": Method("base"),
    "base, power hinge without j = i": Method("base", sets=("objectives.include_diagonal=false",)),
    "inflate, power hinge": Method("inflate", sets=(CODES,)),
    "fast, bag of words": Method(
        "dualnce", sets=("text.encoder=words", "model.shared=null", SLOWER)
    ),
    "captioner": Method("captioner", sets=("model.cross.layers=1",)),
    "fast + captioner rerank": Method(teacher="fast", cross_encoder="captioner"),
    "slowtofast": Method("slowtofast", "captioner", (*FEW, SLOWER)),
    "alignment": Method("alignment_triplet", sets=(NCE, MEAN)),
    "alignment, triplet": Method("alignment_triplet"),
    "alignment, triplet after NCE": Method("alignment_triplet", "alignment", (SLOWER,)),
    "matching, frozen backbone": Method("matching_triplet_finetune", "alignment", (NCE, *SMALL)),
    "matching, frozen backbone, distilled": Method(
        "matching_distill_finetune", "alignment", (*SMALL, *SOFT)
    ),
    "matching, end to end": Method("matching_triplet_e2e", sets=(NCE, *SMALL)),
    "alignment and matching": Method(
        "alignment_and_matching_distill",
        sets=(NCE, MEAN, *SMALL, *SOFT, "distill.activate_distillation_after=0.25"),
    ),
}
# (A, B): a paper reports that A is better than B.
ORDERINGS = (
    ("inflate", "base"),
    ("base", "fast"),
    ("shrinktobase", "base"),
    ("shrinktofast", "fast"),
    ("shrinktofast, from scratch", "fast"),
    ("inflate, power hinge", "base, power hinge"),
    ("base, power hinge", "base, power hinge without j = i"),
    ("fast + captioner rerank", "fast"),
    ("slowtofast", "fast"),
    ("matching, frozen backbone, distilled", "matching, frozen backbone"),
    ("alignment and matching", "matching, end to end"),
    ("alignment", "alignment, triplet"),
)


class Trials:
    """The trials of one output folder.

    Args:
        out: Folder of runs and results.
        data: Dataset folder, with regions files.
        steps: Optimizer steps of each training.
        seconds: CPU seconds of each training. The number of steps then follows from the seconds
            per step of the trial with ``steps``. None: train ``steps`` steps.
    """

    def __init__(self, out: Path, data: Path, steps: int, seconds: float | None) -> None:
        self.out, self.data, self.steps, self.seconds = out, data, steps, seconds

    @cached_property
    def store(self) -> Store:
        """The preprocessed dataset."""
        titles = build_titles(load_config(CONFIG, [f"text.tokenizer={self.data / VOCAB}"]))
        return ensure_store(self.data, titles, workers=1)

    def folder(self, name: str, seed: int) -> Path:
        """Return the run folder of a method and a seed."""
        budget = "steps" if self.seconds is None else "time"
        return self.out / budget / folder_name(name, seed)

    def run(self, name: str, seed: int) -> Result:
        """Train and measure one method, or read its result if there is one."""
        method = METHODS[name]
        run = self._train if method.cross_encoder is None else self._rerank
        return load_or_make(self.folder(name, seed) / "result.json", lambda: run(name, seed))

    def results(self, name: str, seeds: Sequence[int]) -> list[Result]:
        """Read the results of a method that exist."""
        return load_results([self.folder(name, seed) / "result.json" for seed in seeds])

    def _train(self, name: str, seed: int) -> Result:
        method, folder = METHODS[name], self.folder(name, seed)
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
        found = measure_model(folder / "best", self.store)
        return {"steps": outcome.steps, "cpu_seconds": cpu, **found}

    def _steps_of(self, name: str, seed: int) -> int:
        if self.seconds is None:
            return self.steps
        known = Trials(self.out, self.data, self.steps, None).run(name, seed)
        per_second = float(known["steps"]) / float(known["cpu_seconds"])
        return max(1, round(self.seconds * per_second))

    def _rerank(self, name: str, seed: int) -> Result:
        """Choose beta on the test split, then measure on validation as for every other row."""
        method = METHODS[name]
        assert method.teacher is not None
        assert method.cross_encoder is not None
        fast = load_model(self.folder(method.teacher, seed) / "best")
        slow = load_model(self.folder(method.cross_encoder, seed) / "best")
        valid, test = self.store.split("valid"), self.store.split("test")
        config = fast.config.evaluation
        config.candidates = 10
        known = self.run(method.teacher, seed)
        started = time.perf_counter()
        tuning = EvaluationOptions(reranker=Reranker(slow, test), tune_beta=True)
        tuned = evaluate(fast, test, config, tuning)
        assert tuned.beta is not None
        config.beta = tuned.beta
        options = EvaluationOptions(reranker=Reranker(slow, valid))
        found = evaluate(fast, valid, config, options)
        merged = found.stages["merged"]
        return {
            **{key: known[key] for key in ("vectors", "image_bytes", "query_ms", "steps")},
            "cpu_seconds": time.perf_counter() - started,
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


def results_table(trials: Trials, seeds: Sequence[int]) -> list[str]:
    """Return a Markdown table with a row for each method that has at least one result."""
    lines = [
        "| method | seeds | text to image | image to text | vectors (title / image) "
        "| bytes per image | ms per query | steps | CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in METHODS:
        found = trials.results(name, seeds)
        if not found:
            continue
        cells = [
            name,
            str(len(found)),
            mean_and_deviation([one["text_to_image"] for one in found]),
            mean_and_deviation([one["image_to_text"] for one in found]),
            " / ".join(
                f"{statistics.mean(one['vectors'][side] for one in found):.1f}" for side in (0, 1)
            ),
            f"{statistics.mean(one['image_bytes'] for one in found):.0f}",
            f"{statistics.median(one['query_ms'] for one in found):.2f}",
            f"{statistics.mean(one['steps'] for one in found):.0f}",
            f"{max(one['cpu_seconds'] for one in found):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def orderings_table(trials: Trials, seeds: Sequence[int]) -> list[str]:
    """Return a Markdown table of the papers' orderings, over the seeds that both methods have."""
    lines = [
        "| method A | method B | seeds | A − B (95 % interval) | supported |",
        "|---|---|---|---|---|",
    ]
    for a, b in ORDERINGS:
        common = [s for s in seeds if all(trials.results(name, [s]) for name in (a, b))]
        if not common:
            continue
        difference = paired_difference(*(trials.results(name, common) for name in (a, b)))
        supported = "yes" if difference.supported else "**no**"
        cells = [a, b, str(len(common)), format_difference(difference), supported]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Run the trials that are missing, then write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/methods"), help="output folder")
    parser.add_argument("--dataset", default="demo", help="dataset name or folder")
    parser.add_argument(
        "--backbone", type=Path, default=Path("runs/demo"), help="model that makes the regions"
    )
    parser.add_argument("--steps", type=int, default=400, help="optimizer steps of each training")
    parser.add_argument(
        "--seconds", type=float, help="measure again at this many CPU seconds for each training"
    )
    parser.add_argument("--seeds", default="0,1,2", help="separated by ,")
    parser.add_argument("--methods", help="names separated by ; (default: all)")
    parser.add_argument("--page", type=Path, help="page that gets the tables")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = resolve(options.dataset).path
    prepare(data, options.backbone)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    names = options.methods.split(";") if options.methods else list(METHODS)
    budgets = {"Equal steps:": Trials(options.out, data, options.steps, None)}
    if options.seconds is not None:
        heading = f"Equal CPU time ({options.seconds:g} s):"
        budgets[heading] = Trials(options.out, data, options.steps, options.seconds)
    lines: list[str] = []
    for heading, trials in budgets.items():
        for seed in seeds:
            for name in names:
                found = trials.run(name, seed)
                print(name, seed, *(f"{found[k]:.2f}" for k in ("text_to_image", "cpu_seconds")))
        tables = [*results_table(trials, seeds), "", *orderings_table(trials, seeds)]
        lines += [heading, "", *tables, ""]
    lines.pop()
    if options.page is not None:
        replace_section(options.page, "methods", lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
