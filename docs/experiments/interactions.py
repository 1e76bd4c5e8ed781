"""Isolate what decides between one vector, one per token and one per bag (docs/methods.md).

Every arm differs in one setting. It is pretrained on 32 pixels with its own losses, then trained on
64 pixels, for the same numbers of steps. A seed decides the same weights and batches in all arms,
so that arms are compared seed by seed. Trials that are finished are not repeated; interrupted ones
are resumed. Then every finished trial is measured on the named sets of the benchmark's test split,
which no setting was chosen on, and two tables are printed.

    python docs/experiments/interactions.py --seeds 5
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch

from bagformer_cli.config import RunConfig, load_config
from bagformer_cli.data.muge import MugeFolder
from bagformer_cli.data.query_sets import read_sets
from bagformer_cli.data.store.store import Store
from bagformer_cli.datasets import ensure_store, resolve
from bagformer_cli.demo import write_benchmark
from bagformer_cli.evaluation.compare import hits_per_query, measure, t_interval
from bagformer_cli.evaluation.sources import OwnModel
from bagformer_cli.models.checkpoint import load_model
from bagformer_cli.text.from_config import build_titles
from trials import (
    Result,
    fixed_step_settings,
    folder_name,
    format_difference,
    load_or_make,
    measure_model,
    train,
)

BOTH = ("objectives.itc=1", "model.image_first=true")
LATE_ALONE = "objectives.itc=0"
CELLS_ALONE = "model.image_first=false"

# Settings of each arm, on top of the demo's without its matching head.
ARMS: dict[str, tuple[str, ...]] = {
    "cls": ("model.interaction=cls",),
    "bagwise": BOTH,
    "bagwise, no ITC, cells alone": (LATE_ALONE, CELLS_ALONE),
    "tokenwise, no ITC, cells alone": ("model.interaction=tokenwise", LATE_ALONE, CELLS_ALONE),
    "bagwise, no ITC": (LATE_ALONE, "model.image_first=true"),
    "bagwise, ITC 0.1": ("objectives.itc=0.1", "model.image_first=true"),
    "bagwise, own projection": (*BOTH, "model.single_projection=own"),
    "bagwise, cells alone": ("objectives.itc=1", CELLS_ALONE),
    "bagwise, no clipping": (*BOTH, "training.clip=null"),
    "bagwise, own temperature": (*BOTH, "objectives.own_temperature=true"),
}
COMMON = ("objectives.itm=0", "model.cross=null", "evaluation.candidates=0")
SMALL_IMAGES = ("training.min_learning_rate=2e-3", "image.size=32")
COMPARED = (
    ("bagwise, no ITC, cells alone", "cls"),
    ("bagwise, no ITC", "cls"),
    ("bagwise", "cls"),
    ("bagwise, no ITC", "bagwise"),
    ("bagwise, ITC 0.1", "bagwise"),
    ("bagwise, own projection", "bagwise"),
    ("bagwise, own temperature", "bagwise"),
    ("bagwise, no clipping", "bagwise"),
    ("bagwise, cells alone", "bagwise"),
    ("bagwise, no ITC", "bagwise, no ITC, cells alone"),
    ("bagwise, no ITC, cells alone", "tokenwise, no ITC, cells alone"),
)
PRETRAINING_SEED_OFFSET = 1000  # pretraining draws other batches than fine-tuning


class Trials:
    """The trials of one output folder.

    Args:
        out: Folder of runs and results.
        dataset: Dataset name or folder.
        steps: Numbers of optimizer steps on 32 and on 64 pixels.
        pool: Number of images of the benchmark's test split.
    """

    def __init__(self, out: Path, dataset: str, steps: tuple[int, int], pool: int) -> None:
        self.out, self.data, self.steps = out, resolve(dataset).path, steps
        self.pool = pool
        titles = build_titles(load_config("demo", [f"data.dataset={self.data}"]))
        self.store: Store = ensure_store(self.data, titles, workers=1)

    def folder(self, arm: str, seed: int) -> Path:
        """Return the folder of an arm and a seed."""
        return self.out / folder_name(arm, seed)

    def run(self, arm: str, seed: int) -> Result:
        """Train both stages and measure, or read the result if there is one."""
        path = self.folder(arm, seed) / "result.json"
        return load_or_make(path, lambda: self._train(arm, seed))

    def finished(self, arm: str, seeds: range) -> dict[int, Path]:
        """Return the model folders of an arm that are trained, by seed."""
        folders = {seed: self.folder(arm, seed) for seed in seeds}
        return {
            seed: folder / "run/last"
            for seed, folder in folders.items()
            if (folder / "result.json").is_file()
        }

    def by_set(self, model: Path) -> Result:
        """Measure a model on the benchmark's test split, or read the result if there is one."""
        path = model.parent.parent / f"sets-{self.pool}.json"
        return load_or_make(path, lambda: self._by_set(model))

    def _by_set(self, model: Path) -> Result:
        folder = MugeFolder(self.benchmark)
        source = OwnModel(load_model(model))
        split = source.open(folder, "test")
        ranks = measure(source, split).ranks
        row = {number: position for position, number in enumerate(split.query_ids.tolist())}
        return {
            name: 100 * float(hits_per_query(ranks[[row[q] for q in one.queries]]).mean())
            for name, one in read_sets(folder.path, "test").items()
        }

    @cached_property
    def benchmark(self) -> Path:
        """The benchmark; drawn at first use."""
        folder = self.out / f"benchmark-{self.pool}"
        if not folder.is_dir():
            write_benchmark(folder, images=self.pool, workers=1)
        return folder

    def _config(self, settings: tuple[str, ...], seed: int, steps: int) -> RunConfig:
        items = fixed_step_settings(self.data, seed, steps, save_every=60)
        return load_config("demo", [*items, *COMMON, *settings])

    def _train(self, arm: str, seed: int) -> Result:
        folder, settings = self.folder(arm, seed), ARMS[arm]
        before, after = self.steps
        small = (*settings, *SMALL_IMAGES)
        first = self._config(small, seed + PRETRAINING_SEED_OFFSET, before)
        spent = train(first, self.store, folder / "small")[1]
        second = self._config(settings, seed, after)
        second.training.checkpoint = str(folder / "small/last")
        cpu = train(second, self.store, folder / "run")[1]
        found = measure_model(folder / "run/last", self.store)
        return {"arm": arm, "seed": seed, "steps": self.steps, "cpu": [spent, cpu], **found}


