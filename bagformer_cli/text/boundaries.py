"""Learned boundaries: the weights that ``xmr dict train`` learns from marked titles.

They are a file that is given like a dictionary (``--lexicon learned.safetensors``, or in
``text.lexicons``), and lies next to ``lexicon.txt`` in a model folder. :mod:`.boundary_features`
says what a weight belongs to, :mod:`.segmenter` how bags are cut with them.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load, save

from bagformer_cli.errors import DataError, InputError, listed
from bagformer_cli.files import atomic_file
from bagformer_cli.messages import tr
from bagformer_cli.opening import read_regular
from bagformer_cli.text.boundary_features import WEIGHTS

ENDING = ".safetensors"
"""Ending of the file; dictionaries have any other."""

NEXT_TO_LEXICON = "boundaries.safetensors"
"""Its name next to a ``lexicon.txt``."""

TRUST = 20
"""How many nats of the costs of words and patterns a nat of the learned odds outweighs. The odds
already know the cover that those costs prefer."""

_TENSOR = "boundaries 1"
"""Name of the tensor. Change the number with the features."""
_MOST_BYTES = 16 << 20
_MOST_COST = 10**6
"""Cost of 50 nats, more than any learned weight has: sums of a stranger's must stay in int32."""


class Boundaries:
    """The weights of boundaries.

    Args:
        weights: [WEIGHTS] float16. The sum of the weights of a boundary is the logarithm of the
            odds that a bag ends there, in nats.
    """

    def __init__(self, weights: npt.NDArray[np.float16]) -> None:
        self.weights = weights

    @cached_property
    def costs(self) -> npt.NDArray[np.int32]:
        """[WEIGHTS], what each feature adds to the cost of a cut."""
        costs = np.rint(-1000 * TRUST * self.weights.astype(np.float64))
        return np.clip(costs, -_MOST_COST, _MOST_COST).astype(np.int32)

    @cached_property
    def fingerprint(self) -> str:
        """Identify the weights."""
        return hashlib.sha256(self.weights.tobytes()).hexdigest()[:16]

    def save(self, path: str | Path) -> None:
        """Write the file."""
        with atomic_file(path) as temporary:
            temporary.write_bytes(save({_TENSOR: self.weights}))

    @classmethod
    def load(cls, path: str | Path) -> Boundaries:
        """Read the file.

        Raises:
            InputError: It is missing.
            DataError: It is damaged, or no file of boundaries.
        """
        content = read_regular(path, _MOST_BYTES)
        try:
            weights = load(content)[_TENSOR]
        except Exception:  # safetensors and numpy raise whatever comes
            weights = np.zeros(0)
        if weights.dtype != np.float16 or weights.shape != (WEIGHTS,):
            raise DataError(
                tr("This is no file of learned boundaries."),
                where=path,
                expected=tr("a file that `xmr dict train` wrote"),
            )
        if not np.isfinite(weights).all():
            raise DataError(tr("The file of learned boundaries is damaged."), where=path)
        return cls(weights)


def only_one(paths: list[Path]) -> Boundaries | None:
    """Read the boundaries among the sources of a lexicon; None: no source is such a file.

    Raises:
        InputError: There are several.
    """
    if len(paths) > 1:
        raise InputError(
            tr("Boundaries are learned together with all of their titles: give one such file."),
            found=listed(paths),
        )
    return Boundaries.load(paths[0]) if paths else None
