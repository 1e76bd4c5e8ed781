"""Tables as shops write them: every data row becomes a product or is named as left out."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.black_box import (
    Shop,
    assert_no_bug,
    assert_refused,
    case_folder,
    is_named,
)

IMPORT = ("--json", "--out")


def imported(xmr: Callable[..., Any], table: Path, *options: object) -> tuple[Any, list[str]]:
    """Run ``data import``; return how it ended and the titles of the dataset it wrote."""
    out = table.parent / "imported"
    run = xmr("data", "import", table, *IMPORT, out, *options)
    titles = [
        json.loads(line)["query_text"]
        for file in sorted(out.glob("MR_*_queries.jsonl"))
        for line in file.read_text("utf-8").splitlines()
    ]
    return run, titles


# Stray quotes.


def test_a_stray_quote_costs_at_most_its_own_row(shop: Shop) -> None:
    shop.case("02-unclosed-quote")
    products, left_out = shop.built(shop.folder / "unclosed.csv")
    assert {"a1", "a3", "a4"} <= set(products)
    if "a2" in products:
        assert "27寸显示器" in products["a2"]["title"]
        assert "白鞋" not in products["a2"]["title"]
        assert products["a2"]["attributes"]["price"] == 89
    else:
        assert is_named(left_out, 3, "a2")


@pytest.mark.parametrize("title", ['"27寸显示器', '27"显示器', '27寸显示器"', '"'])
@pytest.mark.parametrize("row", [0, pytest.param(2, marks=pytest.mark.slow), 4])
@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_a_stray_quote_anywhere_loses_no_other_row(
    shop: Shop, ending: str, row: int, title: str
) -> None:
    tab = "\t" if ending == "tsv" else ","
    lines = [f"id{tab}image{tab}title{tab}price"]
    for number in range(5):
        text = title if number == row else f"商品{number}"
        lines.append(tab.join([f"a{number}", f"p{number}.jpg", text, f"1{number}9"]))
    table = shop.write(f"quote.{ending}", "\n".join(lines) + "\n")
    products, left_out = shop.built(table)
    for number in range(5):
        if number != row:
            assert products[f"a{number}"]["title"] == f"商品{number}"
            assert products[f"a{number}"]["attributes"]["price"] == int(f"1{number}9")
    own = products.get(f"a{row}")
    if own is None:
        assert ending == "csv"  # a TSV has no quotes: nothing is wrong with this row
        assert is_named(left_out, row + 2, f"a{row}")
    else:
        if ending == "tsv":
            assert own["title"] == title
        assert (own["title"] or "").replace('"', "") == title.replace('"', "")
        assert own["attributes"]["price"] == int(f"1{row}9")


def test_two_stray_quotes_do_not_make_one_product_of_the_rows_between(shop: Shop) -> None:
    table = shop.write(
        "two.csv",
        'id,image,title\na0,p0.jpg,"27寸显示器\na1,p1.jpg,红裙\na2,p2.jpg,"17寸笔记本\n'
        "a3,p3.jpg,白鞋\n",
    )
    products, left_out = shop.built(table)
    assert {"a1", "a3"} <= set(products)
    for line, identity in ((2, "a0"), (4, "a2")):
        assert identity in products or is_named(left_out, line, identity)
    assert all("\n" not in one["title"] for one in products.values())


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_import_loses_no_row_to_a_stray_quote(
    xmr: Callable[..., Any], tmp_path: Path, ending: str
) -> None:
    folder = case_folder("02-unclosed-quote", tmp_path)
    table = folder / f"t.{ending}"
    text = (folder / "unclosed.csv").read_text("utf-8")
    table.write_text(text.replace(",", "\t") if ending == "tsv" else text, "utf-8")
    run, titles = imported(xmr, table)
    assert_no_bug(run)
    assert run.code == 0, run.err
    assert {"红裙", "白鞋", "包"} <= set(titles)
    assert any("27寸显示器" in title for title in titles) or is_named([run.err, run.out], 3, "a2")


def test_encode_loses_no_row_to_a_stray_quote(
    xmr: Callable[..., Any], model: Path, tmp_path: Path
) -> None:
    folder = case_folder("02-unclosed-quote", tmp_path)
    run = xmr("encode", folder / "unclosed.csv", "--out", folder / "v", "--checkpoint", model,
              "--json")  # fmt: skip
    assert run.code == 0, run.err
    report = run.json()
    assert report["rows"] + report["skipped"] == 4
    assert report["rows"] >= 3


def test_a_quoted_cell_may_hold_commas_quotes_and_line_breaks(shop: Shop) -> None:
    table = shop.write(
        "good.csv",
        'id,image,title\na0,p0.jpg,"红裙, ""大码"""\na1,p1.jpg,"两行\n标题"\na2,p2.jpg,白鞋\n',
    )
    products, left_out = shop.built(table)
    assert not left_out
    assert products["a0"]["title"] == '红裙, "大码"'
    assert products["a1"]["title"].split() == ["两行", "标题"]
    assert products["a2"]["title"] == "白鞋"


