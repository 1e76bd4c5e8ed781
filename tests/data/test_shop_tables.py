"""Tables as shops have them: titles above the headings, Excel's ids, paths and text files."""

from __future__ import annotations

from pathlib import Path

import pytest
from openpyxl import Workbook

from bagformer_cli.data.catalogue.catalogue import open_catalogue
from bagformer_cli.data.catalogue.products import Product
from bagformer_cli.data.importing.rows import read_rows
from bagformer_cli.errors import DataError, InputError

HEADINGS = ["商品ID", "商品名称", "主图"]
ABOVE = [["2024年秋季商品表"], ["version 1.00"], ["商品价目表", "", ""], ["a.b", "x"]]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XMR_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("above", ABOVE, ids=lambda row: row[0])
@pytest.mark.parametrize("ending", [".csv", ".tsv", "tabs.csv", ".xlsx"])
def test_headings_below_a_title_are_named(tmp_path: Path, above: list[str], ending: str) -> None:
    path = tmp_path / f"table{ending}"
    rows = [above, HEADINGS, ["1", "红裙", "a.jpg"]]
    if ending == ".xlsx":
        book = Workbook()
        for row in rows:
            book.worksheets[0].append(row)
        book.save(path)
    else:
        separator = "," if ending == ".csv" else "\t"
        path.write_text("\n".join(separator.join(row) for row in rows), "utf-8")
    with pytest.raises(InputError, match="not in its first row") as caught:
        open_catalogue(path)
    assert str(caught.value.where) == f"{path}:2"
    with pytest.raises(InputError, match="not in its first row"):
        list(read_rows(path))


def test_a_title_that_is_a_heading_is_a_title(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a.jpg,红裙\nb.jpg,主图\nc.jpg,图片", "utf-8")
    titles = [one.title for one in open_catalogue(path) if isinstance(one, Product)]
    assert titles == ["红裙", "主图", "图片"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_a_text_file_that_is_a_table_is_refused(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "table.txt"
    path.write_text("\t".join(HEADINGS) + "\n1\t红裙\ta.jpg\n", encoding)
    with pytest.raises(InputError, match=r"table\.csv"):
        open_catalogue(path)
    assert len(list(open_catalogue(path, titles=True))) > 0  # the user says that it has titles
    path.write_text("红裙, 标题\n蓝裙\n", encoding)
    assert open_catalogue(path).parts


@pytest.mark.parametrize("identity", ["6.12346E+18", "6E+18", "6.12346e+18"])
def test_an_id_that_excel_shortened_costs_its_row(tmp_path: Path, identity: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(f"id,title,image\n{identity},红裙,a.jpg\n3E10,蓝裙,b.jpg\n", "utf-8")
    for rows in (list(open_catalogue(path)), list(read_rows(path))):
        assert isinstance(rows[0], DataError)
        assert "last digits are lost" in str(rows[0])
        assert not isinstance(rows[1], InputError)


def test_a_path_of_windows_is_found(tmp_path: Path) -> None:
    (tmp_path / "图片").mkdir()
    (tmp_path / "图片" / "a.jpg").touch()
    (tmp_path / "odd\\name.jpg").touch()
    path = tmp_path / "table.csv"
    path.write_text("image,title\n图片\\a.jpg,红裙\nodd\\name.jpg,蓝裙\n", "utf-8")
    images = [one.image for one in open_catalogue(path) if isinstance(one, Product)]
    assert images == [str(tmp_path / "图片" / "a.jpg"), str(tmp_path / "odd\\name.jpg")]
