"""F4, F18, F26, F28: several processes at a time, and processes that are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.black_box import (
    BUG,
    Ended,
    Shop,
    assert_no_bug,
    assert_refused,
    environment,
    process,
    program,
)
from tests.support.small_model import TINY, set_options

SETS = set_options(*TINY, "training.batch_size=8")


def side_by_side(
    commands: list[list[str]], cwd: Path, env: dict[str, str | None], timeout: float = 240
) -> list[Ended]:
    """Start commands at once and wait for all."""
    began = time.monotonic()
    started = [
        subprocess.Popen(command, cwd=cwd, env=environment(**env), stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
                         errors="replace", start_new_session=True)
        for command in commands
    ]  # fmt: skip
    ended = []
    for one in started:
        try:
            out, err = one.communicate(timeout=max(1.0, began + timeout - time.monotonic()))
            ended.append(Ended(one.returncode, out, err, time.monotonic() - began))
        except subprocess.TimeoutExpired:
            os.killpg(one.pid, signal.SIGKILL)
            out, err = one.communicate()
            ended.append(Ended(None, out, err, time.monotonic() - began))
    return ended


# F4: several first commands at once.
@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(4))
def test_f04_five_first_commands_share_an_empty_cache(tmp_path: Path, attempt: int) -> None:
    env: dict[str, str | None] = {"XMR_CACHE": str(tmp_path / "cache")}
    ended = side_by_side([program("bags", "红色连衣裙", "--json")] * 5, tmp_path, env)
    assert [one.code for one in ended] == [0] * 5, [one.err for one in ended if one.code]
    assert not [one.err for one in ended if BUG.search(one.err)]
    assert len({one.out for one in ended}) == 1
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.name.endswith((".part", ".old"))]


# F18: a run folder has one writer.
def steps_of(run: Path) -> list[int]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines if "loss" in line]


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(2))
def test_f18_of_three_resumes_of_a_run_one_trains(home: Path, attempt: int) -> None:
    start = program("train", "--config", "demo", "--dataset", "set", "--output-dir", "r", *SETS,
                    "--set", "training.max_steps=5", "--set", "training.schedule_steps=400",
                    "--set", "training.epochs=100",
                    "--set", "training.log_every=1", "--set", "training.save_every=1")  # fmt: skip
    assert process(command=start, cwd=home).code == 0
    again = program("train", "--resume", "--output-dir", "r", "--set", "training.max_steps=120")
    ended = side_by_side([again] * 3, home, {})
    assert not [one.err for one in ended if BUG.search(one.err)]
    codes = sorted(str(one.code) for one in ended)
    assert codes.count("0") >= 1, [one.err for one in ended]
    for one in ended:
        if one.code:
            assert one.code in (1, 2)
            assert "r" in one.err.split()
            assert "process" in one.err or "in use" in one.err or "already" in one.err
    steps = steps_of(home / "r")
    assert steps == sorted(set(steps))
    assert steps[-1] == 120


@pytest.mark.slow
def test_f18_two_trainings_at_once_get_two_folders(home: Path) -> None:
    start = program("train", "--config", "demo", "--dataset", "set", *SETS,
                    "--set", "training.max_steps=3", "--json")  # fmt: skip
    assert process("preprocess", "--dataset", "set", "--config", "demo", cwd=home).code == 0
    ended = side_by_side([start] * 3, home, {})
    assert [one.code for one in ended] == [0, 0, 0], [one.err for one in ended]
    assert len({one.json()["run"] for one in ended}) == 3


# F26: searches beside a writer.
WRITER = """
import sys
from bagformer_cli.cli.main import main
table, index = sys.argv[1:]
print("ready", flush=True)
while True:
    if main(["index", "add", table, index, "--json"]):
        sys.exit(1)
"""


PRODUCTS = [f"a{n}" for n in range(60)]


def encoded(shop: Shop) -> Path:
    """Index the products and encode them to files, so that the writer only writes."""
    rows = [f"{name},p{n % 10}.jpg,红裙{n}" for n, name in enumerate(PRODUCTS)]
    table = shop.write("t.csv", "\n".join(["id,image,title", *rows]) + "\n")
    shop.built(table)
    files = shop.folder / "v"
    run = shop.xmr("encode", table, "--out", files, "--checkpoint", shop.model, "--dtype", "int8")
    assert run.code == 0, run.err
    return files


@contextmanager
def writer_of(files: Path, index: str | Path) -> Iterator[None]:
    """Write the same products again and again from another process, once before the block."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(files), str(index)], env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert writer.stdout is not None
        for _ in range(2):  # "ready", and the result of the first time
            writer.stdout.readline()
        yield
        assert writer.poll() is None
    finally:
        os.killpg(writer.pid, signal.SIGKILL)
        writer.communicate()


def fault(ids: list[str]) -> list[str]:
    """Say what is wrong with the ids of a search for all products; nothing: they are complete."""
    complete = sorted(ids) == sorted(PRODUCTS)
    return [] if complete else [f"{len(ids)} products, {len(set(ids))} different"]


