"""Mined negatives are those of a literal search; batches hold them; a resume sees the same ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bagformer_cli.config import load_config
from bagformer_cli.data.hard_negatives import read_negatives
from bagformer_cli.data.positives import Positives
from bagformer_cli.data.store.store import Store
from bagformer_cli.data.train_batches import TrainBatches
from bagformer_cli.errors import ConfigError, DataError, InputError
from bagformer_cli.models.checkpoint import save_model
from bagformer_cli.training.distributed import SINGLE_PROCESS
from bagformer_cli.training.hard_negatives import GroundTruth, mine, mine_vectors, write_negatives
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.run import make_trainer, resume_config, resume_run, start_run
from bagformer_cli.vectors.multi_vectors import MultiVectors
from tests.support.remarks import Remarks
from tests.support.small_architectures import small_config
from tests.training.test_resume import assert_resume_is_exact


@pytest.fixture(scope="module")
def mined(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four negatives of each title, by an untrained model."""
    folder = tmp_path_factory.mktemp("mined")
    model, split = new_model(small_config("demo", None, folder)), store.split("train")
    write_negatives(folder / "hard.jsonl", split, mine(model, split, 4))
    return folder / "hard.jsonl"


# Mining.


def random_case(seed: int) -> tuple[MultiVectors, MultiVectors, GroundTruth, list[str], list[int]]:
    """Titles and images of 1 to 3 vectors; some titles and images are equal, some unnamed."""
    random = np.random.default_rng(seed)
    queries, items = 9, 14

    def vectors(count: int) -> MultiVectors:
        return MultiVectors.from_list(
            [torch.from_numpy(random.normal(size=(random.integers(1, 4), 3)).astype(np.float32))
             for _ in range(count)]
        )  # fmt: skip

    titles = [f"商品{random.integers(6)}" for _ in range(queries)]
    hashes = random.integers(0, 9, items).tolist()
    answers = [sorted(set(random.integers(0, 11, random.integers(0, 3)).tolist()))
               for _ in range(queries)]  # fmt: skip
    offsets = np.cumsum([0, *map(len, answers)])
    flat = np.array([item for own in answers for item in own], np.int64)
    positives = Positives.build(titles, np.array(hashes), offsets, flat)
    truth = GroundTruth(positives, offsets, flat)
    return vectors(queries), vectors(items), truth, titles, hashes


@pytest.mark.parametrize("margin", [None, 0.0, 0.05, 0.6])
@pytest.mark.parametrize("seed", range(12))
def test_mined_negatives_are_those_of_a_literal_search(seed: int, margin: float | None) -> None:
    texts, images, truth, titles, hashes = random_case(seed)
    count = 3
    found = mine_vectors(texts, images, truth, count, margin)
    answers = [
        truth.items[begin:end].tolist()
        for begin, end in zip(truth.item_offsets[:-1], truth.item_offsets[1:], strict=True)
    ]
    for query, own in enumerate(answers):
        scores = [
            sum(max(float(bag @ patch) for patch in images[i : i + 1].values)
                for bag in texts[query : query + 1].values)
            for i in range(len(images))
        ]  # fmt: skip
        expected = []
        for image in sorted(range(len(images)), key=lambda i: -scores[i]):
            named = any(image in others for others in answers)
            match = any(
                titles[q] == titles[query] and hashes[a] == hashes[image]
                for q, others in enumerate(answers)
                for a in others
            )
            best = max((scores[i] for i in own), default=0.0)
            close = margin is not None and scores[image] > best - margin * abs(best)
            if own and named and not match and not close:
                expected.append(image)
        expected = expected[:count]
        assert found.positions[query].tolist() == expected + [-1] * (count - len(expected))
        assert found.scores[query][: len(expected)].tolist() == pytest.approx(
            [scores[image] for image in expected], abs=1e-5
        )


def test_titles_whose_first_images_all_match_are_ranked_deeper() -> None:
    """Forty equal images come first; the one other image is found behind them."""
    values = torch.ones(60, 1, 2)
    values[50:] = 0.5
    images = MultiVectors.from_list(list(values))
    hashes = np.array([0] * 50 + list(range(1, 11)))
    items = np.arange(60)
    truth = GroundTruth(
        Positives.build([f"t{n}" for n in range(60)], hashes, np.arange(61), items),
        np.arange(61), items,
    )  # fmt: skip
    found = mine_vectors(images, images, truth, 2)
    assert (found.positions[:50] >= 50).all()


