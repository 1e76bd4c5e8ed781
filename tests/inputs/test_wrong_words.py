"""Whatever a user does wrong is answered in one block, in the user's words, with exit code 2."""

from __future__ import annotations

import base64
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from tests.support.black_box import (
    DATA,
    assert_no_bug,
    assert_refused,
    process,
)
from tests.support.datasets import picture
from tests.support.small_model import TINY, set_options

SETS = set_options(*TINY, "training.batch_size=4")

# Training that cannot start, or diverges.
BAD_STARTS = {
    "no pretrained text": ["--set", "text.pretrained=/nowhere/bert"],
    "no pretrained image": ["--set", "image.pretrained=/nowhere/vit"],
    "no backbone": ["--set", "image.backbone=nothing_like_this"],
    "no teacher": ["--mode", "shrinktobase", "--teacher", "/nowhere"],
    "no checkpoint": ["--checkpoint", "/nowhere"],
    "no dictionary": ["--set", "text.lexicons=[/nowhere/words.txt]"],
    "no tokenizer": ["--set", "text.tokenizer=/nowhere/vocab.txt"],
    "too large a batch": ["--set", "training.batch_size=1000"],
    "options that do not fit": ["--set", "image.options={depth: x}"],
}


@pytest.mark.parametrize("kind", BAD_STARTS)
def test_a_start_that_fails_leaves_no_run_folder(
    xmr: Callable[..., Any], home: Path, kind: str
) -> None:
    run = xmr("train", "--config", "demo", "--dataset", "set", *SETS, "--set",
              "training.max_steps=1", *BAD_STARTS[kind])  # fmt: skip
    if kind == "too large a batch" and run.code == 0:
        return
    assert_refused(run)
    left = list((home / "runs").rglob("*")) if (home / "runs").exists() else []
    assert left == []


@pytest.mark.parametrize("itm", ["0.5", "0"])
def test_a_training_that_diverges_gives_the_advice_about_nan(
    xmr: Callable[..., Any], home: Path, itm: str
) -> None:
    run = xmr("train", "--config", "demo", "--dataset", "set", *SETS,
              "--set", "training.learning_rate=1e20", "--set", "training.clip=null",
              "--set", "training.warmup_steps=0", "--set", "training.max_steps=12",
              "--set", f"objectives.itm={itm}", "--output-dir", "runs/a")  # fmt: skip
    assert_no_bug(run)
    assert run.code in (1, 2)
    assert "probability tensor" not in run.err
    assert "learning" in run.err  # the advice names the learning rate


# Damaged input.
@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("MR_train_imgs.tsv", "no tab\n"),
        ("MR_train_imgs.tsv", "x\tAAAA\n"),
        ("MR_train_queries.jsonl", "oops\n"),
        ("MR_train_queries.jsonl", '{"query_id": 1, "query_text": "红", "item_ids": [1]}\n'),
        ("MR_train_queries.jsonl", '{"query_id": 99, "query_text": "红", "item_ids": [77]}\n'),
    ],
)
def test_a_broken_line_that_stops_training_is_named_with_what_to_do(
    xmr: Callable[..., Any], home: Path, file: str, line: str
) -> None:
    with (home / "set" / file).open("a") as stream:
        stream.write(line)
    run = xmr("train", "--config", "demo", "--dataset", "set", *SETS)
    assert_refused(run, f"{file}:9", "xmr data check set")


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.1, 1 / 3, 0.9, 0.999])
def test_a_cut_lmdb_is_refused_before_it_is_mapped(tmp_path: Path, share: float) -> None:
    folder = copytree(DATA / "15-lmdb-cut/ok3", tmp_path / "ok3")
    data = folder / "lmdb/train/imgs/data.mdb"
    if share != 1 / 3:  # the case itself is cut to a third of 40,960 bytes
        pytest.importorskip("lmdb")
        import lmdb

        data.unlink()
        with lmdb.open(str(data.parent), map_size=1 << 20) as opened, opened.begin(write=True) as t:
            for number in range(6):
                t.put(str(number).encode(), base64.urlsafe_b64encode(picture(number) * 8))
        size = data.stat().st_size
        os.truncate(data, int(size * share))
    ended = process("data", "import", folder / "lmdb", "--out", tmp_path / "o", cwd=tmp_path)
    assert_no_bug(ended)
    assert ended.code == 2, (ended.code, ended.err)
    assert "data.mdb" in ended.err or "imgs" in ended.err
    assert {entry.name for entry in tmp_path.iterdir()} <= {"ok3"}


