"""F22, F23, F25: configurations, filters and arrays of somebody else are bounded before use.

Attacks that hang or take memory without bound run in a process with limits of both.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.support.black_box import (
    MEMORY,
    Shop,
    assert_no_bug,
    assert_refused,
    environment,
    process,
)
from tests.support.harmful_pickle import MakesFolder
from tests.support.small_model import TINY, set_options

SETS = set_options(*TINY, "training.batch_size=4")

# F22: config files.
CONFIGS = {
    "billion laughs": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
        for before, name in zip("abcdefghi", "bcdefghij", strict=True)
    ),
    "aliases under a key": "text:\n  options: &x {a: [1, 2]}\nimage:\n  options: *x\n",
    "nested maps": "".join(f"{' ' * n}k:\n" for n in range(3000)) + " " * 3000 + "v\n",
    "nested lists": "seed: " + "[" * 3000 + "]" * 3000 + "\n",
    "layers": "extends: demo\ntext: {layers: 10000000}\n",
    "size": "extends: demo\nimage: {size: 1000000}\n",
    "width": "extends: demo\ntext: {width: 1000000000, heads: 1}\n",
    "embed_dim": "extends: demo\nmodel: {embed_dim: 100000000000}\n",
    "hidden_act": "extends: demo\ntext: {options: {hidden_act: no_such}}\n",
    "a date": "extends: demo\ntext: {options: {layer_norm_eps: 2020-01-01}}\n",
    "timm option": "extends: demo\nimage: {options: {no_such_option: 1}}\n",
    "timm value": "extends: demo\nimage: {options: {channels: x}}\n",
    "timm act": "extends: demo\nimage: {options: {act_layer: no_such}}\n",
    "python object": "extends: demo\nseed: !!python/object/apply:os.system ['touch ran']\n",
    "infinite number": "extends: demo\ntraining: {learning_rate: .inf}\n",
    "NUL": "extends: demo\nseed: \0\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*CONFIGS, "a pickle in text.pretrained"])
def test_f22_a_hostile_config_is_refused_in_bounded_time_and_memory(home: Path, kind: str) -> None:
    if kind == "a pickle in text.pretrained":
        import torch

        (home / "bert").mkdir()
        (home / "bert/config.json").write_text(
            '{"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, '
            '"num_attention_heads": 2, "intermediate_size": 48, "vocab_size": 100}'
        )
        torch.save({"x": MakesFolder(home / "ran")}, home / "bert/pytorch_model.bin")
        arguments = ["--config", "demo", *SETS, "--set", f"text.pretrained={home / 'bert'}"]
    else:
        (home / "evil.yaml").write_text(CONFIGS[kind])
        arguments = ["--config", "evil.yaml"]
    ended = process("train", "--dataset", "set", *arguments, "--set", "training.max_steps=1",
                    cwd=home, timeout=240, memory=MEMORY, cpu=60)  # fmt: skip
    assert not (home / "ran").exists()
    assert ended.code == 2, (ended.code, ended.err[-600:])
    assert_no_bug(ended)
    assert not (home / "runs").exists()


# F23: filters.
BOMBS = [
    "repeat('a', 1000000000) = id",
    "array_length(range(0, 1000000000)) = 1",
    "lpad('a', 2000000000, 'b') = id",
    "id LIKE '" + "%a" * 3000 + "'",
    "(" * 5000 + "id = 'a'" + ")" * 5000,
    "NOT " * 5000 + "id = 'a'",
    "price = " + "9" * 5000,
    "id IN (" + ", ".join(f"'{n}'" for n in range(100_000)) + ")",
]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(BOMBS)))
@pytest.mark.parametrize("engine", ["lancedb", "qdrant"])
def test_f23_a_filter_is_bounded_before_an_engine_sees_it(
    shop: Shop, engine: str, number: int
) -> None:
    if engine == "qdrant":
        pytest.importorskip("qdrant_client")
        shop.index = f"qdrant://{shop.folder}/q/items"
    shop.built(shop.write("t.csv", "id,image,title,price\na0,p0.jpg,红裙,3\n"))
    ended = process("search", "红", "--index", shop.index, "--where", BOMBS[number], "--json",
                    timeout=240, memory=MEMORY, cpu=60)  # fmt: skip
    assert ended.code in (0, 2), (ended.code, ended.err[-300:])
    assert_no_bug(ended)
    assert "damaged" not in ended.err
    assert len(ended.err) < 3000


@pytest.mark.parametrize(
    "where", ["id='zzz') OR (1=1", "1=1); DROP TABLE items; --", "1=1 -- x", "true", "1=1;"]
)
def test_f23_remove_deletes_nothing_for_a_filter_that_passes_its_brackets(
    shop: Shop, where: str
) -> None:
    shop.built(shop.write("t.csv", "id,image,title\na0,p0.jpg,红裙\na1,p1.jpg,蓝裤\n"))
    run = shop.xmr("index", "remove", shop.index, "--where", where)
    if where != "true":
        assert_refused(run)
    if run.code:
        assert set(shop.products()) == {"a0", "a1"}


# F25: arrays that lie.
def lying(path: Path, how: str) -> bool:
    """Change a file's numbers behind its header; False: this file has none to change."""
    if path.suffix != ".npy" or path.stat().st_size == 0:
        return False
    array = np.load(path)
    if array.dtype.kind not in "iu" or not array.size:
        return False
    most = np.iinfo(array.dtype)
    changed = np.full_like(array, most.max if how == "largest" else most.min)
    if how == "reversed":
        changed = array[::-1].copy()
    os.unlink(path)
    np.save(path, changed)
    return True