# Training.


def batch_images(batches: TrainBatches, number: int) -> list[int]:
    return [int(i) for i in batches.batch(number).image_ids]


@pytest.mark.parametrize("each", [1, 3])
def test_a_batch_holds_negatives_of_the_titles_that_begin_its_groups(
    store: Store, tmp_path: Path, mined: Path, each: int
) -> None:
    """With several titles of an image, the first one begins the group."""
    items = [f"data.hard_negatives={mined}", f"data.titles_per_image={each}"]
    config = small_config("demo", None, tmp_path, *items)
    notes = Remarks()
    trainer = make_trainer(
        new_model(config), config, store, tmp_path / "run", False, SINGLE_PROCESS, notes
    )
    assert "16 of 16 titles" in notes.notes[0]
    lines = [json.loads(line) for line in mined.read_text().splitlines()]
    known = {line["query_id"]: line["negatives"] for line in lines}
    seen: dict[int, set[tuple[int, ...]]] = {}
    for number in range(12):  # six epochs
        batch = trainer.batches.batch(number)
        images, titles = batch.image_ids.tolist(), batch.query_ids.tolist()[::each]
        assert len(images) == 8
        for begin in (0, 4):
            group = images[begin + 1 : begin + 4]
            assert set(group) <= set(known[titles[begin]])
            assert len(set(group)) == 3
            seen.setdefault(titles[begin], set()).add(tuple(sorted(group)))
        again = trainer.batches.batch(number)
        assert again.image_ids.tolist() == images
    assert any(len(groups) > 1 for groups in seen.values())  # other ones in other epochs


def test_titles_with_few_negatives_keep_random_pairs(
    store: Store, tmp_path: Path, mined: Path
) -> None:
    few = tmp_path / "few.jsonl"
    lines = [json.loads(line) for line in mined.read_text().splitlines()]
    few.write_text("".join(
        json.dumps({"query_id": line["query_id"], "negatives": line["negatives"][: n % 3]}) + "\n"
        for n, line in enumerate(lines) if n != 5
    ))  # fmt: skip
    one = "data.titles_per_image=1"
    config = small_config("demo", None, tmp_path, f"data.hard_negatives={few}", one)
    notes = Remarks()
    plain = small_config("demo", None, tmp_path, one)
    ours, theirs = (
        make_trainer(
            new_model(one), one, store, tmp_path / "run", False, SINGLE_PROCESS, notes
        ).batches
        for one in (config, plain)
    )
    assert "16 titles have fewer than 3" in notes.warnings[0]
    for number in range(4):
        images, random = batch_images(ours, number), batch_images(theirs, number)
        assert len(images) == 8
        for begin in (0, 4):
            title = ours.batch(number).query_ids.tolist()[begin]
            there = [line for n, line in enumerate(lines) if line["query_id"] == title and n != 5]
            count = lines.index(there[0]) % 3 if there else 0
            assert images[begin + 1 + count : begin + 4] == random[begin + 1 + count : begin + 4]


@pytest.mark.parametrize("each", [1, 2])
def test_a_run_with_hard_negatives_resumes_to_the_bit(
    store: Store, tmp_path: Path, mined: Path, each: int
) -> None:
    items = [f"data.hard_negatives={mined}", "data.negatives_per_title=2",
             f"data.titles_per_image={each}"]  # fmt: skip
    assert_resume_is_exact(store, tmp_path, "demo", None, *items)


def test_a_file_that_changed_since_the_start_is_not_resumed_with(
    store: Store, tmp_path: Path, mined: Path
) -> None:
    file, run = tmp_path / "hard.jsonl", tmp_path / "run"
    content = mined.read_bytes()
    file.write_bytes(content)
    items = [f"data.hard_negatives={file}", "training.max_steps=1"]
    config = small_config("demo", None, tmp_path, *items)
    start_run(config, store, run, new_model(config))
    more = resume_config(run, ["training.max_steps=2"])
    file.write_bytes(b"".join(reversed(content.splitlines(keepends=True))))
    with pytest.raises(DataError, match="has changed since the run was started") as caught:
        resume_run(more, store, run)
    assert caught.value.where == f"data.hard_negatives: {file}"
    assert "--checkpoint" in str(caught.value.hint)
    file.unlink()
    with pytest.raises(InputError, match="No such file"):
        resume_run(more, store, run)
    file.write_bytes(content)
    assert resume_run(more, store, run).steps == 2


