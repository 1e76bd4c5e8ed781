"""What ``last/`` holds beside the model, so that a run goes on as if it had never stopped.

``state.safetensors``: the optimizer's tensors, by parameter name, and torch's random state;
``state.json``: the step and what else is one number. No pickle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bagformer_cli.errors import CheckpointError
from bagformer_cli.files import write_text
from bagformer_cli.messages import tr
from bagformer_cli.models.checkpoint import load_tensors, save_tensors
from bagformer_cli.models.momentum import tensors_under

TENSORS = "state.safetensors"
NUMBERS = "state.json"
MORE = "task"


@dataclass
class Position:
    """How far a run has come.

    Attributes:
        step: Optimizer steps done.
        batches: Batches taken from the data.
        best: Best validation mean recall so far, in [0, 1]; None before the first.
        best_step: The step it was reached at.
        seconds: Time spent in training steps, over all sittings.
        first: Validation mean recall before the first step.
        mined: Epoch whose batches were made of mined neighbours; -1: none were.
        window: Sums of figures since the last line of the log, and ``steps``, how many steps.
        counts: In how many of those steps each figure was there.
    """

    step: int = 0
    batches: int = 0
    best: float | None = None
    best_step: int | None = None
    seconds: float = 0.0
    first: float | None = None
    mined: int = -1
    window: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


def save_state(
    folder: Path,
    model: nn.Module,
    optimizer: Optimizer,
    position: Position,
    chances: Sequence[Mapping[str, Tensor]],
    more: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the training state into a model folder.

    Args:
        folder: Where.
        model: Names the optimizer's tensors.
        optimizer: Its moments are kept.
        position: How far the run has come.
        chances: Each process's :func:`random_state`.
        more: What else the objectives keep (momentum model, queues).
    """
    tensors = {
        name if rank == 0 else f"{name}.rank{rank}": value
        for rank, chance in enumerate(chances)
        for name, value in chance.items()
    }
    for name, value in (more or {}).items():
        tensors[f"{MORE}.{name}"] = value
    names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            tensors[f"optimizer.{key}.{names[parameter]}"] = value
    save_tensors(tensors, folder / TENSORS)
    write_text(folder / NUMBERS, json.dumps(asdict(position), indent=1) + "\n")


def random_state() -> dict[str, Tensor]:
    """The state of everything random in this process."""
    states = {"rng": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["rng.cuda"] = torch.cuda.get_rng_state()
    return states


def load_state(
    folder: Path, model: nn.Module, optimizer: Optimizer, rank: int = 0
) -> tuple[Position, dict[str, Tensor]]:
    """Restore optimizer and random state; returns how far the run had come, and what else is kept.

    A process that the saving run did not have keeps the random state it has.

    Raises:
        CheckpointError: The state is missing, cut off, or of another model.
    """
    path = folder / NUMBERS
    try:
        position = Position(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            tr("There is no training state to go on from."), where=path, found=error
        ) from error
    tensors = load_tensors(folder / TENSORS)
    chance = {name: tensors.pop(name) for name in list(tensors) if name.startswith("rng")}
    behind = "" if rank == 0 else f".rank{rank}"
    if f"rng{behind}" in chance:
        torch.set_rng_state(chance[f"rng{behind}"])
    if f"rng.cuda{behind}" in chance and torch.cuda.is_available():
        torch.cuda.set_rng_state(chance[f"rng.cuda{behind}"])
    more = tensors_under(tensors, MORE)
    tensors = {name: value for name, value in tensors.items() if name.startswith("optimizer.")}
    _restore_optimizer(model, optimizer, tensors, folder / TENSORS)
    return position, more


def _restore_optimizer(
    model: nn.Module, optimizer: Optimizer, tensors: dict[str, Tensor], where: Path
) -> None:
    named = dict(model.named_parameters())
    for full_name, value in tensors.items():
        _, key, name = full_name.split(".", 2)
        if name not in named:
            raise CheckpointError(
                tr("The training state belongs to another model."), where=where, found=name
            )
        parameter = named[name]
        device = "cpu" if key == "step" else parameter.device
        optimizer.state[parameter][key] = value.to(device)
