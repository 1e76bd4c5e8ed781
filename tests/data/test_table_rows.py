"""Rows of tables: each is a product or named, in every encoding, and in parts of any size."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bagformer_cli.data.catalogue.catalogue import open_catalogue
from bagformer_cli.data.catalogue.products import Product
from bagformer_cli.data.csv_cells import MAX_QUOTED
from bagformer_cli.data.table import read_records
from bagformer_cli.data.text_form import text_form
from bagformer_cli.errors import DataError, InputError
from bagformer_cli.text.characters import is_blank

HEADINGS = ["id", "image", "title", "note"]
CHARACTERS = list("红裙a1 ,\"\t;\\'|.-%$¥\u200b\ufeff１﹐𠮷😀")
ODD = [
    '"', '"27寸', '27"', '""', '"大码" 红裙', "红裙,大码", '"红裙, 大码"', "'", "红\\", ' "a',
    '"a" ',
]  # fmt: skip
CELL = st.one_of(st.text(st.sampled_from(CHARACTERS), max_size=8), st.sampled_from(ODD))
WRITTEN = st.text(st.sampled_from([*CHARACTERS, "\n"]), max_size=8).map(
    lambda text: text.replace("\ufeff", "")  # a mark at the beginning of a line is dropped
)
LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])


def read(path: Path, **options: object) -> tuple[dict[str, Product], list[str]]:
    """Return the products of a table by id, and the places of the rows left out."""
    products: dict[str, Product] = {}
    places = []
    for one in open_catalogue(path, **options):  # type: ignore[arg-type]
        if isinstance(one, Product):
            assert one.id not in products
            products[one.id] = one
        else:
            places.append(str(one.where).partition(" (id ")[0])
    return products, places


@st.composite
def careless(draw: st.DrawFn) -> tuple[str, str, int]:
    """Draw a table whose writer knows no quotes: its text, its ending, its rows."""
    ending = draw(st.sampled_from(["csv", "tsv"]))
    tab = "\t" if ending == "tsv" else ","
    lines = [HEADINGS] + [
        [f"sku{n}", f"p{n}.jpg", draw(CELL), draw(CELL)] for n in range(draw(st.integers(1, 7)))
    ]
    end = draw(LINE_ENDS)
    return end.join(tab.join(cells) for cells in lines) + end, ending, len(lines) - 1


@settings(max_examples=300)
@given(careless())
def test_every_row_of_a_careless_table_is_a_product_or_named(
    tmp_path_factory: pytest.TempPathFactory, table: tuple[str, str, int]
) -> None:
    text, ending, count = table
    path = tmp_path_factory.mktemp("t") / f"t.{ending}"
    path.write_bytes(text.encode())
    products, places = read(path)
    for number in range(count):
        one = products.get(f"sku{number}")
        assert one or f"{path}:{number + 2}" in places, (number, places)
        assert one is None or one.image == str(path.parent / f"p{number}.jpg")


@settings(max_examples=200)
@given(
    st.lists(st.tuples(WRITTEN, WRITTEN), min_size=1, max_size=6),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_a_table_of_a_csv_writer_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str]], quoting: int, end: str
) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, quoting=quoting, lineterminator=end)  # type: ignore[arg-type]
    writer.writerow(HEADINGS)
    for number, (title, note) in enumerate(cells):
        writer.writerow([f"sku{number}", "p.jpg", title, note])
    path = tmp_path_factory.mktemp("t") / "t.csv"
    path.write_bytes(stream.getvalue().encode())
    products, places = read(path)
    assert not places
    for number, (title, note) in enumerate(cells):
        one = products[f"sku{number}"]
        assert (one.title or "") == ("" if is_blank(title) else title.strip())
        if isinstance(one.attributes.get("note", ""), str):
            assert one.attributes.get("note", "") == note.strip()


@given(careless(), st.integers(1, 4), st.sampled_from(["utf-8", "gb18030", "utf-16", "utf-32-be"]))
def test_parts_of_any_size_and_encoding_hold_what_one_reader_reads(
    tmp_path_factory: pytest.TempPathFactory,
    table: tuple[str, str, int],
    size: int,
    encoding: str,
) -> None:
    text, ending, _ = table
    folder = tmp_path_factory.mktemp("t")
    (folder / "one").mkdir()
    (folder / f"t.{ending}").write_bytes(text.encode())
    whole, places = read(folder / f"t.{ending}")
    (folder / "one" / f"t.{ending}").write_bytes(text.encode(encoding))
    parts, named = read(
        folder / "one" / f"t.{ending}", part_size=size, encoding=encoding, root=folder
    )
    assert [place.rpartition(":")[2] for place in named] == [
        place.rpartition(":")[2] for place in places
    ]
    assert list(parts) == list(whole)
    for name, one in parts.items():
        assert (one.title, one.image, one.attributes) == (
            whole[name].title,
            whole[name].image,
            whole[name].attributes,
        )


@settings(max_examples=300)
@given(
    st.binary(max_size=80)
    | st.text(st.sampled_from([*CHARACTERS, "\n", "\r", "\0"])).map(
        lambda text: b"image,title\n" + text.encode("utf-16-le")[:60]
    ),
    st.sampled_from(["t.csv", "t.tsv", "t.jsonl"]),
    st.sampled_from(["utf-8", "gb18030", "utf-16", "utf-32", "ascii", "utf-7"]),
)
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str, encoding: str
) -> None:
    path = tmp_path_factory.mktemp("t") / name
    path.write_bytes(content)
    try:
        list(open_catalogue(path, encoding=encoding))
    except InputError as error:
        str(error).encode()


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
))  # fmt: skip
def test_any_json_value_is_an_attribute_or_named(
    tmp_path_factory: pytest.TempPathFactory, value: object
) -> None:
    path = tmp_path_factory.mktemp("t") / "t.jsonl"
    lines = [{"id": n, "image": "p.jpg", "title": "裙", "x": v} for n, v in enumerate([value, 1])]
    path.write_text("\n".join(map(json.dumps, lines)))
    products, places = read(path)
    assert "1" in products
    assert "0" in products or f"{path}:1" in places


# Stray quotes.


def rows(path: Path, text: str) -> list[list[str] | str]:
    """Write a table; return the cells of each record, or the line of one that is broken."""
    path.write_text(text, "utf-8", newline="")
    return [
        list(record.values.values()) if record.error is None else record.where.rpartition(":")[2]
        for record in read_records(path)
    ]


def test_quotes_are_read_as_csv_defines_them(tmp_path: Path) -> None:
    text = (
        'image,title\na.jpg,"红裙, ""大码"""\nb.jpg,"两行\n标题"\nc.jpg, "空格, 引号" \nd.jpg,""\n'
    )
    assert rows(tmp_path / "t.csv", text) == [
        ["a.jpg", '红裙, "大码"'],
        ["b.jpg", "两行\n标题"],
        ["c.jpg", "空格, 引号"],
        ["d.jpg", ""],
    ]


