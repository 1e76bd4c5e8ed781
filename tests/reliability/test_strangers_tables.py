"""Workbooks and files of vectors of somebody else: zip bombs, lying sizes, entities, links.

Each command runs with limits of memory and processor time, and its cache with a limit of size.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.black_box import GIB, MEMORY, Shop, assert_no_bug, assert_refused, process
from tests.support.harmful_pickle import MakesFolder

CPU = 100
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
ROWS = (
    '<row r="1"><c r="A1" t="inlineStr"><is><t>id</t></is></c>'
    '<c r="B1" t="inlineStr"><is><t>image</t></is></c>'
    '<c r="C1" t="inlineStr"><is><t>title</t></is></c></row>'
    '<row r="2"><c r="A2" t="inlineStr"><is><t>a0</t></is></c>'
    '<c r="B2" t="inlineStr"><is><t>p0.jpg</t></is></c>'
    '<c r="C2" t="inlineStr"><is><t>红裙</t></is></c></row>'
)
Text = str | bytes | Iterator[bytes]


def sheet(rows: str = ROWS, before: str = "", after: str = "", prolog: str = "") -> str:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>{prolog}<worksheet xmlns="{MAIN}">{before}'
        f"<sheetData>{rows}</sheetData>{after}</worksheet>"
    )


def repeated(before: str, one: str, times: int, after: str) -> Iterator[bytes]:
    """The bytes of a part in which one text is repeated."""
    yield before.encode()
    block = one.encode() * 10_000
    for _ in range(times // 10_000):
        yield block
    yield one.encode() * (times % 10_000) + after.encode()


def workbook(path: Path, parts: dict[str, Text]) -> Path:
    """Write a workbook of one sheet; ``parts`` replace its parts or are added."""
    override = '<Override ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml'
    usual: dict[str, Text] = {
        "[Content_Types].xml": f'<Types xmlns="{PACKAGE}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.'
        'relationships+xml"/><Default Extension="xml" ContentType="application/xml"/>'
        f'{override}.sheet.main+xml" PartName="/xl/workbook.xml"/>'
        f'{override}.worksheet+xml" PartName="/xl/worksheets/sheet1.xml"/>'
        f'{override}.sharedStrings+xml" PartName="/xl/sharedStrings.xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{PACKAGE}/relationships"><Relationship Id="rId1" '
        f'Type="{RELATIONS}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{RELATIONS}"><sheets>'
        '<sheet name="S" sheetId="1" r:id="rId1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{PACKAGE}/relationships">'
        f'<Relationship Id="rId1" Type="{RELATIONS}/worksheet" Target="worksheets/sheet1.xml"/>'
        f'<Relationship Id="rId2" Type="{RELATIONS}/sharedStrings" Target="sharedStrings.xml"/>'
        "</Relationships>",
        "xl/sharedStrings.xml": f'<sst xmlns="{MAIN}"/>',
        "xl/worksheets/sheet1.xml": sheet(),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for name, content in {**usual, **parts}.items():
            with packed.open(name, "w", force_zip64=True) as part:
                whole = content.encode() if isinstance(content, str) else content
                for piece in [whole] if isinstance(whole, bytes) else whole:
                    part.write(piece)
    return path


ENTITIES = (
    "<!DOCTYPE x [<!ENTITY a '" + "x" * 1000 + "'>"
    + "".join(
        f"<!ENTITY {name} '{f'&{before};' * 10}'>"
        for before, name in zip("abcdefg", "bcdefgh", strict=True)
    )
    + "]>"
)  # fmt: skip
FILE = "<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>"
TITLE = ROWS.replace("红裙", "&h;")
LAST = '<row r="1048576"><c r="A1048576"><v>1</v></c></row>'
SHEET, STRINGS = "xl/worksheets/sheet1.xml", "xl/sharedStrings.xml"
LONG = f'<sst xmlns="{MAIN}"><si><t>' + "长" * 30_000 + "</t></si></sst>"


def letters(column: int) -> str:
    """The name of a column, from 0."""
    name = ""
    column += 1
    while column:
        column, rest = divmod(column - 1, 26)
        name = chr(65 + rest) + name
    return name


WIDE = ROWS + '<row r="3">' + "".join(
    f'<c r="{letters(n)}3" t="s"><v>0</v></c>' for n in range(16_384)
) + "</row>"  # fmt: skip
MERGED = "<mergeCells>" + "".join(
    f'<mergeCell ref="{letters(n)}3:{letters(n)}1048576"/>' for n in range(16_384)
) + "</mergeCells>"  # fmt: skip
SHORT = LONG.replace("长" * 30_000, "长")

BOMBS: dict[str, Callable[[], dict[str, Text]]] = {
    "a sheet of 5 GB": lambda: {SHEET: repeated("", " " * 10_000, 5 * 10**5, sheet())},
    "2 GB of white space in a text": lambda: {
        STRINGS: repeated(f'<sst xmlns="{MAIN}"><si><t>', " " * 10_000, 2 * 10**5,
                          "</t></si></sst>")
    },
    "100 million empty shared texts": lambda: {
        STRINGS: repeated(f'<sst xmlns="{MAIN}">', "<si/>", 10**8, "</sst>")
    },
    "100 million styles": lambda: {
        "xl/styles.xml": repeated(f'<styleSheet xmlns="{MAIN}">', "<xf/>", 10**8,
                                  "</styleSheet>"),
    },
    "one row of 100 million cells": lambda: {
        SHEET: repeated(sheet("|").partition("|")[0] + "<row>", "<c/>", 10**8,
                        "</row>" + sheet("|").partition("|")[2])
    },
    "100 million rows of the same number": lambda: {
        SHEET: repeated(sheet("|").partition("|")[0], '<row r="1"/>', 10**8,
                        sheet("|").partition("|")[2])
    },
    "entities": lambda: {SHEET: sheet(TITLE, prolog=ENTITIES)},
    "an entity of a file": lambda: {SHEET: sheet(TITLE.replace("&h;", "&a;"), prolog=FILE)},
    "entities in shared texts": lambda: {
        STRINGS: f'{ENTITIES}<sst xmlns="{MAIN}"><si><t>&h;</t></si></sst>'
    },
    "entities in UTF-16": lambda: {SHEET: sheet(TITLE, prolog=ENTITIES).replace(
        "UTF-8", "UTF-16").encode("utf-16")},
    "a long text in all cells of a row": lambda: {STRINGS: LONG, SHEET: sheet(WIDE)},
    "merged over all rows and columns": lambda: {
        STRINGS: SHORT, SHEET: sheet(WIDE + LAST, after=MERGED)
    },
    "200,000 rows as wide as Excel": lambda: {
        SHEET: sheet(ROWS + '<row><c r="XFD3"><v/></c></row>' * 200_000)
    },
    "row 99999999999": lambda: {SHEET: sheet(ROWS + LAST.replace("1048576", "99999999999"))},
    "tags that never end": lambda: {SHEET: sheet(after="<!-- " + "mergeCell <f " * 10**6 + "-->")},
    "white space after formulas": lambda: {
        SHEET: sheet(ROWS.replace("<is>", "<f>1</f>" + " " * 10**6 + "<is>", 1))
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", BOMBS)
def test_unpacks_a_workbook_fills_neither_memory_nor_disk(
    model: Path, shop: Shop, kind: str
) -> None:
    parts = BOMBS[kind]()
    if "5 GB" not in kind:  # random bytes, so that the ratio of sizes is that of a usual file
        parts["xl/media/photo.bin"] = os.urandom(16 << 20)
    path = workbook(shop.folder / "t.xlsx", parts)
    cache = shop.folder / "cache"
    process("bags", "红", env={"XMR_CACHE": str(cache)})
    ended = process("data", "import", path, "--out", shop.folder / "d", memory=MEMORY, cpu=CPU,
                    timeout=500, env={"XMR_CACHE": str(cache)})  # fmt: skip
    path.unlink()
    assert_no_bug(ended)
    assert ended.code in (0, 2), (ended.code, ended.err[-500:])
    assert "t.xlsx" in ended.err or ended.code == 0
    assert "root:" not in ended.err + ended.out
    written = sum(one.stat().st_size for one in cache.rglob("*") if one.is_file())
    assert written < GIB


WHOLE = {
    "a dimension of the whole sheet": {
        SHEET: sheet(before='<dimension ref="A1:XFD1048576"/>')
    },
    "a cell in the last row": {SHEET: sheet(ROWS + LAST)},
    "links to other files": {
        "xl/workbook.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{RELATIONS}"><sheets><sheet '
        'name="S" sheetId="1" r:id="rId1"/></sheets><externalReferences><externalReference '
        'r:id="rId3"/></externalReferences></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{PACKAGE}/relationships">'
        f'<Relationship Id="rId1" Type="{RELATIONS}/worksheet" Target="worksheets/sheet1.xml"/>'
        f'<Relationship Id="rId3" Type="{RELATIONS}/externalLink" TargetMode="External" '
        'Target="file:///etc/passwd"/></Relationships>',
    },
    "names that lead out of the folder": {"../../evil.txt": "x", "/etc/evil.txt": "x"},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", WHOLE)
def test_unpacks_a_workbook_that_is_odd_is_read(model: Path, shop: Shop, kind: str) -> None:
    path = workbook(shop.folder / "t.xlsx", dict(WHOLE[kind]))
    index = shop.folder / "i"
    ended = process("index", "build", path, index, "--checkpoint", model, "--json", memory=MEMORY,
                    cpu=CPU, timeout=240)  # fmt: skip
    assert_no_bug(ended)
    assert ended.code == 0, ended.err
    assert ended.json()["rows"] == 1
    assert not (shop.folder / "evil.txt").exists()
    assert not (shop.folder.parent.parent / "evil.txt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("target", ["../../../../../../etc/passwd", "file:///etc/passwd",
                                    "worksheets/gone.xml", "/xl/workbook.xml"])  # fmt: skip
def test_unpacks_a_sheet_is_a_part_of_its_workbook(model: Path, shop: Shop, target: str) -> None:
    rels = (
        f'<Relationships xmlns="{PACKAGE}/relationships"><Relationship Id="rId1" '
        f'Type="{RELATIONS}/worksheet" Target="{target}"/></Relationships>'
    )
    path = workbook(shop.folder / "t.xlsx", {"xl/_rels/workbook.xml.rels": rels})
    run = shop.xmr("data", "import", path, "--out", shop.folder / "d")
    assert_refused(run, "t.xlsx")
    assert "root:" not in run.err


# Files of vectors.


def vectors(count: int = 4) -> dict[str, np.ndarray[Any, Any]]:
    values = np.random.default_rng(0).normal(size=(count, 8)).astype(np.float32)
    return {"ids": np.array([f"a{n}" for n in range(count)]), "vectors": values}


def header(shape: str, descr: str = "'<f4'") -> bytes:
    """The beginning of an ``.npy`` file that claims a shape."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (63 - (len(text) + 10) % 64) + "\n"
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode()