# Token indexes are made for large catalogues only; this makes one for any.
SMALL_TOKEN_INDEXES = """
import importlib
importlib.import_module("bagformer_cli.index.vector_cache").CENTROIDS_FROM_BYTES = 0
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["largest", "smallest", "reversed"])
def test_f25_arrays_of_an_index_that_lie_crash_no_search(shop: Shop, how: str) -> None:
    index, table = Path(shop.index), shop.folder / "t.csv"
    lines = ["id,image,title", *(f"a{n},p{n % 10}.jpg,红裙{n}" for n in range(300))]
    shop.write("t.csv", "\n".join(lines) + "\n")
    build = ["index", "build", table, index, "--checkpoint", shop.model]
    built = process(*build, code=SMALL_TOKEN_INDEXES)
    assert built.code == 0, built.err
    search = ["search", "商品", "--index", index, "-k", 300, "--json", "--recall"]
    for recall in ("exact", "tokens"):
        assert process(*search, recall, code=SMALL_TOKEN_INDEXES).code == 0
    files = [path for path in sorted(index.rglob("*.npy")) if "items.lance" not in str(path)]
    assert files
    saved = {path: path.read_bytes() for path in files}
    for path in files:
        if not path.exists() or not lying(path, how):
            continue
        for recall in ("exact", "tokens"):
            ended = process(*search, recall, code=SMALL_TOKEN_INDEXES, timeout=240)
            assert ended.code in (0, 2), (path.relative_to(index), recall, ended.code)
            assert_no_bug(ended)
            if ended.code == 0:
                found = [hit["id"] for hit in ended.json()["results"][0]["hits"]]
                assert set(found) <= {f"a{n}" for n in range(300)}
                assert len(found) == len(set(found))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(saved[path])


@pytest.mark.slow
@pytest.mark.parametrize("how", ["largest", "smallest"])
def test_f25_arrays_of_a_shared_cache_that_lie_crash_no_command(home: Path, how: str) -> None:
    cache = home / "cache"
    env: dict[str, str | None] = {"XMR_CACHE": str(cache)}
    (home / "many.txt").write_text("红色碎花连衣裙 2件装\n空军一号运动鞋\n" * 5000)
    arguments = ["bags", "--input", "many.txt", "--json", "--workers", 1]
    right = process(*arguments, cwd=home, env=env)
    assert right.code == 0, right.err
    files = sorted(cache.rglob("*.npy"))
    saved = {path: path.read_bytes() for path in files}
    assert environment(**env)["XMR_CACHE"] == str(cache)
    for path in files:
        if not path.exists() or not lying(path, how):
            continue
        ended = process(*arguments, cwd=home, env=env, timeout=240)
        assert ended.code in (0, 2), (path.name, ended.code, ended.err[-300:])
        assert_no_bug(ended)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(saved[path])
