"""Catalogues: products of every source, the same in parts of any size, and stable digests."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bagformer_cli.data.attributes import Thing, header_line, record_line
from bagformer_cli.data.catalogue import lines
from bagformer_cli.data.catalogue.catalogue import open_catalogue
from bagformer_cli.data.catalogue.products import Product
from bagformer_cli.errors import DataError, InputError
from tests.support.datasets import picture, query_line, write_split
from tests.support.small_model import write_table


def products(source: Path, **options: Any) -> list[Product]:
    found = list(open_catalogue(source, **options))
    assert all(isinstance(one, Product) for one in found), found
    return found  # type: ignore[return-value]


def test_a_table_has_typed_attributes(tmp_path: Path) -> None:
    table = write_table(tmp_path, 5)
    catalogue = open_catalogue(table)
    assert catalogue.attributes == {"price": "float", "category": "str", "编码": "str"}
    assert catalogue.count == 5
    first = products(table)[0]
    assert first == Product(
        f"{table}:2",
        "sku0",
        str(tmp_path / "photos/0.png"),
        None,
        "连衣裙, 第0款",
        {"price": 0.5, "category": "连衣裙", "编码": "000"},
    )


def test_parts_of_any_size_hold_the_same_products(tmp_path: Path) -> None:
    table = write_table(tmp_path, 11)
    text = table.read_text("utf-8").splitlines()
    text[3:3] = ["", 'skuX,photos/1.png,"two\nlines",7,T恤,9', ""]
    table.write_text("\n".join(text) + "\n", "utf-8")
    whole = products(table)
    assert len(whole) == 12
    for size in (1, 2, 5, 100):
        assert products(table, part_size=size) == whole
    lines = [
        json.dumps(
            {"id": p.id, "image": p.image, "title": p.title, **p.attributes}, ensure_ascii=False
        )
        for p in whole
    ]
    jsonl = tmp_path / "products.jsonl"
    jsonl.write_text("\n".join(lines), "utf-8")
    for size in (3, 100):
        again = products(jsonl, part_size=size)
        assert [(p.id, p.image, p.title) for p in again] == [
            (p.id, p.image, p.title) for p in whole
        ]
        assert [p.attributes["price"] for p in again] == [p.attributes["price"] for p in whole]


def test_a_digest_changes_only_with_its_part(tmp_path: Path) -> None:
    table = write_table(tmp_path, 6)
    before = [part.digest for part in open_catalogue(table, part_size=2).parts]
    table.write_text(table.read_text("utf-8").replace("5.5", "6.5"), "utf-8")
    after = [part.digest for part in open_catalogue(table, part_size=2).parts]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False]


def test_a_folder_of_images_and_the_files_of_muge(tmp_path: Path) -> None:
    write_table(tmp_path, 3)
    (tmp_path / "photos" / "deeper").mkdir()
    (tmp_path / "photos" / "deeper" / "x.JPG").write_bytes(picture(7, form="JPEG"))
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    names = [product.id for product in products(tmp_path / "photos")]
    assert names == ["0.png", "1.png", "2.png", "deeper/x.JPG"]

    muge = write_split(
        tmp_path / "muge",
        "valid",
        [(1, "红色裙", (10,)), (2, "包", (11, 10))],
        [(10, picture(1)), (11, picture(2)), (12, picture(3))],
    )
    found = products(muge.path)
    assert [(p.id, p.title) for p in found] == [("10", "红色裙"), ("11", "包"), ("12", None)]
    assert found[1].data == picture(2)
    alone = products(muge.images_path("valid"))
    assert [(p.id, p.title) for p in alone] == [("10", None), ("11", None), ("12", None)]
    queries = products(muge.queries_path("valid"), titles=True)
    assert [(p.id, p.title, p.image) for p in queries] == [("1", "红色裙", None), ("2", "包", None)]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "id,imag,price\n1,a.jpg,3\n", "imag"),
        ("a.csv", "id,image,count\n1,a.jpg,3\n", "count"),
        ("a.csv", "id,image,title\n", "empty"),
        ("a.bin", "x", "not a catalogue"),
        ("a.csv", "id,image,title\n1,\xe9.jpg,x\n2,\xe9.jpg,x\n", "UTF-8"),
        ("a.jsonl", '[{"image": "a.jpg"},\n{"image": "b.jpg"}]\n', "JSON array"),
    ],
)
def test_a_file_that_is_no_catalogue_is_a_clear_error(
    tmp_path: Path, name: str, content: str, says: str
) -> None:
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError) as caught:
        list(open_catalogue(tmp_path / name))
    assert says.lower() in str(caught.value).lower()


def test_a_folder_names_what_it_leaves_out(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / ".hidden").mkdir(parents=True)
    (folder / "sub").mkdir()
    (folder / "folder.jpg").mkdir()
    for name in ("b.png", "sub/ü.PNG", ".hidden/x.png", ".y.png"):
        (folder / name).write_bytes(picture(1))
    for name in ("a.psd", "c.heic", "notes.txt", "a.json", "README"):
        (folder / name).write_bytes(b"x")
    (folder / "loop.png").symlink_to("loop.png")
    with open(os.fsencode(folder) + b"/" + "红裙".encode("gbk") + b".png", "wb") as stream:
        stream.write(picture(2))
    found = list(open_catalogue(folder))
    assert [one.id for one in found if isinstance(one, Product)] == [
        "b.png",
        "loop.png",
        "sub/ü.PNG",
    ]
    errors = [str(one) for one in found if isinstance(one, InputError)]
    assert len(errors) == 4
    for name in ("README", "a.psd", "c.heic", "not UTF-8"):
        assert any(name in error for error in errors)
    "".join(errors).encode()
    for size in (1, 3):
        parts = open_catalogue(folder, part_size=size)
        assert [str(one) for one in parts] == [str(one) for one in found]


def test_a_folder_without_readable_images_says_what_is_there(tmp_path: Path) -> None:
    for name in ("a.cr2", "b.CR2", "c.txt"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=r"no images that can be read.*2 × \.cr2, 1 × \.txt"):
        open_catalogue(tmp_path)


def test_a_name_that_is_not_utf8_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xba\xec"))
    folder.mkdir()
    (folder / "a.png").write_bytes(picture(1))
    with pytest.raises(InputError, match="not UTF-8") as caught:
        open_catalogue(folder)
    str(caught.value).encode()


def test_a_missing_or_empty_catalogue_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such catalogue"):
        open_catalogue(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty"):
        open_catalogue(tmp_path / "empty")
    with pytest.raises(InputError, match="no splits"):
        open_catalogue(tmp_path / "empty", split="valid")


def test_a_broken_line_of_a_table_gives_an_error_in_its_place(tmp_path: Path) -> None:
    found = list(open_catalogue(write_table(tmp_path, 2, broken=True)))
    assert [type(one) for one in found] == [Product, Product, Product, Product, DataError]
    assert "neither image nor title" in str(found[-1])


def test_odd_values_of_a_table_are_remarked(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    lines = ["id,title,price", "a,红裙,10", "b,蓝裙,20", "c,绿裙,面议", "d,红裙, 夏季,30", "e,伞,,"]
    table.write_text("\n".join(lines), "utf-8")
    found = open_catalogue(table)
    assert found.attributes == {"price": "str"}
    (remark,) = found.remarks.warnings
    assert f"{table}:4" in remark
    assert "面议" in remark
    products = list(found)
    assert isinstance(products[3], InputError)
    assert "more cells" in str(products[3])
    assert "(id d)" in str(products[3])
    assert [p.id for p in products if isinstance(p, Product)] == ["a", "b", "c", "e"]
    table.write_text("\n".join(line for line in lines if "面议" not in line), "utf-8")
    assert open_catalogue(table).attributes == {"price": "float"}
    assert not open_catalogue(table).remarks.warnings


def test_a_column_is_read_as_numbers_and_its_other_values_stay_empty(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    rows = ["a,红裙,￥10", "b,蓝裙,面议", 'c,绿裙,"1,299"', "d,伞,$5", "e,帽,", "f,包,7"]
    table.write_text("\n".join(["id,title,价格", *rows]), "utf-8")
    assert "--number 价格" in open_catalogue(table).remarks.warnings[0]
    found = open_catalogue(table, numbers=["价格"], part_size=2)
    assert found.attributes == {"价格": "float"}
    (remark,) = found.remarks.warnings
    assert "stay empty: 2 of 5 ('面议' (" in remark
    prices = [one.attributes.get("价格") for one in found if isinstance(one, Product)]
    assert prices == [10, None, 1299, None, None, 7]
    digests = [part.digest for part in open_catalogue(table, part_size=2).parts]
    assert not set(digests) & {part.digest for part in found.parts}


@pytest.mark.parametrize("settled", [{}, {"价格": "float"}, {"价格": "int"}])
def test_a_product_is_added_to_an_index_without_its_price(
    tmp_path: Path, settled: dict[str, str]
) -> None:
    table = tmp_path / "t.jsonl"
    table.write_text(
        '{"id": 1, "title": "裙", "价格": "面议"}\n{"id": 2, "title": "裙"}\n', "utf-8"
    )
    found = open_catalogue(table, numbers=["价格"], types=settled)
    assert [one.attributes for one in found if isinstance(one, Product)] == [{}, {}]
    if settled:
        (error, _) = open_catalogue(table, types=settled)
        assert "--number 价格" in str(error)


@pytest.mark.parametrize(
    ("number", "settled", "says"),
    [
        ("价", {}, "Did you mean 价格?"),
        ("title", {}, "no attribute of this table"),
        ("价格", {"价格": "str"}, "Build the index again with --number 价格"),
    ],
)
def test_a_column_that_cannot_be_read_as_numbers_is_refused(
    tmp_path: Path, number: str, settled: dict[str, str], says: str
) -> None:
    table = tmp_path / "t.csv"
    table.write_text("id,title,价格\na,红裙,10\n", "utf-8")
    with pytest.raises(InputError) as caught:
        open_catalogue(table, numbers=[number], types=settled)
    assert says in str(caught.value)


# --------------------------------------------------------------------------------- files of lines


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short byte ranges, so that a small file has many parts as a large one has."""
    monkeypatch.setattr(lines, "IMAGE_BYTES", 1_000)
    monkeypatch.setattr(lines, "TITLE_BYTES", 50)