def npz(path: Path, parts: dict[str, bytes | Iterator[bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for name, content in parts.items():
            with packed.open(f"{name}.npy", "w", force_zip64=True) as part:
                for piece in [content] if isinstance(content, bytes) else content:
                    part.write(piece)
    return path


def array_bytes(array: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def pickled(path: Path) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([MakesFolder(path)], object), allow_pickle=True)
    return stream.getvalue()


def feature_file(folder: Path, kind: str) -> Path:
    """Write a file of vectors that lies."""
    right = {name: array_bytes(one) for name, one in vectors().items()}
    if kind == "npz: 10^12 vectors":
        return npz(folder / "f.npz", {**right, "vectors": header("(1000000000000, 8)")})
    if kind == "npz: a negative shape":
        return npz(folder / "f.npz", {**right, "vectors": header("(-1, 8)")})
    if kind == "npz: 10 GB of zeros":
        zeros = (b"\0" * 10**7 for _ in range(1000))
        whole = (piece for part in ([header("(312500000, 8)")], zeros) for piece in part)
        return npz(folder / "f.npz", {**right, "vectors": whole})
    if kind == "npz: ids of a gigabyte":
        long = (piece for part in ([header("(4,)", "'<U500000000'")], (b"a\0\0\0" * 10**6
                for _ in range(2000))) for piece in part)  # fmt: skip
        return npz(folder / "f.npz", {**right, "ids": long})
    if kind == "npz: a pickle":
        return npz(folder / "f.npz", {**right, "ids": pickled(folder / "ran")})
    if kind == "npz: offsets that lie":
        offsets = np.array([0, 2**63 - 1, -(2**63), 3, 4])
        return npz(folder / "f.npz", {**right, "offsets": array_bytes(offsets)})
    if kind == "npz: an npy":
        (folder / "f.npz").write_bytes(right["vectors"])
        return folder / "f.npz"
    if kind == "npy: 10^12 vectors":
        (folder / "f.npy").write_bytes(header("(1000000000000, 8)") + bytes(64))
        (folder / "f.ids.npy").write_bytes(right["ids"])
        return folder / "f.npy"
    if kind == "npy: ids are a pipe":
        (folder / "f.npy").write_bytes(right["vectors"])
        os.mkfifo(folder / "f.ids.npy")
        return folder / "f.npy"
    if kind == "safetensors: a header of 2^60 bytes":
        (folder / "f.safetensors").write_bytes((2**60).to_bytes(8, "little") + b"{}")
        return folder / "f.safetensors"
    if kind == "safetensors: offsets beyond the file":
        about = {
            "vectors": {"dtype": "F32", "shape": [10**9, 8], "data_offsets": [0, 32 * 10**9]},
            "ids": {"dtype": "I64", "shape": [10**9], "data_offsets": [0, 8 * 10**9]},
        }
        text = json.dumps(about).encode()
        (folder / "f.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
        return folder / "f.safetensors"
    if kind.startswith("parquet"):
        return parquet(folder / "f.parquet", kind)
    if kind == "lance: a link":
        import lancedb
        import pyarrow as pa

        table = pa.table({"id": ["a0"], "vector": [[0.5, 0.5]]})
        lancedb.connect(str(folder)).create_table("f", table)
        data = next((folder / "f.lance/data").iterdir())
        data.rename(folder / "elsewhere")
        data.symlink_to(folder / "elsewhere")
        return folder / "f.lance"
    path = folder / "f.jsonl"
    if kind == "jsonl: nested":
        path.write_text('{"id": "a0", "feature": ' + "[" * 10**6 + "]" * 10**6 + "}\n")
    elif kind == "jsonl: huge numbers":
        path.write_text('{"id": "a0", "feature": [' + "9" * 4000 + ", 1e999]}\n")
    elif kind == "jsonl: a line of 300 MB":
        with open(path, "w") as stream:
            stream.write('{"id": "a0", "feature": [')
            for _ in range(300):
                stream.write("0.5, " * 200_000)
            stream.write("1]}\n")
    else:
        path.write_text('{"id": "a\\u001b[2J\\ud800", "feature": [0.1]}\n')
    return path


def parquet(path: Path, kind: str) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if kind == "parquet: a list of 50 million numbers in some kilobytes":
        many = 50_000_000
        values = pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(10**7, np.int8)), pa.array([1.0], pa.float32())
        ).cast(pa.float32())
        chunk = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
        table = pa.table({"id": pa.array(["a0"]), "vector": chunk})
        with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
            for number in range(many // 10**7):
                writer.write_table(table.set_column(0, "id", pa.array([f"a{number}"])))
        return path
    pq.write_table(pa.table({"id": ["a0"], "vector": [[0.5, 0.5]]}), path)
    data = bytearray(path.read_bytes())
    if kind == "parquet: cut":
        data = data[: len(data) // 2]
    else:
        data[-8:-4] = (2**31 - 1).to_bytes(4, "little")  # the length of the footer
    path.write_bytes(data)
    return path


FEATURES = [
    "npz: 10^12 vectors", "npz: a negative shape", "npz: 10 GB of zeros", "npz: ids of a gigabyte",
    "npz: a pickle", "npz: offsets that lie", "npz: an npy", "npy: 10^12 vectors",
    "npy: ids are a pipe", "safetensors: a header of 2^60 bytes",
    "safetensors: offsets beyond the file", "parquet: cut", "parquet: a footer that lies",
    "parquet: a list of 50 million numbers in some kilobytes", "lance: a link", "jsonl: nested",
    "jsonl: huge numbers", "jsonl: a line of 300 MB", "jsonl: an id for the terminal",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", FEATURES)
def test_vectors_of_a_stranger_are_refused(shop: Shop, kind: str) -> None:
    path = feature_file(shop.folder, kind)
    ended = process("index", "build", path, shop.index, "--features", path, memory=MEMORY,
                    cpu=CPU, timeout=300)  # fmt: skip
    assert not (shop.folder / "ran").exists()
    assert_no_bug(ended)
    assert_refused(ended, "f.")
    assert "\x1b" not in ended.err
    assert len(ended.err) < 3000
