"""The protocol of adapters; licences and errors while loading, which all adapters share.

An adapter leaves pixels, tokens and pooling to the library that the model belongs to. It gives back
:class:`~bagformer_cli.vectors.multi_vectors.MultiVectors`, which are scored by MaxSim. With one
vector per item this is the dot product.

Shapes: n items, D dimensions.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from bagformer_cli.errors import (
    CheckpointError,
    MissingDependencyError,
    XmrError,
    first_few,
    shortened,
)
from bagformer_cli.messages import tr
from bagformer_cli.vectors.multi_vectors import MultiVectors


class OtherModel(Protocol):
    """A dual encoder of another library.

    Attributes:
        name: The value of ``--model``.
        package: ``transformers``, ``sentence-transformers`` or ``open_clip``.
        licence: Licence that the model's README names; None: unknown.
    """

    name: str
    package: str
    licence: str | None

    def encode_texts(self, titles: Sequence[str]) -> MultiVectors:
        """Encode n titles in one forward pass; unit vectors if the library compares cosines."""

    def encode_images(self, images: Sequence[Image.Image]) -> MultiVectors:
        """Encode n RGB images in one forward pass; see :meth:`encode_texts`."""


def one_vector_each(features: Tensor) -> MultiVectors:
    """Scale features [n, D] to unit length; each item has one vector.

    >>> one_vector_each(torch.tensor([[3.0, 4.0]])).values
    tensor([[0.6000, 0.8000]])
    """
    unit = torch.nn.functional.normalize(features.float(), dim=-1)
    return MultiVectors(unit, torch.arange(len(unit) + 1))


def import_library(module: str, package: str) -> Any:
    """Import an optional library.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingDependencyError(
            tr("{package} is not installed.", package=package),
            hint="pip install 'bagformer-cli[adapters]'",
        ) from None


@contextmanager
def loading(library: str, where: str) -> Iterator[None]:
    """Turn a library's failure to load a model into one error; keep its logs off the terminal.

    Args:
        library: The name of the library.
        where: The model, for the message.

    Raises:
        CheckpointError: The library raised any exception.
    """
    transformers_logging: Any = importlib.import_module("transformers.utils.logging")

    before = logging.root.manager.disable
    bars = transformers_logging.is_progress_bar_enabled()
    logging.disable(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except XmrError:
        raise
    except Exception as error:  # any: these libraries raise what their own libraries raise
        said = str(error)
        if "trust_remote_code" in said or "custom code" in said:
            raise _needs_code(where) from error
        lines = [line for line in said.splitlines() if line.strip()] or [type(error).__name__]
        raise CheckpointError(
            tr("{library} cannot load this model.", library=library),
            where=where,
            found=shortened(lines[0]),
        ) from error
    finally:
        logging.disable(before)
        if bars:
            transformers_logging.enable_progress_bar()


def require_loaded(missing: Sequence[str], where: str) -> None:
    """Refuse a model of which the library left weights random because no file holds them.

    Args:
        missing: The names of these weights.
        where: The model, for the message.

    Raises:
        CheckpointError: There are any.
    """
    if missing:
        raise CheckpointError(
            tr("{n} weights of this model are in no file; they would be random.", n=len(missing)),
            where=where,
            found=first_few(missing, 3),
        )


def not_a_dual_encoder(where: str, found: str) -> CheckpointError:
    """Make the error for a model that does not encode both titles and images."""
    return CheckpointError(
        tr("This model does not encode both titles and images."), where=where, found=found
    )


def _needs_code(where: str) -> CheckpointError:
    return CheckpointError(
        tr("This model brings its own program code, and xmr does not run code of a model."),
        where=where,
        hint=tr(
            "Run it with its own library where you trust it, write its vectors to files, and "
            "evaluate these: xmr eval --features TEXTS IMAGES --dataset FOLDER"
        ),
    )
