"""Filters: what they mean, the same in LanceDB and Qdrant, and what they refuse."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bagformer_cli.data.catalogue.products import Product
from bagformer_cli.errors import InputError
from bagformer_cli.index.attribute_names import require_names
from bagformer_cli.index.engines import create_engine
from bagformer_cli.index.filters import parse_filter
from bagformer_cli.index.row_columns import to_rows
from bagformer_cli.index.rows import Layout
from tests.support.index_rows import DIM, embeddings, query, side

BIG = 9223372036854775807
ATTRIBUTES = {
    "price": "float",
    "stock": "int",
    "category": "str",
    "new": "bool",
    "价格": "int",
    "价格（元）": "int",
    "a b": "int",
    "a(b)": "int",
    "50%": "int",
    "order": "str",
    "select": "int",
    "Price": "int",
    "上架": "date",
}
LAYOUT = Layout("model", DIM, attributes=ATTRIBUTES)
ROWS: dict[str, list[Any]] = {
    "id": ["p0", "p1", "p2", "p3", "it's"],
    "title": ["红色连衣裙", "红色 T恤", "100%棉", "a_b\\c", None],
    "price": [0.0, 1.5, 2.0, -3.0, None],
    "stock": [0, 1, BIG, -BIG, None],
    "category": ["连衣裙", "T恤", "it's", 'say "hi"', None],
    "new": [True, False, True, False, None],
    "价格": [0, 1, 2, 3, None],
    "价格（元）": [0, 1, 2, 3, None],
    "a b": [0, 1, 2, 3, None],
    "a(b)": [0, 1, 2, 3, None],
    "50%": [0, 1, 2, 3, None],
    "order": ["a", "b", "c", "d", None],
    "select": [0, 1, 2, 3, None],
    "Price": [0, 1, 2, 3, None],
    "上架": ["2024-06-01", "2024-06-01 08:30:00", "2024-11-02", "2024-06-15", None],
}
Find = Callable[[str], list[int]]


ENGINES = ["lancedb", "qdrant-local", pytest.param("qdrant", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=ENGINES)
def find(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Find:
    """A function from a filter to the numbers of the rows that one engine finds."""
    uri = str(tmp_path_factory.mktemp("index") / "filters")
    if request.param != "lancedb":
        pytest.importorskip("qdrant_client")
        uri = f"qdrant://{uri}"
    if request.param == "qdrant":
        uri = f"{request.getfixturevalue('qdrant_server')}/filters-{uuid.uuid4().hex}"
    engine = create_engine(uri, LAYOUT)
    names = ROWS["id"]
    products = [
        Product("test", name, None, None, title, {key: ROWS[key][n] for key in ATTRIBUTES})
        for n, (name, title) in enumerate(zip(names, ROWS["title"], strict=True))
    ]
    images = side(embeddings(names), np.ones(len(names), bool), DIM)
    engine.upsert(to_rows(LAYOUT, products, [None] * len(names), {"image": images}))

    def found(where: str) -> list[int]:
        keys = engine.recall("image", query(), 10, where, "exact", candidates=10).keys[0]
        assert engine.count(where) == len(keys)
        return sorted(names.index(row["id"]) for row in engine.fetch(keys, ["id"]))

    return found


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("price < 2", [0, 1, 3]),
        ("price <= 2 AND price >= 0", [0, 1, 2]),
        ("price = 2", [2]),
        ("price = -3", [3]),
        ("price != 2", [0, 1, 3]),
        ("price <> 2", [0, 1, 3]),
        ("NOT price = 2", [0, 1, 3]),
        ("2 > price", [0, 1, 3]),
        ("(price) = (1.5)", [1]),
        ("price = 15e-1 OR price = .0", [0, 1]),
        ("price IN (0, 1.5, 99)", [0, 1]),
        ("price NOT IN (0, 1.5, 99)", [2, 3]),
        ("price BETWEEN 0 AND 1.5", [0, 1]),
        ("price NOT BETWEEN 0 AND 1.5", [2, 3]),
        ("price IS NULL", [4]),
        ("price IS NOT NULL", [0, 1, 2, 3]),
        ("NOT price IS NULL", [0, 1, 2, 3]),
        (f"stock = {BIG}", [2]),
        (f"stock = {BIG - 1}", []),
        (f"stock IN ({BIG}, 1)", [1, 2]),
        (f"stock != {BIG}", [0, 1, 3]),
        (f"stock = -{BIG}", [3]),
        ("stock < 0.5", [0, 3]),
        ("stock <= 0.5", [0, 3]),
        ("stock > 0.5", [1, 2]),
        ("stock >= 0.5", [1, 2]),
        ("stock BETWEEN -0.5 AND 1.5", [0, 1]),
        ("stock = 1.0", [1]),
        ("category = '连衣裙'", [0]),
        ("category = 'it''s'", [2]),
        ("category = 'say \"hi\"'", [3]),
        ("category IN ('T恤', 'it''s')", [1, 2]),
        ("category != 'T恤'", [0, 2, 3]),
        ("id = 'it''s'", [4]),
        ("title LIKE '红色%'", [0, 1]),
        ("title LIKE '%色%'", [0, 1]),
        ("title NOT LIKE '%色%'", [2, 3]),
        ("NOT title LIKE '%色%'", [2, 3]),
        ("title LIKE '红色连衣裙'", [0]),
        ("title LIKE '%'", [0, 1, 2, 3]),
        ("title LIKE '100\\%棉'", [2]),
        ("title LIKE '%\\\\c%'", [3]),
        ("new", [0, 2]),
        ("NOT new", [1, 3]),
        ("new = FALSE", [1, 3]),
        ("new != TRUE", [1, 3]),
        ("new IS TRUE", [0, 2]),
        ("new IS NOT TRUE", [1, 3, 4]),
        ("new IN (TRUE, FALSE)", [0, 1, 2, 3]),
        ("价格 = 1", [1]),
        ("价格（元） = 1", [1]),
        ("`价格（元）` = 1", [1]),
        ("`a b` = 1", [1]),
        ('"a b" = 1', [1]),
        ("`a(b)` = 1", [1]),
        ("`50%` = 1", [1]),
        ("order = 'b'", [1]),
        ("select = 1", [1]),
        ("Price = 1 AND price = 1.5", [1]),
        # Qdrant has no order of texts, no general LIKE, no exact ranges beyond 2^53.
        ("title < 'b'", [2, 3]),
        ("NOT title < 'b'", [0, 1]),
        ("title >= '红色连'", [0]),
        ("title BETWEEN '100%' AND 'b'", [2, 3]),
        ("title NOT BETWEEN '100%' AND 'b'", [0, 1]),
        ("title LIKE '_色%'", [0, 1]),
        ("title LIKE '%裙'", [0]),
        ("title LIKE '红%T_'", [1]),
        ("title LIKE '____'", []),
        ("title LIKE '_____'", [0, 1, 2, 3]),
        ("title NOT LIKE '_色%'", [2, 3]),
        ("title LIKE 'a\\_b%'", [3]),
        ("title LIKE ''", []),
        ("title LIKE '红色%' AND title LIKE '%裙'", [0]),
        ("category LIKE '%\"%'", [3]),
        (f"stock > {BIG - 1}", [2]),
        (f"stock >= {BIG}", [2]),
        (f"stock < -{BIG - 1}", [3]),
        (f"stock BETWEEN {BIG - 1} AND {BIG}", [2]),
        # A fraction equals no whole number.
        ("stock = 1.5", []),
        ("stock != 1.5", [0, 1, 2, 3]),
        ("NOT stock = 1.5", [0, 1, 2, 3]),
        ("stock IN (1.5, 1)", [1]),
        ("stock NOT IN (1.5, 2.5)", [0, 1, 2, 3]),
        ("stock IN (1.5)", []),
        ("price < 1 OR price > 1.6 AND new", [0, 2, 3]),
        ("(price < 1 OR price > 1.6) AND new", [0, 2]),
        # A comparison with a missing value is neither true nor false; false AND unknown is false.
        ("NOT (price > 5 AND stock > 9)", [0, 1, 2, 3]),
        ("NOT (id = 'p0' AND price = 9)", [0, 1, 2, 3, 4]),
        ("NOT (price < 0 OR stock > 5)", [0, 1]),
        ("NOT (NOT (price = 2))", [2]),
        (" and ".join(["price < 1"] * 2000), [0, 3]),
        # Dates are compared as dates, however they are written.
        ("上架 > '2024/6/15'", [2]),
        ("上架 > '2024-6-1'", [1, 2, 3]),
        ("上架 >= '2024年6月1日' AND 上架 < '2024.6.2'", [0, 1]),
        ("上架 = '2024/06/01'", [0]),
        ("上架 = '2024-06-01 8:30'", [1]),
        ("上架 != '2024-06-01 00:00:00'", [1, 2, 3]),
        ("NOT 上架 > '2024/6/15'", [0, 1, 3]),
        ("'2024/6/15' >= 上架", [0, 1, 3]),
        ("上架 IN ('2024年11月2日', '2024-6-15')", [2, 3]),
        ("上架 BETWEEN '2024-6-1' AND '2024-6-15'", [0, 1, 3]),
        ("上架 LIKE '2024-06%'", [0, 1, 3]),
        ("上架 IS NULL", [4]),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_a_filter_finds_the_same_rows_in_every_engine(
    find: Find, where: str, rows: list[int]
) -> None:
    assert find(where) == rows


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("", "The filter is empty"),
        (";", "not an expression"),
        ("price <", "found: <"),
        ("price < 7 price", "found: price"),
        ("price < 7; price > 3", "not an expression"),
        ("category = 'x", "not an expression"),
        # Closed brackets cannot widen a filter, and nothing after it is lost in silence.
        ("id = 'zzz') OR (1 = 1", "found: )"),
        ("1 = 1); DROP TABLE items", "found: )"),
        ("price = 1 -- new", "cannot do this"),
        ("price = 1 /* x */", "not an expression"),
        ("price = 1 {# x #}", "not an expression"),
        ("1 = 1", "cannot do this"),
        ("1/0 = price", "found: 1 / 0"),
        ("repeat('a', 1000000000) = id", "found: REPEAT('a', 1000000000)"),
        ("range(0, 1000000000) = price", "cannot do this"),
        ("length(thumbnail) > 3", "no attribute 'thumbnail'"),
        ("price IN (SELECT 1)", "found: "),
        ("EXISTS (SELECT 1)", "found: "),
        ("price = stock", "cannot do this"),
        ("price = NULL", "IS NULL"),
        ("price IN (1, NULL)", "found: NULL"),
        ("price IN ()", "cannot do this"),
        ("price + 1 = 2", "cannot do this"),
        ("title ILIKE 'x'", "cannot do this"),
        ("title LIKE 'x' ESCAPE 'y'", "cannot do this"),
        ("price BETWEEN SYMMETRIC 3 AND 1", "cannot do this"),
        ("CASE WHEN new THEN new END", "cannot do this"),
        ("price::int = 3", "cannot do this"),
        ("price = ?", "cannot do this"),
        ("price = - -3", "cannot do this"),
        ("new < TRUE", "cannot do this"),
        ("prise < 3", "Did you mean price?"),
        ("`a c` < 3", "Did you mean `a b`?"),
        ("category = 灰色", "single quotes: '灰色'"),
        ("category = ‘灰色’", "English keyboard"),
        ("price ＜ 3", "English keyboard"),
        ("category = '灰色'，price < 3", "English keyboard"),
        ("库存 < 3", "xmr index info"),  # '库存' < 3 would be no help
        ("商品名称 LIKE '%裙%'", "Did you mean title?"),
        ("商品ID = '7'", "Did you mean id?"),
        ("category < 99.5", "Not all its values were numbers"),
        ("category = 5", "category: a text"),
        ("category < '99.5'", "'1000' before '99'"),
        ("'￥1,299' <= category", "Not all its values were numbers"),
        ("category BETWEEN '1' AND '2'", "'1000' before '99'"),
        ("上架 > 20240615", "上架: a date"),
        ("上架 > '6/1/2024'", "Dates go in single quotes"),
        ("上架 = '2024-02-30'", "上架: a date"),
        ("上架 LIKE '2024/6%'", "found: 上架: LIKE '2024/6%'"),
        ("title LIKE 5", "title: a text"),
        ("price = 'x'", "price: a number"),
        ("price", "price: a number"),
        ("new = 1", "new: true or false"),
        ("title LIKE '" + 3000 * "%a" + "'", "too many wildcards"),
        ("id IN (" + 50_000 * "'a', " + "'b')", "too long"),
        (f"stock = {BIG + 1}", "stock: a whole number"),
        ("price < 1e999", "price: a number"),
        # A date without quotes is a division or a difference, an amount an unknown name.
        ("上架 > 2024/6/1", "Dates go in single quotes: '2024/6/1'"),
        ("上架 > 2024-06-01 8:30 AND new", "Dates go in single quotes: '2024-06-01 8:30'"),
        ("new AND 上架 >= 2024年6月1日", "Dates go in single quotes: '2024年6月1日'"),
        ("上架 BETWEEN 2024.6.1 AND 2024.7.1", "Dates go in single quotes: '2024.6.1'"),
        ("上架 IN (2024/6/1)", "Dates go in single quotes: '2024/6/1'"),
        ("price < ￥200", "Write the number alone: 200"),
        ("price < '￥200'", "Write the number alone: 200"),
        ("price < '200'", "Write the number alone: 200"),
        ("price < 200元", "Write the number alone: 200"),
        ("price < 1,299", "Write the number alone: 1299"),
        ("prise > 2024/6/1", "Did you mean price?"),
        ("price < 7 price", "expected: price < 200 AND category = '…'"),
        ("price LIKE '3'", "price: a number"),
        ("price < " + 5000 * "9", "price: a number"),
        (5000 * "(" + "price < 3" + 5000 * ")", "nested too deeply"),
        (5000 * "NOT " + "price < 3", "nested too deeply"),
        ("category = '\ud800'", "not an expression"),
    ],
    ids=lambda text: ascii(text)[:40],
)
def test_a_wrong_filter_is_refused_before_an_engine_sees_it(where: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_filter(where, LAYOUT)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 700
    str(caught.value).encode()


def test_a_name_that_no_filter_can_write_is_refused_for_every_engine(tmp_path: Path) -> None:
    for name in [
        'a"b',
        "a`b",
        "a.b",
        "a\\b",
        "",
        " ",
        "a\nb",
        "a\0b",
        "Title",
        "_rowid",
        "image_count",
    ]:
        with pytest.raises(InputError, match="attribute"):
            require_names([name])
        layout = Layout("model", 8, attributes={name: "int"})
        for uri in (str(tmp_path / "index"), f"qdrant://{tmp_path}/qdrant/items"):
            with pytest.raises(InputError, match="attribute"):
                create_engine(uri, layout)
    assert list(tmp_path.iterdir()) == []
    require_names(["a b", "库存(件)", "[cm]", "a:b", "50%", "it's", "a/b", "😀", "Price", "price"])


def test_a_predicate_that_matches_too_many_values_is_refused() -> None:
    pytest.importorskip("qdrant_client")
    from bagformer_cli.index.qdrant_filters import MAX_LISTED, key_of, qdrant_filter

    assert key_of("a:b") == '"a:b"'
    tree = parse_filter("title > 'a'", LAYOUT)
    with pytest.raises(InputError, match="Too many values"):
        qdrant_filter(tree, lambda name: (f"b{n}" for n in range(MAX_LISTED + 1)))


@pytest.mark.parametrize(
    ("where", "quotes"),
    [
        ("flavour = 'red'", False),
        ("flavour IN ('red', 'blue')", False),
        ("category = 灰色", True),
        ("category IN (灰色)", True),
    ],
)
def test_quotes_are_proposed_for_text_and_not_for_an_attribute(where: str, quotes: bool) -> None:
    with pytest.raises(InputError) as caught:
        parse_filter(where, LAYOUT)
    assert ("single quotes" in str(caught.value)) is quotes
