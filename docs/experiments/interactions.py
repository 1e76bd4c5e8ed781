"""Compare models with one vector, one per token and one per bag, one setting at a time.

Each arm is pretrained on images of 32 pixels with its own losses, then trained on 64 pixels; all
take the same numbers of steps. A seed decides the same weights and batches in all arms, so arms are
compared seed by seed. Trials that are finished are not repeated; interrupted ones are resumed. Then
every finished trial is measured on the query sets of the benchmark's test split (``xmr data
demo --benchmark``), on which no setting was chosen. The tables go between two marks of
docs/methods.md.

    python docs/experiments/interactions.py --page docs/methods.md --plot docs/interactions.svg
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
from bagformer_cli.evaluation.compare import Difference, hits_per_query, measure, t_interval
from bagformer_cli.evaluation.sources import OwnModel
from bagformer_cli.models.checkpoint import load_model
from bagformer_cli.text.from_config import build_titles
from interval_plot import IntervalRow, interval_plot
from trials import (
    Result,
    TrialFolder,
    add_names,
    fixed_step_settings,
    format_difference,
    load_or_make,
    markdown_table,
    measure_model,
    replace_section,
    train,
)

WITH_ITC, WITHOUT_ITC = "objectives.itc=1", "objectives.itc=0"
WITH_CLASS, WITHOUT_CLASS = "model.image_first=true", "model.image_first=false"
BOTH = (WITH_ITC, WITH_CLASS)

# Settings of each arm, on top of the demo's without its matching head.
ARMS: dict[str, tuple[str, ...]] = {
    "cls": ("model.interaction=cls",),
    "bag-wise, ITC 1": BOTH,
    "bag-wise without ITC": (WITHOUT_ITC, WITH_CLASS),
    "bag-wise without ITC and class vector": (WITHOUT_ITC, WITHOUT_CLASS),
    "token-wise without ITC and class vector": (
        "model.interaction=tokenwise",
        WITHOUT_ITC,
        WITHOUT_CLASS,
    ),
    "bag-wise, ITC 0.1": ("objectives.itc=0.1", WITH_CLASS),
    "bag-wise, ITC 1 without class vector": (WITH_ITC, WITHOUT_CLASS),
    "bag-wise, own projection": (*BOTH, "model.single_projection=own"),
    "bag-wise, own temperature": (*BOTH, "objectives.own_temperature=true"),
    "bag-wise, no clipping": (*BOTH, "training.clip=null"),
}
COMMON = ("objectives.itm=0", "model.cross=null", "evaluation.candidates=0")
SMALL_IMAGES = ("training.min_learning_rate=2e-3", "image.size=32")
COMPARED_SETS = ("mixed", "one", "two", "three", "exchanged")
PLOTTED = (
    "bag-wise, ITC 1",
    "bag-wise without ITC and class vector",
    "token-wise without ITC and class vector",
)
"""Arms whose differences from ``cls`` the figure shows, on every set."""
COMPARED = (
    *((arm, "cls") for arm in ("bag-wise without ITC", *PLOTTED)),
    *(
        (arm, "bag-wise, ITC 1")
        for arm in (
            "bag-wise without ITC",
            "bag-wise, ITC 0.1",
            "bag-wise, own projection",
            "bag-wise, own temperature",
            "bag-wise, no clipping",
            "bag-wise, ITC 1 without class vector",
        )
    ),
    ("bag-wise without ITC", "bag-wise without ITC and class vector"),
    ("bag-wise without ITC and class vector", "token-wise without ITC and class vector"),
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
        self.dataset, self.steps, self.pool = dataset, steps, pool

    @cached_property
    def data(self) -> Path:
        """The folder of the dataset."""
        return resolve(self.dataset).path

    @cached_property
    def store(self) -> Store:
        """The preprocessed dataset."""
        titles = build_titles(load_config("demo", [f"data.dataset={self.data}"]))
        return ensure_store(self.data, titles, workers=1)

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


def recalls(trials: Trials, arm: str, seeds: Sequence[int], query_set: str) -> list[float]:
    """Return text-to-image mean recall of an arm on a query set, seed by seed."""
    return [float(trials.recall_by_set(arm, seed)[query_set]) for seed in seeds]


def difference(
    trials: Trials, a: str, b: str, seeds: Sequence[int], query_set: str
) -> Difference | None:
    """Return the difference A − B over the seeds that both have; None: fewer than two."""
    both = trials.finished((a, b), seeds)
    if len(both) < 2:
        return None
    return t_interval(*(recalls(trials, arm, both, query_set) for arm in (a, b)))


def recall_table(trials: Trials, arms: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """Return a Markdown table: what each arm stores and takes, and its recall on each set."""
    sets = list(read_sets(trials.benchmark, "test"))
    rows = []
    for arm in arms:
        finished = trials.finished([arm], seeds)
        if finished:
            found = trials.results(arm, finished)
            vectors = " / ".join(
                f"{statistics.mean(result['vectors'][side] for result in found):.1f}"
                for side in (0, 1)
            )
            means = [statistics.mean(recalls(trials, arm, finished, name)) for name in sets]
            cpu = statistics.median(sum(result["cpu"]) for result in found)
            cells = [arm, str(len(finished)), vectors, f"{cpu:.0f}"]
            rows.append([*cells, *(f"{mean:.1f}" for mean in means)])
    return markdown_table(["arm", "seeds", "vectors (title / image)", "CPU s", *sets], rows)


def differences_table(trials: Trials, seeds: Sequence[int]) -> list[str]:
    """Return a Markdown table of paired differences with 95 % t-intervals over seeds."""
    rows = []
    for a, b in COMPARED:
        found = [difference(trials, a, b, seeds, name) for name in COMPARED_SETS]
        known = [one for one in found if one is not None]
        if known:
            count = len(trials.finished((a, b), seeds))
            rows.append([a, b, str(count), *map(format_difference, known)])
    header = ["A", "B", "seeds", *(f"A − B, {name}" for name in COMPARED_SETS)]
    return markdown_table(header, rows)


def plot(trials: Trials, seeds: Sequence[int], path: Path) -> None:
    """Draw the differences of three arms from ``cls`` on every query set, as an SVG file."""
    rows = [
        IntervalRow(name, [difference(trials, arm, "cls", seeds, name) for arm in PLOTTED])
        for name in read_sets(trials.benchmark, "test")
    ]
    interval_plot(
        rows,
        PLOTTED,
        path,
        f"Better than cls (right of 0) or worse, on each set of queries, {len(seeds)} seeds",
        "points of text-to-image mean recall, 95 % t-interval over seeds",
    )


def main() -> None:
    """Run the trials that are missing, seed by seed over all arms, then write the tables."""
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
    parser.add_argument("--seeds", default="0,1,2,3,4", help="separated by ,")
    add_names(parser, "--arms", ARMS)
    parser.add_argument(
        "--measure", action="store_true", help="train nothing; measure the finished trials"
    )
    parser.add_argument("--page", type=Path, help="page that gets the tables")
    parser.add_argument("--plot", type=Path, help="SVG file of the differences from cls")
    options = parser.parse_args()
    torch.set_num_threads(1)
    trials = Trials(options.out, options.dataset, tuple(options.steps), options.pool)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    trained = () if options.measure else itertools.product(seeds, options.arms)
    for seed, arm in trained:
        found = trials.run(arm, seed)
        print(arm, seed, f"{found['text_to_image']:.2f}", *found["cpu"], flush=True)
    lines = [*recall_table(trials, options.arms, seeds), "", *differences_table(trials, seeds)]
    if options.page is not None:
        replace_section(options.page, "interactions", lines)
    if options.plot is not None:
        plot(trials, seeds, options.plot)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