# Unquoted commas.


@pytest.mark.parametrize("file", ["comma2.csv", "extra.csv"])
def test_an_unquoted_comma_never_cuts_a_title(shop: Shop, file: str) -> None:
    shop.case("03-comma-in-title")
    run = shop.build(shop.folder / file)
    assert_no_bug(run)
    whole = "红裙,大码,加厚" if file == "comma2.csv" else "红裙,大码"
    named = is_named([run.err, run.out], 2, "p0.jpg")
    if run.code == 0:
        titles = {one["title"] for one in shop.products().values()}
        assert "红裙" not in titles
        assert whole in titles or named
    else:
        assert run.code == 2
        assert named


HEADINGS = [
    "image,title",
    "图片,标题",
    "image_path,text",
    "id,image,title",
    "id,image,title,price",
    "title,image",
]


@pytest.mark.parametrize("headings", HEADINGS)
@pytest.mark.parametrize("title", ["红裙,大码", "红裙,大码,加厚", ",红裙大码", "红裙大码,"])
def test_under_any_heading_a_row_with_a_comma_is_whole_or_named(
    shop: Shop, headings: str, title: str
) -> None:
    def row(number: int, text: str) -> str:
        cells = {"id": f"a{number}", "price": "19"}
        names = headings.split(",")
        return ",".join(
            cells.get(name)
            or (f"p{number}.jpg" if name in ("image", "图片", "image_path") else text)
            for name in names
        )

    lines = [headings, row(0, title), row(1, "蓝裤")]
    products, left_out = shop.built(shop.write("comma.csv", "\n".join(lines) + "\n"))
    titles = {one["title"] for one in products.values()}
    assert "蓝裤" in titles
    if not is_named(left_out, 2, "a0"):
        # An empty last cell is no part of a title: spreadsheets write such commas everywhere.
        assert titles & {title, title.strip(",")}, titles


def test_a_comma_in_a_title_without_headings_is_whole_or_named(shop: Shop) -> None:
    products, left_out = shop.built(shop.write("bare.csv", "p0.jpg,红裙,大码\np1.jpg,蓝裤\n"))
    titles = {one["title"] for one in products.values()}
    assert "蓝裤" in titles
    assert "红裙,大码" in titles or is_named(left_out, 1, "p0.jpg")


# Numbers and codes.


def test_ids_of_nineteen_digits_stay_apart(shop: Shop) -> None:
    shop.case("05-long-ids")
    products, _ = shop.built(shop.folder / "snow.csv")
    assert set(products) == {"1234567890123456789", "1234567890123456788"}
    for where in ("spu = 1234567890123456789", "spu = '1234567890123456789'"):
        run = shop.search("--where", where)
        if run.code == 0:
            found = [hit["id"] for hit in run.json()["results"][0]["hits"]]
            assert found == ["1234567890123456789"], where
        else:  # a text column compared with a number, or the reverse, may be refused in words
            assert_refused(run, "spu")
    for identity, one in products.items():
        assert str(one["attributes"]["spu"]) == identity


