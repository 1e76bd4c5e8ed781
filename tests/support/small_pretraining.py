"""Small datasets, settings and tasks for tests of pretraining."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bagformer_cli.config import RunConfig, load_config
from bagformer_cli.data.masking import TokenMasking
from bagformer_cli.data.regions import RegionFile, Regions, write_regions
from bagformer_cli.data.sampler import Sampling
from bagformer_cli.data.store.store import Store
from bagformer_cli.data.train_batches import TrainBatches
from bagformer_cli.datasets import ensure_store
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.task import RetrievalTask
from tests.support.datasets import picture, write_split
from tests.support.small_run import TINY

THINGS = ["上衣", "裤子", "外套", "裙子", "背包", "毛衣", "围巾", "帽子"]

NAMES = (
    "红绿蓝黄黑白紫青粉橙金银灰棕衣裤裙包鞋帽巾袜带表镜杯碗盘刀灯床椅"
    "桌柜门窗车船书笔纸伞球琴鼓花草树鱼鸟马牛羊猫狗兔米面茶酒糖油盐水"
)


def coloured_things(folder: Path) -> Store:
    """Write sixty-four images of random colours and their names; two titles are equal."""
    names = [f"{'红绿蓝黄黑白紫青'[n // 8]}色{THINGS[n % 8]}" for n in range(64)]
    queries = [(n, name, (n,)) for n, name in enumerate(names)]
    images = [(n, picture(n, (16, 16))) for n in range(64)]
    for split in ("train", "valid"):
        write_split(folder, split, queries, images)
    return ensure_store(folder, new_model(settings()).titles, workers=1)


def with_regions(folder: Path, meanings: np.ndarray) -> Store:
    """Write images with a title of one character and four regions: its meaning in four bases.

    A hidden region follows from any other one and its position. Patches of random images could only
    be memorised.
    """
    random = np.random.default_rng(1)
    bases = [np.linalg.qr(random.normal(size=(32, 32)))[0] for _ in range(4)]
    rows = [np.stack([basis @ meaning for basis in bases]) for meaning in meanings]
    for split in ("train", "valid"):
        queries = [(n, name, (n,)) for n, name in enumerate(NAMES)]
        write_split(folder, split, queries, [(n, picture(n, (16, 16))) for n in range(64)])
        regions = [(n, Regions(found.astype(np.float32))) for n, found in enumerate(rows)]
        write_regions(folder / f"MR_{split}_regions.tsv", regions)
    return ensure_store(folder, new_model(settings()).titles, workers=1)


def settings(*overrides: str) -> RunConfig:
    return load_config("demo", [*TINY, "training.batch_size=16", *overrides])


def batches_of(store: Store, config: RunConfig, model: RetrievalModel) -> TrainBatches:
    words, masks = model.titles.tokenizer, config.objectives.masking
    split, regions = store.split("train"), config.image.regions
    return TrainBatches(
        split,
        config.data,
        Sampling(config.training.batch_size, seed=0),
        image_size=config.image.size,
        pad_id=words.pad_id,
        regions=None if regions is None else RegionFile.of(split, regions),
        masking=TokenMasking.of(words, masks.tokens, whole_bags=masks.whole_bags),
    )


def made(store: Store, *overrides: str) -> tuple[RetrievalTask, TrainBatches]:
    config = settings(*overrides)
    model = new_model(config)
    batches = batches_of(store, config, model)
    return RetrievalTask(model, config, positives=batches.positives), batches
