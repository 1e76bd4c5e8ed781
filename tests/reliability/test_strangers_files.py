"""F2, F3, F8, F11, F12, F22, F23, F25: files of somebody else do no harm.

Attacks that hang or take memory without bound run in a process with limits of both.
"""

from __future__ import annotations

import json
import os
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest

from tests.support.black_box import GIB, Shop, assert_no_bug, assert_refused, environment, process
from tests.support.small_model import TINY

SETS = [part for item in [*TINY, "training.batch_size=4"] for part in ("--set", item)]
MEMORY = 12 * GIB  # of address space: torch and numba alone reserve some


class Evil:
    """An object whose pickle makes the file ``ran``."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.file),)


def with_option(model: Path, folder: Path, tower: str, options: dict[str, Any]) -> Path:
    """Copy a model folder and add options to a tower's in ``config.yaml``."""
    import yaml

    copytree(model, folder)
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text("utf-8"))
    config.setdefault(tower, {}).setdefault("options", {}).update(options)
    path.write_text(yaml.safe_dump(config, allow_unicode=True), "utf-8")
    return folder


# F2: free-form options.


def test_f02_an_option_that_loads_a_checkpoint_is_refused_and_runs_nothing(
    xmr: Callable[..., Any], model: Path, home: Path
) -> None:
    import torch

    evil = with_option(model, home / "m", "image", {"checkpoint_path": str(home / "m/extra.pth")})
    torch.save({"state_dict": Evil(home / "ran")}, home / "m/extra.pth")
    run = xmr("score", "p0.jpg", "红", "--checkpoint", evil)
    assert not (home / "ran").exists()
    assert_refused(run, "checkpoint_path")


@pytest.mark.parametrize(
    ("tower", "options", "named"),
    [
        ("image", {"checkpoint_path": "x.pth"}, "checkpoint_path"),
        ("image", {"pretrained_cfg": {"url": "http://127.0.0.1:9/x.pth"}}, "pretrained_cfg"),
        ("image", {"pretrained_cfg_overlay": {"file": "/etc/passwd"}}, "pretrained_cfg_overlay"),
        ("image", {"cache_dir": "/tmp/elsewhere"}, "cache_dir"),
        ("image", {"pretrained": True}, "pretrained"),
        ("text", {"attn_implementation": "kernels-community/flash-attn"}, "attn_implementation"),
        ("text", {"auto_map": {"AutoModel": "x.py"}}, "auto_map"),
        ("text", {"_name_or_path": "/etc/passwd"}, "_name_or_path"),
        ("text", {"quantization_config": {"quant_method": "awq"}}, "quantization_config"),
    ],
)
def test_f02_only_known_options_reach_the_libraries(
    xmr: Callable[..., Any],
    model: Path,
    home: Path,
    tower: str,
    options: dict[str, Any],
    named: str,
) -> None:
    evil = with_option(model, home / "m", tower, options)
    assert_refused(xmr("score", "p0.jpg", "红", "--checkpoint", evil), named)


def test_f02_timm_is_new_enough_to_load_no_pickles() -> None:
    import bagformer_cli

    project = Path(bagformer_cli.__file__).parents[1] / "pyproject.toml"
    if not project.is_file():
        pytest.skip("installed without pyproject.toml")
    needed = tomllib.loads(project.read_text("utf-8"))["project"]["dependencies"]
    (timm,) = [one for one in needed if one.startswith("timm")]
    digits = timm.partition(">=")[2].split(",")[0]
    assert tuple(map(int, digits.split("."))) >= (1, 0, 26)