@pytest.mark.parametrize("title", ['27"显示器', "'红裙'", '"大码" 红裙', '27寸"', 'a"b"c'])
def test_a_quote_inside_a_cell_is_text(tmp_path: Path, title: str) -> None:
    assert rows(tmp_path / "t.csv", f"image,title\na.jpg,{title}\nb.jpg,裙\n") == [
        ["a.jpg", title],
        ["b.jpg", "裙"],
    ]


@pytest.mark.parametrize("title", ['"27寸', '"大,码" 红裙', '"', '"""', ' "27寸'])
def test_an_unclosed_quote_costs_its_own_row(tmp_path: Path, title: str) -> None:
    text = f"image,title,price\na.jpg,{title},1\nb.jpg,裙,2\nc.jpg,包,3\n"
    assert rows(tmp_path / "t.csv", text) == ["2", ["b.jpg", "裙", "2"], ["c.jpg", "包", "3"]]


def test_two_stray_quotes_that_close_each_other_take_no_rows_between(tmp_path: Path) -> None:
    text = 'image,title\na.jpg,"27寸\nb.jpg,裙\nc.jpg,17寸"\nd.jpg,包\n'
    assert rows(tmp_path / "t.csv", text) == [
        "2",
        ["b.jpg", "裙"],
        ["c.jpg", '17寸"'],
        ["d.jpg", "包"],
    ]


def test_reading_ahead_after_a_stray_quote_is_bounded(tmp_path: Path) -> None:
    lines = "\n".join(["长" * 1000] * 3000)
    found = rows(tmp_path / "t.csv", f'image,title,price\na.jpg,"27寸,1\n{lines}\nb.jpg,裙,2\n')
    assert len(lines) > MAX_QUOTED
    assert found[0] == "2"
    assert found[-1] == ["b.jpg", "裙", "2"]
    assert len(found) == 3002


