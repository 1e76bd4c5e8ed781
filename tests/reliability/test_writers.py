"""Several writers and readers of one index at once; SIGTERM and SIGHUP in commands but training."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.test_kills import ATTACKS, TEMPORARY, run, workplace
from tests.reliability.test_processes import children, side_by_side
from tests.support.black_box import BUG, Shop, environment, process, program


def table(shop: Shop, name: str, first: int, count: int, title: str) -> Path:
    rows = [f"a{n},p{n % 10}.jpg,{title}{n}" for n in range(first, first + count)]
    return shop.write(name, "\n".join(["id,image,title", *rows]) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(2))
def test_writers_that_add_at_once_lose_nothing(shop: Shop, attempt: int) -> None:
    shop.built(table(shop, "t.csv", 0, 20, "旧"))
    tables = [table(shop, f"{n}.csv", 10 * n, 30, f"新{n}-") for n in range(4)]
    add = [program("index", "add", one, shop.index, "--batch-size", 4) for one in tables]
    ended = side_by_side(add, shop.folder, {})
    assert [one.code for one in ended] == [0] * 4, [one.err for one in ended if one.code]
    found = shop.products()
    assert set(found) == {f"a{n}" for n in range(60)}  # each once: products() is by id
    assert len(shop.search().json()["results"][0]["hits"]) == 60
    for name, hit in found.items():
        number = int(name[1:])
        writers = [n for n in range(4) if 10 * n <= number < 10 * n + 30]
        assert hit["title"] in {f"新{n}-{number}" for n in writers}
    info = process("index", "info", shop.index, "--json").json()
    assert info["rows"] == 60
    assert info["unfinished"] is False


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(2))
def test_writers_that_add_and_remove_at_once_lose_nothing(shop: Shop, attempt: int) -> None:
    shop.built(table(shop, "t.csv", 0, 40, "旧"))
    more = table(shop, "more.csv", 40, 40, "新")
    commands = [
        program("index", "add", more, shop.index, "--batch-size", 4),
        program("index", "remove", shop.index, *(f"a{n}" for n in range(20))),
        program("index", "remove", shop.index, "--where", "id >= 'a20' AND id < 'a30'"),
    ]
    ended = side_by_side(commands, shop.folder, {})
    assert [one.code for one in ended] == [0] * 3, [one.err for one in ended if one.code]
    assert set(shop.products()) == {f"a{n}" for n in range(30, 80)}
    assert process("index", "info", shop.index, "--json").json()["unfinished"] is False


@pytest.mark.slow
def test_writers_that_build_at_once_in_one_folder_make_one_index(shop: Shop) -> None:
    tables = [table(shop, f"{n}.csv", 100 * n, 40, f"{n}-") for n in range(3)]
    build = [program("index", "build", one, shop.index, "--checkpoint", shop.model)
             for one in tables]  # fmt: skip
    ended = side_by_side(build, shop.folder, {})
    codes = sorted(str(one.code) for one in ended)
    assert codes == ["0", "2", "2"], [one.err for one in ended]
    assert not [one.err for one in ended if BUG.search(one.err)]
    (winner,) = [n for n, one in enumerate(ended) if one.code == 0]
    assert set(shop.products()) == {f"a{n}" for n in range(100 * winner, 100 * winner + 40)}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_writers_that_rebuild_an_index_give_a_search_the_old_or_the_new(shop: Shop) -> None:
    """No command replaces an index. A user moves a new one into its place, or removes it first."""
    old, new = (table(shop, f"{name}.csv", 0, 30, name) for name in ("old", "new"))
    shop.built(old)
    index = Path(shop.index)
    shop.index = shop.folder / "new"
    shop.built(new)
    shop.index = index
    os.rename(index, shop.folder / "old")
    os.symlink(shop.folder / "old", shop.folder / "current")
    outcomes: dict[str, int] = {}
    deadline = time.monotonic() + 25
    turn = 0
    while time.monotonic() < deadline:
        searches = [program("search", "商品", "--index", shop.folder / "current", "-k", 30,
                            "--json")] * 2  # fmt: skip
        started = [subprocess.Popen(one, cwd=shop.folder, env=environment(),
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                   for one in searches]  # fmt: skip
        while any(one.poll() is None for one in started):
            turn += 1
            os.symlink(shop.folder / ("old", "new")[turn % 2], shop.folder / "next")
            os.rename(shop.folder / "next", shop.folder / "current")
            time.sleep(0.02)
        for one in started:
            out, err = one.communicate()
            assert not BUG.search(err), err
            assert one.returncode == 0, err
            import json

            titles = {hit["title"].rstrip("0123456789")
                      for hit in json.loads(out)["results"][0]["hits"]}  # fmt: skip
            assert len(titles) == 1, titles  # one version, not parts of two
            outcomes[titles.pop()] = 1
    assert outcomes


@pytest.mark.slow
def test_writers_that_remove_the_folder_under_a_search_cost_an_error_message(shop: Shop) -> None:
    """The index is removed and built again while searches run: an answer, or one sentence."""
    source = table(shop, "t.csv", 0, 30, "红")
    shop.built(source)
    build = program("index", "build", source, shop.index, "--checkpoint", shop.model)
    search = program("search", "商品", "--index", shop.index, "--checkpoint", shop.model, "-k", 30,
                     "--json")  # fmt: skip
    for _ in range(3):
        started = [subprocess.Popen(search, cwd=shop.folder, env=environment(),
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                   for _ in range(2)]  # fmt: skip
        time.sleep(1.5)
        process("--version")
        import shutil

        shutil.rmtree(shop.index, ignore_errors=True)
        built = process(command=build, cwd=shop.folder)
        assert built.code in (0, 2), built.err  # 2: a search wrote its cache into the folder
        if built.code:
            assert not BUG.search(built.err), built.err
            shutil.rmtree(shop.index, ignore_errors=True)
            assert process(command=build, cwd=shop.folder).code == 0
        for one in started:
            _, err = one.communicate(timeout=120)
            assert not BUG.search(err), err
            assert one.returncode in (0, 2), err
    assert set(shop.products()) == {f"a{n}" for n in range(30)}


# SIGTERM and SIGHUP.


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("command", ["preprocess", "encode", "index build", "data import"])
def test_stop_signals_end_a_command_like_ctrl_c(
    model: Path, tmp_path: Path, command: str, name: str,
    count: Callable[[str, int, int], None],
) -> None:  # fmt: skip
    attack = ATTACKS[command]
    words = [str(model) if part == "MODEL" else part for part in attack.command]
    if command == "preprocess":
        words[-1] = "2"
    whole = workplace(tmp_path / "whole")
    began = time.monotonic()
    assert process(command=program(*words), cwd=whole).code == 0
    longest = time.monotonic() - began
    right = attack.outcome(whole, model)
    stopped = 0
    for part in (0.5, 0.65, 0.8, 0.9):
        folder = workplace(tmp_path / f"at-{part}")
        started = subprocess.Popen(program(*words), cwd=folder, env=environment(),
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                   start_new_session=True)  # fmt: skip
        time.sleep(longest * part)
        workers = children(started.pid)
        started.send_signal(getattr(signal, name))
        try:
            _, err = started.communicate(timeout=60)
        finally:
            if started.poll() is None:
                os.killpg(started.pid, signal.SIGKILL)
        assert not BUG.search(err), err
        if started.returncode != -getattr(signal, name):  # else it was still importing
            assert started.returncode in (0, 130), err
        if started.returncode == 130:
            stopped += 1
            assert "Stopped." in err
            left = [str(path) for path in folder.rglob("*") if path.name.endswith(TEMPORARY)]
            assert left == []
        deadline = time.monotonic() + 20
        while (alive := [one for one in workers if living(one)]) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert alive == []
        finish(folder, model, attack)
        assert attack.outcome(folder, model) == right
    if not stopped:
        pytest.skip("no command was caught")
    count(command, stopped, stopped)


def finish(folder: Path, model: Path, attack: Any) -> None:
    ended = run(folder, model, attack.command)
    if ended.code and attack.again is not None:
        ended = run(folder, model, attack.again)
    assert ended.code in (0, 2), ended.err


def living(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