# Offline.
class Hub:
    """A server on this machine that counts connections and closes each at once."""

    def __init__(self) -> None:
        self.connections = 0
        self._ending = False
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            if self._ending:
                connection.close()
                return
            self.connections += 1
            connection.close()

    def __enter__(self) -> Hub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending = True
        socket.create_connection(self._socket.getsockname()).close()
        self._thread.join()
        self._socket.close()


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub that drops every connection."""
    with Hub() as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["text.pretrained=bert-base-chinese", "image.pretrained=true"])
def test_offline_one_sentence_names_the_setting_and_what_to_do(
    home: Path, hub: Hub, setting: str
) -> None:
    train = ["train", "--config", "demo", "--dataset", "set", *SETS,
             "--set", "image.backbone=resnet10t", "--set", "image.options={}",
             "--set", "text.layers=1", "--set", setting]  # fmt: skip
    env: dict[str, str | None] = {
        "HF_HUB_OFFLINE": None, "HF_ENDPOINT": hub.url, "TRANSFORMERS_OFFLINE": None,
        "HF_HOME": str(home / "hub"), "TORCH_HOME": str(home / "torch"),
    }  # fmt: skip
    ended = process(*train, cwd=home, env=env)
    assert_refused(ended, setting.partition("=")[0], "HF_ENDPOINT", "ModelScope")
    assert "folder" in ended.err
    assert "Retry" not in ended.err
    assert "retry" not in ended.err
    assert len(ended.err.splitlines()) < 10, ended.err
    # The clients of the hub would ask five times or more, and wait longer each time.
    assert 1 <= hub.connections <= 2
    assert not (home / "runs").exists()


# Ordinary mistakes.
ERRORS: dict[str, str] = {
    "no command of this name": "serach 红",
    "bags without a title": "bags",
    "bags of a missing file": "bags --input gone.txt",
    "bags of a folder": "bags --input .",
    "bags with a missing dictionary": "bags 红 --lexicon gone.txt",
    "bags with a picture as dictionary": "bags 红 --lexicon p0.jpg",
    "bags with a picture as gold": "bags --gold p0.jpg",
    "bags with no workers": "bags 红 --workers 0",
    "bags with words as workers": "bags 红 --workers two",
    "bags with an unknown option": "bags 红 --lexikon x",
    "bags with a missing tokenizer": "bags 红 --tokenizer gone.txt",
    "bags into a folder": "bags 红 --output .",
    "dict check of a missing file": "dict check gone.txt",
    "dict check of nothing": "dict check",
    "dict stats of a missing file": "dict stats gone.txt",
    "dict mine of a missing file": "dict mine gone.txt",
    "dict mine with a negative count": "dict mine titles.txt --min-count -1",
    "dict mine into a missing drive": "dict mine titles.txt --out /proc/x.tsv",
    "data check of a missing folder": "data check gone",
    "data check of an empty folder": "data check empty",
    "data import of a missing file": "data import gone.csv --out o",
    "data import of a picture": "data import p0.jpg --out o",
    "data import without out": "data import t.csv",
    "data import onto a dataset": "data import t.csv --out set",
    "data import of an unknown encoding": "data import t.csv --out o --encoding utf-99",
    "data import with a share over 1": "data import t.csv --out o --valid 1.5",
    "data import with shares over 1": "data import t.csv --out o --valid 0.6 --test 0.6",
    "data import of an unknown split": "data import t.csv --out o --split dev",
    "data demo of no images": "data demo --out o --images 0",
    "data demo of negative images": "data demo --out o --images -5",
    "data regions of a missing folder": "data regions gone",
    "preprocess of a missing dataset": "preprocess --dataset gone",
    "preprocess with a missing config": "preprocess --dataset set --config gone.yaml",
    "preprocess of muge without muge": "preprocess --dataset muge",
    "preprocess with an unknown engine": "preprocess --dataset set --engine spark",
    "encode of a missing file": "encode gone.csv --out v --checkpoint MODEL",
    "encode without out": "encode t.csv --checkpoint MODEL",
    "encode without a model": "encode t.csv --out v",
    "encode with a missing model": "encode t.csv --out v --checkpoint gone",
    "encode of an unknown dtype": "encode t.csv --out v --checkpoint MODEL --dtype int4",
    "encode that keeps none": "encode t.csv --out v --checkpoint MODEL --keep 0",
    "encode that prunes too much": "encode t.csv --out v --checkpoint MODEL --prune 2",
    "encode on an unknown device": "encode t.csv --out v --checkpoint MODEL --device tpu9",
    "encode of no batch": "encode t.csv --out v --checkpoint MODEL --batch-size 0",
    "encode of an unknown split": "encode set --out v --checkpoint MODEL --split dev",
    "encode of a missing split": "encode set --out v --checkpoint MODEL --split test",
    "index build of a missing file": "index build gone.csv i --checkpoint MODEL",
    "index build of an empty folder": "index build empty i --checkpoint MODEL",
    "index build onto a file": "index build t.csv t.csv --checkpoint MODEL",
    "index build with a dataset as model": "index build t.csv i --checkpoint set",
    "index build with a picture as model": "index build t.csv i --checkpoint p0.jpg",
    "index build of an unknown encoding": "index build t.csv i --checkpoint MODEL --encoding x",
    "index build of an undefined encoding":
        "index build t.csv i --checkpoint MODEL --encoding undefined",
    "index build of no encoding": "index build t.csv i --checkpoint MODEL --encoding rot13",
    "index build at an unknown address": "index build t.csv ftp://x/y --checkpoint MODEL",
    "index build of negative thumbnails": "index build t.csv i --checkpoint MODEL --thumbnail -1",
    "index build with a missing root": "index build t.csv i --checkpoint MODEL --root gone",
    "index build of a folder with a split": "index build photos i --checkpoint MODEL --split valid",
    "index add to nothing": "index add t.csv gone",
    "index add of a missing file": "index add gone.csv INDEX",
    "index remove of nothing": "index remove INDEX",
    "index remove from nothing": "index remove gone a0",
    "index remove with a wrong filter": "index remove INDEX --where pirce<3",
    "index info of nothing": "index info gone",
    "index info of a dataset": "index info set",
    "index info of a file": "index info t.csv",
    "search without a query": "search --index INDEX",
    "search for nothing": "search  --index INDEX",
    "search in nothing": "search 红 --index gone",
    "search in a dataset": "search 红 --index set",
    "search with a missing image": "search --image gone.jpg --index INDEX",
    "search with a table as image": "search --image t.csv --index INDEX",
    "search for queries of no file": "search --queries gone.txt --index INDEX",
    "search for queries twice": "search 红 --queries t.csv --index INDEX",
    "search into an unknown form": "search 红 --index INDEX --output run.txt",
    "search with a weight above 1": "search 红 --image p0.jpg --weight 2 --index INDEX",
    "search for no results": "search 红 --index INDEX -k 0",
    "search with an unknown column": "search 红 --index INDEX --where pirce<3",
    "search with half a filter": "search 红 --index INDEX --where price<",
    "search of unknown sides": "search 红 --index INDEX --of bags",
    "search with a negative rerank": "search 红 --index INDEX --rerank -1",
    "search on an unknown device": "search 红 --index INDEX --device gpu",
    "search on a missing card": "search 红 --index INDEX --device cuda:99",
    "search into a wrong page": "search 红 --index INDEX --output page.pdf",
    "search with no candidates": "search 红 --index INDEX --recall vector --candidates 0",
    "search with a missing model": "search 红 --index INDEX --checkpoint gone",
    "train with an unknown key": "train --dataset set --set traning.epochs=1",
    "train with a wrong value": "train --dataset set --set training.epochs=many",
    "train with half a setting": "train --dataset set --set training.epochs",
    "train with an unknown mode": "train --dataset set --mode fats",
    "train with an unknown config": "train --dataset set --config gone.yaml",
    "train with a picture as config": "train --dataset set --config p0.jpg",
    "train with a missing dataset": "train --dataset gone",
    "train with a missing checkpoint": "train --dataset set --checkpoint gone",
    "train that resumes nothing": "train --resume",
    "train that resumes a dataset": "train --resume --output-dir set",
    "train with a huge seed": f"train --dataset set --seed {2**70}",
    "train with a negative seed": "train --dataset set --seed -1",
    "train with an unknown interaction": "train --dataset set --interaction wordwise",
    "train with a batch of one": "train --dataset set --set training.batch_size=1",
    "eval without a model": "eval --dataset set",
    "eval with a missing model": "eval --dataset set --checkpoint gone",
    "eval of a missing dataset": "eval --dataset gone --checkpoint MODEL",
    "eval of a missing split": "eval --dataset set --split test --checkpoint MODEL",
    "eval with words as rerank": "eval --dataset set --checkpoint MODEL --rerank many",
    "eval with missing items": "eval --dataset set --checkpoint MODEL --items gone.txt",
    "eval with missing products": "eval --dataset set --checkpoint MODEL --products gone.tsv",
    "eval with a missing slow model": "eval --dataset set --checkpoint MODEL --slow gone",
    "compare of nothing": "compare",
    "compare of missing runs": "compare gone1 gone2 --dataset set",
    "score without a title": "score p0.jpg --checkpoint MODEL",
    "score of a missing image": "score gone.jpg 红 --checkpoint MODEL",
    "score of a table": "score t.csv 红 --checkpoint MODEL",
    "score of a folder": "score set 红 --checkpoint MODEL",
    "score without a model": "score p0.jpg 红",
    "convert of a missing file": "convert bagformer gone.pth o --vocab v.txt --lexicon l.txt",
    "convert of a picture": "convert bagformer p0.jpg o --vocab titles.txt --lexicon titles.txt",
    "bench of an unknown part": "bench speed",
    "bench of missing titles": "bench titles --titles gone.txt",
}  # fmt: skip


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def without_store(names: set[str]) -> set[str]:
    """Drop the dataset's store (``.xmr``), which any command may make."""
    return {name for name in names if ".xmr" not in name}


@pytest.mark.parametrize("kind", ERRORS)
def test_an_ordinary_mistake_is_one_block_and_leaves_nothing(
    xmr: Callable[..., Any], model: Path, shared_index: Path, home: Path, kind: str
) -> None:
    (home / "empty").mkdir()
    (home / "photos").mkdir()
    (home / "photos/a.jpg").write_bytes((home / "p0.jpg").read_bytes())
    before = tree(home)
    words = {"MODEL": str(model), "INDEX": str(shared_index)}
    arguments = [words.get(part, part) for part in ERRORS[kind].split(" ")]
    if kind == "search for nothing":
        assert "" in arguments
    run = xmr(*arguments)
    assert_refused(run)
    blocks = [line for line in run.err.splitlines() if line.startswith("Error")]
    assert len(blocks) == 1, run.err
    assert run.out == ""
    assert without_store(tree(home) - before) == set()
