"""F24: blank lines, long titles and long lines take linear time and bounded memory."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from bagformer_cli.text.jit import kernels
from tests.support.black_box import GIB, Shop, assert_no_bug, process


# F24: reading is linear and bounded.
@pytest.mark.slow
@pytest.mark.parametrize("file", ["MR_train_queries.jsonl", "MR_train_imgs.tsv"])
@pytest.mark.parametrize("command", ["data check", "preprocess"])
def test_f24_blank_lines_are_read_in_linear_time(home: Path, command: str, file: str) -> None:
    path = home / "set" / file
    path.write_bytes(b"\n" * 400_000 + path.read_bytes())
    option = [] if command == "data check" else ["--config", "demo", "--dataset"]
    ended = process(*command.split(), *option, "set", "--workers", 1, cwd=home, timeout=300,
                    cpu=40)  # fmt: skip
    assert ended.code in (0, 2), (ended.code, ended.seconds)
    assert_no_bug(ended)
    assert len(ended.err) + len(ended.out) < 100_000


@pytest.mark.slow
@pytest.mark.parametrize("command", ["bags", "score", "index build", "search", "encode_texts"])
def test_f24_a_title_of_a_million_characters_takes_no_longer_than_a_long_one(
    shop: Shop, retriever: Any, command: str
) -> None:
    title, long = "红色碎花连衣裙" * 150_000, "红色碎花连衣裙" * 5_000
    table = shop.write("t.csv", "id,image,title\na0,p0.jpg,红裙\n")
    if command == "search":
        shop.built(table)
    kernels(1, len(title))  # compiles all loops, if they are not yet
    _read_title(shop, retriever, command, long)
    began = time.process_time()
    run = _read_title(shop, retriever, command, title)
    assert time.process_time() - began < 12  # a quadratic reader took 18 on an idle machine
    if command != "encode_texts":
        assert_no_bug(run)
        assert run.code in (0, 2)


def _read_title(shop: Shop, retriever: Any, command: str, title: str) -> Any:
    (shop.folder / "t.txt").write_text(title + "\n", "utf-8")
    row = {"id": 1, "image": "p1.jpg", "title": title}
    table = shop.write("l.jsonl", json.dumps(row) + "\n")
    index = shop.folder / f"index of {len(title)}"
    return {
        "bags": lambda: shop.xmr("bags", "--input", shop.folder / "t.txt", "--json"),
        "score": lambda: shop.xmr("score", shop.folder / "p0.jpg", title, "--checkpoint",
                                  shop.model, "--json"),
        "index build": lambda: shop.xmr("index", "build", table, index, "--checkpoint", shop.model,
                                        "--json"),
        "search": lambda: shop.xmr("search", title, "--index", shop.index, "--json"),
        "encode_texts": lambda: retriever.encode_texts([title]),
    }[command]()  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("command", ["bags", "data check", "index build", "dict check", "encode"])
def test_f24_a_line_of_300_megabytes_is_refused_in_bounded_memory(
    model: Path, home: Path, command: str
) -> None:
    name = {"bags": "t.txt", "data check": "set/MR_train_queries.jsonl", "index build": "t.jsonl",
            "dict check": "d.txt", "encode": "t.txt"}[command]  # fmt: skip
    with open(home / name, "w", encoding="utf-8") as stream:
        head = '{"query_id": 1, "item_ids": [], "query_text": "' if "jsonl" in name else ""
        stream.write(head)
        for _ in range(100):
            stream.write("红" * 1_000_000)
        stream.write(('"}' if head else "") + "\n")
    arguments = {
        "bags": ["bags", "--input", "t.txt", "--output", "b.jsonl", "--workers", 1],
        "data check": ["data", "check", "set", "--workers", 1],
        "index build": ["index", "build", "t.jsonl", "i", "--checkpoint", model],
        "dict check": ["dict", "check", "d.txt"],
        "encode": ["encode", "t.txt", "--titles", "--out", "v", "--checkpoint", model],
    }[command]
    ended = process(*arguments, cwd=home, timeout=300, memory=10 * GIB, cpu=60)
    assert ended.code in (0, 2), (ended.code, ended.seconds, ended.err[-300:])
    assert_no_bug(ended)
    assert len(ended.err) < 10_000
    assert "memory" not in ended.err.lower()