@pytest.mark.slow
def test_f26_a_search_beside_a_writer_sees_one_version(shop: Shop) -> None:
    files = encoded(shop)
    queries = [f"红色商品{n}号" for n in range(40)]
    failed: list[str] = []
    searches = 0
    with writer_of(files, shop.index):
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline:
            # Each way has other steps between finding rows and reading them.
            ways = [[], ["--recall", "vector"], ["--rerank", 8], ["--where", "id != 'x'"]]
            options = ["--index", shop.index, "-k", 100, "--json", *ways[searches % len(ways)]]
            run = shop.xmr("search", *queries, *options)
            searches += 1
            if run.code:
                failed.append(run.err)
                continue
            for result in run.json()["results"]:
                failed += fault([hit["id"] for hit in result["hits"]])
    assert searches >= 10
    assert failed == []


@pytest.mark.slow
def test_f26_threads_that_share_an_index_beside_a_writer_see_one_version(shop: Shop) -> None:
    """A service shares one open index: one thread's refresh must not disturb another's search."""
    from concurrent.futures import ThreadPoolExecutor

    from bagformer_cli.index.search import Index

    files = encoded(shop)
    index = Index.open(str(shop.index), str(shop.model), device="cpu")
    index.search("红裙", k=100)
    failed: list[str] = []

    def search(number: int) -> int:
        searches = 0
        while time.monotonic() < deadline:
            searches += 1
            try:
                found = index.search(f"红色商品{number}号", k=100)
            except Exception as error:
                failed.append(repr(error))
                continue
            failed.extend(fault([hit.id for hit in found.hits]))
        return searches

    with writer_of(files, shop.index):
        deadline = time.monotonic() + 20
        with ThreadPoolExecutor(4) as pool:
            searches = sum(pool.map(search, range(4)))
    assert searches >= 20
    assert failed == [], (len(failed), searches)


# F28: holes in the error net.
@pytest.mark.parametrize(
    "command",
    [
        "score p0.jpg 红 --checkpoint MODEL",  # has no --device: the control
        "index build t.csv i --checkpoint MODEL --device x",
        "index build t.csv i --checkpoint MODEL --device cuda:99",
        "index build t.csv i --checkpoint MODEL --device meta",
        "encode t.csv --out v --checkpoint MODEL --device x",
        "encode t.csv --out v --checkpoint MODEL --device meta",
        "encode t.csv --out v --checkpoint MODEL --device cpu:1",
        f"train --config demo --dataset set --seed {2**70}",
        f"train --config demo --dataset set --seed {2**63}",
        f"train --config demo --dataset set --set seed={2**70}",
        f"data demo --out d --images 60 --seed {2**70}",
        "index build t.csv i --checkpoint MODEL --encoding undefined",
        "index build t.csv i --checkpoint MODEL --encoding hex",
        "data import t.csv --out o --encoding undefined",
        "data import t.csv --out o --encoding idna",
        f"search 红 --index INDEX --recall vector --candidates {10**18}",
        f"search 红 --index INDEX -k {10**18}",
        f"search 红 --index INDEX --rerank {10**18}",
        "search 红 --index INDEX --device meta",
        "search 红 --index INDEX --beta nan",
        f"index build t.csv i --checkpoint MODEL --batch-size {10**18}",
        f"index build t.csv i --checkpoint MODEL --thumbnail {10**9}",
        f"encode t.csv --out v --checkpoint MODEL --workers {10**9}",
        f"bags --input t.csv --workers {10**9}",
    ],
)
def test_f28_an_extreme_option_is_refused_or_works(shop: Shop, home: Path, command: str) -> None:
    if "INDEX" in command:
        shop.built(shop.write("t.csv", "id,image,title\na0,p0.jpg,红裙\n"))
    words = {"MODEL": str(shop.model), "INDEX": str(shop.index)}
    more = [*SETS, "--set", "training.max_steps=1"] if command.startswith("train") else []
    run = shop.xmr(*[words.get(part, part) for part in command.split()], *more)
    assert_no_bug(run)
    assert run.code in (0, 2), (run.code, run.err)
    for word in ("--device x", "cuda:99", "device meta", "undefined", str(2**70)):
        if word in command:
            assert_refused(run)
            assert not Path("i").exists()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["data demo --out d --images 3000", "data check big"])
def test_f28_a_worker_that_was_killed_says_that_memory_was_short(home: Path, command: str) -> None:
    from tests.support.datasets import picture, write_split

    data = picture(1, (1600, 1600), "PNG")
    queries = [(n, f"红裙{n}", (n,)) for n in range(1, 40)]
    write_split(home / "big", "train", queries, [(n, data) for n in range(1, 40)])
    started = subprocess.Popen(program(*command.split(), "--workers", 2), cwd=home,
                               env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, start_new_session=True)  # fmt: skip
    killed = False
    deadline = time.monotonic() + 60
    while started.poll() is None and time.monotonic() < deadline and not killed:
        for child in children(started.pid):
            if worker(child):
                time.sleep(0.2)
                if not worker(child):  # it had not yet become the helper for shared resources
                    continue
                try:
                    os.kill(child, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                killed = True
                break
        time.sleep(0.01)
    try:
        _, err = started.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)
        started.communicate()
        raise
    if not killed:
        pytest.skip("no worker was caught")
    assert not BUG.search(err), err
    assert started.returncode == 0 or "memory" in err.lower()


def children(pid: int) -> list[int]:
    """Processes that a process started, at any depth."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found += [int(entry.name), *children(int(entry.name))]
    return found


def worker(pid: int) -> bool:
    """Whether a process is a worker of multiprocessing, not its helper for shared resources."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return False
    return "resource_tracker" not in line and "forkserver import main" not in line
