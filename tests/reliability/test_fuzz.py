"""100,000 damaged and random inputs for all parsers, half with a fixed and half with a fresh seed.

A parser may refuse its input as the user's mistake (:class:`XmrError`), or read it; any other
exception, and more than a few seconds of processor time, is a fault. Case ``n`` of a seed is always
the same input, whatever ran before: a failure names seed and case. ``XMR_FUZZ`` is the share of the
cases that runs: ``python -m tests.reliability -k fuzz`` runs all, ``XMR_FUZZ=0.1`` a tenth.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest

from bagformer_cli.errors import XmrError
from tests.support.datasets import picture

SHARE = float(os.environ.get("XMR_FUZZ", "1"))
FRESH = time.time_ns() % 10**9
MOST_CPU_SECONDS = 10.0
"""Processor time of one case: far above the slowest, far below a loop that never ends."""

CHARACTERS = [
    *"红色连衣裙碎花2件装abcXYZ019 ,;\t\n\r\"'\\/|:.-_=<>()[]{}#&*!@%+~`?$^",
    "\0", "\x1b", "\x7f", "\x85", "\xa0", "\xad", "\u0301", "\u1100", "\u200b", "\u200d", "\u202e",
    "\u2028", "\u3000", "\ufb01", "\ufe0f", "\ufeff", "\uff10", "\U0001f457", "\U00020000",
    "\U0010ffff", "İ", "ß", "ſ", "㎏", "½", "٣", "०", "👨\u200d👩\u200d👧", "e\u0301", "１２件",
    "\r\n",
]  # fmt: skip
HALVES = ["\ud83d", "\udc57", "\udcff"]
"""Halves of surrogate pairs: Python's strings can hold them, UTF-8 cannot."""
NUMBERS = ["0", "-1", "1e999", "1e-999", "nan", "inf", "-0", "9" * 400, "0x10", "1_000", "१२",
           str(2**63), str(2**64), "1.", ".5", "1e5", "007"]  # fmt: skip


def mutated(random: Random, data: bytes) -> bytes:
    """Change some bytes, cut, repeat, or insert."""
    content = bytearray(data)
    for _ in range(random.choice([1, 1, 2, 4, 16])):
        at = random.randrange(len(content) + 1)
        kind = random.randrange(6)
        if kind == 0 and content:
            content[at % len(content)] ^= 1 << random.randrange(8)
        elif kind == 1 and content:
            content[at % len(content)] = random.choice([0, 1, 0x7F, 0x80, 0xFF, 10, 34])
        elif kind == 2:
            del content[at : at + random.choice([1, 2, 8, 100])]
        elif kind == 3:
            content[at:at] = content[at : at + random.choice([1, 3, 50])]
        elif kind == 4:
            content[at:at] = random.choice([*CHARACTERS, *NUMBERS]).encode()
        else:
            content[at:] = b"" if random.random() < 0.2 else content[at:]
    return bytes(content)


def drawn(random: Random, pool: list[str], most: int) -> str:
    """Return a random text of pieces of a pool."""
    return "".join(random.choice(pool) for _ in range(random.randrange(most + 1)))


class Parser(NamedTuple):
    """A parser under attack.

    Args:
        cases: How many inputs it gets with each of the two seeds.
        make: Makes an input.
        read: Reads it; may raise :class:`XmrError`. The folder is for files.
    """

    cases: int
    make: Callable[[Random], Any]
    read: Callable[[Any, Path], object]


