"""Write the folder ``last/`` of a run, and restore a run from it.

``resume.py`` describes the files of the folder. Besides the model, the optimizer and the RNG
states, a run has tensors of its objectives (momentum encoder, queues), the average of its weights,
and mined batches.
"""

from __future__ import annotations

from pathlib import Path

from torch.optim import Optimizer

from bagformer_cli.files import atomic_folder
from bagformer_cli.models.checkpoint import save_model
from bagformer_cli.models.momentum import tensors_under
from bagformer_cli.training.distributed import Processes
from bagformer_cli.training.mined_batches import BatchMiner
from bagformer_cli.training.resume import TrainState, load_state, rng_state, save_state
from bagformer_cli.training.task import RetrievalTask
from bagformer_cli.training.weight_average import WeightAverage


class LastFolder:
    """The folder ``last/`` of a run.

    Args:
        run: The run folder.
        task: The model and its objectives.
        optimizer: The optimizer of the model.
        average: The average of the weights; None: the run keeps none.
        miner: The mined batches.
        processes: The processes that train together; the main process writes.
    """

    def __init__(
        self,
        run: Path,
        task: RetrievalTask,
        optimizer: Optimizer,
        average: WeightAverage | None,
        miner: BatchMiner,
        processes: Processes,
    ) -> None:
        self.path = run / "last"
        self._task, self._optimizer, self._average = task, optimizer, average
        self._miner, self._processes = miner, processes

    def restore(self) -> TrainState:
        """Restore everything but the model, which was loaded from the same folder.

        Returns:
            How far the run had come.

        Raises:
            CheckpointError: The state is missing, incomplete or belongs to another model.
        """
        rank = self._processes.rank
        state, tensors = load_state(self.path, self._task.model, self._optimizer, rank)
        self._task.load_state_dict_of_objectives(tensors_under(tensors, "task"))
        if self._average is not None:
            self._average.load_state_dict(tensors_under(tensors, "ema"))
        self._miner.restore(self.path, state)
        return state

    def save(self, state: TrainState) -> None:
        """Replace the folder by the present state; all processes wait until it is written."""
        rng_states = self._processes.all_gather_object(rng_state())
        if self._processes.is_main:
            with atomic_folder(self.path) as folder:
                model = self._task.model
                save_model(model, folder)
                of_task = self._task.state_dict_of_objectives()
                kept = {f"task.{name}": value for name, value in of_task.items()}
                if self._average is not None:
                    average = self._average.state_dict()
                    kept |= {f"ema.{name}": value for name, value in average.items()}
                save_state(folder, model, self._optimizer, state, rng_states, kept)
                self._miner.save(folder)
        self._processes.barrier()
