"""F1, F5, F6, F13, F14, F16, F29: what was written stays, what was stopped continues."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import warm
from tests.support.black_box import (
    BUG,
    Shop,
    assert_no_bug,
    assert_refused,
    environment,
    process,
    program,
)
from tests.support.datasets import picture, write_split
from tests.support.small_model import TINY, set_options

TRAIN = ["training.batch_size=8", "training.evaluate_every=100", "training.schedule_steps=40"]


def tensors(folder: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


# F1: a resumed run is the run that never stopped.
@pytest.mark.slow
def test_f01_a_resumed_run_of_convolutions_is_the_run_that_never_stopped(home: Path) -> None:
    """Adam's moments of channels-last weights, which the default config has."""
    channels = "image.options={channels: [8, 12, 16, 24], output_stride: 8, stem_width: 8}"
    small = ["text.layers=1", "text.width=32", "text.heads=2", "text.feed_forward=48",
             "image.size=32", "model.embed_dim=16", channels]  # fmt: skip
    start = ["train", "--config", "demo", "--dataset", "set", *set_options(*small, *TRAIN)]
    whole = process(*start, "--output-dir", "a", *set_options("training.max_steps=8"), cwd=home)
    half = process(*start, "--output-dir", "b", *set_options("training.max_steps=4"), cwd=home)
    rest = process("train", "--resume", "--output-dir", "b", *set_options("training.max_steps=8"),
                   cwd=home)  # fmt: skip
    assert [whole.code, half.code, rest.code] == [0, 0, 0], whole.err + half.err + rest.err
    resumed = tensors(home / "b/last")
    for name, value in tensors(home / "a/last").items():
        assert np.array_equal(value, resumed[name]), name


# F5: drawing that was interrupted continues.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "appeared"),
    [("SIGINT", "*.jsonl"), ("SIGKILL", ".*"), ("SIGTERM", ".*"), ("SIGKILL", "*_imgs.tsv")],
)
def test_f05_a_demo_dataset_interrupted_while_it_is_drawn_is_finished(
    tmp_path: Path, name: str, appeared: str
) -> None:
    command = ["preprocess", "--text-only", "--workers", "1"]
    folder = tmp_path / "data/demo"
    started = warm.start(command, environment(), tmp_path)
    deadline = time.monotonic() + 120
    while started.poll() is None and time.monotonic() < deadline:
        if any(folder.parent.rglob(appeared)):
            break
        time.sleep(0.005)
    time.sleep(0.3)
    os.killpg(started.pid, getattr(signal, name))
    try:
        started.wait(timeout=30)
    except subprocess.TimeoutExpired:
        started.kill()
    ended = process(*command, cwd=tmp_path, timeout=300)
    assert ended.code == 0, ended.err
    assert not [path for path in folder.parent.rglob("*.part") if ".xmr" not in str(path)]
    assert len(list(folder.glob("*_imgs.tsv"))) == len(list(folder.glob("*_queries.jsonl"))) == 3


# F6: what is acknowledged is on the disk.
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("command", ["build", "add", "remove"])
def test_f06_every_file_of_an_acknowledged_index_write_is_synced(shop: Shop, command: str) -> None:
    table = shop.write("t.csv", "id,image,title\na0,p0.jpg,红裙\na1,p1.jpg,蓝裤\n")
    more = shop.write("m.csv", "id,image,title\na2,p2.jpg,白鞋\n")
    index = Path(shop.index)
    if command != "build":
        shop.built(table)
    before = {path: path.stat().st_mtime_ns for path in index.rglob("*") if path.is_file()}
    arguments = {
        "build": ["index", "build", table, index, "--checkpoint", shop.model],
        "add": ["index", "add", more, index],
        "remove": ["index", "remove", index, "a0"],
    }[command]
    log = shop.folder / "strace.log"
    ended = process(
        command=["strace", "-f", "-y", "-qq", "-e", "trace=fsync,fdatasync,sync,syncfs", "-o",
                 str(log), *program(*arguments)],
        timeout=300,
    )  # fmt: skip
    if ended.code != 0 and "ptrace" in ended.err:
        pytest.skip("strace is forbidden here")
    assert ended.code == 0, ended.err
    text = log.read_text(errors="replace")
    synced = {Path(name) for name in re.findall(r"<([^>]+)>", text)}
    written = {
        path
        for path in index.rglob("*")
        if path.is_file()
        and "items.lance" in str(path)
        and path.suffix in (".lance", ".manifest", ".txn", ".arrow", ".bin")
        and before.get(path) != path.stat().st_mtime_ns
    }
    assert written
    if not re.search(r"\bsync(fs)?\(", text):
        assert {path.name for path in written} <= {path.name for path in synced}
        assert {path.parent for path in written} <= synced