def file_of(data: bytes, folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


# Lines of MUGE files.

QUERY = json.dumps(
    {"query_id": 7, "query_text": "红色连衣裙", "item_ids": [1, 2]}, ensure_ascii=False
).encode()
VALUES = ["null", "true", "[]", "{}", '""', '"红"', '"\\ud800"', "[" * 300 + "]" * 300, "[[1]]"]


def query_line(random: Random) -> bytes:
    if random.random() < 0.5:
        return mutated(random, QUERY)
    fields = [
        f'"{name}": {random.choice([*VALUES, *NUMBERS, "7", "[1, 2]"])}'
        for name in ("query_id", "query_text", "item_ids", "text_id", "text", "image_ids")
        if random.random() < 0.6
    ]
    return f"{{{', '.join(fields)}}}".encode()


def read_query_line(data: bytes, folder: Path) -> None:
    from bagformer_cli.data.muge_lines import parse_query_line

    query = parse_query_line(data)
    query.text.encode()
    assert all(0 <= number < 2**63 for number in (query.query_id, *query.item_ids))


def image_line(random: Random) -> bytes:
    return mutated(random, b"12\t" + base64.b64encode(b"picture" * random.randrange(5)))


def read_image_line(data: bytes, folder: Path) -> None:
    from bagformer_cli.data.muge_lines import parse_image_line

    assert 0 <= parse_image_line(data)[0] < 2**63


# Tables.


def table(random: Random) -> tuple[str, bytes]:
    ending, separator = random.choice([(".csv", ","), (".tsv", "\t"), (".csv", ";")])
    lines = [["id", "image", "title", "price"]]
    for row in range(random.randrange(1, 8)):
        cells = [f"a{row}", f"p{row}.jpg", "红裙", random.choice(NUMBERS)]
        if random.random() < 0.5:
            cells[random.randrange(4)] = drawn(random, CHARACTERS, 12)
        if random.random() < 0.3:
            cells[2] = '"' + drawn(random, CHARACTERS, 6).replace('"', '""') + '"'
        lines.append(cells)
    data = "\n".join(separator.join(cells) for cells in lines).encode("utf-8", "surrogatepass")
    return ending, mutated(random, data) if random.random() < 0.7 else data


def json_table(random: Random) -> tuple[str, bytes]:
    rows = []
    for row in range(random.randrange(1, 6)):
        value = random.choice([*VALUES, *NUMBERS, json.dumps(drawn(random, CHARACTERS, 6))])
        rows.append(f'{{"id": "a{row}", "image": "p.jpg", "title": "红裙", "x": {value}}}')
    data = "\n".join(rows).encode()
    return ".jsonl", mutated(random, data) if random.random() < 0.7 else data


def read_table(given: tuple[str, bytes], folder: Path) -> None:
    from bagformer_cli.data.table import read_records

    path = file_of(given[1], folder, f"t{given[0]}")
    try:
        last = 0
        for record in read_records(path):
            assert record.line >= last
            last = record.line
    finally:
        path.unlink()


@cache
def workbook() -> bytes:
    from openpyxl import Workbook

    book = Workbook()
    for row in (["id", "image", "title"], ["a0", "p0.jpg", "红裙"], ["a1", "p1.jpg", 3.5]):
        book.active.append(row)
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def damaged_workbook(random: Random) -> tuple[str, bytes]:
    if random.random() < 0.3:
        return ".xlsx", mutated(random, workbook())
    packed, stream = zipfile.ZipFile(io.BytesIO(workbook())), io.BytesIO()
    victim = random.choice(packed.namelist())
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as written:
        for name in packed.namelist():
            content = packed.read(name)
            if name != victim:
                written.writestr(name, content)
            elif random.random() < 0.9:
                written.writestr(name, mutated(random, content))
    return ".xlsx", stream.getvalue()


# Configurations and filters.

CONFIG = """extends: demo
seed: 3
text: {layers: 1, width: 32, heads: 2, options: {layer_norm_eps: 1e-12}}
image: {size: 32, options: {channels: [8, 12, 16, 24]}}
model: {interaction: bagwise, embed_dim: 16}
training: {batch_size: 8, learning_rate: 1.0e-4, clip: null}
objectives: {itc: 1, late: 1}
"""


def config(random: Random) -> bytes:
    lines = CONFIG.splitlines()
    if random.random() < 0.5:
        at = random.randrange(len(lines))
        value = random.choice(
            [*NUMBERS, "null", "true", "[]", "{}", "&a [*a]", "!!binary x", "2020-13-45", "<<: 3"]
        )
        lines[at] = f"{lines[at].partition(':')[0]}: {value}"
        return "\n".join(lines).encode()
    return mutated(random, CONFIG.encode())


def read_yaml(data: bytes, folder: Path) -> None:
    from ruamel.yaml.error import YAMLError

    from bagformer_cli.config.yaml_files import parse_yaml

    with suppress(YAMLError):
        parse_yaml(data.decode("utf-8", "replace"))


def read_config(data: bytes, folder: Path) -> None:
    from bagformer_cli.config import load_config

    load_config(file_of(data, folder, "c.yaml"))


PARTS = [
    "price", "title", "`price`", '"title"', "nothing", "=", "<", ">=", "<>", "!=", " AND ", " OR ",
    " NOT ", "(", ")", " IN ", " BETWEEN ", " LIKE ", " IS ", " NULL", "'红%'", "''", "'a''b'", ",",
    "3", "-3.5", "true", " ", "--", "/*", "*/", ";", "1/0", "x'00'", "CAST(", "count(*)", "::int",
    "DATE '2020-01-01'", "id", "on_sale", "\0", "\\", "`", "'", '"', "@@", "?", ":p", "{}", "[1]",
]  # fmt: skip
FILTERS = ["price < 200", "title LIKE '%红%' AND NOT price BETWEEN 1 AND 3", "id IN ('a', 'b')",
           "on_sale = true OR price IS NOT NULL", "(price = 1 OR (title <> 'x'))"]  # fmt: skip


def filter_text(random: Random) -> str:
    if random.random() < 0.5:
        return mutated(random, random.choice(FILTERS).encode()).decode("utf-8", "surrogateescape")
    return drawn(random, [*PARTS, *NUMBERS, *HALVES], 14)


@cache
def layout() -> Any:
    from bagformer_cli.index.rows import Layout

    return Layout("m", 8, attributes={"price": "float", "count": "int", "on_sale": "bool",
                                      "brand": "str"})  # fmt: skip


def read_filter(where: str, folder: Path) -> None:
    from bagformer_cli.index.filters import lance_sql, parse_filter

    sql = lance_sql(parse_filter(where, layout()))
    assert ";" not in sql or ";" in where
    assert "--" not in sql or "'" in sql


# Dictionaries, titles, what is printed.

DICTIONARY = (
    "红色\tcolor\t100\n连衣裙\tcategory\t90\n空军一号\tname\n# comment\n2件装\t\t3\n"
).encode()


def read_words(data: bytes, folder: Path) -> None:
    from bagformer_cli.text.dictionaries import parse_dictionary

    found = parse_dictionary(file_of(data, folder, "d.tsv"))
    assert all(problem.line >= 0 for problem in found.problems)


def titles(random: Random) -> list[str]:
    return [drawn(random, [*CHARACTERS, "连衣裙", "空军一号", "买一送一"], 24) for _ in range(50)]


@cache
def encoder() -> Any:
    from bagformer_cli.data.title_files import bag_encoder

    return bag_encoder("builtin", ())


def read_titles(texts: list[str], folder: Path) -> None:
    """Bags are in order, inside of the title, and cover all but blanks and what is invisible."""
    found = encoder().bags_batch(texts, whole=True)
    tokens = encoder()(texts)
    for text, bags in zip(texts, found, strict=True):
        end = 0
        for bag in bags:
            assert end <= bag.start < bag.end <= len(text)
            assert text[bag.start : bag.end] == bag.text
            end = bag.end
    assert len(tokens) == len(texts)


def message(random: Random) -> str:
    controls = [*map(chr, range(32)), *map(chr, range(127, 160))]
    return drawn(random, [*CHARACTERS, *HALVES, *controls], 40)


def read_message(text: str, folder: Path) -> None:
    from bagformer_cli.cli.printable import one_line, printable, printable_json

    as_json = printable_json(json.dumps(text, ensure_ascii=False), io.StringIO())
    for safe in (printable(text), one_line(text), as_json):
        assert not any((ord(c) < 32 and c not in "\t\n") or 127 <= ord(c) < 160 for c in safe)
        safe.encode()
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    assert json.loads(as_json) == whole  # JSON joins two halves that stand side by side


# Images, weights, vectors, the lexicon's cache.


def image(random: Random) -> bytes:
    form = random.choice(["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "ICO"])
    data = picture(random.randrange(4), (24, 20), form)
    return mutated(random, data[: random.randrange(40, 400)] if random.random() < 0.1 else data)


@pytest.mark.filterwarnings("ignore")
def read_image(data: bytes, folder: Path) -> None:
    from bagformer_cli.data.images import decode, verify

    verify(data)
    decoded = decode(data)
    assert decoded.mode == "RGB"


@cache
def weights() -> bytes:
    import torch
    from safetensors.torch import save

    return save({"a": torch.ones(4, 3), "b": torch.zeros(5, dtype=torch.int8)}, {"k": "v"})


def weight_file(random: Random) -> bytes:
    data = weights()
    length = int.from_bytes(data[:8], "little")
    if random.random() < 0.6:  # a header that can be read and lies
        header = mutated(random, data[8 : 8 + length])
        return len(header).to_bytes(8, "little") + header + data[8 + length :]
    return mutated(random, data)


def read_weights(data: bytes, folder: Path) -> None:
    from bagformer_cli.encoders.weight_files import load_tensors

    for tensor in load_tensors(file_of(data, folder, "w.safetensors")).values():
        tensor.float().sum()


@cache
def checkpoint() -> bytes:
    import torch

    stream = io.BytesIO()
    torch.save({"model": {"a": torch.ones(2, 2)}, "epoch": 1}, stream)
    return stream.getvalue()


def pickle_file(random: Random) -> bytes:
    if random.random() < 0.5:
        return mutated(random, checkpoint())
    packed, stream = zipfile.ZipFile(io.BytesIO(checkpoint())), io.BytesIO()
    with zipfile.ZipFile(stream, "w") as written:
        for name in packed.namelist():
            content = packed.read(name)
            written.writestr(name, mutated(random, content) if "pkl" in name else content)
    return stream.getvalue()


def read_checkpoint(data: bytes, folder: Path) -> None:
    from bagformer_cli.encoders.weight_files import read_state_dict

    read_state_dict(file_of(data, folder, "c.pth"))


@cache
def vector_files() -> dict[str, bytes]:
    import tempfile

    import torch

    from bagformer_cli.vectors.multi_vectors import MultiVectors
    from bagformer_cli.vectors.storage import write_vectors

    with tempfile.TemporaryDirectory() as folder:
        values = MultiVectors(torch.ones(7, 4), torch.tensor([0, 2, 3, 7]))
        write_vectors(Path(folder) / "v", [values])
        return {path.name: path.read_bytes() for path in (Path(folder) / "v").iterdir()}


def vectors(random: Random) -> dict[str, bytes]:
    files = dict(vector_files())
    for name in random.sample(sorted(files), random.choice([1, 1, 2])):
        files[name] = mutated(random, files[name])
    return files


def read_vectors(files: dict[str, bytes], folder: Path) -> None:
    from bagformer_cli.vectors.storage import open_vectors

    shutil.rmtree(folder / "v", ignore_errors=True)
    (folder / "v").mkdir()
    for name, data in files.items():
        (folder / "v" / name).write_bytes(data)
    found = open_vectors(folder / "v", 3)
    for number in range(len(found)):
        begin, end = found.offsets[number], found.offsets[number + 1]
        found.values[begin:end].float().sum()


PARSERS = {
    "query lines": Parser(12_000, query_line, read_query_line),
    "image lines": Parser(8_000, image_line, read_image_line),
    "CSV and TSV": Parser(6_000, table, read_table),
    "JSONL": Parser(5_000, json_table, read_table),
    "workbooks": Parser(250, damaged_workbook, read_table),
    "YAML": Parser(800, config, read_yaml),
    "configurations": Parser(150, config, read_config),
    "filters": Parser(4_000, filter_text, read_filter),
    "dictionaries": Parser(1_500, lambda random: mutated(random, DICTIONARY), read_words),
    "titles (50 a case)": Parser(100, titles, read_titles),
    "messages": Parser(6_000, message, read_message),
    "images": Parser(3_000, image, read_image),
    "weights": Parser(2_000, weight_file, read_weights),
    "checkpoints": Parser(300, pickle_file, read_checkpoint),
    "vector files": Parser(900, vectors, read_vectors),
}  # 50,000 with each seed


def test_there_are_100000_cases() -> None:
    assert 2 * sum(parser.cases for parser in PARSERS.values()) >= 100_000


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", [0, FRESH], ids=["fixed", "fresh"])
@pytest.mark.parametrize("name", PARSERS)
def test_fuzz_reads_or_refuses(
    tmp_path: Path, count: Callable[[str, int, int], None], name: str, seed: int
) -> None:
    parser = PARSERS[name]
    cases = max(1, int(parser.cases * SHARE))
    wrong = []
    for number in range(cases):
        given = parser.make(Random(f"{seed} {number}"))
        began = time.process_time()
        try:
            parser.read(given, tmp_path)
        except XmrError:
            pass
        except Exception as error:
            wrong.append((number, repr(error)[:200], repr(given)[:300]))
        if time.process_time() - began > MOST_CPU_SECONDS:
            wrong.append((number, "too slow", repr(given)[:300]))
    count(name, cases, cases - len(wrong))
    assert wrong == [], (seed, len(wrong), wrong[:5])
