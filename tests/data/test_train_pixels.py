"""The workers that make training pixels: processes or threads, the same pixels in any number."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from bagformer_cli.config import DataConfig
from bagformer_cli.data import train_batches, train_pixels
from bagformer_cli.data.batches import Batch
from bagformer_cli.data.prefetch import prefetch
from bagformer_cli.data.sampler import Sampling
from bagformer_cli.data.store import preprocess as stages
from bagformer_cli.data.store.preprocess import preprocess
from bagformer_cli.data.store.split import Split
from bagformer_cli.data.train_batches import TrainBatches
from bagformer_cli.data.train_pixels import PixelWorkers, pixel_workers
from bagformer_cli.errors import InputError, XmrError
from tests.data.test_images import png_header
from tests.data.test_store import Characters
from tests.support.datasets import picture, write_split


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Twelve pairs whose images are larger than the input."""
    images = [(n, picture(n, (40 + n, 60 - n), "JPEG")) for n in range(12)]
    queries = [(n, f"标题{n}", (n,)) for n in range(12)]
    folder = write_split(tmp_path_factory.mktemp("set"), "train", queries, images)
    return preprocess(folder, encoder=Characters()).split("train")


def make(
    split: Split, workers: int | None, *, cache_mb: int = 0, batch_size: int = 4
) -> TrainBatches:
    config = DataConfig(workers=workers, cache_mb=cache_mb)
    return TrainBatches(split, config, Sampling(batch_size, 0), image_size=16, pad_id=0)


def first(batches: TrainBatches, count: int = 7, start: int = 0) -> list[torch.Tensor]:
    stream = batches.iterate(start)
    found = [batch.raw for batch in islice(stream, count)]
    stream.close()  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("workers", [1, 3])
def test_processes_make_the_pixels_of_this_process(
    split: Split, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Parts of three images: the last part of a batch of four is shorter."""
    expected = first(make(split, 0))
    monkeypatch.setattr(train_pixels, "PART", 3)
    for found, wanted in zip(first(make(split, workers)), expected, strict=True):
        assert torch.equal(found, wanted)


def test_a_run_that_starts_later_sees_the_pixels_that_processes_would_have_made(
    split: Split,
) -> None:
    later = first(make(split, 2), count=3, start=4)
    for found, wanted in zip(later, first(make(split, 0))[4:], strict=True):
        assert torch.equal(found, wanted)


def test_images_in_memory_are_varied_by_threads_in_parts(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = first(make(split, 0, cache_mb=9))
    monkeypatch.setattr(train_pixels, "PART", 3)
    with pixel_workers(make(split, 2, cache_mb=9).pixels, 2) as workers:
        assert isinstance(workers._pool, train_pixels.ThreadPoolExecutor)
    for found, wanted in zip(first(make(split, 2, cache_mb=9)), expected, strict=True):
        assert torch.equal(found, wanted)


def test_an_error_of_a_process_arrives_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "verify", lambda data: None)  # as if it broke after preprocessing
    folder = write_split(
        tmp_path, "train", [(1, "a", (5,)), (2, "b", (5,))], [(5, png_header(64, 64))]
    )
    broken = preprocess(folder, encoder=Characters()).split("train")
    with pytest.raises(InputError) as caught:
        next(make(broken, 1, batch_size=2).iterate())
    assert "image 5" in str(caught.value.where)
    assert caught.value.expected


def test_a_process_that_was_killed_is_a_clear_error(split: Split) -> None:
    pixels = make(split, 1).pixels
    with pixel_workers(pixels, 1) as workers:
        samples = np.arange(2)
        workers.make(samples, 0, samples)
        (process,) = workers._pool._processes.values()  # type: ignore[union-attr]
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        with pytest.raises(XmrError, match="decodes images has ended") as caught:
            workers.make(samples, 0, samples)
    assert "data.workers" in str(caught.value.hint)


def test_workers_ignore_ctrl_c(split: Split) -> None:
    """It reaches the whole terminal; the trainer still finishes its step, and needs batches."""
    with pixel_workers(make(split, 1).pixels, 1) as workers:
        samples = np.arange(2)
        before = workers.make(samples, 0, samples)
        (process,) = workers._pool._processes.values()  # type: ignore[union-attr]
        os.kill(process.pid, signal.SIGINT)
        np.testing.assert_array_equal(workers.make(samples, 0, samples), before)


def test_a_worker_process_needs_no_torch() -> None:
    """It starts in a second, and takes no memory for CUDA."""
    code = "import sys, bagformer_cli.data.train_pixels; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_copies_for_workers_hold_no_images(split: Split) -> None:
    kept = make(split, 0, cache_mb=9)
    first(kept)
    assert kept.pixels.decoded._kept
    assert len(pickle.dumps(make(split, 0).pixels)) < 2_000


def test_workers_are_this_process_share_of_the_cores(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_batches, "usable_cores", lambda: 16)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert make(split, None).workers == 16
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert make(split, None).workers == 4
    assert make(split, 3).workers == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "32")
    assert make(split, None).workers == 1


def test_large_batches_are_made_one_at_a_time(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pixels of 12,800 images of 256 x 256 are 2.5 GB."""
    made: list[int] = []

    def counted(batches: TrainBatches, number: int, workers: PixelWorkers, pinned: bool) -> Batch:
        made.append(number)
        return batches.batch(number)

    monkeypatch.setattr(TrainBatches, "_batch", counted)
    monkeypatch.setattr(TrainBatches, "batch", lambda batches, number: number)
    monkeypatch.setattr(train_batches, "AHEAD_BYTES", 4 * 16 * 16 * 3)
    stream = make(split, 8, cache_mb=9).iterate()
    assert [next(stream), next(stream)] == [0, 1]
    stream.close()  # type: ignore[attr-defined]
    assert made[:2] == [0, 1]
    assert len(made) <= 3


def test_ahead_is_the_number_of_results_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def items() -> object:
        for number in range(100):
            asked.append(number)
            yield number

    stream = prefetch(lambda item: item, items(), 2, ahead=3)  # type: ignore[arg-type]
    assert [next(stream) for _ in range(4)] == [0, 1, 2, 3]
    assert asked == [0, 1, 2, 3, 4, 5]