@pytest.mark.parametrize(
    "values",
    [
        ("12345678901234567890", "12345678901234567891"),  # beyond 64 bits signed
        ("99999999999999999999999999", "99999999999999999999999998"),
        ("9007199254740993", "9007199254740992"),  # 2^53 + 1
        ("9007199254740993", "0.5"),  # a decimal beside a number that a float cannot hold
        ("1234567890123456789", ""),
    ],
)
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_no_digit_of_a_long_number_is_lost(shop: Shop, values: tuple[str, str], form: str) -> None:
    if form == "csv":
        lines = ["id,image,title,spu"]
        lines += [f"a{n},p{n}.jpg,商品{n},{value}" for n, value in enumerate(values)]
    else:
        lines = [
            f'{{"id": "a{n}", "image": "p{n}.jpg", "title": "商品{n}", "spu": {value or "null"}}}'
            for n, value in enumerate(values)
        ]
    products, _ = shop.built(shop.write(f"long.{form}", "\n".join(lines) + "\n"))
    for number, value in enumerate(values):
        found = products[f"a{number}"]["attributes"].get("spu")
        assert ("" if found is None else str(found)) == value


def test_codes_stay_as_they_are_written(shop: Shop) -> None:
    shop.case("06-codes-as-floats")
    products, _ = shop.built(shop.folder / "model.csv")
    assert products["1"]["attributes"] == {"型号": "3E10", "货号": "1_000"}
    assert products["2"]["attributes"] == {"型号": "2E5", "货号": "2_500"}
    assert set(shop.products("型号 = '3E10'")) == {"1"}
    assert set(shop.products("货号 = '2_500'")) == {"2"}


CODES = [
    "3E10", "1_000", "0047583311587E590003", "00475E59", "1e400", "inf", "nan", "-inf", "NaN",
    "Infinity", "0x1F", "007", "1e3", "True1",
]  # fmt: skip


def columns(*rows: list[str]) -> str:
    """A CSV with products a0, a1, … and attributes c0, c1, …, whose values may hold commas."""
    names = ",".join(f"c{number}" for number in range(len(rows[0])))
    lines = [
        ",".join([f"a{n},p{n}.jpg,商品{n}", *(f'"{value}"' for value in values)])
        for n, values in enumerate(rows)
    ]
    return "\n".join([f"id,image,title,{names}", *lines]) + "\n"


def test_a_code_among_codes_stays_text(shop: Shop) -> None:
    products, _ = shop.built(shop.write("codes.csv", columns(CODES, CODES)))
    for number, code in enumerate(CODES):
        assert products["a0"]["attributes"][f"c{number}"] == code
    every = " AND ".join(f"c{number} = '{code}'" for number, code in enumerate(CODES))
    assert set(shop.products(every)) == {"a0", "a1"}


def test_one_code_makes_the_whole_column_text(shop: Shop) -> None:
    table = shop.write(
        "codes.csv", "id,image,title,code\na0,p0.jpg,红裙,1500\na1,p1.jpg,蓝裤,3E10\n"
    )
    products, _ = shop.built(table)
    assert [products[name]["attributes"]["code"] for name in ("a0", "a1")] == ["1500", "3E10"]


def test_plain_numbers_are_numbers(shop: Shop) -> None:
    values = ["1", "-7", "19.90", "0.5", "0", "199"]
    table = columns(values, ["1000"] * len(values)).replace('"', "")
    products, _ = shop.built(shop.write("numbers.csv", table))
    for number, value in enumerate(values):
        assert products["a0"]["attributes"][f"c{number}"] == float(value)
    every = " AND ".join(f"c{number} < 999" for number in range(len(values)))
    assert set(shop.products(every)) == {"a0"}


@pytest.mark.parametrize("file", ["yuan.csv", "comma.csv"])
def test_prices_with_signs_and_thousands_commas_are_numbers_and_said_so(
    shop: Shop, file: str
) -> None:
    shop.case("24-yuan-price")
    run = shop.build(shop.folder / file)
    assert run.code == 0, run.err
    assert "price" in run.err  # a remark: how the column was read
    prices = {name: one["attributes"]["price"] for name, one in shop.products().items()}
    expected = {
        "yuan.csv": {"a1": 199, "a2": 89, "a3": 1299, "a4": 45},
        "comma.csv": {"a1": 1099, "a2": 89, "a3": 1299, "a4": 2045},
    }[file]
    assert prices == expected
    assert set(shop.products("price < 200")) == {n for n, p in expected.items() if p < 200}