# F13: nothing temporary stays.
def leftovers(*folders: Path) -> list[str]:
    """Temporary files and folders below some folders."""
    return [
        str(path)
        for folder in folders
        for path in folder.rglob("*")
        if path.name.endswith((".part", ".old", ".tmp", ".lock.part"))
    ]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "data import", "bags", "dict mine", "data demo"])
def test_f13_the_next_command_cleans_what_a_dead_one_left(home: Path, command: str) -> None:
    """Killed as soon as a temporary file is there; then run to the end."""
    cache = home / "cache"
    env: dict[str, str | None] = {"XMR_CACHE": str(cache)}
    rows = [f"{n},p{n % 10}.jpg,红裙{n},{n}" for n in range(3000)]
    (home / "big.csv").write_text("\n".join(["id,image,title,price", *rows]) + "\n", "utf-8")
    (home / "many.txt").write_text("".join(f"新款潮玩盲盒{n}号红裙\n" for n in range(60_000)))
    resume = ["train", "--resume", "--output-dir", "r", *set_options("training.max_steps=60")]
    first, again = {
        "train": (resume,) * 2,
        "data import": (["data", "import", "big.csv", "--out", "o"],) * 2,
        "bags": (["bags", "红裙"],) * 2,
        "dict mine": (["dict", "mine", "many.txt", "--out", "mined.tsv"],) * 2,
        "data demo": (["data", "demo", "--out", "d", "--images", "300", "--workers", "1"],) * 2,
    }[command]
    if command != "bags":
        process("bags", "红裙", cwd=home, env=env)
    if command == "train":  # a run that was killed before its folder was made is no run
        process("train", "--config", "demo", "--dataset", "set", "--output-dir", "r",
                *set_options(*TINY, *TRAIN, "training.save_every=1", "training.max_steps=1"),
                cwd=home, env=env)  # fmt: skip
    seen = False
    for _ in range(6):
        started = warm.start(first, environment(**env), home)
        deadline = time.monotonic() + 90
        while started.poll() is None and time.monotonic() < deadline and not leftovers(home):
            time.sleep(0.001)
        started.kill()
        if leftovers(home):
            seen = True
            break
    ended = process(*again, cwd=home, env=env, timeout=300)
    assert ended.code == 0, ended.err
    assert leftovers(home) == []
    if not seen:
        pytest.skip("no temporary file was caught: nothing was tested")


# F14: a full disk.