@pytest.mark.slow
def test_f02_an_index_opens_no_model_of_its_own_without_trust(
    xmr: Callable[..., Any], model: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XMR_CACHE", str(home / "cache"))
    copytree(model, home / "downloaded/model")
    built = xmr("index", "build", "t.csv", "downloaded", "--checkpoint", "downloaded/model")
    if built.code:  # an index folder that holds something else: build it beside
        copytree(model, home / "theirs/model")
        built = xmr("index", "build", "t.csv", "downloaded/i", "--checkpoint", "theirs/model")
        assert built.code == 0, built.err
        monkeypatch.setenv("XMR_CACHE", str(home / "another"))
    monkeypatch.setenv("XMR_CACHE", str(home / "another"))
    monkeypatch.setenv("HOME", str(home / "user"))
    (home / "user/work").mkdir(parents=True)
    monkeypatch.chdir(home / "user/work")
    index = home / "downloaded"
    index = index / "i" if (index / "i").exists() else index
    run = xmr("search", "红", "--index", index, "--json")
    assert_refused(run, "--trust")
    assert xmr("search", "红", "--index", index, "--json", "--trust").code == 0
    own = xmr("search", "红", "--index", index, "--json", "--checkpoint", model)
    assert own.code == 0, own.err


# F3: names out of an index are not paths.


@pytest.mark.parametrize("form", ["absolute", "relative"])
def test_f03_an_index_writes_and_deletes_nothing_outside_its_folder(
    shop: Shop, tmp_path: Path, form: str
) -> None:
    import pyarrow as pa

    pytest.importorskip("lancedb")
    shop.built(shop.write("t.csv", "id,image,title\na0,p0.jpg,红裙\n"))
    victim = tmp_path / "victim"
    (victim / "image/segment-precious").mkdir(parents=True)
    (victim / "image/segment-file").write_text("mine")
    (victim / "image/.thesis.part").write_text("mine")
    name = str(victim) if form == "absolute" else os.path.relpath(victim, Path(shop.index) / "m")
    forged(Path(shop.index), name, pa)
    before = {path: path.is_dir() for path in victim.rglob("*")}
    run = shop.xmr("search", "红", "--index", shop.index, "--checkpoint", shop.model)
    assert {path: path.is_dir() for path in victim.rglob("*")} == before
    assert_no_bug(run)
    assert run.code in (0, 2)


def forged(index: Path, name: str, pa: Any) -> None:
    """Write the table again with another ``xmr_index`` in its metadata."""
    from shutil import rmtree

    import lancedb

    table = lancedb.connect(str(index)).open_table("items").to_arrow()
    metadata = {**(table.schema.metadata or {}), b"xmr_index": name.encode()}
    rmtree(index / "items.lance")
    for path in index.iterdir():
        if path.is_dir():
            rmtree(path)
    lancedb.connect(str(index)).create_table("items", table.replace_schema_metadata(metadata))


@pytest.mark.parametrize("command", ["search", "index add", "index remove", "index info"])
def test_f03_a_link_in_an_index_leads_nowhere(shop: Shop, tmp_path: Path, command: str) -> None:
    table = shop.write("t.csv", "id,image,title\na0,p0.jpg,红裙\n")
    shop.built(table)
    victim = tmp_path / "victim"
    (victim / "segment-precious").mkdir(parents=True)
    (victim / "notes.txt").write_text("mine")
    before = sorted(victim.rglob("*"))
    index = Path(shop.index)
    (cache,) = (index / "vector_cache").iterdir()
    links = {
        index / "write.lock": victim / "notes.txt",  # a lock is opened for writing
        cache / "image": victim,  # old segments are deleted here
        index / "unfinished": victim / "notes.txt",
    }
    arguments = {
        "search": ["search", "红", "--index", index],
        "index add": ["index", "add", table, index],
        "index remove": ["index", "remove", index, "a0"],
        "index info": ["index", "info", index],
    }[command]
    for link, target in links.items():
        kept = tmp_path / "kept"
        if link.exists():
            link.rename(kept)
        link.symlink_to(target)
        assert_refused(shop.xmr(*arguments), link.name)
        assert sorted(victim.rglob("*")) == before
        assert (victim / "notes.txt").read_text() == "mine"
        link.unlink()
        if kept.exists():
            kept.rename(link)
    assert set(shop.products()) == {"a0"}


@pytest.mark.parametrize("place", ["the store", "a split", "the lock"])
def test_f03_a_link_in_a_dataset_deletes_nothing(
    xmr: Callable[..., Any], home: Path, place: str
) -> None:
    victim = home / "victim"
    (victim / "train").mkdir(parents=True)
    (victim / "train/thesis.txt").write_text("mine")
    store = home / "set/.xmr"
    if place == "the store":
        store.symlink_to(victim)
    else:
        store.mkdir()
        (store / "store.json").write_text('{"version": 1}')
        name, target = ("train", "train") if place == "a split" else ("lock", "train/thesis.txt")
        (store / name).symlink_to(victim / target)
    assert_refused(xmr("preprocess", "--dataset", "set", "--config", "demo"), ".xmr")
    assert [path.name for path in victim.rglob("*")] == ["train", "thesis.txt"]
    assert (victim / "train/thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("form", ["absolute", "relative", "a link"])
def test_f03_encoded_vectors_name_no_files_outside_their_folder(
    shop: Shop, tmp_path: Path, form: str
) -> None:
    table = shop.write("t.csv", "id,image,title\na0,p0.jpg,红裙\n")
    folder, outside = tmp_path / "v", tmp_path / "outside.arrow"
    run = shop.xmr("encode", table, "--out", folder, "--checkpoint", shop.model)
    assert run.code == 0, run.err
    (part,) = folder.glob("part-*.arrow")
    part.rename(outside)
    if form == "a link":
        part.symlink_to(outside)
    else:
        record = json.loads((folder / "encoded.json").read_text("utf-8"))
        record["files"] = [str(outside) if form == "absolute" else "../outside.arrow"]
        (folder / "encoded.json").write_text(json.dumps(record), "utf-8")
        part.write_bytes(b"")
    assert_refused(shop.xmr("index", "build", folder, shop.index))


# F8: only regular files are opened, with a limit.

HOSTILE = ["fifo", "zero", "link to zero"]


def hostile(folder: Path, kind: str, name: str) -> Path:
    """Make a FIFO, a device or a link to one under a name."""
    path = folder / name
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link to zero":
        path.symlink_to("/dev/zero")
    else:
        try:
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))
            with open(path, "rb") as stream:
                stream.read(1)
        except OSError:
            pytest.skip("no device can be made here")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("command", ["index build", "encode", "data import"])
