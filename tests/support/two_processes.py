"""The program that tests/training/test_distributed.py starts under torchrun."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from bagformer_cli.config import RunConfig, load_config
from bagformer_cli.data.masking import TokenMasking
from bagformer_cli.data.sampler import Sampling
from bagformer_cli.data.store.store import Store
from bagformer_cli.data.train_batches import TrainBatches
from bagformer_cli.training.distributed import Processes, join_process_group, leave_process_group
from bagformer_cli.training.gradient_cache import accumulate_gradients
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.run import images_per_process
from bagformer_cli.training.task import RetrievalTask
from bagformer_cli.training.teacher import Teacher
from tests.support.small_run import TINY

SOFT = "momentum: {queue: 13, alpha: 0.4}"
KINDS = {
    "itc": ["objectives={itc: 1.0, late_interaction: 0.0, itm: 0.0}"],
    "late": ["objectives={itc: 0.0, late_interaction: 1.0, itm: 0.0, late_scale: sum}"],
    "hinge": ["objectives={itm: 0.0, loss: power_hinge}"],
    "triplet": ["objectives={itm: 0.0, loss: triplet}"],
    "own pairs": ["objectives={itm: 0.0, share_positives: false}"],
    "momentum": [f"objectives={{itm: 0.0, late_scale: mean, {SOFT}}}"],
    "masked": ["model.cross={fusion: joint}", "objectives={itm: 0.0, mlm: 1.0, mfm: 1.0}"],
    "taught": [
        "model.interaction=cls",
        "model.alignment=bagwise",
        "distill={weight: 1.0}",
        "objectives={itc: 0.0, itm: 0.0, late_interaction: 0.0}",
    ],
    "slow teacher": ["distill={scorer: slow, candidates: 4}", "objectives={itm: 0.0}"],
    "parts": ["training.micro_batch_size=3", "objectives={itm: 0.0}"],
}


def settings(kind: str) -> RunConfig:
    return load_config("demo", [*TINY, *KINDS[kind], "training.batch_size=16"])


def learned(kind: str, folder: Path, processes: Processes) -> dict[str, Tensor]:
    """Gradients and losses after two batches, and what the queues hold."""
    config = settings(kind)
    model = new_model(config)
    words = model.titles.tokenizer
    batches = TrainBatches(
        Store(folder).split("train"),
        config.data,
        Sampling(images_per_process(16, processes), 0, processes.rank, processes.world_size),
        image_size=config.image.size,
        pad_id=words.pad_id,
        masking=TokenMasking.of(words, 0.3, whole_bags=False),
    )
    teacher = None
    if kind == "slow teacher":
        with_cross = load_config("demo", [*TINY, "objectives.itm=1"])
        teacher = Teacher(new_model(with_cross), "slow")
    task = RetrievalTask(
        model, config, teacher, positives=batches.positives, processes=processes
    ).train()
    figures: dict[str, float] = {}
    for number in range(2):
        model.zero_grad()
        chunk = config.training.micro_batch_size
        output = accumulate_gradients(
            task, batches.batch(number), epoch=0.5, number=number, chunk=chunk
        )
        means = processes.all_reduce_mean([float(x.detach()) for x in output.losses.values()])
        figures = dict(zip(output.losses, means, strict=True))
        processes.all_reduce_gradients(model)
    kept = {
        f"gradient.{name}": p.grad
        for name, p in model.named_parameters()
        if p.grad is not None and bool(p.grad.any())
    }
    kept |= {name: torch.tensor(value) for name, value in figures.items()}
    for objective in task.objectives:
        kept |= {f"queue.{name}": value for name, value in objective.state_dict().items()}
    return {name: value.detach().clone() for name, value in kept.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    processes = join_process_group()
    assert processes.world_size == 2, processes
    for case in KINDS:
        found = learned(case, Path(sys.argv[1]), processes)
        if processes.is_main:
            save_file(found, Path(sys.argv[2]) / f"{case}.safetensors")
    leave_process_group(processes)
