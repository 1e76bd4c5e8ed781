"""`xmr bags`: titles, files and marked titles; what is refused."""

from __future__ import annotations

import json
import os
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bagformer_cli.text.characters import without_invisible

Xmr = Callable[..., Any]


def test_xmr_bags(xmr: Xmr) -> None:
    run = xmr("bags", "红色碎花连衣裙 2件装", "手机壳", "--json")
    lines = run.out.splitlines()
    assert run.code == 0
    assert len(lines) == 2
    first = json.loads(lines[0])
    assert first["text"] == "红色碎花连衣裙 2件装"
    assert [bag["text"] for bag in first["bags"]] == ["红色", "碎花", "连衣裙", "2件装"]
    assert {"start": 0, "end": 2, "text": "红色", "source": "lexicon", "type": "colour"} in first[
        "bags"
    ]
    shown = xmr("bags", "红色碎花连衣裙").out  # without colours, a table
    for bag, kind in (("红色", "colour"), ("碎花", "pattern"), ("连衣裙", "category")):
        assert re.search(rf"{bag}\s+{kind}\s", shown)


def test_xmr_bags_of_a_file(xmr: Xmr, tmp_path: Path) -> None:
    titles = ["红色连衣裙", "", "手机壳 防摔"] * 50
    source, out = tmp_path / "titles.txt", tmp_path / "bags.jsonl"
    source.write_text("\n".join(titles), "utf-8")
    run = xmr("bags", "--input", source, "--output", out, "--json")
    assert (run.code, run.json()["titles"]) == (0, 150)
    records = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert [record["text"] for record in records] == titles
    assert records[1]["bags"] == []
    assert xmr("bags", "--input", source, "--json").out == out.read_text("utf-8")


def test_lines_of_a_file_are_those_of_single_titles() -> None:
    from bagformer_cli.data.title_files import bag_encoder, json_lines, record

    encoder = bag_encoder("builtin", ("builtin",))
    titles = ['红色"连衣裙"\\ 2件', "", "👗👗 \u2028红\x01", "한국 calvin klein", "\ud83d裙"]
    lines = [json.loads(line) for line in json_lines(encoder, titles)]
    assert lines == [record(title, encoder.bags(title, whole=True)) for title in titles]


def test_byte_ranges_give_the_lines_of_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bagformer_cli.data import title_files as module

    source = tmp_path / "titles.txt"
    source.write_text("".join(f"红色连衣裙{n}号\r\n" for n in range(300)), "utf-8")
    whole = "".join(module.bag_lines(source, "builtin", ["builtin"]))
    monkeypatch.setattr(module, "RANGE_BYTES", 997)
    assert "".join(module.bag_lines(source, "builtin", ["builtin"])) == whole


def test_quality_against_marked_titles(xmr: Xmr, tmp_path: Path) -> None:
    gold = tmp_path / "gold.txt"
    spans = [
        "红 O",
        "色 O",
        "连 B-HCCX",
        "衣 I-HCCX",
        "裙 I-HCCX",
        "",
        "手 B-HCCX",
        "机 I-HCCX",
        "壳 B-HCCX",
        "",
    ]
    gold.write_text("\n".join(spans), "utf-8")
    run = xmr("bags", "--gold", gold, "--json")
    assert run.code == 0
    found = run.json()
    assert (found["titles"], found["spans"]) == (2, 3)
    assert found["exact"] == pytest.approx(1 / 3)
    assert found["crossing"] == pytest.approx(1 / 3)  # 手机壳, of 红色, 连衣裙, 手机壳
    assert found["missed"] == {"split": 0, "inside": 2, "shifted": 0}
    other = tmp_path / "titles.txt"
    other.write_text("红色连衣裙\n手机\n", "utf-8")
    run = xmr("bags", "--gold", gold, "--input", other)
    assert run.code == 2
    assert "titles.txt:2" in run.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no title"),
        (("",), "empty"),
        (("裙", "--no-builtin"), "No dictionary"),
        (("裙", "--lexicon", "missing.tsv"), "missing.tsv"),
        (("--input", "missing.txt"), "missing.txt"),
        (("--gold", "missing.txt"), "missing.txt"),
        (("裙", "--tokenizer", "missing/vocab.txt"), "vocabulary"),
    ],
)
def test_wrong_calls_are_explained(xmr: Xmr, arguments: tuple[str, ...], message: str) -> None:
    run = xmr("bags", *arguments)
    assert run.code == 2
    assert run.out == ""
    assert message in run.err


