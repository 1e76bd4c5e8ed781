"""The layout in a file's metadata: read back, or refused if it is damaged or of another version."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from bagformer_cli.errors import InputError
from bagformer_cli.index.rows import KEY, Layout

LAYOUT = Layout("model", 8, attributes={"price": "float", "stock": "int"})


def stored(value: Any) -> pa.Schema:
    return pa.schema([], {KEY: json.dumps(value)})


def test_a_layout_is_read_back() -> None:
    assert Layout.from_schema(LAYOUT.schema) == LAYOUT
    assert Layout.from_schema(pa.schema([])) is None


@pytest.mark.parametrize(
    "change",
    [
        {"dim": "x"}, {"dim": -1}, {"dim": True}, {"dim": 10**12}, {"dtype": 7}, {"dtype": [1]},
        {"attributes": [1]}, {"attributes": {"a": 3}}, {"attributes": {"a": ["int"]}},
        {"sides": None}, {"sides": []}, {"sides": ["../x"]}, {"sides": [[1]]}, {"fewer": "x"},
        {"fewer": {"pool": "4"}}, {"one": "first"}, {"model": None}, {"more": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_damaged_layout_is_none(change: dict[str, Any]) -> None:
    assert Layout.from_schema(stored({**LAYOUT.to_json(), **change})) is None


@pytest.mark.parametrize("value", [None, 7, [], "x", {}, [[[]]]])
def test_other_values_are_no_layout(value: Any) -> None:
    assert Layout.from_schema(stored(value)) is None


@pytest.mark.parametrize("change", [{"version": 999}, {"version": 2, "quality": 3}])
def test_a_layout_of_another_version_names_both(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="format 1") as caught:
        Layout.from_schema(stored({**LAYOUT.to_json(), **change}))
    assert f"format {change['version']}" in str(caught.value.found)


def test_a_vector_type_of_an_earlier_version_is_named() -> None:
    with pytest.raises(InputError, match="residual2"):
        Layout.from_schema(stored({**LAYOUT.to_json(), "dtype": "residual2"}))
