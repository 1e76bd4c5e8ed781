"""Types of attributes: a number only where every value is plainly one."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bagformer_cli.data.catalogue.dates import date_of
from bagformer_cli.data.catalogue.values import (
    MAX_WHOLE,
    Number,
    SeenValues,
    converted,
    number_of,
    remark_of,
    truth_of,
    whole_numbers,
)
from bagformer_cli.errors import DataError


def seen(*values: Any) -> SeenValues:
    found = SeenValues()
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
        (("2024/6/1", "2024-06-15", "2024年7月1日", "2024-6-1 8:30"), "date"),
        (("2024/6/1", "待定"), "str"),
        (("2024/6/1", 20240601), "str"),
        (("6/1/2024", "6/15/2024"), "str"),
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
    assert "not numbers, because of 1 of 3 values: '面议' (t.csv:4). Correct" in odd
    currency = remark_of("price", seen("¥1", "$2", "3"), "str")
    assert currency is not None
    assert "'$2' (t.csv:3) is in another currency than '¥1'" in currency
    assert remark_of("price", seen("1", "2.5"), "float") is None
    assert remark_of("code", seen("A1", "2", "B3"), "str") is None
    long = remark_of("x", seen("1", "2", "长" * 1000), "str")
    assert long is not None
    assert len(long) < 250


def test_the_values_that_make_a_column_text_are_counted_and_the_first_are_named() -> None:
    one_of_two = remark_of("price", seen("199", "面议"), "str")
    assert one_of_two is not None
    many = remark_of("price", seen(*["1"] * 5, *["面议"] * 5), "str")
    assert many is not None
    assert (
        "because of 5 of 10 values: '面议' (t.csv:7), '面议' (t.csv:8), '面议' (t.csv:9) …" in many
    )
    dates = remark_of("上架", seen("2024/6/1", "2024/6/2", 7, "待定"), "str")
    assert dates is not None
    assert "not dates, because of 2 of 4 values: 7 (t.csv:4), '待定' (t.csv:5)" in dates


def test_dates_are_written_in_one_form_and_a_date_that_may_be_misread_stays_text() -> None:
    rewritten = remark_of("上架", seen("2024-06-01", "2024/6/2"), "date")
    assert rewritten is not None
    assert "is read as dates: '2024/6/2' (t.csv:3) is 2024-06-02" in rewritten
    assert remark_of("上架", seen("2024-06-01", "2024-06-02"), "date") is None
    month_first = remark_of("上架", seen("6/1/2024", "13/6/2024"), "str")
    assert month_first is not None
    assert "nothing says which number is the month" in month_first
    assert converted("2024年6月1日", "date", "上架", "t:1") == "2024-06-01"
    assert converted("2024/6/1", "str", "上架", "t:1") == "2024/6/1"  # an index made before
    with pytest.raises(DataError, match="expected: a date"):
        converted("待定", "date", "上架", "t:1")


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("2024/6/1", "2024-06-01"), ("2024-06-01", "2024-06-01"), ("2024.6.1", "2024-06-01"),
        ("2024年6月1日", "2024-06-01"), ("２０２４/６/１", "2024-06-01"),
        ("2024年06月01号", "2024-06-01"),
        ("2024/6/1 8:05", "2024-06-01 08:05:00"), ("2024-06-01T08:05:09", "2024-06-01 08:05:09"),
        ("2024年6月1日8:05", "2024-06-01 08:05:00"), ("2024-6-1 00:00", "2024-06-01"),
        ("2024-06-01 08:05:09.250", "2024-06-01 08:05:09.25"), ("2024-2-29", "2024-02-29"),
    ],
)  # fmt: skip
def test_dates(text: str, date: str) -> None:
    assert date_of(text) == date
    assert date_of(date) == date


@pytest.mark.parametrize(
    "value",
    [
        "2024-2-30", "2023/2/29", "2024/13/1", "6/1/2024", "2024/6-1", "2024-06", "20240601", "",
        "1000-2-3", "2024-06-01Z", "2024-06-01T08:30:00Z", "2024-06-01 25:00", "2024-6-112:30",
        "2024-6-1-2", "a2024-6-1", 20240601, None, True, "2024-06-01 8", "9" * 5000,
    ],
)  # fmt: skip
def test_other_values_are_no_dates(value: Any) -> None:
    assert date_of(value) is None


@given(st.lists(st.datetimes(datetime(1900, 1, 1), datetime(2199, 12, 31)), min_size=2))
def test_the_order_of_dates_as_text_is_the_order_of_the_times(times: list[datetime]) -> None:
    texts = {time: date_of(str(time)) for time in times}
    assert [texts[time] for time in sorted(texts)] == sorted(str(text) for text in texts.values())


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
