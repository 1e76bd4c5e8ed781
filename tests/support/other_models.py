"""Tiny dual encoders of other libraries, made and saved by these libraries themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

SIZE = 16
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"红蓝白黑色花裙包伞鞋帽连衣大小男女"]
TITLES = ["红色裙", "蓝色包", "白伞", "黑色男鞋", "花帽", "红色大包"]


def save_tokenizer(folder: Path, length: int = 12) -> Any:
    """A tokenizer of one token per character, as BERT has it for Chinese."""
    from transformers import BertTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS), "utf-8")
    tokenizer = BertTokenizer(
        vocab={word: n for n, word in enumerate(WORDS)}, model_max_length=length
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def _tower(**others: Any) -> dict[str, Any]:
    return {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        **others,
    }


def _vision() -> dict[str, Any]:
    return _tower(image_size=SIZE, patch_size=8)


def save_dual(kind: str, folder: Path) -> Path:
    """A model of transformers: ``clip``, ``siglip`` or ``chinese_clip``."""
    import transformers as library

    torch.manual_seed(3)
    text = _tower(vocab_size=len(WORDS), max_position_embeddings=12)
    if kind == "clip":
        special = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
        config = library.CLIPConfig(
            text_config={**text, **special}, vision_config=_vision(), projection_dim=8
        )
        model: Any = library.CLIPModel(config)
        processor: Any = library.CLIPImageProcessor
    elif kind == "siglip":
        special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
        config = library.SiglipConfig(text_config={**text, **special}, vision_config=_vision())
        model, processor = library.SiglipModel(config), library.SiglipImageProcessor
    else:
        config = library.ChineseCLIPConfig(
            text_config=text, vision_config=_vision(), projection_dim=8
        )
        model, processor = library.ChineseCLIPModel(config), library.ChineseCLIPImageProcessor
    with torch.no_grad():  # the initial weights of these classes give almost equal vectors
        for value in model.parameters():
            value.normal_(0, 0.3)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    size = {"height": SIZE, "width": SIZE}
    processor(size=size, crop_size=size).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# tiny\n", "utf-8")
    return folder


def save_open_clip(folder: Path) -> Path:
    """A model folder of open_clip."""
    import open_clip

    torch.manual_seed(3)
    settings = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": SIZE, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {
            "context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1,
        },
    }  # fmt: skip
    model = open_clip.CLIP(**settings)
    folder.mkdir(parents=True)
    mean = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    record = {"model_cfg": settings, "preprocess_cfg": {"mean": mean[0], "std": mean[1]}}
    (folder / "open_clip_config.json").write_text(json.dumps(record))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def save_sentence(folder: Path, clip: Path) -> Path:
    """A ``SentenceTransformer`` around a CLIP model of transformers."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer

    SentenceTransformer(modules=[Transformer(str(clip))], device="cpu").save_pretrained(str(folder))
    return folder


def many_vectors(folder: Path) -> Any:
    """A ``MultiVectorEncoder`` with a BERT for titles and a ViT for images.

    It works in this process only: the library loads no module class of a test from a folder.
    """
    import transformers as library
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Router, Transformer

    class Patches(Transformer):  # type: ignore[misc]
        """All patches of an image count."""

        def forward(self, features: Any, **options: Any) -> Any:
            found = super().forward(features, **options)
            shape = found["token_embeddings"].shape[:2]
            found["attention_mask"] = torch.ones(shape, dtype=torch.int64)
            return found

    torch.manual_seed(3)
    sizes = _tower(vocab_size=len(WORDS), max_position_embeddings=12)
    library.BertModel(library.BertConfig(**sizes)).save_pretrained(folder / "bert")
    save_tokenizer(folder / "bert")
    library.CLIPVisionModel(library.CLIPVisionConfig(**_vision())).save_pretrained(folder / "vit")
    size = {"height": SIZE, "width": SIZE}
    library.CLIPImageProcessor(size=size, crop_size=size).save_pretrained(folder / "vit")
    towers = [Transformer(str(folder / "bert"))], [Patches(str(folder / "vit"))]
    return MultiVectorEncoder(modules=[Router.for_query_document(*towers)], device="cpu")
