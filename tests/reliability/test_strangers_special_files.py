"""F8: pipes, devices and links of somebody else: a command reads regular files alone.

Attacks that hang or take memory without bound run in a process with limits of both.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from tests.support.black_box import MEMORY, Shop, assert_no_bug, assert_refused, process

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
