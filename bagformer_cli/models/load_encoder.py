"""Load the encoder that a folder holds: a model folder, or one of ``xmr export onnx``.

Importing this module imports neither transformers nor timm; loading a model folder does.
"""

from __future__ import annotations

from pathlib import Path

from bagformer_cli.errors import InputError, listed
from bagformer_cli.machine import choose_device
from bagformer_cli.messages import tr
from bagformer_cli.models.item_encoder import ItemEncoder, ModelEncoder, OnnxEncoder
from bagformer_cli.runtime import load
from bagformer_cli.runtime.folder import is_exported


def load_encoder(folder: str | Path, device: str | None = None) -> ItemEncoder:
    """Load a model folder or an exported model.

    Args:
        folder: The folder.
        device: ``"cpu"``, ``"cuda"`` …; None: a GPU if there is one.

    Raises:
        CheckpointError: The folder does not exist, or it is broken.
        InputError: This machine has no such device.
    """
    if is_exported(folder):
        return OnnxEncoder(load(folder, _providers(device)))
    from bagformer_cli.models.checkpoint import load_model

    return ModelEncoder(load_model(folder, choose_device(device)))


def _providers(device: str | None) -> list[str] | None:
    """Name the providers of onnxruntime for a device."""
    if device is None:
        return None
    if device == "cpu":
        return ["CPUExecutionProvider"]
    import onnxruntime

    if not device.startswith("cuda") or "CUDAExecutionProvider" not in (
        onnxruntime.get_available_providers()
    ):
        raise InputError(
            tr("This onnxruntime cannot use the device."),
            where="--device",
            found=device,
            expected=listed(onnxruntime.get_available_providers()),
            hint=tr("Use --device cpu, or install onnxruntime-gpu."),
        )
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]