def test_f08_a_cell_that_names_no_regular_file_costs_its_own_row(
    model: Path, home: Path, command: str, kind: str
) -> None:
    hostile(home, kind, "evil.jpg")
    (home / "h.csv").write_text("id,image,title\na0,p0.jpg,红\nbad,evil.jpg,坏\na1,p1.jpg,蓝\n")
    arguments = {
        "index build": ["index", "build", "h.csv", "i", "--checkpoint", model],
        "encode": ["encode", "h.csv", "--out", "v", "--checkpoint", model],
        "data import": ["data", "import", "h.csv", "--out", "d"],
    }[command]
    ended = process(*arguments, cwd=home, timeout=240, memory=MEMORY)
    assert ended.code == 0, (ended.code, ended.err[-500:])
    assert "evil.jpg" in ended.err
    assert_no_bug(ended)


@pytest.mark.slow
@pytest.mark.parametrize("kind", HOSTILE)
def test_f08_a_folder_of_photos_may_hold_something_else(model: Path, home: Path, kind: str) -> None:
    (home / "photos").mkdir()
    (home / "photos/a.jpg").write_bytes((home / "p0.jpg").read_bytes())
    hostile(home / "photos", kind, "evil.jpg")
    ended = process("index", "build", "photos", "i", "--checkpoint", model, "--json", cwd=home,
                    timeout=240, memory=MEMORY)  # fmt: skip
    assert ended.code == 0, (ended.code, ended.err[-500:])
    assert ended.json()["rows"] == 1
    assert "evil.jpg" in ended.err


