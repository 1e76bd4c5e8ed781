"""``make pretraining``: does it help, where its CPU seconds are taken from fine-tuning's?

Every arm has the same budget of CPU seconds: fine-tuning alone spends all of it on the demo's
training without its matching head, the others a part of it on pretraining first. A step is priced
once, all kinds of steps in turns, so that an arm's numbers of steps do not depend on how busy the
machine is. A run that is done is not done again; one that was stopped goes on. The table goes into
docs/methods.md between two marks.

    python -m bagformer_cli.bench.pretraining --out runs/pretraining --page docs/methods.md
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
from bagformer_cli.config import RunConfig, load_config
from bagformer_cli.data.store.store import Store
from bagformer_cli.datasets import ensure_store, resolve
from bagformer_cli.progress import SILENT
from bagformer_cli.text.from_config import build_titles
from bagformer_cli.training.distributed import ALONE
from bagformer_cli.training.gradient_cache import learn
from bagformer_cli.training.run import make_trainer, new_model

CONFIG = "demo"
FINE = ("objectives.itm=0", "model.cross=null")
ALONE_ARM = "fine-tuning alone"
STEADY = "training.min_learning_rate=2e-3"
"""The rate stays up; fine-tuning brings it down."""
SMALL = (STEADY, "image.size=32")
"""A quarter of the pixels."""
JOINT = "model.cross={fusion: joint}"
ARMS: dict[str, tuple[str, ...] | None] = {
    ALONE_ARM: None,
    "ITC": (*SMALL, *FINE),
    "ITC, momentum": (*SMALL, *FINE, "objectives.momentum={rate: 0.98, queue: 0}"),
    "ITC, momentum, queue": (*SMALL, *FINE, "objectives.momentum={rate: 0.98, queue: 1000}"),
    "ITC, MLM": (*SMALL, "objectives={itm: 0.0, mlm: 0.2}", JOINT),
    "ITC, MLM of whole bags": (
        *SMALL,
        "objectives={itm: 0.0, mlm: 0.2, masking: {whole_bags: true}}",
        JOINT,
    ),
    "ITC, masked patches": (
        *SMALL,
        "objectives={itm: 0.0, mfm: 0.1, mfm_temperature: 0.1}",
        JOINT,
    ),
    "ITC, ITM": (*SMALL, "objectives={itm: 0.5, itm_share: 0.25}"),
    "ITC at full size": (STEADY, *FINE),
}
"""What each is pretrained with; ITC is one-vector and late interaction, as in fine-tuning."""
PRICED = 9
SEED_OF_PRETRAINING = 1000


class Bench:
    """The runs of one folder.

    Args:
        out: Where runs, prices and results are kept.
        dataset: The dataset.
        seconds: CPU seconds of each run.
        share: Of them for pretraining.
    """

    def __init__(self, out: Path, dataset: str, seconds: float, share: float) -> None:
        self.out, self.data = out, resolve(dataset).path
        self.seconds, self.share = seconds, share

    @cached_property
    def prices(self) -> dict[str, float]:
        """CPU seconds of a step of each arm, batch included: a median, taken in turns."""
        return kept(self.out / "prices.json", self._priced)

    def _priced(self) -> Result:
        streams = {}
        for name, arm in ARMS.items():
            config = self.config(FINE if arm is None else arm, 0, 1)
            probe = self.out / "probe"
            model = new_model(config)
            trainer = make_trainer(model, config, self.store, probe, False, ALONE, SILENT)
            trainer.task.train()
            streams[name] = trainer, trainer.batches.iterate(0)
        spent: dict[str, list[float]] = {name: [] for name in streams}
        for _, (name, (trainer, batches)) in itertools.product(range(PRICED), streams.items()):
            started = time.process_time()
            learn(trainer.task, next(batches), epoch=0.5)
            trainer.optimizer.step()
            trainer.optimizer.zero_grad()
            spent[name].append(time.process_time() - started)
        return {name: statistics.median(times[1:]) for name, times in spent.items()}

    def steps(self, name: str) -> tuple[int, int]:
        """Of pretraining and of fine-tuning."""
        fine = self.prices[ALONE_ARM]
        if ARMS[name] is None:
            return 0, round(self.seconds / fine)
        before = self.share * self.seconds
        return round(before / self.prices[name]), round((self.seconds - before) / fine)

    def config(self, sets: Sequence[str], seed: int, steps: int) -> RunConfig:
        """The demo's configuration with settings of one stage."""
        items = [
            f"seed={seed}",
            f"data.dataset={self.data}",
            "data.workers=0",
            "evaluation.candidates=0",
            "training.epochs=1000",
            "training.evaluate_every=100000",
            "training.save_every=100",
            f"training.max_steps={steps}",
            f"training.schedule_steps={steps}",
            *sets,
        ]
        return load_config(CONFIG, items)

    def folder(self, name: str, seed: int) -> Path:
        """The folder of an arm and a seed."""
        plain = "".join(c if c.isalnum() else "_" for c in name)
        return self.out / f"{plain}-{seed}"

    def run(self, name: str, seed: int) -> Result:
        """Pretrain, fine-tune and measure, unless that was done."""
        return kept(self.folder(name, seed) / "result.json", lambda: self._trained(name, seed))

    def _trained(self, name: str, seed: int) -> Result:
        folder, arm = self.folder(name, seed), ARMS[name]
        before, after = self.steps(name)
        config, spent = self.config(FINE, seed, after), 0.0
        if arm is not None:
            first = self.config(arm, seed + SEED_OF_PRETRAINING, before)
            spent = train(first, self.store, folder / "pretraining")[1]
            config.training.checkpoint = str(folder / "pretraining/last")
        cpu = train(config, self.store, folder / "fine-tuning")[1]
        figures = measured(folder / "fine-tuning/last", self.store)
        return {"steps": [before, after], "cpu_seconds": [spent, cpu], **figures}

    @cached_property
    def store(self) -> Store:
        """The preprocessed dataset."""
        titles = build_titles(load_config(CONFIG, [f"data.dataset={self.data}"]))
        return ensure_store(self.data, titles, workers=1)

    def results(self, name: str, seeds: Sequence[int]) -> list[Result]:
        """Those of an arm that are there."""
        return done([self.folder(name, seed) / "result.json" for seed in seeds])


