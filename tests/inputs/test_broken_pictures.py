"""Pictures broken inside, replaced, or of any ending or name: each costs itself alone."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from shutil import copy
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from tests.support.black_box import (
    PHOTOS,
    Shop,
    assert_no_bug,
    assert_refused,
    case_folder,
    is_named,
)
from tests.support.pictures import BROKEN, arrow_vectors, photo, write_images

# Endings.
ENDINGS = [".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff",
           ".avif", ".jp2", ".JFIF", ".Avif"]  # fmt: skip


def savable(ending: str) -> bool:
    return ending.lower() != ".avif" or features.check("avif")


@pytest.mark.parametrize("ending", [e for e in ENDINGS if savable(e)])
def test_a_folder_of_any_ending_that_pillow_reads_is_indexed(shop: Shop, ending: str) -> None:
    photos = shop.folder / "photos"
    photos.mkdir()
    photo().save(photos / f"a{ending}", Image.registered_extensions().get(ending.lower(), "JPEG"))
    copy(PHOTOS / "p0.jpg", photos / "b.jpg")
    products, left_out = shop.built(photos)
    assert set(products) == {f"a{ending}", "b.jpg"}
    assert not left_out


@pytest.mark.parametrize("ending", [".heic", ".heif", ".psd", ".cr2"])
def test_a_picture_of_another_ending_is_counted_and_named(shop: Shop, ending: str) -> None:
    photos = shop.folder / "photos"
    photos.mkdir()
    (photos / f"a{ending}").write_bytes(b"\0\0\0\x18ftypheic" + bytes(50))
    copy(PHOTOS / "p0.jpg", photos / "b.jpg")
    run = shop.build(photos)
    assert run.code == 0, run.err
    if f"a{ending}" not in shop.products():
        assert f"a{ending}" in run.err
        assert any(f"a{ending}" in text for text in run.json()["skipped"])


@pytest.mark.parametrize("kind", BROKEN)
def test_the_broken_pictures_are_broken(kind: str) -> None:
    """Their header reads, the end is intact, the pixels do not decode."""
    data = BROKEN[kind]()
    with Image.open(io.BytesIO(data)) as image, pytest.raises(OSError, match=r"."):
        image.load()
    assert data[-2:] == b"\xff\xd9" or b"IEND" in data[-12:]


@pytest.mark.parametrize("kind", BROKEN)
def test_preprocess_finds_a_picture_broken_inside_with_line_and_id(
    xmr: Callable[..., Any], tmp_path: Path, kind: str
) -> None:
    good = {number: (PHOTOS / f"p{number}.jpg").read_bytes() for number in (1, 2, 3)}
    folder = write_images(tmp_path / "set", "train", {**good, 40404: BROKEN[kind](), 5: good[1]})
    run = xmr("preprocess", "--dataset", folder, "--config", "demo", "--workers", 1)
    assert_no_bug(run)
    said = run.err + run.out
    assert "40404" in said
    assert is_named([said], 4, "line 4")


@pytest.mark.parametrize("kind", BROKEN)
def test_index_and_encode_leave_out_a_picture_broken_inside(shop: Shop, kind: str) -> None:
    shop.write(f"broken.{kind}", BROKEN[kind]())
    table = shop.write(
        "b.csv", f"id,image,title\na0,p0.jpg,红裙\nbad,broken.{kind},坏\na1,p1.jpg,蓝裤\n"
    )
    products, left_out = shop.built(table)
    assert set(products) == {"a0", "a1"}
    assert is_named(left_out, 3, "bad")


# Replaced pictures.
def encoded(xmr: Callable[..., Any], table: Path, model: Path) -> tuple[int, np.ndarray]:
    out = table.parent / "v"
    run = xmr("encode", table, "--out", out, "--checkpoint", model, "--json", "--dtype", "float32")
    assert run.code == 0, run.err
    return run.json()["made"], arrow_vectors(out)


def test_a_replaced_picture_is_encoded_again(
    xmr: Callable[..., Any], model: Path, tmp_path: Path
) -> None:
    folder = case_folder("19-stale-vectors", tmp_path)
    made, before = encoded(xmr, folder / "b3.csv", model)
    assert made == 1
    made, same = encoded(xmr, folder / "b3.csv", model)
    assert made == 0
    assert np.array_equal(before, same)
    copy(folder / "p3.jpg", folder / "pp.jpg")
    made, after = encoded(xmr, folder / "b3.csv", model)
    assert made == 1
    assert not np.array_equal(before, after)


@pytest.mark.parametrize("form", ["csv", "jsonl", "tsv"])
def test_of_several_pictures_the_replaced_one_is_found(
    xmr: Callable[..., Any], model: Path, tmp_path: Path, form: str
) -> None:
    folder = case_folder("", tmp_path)
    if form == "jsonl":
        rows = [json.dumps({"id": n, "image": f"p{n}.jpg", "title": "红"}) for n in range(4)]
    else:
        tab = "," if form == "csv" else "\t"
        rows = [tab.join(("id", "image", "title"))]
        rows += [tab.join((str(n), f"p{n}.jpg", "红")) for n in range(4)]
    table = folder / f"t.{form}"
    table.write_text("\n".join(rows) + "\n", "utf-8")
    _, before = encoded(xmr, table, model)
    copy(folder / "p9.jpg", folder / "p2.jpg")
    _, after = encoded(xmr, table, model)
    per = len(before) // 4
    changed = [not np.array_equal(before[n * per : n * per + per], after[n * per : n * per + per])
               for n in range(4)]  # fmt: skip
    assert changed == [False, False, True, False]


def test_a_picture_that_appears_later_is_encoded(
    xmr: Callable[..., Any], model: Path, tmp_path: Path
) -> None:
    folder = case_folder("", tmp_path)
    table = folder / "t.csv"
    table.write_text("id,image,title\na0,p0.jpg,红\na1,late.jpg,蓝\n", "utf-8")
    run = xmr("encode", table, "--out", folder / "v", "--checkpoint", model, "--json")
    assert run.json()["rows"] == 1
    copy(folder / "p3.jpg", folder / "late.jpg")
    run = xmr("encode", table, "--out", folder / "v", "--checkpoint", model, "--json")
    assert run.json()["rows"] == 2


# Names of files.
def test_a_file_name_that_is_not_utf8_costs_its_own_picture(shop: Shop) -> None:
    import os

    photos = shop.folder / "photos"
    photos.mkdir()
    copy(PHOTOS / "p0.jpg", photos / "good.jpg")
    gbk = os.path.join(os.fsencode(photos), "红裙".encode("gbk") + b".jpg")
    with open(gbk, "wb") as stream:
        stream.write((PHOTOS / "p1.jpg").read_bytes())
    run = shop.build(photos)
    assert_no_bug(run)
    assert run.code == 0, run.err
    assert "good.jpg" in shop.products()
    assert len(shop.products()) == 2 or run.json()["skipped"]
    run.err.encode()  # nothing but text reaches the terminal


def test_score_of_a_missing_picture_is_refused(xmr: Callable[..., Any], model: Path) -> None:
    assert_refused(xmr("score", "gone.jpg", "红", "--checkpoint", model), "gone.jpg")
