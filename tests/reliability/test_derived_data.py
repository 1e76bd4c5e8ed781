"""F17: derived data is checked when it is opened, and made again if it is damaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.black_box import BUG, Shop, assert_no_bug, process
from tests.support.small_model import TINY, set_options

TRAIN = ["training.batch_size=8", "training.evaluate_every=100", "training.schedule_steps=40"]

# F17: derived data is checked when it is opened.
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "zeros": lambda data: bytes(len(data)),
    "longer": lambda data: data + b"\0" * 64,
}


def damaged(path: Path, how: str) -> None:
    """Replace a file (a new one, so that what is mapped stays) by a damaged copy."""
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(DAMAGE[how](data))


@pytest.mark.slow
@pytest.mark.parametrize("how", DAMAGE)
def test_f17_a_damaged_lexicon_cache_is_rebuilt(home: Path, how: str) -> None:
    cache = home / "cache"
    env: dict[str, str | None] = {"XMR_CACHE": str(cache)}
    arguments = ["bags", "红色碎花连衣裙 2件装 空军一号", "--json"]
    right = process(*arguments, cwd=home, env=env)
    assert right.code == 0, right.err
    files = [p.relative_to(cache) for p in sorted(cache.rglob("*"))
             if p.is_file() and p.stat().st_size and "numba" not in str(p)]  # fmt: skip
    assert files
    wrong = []
    whole = shutil.copytree(cache, home / "whole")
    for name in files:
        shutil.rmtree(cache)
        shutil.copytree(whole, cache)
        damaged(cache / name, how)
        ended = process(*arguments, cwd=home, env=env, timeout=240)
        if ended.code != 0 or ended.out != right.out or BUG.search(ended.err):
            wrong.append((str(name), ended.code, ended.err[-200:]))
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("how", ["emptied", "cut"])
def test_f17_a_damaged_cache_reaches_no_model_folder(home: Path, how: str) -> None:
    cache = home / "cache"
    env: dict[str, str | None] = {"XMR_CACHE": str(cache)}
    train = ["train", "--config", "demo", "--dataset", "set",
             *set_options(*TINY, *TRAIN, "training.max_steps=1"), "--output-dir"]  # fmt: skip
    assert process(*train, "a", cwd=home, env=env).code == 0
    right = (home / "a/best/lexicon.txt").read_bytes()
    assert right
    texts = [p for p in cache.rglob("*") if p.suffix in (".txt", ".tsv") and p.stat().st_size]
    if not texts:
        pytest.skip("the cache holds no copy of the dictionary")
    for path in texts:
        damaged(path, how)
    shutil.rmtree(home / "set/.xmr")
    ended = process(*train, "b", cwd=home, env=env)
    assert ended.code == 0, ended.err
    assert (home / "b/best/lexicon.txt").read_bytes() == right


@pytest.mark.parametrize("how", ["emptied", "cut", "zeros"])
def test_f17_a_damaged_store_is_made_again(
    xmr: Callable[..., Any], model: Path, home: Path, how: str
) -> None:
    arguments = ["eval", "--dataset", "set", "--checkpoint", model, "--json"]
    right = xmr(*arguments)
    assert right.code == 0, right.err
    store = home / "set/.xmr"
    kept = home / "kept"
    shutil.copytree(store, kept)
    wrong = []
    for path in sorted(kept.rglob("*")):
        if not path.is_file() or not path.stat().st_size:
            continue
        shutil.rmtree(store)
        shutil.copytree(kept, store)
        damaged(store / path.relative_to(kept), how)
        run = xmr(*arguments)
        if run.code or BUG.search(run.err) or run.json()["stages"] != right.json()["stages"]:
            wrong.append((str(path.relative_to(kept)), run.code, run.err[-200:]))
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("how", DAMAGE)
def test_f17_a_damaged_copy_of_vectors_is_made_again(shop: Shop, how: str) -> None:
    lines = ["id,image,title", *(f"a{n},p{n}.jpg,红裙{n}" for n in range(10))]
    shop.built(shop.write("t.csv", "\n".join(lines) + "\n"))
    right = {name: hit["score"] for name, hit in shop.products().items()}
    index, kept = Path(shop.index), shop.folder / "kept"
    shutil.copytree(index, kept)
    wrong = []
    for path in sorted(kept.rglob("*")):
        inside = path.relative_to(kept)
        if not path.is_file() or not path.stat().st_size or inside.parts[0].endswith(".lance"):
            continue
        shutil.rmtree(index)
        shutil.copytree(kept, index)
        damaged(index / inside, how)
        run = shop.search()
        if run.code or BUG.search(run.err):
            wrong.append((str(inside), run.code, run.err[-200:]))
            continue
        found = {hit["id"]: hit["score"] for hit in run.json()["results"][0]["hits"]}
        if found != pytest.approx(right):
            wrong.append((str(inside), 0, "wrong products"))
    assert wrong == []


@pytest.mark.parametrize("how", ["keys reversed", "numbers out of range"])
def test_f17_a_copy_of_vectors_with_wrong_keys_finds_no_wrong_product(shop: Shop, how: str) -> None:
    lines = ["id,image,title", *(f"a{n},p{n}.jpg,红裙{n}" for n in range(10))]
    shop.built(shop.write("t.csv", "\n".join(lines) + "\n"))
    right = {name: hit["score"] for name, hit in shop.products().items()}
    keys = [p for p in Path(shop.index).rglob("*.npy") if "key" in p.name]
    if not keys:
        pytest.skip("no file of keys: find what maps vectors to products in this layout")
    for path in keys:
        array = np.load(path)
        path.unlink()
        np.save(path, array[::-1].copy() if how == "keys reversed" else array + 10**6)
    run = shop.search()
    assert_no_bug(run)
    assert run.code == 0, run.err
    found = {hit["id"]: hit["score"] for hit in run.json()["results"][0]["hits"]}
    assert found == pytest.approx(right)
