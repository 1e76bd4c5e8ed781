"""Headings and encodings of tables: each column is found, or the error names it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.black_box import (
    Shop,
    assert_no_bug,
    assert_refused,
    case_folder,
    imported,
)


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
