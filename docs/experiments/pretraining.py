"""Compare pretraining and fine-tuning with fine-tuning alone, for the same CPU seconds.

Every arm has the same budget of CPU seconds. One arm spends all of it on fine-tuning (the demo's
training without its matching head); the others spend a share of it on pretraining first. Seconds
per step are measured once for all arms, in turns, before the trials (``prices.json``). They decide
the numbers of steps, which therefore do not depend on how busy the machine is later. Trials that
are finished are not repeated; interrupted ones are resumed. ``--page`` replaces the table of
docs/methods.md (``make pretraining``).

    python docs/experiments/pretraining.py --page docs/methods.md
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch

from bagformer_cli.config import RunConfig, load_config
from bagformer_cli.data.store.store import Store
from bagformer_cli.datasets import ensure_store, resolve
from bagformer_cli.progress import SILENT
from bagformer_cli.text.from_config import build_titles
from bagformer_cli.training.distributed import SINGLE_PROCESS
from bagformer_cli.training.gradient_cache import accumulate_gradients
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.run import make_trainer
from trials import (
    Result,
    TrialFolder,
    add_names,
    fixed_step_settings,
    format_difference,
    load_or_make,
    markdown_table,
    mean_and_deviation,
    measure_model,
    paired_difference,
    replace_section,
    train,
)

CONFIG = "demo"
TIMED_STEPS = 8  # of each arm, after one step to warm up
PRETRAINING_SEED_OFFSET = 1000  # pretraining draws other batches than fine-tuning

FINE_TUNING = ("objectives.itm=0", "model.cross=null")
FINE_TUNING_ALONE = "fine-tuning alone"
# The learning rate stays at its peak during pretraining; fine-tuning lowers it.
CONSTANT_RATE = "training.min_learning_rate=2e-3"
SMALL_IMAGES = (CONSTANT_RATE, "image.size=32")  # a quarter of the pixels
JOINT = "model.cross={fusion: joint}"

# Settings of each arm's pretraining; None: the arm has none. ITC is on the single vectors and on
# late interaction, as in fine-tuning.
ARMS: dict[str, tuple[str, ...] | None] = {
    FINE_TUNING_ALONE: None,
    "ITC": (*SMALL_IMAGES, *FINE_TUNING),
    "ITC, momentum": (*SMALL_IMAGES, *FINE_TUNING, "objectives.momentum={rate: 0.98, queue: 0}"),
    "ITC, momentum, queue": (
        *SMALL_IMAGES,
        *FINE_TUNING,
        "objectives.momentum={rate: 0.98, queue: 1000}",
    ),
    "ITC, MLM": (*SMALL_IMAGES, "objectives={itm: 0.0, mlm: 0.2}", JOINT),
    "ITC, MLM of whole bags": (
        *SMALL_IMAGES,
        "objectives={itm: 0.0, mlm: 0.2, masking: {whole_bags: true}}",
        JOINT,
    ),
    "ITC, masked patches": (
        *SMALL_IMAGES,
        "objectives={itm: 0.0, mfm: 0.1, mfm_temperature: 0.1}",
        JOINT,
    ),
    "ITC, ITM": (*SMALL_IMAGES, "objectives={itm: 0.5, itm_share: 0.25}"),
    "ITC at full size": (CONSTANT_RATE, *FINE_TUNING),
}


class Trials(TrialFolder):
    """The trials of one output folder.

    Args:
        out: Folder of runs, step times and results.
        dataset: Dataset name or folder.
        seconds: CPU seconds of each trial.
        share: Share of the seconds that pretraining takes, in [0, 1].
    """

    def __init__(self, out: Path, dataset: str, seconds: float, share: float) -> None:
        super().__init__(out)
        self.data = resolve(dataset).path
        self.seconds, self.share = seconds, share

    @cached_property
    def store(self) -> Store:
        """The preprocessed dataset."""
        titles = build_titles(load_config(CONFIG, [f"data.dataset={self.data}"]))
        return ensure_store(self.data, titles, workers=1)

    @cached_property
    def step_seconds(self) -> dict[str, float]:
        """CPU seconds per pretraining step of each arm, with loading the batch (median).

        Those of :data:`FINE_TUNING_ALONE` are of a fine-tuning step.
        """
        return load_or_make(self.root / "prices.json", self._measure_steps)

    def _measure_steps(self) -> Result:
        arms = {}
        for name, settings in ARMS.items():
            config = self.config(FINE_TUNING if settings is None else settings, 0, 1)
            folder = self.root / "probe"
            model = new_model(config)
            trainer = make_trainer(model, config, self.store, folder, False, SINGLE_PROCESS, SILENT)
            trainer.task.train()
            arms[name] = trainer, trainer.batches.iterate(0)
        spent: dict[str, list[float]] = {name: [] for name in arms}
        for _, (name, (trainer, batches)) in itertools.product(
            range(1 + TIMED_STEPS), arms.items()
        ):
            started = time.process_time()
            accumulate_gradients(trainer.task, next(batches), epoch=0.5)
            trainer.optimizer.step()
            trainer.optimizer.zero_grad()
            spent[name].append(time.process_time() - started)
        return {name: statistics.median(times[1:]) for name, times in spent.items()}

    def steps(self, name: str) -> tuple[int, int]:
        """Return an arm's numbers of pretraining and fine-tuning steps."""
        fine = self.step_seconds[FINE_TUNING_ALONE]
        if ARMS[name] is None:
            return 0, round(self.seconds / fine)
        before = self.share * self.seconds
        return round(before / self.step_seconds[name]), round((self.seconds - before) / fine)

    def config(self, settings: Sequence[str], seed: int, steps: int) -> RunConfig:
        """Build the demo's configuration with the settings of one stage."""
        items = fixed_step_settings(self.data, seed, steps, save_every=100)
        return load_config(CONFIG, [*items, "evaluation.candidates=0", *settings])

    def measure(self, name: str, seed: int) -> Result:
        """Pretrain, fine-tune, and measure the model after its last step."""
        folder, settings = self.folder(name, seed), ARMS[name]
        before, after = self.steps(name)
        config, spent = self.config(FINE_TUNING, seed, after), 0.0
        if settings is not None:
            pretraining = self.config(settings, seed + PRETRAINING_SEED_OFFSET, before)
            spent = train(pretraining, self.store, folder / "pretraining")[1]
            config.training.checkpoint = str(folder / "pretraining/last")
        cpu = train(config, self.store, folder / "fine-tuning")[1]
        found = measure_model(folder / "fine-tuning/last", self.store)
        return {"steps": [before, after], "cpu_seconds": [spent, cpu], **found}