ODD_LINES = {
    "byte-order mark": (b"\xef\xbb\xbf" + "红色\n".encode(), ["红色"]),
    "windows line ends": ("红色\r\n手机壳\r\n".encode(), ["红色", "手机壳"]),
    "no last line end": ("红色\n手机壳".encode(), ["红色", "手机壳"]),
    "empty lines": ("\n红色\n\n \n".encode(), ["", "红色", "", " "]),
    "one empty line": (b"\n", [""]),
    "line separators that are no line ends": (
        "红色\u2028手机壳\x85\x0c红色\r红\n裙\n".encode(),
        ["红色\u2028手机壳\x85\x0c红色\r红", "裙"],
    ),
    "nul and control characters": (b"\x00a\x1b[31m\n", ["\x00a\x1b[31m"]),
    "ten thousand characters": (
        ("红色连衣裙" * 2000 + "\n裙").encode(),
        ["红色连衣裙" * 2000, "裙"],
    ),
}


@pytest.mark.parametrize(("content", "titles"), ODD_LINES.values(), ids=ODD_LINES)
def test_a_line_is_a_title_whatever_is_in_it(
    xmr: Xmr, tmp_path: Path, content: bytes, titles: list[str]
) -> None:
    source, out = tmp_path / "titles.txt", tmp_path / "bags.jsonl"
    source.write_bytes(content)
    run = xmr("bags", "--input", source, "--json")
    assert run.code == 0, run.err
    records = [json.loads(line) for line in run.out.split("\n") if line]
    assert [record["text"] for record in records] == titles
    for record in records:
        text = record["text"]
        spans = [(bag["start"], bag["end"]) for bag in record["bags"]]
        assert [text[start:end] for start, end in spans] == [b["text"] for b in record["bags"]]
        assert without_invisible("".join(text[start:end] for start, end in spans)) == (
            without_invisible("".join(text.split()))
        )
    assert xmr("bags", "--input", source, "--output", out).code == 0
    assert [json.loads(line) for line in out.read_text("utf-8").split("\n") if line] == records
    assert xmr("bags", "--input", source).code == 0


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x57\x53\n", "连衣裙\n裙".encode("gb18030"), b"\x80"]
)
def test_a_file_that_is_not_utf8_gives_no_bags(xmr: Xmr, tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "titles.txt"
    source.write_bytes(content)
    run = xmr("bags", "--input", source, "--json")
    assert (run.code, run.out) == (2, "")
    assert "titles.txt:1" in run.err
    assert "UTF-8" in run.err


def test_a_broken_line_of_titles_is_named(xmr: Xmr, tmp_path: Path) -> None:
    source = tmp_path / "titles.txt"
    source.write_bytes("裙\n".encode() * 3 + "连衣裙\n".encode("gb18030"))
    out = tmp_path / "bags.jsonl"
    run = xmr("bags", "--input", source, "--output", out)
    assert run.code == 2
    assert "titles.txt:4" in run.err
    assert not out.exists()


@pytest.mark.shared
@pytest.mark.parametrize(
    ("lexicons", "exact", "crossing"),
    [
        ([], 0.80, 0.028),
        (["bagformer/entity_dict_20220507"], 0.82, 0.030),
        (["bagformer/entity_dict_20220507", "ecommerce_ner/train.txt"], 0.88, 0.028),
    ],
)
def test_quality_on_marked_e_commerce_titles(
    xmr: Xmr, shared: Path, lexicons: list[str], exact: float, crossing: float
) -> None:
    dev = shared / "data/ecommerce_ner/dev.txt"
    options = [part for name in lexicons for part in ("--lexicon", shared / "data" / name)]
    found = xmr("bags", "--input", dev, "--gold", dev, *options, "--json").json()
    assert found["spans"] == 4941
    assert found["exact"] >= exact
    assert found["crossing"] <= crossing


def test_a_line_longer_than_a_piece_of_work_and_those_behind_it(
    tmp_path: Path, xmr: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bagformer_cli.data.title_files.RANGE_BYTES", 64)
    source = tmp_path / "long.txt"
    source.write_text("红裙\n" + "红色裙子" * 40 + "\n蓝裤\n伞\n", "utf-8")
    lines = xmr("bags", "--input", source, "--json").out.splitlines()
    assert [len(json.loads(line)["text"]) for line in lines] == [2, 160, 2, 1]
    assert len(xmr("bags", "--input", source).out.splitlines()) == 4


@pytest.mark.parametrize("many", [False, True], ids=["", "after many open files"])
def test_a_pipe_is_refused_before_it_is_opened(
    tmp_path: Path, xmr: Callable[..., Any], many: bool
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    if many and resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 1200:
        pytest.skip("the limit of open files is too low")
    held = [os.dup(0) for _ in range(1100 if many else 0)]
    try:
        run = xmr("bags", "--input", pipe, "--json")  # nobody writes to it
    finally:
        for handle in held:
            os.close(handle)
    assert run.code == 2
    assert str(pipe) in run.err