def test_many_stray_quotes_are_read_in_linear_time(tmp_path: Path) -> None:
    count = 20_000
    text = "title,x\n" + "".join(f'"裙{n},1\n' for n in range(count))
    assert len(rows(tmp_path / "t.csv", text)) == count


# Cells that are missing, or too many.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image,title\na.jpg,红裙,大码\nb.jpg,裙\n", ["2", ["b.jpg", "裙"]]),
        ("image,title\na.jpg\nb.jpg,裙\n", ["2", ["b.jpg", "裙"]]),
        ("image,title\na.jpg,裙,,\nb.jpg,裙\n", [["a.jpg", "裙"], ["b.jpg", "裙"]]),
        ("image,title,,\na.jpg,裙,,\nb.jpg,裙\n", [["a.jpg", "裙"], ["b.jpg", "裙"]]),
        ("a.jpg,红裙,大码\nb.jpg,裙\n", ["1", ["b.jpg", "裙"]]),
        ("image,title\n\n,,\n  \nb.jpg,裙\n\n", [["b.jpg", "裙"]]),
        ("image,title\na.jpg,红\r裙\nb.jpg,裙\n", ["2", ["b.jpg", "裙"]]),
        ("image,title\na.jpg,红\0裙\nb.jpg,裙\n", ["2", ["b.jpg", "裙"]]),
        ("sep=;\nimage;title\na.jpg;红,裙\n", [["a.jpg", "红,裙"]]),
        ("image;title\na.jpg;红,裙\n", [["a.jpg", "红,裙"]]),
        ("image\ttitle\na.jpg\t红,裙\n", [["a.jpg", "红,裙"]]),
    ],
)  # fmt: skip
def test_a_row_has_as_many_cells_as_there_are_headings(
    tmp_path: Path, text: str, expected: list[object]
) -> None:
    assert rows(tmp_path / "t.csv", text) == expected


# Encodings and line ends.


def test_line_ends_of_every_system(tmp_path: Path) -> None:
    for end in ("\n", "\r\n", "\r", "\r\r\n"):
        text = end.join(["image,title", "a.jpg,红裙", 'b.jpg,"裙, 大"', ""])
        assert rows(tmp_path / "t.csv", text) == [["a.jpg", "红裙"], ["b.jpg", "裙, 大"]]


def test_one_line_in_another_encoding_costs_itself_and_most_lines_cost_the_table(
    tmp_path: Path,
) -> None:
    path = tmp_path / "t.csv"
    good, bad = "a.jpg,红裙\n".encode(), "b.jpg,蓝裤\n".encode("gb18030")
    path.write_bytes(b"image,title\n" + good + bad + good)
    errors = [record.error for record in read_records(path)]
    assert [error is None for error in errors] == [True, False, True]
    assert errors[1] is not None
    assert errors[1].where == f"{path}:3"
    path.write_bytes(b"image,title\n" + good + bad * 2)
    with pytest.raises(DataError, match="--encoding gb18030"):
        list(read_records(path))
    assert len(list(read_records(path, "gbk"))) == 3


@pytest.mark.parametrize(
    ("content", "given", "encoding"),
    [
        ("\ufeffid,标题\n".encode("utf-16-le"), "utf-8", "utf-16-le"),
        ("id,标题\n".encode("utf-16-be"), "utf-8", "utf-16-be"),
        ("id,标题\n".encode("utf-32-le"), "utf-16", "utf-32-le"),
        ("\ufeffid,标题\n".encode("utf-32-be"), "gb18030", "utf-32-be"),
        ("\ufeffid,标题\n".encode(), "gb18030", "utf-8"),
        ("id,标题\n".encode("gb18030"), "GB2312", "gb18030"),
        (b"id,\0\n", "utf-8", "utf-8"),
    ],
)  # fmt: skip
def test_the_encoding_is_found_where_the_bytes_say_it(
    tmp_path: Path, content: bytes, given: str, encoding: str
) -> None:
    (tmp_path / "t").write_bytes(content)
    assert text_form(tmp_path / "t", given).encoding == encoding


@pytest.mark.parametrize("name", ["klingon", "rot13", "base64", "", "idna", "undefined", "a\0b"])
def test_an_encoding_that_does_not_exist_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "t").write_bytes(b"id,title\n")
    with pytest.raises(InputError, match="no such encoding"):
        text_form(tmp_path / "t", name)


def test_a_file_that_is_not_in_the_wide_encoding_given_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes("id,标题\n".encode())
    with pytest.raises(DataError, match="not UTF-16"):
        text_form(tmp_path / "t", "utf-16")
