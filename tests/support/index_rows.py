"""Rows for index tests: random vectors without any model, and the slow, obvious search."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from bagformer_cli.data.catalogue.products import Product
from bagformer_cli.index.engine import Queries
from bagformer_cli.index.engines import open_engine
from bagformer_cli.index.row_columns import SideRows, to_rows
from bagformer_cli.index.rows import Layout
from bagformer_cli.vectors.multi_vectors import MultiVectors
from bagformer_cli.vectors.residual_codes import Codebook

DIM = 8
ATTRIBUTES = {"price": "float", "category": "str", "stock": "int"}
LAYOUT = Layout("model-a", DIM, "float32", attributes=ATTRIBUTES, terms=True)
OLD_LAYOUT = replace(LAYOUT, terms=False)
CATEGORIES = ("连衣裙", "T恤", "it's")


def embeddings(names: Sequence[str], seed: int = 0, dim: int = DIM) -> list[torch.Tensor]:
    """Make 1 to 7 unit vectors for each product; they depend on its name and the seed."""
    made = []
    for name in names:
        random = np.random.default_rng([seed, *name.encode()])
        values = random.normal(size=(random.integers(1, 8), dim)).astype(np.float32)
        made.append(torch.from_numpy(values / np.linalg.norm(values, axis=1, keepdims=True)))
    return made


def product(name: str, number: int) -> Product:
    """Make a product: its price is its number; every fifth has no stock value."""
    attributes: dict[str, Any] = {
        "price": float(number),
        "category": CATEGORIES[number % len(CATEGORIES)],
    }
    if number % 5:
        attributes["stock"] = number
    return Product("test", name, f"{name}.jpg", None, f"标题 {name}", attributes)


def coded(book: Codebook) -> Layout:
    """Return the layout of rows with residual codes."""
    return Layout("model-a", DIM, "residual4", codebook=book.digest)


def rows(
    numbers: Sequence[int],
    seed: int = 0,
    layout: Layout = LAYOUT,
    titles: bool = True,
    codebook: Codebook | None = None,
) -> pa.RecordBatch:
    """Make rows of the products p<number>; every fourth has no image."""
    names = [f"p{number}" for number in numbers]
    with_image = np.array([number % 4 != 0 for number in numbers])
    images = embeddings(
        [n for n, there in zip(names, with_image, strict=True) if there], seed, layout.dim
    )
    sides: Any = {"image": side(images, with_image, layout.dim)}
    if titles:
        sides["title"] = side(embeddings(names, seed + 1, layout.dim), np.ones(len(names), bool), 0)
    products = [product(name, number) for name, number in zip(names, numbers, strict=True)]
    terms = [
        f"标题 {name} 同 {'单' if n % 2 else '双'}" for n, name in zip(numbers, names, strict=True)
    ]
    thumbnails = [name.encode() for name in names]
    return to_rows(layout, products, thumbnails, sides, codebook, terms if titles else None)


def side(items: list[torch.Tensor], present: Any, dim: int) -> SideRows:
    """Make one side of rows from the items that have it."""
    empty = MultiVectors(torch.zeros(0, dim or DIM), torch.zeros(1, dtype=torch.int64))
    vectors = (MultiVectors.from_list(items) if items else empty).arrays()
    single = torch.stack([item.mean(0) for item in items]) if items else torch.zeros(0, dim or DIM)
    return SideRows(present, vectors, single.numpy())


def query(seed: int = 0, count: int = 3, dim: int = DIM) -> Queries:
    """Make one query."""
    random = np.random.default_rng([seed, 99])
    values = torch.from_numpy(random.normal(size=(count, dim)).astype(np.float32))
    values = torch.nn.functional.normalize(values, dim=1)
    vectors = MultiVectors.from_list([values]).arrays()
    return Queries(vectors, values.mean(0, keepdim=True).numpy())


def best(asked: Queries, numbers: Sequence[int], seed: int = 0, offset: int = 0) -> list[str]:
    """Rank the products with those numbers, one by one in float32: the slow, obvious search."""
    wanted = asked.tensors.values
    scored = []
    for number in numbers:
        if number % 4 == 0 and offset == 0:
            continue
        item = embeddings([f"p{number}"], seed + offset)[0]
        scored.append((-float((wanted @ item.T).amax(1).sum()), f"p{number}"))
    return [name for _, name in sorted(scored)]


def write_forever(uri: str, first: int) -> None:
    """Upsert batch after batch; print the next number after each acknowledged upsert."""
    engine = open_engine(uri)
    number = first
    while True:
        engine.upsert(rows(range(number, number + 3)))
        print(number + 3, flush=True)
        number += 3


def write_some(uri: str, seed: int) -> None:
    """Upsert the same ids as another writer, with other vectors."""
    engine = open_engine(uri)
    for begin in range(0, 30, 3):
        engine.upsert(rows(range(begin, begin + 3), seed=seed))


if __name__ == "__main__":
    {"forever": write_forever, "some": write_some}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
