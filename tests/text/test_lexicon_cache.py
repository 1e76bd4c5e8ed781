"""The cache of a lexicon: used, followed, damaged, made by several processes at once."""

from __future__ import annotations

import io
import json
import shutil
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from bagformer_cli.files import cache_folder
from bagformer_cli.text.lexicon import Lexicon
from bagformer_cli.text.segmenter import Segmenter

Write = Callable[..., Path]


def test_the_cache_is_used_and_follows_the_content(write: Write) -> None:
    path = write("裙", "裤")
    first = Lexicon.load([path])
    assert first.folder.is_relative_to(cache_folder())
    assert not list(path.parent.glob("*.pkl"))
    stamp = (first.folder / "meta.json").stat().st_mtime_ns
    again = Lexicon.load([path])
    assert (again.folder / "meta.json").stat().st_mtime_ns == stamp
    assert again.fingerprint == first.fingerprint
    changed = Lexicon.load([write("裙", "裤", "衫")])
    assert changed.fingerprint != first.fingerprint
    assert len(changed) == 3


def test_nothing_in_the_cache_is_a_pickle(write: Write) -> None:
    folder = Lexicon.load([write("裙", "2件")]).folder
    for file in folder.rglob("*"):
        assert file.is_dir() or file.suffix in (".npy", ".json", ".txt"), file
        if file.suffix == ".npy":
            assert b"'descr': '|O'" not in file.read_bytes()[:128]


def test_processes_that_make_the_same_cache_at_once_all_get_a_whole_one(write: Write) -> None:
    path = write(*(f"词{n:04}" for n in range(3000)))
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(_entries_of, [path] * 8))
    assert found == [3000] * 8
    assert not [p for p in Lexicon.load([path]).folder.parent.iterdir() if p.name.startswith(".")]


def _entries_of(path: Path) -> int:
    lexicon = Lexicon.load([path])
    entries = lexicon.arrays.entries
    return sum(len(list(entries.matches(entry.word))) == 1 for entry in lexicon.entries())


def lie(path: Path, value: int) -> bytes:
    """The content of an array file with its first and last number replaced."""
    array = np.load(path).copy()
    if not array.size:
        return path.read_bytes()
    kind = np.iinfo(array.dtype)
    array.flat[0] = array.flat[-1] = min(max(value, kind.min), kind.max)
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


DAMAGE: dict[str, Callable[[Path], bytes]] = {
    "emptied": lambda path: b"",
    "cut": lambda path: path.read_bytes()[: path.stat().st_size // 2],
    "zeros": lambda path: bytes(path.stat().st_size),
    "longer": lambda path: path.read_bytes() + b"\0" * 64,
    "large numbers": lambda path: lie(path, 1 << 40),
    "small numbers": lambda path: lie(path, -(1 << 40)),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_cache_is_noticed_and_made_again(
    write: Write, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bagformer_cli.files._fsync", lambda path: None)  # 20 files each time
    path = write(
        "红色\tcolour", "件\tunit", "机\thead", "款\tsuffix", "消毒", "连衣裙\tcategory\t5"
    )
    right = Lexicon.load([path])
    assert right.remarks == ()
    for file in sorted(right.folder.rglob("*.*")):
        if file.suffix != ".npy" and "numbers" in how:
            continue
        content = DAMAGE[how](file)
        if content == file.read_bytes():
            continue
        file.unlink()  # what is mapped stays
        file.write_bytes(content)
        again = Lexicon.load([path])
        (remark,) = again.remarks
        assert "damaged" in remark
        assert again.fingerprint == right.fingerprint
        assert list(again.entries()) == list(right.entries())
        assert again.arrays.cost.tolist() == right.arrays.cost.tolist()
        assert Lexicon.load([path]).remarks == ()


@pytest.mark.parametrize("value", [1 << 40, -(1 << 40), 3])
def test_arrays_that_lie_are_noticed_even_if_their_checksums_are_right(
    write: Write, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No loop over the arrays can leave them or run for ever, whoever wrote the cache."""
    path = write("红色\tcolour", "红色裙", "件\tunit", "机\thead", "款\tsuffix", "消毒")
    folder = Lexicon.load([path]).folder
    monkeypatch.setattr("bagformer_cli.files._fsync", lambda path: None)
    for file in sorted(folder.rglob("*.npy")):
        content = lie(file, value)
        file.unlink()
        file.write_bytes(content)
        meta = json.loads((folder / "meta.json").read_text("utf-8"))
        meta["checksums"][str(file.relative_to(folder))] = zlib.crc32(content)
        (folder / "meta.json").write_text(json.dumps(meta), "utf-8")
        lexicon = Lexicon.load([path])
        segmenter = Segmenter(lexicon)
        bags = segmenter.segment("红色裙消毒机2件新款")
        assert "".join(bag.text for bag in bags) == "红色裙消毒机2件新款"
        shutil.rmtree(folder)
        Lexicon.load([path])


def test_without_a_cache_folder_a_temporary_one_is_used(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bagformer_cli.text.lexicon_cache.cache_folder", lambda: Path("/proc/xmr"))
    lexicon = Lexicon.load([write("红色", "裙")])
    (remark,) = lexicon.remarks
    assert "XMR_CACHE" in remark
    assert {entry.word: entry.type for entry in lexicon.entries()} == {"红色": None, "裙": None}