@pytest.mark.usefixtures("small_parts")
def test_parts_of_an_images_file_hold_every_image_once(tmp_path: Path) -> None:
    images = [(n, picture(n)) for n in range(12)]
    folder = write_split(tmp_path, "valid", [(1, "红色裙", (3, 7))], images)
    catalogue = open_catalogue(folder.path)
    assert len(catalogue.parts) > 3
    found = products(folder.path)
    assert [(p.id, p.data) for p in found] == [(str(n), data) for n, data in images]
    assert {p.id for p in found if p.title == "红色裙"} == {"3", "7"}


@pytest.mark.usefixtures("small_parts")
def test_every_part_of_a_queries_file_gives_its_own_queries(tmp_path: Path) -> None:
    queries = [(n, f"标题{n}", ()) for n in range(9)]
    path = write_split(tmp_path, "valid", queries, []).queries_path("valid")
    catalogue = open_catalogue(path, titles=True)
    counts = [len(list(part.products())) for part in catalogue.parts]
    assert max(counts) < 9
    assert [(p.id, p.title) for p in products(path, titles=True)] == [
        (str(n), text) for n, text, _ in queries
    ]


def test_a_broken_query_gives_an_error_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "MR_valid_queries.jsonl"
    path.write_bytes(query_line(1, "包", []) + b"{\n" + query_line(3, "裙", []))
    first, broken, last = open_catalogue(path, titles=True)
    assert isinstance(first, Product)
    assert isinstance(last, Product)
    assert isinstance(broken, DataError)
    assert broken.where == f"{path}:2"


