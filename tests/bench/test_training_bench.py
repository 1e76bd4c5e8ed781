"""The training benchmark: the reference computes the same scores; rows are rates and ratios."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bagformer_cli.bench import training as bench
from bagformer_cli.config import load_config
from bagformer_cli.data.batches import TextBatch
from bagformer_cli.data.store.preprocess import preprocess
from bagformer_cli.models.scorers import score_matrix
from tests.support.datasets import write_split
from tests.support.small_model import TINY, small_model

TITLES = ["红色碎花连衣裙", "蓝色牛仔裤 2件装", "包"]


@torch.inference_mode()
def test_the_reference_scores_like_the_model_but_for_padding() -> None:
    """BagFormer pads titles with zero vectors, so that no patch has a maximum below 0."""
    model = small_model()
    pad_id = model.titles.tokenizer.pad_id
    texts = model.encode_texts(TextBatch.from_tokens(model.titles(TITLES), pad_id))
    images = model.encode_images(torch.randn(4, 3, 16, 16))
    for scorer in ("late", "cls"):
        expected = score_matrix(model, scorer, texts, images)
        found = bench.plain_scores(model, scorer, texts, images)
        torch.testing.assert_close(found.t2i, expected.t2i)
        if scorer == "cls":
            torch.testing.assert_close(found.i2t, expected.i2t)
    i2t = [
        [(image @ title.T).amax(1).clamp_min(0).mean() for title in texts.vectors.to_list()]
        for image in images.vectors.to_list()
    ]
    late = bench.plain_scores(model, "late", texts, images)
    torch.testing.assert_close(late.i2t, torch.tensor(i2t))


def test_rows_are_samples_per_second_and_their_ratio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = [(n, f"红色连衣裙{n}", (n,)) for n in range(16)]
    folder = write_split(tmp_path, queries=queries)
    config = load_config("demo", [*TINY, "training.batch_size=4", "data.titles_per_image=1"])
    split = preprocess(folder, encoder=small_model().titles).split("train")
    clock = iter(
        [0, 0, 0, 2, 0, 1, 0, 4, 0, 1]
    )  # steps of 2 and 4 s, and of 1 s, after a first one
    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    plain, ours = bench.run(config, split, steps=2)
    assert (plain.name, plain.samples_per_second, plain.speedup) == ("plain", 4 / 3, 1)
    assert (ours.name, ours.samples_per_second, ours.speedup) == ("xmr", 4, 3)