@pytest.mark.parametrize("sign", ["¥", "￥", "$", "¥ "])
def test_a_currency_sign_with_every_thousands_form(shop: Shop, sign: str) -> None:
    prices = ["1,299", "1,299.00", "1,234,567", "45"]
    table = columns([sign + price for price in prices], [f"{sign}10"] * len(prices))
    products, _ = shop.built(shop.write("price.csv", table))
    for number, price in enumerate(prices):
        assert products["a0"]["attributes"][f"c{number}"] == float(price.replace(",", ""))
    assert set(shop.products("c0 < 20 AND c1 < 20 AND c2 < 20 AND c3 < 20")) == {"a1"}


def test_a_comma_that_parts_no_thousands_makes_no_number(shop: Shop) -> None:
    sizes = ["1,2", "12,34,5", "1,,000", "3,14"]
    products, _ = shop.built(shop.write("list.csv", columns(sizes, sizes)))
    for number, size in enumerate(sizes):
        assert products["a0"]["attributes"][f"c{number}"] == size


def test_a_whole_number_column_takes_decimals_in_filters(shop: Shop) -> None:
    shop.case("21-add-float")
    shop.built(shop.folder / "ev1.csv")
    assert set(shop.products("price < 99.5")) == {"2"}
    assert set(shop.products("price >= 198.99 AND price <= 199.01")) == {"1"}
    assert set(shop.products("price = 199.0")) == {"1"}


def test_a_whole_number_column_takes_decimals_in_later_adds(shop: Shop) -> None:
    shop.case("21-add-float")
    shop.built(shop.folder / "ev1.csv")
    run = shop.add(shop.folder / "ev2.csv")
    assert run.code == 0, run.err
    assert run.json()["skipped"] == []
    prices = {name: one["attributes"]["price"] for name, one in shop.products().items()}
    assert prices == {"1": 199, "2": 89, "3": 199.5, "4": 10}
    assert set(shop.products("price > 199.2")) == {"3"}


# Headings.


@pytest.mark.parametrize(
    ("headings", "named"),
    [
        ("id,image,title,规格.尺寸", "规格.尺寸"),
        ("id,image,title,price,price", "price"),
        ("id,image,title,Price,price", "price"),
        ("id,image,title,title", "title"),
        ("id,image,title,", "5"),
        ("id,image,title,a`b", "a`b"),
        ("id,image,title,_rowaddr", "_rowaddr"),
        ("id,image,title,商品 产地", "商品 产地"),
    ],
)
def test_a_heading_is_usable_or_named_before_anything_is_built(
    shop: Shop, headings: str, named: str
) -> None:
    count = headings.count(",") + 1
    row = ["a0", "p0.jpg", "红裙", "7", "8"][:count]
    run = shop.build(shop.write("h.csv", f"{headings}\n{','.join(row)}\n"))
    assert_no_bug(run)
    if run.code == 0:
        names = list(next(iter(shop.products().values()))["attributes"])
        written = [name for name in headings.split(",")[3:] if name]
        assert len(set(written)) == len(written) < 2, "a repeated column was chosen silently"
        for name in written:
            assert name in names
            assert set(shop.products(f'"{name}" = 7')) == {"a0"}
            assert set(shop.products(f"`{name}` = 7")) == {"a0"} if "`" not in name else True
        if not written:
            assert "heading" in run.err or "column" in run.err
    else:
        assert_refused(run)
        assert named in run.err or "heading" in run.err
        assert not Path(shop.index).exists()


def test_json_fields_are_checked_like_headings(shop: Shop) -> None:
    table = shop.write(
        "h.jsonl",
        '{"id": "a0", "image": "p0.jpg", "title": "红裙", "a.b": 1, "": 2, "x\\u0000y": 3}\n',
    )
    run = shop.build(table)
    assert_no_bug(run)
    if run.code == 0:
        found = shop.products()["a0"]["attributes"]
        assert {"a.b", "", "x\0y"} <= set(found) or "left out" in run.err
        assert set(shop.products('"a.b" = 1')) == {"a0"}
    else:
        assert_refused(run)
        assert not Path(shop.index).exists()