def table(bench: Bench, seeds: Sequence[int]) -> list[str]:
    """A row for each arm that is done for at least one seed."""
    lines = [
        "| pretraining | seeds | text to image | image to text "
        "| more than fine-tuning alone (95 %) | steps | CPU s a step of pretraining | CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in ARMS:
        own = [seed for seed in seeds if bench.results(name, [seed])]
        if not own:
            continue
        found = bench.results(name, own)
        both = [seed for seed in own if bench.results(ALONE_ARM, [seed])]
        gap = ""
        if both and name != ALONE_ARM:
            gap = interval(difference(bench.results(name, both), bench.results(ALONE_ARM, both)))
        before, after = found[0]["steps"]
        cells = [
            name,
            str(len(found)),
            spread([one["text_to_image"] for one in found]),
            spread([one["image_to_text"] for one in found]),
            gap,
            f"{before} + {after}",
            "" if ARMS[name] is None else f"{bench.prices[name]:.3f}",
            f"{statistics.mean(sum(one['cpu_seconds']) for one in found):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Run what is not done yet, seed by seed over all arms, and write the page after each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/pretraining"))
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--seconds", type=float, default=160.0, help="CPU seconds of each run")
    parser.add_argument("--share", type=float, default=0.4, help="of them for pretraining")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", help="some of them, separated by ;")
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(options.out, options.dataset, options.seconds, options.share)
    seeds = range(options.seeds)
    names = options.arms.split(";") if options.arms else list(ARMS)
    for seed, name in itertools.product(seeds, names):
        found = bench.run(name, seed)
        print(name, seed, f"{found['text_to_image']:.2f}", *found["cpu_seconds"], flush=True)
        if options.page is not None:
            write_page(options.page, "pretraining", table(bench, seeds))
    print("\n".join(table(bench, seeds)))


if __name__ == "__main__":
    main()