def test_a_run_that_begins_again_takes_the_file_of_today(
    store: Store, tmp_path: Path, mined: Path
) -> None:
    """It was killed before its first save: nothing of it was trained with the older file."""
    file, run = tmp_path / "hard.jsonl", tmp_path / "run"
    file.write_bytes(mined.read_bytes())
    config = small_config("demo", None, tmp_path, f"data.hard_negatives={file}",
                          "training.max_steps=1")  # fmt: skip
    start_run(config, store, run, new_model(config))
    shutil.rmtree(run / "last")
    file.write_bytes(b"".join(reversed(file.read_bytes().splitlines(keepends=True))))
    assert resume_run(resume_config(run), store, run).steps == 1
    assert resume_run(resume_config(run, ["training.max_steps=2"]), store, run).steps == 2


def test_matching_images_of_a_strangers_file_are_left_out(store: Store, tmp_path: Path) -> None:
    split = store.split("train")
    images, query = split.image_ids.tolist(), int(split.query_ids[0])
    own = int(split.image_ids[split.items[0]])
    others = [image for image in images if image != own][:2]
    file = tmp_path / "hard.jsonl"
    file.write_text(json.dumps({"query_id": query, "negatives": [others[0], own, others[1]]}))
    found = read_negatives(file, split)
    assert split.image_ids[found[0][:2]].tolist() == others
    assert (found[0][2:] == -1).all()
    assert (found[1:] == -1).all()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"query_id": 0, "negatives": [999]}', "another dataset"),
        ('{"query_id": 999, "negatives": []}', "another dataset"),
        ('{"query_id": 0}', "not a title"),
        ('{"query_id": "0", "negatives": []}', "not a title"),
        ('{"query_id": 0, "negatives": [1.5]}', "not a title"),
        ('{"query_id": 0, "negatives": 1}', "not a title"),
        ("[1]", "not a title"),
        ("{", "not a title"),
    ],
)
def test_a_line_that_does_not_fit_is_named(
    store: Store, tmp_path: Path, line: str, said: str
) -> None:
    file = tmp_path / "hard.jsonl"
    file.write_text(f"\n{line}\n")
    with pytest.raises(DataError, match=said) as caught:
        read_negatives(file, store.split("train"))
    assert caught.value.where == f"data.hard_negatives: {file}:2"


def test_a_missing_file_and_two_sources_of_negatives_are_refused(
    store: Store, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_negatives(tmp_path / "none.jsonl", store.split("train"))
    with pytest.raises(ConfigError, match="exclude each other"):
        load_config("demo", ["distill={mined: true, candidates: 2, teacher: x}",
                             "data.hard_negatives=hard.jsonl"])  # fmt: skip


def test_xmr_mine_writes_a_file_that_training_reads(
    store: Store, tmp_path: Path, xmr: Callable[..., Any]
) -> None:
    data = store.path.parent
    config = small_config("demo", None, tmp_path, f"data.dataset={data}")
    save_model(new_model(config), tmp_path / "model")
    out = tmp_path / "hard.jsonl"
    run = xmr("mine", "--checkpoint", tmp_path / "model", "--dataset", data, "--k", 3, "--out",
              out, "--json")  # fmt: skip
    assert run.code == 0, run.err
    report = run.json()
    assert (report["titles"], report["negatives"], report["titles_with_fewer"]) == (16, 48, 0)
    assert (read_negatives(out, store.split("train")) >= 0).sum() == 48
    line = json.loads(out.read_text().splitlines()[0])
    assert line.keys() == {"query_id", "negatives", "scores"}
    assert line["scores"] == sorted(line["scores"], reverse=True)
    shown = xmr("mine", "--checkpoint", tmp_path / "model", "--dataset", data, "--out", out,
                "--false-negative-margin", 0.05)  # fmt: skip
    assert shown.code == 0, shown.err
    assert f"--set data.hard_negatives={out}" in shown.out