# A model folder is 10 MB (its dictionary 8.6, its weights 1.3): the sizes end in different files.
@pytest.mark.parametrize(
    "small_disk", ["1m", "9300k", "11m", "13m", "20m", "22m", "24m"], indirect=True
)
def test_f14_a_full_disk_at_a_checkpoint_is_one_sentence(
    xmr: Callable[..., Any], home: Path, small_disk: Path
) -> None:
    run = xmr("train", "--config", "demo", "--dataset", "set", "--output-dir", small_disk / "r",
              *set_options(*TINY, *TRAIN, "training.max_steps=3", "training.save_every=1"),
              )  # fmt: skip
    assert_no_bug(run)
    if run.code == 0:
        pytest.skip("the run fits on this disk")
    assert run.code == 2
    assert "disk is full" in run.err
    assert ".part" not in run.err
    assert sum(line.startswith("Error") for line in run.err.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("limit", [10_000, 60_000, 300_000])
@pytest.mark.parametrize(
    "command",
    [
        "train --config demo --dataset set --output-dir r SETS",
        "index build t.csv i --checkpoint MODEL --dtype float32",
        "encode t.csv --out v --checkpoint MODEL",
        "data import t.csv --out o",
        "data demo --out d --images 60",
        "preprocess --dataset set --config demo",
        "bags --input many.txt --output b.jsonl",
        "dict mine many.txt --out mined.tsv",
    ],
)
def test_f14_a_file_that_cannot_grow_is_one_sentence_everywhere(
    model: Path, home: Path, command: str, limit: int
) -> None:
    """RLIMIT_FSIZE makes writes fail as a full disk or a quota does, with EFBIG."""
    (home / "many.txt").write_text("".join(f"新款潮玩盲盒{n}号红裙\n" for n in range(30_000)))
    arguments: list[str] = []
    for part in command.split():
        if part == "SETS":
            arguments += set_options(*TINY, *TRAIN, "training.max_steps=2")
        else:
            arguments.append(str(model) if part == "MODEL" else part)
    process("bags", "红", cwd=home)  # the lexicon's cache is no part of this
    ended = process(*arguments, cwd=home, file_size=limit, timeout=180)
    assert not BUG.search(ended.err), ended.err
    assert ended.code in (0, 2), (ended.code, ended.err)
    if ended.code:
        assert re.search(r"disk|too large|quota", ended.err, re.IGNORECASE), ended.err
        assert sum(line.startswith("Error") for line in ended.err.splitlines()) == 1
        assert ".part" not in ended.err
        assert leftovers(home) == []


# F16: output replaces no device, no link, no input.
def test_f16_a_device_stays_a_device(xmr: Callable[..., Any], home: Path) -> None:
    try:
        os.mknod("null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        Path("null").write_text("x")
    except OSError:
        pytest.skip("no device can be made here")
    run = xmr("bags", "红裙", "--output", "null")
    assert_no_bug(run)
    assert stat.S_ISCHR(os.stat("null").st_mode)
    assert run.code in (0, 2)


def test_f16_a_fifo_stays_a_fifo(xmr: Callable[..., Any], home: Path) -> None:
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDWR | os.O_NONBLOCK)
    try:
        run = xmr("bags", "红裙", "--output", "pipe")
        assert_no_bug(run)
        assert stat.S_ISFIFO(os.stat("pipe").st_mode)
        if run.code == 0:
            assert "红裙".encode() in os.read(reader, 1 << 16)
        else:
            assert run.code == 2
    finally:
        os.close(reader)


def test_f16_the_target_of_a_link_is_written(xmr: Callable[..., Any], home: Path) -> None:
    Path("real.jsonl").write_text("old")
    os.symlink("real.jsonl", "link.jsonl")
    run = xmr("bags", "红裙", "--output", "link.jsonl")
    assert os.path.islink("link.jsonl")
    if run.code == 0:
        assert "红裙" in Path("real.jsonl").read_text("utf-8")
    else:
        assert_refused(run, "link.jsonl")
        assert Path("real.jsonl").read_text() == "old"


@pytest.mark.parametrize("way", ["the same name", "another spelling", "a link"])
@pytest.mark.parametrize(
    ("command", "precious"),
    [
        ("bags --input titles.txt --output OUT", "titles.txt"),
        ("bags 红 --lexicon titles.txt --output OUT", "titles.txt"),
        ("dict mine titles.txt --out OUT", "titles.txt"),
        ("eval --dataset set --checkpoint MODEL --submission OUT", "set/MR_valid_queries.jsonl"),
        ("search --image page.html --index INDEX --output OUT", "page.html"),
        ("dict check titles.txt --repair OUT", "titles.txt"),
    ],
)
def test_f16_an_input_is_never_overwritten(
    shop: Shop, home: Path, command: str, precious: str, way: str
) -> None:
    repeated = "红裙\n" if "--repair" in command else ""
    Path("titles.txt").write_text(f"红裙\n{repeated}蓝裤\n", "utf-8")
    shutil.copy("p0.jpg", "page.html")
    if "INDEX" in command:
        shop.built(shop.write("t.csv", "id,image,title\na0,p0.jpg,红裙\n"))
    before = Path(precious).read_bytes()
    out = precious
    if way == "another spelling":
        out = os.path.join("..", home.name, precious)
    elif way == "a link":
        os.symlink(os.path.abspath(precious), "link.html")
        out = "link.html"
    words = {"OUT": out, "MODEL": str(shop.model), "INDEX": str(shop.index)}
    run = shop.xmr(*[words.get(part, part) for part in command.split()])
    assert Path(precious).read_bytes() == before
    assert_refused(run)


# F29: SIGTERM and SIGHUP save like Ctrl-C.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_f29_a_signal_that_asks_to_stop_saves(home: Path, name: str) -> None:
    arguments = ["train", "--config", "demo", "--dataset", "set", "--output-dir", "r",
                 *set_options(*TINY, "training.batch_size=8", "training.evaluate_every=100000",
                       "training.max_steps=100000", "training.log_every=1",
                       "training.schedule_steps=100000")]  # fmt: skip
    started = subprocess.Popen(program(*arguments), cwd=home, env=environment(),
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                               start_new_session=True)  # fmt: skip
    log = home / "r/metrics.jsonl"
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and started.poll() is None:
        if log.exists() and log.read_text().count("\n") >= 12:
            break
        time.sleep(0.05)
    started.send_signal(getattr(signal, name))
    try:
        _, err = started.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()
        raise
    assert "--resume" in err, err[-400:]
    steps = [json.loads(line).get("step", 0) for line in log.read_text().splitlines()]
    last = max(steps)
    assert last >= 8
    ended = process("train", "--resume", "--output-dir", "r",
                    *set_options(f"training.max_steps={last + 1}"), cwd=home)  # fmt: skip
    assert ended.code == 0, ended.err
    again = [json.loads(line).get("step", 0) for line in log.read_text().splitlines()]
    assert again.count(last) == 1  # no step was trained twice


def test_f05_a_dataset_is_never_called_complete_while_a_part_is_missing(
    xmr: Callable[..., Any], home: Path
) -> None:
    """The words for a split without its images say what to do."""
    write_split(home / "half", "train", [(1, "红裙", (1,))], [(1, picture(1))])
    (home / "half/MR_train_imgs.tsv").unlink()
    run = xmr("preprocess", "--dataset", "half", "--config", "demo")
    assert_refused(run, "MR_train_imgs.tsv")
