"""Text of data and of engines on terminals and in pipes: no escapes, valid JSON, our words."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.black_box import (
    RAW_ENGINE,
    Shop,
    assert_no_bug,
    environment,
    process,
    program,
)

# Raw texts of engines and terminals.
ESCAPES = ["\x1b", "\x9b", "\x07", "\r", "\u202e", "\u2066"]


def assert_harmless(text: str) -> None:
    for character in ESCAPES:
        assert character not in text, (repr(character), repr(text))


def test_escape_sequences_of_the_case_reach_no_terminal(shop: Shop) -> None:
    shop.case("23-escapes")
    shop.built(shop.folder / "rich.csv")
    run = shop.xmr("search", "红", "--index", shop.index)
    assert run.code == 0, run.err
    assert_harmless(run.out + run.err)
    assert "[red]新款[/red]连衣裙" in run.out  # markup is text
    assert ":heart:" in run.out


@pytest.mark.parametrize(
    "evil", ["\x1b]0;X\x07", "\x1b[2J", "\x9b2J", "\r盖住", "\u202e倒", "\x08"]
)
@pytest.mark.parametrize("place", ["title", "id", "brand"])
def test_no_field_of_a_product_controls_the_terminal(shop: Shop, place: str, evil: str) -> None:
    row = {"id": "a0", "image": "p0.jpg", "title": "红裙", "brand": "牌"}
    row[place] += evil + "尾"
    gone = {"id": f"bad{evil}", "image": f"gone{evil}.jpg", "title": evil}
    table = shop.write("e.jsonl", json.dumps(row) + "\n" + json.dumps(gone) + "\n")
    built = shop.xmr("index", "build", table, shop.index, "--checkpoint", shop.model)
    assert_no_bug(built)
    assert_harmless((built.out + built.err).replace("\r\n", "\n"))
    if built.code == 0 and Path(shop.index).exists():
        run = shop.xmr("search", "红", "--index", shop.index)
        assert_harmless(run.out + run.err)
        assert "\x08" not in run.out + run.err


@pytest.mark.slow
def test_bags_dictionaries_and_errors_control_no_terminal(
    xmr: Callable[..., Any], home: Path
) -> None:
    evil = "红\x1b]0;X\x07裙\x9b2J"
    (home / "d.txt").write_text(f"{evil}\n{evil}\n", "utf-8")
    for arguments in (
        ["bags", evil],
        ["dict", "check", "d.txt", "--all"],
        ["dict", "stats", "d.txt"],
        ["score", f"{evil}.jpg", "红"],
        ["bags", "--input", f"{evil}.txt"],
        ["index", "info", evil],
        [evil],
        ["bags", f"--{evil}"],
        ["data", "check", evil],
    ):
        run = xmr(*arguments)
        assert_harmless(run.out + run.err)


@pytest.mark.parametrize(
    "where",
    [
        "price <", "nothing = 1", "price = 'x", "price LIKE 3", "foo(price) = 1", "price = 1/0",
        "price = (SELECT 1)", "price < 50 -- x", "thumbnail = 'x'", "price < 50;",
        "CAST(price AS INT) = 1", "price AND title", "'a' = 'a", "((price = 1)", "title = \ud800",
        "length(thumbnail) > 3", "array_length(x) = 1", "price ~ 'x'", "price::int = 1",
    ],
)  # fmt: skip
def test_a_wrong_filter_is_explained_in_our_words(
    xmr: Callable[..., Any], shared_index: Path, where: str
) -> None:
    run = xmr("search", "商品", "--index", shared_index, "--json", "--where", where)
    assert_no_bug(run)
    assert "damaged" not in run.err
    assert not RAW_ENGINE.search(run.err), run.err
    assert run.code in (0, 2)


# Streams.
@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "gbk", "latin-1", "utf-8"])
def test_json_in_a_pipe_of_another_encoding_is_valid_json(tmp_path: Path, encoding: str) -> None:
    ended = subprocess.run(
        program("bags", "红色😀连衣裙é", "--json"),
        env=environment(PYTHONIOENCODING=encoding, PYTHONUTF8="0"),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.decode(encoding))["text"] == "红色😀连衣裙é"


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("bags", "红裙"), ("bags", "红裙", "--json"), ("--help",)])
def test_a_closed_stdout_ends_quietly(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ended = process(command=["sh", "-c", 'exec "$@" >&-', "sh", *program(*arguments)])
    assert_no_bug(ended)
    assert ended.err.strip() == ""


def test_a_query_that_begins_with_a_dash_works_or_says_how(
    xmr: Callable[..., Any], model: Path, home: Path
) -> None:
    shop = Shop(xmr, model, home)
    shop.built(home / "t.csv")
    run = xmr("search", "-5度睡袋", "--index", shop.index)
    assert run.code == 0 or ("--" in run.err.replace("--help", "") and run.code == 2), run.err
    run = xmr("search", "--index", shop.index, "--", "-5度睡袋")
    assert run.code == 0, run.err
    run = xmr("bags", "-5度睡袋")
    assert run.code == 0 or "--" in run.err.replace("--help", ""), run.err
