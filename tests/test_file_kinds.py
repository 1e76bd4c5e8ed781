"""A file that is not what its name says is named for what it is, with the next step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bagformer_cli.file_kinds import kind_of
from tests.support.black_box import assert_refused
from tests.support.datasets import picture, write_split

Xmr = Callable[..., Any]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 717023\n"
PAGE = b"\n<!DOCTYPE html>\n<html><title>404 Not Found</title></html>\n"
OTHERS = {
    "image": (picture(1, form="JPEG"), ["a file of type JPEG"]),
    "pointer": (POINTER, ["a pointer of Git LFS", "git lfs pull"]),
    "page": (PAGE, ["a file of type HTML", "Download the file again"]),
}
COMMANDS = {
    "titles": ["bags", "--input", "FILE"],
    "titles for dict mine": ["dict", "mine", "FILE", "--out", "out.tsv"],
    "dictionary": ["bags", "红裙", "--lexicon", "FILE"],
    "marked titles": ["bags", "--gold", "FILE"],
    "vocabulary": ["bags", "红裙", "--tokenizer", "FILE"],
    "queries": ["search", "--queries", "FILE", "--index", "index"],
    "table": ["data", "import", "FILE", "--out", "imported"],
    "checkpoint": ["convert", "chinese-clip", "FILE", "out", "--vocab", "vocab.txt"],
}
NAMES = {"table": "file.csv", "vocabulary": "vocab.txt", "checkpoint": "clip.pt"}


@pytest.mark.parametrize("what", COMMANDS)
@pytest.mark.parametrize("kind", OTHERS)
def test_another_file_is_named(
    xmr: Xmr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    content, words = OTHERS[kind]
    name = NAMES.get(what, "file.txt")
    Path(name).write_bytes(content)
    run = xmr(*[name if part == "FILE" else part for part in COMMANDS[what]])
    assert_refused(run, name, *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


@pytest.mark.parametrize("split_file", ["MR_valid_imgs.tsv", "MR_valid_queries.jsonl"])
def test_a_pointer_in_the_place_of_a_dataset_file_is_named(
    xmr: Xmr, tmp_path: Path, split_file: str
) -> None:
    write_split(tmp_path / "set", "valid")
    (tmp_path / "set" / split_file).write_bytes(POINTER)
    assert_refused(
        xmr("preprocess", "--dataset", tmp_path / "set", "--config", "demo"),
        split_file,
        "git lfs pull",
    )


@pytest.mark.parametrize(
    "text",
    ["红色连衣裙\n", "GIF 动图\n", "PK 大码裙\n", "BMW 车模\n", "<新款> 裙\n", "\ufeff红裙\n"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "utf-16"])
def test_texts_are_of_no_other_kind(text: str, encoding: str) -> None:
    assert kind_of(text.encode(encoding)) is None
