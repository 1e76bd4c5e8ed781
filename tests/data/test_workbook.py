"""Excel workbooks are read as Excel shows them; other formats are explained."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from datetime import datetime, time
from pathlib import Path
from typing import Any

import pytest
from openpyxl import Workbook

from bagformer_cli.data.catalogue.catalogue import open_catalogue
from bagformer_cli.data.catalogue.products import Product
from bagformer_cli.data.importing.table_import import import_table
from bagformer_cli.data.muge import MugeFolder, iter_queries
from bagformer_cli.data.table import read_records
from bagformer_cli.data.workbook import open_sheet
from bagformer_cli.errors import InputError
from tests.support.datasets import picture


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XMR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def workbook(path: Path, *rows: list[Any], change: Callable[[Any], None] | None = None) -> Path:
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    for row in rows:
        sheet.append(row)
    if change is not None:
        change(sheet)
    book.save(path)
    return path


def column(path: Path, name: str = "x") -> list[Any]:
    return [record.values[name] for record in read_records(path)]


@pytest.mark.parametrize(
    ("value", "form", "shown"),
    [
        (77, "0000", "0077"),
        (77, "General", "77"),
        (690123456789.0, "General", "690123456789"),
        (1.5e11, "General", "150000000000"),
        (0.1 + 0.2, "General", "0.3"),
        (19.9, "0.00", "19.9"),
        (-3, "General", "-3"),
        (1e-7, "General", "0.0000001"),
        (True, "General", "true"),
        ("0077", "@", "0077"),
        ("两行\n标题", "General", "两行\n标题"),
        (datetime(2024, 5, 1), "yyyy-mm-dd", "2024-05-01"),
        (datetime(2024, 5, 1, 13, 30), "yyyy-mm-dd hh:mm", "2024-05-01 13:30:00"),
        (time(9, 5), "hh:mm", "09:05:00"),
        ("#N/A", "General", ""),
        (None, "General", ""),
    ],
)
def test_a_cell_is_what_excel_shows(tmp_path: Path, value: Any, form: str, shown: str) -> None:
    def change(sheet: Any) -> None:
        sheet["B2"] = value
        sheet["B2"].number_format = form

    path = workbook(tmp_path / "t.xlsx", ["image", "x"], ["a.jpg"], change=change)
    assert column(path) == [shown]


def test_empty_rows_keep_the_numbers_of_the_sheet(tmp_path: Path) -> None:
    path = workbook(tmp_path / "t.xlsx", [], ["image", "title"], [], ["a.jpg", "红"], [], [])
    (record,) = read_records(path)
    assert record.where == f"{path}:4"
    assert record.values == {"image": "a.jpg", "title": "红"}


def test_cells_merged_over_rows_stand_in_each(tmp_path: Path) -> None:
    path = workbook(
        tmp_path / "t.xlsx",
        ["x", "image"],
        ["A", "1.jpg"],
        [None, "2.jpg"],
        [None, "3.jpg"],
        ["B", "4.jpg"],
        [None, "5.jpg"],
        change=lambda sheet: [sheet.merge_cells("A2:A4"), sheet.merge_cells("C1:D1")],
    )
    assert column(path) == ["A", "A", "A", "B", ""]


def test_a_formula_is_its_stored_value_and_one_without_is_said(tmp_path: Path) -> None:
    path = workbook(tmp_path / "t.xlsx", ["image", "x"], ["a.jpg", "=1+1"], ["b.jpg", 7])
    assert column(path) == ["", "7"]
    assert "formulas" in open_catalogue(path).remarks.warnings[0]
    packed = zipfile.ZipFile(path)
    files = {name: packed.read(name) for name in packed.namelist()}
    sheet = files["xl/worksheets/sheet1.xml"]
    assert b"<f>1+1</f><v" in sheet
    files["xl/worksheets/sheet1.xml"] = sheet.replace(
        b"<f>1+1</f><v />", b"<f>1+1</f><v>2</v>"
    ).replace(b"<f>1+1</f><v></v>", b"<f>1+1</f><v>2</v>")
    with zipfile.ZipFile(path, "w") as out:
        for name, content in files.items():
            out.writestr(name, content)
    assert column(path) == ["2", "7"]
    assert not open_catalogue(path).remarks.warnings


def test_a_sheet_is_chosen_by_name_or_number(tmp_path: Path) -> None:
    book = Workbook()
    for number, name in enumerate(["说明", "商品", "3"]):
        sheet = book.create_sheet(name)
        sheet.append(["image", "title"])
        sheet.append([f"{number}.jpg", name])
    del book["Sheet"]
    book["说明"].sheet_state = "hidden"
    book.active = 1
    book.save(tmp_path / "t.xlsx")

    def title(sheet: str | None) -> str:
        (product,) = open_catalogue(tmp_path / "t.xlsx", sheet=sheet)
        assert isinstance(product, Product)
        return str(product.title)

    assert [title(None), title("1"), title("商品"), title("说明"), title("3")] == [
        "商品", "商品", "商品", "说明", "3"
    ]  # fmt: skip
    assert "商品" in open_catalogue(tmp_path / "t.xlsx").remarks.warnings[0]
    assert not open_catalogue(tmp_path / "t.xlsx", sheet="商品").remarks.warnings
    with pytest.raises(InputError, match=r"no such sheet.*商品, 3, 说明"):
        title("4")


def test_parts_of_a_sheet_hold_the_same_products_and_change_alone(tmp_path: Path) -> None:
    rows: list[list[Any]] = [["id", "image", "title", "price"]]
    rows += [[f"a{n}", f"{n}.jpg", f"红裙{n}", n + 0.5] for n in range(7)]
    path = workbook(tmp_path / "t.xlsx", *rows)
    whole = list(open_catalogue(path))
    assert [one.id for one in whole if isinstance(one, Product)] == [f"a{n}" for n in range(7)]
    for size in (1, 3):
        assert list(open_catalogue(path, part_size=size)) == whole
    before = [part.digest for part in open_catalogue(path, part_size=3).parts]
    rows[7][3] = 9.5
    workbook(path, *rows)
    after = [part.digest for part in open_catalogue(path, part_size=3).parts]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False]


def test_a_damaged_cache_is_made_again(tmp_path: Path, cache: Path) -> None:
    path = workbook(tmp_path / "t.xlsx", ["image", "x"], ["a.jpg", 1])
    assert column(path) == ["1"]
    sheet = open_sheet(path).file
    sheet.write_bytes(b"")
    path.touch()  # as another process, which remembers nothing
    assert column(path) == ["1"]


def test_long_numbers_and_cells_without_heading_are_remarked(tmp_path: Path) -> None:
    path = workbook(
        tmp_path / "t.xlsx", ["image", "id"], ["a.jpg", 1234567890123456789], ["b.jpg", 2, "note"]
    )
    remarks = " ".join(open_catalogue(path).remarks.warnings)
    assert "B2" in remarks
    assert "row 3" in remarks


def test_a_workbook_is_imported(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(1))
    path = workbook(tmp_path / "t.xlsx", ["商品ID", "主图", "标题"], [60012, "a.png", "红裙"],
                    [60013, "gone.png", "包"])  # fmt: skip
    done = import_table(path, tmp_path / "out")
    assert [
        query.text for query in iter_queries(MugeFolder(tmp_path / "out").queries_path("train"))
    ]
    assert f"{path}:3 (id 60013)" in str(done.left_out[0])


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.xlsx", b"PK\x03\x04" + bytes(100), "Excel"),
        ("t.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), "password"),
        ("t.xlsx", b"", "Excel"),
        ("t.xlsx", b"id,image,title\n", "Excel"),
        ("t.csv", b"PK\x03\x04" + bytes(100), "rename.*xlsx"),
        ("t.xls", b"x", "Excel 97.*save it as .xlsx"),
        ("t.ods", b"x", "LibreOffice"),
        ("t.numbers", b"x", "Numbers"),
        ("t.et", b"x", "WPS"),
        ("photos.zip", b"PK\x03\x04", "unpack"),
        ("photos.tar.gz", b"x", "unpack"),
        ("photos.rar", b"x", "unpack"),
    ],
)
@pytest.mark.parametrize("command", ["catalogue", "import"])
def test_other_formats_are_one_sentence(
    tmp_path: Path, name: str, content: bytes, says: str, command: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"(?i){says}"):
        list(open_catalogue(path)) if command == "catalogue" else import_table(path, tmp_path / "o")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "part",
    ["xl/worksheets/sheet1.xml", "xl/workbook.xml", "xl/styles.xml", "xl/_rels/workbook.xml.rels"],
)
@pytest.mark.parametrize("how", ["cut", "entities", "gone"])
def test_a_damaged_workbook_is_an_input_error(tmp_path: Path, part: str, how: str) -> None:
    path = workbook(tmp_path / "t.xlsx", ["image", "title"], ["a.jpg", 1])
    with zipfile.ZipFile(path) as packed:
        files = {name: packed.read(name) for name in packed.namelist()}
    bomb = "".join(
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    files[part] = {
        "cut": files[part][:60],
        "entities": f'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">{bomb}]><x>&i;</x>'.encode(),
        "gone": b"",
    }[how]
    with zipfile.ZipFile(path, "w") as out:
        for name, content in files.items():
            out.writestr(name, content)
    with pytest.raises(InputError):
        list(open_catalogue(path))
