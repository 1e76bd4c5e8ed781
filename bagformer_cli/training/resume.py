"""Save and restore the training state, so that a resumed run equals an unbroken one to the bit.

``last/`` in a run folder is a model folder with two more files, and no pickle::

    model.safetensors, config.yaml, …   the model (models.checkpoint)
    state.json                          numbers: steps, batches, best recall (TrainState)
    state.safetensors                   tensors, by name:
        rng, rng.cuda                       RNG states of the main process
        rng.rank1, …                        RNG states of the other processes
        optimizer.exp_avg.NAME              AdamW's moments and step of parameter NAME
        optimizer.exp_avg_sq.NAME
        optimizer.step.NAME
        task.…                              momentum encoder and queues
        ema.NAME                            average of weight NAME (training.ema)

``run.resume_run`` loads the model from ``last/``, ``last_folder.LastFolder`` the rest.
Batches need no state: each follows from the seed and its number (``data.train_batches``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bagformer_cli.encoders.weight_files import load_tensors, save_tensors
from bagformer_cli.errors import CheckpointError
from bagformer_cli.files import write_text
from bagformer_cli.messages import tr
from bagformer_cli.models.momentum import tensors_under

TENSORS = "state.safetensors"
NUMBERS = "state.json"


@dataclass
class TrainState:
    """The progress of a run. The field names are the keys of ``state.json``.

    Attributes:
        step: Optimizer steps done.
        batches: Batches used; ``accumulate`` times the steps.
        best: Best validation mean recall so far, in [0, 1]; None before the first evaluation.
        best_step: The step of ``best``.
        seconds: Time spent in training steps, including those before a resume.
        waited: The part of ``seconds`` in which a step waited for its batch.
        pairs: Titles with their images that were trained on, as often as they were shown.
        first: Validation mean recall before the first step.
        compared: Recall that the next gain is compared with (``training.early_stopping``).
        stale: Evaluations in a row without a gain.
        mined: Epoch for which the images of each batch were mined last; -1: never.
        window: Sums of figures since the last line of the log, and ``steps``, their number.
        counts: Number of those steps that had each figure.
    """

    step: int = 0
    batches: int = 0
    best: float | None = None
    best_step: int | None = None
    seconds: float = 0.0
    waited: float = 0.0
    pairs: int = 0
    first: float | None = None
    compared: float | None = None
    stale: int = 0
    mined: int = -1
    window: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add_figures(self, figures: Mapping[str, float]) -> None:
        """Add one step's figures to the window."""
        self.window["steps"] = self.window.get("steps", 0) + 1
        for name, value in figures.items():
            self.window[name] = self.window.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def add_seconds(self, seconds: float) -> None:
        """Add time that belongs to all steps of the window."""
        self.seconds += seconds
        self.window["step_seconds"] = self.window.get("step_seconds", 0.0) + seconds

    def take_means(self) -> dict[str, float]:
        """Return each figure's mean over the steps that had it, and empty the window.

        >>> state = TrainState()
        >>> state.add_figures({"loss": 3.0})
        >>> state.add_figures({"loss": 1.0, "itm_loss": 0.5})  # one objective drawn a step
        >>> state.take_means()
        {'loss': 2.0, 'itm_loss': 0.5}
        """
        steps = self.window.pop("steps", 0)
        means = {name: value / self.counts.get(name, steps) for name, value in self.window.items()}
        self.window.clear()
        self.counts.clear()
        return means


def save_state(
    folder: Path,
    model: nn.Module,
    optimizer: Optimizer,
    state: TrainState,
    rng_states: Sequence[Mapping[str, Tensor]],
    kept: Mapping[str, Tensor],
) -> None:
    """Write the training state into a model folder.

    Args:
        folder: The folder; it must exist.
        model: Its parameter names name the optimizer's tensors.
        optimizer: Its moments are saved.
        state: How far the run has come.
        rng_states: :func:`rng_state` of each process, in rank order.
        kept: Tensors that others keep, by name (``task.…``, ``ema.…``).
    """
    tensors = {
        name if rank == 0 else f"{name}.rank{rank}": value
        for rank, states in enumerate(rng_states)
        for name, value in states.items()
    }
    tensors |= kept
    names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            tensors[f"optimizer.{key}.{names[parameter]}"] = value
    save_tensors(tensors, folder / TENSORS)
    write_text(folder / NUMBERS, json.dumps(asdict(state), indent=1) + "\n")


def rng_state() -> dict[str, Tensor]:
    """Return torch's RNG states of this process, as :func:`save_state` takes them."""
    states = {"rng": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["rng.cuda"] = torch.cuda.get_rng_state()
    return states


def load_state(
    folder: Path, model: nn.Module, optimizer: Optimizer, rank: int = 0
) -> tuple[TrainState, dict[str, Tensor]]:
    """Restore the optimizer and the RNG states.

    Args:
        folder: ``last/`` of a run.
        model: The model that was loaded from the same folder.
        optimizer: A new optimizer of its parameters.
        rank: This process. One that the saved run did not have keeps its RNG state.

    Returns:
        How far the run had come, and all tensors of the file (``kept`` of :func:`save_state`
        among them).

    Raises:
        CheckpointError: The state is missing, incomplete or belongs to another model.
    """
    path = folder / NUMBERS
    try:
        state = TrainState(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            tr("There is no training state to resume from."), where=path
        ) from error
    tensors = load_tensors(folder / TENSORS)
    suffix = "" if rank == 0 else f".rank{rank}"
    if f"rng{suffix}" in tensors:
        torch.set_rng_state(tensors[f"rng{suffix}"])
    if f"rng.cuda{suffix}" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors[f"rng.cuda{suffix}"])
    _restore_optimizer(model, optimizer, tensors_under(tensors, "optimizer"), folder / TENSORS)
    return state, tensors


def saved_step(folder: Path) -> int | None:
    """Read the step that a run continues from; None: nothing was saved, or it cannot be read.

    Args:
        folder: ``last/`` of a run.
    """
    try:
        return int(json.loads((folder / NUMBERS).read_text(encoding="utf-8"))["step"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _restore_optimizer(
    model: nn.Module, optimizer: Optimizer, tensors: Mapping[str, Tensor], where: Path
) -> None:
    parameters = dict(model.named_parameters())
    for key_and_name, value in tensors.items():
        key, name = key_and_name.split(".", 1)
        if name not in parameters:
            raise CheckpointError(
                tr("The training state belongs to another model."), where=where, found=name
            )
        parameter = parameters[name]
        if key == "step":  # fused AdamW reads the step on the parameter's device
            optimizer.state[parameter][key] = value.to(parameter.device)
        else:
            # Files hold tensors in row-major order. Fused AdamW walks the memory of weight and
            # moments side by side, so moments need the weight's layout (channels-last for
            # convolutions), or they would be applied to the wrong elements.
            optimizer.state[parameter][key] = torch.empty_like(parameter).copy_(value)
