"""``make methods``: every way of teaching on the demo set, several seeds each, as one table.

All ways read the same pre-extracted regions (cells of one trained backbone, as the papers read a
detector's) and differ in mode alone. A run that is done is not done again; one that was stopped
goes on. The table and the orderings go into docs/methods.md between two marks.

    python -m bagformer_cli.bench.methods --out runs/methods --backbone runs/demo
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bagformer_cli.bench.trials import (
    Result,
    difference,
    done,
    interval,
    kept,
    measured,
    spread,
    train,
    write_page,
)
from bagformer_cli.config import load_config
from bagformer_cli.data.regions import write_regions
from bagformer_cli.data.store.split import Split
from bagformer_cli.data.store.store import Store
from bagformer_cli.datasets import ensure_store, resolve
from bagformer_cli.evaluation.evaluate import Slow, evaluate
from bagformer_cli.files import write_text
from bagformer_cli.models.backbone_regions import cell_regions
from bagformer_cli.models.checkpoint import find_checkpoint, load_model
from bagformer_cli.text.from_config import build_titles

CONFIG = "demo_regions"
VOCAB = "vocab.txt"


@dataclass(frozen=True)
class Way:
    """One row of the table.

    Attributes:
        mode: Its mode.
        teacher: The way that teaches it or brings its weights.
        sets: Settings beside the mode's.
        slow: For a row without training of its own: the way whose slow scorer reranks ``teacher``.
    """

    mode: str = ""
    teacher: str | None = None
    sets: tuple[str, ...] = ()
    slow: str | None = None


CODES = "model.codes=8"
NCE = "objectives.loss=nce"
MEAN = "objectives.late_scale=mean"
SLOWER = "training.learning_rate=1.0e-3"
"""One vector learns less at the 2e-3 that suits many (docs/log.md); so does who begins taught."""
SMALL = ("model.head.feed_forward=192", "model.head.dropout=0", SLOWER)
SOFT = ("distill.teacher_temperature=0.04", "distill.student_temperature=0.04", SLOWER)
"""Demo scores are means of cosines, a tenth of the paper's sums: its 1/2 would be no teacher."""
FEW = (
    "distill.candidates=4",
    "distill.teacher_temperature=1.0",
    "distill.activate_distillation_after=0.25",
)
"""A teacher's word on the nearest candidates, before the student knows anything, makes them all
alike, and it never learns (docs/log.md)."""

WAYS: dict[str, Way] = {
    "fast": Way("fast", sets=(NCE, SLOWER)),
    "base": Way("base", sets=(NCE,)),
    "inflate": Way("inflate", sets=(CODES, NCE)),
    "shrinktobase": Way("shrinktobase", "inflate", SOFT),
    "shrinktofast": Way("shrinktofast", "shrinktobase", SOFT),
    "shrinktofast, from scratch": Way(
        "shrinktofast", "shrinktobase", (*SOFT, "distill.start_from_teacher=false")
    ),
    "fast, power hinge": Way("fast", sets=(SLOWER,)),
    "base, power hinge": Way("base"),
    "base, power hinge without j = i": Way("base", sets=("objectives.include_diagonal=false",)),
    "inflate, power hinge": Way("inflate", sets=(CODES,)),
    "fast, bag of words": Way("dualnce", sets=("text.encoder=words", "model.shared=null", SLOWER)),
    "captioner": Way("captioner", sets=("model.cross.layers=1",)),
    "fast + captioner rerank": Way(teacher="fast", slow="captioner"),
    "slowtofast": Way("slowtofast", "captioner", (*FEW, SLOWER)),
    "alignment": Way("alignment_triplet", sets=(NCE, MEAN)),
    "alignment, triplet": Way("alignment_triplet"),
    "alignment, triplet after NCE": Way("alignment_triplet", "alignment", (SLOWER,)),
    "matching, frozen backbone": Way("matching_triplet_finetune", "alignment", (NCE, *SMALL)),
    "matching, frozen backbone, distilled": Way(
        "matching_distill_finetune", "alignment", (*SMALL, *SOFT)
    ),
    "matching, end to end": Way("matching_triplet_e2e", sets=(NCE, *SMALL)),
    "alignment and matching": Way(
        "alignment_and_matching_distill",
        sets=(NCE, MEAN, *SMALL, *SOFT, "distill.activate_distillation_after=0.25"),
    ),
}
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