# Encodings.


UTF = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]


@pytest.mark.parametrize("file", ["u_le.csv", "u_le_bom.csv"])
def test_utf16_tables_are_read(shop: Shop, file: str) -> None:
    shop.case("18-utf16")
    products, left_out = shop.built(shop.folder / file, "--encoding", "utf-16")
    assert not left_out
    assert {one["title"] for one in products.values()} == {"红色连衣裙", "蓝裤"}


@pytest.mark.parametrize("mark", [False, True], ids=["bare", "bom"])
@pytest.mark.parametrize("encoding", UTF)
@pytest.mark.parametrize("ending", ["csv", pytest.param("tsv", marks=pytest.mark.slow), "jsonl"])
def test_wide_encodings_are_read_with_and_without_a_mark(
    shop: Shop, ending: str, encoding: str, mark: bool
) -> None:
    if ending == "jsonl":
        lines = [
            json.dumps({"id": f"a{n}", "image": f"p{n}.jpg", "title": f"上新ਊ{n}"},
                       ensure_ascii=False)
            for n in range(3)
        ]  # fmt: skip
    else:
        tab = "\t" if ending == "tsv" else ","
        lines = [f"id{tab}image{tab}title"]
        lines += [f"a{n}{tab}p{n}.jpg{tab}上新ਊ{n}" for n in range(3)]  # ਊ: U+0A0A
    text = "\r\n".join(lines) + "\r\n"
    # "utf-16" and "utf-32" write a mark of their own; without one they mean this machine's order.
    bare = {"utf-16": "utf-16-le", "utf-32": "utf-32-le"}.get(encoding, encoding)
    data = (("\ufeff" if mark else "") + text).encode(bare)
    products, left_out = shop.built(shop.write(f"wide.{ending}", data), "--encoding", encoding)
    assert not left_out
    assert {name: one["title"] for name, one in products.items()} == {
        f"a{n}": f"上新ਊ{n}" for n in range(3)
    }


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32-be", "gb18030", "utf-8-sig", "big5"])
def test_import_reads_the_same_encodings(
    xmr: Callable[..., Any], tmp_path: Path, encoding: str
) -> None:
    folder = case_folder("", tmp_path)
    table = folder / "t.csv"
    table.write_bytes("image,title\np0.jpg,紅裙\np1.jpg,白鞋\n".encode(encoding))
    run, titles = imported(xmr, table, "--encoding", encoding)
    assert run.code == 0, run.err
    assert titles == ["紅裙", "白鞋"]


def test_a_wrong_encoding_names_the_file_and_the_option(shop: Shop) -> None:
    table = shop.write("gb.csv", "id,image,title\na0,p0.jpg,红裙\n".encode("gb18030"))
    assert_refused(shop.build(table), "gb.csv", "--encoding")


# Columns by other names, ids, one policy for broken rows.


def test_columns_can_be_named_on_the_command_line(shop: Shop) -> None:
    table = shop.write("c.csv", "货,主图,宝贝\na0,p0.jpg,红裙\na1,p1.jpg,蓝裤\n")
    options = ["--column", "image=主图", "--column", "title=宝贝", "--column", "id=货"]
    products, left_out = shop.built(table, *options)
    assert not left_out
    assert {name: one["title"] for name, one in products.items()} == {"a0": "红裙", "a1": "蓝裤"}
    run, titles = imported(shop.xmr, table, *options)
    assert run.code == 0, run.err
    assert titles == ["红裙", "蓝裤"]
    run = shop.xmr("encode", table, "--out", shop.folder / "v", "--checkpoint", shop.model,
                   "--json", *options)  # fmt: skip
    assert run.code == 0, run.err
    assert run.json()["rows"] == 2


