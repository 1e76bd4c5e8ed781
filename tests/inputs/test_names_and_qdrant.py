"""Attribute names and filters mean the same in every engine, whatever characters they have."""

from __future__ import annotations

import gc
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.black_box import RAW_ENGINE, Shop, assert_no_bug, assert_refused

# The local Qdrant client closes its lock file late, whoever uses it.
pytestmark = pytest.mark.filterwarnings("ignore")

ENGINES = ["lancedb", "qdrant-local", pytest.param("qdrant", marks=pytest.mark.slow)]


def use_engine(shop: Shop, engine: str, request: pytest.FixtureRequest) -> Shop:
    """Put a shop's index into an engine."""
    if engine == "qdrant-local":
        pytest.importorskip("qdrant_client")
        shop.index = f"qdrant://{shop.folder}/qdrant/items"
    elif engine == "qdrant":
        shop.index = f"{request.getfixturevalue('qdrant_server')}/shop-{uuid.uuid4().hex}"
    return shop


@pytest.fixture
def either(shop: Shop, request: pytest.FixtureRequest) -> Shop:
    """A shop whose index lies in the engine of the parameter."""
    return use_engine(shop, request.param, request)


both = pytest.mark.parametrize("either", ENGINES, indirect=True)


def ids(shop: Shop, where: str) -> list[str] | str:
    """Ids that match, sorted; or that the filter is refused, which must be done in words."""
    run = shop.search("--where", where)
    assert_no_bug(run)
    assert "damaged" not in run.err, run.err
    if run.code:
        assert_refused(run)
        return "refused"
    return sorted(hit["id"] for hit in run.json()["results"][0]["hits"])


@contextmanager
def opened(shop: Shop) -> Iterator[Callable[[str], list[str] | str]]:
    """Open a shop's index once, for many filters; gives the function :func:`ids` without the shop.

    A command loads the model for each filter.
    """
    from bagformer_cli.errors import InputError
    from bagformer_cli.index.search import Index

    gc.collect()  # a local Qdrant folder stays locked until its last client is gone
    index = Index.open(str(shop.index), shop.model, device="cpu")

    def matching(where: str) -> list[str] | str:
        refusal = None
        try:
            found = index.search("商品", where=where, k=1000)
        except InputError as error:
            refusal = str(error)
        if refusal is None:
            return sorted(hit.id for hit in found.hits)
        assert not RAW_ENGINE.search(refusal)
        return "refused"

    yield matching
    index.engine.close()


# Each attribute's value tells the products apart: a1 has the first.
CASE = {
    '"Price" = 199': ["a1"],
    '"价格" < 100': ["a2", "a4"],
    "\"商品 产地\" = '杭州'": ["a1", "a3"],
    "\"user\" = 'u1'": ["a1", "a3"],
    '"size_cm" > 25': ["a3", "a4"],
    '"order" = 2': ["a2"],
    "\"Brand-Name\" = 'L''Oréal'": ["a1"],
    "\"Brand-Name\" = 'Nike 50%'": ["a2"],
    "\"Brand-Name\" LIKE 'Nike%'": ["a2"],
    "\"Brand-Name\" = 'A_B'": ["a4"],
    '"库存(件)" >= 7': ["a3", "a4"],
    '"库存(件)" >= 7 AND "user" = \'u3\'': ["a4"],
    'NOT "库存(件)" >= 7': ["a1", "a2"],
    '"价格" IN (199, 45)': ["a1", "a4"],
}


@both
def test_every_column_of_the_case_can_be_filtered_by(either: Shop) -> None:
    either.case("09-qdrant-names")
    products, left_out = either.built(either.folder / "cols.csv")
    assert not left_out
    assert set(products) == {"a1", "a2", "a3", "a4"}
    assert products["a1"]["attributes"]["库存(件)"] == 5
    with opened(either) as matching:
        for where, expected in CASE.items():
            assert matching(where) == expected, where


NAMES = [
    "商品 产地",
    "库存(件)",
    "尺寸[cm]",
    "尺寸:cm",
    "折扣%",
    "a-b",
    "a/b",
    "it's",
    "a{b}",
    "价格（元）",
    "#1",
    "select",
    "id2",
    "数量@",
    "1st",
    "x" * 60,
    "é",
    "😀",
]


@both
def test_every_name_can_be_filtered_by(either: Shop) -> None:
    rows = [
        {"id": f"a{n}", "image": f"p{n}.jpg", "title": "红裙"}
        | {name: 10 * number + n for number, name in enumerate(NAMES)}
        for n in range(2)
    ]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    products, _ = either.built(either.write("names.jsonl", "\n".join(lines) + "\n"))
    assert products["a1"]["attributes"] == {name: 10 * n + 1 for n, name in enumerate(NAMES)}
    with opened(either) as matching:
        for number, name in enumerate(NAMES):
            assert matching(f'"{name}" > {10 * number}') == ["a1"], name
            assert matching(f'"{name}" = {10 * number}') == ["a0"], name