class Bench:
    """The runs of one folder.

    Args:
        out: Where runs and results are kept.
        data: The dataset, with regions files.
        steps: Optimizer steps of each run.
        seconds: CPU seconds of each run in place of ``steps``, from the seconds a step took.
    """

    def __init__(self, out: Path, data: Path, steps: int, seconds: float | None) -> None:
        self.out, self.data, self.steps, self.seconds = out, data, steps, seconds
        self._store: Store | None = None

    def folder(self, name: str, seed: int) -> Path:
        """The run folder of a way and a seed."""
        plain = "".join(c if c.isalnum() else "_" for c in name)
        return self.out / ("steps" if self.seconds is None else "time") / f"{plain}-{seed}"

    def run(self, name: str, seed: int) -> Result:
        """Train and measure, unless that was done."""
        folder, way = self.folder(name, seed), WAYS[name]
        return kept(
            folder / "result.json",
            lambda: self._rerank(way, seed, folder) if way.slow else self._train(name, seed),
        )

    def _train(self, name: str, seed: int) -> Result:
        way, folder = WAYS[name], self.folder(name, seed)
        steps = self._steps_of(name, seed)
        items = [
            f"seed={seed}",
            f"data.dataset={self.data}",
            f"text.tokenizer={self.data / VOCAB}",
            "data.workers=0",
            "training.epochs=1000",
            "training.evaluate_every=100000",
            "training.save_every=50",
            f"training.max_steps={steps}",
            f"training.schedule_steps={steps}",
            *way.sets,
        ]
        config = load_config(CONFIG, items, way.mode)
        if way.teacher is not None:
            teacher = str(self.folder(way.teacher, seed) / "best")
            if config.distill is None:
                config.training.checkpoint = teacher
            else:
                config.distill.teacher = teacher
        outcome, cpu = train(config, self.store, folder)
        found = measured(folder / "best", self.store)
        return {"steps": outcome.steps, "cpu_seconds": cpu, **found}

    def _steps_of(self, name: str, seed: int) -> int:
        if self.seconds is None:
            return self.steps
        known = Bench(self.out, self.data, self.steps, None).run(name, seed)
        per_second = float(known["steps"]) / float(known["cpu_seconds"])
        return max(1, round(self.seconds * per_second))

    def _rerank(self, way: Way, seed: int, folder: Path) -> Result:
        """Beta is chosen on the test split, the figures come from validation like all others."""
        assert way.teacher is not None
        assert way.slow is not None
        fast = load_model(self.folder(way.teacher, seed) / "best")
        judge = load_model(self.folder(way.slow, seed) / "best")
        split: Split = self.store.split("valid")
        held = self.store.split("test")
        config = fast.config.evaluation
        config.candidates = 10
        known = self.run(way.teacher, seed)
        started = time.perf_counter()
        tuned = evaluate(fast, held, config, slow=Slow(judge, held), tune_beta=True)
        assert tuned.beta is not None
        config.beta = tuned.beta
        found = evaluate(fast, split, config, slow=Slow(judge, split))
        both = found.stages["merged"]
        return {
            **{key: known[key] for key in ("vectors", "image_bytes", "query_ms", "steps")},
            "cpu_seconds": time.perf_counter() - started,
            "beta": tuned.beta,
            "text_to_image": 100 * both["text_to_image"].mean,
            "image_to_text": 100 * both["image_to_text"].mean,
            "ranks": found.ranks["merged/text_to_image"].tolist(),
        }

    @property
    def store(self) -> Store:
        """The preprocessed dataset."""
        if self._store is None:
            titles = build_titles(load_config(CONFIG, [f"text.tokenizer={self.data / VOCAB}"]))
            self._store = ensure_store(self.data, titles, workers=1)
        return self._store