def test_titles_have_the_numbers_of_their_lines_as_ids(tmp_path: Path) -> None:
    path = tmp_path / "titles.txt"
    path.write_bytes("红色裙\n\n包\n".encode() + b"\xff\n" + "伞\n\n".encode())
    found = list(open_catalogue(path))
    assert [p.id if isinstance(p, Product) else str(p.where) for p in found] == [
        "1",
        f"{path}:2",
        "3",
        f"{path}:4",
        "5",
    ]


def test_a_split_with_attributes_has_columns(tmp_path: Path) -> None:
    folder = write_split(tmp_path, "valid", [(1, "红色裙", (10,))], [(10, picture(1))])
    (tmp_path / "attributes.jsonl").write_text(
        header_line({"kind": {"dress": "连衣裙"}})
        + record_line("image_id", 10, "valid", [Thing("dress", "red")]),
        "utf-8",
    )
    catalogue = open_catalogue(folder.path)
    assert catalogue.attributes == {"category": "str", "colour": "str", "pattern": "str"}
    (product,) = products(folder.path)
    assert product.attributes == {"category": "连衣裙", "colour": "red"}


def test_digests_are_those_of_earlier_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``xmr encode`` continues a folder that an earlier version began."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lines, "file_stamp", lambda path: [1, 2, 3])
    Path("t.csv").write_text("id,image,title,price\n1,a.jpg,裙,3\n2,b.jpg,包,4.5\n", "utf-8")
    Path("t.jsonl").write_text('{"image": "a.jpg", "title": "裙"}\n', "utf-8")
    Path("titles.txt").write_text("裙\n包\n", "utf-8")
    Path("photos").mkdir()
    Path("photos/a.jpg").write_bytes(b"x")
    os.utime("photos/a.jpg", (1000, 1000))
    write_split(Path("muge"), "valid", [(1, "裙", (10,))], [(10, b"image")])
    digests = {
        name: [part.digest for part in open_catalogue(name, part_size=1).parts]
        for name in ("t.csv", "t.jsonl", "titles.txt", "photos", "muge", "muge/MR_valid_imgs.tsv")
    }
    assert digests == {
        "t.csv": ["3ec5519656594aa2", "c4b4cf3dc201cf5b"],
        "t.jsonl": ["4b715c717d4d65c1"],
        "titles.txt": ["014615f4564013ff"],
        "photos": ["f9242d72e5ff02f3"],
        "muge": ["01260e497f6827db"],
        "muge/MR_valid_imgs.tsv": ["7e4102a35a7d005d"],
    }


def test_a_current_digest_changes_with_the_images_of_its_part(tmp_path: Path) -> None:
    table = write_table(tmp_path, 6)

    def digests() -> list[str]:
        return [part.current_digest() for part in open_catalogue(table, part_size=2).parts]

    before = digests()
    assert digests() == before
    (tmp_path / "photos/3.png").write_bytes(picture(9))
    after = digests()
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]
    (tmp_path / "photos/5.png").unlink()
    assert [a == b for a, b in zip(after, digests(), strict=True)] == [True, True, False]
