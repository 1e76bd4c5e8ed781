"""Tables as shops have them: titles above the headings, Excel's ids, paths and text files."""

from __future__ import annotations

from pathlib import Path

import pytest
from openpyxl import Workbook

from bagformer_cli.data.catalogue.catalogue import open_catalogue
from bagformer_cli.data.catalogue.products import Product
from bagformer_cli.data.image_cells import first_image
from bagformer_cli.data.image_files import ImageAccess, place_of
from bagformer_cli.data.importing.rows import Row, read_rows
from bagformer_cli.errors import DataError, InputError
from tests.support.datasets import picture

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


@pytest.mark.parametrize("cell", ["D:\\photos\\a.jpg", "d:/photos/a.jpg", "\\\\nas\\photos\\a.jpg"])
def test_a_drive_of_windows_is_one_sentence_that_says_what_to_do(tmp_path: Path, cell: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(f"image,title\n{cell},红裙\n", "utf-8")
    (product,) = open_catalogue(path)
    assert isinstance(product, Product)
    assert product.image == cell
    for within in (None, tmp_path):
        with pytest.raises(InputError, match="path of a Windows machine") as caught:
            ImageAccess(within).read(cell)
        assert "Copy the images" in str(caught.value)


@pytest.mark.parametrize(
    ("cell", "first", "count"),
    [
        ("a.jpg", "a.jpg", 1),
        ("红裙, 大码.jpg", "红裙, 大码.jpg", 1),
        ("a.jpg;b.png", "a.jpg", 2),
        ("图/a.jpg，图/b.webp,", "图/a.jpg", 2),
        ("a.jpg\nb.jpg", "a.jpg", 2),
        ("https://a.cn/1.jpg", "https://a.cn/1.jpg", 1),
        ("https://a.cn/1,2;3.jpg?a=b|c", "https://a.cn/1,2;3.jpg?a=b|c", 1),
        ("https://a.cn/1.jpg,https://a.cn/2.jpg", "https://a.cn/1.jpg", 2),
        ("//a.cn/1.jpg; //a.cn/2.jpg | HTTPS://a.cn/3.jpg", "//a.cn/1.jpg", 3),
        ("https://a.cn/1.jpg https://a.cn/2.jpg", "https://a.cn/1.jpg", 2),
        ("abc:1:0:|https://a.cn/1.jpg;def:1:1:|https://a.cn/2.jpg;", "https://a.cn/1.jpg", 2),
        ("abc:1:0:|https://a.cn/1.jpg", "https://a.cn/1.jpg", 1),
        ("abc:1:0:|;def:1:1:|https://a.cn/2.jpg", "https://a.cn/2.jpg", 1),
        ("abc:2:0:1627207:28320|https://a.cn/1;1.jpg;", "https://a.cn/1;1.jpg", 1),
    ],
)
def test_the_first_of_several_pictures_is_read(
    tmp_path: Path, cell: str, first: str, count: int
) -> None:
    assert first_image(cell) == (first, count)
    path = tmp_path / "table.csv"
    path.write_text(f'id,主图,标题\n1,a.jpg,蓝裙\n2,"{cell}",红裙\n3,"{cell}",红裙\n', "utf-8")
    catalogue = open_catalogue(path)
    product = list(catalogue)[1]
    assert isinstance(product, Product)
    assert product.image == place_of(first, tmp_path)
    row = list(read_rows(path))[1]
    assert isinstance(row, Row)
    assert row.image == first
    remarks = [one for one in catalogue.remarks.warnings if "several images" in one]
    assert len(remarks) == (count > 1)
    assert all(f"2, the first is {path}:3" in one for one in remarks)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id,标题,产品照\n1,红裙,a.jpg\n2,蓝裙,b/c.PNG\n", "--column image=产品照"),
        ("id,标题,链接,产品照\n1,裙,https://a.cn/1,https://a.cn/1.jpg?w=9\n", "产品照, 链接"),
        ("id,标题,照 (大)\n1,红裙,https://a.cn/1\n", "--column image='照 (大)'"),
        ("id,标题,图片,产品照\n1,红裙,,a.jpg\n", "'图片', is empty"),
        ("id,标题,价格\n1,红裙,9\n", "image=HEADING"),
        ("id,标题,产品照,图片\n1,红裙,a.jpg,\n2,红裙,a.jpg,b.jpg\n", None),
    ],
)
def test_a_table_without_images_names_the_columns_that_look_like_images(
    tmp_path: Path, text: str, says: str | None
) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text, "utf-8")
    remark = open_catalogue(path).remarks.no_images
    assert remark is None if says is None else remark is not None and says in remark