def test_a_column_that_is_not_there_is_named(shop: Shop) -> None:
    table = shop.write("c.csv", "货,主图,宝贝\na0,p0.jpg,红裙\n")
    run = shop.build(table, "--column", "image=主题", "--column", "title=宝贝")
    assert_refused(run, "主题")


@pytest.mark.parametrize(
    ("identity", "image", "title"),
    [
        ("宝贝ID", "主图", "宝贝标题"),
        ("商品ID", "商品主图", "商品标题"),
        ("商品编号", "商品图片", "商品名称"),
        ("商品id", "宝贝图片", "宝贝名称"),
        ("SKU", "图片", "标题"),
    ],
)
def test_headings_of_taobao_and_jd_exports_are_known(
    shop: Shop, identity: str, image: str, title: str
) -> None:
    table = shop.write(
        "c.csv", f"{identity},{title},{image},价格\n60012,红裙,p0.jpg,19\n60013,蓝裤,p1.jpg,29\n"
    )
    products, left_out = shop.built(table)
    assert not left_out
    assert {name: one["title"] for name, one in products.items()} == {
        "60012": "红裙",
        "60013": "蓝裤",
    }
    run, titles = imported(shop.xmr, table)
    assert run.code == 0, run.err
    assert titles == ["红裙", "蓝裤"]


def test_import_keeps_sku_ids_in_a_map(xmr: Callable[..., Any], tmp_path: Path) -> None:
    folder = case_folder("", tmp_path)
    table = folder / "t.csv"
    table.write_text("id,image,title\nSKU-红-77,p0.jpg,红裙\nSKU-蓝-78,p1.jpg,蓝裤\n", "utf-8")
    run, _ = imported(xmr, table)
    assert run.code == 0, run.err
    texts = [
        file.read_text("utf-8", errors="replace")
        for file in (folder / "imported").rglob("*")
        if file.is_file() and "_imgs" not in file.name
    ]
    assert any("SKU-红-77" in text and "SKU-蓝-78" in text for text in texts)


BROKEN_ROWS = {
    "a missing image": "bad,gone.jpg,没有图片\n",
    "an empty row": "bad,,\n",
    "a broken image": "bad,broken.jpg,坏图片\n",
    "too many cells": "bad,p2.jpg,标题,19,20,21\n",
    "an address": "bad,https://example.com/a.jpg,网址\n",
}


@pytest.mark.parametrize("kind", BROKEN_ROWS)
@pytest.mark.parametrize("command", ["index build", "data import"])
def test_a_broken_row_is_left_out_counted_and_named_or_stops_if_strict(
    shop: Shop, command: str, kind: str
) -> None:
    shop.write("broken.jpg", (shop.folder / "p0.jpg").read_bytes()[:400])
    table = shop.write(
        "b.csv", f"id,image,title\na0,p0.jpg,红裙\n{BROKEN_ROWS[kind]}a1,p1.jpg,蓝裤\n"
    )
    if command == "index build":
        run, target = shop.build(table), Path(shop.index)
    else:
        target = shop.folder / "imported"
        run, titles = imported(shop.xmr, table)
        assert titles == ["红裙", "蓝裤"]
    assert_no_bug(run)
    assert run.code == 0, run.err
    assert is_named([run.err], 3, "bad")
    if command == "index build":
        assert set(shop.products()) == {"a0", "a1"}
        strict = shop.xmr("index", "build", table, shop.folder / "strict", "--checkpoint",
                          shop.model, "--strict", "--json")  # fmt: skip
    else:
        strict = shop.xmr("data", "import", table, "--out", shop.folder / "strict", "--strict")
    assert target.exists()
    assert_refused(strict)
    assert is_named([strict.err], 3, "bad")


def test_an_address_of_an_image_is_fetched_or_explained(shop: Shop) -> None:
    table = shop.write(
        "u.csv", "id,image,title\na0,http://127.0.0.1:9/a.jpg,红裙\na1,p1.jpg,蓝裤\n"
    )
    products, left_out = shop.built(table)
    assert set(products) == {"a1"}
    assert is_named(left_out, 2, "a0")
    assert "http" in left_out[0]
    assert "No such file" not in left_out[0]  # it is an address, not a file


