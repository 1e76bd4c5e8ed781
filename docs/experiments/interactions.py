"""Compare models with one vector, one per token and one per bag, one setting at a time.

Each arm is pretrained on images of 32 pixels with its own losses, then trained on 64 pixels; all
take the same numbers of steps. A seed decides the same weights and batches in all arms, so arms are
compared seed by seed. Trials that are finished are not repeated; interrupted ones are resumed. Then
every finished trial is measured on the query sets of the benchmark's test split (``xmr data
demo --benchmark``), on which no setting was chosen. Prints the two tables of docs/methods.md.

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
    TrialFolder,
    add_names,
    fixed_step_settings,
    format_difference,
    load_or_make,
    markdown_table,
    measure_model,
    train,
)

# "Cells alone": the image's vectors do not include that of the class token.
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
COMPARED_SETS = ("mixed", "two", "exchanged")
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


class Trials(TrialFolder):
    """The trials of one output folder.

    Args:
        out: Folder of runs, results and the benchmark.
        dataset: Dataset name or folder.
        steps: Numbers of optimizer steps on 32 and on 64 pixels.
        pool: Number of images of the benchmark's test split.
    """

    def __init__(self, out: Path, dataset: str, steps: tuple[int, int], pool: int) -> None:
        super().__init__(out)
        self.data, self.steps, self.pool = resolve(dataset).path, steps, pool
        titles = build_titles(load_config("demo", [f"data.dataset={self.data}"]))
        self.store: Store = ensure_store(self.data, titles, workers=1)

    def measure(self, name: str, seed: int) -> Result:
        """Train an arm on 32, then on 64 pixels, and measure it on the validation split."""
        folder, settings = self.folder(name, seed), ARMS[name]
        before, after = self.steps
        small = (*settings, *SMALL_IMAGES)
        first = self._config(small, seed + PRETRAINING_SEED_OFFSET, before)
        spent = train(first, self.store, folder / "small")[1]
        second = self._config(settings, seed, after)
        second.training.checkpoint = str(folder / "small/last")
        cpu = train(second, self.store, folder / "run")[1]
        found = measure_model(folder / "run/last", self.store)
        return {"arm": name, "seed": seed, "steps": self.steps, "cpu": [spent, cpu], **found}

    def recall_by_set(self, name: str, seed: int) -> Result:
        """Return text-to-image mean recall of a finished trial on each query set, in percent."""
        path = self.folder(name, seed) / f"sets-{self.pool}.json"
        return load_or_make(path, lambda: self._recall_by_set(name, seed))

    def _recall_by_set(self, name: str, seed: int) -> Result:
        folder = MugeFolder(self.benchmark)
        source = OwnModel(load_model(self.folder(name, seed) / "run/last"))
        split = source.open(folder, "test")
        ranks = measure(source, split).ranks
        row = {number: position for position, number in enumerate(split.query_ids.tolist())}
        return {
            name: 100 * float(hits_per_query(ranks[[row[q] for q in one.queries]]).mean())
            for name, one in read_sets(folder.path, "test").items()
        }

    @cached_property
    def benchmark(self) -> Path:
        """The folder of the benchmark, which is drawn at first use."""
        folder = self.root / f"benchmark-{self.pool}"
        if not folder.is_dir():
            write_benchmark(folder, images=self.pool, workers=1)
        return folder

    def _config(self, settings: tuple[str, ...], seed: int, steps: int) -> RunConfig:
        items = fixed_step_settings(self.data, seed, steps, save_every=60)
        return load_config("demo", [*items, *COMMON, *settings])


def tables(trials: Trials, arms: Sequence[str], seeds: range) -> list[str]:
    """Return two Markdown tables: recall of these arms on each set, and their differences."""

    def recalls(arm: str, finished: Sequence[int], one_set: str) -> list[float]:
        return [float(trials.recall_by_set(arm, seed)[one_set]) for seed in finished]

    sets = list(read_sets(trials.benchmark, "test"))
    rows = []
    for arm in arms:
        finished = trials.finished([arm], seeds)
        if finished:
            means = [statistics.mean(recalls(arm, finished, name)) for name in sets]
            rows.append([arm, str(len(finished)), *(f"{mean:.1f}" for mean in means)])
    differences = []
    for a, b in COMPARED:
        both = trials.finished((a, b), seeds) if {a, b} <= set(arms) else []
        if len(both) < 2:
            continue
        cells = [
            format_difference(t_interval(recalls(a, both, name), recalls(b, both, name)))
            for name in COMPARED_SETS
        ]
        differences.append([a, b, str(len(both)), *cells])
    header = ["A", "B", "seeds", *(f"A − B, {name}" for name in COMPARED_SETS)]
    return [
        *markdown_table(["arm", "seeds", *sets], rows),
        "",
        *markdown_table(header, differences),
    ]


def main() -> None:
    """Run the trials that are missing, seed by seed over all arms, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/interactions"), help="output folder")
    parser.add_argument("--dataset", default="demo", help="dataset name or folder")
    parser.add_argument(
        "--steps", type=int, nargs=2, default=(240, 140), metavar=("SMALL", "LARGE"),
        help="optimizer steps on 32 and on 64 pixels (default: 240 140)",
    )  # fmt: skip
    parser.add_argument(
        "--pool", type=int, default=2000,
        help="images of the benchmark's test split (default: 2000)",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds (default: 5)")
    add_names(parser, "--arms", ARMS)
    parser.add_argument(
        "--measure", action="store_true", help="train nothing; measure the finished trials"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    trials = Trials(options.out, options.dataset, tuple(options.steps), options.pool)
    seeds = range(options.seeds)
    trained = () if options.measure else itertools.product(seeds, options.arms)
    for seed, arm in trained:
        found = trials.run(arm, seed)
        print(arm, seed, f"{found['text_to_image']:.2f}", *found["cpu"], flush=True)
    print("\n".join(tables(trials, options.arms, seeds)))


if __name__ == "__main__":
    main()
