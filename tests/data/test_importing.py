"""``xmr data import`` of tables: numbers, ids, splits, and rows that are left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bagformer_cli.data.catalogue.catalogue import open_catalogue
from bagformer_cli.data.catalogue.products import Product
from bagformer_cli.data.importing.numbering import Names, image_names, numbers_of
from bagformer_cli.data.importing.rows import Row
from bagformer_cli.data.importing.table_import import ImportOptions, import_table
from bagformer_cli.data.muge import MugeFolder, Query, iter_images, iter_queries
from bagformer_cli.data.product_ids import ids_of
from bagformer_cli.errors import DataError, InputError
from bagformer_cli.evaluation.products import read_products
from bagformer_cli.evaluation.submission import check_submission, write_submission
from tests.conftest import Run
from tests.support.datasets import picture

Xmr = Callable[..., Run]


def pictures(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).write_bytes(picture(number))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "image,title\na.png,红色裙\nb.png,红色裙\nb.png,包\n"),
        ("t.csv", "a.png,红色裙\nb.png,红色裙\nb.png,包\n"),
        ("t.csv", "\ufefftitle,file\n红色裙,a.png\n红色裙,b.png\n\n包,b.png\n"),
        ("t.tsv", "path\ttext\na.png\t红色裙\nb.png\t红色裙\nb.png\t包\n"),
        (
            "t.jsonl",
            '{"image": "a.png", "title": "红色裙"}\n{"image": "b.png", "title": "红色裙"}\n\n'
            '{"text": "包", "image_path": "b.png"}\n',
        ),
    ],
)
def test_tables_become_datasets(tmp_path: Path, name: str, content: str) -> None:
    pictures(tmp_path, "a.png", "b.png")
    (tmp_path / name).write_text(content, encoding="utf-8")
    done = import_table(tmp_path / name, tmp_path / "out")
    assert {split: (w.queries, w.images, w.pairs) for split, w in done.splits.items()} == {
        "train": (2, 2, 3)
    }
    assert (done.left_out, done.ids) == ([], None)
    folder = MugeFolder(tmp_path / "out")
    queries = [(q.query_id, q.text, q.item_ids) for q in iter_queries(folder.queries_path("train"))]
    assert queries == [(1, "红色裙", (1, 2)), (2, "包", (2,))]
    images = dict(iter_images(folder.images_path("train")))
    assert images == {1: picture(0), 2: picture(1)}


def test_ids_splits_and_image_folders_of_a_table(tmp_path: Path, xmr: Xmr) -> None:
    pictures(tmp_path / "pics", "a.png", "b.png", "c.png")
    table = tmp_path / "table.csv"
    table.write_text(
        "query_id,title,image,image_id,split\n70,红裙,a.png,5,train\n,背包,b.png,,valid\n"
        "1,帽子,c.png,1,train\n",
        encoding="gb18030",
    )
    out = tmp_path / "out"
    arguments = ("data", "import", table, "--out", out, "--images", tmp_path / "pics", "--json")
    assert xmr(*arguments).code == 2  # not UTF-8, and the hint says what to try
    run = xmr(*arguments, "--encoding", "gb18030", "--naming", "text")
    assert run.code == 0
    assert set(run.json()["splits"]) == {"train", "valid"}
    folder = MugeFolder(out)
    assert folder.naming == "text"
    train = [(q.query_id, q.item_ids) for q in iter_queries(folder.queries_path("train"))]
    assert train == [(70, (5,)), (1, (1,))]
    valid = [(q.query_id, q.item_ids) for q in iter_queries(folder.queries_path("valid"))]
    assert valid == [(2, (2,))]  # the first numbers that are free


def test_what_shares_a_title_or_an_image_stays_in_one_split(tmp_path: Path) -> None:
    pictures(tmp_path, *(f"{n}.png" for n in range(60)))
    lines = [f"{n}.png,标题{n // 2}" for n in range(60)] + ["0.png,标题29"]
    (tmp_path / "t.csv").write_text("\n".join(lines), encoding="utf-8")
    import_table(tmp_path / "t.csv", tmp_path / "out", ImportOptions(valid=0.3, test=0.2))
    folder = MugeFolder(tmp_path / "out")
    assert folder.splits == ["train", "valid", "test"]
    seen: dict[str, set[int]] = {}
    for split in folder.splits:
        queries = list(iter_queries(folder.queries_path(split)))
        images = dict(iter_images(folder.images_path(split)))
        assert {i for q in queries for i in q.item_ids} == set(images)
        seen[split] = {q.query_id for q in queries}
        for ids in ({1, 30},):
            assert ids <= seen[split] or not ids & seen[split]
    assert sum(map(len, seen.values())) == 30
    assert 3 <= len(seen["valid"]) <= 16


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,title\na.png,\n", "title is empty"),
        ("image,title\nnone.png,裙\n", "cannot be used.*No such file"),
        ("image,title\nbad.png,裙\n", "not an image"),
        ("image,title,image_id\na.png,裙,1\nb.png,包,1\n", "contradicts"),
        ("image,title,split\na.png,裙,dev\n", "no such split"),
        ("image,title,split\na.png,裙,train\na.png,包,valid\n", "another split"),
        ("photo,title\na.png,裙\n", "no column 'image'"),
        (
            "name,pic\n裙,a.png\n",
            "found: 'name, pic'; expected: .*图片",
        ),
        ("名称,照片\n裙,a.png\n", "neither images nor titles"),
        ("image_1,裙\n", "image_1: No such file"),  # without headings: a path
        ("", "empty"),
    ],
)
def test_a_broken_table_is_a_clear_error_and_leaves_nothing(
    tmp_path: Path, content: str, message: str
) -> None:
    pictures(tmp_path, "a.png", "b.png")
    (tmp_path / "bad.png").write_bytes(b"text")
    (tmp_path / "t.csv").write_text(content, encoding="utf-8")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=message) as caught:
        import_table(tmp_path / "t.csv", tmp_path / "out", ImportOptions(strict=True))
    assert caught.value.exit_code == 2
    assert sorted(tmp_path.iterdir()) == before


def test_broken_rows_are_left_out_named_and_counted_or_stop_a_strict_import(
    tmp_path: Path, xmr: Xmr
) -> None:
    pictures(tmp_path, "a.png", "b.png")
    (tmp_path / "bad.png").write_bytes(b"text")
    (tmp_path / "t.csv").write_text(
        "id,image,title,split\nA,a.png,裙,\nB,bad.png,裙,\nC,none.png,包,\nD,,鞋,\n"
        "E,b.png,帽,dev\n",
        encoding="utf-8",
    )
    run = xmr("data", "import", tmp_path / "t.csv", "--out", tmp_path / "o", "--json")
    assert run.code == 0, run.err
    assert run.json()["splits"]["train"] == {"queries": 1, "images": 1, "pairs": 1}
    assert len(run.json()["skipped"]) == 4
    lines = [text.partition("t.csv:")[2].partition(" ")[0] for text in run.json()["skipped"]]
    assert lines == ["3", "4", "5", "6"]  # rows are read before images, but named in their order
    for line, identity in enumerate("BCDE", 3):
        assert f"t.csv:{line} (id {identity})" in run.err
        assert any(f"t.csv:{line} (id {identity})" in text for text in run.json()["skipped"])
    strict = xmr("data", "import", tmp_path / "t.csv", "--out", tmp_path / "s", "--strict")
    assert strict.code == 2
    assert "(id D)" in strict.err  # rows are read before images
    assert not (tmp_path / "s").exists()


def test_a_table_of_which_no_row_is_good_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,title\nnone.png,包\n,鞋\n", encoding="utf-8")
    with pytest.raises(InputError, match="Nothing can be imported"):
        import_table(tmp_path / "t.csv", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_only_the_first_of_many_rows_left_out_are_named(tmp_path: Path, xmr: Xmr) -> None:
    pictures(tmp_path, "a.png")
    rows = ["image,title", "a.png,裙", *(f"gone{n}.png,包" for n in range(30))]
    (tmp_path / "t.csv").write_text("\n".join(rows), encoding="utf-8")
    run = xmr("data", "import", tmp_path / "t.csv", "--out", tmp_path / "o", "--json")
    assert len(run.json()["skipped"]) == 30
    assert "t.csv:22" in run.err
    assert "t.csv:23" not in run.err
    assert "10 more" in run.err


def ids_file(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "ids.jsonl").read_text("utf-8").splitlines()]


def test_the_ids_of_a_shop_are_kept(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png", "c.png", "d.png", "e.png")
    (tmp_path / "t.csv").write_text(
        "sku,image,title,query_id\nSKU-红,a.png,红裙,Q1\nSKU-红,b.png,红裙,Q1\n"
        "7,c.png,包,5\n007,d.png,鞋,\nSKU-红,b.png,连衣裙,\n2,e.png,帽,\n",
        encoding="utf-8",
    )
    done = import_table(tmp_path / "t.csv", tmp_path / "out")
    assert not done.left_out
    assert done.ids == tmp_path / "out/ids.jsonl"
    assert ids_file(tmp_path / "out") == [
        {"format": "xmr-ids", "version": 1},
        {"image_id": 1, "id": "SKU-红", "product": "SKU-红", "file": "a.png"},
        {"image_id": 3, "id": "SKU-红#2", "product": "SKU-红", "file": "b.png"},
        {"image_id": 7, "id": "7", "product": "7", "file": "c.png"},
        {"image_id": 4, "id": "007", "product": "007", "file": "d.png"},
        {"image_id": 2, "id": "2", "product": "2", "file": "e.png"},
        {"query_id": 1, "id": "Q1"},
    ]
    folder = MugeFolder(tmp_path / "out")
    assert set(dict(iter_images(folder.images_path("train")))) == {1, 2, 3, 4, 7}
    queries = [(q.query_id, q.text) for q in iter_queries(folder.queries_path("train"))]
    assert queries == [(1, "红裙"), (5, "包"), (2, "鞋"), (3, "连衣裙"), (4, "帽")]


def test_numbers_alone_need_no_file_of_ids(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png")
    (tmp_path / "t.csv").write_text("id,image,title\n60012,a.png,裙\n60013,b.png,包\n", "utf-8")
    assert import_table(tmp_path / "t.csv", tmp_path / "out").ids is None
    assert not (tmp_path / "out/ids.jsonl").exists()
    folder = MugeFolder(tmp_path / "out")
    assert list(dict(iter_images(folder.images_path("train")))) == [60012, 60013]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "1", "2", "02", "A", "A#2", str(2**63)]),  # product
            st.integers(0, 4),  # image
            st.integers(0, 3),  # title
            st.sampled_from(["", "1", "3", "x"]),  # image id
        ),
        min_size=1,
        max_size=12,
    )
)
def test_every_image_has_its_own_number_and_id(rows: list[tuple[str, int, int, str]]) -> None:
    given_ids = Names("image_id")
    kept = []
    for number, (product, image, title, image_id) in enumerate(rows):
        row = Row(f"t:{number}", f"{image}.png", f"{title}", product or None, image_id or None)
        try:
            given_ids.give(row.image, row.image_id, row.where)
            kept.append(row)
        except DataError:
            assert row.image_id  # only an id can contradict another
    names = image_names(kept, given_ids)
    assert len({name.id for name in names.values()}) == len(names)
    keys = dict.fromkeys(row.image for row in kept)
    numbers = numbers_of(keys, {image: name.id for image, name in names.items()})
    assert len(set(numbers.values())) == len(keys)
    assert all(0 <= number < 2**63 for number in numbers.values())
    for image, name in names.items():
        assert not (name.id in {"1", "2", "3"} and numbers[image] != int(name.id))


@pytest.mark.parametrize("made", [True, False])
def test_an_import_into_a_folder_that_exists_adds_its_files(tmp_path: Path, made: bool) -> None:
    pictures(tmp_path, "a.png")
    (tmp_path / "t.csv").write_text("a.png,裙\n", encoding="utf-8")
    if made:
        (tmp_path / "out").mkdir()
    import_table(tmp_path / "t.csv", tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"MR_train_queries.jsonl", "MR_train_imgs.tsv"}
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a folder was expected"):
        import_table(tmp_path / "t.csv", tmp_path / "file")


@pytest.mark.parametrize("cell", ["../secret.png", "link.png", "/etc/hostname"])
def test_a_root_confines_an_import(tmp_path: Path, xmr: Xmr, cell: str) -> None:
    pictures(tmp_path / "root", "a.png")
    pictures(tmp_path, "secret.png")
    (tmp_path / "root/link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "t.csv").write_text(f"image,title\na.png,裙\n{cell},包\n", encoding="utf-8")
    arguments = ("data", "import", tmp_path / "t.csv", "--json", "--out")
    run = xmr(*arguments, tmp_path / "o", "--root", tmp_path / "root")
    assert run.code == 0, run.err
    assert run.json()["splits"]["train"]["images"] == 1
    assert "--root" in run.json()["skipped"][0]


def test_an_import_never_writes_over_a_dataset(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png")
    (tmp_path / "t.csv").write_text("a.png,裙\n", encoding="utf-8")
    import_table(tmp_path / "t.csv", tmp_path / "out")
    with pytest.raises(InputError, match="already exists"):
        import_table(tmp_path / "t.csv", tmp_path / "out")


def test_an_index_and_a_submission_show_the_ids_of_the_shop(tmp_path: Path) -> None:
    names = [f"{n}.png" for n in range(12)]
    pictures(tmp_path, *names)
    rows = ["sku,image,title", *(f"S{n // 2},{n}.png,红裙{n}" for n in range(12))]
    (tmp_path / "t.csv").write_text("\n".join(rows), encoding="utf-8")
    import_table(tmp_path / "t.csv", tmp_path / "out")
    catalogue = open_catalogue(tmp_path / "out", split="train")
    found = [one.id for one in catalogue if isinstance(one, Product)]
    assert found[:4] == ["S0", "S0#2", "S1", "S1#2"]
    before = [part.digest for part in catalogue.parts]
    ids = ids_of(tmp_path / "out")
    products = read_products(tmp_path / "out/ids.jsonl", np.arange(1, 13))
    assert products.tolist() == [n // 2 for n in range(12)]
    queries = [Query(1, "红", ())]
    write_submission(tmp_path / "s.jsonl", queries, [list(range(1, 11))], shop=ids)
    line = json.loads((tmp_path / "s.jsonl").read_text("utf-8"))
    assert line["item_ids"] == list(range(1, 11))
    assert line["shop_ids"][:3] == ["S0", "S0#2", "S1"]
    assert check_submission(tmp_path / "s.jsonl", queries).n_queries == 1
    (tmp_path / "out/ids.jsonl").unlink()
    after = open_catalogue(tmp_path / "out", split="train")
    assert [one.id for one in after if isinstance(one, Product)][:2] == ["1", "2"]
    assert [part.digest for part in after.parts] != before


@pytest.mark.parametrize("line", ["[]", "{}", '{"image_id": 1}', "x", '{"image_id": 1, "id": 2}'])
def test_a_broken_file_of_ids_is_named(tmp_path: Path, line: str) -> None:
    header = '{"format": "xmr-ids", "version": 1}'
    (tmp_path / "ids.jsonl").write_text(f"{header}\n{line}\n", "utf-8")
    with pytest.raises(DataError, match=r"ids\.jsonl:2"):
        ids_of(tmp_path)
