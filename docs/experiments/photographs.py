"""Compare interactions and modes on real photographs with Chinese titles.

The towers are the frozen ones of ``xmr demo --photos --model packaged``. Every arm trains the two
projections from the same start, a model that already searches (zero-shot). Two protocols:

    folds     The seed deals the photographs to three folds. Each fold is tested with the model
              that was trained on the other two; the fold's photographs are the candidates.
    transfer  Train on the stamps, test on the product photographs, as the demo does.

Trials that are finished are not repeated. The photographs and towers come from pip, once.
``--page`` replaces the tables of docs/real_weights.md.

    python docs/experiments/photographs.py --seeds 5 --page docs/real_weights.md
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bagformer_cli.config import RunConfig, load_config
from bagformer_cli.data.batches import Batch
from bagformer_cli.data.sampler import Sampling
from bagformer_cli.data.train_batches import TrainBatches
from bagformer_cli.datasets import ensure_store
from bagformer_cli.demo.photos.fetch import photo_dataset
from bagformer_cli.demo.photos.start import PACKAGED, choose_start
from bagformer_cli.encoders.weight_files import load_tensors, save_tensors
from bagformer_cli.evaluation.compare import FLOAT_BYTES, query_milliseconds
from bagformer_cli.evaluation.metrics import NO_POSITIVE, Positives, best_ranks
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.dual import Encoded
from bagformer_cli.models.scorers import own_scorer
from bagformer_cli.training.frozen_towers import KeptModel, images_of, titles_of
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.optimizer import build_optimizer, learning_rate, set_learning_rate
from bagformer_cli.training.task import RetrievalTask
from bagformer_cli.training.teacher import Teacher
from photo_sets import Part, Photographs, frozen_outputs
from photo_tables import differences_table, recall_table
from trials import Result, TrialFolder, add_names, replace_section

FOLDS = 3
CELLS = 16  # of the image grid, 4 x 4; with all 81 a training takes four times as long
PARTS = (*(f"fold-{number}" for number in range(FOLDS)), "transfer")


@dataclass(frozen=True)
class Arm:
    """One row of the table.

    Attributes:
        sets: ``--set`` items on top of ``real`` and the mode.
        mode: Training mode (``configs/modes/``).
        shares: Training steps, as a multiple of ``--steps``; 0: the start is tested.
        teacher: The arm whose trained model is the teacher, and the start instead of the common
            one.
        bag_means: A bag's vector is the mean of its tokens' states, not their sum.
    """

    sets: tuple[str, ...] = ()
    mode: str | None = None
    shares: int = 1
    teacher: str | None = None
    bag_means: bool = False


CLS = ("model.interaction=cls",)
MEAN = "objectives.late_scale=mean"
TOKENS = ("model.interaction=tokenwise", MEAN)
BAGS = ("model.interaction=bagwise", MEAN)
LATE_ALONE = "objectives.itc=0"
NCE = "objectives.loss=nce"
SOFT = ("distill.teacher_temperature=0.04", "distill.student_temperature=0.04")
ARMS: dict[str, Arm] = {
    "cls, not trained": Arm(CLS, shares=0),
    "tokenwise, not trained": Arm(TOKENS, shares=0),
    "bagwise, not trained": Arm(BAGS, shares=0),
    "bagwise by means, not trained": Arm(BAGS, shares=0, bag_means=True),
    "cls": Arm(CLS),
    "tokenwise": Arm(TOKENS),
    "tokenwise, no ITC": Arm((*TOKENS, LATE_ALONE)),
    "bagwise": Arm(BAGS),
    "bagwise, no ITC": Arm((*BAGS, LATE_ALONE)),
    "bagwise by means, no ITC": Arm((*BAGS, LATE_ALONE), bag_means=True),
    "fast": Arm(mode="fast", shares=2),
    "base": Arm(mode="base"),
    "shrinktofast": Arm(mode="shrinktofast", teacher="base"),
    # Added after the first seed was seen (docs/log.md): loss and temperatures of methods.py.
    "base, not trained": Arm(mode="base", shares=0),
    "fast, InfoNCE": Arm((NCE,), "fast", shares=2),
    "base, InfoNCE": Arm((NCE, MEAN), "base"),
    "shrinktofast, InfoNCE": Arm(SOFT, "shrinktofast", teacher="base, InfoNCE"),
}
FIRST = "tokenwise"  # its model reads all positions of both towers
COMPARED = (
    ("bagwise, no ITC", "cls"),
    ("tokenwise, no ITC", "cls"),
    ("bagwise, no ITC", "tokenwise, no ITC"),
    ("bagwise by means, no ITC", "bagwise, no ITC"),
    ("bagwise by means, no ITC", "cls"),
    ("bagwise, no ITC", "bagwise"),
    ("tokenwise, no ITC", "tokenwise"),
    ("base", "fast"),
    ("shrinktofast", "fast"),
    ("base, InfoNCE", "fast, InfoNCE"),
    ("shrinktofast, InfoNCE", "fast, InfoNCE"),
    ("cls", "cls, not trained"),
    ("bagwise, no ITC", "bagwise, not trained"),
)


class KeptTeacher(Teacher):
    """A teacher with the same frozen towers as the student: it reads their kept outputs."""

    @torch.no_grad()
    def encode(self, batch: Batch) -> tuple[Encoded, Encoded]:
        """Encode the titles and images of a batch from the kept outputs of the towers."""
        return (
            self.model.encode_texts(titles_of(batch)),
            self.model.encode_images(images_of(batch)),
        )


class Trials(TrialFolder):
    """The trials of one output folder.

    Args:
        out: Folder of the photographs, the models and the results.
        steps: Optimizer steps of one training.
    """

    def __init__(self, out: Path, steps: int) -> None:
        super().__init__(out / "trials")
        self.out, self.steps = out, steps
        self.start = choose_start(PACKAGED, out, 0).folder
        photo_dataset(out / "data" / "photos")
        model = self.model(FIRST)
        store = ensure_store(out / "data" / "photos", model.titles, workers=1)
        kept = frozen_outputs(out / "towers.safetensors", model, store, CELLS)
        self.photographs = Photographs.of(store, kept)

    def config(self, arm: str, seed: int) -> RunConfig:
        """Return the configuration of an arm."""
        items = [
            f"seed={seed}",
            f"text.tokenizer={self.out / 'models/e5-small'}",
            f"training.checkpoint={self.start}",
            *ARMS[arm].sets,
        ]
        return load_config("real", items, ARMS[arm].mode)

    @cache  # noqa: B019 - there is one object of this class in a process
    def model(self, arm: str, *, teaches: bool = False) -> RetrievalModel:
        """Load the start as a model of an arm; each trial sets its projections.

        Args:
            arm: The arm.
            teaches: Load another copy, because a teacher's weights stay frozen.
        """
        model = new_model(self.config(arm, 0))
        if arm != FIRST or teaches:  # one copy of the frozen towers in memory
            towers = self.model(FIRST).dual
            model.dual.text_encoder = towers.text_encoder
            model.dual.vision_encoder = towers.vision_encoder
        return model

    @cache  # noqa: B019 - see above
    def start_weights(self, arm: str) -> dict[str, Tensor]:
        """Copy the trainable weights of an arm at the start, before any trial."""
        return _trainable_weights(self.model(arm))

    def measure(self, name: str, seed: int) -> Result:
        """Train and test an arm on every fold and on the transfer.

        Returns:
            ``ranks``: by protocol, the rank of each title's and photograph's best answer;
            ``steps`` of one training; means over the trainings of the figures of :func:`rank` and
            of ``cpu``, the CPU seconds of a training with its teacher's.
        """
        whole = self.photographs.with_bag_means() if ARMS[name].bag_means else self.photographs
        products, fold = whole.products, whole.folds(FOLDS, seed)
        ranks = {
            protocol: {
                "titles": np.full(len(whole.texts), NO_POSITIVE),
                "photos": np.full(len(products), NO_POSITIVE),
            }
            for protocol in ("folds", "transfer")
        }
        figures: list[dict[str, float]] = []
        for number, part in enumerate(PARTS):
            tested = products if part == "transfer" else fold == number
            cpu = self._train(name, seed, part, Part(whole, ~tested))
            chosen = Part(whole, tested)
            titles, photos, found = rank(self.model(name), chosen)
            where = ranks["transfer" if part == "transfer" else "folds"]
            where["titles"][chosen.queries], where["photos"][chosen.photos] = titles, photos
            figures.append({"cpu": cpu, **found})
        listed = {p: {k: v.tolist() for k, v in one.items()} for p, one in ranks.items()}
        means = {key: statistics.mean(one[key] for one in figures) for key in figures[0]}
        return {"ranks": listed, "steps": self.steps * ARMS[name].shares, **means}

    def _train(self, arm: str, seed: int, name: str, part: Part) -> float:
        """Train the model of an arm on one part; return CPU seconds, with its teacher's."""
        model, about, teacher, spent = self.model(arm), ARMS[arm], None, 0.0
        _set_weights(model, self.start_weights(arm))
        if about.teacher is not None:
            taught = self.model(about.teacher, teaches=True)
            spent = self.run(about.teacher, seed)["cpu"]
            weights = load_tensors(self.folder(about.teacher, seed) / f"{name}.safetensors")
            _set_weights(taught, weights)
            _set_weights(model, weights)
            teacher = KeptTeacher(taught, own_scorer(taught.config))
        begun = time.process_time()
        train(model, self.config(arm, seed), part, self.steps * about.shares, teacher)
        spent += time.process_time() - begun
        if arm in {one.teacher for one in ARMS.values()}:
            save_tensors(_trainable_weights(model), self.folder(arm, seed) / f"{name}.safetensors")
        return spent