def test_a_conversion_is_a_note_and_a_broken_row_names_its_id(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    rows = ["A1,红裙,a.jpg,￥99,2024/6/1", "A2,蓝裙,b.jpg,1", "A3,,,,", ",红裙,a.jpg,,"]
    path.write_text("\n".join(["id,标题,图片,价格,上架", *rows]), "utf-8")
    catalogue = open_catalogue(path)
    assert [note[:4] for note in catalogue.remarks.notes] == ["'价格'", "'上架'"]
    assert catalogue.remarks.warnings == ()
    broken = [str(one) for one in catalogue if isinstance(one, InputError)]
    assert f"{path}:3 (id A2)" in broken[0]
    assert f"{path}:4 (id A3)" in broken[1]
    assert f"{path}:5: " in broken[2]


def test_pictures_of_a_taobao_export_without_addresses_are_named(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("id,主图,标题\n1,abc:1:0:|;def:1:1:|;,红裙\n2,a.jpg,蓝裙\n", "utf-8")
    for rows in (list(open_catalogue(path)), list(read_rows(path))):
        assert isinstance(rows[0], DataError)
        assert "without their addresses" in str(rows[0])
        assert f"{path}:2 (id 1)" in str(rows[0])
        assert not isinstance(rows[1], InputError)


@pytest.mark.parametrize(
    "again", ["num_iid,title,pic_url,price", ",title,,", "商品ID,商品名称,主图,售价"]
)
def test_a_second_row_of_headings_is_no_product(tmp_path: Path, again: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(f"商品ID,商品名称,主图,售价\n{again}\n1,红裙,a.jpg,99\n", "utf-8")
    catalogue = open_catalogue(path)
    assert catalogue.attributes == {"售价": "float"}
    for rows in (list(catalogue), list(read_rows(path))):
        assert len(rows) == 2
        assert "repeats the headings" in str(rows[0])
        assert not isinstance(rows[1], InputError)


def test_headings_in_the_middle_of_a_table_are_no_product_and_titles_stay(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("image,title\na.jpg,title\nimage,title\nb.jpg,红裙\n", "utf-8")
    products = list(open_catalogue(path))
    assert [isinstance(one, Product) for one in products] == [True, False, True]
    path.write_text("title,price\ncaption,9\n红裙,9\n", "utf-8")
    assert all(isinstance(one, Product) for one in open_catalogue(path))


def test_files_of_a_folder_are_images_by_their_content(tmp_path: Path) -> None:
    for name in ("a.heic", "b", "c.jpg_large", "d.tbi"):
        (tmp_path / name).write_bytes(picture(1, form="JPEG"))
    (tmp_path / "e.raw").write_bytes(b"II*\0 the beginning of a camera's raw image")
    (tmp_path / "f.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    found = [one.id if isinstance(one, Product) else None for one in open_catalogue(tmp_path)]
    assert found == ["a.heic", "b", "c.jpg_large", "d.tbi", None, "f.heic"]


def test_a_path_of_windows_is_found(tmp_path: Path) -> None:
    (tmp_path / "图片").mkdir()
    (tmp_path / "图片" / "a.jpg").touch()
    (tmp_path / "odd\\name.jpg").touch()
    path = tmp_path / "table.csv"
    path.write_text("image,title\n图片\\a.jpg,红裙\nodd\\name.jpg,蓝裙\n", "utf-8")
    images = [one.image for one in open_catalogue(path) if isinstance(one, Product)]
    assert images == [str(tmp_path / "图片" / "a.jpg"), str(tmp_path / "odd\\name.jpg")]


@pytest.mark.parametrize(
    ("head", "rows", "named"),
    [
        ("图片,标题,货号", ["a.jpg,红裙,H1", "b.jpg,蓝裙,H2"], "货号"),
        ("图片,标题,款号,商家编码", ["a.jpg,红裙,K1,7", "b.jpg,蓝裙,K1,8"], "商家编码"),
        ("图片,标题,Item No.", ["a.jpg,红裙,1", "b.jpg,蓝裙,2"], "'Item No.'"),
        ("图片,标题,款号", ["a.jpg,红裙,K1", "b.jpg,蓝裙,K1"], None),
        ("图片,标题,货号", ["a.jpg,红裙,H1", "b.jpg,蓝裙,"], None),
        ("图片,标题,货号", ["a.jpg,红裙,H1"], None),
        ("图片,标题,价格,型号", ["a.jpg,红裙,9,X1", "b.jpg,蓝裙,8,X2"], None),
        ("编号,图片,标题,货号", ["1,a.jpg,红裙,H1", "2,b.jpg,蓝裙,H2"], None),
    ],
)
def test_a_column_that_may_hold_the_ids_is_named(
    tmp_path: Path, head: str, rows: list[str], named: str | None
) -> None:
    path = tmp_path / "table.csv"
    path.write_text("\n".join([head, *rows]), "utf-8")
    notes = [note for note in open_catalogue(path).remarks.notes if "--column id=" in note]
    assert [note.split("--column id=")[1] for note in notes] == ([] if named is None else [named])