@pytest.mark.parametrize("command", ["index build", "data import", "encode"])
def test_a_spreadsheet_is_read_or_explained(shop: Shop, command: str) -> None:
    table = shop.write("t.xlsx", b"PK\x03\x04" + bytes(100))
    options = {
        "index build": ["index", "build", table, shop.index, "--checkpoint", shop.model],
        "data import": ["data", "import", table, "--out", shop.folder / "o"],
        "encode": ["encode", table, "--out", shop.folder / "o", "--checkpoint", shop.model],
    }[command]
    run = shop.xmr(*options)
    assert_refused(run, "t.xlsx", "CSV")
    assert "xlsx" in run.err.replace("t.xlsx", "") or "Excel" in run.err


# Every row is accounted for.


CHARACTERS = list("红裙a1 ,\"\t;\\'|.-%$¥\u200b\ufeff１﹐𠮷😀")
ODD = ['"', '"27寸', '27"', '""', '"大码" 红裙', "红裙,大码", '"红裙, 大码"', "'", "红\\"]
CELL = st.one_of(st.text(st.sampled_from(CHARACTERS), max_size=8), st.sampled_from(ODD))


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, str, int]:
    """Draw a table as a careless program writes it: its text, its ending, its data rows."""
    ending = draw(st.sampled_from(["csv", "tsv"]))
    tab = "\t" if ending == "tsv" else ","
    count = draw(st.integers(3, 8))
    quoting = draw(st.booleans())
    lines = [tab.join(["id", "image", "title", "note"])]
    for number in range(count):
        sure = number in (0, count - 1)  # nothing is odd in the first row and the last
        cells = [f"sku{number}", f"p{number}.jpg"]
        cells += ["红裙", "包邮"] if sure else [draw(CELL), draw(CELL)]
        if quoting and ending == "csv":
            stream = io.StringIO()
            csv.writer(stream, lineterminator="").writerow(cells)
            lines.append(stream.getvalue())
        else:
            lines.append(tab.join(cells))
    return draw(st.sampled_from(["\n", "\r\n"])).join(lines) + "\n", ending, count


def accounted(shop: Shop, text: str, ending: str, count: int) -> None:
    table = shop.write(f"random.{ending}", text)
    shop.index = shop.folder / f"index{len(list(shop.folder.iterdir()))}"
    run = shop.build(table)
    assert_no_bug(run)
    assert run.code == 0, run.err
    products, left_out = shop.products(), run.json()["skipped"]
    assert products["sku0"]["title"] == products[f"sku{count - 1}"]["title"] == "红裙"
    for number in range(count):
        one = products.get(f"sku{number}")
        assert one or is_named(left_out, number + 2, f"sku{number}"), (number, left_out)
        assert one is None or one["image"].endswith(f"p{number}.jpg")


LIMITS = settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    phases=[
        Phase.explicit,
        Phase.generate,
    ],  # tables are small: shrinking takes longer than it helps
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@LIMITS
@given(table=tables())
def test_every_row_of_a_random_table_is_a_product_or_named(
    shop: Shop, table: tuple[str, str, int]
) -> None:
    accounted(shop, *table)


@pytest.mark.slow
@settings(LIMITS, max_examples=150, derandomize=False)
@given(table=tables())
def test_every_row_of_many_random_tables_is_a_product_or_named(
    shop: Shop, table: tuple[str, str, int]
) -> None:
    accounted(shop, *table)


@settings(LIMITS, max_examples=40)
@given(table=tables())
def test_import_accounts_for_every_row_of_a_random_table(
    xmr: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
    table: tuple[str, str, int],
) -> None:
    text, ending, count = table
    folder = case_folder("", tmp_path_factory.mktemp("random"))
    (folder / f"random.{ending}").write_bytes(text.encode())
    run = xmr("data", "import", folder / f"random.{ending}", *IMPORT, folder / "imported")
    assert_no_bug(run)
    assert run.code == 0, run.err
    images = (folder / "imported/MR_train_imgs.tsv").read_bytes().count(b"\n")
    named = {n for n in range(count) if is_named([run.err, run.out], n + 2, f"sku{n}")}
    assert images + len(named) >= count