def results_table(trials: Trials, seeds: Sequence[int]) -> list[str]:
    """Return a Markdown table with a row for each arm that has at least one result."""
    header = [
        "pretraining",
        "seeds",
        "text to image",
        "image to text",
        "gain over fine-tuning alone (95 %)",
        "steps",
        "CPU s per pretraining step",
        "CPU s",
    ]
    rows = []
    for name in ARMS:
        found = trials.results(name, seeds)
        if not found:
            continue
        common = trials.finished((name, FINE_TUNING_ALONE), seeds)
        gain = ""
        if common and name != FINE_TUNING_ALONE:
            sides = (trials.results(arm, common) for arm in (name, FINE_TUNING_ALONE))
            gain = format_difference(paired_difference(*sides))
        before, after = found[0]["steps"]
        cells = [
            name,
            str(len(found)),
            mean_and_deviation([one["text_to_image"] for one in found]),
            mean_and_deviation([one["image_to_text"] for one in found]),
            gain,
            f"{before} + {after}",
            "" if ARMS[name] is None else f"{trials.step_seconds[name]:.3f}",
            f"{statistics.mean(sum(one['cpu_seconds']) for one in found):.0f}",
        ]
        rows.append(cells)
    return markdown_table(header, rows)


def main() -> None:
    """Run the trials that are missing, seed by seed over all arms; write the page after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/pretraining"), help="output folder")
    parser.add_argument("--dataset", default="demo", help="dataset name or folder")
    parser.add_argument(
        "--seconds", type=float, default=160.0, help="CPU seconds of each trial (default: 160)"
    )
    parser.add_argument(
        "--share", type=float, default=0.4, help="share spent on pretraining (default: 0.4)"
    )
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: 3)")
    add_names(parser, "--arms", ARMS)
    parser.add_argument("--page", type=Path, help="Markdown page whose table is replaced")
    options = parser.parse_args()
    torch.set_num_threads(1)
    trials = Trials(options.out, options.dataset, options.seconds, options.share)
    seeds = range(options.seeds)
    for seed, name in itertools.product(seeds, options.arms):
        found = trials.run(name, seed)
        print(name, seed, f"{found['text_to_image']:.2f}", *found["cpu_seconds"], flush=True)
        if options.page is not None:
            replace_section(options.page, "pretraining", results_table(trials, seeds))
    print("\n".join(results_table(trials, seeds)))


if __name__ == "__main__":
    main()