def tables(trials: Trials, arms: Sequence[str], seeds: range) -> list[str]:
    """Return two Markdown tables: recall of each arm on each set, and differences of arms."""
    found = {
        arm: {seed: trials.by_set(model) for seed, model in trials.finished(arm, seeds).items()}
        for arm in arms
    }
    found = {arm: one for arm, one in found.items() if one}
    sets = list(next(iter(next(iter(found.values())).values())))
    lines = [f"| arm | seeds | {' | '.join(sets)} |", f"|---|---{'|---' * len(sets)}|"]
    for arm, one in found.items():
        means = [statistics.mean(result[name] for result in one.values()) for name in sets]
        lines.append(f"| {arm} | {len(one)} | {' | '.join(f'{mean:.1f}' for mean in means)} |")
    lines += ["", "| A | B | seeds | A − B, mixed | two | exchanged |", "|---|---|---|---|---|---|"]
    for a, b in COMPARED:
        both = sorted(found.get(a, {}).keys() & found.get(b, {}).keys())
        if len(both) < 2:
            continue
        cells = [
            format_difference(
                t_interval([found[a][s][name] for s in both], [found[b][s][name] for s in both])
            )
            for name in ("mixed", "two", "exchanged")
        ]
        lines.append(f"| {a} | {b} | {len(both)} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Run the trials that are missing, seed by seed over all arms."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/interactions"), help="output folder")
    parser.add_argument("--dataset", default="demo", help="dataset name or folder")
    parser.add_argument("--steps", type=int, nargs=2, default=(240, 140), help="32 and 64 pixels")
    parser.add_argument("--pool", type=int, default=2000, help="images of the benchmark")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--arms", help="names separated by ; (default: all)")
    parser.add_argument(
        "--measure", action="store_true", help="train nothing, measure what is there"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    trials = Trials(options.out, options.dataset, tuple(options.steps), options.pool)
    arms = options.arms.split(";") if options.arms else list(ARMS)
    seeds = range(options.seeds)
    for seed, arm in itertools.product(seeds if not options.measure else (), arms):
        found = trials.run(arm, seed)
        print(arm, seed, f"{found['text_to_image']:.2f}", *found["cpu"], flush=True)
    print("\n".join(tables(trials, arms, seeds)))


if __name__ == "__main__":
    main()