@both
@pytest.mark.parametrize(
    "name", ["规格.颜色", 'a"b', "a`b", "a\\b", "a\nb", "", " ", "a\x00b", "_rowaddr", "title "]
)
def test_a_name_that_no_filter_can_write_is_refused_when_building_or_works(
    either: Shop, name: str
) -> None:
    row = {"id": "a0", "image": "p0.jpg", "title": "红裙", name: 3}
    run = either.build(either.write("names.jsonl", json.dumps(row) + "\n"))
    assert_no_bug(run)
    if run.code:
        assert_refused(run)
        return
    quoted = '"' + name.replace('"', '""') + '"'
    assert either.products()["a0"]["attributes"] == {name: 3} or "left out" in run.err
    if name in either.products()["a0"]["attributes"]:
        assert ids(either, f"{quoted} = 3") == ["a0"]


TABLE = """id,image,title,price,category,new,note
a0,p0.jpg,红色连衣裙,19,连衣裙,true,x%y
a1,p1.jpg,蓝色T恤,99.5,T恤,false,x_y
a2,p2.jpg,100%棉衬衫,,T恤,true,
a3,p3.jpg,it's a bag,-3,包,false,it's
a4,p4.jpg,白鞋,0,,true,X%Y
"""
FILTERS: dict[str, list[str] | str] = {
    "price < 50": ["a0", "a3", "a4"],
    "price <= 19": ["a0", "a3", "a4"],
    "price > 99": ["a1"],
    "price = 99.5": ["a1"],
    "price = 0": ["a4"],
    "price != 0": ["a0", "a1", "a3"],
    "price <> 0": ["a0", "a1", "a3"],
    "NOT price = 0": ["a0", "a1", "a3"],
    "price IS NULL": ["a2"],
    "price IS NOT NULL": ["a0", "a1", "a3", "a4"],
    "price BETWEEN 0 AND 20": ["a0", "a4"],
    "price NOT BETWEEN 0 AND 20": ["a1", "a3"],
    "price < -1": ["a3"],
    "price IN (0, 19)": ["a0", "a4"],
    "price NOT IN (0, 19)": ["a1", "a3"],
    "category = 'T恤'": ["a1", "a2"],
    "category != 'T恤'": ["a0", "a3"],  # a4 has none
    "category IN ('T恤', '包')": ["a1", "a2", "a3"],
    "category = 't恤'": [],
    "new": ["a0", "a2", "a4"],
    "NOT new": ["a1", "a3"],
    "new = true AND price > 5": ["a0"],
    "price > 5 OR category = '包'": ["a0", "a1", "a3"],
    "NOT (price > 5 OR category = '包')": [],
    "(price > 5 OR price < 0) AND (category = '包' OR category = 'T恤')": ["a1", "a3"],
    "note = 'it''s'": ["a3"],
    "note = 'x%y'": ["a0"],
    "id = 'a3'": ["a3"],
    "id IN ('a3', 'a4', 'nothing')": ["a3", "a4"],
    "title = '白鞋'": ["a4"],
    "price < 50 AND": "refused",
    "nothing = 3": "refused",
    "price = ": "refused",
    "price < 'abc'": "refused",
    "1=1); DROP TABLE items": "refused",
    "": "refused",
}


@pytest.fixture(scope="module", params=ENGINES)
def found(
    model: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> dict[str, Any]:
    """What each filter finds in one engine."""
    from bagformer_cli.cli.main import main

    folder = tmp_path_factory.mktemp(request.param) / "shop"
    shop = use_engine(Shop(main, model, folder), request.param, request)
    table = shop.write("t.csv", TABLE)
    assert main(["index", "build", str(table), str(shop.index), "--checkpoint", str(model)]) == 0
    with opened(shop) as matching:
        return {where: matching(where) for where in FILTERS}


def test_filters_find_what_sql_finds(found: dict[str, Any]) -> None:
    assert found == FILTERS


@both
def test_whole_number_columns_compare_with_decimals(either: Shop) -> None:
    either.built(either.write("t.csv", "id,image,title,n\na0,p0.jpg,红,1\na1,p1.jpg,蓝,2\n"))
    expectations = {
        "n < 1.5": ["a0"],
        "n > 1.5": ["a1"],
        "n = 1.0": ["a0"],
        "n = 1.5": [],
        "n != 1.5": ["a0", "a1"],
        "n BETWEEN 0.5 AND 1.5": ["a0"],
        "n IN (1.0, 7.5)": ["a0"],
        "n < 1e1": ["a0", "a1"],
        "n <= 1.999999": ["a0"],
        "n > 10000000000000000000000.5": [],
    }
    with opened(either) as matching:
        for where, expected in expectations.items():
            found = matching(where)
            assert found == expected or ("1e1" in where and found == "refused"), (where, found)


@both
def test_ids_of_nineteen_digits_stay_apart_in_both_engines(either: Shop) -> None:
    either.case("05-long-ids")
    products, _ = either.built(either.folder / "snow.csv")
    assert set(products) == {"1234567890123456789", "1234567890123456788"}
    assert ids(either, "id = '1234567890123456789'") == ["1234567890123456789"]
    found = ids(either, "spu = 1234567890123456789")
    assert found in (["1234567890123456789"], "refused")
    if found == "refused":
        assert ids(either, "spu = '1234567890123456789'") == ["1234567890123456789"]
