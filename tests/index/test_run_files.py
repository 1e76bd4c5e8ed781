"""``xmr search --queries FILE --output NAME.jsonl|.trec``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lancedb", reason="needs lancedb, which is not installed")

from bagformer_cli.data.query_files import TextQuery, read_text_queries
from bagformer_cli.errors import DataError, InputError
from bagformer_cli.index.results import Hit, Results
from bagformer_cli.index.run_files import write_run
from tests.support.small_model import indexed_shop

Xmr = Callable[..., Any]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return indexed_shop(tmp_path_factory.mktemp("shop"))


def results(*scores: float, ids: str = "abcdef") -> Results:
    found = [
        Hit(rank, score, score, name, None, None, {}, "late", score)
        for rank, (score, name) in enumerate(zip(scores, ids, strict=False), 1)
    ]
    return Results(found, [], {}, None, len(found), {})


def trec(path: Path) -> list[tuple[str, str, str, int, float, str]]:
    rows = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return [(a, b, c, int(rank), float(score), tag) for a, b, c, rank, score, tag in rows]


@pytest.mark.parametrize("kind", ["lines", "json"])
def test_both_forms_are_what_searches_of_each_query_find(
    kind: str, place: Path, xmr: Xmr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    texts = ["红裙", "蓝色 包"]
    ids = ["1", "2"] if kind == "lines" else ["70", "8"]
    lines = texts
    if kind == "json":
        pairs = zip(ids, texts, strict=True)
        lines = [json.dumps({"query_id": int(n), "query_text": text}) for n, text in pairs]
    file = place / f"{kind}.txt"
    file.write_text("\n".join(lines), encoding="utf-8")
    wanted = xmr("search", *texts, "-k", 3, "--json").json()["results"]
    for form in ("jsonl", "trec"):
        out = place / f"{kind}.{form}"
        run = xmr("search", "--queries", file, "-k", 3, "--output", out, "--json")
        assert run.code == 0, run.err
        assert run.json()["queries"] == 2
        assert run.json()["hits"] == sum(len(one["hits"]) for one in wanted)
    written = (place / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in written]
    assert [row["query_id"] for row in rows] == ids
    assert [(row["query"], row["hits"]) for row in rows] == [
        (one["query"], one["hits"]) for one in wanted
    ]
    found = trec(place / f"{kind}.trec")
    hits = [(name, one["hits"]) for name, one in zip(ids, wanted, strict=True)]
    assert [(row[0], row[2], row[3]) for row in found] == [
        (name, hit["id"], hit["rank"]) for name, some in hits for hit in some
    ]
    assert {(row[1], row[5]) for row in found} == {("Q0", "xmr")}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("q.csv", b"id,query\n7,\xe7\xba\xa2\n"),
        ("q.tsv", b"7\t\xe7\xba\xa2\n"),
        ("q.XLSX", b"PK\x03\x04\n"),
        ("q.xls", b"\xd0\xcf\x11\xe0\n"),
        ("q.txt", b"\x89PNG\r\n\x1a\n"),
        ("q.json", b'[{"query_id": 7, "query_text": "red"}]'),
    ],
)
def test_lines_of_another_file_are_no_queries(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError):
        read_text_queries(tmp_path / name)


def test_json_lines_are_read_whatever_the_ending(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_bytes(b'{"query_id": 7, "query_text": "red, blue"}\n')
    assert read_text_queries(tmp_path / "q.csv") == [TextQuery("7", "red, blue")]


def test_a_csv_of_one_column_has_queries(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_bytes(b"\xe7\xba\xa2\n")
    assert read_text_queries(tmp_path / "q.csv") == [TextQuery("1", "红")]


def test_queries_of_a_file_are_printed_without_an_output(
    place: Path, xmr: Xmr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    (place / "one.txt").write_text("\ufeff红裙\r\n", encoding="utf-8")
    one, same = (
        xmr("search", *query, "--json").json()["results"]
        for query in (("--queries", "one.txt"), ("红裙",))
    )
    assert one == same


@pytest.mark.parametrize(
    ("scores", "written"),
    [
        ((0.9, 0.5, 0.1), [0.9, 0.5, 0.1]),
        ((0.5, 0.5, 0.1), [1.0, 0.5, 1 / 3]),
        ((3.0, 2.5, 7.0), [1.0, 0.5, 1 / 3]),
        ((0.53000003, 0.53, 0.1), [0.53000003, 0.53, 0.1]),  # neighbours in float32
    ],
)
def test_scores_of_a_trec_run_fall(
    scores: tuple[float, ...], written: list[float], tmp_path: Path
) -> None:
    out = tmp_path / "run.trec"
    assert write_run(out, [TextQuery("9", "红裙")], [results(*scores)]) == 3
    read = [row[4] for row in trec(out)]
    assert read == pytest.approx(written, abs=1e-5)
    assert read == sorted(set(read), reverse=True)
    assert [row[2] for row in trec(out)] == ["a", "b", "c"]


def test_an_id_with_a_space_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    out = tmp_path / "run.trec"
    out.write_text("old", encoding="utf-8")
    found = results(0.5, 0.4)
    broken = replace(found, hits=[found.hits[0], replace(found.hits[1], id="红 裙")])
    with pytest.raises(InputError, match="space"):
        write_run(out, [TextQuery("1", "裙")], [broken])
    assert out.read_text(encoding="utf-8") == "old"
    assert write_run(out.with_suffix(".jsonl"), [TextQuery("1", "裙")], [broken]) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no query"),
        ("红裙\n\n蓝包\n".encode(), "empty"),
        (
            b'{"query_id": 1, "query_text": "a"}\n{"query_id": 1, "query_text": "b"}\n',
            "second time",
        ),
        (b'{"query_id": 1, "query_text": "a"}\nred dress\n', "not JSON"),
        (b'{"query_text": "a"}\n', "query_id"),
        (b"\xff\xfe", "UTF-8"),
    ],
)
def test_a_broken_file_is_refused_by_its_line(content: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "queries.txt"
    file.write_bytes(content)
    with pytest.raises((InputError, DataError)) as caught:
        read_text_queries(file)
    assert words in str(caught.value)
    assert str(file) in str(caught.value)
