"""Titles of files, pipes and tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openpyxl import Workbook

from bagformer_cli.data.title_files import read_titles
from bagformer_cli.data.title_sources import title_file
from bagformer_cli.errors import InputError

DRESS, SHOES = "2024新款红色碎花连衣裙", "空军一号, 男鞋 42码"


def titles_of(path: Path, **options: Any) -> list[str]:
    with title_file(path, **options) as file:
        return list(read_titles(file))


def written(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.txt", f"{DRESS}\n{SHOES}\n"),
        ("t.csv", f'id,标题,价格\n1,{DRESS},99\n2,"{SHOES}",399\n'),
        ("t.csv", f'商品名称\n{DRESS}\n"{SHOES}"\n'),
        ("t.csv", f"{DRESS}\r\n{SHOES}\r\n"),  # one column, and nothing says that it is a table
        ("t.tsv", f"title\timage\n{DRESS}\ta.jpg\n{SHOES}\tb.jpg\n"),
        ("t.jsonl", f'{{"query_text": "{DRESS}"}}\n{{"query_text": "{SHOES}"}}\n'),
        ("t.csv", f'a.jpg,{DRESS}\nb.jpg,"{SHOES}"\n'),
    ],
)
def test_titles_come_from_lines_and_from_the_title_column_of_any_table(
    tmp_path: Path, name: str, text: str
) -> None:
    assert titles_of(written(tmp_path / name, text)) == [DRESS, SHOES]


def test_a_workbook_and_a_table_in_gb18030_are_read(tmp_path: Path) -> None:
    book = Workbook()
    book.create_sheet("商品").append(["编号", "标题"])
    book["商品"].append([1, DRESS])
    book.save(tmp_path / "t.xlsx")
    assert titles_of(tmp_path / "t.xlsx", sheet="商品") == [DRESS]
    table = written(tmp_path / "t.csv", f"id,标题\n1,{DRESS}\n", "gb18030")
    assert titles_of(table, encoding="gb18030") == [DRESS]


def test_a_column_is_named_by_the_user_and_a_line_break_in_a_title_is_a_blank(
    tmp_path: Path,
) -> None:
    table = written(tmp_path / "t.csv", 'id,品名\n1,"蓝色\r\n 牛仔裤"\n')
    assert titles_of(table) == ["蓝色 牛仔裤"]
    table = written(tmp_path / "u.csv", 'id,款名\n1,"蓝色\r\n 牛仔裤"\n')
    assert titles_of(table, chosen={"title": "款名"}) == ["蓝色 牛仔裤"]


@pytest.mark.parametrize(
    "text", ["id,款名\n1,红裙\n", "2024新款,红色\n小米,手机\n", "id\t价格\n1\t9\n"]
)
def test_a_table_without_titles_is_refused_and_never_guessed(tmp_path: Path, text: str) -> None:
    table = written(tmp_path / ("t.tsv" if "\t" in text else "t.csv"), text)
    with pytest.raises(InputError, match="no column 'title'"):
        titles_of(table)


def test_all_headings_of_a_table_without_titles_are_shown(tmp_path: Path) -> None:
    table = written(tmp_path / "t.csv", "货号,款名,售价,颜色\n1,红裙,9,红\n")
    with pytest.raises(InputError, match="货号, 款名, 售价, 颜色"):
        titles_of(table)


def test_rows_without_a_title_are_named(xmr: Callable[..., Any], tmp_path: Path) -> None:
    table = written(tmp_path / "t.csv", f"id,标题\n1,{DRESS}\n2,\n3,{DRESS}\n")
    run = xmr("bags", "--input", table, "--json")
    assert [line["text"] for line in run.lines()] == [DRESS, DRESS]
    assert "t.csv:3" in run.err
    nothing = xmr("bags", "--input", written(tmp_path / "n.csv", "id,标题\n1,\n"))
    assert nothing.code == 2
    assert "No title of this table can be used" in nothing.err


def test_dictionaries_are_mined_and_counted_from_a_column(
    xmr: Callable[..., Any], tmp_path: Path
) -> None:
    rows = "".join(f"{n},{DRESS}{n}\n" for n in range(3))
    table = written(tmp_path / "t.csv", f"id,品名\n{rows}")
    column = ("--column", "title=品名", "--json")
    assert xmr("dict", "stats", "--titles", table, *column).json()["titles"]["count"] == 3
    assert xmr("dict", "mine", table, *column).json()["titles"] == 3


def test_a_title_that_is_the_name_of_a_file_is_pointed_out(
    xmr: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "t.csv", f"{DRESS}\n")
    assert "--input t.csv" in xmr("bags", "t.csv").err
    assert xmr("bags", "other.csv").err == ""
