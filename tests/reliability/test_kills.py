"""Twenty kills at random moments for each command that writes; then it is run to its end.

The end must be that of a run that was never killed, and nothing temporary may stay. Moments come
from fixed seeds and from fresh ones, which a failure names. ``XMR_KILLS`` sets how often; with few
kills this is a quick check, with twenty it is the attack of the report.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from tests.support import warm
from tests.support.black_box import assert_no_bug, case_folder, environment, process
from tests.support.datasets import picture, write_split
from tests.support.killing import killed_at_random
from tests.support.original_weights import VOCABULARY
from tests.support.small_checkpoint import published
from tests.support.small_checkpoint import weights as published_weights
from tests.support.small_model import TINY

KILLS = int(os.environ.get("XMR_KILLS", "20"))
KILLS_OF_A_LIFE = 5
"""After so many kills the command runs to its end, and another folder is attacked."""
SEEDS = [0, time.time_ns() % 10**9]
TRAIN = [part for item in [*TINY, "training.batch_size=8", "training.save_every=2",
                           "training.evaluate_every=1000", "training.schedule_steps=60",
                           "training.max_steps=40"]
         for part in ("--set", item)]  # fmt: skip
UNEQUAL = ("lock", "images.json", "queries.json")
"""Endings of files that hold times of the input, or nothing."""
TEMPORARY = (".part", ".old", ".tmp")


class Attack(NamedTuple):
    """A command that writes.

    Args:
        prepare: Commands that are run once, before.
        command: The command that is killed.
        again: The command that continues it if the same one is refused; None: the same one.
        outcome: Reduces a folder in which it ran to something that can be compared.
    """

    prepare: list[list[str]]
    command: list[str]
    again: list[str] | None
    outcome: Callable[[Path, Path], Any]


def contents(*names: str) -> Callable[[Path, Path], Any]:
    """Digests of all files below some paths, but those that are ``UNEQUAL``."""

    def digest(folder: Path, model: Path) -> dict[str, str]:
        found = {}
        for name in names:
            path = folder / name
            for file in [path] if path.is_file() else sorted(path.rglob("*")):
                if file.is_file() and not file.name.endswith(UNEQUAL):
                    found[str(file.relative_to(folder))] = hashlib.sha256(
                        file.read_bytes()
                    ).hexdigest()
        assert found
        return found

    return digest


def products(folder: Path, model: Path) -> dict[str, Any]:
    """Ids, titles and scores of an index."""
    found = process("search", "红裙", "--index", "i", "-k", 5000, "--checkpoint", model, "--json",
                    cwd=folder)  # fmt: skip
    assert found.code == 0, found.err
    assert "unfinished" not in found.err
    assert "incomplete" not in found.err
    info = process("index", "info", "i", "--json", cwd=folder).json()
    hits = found.json()["results"][0]["hits"]
    assert info["rows"] == len(hits)
    assert info["unfinished"] is False
    return {hit["id"]: (hit["title"], round(hit["score"], 4)) for hit in hits}


def weights(folder: Path, model: Path) -> dict[str, bytes]:
    from safetensors.numpy import load_file

    found = load_file(folder / "r/last/model.safetensors")
    return {name: value.tobytes() for name, value in found.items()}


def vectors(folder: Path, model: Path) -> Any:
    """What an index built from the encoded files finds."""
    built = process("index", "build", "v", "i", cwd=folder)
    assert built.code == 0, built.err
    return products(folder, model)


BUILD = ["index", "build", "many.csv", "i", "--checkpoint", "MODEL", "--batch-size", "16"]
ATTACKS = {
    "data demo": Attack([], ["data", "demo", "--out", "d", "--images", "200"], None,
                        contents("d")),
    "data import": Attack([], ["data", "import", "many.csv", "--out", "o"], None, contents("o")),
    "preprocess": Attack([], ["preprocess", "--dataset", "set", "--config", "demo", "--workers",
                              "1"], None, contents("set/.xmr")),
    "bags": Attack([], ["bags", "--input", "titles.txt", "--output", "b.jsonl", "--workers", "1"],
                   None, contents("b.jsonl")),
    "dict mine": Attack([], ["dict", "mine", "titles.txt", "--out", "mined.tsv"], None,
                        contents("mined.tsv")),
    "encode": Attack([], ["encode", "many.csv", "--out", "v", "--checkpoint", "MODEL",
                          "--piece-size", "16"], None, vectors),
    "index build": Attack([], BUILD, ["index", "add", "many.csv", "i"], products),
    "index add": Attack([["index", "build", "few.csv", "i", "--checkpoint", "MODEL"]],
                        ["index", "add", "many.csv", "i", "--batch-size", "16"], None, products),
    "index remove": Attack([BUILD], ["index", "remove", "i", "--where", "kind = 'odd'"], None,
                           products),
    "train": Attack([["train", "--config", "demo", "--dataset", "set", "--output-dir", "r", *TRAIN,
                      "--set", "training.max_steps=1"]],
                    ["train", "--resume", "--output-dir", "r", "--set", "training.max_steps=40"],
                    None, weights),
    "eval --tune-beta": Attack([["train", "--config", "demo", "--dataset", "set", "--output-dir",
                                 "r", *TRAIN, "--set", "training.max_steps=1"]],
                               ["eval", "--dataset", "set", "--checkpoint", "r", "--tune-beta",
                                "--submission", "s.jsonl"], None,
                               contents("r/best/config.yaml", "s.jsonl")),
    "convert": Attack([], ["convert", "bagformer", "c.pth", "m", "--vocab", "v.txt", "--lexicon",
                           "entities.txt"], None, contents("m")),
    "search --output": Attack([["index", "build", "few.csv", "i", "--checkpoint", "MODEL"]],
                              ["search", "红裙", "--index", "i", "--output", "p.html"], None,
                              products),
}  # fmt: skip


def workplace(folder: Path) -> Path:
    """Write what all attacks start from."""
    case_folder("", folder)
    queries = [(n, f"红色商品{n}号", (100 + n,)) for n in range(1, 41)]
    images = [(100 + n, picture(n)) for n in range(1, 41)]
    for split in ("train", "valid"):
        write_split(folder / "set", split, queries, images)
    head = "id,image,title,kind"
    rows = [f"a{n},p{n % 10}.jpg,红裙{n},{('even', 'odd')[n % 2]}" for n in range(300)]
    (folder / "many.csv").write_text("\n".join([head, *rows]) + "\n", "utf-8")
    (folder / "few.csv").write_text("\n".join([head, *rows[:20]]) + "\n", "utf-8")
    titles = [f"新款潮玩盲盒{n % 97}号红色连衣裙{n}\n" for n in range(20_000)]
    (folder / "titles.txt").write_text("".join(titles), "utf-8")
    torch.save(published(published_weights()), folder / "c.pth")
    (folder / "v.txt").write_text("".join(f"{token}\n" for token in VOCABULARY), "utf-8")
    (folder / "entities.txt").write_text("红色\n连衣裙\n", "utf-8")
    return folder


def run(folder: Path, model: Path, arguments: list[str]) -> Any:
    words = [str(model) if part == "MODEL" else part for part in arguments]
    ended = process(*words, cwd=folder, timeout=300)
    assert_no_bug(ended)
    return ended


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ATTACKS)
def test_kill_at_random_moments_and_the_end_is_that_of_a_run_never_killed(
    model: Path, tmp_path: Path, count: Callable[[str, int, int], None], name: str
) -> None:
    attack = ATTACKS[name]
    process("--version")  # starts the server of warm processes, whose time is not the command's
    prepared = workplace(tmp_path / "prepared")
    for words in attack.prepare:
        assert run(prepared, model, words).code == 0
    whole = shutil.copytree(prepared, tmp_path / "whole")
    ended = run(whole, model, attack.command)
    assert ended.code == 0, ended.err
    right = attack.outcome(whole, model)
    words = [str(model) if part == "MODEL" else part for part in attack.command]
    kills = lives = 0
    longest = ended.seconds
    while kills < KILLS and lives < 8 + 2 * KILLS:
        killed = shutil.copytree(prepared, tmp_path / "killed")
        times = min(KILLS_OF_A_LIFE, KILLS - kills)
        seed = SEEDS[lives % 2] + lives
        lives += 1
        killed_now = killed_at_random(
            partial(warm.start, words, environment(), killed), longest, times, seed
        )
        kills += killed_now
        if killed_now < times:  # the first run was slower: it prepared a cache, or had no core
            longest *= 0.8 if killed_now else 0.5
        about = f"{name}: life {lives}, seed {seed}, {kills} kills until now"
        finish(killed, model, attack, about)
        assert attack.outcome(killed, model) == right, about
        left = [str(path) for path in killed.rglob("*") if path.name.endswith(TEMPORARY)]
        assert left == [], about
        shutil.rmtree(killed)
    assert kills > KILLS // 2, (lives, kills)
    count(name, kills, kills)


def finish(folder: Path, model: Path, attack: Attack, about: str) -> None:
    """Run the command to its end; it may be refused because it was done already."""
    ended = run(folder, model, attack.command)
    if ended.code and attack.again is not None:  # the index is there: `add` goes on
        ended = run(folder, model, attack.again)
    assert ended.code in (0, 2), (about, ended.err)  # the outcome shows whether it was done
