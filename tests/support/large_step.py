"""How much memory one late-interaction step of the demo's model takes at a large batch.

    python -m tests.support.large_step [BATCH] [PART] [DATASET]

Pairs of the demo set, one title an image, in parts of PART images (``training.micro_batch_size``).
Prints the largest resident memory of this process before the step and after it.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from bagformer_cli.config import load_config
from bagformer_cli.datasets import ensure_store, resolve
from bagformer_cli.progress import SILENT
from bagformer_cli.training.distributed import SINGLE_PROCESS
from bagformer_cli.training.gradient_cache import accumulate_gradients
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.run import make_trainer

LATE = "objectives={itc: 0.0, itm: 0.0, late_interaction: 1.0}"


def peak_gib() -> float:
    """The largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main(batch: int = 4096, part: int = 64, dataset: str = "demo") -> None:
    """Take one step."""
    sizes = [f"training.batch_size={batch}", f"training.micro_batch_size={part}"]
    more = ["model.cross=null", "data.titles_per_image=1", "data.workers=0"]
    config = load_config("demo", [LATE, *sizes, *more])
    model = new_model(config)
    store = ensure_store(resolve(dataset), model.titles)
    trainer = make_trainer(model, config, store, Path("unused"), False, SINGLE_PROCESS, SILENT)
    trainer.task.train()
    needed = trainer.task.needed_bytes()
    gib = {name: round(count / 2**30, 2) for name, count in needed.items()}
    print("needed by estimate, GiB:", gib, flush=True)
    pairs = trainer.batches.batch(0)
    before = peak_gib()
    output = accumulate_gradients(trainer.task, pairs, chunk=part)
    trainer.optimizer.step()
    print(f"batch {batch} in parts of {part}: loss {float(output.total.detach()):.3f},", end=" ")
    print(f"peak {before:.2f} GiB before the step, {peak_gib():.2f} GiB after it")


if __name__ == "__main__":
    main(*(int(value) if value.isdigit() else value for value in sys.argv[1:]))  # type: ignore[arg-type]
