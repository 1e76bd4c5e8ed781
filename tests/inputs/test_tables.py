"""Tables as shops write them: every data row becomes a product or is named as left out."""

from __future__ import annotations

import csv
import io
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
    imported,
    is_named,
)


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
    run, _ = imported(xmr, folder / f"random.{ending}")
    assert_no_bug(run)
    assert run.code == 0, run.err
    images = (folder / "imported/MR_train_imgs.tsv").read_bytes().count(b"\n")
    named = {n for n in range(count) if is_named([run.err, run.out], n + 2, f"sku{n}")}
    assert images + len(named) >= count
