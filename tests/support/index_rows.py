"""Rows for index tests: random vectors without any model, and the slow, obvious search."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from bagformer_cli.data.catalogue.products import Product
from bagformer_cli.index.engine import Queries
from bagformer_cli.index.engines import open_engine
from bagformer_cli.index.rows import Layout, SideRows, to_batch
from bagformer_cli.vectors.multi_vectors import MultiVectors
from bagformer_cli.vectors.residual_codes import Codebook

DIM = 8
ATTRIBUTES = {"price": "float", "category": "str", "stock": "int"}
LAYOUT = Layout("model-a", DIM, "float32", attributes=ATTRIBUTES)
CATEGORIES = ("连衣裙", "T恤", "it's")


def lists(names: Sequence[str], seed: int = 0, dim: int = DIM) -> list[torch.Tensor]:
    """Unit vectors of each product, 1 to 7 of them; they follow from its name and the seed."""
    made = []
    for name in names:
        random = np.random.default_rng([seed, *name.encode()])
        values = random.normal(size=(random.integers(1, 8), dim)).astype(np.float32)
        made.append(torch.from_numpy(values / np.linalg.norm(values, axis=1, keepdims=True)))
    return made


def product(name: str, number: int) -> Product:
    """Its price is its number, its category goes round, every fifth has no stock that is known."""
    attributes: dict[str, Any] = {
        "price": float(number),
        "category": CATEGORIES[number % len(CATEGORIES)],
    }
    if number % 5:
        attributes["stock"] = number
    return Product("test", name, f"{name}.jpg", None, f"标题 {name}", attributes)


def coded(book: Codebook) -> Layout:
    """The layout of rows that hold residual codes."""
    return Layout("model-a", DIM, "residual4", codebook=book.digest)


def rows(
    numbers: Sequence[int],
    seed: int = 0,
    layout: Layout = LAYOUT,
    titles: bool = True,
    codebook: Codebook | None = None,
) -> pa.RecordBatch:
    """Products p<number> as rows; those of a number that 4 divides have no image."""
    names = [f"p{number}" for number in numbers]
    with_image = np.array([number % 4 != 0 for number in numbers])
    images = lists(
        [n for n, there in zip(names, with_image, strict=True) if there], seed, layout.dim
    )
    sides: Any = {"image": side(images, with_image, layout.dim)}
    if titles:
        sides["title"] = side(lists(names, seed + 1, layout.dim), np.ones(len(names), bool), 0)
    products = [product(name, number) for name, number in zip(names, numbers, strict=True)]
    return to_batch(layout, products, [name.encode() for name in names], sides, codebook)


def side(items: list[torch.Tensor], there: Any, dim: int) -> SideRows:
    """Items as one side of rows."""
    empty = MultiVectors(torch.zeros(0, dim or DIM), torch.zeros(1, dtype=torch.int64))
    vectors = MultiVectors.from_list(items) if items else empty
    one = torch.stack([item.mean(0) for item in items]) if items else torch.zeros(0, dim or DIM)
    return SideRows(there, vectors, one)


def query(seed: int = 0, count: int = 3, dim: int = DIM) -> Queries:
    """One query."""
    random = np.random.default_rng([seed, 99])
    values = torch.from_numpy(random.normal(size=(count, dim)).astype(np.float32))
    values = torch.nn.functional.normalize(values, dim=1)
    return Queries(MultiVectors.from_list([values]), values.mean(0, keepdim=True))


def best(asked: Queries, numbers: Sequence[int], seed: int = 0, offset: int = 0) -> list[str]:
    """All products of those numbers, best first, one by one in float32."""
    wanted = asked.vectors.values
    scored = []
    for number in numbers:
        if number % 4 == 0 and offset == 0:
            continue
        item = lists([f"p{number}"], seed + offset)[0]
        scored.append((-float((wanted @ item.T).amax(1).sum()), f"p{number}"))
    return [name for _, name in sorted(scored)]


def write_forever(uri: str, first: int) -> None:
    """Upsert products one batch after the other, and say each number once it is acknowledged."""
    engine = open_engine(uri)
    number = first
    while True:
        engine.upsert(rows(range(number, number + 3)))
        print(number + 3, flush=True)
        number += 3


def write_some(uri: str, seed: int) -> None:
    """What one of two writers does: the same ids as the other, other vectors."""
    engine = open_engine(uri)
    for begin in range(0, 30, 3):
        engine.upsert(rows(range(begin, begin + 3), seed=seed))


if __name__ == "__main__":
    {"forever": write_forever, "some": write_some}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