def train(
    model: RetrievalModel, config: RunConfig, part: Part, steps: int, teacher: Teacher | None
) -> None:
    """Train a model on the kept outputs of a part, as ``training.loop`` does.

    Args:
        model: The model; its projections are trained in place.
        config: Its configuration.
        part: The photographs and titles.
        steps: Optimizer steps; 0: do nothing.
        teacher: The teacher of a mode with distillation.
    """
    if not steps:
        return
    settings, pad = config.training, model.titles.tokenizer.pad_id
    sampling = Sampling(settings.batch_size, config.seed)
    batches = TrainBatches(part, config.data, sampling, image_size=1, pad_id=pad)
    batches.outputs, batches.reads_pixels = part.outputs, False
    torch.manual_seed(config.seed)
    task = RetrievalTask(model, config, teacher, positives=batches.positives)
    optimizer = build_optimizer(model, settings)
    task.train()
    for step in range(steps):
        set_learning_rate(optimizer, learning_rate(step, steps, settings))
        output = task(batches.batch(step), epoch=step / batches.per_epoch, number=step)
        output.total.backward()
        if settings.clip is not None:
            torch.nn.utils.clip_grad_norm_(list(model.parameters()), settings.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        model.clamp_temperature()
    model.eval()


def rank(
    model: RetrievalModel, part: Part
) -> tuple[NDArray[np.int64], NDArray[np.int64], dict[str, float]]:
    """Rank the photographs of a part for its titles, and the titles for its photographs.

    Returns:
        The rank of each title's best photograph, the rank of each photograph's best title, and
        ``title_vectors``, ``image_vectors``, ``image_bytes`` (means) and ``query_ms`` (median).
    """
    source = KeptModel(model, part.outputs)
    encoded = source.encode(part, model.config.evaluation.batch_size)
    t2i, i2t = source.score(encoded)
    positives = Positives(part.item_offsets, part.items, len(part.image_ids))
    images, texts = encoded.images.vectors, encoded.texts.vectors
    figures = {
        "title_vectors": len(texts.values) / len(texts),
        "image_vectors": len(images.values) / len(images),
        "image_bytes": len(images.values) / len(images) * images.dim * FLOAT_BYTES,
        "query_ms": query_milliseconds(texts, images),
    }
    return best_ranks(t2i, positives), best_ranks(i2t, positives.transposed()), figures


def _trainable_weights(model: RetrievalModel) -> dict[str, Tensor]:
    parameters = model.named_parameters()
    return {name: one.detach().clone() for name, one in parameters if one.requires_grad}


@torch.no_grad()
def _set_weights(model: RetrievalModel, weights: Mapping[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for name, values in weights.items():
        parameters[name].copy_(values)


def tables(trials: Trials, seeds: Sequence[int]) -> list[str]:
    """Return both Markdown tables of the finished trials."""
    finished = {arm: trials.finished([arm], seeds) for arm in ARMS}
    found = {
        arm: dict(zip(done, trials.results(arm, done), strict=True))
        for arm, done in finished.items()
        if done
    }
    rows = recall_table(found, trials.photographs)
    return [*rows, "", *differences_table(found, trials.photographs, COMPARED)]


def main() -> None:
    """Run the trials that are missing, seed by seed over all arms, then write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/photographs"), help="output folder")
    parser.add_argument(
        "--steps", type=int, default=96, help="optimizer steps of a training (default: 96)"
    )
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds (default: 5)")
    add_names(parser, "--arms", ARMS)
    parser.add_argument("--page", type=Path, help="Markdown page whose tables are replaced")
    options = parser.parse_args()
    torch.set_num_threads(1)
    trials = Trials(options.out, options.steps)
    for seed, arm in itertools.product(range(options.seeds), options.arms):
        print(arm, seed, f"{trials.run(arm, seed)['cpu']:.1f} s", flush=True)
    lines = tables(trials, range(options.seeds))
    if options.page is not None:
        replace_section(options.page, "photographs", lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
