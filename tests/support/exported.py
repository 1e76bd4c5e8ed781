"""A small model and its ONNX export, made once per test session; titles and images to encode."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bagformer_cli.config import load_config
from bagformer_cli.export.onnx_folder import Examples, Precision, export_onnx
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.checkpoint import save_model
from bagformer_cli.training.initial_model import new_model
from tests.support.small_model import TINY

TITLES = [
    "红色碎花连衣裙", "女包", "加绒加厚男士保暖衬衫 2023新款 XL码 秋冬季韩版修身打底衫潮流外套上衣",
    "\u200b!", "手机壳 iPhone 14 Pro", "一", "黑色T恤", "ＡＢＣ全角", "한국어 옷", "123",
    "儿童 书包", "不锈钢保温杯 500ml", "a", "🎁 礼盒", "[MASK] 面膜", "北欧风 沙发", "糖",
]  # fmt: skip
"""17 titles: long and short, a title without any token, characters outside the vocabulary."""


def images(count: int = len(TITLES)) -> list[Image.Image]:
    """Draw noise of different sizes."""
    random = np.random.default_rng(0)
    sizes = random.integers(8, 40, (count, 2))
    return [Image.fromarray(random.integers(0, 256, (h, w, 3), np.uint8)) for h, w in sizes]


def model_of(*overrides: str, seed: int = 0, mode: str | None = None) -> RetrievalModel:
    torch.manual_seed(seed)
    return new_model(load_config("demo", [*TINY, *overrides], mode)).eval()


def exported(
    make_folder: Callable[[str], Path],
    *overrides: str,
    precision: Precision = "fp32",
    mode: str | None = None,
) -> tuple[RetrievalModel, Path, Path]:
    """Return a model, its model folder, and the folder of its export."""
    model = model_of(*overrides, mode=mode)
    place = make_folder("exported")
    save_model(model, place / "model")
    size = model.config.image.size
    pixels = np.stack([np.asarray(image.resize((size, size))) for image in images()])
    export_onnx(model, place / "model" / "onnx", precision, Examples(TITLES, pixels))
    return model, place / "model", place / "model" / "onnx"


SCORE_WITHOUT_TORCH = """
import json, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "timm", "torchvision"}:
            raise ImportError(f"the runtime imports {name}")

sys.meta_path.insert(0, Refuse())
from bagformer_cli import runtime

given = json.load(sys.stdin)
retriever = runtime.load(given["folder"])
images = retriever.encode_images(given["images"])
titles = retriever.encode_texts(given["titles"])
print(json.dumps(retriever.score(images, titles).t2i.tolist()))
"""


def scores_without_torch(
    folder: Path, images: Sequence[Path], titles: Sequence[str]
) -> list[list[float]]:
    """Score with an exported model in a process that cannot import torch: [titles, images]."""
    given = {"folder": str(folder), "images": list(map(str, images)), "titles": list(titles)}
    done = subprocess.run(
        [sys.executable, "-c", SCORE_WITHOUT_TORCH],
        input=json.dumps(given), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    scores: list[list[float]] = json.loads(done.stdout)
    return scores
