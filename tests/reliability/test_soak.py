"""30 seconds of searches by several threads beside a writer: no wrong result, flat memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.black_box import Shop

SECONDS = float(os.environ.get("XMR_SOAK", "30"))
THREADS = 4
MOST_GROWTH = 48 << 20
"""Bytes. A leak of one result (a few KB a search) would be several times as much."""


def resident() -> int:
    """Bytes of memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_soak_of_searches_leaves_memory_flat(
    shop: Shop, count: Callable[[str, int, int], None]
) -> None:
    from bagformer_cli.index.search import Index

    lines = ["id,image,title,price", *(f"a{n},p{n % 10}.jpg,红裙{n},{n}" for n in range(100))]
    table = shop.write("t.csv", "\n".join(lines) + "\n")
    shop.built(table)
    index = Index.open(str(shop.index), str(shop.model), device="cpu")
    failed: list[str] = []

    def search(number: int) -> int:
        searches = 0
        while time.monotonic() < end:
            searches += 1
            where = f"price < {50 + searches % 50}" if searches % 3 == 0 else None
            try:
                found = index.search(f"红色商品{number}号", k=100, where=where)
            except Exception as error:
                failed.append(repr(error))
                continue
            ids = {hit.id for hit in found.hits}
            right = {f"a{n}" for n in range(100 if where is None else 50 + searches % 50)}
            if ids != right or len(found.hits) != len(ids):
                failed.append(f"{where}: {len(ids)} products")
        return searches

    total = 0
    sizes = []
    with ThreadPoolExecutor(THREADS) as pool:
        for part in range(4):  # the first is the warm-up
            end = time.monotonic() + SECONDS / 4
            total += sum(pool.map(search, range(THREADS)))
            sizes.append(resident())
            if part < 3:
                assert shop.add(table).code == 0  # every product is replaced
    growth = sizes[-1] - sizes[1]
    count(f"memory grew by {growth / 2**20:+.0f} MiB", total, total - len(failed))
    assert failed == [], (len(failed), total)
    assert growth < MOST_GROWTH, [size >> 20 for size in sizes]
