"""The demo set as files: whole, the same from the same seed, in MUGE form."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bagformer_cli.data.attributes import Thing, answers, read_attributes, read_header
from bagformer_cli.data.muge import MugeFolder, iter_images, iter_queries
from bagformer_cli.demo import generate, write_demo
from bagformer_cli.demo.difficulty import colour_shares, histogram_scores, measure_difficulty
from bagformer_cli.demo.palette import COLOUR_KEYS
from bagformer_cli.errors import InputError
from bagformer_cli.progress import Task

FILES = {
    "attributes.jsonl",
    *(
        f"MR_{split}_{what}"
        for split in ("train", "valid", "test")
        for what in ("imgs.tsv", "queries.jsonl")
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "new" / "set"
    write_demo(out, images=150, seed=5, workers=1, size=64)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_files_are_those_of_muge(folder: Path) -> None:
    assert set(contents(folder)) == FILES
    muge = MugeFolder(folder)
    assert muge.naming == "query"
    assert muge.splits == ["train", "valid", "test"]
    image_ids: list[int] = []
    query_ids: list[int] = []
    known = read_attributes(folder)
    for split in muge.splits:
        here = {}
        for image_id, data in iter_images(muge.images_path(split)):
            with Image.open(io.BytesIO(data)) as image:
                assert (image.format, image.size) == ("JPEG", (64, 64))
            here[image_id] = known.images[image_id]
        asked = list(iter_queries(muge.queries_path(split)))
        assert asked
        for query in asked:
            named = known.queries[query.query_id]
            assert list(query.item_ids) == [i for i in here if answers(here[i], named)]
        image_ids += here
        query_ids += [query.query_id for query in asked]
    assert len(image_ids) == 150
    assert len(set(image_ids)) == len(image_ids)
    assert len(set(query_ids)) == len(query_ids)
    assert set(known.images) == set(image_ids)
    assert set(known.queries) == set(query_ids)
    assert read_header(folder / "attributes.jsonl")["images"] == 150


def test_the_same_seed_gives_the_same_files_however_many_draw(folder: Path, tmp_path: Path) -> None:
    write_demo(tmp_path / "again", images=150, seed=5, workers=2, size=64)
    assert contents(tmp_path / "again") == contents(folder)


def test_another_seed_gives_another_set(folder: Path, tmp_path: Path) -> None:
    write_demo(tmp_path / "other", images=60, seed=6, workers=1, size=32)
    other = contents(tmp_path / "other")
    assert other["MR_valid_queries.jsonl"] not in contents(folder)["MR_valid_queries.jsonl"]
    assert other["MR_test_queries.jsonl"]


def test_progress_hears_of_every_picture(tmp_path: Path) -> None:
    class Counting:
        done = 0
        total: int | None = None

        @contextmanager
        def task(
            self, description: str, total: int | None = None, amount: str = "{n}"
        ) -> Iterator[Task]:
            self.total = total
            yield self

        def advance(self, n: int = 1, **status: object) -> None:
            self.done += n

        def info(self, message: str) -> None: ...

        def warn(self, message: str) -> None: ...

    counting = Counting()
    write_demo(tmp_path / "set", images=60, workers=1, size=32, progress=counting)
    assert counting.done == counting.total == 60


@pytest.mark.parametrize("wrong", [{"images": 59}, {"images": 0}, {"size": 16}, {"size": 500}])
def test_what_cannot_be_drawn_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        write_demo(tmp_path / "set", **{"images": 60, **wrong})
    assert caught.value.exit_code == 2
    assert not (tmp_path / "set").exists()


def test_a_folder_that_holds_something_is_left_alone(folder: Path, tmp_path: Path) -> None:
    before = contents(folder)
    with pytest.raises(InputError, match="not empty"):
        write_demo(folder, images=60)
    assert contents(folder) == before
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        write_demo(tmp_path, images=60)
    with pytest.raises(InputError, match="not a folder"):
        write_demo(tmp_path / "notes.txt", images=60)


def test_a_failure_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def failing(*args: object) -> bytes:
        nonlocal calls
        calls += 1
        if calls > 50:
            raise RuntimeError("power cut")
        return b"jpeg"

    monkeypatch.setattr(generate, "draw_picture", failing)
    with pytest.raises(RuntimeError, match="power cut"):
        write_demo(tmp_path / "set", images=90, workers=1)
    assert list(tmp_path.iterdir()) == []


def test_only_a_few_chunks_are_in_flight() -> None:
    taken = 0

    class Pool:
        def submit(self, draw: object, job: int) -> Future[list[bytes]]:
            future: Future[list[bytes]] = Future()
            future.set_result([bytes([job])])
            return future

    def jobs() -> Iterator[int]:
        nonlocal taken
        for job in range(100):
            taken += 1
            yield job

    drawn = generate._drawn(Pool(), 2, jobs())  # type: ignore[arg-type]
    for i, chunk in enumerate(drawn):
        assert chunk == [bytes([i])], "in order"
        assert taken <= i + 1 + 6
    assert taken == 100


def test_colours_are_counted() -> None:
    stream = io.BytesIO()
    picture = Image.new("RGB", (40, 40), (212, 32, 40))
    picture.paste((36, 78, 200), (0, 0, 40, 10))
    picture.save(stream, "PNG")
    shares = colour_shares(stream.getvalue())
    assert shares[COLOUR_KEYS.index("red")] == pytest.approx(0.75)
    assert shares[COLOUR_KEYS.index("blue")] == pytest.approx(0.25)
    flipped = shares[[5, 1, 2, 3, 4, 0, *range(6, 12)]]
    scores = histogram_scores(
        [[Thing("mug", "red")], [Thing("mug", "blue")], [Thing("mug")]],
        np.array([shares, flipped]),
    )
    assert scores[0, 0] > scores[0, 1]
    assert scores[1, 1] > scores[1, 0]
    assert scores[2].tolist() == [0, 0]


@pytest.mark.slow
def test_the_default_set_is_calibrated(tmp_path: Path) -> None:
    write_demo(tmp_path / "set")
    measured = measure_difficulty(tmp_path / "set", "valid")
    assert measured.images >= 600
    assert measured.queries >= 300
    assert measured.random_guess < 1
    assert measured.histogram < 15
    assert measured.oracle > 95