def prepare(data: Path, backbone: Path) -> None:
    """Regions of every split from a trained backbone, and a vocabulary of the titles' tokens."""
    model = load_model(find_checkpoint(backbone))
    store = ensure_store(data, model.titles, workers=1)
    for name in store.splits:
        path = data / f"MR_{name}_regions.tsv"
        if not path.is_file():
            write_regions(path, cell_regions(model, store.split(name)))
    if not (data / VOCAB).is_file():
        words = model.titles.tokenizer
        used = set(np.unique(store.split("train").tokens.ids).tolist())
        special = {words.pad_id, words.cls_id, words.sep_id, words.unk_id, words.mask_id}
        kept = [word for number, word in enumerate(words.vocabulary) if number in used | special]
        write_text(data / VOCAB, "".join(f"{word}\n" for word in kept))


def table(bench: Bench, seeds: Sequence[int]) -> list[str]:
    """A row for each way that is done for at least one seed."""
    lines = [
        "| way | seeds | text to image | image to text | vectors (title / image) | bytes an image "
        "| ms a query | steps | CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in WAYS:
        found = _done(bench, name, seeds)
        if not found:
            continue
        cells = [
            name,
            str(len(found)),
            spread([one["text_to_image"] for one in found]),
            spread([one["image_to_text"] for one in found]),
            " / ".join(
                f"{statistics.mean(one['vectors'][side] for one in found):.1f}" for side in (0, 1)
            ),
            f"{statistics.mean(one['image_bytes'] for one in found):.0f}",
            f"{statistics.median(one['query_ms'] for one in found):.2f}",
            f"{statistics.mean(one['steps'] for one in found):.0f}",
            f"{max(one['cpu_seconds'] for one in found):.0f}",  # the dearest seed
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def orderings(bench: Bench, seeds: Sequence[int]) -> list[str]:
    """Which of the papers' orderings hold, over the seeds that both ways have."""
    lines = [
        "| better, it is said | than | seeds | difference (95 %) | holds |",
        "|---|---|---|---|---|",
    ]
    for better, worse in ORDERINGS:
        common = [s for s in seeds if all(_done(bench, way, [s]) for way in (better, worse))]
        if not common:
            continue
        gap = difference(*(_done(bench, name, common) for name in (better, worse)))
        cells = [
            better,
            worse,
            str(len(common)),
            interval(gap),
            "yes" if gap.holds else "**no**",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _done(bench: Bench, name: str, seeds: Sequence[int]) -> list[Result]:
    return done([bench.folder(name, seed) / "result.json" for seed in seeds])


def main() -> None:
    """Run what is not done yet, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/methods"))
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--backbone", type=Path, default=Path("runs/demo"))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seconds", type=float, help="equal CPU seconds in place of steps")
    parser.add_argument("--seeds", default="0,1,2", help="separated by ,")
    parser.add_argument("--ways", help="some of them, separated by ;")
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = resolve(options.dataset).path
    prepare(data, options.backbone)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    names = options.ways.split(";") if options.ways else list(WAYS)
    benches = [Bench(options.out, data, options.steps, None)]
    if options.seconds is not None:
        benches.append(Bench(options.out, data, options.steps, options.seconds))
    for bench in benches:
        for seed in seeds:
            for name in names:
                found = bench.run(name, seed)
                print(name, seed, *(f"{found[k]:.2f}" for k in ("text_to_image", "cpu_seconds")))
    lines = ["Equal steps:", "", *table(benches[0], seeds), "", *orderings(benches[0], seeds)]
    if len(benches) > 1:
        lines += ["", f"Equal CPU time ({options.seconds:g} s):", ""]
        lines += [*table(benches[1], seeds), "", *orderings(benches[1], seeds)]
    if options.page is not None:
        write_page(options.page, "methods", lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
