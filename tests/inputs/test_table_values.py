"""Numbers and codes in tables: no digit of an id or a code is lost, and prices are numbers."""

from __future__ import annotations

import pytest

from tests.support.black_box import (
    Shop,
    assert_refused,
)


def test_ids_of_nineteen_digits_stay_apart(shop: Shop) -> None:
    shop.case("05-long-ids")
    products, _ = shop.built(shop.folder / "snow.csv")
    assert set(products) == {"1234567890123456789", "1234567890123456788"}
    for where in ("spu = 1234567890123456789", "spu = '1234567890123456789'"):
        run = shop.search("--where", where)
        if run.code == 0:
            found = [hit["id"] for hit in run.json()["results"][0]["hits"]]
            assert found == ["1234567890123456789"], where
        else:  # a text column compared with a number, or the reverse, may be refused in words
            assert_refused(run, "spu")
    for identity, one in products.items():
        assert str(one["attributes"]["spu"]) == identity


@pytest.mark.parametrize(
    "values",
    [
        ("12345678901234567890", "12345678901234567891"),  # beyond 64 bits signed
        ("99999999999999999999999999", "99999999999999999999999998"),
        ("9007199254740993", "9007199254740992"),  # 2^53 + 1
        ("9007199254740993", "0.5"),  # a decimal beside a number that a float cannot hold
        ("1234567890123456789", ""),
    ],
)
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_no_digit_of_a_long_number_is_lost(shop: Shop, values: tuple[str, str], form: str) -> None:
    if form == "csv":
        lines = ["id,image,title,spu"]
        lines += [f"a{n},p{n}.jpg,商品{n},{value}" for n, value in enumerate(values)]
    else:
        lines = [
            f'{{"id": "a{n}", "image": "p{n}.jpg", "title": "商品{n}", "spu": {value or "null"}}}'
            for n, value in enumerate(values)
        ]
    products, _ = shop.built(shop.write(f"long.{form}", "\n".join(lines) + "\n"))
    for number, value in enumerate(values):
        found = products[f"a{number}"]["attributes"].get("spu")
        assert ("" if found is None else str(found)) == value


def test_codes_stay_as_they_are_written(shop: Shop) -> None:
    shop.case("06-codes-as-floats")
    products, _ = shop.built(shop.folder / "model.csv")
    assert products["1"]["attributes"] == {"型号": "3E10", "货号": "1_000"}
    assert products["2"]["attributes"] == {"型号": "2E5", "货号": "2_500"}
    assert set(shop.products("型号 = '3E10'")) == {"1"}
    assert set(shop.products("货号 = '2_500'")) == {"2"}


CODES = [
    "3E10", "1_000", "0047583311587E590003", "00475E59", "1e400", "inf", "nan", "-inf", "NaN",
    "Infinity", "0x1F", "007", "1e3", "True1",
]  # fmt: skip


def columns(*rows: list[str]) -> str:
    """A CSV with products a0, a1, … and attributes c0, c1, …, whose values may hold commas."""
    names = ",".join(f"c{number}" for number in range(len(rows[0])))
    lines = [
        ",".join([f"a{n},p{n}.jpg,商品{n}", *(f'"{value}"' for value in values)])
        for n, values in enumerate(rows)
    ]
    return "\n".join([f"id,image,title,{names}", *lines]) + "\n"


def test_a_code_among_codes_stays_text(shop: Shop) -> None:
    products, _ = shop.built(shop.write("codes.csv", columns(CODES, CODES)))
    for number, code in enumerate(CODES):
        assert products["a0"]["attributes"][f"c{number}"] == code
    every = " AND ".join(f"c{number} = '{code}'" for number, code in enumerate(CODES))
    assert set(shop.products(every)) == {"a0", "a1"}


def test_one_code_makes_the_whole_column_text(shop: Shop) -> None:
    table = shop.write(
        "codes.csv", "id,image,title,code\na0,p0.jpg,红裙,1500\na1,p1.jpg,蓝裤,3E10\n"
    )
    products, _ = shop.built(table)
    assert [products[name]["attributes"]["code"] for name in ("a0", "a1")] == ["1500", "3E10"]


def test_plain_numbers_are_numbers(shop: Shop) -> None:
    values = ["1", "-7", "19.90", "0.5", "0", "199"]
    table = columns(values, ["1000"] * len(values)).replace('"', "")
    products, _ = shop.built(shop.write("numbers.csv", table))
    for number, value in enumerate(values):
        assert products["a0"]["attributes"][f"c{number}"] == float(value)
    every = " AND ".join(f"c{number} < 999" for number in range(len(values)))
    assert set(shop.products(every)) == {"a0"}


@pytest.mark.parametrize("file", ["yuan.csv", "comma.csv"])
def test_prices_with_signs_and_thousands_commas_are_numbers_and_said_so(
    shop: Shop, file: str
) -> None:
    shop.case("24-yuan-price")
    run = shop.build(shop.folder / file)
    assert run.code == 0, run.err
    assert "price" in run.err  # a remark: how the column was read
    prices = {name: one["attributes"]["price"] for name, one in shop.products().items()}
    expected = {
        "yuan.csv": {"a1": 199, "a2": 89, "a3": 1299, "a4": 45},
        "comma.csv": {"a1": 1099, "a2": 89, "a3": 1299, "a4": 2045},
    }[file]
    assert prices == expected
    assert set(shop.products("price < 200")) == {n for n, p in expected.items() if p < 200}


@pytest.mark.parametrize("sign", ["¥", "￥", "$", "¥ "])
def test_a_currency_sign_with_every_thousands_form(shop: Shop, sign: str) -> None:
    prices = ["1,299", "1,299.00", "1,234,567", "45"]
    table = columns([sign + price for price in prices], [f"{sign}10"] * len(prices))
    products, _ = shop.built(shop.write("price.csv", table))
    for number, price in enumerate(prices):
        assert products["a0"]["attributes"][f"c{number}"] == float(price.replace(",", ""))
    assert set(shop.products("c0 < 20 AND c1 < 20 AND c2 < 20 AND c3 < 20")) == {"a1"}


def test_a_comma_that_parts_no_thousands_makes_no_number(shop: Shop) -> None:
    sizes = ["1,2", "12,34,5", "1,,000", "3,14"]
    products, _ = shop.built(shop.write("list.csv", columns(sizes, sizes)))
    for number, size in enumerate(sizes):
        assert products["a0"]["attributes"][f"c{number}"] == size


def test_a_whole_number_column_takes_decimals_in_filters(shop: Shop) -> None:
    shop.case("21-add-float")
    shop.built(shop.folder / "ev1.csv")
    assert set(shop.products("price < 99.5")) == {"2"}
    assert set(shop.products("price >= 198.99 AND price <= 199.01")) == {"1"}
    assert set(shop.products("price = 199.0")) == {"1"}


def test_a_whole_number_column_takes_decimals_in_later_adds(shop: Shop) -> None:
    shop.case("21-add-float")
    shop.built(shop.folder / "ev1.csv")
    run = shop.add(shop.folder / "ev2.csv")
    assert run.code == 0, run.err
    assert run.json()["skipped"] == []
    prices = {name: one["attributes"]["price"] for name, one in shop.products().items()}
    assert prices == {"1": 199, "2": 89, "3": 199.5, "4": 10}
    assert set(shop.products("price > 199.2")) == {"3"}