@pytest.mark.slow
@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize(
    "command",
    [
        "score EVIL 红 --checkpoint MODEL",
        "dict check EVIL",
        "dict stats EVIL",
        "dict mine EVIL",
        "bags 红 --lexicon EVIL",
        "bags --gold EVIL",
        "bags --input EVIL",
        "search --image EVIL --index gone",
        "eval --dataset set --checkpoint MODEL --items EVIL",
        "eval --dataset set --checkpoint MODEL --products EVIL",
        "train --dataset set --config EVIL",
        "index build EVIL i --checkpoint MODEL",
        "data import EVIL --out o",
    ],
)
def test_f08_a_command_refuses_what_is_no_regular_file(
    model: Path, home: Path, command: str, kind: str
) -> None:
    ending = {"index": ".csv", "data": ".csv", "train": ".yaml"}.get(command.split()[0], ".jpg")
    evil = hostile(home, kind, f"evil{ending}")
    words = {"EVIL": str(evil), "MODEL": str(model)}
    ended = process(*[words.get(part, part) for part in command.split()], cwd=home, timeout=240,
                    memory=MEMORY)  # fmt: skip
    assert ended.code == 2, (ended.code, ended.err[-500:])
    assert_no_bug(ended)
    assert f"evil{ending}" in ended.err


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fifo", "link to zero"])
@pytest.mark.parametrize(
    "file",
    ["items.lance/_versions/*.manifest", "items.lance/data/*.lance", "vector_cache/*/image/*.json",
     "vector_cache/*/image/segment-*/values.npy", "write.lock"],
)  # fmt: skip
def test_f08_an_index_that_holds_no_regular_files_is_refused(
    shop: Shop, file: str, kind: str
) -> None:
    shop.built(shop.write("t.csv", "id,image,title\na0,p0.jpg,红裙\n"))
    path = next(Path(shop.index).glob(file))
    path.unlink()
    hostile(path.parent, kind, path.name)
    ended = process("search", "红", "--index", shop.index, timeout=240, memory=MEMORY)
    assert_refused(ended, path.name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fifo", "link to zero"])
@pytest.mark.parametrize(
    "file", ["config.yaml", "model.safetensors", "vocab.txt", "lexicon.txt", "beta.json"]
)
def test_f08_a_model_folder_that_holds_no_regular_files_is_refused(
    model: Path, home: Path, file: str, kind: str
) -> None:
    copytree(model, home / "m")
    (home / "m" / file).unlink(missing_ok=True)
    hostile(home / "m", kind, file)
    ended = process("score", "p0.jpg", "红", "--checkpoint", "m", cwd=home, timeout=240,
                    memory=MEMORY)  # fmt: skip
    assert_no_bug(ended)
    assert ended.code == 2 or (file == "beta.json" and ended.code == 0), ended.err


@pytest.mark.parametrize("kind", ["absolute", "parent", "link", "linked folder"])
@pytest.mark.parametrize("command", ["index build", "encode"])
def test_f08_root_confines_a_catalogue(
    xmr: Callable[..., Any], model: Path, home: Path, command: str, kind: str
) -> None:
    root, secret = home / "root", home / "secret"
    root.mkdir()
    secret.mkdir()
    (root / "ok.jpg").write_bytes((home / "p0.jpg").read_bytes())
    (secret / "s.jpg").write_bytes((home / "p1.jpg").read_bytes())
    (root / "link.jpg").symlink_to(secret / "s.jpg")
    (root / "folder").symlink_to(secret)
    cell = {
        "absolute": str(secret / "s.jpg"),
        "parent": "../secret/s.jpg",
        "link": "link.jpg",
        "linked folder": "folder/s.jpg",
    }[kind]
    (home / "r.csv").write_text(f"id,image,title\na0,ok.jpg,红\nbad,{cell},坏\n")
    options = ["--root", root, "--checkpoint", model, "--json"]
    if command == "index build":
        run = xmr("index", "build", "r.csv", "i", *options)
    else:
        run = xmr("encode", "r.csv", "--out", "v", *options)
    assert run.code == 0, run.err
    assert run.json()["rows"] == 1
    assert "r.csv:3" in run.err


# F11: Pillow opens an explicit list of formats.


@pytest.mark.parametrize("command", ["index build", "data import", "score", "encode", "search"])
def test_f11_no_picture_starts_ghostscript(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    from PIL import EpsImagePlugin

    tools = shop.folder / "tools"
    tools.mkdir()
    (tools / "gs").write_text(f"#!/bin/sh\ntouch {shop.folder}/ran\nexit 1\n")
    (tools / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    shop.write(
        "evil.jpg",
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n",
    )
    table = shop.write("t.csv", "id,image,title\na0,p0.jpg,红裙\nbad,evil.jpg,坏\n")
    if command == "search":
        shop.built(shop.write("good.csv", "id,image,title\na0,p0.jpg,红裙\n"))
    run = {
        "index build": lambda: shop.build(table),
        "data import": lambda: shop.xmr("data", "import", table, "--out", shop.folder / "o"),
        "score": lambda: shop.xmr("score", shop.folder / "evil.jpg", "红", "--checkpoint",
                                  shop.model),
        "encode": lambda: shop.xmr("encode", table, "--out", shop.folder / "v", "--checkpoint",
                                   shop.model),
        "search": lambda: shop.xmr("search", "--image", shop.folder / "evil.jpg", "--index",
                                   shop.index),
    }[command]()  # fmt: skip
    assert not (shop.folder / "ran").exists()
    assert_no_bug(run)


# F12: control characters.


def test_f12_no_title_or_file_name_writes_escapes(shop: Shop) -> None:
    row = {"id": "a0", "image": "p0.jpg", "title": "\x1b]0;X\x07\x1b[2J\x9b2J\u202e红"}
    gone = {"id": "a1", "image": "gone\x1b[2J.jpg", "title": "蓝"}
    table = shop.write("e.jsonl", json.dumps(row) + "\n" + json.dumps(gone) + "\n")
    built = shop.xmr("index", "build", table, shop.index, "--checkpoint", shop.model)
    found = shop.xmr("search", "红", "--index", shop.index)
    checked = shop.xmr("dict", "check", shop.write("d.txt", "红\x1b[2J\n红\x1b[2J\n"), "--all")
    wrong = shop.xmr("score", "no\x1b[2J.jpg", "红", "--checkpoint", shop.model)
    for run in (built, found, checked, wrong):
        for character in "\x1b\x07\x9b\u202e":
            assert character not in run.out + run.err


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
        torch.save({"x": Evil(home / "ran")}, home / "bert/pytorch_model.bin")
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
