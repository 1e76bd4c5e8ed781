"""F2, F3, F11, F12: models, indexes and images of somebody else run, delete and print nothing."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from tests.support.black_box import Shop, assert_no_bug, assert_refused
from tests.support.harmful_pickle import MakesFolder


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
    torch.save({"state_dict": MakesFolder(home / "ran")}, home / "m/extra.pth")
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
