"""A model that is small enough to be made in a test, and a catalogue to search."""

from __future__ import annotations

from pathlib import Path

import torch

from bagformer_cli.config import load_config
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.checkpoint import save_model
from bagformer_cli.training.initial_model import new_model
from tests.support.datasets import picture

TINY = [
    "text.layers=1",
    "text.width=32",
    "text.heads=2",
    "text.feed_forward=48",
    "image.backbone=vit_tiny_patch16_224",
    "image.options={patch_size: 8, embed_dim: 24, depth: 1, num_heads: 2}",
    "image.size=16",
    "model.embed_dim=16",
]


def set_options(*items: str) -> list[str]:
    """Return ``--set`` options for the command line, one for each item such as ``seed=1``."""
    return [word for item in items for word in ("--set", item)]


def small_model(seed: int = 0) -> RetrievalModel:
    """Without training; another seed, other weights."""
    torch.manual_seed(seed)
    return new_model(load_config("demo", [*TINY, f"seed={seed}"])).eval()


def saved_model(folder: Path, seed: int = 0) -> Path:
    """The same as a model folder."""
    save_model(small_model(seed), folder)
    return folder


def write_table(folder: Path, count: int = 10, broken: bool = False) -> Path:
    """``products.csv`` with images beside it; broken: one missing, one damaged, one empty line."""
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    lines = ["id,image,title,price,category,编码"]
    for number in range(count):
        (folder / "photos" / f"{number}.png").write_bytes(picture(number))
        category = ("连衣裙", "T恤")[number % 2]
        lines.append(f'sku{number},photos/{number}.png,"{category}, 第{number}款",{number}.5,'
                     f"{category},00{number}")  # fmt: skip
    if broken:
        lines.append("gone,photos/gone.png,没有图片,1,T恤,001")
        (folder / "photos" / "bad.png").write_bytes(picture(99)[:60])
        lines.append("bad,photos/bad.png,坏图片,1,T恤,002")
        lines.append("empty,,,1,T恤,003")
    table = folder / "products.csv"
    table.write_text("\n".join(lines) + "\n", "utf-8")
    return table


def indexed_shop(folder: Path) -> Path:
    """Make a model, a catalogue of twelve products and its index in a folder; return the folder."""
    from bagformer_cli.cli.main import main

    model = saved_model(folder / "runs" / "a" / "best")
    write_table(folder, 12)
    table = str(folder / "products.csv")
    assert main(["index", "build", table, str(folder / "index"), "--checkpoint", str(model)]) == 0
    return folder
