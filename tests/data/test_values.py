"""Types of attributes: a number only where every value is plainly one."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bagformer_cli.data.catalogue.values import (
    MAX_WHOLE,
    Number,
    Seen,
    converted,
    number_of,
    remark_of,
    truth_of,
    whole_numbers,
)
from bagformer_cli.errors import DataError


def seen(*values: Any) -> Seen:
    found = Seen()
    for line, value in enumerate(values, 2):
        found.add(value, f"t.csv:{line}")
    return found


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("199", 199), ("-7", -7), ("19.90", 19.9), (".5", 0.5), ("0", 0), (" 5 ", 5), (3, 3),
        (2.5, 2.5), ("0.30000000000000004", 0.1 + 0.2), (str(MAX_WHOLE), MAX_WHOLE),
    ],
)  # fmt: skip
def test_plain_numbers(value: Any, number: float) -> None:
    assert number_of(value) == Number(number)


@pytest.mark.parametrize(
    ("text", "number", "currency"),
    [
        ("¥1,299", 1299, "CNY"), ("￥１，２９９．５０", 1299.5, "CNY"), ("89.00元", 89, "CNY"),
        ("RMB 5", 5, "CNY"), ("5 CNY", 5, "CNY"), ("¥5元", 5, "CNY"), ("$5", 5, "$"),
        ("US$1,000", 1000, "$"), ("-¥5", -5, "CNY"), ("¥-5", -5, "CNY"), ("€3", 3, "€"),
        ("1,234,567", 1234567, ""), ("-1,000.5", -1000.5, ""), ("１９９", 199, ""),
    ],
)  # fmt: skip
def test_numbers_in_dress(text: str, number: float, currency: str) -> None:
    assert number_of(text) == Number(number, currency, plain=False)


@pytest.mark.parametrize(
    "value",
    [
        "007", "3E10", "1_000", "00475E59", "1e3", "nan", "inf", "-", "", "0x1F", "+5", "5.", "1,2",
        "12,34,5", "1,,000", "0,100", "01,000", "¥", "元", "¥¥5", "$5元", "--5", "¥-5-", "½", "²",
        "٣", "①", "9007199254740993", "-9007199254740993", "1234567890123456789", MAX_WHOLE + 1,
        "0.1234567890123456789", True, "true", "199元/件", "1.2万", "5%", "¥007", "2024-01-02",
    ],
)  # fmt: skip
def test_other_values_are_no_numbers(value: Any) -> None:
    assert number_of(value) is None


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.decimals(-9, 9))
def test_a_number_that_is_read_is_the_one_that_is_written(value: Any) -> None:
    text = format(Decimal(str(value)), "f")
    found = number_of(text)
    if found is not None:
        assert Decimal(repr(found.value)) == Decimal(text)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (("1", "2.5", "¥3"), "float"),
        (("1", "3E10"), "str"),
        (("¥1", "$1"), "str"),
        (("¥1", "1元", "1"), "float"),
        (("true", "FALSE", True), "bool"),
        (("true", "1"), "str"),
        ((1, 2.5, "7"), "float"),
        ((MAX_WHOLE + 1, 0.5), "str"),
    ],
)
def test_the_type_of_a_column_is_that_of_all_its_values(values: Any, kind: str) -> None:
    assert seen(*values).type == kind


def test_a_reading_that_may_surprise_is_said() -> None:
    dressed = remark_of("price", seen("1", "¥1,299"), "float")
    assert dressed is not None
    assert "'¥1,299' (t.csv:3) is 1299" in dressed
    odd = remark_of("price", seen("1", "2", "面议"), "str")
    assert odd is not None
    assert "'面议' (t.csv:4) is not a number" in odd
    currency = remark_of("price", seen("¥1", "$2", "3"), "str")
    assert currency is not None
    assert "'$2' (t.csv:3) is in another currency than '¥1'" in currency
    assert remark_of("price", seen("1", "2.5"), "float") is None
    assert remark_of("code", seen("A1", "2", "B3"), "str") is None
    long = remark_of("x", seen("1", "2", "长" * 1000), "str")
    assert long is not None
    assert len(long) < 200


def test_values_get_the_type_of_their_column() -> None:
    assert converted("¥1,299", "float", "price", "t:1") == 1299.0
    assert converted("TRUE", "bool", "ok", "t:1") is True
    assert converted(7, "str", "code", "t:1") == "7"
    assert converted(7.0, "str", "code", "t:1") == "7"
    assert converted("¥1,299", "str", "price", "t:1") == "¥1,299"
    assert converted("1234567890123456789", "int", "spu", "t:1") == 1234567890123456789
    for value, kind in [("199.5", "int"), ("3E10", "float"), ("1", "bool"), (str(2**63), "int")]:
        with pytest.raises(DataError, match="another type"):
            converted(value, kind, "x", "t:1")


def test_whole_numbers_are_shown_without_a_point() -> None:
    assert str(whole_numbers({"a": 199.0, "b": 0.5, "c": "7", "d": True, "e": 1e300})) == str(
        {"a": 199, "b": 0.5, "c": "7", "d": True, "e": 1e300}
    )


def test_truth_values() -> None:
    assert [truth_of(value) for value in ("True", " false", False, "yes", 1, "")] == [
        True, False, False, None, None, None
    ]  # fmt: skip
